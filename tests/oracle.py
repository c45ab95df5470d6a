"""What there is and who may see it, worked out in Python, to hold the API's answers against."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, inspect, select
from sqlalchemy.orm import undefer

import db
from db.base import Composed, Timestamp
from db.text import composed
from graph.core.entities import entity_of
from graph.schema import schema
from tests.nouns import said

Someone = db.User | db.Agent

Sees = Callable[["Everything", Someone, Any], bool]
"""Whether a user who is no administrator, or an agent, may see a row."""


def by_everybody(everything: Everything, viewer: Someone, row: Any) -> bool:
    """Whether a viewer sees a row that everybody sees."""
    return True


def by_members(everything: Everything, viewer: Someone, row: Any) -> bool:
    """Whether a viewer sees a row of a project: as a member, or as one of its agents."""
    return everything.is_member(viewer, row.project_id)


def seen_with(model: type, key: str) -> Sees:
    """Whether a viewer sees a row: with that of another model that its column `key` names."""
    return lambda everything, viewer, row: everything.sees(
        viewer, everything.rows[model][getattr(row, key)]
    )


class Everything:
    """All rows of all models, by their keys."""

    def __init__(self, rows: dict[type, dict[Any, Any]]) -> None:
        self.rows = rows

    @classmethod
    async def read(cls, database: db.Database) -> Everything:
        """All that is stored now."""
        rows: dict[type, dict[Any, Any]] = {}
        async with database.read() as session:
            for mapper in db.Base.registry.mappers:
                # An event without a position has no key.
                every = select(mapper.class_).options(undefer("*"))
                found = [row for row in await session.scalars(every) if row is not None]
                keys = [mapper.primary_key_from_instance(row) for row in found]
                rows[mapper.class_] = {
                    key[0] if len(key) == 1 else tuple(key): row
                    for key, row in zip(keys, found, strict=True)
                }
        return cls(rows)

    def of(self, model: type) -> list[Any]:
        """The rows of a model."""
        return list(self.rows[model].values())

    def related(self, row: Any, relation: Any) -> Any:
        """The row that a to-one relation leads to, whoever may see it."""
        ((local, remote),) = relation.property.local_remote_pairs
        here = getattr(row, relation.property.parent.get_property_by_column(local).key)
        if here is None:
            return None
        there = relation.property.mapper.get_property_by_column(remote).key
        rows = self.of(relation.property.mapper.class_)
        return next((other for other in rows if getattr(other, there) == here), None)

    def is_member(self, viewer: Someone, project_id: UUID | None, *roles: db.MemberRole) -> bool:
        """Whether a user is a member of a project, in one of these roles, or an agent its own."""
        if isinstance(viewer, db.Agent):
            return viewer.project_id == project_id
        member = self.rows[db.ProjectMember].get((project_id, viewer.id))
        return member is not None and (not roles or member.role in roles)

    def sees(self, viewer: Someone, row: Any) -> bool:
        """Whether a user or an agent may see a row."""
        if row is None:
            return False
        if isinstance(viewer, db.User) and viewer.role is db.UserRole.ADMIN:
            return True
        sees: Sees | None = said("SEEN").get(inspect(type(row)).base_mapper.class_)
        if sees is None:
            module = type(row).__module__.replace("db.", "tests/test_", 1)
            raise NotImplementedError(f"Say in {module}.py, in SEEN, who sees a {type(row)}.")
        return sees(self, viewer, row)

    def pointed_at(self, row: Any, attribute: Any) -> Any:
        """The row that a foreign key leads to, whoever may see it."""
        (key,) = attribute.property.columns[0].foreign_keys
        (model,) = (
            mapper.class_
            for mapper in db.Base.registry.mappers
            if mapper.local_table is key.column.table and mapper.inherits is None
        )
        return self.rows[model].get(getattr(row, attribute.key))


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "in": lambda value, operand: value in operand,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": operator.contains,
    "containsInsensitive": lambda value, operand: operand.upper() in value.upper(),
    "startsWith": str.startswith,
}


def operand_of(attribute: Any, operand: Any) -> Any:
    """What a column is compared with, from how JSON has it."""
    if isinstance(operand, bool):
        return operand
    if isinstance(operand, list):
        return [operand_of(attribute, item) for item in operand]
    match attribute.property.columns[0].type:
        case Timestamp():
            return datetime.fromisoformat(operand)
        case Uuid():
            return UUID(operand)
        case Composed():
            return composed(operand)
    return operand


def holds(value: Any, operation: str, operand: Any) -> bool:
    """Whether a condition on a value holds; of nothing, hardly any does."""
    if operation == "isNull":
        return (value is None) is operand
    if operation == "not":
        return bool(value != operand)
    return value is not None and OPERATORS[operation](value, operand)


def contains(whole: Any, part: Any) -> bool:
    """Whether JSON contains JSON, as PostgreSQL's `@>` has it."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return all(key in whole and contains(whole[key], part[key]) for key in part)
    if isinstance(whole, list) and isinstance(part, list):
        return all(any(contains(item, wanted) for item in whole) for wanted in part)
    if isinstance(whole, (dict, list)) or isinstance(part, (dict, list)):
        return False
    return isinstance(whole, bool) is isinstance(part, bool) and whole == part


@dataclass
class Filters:
    """Whether rows meet a filter when a viewer asks."""

    everything: Everything
    viewer: Someone

    def met(self, row: Any, where: dict[str, Any]) -> bool:
        """Whether a row meets all conditions of a filter, which is as JSON has it."""
        kind: Any = entity_of(inspect(type(row)).base_mapper.class_).where
        name_of = schema.config.name_converter.get_graphql_name
        fields = {name_of(field): field for field in kind.__strawberry_definition__.fields}
        return all(self._met(row, fields[name], name, value) for name, value in where.items())

    def _met(self, row: Any, field: Any, name: str, value: Any) -> bool:
        match name:
            case "and":
                return all(self.met(row, part) for part in value)
            case "or":
                return any(self.met(row, part) for part in value)
            case "not":
                return not self.met(row, value)
        attribute = field.metadata["attribute"]
        if hasattr(attribute.property, "mapper"):
            related = self.everything.related(row, attribute)
            return self.everything.sees(self.viewer, related) and self.met(related, value)
        here = getattr(row, attribute.key)
        if name == "metadataContains":
            stored = json.loads(here.text, parse_float=Decimal)
            # At the outside, and only there, a list contains what is no list itself.
            within = isinstance(stored, list) and not isinstance(value, (dict, list))
            return contains(stored, [value] if within else value)
        if attribute.property.columns[0].foreign_keys:
            # What the viewer may not see is not there to be pointed at.
            pointed_at = self.everything.pointed_at(row, attribute)
            here = here if self.everything.sees(self.viewer, pointed_at) else None
        return all(
            holds(here, operation, operand_of(attribute, operand))
            for operation, operand in value.items()
        )
