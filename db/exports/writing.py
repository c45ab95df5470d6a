"""Writes the export of a project."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.engine import Database
from db.exports.contents import FORMAT, LATER, LINKS, TABLES, VERSION, columns, users
from db.imports.files import quoted

# Rows in a line, which is what is in memory at once.
BATCH = 100


class NotExportable(Exception):
    """The project cannot be exported; the message says why."""


async def export_project(database: Database, project: str, path: Path) -> Counter[str]:
    """Write the export of a project, by its id or its name; returns the rows of each table.

    All is read in one transaction, so it is from one moment. The file appears when it is complete.
    Raises NotExportable if there is no such project, or several, or if the file cannot be written.
    """
    name, path = path, _target(path)
    part = path.with_name(f"{path.name}.part")
    async with database.writer.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        # A large project takes longer than a request may.
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        id = await _find(connection, project)
        counts: Counter[str] = Counter()
        try:
            with part.open("wb") as file:
                file.write(_line({"format": FORMAT, "version": VERSION, "project": str(id)}))
                async for table, rows, number in _batches(connection, id):
                    file.write(b'{"table":"%s","rows":[' % table.encode())
                    file.write(b",".join(row.encode() for row in rows))
                    file.write(b"]}\n")
                    counts[table] += number
                file.write(_line({"end": counts}))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError as error:
            raise _not_writable(name, error) from None
        finally:
            _remove(part)
        await connection.rollback()
    return counts


def _target(path: Path) -> Path:
    """The file that is written: of a link, that to which it leads. Raises NotExportable.

    The complete file takes the place of what is there, which may be no device and no pipe.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "no regular file"
            raise NotExportable(f"{path} is {kind}.")
        return Path(os.path.realpath(path))
    except OSError as error:  # such as a name that is too long
        raise _not_writable(path, error) from None


def _not_writable(path: Path, error: OSError) -> NotExportable:
    return NotExportable(f"{path} cannot be written: {error.strerror}.")


def _remove(part: Path) -> None:
    with contextlib.suppress(OSError):
        part.unlink()


def _line(value: Any) -> bytes:
    return orjson.dumps(value) + b"\n"


async def _find(connection: AsyncConnection, project: str) -> UUID:
    found = await connection.execute(
        text("SELECT id FROM projects WHERE id::text = lower(:project) OR name = :project"),
        {"project": project},
    )
    ids: list[UUID] = list(found.scalars())
    if not ids:
        raise NotExportable(
            f"There is no project {quoted(project)}; `troupe projects list` shows them all."
        )
    if len(ids) > 1:
        named = ", ".join(map(str, ids))
        raise NotExportable(
            f"There are {len(ids)} projects {quoted(project)}; use one of the ids {named}."
        )
    return ids[0]


async def _batches(
    connection: AsyncConnection, project: UUID
) -> AsyncIterator[tuple[str, list[str], int]]:
    """Rows of the tables as JSON, some at once, with their number."""
    named = " UNION ".join(
        f"SELECT t.{column} FROM {table} t WHERE {where}"
        for table, where in TABLES.items()
        for column in users(table)
    )
    named += f" UNION SELECT t.actor_id FROM events t WHERE {TABLES['events']}"
    statements = [
        ("users", f"SELECT id, username FROM users WHERE id IN ({named}) ORDER BY id"),
        *((table, _select(table, columns(table), where)) for table, where in TABLES.items()),
        *(
            (
                f"{table}{LATER}",
                _select(table, ["id", *links], f"{TABLES[table]} AND ({_any_set(links)})"),
            )
            for table, links in LINKS.items()
        ),
    ]
    # The history is the last one.
    statements.append(statements.pop([name for name, _ in statements].index("events")))
    for name, statement in statements:
        rows = await connection.stream(
            text(f"SELECT row_to_json(r)::text FROM ({statement}) r"), {"project": project}
        )
        async for batch in rows.scalars().partitions(BATCH):
            yield name, list(batch), len(batch)


def _any_set(links: dict[str, str]) -> str:
    return " OR ".join(f"t.{column} IS NOT NULL" for column in links)


def _select(table: str, names: list[str], where: str) -> str:
    order = {"events": "t.position NULLS LAST, t.id"}.get(table)
    listed = ", ".join(f't."{name}"' for name in names)
    return f"SELECT {listed} FROM {table} t WHERE {where} ORDER BY {order or f't.{names[0]}'}"
