"""The errors of commands, as sentences for the user."""

from __future__ import annotations

# What the errors come from is imported when there is one: it takes long.


class CommandError(Exception):
    """A command cannot be carried out; the message says why, and what to do."""


def error_message(error: Exception) -> str:
    """The message for an error: sentences for the user, without a traceback."""
    if isinstance(error, CommandError):
        return _sentence(error)
    from sqlalchemy.exc import DataError, DBAPIError

    from db.connections import OutcomeUnknown, is_disk_full, reason
    from db.embedded import EmbeddedError
    from db.errors import DomainError, Rejected
    from db.exports import NotExportable
    from db.imports import NotImportable
    from db.migrate import NotMigratable
    from db.poolers import SharedSession
    from db.settings import SettingsError

    if isinstance(error, Rejected):
        return " ".join(each.message for each in error.errors)
    expected = (DomainError, EmbeddedError, NotExportable, NotImportable, NotMigratable)
    if isinstance(error, (*expected, OutcomeUnknown, SettingsError, SharedSession)):
        return _sentence(error)
    if is_disk_full(error):
        return "The disk of the database is full; nothing was stored. Free some space and retry."
    if isinstance(error, DataError):
        return "The database rejected a value: it is too long or has the wrong type."
    if isinstance(error, DBAPIError | OSError):
        return (
            f"The database cannot be used ({reason(error)})."
            " Check TROUPE_DATABASE_URL and that the server is running."
        )
    return (
        f"Unexpected error: {type(error).__name__}: {error}. Please report it with the traceback,"
        " which `python -X dev -m graph …` prints."
    )


def _sentence(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text if text.endswith("?") else f"{text}."
