"""Issues of GitHub, as its REST API or `gh issue list --json …` writes them.

A file has a list of issues, several lists (`gh api --paginate`), one issue on each line, the result
of a search, or an answer of the GraphQL API. The programs write the same with other keys:
`state_reason` and `stateReason`. Dependencies and parents are those that the file names as such
(`blockedBy`, `parent`, `subIssues`); texts such as “depends on #12” are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from db.imports.files import (
    NotImportable,
    Source,
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

SOURCE = "github"

# The reasons of a closed issue that nothing was done for.
NOT_DONE = ("notplanned", "duplicate")
# In the names of labels, such as `priority: high` or `P1`.
LABEL = re.compile(r"(?:priority|prio)?[\s:/_-]*(critical|urgent|high|medium|normal|low|p[0-4])")
PRIORITIES = {
    **dict.fromkeys(("critical", "urgent", "high", "p0"), 5),
    "p1": 4,
    **dict.fromkeys(("medium", "normal", "p2"), 3),
    "p3": 2,
    **dict.fromkeys(("low", "p4"), 1),
}
MEDIUM = 3
ADDRESS = re.compile(r"/(?:repos/)?([^/]+/[^/]+)/(?:issues|pull)/(\d+)$")
# The keys of the address of an issue.
ADDRESSES = ("html_url", "url")
# Where lists of issues are in other objects: those of a search, and of answers of GraphQL.
INSIDE = (
    *("items", "data", "repository", "organization", "search", "issues"),
    *("nodes", "edges", "node"),
)


def recognises(value: Any) -> bool:
    """Whether the first value of a file is an issue, or has a list of issues in it."""
    issue = next(_issues(value), None)
    return isinstance(issue, dict) and _is_issue(issue)


def _is_issue(value: dict[str, Any]) -> bool:
    return "title" in value and (
        "number" in value or ("state" in value and _address(value) is not None)
    )


def _issues(value: Any) -> Iterator[Any]:
    """The issues in a value: itself, the items of a list, or those that an answer has inside."""
    if isinstance(value, list):
        for item in value:
            yield from _issues(item)
    elif isinstance(value, dict) and not _is_issue(value):
        inside = [value[key] for key in INSIDE if isinstance(value.get(key), dict | list)]
        for item in inside:
            yield from _issues(item)
        if not inside:
            yield value
    else:
        yield value


def read_plans(source: Source, project: str | None, report: Report) -> Iterator[Plan]:
    """The issues of a file as one plan, named after their repository. Raises NotImportable."""
    values = []
    for number, value in enumerate(_values(source, report), 1):
        if not isinstance(value, dict):
            raise NotImportable(f"issue {number}: it is {kind(value)}, not an object.")
        values.append(value)
    repositories = list(dict.fromkeys(filter(None, map(_repository, values))))
    main = repositories[0] if repositories else None
    name = composed(project or (main or source.path.stem).rpartition("/")[2])
    refuse_bad_name(name, "project")
    issues = [
        issue
        for number, value in enumerate(values, 1)
        if (issue := _issue(value, f"issue {number}", main, report)) is not None
    ]
    if not issues:
        raise NotImportable(f"{source.name} has no issue in it.")
    below = {
        _name(child, main): issue.id
        for issue, value in _matched(issues, values, main)
        for child in _listed(value, "subIssues", "sub_issues")
    }
    for issue in issues:
        issue.parent = issue.parent or below.get(issue.id)
    yield plan_of_issues(SOURCE, name, source.file, issues, report)


def _values(source: Source, report: Report) -> Iterator[Any]:
    """The issues of a file, wherever its lists begin."""
    events = source.events()
    number = 0
    for event in events:
        if event[0] not in ("start_array", "end_array"):
            number += 1
            yield from _issues(read_value(events, event, f"issue {number}", report))


def _matched(
    issues: list[Issue], values: list[dict[str, Any]], main: str | None
) -> Iterator[tuple[Issue, dict[str, Any]]]:
    by_id = {issue.id: issue for issue in issues}
    for value in values:
        issue = by_id.get(_name(value, main))
        if issue is not None:
            yield issue, value


def _issue(value: dict[str, Any], place: str, main: str | None, report: Report) -> Issue | None:
    number = _number(value)
    if not isinstance(number, int):
        raise NotImportable(
            f"{place}: its number is {kind(number)}, not a number; of `gh issue list`, --json must"
            " name number, title and state."
        )
    id = _name(value, main)
    place = f"issue #{number}" if id == str(number) else f"issue {id}"
    is_pull = value.get("pull_request") is not None or value.get("__typename") == "PullRequest"
    if is_pull or any("/pull/" in str(value.get(key)) for key in ADDRESSES):
        report.leave_out("it was left out, because it is a pull request.", place)
        return None
    title = value.get("title")
    if not isinstance(title, str) or not title.strip():
        raise NotImportable(f"{place}: it has no title.")
    status = _status(value, place, report)
    closed = _first(value, "closedAt", "closed_at")
    time, note = (None, "") if closed is None else moment(closed)
    if note and time is None:
        report.change(f"the time when it was closed {note}.", place)
    parent = _parent(value)
    body = value.get("body")
    type = _first(value, "issueType", "type")
    return Issue(
        id=id,
        place=place,
        title=title,
        texts=[body] if isinstance(body, str) else [],
        status=status,
        priority=_priority(value),
        about={key: item for key, item in value.items() if key not in ("title", "body")},
        completed_at=time,
        type=type.get("name") if isinstance(type, dict) else None,
        due_at=_due(value, place, report),
        parent=None if parent is None else _name(parent, main),
        dependencies=[_name(other, main) for other in _listed(value, "blockedBy", "blocked_by")],
    )


def _parent(value: dict[str, Any]) -> dict[str, Any] | None:
    """The parent; the REST API has only its address."""
    address = value.get("parent_issue_url")
    parent = {"url": address} if isinstance(address, str) else value.get("parent")
    return parent if isinstance(parent, dict) and _number(parent) is not None else None


def _due(value: dict[str, Any], place: str, report: Report) -> datetime | None:
    """The day that its milestone is due."""
    milestone = value.get("milestone")
    due = _first(milestone, "dueOn", "due_on") if isinstance(milestone, dict) else None
    if due is None:
        return None
    time, note = moment(due)
    if time is None:
        report.change(f"the day that its milestone is due {note}.", place)
    return time


def _status(value: dict[str, Any], place: str, report: Report) -> TaskStatus:
    state = str(value.get("state") or ("closed" if value.get("closed") else "open")).lower()
    if state == "open":
        return TaskStatus.PENDING
    if state != "closed":
        report.change(f"the state {quoted(state)} is unknown, so it is held (BLOCKED).", place)
        return TaskStatus.BLOCKED
    reason = str(_first(value, "stateReason", "state_reason") or "").lower().replace("_", "")
    return TaskStatus.CANCELLED if reason in NOT_DONE else TaskStatus.COMPLETED


def _priority(value: dict[str, Any]) -> int:
    """The highest priority that a label names."""
    found = []
    labels = value.get("labels")
    names = labels if isinstance(labels, list) else _listed(value, "labels")
    for label in names:
        name = label.get("name") if isinstance(label, dict) else label
        match = LABEL.fullmatch(name.strip().lower()) if isinstance(name, str) else None
        if match:
            found.append(PRIORITIES[match[1]])
    return max(found, default=MEDIUM)


def _first(value: dict[str, Any], *keys: str) -> Any:
    return next((value[key] for key in keys if value.get(key) is not None), None)


def _listed(value: dict[str, Any], *keys: str) -> list[dict[str, Any]]:
    """The objects of a list, which is itself or as `nodes` under one of the keys."""
    found = _first(value, *keys)
    if isinstance(found, dict):
        found = found.get("nodes")
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _repository(value: dict[str, Any]) -> str | None:
    """The owner and the name of the repository of an issue, by its address."""
    address = _address(value)
    return None if address is None else address[1]


def _address(value: dict[str, Any]) -> re.Match[str] | None:
    matches = (ADDRESS.search(str(value.get(key, ""))) for key in ADDRESSES)
    return next(filter(None, matches), None)


def _number(value: dict[str, Any]) -> Any:
    """The number of an issue, which is also the end of its address."""
    if "number" in value:
        return value["number"]
    address = _address(value)
    return None if address is None else int(address[2])


def _name(value: dict[str, Any], main: str | None) -> str:
    """The number of an issue, after the name of its repository if that is another one."""
    repository = _repository(value)
    number = str(_number(value))
    return number if repository in (None, main) else f"{repository}#{number}"
