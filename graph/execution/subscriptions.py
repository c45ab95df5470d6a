"""Subscriptions: each client gets the state and then each event once, in the order of the log.

A subscription is either behind or live. While it is behind, it reads the log by itself, from its
place on: at its start, after its client was slow, or after an error. When it has read everything
that the process has read, it is live: subscriptions with the same selection share the statements
that read their messages, for all their viewers at once, whatever objects they follow.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Hashable, Sequence

from db.events.follower import PAGE, Follower, changes_after, continues
from db.events.topics import Change, Place, Topic
from db.result_limits import ResultTooLarge
from graph.core.errors import Overloaded, TooSlow, Unauthenticated, Unavailable
from graph.core.updates import Message, encode_place
from graph.execution.masking import database_error
from graph.execution.pipeline import Delivery, Pipeline, Read, Reader
from graph.execution.responses import Response
from graph.execution.run import Run
from graph.execution.shared import BATCH, Audience, Shared, batch_size
from graph.execution.subscription import Sink, SlowClient, Subscription
from graph.execution.tokens import Tokens, Watch

# How many statements run at once for those who are live, and for those who are behind, so that
# neither waits for the other, and requests have connections too.
STATEMENTS_AT_ONCE = 2

# How soon a subscription goes on after an error that passes, in seconds: between one and two times.
RETRY_SECONDS = 0.5

# How long a lookup of all tokens may take while events wait for it, in seconds.
CHECK_TIMEOUT = 0.5

# Messages are shared only if all tokens were looked up within this time, in seconds.
CHECKED_WITHIN = 1.5

# The types of objects on which the rights of a token depend.
CREDENTIALS = {"AccessToken", "User", "Agent"}


class Subscriptions:
    """The subscriptions of a process. It listens to the follower of the event log."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.limits = pipeline.limits
        self._tokens: Tokens | None = None
        self._live_slots = asyncio.Semaphore(STATEMENTS_AT_ONCE)
        self._behind_slots = asyncio.Semaphore(STATEMENTS_AT_ONCE)
        self._open: set[Subscription] = set()
        self._shared: dict[Hashable, Shared] = {}
        self._by_topic: defaultdict[Topic, dict[Audience, Shared]] = defaultdict(dict)
        self._resets = 0

    def __len__(self) -> int:
        return len(self._open)

    # What the follower calls

    @property
    def is_listening(self) -> bool:
        """Whether there are any subscriptions."""
        return bool(self._open)

    async def receive(self, changes: Sequence[Change]) -> None:
        """Send the messages of changes to those who are live."""
        if self._tokens is not None and self._changes_a_viewer(changes):
            async with asyncio.timeout(CHECK_TIMEOUT):
                await self._tokens.check()
        found: dict[Shared, list[tuple[Audience, Change]]] = {}
        for change in changes:
            interested: dict[Audience, Shared] = {}
            for topic in change.topics():
                interested.update(self._by_topic.get(topic, ()))
            for audience, shared in interested.items():
                found.setdefault(shared, []).append((audience, change))
        for shared, own in found.items():
            shared.push(own)

    def reset(self) -> None:
        """Have all check whether the log still has their places, and go on by themselves."""
        self._resets += 1
        for subscription in self._open:
            subscription.is_place_checked = False
            subscription.interrupt()

    def _changes_a_viewer(self, changes: Sequence[Change]) -> bool:
        """Whether one of the changes may concern the rights of somebody who is live."""
        ids = {change.entity_id for change in changes if change.entity_type in CREDENTIALS}
        if not ids:
            return False
        viewers = {subscription.run.context.viewer for subscription in self._open}
        own = {str(id) for each in viewers for id in (each.user_id, each.agent_id, each.token_id)}
        return not ids.isdisjoint(own)

    # What a connection calls

    async def serve(self, run: Run, sink: Sink, watch: Watch, last: str | None = None) -> Response:
        """Send the messages of a subscription until it ends; the response is the error.

        `watch` is that of the token of its connection.
        `last` is the cursor of the last message that the client has, if the transport says so.

        Raises Unauthenticated if the token is no longer valid, and SlowClient.
        """
        try:
            await self.pipeline.prepare(run)
            subscription = Subscription(run, sink, last)
        except Exception as error:
            return self.pipeline.refused(run, error)
        self._tokens = watch.tokens
        self._open.add(subscription)
        try:
            with watch.telling(subscription.check_viewer):
                while True:
                    await self._go_on(subscription)
        except (Unauthenticated, SlowClient):
            raise
        except Exception as error:
            return self.pipeline.refused(run, error)
        finally:
            self._open.discard(subscription)

    async def _go_on(self, subscription: Subscription) -> None:
        """Send what the client does not have, and then what happens while it is live."""
        follower = self._follower(subscription)
        try:
            await self._refresh(subscription)
            await self._send_state(subscription, await follower.started())
            while subscription.is_place_checked and not _has_caught_up(subscription, follower):
                await self._catch_up(subscription, follower)
            # Nothing is awaited between that comparison and this, so that no change is missed.
            if subscription.is_place_checked:
                await self._live(subscription)
        except Exception as error:
            if not isinstance(database_error(error) or error, Unavailable | Overloaded):
                raise
            # Nothing is missed meanwhile. Not all come back at the same time.
            await asyncio.sleep(RETRY_SECONDS * (1 + random.random()))

    def _follower(self, subscription: Subscription) -> Follower:
        follower = subscription.run.context.database.follower
        if self not in follower.listeners:
            follower.listeners.append(self)
        return follower

    async def _refresh(self, subscription: Subscription) -> None:
        """Look its token up again, and compile its statement, if that is not done."""
        run = subscription.run
        subscription.set_viewer(await run.context.authenticate())
        await self.pipeline.compile(run)

    # While it is behind

    async def _send_state(self, subscription: Subscription, here: Place) -> None:
        """Send the state, unless the client has it, and the log continues after its cursor."""
        place, after, resets = subscription.place, None, self._resets
        if place is not None:
            if subscription.is_place_checked:
                return
            async with self._behind_slots:
                is_there = await continues(subscription.run.context.database.fetch, place)
            if is_there:
                subscription.is_place_checked = resets == self._resets
                return
            after = encode_place(place)
        # All changes up to `here` are part of the state, which is read later.
        message = subscription.followed.state(here, subscription.subject, after)
        if await self._send(subscription, [message]):
            subscription.place = here
            subscription.is_place_checked = resets == self._resets

    async def _catch_up(self, subscription: Subscription, follower: Follower) -> None:
        """Send the next changes from the log."""
        # Changes must not wait in memory for a client that does not read.
        await subscription.sink.ready()
        assert subscription.place is not None
        assert follower.place is not None
        until, fetch = follower.place, subscription.run.context.database.fetch
        after, topics = subscription.place.position, subscription.topics
        async with self._behind_slots:
            changes, reached = await changes_after(fetch, topics, after, until.position)
            # Some may have been dropped before they were read.
            is_there = await continues(fetch, subscription.place)
        if not is_there:
            subscription.is_place_checked = False
            return
        size = min(BATCH, batch_size(subscription.run.cost), subscription.most_messages or BATCH)
        for start in range(0, len(changes), size):
            if not subscription.sink.is_ready:
                return
            batch = changes[start : start + size]
            messages = [message for each in batch if (message := subscription.message(each))]
            if not await self._send(subscription, messages):
                return  # the rest is read again, under the rights that the viewer has then
            subscription.place = batch[-1].place
        if len(changes) < PAGE:
            subscription.place = until if reached == until.position else Place(reached)

    async def _send(self, subscription: Subscription, messages: Sequence[Message]) -> bool:
        """Read messages for one subscription, and send them; False if its client does not read.

        Nothing is awaited between reading and sending, so that they are sent under the rights that
        they are read under.
        """
        if not messages:
            return True
        run, sink = subscription.run, subscription.sink
        client, cost = run.context.client, run.cost * len(messages)
        await sink.ready()
        await asyncio.sleep(self.limits.rates.wait(client, min(cost, self.limits.rates.burst)))
        await self._refresh(subscription)
        self.limits.rates.take(client, cost)
        reader = Reader(run, subscription.viewer, run.compiled)
        try:
            async with self._behind_slots:
                read = await self._read([(reader, message) for message in messages])
        except (TooSlow, ResultTooLarge):
            if len(messages) == 1:
                raise
            subscription.most_messages = max(1, len(messages) // 2)
            return False
        for number, body in read:
            if not sink.is_ready:
                return False
            place = messages[number].place
            sink.write(body, place)
            subscription.place = place
        return True

    async def _read(self, deliveries: Sequence[Delivery]) -> list[Read]:
        seconds = self.limits.settings.max_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self.pipeline.messages(deliveries)
        except TimeoutError:
            if not limit.expired():  # a connection to the database could not be opened in time
                raise
            raise TooSlow(f"A message took longer than {seconds} s. Select less.") from None

    # While it is live

    async def _live(self, subscription: Subscription) -> None:
        key, viewer = subscription.key, subscription.viewer
        shared = self._shared.get(key)
        if shared is None:
            shared = Shared(subscription, self._read_live, self.limits.rates)
            self._shared[key] = shared
        audience = shared.add(subscription)
        for topic in audience.topics:
            self._by_topic[topic][audience] = shared
        try:
            await subscription.until_interrupted()
        finally:
            if shared.remove(subscription, viewer):
                for topic in audience.topics:
                    del self._by_topic[topic][audience]
                    if not self._by_topic[topic]:
                        del self._by_topic[topic]
            if not shared.audiences:
                del self._shared[key]

    async def _read_live(self, deliveries: Sequence[Delivery]) -> list[Read]:
        """Read messages for those who are live, if all their tokens were looked up just now."""
        async with self._live_slots:
            if self._tokens is None or self._tokens.checked + CHECKED_WITHIN < time.monotonic():
                raise Unavailable("The tokens could not be looked up.")
            return await self._read(deliveries)


def _has_caught_up(subscription: Subscription, follower: Follower) -> bool:
    """Whether a subscription has everything that the process has read of the log."""
    assert subscription.place is not None
    assert follower.place is not None
    return subscription.place.position >= follower.place.position
