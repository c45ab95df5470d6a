"""What is unusual but allowed: deep, multiplied, mixed and half-refused requests."""

from __future__ import annotations

import httpx
import pytest

import db
from tests.conftest import People
from tests.world import World, gid, make_world


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_a_subtask_may_leave_to_a_default_what_its_parent_names(world: World) -> None:
    payload = await world.owner.change(
        "createTasks { tasks { title parentTask { title } } userErrors { message } }",
        projectId=gid(world.project),
        tasks=[
            {"title": "child", "parent": "p"},
            {"title": "par", "reference": "p", "availableAt": "2026-11-22T00:00:00Z"},
        ],
    )

    assert payload["userErrors"] == []
    assert payload["tasks"][0] == {"title": "child", "parentTask": {"title": "par"}}


async def test_what_is_too_deep_for_a_statement_is_answered_by_resolvers(people: People) -> None:
    deep = "subtasks(first: 1) { nodes { " * 20 + "id" + " } }" * 20
    nots = "{not: " * 19 + '{title: {eq: "x"}}' + "}" * 19

    for query in (
        f"{{ tasks {{ nodes {{ {deep} }} }} }}",
        f"{{ tasks(where: {nots}) {{ totalCount }} }}",
    ):
        assert "tasks" in (await people.owner.ask(query)).data


async def test_a_filter_nests_so_deep_and_no_deeper(people: People) -> None:
    query = "{ tasks(where: %s) { totalCount } }"
    allowed, refused = ("{not: " * n + '{title: {eq: "x"}}' + "}" * n for n in (19, 20))

    assert (await people.owner.ask(query % allowed)).data == {"tasks": {"totalCount": 0}}
    answer = await people.owner.ask(query % refused)

    assert answer.errors[0]["message"] == "A filter nests at most 20 deep."


async def test_fragments_that_multiply_are_read_once(people: People) -> None:
    fragments = "".join(
        f"fragment F{n} on Task {{ a: parentTask {{ ...F{n + 1} }}"
        f" b: parentTask {{ ...F{n + 1} }} }} "
        for n in range(16)
    )
    query = f"{{ tasks {{ nodes {{ ...F0 }} }} }} {fragments} fragment F16 on Task {{ id }}"

    answer = await people.owner.ask(query)

    assert answer.data == {"tasks": {"nodes": []}}


async def test_a_chain_that_is_longer_than_a_statement_joins_is_still_answered(
    world: World,
) -> None:
    query = (
        "{ task(id: $id) { "
        + "dependencies(first: 2) { nodes { dependent { " * 6
        + "title"
        + " } } }" * 6
        + " } }"
    )

    answer = await world.owner.ask(f"query($id: ID!) {query}", id=gid(world.subtask))

    assert "task" in answer.data


async def test_bare_ids_are_looked_up_together_and_only_where_they_may_be_seen(
    world: World, resolvers: People
) -> None:
    ids = [str(world.project.id), str(world.parent.id), str(world.subtask.id), str(db.new_id())]
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id __typename } }"

    one = await world.owner.ask(query, ids=ids[:1])
    all_ = await world.owner.ask(query, ids=ids)
    theirs = await world.people.stranger.ask(query, ids=ids)

    kinds = [node and node["__typename"] for node in all_.data["nodes"]]
    assert kinds == ["Project", "Task", "Task", None]
    assert (len(one.statements), len(all_.statements)) == (1, 1)
    assert theirs.data == {"nodes": [None] * 4}
    resolved = [await resolvers.owner.ask(query, ids=some) for some in (ids[:1], ids)]
    assert [len(answer.statements) for answer in resolved] == [2, 3]
    assert resolved[1].text == all_.text


async def test_a_bare_id_of_several_nouns_is_that_of_the_same_one_whoever_reads(
    world: World, resolvers: People, database: db.Database
) -> None:
    id = world.parent.id
    async with database.write(db.Viewer(is_administrator=True)) as session:
        session.add(db.Agent(id=id, project_id=world.project.id, name="Twin", type="CODER"))
    query = "query($id: ID!) { node(id: $id) { __typename } nodes(ids: [$id]) { __typename } }"

    planned = await world.owner.ask(query, id=str(id))
    resolved = await resolvers.owner.ask(query, id=str(id))

    agent = {"__typename": "Agent"}
    assert planned.data == resolved.data == {"node": agent, "nodes": [agent]}
    assert (len(planned.statements), len(resolved.statements)) == (1, 4)


async def test_a_mutation_that_is_turned_away_does_not_hide_what_was_done(people: People) -> None:
    answer = await people.owner.ask(
        'mutation { a: createProject(input: {name: "Kept"}) { project { name } }'
        ' b: createUser(input: {username: "x", email: "x@y"}) { user { id } } }'
    )

    assert answer.body["data"] == {"a": {"project": {"name": "Kept"}}, "b": None}
    assert answer.code == "FORBIDDEN"


async def test_an_archived_conversation_takes_no_messages(
    people: People, database: db.Database
) -> None:
    made = await people.owner.change("startConversation { conversation { id } }", title="Old")
    id = made["conversation"]["id"]
    async with database.write(db.Viewer(is_administrator=True)) as session:
        (conversation,) = await db.Conversation.list(session)
        await conversation.update(session, status=db.ConversationStatus.ARCHIVED)

    payload = await people.owner.change(
        "appendMessages { messages { id } userErrors { code path } }",
        conversationId=id,
        messages=[{"sender": "USER", "content": "Anybody?"}],
    )

    assert payload == {
        "messages": [],
        "userErrors": [{"code": "INVALID", "path": ["conversationId"]}],
    }
