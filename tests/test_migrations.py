"""Migrations: there and back with rows in every table, and never in another's way."""

from __future__ import annotations

import asyncio
import importlib
import re
import shutil
import uuid
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, make_url, pool, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine

import db
from db import connections, migrate, sweeper
from db.events import triggers
from tests import factories
from tests.conftest import ADMIN, People, _on_server
from tests.processes import CODE
from tests.world import make_whole_world, make_world, snapshot, stored

# Everything that a schema consists of, in words that do not depend on how it came about.
CATALOGUE = {
    "columns": "SELECT attrelid::regclass || '.' || attname || ' '"
    " || format_type(atttypid, atttypmod) || ' ' || attnotnull || ' ' || attgenerated::text || ' '"
    " || coalesce(pg_get_expr(adbin, adrelid), '') FROM pg_attribute"
    " JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum ="
    " attnum WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0"
    " AND NOT attisdropped",
    "constraints": "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)"
    " FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
    "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "relations": "SELECT relname || ' ' || relkind::text FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace",
    # Drafts of functions are indented.
    "functions": "SELECT regexp_replace(pg_get_functiondef(oid), '\\s+', ' ', 'g') FROM pg_proc"
    " WHERE pronamespace = 'public'::regnamespace",
    "triggers": "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal",
    "types": "SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace",
}


# Alembic's own table, and the partitions of the event log, which the server makes and drops.
OTHERS = re.compile(r"alembic_version|events_(\d{4}_\d\d_\d\d|default)")


async def catalogue(url: URL) -> dict[str, list[str]]:
    """The schema of a database."""
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        found = {
            kind: sorted(row for row in await connection.scalars(text(query)))
            for kind, query in CATALOGUE.items()
        }
    await engine.dispose()
    return {kind: [row for row in rows if not OTHERS.search(row)] for kind, rows in found.items()}


async def revision(url: URL) -> str | None:
    """The revision that a database is at."""
    found: str | None = await migrate.locked(url, migrate.current)
    return found


@pytest.fixture
async def empty(server: URL) -> AsyncIterator[URL]:
    """A database without a schema."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _on_server(server, f"CREATE DATABASE {name} STRATEGY FILE_COPY")
    yield server.set(database=name)
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


def test_migrations_form_one_line_and_each_is_named() -> None:
    scripts = ScriptDirectory.from_config(migrate.config())
    revisions = list(scripts.walk_revisions())

    assert len(scripts.get_heads()) == 1
    for script in revisions:
        assert (script.doc or "").endswith("."), script.revision
        assert script.path.split("/")[-1].startswith(f"{script.revision}_")
    assert [script.revision for script in reversed(revisions)] == [
        f"{number:04}" for number in range(1, len(revisions) + 1)
    ]


async def test_each_migration_goes_down_and_up_with_rows_in_every_table(
    database: db.Database, database_url: URL, http: httpx.AsyncClient, people: People
) -> None:
    await make_whole_world(database, http, people)
    key = {"name": "Mars base", "idempotencyKey": "k"}
    await people.owner.change("createProject { project { id } }", **key)
    assert [table for table, rows in (await snapshot(database)).items() if not rows] == []
    await database.dispose()
    before = await catalogue(database_url)
    scripts = ScriptDirectory.from_config(migrate.config())

    for script in scripts.walk_revisions():
        await migrate.downgrade(database_url, "-1")
        assert await revision(database_url) == script.down_revision
    bottom = await catalogue(database_url)
    for script in reversed(list(scripts.walk_revisions())):
        assert await migrate.upgrade(database_url, script.revision) is True

    assert bottom == {kind: [] for kind in CATALOGUE}
    assert await catalogue(database_url) == before
    assert await migrate.upgrade(database_url) is False
    assert {table: rows for table, rows in (await snapshot(database)).items() if rows} == {}


async def test_leases_are_kept_there_and_back(
    database: db.Database, database_url: URL, http: httpx.AsyncClient, people: People
) -> None:
    await make_whole_world(database, http, people)
    query = "SELECT attempt_id, task_id, agent_id, expires_at, heartbeat_at FROM task_leases"
    before = sorted(await stored(database, query))
    assert len(before) > 3
    await database.dispose()

    await migrate.downgrade(database_url, "0009")
    old = "SELECT id, heartbeat_at FROM task_attempts WHERE heartbeat_at IS NOT NULL"
    assert sorted(await stored(database, old)) == [(row[0], row[4]) for row in before]
    await database.dispose()
    await migrate.upgrade(database_url)

    assert sorted(await stored(database, query)) == before


async def test_a_limit_of_tasks_without_a_type_is_taken_away(
    database: db.Database, database_url: URL, http: httpx.AsyncClient, people: People
) -> None:
    world = await make_whole_world(database, http, people)
    query = "SELECT max_tasks_by_type::text FROM projects WHERE id = :id"
    limits = """UPDATE projects SET max_tasks_by_type = '{"": 0, "deploy": 1}' WHERE id = :id"""
    with pytest.raises(IntegrityError, match="max_tasks_by_type_numbers"):
        async with database.write(ADMIN) as session:
            await session.execute(text(limits), {"id": world.project.id})
    await database.dispose()

    await migrate.downgrade(database_url, "0032")
    async with database.write(ADMIN) as session:
        await session.execute(text(limits), {"id": world.project.id})
    await database.dispose()
    await migrate.upgrade(database_url)

    assert await stored(database, query, id=world.project.id) == ['{"deploy": 1}']


async def test_whoever_owned_a_project_becomes_a_member_of_it(
    database: db.Database, database_url: URL, http: httpx.AsyncClient, people: People
) -> None:
    world = await make_whole_world(database, http, people)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_project(session, None, "Nobody's")
    await database.dispose()

    await migrate.downgrade(database_url, "0001")
    await migrate.upgrade(database_url)

    members = "SELECT project_id, user_id, role FROM project_members ORDER BY project_id"
    owners = ((world.project, "owner"), (world.elsewhere, "stranger"))
    assert await stored(database, members) == [
        (project.id, people.users[name].id, "OWNER") for project, name in owners
    ]
    answer = await people.owner.ask("{ projects { nodes { name members { nodes { role } } } } }")
    assert answer.data["projects"]["nodes"] == [
        {"name": "Moon base", "members": {"nodes": [{"role": "OWNER"}]}}
    ]


async def test_tasks_in_progress_without_a_lease_are_given_back(
    database: db.Database, database_url: URL, http: httpx.AsyncClient, people: People
) -> None:
    world = await make_world(database, http, people)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        for title, values in (
            ("alone", {}),
            ("cancelled", {"cancel_requested": True}),
            ("ended", {"attempt_count": 1}),
            ("used up", {"attempt_count": 1, "max_attempts": 1}),
        ):
            task = await factories.make_task(
                session, world.project, title, status=db.TaskStatus.IN_PROGRESS, **values
            )
            for number in range(1, task.attempt_count + 1):
                await factories.make_attempt(session, task, number)
    await database.dispose()
    await migrate.downgrade(database_url, "0016")
    await migrate.upgrade(database_url)
    assert await sweeper.sweep(database) == 4
    assert await sweeper.sweep(database) == 0

    found = await stored(
        database,
        "SELECT t.title, t.status, t.attempt_count, count(a.id) FROM tasks t"
        " JOIN task_attempts a ON a.task_id = t.id AND a.status <> 'RUNNING'"
        " WHERE t.current_attempt_id IS NULL GROUP BY t.id ORDER BY 1",
    )
    assert found == [
        ("alone", "PENDING", 1, 1),
        ("cancelled", "CANCELLED", 1, 1),
        ("ended", "PENDING", 2, 2),
        ("used up", "FAILED", 2, 2),
    ]
    running = "SELECT count(*) FROM task_attempts WHERE status = 'RUNNING' OR ended_at IS NULL"
    assert await stored(database, running) == [0]


@pytest.mark.parametrize(
    "locale",
    [
        "LOCALE 'C' LOCALE_PROVIDER libc",
        "LOCALE 'C.UTF-8' LOCALE_PROVIDER libc",
        "LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'und'",
    ],
)
async def test_messages_from_before_are_found_in_a_database_of_any_locale(
    server: URL, locale: str
) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = server.set(database=name)
    try:
        await _on_server(
            server, f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' {locale}"
        )
    except asyncpg.PostgresError as error:
        pytest.skip(connections.reason(error))
    await migrate.upgrade(url, "0003")
    messages = (
        "\u201eOtter\u201c \u2013 lynx\u2026heron",
        "l\u2019Écureuil\u00a0mange\u00bfque?",
        "昨日は水族館に行った。",
        "cafe\u0301 ΛΟΓΟΣ",
    )
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.begin() as connection:
        conversation = "INSERT INTO conversations (conversation_url) VALUES ('x') RETURNING id"
        id = (await connection.execute(text(conversation))).scalar_one()
        for sequence, content in enumerate(messages):
            message = "INSERT INTO messages (conversation_id, sequence, sender, content)"
            message += " VALUES (:id, :sequence, 'USER', :content)"
            row = {"id": id, "sequence": sequence, "content": content}
            await connection.execute(text(message), row)

    await migrate.upgrade(url)

    find = text("SELECT sequence FROM messages WHERE search @@ search_query(:query)")
    queries = ("otter Lynx HERON", "écureuil MANGE que", "水族館", "館水", "CAFÉ", "cafe", "λογος")
    async with engine.connect() as connection:
        found = [list(await connection.scalars(find, {"query": query})) for query in queries]
    await engine.dispose()
    await migrate.downgrade(url, "0003")
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")
    assert found == [[0], [1], [2], [], [3], [], [3]]


async def test_a_database_without_unicode_is_told_what_it_needs(server: URL) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    made = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
    await _on_server(server, f"{made} LOCALE_PROVIDER libc")
    url = server.set(database=name)

    with pytest.raises(migrate.NotMigratable, match="is in the encoding SQL_ASCII"):
        await migrate.upgrade(url)

    assert await revision(url) == "0003"
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


NO_COLLATION = (
    "PostgreSQL has no collation here that knows the case of letters beyond ASCII."
    " Use PostgreSQL 17 or later, or one that is built with ICU."
)


async def test_a_server_without_a_collation_for_search_is_told_what_it_needs(server: URL) -> None:
    name = f"test_{uuid.uuid4().hex[:12]}"
    made = f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
    await _on_server(server, f"{made} LOCALE_PROVIDER libc")
    url = server.set(database=name)
    await migrate.upgrade(url, "0003")
    ascii_only = "'default', 'C', 'POSIX'"
    await _on_server(url, f"DELETE FROM pg_collation WHERE collname NOT IN ({ascii_only})")

    with pytest.raises(migrate.NotMigratable) as refused:
        await migrate.upgrade(url)

    assert str(refused.value) == NO_COLLATION
    assert await revision(url) == "0003"
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_server_without_a_collation_for_filters_is_told_what_it_needs(
    empty: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on an older PostgreSQL without ICU, on a machine that does not have the locale.
    module = importlib.import_module("migrations.versions.0007_updated_at")
    missing = "provider = libc, locale = 'nowhere.UTF-8'"
    monkeypatch.setattr(module, "provider", lambda: missing)

    def work(connection: Connection) -> None:
        with Operations.context(MigrationContext.configure(connection)):
            module.collation()

    with pytest.raises(migrate.NotMigratable) as refused:
        await migrate.locked(empty, work)

    assert str(refused.value) == NO_COLLATION


async def test_names_that_are_the_same_from_now_on_are_told_and_nothing_is_changed(
    empty: URL,
) -> None:
    await migrate.upgrade(empty, "0004")
    engine = create_async_engine(empty, poolclass=pool.NullPool)

    async def run(*statements: str) -> None:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    await run(
        "INSERT INTO users (username, email) VALUES ('kim', 'Kim@example.org'),"
        " ('Lee', 'kim@example.org'), ('lee', 're\u0301my@example.org'),"
        " ('LEE', 'R\u00e9my@example.org'), ('max', 'max@example.org')",
        "INSERT INTO projects (name) VALUES ('Moo\u0308n')",
        "INSERT INTO agents (project_id, name, type) SELECT id, names.name, 'X' FROM"
        " projects, (VALUES ('e\u0301'), ('\u00e9'), ('E\u0301')) AS names (name)",
    )
    before = await catalogue(empty)

    with pytest.raises(migrate.NotMigratable) as refused:
        await migrate.upgrade(empty)

    assert str(refused.value) == (
        "Names are now the same whatever their form of Unicode, and those of users whatever their"
        " case. These are not unique then: in users, the username 'LEE' and 'Lee' and 'lee';"
        " in users, the email 'Kim@example.org' and 'kim@example.org';"
        " in users, the email 'R\\xe9my@example.org' and 're\\u0301my@example.org';"
        " in agents, the name 'e\\u0301' and '\\xe9'. Nothing was changed."
        " Rename one of each, by the API of the version that you had or by an UPDATE in"
        " `troupe psql`, and migrate again"
    )
    assert await catalogue(empty) == before
    assert await revision(empty) == "0004"

    await run(
        "UPDATE users SET username = email, email = email || username"
        " WHERE username IN ('LEE', 'Lee')",
        "UPDATE agents SET name = 'f' WHERE name = '\u00e9'",
    )
    assert await migrate.upgrade(empty) is True
    async with engine.connect() as connection:
        names = text("SELECT name FROM agents UNION ALL SELECT name FROM projects ORDER BY 1")
        found = list(await connection.scalars(names))
    await engine.dispose()
    assert found == ["Mo\u00f6n", "f", "\u00c9", "\u00e9"]


async def test_down_to_nothing_and_up_again_at_once(empty: URL) -> None:
    assert await migrate.upgrade(empty) is True
    await migrate.downgrade(empty, "base")
    assert await revision(empty) is None
    assert await migrate.upgrade(empty) is True
    assert await revision(empty) == migrate.head()


async def test_autogenerate_finds_nothing_to_add(database_url: URL) -> None:
    def compare(connection: Connection) -> list[Any]:
        options = {"compare_type": True} | migrate.COMPARISON
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, db.Base.metadata))

    assert await migrate.locked(database_url, compare) == []


async def test_the_migrations_make_exactly_what_the_models_say(
    database_url: URL, empty: URL
) -> None:
    """Checks, expressions and conditions of indexes included, which autogenerate overlooks."""
    engine = create_async_engine(empty, poolclass=pool.NullPool)
    async with engine.begin() as connection:
        # Which only the migrations make.
        search = importlib.import_module("migrations.versions.0004_search")
        await connection.run_sync(search.functions)
        answers = importlib.import_module("migrations.versions.0012_answers")
        await connection.exec_driver_sql(answers.HASH)
        ready = importlib.import_module("migrations.versions.0019_ready_tasks_and_alerts")
        await connection.exec_driver_sql(ready.URGENCY)
        await connection.run_sync(db.Base.metadata.create_all)
        log = importlib.import_module("migrations.versions.0008_events")
        claims = importlib.import_module("migrations.versions.0010_claims")
        late = importlib.import_module("migrations.versions.0025_late_events")
        number = late.NUMBER.format(days=late.DAYS, late=late.LATE)
        of_log = (log.TRUNCATE, number, log.CREATE_PARTITIONS, late.DROP)
        boards = importlib.import_module("migrations.versions.0011_boards")
        for function in (*of_log, *claims.FUNCTIONS, boards.LINEAGE):
            await connection.exec_driver_sql(function)
        for name in (
            "0014_usage",
            "0015_budgets",
            "0016_writes",
            "0017_leases",
            "0018_highlights",
            "0023_completions",
            "0026_complete_many",
            "0027_budgets_refuse_usage",
            "0028_failed_communications",
            "0029_obstacles",
            "0032_awaited",
        ):
            for statement in importlib.import_module(f"migrations.versions.{name}").MADE:
                await connection.exec_driver_sql(statement)
        for statement in ready.ALERTS:
            await connection.exec_driver_sql(statement)
        for table in triggers.logged_tables():
            for statement in triggers.creating(table.name, triggers.body(table)):
                await connection.execute(text(statement))
    await engine.dispose()

    migrated, made = await catalogue(database_url), await catalogue(empty)

    assert len(made["columns"]) > 100
    for kind in CATALOGUE:
        assert migrated[kind] == made[kind]


async def test_two_tasks_that_migrate_at_once_both_succeed(empty: URL) -> None:
    done = await asyncio.gather(migrate.upgrade(empty), migrate.upgrade(empty))

    assert sorted(done) == [False, True]
    assert await revision(empty) == migrate.head()


async def test_whoever_migrates_waits_for_whoever_does_already(empty: URL) -> None:
    engine = create_async_engine(empty, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        lock = {"key": migrate.ADVISORY_LOCK}
        await connection.execute(text("SELECT pg_advisory_lock(:key)"), lock)

        migrating = asyncio.create_task(migrate.upgrade(empty))
        done, _ = await asyncio.wait([migrating], timeout=0.3)
        assert done == set()

        await connection.execute(text("SELECT pg_advisory_unlock(:key)"), lock)
        assert await asyncio.wait_for(migrating, 10) is True
    await engine.dispose()


async def test_a_database_that_newer_code_migrated_is_left_alone(database_url: URL) -> None:
    engine = create_async_engine(database_url, poolclass=pool.NullPool)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await engine.dispose()
    before = await catalogue(database_url)

    with pytest.raises(migrate.NotMigratable) as refused:
        await migrate.upgrade(database_url)

    assert str(refused.value) == (
        "The database is at the migration 9999, which this version of Troupe does not know: a"
        " newer version was used on it. Use that version, or another database."
    )
    assert await revision(database_url) == "9999"
    assert await catalogue(database_url) == before


@pytest.mark.parametrize(
    ("number", "problem"),
    [
        ("9998", "No migration follows 9998 and none follows 9999, so it is not known which"),
        ("9999", "Revision 9999 is present more than once in "),
    ],
    ids=["two heads", "one number"],
)
async def test_migrations_of_two_branches_are_told_apart(
    empty: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, problem: str
) -> None:
    copy = shutil.copytree(str(files("migrations")), tmp_path / "migrations")
    for name, revision in (("mine", number), ("theirs", "9999")):
        (copy / "versions" / f"{name}.py").write_text(
            f"revision = {revision!r}\ndown_revision = {migrate.head()!r}\n", encoding="utf-8"
        )
    monkeypatch.setattr(migrate, "files", lambda _: copy)

    with pytest.raises(migrate.NotMigratable) as refused:
        await migrate.upgrade(empty)

    assert str(refused.value).startswith(problem)
    assert str(refused.value).endswith(migrate.RENUMBER)
    assert await migrate.locked(empty, migrate.current) is None


async def test_a_table_in_use_makes_a_migration_give_up_not_wait(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "text", lambda sql: text(sql.replace("'10s'", "'100ms'")))
    engine = create_async_engine(database_url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT count(*) FROM ai_models"))

        with pytest.raises(DBAPIError) as given_up:
            await asyncio.wait_for(migrate.downgrade(database_url, "base"), 10)
    await engine.dispose()

    assert getattr(given_up.value.orig, "sqlstate", None) == "55P03"
    # Of the migration that came to that table, everything is undone: it is as if it had not begun.
    reached = await revision(database_url)
    assert reached is not None
    given_up_at = await catalogue(database_url)
    await migrate.downgrade(database_url, "base")
    await migrate.upgrade(database_url, reached)
    assert given_up_at == await catalogue(database_url)


def test_alembics_own_file_is_read_alike_in_every_locale() -> None:
    assert (CODE / "alembic.ini").read_bytes().isascii()


def test_a_url_may_name_any_driver() -> None:
    for name in ("postgresql", "postgres", "postgresql+psycopg"):
        url = make_url(f"{name}://troupe@localhost/troupe")
        assert connections.database_url(url).drivername == "postgresql+asyncpg"
