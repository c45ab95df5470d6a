"""Human interactions: four kinds of what agents ask of people, in one table and one interface."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

import db
from db import InteractionStatus, InteractionType
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import ADMIN, People
from tests.factories import START
from tests.oracle import by_members
from tests.world import Case, World, at, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
COMMON = (
    "__typename id type title content contentHash status priority expiresAt respondedAt metadata"
    " project { name } task { title } agent { name } conversation { summary }"
    " assignee { username } respondedBy { username }"
)
# The mutation that makes each kind, its type, what is its own, and that when it is new.
KINDS: list[tuple[str, str, str, str, dict[str, Any]]] = [
    (
        "requestApproval",
        "ApprovalRequest",
        "APPROVAL",
        "approved comment",
        {"approved": None, "comment": None},
    ),
    (
        "requestFeedback",
        "FeedbackRequest",
        "FEEDBACK",
        "feedback rating",
        {"feedback": None, "rating": None},
    ),
    ("requestClarification", "ClarificationRequest", "CLARIFICATION", "answer", {"answer": None}),
    (
        "notify",
        "Notification",
        "NOTIFICATION",
        "level requiresAcknowledgement",
        {"level": "INFO", "requiresAcknowledgement": False},
    ),
]
OWN = " ".join(f"... on {kind} {{ {fields} }}" for _, kind, _, fields, _ in KINDS)
BREAKING = {
    "human_interactions": {
        "priority_range": ["priority = 0", "priority = 6"],
        "rating_range": [f"rating = {rating} WHERE type = 'FEEDBACK'" for rating in (0, 6)],
        "responded_once": [
            "status = 'APPROVED'",
            "responded_at = now()",
            "status = 'EXPIRED', responded_at = now()",
        ],
        "required_approvals_range": [
            f"required_approvals = {number} WHERE type = 'APPROVAL'" for number in (0, 21)
        ],
        "approval_count_range": [
            f"approval_count = {number} WHERE type = 'APPROVAL'" for number in (-1, 2)
        ],
        "approvals_only": ["required_approvals = 2 WHERE type = 'FEEDBACK'"],
        "approval_only": ["approved = true", "comment = ''"],
        "feedback_only": ["feedback = 'null'", "rating = 1"],
        "clarification_only": ["answer = ''"],
        "notification_only": [
            "level = NULL",
            "requires_acknowledgement = NULL",
            "level = 'INFO', requires_acknowledgement = false",
            "level = 'INFO' WHERE type = 'APPROVAL'",
        ],
    },
}
SEEN = {db.HumanInteraction: by_members}
CASES = {
    mutation: Case(
        lambda w: {"projectId": gid(w.project), "title": "May I?", "content": {}}, at("projectId")
    )
    for mutation in ("requestApproval", "requestFeedback", "requestClarification", "notify")
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


def field(kind: str) -> str:
    """The field of a payload that shows this type."""
    return f"{kind[0].lower()}{kind[1:]}"


def about(world: World, title: str = "x", **values: Any) -> dict[str, Any]:
    """What every interaction needs."""
    return {"projectId": gid(world.project), "title": title, "content": {"text": title}} | values


def proof(title: str, content: Any) -> str:
    """The hash of what is put before people."""
    return hashlib.sha256(f"{title}\n{as_stored(content)}".encode()).hexdigest()


def as_stored(content: Any) -> str:
    """JSON as PostgreSQL writes it: short keys first."""
    if isinstance(content, dict):
        keys = sorted(content, key=lambda key: (len(key.encode()), key))
        pairs = [f"{json.dumps(key)}: {as_stored(content[key])}" for key in keys]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(content, list):
        return f"[{', '.join(map(as_stored, content))}]"
    return json.dumps(content, ensure_ascii=False)


async def ask_all(world: World, **values: Any) -> list[str]:
    """One interaction of each kind, titled with its type; their ids in the order of KINDS."""
    ids = []
    for mutation, kind, _, _, _ in KINDS:
        payload = await world.owner.change(
            f"{mutation} {{ {field(kind)} {{ id }} {ERRORS} }}", **about(world, kind, **values)
        )
        assert payload["userErrors"] == []
        ids.append(payload[field(kind)]["id"])
    return ids


async def test_each_kind_is_made_with_what_is_given(world: World) -> None:
    content = {"b": [1, {"z": None}], "a": "Fly?"}
    for mutation, kind, type, own, new in KINDS:
        id = db.new_id()
        given: dict[str, Any] = {}
        if kind == "Notification":
            given = {"level": "CRITICAL", "requiresAcknowledgement": True}

        answer = await world.owner.ask(
            f"mutation($input: {mutation[0].upper()}{mutation[1:]}Input!) {{ {mutation}(input:"
            f" $input) {{ {field(kind)} {{ {COMMON} {own} }} {ERRORS} }} }}",
            input=about(
                world,
                "Launch",
                id=str(id),
                content=content,
                priority=5,
                taskId=gid(world.free),
                agentId=gid(world.ada),
                conversationId=gid(world.conversation),
                assigneeId=gid(world.people.users["owner"]),
                expiresAt="2030-01-01T00:00:00Z",
                metadata={"k": 1},
                **given,
            ),
        )

        assert answer.data[mutation] == {
            field(kind): {
                "__typename": kind,
                "id": global_id("HumanInteraction", id),
                "type": type,
                "title": "Launch",
                "content": content,
                "contentHash": proof("Launch", content),
                "status": "PENDING",
                "priority": 5,
                "expiresAt": "2030-01-01T00:00:00+00:00",
                "respondedAt": None,
                "metadata": {"k": 1},
                "project": {"name": "Moon base"},
                "task": {"title": "Free"},
                "agent": {"name": "Ada"},
                "conversation": {"summary": ""},
                "assignee": {"username": "owner"},
                "respondedBy": None,
            }
            | new
            | given,
            "userErrors": [],
        }
        # The project; all five that it names; whether the assignee is in it; the row; its reading.
        assert len(answer.statements) == 9
    query = "SELECT type, level, requires_acknowledgement FROM human_interactions ORDER BY id"
    assert await stored(world.database, query) == [
        ("APPROVAL", None, None),
        ("FEEDBACK", None, None),
        ("CLARIFICATION", None, None),
        ("NOTIFICATION", "CRITICAL", True),
    ]


async def test_a_project_a_title_and_a_content_are_enough(world: World) -> None:
    for mutation, kind, _, own, new in KINDS:
        payload = await world.owner.change(
            f"{mutation} {{ {field(kind)} {{ status priority metadata expiresAt task {{ id }}"
            f" agent {{ id }} conversation {{ id }} assignee {{ id }} {own} }} }}",
            **about(world),
        )

        nothing = dict.fromkeys(("expiresAt", "task", "agent", "conversation", "assignee"))
        common = {"status": "PENDING", "priority": 3, "metadata": {}}
        assert payload == {field(kind): new | common | nothing}


async def test_all_kinds_are_read_through_the_interface(world: World, resolvers: People) -> None:
    ids = await ask_all(world, taskId=gid(world.free))
    one = f"query($id: ID!) {{ node(id: $id) {{ ... on HumanInteraction {{ {COMMON} }} {OWN} }}"
    one += f" humanInteraction(id: $id) {{ {COMMON} {OWN} }} }}"
    expected = []
    for id, (_, kind, type, _, new) in zip(ids, KINDS, strict=True):
        for people in (world.people, resolvers):
            answer = await people.owner.ask(one, id=id)

            shown = answer.data["node"]
            assert shown == answer.data["humanInteraction"]
            assert (shown["__typename"], shown["type"], shown["title"]) == (kind, type, kind)
            assert shown["task"] == {"title": "Free"}
            assert {name: shown[name] for name in new} == new
            others = {name for *_, fields in KINDS for name in fields} - new.keys()
            assert not others & shown.keys()
        expected.append(shown)

    query = f"{{ humanInteractions(orderBy: CREATED_AT_ASC) {{ totalCount nodes {{ {COMMON} {OWN}"
    query += f" }} }} projects {{ nodes {{ interactions {{ nodes {{ {COMMON} {OWN} }} }} }} }} }}"
    planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)

    assert planned.text == resolved.text
    assert planned.data["humanInteractions"] == {"totalCount": 4, "nodes": expected}
    assert planned.data["projects"]["nodes"] == [{"interactions": {"nodes": expected}}]
    assert len(planned.statements) == 1


async def test_what_is_selected_of_one_kind_only_leaves_the_others_empty(
    world: World, resolvers: People
) -> None:
    await ask_all(world)
    for selection, expected in (
        ("__typename", [{"__typename": kind} for _, kind, _, _, _ in KINDS]),
        (
            "... on Notification { title level } ... on FeedbackRequest { type }",
            [{}, {"type": "FEEDBACK"}, {}, {"title": "Notification", "level": "INFO"}],
        ),
        (
            # One response name, in each kind for another field.
            "... on ApprovalRequest { x: comment } ... on ClarificationRequest { x: answer }"
            " ... on Node { id: __typename }",
            [
                {"x": None, "id": "ApprovalRequest"},
                {"id": "FeedbackRequest"},
                {"x": None, "id": "ClarificationRequest"},
                {"id": "Notification"},
            ],
        ),
    ):
        query = f"{{ humanInteractions(orderBy: CREATED_AT_ASC) {{ edges {{ node {{ {selection}"
        query += " } } } }"
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)

        assert planned.text == resolved.text
        nodes = [edge["node"] for edge in planned.data["humanInteractions"]["edges"]]
        assert nodes == expected


async def test_interactions_are_found_by_what_they_are(world: World) -> None:
    ids = await ask_all(world)
    await world.owner.change(
        f"notify {{ {ERRORS} }}",
        **about(world, "Ada's", agentId=gid(world.ada), taskId=gid(world.free), priority=5),
        metadata={"k": 1},
        assigneeId=gid(world.people.users["owner"]),
        conversationId=gid(world.conversation),
        expiresAt="2030-01-01T00:00:00Z",
    )
    kinds = [kind for _, kind, _, _, _ in KINDS]
    query = "query($where: HumanInteractionFilter) { humanInteractions(where: $where,"
    query += " orderBy: CREATED_AT_ASC) { totalCount nodes { title } } }"

    for where, titles in (
        *(({"type": {"eq": type}}, [kind]) for _, kind, type, _, _ in KINDS[:3]),
        ({"type": {"eq": "NOTIFICATION"}}, ["Notification", "Ada's"]),
        ({"type": {"in": ["APPROVAL", "FEEDBACK"]}}, kinds[:2]),
        ({"type": {"not": "NOTIFICATION"}}, kinds[:3]),
        ({"id": {"in": ids[:2]}}, kinds[:2]),
        ({"id": {"eq": ids[2][:0] + ids[2]}}, kinds[2:3]),
        ({"status": {"not": "PENDING"}}, []),
        ({"priority": {"gte": 4}}, ["Ada's"]),
        ({"agentId": {"isNull": True}}, kinds),
        ({"agent": {"name": {"eq": "Ada"}}}, ["Ada's"]),
        ({"taskId": {"eq": gid(world.free)}}, ["Ada's"]),
        ({"conversationId": {"isNull": False}}, ["Ada's"]),
        ({"assignee": {"username": {"eq": "owner"}}}, ["Ada's"]),
        ({"metadataContains": {"k": 1}}, ["Ada's"]),
        ({"expiresAt": {"lt": "2031-01-01T00:00:00Z"}}, ["Ada's"]),
        ({"contentHash": {"eq": proof("Ada's", {"text": "Ada's"})}}, ["Ada's"]),
    ):
        answer = await world.owner.ask(query, where=where)

        page = answer.data["humanInteractions"]
        assert [node["title"] for node in page["nodes"]] == titles, where
        assert page["totalCount"] == len(titles)
        assert len(answer.statements) == 1


async def test_interactions_are_paged_by_their_priority(world: World, resolvers: People) -> None:
    for place, (mutation, _, _, _, _) in enumerate(KINDS):
        input = about(world, f"{place}", priority=5 - place)
        await world.owner.change(f"{mutation} {{ {ERRORS} }}", **input)
    query = (
        "query($after: String) { projects { nodes { interactions(first: 2, after: $after,"
        " orderBy: PRIORITY_DESC) { nodes { title } pageInfo { hasNextPage endCursor } } } } }"
    )
    for people in (world.people, resolvers):
        titles, after = [], None
        for _ in range(2):
            answer = await people.owner.ask(query, after=after)
            (project,) = answer.data["projects"]["nodes"]
            titles += [node["title"] for node in project["interactions"]["nodes"]]
            after = project["interactions"]["pageInfo"]["endCursor"]

        assert titles == ["0", "1", "2", "3"]
        assert project["interactions"]["pageInfo"]["hasNextPage"] is False


async def test_the_interactions_of_many_tasks_cost_as_many_statements_as_those_of_one(
    world: World, resolvers: People
) -> None:
    models: list[tuple[Any, dict[str, Any]]] = [
        (db.ApprovalRequest, {}),
        (db.FeedbackRequest, {}),
        (db.ClarificationRequest, {}),
        (
            db.Notification,
            {"level": db.NotificationLevel.INFO, "requires_acknowledgement": False},
        ),
    ]
    query = (
        '{ tasks(where: {title: {contains: "!"}}) { nodes { interactions(orderBy: CREATED_AT_ASC)'
        f" {{ nodes {{ title assignee {{ username }} {OWN} }} }} }} }} }}"
    )

    async def ask() -> list[int]:
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
        assert planned.text == resolved.text
        tasks = planned.data["tasks"]["nodes"]
        owner = {"assignee": {"username": "owner"}}
        for task in tasks:
            expected = [{"title": kind} | owner | new for _, kind, _, _, new in KINDS]
            assert task["interactions"]["nodes"] == expected
        return [len(tasks), len(planned.statements), len(resolved.statements)]

    async def make(many: int) -> None:
        async with world.database.write(ADMIN) as session:
            for place in range(many):
                task = await factories.make_task(session, world.project, f"{place}!")
                session.add_all(
                    model(
                        project_id=world.project.id,
                        task_id=task.id,
                        title=model.__name__,
                        content={},
                        assignee_id=world.people.users["owner"].id,
                        created_at=START + timedelta(minutes=minute),
                        **own,
                    )
                    for minute, (model, own) in enumerate(models)
                )

    await make(1)
    few = await ask()
    await make(19)
    many = await ask()

    assert (few[0], many[0]) == (1, 20)
    assert few[1:] == many[1:] == [1, 2]


# What is put before people.


async def test_the_hash_proves_the_title_and_the_content_and_nothing_else(world: World) -> None:
    async def made(mutation: str, kind: str, **values: Any) -> str:
        payload = await world.owner.change(
            f"{mutation} {{ {field(kind)} {{ contentHash }} }}", **about(world, **values)
        )
        return str(payload[field(kind)]["contentHash"])

    approval = ("requestApproval", "ApprovalRequest")
    first = await made(*approval, title="Fly", content={"a": 1, "b": {"c": 2, "d": [1, 2]}})
    same = await made("notify", "Notification", title="Fly", priority=5, metadata={"k": 1})
    assert first == await made(
        *approval, title="Fly", content={"b": {"d": [1, 2], "c": 2}, "a": 1}, priority=1
    )
    hashes = [first, same]
    others: list[Any] = [{"a": 1, "b": {"c": 2, "d": [2, 1]}}, [], "", 0, False, "0"]
    for content in others:
        hashes.append(await made(*approval, title="Fly", content=content))
    hashes.append(await made(*approval, title="fly", content=""))
    assert len(set(hashes)) == len(hashes) == 9


# What is refused.


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    wrong = dict.fromkeys(
        ("id", "projectId", "taskId", "agentId", "conversationId", "assigneeId"), gid(world.message)
    )
    lines = {"title": "", "priority": 0, "metadata": []}
    foreign = {
        "taskId": gid(world.foreign),
        "agentId": gid(world.bob),
        "conversationId": str(db.new_id()),
        "assigneeId": gid(world.people.users["stranger"]),
    }
    for mutation, _, _, _, _ in KINDS:
        found = await world.refused(world.owner, mutation, content=[], **(wrong | lines))
        unknown = await world.refused(world.owner, mutation, **about(world, **foreign))

        assert sorted(found) == sorted(("INVALID", name) for name in [*wrong, *lines])
        assert sorted(unknown) == sorted(("NOT_FOUND", name) for name in foreign)


async def test_only_what_is_of_the_project_is_named(world: World) -> None:
    input = about(world, taskId=gid(world.foreign), agentId=gid(world.bob))
    found = await world.refused(world.people.admin, "notify", **input)
    nowhere = await world.refused(
        world.owner, "notify", **about(world, projectId=gid(world.elsewhere))
    )
    taken = (await ask_all(world))[0]
    again = await world.refused(world.owner, "notify", **about(world, id=taken))

    assert sorted(found) == [("INVALID", "agentId"), ("INVALID", "taskId")]
    assert nowhere == [("NOT_FOUND", "projectId")]
    assert again == [("ALREADY_EXISTS", "id")]


async def test_a_kind_takes_only_what_is_its_own(world: World) -> None:
    for mutation, more in (
        ("requestApproval", {"level": "INFO"}),
        ("requestApproval", {"approved": True}),
        ("requestFeedback", {"rating": 5}),
        ("requestClarification", {"answer": "42"}),
        ("notify", {"status": "APPROVED"}),
        ("notify", {"level": "LOUD"}),
        ("notify", {"level": None}),
        ("notify", {"content": None}),
    ):
        code = await world.error(world.owner, mutation, **about(world, **more))
        assert code == "BAD_USER_INPUT", (mutation, more)


async def test_who_may_not_edit_the_project_asks_nothing(world: World) -> None:
    stranger = world.people.users["stranger"]
    async with world.database.write(ADMIN) as session:
        key = {"project_id": world.project.id, "user_id": stranger.id}
        session.add(db.ProjectMember(**key, role=db.MemberRole.APPROVER))
    for mutation, _, _, _, _ in KINDS:
        error = await world.error(world.people.stranger, mutation, **about(world))
        assert error == "FORBIDDEN"


async def test_interactions_are_hidden_from_other_projects(world: World, resolvers: People) -> None:
    (id, *_) = await ask_all(world)
    query = "query($id: ID!) { humanInteractions { totalCount nodes { id } }"
    query += " humanInteraction(id: $id) { id } node(id: $id) { id } }"

    for people in (world.people, resolvers):
        hidden = await people.stranger.ask(query, id=id)

        empty = {"humanInteractions": {"totalCount": 0, "nodes": []}}
        assert hidden.data == empty | {"humanInteraction": None, "node": None}
    seen = await world.agent.ask(query, id=id)
    assert seen.data["humanInteraction"] == seen.data["node"] == {"id": id}
    assert seen.data["humanInteractions"]["totalCount"] == 4


async def test_an_interaction_outlives_all_but_its_project(world: World) -> None:
    await ask_all(
        world,
        taskId=gid(world.free),
        agentId=gid(world.ada),
        conversationId=gid(world.conversation),
    )
    for mutation, row in (
        ("deleteTask", world.free),
        ("deleteConversation", world.conversation),
        ("deleteAgent", world.ada),
    ):
        await world.owner.change(f"{mutation} {{ deletedId }}", id=gid(row))

    query = "SELECT num_nonnulls(task_id, agent_id, conversation_id) FROM human_interactions"
    assert await stored(world.database, query) == [0, 0, 0, 0]
    await world.owner.change("deleteProject { deletedId }", id=gid(world.project))
    assert await stored(world.database, "SELECT * FROM human_interactions") == []


# What the database itself holds.


async def test_the_columns_of_a_kind_are_empty_in_all_others(world: World) -> None:
    own = {
        InteractionType.APPROVAL: {"approved": "true", "comment": "'x'"},
        InteractionType.FEEDBACK: {"feedback": "'{}'", "rating": "5"},
        InteractionType.CLARIFICATION: {"answer": "'x'"},
        InteractionType.NOTIFICATION: {"level": "'INFO'", "requires_acknowledgement": "true"},
    }
    needed = own[InteractionType.NOTIFICATION]
    before = await snapshot(world.database)
    for type in InteractionType:
        base = dict(needed) if type is InteractionType.NOTIFICATION else {}
        for kind, columns in own.items():
            for name, value in columns.items():
                broken = await insert(world, type, base | {name: value})
                rule = f"ck_human_interactions_{kind.lower()}_only"
                assert broken == (None if type is kind else rule), (type, name)
    for name in needed:
        rule = "ck_human_interactions_notification_only"
        without = {key: value for key, value in needed.items() if key != name}
        assert await insert(world, InteractionType.NOTIFICATION, without) == rule
    for rating in (0, 6):
        broken = await insert(world, InteractionType.FEEDBACK, {"rating": f"{rating}"})
        assert broken == "ck_human_interactions_rating_range"
    assert await insert(world, "GUESS", {}) == "ck_human_interactions_interaction_type"
    assert await snapshot(world.database) == before


async def test_what_was_answered_says_when_and_what_was_not_does_not(world: World) -> None:
    waiting = {InteractionStatus.PENDING, InteractionStatus.EXPIRED, InteractionStatus.CANCELLED}
    for status in InteractionStatus:
        for moment in ("NULL", "now()"):
            values = {"status": f"'{status}'", "responded_at": moment}
            legal = (status in waiting) == (moment == "NULL")
            broken = await insert(world, InteractionType.APPROVAL, values)
            assert broken == (None if legal else "ck_human_interactions_responded_once")


async def insert(world: World, type: str, values: dict[str, str]) -> str | None:
    """The constraint that a row of this type breaks, if any; it is not kept."""
    row = {
        "project_id": f"'{world.project.id}'",
        "type": f"'{type}'",
        "title": "'x'",
        "content": "'{}'",
    } | values
    into = f"human_interactions ({', '.join(row)}) VALUES ({', '.join(row.values())})"
    async with world.database.writer.connect() as connection:
        try:
            await connection.execute(text(f"INSERT INTO {into}"))
        except IntegrityError as error:
            return str(getattr(getattr(error.orig, "__cause__", None), "constraint_name", None))
    return None
