"""The HTTP edge: what is answered to requests good and bad, by status, headers and body."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import db
from graph.settings import Mode, Settings
from tests import processes
from tests.conftest import People, serving
from tests.patience import PATIENCE
from tests.processes import Serving

JSON = "application/json"
RESPONSE = "application/graphql-response+json"
TYPENAME = {"query": "{ __typename }"}
ANSWER = {"data": {"__typename": "Query"}}


async def post(http: httpx.AsyncClient, body: Any, **headers: str) -> httpx.Response:
    """What is answered to a body, which is JSON unless it is bytes already."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"content-type": JSON} | {name.replace("_", "-"): it for name, it in headers.items()}
    return await http.post("/graphql", content=content, headers=given)


def code(response: httpx.Response) -> str:
    """The code of the only error, in an answer that has nothing else."""
    body = response.json()
    assert body.keys() == {"errors"}, body
    (error,) = body["errors"]
    assert error["message"]
    return str(error["extensions"]["code"])


# Bodies


BAD_BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"42",
    "a string": b'"{ __typename }"',
    "true": b"true",
    "a list": b"[1]",
    "a batch": json.dumps([TYPENAME]).encode(),
    "no JSON": b"query { __typename }",
    "truncated": b'{"query": "{ __typ',
    "something behind it": b'{"query": "{ __typename }"} {}',
    "bad UTF-8": b'{"query": "\xff\xfe"}',
    "a surrogate": b'{"query": "{ __typename }", "operationName": "\\ud800"}',
    "UTF-16": json.dumps(TYPENAME).encode("utf-16"),
    "deep lists": b"[" * 15_000,
    "a deep object": b'{"query": "{ __typename }", "variables": ' + b'{"a":' * 15_000,
    "a deep variable": (
        b'{"query": "{ __typename }", "variables": {"a": '
        + b"[" * 5000
        + b"1" * 20
        + b"]" * 5000
        + b"}}"
    ),
    "NaN": b'{"query": "{ __typename }", "variables": {"a": NaN}}',
    "no query": b"{}",
    "a misspelt query": b'{"qeury": "{ __typename }"}',
    "an empty query": b'{"query": ""}',
    "no text as query": b'{"query": null}',
}


@pytest.mark.parametrize("accept", [JSON, RESPONSE])
@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_what_is_no_request_is_refused(
    http: httpx.AsyncClient, kind: str, accept: str
) -> None:
    response = await post(http, BAD_BODIES[kind], accept=accept)

    assert response.status_code == 400
    assert response.headers["content-type"] == f"{accept}; charset=utf-8"
    assert code(response) == "BAD_REQUEST"


NOT_JSON = {
    b'{"query": "\xff"}': "The body is not written in UTF-8.",
    b'{"query":\n nope}': "The body is not JSON, or nests too deeply, at line 2, column 2.",
    b'{"a": NaN, "b": 1e400}': "The body is not JSON: NaN is not JSON.",
    b"[]": "The body is not a JSON object.",
    b'{"query": "{ __typename }", "operationName": "\\ud800"}': (
        "The request cannot be used: a text contains half of a surrogate pair (\\ud800 to \\udfff),"
        " which is no character and cannot be stored."
    ),
}


@pytest.mark.parametrize("body", NOT_JSON)
async def test_it_is_said_why_a_body_cannot_be_read(http: httpx.AsyncClient, body: bytes) -> None:
    response = await post(http, body)

    (error,) = response.json()["errors"]
    assert error["message"] == NOT_JSON[body]


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + json.dumps(TYPENAME).encode(),
        b'{"query": "{ __typename }", "variables": {"unused": ' + b"1" * 5000 + b"}}",
    ],
)
async def test_a_byte_order_mark_and_any_number_are_read(
    http: httpx.AsyncClient, body: bytes
) -> None:
    response = await post(http, body)

    assert response.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("name", ["query", "operationName", "variables", "extensions"])
@pytest.mark.parametrize("value", [0, 1.5, False, ["a"], {"a": "b"}, "text"])
async def test_a_parameter_of_the_wrong_type_is_refused(
    http: httpx.AsyncClient, name: str, value: Any
) -> None:
    expected: type = str if name in ("query", "operationName") else dict
    if isinstance(value, expected):
        return

    response = await post(http, {**TYPENAME, name: value})

    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")
    assert f"`{name}`" in response.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "more",
    [
        '"variables": null, "operationName": null, "extensions": null',
        '"variables": {}, "operationName": "", "extensions": {"a": 1}',
        '"something": "else", "id": 1',
        '"variables": {"unused": 18446744073709551615}',
    ],
)
async def test_a_request_may_leave_out_or_add_something(http: httpx.AsyncClient, more: str) -> None:
    response = await post(http, f'{{"query": "{{ __typename }}", {more}}}'.encode())

    assert (response.status_code, response.json()) == (200, ANSWER)


@pytest.mark.parametrize("depth", [100, 900, 1000, 1020])
async def test_a_deep_value_is_an_answer_and_no_fault(people: People, depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    body = (
        '{"query": "query($v: JSON!) { projects(where: {metadataContains: $v}) { totalCount } }",'
        f' "variables": {{"v": {"[" * depth}1{"]" * depth}}}}}'
    )

    response = await people.owner.send(body.encode())

    assert response.status_code in (200, 400)
    assert "FAULT" not in response.text


@pytest.mark.parametrize(
    "query",
    [
        "{ a" * 20_000,
        "{ __typename" + " @a(b: " + "[" * 20_000,
        "query($a: " + "[" * 20_000 + "Int",
        "{ __schema " + "{ types { fields { type " * 200 + "{ name }" + "}}}" * 200 + " }",
    ],
)
async def test_a_deep_document_is_refused_and_no_fault(people: People, query: str) -> None:
    """Also where no limits are set; who is not known is not listened to for so long."""
    for client, status, code in (
        (people.owner, 400, "BAD_REQUEST"),
        (people.nobody, 401, "UNAUTHENTICATED"),
    ):
        if client is people.nobody and "__schema" in query:
            continue  # which is open to all here
        response = await client.send({"query": query}, accept=RESPONSE)

        assert response.status_code == status
        assert {error["extensions"]["code"] for error in response.json()["errors"]} == {code}


async def test_a_long_name_is_not_sent_back_whole(people: People) -> None:
    long = "a" * 500_000
    for body in ({"query": f"{{ {long} }}"}, {**TYPENAME, "operationName": long}):
        response = await people.owner.send(body, accept=RESPONSE)

        assert response.status_code == 400
        assert len(response.content) < 1500


# The size of bodies


@pytest.fixture
async def small(database: db.Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that takes few bytes."""
    async with serving(database, Settings(max_body_bytes=1000)) as http:
        yield http


def sized(size: int) -> bytes:
    """A request of so many bytes."""
    body = json.dumps({**TYPENAME, "padding": ""}).encode()
    return body[:-2] + b" " * (size - len(body)) + body[-2:]


async def test_a_body_may_have_so_many_bytes_and_no_more(small: httpx.AsyncClient) -> None:
    allowed, refused = await post(small, sized(1000)), await post(small, sized(1001))

    assert (allowed.status_code, allowed.json()) == (200, ANSWER)
    assert (refused.status_code, code(refused)) == (413, "TOO_LARGE")
    assert "(TROUPE_MAX_BODY_BYTES)" in refused.text
    assert "1000 bytes" in refused.text


async def test_a_body_that_does_not_tell_its_size_is_counted(small: httpx.AsyncClient) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 100
            yield b" " * 100

    response = await small.post("/graphql", content=endless(), headers={"content-type": JSON})

    assert (response.status_code, code(response)) == (413, "TOO_LARGE")
    assert read == 1100


async def test_a_url_may_be_no_longer_than_a_body(small: httpx.AsyncClient) -> None:
    response = await small.get("/graphql", params={"query": "{ __typename }" + " " * 1000})

    assert (response.status_code, code(response)) == (414, "TOO_LARGE")
    assert "(TROUPE_MAX_BODY_BYTES)" in response.text


# What kind of body


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/json; charset=utf-8", 'APPLICATION/JSON;charset="UTF-8"'],
)
async def test_json_is_taken(http: httpx.AsyncClient, kind: str) -> None:
    assert (await post(http, TYPENAME, content_type=kind)).json() == ANSWER


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
        "application/graphql",
        "application/jsonp",
        "text/plain; application/json",
        "application/json; charset=utf-16",
        "application/json, text/plain",
    ],
)
async def test_what_a_form_can_send_is_not_taken(http: httpx.AsyncClient, kind: str) -> None:
    response = await post(http, TYPENAME, content_type=kind)

    assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")


# What kind of answer


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESPONSE, RESPONSE),
        (f"{RESPONSE}, {JSON}", RESPONSE),
        (f"{JSON}, {RESPONSE}", RESPONSE),
        (f"{RESPONSE}; charset=utf-8, {JSON}; charset=utf-8", RESPONSE),
        (f"{RESPONSE},{JSON};q=0.9", RESPONSE),
        (f"{RESPONSE};q=0.5, {JSON};q=0.9", JSON),
        (f"{RESPONSE}, application/graphql+json, {JSON}, text/event-stream", RESPONSE),
        (f"{JSON};q=0, */*", RESPONSE),
        (f"{RESPONSE};q=0, */*;q=0.1", JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", JSON),
        (f"{RESPONSE.upper()} ;Q=1", RESPONSE),
        ("text/html", None),
        (f"{JSON};q=0", None),
        ("text/*, image/png", None),
        (f"{JSON};q=much", None),
        ("," * 400, None),
    ],
)
async def test_the_answer_has_the_form_that_is_wanted(
    http: httpx.AsyncClient, accept: str | None, kind: str | None
) -> None:
    del http.headers["accept"]

    response = await post(http, TYPENAME, **({} if accept is None else {"accept": accept}))

    assert response.headers["vary"] == "Accept, Origin"
    if kind is None:
        assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")
        assert response.headers["content-type"] == "application/json; charset=utf-8"
    else:
        assert (response.status_code, response.json()) == (200, ANSWER)
        assert response.headers["content-type"] == f"{kind}; charset=utf-8"


# Statuses


async def test_an_answer_without_errors_is_200(people: People) -> None:
    response = await people.owner.send({"query": "{ me { username } }"}, accept=RESPONSE)

    assert response.status_code == 200
    assert response.content == b'{"data":{"me":{"username":"owner"}}}'


REQUEST_ERRORS: dict[str, dict[str, Any]] = {
    "a syntax error": {"query": "{"},
    "only a comment": {"query": "# nothing"},
    "only a fragment": {"query": "fragment F on Query { __typename }"},
    "an unknown field": {"query": "{ nothing }"},
    "an unknown fragment": {"query": "{ ...Nothing }"},
    "a missing variable": {"query": "query($id: ID!) { project(id: $id) { id } }"},
    "a null variable": {
        "query": "query($id: ID!) { project(id: $id) { id } }",
        "variables": {"id": None},
    },
    "an unknown operation": {"query": "query A { __typename }", "operationName": "B"},
    "no name among several": {"query": "query A { __typename } query B { __typename }"},
    "an empty name among several": {
        "query": "query A { __typename } query B { __typename }",
        "operationName": "",
    },
    "a subscription": {"query": "subscription { __typename }"},
}


BAD_VARIABLES = ("a missing variable", "a null variable")


@pytest.mark.parametrize("kind", REQUEST_ERRORS)
async def test_a_request_that_is_not_executed_has_no_data(people: People, kind: str) -> None:
    modern = await people.owner.send(REQUEST_ERRORS[kind], accept=RESPONSE)
    plain = await people.owner.send(REQUEST_ERRORS[kind], accept=JSON)

    assert modern.status_code == 400
    assert code(modern) == ("BAD_USER_INPUT" if kind in BAD_VARIABLES else "BAD_REQUEST")
    assert plain.status_code == (400 if kind == "a subscription" else 200)
    assert plain.json() == modern.json()


async def test_a_subscription_has_no_single_answer(people: People) -> None:
    answer = await people.owner.ask("subscription { inbox { cursor } }")

    (error,) = answer.errors
    assert error["message"] == (
        "Send a subscription over a WebSocket, or with `Accept: text/event-stream` for an event"
        " stream."
    )


async def test_several_operations_are_told_apart_by_name(http: httpx.AsyncClient) -> None:
    query = "query A { a: __typename } query B { b: __typename }"

    response = await post(http, {"query": query, "operationName": "B"})

    assert response.json() == {"data": {"b": "Query"}}


async def test_whoever_is_not_known_is_told_with_401(
    http: httpx.AsyncClient, people: People
) -> None:
    body = {"query": "{ me { id } }"}
    for headers in ({}, {"authorization": "Bearer wrong"}):
        modern = await post(http, body, accept=RESPONSE, **headers)
        plain = await post(http, body, accept=JSON, **headers)

        assert (modern.status_code, code(modern)) == (401, "UNAUTHENTICATED")
        assert (plain.status_code, code(plain)) == (200, "UNAUTHENTICATED")
        assert modern.headers["www-authenticate"] == "Bearer"


async def test_data_with_errors_is_a_partial_success(people: People) -> None:
    body = {"query": '{ me { username } project(id: "\N{BULLET}") { id } }'}
    modern = await people.owner.send(body, accept=RESPONSE)
    plain = await people.owner.send(body, accept=JSON)

    assert (modern.status_code, plain.status_code) == (294, 200)
    assert modern.json().keys() == {"errors", "data"}
    assert plain.json() == modern.json()


async def test_what_passes_by_itself_says_when_to_come_back(people: People) -> None:
    gone = db.Database("postgresql://nobody@127.0.0.1:1/nothing")
    async with serving(gone, Settings()) as http:
        owner = people.owner.through(http)
        modern = await owner.send({"query": "{ me { id } }"}, accept=RESPONSE)
        plain = await owner.send({"query": "{ me { id } }"}, accept=JSON)
        health = await http.get("/readyz"), await http.get("/livez")
    await gone.dispose()

    assert (modern.status_code, plain.status_code) == (503, 200)
    assert code(modern) == code(plain) == "UNAVAILABLE"
    assert modern.headers["retry-after"] == plain.headers["retry-after"] == "1"
    assert [response.status_code for response in health] == [503, 200]
    assert health[0].json() == {"status": "unavailable", "reason": "database"}


# GET


async def get(http: httpx.AsyncClient, **parameters: str) -> httpx.Response:
    """What is answered to a GET with these parameters."""
    return await http.get("/graphql", params=parameters, headers={"accept": RESPONSE})


async def test_a_query_may_be_sent_by_get(http: httpx.AsyncClient) -> None:
    query = "query A($name: String!) { __type(name: $name) { name } } query B { __typename }"
    variables = '{"name": "Task"}'

    response = await get(http, query=query, operationName="A", variables=variables, extensions="")

    assert (response.status_code, response.json()) == (200, {"data": {"__type": {"name": "Task"}}})
    assert response.headers["cache-control"] == "no-store"
    assert (await http.head("/graphql", params=TYPENAME)).status_code == 200
    assert (await get(http, query="{ __typename }", operationName="")).json() == ANSWER


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"query": ""},
        {"query": "{ __typename }", "variables": "x"},
        {"query": "{ __typename }", "variables": "[1]"},
        {"query": "{ __typename }", "variables": '"{}"'},
        {"query": "{ __typename }", "extensions": "1"},
        {"query": "{ __typename }", "variables": '{"a":' * 2_000},
    ],
)
async def test_what_cannot_be_read_in_a_url_is_refused(
    http: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    response = await get(http, **parameters)

    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


async def test_a_url_is_utf_8(http: httpx.AsyncClient) -> None:
    response = await http.get("/graphql?query=%7B__typename%7D%23%FF")

    assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("accept", [JSON, RESPONSE, "*/*"])
async def test_nothing_is_changed_by_get(
    database: db.Database, people: People, accept: str
) -> None:
    create = 'createProject(input: {name: "By a link"}) { project { id } }'
    for parameters in (
        {"query": f"mutation {{ {create} }}"},
        {"query": f"query Q {{ __typename }} mutation M {{ {create} }}", "operationName": "M"},
    ):
        response = await people.owner.get(parameters, accept=accept)

        assert (response.status_code, code(response)) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "POST"
    assert (await people.admin.ask("{ projects { totalCount } }")).data == {
        "projects": {"totalCount": 0}
    }


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "QUERY"])
async def test_other_methods_are_not_for_us(http: httpx.AsyncClient, method: str) -> None:
    response = await http.request(method, "/graphql", json=TYPENAME)

    assert (response.status_code, code(response)) == (405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "DELETE, GET, HEAD, POST, PUT"


# Other sites


async def test_no_cookie_is_read(http: httpx.AsyncClient, people: People) -> None:
    token = people.owner.token
    cookies = "; ".join(f"{name}={token}" for name in ("token", "session", "authorization"))
    body = {"query": "{ me { id } }"}
    for headers in ({"cookie": cookies}, {"cookie": f"authorization=Bearer {token}"}):
        response = await post(http, body, accept=RESPONSE, **headers)

        assert (response.status_code, code(response)) == (401, "UNAUTHENTICATED")
        assert "set-cookie" not in response.headers


PREFLIGHT = {
    "origin": "https://app.example.org",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type",
}


async def test_without_the_setting_no_other_site_gets_an_answer(database: db.Database) -> None:
    async with serving(database, Settings(mode=Mode.PRODUCTION)) as http:
        preflight = await http.options("/graphql", headers=PREFLIGHT)
        sent = await post(http, TYPENAME, origin=PREFLIGHT["origin"])

    assert preflight.status_code == 405
    for response in (preflight, sent):
        assert not any(name.startswith("access-control") for name in response.headers)


async def test_the_sites_that_are_named_get_answers_and_others_none(
    database: db.Database,
) -> None:
    origins = ("https://app.example.org", "http://localhost:3000")
    async with serving(database, Settings(allowed_origins=origins)) as http:
        preflight = await http.options("/graphql", headers=PREFLIGHT)
        sent = await post(http, TYPENAME, origin=PREFLIGHT["origin"])
        evil = PREFLIGHT | {"origin": "https://app.example.org.evil.example"}
        others = [
            await http.options("/graphql", headers=evil),
            await post(http, TYPENAME, origin=evil["origin"]),
        ]

    for response in (preflight, sent):
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "https://app.example.org"
        assert "Origin" in response.headers["vary"]
        assert "access-control-allow-credentials" not in response.headers
        assert response.headers["x-request-id"]
    assert preflight.headers["access-control-allow-methods"] == "DELETE, GET, POST, PUT"
    assert "Authorization" in preflight.headers["access-control-allow-headers"]
    exposed = sent.headers["access-control-expose-headers"]
    assert exposed == "Retry-After, Server-Timing, Troupe-Written, WWW-Authenticate, X-Request-Id"
    assert "traceparent, tracestate" in preflight.headers["access-control-allow-headers"]
    for response in others:
        assert "access-control-allow-origin" not in response.headers


async def test_all_sites_may_be_let_in(database: db.Database) -> None:
    async with serving(database, Settings(allowed_origins=("*",))) as http:
        response = await post(http, TYPENAME, origin="https://anything.example")

    assert response.headers["access-control-allow-origin"] == "*"


# What every answer says


@pytest.mark.parametrize("path", ["/graphql", "/livez", "/readyz", "/nothing", "/graphiql/none.js"])
@pytest.mark.parametrize("mode", list(Mode))
async def test_every_answer_is_as_strict_as_can_be(
    database: db.Database, path: str, mode: Mode
) -> None:
    async with serving(database, Settings(mode=mode)) as http:
        response = await http.get(path)

    headers = response.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert len(headers["x-request-id"]) == 16


@pytest.mark.parametrize("id", ["abc-123", "0193a000-0000-7000-8000-000000000001", "a/b:c=", "x"])
async def test_a_request_keeps_the_id_that_it_came_with(http: httpx.AsyncClient, id: str) -> None:
    for path in ("/graphql", "/livez", "/nothing"):
        response = await http.get(path, headers={"x-request-id": id})
        assert response.headers.get_list("x-request-id") == [id]


@pytest.mark.parametrize("id", ["", " ", "a b", "x" * 101, "a\x7f", "\u00e9", "a;b", '"', "<b>"])
async def test_an_id_that_could_do_harm_is_replaced(http: httpx.AsyncClient, id: str) -> None:
    response = await http.get("/livez", headers={b"x-request-id": id.encode()})

    assert len(response.headers["x-request-id"]) == 16
    assert response.headers["x-request-id"] != id


# Faults


SECRET = "cannot open /srv/troupe/secret: SELECT password_hash FROM users"


class Broken:
    """Stands where something is called, and fails."""

    def __call__(self, *_: object, **__: object) -> None:
        raise RuntimeError(SECRET)


@pytest.mark.parametrize(
    "place",
    [
        "graph.execution.tokens.Tokens.viewer",
        "graph.compiler.Compiler.compile",
        "graph.compiler.compiled.CompiledStatement.arguments",
        "graph.execution.pipeline.Pipeline.begin",
        "graph.execution.run.Operation",
        "graph.execution.pipeline.check_arguments",
        "graph.server.endpoint.read_request",
        "graph.execution.pipeline.Context",
        "graph.core.loaders.Loaders.page",
        "graph.execution.pipeline.execute_root_selection_set",
    ],
)
async def test_a_fault_tells_nothing_but_the_id_under_which_it_is_logged(
    database: db.Database,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    monkeypatch.setattr(place, Broken())
    async with serving(database, Settings(compiler="compiler" in place)) as http:
        response = await people.owner.through(http).send(
            {"query": "{ projects { nodes { id } } }"}, accept=RESPONSE
        )

    assert response.status_code in (500, 294)
    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "FAULT"}
    told = error["message"].removeprefix("Something went wrong on our side; quote ")
    id, _, rest = told.partition(" ")
    assert rest == "to have it looked up."
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.getMessage().startswith(f"fault {id} ")
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == SECRET
    for word in ("secret", "SELECT", "/srv", "RuntimeError", "Traceback"):
        assert word not in response.text


async def test_a_fault_outside_of_the_api_is_masked_too(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("graph.app.JSONResponse", Broken())

    response = await http.get("/readyz")

    assert response.status_code == 500
    assert code(response) == "FAULT"
    assert response.headers["x-request-id"]
    assert "fault" in caplog.text


# Over a socket


@pytest.fixture(scope="module")
def served(made: tuple[Path, str]) -> Iterator[Serving]:
    """A server in a process of its own."""
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            yield server.ready()
            assert server.stop().status == 0


def lines(*lines: str) -> bytes:
    """The head of a request."""
    return "\r\n".join((*lines, "", "")).encode()


def exchanged(server: Serving, *sent: bytes) -> list[bytes]:
    """The status lines of what comes back over one connection for what is sent, bit by bit."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
        for part in sent:
            connection.sendall(part)
        with contextlib.suppress(OSError):  # the server may have hung up by now
            connection.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return re.findall(rb"^HTTP/1.1 (\d+)", received, re.MULTILINE)


def test_a_large_body_is_refused_and_the_connection_lives_on(served: Serving) -> None:
    with processes.client(base_url=served.url) as http:
        for content in (b" " * 30_000_000, iter([b" " * 1_000_000] * 30)):
            refused = http.post("/graphql", content=content, headers={"content-type": JSON})
            assert (refused.status_code, code(refused)) == (413, "TOO_LARGE")
            assert "1048576 bytes" in refused.text
            assert http.post("/graphql", json=TYPENAME).json() == ANSWER


def test_who_asks_first_whether_to_send_is_told_not_to(served: Serving) -> None:
    head = ("POST /graphql HTTP/1.1", "Host: a", f"Content-Type: {JSON}", "Expect: 100-continue")
    assert exchanged(served, lines(*head, "Content-Length: 9999999999")) == [b"413"]


def test_a_body_that_breaks_off_is_nobodys(served: Serving) -> None:
    head = ("POST /graphql HTTP/1.1", "Host: a", f"Content-Type: {JSON}")
    assert exchanged(served, lines(*head, "Content-Length: 100"), b'{"query"') == []
    assert exchanged(served, lines(*head, "Transfer-Encoding: chunked"), b"8\r\n{") == []
    assert exchanged(served, lines(*head, "Content-Length: x"), b"{}") == [b"400"]
    assert served.get("/livez").status_code == 200


def test_a_partial_success_goes_through_the_server(served: Serving) -> None:
    headers = {"accept": RESPONSE, "authorization": f"Bearer {served.token}"}
    body = {"query": '{ me { username } project(id: "?") { id } }'}
    with processes.client(base_url=served.url) as http:
        response = http.post("/graphql", json=body, headers=headers)
        head = http.head("/graphql", params=TYPENAME)

    assert response.status_code == 294
    assert response.json()["data"] == {"me": {"username": "admin"}, "project": None}
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(b'{"data":{"__typename":"Query"}}'))
    assert "server" not in response.headers
