"""How fast and how much at once: buckets of cost, what runs together, and how long."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

import db
from graph.compiler.compiled import compile_json
from graph.core.errors import Overloaded, RateLimited
from graph.limits import rates as rate
from graph.limits.concurrency import RunningOperations
from graph.limits.limits import CONNECTIONS, client_of
from graph.limits.rates import PasswordAttempts, Rates
from graph.settings import Settings
from tests.conftest import People, serving
from tests.patience import PATIENCE, becomes
from tests.test_sessions import locked, waiting


class Clock:
    """A clock that is moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_drains_with_use_and_fills_with_time() -> None:
    clock = Clock()
    rates = Rates(10, 100, clock)

    rates.charge("a", 100)
    with pytest.raises(RateLimited) as refused:
        rates.charge("a", 25)
    assert (refused.value.retry_after, rates.left("a")) == (3, 0)
    assert str(refused.value) == (
        "This costs 25, and you have 0 left of 100 (TROUPE_RATE_BURST), with 10 more each second"
        " (TROUPE_RATE_PER_SECOND). Try again in 3 s."
    )
    assert refused.value.extensions == {
        "code": "RATE_LIMITED",
        "limit": "rate_burst",
        "allowed": 100,
        "retryAfter": 3,
    }

    clock.now += 2.4
    with pytest.raises(RateLimited):
        rates.charge("a", 25)
    clock.now += 0.1
    rates.charge("a", 25)
    assert rates.left("a") == 0

    clock.now += 1000
    assert rates.left("a") == 100


def test_everybody_has_a_bucket_of_their_own() -> None:
    rates = Rates(1, 10, Clock())

    rates.charge("a", 10)
    rates.charge("b", 10)

    assert (rates.left("a"), rates.left("b"), rates.left("c")) == (0, 0, 10)


def test_only_so_many_buckets_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MOST_BUCKETS", 3)
    rates = Rates(1, 10, Clock())

    for viewer in "abcad":
        rates.charge(viewer, 2)

    # b was quiet for longest.
    assert [rates.left(viewer) for viewer in "abcd"] == [6, 10, 8, 8]


def test_passwords_are_guessed_so_often_for_an_account_and_from_an_address() -> None:
    clock = Clock()
    attempts = PasswordAttempts(3, 5, clock)

    for account, address in (("ann", 1), ("ann", 2), ("ann", 1), ("bob", 1), ("ben", 1)):
        attempts.count(account, address)
    with pytest.raises(RateLimited) as of_account:
        attempts.count("ann", 3)
    attempts.count("bob", 1)
    with pytest.raises(RateLimited) as from_address:
        attempts.count("bea", 1)
    attempts.count("bea", 2)

    assert str(of_account.value) == (
        "Too many wrong passwords for this account: 3 may be given at once"
        " (TROUPE_LOGIN_FAILURES_PER_ACCOUNT), and as many more in 15 minutes. Try again in 300 s."
    )
    assert of_account.value.extensions == {
        "code": "RATE_LIMITED",
        "limit": "login_failures_per_account",
        "allowed": 3,
        "retryAfter": 300,
    }
    assert "(TROUPE_LOGIN_FAILURES_PER_ADDRESS)" in str(from_address.value)
    assert from_address.value.retry_after == 180

    clock.now += 299
    with pytest.raises(RateLimited):
        attempts.count("ann", 3)
    clock.now += 1
    attempts.count("ann", 3)


def test_what_was_right_is_no_guess() -> None:
    attempts = PasswordAttempts(2, 2, Clock())

    for _ in range(5):
        right = attempts.count("ann", 1)
        right()
    attempts.count("ann", 1)
    attempts.count("ann", 1)

    with pytest.raises(RateLimited):
        attempts.count("ann", 1)


def test_a_client_is_a_user_an_agent_or_an_address() -> None:
    def client(viewer: db.Viewer | None, address: str | None = None) -> Any:
        return client_of(viewer, address)

    one, other = db.new_id(), db.new_id()
    assert client(db.Viewer(one), "1.2.3.4") == client(db.Viewer(one), "5.6.7.8")
    assert client(db.Viewer(one)) != client(db.Viewer(other))
    assert client(db.Viewer(agent_id=one)) != client(db.Viewer(one))
    assert client(None, "1.2.3.4") != client(None, "1.2.3.5")
    # Where one socket takes both kinds of connections, those of IPv4 come like this.
    assert client(None, "::ffff:198.51.100.7") == client(None, "198.51.100.7")
    # Whoever has one address of IPv6 has the whole network.
    assert client(None, "2001:db8::1") == client(None, "2001:db8::2")
    assert client(None, "2001:db8::1") != client(None, "2001:db8:0:1::1")
    assert client(None, "testclient") == client(None, "testclient")


async def test_who_goes_too_fast_is_told_when_to_come_back(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_cost=50, rate_burst=100, rate_per_second=1, compiler=False)
    async with serving(database, settings) as http:
        owner, stranger = people.owner.through(http), people.stranger.through(http)
        query = "{ projects(first: 50) { nodes { id } } }"
        # Once it is known, only what it reads costs.
        await people.admin.through(http).ask(query)

        first, second, third = [await owner.ask(query) for _ in range(3)]
        other = await stranger.ask(query)

    assert first.data == second.data == other.data
    assert third.code == "RATE_LIMITED"
    assert third.errors[0]["extensions"]["retryAfter"] in (1, 49, 50)
    assert third.statements == []


async def test_asking_for_what_is_refused_is_limited_as_well(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_cost=5, rate_burst=5, rate_per_second=1)
    for query in ("{ broken", "{ nothing }", "{ me { id } }"):
        async with serving(database, settings) as http:
            answers = [await people.nobody.through(http).ask(query) for _ in range(6)]

        assert "RATE_LIMITED" not in {answer.code for answer in answers[:5]}
        assert answers[5].code == "RATE_LIMITED", query


async def test_who_has_nothing_left_has_no_statement_made(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = "query($where: TaskFilter) { tasks(where: $where) { totalCount } }"
    made: list[object] = []

    def noted(*given: Any) -> Any:
        made.append(given)
        return compile_json(*given)

    monkeypatch.setattr("graph.compiler.compile_json", noted)
    async with serving(database, Settings(max_cost=3, rate_burst=3, rate_per_second=1)) as http:
        owner = people.owner.through(http)
        wheres: list[Any] = [{"not": {"title": {"isNull": there}}} for there in (True, False)]
        wheres += [{"title": {name: "x"}} for name in ("eq", "not", "gt", "lt")]
        answers = [await owner.ask(query, where=where) for where in wheres]

    told = [answer.body.get("errors", [{}])[0].get("extensions") for answer in answers]
    assert told[0] is None
    assert [each["code"] for each in told[-2:]] == ["RATE_LIMITED"] * 2
    assert len(made) == told.count(None)


@pytest.mark.parametrize(
    ("compiler", "document", "owed"),
    [
        # 204 and 210 tokens; of the 60 there were, some are used for what is read.
        (False, f"{{ projects {{ {'totalCount ' * 199} }} }}", 1980),
        (True, "{ projects { nodes { %s } } }", 2040 + 70 * 75),  # and for the statement
        (False, f"{{ nothing {'nothing ' * 200} }}", 900),
        (False, f"{{ {'broken ' * 200}", 800),
    ],
)
async def test_what_a_document_takes_is_owed_when_it_is_done(
    database: db.Database, people: People, compiler: bool, document: str, owed: int
) -> None:
    aliases = " ".join(f"a{n}: name" for n in range(67))
    document = document.replace("%s", f"{aliases} name")
    settings = Settings(max_cost=60, rate_burst=60, rate_per_second=1, compiler=compiler)
    async with serving(database, settings) as http:
        first, second = [await people.owner.through(http).ask(document) for _ in range(2)]

    assert "RATE_LIMITED" not in first.text
    assert second.code == "RATE_LIMITED"
    assert second.errors[0]["extensions"]["retryAfter"] > owed


async def test_what_is_new_costs_more_than_what_is_known(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_cost=1000, rate_burst=10_000, rate_per_second=1)
    query = "query($w: TaskFilter) { tasks(where: $w) { totalCount } }"
    equal, greater = {"title": {"eq": "x"}}, {"title": {"gt": "x"}}
    async with serving(database, settings) as http:
        owner = people.owner.through(http)
        left = 10_000
        spent = []
        for where in (None, None, None, equal, equal, equal, greater, greater):
            told = await owner.request(
                query=query, variables={"w": where}, extensions={"cost": True}
            )
            now = told.body["extensions"]["cost"]["left"]
            spent.append(left - now)
            left = now
        cost = told.body["extensions"]["cost"]["cost"]

    # 19 tokens; two fields, and one condition more. The statement is paid when it is made, which
    # is after it is told what is left. A second may have passed, which gives one back.
    tokens, plan, filtered = 10 * 19, 75 * 2, 75 * 3
    expected = [tokens, plan, 0, 0, filtered, 0, 0, filtered]
    assert [round(each - cost, -1) for each in spent] == [round(each, -1) for each in expected]


async def test_what_is_known_is_paid_as_well(database: db.Database, people: People) -> None:
    settings = Settings(max_cost=1000, rate_burst=2000, rate_per_second=1)
    query = "query($n: Int) { projects(first: $n) { totalCount nodes { id } } }"
    async with serving(database, settings) as http:
        owner = people.owner.through(http)
        first = await owner.request(query=query, variables={"n": 90}, extensions={"cost": True})
        told = first.body["extensions"]["cost"]
        allowed = (told["left"] - 4 * 75) // told["cost"]
        assert allowed > 10

        answers = [await owner.ask(query, n=90) for _ in range(allowed + 1)]

    assert ["data" in answer.body for answer in answers] == [True] * allowed + [False]
    assert answers[-1].code == "RATE_LIMITED"
    assert answers[-1].statements == []


def test_only_so_many_run_at_once() -> None:
    running = RunningOperations(3, 2)

    running.begin("a")
    running.begin("a")
    with pytest.raises(Overloaded, match=r"2 operations of yours .* \(TROUPE_MAX_RUNNING_PER"):
        running.begin("a")
    running.begin("b")
    with pytest.raises(Overloaded, match=r"3 operations of everybody .* \(TROUPE_MAX_RUN"):
        running.begin("c")
    running.end("b")
    running.begin("c")
    for client in "aac":
        running.end(client)
    for client in "aab":
        running.begin(client)


async def test_who_runs_too_much_at_once_is_told_so(
    database: db.Database, database_url: URL, people: People
) -> None:
    settings = Settings(max_running_per_viewer=2, max_running=3)
    query = "{ projects { nodes { id } } }"
    async with serving(database, settings) as http:
        owner, stranger = people.owner.through(http), people.stranger.through(http)
        async with locked(database_url, "projects"):
            held = [asyncio.create_task(owner.ask(query)) for _ in range(2)]
            await waiting(database, 2)
            refused = await owner.ask(query)
            held.append(asyncio.create_task(stranger.ask(query)))
            await waiting(database, 3)
            overloaded = await people.admin.through(http).ask(query)
        answers = await asyncio.gather(*held)
        after = await owner.ask(query)

    assert refused.code == overloaded.code == "OVERLOADED"
    assert refused.errors[0]["message"] == (
        "2 operations of yours are running, and 2 may at once (TROUPE_MAX_RUNNING_PER_VIEWER)."
        " Try again in a moment."
    )
    assert refused.errors[0]["extensions"]["retryAfter"] == 1
    assert overloaded.errors[0]["extensions"]["limit"] == "max_running"
    assert after.data
    assert all(answer.data for answer in answers)


@pytest.mark.parametrize("compiler", [True, False])
async def test_nobody_takes_all_connections(
    database: db.Database, database_url: URL, people: People, compiler: bool
) -> None:
    query = "{ projects { nodes { id } } }"
    async with serving(database, Settings(compiler=compiler)) as http:
        owner, stranger = people.owner.through(http), people.stranger.through(http)
        async with locked(database_url, "projects"):
            held = [asyncio.create_task(owner.ask(query)) for _ in range(12)]
            await waiting(database, CONNECTIONS)
            other = await stranger.ask("{ me { username } }")
        answers = await asyncio.gather(*held)

    assert other.data == {"me": {"username": "stranger"}}
    assert all(answer.data for answer in answers)


LATE = (
    "The operation took longer than 1 s, which is as long as one may take (TROUPE_MAX_SECONDS)."
    " Ask for less at once."
)


async def nothing_runs(database: db.Database) -> None:
    """Wait until no statement but this one runs in the database."""
    statement = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND pid <> pg_backend_pid()"
    )

    async def is_idle() -> bool:
        async with database.read() as session:
            return bool(await session.scalar(statement) == 0)

    await becomes(is_idle)


@pytest.mark.parametrize("compiler", [True, False])
@pytest.mark.parametrize(
    "query",
    [
        "{ projects { nodes { id } } }",
        "{ tasks { totalCount } projects { nodes { id agents { nodes { id } } } } me { id } }",
        '{ nodes(ids: ["0193a000-0000-7000-8000-000000000001"]) { id } }',
    ],
)
async def test_what_takes_too_long_is_over_in_the_database_too(
    database: db.Database, database_url: URL, people: People, compiler: bool, query: str
) -> None:
    async with serving(database, Settings(max_seconds=1, compiler=compiler)) as http:
        owner = people.owner.through(http)
        async with locked(database_url, "projects"):
            async with asyncio.timeout(PATIENCE):  # the table stays locked
                answer = await owner.ask(query)
            # Only who holds the lock is left, and it does nothing.
            await nothing_runs(database)
        after = await owner.ask("{ projects { totalCount } }")

    assert answer.body.get("data") is None
    assert answer.code == "TIMEOUT"
    assert answer.errors[0]["message"] == LATE
    assert after.data


async def test_a_late_write_of_one_statement_is_cancelled_or_done(
    database: db.Database, database_url: URL, people: People
) -> None:
    """PostgreSQL says which, because the statement commits by itself."""
    project = await people.owner.change("createProject { project { id } }", name="p")
    input = {"projectId": project["project"]["id"], "title": "Late"}
    document = (
        "mutation($input: CreateTaskInput!)"
        " { createTask(input: $input) { task { title } userErrors { code } } }"
    )
    async with serving(database, Settings(max_seconds=1)) as http:
        owner = people.owner.through(http)
        async with locked(database_url, "tasks"):
            async with asyncio.timeout(PATIENCE):  # the table stays locked
                late = await owner.ask(document, input=input)
            await nothing_runs(database)
        none = (await owner.ask("{ tasks { totalCount } }")).data
        done = await owner.ask(document, input=input)

    assert (late.code, late.errors[0]["message"]) == ("TIMEOUT", LATE)
    assert none == {"tasks": {"totalCount": 0}}
    assert done.data == {"createTask": {"task": {"title": "Late"}, "userErrors": []}}


async def test_a_mutation_that_is_late_tells_what_was_done(
    database: db.Database, database_url: URL, people: People
) -> None:
    async with serving(database, Settings(max_seconds=1)) as http:
        owner = people.admin.through(http)
        async with locked(database_url, "ai_models"):
            answer = await owner.ask(
                'mutation { a: createProject(input: {name: "a"}) { userErrors { code } }'
                ' b: createAiModel(input: {id: "b", provider: "x"}) { userErrors { code } }'
                ' c: createProject(input: {name: "c"}) { userErrors { code } } }'
            )
            await nothing_runs(database)
    found = await people.admin.ask("{ projects { nodes { name } } aiModels { totalCount } }")

    assert answer.body["data"] == {"a": {"userErrors": []}, "b": None, "c": None}
    assert [(e["path"], e["extensions"]["code"], e["message"]) for e in answer.errors] == [
        (["b"], "TIMEOUT", LATE),
        (["c"], "TIMEOUT", LATE),
    ]
    assert found.data == {"projects": {"nodes": [{"name": "a"}]}, "aiModels": {"totalCount": 0}}


async def test_postgresql_ends_a_statement_that_no_process_ends(database_url: URL) -> None:
    database = db.Database(database_url, pool_size=1, statement_seconds=1)
    try:
        async with database.read() as session:
            assert await session.scalar(text("SHOW statement_timeout")) == "1s"
    finally:
        await database.dispose()


async def test_health_has_no_limit(database: db.Database, people: People) -> None:
    settings = Settings(max_cost=1, rate_burst=1, rate_per_second=1)
    async with serving(database, settings) as http:
        assert isinstance(http, httpx.AsyncClient)
        assert {(await http.get("/livez")).status_code for _ in range(5)} == {200}


async def test_the_validation_of_a_document_is_charged_if_its_variables_are_wrong(
    database: db.Database, people: People
) -> None:
    settings = Settings(rate_burst=100_000, rate_per_second=1)
    query = "query($n: Int) {{ projects(first: $n) {{ nodes {{ {}: id }} }} }}"
    left: list[int] = []
    async with serving(database, settings) as http:
        owner = people.owner.through(http)
        for place in range(4):
            wrong = {"query": query.format(f"n{place}"), "variables": {"n": "no"}}
            assert (await owner.request(**wrong)).code == "BAD_USER_INPUT"
            answer = await owner.request(query="{ __typename }", extensions={"cost": True})
            left.append(answer.body["extensions"]["cost"]["left"])

    used = [before - after for before, after in pairwise(left)]
    # Each has some twenty tokens, of which each costs ten.
    assert all(each > 150 for each in used)
