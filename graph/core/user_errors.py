"""Errors in the input of a mutation, which its payload returns in `userErrors`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, TypeVar

import strawberry
from strawberry.utils.str_converters import to_camel_case

import db
from db import errors
from graph.core.context import Info
from graph.core.entities import Node, clean, describe_enum, entity_of, lazy

describe_enum(errors.UserErrorCode)


class ErrorValue(SimpleNamespace):
    """An error of the domain as a value: graphql-core raises exceptions that a field returns."""

    def __init__(self, error: errors.DomainError) -> None:
        super().__init__(kind=type(error), code=error.code, **vars(error))


def _path(root: ErrorValue) -> list[str]:
    return [to_camel_case(part) if isinstance(part, str) else str(part) for part in root.path]


@strawberry.interface(description="Something in a mutation's input that its sender can put right.")
class UserError:
    message: str = strawberry.field(description="What is wrong, in a sentence for people.")
    code: errors.UserErrorCode = strawberry.field(description="What is wrong, for programs.")
    path: list[str] = strawberry.field(
        resolver=_path,
        description="Where in the input, from the outside in; places in a list count from 0.",
    )


Type = TypeVar("Type", bound=type)


def error_type(error: type[errors.DomainError]) -> Callable[[Type], Type]:
    """Declare the type of an error of the domain."""

    def declare(cls: Type) -> Type:
        cls.is_type_of = lambda value, info: issubclass(value.kind, error)  # type: ignore[attr-defined]
        return strawberry.type(cls, description=clean(error.__doc__ or ""))

    return declare


async def _load(info: Info, model: type, key: object) -> Any:
    selected = info.context.operation.selected(info._raw_info)
    return await info.context.loaders.by_key(model, key, entity_of(model).below(selected))


async def _current(root: ErrorValue, info: Info) -> Any:
    return None if root.model is None else await _load(info, root.model, root.id)


async def _cycle(root: ErrorValue, info: Info) -> Any:
    ids = root.cycle[:MAX_CYCLE_TASKS]
    tasks = await asyncio.gather(*(_load(info, db.Task, id) for id in ids))
    # Tasks that the refused transaction would have created do not exist.
    return [task for task in tasks if task is not None]


@error_type(errors.Invalid)
class InvalidInput(UserError):
    pass


@error_type(errors.NotFound)
class NotFound(UserError):
    pass


@error_type(errors.AlreadyExists)
class AlreadyExists(UserError):
    pass


@error_type(errors.Conflict)
class Conflict(UserError):
    current: Node | None = strawberry.field(
        resolver=_current, description="The object as it is now."
    )


@error_type(errors.IllegalTransition)
class IllegalTransition(UserError):
    current: str = strawberry.field(description="The `status` it has, of the enum of its type.")
    allowed: list[str] = strawberry.field(description="Each `status` it can go to from there.")


# Each is read with all that is selected of it.
MAX_CYCLE_TASKS = 20


@error_type(errors.CycleDetected)
class CycleDetected(UserError):
    cycle: list[Node] = strawberry.field(
        resolver=_cycle,
        graphql_type=list[lazy(db.Task)],  # type: ignore[misc]
        description="The tasks, each waiting for the next, the last for the first; of a long cycle"
        f" the first {MAX_CYCLE_TASKS}.",
        metadata={"most": MAX_CYCLE_TASKS},
    )


async def _attempt(root: ErrorValue, info: Info) -> Any:
    return await _load(info, db.TaskAttempt, root.attempt_id)


@error_type(errors.LeaseLost)
class LeaseLost(UserError):
    attempt: Node | None = strawberry.field(
        resolver=_attempt,
        graphql_type=lazy(db.TaskAttempt) | None,
        description="The attempt as it ended, and so its task.",
    )


async def _budget(root: ErrorValue, info: Info) -> Any:
    return await _load(info, db.Budget, root.budget_id)


@error_type(errors.BudgetExceeded)
class BudgetExceeded(UserError):
    budget: Node | None = strawberry.field(
        resolver=_budget,
        graphql_type=lazy(db.Budget) | None,
        description="The budget; null if you may not see it.",
    )
    limit: Decimal = strawberry.field(
        description="Its limit, in US dollars or in tokens, as the next two."
    )
    spent: Decimal = strawberry.field(description="What is spent of it in this period.")
    reserved: Decimal = strawberry.field(description="What running attempts have reserved of it.")
    period_ends_at: datetime | None = strawberry.field(
        description="When the next period begins; null if there is none."
    )


USER_ERRORS: list[type] = [
    InvalidInput,
    NotFound,
    AlreadyExists,
    Conflict,
    IllegalTransition,
    CycleDetected,
    LeaseLost,
    BudgetExceeded,
]
