"""The background task that sends webhooks what happens in their projects, in every process.

It listens to the follower of the event log, which wakes it, and looks at all webhooks from time to
time, which finds what other processes have left and what is to be sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from db import webhook_queues, webhooks
from db.connections import reason
from db.events.topics import Change
from db.rights import Right
from db.scopes import SYSTEM
from db.statistics import totals
from db.webhook_queues import MOST_DELETED
from db.webhooks import DeliveryStatus, WebhookEnd
from graph.delivery.messages import Delivery, content, headers
from graph.delivery.sender import Attempt, Sender

if TYPE_CHECKING:
    from db.engine import Database

log = logging.getLogger("troupe")

HOUR = 3600

DELAYS = (5, 30, 120, 600, HOUR, 3 * HOUR, 6 * HOUR, 6 * HOUR, 8 * HOUR)
"""The seconds after each failed attempt until the next one: a day in all."""

# By which part of itself a delay is shorter or longer at random, so that what has failed together
# is not sent again together.
JITTER = 0.2

# How often all webhooks are looked at, in seconds, and how soon again after an error.
LOOK_SECONDS, RETRY_SECONDS = 5.0, 1.0

# How long a webhook rests after a failed attempt, in seconds.
REST_SECONDS = 5

# How long a lease is valid without an attempt, in seconds: longer than any attempt takes.
LEASE_SECONDS = 60

# How many webhooks a process serves at once, how many deliveries it sends in one turn, and how long
# it begins further ones, in seconds: slow receivers would keep others waiting.
MOST_AT_ONCE, MOST_IN_A_TURN, TURN_SECONDS = 20, 100, 10.0

# How often old deliveries are deleted, in seconds.
DELETE_SECONDS = float(HOUR)


class Worker:
    """Sends the deliveries of webhooks. It is a listener of the follower of the event log."""

    is_listening = False
    """Whether there are active webhooks."""

    def __init__(self, database: Database, sender: Sender) -> None:
        self._database = database
        self._sender = sender
        self._turns: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._projects: set[UUID | None] = set()
        # What to look at next: projects with new events, and webhooks with more to send.
        self._changed: set[UUID | None] = set()
        self._unfinished: set[UUID] = set()
        # Whether others wait until a turn has ended.
        self._is_full = False
        self._look_at = self._delete_at = 0.0

    async def receive(self, changes: Sequence[Change]) -> None:
        """Note the projects with new events."""
        found = {change.project_id for change in changes}
        self._changed |= found & self._projects
        if any(change.entity_type == "Webhook" for change in changes):
            self._look_at = 0.0
        if self._changed or not self._look_at:
            self._woken.set()

    def reset(self) -> None:
        """Some changes were not read, so look at all webhooks."""
        self._look_at = 0.0
        self._woken.set()

    async def run(self) -> None:
        """Send until the task is cancelled."""
        has_failed = False
        try:
            while True:
                self._woken.clear()
                try:
                    await self.step()
                    has_failed = False
                except Exception as error:
                    # Logged once, until it works again.
                    if not has_failed:
                        log.warning("webhooks are not sent anything for now: %s", reason(error))
                    has_failed = True
                    self._look_at = time.monotonic() + RETRY_SECONDS
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(self._look_at - time.monotonic(), 0)):
                        await self._woken.wait()
        finally:
            for turn in self._turns:
                turn.cancel()
            await asyncio.gather(*self._turns, return_exceptions=True)
            await self._sender.close()

    async def step(self) -> None:
        """Make deliveries of what is new, and begin to send what is due."""
        if time.monotonic() < self._look_at:
            changed, self._changed = self._changed, set()
            unfinished, self._unfinished = self._unfinished, set()
            found = unfinished | await self._collect(changed)
            await self._claim(None if self._is_full else found)
            return
        self._changed, self._unfinished = set(), set()
        await self._delete_old()
        wait = await self._look()
        self._look_at = time.monotonic() + wait
        if self.is_listening:
            await self._collect()
            await self._claim()

    async def _look(self) -> float:
        """Find the active webhooks, follow the log for them, and say when to look again."""
        rows = await self._database.run(webhook_queues.waiting)
        self._projects = {project_id for project_id, _ in rows}
        self.is_listening = bool(rows)
        if rows:
            follower = self._database.follower
            if self not in follower.listeners:
                follower.listeners.append(self)
            # Without it, events are found when all webhooks are looked at.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await follower.started()
        soonest = min((seconds for _, seconds in rows if seconds is not None), default=LOOK_SECONDS)
        return min(max(soonest, RETRY_SECONDS), LOOK_SECONDS)

    async def _collect(self, projects: set[UUID | None] | None = None) -> set[UUID]:
        """Make deliveries of new events, of all projects or of these, and return the webhooks."""
        found: set[UUID] = set()
        while projects is None or projects:
            if projects is None:
                rows = await self._database.run(webhook_queues.collected)
            else:
                rows = await self._database.run(
                    webhook_queues.collected_of, projects=list(projects)
                )
            found.update(webhook_id for webhook_id, _ in rows)
            if not any(is_full for _, is_full in rows):
                break
        return found

    async def _claim(self, of: set[UUID] | None = None) -> None:
        """Get leases of webhooks with something to send, of all or of these, and serve them."""
        most = MOST_AT_ONCE - len(self._turns)
        if of is None:
            rows = await self._database.run(
                webhook_queues.claimed, most=most, seconds=LEASE_SECONDS
            )
        elif of:
            rows = await self._database.run(
                webhook_queues.claimed_of, webhooks=list(of), most=most, seconds=LEASE_SECONDS
            )
        else:
            return
        self._is_full = len(rows) == most
        for webhook_id, lease_id in rows:
            turn = asyncio.create_task(self._serve(webhook_id, lease_id))
            self._turns.add(turn)
            turn.add_done_callback(partial(self._end, webhook_id))

    def _end(self, webhook_id: UUID, turn: asyncio.Task[None]) -> None:
        """End a turn, and look for what was added meanwhile, or left for the next turn."""
        self._turns.discard(turn)
        self._unfinished.add(webhook_id)
        self._woken.set()

    async def _serve(self, webhook_id: UUID, lease_id: UUID) -> None:
        """Send the deliveries of a webhook that are due, one after the other, and end the lease."""
        rest = REST_SECONDS
        try:
            if await self._send_due(webhook_id, lease_id):
                rest = 0
        except Exception as error:
            log.warning("webhook %s is not sent anything: %s", webhook_id, reason(error))
        finally:
            with contextlib.suppress(Exception):
                await self._database.run(
                    webhook_queues.released, webhook=webhook_id, lease=lease_id, seconds=rest
                )

    async def _send_due(self, webhook_id: UUID, lease_id: UUID) -> bool:
        """Send what is due, at most for one turn. Returns whether all attempts have succeeded."""
        sent, until = 0, time.monotonic() + TURN_SECONDS
        while sent < MOST_IN_A_TURN:
            rows = await self._database.run(webhook_queues.due, webhook=webhook_id, lease=lease_id)
            if not rows:
                return True
            for row in rows:
                delivery = Delivery(*row)
                attempt = await self._attempt(delivery)
                version = await self._record(webhook_id, lease_id, delivery, attempt)
                sent += 1
                if not attempt.has_succeeded:
                    return False
                if time.monotonic() >= until:
                    return True
                if version != delivery.version:  # it may have another address now
                    break
        return True

    async def _attempt(self, delivery: Delivery) -> Attempt:
        """Send a delivery."""
        message = content(delivery)
        signed = headers(delivery, int(time.time()), message)
        attempt = await self._sender.post(delivery.url, signed, message)
        totals.deliveries["succeeded" if attempt.has_succeeded else "failed"] += 1
        return attempt

    async def _record(
        self, webhook_id: UUID, lease_id: UUID, delivery: Delivery, attempt: Attempt
    ) -> int | None:
        """Record an attempt, and switch the webhook off if it is time.

        Returns the version of the webhook; None if it is not active, or another process has it.
        """
        delay, status = None, DeliveryStatus.SUCCEEDED
        if not attempt.has_succeeded:
            is_last = attempt.is_gone or delivery.attempt_count >= len(DELAYS)
            status = DeliveryStatus.FAILED if is_last else DeliveryStatus.PENDING
            if not is_last:
                jitter = random.uniform(1 - JITTER, 1 + JITTER)
                delay = DELAYS[delivery.attempt_count] * jitter
        rows = await self._database.run(
            webhook_queues.recorded,
            webhook=webhook_id,
            lease=lease_id,
            delivery=delivery.id,
            url=delivery.url,
            seconds=LEASE_SECONDS,
            status=status.value,
            delay=delay,
            attempt=attempt.as_json(),
            succeeded=attempt.has_succeeded,
        )
        for is_active, version, is_failing in rows:
            end = None
            if attempt.is_gone:
                end = WebhookEnd.GONE
            elif is_failing and not attempt.has_succeeded:
                end = WebhookEnd.FAILING
            if end is None:
                return version if is_active else None
            async with self._database.write(SYSTEM, Right.OWN) as session:
                await webhooks.switch_off(session, webhook_id, delivery.url, end)
        return None

    async def _delete_old(self) -> None:
        """Delete old deliveries, from time to time."""
        if time.monotonic() < self._delete_at:
            return
        while len(await self._database.run(webhook_queues.deleted_old)) == MOST_DELETED:
            pass
        self._delete_at = time.monotonic() + DELETE_SECONDS
