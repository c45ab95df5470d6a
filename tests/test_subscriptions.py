"""Subscriptions: the state first, then each event once, in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

import db
from db.events.positions import Numbering
from tests.conftest import People
from tests.sockets import Listening, Talk, listening
from tests.world import World, make_world


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@pytest.fixture
async def live(database: db.Database) -> AsyncIterator[Listening]:
    import asyncio

    numbering = asyncio.create_task(Numbering(database, 90).run())
    async with listening(database) as server:
        yield server
    numbering.cancel()


async def test_a_task(world: World, live: Listening, people: People) -> None:
    async with live.talk(people.owner.token) as talk:
        task = world.free
        await talk.subscribe(
            "subscription($id: ID!) { taskUpdated(id: $id) { __typename cursor gap { after } event"
            " { position action entityType after } task { title priority } } }",
            variables={"id": str(task.id)},
        )
        print(await talk.heard())
        await people.owner.ask(
            'mutation($id: ID!) { updateTask(input: {id: $id, title: "New"}) { task { title } } }',
            id=str(task.id),
        )
        print(await talk.heard())
        assert 0
