"""The triggers that write the event log, generated from the models as SQL.

Each logged table has a function and four triggers, which run once for each statement. The function
compares the rows before and after column by column; an update that changes no logged column makes
no event. Migrations contain the text; `autogenerate.py` finds tables whose text is outdated.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any

from sqlalchemy import Boolean, Column, Enum, ForeignKey, Integer, Table, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from db.base import Base
from db.events import ORPHAN

Value = Callable[[str], str]
"""Makes the SQL of the value that a row has in a column."""

# Columns that follow from other changes.
DERIVED = {"updated_at", "version"}

# Columns with such names are not logged, unless their `info` says so.
SECRET = re.compile("password|hash|secret")

LINE = 92
"""The length of a line of SQL."""

PREFIX = "log_"
"""What the names of the functions and of their triggers begin with."""


def logged_tables() -> dict[Table, str]:
    """The tables that are logged, each with the type of its entities in the log."""
    names = {
        mapper.local_table: mapper.class_.__name__
        for mapper in Base.registry.mappers
        if mapper.inherits is None
    }
    return {
        table: names[table]
        for table in Base.metadata.sorted_tables
        if table in names and table.info.get("logged", True)
    }


def object_types() -> dict[str, str]:
    """For each association, the type of the object that the first part of its key names."""
    names = logged_tables()
    found = {}
    for table, name in names.items():
        first = next(iter(table.primary_key))
        for foreign in first.foreign_keys:
            found[name] = names[foreign.column.table]
    return found


def is_logged(column: Column[Any]) -> bool:
    """Whether the values of a column are part of the event log."""
    is_secret = SECRET.search(column.name) is not None
    default = not is_secret and column.name not in DERIVED and column.computed is None
    return bool(column.info.get("logged", default))


def parent_key(table: Table) -> ForeignKey | None:
    """The foreign key to the row of a project that a row without `project_id` is part of."""
    if "project_id" in table.columns or table.name == "projects":
        return None
    return next(
        (
            key
            for column in table.columns
            for key in column.foreign_keys
            if key.ondelete == "CASCADE" and "project_id" in key.column.table.columns
        ),
        None,
    )


def _nullable_project(table: Table) -> bool:
    """Whether a row of a table may belong to no project."""
    key = parent_key(table)
    column = table.columns.get("project_id") if key is None else key.parent
    return column is not None and bool(column.nullable)


def _project(table: Table, value: Value) -> str:
    """The project of a row that names it, as SQL."""
    if table.name == "projects":
        return value("id")
    return value("project_id") if "project_id" in table.columns else "NULL::uuid"


def _owner(table: Table, value: Value) -> str:
    """The user whose the row is if it belongs to no project, as SQL."""
    if table.name == "users":
        return value("id")
    has_owner = "user_id" in table.columns and _nullable_project(table)
    return value("user_id") if has_owner else "NULL::uuid"


def _is_shown(column: Column[Any]) -> bool:
    """Whether a column is part of the key of an association, by which its rows are found."""
    return column.primary_key and len(column.table.primary_key) > 1


def _whole(columns: Sequence[Column[Any]], row: str) -> str:
    """The columns of a row that are set, as a JSON object, as SQL."""
    nulls = [
        f"CASE WHEN {row}.{column.name} IS NULL THEN '{column.name}' END"
        for column in columns
        if column.nullable
    ]
    whole = f"to_jsonb({row})"
    return f"{whole} - ARRAY[\n        {_lines(nulls, 8)}\n      ]" if nulls else whole


def _rows(columns: Sequence[Column[Any]], table: str, row: str, *more: str) -> str:
    """The logged columns of a transition table, so that no other is read, as SQL."""
    names = _lines([*more, *(column.name for column in columns)], 13)
    return f"(\n      SELECT {names}\n      FROM {table}\n    ) {row}"


def _changed(columns: Sequence[Column[Any]], row: str) -> str:
    """The columns of a row that were changed, as a JSON object, as SQL.

    It is made as text: that leaves out what was not changed, and shows what was set to null.
    """
    parts = []
    for column in columns:
        part = f"""',"{column.name}":' || {_json(column, row)}"""
        parts.append(part if _is_shown(column) else f"CASE WHEN {_differ(column)} THEN {part} END")
    return f"('{{' || substr(concat(\n        {_lines(parts, 8)}\n      ), 2) || '}}')::jsonb"


def _differ(column: Column[Any]) -> str:
    """Whether the value of a column was changed, as SQL."""
    before, after = f"o.{column.name}", f"n.{column.name}"
    if isinstance(column.type, JSONB):  # 1 and 1.0 are equal as JSON, but not the same
        return f"record_image_ne(ROW({before}), ROW({after}))"
    return f"{before} IS DISTINCT FROM {after}"


def _json(column: Column[Any], row: str) -> str:
    """The JSON text of a value, as SQL. What needs no escape is faster without `to_json`."""
    value = f"{row}.{column.name}"
    match column.type:
        case Integer() | Boolean() | JSONB():
            text = f"{value}::text"
        case Uuid() | Enum():
            text = f"""'"' || {value} || '"'"""
        case _:
            text = f"to_json({value})::text"
    return f"coalesce({text}, 'null')" if column.nullable else text


def _lines(parts: Iterable[str], indent: int) -> str:
    """The parts with commas between them, on lines of this indent."""
    lines = textwrap.wrap(
        ", ".join(parts),
        LINE - indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"\n{' ' * indent}".join(lines)


def _insert(table: Table, action: str, values: Mapping[str, str], value: Value, rows: str) -> str:
    """The statement that writes the events of these rows, as SQL."""
    project, owner = _project(table, value), _owner(table, value)
    parent = parent_key(table)
    if parent is not None:
        there, key = parent.column.table, value(parent.parent.name)
        named: Value = "p.{}".format
        # LIMIT keeps this a lookup by the key: the plan is kept, and serves any number of rows.
        rows += f"""
    LEFT JOIN LATERAL (
      SELECT {_project(there, named)} AS project_id, {_owner(there, named)} AS owner_id,
        true AS is_found
      FROM {there.name} p WHERE p.id = {key}
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = '{logged_tables()[there]}'
        AND e.entity_id = {key}::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true"""
        # In a cascade, PostgreSQL runs the triggers of the parent before or after. If they run
        # after, they set the project.
        is_orphan = f"p.is_found IS NULL AND {key} IS NOT NULL"
        project = f"""CASE
        WHEN {is_orphan}
        THEN '{ORPHAN}'::uuid ELSE p.project_id
      END"""
        owner = f"""CASE
        WHEN {is_orphan}
        THEN {key}
        ELSE coalesce(p.owner_id, {owner})
      END"""
    return f"""
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      {project},
      {owner},
      '{logged_tables()[table]}',
      {value(_keys(table)[0])}::text,
      {action},
      {values.get("o", "NULL")},
      {values.get("n", "NULL")}
    FROM {rows}"""


def _keys(table: Table) -> list[str]:
    return [column.name for column in table.primary_key]


def _created(table: Table, columns: list[Column[Any]]) -> str:
    values = {"n": _whole(columns, "n")}
    return _insert(table, "'CREATED'", values, "n.{}".format, _rows(columns, "new_rows", "n"))


def _deleted(table: Table, columns: list[Column[Any]]) -> str:
    values = {"o": _whole(columns, "o")}
    return _insert(table, "'DELETED'", values, "o.{}".format, _rows(columns, "old_rows", "o"))


def _updated(table: Table, columns: list[Column[Any]]) -> str:
    first = _keys(table)[0]
    values = {
        row: f"CASE WHEN {row}.{first} IS NOT NULL THEN {_changed(columns, row)} END"
        for row in "on"
    }
    # A row whose key is changed is a row deleted and a row created. A full join is never a nested
    # loop, whatever the number of rows was when the plan was made.
    same = " AND ".join(f"n.{key} = o.{key}" for key in _keys(table))
    before, after = (_lines((f"{row}.{column.name}" for column in columns), 6) for row in "on")
    old, new = "old_rows o", "new_rows n"
    if _is_updated_repeatedly(table):
        # The rows of one update have the same place in both tables.
        place = "row_number() OVER () AS place"
        old, new = _rows(columns, "old_rows", "o", place), _rows(columns, "new_rows", "n", place)
        same += " AND n.place = o.place"
    action = f"""CASE
        WHEN o.{first} IS NULL THEN 'CREATED'
        WHEN n.{first} IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END"""
    rows = f"{old}\n    FULL JOIN {new} ON {same}"
    insert = _insert(table, action, values, "coalesce(n.{0}, o.{0})".format, rows)
    # Compares bytes, which is faster than a comparison of each column by its type.
    changed = f"record_image_ne(\n      ROW({before}),\n      ROW({after})\n    )"
    logging = f"{insert}\n    WHERE {changed};"
    if not _has_other_columns(table):
        return logging
    # Most updates change only columns that are not logged. Finding out takes less time than a
    # statement that inserts nothing.
    return f"""
    IF EXISTS (SELECT FROM {rows}
    WHERE {changed}) THEN{logging}
    END IF;"""


def _deleted_with(table: Table) -> set[Table]:
    """The tables in which a deletion also deletes rows of this one."""
    found, new = set[Table](), {table}
    while new:
        found |= new
        keys = [key for each in new for key in each.foreign_keys if key.ondelete == "CASCADE"]
        new = {key.column.table for key in keys} - found
    return found


def _is_updated_repeatedly(table: Table) -> bool:
    """Whether the deletion of one row can set several foreign keys of a row of this table to null.

    PostgreSQL does so by an update for each key, and runs the trigger once for all of them.
    """
    cleared = [key.column.table for key in table.foreign_keys if key.ondelete == "SET NULL"]
    return any(one in _deleted_with(other) for one, other in permutations(cleared, 2))


def _has_other_columns(table: Table) -> bool:
    """Whether a table has columns that are not logged, besides derived ones."""
    return any(
        not (is_logged(column) or column.name in DERIVED or column.computed is not None)
        for column in table.columns
    )


def _adopted(table: Table) -> str:
    """The statement that sets the project of events of rows that were part of deleted rows."""
    parents = {key.column.table for key in map(parent_key, logged_tables()) if key is not None}
    if table not in parents:
        return ""
    project, owner = (of(table, "o.{}".format) for of in (_project, _owner))
    return f"""
    UPDATE events e SET project_id = {project}, owner_id = {owner}
    FROM old_rows o
    WHERE e.project_id = '{ORPHAN}'::uuid AND e.owner_id = o.id
      AND e.created_at = now();"""


def body(table: Table) -> str:
    """The body of the function that logs the changes of a table."""
    columns = [column for column in table.columns if is_logged(column)]
    return f"""
BEGIN
  IF TG_OP = 'INSERT' THEN{_created(table, columns)};
  ELSIF TG_OP = 'UPDATE' THEN{_updated(table, columns)}
  ELSE{_deleted(table, columns)};{_adopted(table)}
  END IF;
  RETURN NULL;
END
"""


TRUNCATE = """
BEGIN
  EXECUTE format('DELETE FROM %s', TG_RELID::regclass);
  RETURN NULL;
END
"""
"""The body of the function that deletes the rows which TRUNCATE removes, so that it is logged."""


def function(table: str, body: str) -> str:
    """The statement that makes or replaces the function of a table.

    Its settings do not depend on the session: values are written in UTC, the log is found whatever
    the search path is, and plans, which are kept, find rows by their keys.
    """
    return (
        f"CREATE OR REPLACE FUNCTION {PREFIX}{table}() RETURNS trigger LANGUAGE plpgsql\n"
        f"SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off\nAS $${body}$$"
    )


TRIGGERS = {
    "insert": "AFTER INSERT ON {}\nREFERENCING NEW TABLE AS new_rows",
    "update": "AFTER UPDATE ON {}\nREFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "AFTER DELETE ON {}\nREFERENCING OLD TABLE AS old_rows",
}


def creating(table: str, body: str) -> Iterator[str]:
    """The statements that make the function and the triggers of a table."""
    yield function(table, body)
    for event, when in TRIGGERS.items():
        yield (
            f"CREATE TRIGGER {PREFIX}{event} {when.format(table)}\n"
            f"FOR EACH STATEMENT EXECUTE FUNCTION {PREFIX}{table}()"
        )
    yield (
        f"CREATE TRIGGER {PREFIX}truncate BEFORE TRUNCATE ON {table}\n"
        "FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()"
    )


def dropping(table: str) -> Iterator[str]:
    """The statements that drop the function and the triggers of a table."""
    yield f"DROP TRIGGER {PREFIX}truncate ON {table}"
    yield f"DROP FUNCTION {PREFIX}{table}() CASCADE"
