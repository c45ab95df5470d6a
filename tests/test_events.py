"""The event log: what is written for a change, by whom, and in which order it is read."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from graphql import GraphQLObjectType, get_named_type, is_leaf_type
from sqlalchemy import URL, text

import db
from db.embedded import binaries
from db.events import partitions, triggers
from db.events.follower import continues
from db.events.positions import Batch, Numbering, number_all
from db.events.positions import number as number_events
from db.events.topics import Place
from db.writes import insert_many
from graph.api import API
from graph.core.scalars import global_id
from graph.schema import schema
from tests import factories
from tests.client import Client
from tests.conftest import People, _on_server
from tests.following import last_place
from tests.oracle import Everything, Someone
from tests.patience import PATIENCE, until
from tests.processes import Process, troupe_here
from tests.world import WholeWorld, gid, make_whole_world, stored


def sees_event(everything: Everything, viewer: Someone, event: db.Event) -> bool:
    """Whether a viewer sees an event: in its project, or else if it is about what is theirs."""
    if event.project_id is None:
        return isinstance(viewer, db.User) and event.owner_id == viewer.id
    roles = {
        "AccessToken": (db.MemberRole.OWNER, db.MemberRole.EDITOR),
        "Webhook": (db.MemberRole.OWNER,),
    }.get(event.entity_type)
    if roles is None:
        return everything.is_member(viewer, event.project_id)
    return isinstance(viewer, db.User) and everything.is_member(viewer, event.project_id, *roles)


SEEN = {db.Event: sees_event}
BREAKING = {"event_positions": {"single_row": ["id = 2"]}}

ADMINISTRATOR = db.Viewer(is_administrator=True)

Change = tuple[str, str, Any, Any]
"""An entity type and an action, with the values before and after."""


async def changes(database: db.Database, *types: str) -> list[Change]:
    """All events in the order of insertion, or those of these types."""
    query = (
        'SELECT entity_type, action, "before"::text, "after"::text FROM events'
        " WHERE entity_type = ANY(:types) OR :types = '{}' ORDER BY id"
    )
    found = await stored(database, query, types=list(types))
    return [
        (kind, action, before and json.loads(before), after and json.loads(after))
        for kind, action, before, after in found
    ]


async def by_hand(database: db.Database, *statements: str, **values: Any) -> None:
    """Run statements in one transaction, as somebody in psql does."""
    async with database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement), values)


async def forget(database: db.Database) -> None:
    """Empty the log."""
    await by_hand(database, "DELETE FROM events")


@pytest.fixture
async def project(database: db.Database) -> db.Project:
    async with database.write(ADMINISTRATOR) as session:
        return await factories.make_project(session, None, "Moon base")


async def test_a_change_is_logged_with_its_columns(database: db.Database) -> None:
    id = db.new_id()
    async with database.write(ADMINISTRATOR) as session:
        project = await db.Project.create(
            session, id=id, name="Moon base", description={"a": [None, 1.10]}
        )
        created = project.created_at.isoformat()
    async with database.write(ADMINISTRATOR) as session:
        project = await session.fetch(db.Project, id)
        await project.update(session, name="Mars base", description=None)
    async with database.write(ADMINISTRATOR) as session:
        await (await session.fetch(db.Project, id)).delete(session)

    ((_, _, none, after), (_, _, *changed), (_, _, before, nothing)) = await changes(database)
    assert none is nothing is None
    moment = after.pop("created_at")
    assert datetime.fromisoformat(moment) == datetime.fromisoformat(created)
    assert after == {
        "id": str(id),
        "name": "Moon base",
        "description": {"a": [None, 1.1]},
        "status": "DRAFT",
        "max_tasks_by_type": {},
        "project_metadata": {},
    }
    assert changed == [
        {"name": "Moon base", "description": {"a": [None, 1.1]}},
        {"name": "Mars base", "description": None},
    ]
    assert before == {
        "id": str(id),
        "created_at": moment,
        "name": "Mars base",
        "status": "DRAFT",
        "max_tasks_by_type": {},
        "project_metadata": {},
    }


async def test_an_update_that_changes_nothing_of_the_log_makes_no_event(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    await by_hand(
        database,
        "UPDATE projects SET name = name, updated_at = now(), version = version + 1",
        "UPDATE projects SET name = 'Mars base' WHERE false",
    )

    assert await changes(database) == []


async def test_numbers_in_json_are_compared_as_they_are_written(
    database: db.Database, project: db.Project
) -> None:
    await by_hand(database, """UPDATE projects SET description = '{"a": 1.0}'""")
    await forget(database)
    await by_hand(database, """UPDATE projects SET description = '{"a": 1}'""")

    found = await stored(database, 'SELECT "before"::text, "after"::text FROM events')
    assert found == [('{"description": {"a": 1.0}}', '{"description": {"a": 1}}')]


async def test_secrets_and_derived_columns_are_not_logged(database: db.Database) -> None:
    unlogged = {
        str(column)
        for table in triggers.logged_tables()
        for column in table.columns
        if not triggers.is_logged(column) and column.name not in triggers.DERIVED
    }
    assert unlogged == {
        "access_tokens.last_used_at",
        "access_tokens.token_hash",
        "conversations.last_message_at",
        "conversations.last_sequence",
        "messages.search",
        "task_attempts.claim_traceparent",
        "users.password_hash",
        "webhooks.failing_since",
        "webhooks.old_secret",
        "webhooks.old_secret_until",
        "webhooks.secret",
    }
    async with database.write(ADMINISTRATOR) as session:
        user = await db.User.create(
            session, username="kim", email="kim@localhost", password_hash="argon2"
        )
        await factories.make_token(session, "troupe_open", user)
        await user.update(session, password_hash="another")
    await by_hand(database, "UPDATE access_tokens SET last_used_at = now(), token_hash = 'x'")

    assert [(kind, action) for kind, action, *_ in await changes(database)] == [
        ("User", "CREATED"),
        ("AccessToken", "CREATED"),
    ]
    (values,) = await stored(database, """SELECT string_agg("after"::text, '') FROM events""")
    assert "hash" not in values
    assert "argon2" not in values


async def test_rows_of_an_association_are_named_by_all_their_keys(
    database: db.Database, project: db.Project
) -> None:
    async with database.write(ADMINISTRATOR) as session:
        user = await db.User.create(session, username="kim", email="kim@localhost")
        member = await factories.make_member(session, project, user)
    async with database.write(ADMINISTRATOR) as session:
        member = await session.get_one(db.ProjectMember, (project.id, user.id))
        member.role = db.MemberRole.EDITOR
        await session.flush()
        await session.delete(member)

    keys = {"project_id": str(project.id), "user_id": str(user.id)}
    assert await changes(database, "ProjectMember") == [
        ("ProjectMember", "CREATED", None, keys | {"role": "VIEWER"}),
        ("ProjectMember", "UPDATED", keys | {"role": "VIEWER"}, keys | {"role": "EDITOR"}),
        ("ProjectMember", "DELETED", keys | {"role": "EDITOR"}, None),
    ]
    named = "SELECT DISTINCT entity_id, project_id FROM events WHERE entity_type = 'ProjectMember'"
    assert await stored(database, named) == [(str(project.id), project.id)]


async def test_a_row_that_gets_another_key_is_one_deleted_and_one_created(
    database: db.Database,
) -> None:
    async with database.write(ADMINISTRATOR) as session:
        await factories.make_model(session, "old", provider="A")
    await forget(database)
    await by_hand(database, "UPDATE ai_models SET id = 'new', provider = 'B'")

    found = await stored(
        database,
        """SELECT action, entity_id, coalesce("before", "after")->>'provider' FROM events
        ORDER BY action""",
    )
    assert found == [("CREATED", "new", "B"), ("DELETED", "old", "A")]


async def test_whatever_writes_rows_they_are_logged(
    database: db.Database, project: db.Project
) -> None:
    async with database.write(ADMINISTRATOR) as session:
        conversation = await factories.make_conversation(session, project_id=project.id)
        await forget(database)
        rows = [
            {
                "conversation_id": conversation.id,
                "sequence": number,
                "sender": db.MessageSender.USER,
                "content": f"{number}",
            }
            for number in range(1, 4)
        ]
        await insert_many(session, db.Message, rows)
    connection = await database.open()
    await connection.copy_records_to_table(
        "messages",
        records=[(conversation.id, number, "USER", f"{number}") for number in range(4, 7)],
        columns=["conversation_id", "sequence", "sender", "content"],
    )
    await connection.close()
    await by_hand(
        database,
        "INSERT INTO messages (conversation_id, sequence, sender, content)"
        " SELECT id, 7, 'USER', '7' FROM conversations",
    )

    query = """SELECT action, "after"->>'content', project_id FROM events
        WHERE entity_type = 'Message' ORDER BY id"""
    expected = [("CREATED", str(number), project.id) for number in range(1, 8)]
    assert await stored(database, query) == expected
    await by_hand(database, "TRUNCATE messages CASCADE")
    query = """SELECT action, "before"->>'content', project_id FROM events
        WHERE entity_type = 'Message' AND action = 'DELETED' ORDER BY id"""
    expected = [("DELETED", str(number), project.id) for number in range(1, 8)]
    assert await stored(database, query) == expected


async def whole_project(database: db.Database) -> db.Project:
    """A project with something of each noun that is deleted with it."""
    async with database.write(ADMINISTRATOR) as session:
        kim = await db.User.create(session, username="kim", email="kim@localhost")
        project = await factories.make_project(session, kim, "Moon base")
        model = await factories.make_model(session)
        ada, bob = [
            await factories.make_agent(session, project, name, model_id=model.id)
            for name in ("Ada", "Bob")
        ]
        await factories.make_token(session, "troupe_open", ada)
        tool = await factories.make_tool(session, project)
        session.add(db.AgentTool(agent_id=ada.id, tool_id=tool.id))
        above, dig, fill = [
            await factories.make_task(session, project, title, agent_id=ada.id)
            for title in ("Above", "Dig", "Fill")
        ]
        dig.parent_task_id = above.id
        await factories.make_dependency(session, fill, dig)
        await factories.make_dependency(session, dig, above)
        attempts = [
            await factories.make_attempt(session, task, agent_id=ada.id) for task in (dig, fill)
        ]
        dig.current_attempt_id = attempts[0].id
        await factories.make_communication(session, ada, bob, task_id=dig.id)
        for _ in range(2):
            talk = await factories.make_conversation(session, project_id=project.id)
            messages = await factories.make_messages(session, talk, ["a", "b"], agent_id=ada.id)
        limit = {"limit_cost": 1, "thresholds": [100], "period": db.BudgetPeriod.EVER}
        scopes: list[dict[str, Any]] = [{}, {"task_id": dig.id}, {"agent_id": ada.id}]
        for scope in scopes:
            await db.Budget.create(session, project_id=project.id, **scope, **limit)
        about = {"task_id": dig.id, "agent_id": ada.id, "attempt_id": attempts[1].id}
        await factories.make_usage(
            session, project, model, message_id=messages[0].id, cost=2, **about
        )
        approval = db.ApprovalRequest(title="May I?", content={})
        approval.project_id, approval.task_id = project.id, dig.id
        session.add(approval)
        await session.flush()
        answer = {"outcome": db.AnswerOutcome.APPROVED, "content_hash": "x", "user_id": kim.id}
        await db.InteractionAnswer.create(session, interaction_id=approval.id, **answer)
        await db.AgentSubscription.create(session, agent_id=ada.id, topic="news")
        await factories.make_webhook(session, project)
    return project


async def test_each_update_of_a_cascade_is_logged_once(
    database: db.Database, project: db.Project
) -> None:
    """A deletion clears each foreign key of a row by an update of its own."""
    async with database.write(ADMINISTRATOR) as session:
        ada = await factories.make_agent(session, project, "Ada")
        user = await db.User.create(session, username="kim", email="kim@localhost")
        task = await factories.make_task(session, project)
        attempt = await factories.make_attempt(session, task)
        model = await factories.make_model(session, "m")
        calls = [
            await factories.make_usage(
                session, project, model, task_id=task.id, attempt_id=attempt.id
            )
            for _ in range(2)
        ]
        done = await factories.make_task(
            session,
            project,
            status=db.TaskStatus.COMPLETED,
            agent_id=ada.id,
            created_by_agent_id=ada.id,
        )
        request = await db.Notification.create(
            session,
            project_id=project.id,
            title="Look",
            content={},
            level=db.NotificationLevel.INFO,
            requires_acknowledgement=False,
            agent_id=ada.id,
            asked_by_agent_id=ada.id,
            assignee_id=user.id,
            responded_by_id=user.id,
        )
    await forget(database)
    for table in ("agents", "users", "tasks"):
        await by_hand(database, f"DELETE FROM {table} WHERE id <> :id", id=done.id)

    found = await stored(
        database,
        """SELECT entity_id, array_agg("before"::text), array_agg("after"::text) FROM events
        WHERE action = 'UPDATED' GROUP BY entity_id""",
    )
    cleared = {
        done.id: {"agent_id": ada.id, "created_by_agent_id": ada.id},
        request.id: {
            "agent_id": ada.id,
            "asked_by_agent_id": ada.id,
            "assignee_id": user.id,
            "responded_by_id": user.id,
        },
        **{call.id: {"task_id": task.id, "attempt_id": attempt.id} for call in calls},
    }
    assert {UUID(id): (sorted(before), sorted(after)) for id, before, after in found} == {
        id: (
            sorted(json.dumps({name: str(value)}) for name, value in keys.items()),
            sorted(json.dumps({name: None}) for name in keys),
        )
        for id, keys in cleared.items()
    }


async def test_what_a_cascade_deletes_keeps_its_project(database: db.Database) -> None:
    project = await whole_project(database)
    tables = {name: table.name for table, name in triggers.logged_tables().items()}
    counts = {
        name: (await stored(database, f"SELECT count(*) FROM {table}"))[0]
        for name, table in tables.items()
    }
    assert all(counts.values())
    await by_hand(database, "DELETE FROM projects")

    found = await stored(
        database,
        "SELECT entity_type, count(*) FROM events WHERE action = 'DELETED'"
        " AND project_id = :project AND owner_id IS NULL GROUP BY 1",
        project=project.id,
    )
    # A token of an agent is its project's, and the user remains.
    remain = ("User", "AIModel")
    assert dict(found) == {name: counts[name] for name in counts if name not in remain}
    rest = "SELECT entity_type FROM events WHERE action = 'DELETED' AND project_id <> :project"
    assert await stored(database, rest, project=project.id) == []
    without = (
        "SELECT DISTINCT entity_type FROM events WHERE project_id IS DISTINCT FROM :project"
        " ORDER BY 1"
    )
    assert await stored(database, without, project=project.id) == ["AIModel", "User"]


@pytest.mark.parametrize("table", ["tasks", "agents", "conversations"])
async def test_what_goes_with_a_part_of_a_project_keeps_the_project(
    database: db.Database, table: str
) -> None:
    project = await whole_project(database)
    await by_hand(database, f"DELETE FROM {table}")

    found = await stored(
        database, "SELECT DISTINCT project_id FROM events WHERE action = 'DELETED'"
    )
    assert found == [project.id]


async def test_without_a_project_the_user_is_logged(database: db.Database) -> None:
    async with database.write(ADMINISTRATOR) as session:
        kim = await db.User.create(session, username="kim", email="kim@localhost")
        await factories.make_token(session, "troupe_open", kim)
        talk = await factories.make_conversation(session, user_id=kim.id)
        await factories.make_messages(session, talk, ["a"])
        await factories.make_tool(session, None)
    await by_hand(database, "DELETE FROM conversations")

    found = await stored(
        database, "SELECT entity_type, action, project_id, owner_id FROM events ORDER BY id"
    )
    assert found == [
        ("User", "CREATED", None, kim.id),
        ("AccessToken", "CREATED", None, kim.id),
        ("Conversation", "CREATED", None, kim.id),
        ("Message", "CREATED", None, kim.id),
        ("Tool", "CREATED", None, None),
        ("Conversation", "DELETED", None, kim.id),
        ("Message", "DELETED", None, kim.id),
    ]


async def test_an_event_names_its_actor(database: db.Database, project: db.Project) -> None:
    someone, token = db.new_id(), db.new_id()
    for viewer in (
        db.Viewer(user_id=someone, token_id=token),
        db.Viewer(agent_id=someone),
        db.Viewer(),
    ):
        await forget(database)
        async with database.write(viewer) as session:
            await factories.make_agent(session, project, f"{viewer.name}")
        query = "SELECT actor_type, actor_id, token_id FROM events"
        found: list[tuple[str | None, UUID | None, UUID | None]] = await stored(database, query)
        kind = viewer.name and viewer.name.split(":")[0].upper()
        assert found == [(kind, viewer.user_id or viewer.agent_id, viewer.token_id)]
    await forget(database)
    # The setting ends with its transaction, and connections are used again.
    await by_hand(database, "UPDATE projects SET name = 'Mars base'")
    assert await stored(database, query) == [(None, None, None)]


async def test_values_do_not_depend_on_the_session(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    connection = await database.open()
    await connection.execute("SET timezone = 'Asia/Tokyo'; SET search_path = ''")
    await connection.execute("UPDATE public.projects SET created_at = '2026-01-02 03:04:05+00'")
    await connection.close()

    found = await stored(database, """SELECT "after"->>'created_at' FROM events""")
    assert found == ["2026-01-02T03:04:05+00:00"]


async def test_the_functions_of_the_database_are_those_of_the_models(
    database: db.Database,
) -> None:
    found = dict(
        await stored(
            database,
            "SELECT proname, prosrc FROM pg_proc WHERE prorettype = 'trigger'::regtype"
            " AND pronamespace = 'public'::regnamespace",
        )
    )
    for table in triggers.logged_tables():
        body = found.pop(f"log_{table.name}")
        assert body.split() == triggers.body(table).split(), f"{table.name}: draft a migration"
    assert found.keys() == {
        "alert_budget",
        "log_truncate",
        "count_usage",
        "fail_communication",
        "open_budgets",
        "raise_budget",
    }


async def positions(database: db.Database) -> list[tuple[int | None, int]]:
    """The position of each event with its id, in the order of positions."""
    return await stored(database, "SELECT position, id FROM events ORDER BY position, id")


@asynccontextmanager
async def numbering(database: db.Database, days: int = 90) -> AsyncIterator[None]:
    """The background task of a server, while the block runs."""
    task = asyncio.create_task(Numbering(database, days).run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_numbered(database: db.Database, count: int) -> None:
    """Wait until so many events have a position."""
    query = "SELECT count(*) FROM events WHERE position IS NOT NULL"
    async with asyncio.timeout(60):
        while True:
            if (await stored(database, query))[0] >= count:
                return
            await asyncio.sleep(0.02)


async def rename(database: db.Database, project: db.Project, name: str) -> None:
    """Change a project, which makes one event."""
    await by_hand(
        database, "UPDATE projects SET name = :name WHERE id = :id", name=name, id=project.id
    )


async def test_positions_follow_the_order_of_insertion_without_gaps(
    database: db.Database, project: db.Project
) -> None:
    for number in range(4):
        await rename(database, project, f"{number}")
    assert {position for position, _ in await positions(database)} == {None}

    connection = await database.open()
    ids = [id for _, id in await positions(database)]
    assert (await number_events(connection, most=3))[:2] == (3, ids[2])
    assert (await number_events(connection, above=ids[3]))[:2] == (1, ids[4])
    assert (await number_events(connection))[:2] == (1, ids[3])
    assert (await number_events(connection))[:2] == (0, 0)
    await connection.close()

    assert await positions(database) == [
        (1, ids[0]),
        (2, ids[1]),
        (3, ids[2]),
        (4, ids[4]),
        (5, ids[3]),
    ]
    await forget(database)
    await rename(database, project, "after")
    await number_all(database)
    assert [position for position, _ in await positions(database)] == [6]


async def test_many_writers_at_once_get_each_position_once(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    seen: list[int] = []

    async def write(writer: int) -> None:
        for number in range(25):
            async with database.write(ADMINISTRATOR) as session:
                for part in range(number % 3 + 1):
                    await factories.make_task(session, project, f"{writer} {number} {part}")

    async def follow() -> None:
        last = 0
        while last < 8 * 49:
            query = "SELECT position FROM events WHERE position > :last ORDER BY position"
            new = await stored(database, query, last=last)
            seen.extend(new)
            last = new[-1] if new else last
            await asyncio.sleep(0.001)

    async with numbering(database), numbering(database), asyncio.timeout(120):
        await asyncio.gather(follow(), *(write(writer) for writer in range(8)))

    # A reader who goes by position has seen each event, in order.
    assert seen == list(range(1, 8 * 49 + 1))
    found = await stored(
        database,
        """SELECT "after"->>'title' FROM events ORDER BY position""",
    )
    assert sorted(found) == sorted(
        f"{writer} {number} {part}"
        for writer in range(8)
        for number in range(25)
        for part in range(number % 3 + 1)
    )
    for writer in range(8):
        own = [title for title in found if title.startswith(f"{writer} ")]
        assert own == [f"{writer} {n} {part}" for n in range(25) for part in range(n % 3 + 1)]


async def test_a_long_transaction_delays_only_its_own_events(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    async with numbering(database):
        async with database.writer.begin() as connection:
            await connection.execute(text("INSERT INTO users (username, email) VALUES ('a', 'a')"))
            await rename(database, project, "first")
            await until_numbered(database, 1)
            await rename(database, project, "second")
            await until_numbered(database, 2)
        await until_numbered(database, 3)

    found = await stored(database, "SELECT position, entity_type FROM events ORDER BY id")
    assert found == [(3, "User"), (1, "Project"), (2, "Project")]


async def test_what_is_committed_late_keeps_its_order(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    insert = "INSERT INTO users (username, email) SELECT 'a' || n, 'a' || n"
    insert += " FROM generate_series(1, 20000) n"
    async with numbering(database):
        async with database.writer.begin() as connection:
            await connection.execute(text(insert))
            await rename(database, project, "meanwhile")
            await until_numbered(database, 1)
        # It sees what was committed, so its event is later.
        await by_hand(database, "UPDATE users SET email = 'new' WHERE username = 'a1'")
        await until_numbered(database, 20_002)

    found = await stored(database, "SELECT id FROM events ORDER BY position")
    meanwhile = found.pop(0)
    assert found == sorted(found)
    assert meanwhile == found[-1] - 1


NUMBERS = (
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)


async def test_another_process_takes_over_when_the_connection_is_lost(
    database: db.Database, database_url: URL, project: db.Project
) -> None:
    other = db.Database(database_url)
    async with numbering(database), numbering(other):
        await until_numbered(database, 1)
        for number in range(2, 5):
            (pid,) = await stored(database, NUMBERS)
            await stored(database, "SELECT pg_terminate_backend(:pid)", pid=pid)
            await rename(database, project, f"{number}")
            await until_numbered(database, number)
    await other.dispose()

    assert [position for position, _ in await positions(database)] == [1, 2, 3, 4]
    assert await stored(database, NUMBERS) == []


async def test_another_process_takes_over_from_one_that_hangs(
    database: db.Database, database_url: URL, project: db.Project
) -> None:
    other = db.Database(database_url)

    async def hang(connection: Any, above: int, *, days: int) -> Batch:
        if connection.get_server_pid() == pid:
            await asyncio.sleep(3600)
        return await number_events(connection, above, days=days)

    with mock.patch("db.events.positions.SILENT_SECONDS", 3):
        async with numbering(database), numbering(other):
            await until_numbered(database, 1)
            (pid,) = await stored(database, NUMBERS)
            with mock.patch("db.events.positions.number", hang):
                await rename(database, project, "Mars base")
                await until_numbered(database, 2)
                assert await stored(database, NUMBERS) != [pid]
    await other.dispose()


async def test_a_connection_on_which_the_database_is_silent_is_given_up(
    database: db.Database, project: db.Project
) -> None:
    given_up = asyncio.Event()

    async def wait(connection: Any, above: int, *, days: int) -> Batch:
        if not given_up.is_set():
            try:
                await connection.fetchval("SELECT pg_sleep(100)")
            except TimeoutError:
                given_up.set()
                raise
        return await number_events(connection, above, days=days)

    with (
        mock.patch("db.events.positions.SILENT_SECONDS", 3),
        mock.patch("db.events.positions.number", wait),
    ):
        async with numbering(database), asyncio.timeout(PATIENCE):
            await given_up.wait()
            await until_numbered(database, 1)


async def test_numbering_takes_no_connection_of_a_pool_and_is_idle_when_nothing_happens(
    database_url: URL, project: db.Project
) -> None:
    database = db.Database(database_url, pool_size=1)
    async with numbering(database):
        async with database.read() as one, database.write(ADMINISTRATOR) as other:
            await one.execute(text("SELECT 1"))
            await other.execute(text("UPDATE projects SET name = 'Mars base'"))
        await until_numbered(database, 2)
        asked = 0

        async def count(connection: Any, above: int, *, days: int) -> Batch:
            nonlocal asked
            asked += 1
            return await number_events(connection, above, days=days)

        await asyncio.sleep(1)  # until it waits as long as it ever does
        with mock.patch("db.events.positions.number", count):
            await asyncio.sleep(2)
        assert asked <= 8
    await database.dispose()


WEEK = timedelta(weeks=1)


def this_week() -> datetime:
    """The moment when this week began."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=today.weekday())


def name_of(week: datetime) -> str:
    """The name of the partition of a week."""
    return f"events_{week:%Y_%m_%d}"


MAKE = "SELECT create_event_partitions($1, 1)"


async def partitions_of(database: db.Database) -> list[str]:
    """The names of the partitions."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits"
    query += " WHERE inhparent = 'events'::regclass ORDER BY 1"
    return await stored(database, query)


async def test_partitions_are_made_for_the_coming_weeks(
    database: db.Database, project: db.Project
) -> None:
    weeks = [name_of(this_week() + WEEK * number) for number in range(5)]
    expected = [*weeks, "events_default"]
    assert await partitions_of(database) == expected
    # As if no server had run for a while: events went to the default partition.
    connection = await database.open()
    for name in weeks:
        await connection.execute(f"DROP TABLE {name}")
    await rename(database, project, "Mars base")
    await number_all(database)
    assert await stored(database, "SELECT count(*) FROM events_default") == [1]

    await partitions.create(connection)
    await partitions.create(connection)
    await connection.close()

    assert await partitions_of(database) == expected
    assert await stored(database, f"SELECT position FROM {weeks[0]}") == [1]
    assert await stored(database, "SELECT count(*) FROM events_default") == [0]
    await rename(database, project, "Moon base")
    assert await stored(database, f"SELECT count(*) FROM {weeks[0]}") == [2]


async def test_old_events_are_dropped_once_they_have_a_position(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    weeks = [this_week() - WEEK * number for number in range(1, 5)]
    connection = await database.open()
    for number, week in enumerate(weeks):
        await connection.execute(MAKE, week)
        await rename(database, project, f"{number}")
        if number < 3:
            await number_all(database)
        moved = "UPDATE events SET created_at = $1 WHERE id = (SELECT max(id) FROM events)"
        await connection.execute(moved, week)
    oldest = "UPDATE events SET created_at = created_at - interval '1 year' WHERE position = 1"
    await connection.execute(oldest)
    days = (datetime.now(UTC) - weeks[0]).days

    kept = await partitions.drop(connection, days)

    assert kept == weeks[0]
    # The week of the event without a position stays, and so does that of the day itself.
    names = [name_of(week) for week in (weeks[3], weeks[0])]
    assert [name for name in await partitions_of(database) if name in map(name_of, weeks)] == names
    found = await stored(database, """SELECT position, "after"->>'name' FROM events ORDER BY id""")
    assert found == [(None, "3")]
    await number_all(database, days)
    await partitions.drop(connection, days)
    await connection.close()
    # It is kept as long as others that get a position now.
    assert [position for position, _ in await positions(database)] == [4]
    assert name_of(weeks[3]) not in await partitions_of(database)
    await forget(database)
    await rename(database, project, "after")
    await number_all(database)
    assert [position for position, _ in await positions(database)] == [5]


@pytest.mark.parametrize("has_partition", [True, False])
async def test_an_event_of_a_very_long_transaction_is_kept_as_long_as_others(
    database: db.Database, project: db.Project, has_partition: bool
) -> None:
    await forget(database)
    began = {name: timedelta(days) for name, days in {"long": 29, "late": 9, "in time": 7}.items()}
    connection = await database.open()
    if has_partition:
        await connection.execute(MAKE, datetime.now(UTC) - began["long"])
    for name, ago in began.items():
        await rename(database, project, name)
        moved = "UPDATE events SET created_at = $1 WHERE id = (SELECT max(id) FROM events)"
        await connection.execute(moved, datetime.now(UTC) - ago)
    before = await connection.fetchval("SELECT now()")

    await number_all(database, 8)
    await partitions.drop(connection, 8)
    await connection.close()

    query = """SELECT position, "after"->>'name', created_at FROM events ORDER BY position"""
    found = await stored(database, query)
    assert [(position, name) for position, name, _ in found] == [*enumerate(began, 1)]
    # Only what would be dropped at once has the time when it got its position.
    assert [created > before for *_, created in found] == [True, True, False]


async def test_a_place_before_something_that_was_dropped_is_not_in_the_log(
    database: db.Database, project: db.Project
) -> None:
    await forget(database)
    connection = await database.open()
    for number in range(5):
        await rename(database, project, f"{number}")
    await number_all(database)
    # The order of positions is not that of the times when transactions began.
    moved = "UPDATE events SET created_at = created_at - $2::interval WHERE position = $1"
    await connection.execute(MAKE, datetime.now(UTC) - WEEK * 3)
    await connection.execute(moved, 3, WEEK * 3)  # in a partition of its own
    await partitions.drop(connection, 1)

    assert [position for position, _ in await positions(database)] == [1, 2, 4, 5]
    continued = [await continues(database.fetch, Place(position)) for position in range(7)]
    assert continued == [False, False, False, True, True, True, False]

    await connection.execute(moved, 4, WEEK * 5)  # in the default partition
    await partitions.drop(connection, 1)
    await partitions.drop(connection, 1)
    await connection.close()
    continued = [await continues(database.fetch, Place(position)) for position in range(7)]
    assert continued == [False, False, False, False, True, True, False]


async def test_partitions_wait_for_no_transaction(
    database: db.Database, project: db.Project
) -> None:
    week = this_week() - WEEK * 20
    connection = await database.open()
    async with database.writer.begin() as writer:
        await writer.execute(text("UPDATE projects SET name = 'Mars base'"))
        await connection.execute(MAKE, week)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await partitions.drop(connection, 7)
    await number_all(database)
    await partitions.drop(connection, 7)
    await connection.close()

    assert name_of(week) not in await partitions_of(database)


def _run(command: list[Path | str], variables: dict[str, str], given: bytes) -> bytes:
    """What a program prints."""
    environment = os.environ | variables
    done = subprocess.run(command, env=environment, input=given, stdout=subprocess.PIPE, check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("dump", "restore"),
    [
        (["pg_dump", "--format=custom"], ["pg_restore", "--exit-on-error"]),
        (["pg_dump"], ["psql", "--set", "ON_ERROR_STOP=1"]),
    ],
)
async def test_positions_survive_a_dump(
    server: URL,
    database: db.Database,
    database_url: URL,
    project: db.Project,
    dump: list[str],
    restore: list[str],
) -> None:
    bin_dir = binaries.installed().bin_dir
    for number in range(3):
        await rename(database, project, f"{number}")
    await number_all(database)
    await rename(database, project, "later")
    before = await positions(database)
    name = f"test_{uuid4().hex[:12]}"
    kept = b""
    await _on_server(server, f"CREATE DATABASE {name} TEMPLATE template0")
    variables = {
        "PGHOST": database_url.host or str(database_url.query["host"]),
        "PGPORT": str(database_url.port or database_url.query.get("port", 5432)),
        "PGUSER": str(database_url.username),
        "PGPASSWORD": str(database_url.password or ""),
    }
    for command in ([*dump, str(database_url.database)], [*restore, "--dbname", name]):
        kept = await asyncio.to_thread(_run, [bin_dir / command[0], *command[1:]], variables, kept)
    place = await last_place(database)
    restored = db.Database(server.set(database=name))

    assert await positions(restored) == before
    # Who follows goes on there.
    assert await continues(restored.fetch, Place(*place))
    assert not await continues(restored.fetch, Place(place[0], place[1] + 1))
    await number_all(restored)
    await rename(restored, project, "there")
    await number_all(restored)
    assert [position for position, _ in await positions(restored)] == [1, 2, 3, 4, 5, 6]
    await restored.dispose()
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> WholeWorld:
    return await make_whole_world(database, http, people)


async def test_the_history_of_an_object_shows_who_changed_what(world: WholeWorld) -> None:
    before = len(await stored(world.database, "SELECT 1 FROM events"))
    for title in ("Dig deeper", "Dig on"):
        payload = await world.owner.change(
            "updateTask { userErrors { code } }", id=gid(world.free), title=title
        )
        assert payload == {"userErrors": []}
    await world.agent.change(
        "sendCommunication { userErrors { code } }",
        fromAgentId=gid(world.ada),
        toAgentId=gid(world.ada),
        type="REQUEST",
        content={},
    )
    await number_all(world.database)
    query = """query($id: ID!, $task: ID!) {
      task(id: $id) { history(last: 2) { totalCount nodes {
        position action entityType entityId projectId project { name } actorType actorId
        user { username } agent { name } tokenId before after
      } } }
      events(where: {entityType: {eq: "Task"}, entityId: {eq: $id}, action: {in: [UPDATED]}}) {
        nodes { position } edges { cursor }
      }
      ofProject: events(last: 1, where: {projectId: {eq: $task}}) { nodes { agent { name } } }
    }"""
    variables = {"id": str(world.free.id), "task": str(world.project.id)}
    answer = await world.owner.ask(query, **variables)

    owner = world.people.users["owner"]
    (token,) = await stored(
        world.database, "SELECT id FROM access_tokens WHERE user_id = :id", id=owner.id
    )
    shared = {
        "action": "UPDATED",
        "entityType": "Task",
        "entityId": gid(world.free),
        "projectId": gid(world.project),
        "project": {"name": "Moon base"},
        "actorType": "USER",
        "actorId": gid(owner),
        "user": {"username": "owner"},
        "agent": None,
        "tokenId": global_id("AccessToken", token),
    }
    last = await stored(world.database, "SELECT max(position) FROM events")
    total = answer.data["task"]["history"].pop("totalCount")
    (created,) = await stored(
        world.database,
        "SELECT count(*) FROM events WHERE entity_id = :id AND entity_type = 'Task'",
        id=str(world.free.id),
    )
    assert total == created
    nodes = answer.data["task"]["history"]["nodes"]
    places = [int(node.pop("position")) for node in nodes]
    assert nodes == [
        shared | {"before": {"title": world.free.title}, "after": {"title": "Dig deeper"}},
        shared | {"before": {"title": "Dig deeper"}, "after": {"title": "Dig on"}},
    ]
    assert before < places[0] < places[1] < last[0]
    found = answer.data["events"]
    assert [node["position"] for node in found["nodes"]][-2:] == [str(place) for place in places]
    assert answer.data["ofProject"] == {"nodes": [{"agent": {"name": world.ada.name}}]}
    # Whoever has the cursor of an event gets the next ones.
    after = found["edges"][-2]["cursor"]
    query = "query($after: String) { events(first: 1, after: $after) { nodes { position } } }"
    answer = await world.owner.ask(query, after=after)
    assert answer.data["events"]["nodes"][0]["position"] >= str(places[0] + 1)
    assert len(answer.statements) == 1


async def test_events_are_found_by_who_made_them_and_what_they_are_about(
    world: WholeWorld,
) -> None:
    await world.owner.change(
        "updateTask { userErrors { code } }", id=gid(world.free), title="Dig on"
    )
    await number_all(world.database)
    owner = world.people.users["owner"]
    query = """query($where: EventFilter!) { events(where: $where) { nodes {
        projectId entityType entityId action actorType actorId } } }"""
    where = {
        "projectId": {"eq": gid(world.project)},
        "entityType": {"eq": "Task"},
        "entityId": {"eq": gid(world.free)},
        "action": {"eq": "UPDATED"},
        "actorType": {"eq": "USER"},
        "actorId": {"eq": gid(owner)},
    }
    found = {name: operators["eq"] for name, operators in where.items()}

    async def events(where: Any) -> Any:
        return (await world.owner.ask(query, where=where)).data["events"]["nodes"]

    assert await events(where) == [found]
    assert await events(where | {"actorId": {"in": [str(owner.id)]}}) == [found]
    others = {
        "projectId": str(db.new_id()),
        "entityType": "Agent",
        "entityId": gid(world.project),
        "action": "CREATED",
        "actorType": "AGENT",
        "actorId": gid(world.ada),
    }
    for name, other in others.items():
        assert await events(where | {name: {"eq": other}}) == [], name
    answer = await world.owner.ask(query, where={"actorId": {"eq": "owner"}})
    assert answer.code == "BAD_USER_INPUT"


async def test_of_hidden_rows_events_show_only_ids(world: WholeWorld) -> None:
    stranger, admin = (world.people.users[name] for name in ("stranger", "admin"))
    async with world.database.write(ADMINISTRATOR) as session:
        talk = await factories.make_conversation(
            session, project_id=world.project.id, user_id=stranger.id
        )
    await world.people.admin.change(
        "updateTask { userErrors { code } }", id=gid(world.free), title="Dig on"
    )
    await number_all(world.database)
    query = """query($talk: ID!, $stranger: ID!, $admin: ID!) {
      conversation(id: $talk) { user { username } history { nodes { after } } }
      events(last: 1) { nodes { actorId user { username } } }
      stranger: user(id: $stranger) { username }
      admin: user(id: $admin) { username }
    }"""
    answer = await world.owner.ask(query, talk=gid(talk), stranger=gid(stranger), admin=gid(admin))

    shown = answer.data["conversation"]
    assert shown["user"] is None
    assert shown["history"]["nodes"][0]["after"]["user_id"] == str(stranger.id)
    assert answer.data["events"]["nodes"] == [{"actorId": gid(admin), "user": None}]
    assert answer.data["stranger"] is None
    assert answer.data["admin"] is None
    for user in (stranger, admin):
        assert user.email not in answer.text


async def test_events_without_a_position_are_seen_by_nobody(world: WholeWorld) -> None:
    query = "{ events { totalCount nodes { position } } project: projects { nodes { history {"
    query += " totalCount nodes { position } } } } }"
    for client in (world.people.admin, world.owner):
        answer = await client.ask(query)
        assert answer.data["events"] == {"totalCount": 0, "nodes": []}
        for node in answer.data["project"]["nodes"]:
            assert node["history"] == {"totalCount": 0, "nodes": []}


@pytest.mark.parametrize("way", ["compiler", "resolvers"])
async def test_events_are_seen_by_whoever_sees_what_they_are_about(
    world: WholeWorld, resolvers: People, way: str
) -> None:
    people = world.people if way == "compiler" else resolvers
    await number_all(world.database)
    everything = await Everything.read(world.database)
    viewers: dict[str, tuple[Client, Someone]] = {
        name: (getattr(people, name), user) for name, user in world.people.users.items()
    }
    http = people.owner._http
    viewers["agent"] = (world.agent.through(http), world.ada)
    viewers["viewer"] = (world.members[db.MemberRole.VIEWER].through(http), world.viewer)
    seen = {}
    for name, (client, someone) in viewers.items():
        found: list[str] = []
        after = None
        while after is not None or not found:
            query = """query($after: String) { events(first: 100, after: $after) {
                totalCount nodes { position } pageInfo { hasNextPage endCursor } } }"""
            page = (await client.ask(query, after=after)).data["events"]
            found += [node["position"] for node in page["nodes"]]
            assert page["totalCount"] >= len(found)
            after = page["pageInfo"]["endCursor"] if page["pageInfo"]["hasNextPage"] else None
            if not page["nodes"]:
                break
        expected = [e.position for e in everything.of(db.Event) if everything.sees(someone, e)]
        assert found == [str(position) for position in sorted(expected)]
        seen[name] = {
            event.entity_type
            for event in everything.of(db.Event)
            if str(event.position) in found and event.project_id == world.project.id
        }
    assert "AccessToken" in seen["admin"] & seen["owner"]
    assert "AccessToken" not in seen["agent"] | seen["viewer"]
    assert seen["viewer"] >= {"Project", "Task", "Message"}
    assert seen["stranger"] == set()


async def test_the_history_of_a_deleted_project_is_for_administrators(world: WholeWorld) -> None:
    id = gid(world.project)
    await world.owner.change("deleteProject { userErrors { code } }", id=id)
    await number_all(world.database)
    query = """query($id: ID!) { events(last: 1, where: {projectId: {eq: $id},
        entityType: {eq: "Project"}}) { nodes { action projectId project { id } before } } }"""

    (event,) = (await world.people.admin.ask(query, id=id)).data["events"]["nodes"]
    assert event.pop("before")["name"] == "Moon base"
    assert event == {"action": "DELETED", "projectId": id, "project": None}
    assert (await world.owner.ask(query, id=id)).data["events"]["nodes"] == []


async def test_events_are_followed_from_the_command_line(
    database: db.Database, database_url: URL, project: db.Project, tmp_path: Path
) -> None:
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    someone = db.new_id()
    async with database.write(db.Viewer(user_id=someone)) as session:
        await (await session.get_one(db.Project, project.id)).update(session, name="Mars base")
    await by_hand(database, "INSERT INTO users (username, email) VALUES ('kim', 'kim@localhost')")

    def follow(*arguments: str, lines: int) -> list[str]:
        with Process(tmp_path, "events", "tail", *arguments, database_url=url) as process:
            until(lambda: process.out.count("\n") >= lines or not process.is_running)
            assert process.is_running, process.err
            ended = process.stop(signal.SIGINT)
        assert (ended.status, ended.err) == (130, "")
        return ended.out.splitlines()

    shown = await asyncio.to_thread(
        follow, "--after", "0", "--project", "Mars base", "--json", lines=2
    )
    # The administrator is created by the command.
    lines = [json.loads(line) for line in shown]
    assert [(line["position"], line["action"]) for line in lines] == [
        ("1", "CREATED"),
        ("2", "UPDATED"),
    ]
    # All that the API has of an event itself, in its names, ids and formats.
    event = schema._schema.type_map["Event"]
    assert isinstance(event, GraphQLObjectType)
    leaves = [
        name for name, field in event.fields.items() if is_leaf_type(get_named_type(field.type))
    ]
    api = API(database, db.Viewer(is_administrator=True))
    where, fields = "{projectId: {eq: $id}}", " ".join(leaves)
    query = f"query($id: ID) {{ events(where: {where}) {{ nodes {{ {fields} }} }} }}"
    assert (await api.read(query, id=str(project.id)))["events"]["nodes"] == lines
    named, created, *_ = await asyncio.to_thread(follow, "--after", "1", lines=2)
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    what = f'UPDATED Project {project.id} "Mars base" by user {someone}'
    assert re.fullmatch(f'2 {moment} {what}: name "Moon base" → "Mars base"', named)
    assert re.fullmatch(rf'3 {moment} CREATED User \S+ "kim" by the server', created)


async def test_old_events_are_dropped_from_the_command_line(
    database: db.Database, database_url: URL, project: db.Project
) -> None:
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    for days in (5, 50, 500):
        await rename(database, project, f"{days} days ago")
        await number_all(database)
        await by_hand(
            database,
            "UPDATE events SET created_at = now() - make_interval(days => :days)"
            " WHERE id = (SELECT max(id) FROM events)",
            days=days,
        )

    async def prune(*arguments: str, event_days: int | None = None) -> list[str]:
        run = partial(troupe_here, "events", "prune", *arguments, database_url=url)
        run = partial(run, event_days=event_days)
        printed = (await asyncio.to_thread(run)).printed
        assert re.fullmatch(r"Events since \d{4}-\d\d-\d\d are kept.*\n", printed)
        query = """SELECT "after"->>'name' FROM events WHERE action = 'UPDATED' ORDER BY id"""
        return await stored(database, query)

    assert await prune() == ["5 days ago", "50 days ago"]
    assert await prune(event_days=49) == ["5 days ago"]
    assert await prune("--days", "4") == []
    # Positions go on.
    await rename(database, project, "now")
    await number_all(database)
    assert (await positions(database))[-1][0] == (
        await stored(database, "SELECT last_position FROM event_positions")
    )[0]
