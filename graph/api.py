"""The API within this process, as the demo and the command line use it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import orjson

from db import Database, Viewer
from db.text import decimal_json
from graph.core.context import Context
from graph.execution.pipeline import Pipeline
from graph.execution.run import GraphQLRequest
from graph.limits.limits import Limits
from graph.schema import schema
from graph.settings import Settings


def _exact_integer(text: str) -> int | orjson.Fragment:
    """An integer, as text if orjson would not write all its digits."""
    return int(text) if len(text) < 19 else orjson.Fragment(text)


class Refused(Exception):
    """The API did not do what was asked for; `errors` are its errors, as it returns them."""

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        super().__init__(" ".join(error["message"] for error in errors))
        self.errors = errors


class API:
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
        # JSON values keep their numbers as they are stored, with all digits.
        data = json.loads(text, parse_float=orjson.Fragment, parse_int=_exact_integer)
        return data or {}, [dict(error.formatted) for error in response.errors]

    async def read(self, document: str, /, **variables: Any) -> dict[str, Any]:
        """The data that a query answers. Raises Refused if there is an error."""
        data, errors = await self.ask(document, **variables)
        if errors:
            raise Refused(errors)
        return data

    async def change(self, name: str, shown: str = "", /, **input: Any) -> Any:
        """The payload of a mutation. Raises Refused if it has an error."""
        kind = f"{name[0].upper()}{name[1:]}Input!"
        selection = f"{{ {shown} userErrors {{ message code path }} }}"
        document = f"mutation($input: {kind}) {{ {name}(input: $input) {selection} }}"
        payload = (await self.read(document, input=input))[name]
        if payload["userErrors"]:
            raise Refused(payload["userErrors"])
        return payload
