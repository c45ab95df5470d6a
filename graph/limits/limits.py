"""The limits of a process, with their current counts."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

from db import Viewer
from graph.core.context import Context
from graph.limits.concurrency import ClientSemaphores, RunningOperations
from graph.limits.rates import PasswordAttempts, Rates
from graph.settings import Settings

# The limits of documents without a token, which can select little more than the schema.
ANONYMOUS = {"max_document_length": 10_000, "max_tokens": 1_000}

# The maximum number of connections of each pool for one client, so that others have some too.
CONNECTIONS = 8


class Limits:
    """The limits of a process: the settings, and the current use of each client."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._anonymous = settings.model_copy(
            update={name: min(most, getattr(settings, name)) for name, most in ANONYMOUS.items()}
        )
        self.rates = Rates(settings.rate_per_second, settings.rate_burst)
        self.password_attempts = PasswordAttempts(
            settings.login_failures_per_account, settings.login_failures_per_address
        )
        self.running = RunningOperations(settings.max_running, settings.max_running_per_viewer)
        self.waiting = RunningOperations(
            settings.max_waiting, settings.max_waiting_per_viewer, "waiting"
        )
        self.connections = ClientSemaphores(CONNECTIONS)
        # Long computations of one client, such as validation in a thread, run one after another.
        self.long_work = ClientSemaphores(1)
        # Operations that have waited for something wait for each other instead of being refused:
        # clients do not choose when it happens.
        self.after_waiting = asyncio.Semaphore(settings.max_running)

    def settings_for(self, context: Context) -> Settings:
        """The limits of documents: lower without a token."""
        return self._anonymous if context.is_anonymous else self.settings

    def shows_schema(self, context: Context) -> bool:
        """Whether a viewer may read the schema."""
        return self.settings.shows_schema(anonymous=context.is_anonymous)


def client_of(viewer: Viewer | None, address: str | None) -> Hashable:
    """The client that an operation counts for: a user, an agent, or a network address."""
    return (viewer and viewer.name) or ("address", network(address))


def network(address: str | None) -> Hashable:
    """The address of a client: an IPv4 address, or an IPv6 network, which has 2⁶⁴ addresses."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped  # IPv4 addresses on an IPv6 socket are all in one network
        return int(parsed) >> 64 if mapped is None else str(mapped)
    return address
