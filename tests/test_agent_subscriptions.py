"""Subscriptions of agents to topics."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import db
from tests.conftest import People
from tests.oracle import seen_with
from tests.world import Case, World, at, faults, gid, make_world, stored

SEEN = {db.AgentSubscription: seen_with(db.Agent, "agent_id")}
VALUES = {db.AgentSubscription: lambda place: {"topic": f"topic {place}"}}
CASES = {
    "subscribeAgent": Case(lambda w: {"agentId": gid(w.ada), "topic": "news"}, at("agentId")),
    "unsubscribeAgent": Case(lambda w: {"agentId": gid(w.ada), "topic": "news"}, at("agentId")),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def change(client: Any, mutation: str, **input: Any) -> Any:
    return faults(await client.change(f"{mutation} {{ userErrors {{ code path }} }}", **input))


async def test_an_agent_subscribes_once_and_ends_it(world: World) -> None:
    news = {"agentId": gid(world.ada), "topic": "news"}
    for client in (world.agent, world.owner):
        assert await change(client, "subscribeAgent", **news) == []
    assert await change(world.agent, "subscribeAgent", **news | {"topic": "moon"}) == []
    query = "{ agents { nodes { subscriptions(orderBy: TOPIC_DESC)"
    query += " { nodes { topic agent { name } } } } } }"
    answer = await world.agent.ask(query)

    subscribed = [{"topic": topic, "agent": {"name": "Ada"}} for topic in ("news", "moon")]
    assert answer.data == {"agents": {"nodes": [{"subscriptions": {"nodes": subscribed}}]}}
    assert len(answer.statements) == 1
    assert await change(world.agent, "unsubscribeAgent", **news) == []
    assert await world.refused(world.agent, "unsubscribeAgent", **news) == [("INVALID", "topic")]
    assert await stored(world.database, "SELECT topic FROM agent_subscriptions") == ["moon"]


async def test_an_agent_subscribes_only_itself(world: World) -> None:
    input = {"agentId": gid(world.bob), "topic": "news"}
    for mutation in ("subscribeAgent", "unsubscribeAgent"):
        assert await world.error(world.agent, mutation, **input) == "FORBIDDEN"
        assert await world.refused(world.owner, mutation, **input) == at("agentId")
