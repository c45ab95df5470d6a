"""Plans from Task Master: every tag of a `tasks.json` becomes a project, every task a task.

The format is https://github.com/eyaltoledano/claude-task-master, `{tag: {tasks, metadata}}`, and
the older one without tags, `{tasks}`, which is read as the tag `master`. People and language models
write such files, so deviations with an obvious meaning are imported and reported; others are
refused with their place.

A tag is identified by the name of its project, its owner and a hash of its content, which are
stored in the project's metadata. Each project is written in a transaction of its own, so that an
interrupted import is completed by starting it again.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import func, select, text

from db import dependencies
from db.base import new_id
from db.engine import Database
from db.imports.cycles import cycle_closing_edges
from db.imports.files import (
    NotImportable,
    Progress,
    Source,
    as_json,
    kind,
    moment,
    no_progress,
    opened,
    quoted,
    read_value,
    refuse_bad_name,
    refuse_unstorable,
    shown,
    storing,
)
from db.imports.report import Report
from db.projects import Project, ProjectStatus
from db.scopes import Viewer
from db.sessions import ReadSession
from db.tasks import BlockedReason, OnFailure, Task, TaskDependency, TaskStatus
from db.text import canonical_json, composed, decimal_json
from db.writes import insert_many

OLDER_FORM = "master"

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

TITLE_LENGTH = 255

# Without statistics on the rows of this transaction, PostgreSQL's plan for `recount` takes a minute
# for 40,000 tasks; after ANALYZE it takes two seconds.
ANALYZE_FROM = 1_000


@dataclass(slots=True)
class _Task:
    """A task or subtask of the file."""

    fields: dict[str, Any]
    parent: _Task | None
    number: int
    reference: str
    subtasks: dict[str, _Task] = field(default_factory=dict)


class Plan:
    """A tag that was read: rows without ids, and edges between their indexes."""

    def __init__(self, tag: str, content: dict[str, Any], report: Report) -> None:
        self.tag = tag
        self.content = content
        self.place = f"tag {quoted(tag)}"
        self.rows: list[dict[str, Any]] = []
        self.parents: list[int | None] = []
        # (the task that waits, the task it waits for)
        self.edges: list[tuple[int, int]] = []
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
        self._connect()
        self.hash = hashlib.sha256(canonical_json(content)).hexdigest()

    def counts(self) -> dict[str, int]:
        """Its counts for the report."""
        return {"projects": 1, "tasks": len(self.rows), "dependencies": len(self.edges)}

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
            "task_metadata": as_json(
                {
                    "import": {"source": "taskmaster", "reference": task.reference},
                    "taskmaster": kept,
                }
            ),
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
        if len(title) <= TITLE_LENGTH:
            return title, ""
        self._report.change(
            f"its title has {len(title):,} characters and was cut after {TITLE_LENGTH - 1}; the"
            " description begins with all of it.",
            place,
        )
        return f"{title[: TITLE_LENGTH - 1]}…", title

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

    def _connect(self) -> None:
        """Turn dependencies into edges; leave out and report those that are not possible."""
        named = [(task, name) for task in self._tasks for name in self._dependencies(task)]
        edges: dict[tuple[int, int], int] = {}
        reasons: dict[int, str] = {}
        for place, (task, name) in enumerate(named):
            other = self._find(task, name) if name else None
            if not name:
                reasons[place] = "it names nothing"
            elif other is None:
                reasons[place] = "there is no such task"
            elif (task.number, other.number) in edges:
                reasons[place] = "it is named twice"
            elif task is other:
                reasons[place] = "a task cannot wait for itself"
            else:
                edges[task.number, other.number] = place
        places = list(edges.items())
        for closing in cycle_closing_edges(self.parents, list(edges)):
            (dependent, dependency), place = places[closing]
            del edges[dependent, dependency]
            waiting, awaited = self._tasks[dependent], self._tasks[dependency]
            reasons[place] = (
                f"{shown(awaited.reference)} waits for {shown(waiting.reference)} already,"
                " directly or by way of others"
            )
        for place, reason in sorted(reasons.items()):
            task, name = named[place]
            self._report.leave_out(
                f"the dependency on {shown(name) or 'null'} was left out, because {reason}.",
                self._at(task),
            )
        self.edges = list(edges)
        for edge in self.edges:
            self._report_cancelled_dependency(*edge)

    def _report_cancelled_dependency(self, dependent: int, dependency: int) -> None:
        waits = self.rows[dependent]["status"] in (TaskStatus.PENDING, TaskStatus.BLOCKED)
        if waits and self.rows[dependency]["status"] is TaskStatus.CANCELLED:
            self._report.change(
                f"it waits for {shown(self._tasks[dependency].reference)}, which was cancelled,"
                " until somebody removes the dependency (HOLD).",
                self._at(self._tasks[dependent]),
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


def read_plans(source: Source, report: Report) -> Iterator[Plan]:
    """The tags of a file, one by one. Raises NotImportable."""
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
            yield Plan(name, value, report)
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
            yield Plan(tag, value, report)
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


async def import_plan(
    database: Database,
    path: Path,
    *,
    owner: UUID | None,
    project: str | None = None,
    progress: Progress = no_progress,
) -> Report:
    """Import a Task Master plan; each tag becomes the project `<project or folder>/<tag>`.

    `progress` is called with the work done and the total. Raises NotImportable before anything was
    added, unless the file or its projects change during the import.
    """
    prefix = _folder(path) if project is None else project
    refuse_bad_name(prefix, "project")
    report = Report()
    found: Counter[str] = Counter()
    missing = 0
    with opened(path, progress) as source:
        async with database.read() as session:
            imported = await _imported(session, owner)
        for plan in read_plans(source, report):
            name = composed(f"{prefix}/{plan.tag}")
            refuse_bad_name(name, "project")
            found.update(plan.counts())
            if (name, plan.hash) not in imported:
                missing += 1
                async with database.read() as session:
                    await _is_imported(session, name, owner, plan)
        if not missing:
            report.already_there = found
        else:
            source.second_pass()
            for plan in read_plans(source, Report()):
                name = composed(f"{prefix}/{plan.tag}")
                added = False
                if (name, plan.hash) not in imported:
                    source.refuse_change()
                    with storing(plan.place):
                        added = await _write(database, name, owner, plan, source.file)
                (report.added if added else report.already_there).update(plan.counts())
        source.finish()
    return report


def _folder(path: Path) -> str:
    """The name of the file's folder, or in the root folder that of the file itself."""
    return os.path.basename(os.path.dirname(os.path.abspath(path))) or path.stem


ORIGIN = Project.project_metadata["import"]


async def _imported(session: ReadSession, owner: UUID | None) -> set[tuple[str, str]]:
    """The imported plans by name and hash, those of renamed projects included."""
    found = await session.execute(
        select(ORIGIN["name"].astext, ORIGIN["hash"].astext).where(
            Project.owner_id.is_not_distinct_from(owner),
            ORIGIN["source"].astext == "taskmaster",
        )
    )
    return {(name, hash) for name, hash in found}


async def _is_imported(session: ReadSession, name: str, owner: UUID | None, plan: Plan) -> bool:
    """Whether the plan was imported. Raises NotImportable if another project has its name."""
    found = await session.execute(
        select(ORIGIN["name"].astext, ORIGIN["hash"].astext).where(
            Project.name == name, Project.owner_id.is_not_distinct_from(owner)
        )
    )
    projects = [tuple(row) for row in found]
    if (name, plan.hash) in projects:
        return True
    if projects:
        raise NotImportable(
            f"{plan.place}: there is a project {quoted(name)} already, with another content."
            " Import this one under another name with --project, or delete the old project first."
        )
    return False


async def _write(database: Database, name: str, owner: UUID | None, plan: Plan, file: str) -> bool:
    """Add the project with its tasks, unless it exists. Returns whether it was added."""
    async with database.write(Viewer(is_administrator=True)) as session:
        # A large plan may take longer than a request may, and imports wait for each other.
        await session.execute(text("SET LOCAL statement_timeout = '10min'"))
        await session.execute(text("SET LOCAL lock_timeout = '10min'"))
        # After five tags PostgreSQL would use a generic plan for `recount`, which scans the tasks
        # of all projects.
        await session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        key = func.hashtextextended(f"import of a plan: {owner}: {name}", 0)
        await session.execute(select(func.pg_advisory_xact_lock(key)))
        if await _is_imported(session, name, owner, plan):
            return False
        origin = {
            "source": "taskmaster",
            "file": file,
            "tag": plan.tag,
            "name": name,
            "hash": plan.hash,
        }
        about = {key: value for key, value in plan.content.items() if key != "tasks"}
        metadata = about.get("metadata")
        description = metadata.get("description") if isinstance(metadata, dict) else None
        project = await Project.create(
            session,
            name=name,
            owner_id=owner,
            status=ProjectStatus.IN_PROGRESS,
            description={"text": description} if isinstance(description, str) else None,
            project_metadata=as_json({"import": origin, "taskmaster": about}),
        )
        ids = [new_id() for _ in plan.rows]
        rows = [
            row
            | {
                "id": id,
                "project_id": project.id,
                "parent_task_id": None if parent is None else ids[parent],
            }
            for row, id, parent in zip(plan.rows, ids, plan.parents, strict=True)
        ]
        edges = [
            {
                "dependent_id": ids[dependent],
                "dependency_id": ids[dependency],
                # In the file the task is to be done, although its dependency was cancelled. So it
                # waits for a person's decision; with SKIP it would have been skipped.
                "on_failure": OnFailure.HOLD
                if plan.rows[dependency]["status"] is TaskStatus.CANCELLED
                else OnFailure.SKIP,
            }
            for dependent, dependency in plan.edges
        ]
        await insert_many(session, Task, rows)
        await insert_many(session, TaskDependency, edges)
        if len(rows) >= ANALYZE_FROM:
            await session.execute(text("ANALYZE tasks, task_dependencies"))
        await dependencies.recount(session, ids)
    return True
