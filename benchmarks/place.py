"""The benchmark's own PostgreSQL, with databases of two sizes, for all contenders."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from benchmarks.data import Size, connected, disable_triggers, load
from db import embedded

# In memory if there is room, so that the disk is not measured.
MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30

SETTINGS = {
    # The data is temporary; loading it should be fast.
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off"),
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    # It would run during a turn; the data is vacuumed and analyzed after loading.
    "autovacuum": "off",
    # A usual value for a server; the default is only 128 MB.
    "shared_buffers": "1GB",
    # Troupe turns it off itself; for the others, too, it takes more time than it saves.
    "jit": "off",
    # To count statements; it is off during measurements.
    "shared_preload_libraries": "pg_stat_statements",
}


@dataclass(frozen=True)
class Place:
    """A running PostgreSQL."""

    url: URL
    postmaster: int
    """The id of its main process, the parent of its backends."""

    def of(self, database: str) -> URL:
        """The URL of one of its databases."""
        return self.url.set(database=database)

    async def empty(self, database: str) -> URL:
        """Create a database without tables."""
        async with connected(self.url) as connection:
            await connection.execute(f"CREATE DATABASE {database}")
        return self.of(database)

    async def make(self, database: str, size: Size) -> URL:
        """Create a database with data of this size."""
        await self.empty(database)
        async with connected(self.url) as connection:
            await count_statements(connection, "none")
        await load(self.of(database), size)
        return self.of(database)

    async def copy(self, source: str, database: str, *, has_triggers: bool) -> URL:
        """Copy a database that nobody is connected to, with Troupe's triggers or without."""
        async with connected(self.url) as connection:
            await connection.execute(f"CREATE DATABASE {database} TEMPLATE {source}")
        if not has_triggers:
            await disable_triggers(self.of(database))
        return self.of(database)


async def count_statements(connection: Any, which: str) -> None:
    """Set which statements `pg_stat_statements` counts: `top`, or `none`."""
    await connection.execute(f"ALTER SYSTEM SET pg_stat_statements.track = '{which}'")
    await connection.execute("SELECT pg_reload_conf()")
    # Backends read the setting after a signal, before their next statement.
    await asyncio.sleep(0.2)


@contextmanager
def place() -> Iterator[Place]:
    """Run a PostgreSQL inside the block, and delete its data afterwards."""
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    base = MEMORY if in_memory else Path(tempfile.gettempdir())
    folder = base / f"troupe-bench-{uuid.uuid4().hex[:8]}"
    try:
        with embedded.running(folder, settings=SETTINGS) as server:
            yield Place(make_url(server.url), server.pid or 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
