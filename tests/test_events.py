"""The event log: what is written for a change, by whom, and in which order it is read."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

import db
from db.base import insert_many
from db.events import triggers
from tests import factories
from tests.world import stored

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
    assert moment.replace("0+00:00", "+00:00") in (created, created.replace("0+00:00", "+00:00"))
    assert after == {
        "id": str(id),
        "name": "Moon base",
        "description": {"a": [None, 1.1]},
        "status": "DRAFT",
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
        "users.password_hash",
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
        await factories.make_usage(
            session, project, model, message_id=messages[0].id, attempt_id=attempts[1].id
        )
        approval = db.ApprovalRequest(title="May I?", content={}, content_hash="")
        approval.project_id, approval.task_id = project.id, dig.id
        session.add(approval)
    return project


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
    assert list(found) == ["log_truncate"]
