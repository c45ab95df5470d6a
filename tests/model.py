"""What becomes of a project's tasks, as simple as it can be written: in Python, without a clock.

Tasks, agents and requests are numbers. `Work` says what each operation does; `tests/test_model.py`
holds the database against it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from db import AttemptStatus, BlockedReason, InteractionStatus, OnExpiry, TaskStatus, boards
from db.claims import IdleReason
from tests.test_dependencies import NOTHING, Model

USED_UP = {AttemptStatus.FAILED, AttemptStatus.LEASE_LOST}
TO_DO = {TaskStatus.PENDING, TaskStatus.ASSIGNED}
MANY = 1_000_000


@dataclass
class Worker:
    """An agent: which tasks it takes, and how many at once."""

    type: str
    capacity: int


@dataclass
class Limits:
    """What a project allows."""

    per_agent: int | None = None
    in_review: int | None = None
    by_type: dict[str, int] = field(default_factory=dict)
    budget: int | None = None
    """How much may be spent; each attempt reserves 1."""


@dataclass
class Asked:
    """A request to people that blocks a task."""

    task: int
    required: int
    on_expiry: OnExpiry
    status: InteractionStatus = InteractionStatus.PENDING
    approvals: set[int] = field(default_factory=set)


@dataclass
class Fixed:
    """What does not change of a task."""

    type: str | None
    priority: int
    resources: frozenset[str]
    has_backoff: bool


@dataclass
class Work(Model):
    """The tasks of a project with their attempts, and the requests about them."""

    tasks: list[Fixed] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    is_paused: bool = False
    spent: int = 0
    agents: dict[int, int | None] = field(default_factory=dict)
    reasons: dict[int, BlockedReason | None] = field(default_factory=dict)
    attempts: dict[int, list[AttemptStatus]] = field(default_factory=dict)
    most: dict[int, int] = field(default_factory=dict)
    """How many attempts at a task may fail."""
    later: set[int] = field(default_factory=set)
    """The tasks that are not available yet."""
    since: dict[int, int] = field(default_factory=dict)
    """When each task became available, as the database says."""
    requests: list[Asked] = field(default_factory=list)

    def settle(self) -> None:
        """Let statuses follow from agents, reasons from statuses, and requests from reasons."""
        for task, status in self.statuses.items():
            if status in TO_DO:
                assigned = self.agents[task] is not None
                self.statuses[task] = TaskStatus.ASSIGNED if assigned else TaskStatus.PENDING
            if status is not TaskStatus.BLOCKED:
                self.reasons[task] = None
        for request in self.pending():
            if not self.is_in_review(request.task):
                request.status = InteractionStatus.CANCELLED

    # Claims

    def running(self, agent: int | None = None) -> list[int]:
        """The tasks in progress, of an agent or of all."""
        return [
            task
            for task, status in self.statuses.items()
            if status is TaskStatus.IN_PROGRESS and agent in (None, self.agents[task])
        ]

    def used(self) -> set[str]:
        """The resources in use."""
        return {key for task in self.running() for key in self.tasks[task].resources}

    def has_room(self, task: int) -> bool:
        """Whether one more task of its type may be in progress."""
        kind = self.tasks[task].type or ""
        count = sum((self.tasks[other].type or "") == kind for other in self.running())
        return count < self.limits.by_type.get(kind, MANY)

    def capacity(self, agent: int) -> int:
        """How many tasks an agent may have in progress."""
        return min(self.workers[agent].capacity, self.limits.per_agent or MANY)

    def in_review(self) -> int:
        """How many tasks wait for people."""
        return list(self.reasons.values()).count(BlockedReason.HUMAN_INPUT)

    def has_budget(self) -> bool:
        """Whether the budget has room for one more attempt."""
        most = self.limits.budget
        return most is None or self.spent + len(self.running()) + 1 <= most

    def ready(self) -> list[int]:
        """The tasks that wait for nothing and for nobody."""
        return [
            task
            for task, status in self.statuses.items()
            if status in TO_DO and self.unmet(task) == 0
        ]

    def fitting(self, agent: int) -> list[int]:
        """The tasks that are ready and that an agent takes."""
        return [
            task
            for task in self.ready()
            if self.agents[task] == agent
            or (
                self.agents[task] is None
                and self.tasks[task].type in (None, self.workers[agent].type)
            )
        ]

    def why_idle(self, agent: int) -> IdleReason | None:
        """Why an agent gets nothing, budgets aside; None if it gets something."""
        count = len(self.running(agent))
        found = self.fitting(agent)
        now = [task for task in found if task not in self.later]
        free = [task for task in now if not self.tasks[task].resources & self.used()]
        reasons = {
            IdleReason.PROJECT_NOT_IN_PROGRESS: self.is_paused,
            IdleReason.AGENT_AT_CAPACITY: count >= self.workers[agent].capacity,
            IdleReason.PROJECT_LIMIT: count >= self.capacity(agent)
            or self.in_review() >= (self.limits.in_review or MANY)
            or (bool(free) and not any(map(self.has_room, free))),
            IdleReason.RESOURCE_RESERVED: bool(now) and not free,
            IdleReason.BACKOFF: bool(found) and not now,
            IdleReason.WRONG_TYPE: not found
            and any(self.agents[task] is None for task in self.ready()),
            IdleReason.NOTHING_READY: not found,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)

    def claimable(self, agent: int) -> list[int]:
        """The tasks of which an agent can claim each, the most urgent first."""
        if self.why_idle(agent) is not None or not self.has_budget():
            return []
        free = (
            task
            for task in self.fitting(agent)
            if task not in self.later
            and not self.tasks[task].resources & self.used()
            and self.has_room(task)
        )
        order = {task: (self.agents[task] is None, -self.tasks[task].priority) for task in free}
        return sorted(order, key=lambda task: (*order[task], self.since[task], task))

    def claim(self, agent: int, task: int) -> None:
        """Begin an attempt."""
        self.statuses[task] = TaskStatus.IN_PROGRESS
        self.agents[task] = agent
        self.attempts[task].append(AttemptStatus.RUNNING)

    # Ends of attempts

    def count_used(self, task: int) -> int:
        """How many attempts at a task have failed."""
        return sum(status in USED_UP for status in self.attempts[task])

    def end(self, task: int, status: AttemptStatus, to: TaskStatus) -> None:
        """End the attempt that is running at a task."""
        if task in self.requested and status is not AttemptStatus.SUCCEEDED:
            status, to = AttemptStatus.CANCELLED, TaskStatus.CANCELLED
        self.attempts[task][-1] = status
        if to is TaskStatus.PENDING:
            self.agents[task] = None
        if to is TaskStatus.BLOCKED:
            self.reasons[task] = BlockedReason.HUMAN_INPUT
        self.move(task, to)

    def fail(self, task: int, status: AttemptStatus, retryable: bool = True) -> None:
        """End an attempt that has failed, or has lost its lease."""
        used_up = self.count_used(task) + 1 >= self.most[task]
        self.end(
            task, status, TaskStatus.FAILED if used_up or not retryable else TaskStatus.PENDING
        )
        waits = status is AttemptStatus.FAILED and self.tasks[task].has_backoff
        if waits and self.attempts[task][-1] is status and not used_up and retryable:
            self.later.add(task)

    # People

    def hand(self, task: int, to: TaskStatus) -> bool:
        """Set a status by hand. Returns whether that is allowed."""
        before = self.statuses[task]
        if to not in boards.BY_HAND.allowed(before):
            return False
        match to:
            case TaskStatus.PENDING:
                self.to_do(task)
            case TaskStatus.CANCELLED:
                self.cancel(task)
            case _:
                self.move(task, to)
                if to is TaskStatus.BLOCKED:
                    self.reasons[task] = BlockedReason.MANUAL
        return True

    def to_do(self, task: int, attempts: int = 1) -> None:
        """Reopen or release a task."""
        before = self.statuses[task]
        if before is not TaskStatus.BLOCKED and self.attempts[task]:
            self.agents[task] = None
            if before in NOTHING:
                self.later.discard(task)
        self.most[task] = max(self.most[task], self.count_used(task) + attempts)
        self.move(task, TaskStatus.PENDING)

    def wake(self, task: int) -> None:
        """Let a task go on if nobody is asked about it any more."""
        if self.is_in_review(task) and not self.is_asked(task):
            self.statuses[task] = TaskStatus.PENDING
            self.later.discard(task)

    def is_asked(self, task: int) -> bool:
        """Whether people are asked about a task."""
        return any(each.task == task for each in self.pending())

    def pending(self) -> list[Asked]:
        """The requests that nobody has answered."""
        return [each for each in self.requests if each.status is InteractionStatus.PENDING]

    def close(self, request: Asked, status: InteractionStatus) -> None:
        """End a request."""
        request.status = status
        is_kept = request.on_expiry is not OnExpiry.RELEASE
        if status is not InteractionStatus.EXPIRED or not is_kept:
            self.wake(request.task)
        elif request.on_expiry is OnExpiry.FAIL and self.is_in_review(request.task):
            self.move(request.task, TaskStatus.FAILED)

    def is_in_review(self, task: int) -> bool:
        """Whether a task waits for people."""
        return self.reasons[task] is BlockedReason.HUMAN_INPUT

    # What holds at any time

    def check(self) -> None:
        """What holds whatever happens."""
        assert not self.is_circular(), "tasks wait in a circle"
        for agent in range(len(self.workers)):
            count = len(self.running(agent))
            assert count <= self.capacity(agent), f"agent {agent} works on {count} tasks"
        for kind, most in self.limits.by_type.items():
            count = sum(self.tasks[task].type == kind for task in self.running())
            assert count <= most, f"{count} tasks of the type {kind} are in progress"
        keys = [key for task in self.running() for key in self.tasks[task].resources]
        assert len(keys) == len(set(keys)), "two tasks in progress share a resource"
        for task, attempts in self.attempts.items():
            runs = self.statuses[task] is TaskStatus.IN_PROGRESS
            open = [n for n, status in enumerate(attempts) if status is AttemptStatus.RUNNING]
            assert open == ([len(attempts) - 1] if runs else []), f"attempts at {task}: {attempts}"
        for task in self.reasons:
            if self.is_in_review(task) and not self.is_asked(task):
                assert self.is_kept(task), f"task {task} waits for nobody"

    def is_kept(self, task: int) -> bool:
        """Whether a request expired that leaves its task blocked."""
        ended: Iterable[Asked] = (each for each in self.requests if each.task == task)
        expired = {each.on_expiry for each in ended if each.status is InteractionStatus.EXPIRED}
        return OnExpiry.KEEP in expired
