"""Tasks: made, changed, assigned, moved below each other and deleted, one at a time."""

import time
from typing import Any

import httpx
import pytest
from sqlalchemy import select

import db
from db import TaskStatus
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import People
from tests.oracle import by_members, seen_with
from tests.world import Case, Fault, World, at, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ task { id title description type status priority input availableAt dueAt"
    " estimatedSeconds maxAttempts retryBackoffSeconds metadata version unmetDependencyCount"
    " project { id } parentTask { title } agent { name } createdByUser { username }"
    f" createdByAgent {{ name }} dependencies {{ nodes {{ onFailure dependency {{ title"
    f" }} }} }} }} {ERRORS} }}"
)
BREAKING = {
    "tasks": {
        "priority_1_to_5": ["priority = 0", "priority = 6"],
        "blocked_why": ["status = 'BLOCKED'", "blocked_reason = 'MANUAL'"],
        "not_its_own_parent": ["parent_task_id = id"],
        "unmet_dependency_count_natural": ["unmet_dependency_count = -1"],
        "attempt_count_natural": ["attempt_count = -1"],
        "max_attempts_positive": ["max_attempts = 0"],
        "retry_backoff_seconds_natural": ["retry_backoff_seconds = -1"],
        "estimated_seconds_natural": ["estimated_seconds = -1"],
        "resource_keys_few": [
            "resource_keys = array_fill('x'::text, ARRAY[21])",
            "resource_keys = ARRAY[NULL]",
        ],
    },
    "task_dependencies": {"two_tasks": ["dependency_id = dependent_id"]},
}
SEEN = {
    db.Task: by_members,
    db.TaskDependency: seen_with(db.Task, "dependent_id"),
}
CASES = {
    "createTask": Case(lambda w: {"projectId": gid(w.project), "title": "New"}, at("projectId")),
    "updateTask": Case(lambda w: {"id": gid(w.free), "title": "New"}),
    "addTaskDependency": Case(
        lambda w: {"dependentId": gid(w.parent), "dependencyId": gid(w.free)},
        at("dependentId", "dependencyId"),
    ),
    "removeTaskDependency": Case(
        lambda w: {"dependentId": gid(w.subtask), "dependencyId": gid(w.free)},
        at("dependentId", "dependencyId"),
    ),
    "deleteTask": Case(lambda w: {"id": gid(w.parent)}),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def counts(world: World) -> dict[str, int]:
    """How many tasks each task of the owner's project still waits for."""
    query = "SELECT title, unmet_dependency_count FROM tasks WHERE project_id = :id"
    return dict(await stored(world.database, query, id=world.project.id))


async def test_a_task_is_made_with_what_is_given(world: World) -> None:
    id = db.new_id()

    payload = await world.owner.change(
        f"createTask {WHOLE}",
        id=str(id),
        projectId=gid(world.project),
        parentTaskId=gid(world.parent),
        agentId=gid(world.ada),
        dependsOn=[gid(world.free), str(world.free.id)],
        title="Dig",
        description="A hole.",
        type="DIGGING",
        priority=5,
        input={"depth": [1, None]},
        availableAt="2026-03-01T12:00:00+02:00",
        dueAt="2026-03-02T00:00:00.25Z",
        estimatedSeconds=0,
        maxAttempts=1,
        retryBackoffSeconds=2_000_000_000,
        metadata={"k": "v"},
    )

    assert payload == {
        "task": {
            "id": global_id("Task", id),
            "title": "Dig",
            "description": "A hole.",
            "type": "DIGGING",
            "status": "ASSIGNED",
            "priority": 5,
            "input": {"depth": [1, None]},
            "availableAt": "2026-03-01T10:00:00+00:00",
            "dueAt": "2026-03-02T00:00:00.25+00:00",
            "estimatedSeconds": 0,
            "maxAttempts": 1,
            "retryBackoffSeconds": 2_000_000_000,
            "metadata": {"k": "v"},
            "version": 1,
            "unmetDependencyCount": 1,
            "project": {"id": gid(world.project)},
            "parentTask": {"title": "Parent"},
            "agent": {"name": "Ada"},
            "createdByUser": {"username": "owner"},
            "createdByAgent": None,
            "dependencies": {"nodes": [{"onFailure": "SKIP", "dependency": {"title": "Free"}}]},
        },
        "userErrors": [],
    }
    assert await counts(world) == {"Parent": 2, "Subtask": 1, "Free": 0, "Dig": 1}
    assert await stored(world.database, "SELECT version FROM tasks WHERE title = 'Parent'") == [1]


async def test_a_task_needs_only_a_project_and_a_title(world: World) -> None:
    payload = await world.owner.change(
        "createTask { task { status priority type input dueAt maxAttempts retryBackoffSeconds"
        " metadata unmetDependencyCount agent { id } parentTask { id } } }",
        projectId=str(world.project.id),
        title="Dig",
    )

    assert payload["task"] == {
        "status": "PENDING",
        "priority": 3,
        "type": None,
        "input": None,
        "dueAt": None,
        "maxAttempts": 3,
        "retryBackoffSeconds": 30,
        "metadata": {},
        "unmetDependencyCount": 0,
        "agent": None,
        "parentTask": None,
    }
    query = "SELECT available_at = created_at FROM tasks WHERE title = 'Dig'"
    assert await stored(world.database, query) == [True]


async def test_a_task_that_would_close_a_circle_is_not_made(world: World) -> None:
    before = await snapshot(world.database)

    # Parent waits for Subtask, which waits for Free, which would wait for its subtask Dig.
    payload = await world.owner.change(
        "createTask { task { id } userErrors { code path message ... on CycleDetected {"
        " cycle { title } } } }",
        projectId=gid(world.project),
        title="Dig",
        parentTaskId=gid(world.free),
        dependsOn=[gid(world.parent)],
    )

    (error,) = payload["userErrors"]
    assert payload["task"] is None
    assert (error["code"], error["path"]) == ("CYCLE_DETECTED", [])
    # Dig itself does not exist, so it cannot be shown.
    assert sorted(task["title"] for task in error["cycle"]) == ["Free", "Parent", "Subtask"]
    assert await snapshot(world.database) == before


async def test_what_is_wrong_is_said_while_others_lock_the_project(world: World) -> None:
    """And not that the server is busy, after a wait for the lock."""
    plan = {"projectId": gid(world.project), "tasks": [{"title": ""}]}
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(
            select(db.Project).where(db.Project.id == world.project.id).with_for_update()
        )
        began = time.monotonic()
        found = await world.refused(world.owner, "createTasks", **plan)
        took = time.monotonic() - began
    assert found == [("INVALID", "tasks.0.title")]
    assert took < 5


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    unreadable = await world.refused(
        world.owner,
        "createTask",
        id="x",
        projectId=gid(world.free),
        parentTaskId=gid(world.project),
        agentId="x",
        title="",
        description="x" * 1_000_001,
        type="",
        priority=6,
        estimatedSeconds=-1,
        maxAttempts=0,
        retryBackoffSeconds=2_000_000_001,
        metadata=[],
        dependsOn=[gid(world.free), "x", gid(world.ada)],
    )
    unknown = await world.refused(
        world.owner,
        "createTask",
        projectId=gid(world.project),
        title="Dig",
        parentTaskId=gid(world.foreign),
        agentId=gid(world.bob),
        dependsOn=[gid(world.free), gid(world.foreign), str(db.new_id())],
    )

    paths = (
        "id title description type priority estimatedSeconds maxAttempts retryBackoffSeconds"
        " metadata projectId parentTaskId agentId dependsOn.1 dependsOn.2"
    )
    assert sorted(unreadable) == sorted(("INVALID", path) for path in paths.split())
    paths = "parentTaskId agentId dependsOn.1 dependsOn.2"
    assert unknown == [("NOT_FOUND", path) for path in paths.split()]


async def test_unusable_values_are_refused(world: World) -> None:
    new, old = {"projectId": gid(world.project), "title": "Dig"}, {"id": gid(world.free)}
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("createTask", new | {"id": gid(world.free)}, [("ALREADY_EXISTS", "id")]),
        ("createTask", new | {"id": str(world.foreign.id)}, [("ALREADY_EXISTS", "id")]),
        ("createTask", new | {"projectId": gid(world.elsewhere)}, [("NOT_FOUND", "projectId")]),
        ("createTask", new | {"priority": 0}, [("INVALID", "priority")]),
        ("createTask", new | {"title": "x" * 256}, [("INVALID", "title")]),
        ("createTask", new | {"maxAttempts": 1001}, [("INVALID", "maxAttempts")]),
        ("updateTask", old | {"title": None}, [("INVALID", "title")]),
        ("updateTask", old | {"availableAt": None}, [("INVALID", "availableAt")]),
        (
            "updateTask",
            old | {"priority": 6, "type": ""},
            [("INVALID", "type"), ("INVALID", "priority")],
        ),
        (
            "updateTask",
            old | {"parentTaskId": gid(world.foreign), "agentId": gid(world.bob)},
            [("NOT_FOUND", "agentId"), ("NOT_FOUND", "parentTaskId")],
        ),
        ("updateTask", old | {"expectedVersion": 2}, [("CONFLICT", "expectedVersion")]),
        (
            "updateTask",
            old | {"parentTaskId": gid(world.free)},
            [("CYCLE_DETECTED", "parentTaskId")],
        ),
        ("updateTask", {"id": gid(world.foreign), "title": "Mine"}, [("NOT_FOUND", "id")]),
        ("deleteTask", old | {"expectedVersion": 0}, [("CONFLICT", "expectedVersion")]),
        ("deleteTask", {"id": gid(world.foreign)}, [("NOT_FOUND", "id")]),
    ]
    for mutation, input, expected in cases:
        found = await world.refused(world.owner, mutation, **input)
        assert sorted(found) == sorted(expected), (mutation, input)


async def test_what_is_no_value_of_the_type_is_refused(world: World) -> None:
    new = {"projectId": gid(world.project), "title": "Dig"}
    for bad in (
        {"dueAt": "2026-01-01"},
        {"dueAt": "2026-01-01T00:00:00"},
        {"dueAt": "infinity"},
        {"dueAt": "2026-02-30T00:00:00Z"},
        {"priority": "3"},
        {"estimatedSeconds": 2**31},
        {"dependsOn": None},
        {"status": "COMPLETED"},
    ):
        assert await world.error(world.owner, "createTask", **new, **bad) == "BAD_USER_INPUT", bad


async def test_what_an_update_leaves_out_stays_and_null_clears(world: World) -> None:
    id = gid(world.free)
    await world.owner.change(
        f"updateTask {WHOLE}", id=id, description="All.", type="T", input=[1], estimatedSeconds=9
    )

    changed = await world.owner.change(
        f"updateTask {WHOLE}", id=id, title="Freed", dueAt="2026-01-01T00:00:00Z", priority=1
    )
    cleared = await world.owner.change(
        f"updateTask {WHOLE}",
        id=id,
        description=None,
        type=None,
        input=None,
        estimatedSeconds=None,
        dueAt=None,
    )

    task = changed["task"]
    assert (task["title"], task["priority"], task["dueAt"]) == (
        "Freed",
        1,
        "2026-01-01T00:00:00+00:00",
    )
    assert (task["description"], task["type"], task["input"]) == ("All.", "T", [1])
    assert (task["estimatedSeconds"], task["version"]) == (9, 3)
    empty = ("description", "type", "input", "estimatedSeconds", "dueAt")
    assert cleared["task"] == task | dict.fromkeys(empty) | {"version": 4}
    assert await stored(
        world.database, "SELECT input IS NULL FROM tasks WHERE title = 'Freed'"
    ) == [True]


@pytest.mark.parametrize("assigned", [True, False])
async def test_only_a_task_that_waits_to_be_done_shows_in_its_status_who_has_it(
    world: World, assigned: bool
) -> None:
    shown = {
        TaskStatus.PENDING: TaskStatus.ASSIGNED if assigned else TaskStatus.PENDING,
        TaskStatus.ASSIGNED: TaskStatus.ASSIGNED if assigned else TaskStatus.PENDING,
    }
    for status in TaskStatus:
        held = db.BlockedReason.MANUAL if status is TaskStatus.BLOCKED else None
        async with world.database.write(db.Viewer(is_administrator=True)) as session:
            task = await factories.make_task(
                session,
                world.project,
                status=status,
                blocked_reason=held,
                agent_id=None if assigned else world.ada.id,
            )
        input = {"id": gid(task), "agentId": gid(world.ada) if assigned else None}

        if status is TaskStatus.IN_PROGRESS:
            found = await world.refused(world.owner, "updateTask", **input)
            assert found == [("INVALID", "agentId")]
            continue
        payload = await world.owner.change("updateTask { task { status agent { name } } }", **input)
        assert payload["task"] == {
            "status": shown.get(status, status),
            "agent": {"name": "Ada"} if assigned else None,
        }


async def test_a_task_in_progress_may_be_told_again_who_has_it(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        task = await factories.make_task(
            session, world.project, status=TaskStatus.IN_PROGRESS, agent_id=world.ada.id
        )

    payload = await world.owner.change(
        f"updateTask {WHOLE}", id=gid(task), agentId=gid(world.ada), title="Same"
    )

    assert (payload["task"]["status"], payload["task"]["title"]) == ("IN_PROGRESS", "Same")


async def test_a_task_moves_below_another_and_all_counts_follow(world: World) -> None:
    moved = await world.owner.change(
        f"updateTask {WHOLE}", id=gid(world.subtask), parentTaskId=None
    )
    out = await counts(world)
    back = await world.owner.change(
        f"updateTask {WHOLE}", id=gid(world.parent), parentTaskId=gid(world.subtask)
    )

    assert (moved["task"]["parentTask"], moved["task"]["version"]) == (None, 2)
    assert out == {"Parent": 0, "Subtask": 1, "Free": 0}
    assert back["task"]["parentTask"] == {"title": "Subtask"}
    # Parent inherits that Subtask waits for Free, and Subtask waits for Parent now.
    assert await counts(world) == {"Parent": 1, "Subtask": 2, "Free": 0}


async def test_a_task_does_not_move_below_one_of_its_own_subtasks(world: World) -> None:
    payload = await world.owner.change(
        "updateTask { userErrors { code path message ... on CycleDetected { cycle { title } } } }",
        id=gid(world.parent),
        parentTaskId=gid(world.subtask),
    )

    (error,) = payload["userErrors"]
    assert error["message"] == "These 2 tasks would wait for each other in a cycle."
    assert error["path"] == ["parentTaskId"]
    assert sorted(task["title"] for task in error["cycle"]) == ["Parent", "Subtask"]
    assert await stored(
        world.database, "SELECT title FROM tasks WHERE parent_task_id IS NOT NULL"
    ) == ["Subtask"]


async def test_nothing_of_another_project_is_taken_in_even_if_it_is_ones_own(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        other = await factories.make_project(session, world.people.users["owner"], "Other")
        task = await factories.make_task(session, other)
        agent = await factories.make_agent(session, other)

    found = await world.refused(
        world.owner,
        "updateTask",
        id=gid(world.free),
        parentTaskId=gid(task),
        agentId=gid(agent),
    )

    assert sorted(found) == [("INVALID", "agentId"), ("INVALID", "parentTaskId")]


async def test_a_task_goes_with_its_subtasks_and_what_waited_for_them_waits_less(
    world: World,
) -> None:
    new = {"projectId": gid(world.project)}
    below = await world.owner.change(
        "createTask { task { id } }", **new, title="Below", parentTaskId=gid(world.subtask)
    )
    await world.owner.change(
        "createTask { task { id } }",
        **new,
        title="Later",
        dependsOn=[below["task"]["id"], gid(world.subtask), gid(world.free)],
    )
    before = await counts(world)

    payload = await world.owner.change(
        f"deleteTask {{ deletedId {ERRORS} }}", id=gid(world.subtask), expectedVersion=1
    )

    assert before == {"Parent": 1, "Subtask": 2, "Below": 1, "Free": 0, "Later": 3}
    assert payload == {"deletedId": gid(world.subtask), "userErrors": []}
    assert await counts(world) == {"Parent": 0, "Free": 0, "Later": 1}
    query = "SELECT d.title, e.title FROM task_dependencies JOIN tasks d ON d.id = dependent_id"
    query += " JOIN tasks e ON e.id = dependency_id"
    assert await stored(world.database, query) == [("Later", "Free")]
    assert await stored(world.database, "SELECT DISTINCT version FROM tasks") == [1]
