"""What is asked: each query as every contender takes it, and the values that all must answer."""

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
    """One of the queries; `asked/` has it in everybody's words."""

    name: str
    takes: tuple[str, ...] = ()
    """The ids that it is asked with, besides who asks."""

    def text(self, file: str) -> str:
        """It in somebody's words."""
        return (ASKED / self.name / file).read_text(encoding="utf-8")

    def variables(self, projects: int) -> list[dict[str, str]]:
        """What it is asked with, in turn: of so many projects each that the viewer is in."""
        if not self.takes:
            return [{}]
        return [{"id": str(row_id(PROJECT, number))} for number in range(10, projects + 1, 10)]


QUERIES = (Query("point", takes=("id",)), Query("mid"), Query("list"))

# Peers have no scopes: they are asked for the projects that the viewer owns, which are the same
# ones. It costs them less than a scope would, as an index has these rows in order.
OWNER = {"owner": str(MEMBER)}


def normal(answer: Any) -> Any:
    """An answer's data without what differs by taste: `nodes` around a list, global ids.

    Raises ValueError for an answer with errors.
    """
    if "errors" in answer:
        raise ValueError(f"an error was answered: {answer['errors'][0]}")
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
    """What a global id stands for; another is what it is."""
    try:
        kind, _, key = base64.b64decode(id, validate=True).decode().partition(":")
    except ValueError:
        return id
    return key if kind.isidentifier() and key else id


def values(answer: Any) -> int:
    """How many values a normal answer holds."""
    if isinstance(answer, Mapping):
        return sum(values(inner) for inner in answer.values())
    if isinstance(answer, list):
        return sum(values(inner) for inner in answer)
    return 1
