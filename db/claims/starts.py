"""Where claims begin to look for a task, while an old transaction keeps what they have left behind.

The entry of a claimed task stays in the index of the ready tasks until no transaction can see the
task as ready. Claims pass over such entries, 0.4 us for each, so they get slower as long as a
transaction with an old snapshot is open. So each process looks now and then where the ready tasks
begin. If there are many entries before, its claims begin there for a short time.

A task that becomes ready further ahead meanwhile is passed over until that time ends, unless there
is no other. Nothing else is lost: a claim that finds nothing looks again from the front.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Executable,
    Integer,
    Interval,
    String,
    Uuid,
    and_,
    case,
    func,
    literal_column,
    null,
    select,
    true,
    union_all,
)
from sqlalchemy.orm import aliased

from db.agents import Agent
from db.base import Timestamp
from db.claims import conditions
from db.claims.conditions import ANY_TYPE, is_available, is_ready, kind
from db.scopes import Viewer
from db.sessions import WriteSession
from db.statements import Statement, Values, value
from db.tasks import Task

CLAIMS, SECONDS = 100, 1.0
"""It is looked where a queue begins after so many claims, but not more often than so."""

VALID_SECONDS = 2.0
"""How long claims begin there."""

MANY = 500
"""So many entries are passed over before claims begin after them."""

MOST_KNOWN = 10_000
"""Of how many agents and queues a process knows where they begin."""

INDEX: ColumnElement[Any] = literal_column("'ix_tasks_claimable'::regclass")
FIRST_TIME = literal_column("'-infinity'::timestamptz", DateTime(timezone=True))
FIRST_ID = literal_column("'00000000-0000-0000-0000-000000000000'::uuid", Uuid)


class Start(NamedTuple):
    """The first task of a queue that is available; of priority 0 if there is none."""

    project_id: UUID | None = None
    type: str | None = None
    """That of the agent; None if the claim names types."""
    priority: int | None = None
    available_at: datetime | None = None
    id: UUID | None = None
    looked_at: datetime | None = None
    """No task that was available by then was more urgent."""


FRONT = Start()
"""The front of every queue."""


@dataclass(slots=True)
class _Queue:
    """The tasks of a project that are of certain types."""

    start: Start = FRONT
    claims: int = 0
    """How many there were since it was looked at."""
    looked_at: float = -VALID_SECONDS

    def is_due(self, now: float) -> bool:
        return self.claims >= CLAIMS and now - self.looked_at >= SECONDS


Types = tuple[str, ...]
"""The types of a claim; none are those of the agent."""


class Starts:
    """Where the queues begin from which this process has claimed many tasks."""

    def __init__(self) -> None:
        self._queues: dict[tuple[Any, ...], _Queue] = {}
        # An agent may get another type or project, so the statement of a claim checks them.
        self._of_agents: dict[tuple[UUID, Types], _Queue] = {}

    async def find(self, session: WriteSession, agent_id: UUID, types: Types) -> Start:
        """Where a claim of an agent begins to look."""
        if len(self._of_agents) > MOST_KNOWN:
            self._queues.clear()
            self._of_agents.clear()
        queue = self._of_agents.setdefault((agent_id, types), _Queue())
        queue.claims += 1
        now = time.monotonic()
        if queue.is_due(now):
            # Before the statement ends, so that other claims do not look too.
            queue.claims, queue.looked_at = 0, now
            try:
                queue = await self._look(session, agent_id, types, queue, now)
            except BaseException:
                queue.start = FRONT  # not for longer than it is valid
                raise
        return queue.start if now - queue.looked_at < VALID_SECONDS else FRONT

    async def _look(
        self, session: WriteSession, agent_id: UUID, types: Types, queue: _Queue, now: float
    ) -> _Queue:
        values: dict[str, Any] = {"agent_id": agent_id}
        values |= {f"type_{number}": type for number, type in enumerate(types)}
        viewer = Viewer()
        statement = _start.compiled(viewer, len(types))
        for passed, *found in await session.run_alone(statement, Values(viewer, values), None):
            start = Start(*found)
            queue = self._queues.setdefault((start.project_id, start.type, types), queue)
            queue.start = start if passed > MANY else FRONT
            queue.looked_at = now
            self._of_agents[agent_id, types] = queue
        return queue


starts = Starts()
"""Those of this process."""


def levels(project_id: Any, type: Any) -> Any:
    """The priorities, each with the `available_at` and the `id` at which a claim begins to look.

    For the statement of a claim by an agent of this project and type, or NULL if it names types.
    """
    level = conditions.levels()
    first = value("start_priority", Integer)
    is_here = and_(
        project_id == value("start_project_id", Uuid),
        type.is_not_distinct_from(value("start_type", String)),
        level.c.priority >= first,
    )
    is_first = level.c.priority == first
    available_at = case(
        (is_first, value("start_available_at", Timestamp)),
        else_=value("start_looked_at", Timestamp),
    )
    return select(
        level.c.priority,
        case((is_here, available_at), else_=FIRST_TIME).label("available_at"),
        case((and_(is_here, is_first), value("start_id", Uuid)), else_=FIRST_ID).label("id"),
    )


def values_of(start: Start) -> dict[str, Any]:
    """The values of `levels`."""
    return {f"start_{name}": each for name, each in start._asdict().items()}


def _read() -> ColumnElement[int]:
    """How many entries of the index this connection has read, until PostgreSQL reports it."""
    return func.pg_stat_get_xact_tuples_returned(INDEX, type_=BigInteger)


@Statement
def _start(viewer: Viewer, named_types: int) -> Executable:
    """How many entries are before the start of the queue of an agent, and the start."""
    agent = (
        select(Agent.project_id, Agent.type, _read().label("before"))
        .where(Agent.id == value("agent_id", Uuid))
        .cte("agent")
    )
    level = conditions.levels()

    def first(type: Any) -> Any:
        task = aliased(Task)
        found = select(task.priority, task.available_at, task.id).where(
            task.project_id == agent.c.project_id,
            is_ready(task),
            kind(task) == type,
            task.priority == level.c.priority,
            is_available(task),
        )
        found = found.order_by(task.available_at, task.id).limit(literal_column("1"))
        return found.correlate(agent, level).subquery().select()

    named: Sequence[Any] = [value(f"type_{number}", String) for number in range(named_types)]
    of_level = union_all(*map(first, (ANY_TYPE, *(named or [agent.c.type])))).subquery("of_level")
    head = select(of_level).correlate(agent, level).lateral("head")
    order = (head.c.priority.desc(), head.c.available_at, head.c.id)
    heads: Any = select(head).select_from(level.join(head, true())).order_by(*order)
    start = heads.limit(literal_column("1")).correlate(agent).lateral("start")
    return select(
        _read() - agent.c.before,
        agent.c.project_id,
        null() if named_types else agent.c.type,
        func.coalesce(start.c.priority, literal_column("0")),
        start.c.available_at,
        start.c.id,
        # The transactions that make tasks available commit later than at the time they give them.
        func.statement_timestamp() - literal_column("interval '10 seconds'", Interval),
    ).select_from(agent.outerjoin(start, true()))
