"""Live subscriptions that share the statements that read their messages."""

from __future__ import annotations

import asyncio
import contextvars
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence

from db import Viewer
from db.events.topics import Change
from db.result_limits import ResultTooLarge
from graph.core.updates import Message
from graph.execution.pipeline import Delivery, Read, Reader
from graph.execution.subscription import Subscription
from graph.limits.rates import Rates

# The largest number of rows, by the cost of the operation, that one statement reads.
MOST_ROWS = 20_000

# The largest number of messages of one statement.
BATCH = 100

# The largest number of changes that wait. If there are more, each subscription reads them itself.
MOST_WAITING = 10_000

# How many messages are written before other tasks run, which takes a millisecond at most.
WRITES_AT_ONCE = 100

ReadMessages = Callable[[Sequence[Delivery]], Awaitable[list[Read]]]
"""Reads messages for viewers, each if they may see it."""


def batch_size(cost: int) -> int:
    """How many messages of an operation of this cost one statement reads, for all viewers."""
    return max(1, MOST_ROWS // max(1, cost))


class Audience:
    """Live subscriptions that get the same messages, apart from the rights of their viewers."""

    def __init__(self, first: Subscription) -> None:
        self.topics = first.topics
        self.members: defaultdict[Viewer, set[Subscription]] = defaultdict(set)
        self._first = first

    def message(self, change: Change) -> Message | None:
        """The message of a change, if there is one."""
        return self._first.message(change)

    def live(self) -> Iterator[tuple[Viewer, list[Subscription]]]:
        """Each viewer, with their subscriptions that are still live."""
        for viewer, members in self.members.items():
            if live := [member for member in members if member.is_live]:
                yield viewer, live

    def interrupt(self) -> None:
        """Have each go on by itself."""
        for _, members in self.live():
            for member in members:
                member.interrupt()


class Shared:
    """Live subscriptions with the same selection, of viewers of one kind.

    One statement reads the messages of all of them, whatever objects they follow.
    """

    def __init__(self, first: Subscription, read: ReadMessages, rates: Rates) -> None:
        self.audiences: dict[Hashable, Audience] = {}
        """Those who follow the same, by the object."""
        self._read, self._rates = read, rates
        self._cost, self._compiled = first.run.cost, first.run.compiled
        self._changes: deque[tuple[Audience, Change]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def add(self, subscription: Subscription) -> Audience:
        """Add a subscription that has read everything."""
        audience = self.audiences.get(subscription.subject)
        if audience is None:
            audience = self.audiences[subscription.subject] = Audience(subscription)
        audience.members[subscription.viewer].add(subscription)
        return audience

    def remove(self, subscription: Subscription, viewer: Viewer) -> bool:
        """Remove the subscription of a viewer; whether it was the last one of its audience."""
        audience = self.audiences[subscription.subject]
        members = audience.members[viewer]
        members.discard(subscription)
        if not members:
            del audience.members[viewer]
        if not audience.members:
            del self.audiences[subscription.subject]
        return not audience.members

    def push(self, changes: Sequence[tuple[Audience, Change]]) -> None:
        """Send the messages of changes, after those of earlier ones."""
        self._changes.extend(changes)
        if len(self._changes) > MOST_WAITING:
            self._interrupt()
        elif self._sending is None:
            # In an empty context: it outlives what calls this.
            empty = contextvars.Context()
            self._sending = asyncio.create_task(self._send(), context=empty)

    def _interrupt(self, batch: Sequence[tuple[Audience, Change]] = ()) -> None:
        """Have those go on by themselves whose changes wait, or are in the batch."""
        for audience in {audience for audience, _ in (*batch, *self._changes)}:
            audience.interrupt()
        self._changes.clear()

    async def _send(self) -> None:
        try:
            while self._changes:
                await self._send_batch()
        finally:
            self._sending = None

    async def _send_batch(self) -> None:
        """Send the messages of the next changes."""
        size = batch_size(self._cost)
        batch: list[tuple[Audience, Change]] = []
        shares: dict[Audience, list[tuple[Reader, list[Subscription]]]] = {}
        deliveries: list[Delivery] = []
        receivers: list[list[Subscription]] = []
        while self._changes and len(batch) < BATCH:
            audience, change = self._changes[0]
            if audience not in shares:
                shares[audience] = [
                    (Reader(live[0].run, viewer, self._compiled), live)
                    for viewer, live in audience.live()
                ]
            own = shares[audience]
            if deliveries and len(deliveries) + len(own) > size:
                break
            batch.append(self._changes.popleft())
            if (message := audience.message(change)) is not None:
                deliveries += [(reader, message) for reader, _ in own]
                receivers += [live for _, live in own]
        try:
            for start in range(0, len(deliveries), size):
                part = slice(start, start + size)
                await self._send_to(deliveries[part], receivers[part])
        except Exception:
            # Each reads by itself then, so that an error meets only those whom it concerns.
            self._interrupt(batch)
            return
        # Others may still wait for a change of which one audience has the message already.
        last = {audience: change.place for audience, change in batch}
        for audience, place in last.items():
            for _, members in shares[audience]:
                for member in members:
                    member.advance(place)

    async def _send_to(
        self, deliveries: Sequence[Delivery], receivers: Sequence[Sequence[Subscription]]
    ) -> None:
        """Read messages, and send each to those who share it."""
        try:
            read = await self._read(deliveries)
        except ResultTooLarge:
            if len(deliveries) == 1:
                raise
            middle = len(deliveries) // 2
            for part in (slice(middle), slice(middle, None)):
                await self._send_to(deliveries[part], receivers[part])
            return
        writes = 0
        for number, body in read:
            (reader, message), members = deliveries[number], receivers[number]
            run = reader.run
            if self._rates.wait(run.context.client, run.cost):
                for member in members:
                    member.interrupt()
                continue
            self._rates.take(run.context.client, run.cost)
            for member in members:
                member.deliver(message, body)
            writes += len(members)
            if writes >= WRITES_AT_ONCE:
                writes = 0
                await asyncio.sleep(0)
