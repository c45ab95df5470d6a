"""Errors in the input of a mutation, which are answered as data under `userErrors`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import strawberry
from strawberry.utils.str_converters import to_camel_case

import db
from db import errors
from graph.core.context import Info
from graph.core.entities import Node, clean, describe_enum, entity_of, lazy

describe_enum(errors.UserErrorCode)


class Refusal(SimpleNamespace):
    """An error of the domain as a value: graphql-core raises any exception that a field returns."""

    def __init__(self, error: errors.DomainError) -> None:
        super().__init__(kind=type(error), code=error.code, **vars(error))


def _path(root: Refusal) -> list[str]:
    return [to_camel_case(part) if isinstance(part, str) else str(part) for part in root.path]


@strawberry.interface(description="Something in a mutation's input that its sender can put right.")
class UserError:
    message: str = strawberry.field(description="What is wrong, in a sentence for people.")
    code: errors.UserErrorCode = strawberry.field(description="What is wrong, for programs.")
    path: list[str] = strawberry.field(
        resolver=_path,
        description="Where in the input, from the outside in; places in a list count from 0.",
    )


Shown = TypeVar("Shown", bound=type)


def shows(error: type[errors.DomainError]) -> Callable[[Shown], Shown]:
    """Declare the type that shows an error of the domain."""

    def declare(cls: Shown) -> Shown:
        cls.is_type_of = lambda value, info: value.kind is error  # type: ignore[attr-defined]
        return strawberry.type(cls, description=clean(error.__doc__ or ""))

    return declare


async def _shown(info: Info, model: type, key: object) -> Any:
    selected = info.context.operation.selected(info._raw_info)
    return await info.context.loaders.shown(model, key, entity_of(model).below(selected))


async def _current(root: Refusal, info: Info) -> Any:
    return await _shown(info, root.model, root.id)


async def _cycle(root: Refusal, info: Info) -> Any:
    shown = root.cycle[:MOST_SHOWN_OF_CYCLE]
    tasks = await asyncio.gather(*(_shown(info, db.Task, id) for id in shown))
    # Tasks that were to be made in the refused transaction do not exist, and cannot be shown.
    return [task for task in tasks if task is not None]


@shows(errors.Invalid)
class InvalidInput(UserError):
    pass


@shows(errors.NotFound)
class NotFound(UserError):
    pass


@shows(errors.AlreadyExists)
class AlreadyExists(UserError):
    pass


@shows(errors.Conflict)
class Conflict(UserError):
    current: Node | None = strawberry.field(
        resolver=_current, description="The object as it is now."
    )


@shows(errors.IllegalTransition)
class IllegalTransition(UserError):
    current: str = strawberry.field(description="The `status` it has, of the enum of its type.")
    allowed: list[str] = strawberry.field(description="Each `status` it can go to from there.")


# Each is read with all that is selected of it.
MOST_SHOWN_OF_CYCLE = 20


@shows(errors.CycleDetected)
class CycleDetected(UserError):
    cycle: list[Node] = strawberry.field(
        resolver=_cycle,
        graphql_type=list[lazy(db.Task)],  # type: ignore[misc]
        description="The tasks, each waiting for the next, the last for the first; of a long circle"
        f" the first {MOST_SHOWN_OF_CYCLE}.",
        metadata={"most": MOST_SHOWN_OF_CYCLE},
    )


USER_ERRORS: list[type] = [
    InvalidInput,
    NotFound,
    AlreadyExists,
    Conflict,
    IllegalTransition,
    CycleDetected,
]
