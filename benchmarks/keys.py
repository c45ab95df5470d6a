"""Writes with a new idempotency key each, compared with the same writes without one."""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson
from sqlalchemy import URL

from benchmarks.compare import Pace, warm_up
from benchmarks.contenders import COMPILED, running
from benchmarks.data import Size, clean, connected
from benchmarks.load import NUMBER
from benchmarks.progress import say
from benchmarks.queries import Query
from benchmarks.scaling import Scaling, made

CONNECTIONS = 10


def with_key(name: str) -> str:
    """The name of the measurement of a write with a key."""
    return f"{name} with a key"


def keyed(body: bytes) -> bytes:
    """The body of a request, with a key that is new each time it is sent."""
    asked = orjson.loads(body)
    text = re.sub(r"(mutation \w+\()", r"\1$key: String!, ", asked["query"], count=1)
    text = text.replace("input: {", "input: {idempotencyKey: $key, ", 1)
    variables = asked["variables"] | {"key": f"key-{NUMBER}"}
    return orjson.dumps({"query": text, "variables": variables})


async def keys(url: URL, size: Size, writes: Sequence[Query], pace: Pace) -> Scaling:
    """Measure the writes in rounds, each without a key and with one, over ten connections."""
    result = Scaling({})
    async with connected(url) as connection:
        with running(COMPILED, url) as server:
            questions = []
            for query in writes:
                bodies = COMPILED.bodies(query, size.projects)
                questions.append(made(server, query.name, bodies))
                questions.append(made(server, with_key(query.name), [*map(keyed, bodies)]))
            for one in questions:
                await warm_up(one.address, one.requests)
            await clean(connection)
            for number in range(pace.rounds):
                for one in questions:
                    took = await one.measure(pace, CONNECTIONS)
                    result.took.setdefault(one.name, []).append(took)
                    await clean(connection)
                say(f"round {number + 1} of {pace.rounds} of writes with a key")
    return result
