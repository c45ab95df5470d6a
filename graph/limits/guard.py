"""What guards a process against its clients: the settings, and who uses how much of it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

from graph.core.context import Context
from graph.execution.documents import documents
from graph.limits.concurrency import Running, Turns
from graph.limits.rates import Guesses, Rates
from graph.settings import Settings

# Who is not known can ask for little more than the schema, and need not be read beyond that.
UNKNOWN = {"max_document_length": 10_000, "max_tokens": 1_000}

# How many connections of each kind one viewer's operations have; the others are for others.
CONNECTIONS = 8


class Guard:
    """The limits of a process, with what it counts and keeps to hold them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.unknown = settings.model_copy(
            update={name: min(most, getattr(settings, name)) for name, most in UNKNOWN.items()}
        )
        self.documents = documents()
        self.rates = Rates(settings.rate_per_second, settings.rate_burst)
        self.guesses = Guesses(
            settings.login_failures_per_account, settings.login_failures_per_address
        )
        self.turns = Turns(CONNECTIONS)
        # What takes the processor for long is done for each viewer one after another.
        self.aside = Turns(1)
        self.running = Running(settings.max_running, settings.max_running_per_viewer)
        # Nobody chooses when the events of streams come, so that they wait and are not refused.
        self.events = asyncio.Semaphore(settings.max_running)


def guard_of(context: Context) -> Guard:
    """The guard of a context; one of its own where no server gave it one."""
    if context.guard is None:
        context.guard = Guard(Settings())
    return context.guard


def asker_of(context: Context) -> Hashable:
    """Whose rate an operation counts for: a user's, an agent's, or an address's."""
    return context.viewer.name or ("address", network(context.address))


def network(address: str | None) -> Hashable:
    """An address as one client has it: of IPv6, everybody is given 2⁶⁴ to choose from."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped  # which `::` has for those of IPv4, all in one network
        return int(parsed) >> 64 if mapped is None else str(mapped)
    return address
