"""What Troupe's time depends on, and on what not: one connection, asking again and again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx
import orjson
from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, Running, running
from benchmarks.data import EVERYWHERE_TOKEN, LARGE, SMALL, TOKEN, Size, moment
from benchmarks.load import Address, BadAnswer, Request, load
from benchmarks.progress import say
from benchmarks.queries import ASKED, QUERIES, normal

DEEP = 900_000
"""How many rows precede the page that is far in."""
ROWS = {10: (1, 10), 100: (1, 100), 1_000: (10, 100), 10_000: (100, 100)}
"""How many tasks are returned: of so many projects, so many tasks each."""


@dataclass(frozen=True)
class Question:
    """Something that is asked again and again."""

    name: str
    address: Address
    request: Request


@dataclass
class Scaling:
    """What was found: seconds for a request, by the names of what was asked."""

    took: dict[str, list[float]]

    def typical(self, name: str) -> float:
        """The median of the rounds' medians."""
        return median(self.took[name])

    def ratio(self, name: str, base: str) -> float:
        """How many times as long as another: the median of the rounds' ratios."""
        pairs = zip(self.took[name], self.took[base], strict=True)
        return median(ours / theirs for ours, theirs in pairs)


async def scaling(small: URL, large: URL, pace: Pace) -> Scaling:
    """Measure over both sizes, in rounds."""
    with ExitStack() as stack:
        few = stack.enter_context(running(COMPILED, small))
        many = stack.enter_context(running(COMPILED, large))
        questions = [*_pages(many), *_returned(many), *_stored(few, SMALL), *_stored(many, LARGE)]
        result = Scaling({question.name: [] for question in questions})
        for number in range(pace.rounds):
            for question in questions:
                measured = await load(
                    question.address,
                    [question.request],
                    seconds=pace.seconds,
                    warm_up=pace.warm_up,
                    connections=1,
                )
                if measured.refused:
                    raise BadAnswer(
                        f"{measured.refused} answers to {question.name} were not right."
                    )
                result.took[question.name].append(measured.p50)
            say(f"round {number + 1} of {pace.rounds} of what time depends on")
    return result


def _pages(server: Running) -> list[Question]:
    """A page at the start and far in, of somebody who sees all and of somebody who sees a tenth."""
    questions = []
    for who, token in (("all", EVERYWHERE_TOKEN), ("tenth", TOKEN)):
        for where, after in (("first", None), ("deep", _cursor(server, token))):
            variables = {"after": after}
            questions.append(_question(server, f"{where} {who}", "page", variables, token))
    return questions


def _returned(server: Running) -> list[Question]:
    """More and more rows."""
    return [
        _question(server, f"{rows} rows", "rows", {"projects": projects, "tasks": tasks}, TOKEN)
        for rows, (projects, tasks) in ROWS.items()
    ]


def _stored(server: Running, size: Size) -> list[Question]:
    """The same rows, out of few and out of many."""
    return [
        _made(server, f"{query.name} of {size.tasks}", COMPILED.bodies(query, size.projects)[0])
        for query in QUERIES
    ]


def _question(
    server: Running, name: str, file: str, variables: Mapping[str, Any], token: str
) -> Question:
    query = (ASKED / f"{file}.graphql").read_text(encoding="utf-8")
    return _made(server, name, orjson.dumps({"query": query, "variables": variables}), token)


def _made(server: Running, name: str, body: bytes, token: str = TOKEN) -> Question:
    """A question, asked once to see what is answered."""
    address = Address(server.port, "/graphql")
    headers = COMPILED.headers | {"Authorization": f"Bearer {token}"}
    answer = _asked(server, body, token)
    return Question(name, address, address.request(body, headers, len(answer.content)))


def _asked(server: Running, body: bytes, token: str) -> httpx.Response:
    """An answer without errors. Raises ValueError."""
    headers = COMPILED.headers | {"Authorization": f"Bearer {token}"}
    url = f"http://127.0.0.1:{server.port}/graphql"
    answer = httpx.post(url, content=body, headers=headers, timeout=60, trust_env=False)
    normal(answer.json())
    return answer


def _cursor(server: Running, token: str) -> str:
    """The cursor of the row that so many precede: nobody wants to page there to get it."""
    variables = {"moment": moment(DEEP + 1).isoformat()}
    query = (ASKED / "cursor.graphql").read_text(encoding="utf-8")
    body = orjson.dumps({"query": query, "variables": variables})
    return str(_asked(server, body, token).json()["data"]["tasks"]["pageInfo"]["endCursor"])
