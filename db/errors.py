"""What can go wrong by the rules of the domain, in words for the reader of the API."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

Path = Sequence[str | int]


class UserErrorCode(StrEnum):
    """What is wrong with a mutation's input, for programs."""

    INVALID = "INVALID"
    """A value has the right type, but cannot be used."""
    NOT_FOUND = "NOT_FOUND"
    """An id leads to nothing that you may see."""
    ALREADY_EXISTS = "ALREADY_EXISTS"
    """Another object has a value that must be unique."""
    CONFLICT = "CONFLICT"
    """Somebody else has changed the object since you read it."""
    ILLEGAL_TRANSITION = "ILLEGAL_TRANSITION"
    """The object cannot go from its state to that one."""
    CYCLE_DETECTED = "CYCLE_DETECTED"
    """Tasks would wait for each other in a circle."""


class DomainError(Exception):
    """A rule of the domain was broken; `path` says where in the caller's input."""

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
    """The viewer may see the row, but not do this."""

    code = "FORBIDDEN"


class Invalid(DomainError):
    """A value is well-formed but not acceptable."""

    code = UserErrorCode.INVALID


class AlreadyExists(DomainError):
    """Another row has a value that must be unique."""

    code = UserErrorCode.ALREADY_EXISTS


class Conflict(DomainError):
    """The row was changed since the caller read it."""

    code = UserErrorCode.CONFLICT

    def __init__(self, row: Any, expected: int, path: Path = ("expectedVersion",)) -> None:
        super().__init__(
            f"This {type(row).__name__} is at version {row.version}, not {expected}: somebody else"
            " changed it. Read it again and decide anew.",
            path,
        )
        self.model: type = type(row)
        self.id: object = row.id


class IllegalTransition(DomainError):
    """The state machine has no such move; `allowed` lists the moves there are."""

    code = UserErrorCode.ILLEGAL_TRANSITION

    def __init__(self, noun: str, current: str, to: str, allowed: Collection[str]) -> None:
        moves = f"only to {', '.join(allowed)}" if allowed else "nowhere any more"
        super().__init__(f"This {noun} is {current} and can go {moves}, not to {to}.", ("to",))
        self.current = current
        self.allowed = list(allowed)


class CycleDetected(DomainError):
    """Tasks would wait for each other for ever; `cycle` names them, each waiting for the next."""

    code = UserErrorCode.CYCLE_DETECTED

    def __init__(self, cycle: Sequence[UUID], path: Path = ()) -> None:
        message = f"These {len(cycle)} tasks would wait for each other in a circle."
        super().__init__("This task would wait for itself." if len(cycle) == 1 else message, path)
        self.cycle = list(cycle)


class Rejected(Exception):
    """Several rules were broken at once: everything that is wrong, not only the first."""

    def __init__(self, errors: Sequence[DomainError]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.errors = list(errors)
