"""Errors of a request, which are answered under `errors`: one class for each code."""

from __future__ import annotations

from enum import StrEnum

from graphql import GraphQLError
from sqlalchemy.exc import DontWrapMixin

# Operations take a fraction of a second, and so does a restart of PostgreSQL.
SOON = 1
# An administrator has to free space on a full disk.
LATER = 60
AGAIN = " Try again in a moment."


HOW_TO_GET_TOKENS = (
    "The mutation login gives a user one, createAccessToken makes one for a program, and so does"
    " `troupe tokens create` on the machine of the server."
)


class RequestError(GraphQLError):
    """A request failed; `code` is the reason, for programs."""

    code = "BAD_USER_INPUT"
    retry_after: int | None = None
    """The number of seconds after which a client may retry; None if it should not."""

    def __init__(self, message: str, *, retry_after: int | None = None, **more: object) -> None:
        """`more` is added to the extensions of the error."""
        if retry_after is not None:
            self.retry_after = retry_after
        # A client must not retry a mutation that may have been done already.
        if self.retry_after is not None and "outcome" not in more:
            more["retryAfter"] = self.retry_after
        super().__init__(message, extensions={"code": self.code, **more})


class BadRequest(RequestError):
    """The request is malformed or not supported."""

    code = "BAD_REQUEST"


class BadInput(RequestError, DontWrapMixin):
    """An argument has an invalid value. SQLAlchemy passes the error of a deferred one on."""


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
    """A client has exceeded its rate limit."""

    code = "RATE_LIMITED"


class Forbidden(RequestError):
    """The viewer does not have the required right."""

    code = "FORBIDDEN"


class Unauthenticated(RequestError):
    """The request has no valid token."""

    code = "UNAUTHENTICATED"

    def __init__(
        self,
        message: str = "Send an access token in the header `Authorization: Bearer <token>`."
        f" {HOW_TO_GET_TOKENS}",
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
    """The outcome of a mutation whose result is an error. Without one, nothing was done."""

    DONE = "DONE"
    UNKNOWN = "UNKNOWN"


class TooSlow(RequestError):
    """A statement or an operation exceeded its time limit."""

    code = "TIMEOUT"


class Fault(RequestError):
    """An internal error; the message has the id under which the log has it."""

    code = "FAULT"


class PayloadFailed(Exception):
    """A mutation was done, but its payload cannot be read; the cause is the reason."""
