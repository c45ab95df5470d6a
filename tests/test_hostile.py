"""Attacks on a server as others run it, from outside: what is answered, and that it stays well.

The audits are those of graphql-cop, of GraphQL Armor and of OWASP's cheat sheet on GraphQL.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest
from graphql import ValidationRule

import db
from graph.settings import Settings
from tests import processes
from tests.conftest import People, serving
from tests.processes import Serving
from tests.test_limits import BOMBS

RESPONSE = "application/graphql-response+json"
# The seconds of a processor that an attack may take: on an idle machine it is a tenth of this.
LITTLE = 0.5


@dataclass
class Target:
    """A server for other people, with an administrator's token."""

    server: Serving
    token: str
    http: httpx.Client

    def send(self, body: Any, *, anonymous: bool = False, **headers: str) -> httpx.Response:
        """What is answered to a body, which is JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", "accept": RESPONSE}
        if not anonymous:
            given["authorization"] = f"Bearer {self.token}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post("/graphql", content=content, headers=given)

    def ask(self, query: str, /, **variables: Any) -> httpx.Response:
        """What is answered to an operation of the administrator's."""
        return self.send({"query": query, "variables": variables})

    def is_well(self) -> bool:
        """Whether a stranger is answered within a second, also if the machine has much to do."""
        for _ in range(5):
            response = self.send({"query": "{ __typename }"}, anonymous=True)
            assert response.json() == {"data": {"__typename": "Query"}}
            if response.elapsed.total_seconds() < 1:
                return True
        return False

    @contextlib.contextmanager
    def little_work(self) -> Iterator[None]:
        """What is sent in the block must not keep the server busy."""
        before = self._work()
        yield
        assert self._work() - before < LITTLE

    def _work(self) -> float:
        """How many seconds of a processor the server has used."""
        status = Path(f"/proc/{self.server.pid}/stat")
        if not status.exists():  # not on Linux
            return 0.0
        fields = status.read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def running(made: tuple[Path, str]) -> Iterator[Target]:
    with processes.place() as folder:
        data_dir, token = processes.copied(made[0], folder / "data"), made[1]
        with (
            Serving(folder, data_dir=data_dir, mode="production", console="false") as server,
            processes.client(base_url=server.ready().url) as http,
        ):
            yield Target(server, token, http)
            assert server.stop().status == 0
            assert "fault" not in server.err
            assert token not in server.out + server.err


@pytest.fixture
def target(running: Target) -> Iterator[Target]:
    """The server, which must be as well after each test as before."""
    yield running
    assert running.is_well()


def told(response: httpx.Response) -> tuple[int, str, str | None]:
    """The status, and of all errors the same: their code, and the limit that they name."""
    body = response.json()
    ((code, limit),) = {
        (error["extensions"]["code"], error["extensions"].get("limit")) for error in body["errors"]
    }
    assert not body.get("data")
    return response.status_code, code, limit


def refused(limit: str) -> tuple[int, str, str]:
    """What is told about a limit."""
    return 400, "LIMIT_EXCEEDED", limit


UNKNOWN = (401, "UNAUTHENTICATED", None)
BAD = (400, "BAD_REQUEST", None)


def nested(levels: int) -> dict[str, Any]:
    """A filter that nests."""
    where: dict[str, Any] = {}
    for _ in range(levels):
        where = {"not": where}
    return where


FILTERED = "query($w: TaskFilter) { tasks(where: $w) { totalCount } }"
GUARDED = {"project": {"owner": {"username": {"eq": "x"}}}}

# A document with its variables, and what an administrator is answered.
DOCUMENTS: dict[str, tuple[str, dict[str, Any], tuple[int, str, str | None]]] = {
    "101 aliases": (
        "{ me {" + "".join(f" a{n}: id" for n in range(101)) + " } }",
        {},
        refused("max_aliases"),
    ),
    "101 aliases at the root": (
        "{" + "".join(f" a{n}: __typename" for n in range(101)) + " }",
        {},
        refused("max_root_fields"),
    ),
    "a field 500 times": ("{" + " __typename" * 500 + " }", {}, refused("max_root_fields")),
    "a field below 3,000 times": (
        "{ me {" + " id" * 3000 + " } }",
        {},
        refused("max_fields"),
    ),
    "ten directives that there are not": ("{ __typename" + " @aa" * 10 + " }", {}, BAD),
    "51 directives": (
        "{ __typename" + " @include(if: true)" * 51 + " }",
        {},
        refused("max_directives"),
    ),
    "introspection in circles": (
        "{ __schema { types { fields { type { fields { type { fields { type { fields { type {"
        " name } } } } } } } } } } }",
        {},
        BAD,
    ),
    "fragments in circles": (
        "{ __schema { ...A } } fragment A on __Schema { __typename ...B }"
        " fragment B on __Schema { ...A }",
        {},
        BAD,
    ),
    "a syntax error": ("qwerty cop { abc }", {}, BAD),
    "51,000 characters": ("{ __typename }".ljust(51_000), {}, refused("max_document_length")),
    "5,001 tokens": ("{ me {" + " id" * 4997 + " } }", {}, refused("max_tokens")),
    "21 levels": (
        "{ tasks { nodes " + "{ parentTask " * 18 + "{ id" + " }" * 21,
        {},
        refused("max_depth"),
    ),
    "a million rows": (
        "{ projects(first: 100) { nodes { tasks(first: 100) { nodes { attempts { nodes { id"
        " } } } } } } }",
        {},
        refused("max_cost"),
    ),
    "5,000 ids": (
        "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Task { agent { model { id } } project {"
        " owner { id } } } } }",
        {"ids": ["x"] * 5000},
        refused("max_cost"),
    ),
    "15,000 ids": (
        "query($ids: [ID!]!) { nodes(ids: $ids) { id } }",
        {"ids": [1] * 15_000},
        refused("max_values"),
    ),
    "15,000 values that do not fit": (
        FILTERED,
        {"w": {"or": [1] * 15_000}},
        refused("max_values"),
    ),
    "15,000 texts to compare with": (
        FILTERED,
        {"w": {"title": {"in": ["x"] * 15_000}}},
        refused("max_values"),
    ),
    "3,000 alternatives": (
        FILTERED,
        {"w": {"or": [{"title": {"eq": "x"}}] * 3000}},
        refused("max_conditions"),
    ),
    "4,000 empty alternatives": (
        FILTERED,
        {"w": {"or": [{}] * 4000}},
        refused("max_conditions"),
    ),
    "300 ways to other objects": (
        FILTERED,
        {"w": {"or": [GUARDED] * 300}},
        refused("max_conditions"),
    ),
    "20 conditions on ids and one more": (
        FILTERED,
        {"w": {"or": [{"projectId": {"eq": "x"}}] * 20 + [{}]}},
        refused("max_conditions"),
    ),
    "50 fields with 10 conditions each": (
        "query($w: TaskFilter) {"
        + "".join(f" a{n}: tasks(where: $w) {{ totalCount }}" for n in range(50))
        + " }",
        {"w": {"or": [{"title": {"eq": "x"}}] * 10}},
        refused("max_conditions"),
    ),
    "conditions in fragments that double": (
        "query($w: TaskFilter) { projects(first: 1) { nodes { ...F0 } } }"
        + "".join(
            f" fragment F{n} on Project {{ a: owner {{ id }} tasks(first: 1, where: $w) {{ nodes {{"
            f" project {{ ...F{n + 1} }} parentTask {{ project {{ ...F{n + 1} }} }} }} }} }}"
            for n in range(3)
        )
        + " fragment F3 on Project { id }",
        {"w": {"or": [{"title": {"eq": "x"}}] * 20}},
        refused("max_conditions"),
    ),
    "a filter of 30 levels": (FILTERED, {"w": nested(30)}, (294, "BAD_USER_INPUT", None)),
    "an integer of 4,000 digits": (
        f"{{ tasks(first: {'9' * 4000}) {{ totalCount }} }}",
        {},
        (400, "BAD_USER_INPUT", None),
    ),
    "60 unknown fields of 800 characters": (
        "{ me {" + "".join(f" {'x' * 800}{n}" for n in range(60)) + " } }",
        {},
        BAD,
    ),
    "300 unknown fields of 800 characters": (
        "{ me {" + "".join(f" {'x' * 800}{n}" for n in range(300)) + " } }",
        {},
        refused("max_document_length"),
    ),
    "a field of a name 1,250 times": (
        "{ me {" + " ...on User { id username email createdAt updatedAt }" * 250 + " } }",
        {},
        BAD,
    ),
    "a page of 101": (
        "{ projects(first: 101) { nodes { id } } }",
        {},
        (294, "BAD_USER_INPUT", None),
    ),
}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_document_that_asks_too_much_is_told_which_limit(target: Target, kind: str) -> None:
    query, variables, expected = DOCUMENTS[kind]

    with target.little_work():
        response = target.ask(query, **variables)

    assert told(response) == expected
    assert len(response.json()["errors"]) != 10  # by which graphql-cop knows who looks at each
    for error in response.json()["errors"]:
        if expected[2]:
            setting = f"TROUPE_{expected[2].upper()}"
            assert f"may have {error['extensions']['allowed']} ({setting})" in error["message"]


def test_a_stranger_is_told_even_less(target: Target) -> None:
    for kind, (query, variables, _) in DOCUMENTS.items():
        with target.little_work():
            response = target.send({"query": query, "variables": variables}, anonymous=True)

        assert told(response) in (UNKNOWN, BAD), kind
        for word in ("TROUPE_", "Did you mean", "Task", "Project"):
            assert word not in response.text, kind


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    "kind", ["fragments that double", "a circle of fragments", "fragments that spread each other"]
)
def test_a_bomb_of_fragments_does_not_go_off(target: Target, kind: str, anonymous: bool) -> None:
    for size in (1_000, 10_000, 100_000, 1_000_000):
        with target.little_work():
            response = target.send({"query": BOMBS[kind](size)}, anonymous=anonymous)

        assert response.status_code in (400, 401, 413), size


# What has been sent, and what is answered.
BODIES: dict[str, tuple[bytes, dict[str, Any], tuple[int, str, None]]] = {
    "a batch": (json.dumps([{"query": "{ __typename }"}] * 10).encode(), {}, BAD),
    "a deep filter": (
        b'{"query": "query($w: TaskFilter) { tasks(where: $w) { totalCount } }", "variables": {"w":'
        + b'{"not":' * 900
        + b"{}"
        + b"}" * 902,
        {},
        (400, "BAD_USER_INPUT", None),
    ),
    "a form": (
        b"query=%7B__typename%7D",
        {"content_type": "application/x-www-form-urlencoded"},
        (415, "UNSUPPORTED_MEDIA_TYPE", None),
    ),
    "what unfolds to 50 MB": (
        gzip.compress(b" " * 50_000_000 + b'{"query": "{ __typename }"}'),
        {"content_encoding": "gzip"},
        (415, "UNSUPPORTED_MEDIA_TYPE", None),
    ),
    "an encoding that is none": (
        b'{"query": "{ __typename }"}',
        {"content_encoding": "x"},
        (415, "UNSUPPORTED_MEDIA_TYPE", None),
    ),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_cannot_be_meant_well_is_refused(target: Target, kind: str) -> None:
    content, headers, expected = BODIES[kind]

    with target.little_work():
        response = target.send(content, **headers)

    assert told(response) == expected


HARMLESS: dict[str, tuple[bytes, dict[str, Any]]] = {
    "a key twice": (b'{"query": "mutation { x }", "query": "{ __typename }"}', {}),
    "keys of JavaScript": (
        b'{"query": "{ __typename }", "__proto__": {"a": 1}, "variables": {"__proto__": {"a": 1},'
        b' "constructor": {"prototype": {}}}}',
        {},
    ),
    "a large cookie": (b'{"query": "{ __typename }"}', {"cookie": "a=b;" * 10_000}),
    "many kinds of answers": (
        b'{"query": "{ __typename }"}',
        {"accept": "application/json," + "a/b;q=0.1;" * 5_000},
    ),
    "another host": (
        b'{"query": "{ __typename }"}',
        {"host": "evil.example", "x_forwarded_host": "evil.example"},
    ),
    "wishes to be traced": (
        b'{"query": "{ __typename }"}',
        {"apollo_federation_include_trace": "ftv1", "x_apollo_tracing": "1"},
    ),
}


@pytest.mark.parametrize("kind", HARMLESS)
def test_what_does_no_harm_is_answered_as_ever(target: Target, kind: str) -> None:
    content, headers = HARMLESS[kind]

    response = target.send(content, anonymous=True, **headers)

    assert (response.status_code, response.json()) == (200, {"data": {"__typename": "Query"}})
    assert "set-cookie" not in response.headers
    assert "evil" not in str(response.headers)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/graphql?query=%7B+__typename+%7D", 200),
        ("POST", "/graphql?query=%7B__typename%7D", 415),
        ("GET", "/graphql?query=mutation%7Blogout(input:%7B%7D)%7BuserErrors%7Bcode%7D%7D%7D", 401),
        ("GET", "/graphql", 400),
        ("TRACE", "/graphql", 405),
        ("GET", "/", 404),
        ("GET", "/graphiql", 404),
        ("GET", "/playground", 404),
        ("GET", "/graphiql/../../pyproject.toml", 404),
        ("GET", "/graphql/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "/%ff", 404),
        ("GET", "//evil.example/%2f..", 404),
        ("POST", "/graphql/", 404),
    ],
)
def test_no_other_way_leads_in(target: Target, method: str, path: str, status: int) -> None:
    headers = {"accept": f"text/html, {RESPONSE}", "host": "evil.example"}

    response = target.http.request(method, path, headers=headers)

    assert response.status_code == status
    assert "location" not in response.headers
    assert "<html" not in response.text
    assert response.headers["content-security-policy"] == (
        "default-src 'none'; frame-ancestors 'none'"
    )


INJECTIONS = (
    "'; DROP TABLE users; --",
    "' OR '1'='1",
    "\\'; SELECT pg_sleep(5); --",
    '"; DELETE FROM tasks; --',
    "$1",
    ":name %(name)s %s {0} ${jndi:ldap://evil.example}",
    "%",
    "_",
    "\\",
    "<script>alert(1)</script>",
    "../../../../etc/passwd",
    "$(sleep 5) `sleep 5` | sleep 5",
    "\r\nSet-Cookie: a=b",
    "\u202e\ufeff\U0001f4a9",
    "a" * 255,
)


@pytest.mark.parametrize("text", INJECTIONS)
def test_a_text_is_a_text(target: Target, text: str) -> None:
    made = target.ask(
        "mutation($i: CreateProjectInput!) { createProject(input: $i) { project { name metadata }"
        " userErrors { message } } }",
        i={"name": text, "metadata": {text: text}},
    ).json()["data"]["createProject"]
    assert made == {"project": {"name": text, "metadata": {text: text}}, "userErrors": []}

    found = target.ask(
        "query($t: String!, $m: JSON!) {"
        " a: projects(where: {name: {eq: $t}}) { totalCount }"
        " b: projects(where: {name: {contains: $t, startsWith: $t, in: [$t]}}) { totalCount }"
        " c: projects(where: {metadataContains: $m}) { totalCount }"
        " d: projects(where: {name: {not: $t}, and: [{name: {eq: $t}}]}) { totalCount }"
        " searchMessages(query: $t) { totalCount } }",
        t=text,
        m={text: text},
    ).json()["data"]
    assert [found[name]["totalCount"] for name in "abcd"] == [1, 1, 1, 0]

    refused = target.ask(
        "query($id: ID!, $t: String!) { project(id: $id) { id } node(id: $id) { id }"
        " projects(after: $t) { totalCount } tasks(where: {projectId: {eq: $id}}) { totalCount } }",
        id=text,
        t=text,
    ).json()
    assert {error["extensions"]["code"] for error in refused["errors"]} == {"BAD_USER_INPUT"}
    login = "mutation($t: String!) { login(input: {username: $t, password: $t}) { token } }"
    answer = target.send({"query": login, "variables": {"t": text}}, anonymous=True).json()
    assert answer == {"data": {"login": {"token": None}}}


def test_passwords_that_are_tried_by_aliases_hold_nobody_up(target: Target) -> None:
    tries = "".join(
        f' a{n}: login(input: {{username: "admin", password: "{n}"}}) {{ token }}' for n in range(5)
    )
    with ThreadPoolExecutor(2) as pool:
        trying = [
            pool.submit(target.send, {"query": f"mutation {{{tries} }}"}, anonymous=True)
            for _ in range(2)
        ]
        while not all(one.done() for one in trying):
            assert target.is_well()
    for one in trying:
        tokens = [login and login["token"] for login in one.result().json()["data"].values()]
        assert tokens == [None] * 5


def test_connections_that_say_nothing_hold_nobody_up(target: Target) -> None:
    host, _, port = target.server.url.removeprefix("http://").partition(":")
    with contextlib.ExitStack() as idle:
        for _ in range(300):
            idle.enter_context(socket.create_connection((host, int(port))))

        assert target.is_well()


# Faults within


SECRET = "cannot open /srv/troupe/secret: SELECT password_hash FROM users"


class Broken:
    """Stands where something is called, and fails."""

    def __call__(self, *_: object, **__: object) -> None:
        raise RuntimeError(SECRET)


class BrokenRule(ValidationRule):
    """A rule of validation that fails."""

    def enter_field(self, *_: object) -> None:
        raise RuntimeError(SECRET)


TASKS = "{ tasks { nodes { title } } }"
CREATE = "mutation($i: CreateProjectInput!) { createProject(input: $i) { userErrors { code } } }"
UPDATE = "mutation($i: UpdateProjectInput!) { updateProject(input: $i) { userErrors { code } } }"
INPUT = {"i": {"name": "a", "metadata": {"a": 1}}}
MOMENT = 'query { tasks(where: {createdAt: {gt: "2026-11-22T00:00:00Z"}}) { totalCount } }'

# Where something fails, and what is asked so that it does.
PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "graph.execution.documents.parse": (TASKS, {}),
    "graph.execution.documents.document_size": (TASKS, {}),
    "graph.execution.documents.check_document_size": (TASKS, {}),
    "graph.execution.documents.RULES": (TASKS, {}),
    "graph.limits.rates.Rates.charge": (TASKS, {}),
    "graph.execution.pipeline.check_variables": (CREATE, INPUT),
    "graph.execution.pipeline.cost_of": (TASKS, {}),
    "graph.execution.pipeline.conditions_of": (TASKS, {}),
    "graph.limits.concurrency.RunningOperations.begin": (TASKS, {}),
    "graph.compiler.compile_json": (TASKS, {}),
    "graph.core.filters.Order.attribute": (TASKS, {}),
    "graph.core.connections.Window.cut": (TASKS, {}),
    "graph.core.selections.get_variable_values": (CREATE, INPUT),
    "graph.core.selections.get_argument_values": (MOMENT, {}),
    "db.moments.MOMENT": (MOMENT, {}),
    "graph.core.invalid_values.require_storable": (CREATE, INPUT),
    "graph.core.scalars.parse_key": (UPDATE, {"i": {"id": "x"}}),
    "graph.core.mutations.missing": (CREATE, INPUT),
    "graph.server.responses.orjson": (TASKS, {}),
    "db.projects.Project.create": (CREATE, INPUT),
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_fault_tells_nothing_but_its_id(
    database: db.Database,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    broken: Any = Broken()
    if place.endswith("RULES"):
        broken = (BrokenRule,)
    elif place.endswith("orjson"):
        broken = SimpleNamespace(
            dumps=lambda body: Broken()() if "data" in body else orjson.dumps(body)
        )
    elif place.endswith("MOMENT"):
        broken = SimpleNamespace(fullmatch=Broken())
    elif place.endswith("attribute"):
        broken = property(Broken())
    monkeypatch.setattr(place, broken)
    query, variables = PLACES[place]
    async with serving(database, Settings()) as http:
        response = await people.owner.through(http).send(
            {"query": query, "variables": variables}, accept=RESPONSE
        )

    assert response.status_code in (500, 294), response.text
    (error,) = response.json()["errors"]
    assert error["extensions"] == {"code": "FAULT"}
    told = re.fullmatch(
        "Something went wrong on our side; quote ([0-9a-f]{8}) to have it looked up.",
        error["message"],
    )
    assert told is not None
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.getMessage().startswith(f"fault {told[1]} ")
    assert record.exc_info is not None
    assert SECRET in logging.Formatter().formatException(record.exc_info)
    for word in ("secret", "SELECT", "/srv", "RuntimeError", "Traceback"):
        assert word not in response.text


@pytest.mark.parametrize("compiler", [True, False])
async def test_json_of_very_many_values_is_refused_before_it_is_read(
    database: db.Database, people: People, compiler: bool
) -> None:
    query = "query($j: JSON) { tasks(where: {metadataContains: $j}) { totalCount } }"
    deep = "[" * 20 + "]" * 20
    too_many = [f"[{','.join([deep] * 1_001)}]", f"[{','.join(['1.5e308'] * 20_001)}]"]
    few = [f'["{"[,{" * 30_000}"]', f"[{','.join(['1.5e3'] * 19_000)}]", '["\\\\", "\\","]']
    async with serving(database, Settings(compiler=compiler)) as http:
        headers = {"Content-Type": "application/json"} | people.owner._headers
        for values, status in ((too_many, 413), (few, 200)):
            for value in values:
                body = f'{{"query": "{query}", "variables": {{"j": {value}}}}}'
                response = await http.post("/graphql", content=body, headers=headers)

                assert response.status_code == status, (value[:20], response.text[:300])
                if status == 413:
                    (error,) = response.json()["errors"]
                    assert error["extensions"]["code"] == "TOO_LARGE"
                    assert error["message"].startswith("The body has more than 20,000 values")
