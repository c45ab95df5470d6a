"""The log: a line for each operation, every fault with its id, and nobody's secret."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from graph.execution import logs
from graph.settings import Settings
from tests import factories, processes
from tests.conftest import People, serving
from tests.processes import Serving


class Lines(logging.Handler):
    """Keeps what would be written, in both forms."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: list[dict[str, Any]] = []
        self.readable: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.objects.append(json.loads(logs.JSONLines().format(record)))
        self.readable.append(logs.ReadableLines().format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What is logged in the test."""
    handler = Lines()
    loggers = (logging.getLogger("troupe"), logs.operations)
    level, propagate = loggers[0].level, logs.operations.propagate
    loggers[0].setLevel(logging.INFO)
    logs.operations.propagate = False
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
    loggers[0].setLevel(level)
    logs.operations.propagate = propagate


QUERY = "query Names($first: Int) { projects(first: $first) { nodes { name } } }"


async def test_an_operation_is_a_line(
    database: db.Database, people: People, resolvers: People, lines: Lines
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=3)
    body = {"query": QUERY, "variables": {"first": 2}}

    planned = await people.owner.send(body, **{"x-request-id": "mine"})
    resolved = await resolvers.owner.send(body)

    assert planned.json() == resolved.json()
    digest = hashlib.sha256(QUERY.encode()).hexdigest()
    first, second = lines.objects
    assert first.pop("time") < second.pop("time")
    assert 0 < first.pop("milliseconds") < 60_000
    assert first == {
        "level": "INFO",
        "logger": "troupe.operations",
        "message": "operation",
        "request": "mine",
        "transport": "http",
        "kind": "query",
        "operation": "Names",
        "hash": digest,
        "viewer": f"user:{people.users['owner'].id}",
        "status": 200,
        "codes": [],
        # The token's row, and the answer.
        "statements": 2,
        "rows": 2,
    }
    assert (second["statements"], second["rows"]) == (2, 4)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d INFO operation request=mine transport=http kind=query operation=Names"
        rf" hash={digest} viewer=user:\S+ status=200 milliseconds=[\d.]+ statements=2 rows=2",
        lines.readable[0],
    )


async def test_what_loaders_read_is_counted_too(
    database: db.Database, people: People, resolvers: People, lines: Lines
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=3)

    answer = await resolvers.owner.ask("{ projects { nodes { tasks { totalCount } } } }")

    assert lines.objects[0]["statements"] == len(answer.statements) + 1


REFUSALS: dict[str, tuple[Any, dict[str, Any]]] = {
    "no JSON": (b"{", {"message": "refused", "status": 400, "codes": ["BAD_REQUEST"]}),
    "a syntax error": (
        {"query": "query Secret {"},
        {"message": "operation", "status": 400, "codes": ["BAD_REQUEST"], "operation": None},
    ),
    "a hash that is none": (
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "\nforged line"}}},
        {"status": 200, "codes": ["PERSISTED_QUERY_NOT_FOUND"], "hash": None},
    ),
    "a secret as a hash": (
        {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "troupe_" + "x" * 43}}},
        {"status": 200, "codes": ["PERSISTED_QUERY_NOT_FOUND"], "hash": None},
    ),
    "a hash that is no object": (
        {"extensions": {"persistedQuery": ["x"]}},
        {"status": 400, "codes": ["BAD_REQUEST"], "hash": None},
    ),
    "an unknown name": (
        {"query": "query A { __typename }", "operationName": "\nforged line"},
        {"status": 400, "codes": ["BAD_REQUEST"], "operation": None},
    ),
    "a partial success": (
        {"query": 'query A { me { id } project(id: "?") { id } }'},
        {"status": 294, "codes": ["BAD_USER_INPUT"], "operation": "A"},
    ),
    "a mutation": (
        {"query": 'mutation M { createProject(input: {name: ""}) { userErrors { code } } }'},
        {"status": 200, "codes": [], "operation": "M", "kind": "mutation"},
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_what_is_refused_is_a_line_too(people: People, lines: Lines, kind: str) -> None:
    body, expected = REFUSALS[kind]

    await people.owner.send(body, accept="application/graphql-response+json")

    (line,) = lines.objects
    assert {name: line[name] for name in expected} == expected
    assert "\n" not in lines.readable[0]


async def test_who_is_not_known_has_no_name(http: httpx.AsyncClient, lines: Lines) -> None:
    await http.post(
        "/graphql", json={"query": "query Me { me { id } }"}, headers={"x-request-id": "a\nb"}
    )

    (line,) = lines.objects
    assert (line["viewer"], line["operation"], line["codes"]) == (None, None, ["UNAUTHENTICATED"])
    assert re.fullmatch("[0-9a-f]{16}", line["request"])


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_fault_of_the_database_is_logged_in_full_and_told_to_nobody(
    database: db.Database, people: People, lines: Lines, compiler: bool
) -> None:
    async with database.write(db.Viewer()) as session:
        await session.execute(text("ALTER TABLE projects RENAME COLUMN name TO gone"))
    async with serving(database, Settings(compiler=compiler)) as http:
        response = await people.owner.through(http).send(
            {"query": '{ projects(where: {name: {eq: "my secret"}}) { nodes { name } } }'}
        )

    for word in ("gone", "projects_1.name", "SELECT", "asyncpg", "projects_1", "UndefinedColumn"):
        assert word not in response.text
    told = re.search(r"quote ([0-9a-f]{8}) to", response.text)
    assert told is not None
    fault, operation = lines.objects
    assert fault["fault"] == told[1]
    assert fault["request"] == operation["request"] == response.headers["x-request-id"]
    assert "UndefinedColumn" in fault["exception"]
    assert "SELECT" in fault["exception"]
    assert "my secret" not in "".join([str(lines.objects), *lines.readable])
    assert operation["codes"] == ["FAULT"]


def test_a_token_and_the_values_of_a_row_are_never_written(lines: Lines) -> None:
    token = "troupe_" + "aB3-_" * 8 + "xyz"
    message = f"{token} was bad\nDETAIL:  Failing row contains (1, $argon2id$secret)."
    try:
        raise ValueError(message)
    except ValueError:
        logging.getLogger("troupe").exception("it came with %s", token)

    written = str(lines.objects) + lines.readable[0]
    assert "aB3" not in written
    assert "secret" not in written
    assert lines.objects[0]["message"] == "it came with troupe_…"
    assert "ValueError: troupe_… was bad" in lines.readable[0]


def test_the_lines_of_production_are_json_and_hold_no_secret(made: tuple[Path, str]) -> None:
    with processes.place() as folder:
        data_dir, token = processes.copied(made[0], folder / "data"), made[1]
        with Serving(folder, data_dir=data_dir, mode="production") as server:
            server.ready()
            assert server.ask("query Me { me { username } }", token)["data"]
            wrong = "troupe_" + "x" * 43
            assert processes.code(server.ask("{ me { id } }", wrong)) == "UNAUTHENTICATED"
            secrets = {"password": "hunter2", "token": token}
            server.ask(
                "query($v: JSON!) { projects(where: {metadataContains: $v}) { totalCount } }",
                token,
                v=secrets,
            )
            server.get(f"/graphql?query={{__typename}}&access_token={token}")
            server.get("/nothing")
            assert server.stop().clean
            out = server.out

    started, *all_written, stopping, stopped = map(json.loads, out.splitlines())
    assert {line["logger"] for line in (started, stopping, stopped)} == {"troupe.server"}
    assert started["message"].startswith("Troupe serves http://127.0.0.1:")
    assert (stopping["message"], stopped["message"]) == ("stopping", "stopped")
    written = [line for line in all_written if line["message"] == "operation"]
    assert written == all_written
    assert [line["operation"] for line in written] == ["Me", None, None, None]
    assert [line["status"] for line in written] == [200] * 4
    assert written[0]["viewer"].startswith("user:")
    for secret in (token, wrong, "hunter2", "x" * 43):
        assert secret not in out


def test_lines_of_operations_can_be_left_out(made: tuple[Path, str]) -> None:
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir, log_operations="false") as server:
            server.ready().ask("{ me { id } }")
            assert server.stop().clean
            printed = re.sub(r"^\d\d:\d\d:\d\d ", "", server.out, flags=re.MULTILINE)
            stop = "Ctrl-C stops it.\nINFO stopping draining=0\nINFO stopped\n"
            assert printed.endswith(stop)
