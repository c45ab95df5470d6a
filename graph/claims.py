"""Claims: agents take tasks, keep them by heartbeats, and end their attempts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry
from pydantic import BaseModel, Field
from strawberry.scalars import JSON

import db
from db import Right, claims, leases
from db.claims import IdleReason
from graph.core.entities import describe_enum
from graph.core.inputs import Repeatable, input_of
from graph.core.mutations import limited, mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID, Line, Text

describe_enum(IdleReason)

LeaseSeconds = Annotated[int, Field(ge=1, le=leases.LONGEST_SECONDS)]
Percent = Annotated[int, Field(ge=0, le=100)]

LEASE = (
    "How long the agent holds the task without a heartbeat, in seconds, at most a day. Until then"
    " nobody else gets it, even if the agent has crashed."
)

Reason = Annotated[IdleReason, "Why there is no task; null if there is one."]
Message = Annotated[str, "The reason in words, and what to do."]
AvailableAt = Annotated[
    datetime, "With the reason BACKOFF: when the first of the tasks becomes available."
]


@dataclass
class ClaimedTask:
    """The attempt that a claim has begun, or why there is none."""

    attempt: Changed[db.TaskAttempt] | None
    reason: Reason | None
    message: Message | None
    available_at: AvailableAt | None


@dataclass
class ClaimedTasks:
    """The attempts that a claim has begun, or why there are none."""

    attempts: list[Changed[db.TaskAttempt]]
    reason: Reason | None
    message: Message | None
    available_at: AvailableAt | None


@dataclass
class ChangedAttempt:
    """The attempt that a mutation has changed."""

    attempt: Changed[db.TaskAttempt]


@dataclass
class ChangedAttempts:
    """The attempts of a mutation."""

    attempts: list[Changed[db.TaskAttempt]]


@input_of(db.TaskAttempt)
class ClaimTaskInput(Repeatable):
    """Which task an agent takes."""

    agent_id: ID[db.Agent] | None = Field(
        default=None,
        description="The agent that takes it. An agent's token stands for its agent; others name"
        " an agent of their project.",
    )
    types: Annotated[list[Line], Field(max_length=claims.MOST_TYPES)] | None = Field(
        default=None,
        description="The types of tasks that it takes; unless given, the type of the agent. Tasks"
        " without a type, and those that are assigned to it, fit in any case.",
    )
    lease_seconds: LeaseSeconds = Field(default=leases.DEFAULT_SECONDS, description=LEASE)


@input_of(db.TaskAttempt)
class ClaimTasksInput(ClaimTaskInput):
    """Which tasks an agent takes."""

    limit: Annotated[int, Field(ge=1, le=claims.MOST_CLAIMED)] = Field(
        description=f"How many tasks at most, up to {claims.MOST_CLAIMED}."
    )


@input_of(db.TaskAttempt)
class AttemptHeartbeatInput(BaseModel):
    """An attempt that goes on. What is omitted or null stays as it was reported before."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    progress_percent: Percent | None = None
    status_message: Text | None = None
    checkpoint: JSON | None = None


@input_of(db.TaskAttempt)
class HeartbeatInput(Repeatable):
    """The attempts that go on."""

    attempts: Annotated[list[AttemptHeartbeatInput], Field(min_length=1, max_length=1000)] = Field(
        description="The attempts, at most 1,000."
    )
    lease_seconds: LeaseSeconds = Field(default=leases.DEFAULT_SECONDS, description=LEASE)


@input_of(db.TaskAttempt)
class CompleteTaskInput(Repeatable):
    """The attempt that has succeeded."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    result: JSON | None = None


@input_of(db.TaskAttempt)
class AttemptResultInput(BaseModel):
    """An attempt that has succeeded."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    result: JSON | None = None


@input_of(db.TaskAttempt)
class CompleteTasksInput(Repeatable):
    """The attempts that have succeeded."""

    attempts: Annotated[
        list[AttemptResultInput], Field(min_length=1, max_length=claims.MOST_CLAIMED)
    ] = Field(description=f"The attempts, at most {claims.MOST_CLAIMED}, each once.")


@input_of(db.TaskAttempt)
class FailTaskInput(Repeatable):
    """The attempt that has failed."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    error: JSON
    retryable: bool = Field(
        default=True,
        description="Whether another attempt may succeed. If not, the task is FAILED.",
    )
    checkpoint: JSON | None = None


@input_of(db.TaskAttempt)
class ReleaseTaskInput(Repeatable):
    """The attempt whose task is given back."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    handover: Text | None = None
    checkpoint: JSON | None = None


@input_of(db.TaskAttempt)
class ExtendLeaseInput(Repeatable):
    """How long an attempt holds its task."""

    attempt_id: ID[db.TaskAttempt] = Field(description="The attempt.")
    lease_seconds: LeaseSeconds = Field(
        description="How long it holds the task from now, in seconds, at most a day. A lease that"
        " lasts longer already stays as it is."
    )


async def _claim(session: db.WriteSession, input: ClaimTaskInput, limit: int) -> claims.Claimed:
    return await claims.claim(
        session, input.agent_id, types=input.types, limit=limit, seconds=input.lease_seconds
    )


def _changed(id: UUID) -> Changed[db.TaskAttempt]:
    return Changed(id)


@strawberry.type
class Mutation:
    @mutation(Right.WORK)
    async def claim_task(self, session: db.WriteSession, input: ClaimTaskInput) -> ClaimedTask:
        """Take the most urgent task that is ready, and begin an attempt at it.

        If there is none, `reason` says why, and there is no error.
        """
        found = await _claim(session, input, 1)
        attempt = next(map(_changed, found.attempts), None)
        return ClaimedTask(attempt, *(found.idle or (None, None, None)))

    @mutation(Right.WORK, most=limited(claims.MOST_CLAIMED))
    async def claim_tasks(self, session: db.WriteSession, input: ClaimTasksInput) -> ClaimedTasks:
        """Take the most urgent tasks that are ready, and begin an attempt at each.

        They may be fewer than `limit`. If there are none, `reason` says why, and there is no error.
        """
        found = await _claim(session, input, input.limit)
        attempts = list(map(_changed, found.attempts))
        return ClaimedTasks(attempts, *(found.idle or (None, None, None)))

    @mutation(Right.WORK)
    async def heartbeat(self, session: db.WriteSession, input: HeartbeatInput) -> ChangedAttempts:
        """Keep the tasks of attempts, and report how they go.

        Of each attempt, `leaseLost`, `cancelRequested` and `pauseRequested` say whether to stop.
        One that is not listed is not yours, or was deleted with its task.
        """
        beats = [
            claims.Heartbeat(
                beat.attempt_id, beat.progress_percent, beat.status_message, beat.checkpoint
            )
            for beat in input.attempts
        ]
        found = await claims.heartbeat(session, beats, input.lease_seconds)
        return ChangedAttempts(list(map(_changed, found)))

    @mutation(Right.WORK)
    async def complete_task(
        self, session: db.WriteSession, input: CompleteTaskInput
    ) -> ChangedAttempt:
        """End an attempt that has succeeded. Its task is COMPLETED, also if it was to be cancelled.

        The same result once more changes nothing, and is no error.
        """
        await claims.complete(session, input.attempt_id, input.result)
        return ChangedAttempt(_changed(input.attempt_id))

    @mutation(Right.WORK)
    async def complete_tasks(
        self, session: db.WriteSession, input: CompleteTasksInput
    ) -> ChangedAttempts:
        """End attempts that have succeeded, all of them or none, as `completeTask` does.

        If one of them has ended otherwise, nothing is changed, and `userErrors` names each.
        """
        results = [(each.attempt_id, each.result) for each in input.attempts]
        await claims.complete_all(session, results)
        return ChangedAttempts([_changed(id) for id, _ in results])

    @mutation(Right.WORK)
    async def fail_task(self, session: db.WriteSession, input: FailTaskInput) -> ChangedAttempt:
        """End an attempt that has failed.

        Its task is PENDING again, and available after `retryBackoffSeconds`, doubled for each
        further attempt. It is FAILED if it is not retryable or has no attempts left, and CANCELLED
        if that was requested.
        """
        await claims.fail(
            session,
            input.attempt_id,
            input.error,
            retryable=input.retryable,
            checkpoint=input.checkpoint,
        )
        return ChangedAttempt(_changed(input.attempt_id))

    @mutation(Right.WORK)
    async def release_task(
        self, session: db.WriteSession, input: ReleaseTaskInput
    ) -> ChangedAttempt:
        """End an attempt that does not go on. Its task is PENDING again for any agent.

        It does not count towards `maxAttempts`. If a cancellation was requested, the task is
        CANCELLED.
        """
        await claims.release(session, input.attempt_id, input.handover, input.checkpoint)
        return ChangedAttempt(_changed(input.attempt_id))

    @mutation(Right.WORK)
    async def extend_lease(
        self, session: db.WriteSession, input: ExtendLeaseInput
    ) -> ChangedAttempt:
        """Keep the task of an attempt for longer, such as before work without heartbeats."""
        await claims.extend(session, input.attempt_id, input.lease_seconds)
        return ChangedAttempt(_changed(input.attempt_id))
