"""The queries and writes, in the form of each contender, and the values that all must return."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from benchmarks.data import CONVERSATION, MEMBER, PROJECT, TASK, row_id
from benchmarks.load import NUMBER

ASKED = Path(__file__).with_name("asked")


@dataclass(frozen=True)
class Query:
    """A query or a write; `asked/` has it in the form of each contender that takes part."""

    name: str
    id: str = ""
    """The variable that is the id of a row, if there is one,"""
    kind: int = 0
    """and the kind of this row."""
    values: Mapping[str, Any] = field(default_factory=dict)
    """Its other variables, besides the viewer."""
    writes: bool = False
    makes_row: bool = False
    """Whether its answer has the id of a new row."""

    def is_for(self, file: str) -> bool:
        """Whether it is there in this form."""
        return (ASKED / self.name / file).exists()

    def text(self, file: str) -> str:
        """The query in the form of a contender."""
        return (ASKED / self.name / file).read_text(encoding="utf-8")

    def variables(self, projects: int) -> list[dict[str, Any]]:
        """Its variables for each request in turn.

        The rows are those of the projects of which the viewer is a member.
        """
        if not self.id:
            return [dict(self.values)]
        numbers = range(10, projects + 1, 10)
        return [{self.id: str(row_id(self.kind, number)), **self.values} for number in numbers]

    def result(self, answer: Any) -> Any:
        """What an answer says, without what may differ. Raises ValueError if it has errors."""
        data = normal(answer)
        if not self.writes:
            return data
        (payload,) = data.values()
        (row,) = payload.values()
        if isinstance(row, list):
            (row,) = row
        if self.makes_row:
            UUID(row.pop("id"))
        return row


DESCRIPTION = "What is to be done, in full. " + "It has several steps. " * 3
"""The description of every task that is written."""

READS = (Query("point", "id", PROJECT), Query("mid"), Query("list"))

# The client replaces the number, so that no two writes are equal.
WRITES = (
    Query(
        "createTask",
        "project",
        PROJECT,
        {
            "title": f"Task {NUMBER}",
            "description": DESCRIPTION,
        },
        writes=True,
        makes_row=True,
    ),
    Query("updateTask", "task", TASK, {"title": f"Task {NUMBER}"}, writes=True),
    Query(
        "appendMessage",
        "conversation",
        CONVERSATION,
        # PostGraphile does not give a message its number in the conversation.
        {"content": f"This is message {NUMBER}.", "sequence": NUMBER},
        writes=True,
        makes_row=True,
    ),
    Query(
        "recordUsage",
        "project",
        PROJECT,
        {"model": "model-1", "input": 1_200, "output": 300},
        writes=True,
        makes_row=True,
    ),
)
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
