"""The dependency graph: cycles are refused, and tasks count what they still wait for.

A task waits for its dependencies, for its subtasks, and for the dependencies of its ancestors.
This graph must have no cycle.

A transaction that adds or removes an edge, gives a task another parent, ends a task or reopens one
locks the project's row. Otherwise two transactions would each count without the changes of the
other. After a task has ended, it calls `complete` or `ended_unsuccessfully`.

When a task fails, or is cancelled or skipped, each edge acts by its `on_failure`, at this moment:
SKIP skips the dependent task, with its subtasks, if no attempt is running on them and they have not
ended. HOLD leaves it waiting, IGNORE counts as met. Subtasks of a task that failed are not skipped,
as they do not wait for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    FromClause,
    SelectBase,
    Uuid,
    and_,
    false,
    func,
    literal_column,
    or_,
    select,
    true,
    union,
    union_all,
    update,
)
from sqlalchemy.orm import aliased, join

from db.base import Base, any_of
from db.errors import CycleDetected, DomainError, Invalid, NotFound, Rejected
from db.interactions import HumanInteraction, InteractionStatus
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import UNSUCCESSFUL, WAITING, OnFailure, Task, TaskDependency, TaskStatus
from db.writes import project_id_of

Key = TypeVar("Key")

SUBTASK_ENDED = (TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.SKIPPED)
"""The statuses in which the parent no longer waits for a subtask. It waits for a failed one."""


def find_cycle(
    parents: Mapping[Key, Key | None], dependencies: Mapping[Key, Collection[Key]]
) -> list[Key] | None:
    """Tasks of a cycle, each of which waits for the next; None if there is no cycle.

    Depth-first search over pairs (task, is_ancestor). A task leads to its dependencies, its
    subtasks and its parent; a parent that was reached from below leads to its dependencies and its
    own parent, but not to its other subtasks. Linear in tasks and edges, and not recursive, because
    plans can be deep.
    """
    subtasks: dict[Key, list[Key]] = {}
    for task, parent in parents.items():
        if parent is not None:
            subtasks.setdefault(parent, []).append(task)

    def following(task: Key, is_ancestor: bool) -> Iterable[tuple[Key, bool]]:
        for dependency in dependencies.get(task, ()):
            yield dependency, False
        if not is_ancestor:
            for subtask in subtasks.get(task, ()):
                yield subtask, False
        parent = parents.get(task)
        if parent is not None:
            yield parent, True

    done: set[tuple[Key, bool]] = set()
    for root in parents:
        if (root, False) in done:
            continue
        path = [(root, False)]
        on_path = {path[0]: 0}
        ahead = [iter(following(*path[0]))]
        while path:
            step = next(ahead[-1], None)
            if step is None:
                done.add(path[-1])
                del on_path[path.pop()]
                ahead.pop()
            elif step in on_path:
                cycle = path[on_path[step] :]
                # In a cycle of parents all are ancestors; there, each parent waits for its subtask.
                return [task for task, is_ancestor in cycle if not is_ancestor] or [
                    task for task, _ in reversed(cycle)
                ]
            elif step not in done:
                on_path[step] = len(path)
                path.append(step)
                ahead.append(iter(following(*step)))
    return None


def waits_for(
    parents: Mapping[Key, Key | None], dependencies: Mapping[Key, Collection[Key]]
) -> list[int]:
    """For how many others each of these tasks waits, if they have no cycle and none has ended."""
    subtasks: dict[Key, set[Key]] = {}
    for task, parent in parents.items():
        if parent is not None:
            subtasks.setdefault(parent, set()).add(task)
    # The dependencies of each task and of its ancestors.
    awaited: dict[Key | None, frozenset[Key]] = {None: frozenset()}
    for task in parents:
        lineage: list[Key] = []
        above: Key | None = task
        while above is not None and above not in awaited:
            lineage.append(above)
            above = parents[above]
        for below in reversed(lineage):
            inherited, own = awaited[parents[below]], dependencies.get(below)
            awaited[below] = inherited.union(own) if own else inherited
    return [len(awaited[task] | subtasks.get(task, set())) for task in parents]


def each_row(found: SelectBase, name: str) -> FromClause:
    """A subquery that is run for each row before it in FROM.

    PostgreSQL overestimates how many rows a recursive query has. Without OFFSET it would join them
    with all stored rows, instead of looking up each by an index.
    """
    limited: Any = found
    return limited.offset(literal_column("0")).lateral(name)  # type: ignore[no-any-return]


@Statement
def _reachable(viewer: Viewer) -> Executable:
    """What some tasks lead to: tasks, each with its parent and with each of its dependencies."""
    start = select(
        func.unnest(value("tasks", ARRAY(Uuid))).label("id"), false().label("is_ancestor")
    )
    reached = start.cte("reached", recursive=True)
    task = aliased(Task)
    step = union_all(
        select(TaskDependency.dependency_id, false()).where(
            TaskDependency.dependent_id == reached.c.id
        ),
        select(task.id, false()).where(task.parent_task_id == reached.c.id, ~reached.c.is_ancestor),
        select(task.parent_task_id, true()).where(
            task.id == reached.c.id, task.parent_task_id.is_not(None)
        ),
    ).lateral("step")
    # UNION, not UNION ALL: each pair is followed once, so the search ends in a cycle too.
    reached = reached.union(select(*step.c).select_from(reached.join(step, true())))
    found = select(reached.c.id).distinct().subquery("found")
    row = each_row(select(Task.parent_task_id).where(Task.id == found.c.id), "row")
    edge = each_row(
        select(TaskDependency.dependency_id).where(TaskDependency.dependent_id == found.c.id),
        "edge",
    )
    rows = found.join(row, true()).outerjoin(edge, true())
    return select(found.c.id, row.c.parent_task_id, edge.c.dependency_id).select_from(rows)


async def refuse_cycle(session: WriteSession, through: Collection[UUID], path: Any = ()) -> None:
    """Raise CycleDetected if one of these tasks, already flushed, is part of a cycle.

    The caller of a new edge passes the task that is waited for: every new cycle contains it. The
    caller holds the lock on the project's row; otherwise two transactions could each add an edge
    of one cycle.
    """
    parents: dict[UUID, UUID | None] = {}
    dependencies: dict[UUID, list[UUID]] = {}
    for task, parent, dependency in await session.run(_reachable, tasks=list(through)):
        parents[task] = parent
        if dependency is not None:
            dependencies.setdefault(task, []).append(dependency)
    cycle = find_cycle(parents, dependencies)
    if cycle is not None:
        raise CycleDetected(cycle, path)


def is_met(dependency: Any, edge: Any) -> ColumnElement[bool]:
    """Whether a dependent task no longer waits for its dependency over an edge."""
    is_ignored = and_(edge.on_failure == OnFailure.IGNORE, any_of(dependency.status, UNSUCCESSFUL))
    return or_(dependency.status == TaskStatus.COMPLETED, is_ignored)


def holds_parent(subtask: Any) -> ColumnElement[bool]:
    """Whether the parent waits for a subtask."""
    return ~any_of(subtask.status, SUBTASK_ENDED)


async def recount(session: WriteSession, tasks: Collection[UUID]) -> None:
    """Recompute `unmet_dependency_count` of these tasks, their parents and their descendants.

    The caller holds the lock on the project's row: two transactions that count at once would not
    see each other's changes.
    """
    if tasks:
        await session.run(_counted, False, tasks=list(tasks))


async def recount_waiting(session: WriteSession, tasks: Collection[UUID]) -> None:
    """Recompute the counts of all that wait for these tasks: of dependents, with their descendants,
    and of parents. The caller holds the lock on the project's row.
    """
    if tasks:
        await session.run(_counted, True, tasks=list(tasks))


@Statement
def _counted(viewer: Viewer, is_waiting: bool) -> Executable:
    """The statement of `recount`, and of `recount_waiting` if `is_waiting`."""
    tasks = func.any(value("tasks", ARRAY(Uuid)))
    first = select(Task.id).where(Task.id == tasks)
    if is_waiting:
        edge = TaskDependency.dependency_id == tasks
        first = select(TaskDependency.dependent_id.label("id")).where(edge)
    affected = first.cte("affected", recursive=True)
    child = each_row(select(Task.id).where(Task.parent_task_id == affected.c.id), "child")
    affected = affected.union(select(child.c.id).select_from(affected.join(child, true())))
    counted = union(
        select(affected.c.id),
        select(Task.parent_task_id).where(Task.id == tasks, Task.parent_task_id.is_not(None)),
    ).cte("counted")

    # lineage: each counted task with itself and each of its ancestors
    lineage = select(counted.c.id.label("task"), counted.c.id.label("above")).cte(
        "lineage", recursive=True
    )
    parent = each_row(
        select(Task.parent_task_id.label("id")).where(
            Task.id == lineage.c.above, Task.parent_task_id.is_not(None)
        ),
        "parent",
    )
    lineage = lineage.union(
        select(lineage.c.task, parent.c.id).select_from(lineage.join(parent, true()))
    )
    dependency = each_row(
        select(Task.id)
        .join(TaskDependency, TaskDependency.dependency_id == Task.id)
        .where(TaskDependency.dependent_id == lineage.c.above, ~is_met(Task, TaskDependency)),
        "dependency",
    )
    subtask = each_row(
        select(Task.id).where(Task.parent_task_id == counted.c.id, holds_parent(Task)),
        "subtask",
    )
    unmet = union(
        select(lineage.c.task, dependency.c.id.label("awaited")).select_from(
            lineage.join(dependency, true())
        ),
        select(counted.c.id, subtask.c.id).select_from(counted.join(subtask, true())),
    ).subquery("unmet")
    count = (
        select(counted.c.id, func.count(unmet.c.awaited).label("number"))
        .join_from(counted, unmet, unmet.c.task == counted.c.id, isouter=True)
        .group_by(counted.c.id)
        .cte("count")
    )
    # The array, too, keeps PostgreSQL from joining with all stored tasks.
    ids = func.array(select(count.c.id).scalar_subquery())
    return (
        update(Task)
        .where(Task.id == func.any(ids), Task.id == count.c.id)
        .where(Task.unmet_dependency_count != count.c.number)
        # This is not an edit: neither the version nor the time of the last change changes.
        .values(unmet_dependency_count=count.c.number, updated_at=Task.updated_at)
    )


async def complete(session: WriteSession, task_id: UUID, result: Any) -> None:
    """Complete a task that has not ended, with its result. The caller has locked it, as below."""
    await session.run(_completed, task_id=task_id, result=result)


@Statement
def _completed(viewer: Viewer) -> Executable:
    return select(completing(value("task_id", Uuid), value("result", Task.result.type)))


def completing(task_id: ColumnElement[Any], result: ColumnElement[Any]) -> ColumnElement[Any]:
    """The expression that completes a task that has not ended, and counts down what waits for it.

    All that waits for the task has counted it: what had ended otherwise takes `recount_waiting`.
    The caller holds the locks on the rows of the project and the task. It is a function of the
    database, so that it sees what was committed while its statement waited for them, and one
    statement, so that the log is written once.
    """
    return func.complete_task(task_id, result)


def completing_all(task_ids: ColumnElement[Any], results: ColumnElement[Any]) -> ColumnElement[Any]:
    """The same for several tasks, given by an array, with an array of their results."""
    return func.complete_tasks(task_ids, results)


async def ended_unsuccessfully(session: WriteSession, tasks: Collection[UUID]) -> list[UUID]:
    """Let the edges of tasks act that this transaction has made FAILED, CANCELLED or SKIPPED.

    Dependent tasks over edges with SKIP are skipped, with their subtasks and with what depends on
    them in the same way; all other counts are made anew. Returns the ids of what was skipped. The
    caller holds the lock on the project's row.
    """
    skipped = [id for (id,) in await session.run(_skipped, tasks=list(tasks))]
    await withdraw_requests(session, [*tasks, *skipped])
    await recount_waiting(session, [*tasks, *skipped])
    return skipped


async def withdraw_requests(session: WriteSession, tasks: Collection[UUID]) -> None:
    """Cancel the requests that block tasks, which go on or have ended without the answers.

    Otherwise an answer, or the lack of one, would later act on tasks that do not wait for it.
    """
    await session.run(_withdrawn, tasks=list(tasks))


@Statement
def _withdrawn(viewer: Viewer) -> Executable:
    """Cancels the pending requests that block some tasks."""
    return (
        update(HumanInteraction)
        .where(
            HumanInteraction.task_id == func.any(value("tasks", ARRAY(Uuid))),
            HumanInteraction.blocks_task,
            HumanInteraction.status == InteractionStatus.PENDING,
        )
        .values(status=InteractionStatus.CANCELLED)
    )


@Statement
def _skipped(viewer: Viewer) -> Executable:
    """Skips what depends on some tasks over edges with SKIP, directly or not."""
    tasks = value("tasks", ARRAY(Uuid))
    start = select(func.unnest(tasks).label("id"), false().label("is_skipped"))
    ended = start.cte("ended", recursive=True)
    dependent, subtask = aliased(Task), aliased(Task)
    row = each_row(
        select(dependent.id).where(
            dependent.id == TaskDependency.dependent_id, any_of(dependent.status, WAITING)
        ),
        "dependent",
    )
    step = union_all(
        select(row.c.id)
        .select_from(join(TaskDependency, row, true()))
        .where(
            TaskDependency.dependency_id == ended.c.id,
            TaskDependency.on_failure == OnFailure.SKIP,
        ),
        # The subtasks of a skipped task wait for what it has waited for.
        select(subtask.id).where(
            subtask.parent_task_id == ended.c.id,
            ended.c.is_skipped,
            any_of(subtask.status, WAITING),
        ),
    ).lateral("step")
    ended = ended.union(select(step.c.id, true()).select_from(ended.join(step, true())))
    ids = func.array(select(ended.c.id).where(ended.c.is_skipped).scalar_subquery())
    return (
        update(Task)
        .where(Task.id == func.any(ids))
        .values(status=TaskStatus.SKIPPED, blocked_reason=None, version=Task.version + 1)
        .returning(Task.id)
    )


@Statement
def _locked(viewer: Viewer, model: Any, right: Right) -> Executable:
    """Locks the project of a row on which the viewer has the right."""
    row = aliased(model)
    mine = and_(row.id == value("id", Uuid), scope(row, viewer, right))
    project_id = select(project_id_of(row)).where(mine).scalar_subquery()
    return select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)


async def lock(session: WriteSession, id: UUID, of: type[Base] = Task) -> None:
    """Lock the project of a row, so that those who change its graph, or delete, do so in turns.

    Only if the viewer has the right of the transaction on it: otherwise the wait would reveal that
    it exists. It is called before tasks are locked, so that there are no deadlocks.
    """
    await session.run(_locked, of, session.right, id=id)


async def lock_ends(
    session: WriteSession, dependent_id: UUID, dependency_id: UUID
) -> tuple[Task, Task]:
    """Lock the two tasks of a dependency, after their project, and return them.

    Raises Rejected with a NotFound for each that the viewer does not see, and Denied.
    """
    await lock(session, dependent_id)
    tasks: list[Task] = []
    errors: list[DomainError] = []
    for name, id in (("dependent_id", dependent_id), ("dependency_id", dependency_id)):
        try:
            tasks.append(await session.fetch(Task, id, at=(name,)))
        except NotFound as error:
            errors.append(error)
    if errors:
        raise Rejected(errors)
    dependent, dependency = tasks
    return dependent, dependency


async def add_dependency(
    session: WriteSession, dependent: Task, dependency: Task, on_failure: OnFailure
) -> None:
    """Let one task wait for another of its project, or change `on_failure` of the edge.

    The caller has locked the project, so that no other edge is added at the same time, and the
    dependency, so that its status does not change. Raises CycleDetected and Invalid.
    """
    if dependent.project_id != dependency.project_id:
        raise Invalid("A task can wait only for tasks of its own project.", ("dependency_id",))
    if dependent.id == dependency.id:
        raise CycleDetected([dependent.id], ("dependency_id",))
    edge = await session.get(TaskDependency, (dependent.id, dependency.id))
    if edge is None:
        session.add(
            TaskDependency(
                dependent_id=dependent.id, dependency_id=dependency.id, on_failure=on_failure
            )
        )
        await session.flush()
        await refuse_cycle(session, [dependency.id], ("dependency_id",))
    else:
        edge.on_failure = on_failure
        await session.flush()
    await recount(session, [dependent.id])


async def remove_dependency(session: WriteSession, dependent: Task, dependency: Task) -> None:
    """Remove a dependency of a task. The caller holds the same locks. Raises Invalid."""
    edge = await session.get(TaskDependency, (dependent.id, dependency.id))
    if edge is None:
        raise Invalid("The task does not depend on the other task.", ("dependency_id",))
    await session.delete(edge)
    await session.flush()
    await recount(session, [dependent.id])


async def delete_task(session: WriteSession, task: Task) -> None:
    """Delete a task with its descendants, and recount the tasks that waited for them."""
    child = aliased(Task)
    deleted = select(Task.id.label("id")).where(Task.id == task.id).cte("deleted", recursive=True)
    deleted = deleted.union(select(child.id).where(child.parent_task_id == deleted.c.id))
    ids = select(deleted.c.id)
    waiting = await session.scalars(
        select(TaskDependency.dependent_id).where(
            TaskDependency.dependency_id.in_(ids), TaskDependency.dependent_id.not_in(ids)
        )
    )
    affected_tasks = {*waiting, task.parent_task_id} - {None}
    # In the order in which calls of AI models are recorded for them, and lock them.
    in_order = select(Task.id).where(Task.id.in_(ids)).order_by(Task.id)
    await session.execute(in_order.with_for_update())
    await task.delete(session)
    await recount(session, list(affected_tasks))
