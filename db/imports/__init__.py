"""Importers of other programs' files, which are imported as a whole or refused with a reason."""

from db.imports.conversations import import_chats
from db.imports.files import NotImportable
from db.imports.projects import import_plan
from db.imports.report import Report

__all__ = ["NotImportable", "Report", "import_chats", "import_plan"]
