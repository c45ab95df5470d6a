"""Random work on a project, held step by step against the model in `tests/model.py`.

Agents claim, go on, end their attempts, or never answer again; people answer, cancel, retry and
move tasks; leases and requests run out, the project is paused, its budget is used up. After each
step the database must say what the model says, and what holds at any time is checked. At the end
all is reopened, and every task must come to be completed.

`TROUPE_EXAMPLES=2000 pytest tests/test_model.py` looks for longer.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from decimal import Decimal
from functools import wraps
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import URL, text

import db
from db import (
    AnswerOutcome,
    AttemptStatus,
    InteractionStatus,
    InteractionType,
    OnExpiry,
    OnFailure,
    ProjectStatus,
    Right,
    TaskStatus,
    boards,
    claims,
    dependencies,
    interaction_answers,
    requests,
    sweeper,
    usage,
)
from db.errors import BudgetExceeded, CycleDetected, DomainError, IllegalTransition, LeaseLost
from tests import factories
from tests.conftest import ADMIN
from tests.model import Asked, Fixed, Limits, Work, Worker
from tests.test_dependencies import NOTHING

EXAMPLES = int(os.environ.get("TROUPE_EXAMPLES", "30"))
STEPS = 50
PEOPLE = 3

TYPES = (None, "DEVELOPER", "RESEARCHER")
A_WHILE = 1000
"""A time to wait, in seconds, that does not end by itself during a test."""

T = TypeVar("T")
Operation = Callable[[db.WriteSession], Awaitable[Any]]

NUMBERS = st.integers(0, 20)
"""Which of those there are, counted around."""

TASKS = st.builds(
    Fixed,
    st.sampled_from(TYPES),
    st.sampled_from((1, 3, 5)),
    st.sampled_from("-aab").map(lambda key: frozenset({key} - {"-"})),
    st.booleans(),
)
LIMITS = st.builds(
    Limits,
    st.sampled_from((None, 1, 2)),
    st.sampled_from((None, 1, 2)),
    st.sampled_from(({}, {"DEVELOPER": 1})),
    st.none(),
)

STATE = """SELECT json_build_object(
    'tasks', (SELECT coalesce(json_agg(t ORDER BY t.id), '[]') FROM (
      SELECT id, status, blocked_reason, agent_id, unmet_dependency_count, attempt_count,
        max_attempts, cancel_requested, available_at > now() AS is_later, current_attempt_id,
        (extract(epoch FROM available_at) * 1000000)::bigint AS since,
        completed_at IS NOT NULL AS is_done
      FROM tasks WHERE project_id = :project) t),
    'attempts', (SELECT coalesce(json_agg(a ORDER BY a.task_id, a.number), '[]') FROM (
      SELECT a.id, a.task_id, a.number, a.status, a.agent_id, a.ended_at IS NULL AS is_open,
        l.attempt_id IS NOT NULL AS is_held, l.agent_id AS holder
      FROM task_attempts a JOIN tasks t ON t.id = a.task_id
      LEFT JOIN task_leases l ON l.attempt_id = a.id
      WHERE t.project_id = :project) a),
    'requests', (SELECT coalesce(json_agg(r ORDER BY r.id), '[]') FROM (
      SELECT id, status, approval_count, content_hash
      FROM human_interactions WHERE project_id = :project) r)
)::text"""
"""All that is compared, in one statement: most of the time goes into asking."""


def _row(values: dict[str, Any]) -> Any:
    ids = {key: UUID(value) for key, value in values.items() if key in IDS and value is not None}
    return SimpleNamespace(**values | ids)


IDS = ("id", "task_id", "agent_id", "holder", "current_attempt_id")


def when(holds: Callable[[Any], object]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do nothing in a step that is not possible.

    A `precondition` would be about what is drawn, and must not depend on what `at_once` comes to.
    """

    def decorate(step: Callable[..., None]) -> Callable[..., None]:
        @wraps(step)
        def run(self: Any, **values: Any) -> None:
            if holds(self):
                step(self, **values)

        return run

    return decorate


class Machine(RuleBasedStateMachine):
    """A project in the database, and the model of it."""

    database: db.Database
    wait: Callable[[Coroutine[Any, Any, Any]], Any]
    people: Sequence[UUID]

    def __init__(self) -> None:
        super().__init__()
        self.work = Work({})
        self.project: Any = None
        self.tasks: list[UUID] = []
        self.agents: list[UUID] = []
        self.requests: list[UUID] = []
        self.stored: dict[str, Sequence[Any]] = {}
        self.over: set[tuple[int, int]] = set()
        """The attempts whose leases have run out, each by its task and its number."""
        self.is_sound = False
        """Whether the last step ended well."""

    # How the database is asked

    def do(self, operation: Operation, right: Right = Right.EDIT, viewer: Any = ADMIN) -> Any:
        """Run an operation in a transaction."""
        self.is_sound = False
        return type(self).wait(self.transaction(operation, right, viewer))

    async def transaction(self, operation: Operation, right: Right, viewer: Any = ADMIN) -> Any:
        async with self.database.write(viewer, right) as session:
            return await operation(session)

    def sql(self, statement: str, **values: Any) -> None:
        """Change rows past the rules, such as clocks."""
        self.do(lambda session: session.execute(text(statement), values))

    def load(self) -> None:
        """Read what is stored."""

        async def read() -> str:
            async with self.database.read() as session:
                found = await session.scalar(text(STATE), {"project": self.project})
            return str(found)

        found = json.loads(type(self).wait(read()))
        self.stored = {name: list(map(_row, rows)) for name, rows in found.items()}
        self.work.since = {n: row.since for n, row in enumerate(self.stored["tasks"])}

    def attempts(self) -> dict[int, list[Any]]:
        """The stored attempts at each task."""
        place = {id: number for number, id in enumerate(self.tasks)}
        found: dict[int, list[Any]] = {number: [] for number in place.values()}
        for row in self.stored["attempts"]:
            found[place[row.task_id]].append(row)
        return found

    def attempt(self, task: int, number: int = -1) -> UUID:
        """The id of an attempt at a task, by default the last one."""
        return self.attempts()[task][number].id  # type: ignore[no-any-return]

    # What is compared

    def check(self) -> None:
        """Hold what is stored against the model, and against what holds at any time."""
        self.load()
        self.compare()

    def compare(self) -> None:
        self.is_sound = False
        work = self.work
        work.settle()
        agents = {id: number for number, id in enumerate(self.agents)}
        current = self.attempts()
        for task, row in enumerate(self.stored["tasks"]):
            found = {
                "status": row.status,
                "reason": row.blocked_reason,
                "agent": agents.get(row.agent_id),
                "unmet": row.unmet_dependency_count,
                "attempts": [attempt.status for attempt in current[task]],
                "most": row.max_attempts,
                "is to be cancelled": row.cancel_requested,
                "is later": row.is_later,
            }
            expected = {
                "status": work.statuses[task],
                "reason": work.reasons[task],
                "agent": work.agents[task],
                "unmet": work.unmet(task),
                "attempts": work.attempts[task],
                "most": work.most[task],
                "is to be cancelled": task in work.requested,
                "is later": task in work.later,
            }
            assert found == expected, f"task {task}"
        asked = [(row.status, row.approval_count) for row in self.stored["requests"]]
        assert asked == [(each.status, len(each.approvals)) for each in work.requests]
        self.check_rows()
        work.check()
        self.is_sound = True

    def check_rows(self) -> None:
        """What holds of the rows, whatever the model says."""
        attempts = self.attempts()
        assert len(self.stored["tasks"]) == len(self.tasks), "a task is lost"
        for task, row in enumerate(self.stored["tasks"]):
            mine = attempts[task]
            assert [each.number for each in mine] == [*range(1, row.attempt_count + 1)]
            open = [each for each in mine if each.is_open]
            assert [each.id for each in open] == [each.id for each in mine if each.is_held]
            assert [each.id for each in open] == [row.current_attempt_id] * len(open)
            assert open or row.current_attempt_id is None
            assert bool(open) is (row.status == TaskStatus.IN_PROGRESS)
            for each in open:
                assert each.agent_id == each.holder == row.agent_id
            assert row.is_done is (row.status == TaskStatus.COMPLETED)

    def adopt(self) -> None:
        """Take over into the model what became of operations whose order is not known."""
        before = {task: list(found) for task, found in self.work.attempts.items()}
        ended = [each.status for each in self.work.requests]
        self.load()
        work, attempts = self.work, self.attempts()
        agents = {id: number for number, id in enumerate(self.agents)}
        for task, row in enumerate(self.stored["tasks"]):
            work.statuses[task] = TaskStatus(row.status)
            work.reasons[task] = row.blocked_reason and db.BlockedReason(row.blocked_reason)
            work.agents[task] = agents.get(row.agent_id)
            work.most[task] = row.max_attempts
            work.attempts[task] = [AttemptStatus(each.status) for each in attempts[task]]
            for group, holds in (
                (work.requested, row.cancel_requested),
                (work.later, row.is_later),
            ):
                (group.add if holds else group.discard)(task)
            old = [status for status in before[task] if status is not AttemptStatus.RUNNING]
            assert work.attempts[task][: len(old)] == old, "an attempt that had ended has changed"
            done = AttemptStatus.SUCCEEDED
            assert work.attempts[task].count(done) <= before[task].count(done) + 1, "done twice"
        for request, row, status in zip(work.requests, self.stored["requests"], ended, strict=True):
            request.status = InteractionStatus(row.status)
            assert status in (InteractionStatus.PENDING, request.status), "answered twice"
            if request.status is InteractionStatus.APPROVED and status != request.status:
                request.approvals = set(range(row.approval_count))
        self.over &= {(task, len(work.attempts[task])) for task in work.running()}
        self.check()

    # The beginning

    @initialize(
        tasks=st.lists(TASKS, min_size=3, max_size=6),
        parents=st.lists(st.one_of(st.none(), st.none(), NUMBERS), min_size=6, max_size=6),
        edges=st.lists(st.tuples(NUMBERS, NUMBERS, st.sampled_from(OnFailure)), max_size=4),
        limits=LIMITS,
        budget=st.none() | st.integers(1, 4),
        most=st.integers(1, 3),
    )
    def begin(
        self,
        tasks: list[Fixed],
        parents: list[int | None],
        edges: list[tuple[int, int, OnFailure]],
        limits: Limits,
        budget: int | None,
        most: int,
    ) -> None:
        count = len(tasks)
        work = self.work = Work(
            dict.fromkeys(range(count)),
            statuses=dict.fromkeys(range(count), TaskStatus.PENDING),
            tasks=tasks,
            workers=[Worker("DEVELOPER", 1), Worker("DEVELOPER", 2), Worker("RESEARCHER", 3)],
            limits=Limits(limits.per_agent, limits.in_review, limits.by_type, budget),
            agents=dict.fromkeys(range(count)),
            reasons=dict.fromkeys(range(count)),
            attempts={task: [] for task in range(count)},
            most=dict.fromkeys(range(count), most),
        )
        for task, parent in zip(range(count), parents, strict=False):
            work.parents[task] = None if parent is None else parent % count
            if work.is_circular():
                work.parents[task] = None
        for by, to, on_failure in edges:
            pair = by % count, to % count
            work.edges[pair] = on_failure
            if work.is_circular():
                del work.edges[pair]
        self.do(self.make)
        self.check()

    async def make(self, session: db.WriteSession) -> None:
        """Store what the model begins with."""
        work, limits = self.work, self.work.limits
        project = await factories.make_project(
            session,
            None,
            status=ProjectStatus.IN_PROGRESS,
            max_tasks_per_agent=limits.per_agent,
            max_tasks_in_review=limits.in_review,
            max_tasks_by_type=limits.by_type,
        )
        for id in self.people:
            user = await session.get_one(db.User, id)
            await factories.make_member(session, project, user, db.MemberRole.APPROVER)
        agents = [
            await factories.make_agent(
                session,
                project,
                f"{number}",
                type=worker.type,
                max_concurrent_tasks=worker.capacity,
                status=db.AgentStatus.ACTIVE,
            )
            for number, worker in enumerate(work.workers)
        ]
        rows = [
            await factories.make_task(
                session,
                project,
                f"{number}",
                type=task.type,
                priority=task.priority,
                resource_keys=sorted(task.resources),
                retry_backoff_seconds=A_WHILE if task.has_backoff else 0,
                max_attempts=work.most[number],
            )
            for number, task in enumerate(work.tasks)
        ]
        for task, parent in work.parents.items():
            rows[task].parent_task_id = None if parent is None else rows[parent].id
        for (by, to), on_failure in work.edges.items():
            await factories.make_dependency(session, rows[by], rows[to], on_failure=on_failure)
        self.project, self.tasks = project.id, [row.id for row in rows]
        self.agents = [agent.id for agent in agents]
        await dependencies.recount(session, self.tasks)
        if limits.budget is not None:
            await db.Budget.create(
                session,
                project_id=project.id,
                period=db.BudgetPeriod.EVER,
                limit_cost=Decimal(limits.budget),
                claim_reserve=Decimal(1),
            )

    # Which there are

    def running(self) -> list[int]:
        return self.work.running()

    def ended(self) -> list[tuple[int, int]]:
        return [
            (task, number)
            for task, found in self.work.attempts.items()
            for number, status in enumerate(found)
            if status is not AttemptStatus.RUNNING
        ]

    @staticmethod
    def one(found: Sequence[T], which: int) -> T:
        return found[which % len(found)]

    def seconds(self, which: int) -> dict[str, int]:
        return {"seconds": A_WHILE + which}

    # Workers

    def claim_for(self, agent: int, limit: int) -> list[int]:
        """Claim tasks, as the model allows it; returns them."""
        work = self.work
        expected, why = work.claimable(agent), work.why_idle(agent)
        id, claimed = self.agents[agent], claims.Claimed([])
        try:
            claimed = self.do(
                lambda session: claims.claim(session, id, limit=limit, seconds=A_WHILE), Right.WORK
            )
        except BudgetExceeded:
            assert not work.has_budget()
        self.load()
        place = {row.id: self.tasks.index(row.task_id) for row in self.stored["attempts"]}
        found = [place[id] for id in claimed.attempts]
        note(f"agent {agent} gets {found}, of {expected}, {claimed.idle and claimed.idle.reason}")
        assert found[:1] == expected[:1], "the most urgent task comes first"
        assert len(found) <= limit
        if why is not None and work.has_budget():
            assert claimed.idle is not None
            assert claimed.idle.reason is why
        for task in found:
            assert task in work.claimable(agent), f"{task} cannot be claimed"
            work.claim(agent, task)
        self.compare()
        return found

    @rule(agent=st.integers(0, 2), limit=st.sampled_from((1, 1, 2, 4)))
    def claim(self, agent: int, limit: int) -> None:
        self.claim_for(agent, limit)

    @rule(agent=st.integers(0, 2))
    def claim_one(self, agent: int) -> None:
        self.claim_for(agent, 1)

    @rule(which=NUMBERS, has_report=st.booleans())
    @when(running)
    def heartbeat(self, which: int, has_report: bool) -> None:
        task = self.one(self.running(), which)
        beat = claims.Heartbeat(self.attempt(task), which if has_report else None)
        self.do(lambda session: claims.heartbeat(session, [beat], A_WHILE), Right.WORK)
        self.over.discard((task, len(self.work.attempts[task])))
        self.check()

    @rule(which=NUMBERS)
    @when(running)
    def extend(self, which: int) -> None:
        task = self.one(self.running(), which)
        self.end(task, claims.extend, seconds=A_WHILE)
        self.check()

    def end(self, task: int, how: Callable[..., Any], *values: Any, **more: Any) -> None:
        """Do something with the attempt that is running at a task."""
        id = self.attempt(task)
        self.do(lambda session: how(session, id, *values, **more), Right.WORK)
        self.over.discard((task, len(self.work.attempts[task])))

    @rule(which=NUMBERS)
    @when(running)
    def complete(self, which: int) -> None:
        task = self.one(self.running(), which)
        self.end(task, claims.complete, {"by": task})
        self.work.end(task, AttemptStatus.SUCCEEDED, TaskStatus.COMPLETED)
        self.check()

    @rule(which=NUMBERS, retryable=st.booleans())
    @when(running)
    def fail(self, which: int, retryable: bool) -> None:
        task = self.one(self.running(), which)
        self.end(task, claims.fail, {"message": "No."}, retryable=retryable)
        self.work.fail(task, AttemptStatus.FAILED, retryable)
        self.check()

    @rule(which=NUMBERS)
    @when(running)
    def release(self, which: int) -> None:
        task = self.one(self.running(), which)
        self.end(task, claims.release, "Half done.")
        self.work.end(task, AttemptStatus.RELEASED, TaskStatus.PENDING)
        self.check()

    @rule(which=NUMBERS, how=st.sampled_from(("complete", "fail", "release", "extend", "beat")))
    @when(ended)
    def be_late(self, which: int, how: str) -> None:
        """A worker goes on with an attempt that has ended: it changes nothing."""
        task, number = self.one(self.ended(), which)
        id = self.attempt(task, number)
        operations: dict[str, Operation] = {
            "complete": lambda session: claims.complete(session, id, {"late": True}),
            "fail": lambda session: claims.fail(session, id, {"late": True}),
            "release": lambda session: claims.release(session, id, "late"),
            "extend": lambda session: claims.extend(session, id, A_WHILE),
            "beat": lambda session: claims.heartbeat(session, [claims.Heartbeat(id, 99)]),
        }
        try:
            self.do(operations[how], Right.WORK)
        except LeaseLost:
            assert how != "beat"
        else:
            assert how == "beat"
        self.check()

    @rule(which=NUMBERS)
    @when(running)
    def let_lease_run_out(self, which: int) -> None:
        """A worker never answers again, or only when its lease is over."""
        task = self.one(self.running(), which)
        self.sql(
            "UPDATE task_leases SET expires_at = now() - interval '1 s' WHERE attempt_id = :id",
            id=self.attempt(task),
        )
        self.over.add((task, len(self.work.attempts[task])))
        self.check()

    @rule()
    @when(lambda self: self.over)
    def sweep(self) -> None:
        over = sorted(self.over)
        type(self).wait(sweeper.sweep(self.database))
        self.over.clear()
        if len(over) > 1:  # in some order
            self.adopt()
            return
        for task, _ in over:
            self.work.fail(task, AttemptStatus.LEASE_LOST)
        self.check()

    @rule(which=NUMBERS)
    @when(lambda self: self.work.later)
    def let_backoff_end(self, which: int) -> None:
        task = self.one(sorted(self.work.later), which)
        self.sql(
            "UPDATE tasks SET available_at = now() - interval '1 s' WHERE id = :id",
            id=self.tasks[task],
        )
        self.work.later.discard(task)
        self.check()

    def has_begun(self) -> bool:
        return any(self.work.attempts.values())

    @rule(cost=st.integers(0, 2))
    @when(has_begun)
    def spend(self, cost: int) -> None:
        call = {"model_name": "m", "cost": Decimal(cost), "input_tokens": 1, "output_tokens": 1}
        self.do(lambda session: usage.record_usage(session, self.project, {(0,): call}), Right.WORK)
        self.work.spent += cost
        self.check()

    # People

    def asking(self) -> list[int]:
        """The tasks about which an agent can ask."""
        return [
            task
            for task in self.work.statuses
            if self.work.statuses[task] is TaskStatus.IN_PROGRESS
            or self.work.reasons[task] is db.BlockedReason.HUMAN_INPUT
        ]

    @rule(which=NUMBERS, required=st.integers(0, 2), on_expiry=st.sampled_from(OnExpiry))
    @when(asking)
    def ask(self, which: int, required: int, on_expiry: OnExpiry) -> None:
        """Ask for so many approvals, or for feedback, and park the task."""
        task = self.one(self.asking(), which)
        id, agent = self.attempt(task), self.work.agents[task]
        assert agent is not None
        values = {
            "project_id": self.project,
            "title": "Go on?",
            "content": {"task": task},
            "on_expiry": on_expiry,
            **({"required_approvals": required} if required else {}),
        }
        model = db.ApprovalRequest if required else db.FeedbackRequest
        viewer = db.Viewer(agent_id=self.agents[agent])
        self.do(
            lambda session: requests.add(session, model, values, attempt_id=id, blocks_task=True),
            Right.WORK,
            viewer,
        )
        self.over.discard((task, len(self.work.attempts[task])))
        self.work.requests.append(Asked(task, required, on_expiry))
        if self.work.statuses[task] is TaskStatus.IN_PROGRESS:
            self.work.end(task, AttemptStatus.RELEASED, TaskStatus.BLOCKED)
        self.check()

    def pending(self) -> list[Asked]:
        return self.work.pending()

    def row_of(self, request: Asked) -> Any:
        return self.stored["requests"][[each is request for each in self.work.requests].index(True)]

    def answering(self, request: Asked, person: int, approved: bool) -> Operation:
        """The operation with which a person answers."""
        row = self.row_of(request)
        kind = InteractionType.APPROVAL if request.required else InteractionType.FEEDBACK
        outcome = AnswerOutcome.APPROVED if approved else AnswerOutcome.REJECTED
        values: dict[str, Any] = {"approved": approved}
        if not request.required:
            outcome, values = AnswerOutcome.ANSWERED, {"feedback": {"good": approved}}
        return lambda session: interaction_answers.answer(
            session, row.id, kind, outcome, row.content_hash, **values
        )

    @rule(which=NUMBERS, person=st.integers(0, PEOPLE - 1), approved=st.booleans())
    @when(pending)
    def answer(self, which: int, person: int, approved: bool) -> None:
        request = self.one(self.pending(), which)
        try:
            self.do(
                self.answering(request, person, approved),
                Right.ANSWER,
                db.Viewer(user_id=self.people[person]),
            )
        except DomainError:
            assert person in request.approvals
        else:
            assert person not in request.approvals
            if not request.required:
                self.work.close(request, InteractionStatus.ANSWERED)
            elif not approved:
                self.work.close(request, InteractionStatus.REJECTED)
            else:
                request.approvals.add(person)
                if len(request.approvals) == request.required:
                    self.work.close(request, InteractionStatus.APPROVED)
        self.check()

    @rule(which=NUMBERS)
    @when(pending)
    def withdraw(self, which: int) -> None:
        """Cancel a request."""
        request = self.one(self.pending(), which)
        id = self.row_of(request).id
        self.do(lambda session: interaction_answers.cancel(session, id))
        self.work.close(request, InteractionStatus.CANCELLED)
        self.check()

    @rule(which=NUMBERS)
    @when(pending)
    def let_request_expire(self, which: int) -> None:
        request = self.one(self.pending(), which)
        self.sql(
            "UPDATE human_interactions SET expires_at = now() - interval '1 s' WHERE id = :id",
            id=self.row_of(request).id,
        )
        type(self).wait(interaction_answers.expire(self.database))
        self.work.close(request, InteractionStatus.EXPIRED)
        self.check()

    @rule(which=NUMBERS, to=st.sampled_from(sorted(boards.TARGETS)))
    @when(has_begun)
    def move(self, which: int, to: TaskStatus) -> None:
        """Set the status of a task by hand."""
        task = self.one(range(len(self.tasks)), which)
        is_allowed = self.work.hand(task, to)
        try:
            self.do(lambda session: boards.transition(session, self.tasks[task], to))
        except IllegalTransition:
            assert not is_allowed
        else:
            assert is_allowed
        self.check()

    @rule(which=NUMBERS)
    @when(has_begun)
    def cancel(self, which: int) -> None:
        self.move_by(boards.cancel, which, TaskStatus.CANCELLED)

    def unsuccessful(self) -> list[int]:
        return [task for task, status in self.work.statuses.items() if status in NOTHING]

    def move_by(self, operation: Any, which: int, to: TaskStatus) -> None:
        task = self.one(range(len(self.tasks)), which)
        is_allowed = self.work.hand(task, to)
        try:
            self.do(lambda session: operation(session, self.tasks[task]))
        except IllegalTransition:
            assert not is_allowed
        else:
            assert is_allowed
        self.check()

    @rule(which=NUMBERS, attempts=st.integers(1, 2))
    @when(unsuccessful)
    def retry(self, which: int, attempts: int) -> None:
        task = self.one(self.unsuccessful(), which)
        self.do(lambda session: boards.retry(session, self.tasks[task], attempts))
        self.work.to_do(task, attempts)
        self.check()

    @rule(by=NUMBERS, to=NUMBERS, on_failure=st.sampled_from(OnFailure))
    @when(has_begun)
    def connect(self, by: int, to: int, on_failure: OnFailure) -> None:
        """Add a dependency, or change what it does on failure."""
        pair = by % len(self.tasks), to % len(self.tasks)
        before = self.work.edges.get(pair)
        self.work.edges[pair] = on_failure
        if is_circular := self.work.is_circular():
            del self.work.edges[pair]
            assert before is None
        try:
            self.do(self.on_edge(pair, dependencies.add_dependency, on_failure))
        except CycleDetected:
            assert is_circular
        else:
            assert not is_circular
        self.check()

    @rule(which=NUMBERS)
    @when(lambda self: self.work.edges)
    def disconnect(self, which: int) -> None:
        """Remove a dependency."""
        pair = self.one(sorted(self.work.edges), which)
        del self.work.edges[pair]
        self.do(self.on_edge(pair, dependencies.remove_dependency))
        self.check()

    def on_edge(self, pair: tuple[int, int], change: Any, *values: Any) -> Operation:
        by, to = (self.tasks[task] for task in pair)

        async def operation(session: db.WriteSession) -> None:
            await dependencies.lock(session, by)
            rows = [await session.fetch(db.Task, id) for id in (by, to)]
            await change(session, *rows, *values)

        return operation

    @rule()
    @when(lambda self: self.running() and not self.work.is_paused)
    def pause(self) -> None:
        self.transition(ProjectStatus.PAUSED)

    @rule()
    @when(lambda self: self.work.is_paused)
    def resume(self) -> None:
        self.transition(ProjectStatus.IN_PROGRESS)

    def transition(self, to: ProjectStatus) -> None:
        """Set the status of the project."""

        async def operation(session: db.WriteSession) -> None:
            project = await session.fetch(db.Project, self.project)
            project.transition(to)

        self.do(operation)
        self.work.is_paused = to is ProjectStatus.PAUSED
        self.check()

    # Everybody at once

    @rule(
        kinds=st.lists(
            st.tuples(
                st.sampled_from(
                    ("claim", "complete", "fail", "release", "sweep", "answer", "cancel", "beat")
                ),
                NUMBERS,
            ),
            min_size=2,
            max_size=6,
        )
    )
    def at_once(self, kinds: list[tuple[str, int]]) -> None:
        """Do several things at once, in whichever order they come."""
        found = [each for kind, which in kinds if (each := self.operation(kind, which))]

        async def run() -> list[Any]:
            return await asyncio.gather(*found, return_exceptions=True)

        outcomes = type(self).wait(run())
        note(f"outcomes: {[str(each) for each in outcomes if isinstance(each, BaseException)]}")
        for each in outcomes:
            if isinstance(each, BaseException) and not isinstance(each, DomainError):
                raise each
        self.adopt()

    @rule(agents=st.lists(st.integers(0, 2), min_size=2, max_size=4), limit=st.integers(1, 3))
    def claim_at_once(self, agents: list[int], limit: int) -> None:
        """Several workers claim at once, some of them as the same agent."""
        self.at_once(kinds=[("claim", agent + 3 * limit) for agent in agents])

    def operation(self, kind: str, which: int) -> Any:
        """One of the things that happen at once, or None if there is nothing to do it to."""
        if kind == "claim":
            limit, agent = divmod(which, 3)
            id = self.agents[agent]
            return self.transaction(
                lambda session: claims.claim(session, id, limit=limit + 1, seconds=A_WHILE),
                Right.WORK,
            )
        if kind == "sweep":
            return sweeper.sweep(self.database)
        if kind == "cancel":
            task = self.tasks[which % len(self.tasks)]
            return self.transaction(lambda session: boards.cancel(session, task), Right.EDIT)
        if kind == "answer":
            if not (single := [each for each in self.pending() if each.required < 2]):
                return None
            person = which % PEOPLE
            operation = self.answering(self.one(single, which), person, which % 2 == 0)
            viewer = db.Viewer(user_id=self.people[person])
            return self.transaction(operation, Right.ANSWER, viewer)
        if not (running := self.running()):
            return None
        id = self.attempt(self.one(running, which))
        operations: dict[str, Operation] = {
            "complete": lambda session: claims.complete(session, id, {"which": which}),
            "fail": lambda session: claims.fail(session, id, {"which": which}),
            "release": lambda session: claims.release(session, id, f"{which}"),
            "beat": lambda session: claims.heartbeat(
                session, [claims.Heartbeat(id, which)], A_WHILE
            ),
        }
        return self.transaction(operations[kind], Right.WORK)

    # The end

    def teardown(self) -> None:
        """Reopen everything, and work it off."""
        if self.is_sound:
            self.finish()

    def finish(self) -> None:
        work = self.work
        if work.is_paused:
            self.resume()
        if self.over:
            self.sweep()
        self.sql("UPDATE budgets SET limit_cost = 1000000 WHERE project_id = :id", id=self.project)
        work.limits.budget = None
        while self.pending():
            self.withdraw(which=0)
        for _ in range(10 * len(self.tasks)):
            while self.running():
                self.complete(which=0)
            if all(status is TaskStatus.COMPLETED for status in work.statuses.values()):
                return
            while work.later:
                self.let_backoff_end(which=0)
            for task, status in work.statuses.items():
                if status is TaskStatus.BLOCKED:
                    self.move(which=task, to=TaskStatus.PENDING)
            for agent in range(len(self.agents)):
                if self.claim_for(agent, 1):
                    break
            else:
                assert self.unsuccessful(), "nobody gets what is left"
                self.retry(which=0, attempts=1)
        raise AssertionError("the plan does not come to an end")


async def _make_people(database: db.Database) -> list[UUID]:
    async with database.write(ADMIN) as session:
        return [
            (await db.User.create(session, username=f"p{n}", email=f"p{n}@localhost")).id
            for n in range(PEOPLE)
        ]


def test_whatever_happens_each_task_is_done_once_and_all_is_counted(database_url: URL) -> None:
    with asyncio.Runner() as runner:
        database = db.Database(database_url)
        people_ids = runner.run(_make_people(database))

        class Bound(Machine):
            wait = staticmethod(runner.run)
            people = people_ids

        Bound.database = database
        try:
            run_state_machine_as_test(
                Bound,
                settings=settings(
                    max_examples=EXAMPLES,
                    stateful_step_count=STEPS,
                    deadline=None,
                    derandomize="TROUPE_EXAMPLES" not in os.environ,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(database.dispose())
