"""Mutations: one input, one transaction, one payload with the rows read anew and `userErrors`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import strawberry
from graphql import get_nullable_type
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo
from strawberry.pydantic.error import InputValidationError
from strawberry.types.arguments import InputContext
from strawberry.types.field import StrawberryField
from strawberry.types.maybe import Some
from strawberry.utils.str_converters import to_camel_case

import db
from db import Right, constraints, errors
from db.base import snake_case
from graph.core.context import Info
from graph.core.entities import clean, doc_of, entity_of, lazy
from graph.core.errors import Forbidden, Refusal, Unshown, UserError
from graph.core.rights import MUTATIONS, may
from graph.core.scalars import global_id
from graph.core.usable import faults, keepable
from graph.core.validation_messages import worded

Model = TypeVar("Model")
InputType = TypeVar("InputType", bound=type[BaseModel])


@dataclass(frozen=True)
class Deleted(Generic[Model]):
    """What a mutation returns that deleted a row."""

    key: object


class Versioned(BaseModel):
    """The base of inputs that change a row which people edit."""

    expected_version: int | None = Field(
        default=None,
        description="The version you read. If somebody has changed the object since, nothing is"
        " done, and a Conflict shows it as it is now.",
    )


_models: dict[type[BaseModel], type | None] = {}


def given(input: BaseModel) -> dict[str, Any]:
    """The values for a row to be made: null means the same as leaving a column to its default."""
    return {name: value for name, value in values(input).items() if value is not None}


@dataclass(frozen=True)
class Unusable:
    """An input in which Pydantic found faults, in the place of the input."""

    errors: list[errors.DomainError]


def input_of(model: type | None = None) -> Callable[[InputType], InputType]:
    """Declare the input of a mutation; what a field means, its model says unless the input does.

    All faults that Pydantic finds become user errors of the mutation, and none is raised.
    """

    def declare(cls: InputType) -> InputType:
        fields: dict[str, FieldInfo] = cls.__pydantic_fields__
        for name, info in fields.items():
            doc = doc_of(getattr(model, attribute_of(model, name), None))
            info.description = info.description or (clean(doc) if doc else None)
        _models[cls] = model
        cls.model_validate = classmethod(_validated)  # type: ignore[method-assign,assignment]
        strawberry.pydantic.input(cls, description=clean(cls.__doc__ or "") or None)
        definition = cls.__strawberry_definition__  # type: ignore[attr-defined]
        build = definition.from_input

        def build_or_report(kind: Any, value: Any, context: InputContext) -> Any:
            try:
                return build(kind, value, context)
            except InputValidationError as error:
                # The first of the location is the argument.
                found = [_invalid(each.location[1:], each.message) for each in error.errors]
                return Unusable(found)

        definition.from_input = build_or_report
        return cls

    return declare


def _validated(cls: Any, /, data: Any, **options: Any) -> Any:
    try:
        return BaseModel.model_validate.__func__(cls, data, **options)  # type: ignore[attr-defined]
    except ValidationError as error:
        raise worded(error) from None


def _invalid(path: Sequence[str | int], problem: str) -> errors.DomainError:
    return errors.Invalid(f"{problem[:1].upper()}{problem[1:]}.", path)


def _unkept(info: Info) -> list[errors.DomainError]:
    """What in the input of the mutation that is resolved cannot be kept."""
    selected = info.context.operation.selected(info._raw_info)
    kind: Any = get_nullable_type(selected.definition.args["input"].type)
    found = faults(kind.fields, selected.arguments["input"], keepable)
    return [_invalid(path, problem) for path, problem in found]


def attribute_of(model: Any, name: str) -> str:
    """The name of the model's attribute that a field of an input means."""
    if name == "metadata" and model is not None:
        return next(str(key) for key in vars(model) if key.endswith("_metadata"))
    return name


def values(input: BaseModel) -> dict[str, Any]:
    """What the sender gave for columns of the model; an absent field leaves a column as it is."""
    model: Any = _models[type(input)]
    found: dict[str, Any] = {}
    for name in input.model_fields_set:
        value = getattr(input, name)
        attribute = attribute_of(model, name)
        if attribute in model.__mapper__.columns and not (name == "id" and value is None):
            found[attribute] = value.value if isinstance(value, Some) else value
    return found


def mutation(function: Callable[..., Awaitable[Any]]) -> Any:
    """Declare a mutation, for those who have the right that `graph.core.rights` names.

    The function takes an `input` and returns what it changed: a row, a list of rows, `Deleted`, or
    a dataclass of such. The core makes the payload of that, runs the function, reads the rows
    again by the selection, and reports what the rules of the domain refuse as user errors. The
    function opens one transaction; if its connection was no longer good, it is run once more.
    """

    hints = get_type_hints(function, include_extras=True)
    name = to_camel_case(function.__name__)
    right = MUTATIONS[name]
    outcomes = _outcomes(hints["return"])
    payload = _payload(name, outcomes)

    def refused(*found: errors.DomainError) -> Any:
        return payload(user_errors=[Refusal(error) for error in found])

    async def run(self: Any, info: Info, input: Any) -> Any:
        # What an earlier mutation of the operation read may have changed by now.
        info.context.loaders.clear()
        with constraints.reported():
            return await function(self, info, input)

    async def resolve(self: Any, info: Info, input: Any) -> Any:
        if not may(info.context.viewer, right):
            raise Forbidden(f"You may not use {name}.")
        info.context.right = right or Right.EDIT
        unkept = _unkept(info)
        if unkept or isinstance(input, Unusable):
            known = {tuple(map(str, error.path)) for error in unkept}
            found = input.errors if isinstance(input, Unusable) else []
            return refused(*unkept, *(error for error in found if error.path not in known))
        try:
            try:
                result = await run(self, info, input)
            except db.ConnectionReplaced:
                result = await run(self, info, input)  # on another connection
        except errors.Denied as error:
            raise Forbidden(error.message) from error
        except errors.Rejected as error:
            return refused(*error.errors)
        except errors.DomainError as error:
            return refused(error)
        try:
            return await _read_back(info, payload, outcomes, result)
        except Exception as error:
            raise Unshown from error

    resolve.__name__ = function.__name__
    resolve.__annotations__ = {"info": Info, "input": hints["input"], "return": payload | None}
    field: StrawberryField = strawberry.mutation(
        resolve, description=clean(function.__doc__ or ""), metadata={"right": right}
    )
    field.arguments[0].description = "What to do, and to what."
    return field


DESCRIPTIONS = {
    "deleted": "The id of what was deleted; none if nothing was.",
    "many": "What was made, in the order of the input; empty if nothing was.",
    "one": "The object as it is now; none if nothing was done, or if you may no longer see it.",
}


@dataclass(frozen=True)
class Outcome:
    """A field of a payload: rows of a model, the id of one that was deleted, or a text."""

    name: str
    model: Any
    kind: str
    doc: str | None = None

    @property
    def annotation(self) -> Any:
        """The type of the field in the schema."""
        if self.kind == "deleted":
            return strawberry.ID | None
        if self.kind == "said":
            return str | None
        shown = lazy(self.model)
        return list[shown] if self.kind == "many" else shown | None  # type: ignore[valid-type]

    @property
    def description(self) -> str:
        """What the field is."""
        return self.doc or DESCRIPTIONS[self.kind]


def _outcomes(annotation: Any, name: str | None = None) -> list[Outcome]:
    origin = get_origin(annotation)
    if origin is Annotated:
        _, doc = get_args(annotation)
        assert name is not None
        return [Outcome(name, None, "said", doc)]
    if origin is Deleted:
        return [Outcome(name or "deleted_id", get_args(annotation)[0], "deleted")]
    if origin is list:
        (model,) = get_args(annotation)
        return [Outcome(name or model.__tablename__, model, "many")]
    if is_dataclass(annotation):
        hints = get_type_hints(annotation, include_extras=True)
        return [outcome for field in hints for outcome in _outcomes(hints[field], field)]
    return [Outcome(name or snake_case(annotation.__name__), annotation, "one")]


def _payload(mutation: str, outcomes: Sequence[Outcome]) -> Any:
    """The type of a mutation's answer."""
    namespace: dict[str, Any] = {"__annotations__": {}}
    for outcome in outcomes:
        namespace["__annotations__"][outcome.name] = outcome.annotation
        empty: Any = {"default_factory": list} if outcome.kind == "many" else {"default": None}
        namespace[outcome.name] = strawberry.field(description=outcome.description, **empty)
    namespace["__annotations__"]["user_errors"] = list[UserError]
    namespace["user_errors"] = strawberry.field(
        description="All that is wrong with the input; if there is anything, nothing was done.",
        default_factory=list,
    )
    name = f"{mutation[0].upper()}{mutation[1:]}Payload"
    cls = type(name, (), namespace | {"__module__": __name__})
    return strawberry.type(cls, description=f"What `{mutation}` answers.")


async def _read_back(info: Info, payload: Any, outcomes: Sequence[Outcome], result: Any) -> Any:
    """The payload with the rows as they are now, as far as they are selected."""
    selected = info.context.operation.selected(info._raw_info)
    values: dict[str, Any] = {}
    for outcome in outcomes:
        value = getattr(result, outcome.name) if len(outcomes) > 1 else result
        if outcome.kind == "said":
            values[outcome.name] = value
            continue
        if outcome.kind == "deleted":
            values[outcome.name] = global_id(outcome.model.__name__, value.key)
            continue
        rows = value if outcome.kind == "many" else [value]
        shown = [
            child
            for field in selected.under(to_camel_case(outcome.name))
            for child in entity_of(outcome.model).below(field)
        ]
        if not shown:
            continue
        loaders, key = info.context.loaders, entity_of(outcome.model).key
        read = await asyncio.gather(
            *(loaders.shown(outcome.model, getattr(row, key.key), shown) for row in rows)
        )
        seen = [row for row in read if row is not None]
        values[outcome.name] = seen if outcome.kind == "many" else (seen[0] if seen else None)
    return payload(**values)
