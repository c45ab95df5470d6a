"""Accounts: coming in by a password, and the tokens that people and agents come with."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher

import db
from db import access, member_changes, passwords
from graph.core.rights import rights_of
from graph.schema import schema
from graph.settings import Settings
from tests import factories
from tests.client import Client
from tests.conftest import People, serving
from tests.oracle import Everything, Someone
from tests.world import FORBIDDEN, Case, World, faults, gid, make_world, snapshot, stored

PASSWORD = "correct horse battery staple"
FAULTS = "{ userErrors { code message path } }"
ME = "{ me { username } }"


def sees_token(everything: Everything, viewer: Someone, token: db.AccessToken) -> bool:
    """Whether a viewer sees a token: its own, and a user those of the agents that they edit."""
    if isinstance(viewer, db.Agent):
        return token.agent_id == viewer.id
    if token.agent_id is None:
        return token.user_id == viewer.id
    editors = (db.MemberRole.OWNER, db.MemberRole.EDITOR)
    agent = everything.rows[db.Agent][token.agent_id]
    return everything.is_member(viewer, agent.project_id, *editors)


BREAKING = {
    "access_tokens": {
        "one_bearer": [
            "user_id = NULL, agent_id = NULL",
            "user_id = (SELECT id FROM users LIMIT 1), agent_id = (SELECT id FROM agents LIMIT 1)",
        ],
        "scopes": ["scopes = '{NOPE}'", "scopes = '{READ, NULL}'", "scopes = '{read}'"],
    },
}
SEEN = {db.AccessToken: sees_token}
CASES = {
    "createAccessToken": Case(lambda w: {"name": "New"}),
    "setPassword": Case(
        lambda w: {"userId": gid(w.viewer), "newPassword": "given by somebody"}, FORBIDDEN
    ),
}


@pytest.fixture(scope="module")
def hashed() -> str:
    return asyncio.run(passwords.hash_password(PASSWORD))


@pytest.fixture
async def world(
    database: db.Database, http: httpx.AsyncClient, people: People, hashed: str
) -> World:
    world = await make_world(database, http, people)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        owner = await session.get_one(db.User, people.users["owner"].id)
        owner.password_hash = hashed
    return world


def bearing(world: World, token: str | None) -> Client:
    """The client of whoever has this token."""
    return Client(world.people.nobody._http, world.database, token)


async def log_in(world: World, password: str = PASSWORD) -> Client:
    """The client of the owner, who logs in."""
    payload = await world.people.nobody.change(
        "login { token user { username } userErrors { message } }",
        username="owner",
        password=password,
    )
    assert payload["userErrors"] == []
    assert payload["user"] == {"username": "owner"}
    client = bearing(world, payload["token"])
    await client.ask(ME)  # its first use is noted
    return client


async def is_in(client: Client) -> bool:
    """Whether the client's token opens anything."""
    answer = await client.ask(ME)
    return "errors" not in answer.body


async def test_a_password_lets_in(world: World) -> None:
    client = await log_in(world)

    assert (await client.ask(ME)).data == {"me": {"username": "owner"}}
    lifetime = "SELECT expires_at - created_at FROM access_tokens WHERE name = 'login'"
    assert await stored(world.database, lifetime) == [timedelta(days=30)]


async def test_a_username_lets_in_whatever_its_case(world: World) -> None:
    payload = await world.people.nobody.change(
        "login { token user { username } }", username="OwNeR", password=PASSWORD
    )

    assert payload["user"] == {"username": "owner"}
    assert await is_in(bearing(world, payload["token"]))


async def test_a_password_is_the_same_however_a_keyboard_spells_it(world: World) -> None:
    spellings = ["cr\u00e8me br\u00fbl\u00e9e", "cre\u0300me\u00a0bru\u0302le\u0301e"]
    others = ["creme brulee", "Cr\u00e8me br\u00fbl\u00e9e", "cr\u00e8mebr\u00fbl\u00e9e"]
    hashes = [await passwords.hash_password(password) for password in spellings]
    # As it was typed, before there was one spelling.
    hashes += [PasswordHasher().hash(password) for password in spellings]

    for hashed in hashes[:2]:
        assert [await passwords.is_password(hashed, word) for word in spellings] == [True, True]
    for hashed, typed in zip(hashes[2:], spellings, strict=True):
        assert await passwords.is_password(hashed, typed)
    for hashed in hashes:
        assert [await passwords.is_password(hashed, word) for word in others] == [False] * 3
    assert not await passwords.is_password(None, spellings[0])


@pytest.mark.parametrize(
    ("typed", "tries"),
    [
        ("caf\u00e9 au lait", ["caf\u00e9 au lait"]),
        ("cafe\u0301 au lait", ["caf\u00e9 au lait"]),
        ("cafe\u0301 au the", ["caf\u00e9 au the", "cafe\u0301 au the"]),
        ("wrong password", ["wrong password"]),
    ],
)
async def test_a_password_is_tried_no_oftener_than_needed(
    typed: str, tries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def fits(hashed: str, password: str) -> bool:
        tried.append(password)
        return password == "caf\u00e9 au lait"

    monkeypatch.setattr(passwords, "_fits", fits)

    assert await passwords.is_password("hash", typed) == ("lait" in typed)
    assert tried == tries


async def test_whoever_cannot_come_in_learns_nothing(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        gone = await session.get_one(db.User, world.people.users["stranger"].id)
        gone.password_hash = await passwords.hash_password(PASSWORD)
        gone.is_active = False
    before = await snapshot(world.database)
    told = set()

    for username, password in (
        ("owner", "wrong"),
        ("owner", ""),
        ("owner", PASSWORD.upper()),
        ("nobody", PASSWORD),
        ("admin", PASSWORD),  # who has no password yet
        ("stranger", PASSWORD),  # who is not active
    ):
        payload = await world.people.nobody.change(
            f"login {FAULTS}", username=username, password=password
        )
        told.add(str(payload))

    assert told == {
        "{'userErrors': [{'code': 'INVALID', 'message': 'There is no active user with this name"
        " and password.', 'path': ['password']}]}"
    }
    assert await snapshot(world.database) == before


def test_a_password_of_nobody_is_compared_as_one_of_somebody() -> None:
    assert not PasswordHasher().check_needs_rehash(passwords.DECOY)


async def test_who_guesses_is_stopped_whether_there_is_such_a_user_or_not(world: World) -> None:
    settings = Settings(login_failures_per_account=3, login_failures_per_address=8)
    document = "mutation($i: LoginInput!) { login(input: $i) { token userErrors { code } } }"

    async def tried(nobody: Client, username: str, password: str = "wrong") -> str:
        answer = await nobody.ask(document, i={"username": username, "password": password})
        if "errors" not in answer.body:
            return "in" if answer.data["login"]["token"] else "out"
        assert answer.body["data"] == {"login": None}
        assert answer.statements == []
        return f"{answer.code} {answer.errors[0]['extensions']['limit'].rpartition('_')[2]}"

    async with serving(world.database, settings) as http:
        nobody = world.people.nobody.through(http)
        # A right one in between takes back only itself; one name has many spellings.
        guesses = ["wrong", "wrong", PASSWORD, PASSWORD, "wrong", "wrong", PASSWORD]
        names = ["owner", "OWNER", "Owner", "owner", "oWner", "OWNER", "owneR"]
        owner = [await tried(nobody, *pair) for pair in zip(names, guesses, strict=True)]
        unknown = [await tried(nobody, "unknown") for _ in range(4)]
        others = [await tried(nobody, name) for name in ("a", "b", "c")]

    stopped = "RATE_LIMITED account"
    assert owner == ["out", "out", "in", "in", "out", stopped, stopped]
    assert unknown == ["out", "out", "out", stopped]
    assert others == ["out", "out", "RATE_LIMITED address"]


async def test_the_own_password_is_guessed_no_longer_either(world: World) -> None:
    client = await log_in(world)
    async with serving(world.database, Settings(login_failures_per_account=1)) as http:
        input = {"currentPassword": "wrong", "newPassword": "another one, longer"}
        document = "mutation($i: ChangePasswordInput!) { changePassword(input: $i) { __typename } }"
        first, second = [await client.through(http).ask(document, i=input) for _ in range(2)]

    assert first.data
    assert second.code == "RATE_LIMITED"


async def test_nobody_may_do_anything_but_log_in(world: World) -> None:
    before = await snapshot(world.database)

    for name in rights_of(schema):
        kind = f"{name[0].upper()}{name[1:]}Input!"
        document = f"mutation($i: {kind}) {{ {name}(input: $i) {{ __typename }} }}"
        answer = await world.people.nobody.ask(document, i={})
        codes = {error["extensions"]["code"] for error in answer.errors}
        assert codes <= {"UNAUTHENTICATED", "BAD_REQUEST", "BAD_USER_INPUT"}, name
    assert await snapshot(world.database) == before


async def test_neither_password_nor_token_is_kept(world: World) -> None:
    payload = await world.owner.change(
        "createAccessToken { token accessToken { prefix } }", name="worker"
    )

    everything = str(await snapshot(world.database))
    assert PASSWORD not in everything
    assert payload["token"] not in everything
    assert payload["token"].startswith(payload["accessToken"]["prefix"])
    assert "$argon2id$v=19$m=65536,t=3,p=4$" in everything


async def test_logging_out_ends_a_token_and_everywhere_ends_all(world: World) -> None:
    first, second, third = [await log_in(world) for _ in range(3)]

    await first.change(f"logout {FAULTS}")
    assert [await is_in(client) for client in (first, second, third)] == [False, True, True]
    payload = await second.change("logout { accessToken { name revokedAt } }", everywhere=True)

    assert payload["accessToken"]["name"] == "login"
    assert payload["accessToken"]["revokedAt"] is not None
    assert [await is_in(client) for client in (second, third, world.owner)] == [False, False, True]


async def test_who_logs_in_can_log_out_in_the_same_operation(world: World) -> None:
    answer = await world.owner.ask(
        """mutation($username: String!, $password: String!) {
          login(input: {username: $username, password: $password}) { token }
          logout(input: {}) { accessToken { name } }
        }""",
        username="owner",
        password=PASSWORD,
    )

    assert answer.data["logout"] == {"accessToken": {"name": "login"}}
    assert not await is_in(bearing(world, answer.data["login"]["token"]))
    assert await is_in(world.owner)


async def test_a_password_that_is_changed_while_it_is_compared_lets_nobody_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = passwords.is_password

    async def meanwhile(stored: str | None, password: str) -> bool:
        fits = await compare(stored, password)
        owner, new = gid(world.people.users["owner"]), "given meanwhile"
        await world.people.admin.change(f"setPassword {FAULTS}", userId=owner, newPassword=new)
        return fits

    monkeypatch.setattr(passwords, "is_password", meanwhile)
    answer = await world.people.nobody.change(
        "login { token userErrors { code path } }", username="owner", password=PASSWORD
    )

    assert faults(answer) == [("INVALID", "password")]
    assert answer["token"] is None


async def test_a_token_that_is_made_while_the_password_is_changed_is_revoked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log_in(world)
    issue = access.issue_token
    changing: list[asyncio.Task[Any]] = []

    async def meanwhile(session: Any, user: db.User, name: str, **values: Any) -> Any:
        if name == access.LOGIN:
            owner, new = gid(user), "given meanwhile"
            set_password = f"setPassword {FAULTS}"
            change = world.people.admin.change(set_password, userId=owner, newPassword=new)
            # In a context of its own: the session that is held here is somebody else's.
            changing.append(asyncio.create_task(change, context=Context()))
            # It has to wait; if it does not, it is done by now.
            await asyncio.wait(changing, timeout=2)
        return await issue(session, user, name, **values)

    monkeypatch.setattr(access, "issue_token", meanwhile)
    client = await log_in(world)
    ((change,),) = [await asyncio.gather(*changing)]

    assert change == {"userErrors": []}
    assert not await is_in(client)


async def test_a_password_is_changed_by_who_knows_it(world: World) -> None:
    this, other = await log_in(world), await log_in(world)
    new = "another one, longer"

    refused = await world.refused(this, "changePassword", currentPassword="wrong", newPassword=new)
    assert refused == [("INVALID", "currentPassword")]
    refused = await world.refused(
        this, "changePassword", currentPassword=PASSWORD, newPassword="short"
    )
    assert refused == [("INVALID", "newPassword")]
    payload = await this.change(
        f"changePassword {FAULTS}", currentPassword=PASSWORD, newPassword=new
    )

    assert payload == {"userErrors": []}
    assert [await is_in(client) for client in (this, other, world.owner)] == [True, False, True]
    assert await is_in(await log_in(world, new))
    old = await world.people.nobody.change(f"login {FAULTS}", username="owner", password=PASSWORD)
    assert faults(old) == [("INVALID", "password")]


async def test_an_administrator_sets_a_password(world: World) -> None:
    owner = gid(world.people.users["owner"])
    values = {"userId": owner, "newPassword": "given by somebody"}
    client = await log_in(world)

    assert await world.error(world.owner, "setPassword", **values) == "FORBIDDEN"
    assert (await world.people.admin.change(f"setPassword {FAULTS}", **values)) == {
        "userErrors": []
    }

    assert not await is_in(client)
    assert await is_in(await log_in(world, "given by somebody"))


async def test_a_token_is_made_for_oneself_or_for_an_agent(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)

    mine = await world.owner.change(
        "createAccessToken { token accessToken { name scopes user { username } agent { id } } }",
        name="mine",
        scopes=["WRITE", "READ", "WRITE"],
        expiresAt=soon.isoformat(),
    )
    ada = await world.owner.change(
        "createAccessToken { token accessToken { user { id } agent { name } } }",
        name="ada's",
        agentId=gid(world.ada),
    )

    assert mine["accessToken"] == {
        "name": "mine",
        "scopes": ["WRITE", "READ"],
        "user": {"username": "owner"},
        "agent": None,
    }
    assert ada["accessToken"] == {"user": None, "agent": {"name": "Ada"}}
    seen = await bearing(world, ada["token"]).ask("{ me { id } projects { nodes { name } } }")
    assert seen.data == {"me": None, "projects": {"nodes": [{"name": world.project.name}]}}


async def test_a_token_is_made_for_nobody_else(world: World) -> None:
    users = world.people.users
    stranger = world.people.stranger

    for client, values, fault in (
        (world.owner, {"userId": gid(users["stranger"])}, ("NOT_FOUND", "userId")),
        (stranger, {"agentId": gid(world.ada)}, ("NOT_FOUND", "agentId")),
        (
            world.owner,
            {"agentId": gid(world.ada), "userId": gid(users["owner"])},
            ("INVALID", "agentId"),
        ),
    ):
        assert await world.refused(client, "createAccessToken", name="x", **values) == [fault]

    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        project = await session.get_one(db.Project, world.project.id)
        await member_changes.add_member(
            session, project, users["stranger"].id, db.MemberRole.VIEWER
        )
    for client in (stranger, world.agent):
        refused = await world.error(client, "createAccessToken", name="x", agentId=gid(world.ada))
        assert refused == "FORBIDDEN"


async def test_a_token_is_revoked(world: World) -> None:
    made = await world.owner.change(
        "createAccessToken { token accessToken { id } }", name="short-lived"
    )
    client = bearing(world, made["token"])
    assert await is_in(client)
    id = made["accessToken"]["id"]

    assert await world.refused(world.people.stranger, "revokeAccessToken", id=id) == [
        ("NOT_FOUND", "id")
    ]
    payload = await world.owner.change("revokeAccessToken { accessToken { revokedAt } }", id=id)
    again = await world.owner.change("revokeAccessToken { accessToken { revokedAt } }", id=id)

    assert payload["accessToken"]["revokedAt"] is not None
    assert again == payload
    assert not await is_in(client)


SENDS: dict[str, Any] = {"type": "NOTE", "content": {}}


@pytest.mark.parametrize(
    ("scopes", "works", "writes", "administers"),
    [
        ([], True, True, True),
        (["READ"], False, False, False),
        (["WORK"], True, False, False),
        (["WRITE"], True, True, False),
        (["ADMINISTER"], False, False, True),
        (["WORK", "ADMINISTER"], True, False, True),
    ],
)
async def test_scopes_limit_a_token(
    world: World, scopes: list[str], works: bool, writes: bool, administers: bool
) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        admin = await session.get_one(db.User, world.people.users["admin"].id)
        project = await session.get_one(db.Project, world.project.id)
        await member_changes.add_member(session, project, admin.id, db.MemberRole.EDITOR)
        _, token = await access.issue_token(
            session, admin, "limited", scopes=[db.TokenScope(scope) for scope in scopes]
        )
        other = await factories.make_agent(session, project, "Other")
    client = bearing(world, token)

    async def can(mutation: str, /, **input: Any) -> bool:
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        document = f"mutation($i: {kind}) {{ {mutation}(input: $i) {FAULTS} }}"
        answer = await client.ask(document, i=input)
        if "errors" in answer.body:
            assert answer.code == "FORBIDDEN"
            return False
        assert answer.data[mutation] == {"userErrors": []}
        return True

    sends = {"fromAgentId": gid(world.ada), "toAgentId": gid(other), **SENDS}
    assert await can("sendCommunication", **sends) is works
    assert await can("updateTask", id=gid(world.free), title="New") is writes
    assert await can("createAiModel", id="m", provider="p") is administers
    seen = (await client.ask("{ projects { totalCount } }")).data["projects"]["totalCount"]
    assert seen == (2 if administers else 1)


async def test_a_limited_token_makes_none_that_can_more(world: World) -> None:
    made = await world.owner.change(
        "createAccessToken { token }", name="limited", scopes=["READ", "WRITE"]
    )
    client = bearing(world, made["token"])
    assert await is_in(client)

    for scopes in ([], ["ADMINISTER"], ["READ", "ADMINISTER"]):
        refused = await world.error(client, "createAccessToken", name="x", scopes=scopes)
        assert refused == "FORBIDDEN"
    for scopes in (["READ"], ["WORK"], ["READ", "WORK", "WRITE"]):
        payload = await client.change(f"createAccessToken {FAULTS}", name="x", scopes=scopes)
        assert payload == {"userErrors": []}


async def test_no_token_is_made_that_is_over(world: World) -> None:
    moment = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert await world.refused(world.owner, "createAccessToken", name="over", expiresAt=moment) == [
        ("INVALID", "expiresAt")
    ]


async def test_the_use_of_a_token_is_noted_by_the_minute(world: World) -> None:
    used = "SELECT last_used_at FROM access_tokens WHERE name = 'noted'"
    made = await world.owner.change("createAccessToken { token }", name="noted")
    client = bearing(world, made["token"])
    assert await stored(world.database, used) == [None]

    await client.ask(ME)
    (first,) = await stored(world.database, used)
    await client.ask(ME)

    assert datetime.now(UTC) - first < timedelta(minutes=1)
    assert await stored(world.database, used) == [first]


async def test_an_agent_acts_in_its_own_name(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        other = await factories.make_agent(session, world.project, "Other")
    ada, project = gid(world.ada), gid(world.project)
    asks = {"projectId": project, "title": "?", "content": {}}
    call = {"modelId": gid(world.model)}
    says = {"conversationId": gid(world.conversation)}

    for mutation, input in (
        ("sendCommunication", {"fromAgentId": gid(other), "toAgentId": ada, **SENDS}),
        ("requestApproval", {**asks, "agentId": gid(other)}),
        ("recordUsage", {"projectId": project, "records": [{**call, "agentId": gid(other)}]}),
        (
            "appendMessages",
            {**says, "messages": [{"sender": "ASSISTANT", "content": "", "agentId": gid(other)}]},
        ),
        ("startConversation", {"projectId": project, "agentId": gid(other)}),
    ):
        assert await world.error(world.agent, mutation, **input) == "FORBIDDEN", mutation

    asked = await world.agent.change(
        "requestApproval { approvalRequest { agent { name } } }", **asks
    )
    used = await world.agent.change(
        "recordUsage { usageRecords { agent { name } } }", projectId=project, records=[call]
    )
    said = await world.agent.change(
        "appendMessages { messages { agent { name } } }",
        **says,
        messages=[{"sender": "ASSISTANT", "content": "Hello"}],
    )

    assert asked["approvalRequest"] == {"agent": {"name": "Ada"}}
    assert used["usageRecords"] == [{"agent": {"name": "Ada"}}]
    assert said["messages"] == [{"agent": {"name": "Ada"}}]


# Who a token stands for.

VIEWER = (
    "{ viewer { user { username } agent { name } accessToken { name scopes expiresAt } rights } }"
)
ALL = ["VIEW", "WORK", "ANSWER", "EDIT", "OWN", "USE"]


async def test_a_token_is_told_who_it_stands_for(
    world: World, http: httpx.AsyncClient, resolvers: People
) -> None:
    issued = await world.owner.change(
        "createAccessToken { token }",
        name="worker",
        agentId=gid(world.ada),
        scopes=["WORK"],
        expiresAt="2099-01-01T00:00:00Z",
    )
    limited = Client(http, world.database, issued["token"])
    await limited.ask(ME)  # whose use is noted
    token: dict[str, Any] = {"name": "test", "scopes": [], "expiresAt": None}
    cases: list[tuple[Client, Any, Any, dict[str, Any], list[str]]] = [
        (world.owner, "owner", None, token, ALL),
        (world.people.admin, "admin", None, token, [*ALL, "ADMINISTER"]),
        (
            limited,
            None,
            "Ada",
            {"name": "worker", "scopes": ["WORK"], "expiresAt": "2099-01-01T00:00:00+00:00"},
            ["VIEW", "WORK"],
        ),
    ]
    for client, username, name, row, rights in cases:
        answer = await client.ask(VIEWER)

        assert answer.data["viewer"] == {
            "user": username and {"username": username},
            "agent": name and {"name": name},
            "accessToken": row,
            "rights": rights,
        }
        assert len(answer.statements) == 1
        other = await client.through(resolvers.owner._http).ask(VIEWER)
        assert other.text == answer.text
    assert (await world.people.nobody.ask(VIEWER)).code == "UNAUTHENTICATED"


async def test_an_agent_sees_its_own_tokens_and_no_others(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        eve = await factories.make_agent(session, world.project, "Eve")
        await factories.make_token(session, "token of Eve", eve)
    answer = await world.agent.ask("{ accessTokens { nodes { agent { name } } } }")
    assert answer.data == {"accessTokens": {"nodes": [{"agent": {"name": "Ada"}}]}}
