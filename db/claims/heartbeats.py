"""Heartbeats: agents keep their tasks, and report how they go."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    Executable,
    func,
    literal_column,
    select,
    true,
    update,
)
from sqlalchemy.orm import aliased

from db import leases
from db.attempts import TaskAttempt
from db.errors import Denied, DomainError, Invalid, LeaseLost, NotFound, Path, Rejected
from db.leases import lease
from db.rights import Right
from db.scopes import Viewer, acts_for, scope
from db.sessions import WriteSession
from db.statements import Statement
from db.tasks import Task
from db.writes import arrays, keys, set_actor, unnested


async def own_attempt(
    session: WriteSession, attempt_id: UUID, path: Path = ("attempt_id",)
) -> TaskAttempt:
    """An attempt that the viewer may work on. Raises NotFound and Denied."""
    attempt = await session.fetch(TaskAttempt, attempt_id, at=path, lock=False)
    if not session.viewer.acts_for(attempt.agent_id):
        raise Denied("This is the attempt of another agent.", path)
    return attempt


def refuse_repeated(ids: Sequence[UUID]) -> None:
    """Raise Invalid if an attempt is given twice: only one of its rows would count."""
    if len(set(ids)) < len(ids):
        raise Invalid("An attempt is here twice.", ("attempts",))


def known_attempts(viewer: Viewer, right: Right, given: CTE) -> CTE:
    """Those of the given attempts on which the viewer may work, with all that is given of them."""
    row = aliased(TaskAttempt)
    # OFFSET 0: each is looked up by its key, in the order in which it is given.
    found = select(row.id, row.task_id, row.agent_id).where(row.id == given.c.id)
    attempt = aliased(TaskAttempt, found.offset(literal_column("0")).lateral("found"))
    more = (column for column in given.c if column.key != "id")
    return (
        select(attempt.id, attempt.task_id, *more)
        .select_from(given.join(attempt, true()))
        .where(acts_for(viewer, attempt.agent_id), scope(attempt, viewer, right, by_key=True))
        .cte("known")
    )


class Heartbeat(NamedTuple):
    """What an agent reports of an attempt; None leaves what it reported before."""

    attempt_id: UUID
    progress_percent: int | None = None
    status_message: str | None = None
    checkpoint: Any = None


REPORTED = ("checkpoint", "id", "progress_percent", "status_message")

_attempt = TaskAttempt.__table__.c
# The columns that a heartbeat changes, and those that it changes if something is reported.
RENEWED = frozenset(map(str, (lease.expires_at, lease.heartbeat_at)))
NOTED = RENEWED | {
    str(each)
    for each in (
        _attempt.checkpoint,
        _attempt.progress_percent,
        _attempt.status_message,
        _attempt.updated_at,
    )
}


@Statement
def _known(viewer: Viewer, right: Right) -> Executable:
    """Those of the given attempts on which the viewer may work."""
    given = unnested(TaskAttempt, ("id",)).cte("given")
    known = known_attempts(viewer, right, given)
    return select(known.c.id)


def _renewing(viewer: Viewer, right: Right, *, has_reports: bool) -> Executable:
    """Prolong the leases of attempts. Returns those of the viewer's attempts that are not lost.

    Attempts are only written if there is something to report of them.
    """
    given = unnested(TaskAttempt, REPORTED if has_reports else ("id",)).cte("given")
    known = known_attempts(viewer, right, given)
    # No other condition with an index, so that rows are found by their keys.
    ids = keys(known.c.id)
    renewing = [lease.attempt_id == func.any(ids)]
    if has_reports:
        new = {name: known.c[name] for name in REPORTED if name != "id"}
        reported = (
            update(TaskAttempt)
            .where(
                TaskAttempt.id == func.any(ids),
                TaskAttempt.id == known.c.id,
                TaskAttempt.ended_at.is_(None),
                func.num_nonnulls(*new.values()) > 0,
            )
            .values(
                {
                    name: func.coalesce(value, getattr(TaskAttempt, name))
                    for name, value in new.items()
                }
            )
            .returning(TaskAttempt.id, set_actor())
            .cte("reported")
        )
        # Attempts are locked before leases, as everywhere: counting them comes first.
        count = select(func.count()).select_from(reported).scalar_subquery()
        renewing.append(count >= literal_column("0"))
    renewed = (
        update(leases.table)
        .where(*renewing)
        .values(
            expires_at=func.greatest(lease.expires_at, leases.until()),
            heartbeat_at=func.statement_timestamp(),
        )
        .returning(lease.attempt_id)
        .cte("renewed")
    )
    return select(TaskAttempt.id).where(TaskAttempt.id == func.any(keys(renewed.c.attempt_id)))


# Leases are not in the event log, attempts are.
_renewed = Statement(partial(_renewing, has_reports=False), is_logged=False)
_renewed_and_noted = Statement(partial(_renewing, has_reports=True))


async def heartbeat(
    session: WriteSession, beats: Sequence[Heartbeat], seconds: int = leases.DEFAULT_SECONDS
) -> list[UUID]:
    """Prolong the leases of attempts, note what is reported of them, and return their ids.

    Attempts that the viewer may not work on are left out. Raises Rejected if there are no others,
    and Invalid if one is given twice.
    """
    has_reports = any(beat[1:] != (None,) * 3 for beat in beats)
    rows = [
        dict(zip(("id", "progress_percent", "status_message", "checkpoint"), beat, strict=True))
        for beat in sorted(beats, key=lambda beat: beat.attempt_id)
    ]
    ids = [beat.attempt_id for beat in beats]
    refuse_repeated(ids)
    values: dict[str, Any] = arrays(TaskAttempt, REPORTED if has_reports else ("id",), rows)
    values["lease_seconds"] = leases.duration(seconds)
    statement, changed = (_renewed_and_noted, NOTED) if has_reports else (_renewed, RENEWED)
    found: Sequence[Any] = []
    if session.key is None:  # else its outcome are only those attempts that are found
        found = await session.alone(
            statement, session.right, outcome={}, model=TaskAttempt, changed=changed, **values
        )
    if not found:  # raises what the database has refused
        found = await session.run(statement, session.right, **values)
    if len(found) < len(ids):  # others are lost, or not the viewer's
        found = await session.run(_known, session.right, **arrays(TaskAttempt, ("id",), rows))
    if not found:
        errors: list[DomainError] = []
        for place, id in enumerate(ids):
            try:
                await own_attempt(session, id, ("attempts", place, "attempt_id"))
            except NotFound as error:
                errors.append(error)
        raise Rejected(errors)
    known = {row[0] for row in found}
    return [id for id in ids if id in known]


async def extend(session: WriteSession, attempt_id: UUID, seconds: int) -> None:
    """Let the lease of an attempt last so long from now. Raises NotFound, Denied and LeaseLost."""
    found = await session.run(
        _renewed,
        session.right,
        lease_seconds=leases.duration(seconds),
        **arrays(TaskAttempt, ("id",), [{"id": attempt_id}]),
    )
    if not found:
        attempt = await own_attempt(session, attempt_id)
        task = await session.get_one(Task, attempt.task_id)
        raise LeaseLost(attempt_id, attempt.status, task.status)
