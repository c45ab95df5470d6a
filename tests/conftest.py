"""A real PostgreSQL for the tests: a cluster in memory, and a database for each test."""

from __future__ import annotations

import asyncio
import os
import pickle
import shutil
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
import httpx
import hypothesis
import pytest
from sqlalchemy import URL, make_url, text
from starlette.applications import Starlette

import db
from db import access, embedded, engine, migrate
from graph import demo
from graph.app import create_app
from graph.execution.tokens import Tokens
from graph.serve import freeze
from graph.settings import Settings
from tests import processes
from tests.client import Client
from tests.patience import PATIENCE
from tests.world import make_rows

# Where a run decides whether a change may land, it must not depend on luck: the same examples
# each time there, new ones everywhere else. Time says nothing on a busy machine.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")

# Programs that a shell starts in the background ignore it, and so do the programs that tests start
# and interrupt, unless it is set here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude what is loaded from garbage collection, as a server does when it starts."""
    freeze()


ADMIN = db.Viewer(is_administrator=True)
WITHOUT_LIMITS = Settings().model_copy(update=dict.fromkeys(processes.LIMITS, 999_999_999))


@asynccontextmanager
async def _connected(server: URL) -> AsyncIterator[asyncpg.Connection]:
    """A connection for statements that cannot be part of a transaction."""
    url = server.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _on_server(server: URL, *statements: str) -> None:
    async with _connected(server) as connection:
        for statement in statements:
            await connection.execute(statement)


# The migrations do not change while tests run, and reading them takes as long as many tests do.
_head = cache(migrate.head)


@contextmanager
def cluster() -> Iterator[URL]:
    """A PostgreSQL in memory, where there is a place for that, and careless with its data."""
    given = os.environ.get("TROUPE_TEST_SERVER")
    if given:
        yield make_url(given).set(drivername="postgresql+asyncpg")
        return
    memory = Path("/dev/shm")
    base = memory if os.access(memory, os.W_OK) else Path(tempfile.gettempdir())
    folder = base / f"troupe-tests-{uuid.uuid4().hex[:8]}"
    # Autovacuum has nothing to do here, and a test counts PostgreSQL's own transactions.
    off = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")
    careless = dict.fromkeys(off, "off")
    try:
        with embedded.running(folder, settings=careless) as server:
            yield make_url(server.url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server() -> Iterator[URL]:
    """The test cluster."""
    with cluster() as url:
        yield url


@pytest.fixture(scope="session")
def made() -> Iterator[tuple[Path, str]]:
    """A data folder with a database in it, for servers of their own, and a token for it."""
    with processes.place() as folder:
        yield folder / "made", processes.prepare(folder / "made")


@pytest.fixture(params=processes.LOCALES, ids=lambda found: " ".join(map("=".join, found.items())))
def locale(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each locale in turn, for the processes that the test starts."""
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def template(server: URL) -> str:
    """A database at the head of the migrations, to be cloned."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    asyncio.run(_on_server(server, f"CREATE DATABASE {name}"))
    asyncio.run(migrate.upgrade(server.set(database=name)))
    return name


@dataclass(frozen=True)
class Template:
    """A database to be cloned, and the rows in it that tests name."""

    name: str
    rows: bytes = pickle.dumps({})

    def filled(self, server: URL, fill: Fill) -> Template:
        """Another one, with more rows."""
        name = f"template_{uuid.uuid4().hex[:12]}"
        rows = pickle.loads(self.rows)

        async def run() -> None:
            await _on_server(server, self.cloned_as(name))
            database = db.Database(server.set(database=name))
            rows.update(await fill(database, **rows))
            async with database.write(ADMIN) as session:
                # A use is stored if the last one is a minute old. No test has to expect that.
                later = "UPDATE access_tokens SET last_used_at = now() + interval '1 day'"
                await session.execute(text(later))
            await database.dispose()

        asyncio.run(run())
        return Template(name, pickle.dumps(rows))

    def cloned_as(self, name: str) -> str:
        """The statement that clones it."""
        return f"CREATE DATABASE {name} TEMPLATE {self.name} STRATEGY FILE_COPY"


Fill = Callable[..., Awaitable[dict[str, Any]]]


@pytest.fixture(scope="session")
def peopled(server: URL, template: str) -> Template:
    """A template with people in it, since making them takes as long as many tests do."""
    return Template(template).filled(server, _make_people)


@pytest.fixture(scope="session")
def inhabited(server: URL, peopled: Template) -> Template:
    """A template that also has the rows of a world."""

    async def fill(database: db.Database, users: dict[str, db.User], **_: object) -> Any:
        return {"world": await make_rows(database, users)}

    return peopled.filled(server, fill)


@pytest.fixture(scope="session")
def demonstrated(server: URL, template: str) -> Template:
    """A template with the example data of `troupe demo`, in which no agent works."""

    async def fill(database: db.Database) -> Any:
        admin = await _make_admin(database)
        await demo.fill(database)
        return {"users": {"admin": admin}}

    return Template(template).filled(server, fill)


NEEDED = {
    "world": "inhabited",
    "people": "peopled",
    "console": "demonstrated",
    "commands": "demonstrated",
}
"""The fixture of the template, by the name of a fixture for which a test's database has more."""


@pytest.fixture
def cloned(request: pytest.FixtureRequest, template: str) -> Template:
    """The template of the test's database, which has what the test asks for."""
    for needed, made in NEEDED.items():
        if needed in request.fixturenames:
            found: Template = request.getfixturevalue(made)
            return found
    return Template(template)


@pytest.fixture
def rows(cloned: Template) -> dict[str, Any]:
    """The rows that are in the test's database from the beginning, by what they are."""
    found: dict[str, Any] = pickle.loads(cloned.rows)
    return found


@pytest.fixture
async def database_url(server: URL, cloned: Template) -> AsyncIterator[URL]:
    """A database of the test's own, at head, with nothing in it unless the test needs it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    async with _connected(server) as connection:
        await connection.execute(cloned.cloned_as(name))
        yield server.set(database=name)
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[db.Database]:
    """The engines of a server on the test's database.

    They are patient: on a busy machine it takes long to open ten connections at once.
    """
    with mock.patch.object(engine, "POOL_TIMEOUT", PATIENCE):
        database = db.Database(database_url)
    yield database
    await database.dispose()


async def _make_admin(database: db.Database) -> db.User:
    async with database.write(ADMIN) as session:
        return await db.User.create(
            session, username="admin", email="admin@localhost", role=db.UserRole.ADMIN
        )


async def _make_people(database: db.Database) -> dict[str, Any]:
    users = {"admin": await _make_admin(database)}
    tokens = {}
    async with database.write(ADMIN) as session:
        for name in ("owner", "stranger"):
            users[name] = await db.User.create(session, username=name, email=f"{name}@localhost")
        for name, user in users.items():
            _, tokens[name] = await access.issue_token(session, user, "test")
    return {"users": users, "tokens": tokens}


@pytest.fixture
async def admin(database: db.Database, rows: dict[str, Any]) -> db.User:
    """The administrator, as the first start creates it."""
    if rows:
        found: db.User = rows["users"]["admin"]
        return found
    return await _make_admin(database)


@pytest.fixture
async def http(database: db.Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process.

    Nothing is limited: what is compared, or asked of all nouns at once, may be more than anybody
    asks for.
    """
    async with serving(database, WITHOUT_LIMITS) as client:
        yield client


def application(database: db.Database, settings: Settings) -> Starlette:
    """An application with these settings, over the test's engines."""
    app = create_app(settings, database.url)
    app.state.database = database
    # Each request looks its token up, as if it came after a while: what is revoked is so at once,
    # and every request has the same number of statements.
    app.state.tokens = Tokens(database, cache_seconds=0)
    app.state.head = _head()
    return app


@asynccontextmanager
async def serving(database: db.Database, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application with these settings, over the test's engines."""
    transport = httpx.ASGITransport(application(database, settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@dataclass
class People:
    """Clients of several viewers, and the users they are."""

    admin: Client
    owner: Client
    stranger: Client
    nobody: Client
    users: dict[str, db.User]
    world: dict[str, Any] | None
    """The rows of the world, if they are there from the beginning."""

    def through(self, http: httpx.AsyncClient) -> People:
        """The same viewers' clients of another application."""
        return People(
            self.admin.through(http),
            self.owner.through(http),
            self.stranger.through(http),
            self.nobody.through(http),
            self.users,
            self.world,
        )


@pytest.fixture
def people(database: db.Database, http: httpx.AsyncClient, rows: dict[str, Any]) -> People:
    """An administrator, a user who owns projects, another who does not, and somebody unknown."""
    clients = {name: Client(http, database, token) for name, token in rows["tokens"].items()}
    nobody = Client(http, database, None)
    return People(**clients, nobody=nobody, users=rows["users"], world=rows.get("world"))


@pytest.fixture
async def resolvers(database: db.Database, people: People) -> AsyncIterator[People]:
    """The same viewers, with the compiler switched off: resolvers answer everything."""
    settings = WITHOUT_LIMITS.model_copy(update={"compiler": False})
    async with serving(database, settings) as client:
        yield people.through(client)


@pytest.fixture
async def limited(database: db.Database, people: People) -> AsyncIterator[People]:
    """The same viewers, on a server with the limits that one has unless told otherwise."""
    async with serving(database, Settings()) as client:
        yield people.through(client)
