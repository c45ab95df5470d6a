"""Users: made by administrators, changed by themselves, and deleted without what they made."""

import asyncio
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text

import db
from db import Right, user_changes
from db.base import any_of
from db.errors import Denied
from graph.core.scalars import global_id
from tests.conftest import ADMIN, People
from tests.oracle import Everything, Someone
from tests.world import FORBIDDEN, Case, Fault, World, faults, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path }"
WHOLE = f"{{ user {{ id username email displayName role isActive }} {ERRORS} }}"


def sees_user(everything: Everything, viewer: Someone, user: db.User) -> bool:
    """Whether a viewer sees a user: themselves, and who shares a project with them."""
    memberships = [row for row in everything.of(db.ProjectMember) if row.user_id == user.id]
    together = (everything.is_member(viewer, member.project_id) for member in memberships)
    return user.id == viewer.id or any(together)


SEEN = {db.User: sees_user}
CASES = {
    "createUser": Case(lambda w: {"username": "new", "email": "new@localhost"}, FORBIDDEN),
    "updateUser": Case(lambda w: {"id": gid(w.people.users["owner"]), "displayName": "New"}),
    "deleteUser": Case(lambda w: {"id": gid(w.people.users["owner"])}, FORBIDDEN),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_an_administrator_makes_a_user(world: World) -> None:
    id = db.new_id()

    payload = await world.people.admin.change(
        f"createUser {WHOLE}",
        id=global_id("User", id),
        username="Grace.Hopper_1-2",
        email="grace@example.org",
        displayName="Grace Hopper",
        role="ADMIN",
    )

    assert payload == {
        "user": {
            "id": global_id("User", id),
            "username": "Grace.Hopper_1-2",
            "email": "grace@example.org",
            "displayName": "Grace Hopper",
            "role": "ADMIN",
            "isActive": True,
        },
        "userErrors": [],
    }
    columns = "username, email, role, is_active, password_hash"
    assert await stored(world.database, f"SELECT {columns} FROM users WHERE id = :id", id=id) == [
        ("Grace.Hopper_1-2", "grace@example.org", "ADMIN", True, None)
    ]


async def test_a_user_is_no_administrator_unless_said_so(world: World) -> None:
    payload = await world.people.admin.change(f"createUser {WHOLE}", username="g", email="g@h")

    assert (payload["user"]["role"], payload["user"]["displayName"]) == ("USER", None)


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    found = await world.refused(
        world.people.admin,
        "createUser",
        id=gid(world.ada),
        username="two words",
        email="nowhere",
        displayName="",
    )

    assert found == [("INVALID", path) for path in ("id", "username", "email", "displayName")]


async def test_unusable_values_are_refused(world: World) -> None:
    admin, owner = world.people.admin, {"id": gid(world.people.users["owner"])}
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("createUser", {"username": "", "email": "a@b"}, [("INVALID", "username")]),
        ("createUser", {"username": "x" * 65, "email": "a@b"}, [("INVALID", "username")]),
        ("createUser", {"username": "-x", "email": "a@b"}, [("INVALID", "username")]),
        ("createUser", {"username": "x\n", "email": "a@b"}, [("INVALID", "username")]),
        ("createUser", {"username": "x", "email": "a@b@c"}, [("INVALID", "email")]),
        ("createUser", {"username": "x", "email": f"{'a' * 254}@b"}, [("INVALID", "email")]),
        ("createUser", {"username": "owner", "email": "a@b"}, [("ALREADY_EXISTS", "username")]),
        (
            "createUser",
            {"username": "x", "email": "owner@localhost"},
            [("ALREADY_EXISTS", "email")],
        ),
        (
            "createUser",
            {"username": "owner", "email": "stranger@localhost"},
            [("ALREADY_EXISTS", "username"), ("ALREADY_EXISTS", "email")],
        ),
        (
            "createUser",
            {"username": "OWNER", "email": "Stranger@LocalHost"},
            [("ALREADY_EXISTS", "username"), ("ALREADY_EXISTS", "email")],
        ),
        ("updateUser", owner | {"username": "STRANGER"}, [("ALREADY_EXISTS", "username")]),
        ("updateUser", owner | {"email": "STRANGER@localhost"}, [("ALREADY_EXISTS", "email")]),
        ("createUser", owner | {"username": "x", "email": "a@b"}, [("ALREADY_EXISTS", "id")]),
        ("updateUser", owner | {"username": "stranger"}, [("ALREADY_EXISTS", "username")]),
        ("updateUser", owner | {"email": "stranger@localhost"}, [("ALREADY_EXISTS", "email")]),
        ("updateUser", owner | {"username": None}, [("INVALID", "username")]),
        ("updateUser", owner | {"role": None}, [("INVALID", "role")]),
        ("updateUser", {"id": str(db.new_id()), "username": "x"}, [("NOT_FOUND", "id")]),
        ("deleteUser", {"id": gid(world.project)}, [("INVALID", "id")]),
        ("deleteUser", {"id": str(db.new_id())}, [("NOT_FOUND", "id")]),
    ]
    for mutation, input, expected in cases:
        assert await world.refused(admin, mutation, **input) == expected, (mutation, input)


async def test_the_secrets_of_a_user_cannot_be_written(world: World) -> None:
    for secret in ("password", "passwordHash", "password_hash"):
        code = await world.error(
            world.people.admin, "createUser", username="x", email="a@b", **{secret: "x"}
        )
        assert code == "BAD_USER_INPUT"


async def test_users_change_themselves_and_leave_out_what_stays(world: World) -> None:
    id = gid(world.people.users["owner"])

    named = await world.owner.change(f"updateUser {WHOLE}", id=id, displayName="The Owner")
    moved = await world.people.admin.change(f"updateUser {WHOLE}", id=id, email="new@localhost")
    cleared = await world.owner.change(f"updateUser {WHOLE}", id=id, displayName=None)

    user = {"id": id, "username": "owner", "role": "USER", "isActive": True}
    assert named["user"] == user | {"email": "owner@localhost", "displayName": "The Owner"}
    assert moved["user"] == user | {"email": "new@localhost", "displayName": "The Owner"}
    assert cleared["user"] == user | {"email": "new@localhost", "displayName": None}


async def test_users_do_not_change_their_role_or_state_or_other_users(world: World) -> None:
    owner, stranger = gid(world.people.users["owner"]), gid(world.people.users["stranger"])

    for own in (
        {"role": "ADMIN"},
        {"role": "USER"},
        {"isActive": True},
        {"isActive": False},
        {"email": "stranger@localhost"},
        {"username": "stranger"},
    ):
        assert await world.error(world.owner, "updateUser", id=owner, **own) == "FORBIDDEN", own
    found = await world.refused(world.owner, "updateUser", id=stranger, displayName="Mine")

    assert found == [("NOT_FOUND", "id")]
    assert await world.error(world.agent, "updateUser", id=owner, displayName="A") == "FORBIDDEN"


async def test_the_rule_of_own_values_holds_without_the_api(world: World) -> None:
    before = await snapshot(world.database)
    id = world.people.users["owner"].id
    viewer = db.Viewer(user_id=id)

    async def change(asking: db.Viewer, **values: Any) -> db.User:
        async with world.database.write(asking, Right.USE) as session:
            user = await session.fetch(db.User, id)
            return await user_changes.change_user(session, user, **values)

    with pytest.raises(Denied):
        await change(viewer, role=db.UserRole.ADMIN)
    with pytest.raises(Denied):
        await change(viewer, is_active=True, display_name="Ann")
    assert await snapshot(world.database) == before
    assert (await change(viewer, display_name="Ann")).display_name == "Ann"
    assert (await change(ADMIN, email="ann@localhost")).email == "ann@localhost"


async def test_a_name_is_kept_as_it_is_spelt_and_found_however_it_is(
    world: World, resolvers: People
) -> None:
    admin, email = world.people.admin, "Ren\u00e9.\u00c9tienne@Example.org"
    made = await admin.change(f"createUser {WHOLE}", username="Rene", email=email)
    again = await admin.change(f"updateUser {WHOLE}", id=made["user"]["id"], username="RENE")
    other = "rene\u0301.e\u0301tienne@EXAMPLE.org"
    taken = await world.refused(admin, "createUser", username="rene", email=other)

    assert (made["user"]["username"], made["user"]["email"]) == ("Rene", email)
    assert (again["user"]["username"], again["user"]["email"]) == ("RENE", email)
    assert taken == [("ALREADY_EXISTS", "username"), ("ALREADY_EXISTS", "email")]
    query = "query($w: UserFilter) { users(where: $w) { nodes { username } } }"
    everybody = ["admin", "owner", "stranger", "RENE"]
    for where, found in (
        ({"email": {"eq": other}}, ["RENE"]),
        ({"username": {"eq": "rEnE"}}, ["RENE"]),
        ({"username": {"in": ["rene", "OWNER", "nobody"]}}, ["owner", "RENE"]),
        ({"username": {"not": "rene"}}, everybody[:3]),
        ({"not": {"username": {"in": ["rene", "OWNER"]}}}, ["admin", "stranger"]),
        # What else can be asked of a text is asked of its characters.
        ({"username": {"startsWith": "rene"}}, []),
        ({"username": {"gte": "RENE", "lt": "a"}}, ["RENE"]),
    ):
        for people in (world.people, resolvers):
            answer = await people.admin.ask(query, w=where)
            assert [n["username"] for n in answer.data["users"]["nodes"]] == found, where


async def test_an_index_finds_a_name(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        many = "INSERT INTO users (username, email) SELECT n, n FROM generate_series(1, 1000) n"
        await session.execute(text(many))
        await session.execute(text("ANALYZE users"))
        for name in ("username", "email"):
            column = getattr(db.User, name)
            for condition in (column == "Owner", any_of(column, ["Owner", "Admin"])):
                found = select(db.User.id).where(condition)
                printed = found.compile(session.bind, compile_kwargs={"literal_binds": True})
                plan = list(await session.scalars(text(f"EXPLAIN {printed}")))
                assert any(f"uq_users_{name}" in line for line in plan), plan


async def test_of_two_who_take_a_name_at_once_one_is_refused(world: World) -> None:
    for number in range(10):
        users = ((f"a{number}", f"x{number}@y"), (f"b{number}", f"X{number}@Y"))
        answers = await asyncio.gather(
            *(
                world.people.admin.change(
                    f"createUser {{ {ERRORS} }}", username=username, email=email
                )
                for username, email in users
            )
        )
        assert sorted(map(faults, answers)) == [[], [("ALREADY_EXISTS", "email")]]


# The last administrator who is active stays one.


async def test_the_only_active_administrator_stays_one(world: World) -> None:
    admin, users = world.people.admin, world.people.users
    me, owner = {"id": gid(users["admin"])}, {"id": gid(users["owner"])}
    only: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("updateUser", {"role": "USER"}, [("INVALID", "role")]),
        ("updateUser", {"isActive": False}, [("INVALID", "isActive")]),
        ("updateUser", {"isActive": False, "displayName": "A"}, [("INVALID", "isActive")]),
        ("deleteUser", {}, [("INVALID", "id")]),
    ]
    for mutation, input, expected in only:
        assert await world.refused(admin, mutation, **me, **input) == expected, (mutation, input)
    told = await admin.change("deleteUser { userErrors { message } }", **me)
    message = "This is the only active administrator: make somebody else one first."
    assert told["userErrors"] == [{"message": message}]

    # Who is not active does not count, and can go.
    await admin.change("updateUser { user { id } }", **owner, role="ADMIN", isActive=False)
    for mutation, input, expected in only:
        assert await world.refused(admin, mutation, **me, **input) == expected, (mutation, input)
    done = await admin.change(f"updateUser {{ {ERRORS} }}", **owner, role="USER")
    assert faults(done) == []

    await admin.change("updateUser { user { id } }", **owner, role="ADMIN", isActive=True)
    done = await admin.change(f"updateUser {WHOLE}", **me, role="USER")
    assert (faults(done), done["user"]["role"]) == ([], "USER")
    gone = await world.refused(world.owner, "deleteUser", **owner)
    assert gone == [("INVALID", "id")]


async def test_an_inactive_user_is_locked_out_until_active_again(world: World) -> None:
    owner, query = gid(world.people.users["owner"]), "{ me { username role } }"

    await world.people.admin.change("updateUser { user { id } }", id=owner, isActive=False)
    out = await world.owner.ask(query)
    await world.people.admin.change(
        "updateUser { user { id } }", id=owner, isActive=True, role="ADMIN"
    )
    back = await world.owner.ask(query)

    assert out.code == "UNAUTHENTICATED"
    assert back.data == {"me": {"username": "owner", "role": "ADMIN"}}


async def test_a_user_goes_with_their_tokens_and_what_they_made_stays(world: World) -> None:
    task = await world.owner.change(
        "createTask { task { id } }", projectId=gid(world.project), title="Mine"
    )
    await world.owner.change(
        "appendMessages { messages { user { username } } }",
        conversationId=gid(world.conversation),
        messages=[{"sender": "USER", "content": "Bye"}],
    )
    before = await snapshot(world.database)

    payload = await world.people.admin.change(
        f"deleteUser {{ deletedId {ERRORS} }}", id=gid(world.people.users["owner"])
    )

    assert payload == {"deletedId": gid(world.people.users["owner"]), "userErrors": []}
    after = await snapshot(world.database)
    assert {table: len(rows) for table, rows in after.items()} == {
        table: len(rows) - (table in ("users", "access_tokens", "project_members"))
        for table, rows in before.items()
    }
    assert task["task"] is not None
    for query in (
        "SELECT owner_id FROM projects WHERE name = 'Moon base'",
        "SELECT created_by_user_id FROM tasks WHERE title = 'Mine'",
        "SELECT user_id FROM conversations WHERE agent_id IS NOT NULL",
        "SELECT user_id FROM messages WHERE content = 'Bye'",
    ):
        assert await stored(world.database, query) == [None]
    assert (await world.owner.ask("{ me { username } }")).code == "UNAUTHENTICATED"
