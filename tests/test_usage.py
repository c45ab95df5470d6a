"""Usage: calls of AI models, recorded once, priced exactly, and kept."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Any

import httpx
import pytest

import db
from db.engine import BY_KEY
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import People
from tests.factories import minutes
from tests.oracle import by_members
from tests.world import Case, Fault, World, at, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
DOCUMENT = "mutation($input: RecordUsageInput!) {{ recordUsage(input: $input) {} }}"
WHOLE = (
    "{ usageRecords { id inputTokens cachedInputTokens outputTokens reasoningTokens cost latencyMs"
    " success requestId occurredAt model { name } project { name } agent { name } task { title }"
    f" attempt {{ number }} conversation {{ summary }} message {{ content }} user {{ username }} }}"
    f" {ERRORS} }}"
)
ADMIN = db.Viewer(is_administrator=True)
BREAKING = {
    "usage_records": {
        "tokens_not_negative": [
            "input_tokens = -1, cached_input_tokens = -1",
            "cached_input_tokens = -1",
            "output_tokens = -1, reasoning_tokens = -1",
            "reasoning_tokens = -1",
        ],
        "cached_tokens_are_input": ["cached_input_tokens = input_tokens + 1"],
        "reasoning_tokens_are_output": ["reasoning_tokens = output_tokens + 1"],
        "cost_not_negative": ["cost = -0.000000001"],
        "latency_ms_not_negative": ["latency_ms = -1"],
    },
}
SEEN = {db.UsageRecord: by_members}
CASES = {
    "recordUsage": Case(
        lambda w: {"projectId": gid(w.project), "records": [{"modelId": "gpt-4o"}]},
        at("projectId"),
    ),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_attempt(world: World, task: db.Task) -> db.TaskAttempt:
    """An attempt at a task."""
    async with world.database.write(ADMIN) as session:
        return await db.TaskAttempt.create(session, task_id=task.id, number=1)


def calls(world: World, *records: dict[str, Any]) -> dict[str, Any]:
    """Input that records calls for the owner's project."""
    model = {"modelId": gid(world.model)}
    return {"projectId": gid(world.project), "records": [model | record for record in records]}


async def cost(world: World, prices: tuple[str | None, ...], **tokens: Any) -> str | None:
    """What a call costs by the prices of input, cached input and output."""
    async with world.database.write(ADMIN) as session:
        names = ("input_price", "cached_input_price", "output_price")
        values = {name: price and Decimal(price) for name, price in zip(names, prices, strict=True)}
        await (await session.get_one(db.AIModel, world.model.id)).update(session, **values)
    payload = await world.owner.change(
        f"recordUsage {{ usageRecords {{ cost }} {ERRORS} }}", **calls(world, tokens)
    )
    assert payload["userErrors"] == []
    found: str | None = payload["usageRecords"][0]["cost"]
    return found


async def test_a_call_is_recorded_with_what_is_given(world: World) -> None:
    id = db.new_id()
    attempt = await make_attempt(world, world.free)

    answer = await world.owner.ask(
        DOCUMENT.format(WHOLE),
        input=calls(
            world,
            {
                "id": str(id),
                "inputTokens": 2_000_000_000,
                "cachedInputTokens": 10,
                "outputTokens": 7,
                "reasoningTokens": 7,
                "cost": "0.123456789",
                "latencyMs": 250,
                "success": False,
                "requestId": "r1",
                "occurredAt": "2026-01-01T01:00:00+01:00",
                "agentId": gid(world.ada),
                "taskId": gid(world.free),
                "attemptId": gid(attempt),
                "conversationId": gid(world.conversation),
                "messageId": gid(world.message),
                "userId": gid(world.people.users["owner"]),
            },
        ),
    )

    assert answer.data["recordUsage"] == {
        "usageRecords": [
            {
                "id": global_id("UsageRecord", id),
                "inputTokens": 2_000_000_000,
                "cachedInputTokens": 10,
                "outputTokens": 7,
                "reasoningTokens": 7,
                "cost": "0.123456789",
                "latencyMs": 250,
                "success": False,
                "requestId": "r1",
                "occurredAt": "2026-01-01T00:00:00+00:00",
                "model": {"name": "gpt-4o"},
                "project": {"name": "Moon base"},
                "agent": {"name": "Ada"},
                "task": {"title": "Free"},
                "attempt": {"number": 1},
                "conversation": {"summary": ""},
                "message": {"content": "Hello"},
                "user": {"username": "owner"},
            }
        ],
        "userErrors": [],
    }


async def test_a_model_is_enough(world: World, resolvers: People) -> None:
    payload = await world.owner.change(f"recordUsage {WHOLE}", **calls(world, {}))

    (record,) = payload["usageRecords"]
    tokens = ("inputTokens", "cachedInputTokens", "outputTokens", "reasoningTokens")
    assert [record[name] for name in tokens] == [0] * 4
    nothing = ("cost", "latencyMs", "requestId", "agent", "task", "attempt", "message", "user")
    assert [record[name] for name in nothing] == [None] * 8
    assert (record["success"], record["model"]) == (True, {"name": "gpt-4o"})
    query = "{ usageRecords { totalCount nodes { cost occurredAt id model { name } } } }"
    planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
    assert planned.text == resolved.text
    assert planned.data["usageRecords"]["totalCount"] == 1
    assert len(planned.statements) == 1


async def test_a_call_costs_what_its_tokens_do(world: World) -> None:
    tokens = {"inputTokens": 1000, "cachedInputTokens": 400, "outputTokens": 50}
    for prices, used, expected in (
        # 600 at 2.50, 400 at 1.25 and 50 at 10, for a million each.
        (("2.5", "1.25", "10"), tokens, "0.002500000"),
        # Without a price of their own, cached tokens cost what others do.
        (("2.5", None, "10"), tokens, "0.003000000"),
        (("2.5", "0", "10"), tokens, "0.002000000"),
        # Reasoning is part of the output.
        (("2.5", "1.25", "10"), tokens | {"reasoningTokens": 50}, "0.002500000"),
        (("0", "0", "0"), tokens, "0.000000000"),
        (("2.5", "1.25", "10"), {}, "0.000000000"),
        # No part of a cent is lost that the ninth place can hold, and the rest is rounded.
        (("0.001", None, "0"), {"inputTokens": 1}, "0.000000001"),
        (("0.0005", None, "0"), {"inputTokens": 1}, "0.000000001"),
        (("0.000499999", None, "0"), {"inputTokens": 1}, "0.000000000"),
        (("0.1", None, "0.2"), {"inputTokens": 3, "outputTokens": 3}, "0.000000900"),
        (
            ("499999.999999999", None, "0.000000001"),
            {"inputTokens": 2_000_000_000, "outputTokens": 1_999_999},
            "999999999.999998002",
        ),
        # A model of which a price is missing has none.
        ((None, "1.25", "10"), tokens, None),
        (("2.5", "1.25", None), tokens, None),
        ((None, None, None), tokens, None),
        # What is supplied goes before all prices.
        (("2.5", "1.25", "10"), tokens | {"cost": "7"}, "7.000000000"),
        (("2.5", "1.25", "10"), tokens | {"cost": "0"}, "0.000000000"),
        (("2.5", "1.25", "10"), tokens | {"cost": None}, "0.002500000"),
        ((None, None, None), tokens | {"cost": "0.000000001"}, "0.000000001"),
    ):
        assert await cost(world, prices, **used) == expected, (prices, used)


async def test_a_cost_beyond_all_money_is_refused_at_its_place(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        model = await factories.make_model(
            session, "dear", input_price=Decimal("500000"), output_price=Decimal(0)
        )

    found = await world.refused(
        world.owner,
        "recordUsage",
        **calls(world, {}, {"modelId": gid(model), "inputTokens": 2_000_000_000}),
    )

    assert found == [("INVALID", "records.1.cost")]


async def test_what_a_call_cost_stays_when_prices_change(world: World) -> None:
    await cost(world, ("1", None, "1"), inputTokens=1_000_000)
    await cost(world, ("2", None, "1"), inputTokens=1_000_000)

    query = "SELECT cost FROM usage_records ORDER BY id"
    assert await stored(world.database, query) == [Decimal("1"), Decimal("2")]


# A repeat counts once.


async def test_a_request_that_is_repeated_counts_once(world: World) -> None:
    record = "recordUsage { usageRecords { id inputTokens requestId } userErrors { code } }"
    once = {"requestId": "a", "inputTokens": 1}

    first = await world.owner.change(
        record, **calls(world, once, {"requestId": "b"}, once | {"inputTokens": 2}, {}, {})
    )
    second = await world.owner.change(
        record, **calls(world, {"requestId": "c"}, once | {"inputTokens": 3})
    )

    shown = first["usageRecords"]
    assert [one["requestId"] for one in shown] == ["a", "b", "a", None, None]
    assert shown[0] == shown[2] == second["usageRecords"][1]
    assert shown[0]["inputTokens"] == 1
    query = "SELECT request_id FROM usage_records ORDER BY id"
    assert await stored(world.database, query) == ["a", "b", None, None, "c"]


async def test_request_ids_are_of_their_project(world: World) -> None:
    for client, project in ((world.owner, world.project), (world.people.stranger, world.elsewhere)):
        payload = await client.change(
            "recordUsage { usageRecords { project { name } } userErrors { code } }",
            projectId=gid(project),
            records=[{"modelId": "gpt-4o", "requestId": "a"}],
        )
        assert payload["usageRecords"] == [{"project": {"name": project.name}}]

    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [2]


async def test_a_request_that_is_repeated_at_once_counts_once(world: World) -> None:
    for place in range(10):
        input = calls(world, {"requestId": f"r{place}"}, {"requestId": f"s{place}"})
        payloads = await asyncio.gather(
            *(
                world.owner.change("recordUsage { usageRecords { id } userErrors { code } }", **one)
                for one in (input, input | {"records": input["records"][::-1]}, input)
            )
        )

        ids = [[record["id"] for record in payload["usageRecords"]] for payload in payloads]
        assert ids[0] == ids[1][::-1] == ids[2]
        assert all(payload["userErrors"] == [] for payload in payloads)
    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [20]


async def test_a_thousand_calls_are_one_insert(world: World) -> None:
    async def record(many: int) -> tuple[list[str], Any]:
        records = [
            {"inputTokens": n, "cost": f"{n}.5", "requestId": f"{many}/{n}"}
            if n % 3
            else {"agentId": gid(world.ada), "latencyMs": n, "occurredAt": "2026-01-01T00:00:00Z"}
            for n in range(many)
        ]
        # Moments are given to all or none: the database fills the gaps of each kind apart.
        records = [{"occurredAt": "2026-01-01T00:00:00Z"} | one for one in records]
        answer = await world.owner.ask(
            DOCUMENT.format("{ usageRecords { inputTokens } userErrors { code } }"),
            input=calls(world, *records),
        )
        return answer.statements, answer.data["recordUsage"]

    few, _ = await record(2)
    many, payload = await record(1000)

    assert len(few) == len(many) <= 9
    assert ["INSERT" in statement for statement in many].count(True) == 1
    assert payload["userErrors"] == []
    tokens = [record["inputTokens"] for record in payload["usageRecords"]]
    assert tokens == [n if n % 3 else 0 for n in range(1000)]
    query = "SELECT count(*), sum(cost) FROM usage_records WHERE request_id LIKE '1000/%'"
    total = sum(n + Decimal("0.5") for n in range(1000) if n % 3)
    assert await stored(world.database, query) == [(666, total)]


# What is refused.


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    ada = gid(world.ada)
    ids = ("id", "attemptId", "conversationId", "messageId", "modelId", "taskId", "userId")
    wrong: dict[str, Any] = dict.fromkeys(ids, ada) | {
        "agentId": "x",
        "requestId": "",
        "cost": "-1",
    }
    wrong |= {"inputTokens": -1, "outputTokens": 2_000_000_001, "latencyMs": -1}

    found = await world.refused(
        world.owner,
        "recordUsage",
        projectId=ada,
        records=[{"modelId": "x"}, wrong, {"modelId": "x", "cost": "0.0000000001"}],
    )
    for records in ([], [{"modelId": "gpt-4o"}] * 1001):
        number = await world.refused(
            world.owner, "recordUsage", projectId=gid(world.project), records=records
        )
        assert number == [("INVALID", "records")]

    paths = ["projectId", *(f"records.1.{name}" for name in wrong), "records.2.cost"]
    assert sorted(found) == sorted(("INVALID", path) for path in paths)


async def test_parts_are_no_more_than_the_whole(world: World) -> None:
    input = calls(
        world,
        {"cachedInputTokens": 1},
        {"inputTokens": 5, "cachedInputTokens": 5, "outputTokens": 5, "reasoningTokens": 5},
        {"inputTokens": 5, "cachedInputTokens": 6, "outputTokens": 5, "reasoningTokens": 6},
    )
    found = await world.refused(world.owner, "recordUsage", **input)
    payload = await world.owner.change(f"recordUsage {{ {ERRORS} }}", **input)

    assert sorted(found) == [
        ("INVALID", f"records.{place}")
        for place in ("0.cachedInputTokens", "2.cachedInputTokens", "2.reasoningTokens")
    ]
    assert {error["message"] for error in payload["userErrors"]} == {
        "These are part of the input tokens, and cannot be more.",
        "These are part of the output tokens, and cannot be more.",
    }


async def test_unusable_references_are_refused_each_at_its_place(world: World) -> None:
    first = await world.owner.change("recordUsage { usageRecords { id } }", **calls(world, {}))
    taken, mine = first["usageRecords"][0]["id"], str(db.new_id())
    foreign = await make_attempt(world, world.foreign)
    async with world.database.write(ADMIN) as session:
        conversation = await factories.make_conversation(session, project_id=world.elsewhere.id)
        (message,) = await factories.make_messages(session, conversation, ["Secret"])
    elsewhere = {
        "agentId": gid(world.bob),
        "attemptId": gid(foreign),
        "conversationId": gid(conversation),
        "messageId": gid(message),
        "taskId": gid(world.foreign),
    }
    everything = elsewhere | {"modelId": "nobody", "userId": gid(world.people.users["stranger"])}
    owner, admin = world.owner, world.people.admin
    cases: list[tuple[Any, list[dict[str, Any]], list[Fault]]] = [
        (owner, [{}, everything], [("NOT_FOUND", f"records.1.{name}") for name in everything]),
        # Whoever sees both projects is told that they are two.
        (admin, [{}, elsewhere], [("INVALID", f"records.1.{name}") for name in elsewhere]),
        (owner, [{}, {"id": taken}], [("ALREADY_EXISTS", "records.1.id")]),
        (owner, [{"id": mine}, {"id": mine}], [("ALREADY_EXISTS", "records.1.id")]),
    ]
    for client, records, expected in cases:
        found = await world.refused(client, "recordUsage", **calls(world, *records))
        assert sorted(found) == sorted(expected), records


async def test_who_may_not_edit_the_project_records_nothing(world: World) -> None:
    input = calls(world, {})
    async with world.database.write(ADMIN) as session:
        key = {"project_id": world.project.id, "user_id": world.people.users["stranger"].id}
        session.add(db.ProjectMember(**key, role=db.MemberRole.VIEWER))

    assert await world.error(world.people.stranger, "recordUsage", **input) == "FORBIDDEN"
    foreign = input | {"projectId": gid(world.elsewhere)}
    found = await world.refused(world.owner, "recordUsage", **foreign)
    assert found == [("NOT_FOUND", "projectId")]


# What is kept.


async def test_usage_is_found_by_what_it_was_for(world: World, resolvers: People) -> None:
    free: dict[str, Any] = {
        "taskId": gid(world.free),
        "occurredAt": "2026-01-01T00:02:00Z",
        "inputTokens": 2,
    }
    ada = {"agentId": gid(world.ada), "occurredAt": "2026-01-01T00:01:00Z", "success": False}
    talk: dict[str, Any] = {
        "conversationId": gid(world.conversation),
        "messageId": gid(world.message),
    }
    talk |= {"occurredAt": "2026-01-01T00:00:00Z", "requestId": "talk", "latencyMs": 9}
    await world.owner.change(f"recordUsage {{ {ERRORS} }}", **calls(world, free, ada, talk))
    times = ["2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00", "2026-01-01T00:02:00+00:00"]
    query = "query($where: UsageRecordFilter) { usageRecords(where: $where,"
    query += " orderBy: OCCURRED_AT_ASC) { totalCount nodes { occurredAt } } }"
    for where, wanted in (
        ({}, times),
        ({"taskId": {"eq": gid(world.free)}}, times[2:]),
        ({"task": {"title": {"eq": "Free"}}}, times[2:]),
        ({"agent": {"name": {"eq": "Ada"}}}, times[1:2]),
        ({"success": {"eq": True}}, [times[0], times[2]]),
        ({"conversationId": {"isNull": False}}, times[:1]),
        ({"messageId": {"eq": gid(world.message)}}, times[:1]),
        ({"requestId": {"eq": "talk"}}, times[:1]),
        ({"latencyMs": {"lt": 10}}, times[:1]),
        ({"inputTokens": {"gt": 1}}, times[2:]),
        ({"occurredAt": {"gte": times[1], "lt": times[2]}}, times[1:2]),
        ({"model": {"provider": {"eq": "OpenAI"}}}, times),
        ({"modelId": {"eq": "other"}}, []),
    ):
        answer = await world.owner.ask(query, where=where)

        page = answer.data["usageRecords"]
        assert [node["occurredAt"] for node in page["nodes"]] == wanted, where
        assert page["totalCount"] == len(wanted)
        assert len(answer.statements) == 1
    each = "usageRecords { totalCount }"
    everywhere = (
        f"{{ projects {{ nodes {{ {each} }} }} tasks(orderBy: CREATED_AT_ASC) {{ nodes {{ {each}"
        f" }} }} agents {{ nodes {{ {each} }} }} conversations {{ nodes {{ {each} messages {{"
        f" nodes {{ {each} }} }} }} }} aiModels {{ nodes {{ {each} }} }} }}"
    )
    planned, resolved = await world.owner.ask(everywhere), await resolvers.owner.ask(everywhere)
    hidden = await world.people.stranger.ask(f"{{ {each} aiModels {{ nodes {{ {each} }} }} }}")

    def count(number: int) -> dict[str, Any]:
        return {"usageRecords": {"totalCount": number}}

    assert planned.text == resolved.text
    assert planned.data == {
        "projects": {"nodes": [count(3)]},
        "tasks": {"nodes": [count(0), count(1), count(0)]},
        "agents": {"nodes": [count(1)]},
        "conversations": {"nodes": [count(1) | {"messages": {"nodes": [count(1)]}}]},
        "aiModels": {"nodes": [count(3)]},
    }
    assert hidden.data == count(0) | {"aiModels": {"nodes": [count(0)]}}


async def test_usage_outlives_what_it_was_for(world: World) -> None:
    attempt = await make_attempt(world, world.free)
    record = {
        "agentId": gid(world.ada),
        "taskId": gid(world.free),
        "attemptId": gid(attempt),
        "conversationId": gid(world.conversation),
        "messageId": gid(world.message),
    }
    await world.owner.change(f"recordUsage {{ {ERRORS} }}", **calls(world, record))
    for mutation, row in (
        ("deleteTask", world.free),
        ("deleteConversation", world.conversation),
        ("deleteAgent", world.ada),
    ):
        await world.owner.change(f"{mutation} {{ deletedId }}", id=gid(row))

    query = "SELECT model_id, num_nonnulls(agent_id, task_id, attempt_id, conversation_id,"
    query += " message_id) FROM usage_records"
    assert await stored(world.database, query) == [("gpt-4o", 0)]
    await world.owner.change("deleteProject { deletedId }", id=gid(world.project))
    assert await stored(world.database, "SELECT * FROM usage_records") == []


async def test_a_model_that_was_used_stays(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        await session.merge(
            db.UsageRecord(
                model_id=world.model.id, project_id=world.project.id, occurred_at=minutes(0)
            )
        )
    before = await snapshot(world.database)

    payload = await world.people.admin.change(
        f"deleteAiModel {{ deletedId {ERRORS} }}", id=gid(world.model)
    )

    message = "There are usage records of this; it cannot be deleted."
    error = {"code": "INVALID", "path": ["id"], "message": message}
    assert payload == {"deletedId": None, "userErrors": [error]}
    assert await snapshot(world.database) == before


async def test_a_payload_is_read_by_its_keys_even_if_it_was_planned_over_an_empty_table(
    world: World,
) -> None:
    connection = await world.database.open()
    try:
        await connection.execute("VACUUM usage_records")
        answer = await world.owner.ask(
            "mutation($input: RecordUsageInput!) { recordUsage(input: $input) {"
            " usageRecords { id project { usageRecords { totalCount } } } } }",
            input=CASES["recordUsage"].input(world),  # type: ignore[arg-type]
        )
        read = answer.statements[-1]
        for name, value in BY_KEY.items():
            await connection.execute(f"SET {name} = {value}")
        await connection.execute(f"PREPARE payload AS {read}")
        nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", read))))
        plan = await connection.fetch(f"EXPLAIN EXECUTE payload({nothing})")
    finally:
        await connection.close()

    lines = [str(row[0]) for row in plan]
    scan = next(place for place, line in enumerate(lines) if "on usage_records" in line)
    assert "Index Scan using pk_usage_records" in lines[scan], "\n".join(lines)
    assert "Index Cond" in lines[scan + 1], "\n".join(lines)
