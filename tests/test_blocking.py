"""Requests that block a task: its lease ends with them, and an answer gives it back."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import interaction_answers, sweeper
from graph.core.scalars import global_id
from tests import factories
from tests.client import Client
from tests.conftest import ADMIN, People
from tests.test_interaction_answers import (
    ANSWERS,
    KINDS,
    ROUNDS,
    approvers,
    ask,
    execute,
    respond,
    status,
)
from tests.world import World, faults, gid, make_world, snapshot, stored

__all__ = ["approvers"]

TASK = "SELECT status, blocked_reason, agent_id, current_attempt_id FROM tasks WHERE id = :id"


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def claimed(world: World, **values: Any) -> db.TaskAttempt:
    """A running attempt of Ada at a task of its own."""
    async with world.database.write(ADMIN) as session:
        return await factories.make_claimed(session, world.ada, **values)


async def park(
    world: World, attempt: db.TaskAttempt, mutation: str = "requestApproval", **values: Any
) -> dict[str, Any]:
    """A request of Ada that blocks the task of an attempt."""
    if mutation == "notify":
        values |= {"requiresAcknowledgement": True}
    return await ask(world, mutation, blockTask=True, attemptId=gid(attempt), **values)


async def task(world: World, attempt: db.TaskAttempt) -> tuple[Any, ...]:
    """The status of the task of an attempt, why it is blocked, its agent and its attempt."""
    (found,) = await stored(world.database, TASK, id=attempt.task_id)
    return tuple(found)


@pytest.mark.parametrize("mutation", KINDS)
async def test_a_request_blocks_its_task_and_an_answer_gives_it_back(
    world: World, mutation: str
) -> None:
    attempt = await claimed(world)
    name, given, *_ = ANSWERS[mutation]

    request = await park(world, attempt, mutation)

    assert await task(world, attempt) == ("BLOCKED", "HUMAN_INPUT", world.ada.id, None)
    query = "SELECT task_id, blocks_task FROM human_interactions"
    assert await stored(world.database, query) == [(attempt.task_id, True)]
    assert await stored(world.database, "SELECT count(*) FROM task_leases") == [0]
    query = "SELECT status, ended_at IS NOT NULL FROM task_attempts"
    assert await stored(world.database, query) == [("RELEASED", True)]

    answer = await world.owner.change(f"{name} {{ userErrors {{ code }} }}", **request, **given)

    assert answer == {"userErrors": []}
    assert await task(world, attempt) == ("ASSIGNED", None, world.ada.id, None)


async def test_a_task_waits_for_all_requests_that_block_it(
    world: World, approvers: list[Client]
) -> None:
    for _ in range(ROUNDS):
        attempt = await claimed(world)
        first = await park(world, attempt)
        second = await park(world, attempt, "requestClarification")

        await asyncio.gather(
            respond(approvers[0], first),
            approvers[1].change(
                "answerClarification { userErrors { code } }", **second, answer="42"
            ),
        )

        assert await task(world, attempt) == ("ASSIGNED", None, world.ada.id, None)
    attempt = await claimed(world)
    first, second = await park(world, attempt), await park(world, attempt)
    assert await respond(approvers[0], first) == []
    assert (await task(world, attempt))[0] == "BLOCKED"
    await world.agent.change("cancelInteraction { userErrors { code } }", id=second["id"])
    assert (await task(world, attempt))[0] == "ASSIGNED"


async def test_a_rejection_gives_the_task_back_too(world: World, approvers: list[Client]) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt, requiredApprovals=2)

    assert await respond(approvers[0], request) == []
    assert (await task(world, attempt))[0] == "BLOCKED"
    assert await respond(approvers[1], request, False) == []

    assert (await task(world, attempt))[0] == "ASSIGNED"


async def test_only_a_running_attempt_of_ones_own_is_blocked(world: World) -> None:
    attempt = await claimed(world)
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
        hers = await factories.make_claimed(session, eve)
        theirs = await factories.make_claimed(session, world.bob)
        ended = await factories.make_claimed(session, world.ada)
        await session.execute(
            text("UPDATE task_attempts SET status = 'LEASE_LOST' WHERE id = :id"), {"id": ended.id}
        )
        await session.execute(
            text("DELETE FROM task_leases WHERE attempt_id = :id"), {"id": ended.id}
        )
    common = {"projectId": gid(world.project), "title": "x", "content": {}, "blockTask": True}
    for input, expected in (
        ({}, [("INVALID", "attemptId")]),
        ({"attemptId": gid(theirs)}, [("NOT_FOUND", "attemptId")]),
        ({"attemptId": gid(ended)}, [("LEASE_LOST", "attemptId")]),
        ({"attemptId": gid(attempt), "taskId": gid(world.free)}, [("INVALID", "taskId")]),
    ):
        found = await world.refused(world.agent, "requestApproval", **common, **input)
        assert found == expected, input
    found = await world.refused(world.agent, "notify", **common, attemptId=gid(attempt))
    assert found == [("INVALID", "requiresAcknowledgement")]
    code = await world.error(world.agent, "requestApproval", **common, attemptId=gid(hers))
    assert code == "FORBIDDEN"


async def test_a_refused_request_blocks_nothing(world: World) -> None:
    attempt = await claimed(world)
    before = await snapshot(world.database)
    payload = await world.agent.change(
        "requestApproval { userErrors { code path } }",
        projectId=gid(world.project),
        title="x",
        content={},
        blockTask=True,
        attemptId=gid(attempt),
        conversationId=str(db.new_id()),
    )
    assert faults(payload) == [("NOT_FOUND", "conversationId")]
    assert await snapshot(world.database) == before


@pytest.mark.parametrize("mutation", KINDS)
async def test_an_attempt_says_what_a_request_is_about(world: World, mutation: str) -> None:
    query = "SELECT project_id, task_id, agent_id FROM human_interactions WHERE title = :title"
    for title, more in (("blocks", {"blockTask": True, "checkpoint": {"n": 1}}), ("asks", {})):
        attempt = await claimed(world)
        input = {"attemptId": gid(attempt), "title": title, "content": {}, **more}
        if mutation == "notify":
            input["requiresAcknowledgement"] = True

        payload = await world.agent.change(f"{mutation} {{ userErrors {{ code path }} }}", **input)

        assert payload == {"userErrors": []}
        expected = (world.project.id, attempt.task_id, world.ada.id)
        assert await stored(world.database, query, title=title) == [expected]
        assert (await task(world, attempt))[0] == ("BLOCKED" if more else "IN_PROGRESS")


async def test_a_request_agrees_with_its_attempt(world: World) -> None:
    attempt = await claimed(world)
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
        hers = await factories.make_claimed(session, eve)
        theirs = await factories.make_claimed(session, world.bob)
    common = {"title": "x", "content": {}}
    mine = {"attemptId": gid(attempt), "blockTask": True}
    for input, expected in (
        ({}, [("INVALID", "projectId")]),
        ({"attemptId": gid(theirs)}, [("NOT_FOUND", "attemptId")]),
        (mine | {"taskId": gid(world.free)}, [("INVALID", "taskId")]),
        ({"attemptId": gid(attempt), "taskId": gid(world.free)}, [("INVALID", "taskId")]),
        (mine | {"projectId": gid(world.elsewhere)}, [("INVALID", "projectId")]),
        ({"attemptId": gid(attempt), "checkpoint": {"n": 1}}, [("INVALID", "checkpoint")]),
        ({"projectId": gid(world.project), "checkpoint": 1}, [("INVALID", "checkpoint")]),
    ):
        found = await world.refused(world.agent, "requestApproval", **common, **input)
        assert found == expected, input
    code = await world.error(world.agent, "requestApproval", **common, attemptId=gid(hers))
    assert code == "FORBIDDEN"


async def test_the_last_checkpoint_of_a_task_is_for_the_next_attempt(
    world: World, resolvers: People
) -> None:
    attempt = await claimed(world)
    id = attempt.task_id
    query = "query($id: ID!) { task(id: $id) { checkpoint attempts { nodes { checkpoint } } } }"

    async def left(*expected: Any) -> None:
        """See that the attempts have left these checkpoints, of which the last counts."""
        compiled = await world.owner.ask(query, id=str(id))
        resolved = await resolvers.owner.ask(query, id=str(id))
        assert (compiled.text, len(compiled.statements)) == (resolved.text, 1)
        last = next((each for each in reversed(expected) if each is not None), None)
        attempts = [{"checkpoint": each} for each in expected]
        assert compiled.data["task"] == {"checkpoint": last, "attempts": {"nodes": attempts}}

    async def begin() -> db.TaskAttempt:
        """The next attempt at the task."""
        async with world.database.write(ADMIN) as session:
            row = await session.get_one(db.Task, id)
            row.status, row.blocked_reason = db.TaskStatus.IN_PROGRESS, None
            row.agent_id, row.attempt_count = world.ada.id, row.attempt_count + 1
            ada, number = world.ada.id, row.attempt_count
            new = await factories.make_attempt(session, row, number, agent_id=ada)
            row.current_attempt_id = new.id
            await session.flush()
            await factories.make_lease(session, new)
            return new

    await left(None)
    await park(world, attempt, checkpoint={"n": 1})
    await left({"n": 1})
    await park(world, attempt)  # another request, which has nothing to add
    await left({"n": 1})
    await park(world, attempt, "requestFeedback", checkpoint=[2])
    await left([2])
    attempt = await begin()
    await left([2], None)
    payload = await world.agent.change(
        "failTask { attempt { checkpoint task { checkpoint } } userErrors { code } }",
        attemptId=gid(attempt),
        error="no",
        checkpoint=False,
    )
    expected = {"checkpoint": False, "task": {"checkpoint": False}}
    assert payload == {"attempt": expected, "userErrors": []}
    attempt = await begin()
    beat = {"attemptId": gid(attempt), "checkpoint": "3"}
    await world.agent.change("heartbeat { userErrors { code } }", attempts=[beat])
    await world.agent.change("failTask { userErrors { code } }", attemptId=gid(attempt), error="no")
    await left([2], False, "3")


@pytest.mark.parametrize(
    ("on_expiry", "expected"),
    [
        ("KEEP", ("BLOCKED", "HUMAN_INPUT")),
        ("RELEASE", ("ASSIGNED", None)),
        ("FAIL", ("FAILED", None)),
    ],
)
async def test_what_becomes_of_a_task_when_nobody_answers(
    world: World, on_expiry: str, expected: tuple[str, str | None]
) -> None:
    attempt = await claimed(world)
    async with world.database.write(ADMIN) as session:
        after = await factories.make_task(session, world.project, "After", unmet_dependency_count=1)
        blocked = await session.fetch(db.Task, attempt.task_id)
        await factories.make_dependency(session, after, blocked)
    request = await park(
        world, attempt, onExpiry=on_expiry, expiresAt="2020-01-01T00:00:00Z", requiredApprovals=2
    )

    found = await asyncio.gather(*(interaction_answers.expire(world.database) for _ in range(3)))

    assert sum(found) == 1
    assert await status(world, request) == "EXPIRED"
    assert (await task(world, attempt))[:2] == expected
    query = "SELECT status FROM tasks WHERE id = :id"
    skipped = "SKIPPED" if on_expiry == "FAIL" else "PENDING"
    assert await stored(world.database, query, id=after.id) == [skipped]


async def test_a_task_is_given_back_by_an_answer_or_its_expiry_never_lost(
    world: World, approvers: list[Client]
) -> None:
    for number in range(ROUNDS):
        attempt = await claimed(world)
        on_expiry = ("RELEASE", "FAIL")[number % 2]
        request = await park(world, attempt, onExpiry=on_expiry)
        await execute(
            world,
            "UPDATE human_interactions SET expires_at = clock_timestamp() + :ms * interval '1 ms'"
            " WHERE status = 'PENDING'",
            ms=number % 8,
        )

        async def sweep() -> None:
            for _ in range(6):
                await interaction_answers.expire(world.database)
                await asyncio.sleep(0.003)

        found, *_ = await asyncio.gather(respond(approvers[0], request), sweep(), sweep())

        given, (now, *_) = await status(world, request), await task(world, attempt)
        ended = "FAILED" if on_expiry == "FAIL" else "ASSIGNED"
        assert (found, given, now) in (
            ([], "APPROVED", "ASSIGNED"),
            ([("ILLEGAL_TRANSITION", "id")], "EXPIRED", ended),
        )


@pytest.mark.parametrize(("on_expiry", "ended"), [("RELEASE", "ASSIGNED"), ("FAIL", "FAILED")])
async def test_of_two_requests_one_is_answered_while_the_other_expires(
    world: World, approvers: list[Client], on_expiry: str, ended: str
) -> None:
    for _ in range(ROUNDS):
        attempt = await claimed(world)
        answered = await park(world, attempt)
        expiring = await park(world, attempt, onExpiry=on_expiry, expiresAt="2020-01-01T00:00:00Z")

        found, *counts = await asyncio.gather(
            respond(approvers[0], answered),
            interaction_answers.expire(world.database),
            interaction_answers.expire(world.database),
        )

        assert sum(counts) == 1
        assert await status(world, expiring) == "EXPIRED"
        assert (await task(world, attempt))[:2] == (ended, None)
        # A task that has failed asks nobody any more.
        given = await status(world, answered)
        assert (found, given) in (
            ([], "APPROVED"),
            ([("ILLEGAL_TRANSITION", "id")], "CANCELLED"),
        )
        assert on_expiry == "FAIL" or given == "APPROVED"


async def test_approvals_and_a_rejection_at_once_give_one_outcome_and_one_wake(
    world: World, approvers: list[Client]
) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        attempt = await claimed(world)
        request = await park(world, attempt, requiredApprovals=2)
        opinions = [True, True, True]
        opinions[number % 3] = False

        found = await asyncio.gather(
            *(
                respond(approver, request, approved)
                for approver, approved in zip(approvers, opinions, strict=False)
            )
        )

        approved = sum(
            not errors for errors, opinion in zip(found, opinions, strict=True) if opinion
        )
        is_rejected = found[number % 3] == []
        final = await status(world, request)
        outcomes.add(final)
        assert final == ("REJECTED" if is_rejected else "APPROVED")
        assert is_rejected or approved == 2
        assert all(each in ([], [("ILLEGAL_TRANSITION", "id")]) for each in found)
        query = (
            "SELECT approval_count, approved, (SELECT count(*) FROM interaction_answers WHERE"
            " interaction_id = i.id) FROM human_interactions i ORDER BY created_at DESC LIMIT 1"
        )
        assert await stored(world.database, query) == [
            (approved, not is_rejected, approved + is_rejected)
        ]
        query = "SELECT status, version, agent_id FROM tasks WHERE id = :id"
        assert await stored(world.database, query, id=attempt.task_id) == [
            ("ASSIGNED", 4, world.ada.id)  # created, claimed, parked, and given back once
        ]
    assert outcomes == {"APPROVED", "REJECTED"}


async def test_the_expiry_of_a_request_for_a_deleted_task_fails_nothing(world: World) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt, onExpiry="FAIL", expiresAt="2020-01-01T00:00:00Z")
    task_id = global_id("Task", attempt.task_id)
    deleted, expired = await asyncio.gather(
        world.owner.change("deleteTask { userErrors { code } }", id=task_id),
        interaction_answers.expire(world.database),
    )

    assert deleted == {"userErrors": []}
    assert expired + await interaction_answers.expire(world.database) == 1
    assert await status(world, request) == "EXPIRED"


async def test_a_parked_task_that_was_skipped_is_to_be_done_again_when_it_is_reopened(
    world: World, approvers: list[Client]
) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt)
    async with world.database.write(ADMIN) as session:
        first = await factories.make_task(session, world.project, "first")
        parked = await session.get_one(db.Task, attempt.task_id)
        await factories.make_dependency(session, parked, first)
        await db.dependencies.recount(session, [parked.id])
    for to, expected in (("FAILED", "SKIPPED"), ("PENDING", "ASSIGNED")):
        await world.owner.change("transitionTask { userErrors { code } }", id=gid(first), to=to)
        assert (await task(world, attempt))[:3] == (expected, None, world.ada.id)

    assert await status(world, request) == "CANCELLED"
    assert await respond(approvers[0], request) == [("ILLEGAL_TRANSITION", "id")]
    query = "SELECT unmet_dependency_count FROM tasks WHERE id = :id"
    assert await stored(world.database, query, id=attempt.task_id) == [1]


async def test_a_parked_task_is_not_handed_out_when_its_lease_would_have_ended(
    world: World,
) -> None:
    for _ in range(ROUNDS):
        attempt = await claimed(world)
        await execute(
            world,
            "UPDATE task_leases SET expires_at = clock_timestamp() + interval '3 ms'"
            " WHERE attempt_id = :id",
            id=attempt.id,
        )

        async def sweep() -> None:
            for _ in range(5):
                await sweeper.sweep(world.database)
                await asyncio.sleep(0.002)

        input: dict[str, Any] = {"projectId": gid(world.project), "title": "x", "content": {}}
        input |= {"blockTask": True, "attemptId": gid(attempt)}
        payload, _ = await asyncio.gather(
            world.agent.change("requestApproval { userErrors { code path } }", **input), sweep()
        )

        now, reason, *_ = await task(world, attempt)
        if faults(payload):
            assert faults(payload) == [("LEASE_LOST", "attemptId")]
            assert (now, reason) == ("PENDING", None)
        else:
            assert (now, reason) == ("BLOCKED", "HUMAN_INPUT")


@pytest.mark.parametrize("meanwhile", ["deleted", "cancelled", "released"])
async def test_an_answer_leaves_a_task_that_others_took_away_as_it_is(
    world: World, approvers: list[Client], meanwhile: str
) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt)
    id = global_id("Task", attempt.task_id)
    if meanwhile == "deleted":
        await world.owner.change("deleteTask { deletedId }", id=id)
    elif meanwhile == "cancelled":
        await execute(
            world,
            "UPDATE tasks SET status = 'CANCELLED', blocked_reason = NULL WHERE id = :id",
            id=attempt.task_id,
        )
    else:
        await execute(
            world,
            "UPDATE tasks SET status = 'PENDING', blocked_reason = NULL, agent_id = NULL"
            " WHERE id = :id",
            id=attempt.task_id,
        )
    before = await stored(world.database, "SELECT id, status, agent_id, version FROM tasks")

    assert await respond(approvers[0], request) == []

    assert await status(world, request) == "APPROVED"
    after = await stored(world.database, "SELECT id, status, agent_id, version FROM tasks")
    assert sorted(after) == sorted(before)


@pytest.mark.parametrize("mutation", ["PENDING", "COMPLETED", "FAILED", "CANCELLED", "cancelTask"])
async def test_requests_are_cancelled_whose_task_goes_on_without_them(
    world: World, mutation: str
) -> None:
    attempt = await claimed(world)
    requests = [await park(world, attempt), await park(world, attempt, "requestFeedback")]
    id = global_id("Task", attempt.task_id)
    if mutation == "cancelTask":
        payload = await world.owner.change("cancelTask { userErrors { code } }", id=id)
    else:
        payload = await world.owner.change(
            "transitionTask { userErrors { code } }", id=id, to=mutation
        )
    assert payload == {"userErrors": []}

    assert [await status(world, each) for each in requests] == ["CANCELLED", "CANCELLED"]


async def test_a_task_that_is_skipped_asks_nobody_any_more(world: World) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt)
    async with world.database.write(ADMIN) as session:
        other = await factories.make_task(session, world.project, "first")
        await factories.make_dependency(
            session, await session.get_one(db.Task, attempt.task_id), other
        )
    await world.owner.change("transitionTask { userErrors { code } }", id=gid(other), to="FAILED")

    assert (await task(world, attempt))[0] == "SKIPPED"
    assert await status(world, request) == "CANCELLED"


async def test_an_agent_that_has_ended_gets_its_task_not_back(
    world: World, approvers: list[Client]
) -> None:
    attempt = await claimed(world)
    request = await park(world, attempt)
    await execute(world, "UPDATE agents SET status = 'TERMINATED'")

    assert await respond(approvers[0], request) == []

    assert await task(world, attempt) == ("PENDING", None, None, None)


async def test_a_task_is_deleted_while_a_person_answers(
    world: World, approvers: list[Client]
) -> None:
    for _ in range(ROUNDS):
        attempt = await claimed(world)
        request = await park(world, attempt)

        found, deleted = await asyncio.gather(
            respond(approvers[0], request),
            world.owner.change(
                "deleteTask { userErrors { code } }", id=global_id("Task", attempt.task_id)
            ),
        )

        assert (found, deleted) == ([], {"userErrors": []})
        assert await status(world, request) == "APPROVED"


# Subtasks.


async def test_an_agent_makes_subtasks_of_what_it_is_working_on_and_of_nothing_else(
    world: World,
) -> None:
    attempt = await claimed(world)
    async with world.database.write(ADMIN) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
        hers = await factories.make_claimed(session, eve)
    input = {"projectId": gid(world.project), "title": "Part"}
    parent = global_id("Task", attempt.task_id)

    payload = await world.agent.change(
        "createTask { task { title createdByAgent { name } parentTask { id } }"
        " userErrors { code } }",
        **input,
        parentTaskId=parent,
    )

    made = {"title": "Part", "createdByAgent": {"name": "Ada"}, "parentTask": {"id": parent}}
    assert payload == {"task": made, "userErrors": []}
    await park(world, attempt)
    for other in (None, gid(world.free), global_id("Task", hers.task_id), parent):
        code = await world.error(world.agent, "createTask", **input, parentTaskId=other)
        assert code == "FORBIDDEN"
