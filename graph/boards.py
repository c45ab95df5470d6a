"""Boards: the tasks of a project as people see and move them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import strawberry
from pydantic import Field

import db
from db import BlockedReason, Right, TaskStatus, boards, readiness
from db.parameters import apply
from graph.core.computed import computed, computed_type, value
from graph.core.fields import argument
from graph.core.filters import keys
from graph.core.inputs import Versioned, input_of
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.scalars import ID

Attempts = Annotated[int, Field(ge=1, le=1000)]


@computed_type
class ProjectStats:
    """The numbers of a project's tasks, and how fast they are completed."""

    total: int = value("How many tasks there are.")
    pending: int = value("How many are PENDING.")
    assigned: int = value("How many are ASSIGNED.")
    in_progress: int = value("How many are IN_PROGRESS.")
    blocked: int = value("How many are BLOCKED.")
    completed: int = value("How many are COMPLETED.")
    failed: int = value("How many are FAILED.")
    cancelled: int = value("How many are CANCELLED.")
    skipped: int = value("How many are SKIPPED.")
    waiting: int = value("How many are PENDING or ASSIGNED, and wait for other tasks.")
    ready: int = value(
        "How many are PENDING or ASSIGNED, wait for no other task, and are available now."
    )
    blocked_on_people: int = value("How many wait for a person's answer.")
    completed_last_hour: int = value("How many were completed in the last hour.")
    completed_last_day: int = value("How many were completed in the last 24 hours.")
    completed_last_week: int = value("How many were completed in the last 7 days.")
    oldest_ready_seconds: int | None = value(
        "How long ago the oldest ready task became available, in seconds, at most 2,000,000,000;"
        " null if none is ready."
    )


@strawberry.type
class Query:
    project_stats: ProjectStats | None = computed(
        ProjectStats,
        readiness.stats,
        by=db.Project.id,
        key=lambda project_id: apply(partial(keys, db.Project), project_id),
        arguments=[argument("project_id", strawberry.ID, "The id of the project.")],
        description="The numbers of a project's tasks; null if you may not see it.",
    )


@input_of(db.Task)
class TransitionTaskInput(Versioned):
    """The new status of a task."""

    id: ID[db.Task]
    to: TaskStatus = Field(
        description="The new status: PENDING, BLOCKED, COMPLETED, FAILED or CANCELLED. PENDING"
        " becomes ASSIGNED if the task has an agent."
    )
    blocked_reason: BlockedReason | None = Field(
        default=None, description="Why it is BLOCKED: MANUAL, the default, or EXTERNAL."
    )


@input_of(db.Task)
class CancelTaskInput(Versioned):
    """The task to cancel."""

    id: ID[db.Task]


@input_of(db.Task)
class RetryTaskInput(Versioned):
    """The task to do after all."""

    id: ID[db.Task]
    attempts: Attempts = Field(
        default=1,
        description="How many further attempts may be made at least; `maxAttempts` is raised for"
        " them if necessary.",
    )


@strawberry.type
class Mutation:
    @mutation(Right.EDIT)
    async def transition_task(
        self, session: db.WriteSession, input: TransitionTaskInput
    ) -> Changed[db.Task]:
        """Hold (BLOCKED), release or reopen (PENDING), complete, fail or cancel a task by hand.

        While an agent works on it, it can only be cancelled, as `cancelTask` does.
        """
        id = await boards.transition(
            session, input.id, input.to, input.blocked_reason, version=input.expected_version
        )
        return Changed(id)

    @mutation(Right.EDIT)
    async def cancel_task(
        self, session: db.WriteSession, input: CancelTaskInput
    ) -> Changed[db.Task]:
        """Cancel a task and its subtasks that have not ended.

        While an agent works on one of them, `cancelRequested` is set: the agent learns it from its
        next heartbeat. If it does not complete the task, the task is CANCELLED when the attempt
        ends or its lease runs out.
        """
        return Changed(await boards.cancel(session, input.id, version=input.expected_version))

    @mutation(Right.EDIT)
    async def retry_task(self, session: db.WriteSession, input: RetryTaskInput) -> Changed[db.Task]:
        """Let a task that is FAILED, CANCELLED or SKIPPED be done after all.

        What was skipped because of it is reopened, except what another task that failed, was
        cancelled or was skipped keeps from being done.
        """
        id = await boards.retry(session, input.id, input.attempts, version=input.expected_version)
        return Changed(id)
