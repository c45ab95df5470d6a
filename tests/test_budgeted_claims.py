"""Claims and budgets: claims stop exactly at a hard budget, and go on when there is room again."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text

import db
from db import AgentStatus, ProjectStatus, Right, TaskStatus, boards, claims, sweeper
from db.claims import IdleReason, claiming
from db.engine import BY_KEY
from db.errors import BudgetExceeded
from db.statements import Values
from tests import factories
from tests.conftest import ADMIN, People
from tests.test_budgets import budget, record, show
from tests.test_claims import (
    ROUNDS,
    change,
    claim,
    count,
    end,
    make_agents,
    make_tasks,
    run_out,
    titles,
    values_of_claim,
)
from tests.world import World, gid, make_world, stored

CLAIM = """claimTask {
  attempt { task { title } }
  reason
  userErrors {
    __typename code path message
    ... on BudgetExceeded { budget { id } limit spent reserved periodEndsAt }
  }
}"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """The project is in progress, and Ada is ready for 100 tasks. One is free."""
    world = await make_world(database, http, people)
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    await change(world, world.ada, status=AgentStatus.READY, max_concurrent_tasks=100)
    return world


async def refused(world: World, agent: db.Agent | None = None, **options: Any) -> BudgetExceeded:
    """The error of a claim that a budget refuses, and that changes nothing."""
    before = await stored(world.database, "SELECT * FROM budget_reservations ORDER BY 1, 2")
    with pytest.raises(BudgetExceeded) as caught:
        await claim(world, agent, **options)
    kept = await stored(world.database, "SELECT * FROM budget_reservations ORDER BY 1, 2")
    assert kept == before
    return caught.value


async def reserved(world: World, id: str) -> str:
    """What is reserved of a budget."""
    return str((await show(world, id))["reserved"])


async def explained(world: World, number: int = 1) -> Any:
    """The plan of a claim of Ada's, which is executed."""
    statement = claiming._claimed.compiled(ADMIN, Right.WORK, 0, number == 1)
    values = values_of_claim(world.ada, number)
    connection = await world.database.open()
    try:
        for name, setting in BY_KEY.items():
            await connection.execute(f"SET {name} = {setting}")
        await connection.execute("ANALYZE tasks, budgets")
        # A connection compiles the functions at their first call.
        await connection.fetchval("SELECT lock_budgets($1)", world.ada.id)
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.sql}"
        found = await connection.fetchval(explain, *statement.arguments(Values(ADMIN, values)))
    finally:
        await connection.close()
    (plan,) = json.loads(found)
    return plan["Plan"]


def blocks(plan: Any) -> int:
    """How many blocks a plan, or a node of it, has read."""
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def nodes(plan: Any) -> list[Any]:
    """The nodes of a plan."""
    return [plan, *(found for below in plan.get("Plans", ()) for found in nodes(below))]


async def test_as_many_claim_at_once_as_a_hard_budget_has_room_for(world: World) -> None:
    id = await budget(world, limitCost="5.5", claimReserve="1")
    own = await budget(world, limitTokens=1, claimReserve="1", agentId=gid(world.ada))
    agents = [world.ada, *await make_agents(world, 15, max_concurrent_tasks=1000)]
    await change(world, world.free, status=TaskStatus.COMPLETED)
    for number in range(ROUNDS):
        await make_tasks(world, *({} for _ in range(8)))
        limits = [1 + number % 2 * (place % 3) for place in range(16)]
        found = await asyncio.gather(
            *(
                claim(world, agent, limit=limit)
                for agent, limit in zip(agents, limits, strict=True)
            ),
            return_exceptions=True,
        )
        attempts: list[UUID] = []
        for place, outcome in enumerate(found):
            if isinstance(outcome, claims.Claimed):
                assert len(outcome.attempts) <= (limits[place] if place else 1)
                attempts += outcome.attempts
            else:
                assert isinstance(outcome, BudgetExceeded), outcome

        assert len(attempts) == 5
        assert await reserved(world, id) == "5.000000000"
        assert sum(isinstance(outcome, BudgetExceeded) for outcome in found) > 0
        await asyncio.gather(*(end(world, claims.complete, id, None) for id in attempts))
        assert [await reserved(world, each) for each in (id, own)] == ["0.000000000"] * 2


async def test_claims_beside_all_else_that_concerns_a_budget_do_not_deadlock(
    world: World,
) -> None:
    id = await budget(world, limitCost="10", claimReserve="1")
    await budget(world, limitTokens=100, claimReserve="1", taskId=gid(world.free))
    agents = await make_agents(world, 4, max_concurrent_tasks=1000)
    for number in range(ROUNDS):
        await make_tasks(world, *({} for _ in range(6)))
        running = await stored(world.database, "SELECT attempt_id FROM task_leases")
        await asyncio.gather(
            *(claim(world, agent, limit=2) for agent in agents),
            *(end(world, claims.release, attempt, None) for attempt in running),
            record(world, {"cost": "0.01", "taskId": gid(world.free)}),
            world.owner.change(
                "updateBudget { userErrors { code } }", id=id, thresholds=[1 + number]
            ),
        )
        shown = await show(world, id)
        assert Decimal(shown["reserved"]) + Decimal(shown["spent"]) <= 10
        assert Decimal(shown["reserved"]) == await count(world, "task_leases")


async def test_a_claim_without_room_is_refused_until_the_budget_is_raised(world: World) -> None:
    id = await budget(world, limitCost="3", claimReserve="1", period="EVER")
    agents = await make_agents(world, 16)
    await make_tasks(world, *({"title": "new"} for _ in range(16)))
    payloads = await asyncio.gather(
        *(world.owner.change(CLAIM, agentId=gid(agent)) for agent in agents)
    )
    errors = [error for payload in payloads for error in payload["userErrors"]]
    assert sum(payload["attempt"] is not None for payload in payloads) == 3
    assert len(errors) == 13
    # They agree, except in what other claims had reserved when they were answered.
    assert errors[0] == {
        "__typename": "BudgetExceeded",
        "code": "BUDGET_EXCEEDED",
        "path": [],
        "message": "The budget of the project has no room: of 3 US dollars, 0 is spent and 3"
        " reserved; a claim needs 1. Raise it by updateBudget or requestBudgetIncrease.",
        "budget": {"id": id},
        "limit": "3.000000000",
        "spent": "0.000000000",
        "reserved": "3.000000000",
        "periodEndsAt": None,
    }

    # What is spent at a hard stop is recorded, and counts once the attempts have ended.
    await record(world, {"cost": "2.5"}, {"cost": "1"})
    for attempt in await stored(world.database, "SELECT attempt_id FROM task_leases"):
        await end(world, claims.complete, attempt, None)
    (error,) = (await world.agent.change(CLAIM))["userErrors"]
    assert (error["spent"], error["reserved"]) == ("3.500000000", "0.000000000")

    payload = await world.agent.change(
        "requestBudgetIncrease { approvalRequest { id contentHash } userErrors { code } }",
        budgetId=id,
        limitCost="4.5",
    )
    assert (await world.agent.change(CLAIM))["attempt"] is None
    approved = await world.owner.change(
        "respondToApproval { userErrors { code } }", **payload["approvalRequest"], approved=True
    )
    assert approved == {"userErrors": []}
    payload = await world.agent.change(CLAIM)
    assert payload == {"attempt": {"task": {"title": "new"}}, "reason": None, "userErrors": []}
    assert (await world.agent.change(CLAIM))["userErrors"][0]["reserved"] == "1.000000000"


async def test_a_claim_that_is_repeated_with_its_key_is_the_same_though_the_budget_is_full(
    world: World,
) -> None:
    id = await budget(world, limitCost="1", claimReserve="1")
    await make_tasks(world, {"title": "next"})
    first, again = [await world.agent.change(CLAIM, idempotencyKey="k") for _ in range(2)]
    assert first == again
    assert first["attempt"]["task"]["title"] == "next"
    (error,) = (await world.agent.change(CLAIM, idempotencyKey="l"))["userErrors"]
    assert error["code"] == "BUDGET_EXCEEDED"
    # The key of a claim that was refused can be used later.
    await world.owner.change("updateBudget { userErrors { code } }", id=id, limitCost="2")
    later = await world.agent.change(CLAIM, idempotencyKey="l")
    assert later["attempt"]["task"]["title"] == "Free"


async def test_the_reason_is_a_budget_only_if_all_else_would_let_an_agent_claim(
    world: World,
) -> None:
    id = await budget(world, limitTokens=1, claimReserve="2")
    await refused(world)
    for row, values, reason in (
        (world.ada, {"is_active": False}, IdleReason.AGENT_NOT_ACTIVE),
        (world.project, {"status": ProjectStatus.PAUSED}, IdleReason.PROJECT_NOT_IN_PROGRESS),
        (world.free, {"type": "TESTER"}, IdleReason.WRONG_TYPE),
        (world.free, {"status": TaskStatus.COMPLETED}, IdleReason.NOTHING_READY),
    ):
        before = {name: getattr(row, name) for name in values}
        before = {"status": ProjectStatus.IN_PROGRESS} if row is world.project else before
        await change(world, row, **values)
        idle = (await claim(world)).idle
        assert idle is not None
        assert idle.reason is reason
        await change(world, row, **before)
    await world.owner.change("updateBudget { userErrors { code } }", id=id, isHard=False)
    assert await titles(world, await claim(world)) == ["Free"]


@pytest.mark.parametrize(
    "way",
    ["complete", "fail", "release", "park", "lose", "cancel", "by hand", "delete", "no agent"],
)
async def test_whatever_ends_an_attempt_frees_what_it_has_reserved(world: World, way: str) -> None:
    id = await budget(world, limitCost="1", claimReserve="1")
    part = await budget(world, limitTokens=9, claimReserve="4", taskId=gid(world.free))
    (attempt,) = (await claim(world)).attempts
    assert [await reserved(world, each) for each in (id, part)] == ["1.000000000", "4.000000000"]
    await make_tasks(world, {"title": "other"})
    await refused(world)

    match way:
        case "complete":
            await end(world, claims.complete, attempt, 1)
        case "fail":
            await end(world, claims.fail, attempt, "no")
        case "release":
            await end(world, claims.release, attempt, None)
        case "park":
            await end(world, claims.park, attempt)
        case "lose":
            await run_out(world)
            await refused(world)  # until the lease is ended
            assert await sweeper.sweep(world.database) == 1
        case "cancel":
            async with world.database.write(ADMIN, Right.WORK) as session:
                await boards.cancel(session, world.free.id)
            assert await reserved(world, id) == "1.000000000"  # until the agent stops
            await end(world, claims.release, attempt, None)
        case "by hand":
            await change(world, world.free, status=TaskStatus.PENDING, current_attempt_id=None)
        case "delete":
            async with world.database.write(ADMIN) as session:
                await session.execute(text(f"DELETE FROM tasks WHERE id = '{world.free.id}'"))
        case "no agent":
            (eve,) = await make_agents(world, 1)
            async with world.database.write(ADMIN) as session:
                await session.execute(text(f"DELETE FROM agents WHERE id = '{world.ada.id}'"))
            assert await reserved(world, id) == "1.000000000"
            await run_out(world)
            assert await sweeper.sweep(world.database) == 1
            assert await titles(world, await claim(world, eve)) == ["other"]

    if way != "no agent":
        assert await reserved(world, id) == "0.000000000"
        assert await titles(world, await claim(world)) == ["other"]
    assert await reserved(world, id) == "1.000000000"
    if way != "delete":
        assert await reserved(world, part) == "0.000000000"


async def test_a_task_that_is_woken_reserves_again(world: World) -> None:
    id = await budget(world, limitCost="1", claimReserve="1")
    (attempt,) = (await claim(world)).attempts
    await end(world, claims.park, attempt)
    await make_tasks(world, {"title": "other"})
    (other,) = (await claim(world)).attempts
    async with world.database.write(ADMIN) as session:
        assert await claims.wake(session, world.free.id)
    assert await reserved(world, id) == "1.000000000"
    await refused(world)
    await end(world, claims.complete, other, None)
    assert await titles(world, await claim(world)) == ["Free"]
    assert await reserved(world, id) == "1.000000000"


async def test_subtasks_draw_on_what_remains_of_the_budget_of_their_parent(world: World) -> None:
    id = await budget(world, limitCost="3", claimReserve="1", taskId=gid(world.parent))
    async with world.database.write(ADMIN) as session:
        rows: list[db.Task] = []
        for title, above in (("a", world.parent), ("aa", None), ("b", world.parent), ("c", None)):
            parent = above or rows[-1]
            values: dict[str, Any] = {"parent_task_id": parent.id, "priority": 5}
            rows.append(await factories.make_task(session, world.project, title, **values))
    await record(world, {"cost": "1", "taskId": gid(rows[1])})

    assert await titles(world, await claim(world, limit=10)) == ["a", "aa", "Free"]
    assert await reserved(world, id) == "2.000000000"
    error = await refused(world)
    assert (error.limit, error.spent, error.reserved) == (Decimal(3), Decimal(1), Decimal(2))
    assert "The budget of the task Parent has no room" in str(error)
    # Other tasks are still handed out.
    await make_tasks(world, {"title": "outside", "priority": 1})
    assert await titles(world, await claim(world, limit=10)) == ["outside"]


async def test_budgets_of_other_agents_and_projects_refuse_nothing(world: World) -> None:
    (eve,) = await make_agents(world, 1)
    await budget(world, limitTokens=1, claimReserve="2", agentId=gid(eve))
    await budget(world, limitTokens=1, claimReserve="2", modelName="another")
    async with world.database.write(ADMIN) as session:
        await db.Budget.create(
            session,
            project_id=world.elsewhere.id,
            period=db.BudgetPeriod.EVER,
            limit_tokens=1,
            claim_reserve=Decimal(2),
        )
    await make_tasks(world, {"title": "other"})
    error = await refused(world, eve)
    assert str(error).startswith("The budget of the agent Agent 0 has no room: of 1 tokens, 0 is")
    assert await titles(world, await claim(world, limit=5)) == ["other", "Free"]


async def test_a_project_without_budgets_does_not_pay_for_them(world: World) -> None:
    async def locks() -> set[str]:
        async with world.database.write(ADMIN, Right.WORK) as session:
            await session.execute(text("SELECT 1"))
            assert (await claims.claim(session, world.ada.id)).attempts
            held = (
                "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid()"
                " AND relation = 'budgets'::regclass"
            )
            return set(await session.scalars(text(held)))

    await make_tasks(world, *({} for _ in range(300)))
    assert await locks() == {"AccessShareLock"}
    plan = await explained(world, 5)
    assert plan["Actual Rows"] == 5
    read = [node for node in nodes(plan) if node.get("Relation Name") == "budgets"]
    assert read
    # It looks a few times whether there are any, however many tasks it takes.
    assert sum(node["Actual Loops"] for node in read) < 5
    assert sum(map(blocks, read)) < 20
    assert await count(world, "budget_reservations") == 0
    await budget(world, limitCost="100")
    assert await locks() == {"AccessShareLock", "RowShareLock"}


@pytest.mark.parametrize("tasks", [1, 40])
async def test_a_claim_adds_up_what_is_reserved_once_for_each_budget(
    world: World, tasks: int
) -> None:
    await budget(world, limitCost="100", claimReserve="1")
    await budget(world, limitTokens=100, claimReserve="1", agentId=gid(world.ada))
    await make_tasks(world, *({} for _ in range(tasks)))
    calls = "SELECT pg_stat_get_xact_function_calls('budget_reserved(uuid)'::regprocedure)"
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.execute(text("SET LOCAL track_functions = 'all'"))
        assert len((await claims.claim(session, world.ada.id, limit=tasks)).attempts) == tasks
        assert await session.scalar(text(calls)) == 2


async def test_two_claims_of_one_transaction_stop_at_a_budget(world: World) -> None:
    id = await budget(world, limitCost="5", claimReserve="1")
    await make_tasks(world, *({} for _ in range(9)))
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.execute(text("SELECT 1"))
        found = [
            len((await claims.claim(session, world.ada.id, limit=limit)).attempts)
            for limit in (2, 2, 4)
        ]
    assert found == [2, 2, 1]
    assert await reserved(world, id) == "5.000000000"


@pytest.mark.parametrize("scope", ["project", "task"])
async def test_a_claim_does_not_go_through_all_that_a_full_budget_keeps(
    world: World, scope: str
) -> None:
    more = {"taskId": gid(world.parent)} if scope == "task" else {}
    await budget(world, limitTokens=1, claimReserve="2", **more)
    async with world.database.write(ADMIN) as session:
        await session.execute(
            text(
                "INSERT INTO tasks (project_id, parent_task_id, title, priority)"
                f" SELECT '{world.project.id}', '{world.parent.id}', 'x', 5"
                " FROM generate_series(1, 1000)"
            )
        )
    plan = await explained(world)

    assert plan["Actual Rows"] == (1 if scope == "task" else 0)
    locked = [node for node in nodes(plan) if node["Node Type"] == "LockRows"]
    # Of tasks, at most the one that it takes is locked.
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in locked) <= 2
    if scope == "project":
        assert blocks(plan) < 250
