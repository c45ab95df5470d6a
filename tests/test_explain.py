"""How an answer came about: what `X-Troupe-Explain` and `Server-Timing` tell, and whom."""

from __future__ import annotations

import re
from typing import Any

import db
from db import statistics
from db.statistics import MOST_COLLECTED
from graph.execution.logs import LogEntry
from graph.settings import Mode, Settings
from tests.client import Client
from tests.conftest import People, serving

QUERY = "query Mine($name: String!) { projects(where: {name: {eq: $name}}) { nodes { name } } }"
BODY: dict[str, Any] = {"query": QUERY, "variables": {"name": "it's secret"}}
EXPLAIN = {"x-troupe-explain": "1"}


async def explained(client: Client, body: dict[str, Any] = BODY) -> Any:
    """What is told of how an operation is read, if anything is."""
    response = await client.send(body, **EXPLAIN)
    return (response.json().get("extensions") or {}).get("explain")


async def test_how_a_query_is_read_is_told(people: People, resolvers: People) -> None:
    for _ in range(2):  # the second time, it is compiled already
        told = await explained(people.owner)
        (compiled,) = told.pop("statements")
        assert told == {"operation": "query", "compiled": True, "cost": 50}
        assert compiled.startswith("SELECT convert_to(")
        assert "secret" not in compiled
    told = await explained(resolvers.owner)
    assert told["compiled"] is False
    assert not any(text.startswith("SELECT convert_to(") for text in told["statements"])


def test_all_statements_are_told_though_spans_are_of_some() -> None:
    for explains, told in ((True, MOST_COLLECTED + 50), (False, MOST_COLLECTED)):
        with LogEntry("http") as entry:
            entry.database.calls = []
            if explains:
                entry.explain()
            for _ in range(MOST_COLLECTED + 50):
                statistics.add("SELECT", 1, 0.0)
        assert len(entry.explanation()["statements"]) == told


async def test_without_the_header_nothing_is_told(people: People) -> None:
    response = await people.owner.send(BODY)

    assert response.json() == {"data": {"projects": {"nodes": []}}}


async def test_in_production_only_an_administrator_is_told(
    database: db.Database, people: People
) -> None:
    async with serving(database, Settings(mode=Mode.PRODUCTION)) as http:
        assert (await explained(people.admin.through(http)))["compiled"] is True
        for client in (people.owner, people.stranger, people.nobody):
            assert await explained(client.through(http)) is None
    assert await explained(people.nobody) is None


async def test_how_long_it_took_is_told(people: People, resolvers: People) -> None:
    for client in (people.owner, people.owner, resolvers.owner, people.nobody):
        response = await client.send(BODY)
        header = response.headers["server-timing"]
        found = re.findall(r"(\w+);dur=(\d+\.\d\d)", header)
        assert [name for name, _ in found] == ["parse", "compile", "db", "total"], header
        took = {name: float(duration) for name, duration in found}
        assert took["parse"] + took["compile"] + took["db"] <= took["total"] + 0.1
        assert (took["db"] > 0) == (client is not people.nobody)
