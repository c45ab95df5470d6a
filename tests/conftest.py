"""A real PostgreSQL for the tests: a cluster in memory, and a database for each test."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import URL, make_url, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

import db
from db import migrate


async def _on_server(server: URL, *statements: str) -> None:
    """Run statements that cannot be part of a transaction."""
    engine = create_async_engine(server, poolclass=pool.NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
def server() -> URL:
    """The test cluster."""
    return make_url(os.environ["TROUPE_TEST_SERVER"]).set(drivername="postgresql+asyncpg")


@pytest.fixture(scope="session")
def template(server: URL) -> str:
    """A database at the head of the migrations, to be cloned."""
    name = f"template_{uuid.uuid4().hex[:12]}"
    asyncio.run(_on_server(server, f"CREATE DATABASE {name}"))
    asyncio.run(migrate.upgrade(server.set(database=name)))
    return name


@pytest.fixture
async def database_url(server: URL, template: str) -> AsyncIterator[URL]:
    """A database of the test's own, at head and empty."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _on_server(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    yield server.set(database=name)
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database(database_url: URL) -> AsyncIterator[db.Database]:
    """The engines of a server on the test's database."""
    database = db.Database(database_url)
    yield database
    await database.dispose()


@pytest.fixture
async def admin(database: db.Database) -> db.User:
    """The administrator, as the first start creates it."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        return await db.User.create(
            session, username="admin", email="admin@localhost", role=db.UserRole.ADMIN
        )
