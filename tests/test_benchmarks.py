"""The benchmarks: that everybody answers the same values, and that the client counts right."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import URL
from starlette.applications import Starlette

import db
from benchmarks import bulk, compare, data, hand, keys, plain, plan, report, summaries, workers
from benchmarks.__main__ import WORK
from benchmarks.contenders import COMPILED, CONTENDERS, GENERAL, HAND, PEER, PLAIN, Contender
from benchmarks.load import NUMBER, Address, BadAnswer, Measured, load, numbered
from benchmarks.queries import ASKED, READS, WRITES, Query, normal, values
from benchmarks.traces import Traced, Turn
from graph.settings import Settings
from tests import conftest
from tests.pages import filled

PLAN = plan.SMALL_PLAN
SIZE = data.Size(projects=100, agents=1_000, tasks=3_000, messages=1_000)
# 10 projects: with two fields each, 10 agents with four, and 20 tasks with three.
SHAPES = {"point": 3, "mid": 10 * (2 + 5 * 3), "list": 10 * (2 + 10 * 4 + 20 * 3)}
# A write shows a row, without its id if it is new, and two fields of another.
SHAPES |= {"createTask": 4, "updateTask": 5, "appendMessage": 4, "recordUsage": 4}


@asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


# The rows after loading.
SIZED = {"tasks": SIZE.tasks, "messages": SIZE.messages, "usage_records": 0, "task_dependencies": 0}


async def counted(url: URL) -> dict[str, int]:
    """The number of rows in each table that is written."""
    async with data.connected(url) as connection:
        return {
            table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in SIZED
        }


async def written(url: URL, table: str) -> list[str]:
    """The rows that were written to a table, without what is always another: ids and times."""
    async with data.connected(url) as connection:
        rows = await connection.fetch(
            "SELECT (to_jsonb(t) - ARRAY['id', 'created_at', 'updated_at', 'available_at',"
            f" 'timestamp', 'occurred_at', 'sequence'])::text FROM {table} t"
            " WHERE created_at > '2026-02-01' ORDER BY 1"
        )
    return [row[0] for row in rows]


async def test_everybody_answers_the_same_values(database_url: URL, database: db.Database) -> None:
    await data.load(database_url, SIZE)
    expected: dict[str, list[Any]] = {}

    async def compare(
        queries: Sequence[Query], contender: Contender, client: httpx.AsyncClient
    ) -> None:
        for query in queries:
            if not query.is_for(contender.words):
                continue
            answers = []
            for body in contender.bodies(query, SIZE.projects):
                path = contender.path(query)
                response = await client.post(path, content=body, headers=contender.headers)
                answers.append(query.result(response.json()))
            assert answers == expected.setdefault(query.name, answers), contender.name
            assert {values(answer) for answer in answers} == {SHAPES[query.name]}

    for queries in (READS, WRITES):
        async with running(hand.create_app(data.dsn(database_url))) as client:
            await compare(queries, HAND, client)
        async with conftest.serving(database, Settings()) as client:
            await compare(queries, COMPILED, client)
        async with conftest.serving(database, Settings(compiler=False)) as client:
            await compare(queries, GENERAL, client)
        async with running(plain.create_app(data.dsn(database_url))) as client:
            await compare(queries, PLAIN, client)
    assert list(CONTENDERS.values()) == [HAND, COMPILED, GENERAL, PEER, PLAIN]
    assert len(expected["point"]) == 10
    assert expected["point"][0]["project"]["name"] == "Project 10"
    titles = [task["title"] for task in expected["list"][0]["projects"][1]["tasks"]]
    assert titles == [f"Task {20 + 100 * number}" for number in range(20)]
    # The three that write have written the same.
    for table in ("tasks", "messages", "usage_records"):
        assert set(Counter(await written(database_url, table)).values()) == {3}, table
    async with data.connected(database_url) as connection:
        await data.clean(connection)
    assert await counted(database_url) == SIZED


async def test_a_write_with_a_key_answers_the_same_and_stores_the_key(
    database_url: URL, database: db.Database
) -> None:
    await data.load(database_url, SIZE)
    async with conftest.serving(database, Settings()) as client:
        for query in WRITES:
            body = COMPILED.bodies(query, SIZE.projects)[0]
            answers = []
            for sent in (body, numbered(keys.keyed(body)), numbered(keys.keyed(body))):
                response = await client.post("/graphql", content=sent, headers=COMPILED.headers)
                answers.append(query.result(response.json()))
            assert {values(answer) for answer in answers} == {SHAPES[query.name]}
    query_of_keys = "SELECT count(*) FROM idempotency_keys"
    async with data.connected(database_url) as connection:
        assert await connection.fetchval(query_of_keys) == 2 * len(WRITES)
        await data.clean(connection)
        assert await connection.fetchval(query_of_keys) == 0


async def test_only_plain_strawberry_does_not_write() -> None:
    for query in WRITES:
        without = [one for one in CONTENDERS.values() if not query.is_for(one.words)]
        assert without == [PLAIN]


async def test_who_is_no_member_is_shown_nothing_by_hand_either(database_url: URL) -> None:
    await data.load(database_url, SIZE)
    async with running(hand.create_app(data.dsn(database_url))) as client:
        body = {"id": str(data.row_id(data.PROJECT, 11))}
        answer = await client.post("/point", json=body, headers=HAND.headers)
        assert answer.json() == {"data": {"project": None}}
        unknown = await client.post("/point", json=body, headers={"authorization": "Bearer x"})
        assert unknown.status_code == 401
        for query in WRITES:
            body = query.variables(SIZE.projects)[0]
            body[query.id] = str(data.row_id(query.kind, 11))
            refused = await client.post(f"/{query.name}", json=body, headers=HAND.headers)
            assert refused.status_code == 403, query.name
    assert await counted(database_url) == SIZED


async def test_troupe_and_copy_write_the_same_rows(
    database_url: URL, database: db.Database
) -> None:
    await data.load(database_url, SIZE)
    many = {"tasks": 1_000, "messages": 1_000, "usage_records": 1_000, "task_dependencies": 2_000}
    async with data.connected(database_url) as connection:
        async with conftest.serving(database, Settings()) as client:
            for one in bulk.BULKS:
                document = (ASKED / one.name / COMPILED.words).read_text(encoding="utf-8")
                body = {"query": document, "variables": one.variables()}
                answer = await client.post("/graphql", json=body, headers=COMPILED.headers)
                assert values(normal(answer.json())) == 1_000
        for one in bulk.BULKS:
            await bulk.copy(connection, one.copied())
    assert await counted(database_url) == {k: SIZED[k] + 2 * many[k] for k in many}
    for table in ("tasks", "messages", "usage_records"):
        rows = Counter(await written(database_url, table))
        assert all(number % 2 == 0 for number in rows.values()), table
    async with data.connected(database_url) as connection:
        await data.clean(connection)
    assert await counted(database_url) == SIZED


async def test_others_than_troupe_have_no_triggers_of_its_own(database_url: URL) -> None:
    await data.load(database_url, SIZE)
    async with data.connected(database_url) as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused'; END $$;"
            "CREATE TRIGGER refuse AFTER INSERT ON usage_records EXECUTE FUNCTION refuse()"
        )
        usage = next(one for one in bulk.BULKS if one.name == "recordUsages")
        with pytest.raises(asyncpg.RaiseError):
            await bulk.copy(connection, usage.copied())
        await data.disable_triggers(database_url)
        await bulk.copy(connection, usage.copied())
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await connection.execute(
                "INSERT INTO usage_records (project_id, model_id, model_name)"
                " SELECT id, 'no', 'no' FROM projects"
            )


@asynccontextmanager
async def answering(
    bodies: Callable[[int], bytes],
    status: int = 200,
    head: str = "Content-Length: {}",
    asked: list[bytes] | None = None,
) -> AsyncIterator[Address]:
    """A server whose answers have these bodies, by their number, each a hundredth second late.

    `asked` gets the requests.
    """
    numbers = itertools.count()
    serving: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"{}"):
            if asked is not None:
                asked.append(request)
            await asyncio.sleep(0.01)
            body = bodies(next(numbers))
            writer.write(
                f"HTTP/1.1 {status} X\r\n{head}\r\nA: b\r\n\r\n".format(len(body)).encode()
            )
            await writer.drain()
            writer.write(body)

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            try:
                await answer(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    server = await asyncio.start_server(served, "127.0.0.1", 0)
    async with server:
        yield Address(server.sockets[0].getsockname()[1], "/")
        await asyncio.gather(*serving)


async def test_the_client_counts_what_is_answered_whole() -> None:
    async with answering(lambda number: b"x" * 100_000) as address:
        request = address.request(b"{}", {}, 100_000)
        measured = await load(address, [request], seconds=0.4, warm_up=0.1, connections=4)
    # However slow the machine, connections that always wait take their number of seconds a second.
    assert 0.01 <= measured.p50 <= measured.p99
    assert 4 / measured.p99 * 0.5 <= measured.per_second <= 4 / 0.01
    assert measured.answered >= measured.per_second * 0.4
    assert measured.refused == 0


def test_what_traces_add_is_a_ratio_within_each_round() -> None:
    one, two, four = (Turn(*[seconds] * 5) for seconds in (1.0, 2.0, 4.0))
    traced = Traced({"point": [(one, two), (two, two), (four, two)]}, received=2_500_000)
    assert traced.typical("point", lambda turn: turn.p99) == (2.0, 2.0, 1.0)
    table = report.traces(traced)
    assert table.count("| point | 2e+03 | 2e+03 | 1.00 |") == 5
    assert "The collector received 2.5 MB." in table


async def test_the_client_takes_no_other_answer_for_one() -> None:
    async with answering(lambda number: b"x" * (1 + number % 2)) as address:
        request = address.request(b"{}", {}, 1)
        mixed = await load(address, [request], seconds=0.3, warm_up=0, connections=1)
    assert abs(mixed.answered - 2 * mixed.refused) <= 1
    assert 0 < mixed.per_second <= 0.5 / 0.01
    async with answering(lambda number: b"x", status=500) as address:
        request = address.request(b"{}", {}, 1)
        failed = await load(address, [request], seconds=0.1, warm_up=0, connections=1)
    assert failed.refused == failed.answered > 0
    assert failed.per_second == 0


async def test_the_client_says_what_it_does_not_understand() -> None:
    async with answering(lambda number: b"x", head="Transfer-Encoding: chunked") as address:
        request = address.request(b"{}", {}, 1)
        with pytest.raises(BadAnswer, match="no Content-Length: HTTP/"):
            await load(address, [request], seconds=5, warm_up=0)


async def test_no_two_writes_have_the_same_number() -> None:
    asked: list[bytes] = []
    async with answering(lambda number: b"x", asked=asked) as address:
        request = address.request(b"%d{}" % NUMBER, {}, 1)
        await load(address, [request], seconds=0.1, warm_up=0, connections=2)
        sent = {wire.rpartition(b"\r\n")[2] for wire in asked}
        assert len(sent) == len(asked) > 2
        assert {len(body) for body in sent} == {12}
        asked.clear()
        await load(address, [address.request(b"{}", {}, 1)], seconds=0.1, warm_up=0)
        assert {wire.rpartition(b"\r\n")[2] for wire in asked} == {b"{}"}
    assert numbered(b"{}") == b"{}"


async def test_a_server_warms_up_until_its_rate_rises_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def seconds(*rates: float) -> int:
        left = iter(rates)

        async def load(*request: Any, **pace: Any) -> Measured:
            return Measured(next(left), 0.1, 0.1, 1, 0)

        monkeypatch.setattr(compare, "load", load)
        return await compare.warm_up(Address(1, "/"), [])

    assert await seconds(100, 101, 102, 103) == 4
    assert await seconds(100, 200, 190, 205, 300, 310, 290, 305) == 8
    assert await seconds(*(2.0**number for number in range(100))) == compare.LONGEST


def test_an_answer_with_errors_is_not_compared() -> None:
    with pytest.raises(ValueError, match="no such field"):
        normal({"errors": [{"message": "no such field"}], "data": None})


def test_a_claim_is_held_against_what_was_found() -> None:
    def row(bound: float, found: float | None, at_most: bool = False) -> list[str]:
        return list(report.Claim("a", bound, found, at_most).row)

    assert row(0.8, 0.8) == ["a", "at least 0.8", "0.80", "yes"]
    assert row(0.8, 0.79) == ["a", "at least 0.8", "0.79", "**no**"]
    assert row(1.2, 1.2, at_most=True) == ["a", "at most 1.2", "1.20", "yes"]
    assert row(1.2, 1.21, at_most=True) == ["a", "at most 1.2", "1.21", "**no**"]
    floor = report.Claim("a", 1, 0.7, floor=0.65)
    assert list(floor.row) == ["a", "at least 1, no less than 0.65", "0.70", "nearly"]
    assert list(replace(floor, found=1).row)[2:] == ["1.00", "yes"]
    assert list(replace(floor, found=0.64).row)[2:] == ["0.64", "**no**"]
    assert row(1.2, None) == ["a", "at least 1.2", "not measured", ""]


def test_the_page_has_a_place_for_every_table() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    tables = ("circumstances", "claims", "contenders", "writes", "keys", "bulk", "dependence")
    for name in (*tables, *WORK):
        filled(text, name, "")


def test_the_page_has_a_row_for_every_promise() -> None:
    def promised(table: str) -> list[list[str]]:
        return [line.split(" | ")[:2] for line in table.splitlines() if line.startswith("| ")]

    text = report.PAGE.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- claims -->")
    assert promised(rest.partition("<!-- /claims -->")[0]) == promised(report.claims(*[None] * 11))


def test_a_promise_that_was_not_measured_keeps_its_row(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    rows = ["| a | at least 1 | 0.90 | nearly |", "| b | at least 2 | 1.00 | **no** |"]
    page.write_text(f"<!-- claims -->\n\n{rows[0]}\n{rows[1]}\n\n<!-- /claims -->\n", "utf-8")
    now = "| a | at least 1 | 1.10 | yes |"

    report.write(page, {"claims": f"{now}\n| b | at least 2 | not measured |  |\n"})

    assert f"{now}\n{rows[1]}\n" in page.read_text(encoding="utf-8")


async def test_a_plan_is_worked_on_and_restored(database_url: URL, database: db.Database) -> None:
    await data.load(database_url, SIZE)
    rows = (
        "SELECT (to_jsonb(t) - ARRAY['updated_at', 'version'])::text FROM tasks t ORDER BY id",
        "SELECT attempt_id::text FROM task_leases",
        "SELECT id::text FROM task_attempts",
    )
    number_of = "SELECT count(*) FROM tasks WHERE project_id = $1 AND "
    async with data.connected(database_url) as connection:
        await plan.add(connection, PLAN)
        before = [await connection.fetch(query) for query in rows]

        async def number(condition: str) -> int:
            return int(await connection.fetchval(number_of + condition, PLAN.project_id))

        blocked = "unmet_dependency_count = 2"
        assert await number(blocked) == 800
        assert await number("unmet_dependency_count = 0") == 200
        agents = [workers.Agent(connection, id) for id in PLAN.agents[:2]]
        for agent in agents:
            await agent.complete(await agent.claim())
        assert await number("status = 'COMPLETED' AND result IS NOT NULL") == 2
        # The tasks of an urgency are not neighbors, so no two of those met are of one task.
        assert await number(blocked) == 796
        async with conftest.serving(database, Settings()) as client:

            async def ask(name: str, **variables: Any) -> Any:
                body = {"query": workers.document(name), "variables": variables}
                headers = {"Authorization": f"Bearer {PLAN.token(0)}"}
                answer = await client.post("/graphql", json=body, headers=headers)
                (payload,) = answer.json()["data"].values()
                return payload

            claimed = await ask("claimTask")
            assert claimed["attempt"]["task"].keys() == {"id", "title", "input"}
            attempt = claimed["attempt"]["id"]
            beat = await ask("heartbeat", attempts=[{"attemptId": attempt}])
            assert [each["leaseLost"] for each in beat["attempts"]] == [False]
            completed = await ask("completeTask", attempt=attempt)
            assert completed == {
                "attempt": {"id": attempt, "status": "SUCCEEDED"},
                "userErrors": [],
            }
            assert len((await ask("claimTasks", limit=50))["attempts"]) == 50
        await plan.restore(connection, PLAN)
        assert [await connection.fetch(query) for query in rows] == before


async def test_summaries_are_the_same_by_hand(database_url: URL, database: db.Database) -> None:
    await data.load(database_url, SIZE)
    async with data.connected(database_url) as connection:
        await summaries.add_records(connection, 2_000)
        async with conftest.serving(database, Settings()) as client:
            for one in summaries.SUMMARIES:
                document = (ASKED / "usageSummary.graphql").read_text(encoding="utf-8")
                body = {"query": document, "variables": {"groupBy": one.groups}}
                answer = await client.post("/graphql", json=body, headers=COMPILED.headers)
                names = ("inputTokens", "outputTokens", "calls")
                found = [
                    tuple(int(row[name]) for name in names)
                    for row in answer.json()["data"]["usageSummary"]
                ]
                by_hand = [
                    (row[-4], row[-3], row[-1])
                    for row in await connection.fetch(one.sql, data.MEMBER)
                ]
                assert sorted(found) == sorted(by_hand), one.name
                assert sum(row[-1] for row in found) == 2_000
