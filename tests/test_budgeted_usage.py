"""Usage and budgets: a budget that refuses usage stops records at its limit until it is raised."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import Right, usage
from db.errors import BudgetExceeded
from tests import factories
from tests.conftest import ADMIN, People
from tests.test_budgets import budget, record, show
from tests.world import World, gid, make_world, snapshot, stored

RECORD = """recordUsage {
  usageRecords { id }
  userErrors {
    __typename code path message
    ... on BudgetExceeded { budget { id } limit spent reserved periodEndsAt }
  }
}"""
EXCEEDED = "BUDGET_EXCEEDED"
ONE = {"cost": "1"}
"""A call that costs a dollar."""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def refusing(world: World, **values: Any) -> str:
    """A budget that refuses usage; returns its id."""
    return await budget(world, refusesUsage=True, **values)


def calls(world: World, *records: dict[str, Any]) -> dict[str, Any]:
    """The input that records calls of the model that `record` records."""
    given = [{"modelName": "gpt-4o"} | each for each in records]
    return {"projectId": gid(world.project), "records": given}


async def refused(world: World, *records: dict[str, Any]) -> list[tuple[str, str]]:
    """The errors of calls that are not recorded, by which nothing is changed, nor logged."""
    events = "SELECT count(*) FROM events"
    before = await stored(world.database, events)
    found = await world.refused(world.owner, "recordUsage", **calls(world, *records))
    assert await stored(world.database, events) == before
    return found


async def spent(world: World, id: str) -> Decimal:
    """What is spent of a budget."""
    return Decimal((await show(world, id))["spent"])


@pytest.mark.parametrize(
    ("limit", "first", "second"),
    [
        ({"limitCost": "2"}, {"cost": "1.999999999"}, {"cost": "0.000000001"}),
        ({"limitTokens": 20}, {"inputTokens": 19}, {"outputTokens": 1}),
    ],
    ids=["cost", "tokens"],
)
async def test_the_call_that_reaches_the_limit_is_the_last(
    world: World, limit: dict[str, Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    id = await refusing(world, claimReserve="0", thresholds=[100, 200], **limit)
    await record(world, first)
    await record(world, second)
    for call in (first, second, {}):
        assert await refused(world, call) == [(EXCEEDED, "records.0")]

    shown = await show(world, id)
    assert shown["percentUsed"] == 100
    assert [alert["threshold"] for alert in shown["alerts"]["nodes"]] == [100]
    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [2]


@pytest.mark.parametrize("scope", ["project", "agent", "parent", "subtask", "model"])
async def test_calls_that_a_budget_counts_are_refused_and_no_others(
    world: World, scope: str
) -> None:
    ada, model = {"agentId": gid(world.ada)}, {"modelName": "gpt-4o"}
    parent, subtask = {"taskId": gid(world.parent)}, {"taskId": gid(world.subtask)}
    of: dict[str, Any] = {"agent": ada, "parent": parent, "subtask": subtask, "model": model}
    async with world.database.write(ADMIN) as session:
        working = await factories.make_attempt(session, world.subtask, 7, agent_id=world.ada.id)
    attempt = {"attemptId": gid(working)}
    other, free = {"modelName": "other"}, {"taskId": gid(world.free)}
    stopped: dict[str, list[dict[str, Any]]] = {
        "project": [{}, ada, other],
        "agent": [ada, {**ada, **other, **free}, attempt],
        "parent": [parent, {**subtask, **other}, attempt],
        "subtask": [{**subtask, **ada}, attempt],
        "model": [{}, ada],
    }
    recorded: dict[str, list[dict[str, Any]]] = {
        "project": [],
        "agent": [{}, parent],
        "parent": [{}, free, {**attempt, **free}],
        "subtask": [{}, parent, {**attempt, **parent}],
        "model": [other, {**ada, **other}],
    }
    await refusing(world, limitCost="1", **of.get(scope, {}))
    await record(world, {**ONE, **of.get(scope, {})})

    for call in stopped[scope]:
        assert await refused(world, call) == [(EXCEEDED, "records.0")], call
    for call in recorded[scope]:
        await record(world, call)


async def test_a_budget_of_another_project_or_that_is_not_to_refuse_stops_nothing(
    world: World,
) -> None:
    await budget(world, limitCost="1")
    await budget(world, limitCost="1", isHard=False)
    async with world.database.write(ADMIN) as session:
        values = {"limit_cost": 1, "refuses_usage": True, "period": db.BudgetPeriod.EVER}
        await db.Budget.create(session, project_id=world.elsewhere.id, **values)
        await factories.make_usage(session, world.elsewhere, world.model, cost=Decimal(9))
    for _ in range(3):
        await record(world, ONE)


async def test_what_was_spent_in_another_period_stops_nothing(world: World) -> None:
    id = await refusing(world, limitCost="1", period="HOUR")
    await record(world, {"cost": "5", "occurredAt": "2026-01-01T00:00:00Z"})
    await record(world, {"cost": "5", "occurredAt": datetime.now(UTC).isoformat()})

    # When the call was made does not matter: what is asked is whether there is room now.
    assert await refused(world, {"occurredAt": "2026-01-01T00:00:00Z"}) == [(EXCEEDED, "records.0")]
    assert await spent(world, id) == 5


async def test_a_refusal_names_the_budget_as_that_of_a_claim_does(world: World) -> None:
    id = await refusing(world, limitCost="1", claimReserve="0.5")
    await budget(world, limitCost="1")  # it is full too
    await record(world, {"cost": "1.25"})

    (error,) = (await world.agent.change(RECORD, **calls(world, {})))["userErrors"]
    assert error == {
        "__typename": "BudgetExceeded",
        "code": EXCEEDED,
        "path": ["records", "0"],
        "message": "The budget of the project has no room: of 1 US dollars, 1.25 is spent, and it"
        " refuses usage. Raise it by updateBudget or requestBudgetIncrease.",
        "budget": {"id": id},
        "limit": "1.000000000",
        "spent": "1.250000000",
        "reserved": "0.000000000",
        "periodEndsAt": None,
    }


async def test_what_is_reserved_is_not_spent(world: World) -> None:
    """Else the attempt that has reserved the rest could record nothing."""
    id = await refusing(world, limitCost="1", claimReserve="1")
    async with world.database.write(ADMIN, Right.WORK) as session:
        await session.execute(text("UPDATE projects SET status = 'IN_PROGRESS'"))
        await session.execute(text("UPDATE agents SET status = 'READY'"))
    claimed = await world.agent.change("claimTask { attempt { id } userErrors { code } }")
    assert claimed["attempt"] is not None
    assert (await show(world, id))["remaining"] == "0.000000000"
    await record(world, ONE)
    assert await refused(world, ONE) == [(EXCEEDED, "records.0")]


async def test_calls_are_recorded_all_or_none(world: World) -> None:
    await refusing(world, limitCost="1", agentId=gid(world.ada))
    await record(world, {**ONE, "agentId": gid(world.ada), "requestId": "a"})
    other, ada = {"cost": "2"}, {"agentId": gid(world.ada)}

    assert await refused(world, other, ada, ada) == [(EXCEEDED, "records.1")]
    repeated = {"requestId": "a"}
    assert await refused(world, repeated, other, ada) == [(EXCEEDED, "records.2")]
    # What else is wrong is said first.
    unknown = {"agentId": gid(world.bob)}
    assert await refused(world, ada, unknown) == [("NOT_FOUND", "records.1.agentId")]
    await record(world, other, repeated)
    assert await stored(world.database, "SELECT count(*) FROM usage_records") == [2]


async def test_calls_of_one_request_are_recorded_beyond_the_limit(world: World) -> None:
    id = await refusing(world, limitCost="1")
    await record(world, ONE, ONE, ONE)
    assert await spent(world, id) == 3


async def test_what_was_recorded_before_is_not_refused(world: World) -> None:
    id = await refusing(world, limitCost="1")
    call = calls(world, {**ONE, "requestId": "a"})
    first = await world.owner.change(RECORD, **call, idempotencyKey="k")
    assert first["userErrors"] == []
    before = await snapshot(world.database)

    assert await world.owner.change(RECORD, **call, idempotencyKey="k") == first
    assert await world.owner.change(RECORD, **call) == first
    assert await snapshot(world.database) == before
    # The key of calls that were refused can be used later.
    new = calls(world, {**ONE, "requestId": "b"})
    for _ in range(2):
        (error,) = (await world.owner.change(RECORD, **new, idempotencyKey="l"))["userErrors"]
        assert error["code"] == EXCEEDED
    await world.owner.change("updateBudget { userErrors { code } }", id=id, limitCost="2")
    later = await world.owner.change(RECORD, **new, idempotencyKey="l")
    assert (len(later["usageRecords"]), later["userErrors"]) == (1, [])


@pytest.mark.parametrize("many", [1, 2])
async def test_calls_at_once_stop_exactly_at_the_limit(world: World, many: int) -> None:
    for number in range(5):
        model = f"model {number}"
        id = await refusing(world, limitCost="7", modelName=model)
        await refusing(world, limitCost="1000", taskId=gid(world.parent))
        share = {"cost": str(Decimal(1) / many), "modelName": model}
        kinds = share, share | {"taskId": gid(world.subtask)}
        payloads = await asyncio.gather(
            *(
                world.owner.change(RECORD, **calls(world, *[kinds[place % 2]] * many))
                for place in range(20)
            )
        )

        errors = [error["code"] for payload in payloads for error in payload["userErrors"]]
        assert errors == [EXCEEDED] * 13
        assert await spent(world, id) == 7


async def test_a_call_that_is_repeated_at_once_is_not_refused(world: World) -> None:
    for number in range(5):
        model = f"model {number}"
        await refusing(world, limitCost="1", modelName=model)
        call = calls(world, {**ONE, "modelName": model, "requestId": model})
        payloads = await asyncio.gather(*(world.owner.change(RECORD, **call) for _ in range(8)))

        assert payloads == [payloads[0]] * 8
        assert payloads[0]["userErrors"] == []


async def test_records_beside_what_deletes_and_changes_a_budget_do_not_deadlock(
    world: World,
) -> None:
    for _ in range(10):
        async with world.database.write(ADMIN) as session:
            top = await factories.make_task(session, world.project, "top")
        await refusing(world, limitCost="3", taskId=gid(top))
        whole = await refusing(world, limitCost="1000")
        call = calls(world, {**ONE, "taskId": gid(top)})
        update = {"id": whole, "limitCost": "500", "thresholds": [1]}
        deleted, updated, *payloads = await asyncio.gather(
            world.owner.change("deleteTask { userErrors { code } }", id=gid(top)),
            world.owner.change("updateBudget { userErrors { code } }", **update),
            *(world.owner.change(RECORD, **call) for _ in range(6)),
        )
        assert deleted == updated == {"userErrors": []}
        codes = {error["code"] for payload in payloads for error in payload["userErrors"]}
        assert codes <= {EXCEEDED, "NOT_FOUND", "INVALID"}, payloads
        assert await stored(world.database, "SELECT 1 FROM budgets WHERE task_id IS NOT NULL") == []


async def test_a_higher_limit_lets_calls_go_on(world: World) -> None:
    id = await refusing(world, limitCost="1")
    await record(world, ONE)
    assert await refused(world, ONE) == [(EXCEEDED, "records.0")]
    change = "updateBudget { userErrors { code } }"
    await world.owner.change(change, id=id, limitCost="2")
    await record(world, ONE)
    assert await refused(world, ONE) == [(EXCEEDED, "records.0")]

    payload = await world.agent.change(
        "requestBudgetIncrease { approvalRequest { id contentHash } userErrors { code } }",
        budgetId=id,
        limitCost="3",
    )
    await world.owner.change(
        "respondToApproval { userErrors { code } }", **payload["approvalRequest"], approved=True
    )
    await record(world, ONE)
    assert await refused(world, ONE) == [(EXCEEDED, "records.0")]
    await world.owner.change(change, id=id, refusesUsage=False)
    await record(world, ONE)
    assert await spent(world, id) == 4


async def test_only_a_hard_budget_refuses_usage(world: World) -> None:
    new = {"projectId": gid(world.project), "period": "DAY", "limitCost": "5", "isHard": False}
    wrong = [("INVALID", "refusesUsage")]
    assert await world.refused(world.owner, "createBudget", **new, refusesUsage=True) == wrong
    soft, hard = await budget(world, **new), await refusing(world, limitCost="5")
    change = "updateBudget"
    assert await world.refused(world.owner, change, id=soft, refusesUsage=True) == wrong
    assert await world.refused(world.owner, change, id=hard, isHard=False) == wrong
    payload = await world.owner.change(
        "updateBudget { budget { isHard refusesUsage } userErrors { code } }",
        id=hard,
        isHard=False,
        refusesUsage=False,
    )
    assert payload == {"budget": {"isHard": False, "refusesUsage": False}, "userErrors": []}


async def test_who_may_record_nothing_learns_nothing_of_a_budget(world: World) -> None:
    await refusing(world, limitCost="1")
    await record(world, ONE)
    stranger = world.people.stranger
    found = await world.refused(stranger, "recordUsage", **calls(world, ONE))
    assert found == [("NOT_FOUND", "projectId")]
    async with world.database.write(ADMIN) as session:
        user = world.people.users["stranger"]
        await factories.make_member(session, world.project, user, db.MemberRole.VIEWER)
    assert await world.error(stranger, "recordUsage", **calls(world, ONE)) == "FORBIDDEN"


async def test_only_projects_with_such_a_budget_pay_for_it(world: World) -> None:
    async def locks(asked: int = 0) -> list[str]:
        """The advisory locks of a record, for which the function is called so many times."""
        async with world.database.write(ADMIN, Right.WORK) as session:
            await session.execute(text("SET LOCAL track_functions = 'all'"))
            call = {"model_name": "gpt-4o", "agent_id": world.ada.id}
            await usage.record_usage(session, world.project.id, {(0,): call})
            function = "pg_stat_get_xact_function_calls('any_used_up'::regproc)"
            assert await session.scalar(text(f"SELECT coalesce({function}, 0)")) == asked
            held = (
                "SELECT mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'"
                " ORDER BY mode"
            )
            return list(await session.scalars(text(held)))

    async def statements() -> int:
        called = RECORD.replace("{", "(input: $input) {", 1)
        document = f"mutation($input: RecordUsageInput!) {{ {called} }}"
        answer = await world.owner.ask(document, input=calls(world, {}))
        assert answer.data["recordUsage"]["userErrors"] == []
        return len(answer.statements)

    few, shared = await statements(), ["ShareLock"]
    assert await locks() == shared
    await budget(world, limitCost="100")
    await refusing(world, limitCost="100", modelName="other")
    assert await locks() == shared
    assert await statements() == few
    await refusing(world, limitCost="100")
    assert await locks(asked=1) == ["ExclusiveLock", *shared]
    assert await statements() == few


async def test_calls_of_one_transaction_stop_at_the_limit(world: World) -> None:
    await refusing(world, limitCost="2")
    call = {"model_name": "gpt-4o", "cost": Decimal(1)}
    async with world.database.write(ADMIN, Right.WORK) as session:
        for _ in range(2):
            await usage.record_usage(session, world.project.id, {(0,): call})
        with pytest.raises(BudgetExceeded) as caught:
            await usage.record_usage(session, world.project.id, {("a",): call})
    assert caught.value.path == ("a",)
    assert caught.value.spent == 2
