"""What may be wrong with the embedded database."""

from enum import StrEnum


class EmbeddedError(Exception):
    """The embedded database cannot be used; the message is one clear sentence for the user."""


class Outage(StrEnum):
    """Why a database that was there is not to be had, or takes nothing more."""

    DISK_FULL = "no room left"
    """Its disk is full."""
    RESTARTING = "restarting"
    """It ended, and is started again."""
