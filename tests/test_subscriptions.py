"""Subscriptions: the state first, and then each event once, in order, to whom may see it."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

import db
from db.events.follower import changes_after
from db.events.topics import Topic
from graph.server.sinks import FrameSink
from graph.settings import Settings
from tests import factories
from tests.conftest import WITHOUT_LIMITS, People
from tests.factories import gid
from tests.following import (
    EVENTS,
    Following,
    all_numbered,
    cursor_at,
    last_place,
    numbering,
    value_of,
)
from tests.patience import becomes
from tests.sockets import Listening, Talk, handshake, listening, text_frame
from tests.test_interaction_answers import ask, execute, respond
from tests.world import World, make_world

TASK = (
    "subscription($id: ID!, $after: String) { taskUpdated(id: $id, after: $after)"
    " { cursor gap { after } event { action entityType } task { title } } }"
)


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@pytest.fixture
async def live(world: World) -> AsyncIterator[Listening]:
    """A server, and the numbering of events, those of the world included."""
    async with numbering(world.database), listening(world.database) as server:
        await becomes(lambda: numbered(world))
        yield server


async def rename(world: World, title: str, task: db.Task | None = None) -> None:
    """Change a task."""
    payload = await world.owner.change(
        "updateTask { userErrors { message } }", id=str((task or world.free).id), title=title
    )
    assert payload["userErrors"] == []


# Messages


async def test_a_task_its_state_and_its_changes(world: World, live: Listening) -> None:
    await becomes(lambda: numbered(world))
    here = await last_place(world.database)
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        assert await following.begin() == {
            "cursor": cursor_at(here),
            "gap": None,
            "event": None,
            "task": {"title": "Free"},
        }
        for title in ("One", "Two"):
            await rename(world, title)
            message = await following.next()
            assert message["event"] == {"action": "UPDATED", "entityType": "Task"}
            assert message["task"] == {"title": title}
            assert message["cursor"] == cursor_at(await last_place(world.database))
        await rename(world, "Another", world.parent)
        await world.owner.change("deleteTask { userErrors { message } }", id=str(world.free.id))
        message = await following.next()
        assert (message["event"]["action"], message["task"]) == ("DELETED", None)


async def numbered(world: World) -> bool:
    """Whether all events have a position."""
    return await all_numbered(world.database)


async def test_a_project_and_everything_in_it(world: World, live: Listening) -> None:
    query = "subscription($id: ID!) { project(id: $id) { project { name } event { entityType } } }"
    project = {"name": world.project.name}
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query, id=gid(world.project))
        assert await following.begin() == {"project": project, "event": None}
        await rename(world, "New")
        assert await following.next() == {"project": project, "event": {"entityType": "Task"}}
        await execute(world, "UPDATE projects SET name = 'New' WHERE id = :id", id=world.project.id)
        message = await following.next()
        assert message == {"project": {"name": "New"}, "event": {"entityType": "Project"}}


async def test_messages_of_a_conversation(world: World, live: Listening) -> None:
    query = (
        "subscription($id: ID!) { messageAdded(conversationId: $id) { message { content }"
        " messages(last: 1) { totalCount nodes { content } } } }"
    )
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query, id=str(world.conversation.id))
        state = await following.begin()
        assert state["message"] is None
        assert state["messages"]["nodes"] == [{"content": world.message.content}]
        for content in ("Hello", "Again"):
            await world.owner.change(
                "appendMessages { userErrors { message } }",
                conversationId=gid(world.conversation),
                messages=[{"sender": "USER", "content": content}],
            )
            assert await following.next() == {"message": {"content": content}, "messages": None}


async def test_the_inbox_of_a_person(world: World, live: Listening) -> None:
    query = (
        "subscription { inbox { interaction { id status answers { outcome } }"
        " interactions { nodes { id } } } }"
    )
    request = await ask(world)
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query)
        assert await following.begin() == {
            "interaction": None,
            "interactions": {"nodes": [{"id": request["id"]}]},
        }
        second = await ask(world, requiredApprovals=2)
        shown: dict[str, Any] = {"id": second["id"], "status": "PENDING", "answers": []}
        assert await following.next() == {"interaction": shown, "interactions": None}
        assert await respond(world.owner, second) == []
        shown["answers"] = [{"outcome": "APPROVED"}]
        assert (await following.next())["interaction"] == shown
        assert await respond(world.owner, request) == []
        while (await following.next())["interaction"]["status"] != "APPROVED":
            pass
        # An agent never answers.
        async with live.talk(world.agent.token) as talking:
            agent = Following(talking, query)
            assert (await agent.begin())["interactions"] == {"nodes": []}
            await ask(world)
            await following.next()
            await rename(world, "New")
            assert await talking.is_alive()


async def test_one_interaction(world: World, live: Listening) -> None:
    query = (
        "subscription($id: ID!) { interactionUpdated(id: $id) { event { entityType }"
        " interaction { __typename id status ... on ApprovalRequest { contentHash } } } }"
    )
    request, _ = await ask(world), await ask(world)
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query, id=request["id"])
        shown = {"__typename": "ApprovalRequest", "status": "PENDING"} | request
        assert await following.begin() == {"event": None, "interaction": shown}
        assert await respond(world.owner, request) == []
        found = [await following.next(), await following.next()]
        assert {message["event"]["entityType"] for message in found} == {
            "HumanInteraction",
            "InteractionAnswer",
        }
        shown["status"] = "APPROVED"
        assert [message["interaction"] for message in found] == [shown, shown]


async def test_the_inbox_of_an_agent(world: World, live: Listening) -> None:
    query = (
        "subscription { agentInbox { event { action } communication { type acknowledgedAt }"
        " communications { totalCount } } }"
    )
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        zoe = await factories.make_agent(session, world.project, "Zoe")
    async with live.talk(world.agent.token) as talk:
        following = Following(talk, query)
        assert await following.begin() == {
            "event": None,
            "communication": None,
            "communications": {"totalCount": 0},
        }
        for sender, receiver, kind in (
            (world.ada, zoe, "NOT_HERE"),
            (zoe, world.ada, "REQUEST"),
        ):
            async with world.database.write(db.Viewer(is_administrator=True)) as session:
                await factories.make_communication(session, sender, receiver, type=kind)
        assert await following.next() == {
            "event": {"action": "CREATED"},
            "communication": {"type": "REQUEST", "acknowledgedAt": None},
            "communications": None,
        }


async def test_tasks_that_become_ready(world: World, live: Listening) -> None:
    query = (
        "subscription($id: ID!) { taskReady(projectId: $id) { task { title }"
        " tasks(orderBy: CREATED_AT_ASC) { nodes { title } } } }"
    )
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query, id=gid(world.project))
        state = await following.begin()
        assert {"title": "Free"} in state["tasks"]["nodes"]
        assert {"title": "Subtask"} not in state["tasks"]["nodes"]
        await rename(world, "Renamed")  # which was ready before
        payload = await world.owner.change(
            "transitionTask { userErrors { message } }", id=gid(world.free), to="COMPLETED"
        )
        assert payload["userErrors"] == []
        assert await following.next() == {"task": {"title": "Subtask"}, "tasks": None}


async def test_events_that_meet_conditions(world: World, live: Listening) -> None:
    query = (
        "subscription($where: EventFilter) { events(where: $where) { event { entityType after } } }"
    )
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query, where={"entityType": {"eq": "Project"}})
        assert await following.begin() == {"event": None}
        await rename(world, "New")
        await execute(world, "UPDATE projects SET name = 'New' WHERE id = :id", id=world.project.id)
        assert await following.next() == {
            "event": {"entityType": "Project", "after": {"name": "New"}}
        }


# Cursors


async def test_a_cursor_goes_on_exactly_there(world: World, live: Listening) -> None:
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        cursors = [(await following.begin())["cursor"]]
        for number in range(5):
            await rename(world, f"Title {number}")
            cursors.append((await following.next())["cursor"])
    async with live.talk(world.people.owner.token) as talk:
        for number, cursor in enumerate(cursors[:-1]):
            following = Following(talk, TASK, f"{number}", id=str(world.free.id), after=cursor)
            found = [await following.begin()]
            while len(found) < 5 - number:
                found.append(await following.next())
            # The task is as it is now, and the events are those that followed.
            assert [message["cursor"] for message in found] == cursors[number + 1 :]
            assert {message["task"]["title"] for message in found} == {"Title 4"}
            await talk.send("complete", id=f"{number}")
        following = Following(talk, TASK, "last", id=str(world.free.id), after=cursors[-1])
        await following.subscribe()
        await rename(world, "Last")
        assert (await following.next())["task"] == {"title": "Last"}


async def test_the_cursor_of_a_page_of_events_goes_on_after_it(
    world: World, live: Listening
) -> None:
    await becomes(lambda: numbered(world))
    page = await world.owner.ask(
        "{ events(first: 3) { pageInfo { endCursor } nodes { position } } }"
    )
    cursor = page.data["events"]["pageInfo"]["endCursor"]
    rest = await world.owner.ask(
        "query($after: String) { events(after: $after) { nodes { position } } }", after=cursor
    )
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, EVENTS, after=cursor)
        found = [(await following.begin())["event"]["position"]]
        while len(found) < len(rest.data["events"]["nodes"]):
            found.append((await following.next())["event"]["position"])
    assert found == [node["position"] for node in rest.data["events"]["nodes"]]


async def test_the_deletion_of_a_part_is_found_after_a_cursor(
    world: World, live: Listening
) -> None:
    message, other = str(world.message.id), Topic("Message", parent_id=db.new_id())
    await execute(world, "DELETE FROM messages WHERE id = :id", id=message)
    await becomes(lambda: numbered(world))
    last, _ = await last_place(world.database)
    topics = [Topic("Message", parent_id=world.conversation.id)]
    changes, _ = await changes_after(world.database.fetch, topics, 0, last)
    found = [(change.action, change.parent_id) for change in changes if change.entity_id == message]
    assert found == [("DELETED", world.conversation.id)]
    assert await changes_after(world.database.fetch, [other], 0, last) == ([], last)


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "RVZFTlQ=", "S0VZCng=", cursor_at((1, 2**63)), cursor_at((-1, 0)), "S0VZCjEKMg=="],
)
async def test_what_is_no_cursor_is_refused(world: World, live: Listening, cursor: str) -> None:
    async with live.talk(world.people.owner.token) as talk:
        answer = await talk.ask(EVENTS, variables={"after": cursor})
        assert answer["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}
        assert "is no cursor" in answer["errors"][0]["message"]
        assert await talk.is_alive()
    assert len(live.sockets.subscriptions) == 0


async def prune(world: World, position: int) -> None:
    """Drop the events up to this one, as if they were old."""
    old = "UPDATE events SET created_at = created_at - interval '1 year' WHERE position <= :at"
    await execute(world, old, at=position)
    await execute(world, "SELECT drop_events(now() - interval '100 days')")


@pytest.mark.parametrize("how", ["pruned", "restored", "ahead"])
async def test_a_gap_is_said_first_and_the_state_follows(
    world: World, live: Listening, how: str
) -> None:
    await becomes(lambda: numbered(world))
    position, moment = await last_place(world.database)
    cursor = cursor_at((position, moment))
    for title in ("One", "Two"):
        await rename(world, title)
        await becomes(lambda: numbered(world))
    match how:
        case "pruned":
            await prune(world, position + 1)
        case "restored":
            cursor = cursor_at((position, moment + 1))
        case "ahead":
            cursor = cursor_at((position + 100, moment))
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id), after=cursor)
        assert await following.begin() == {
            "cursor": cursor_at(await last_place(world.database)),
            "gap": {"after": cursor},
            "event": None,
            "task": {"title": "Two"},
        }
        await rename(world, "Three")
        message = await following.next()
        assert (message["gap"], message["task"]) == (None, {"title": "Three"})


async def test_events_that_were_pruned_and_were_seen_are_no_gap(
    world: World, live: Listening
) -> None:
    await becomes(lambda: numbered(world))
    place = await last_place(world.database)
    await prune(world, place[0])
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id), after=cursor_at(place))
        await following.subscribe()
        await rename(world, "New")
        message = await following.next()
        assert (message["gap"], message["task"]) == (None, {"title": "New"})


async def test_a_log_that_was_restored_while_somebody_listens(
    world: World, live: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        cursor = (await following.begin())["cursor"]
        await rename(world, "One")
        cursor = (await following.next())["cursor"]
        # As after a failover to a server that lost the last transaction.
        position, _ = await last_place(world.database)
        await execute(world, "DELETE FROM events WHERE position = :at", at=position)
        await execute(world, "UPDATE event_positions SET last_position = :at", at=position - 1)
        await execute(world, "UPDATE tasks SET title = 'Other' WHERE id = :id", id=world.free.id)
        await becomes(lambda: numbered(world))
        await execute(
            world,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            " OR query LIKE '%e.entity_type%' AND pid <> pg_backend_pid()",
        )
        message = await following.next()
        assert (message["gap"], message["event"]) == ({"after": cursor}, None)
        assert message["task"] == {"title": "Other"}
        await rename(world, "Two")
        assert (await following.next())["task"] == {"title": "Two"}
    assert "does not continue" in caplog.text


# Rights


async def test_who_is_no_longer_a_member_sees_nothing_more(world: World, live: Listening) -> None:
    stranger = world.people.users["stranger"]
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        member = await factories.make_member(session, world.project, stranger)
    async with live.talk(world.people.stranger.token) as talk:
        task = Following(talk, TASK, "task", id=str(world.free.id))
        events = Following(talk, EVENTS, "events", projectId=gid(world.project))
        assert (await task.begin())["task"] == {"title": "Free"}
        await events.begin()
        await rename(world, "One")
        heard = [await talk.heard(), await talk.heard()]
        assert {message["id"] for message in heard} == {"task", "events"}
        await execute(world, "DELETE FROM project_members WHERE user_id = :id", id=member.user_id)
        await rename(world, "Two")
        async with live.talk(world.people.owner.token) as other:
            await Following(other, TASK, id=str(world.free.id)).begin()
            await rename(world, "Three")
            await Following(other, TASK, id=str(world.free.id)).next()
        assert await talk.is_alive()  # nothing was sent before the pong
        # Nor by a cursor from before.
        after = value_of(heard[0], heard[0]["id"])["cursor"]
        await Following(talk, EVENTS, "again", after=after).subscribe()
        await rename(world, "Four")
        await asyncio.sleep(0.3)
        assert await talk.is_alive()


async def test_what_is_not_ones_own_is_followed_in_vain(world: World, live: Listening) -> None:
    async with live.talk(world.people.stranger.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        assert (await following.begin())["task"] is None
        await Following(talk, EVENTS, "2", projectId=gid(world.project)).begin()
        await rename(world, "New")
        await asyncio.sleep(0.3)
        assert await talk.is_alive()


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE access_tokens SET revoked_at = now() WHERE user_id = :id",
        "UPDATE users SET is_active = false WHERE id = :id",
    ],
)
async def test_after_the_end_of_a_token_nothing_is_sent(
    world: World, live: Listening, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.execution.tokens.CHECK_SECONDS", 60)  # only the log shows it
    owner = world.people.users["owner"].id
    async with live.talk(world.people.owner.token) as talk:
        await Following(talk, TASK, id=str(world.free.id)).begin()
        await execute(world, end, id=owner)
        await execute(world, "UPDATE tasks SET title = 'Secret' WHERE id = :id", id=world.free.id)
        with pytest.raises(ConnectionClosed):
            await talk.heard()
        assert talk.connection.close_code == 4403
    await becomes(lambda: not len(live.sockets.subscriptions))


async def test_who_becomes_an_administrator_sees_what_they_may(
    world: World, live: Listening
) -> None:
    stranger = world.people.users["stranger"].id
    async with live.talk(world.people.stranger.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        assert (await following.begin())["task"] is None
        await execute(world, "UPDATE users SET role = 'ADMIN' WHERE id = :id", id=stranger)
        await asyncio.sleep(0.3)
        await rename(world, "New")
        assert (await following.next())["task"] == {"title": "New"}


# Sharing


class Counted:
    """The statements that read messages."""

    def __init__(self, database: db.Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        rows = database.fetch

        async def counted(statement: str, arguments: Any, **options: Any) -> Any:
            self.statements.append(statement)
            return await rows(statement, arguments, **options)

        monkeypatch.setattr(database, "fetch", counted)


async def test_one_statement_reads_a_message_for_all_viewers(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        for number in range(8):
            name = f"member{number}"
            user = await db.User.create(session, username=name, email=f"{name}@localhost")
            await factories.make_member(session, world.project, user)
            await factories.make_token(session, f"token {number}", user)
    counted = Counted(world.database, monkeypatch)
    async with AsyncExitStack() as stack:
        followings = []
        for number in range(16):
            talk = await stack.enter_async_context(live.talk(f"token {number % 8}"))
            followings.append(Following(talk, TASK, id=str(world.free.id)))
        for following in followings:
            await following.begin()
        counted.statements.clear()
        await rename(world, "New")
        for following in followings:
            assert (await following.next())["task"] == {"title": "New"}
        assert len(counted.statements) == 1
        # Nothing is read for what nobody follows.
        await rename(world, "Other", world.parent)
        await becomes(lambda: numbered(world))
        await asyncio.sleep(0.1)
        assert len(counted.statements) == 1


async def test_one_statement_reads_messages_of_several_objects(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = world.people.users["stranger"]
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_member(session, world.project, stranger)
        outside = await db.User.create(session, username="out", email="out@localhost")
        await factories.make_token(session, "token", outside)
    counted = Counted(world.database, monkeypatch)
    async with (
        live.talk(world.people.owner.token) as one,
        live.talk(world.people.stranger.token) as two,
        live.talk("token") as three,
    ):
        followings = {
            (number, task.id): Following(talk, TASK, f"{task.id}", id=str(task.id))
            for number, talk, tasks in (
                (1, one, (world.free, world.parent)),
                (2, two, (world.parent,)),
                (3, three, (world.free,)),
            )
            for task in tasks
        }
        for following in followings.values():
            await following.begin()
        shared = live.sockets.subscriptions._shared
        await becomes(lambda: [len(one.audiences) for one in shared.values()] == [2])
        counted.statements.clear()
        change = "UPDATE tasks SET title = 'New' WHERE id IN (:free, :parent)"
        await execute(world, change, free=world.free.id, parent=world.parent.id)
        heard = [await one.heard(), await one.heard(), await two.heard()]
        assert {message["id"] for message in heard[:2]} == {
            str(world.free.id),
            str(world.parent.id),
        }
        assert heard[2]["id"] == str(world.parent.id)
        for message in heard:
            assert value_of(message, message["id"])["task"] == {"title": "New"}
        await becomes(lambda: numbered(world))
        assert await two.is_alive()  # each has heard only of what they follow
        assert await three.is_alive()  # and may see
        assert len(counted.statements) == 1


async def test_who_follows_all_and_who_follows_a_project_share_and_miss_nothing(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A batch ends between the two messages of an event.
    monkeypatch.setattr("graph.execution.shared.BATCH", 3)
    async with live.talk(world.people.admin.token) as talk:
        await Following(talk, EVENTS, "all").begin()
        await Following(talk, EVENTS, "own", projectId=gid(world.project)).begin()
        shared = live.sockets.subscriptions._shared
        await becomes(lambda: [len(one.audiences) for one in shared.values()] == [2])
        before, _ = await last_place(world.database)
        await execute(
            world,
            "WITH other AS (UPDATE projects SET name = 'New' WHERE id = :elsewhere)"
            " INSERT INTO tasks (project_id, title) SELECT :id, n FROM generate_series(1, 9) n",
            elsewhere=world.elsewhere.id,
            id=world.project.id,
        )
        found: dict[str, list[tuple[int, str]]] = {"all": [], "own": []}
        for _ in range(10 + 9):
            heard = await talk.heard()
            event = value_of(heard, heard["id"])["event"]
            found[heard["id"]].append((int(event["position"]), event["entityType"]))
        positions = [position for position, _ in found["all"]]
        assert positions == [*range(before + 1, before + 11)]
        assert found["own"] == [each for each in found["all"] if each[1] == "Task"]
        assert await talk.is_alive()  # nothing more was sent


async def test_cursors_do_not_divide_those_who_share(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live.talk(world.people.owner.token) as talk:
        first = Following(talk, TASK, "a", id=str(world.free.id))
        cursor = (await first.begin())["cursor"]
        await rename(world, "One")
        await first.next()
        second = Following(talk, TASK, "b", id=str(world.free.id), after=cursor)
        await second.begin()
        counted = Counted(world.database, monkeypatch)
        await rename(world, "Two")
        heard = [await talk.heard(), await talk.heard()]
        assert {message["id"] for message in heard} == {"a", "b"}
        assert len(counted.statements) == 1
        assert heard[0]["payload"] == heard[1]["payload"]


async def test_both_ways_to_read_give_the_same_messages(world: World, people: People) -> None:
    queries: list[tuple[str, dict[str, Any]]] = [
        (EVENTS, {}),
        (TASK, {"id": str(world.free.id)}),
        (
            "subscription($id: ID!) { project(id: $id) { __typename gap { after } event { position"
            " before after actorType } project { tasks(first: 2) { nodes { title } } } } }",
            {"id": gid(world.project)},
        ),
        ("subscription { inbox { interaction { id title } interactions { totalCount } } }", {}),
        (
            "subscription($id: ID!) { taskReady(projectId: $id) { task { title status } tasks {"
            " edges { cursor node { title } } } event { actorType user { username } } } }",
            {"id": gid(world.project)},
        ),
        (
            "subscription($id: ID!) { messageAdded(conversationId: $id) { a: message { content }"
            " messages(last: 2) { nodes { sequence } pageInfo { hasPreviousPage } } } }",
            {"id": str(world.conversation.id)},
        ),
        (
            "subscription($id: ID!) { agentInbox(agentId: $id) { communication { type }"
            " communications { nodes { id } } ...F } } fragment F on Update { cursor }",
            {"id": str(world.ada.id)},
        ),
    ]
    database = world.database
    async with (
        numbering(database),
        listening(database) as compiled,
        listening(database, Settings(compiler=False)) as resolved,
        compiled.talk(people.owner.token) as one,
        resolved.talk(people.owner.token) as two,
    ):
        await becomes(lambda: numbered(world))
        for number, (query, variables) in enumerate(queries):
            for talk in (one, two):
                following = Following(talk, query, f"{number}", **variables)
                following.request["extensions"] = {"cost": True}
                await following.subscribe()
            assert await one.connection.recv() == await two.connection.recv(), query
        await rename(world, "New")
        await ask(world)
        await world.owner.change(
            "appendMessages { userErrors { message } }",
            conversationId=gid(world.conversation),
            messages=[{"sender": "USER", "content": "Hello"}],
        )
        await world.owner.change(
            "transitionTask { userErrors { message } }", id=gid(world.free), to="COMPLETED"
        )
        await becomes(lambda: numbered(world))
        texts: list[set[Any]] = []
        for talk in (one, two):
            found = set()
            with suppress(TimeoutError):
                while True:  # until nothing more comes
                    async with asyncio.timeout(2):
                        found.add(await talk.connection.recv())
            texts.append(found)
    assert len(texts[0]) > 10
    assert texts[0] == texts[1]


# Limits and ends


async def test_a_subscription_is_refused_like_any_operation(world: World, live: Listening) -> None:
    refused = {
        "subscription {": "BAD_REQUEST",
        "subscription { nothing }": "BAD_REQUEST",
        "subscription { taskUpdated { cursor } }": "BAD_REQUEST",
        "subscription { events { cursor } inbox { cursor } }": "BAD_REQUEST",
        "subscription { events @skip(if: true) { cursor } }": "BAD_REQUEST",
        'subscription { taskUpdated(id: "x") { cursor } }': "BAD_USER_INPUT",
        "subscription($id: ID!) { taskUpdated(id: $id) { cursor } }": "BAD_USER_INPUT",
        'subscription { taskUpdated(id: "QWdlbnQ6MQ==") { cursor } }': "BAD_USER_INPUT",
        "subscription { events { event { project { agents { nodes { tasks { nodes { attempts"
        " { nodes { agent { id } } } } } } } } } } }": "LIMIT_EXCEEDED",
    }
    async with live.talk() as nobody:
        answer = await nobody.ask("subscription { events { cursor } }")
        assert answer["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    async with live.talk(world.people.owner.token) as talk:
        for query, expected in refused.items():
            answer = await talk.ask(query)
            assert list(answer) == ["errors"], (query, answer)
            assert answer["errors"][0]["extensions"]["code"] == expected, query
        assert await talk.is_alive()
    assert len(live.sockets.subscriptions) == 0


async def test_a_field_that_cannot_be_read_is_an_error_in_each_message(
    world: World, live: Listening
) -> None:
    query = "subscription { inbox { interaction { id } interactions(first: 1000) { totalCount } } }"
    async with live.talk(world.people.owner.token) as talk:
        await Following(talk, query).subscribe()
        heard = await talk.heard()
        assert heard["payload"]["data"] == {"inbox": {"interaction": None, "interactions": None}}
        (error,) = heard["payload"]["errors"]
        assert (error["extensions"]["code"], error["path"]) == (
            "BAD_USER_INPUT",
            ["inbox", "interactions"],
        )
        request = await ask(world)
        heard = await talk.heard()
        assert heard["payload"]["data"]["inbox"]["interaction"] == {"id": request["id"]}


@pytest.mark.parametrize("how", ["completes", "leaves", "vanishes"])
async def test_everything_is_freed_when_a_client_wants_no_more(
    world: World, live: Listening, how: str
) -> None:
    async with live.talk(world.people.owner.token) as talk:
        await Following(talk, TASK, id=str(world.free.id)).begin()
        await becomes(lambda: live.sockets.subscriptions._shared)
        match how:
            case "completes":
                await talk.send("complete", id="1")
                assert await talk.is_alive()
            case "leaves":
                await talk.connection.close()
            case "vanishes":
                talk.connection.transport.abort()
        subscriptions = live.sockets.subscriptions
        await becomes(lambda: not len(subscriptions))
        assert (subscriptions._shared, subscriptions._by_topic) == ({}, {})


class Dying(asyncio.Protocol):
    """A client of a task, which counts its messages."""

    count = 0
    transport: asyncio.Transport

    def __init__(self, sent: bytes) -> None:
        self._sent = sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        self.count += data.count(b'"type":"next"')


async def test_a_thousand_sockets_that_die_in_mid_stream_leave_nothing(
    world: World, people: People
) -> None:
    database, change = world.database, "UPDATE tasks SET title = :title WHERE id = :id"
    token = {"Authorization": f"Bearer {people.owner.token}"}
    payload = {"query": TASK, "variables": {"id": str(world.free.id)}}
    subscribe = text_frame(type="subscribe", id="1", payload=payload)
    sent = handshake() + text_frame(type="connection_init", payload=token)
    async with numbering(database), listening(database, WITHOUT_LIMITS) as server:
        sockets, tokens = server.sockets, server.app.state.tokens

        async def die(count: int) -> None:
            """Follow a task with so many sockets, and end all of them while messages come."""
            loop = asyncio.get_running_loop()
            dying = []
            for _ in range(count):
                _, one = await loop.create_connection(lambda: Dying(sent), "127.0.0.1", server.port)
                dying.append(one)
            await becomes(lambda: all(socket.client for socket in sockets._open))
            for one in dying:
                one.transport.write(subscribe)
            await becomes(lambda: all(one.count for one in dying))
            for number in range(20):
                await execute(world, change, title=f"{number}", id=world.free.id)
            await becomes(lambda: all(one.count > 1 for one in dying))
            for one in dying:
                one.transport.abort()
            await becomes(lambda: (len(sockets), len(sockets.subscriptions)) == (0, 0))
            await becomes(lambda: numbered(world))
            await becomes(lambda: tokens._checking is None)

        async def counts() -> dict[str, int]:
            """What there is of the server's."""
            subscriptions = sockets.subscriptions
            await becomes(lambda: not (subscriptions._shared or subscriptions._by_topic))
            gc.collect()
            kinds = Counter(type(each).__name__ for each in gc.get_objects())
            names = "Audience FrameSink Shared Socket SocketOperation Subscription Watch"
            names += " WebSocketProtocol Run"
            return {name: kinds[name] for name in names.split()} | {
                "tasks": len(asyncio.all_tasks()),
                "watched": len(tokens._watched),
                "connections": len(server.server.server_state.connections),
                "in use": database.reader.pool.checkedout(),  # type: ignore[attr-defined]
            }

        await die(20)
        before = await counts()
        for _ in range(4):
            await die(250)
        assert await counts() == before


async def test_who_uses_up_their_rate_gets_everything_later(world: World, people: People) -> None:
    settings = Settings(max_cost=100, rate_burst=300, rate_per_second=200)
    async with (
        numbering(world.database),
        listening(world.database, settings) as server,
        server.talk(people.owner.token) as talk,
    ):
        await becomes(lambda: numbered(world))
        following = Following(talk, EVENTS)
        await following.begin()
        change = "UPDATE tasks SET title = :title WHERE id = :id"
        for number in range(200):
            await execute(world, change, title=f"{number}", id=world.free.id)
        found = [int((await following.next())["event"]["position"]) for _ in range(200)]
        assert found == list(range(found[0], found[0] + 200))


async def test_who_does_not_read_is_closed_and_goes_on_without_a_gap(
    world: World, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.server.sinks.SLOW_SECONDS", 0.5)
    query = EVENTS.replace("position", "position after")
    async with (
        numbering(world.database),
        listening(world.database, WITHOUT_LIMITS) as server,
        server.talk(people.owner.token) as other,
        server.connect(max_queue=1) as connection,
    ):
        await becomes(lambda: numbered(world))
        talk = await Talk(connection).begin(people.owner.token)
        slow, quick = Following(talk, query), Following(other, EVENTS)
        last = await slow.begin()
        await quick.begin()
        connection.transport.pause_reading()
        change = "UPDATE tasks SET description = repeat(md5(random()::text), 3000) WHERE id = :id"
        for _ in range(200):
            await execute(world, change, id=world.free.id)
        # The other one gets everything meanwhile.
        seen = [int((await quick.next())["event"]["position"]) for _ in range(200)]
        await becomes(lambda: len(server.sockets.subscriptions) == 1)
        connection.transport.resume_reading()
        got = []
        try:
            while True:
                last = await slow.next()
                got.append(int(last["event"]["position"]))
        except Exception:
            pass
        async with server.talk(people.owner.token) as again:
            following = Following(again, EVENTS, after=last["cursor"])
            got.append(int((await following.begin())["event"]["position"]))
            while len(got) < 200:
                got.append(int((await following.next())["event"]["position"]))
        assert got == seen


async def test_an_error_that_passes_is_waited_for(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = world.database.fetch

    async def broken(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError

    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        await following.begin()
        await becomes(lambda: live.sockets.subscriptions._shared)
        monkeypatch.setattr(world.database, "fetch", broken)
        await rename(world, "One")
        await rename(world, "Two")
        await becomes(lambda: not live.sockets.subscriptions._shared)
        monkeypatch.setattr(world.database, "fetch", rows)
        found = [await following.next(), await following.next()]
        assert [message["event"]["action"] for message in found] == ["UPDATED", "UPDATED"]
        assert await talk.is_alive()


async def test_a_fault_is_masked_and_ends_the_subscription_alone(
    world: World,
    live: Listening,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret")

    async with live.talk(world.people.owner.token) as talk:
        await Following(talk, TASK, id=str(world.free.id)).begin()
        await becomes(lambda: live.sockets.subscriptions._shared)
        monkeypatch.setattr(world.database, "fetch", broken)
        await rename(world, "One")
        heard = await talk.heard()
        assert (heard["type"], heard["payload"][0]["extensions"]) == ("error", {"code": "FAULT"})
        assert "secret" not in str(heard)
        monkeypatch.undo()
        assert (await Following(talk, TASK, id=str(world.free.id)).begin())["task"]
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1


async def test_a_server_that_stops_tells_clients_to_connect_again(world: World) -> None:
    async with (
        numbering(world.database),
        listening(world.database) as server,
        server.connect() as connection,
    ):
        talk = await Talk(connection).begin(world.people.owner.token)
        await Following(talk, TASK, id=str(world.free.id)).begin()
        server.server.should_exit = True
        assert (await talk.closed())[0] == 1012
        await becomes(lambda: not len(server.sockets.subscriptions))


async def test_following_takes_no_place_of_those_who_ask(world: World, people: People) -> None:
    settings = Settings(max_running=1, max_running_per_viewer=1)
    async with (
        numbering(world.database),
        listening(world.database, settings) as server,
        server.talk(people.owner.token) as talk,
    ):
        await becomes(lambda: numbered(world))
        for number in range(10):
            await Following(talk, EVENTS, f"{number}").begin()
        assert (await talk.ask("{ me { username } }", id="q"))["data"]


async def test_a_cursor_that_is_also_an_argument_of_a_field_divides_those_who_share(
    world: World, live: Listening
) -> None:
    query = (
        "subscription($id: ID!, $after: String) { taskUpdated(id: $id, after: $after)"
        " { event { entityType } task { history(after: $after) { nodes { position } } } } }"
    )
    page = await world.owner.ask("{ events(first: 3) { edges { cursor } nodes { position } } }")
    cursors = [edge["cursor"] for edge in page.data["events"]["edges"]]
    async with live.talk(world.people.owner.token) as talk:
        for name, cursor in enumerate(cursors[:2]):
            variables = {"id": str(world.free.id), "after": cursor}
            await Following(talk, query, str(name), **variables).subscribe()
        await becomes(lambda: len(live.sockets.subscriptions._shared) == 2)


async def test_a_user_names_the_agent_whose_inbox_they_follow(
    world: World, live: Listening
) -> None:
    async with live.talk(world.people.admin.token) as talk:
        answer = await talk.ask("subscription { agentInbox { communication { type } } }")
        assert answer["errors"][0]["extensions"] == {"code": "BAD_USER_INPUT"}
        assert answer["errors"][0]["message"] == "agentId: name the Agent."


async def test_who_is_no_longer_asked_learns_of_it(world: World, live: Listening) -> None:
    query = "subscription { inbox { event { action entityId } interaction { id } } }"
    owner = world.people.users["owner"].id
    request = await ask(world, assigneeId=str(owner))
    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, query)
        await following.begin()
        await execute(
            world,
            "UPDATE human_interactions SET assignee_id = :id",
            id=world.people.users["admin"].id,
        )
        assert (await following.next())["interaction"] == {"id": request["id"]}
        await execute(world, "UPDATE human_interactions SET title = 'No business of theirs'")
        await execute(world, "DELETE FROM human_interactions")
        message = await following.next()
        assert (message["event"]["action"], message["interaction"]) == ("DELETED", None)


async def test_a_statement_has_the_rights_that_it_was_made_with(
    world: World, live: Listening
) -> None:
    owner = world.people.users["owner"].id
    subscriptions = live.sockets.subscriptions

    def viewers() -> list[int]:
        shared = subscriptions._shared.values()
        return [len(each.members) for one in shared for each in one.audiences.values()]

    async with (
        live.talk(world.people.owner.token) as one,
        live.talk(world.people.stranger.token) as two,
    ):
        mine = Following(one, TASK, id=str(world.free.id))
        theirs = Following(two, TASK, id=str(world.free.id))
        await mine.begin()
        assert (await theirs.begin())["task"] is None
        await becomes(lambda: viewers() == [2])
        async with subscriptions._live_slots, subscriptions._live_slots:
            await rename(world, "Secret")
            await becomes(lambda: any(s._sending for s in subscriptions._shared.values()))
            await execute(world, "UPDATE users SET role = 'ADMIN' WHERE id = :id", id=owner)
            await becomes(lambda: viewers() != [2])
        assert (await mine.next())["task"] == {"title": "Secret"}
        await asyncio.sleep(0.3)
        assert await two.is_alive()  # nothing was sent before


async def test_a_statement_that_fails_loses_nothing_for_who_joined_meanwhile(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriptions = live.sockets.subscriptions
    fetch, fails = world.database.fetch, [True]

    async def broken(statement: str, arguments: Any, **options: Any) -> Any:
        if fails[0] and "AS viewers" in statement:
            await asyncio.sleep(0.5)
            raise ConnectionRefusedError
        return await fetch(statement, arguments, **options)

    async with live.talk(world.people.owner.token) as one, live.talk(world.agent.token) as two:
        first, second = (Following(each, TASK, id=str(world.free.id)) for each in (one, two))
        await first.begin()
        await second.begin()
        await becomes(lambda: len(subscriptions._shared) == 2)
        monkeypatch.setattr(world.database, "fetch", broken)
        for title in ("One", "Two", "Three"):
            await rename(world, title)
            await asyncio.sleep(0.2)
        fails[0] = False
        for following in (first, second):
            assert [(await following.next())["event"]["action"] for _ in range(3)] == [
                "UPDATED"
            ] * 3


async def test_the_state_is_sent_although_its_client_was_slow_when_it_was_read(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [False]
    monkeypatch.setattr(FrameSink, "is_ready", property(lambda _: not answers or answers.pop()))
    async with live.talk(world.people.owner.token) as talk:
        first = await Following(talk, TASK, id=str(world.free.id)).begin()
    assert (answers, first["event"], first["task"]) == ([], None, {"title": world.free.title})


async def test_a_connection_that_cannot_be_opened_in_time_is_waited_for(
    world: World, live: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch, errors = world.database.fetch, [TimeoutError(), TimeoutError()]

    async def slow(statement: str, *values: Any, **options: Any) -> Any:
        if "AS viewers" in statement and errors:
            raise errors.pop()
        return await fetch(statement, *values, **options)

    async with live.talk(world.people.owner.token) as talk:
        following = Following(talk, TASK, id=str(world.free.id))
        await following.begin()
        await becomes(lambda: live.sockets.subscriptions._shared)
        monkeypatch.setattr(world.database, "fetch", slow)
        await rename(world, "Late")
        assert (await following.next())["task"] == {"title": "Late"}
    assert errors == []


@pytest.mark.parametrize("first", ["live", "behind"])
async def test_messages_that_are_too_long_for_one_statement_are_read_by_several(
    world: World, people: People, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each message has 30 kB, and a statement may read 100 kB."""
    settings = WITHOUT_LIMITS.model_copy(update={"max_answer_bytes": 100_000})
    query = TASK.replace("title", "description")
    title = "UPDATE tasks SET title = :title WHERE id = :id"
    async with numbering(world.database), listening(world.database, settings) as server:
        text = "x" * 30_000
        await execute(
            world,
            "UPDATE tasks SET description = :text WHERE id = :id",
            text=text,
            id=world.free.id,
        )
        await becomes(lambda: numbered(world))
        async with server.talk(people.owner.token) as one, server.talk(people.admin.token) as two:
            both = [Following(talk, query, id=str(world.free.id)) for talk in (one, two)]
            begun = [await following.begin() for following in both]
            if first == "behind":
                await one.send("complete", id="1")
                await two.send("complete", id="1")
            else:
                await becomes(lambda: len(server.sockets.subscriptions._shared) == 2)
            for number in range(10):
                await execute(world, title, title=f"{number}", id=world.free.id)
            await becomes(lambda: numbered(world))
            if first == "behind":
                both = [
                    Following(talk, query, "2", id=str(world.free.id), after=state["cursor"])
                    for talk, state in zip((one, two), begun, strict=True)
                ]
                found = [[await following.begin()] for following in both]
            else:
                found = [[], []]
            for following, got in zip(both, found, strict=True):
                while len(got) < 10:
                    got.append(await following.next())
                assert {message["task"]["description"] for message in got} == {text}
                cursors = [message["cursor"] for message in got]
                assert len(set(cursors)) == 10
