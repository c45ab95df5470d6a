"""Importers of other programs' files, which are imported as a whole or refused with a reason."""

from db.imports.conversations import import_chats
from db.imports.files import NotImportable
from db.imports.report import Report
from db.imports.taskmaster import import_plan

__all__ = ["NotImportable", "Report", "import_chats", "import_plan"]
