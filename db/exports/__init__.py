"""Exports of projects: files with all rows of a project, which another Troupe imports."""

from db.exports.imports import import_export
from db.exports.writing import NotExportable, export_project

__all__ = ["NotExportable", "export_project", "import_export"]
