"""Responses: results in the form that every transport sends."""

from __future__ import annotations

from typing import Any

from graphql import ExecutionResult, GraphQLError

# The HTTP status of a response without data, by the code of its first error; 400 for other codes.
STATUSES = {
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "RATE_LIMITED": 429,
    # As in Apollo's protocol: the client sends the document next.
    "PERSISTED_QUERY_NOT_FOUND": 200,
    "PERSISTED_QUERY_NOT_SUPPORTED": 200,
    "FAULT": 500,
    "OVERLOADED": 503,
    "UNAVAILABLE": 503,
    "TIMEOUT": 504,
}
PARTIAL_SUCCESS = 294


class Response:
    """A result in the form that every transport sends."""

    def __init__(self, result: ExecutionResult) -> None:
        self.errors = result.errors or []
        self.codes: list[str] = [(error.extensions or {}).get("code", "") for error in self.errors]
        found = [(error.extensions or {}).get("limit") for error in self.errors]
        self.limits: list[str] = [limit for limit in found if limit is not None]
        # An error without a path is an error of the whole request, which has no data.
        self.is_refused = result.data is None and all(error.path is None for error in self.errors)
        self.body: dict[str, Any] = {}
        if self.errors:
            self.body["errors"] = [error.formatted for error in self.errors]
        if not self.is_refused:
            self.body["data"] = result.data
        if result.extensions:
            self.body["extensions"] = result.extensions

    @classmethod
    def refusal(cls, error: GraphQLError) -> Response:
        """The response to an operation that is refused with this error."""
        return cls(ExecutionResult(None, [error]))

    @property
    def status(self) -> int:
        """The status by GraphQL over HTTP, which the log records for every transport."""
        if not self.codes:
            return 200
        return STATUSES.get(self.codes[0], 400) if self.is_refused else PARTIAL_SUCCESS
