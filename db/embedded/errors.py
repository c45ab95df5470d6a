"""Errors and outages of the embedded PostgreSQL."""

from enum import StrEnum


class EmbeddedError(Exception):
    """The embedded PostgreSQL cannot be used; the message is one sentence for the user."""


class Outage(StrEnum):
    """Why a database is down or takes no writes."""

    DISK_FULL = "no room left"
    """Its disk is full."""
    RESTARTING = "restarting"
    """It ended, and is being restarted."""
