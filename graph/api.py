"""The API within this process, as the demo and the command line use it."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import orjson

from db import Database, Viewer
from db.text import decimal_json
from graph.clients import Client, exact_json
from graph.core.context import Context
from graph.execution.pipeline import Pipeline
from graph.execution.run import GraphQLRequest
from graph.limits.limits import Limits
from graph.schema import schema
from graph.settings import Settings


class API(Client):
    """The API within this process, for one viewer."""

    def __init__(self, database: Database, viewer: Viewer) -> None:
        self._pipeline = Pipeline(schema, Limits(Settings()))
        self._database, self._viewer = database, viewer

    def of(self, viewer: Viewer) -> Self:
        """The API for another viewer."""
        api = copy(self)
        api._viewer = viewer
        return api

    async def ask(
        self, document: str, operation: str | None = None, /, **variables: Any
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The data that an operation answers, and its errors."""
        request = GraphQLRequest(document, operation, variables, None)
        context = Context(self._database, self._viewer)
        response = await self._pipeline.answer(self._pipeline.begin(request, context))
        text = orjson.dumps(response.body.get("data"), default=decimal_json)
        return exact_json(text) or {}, [dict(error.formatted) for error in response.errors]
