"""Subscriptions: each client gets the state and then each event once, in the order of the log.

A subscription is either behind or live. While it is behind, it reads the log by itself, from its
place on: at its start, after its client was slow, or after an error. When it has read everything
that the process has read, it is live: subscriptions with the same selection and arguments share
the statements that read their messages, for all their viewers at once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Protocol

from graphql import VariableNode

from db import Viewer
from db.events.follower import PAGE, Follower, changes_after, continues
from db.events.topics import Change, Place, Topic
from db.statements import viewer_kind
from graph.compiler.variables import variables_below
from graph.core.errors import BadRequest, Overloaded, Unauthenticated, Unavailable
from graph.core.updates import Followed, Message, decode_place, encode_place
from graph.execution.masking import database_error
from graph.execution.pipeline import Pipeline, Read
from graph.execution.responses import Response
from graph.execution.run import Run
from graph.execution.tokens import Tokens

# The largest number of messages that one statement reads, for all viewers together.
BATCH = 500

# How many statements of subscriptions run at once, so that requests have connections too.
STATEMENTS_AT_ONCE = 4

# How soon a subscription goes on after an error that passes, in seconds.
RETRY_SECONDS = 0.5

# The types of objects on which the rights of a token depend.
CREDENTIALS = {"AccessToken", "User", "Agent"}


class SlowClient(Exception):
    """The client does not read its messages."""


class Sink(Protocol):
    """The connection to a client, for the messages of one subscription."""

    @property
    def is_ready(self) -> bool:
        """Whether the client reads as fast as it gets messages."""

    async def ready(self) -> None:
        """Wait until the client has read. Raises an exception if it does not."""

    def write(self, body: bytes, place: Place) -> None:
        """Send a response, given as JSON, after which a client goes on at this place."""


class Subscription:
    """A subscription of one client."""

    is_known = False
    """Whether its place is known to be in the log."""
    _interrupted: asyncio.Future[Exception | None] | None = None

    def __init__(self, run: Run, sink: Sink, last: str | None = None) -> None:
        """It begins after the later one of its `after` and `last`, a cursor of the transport.

        Raises BadInput for an invalid id or cursor.
        """
        self.run = run
        self.sink = sink
        operation, context = run.operation, run.context
        context.operation = operation
        if not operation.roots:
            raise BadRequest("A subscription has one field, and @skip or @include left it out.")
        (root,) = operation.roots
        assert isinstance(root.declaration, Followed)
        self.followed = root.declaration
        arguments = operation.converted(root) if root.has_valid_arguments else {}
        self.subject = self.followed.subject_of(context.viewer, arguments)
        self.topics = self.followed.follow(self.subject)
        cursors = [cursor for cursor in (arguments.get("after"), last) if cursor is not None]
        self.place: Place | None = max(map(decode_place, cursors), default=None)
        """Everything up to here was sent, the state included; None before the state."""

    @property
    def viewer(self) -> Viewer:
        """Whose it is, as statements need it: subscriptions of a viewer share their messages."""
        viewer = self.run.context.viewer
        return Viewer(viewer.user_id, viewer.agent_id, viewer.is_administrator)

    @property
    def key(self) -> Hashable:
        """Equal for subscriptions that share their statements."""
        request, context = self.run.request, self.run.context
        values = {**self.run.variables.coerced}
        for name in self._cursors():
            values.pop(name, None)
        return (
            self.run.document.hash,
            request.operation_name,
            repr(values),
            self.subject,
            viewer_kind(context.viewer),
        )

    def _cursors(self) -> list[str]:
        """The names of the variables that are its cursor, which its messages do not depend on."""
        operation = self.run.operation
        arguments = [
            argument
            for node in operation.node.selection_set.selections
            for argument in getattr(node, "arguments", None) or ()
            if argument.name.value == "after" and isinstance(argument.value, VariableNode)
        ]
        names = {argument.value.name.value for argument in arguments}
        return [*names - variables_below(operation)]

    @property
    def is_live(self) -> bool:
        """Whether it gets what the process reads."""
        return self._interrupted is not None and not self._interrupted.done()

    async def until_interrupted(self) -> None:
        """Be live until something interrupts it. Raises the error, if that does."""
        self._interrupted = asyncio.get_running_loop().create_future()
        if (error := await self._interrupted) is not None:
            raise error

    def interrupt(self, error: Exception | None = None) -> None:
        """Have it be no longer live: it is behind, or ends with an error."""
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(error)

    def become(self, viewer: Viewer | None) -> None:
        """Set its viewer, after the token was looked up again; None if it is no longer valid."""
        context = self.run.context
        if viewer is None:
            self.interrupt(Unauthenticated())
        elif viewer != context.viewer:
            if viewer_kind(viewer) != viewer_kind(context.viewer):
                self.run.compiled = None
                self.interrupt()  # it shares the messages of others then
            context.become(viewer)

    def deliver(self, message: Message, body: bytes) -> None:
        """Send a message, if it is live and does not have it yet."""
        assert self.place is not None
        if self.is_live and message.place.position > self.place.position:
            if self.sink.is_ready:
                self.sink.write(body, message.place)
                self.place = message.place
            else:
                self.interrupt()

    def advance(self, place: Place) -> None:
        """It has everything up to this place, if it is live."""
        assert self.place is not None
        if self.is_live:
            self.place = max(self.place, place)


class Shared:
    """Live subscriptions that share statements."""

    def __init__(self, subscriptions: Subscriptions, first: Subscription) -> None:
        self._subscriptions = subscriptions
        self.followed, self.subject, self.topics = first.followed, first.subject, first.topics
        self.members: defaultdict[Viewer, set[Subscription]] = defaultdict(set)
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
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        members: list[Subscription] = []
        try:
            while self._changes and (members := [*self._live()]):
                await self._send_batch(members)
        except Exception as error:
            for member in members:
                member.interrupt(error)
        finally:
            self._changes.clear()
            self._sending = None

    def _live(self) -> Iterator[Subscription]:
        return (each for found in self.members.values() for each in found if each.is_live)

    async def _send_batch(self, members: Sequence[Subscription]) -> None:
        by_viewer: defaultdict[Viewer, list[Subscription]] = defaultdict(list)
        for member in members:
            by_viewer[member.viewer].append(member)
        shares = list(by_viewer.values())
        count = min(len(self._changes), max(1, BATCH // len(shares)))
        changes = [self._changes.popleft() for _ in range(count)]
        runs = [share[0].run for share in shares]
        read = await self._subscriptions.read(runs, _messages(self, changes))
        rates = self._subscriptions.limits.rates
        for number, message, body in read:
            client, cost = runs[number].context.client, runs[number].cost
            if rates.wait(client, cost):
                for member in shares[number]:
                    member.interrupt()
                continue
            rates.take(client, cost)
            for member in shares[number]:
                member.deliver(message, body)
        for member in members:
            member.advance(changes[-1].place)


def _messages(of: Shared | Subscription, changes: Sequence[Change]) -> list[Message]:
    found = (of.followed.message(change, of.subject) for change in changes)
    return [message for message in found if message is not None]


class Subscriptions:
    """The subscriptions of a process. It listens to the follower of the event log."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.limits = pipeline.limits
        self._tokens: Tokens | None = None
        self._reading = asyncio.Semaphore(STATEMENTS_AT_ONCE)
        self._open: set[Subscription] = set()
        self._shared: dict[Hashable, Shared] = {}
        self._by_topic: defaultdict[Topic, set[Shared]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._open)

    # What the follower calls

    @property
    def is_listening(self) -> bool:
        """Whether there are any subscriptions."""
        return bool(self._open)

    async def receive(self, changes: Sequence[Change]) -> None:
        """Send the messages of changes to those who are live."""
        if self._tokens is not None and self._concerns_rights(changes):
            await self._tokens.check()
        found: dict[Shared, list[Change]] = {}
        for change in changes:
            interested = (shared for topic in change.topics() for shared in self._of(topic))
            for shared in dict.fromkeys(interested):
                found.setdefault(shared, []).append(change)
        for shared, own in found.items():
            shared.push(own)

    def reset(self) -> None:
        """Have all check whether the log still has their places."""
        for subscription in self._open:
            subscription.is_known = False
            subscription.interrupt()

    def _of(self, topic: Topic) -> Collection[Shared]:
        return self._by_topic.get(topic, ())

    def _concerns_rights(self, changes: Sequence[Change]) -> bool:
        ids = {change.entity_id for change in changes if change.entity_type in CREDENTIALS}
        if not ids:
            return False
        viewers = {subscription.run.context.viewer for subscription in self._open}
        own = {str(id) for each in viewers for id in (each.user_id, each.agent_id, each.token_id)}
        return not ids.isdisjoint(own)

    # What a connection calls

    async def serve(
        self, run: Run, sink: Sink, token: str | None, tokens: Tokens, last: str | None = None
    ) -> Response:
        """Send the messages of a subscription until it ends; the response is the error.

        `last` is the cursor of the last message that the client has, if the transport says so.

        Raises Unauthenticated if the token is no longer valid, and SlowClient.
        """
        try:
            await self.pipeline.prepare(run)
            subscription = Subscription(run, sink, last)
        except Exception as error:
            return self.pipeline.refused(run, error)
        self._tokens = tokens
        self._open.add(subscription)
        try:
            with tokens.watched(token, subscription.become):
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
            await self._send_state(subscription, await follower.started())
            while not _has_all(subscription, follower):
                await self._catch_up(subscription, follower)
            # Nothing is awaited between that comparison and this, so that no change is missed.
            if subscription.is_known:
                await self._live(subscription)
        except Exception as error:
            if not isinstance(database_error(error) or error, Unavailable | Overloaded):
                raise
            await asyncio.sleep(RETRY_SECONDS)  # nothing is missed meanwhile

    def _follower(self, subscription: Subscription) -> Follower:
        follower = subscription.run.context.database.follower
        if self not in follower.listeners:
            follower.listeners.append(self)
        return follower

    async def _send_state(self, subscription: Subscription, here: Place) -> None:
        """Send the state, unless the client has it, and the log continues after its cursor."""
        place, after = subscription.place, None
        if place is not None:
            if subscription.is_known:
                return
            if await continues(subscription.run.context.database.fetch, place):
                subscription.is_known = True
                return
            after = encode_place(place)
        # All changes up to `here` are part of the state, which is read later.
        message = subscription.followed.state(here, subscription.subject, after)
        await self._send(subscription, [message])
        subscription.place, subscription.is_known = here, True

    async def _catch_up(self, subscription: Subscription, follower: Follower) -> None:
        """Send the next changes from the log."""
        assert subscription.place is not None
        assert follower.place is not None
        until, fetch = follower.place, subscription.run.context.database.fetch
        after, topics = subscription.place.position, subscription.topics
        changes = await changes_after(fetch, topics, after, until.position)
        for start in range(0, len(changes), BATCH):
            batch = changes[start : start + BATCH]
            await self._send(subscription, _messages(subscription, batch))
            subscription.place = batch[-1].place
        if len(changes) < PAGE:
            subscription.place = until

    async def _send(self, subscription: Subscription, messages: Sequence[Message]) -> None:
        """Read messages for one subscription, and send them as fast as its client reads."""
        run, sink, rates = subscription.run, subscription.sink, self.limits.rates
        subscription.become(await run.context.authenticate())
        client, cost = run.context.client, run.cost
        for _, message, body in await self.read([run], messages):
            await asyncio.sleep(rates.wait(client, cost))
            rates.take(client, cost)
            await sink.ready()
            sink.write(body, message.place)
            subscription.place = message.place

    async def _live(self, subscription: Subscription) -> None:
        key, viewer = subscription.key, subscription.viewer
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = Shared(self, subscription)
            for topic in shared.topics:
                self._by_topic[topic].add(shared)
        shared.add(subscription)
        try:
            await subscription.until_interrupted()
        finally:
            shared.remove(subscription, viewer)
            if not shared.members:
                del self._shared[key]
                for topic in shared.topics:
                    self._by_topic[topic].discard(shared)
                    if not self._by_topic[topic]:
                        del self._by_topic[topic]

    async def read(self, runs: Sequence[Run], messages: Sequence[Message]) -> list[Read]:
        """Read messages for the viewers of some runs of one operation, each if they may see it."""
        if not messages:
            return []
        async with self._reading, asyncio.timeout(self.limits.settings.max_seconds):
            return await self.pipeline.messages(runs, messages)


def _has_all(subscription: Subscription, follower: Follower) -> bool:
    """Whether a subscription has everything that the process has read of the log."""
    assert subscription.place is not None
    assert follower.place is not None
    return subscription.place.position >= follower.place.position
