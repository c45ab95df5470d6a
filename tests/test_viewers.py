"""Who asks: what a token opens, and what is open to nobody."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from graphql import build_client_schema, get_introspection_query
from sqlalchemy import Uuid, cast, func, select, update

import db
from db import access
from db.scopes import acts_for
from graph.core.errors import Unauthenticated
from graph.execution import tokens as viewer
from graph.execution.tokens import CHECK_SECONDS, Tokens
from graph.settings import Audience, Mode, Settings
from tests import factories
from tests.client import Answer, Client, counted
from tests.conftest import People, serving
from tests.patience import PATIENCE

CLOSED = [
    "{ me { id } }",
    "{ projects { totalCount } }",
    "{ __typename projects { totalCount } }",
    '{ node(id: "UHJvamVjdDp4") { id } }',
    "{ nodes(ids: []) { id } }",
    "{ users { __typename } }",
    "query($no: Boolean!) { ... on Query @skip(if: $no) { me { id } } }",
    "{ ...All } fragment All on Query { all: aiModels { totalCount } }",
    'mutation { deleteUser(input: {id: "x"}) { userErrors { code } } }',
    "{ __typename projects @skip(if: true) { totalCount } }",
    # Nor is anybody told what there is and what there is not.
    "{ nothing }",
    "{ __typename ...Nothing } fragment Nothing on Nothing { nothing }",
]
OPEN = [
    "{ __typename }",
    "{ a: __typename ... on Query { b: __typename } }",
    "mutation { __typename }",
]


TOKENS = (
    "The mutation login gives a user one, createAccessToken makes one for a program, and so does"
    " `troupe tokens create` on the machine of the server."
)


async def test_nobody_sees_nothing(people: People, resolvers: People) -> None:
    for query in CLOSED:
        for client in (people.nobody, resolvers.nobody):
            answer = await client.ask(query, **({"no": False} if "$no" in query else {}))

            assert "data" not in answer.body, query
            assert answer.code == "UNAUTHENTICATED", query
            assert answer.errors[0]["message"] == (
                f"Send an access token in the header `Authorization: Bearer <token>`. {TOKENS}"
            )
            assert answer.statements == [], query


async def test_nobody_may_ask_whether_anybody_is_there(people: People) -> None:
    for query in OPEN:
        answer = await people.nobody.ask(query)

        assert answer.data, query
        assert set(answer.data.values()) <= {"Query", "Mutation"}, query


async def test_introspection_is_open_to_all_in_development(people: People) -> None:
    answer = await people.nobody.ask(get_introspection_query())

    shown = build_client_schema(answer.data)
    assert shown.query_type is not None
    assert "projects" in shown.query_type.fields


async def test_introspection_writes_the_defaults_of_inputs(people: People) -> None:
    answer = await people.nobody.ask(
        '{ __type(name: "CreateTaskInput") { inputFields { name defaultValue } } }'
    )

    fields = answer.data["__type"]["inputFields"]
    defaults = {field["name"]: field["defaultValue"] for field in fields}
    shown = [defaults[name] for name in ("metadata", "priority", "title")]
    assert shown == ["null", "3", None]


async def test_introspection_is_open_only_to_those_known_in_production(
    database: db.Database, people: People
) -> None:
    async with serving(database, Settings(mode=Mode.PRODUCTION)) as http:
        nobody, owner = people.nobody.through(http), people.owner.through(http)

        for query in (get_introspection_query(), '{ __type(name: "Task") { name } }'):
            assert (await nobody.ask(query)).code == "UNAUTHENTICATED"
            assert (await owner.ask(query)).data

        assert (await nobody.ask("{ __typename }")).data == {"__typename": "Query"}


def bearing(people: People, token: str) -> Client:
    """The client of whoever has this token."""
    return Client(people.nobody._http, people.nobody._database, token)


async def answers(client: Client) -> list[Answer]:
    """What somebody is answered, whatever they ask."""
    return [
        await client.ask(query)
        for query in ("{ me { id } }", "{ __typename }", get_introspection_query())
    ]


async def test_a_token_that_is_over_opens_nothing(database: db.Database, people: People) -> None:
    now = datetime.now(UTC)
    states = [
        {"expires_at": now - timedelta(seconds=1)},
        {"expires_at": datetime(2, 1, 1, tzinfo=UTC)},
        {"revoked_at": now},
        {"revoked_at": now + timedelta(days=1)},
    ]
    async with database.write(db.Viewer()) as session:
        for place, state in enumerate(states):
            await factories.make_token(session, f"over {place}", people.users["owner"], **state)

    for place, state in enumerate(states):
        for answer in await answers(bearing(people, f"over {place}")):
            assert answer.code == "UNAUTHENTICATED", state
            assert answer.errors[0]["message"] == (
                f"This access token is unknown, has expired or was revoked. {TOKENS}"
            )


async def test_a_token_opens_until_it_expires(database: db.Database, people: People) -> None:
    async with database.write(db.Viewer()) as session:
        _, token = await access.issue_token(
            session,
            people.users["owner"],
            "soon over",
            expires_at=datetime.now(UTC) + timedelta(minutes=1),
        )

    answer = await bearing(people, token).ask("{ me { username } }")

    assert answer.data == {"me": {"username": "owner"}}


async def test_a_token_is_looked_up_once_in_a_while_and_is_over_within_a_second(
    database: db.Database, people: People
) -> None:
    token = str(people.owner.token)
    stopped = update(db.AccessToken).where(db.AccessToken.token_hash == access.hash_token(token))
    tokens = Tokens(database)
    with counted(database) as statements:
        viewers = {await tokens.viewer(token) for _ in range(50)}
    assert {viewer.user_id for viewer in viewers} == {people.users["owner"].id}
    assert len(statements) == 1

    async with database.write(db.Viewer()) as session:
        await session.execute(stopped.values(revoked_at=func.now()))
    async with asyncio.timeout(PATIENCE):
        with suppress(Unauthenticated):
            while True:
                await tokens.viewer(token)
                await asyncio.sleep(0.01)
    assert viewer.CACHE_SECONDS + CHECK_SECONDS <= 1


async def test_those_who_ask_at_once_share_one_look_which_the_first_may_leave(
    database: db.Database, people: People
) -> None:
    token, tokens = str(people.owner.token), Tokens(database, cache_seconds=0)
    with counted(database) as statements:
        asking = [asyncio.create_task(tokens.viewer(token)) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        first, *others = await asyncio.gather(*asking, return_exceptions=True)

    assert isinstance(first, asyncio.CancelledError)
    assert [viewer.user_id for viewer in others] == [people.users["owner"].id] * 19  # type: ignore[union-attr]
    assert len(statements) == 1


async def test_who_asks_later_does_not_wait_for_a_look_from_before_the_token_was_revoked(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, tokens = str(people.owner.token), Tokens(database, cache_seconds=0)
    look = access.bearers
    arrived = asyncio.Event()

    async def late(*asked: Any) -> dict[str, db.Viewer]:
        found = await look(*asked)
        if found:
            await arrived.wait()
        return found

    monkeypatch.setattr(access, "bearers", late)
    monkeypatch.setattr(viewer, "CACHE_SECONDS", 0.1)
    before = asyncio.create_task(tokens.viewer(token))
    await asyncio.sleep(0.15)
    async with database.write(db.Viewer()) as session:
        revoked = update(db.AccessToken).values(revoked_at=func.now())
        await session.execute(revoked.where(db.AccessToken.token_hash == access.hash_token(token)))
    after = asyncio.create_task(tokens.viewer(token))
    await asyncio.wait([after], timeout=1)
    arrived.set()

    with pytest.raises(Unauthenticated):
        await after
    assert (await before).user_id == people.users["owner"].id


async def test_a_look_does_not_wait_for_who_has_locked_the_token(
    database: db.Database, people: People
) -> None:
    token = str(people.owner.token)
    row = select(db.AccessToken).where(db.AccessToken.token_hash == access.hash_token(token))
    async with database.write(db.Viewer()) as session:
        (await session.scalars(row)).one().last_used_at = None
    async with database.write(db.Viewer()) as session:
        await session.execute(row.with_for_update())
        async with asyncio.timeout(PATIENCE):
            found = await Tokens(database).viewer(token)

    assert found.user_id == people.users["owner"].id


async def test_only_so_many_tokens_are_kept(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "MOST_TOKENS", 2)
    tokens = Tokens(database, cache_seconds=3600)
    admin, owner, stranger = (
        str(client.token) for client in (people.admin, people.owner, people.stranger)
    )
    with counted(database) as statements:
        for token in (admin, owner, stranger, owner, stranger, admin):
            await tokens.viewer(token)

    assert len(statements) == 4


async def test_many_tokens_are_looked_up_at_once(database: db.Database, people: People) -> None:
    hashes = [access.hash_token(str(client.token)) for client in (people.admin, people.owner)]
    with counted(database) as statements:
        found = await Tokens(database).look_up([*hashes, *map(str, range(500))])

    assert found == {
        hashes[0]: db.Viewer(
            people.users["admin"].id, is_administrator=True, token_id=found[hashes[0]].token_id
        ),
        hashes[1]: db.Viewer(people.users["owner"].id, token_id=found[hashes[1]].token_id),
    }
    assert len(statements) == 1


async def test_an_unknown_token_opens_nothing(people: People) -> None:
    for token in ("unknown", "troupe_", "\x7f", "x" * 5000, "a b"):
        for answer in await answers(bearing(people, token)):
            assert answer.code == "UNAUTHENTICATED", token


async def test_the_token_of_an_inactive_user_opens_nothing(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        user = await session.get_one(db.User, people.users["owner"].id)
        user.is_active = False

    for answer in await answers(people.owner):
        assert answer.code == "UNAUTHENTICATED"


async def test_the_token_of_a_deleted_user_opens_nothing(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        user = await session.get_one(db.User, people.users["owner"].id)
        await session.delete(user)

    assert (await people.owner.ask("{ me { id } }")).code == "UNAUTHENTICATED"


async def test_an_agent_is_no_user_but_sees_its_project_and_the_members(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"], projects=2)
        await factories.make_token(session, "an agent's", plan.agents[0])

    answer = await bearing(people, "an agent's").ask(
        "{ me { id } users { totalCount } accessTokens { totalCount }"
        " projects { nodes { name owner { username } } } }"
    )

    assert answer.data == {
        "me": None,
        "users": {"totalCount": 1},
        "accessTokens": {"totalCount": 1},
        "projects": {"nodes": [{"name": "Project 0", "owner": {"username": "owner"}}]},
    }


async def test_the_token_of_a_terminated_agent_opens_nothing(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"])
        await factories.make_token(session, "an agent's", plan.agents[0])
    agent = bearing(people, "an agent's")
    assert (await agent.ask("{ projects { totalCount } }")).data["projects"]["totalCount"] == 1

    ended = await people.owner.change(
        "transitionAgent { agent { status } }", id=factories.gid(plan.agents[0]), to="TERMINATED"
    )

    assert ended["agent"] == {"status": "TERMINATED"}
    assert (await agent.ask("{ projects { totalCount } }")).code == "UNAUTHENTICATED"


async def test_a_server_finds_its_administrator_under_any_name(
    database: db.Database, people: People
) -> None:
    """Whatever the first one is called by now, and wherever mail to them goes."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        admin = await session.get_one(db.User, people.users["admin"].id)
        owner = await session.get_one(db.User, people.users["owner"].id)
        await admin.update(session, username="root", email="root@localhost")
        # Names that the first start would give.
        await owner.update(session, username="admin", email="admin@localhost")

    async with database.write(db.Viewer(is_administrator=True)) as session:
        made = await access.development_token(session)

    assert made is not None
    user, token = made
    assert user.id == admin.id
    answer = await bearing(people, token).ask("{ me { username role } }")
    assert answer.data["me"] == {"username": "root", "role": "ADMIN"}


async def test_without_an_active_administrator_there_is_no_token_for_development(
    database: db.Database, people: People
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        admin = await session.get_one(db.User, people.users["admin"].id)
        await admin.update(session, is_active=False)

    async with database.write(db.Viewer(is_administrator=True)) as session:
        assert await access.administrator(session) is None
        assert await access.development_token(session) is None


MISSPELT = "{ __typename @inclde(if: true) ...F } fragment F on Qery { __typename }"


@pytest.mark.parametrize(
    ("settings", "nobody", "owner"),
    [
        (Settings(), True, True),
        (Settings(introspection=Audience.VIEWERS), False, True),
        (Settings(introspection=Audience.NOBODY), False, False),
        (Settings(mode=Mode.PRODUCTION), False, True),
        (Settings(mode=Mode.PRODUCTION, introspection=Audience.EVERYBODY), True, True),
    ],
)
async def test_who_is_not_shown_the_schema_is_not_told_it_by_errors(
    database: db.Database, people: People, settings: Settings, nobody: bool, owner: bool
) -> None:
    async with serving(database, settings) as http:
        asked = {people.nobody.through(http): nobody, people.owner.through(http): owner}
        for client, shown in asked.items():
            schema = await client.ask('{ __type(name: "Task") { name } }')
            misspelt = await client.ask(MISSPELT)

            assert ("errors" not in schema.body) is shown
            assert ("Did you mean" in misspelt.text) is shown
            assert {error["extensions"]["code"] for error in misspelt.errors} == {"BAD_REQUEST"}
            if not shown:
                expected = "UNAUTHENTICATED" if client is next(iter(asked)) else "FORBIDDEN"
                assert schema.code == expected
        variable = await people.owner.through(http).ask(
            "query($p: ProjectOrder) { projects(orderBy: $p) { totalCount } }", p="NAME_ASK"
        )

    assert ("Its values are" in variable.text) is owner


async def test_who_is_not_known_is_not_read_to_the_end(people: People, limited: People) -> None:
    for long in ("{" + " __typename" * 1000 + " }", "{ __typename }" + " " * 10_000):
        assert (await limited.nobody.ask(long)).code == "UNAUTHENTICATED"
    assert (await limited.owner.ask("{ __typename }" + " " * 10_000)).data


async def test_an_agent_acts_only_for_itself_and_a_user_for_every_agent(
    database: db.Database,
) -> None:
    one, other = db.new_id(), db.new_id()
    agents: list[Any] = [one, other, None]
    viewers = {
        db.Viewer(agent_id=one): [True, False, False],
        db.Viewer(user_id=one): [True, True, True],
        db.Viewer(is_administrator=True): [True, True, True],
    }
    for asking, allowed in viewers.items():
        assert [asking.acts_for(each) for each in agents] == allowed
        conditions = [acts_for(asking, cast(each, Uuid)) for each in agents]
        async with database.read() as session:
            found = (await session.execute(select(*conditions))).one()
        assert [bool(each) for each in found] == allowed
