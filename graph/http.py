"""The HTTP edge of the API."""

from __future__ import annotations

import json
import re
from math import inf
from typing import Any

import orjson
from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.schema import BaseSchema

from db import Database
from graph.context import Context
from graph.errors import RequestError
from graph.viewer import identify

MANY_DIGITS = re.compile(rb"\d{19}")


def _integer(digits: str) -> float:
    """A number that JSON writes without a fraction; one beyond 64 bits is infinite.

    orjson would make a finite float of it, with other digits; infinite, it is refused.
    """
    return int(digits) if len(digits) <= 20 else inf


class Endpoint(GraphQL[Context, None]):
    """`/graphql`: operations over POST and GET."""

    def __init__(self, schema: BaseSchema, *, introspection: bool, planner: bool) -> None:
        # The bundled pages load from elsewhere; ours will not.
        super().__init__(schema, graphql_ide=None, subscription_protocols=())
        self.introspection = introspection
        self.planner = planner

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        """The context of an operation: who asks, and how the database is reached."""
        database: Database = request.app.state.database
        viewer = None
        refusal: GraphQLError | None = None
        try:
            viewer = await identify(request, database)
        except RequestError as error:
            refusal = error
        except Exception as error:
            # Worded like any other error: nothing of it reaches the client as it is.
            refusal = GraphQLError(str(error), original_error=error)
        return Context(
            database,
            viewer,
            refusal=refusal,
            introspection=viewer is not None or self.introspection,
            planner=self.planner,
        )

    def encode_json(self, data: object) -> bytes:
        """JSON as PostgreSQL writes it too: no spaces, and its own text passed on untouched."""
        return orjson.dumps(data)

    def decode_json(self, data: str | bytes) -> Any:
        """A request's JSON; orjson refuses what is not JSON, lone surrogates included."""
        decoded = orjson.loads(data)
        if MANY_DIGITS.search(data if isinstance(data, bytes) else data.encode()):
            try:
                decoded = json.loads(data, parse_int=_integer)
            except RecursionError:
                raise orjson.JSONDecodeError("this is nested too deeply", "", 0) from None
        if not isinstance(decoded, dict):
            raise orjson.JSONDecodeError("a request is a JSON object", "", 0)
        return decoded
