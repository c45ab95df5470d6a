"""Payloads of mutations: their types, made from return annotations, and their values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from datetime import datetime
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin, get_type_hints

import strawberry
from strawberry.utils.str_converters import to_camel_case

from db.base import snake_case
from graph.core.context import Info
from graph.core.entities import entity_of, lazy
from graph.core.scalars import format_moment, global_id
from graph.core.user_errors import UserError

Model = TypeVar("Model")


@dataclass(frozen=True)
class Changed(Generic[Model]):
    """The key of a row that a mutation created or changed, if it does not have the instance."""

    key: object


@dataclass(frozen=True)
class Deleted(Generic[Model]):
    """The key of a row that a mutation deleted."""

    key: object


@dataclass(frozen=True, slots=True)
class EncodedJSON:
    """A value that is JSON already, for each response name that shows it."""

    texts: Mapping[str, bytes]


DESCRIPTIONS = {
    "deleted": "The id of what was deleted; none if nothing was.",
    "many": "What was made, in the order of the input; empty if nothing was.",
    "one": "The object as it is now; none if nothing was done, or if you may no longer see it.",
}


@dataclass(frozen=True)
class PayloadField:
    """A field of a payload: one row of a model or many, the id of a deleted one, or a value."""

    name: str
    model: Any
    kind: str
    doc: str | None = None
    type: Any = None
    """The type of a value."""
    is_part: bool = False
    """Whether the mutation returns a dataclass, of which this is a field."""

    @property
    def is_read(self) -> bool:
        """Whether it is rows, which are read again."""
        return self.kind in ("one", "many")

    @property
    def annotation(self) -> Any:
        """The type of the field in the schema."""
        if self.kind == "deleted":
            return strawberry.ID | None
        if self.kind == "value":
            return self.type | None
        target = lazy(self.model)
        return list[target] if self.kind == "many" else target | None  # type: ignore[valid-type]


def fields_of(annotation: Any, name: str | None = None) -> list[PayloadField]:
    """The fields of a payload, from the return annotation of its mutation."""
    origin, is_part = get_origin(annotation), name is not None
    if origin is Annotated:
        kind, doc = get_args(annotation)
        assert name is not None
        return [PayloadField(name, None, "value", doc, kind, is_part=True)]
    if origin in (Union, UnionType):  # nothing may be done, without an error
        (annotation,) = (each for each in get_args(annotation) if each is not NoneType)
        return fields_of(annotation, name)
    if origin is Deleted:
        return [
            PayloadField(name or "deleted_id", _model_of(annotation), "deleted", is_part=is_part)
        ]
    if origin is list:
        model = _model_of(*get_args(annotation))
        return [PayloadField(name or model.__tablename__, model, "many", is_part=is_part)]
    if origin is None and is_dataclass(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        return [field for part in hints for field in fields_of(hints[part], part)]
    model = _model_of(annotation)
    return [PayloadField(name or snake_case(model.__name__), model, "one", is_part=is_part)]


def _model_of(annotation: Any) -> Any:
    """The model itself, or that of Changed or Deleted."""
    (model,) = get_args(annotation) or (annotation,)
    return model


def payload_type(mutation: str, fields: Sequence[PayloadField]) -> Any:
    """The type of the payload of a mutation."""
    namespace: dict[str, Any] = {"__annotations__": {}}
    for field in fields:
        namespace["__annotations__"][field.name] = field.annotation
        empty: Any = {"default_factory": list} if field.kind == "many" else {"default": None}
        description = field.doc or DESCRIPTIONS[field.kind]
        namespace[field.name] = strawberry.field(description=description, **empty)
    namespace["__annotations__"]["user_errors"] = list[UserError]
    namespace["user_errors"] = strawberry.field(
        description="All that is wrong with the input; if there is anything, nothing was done.",
        default_factory=list,
    )
    name = f"{mutation[0].upper()}{mutation[1:]}Payload"
    cls = type(name, (), namespace | {"__module__": __name__})
    return strawberry.type(cls, description=f"What `{mutation}` answers.")


def value_of(field: PayloadField, result: Any) -> Any:
    """The value of one field in the result of a mutation; the global id of a deleted row."""
    value = getattr(result, field.name) if field.is_part else result
    return global_id(field.model.__name__, value.key) if field.kind == "deleted" else value


def json_value(value: Any) -> Any:
    """A value of a payload as JSON has it."""
    return format_moment(value) if isinstance(value, datetime) else value


def keys_of(field: PayloadField, value: Any) -> list[Any]:
    """The keys of the rows that were changed."""
    key = entity_of(field.model).key.key
    rows = value if field.kind == "many" else [value] if value is not None else []
    return [row.key if isinstance(row, Changed | Deleted) else getattr(row, key) for row in rows]


def changed_keys(fields: Sequence[PayloadField], result: Any) -> dict[str, list[Any]]:
    """The keys of what a mutation has changed, by the name of their table."""
    keys: dict[str, list[Any]] = {}
    for field in fields:
        if field.kind == "value":
            continue
        value = getattr(result, field.name) if field.is_part else result
        keys[field.model.__tablename__] = keys_of(field, value)
    return keys


def result_of(fields: Sequence[PayloadField], keys: Mapping[str, Sequence[Any]]) -> Any:
    """The result of a mutation that has changed the rows with these keys, given as texts.

    Values are not stored: those of secrets must not be, others say why nothing was done.
    """
    values: dict[str, Any] = {}
    for field in fields:
        if field.kind == "value":
            values[field.name] = None
            continue
        kind: Any = Deleted if field.kind == "deleted" else Changed
        of_type = entity_of(field.model).key.type.python_type
        changed = [kind(of_type(key)) for key in keys[field.model.__tablename__]]
        first = next(iter(changed), None)
        values[field.name] = changed if field.kind == "many" else first
    return SimpleNamespace(**values) if fields[0].is_part else next(iter(values.values()))


async def read_payload(info: Info, fields: Sequence[PayloadField], result: Any) -> dict[str, Any]:
    """The values of a payload. Selected rows are read again by their keys."""
    values: dict[str, Any] = {}
    for field in fields:
        value = value_of(field, result)
        if field.is_read:
            value = await _rows(info, field, keys_of(field, value))
            if field.kind == "one" and isinstance(value, list):
                value = next(iter(value), None)
        values[field.name] = value
    return values


async def _rows(info: Info, field: PayloadField, keys: Sequence[Any]) -> EncodedJSON | list[Any]:
    """The current rows with these keys that the viewer may see, in this order.

    They are read by compiled statements, if each selected field has one; else as instances.
    """
    context, entity = info.context, entity_of(field.model)
    selected = context.operation.selected(info._raw_info)
    shown = selected.under(to_camel_case(field.name))
    if not (shown and keys):
        return []
    places = {each.key: (selected.key, each.key) for each in shown}
    compiled = context.compiled
    if compiled is not None and all(compiled.has(*place) for place in places.values()):
        texts = {name: await compiled.json(*place, keys=keys) for name, place in places.items()}
        found = {name: text for name, text in texts.items() if text is not None}
        if len(found) == len(texts):
            return EncodedJSON(found)
    children = [child for each in shown for child in entity.below(each)]
    loaded = (context.loaders.by_key(field.model, key, children) for key in keys)
    return [row for row in await asyncio.gather(*loaded) if row is not None]
