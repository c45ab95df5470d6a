"""GraphQL requests: parsing them, and negotiating the media type of the response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from json import JSONDecodeError
from typing import Any
from urllib.parse import parse_qsl

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from db.text import parse_json, require_storable
from graph.core.errors import RequestError
from graph.execution.run import WRITTEN, GraphQLRequest

JSON = "application/json"
GRAPHQL_RESPONSE = "application/graphql-response+json"
EVENT_STREAM = "text/event-stream"
METHODS = b"DELETE, GET, HEAD, POST, PUT"

# The length of an `Accept` header that is parsed and cached.
LONGEST_ACCEPT = 500

# The maximum number of JSON values in a body. Parsing and checking this number takes up to 50 ms of
# the event loop.
MOST_VALUES = 20_000
JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

BODY_LIMIT = "max_body_bytes"
"""The setting of the limit of a request's size."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class HTTPError(RequestError):
    """A request that is refused, with an HTTP status."""

    CODES = {
        400: "BAD_REQUEST",
        403: "FORBIDDEN",
        404: "NOT_FOUND",
        405: "METHOD_NOT_ALLOWED",
        406: "NOT_ACCEPTABLE",
        408: "TIMEOUT",
        409: "CONFLICT",
        413: "TOO_LARGE",
        414: "TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        431: "TOO_LARGE",
        503: "UNAVAILABLE",
    }

    def __init__(
        self,
        message: str,
        status: int = 400,
        headers: list[tuple[bytes, bytes]] | None = None,
        **more: Any,
    ) -> None:
        self.status = status
        self.code = self.CODES[status]
        self.headers = headers or []
        super().__init__(message, **more)


class NotJSON(HTTPError):
    """A text that is not JSON."""


Headers = Mapping[bytes, bytes]


def headers_of(scope: Scope) -> Headers:
    """The headers of a request; the values of a repeated header are joined by commas."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if len(headers) < len(scope["headers"]):
        headers.clear()
        for name, value in scope["headers"]:
            headers[name] = b"%s, %s" % (headers[name], value) if name in headers else value
    return headers


def traceparent(headers: Headers) -> str | None:
    """The place in a trace that a client names (W3C Trace Context)."""
    value = headers.get(b"traceparent")
    return None if value is None else value.decode("latin-1")


def with_written(request: GraphQLRequest, token: bytes) -> GraphQLRequest:
    """A request with the token of the last write that a header names."""
    extensions = (request.extensions or {}) | {WRITTEN: token.decode("latin-1")}
    return GraphQLRequest(request.query, request.operation_name, request.variables, extensions)


async def read_request(
    scope: Scope, headers: Headers, receive: Receive, limit: int
) -> GraphQLRequest:
    """Read a request over HTTP. Raises HTTPError or ClientDisconnect."""
    match scope["method"]:
        case "POST":
            body = await read_json(headers, receive, limit)
            return parse_request(parse_object("The body", body))
        case "GET" | "HEAD":
            return parse_request(_parameters(scope["query_string"], limit))
        case _:
            raise wrong_method()


def wrong_method() -> HTTPError:
    """The error of a request with a method that `/graphql` does not have."""
    return HTTPError("Use POST or GET.", 405, headers=[(b"allow", METHODS)])


def check_kind(kind: OperationType | None, method: str) -> None:
    """Refuse a mutation by GET: browsers send one for any link or image of another site."""
    if kind is OperationType.MUTATION and method != "POST":
        raise HTTPError("Send a mutation by POST.", 405, headers=[(b"allow", b"POST")])


def parse_request(fields: dict[str, Any]) -> GraphQLRequest:
    """The request in a JSON object, over any transport. Raises HTTPError."""
    query, name, extensions = map(fields.get, ("query", "operationName", "extensions"))
    # Errors in variables are reported later, with their paths.
    check_storable("The request", [query, name, extensions])
    # A persisted document needs no text.
    is_persisted = isinstance(extensions, dict) and "persistedQuery" in extensions
    if not (query is None and is_persisted) and (not isinstance(query, str) or not query):
        raise HTTPError("`query` is the text of an operation, and cannot be left out.")
    if name is not None and not isinstance(name, str):
        raise HTTPError("`operationName` is a string.")
    for key in ("variables", "extensions"):
        if not isinstance(fields.get(key), dict | None):
            raise HTTPError(f"`{key}` is an object.")
    return GraphQLRequest(query, name or None, fields.get("variables"), extensions)


# POST


async def read_json(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body of a POST with JSON. Raises HTTPError or ClientDisconnect."""
    _expect_json(headers.get(b"content-type", b""))
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise HTTPError("Send the body as it is, without `Content-Encoding`.", 415)
    return await _body(headers, receive, limit)


def _expect_json(content_type: bytes) -> None:
    text = content_type.decode("latin-1")
    if text == JSON:  # the most common form
        return
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    charsets = [part for part in parameters if part.startswith("charset=")]
    if kind != JSON or any(part.strip('charset="') not in ("utf-8", "utf8") for part in charsets):
        raise HTTPError(f"Send the header `Content-Type: {JSON}`, and UTF-8.", 415)


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body. `graph.server.protocols` limits the time it takes."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(chunks)


def _too_large(limit: int) -> HTTPError:
    return HTTPError(
        f"The body has more than {limit} bytes (TROUPE_MAX_BODY_BYTES).", 413, limit=BODY_LIMIT
    )


# GET


def _parameters(query_string: bytes, limit: int) -> dict[str, Any]:
    if len(query_string) > limit:
        raise HTTPError(
            f"The URL has more than {limit} bytes (TROUPE_MAX_BODY_BYTES).", 414, limit=BODY_LIMIT
        )
    try:
        text = query_string.decode("ascii")
        fields: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise HTTPError("The URL is not written in UTF-8.") from None
    for name in ("variables", "extensions"):
        if name in fields:
            value = fields[name].encode()
            fields[name] = None if value in (b"", b"null") else parse_object(f"`{name}`", value)
    return fields


# JSON


def parse_object(what: str, text: bytes) -> dict[str, Any]:
    """Parse a JSON object, which errors call `what`. Raises HTTPError."""
    # Strings are removed only if necessary, because that takes longer.
    if _separators(text) > MOST_VALUES and _separators(JSON_STRING.sub(b"", text)) > MOST_VALUES:
        raise HTTPError(
            f"{what} has more than {MOST_VALUES:,} values: texts, numbers, lists and objects. Send"
            " it in parts, or large JSON in a text.",
            413,
        )
    try:
        decoded = parse_json(text.removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError:
        raise NotJSON(f"{what} is not written in UTF-8.") from None
    except JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise NotJSON(f"{what} is not JSON, or nests too deeply, at {place}.") from None
    except ValueError as error:
        raise NotJSON(f"{what} is not JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise HTTPError(f"{what} is not a JSON object.")
    return decoded


def _separators(text: bytes) -> int:
    """The number of values in JSON, as an estimate."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def check_storable(what: str, value: Any) -> None:
    """Check that PostgreSQL and JSON can represent all texts. Raises HTTPError."""
    try:
        require_storable(value)
    except ValueError as error:
        raise HTTPError(f"{what} cannot be used: {error}.") from None


# The media type of the response


def negotiate(accept: bytes | None) -> str:
    """The media type of the response for an `Accept` header. Raises HTTPError."""
    media = JSON if accept is None else _negotiated(accept[:LONGEST_ACCEPT])
    if media is None:
        raise HTTPError(f"The answer can be had as {GRAPHQL_RESPONSE} or {JSON}.", 406)
    return media


@lru_cache(maxsize=200)
def _negotiated(accept: bytes) -> str | None:
    weights = _weights(accept)
    anything = weights.get("application/*", weights.get("*/*", 0.0))
    plain, newer = weights.get(JSON, anything), weights.get(GRAPHQL_RESPONSE, anything)
    # `*/*` gets plain JSON, which older clients expect. With equal weights, the newer type is sent.
    if newer > plain or (newer == plain > 0 and GRAPHQL_RESPONSE in weights):
        return GRAPHQL_RESPONSE
    return JSON if plain > 0 else None


def prefers_event_stream(accept: bytes | None) -> bool:
    """Whether an `Accept` header names event streams first.

    Some clients name them after JSON for every operation, and cannot read them for all.
    """
    return accept is not None and _prefers_event_stream(accept[:LONGEST_ACCEPT])


@lru_cache(maxsize=200)
def _prefers_event_stream(accept: bytes) -> bool:
    weights = _weights(accept)
    preferred = max(weights, key=weights.__getitem__)  # the first one of those with equal weights
    return preferred == EVENT_STREAM and weights[preferred] > 0


def _weights(accept: bytes) -> dict[str, float]:
    """The media types of an `Accept` header, in order, with their weights."""
    weights: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weights[kind] = next((_weight(word[2:]) for word in parameters if word[:2] == "q="), 1.0)
    return weights


def _weight(number: str) -> float:
    return float(number) if re.fullmatch(r"[01](\.\d{0,3})?", number) else 0.0
