"""Answers of people to requests, and what becomes of requests that nobody answers.

Whoever answers, cancels or expires a request locks the task that it blocks first: a deletion of the
task locks the two in this order, and of two answers about one task, the second sees the first.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
    ForeignKey,
    Index,
    UniqueConstraint,
    Uuid,
    and_,
    case,
    exists,
    func,
    insert,
    inspect,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import Mapped, aliased, mapped_column

from db import claims, dependencies
from db.base import CRUD, LOGGED, LongText, ShortText, choice, constant, new_id, to_one
from db.connections import reason
from db.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    DomainError,
    IllegalTransition,
    Invalid,
)
from db.expiry import MOST_EXPIRED, expire_all, expiring
from db.interactions import HumanInteraction, InteractionStatus, InteractionType, OnExpiry
from db.parameters import bind, request_of_statements
from db.rights import Right
from db.scopes import SYSTEM, Viewer, scope
from db.statements import Statement, Values, value
from db.tasks import BlockedReason, Task, TaskStatus
from db.writes import set_actor

if TYPE_CHECKING:
    from db.engine import Database
    from db.sessions import ReadSession, WriteSession
    from db.users import User

log = logging.getLogger("troupe")


class AnswerOutcome(StrEnum):
    """What a person answered."""

    APPROVED = "APPROVED"
    """They approved the request."""
    REJECTED = "REJECTED"
    """They rejected the request."""
    ANSWERED = "ANSWERED"
    """They gave feedback or an answer."""
    ACKNOWLEDGED = "ACKNOWLEDGED"
    """They have read the notification."""


class InteractionAnswer(CRUD):
    """The answer of one user to a request or notification."""

    __tablename__ = "interaction_answers"
    __table_args__ = (
        UniqueConstraint("interaction_id", "user_id"),
        Index(None, "answered_at", "id"),
        Index(None, "user_id", "answered_at", "id"),
    )

    interaction_id: Mapped[UUID] = mapped_column(
        ForeignKey("human_interactions.id", ondelete="CASCADE")
    )
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    outcome: Mapped[AnswerOutcome] = mapped_column(choice(AnswerOutcome), doc="What they answered.")
    comment: Mapped[LongText | None] = mapped_column(doc="Their comment.")
    content_hash: Mapped[ShortText] = mapped_column(
        info=LOGGED, doc="The `contentHash` of what they were asked."
    )
    answered_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When they answered."
    )

    interaction: Mapped[HumanInteraction] = to_one("answers", "The request that it answers.")
    user: Mapped[User | None] = to_one("interaction_answers", "The user who answered.")


class ContentChanged(Conflict):
    """The content of a request is another than the one that the answer is about."""

    def __init__(self, interaction: HumanInteraction) -> None:
        message = (
            "The content of this request is another than the one that you name: its contentHash is"
            f" {interaction.content_hash}. Read it again and decide anew."
        )
        DomainError.__init__(self, message, ("content_hash",))
        self.model, self.id = HumanInteraction, interaction.id


PENDING = constant(InteractionStatus.PENDING)


def may_answer(row: Any, viewer: Viewer) -> ColumnElement[bool]:
    """The condition that a viewer may answer a request, given as the model or an alias.

    An assigned one is answered by its assignee, or by an owner of the project.
    """
    user_id = bind(viewer.user_id, Uuid)
    is_own = or_(row.assignee_id.is_(None), row.assignee_id == user_id)
    may_for_others = scope(row, viewer, Right.OWN)
    return and_(scope(row, viewer, Right.ANSWER), or_(is_own, may_for_others))


def may_approve(row: Any, viewer: Viewer) -> ColumnElement[bool]:
    """The condition that a viewer did not ask for the approval themselves."""
    is_other = row.asked_by_user_id.is_distinct_from(bind(viewer.user_id, Uuid))
    return or_(row.type != InteractionType.APPROVAL, is_other)


def is_open(row: Any) -> ColumnElement[bool]:
    """The condition that a request can still be answered, by the clock of this moment."""
    in_time = or_(row.expires_at.is_(None), row.expires_at > func.clock_timestamp())
    return and_(row.status == PENDING, in_time)


def has_answered(row: Any, viewer: Viewer) -> ColumnElement[bool]:
    """The condition that a viewer has answered a request already."""
    other = aliased(InteractionAnswer)
    own = (other.interaction_id == row.id, other.user_id == bind(viewer.user_id, Uuid))
    return exists().where(*own)


def waits_for(row: Any, viewer: Viewer) -> list[ColumnElement[bool]]:
    """The conditions that a request, given as the model or an alias, waits for a viewer's answer.

    Those that are assigned to others do not, even if the viewer may answer them, nor do
    notifications that need no acknowledgement. Administrators may answer in all projects, but only
    those of which they are a member, or in which something is assigned to them, are theirs.
    """
    return [is_open(row), *is_for(row, viewer), ~has_answered(row, viewer)]


def is_for(row: Any, viewer: Viewer) -> list[ColumnElement[bool]]:
    """The conditions that a viewer is among those whom a request is for, open or not."""
    user_id = bind(viewer.user_id, Uuid)
    is_own = row.assignee_id == user_id
    is_of_member = scope(row, replace(viewer, is_administrator=False), Right.ANSWER)
    # A column of a subtype, which neither the model nor an alias of it has as an attribute.
    is_needed = inspect(row).selectable.c.requires_acknowledgement
    return [
        scope(row, viewer, Right.ANSWER),
        or_(is_own, and_(row.assignee_id.is_(None), is_of_member)),
        row.asked_by_user_id.is_distinct_from(user_id),
        or_(row.type != InteractionType.NOTIFICATION, is_needed),
    ]


@Statement
def _answered(
    viewer: Viewer,
    kind: InteractionType,
    outcome: AnswerOutcome,
    names: tuple[str, ...],
    is_blocking: bool,
) -> Executable:
    """Answer a request of a type with these columns, if the viewer may and it is still open.

    The update locks the row first, and reads it anew if another transaction has changed it: so one
    answer wins, and approvals that are given at once are all counted. A request that blocks a task
    is answered only if `is_blocking`. Returns the id, or nothing.
    """
    row: Any = HumanInteraction
    table = row.__table__
    user_id, now = bind(viewer.user_id, Uuid), func.clock_timestamp()
    is_last: ColumnElement[bool] = true()
    values: dict[str, Any] = {}
    if outcome is AnswerOutcome.APPROVED:
        count = table.c.approval_count + 1
        is_last, values["approval_count"] = count >= table.c.required_approvals, count
    values |= {name: case((is_last, value(name, table.c[name].type))) for name in names}
    values |= {
        "status": case((is_last, bind(outcome.value, table.c.status.type)), else_=table.c.status),
        "responded_by_id": case((is_last, user_id)),
        "responded_at": case((is_last, now)),
    }
    conditions = [
        row.id == value("id", Uuid),
        row.type == kind,
        row.content_hash == value("content_hash", table.c.content_hash.type),
        is_open(row),
        may_answer(row, viewer),
        may_approve(row, viewer),
        ~has_answered(row, viewer),
    ]
    if not is_blocking:
        conditions.append(~row.blocks_task)
    answered = update(table).where(*conditions).values(values).returning(table.c.id).cte("answered")
    given = InteractionAnswer.__table__.c
    answer: dict[str, Any] = {
        "id": value("answer_id", Uuid),
        "interaction_id": answered.c.id,
        "user_id": user_id,
        "outcome": bind(outcome.value, given.outcome.type),
        "comment": value("answer_comment", given.comment.type),
        "content_hash": value("content_hash", given.content_hash.type),
        "answered_at": now,
    }
    inserted = insert(InteractionAnswer).from_select(
        list(answer), select(*answer.values()), include_defaults=False
    )
    return inserted.returning(InteractionAnswer.interaction_id, set_actor())


@Statement
def _is_pending(viewer: Viewer) -> Executable:
    row = HumanInteraction
    is_pending = (row.id == value("id", Uuid), row.status == PENDING)
    return select(exists().where(*is_pending, scope(row, viewer)))


async def is_pending(session: ReadSession, viewer: Viewer, id: UUID) -> bool:
    """Whether a viewer sees a request and nobody has answered, cancelled or expired it."""
    with request_of_statements(Values(viewer, {"id": id})):
        return bool(await session.scalar(_is_pending.built(viewer)))


@Statement
def _task_of(viewer: Viewer, right: Right) -> Executable:
    """Locks the task that a pending request blocks, if the viewer has the right on the request."""
    row = HumanInteraction
    found = select(Task.id).join(row, row.task_id == Task.id)
    found = found.where(row.id == value("id", Uuid), row.blocks_task, scope(row, viewer, right))
    return found.with_for_update(key_share=True, of=Task)


@Statement
def _is_waiting(viewer: Viewer) -> Executable:
    """Whether a task is blocked by another request that is pending."""
    row = HumanInteraction
    is_pending = (row.status == PENDING, row.blocks_task)
    return select(exists().where(row.task_id == value("task_id", Uuid), *is_pending))


async def _lock_task(session: WriteSession, id: UUID, right: Right) -> UUID | None:
    rows = await session.run(_task_of, right, id=id)
    return rows[0][0] if rows else None


async def _wake(session: WriteSession, task_id: UUID | None) -> None:
    """Give a task back to its agent, unless another request blocks it.

    The caller has locked the task in an earlier statement, so that this one sees all requests that
    others have ended. A task that is no longer blocked by a request stays as it is.
    """
    if task_id is None:
        return
    ((is_waiting,),) = await session.run(_is_waiting, task_id=task_id)
    if not is_waiting:
        await claims.wake(session, task_id)


async def answer(
    session: WriteSession,
    id: UUID,
    kind: InteractionType,
    outcome: AnswerOutcome,
    content_hash: str,
    **values: Any,
) -> UUID:
    """Answer a request of a type about the content with this hash, and return its id.

    `values` are those of its columns. The task that it blocked goes back to its agent. Raises
    NotFound, Denied, Invalid, IllegalTransition, AlreadyExists and ContentChanged.
    """
    if session.viewer.user_id is None:
        raise Denied("Only people answer, by tokens of their own.", ("id",))
    options = kind, outcome, tuple(sorted(values))
    given = values | {"id": id, "content_hash": content_hash, "answer_id": new_id()}
    given["answer_comment"] = values.get("comment")
    done = {HumanInteraction.__tablename__: [id]}
    if await session.alone(_answered, *options, False, outcome=done, **given):
        return id
    task_id = await _lock_task(session, id, Right.ANSWER)
    if not await session.run(_answered, *options, True, **given):
        raise await _refusal(session, id, kind, outcome, content_hash)
    await _wake(session, task_id)
    return id


async def _refusal(
    session: WriteSession,
    id: UUID,
    kind: InteractionType,
    outcome: AnswerOutcome,
    content_hash: str,
) -> DomainError:
    """Why a request cannot be answered so. Raises NotFound and Denied."""
    row = await session.fetch(HumanInteraction, id, right=Right.ANSWER)
    viewer = session.viewer
    facts = (
        may_answer(HumanInteraction, viewer),
        may_approve(HumanInteraction, viewer),
        has_answered(HumanInteraction, viewer),
    )
    found = await session.execute(select(*facts).where(HumanInteraction.id == id))
    is_allowed, is_other, is_repeated = found.one()
    if row.type is not kind:
        return Invalid(f"This request is of the type {row.type}, not {kind}.", ("id",))
    if not is_other:
        return Denied("Who asked for an approval cannot give it.", ("id",))
    if not is_allowed:
        assigned = "This is assigned to another user: only they or an owner can answer it."
        return Denied(assigned, ("id",))
    status = await _status_now(session, row)
    try:
        HumanInteraction.transitions.check(status, InteractionStatus(outcome.value), ("id",))
    except IllegalTransition as error:
        return error
    if is_repeated:
        return AlreadyExists("You have answered this already.", ("id",))
    if row.content_hash != content_hash:
        return ContentChanged(row)
    return Invalid("This was changed meanwhile. Send it again.", ("id",))


async def _status_now(session: WriteSession, row: HumanInteraction) -> InteractionStatus:
    """The status of a request: EXPIRED once its time is over, also before it is swept."""
    if row.status is InteractionStatus.PENDING and row.expires_at is not None:
        still = select(is_open(HumanInteraction)).where(HumanInteraction.id == row.id)
        if not await session.scalar(still):
            return InteractionStatus.EXPIRED
    return row.status


async def cancel(session: WriteSession, id: UUID) -> UUID:
    """Withdraw a request, and give the task that it blocked back to its agent; return its id.

    An agent withdraws only its own. Raises NotFound, Denied and IllegalTransition.
    """
    task_id = await _lock_task(session, id, session.right)
    row = await session.fetch(HumanInteraction, id)
    if not session.viewer.acts_for(row.asked_by_agent_id or row.agent_id):
        raise Denied("An agent cancels only its own requests.", ("id",))
    status = await _status_now(session, row)
    HumanInteraction.transitions.check(status, InteractionStatus.CANCELLED, ("id",))
    await row.update(session, status=InteractionStatus.CANCELLED)
    await _wake(session, task_id)
    return id


def _has_expired(row: Any) -> ColumnElement[bool]:
    # By now(), so that the index is used.
    return and_(row.status == PENDING, row.expires_at <= func.now())


@Statement
def _expired(viewer: Viewer) -> Executable:
    """Expire requests that block no task."""
    row: Any = HumanInteraction
    return expiring(row, InteractionStatus.EXPIRED, _has_expired(row), ~row.blocks_task)


async def expire(database: Database) -> int:
    """Expire the requests whose time is over, batch by batch; return how many.

    `on_expiry` of each says what becomes of the task that it blocks. Any number of processes may do
    this at once. A request that blocks a task is a transaction of its own, and one that fails does
    not stop the others.
    """
    count = await expire_all(database, _expired)
    after: tuple[Any, ...] | None = None
    while due := await _due(database, after):
        for id, task_id, on_expiry, _ in due:
            try:
                async with database.write(SYSTEM) as session:
                    count += await _expire(session, id, task_id, on_expiry)
            except Exception as error:
                log.warning("the request %s does not expire: %s", id, reason(error))
        after = due[-1].expires_at, due[-1].id
    return count


async def _due(database: Database, after: tuple[Any, ...] | None) -> Sequence[Any]:
    """The next requests that block a task and whose time is over, in the order of their times."""
    row = HumanInteraction
    order = row.expires_at, row.id
    due = select(row.id, row.task_id, row.on_expiry, row.expires_at)
    due = due.where(_has_expired(row), row.blocks_task).order_by(*order).limit(MOST_EXPIRED)
    if after is not None:
        due = due.where(tuple_(*order) > tuple_(*after))
    async with database.read() as session:
        return (await session.execute(due)).all()


async def _expire(
    session: WriteSession, id: UUID, task_id: UUID | None, on_expiry: OnExpiry
) -> int:
    """Expire one request that blocks a task, unless somebody else has ended it."""
    if task_id is not None and on_expiry is OnExpiry.FAIL:
        await dependencies.lock(session, task_id)
    task_id = await _lock_task(session, id, Right.EDIT)
    row = HumanInteraction
    changed = update(row).where(row.id == id, _has_expired(row))
    found = await session.execute(
        changed.values(status=InteractionStatus.EXPIRED).returning(row.id)
    )
    if found.one_or_none() is None:
        return 0
    match on_expiry:
        case OnExpiry.RELEASE:
            await _wake(session, task_id)
        case OnExpiry.FAIL if task_id is not None:
            await _fail(session, task_id)
    return 1


async def _fail(session: WriteSession, task_id: UUID) -> None:
    """Fail a task that is still blocked by a request. The caller has locked its project."""
    task = await session.fetch(Task, task_id)
    if task.blocked_reason is BlockedReason.HUMAN_INPUT:
        error = {"message": "Nobody answered in time."}
        await task.update(session, status=TaskStatus.FAILED, blocked_reason=None, error=error)
        await dependencies.ended_unsuccessfully(session, [task_id])
