"""Inserts and updates of one row: one statement each, with the checks that it needs.

The statement does nothing if the viewer lacks the right, if a row that is referred to is missing or
belongs to another project, or if the version is another. `WriteSession` then finds out why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    FromClause,
    Integer,
    Select,
    String,
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
    type_coerce,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from db.base import Composed, nulls, with_defaults
from db.events import ACTOR
from db.events.actors import actor_of
from db.parameters import Deferred, bind
from db.rights import Right
from db.scopes import Viewer, scope
from db.statements import Statement, value
from db.text import composed, to_json

NUMBER = "number"
"""The column of `unnested` with the number of the row, from 1."""


def keys(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The keys in a column of a CTE, as an array.

    A plan that was made for few rows then finds rows by them too, and does not read the table.
    """
    return func.array(select(column).scalar_subquery(), type_=ARRAY(Uuid))


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
        found = [column == key(name, local.type), scope(target, viewer, by_key=True)]
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
    conditions = [table.c.id == value("id", Uuid), scope(model, viewer, right, by_key=True)]
    if is_versioned:
        conditions.append(version == value("expected_version", version.type))
    conditions += refers(model, names, viewer, project_id_of(model)).values()
    conditions.append(or_(*(_differs(table.c[name], new[name]) for name in names)))
    changed = update(model).where(*conditions).values(new)
    return changed.returning(table.c.id, set_actor())


def unnested(model: Any, names: Sequence[str]) -> Select[Any]:
    """Selects rows with these columns of a model, from an array for each, and their `number`.

    A VALUES list has a parameter for every value: PostgreSQL accepts at most 65,535 of them,
    and they are slow to bind.
    """
    table = model.__table__
    given = func.unnest(*(value(name, _array(table.c[name].type)) for name in names))
    raw = given.table_valued(*names, with_ordinality=NUMBER).render_derived(name="given")
    columns = [_unpacked(raw.c[name], table.c[name].type).label(name) for name in names]
    return select(*columns, raw.c[NUMBER])


def _unpacked(raw: Any, kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """The value of a column from the text or the value that an array of them has."""
    if isinstance(kind, JSONB):
        return cast(raw, JSONB)
    if isinstance(kind, ARRAY):
        # Arrays of arrays would have to be of the same length.
        items = func.jsonb_array_elements_text(cast(raw, JSONB)).column_valued("item")
        return func.array(select(items).scalar_subquery(), type_=kind)
    return type_coerce(raw, kind)


def _array(kind: TypeEngine[Any]) -> ARRAY[Any]:
    # Without the length, to which a cast would cut a text: the column refuses it.
    is_text = isinstance(kind, String | Composed | JSONB | ARRAY)  # an Enum is a String too
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
        elif isinstance(kind, JSONB | ARRAY):
            values = [None if value is None else to_json(value) for value in values]
        found[name] = values
    return found


def given_rows(model: Any, names: Sequence[str], is_one: bool) -> Select[Any]:
    """The same as `unnested`, or one row from the value of each column: arrays take longer."""
    if not is_one:
        return unnested(model, names)
    columns = [value(name, model.__table__.c[name].type).label(name) for name in names]
    return select(*columns, literal_column("1", Integer).label(NUMBER))


def given_values(
    model: Any, names: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The values for `given_rows`: of one row, or the arrays of several."""
    if len(rows) != 1:
        return arrays(model, names, rows)
    return {name: rows[0].get(name) for name in names}


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
