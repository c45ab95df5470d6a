"""A small GraphQL client over the real ASGI application, which also counts SQL statements."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson
from sqlalchemy import event

import db
from db.prepared import PreparedPool


@dataclass
class Answer:
    """What the server answered to one operation, and what it asked of the database."""

    status: int
    text: str
    body: dict[str, Any]
    statements: list[str] = field(default_factory=list)

    @property
    def data(self) -> Any:
        """The data; there must be no errors."""
        assert "errors" not in self.body, self.body["errors"]
        return self.body["data"]

    @property
    def errors(self) -> list[Any]:
        """The errors; there must be some."""
        return list(self.body["errors"])

    @property
    def code(self) -> str:
        """The code of the only error."""
        (error,) = self.errors
        return str(error["extensions"]["code"])


_counting: list[list[str]] = []
"""The lists to which statements without SQLAlchemy are added now."""


def _noting(method: Any) -> Any:
    def run(pool: PreparedPool, statement: str, *arguments: Any) -> Any:
        for statements in _counting:
            statements.append(statement)
        return method(pool, statement, *arguments)

    return run


# Once, and not for each block: blocks that overlap would end in another order than they began, and
# leave each other's functions in place.
PreparedPool.rows = _noting(PreparedPool.rows)  # type: ignore[method-assign]
PreparedPool.value = _noting(PreparedPool.value)  # type: ignore[method-assign]
PreparedPool.write = _noting(PreparedPool.write)  # type: ignore[method-assign]


@contextmanager
def counted(database: db.Database) -> Iterator[list[str]]:
    """The statements sent to the database in the block, transaction control aside."""
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, _s: str, _parameters: Any, context: Any, _m: bool) -> None:
        # Naming the actor belongs to the begin of a transaction.
        if "set_config" not in context.statement:
            # As it was before its result was limited.
            statements.append(context.statement)

    engines = (database.reader.sync_engine, database.writer.sync_engine)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    _counting.append(statements)
    try:
        yield statements
    finally:
        _counting[:] = [each for each in _counting if each is not statements]
        for engine in engines:
            event.remove(engine, "before_cursor_execute", note)


class Client:
    """Asks as whoever a token names."""

    def __init__(self, http: httpx.AsyncClient, database: db.Database, token: str | None) -> None:
        self._http = http
        self._database = database
        self.token = token
        self._headers = {"authorization": f"Bearer {token}"} if token else {}

    def through(self, http: httpx.AsyncClient) -> Client:
        """The same viewer's client of another application."""
        return Client(http, self._database, self.token)

    async def send(self, body: Any, **headers: str) -> httpx.Response:
        """What is answered over HTTP to a body, which is made JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        given = {"content-type": "application/json"} | self._headers | headers
        return await self._http.post("/graphql", content=content, headers=given)

    async def get(self, parameters: dict[str, str], **headers: str) -> httpx.Response:
        """What is answered to a GET with these parameters."""
        return await self._http.get("/graphql", params=parameters, headers=self._headers | headers)

    async def ask(self, query: str, /, **variables: Any) -> Answer:
        """Run an operation."""
        return await self.request(query=query, variables=variables)

    async def request(self, **request: Any) -> Answer:
        """Send a request with these fields."""
        with counted(self._database) as statements:
            response = await self._http.post("/graphql", json=request, headers=self._headers)
        # The first statement is the look-up of the token.
        found = statements[1:] if self._headers else statements
        return Answer(response.status_code, response.text, response.json(), found)

    async def change(self, mutation: str, /, **input: Any) -> Any:
        """Run a mutation that takes `input`, written as `name { selection }`; its payload."""
        name, _, selection = mutation.partition(" ")
        kind = f"{name[0].upper()}{name[1:]}Input!"
        query = f"mutation($input: {kind}) {{ {name}(input: $input) {selection} }}"
        answer = await self.ask(query, input=input)
        return answer.data[name]
