"""Imports the export of a project, with all its ids."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from db.engine import Database
from db.exports.contents import FORMAT, LATER, LINKS, TABLES, VERSION, columns, users
from db.imports.files import NotImportable, Progress, no_progress, quoted, storing
from db.imports.report import Report
from db.scopes import Viewer
from db.sessions import WriteSession

ROWS = re.compile(rb'\{"table":"([a-z_]+\+?)","rows":(\[.*\])\}', re.DOTALL)

# The tables that the report counts.
COUNTED = {
    "projects": "projects",
    "tasks": "tasks",
    "task_dependencies": "dependencies",
    "conversations": "conversations",
    "messages": "messages",
}


async def import_export(
    database: Database, path: Path, *, owner: UUID | None, progress: Progress = no_progress
) -> Report:
    """Import the export of a project in one transaction, unless the project exists.

    Users are found by their ids and names; who is not found becomes nobody, and the owner of the
    project becomes `owner`. Raises NotImportable.
    """
    report = Report()
    async with database.write(Viewer(is_administrator=True)) as session:
        for limit in ("statement_timeout", "transaction_timeout"):
            await session.execute(text(f"SET LOCAL {limit} = 0"))
        project, counts = None, Counter[str]()
        for line in _lines(path, progress):
            if project is None:
                project = _project(line, path)
                known = text("SELECT 1 FROM projects WHERE id = :id")
                if (await session.execute(known, {"id": project})).first() is not None:
                    report.already_there.update(_ends(path))
                    return report
                await _prepare(session)
                continue
            match = ROWS.fullmatch(line)
            if match is None:
                end = _json(line, path).get("end")
                if end != dict(counts):
                    raise NotImportable(f"{path} is not complete: its numbers of rows differ.")
                break
            with storing(str(path)):
                table = match[1].decode()
                counts[table] += await _insert(
                    session, project, table, match[2].decode(), owner, report
                )
        else:
            raise NotImportable(f"{path} is cut off: it has no end.")
        report.added.update({COUNTED[name]: counts[name] for name in COUNTED})
    return report


def _lines(path: Path, progress: Progress) -> Iterator[bytes]:
    size, done = path.stat().st_size, 0
    with path.open("rb") as file:
        for line in file:
            done += len(line)
            yield line.rstrip(b"\n")
            progress(done, size)


def _json(line: bytes, path: Path) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise NotImportable(f"{path} is cut off, or no export of Troupe.") from None
    return found if isinstance(found, dict) else {}


def _project(line: bytes, path: Path) -> UUID:
    first = _json(line, path)
    if first.get("format") != FORMAT:
        raise NotImportable(f"{path} is no export of Troupe.")
    if first.get("version") != VERSION:
        raise NotImportable(
            f"{path} has the version {first.get('version')}, and this Troupe reads {VERSION}."
        )
    return UUID(first["project"])


def _ends(path: Path) -> Counter[str]:
    """The numbers of rows that the end of the file names."""
    line = b"{}"
    for last in _lines(path, no_progress):
        line = last
    end = _json(line, path).get("end", {})
    return Counter({COUNTED[name]: end.get(name, 0) for name in COUNTED})


async def _prepare(session: WriteSession) -> None:
    await session.execute(
        text("CREATE TEMPORARY TABLE imported_users (id uuid PRIMARY KEY, own uuid) ON COMMIT DROP")
    )


async def _insert(
    session: WriteSession,
    project: UUID,
    table: str,
    rows: str,
    owner: UUID | None,
    report: Report,
) -> int:
    """Insert the rows of a line. Returns their number in the file."""
    if table == "users":
        return await _find_users(session, rows, report)
    name = table.removesuffix(LATER)
    if name not in TABLES:
        raise NotImportable(f"The export has the table {table}, which this Troupe does not know.")
    parsed: list[dict[str, Any]] = orjson.loads(rows)
    keys = {key for row in parsed for key in row}
    unknown = keys - {*columns(name), *LINKS.get(name, ()), "id"}
    if unknown:
        raise NotImportable(
            f"The export has {table}.{min(unknown)}, which this Troupe does not know: upgrade it."
        )
    number = len(parsed)
    given = f"json_populate_recordset(NULL::{name}, CAST(:rows AS json)) r"
    if table != name:
        for column, target in LINKS[name].items():
            # What it refers to may be of another project.
            await session.execute(
                text(
                    f"UPDATE {name} t SET {column} = r.{column} FROM {given} WHERE t.id = r.id"
                    f" AND EXISTS (SELECT FROM {target} o WHERE o.id = r.{column})"
                ),
                {"rows": rows},
            )
        return number
    if name == "events":
        await _forget_import(session, project)
    named = [column for column in columns(name) if column in keys]
    of_users = users(name)
    values = {
        column: f"(SELECT u.own FROM imported_users u WHERE u.id = r.{column})"
        if column in of_users
        else f'r."{column}"'
        for column in named
    }
    where = ""
    parameters: dict[str, Any] = {"rows": rows}
    if name == "projects":
        values["owner_id"] = f"coalesce({values['owner_id']}, CAST(:owner AS uuid))"
        parameters["owner"] = owner
    elif name == "project_members":
        where = f" WHERE {values['user_id']} IS NOT NULL"
    listed = ", ".join(f'"{column}"' for column in values)
    conflict = " ON CONFLICT DO NOTHING" if name in ("ai_models", "project_members") else ""
    await session.execute(
        text(
            f"INSERT INTO {name} ({listed}) SELECT {', '.join(values.values())}"
            f" FROM {given}{where}{conflict}"
        ),
        parameters,
    )
    if name == "projects":
        # As a project that is created: its owner is a member.
        await session.execute(
            text(
                "INSERT INTO project_members (project_id, user_id, role)"
                f" SELECT p.id, p.owner_id, 'OWNER' FROM projects p JOIN {given} ON p.id = r.id"
                " WHERE p.owner_id IS NOT NULL"
            ),
            {"rows": rows},
        )
    return number


async def _find_users(session: WriteSession, rows: str, report: Report) -> int:
    """Find the users of the file here: by id, or by name."""
    found = await session.execute(
        text(
            "INSERT INTO imported_users SELECT r.id, coalesce(same.id, named.id)"
            " FROM json_to_recordset(CAST(:rows AS json)) r (id uuid, username text)"
            " LEFT JOIN users same ON same.id = r.id"
            " LEFT JOIN users named ON lower(named.username) = lower(r.username)"
            " RETURNING id, own"
        ),
        {"rows": rows},
    )
    known = {str(id): own for id, own in found}
    given = orjson.loads(rows)
    for user in given:
        if known[user["id"]] is None:
            report.change(
                f"the user {quoted(user['username'])} does not exist here, so what names the user"
                " names nobody."
            )
    return len(given)


async def _forget_import(session: WriteSession, project: UUID) -> None:
    """Delete the events of the rows that were inserted: those of the file follow instead."""
    await session.execute(
        text(
            "DELETE FROM events"
            " WHERE position IS NULL AND created_at = now() AND project_id = :project"
        ),
        {"project": project},
    )
