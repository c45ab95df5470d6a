"""Where everybody reads: a PostgreSQL of the benchmark's own, with the data in two sizes."""

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

import asyncpg
from sqlalchemy import URL, make_url

from benchmarks.data import Size, dsn, load
from db import embedded

# In memory where there is room, so that no disk is measured.
MEMORY = Path("/dev/shm")
ROOM = 4 * 2**30

SETTINGS = {
    # Nobody keeps this data; it only has to be there soon.
    **dict.fromkeys(("fsync", "synchronous_commit", "full_page_writes"), "off"),
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    # It would run into somebody's turn; the data is vacuumed and analyzed once it is there.
    "autovacuum": "off",
    # As for a machine of some gigabytes. The default, 128 MB, is for one of 1995.
    "shared_buffers": "1GB",
    # Troupe switches it off by itself; compiling these queries costs the others more, too.
    "jit": "off",
    # To count statements, outside of what is timed.
    "shared_preload_libraries": "pg_stat_statements",
}


@dataclass(frozen=True)
class Place:
    """A running PostgreSQL."""

    url: URL
    postmaster: int
    """Its first process, which started the others."""

    def of(self, database: str) -> URL:
        """The URL of one of its databases."""
        return self.url.set(database=database)

    async def make(self, database: str, size: Size) -> URL:
        """Make a database with the data of this size."""
        connection = await asyncpg.connect(dsn(self.url))
        await connection.execute(f"CREATE DATABASE {database}")
        await count_statements(connection, "none")
        await connection.close()
        await load(self.of(database), size)
        return self.of(database)


async def count_statements(connection: Any, which: str) -> None:
    """Have `pg_stat_statements` count everybody's statements: `all`, or `none`."""
    await connection.execute(f"ALTER SYSTEM SET pg_stat_statements.track = '{which}'")
    await connection.execute("SELECT pg_reload_conf()")
    # A connection hears of it before its next statement, once the signal has gone round.
    await asyncio.sleep(0.2)


@contextmanager
def place() -> Iterator[Place]:
    """A PostgreSQL inside the block, of which nothing is left afterwards."""
    in_memory = os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM
    base = MEMORY if in_memory else Path(tempfile.gettempdir())
    folder = base / f"troupe-bench-{uuid.uuid4().hex[:8]}"
    try:
        with embedded.running(folder, settings=SETTINGS) as server:
            yield Place(make_url(server.url), server.pid or 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
