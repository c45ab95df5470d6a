"""The errors that a client sees: a message and a code, without details of the server."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from graphql import GraphQLError
from sqlalchemy.exc import DBAPIError, OperationalError, ResourceClosedError, TimeoutError

from db import ConnectionReplaced, OutcomeUnknown, errors
from db.connections import driver_error, is_disk_full, is_outdated
from db.result_limits import ResultTooLarge
from graph.core.access import DeadlineExceeded
from graph.core.errors import (
    AGAIN,
    LATER,
    AnswerTooLarge,
    BadInput,
    Fault,
    Outcome,
    Overloaded,
    PayloadFailed,
    RequestError,
    TooSlow,
    Unavailable,
)

log = logging.getLogger("troupe")

LONGEST_MESSAGE = 1000

UNREACHABLE = (Unavailable, f"The database cannot be reached.{AGAIN}")
BUSY = (Overloaded, f"All connections to the database are busy.{AGAIN}")
CONFLICTING = (Overloaded, f"Somebody else is changing the same rows.{AGAIN}")
STATEMENT_TIMEOUT = (TooSlow, "The database took too long to answer. Ask for less at once.")
NUL = (BadInput, "A text contains a NUL character (\\u0000), which cannot be stored.")

SQLSTATES: Mapping[str, tuple[type[RequestError], str]] = {
    "08": UNREACHABLE,  # the connection broke
    "22021": NUL,
    "22P05": NUL,
    "25006": (Unavailable, f"The database only reads at the moment.{AGAIN}"),
    "25P03": UNREACHABLE,  # a transaction was idle
    "25P04": STATEMENT_TIMEOUT,  # a transaction
    "28": UNREACHABLE,  # authentication failed
    "3D": UNREACHABLE,  # there is no such database
    "40001": CONFLICTING,  # also a conflict with recovery on a standby
    "40P01": CONFLICTING,  # a deadlock
    "53200": (Overloaded, f"The database has no memory left for this.{AGAIN}"),
    "53300": BUSY,  # too many connections
    "53400": (BadInput, "This takes more room than the database gives. Ask for less at once."),
    "54": (BadInput, "This is more than the database can take in one piece. Send less."),
    "55P03": CONFLICTING,  # a lock timeout
    "57": UNREACHABLE,  # a shutdown, crash or start, or a terminated connection
    "57014": STATEMENT_TIMEOUT,  # a statement
    "58": (Unavailable, f"The database cannot read or write its files.{AGAIN}"),
}
"""The errors that a client sees, by the SQLSTATE or its prefix; the longest prefix applies.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""


def database_error(fault: BaseException | None) -> RequestError | None:
    """The error that a client sees for an error of the database; None for any other error."""
    if isinstance(fault, DeadlineExceeded):
        return TooSlow(str(fault))
    if isinstance(fault, OutcomeUnknown):
        return Unavailable(str(fault), outcome=Outcome.UNKNOWN)
    if isinstance(fault, ResultTooLarge):
        return AnswerTooLarge(fault.most)
    if fault is not None and is_disk_full(fault):
        return Unavailable("The database has no room left. Try again later.", retry_after=LATER)
    found = _kind_and_message(fault)
    return None if found is None else found[0](found[1])


def _kind_and_message(fault: BaseException | None) -> tuple[type[RequestError], str] | None:
    if isinstance(fault, TimeoutError):
        return BUSY
    # SQLAlchemy wraps the driver's errors, and compiled statements run below it.
    if isinstance(fault, DBAPIError | ConnectionReplaced | asyncpg.PostgresError):
        if is_outdated(fault):
            return Unavailable, f"The database's tables are being changed.{AGAIN}"
        error = driver_error(fault)
        state = getattr(error, "sqlstate", None) or ""
        for length in range(5, 1, -1):
            if state[:length] in SQLSTATES:
                return SQLSTATES[state[:length]]
        if (
            isinstance(fault, OperationalError)
            or getattr(fault, "connection_invalidated", False)
            or isinstance(error, asyncpg.InternalClientError)
            # Other errors that end a connection, or prevent one.
            or getattr(error, "severity_en", None) in ("FATAL", "PANIC")
        ):
            return UNREACHABLE
    if isinstance(fault, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError):
        # Raised by asyncpg: it cannot connect, or PostgreSQL is ending the connection.
        return UNREACHABLE
    if isinstance(fault, ResourceClosedError):
        # Raised by SQLAlchemy: the first connection of an engine ended before it was ready.
        return UNREACHABLE
    return None


def reported(error: Exception, *, is_done: bool = False) -> GraphQLError:
    """An error as a client sees it, with a code, and with whether the mutation was done anyway."""
    if not isinstance(error, GraphQLError):
        error = GraphQLError(str(error), original_error=error)
    original: BaseException | None = error.original_error
    # The error of a scalar is wrapped more than once, with its message.
    while isinstance(original, GraphQLError) and original.original_error is not None:
        original = original.original_error
    is_unshown = isinstance(original, PayloadFailed)
    if isinstance(original, PayloadFailed):
        original = original.__cause__
    # graphql-core copies the code of the original error to errors in variables.
    if not (error.extensions or {}).get("code") or not isinstance(original or error, RequestError):
        message, extensions = _shown(error, original)
        if is_unshown:
            message = f"This was done, but cannot be shown. {message.removesuffix(AGAIN)}"
        error = _with_code(error, message, extensions)
    if is_done or is_unshown:
        extensions = dict(error.extensions or {})
        extensions.pop("retryAfter", None)
        error.extensions = {**extensions, "outcome": Outcome.DONE}
    return error


def _shown(error: GraphQLError, original: BaseException | None) -> tuple[str, Mapping[str, Any]]:
    """The message and the extensions that a client sees."""
    if isinstance(original, RequestError):
        return original.message, original.extensions or {}
    if original is None or isinstance(original, GraphQLError):
        code = "BAD_REQUEST" if error.path is None else "BAD_USER_INPUT"
        return error.message, {"code": code, **(error.extensions or {})}
    if isinstance(original, errors.Denied):
        return original.message, {"code": "FORBIDDEN"}
    if isinstance(original, RecursionError):
        return "The request is nested too deeply.", {"code": "BAD_REQUEST"}
    shown = database_error(original) or masked(original, error.path)
    return shown.message, shown.extensions or {}


def masked(fault: BaseException, path: Sequence[str | int] | None = None) -> Fault:
    """Log an unexpected error in full with an id, and return an error with only the id."""
    id = secrets.token_hex(4)
    log.error("fault %s at %s", id, path, exc_info=fault, extra={"fields": {"fault": id}})
    return Fault(f"Something went wrong on our side; quote {id} to have it looked up.")


def _with_code(error: GraphQLError, message: str, extensions: Mapping[str, Any]) -> GraphQLError:
    # A message that quotes the request may be as long as the request.
    return GraphQLError(
        message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…",
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=dict(extensions),
    )
