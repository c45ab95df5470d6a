"""The limits of a process, with what it counts to hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

from db import Viewer
from graph.core.context import Context
from graph.limits.concurrency import RunningOperations, Semaphores
from graph.limits.rates import Guesses, Rates
from graph.settings import Settings

# Who is not known can ask for little more than the schema, and need not be read beyond that.
ANONYMOUS = {"max_document_length": 10_000, "max_tokens": 1_000}

# How many connections of each kind one viewer's operations have; the others are for others.
CONNECTIONS = 8


class Limits:
    """The limits of a process: the settings, and how much each client uses."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._anonymous = settings.model_copy(
            update={name: min(most, getattr(settings, name)) for name, most in ANONYMOUS.items()}
        )
        self.rates = Rates(settings.rate_per_second, settings.rate_burst)
        self.guesses = Guesses(
            settings.login_failures_per_account, settings.login_failures_per_address
        )
        self.running = RunningOperations(settings.max_running, settings.max_running_per_viewer)
        self.connections = Semaphores(CONNECTIONS)
        # Work that uses the processor for long is done for each client one after another.
        self.long_work = Semaphores(1)
        # Nobody chooses when the events of streams come, so that they wait and are not refused.
        self.events = asyncio.Semaphore(settings.max_running)

    def settings_for(self, context: Context) -> Settings:
        """The settings that limit the documents of a viewer."""
        return self._anonymous if context.is_anonymous else self.settings

    def shows_schema(self, context: Context) -> bool:
        """Whether a viewer may read the schema."""
        return self.settings.shows_schema(anonymous=context.is_anonymous)


def client_of(viewer: Viewer | None, address: str | None) -> Hashable:
    """The client whose limits an operation counts for: a user, an agent, or a network."""
    return (viewer and viewer.name) or ("address", network(address))


def network(address: str | None) -> Hashable:
    """The network of an address that one client has: in IPv6, everybody is given 2⁶⁴ addresses."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped  # which `::` has for those of IPv4, all in one network
        return int(parsed) >> 64 if mapped is None else str(mapped)
    return address
