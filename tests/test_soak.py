"""Workers over HTTP, which are killed at random, work a plan off to its end.

A worker that is killed never answers again: before its request was sent, or before it has read the
answer. Another one starts in its place, as the same agent. Requests whose answers are lost are sent
again, with the same idempotency key. Meanwhile one of the servers is killed.

`TROUPE_SOAK_ROUNDS=5 pytest --log-cli-level=INFO tests/test_soak.py` works the plans off so many
times, all of them from the beginning, and says how long each took.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import make_url, select, text

import db
from db import AgentStatus, boards
from db.imports import import_plan
from tests import factories
from tests.conftest import ADMIN
from tests.processes import Serving
from tests.test_imports import EXAMPLES, REAL_PLAN, assert_counts, real
from tests.test_kills import Cluster, cluster
from tests.world import stored

__all__ = ["cluster"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")

IS_LONG = "TROUPE_SOAK_ROUNDS" in os.environ
ROUNDS = int(os.environ.get("TROUPE_SOAK_ROUNDS", "1"))
log = logging.getLogger("troupe")

SECONDS = 300
"""How long a plan may take at most."""

TRY_AGAIN = {"OVERLOADED", "TIMEOUT", "UNAVAILABLE"}

ATTEMPT = "attempt { id number task { id } }"
ERRORS = "userErrors { code message }"
DOCUMENTS = {
    name: f"mutation($input: {name[0].upper()}{name[1:]}Input!) {{"
    f" {name}(input: $input) {{ {shown} {ERRORS} }} }}"
    for name, shown in {
        "claimTask": f"{ATTEMPT} reason",
        "completeTask": "attempt { status }",
        "failTask": "attempt { status }",
        "releaseTask": "attempt { status }",
        "heartbeat": "attempts { leaseLost }",
    }.items()
}


class Killed(Exception):
    """A worker is gone."""


@dataclass
class Soak:
    """Workers on a project, and what they were answered."""

    servers: Sequence[Serving]
    chance: random.Random
    completed: Counter[str] = field(default_factory=Counter)
    """How often each task was acknowledged as completed."""
    outcomes: Counter[str] = field(default_factory=Counter)
    is_over: bool = False

    async def work(self, token: str) -> None:
        """Be one worker after the other, until all is done."""
        headers = {"authorization": f"Bearer {token}"}
        while not self.is_over:
            async with httpx.AsyncClient(headers=headers, timeout=60, trust_env=False) as http:
                try:
                    await self.be_one(http)
                except Killed:
                    self.outcomes["killed"] += 1

    async def be_one(self, http: httpx.AsyncClient) -> None:
        """Claim tasks and end them, until it is killed or all is done."""
        while not self.is_over:
            attempt = (await self.ask(http, "claimTask", leaseSeconds=1))["attempt"]
            if attempt is None:
                await asyncio.sleep(0.1)
                continue
            id = attempt["id"]
            if self.chance.random() < 0.3:
                await self.ask(http, "heartbeat", attempts=[{"attemptId": id}], leaseSeconds=1)
            luck = self.chance.random()
            if luck < 0.05:
                await self.ask(http, "failTask", attemptId=id, error="No.")
            elif luck < 0.1:
                await self.ask(http, "releaseTask", attemptId=id, handover="Half done.")
            else:
                done = await self.ask(http, "completeTask", attemptId=id, result=attempt["number"])
                if not done["userErrors"]:
                    self.completed[attempt["task"]["id"]] += 1

    async def ask(self, http: httpx.AsyncClient, name: str, **input: Any) -> Any:
        """The payload of a mutation, which is sent again until it is answered."""
        variables = {"input": input | {"idempotencyKey": str(uuid4())}}
        body = {"query": DOCUMENTS[name], "variables": variables}
        while True:
            running = [server for server in self.servers if server.is_running]
            url = f"{self.chance.choice(running).url}/graphql"
            sending = asyncio.create_task(http.post(url, json=body))
            if (luck := self.chance.random()) < 0.06:
                await asyncio.wait([sending], timeout=self.chance.random() * 0.05)
                sending.cancel()
                await asyncio.wait([sending])
                if luck < 0.03:
                    raise Killed
                self.outcomes["lost"] += 1
                continue
            try:
                answer = (await sending).json()
            except httpx.HTTPError:  # the server was killed
                self.outcomes["broken"] += 1
                continue
            if "errors" in answer:
                assert {each["extensions"]["code"] for each in answer["errors"]} <= TRY_AGAIN
                self.outcomes["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            payload = answer["data"][name]
            codes = [error["code"] for error in payload["userErrors"]]
            assert codes in ([], ["LEASE_LOST"]), payload
            self.outcomes[f"{name}: {codes[0]}" if codes else name] += 1
            return payload


@pytest.mark.parametrize(
    ("plan", "workers"),
    [
        pytest.param(EXAMPLES / "plan.json", 4, id="example"),
        pytest.param(REAL_PLAN, 16, id="real", marks=real),
    ],
)
async def test_a_plan_is_worked_off_by_workers_that_are_killed(
    cluster: Cluster, plan: Path, workers: int
) -> None:
    servers = [cluster.serve(lease_sweep_seconds=1) for _ in range(2)]
    database = db.Database(make_url(cluster.url).set(drivername="postgresql+asyncpg"))
    try:
        for number in range(ROUNDS):
            if number:  # for the one that was killed
                servers = [servers[1], cluster.serve(lease_sweep_seconds=1)]
            project_id = await make_project(database, plan, f"round {number}")
            tokens = await make_agents(database, project_id, workers)
            await work_off(Soak(servers, random.Random(number)), database, project_id, tokens)
    finally:
        await database.dispose()


async def make_project(database: db.Database, plan: Path, name: str) -> Any:
    """The largest project of a plan, of which every task is to be done."""
    await import_plan(database, plan, owner=None, project=name)
    (found, *_) = await stored(
        database,
        "SELECT project_id FROM tasks JOIN projects p ON p.id = project_id WHERE name LIKE :name"
        " GROUP BY 1 ORDER BY count(*) DESC",
        name=f"{name}/%",
    )
    async with database.write(ADMIN) as session:
        values = "max_attempts = 1000, retry_backoff_seconds = 0"
        await session.execute(text(f"UPDATE tasks SET {values}"))
        # All that ended is reopened; what is done already, only if there is time.
        for task in await session.scalars(select(db.Task.id).where(db.Task.project_id == found)):
            row = await session.get_one(db.Task, task)
            is_done = row.status is db.TaskStatus.COMPLETED and not IS_LONG
            if row.status is not db.TaskStatus.PENDING and not is_done:
                await boards.transition(session, task, db.TaskStatus.PENDING)
    return found


async def make_agents(database: db.Database, project_id: Any, count: int) -> list[str]:
    """Agents that take all tasks; returns their tokens."""
    async with database.write(ADMIN) as session:
        project = await session.get_one(db.Project, project_id)
        tokens = []
        for number in range(count):
            # Another worker can start while the lease of one that was killed is not over.
            agent = await factories.make_agent(
                session, project, f"{number}", status=AgentStatus.ACTIVE, max_concurrent_tasks=3
            )
            token = f"troupe_{project_id}_{number}"
            await factories.make_token(session, token, agent)
            tokens.append(token)
    return tokens


async def work_off(
    soak: Soak, database: db.Database, project_id: Any, tokens: Sequence[str]
) -> None:
    """Let workers do all tasks of a project, and look at what is stored then."""
    of_project = "FROM tasks WHERE project_id = :id"
    before = await stored(
        database, f"SELECT id {of_project} AND status = 'COMPLETED'", id=project_id
    )

    async def left() -> int:
        open = f"SELECT count(*) {of_project} AND status <> 'COMPLETED'"
        (number,) = await stored(database, open, id=project_id)
        return int(number)

    total = await left()
    assert total > 0

    async def watch() -> None:
        while await left() > total // 2:  # noqa: ASYNC110 - servers do it
            await asyncio.sleep(0.2)
        soak.servers[0].kill()
        while await left():  # noqa: ASYNC110 - servers do it
            await asyncio.sleep(0.2)
        soak.is_over = True

    began = time.monotonic()
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(watch(), *map(soak.work, tokens))
    log.info("%d tasks in %.1f s: %s", total, time.monotonic() - began, dict(soak.outcomes))

    attempts = "FROM task_attempts a JOIN tasks t ON t.id = task_id WHERE project_id = :id"
    done = f"SELECT count(*), count(DISTINCT task_id) {attempts} AND a.status = 'SUCCEEDED'"
    assert await stored(database, done, id=project_id) == [(total, total)]
    assert set(soak.completed.values()) <= {1}
    rows = await stored(
        database,
        "SELECT t.attempt_count, array_agg(number ORDER BY number), bool_and(ended_at IS NOT NULL),"
        f" max(number) FILTER (WHERE a.status = 'SUCCEEDED') {attempts} GROUP BY t.id",
        id=project_id,
    )
    assert rows == [(count, [*range(1, count + 1)], True, count) for count, *_ in rows]
    assert await stored(database, "SELECT count(*) FROM task_leases") == [0]
    counts = f"SELECT max(unmet_dependency_count), count(*) {of_project}"
    assert await stored(database, counts, id=project_id) == [(0, total + len(before))]
    await assert_counts(database)
