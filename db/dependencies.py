"""The dependency graph: cycles are refused, and tasks count what they still wait for.

A task waits for its dependencies, for its subtasks, and for the dependencies of its ancestors.
This graph must have no cycle.

A transaction that adds or removes an edge, gives a task another parent, or changes the status of a
task locks the project's row. Otherwise two transactions would each count without the changes of
the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Executable,
    FromClause,
    Select,
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
from sqlalchemy.orm import aliased

from db.base import any_of
from db.errors import CycleDetected, Invalid
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import OnFailure, Task, TaskDependency, TaskStatus

Key = TypeVar("Key")

UNSUCCESSFUL = (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED)
"""The final statuses for which a dependency's `on_failure` applies."""

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


def _each(found: Select[Any], name: str) -> FromClause:
    """A subquery that is run for each row before it in FROM.

    PostgreSQL overestimates how many rows a recursive query has. Without OFFSET it would join them
    with all stored rows, instead of looking up each by an index.
    """
    return found.offset(literal_column("0")).lateral(name)


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
    row = _each(select(Task.parent_task_id).where(Task.id == found.c.id), "row")
    edge = _each(
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


async def recount(session: WriteSession, tasks: Collection[UUID]) -> None:
    """Recompute `unmet_dependency_count` of these tasks, their parents and their descendants.

    The caller holds the lock on the project's row: two transactions that count at once would not
    see each other's changes.
    """
    if tasks:
        await session.run(_counted, tasks=list(tasks))


@Statement
def _counted(viewer: Viewer) -> Executable:
    """The statement of `recount`."""
    tasks = func.any(value("tasks", ARRAY(Uuid)))
    affected = select(Task.id).where(Task.id == tasks).cte("affected", recursive=True)
    child = _each(select(Task.id).where(Task.parent_task_id == affected.c.id), "child")
    affected = affected.union(select(child.c.id).select_from(affected.join(child, true())))
    counted = union(
        select(affected.c.id),
        select(Task.parent_task_id).where(Task.id == tasks, Task.parent_task_id.is_not(None)),
    ).cte("counted")

    # lineage: each counted task with itself and each of its ancestors
    lineage = select(counted.c.id.label("task"), counted.c.id.label("above")).cte(
        "lineage", recursive=True
    )
    parent = _each(
        select(Task.parent_task_id.label("id")).where(
            Task.id == lineage.c.above, Task.parent_task_id.is_not(None)
        ),
        "parent",
    )
    lineage = lineage.union(
        select(lineage.c.task, parent.c.id).select_from(lineage.join(parent, true()))
    )
    met = or_(
        Task.status == TaskStatus.COMPLETED,
        and_(TaskDependency.on_failure == OnFailure.IGNORE, any_of(Task.status, UNSUCCESSFUL)),
    )
    dependency = _each(
        select(Task.id)
        .join(TaskDependency, TaskDependency.dependency_id == Task.id)
        .where(TaskDependency.dependent_id == lineage.c.above, ~met),
        "dependency",
    )
    subtask = _each(
        select(Task.id).where(
            Task.parent_task_id == counted.c.id, ~any_of(Task.status, SUBTASK_ENDED)
        ),
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


@Statement
def _locked(viewer: Viewer) -> Executable:
    """Locks the project of a task that the viewer may edit."""
    editable = scope(Task, viewer, Right.EDIT)
    task_id = value("task_id", Uuid)
    project_id = select(Task.project_id).where(Task.id == task_id, editable).scalar_subquery()
    return select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)


async def lock(session: WriteSession, task_id: UUID) -> None:
    """Lock the row of the task's project, so that changes of its graph happen one by one.

    Only if the viewer may edit the task: otherwise the wait would reveal that the task exists. It
    is called before tasks are locked, so that there are no deadlocks.
    """
    await session.run(_locked, task_id=task_id)


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
    await task.delete(session)
    await recount(session, list(affected_tasks))
