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
from db.exports.contents import FORMAT, LATER, LINKS, MADE, TABLES, VERSION, columns, users
from db.imports.files import NotImportable, Progress, no_progress, quoted, storing
from db.imports.report import Report
from db.imports.transactions import writing
from db.sessions import WriteSession

ROWS = re.compile(rb'\{"table":"([a-z_]+\+?)","rows":(\[.*\])\}', re.DOTALL)

# The table of the history, which is the last one.
HISTORY = "events"

# The tables that the report counts.
COUNTED = {
    "projects": "projects",
    "tasks": "tasks",
    "task_dependencies": "dependencies",
    "conversations": "conversations",
    "messages": "messages",
}


async def import_export(
    database: Database,
    path: Path,
    *,
    owner: UUID | None,
    preview: bool = False,
    progress: Progress = no_progress,
) -> Report:
    """Import the export of a project in one transaction, unless the project exists.

    Users are found by their ids and names; who is not found becomes nobody, and the owner of the
    project becomes `owner`. With `preview`, the transaction is rolled back, and the report says
    what would be done. Raises NotImportable.
    """
    report = Report(is_preview=preview)
    async with writing(database, is_preview=preview) as session:
        lines = _lines(path, progress)
        project = _project(next(lines, b"{}"), path)
        known = text("SELECT name FROM projects WHERE id = :id")
        name = await session.scalar(known, {"id": project})
        if name is not None:
            await _compare(session, project, name, _ends(path), report)
            return report
        counts = await _Import(session, project, owner, report).insert(lines, path)
        report.added.update({noun: counts[name] for name, noun in COUNTED.items()})
    return report


async def _compare(
    session: WriteSession, project: UUID, name: str, there: dict[str, int], report: Report
) -> None:
    """Report that the project exists, and how the numbers of its rows differ from the file."""
    report.already_there.update({noun: there.get(table, 0) for table, noun in COUNTED.items()})
    counted = ", ".join(
        f"(SELECT count(*) FROM {table} t WHERE {where}) AS {table}"
        for table, where in TABLES.items()
        if table != "ai_models"
    )
    here = (await session.execute(text(f"SELECT {counted}"), {"project": project})).mappings().one()
    other = [
        f"{there.get(table, 0):,} {table.replace('_', ' ')} (here {number:,})"
        for table, number in here.items()
        if number != there.get(table, 0)
    ]
    if other:
        report.step(
            "Kept",
            f"the project {quoted(name)} was changed since, here or there, and stays as it is here."
            f" The file has {', '.join(other)}. Delete the project to import it again.",
        )


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
    try:
        return UUID(str(first.get("project")))
    except ValueError:
        raise NotImportable(f"{path} names no project in its first line.") from None


def _rows(line: bytes, path: Path, number: int) -> tuple[list[dict[str, Any]], str]:
    """The rows of a line, and their text, which has every digit of the numbers."""
    try:
        text = line.decode()
        parsed = orjson.loads(text)
    except ValueError:
        raise NotImportable(f"{path}, line {number:,}: it is no JSON; it was changed.") from None
    if not all(isinstance(row, dict) for row in parsed):
        raise NotImportable(f"{path}, line {number:,}: a row is no object; it was changed.")
    return parsed, text


def _ends(path: Path) -> dict[str, int]:
    """The numbers of rows that the end of the file names."""
    line = b"{}"
    for last in _lines(path, no_progress):
        line = last
    end = _json(line, path).get("end")
    if not isinstance(end, dict):
        raise NotImportable(f"{path} is cut off: it has no end.")
    return end


class _Import:
    """The import of a project that does not exist yet."""

    def __init__(
        self, session: WriteSession, project: UUID, owner: UUID | None, report: Report
    ) -> None:
        self._session = session
        self._project = project
        self._owner = owner
        self._report = report
        # The users here by the ids of those in the file.
        self._users: dict[str, str] = {}

    async def insert(self, lines: Iterator[bytes], path: Path) -> Counter[str]:
        """Insert the rows of all lines. Returns the numbers of rows of each table in the file."""
        counts: Counter[str] = Counter()
        has_history = False
        # The first line was read before.
        for number, line in enumerate(lines, 2):
            match = ROWS.fullmatch(line)
            if match is None:
                if _json(line, path).get("end") != dict(counts):
                    raise NotImportable(f"{path} is not complete: its numbers of rows differ.")
                break
            table = match[1].decode()
            if table == HISTORY and not has_history:
                await self._forget()
                has_history = True
            with storing(f"{path}, line {number:,}"):
                counts[table] += await self._insert(table, *_rows(match[2], path, number))
        else:
            raise NotImportable(f"{path} is cut off: it has no end.")
        if not has_history:
            await self._forget()
        return counts

    async def _forget(self) -> None:
        """Delete the events of the rows that were inserted: those of the file follow instead."""
        await self._session.execute(
            text(
                "DELETE FROM events"
                " WHERE position IS NULL AND created_at = now() AND project_id = :project"
            ),
            {"project": self._project},
        )

    async def _insert(self, table: str, parsed: list[dict[str, Any]], rows: str) -> int:
        """Insert the rows of a line. Returns their number."""
        if table == "users":
            return await self._find_users(rows)
        name = table.removesuffix(LATER)
        if name not in TABLES or (table != name and name not in LINKS):
            raise NotImportable(
                f"The export has the table {table}, which this Troupe does not know: upgrade it."
            )
        keys = {key for row in parsed for key in row}
        unknown = keys - {*columns(name), *LINKS.get(name, ()), "id"}
        if unknown:
            raise NotImportable(
                f"The export has {table}.{min(unknown)}, which this Troupe does not know: upgrade"
                " it."
            )
        if table == name:
            await self._add(name, rows, keys)
        else:
            await self._link(name, rows)
        return len(parsed)

    async def _link(self, name: str, rows: str) -> None:
        """Set the columns that refer to rows which have followed."""
        for column, target in LINKS[name].items():
            # What it refers to may be of another project.
            await self._session.execute(
                text(
                    f"UPDATE {name} t SET {column} = r.{column}"
                    f" FROM {_given(name)} JOIN {target} o ON o.id = r.{column} WHERE t.id = r.id"
                ),
                {"rows": rows},
            )

    async def _add(self, name: str, rows: str, keys: set[str]) -> None:
        of_users = users(name)
        values = {
            column: _user(column) if column in of_users else f'r."{column}"'
            for column in columns(name)
            if column in keys
        }
        where = ""
        parameters: dict[str, Any] = {"rows": rows}
        if of_users:
            parameters["users"] = orjson.dumps(self._users).decode()
        if name == "projects":
            values["owner_id"] = f"coalesce({values['owner_id']}, CAST(:owner AS uuid))"
            parameters["owner"] = self._owner
        elif name == "events":
            # Users who do not exist here stay in the history.
            values["actor_id"] = f'coalesce({_user("actor_id")}, r."actor_id")'
            parameters["users"] = orjson.dumps(self._users).decode()
        elif name == "budget_reservations":
            # That of the transaction of the import, in which no attempt is begun.
            values["transaction"] = "0"
        elif name == "project_members":
            where = f" WHERE {values['user_id']} IS NOT NULL"
        listed = ", ".join(f'"{column}"' for column in values)
        conflict = " ON CONFLICT DO NOTHING" if name in ("ai_models", "project_members") else ""
        await self._session.execute(
            text(
                f"INSERT INTO {name} ({listed}) SELECT {', '.join(values.values())}"
                f" FROM {_given(name)}{where}{conflict}"
            ),
            parameters,
        )
        for made in MADE.get(name, ()):
            await self._session.execute(
                text(f"DELETE FROM {made} t WHERE {TABLES[made]}"), {"project": self._project}
            )
        if name == "projects":
            # As a project that is created: its owner is a member.
            await self._session.execute(
                text(
                    "INSERT INTO project_members (project_id, user_id, role)"
                    " SELECT id, owner_id, 'OWNER' FROM projects"
                    " WHERE id = :project AND owner_id IS NOT NULL"
                ),
                {"project": self._project},
            )

    async def _find_users(self, rows: str) -> int:
        """Find the users of the file here: by id, or by name."""
        found = await self._session.execute(
            text(
                "SELECT r.id::text, r.username, coalesce(same.id, named.id)::text"
                " FROM json_to_recordset(CAST(:rows AS json)) r (id uuid, username text)"
                " LEFT JOIN users same ON same.id = r.id"
                " LEFT JOIN users named ON lower(named.username) = lower(r.username)"
            ),
            {"rows": rows},
        )
        number = 0
        for id, username, own in found:
            number += 1
            if own is not None:
                self._users[id] = own
                continue
            self._report.change(
                f"the user {quoted(username)} does not exist here, so what names the user names"
                " nobody."
            )
        return number


def _user(column: str) -> str:
    """The user here for a column with one of the file."""
    return f"""CAST(CAST(:users AS jsonb) ->> r."{column}"::text AS uuid)"""


def _given(table: str) -> str:
    return f"json_populate_recordset(NULL::{table}, CAST(:rows AS json)) r"
