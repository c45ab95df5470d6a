"""The benchmarks: that everybody answers the same values, and that the client counts right."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import URL
from starlette.applications import Starlette

import db
from benchmarks import data, hand, plain, report
from benchmarks.contenders import COMPILED, CONTENDERS, GENERAL, HAND, PEER, PLAIN, Contender
from benchmarks.load import Address, BadAnswer, load
from benchmarks.queries import QUERIES, normal, values
from graph.settings import Settings
from tests import conftest
from tests.pages import filled

SIZE = data.Size(projects=100, agents=1_000, tasks=3_000, messages=1_000)
# 10 projects: with two fields each, 10 agents with four, and 20 tasks with three.
SHAPES = {"point": 3, "mid": 10 * (2 + 5 * 3), "list": 10 * (2 + 10 * 4 + 20 * 3)}


@asynccontextmanager
async def running(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application in this process."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


async def test_everybody_answers_the_same_values(database_url: URL, database: db.Database) -> None:
    await data.load(database_url, SIZE)
    expected: dict[str, list[Any]] = {}

    async def compare(contender: Contender, client: httpx.AsyncClient) -> None:
        for query in QUERIES:
            answers = []
            for body in contender.bodies(query, SIZE.projects):
                path = contender.path(query)
                response = await client.post(path, content=body, headers=contender.headers)
                answers.append(normal(response.json()))
            assert answers == expected.setdefault(query.name, answers), contender.name
            assert {values(answer) for answer in answers} == {SHAPES[query.name]}

    async with running(hand.create_app(data.dsn(database_url))) as client:
        await compare(HAND, client)
    async with conftest.serving(database, Settings()) as client:
        await compare(COMPILED, client)
    async with conftest.serving(database, Settings(compiler=False)) as client:
        await compare(GENERAL, client)
    async with running(plain.create_app(data.dsn(database_url))) as client:
        await compare(PLAIN, client)
    assert list(CONTENDERS.values()) == [HAND, COMPILED, GENERAL, PEER, PLAIN]
    assert len(expected["point"]) == 10
    assert expected["point"][0]["project"]["name"] == "Project 10"
    titles = [task["title"] for task in expected["list"][0]["projects"][1]["tasks"]]
    assert titles == [f"Task {20 + 100 * number}" for number in range(20)]


async def test_who_is_no_member_is_shown_nothing_by_hand_either(database_url: URL) -> None:
    await data.load(database_url, SIZE)
    async with running(hand.create_app(data.dsn(database_url))) as client:
        body = {"id": str(data.row_id(data.PROJECT, 11))}
        answer = await client.post("/point", json=body, headers=HAND.headers)
        assert answer.json() == {"data": {"project": None}}
        unknown = await client.post("/point", json=body, headers={"authorization": "Bearer x"})
        assert unknown.status_code == 401


@asynccontextmanager
async def answering(
    bodies: Callable[[int], bytes], status: int = 200, head: str = "Content-Length: {}"
) -> AsyncIterator[Address]:
    """A server whose answers have these bodies, by their number, each a hundredth second late."""
    numbers = itertools.count()
    serving: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"{}"):
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
    assert row(1.2, None) == ["a", "at least 1.2", "not measured", ""]


def test_the_page_has_a_place_for_every_table() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for name in ("circumstances", "claims", "contenders", "dependence"):
        filled(text, name, "")
