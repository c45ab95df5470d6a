"""Plans from Task Master: every tag of a `tasks.json` becomes a project, every task a task.

The format is https://github.com/eyaltoledano/claude-task-master, `{tag: {tasks, metadata}}`, and
the older one without tags, `{tasks}`, which is read as the tag `master`. People and language models
write such files, so deviations with an obvious meaning are imported and reported; others are
refused with their place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

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
    refuse_unstorable,
    shown,
)
from db.imports.plans import TITLE_LENGTH, Plan, connect, cut_title
from db.imports.report import Report
from db.tasks import BlockedReason, TaskStatus
from db.text import canonical_json, composed, decimal_json

__all__ = ["SOURCE", "opened", "read_plans"]

SOURCE = "taskmaster"
OLDER_FORM = "master"
# Where Task Master itself writes its plan, in the folder of a repository.
STANDARD = (".taskmaster", "tasks", "tasks.json")

STATUSES = {
    "done": TaskStatus.COMPLETED,
    "completed": TaskStatus.COMPLETED,
    "cancelled": TaskStatus.CANCELLED,
    "canceled": TaskStatus.CANCELLED,
    "pending": TaskStatus.PENDING,
    # Not IN_PROGRESS, because there is no attempt.
    "in-progress": TaskStatus.PENDING,
    "review": TaskStatus.BLOCKED,
    "deferred": TaskStatus.BLOCKED,
    "blocked": TaskStatus.BLOCKED,
}
# The keys of other programs for the title and the status of a task, as `_plain` normalizes them.
OTHER_TITLES = (
    *("name", "label", "taskname", "task", "text", "content", "summary", "subject", "todo"),
    "command",
)
OTHER_STATUSES = ("state", "completed", "complete", "done", "finished", "checked", "closed")
PRIORITIES = {"critical": 5, "high": 5, "medium": 3, "low": 1}

# The keys that form the description, with their headings.
TEXTS = {"description": "", "details": "Details", "testStrategy": "Test strategy"}

# The keys of Task Master itself.
OWN_KEYS = frozenset(
    (
        *("id", "title", "description", "details", "testStrategy", "status", "priority"),
        *("dependencies", "subtasks", "updatedAt", "previousStatus", "isSubtask"),
    )
)


@dataclass(slots=True)
class _Task:
    """A task or subtask of the file."""

    fields: dict[str, Any]
    parent: _Task | None
    number: int
    reference: str
    subtasks: dict[str, _Task] = field(default_factory=dict)


class _Tag:
    """A tag that was read."""

    def __init__(self, tag: str, content: dict[str, Any], report: Report) -> None:
        self.tag = tag
        self.content = content
        self.place = f"tag {quoted(tag)}"
        self.rows: list[dict[str, Any]] = []
        self.parents: list[int | None] = []
        self._report = report
        self._tasks: list[_Task] = []
        self._top: dict[str, _Task] = {}
        self._by_reference: dict[str, _Task] = {}

        about = {key: value for key, value in content.items() if key != "tasks"}
        refuse_unstorable(tag, self.place)
        refuse_unstorable(about, self.place)
        _refuse_other_formats(content["tasks"], self.place)
        self._collect(content["tasks"], None)
        for task in self._tasks:
            self.parents.append(None if task.parent is None else task.parent.number)
            self.rows.append(self._row(task))
        self.edges = self._connect()

    def plan(self, project: str) -> Plan:
        """The tag as a plan of the project."""
        about = {key: value for key, value in self.content.items() if key != "tasks"}
        metadata = about.get("metadata")
        description = metadata.get("description") if isinstance(metadata, dict) else None
        return Plan(
            source=SOURCE,
            project=project,
            place=self.place,
            hash=hashlib.sha256(canonical_json(self.content)).hexdigest(),
            references=[task.reference for task in self._tasks],
            rows=self.rows,
            parents=self.parents,
            edges=self.edges,
            origin={"tag": self.tag},
            about=about,
            description=description if isinstance(description, str) else None,
        )

    def _at(self, task: _Task) -> str:
        return f"{self.place}, task {shown(task.reference)}"

    def _collect(self, tasks: Any, parent: _Task | None) -> None:
        """Add the tasks of a list, each followed by its subtasks."""
        where = self.place if parent is None else self._at(parent)
        what = "tasks" if parent is None else "subtasks"
        if tasks is None and parent is not None:
            return
        if not isinstance(tasks, list):
            raise NotImportable(f'{where}: "{what}" is {kind(tasks)}, not a list.')
        prefix = "" if parent is None else f"{parent.reference}."
        siblings = self._top if parent is None else parent.subtasks
        ids = [
            self._id(item.get("id"), f"{where}, number {number} of its {what}", prefix)
            if isinstance(item, dict)
            else None
            for number, item in enumerate(tasks, 1)
        ]
        taken = {id for id in ids if id is not None}
        seen: set[str] = set()
        for place, (item, id) in enumerate(zip(tasks, ids, strict=True), 1):
            if isinstance(item, str):
                item = {"title": item}
            elif not isinstance(item, dict):
                raise NotImportable(
                    f"{where}: number {place} of its {what} is {kind(item)}, not an object."
                )
            repeated = id in seen
            own = str(place) if id is None or repeated else id
            task = _Task(item, parent, len(self._tasks), prefix + own)
            self._tasks.append(task)
            if repeated:
                self._report.change(
                    f"its id {shown(str(id))} is that of another before it, so it goes by its"
                    " place.",
                    self._at(task),
                )
            if own == id or own not in taken:
                siblings[own] = task
                self._by_reference.setdefault(task.reference, task)
            if id is not None:
                seen.add(id)
            self._collect(item.get("subtasks"), task)

    @staticmethod
    def _id(value: Any, place: str, prefix: str = "") -> str | None:
        if isinstance(value, str):
            # Some programs write the whole reference, 3.2, into the id of a subtask.
            return value.strip().removeprefix(prefix) or None
        if value is None:
            return None
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            return str(value).removeprefix(prefix)
        raise NotImportable(f"{place}: the id is {kind(value)}, not a number or a text.")

    def _row(self, task: _Task) -> dict[str, Any]:
        fields, place = task.fields, self._at(task)
        kept = {
            key: value for key, value in fields.items() if key not in ("subtasks", "dependencies")
        }
        refuse_unstorable(kept, place)
        title, cut = self._title(fields, place)
        status = self._status(task)
        for key, value in kept.items():
            if key not in OWN_KEYS and _may_be_status(key, value):
                written = shown(orjson.dumps(value, default=decimal_json).decode())
                self._report.change(
                    f"it has {quoted(key)}: {written}, which is not read; the task is {status}.",
                    place,
                )
        kept.pop("title", None)
        description = [cut]
        for key, heading in TEXTS.items():
            prose = _prose(fields.get(key))
            if prose is None:
                self._report.change(
                    f"its {key} is {kind(fields[key])}, so it stands in the metadata.", place
                )
                continue
            kept.pop(key, None)
            description.append(f"{heading}:\n{prose}" if heading and prose.strip() else prose)
        return {
            "title": title,
            "description": "\n\n".join(part for part in description if part.strip()) or None,
            "status": status,
            "blocked_reason": BlockedReason.MANUAL if status is TaskStatus.BLOCKED else None,
            "priority": self._priority(task),
            "completed_at": self._completed_at(task) if status is TaskStatus.COMPLETED else None,
            "task_metadata": {SOURCE: kept},
        }

    def _title(self, fields: dict[str, Any], place: str) -> tuple[str, str]:
        """The title, and the full title if it had to be cut."""
        title = _prose(fields.get("title"))
        if title is None:
            raise NotImportable(f"{place}: the title is {kind(fields['title'])}, not a text.")
        title = title.strip()
        if not title:
            texts = "\n".join(_prose(fields.get(key)) or "" for key in TEXTS).strip()
            if not texts:
                raise NotImportable(f"{place}: it has neither a title nor a description.")
            self._report.change("it has no title; its description begins like this one.", place)
            return texts.splitlines()[0][:TITLE_LENGTH], ""
        return cut_title(title, place, self._report)

    def _status(self, task: _Task) -> TaskStatus:
        value, place = task.fields.get("status"), self._at(task)
        if value is not None and not isinstance(value, str):
            raise NotImportable(f"{place}: the status is {kind(value)}, not a text.")
        if value is None or not value.strip():
            if task.parent is None:
                return TaskStatus.PENDING
            # A subtask without a status has that of its parent.
            inherited = TaskStatus(self.rows[task.parent.number]["status"])
            if inherited is not TaskStatus.PENDING:
                self._report.change(
                    f"it has no status of its own, so it is {inherited}, as what it is a part of.",
                    place,
                )
            return inherited
        status = _known_status(value)
        if status is None:
            # BLOCKED, so that no agent starts it before a person has decided.
            self._report.change(
                f"the status {quoted(value)} is unknown, so it is held (BLOCKED).", place
            )
            return TaskStatus.BLOCKED
        return status

    def _completed_at(self, task: _Task) -> datetime | None:
        """The time of the last change, because Task Master does not change completed tasks."""
        value = task.fields.get("updatedAt")
        if value is None:
            return None
        time, note = moment(value)
        if note:
            rest = ", so it is not known when it was completed" if time is None else ""
            self._report.change(f"its updatedAt {note}{rest}.", self._at(task))
        return time

    def _priority(self, task: _Task) -> int:
        value = task.fields.get("priority")
        if value is None:
            # A subtask has the priority of its parent, as in Task Master.
            return 3 if task.parent is None else int(self.rows[task.parent.number]["priority"])
        if isinstance(value, str) and value.strip().lower() in PRIORITIES:
            return PRIORITIES[value.strip().lower()]
        if isinstance(value, dict | list | bool):
            raise NotImportable(f"{self._at(task)}: the priority is {kind(value)}, not a text.")
        self._report.change(
            f"the priority {quoted(str(value))} is unknown, so it is 3 (medium).", self._at(task)
        )
        return 3

    def _connect(self) -> list[tuple[int, int]]:
        """The dependencies that are possible."""
        named = []
        for task in self._tasks:
            for name in self._dependencies(task):
                other = self._find(task, name) if name else None
                named.append((task.number, name, None if other is None else other.number))
        references = [task.reference for task in self._tasks]
        return connect(
            named,
            references,
            self.parents,
            self.rows,
            lambda number: self._at(self._tasks[number]),
            self._report,
        )

    def _dependencies(self, task: _Task) -> Iterator[str]:
        named = task.fields.get("dependencies")
        if named is None:
            return
        if isinstance(named, str):
            named = named.split(",") if named.strip() else []
        elif isinstance(named, int | Decimal) and not isinstance(named, bool):
            named = [named]
        elif not isinstance(named, list):
            raise NotImportable(
                f'{self._at(task)}: "dependencies" is {kind(named)}, not a list of ids.'
            )
        refuse_unstorable({"dependencies": named}, self._at(task))
        for number, value in enumerate(named, 1):
            yield self._id(value, f"{self._at(task)}, number {number} of its dependencies") or ""

    def _find(self, task: _Task, name: str) -> _Task | None:
        """The task that a dependency names: a sibling, a subtask of an ancestor, or a reference."""
        above = task.parent
        while above is not None:
            if name in above.subtasks:
                return above.subtasks[name]
            above = above.parent
        return self._top.get(name) or self._by_reference.get(name)


def _known_status(word: str) -> TaskStatus | None:
    return STATUSES.get("-".join(word.lower().replace("_", " ").split()))


def _may_be_status(key: str, value: Any) -> bool:
    """Whether a key may hold the status of a task, by its name or its value."""
    if isinstance(value, str) and _known_status(value) is not None:
        return True
    return isinstance(value, bool) or (value is not None and _plain(key) in OTHER_STATUSES)


def _plain(key: str) -> str:
    """A key without its spelling: isDone, is_done and Done become done."""
    return key.lower().replace("_", "").replace("-", "").removeprefix("is")


def _prose(value: Any) -> str | None:
    """A text, or a number or list of lines as a text; None for anything else."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    return None


def _refuse_other_formats(tasks: Any, place: str) -> None:
    """Raise NotImportable for tasks of another program, which would be imported incompletely."""
    if not isinstance(tasks, list):
        return
    so = "so this is no Task Master plan, whose tasks have an id, a title and a status."
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict):
            continue
        for expected, others in (("title", OTHER_TITLES), ("status", OTHER_STATUSES)):
            if _has(task, expected):
                continue
            named = (key for key in task if key != expected and task[key] is not None)
            found = next((key for key in named if _plain(key) in (expected, *others)), None)
            if found is not None:
                where = f"{place}, number {number} of its tasks"
                raise NotImportable(f'{where}: it has {quoted(found)} and no "{expected}", {so}')
    if all(isinstance(task, str) for task in tasks):
        raise NotImportable(f"{place}: its tasks are texts, {so}")
    if all(
        isinstance(task, dict) and _has(task, "description") and not _has(task, "title")
        for task in tasks
    ):
        raise NotImportable(f"{place}: its tasks have descriptions and no titles, {so}")


def _has(task: dict[str, Any], key: str) -> bool:
    return bool((_prose(task.get(key)) or "").strip())


def _is_list_of_tasks(tag: str, value: Any) -> bool:
    """Whether it is a tag whose value is the list of tasks itself."""
    return isinstance(value, list) and (
        tag == OLDER_FORM
        or (
            bool(value)
            and all(isinstance(item, dict) and {"id", "title"} <= item.keys() for item in value)
        )
    )


def read_plans(source: Source, project: str | None, report: Report) -> Iterator[Plan]:
    """The tags of a file, one by one, each as `<project>/<tag>`. Raises NotImportable."""
    prefix = folder_name(source.path, STANDARD) if project is None else project
    refuse_bad_name(prefix, "project")
    for tag in _read_tags(source, report):
        yield tag.plan(composed(f"{prefix}/{tag.tag}"))


def _read_tags(source: Source, report: Report) -> Iterator[_Tag]:
    events = source.events()
    event, _ = next(events, ("nothing", None))
    form = 'a Task Master plan is an object with its tags, {"master": {"tasks": […]}}'
    if event != "start_map":
        what = "a list" if event == "start_array" else "a single value"
        raise NotImportable(f"{source.name} is not a plan: it holds {what}, and {form}.")
    seen: set[str] = set()
    older: list[Any] | None = None
    others: dict[str, Any] = {}
    any_task = False
    for event, tag in events:
        if event == "end_map":
            break
        value = read_value(events, next(events), f"tag {quoted(tag)}", report)
        if tag == "tasks" and isinstance(value, list):
            name, older = OLDER_FORM, value
        elif isinstance(value, dict) and "tasks" in value:
            name = tag
        else:
            if tag in others:
                raise NotImportable(f"{source.name} has {quoted(tag)} twice.")
            others[tag] = value
            continue
        _refuse_bad_tag(source, name, seen)
        if value is older:
            continue
        if _has_tasks(name, value, report):
            any_task = True
            yield _Tag(name, value, report)
    if next(events, None) is not None:
        raise NotImportable(f"{source.name} is not a plan: more follows after the end of it.")
    if older is not None:
        others = {OLDER_FORM: others | {"tasks": older}}
    else:
        # Only now is it certain that the file does not have the older form.
        for tag in [tag for tag in others if _is_list_of_tasks(tag, others[tag])]:
            _refuse_bad_tag(source, tag, seen)
            others[tag] = {"tasks": others[tag]}
    if not seen:
        raise NotImportable(f"{source.name} is not a plan: it has no tag with tasks, and {form}.")
    for tag, value in others.items():
        if tag not in seen:
            report.leave_out(
                f"{quoted(tag)} at the top of the file was left out, because it is not a tag."
            )
        elif _has_tasks(tag, value, report):
            any_task = True
            yield _Tag(tag, value, report)
    if not any_task:
        raise NotImportable(f"{source.name} has no task in it.")
    if source.has_mark:
        report.change(f"{source.name} begins with a byte order mark, which was skipped.")


def _refuse_bad_tag(source: Source, tag: str, seen: set[str]) -> None:
    if not tag.strip():
        raise NotImportable(f"{source.name} has a tag without a name.")
    if tag in seen:
        raise NotImportable(f"{source.name} has the tag {quoted(tag)} twice.")
    seen.add(tag)


def _has_tasks(tag: str, content: dict[str, Any], report: Report) -> bool:
    """Whether a tag has any tasks. A tag without tasks is left out."""
    if content["tasks"] == []:
        report.leave_out(f"tag {quoted(tag)} was left out, because it has no tasks.")
        return False
    return True
