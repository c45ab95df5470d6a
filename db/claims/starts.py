"""Where claims begin to look for a task, while an old transaction keeps dead index entries.

The entry of a claimed task stays in the index of the ready tasks until no transaction can see the
task as ready. Claims read such entries and skip them, 0.4 us for each, so they get slower as long
as a transaction with an old snapshot is open. So each process looks up now and then where the ready
tasks of a queue begin. If there are many dead entries before, its claims begin there for a while.

A task that becomes ready before that place meanwhile may have to wait until then, behind less
urgent ones. If there is no other, it is claimed at once: a claim that finds nothing looks again
from the front.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
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
from db.connections import DRIVER_ERRORS, reason
from db.scopes import Viewer
from db.sessions import WriteSession
from db.statements import Statement, Values, value
from db.tasks import Task

log = logging.getLogger("troupe")

CLAIMS = 100
"""The number of claims of a queue after which its start is looked up again."""

SECONDS = 1.0
"""The shortest time between two lookups of a start, in seconds."""

LOOKUPS = 10
"""The shortest time between them, as a multiple of the time that the last one took."""

MANY = 2_000
"""With fewer dead entries before the start, claims begin at the front."""

FEW = 10
"""The number of claims of an agent after which its queue is looked up."""

MOST_KNOWN = 10_000
"""The largest number of agents, and of queues, that are remembered."""

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
    valid_until: float = 0.0
    claims: int = 0
    """How many there were since the start was looked up."""
    next_lookup: float = 0.0


@dataclass(slots=True)
class _Agent:
    """An agent that claims tasks of certain types."""

    queue: _Queue | None = None
    """Once it is known. The statement of a claim checks whether it is still the agent's."""
    claims: int = 0
    """How many there were since it was looked up."""


Types = tuple[str, ...]
"""The types of a claim; none are those of the agent."""


class Starts:
    """Where the queues begin from which this process claims many tasks."""

    def __init__(self) -> None:
        self._agents: dict[tuple[UUID, Types], _Agent] = {}
        self._queues: dict[Any, _Queue] = {}

    async def find(self, session: WriteSession, agent_id: UUID, types: Types) -> Start:
        """Where a claim of an agent begins to look."""
        # Here, because those that claim once are remembered too.
        if max(len(self._agents), len(self._queues)) > MOST_KNOWN:
            self._agents.clear()
            self._queues.clear()
        agent = self._agents.setdefault((agent_id, types), _Agent())
        agent.claims += 1
        if agent.claims == FEW or agent.claims > CLAIMS:
            agent.claims = FEW
            agent.queue = await self._queue(session, agent_id, types)
        queue = agent.queue
        if queue is None:
            return FRONT
        queue.claims += 1
        if queue.claims >= CLAIMS and monotonic() >= queue.next_lookup:
            await self._look_up(session, agent_id, types, queue)
        return queue.start if monotonic() < queue.valid_until else FRONT

    async def _queue(self, session: WriteSession, agent_id: UUID, types: Types) -> _Queue | None:
        for row in await _run(session, _queue_of, len(types), agent_id=agent_id):
            return self._queues.setdefault((*row, types), _Queue())
        return None

    async def _look_up(
        self, session: WriteSession, agent_id: UUID, types: Types, queue: _Queue
    ) -> None:
        """Look up the start. Other claims do not look it up meanwhile."""
        queue.claims, queue.next_lookup = 0, math.inf
        named = {f"type_{number}": type for number, type in enumerate(types)}
        began, took = monotonic(), 0.0
        try:
            rows = await _run(session, _start, len(types), agent_id=agent_id, **named)
            took = monotonic() - began
            for dead, *found in rows:
                queue.start = Start(*found) if dead > MANY else FRONT
        except DRIVER_ERRORS as error:
            # The claim does not need it.
            log.warning("it is not known where the ready tasks begin: %s", reason(error))
            queue.start = FRONT
        finally:
            pause = max(SECONDS, LOOKUPS * took)
            queue.next_lookup = monotonic() + pause
            queue.valid_until = queue.next_lookup + pause if took else 0.0


async def _run(session: WriteSession, statement: Statement, *options: Any, **values: Any) -> Any:
    viewer = Viewer()
    found = statement.compiled(viewer, *options)
    return await session.run_alone(found, Values(viewer, values), is_logged=False)


of_this_process = Starts()
"""Where the queues begin for the claims of this process."""


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
def _queue_of(viewer: Viewer, named_types: int) -> Executable:
    """What tells the queue of an agent from others, besides the types that a claim names."""
    type = null() if named_types else Agent.type
    return select(Agent.project_id, type).where(Agent.id == value("agent_id", Uuid))


@Statement
def _start(viewer: Viewer, named_types: int) -> Executable:
    """How many dead entries are before the start of the queue of an agent, and the start."""
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
