"""What waits for what: cycles are refused, and every task knows how many it still waits for.

A task waits for its dependencies, for its subtasks, and for the dependencies of every task above
it. The three together are the graph that must have no cycle.

Whoever adds or removes an edge, moves a task below another, or changes a task's status holds the
lock on the project's row: only so does everybody who counts see what the others changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Update,
    Uuid,
    and_,
    bindparam,
    exists,
    false,
    func,
    or_,
    select,
    true,
    union,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from db.errors import CycleDetected, Invalid
from db.projects import Project
from db.rights import Right
from db.scopes import scope
from db.sessions import WriteSession
from db.tasks import OnFailure, Task, TaskDependency, TaskStatus

Key = TypeVar("Key")

CAME_TO_NOTHING = (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED)
"""The ends that a dependency's `on_failure` decides about."""

SUBTASK_IS_OVER = (TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.SKIPPED)
"""A parent waits no more for a subtask that was called off; for one that failed it does."""


def find_cycle(
    parents: Mapping[Key, Key | None], dependencies: Mapping[Key, Collection[Key]]
) -> list[Key] | None:
    """Tasks that wait for each other in a circle, each for the next, or none if there is no circle.

    Depth-first search over the states (task, climbing): a task that waits goes to its
    dependencies, its subtasks and up to its parent; a climbed parent hands down its dependencies
    only, not its other subtasks. Linear in tasks and edges, and without recursion, because plans
    can be deep.
    """
    subtasks: dict[Key, list[Key]] = {}
    for task, parent in parents.items():
        if parent is not None:
            subtasks.setdefault(parent, []).append(task)

    def following(task: Key, climbing: bool) -> Iterable[tuple[Key, bool]]:
        for dependency in dependencies.get(task, ()):
            yield dependency, False
        if not climbing:
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
                circle = path[on_path[step] :]
                # Tasks that are above each other in a circle are only climbed: the upper waits.
                return [task for task, climbing in circle if not climbing] or [
                    task for task, _ in reversed(circle)
                ]
            elif step not in done:
                on_path[step] = len(path)
                path.append(step)
                ahead.append(iter(following(*step)))
    return None


async def refuse_cycle(session: AsyncSession, through: Collection[UUID], path: Any = ()) -> None:
    """Raise CycleDetected if some of these tasks, already flushed, are part of a circle.

    Whoever adds an edge names the tasks it makes others wait for: every new circle passes one of
    them. The caller holds the lock on the project's row, or two edges could be added at once that
    only together close a circle.
    """
    if not through:
        return
    given = bindparam(None, list(through), ARRAY(Uuid), unique=True)
    start = select(func.unnest(given).label("id"), false().label("climbing"))
    reached = start.cte("reached", recursive=True)
    task = aliased(Task)
    step = union_all(
        select(TaskDependency.dependency_id, false()).where(
            TaskDependency.dependent_id == reached.c.id
        ),
        select(task.id, false()).where(task.parent_task_id == reached.c.id, ~reached.c.climbing),
        select(task.parent_task_id, true()).where(
            task.id == reached.c.id, task.parent_task_id.is_not(None)
        ),
    ).lateral("step")
    # UNION, not UNION ALL: a state is followed once, so the search ends on circles too.
    reached = reached.union(select(*step.c).select_from(reached.join(step, true())))

    ids = select(reached.c.id)
    placed = await session.execute(select(Task.id, Task.parent_task_id).where(Task.id.in_(ids)))
    parents: dict[UUID, UUID | None] = dict(iter(placed))
    dependencies: dict[UUID, list[UUID]] = {}
    edges = select(TaskDependency.dependent_id, TaskDependency.dependency_id)
    for dependent, dependency in await session.execute(
        edges.where(TaskDependency.dependent_id.in_(ids))
    ):
        dependencies.setdefault(dependent, []).append(dependency)
    cycle = find_cycle(parents, dependencies)
    if cycle is not None:
        raise CycleDetected(cycle, path)


async def recount(session: AsyncSession, tasks: Collection[UUID]) -> None:
    """Count anew what these tasks, their parents and all tasks below them still wait for.

    The caller holds the lock on the project's row: of two who count the same task at once, each
    would see only what it changed itself, and the later count would be wrong.
    """
    if tasks:
        await session.execute(_counting(), {"tasks": list(tasks)})


@cache
def _counting() -> Update:
    """The statement of `recount`, which takes longer to build than to run."""
    tasks = func.any(bindparam("tasks", type_=ARRAY(Uuid)))
    parent, child = aliased(Task), aliased(Task)
    named = select(Task.id.label("id")).where(Task.id == tasks)
    affected = named.cte("affected", recursive=True)
    affected = affected.union(select(child.id).where(child.parent_task_id == affected.c.id))
    counted = union(
        select(affected.c.id),
        select(parent.id).where(exists().where(Task.parent_task_id == parent.id, Task.id == tasks)),
    ).cte("counted")

    # lineage: each counted task with itself and every task above it
    lineage = select(counted.c.id.label("task"), counted.c.id.label("above")).cte(
        "lineage", recursive=True
    )
    up = aliased(Task)
    lineage = lineage.union(
        select(lineage.c.task, up.parent_task_id).where(
            up.id == lineage.c.above, up.parent_task_id.is_not(None)
        )
    )
    dependency, subtask = aliased(Task), aliased(Task)
    met = or_(
        dependency.status == TaskStatus.COMPLETED,
        and_(TaskDependency.on_failure == OnFailure.IGNORE, dependency.status.in_(CAME_TO_NOTHING)),
    )
    unmet = union(
        select(lineage.c.task, dependency.id.label("awaited"))
        .join_from(lineage, TaskDependency, TaskDependency.dependent_id == lineage.c.above)
        .join(dependency, dependency.id == TaskDependency.dependency_id)
        .where(~met),
        select(counted.c.id, subtask.id)
        .join_from(counted, subtask, subtask.parent_task_id == counted.c.id)
        .where(subtask.status.not_in(SUBTASK_IS_OVER)),
    ).subquery("unmet")
    count = (
        select(counted.c.id, func.count(unmet.c.awaited).label("number"))
        .join_from(counted, unmet, unmet.c.task == counted.c.id, isouter=True)
        .group_by(counted.c.id)
        .subquery("count")
    )
    return (
        update(Task)
        .where(Task.id == count.c.id, Task.unmet_dependency_count != count.c.number)
        # Waiting is not an edit: neither the version nor the time of the last change moves.
        .values(unmet_dependency_count=count.c.number, updated_at=Task.updated_at)
        .execution_options(synchronize_session=False)
    )


async def lock(session: WriteSession, task_id: UUID) -> None:
    """Lock the row of the task's project: who changes what waits for what does so one by one.

    Only for those who may edit the task, or else it could be told from waiting that it exists.

    To be called before the tasks themselves are locked, so that no two writers cross.
    """
    editable = scope(Task, session.viewer, Right.EDIT)
    project_id = select(Task.project_id).where(Task.id == task_id, editable).scalar_subquery()
    row = select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    await session.execute(row)


async def add_dependency(
    session: AsyncSession, dependent: Task, dependency: Task, on_failure: OnFailure
) -> None:
    """Let one task wait for another of its project, or change what happens when that one fails.

    The caller holds the locks: on the project, so that of two edges added at once the second sees
    the first; on the dependency, so that it does not complete unnoticed. Raises CycleDetected and
    Invalid.
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


async def remove_dependency(session: AsyncSession, dependent: Task, dependency: Task) -> None:
    """Let a task wait for another no more. The caller holds the locks. Raises Invalid."""
    edge = await session.get(TaskDependency, (dependent.id, dependency.id))
    if edge is None:
        raise Invalid("The one task does not wait for the other.", ("dependency_id",))
    await session.delete(edge)
    await session.flush()
    await recount(session, [dependent.id])


async def delete_task(session: AsyncSession, task: Task) -> None:
    """Delete a task with all below it. What waited for any of them waits for one less."""
    child = aliased(Task)
    doomed = select(Task.id.label("id")).where(Task.id == task.id).cte("doomed", recursive=True)
    doomed = doomed.union(select(child.id).where(child.parent_task_id == doomed.c.id))
    ids = select(doomed.c.id)
    waiting = await session.scalars(
        select(TaskDependency.dependent_id).where(
            TaskDependency.dependency_id.in_(ids), TaskDependency.dependent_id.not_in(ids)
        )
    )
    relieved = {*waiting, task.parent_task_id} - {None}
    await task.delete(session)
    await recount(session, list(relieved))
