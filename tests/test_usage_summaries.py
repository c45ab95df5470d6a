"""Summaries of usage: exact sums of what was recorded, whatever happened to it since."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

import db
from db import usage
from db.sweeper import Sweeper
from db.usage_totals import COUNTS, merge_totals
from tests import factories
from tests.conftest import ADMIN, People
from tests.factories import START, minutes
from tests.world import World, gid, make_world, stored

COLUMNS = "inputTokens cachedInputTokens cacheCreationTokens outputTokens reasoningTokens"
SUMS = f"{COLUMNS} cost calls failures unpricedCalls"
ASK = """query($groupBy: [UsageGroup!], $from: DateTime, $to: DateTime, $rollUp: Boolean,
  $projectId: ID, $first: Int) {
  usageSummary(groupBy: $groupBy, from: $from, to: $to, rollUp: $rollUp, projectId: $projectId,
    first: $first) { %s }
}"""
NAMES = f"time project {{ name }} agent {{ name }} modelName task {{ title }} {SUMS}"
# What the records add up to, and what the totals do, each row that is not in both.
DIFFERENCES = f"""
    WITH kept AS (
      SELECT hour, project_id, agent_id, model_name, task_id, user_id,
        {", ".join(f"sum({name}) AS {name}" for name in COUNTS)}, sum(cost) AS cost
      FROM usage_totals GROUP BY 1, 2, 3, 4, 5, 6
      HAVING ({", ".join(f"sum({name})" for name in COUNTS)}, sum(cost))
        <> ({", ".join("0" for name in COUNTS)}, 0)
    ), recorded AS (
      SELECT date_trunc('hour', occurred_at, 'UTC'), project_id, agent_id, model_name, task_id,
        user_id, sum(input_tokens), sum(cached_input_tokens), sum(cache_creation_tokens),
        sum(output_tokens), sum(reasoning_tokens), count(*), count(*) FILTER (WHERE NOT success),
        count(*) FILTER (WHERE cost IS NULL), coalesce(sum(cost), 0)
      FROM usage_records GROUP BY 1, 2, 3, 4, 5, 6
    )
    (TABLE kept EXCEPT ALL TABLE recorded) UNION ALL (TABLE recorded EXCEPT ALL TABLE kept)
"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def merge(database: db.Database) -> int:
    """Merge the totals, as a server does in the background."""
    async with database.write(ADMIN) as session:
        return await merge_totals(session)


async def record(world: World, *records: dict[str, Any]) -> None:
    """Record calls for the owner's project."""
    model = {"modelId": gid(world.model)}
    payload = await world.owner.change(
        "recordUsage { userErrors { path message } }",
        projectId=gid(world.project),
        records=[model | each for each in records],
    )
    assert payload["userErrors"] == []


async def some_calls(world: World) -> None:
    """Calls of two days for a task, for its subtask, and for none, one of them failed."""
    parent, subtask, ada = gid(world.parent), gid(world.subtask), gid(world.ada)
    await record(
        world,
        {
            "taskId": parent,
            "agentId": ada,
            "occurredAt": "2026-03-01T22:59:59.999Z",
            "inputTokens": 100,
            "cachedInputTokens": 40,
            "cacheCreationTokens": 20,
            "outputTokens": 10,
            "reasoningTokens": 5,
            "cost": "1.5",
        },
        {
            "taskId": subtask,
            "agentId": ada,
            "occurredAt": "2026-03-02T01:00:00+02:00",
            "inputTokens": 7,
            "cost": "0.25",
            "success": False,
        },
        {"taskId": subtask, "occurredAt": "2026-03-02T00:00:00Z", "cost": "0.000000001"},
        {"occurredAt": "2026-03-02T00:59:00Z", "modelId": None, "modelName": "new"},
    )


def rows(answer: Any, *names: str) -> list[tuple[Any, ...]]:
    """Some fields of each row of a summary; of an object its name or title."""

    def plain(value: Any) -> Any:
        return next(iter(value.values())) if isinstance(value, dict) else value

    found = answer.data["usageSummary"]
    return [tuple(plain(row[name]) for name in names) for row in found]


async def test_a_summary_has_all_sums(world: World) -> None:
    await some_calls(world)

    answer = await world.owner.ask(ASK % SUMS)

    assert answer.data["usageSummary"] == [
        {
            "inputTokens": "107",
            "cachedInputTokens": "40",
            "cacheCreationTokens": "20",
            "outputTokens": "10",
            "reasoningTokens": "5",
            "cost": "1.750000001",
            "calls": "4",
            "failures": "1",
            "unpricedCalls": "1",
        }
    ]
    assert len(answer.statements) == 1


@pytest.mark.parametrize("is_merged", [False, True])
async def test_usage_is_summed_by_what_it_was_for_and_when(
    world: World, resolvers: People, is_merged: bool
) -> None:
    await some_calls(world)
    if is_merged:
        assert await merge(world.database) == 4
    sunday, monday = "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"
    first, second = "2026-03-01T22:00:00+00:00", "2026-03-01T23:00:00+00:00"
    cases: list[tuple[dict[str, Any], str, list[tuple[Any, ...]]]] = [
        ({"groupBy": ["PROJECT"]}, "project calls", [("Moon base", "4")]),
        (
            {"groupBy": ["AGENT"]},
            "agent cost",
            [("Ada", "1.750000000"), (None, "0.000000001")],
        ),
        (
            {"groupBy": ["MODEL"]},
            "modelName calls unpricedCalls",
            [("gpt-4o", "3", "0"), ("new", "1", "1")],
        ),
        (
            {"groupBy": ["TASK"]},
            "task cost calls",
            [
                ("Parent", "1.500000000", "1"),
                ("Subtask", "0.250000001", "2"),
                (None, "0.000000000", "1"),
            ],
        ),
        (
            {"groupBy": ["TASK"], "rollUp": True},
            "task cost calls",
            [
                ("Parent", "1.750000001", "3"),
                ("Subtask", "0.250000001", "2"),
                (None, "0.000000000", "1"),
            ],
        ),
        # Without tasks, there is nothing to roll up.
        ({"groupBy": ["AGENT"], "rollUp": True}, "agent calls", [("Ada", "2"), (None, "2")]),
        ({"groupBy": ["DAY"]}, "time calls", [(sunday, "2"), (monday, "2")]),
        (
            {"groupBy": ["HOUR"]},
            "time calls",
            [(first, "1"), (second, "1"), (monday, "2")],
        ),
        ({"groupBy": ["HOUR", "DAY"], "first": 2}, "time calls", [(first, "1"), (second, "1")]),
        (
            {"groupBy": ["DAY", "TASK"], "rollUp": True},
            "time task calls",
            [
                (sunday, "Parent", "2"),
                (sunday, "Subtask", "1"),
                (monday, "Parent", "1"),
                (monday, "Subtask", "1"),
                (monday, None, "1"),
            ],
        ),
        # An hour counts as a whole, by its beginning.
        ({"groupBy": ["HOUR"], "from": second, "to": monday}, "time calls", [(second, "1")]),
        (
            {"groupBy": ["HOUR"], "from": "2026-03-01T22:00:00.000001Z"},
            "time calls",
            [(second, "1"), (monday, "2")],
        ),
        (
            {"groupBy": ["HOUR"], "to": "2026-03-02T00:00:01Z"},
            "time calls",
            [(first, "1"), (second, "1"), (monday, "2")],
        ),
        ({"groupBy": ["DAY"], "from": "2027-01-01T00:00:00Z"}, "time", []),
        ({"from": "2027-01-01T00:00:00Z"}, "calls", []),
        ({"projectId": gid(world.project)}, "calls", [("4",)]),
        ({"projectId": gid(world.elsewhere)}, "calls", []),
        ({"first": 0}, "calls", []),
        ({"groupBy": []}, "calls", [("4",)]),
    ]
    for arguments, fields, expected in cases:
        planned = await world.owner.ask(ASK % NAMES, **arguments)
        resolved = await resolvers.owner.ask(ASK % NAMES, **arguments)

        assert rows(planned, *fields.split()) == expected, arguments
        assert planned.text == resolved.text
        assert len(planned.statements) == 1


async def test_what_is_not_grouped_by_is_null(world: World) -> None:
    await some_calls(world)

    answer = await world.owner.ask(ASK % NAMES, groupBy=["PROJECT"])

    (row,) = answer.data["usageSummary"]
    assert [row[name] for name in ("time", "agent", "modelName", "task")] == [None] * 4


async def test_only_usage_of_projects_that_a_viewer_sees_is_summed(world: World) -> None:
    await some_calls(world)
    other = {"modelId": "gpt-4o", "cost": "9"}
    await world.people.stranger.change(
        "recordUsage { userErrors { code } }", projectId=gid(world.elsewhere), records=[other]
    )
    found = {
        name: rows(await client.ask(ASK % NAMES, groupBy=["PROJECT"]), "project", "cost")
        for name, client in {
            "owner": world.owner,
            "stranger": world.people.stranger,
            "agent": world.agent,
            "admin": world.people.admin,
        }.items()
    }

    ours, theirs = ("Moon base", "1.750000001"), ("Elsewhere", "9.000000000")
    assert found == {
        "owner": [ours],
        "stranger": [theirs],
        "agent": [ours],
        "admin": [theirs, ours],
    }
    hidden = await world.people.stranger.ask(ASK % SUMS, projectId=gid(world.project))
    assert hidden.data["usageSummary"] == []


@pytest.mark.parametrize("first", [-1, 1001])
async def test_the_number_of_rows_is_limited(world: World, first: int) -> None:
    answer = await world.owner.ask(ASK % SUMS, first=first)

    assert answer.errors[0]["message"] == f"first must be between 0 and 1,000, not {first}."


async def test_the_rows_of_a_summary_cost_what_they_are(limited: People) -> None:
    selected = "task { usageRecords(first: 100) { nodes { id } } }"

    answer = await limited.owner.ask(ASK % selected, first=1000, groupBy=["TASK"])

    assert answer.code == "LIMIT_EXCEEDED"


async def test_objects_say_what_they_cost(world: World, resolvers: People) -> None:
    await some_calls(world)
    query = """{
        projects { nodes { cost } } agents { nodes { name cost } }
        tasks(orderBy: CREATED_AT_ASC) { nodes { title cost totalCost } }
    }"""
    for _ in range(2):
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)

        assert planned.data == {
            "projects": {"nodes": [{"cost": "1.750000001"}]},
            "agents": {"nodes": [{"name": "Ada", "cost": "1.750000000"}]},
            "tasks": {
                "nodes": [
                    {"title": "Parent", "cost": "1.500000000", "totalCost": "1.750000001"},
                    {"title": "Free", "cost": "0.000000000", "totalCost": "0.000000000"},
                    {"title": "Subtask", "cost": "0.250000001", "totalCost": "0.250000001"},
                ]
            },
        }
        assert planned.text == resolved.text
        assert len(planned.statements) == 1
        await merge(world.database)


# The totals are those of the records, whatever is done to these.


async def test_deleting_what_usage_was_for_moves_its_sums(world: World) -> None:
    await some_calls(world)
    await merge(world.database)
    for mutation, row in (
        ("deleteTask", world.subtask),
        ("deleteAgent", world.ada),
    ):
        await world.owner.change(f"{mutation} {{ deletedId }}", id=gid(row))
        assert await stored(world.database, DIFFERENCES) == []
    found = await world.owner.ask(ASK % NAMES, groupBy=["TASK", "AGENT"])
    assert rows(found, "task", "agent", "calls") == [("Parent", None, "1"), (None, None, "3")]

    await world.owner.change("deleteProject { deletedId }", id=gid(world.project))
    assert await stored(world.database, DIFFERENCES) == []
    await merge(world.database)
    assert await stored(world.database, "SELECT * FROM usage_totals") == []


async def test_statements_past_the_api_keep_the_totals(world: World) -> None:
    await some_calls(world)
    async with world.database.write(ADMIN) as session:
        connection = await session.connection()
        for statement in (
            "INSERT INTO usage_records (project_id, model_name, input_tokens, occurred_at)"
            " SELECT project_id, model_name, input_tokens, occurred_at + interval '1 hour'"
            " FROM usage_records, generate_series(1, 10)",
            "UPDATE usage_records SET occurred_at = occurred_at + interval '10 minutes'",
            "UPDATE usage_records SET success = NOT success, cost = 2 WHERE input_tokens = 7",
            "DELETE FROM usage_records WHERE input_tokens = 100",
        ):
            await connection.exec_driver_sql(statement)
    assert await stored(world.database, DIFFERENCES) == []
    assert await stored(world.database, "SELECT sum(calls) FROM usage_totals") == [33]
    async with world.database.write(ADMIN) as session:
        await (await session.connection()).exec_driver_sql("TRUNCATE usage_records")
    assert await stored(world.database, DIFFERENCES) == []
    assert await stored(world.database, "SELECT sum(calls) FROM usage_totals") == [0]


@pytest.mark.parametrize("seed", range(5))
async def test_random_changes_keep_the_totals(world: World, seed: int) -> None:
    draw = random.Random(seed)
    async with world.database.write(ADMIN) as session:
        agents = [await factories.make_agent(session, world.project, str(n)) for n in range(4)]
        tasks = [await factories.make_task(session, world.project, str(n)) for n in range(4)]
    projects = [world.project, world.elsewhere]

    def a_call() -> dict[str, Any]:
        task, agent = draw.choice([None, *tasks]), draw.choice([None, *agents])
        return {
            "model_name": draw.choice(["a", "b"]),
            "project_id": draw.choice(projects).id,
            "agent_id": agent and agent.id,
            "task_id": task and task.id,
            "user_id": draw.choice([None, world.people.users["owner"].id]),
            "input_tokens": draw.choice([0, 5, 2_000_000_000]),
            "output_tokens": draw.randrange(5),
            "cost": draw.choice([None, Decimal("0.1"), Decimal("999999999.999999999")]),
            "success": draw.random() < 0.8,
            "occurred_at": START + timedelta(minutes=draw.randrange(300)),
        }

    for step in range(60):
        kind = draw.randrange(7)
        if kind == 0 and tasks:
            gone: Any = tasks.pop()
        elif kind == 1 and agents:
            gone = agents.pop()
        else:
            gone = None
        async with world.database.write(ADMIN) as session:
            if gone is not None:
                await (await session.get_one(type(gone), gone.id)).delete(session)
            elif kind < 4:
                session.add_all(db.UsageRecord(**a_call()) for _ in range(draw.choice([1, 1, 9])))
            else:
                known = list(await db.UsageRecord.list(session))
                for row in draw.sample(known, min(len(known), 3)):
                    if kind == 4:
                        await row.delete(session)
                    else:
                        row.change(**a_call())
        if step % 7 == 0:
            await merge(world.database)
        assert await stored(world.database, DIFFERENCES) == [], (seed, step)


async def test_sixteen_writers_lose_nothing_while_sums_are_merged(world: World) -> None:
    task, ada = gid(world.free), gid(world.ada)
    is_done = False

    async def merge_on() -> int:
        merged = 0
        while not is_done:
            merged += await merge(world.database)
        return merged

    async def write(place: int) -> None:
        for number in range(20):
            call = {"inputTokens": number, "cost": "0.001", "occurredAt": "2026-01-01T00:00:00Z"}
            await record(world, *[call | ({"taskId": task} if place % 2 else {"agentId": ada})] * 3)

    merging = asyncio.create_task(merge_on())
    await asyncio.gather(*map(write, range(16)))
    is_done = True
    await merging
    await merge(world.database)

    assert await stored(world.database, DIFFERENCES) == []
    query = "SELECT calls, input_tokens, cost, is_merged FROM usage_totals"
    assert await stored(world.database, query) == [(480, 4560, Decimal("0.48"), True)] * 2


async def test_what_is_rolled_back_counts_for_nothing(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        await factories.make_usage(session, world.project, world.model, occurred_at=minutes(0))
        await session.rollback()
    assert await stored(world.database, "SELECT * FROM usage_totals") == []


async def test_merging_takes_so_many_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.usage_totals.MERGED", 3)
    for _ in range(4):
        await record(world, {"occurredAt": "2026-01-01T00:00:00Z"})

    assert [await merge(world.database) for _ in range(3)] == [3, 1, 0]
    assert await stored(world.database, "SELECT calls FROM usage_totals") == [4]


async def test_who_merges_does_not_wait_for_another(world: World) -> None:
    await some_calls(world)
    async with world.database.write(ADMIN) as session:
        assert await merge_totals(session) == 4
        assert await merge(world.database) == 0
    assert await stored(world.database, DIFFERENCES) == []


async def test_a_server_merges_in_the_background(world: World) -> None:
    await some_calls(world)
    sweeping = asyncio.create_task(Sweeper(world.database, 0.01).run())
    try:
        async with asyncio.timeout(20):
            new = "SELECT 1 FROM usage_totals WHERE NOT is_merged LIMIT 1"
            while await stored(world.database, new):  # noqa: ASYNC110 - another process merges
                await asyncio.sleep(0.05)
    finally:
        sweeping.cancel()
    assert await stored(world.database, DIFFERENCES) == []


async def test_a_summary_does_not_read_the_records(world: World) -> None:
    await some_calls(world)
    async with world.database.write(ADMIN) as session:
        connection = await session.connection()
        await connection.exec_driver_sql("ALTER TABLE usage_records DISABLE TRIGGER USER")
        await connection.exec_driver_sql("DELETE FROM usage_records")
        await connection.exec_driver_sql("ALTER TABLE usage_records ENABLE TRIGGER USER")

    answer = await world.owner.ask(ASK % NAMES, groupBy=["DAY"])

    assert rows(answer, "calls") == [("2",), ("2",)]


async def test_usage_is_priced_once_its_model_is_registered(world: World) -> None:
    call = {"modelId": None, "modelName": "new", "inputTokens": 1_000_000}
    late = call | {"occurredAt": "2026-05-01T00:00:00Z"}
    early = call | {"occurredAt": "2026-04-01T00:00:00Z"}
    supplied = early | {"cost": "7"}
    await record(world, late, early, supplied, early | {"modelName": "other"})
    show = "usageRecords { occurredAt modelName cost model { name } } userErrors { code path }"
    reprice = f"repriceUsage {{ {show} }}"
    project = {"projectId": gid(world.project)}

    assert (await world.owner.change(reprice, **project))["usageRecords"] == []
    async with world.database.write(ADMIN) as session:
        prices = {"input_price": Decimal("2.5"), "output_price": Decimal(1)}
        await factories.make_model(session, "new", **prices)
    limited = await world.owner.change(reprice, **project, until="2026-04-02T00:00:00Z")
    named = await world.owner.change(reprice, **project, modelName="other")
    rest = await world.owner.change(reprice, **project)
    again = await world.owner.change(reprice, **project)

    model = {"modelName": "new", "model": {"name": "new"}}
    april = {"occurredAt": "2026-04-01T00:00:00+00:00"} | model
    may = {"occurredAt": "2026-05-01T00:00:00+00:00"} | model
    priced = sorted(limited["usageRecords"], key=lambda row: str(row["cost"]))
    # A supplied cost stays.
    assert priced == [april | {"cost": "2.500000000"}, april | {"cost": "7.000000000"}]
    assert named["usageRecords"] == []
    assert rest["usageRecords"] == [may | {"cost": "2.500000000"}]
    assert again["usageRecords"] == []
    assert await stored(world.database, DIFFERENCES) == []
    every = await world.owner.change(reprice, **project, repriceAll=True)
    assert every["usageRecords"] == [april | {"cost": "2.500000000"}]
    assert await stored(world.database, DIFFERENCES) == []
    assert (await world.owner.change(reprice, **project, repriceAll=True))["usageRecords"] == []


async def test_usage_is_priced_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "MOST_REPRICED", 2)
    await record(world, *[{"inputTokens": n} for n in range(5)])
    async with world.database.write(ADMIN) as session:
        model = await session.get_one(db.AIModel, world.model.id)
        await model.update(session, input_price=Decimal(1), output_price=Decimal(1))
    counts = []
    for _ in range(4):
        payload = await world.owner.change(
            "repriceUsage { usageRecords { id } }", projectId=gid(world.project)
        )
        counts.append(len(payload["usageRecords"]))

    assert counts == [2, 2, 1, 0]
