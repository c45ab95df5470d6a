"""Several attempts that end at once, because they have succeeded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Executable,
    Uuid,
    cast,
    delete,
    func,
    literal_column,
    select,
    update,
)

from db import leases
from db.attempts import AttemptStatus, TaskAttempt
from db.claims.endings import CHANGED, Ending, check, note_end
from db.claims.heartbeats import known_attempts, own_attempt, refuse_repeated
from db.dependencies import completing_all
from db.errors import DomainError, Invalid, LeaseLost, NotFound, Rejected
from db.leases import lease
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer
from db.sessions import WriteSession
from db.statements import Statement
from db.tasks import Task
from db.writes import arrays, keys, set_actor, unnested

GIVEN = ("id", "result")


@Statement
def _completed(viewer: Viewer, right: Right) -> Executable:
    """Complete the tasks of attempts that run. Returns the attempts, or nothing if one has ended.

    It locks first all projects and tasks, then the attempts, then the leases.
    """
    given = unnested(TaskAttempt, GIVEN).cte("given")
    known = known_attempts(viewer, right, given)
    # The rows are locked through arrays of their keys, in the order of the keys.
    tasks = (
        select(Task.id)
        .join(Project, Project.id == Task.project_id)
        .where(Task.id == func.any(keys(known.c.task_id)))
        .order_by(Project.id, Task.id)
        .with_for_update(key_share=True, of=[Project, Task])
        .cte("tasks_to_complete")
    )
    locked = select(func.count()).select_from(tasks).scalar_subquery()
    attempts = (
        select(TaskAttempt.id)
        .where(
            locked > literal_column("0"),  # so that the tasks are locked before
            TaskAttempt.id == func.any(keys(known.c.id)),
            TaskAttempt.ended_at.is_(None),
        )
        .order_by(TaskAttempt.id)
        .with_for_update(key_share=True, of=TaskAttempt)
        .cte("attempts_to_end")
    )
    held = (
        select(lease.attempt_id)
        .where(lease.attempt_id == func.any(keys(attempts.c.id)))
        .order_by(lease.attempt_id)
        .with_for_update(of=leases.table)
        .cte("held")
    )
    every, holds = (
        select(func.count()).select_from(each).scalar_subquery() for each in (given, held)
    )
    # Evaluated in this order, as the events of the tasks name the actor.
    follows = (
        set_actor(),
        completing_all(func.array_agg(known.c.task_id), func.array_agg(known.c.result)),
    )
    done = (
        select(func.array_agg(known.c.id).label("ids"), *follows).having(holds == every).cte("done")
    )
    ended = func.any(cast(select(done.c.ids).scalar_subquery(), ARRAY(Uuid)))
    freed = delete(leases.table).where(lease.attempt_id == ended)
    return (
        update(TaskAttempt)
        .where(TaskAttempt.id == ended, TaskAttempt.id == known.c.id)
        .values(
            status=AttemptStatus.SUCCEEDED,
            ended_at=func.statement_timestamp(),
            result=known.c.result,
        )
        .returning(TaskAttempt.id)
        .add_cte(freed.cte("freed"))
    )


async def complete_all(session: WriteSession, results: Sequence[tuple[UUID, Any]]) -> None:
    """Complete the tasks of several attempts, with their results, or none of them.

    Raises Denied, and Rejected with a NotFound or LeaseLost for each that cannot be completed.
    """
    refuse_repeated([id for id, _ in results])
    rows = {id: {"id": id, "result": result} for id, result in results}
    if await _complete_alone(session, list(rows.values())):
        return
    errors: list[DomainError] = []
    for place, (id, result) in enumerate(results):
        path = ("attempts", place, "attempt_id")
        try:
            attempt = await own_attempt(session, id, path)
            if attempt.ended_at is not None:
                await check(session, Ending.COMPLETE, id, path, result=result)
                del rows[id]  # it was completed with the same result before
        except (NotFound, LeaseLost) as error:
            errors.append(error)
    if errors:
        raise Rejected(errors)
    if rows and not await _complete_alone(session, list(rows.values())):
        raise Invalid("Attempts have ended meanwhile. Send it again.", ("attempts",))


async def _complete_alone(session: WriteSession, rows: Sequence[Mapping[str, Any]]) -> bool:
    ids = [row["id"] for row in rows]
    found = await session.alone(
        _completed,
        session.right,
        model=TaskAttempt,
        outcome={"task_attempts": ids},
        changed=CHANGED,
        **arrays(TaskAttempt, GIVEN, rows),
    )
    if found:
        for id in ids:
            note_end(session, id)
    return bool(found)
