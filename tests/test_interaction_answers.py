"""Answers of people: one wins, approvals are counted, and nothing else is ever an approval."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import text

import db
from db import access, interaction_answers
from graph.core.scalars import global_id
from tests import factories
from tests.client import Client
from tests.conftest import ADMIN, People
from tests.oracle import seen_with
from tests.world import (
    Case,
    Fault,
    WholeWorld,
    World,
    at,
    faults,
    gid,
    make_world,
    snapshot,
    stored,
)

ROUNDS = 50
ERRORS = "userErrors { code path message }"
LATE = [("ILLEGAL_TRANSITION", "id")]

SEEN = {db.InteractionAnswer: seen_with(db.HumanInteraction, "interaction_id")}

# The first is of nobody, so that everybody can still answer.
VALUES = {db.InteractionAnswer: lambda place: {} if place % 2 else {"user_id": None}}


def _answer(name: str, **values: Any) -> Case:
    def input(world: WholeWorld) -> dict[str, Any]:
        row = world.approval if name == "approval" else world.requests[name]
        return {"id": gid(row), "contentHash": row.content_hash, **values}

    return Case(input)


CASES = {
    "respondToApproval": _answer("approval", approved=True),
    "submitFeedback": _answer("feedback", feedback={"good": True}, rating=5),
    "answerClarification": _answer("clarification", answer="42"),
    "acknowledgeNotification": _answer("notification"),
    "cancelInteraction": Case(lambda w: {"id": gid(w.requests["withdrawn"])}),
}

KINDS = {
    "requestApproval": "approvalRequest",
    "requestFeedback": "feedbackRequest",
    "requestClarification": "clarificationRequest",
    "notify": "notification",
}
ANSWERS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "requestApproval": (
        "respondToApproval",
        {"approved": False, "comment": "Not yet."},
        "REJECTED",
        {"approved": False, "comment": "Not yet."},
    ),
    "requestFeedback": (
        "submitFeedback",
        {"feedback": {"b": [1.50], "a": "fine"}, "rating": 4},
        "ANSWERED",
        {"feedback": {"a": "fine", "b": [1.5]}, "rating": 4},
    ),
    "requestClarification": ("answerClarification", {"answer": "42"}, "ANSWERED", {"answer": "42"}),
    "notify": ("acknowledgeNotification", {}, "ACKNOWLEDGED", {}),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_members(
    world: World, http: httpx.AsyncClient, count: int, role: db.MemberRole = db.MemberRole.APPROVER
) -> list[Client]:
    """Clients of new members of the owner's project."""
    clients = []
    async with world.database.write(ADMIN) as session:
        for number in range(count):
            name = f"{role.lower()}{number}"
            user = await db.User.create(session, username=name, email=f"{name}@localhost")
            await factories.make_member(session, world.project, user, role)
            row, token = await access.issue_token(session, user, "test")
            row.last_used_at = datetime.now(UTC)  # it is not noted again while the test runs
            clients.append(Client(http, world.database, token))
    return clients


@pytest.fixture
async def approvers(world: World, http: httpx.AsyncClient) -> list[Client]:
    return await make_members(world, http, 5)


async def ask(
    world: World, mutation: str = "requestApproval", client: Client | None = None, **values: Any
) -> dict[str, Any]:
    """What names a new request of Ada, or of a client, in an answer."""
    input = {"projectId": gid(world.project), "title": "Fly?", "content": {"to": "moon"}} | values
    payload = await (client or world.agent).change(
        f"{mutation} {{ {KINDS[mutation]} {{ id contentHash }} {ERRORS} }}", **input
    )
    assert payload["userErrors"] == []
    shown: dict[str, Any] = payload[KINDS[mutation]]
    return shown


async def respond(client: Client, request: dict[str, Any], approved: bool = True) -> list[Fault]:
    """The errors of a response to a request."""
    input = request | {"approved": approved}
    return faults(await client.change(f"respondToApproval {{ {ERRORS} }}", **input))


async def status(world: World, request: dict[str, Any]) -> str:
    """The status of a request."""
    query = "query($id: ID!) { humanInteraction(id: $id) { status } }"
    answer = await world.owner.ask(query, id=request["id"])
    return str(answer.data["humanInteraction"]["status"])


async def answers(world: World) -> list[Any]:
    """All answers: the username of each, its outcome and comment, in their order."""
    query = (
        "SELECT username, outcome, a.comment FROM interaction_answers a"
        " LEFT JOIN users u ON u.id = user_id ORDER BY answered_at, a.id"
    )
    return await stored(world.database, query)


async def execute(world: World, statement: str, **values: Any) -> None:
    """Change rows by SQL."""
    async with world.database.write(ADMIN) as session:
        await session.execute(text(statement), values)


# Answers.


@pytest.mark.parametrize("mutation", KINDS)
async def test_each_kind_is_answered_with_what_is_given(
    world: World, resolvers: People, mutation: str
) -> None:
    request = await ask(world, mutation)
    name, given, outcome, shown = ANSWERS[mutation]
    payload = KINDS[mutation]
    own = " ".join(shown)
    fields = (
        f"id status respondedBy {{ username }} respondedAt askedByAgent {{ name }} {own}"
        " askedByUser { username } answers { outcome comment contentHash answeredAt"
        " user { username } interaction { id } }"
    )
    answer = await world.owner.ask(
        f"mutation($input: {name[0].upper()}{name[1:]}Input!) {{ {name}(input: $input) {{"
        f" {payload} {{ {fields} }} {ERRORS} }} }}",
        input=request | given,
    )

    found = answer.data[name]
    row = found[payload]
    moment = row.pop("respondedAt")
    assert row["answers"][0].pop("answeredAt") is not None
    assert moment is not None
    assert found == {
        payload: {
            "id": request["id"],
            "status": outcome,
            "respondedBy": {"username": "owner"},
            "askedByAgent": {"name": "Ada"},
            "askedByUser": None,
            "answers": [
                {
                    "outcome": outcome,
                    "comment": given.get("comment"),
                    "contentHash": request["contentHash"],
                    "user": {"username": "owner"},
                    "interaction": {"id": request["id"]},
                }
            ],
        }
        | shown,
        "userErrors": [],
    }
    # The answer, with all checks, and its reading.
    assert len(answer.statements) == 2
    kind = f"{payload[0].upper()}{payload[1:]}"
    query = f"query($id: ID!) {{ humanInteraction(id: $id) {{ ... on {kind} {{ {fields} }} }} }}"
    one, other = [
        await each.owner.ask(query, id=request["id"]) for each in (world.people, resolvers)
    ]
    assert one.text == other.text
    one.data["humanInteraction"].pop("respondedAt")
    one.data["humanInteraction"]["answers"][0].pop("answeredAt")
    assert one.data["humanInteraction"] == row


async def test_an_answer_is_found_by_what_it_is(world: World, resolvers: People) -> None:
    for mutation in KINDS:
        name, given, *_ = ANSWERS[mutation]
        await world.owner.change(f"{name} {{ {ERRORS} }}", **await ask(world, mutation), **given)
    query = (
        "query($where: InteractionAnswerFilter) { interactionAnswers(where: $where, orderBy:"
        " ANSWERED_AT_ASC) { totalCount nodes { outcome } } me { interactionAnswers { totalCount"
        " } askedInteractions { totalCount } } }"
    )
    for where, outcomes in (
        ({}, ["REJECTED", "ANSWERED", "ANSWERED", "ACKNOWLEDGED"]),
        ({"outcome": {"eq": "ANSWERED"}}, ["ANSWERED", "ANSWERED"]),
        ({"user": {"username": {"eq": "stranger"}}}, []),
        ({"interaction": {"type": {"eq": "NOTIFICATION"}}}, ["ACKNOWLEDGED"]),
    ):
        texts = set()
        for people in (world.people, resolvers):
            answer = await people.owner.ask(query, where=where)
            texts.add(answer.text)
        assert len(texts) == 1
        page = answer.data["interactionAnswers"]
        assert [node["outcome"] for node in page["nodes"]] == outcomes, where
        assert answer.data["me"]["interactionAnswers"] == {"totalCount": 4}


async def test_of_two_answers_at_once_one_wins(world: World, approvers: list[Client]) -> None:
    for _ in range(ROUNDS):
        request = await ask(world)

        yes, no = await asyncio.gather(
            respond(approvers[0], request, True), respond(approvers[1], request, False)
        )

        assert sorted([yes, no]) == [[], LATE]
        expected = ("APPROVED", "approver0") if yes == [] else ("REJECTED", "approver1")
        query = (
            "SELECT status, username, approved FROM human_interactions h JOIN users u"
            " ON u.id = responded_by_id ORDER BY h.created_at DESC LIMIT 1"
        )
        assert await stored(world.database, query) == [(*expected, yes == [])]
        assert [row[:2] for row in await answers(world)][-1:] == [expected[::-1]]
    assert len(await answers(world)) == ROUNDS


async def test_as_many_approvals_as_are_required_are_counted(
    world: World, approvers: list[Client]
) -> None:
    request = await ask(world, requiredApprovals=3)
    query = "query($id: ID!) { humanInteraction(id: $id) { status respondedAt ... on"
    query += " ApprovalRequest { approved requiredApprovals approvalCount } } }"

    for number, client in enumerate(approvers[:3], 1):
        shown = (await world.owner.ask(query, id=request["id"])).data["humanInteraction"]
        pending = {"status": "PENDING", "respondedAt": None, "approved": None}
        assert shown == pending | {"requiredApprovals": 3, "approvalCount": number - 1}
        assert await respond(client, request) == []
        if number < 3:
            assert await respond(client, request) == [("ALREADY_EXISTS", "id")]

    shown = (await world.owner.ask(query, id=request["id"])).data["humanInteraction"]
    assert shown.pop("respondedAt") is not None
    assert shown == {
        "status": "APPROVED",
        "approved": True,
        "requiredApprovals": 3,
        "approvalCount": 3,
    }
    assert await respond(approvers[3], request) == LATE
    assert [name for name, *_ in await answers(world)] == [f"approver{n}" for n in range(3)]


async def test_one_rejection_ends_it(world: World, approvers: list[Client]) -> None:
    request = await ask(world, requiredApprovals=3)

    assert await respond(approvers[0], request) == []
    assert await respond(approvers[1], request, False) == []

    assert await status(world, request) == "REJECTED"
    assert await respond(approvers[2], request) == LATE
    query = "SELECT approved, approval_count FROM human_interactions"
    assert await stored(world.database, query) == [(False, 1)]


async def test_of_many_approvals_at_once_only_those_required_are_counted(
    world: World, approvers: list[Client]
) -> None:
    for _ in range(ROUNDS):
        request = await ask(world, requiredApprovals=3)

        found = await asyncio.gather(*(respond(client, request) for client in approvers))

        assert sorted(found) == [[], [], [], LATE, LATE]
        query = "SELECT status, approval_count FROM human_interactions WHERE content_hash = :hash"
        assert set(await stored(world.database, query, hash=request["contentHash"])) == {
            ("APPROVED", 3)
        }


async def test_a_person_who_approves_twice_at_once_counts_once(
    world: World, approvers: list[Client]
) -> None:
    for _ in range(ROUNDS):
        request = await ask(world, requiredApprovals=2)

        found = await asyncio.gather(*(respond(approvers[0], request) for _ in range(3)))

        assert sorted(found) == [[], [("ALREADY_EXISTS", "id")], [("ALREADY_EXISTS", "id")]]
        assert await status(world, request) == "PENDING"
    query = "SELECT DISTINCT approval_count FROM human_interactions"
    assert await stored(world.database, query) == [1]


# Who answers.


async def test_who_asked_never_approves_by_whatever_token(
    world: World, http: httpx.AsyncClient, approvers: list[Client]
) -> None:
    owner = world.people.users["owner"]
    async with world.database.write(ADMIN) as session:
        row, token = await access.issue_token(session, owner, "another")
        row.last_used_at = datetime.now(UTC)
    another = Client(http, world.database, token)
    for values in ({}, {"agentId": gid(world.ada)}, {"assigneeId": gid(owner)}):
        request = await ask(world, client=world.owner, **values)
        for approved in (True, False):
            for client in (world.owner, another):
                input = request | {"approved": approved}
                assert await world.error(client, "respondToApproval", **input) == "FORBIDDEN"
    free = await ask(world, client=world.owner)
    assert await respond(approvers[0], free) == []

    theirs = await ask(world, client=world.people.admin)
    input = theirs | {"approved": True}
    assert await world.error(world.people.admin, "respondToApproval", **input) == "FORBIDDEN"


async def test_an_agent_never_answers(world: World) -> None:
    for mutation, (name, given, *_) in ANSWERS.items():
        for client in (world.agent, world.owner):
            request = await ask(world, mutation, client)
            assert await world.error(world.agent, name, **request, **given) == "FORBIDDEN"
            viewer = db.Viewer(agent_id=world.ada.id)
            id = (await stored(world.database, "SELECT id FROM human_interactions LIMIT 1"))[0]
            with pytest.raises(db.errors.Denied):
                async with world.database.write(viewer, db.Right.ANSWER) as session:
                    await interaction_answers.answer(
                        session,
                        id,
                        db.InteractionType.APPROVAL,
                        db.AnswerOutcome.APPROVED,
                        request["contentHash"],
                        approved=True,
                    )


async def test_an_assigned_request_is_answered_by_its_assignee_or_an_owner(
    world: World, http: httpx.AsyncClient, approvers: list[Client]
) -> None:
    (editor,) = await make_members(world, http, 1, db.MemberRole.EDITOR)
    (user,) = await stored(world.database, "SELECT id FROM users WHERE username = 'approver0'")
    assignee = global_id("User", user)
    for client, allowed in (
        (approvers[0], True),
        (approvers[1], False),
        (editor, False),
        (world.owner, True),
        (world.people.admin, True),
    ):
        request = await ask(world, assigneeId=assignee)
        if allowed:
            assert await respond(client, request) == []
        else:
            input = request | {"approved": True}
            assert await world.error(client, "respondToApproval", **input) == "FORBIDDEN"
    refused = await world.refused(
        world.owner,
        "requestApproval",
        projectId=gid(world.project),
        title="x",
        content={},
        assigneeId=assignee,
        requiredApprovals=2,
    )
    assert refused == [("INVALID", "requiredApprovals")]


async def test_what_needs_an_answer_is_assigned_only_to_who_can_give_it(
    world: World, http: httpx.AsyncClient
) -> None:
    await make_members(world, http, 1, db.MemberRole.VIEWER)
    await make_members(world, http, 2)
    async with world.database.write(ADMIN) as session:
        await session.execute(
            text("UPDATE users SET is_active = false WHERE username = 'approver1'")
        )
    query = "SELECT username, id FROM users"
    users = {name: global_id("User", id) for name, id in await stored(world.database, query)}
    may_not = "This user is a member of the project who may not answer requests."

    refused: dict[str, list[tuple[str, ...]]] = {}
    for name in ("approver0", "admin", "viewer0", "approver1", "stranger"):
        given = {"projectId": gid(world.project), "title": "x", "content": {}}
        given["assigneeId"] = users[name]
        for mutation, more in (
            *((mutation, {}) for mutation in KINDS),
            ("notify", {"requiresAcknowledgement": True}),
        ):
            payload = await world.people.admin.change(
                f"{mutation} {{ {KINDS[mutation]} {{ id }} {ERRORS} }}", **given, **more
            )
            said = [error["message"] for error in payload["userErrors"]]
            refused.setdefault(name, []).append((mutation, *said))

    kinds = list(KINDS)
    everybody = [(mutation,) for mutation in [*kinds, "notify"]]
    assert refused["approver0"] == refused["admin"] == everybody
    assert refused["viewer0"] == [
        (mutation,) if mutation == "notify" else (mutation, may_not) for mutation in kinds
    ] + [("notify", may_not)]
    inactive = "This user is not active."
    assert refused["approver1"] == [(*each, inactive) for each in everybody]
    outside = "This user is not a member of the project, and would not see it."
    assert refused["stranger"] == [(*each, outside) for each in everybody]


async def test_what_waits_in_other_projects_and_what_needs_no_answer_stays_assigned(
    world: World, http: httpx.AsyncClient
) -> None:
    async with world.database.write(ADMIN) as session:
        user = await db.User.create(session, username="ann", email="ann@localhost")
        await factories.make_member(session, world.project, user, db.MemberRole.APPROVER)
        other = await factories.make_project(session, user, "Other")
    admin, ann = world.people.admin, gid(user)
    await ask(world, client=admin, title="answered here", assigneeId=ann)
    await ask(world, "notify", client=admin, title="read here", assigneeId=ann)
    await ask(world, client=admin, title="there", assigneeId=ann, projectId=gid(other))
    named = {"projectId": gid(world.project), "userId": ann}
    assigned = "SELECT title FROM human_interactions WHERE assignee_id IS NOT NULL ORDER BY title"

    payload = await world.owner.change(
        f"updateProjectMember {{ {ERRORS} }}", **named, role="VIEWER"
    )
    assert payload["userErrors"] == []
    assert await stored(world.database, assigned) == ["read here", "there"]
    async with world.database.write(ADMIN) as session:
        await session.execute(text("UPDATE users SET is_active = false WHERE username = 'ann'"))
    payload = await world.owner.change(f"removeProjectMember {{ {ERRORS} }}", **named)
    assert payload["userErrors"] == []
    assert await stored(world.database, assigned) == ["there"]


async def test_nothing_is_left_assigned_to_a_member_who_is_removed_meanwhile(
    world: World, http: httpx.AsyncClient
) -> None:
    async with world.database.write(ADMIN) as session:
        user = await db.User.create(session, username="ann", email="ann@localhost")
    named = {"projectId": gid(world.project), "userId": gid(user)}
    input = {"projectId": gid(world.project), "title": "x", "content": {}, "assigneeId": gid(user)}
    outcomes = set()
    for _ in range(ROUNDS):
        async with world.database.write(ADMIN) as session:
            await factories.make_member(session, world.project, user, db.MemberRole.APPROVER)
        asked, removed = await asyncio.gather(
            world.people.admin.change(f"requestApproval {{ {ERRORS} }}", **input),
            world.owner.change(f"removeProjectMember {{ {ERRORS} }}", **named),
        )
        assert removed["userErrors"] == []
        outcomes.add(len(asked["userErrors"]))
        left = "SELECT id FROM human_interactions WHERE assignee_id IS NOT NULL"
        assert await stored(world.database, left) == []
    assert outcomes == {0, 1}


async def test_what_waits_for_a_user_who_may_not_answer_any_more_is_for_everybody(
    world: World, http: httpx.AsyncClient
) -> None:
    names = ("demoted", "leaves", "editor", "inactive", "administrator", "no administrator")
    async with world.database.write(ADMIN) as session:
        users = {}
        for name in names:
            user = await db.User.create(session, username=name, email=f"{name}@localhost")
            if name.endswith("administrator"):
                user.role = db.UserRole.ADMIN
            else:
                await factories.make_member(session, world.project, user, db.MemberRole.APPROVER)
            users[name] = gid(user)
    project, admin = gid(world.project), world.people.admin
    for name, user_id in users.items():
        await ask(world, client=admin, title=name, assigneeId=user_id)
        answered = await ask(world, client=admin, title=f"answered: {name}", assigneeId=user_id)
        assert await respond(world.owner, answered) == []

    for client, mutation, name, more in (
        (world.owner, "updateProjectMember", "demoted", {"role": "VIEWER"}),
        (world.owner, "updateProjectMember", "editor", {"role": "EDITOR"}),
        (world.owner, "removeProjectMember", "leaves", {}),
        (admin, "updateUser", "inactive", {"isActive": False}),
        (admin, "updateUser", "administrator", {"displayName": "Ann"}),
        (admin, "updateUser", "no administrator", {"role": "USER"}),
    ):
        named = {"id": users[name]}
        if mutation != "updateUser":
            named = {"projectId": project, "userId": users[name]}
        payload = await client.change(f"{mutation} {{ {ERRORS} }}", **named, **more)
        assert payload["userErrors"] == []

    query = "SELECT i.title, u.username FROM human_interactions i LEFT JOIN users u"
    query += " ON u.id = i.assignee_id"
    assigned = dict(await stored(world.database, query))
    expected: dict[str, str | None] = dict.fromkeys(names)
    expected |= {name: name for name in ("editor", "administrator")}
    expected |= {f"answered: {name}": name for name in names}
    assert assigned == expected
    shown = await world.owner.ask("{ pendingInteractions { nodes { title } } }")
    titles = {node["title"] for node in shown.data["pendingInteractions"]["nodes"]}
    assert titles == {"demoted", "leaves", "inactive", "no administrator"}


async def test_strangers_and_those_who_may_only_look_answer_nothing(
    world: World, http: httpx.AsyncClient
) -> None:
    (viewer,) = await make_members(world, http, 1, db.MemberRole.VIEWER)
    for mutation, (name, given, *_) in ANSWERS.items():
        request = await ask(world, mutation)
        assert await world.error(viewer, name, **request, **given) == "FORBIDDEN"
        assert await world.refused(world.people.stranger, name, **request, **given) == at("id")
        assert await world.error(world.people.nobody, name, **request, **given) == "UNAUTHENTICATED"


async def test_an_answer_is_one_to_a_request_of_its_kind(world: World) -> None:
    for asked in KINDS:
        request = await ask(world, asked)
        for mutation, (name, given, *_) in ANSWERS.items():
            if mutation != asked:
                found = await world.refused(world.owner, name, **request, **given)
                assert found == [("INVALID", "id")], (asked, name)
        assert await status(world, request) == "PENDING"
    payload = await world.owner.change(
        f"answerClarification {{ {ERRORS} }}", **await ask(world), answer="x"
    )
    (error,) = payload["userErrors"]
    assert error["message"] == "This request is of the type APPROVAL, not CLARIFICATION."


@pytest.mark.parametrize("answer", ["", " \n"])
async def test_an_answer_to_a_question_is_not_empty(world: World, answer: str) -> None:
    request = await ask(world, "requestClarification")
    mutation = f"answerClarification {{ {ERRORS} }}"

    found = await world.refused(world.owner, "answerClarification", **request, answer=answer)
    payload = await world.owner.change(mutation, **request, answer=answer)

    assert found == [("INVALID", "answer")]
    assert payload["userErrors"][0]["message"] == "This must not be empty."
    assert await status(world, request) == "PENDING"

    payload = await world.owner.change(mutation, **request, answer="\n Yes.\n\nAnd no.\n")
    assert payload["userErrors"] == []


# What is answered.


async def test_an_answer_is_about_the_content_that_it_names(world: World) -> None:
    request = await ask(world)
    name = f"respondToApproval {{ {ERRORS[:-1]} ... on Conflict {{ current {{ id ... on"
    name += " HumanInteraction { title content contentHash } } } } }"

    wrong = await world.owner.change(name, **request | {"contentHash": "0" * 64}, approved=True)
    await execute(world, 'UPDATE human_interactions SET content = \'{"to": "mars"}\'')
    before = await snapshot(world.database)
    changed = await world.owner.change(name, **request, approved=True)

    (error,) = wrong["userErrors"]
    assert (error["code"], error["path"]) == ("CONFLICT", ["contentHash"])
    assert error["current"]["contentHash"] == request["contentHash"]
    assert request["contentHash"] in error["message"]
    (error,) = changed["userErrors"]
    shown = error["current"]
    assert (error["code"], shown["content"]) == ("CONFLICT", {"to": "mars"})
    assert shown["contentHash"] != request["contentHash"]
    assert await snapshot(world.database) == before
    assert (
        await respond(world.owner, {"id": shown["id"], "contentHash": shown["contentHash"]}) == []
    )


# Expiry and withdrawal.


async def test_after_its_time_a_request_is_not_answered_even_before_it_is_swept(
    world: World,
) -> None:
    requests = []
    for mutation, (name, given, *_) in ANSWERS.items():
        request = await ask(world, mutation, expiresAt="2020-01-01T00:00:00Z")
        assert await world.refused(world.owner, name, **request, **given) == LATE
        assert await status(world, request) == "PENDING"
        requests.append(request)

    assert await interaction_answers.expire(world.database) == 4
    assert await interaction_answers.expire(world.database) == 0

    query = "SELECT DISTINCT status, approved, responded_at FROM human_interactions"
    assert await stored(world.database, query) == [("EXPIRED", None, None)]
    assert await respond(world.owner, requests[0]) == LATE
    assert await answers(world) == []


async def test_all_that_has_expired_is_so_after_one_sweep(world: World) -> None:
    await execute(
        world,
        "INSERT INTO human_interactions (project_id, type, title, content, expires_at)"
        f" SELECT '{world.project.id}', 'APPROVAL', 'x', '{{}}', now()"
        " FROM generate_series(1, 1001)",
    )

    assert await interaction_answers.expire(world.database) == 1001
    assert await stored(world.database, "SELECT DISTINCT status FROM human_interactions") == [
        "EXPIRED"
    ]


async def test_requests_that_cannot_expire_are_in_nobodys_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interaction_answers, "MOST_EXPIRED", 2)
    await execute(
        world,
        "INSERT INTO human_interactions (project_id, task_id, type, title, content, blocks_task,"
        f" expires_at) SELECT '{world.project.id}', '{world.free.id}', 'APPROVAL', n::text, '{{}}',"
        " true, now() - n * interval '1 s' FROM generate_series(1, 7) n",
    )
    broken = await stored(world.database, "SELECT id FROM human_interactions WHERE title >= '5'")
    expire = interaction_answers._expire

    async def fail(session: db.WriteSession, id: Any, *more: Any) -> int:
        assert id not in broken, "it fails"
        return await expire(session, id, *more)

    monkeypatch.setattr(interaction_answers, "_expire", fail)

    assert await interaction_answers.expire(world.database) == 4
    query = "SELECT title FROM human_interactions WHERE status = 'PENDING' ORDER BY title"
    assert await stored(world.database, query) == ["5", "6", "7"]


async def test_a_request_expires_or_is_answered_never_both(
    world: World, approvers: list[Client]
) -> None:
    outcomes = set()
    for number in range(ROUNDS):
        request = await ask(world, requiredApprovals=1 + number % 2)
        milliseconds = number % 10
        await execute(
            world,
            "UPDATE human_interactions SET expires_at = clock_timestamp() + :ms * interval '1 ms'"
            " WHERE status = 'PENDING' AND expires_at IS NULL",
            ms=milliseconds,
        )

        async def sweep() -> None:
            for _ in range(6):
                await interaction_answers.expire(world.database)
                await asyncio.sleep(0.003)

        found, *_ = await asyncio.gather(
            respond(approvers[0], request), sweep(), interaction_answers.expire(world.database)
        )

        (row,) = await stored(
            world.database,
            "SELECT status, approval_count, responded_at IS NULL OR responded_at <= expires_at"
            " FROM human_interactions ORDER BY created_at DESC LIMIT 1",
        )
        assert row[2]
        if number % 2:
            assert row[:2] == ("EXPIRED", 0 if found else 1)
        else:
            assert row[:2] == (("EXPIRED", 0) if found else ("APPROVED", 1))
        assert found in ([], LATE)
        outcomes.add(row[0])
    assert "EXPIRED" in outcomes


async def test_a_request_is_withdrawn_once_by_who_may(
    world: World, http: httpx.AsyncClient, approvers: list[Client]
) -> None:
    mine = await ask(world)
    owners = await ask(world, client=world.owner)
    cancel = "cancelInteraction"
    assert await world.error(approvers[0], cancel, id=mine["id"]) == "FORBIDDEN"
    assert await world.error(world.agent, cancel, id=owners["id"]) == "FORBIDDEN"
    assert await world.refused(world.people.stranger, cancel, id=mine["id"]) == at("id")

    for client, request in ((world.agent, mine), (world.owner, owners)):
        payload = await client.change(
            f"{cancel} {{ humanInteraction {{ status }} {ERRORS} }}", id=request["id"]
        )
        assert payload == {"humanInteraction": {"status": "CANCELLED"}, "userErrors": []}
        assert await world.refused(client, cancel, id=request["id"]) == LATE
    assert await respond(world.owner, mine) == LATE
    assert await answers(world) == []


async def test_what_is_over_is_not_withdrawn_any_more(world: World) -> None:
    """What becomes of the task is decided by the end of its time, and not by who is faster."""
    request = await ask(world, expiresAt="2020-01-01T00:00:00Z", onExpiry="FAIL")

    assert await world.refused(world.agent, "cancelInteraction", id=request["id"]) == LATE
    assert await interaction_answers.expire(world.database) == 1
    assert await status(world, request) == "EXPIRED"


async def test_what_a_deleted_user_answered_stays(world: World, approvers: list[Client]) -> None:
    request = await ask(world, requiredApprovals=2)
    assert await respond(approvers[0], request) == []

    await execute(world, "DELETE FROM users WHERE username = 'approver0'")

    assert await answers(world) == [(None, "APPROVED", None)]
    assert await respond(approvers[1], request) == []
    assert await status(world, request) == "APPROVED"


# The inbox.


async def test_the_inbox_has_what_waits_for_a_person(
    world: World, resolvers: People, http: httpx.AsyncClient, approvers: list[Client]
) -> None:
    users = await stored(
        world.database, "SELECT id FROM users WHERE username LIKE 'approver%' ORDER BY username"
    )
    first, second = (global_id("User", id) for id in users[:2])
    await ask(world, title="low", priority=1)
    await ask(world, title="first's", priority=4, assigneeId=first)
    await ask(world, title="second's", priority=3, assigneeId=second)
    await ask(world, title="expired", priority=5, expiresAt="2020-01-01T00:00:00Z")
    await ask(world, "notify", title="news", priority=5)
    await ask(world, "notify", title="urgent", priority=5, requiresAcknowledgement=True)
    await ask(world, title="owner's", client=world.owner, priority=2)
    both = await ask(world, title="both", requiredApprovals=2)
    gone = await ask(world, title="gone")
    await world.agent.change(f"cancelInteraction {{ {ERRORS} }}", id=gone["id"])
    await respond(approvers[0], both)
    (viewer,) = await make_members(world, http, 1, db.MemberRole.VIEWER)
    query = "{ pendingInteractions { totalCount nodes { title } } }"

    for client, titles in (
        (approvers[0], ["urgent", "first's", "owner's", "low"]),
        (approvers[1], ["urgent", "second's", "both", "owner's", "low"]),
        (world.owner, ["urgent", "both", "low"]),
        (viewer, []),
        (world.agent, []),
        (world.people.stranger, []),
    ):
        answer = await client.ask(query)
        page = answer.data["pendingInteractions"]
        # Of equal priority, the newest is first.
        shown = [node["title"] for node in page["nodes"]]
        assert sorted(shown) == sorted(titles)
        assert page["totalCount"] == len(titles)
        assert len(answer.statements) == 1
        other = await client.through(resolvers.owner._http).ask(query)
        assert other.text == answer.text
    assert shown == []
    answer = await approvers[0].ask(
        '{ pendingInteractions(where: {title: {startsWith: "o"}}, orderBy: CREATED_AT_ASC)'
        " { nodes { title } } }"
    )
    assert answer.data == {"pendingInteractions": {"nodes": [{"title": "owner's"}]}}


async def test_the_inbox_of_an_administrator_has_what_is_theirs(
    world: World, resolvers: People
) -> None:
    admin = world.people.users["admin"]
    asked = await ask(world, title="to anybody")
    theirs = await ask(world, title="to them")
    assigned = "UPDATE human_interactions SET assignee_id = :to WHERE content_hash = :hash"
    await execute(world, assigned, to=admin.id, hash=theirs["contentHash"])

    async def inbox() -> list[str]:
        query = "{ pendingInteractions { totalCount nodes { title } } }"
        answer = await world.people.admin.ask(query)
        assert answer.text == (await resolvers.admin.ask(query)).text
        page = answer.data["pendingInteractions"]
        assert page["totalCount"] == len(page["nodes"])
        return sorted(node["title"] for node in page["nodes"])

    assert await inbox() == ["to them"]
    async with world.database.write(ADMIN) as session:
        await factories.make_member(session, world.project, admin, db.MemberRole.VIEWER)
    assert await inbox() == ["to them"]
    of_theirs = "WHERE user_id = :id"
    promoted = f"UPDATE project_members SET role = 'APPROVER' {of_theirs}"
    await execute(world, promoted, id=admin.id)
    assert await inbox() == ["to anybody", "to them"]
    await execute(world, f"DELETE FROM project_members {of_theirs}", id=admin.id)
    assert await inbox() == ["to them"]
    assert await respond(world.people.admin, asked) == []  # they may answer it all the same
