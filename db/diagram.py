"""An entity-relationship diagram of the models, in Mermaid's notation."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, ForeignKeyConstraint, Index, Table, UniqueConstraint

from db.base import Base, snake_case
from db.constraints import rules_of


def diagram() -> str:
    """The entities with their keys, and a line for each foreign key.

    A foreign key is listed in its entity only if it is part of a primary or unique key. A line has
    a label only if its name differs from that of the entity it leads to.
    """
    # Of classes that share a table, the base is the entity.
    classes = [mapper.class_ for mapper in Base.registry.mappers if mapper.inherits is None]
    names = {model.__table__: model.__name__ for model in classes}
    lines = ["erDiagram"]
    for table, name in sorted(names.items(), key=lambda item: item[1]):
        lines += [f"    {name} {{", *(f"        {key}" for key in _keys(table)), "    }"]
        for foreign in sorted(table.foreign_key_constraints, key=_name):
            to = names[foreign.referred_table]
            label = "" if _name(foreign) == snake_case(to) else _name(foreign).replace("_", " ")
            lines.append(f'    {to} {_line(foreign)} {name} : "{label}"')
    return "\n".join(lines) + "\n"


def _keys(table: Table) -> Iterable[str]:
    """The columns of the primary key, and those that are unique by themselves."""
    for column in table.columns:
        marks = {
            "PK": column.primary_key,
            "FK": bool(column.foreign_keys),
            "UK": any(columns == {column} for columns in _unique(table)),
        }
        if marks["PK"] or marks["UK"]:
            kind = column.type.python_type.__name__.lower()
            yield f"{kind} {column.name} {', '.join(mark for mark, has in marks.items() if has)}"


def _line(foreign: ForeignKeyConstraint) -> str:
    """The cardinalities; dashed where rows remain when the row they refer to is deleted."""
    one = "|o" if any(column.nullable for column in foreign.columns) else "||"
    kept = "--" if foreign.ondelete == "CASCADE" else ".."
    alone = [set(foreign.table.primary_key.columns), *_unique(foreign.table)]
    many = "o|" if any(columns <= set(foreign.columns) for columns in alone) else "o{"
    return f"{one}{kept}{many}"


def _unique(table: Table) -> list[set[Column[object]]]:
    kinds = (UniqueConstraint, Index)
    return [set(rule.columns) for rule in rules_of(table) if isinstance(rule, kinds)]


def _name(foreign: ForeignKeyConstraint) -> str:
    return foreign.column_keys[-1].removesuffix("_id")
