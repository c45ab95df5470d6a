"""The queries, in the form of each contender, and the values that all must return."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import MEMBER, PROJECT, row_id

ASKED = Path(__file__).with_name("asked")


@dataclass(frozen=True)
class Query:
    """A query; `asked/` has it in the form of each contender."""

    name: str
    takes: tuple[str, ...] = ()
    """The ids that are its variables, besides the viewer."""

    def text(self, file: str) -> str:
        """The query in the form of a contender."""
        return (ASKED / self.name / file).read_text(encoding="utf-8")

    def variables(self, projects: int) -> list[dict[str, str]]:
        """Its variables for each request in turn: the projects of which the viewer is a member."""
        if not self.takes:
            return [{}]
        return [{"id": str(row_id(PROJECT, number))} for number in range(10, projects + 1, 10)]


QUERIES = (Query("point", takes=("id",)), Query("mid"), Query("list"))

# Contenders without scopes filter by the owner, which gives the same projects. It costs them less
# than a scope would, because an index has these rows in order.
OWNER = {"owner": str(MEMBER)}


def normal(answer: Any) -> Any:
    """The data of an answer without what may differ: `nodes` around a list, global ids.

    Raises ValueError for an answer with errors.
    """
    if "errors" in answer:
        raise ValueError(f"the answer has an error: {answer['errors'][0]}")
    return _normal(answer["data"])


def _normal(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"nodes"}:
            return _normal(value["nodes"])
        return {
            key: _bare(inner) if key == "id" else _normal(inner) for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_normal(inner) for inner in value]
    return value


def _bare(id: str) -> str:
    """The key in a global id; any other id is returned unchanged."""
    try:
        kind, _, key = base64.b64decode(id, validate=True).decode().partition(":")
    except ValueError:
        return id
    return key if kind.isidentifier() and key else id


def values(answer: Any) -> int:
    """The number of values in a normalized answer."""
    if isinstance(answer, Mapping):
        return sum(values(inner) for inner in answer.values())
    if isinstance(answer, list):
        return sum(values(inner) for inner in answer)
    return 1
