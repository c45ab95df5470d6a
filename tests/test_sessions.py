"""Sessions: few at once, never held for another, and an answer when the database has none to give.

And what cannot be stored or means nothing is refused before it gets there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from sqlalchemy import URL, select, text

import db
from db import engine, poolers
from db.writes import insert_many
from graph.core.access import SESSIONS_AT_ONCE, HoldingSession
from graph.core.context import Context
from graph.core.loaders import Loaders
from graph.settings import Settings
from tests import factories
from tests.client import Answer, Client, counted
from tests.conftest import ADMIN, People, serving
from tests.operations import read_operation
from tests.patience import PATIENCE, becomes


async def test_a_mutation_of_one_statement_needs_no_session_of_sqlalchemy(
    database: db.Database,
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await factories.make_project(session, None)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        id = await session.insert(db.Task, {"project_id": project.id, "title": "One"})
        assert not session.has_begun
        assert "sync_session" not in vars(session)
        assert (await db.Task.get(session, id)).title == "One"
        assert session.has_begun


@pytest.fixture
def context(database: db.Database) -> Context:
    """The context of an operation, as a resolver gets it."""
    context = Context(database, db.Viewer(is_administrator=True))
    context.operation = read_operation("{ __typename }")
    context.loaders = Loaders(context, context.operation)
    return context


async def test_nothing_is_loaded_while_a_session_is_held(context: Context) -> None:
    id = db.new_id()

    async with context.read():
        with pytest.raises(HoldingSession):
            await context.loaders.row(db.Project.id, id)
        with pytest.raises(HoldingSession):
            async with context.read():
                pass
        with pytest.raises(HoldingSession):
            await context.write(db.Right.EDIT, AsyncMock())

    async def work(_: db.WriteSession) -> None:
        with pytest.raises(HoldingSession):
            await context.loaders.row(db.Project.id, id)
        with pytest.raises(HoldingSession):
            async with context.read():
                pass

    await context.write(db.Right.EDIT, work)

    assert await context.loaders.row(db.Project.id, id) is None


async def test_the_catalog_is_asked_once_for_a_type_that_each_database_has(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poolers, "_types", {})
    async with database.write(ADMIN) as session:
        await session.execute(text("CREATE TYPE mood AS ENUM ('fine')"))
    asked: list[str] = []

    def note(sent: Any) -> None:
        if "typeinfo" in sent.query:
            asked.append(current)

    for number in range(3):
        connection = await database.open()
        connection.add_query_logger(note)
        for current, value in ("int2", number), ("mood", "fine"):
            assert await connection.fetchval(f"SELECT $1::{current}[]", [value]) == [value]
        await connection.close()
    # Another database may have other types with the ids of its own ones.
    assert asked == ["int2", "mood", "mood", "mood"]


async def test_a_session_holds_up_nobody_but_its_holder(context: Context) -> None:
    held, done = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with context.read():
            held.set()
            await done.wait()

    holder = asyncio.create_task(hold())
    await held.wait()

    assert await context.loaders.row(db.Project.id, db.new_id()) is None
    done.set()
    await holder


async def test_an_operation_has_at_most_four_sessions_at_once(
    database: db.Database, resolvers: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    now = 0
    read = database.read

    @asynccontextmanager
    async def noted() -> AsyncIterator[db.ReadSession]:
        nonlocal now
        now += 1
        held.append(now)
        await asyncio.sleep(0.01)
        async with read() as session:
            yield session
        now -= 1

    monkeypatch.setattr(database, "read", noted)
    pages = " ".join(
        f"p{place}: projects(first: {place}) {{ nodes {{ id }} }}" for place in range(20)
    )

    answer = await resolvers.owner.ask(f"{{ {pages} }}")

    assert len(answer.data) == len(answer.statements) == 20
    assert len(held) == 20
    assert max(held) == SESSIONS_AT_ONCE == 4


@asynccontextmanager
async def locked(url: URL, table: str) -> AsyncIterator[None]:
    """Keeps everybody from reading a table."""
    other = db.Database(url, pool_size=1)
    try:
        async with other.write(db.Viewer()) as session:
            await session.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            yield
    finally:
        await other.dispose()


async def waiting(database: db.Database, count: int) -> list[int]:
    """The processes of PostgreSQL that wait for a lock, as soon as there are so many."""
    statement = text(
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    async def are_waiting() -> list[int]:
        async with database.read() as session:
            found = list(await session.scalars(statement))
        return found if len(found) >= count else []

    return await becomes(are_waiting)


BUSY = "All connections to the database are busy. Try again in a moment."


async def test_an_exhausted_pool_is_an_answer_after_three_seconds(
    database: db.Database, database_url: URL, people: People
) -> None:
    small = db.Database(database_url, pool_size=2)
    page = "{}: projects(first: {}) {{ nodes {{ id }} }}"
    pages = " ".join(page.format(f"p{place}", place) for place in range(3))
    async with serving(small, Settings(compiler=False)) as http, locked(database_url, "projects"):
        # Two pages wait for the lock; the third waits for a connection, and in vain.
        async with asyncio.timeout(PATIENCE):
            answer = await people.owner.through(http).ask(f"{{ {pages} }}")
    await small.dispose()
    assert answer.code == "OVERLOADED"
    assert answer.errors[0]["message"] == BUSY
    assert engine.POOL_TIMEOUT == 3


@pytest.mark.parametrize("query", ["{ me { id } }", "{ __typename }", "{ broken"])
async def test_who_finds_no_connection_to_be_known_by_is_told_so(
    database_url: URL, people: People, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(engine, "POOL_TIMEOUT", 0.2)
    small = db.Database(database_url, pool_size=1)
    async with serving(small, Settings()) as http:
        await small._by_key._wait_until_free()  # nobody gives the connection back

        answer = await people.owner.through(http).ask(query)

    await small.dispose()
    assert answer.code == ("BAD_REQUEST" if "broken" in query else "OVERLOADED")
    assert "data" not in answer.body


async def test_as_many_as_can_wait_are_all_answered(database_url: URL, people: People) -> None:
    small = db.Database(database_url, pool_size=3)
    async with serving(small, Settings(compiler=False)) as http:
        client = people.owner.through(http)
        query = (
            "{ a: projects { totalCount nodes { tasks { totalCount } } } b: tasks { totalCount } }"
        )

        answers = await asyncio.wait_for(
            asyncio.gather(*(client.ask(query) for _ in range(30))), 30
        )

    await small.dispose()
    assert {answer.text for answer in answers} == {
        '{"data":{"a":{"totalCount":0,"nodes":[]},"b":{"totalCount":0}}}'
    }


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_statement_that_is_cancelled_was_too_slow(
    database: db.Database, database_url: URL, people: People, resolvers: People, compiler: bool
) -> None:
    client = (people if compiler else resolvers).owner
    async with locked(database_url, "projects"):
        asked = asyncio.create_task(client.ask("{ projects { nodes { id } } }"))
        (process,) = await waiting(database, 1)
        async with database.read() as session:
            await session.execute(text("SELECT pg_cancel_backend(:pid)"), {"pid": process})
        answer = await asked

    assert answer.code == "TIMEOUT"
    assert answer.body.get("data") is None
    assert "SELECT" not in answer.text
    assert (await client.ask("{ projects { totalCount } }")).data


async def test_what_is_waited_for_a_connection_is_of_an_operations_time(
    database: db.Database, database_url: URL, people: People
) -> None:
    small = db.Database(database_url, pool_size=1)
    query = "{ projects { nodes { id } } }"
    async with serving(small, Settings(max_seconds=2)) as http:
        first, second = people.owner.through(http), people.admin.through(http)
        assert (await first.ask(query)).data
        async with locked(database_url, "projects"):
            before = asyncio.create_task(first.ask(query))
            await waiting(database, 1)
            async with asyncio.timeout(PATIENCE):  # the first one holds the only connection
                answer = await second.ask(query)
            await before

    await small.dispose()
    assert answer.code == "TIMEOUT"


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_connection_that_breaks_is_an_answer_and_the_next_works(
    database: db.Database, database_url: URL, people: People, resolvers: People, compiler: bool
) -> None:
    client = (people if compiler else resolvers).owner
    async with locked(database_url, "projects"):
        asked = asyncio.create_task(client.ask("{ projects { nodes { id } } }"))
        (process,) = await waiting(database, 1)
        async with database.read() as session:
            await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": process})
        answer = await asked

    assert answer.code == "UNAVAILABLE"
    assert "SELECT" not in answer.text
    assert (await client.ask("{ projects { totalCount } }")).data


NUL = "a text contains a NUL character (\\u0000), which cannot be stored"
DOCUMENTS = {
    "a literal": '{ projects(where: {name: {eq: "a\\u0000"}}) { totalCount } }',
    "a literal with braces": '{ projects(where: {name: {eq: "a\\u{0}"}}) { totalCount } }',
    "an id": '{ project(id: "\\u0000") { id } }',
    "a url": '{ conversationByUrl(url: "\\u0000") { id } }',
    "a cursor": '{ projects(after: "\\u0000") { totalCount } }',
    "a variable": "query($v: String!) { projects(where: {name: {eq: $v}}) { totalCount } }",
    "JSON": "query($v: JSON!) { projects(where: {metadataContains: $v}) { totalCount } }",
    "a default": """query($d: String! = "\\u0000") {
        projects(where: {name: {eq: $d}}) { totalCount } }""",
}


PLACES = {
    "an id": "id` of `project",
    "a url": "url` of `conversationByUrl",
    "a cursor": "after` of `projects",
    "JSON": "where.metadataContains` of `projects",
}


async def test_a_nul_is_refused_before_it_reaches_the_database(
    people: People, resolvers: People
) -> None:
    for kind, query in DOCUMENTS.items():
        for client in (people.owner, resolvers.owner):
            answer = await client.ask(query, **({"v": "a\0"} if "$v" in query else {}))

            assert answer.code == "BAD_USER_INPUT", kind
            place = PLACES.get(kind, "where.name.eq` of `projects")
            assert answer.errors[0]["message"] == f"`{place}` cannot be used: {NUL}.", kind
            assert answer.statements == [], kind


async def test_a_nul_is_found_wherever_it_is_in_json(people: People) -> None:
    for value in ({"a\0": 1}, [["\0"]], {"a": {"b": [1, {"c": "\0"}]}}, "\0"):
        answer = await people.owner.ask(
            "query($v: JSON!) { projects(where: {metadataContains: $v}) { totalCount } }", v=value
        )

        assert answer.code == "BAD_USER_INPUT", value
        assert NUL in answer.errors[0]["message"], value


async def test_a_nul_in_a_literal_of_json_is_refused(people: People) -> None:
    answer = await people.owner.ask(
        '{ projects(where: {metadataContains: {a: ["\\u0000"]}}) { totalCount } }'
    )

    assert answer.code == "BAD_USER_INPUT"
    place = "`where.metadataContains` of `projects`"
    assert answer.errors[0]["message"] == f"{place} cannot be used: {NUL}."


@pytest.mark.parametrize(
    ("variables", "count"), [({"v": 1}, 1), ({"v": None}, 0), ({"v": [1]}, 0), ({}, 2)]
)
async def test_a_variable_may_stand_in_a_literal_of_json(
    database: db.Database, people: People, variables: dict[str, Any], count: int
) -> None:
    async with database.write(db.Viewer()) as session:
        for value in (1, 2):
            metadata = {"a": {"b": value}}
            owner = people.users["owner"]
            await factories.make_project(session, owner, project_metadata=metadata)

    answer = await people.owner.ask(
        "query($v: JSON) { projects(where: {metadataContains: {a: {b: $v}}}) { totalCount } }",
        **variables,
    )

    assert answer.data == {"projects": {"totalCount": count}}


async def test_half_of_a_surrogate_pair_is_refused(
    database: db.Database, people: People, http: httpx.AsyncClient
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_token(session, "token", people.users["owner"])
    query = "query($v: JSON) { projects(where: {metadataContains: $v}) { totalCount } }"
    for body in (
        f'{{"query": "{query}", "variables": {{"v": "\\ud800"}}}}',
        f'{{"query": "{query}", "variables": {{"v": {{"\\udfff": 1}}}}}}',
        '{"query": "{ projects(where: {name: {eq: \\"\\ud800\\"}}) { totalCount } }"}',
    ):
        response = await http.post(
            "/graphql",
            content=body,
            headers={"authorization": "Bearer token", "content-type": "application/json"},
        )

        (error,) = response.json()["errors"]
        assert "half of a surrogate pair" in error["message"]
        assert "data" not in response.json()
    escaped = await people.owner.ask('{ projects(where: {name: {eq: "\\ud800"}}) { totalCount } }')
    assert escaped.code == "BAD_REQUEST"
    assert escaped.errors[0]["message"].startswith("Syntax Error: Invalid Unicode escape sequence")
    pair = await people.owner.ask(
        '{ projects(where: {name: {eq: "\\ud83d\\ude80"}}) { totalCount } }'
    )
    assert pair.data == {"projects": {"totalCount": 0}}


async def refused(client: Client, kind: str, where: str, value: Any) -> list[Answer]:
    """What is answered to a value, as a variable and as a literal."""
    literal = json.dumps(value)
    return [
        await client.ask(f"query($v: {kind}) {{ {where % '$v'} {{ totalCount }} }}", v=value),
        await client.ask(f"{{ {where % literal} {{ totalCount }} }}"),
    ]


NAIVE = "write a date and a time with its time zone"
NEVER = "there is no such time"
NO_MOMENTS: list[tuple[Any, str]] = [
    ("2026-01-01T00:00:00", NAIVE),
    ("2026-01-01", NAIVE),
    ("20260101T000000Z", NAIVE),
    ("2026-W01-1T00:00Z", NAIVE),
    ("infinity", NAIVE),
    (1767225600, NAIVE),
    ("2026-02-30T00:00:00Z", NEVER),
    ("2026-01-01T24:00:01Z", NEVER),
    ("0000-12-31T23:59:59Z", NEVER),
]


async def test_a_moment_has_to_be_one_and_say_its_time_zone(people: People) -> None:
    for value, sentence in NO_MOMENTS:
        answers = await refused(
            people.owner, "DateTime!", "projects(where: {createdAt: {gt: %s}})", value
        )
        for answer in answers:
            assert answer.code == "BAD_USER_INPUT", value
            assert "DateTime cannot represent" in answer.errors[0]["message"], value
            assert sentence in answer.errors[0]["message"], value


BEYOND = {
    "1e400": "it is beyond 1.8e308",
    "-1e400": "it is beyond 1.8e308",
    "1" * 310: "it is beyond 1.8e308",
    "1e99999999999999999999": "it is beyond 1.8e308",
    "1e-1000": "a number has more than 1,000 digits",
    "0e1000": "a number has more than 1,000 digits",
    "0." + "1" * 1001: "a number has more than 1,000 digits",
}


@pytest.mark.parametrize("number", BEYOND, ids=lambda number: number[:12])
async def test_a_number_that_cannot_be_stored_is_refused_with_its_place(
    database: db.Database, people: People, http: httpx.AsyncClient, number: str
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_token(session, "token", people.users["owner"])
    field = "projects(where: {metadataContains: %s}) { totalCount }"
    query = f"query($v: JSON) {{ {field % '$v'} }}"
    answers = [
        await http.post(
            "/graphql",
            content=f'{{"query": {json.dumps(asked)}, "variables": {{"v": {{"a": {number}}}}}}}',
            headers={"authorization": "Bearer token", "content-type": "application/json"},
        )
        for asked in (query, f"{{ {field % f'{{a: {number}}}'} }}")
    ]
    for answer in answers:
        (error,) = answer.json()["errors"]
        assert error["extensions"]["code"] == "BAD_USER_INPUT", error
        assert error["message"].startswith("`where.metadataContains` of `projects` cannot be used")
        assert error["message"].endswith(f"{BEYOND[number]}.")


async def test_many_rows_are_one_insert_whatever_the_order_of_their_values(
    database: db.Database, admin: db.User
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await factories.make_project(session, admin)
    values = {"project_id": project.id, "title": "Dig", "priority": 5, "task_metadata": {"k": [1]}}
    # In another order, and some with gaps that Python fills.
    rows = [values, dict(reversed(values.items())), {"title": "Dig", "project_id": project.id}]
    rows = [{"available_at": factories.START} | row for row in rows]
    rows.append(dict(reversed(rows[0].items())))

    with counted(database) as statements:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            await insert_many(session, db.Task, rows)

    assert len(statements) == 1
    async with database.read() as session:
        stored = (await session.scalars(select(db.Task))).all()
    assert sorted(task.priority for task in stored) == [3, 5, 5, 5]
    assert {task.title for task in stored} == {"Dig"}
