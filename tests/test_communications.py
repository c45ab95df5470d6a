"""Communications: messages from agent to agent, their answers, and what they are about."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import communications
from graph.core.scalars import global_id, key_text
from tests import factories
from tests.conftest import ADMIN, People
from tests.oracle import by_members
from tests.world import Case, Fault, World, at, faults, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ communication { id type content priority status correlationId deliveredAt acknowledgedAt"
    " expiresAt metadata project { name } fromAgent { name } toAgent { name } task { title }"
    f" replyTo {{ type }} replies {{ totalCount }} sentAt createdAt }} {ERRORS} }}"
)


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@pytest.fixture
async def eve(world: World) -> db.Agent:
    """A colleague of Ada's."""
    async with world.database.write(ADMIN) as session:
        return await factories.make_agent(session, world.project, "Eve")


def from_to(sender: db.Agent, receiver: db.Agent, type: str, **values: Any) -> dict[str, Any]:
    """Input that says something in an agent's name to another."""
    agents = {"fromAgentId": gid(sender), "toAgentId": gid(receiver)}
    return agents | {"type": type, "content": {"text": type}} | values


def to_all(sender: db.Agent, **values: Any) -> dict[str, Any]:
    """Input that says something in an agent's name to all others."""
    return {"fromAgentId": gid(sender), "type": "NEWS", "content": {"n": 1}} | values


BREAKING = {
    "communications": {"priority_range": ["priority = 0", "priority = 6"]},
}
SEEN = {db.Communication: by_members}
CASES = {
    "sendCommunication": Case(lambda w: from_to(w.ada, w.ada, "REQUEST"), at("fromAgentId")),
    "reply": Case(
        lambda w: {"replyToId": gid(w.communication), "type": "ANSWER", "content": {}},
        at("replyToId"),
    ),
    "broadcast": Case(lambda w: to_all(w.ada), at("fromAgentId")),
    "publish": Case(lambda w: to_all(w.ada, topic="news"), at("fromAgentId")),
    "receiveCommunications": Case(lambda w: {"agentId": gid(w.ada)}, at("agentId")),
    "acknowledgeCommunications": Case(lambda w: {"ids": [gid(w.communication)]}, at("ids.0")),
}


async def execute(world: World, statement: str) -> None:
    """Change rows by SQL."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text(statement))


async def send(world: World, *said: Any, **values: Any) -> str:
    """Send a communication and return its id."""
    payload = await world.owner.change(
        f"sendCommunication {{ communication {{ id }} {ERRORS} }}", **from_to(*said, **values)
    )
    assert payload["userErrors"] == []
    return str(payload["communication"]["id"])


async def test_a_communication_is_sent_with_what_is_given(world: World, eve: db.Agent) -> None:
    id = db.new_id()
    first = await send(world, eve, world.ada, "QUESTION")

    answer = await world.owner.ask(
        f"mutation($input: SendCommunicationInput!) {{ sendCommunication(input: $input) {WHOLE} }}",
        input=from_to(
            world.ada,
            eve,
            "ANSWER",
            id=str(id),
            content=["text", {"n": 1.50}],
            priority=5,
            correlationId="talk-1",
            replyToId=first,
            taskId=gid(world.free),
            expiresAt="2030-01-01T01:00:00+01:00",
            metadata={"k": 1},
        ),
    )

    shown = answer.data["sendCommunication"]["communication"]
    assert shown.pop("sentAt") == shown.pop("createdAt")
    assert answer.data["sendCommunication"] == {
        "communication": {
            "id": global_id("Communication", id),
            "type": "ANSWER",
            "content": ["text", {"n": 1.5}],
            "priority": 5,
            "status": "SENT",
            "correlationId": "talk-1",
            "deliveredAt": None,
            "acknowledgedAt": None,
            "expiresAt": "2030-01-01T00:00:00+00:00",
            "metadata": {"k": 1},
            "project": {"name": "Moon base"},
            "fromAgent": {"name": "Ada"},
            "toAgent": {"name": "Eve"},
            "task": {"title": "Free"},
            "replyTo": {"type": "QUESTION"},
            "replies": {"totalCount": 0},
        },
        "userErrors": [],
    }
    # The row, with all checks; and the reading of it with its replies.
    assert len(answer.statements) == 2
    query = "SELECT project_id, priority, content::text FROM communications WHERE id = :id"
    assert await stored(world.database, query, id=id) == [
        (world.project.id, 5, '["text", {"n": 1.5}]')
    ]


async def test_a_communication_needs_only_two_agents_a_type_and_a_content(
    world: World, eve: db.Agent
) -> None:
    payload = await world.owner.change(
        f"sendCommunication {WHOLE}", **from_to(world.ada, eve, "HELLO")
    )

    shown = payload["communication"]
    assert (shown["priority"], shown["status"], shown["metadata"]) == (3, "SENT", {})
    nothing = ("correlationId", "expiresAt", "task", "replyTo", "deliveredAt", "acknowledgedAt")
    assert [shown[name] for name in nothing] == [None] * 6


async def test_agents_say_things_both_ways(world: World, eve: db.Agent, resolvers: People) -> None:
    question = await send(world, world.ada, eve, "QUESTION", taskId=gid(world.free))
    for place in range(3):
        await send(world, eve, world.ada, f"ANSWER {place}", replyToId=question)
    later = await send(world, world.ada, eve, "THANKS", replyToId=question, priority=1)
    query = (
        "query($ada: ID!, $id: ID!, $task: ID!) {"
        " communication(id: $id) { replies(orderBy: SENT_AT_ASC) { totalCount nodes { type"
        " fromAgent { name } toAgent { name } replyTo { type } } } }"
        " agent(id: $ada) { sentCommunications(orderBy: SENT_AT_ASC) { nodes { type } }"
        " receivedCommunications(orderBy: SENT_AT_DESC, first: 2) { nodes { type } } }"
        " task(id: $task) { communications { nodes { type } } }"
        " projects { nodes { communications(orderBy: PRIORITY_ASC, first: 1) { totalCount nodes {"
        " type } } } } }"
    )

    texts = set()
    for people, statements in ((world.people, 1), (resolvers, 11)):
        answer = await people.owner.ask(
            query, ada=gid(world.ada), id=question, task=gid(world.free)
        )

        texts.add(answer.text)
        assert len(answer.statements) <= statements
    (answer_text,) = texts
    assert later not in answer_text
    back: dict[str, Any] = {"fromAgent": {"name": "Eve"}, "toAgent": {"name": "Ada"}}
    forth: dict[str, Any] = {"fromAgent": {"name": "Ada"}, "toAgent": {"name": "Eve"}}
    asked: dict[str, Any] = {"replyTo": {"type": "QUESTION"}}
    assert answer.data == {
        "communication": {
            "replies": {
                "totalCount": 4,
                "nodes": [
                    *({"type": f"ANSWER {place}"} | back | asked for place in range(3)),
                    {"type": "THANKS"} | forth | asked,
                ],
            }
        },
        "agent": {
            "sentCommunications": {"nodes": [{"type": "QUESTION"}, {"type": "THANKS"}]},
            "receivedCommunications": {"nodes": [{"type": "ANSWER 2"}, {"type": "ANSWER 1"}]},
        },
        "task": {"communications": {"nodes": [{"type": "QUESTION"}]}},
        "projects": {
            "nodes": [{"communications": {"totalCount": 5, "nodes": [{"type": "THANKS"}]}}]
        },
    }


async def test_communications_are_found_by_what_they_are(world: World, eve: db.Agent) -> None:
    first = await send(world, world.ada, eve, "QUESTION", correlationId="c", priority=5)
    await send(world, eve, world.ada, "ANSWER", replyToId=first, correlationId="c")
    await send(world, world.ada, eve, "NEWS", taskId=gid(world.free), metadata={"k": {"a": 1}})
    query = "query($where: CommunicationFilter) { communications(where: $where,"
    query += " orderBy: SENT_AT_ASC) { totalCount nodes { type } } }"

    for where, types in (
        ({"type": {"in": ["NEWS", "QUESTION"]}}, ["QUESTION", "NEWS"]),
        ({"fromAgentId": {"eq": gid(eve)}}, ["ANSWER"]),
        ({"toAgent": {"name": {"eq": "Eve"}}}, ["QUESTION", "NEWS"]),
        ({"correlationId": {"eq": "c"}}, ["QUESTION", "ANSWER"]),
        ({"replyToId": {"eq": first}}, ["ANSWER"]),
        ({"replyToId": {"isNull": True}}, ["QUESTION", "NEWS"]),
        ({"task": {"title": {"eq": "Free"}}}, ["NEWS"]),
        ({"priority": {"gt": 3}}, ["QUESTION"]),
        ({"status": {"not": "SENT"}}, []),
        ({"metadataContains": {"k": {"a": 1}}}, ["NEWS"]),
    ):
        answer = await world.owner.ask(query, where=where)

        page = answer.data["communications"]
        assert [node["type"] for node in page["nodes"]] == types, where
        assert page["totalCount"] == len(types)
        assert len(answer.statements) == 1


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    project = gid(world.project)
    wrong = dict.fromkeys(("id", "fromAgentId", "toAgentId", "replyToId", "taskId"), project)
    lines = {"type": "", "correlationId": "x" * 256, "priority": 6, "metadata": []}

    found = await world.refused(world.owner, "sendCommunication", content={}, **(wrong | lines))
    unknown = await world.refused(
        world.owner,
        "sendCommunication",
        **from_to(world.ada, world.bob, "X", replyToId=str(db.new_id()), taskId=gid(world.foreign)),
    )

    assert sorted(found) == sorted(("INVALID", name) for name in [*wrong, *lines])
    assert sorted(unknown) == [("NOT_FOUND", name) for name in ("replyToId", "taskId", "toAgentId")]


async def test_only_agents_of_one_project_talk(world: World, eve: db.Agent) -> None:
    async with world.database.write(ADMIN) as session:
        zoe = await factories.make_agent(session, world.elsewhere, "Zoe")
    payload = await world.people.stranger.change(
        "sendCommunication { communication { id } }", **from_to(world.bob, zoe, "THEIRS")
    )
    theirs = payload["communication"]["id"]
    admin, owner = world.people.admin, world.owner
    cases: list[tuple[Any, dict[str, Any], list[Fault]]] = [
        (owner, from_to(world.bob, world.ada, "X"), [("NOT_FOUND", "fromAgentId")]),
        (owner, from_to(world.ada, world.bob, "X"), [("NOT_FOUND", "toAgentId")]),
        (owner, from_to(world.ada, eve, "X", replyToId=theirs), [("NOT_FOUND", "replyToId")]),
        # An administrator sees all, and is told more.
        (admin, from_to(world.bob, world.ada, "X"), [("INVALID", "toAgentId")]),
        (
            admin,
            from_to(world.ada, world.bob, "X", replyToId=theirs, taskId=gid(world.foreign)),
            [("INVALID", "replyToId"), ("INVALID", "taskId"), ("INVALID", "toAgentId")],
        ),
        (owner, from_to(world.ada, eve, "X", id=theirs), [("ALREADY_EXISTS", "id")]),
    ]
    for client, input, expected in cases:
        found = await world.refused(client, "sendCommunication", **input)
        assert sorted(found) == expected, input


async def test_who_may_not_edit_the_project_sends_nothing(world: World, eve: db.Agent) -> None:
    input = from_to(world.ada, eve, "X")
    async with world.database.write(ADMIN) as session:
        key = {"project_id": world.project.id, "user_id": world.people.users["stranger"].id}
        session.add(db.ProjectMember(**key, role=db.MemberRole.APPROVER))

    assert await world.error(world.people.stranger, "sendCommunication", **input) == "FORBIDDEN"
    assert await world.error(world.people.nobody, "sendCommunication", **input) == "UNAUTHENTICATED"


async def test_what_goes_takes_what_it_said_along_and_no_more(world: World, eve: db.Agent) -> None:
    async with world.database.write(ADMIN) as session:
        zoe = await factories.make_agent(session, world.project, "Zoe")
    question = await send(world, eve, world.ada, "QUESTION")
    await send(world, world.ada, zoe, "ABOUT IT", replyToId=question, taskId=gid(world.free))
    before = await snapshot(world.database)

    await world.owner.change("deleteAgent { deletedId }", id=gid(eve))
    await world.owner.change("deleteTask { deletedId }", id=gid(world.free))

    query = "SELECT type, reply_to_id, task_id FROM communications"
    assert await stored(world.database, query) == [("ABOUT IT", None, None)]
    after = await snapshot(world.database)
    for table in ("projects", "messages", "conversations", "human_interactions"):
        assert after[table] == before[table]


async def test_communications_are_hidden_from_other_projects(
    world: World, eve: db.Agent, resolvers: People
) -> None:
    id = await send(world, world.ada, eve, "SECRET")
    query = "query($id: ID!) { communications { totalCount nodes { id } }"
    query += " communication(id: $id) { id } node(id: $id) { id } }"

    for people in (world.people, resolvers):
        hidden = await people.stranger.ask(query, id=id)

        empty = {"communications": {"totalCount": 0, "nodes": []}}
        assert hidden.data == empty | {"communication": None, "node": None}
    seen = await world.agent.ask(query, id=id)
    assert seen.data["communication"] == seen.data["node"] == {"id": id}


# Receiving.

RECEIVE = f"receiveCommunications {{ communications {{ id type status leaseExpiresAt }} {ERRORS} }}"


async def receive(client: Any, **input: Any) -> list[str]:
    """The types of the messages that are received, in order."""
    payload = await client.change(RECEIVE, **input)
    assert payload["userErrors"] == []
    return [each["type"] for each in payload["communications"]]


async def acknowledge(client: Any, *ids: str) -> list[Fault]:
    """Acknowledge messages, and return what is wrong."""
    return faults(await client.change(f"acknowledgeCommunications {{ {ERRORS} }}", ids=list(ids)))


async def test_messages_are_received_the_most_urgent_first_and_once(
    world: World, eve: db.Agent
) -> None:
    for type, priority in (("a", 3), ("b", 5), ("c", 3), ("d", 1)):
        await send(world, eve, world.ada, type, priority=priority)
    await send(world, world.ada, eve, "other")
    await send(world, eve, world.ada, "old", expiresAt="2020-01-01T00:00:00Z")

    assert await receive(world.agent, limit=3) == ["b", "a", "c"]
    assert await receive(world.agent) == ["d"]
    assert await receive(world.agent) == []
    assert await receive(world.owner, agentId=gid(eve)) == ["other"]
    query = "SELECT type, status, delivered_at IS NOT NULL FROM communications ORDER BY type"
    assert await stored(world.database, query) == [
        ("a", "DELIVERED", True),
        ("b", "DELIVERED", True),
        ("c", "DELIVERED", True),
        ("d", "DELIVERED", True),
        ("old", "SENT", False),
        ("other", "DELIVERED", True),
    ]


async def test_receiving_takes_one_statement_and_its_reading(world: World, eve: db.Agent) -> None:
    for number in range(20):
        await send(world, eve, world.ada, str(number))
    for limit, statements in ((1, 2), (10, 2)):
        answer = await world.agent.ask(
            "mutation($input: ReceiveCommunicationsInput!) { receiveCommunications(input: $input)"
            " { communications { type fromAgent { name } } } }",
            input={"limit": limit},
        )
        assert len(answer.data["receiveCommunications"]["communications"]) == limit
        assert len(answer.statements) == statements


async def test_receiving_costs_as_many_as_may_be_received(world: World) -> None:
    query = (
        "mutation($limit: Int!) { receiveCommunications(input: {limit: $limit})"
        " { communications { type fromAgent { name } } } }"
    )
    for limit in (1, 10, 1, 100):
        answer = await world.agent.request(
            query=query, variables={"limit": limit}, extensions={"cost": True}
        )
        assert answer.body["extensions"]["cost"]["cost"] == 1 + limit + limit * 2


async def test_each_message_has_one_receiver(world: World, eve: db.Agent) -> None:
    for _ in range(50):
        sent = {await send(world, eve, world.ada, "x") for _ in range(4)}

        payloads = await asyncio.gather(*(world.agent.change(RECEIVE, limit=2) for _ in range(4)))

        got = [each["id"] for payload in payloads for each in payload["communications"]]
        assert len(got) == len(set(got))
        # One that another had locked is skipped, and is there for the next.
        got += [
            each["id"] for each in (await world.agent.change(RECEIVE, limit=10))["communications"]
        ]
        assert sorted(got) == sorted(sent)


async def test_what_is_not_acknowledged_is_given_again_after_its_lease(
    world: World, eve: db.Agent
) -> None:
    first, second = [await send(world, eve, world.ada, type) for type in ("first", "second")]
    assert await receive(world.agent, leaseSeconds=30) == ["first", "second"]
    assert await acknowledge(world.agent, first) == []
    assert await receive(world.agent) == []

    async with world.database.write(ADMIN) as session:
        passed = "UPDATE communications SET lease_expires_at = now() WHERE status = 'DELIVERED'"
        await session.execute(text(passed))

    assert await receive(world.agent) == ["second"]
    assert await receive(world.agent) == []
    assert await acknowledge(world.agent, first, second) == []
    query = "SELECT status, acknowledged_at IS NOT NULL, lease_expires_at FROM communications"
    assert await stored(world.database, query) == [("ACKNOWLEDGED", True, None)] * 2


async def test_only_what_was_received_is_acknowledged_and_all_or_nothing(
    world: World, eve: db.Agent
) -> None:
    fresh = await send(world, eve, world.ada, "fresh")
    hers = await send(world, world.ada, eve, "hers")
    received = await send(world, eve, world.ada, "received", priority=5)
    assert await receive(world.agent, limit=1) == ["received"]
    ids = [received, fresh, str(db.new_id())]

    found = await world.refused(world.agent, "acknowledgeCommunications", ids=ids)
    code = await world.error(world.agent, "acknowledgeCommunications", ids=[hers])

    assert found == [("ILLEGAL_TRANSITION", "ids.1"), ("NOT_FOUND", "ids.2")]
    assert code == "FORBIDDEN"
    nobody = await world.refused(world.owner, "receiveCommunications")
    assert nobody == [("INVALID", "agentId")]


async def test_what_nobody_receives_in_time_expires(world: World, eve: db.Agent) -> None:
    past = "2020-01-01T00:00:00Z"
    await send(world, eve, world.ada, "late", expiresAt=past)
    await send(world, eve, world.ada, "in time", expiresAt="2099-01-01T00:00:00Z")
    held = await send(world, eve, world.ada, "held")
    assert await receive(world.agent, limit=10) == ["in time", "held"]
    await execute(world, "UPDATE communications SET expires_at = now() WHERE type = 'held'")

    assert await communications.expire(world.database) == 1
    assert await acknowledge(world.agent, held) == []
    assert await communications.expire(world.database) == 0
    query = "SELECT type, status FROM communications ORDER BY type"
    assert await stored(world.database, query) == [
        ("held", "ACKNOWLEDGED"),
        ("in time", "DELIVERED"),
        ("late", "EXPIRED"),
    ]


async def test_all_that_has_expired_is_so_after_one_sweep(world: World, eve: db.Agent) -> None:
    await execute(
        world,
        "INSERT INTO communications (project_id, from_agent_id, to_agent_id, type, content,"
        f" expires_at) SELECT '{world.project.id}', '{eve.id}', '{world.ada.id}', 'x', '{{}}',"
        " now() FROM generate_series(1, 1001)",
    )

    assert await communications.expire(world.database) == 1001
    query = "SELECT DISTINCT status FROM communications"
    assert await stored(world.database, query) == ["EXPIRED"]


async def test_no_more_is_received_than_was_asked_for(world: World, eve: db.Agent) -> None:
    """Also if PostgreSQL takes the table for a small one, and would look it up again and again."""
    await send(world, eve, world.ada, "first")
    connection = await world.database.open()
    try:
        await connection.execute("VACUUM ANALYZE communications")
    finally:
        await connection.close()
    for number in range(20):
        await send(world, eve, world.ada, str(number))

    assert await receive(world.agent, limit=3) == ["first", "0", "1"]
    query = "SELECT count(*) FROM communications WHERE status = 'DELIVERED'"
    assert await stored(world.database, query) == [3]


async def test_the_inbox_shows_what_an_agent_has_not_acknowledged(
    world: World, eve: db.Agent, resolvers: People
) -> None:
    for type, priority in (("low", 1), ("high", 5), ("gone", 5)):
        await send(world, eve, world.ada, type, priority=priority)
    await send(world, eve, world.ada, "old", expiresAt="2020-01-01T00:00:00Z")
    await send(world, world.ada, eve, "hers")
    await receive(world.agent, limit=1)
    (gone,) = await stored(world.database, "SELECT id FROM communications WHERE type = 'gone'")
    await receive(world.agent)
    await acknowledge(world.agent, str(gone))
    query = "query($id: ID) { agentInbox(agentId: $id) { totalCount nodes { type } } }"

    for client, id, types in (
        (world.agent, None, ["high", "low"]),
        (world.agent, gid(eve), ["hers"]),
        (world.owner, gid(world.ada), ["high", "low"]),
        (world.owner, None, []),
        (world.people.stranger, gid(world.ada), []),
    ):
        answer = await client.ask(query, id=id)
        page = {"totalCount": len(types), "nodes": [{"type": type} for type in types]}
        assert answer.data == {"agentInbox": page}
        assert len(answer.statements) == 1
        assert (await client.through(resolvers.owner._http).ask(query, id=id)).text == answer.text


# Answers, and messages to many.


async def test_a_reply_goes_back_with_what_it_is_about(world: World, eve: db.Agent) -> None:
    first = await send(world, eve, world.ada, "QUESTION", taskId=gid(world.free))
    payload = await world.agent.change(
        f"reply {WHOLE}", replyToId=first, type="ANSWER", content={"n": 42}
    )

    shown = payload["communication"]
    assert payload["userErrors"] == []
    assert (shown["fromAgent"], shown["toAgent"]) == ({"name": "Ada"}, {"name": "Eve"})
    assert (shown["task"], shown["replyTo"]) == ({"title": "Free"}, {"type": "QUESTION"})
    (id,) = await stored(
        world.database, "SELECT id::text FROM communications WHERE type = 'QUESTION'"
    )
    assert shown["correlationId"] == id
    input = {"replyToId": shown["id"], "type": "X", "content": {}}
    assert await world.error(world.agent, "reply", **input) == "FORBIDDEN"


async def test_a_broadcast_goes_to_each_other_active_agent(world: World, eve: db.Agent) -> None:
    async with world.database.write(ADMIN) as session:
        await factories.make_agent(session, world.project, "Off", is_active=False)
        ended = db.AgentStatus.TERMINATED
        await factories.make_agent(session, world.project, "Ended", status=ended)
        await factories.make_agent(session, world.project, "Zoe")
    await world.owner.change(f"subscribeAgent {{ {ERRORS} }}", agentId=gid(eve), topic="moon")

    shown = f"{{ communications {{ topic toAgent {{ name }} }} {ERRORS} }}"
    all = await world.agent.change(f"broadcast {shown}", **to_all(world.ada))
    some = await world.agent.change(f"publish {shown}", **to_all(world.ada, topic="moon"))
    none = await world.agent.change(f"publish {shown}", **to_all(world.ada, topic="Moon"))

    names = [each["toAgent"]["name"] for each in all["communications"]]
    assert sorted(names) == ["Eve", "Zoe"]
    assert some == {
        "communications": [{"topic": "moon", "toAgent": {"name": "Eve"}}],
        "userErrors": [],
    }
    assert none == {"communications": [], "userErrors": []}
    assert await world.refused(
        world.owner, "broadcast", **to_all(world.ada, taskId=gid(world.foreign))
    ) == at("taskId")


async def test_messages_are_acknowledged_in_one_order_so_that_nothing_deadlocks(
    world: World, eve: db.Agent
) -> None:
    """By their ids, however PostgreSQL finds them: here, they are stored the other way round."""
    ids = [await send(world, eve, world.ada, "x", priority=number) for number in range(1, 6)]
    assert len(await receive(world.agent, limit=5)) == 5
    lock = "SELECT id FROM communications WHERE id = '{}' FOR UPDATE"
    async with world.database.write(ADMIN) as session:
        await session.execute(text(lock.format(key_text(min(ids, key=key_text)))))
        done = asyncio.create_task(acknowledge(world.agent, *ids))
        await asyncio.sleep(0.3)
        free = "SELECT count(*) FROM (SELECT FROM communications FOR UPDATE SKIP LOCKED) free"
        # This transaction has locked one itself.
        assert await session.scalar(text(free)) == 5
        assert not done.done()
    assert await done == []


async def test_messages_to_an_agent_that_is_terminated_have_failed(
    world: World, eve: db.Agent
) -> None:
    sent = [await send(world, eve, world.ada, name) for name in ("done", "held", "new")]
    await send(world, eve, world.ada, "late", expiresAt="2020-01-01T00:00:00Z")
    await communications.expire(world.database)
    assert await receive(world.agent, limit=2) == ["done", "held"]
    await acknowledge(world.agent, sent[0])
    to_eve = await send(world, world.ada, eve, "to eve")

    change = "transitionAgent { agent { status } userErrors { code } }"
    await world.owner.change(change, id=gid(world.ada), to="TERMINATED")

    query = "SELECT type, status, lease_expires_at FROM communications ORDER BY type"
    assert await stored(world.database, query) == [
        ("done", "ACKNOWLEDGED", None),
        ("held", "FAILED", None),
        ("late", "EXPIRED", None),
        ("new", "FAILED", None),
        ("to eve", "SENT", None),
    ]
    shown = f"{{ communication {{ status }} {ERRORS} }}"
    after = await world.owner.change(
        f"sendCommunication {shown}", **from_to(eve, world.ada, "after")
    )
    answer = {"replyToId": to_eve, "type": "answer", "content": {}}
    reply = await world.owner.change(f"reply {shown}", **answer)
    assert after == reply == {"communication": {"status": "FAILED"}, "userErrors": []}
    assert await world.refused(world.owner, "acknowledgeCommunications", ids=[sent[1]]) == [
        ("ILLEGAL_TRANSITION", "ids.0")
    ]


async def test_no_message_is_left_that_is_sent_while_its_receiver_is_terminated(
    world: World, eve: db.Agent
) -> None:
    change = "transitionAgent { userErrors { code } }"
    for number in range(50):
        async with world.database.write(ADMIN) as session:
            receiver = await factories.make_agent(session, world.project, f"Number {number}")
        sends = [send(world, eve, receiver, "x") for _ in range(5)]
        end = world.owner.change(change, id=gid(receiver), to="TERMINATED")

        *_, ended = await asyncio.gather(*sends, end)

        assert ended == {"userErrors": []}
    query = "SELECT status, count(*) FROM communications GROUP BY 1"
    assert await stored(world.database, query) == [("FAILED", 250)]


@pytest.mark.parametrize("change", ["sendCommunication", "broadcast"])
async def test_who_sends_waits_for_whoever_deletes_the_project_before_anything_is_locked(
    world: World, eve: db.Agent, change: str
) -> None:
    one = change == "sendCommunication"
    input = from_to(eve, world.ada, "x") if one else to_all(eve)
    async with world.database.write(ADMIN) as session:
        lock = f"SELECT FROM projects WHERE id = '{world.project.id}' FOR UPDATE"
        await session.execute(text(lock))
        sent = asyncio.create_task(world.owner.change(f"{change} {{ {ERRORS} }}", **input))
        await asyncio.sleep(0.3)
        assert not sent.done()
        free = "SELECT count(*) FROM (SELECT FROM agents FOR UPDATE SKIP LOCKED) free"
        assert await session.scalar(text(free)) == await session.scalar(
            text("SELECT count(*) FROM agents")
        )
    assert await sent == {"userErrors": []}


async def test_a_message_that_is_sent_before_its_receiver_is_terminated_is_waited_for(
    world: World, eve: db.Agent
) -> None:
    change = "transitionAgent { userErrors { code } }"
    async with world.database.write(ADMIN) as session:
        agents = {"from_agent_id": eve.id, "to_agent_id": world.ada.id}
        values = {"project_id": world.project.id, "type": "x", "content": {}}
        session.add(db.Communication(**agents, **values))
        await session.flush()
        end = world.owner.change(change, id=gid(world.ada), to="TERMINATED")
        ended = asyncio.create_task(end)
        await asyncio.sleep(0.3)
        assert not ended.done()
    assert await ended == {"userErrors": []}
    assert await stored(world.database, "SELECT status FROM communications") == ["FAILED"]
