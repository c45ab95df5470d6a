"""The reference: hand-written statements for each query, each behind a plain Starlette route.

PostgreSQL builds the JSON, whose text is returned unchanged. A read is one statement. A write has
three: the first checks the right and locks a row, the second writes, both in one transaction, and
the third reads the answer. The user is looked up by the bearer token, as in Troupe, and cached for
a second.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.queries import READS, WRITES, Query
from db.access import hash_token
from db.base import new_id

# Seconds for which the user of a token is cached.
FRESH = 1.0

BEARER = """
SELECT t.user_id
FROM access_tokens t JOIN users u ON u.id = t.user_id
WHERE t.token_hash = $1 AND u.is_active AND t.revoked_at IS NULL
  AND (t.expires_at IS NULL OR t.expires_at > now())
"""


# A named parameter, but not a cast.
NAMED = re.compile(r"(?<!:):([a-z]+)")


class Statement:
    """A statement with named parameters."""

    def __init__(self, text: str) -> None:
        self.names = list(dict.fromkeys(NAMED.findall(text)))
        self.text = NAMED.sub(lambda found: f"${self.names.index(found[1]) + 1}", text)

    async def first(self, connection: Any, values: Mapping[str, Any]) -> Any:
        """The first value of its result."""
        return await connection.fetchval(self.text, *(values[name] for name in self.names))


async def _nothing_to_reset(connection: Any) -> None:
    """Do not reset a connection, which asyncpg does by a statement: nothing changes in it."""


def create_app(dsn: str) -> Starlette:
    """The application on a database."""
    known: dict[str, tuple[float, UUID]] = {}

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            dsn,
            min_size=10,
            max_size=10,
            # One generic plan is good for all values, so that planning is not repeated.
            server_settings={"jit": "off", "plan_cache_mode": "force_generic_plan"},
            reset=_nothing_to_reset,
        ) as app.state.pool:
            yield

    async def viewer(request: Request) -> UUID | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = known.get(token)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        user: UUID | None = await request.app.state.pool.fetchval(BEARER, hash_token(token))
        if user is not None:
            known[token] = (time.monotonic() + FRESH, user)
        return user

    def route(query: Query) -> Route:
        *writing, reading = (Statement(text) for text in query.text("hand.sql").split(";\n"))

        async def answer(request: Request) -> Response:
            user = await viewer(request)
            if user is None:
                return Response(status_code=401)
            values = {"viewer": user, "new": new_id(), **orjson.loads(await request.body())}
            async with request.app.state.pool.acquire() as connection:
                if writing:
                    check, write = writing
                    async with connection.transaction():
                        if await check.first(connection, values) is None:
                            return Response(status_code=403)
                        await write.first(connection, values)
                text = await reading.first(connection, values)
            return Response(text, media_type="application/json")

        return Route(f"/{query.name}", answer, methods=["POST"])

    routes = [route(query) for query in (*READS, *WRITES)]
    return Starlette(routes=routes, lifespan=lifespan)


if __name__ == "__main__":
    url, port = sys.argv[1:]
    uvicorn.run(create_app(url), port=int(port), log_level="warning", access_log=False)
