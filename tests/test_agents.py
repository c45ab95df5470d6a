"""Agents: made for a project, changed, moved through their life, and deleted."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import (
    AgentStatus,
    Right,
    TaskStatus,
    agent_subscriptions,
    claims,
    communications,
    conversations,
    requests,
    terminations,
    usage,
)
from db.errors import Denied
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import ADMIN, People
from tests.oracle import by_members
from tests.world import Case, Fault, World, at, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ agent { id name type description status isActive promptTemplate configuration"
    " maxConcurrentTasks lastSeenAt metadata version project { id } model { name } }"
    f" {ERRORS} }}"
)
BREAKING = {
    "agents": {"max_concurrent_tasks_positive": ["max_concurrent_tasks = 0"]},
}
SEEN = {db.Agent: by_members}
CASES = {
    "createAgent": Case(
        lambda w: {"projectId": gid(w.project), "name": "New", "type": "TESTER"}, at("projectId")
    ),
    "updateAgent": Case(lambda w: {"id": gid(w.ada), "name": "Newer"}),
    "transitionAgent": Case(lambda w: {"id": gid(w.ada), "to": "ACTIVE"}),
    "deleteAgent": Case(lambda w: {"id": gid(w.ada)}),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_an_agent_is_made_with_what_is_given(world: World) -> None:
    id = db.new_id()

    payload = await world.owner.change(
        f"createAgent {WHOLE}",
        id=str(id),
        projectId=gid(world.project),
        name="Grace",
        type="RESEARCHER",
        description="Reads.",
        isActive=False,
        modelId="gpt-4o",
        promptTemplate="You are {name}.",
        configuration={"temperature": 0.5},
        maxConcurrentTasks=4,
        metadata={"team": "red"},
    )

    assert payload == {
        "agent": {
            "id": global_id("Agent", id),
            "name": "Grace",
            "type": "RESEARCHER",
            "description": "Reads.",
            "status": "CREATED",
            "isActive": False,
            "promptTemplate": "You are {name}.",
            "configuration": {"temperature": 0.5},
            "maxConcurrentTasks": 4,
            "lastSeenAt": None,
            "metadata": {"team": "red"},
            "version": 1,
            "project": {"id": gid(world.project)},
            "model": {"name": "gpt-4o"},
        },
        "userErrors": [],
    }
    columns = "project_id, name, is_active, model_id, configuration::text, max_concurrent_tasks"
    query = f"SELECT {columns} FROM agents WHERE id = :id"
    assert await stored(world.database, query, id=id) == [
        (world.project.id, "Grace", False, "gpt-4o", '{"temperature": 0.5}', 4)
    ]


async def test_an_agent_needs_only_a_project_a_name_and_a_type(world: World) -> None:
    payload = await world.owner.change(
        f"createAgent {WHOLE}", projectId=str(world.project.id), name="Grace", type="TESTER"
    )

    agent = payload["agent"]
    assert (agent["isActive"], agent["maxConcurrentTasks"], agent["version"]) == (True, 1, 1)
    assert (agent["configuration"], agent["metadata"], agent["model"]) == ({}, {}, None)
    assert (agent["description"], agent["promptTemplate"]) == (None, None)


async def test_a_name_is_unique_in_its_project_only(world: World) -> None:
    grace = {"name": "Bob", "type": "TESTER"}
    made = await world.owner.change(f"createAgent {WHOLE}", projectId=gid(world.project), **grace)

    again = await world.refused(world.owner, "createAgent", projectId=gid(world.project), **grace)
    renamed = await world.refused(world.owner, "updateAgent", id=gid(world.ada), name="Bob")

    assert made["agent"]["name"] == "Bob"  # the stranger's project has one too
    assert again == renamed == [("ALREADY_EXISTS", "name")]


async def test_an_id_that_is_taken_is_refused(world: World) -> None:
    for taken in (world.ada, world.bob):
        found = await world.refused(
            world.owner,
            "createAgent",
            id=gid(taken),
            projectId=gid(world.project),
            name="Grace",
            type="TESTER",
        )

        assert found == [("ALREADY_EXISTS", "id")]


async def test_what_an_update_leaves_out_stays_and_null_clears(world: World) -> None:
    id = gid(world.ada)
    await world.owner.change(
        f"updateAgent {WHOLE}", id=id, description="Writes.", promptTemplate="Go."
    )

    changed = await world.owner.change(
        f"updateAgent {WHOLE}", id=id, type="WRITER", maxConcurrentTasks=1000, isActive=False
    )
    cleared = await world.owner.change(
        f"updateAgent {WHOLE}", id=id, description=None, promptTemplate=None, modelId=None
    )

    agent = changed["agent"]
    assert (agent["type"], agent["maxConcurrentTasks"], agent["isActive"]) == (
        "WRITER",
        1000,
        False,
    )
    assert (agent["name"], agent["description"], agent["promptTemplate"]) == (
        "Ada",
        "Writes.",
        "Go.",
    )
    assert (agent["model"], agent["version"]) == ({"name": "gpt-4o"}, 3)
    empty = {"description": None, "promptTemplate": None, "model": None, "version": 4}
    assert cleared["agent"] == agent | empty


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    found = await world.refused(
        world.owner,
        "createAgent",
        id=gid(world.project),
        projectId=gid(world.ada),
        name="",
        type="x" * 256,
        modelId=gid(world.ada),
        maxConcurrentTasks=0,
        configuration=[],
        metadata=1,
        description="x" * 1_000_001,
    )

    paths = "id projectId name type description modelId configuration maxConcurrentTasks metadata"
    assert found == [("INVALID", path) for path in paths.split()]


async def test_a_name_is_the_same_however_its_accents_are_typed(world: World) -> None:
    agent = {"projectId": gid(world.project), "type": "TESTER"}
    made = await world.owner.change(f"createAgent {WHOLE}", **agent, name="Re\u0301my")
    again = await world.refused(world.owner, "createAgent", **agent, name="R\u00e9my")
    other = {"id": gid(world.ada), "name": "Re\u0301my"}

    assert made["agent"]["name"] == "R\u00e9my"
    assert again == [("ALREADY_EXISTS", "name")]
    assert await world.refused(world.owner, "updateAgent", **other) == [("ALREADY_EXISTS", "name")]
    # Their case tells agents apart, unlike users.
    upper = await world.owner.change(f"createAgent {{ {ERRORS} }}", **agent, name="R\u00c9MY")
    assert upper["userErrors"] == []


async def test_unusable_values_are_refused(world: World) -> None:
    new = {"projectId": gid(world.project), "name": "Grace", "type": "TESTER"}
    ada = {"id": gid(world.ada)}
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("createAgent", new | {"maxConcurrentTasks": 1001}, [("INVALID", "maxConcurrentTasks")]),
        ("createAgent", new | {"maxConcurrentTasks": -1}, [("INVALID", "maxConcurrentTasks")]),
        ("createAgent", new | {"modelId": "nobody"}, [("NOT_FOUND", "modelId")]),
        ("createAgent", new | {"projectId": str(db.new_id())}, [("NOT_FOUND", "projectId")]),
        ("createAgent", new | {"projectId": gid(world.elsewhere)}, [("NOT_FOUND", "projectId")]),
        ("updateAgent", ada | {"modelId": "nobody"}, [("NOT_FOUND", "modelId")]),
        ("updateAgent", ada | {"maxConcurrentTasks": None}, [("INVALID", "maxConcurrentTasks")]),
        (
            "updateAgent",
            ada | {"name": None, "type": ""},
            [("INVALID", "name"), ("INVALID", "type")],
        ),
        ("updateAgent", ada | {"isActive": None}, [("INVALID", "isActive")]),
        ("updateAgent", ada | {"configuration": None}, [("INVALID", "configuration")]),
        ("updateAgent", ada | {"expectedVersion": 2}, [("CONFLICT", "expectedVersion")]),
        ("updateAgent", {"id": gid(world.bob), "name": "Mine"}, [("NOT_FOUND", "id")]),
        ("deleteAgent", ada | {"expectedVersion": 0}, [("CONFLICT", "expectedVersion")]),
        ("deleteAgent", {"id": gid(world.bob)}, [("NOT_FOUND", "id")]),
        (
            "transitionAgent",
            ada | {"to": "READY", "expectedVersion": 5},
            [("CONFLICT", "expectedVersion")],
        ),
    ]
    for mutation, input, expected in cases:
        assert await world.refused(world.owner, mutation, **input) == expected, (mutation, input)


async def test_what_is_no_value_of_the_type_is_refused(world: World) -> None:
    new = {"projectId": gid(world.project), "name": "Grace", "type": "TESTER"}
    for bad in ({"maxConcurrentTasks": 2**31}, {"isActive": "yes"}, {"maxConcurrentTasks": 1.5}):
        assert await world.error(world.owner, "createAgent", **new, **bad) == "BAD_USER_INPUT", bad
    code = await world.error(world.owner, "transitionAgent", id=gid(world.ada), to="ASLEEP")
    assert code == "BAD_USER_INPUT"


# Written down a second time, by hand: a test that read the code's own table would find it right.
MOVES = {
    "CREATED": ["INITIALIZING", "READY", "ERROR", "TERMINATED"],
    "INITIALIZING": ["READY", "ERROR", "TERMINATED"],
    "READY": ["ACTIVE", "ERROR", "TERMINATED"],
    "ACTIVE": ["PAUSED", "ERROR", "TERMINATED"],
    "PAUSED": ["ACTIVE", "ERROR", "TERMINATED"],
    "ERROR": ["INITIALIZING", "TERMINATED"],
    "TERMINATED": [],
}


@pytest.mark.parametrize("current", AgentStatus)
async def test_an_agent_moves_only_as_its_state_machine_allows(
    database: db.Database, people: People, current: AgentStatus
) -> None:
    selection = (
        "{ agent { status version } userErrors { code path message ... on IllegalTransition {"
        " current allowed } } }"
    )
    allowed = [AgentStatus(to) for to in MOVES[current]]
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await factories.make_project(session, people.users["owner"])
    for to in AgentStatus:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            agent = await factories.make_agent(session, project, to, status=current)

        payload = await people.owner.change(
            f"transitionAgent {selection}", id=gid(agent), to=to.value
        )

        now = f"{current} already" if to is current else current
        if allowed:
            end = f" and can go only to {', '.join(allowed)}"
            end += "" if to is current else f", not to {to}"
        else:
            end = ", which is final" + ("" if to is current else f"; it cannot be {to}")
        if to in allowed:
            assert payload == {"agent": {"status": to.value, "version": 2}, "userErrors": []}
        else:
            (error,) = payload["userErrors"]
            assert error == {
                "code": "ILLEGAL_TRANSITION",
                "path": ["to"],
                "message": f"This agent is {now}{end}.",
                "current": current.value,
                "allowed": [state.value for state in allowed],
            }
        assert await stored(
            database, "SELECT status, version FROM agents WHERE id = :id", id=agent.id
        ) == [(to, 2) if to in allowed else (current, 1)]


def test_every_state_of_an_agent_can_be_reached_and_left() -> None:
    table = db.Agent.transitions.table
    reached = {AgentStatus.CREATED}.union(*table.values())

    assert set(table) == reached == set(AgentStatus)
    assert [state for state in AgentStatus if not table[state]] == [AgentStatus.TERMINATED]


async def test_an_agent_goes_and_what_it_did_stays(world: World) -> None:
    ada = world.ada
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        for status in TaskStatus:
            held = db.BlockedReason.MANUAL if status is TaskStatus.BLOCKED else None
            await factories.make_task(
                session,
                world.project,
                status,
                status=status,
                blocked_reason=held,
                agent_id=ada.id,
                created_by_agent_id=ada.id,
            )
        await factories.make_messages(
            session,
            await factories.make_conversation(session, project_id=world.project.id),
            ["Done."],
            sender=db.MessageSender.ASSISTANT,
            agent_id=ada.id,
        )
    before = await snapshot(world.database)

    payload = await world.owner.change(
        f"deleteAgent {{ deletedId {ERRORS} }}", id=gid(ada), expectedVersion=1
    )

    assert payload == {"deletedId": gid(ada), "userErrors": []}
    after = await snapshot(world.database)
    assert {table: len(rows) for table, rows in after.items()} == {
        table: len(rows) - (table in ("agents", "access_tokens")) for table, rows in before.items()
    }
    # Nobody has it any more; what waited for this agent waits for another now.
    assert await stored(
        world.database,
        "SELECT title, status, version FROM tasks WHERE title = ANY(:all) AND agent_id IS NULL"
        " AND created_by_agent_id IS NULL ORDER BY id",
        all=list(TaskStatus),
    ) == [
        (status, TaskStatus.PENDING, 2)
        if status is TaskStatus.ASSIGNED
        else (status, status, 2 if status is TaskStatus.BLOCKED else 1)
        for status in TaskStatus
    ]
    assert await stored(world.database, "SELECT count(*) FROM messages WHERE agent_id IS NULL") == [
        2
    ]


@pytest.mark.parametrize("change", ["transitionAgent", "deleteAgent"])
async def test_an_agent_ends_in_turns_with_all_that_ends_tasks(world: World, change: str) -> None:
    """Whoever cancels a task with its subtasks locks them in another order: it deadlocked."""
    ending = {"to": "TERMINATED"} if change == "transitionAgent" else {}
    async with world.database.write(ADMIN) as session:
        lock = f"SELECT FROM projects WHERE id = '{world.project.id}' FOR NO KEY UPDATE"
        await session.execute(text(lock))
        end = world.owner.change(f"{change} {{ {ERRORS} }}", id=gid(world.ada), **ending)
        ended = asyncio.create_task(end)
        await asyncio.sleep(0.3)
        for table in ("agents", "tasks"):
            free = f"SELECT count(*) FROM (SELECT FROM {table} FOR UPDATE SKIP LOCKED) free"
            all = await session.scalar(text(f"SELECT count(*) FROM {table}"))
            assert await session.scalar(text(free)) == all
        assert not ended.done()
    assert await ended == {"userErrors": []}


async def test_the_token_of_a_deleted_agent_opens_nothing(world: World) -> None:
    seen = await world.agent.ask("{ projects { nodes { name } } }")
    await world.owner.change("deleteAgent { deletedId }", id=gid(world.ada))

    gone = await world.agent.ask("{ projects { nodes { name } } }")

    assert seen.data == {"projects": {"nodes": [{"name": "Moon base"}]}}
    assert gone.code == "UNAUTHENTICATED"


async def test_when_an_agent_was_last_seen(world: World, resolvers: People) -> None:
    query = """query($id: ID!, $at: DateTime) {
      agent(id: $id) { lastSeenAt }
      agents(where: {lastSeenAt: {gte: $at}}) { nodes { name } }
    }"""

    async def seen() -> str | None:
        variables = {"id": gid(world.ada), "at": "2020-01-01T00:00:00Z"}
        answer = await world.owner.ask(query, **variables)
        assert answer.text == (await resolvers.owner.ask(query, **variables)).text
        at: str | None = answer.data["agent"]["lastSeenAt"]
        names = [node["name"] for node in answer.data["agents"]["nodes"]]
        assert names == ([] if at is None else ["Ada"])
        return at and at.removesuffix("-01-01T00:00:00+00:00")

    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE access_tokens SET last_used_at = NULL"))
    assert await seen() is None
    async with world.database.write(ADMIN) as session:
        await factories.make_claimed(session, world.ada)
        await session.execute(text("UPDATE task_leases SET heartbeat_at = '2000-01-01T00:00Z'"))
    for year, change in (
        ("2021", "task_attempts SET started_at"),
        ("2022", "task_leases SET heartbeat_at"),
        ("2023", "access_tokens SET last_used_at"),
    ):
        async with world.database.write(ADMIN) as session:
            own = {"id": world.ada.id}
            changed = f"UPDATE {change} = '{year}-01-01T00:00Z' WHERE agent_id = :id"
            await session.execute(text(changed), own)
        assert await seen() == year
    await world.agent.ask("{ viewer { rights } }")
    assert (await seen() or "") > "2023"


async def test_an_agent_changes_its_own_status_and_no_others(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
    for to in ("INITIALIZING", "READY", "ACTIVE"):
        payload = await world.agent.change(
            "transitionAgent { agent { status } userErrors { code } }", id=gid(world.ada), to=to
        )
        assert payload == {"agent": {"status": to}, "userErrors": []}
    code = await world.error(world.agent, "transitionAgent", id=gid(eve), to="INITIALIZING")
    assert code == "FORBIDDEN"


Act = Callable[[db.WriteSession, World, db.Agent], Awaitable[Any]]
SAID: dict[str, Any] = {"type": "NEWS", "content": {}}
ACTS: dict[str, Act] = {
    "claims": lambda session, _, eve: claims.claim(session, eve.id),
    "sends": lambda session, world, eve: communications.send(
        session, SAID | {"from_agent_id": eve.id, "to_agent_id": world.ada.id}
    ),
    "broadcasts": lambda session, _, eve: communications.broadcast(session, eve.id, SAID),
    "receives": lambda session, _, eve: communications.receive(session, eve.id, 1, 60),
    "subscribes": lambda session, _, eve: agent_subscriptions.subscribe(session, eve.id, "a"),
    "unsubscribes": lambda session, _, eve: agent_subscriptions.unsubscribe(
        session, eve.id, "news"
    ),
    "records usage": lambda session, world, eve: usage.record_usage(
        session, world.project.id, {(0,): {"model_name": "x", "agent_id": eve.id}}
    ),
    "asks people": lambda session, world, eve: requests.add(
        session,
        db.FeedbackRequest,
        {"project_id": world.project.id, "title": "x", "content": {}, "agent_id": eve.id},
    ),
    "starts a conversation": lambda session, world, eve: conversations.start(
        session, {"project_id": world.project.id, "agent_id": eve.id}
    ),
    "writes a message": lambda session, world, eve: conversations.append(
        session,
        world.conversation.id,
        {(0,): {"sender": db.MessageSender.ASSISTANT, "content": "x", "agent_id": eve.id}},
    ),
    "changes its status": lambda session, _, eve: terminations.transition_agent(
        session, eve.id, AgentStatus.INITIALIZING
    ),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_an_agent_acts_only_in_its_own_name(world: World, act: Act) -> None:
    """Whoever calls the rules, and not only through GraphQL."""
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        eve = await factories.make_agent(session, world.project, "Eve", status=AgentStatus.CREATED)
        session.add(db.AgentSubscription(agent_id=eve.id, topic="news"))
        await factories.make_communication(session, world.ada, eve)
    before = await snapshot(world.database)

    with pytest.raises(Denied, match="own name"):
        async with world.database.write(db.Viewer(agent_id=world.ada.id), Right.WORK) as session:
            await act(session, world, eve)

    assert await snapshot(world.database) == before


def test_the_rule_of_own_names_is_no_business_of_slices() -> None:
    for path in Path("graph").rglob("*.py"):
        assert "in_own_name" not in path.read_text(encoding="utf-8"), path
