"""Inserts and updates of one row: one statement each, with the checks that it needs.

The statement does nothing if the viewer lacks the right, if a row that is referred to is missing or
belongs to another project, or if the version is another. `WriteSession` then finds out why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
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
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import aliased

from db.parameters import Deferred, bind
from db.rights import Right
from db.scopes import Viewer, scope
from db.statements import Statement, value

ACTOR = "troupe.actor"
"""The setting of a transaction that the triggers of the event log read."""


def actor_of(viewer: Viewer) -> str:
    """The value of the setting for a viewer: the kind and the id, and the id of the token."""
    return "" if viewer.name is None else f"{viewer.name}:{viewer.token_id or ''}"


def set_actor() -> ColumnElement[Any]:
    """The expression that sets the actor of the transaction that it is evaluated in."""
    actor = bind(Deferred(lambda request: actor_of(request.viewer)), Text)
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


def references(model: Any, names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The foreign keys among these columns of a model, and their relationships."""
    for relation in inspect(model).relationships:
        ((local, _),) = relation.local_remote_pairs or ((None, None),)
        if not relation.uselist and local is not None and local.name in names:
            yield local.name, relation


def _refers(
    model: Any, names: Sequence[str], viewer: Viewer, project_id: Any
) -> list[ColumnElement[bool]]:
    """The conditions that the rows with the new foreign keys are visible, in this project."""
    met: list[ColumnElement[bool]] = []
    for name, relation in references(model, names):
        target = aliased(relation.mapper.class_)
        ((local, remote),) = relation.local_remote_pairs
        key = getattr(target, relation.mapper.get_property_by_column(remote).key)
        found = [key == value(name, local.type), scope(target, viewer)]
        owner = project_id_of(target)
        if getattr(owner, "nullable", True):
            found.append(or_(owner.is_(None), owner == project_id))
        else:
            found.append(owner == project_id)
        met.append(exists(select(literal_column("1")).where(*found)))
    return met


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
    relation = inspect(model).relationships[below]
    above = aliased(relation.mapper.class_)
    ((local, remote),) = relation.local_remote_pairs or ()
    key = getattr(above, relation.mapper.get_property_by_column(remote).key)
    project_id = above.id if local.name == "project_id" else project_id_of(above)
    columns = {name: value(name, table.c[name].type) for name in names}
    if local.name != "project_id" and "project_id" in table.c:
        columns["project_id"] = project_id
    rows = select(*columns.values()).where(
        key == value(local.name, local.type),
        scope(above, viewer, right),
        *_refers(model, [name for name in checked if name != local.name], viewer, project_id),
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
    version = inspect(model).version_id_col
    if version is not None:
        new[version.name] = version + 1
    conditions = [table.c.id == value("id", Uuid), scope(model, viewer, right)]
    if is_versioned:
        conditions.append(version == value("expected_version", version.type))  # type: ignore[union-attr]
    conditions += _refers(model, names, viewer, project_id_of(model))
    conditions.append(or_(*(_differs(table.c[name], new[name]) for name in names)))
    changed = update(model).where(*conditions).values(new)
    return changed.returning(table.c.id, set_actor())


def _differs(column: Any, new: Any) -> ColumnElement[bool]:
    """Whether a new value is another; JSON by its text, names by each character."""
    if isinstance(column.type, JSONB):
        column, new = cast(column, Text), cast(cast(new, JSONB), Text)
    return column.op("IS DISTINCT FROM", is_comparison=True)(new)  # type: ignore[no-any-return]
