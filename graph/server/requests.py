"""Requests over HTTP: what is asked, by POST or GET, and in what form the answer is wanted."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from json import JSONDecodeError
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope

from db.text import parse_json, require_storable
from graph.core.errors import RequestError
from graph.execution.run import GraphQLRequest

JSON = "application/json"
RESPONSE = "application/graphql-response+json"
METHODS = b"GET, HEAD, POST"

# More of a header is not looked at, nor kept in a cache.
LONGEST_HEADER = 500

# How many values a body may have, JSON in them included. To read so many and to look at each takes
# up to 50 ms, in which nobody else is answered.
MOST_VALUES = 20_000
TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Gone(Exception):
    """The client went away: there is nobody to be answered."""


class Refused(RequestError):
    """It is not a request that can be answered."""

    CODES = {
        400: "BAD_REQUEST",
        403: "FORBIDDEN",
        405: "METHOD_NOT_ALLOWED",
        406: "NOT_ACCEPTABLE",
        408: "TIMEOUT",
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


Headers = Mapping[bytes, bytes]


def headers_of(scope: Scope) -> Headers:
    """The headers of a request; of those that come more than once, all values in a list."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if len(headers) < len(scope["headers"]):
        headers.clear()
        for name, value in scope["headers"]:
            headers[name] = b"%s, %s" % (headers[name], value) if name in headers else value
    return headers


async def received(scope: Scope, headers: Headers, receive: Receive, limit: int) -> GraphQLRequest:
    """The request that comes over HTTP. Raises Refused, or Gone."""
    match scope["method"]:
        case "POST":
            _expect_json(headers.get(b"content-type", b""))
            if headers.get(b"content-encoding", b"identity").lower() != b"identity":
                raise Refused("Send the body as it is, without `Content-Encoding`.", 415)
            body = await _body(headers, receive, limit)
            return request_in(object_in("The body", body))
        case "GET" | "HEAD":
            return request_in(_parameters(scope["query_string"], limit))
        case _:
            raise Refused("Use POST or GET.", 405, headers=[(b"allow", METHODS)])


def request_in(given: dict[str, Any]) -> GraphQLRequest:
    """The request in an object, whichever way it was sent. Raises Refused."""
    # What is wrong in variables is told where it stands.
    rest = {name: value for name, value in given.items() if name != "variables"}
    refuse_unusable("The request", rest)
    query = given.get("query")
    extensions = given.get("extensions")
    # Who names a document by its hash may leave its text out.
    is_named = isinstance(extensions, dict) and "persistedQuery" in extensions
    if not (query is None and is_named) and (not isinstance(query, str) or not query):
        raise Refused("`query` is the text of an operation, and cannot be left out.")
    name = given.get("operationName")
    if name is not None and not isinstance(name, str):
        raise Refused("`operationName` is a string.")
    variables = given.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise Refused("`variables` is an object.")
    if extensions is not None and not isinstance(extensions, dict):
        raise Refused("`extensions` is an object.")
    return GraphQLRequest(query, name or None, variables, extensions)


# POST


def _expect_json(content_type: bytes) -> None:
    text = content_type.decode("latin-1")
    if text == JSON:  # as nearly everybody writes it
        return
    kind, *parameters = (part.strip().lower() for part in text.split(";"))
    charsets = [part for part in parameters if part.startswith("charset=")]
    if kind != JSON or any(part.strip('charset="') not in ("utf-8", "utf8") for part in charsets):
        raise Refused(f"Send the header `Content-Type: {JSON}`, and UTF-8.", 415)


async def _body(headers: Headers, receive: Receive, limit: int) -> bytes:
    """The body; how long it takes is the connection's to bound (`graph.server.protocols`)."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > limit:
        raise _too_large(limit)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return b"".join(chunks)


def _too_large(limit: int) -> Refused:
    return Refused(f"The body has more than {limit} bytes (TROUPE_MAX_BODY_BYTES).", 413)


# GET


def _parameters(query_string: bytes, limit: int) -> dict[str, Any]:
    if len(query_string) > limit:
        raise Refused(f"The URL has more than {limit} bytes (TROUPE_MAX_BODY_BYTES).", 414)
    try:
        text = query_string.decode("ascii")
        given: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise Refused("The URL is not written in UTF-8.") from None
    for name in ("variables", "extensions"):
        if name in given:
            value = given[name].encode()
            given[name] = None if value in (b"", b"null") else object_in(f"`{name}`", value)
    return given


# JSON


def object_in(what: str, text: bytes) -> dict[str, Any]:
    """An object from JSON. Raises Refused."""
    if _values(text) > MOST_VALUES:
        raise Refused(
            f"{what} has more than {MOST_VALUES:,} values: texts, numbers, lists and objects. Send"
            " it in parts, or large JSON in a text.",
            413,
        )
    try:
        decoded = parse_json(text.removeprefix(BYTE_ORDER_MARK))
    except UnicodeDecodeError:
        raise Refused(f"{what} is not written in UTF-8.") from None
    except JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise Refused(f"{what} is not JSON, or nests too deeply, at {place}.") from None
    except ValueError as error:
        raise Refused(f"{what} is not JSON: {error}.") from None
    if not isinstance(decoded, dict):
        raise Refused(f"{what} is not a JSON object.")
    return decoded


def _values(text: bytes) -> int:
    """How many values JSON has, about. What is in its texts is counted only if it has to be."""
    found = _marks(text)
    return found if found <= MOST_VALUES else _marks(TEXT.sub(b"", text))


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def refuse_unusable(what: str, value: Any) -> None:
    """Refuse texts that have no place in anything that is answered or stored."""
    try:
        require_storable(value)
    except ValueError as error:
        raise Refused(f"{what} cannot be used: {error}.") from None


# The form of the answer


def acceptable(accept: bytes | None) -> str:
    """The media type of the answer, as the `Accept` header wants it. Raises Refused."""
    media = JSON if accept is None else _negotiated(accept[:LONGEST_HEADER])
    if media is None:
        raise Refused(f"The answer can be had as {RESPONSE} or {JSON}.", 406)
    return media


@lru_cache(maxsize=200)
def _negotiated(accept: bytes) -> str | None:
    wanted: dict[str, float] = {}
    for part in accept.decode("latin-1").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        wanted[kind] = next((_weight(word[2:]) for word in parameters if word[:2] == "q="), 1.0)
    anything = wanted.get("application/*", wanted.get("*/*", 0.0))
    plain, modern = wanted.get(JSON, anything), wanted.get(RESPONSE, anything)
    # Who takes anything is given what has been usual; who names both likes them alike.
    if modern > plain or (modern == plain > 0 and RESPONSE in wanted):
        return RESPONSE
    return JSON if plain > 0 else None


def _weight(number: str) -> float:
    return float(number) if re.fullmatch(r"[01](\.\d{0,3})?", number) else 0.0
