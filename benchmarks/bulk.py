"""Writes of a thousand rows by Troupe, compared with a COPY of the same rows."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import asyncpg
from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, running
from benchmarks.data import CONVERSATION, MEMBER, PROJECT, clean, connected, row_id
from benchmarks.load import NUMBER
from benchmarks.progress import say
from benchmarks.queries import DESCRIPTION
from benchmarks.scaling import Scaling, question
from db.base import new_id

ROWS = 1_000
EDGES = [(task, task - back) for back in (10, 20, 30) for task in range(back, ROWS)][:2_000]
"""The dependencies between the tasks, by their numbers."""

PROJECT_ID, CONVERSATION_ID = row_id(PROJECT, 10), row_id(CONVERSATION, 10)
MODEL, INPUT, OUTPUT = "model-1", 1_200, 300
CONTENT = "This is what the agent has found, in a sentence or two of usual length."

_sequence = itertools.count(NUMBER)


@dataclass(frozen=True)
class Copied:
    """Rows for COPY."""

    table: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class Bulk:
    """A write of many rows."""

    name: str
    title: str
    """What it writes."""
    variables: Callable[[], Mapping[str, Any]]
    """The variables of Troupe's mutation, whose document is in `asked/`."""
    copied: Callable[[], Iterator[Copied]]
    """The same rows for COPY, with new ids."""

    @property
    def copy(self) -> str:
        """The name of the measurement of COPY."""
        return f"{self.name} by COPY"


def _tasks() -> Mapping[str, Any]:
    depends_on: dict[int, list[dict[str, str]]] = {}
    for task, dependency in EDGES:
        depends_on.setdefault(task, []).append({"on": str(dependency)})
    tasks = [
        {
            "reference": str(task),
            "title": f"Task {task}",
            "description": DESCRIPTION,
            "dependsOn": depends_on.get(task, []),
        }
        for task in range(ROWS)
    ]
    return {"project": str(PROJECT_ID), "tasks": tasks}


def copied_tasks() -> Iterator[Copied]:
    """The rows of the tasks and of their dependencies."""
    ids = [new_id() for _ in range(ROWS)]
    waits_for = [0] * ROWS
    for task, _ in EDGES:
        waits_for[task] += 1
    yield Copied(
        "tasks",
        (
            "id",
            "project_id",
            "created_by_user_id",
            "title",
            "description",
            "unmet_dependency_count",
        ),
        [
            (id, PROJECT_ID, MEMBER, f"Task {task}", DESCRIPTION, waits_for[task])
            for task, id in enumerate(ids)
        ],
    )
    yield Copied(
        "task_dependencies",
        ("dependent_id", "dependency_id"),
        [(ids[task], ids[dependency]) for task, dependency in EDGES],
    )


def _messages() -> Mapping[str, Any]:
    messages = [{"sender": "ASSISTANT", "content": CONTENT}] * ROWS
    return {"conversation": str(CONVERSATION_ID), "messages": messages}


def _copied_messages() -> Iterator[Copied]:
    yield Copied(
        "messages",
        ("id", "conversation_id", "sequence", "sender", "content"),
        [(new_id(), CONVERSATION_ID, next(_sequence), "ASSISTANT", CONTENT) for _ in range(ROWS)],
    )


def _usage() -> Mapping[str, Any]:
    record = {"modelId": MODEL, "inputTokens": INPUT, "outputTokens": OUTPUT}
    return {"project": str(PROJECT_ID), "records": [record] * ROWS}


def _copied_usage() -> Iterator[Copied]:
    yield Copied(
        "usage_records",
        ("id", "project_id", "model_id", "model_name", "input_tokens", "output_tokens"),
        [(new_id(), PROJECT_ID, MODEL, MODEL, INPUT, OUTPUT) for _ in range(ROWS)],
    )


BULKS = (
    Bulk("createTasks", "1,000 tasks, 2,000 dependencies", _tasks, copied_tasks),
    Bulk("appendMessages", "1,000 messages", _messages, _copied_messages),
    Bulk("recordUsages", "1,000 usage records", _usage, _copied_usage),
)


async def bulk(troupe: URL, copied: URL, bulks: Sequence[Bulk], pace: Pace) -> Scaling:
    """Measure them in rounds: Troupe on one database, COPY on another, each over one connection."""
    result = Scaling({name: [] for one in bulks for name in (one.name, one.copy)})
    async with connected(troupe) as ours, connected(copied) as theirs:
        with running(COMPILED, troupe) as server:
            questions = [
                question(server, one.name, f"{one.name}/troupe", one.variables()) for one in bulks
            ]
            for number in range(pace.rounds):
                for one, asked in zip(bulks, questions, strict=True):
                    result.took[one.name].append(await asked.measure(pace))
                    result.took[one.copy].append(await _median(theirs, one, pace))
                    await clean(ours)
                    await clean(theirs)
                say(f"round {number + 1} of {pace.rounds} of writes of many rows")
    return result


async def copy(connection: asyncpg.Connection, all_rows: Iterable[Copied]) -> None:
    """Write these rows by COPY, in one transaction."""
    async with connection.transaction():
        for rows in all_rows:
            await connection.copy_records_to_table(
                rows.table, columns=rows.columns, records=rows.rows
            )


async def _median(connection: asyncpg.Connection, bulk: Bulk, pace: Pace) -> float:
    """The median time of a COPY of these rows, in seconds."""
    took = []
    until = time.perf_counter() + pace.seconds
    while time.perf_counter() < until:
        all_rows = list(bulk.copied())
        began = time.perf_counter()
        await copy(connection, all_rows)
        took.append(time.perf_counter() - began)
    return median(took)
