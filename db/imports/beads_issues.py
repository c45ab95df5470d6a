"""Issues of beads, `.beads/issues.jsonl`: one object on each line.

The format is https://github.com/steveyegge/beads. Of the relations between issues, `blocks` becomes
a dependency and `parent-child` the parent; others are stored in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from db.imports.files import (
    NotImportable,
    Source,
    folder_name,
    kind,
    moment,
    opened,
    quoted,
    read_value,
    refuse_bad_name,
)
from db.imports.plans import Issue, Plan, plan_of_issues
from db.imports.report import Report
from db.tasks import TaskStatus
from db.text import composed

__all__ = ["opened", "read_plans"]

SOURCE = "beads"
STANDARD = (".beads", "issues.jsonl")

STATUSES = {
    "open": TaskStatus.PENDING,
    # Not IN_PROGRESS, because there is no attempt.
    "in_progress": TaskStatus.PENDING,
    "hooked": TaskStatus.PENDING,
    "blocked": TaskStatus.BLOCKED,
    "deferred": TaskStatus.BLOCKED,
    "pinned": TaskStatus.BLOCKED,
    "closed": TaskStatus.COMPLETED,
}
# The status of an issue that was deleted.
DELETED = "tombstone"
# In beads, 0 is the most urgent.
PRIORITIES = {0: 5, 1: 4, 2: 3, 3: 2, 4: 1}
MEDIUM = 3

BLOCKING = ("blocks",)
PARENT = "parent-child"

# The keys that form the description, with their headings.
TEXTS = {"description": "", "design": "Design", "notes": "Notes"}
COLUMNS = ("title", *TEXTS, "acceptance_criteria", "issue_type", "estimated_minutes")


def recognises(value: Any) -> bool:
    """Whether the first value of a file is an issue."""
    return isinstance(value, dict) and (
        {"id", "issue_type"} <= value.keys()
        or ({"id", "status", "created_at"} <= value.keys() and "number" not in value)
    )


def read_plans(source: Source, project: str | None, report: Report) -> Iterator[Plan]:
    """The issues of a file as one plan. Raises NotImportable."""
    name = composed(folder_name(source.path, STANDARD) if project is None else project)
    refuse_bad_name(name, "project")
    issues = []
    events = source.events()
    for number, event in enumerate(events, 1):
        place = f"issue {number}"
        value = read_value(events, event, place, report)
        if not isinstance(value, dict):
            raise NotImportable(f"{place}: it is {kind(value)}, not an object.")
        issue = _issue(value, place, report)
        if issue is not None:
            issues.append(issue)
    if not issues:
        raise NotImportable(f"{source.name} has no issue in it.")
    yield plan_of_issues(SOURCE, name, source.file, issues, report)


def _issue(value: dict[str, Any], place: str, report: Report) -> Issue | None:
    id = value.get("id")
    if not isinstance(id, str) or not id.strip():
        raise NotImportable(f"{place}: its id is {kind(id)}, not a text.")
    place = f"issue {id}"
    if value.get("status") == DELETED:
        report.leave_out("it was left out, because it was deleted (tombstone).", place)
        return None
    title = value.get("title")
    if not isinstance(title, str) or not title.strip():
        raise NotImportable(f"{place}: it has no title.")
    parent, awaited, others = _relations(value, place, report)
    about = {key: item for key, item in value.items() if key not in COLUMNS}
    if isinstance(about.get("dependencies"), list):
        about["dependencies"] = others
        if not others:
            del about["dependencies"]
    status = STATUSES.get(str(value.get("status", "open")))
    if status is None:
        report.change(
            f"the status {quoted(str(value['status']))} is unknown, so it is held (BLOCKED).", place
        )
        status = TaskStatus.BLOCKED
    minutes = value.get("estimated_minutes")
    is_minutes = isinstance(minutes, int) and 0 < minutes < 10_000_000
    return Issue(
        id=id,
        place=place,
        title=title,
        texts=[
            f"{heading}:\n{text}" if heading else text
            for key, heading in TEXTS.items()
            if isinstance(text := value.get(key), str) and text.strip()
        ],
        status=status,
        priority=_priority(value.get("priority"), place, report),
        about=about,
        completed_at=_time(value, "closed_at", place, report),
        type=_text(value.get("issue_type")),
        acceptance_criteria=_text(value.get("acceptance_criteria")),
        estimated_seconds=minutes * 60 if is_minutes else None,  # type: ignore[operator]
        due_at=_time(value, "due_at", place, report),
        parent=parent,
        dependencies=awaited,
    )


def _relations(
    value: dict[str, Any], place: str, report: Report
) -> tuple[str | None, list[str], list[Any]]:
    """The parent, what it waits for, and its other relations."""
    parent: str | None = _text(value.get("parent"))
    awaited: list[str] = []
    others: list[Any] = []
    relations = value.get("dependencies")
    for relation in relations if isinstance(relations, list) else []:
        if isinstance(relation, dict) and isinstance(other := relation.get("depends_on_id"), str):
            type = relation.get("type", "blocks")
            if type in BLOCKING:
                awaited.append(other)
                continue
            if type == PARENT and parent in (None, other):
                parent = other
                continue
            report.change(
                f"its relations of type {quoted(str(type))} stand in the metadata alone.", place
            )
        others.append(relation)
    return parent, awaited, others


def _priority(value: Any, place: str, report: Report) -> int:
    if value is None:
        return MEDIUM
    if isinstance(value, int | Decimal) and not isinstance(value, bool) and value in PRIORITIES:
        return PRIORITIES[int(value)]
    report.change(f"the priority {quoted(str(value))} is unknown, so it is 3 (medium).", place)
    return MEDIUM


def _time(value: dict[str, Any], key: str, place: str, report: Report) -> Any:
    if value.get(key) is None:
        return None
    time, note = moment(value[key])
    if time is None:
        report.change(f"its {key} {note}.", place)
    return time


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
