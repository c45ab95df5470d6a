"""Following the event log: each change is handed on once, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from sqlalchemy import text

import db
from db.events import follower
from db.events.follower import Follower, changes_after, continues
from db.events.topics import Change, Place, Topic
from tests.following import last_place, numbering
from tests.patience import becomes


class Listener:
    """Gets changes, and fails when it is told to."""

    is_listening = True

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.resets = 0
        self.fails = False
        self.seconds = 0.0

    async def receive(self, changes: Sequence[Change]) -> None:
        if self.fails:
            raise ConnectionRefusedError
        await asyncio.sleep(self.seconds)
        self.positions += [change.position for change in changes]

    def reset(self) -> None:
        self.resets += 1


async def make(database: db.Database, count: int, name: str = "Project") -> None:
    """Make users, each an event."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(
            text(
                "INSERT INTO users (id, username, email) SELECT gen_random_uuid(), :name || n,"
                " :name || n || '@localhost' FROM generate_series(1, :count) n"
            ),
            {"name": name, "count": count},
        )


@pytest.fixture
async def reader(database: db.Database) -> AsyncIterator[Follower]:
    async with numbering(database):
        reader = Follower(database.open)
        yield reader
        await reader.close()


async def test_a_listener_that_fails_is_reset_and_others_miss_nothing(
    database: db.Database, reader: Follower
) -> None:
    bad, good = Listener(), Listener()
    reader.listeners += [bad, good]
    start = (await reader.started()).position
    bad.fails = True
    await make(database, 3)
    await becomes(lambda: len(good.positions) == 3)
    assert (bad.positions, bad.resets, good.resets) == ([], 1, 0)
    bad.fails = False
    await make(database, 2, "Other")
    await becomes(lambda: len(good.positions) == 5)
    assert good.positions == list(range(start + 1, start + 6))
    assert bad.positions == [start + 4, start + 5]


async def test_pages_that_are_full_do_not_end_it(
    database: db.Database, reader: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(follower, "PAGE", 1)
    reader._most = 1
    listener = Listener()
    listener.seconds = 0.005
    reader.listeners.append(listener)
    await reader.started()
    await make(database, 200)
    await becomes(lambda: len(listener.positions) == 200)
    await make(database, 1, "Last")
    await becomes(lambda: len(listener.positions) == 201)


async def test_changes_of_topics_come_by_position_each_once(database: db.Database) -> None:
    await make(database, 5)
    async with numbering(database):

        async def is_numbered() -> bool:
            return (await last_place(database))[0] >= 5

        await becomes(is_numbered)
    last, _ = await last_place(database)
    async with database.read() as session:
        ids = (await session.scalars(text("SELECT id::text FROM users ORDER BY id"))).all()
    nothing = Topic("Message", parent_id=db.new_id())
    topics = [Topic("User"), Topic("User", entity_id=ids[0]), Topic(), nothing]
    changes, reached = await changes_after(database.fetch, topics, 0, last)
    assert [change.position for change in changes] == list(range(1, last + 1))
    assert reached == last
    changes, _ = await changes_after(database.fetch, [topics[1]], 0, last)
    assert [change.entity_id for change in changes] == [ids[0]]
    changes, _ = await changes_after(database.fetch, [nothing], 0, last)
    assert changes == []


async def test_at_most_a_window_is_searched_at_once(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower, "WINDOW", 2)
    await make(database, 5)
    async with numbering(database):

        async def is_numbered() -> bool:
            return (await last_place(database))[0] >= 5

        await becomes(is_numbered)
    changes, reached = await changes_after(database.fetch, [Topic("User")], 0, 5)
    assert ([change.position for change in changes], reached) == ([1, 2], 2)


async def test_a_place_is_in_the_log_if_the_event_there_is_the_same(database: db.Database) -> None:
    await make(database, 2)
    async with numbering(database):

        async def is_numbered() -> bool:
            return (await last_place(database))[0] >= 2

        await becomes(is_numbered)
    position, moment = await last_place(database)
    for place, expected in (
        (Place(position, moment), True),
        (Place(position, 0), True),
        (Place(position, moment + 1), False),
        (Place(position + 1, 0), False),
        (Place(0, 0), True),
    ):
        assert await continues(database.fetch, place) is expected, place
