"""What Troupe's time depends on, measured over one connection with repeated requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx
import orjson
from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, Running, running
from benchmarks.data import EVERYWHERE_TOKEN, LARGE, SMALL, TOKEN, Size, clean, connected, moment
from benchmarks.load import Address, BadAnswer, Request, load, numbered
from benchmarks.progress import say
from benchmarks.queries import ASKED, READS, WRITES, Query, normal

DEEP = 900_000
"""The number of rows before the later page."""
ROWS = {10: (1, 10), 100: (1, 100), 1_000: (10, 100), 10_000: (100, 100)}
"""By the number of tasks returned: the number of projects, and of tasks of each."""


@dataclass(frozen=True)
class Question:
    """Requests that are repeated in turn."""

    name: str
    address: Address
    requests: Sequence[Request]

    async def measure(self, pace: Pace, connections: int = 1) -> float:
        """The median time of a request over some connections, in seconds. Raises BadAnswer."""
        measured = await load(
            self.address,
            self.requests,
            seconds=pace.seconds,
            warm_up=pace.warm_up,
            connections=connections,
        )
        if measured.refused:
            raise BadAnswer(f"{measured.refused} answers to {self.name} were not correct.")
        return measured.p50


@dataclass
class Scaling:
    """The measurements: seconds for a request, by name."""

    took: dict[str, list[float]]

    def typical(self, name: str) -> float:
        """The median of the rounds' medians."""
        return median(self.took[name])

    def ratio(self, name: str, base: str) -> float:
        """The time divided by that of another: the median of the rounds' ratios."""
        pairs = zip(self.took[name], self.took[base], strict=True)
        return median(ours / theirs for ours, theirs in pairs)


async def scaling(small: URL, large: URL, pace: Pace) -> Scaling:
    """Measure with both sizes of data, in rounds."""
    with ExitStack() as stack:
        few = stack.enter_context(running(COMPILED, small))
        many = stack.enter_context(running(COMPILED, large))
        read = [
            *_pages(many),
            *_returned(many),
            *_stored(few, SMALL, READS),
            *_stored(many, LARGE, READS),
        ]
        result = Scaling({})
        for number in range(pace.rounds):
            await measure_round(result, read, pace)
            say(f"round {number + 1} of {pace.rounds} of what time depends on")
        # After all reads, which would find what they leave behind.
        written = [*_stored(few, SMALL, WRITES), *_stored(many, LARGE, WRITES)]
        for number in range(pace.rounds):
            await measure_round(result, written, pace)
            for url in (small, large):
                async with connected(url) as connection:
                    await clean(connection)
            say(f"round {number + 1} of {pace.rounds} of what the time of writes depends on")
    return result


async def measure_round(result: Scaling, questions: Sequence[Question], pace: Pace) -> None:
    """Measure each question once."""
    for one in questions:
        result.took.setdefault(one.name, []).append(await one.measure(pace))


def _pages(server: Running) -> list[Question]:
    """The first page and a later one, for a viewer who sees all rows and one who sees a tenth."""
    questions = []
    for who, token in (("all", EVERYWHERE_TOKEN), ("tenth", TOKEN)):
        for where, after in (("first", None), ("deep", _cursor(server, token))):
            variables = {"after": after}
            questions.append(question(server, f"{where} {who}", "page", variables, token))
    return questions


def _returned(server: Running) -> list[Question]:
    """Requests that return different numbers of rows."""
    return [
        question(server, f"{rows} rows", "rows", {"projects": projects, "tasks": tasks}, TOKEN)
        for rows, (projects, tasks) in ROWS.items()
    ]


def _stored(server: Running, size: Size, queries: Sequence[Query]) -> list[Question]:
    """Requests for the same rows out of different numbers of stored rows."""
    return [
        made(server, f"{query.name} of {size.tasks}", COMPILED.bodies(query, size.projects))
        for query in queries
    ]


def question(
    server: Running, name: str, file: str, variables: Mapping[str, Any], token: str = TOKEN
) -> Question:
    """A request that is repeated, whose document is in this file."""
    query = (ASKED / f"{file}.graphql").read_text(encoding="utf-8")
    return made(server, name, [orjson.dumps({"query": query, "variables": variables})], token)


def made(server: Running, name: str, bodies: Sequence[bytes], token: str = TOKEN) -> Question:
    """Repeated requests; each is sent once to find the length of its answer."""
    address = Address(server.port, "/graphql")
    headers = COMPILED.headers | {"Authorization": f"Bearer {token}"}
    lengths = [len(_asked(server, numbered(body), token).content) for body in bodies]
    pairs = zip(bodies, lengths, strict=True)
    return Question(name, address, [address.request(body, headers, n) for body, n in pairs])


def _asked(server: Running, body: bytes, token: str) -> httpx.Response:
    """The answer to a request. Raises ValueError if it has errors."""
    headers = COMPILED.headers | {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{server.port}/graphql"
    answer = httpx.post(url, content=body, headers=headers, timeout=60, trust_env=False)
    normal(answer.json())
    return answer


def _cursor(server: Running, token: str) -> str:
    """The cursor of the row after the first DEEP rows, found by a filter."""
    variables = {"moment": moment(DEEP + 1).isoformat()}
    query = (ASKED / "cursor.graphql").read_text(encoding="utf-8")
    body = orjson.dumps({"query": query, "variables": variables})
    return str(_asked(server, body, token).json()["data"]["tasks"]["pageInfo"]["endCursor"])
