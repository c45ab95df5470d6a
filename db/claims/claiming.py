"""The claim: an agent takes the most urgent tasks that are ready."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Executable,
    Select,
    String,
    Uuid,
    and_,
    column,
    exists,
    func,
    insert,
    literal_column,
    null,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.orm import aliased

from db import budget_room, leases, telemetry
from db.agents import Agent, is_working
from db.attempts import TaskAttempt
from db.base import new_id
from db.claims import conditions, starts
from db.claims.conditions import ANY_TYPE, ASSIGNED
from db.claims.idle import Idle, IdleReason, idle
from db.projects import Project
from db.rights import Right
from db.scopes import Viewer, scope
from db.sessions import WriteSession
from db.statements import Statement, value
from db.tasks import Task, TaskStatus
from db.writes import set_actor

MOST_CLAIMED = 100
"""How many tasks can be claimed at once."""

MOST_TYPES = 20
"""How many types of tasks a claim can name."""

MOST_LOCKED = 10_000
"""How many of the most urgent tasks other claims may hold at the same moment."""

# When the attempts begin. It is evaluated once, when the claim holds its locks: so it is later than
# the end of each attempt that it has waited for.
BEGUN_AT = select(func.clock_timestamp()).scalar_subquery().label("begun_at")

_task = Task.__table__.c
CHANGED = frozenset(
    str(each)
    for each in (
        *leases.lease,
        _task.agent_id,
        _task.attempt_count,
        _task.current_attempt_id,
        _task.started_at,
        _task.status,
        _task.updated_at,
        _task.version,
    )
)
"""The columns that a claim may change besides those of the attempts that it begins."""


class Claimed(NamedTuple):
    """The attempts that a claim has begun; if there are none, why."""

    attempts: list[UUID]
    idle: Idle | None = None


@Statement
def _claimed(viewer: Viewer, right: Right, named_types: int, is_one: bool) -> Executable:
    """Begin attempts of an agent at the most urgent tasks, and return their ids in that order.

    With `is_one`, it is one attempt at most.

    It is one statement, whose snapshot is older than the locks that it waits for. What must be
    known as it is under the lock is counted by functions of the database, which see what was
    committed since; and a row that was changed is checked again when it is locked.
    """
    ids = value("attempt_ids", ARRAY(Uuid))
    agent_id = value("agent_id", Uuid)
    mine = and_(Agent.id == agent_id, scope(Agent, viewer, right))

    # Only where types have limits, claims of different agents have to wait for each other.
    limited = (
        select(Project.id)
        .join(Agent, Agent.project_id == Project.id)
        .where(mine, conditions.limits_types(Project))
        .with_for_update(key_share=True, of=Project)
        .cte("limited")
    )
    has_limits = exists(select(limited.c.id))
    agent = (
        select(
            Agent.id,
            Agent.project_id,
            Agent.type,
            conditions.capacity(Agent, Project).label("capacity"),
            has_limits.label("has_limits"),
        )
        .join(Project, Project.id == Agent.project_id)
        .where(
            mine,
            has_limits.is_not(None),  # so that it is locked before the agent
            is_working(Agent),
            conditions.hands_out(Project),
            conditions.takes_more_reviews(Project),
        )
        .with_for_update(key_share=True, of=Agent)
        .cte("agent")
    )
    # By itself, so that it is evaluated once.
    paid = select(budget_room.locked(agent.c).label("budgets")).select_from(agent).cte("paid")
    count = conditions.running(agent.c.id)
    left = budget_room.claims_left(paid.c.budgets)
    free = func.least(func.cardinality(ids), agent.c.capacity - count, left)
    about = select(
        agent.c.id,
        agent.c.project_id,
        agent.c.type,
        paid.c.budgets,
        func.greatest(free, 0).label("number"),
        conditions.left_by_type(agent.c.project_id, agent.c.has_limits).label("left"),
        conditions.resources_in_use(agent.c.project_id).label("in_use"),
        budget_room.full_tasks(agent.c.project_id).scalar_subquery().label("full_tasks"),
    )
    room = about.select_from(agent.join(paid, true())).cte("room")

    # Candidates, which are found one by one as they are taken, by the indexes of their own.
    level = conditions.levels()
    place = starts.levels(room.c.project_id, null() if named_types else room.c.type)
    place = place.correlate(room).lateral("place")

    def in_order(level: Any, *met: Any) -> Any:
        task = aliased(Task)
        found = select(task.id, task.available_at).where(
            task.priority == level.c.priority,
            conditions.is_available(task),
            # What cannot be taken is not locked. Whether it still can is known only under the lock.
            conditions.uses_none_of(task, room.c.in_use),
            budget_room.is_outside(task.id, room.c.full_tasks),
            *(condition(task) for condition in met),
        )
        # Each is sorted, so that PostgreSQL merges them.
        return found.order_by(task.available_at, task.id).correlate(room, level)

    own = in_order(
        level,
        lambda task: task.agent_id == room.c.id,
        lambda task: conditions.is_ready(task, ASSIGNED),
        lambda task: conditions.has_room_for(room.c.left, conditions.kind(task)),
    ).subquery("own")
    named: list[Any] = [value(f"type_{number}", String) for number in range(named_types)]
    of_types = union_all(
        *(
            in_order(
                place,
                lambda task: task.project_id == room.c.project_id,
                conditions.is_ready,
                lambda task: (
                    tuple_(task.available_at, task.id) >= tuple_(place.c.available_at, place.c.id)
                ),
                lambda task, type=type: conditions.kind(task) == type,
                lambda _, type=type: conditions.has_room_for(room.c.left, type),
            )
            for type in (ANY_TYPE, *(named or [room.c.type]))
        )
    ).subquery("of_types")
    queues = []
    for levels, source in ((level, own), (place, of_types)):
        # A limit that PostgreSQL does not know makes it read the index in order, and not sort.
        found = select(source.c.id).order_by(source.c.available_at, source.c.id)
        each = found.limit(room.c.number + MOST_LOCKED).correlate(room, levels).lateral("queue")
        queues.append(select(each.c.id).select_from(room.join(levels, true()).join(each, true())))
    candidate = union_all(*queues).subquery("candidate")

    task = aliased(Task)
    order = (task.status == ASSIGNED, task.priority, task.available_at)
    locked = (
        select(
            task.id,
            task.project_id,
            task.type,
            task.resource_keys,
            order[0].label("is_own"),
            *order[1:],
        )
        .where(
            task.id == candidate.c.id,
            or_(
                conditions.is_ready(task),
                and_(conditions.is_ready(task, ASSIGNED), task.agent_id == agent_id),
            ),
        )
        .with_for_update(key_share=True, skip_locked=True, of=task)
        .offset(literal_column("0"))
        .lateral("locked")
    )
    chosen = (
        select(locked)
        .select_from(candidate.join(locked, true()))
        .where(
            conditions.reserves_resources(locked.c),
            budget_room.reserves(locked.c, select(room.c.budgets).scalar_subquery()),
        )
        .limit(select(room.c.number).scalar_subquery())
        .cte("chosen")
    )
    id = select(func.unnest(ids)).scalar_subquery()
    number: ColumnElement[int] = literal_column("1").label("number")
    one = select(chosen.c.id, id.label("attempt_id"), number, BEGUN_AT)
    taken = (one if is_one else _placed(chosen, room, ids)).cte("taken")

    trace = value("traceparent", String)
    started = (
        update(Task)
        .where(Task.id == taken.c.id)
        .values(
            status=TaskStatus.IN_PROGRESS,
            agent_id=agent_id,
            current_attempt_id=taken.c.attempt_id,
            attempt_count=Task.attempt_count + 1,
            started_at=func.coalesce(Task.started_at, taken.c.begun_at),
            version=Task.version + 1,
        )
        .returning(
            Task.id,
            Task.attempt_count,
            taken.c.attempt_id,
            taken.c.number,
            taken.c.begun_at,
            set_actor(),
        )
        .cte("started")
    )
    new = started.c
    held = insert(leases.table).from_select(
        ["attempt_id", "task_id", "agent_id", "expires_at", "heartbeat_at"],
        select(new.attempt_id, new.id, agent_id, leases.until(new.begun_at), new.begun_at),
    )
    begun = select(new.attempt_id, new.id, agent_id, new.attempt_count, new.begun_at, trace)
    return (
        insert(TaskAttempt)
        .from_select(
            ["id", "task_id", "agent_id", "number", "started_at", "claim_traceparent"],
            begun.order_by(new.number),
            include_defaults=False,
        )
        .returning(TaskAttempt.id)
        .add_cte(held.cte("held"))
    )


def _placed(chosen: CTE, room: CTE, ids: ColumnElement[Any]) -> Select[Any]:
    """The chosen tasks that can be in progress together, in their order, with an attempt for each.

    Of tasks that share a resource, the first is taken; of a type, as many as its limit leaves.
    """
    first = (
        chosen.c.is_own.desc(),
        chosen.c.priority.desc(),
        chosen.c.available_at,
        chosen.c.id,
    )
    placed = select(
        chosen,
        func.row_number().over(order_by=first).label("place"),
        func.row_number().over(partition_by=chosen.c.type, order_by=first).label("of_type"),
    ).cte("placed")
    before = placed.alias("before")
    shares = exists(
        select(1).where(
            before.c.place < placed.c.place,
            before.c.resource_keys.op("&&", is_comparison=True)(placed.c.resource_keys),
        )
    )
    left = conditions.left_of_type(room.c.left, placed.c.type)
    kept = (
        select(placed.c.id, func.row_number().over(order_by=placed.c.place).label("number"))
        .select_from(placed.join(room, true()))
        .where(~shares, or_(left.is_(None), placed.c.of_type <= left))
        .cte("kept_tasks")
    )
    given = func.unnest(ids).table_valued(column("id", Uuid), with_ordinality="number")
    given = given.render_derived(name="given")
    columns = kept.c.id, given.c.id.label("attempt_id"), kept.c.number, BEGUN_AT
    return select(*columns).join(given, given.c.number == kept.c.number)


async def claim(
    session: WriteSession,
    agent_id: UUID | None,
    *,
    types: Sequence[str] | None = None,
    limit: int = 1,
    seconds: int = leases.DEFAULT_SECONDS,
) -> Claimed:
    """Begin attempts of an agent at the most urgent tasks that are ready, at most `limit`.

    First come the tasks that are assigned to the agent, of any type; then those without a type and
    those of its own type, or of the given `types` instead. The agent is the viewer, unless a person
    names one. Raises NotFound, Denied and Invalid, and BudgetExceeded if a hard budget is all that
    keeps it from a task.
    """
    agent_id = session.acting_agent(agent_id)
    ids = [new_id() for _ in range(limit)]
    kinds = list(dict.fromkeys(types or ()))
    values: dict[str, Any] = {
        "attempt_ids": ids,
        "agent_id": agent_id,
        "lease_seconds": leases.duration(seconds),
        "traceparent": telemetry.traceparent(),
    }
    values |= {f"type_{number}": type for number, type in enumerate(kinds)}
    options = session.right, len(kinds), limit == 1
    start = starts.FRONT
    # One that takes many at once reads dead entries once for all of them.
    if limit == 1 and not session.has_begun:
        start = await starts.of_this_process.find(session, agent_id, tuple(kinds))
    rows = await session.alone(
        _claimed,
        *options,
        model=TaskAttempt,
        outcome={"task_attempts": ids},
        changed=CHANGED,
        **values | starts.values_of(start),
    )
    if rows:
        return Claimed([row[0] for row in rows])
    why = await idle(session, agent_id, types)
    if why is None:
        # What was ready was being claimed by others, has become ready since, or is further ahead.
        front = values | starts.values_of(starts.FRONT)
        rows = await session.run(_claimed, *options, **front)
        why = None if rows else Idle(IdleReason.NOTHING_READY, BUSY)
    if not rows:
        await session.drop_key()
        if why is not None and why.reason is IdleReason.BUDGET:
            await budget_room.refuse_exceeded(session, agent_id)
    return Claimed([row[0] for row in rows], why)


BUSY = "The tasks that are ready are being claimed by others at this moment. Try again."
