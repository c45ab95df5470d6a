"""Issues of beads, `.beads/issues.jsonl`: one object on each line.

The format is https://github.com/steveyegge/beads. Newer versions name the kind of a line `_type`,
and have lines for notes beside the issues. The lists that `bd list --json` prints are read too. Of
the relations between issues, `blocks` and `waits-for` become dependencies and `parent-child` the
parent; others are stored in the metadata.
"""

from __future__ import annotations

import re
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
# What older versions call it.
OLD_STANDARD = (".beads", "beads.jsonl")

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
# The type of a line with an issue, also of lines without a type.
ISSUE = "issue"
# The key of a list of issues in an object.
WRAPPED = "issues"
# In beads, 0 is the most urgent.
PRIORITIES = {0: 5, 1: 4, 2: 3, 3: 2, 4: 1}
MEDIUM = 3
# As the command prints it.
NAMED_PRIORITY = re.compile(r"[pP]?[0-4]")

BLOCKING = ("blocks", "waits-for")
PARENT = "parent-child"
# The keys of a relation: of the file, and of what the command prints for a single issue.
OTHER = ("depends_on_id", "id")
KIND = ("type", "dep_type", "dependency_type")

# The keys that form the description, with their headings.
TEXTS = {"description": "", "design": "Design", "notes": "Notes"}
COLUMNS = ("title", *TEXTS, "acceptance_criteria", "issue_type", "estimated_minutes")


def recognises(value: Any) -> bool:
    """Whether the first value of a file is a line of it, or an issue in a list."""
    if isinstance(value, dict) and isinstance(value.get(WRAPPED), list):
        value = next(iter(value[WRAPPED]), None)
    if not isinstance(value, dict) or "number" in value:
        return False
    return (
        value.get("_type") in ("issue", "memory")
        or {"id", "issue_type"} <= value.keys()
        or {"id", "status", "created_at"} <= value.keys()
        or ({"id", "title"} <= value.keys() and isinstance(value.get("priority"), int))
    )


def read_plans(source: Source, project: str | None, report: Report) -> Iterator[Plan]:
    """The issues of a file as one plan. Raises NotImportable."""
    standard = OLD_STANDARD if source.path.name == OLD_STANDARD[-1] else STANDARD
    name = composed(folder_name(source.path, standard) if project is None else project)
    refuse_bad_name(name, "project")
    issues = [
        issue
        for number, value in enumerate(_values(source, report), 1)
        if (issue := _issue(value, f"issue {number}", report)) is not None
    ]
    if not issues:
        raise NotImportable(f"{source.name} has no issue in it.")
    yield plan_of_issues(SOURCE, name, source.file, issues, report)


def _values(source: Source, report: Report) -> Iterator[Any]:
    """The lines of a file, or the items of its list."""
    events = source.events()
    number = 0
    for event in events:
        if event[0] in ("start_array", "end_array"):
            continue
        number += 1
        value = read_value(events, event, f"issue {number}", report)
        if isinstance(value, dict) and isinstance(value.get(WRAPPED), list):
            yield from value[WRAPPED]
        else:
            yield value


def _issue(value: Any, place: str, report: Report) -> Issue | None:
    if not isinstance(value, dict):
        raise NotImportable(f"{place}: it is {kind(value)}, not an object.")
    type = value.get("_type", ISSUE)
    if type != ISSUE:
        report.leave_out(f"its type is {quoted(str(type))}, so it was left out.", place)
        return None
    id = value.get("id")
    if isinstance(id, int) and not isinstance(id, bool):
        id = str(id)
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
    status = STATUSES.get(str(value.get("status") or "open").lower().replace("-", "_"))
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
        other = _first(relation, OTHER)
        if other is not None:
            type = _first(relation, KIND) or BLOCKING[0]
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


def _first(relation: Any, keys: tuple[str, ...]) -> str | None:
    """The first of the keys of a relation that has a text. A relation can be only an id."""
    if isinstance(relation, str) and keys == OTHER:
        return _text(relation)
    if not isinstance(relation, dict):
        return None
    return next((text for key in keys if (text := _text(relation.get(key))) is not None), None)


def _priority(value: Any, place: str, report: Report) -> int:
    if value is None:
        return MEDIUM
    if isinstance(value, str) and NAMED_PRIORITY.fullmatch(value.strip()):
        value = int(value.strip()[-1])
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
