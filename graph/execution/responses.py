"""Responses: results as every transport sends them."""

from __future__ import annotations

from typing import Any

from graphql import ExecutionResult, GraphQLError

# The status of a response without data, by the code of its error; of any other it is 400.
STATUSES = {
    "UNAUTHENTICATED": 401,
    "FORBIDDEN": 403,
    "RATE_LIMITED": 429,
    # As Apollo's protocol has it: the client sends the document next.
    "PERSISTED_QUERY_NOT_FOUND": 200,
    "PERSISTED_QUERY_NOT_SUPPORTED": 200,
    "FAULT": 500,
    "OVERLOADED": 503,
    "UNAVAILABLE": 503,
    "TIMEOUT": 504,
}
PARTIAL_SUCCESS = 294


class Response:
    """A result as it is sent, over whatever transport."""

    def __init__(self, result: ExecutionResult) -> None:
        self.errors = result.errors or []
        self.codes: list[str] = [(error.extensions or {}).get("code", "") for error in self.errors]
        # An error that has no place in the data is one of the request, which then has no data.
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
        """The status that GraphQL over HTTP gives it; the log has it for every transport."""
        if not self.codes:
            return 200
        return STATUSES.get(self.codes[0], 400) if self.is_refused else PARTIAL_SUCCESS
