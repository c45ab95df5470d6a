"""Budgets: what is spent is counted exactly, and no more is reserved than there is room for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import ColumnElement, select, text

import db
from db import Right, budget_room, usage
from db.errors import BudgetExceeded
from graph.core.scalars import key_text
from tests import factories
from tests.conftest import ADMIN, People
from tests.oracle import by_members, seen_with
from tests.patience import becomes
from tests.world import Case, World, at, gid, make_world, stored

FIELDS = (
    "spent reserved remaining percentUsed limitCost limitTokens thresholds isHard period"
    " alerts { nodes { threshold spent } }"
)
SEEN = {db.Budget: by_members, db.BudgetAlert: seen_with(db.Budget, "budget_id")}


def a_budget(place: int) -> dict[str, Any]:
    """The values of a budget that its CHECKs demand: of an agent, a task, a model or a project."""
    scopes = ("agent_id", "task_id", "model_name")
    others = {name: None for number, name in enumerate(scopes) if number != place % 4}
    limits: dict[str, Any] = {"limit_cost": Decimal(place + 1), "limit_tokens": None}
    if place % 2:
        limits = {"limit_cost": None, "limit_tokens": place + 1}
    return {**others, **limits, "thresholds": [80]}


VALUES = {db.Budget: a_budget}
CASES = {
    "createBudget": Case(
        lambda w: {"projectId": gid(w.project), "period": "DAY", "limitCost": "5"},
        at("projectId"),
    ),
    "updateBudget": Case(lambda w: {"id": gid(w.others[db.Budget][0]), "limitCost": "900"}),
    "requestBudgetIncrease": Case(
        lambda w: {"budgetId": gid(w.others[db.Budget][0]), "limitCost": "999"}, at("budgetId")
    ),
    "deleteBudget": Case(lambda w: {"id": gid(w.others[db.Budget][0])}),
}
BREAKING = {
    "budgets": {
        "one_scope": ["model_name = 'a', agent_id = (SELECT id FROM agents LIMIT 1)"],
        "one_limit": ["limit_tokens = 5", "limit_cost = NULL"],
        "limit_positive": ["limit_cost = 0"],
        "claim_reserve_natural": ["claim_reserve = -1"],
        "only_hard_refuses": ["is_hard = false, refuses_usage = true"],
        "thresholds": [
            "thresholds = '{0}'",
            "thresholds = '{1001}'",
            "thresholds = array_fill(1, ARRAY[11])",
        ],
    },
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def budget(world: World, **values: Any) -> str:
    """A budget of the owner's project; returns its id."""
    payload = await world.owner.change(
        "createBudget { budget { id } userErrors { path message } }",
        **{"projectId": gid(world.project), "period": "EVER"} | values,
    )
    assert payload["userErrors"] == []
    return str(payload["budget"]["id"])


async def record(world: World, *records: dict[str, Any]) -> None:
    """Record calls for the owner's project."""
    payload = await world.owner.change(
        "recordUsage { userErrors { path message } }",
        projectId=gid(world.project),
        records=[{"modelName": "gpt-4o"} | each for each in records],
    )
    assert payload["userErrors"] == []


async def show(world: World, id: str) -> dict[str, Any]:
    """What a budget shows."""
    answer = await world.owner.ask(f"query($id: ID!) {{ budget(id: $id) {{ {FIELDS} }} }}", id=id)
    assert len(answer.statements) == 1
    return dict(answer.data["budget"])


def reserves(agent: db.Agent) -> ColumnElement[bool]:
    """Whether the budgets have room for a task, as in the statement of a claim."""
    locked = select(budget_room.locked(db.Agent)).where(db.Agent.id == agent.id).scalar_subquery()
    return budget_room.reserves(db.Task, locked)


async def claim(world: World, task: db.Task, agent: db.Agent) -> UUID | None:
    """Claim a task as far as budgets are concerned; returns the attempt."""
    async with world.database.write(ADMIN) as session:
        row = await session.get_one(db.Task, task.id, with_for_update={"key_share": True})
        admitted = select(reserves(agent)).where(db.Task.id == task.id)
        if not await session.scalar(admitted):
            return None
        number = row.attempt_count + 1
        attempt = await factories.make_attempt(session, row, number, agent_id=agent.id)
        await row.update(session, current_attempt_id=attempt.id, attempt_count=number)
    return attempt.id


async def end(world: World, task: db.Task) -> None:
    """End the attempt at a task, as whatever ends one does."""
    async with world.database.write(ADMIN) as session:
        await (await session.get_one(db.Task, task.id)).update(session, current_attempt_id=None)


async def tasks(world: World, count: int) -> list[db.Task]:
    """Tasks that are ready."""
    async with world.database.write(ADMIN) as session:
        return [await factories.make_task(session, world.project, str(n)) for n in range(count)]


async def test_a_budget_counts_what_is_spent(world: World, resolvers: People) -> None:
    id = await budget(world, limitCost="10", claimReserve="1")
    await record(world, {"cost": "3.5"}, {"cost": "0.000000001"}, {})

    assert await show(world, id) == {
        "spent": "3.500000001",
        "reserved": "0.000000000",
        "remaining": "6.499999999",
        "percentUsed": 35,
        "limitCost": "10.000000000",
        "limitTokens": None,
        "thresholds": [80, 100],
        "isHard": True,
        "period": "EVER",
        "alerts": {"nodes": []},
    }
    query = f"{{ budgets {{ nodes {{ id {FIELDS} periodEndsAt project {{ name }} }} }} }}"
    planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
    assert planned.text == resolved.text


async def test_a_budget_of_tokens_counts_input_and_output(world: World) -> None:
    id = await budget(world, limitTokens=1000)
    await record(
        world,
        {"inputTokens": 100, "cachedInputTokens": 90, "outputTokens": 50, "reasoningTokens": 9},
    )

    shown = await show(world, id)
    assert (shown["spent"], shown["remaining"]) == ("150.000000000", "850.000000000")
    assert (shown["limitTokens"], shown["percentUsed"]) == ("1000", 15)


async def test_a_budget_counts_what_it_is_for(world: World) -> None:
    limit = {"limitCost": "100"}
    ids = {
        "project": await budget(world, **limit),
        "agent": await budget(world, agentId=gid(world.ada), **limit),
        "parent": await budget(world, taskId=gid(world.parent), **limit),
        "subtask": await budget(world, taskId=gid(world.subtask), **limit),
        "model": await budget(world, modelName="gpt-4o", **limit),
        "other": await budget(world, modelName="other", **limit),
    }
    await record(
        world,
        {"cost": "1"},
        {"cost": "2", "agentId": gid(world.ada), "modelName": "new"},
        {"cost": "4", "taskId": gid(world.parent)},
        {"cost": "8", "taskId": gid(world.subtask), "agentId": gid(world.ada)},
        {"cost": "16", "taskId": gid(world.free)},
    )

    spent = {name: (await show(world, id))["percentUsed"] for name, id in ids.items()}
    assert spent == {
        "project": 31,
        "agent": 10,
        "parent": 12,
        "subtask": 8,
        "model": 29,
        "other": 0,
    }


async def test_a_budget_begins_anew_with_each_period(world: World) -> None:
    now = datetime.now(UTC)
    ids = {
        period: await budget(world, period=period, limitCost="100")
        for period in ("HOUR", "DAY", "MONTH", "EVER")
    }
    # An hour's beginning, a day's, a month's, and before.
    hour = now.replace(minute=0, second=0, microsecond=0)
    for moment, cost in (
        (hour, "1"),
        (hour.replace(hour=0), "2"),
        (hour.replace(hour=0, day=1), "4"),
        (hour.replace(hour=0, day=1) - timedelta(microseconds=1), "8"),
    ):
        await record(world, {"cost": cost, "occurredAt": moment.isoformat()})

    async def spent() -> dict[str, int]:
        return {period: (await show(world, id))["percentUsed"] for period, id in ids.items()}

    expected: dict[str, int] = {"HOUR": 1, "DAY": 1, "MONTH": 1, "EVER": 15}
    for moment, more in ((hour.replace(hour=0), 2), (hour.replace(hour=0, day=1), 4)):
        expected["MONTH"] += more
        expected["DAY"] += more if moment.date() == now.date() else 0
        expected["HOUR"] += more if moment == hour else 0
    assert await spent() == expected
    # A budget that is made later counts the same.
    for period in ids:
        ids[period] = await budget(world, period=period, limitCost="100")
    assert await spent() == expected
    ends = (await world.owner.ask("{ budgets { nodes { period periodEndsAt } } }")).data["budgets"]
    found = {node["period"]: node["periodEndsAt"] for node in ends["nodes"]}
    following = (hour.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0)
    wanted = {
        "HOUR": hour + timedelta(hours=1),
        "DAY": hour.replace(hour=0) + timedelta(days=1),
        "MONTH": following,
    }
    assert found == {name: time.isoformat() for name, time in wanted.items()} | {"EVER": None}


async def test_each_threshold_makes_one_alert(world: World) -> None:
    id = await budget(world, limitCost="10", thresholds=[50, 80, 100, 100])
    for cost, expected in (
        ("4.999999999", []),
        ("0.000000001", [50]),
        ("0.5", [50]),
        ("6", [50, 80, 100]),
        ("6", [50, 80, 100]),
    ):
        await record(world, {"cost": cost})
        alerts = (await show(world, id))["alerts"]["nodes"]
        assert sorted(alert["threshold"] for alert in alerts) == expected, cost

    query = "SELECT count(*) FROM events WHERE entity_type = 'BudgetAlert' AND action = 'CREATED'"
    assert await stored(world.database, query) == [3]
    # A higher limit makes none again.
    await world.owner.change("updateBudget { userErrors { code } }", id=id, limitCost="1000")
    await record(world, {"cost": "990"})
    assert await stored(world.database, query) == [3]


async def test_a_threshold_that_a_new_limit_has_reached_makes_an_alert(world: World) -> None:
    """Of a hard budget, no usage would follow that makes it later."""
    id = await budget(world, limitCost="100", thresholds=[50, 90])
    await record(world, {"cost": "30"})
    assert (await show(world, id))["alerts"]["nodes"] == []
    change = "updateBudget { userErrors { code } }"
    await world.owner.change(change, id=id, limitCost="40")
    half = {"threshold": 50, "spent": "30.000000000"}
    assert (await show(world, id))["alerts"]["nodes"] == [half]
    await world.owner.change(change, id=id, thresholds=[50, 70, 90])
    both = [half, {"threshold": 70, "spent": "30.000000000"}]
    assert (await show(world, id))["alerts"]["nodes"] == both
    for values in ({"limitCost": "200"}, {"limitCost": "40"}, {"claimReserve": "1"}):
        await world.owner.change(change, id=id, **values)
    await record(world, {"cost": "0.1"})
    assert (await show(world, id))["alerts"]["nodes"] == both


async def test_a_limit_that_is_lowered_while_usage_is_recorded_makes_an_alert(
    world: World,
) -> None:
    id = await budget(world, limitCost="100", thresholds=[100])
    call = {"model_name": "gpt-4o", "cost": Decimal(30)}
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.execute(text("SELECT 1"))  # it begins a transaction
        await usage.record_usage(session, world.project.id, {(0,): call})
        change = "updateBudget { userErrors { code } }"
        lowered = asyncio.create_task(world.owner.change(change, id=id, limitCost="20"))
        done, _ = await asyncio.wait([lowered], timeout=0.5)
        assert not done
    assert await lowered == {"userErrors": []}

    shown = await show(world, id)
    assert shown["alerts"]["nodes"] == [{"threshold": 100, "spent": "30.000000000"}]


async def test_usage_that_is_priced_later_counts_and_alerts(world: World) -> None:
    id = await budget(world, limitCost="2", thresholds=[80, 100])
    ada = await budget(world, limitCost="10", agentId=gid(world.ada), thresholds=[5])
    await record(world, {"modelName": "new", "inputTokens": 1_000_000, "agentId": gid(world.ada)})
    assert (await show(world, id))["spent"] == "0.000000000"
    async with world.database.write(ADMIN) as session:
        await factories.make_model(session, "new", input_price=Decimal(2))
    await world.owner.change("repriceUsage { userErrors { code } }", projectId=gid(world.project))

    shown, own = await show(world, id), await show(world, ada)
    assert (shown["spent"], shown["percentUsed"], own["percentUsed"]) == ("2.000000000", 100, 20)
    assert {each["threshold"] for each in shown["alerts"]["nodes"]} == {80, 100}
    assert [each["threshold"] for each in own["alerts"]["nodes"]] == [5]


async def test_writers_at_once_make_one_alert_and_lose_nothing(world: World) -> None:
    for number in range(10):
        id = await budget(world, limitCost="8", thresholds=[25, 50, 100], modelName=str(number))
        call = {"cost": "1", "modelName": str(number)}
        await asyncio.gather(*(record(world, call) for _ in range(16)))

        shown = await show(world, id)
        assert shown["spent"] == "16.000000000"
        alerts = {alert["threshold"]: alert["spent"] for alert in shown["alerts"]["nodes"]}
        assert alerts == {25: "2.000000000", 50: "4.000000000", 100: "8.000000000"}
        assert len(shown["alerts"]["nodes"]) == 3


async def test_a_budget_that_is_made_while_usage_is_recorded_misses_nothing(world: World) -> None:
    for number in range(10):
        call = {"cost": "1", "modelName": str(number)}
        made = budget(world, limitCost="8", modelName=str(number))
        id, *_ = await asyncio.gather(made, *(record(world, call) for _ in range(12)))

        assert (await show(world, str(id)))["spent"] == "12.000000000"


async def test_a_budget_is_changed_and_deleted_while_usage_is_recorded(world: World) -> None:
    """Neither may wait for the other, and what is recorded is not lost with a budget."""
    call = {"cost": "0.7", "modelName": "a"}
    refused, calls = set(), 0
    for _ in range(50):
        made = [
            await budget(world, limitCost="1", period=period, thresholds=[1, 10, 50, 100])
            for period in ("EVER", "DAY", "HOUR")
        ]
        records = [record(world, call, call) for _ in range(3)]
        change, delete = (f"{name} {{ userErrors {{ code }} }}" for name in CHANGES)
        lowered = [world.owner.change(change, id=id, limitCost="0.5") for id in made]
        deleted = [world.owner.change(delete, id=id) for id in made]
        payloads = await asyncio.gather(*records, *deleted, *lowered)
        calls += 6
        assert payloads[3:6] == [{"userErrors": []}] * 3
        refused |= {error["code"] for each in payloads[6:] for error in each["userErrors"]}
    assert refused <= {"NOT_FOUND"}
    totals = "SELECT (SELECT count(*) FROM usage_records), (SELECT sum(calls) FROM usage_totals)"
    assert await stored(world.database, totals) == [(calls, calls)]
    left = "SELECT (SELECT count(*) FROM budget_periods), (SELECT count(*) FROM budget_alerts)"
    assert await stored(world.database, left) == [(0, 0)]


CHANGES = ("updateBudget", "deleteBudget")
WAITING = (
    "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database ="
    " (SELECT oid FROM pg_database WHERE datname = current_database())"
)


@pytest.mark.parametrize("change", ["updateBudget", "deleteBudget"])
async def test_a_budget_is_changed_in_turns_with_whoever_counts_usage_or_deletes_its_project(
    world: World, change: str
) -> None:
    """Whoever waits for one of them has not locked the budget, which they may lock next."""
    id = await budget(world, limitCost="10", thresholds=[50])
    lowered = {"limitCost": "4"} if change == "updateBudget" else {}
    for before in (None, f"SELECT FROM projects WHERE id = '{world.project.id}' FOR UPDATE"):
        async with world.database.write(ADMIN) as session:
            if before is not None:
                await session.execute(text(before))
            else:
                call = {"model_name": "a", "cost": 1, "project_id": world.project.id}
                session.add(db.UsageRecord(**call))
                await session.flush()
            done = asyncio.create_task(
                world.owner.change(f"{change} {{ userErrors {{ code }} }}", id=id, **lowered)
            )
            await asyncio.sleep(0.3)
            assert not done.done()
            free = "SELECT id FROM budgets FOR UPDATE SKIP LOCKED"
            assert len((await session.scalars(text(free))).all()) == 1
        assert await done == {"userErrors": []}
        if change == "deleteBudget":
            assert await stored(world.database, "SELECT 1 FROM budgets") == []
            id = await budget(world, limitCost="10")


@pytest.mark.parametrize("count", [1, 2])
async def test_a_budget_and_usage_that_are_not_committed_wait_for_each_other(
    world: World, count: int
) -> None:
    call = {"cost": "1"}
    async with world.database.write(ADMIN) as session:
        calls = [{"model_name": "a", "cost": 1, "project_id": world.project.id}] * count
        session.add_all(db.UsageRecord(**each) for each in calls)
        await session.flush()
        making = asyncio.create_task(budget(world, limitCost="8"))
        await becomes(lambda: stored(world.database, WAITING))
    first = await making
    assert (await show(world, first))["spent"] == f"{count}.000000000"

    async with world.database.write(ADMIN) as session:
        values = {"project_id": world.project.id, "period": db.BudgetPeriod.EVER, "limit_cost": 8}
        second = await db.Budget.create(session, **values)
        recording = asyncio.create_task(record(world, *[call] * count))
        await becomes(lambda: stored(world.database, WAITING))
    await recording
    for id in (first, gid(second)):
        assert (await show(world, id))["spent"] == f"{2 * count}.000000000"


async def test_money_stays_spent_when_what_it_was_spent_for_is_gone(world: World) -> None:
    project = await budget(world, limitCost="100")
    parent = await budget(world, limitCost="100", taskId=gid(world.parent))
    await record(world, {"cost": "8", "taskId": gid(world.subtask), "agentId": gid(world.ada)})
    await world.owner.change("deleteTask { deletedId }", id=gid(world.subtask))
    await world.owner.change("deleteAgent { deletedId }", id=gid(world.ada))

    assert [(await show(world, id))["percentUsed"] for id in (project, parent)] == [8, 8]
    await world.owner.change("deleteProject { deletedId }", id=gid(world.project))
    for table in ("budgets", "budget_periods", "budget_alerts"):
        assert await stored(world.database, f"SELECT * FROM {table}") == []


# A claim reserves.


async def test_a_claim_reserves_until_its_attempt_ends(world: World) -> None:
    id = await budget(world, limitCost="10", claimReserve="4")
    ready = await tasks(world, 4)

    claimed = [await claim(world, task, world.ada) is not None for task in ready]
    assert claimed == [True, True, False, False]
    shown = await show(world, id)
    assert (shown["reserved"], shown["remaining"]) == ("8.000000000", "2.000000000")
    await end(world, ready[0])
    assert (await show(world, id))["reserved"] == "4.000000000"
    assert await claim(world, ready[2], world.ada) is not None
    await record(world, {"cost": "2.1"})
    await end(world, ready[1])
    assert await claim(world, ready[3], world.ada) is None
    await world.owner.change("updateBudget { userErrors { code } }", id=id, limitCost="10.1")
    assert await claim(world, ready[3], world.ada) is not None


async def test_what_is_recorded_beyond_a_hard_limit_counts_and_stops_claims(world: World) -> None:
    id = await budget(world, limitCost="10")
    (task,) = await tasks(world, 1)
    await record(world, {"cost": "9.999999999"})
    assert await claim(world, task, world.ada) is not None
    await end(world, task)
    await record(world, {"cost": "5"})

    shown = await show(world, id)
    assert (shown["spent"], shown["remaining"]) == ("14.999999999", "0.000000000")
    assert await claim(world, task, world.ada) is None
    async with world.database.write(ADMIN) as session:
        with pytest.raises(BudgetExceeded) as caught:
            await budget_room.refuse_exceeded(session, world.ada.id)
    error = caught.value
    assert (error.limit, error.spent, error.reserved) == (
        Decimal(10),
        Decimal("14.999999999"),
        Decimal(0),
    )
    assert error.period_ends_at is None
    await world.owner.change("updateBudget { userErrors { code } }", id=id, isHard=False)
    assert await claim(world, task, world.ada) is not None
    async with world.database.write(ADMIN) as session:
        await budget_room.refuse_exceeded(session, world.ada.id)


async def test_every_budget_that_concerns_a_task_must_have_room(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve", model_id=world.model.id)
        bob = await factories.make_agent(session, world.project, "Other")
    full = {"limitCost": "1", "period": "MONTH"}
    for scope, cases in (
        ({"taskId": gid(world.parent)}, [(world.subtask, eve, False), (world.free, eve, True)]),
        ({"taskId": gid(world.subtask)}, [(world.parent, eve, True), (world.subtask, eve, False)]),
        ({"agentId": gid(eve)}, [(world.free, eve, False), (world.free, bob, True)]),
        ({"modelName": "gpt-4o"}, [(world.free, eve, False), (world.free, bob, True)]),
        ({}, [(world.free, bob, False), (world.subtask, eve, False)]),
    ):
        id = await budget(world, **full, **scope)
        wide = await budget(world, limitCost="1000", period="EVER")
        async with world.database.write(ADMIN) as session:
            await session.execute(
                text(
                    "INSERT INTO budget_periods SELECT id, budget_period_start(period, now()), 1"
                    " FROM budgets WHERE limit_cost = 1 ON CONFLICT DO NOTHING"
                )
            )
        for task, agent, expected in cases:
            found = await claim(world, task, agent)
            assert (found is not None) is expected, (scope, task.title)
            if found is None:
                # What other budgets had reserved is free again.
                assert (await show(world, wide))["reserved"] == "0.000000000"
            await end(world, task)
        for each in (id, wide):
            await world.owner.change("deleteBudget { deletedId }", id=each)


async def test_claims_at_once_never_reserve_more_than_there_is(world: World) -> None:
    whole = await budget(world, limitCost="10", claimReserve="1.5")
    part = await budget(world, limitTokens=5, claimReserve="1", agentId=gid(world.ada))
    ready = await tasks(world, 12)
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
    for _ in range(50):
        agents = [world.ada, eve] * 6
        claims = [claim(world, task, agent) for task, agent in zip(ready, agents, strict=True)]
        found = await asyncio.gather(*claims)

        assert sum(attempt is not None for attempt in found) == 6
        own = [attempt for attempt, agent in zip(found, agents, strict=True) if agent is world.ada]
        assert sum(attempt is not None for attempt in own) <= 5
        shown = await show(world, whole)
        assert (shown["reserved"], shown["remaining"]) == ("9.000000000", "1.000000000")
        await asyncio.gather(*(end(world, task) for task in ready))
        assert (await show(world, part))["reserved"] == "0.000000000"
    # Those of ended attempts do not pile up.
    assert (await stored(world.database, "SELECT count(*) FROM budget_reservations"))[0] <= 24


async def test_tasks_that_one_statement_claims_share_what_is_left(world: World) -> None:
    await budget(world, limitCost="3", claimReserve="1")
    await tasks(world, 5)
    async with world.database.write(ADMIN) as session:
        admitted = select(db.Task.id).where(db.Task.title.in_(list("01234")), reserves(world.ada))
        assert len((await session.scalars(admitted)).all()) == 3
    # Nothing was claimed after all.
    assert await stored(world.database, "SELECT budget_reserved(id) FROM budgets") == [0]
    (other,) = await tasks(world, 1)
    assert await claim(world, other, world.ada) is not None


# Raising is an approval.


async def test_an_increase_is_approved(world: World) -> None:
    id = await budget(world, limitCost="10")
    payload = await world.agent.change(
        "requestBudgetIncrease { approvalRequest { id title content status agent { name } }"
        " userErrors { code path message } }",
        budgetId=id,
        limitCost="25.5",
        reason="Larger files than expected.",
    )
    request = payload["approvalRequest"]
    assert request["content"] == {
        "budgetId": key_text(id),
        "presentLimit": "10.000000000",
        "requestedLimit": "25.5",
        "unit": "US dollars",
        "reason": "Larger files than expected.",
    }
    assert (request["status"], request["agent"]) == ("PENDING", {"name": "Ada"})
    assert (await show(world, id))["limitCost"] == "10.000000000"
    key = UUID(key_text(request["id"]))
    answer = "UPDATE human_interactions SET status = :status, responded_at = now() WHERE id = :id"
    async with world.database.write(ADMIN) as session:
        await session.execute(text(answer), {"status": "REJECTED", "id": key})
    assert (await show(world, id))["limitCost"] == "10.000000000"
    async with world.database.write(ADMIN) as session:
        await session.execute(text(answer), {"status": "APPROVED", "id": key})
    assert (await show(world, id))["limitCost"] == "25.500000000"
    assert await stored(world.database, "SELECT version FROM budgets") == [2]


async def test_an_increase_never_lowers_what_an_owner_has_raised_meanwhile(world: World) -> None:
    id = await budget(world, limitCost="10")
    payload = await world.agent.change(
        "requestBudgetIncrease { approvalRequest { id } userErrors { code } }",
        budgetId=id,
        limitCost="20",
    )
    await world.owner.change("updateBudget { userErrors { code } }", id=id, limitCost="500")

    answer = (
        "UPDATE human_interactions SET status = 'APPROVED', responded_at = now() WHERE id = :id"
    )
    async with world.database.write(ADMIN) as session:
        key = UUID(key_text(payload["approvalRequest"]["id"]))
        await session.execute(text(answer), {"id": key})

    assert (await show(world, id))["limitCost"] == "500.000000000"


async def test_only_another_person_raises_a_budget_and_only_by_a_whole_approval(
    world: World,
) -> None:
    id = await budget(world, limitCost="10")
    respond = "respondToApproval { userErrors { code } }"

    async def request(client: Any, limit: str) -> dict[str, Any]:
        payload = await client.change(
            "requestBudgetIncrease { approvalRequest { id contentHash } userErrors { code } }",
            budgetId=id,
            limitCost=limit,
        )
        asked: dict[str, Any] = payload["approvalRequest"]
        return asked

    own = await request(world.owner, "20")
    hers, more = [await request(world.agent, limit) for limit in ("30", "40")]
    assert await world.error(world.owner, "respondToApproval", **own, approved=True) == "FORBIDDEN"
    assert await world.error(world.agent, "respondToApproval", **hers, approved=True) == "FORBIDDEN"
    await world.owner.change(respond, **hers, approved=False)
    assert (await show(world, id))["limitCost"] == "10.000000000"
    late = await world.refused(world.owner, "respondToApproval", **hers, approved=True)
    assert late == [("ILLEGAL_TRANSITION", "id")]
    both = await asyncio.gather(
        world.owner.change(respond, **more, approved=True),
        world.people.admin.change(respond, **own, approved=True),
    )
    assert list(both) == [{"userErrors": []}] * 2
    # Approved in any order, the higher one holds.
    assert (await show(world, id))["limitCost"] == "40.000000000"


async def test_numbers_at_the_ends_of_their_columns_are_refused_or_counted(world: World) -> None:
    for name, value in (
        ("limitCost", "1000000000"),
        ("limitCost", "0.0000000001"),
        ("limitTokens", "9223372036854775808"),
        ("limitTokens", "0"),
        ("claimReserve", "1e30"),
    ):
        new: dict[str, Any] = {"projectId": gid(world.project), "period": "DAY"}
        new |= {"limitCost": "1"} if name == "claimReserve" else {}
        found = await world.people.owner.ask(
            "mutation($input: CreateBudgetInput!) { createBudget(input: $input)"
            " { budget { id } userErrors { code path } } }",
            input=new | {name: value},
        )
        refused = found.body.get("errors") or found.data["createBudget"]["userErrors"]
        assert "INTERNAL" not in str(refused), name
        assert refused, (name, value)
    most = await budget(world, limitTokens="9223372036854775807", thresholds=[1, 1000])
    least = await budget(world, limitCost="0.000000001", thresholds=[1, 1000])
    for _ in range(3):
        await record(world, {"cost": "999999999", "inputTokens": 2_000_000_000})
    assert (await show(world, most))["percentUsed"] == 0
    shown = await show(world, least)
    assert (shown["spent"], shown["percentUsed"]) == ("2999999997.000000000", 2_000_000_000)
    assert {each["threshold"] for each in shown["alerts"]["nodes"]} == {1, 1000}
    for id, limit in ((most, {"limitTokens": str(2**63)}), (least, {"limitCost": "1e12"})):
        answer = await world.agent.ask(
            "mutation($input: RequestBudgetIncreaseInput!) {"
            " requestBudgetIncrease(input: $input) { userErrors { code path } } }",
            input={"budgetId": id} | limit,
        )
        refused = answer.body.get("errors") or answer.data["requestBudgetIncrease"]["userErrors"]
        assert refused
        assert "INTERNAL" not in str(refused)


async def test_a_request_for_another_limit_names_a_higher_one(world: World) -> None:
    id = await budget(world, limitCost="10")
    for limit, path in (
        ({"limitCost": "10"}, "limitCost"),
        ({}, "limitCost"),
        ({"limitTokens": 50}, "limitTokens"),
        ({"limitCost": "0"}, "limitCost"),
    ):
        found = await world.refused(world.owner, "requestBudgetIncrease", budgetId=id, **limit)
        assert found == [("INVALID", path)], limit


async def test_a_budget_has_one_limit_and_one_thing_that_it_is_for(world: World) -> None:
    project = {"projectId": gid(world.project), "period": "DAY"}
    values: dict[str, Any]
    for values in (
        {},
        {"limitCost": "1", "limitTokens": 1},
        {"limitCost": "1", "agentId": gid(world.ada), "modelName": "a"},
    ):
        found = await world.refused(world.owner, "createBudget", **project, **values)
        assert found == [("INVALID", "")], values
    for values, path in (
        ({"limitCost": "0"}, "limitCost"),
        ({"limitTokens": 0}, "limitTokens"),
        ({"limitCost": "1", "thresholds": [0]}, "thresholds.0"),
        ({"limitCost": "1", "thresholds": [1] * 11}, "thresholds"),
        ({"limitCost": "1", "claimReserve": "-1"}, "claimReserve"),
    ):
        found = await world.refused(world.owner, "createBudget", **project, **values)
        assert found == [("INVALID", path)], values
    foreign = {"limitCost": "1", "agentId": gid(world.bob)}
    found = await world.refused(world.owner, "createBudget", **project, **foreign)
    assert found == [("NOT_FOUND", "agentId")]
    id = await budget(world, limitCost="10")
    found = await world.refused(world.owner, "updateBudget", id=id, limitTokens=5)
    assert found == [("INVALID", "limitTokens")]


async def test_only_owners_change_budgets(world: World) -> None:
    id = await budget(world, limitCost="10")
    async with world.database.write(ADMIN) as session:
        await factories.make_member(
            session, world.project, world.people.users["stranger"], db.MemberRole.EDITOR
        )
    for mutation, input in (
        ("createBudget", {"projectId": gid(world.project), "period": "DAY", "limitCost": "5"}),
        ("updateBudget", {"id": id, "limitCost": "900"}),
        ("deleteBudget", {"id": id}),
    ):
        for client in (world.people.stranger, world.agent):
            assert await world.error(client, mutation, **input) == "FORBIDDEN"
