"""What a database can become under a running server: it has other defaults, takes no writes, is
migrated, or cannot go on. Answers stay right, or say what keeps them from being so, and the server
recovers by itself.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import orjson
import pytest
from sqlalchemy import URL, text

import db
from db import engine, migrate
from db.connections import SETTINGS
from tests import processes
from tests.conftest import People
from tests.patience import until
from tests.processes import CLUSTER, Elsewhere, Serving, sql
from tests.test_faults import execute, refusal

ONLY_READS = "The database only reads at the moment. Try again in a moment."
MAKE = """mutation($name: String!) {
  createProject(input: {name: $name}) { project { name } userErrors { code } }
}"""
NAMES = "{ projects(orderBy: CREATED_AT_ASC) { nodes { name } } }"


@asynccontextmanager
async def plain(url: URL) -> AsyncIterator[Any]:
    """A connection that takes part in nothing that the server does with its own."""
    connection = await asyncpg.connect(
        url.set(drivername="postgresql").render_as_string(hide_password=False)
    )
    try:
        yield connection
    finally:
        await connection.close()


async def past(url: URL, *statements: str) -> None:
    """Run statements as somebody beside the server does."""
    async with plain(url) as connection:
        for statement in statements:
            await connection.execute(statement)


async def set_default(url: URL, name: str, value: str) -> None:
    """Give a setting another default in the database, for connections to come."""
    await past(url, f"ALTER DATABASE {url.database} SET {name} = '{value}'")


async def cut(url: URL) -> None:
    """End all connections to the database but one's own, and wait until they have ended."""
    ours = "datname = current_database() AND pid <> pg_backend_pid()"
    await past(url, f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {ours}")


# Defaults

OTHERS = {
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "default_transaction_isolation": "serializable",
    "extra_float_digits": "-10",
    "gin_fuzzy_search_limit": "1",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "1h",
    "intervalstyle": "iso_8601",
    "jit": "on",
    "lock_timeout": "1ms",
    "standard_conforming_strings": "off",
    "statement_timeout": "2h",
    "timezone": "Asia/Kathmandu",
    "transaction_timeout": "3h",
}
PINNED = SETTINGS | {
    "client_encoding": "UTF8",
    "idle_in_transaction_session_timeout": "1min",
    "lock_timeout": "10s",
    "statement_timeout": "30s",
    "timezone": "UTC",
    "transaction_timeout": "0",
}


@pytest.fixture
async def overruled(database_url: URL) -> AsyncIterator[db.Database]:
    """Connections to a database that has other defaults for everything."""
    async with plain(database_url) as connection:
        known = {
            row["name"].lower() for row in await connection.fetch("SELECT name FROM pg_settings")
        }
    for name in OTHERS.keys() & known:
        await set_default(database_url, name, OTHERS[name])
    # What a role has in a database comes before what the database has.
    await past(
        database_url,
        f"ALTER ROLE {database_url.username} IN DATABASE {database_url.database}"
        " SET default_transaction_isolation = 'repeatable read'",
    )
    database = db.Database(database_url)
    yield database
    await database.dispose()


def test_every_setting_that_is_pinned_is_tested() -> None:
    assert PINNED.keys() == OTHERS.keys()


async def test_no_default_of_the_database_or_the_role_matters(overruled: db.Database) -> None:
    settings = f"FROM pg_settings WHERE lower(name) = ANY (ARRAY{sorted(OTHERS)})"
    shown = text(f"SELECT lower(name), current_setting(name) {settings}")
    async with overruled.reader.connect() as reader:
        reads: dict[str, str] = dict(iter(await reader.execute(shown)))
    async with overruled.writer.connect() as writer:
        writes: dict[str, str] = dict(iter(await writer.execute(shown)))
        isolation = await writer.scalar(text("SHOW transaction_isolation"))
    direct = await overruled.json(
        f"SELECT json_object_agg(lower(name), current_setting(name))::text {settings}", []
    )

    expected = {name: PINNED[name] for name in reads}
    assert len(expected) >= len(PINNED) - 1
    assert reads == writes == orjson.loads(direct) == expected
    assert isolation == "read committed"


async def test_migrations_have_no_limits_in_time(database_url: URL) -> None:
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        await set_default(database_url, name, "10s")
    await set_default(database_url, "default_transaction_isolation", "serializable")
    shown = (
        "SELECT current_setting('statement_timeout'), current_setting('transaction_isolation'),"
        " current_setting('idle_in_transaction_session_timeout')"
    )

    found = await migrate.locked(database_url, lambda c: tuple(c.execute(text(shown)).one()))

    assert found == ("0", "read committed", "0")


async def test_who_waits_for_others_sees_what_they_did_whatever_the_isolation_by_default(
    database: db.Database, database_url: URL, people: People
) -> None:
    await set_default(database_url, "default_transaction_isolation", "repeatable read")
    await cut(database_url)
    started = await people.owner.change("startConversation { conversation { id } }", title="Chat")
    id = started["conversation"]["id"]

    async def append(place: int) -> Any:
        message = {"sender": "USER", "content": str(place)}
        answer = await people.owner.change(
            "appendMessages { messages { sequence } userErrors { code } }",
            conversationId=id,
            messages=[message],
        )
        assert answer["userErrors"] == []
        return answer["messages"][0]["sequence"]

    places = await asyncio.gather(*map(append, range(20)))

    assert sorted(places) == list(range(min(places), min(places) + 20))


# A database that takes no writes


async def only_read(url: URL) -> None:
    """Have the database take no writes, and end the connections on which it would."""
    await set_default(url, "default_transaction_read_only", "on")
    await cut(url)


async def write_again(url: URL) -> None:
    """Have the database take writes on connections to come."""
    reset = f"ALTER DATABASE {url.database} RESET default_transaction_read_only"
    await past(url, f"BEGIN READ WRITE; {reset}; COMMIT")


async def readiness(http: httpx.AsyncClient) -> tuple[int, Any]:
    """What `/readyz` says."""
    response = await http.get("/readyz")
    return response.status_code, response.json().get("reason")


async def test_a_database_that_only_reads_is_said_to_and_is_used_again_when_it_writes(
    database: db.Database, database_url: URL, people: People, http: httpx.AsyncClient
) -> None:
    assert (await people.owner.ask(MAKE, name="Before")).data
    await only_read(database_url)

    answers = await asyncio.gather(*(people.owner.ask(MAKE, name="No") for _ in range(5)))
    names = (await people.owner.ask(NAMES)).data["projects"]["nodes"]
    while_reading = await readiness(http)

    told = {"code": "UNAVAILABLE", "retryAfter": 1}
    assert [refusal(answer) for answer in answers] == 5 * [(ONLY_READS, told)]
    assert names == [{"name": "Before"}]
    assert while_reading == (503, "read-only")

    await write_again(database_url)
    # Not before that it is tried again; nobody asks meanwhile.
    await asyncio.sleep(engine.READ_ONLY_SECONDS)
    assert (await people.owner.ask(MAKE, name="After")).data["createProject"]["userErrors"] == []
    answers = await asyncio.gather(*(people.owner.ask(MAKE, name="All") for _ in range(5)))
    assert all(answer.data for answer in answers)
    assert await readiness(http) == (200, None)


async def test_readiness_alone_finds_out_that_the_database_writes_again(
    database: db.Database, database_url: URL, people: People, http: httpx.AsyncClient
) -> None:
    await only_read(database_url)
    assert await readiness(http) == (503, "read-only")

    await write_again(database_url)
    await asyncio.sleep(engine.READ_ONLY_SECONDS)

    assert await readiness(http) == (200, None)


async def test_while_a_database_only_reads_it_is_not_connected_to_all_the_time(
    database: db.Database,
    database_url: URL,
    people: People,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine, "READ_ONLY_SECONDS", 3600)
    await only_read(database_url)
    for _ in range(2):  # the second uses what has replaced the connections of the first
        await people.owner.ask(MAKE, name="No")
        await readiness(http)
    processes_of = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    before = await execute(database, processes_of)

    for _ in range(5):
        assert (await people.owner.ask(MAKE, name="No")).code == "UNAVAILABLE"
        assert (await readiness(http)) == (503, "read-only")

    assert set(await execute(database, processes_of)) == set(before)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")
def test_a_standby_is_read_from_and_written_to_once_it_is_promoted(made: tuple[Path, str]) -> None:
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        elsewhere = Elsewhere(data_dir, database="troupe")
        with elsewhere.running():
            sql(data_dir, f"CREATE ROLE ann SUPERUSER LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        cluster = data_dir / CLUSTER
        signal = cluster / "standby.signal"
        signal.touch()
        shutil.chown(signal, cluster.stat().st_uid, cluster.stat().st_gid)
        with (
            elsewhere.running(),
            Serving(folder, database_url=elsewhere.url(), mode="production") as server,
        ):
            until(lambda: "Ctrl-C stops it." in server.out)
            refused = server.ask(MAKE, made[1], name="No")["errors"][0]
            assert (refused["message"], refused["extensions"]["code"]) == (
                ONLY_READS,
                "UNAVAILABLE",
            )
            assert server.ask(NAMES, made[1])["data"] == {"projects": {"nodes": []}}
            assert server.get("/readyz").json() == {"status": "unavailable", "reason": "read-only"}

            assert sql(data_dir, "SELECT pg_promote()") == "t"

            until(lambda: server.get("/readyz").status_code == 200)
            made_now = server.ask(MAKE, made[1], name="Yes")
            assert made_now["data"]["createProject"]["project"] == {"name": "Yes"}
            assert server.stop().status == 0
            assert "fault" not in server.err


# A database that is migrated


NAME = "ALTER TABLE projects ALTER COLUMN name TYPE varchar({})"
CHANGES = {
    "the type of a column": [NAME.format(300)],
    "a column is added": ["ALTER TABLE projects ADD COLUMN new integer NOT NULL DEFAULT 1"],
    "a column is made anew": [
        "ALTER TABLE projects RENAME COLUMN description TO old",
        "ALTER TABLE projects ADD COLUMN description jsonb",
        "UPDATE projects SET description = old",
        "ALTER TABLE projects DROP COLUMN old",
    ],
    "who looks up who asks": [
        "ALTER TABLE access_tokens ALTER COLUMN token_hash TYPE varchar(200)",
        "ALTER TABLE users ALTER COLUMN role TYPE varchar(200)",
        "ALTER TABLE access_tokens ALTER COLUMN scopes TYPE varchar(77)[]",
    ],
}
PAGE = """{ projects(first: 5) { totalCount nodes {
  name description owner { username } tasks { nodes { title } } } } }"""


async def busy(people: People, count: int, query: str, **variables: Any) -> list[Any]:
    """What as many are answered who ask at the same time, each on a connection."""
    return [
        answer.body
        for answer in await asyncio.gather(
            *(people.owner.ask(query, **variables) for _ in range(count))
        )
    ]


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize("change", CHANGES)
async def test_tables_may_change_beside_the_server(
    database: db.Database,
    database_url: URL,
    people: People,
    resolvers: People,
    caplog: pytest.LogCaptureFixture,
    change: str,
    compiler: bool,
) -> None:
    asked = people if compiler else resolvers
    made = {"data": {"createProject": {"project": {"name": "A"}, "userErrors": []}}}
    for _ in range(2):
        assert await busy(asked, 5, MAKE, name="A") == 5 * [made]
    page = (await busy(asked, 5, PAGE))[0]
    await past(database_url, *CHANGES[change])

    assert await busy(asked, 5, PAGE) == 5 * [page]
    assert await busy(asked, 5, MAKE, name="A") == 5 * [made]
    assert await execute(database, "SELECT count(*) FROM projects") == [15]
    assert caplog.text.count("connections to the database are replaced") <= 1


UPDATE = """mutation($id: ID!, $name: String!) {
  updateProject(input: {id: $id, name: $name}) { project { name version } userErrors { code } }
}"""
PLACES = {
    "the first statement": [NAME.format(300)],
    "a later statement": ["ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)"],
    "statements of two kinds": [
        NAME.format(300),
        "ALTER TABLE tasks ALTER COLUMN title TYPE varchar(300)",
    ],
}
TASKS = """mutation($id: ID!, $task: ID!) {
  updateTask(input: {id: $task, title: "Dig"}) { task { title } userErrors { code } }
  createTask(input: {projectId: $id, title: "Build", dependsOn: [$task]}) {
    task { title } userErrors { code }
  }
}"""


@pytest.mark.parametrize("place", PLACES)
async def test_a_mutation_is_run_again_wherever_it_comes_upon_what_has_changed(
    database: db.Database, database_url: URL, people: People, place: str
) -> None:
    project = (await people.owner.change("createProject { project { id } }", name="P"))["project"]
    task = (
        await people.owner.change(
            "createTask { task { id } }", projectId=project["id"], title="Dig"
        )
    )["task"]
    variables = {"id": project["id"], "task": task["id"]}
    before = (await people.owner.ask(TASKS, **variables)).data
    await people.owner.ask(TASKS, **variables)
    await past(database_url, *PLACES[place])

    assert (await people.owner.ask(TASKS, **variables)).data == before
    assert await execute(database, "SELECT count(*) FROM tasks") == [4]
    one = (await people.owner.ask(UPDATE, id=project["id"], name="Q")).data["updateProject"]
    assert one == {"project": {"name": "Q", "version": 2}, "userErrors": []}


async def test_what_is_outdated_again_and_again_is_told_and_not_run_for_ever(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = 0

    async def create(session: Any, **_: Any) -> None:
        nonlocal runs
        runs += 1
        # Another type for the same statement each time: outdated on any connection.
        for kind in ("integer", "text"):
            await session.execute(text(f"CREATE TEMPORARY TABLE changing (a {kind})"))
            await session.execute(text("SELECT * FROM changing"))
            await session.execute(text("DROP TABLE changing"))

    monkeypatch.setattr(db.Project, "create", create)

    answer = await people.owner.ask(MAKE, name="No")

    message = "The database's tables are being changed. Try again in a moment."
    assert refusal(answer) == (message, {"code": "UNAVAILABLE", "retryAfter": 1})
    assert runs == 2


async def test_a_type_may_change_that_the_driver_has_read(database: db.Database) -> None:
    await execute(
        database,
        "CREATE TYPE pair AS (a integer, b integer)",
        "CREATE TABLE pairs (value pair)",
        "INSERT INTO pairs VALUES ((1, 2))",
    )
    statement = "SELECT value FROM pairs"
    async with database.read() as session:
        assert tuple(await session.scalar(text(statement))) == (1, 2)
    before: Any = await database.json(statement, [])
    assert tuple(before) == (1, 2)
    await past(database.url, "ALTER TYPE pair ADD ATTRIBUTE c integer CASCADE")

    after: Any = await database.json(statement, [])
    assert tuple(after) == (1, 2, None)
    async with database.read() as session:
        assert tuple(await session.scalar(text(statement))) == (1, 2, None)


# What a database says when it cannot go on


async def test_a_database_that_lets_nobody_in_is_unavailable_until_it_does(
    server: URL, database_url: URL, people: People, resolvers: People, http: httpx.AsyncClient
) -> None:
    assert (await people.owner.ask(MAKE, name="Before")).data
    alter = f"ALTER DATABASE {database_url.database} ALLOW_CONNECTIONS"
    ours = f"datname = '{database_url.database}'"
    end = f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {ours}"
    await past(server, f"{alter} false", end)

    message = "The database cannot be reached. Try again in a moment."
    for client in (people.owner, resolvers.owner):
        answer = await client.ask(NAMES)
        assert refusal(answer) == (message, {"code": "UNAVAILABLE", "retryAfter": 1})
    assert await readiness(http) == (503, "database")

    await past(server, f"{alter} true")
    assert (await people.owner.ask(MAKE, name="After")).data
    assert await readiness(http) == (200, None)


@pytest.mark.parametrize("query", [NAMES, MAKE])
async def test_a_connection_that_ends_as_soon_as_it_is_open_is_no_fault(
    database: db.Database, resolvers: People, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    execute = asyncpg.Connection.execute

    async def last(connection: Any, *words: Any, **more: Any) -> None:
        await execute(connection, *words, **more)
        connection.terminate()

    name = {"name": "No"} if query == MAKE else {}
    await resolvers.owner.ask(query, **name)
    engine_of = database.writer if query == MAKE else database.reader
    await engine_of.dispose()
    monkeypatch.setattr(asyncpg.Connection, "execute", last)

    answer = await resolvers.owner.ask(query, **name)

    message = "The database cannot be reached. Try again in a moment."
    assert refusal(answer) == (message, {"code": "UNAVAILABLE", "retryAfter": 1})


RAISE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '{}'; END$$
"""
REFUSE = "CREATE TRIGGER refuse BEFORE INSERT ON projects EXECUTE FUNCTION refuse()"
SAID = {
    "25006": ("UNAVAILABLE", 1),
    "40001": ("OVERLOADED", 1),
    "40P01": ("OVERLOADED", 1),
    "55P03": ("OVERLOADED", 1),
    "53200": ("OVERLOADED", 1),
    "53300": ("OVERLOADED", 1),
    "53400": ("BAD_USER_INPUT", None),
    "54001": ("BAD_USER_INPUT", None),
    "57014": ("TIMEOUT", None),
    "25P04": ("TIMEOUT", None),
    "25P03": ("UNAVAILABLE", 1),
    "57P01": ("UNAVAILABLE", 1),
    "57P02": ("UNAVAILABLE", 1),
    "57P03": ("UNAVAILABLE", 1),
    "57P05": ("UNAVAILABLE", 1),
    "58000": ("UNAVAILABLE", 1),
    "58030": ("UNAVAILABLE", 1),
    "58P01": ("UNAVAILABLE", 1),
    "0A000": ("FAULT", None),
    "XX000": ("FAULT", None),
}


@pytest.mark.parametrize("state", SAID)
async def test_what_the_database_says_is_told_in_words_and_nothing_is_done(
    database: db.Database, people: People, state: str
) -> None:
    await execute(database, RAISE.format(state), REFUSE)

    message, told = refusal(await people.owner.ask(MAKE, name="No"))

    code, after = SAID[state]
    assert told == {"code": code} | ({} if after is None else {"retryAfter": after})
    assert "secret" not in message
    assert await execute(database, "SELECT count(*) FROM projects") == [0]
