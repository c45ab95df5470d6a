"""Clients of the API: what the demo and the command line ask, whichever way it is sent."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import orjson


class Refused(Exception):
    """The API did not do what was asked for; `errors` are its errors, as it returns them."""

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        super().__init__(" ".join(error["message"] for error in errors))
        self.errors = errors


class Client(ABC):
    """A client of the API, for one viewer."""

    @abstractmethod
    async def ask(
        self, document: str, operation: str | None = None, /, **variables: Any
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The data that an operation answers, and its errors."""

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


def exact_json(text: bytes) -> Any:
    """A value of JSON whose numbers are written again as they are, with all digits."""
    return json.loads(text, parse_float=orjson.Fragment, parse_int=_exact_integer)


def _exact_integer(text: str) -> int | orjson.Fragment:
    """An integer, as text if orjson would not write all its digits."""
    return int(text) if len(text) < 19 else orjson.Fragment(text)
