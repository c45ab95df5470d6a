"""Errors in their two forms: of the request (`errors`) and of a mutation's input (`userErrors`)."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, TypeVar

import asyncpg
import strawberry
from graphql import GraphQLError
from sqlalchemy.exc import DBAPIError, OperationalError, TimeoutError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.utils.str_converters import to_camel_case

import db
from db import ConnectionReplaced, OutcomeUnknown, errors
from db.connections import driver_error, is_disk_full, is_outdated
from db.result_limits import ResultTooLarge
from graph.core.context import Context, Info, OutOfTime
from graph.core.entities import Node, clean, describe_enum, entity_of, lazy

log = logging.getLogger("troupe")

describe_enum(errors.UserErrorCode)

# Operations take a fraction of a second, and so does PostgreSQL's way back: the next second finds
# everything otherwise.
SOON = 1
# Room on a disk takes somebody to make it.
LATER = 60
AGAIN = " Try again in a moment."


class RequestError(GraphQLError):
    """Something is wrong with the request or its circumstances; `code` tells programs what."""

    code = "BAD_USER_INPUT"
    retry_after: int | None = None
    """After how many seconds a new attempt makes sense, if it does."""

    def __init__(self, message: str, *, retry_after: int | None = None, **told: object) -> None:
        """With what else programs are told."""
        if retry_after is not None:
            self.retry_after = retry_after
        # Of what may have been done already, a client must not think that it may send it again.
        if self.retry_after is not None and "outcome" not in told:
            told["retryAfter"] = self.retry_after
        super().__init__(message, extensions={"code": self.code, **told})


class BadRequest(RequestError):
    """The request cannot be understood, or cannot be answered in this way."""

    code = "BAD_REQUEST"


class BadInput(RequestError):
    """An argument has a value that cannot be used."""


class LimitExceeded(RequestError):
    """A document or an operation is larger than a setting allows."""

    code = "LIMIT_EXCEEDED"

    def __init__(
        self, what: str, setting: str, found: int | None, allowed: int, advice: str = ""
    ) -> None:
        """`what` is a phrase such as "aliases"; `found` is None where counting stopped."""
        has = "" if found is None else f" has {found}, and"
        super().__init__(
            f"Too many {what}: this{has} may have {allowed} (TROUPE_{setting.upper()}).{advice}",
            limit=setting,
            found=found,
            allowed=allowed,
        )


class AnswerTooLarge(RequestError):
    """An answer would have more bytes than a setting allows."""

    code = "LIMIT_EXCEEDED"

    def __init__(self, allowed: int) -> None:
        super().__init__(
            f"The answer would have more than {allowed} bytes (TROUPE_MAX_ANSWER_BYTES)."
            " Ask for fewer rows, or for fewer fields of each.",
            limit="max_answer_bytes",
            allowed=allowed,
        )


class RateLimited(RequestError):
    """A viewer uses more than a setting allows."""

    code = "RATE_LIMITED"


class Forbidden(RequestError):
    """The viewer has not the right to do this."""

    code = "FORBIDDEN"


class Unauthenticated(RequestError):
    """Nobody is known to ask."""

    code = "UNAUTHENTICATED"

    def __init__(
        self, message: str = "Send an access token in the header `Authorization: Bearer <token>`."
    ) -> None:
        super().__init__(message)


class Overloaded(RequestError):
    """All connections to the database are busy, or enough operations are running."""

    code = "OVERLOADED"
    retry_after = SOON


class Unavailable(RequestError):
    """The database cannot be reached."""

    code = "UNAVAILABLE"
    retry_after = SOON


class Outcome(StrEnum):
    """What became of a mutation whose answer is an error. Nothing was done where none is told."""

    DONE = "DONE"
    UNKNOWN = "UNKNOWN"


class TooSlow(RequestError):
    """A statement or an operation took longer than it may."""

    code = "TIMEOUT"


class Fault(RequestError):
    """Something went wrong on our side; the message has an id that finds it in the log."""

    code = "FAULT"


LONGEST_MESSAGE = 1000

GONE = (Unavailable, f"The database cannot be reached.{AGAIN}")
BUSY = (Overloaded, f"All connections to the database are busy.{AGAIN}")
IN_EACH_OTHERS_WAY = (Overloaded, f"Somebody else is changing the same rows.{AGAIN}")
TOO_LONG = (TooSlow, "The database took too long to answer. Ask for less at once.")
NUL = (BadInput, "A text contains a NUL character (\\u0000), which cannot be stored.")

STATES: Mapping[str, tuple[type[RequestError], str]] = {
    "08": GONE,  # the connection broke
    "22021": NUL,
    "22P05": NUL,
    "25006": (Unavailable, f"The database only reads at the moment.{AGAIN}"),
    "25P03": GONE,  # a transaction was idle
    "25P04": TOO_LONG,  # a transaction
    "28": GONE,  # it does not let us in
    "3D": GONE,  # there is no such database
    "40001": IN_EACH_OTHERS_WAY,  # also what a standby cancels for what it has to replay
    "40P01": IN_EACH_OTHERS_WAY,  # a deadlock
    "53200": (Overloaded, f"The database has no memory left for this.{AGAIN}"),
    "53300": BUSY,  # too many connections
    "53400": (BadInput, "This takes more room than the database gives. Ask for less at once."),
    "54": (BadInput, "This is more than the database can take in one piece. Send less."),
    "55P03": IN_EACH_OTHERS_WAY,  # a lock was waited for too long
    "57": GONE,  # it stops, crashed or starts, or somebody has ended the connection
    "57014": TOO_LONG,  # a statement
    "58": (Unavailable, f"The database cannot read or write its files.{AGAIN}"),
}
"""What a fault of the database means to a client, by the SQLSTATE or its beginning; the longest
counts. (https://www.postgresql.org/docs/current/errcodes-appendix.html)"""


def of_the_database(fault: BaseException | None) -> RequestError | None:
    """What to tell a client about a fault of the database; none for one that is our own."""
    if isinstance(fault, OutOfTime):
        return TooSlow(str(fault))
    if isinstance(fault, OutcomeUnknown):
        return Unavailable(str(fault), outcome=Outcome.UNKNOWN)
    if isinstance(fault, ResultTooLarge):
        return AnswerTooLarge(fault.most)
    if fault is not None and is_disk_full(fault):
        return Unavailable("The database has no room left. Try again later.", retry_after=LATER)
    found = _of_the_database(fault)
    if found is None:
        return None
    kind, message = found
    return kind(message)


def _of_the_database(fault: BaseException | None) -> tuple[type[RequestError], str] | None:
    if isinstance(fault, TimeoutError):
        return BUSY
    # SQLAlchemy wraps the driver's errors, and the planner's statements run below it.
    if isinstance(fault, DBAPIError | ConnectionReplaced | asyncpg.PostgresError):
        if is_outdated(fault):
            return Unavailable, f"The database's tables are being changed.{AGAIN}"
        error = driver_error(fault)
        state = getattr(error, "sqlstate", None) or ""
        known = [STATES[state[:length]] for length in range(5, 1, -1) if state[:length] in STATES]
        if known:
            return known[0]
        if (
            isinstance(fault, OperationalError)
            or getattr(fault, "connection_invalidated", False)
            or isinstance(error, asyncpg.InternalClientError)
            # Whatever else it is that ended a connection, or let none be made.
            or getattr(error, "severity_en", None) in ("FATAL", "PANIC")
        ):
            return GONE
    if isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
        # Raised by asyncpg itself: it cannot connect, or PostgreSQL is just ending the connection.
        return GONE
    return None


class Unshown(Exception):
    """What a mutation has done cannot be shown; the cause says why."""


class Worded(SchemaExtension):
    """Gives every error a code, and hides what a fault would tell about the server.

    A fault is logged in full under an id, which the client gets to quote.
    """

    is_streaming = False

    def on_stream_result(self, result: Any) -> Iterator[None]:
        # At the end of a stream, its results were sent long ago.
        self.is_streaming = True
        if result.errors:
            result.errors = [self._worded(error) for error in result.errors]
        yield

    def on_operation(self) -> Iterator[None]:
        try:
            yield
        except (CannotGetOperationTypeError, InvalidOperationTypeError, MissingQueryError):
            raise  # the transport knows what to say
        except GraphQLError as error:  # raised by the parser's cache: a syntax error
            raise worded(error) from None
        except Exception as error:  # of the parser, or of a rule
            raise worded(GraphQLError(str(error), original_error=error)) from None
        if self.is_streaming:
            return
        result = self.execution_context.result
        found: Sequence[GraphQLError] | None = getattr(result, "errors", None)
        found = found or self.execution_context.pre_execution_errors
        if not found:
            return
        found = [self._worded(error) for error in found]
        if result is not None:
            result.errors = found
        self.execution_context.pre_execution_errors = found

    def _worded(self, error: GraphQLError) -> GraphQLError:
        context: Context = self.execution_context.context
        # What lies below a mutation is read when that is done.
        return worded(error, is_done=context.is_mutation and len(error.path or ()) > 1)


def worded(error: GraphQLError, *, is_done: bool = False) -> GraphQLError:
    """An error as a client may see it, with a code; and whether nevertheless it was done."""
    original: BaseException | None = error.original_error
    # What fails while a value is read is wrapped more than once, its words and all.
    while isinstance(original, GraphQLError) and original.original_error is not None:
        original = original.original_error
    is_unshown = isinstance(original, Unshown)
    if isinstance(original, Unshown):
        original = original.__cause__
    # What graphql-core finds in variables has a code, and quotes them.
    if not (error.extensions or {}).get("code") or not isinstance(original or error, RequestError):
        message, extensions = _told(error, original)
        if is_unshown:
            message = f"This was done, but cannot be shown. {message.removesuffix(AGAIN)}"
        error = _recoded(error, message, extensions)
    if is_done or is_unshown:
        told = dict(error.extensions or {})
        told.pop("retryAfter", None)
        error.extensions = {**told, "outcome": Outcome.DONE}
    return error


def _told(error: GraphQLError, original: BaseException | None) -> tuple[str, Mapping[str, Any]]:
    """What a client is told: the message, and the extensions with the code."""
    if isinstance(original, RequestError):
        return original.message, original.extensions or {}
    if original is None or isinstance(original, GraphQLError):
        code = "BAD_REQUEST" if error.path is None else "BAD_USER_INPUT"
        return error.message, {"code": code, **(error.extensions or {})}
    if isinstance(original, errors.Denied):
        return original.message, {"code": "FORBIDDEN"}
    if isinstance(original, RecursionError):
        return "The request is nested too deeply.", {"code": "BAD_REQUEST"}
    told = of_the_database(original) or masked(original, error.path)
    return told.message, told.extensions or {}


def masked(fault: BaseException, path: Sequence[str | int] | None = None) -> Fault:
    """Log a fault in full under an id, which is all that its client gets to know of it."""
    id = secrets.token_hex(4)
    log.error("fault %s at %s", id, path, exc_info=fault, extra={"fields": {"fault": id}})
    return Fault(f"Something went wrong on our side; quote {id} to have it looked up.")


def _recoded(error: GraphQLError, message: str, extensions: Mapping[str, Any]) -> GraphQLError:
    # A message may quote the request, and so be as long.
    return GraphQLError(
        message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…",
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=dict(extensions),
    )


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
