"""Usage: calls of AI models, recorded once, priced exactly, and kept."""

from __future__ import annotations

import asyncio
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest

import db
from db import Right, usage
from db.engine import BY_KEY
from db.errors import Invalid, Rejected
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import ADMIN, People
from tests.factories import minutes
from tests.oracle import by_members
from tests.patience import PATIENCE
from tests.world import Case, Fault, World, at, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
DOCUMENT = "mutation($input: RecordUsageInput!) {{ recordUsage(input: $input) {} }}"
WHOLE = (
    "{ usageRecords { id modelName inputTokens cachedInputTokens cacheCreationTokens outputTokens"
    " reasoningTokens cost latencyMs success requestId traceId spanId occurredAt model { name }"
    " project { name } agent { name } task { title } attempt { number } conversation { summary }"
    f" message {{ content }} user {{ username }} }} {ERRORS} }}"
)
BREAKING = {
    "usage_records": {
        "tokens_not_negative": [
            "input_tokens = -1, cached_input_tokens = -1",
            "cached_input_tokens = -1",
            "cache_creation_tokens = -1",
            "output_tokens = -1, reasoning_tokens = -1",
            "reasoning_tokens = -1",
        ],
        "cached_tokens_are_input": [
            "cached_input_tokens = input_tokens + 1",
            "cache_creation_tokens = input_tokens + 1",
            "input_tokens = 5, cached_input_tokens = 3, cache_creation_tokens = 3",
            "input_tokens = 1, cached_input_tokens = 2147483647,"
            " cache_creation_tokens = 2147483647",
        ],
        "trace_id_form": ["trace_id = '0'", "trace_id = repeat('A', 32)"],
        "span_id_form": ["span_id = repeat('0', 15)", "span_id = repeat('g', 16)"],
        "reasoning_tokens_are_output": ["reasoning_tokens = output_tokens + 1"],
        "cost_not_negative": ["cost = -0.000000001"],
        "latency_ms_not_negative": ["latency_ms = -1"],
    },
}
SEEN = {db.UsageRecord: by_members}
VALUES = {
    db.UsageRecord: lambda place: {"cache_creation_tokens": 0, "trace_id": None, "span_id": None}
}
CASES = {
    "recordUsage": Case(
        lambda w: {"projectId": gid(w.project), "records": [{"modelId": "gpt-4o"}]},
        at("projectId"),
    ),
    "repriceUsage": Case(lambda w: {"projectId": gid(w.project)}, at("projectId")),
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
                "modelName": "openai/gpt-4o",
                "inputTokens": 2_000_000_000,
                "cachedInputTokens": 10,
                "cacheCreationTokens": 1_999_999_990,
                "outputTokens": 7,
                "reasoningTokens": 7,
                "cost": "0.123456789",
                "latencyMs": 250,
                "success": False,
                "requestId": "r1",
                "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01",
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
                "modelName": "openai/gpt-4o",
                "inputTokens": 2_000_000_000,
                "cachedInputTokens": 10,
                "cacheCreationTokens": 1_999_999_990,
                "outputTokens": 7,
                "reasoningTokens": 7,
                "cost": "0.123456789",
                "latencyMs": 250,
                "success": False,
                "requestId": "r1",
                "traceId": "ab" * 16,
                "spanId": "cd" * 8,
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


async def test_a_call_of_an_attempt_is_for_its_task_and_by_its_agent(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        attempt = await db.TaskAttempt.create(
            session, task_id=world.free.id, number=1, agent_id=world.ada.id
        )
        other = await factories.make_task(session, world.project, title="Other")
    of_attempt = {"attemptId": gid(attempt), "cost": "0.5"}

    one = await world.owner.change(f"recordUsage {WHOLE}", **calls(world, of_attempt))
    many = await world.owner.change(
        f"recordUsage {WHOLE}", **calls(world, of_attempt, of_attempt | {"taskId": gid(other)}, {})
    )

    found = [
        (row["task"] and row["task"]["title"], row["agent"] and row["agent"]["name"])
        for row in (*one["usageRecords"], *many["usageRecords"])
    ]
    assert found == [("Free", "Ada"), ("Free", "Ada"), ("Other", "Ada"), (None, None)]
    task = await world.owner.ask("query($id: ID!) { task(id: $id) { cost } }", id=gid(world.free))
    assert task.data == {"task": {"cost": "1.000000000"}}


async def test_a_model_is_enough(world: World, resolvers: People) -> None:
    payload = await world.owner.change(f"recordUsage {WHOLE}", **calls(world, {}))

    (record,) = payload["usageRecords"]
    tokens = ("inputTokens", "cachedInputTokens", "cacheCreationTokens", "outputTokens")
    assert [record[name] for name in (*tokens, "reasoningTokens")] == [0] * 5
    nothing = ("cost", "latencyMs", "requestId", "agent", "task", "attempt", "message", "user")
    assert [record[name] for name in (*nothing, "traceId", "spanId")] == [None] * 10
    assert (record["success"], record["modelName"]) == (True, "gpt-4o")
    assert record["model"] == {"name": "gpt-4o"}
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


async def test_what_is_written_to_a_cache_has_a_price(world: World) -> None:
    tokens = {"inputTokens": 1000, "cachedInputTokens": 400, "cacheCreationTokens": 500}
    for price, expected in ((None, "0.001750000"), ("3.125", "0.002312500"), ("0", "0.000750000")):
        async with world.database.write(ADMIN) as session:
            model = await session.get_one(db.AIModel, world.model.id)
            await model.update(session, cache_creation_price=price and Decimal(price))
        # 100 and 500 at 2, 400 at 1.375 for a million, unless written ones have another price.
        found = await cost(world, ("2", "1.375", "9"), **tokens)
        assert found == expected


async def test_a_model_need_not_be_registered(world: World) -> None:
    payload = await world.owner.change(
        f"recordUsage {WHOLE}",
        projectId=gid(world.project),
        records=[
            {"modelName": "nobody's", "inputTokens": 3},
            {"modelName": "nobody's", "cost": "2"},
            {"modelName": "gpt-4o"},
        ],
    )

    shown = ("modelName", "model", "cost")
    assert [tuple(record[name] for name in shown) for record in payload["usageRecords"]] == [
        ("nobody's", None, None),
        ("nobody's", None, "2.000000000"),
        ("gpt-4o", {"name": "gpt-4o"}, None),
    ]
    found = await world.refused(
        world.owner, "recordUsage", projectId=gid(world.project), records=[{}, {"modelName": ""}]
    )
    assert found == [("INVALID", "records.1.modelName")]
    found = await world.refused(
        world.owner, "recordUsage", projectId=gid(world.project), records=[{"modelName": "a"}, {}]
    )
    assert found == [("INVALID", "records.1.modelName")]


async def test_attributes_of_a_span_are_understood(world: World) -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 40,
        "gen_ai.usage.cache_creation.input_tokens": 20,
        "gen_ai.usage.output_tokens": 10,
        "gen_ai.usage.reasoning.output_tokens": 4,
        "error.type": "timeout",
    }
    earlier = {
        "gen_ai.response.model": "b",
        "gen_ai.usage.prompt_tokens": 9,
        "gen_ai.usage.cache_read_input_tokens": 3,
        "gen_ai.usage.cache_creation_input_tokens": 2,
        "gen_ai.usage.completion_tokens": 8,
        "gen_ai.usage.reasoning_tokens": 7,
        "error.type": None,
    }
    payload = await world.owner.change(
        f"recordUsage {WHOLE}",
        projectId=gid(world.project),
        records=[
            {"attributes": attributes},
            {"attributes": attributes | {"gen_ai.response.id": "2"}, "outputTokens": 4},
            {"attributes": earlier},
            {"attributes": attributes},
        ],
    )

    columns = ["modelName", "requestId", "inputTokens", "cachedInputTokens", "cacheCreationTokens"]
    columns += ["outputTokens", "reasoningTokens", "success"]
    records = [tuple(each[name] for name in columns) for each in payload["usageRecords"]]
    assert records == [
        ("gpt-4o", "chatcmpl-1", 100, 40, 20, 10, 4, False),
        ("gpt-4o", "2", 100, 40, 20, 4, 4, False),
        ("b", None, 9, 3, 2, 8, 7, True),
        records[0],
    ]
    assert payload["usageRecords"][0]["model"] == {"name": "gpt-4o"}
    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gen_ai.request.model", ""),
        ("gen_ai.request.model", 7),
        ("gen_ai.response.id", "x" * 256),
        ("gen_ai.usage.input_tokens", -1),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", 1.5),
        ("gen_ai.usage.output_tokens", True),
        ("gen_ai.usage.output_tokens", 2_000_000_001),
    ],
)
async def test_an_attribute_of_the_wrong_kind_is_refused(
    world: World, name: str, value: Any
) -> None:
    records = [{}, {"attributes": {name: value}}]
    found = await world.refused(world.owner, "recordUsage", **calls(world, *records))

    payload = await world.owner.change(f"recordUsage {{ {ERRORS} }}", **calls(world, *records))
    (error,) = payload["userErrors"]
    assert error["message"].startswith(f"{name} must be a ")
    assert found == [("INVALID", "records.1.attributes")]


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("traceparent", "is_valid"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-01-what-comes", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        (f" 00-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-01\n", False),
        (f"cc-{TRACE}-{SPAN}-01.", False),
        ("", False),
    ],
)
async def test_a_traceparent_names_a_trace_and_a_span(
    world: World, traceparent: str, is_valid: bool
) -> None:
    input = calls(world, {"traceparent": traceparent})
    if not is_valid:
        found = await world.refused(world.owner, "recordUsage", **input)
        assert found == [("INVALID", "records.0.traceparent")]
        return
    payload = await world.owner.change("recordUsage { usageRecords { traceId spanId } }", **input)
    assert payload["usageRecords"] == [{"traceId": TRACE, "spanId": SPAN}]
    answer = await world.owner.ask(
        "query($where: UsageRecordFilter) { usageRecords(where: $where) { totalCount } }",
        where={"traceId": {"eq": TRACE}},
    )
    assert answer.data["usageRecords"]["totalCount"] == 1


async def test_attributes_and_the_project_are_understood_without_the_api(world: World) -> None:
    before = await snapshot(world.database)
    model = {"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": 3}
    named = {"model_name": "m", "task_id": world.free.id}
    wrong: list[dict[str, Any]] = [
        {"attributes": {"gen_ai.request.model": 1}},
        {"input_tokens": 1},
    ]

    async def record(project_id: UUID | None, *calls: dict[str, Any]) -> list[UUID]:
        async with world.database.write(ADMIN, Right.WORK) as session:
            return await usage.record_usage(
                session, project_id, {(place,): call for place, call in enumerate(calls)}
            )

    for project_id in (None, world.project.id):
        with pytest.raises(Rejected) as refused:
            await record(project_id, *wrong, named)
        paths = [error.path for error in refused.value.errors]
        assert paths == [(0, "attributes"), (1, "model_name")]
    with pytest.raises(Invalid, match="Name the project"):
        await record(None, {"model_name": "m"})
    assert await snapshot(world.database) == before
    given = {"attributes": model, "input_tokens": 5}
    first, second = await record(None, given, named)
    async with world.database.write(ADMIN) as session:
        one, other = [await session.get_one(db.UsageRecord, id) for id in (first, second)]
    assert (one.model_name, one.input_tokens) == ("m", 5)
    assert {one.project_id, other.project_id} == {world.project.id}


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


RECORDED = {"requestId": "a"}


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


async def test_what_others_record_meanwhile_is_not_recorded_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at what was recorded, and the insert of what is left."""
    await world.owner.change("recordUsage { userErrors { code } }", **calls(world, RECORDED))
    check = usage._check

    async def late(*arguments: Any) -> None:
        await check(*arguments)
        async with world.database.write(ADMIN) as session:
            values = {"request_id": "b", "occurred_at": minutes(0)}
            await factories.make_usage(session, world.project, world.model, **values)

    monkeypatch.setattr(usage, "_check", late)
    payload = await world.owner.change(
        "recordUsage { usageRecords { id requestId occurredAt } userErrors { code } }",
        **calls(world, RECORDED, {"requestId": "b"}, {"requestId": "c"}, {"requestId": "b"}),
    )

    shown = payload["usageRecords"]
    assert payload["userErrors"] == []
    assert [one["requestId"] for one in shown] == ["a", "b", "c", "b"]
    assert shown[1] == shown[3]
    assert shown[1]["occurredAt"].startswith(minutes(0).isoformat()[:16])
    query = "SELECT request_id FROM usage_records ORDER BY request_id"
    assert await stored(world.database, query) == ["a", "b", "c"]


@pytest.mark.parametrize("records", [[{"requestId": "b"}], [{"requestId": "a"}, {}]])
async def test_who_records_does_not_wait_for_who_changes_the_project(
    world: World, records: list[dict[str, Any]]
) -> None:
    await world.owner.change("recordUsage { userErrors { code } }", **calls(world, RECORDED))
    async with world.database.write(ADMIN) as session:
        await db.Project.get(session, world.project.id, for_update=True)
        async with asyncio.timeout(PATIENCE):
            payload = await world.owner.change(
                "recordUsage { usageRecords { requestId } userErrors { code } }",
                **calls(world, *records),
            )

    shown = [one.get("requestId") for one in records]
    assert [one["requestId"] for one in payload["usageRecords"]] == shown


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


async def test_mistakes_of_each_kind_are_reported_together(world: World) -> None:
    before = await snapshot(world.database)
    wrong: list[dict[str, Any]] = [
        {"inputTokens": -1},
        {"attributes": {"gen_ai.usage.input_tokens": "many"}},
        {"modelId": "nobody"},
        {"outputTokens": 1, "reasoningTokens": 2},
        {"taskId": gid(world.foreign)},
        {},
    ]
    later = [
        ("INVALID", "records.1.attributes"),
        ("INVALID", "records.3.reasoningTokens"),
        ("NOT_FOUND", "records.2.modelId"),
        ("NOT_FOUND", "records.4.taskId"),
    ]
    for records, expected in (
        (wrong, [("INVALID", "records.0.inputTokens"), *later]),
        ([{}, *wrong[1:]], later),
        # A call by itself would be one statement, which must not commit.
        ([{"inputTokens": -1}], [("INVALID", "records.0.inputTokens")]),
    ):
        found = await world.refused(world.owner, "recordUsage", **calls(world, *records))
        assert sorted(found) == sorted(expected)
    stranger = world.people.stranger
    found = await world.refused(stranger, "recordUsage", **calls(world, *wrong[:1]))
    assert found == [("INVALID", "records.0.inputTokens"), ("NOT_FOUND", "projectId")]
    assert await snapshot(world.database) == before


async def test_parts_are_no_more_than_the_whole(world: World) -> None:
    input = calls(
        world,
        {"cachedInputTokens": 1},
        {"inputTokens": 5, "cachedInputTokens": 5, "outputTokens": 5, "reasoningTokens": 5},
        {"inputTokens": 5, "cachedInputTokens": 6, "outputTokens": 5, "reasoningTokens": 6},
        {"inputTokens": 5, "cachedInputTokens": 3, "cacheCreationTokens": 3},
        {"inputTokens": 2_000_000_000, "cacheCreationTokens": 2_000_000_000},
        {"inputTokens": 5, "cacheCreationTokens": 6},
    )
    found = await world.refused(world.owner, "recordUsage", **input)
    payload = await world.owner.change(f"recordUsage {{ {ERRORS} }}", **input)

    assert sorted(found) == [
        ("INVALID", f"records.{place}")
        for place in (
            "0.cachedInputTokens",
            "2.cachedInputTokens",
            "2.reasoningTokens",
            "3.cacheCreationTokens",
            "3.cachedInputTokens",
            "5.cacheCreationTokens",
        )
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


async def test_the_project_follows_from_an_attempt_or_a_task(world: World) -> None:
    attempt = await make_attempt(world, world.free)
    selection = f"recordUsage {{ usageRecords {{ project {{ name }} task {{ title }} }} {ERRORS} }}"
    call = {"modelId": gid(world.model)}
    found = {"project": {"name": world.project.name}, "task": {"title": world.free.title}}
    for named in ({"attemptId": gid(attempt)}, {"taskId": gid(world.free)}):
        # The first call names none, and has the project of the others.
        for client in (world.owner, world.agent):
            payload = await client.change(selection, records=[call, call | named])
            assert payload == {"usageRecords": [found | {"task": None}, found], "userErrors": []}
    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [8]


async def test_without_a_project_that_follows_nothing_is_recorded(world: World) -> None:
    attempt, foreign = [await make_attempt(world, task) for task in (world.free, world.foreign)]
    mine, other = {"attemptId": gid(attempt)}, {"attemptId": gid(foreign)}
    owner, admin = world.owner, world.people.admin
    cases: list[tuple[Any, list[dict[str, Any]], list[Fault]]] = [
        (owner, [{}, {}], [("INVALID", "projectId")]),
        # What the owner may not see is as if it did not exist.
        (owner, [{}, other], [("NOT_FOUND", "records.1.attemptId")]),
        (owner, [{"taskId": gid(world.foreign)}], [("NOT_FOUND", "records.0.taskId")]),
        (admin, [mine, other], [("INVALID", "records.1.attemptId")]),
    ]
    async with world.database.write(ADMIN) as session:
        key = {"project_id": world.project.id, "user_id": world.people.users["stranger"].id}
        session.add(db.ProjectMember(**key, role=db.MemberRole.VIEWER))
    before = await snapshot(world.database)
    for client, records, expected in cases:
        records = [{"modelId": gid(world.model)} | each for each in records]
        assert await world.refused(client, "recordUsage", records=records) == expected
    records = [{"modelId": gid(world.model)} | mine]
    assert await world.error(world.people.stranger, "recordUsage", records=records) == "FORBIDDEN"
    assert await snapshot(world.database) == before


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
                model_id=world.model.id,
                model_name=world.model.id,
                project_id=world.project.id,
                occurred_at=minutes(0),
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
