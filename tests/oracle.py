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

import orjson
from sqlalchemy import Uuid, select

import db
from db.base import Timestamp
from graph.entities import entity_of
from graph.schema import schema

Someone = db.User | db.Agent


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
                found = (await session.scalars(select(mapper.class_))).all()
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
        ((local, _),) = relation.property.local_remote_pairs
        prop = relation.property.parent.get_property_by_column(local)
        return self.rows[relation.property.mapper.class_].get(getattr(row, prop.key))

    def sees(self, viewer: Someone, row: Any) -> bool:
        """Whether a user or an agent may see a row."""
        if row is None:
            return False
        if isinstance(viewer, db.User) and viewer.role is db.UserRole.ADMIN:
            return True
        match row:
            case db.AIModel():
                return True
            case db.User():
                return bool(row.id == viewer.id)
            case db.Project() if isinstance(viewer, db.Agent):
                return bool(row.id == viewer.project_id)
            case db.Project():
                return bool(row.owner_id == viewer.id)
            case db.Agent() | db.Task():
                return self.sees(viewer, self.rows[db.Project][row.project_id])
            case db.TaskDependency():
                return self.sees(viewer, self.rows[db.Task][row.dependent_id])
            case db.Conversation() if row.project_id is None:
                return bool(row.user_id == viewer.id)
            case db.Conversation():
                return self.sees(viewer, self.rows[db.Project][row.project_id])
            case db.Message():
                return self.sees(viewer, self.rows[db.Conversation][row.conversation_id])
            case db.AccessToken() if isinstance(viewer, db.User):
                of_agent = self.rows[db.Agent].get(row.agent_id)
                return row.user_id == viewer.id or self.sees(viewer, of_agent)
            case db.AccessToken():
                return False
        raise NotImplementedError(f"Say here who may see a {type(row).__name__}.")


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "in": lambda value, operand: value in operand,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "contains": operator.contains,
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
        kind: Any = entity_of(type(row)).where
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
            stored = json.loads(orjson.dumps(here), parse_float=Decimal)
            # At the outside, and only there, a list contains what is no list itself.
            within = isinstance(stored, list) and not isinstance(value, (dict, list))
            return contains(stored, [value] if within else value)
        return all(
            holds(here, operation, operand_of(attribute, operand))
            for operation, operand in value.items()
        )
