"""The form that every format of plans is read into: tasks as rows, and edges between them.

A format is a module with `opened`, which opens a file or folder, and `read_plans`, which yields its
plans. `projects.py` writes them.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from db.imports.cycles import cycle_closing_edges
from db.imports.files import Progress, quoted, refuse_unstorable, shown
from db.imports.report import Report
from db.tasks import BlockedReason, OnFailure, TaskStatus
from db.text import canonical_json

TITLE_LENGTH = 255


@dataclass(slots=True)
class Plan:
    """What becomes a project: rows of tasks without ids, and edges between their indexes."""

    # The format, and the name that the project gets.
    source: str
    project: str
    # The place in the file, for messages to the user.
    place: str
    hash: str
    # The name of each task in the plan.
    references: list[str]
    rows: list[dict[str, Any]]
    parents: list[int | None]
    # (the task that waits, the task it waits for)
    edges: list[tuple[int, int]]
    # What the format has of a project besides; `origin` is where it comes from.
    origin: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    description: str | None = None

    @property
    def keys(self) -> list[str]:
        """What identifies each task: its reference, with a number if others before have it too."""
        times: Counter[str] = Counter()
        keys = []
        for reference in self.references:
            times[reference] += 1
            number = times[reference]
            keys.append(reference if number == 1 else f"{reference}#{number}")
        return keys

    def counts(self) -> dict[str, int]:
        """Its counts for the report."""
        return {"projects": 1, "tasks": len(self.rows), "dependencies": len(self.edges)}


class PlanSource(Protocol):
    """An opened file or folder, which is read twice."""

    name: str
    file: str

    def second_pass(self) -> None:
        """Start the second half of the progress."""

    def refuse_change(self) -> None:
        """Raise NotImportable if it was changed since it was opened."""

    def finish(self) -> None:
        """Report that the import is complete."""


class PlanFormat(Protocol):
    """A format of plans."""

    def opened(self, path: Path, progress: Progress) -> AbstractContextManager[Any]:
        """Open a file or folder. Raises NotImportable."""

    def read_plans(self, source: Any, project: str | None, report: Report) -> Iterator[Plan]:
        """The plans of an opened file or folder, one by one. Raises NotImportable."""


def connect(
    named: Sequence[tuple[int, str, int | None]],
    references: Sequence[str],
    parents: Sequence[int | None],
    rows: Sequence[dict[str, Any]],
    at: Callable[[int], str],
    report: Report,
) -> list[tuple[int, int]]:
    """Turn dependencies into edges; leave out and report those that are not possible.

    A dependency is the task that waits, the name of the other and the other, if there is one.
    """
    edges: dict[tuple[int, int], int] = {}
    reasons: dict[int, str] = {}
    for place, (task, name, other) in enumerate(named):
        if not name:
            reasons[place] = "it names nothing"
        elif other is None:
            reasons[place] = "there is no such task"
        elif (task, other) in edges:
            reasons[place] = "it is named twice"
        elif task == other:
            reasons[place] = "a task cannot wait for itself"
        else:
            edges[task, other] = place
    places = list(edges.items())
    for closing in cycle_closing_edges(parents, list(edges)):
        (dependent, dependency), place = places[closing]
        del edges[dependent, dependency]
        reasons[place] = (
            f"{shown(references[dependency])} waits for {shown(references[dependent])} already,"
            " directly or by way of others"
        )
    for place, reason in sorted(reasons.items()):
        task, name, _ = named[place]
        report.leave_out(
            f"the dependency on {shown(name) or 'null'} was left out, because {reason}.", at(task)
        )
    for dependent, dependency in edges:
        waits = rows[dependent]["status"] in (TaskStatus.PENDING, TaskStatus.BLOCKED)
        if waits and rows[dependency]["status"] is TaskStatus.CANCELLED:
            report.change(
                f"it waits for {shown(references[dependency])}, which was cancelled, until somebody"
                " removes the dependency (HOLD).",
                at(dependent),
            )
    return list(edges)


def on_failure(status: TaskStatus) -> OnFailure:
    """How a dependency acts on a task with this status in the file.

    In the file the dependent task is to be done, although its dependency was cancelled. So it waits
    for a person's decision; with SKIP it would have been skipped.
    """
    return OnFailure.HOLD if status is TaskStatus.CANCELLED else OnFailure.SKIP


def cut_title(title: str, place: str, report: Report) -> tuple[str, str]:
    """A title that fits, and the full title if it had to be cut."""
    if len(title) <= TITLE_LENGTH:
        return title, ""
    report.change(
        f"its title has {len(title):,} characters and was cut after {TITLE_LENGTH - 1}; the"
        " description begins with all of it.",
        place,
    )
    return f"{title[: TITLE_LENGTH - 1]}…", title


@dataclass(slots=True)
class Issue:
    """A task of a format whose tasks are a flat list, in which each names its parent."""

    id: str
    place: str
    title: str
    texts: list[str]
    status: TaskStatus
    priority: int
    # What the format has besides, for the metadata.
    about: dict[str, Any]
    completed_at: datetime | None = None
    type: str | None = None
    acceptance_criteria: str | None = None
    estimated_seconds: int | None = None
    due_at: datetime | None = None
    parent: str | None = None
    dependencies: list[str] = field(default_factory=list)


def plan_of_issues(
    source: str, project: str, place: str, issues: Sequence[Issue], report: Report
) -> Plan:
    """The plan of a flat list of tasks. Of two with one id, the last is taken."""
    by_id: dict[str, Issue] = {}
    for issue in issues:
        if issue.id in by_id:
            report.leave_out(
                f"{shown(issue.id)} stands there twice, and only the last was taken.",
                by_id[issue.id].place,
            )
        by_id[issue.id] = issue
    kept = list(by_id.values())
    numbers = {issue.id: number for number, issue in enumerate(kept)}
    rows = [_row(source, issue, report) for issue in kept]
    parents = _parents(kept, numbers, report)
    references = [issue.id for issue in kept]
    named = [
        (number, other, numbers.get(other))
        for number, issue in enumerate(kept)
        for other in issue.dependencies
    ]
    edges = connect(named, references, parents, rows, lambda number: kept[number].place, report)
    hash = hashlib.sha256(
        canonical_json(
            [
                [reference, row | {"completed_at": str(row["completed_at"]), "due_at": None}]
                for reference, row in zip(references, rows, strict=True)
            ]
            + [[parents, edges]]
        )
    )
    return Plan(source, project, place, hash.hexdigest(), references, rows, parents, edges)


def _row(source: str, issue: Issue, report: Report) -> dict[str, Any]:
    title = " ".join(issue.title.split())
    refuse_unstorable([issue.id, title, issue.texts, issue.about], issue.place)
    title, cut = cut_title(title, issue.place, report)
    texts = [text.strip() for text in (cut, *issue.texts)]
    is_done = issue.status is TaskStatus.COMPLETED
    return {
        "title": title,
        "description": "\n\n".join(filter(None, texts)) or None,
        "status": issue.status,
        "blocked_reason": BlockedReason.MANUAL if issue.status is TaskStatus.BLOCKED else None,
        "priority": issue.priority,
        "completed_at": issue.completed_at if is_done else None,
        "type": issue.type,
        "acceptance_criteria": issue.acceptance_criteria,
        "estimated_seconds": issue.estimated_seconds,
        "due_at": issue.due_at,
        "task_metadata": {source: issue.about},
    }


def _parents(issues: Sequence[Issue], numbers: dict[str, int], report: Report) -> list[int | None]:
    """The parent of each task; those that do not exist, or would close a cycle, are left out."""
    parents: list[int | None] = [None] * len(issues)
    for number, issue in enumerate(issues):
        if not issue.parent:
            continue
        parent = numbers.get(issue.parent)
        reason = "there is no such task"
        above = parent
        while above is not None and above != number:
            above = parents[above]
        if above == number:
            parent, reason = None, "it is itself below this one"
        if parent is None:
            report.leave_out(
                f"the parent {quoted(issue.parent)} was left out, because {reason}.", issue.place
            )
        parents[number] = parent
    return parents
