"""Errors of the domain's rules, with messages for the client."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

Path = Sequence[str | int]


def with_article(noun: str) -> str:
    """The name of a type with its indefinite article, such as "an Agent" or "a User"."""
    return f"{'an' if noun[0] in 'AEIO' else 'a'} {noun}"


class UserErrorCode(StrEnum):
    """What is wrong with the input of a mutation."""

    INVALID = "INVALID"
    """A value has the right type, but is not accepted."""
    NOT_FOUND = "NOT_FOUND"
    """There is no object with this id, or you may not see it."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """A value must be unique, and another object has it."""
    CONFLICT = "CONFLICT"
    """The object was changed since you read it."""
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    """The status of the object cannot change to the requested one."""
    CYCLE_DETECTED = "CYCLE_DETECTED"
    """Tasks would wait for each other in a cycle."""
    LEASE_LOST = "LEASE_LOST"
    """The attempt has ended, so the agent can change nothing by it."""
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"
    """A budget has no room for it."""


class DomainError(Exception):
    """A rule of the domain was broken; `path` is the place in the input."""

    code: str

    def __init__(self, message: str, path: Path = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = tuple(path)


class NotFound(DomainError):
    """There is no such row, or the viewer may not see it."""

    code = UserErrorCode.NOT_FOUND

    def __init__(self, model: type, id: object, path: Path = ()) -> None:
        super().__init__(f"There is no {model.__name__} with the id {id}.", path)
        self.model = model
        self.id = id


class Denied(DomainError):
    """The viewer may see the row, but lacks the right."""

    code = "FORBIDDEN"


class Invalid(DomainError):
    """A value has the right type, but is not accepted."""

    code = UserErrorCode.INVALID


class AlreadyExists(DomainError):
    """A value must be unique, and another row has it."""

    code = UserErrorCode.ALREADY_EXISTS


class Conflict(DomainError):
    """The row was changed since the client read it."""

    code = UserErrorCode.CONFLICT

    def __init__(self, row: Any, expected: int, path: Path = ("expectedVersion",)) -> None:
        super().__init__(
            f"This {type(row).__name__} is at version {row.version}, not {expected}: somebody else"
            " changed it. Read it again and decide anew.",
            path,
        )
        self.model: type | None = type(row)
        self.id: object = row.id


class KeyReused(Conflict):
    """The idempotency key was used with another input."""

    def __init__(self) -> None:
        message = "This key was used with another input. Use a new key for each operation."
        DomainError.__init__(self, message, ("idempotency_key",))
        self.model = self.id = None


class IllegalTransition(DomainError):
    """The status cannot change as requested; `allowed` are the statuses it can change to."""

    code = UserErrorCode.ILLEGAL_TRANSITION

    def __init__(
        self, noun: str, current: str, to: str, allowed: Collection[str], path: Path = ("to",)
    ) -> None:
        now = f"{current} already" if current == to else current
        if allowed:
            further = "" if current == to else f", not to {to}"
            moves = f" and can go only to {', '.join(allowed)}{further}"
        else:
            moves = ", which is final" if current == to else f", which is final; it cannot be {to}"
        super().__init__(f"This {noun} is {now}{moves}.", path)
        self.current = current
        self.allowed = list(allowed)


class CycleDetected(DomainError):
    """Tasks would wait for each other; in `cycle`, each waits for the next."""

    code = UserErrorCode.CYCLE_DETECTED

    def __init__(self, cycle: Sequence[UUID], path: Path = ()) -> None:
        message = f"These {len(cycle)} tasks would wait for each other in a cycle."
        super().__init__("This task would wait for itself." if len(cycle) == 1 else message, path)
        self.cycle = list(cycle)


class LeaseLost(DomainError):
    """The attempt has ended, such as after its lease ran out, and can change nothing any more."""

    code = UserErrorCode.LEASE_LOST

    def __init__(self, id: UUID, status: str, task: str, path: Path = ("attempt_id",)) -> None:
        super().__init__(
            f"This attempt is {status} and holds its task no longer; nothing was changed. The task"
            f" is {task}. Stop working on it, and claim a task again.",
            path,
        )
        self.attempt_id = id


class BudgetExceeded(DomainError):
    """A hard budget has no room for what was asked for."""

    code = UserErrorCode.BUDGET_EXCEEDED

    def __init__(
        self,
        budget_id: UUID,
        words: str,
        limit: Decimal,
        spent: Decimal,
        reserved: Decimal,
        period_ends_at: datetime | None,
        path: Path = (),
    ) -> None:
        until = "" if period_ends_at is None else f", or wait until {period_ends_at.isoformat()}"
        super().__init__(
            f"{words} Raise it by updateBudget or requestBudgetIncrease{until}.",
            path,
        )
        self.budget_id = budget_id
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.period_ends_at = period_ends_at


class Rejected(Exception):
    """All errors of one input, not only the first."""

    def __init__(self, errors: Sequence[DomainError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = list(errors)
