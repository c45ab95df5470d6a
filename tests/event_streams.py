"""Event streams (SSE) of a server, as a client reads them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Self

import httpx

EVENTS = "text/event-stream"
STREAM_TOKEN = "X-GraphQL-Event-Stream-Token"


class Event(NamedTuple):
    """An event of a stream."""

    type: str
    data: Any = None
    id: str | None = None


class Events:
    """The events of a response."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.comments = 0
        self._lines = response.aiter_lines()

    async def next(self) -> Event | None:
        """The next event; None at the end."""
        found: dict[str, str] = {}
        async with asyncio.timeout(15):
            async for line in self._lines:
                name, _, value = line.partition(":")
                if line and not name:
                    self.comments += 1
                elif line:
                    found[name] = value.removeprefix(" ")
                elif found:
                    data = json.loads(found["data"]) if found["data"] else None
                    return Event(found["event"], data, found.get("id"))
        return None

    async def rest(self) -> list[Event]:
        """All further events."""
        events = []
        while (event := await self.next()) is not None:
            events.append(event)
        return events


class Asking:
    """A client of a server's event streams, who has a token."""

    def __init__(self, http: httpx.AsyncClient, token: str | None) -> None:
        self.http = http
        self.headers = {"authorization": f"Bearer {token}"} if token else {}

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, token: str | None = None, **options: Any) -> AsyncIterator[Self]:
        """A client that keeps its connections until the end."""
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=15, **options) as http:
            yield cls(http, token)

    @asynccontextmanager
    async def stream(
        self, query: str | None = None, *, last: str | None = None, **options: Any
    ) -> AsyncIterator[Events]:
        """The stream of an operation, or the one that was reserved."""
        headers = {**self.headers, "accept": EVENTS, **options.pop("headers", {})}
        if last is not None:
            headers["last-event-id"] = last
        if query is None:
            request = self.http.stream("GET", "/graphql", headers=headers, **options)
        else:
            body = {"query": query, "variables": options.pop("variables", None)}
            request = self.http.stream("POST", "/graphql", json=body, headers=headers, **options)
        async with request as response:
            yield Events(response)

    async def ask(self, query: str, **options: Any) -> list[Event]:
        """All events of an operation that ends."""
        async with self.stream(query, **options) as events:
            assert events.response.status_code == 200
            return await events.rest()

    async def reserve(self) -> str:
        """Reserve a stream, and return its token."""
        response = await self.http.put("/graphql", headers=self.headers)
        assert response.status_code == 201, response.text
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        return response.text

    async def send(
        self, stream: str, id: Any, query: str, variables: Any = None, **headers: str
    ) -> httpx.Response:
        """Send an operation whose results are events of a reserved stream."""
        extensions = {} if id is None else {"operationId": id}
        body = {"query": query, "variables": variables, "extensions": extensions}
        headers = {**self.headers, STREAM_TOKEN: stream, **headers}
        return await self.http.post("/graphql", json=body, headers=headers)

    async def cancel(self, stream: str, id: str) -> httpx.Response:
        """End an operation of a reserved stream."""
        headers = {**self.headers, STREAM_TOKEN: stream}
        return await self.http.delete("/graphql", params={"operationId": id}, headers=headers)
