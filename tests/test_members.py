"""Members: who may see, edit and own a project, and who decides that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

import db
from db import MemberRole, access
from graph.core.scalars import global_id
from tests import factories
from tests.client import Client
from tests.conftest import People
from tests.oracle import by_members
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

ERRORS = "userErrors { code path message }"
MEMBERS = f"{{ project {{ members {{ nodes {{ role user {{ username }} }} }} }} {ERRORS} }}"
ROLES = "SELECT u.username, m.role FROM project_members m JOIN users u ON u.id = m.user_id"
ROLES += " WHERE m.project_id = :id ORDER BY 1"


def guest(world: WholeWorld) -> dict[str, Any]:
    """A member of the project who may only look."""
    return {"projectId": gid(world.project), "userId": gid(world.guest)}


SEEN = {db.ProjectMember: by_members}
CASES = {
    "addProjectMember": Case(
        lambda w: {"projectId": gid(w.project), "email": "stranger@localhost", "role": "VIEWER"},
        at("projectId"),
    ),
    "updateProjectMember": Case(lambda w: guest(w) | {"role": "APPROVER"}, at("projectId")),
    "removeProjectMember": Case(lambda w: guest(w), at("projectId")),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def join(world: World, http: httpx.AsyncClient, role: MemberRole) -> tuple[db.User, Client]:
    """A new user, named after the role, who has it in the owner's project, and their client."""
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        name = role.lower()
        user = await db.User.create(session, username=f"new {name}", email=f"new-{name}@localhost")
        row, token = await access.issue_token(session, user, "test")
        row.last_used_at = datetime.now(UTC)  # it is not noted again while the test runs
        session.add(db.ProjectMember(project_id=world.project.id, user_id=user.id, role=role))
    return user, Client(http, world.database, token)


async def shared_tool(world: World) -> str:
    """The id of a tool that all projects share."""
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        return gid(await db.Tool.create(session, name="hammer"))


async def roles(world: World) -> dict[str, str]:
    """The roles of the members of the owner's project, by their names."""
    return dict(await stored(world.database, ROLES, id=world.project.id))


def member(world: World, user: db.User | None = None, **values: Any) -> dict[str, Any]:
    """Input that names a member of the owner's project."""
    named = {} if user is None else {"userId": gid(user)}
    return {"projectId": gid(world.project)} | named | values


async def test_whoever_makes_a_project_is_its_first_member(world: World) -> None:
    answer = await world.owner.ask(
        "query($id: ID!) { project(id: $id) { members { nodes { role user { username }"
        " project { name } } } } }",
        id=gid(world.project),
    )

    owner = {"role": "OWNER", "user": {"username": "owner"}, "project": {"name": "Moon base"}}
    assert answer.data == {"project": {"members": {"nodes": [owner]}}}
    assert len(answer.statements) == 1


async def test_the_members_of_many_projects_cost_as_many_statements_as_those_of_one(
    world: World, resolvers: People
) -> None:
    query = (
        "{ projects(orderBy: CREATED_AT_ASC) { nodes {"
        " members { nodes { role user { username } } } } } }"
    )

    async def ask() -> list[int]:
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
        assert planned.text == resolved.text
        projects = planned.data["projects"]["nodes"]
        owner = {"role": "OWNER", "user": {"username": "owner"}}
        assert {str(project["members"]) for project in projects} == {str({"nodes": [owner]})}
        return [len(projects), len(planned.statements), len(resolved.statements)]

    few = await ask()
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        for place in range(19):
            await factories.make_project(session, world.people.users["owner"], f"{place}")
    many = await ask()

    assert (few, many) == ([1, 1, 2], [20, 1, 2])


async def test_a_user_is_made_a_member_by_name(world: World) -> None:
    for role in ("VIEWER", "APPROVER", "EDITOR", "OWNER"):
        added = await world.owner.change(
            f"addProjectMember {MEMBERS}", **member(world, email="Stranger@localHOST", role=role)
        )
        await world.owner.change(
            "removeProjectMember { userErrors { code } }",
            **member(world, world.people.users["stranger"]),
        )

        members = {m["user"]["username"]: m["role"] for m in added["project"]["members"]["nodes"]}
        assert (members, added["userErrors"]) == ({"owner": "OWNER", "stranger": role}, [])
    assert await roles(world) == {"owner": "OWNER"}


async def test_adding_a_member_costs_four_statements(world: World) -> None:
    answer = await world.owner.ask(
        "mutation($input: AddProjectMemberInput!) { addProjectMember(input: $input)"
        " { userErrors { code } } }",
        input=member(world, email="stranger@localhost", role="VIEWER"),
    )

    # The project, locked; the user; whether they are a member; the row.
    assert answer.data == {"addProjectMember": {"userErrors": []}}
    assert len(answer.statements) == 4


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    ada = gid(world.ada)

    added = await world.refused(
        world.owner, "addProjectMember", projectId=ada, email="", role="VIEWER"
    )
    updated = await world.refused(
        world.owner, "updateProjectMember", projectId=ada, userId=gid(world.project), role="VIEWER"
    )
    removed = await world.refused(world.owner, "removeProjectMember", projectId="x", userId=ada)

    assert added == [("INVALID", "projectId"), ("INVALID", "email")]
    assert updated == removed == [("INVALID", "projectId"), ("INVALID", "userId")]
    unknown = member(world, email="stranger@localhost", role="KING")
    assert await world.error(world.owner, "addProjectMember", **unknown) == "BAD_USER_INPUT"


async def test_unusable_values_are_refused(world: World) -> None:
    owner, stranger = world.people.users["owner"], world.people.users["stranger"]
    elsewhere = {"projectId": gid(world.elsewhere)}
    nowhere = {"projectId": str(db.new_id())}
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("addProjectMember", {"email": "nobody@localhost"}, [("INVALID", "email")]),
        ("addProjectMember", {"email": "Owner@LOCALHOST"}, [("ALREADY_EXISTS", "email")]),
        ("addProjectMember", {"email": "owner@localhost"}, [("ALREADY_EXISTS", "email")]),
        (
            "addProjectMember",
            elsewhere | {"email": "owner@localhost"},
            [("NOT_FOUND", "projectId")],
        ),
        ("addProjectMember", nowhere | {"email": "owner@localhost"}, [("NOT_FOUND", "projectId")]),
        ("updateProjectMember", {"userId": gid(stranger)}, [("INVALID", "userId")]),
        ("updateProjectMember", {"userId": str(db.new_id())}, [("INVALID", "userId")]),
        ("updateProjectMember", elsewhere | {"userId": gid(owner)}, [("NOT_FOUND", "projectId")]),
    ]
    for mutation, input, expected in cases:
        input = member(world, role="VIEWER") | input
        assert await world.refused(world.owner, mutation, **input) == expected, (mutation, input)
    for user in (stranger, world.people.users["admin"]):
        gone = await world.refused(world.owner, "removeProjectMember", **member(world, user))
        assert gone == [("INVALID", "userId")]


async def test_what_is_wrong_is_said_in_a_sentence(world: World) -> None:
    stranger = world.people.users["stranger"]
    for mutation, input, message in (
        (
            "addProjectMember",
            {"email": "nobody@localhost"},
            "There is no user with the email 'nobody@localhost'.",
        ),
        ("addProjectMember", {"email": "owner@localhost"}, "This user is a member already."),
        (
            "updateProjectMember",
            {"userId": gid(stranger)},
            "This user is not a member of the project.",
        ),
    ):
        payload = await world.owner.change(
            f"{mutation} {{ userErrors {{ message }} }}", **member(world, role="OWNER"), **input
        )

        assert payload == {"userErrors": [{"message": message}]}


# What members of each role see, edit and own.


async def test_every_member_sees_all_that_is_in_the_project(
    world: World, http: httpx.AsyncClient
) -> None:
    clients = [(await join(world, http, role))[1] for role in MemberRole]
    for client in clients:
        answer = await client.ask(
            "{ projects { nodes { name agents { totalCount } tasks { totalCount }"
            " conversations { nodes { messages { totalCount } } } members { nodes { role } } } }"
            " users { totalCount } }"
        )

        members = answer.data["projects"]["nodes"][0].pop("members")["nodes"]
        assert sorted(m["role"] for m in members) == sorted(["OWNER", *MemberRole])
        assert answer.data == {
            "projects": {
                "nodes": [
                    {
                        "name": "Moon base",
                        "agents": {"totalCount": 1},
                        "tasks": {"totalCount": 3},
                        "conversations": {"nodes": [{"messages": {"totalCount": 1}}]},
                    }
                ]
            },
            "users": {"totalCount": 5},
        }


async def test_only_owners_and_editors_edit(world: World, http: httpx.AsyncClient) -> None:
    clients = {role: (await join(world, http, role))[1] for role in MemberRole}
    project = {"projectId": gid(world.project)}
    edits: list[tuple[str, dict[str, Any]]] = [
        ("updateProject", {"id": gid(world.project), "name": "Mars"}),
        ("updateAgent", {"id": gid(world.ada), "name": "Eve"}),
        ("createTask", project | {"title": "Dig"}),
        ("attachTool", {"agentId": gid(world.ada), "toolId": await shared_tool(world)}),
        ("notify", project | {"title": "x", "content": "x"}),
        ("editMessage", {"id": gid(world.message), "content": "x"}),
        ("recordUsage", project | {"records": [{"modelId": "gpt-4o"}]}),
        ("archiveConversation", {"id": gid(world.conversation)}),
    ]

    for mutation, input in edits:
        for role in (MemberRole.APPROVER, MemberRole.VIEWER):
            assert await world.error(clients[role], mutation, **input) == "FORBIDDEN", mutation
        for role in (MemberRole.EDITOR, MemberRole.OWNER):
            payload = await clients[role].change(f"{mutation} {{ {ERRORS} }}", **input)
            assert payload["userErrors"] == [], (role, mutation)


async def test_only_owners_change_who_is_a_member(world: World, http: httpx.AsyncClient) -> None:
    members = {role: await join(world, http, role) for role in MemberRole}
    owner, client = members.pop(MemberRole.OWNER)
    stranger = world.people.users["stranger"]

    for user, other in members.values():
        for mutation, input in (
            ("addProjectMember", member(world, email="stranger@localhost", role="VIEWER")),
            ("updateProjectMember", member(world, user, role="OWNER")),
            ("removeProjectMember", member(world, world.people.users["owner"])),
            # Whoever a project is given to becomes one of its owners.
            ("updateProject", {"id": gid(world.project), "ownerId": gid(user)}),
            ("updateProject", {"id": gid(world.project), "ownerId": None}),
        ):
            assert await world.error(other, mutation, **input) == "FORBIDDEN", mutation
    for mutation, input in (
        ("addProjectMember", member(world, email="stranger@localhost", role="VIEWER")),
        ("updateProjectMember", member(world, stranger, role="OWNER")),
        ("removeProjectMember", member(world, stranger)),
        ("updateProject", {"id": gid(world.project), "ownerId": gid(owner)}),
    ):
        payload = await client.change(f"{mutation} {{ {ERRORS} }}", **input)
        assert payload["userErrors"] == [], mutation


async def test_strangers_learn_nothing_of_members_and_agents_and_nobody_change_none(
    world: World,
) -> None:
    input = member(world, email="stranger@localhost", role="OWNER")
    found = await world.refused(world.people.stranger, "addProjectMember", **input)

    assert found == [("NOT_FOUND", "projectId")]
    assert await world.error(world.agent, "addProjectMember", **input) == "FORBIDDEN"
    assert await world.error(world.people.nobody, "addProjectMember", **input) == "UNAUTHENTICATED"


async def test_administrators_change_the_members_of_any_project(world: World) -> None:
    payload = await world.people.admin.change(
        f"addProjectMember {MEMBERS}", **member(world, email="stranger@localhost", role="EDITOR")
    )

    assert payload["userErrors"] == []
    assert await roles(world) == {"owner": "OWNER", "stranger": "EDITOR"}


async def test_another_role_holds_at_once(world: World, http: httpx.AsyncClient) -> None:
    user, client = await join(world, http, MemberRole.EDITOR)
    rename = {"id": gid(world.project), "name": "Mars"}
    await client.change("updateProject { userErrors { code } }", **rename)

    changed = await world.owner.change(
        f"updateProjectMember {MEMBERS}", **member(world, user, role="VIEWER")
    )

    assert changed["userErrors"] == []
    assert await roles(world) == {"new editor": "VIEWER", "owner": "OWNER"}
    assert await world.error(client, "updateProject", **rename) == "FORBIDDEN"


async def test_who_is_a_member_no_more_sees_nothing_at_once(
    world: World, http: httpx.AsyncClient
) -> None:
    user, client = await join(world, http, MemberRole.VIEWER)
    nodes = "{ nodes { id } }"
    query = f"{{ projects {nodes} agents {nodes} tasks {nodes} conversations {nodes}"
    query += f" messages {nodes} users {nodes} }}"
    before = await client.ask(query)

    await world.owner.change("removeProjectMember { userErrors { code } }", **member(world, user))
    after = await client.ask(query)

    assert [len(page["nodes"]) for page in before.data.values()] == [1, 1, 3, 1, 1, 2]
    assert after.data.pop("users") == {"nodes": [{"id": gid(user)}]}
    assert list(after.data.values()) == [{"nodes": []}] * 5
    gone = await world.refused(client, "updateProject", id=gid(world.project), name="Mars")
    assert gone == [("NOT_FOUND", "id")]


# Who sees whom.


async def test_members_see_each_other_and_nobody_else(
    world: World, http: httpx.AsyncClient, resolvers: People
) -> None:
    user, client = await join(world, http, MemberRole.VIEWER)
    query = "{ users(orderBy: USERNAME_ASC) { nodes { username } } }"

    async def seen(viewer: Client) -> list[str]:
        answer = await viewer.ask(query)
        return [node["username"] for node in answer.data["users"]["nodes"]]

    assert await seen(client) == await seen(world.owner) == ["new viewer", "owner"]
    assert await seen(world.agent) == ["new viewer", "owner"]
    assert await seen(world.people.stranger) == await seen(resolvers.stranger) == ["stranger"]
    lookup = "query($id: ID!) { user(id: $id) { username } node(id: $id) { id } }"
    hidden = await world.people.stranger.ask(lookup, id=gid(user))
    assert hidden.data == {"user": None, "node": None}


# There is always an owner.


async def test_the_user_whom_the_project_belongs_to_stays_its_owner(
    world: World, http: httpx.AsyncClient
) -> None:
    owner = world.people.users["owner"]
    other, client = await join(world, http, MemberRole.OWNER)

    for viewer in (world.owner, client, world.people.admin):
        removed = await world.refused(viewer, "removeProjectMember", **member(world, owner))
        demoted = await world.refused(
            viewer, "updateProjectMember", **member(world, owner, role="EDITOR")
        )
        assert removed == demoted == [("INVALID", "userId")]

    await client.change(f"updateProject {{ {ERRORS} }}", id=gid(world.project), ownerId=gid(other))
    left = await world.owner.change(f"removeProjectMember {MEMBERS}", **member(world, owner))
    assert left == {"project": None, "userErrors": []}
    assert await roles(world) == {"new owner": "OWNER"}


async def test_the_last_owner_stays(world: World, http: httpx.AsyncClient) -> None:
    owner = world.people.users["owner"]
    await join(world, http, MemberRole.EDITOR)
    await world.owner.change(f"updateProject {{ {ERRORS} }}", id=gid(world.project), ownerId=None)

    removed = await world.refused(world.owner, "removeProjectMember", **member(world, owner))
    demoted = await world.refused(
        world.owner, "updateProjectMember", **member(world, owner, role="VIEWER")
    )
    same = await world.owner.change(
        f"updateProjectMember {MEMBERS}", **member(world, owner, role="OWNER")
    )

    assert removed == demoted == [("INVALID", "userId")]
    assert same["userErrors"] == []
    assert await roles(world) == {"new editor": "EDITOR", "owner": "OWNER"}


async def test_the_reason_why_an_owner_stays_is_said(world: World) -> None:
    leave = member(world, world.people.users["owner"])
    named = await world.owner.change(f"removeProjectMember {{ {ERRORS} }}", **leave)
    await world.owner.change(f"updateProject {{ {ERRORS} }}", id=gid(world.project), ownerId=None)
    last = await world.owner.change(f"removeProjectMember {{ {ERRORS} }}", **leave)

    said = [payload["userErrors"][0]["message"] for payload in (named, last)]
    assert said == [
        "The project belongs to this user: give it to somebody else first, with updateProject.",
        "This is the only owner: make somebody else an owner first.",
    ]


async def test_a_new_owner_is_a_member_and_the_old_one_stays_one(world: World) -> None:
    stranger = world.people.users["stranger"]
    await world.owner.change(
        f"addProjectMember {MEMBERS}", **member(world, email="stranger@localhost", role="VIEWER")
    )

    payload = await world.owner.change(
        f"updateProject {MEMBERS}", id=gid(world.project), ownerId=gid(stranger)
    )

    members = {m["user"]["username"]: m["role"] for m in payload["project"]["members"]["nodes"]}
    assert members == {"owner": "OWNER", "stranger": "OWNER"}


async def test_a_user_who_is_deleted_is_a_member_no_more(
    world: World, http: httpx.AsyncClient
) -> None:
    user, _ = await join(world, http, MemberRole.OWNER)
    before = await snapshot(world.database)

    await world.people.admin.change("deleteUser { userErrors { code } }", id=gid(user))

    after = await snapshot(world.database)
    assert await roles(world) == {"owner": "OWNER"}
    rest = before.keys() - {"project_members", "users", "access_tokens"}
    assert {table: after[table] for table in rest} == {table: before[table] for table in rest}


# Writers in each other's way.


async def test_of_two_owners_who_leave_at_once_one_stays(
    world: World, http: httpx.AsyncClient
) -> None:
    owner = world.people.users["owner"]
    other, client = await join(world, http, MemberRole.OWNER)
    await world.owner.change(f"updateProject {{ {ERRORS} }}", id=gid(world.project), ownerId=None)

    for round in range(10):
        mutation = "removeProjectMember" if round % 2 else "updateProjectMember"
        input = {} if round % 2 else {"role": "EDITOR"}
        left = await asyncio.gather(
            world.owner.ask(*leaving(mutation), input=member(world, owner, **input)),
            client.ask(*leaving(mutation), input=member(world, other, **input)),
        )

        outcomes = sorted(outcome(mutation, answer.body) for answer in left)
        assert outcomes in (
            ["INVALID", "done"],  # each left for itself, one after the other
            ["FORBIDDEN", "done"],
            ["NOT_FOUND", "done"],
        ), outcomes
        assert list((await roles(world)).values()).count("OWNER") == 1
        async with world.database.write(db.Viewer(is_administrator=True)) as session:
            for user in (owner, other):
                row = {"project_id": world.project.id, "user_id": user.id}
                await session.merge(db.ProjectMember(**row, role=MemberRole.OWNER))


def leaving(mutation: str) -> tuple[str]:
    """The document of a mutation with which an owner stops to be one."""
    kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
    return (f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {ERRORS} }} }}",)


def outcome(mutation: str, body: Any) -> str:
    """What became of a mutation, in a word."""
    if "errors" in body:
        return str(body["errors"][0]["extensions"]["code"])
    found = faults(body["data"][mutation])
    return found[0][0] if found else "done"


async def test_of_two_who_add_the_same_user_at_once_one_is_told(world: World) -> None:
    stranger = world.people.users["stranger"]
    for role in ("VIEWER", "EDITOR") * 5:
        payloads = await asyncio.gather(
            *(
                viewer.change(
                    f"addProjectMember {{ {ERRORS} }}",
                    **member(world, email="stranger@localhost", role=role),
                )
                for viewer in (world.owner, world.people.admin)
            )
        )

        told = sorted(faults(payload) for payload in payloads)
        assert told == [[], [("ALREADY_EXISTS", "email")]]
        assert await roles(world) == {"owner": "OWNER", "stranger": role}
        await world.owner.change(
            "removeProjectMember { userErrors { code } }", **member(world, stranger)
        )


async def test_ids_of_members_may_be_bare(world: World) -> None:
    stranger = world.people.users["stranger"]
    bare = {"projectId": str(world.project.id), "userId": str(stranger.id)}
    await world.owner.change(
        f"addProjectMember {MEMBERS}", **member(world, email="stranger@localhost", role="VIEWER")
    )

    payload = await world.owner.change(f"updateProjectMember {MEMBERS}", **bare, role="EDITOR")

    assert payload["userErrors"] == []
    assert gid(stranger) == global_id("User", stranger.id)
    assert await roles(world) == {"owner": "OWNER", "stranger": "EDITOR"}
