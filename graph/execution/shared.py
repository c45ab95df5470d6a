"""Live subscriptions that share the statements that read their messages."""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

from db import Viewer
from db.events.topics import Change
from db.result_limits import ResultTooLarge
from graph.core.updates import Message
from graph.execution.pipeline import Read, Reader
from graph.execution.subscription import Subscription
from graph.limits.rates import Rates

# The largest number of rows, by the cost of the operation, that one statement reads.
MOST_ROWS = 20_000

# The largest number of messages of one statement.
BATCH = 100

# The largest number of changes that wait. If there are more, each subscription reads them itself.
MOST_WAITING = 10_000

ReadMessages = Callable[[Sequence[Reader], Sequence[Message]], Awaitable[list[Read]]]
"""Reads messages for viewers, each if they may see it."""

Share = tuple[Viewer, list[Subscription]]
"""A viewer, with the subscriptions that share their messages."""


def batch_size(cost: int) -> int:
    """How many messages of an operation of this cost one statement reads, for all viewers."""
    return max(1, MOST_ROWS // max(1, cost))


def _halves(
    shares: Sequence[Share], messages: Sequence[Message]
) -> Iterator[tuple[Sequence[Share], Sequence[Message]]]:
    """Half as many messages for each statement, in their order."""
    if len(messages) > 1:
        middle = len(messages) // 2
        yield from ((shares, messages[:middle]), (shares, messages[middle:]))
    else:
        middle = len(shares) // 2
        yield from ((shares[:middle], messages), (shares[middle:], messages))


class Shared:
    """Live subscriptions with the same selection and arguments, of viewers of one kind."""

    def __init__(self, first: Subscription, read: ReadMessages, rates: Rates) -> None:
        self.topics = first.topics
        self.members: defaultdict[Viewer, set[Subscription]] = defaultdict(set)
        self._first, self._read, self._rates = first, read, rates
        self._compiled = first.run.compiled
        self._changes: deque[Change] = deque()
        self._sending: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> None:
        """Add a subscription that has read everything."""
        self.members[subscription.viewer].add(subscription)

    def remove(self, subscription: Subscription, viewer: Viewer) -> None:
        """Remove the subscription of a viewer."""
        members = self.members[viewer]
        members.discard(subscription)
        if not members:
            del self.members[viewer]

    def push(self, changes: Sequence[Change]) -> None:
        """Send the messages of changes, after those of earlier ones."""
        self._changes.extend(changes)
        if len(self._changes) > MOST_WAITING:
            self.interrupt()
        elif self._sending is None:
            # In an empty context: it outlives what calls this.
            empty = contextvars.Context()
            self._sending = asyncio.create_task(self._send(), context=empty)

    def interrupt(self) -> None:
        """Have each go on by itself."""
        self._changes.clear()
        for _, members in self._live():
            for member in members:
                member.interrupt()

    async def _send(self) -> None:
        try:
            while self._changes and (shares := self._live()):
                await self._send_batch(shares)
        except Exception:
            # Each reads by itself then, so that an error meets only those whom it concerns.
            self.interrupt()
        finally:
            self._changes.clear()
            self._sending = None

    def _live(self) -> list[Share]:
        return [
            (viewer, live)
            for viewer, members in self.members.items()
            if (live := [member for member in members if member.is_live])
        ]

    async def _send_batch(self, shares: Sequence[Share]) -> None:
        size = batch_size(self._first.run.cost)
        count = min(len(self._changes), BATCH, max(1, size // len(shares)))
        changes = [self._changes.popleft() for _ in range(count)]
        messages = self._first.messages(changes)
        for start in range(0, len(shares), size):
            await self._send_to(shares[start : start + size], messages)
        for _, members in shares:
            for member in members:
                member.advance(changes[-1].place)

    async def _send_to(self, shares: Sequence[Share], messages: Sequence[Message]) -> None:
        readers = [Reader(found[0].run, viewer, self._compiled) for viewer, found in shares]
        try:
            read = await self._read(readers, messages)
        except ResultTooLarge:
            if len(shares) == len(messages) == 1:
                raise
            for part, some in _halves(shares, messages):
                await self._send_to(part, some)
            return
        for number, message, body in read:
            run, (_, members) = readers[number].run, shares[number]
            if self._rates.wait(run.context.client, run.cost):
                for member in members:
                    member.interrupt()
                continue
            self._rates.take(run.context.client, run.cost)
            for member in members:
                member.deliver(message, body)
            await asyncio.sleep(0)  # many writes may have taken long
