"""Inputs of mutations: their declaration, their validation, and their values for a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import strawberry
from graphql import GraphQLInputObjectType
from pydantic import BaseModel, Field, StringConstraints, ValidationError
from strawberry.pydantic.error import InputValidationError
from strawberry.types import get_object_definition
from strawberry.types.arguments import InputContext
from strawberry.types.maybe import Some
from strawberry.utils.str_converters import to_camel_case

from db import errors
from db.errors import Path
from graph.core.entities import clean, doc_of
from graph.core.invalid_values import check_column_value, invalid_values
from graph.core.validation_messages import worded

Input = TypeVar("Input", bound=BaseModel)
InputType = TypeVar("InputType", bound=type[BaseModel])

IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=255)]

MODELS: dict[type[BaseModel], type | None] = {}
"""The model of each input, if it has one."""


class Repeatable(BaseModel):
    """The base of inputs that may be sent again with the same key."""

    idempotency_key: IdempotencyKey | None = Field(
        default=None,
        description="A key that you choose for this operation. If you send it again, it is done"
        " once, and you get what it changed the first time. With another input, the same key is a"
        " Conflict. It belongs to you, and is kept for a day unless the server says otherwise.",
    )


class Versioned(Repeatable):
    """The base of inputs that change a row with a version."""

    expected_version: int | None = Field(
        default=None,
        description="The version you read. If somebody has changed the object since, nothing is"
        " done, and a Conflict shows it as it is now.",
    )


def input_of(model: type | None = None) -> Callable[[InputType], InputType]:
    """Declare the input of a mutation. A field without a description has that of its column.

    An invalid input does not raise an exception: the mutation gets a Rejected instead of it.
    """

    def declare(cls: InputType) -> InputType:
        model_type: type[BaseModel] = cls
        for name, info in model_type.model_fields.items():
            doc = doc_of(getattr(model, attribute_of(model, name), None))
            info.description = info.description or (clean(doc) if doc else None)
        MODELS[cls] = model
        cls.model_validate = classmethod(_validated)  # type: ignore[method-assign,assignment]
        strawberry.pydantic.input(cls, description=clean(cls.__doc__ or "") or None)
        definition: Any = get_object_definition(cls, strict=True)
        build = definition.from_input

        def build_or_reject(kind: Any, value: Any, context: InputContext) -> Any:
            try:
                return built(kind, value) or build(kind, value, context)
            except InputValidationError as error:
                # The location begins with the name of the argument.
                return errors.Rejected(
                    [_invalid(each.location[1:], each.message) for each in error.errors]
                )

        definition.from_input = build_or_reject
        return cls

    return declare


def built(model: type[Input], value: dict[str, Any]) -> Input | None:
    """The coerced value of an input as its model; None if it is not valid.

    Strawberry can do this too, and reports what is not valid, but looks up all types each time.
    """
    with suppress(ValidationError):
        return model.model_validate(_python_data(model, value), by_alias=False, by_name=True)
    return None


@cache
def _fields(model: type[BaseModel]) -> dict[str, tuple[str, type[BaseModel] | None]]:
    """The Python name of each field of an input, and its model if its values are inputs."""
    definition: Any = get_object_definition(model, strict=True)
    found = {}
    for field in definition.fields:
        kind = field.resolve_type(type_definition=definition)
        while hasattr(kind, "of_type"):
            kind = kind.of_type
        below = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        found[to_camel_case(field.python_name)] = field.python_name, below
    return found


def _python_data(model: type[BaseModel], value: dict[str, Any] | None) -> dict[str, Any] | None:
    """The coerced value of an input as Pydantic takes it."""
    if value is None:
        return None
    fields = _fields(model)
    data: dict[str, Any] = {}
    for key, item in value.items():
        name, below = fields[key]
        if below is None:
            data[name] = item
        elif isinstance(item, list):
            data[name] = [_python_data(below, each) for each in item]
        else:
            data[name] = _python_data(below, item)
    return data


def repaired(model: type[Input], value: dict[str, Any], faults: Sequence[Path]) -> Input | None:
    """An input without the values at these paths, to find what else is wrong with it.

    A text that is required is replaced. None if that is not enough, or if the name is not valid by
    which others refer to something.
    """
    if any(path and path[-1] == "reference" for path in faults):
        return None
    copy = deepcopy(value)
    with suppress(LookupError, ValueError):
        for path in faults:
            _leave_out(model, copy, path)
        return built(model, copy)
    return None


def _leave_out(model: type[BaseModel], value: Any, path: Path) -> None:
    """Leave out the field at a path, or the one that has it in its value. Raises LookupError."""
    *above, last = enumerate(path)
    for place, part in (*above, last):
        if isinstance(value, list):
            value = value[int(part)]
            continue
        key = to_camel_case(str(part))
        name, below = _fields(model)[key]
        if below is not None and place < last[0]:
            value, model = value[key], below
        elif not model.model_fields[name].is_required():
            del value[key]
            return
        elif isinstance(value[key], str):
            value[key] = uuid4().hex  # a text that nobody has given
            return
        else:
            raise LookupError(name)


def _validated(cls: Any, /, data: Any, **options: Any) -> Any:
    try:
        return BaseModel.model_validate.__func__(cls, data, **options)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise worded(error) from None


def _invalid(path: Sequence[str | int], problem: str) -> errors.DomainError:
    return errors.Invalid(f"{problem[:1].upper()}{problem[1:]}.", path)


def check_input(kind: GraphQLInputObjectType, value: dict[str, Any], input: Any) -> None:
    """Raise Rejected with all that is invalid in the input of a mutation, given as coerced too."""
    found: list[errors.DomainError] = []
    try:
        check_column_value(value)
    except ValueError:  # the slow way finds all paths
        values = invalid_values(kind.fields, value, check_column_value)
        found = [_invalid(path, problem) for path, problem in values]
    if isinstance(input, errors.Rejected):
        known = {tuple(map(str, error.path)) for error in found}
        found += [error for error in input.errors if error.path not in known]
    if found:
        raise errors.Rejected(found)


def attribute_of(model: Any, name: str) -> str:
    """The name of the attribute of the model for a field of an input."""
    if name == "metadata" and model is not None:
        return next(str(key) for key in vars(model) if key.endswith("_metadata"))
    return name


@cache
def _columns(kind: type[BaseModel]) -> dict[str, str]:
    """The fields of an input that are columns of its model, and their attributes."""
    model: Any = MODELS[kind]
    attributes = {name: attribute_of(model, name) for name in kind.model_fields}
    columns = model.__mapper__.columns
    return {name: each for name, each in attributes.items() if each in columns}


def changed_values(input: BaseModel) -> dict[str, Any]:
    """The values for columns of the model that the input sets. Absent fields are left out."""
    columns, values, found = _columns(type(input)), vars(input), {}
    for name in input.model_fields_set:
        if name in columns:
            value = values[name]
            if not (name == "id" and value is None):
                found[columns[name]] = value.value if isinstance(value, Some) else value
    return found


def new_values(input: BaseModel) -> dict[str, Any]:
    """The values of a new row. A column whose field is null has its default."""
    return {name: value for name, value in changed_values(input).items() if value is not None}
