"""Workers that claim tasks and complete them: by HTTP, by the same SQL, and with procrastinate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median
from typing import Any, Self
from uuid import UUID

import asyncpg
import orjson
from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, Missing, Running, running
from benchmarks.data import connected, dsn
from benchmarks.load import END, LENGTH, Address, BadAnswer
from benchmarks.plan import LARGE_PLAN, WORKERS, Plan, add, restore
from benchmarks.processes import processor
from benchmarks.progress import say
from benchmarks.queries import ASKED
from db import Right, Viewer, leases
from db.base import new_id
from db.claims import claiming, endings, starts
from db.connections import SETTINGS
from db.engine import BY_KEY
from db.statements import Compiled, Statement, Values

BATCH = 50
"""How many tasks `claimTasks` takes."""

FEW = 10
"""How many tasks a worker claims and completes at once that works on several."""

RESULT = {"found": "What was to be found."}

Step = Callable[[], Awaitable[int]]
"""What a worker repeats; it returns how many tasks it has worked on."""

HTTP, SQL, PROCRASTINATE = "http", "sql", "procrastinate"
ONE, MANY, TOGETHER = "claimTask", "claimTasks", "completeTasks"
TITLES = {
    HTTP: "**Troupe**, by HTTP: claim, complete",
    TOGETHER: f"**Troupe**, by HTTP: claim {FEW}, complete {FEW}",
    SQL: "the same SQL through asyncpg",
    PROCRASTINATE: "procrastinate: fetch, finish",
    ONE: "**Troupe**, by HTTP: claim one",
    MANY: f"**Troupe**, by HTTP: claim {BATCH}",
}
"""What the workers do, by name."""


@dataclass(frozen=True)
class Worked:
    """The measurements of workers during a turn."""

    per_second: float
    """Tasks per second."""
    server: float
    """The processor time for a task in the server, in seconds; 0 without one."""
    database: float
    """That in PostgreSQL."""


@dataclass
class Work:
    """The measurements of all rounds, by name."""

    rounds: dict[str, list[Worked]]
    missing: list[str]
    """What could not be measured, and why."""

    def typical(self, name: str) -> Worked:
        """The medians of the rounds."""
        rounds = self.rounds[name]
        return Worked(
            median(one.per_second for one in rounds),
            median(one.server for one in rounds),
            median(one.database for one in rounds),
        )

    def ratio(self, name: str, base: str) -> float | None:
        """The tasks per second divided by those of another: the median of the rounds' ratios."""
        if not {name, base} <= self.rounds.keys():
            return None
        pairs = zip(self.rounds[name], self.rounds[base], strict=True)
        return median(ours.per_second / theirs.per_second for ours, theirs in pairs)


class Connection:
    """A connection of an agent to a server, which sends one request at a time."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._headers = COMPILED.headers | {"Authorization": f"Bearer {token}"}

    async def __aenter__(self) -> Self:
        address = self._address
        self._reader, self._writer = await asyncio.open_connection(address.host, address.port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, document: str, **variables: Any) -> Any:
        """The payload of a mutation, or what a query returns. Raises BadAnswer."""
        body = orjson.dumps({"query": document, "variables": variables})
        self._writer.write(self._address.request(body, self._headers, 0).wire)
        head = await self._reader.readuntil(END)
        length = LENGTH.search(head)
        answer = await self._reader.readexactly(int(length[1])) if length else b"{}"
        found = orjson.loads(answer)
        if "data" not in found or found.get("errors"):
            raise BadAnswer(f"an answer has no data: {answer[:500].decode(errors='replace')}")
        (payload,) = found["data"].values()
        return payload


def document(name: str) -> str:
    """The document of this name."""
    return (ASKED / "work" / f"{name}.graphql").read_text(encoding="utf-8")


CLAIM, CLAIM_MANY, COMPLETE, COMPLETE_MANY = map(document, (ONE, MANY, "completeTask", TOGETHER))


async def claim(connection: Connection) -> str:
    """Claim a task by HTTP; return the id of the attempt. Raises BadAnswer if there is none."""
    payload = await connection.ask(CLAIM)
    if payload["attempt"] is None:
        raise BadAnswer(f"there was nothing to claim: {payload['reason']}")
    return str(payload["attempt"]["id"])


async def complete(connection: Connection, attempt: str) -> None:
    """Complete the task of an attempt by HTTP. Raises BadAnswer."""
    payload = await connection.ask(COMPLETE, attempt=attempt)
    if payload["userErrors"]:
        raise BadAnswer(f"a task was not completed: {payload['userErrors']}")


async def complete_many(connection: Connection, attempts: Sequence[str]) -> None:
    """Complete the tasks of several attempts by HTTP. Raises BadAnswer."""
    results = [{"attemptId": id, "result": RESULT} for id in attempts]
    payload = await connection.ask(COMPLETE_MANY, attempts=results)
    if payload["userErrors"]:
        raise BadAnswer(f"tasks were not completed: {payload['userErrors']}")


async def claim_many(connection: Connection, limit: int, seconds: int | None = None) -> list[str]:
    """Claim tasks by HTTP; return the ids of the attempts. Raises BadAnswer if there are none."""
    lease = {} if seconds is None else {"leaseSeconds": seconds}
    payload = await connection.ask(CLAIM_MANY, limit=limit, **lease)
    if not payload["attempts"]:
        raise BadAnswer(f"there was nothing to claim: {payload['reason']}")
    return [each["id"] for each in payload["attempts"]]


@asynccontextmanager
async def agents(server: Running, plan: Plan, number: int) -> AsyncIterator[list[Connection]]:
    """Connections of so many agents of a plan."""
    address = Address(server.port, "/graphql")
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(Connection(address, plan.token(place)))
            for place in range(number)
        ]


class Agent:
    """An agent that runs the statements of a claim and of a completion itself."""

    def __init__(self, connection: asyncpg.Connection, id: UUID) -> None:
        self._connection = connection
        self._viewer = Viewer(agent_id=id, token_id=new_id())

    async def _run(self, statement: Statement, *options: Any, **values: Any) -> Sequence[Any]:
        found: Compiled = statement.compiled(self._viewer, *options)
        arguments = found.arguments(Values(self._viewer, values))
        rows: Sequence[Any] = await self._connection.fetch(found.sql, *arguments)
        return rows

    async def claim(self) -> UUID:
        """Claim a task; return the id of the attempt. Raises BadAnswer if there is none."""
        rows = await self._run(
            claiming._claimed,
            Right.WORK,
            0,
            True,
            attempt_ids=[new_id()],
            agent_id=self._viewer.agent_id,
            lease_seconds=leases.duration(leases.DEFAULT_SECONDS),
            traceparent=None,
            **starts.values_of(starts.FRONT),
        )
        if not rows:
            raise BadAnswer("there was nothing to claim")
        id: UUID = rows[0][0]
        return id

    async def complete(self, attempt_id: UUID) -> None:
        """Complete the task of an attempt. Raises BadAnswer."""
        rows = await self._run(endings._completed, Right.WORK, attempt_id=attempt_id, result=RESULT)
        if not rows:
            raise BadAnswer("a task was not completed")


async def work(steps: Sequence[Step], pace: Pace, server: int | None, postmaster: int) -> Worked:
    """Let workers repeat their steps for a time, each at once, and count the tasks."""
    begin = time.perf_counter() + pace.warm_up
    until = begin + pace.seconds
    done, every = 0.0, 0

    async def repeat(step: Step) -> None:
        nonlocal done, every
        while (began := time.perf_counter()) < until:
            number = await step()
            ended = time.perf_counter()
            every += number
            # A step counts by the part of its duration that is inside the measured time.
            inside = min(ended, until) - max(began, begin)
            done += number * max(0, inside) / (ended - began)

    used = processor(server) if server is not None else 0, processor(postmaster)
    await asyncio.gather(*map(repeat, steps))
    by_server = processor(server) - used[0] if server is not None else 0
    by_database = processor(postmaster) - used[1]
    return Worked(done / pace.seconds, by_server / max(1, every), by_database / max(1, every))


def _pairs(connection: Connection) -> Step:
    async def step() -> int:
        await complete(connection, await claim(connection))
        return 1

    return step


def _together(connection: Connection) -> Step:
    async def step() -> int:
        attempts = await claim_many(connection, FEW)
        await complete_many(connection, attempts)
        return len(attempts)

    return step


def _claims(connection: Connection) -> Step:
    async def step() -> int:
        await claim(connection)
        return 1

    return step


def _batches(connection: Connection) -> Step:
    async def step() -> int:
        return len(await claim_many(connection, BATCH))

    return step


def _statements(agent: Agent) -> Step:
    async def step() -> int:
        await agent.complete(await agent.claim())
        return 1

    return step


async def workers(url: URL, peer: URL, pace: Pace, postmaster: int) -> Work:
    """Measure them in rounds, on a plan, and on as many jobs in a database of procrastinate.

    `postmaster` is PostgreSQL's main process, the parent of its backends.
    """
    result = Work({}, [])
    # What claims only does not make other tasks ready, of which there are enough for this time.
    short = Pace(pace.rounds, 1, pace.warm_up)
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(connected(url))
        await add(plain, LARGE_PLAN)
        server = stack.enter_context(running(COMPILED, url))
        by_http = await stack.enter_async_context(agents(server, LARGE_PLAN, WORKERS))
        by_sql = [
            Agent(await stack.enter_async_context(connected(url, SETTINGS | BY_KEY)), id)
            for id in LARGE_PLAN.agents
        ]
        turns = {
            HTTP: (list(map(_pairs, by_http)), pace, server.pid),
            TOGETHER: (list(map(_together, by_http)), short, server.pid),
            SQL: (list(map(_statements, by_sql)), pace, None),
            ONE: (list(map(_claims, by_http)), short, server.pid),
            MANY: (list(map(_batches, by_http)), short, server.pid),
        }
        queue: Queue | None = None
        try:
            queue = await stack.enter_async_context(queued(peer, LARGE_PLAN.tasks))
            turns[PROCRASTINATE] = (queue.steps, pace, None)
        except Missing as missing:
            result.missing.append(str(missing))
        for number in range(pace.rounds + 1):
            for name, (steps, turn, pid) in turns.items():
                worked = await work(steps, turn, pid, postmaster)
                if number:  # in the first round, connections are opened and statements planned
                    result.rounds.setdefault(name, []).append(worked)
                await restore(plain, LARGE_PLAN)
                if queue is not None:
                    await queue.restore()
                say(
                    f"round {number} of {pace.rounds} of workers, {name}:"
                    f" {worked.per_second:.0f} tasks/s"
                )
    return result


class Queue:
    """Jobs of procrastinate, and workers that fetch and finish them as its own workers do."""

    def __init__(self, connection: asyncpg.Connection, steps: Sequence[Step]) -> None:
        self.steps = list(steps)
        self._connection = connection

    async def restore(self) -> None:
        """Make all jobs as they were."""
        async with self._connection.transaction():
            await self._connection.execute("SET LOCAL session_replication_role = replica")
            await self._connection.execute("DELETE FROM procrastinate_events")
            await self._connection.execute(
                "UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, worker_id = NULL"
                " WHERE status <> 'todo'"
            )
        await self._connection.execute(
            "VACUUM (PARALLEL 0, ANALYZE) procrastinate_jobs, procrastinate_events"
        )


@asynccontextmanager
async def queued(url: URL, jobs: int) -> AsyncIterator[Queue]:
    """A queue with so many jobs, in an empty database. Raises Missing."""
    if find_spec("procrastinate") is None:
        raise Missing("procrastinate is not installed; `make bench` does that.")
    import procrastinate  # noqa: PLC0415
    from procrastinate.jobs import Status  # noqa: PLC0415

    connector = procrastinate.PsycopgConnector(
        conninfo=dsn(url), min_size=WORKERS, max_size=WORKERS
    )
    app = procrastinate.App(connector=connector)
    async with app.open_async(), connected(url) as connection:
        await app.schema_manager.apply_schema_async()
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "INSERT INTO procrastinate_jobs (queue_name, task_name, priority, args)"
            " SELECT 'default', 'work', n % 5, jsonb_build_object('number', n)"
            " FROM generate_series(1, $1) n",
            jobs,
        )
        await connection.execute("RESET session_replication_role")
        await connection.execute("VACUUM ANALYZE")

        def fetching(worker: int) -> Step:
            async def step() -> int:
                job = await app.job_manager.fetch_job(None, worker)
                if job is None:
                    raise BadAnswer("there was no job to fetch")
                await app.job_manager.finish_job(job, Status.SUCCEEDED, delete_job=False)
                return 1

            return step

        ids = [await app.job_manager.register_worker() for _ in range(WORKERS)]
        yield Queue(connection, list(map(fetching, ids)))
