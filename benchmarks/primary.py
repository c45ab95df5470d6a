"""How much one PostgreSQL carries: `python -m benchmarks.primary`.

The processor time of operations, in turns with a server that connects directly and with one that
connects through PgBouncer in transaction mode, if that is installed. One server runs at a time, so
the events of writes, their numbering and all background work are included. The tables are those of
docs/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from sqlalchemy import URL

from benchmarks.contenders import COMPILED, Running, running
from benchmarks.data import PROJECT, SMALL, TOKEN, connected, dsn, row_id
from benchmarks.load import Address
from benchmarks.place import Place, place
from benchmarks.plan import LARGE_PLAN, add
from benchmarks.processes import processor
from benchmarks.progress import say
from benchmarks.workers import Connection, agents, claim, complete
from tests.poolers import PGBOUNCER, Bouncer, options_of_the_page

DIRECT, POOLED = "directly", "through PgBouncer"

QUERY = "query($id: ID!) { project(id: $id) { name tasks(first: 20) { nodes { id title } } } }"
TASK = """mutation($id: ID!, $title: String!) {
  createTask(input: {projectId: $id, title: $title}) { task { id } userErrors { message } } }"""
TASKS = """mutation($id: ID!, $tasks: [PlannedTaskInput!]!) {
  createTasks(input: {projectId: $id, tasks: $tasks}) { tasks { id } userErrors { message } } }"""

ID = str(row_id(PROJECT, 10))

Operation = Callable[[Connection, Connection], Awaitable[object]]
"""One operation, of a user or of an agent."""


async def read(user: Connection, _: Connection) -> None:
    """A project with 20 tasks."""
    found = await user.ask(QUERY, id=ID)
    assert len(found["tasks"]["nodes"]) == 20


async def create(user: Connection, _: Connection) -> None:
    """One task."""
    assert (await user.ask(TASK, id=ID, title="One"))["userErrors"] == []


async def create_many(user: Connection, _: Connection) -> None:
    """20 tasks."""
    tasks = [{"title": "One of many"}] * 20
    assert (await user.ask(TASKS, id=ID, tasks=tasks))["userErrors"] == []


async def work(_: Connection, agent: Connection) -> None:
    """Claim a task and complete it."""
    await complete(agent, await claim(agent))


class Measured(NamedTuple):
    """An operation whose time is measured."""

    run: Operation
    unit: str
    """What it does, in the plural."""
    number: int = 1
    """How many of them it does at once."""


OPERATIONS: dict[str, Measured] = {
    "`createTask`": Measured(create, "writes, each with an event"),
    "`createTasks` with 20 tasks": Measured(create_many, "tasks, each with an event", 20),
    "`claimTask` and `completeTask`": Measured(work, "tasks that are worked on"),
    "a project with 20 tasks": Measured(read, "queries, which replicas can take"),
}


@contextmanager
def served(here: Place, url: URL, way: str) -> Iterator[tuple[Running, list[int]]]:
    """A server, and the processes whose time counts: PostgreSQL's, its own and PgBouncer's."""
    if way == DIRECT:
        with running(COMPILED, url) as server:
            yield server, [here.postmaster, server.pid]
        return
    settings = COMPILED.settings | {"TROUPE_DATABASE_DIRECT_URL": dsn(url)}
    host, port = url.query.get("host") or url.host, url.query.get("port") or url.port or 5432
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # PgBouncer runs as another user
        options = f"{options_of_the_page()}auth_type = trust\n"
        bouncer = Bouncer(folder, str(host), str(url.username), "", options, int(str(port)))
        try:
            pooled = url.set(host="127.0.0.1", port=bouncer.port, query={})
            with running(dataclasses.replace(COMPILED, settings=settings), pooled) as server:
                yield server, [here.postmaster, server.pid, bouncer.pid]
        finally:
            bouncer.kill()


async def measure(here: Place, url: URL, ways: list[str], rounds: int, seconds: float) -> None:
    """Measure all operations, and print the tables."""
    async with connected(url) as connection:
        await add(connection, LARGE_PLAN)
    found: dict[tuple[str, str], list[list[float]]] = {}
    for number, way in itertools.product(range(rounds), ways):
        # Only one server at a time: one of them numbers the events of all.
        with served(here, url, way) as (server, pids):
            user = Connection(Address(server.port, "/graphql"), TOKEN)
            async with user, agents(server, LARGE_PLAN, 1) as (agent,):
                for name, operation in OPERATIONS.items():
                    # First, connections are opened and statements planned.
                    await used(pids, partial(operation.run, user, agent), seconds / 4)
                    times = await used(pids, partial(operation.run, user, agent), seconds)
                    found.setdefault((way, name), []).append(times)
        say(f"round {number + 1} of {rounds}, connected {way}")
    typical = {one: [median(times) for times in zip(*of, strict=True)] for one, of in found.items()}
    if POOLED in ways:
        print_pooled(typical)
    print_direct(typical)


async def used(
    pids: list[int], operation: Callable[[], Awaitable[object]], seconds: float
) -> list[float]:
    """The processor time of each process for an operation, in ms."""
    before, count = [processor(pid) for pid in pids], 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await operation()
        count += 1
    return [1000 * (processor(pid) - was) / count for pid, was in zip(pids, before, strict=True)]


def print_pooled(typical: dict[tuple[str, str], list[float]]) -> None:
    """Print what PgBouncer adds."""
    say("\n| operation | PostgreSQL, ms | Troupe, ms | PgBouncer, ms |\n| --- | --- | --- | --- |")
    for name in OPERATIONS:
        *pooled, pooler = typical[POOLED, name]
        pairs = zip(typical[DIRECT, name], pooled, strict=True)
        changes = (f"{direct:.2g} → {through:.2g}" for direct, through in pairs)
        say(f"| {name} | {' | '.join(changes)} | {pooler:.2g} |")


def print_direct(typical: dict[tuple[str, str], list[float]]) -> None:
    """Print how much a primary carries, to which servers connect directly."""
    say("\n| operation | PostgreSQL, ms | Troupe, ms | a core of PostgreSQL takes, per second |")
    say("| --- | --- | --- | --- |")
    for name, operation in OPERATIONS.items():
        took, server = typical[DIRECT, name]
        per_second = float(f"{1000 / took * operation.number:.2g}")
        say(f"| {name} | {took:.2g} | {server:.2g} | {per_second:,.0f} {operation.unit} |")


async def run(rounds: int, seconds: float) -> None:
    """Measure with a PostgreSQL of its own."""
    ways = [DIRECT] if PGBOUNCER is None else [DIRECT, POOLED]
    with place() as here:
        say("Loading 50,000 tasks …")
        await measure(here, await here.make("small", SMALL), ways, rounds, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m benchmarks.primary", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each operation in a round")
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.seconds))
