"""Inserts and updates of one row: one statement each, with the checks that it needs.

The statement does nothing if the viewer lacks the right, if a row that is referred to is missing or
belongs to another project, or if the version is another. `WriteSession` then finds out why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    CTE,
    Column,
    ColumnClause,
    ColumnElement,
    Executable,
    FromClause,
    Select,
    String,
    Table,
    Text,
    Uuid,
    cast,
    exists,
    func,
    insert,
    inspect,
    literal_column,
    null,
    or_,
    select,
    table,
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased
from sqlalchemy.sql.visitors import iterate
from sqlalchemy.types import TypeEngine

from db.base import Composed, nulls, with_defaults
from db.events import ACTOR
from db.events.actors import actor_of
from db.idempotency import storing
from db.parameters import Deferred, bind
from db.rights import Right
from db.scopes import Viewer, scope
from db.statements import Compiled, Statement, compiled, value
from db.text import composed, to_json

COMPUTE = "compute"
"""The `info` of a column whose value is computed when a row is inserted, of the other values."""

NUMBER = "number"
"""The column of `unnested` with the number of the row, from 1."""

WRITTEN_BY_TRIGGERS = {"events"}
"""The tables that triggers write, after the statement that runs them."""

WRITTEN = "written"
"""The name of the rows that a statement has written, in the statement."""

READING = "reading"
"""Stands for a part of a statement that is compiled already."""


def set_actor() -> ColumnElement[Any]:
    """The expression that sets the actor of the transaction that it is evaluated in."""
    actor = bind(Deferred(lambda request: actor_of(request.viewer) or ""), Text)
    return func.set_config(literal_column(f"'{ACTOR}'"), actor, literal_column("true"))


def project_id_of(row: Any) -> ColumnElement[Any]:
    """The id of the project that a row belongs to, itself or as a part of another row.

    The row is given as a model or an alias. NULL if rows of this model belong to no project.
    """
    mapper = inspect(row).mapper
    if "project_id" in mapper.columns:
        return row.project_id  # type: ignore[no-any-return]
    for relation in mapper.relationships:
        parent = relation.mapper.class_
        ((local, remote),) = relation.local_remote_pairs or [(None, None)]
        if not relation.uselist and not local.nullable and hasattr(parent, "project_id"):
            key = getattr(row, mapper.get_property_by_column(local).key)
            return select(parent.project_id).where(remote == key).scalar_subquery()
    return null()


@cache
def references(model: Any) -> dict[str, Any]:
    """The to-one relationships of a model, by the name of their foreign key."""
    relations: Any = inspect(model).relationships
    return {
        str(relation.local_remote_pairs[0][0].key): relation
        for relation in relations
        if not relation.uselist
    }


def refers(
    model: Any,
    names: Collection[str],
    viewer: Viewer,
    project_id: Any,
    key: Callable[[str, Any], Any] = value,
) -> dict[str, ColumnElement[bool]]:
    """For each foreign key among the names, that its row is visible, in this project or in none.

    `key` is the foreign key with a name and a type: by default, a value of this name.
    """
    met: dict[str, ColumnElement[bool]] = {}
    for name, relation in references(model).items():
        if name not in names:
            continue
        target = aliased(relation.mapper.class_)
        ((local, remote),) = relation.local_remote_pairs
        column = getattr(target, relation.mapper.get_property_by_column(remote).key)
        found = [column == key(name, local.type), scope(target, viewer)]
        owner = project_id_of(target)
        if getattr(owner, "nullable", True):
            found.append(or_(owner.is_(None), owner == project_id))
        else:
            found.append(owner == project_id)
        met[name] = exists(select(literal_column("1")).where(*found))
    return met


def rows_refer(
    model: Any, names: Collection[str], viewer: Viewer, project_id: Any, given: FromClause
) -> list[ColumnElement[bool]]:
    """The conditions that all given rows refer to visible rows, of this project or of none."""
    each = given.alias().c
    visible = refers(model, names, viewer, project_id, lambda name, _: each[name])
    return [
        ~exists(select(1).where(each[name].is_not(None), ~met)) for name, met in visible.items()
    ]


@Statement
def inserted(
    viewer: Viewer,
    model: Any,
    below: str,
    names: tuple[str, ...],
    checked: tuple[str, ...],
    right: Right,
) -> Executable:
    """Insert a row with these columns below the row of a relationship. Returns its id, or nothing.

    The viewer needs the right on the row above, and has to see what the `checked` columns refer to.
    """
    table = model.__table__
    relation: Any = inspect(model).relationships[below]
    above = aliased(relation.mapper.class_)
    ((local, remote),) = relation.local_remote_pairs
    key = getattr(above, relation.mapper.get_property_by_column(remote).key)
    project_id = above.id if local.name == "project_id" else project_id_of(above)
    columns: dict[str, Any] = {name: value(name, table.c[name].type) for name in names}
    if local.name != "project_id" and "project_id" in table.c:
        columns["project_id"] = project_id
    for column in table.columns:
        if COMPUTE in column.info:
            columns[column.name] = column.info[COMPUTE](columns)
    rows = select(*columns.values()).where(
        key == value(local.name, local.type),
        scope(above, viewer, right),
        *refers(model, checked, viewer, project_id).values(),
    )
    statement = insert(table).from_select(list(columns), rows, include_defaults=False)
    return statement.returning(table.c.id, set_actor())


@Statement
def updated(
    viewer: Viewer, model: Any, names: tuple[str, ...], right: Right, is_versioned: bool
) -> Executable:
    """Update these columns of the row with an id, if a value changes. Returns its id, or nothing.

    With `is_versioned`, only if it has the expected version.
    """
    table = model.__table__
    new = {name: value(name, table.c[name].type) for name in names}
    version: Any = inspect(model).version_id_col
    if version is not None:
        new[version.name] = version + 1
    conditions = [table.c.id == value("id", Uuid), scope(model, viewer, right)]
    if is_versioned:
        conditions.append(version == value("expected_version", version.type))
    conditions += refers(model, names, viewer, project_id_of(model)).values()
    conditions.append(or_(*(_differs(table.c[name], new[name]) for name in names)))
    changed = update(model).where(*conditions).values(new)
    return changed.returning(table.c.id, set_actor())


def keyed(statement: Any) -> Compiled:
    """A statement that also stores an idempotency key, if it returns rows."""
    written = statement.cte(WRITTEN)
    return compiled(select(written).add_cte(storing(written)))


def written_row(model: Any) -> Any:
    """An alias of a model for the rows that an extended statement has written."""
    columns = (ColumnClause(each.name, each.type) for each in model.__table__.columns)
    return aliased(model, table(WRITTEN, *columns), adapt_on_names=True)


class Returning:
    """Values of each row that a statement writes, which the same statement returns.

    It consists of text, because many are cached, and an expression is hundreds of objects.
    """

    def __init__(self, row: Any, values: Mapping[str, ColumnElement[Any]]) -> None:
        """`values` are expressions of a `written_row`, which are returned with its id."""
        self.model: Any = inspect(row).mapper.class_
        self.names = tuple(values)
        self.reading = compiled(select(row.id, *values.values()))
        parts = [part for value in values.values() for part in iterate(value)]
        columns = [each for each in parts if isinstance(each, ColumnClause)]
        bases = {base for each in columns for base in each.base_columns}
        self._tables = {each.name for each in parts if isinstance(each, Table)}
        self._columns = {str(each) for each in bases if isinstance(each, Column)}
        # Other bases are expressions of subqueries.
        own = [each for each in bases if isinstance(each, ColumnClause)]
        self._written = sorted({each.name for each in own if each.table is inspect(row).selectable})

    def fits(self, model: Any, changed: Collection[Any] = ()) -> bool:
        """Whether a statement can return it that writes a model, and changes columns of others.

        A statement reads all tables as they were before it. So the values must not depend on other
        rows of the model, on these columns, or on what triggers write.
        """
        is_unchanged = self._tables.isdisjoint({model.__table__.name, *WRITTEN_BY_TRIGGERS})
        return self.model is model and is_unchanged and self._columns.isdisjoint(map(str, changed))

    def depends_only_on(self, viewer: Viewer) -> bool:
        """Whether no value depends on anything of a request but its viewer."""
        allowed = (viewer.user_id, viewer.agent_id)
        deferred = (each for each, _ in self.reading.parameters if isinstance(each, Deferred))
        return all(each in allowed for each in deferred)

    def extended(self, statement: Any) -> Compiled:
        """A statement that returns the ids of the rows it writes, so that it returns this too."""
        return self._extended(self._cte(statement))

    def extended_and_keyed(self, statement: Any) -> Compiled:
        """The same, for a statement that also stores an idempotency key."""
        written = self._cte(statement)
        return self._extended(written, storing(written))

    def _cte(self, statement: Any) -> CTE:
        columns = self.model.__table__.c
        names = [name for name in self._written if name != "id"]
        written: CTE = statement.returning(*(columns[name] for name in names)).cte(WRITTEN)
        return written

    def _extended(self, *ctes: CTE) -> Compiled:
        writing, reading = compiled(select(literal_column(READING)).add_cte(*ctes)), self.reading
        number = len(writing.parameters)
        text = re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + number}", reading.sql)
        sql = writing.sql.replace(f"SELECT {READING}", text)
        return Compiled(sql, (*writing.parameters, *reading.parameters))


class Returned:
    """What the statement of a mutation has returned besides the ids of the rows."""

    def __init__(self, returning: Returning) -> None:
        self.returning = returning
        self._values: dict[str, dict[Any, Any]] = {name: {} for name in returning.names}

    def add(self, rows: Sequence[Any]) -> None:
        """Add the rows that a statement has returned."""
        for id, *found in rows:
            for known, each in zip(self._values.values(), found, strict=True):
                known[id] = each

    def values(self, name: str, ids: Sequence[Any]) -> list[Any] | None:
        """The values of this name, of the rows with these ids; None if one is not there."""
        known = self._values.get(name, {})
        found = [known.get(id) for id in ids]
        return None if None in found else found


def unnested(model: Any, names: Sequence[str]) -> Select[Any]:
    """Selects rows with these columns of a model, from an array for each, and their `number`.

    A VALUES list has a parameter for every value: PostgreSQL accepts at most 65,535 of them,
    and they are slow to bind.
    """
    table = model.__table__
    given = func.unnest(*(value(name, _array(table.c[name].type)) for name in names))
    raw = given.table_valued(*names, with_ordinality=NUMBER).render_derived(name="given")
    columns = [
        cast(raw.c[name], JSONB).label(name)
        if isinstance(table.c[name].type, JSONB)
        else type_coerce(raw.c[name], table.c[name].type)
        for name in names
    ]
    return select(*columns, raw.c[NUMBER])


def _array(kind: TypeEngine[Any]) -> ARRAY[Any]:
    # Without the length, to which a cast would cut a text: the column refuses it.
    is_text = isinstance(kind, String | Composed | JSONB)  # an Enum is a String too
    return ARRAY(Text()) if is_text else ARRAY(kind)


def arrays(
    model: Any, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """The arrays for `unnested`: the values of each column, None where a row has none."""
    table = model.__table__
    found = {}
    for name in names:
        kind, values = table.c[name].type, [row.get(name) for row in rows]
        if isinstance(kind, Composed):
            values = [None if value is None else composed(value) for value in values]
        elif isinstance(kind, JSONB):
            values = [None if value is None else to_json(value) for value in values]
        found[name] = values
    return found


@Statement
def _inserted_many(viewer: Viewer, model: Any, names: tuple[str, ...]) -> Executable:
    new = unnested(model, names).subquery().c
    rows = select(*(new[name] for name in names))
    return insert(model.__table__).from_select(names, rows, include_defaults=False)


async def insert_many(session: Any, model: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert many rows, with one statement for all rows that have the same columns.

    A column that is NULL unless it is set counts as one of all rows if any row has it.
    """
    alike: dict[frozenset[str], list[dict[str, Any]]] = {}
    for given in rows:
        row = with_defaults(model, given)
        alike.setdefault(frozenset(row.keys() - nulls(model).keys()), []).append(row)
    for group in alike.values():
        names = tuple(sorted({name for row in group for name in row}))
        await session.run(_inserted_many, model, names, **arrays(model, names, group))


def _differs(column: Any, new: Any) -> ColumnElement[bool]:
    """Whether a new value is another; JSON by its text, names by each character."""
    if isinstance(column.type, JSONB):
        column, new = cast(column, Text), cast(cast(new, JSONB), Text)
    return column.op("IS DISTINCT FROM", is_comparison=True)(new)  # type: ignore[no-any-return]
