"""A changed plan that is imported again: what changed in the file is changed in its project.

Each imported task has in its metadata what the import wrote, as hashes. So three states are known:
the earlier file, the file, and the database. What did not change in the file is left as it is; what
changed in the file is written, unless it was changed in Troupe too. The status of a task that an
attempt was made at, or that ended in Troupe, is kept, unless the file ends the task. A task that is
no longer in the file is deleted if nothing was done with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update

from db import dependencies
from db.base import any_of, new_id
from db.communications import Communication
from db.dependencies import find_cycle
from db.imports.cycles import cycle_closing_edges
from db.imports.files import NotImportable, as_json, quoted, shown
from db.imports.plans import Plan, on_failure
from db.imports.report import Report
from db.interactions import HumanInteraction
from db.sessions import WriteSession
from db.tasks import ENDED, WAITING, OnFailure, Task, TaskDependency, TaskStatus
from db.text import canonical_json
from db.usage import UsageRecord
from db.writes import insert_many

# The columns that are merged each by itself.
FIELDS = (
    *("title", "description", "priority", "type", "acceptance_criteria", "estimated_seconds"),
    "due_at",
)
IN_WORDS = {"acceptance_criteria": "acceptance criteria", "estimated_seconds": "estimate"}
IN_WORDS["due_at"] = "due time"

Edge = tuple[UUID, UUID]


def written(plan: Plan) -> Iterator[dict[str, Any]]:
    """What the metadata of each task says of the import: its reference, hashes of its values."""
    keys = plan.keys
    dependencies: list[list[str]] = [[] for _ in plan.rows]
    for dependent, dependency in plan.edges:
        dependencies[dependent].append(keys[dependency])
    for place, row in enumerate(plan.rows):
        parent = plan.parents[place]
        yield {
            "source": plan.source,
            "reference": plan.references[place],
            "written": {name: _digest(row.get(name)) for name in (*FIELDS, "status")}
            | {"key": keys[place], "parent": None if parent is None else keys[parent]}
            | {"dependencies": dependencies[place]},
        }


def _digest(value: Any) -> str | None:
    """A short hash of a value."""
    if value is None:
        return None
    if isinstance(value, datetime):
        value = value.isoformat()
    return hashlib.sha256(canonical_json(value)).hexdigest()[:12]


async def merge(session: WriteSession, project_id: UUID, plan: Plan, report: Report) -> None:
    """Write what changed in a plan into its project, whose row is locked. Raises NotImportable."""
    tasks = (
        await session.scalars(
            select(Task).where(Task.project_id == project_id).order_by(Task.id).with_for_update()
        )
    ).all()
    edges = await session.execute(
        select(TaskDependency.dependent_id, TaskDependency.dependency_id)
        .join(Task, Task.id == TaskDependency.dependent_id)
        .where(Task.project_id == project_id)
    )
    await _Merge(session, plan, report, list(tasks), {(a, b) for a, b in edges}).run(project_id)


class _Merge:
    """The merge of a plan into the tasks and edges of its project."""

    def __init__(
        self,
        session: WriteSession,
        plan: Plan,
        report: Report,
        tasks: list[Task],
        edges: set[Edge],
    ) -> None:
        self._session = session
        self._plan = plan
        self._report = report
        self._tasks = {task.id: task for task in tasks}
        self._edges = edges
        self._keys = plan.keys
        self._references: dict[UUID, str] = {}
        known: dict[str, Task] = {}
        for task in tasks:
            origin = _origin(task)
            if origin.get("source") == plan.source and "reference" in origin:
                key = origin.get("written", {}).get("key", origin["reference"])
                self._references[task.id] = key
                known.setdefault(key, task)
        # The tasks of the plan by their numbers: those that exist, and the ids of all.
        self._known = [known.pop(key, None) for key in self._keys]
        self._ids = [new_id() if task is None else task.id for task in self._known]
        self._gone = list(known.values())
        self._bases = {task.id: _origin(task).get("written") for task in tasks}
        self._parents = {task.id: task.parent_task_id for task in tasks}
        self._ended: list[UUID] = []
        self._cancelled: list[UUID] = []

    async def run(self, project_id: UUID) -> None:
        """Change, add and remove tasks and edges, and count anew what each task waits for."""
        origins = list(written(self._plan))
        for place, task in enumerate(self._known):
            if task is not None:
                self._change(place, task, origins[place])
        # Added before others are moved below them.
        await self._add(project_id, origins)
        await self._session.flush()
        await self._change_edges()
        await self._remove()
        if find_cycle(self._parents, {}) is not None:
            raise NotImportable(
                f"{self._plan.place}: its subtasks, with those that were moved in Troupe, would be"
                " below themselves."
            )
        await dependencies.withdraw_requests(self._session, self._ended)
        if self._cancelled:
            await dependencies.ended_unsuccessfully(self._session, self._cancelled)
        await dependencies.recount(self._session, list(self._parents))

    def _at(self, reference: str, title: str) -> str:
        return f"{self._plan.place}, task {shown(reference)} {quoted(title)}"

    def _change(self, place: int, task: Task, origin: dict[str, Any]) -> None:
        """Change a task by what changed in the file."""
        row, at = self._plan.rows[place], self._at(self._plan.references[place], task.title)
        base: dict[str, Any] | None = _origin(task).get("written")
        values: dict[str, Any] = {}
        for name in FIELDS:
            new, current = row.get(name), getattr(task, name)
            if name not in row or new == current or _is_as_before(base, name, new):
                continue
            if base is None or base.get(name) == _digest(current):
                values[name] = new
            else:
                self._keep(at, f"its {_word(name)} was changed in Troupe too")
        changed = [_word(name) for name in values]
        status = self._status(task, row, base, at)
        if status is not None:
            values |= status
            changed.append(f"status ({status['status']})")
        if self._move(place, task, base, at):
            changed.append("parent")
        source = self._plan.source
        own = row["task_metadata"][source]
        if canonical_json(own) != canonical_json(task.task_metadata.get(source)) and not changed:
            changed.append("metadata")
        metadata = task.task_metadata | {source: own, "import": origin}
        task.change(**values, task_metadata=metadata)
        if changed:
            self._report.updated["tasks"] += 1
            self._report.step("Updated", f"{at}: its {', '.join(changed)}.")

    def _keep(self, at: str, reason: str) -> None:
        self._report.step("Kept", f"{at}: {reason}.")

    def _status(
        self, task: Task, row: dict[str, Any], base: dict[str, Any] | None, at: str
    ) -> dict[str, Any] | None:
        """The values for another status; None if it is not to change."""
        new: TaskStatus = row["status"]
        if _is_as_before(base, "status", new) or task.status is new:
            return None
        is_as_written = (
            task.status in WAITING if base is None else base.get("status") == _digest(task.status)
        )
        is_untouched = is_as_written and task.attempt_count == 0
        ends = new in ENDED and task.status in WAITING and task.current_attempt_id is None
        if not (is_untouched or ends):
            self._keep(at, f"its status stays {task.status}, because something was done with it")
            return None
        if new in ENDED:
            self._ended.append(task.id)
        if new is TaskStatus.CANCELLED:
            self._cancelled.append(task.id)
        completed_at = row["completed_at"] or func.now()
        if new is TaskStatus.PENDING and task.agent_id is not None:
            new = TaskStatus.ASSIGNED
        return {
            "status": new,
            "blocked_reason": row["blocked_reason"],
            "completed_at": completed_at if new is TaskStatus.COMPLETED else None,
        }

    def _move(self, place: int, task: Task, base: dict[str, Any] | None, at: str) -> bool:
        """Give a task another parent, if it has another one in the file."""
        number = self._plan.parents[place]
        reference = None if number is None else self._keys[number]
        id = None if number is None else self._ids[number]
        if id == task.parent_task_id or (base is not None and base.get("parent") == reference):
            return False
        current = task.parent_task_id
        before = None if current is None else self._references.get(current)
        if base is not None and base.get("parent") != before:
            self._keep(at, "its parent was changed in Troupe too")
            return False
        self._parents[task.id] = id
        return True

    async def _add(self, project_id: UUID, origins: list[dict[str, Any]]) -> None:
        """Add the tasks that do not exist yet, and move the others below their new parents."""
        new: list[dict[str, Any]] = []
        for place, known in enumerate(self._known):
            if known is not None:
                continue
            row, parent = self._plan.rows[place], self._plan.parents[place]
            id = self._ids[place]
            self._parents[id] = None if parent is None else self._ids[parent]
            new.append(
                row
                | {
                    "id": id,
                    "project_id": project_id,
                    "parent_task_id": self._parents[id],
                    "task_metadata": as_json(row["task_metadata"] | {"import": origins[place]}),
                }
            )
            at = self._at(self._plan.references[place], row["title"])
            self._report.step("Created", at)
        self._report.added["tasks"] += len(new)
        await insert_many(self._session, Task, new)
        for task in self._tasks.values():
            if self._parents[task.id] != task.parent_task_id:
                task.parent_task_id = self._parents[task.id]

    async def _change_edges(self) -> None:
        """Add the edges that are new in the file, and remove those that are no longer there."""
        wanted = {(self._ids[a], self._ids[b]): (a, b) for a, b in self._plan.edges}
        ids = {reference: id for id, reference in self._references.items()}
        before = {
            (task, ids[other])
            for task, base in self._bases.items()
            if base is not None
            for other in base.get("dependencies", ())
            if other in ids
        }
        removed = [edge for edge in self._edges & before if edge not in wanted]
        self._edges -= set(removed)
        # What was removed in Troupe since stays removed.
        new = [edge for edge in wanted if edge not in self._edges and edge not in before]
        order = {id: number for number, id in enumerate(self._parents)}
        parents = [None if above is None else order[above] for above in self._parents.values()]
        everything = [(order[a], order[b]) for a, b in (*self._edges, *new)]
        closing = set(cycle_closing_edges(parents, everything))
        added = []
        for number, edge in enumerate(new, len(self._edges)):
            dependent, dependency = wanted[edge]
            reference = shown(self._plan.references[dependency])
            at = self._at(self._plan.references[dependent], self._plan.rows[dependent]["title"])
            if number in closing:
                self._report.leave_out(
                    f"the dependency on {reference} was left out, because it closes a cycle with"
                    " what was added in Troupe.",
                    at,
                )
                continue
            added.append(edge)
            self._report.step("Created", f"{at}: its dependency on {reference}.")
        statuses = {self._ids[place]: row["status"] for place, row in enumerate(self._plan.rows)}
        rows = [
            {
                "dependent_id": a,
                "dependency_id": b,
                "on_failure": on_failure(statuses[b]),
            }
            for a, b in added
        ]
        await insert_many(self._session, TaskDependency, rows)
        for a, b in removed:
            await self._session.execute(
                delete(TaskDependency).where(
                    TaskDependency.dependent_id == a, TaskDependency.dependency_id == b
                )
            )
        if self._cancelled:
            # As for a new plan: what waits for it waits for a person's decision.
            await self._session.execute(
                update(TaskDependency)
                .where(
                    any_of(TaskDependency.dependency_id, self._cancelled),
                    any_of(TaskDependency.dependent_id, self._ids),
                    TaskDependency.on_failure == OnFailure.SKIP,
                )
                .values(on_failure=OnFailure.HOLD)
            )
        for a, b in removed:
            other = shown(self._references.get(b, str(b)))
            at = self._at(self._references.get(a, str(a)), self._tasks[a].title)
            self._report.step("Removed", f"{at}: its dependency on {other}.")
        self._report.added["dependencies"] += len(added)
        self._report.removed["dependencies"] += len(removed)
        self._edges |= set(added)

    async def _remove(self) -> None:
        """Delete tasks that are no longer in the file, if nothing was done with them."""
        if not self._gone:
            return
        used = await self._used([task.id for task in self._gone])
        children: dict[UUID, int] = {}
        for parent in self._parents.values():
            if parent is not None:
                children[parent] = children.get(parent, 0) + 1
        removed: list[UUID] = []
        # From below: a task with a subtask that is kept is kept too.
        for task in sorted(self._gone, key=self._depth, reverse=True):
            at = self._at(self._references[task.id], task.title)
            reason = self._reason_to_keep(task, used, children)
            if reason:
                self._keep(at, f"it is no longer in the file, but {reason}")
                continue
            above = self._parents.pop(task.id)
            if above is not None:
                children[above] -= 1
            removed.append(task.id)
            self._report.step("Removed", at)
        self._report.removed["tasks"] += len(removed)
        await self._session.execute(delete(Task).where(any_of(Task.id, removed)))
        for id in removed:
            self._session.expunge(self._tasks[id])

    def _reason_to_keep(self, task: Task, used: set[UUID], children: dict[UUID, int]) -> str:
        base = _origin(task).get("written")
        if children.get(task.id):
            return "it has subtasks"
        if task.attempt_count or task.status in (TaskStatus.COMPLETED, TaskStatus.IN_PROGRESS):
            return "it was worked on"
        if task.id in used:
            return "requests, messages or usage name it"
        if base is None or any(
            base.get(name) != _digest(getattr(task, name)) for name in (*FIELDS, "status")
        ):
            return "it was changed in Troupe"
        return ""

    def _depth(self, task: Task) -> int:
        depth, above = 0, self._parents.get(task.id)
        while above is not None and depth < len(self._parents):
            depth, above = depth + 1, self._parents.get(above)
        return depth

    async def _used(self, ids: list[UUID]) -> set[UUID]:
        """The tasks that requests, messages between agents or records of usage name."""
        found: set[UUID] = set()
        for model in (HumanInteraction, Communication, UsageRecord):
            column = model.task_id
            found.update(await self._session.scalars(select(column).where(any_of(column, ids))))
        return found


def _origin(task: Task) -> dict[str, Any]:
    """What the metadata of a task says of the import."""
    origin = task.task_metadata.get("import")
    return origin if isinstance(origin, dict) else {}


def _is_as_before(base: dict[str, Any] | None, name: str, value: Any) -> bool:
    """Whether the earlier file had this value."""
    return base is not None and base.get(name) == _digest(value)


def _word(name: str) -> str:
    return IN_WORDS.get(name, name)
