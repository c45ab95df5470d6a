"""Boards: people hold, release, complete, fail, cancel, retry and reopen tasks, and see how many
there are.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import BlockedReason, OnFailure, TaskStatus, boards
from db.tasks import TASK_TRANSITIONS
from tests import factories
from tests.conftest import ADMIN, People
from tests.world import Case, World, at, gid, make_world, stored

MOVED = "{ task { status blockedReason version } userErrors { code path message } }"
CASES = {
    "transitionTask": Case(lambda w: {"id": gid(w.subtask), "to": "BLOCKED"}),
    "cancelTask": Case(lambda w: {"id": gid(w.subtask)}),
    "retryTask": Case(lambda w: {"id": gid(w.subtask)}),
}
OPEN = ["BLOCKED", "COMPLETED", "FAILED", "CANCELLED"]
BY_HAND = {
    "PENDING": OPEN,
    "ASSIGNED": OPEN,
    "IN_PROGRESS": ["CANCELLED"],
    "BLOCKED": ["PENDING", "COMPLETED", "FAILED", "CANCELLED"],
    "COMPLETED": ["PENDING"],
    "FAILED": ["PENDING", "COMPLETED", "CANCELLED"],
    "CANCELLED": ["PENDING"],
    "SKIPPED": ["PENDING"],
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_tasks(world: World, *titles: str, **values: Any) -> list[db.Task]:
    """Tasks of the owner's project."""
    async with world.database.write(ADMIN) as session:
        return [
            await factories.make_task(session, world.project, title, **values) for title in titles
        ]


async def connect(world: World, *edges: tuple[db.Task, db.Task, str]) -> None:
    """Let tasks depend on others."""
    for dependent, dependency, on_failure in edges:
        payload = await world.owner.change(
            "addTaskDependency { userErrors { message } }",
            dependentId=gid(dependent),
            dependencyId=gid(dependency),
            onFailure=on_failure,
        )
        assert payload == {"userErrors": []}


async def move(world: World, task: db.Task, to: str, **input: Any) -> Any:
    """Set the status of a task by hand."""
    return await world.owner.change(f"transitionTask {MOVED}", id=gid(task), to=to, **input)


async def state(world: World, *tasks: db.Task) -> list[tuple[str, int]]:
    """The status of each task, and for how many others it waits."""
    query = "SELECT id, status, unmet_dependency_count FROM tasks"
    found = {id: (status, count) for id, status, count in await stored(world.database, query)}
    return [found[task.id] for task in tasks]


@pytest.mark.parametrize("current", TaskStatus)
async def test_people_set_the_statuses_of_the_table_and_no_others(
    world: World, current: TaskStatus
) -> None:
    selection = "{ task { status version } userErrors { code path ... on IllegalTransition {"
    for to in TaskStatus:
        held = BlockedReason.EXTERNAL if current is TaskStatus.BLOCKED else None
        (task,) = await make_tasks(world, to, status=current, blocked_reason=held)

        payload = await world.owner.change(
            f"transitionTask {selection} current allowed }} }} }}", id=gid(task), to=to.value
        )

        if to.value in BY_HAND[current.value]:
            is_running = current is TaskStatus.IN_PROGRESS
            after = current.value if is_running else to.value
            assert payload == {"task": {"status": after, "version": 2}, "userErrors": []}
        else:
            assert payload["userErrors"] == [
                {
                    "code": "ILLEGAL_TRANSITION",
                    "path": ["to"],
                    "current": current.value,
                    "allowed": BY_HAND[current.value],
                }
            ]
            assert await stored(
                world.database, "SELECT status, version FROM tasks WHERE id = :id", id=task.id
            ) == [(current, 1)]


def test_every_status_of_a_task_can_be_reached_and_left() -> None:
    table = TASK_TRANSITIONS.table
    reached = set[TaskStatus]().union(*table.values())

    assert set(table) == reached == set(TaskStatus)
    assert all(table.values())
    for status, moves in boards.BY_HAND.table.items():
        assert moves <= table[status]


async def test_a_task_is_held_and_released(world: World) -> None:
    (task,) = await make_tasks(world, "a", agent_id=world.ada.id, status=TaskStatus.ASSIGNED)

    held = await move(world, task, "BLOCKED")
    released = await move(world, task, "PENDING", expectedVersion=2)
    outside = await move(world, task, "BLOCKED", blockedReason="EXTERNAL")

    for payload, status, reason, version in (
        (held, "BLOCKED", "MANUAL", 2),
        (released, "ASSIGNED", None, 3),  # it has an agent
        (outside, "BLOCKED", "EXTERNAL", 4),
    ):
        shown = {"status": status, "blockedReason": reason, "version": version}
        assert payload == {"task": shown, "userErrors": []}


async def test_bad_input_and_old_versions_are_refused(world: World) -> None:
    free = gid(world.free)
    for name, input, expected in (
        ("transitionTask", {"to": "BLOCKED", "blockedReason": "HUMAN_INPUT"}, "blockedReason"),
        ("transitionTask", {"to": "COMPLETED", "blockedReason": "MANUAL"}, "blockedReason"),
        ("retryTask", {"attempts": 0}, "attempts"),
        ("retryTask", {"attempts": 1001}, "attempts"),
    ):
        assert await world.refused(world.owner, name, id=free, **input) == [("INVALID", expected)]
    conflict = [("CONFLICT", "expectedVersion")]
    for name, input in (
        ("transitionTask", {"to": "BLOCKED"}),
        ("cancelTask", {}),
        ("retryTask", {}),
    ):
        for id, faults in ((free, conflict), (gid(world.foreign), at("id"))):
            found = await world.refused(world.owner, name, id=id, expectedVersion=7, **input)
            assert found == faults, name


async def test_what_waits_for_a_task_follows_when_it_is_completed_and_reopened(
    world: World,
) -> None:
    done, direct, parent = await make_tasks(world, "done", "direct", "parent")
    (below,) = await make_tasks(world, "below", parent_task_id=parent.id)
    await connect(world, (direct, done, "HOLD"), (parent, done, "SKIP"), (below, direct, "SKIP"))
    assert await state(world, direct, parent, below) == [
        ("PENDING", 1),
        ("PENDING", 2),
        ("PENDING", 2),
    ]

    completed = await world.owner.ask(
        "mutation($id: ID!) { transitionTask(input: {id: $id, to: COMPLETED}) {"
        " task { status } userErrors { code } } }",
        id=gid(done),
    )

    assert completed.data["transitionTask"]["task"] == {"status": "COMPLETED"}
    # The lock of the project, the task, its status with what waits for it, and the payload.
    assert len(completed.statements) == 4
    after = [("PENDING", 0), ("PENDING", 1), ("PENDING", 1)]
    assert await state(world, direct, parent, below) == after
    assert await stored(
        world.database,
        "SELECT version, updated_at = created_at FROM tasks WHERE title = 'direct'",
    ) == [(1, True)]
    assert await stored(
        world.database, "SELECT completed_at IS NULL FROM tasks WHERE title = 'done'"
    ) == [False]

    await move(world, direct, "COMPLETED")
    await move(world, done, "PENDING")

    assert await state(world, direct, parent, below) == [
        ("COMPLETED", 1),
        ("PENDING", 2),
        ("PENDING", 1),
    ]
    assert await stored(
        world.database, "SELECT completed_at IS NULL FROM tasks WHERE title = 'done'"
    ) == [True]


async def test_each_edge_acts_when_a_task_fails(world: World) -> None:
    names = ["failed", "skipped", "held", "ignoring", "after", "running", "parked"]
    failed, skipped, held, ignoring, after, running, parked = await make_tasks(world, *names)
    (below,) = await make_tasks(world, "below", parent_task_id=skipped.id)
    await connect(
        world,
        (skipped, failed, "SKIP"),
        (held, failed, "HOLD"),
        (ignoring, failed, "IGNORE"),
        (after, below, "SKIP"),
        (running, failed, "SKIP"),
        (parked, failed, "SKIP"),
    )
    async with world.database.write(ADMIN) as session:
        for task, values in (
            (running, "status = 'IN_PROGRESS'"),
            (parked, "status = 'BLOCKED', blocked_reason = 'MANUAL'"),
        ):
            statement = text(f"UPDATE tasks SET {values} WHERE id = :id")
            await session.execute(statement, {"id": task.id})

    answer = await world.owner.ask(
        "mutation($id: ID!) { transitionTask(input: {id: $id, to: FAILED}) {"
        " task { status } userErrors { code } } }",
        id=gid(failed),
    )

    assert answer.data["transitionTask"]["task"] == {"status": "FAILED"}
    # Lock, task, status, what is skipped, requests that are cancelled, what is counted anew,
    # payload: however many there are.
    assert len(answer.statements) == 7
    tasks = (failed, skipped, below, after, held, ignoring, running, parked)
    assert await state(world, *tasks) == [
        ("FAILED", 0),
        ("SKIPPED", 1),
        ("SKIPPED", 1),
        ("SKIPPED", 1),
        ("PENDING", 1),
        ("PENDING", 0),
        ("IN_PROGRESS", 1),
        ("SKIPPED", 1),
    ]

    await world.owner.change("retryTask { userErrors { code } }", id=gid(failed))

    assert await state(world, *tasks) == [
        ("PENDING", 0),
        ("PENDING", 2),
        ("PENDING", 1),
        ("PENDING", 1),
        ("PENDING", 1),
        ("PENDING", 1),
        ("IN_PROGRESS", 1),
        ("PENDING", 1),
    ]


async def test_what_two_tasks_stand_in_the_way_of_is_reopened_after_the_second(
    world: World,
) -> None:
    a, b, both, after = await make_tasks(world, "a", "b", "both", "after")
    await connect(world, (both, a, "SKIP"), (both, b, "SKIP"), (after, both, "SKIP"))
    await move(world, a, "FAILED")
    await move(world, b, "CANCELLED")
    ended = ["FAILED", "CANCELLED", "SKIPPED", "SKIPPED"]
    assert [status for status, _ in await state(world, a, b, both, after)] == ended

    await world.owner.change("retryTask { userErrors { code } }", id=gid(a))
    ended[0] = "PENDING"
    assert [status for status, _ in await state(world, a, b, both, after)] == ended

    # Done by hand after all, which no longer stands in the way either.
    await move(world, b, "PENDING")
    assert await state(world, b, both, after) == [("PENDING", 0), ("PENDING", 2), ("PENDING", 1)]


async def test_a_failed_task_that_was_done_by_hand_lets_the_others_go_on(world: World) -> None:
    a, after, ignoring = await make_tasks(world, "a", "after", "ignoring")
    await connect(world, (after, a, "SKIP"), (ignoring, a, "IGNORE"))
    await move(world, a, "FAILED")

    await move(world, a, "COMPLETED")

    assert await state(world, a, after, ignoring) == [
        ("COMPLETED", 0),
        ("PENDING", 0),
        ("PENDING", 0),
    ]


async def test_a_task_is_cancelled_with_its_subtasks(world: World) -> None:
    parent, after, waiting = await make_tasks(world, "parent", "after", "waiting")
    below, done = await make_tasks(world, "below", "done", parent_task_id=parent.id)
    (deep,) = await make_tasks(world, "deep", parent_task_id=below.id, agent_id=world.ada.id)
    await connect(world, (after, parent, "SKIP"), (waiting, deep, "IGNORE"))
    async with world.database.write(ADMIN) as session:
        for task, status in ((done, "COMPLETED"), (deep, "IN_PROGRESS")):
            statement = text("UPDATE tasks SET status = :status WHERE id = :id")
            await session.execute(statement, {"status": status, "id": task.id})

    payload = await world.owner.change(
        "cancelTask { task { status cancelRequested } userErrors { code } }", id=gid(parent)
    )

    shown = {"status": "CANCELLED", "cancelRequested": False}
    assert payload == {"task": shown, "userErrors": []}
    tasks = (parent, below, done, deep, after, waiting)
    assert [status for status, _ in await state(world, *tasks)] == [
        "CANCELLED",
        "CANCELLED",
        "COMPLETED",
        "IN_PROGRESS",
        "SKIPPED",
        "PENDING",
    ]
    assert await stored(world.database, "SELECT title FROM tasks WHERE cancel_requested") == [
        "deep"
    ]
    asked = "SELECT version FROM tasks WHERE title = 'deep'"
    assert await stored(world.database, asked) == [2]

    # It is asked once.
    await world.owner.change("cancelTask { userErrors { code } }", id=gid(deep))
    assert await stored(world.database, asked) == [2]


async def test_a_cancelled_subtask_no_longer_holds_its_parent_and_a_failed_one_does(
    world: World,
) -> None:
    (parent,) = await make_tasks(world, "parent", unmet_dependency_count=1)
    (below,) = await make_tasks(world, "below", parent_task_id=parent.id)

    await move(world, below, "FAILED")
    assert await state(world, parent) == [("PENDING", 1)]
    await world.owner.change("cancelTask { userErrors { code } }", id=gid(below))

    assert await state(world, parent, below) == [("PENDING", 0), ("CANCELLED", 0)]


async def test_a_retried_task_may_be_attempted_again_at_once(world: World) -> None:
    (task,) = await make_tasks(
        world,
        "a",
        status=TaskStatus.FAILED,
        attempt_count=3,
        error={"why": "tired"},
        available_at=factories.minutes(60 * 24 * 365 * 100),
        agent_id=world.ada.id,
    )
    async with world.database.write(ADMIN) as session:
        for number, status in enumerate(("FAILED", "RELEASED", "LEASE_LOST"), 1):
            await factories.make_attempt(
                session, task, number, agent_id=world.ada.id, status=db.AttemptStatus(status)
            )
    fields = "status attemptCount maxAttempts error version agent { name }"

    payload = await world.owner.change(
        f"retryTask {{ task {{ {fields} }} userErrors {{ code }} }}", id=gid(task), attempts=2
    )

    shown = {"attemptCount": 3, "maxAttempts": 4, "status": "PENDING", "error": None, "version": 2}
    assert payload == {"task": shown | {"agent": None}, "userErrors": []}
    assert await stored(
        world.database, "SELECT available_at <= now() FROM tasks WHERE title='a'"
    ) == [True]


@pytest.mark.parametrize("status", ["PENDING", "IN_PROGRESS", "COMPLETED"])
async def test_only_what_ended_without_success_is_retried(world: World, status: str) -> None:
    (task,) = await make_tasks(world, "a", status=TaskStatus(status))

    payload = await world.owner.change(
        "retryTask { userErrors { code path ... on IllegalTransition { current } } }", id=gid(task)
    )

    error = {"code": "ILLEGAL_TRANSITION", "path": ["id"], "current": status}
    assert payload == {"userErrors": [error]}


async def test_of_moves_at_once_one_is_done_and_all_is_counted(world: World) -> None:
    for _ in range(50):
        a, b, after = await make_tasks(world, "a", "b", "after")
        async with world.database.write(ADMIN) as session:
            for task in (a, b):
                await factories.make_dependency(session, after, task, on_failure=OnFailure.SKIP)
            await db.dependencies.recount(session, [after.id])

        payloads = await asyncio.gather(
            move(world, a, "COMPLETED"),
            move(world, a, "FAILED"),
            move(world, b, "COMPLETED"),
        )

        errors = [payload["userErrors"] for payload in payloads]
        (first, _), (second, _), (third, count) = await state(world, a, b, after)
        assert errors[2] == []
        assert second == "COMPLETED"
        if not errors[0] and not errors[1]:  # it failed first, and was completed after all
            assert first == "COMPLETED"
        else:
            assert sorted(map(len, errors)) == [0, 0, 1]
        assert (third, count) == (("PENDING", 0) if first == "COMPLETED" else ("SKIPPED", 1))


async def miscounted(world: World) -> list[Any]:
    """The tasks that wait for another number of tasks than they say, counted one by one."""
    return await stored(
        world.database,
        """
        SELECT t.title, t.unmet_dependency_count, n.number FROM tasks t, LATERAL (
          WITH RECURSIVE above AS (
            SELECT t.id UNION
            SELECT p.parent_task_id FROM above JOIN tasks p ON p.id = above.id
            WHERE p.parent_task_id IS NOT NULL
          ), awaited AS (
            SELECT d.id FROM above JOIN task_dependencies e ON e.dependent_id = above.id
            JOIN tasks d ON d.id = e.dependency_id
            WHERE d.status <> 'COMPLETED' AND NOT (
              e.on_failure = 'IGNORE' AND d.status IN ('FAILED', 'CANCELLED', 'SKIPPED')
            )
            UNION SELECT s.id FROM tasks s WHERE s.parent_task_id = t.id
              AND s.status NOT IN ('COMPLETED', 'CANCELLED', 'SKIPPED')
          )
          SELECT count(*) AS number FROM awaited
        ) n WHERE n.number <> t.unmet_dependency_count
        """,
    )


async def test_a_task_is_cancelled_while_its_agent_completes_it(world: World) -> None:
    endings = set()
    for _ in range(50):
        async with world.database.write(ADMIN) as session:
            attempt = await factories.make_claimed(session, world.ada)
            done = await session.get_one(db.Task, attempt.task_id)
        (after,) = await make_tasks(world, "after")
        await connect(world, (after, done, "SKIP"))

        cancelled, completed = await asyncio.gather(
            world.owner.change("cancelTask { userErrors { code } }", id=gid(done)),
            world.agent.change("completeTask { userErrors { code } }", attemptId=gid(attempt)),
        )

        assert completed == {"userErrors": []}
        endings.add(str(cancelled["userErrors"]))
        assert cancelled["userErrors"] in ([], [{"code": "ILLEGAL_TRANSITION"}])
        assert await state(world, done, after) == [("COMPLETED", 0), ("PENDING", 0)]
        query = "SELECT cancel_requested FROM tasks WHERE id = :id"
        assert await stored(world.database, query, id=done.id) == [False]
    assert await miscounted(world) == []


async def test_a_plan_is_moved_about_while_it_is_worked_off(world: World) -> None:
    """Tasks get other parents and dependencies, fail, and are deleted, at the same time."""
    for number in range(50):
        left, right = await make_tasks(world, "left", "right")
        (moved,) = await make_tasks(world, "moved", parent_task_id=left.id)
        first, last = await make_tasks(world, "first", "last")
        await connect(world, (left, first, "SKIP"), (last, moved, "HOLD"), (right, moved, "IGNORE"))
        change = world.owner.change
        errors = "{ userErrors { code } }"
        edge = {"dependentId": gid(last), "dependencyId": gid(first)}
        end = ("COMPLETED", "FAILED", "CANCELLED")[number % 3]

        payloads = await asyncio.gather(
            change(f"updateTask {errors}", id=gid(moved), parentTaskId=gid(last)),
            change(f"updateTask {errors}", id=gid(moved), parentTaskId=gid(right)),
            change(f"addTaskDependency {errors}", **edge, onFailure="HOLD"),
            move(world, first, end),
            change(f"deleteTask {errors}", id=gid(left)),
            move(world, moved, "COMPLETED"),
        )

        codes = [each["code"] for payload in payloads for each in payload["userErrors"]]
        assert set(codes) <= {"CYCLE_DETECTED", "NOT_FOUND", "ILLEGAL_TRANSITION"}
        assert await miscounted(world) == []


async def test_what_is_skipped_and_reopened_again_and_again_is_counted(world: World) -> None:
    """A parent, whose subtasks depend on each other, fails and is retried with all that follows."""
    root, parent, after = await make_tasks(world, "root", "parent", "after")
    one, two = await make_tasks(world, "one", "two", parent_task_id=parent.id)
    await connect(
        world,
        (parent, root, "SKIP"),
        (two, one, "SKIP"),
        (after, parent, "SKIP"),
        (after, one, "SKIP"),
    )
    tasks = (root, parent, one, two, after)
    skipped = [("FAILED", 0), ("SKIPPED", 1), ("SKIPPED", 1), ("SKIPPED", 2), ("SKIPPED", 2)]
    before = await state(world, *tasks)
    for _ in range(2):
        await move(world, root, "FAILED")
        assert await state(world, *tasks) == skipped
        await world.owner.change("retryTask { userErrors { code } }", id=gid(root))
        assert await state(world, *tasks) == before
    await move(world, one, "FAILED")
    assert (await state(world, two, after))[0][0] == "SKIPPED"
    assert (await state(world, two, after))[1][0] == "SKIPPED"
    await move(world, one, "COMPLETED")
    found = await state(world, *tasks)
    assert [status for status, _ in found] == [
        "PENDING",
        "PENDING",
        "COMPLETED",
        "PENDING",
        "PENDING",
    ]
    assert await miscounted(world) == []


STATS = """query($id: ID!) { projectStats(projectId: $id) {
  total pending assigned inProgress blocked completed failed cancelled skipped waiting ready
  blockedOnPeople completedLastHour completedLastDay completedLastWeek oldestReadySeconds
} }"""


async def test_the_numbers_of_a_project(world: World, resolvers: People) -> None:
    await make_tasks(world, "later", available_at=factories.minutes(60 * 24 * 365 * 100))
    blocked: dict[str, Any] = {"status": TaskStatus.BLOCKED}
    await make_tasks(world, "asked", blocked_reason=BlockedReason.HUMAN_INPUT, **blocked)
    await make_tasks(world, "held", blocked_reason=BlockedReason.MANUAL, **blocked)
    done = await make_tasks(world, "1", "2", "3", "4", status=TaskStatus.COMPLETED)
    async with world.database.write(ADMIN) as session:
        for task, ago in zip(done, ("1 minute", "2 hours", "2 days", "8 days"), strict=True):
            statement = f"UPDATE tasks SET completed_at = now() - interval '{ago}' WHERE id = :id"
            await session.execute(text(statement), {"id": task.id})
        await session.execute(
            text("UPDATE tasks SET available_at = now() - interval '1 hour' WHERE title = 'Free'")
        )

    answer = await world.owner.ask(STATS, id=gid(world.project))
    resolved = await resolvers.owner.ask(STATS, id=gid(world.project))

    numbers = answer.data["projectStats"]
    assert 3600 <= numbers.pop("oldestReadySeconds") < 3700
    assert numbers == {
        "total": 10,
        "pending": 4,
        "assigned": 0,
        "inProgress": 0,
        "blocked": 2,
        "completed": 4,
        "failed": 0,
        "cancelled": 0,
        "skipped": 0,
        "waiting": 2,
        "ready": 1,
        "blockedOnPeople": 1,
        "completedLastHour": 1,
        "completedLastDay": 2,
        "completedLastWeek": 3,
    }
    assert len(answer.statements) == len(resolved.statements) == 1
    assert resolved.data["projectStats"].items() >= numbers.items()


async def test_the_oldest_task_may_be_available_since_the_year_1(
    world: World, resolvers: People
) -> None:
    query = "query($id: ID!) { projectStats(projectId: $id) { oldestReadySeconds } }"
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE tasks SET status = 'COMPLETED'"))
    for age in (None, 2_000_000_000):
        for people in (world.people, resolvers):
            answer = await people.owner.ask(query, id=gid(world.project))

            assert answer.data == {"projectStats": {"oldestReadySeconds": age}}
        await make_tasks(world, "old", available_at=datetime(1, 1, 1, 12, tzinfo=UTC))


async def test_the_numbers_of_a_project_are_for_those_who_see_it(world: World) -> None:
    for client in (world.owner, world.people.stranger):
        answer = await client.ask(STATS, id=gid(world.elsewhere))
        is_seen = client is world.people.stranger
        assert (answer.data["projectStats"] is not None) == is_seen
    empty = await world.people.admin.ask(STATS, id=str(db.new_id()))
    assert empty.data == {"projectStats": None}
