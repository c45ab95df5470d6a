"""The servers that are compared, each in its own process, and the requests for each."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson
from sqlalchemy import URL

from benchmarks.data import TOKEN, dsn
from benchmarks.load import Address, Request
from benchmarks.queries import OWNER, Query

ROOT = Path(__file__).parents[1]
POSTGRAPHILE = ROOT / "benchmarks" / "postgraphile"
OLDEST_NODE = 22

# Seconds that a server has to start.
PATIENCE = 60.0


class Missing(Exception):
    """A contender cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Contender:
    """A server that is compared."""

    name: str
    title: str
    """Its name in the tables."""
    command: Callable[[str, int], list[str]]
    """The command that starts it, for the URL of a database and a port."""
    words: str
    """The name of its files in `asked/`."""
    settings: dict[str, str] = field(default_factory=dict)
    """Its environment variables."""
    knows_who_asks: bool = True
    """Whether it checks a token; otherwise its queries filter the same rows by their owner."""

    @property
    def is_troupe(self) -> bool:
        """Whether it is a way to run Troupe."""
        return self.words == "troupe.graphql"

    @property
    def takes_graphql(self) -> bool:
        """Whether it has a GraphQL endpoint; otherwise each query has its own path."""
        return self.words.endswith(".graphql")

    @property
    def headers(self) -> dict[str, str]:
        """The headers of its requests."""
        who = {"Authorization": f"Bearer {TOKEN}"} if self.knows_who_asks else {}
        return {"Content-Type": "application/json", "Accept": "application/json", **who}

    def path(self, query: Query) -> str:
        """Where it takes a query."""
        return "/graphql" if self.takes_graphql else f"/{query.name}"

    def bodies(self, query: Query, projects: int) -> list[bytes]:
        """The bodies of the requests for a query, which are sent in turn."""
        all_variables = query.variables(projects)
        if not self.takes_graphql:
            return [orjson.dumps(variables) for variables in all_variables]
        text = query.text(self.words)
        bodies = []
        for variables in all_variables:
            declared = {k: v for k, v in (variables | OWNER).items() if f"${k}:" in text}
            bodies.append(orjson.dumps({"query": text, "variables": declared}))
        return bodies


def _python(module: str) -> Callable[[str, int], list[str]]:
    return lambda url, port: [sys.executable, "-m", module, url, str(port)]


def _troupe(url: str, port: int) -> list[str]:
    return [sys.executable, "-m", "graph", "serve"]


def _postgraphile(url: str, port: int) -> list[str]:
    return [node(), str(POSTGRAPHILE / "server.js"), url, str(port)]


def node() -> str:
    """The program `node` for PostGraphile: the machine's, or the one from npm. Raises Missing."""
    if not (POSTGRAPHILE / "node_modules" / ".installed").exists():
        raise Missing("PostGraphile is not installed; `make bench` does that, with npm.")
    for program in (shutil.which("node"), *POSTGRAPHILE.glob("node_modules/node-*/bin/node")):
        if program is not None and node_version(str(program)) >= (OLDEST_NODE,):
            return str(program)
    raise Missing(f"PostGraphile needs Node.js {OLDEST_NODE} or later; install it.")


def node_version(program: str) -> tuple[int, ...]:
    """The version of this program `node`."""
    done = subprocess.run([program, "--version"], capture_output=True, encoding="utf-8", check=True)
    return tuple(int(part) for part in done.stdout.strip().lstrip("v").split("."))


# The limits would refuse the load. The log of operations is off, as the others write none.
TROUPE = {
    "TROUPE_MODE": "production",
    "TROUPE_LOG_OPERATIONS": "false",
    "TROUPE_RATE_PER_SECOND": "999999999",
    "TROUPE_RATE_BURST": "999999999",
}

HAND = Contender("hand", "SQL by hand, bare route", _python("benchmarks.hand"), "hand.sql")
COMPILED = Contender("troupe", "**Troupe**", _troupe, "troupe.graphql", TROUPE)
GENERAL = Contender(
    "general",
    "Troupe, compiler off",
    _troupe,
    "troupe.graphql",
    TROUPE | {"TROUPE_COMPILER": "false"},
)
PEER = Contender(
    "postgraphile",
    "PostGraphile 5",
    _postgraphile,
    "postgraphile.graphql",
    {"NODE_ENV": "production"},
    knows_who_asks=False,
)
PLAIN = Contender(
    "strawberry",
    "Strawberry, DataLoaders, ORM",
    _python("benchmarks.plain"),
    "strawberry.graphql",
    knows_who_asks=False,
)

CONTENDERS = {one.name: one for one in (HAND, COMPILED, GENERAL, PEER, PLAIN)}


class Running:
    """A contender that is running."""

    def __init__(self, contender: Contender, process: subprocess.Popen[bytes], port: int) -> None:
        self.contender = contender
        self.port = port
        self.lengths: dict[str, list[int]] = {}
        """The lengths of its correct answers to each query."""
        self._process = process

    def url(self, query: Query) -> str:
        """Where it takes a query."""
        return f"http://127.0.0.1:{self.port}{self.contender.path(query)}"

    def asked(self, query: Query, projects: int) -> tuple[Address, list[Request]]:
        """The address and the requests for a query, after `lengths` has been filled."""
        address = Address(self.port, self.contender.path(query))
        bodies = self.contender.bodies(query, projects)
        pairs = zip(bodies, self.lengths[query.name], strict=True)
        return address, [
            address.request(body, self.contender.headers, length) for body, length in pairs
        ]

    def wait(self) -> None:
        """Wait until it listens. Raises Missing if it does not."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise Missing(f"{self.contender.name} did not start.") from None
                time.sleep(0.05)

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def running(contender: Contender, url: URL) -> Iterator[Running]:
    """Run a contender on a database inside the block. Raises Missing."""
    port, text = free_port(), dsn(url)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TROUPE_")}
    if contender.is_troupe:
        kept |= {"TROUPE_DATABASE_URL": text, "TROUPE_PORT": str(port)}
    process = subprocess.Popen(
        contender.command(text, port),
        cwd=ROOT,
        env=kept | contender.settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        started = Running(contender, process, port)
        started.wait()
        yield started
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
