"""A subscription of one client: what it follows, and up to where it has sent the log."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Protocol

from strawberry.utils.str_converters import to_camel_case

from db import Viewer
from db.events.topics import Change, Place
from graph.compiler.variables import variables_below
from graph.core.errors import BadRequest, Unauthenticated
from graph.core.updates import Followed, Message, decode_place
from graph.execution.run import Run


class SlowClient(Exception):
    """The client does not read its messages."""


class Sink(Protocol):
    """The connection to a client, for the messages of one subscription."""

    @property
    def is_ready(self) -> bool:
        """Whether the client reads as fast as it gets messages."""

    async def ready(self) -> None:
        """Wait until the client has read. Raises SlowClient if it does not."""

    def write(self, body: bytes, place: Place) -> None:
        """Send a response, given as JSON, after which a client goes on at this place."""


class Subscription:
    """A subscription of one client."""

    is_place_checked = False
    """Whether its place is known to be in the log."""
    most_messages: int | None = None
    """How many messages a statement may read for it alone, if more took too long."""
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
        """Equal for subscriptions whose messages one statement can read.

        They have the same selection, and the same arguments except for the object that is followed
        and the cursor.
        """
        run = self.run
        left_out = {"after", to_camel_case(self.followed.argument_name)}
        (root,) = run.operation.roots
        below = variables_below(run.operation)
        values = {name: each for name, each in run.variables.coerced.items() if name in below}
        arguments = {name: each for name, each in root.arguments.items() if name not in left_out}
        return (
            run.document.hash,
            run.request.operation_name,
            repr(values),
            repr(arguments),
            self.viewer.kind,
        )

    def message(self, change: Change) -> Message | None:
        """The message of a change, if there is one."""
        return self.followed.message(change, self.subject)

    # Being live

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

    # Its viewer

    def check_viewer(self, viewer: Viewer | None) -> None:
        """Its token was looked up again: interrupt it if its rights are others now.

        The viewer of the run is not changed while statements may read for it.
        """
        if viewer is None:
            self.interrupt(Unauthenticated())
        elif viewer != self.run.context.viewer:
            self.interrupt()

    def set_viewer(self, viewer: Viewer) -> None:
        """Set its viewer while it is behind, and reads alone."""
        context = self.run.context
        if viewer.kind != context.viewer.kind:
            self.run.compiled = None
        context.become(viewer)
