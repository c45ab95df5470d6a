"""What waits for what: circles are refused, and every task knows how many it still waits for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar
from uuid import UUID

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

import db
from db import OnFailure, Right, TaskStatus, boards, dependencies, plans
from db.errors import CycleDetected, IllegalTransition, Rejected
from db.statements import Values
from db.tasks import TASK_TRANSITIONS
from tests import factories
from tests.conftest import ADMIN, People
from tests.world import World, gid, make_world, snapshot, stored

NOTHING = {TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED}
OPEN = {TaskStatus.PENDING, TaskStatus.ASSIGNED, TaskStatus.BLOCKED}
SKIP = OnFailure.SKIP
EDGE = (
    "{ task { unmetDependencyCount version dependencies { nodes { onFailure dependency {"
    " title } } } }"
    " userErrors { code path message ... on CycleDetected { cycle { title } } } }"
)

Key = TypeVar("Key")


class Undo(Exception):
    """Ends a transaction without a trace."""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@dataclass
class Naive:
    """The same rules, as slow and simple as they can be written."""

    parents: dict[int, int | None]
    edges: dict[tuple[int, int], OnFailure] = field(default_factory=dict)
    statuses: dict[int, TaskStatus] = field(default_factory=dict)

    def above(self, task: int) -> set[int]:
        """The task, and every task above it."""
        found: set[int] = set()
        at: int | None = task
        while at is not None and at not in found:
            found.add(at)
            at = self.parents[at]
        return found

    def below(self, task: int) -> set[int]:
        """The task, and every task below it."""
        return {other for other in self.parents if task in self.above(other)}

    def awaited(self, task: int) -> set[int]:
        """What a task waits for, whatever became of it."""
        subtasks = {other for other, parent in self.parents.items() if parent == task}
        return subtasks | {to for waits, to in self.edges if waits in self.above(task)}

    def is_circular(self) -> bool:
        """Whether some task waits for itself, however many others are in between."""
        for start in self.parents:
            seen: set[int] = set()
            ahead = self.awaited(start)
            while ahead - seen:
                seen |= ahead
                ahead = {further for task in ahead for further in self.awaited(task)}
            if start in seen:
                return True
        return False

    def is_circle(self, tasks: Sequence[int]) -> bool:
        """Whether each of the tasks waits for the next, and the last for the first."""
        return bool(tasks) and all(
            to in self.awaited(task) for task, to in pairwise([*tasks, tasks[0]])
        )

    def unmet(self, task: int) -> int:
        """How many tasks a task still waits for."""
        waiting = {
            to
            for (waits, to), on_failure in self.edges.items()
            if waits in self.above(task)
            and self.statuses[to] is not TaskStatus.COMPLETED
            and not (on_failure is OnFailure.IGNORE and self.statuses[to] in NOTHING)
        }
        over = (NOTHING - {TaskStatus.FAILED}) | {TaskStatus.COMPLETED}
        return len(
            waiting
            | {
                other
                for other, parent in self.parents.items()
                if parent == task and self.statuses[other] not in over
            }
        )


NUMBERS = st.integers(0, 4)


@given(
    st.lists(st.none() | NUMBERS, min_size=5, max_size=5),
    st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8),
)
@example([1, 2, 1, None, None], [])  # two tasks above each other, and a third below them
@settings(max_examples=300, deadline=None)
def test_a_circle_is_found_exactly_if_there_is_one(
    parents: list[int | None], edges: list[tuple[int, int]]
) -> None:
    naive = Naive(dict(enumerate(parents)), dict.fromkeys(edges, OnFailure.SKIP))
    dependencies_of = {task: [to for by, to in edges if by == task] for task in naive.parents}

    cycle = dependencies.find_cycle(naive.parents, dependencies_of)

    assert (cycle is not None) == naive.is_circular()
    assert cycle is None or naive.is_circle(cycle)
    if cycle is None:
        awaited = [len(naive.awaited(task)) for task in naive.parents]
        assert dependencies.waits_for(naive.parents, dependencies_of) == awaited


def test_a_deep_plan_is_searched_without_recursion() -> None:
    many = 20_000
    parents = {task: task - 1 if task else None for task in range(many)}
    chain = {task: [task + 1] for task in range(many - 1)}

    assert dependencies.find_cycle(parents, {}) is None
    assert dependencies.waits_for(parents, {}) == [1] * (many - 1) + [0]
    assert dependencies.find_cycle(dict.fromkeys(range(many)), chain) is None
    closed = dependencies.find_cycle(dict.fromkeys(range(many)), chain | {many - 1: [0]})
    assert closed is not None
    assert sorted(closed) == list(range(many))


Step = tuple[Any, ...]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), NUMBERS, NUMBERS, st.sampled_from(OnFailure)),
        st.tuples(st.just("add"), NUMBERS, NUMBERS, st.just(OnFailure.SKIP)),
        st.tuples(st.just("remove"), NUMBERS, NUMBERS),
        st.tuples(st.just("move"), NUMBERS, st.none() | NUMBERS),
        st.tuples(st.just("move"), NUMBERS, NUMBERS),
        st.tuples(st.just("become"), NUMBERS, st.sampled_from(TaskStatus)),
        st.tuples(st.just("delete"), NUMBERS),
    ),
    max_size=12,
)


def imagine(naive: Naive, step: Step) -> Naive:
    """The tasks after a step, if nothing forbids it."""
    parents, edges, statuses = dict(naive.parents), dict(naive.edges), dict(naive.statuses)
    match step:
        case ("add", by, to, on_failure):
            edges[by, to] = on_failure
        case ("remove", by, to):
            del edges[by, to]
        case ("move", task, parent):
            parents[task] = parent
        case ("become", task, status):
            statuses[task] = status
        case ("delete", task):
            gone = naive.below(task)
            parents = {key: value for key, value in parents.items() if key not in gone}
            edges = {pair: kind for pair, kind in edges.items() if not gone & {*pair}}
    return Naive(parents, edges, statuses)


async def take(session: db.WriteSession, ids: list[Any], step: Step) -> None:
    """A step in the database."""
    by = await session.fetch(db.Task, ids[step[1]])
    match step:
        case ("add", _, to, on_failure):
            other = await session.fetch(db.Task, ids[to])
            await dependencies.add_dependency(session, by, other, on_failure)
        case ("remove", _, to):
            other = await session.fetch(db.Task, ids[to])
            await dependencies.remove_dependency(session, by, other)
        case ("move", _, parent):
            to = None if parent is None else ids[parent]
            await plans.change_task(session, by.id, {"parent_task_id": to})
        case ("become", _, status):
            await become(session, by.id, status)
        case ("delete", _):
            await dependencies.delete_task(session, by)


async def become(session: db.WriteSession, task: Any, status: TaskStatus) -> None:
    """Give a task a status as a worker's operation would: lock, set, count what waited anew."""
    await session.fetch(db.Task, task)
    held = db.BlockedReason.MANUAL if status is TaskStatus.BLOCKED else None
    values = {"status": status, "blocked_reason": held}
    await session.execute(update(db.Task).where(db.Task.id == task).values(values))
    waiting = select(db.TaskDependency.dependent_id).where(db.TaskDependency.dependency_id == task)
    await dependencies.recount(session, [task, *await session.scalars(waiting)])


@given(STEPS)
@example(
    [("move", 0, 1), ("move", 2, 0), ("add", 1, 3, OnFailure.HOLD), ("add", 3, 2, OnFailure.SKIP)]
)
@example([("move", 1, 0), ("move", 2, 1), ("move", 0, 2), ("delete", 0)])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_is_done_the_counts_are_right_and_circles_refused(
    database: db.Database, steps: list[Step]
) -> None:
    naive = Naive(dict.fromkeys(range(5)), {}, dict.fromkeys(range(5), TaskStatus.PENDING))
    with suppress(Undo):
        async with database.write(ADMIN) as session:
            project = await factories.make_project(session, None)
            tasks = [await factories.make_task(session, project, str(n)) for n in naive.parents]
            ids = [task.id for task in tasks]
            for step in steps:
                named = {part for part in step if type(part) is int}
                known = step[0] != "remove" or step[1:] in naive.edges
                if not named <= naive.parents.keys() or not known:
                    continue
                after = imagine(naive, step)
                if after.is_circular():
                    with pytest.raises(CycleDetected) as refused:
                        async with session.begin_nested():
                            await take(session, ids, step)
                    assert after.is_circle([ids.index(id) for id in refused.value.cycle])
                    session.expire_all()
                else:
                    await take(session, ids, step)
                    naive = after
                query = select(db.Task.title, db.Task.unmet_dependency_count)
                counted = {int(title): count for title, count in await session.execute(query)}
                assert counted == {task: naive.unmet(task) for task in naive.parents}
            raise Undo


@dataclass
class Model(Naive):
    """What becomes of tasks that end and are reopened, as simple as it can be written."""

    requested: set[int] = field(default_factory=set)

    def skip(self, ended: Collection[int]) -> None:
        """Let edges with SKIP act after tasks have ended without success."""
        ahead = {
            by
            for (by, to), on_failure in self.edges.items()
            if to in ended and on_failure is OnFailure.SKIP
        }
        while ahead:
            task = ahead.pop()
            if self.statuses[task] in OPEN:
                self.statuses[task] = TaskStatus.SKIPPED
                ahead |= {other for other, parent in self.parents.items() if parent == task}
                self.skip([task])

    def reopen(self, first: int) -> None:
        """Reopen what nothing but this task keeps from being done."""
        freed = {first}
        more = True
        while more:
            more = False
            for task in self.parents.keys() - freed:
                over = {to for (by, to), kind in self.edges.items() if by == task and kind is SKIP}
                parent = self.parents[task]
                is_led_to = bool(freed & over) or parent in freed
                held = {to for to in over if self.statuses[to] in NOTHING}
                if parent is not None and self.statuses[parent] is TaskStatus.SKIPPED:
                    held.add(parent)
                if self.statuses[task] is TaskStatus.SKIPPED and is_led_to and not held:
                    self.statuses[task] = TaskStatus.PENDING
                    freed.add(task)
                    more = True

    def cancel(self, task: int) -> None:
        """Cancel a task with its subtasks."""
        ended = []
        for other in self.below(task):
            status = self.statuses[other]
            if status in OPEN or (other == task and status is TaskStatus.FAILED):
                self.statuses[other] = TaskStatus.CANCELLED
                ended.append(other)
            elif status is TaskStatus.IN_PROGRESS:
                self.requested.add(other)
        self.skip(ended)

    def move(self, task: int, to: TaskStatus) -> None:
        """Set a status by hand, or as the end of an attempt."""
        before = self.statuses[task]
        if to is TaskStatus.CANCELLED and before is not TaskStatus.IN_PROGRESS:
            self.cancel(task)
            return
        self.statuses[task] = to
        self.requested.discard(task)
        if before in NOTHING and to in (TaskStatus.PENDING, TaskStatus.COMPLETED):
            self.reopen(task)
        elif to in NOTHING:
            self.skip([task])


MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("hand"), NUMBERS, st.sampled_from(TaskStatus)),
        st.tuples(st.just("work"), NUMBERS, st.sampled_from(TaskStatus)),
        st.tuples(st.just("retry"), NUMBERS),
        st.tuples(st.just("cancel"), NUMBERS),
    ),
    max_size=12,
)


async def work(session: db.WriteSession, id: Any, to: TaskStatus) -> None:
    """Begin or end an attempt, as the operations of workers do."""
    task = await session.fetch(db.Task, id)
    if to is TaskStatus.COMPLETED:
        await dependencies.complete(session, id, None)
        return
    await task.update(session, status=to, cancel_requested=False)
    if to in NOTHING:
        await dependencies.ended_unsuccessfully(session, [id])


@given(
    st.lists(st.none() | NUMBERS, min_size=5, max_size=5),
    st.dictionaries(st.tuples(NUMBERS, NUMBERS), st.sampled_from(OnFailure), max_size=8),
    MOVES,
)
@example(
    [None, 0, None, None, None],
    {(0, 2): SKIP, (3, 1): SKIP, (4, 0): OnFailure.IGNORE},
    [("hand", 2, TaskStatus.FAILED), ("retry", 0), ("retry", 2), ("cancel", 0), ("retry", 1)],
)
@example(
    [None] * 5,
    {(0, 1): SKIP, (0, 2): SKIP, (3, 0): SKIP, (4, 2): OnFailure.HOLD},
    [
        ("hand", 1, TaskStatus.FAILED),
        ("work", 2, TaskStatus.IN_PROGRESS),
        ("work", 2, TaskStatus.FAILED),
        ("retry", 1),
        ("hand", 1, TaskStatus.COMPLETED),
        ("hand", 2, TaskStatus.COMPLETED),
    ],
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_whatever_ends_and_is_reopened_the_rest_follows(
    database: db.Database,
    parents: list[int | None],
    edges: dict[tuple[int, int], OnFailure],
    moves: list[Step],
) -> None:
    model = Model(dict.fromkeys(range(5)), {}, dict.fromkeys(range(5), TaskStatus.PENDING))
    for task, parent in enumerate(parents):
        model.parents[task] = parent
        if model.is_circular():
            model.parents[task] = None
    for pair, on_failure in edges.items():
        model.edges[pair] = on_failure
        if model.is_circular():
            del model.edges[pair]
    with suppress(Undo):
        async with database.write(ADMIN) as session:
            project = await factories.make_project(session, None)
            tasks = [await factories.make_task(session, project, str(n)) for n in model.parents]
            ids = [task.id for task in tasks]
            for task, parent in model.parents.items():
                if parent is not None:
                    tasks[task].parent_task_id = ids[parent]
            for (by, to), on_failure in model.edges.items():
                await factories.make_dependency(
                    session, tasks[by], tasks[to], on_failure=on_failure
                )
            await dependencies.recount(session, ids)
            for name, task, *rest in moves:
                before = model.statuses[task]
                try:
                    async with session.begin_nested():
                        match name:
                            case "hand":
                                await boards.transition(session, ids[task], rest[0])
                            case "work":
                                is_running = before is TaskStatus.IN_PROGRESS
                                if not is_running and rest[0] is not TaskStatus.IN_PROGRESS:
                                    continue
                                TASK_TRANSITIONS.check(before, rest[0])
                                if rest[0] in (TaskStatus.ASSIGNED, TaskStatus.BLOCKED):
                                    continue
                                await work(session, ids[task], rest[0])
                            case "retry":
                                await boards.retry(session, ids[task])
                            case _:
                                await boards.cancel(session, ids[task])
                except IllegalTransition:
                    continue
                match name:
                    case "hand" if before is TaskStatus.IN_PROGRESS:
                        model.cancel(task)
                    case "hand" | "work":
                        model.move(task, rest[0])
                    case "retry":
                        model.move(task, TaskStatus.PENDING)
                    case _:
                        model.cancel(task)
                query = select(
                    db.Task.title,
                    db.Task.status,
                    db.Task.cancel_requested,
                    db.Task.unmet_dependency_count,
                )
                assert {int(title): found for title, *found in await session.execute(query)} == {
                    task: [model.statuses[task], task in model.requested, model.unmet(task)]
                    for task in model.parents
                }
            raise Undo


MANY_TASKS = (
    "CREATE FUNCTION pg_temp.id(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS"
    " $$ SELECT lpad(n::text, 32, '0')::uuid $$",
    "INSERT INTO tasks (id, project_id, parent_task_id, title)"
    " SELECT pg_temp.id(n), projects.id, CASE WHEN n > 10 THEN pg_temp.id(n / 10) END, n::text"
    " FROM projects, generate_series(1, 5000) n",
    "INSERT INTO task_dependencies (dependent_id, dependency_id)"
    " SELECT pg_temp.id(n), pg_temp.id(1) FROM generate_series(1001, 5000) n",
    "ANALYZE tasks, task_dependencies",
)


async def test_only_what_a_task_is_connected_with_is_read(database: db.Database) -> None:
    async with database.write(ADMIN) as session:
        await factories.make_project(session, None)
        connection = await session.connection()
        for statement in MANY_TASKS:
            await connection.exec_driver_sql(statement)
        for many in (1, 100):
            tasks = [UUID(f"{number:032}") for number in range(2_000, 2_000 + many)]
            for statement_of, *options in (
                (dependencies._counted, False),
                (dependencies._counted, True),
                (dependencies._skipped,),
                (dependencies._reachable,),
                (boards._skipped_after,),
                (boards._cancelled,),
                (boards._reopened,),
            ):
                found = statement_of.compiled(ADMIN, *options)
                values = {"tasks": tasks, "task": tasks[0]}
                arguments = tuple(found.arguments(Values(ADMIN, values)))
                plan = await connection.exec_driver_sql(f"EXPLAIN {found.sql}", arguments)
                lines = list(plan.scalars())
                # Nearly all edges lead to one task, so all may be read where on_failure counts.
                reads_all = statement_of in (dependencies._skipped, boards._skipped_after)
                scan = "Seq Scan on tasks" if reads_all else "Seq Scan"
                assert not [line for line in lines if scan in line], "\n".join(lines)


async def test_completing_reads_only_what_waits(database: db.Database) -> None:
    """A function does it, so its plans are those that PostgreSQL logs while it runs."""
    async with database.write(ADMIN) as session:
        await factories.make_project(session, None)
        connection = await session.connection()
        for statement in MANY_TASKS:
            await connection.exec_driver_sql(statement)
    found = dependencies._completed.compiled(ADMIN)
    connection = await database.open()
    try:
        logged: list[str] = []
        connection.add_log_listener(lambda _, message: logged.append(str(message)))
        await connection.execute("LOAD 'auto_explain'")
        for name, value in EXPLAINING.items():
            await connection.execute(f"SET {name} = {value}")
        for number in (400, 499):
            logged.clear()
            values = {"task_id": UUID(f"{number:032}"), "result": None}
            await connection.execute(found.sql, *found.arguments(Values(ADMIN, values)))
            (plan,) = [each for each in logged if "UPDATE tasks" in each]
            assert "Scan using ix_tasks_parent_task_id" in plan
            assert "ix_task_dependencies_dependency_id" in plan, plan
            assert "Seq Scan" not in plan, plan
    finally:
        await connection.close()


EXPLAINING = {
    "auto_explain.log_min_duration": "0",
    "auto_explain.log_nested_statements": "on",
    "auto_explain.log_level": "notice",
    "client_min_messages": "notice",
}
"""Makes PostgreSQL send the plan of each statement, also of those in functions."""


async def test_what_became_of_a_task_decides_whether_it_is_waited_for(
    database: db.Database,
) -> None:
    async with database.write(ADMIN) as session:
        project = await factories.make_project(session, None)
        for status in TaskStatus:
            awaited = await factories.make_task(session, project, "Awaited")
            parent = await factories.make_task(session, project, f"{status} parent")
            await plans.change_task(session, awaited.id, {"parent_task_id": parent.id})
            for kind in OnFailure:
                waiting = await factories.make_task(session, project, f"{status} {kind}")
                await dependencies.add_dependency(session, waiting, awaited, kind)
            await become(session, awaited.id, status)

    query = "SELECT title, unmet_dependency_count FROM tasks WHERE title <> 'Awaited'"
    found = dict(await stored(database, query))
    for status in TaskStatus:
        over = status is TaskStatus.COMPLETED
        assert {key: found[f"{status} {key}"] for key in (*OnFailure, "parent")} == {
            "SKIP": 0 if over else 1,
            "HOLD": 0 if over else 1,
            "IGNORE": 0 if over or status in NOTHING else 1,
            "parent": 0 if over or status in NOTHING - {TaskStatus.FAILED} else 1,
        }, status


async def test_an_edge_is_added_changed_and_removed(world: World) -> None:
    edge = {"dependentId": gid(world.parent), "dependencyId": str(world.free.id)}

    added = await world.owner.change(f"addTaskDependency {EDGE}", **edge)
    changed = await world.owner.change(f"addTaskDependency {EDGE}", **edge, onFailure="HOLD")
    removed = await world.owner.change(f"removeTaskDependency {EDGE}", **edge)

    free = {"dependency": {"title": "Free"}}
    shown = {
        "unmetDependencyCount": 2,
        "version": 1,
        "dependencies": {"nodes": [free | {"onFailure": "SKIP"}]},
    }
    assert added == {"task": shown, "userErrors": []}
    assert changed["task"] == shown | {"dependencies": {"nodes": [free | {"onFailure": "HOLD"}]}}
    assert removed["task"] == shown | {"unmetDependencyCount": 1, "dependencies": {"nodes": []}}
    query = "SELECT title FROM tasks JOIN task_dependencies ON dependent_id = id"
    assert await stored(world.database, query) == ["Subtask"]


async def test_both_ends_are_locked_or_all_that_is_wrong_is_said(world: World) -> None:
    viewer = db.Viewer(user_id=world.people.users["owner"].id)
    nothing = db.new_id()
    async with world.database.write(viewer, Right.EDIT) as session:
        ends = await dependencies.lock_ends(session, world.parent.id, world.free.id)
    assert [task.id for task in ends] == [world.parent.id, world.free.id]
    for pair, paths in (
        ((world.foreign.id, nothing), [("dependent_id",), ("dependency_id",)]),
        ((world.parent.id, world.foreign.id), [("dependency_id",)]),
    ):
        with pytest.raises(Rejected) as refused:
            async with world.database.write(viewer, Right.EDIT) as session:
                await dependencies.lock_ends(session, *pair)
        assert [error.path for error in refused.value.errors] == paths


@pytest.mark.parametrize("length", [1, 2, 3, 10])
async def test_a_circle_is_refused_and_shown(world: World, length: int) -> None:
    made = await world.owner.change(
        "createTasks { tasks { id } }",
        projectId=gid(world.project),
        tasks=[
            {
                "title": f"{n}",
                "reference": f"{n}",
                "dependsOn": [{"on": f"{n + 1}"}][: length - n - 1],
            }
            for n in range(length)
        ],
    )
    ids = [task["id"] for task in made["tasks"]]
    before = await snapshot(world.database)

    payload = await world.owner.change(
        f"addTaskDependency {EDGE}", dependentId=ids[-1], dependencyId=ids[0]
    )

    (error,) = payload["userErrors"]
    assert (error["code"], error["path"]) == ("CYCLE_DETECTED", ["dependencyId"])
    words = "This task would wait for itself."
    if length > 1:
        words = f"These {length} tasks would wait for each other in a cycle."
    assert error["message"] == words
    circle = [int(task["title"]) for task in error["cycle"]]
    start = circle.index(0)
    assert circle[start:] + circle[:start] == list(range(length))
    assert await snapshot(world.database) == before


async def test_a_circle_through_subtasks_and_what_they_inherit_is_refused(world: World) -> None:
    titles = {world.parent.id: "Parent", world.subtask.id: "Subtask", world.free.id: "Free"}
    for dependent, dependency, circle in (
        (world.subtask, world.parent, {"Parent", "Subtask"}),  # a part waits for the whole
        (world.parent, world.subtask, {"Subtask"}),  # the whole's dependencies are the part's too
        (world.free, world.parent, {"Parent", "Subtask", "Free"}),
        (world.free, world.subtask, {"Subtask", "Free"}),
    ):
        payload = await world.owner.change(
            f"addTaskDependency {EDGE}", dependentId=gid(dependent), dependencyId=gid(dependency)
        )

        (error,) = payload["userErrors"]
        assert {task["title"] for task in error["cycle"]} == circle, titles[dependent.id]


async def test_an_edge_between_what_cannot_wait_for_each_other_is_refused(world: World) -> None:
    async with world.database.write(ADMIN) as session:
        other = await factories.make_project(session, world.people.users["owner"], "Other")
        task = await factories.make_task(session, other)
    free, parent, theirs = gid(world.free), gid(world.parent), gid(world.foreign)
    unknown = str(db.new_id())
    for mutation, dependent, dependency, expected in (
        ("addTaskDependency", free, gid(task), ("INVALID", "dependencyId")),
        ("addTaskDependency", gid(task), free, ("INVALID", "dependencyId")),
        ("addTaskDependency", free, theirs, ("NOT_FOUND", "dependencyId")),
        ("addTaskDependency", theirs, free, ("NOT_FOUND", "dependentId")),
        ("addTaskDependency", free, unknown, ("NOT_FOUND", "dependencyId")),
        ("addTaskDependency", "x", free, ("INVALID", "dependentId")),
        ("removeTaskDependency", parent, free, ("INVALID", "dependencyId")),
        ("removeTaskDependency", theirs, free, ("NOT_FOUND", "dependentId")),
        ("removeTaskDependency", gid(world.ada), free, ("INVALID", "dependentId")),
    ):
        found = await world.refused(
            world.owner, mutation, dependentId=dependent, dependencyId=dependency
        )
        assert found == [expected], (mutation, dependent, dependency)


async def test_both_ends_of_an_edge_that_lead_nowhere_are_named(world: World) -> None:
    for mutation in ("addTaskDependency", "removeTaskDependency"):
        found = await world.refused(
            world.owner, mutation, dependentId=str(db.new_id()), dependencyId=gid(world.foreign)
        )

        assert found == [("NOT_FOUND", "dependentId"), ("NOT_FOUND", "dependencyId")]
