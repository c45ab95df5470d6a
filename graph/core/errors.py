"""Errors of a request, which are answered under `errors`: one class for each code."""

from __future__ import annotations

from enum import StrEnum

from graphql import GraphQLError

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

    def __init__(self, message: str, *, retry_after: int | None = None, **more: object) -> None:
        """`more` goes into the extensions of the error."""
        if retry_after is not None:
            self.retry_after = retry_after
        # Of what may have been done already, a client must not think that it may send it again.
        if self.retry_after is not None and "outcome" not in more:
            more["retryAfter"] = self.retry_after
        super().__init__(message, extensions={"code": self.code, **more})


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
    """What became of a mutation whose answer is an error. Without one, nothing was done."""

    DONE = "DONE"
    UNKNOWN = "UNKNOWN"


class TooSlow(RequestError):
    """A statement or an operation took longer than it may."""

    code = "TIMEOUT"


class Fault(RequestError):
    """Something went wrong on our side; the message has an id that finds it in the log."""

    code = "FAULT"


class PayloadFailed(Exception):
    """What a mutation has done cannot be shown; the cause says why."""
