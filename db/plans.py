"""Plans: many tasks at once, with the edges between them, all or nothing.

Within a plan, tasks and agents are named by references of the caller's own; whatever is not a
reference of the plan is the id of what exists already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.agents import Agent
from db.base import CRUD, any_of, insert_many, new_id
from db.dependencies import find_cycle, recount, refuse_cycle
from db.engine import WriteSession
from db.errors import AlreadyExists, CycleDetected, DomainError, Invalid, Path, Rejected
from db.projects import Project
from db.tasks import OnFailure, Task, TaskDependency, TaskStatus

Row = TypeVar("Row", bound=CRUD)


@dataclass
class PlannedTask:
    """A task of a plan: the values of its columns, and what it refers to."""

    values: dict[str, Any]
    reference: str | None = None
    parent: str | None = None
    agent: str | None = None
    depends_on: Sequence[tuple[str, OnFailure]] = field(default_factory=list)


def _number(
    references: Sequence[str | None], noun: str, at: Path, faults: list[DomainError]
) -> dict[str, int]:
    """The place in the plan of everything that has a reference."""
    places: dict[str, int] = {}
    for place, reference in enumerate(references):
        if reference is None:
            continue
        if reference in places:
            fault = f"The reference {reference!r} is that of an earlier {noun} already."
            faults.append(Invalid(fault, (*at, place, "reference")))
        else:
            places[reference] = place
    return places


async def _existing(
    session: AsyncSession, model: type[Row], project: Project, names: set[str]
) -> dict[str, UUID]:
    """Which of the names are ids of rows of the project."""
    ids: dict[UUID, str] = {}
    for name in names:
        try:
            ids[UUID(name)] = name
        except ValueError:
            continue
    if not ids:
        return {}
    of_project = model.project_id == project.id  # type: ignore[attr-defined]
    found = await session.scalars(select(model.id).where(any_of(model.id, ids), of_project))
    return {ids[id]: id for id in found}


async def add_tasks(
    session: AsyncSession,
    project: Project,
    planned: Sequence[PlannedTask],
    agents: Mapping[str, UUID] | None = None,
    at: Path = ("tasks",),
    found: Sequence[DomainError] = (),
) -> list[UUID]:
    """Add the tasks of a plan to a project, whose row the caller has locked; return their ids.

    Raises Rejected with everything that is wrong, what the caller found before included, or
    CycleDetected.
    """
    faults: list[DomainError] = list(found)
    ids = [task.values.get("id") or new_id() for task in planned]
    places = _number([task.reference for task in planned], "task", at, faults)
    named = {reference: ids[place] for reference, place in places.items()}
    wanted = {name for task in planned for name, _ in task.depends_on}
    wanted |= {task.parent for task in planned if task.parent is not None}
    tasks = await _existing(session, Task, project, wanted - named.keys()) | named
    wanted = {task.agent for task in planned if task.agent is not None}
    assigned = await _existing(session, Agent, project, wanted - (agents or {}).keys())
    assigned |= agents or {}

    def find(known: Mapping[str, UUID], name: str | None, noun: str, *where: str | int) -> Any:
        if name is None or name in known:
            return known.get(name) if name is not None else None
        fault = f"{name!r} is neither a reference of this plan nor the id of {noun} of its project."
        faults.append(Invalid(fault, (*at, *where)))
        return None

    now = await session.scalar(select(func.now()))
    rows: list[dict[str, Any]] = []
    edges: dict[tuple[UUID, UUID], OnFailure] = {}
    for place, (id, task) in enumerate(zip(ids, planned, strict=True)):
        agent_id = find(assigned, task.agent, "an agent", place, "agent")
        parent_id = find(tasks, task.parent, "a task", place, "parent")
        if parent_id == id:
            faults.append(CycleDetected([id], (*at, place, "parent")))
        # With every server default filled in, one statement inserts parents and children alike.
        rows.append(
            {"available_at": now}
            | task.values
            | {
                "id": id,
                "project_id": project.id,
                "parent_task_id": parent_id,
                "agent_id": agent_id,
                "status": TaskStatus.PENDING if agent_id is None else TaskStatus.ASSIGNED,
            }
        )
        for number, (name, on_failure) in enumerate(task.depends_on):
            dependency = find(tasks, name, "a task", place, "depends_on", number, "on")
            if dependency == id:
                faults.append(CycleDetected([id], (*at, place, "depends_on", number, "on")))
            elif dependency is not None:
                edges[id, dependency] = on_failure
    faults += await _taken(session, Task, [task.values.get("id") for task in planned], at)
    faults += _circle(planned, rows, edges, at)
    if faults:
        raise Rejected(faults)

    await insert_many(session, Task, rows)
    await insert_many(
        session,
        TaskDependency,
        [
            {"dependent_id": dependent, "dependency_id": dependency, "on_failure": on_failure}
            for (dependent, dependency), on_failure in edges.items()
        ],
    )
    await refuse_cycle(session, ids, at)
    await recount(session, ids)
    return ids


def _circle(
    planned: Sequence[PlannedTask],
    rows: Sequence[Mapping[str, Any]],
    edges: Mapping[tuple[UUID, UUID], OnFailure],
    at: Path,
) -> list[DomainError]:
    """The fault of a circle among the tasks of a plan, which are not there yet to be shown."""
    places = {row["id"]: place for place, row in enumerate(rows)}
    parents = {id: _within(rows[place]["parent_task_id"], places) for id, place in places.items()}
    dependencies: dict[UUID, list[UUID]] = {}
    for dependent, dependency in edges:
        if dependency in places:
            dependencies.setdefault(dependent, []).append(dependency)
    circle = find_cycle(parents, dependencies)
    if circle is None or rows[places[circle[0]]]["parent_task_id"] == circle[0]:
        return []  # a task that is its own parent has been told already
    tasks = [planned[places[id]] for id in circle]
    names = ", ".join(repr(task.reference or task.values["title"]) for task in tasks)
    fault = CycleDetected([], (*at, places[circle[0]]))
    wait = "These tasks would wait for each other in a circle"
    fault.message = f"{wait if len(circle) > 1 else 'This task would wait for itself'}: {names}."
    return [fault]


def _within(id: UUID | None, places: Mapping[UUID, int]) -> UUID | None:
    return id if id in places else None


async def _taken(
    session: AsyncSession, model: type[Row], ids: Sequence[UUID | None], at: Path
) -> list[DomainError]:
    """The faults of ids that are given twice, or that another row has."""
    given = [id for id in ids if id is not None]
    if not given:
        return []
    taken = set(await session.scalars(select(model.id).where(any_of(model.id, given))))
    faults: list[DomainError] = []
    for place, id in enumerate(ids):
        if id is not None and id in taken:
            faults.append(AlreadyExists("There is already one with this id.", (*at, place, "id")))
        elif id is not None:
            taken.add(id)
    return faults


async def add_plan(
    session: WriteSession,
    project: Project,
    references: Sequence[str | None],
    agents: Sequence[Mapping[str, Any]],
    tasks: Sequence[PlannedTask],
) -> tuple[list[UUID], list[UUID]]:
    """Add agents, each with its reference, and tasks to a project; return the ids of both.

    Raises Rejected with everything that is wrong, or CycleDetected.
    """
    faults: list[DomainError] = []
    try:
        await session.refer_all(Agent, {("agents", place): row for place, row in enumerate(agents)})
    except Rejected as rejected:
        faults += rejected.errors
    places = _number(references, "agent", ("agents",), faults)
    taken: set[str] = set()
    for place, agent in enumerate(agents):
        if agent["name"] in taken:
            fault = f"An earlier agent is named {agent['name']!r} already."
            faults.append(AlreadyExists(fault, ("agents", place, "name")))
        taken.add(agent["name"])
    ids = [agent.get("id") or new_id() for agent in agents]
    rows = [
        {**agent, "id": id, "project_id": project.id} for id, agent in zip(ids, agents, strict=True)
    ]
    faults += await _taken(session, Agent, [agent.get("id") for agent in agents], ("agents",))
    if not faults:
        await insert_many(session, Agent, rows)
    named = {reference: ids[place] for reference, place in places.items()}
    return ids, await add_tasks(session, project, tasks, named, found=faults)


async def add_task(session: AsyncSession, project: Project, task: PlannedTask) -> UUID:
    """Add one task to a project, whose row the caller has locked; return its id.

    Raises Rejected with everything that is wrong, or CycleDetected.
    """
    names = {"parent": "parent_task_id", "agent": "agent_id"}
    try:
        (id,) = await add_tasks(session, project, [task], at=())
    except Rejected as rejected:
        for error in rejected.errors:  # there is no plan around it, and no place in one
            path = [names.get(str(part), part) for part in error.path[1:]]
            error.path = tuple(path[:-1] if path[-1:] == ["on"] else path)
        raise
    return id


async def change_task(session: WriteSession, task: Task, values: dict[str, Any]) -> Task:
    """Change a task, which the caller has locked, and its project's row if its parent changes.

    Raises Rejected, Invalid, CycleDetected.
    """
    await session.refer(Task, values)
    faults: list[DomainError] = []
    for name, model in (("parent_task_id", Task), ("agent_id", Agent)):
        id = values.get(name)
        if id is not None:
            other = await session.scalar(select(model.project_id).where(model.id == id))
            if other != task.project_id:
                fault = f"This {model.__name__} belongs to another project."
                faults.append(Invalid(fault, (name,)))
    if faults:
        raise Rejected(faults)
    if values.get("parent_task_id") == task.id:
        raise CycleDetected([task.id], ("parent_task_id",))
    if "agent_id" in values:
        task.assign(values["agent_id"])
    before = task.parent_task_id
    await task.update(session, **{k: v for k, v in values.items() if k != "agent_id"})
    if task.parent_task_id != before:
        await refuse_cycle(session, [task.id], ("parent_task_id",))
        await recount(session, [id for id in (task.id, before) if id is not None])
    return task
