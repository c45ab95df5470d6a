"""A subscription as its client sees it, and the numbering of events while a test runs."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy import text

import db
from db.events import follower
from db.events.positions import Numbering
from tests.sockets import Talk

EVENTS = (
    "subscription($after: String, $projectId: ID) { events(after: $after, projectId: $projectId)"
    " { cursor gap { after } event { position entityType action } } }"
)


class Following:
    """A subscription on a WebSocket."""

    def __init__(self, talk: Talk, query: str, name: str = "1", **variables: Any) -> None:
        self.talk, self.name = talk, name
        self.request = {"query": query, "variables": variables}

    async def begin(self) -> Any:
        """Subscribe, and return the first message."""
        await self.subscribe()
        return await self.next()

    async def subscribe(self) -> Self:
        """Subscribe."""
        await self.talk.send("subscribe", id=self.name, payload=self.request)
        return self

    async def next(self) -> Any:
        """The next message: the value of the only field."""
        return value_of(await self.talk.heard(), self.name)

    async def until(self, title: str) -> list[Any]:
        """The messages up to one whose task has this title."""
        found = [await self.next()]
        while found[-1]["task"] != {"title": title}:
            found.append(await self.next())
        return found


def value_of(heard: Any, name: str) -> Any:
    """The value of the only field of a message of a subscription."""
    assert (heard["type"], heard["id"]) == ("next", name), heard
    assert list(heard["payload"]) == ["data"], heard
    (value,) = heard["payload"]["data"].values()
    return value


def cursor_at(place: tuple[int, int]) -> str:
    """The cursor of a message."""
    return base64.b64encode(b"EVENT\n%d\n%d" % place).decode()


async def last_place(database: db.Database) -> tuple[int, int]:
    """The last position, and the moment of its event."""
    async with database.read() as session:
        found = (await session.execute(text(follower.LAST))).one()
    return found[0], found[1]


async def all_numbered(database: db.Database) -> bool:
    """Whether each event has a position."""
    async with database.read() as session:
        left = await session.scalar(text("SELECT count(*) FROM events WHERE position IS NULL"))
    return bool(left == 0)


@asynccontextmanager
async def numbering(database: db.Database) -> AsyncIterator[asyncio.Task[None]]:
    """Number events in the block."""
    task = asyncio.create_task(Numbering(database, 90).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
