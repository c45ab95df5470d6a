"""Usage: the tokens, time and cost of calls of AI models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    String,
    UniqueConstraint,
    Uuid,
    case,
    cast,
    exists,
    func,
    literal_column,
    null,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, aliased, mapped_column

from db import budget_room, telemetry
from db.ai_models import AIModel
from db.attempts import TaskAttempt
from db.base import (
    CRUD,
    ShortText,
    Timestamp,
    any_of,
    check,
    defaulted,
    new_id,
    to_one,
    where_set,
    with_defaults,
)
from db.errors import DomainError, Invalid, NotFound, Rejected
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.statements import Statement, value
from db.tasks import Task
from db.writes import (
    NUMBER,
    arrays,
    given_rows,
    given_values,
    keys,
    project_id_of,
    references,
    rows_refer,
    set_actor,
    unnested,
)

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation, Message
    from db.sessions import WriteSession
    from db.users import User

# A product of decimals is exact, a quotient is rounded.
A_MILLIONTH = literal_column("0.000001", Numeric)
BILLION = 1_000_000_000

PRICED = (
    "cache_creation_tokens",
    "cached_input_tokens",
    "cost",
    "input_tokens",
    "model_id",
    "model_name",
    "output_tokens",
)
"""The columns that determine the cost of a call."""

COUNTED = ("agent_id", "attempt_id", "model_id", "model_name", "task_id")
"""The columns that determine for which budgets a call counts."""

PARTS = {
    "input": ("cached_input_tokens", "cache_creation_tokens"),
    "output": ("reasoning_tokens",),
}
"""The numbers of tokens that are part of others."""

MOST_REPRICED = 1_000
"""How many records are repriced in one transaction."""


class UsageRecord(CRUD):
    """One call of an AI model, with its tokens, time and cost."""

    __tablename__ = "usage_records"
    __table_args__ = (
        UniqueConstraint("project_id", "request_id"),
        check(
            "least(input_tokens, cached_input_tokens, cache_creation_tokens, output_tokens,"
            " reasoning_tokens) >= 0",
            "tokens_not_negative",
            "Numbers of tokens are 0 or more.",
        ),
        # As bigint: the sum of two integers may be too large for one.
        check(
            "cached_input_tokens::bigint + cache_creation_tokens <= input_tokens",
            "cached_tokens_are_input",
            "Tokens that are read from a cache or written to one are part of the input tokens, and"
            " cannot be more.",
            "cached_input_tokens",
        ),
        check(
            "reasoning_tokens <= output_tokens",
            "reasoning_tokens_are_output",
            "Reasoning tokens are part of the output tokens, and cannot be more.",
            "reasoning_tokens",
        ),
        check("cost >= 0", "cost_not_negative", "A cost is 0 or more.", "cost"),
        check(
            "latency_ms >= 0",
            "latency_ms_not_negative",
            "A latency is 0 milliseconds or more.",
            "latency_ms",
        ),
        check(
            "trace_id ~ '^[0-9a-f]{32}$'",
            "trace_id_form",
            "A trace id has 32 hexadecimal digits in lower case.",
            "trace_id",
        ),
        check(
            "span_id ~ '^[0-9a-f]{16}$'",
            "span_id_form",
            "A span id has 16 hexadecimal digits in lower case.",
            "span_id",
        ),
        Index(None, "trace_id", postgresql_where=text("trace_id IS NOT NULL")),
        # For pricing them later.
        Index(
            "ix_usage_records_unpriced",
            "project_id",
            "occurred_at",
            "id",
            postgresql_where=text("cost IS NULL OR model_id IS NULL"),
        ),
        Index(None, "occurred_at", "id"),
        Index(None, "project_id", "occurred_at", "id"),
        *(
            where_set(f"{noun}_id", "occurred_at", "id")
            for noun in (
                "model",
                "agent",
                "task",
                "attempt",
                "conversation",
                "message",
                "user",
            )
        ),
    )

    model_id: Mapped[str | None] = mapped_column(ForeignKey("ai_models.id", ondelete="RESTRICT"))
    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="SET NULL"))
    task_id: Mapped[UUID | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    attempt_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("task_attempts.id", ondelete="SET NULL")
    )
    conversation_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("conversations.id", ondelete="SET NULL")
    )
    message_id: Mapped[UUID | None] = mapped_column(ForeignKey("messages.id", ondelete="SET NULL"))
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    model_name: Mapped[ShortText] = mapped_column(
        doc="The name of the model, as the worker knows it. The model of that name is priced if it"
        " is registered; if not, `repriceUsage` prices the call later."
    )
    input_tokens: Mapped[int] = defaulted(
        0, doc="The input tokens, those read from a cache or written to one included."
    )
    cached_input_tokens: Mapped[int] = defaulted(
        0, doc="The input tokens that were read from a cache."
    )
    cache_creation_tokens: Mapped[int] = defaulted(
        0, doc="The input tokens that were written to a cache."
    )
    output_tokens: Mapped[int] = defaulted(0, doc="The output tokens, those of reasoning included.")
    reasoning_tokens: Mapped[int] = defaulted(0, doc="The output tokens that were reasoning.")
    cost: Mapped[Decimal | None] = mapped_column(
        Numeric(18, 9),
        doc="The cost in US dollars; unless supplied, computed from the model's prices at the time."
        " Null if the model is not registered or has no prices.",
    )
    latency_ms: Mapped[int | None] = mapped_column(doc="How long it took, in milliseconds.")
    success: Mapped[bool] = defaulted(True, doc="Whether the call succeeded.")
    request_id: Mapped[ShortText | None] = mapped_column(
        doc="An id that the client chooses, unique in its project: a repeat is recorded once."
    )
    trace_id: Mapped[str | None] = mapped_column(
        String(32), doc="The trace that the call is part of (W3C Trace Context)."
    )
    span_id: Mapped[str | None] = mapped_column(
        String(16), doc="The span of the trace that made the call (W3C Trace Context)."
    )
    occurred_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), doc="When the call was made."
    )

    model: Mapped[AIModel | None] = to_one(
        "usage_records", "The AI model that was called; null if it is not registered."
    )
    project: Mapped[Project] = to_one("usage_records", "The project that it was made for.")
    agent: Mapped[Agent | None] = to_one("usage_records", "The agent that made it.")
    task: Mapped[Task | None] = to_one("usage_records", "The task that it was made for.")
    attempt: Mapped[TaskAttempt | None] = to_one(
        "usage_records", "The attempt that it was part of."
    )
    conversation: Mapped[Conversation | None] = to_one(
        "usage_records", "The conversation that it was made for."
    )
    message: Mapped[Message | None] = to_one("usage_records", "The message that it produced.")
    user: Mapped[User | None] = to_one("usage_records", "The user on whose behalf it was made.")


def _cost(model: Any, usage: Any) -> ColumnElement[Decimal]:
    """The cost of a call in US dollars; NULL if a price is missing for tokens that it used.

    `usage` has the tokens of the call. Tokens that are read from a cache or written to one are part
    of the input, and reasoning tokens part of the output. Without a price of their own, they cost
    as much as other input tokens.
    """
    cached, created = usage.cached_input_tokens, usage.cache_creation_tokens
    used = (
        (usage.input_tokens - cached - created, model.input_price),
        (cached, func.coalesce(model.cached_input_price, model.input_price)),
        (created, func.coalesce(model.cache_creation_price, model.input_price)),
        (usage.output_tokens, model.output_price),
    )
    is_priced = func.num_nonnulls(*(price for _, price in used)) > 0
    parts = [case((tokens == 0, 0), else_=tokens * price) for tokens, price in used]
    return case((is_priced, sum(parts[1:], parts[0]) * A_MILLIONTH))


def _is_of(model: Any, usage: Any) -> ColumnElement[bool]:
    """Whether a model is that of a call: the one given, or the one registered by its name."""
    return model.id == func.coalesce(usage.model_id, usage.model_name)  # type: ignore[no-any-return]


def _counted_for(new: Any, names: Collection[str], attempt: Any) -> dict[str, Any]:
    """The agent, the task and the model's name that a call is counted for, also in budgets.

    `new` has the columns `names`. If an attempt is one of them, its agent and its task count unless
    the call has others.
    """
    none = cast(null(), Uuid)
    found = {name: new[name] if name in names else none for name in ("agent_id", "task_id")}
    if "attempt_id" in names:
        found = {name: func.coalesce(own, getattr(attempt, name)) for name, own in found.items()}
    return {**found, "model_name": func.coalesce(new.model_name, new.model_id)}


@Statement
def _recorded(
    viewer: Viewer,
    right: Right,
    names: tuple[str, ...],
    checked: tuple[str, ...],
    is_one: bool,
    leaves_repeated: bool,
) -> Executable:
    """Record calls with these columns, and return their ids.

    Records nothing if one was recorded before; with `leaves_repeated`, records the others. Nothing
    either if a budget refuses it, or unless the viewer has the right on the project, and sees what
    the `checked` columns refer to. Of two transactions that record the same call, the second waits
    for the first.
    """
    given = given_rows(UsageRecord, names, is_one).cte("given")
    new, each = given.c, given.alias().c
    project = select(Project.id).where(
        Project.id == value("project_id", Uuid), scope(Project, viewer, right)
    )
    # As the foreign key locks it, but first: whoever deletes the project locks it before the rest.
    project = project.with_for_update(read=True, key_share=True)
    above, model, attempt = project.cte("above").c, aliased(AIModel), aliased(TaskAttempt)
    columns: dict[str, Any] = {name: new[name] for name in names}
    columns |= {
        **_counted_for(new, names, attempt),
        "project_id": above.id,
        "model_id": model.id,
        "cost": func.coalesce(new.cost, _cost(model, new)),
    }
    source = given.outerjoin(model, _is_of(model, new))
    if "attempt_id" in names:
        source = source.outerjoin(attempt, attempt.id == new.attempt_id)
    calls = (
        select(*(column.label(name) for name, column in columns.items()))
        .select_from(source)
        .where(*rows_refer(UsageRecord, checked, viewer, above.id, given))
        .cte("calls")
    )
    # As their foreign key locks them, but before the attempts, and in the order of their ids: so
    # does whoever deletes them.
    tasks = select(Task.id).where(Task.id == func.any(keys(calls.c.task_id))).order_by(Task.id)
    locked = tasks.with_for_update(read=True, key_share=True).cte("locked")
    rows = select(calls).where(
        select(func.count()).select_from(locked).scalar_subquery() >= literal_column("0"),
        budget_room.let_record(value("project_id", Uuid), calls),
    )
    if not is_one and "request_id" in names:
        # In the same order everywhere: whoever records the same calls does not deadlock with this.
        rows = rows.order_by(calls.c.request_id)
    if "request_id" in names and not leaves_repeated:
        repeated = select(1).where(
            UsageRecord.project_id == value("project_id", Uuid),
            UsageRecord.request_id == each.request_id,
        )
        rows = rows.where(~exists(repeated))
    added = insert(UsageRecord).from_select(list(columns), rows, include_defaults=False)
    if leaves_repeated:
        added = added.on_conflict_do_nothing(index_elements=["project_id", "request_id"])
    return added.returning(UsageRecord.id, set_actor())


@Statement
def _refused(viewer: Viewer) -> Executable:
    """The number of the first call that a budget refuses, and what an error says of the budget."""
    given, attempt = unnested(UsageRecord, COUNTED).subquery(), aliased(TaskAttempt)
    new = given.c
    columns = _counted_for(new, COUNTED, attempt).items()
    calls = (
        select(new[NUMBER], *(column.label(name) for name, column in columns))
        .select_from(given.outerjoin(attempt, attempt.id == new.attempt_id))
        .subquery()
    )
    return budget_room.refusing(value("project_id", Uuid), calls.c)


@Statement
def _too_expensive(viewer: Viewer) -> Executable:
    """The numbers of the calls whose cost is too large for its column."""
    new, model = unnested(UsageRecord, PRICED).subquery().c, aliased(AIModel)
    cost = func.round(func.coalesce(new.cost, _cost(model, new)), 9)
    return select(new[NUMBER]).join(model, _is_of(model, new)).where(cost >= BILLION)


Calls = Mapping[tuple[str | int, ...], Mapping[str, Any]]
"""Calls by their paths in the input."""


@Statement
def _project_of(viewer: Viewer, name: str) -> Executable:
    """The project of the row with an id that a foreign key of a call has, if the viewer sees it."""
    target = references(UsageRecord)[name].mapper.class_
    return select(project_id_of(target)).where(
        target.id == value("id", Uuid), scope(target, viewer, by_key=True)
    )


async def _project_named(session: WriteSession, calls: Calls) -> UUID:
    """The project of the first attempt or task that calls name. Raises NotFound and Invalid."""
    for at, call in calls.items():
        for name in ("attempt_id", "task_id"):
            id = call.get(name)
            if id is None:
                continue
            for (project_id,) in await session.run(_project_of, name, id=id):
                return project_id  # type: ignore[no-any-return]
            raise NotFound(references(UsageRecord)[name].mapper.class_, id, (*at, name))
    raise Invalid("Name the project: no call names an attempt or a task.", ("project_id",))


def _with_attributes(calls: Calls) -> tuple[Calls, list[DomainError]]:
    """The calls with the values of their attributes, and the errors in them.

    A call with invalid attributes is left out.
    """
    found: dict[tuple[str | int, ...], Mapping[str, Any]] = {}
    errors: list[DomainError] = []
    for at, call in calls.items():
        values = dict(call)
        attributes = values.pop("attributes", None)
        if attributes is not None:
            try:
                values = telemetry.usage_values(attributes, (*at, "attributes")) | values
            except Invalid as error:
                errors.append(error)
                continue
        found[at] = values
        if not values.keys() & {"model_id", "model_name"}:
            errors.append(Invalid("Name the model of this call.", (*at, "model_name")))
    return found, errors


async def record_usage(session: WriteSession, project_id: UUID | None, calls: Calls) -> list[UUID]:
    """Record calls of a project in one statement; return their ids in the same order.

    If `project_id` is None, the project is that of the first attempt or task that the calls name.
    The task and the agent of a call are by default those of its attempt. Its `attributes` are those
    of an OpenTelemetry span; they supply the values that the call does not have.

    A call with a request id that was recorded before, in this input or earlier, is not recorded
    again, and its id is that of the first. Raises NotFound, Denied, Invalid without a project,
    Rejected with all errors, and BudgetExceeded if a budget refuses a new call.
    """
    calls, found = _with_attributes(calls)
    if project_id is None:
        if found:
            raise Rejected(found)
        project_id = await _project_named(session, calls)
    new = {}
    for at, call in calls.items():
        agent_id = session.in_own_name(call.get("agent_id"), (*at, "agent_id"))
        new[at] = {"id": new_id(), **call, "agent_id": agent_id}
    if found:
        await session.fetch(Project, project_id, at=("project_id",), lock=False)
        wrong = {tuple(error.path[:2]) for error in found}
        right = {at: row for at, row in new.items() if at not in wrong}
        await _check(session, project_id, calls, right, found)
    ids = [row["id"] for row in new.values()]
    alone = partial(session.alone, model=UsageRecord, outcome={"usage_records": ids})
    if len(await _record(session, alone, project_id, new)) == len(new):
        return ids
    # Nothing was recorded: calls are repeated, or something is wrong.
    await session.fetch(Project, project_id, at=("project_id",), lock=False)
    first = await _ids_by_request(session, project_id, new)
    for row in new.values():
        if row.get("request_id") is not None:
            first.setdefault(row["request_id"], row["id"])

    def id_of(row: Mapping[str, Any]) -> UUID:
        id: UUID = first.get(row.get("request_id"), row["id"])
        return id

    left = {at: row for at, row in new.items() if id_of(row) == row["id"]}
    await _check(session, project_id, calls, left)
    recorded = await _record(session, session.run, project_id, left, leaves_repeated=True)
    if len(recorded) < len(left):
        # Other transactions have recorded some of them meanwhile.
        first |= await _ids_by_request(session, project_id, left)
        done = {id for id, *_ in recorded}
        if any(id_of(row) == row["id"] not in done for row in left.values()):
            await _refuse(session, project_id, left)
            raise Invalid("What these calls refer to was changed meanwhile. Send them again.")
    return [id_of(row) for row in new.values()]


async def _refuse(session: WriteSession, project_id: UUID, calls: Calls) -> None:
    """Raise BudgetExceeded if a budget refuses one of these calls."""
    values = arrays(UsageRecord, COUNTED, list(calls.values()))
    for row in await session.run(_refused, project_id=project_id, **values):
        raise budget_room.error(row, list(calls)[row.number - 1])


async def _ids_by_request(session: WriteSession, project_id: UUID, calls: Calls) -> dict[Any, UUID]:
    """The ids of the records of a project that have request ids of these calls."""
    asked = {row["request_id"] for row in calls.values() if row.get("request_id") is not None}
    found = select(UsageRecord.request_id, UsageRecord.id).where(
        UsageRecord.project_id == project_id, any_of(UsageRecord.request_id, asked)
    )
    return dict(iter(await session.execute(found)))


async def _record(
    session: WriteSession,
    run: Callable[..., Awaitable[Sequence[Any]]],
    project_id: UUID,
    calls: Calls,
    *,
    leaves_repeated: bool = False,
) -> Sequence[Any]:
    """Record calls, and return what was recorded."""
    if not calls:
        return []
    rows = [with_defaults(UsageRecord, call) for call in calls.values()]
    names = {name for row in rows for name in row} | {"cost", "model_id", "model_name"}
    checked = tuple(sorted(references(UsageRecord).keys() & names))
    columns = tuple(sorted(names))
    options = columns, checked, len(rows) == 1, leaves_repeated
    values = {**given_values(UsageRecord, columns, rows), "project_id": project_id}
    return await run(_recorded, session.right, *options, **values)


async def _check(
    session: WriteSession,
    project_id: UUID,
    calls: Calls,
    new: Calls,
    found: Sequence[DomainError] = (),
) -> None:
    """Raise Rejected with all errors of calls, of which some are new, and with those `found`."""
    errors: list[DomainError] = list(found)
    try:
        await session.refer_all(UsageRecord, calls, project_id=project_id)
    except Rejected as rejected:
        errors += rejected.errors
    errors += await session.taken(UsageRecord, {at: row["id"] for at, row in new.items()})
    for at, row in new.items():
        errors += [
            Invalid(f"These are part of the {whole} tokens, and cannot be more.", (*at, part))
            for whole, parts in PARTS.items()
            if sum(row.get(part, 0) for part in parts) > row.get(f"{whole}_tokens", 0)
            for part in parts
            if row.get(part, 0)
        ]
    rows = [with_defaults(UsageRecord, row) for row in new.values()]
    paths = list(new)
    for (number,) in await session.run(_too_expensive, **arrays(UsageRecord, PRICED, rows)):
        message = "This would cost a billion US dollars or more by the prices of its model."
        errors.append(Invalid(message, (*paths[number - 1], "cost")))
    if errors:
        raise Rejected(errors)


@Statement
def _repriced(
    viewer: Viewer, right: Right, are_all: bool, has_since: bool, has_until: bool, has_name: bool
) -> Executable:
    """Set the model and the cost of some calls for which they differ. Returns the ids."""
    record, model = aliased(UsageRecord), aliased(AIModel)
    price = func.round(_cost(model, record), 9)
    cost = func.coalesce(price, record.cost) if are_all else func.coalesce(record.cost, price)
    found = (
        select(record.id, model.id.label("model_id"), cost.label("cost"))
        .join(model, _is_of(model, record))
        .where(
            record.project_id == value("project_id", Uuid),
            or_(record.model_id.is_distinct_from(model.id), record.cost.is_distinct_from(cost)),
            func.coalesce(cost, 0) < BILLION,
        )
        .order_by(record.occurred_at, record.id)
        .limit(value("most", Integer))
        .with_for_update(of=record, key_share=True)
    )
    if not are_all:
        found = found.where(or_(record.cost.is_(None), record.model_id.is_(None)))
    if has_since:
        found = found.where(record.occurred_at >= value("since", Timestamp))
    if has_until:
        found = found.where(record.occurred_at < value("until", Timestamp))
    if has_name:
        found = found.where(record.model_name == value("model_name", String))
    new = found.cte("found").c
    changed = update(UsageRecord).where(UsageRecord.id == new.id)
    changed = changed.values(model_id=new.model_id, cost=new.cost, updated_at=func.now())
    return changed.returning(UsageRecord.id)


async def reprice_usage(
    session: WriteSession,
    project_id: UUID,
    *,
    are_all: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    model_name: str | None = None,
) -> list[UUID]:
    """Set the model and the cost of calls of a project that lack them; return their ids.

    With `are_all`, also the cost of those that have another one. The oldest MOST_REPRICED are
    changed: call it again until there are none. Raises NotFound and Denied.
    """
    # Locked, as by all who delete what calls refer to: they change the calls in another order.
    await session.fetch(Project, project_id, at=("project_id",))
    given = since is not None, until is not None, model_name is not None
    values = {"since": since, "until": until, "model_name": model_name, "most": MOST_REPRICED}
    rows = await session.run(
        _repriced, session.right, are_all, *given, project_id=project_id, **values
    )
    return [id for (id,) in rows]
