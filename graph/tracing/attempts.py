"""The spans of attempts, from the claim to the end, whichever processes did both.

An attempt keeps the `traceparent` of the operation that has claimed its task. The process that ends
the attempt reads it after the transaction, and makes the span.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from db import AttemptStatus, Database, telemetry
from db.connections import reason
from graph import tracing

log = logging.getLogger("troupe")

# How soon the span of an attempt is made, in seconds; and how long the last ones may take.
PAUSE_SECONDS, LAST_SECONDS = 1.0, 2.0

ENDED = """
    SELECT id, claim_traceparent, started_at, ended_at, status, task_id, agent_id, number
    FROM task_attempts
    WHERE id = ANY ($1::uuid[]) AND ended_at IS NOT NULL AND claim_traceparent IS NOT NULL
"""

# The statuses of attempts that have not done what they were to do.
UNSUCCESSFUL = (AttemptStatus.FAILED, AttemptStatus.LEASE_LOST)


async def trace_attempts(database: Database) -> None:
    """Make the spans of attempts that this process ends, until the task is cancelled."""
    if tracing.active is None:
        return
    telemetry.ended_attempts = []
    has_failed = False
    try:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            try:
                await _make_spans(database)
                has_failed = False
            except Exception as error:
                if not has_failed:
                    log.warning("attempts are not traced for now: %s", reason(error))
                has_failed = True
    finally:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAST_SECONDS):
                await _make_spans(database)
        telemetry.ended_attempts = None


async def _make_spans(database: Database) -> None:
    """Make the spans of the attempts that have ended since the last time."""
    ids, tracer = telemetry.ended_attempts, tracing.active
    if not ids or tracer is None:
        return
    asked = ids.copy()
    rows = await database.fetch(ENDED, [asked], by_key=True)
    del ids[: len(asked)]  # others may have ended meanwhile
    for row in rows:
        is_unsuccessful = row["status"] in UNSUCCESSFUL
        attributes = {
            "troupe.task.id": str(row["task_id"]),
            "troupe.attempt.id": str(row["id"]),
            "troupe.attempt.number": row["number"],
            "troupe.attempt.status": row["status"],
        }
        if row["agent_id"] is not None:
            attributes["troupe.agent.id"] = str(row["agent_id"])
        tracer.attempt(
            row["id"],
            row["claim_traceparent"],
            row["started_at"],
            row["ended_at"],
            attributes,
            row["status"] if is_unsuccessful else None,
        )
