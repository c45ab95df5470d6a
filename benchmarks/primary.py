"""How much one PostgreSQL carries: `python -m benchmarks.primary`.

The processor time of operations, in turns with a server that connects directly and with one that
connects through PgBouncer in transaction mode, if that is installed. The events of writes, their
numbering and all background work are included. The tables are those of docs/scale.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from sqlalchemy import URL

from benchmarks.contenders import COMPILED, Running, free_port, running
from benchmarks.data import PROJECT, SMALL, TOKEN, connected, dsn, row_id
from benchmarks.load import Address
from benchmarks.place import Place, place
from benchmarks.plan import LARGE_PLAN, add
from benchmarks.processes import processor
from benchmarks.progress import say
from benchmarks.workers import Connection, agents, claim, complete

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


OPERATIONS: dict[str, Operation] = {
    "`createTask`": create,
    "`createTasks` with 20 tasks": create_many,
    "`claimTask` and `completeTask`": work,
    "a project with 20 tasks": read,
}


@contextmanager
def pgbouncer(url: URL) -> Iterator[tuple[URL, int]]:
    """A PgBouncer in transaction mode in front of a database: its URL and its process."""
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "users").write_text(f'"{url.username}" ""\n', encoding="utf-8")
        host, there = url.query.get("host") or url.host, url.query.get("port") or url.port or 5432
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={there}\n[pgbouncer]\npool_mode = transaction\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder}/users\nmax_client_conn = 1000\n",
            encoding="utf-8",
        )
        # It refuses to run as root.
        other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [*([] if os.geteuid() else other), "pgbouncer", str(folder / "pgbouncer.ini")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)
            yield url.set(host="127.0.0.1", port=port, query={}), process.pid
        finally:
            process.terminate()
            process.wait()


@contextmanager
def served(here: Place, url: URL, way: str) -> Iterator[tuple[Running, list[int]]]:
    """A server, and the processes whose time counts: PostgreSQL's, its own and PgBouncer's."""
    if way == DIRECT:
        with running(COMPILED, url) as server:
            yield server, [here.postmaster, server.pid]
        return
    settings = COMPILED.settings | {"TROUPE_DATABASE_DIRECT_URL": dsn(url)}
    with (
        pgbouncer(url) as (pooled, pid),
        running(dataclasses.replace(COMPILED, settings=settings), pooled) as server,
    ):
        yield server, [here.postmaster, server.pid, pid]


async def measure(here: Place, url: URL, ways: list[str], rounds: int, seconds: float) -> None:
    """Measure all operations, and print a table for each way to connect."""
    async with connected(url) as connection:
        await add(connection, LARGE_PLAN)
    found: dict[tuple[str, str], list[list[float]]] = {}
    with ExitStack() as stack:
        servers = {way: stack.enter_context(served(here, url, way)) for way in ways}
        for number in range(rounds + 1):
            for (name, operation), way in itertools.product(OPERATIONS.items(), ways):
                server, pids = servers[way]
                user = Connection(Address(server.port, "/graphql"), TOKEN)
                async with user, agents(server, LARGE_PLAN, 1) as (agent,):
                    before, count = [processor(pid) for pid in pids], 0
                    until = time.monotonic() + seconds
                    while time.monotonic() < until:
                        await operation(user, agent)
                        count += 1
                    used = [
                        1000 * (processor(pid) - was) / count
                        for pid, was in zip(pids, before, strict=True)
                    ]
                if number:  # in the first one, connections are opened and statements planned
                    found.setdefault((way, name), []).append(used)
            say(f"round {number} of {rounds}")
    for way in ways:
        pooler = " PgBouncer, ms |" if way == POOLED else ""
        say(f"\nConnected {way}:\n\n| operation | PostgreSQL, ms | Troupe, ms |{pooler}")
        say("| --- | --- | --- |" + (" --- |" if pooler else ""))
        for name in OPERATIONS:
            times = (f"{median(one):.2f}" for one in zip(*found[way, name], strict=True))
            say(f"| {name} | {' | '.join(times)} |")


async def run(rounds: int, seconds: float) -> None:
    """Measure with a PostgreSQL of its own."""
    ways = [DIRECT] if shutil.which("pgbouncer") is None else [DIRECT, POOLED]
    with place() as here:
        say("Loading 50,000 tasks …")
        await measure(here, await here.make("small", SMALL), ways, rounds, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m benchmarks.primary", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each operation in a round")
    options = parser.parse_args()
    asyncio.run(run(options.rounds, options.seconds))
