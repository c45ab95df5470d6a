"""Plans: many tasks with their dependencies, added in one transaction.

Within a plan, tasks, agents and tools are named by references that the client chooses. A name that
is not a reference of the plan is the id of an existing row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.agents import Agent
from db.attempts import AttemptStatus, TaskAttempt
from db.base import CRUD, Base, any_of, new_id
from db.dependencies import find_cycle, lock, recount, refuse_cycle, waits_for
from db.errors import (
    AlreadyExists,
    CycleDetected,
    Denied,
    DomainError,
    Invalid,
    Path,
    Rejected,
)
from db.projects import Project
from db.sessions import WriteSession
from db.tasks import OnFailure, Task, TaskDependency, TaskStatus
from db.tools import (
    FIRST_VERSION,
    MOST_TOOLS,
    TOO_MANY_TOOLS,
    AgentTool,
    Tool,
    with_definition_hash,
)
from db.writes import insert_many

Row = TypeVar("Row", bound=CRUD)

CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Planned:
    """A row that a plan adds: the values of its columns, and its reference in the plan."""

    values: dict[str, Any]
    reference: str | None = None


@dataclass
class PlannedTool(Planned):
    """A tool of a plan."""


@dataclass
class PlannedAgent(Planned):
    """An agent of a plan, and the names of its tools."""

    tools: Sequence[str] = ()


@dataclass
class PlannedTask(Planned):
    """A task of a plan, with the names of its parent, its agent and its dependencies."""

    parent: str | None = None
    agent: str | None = None
    depends_on: Sequence[tuple[str, OnFailure]] = field(default_factory=list)


def _number(
    references: Sequence[str | None], noun: str, at: Path, faults: list[DomainError]
) -> dict[str, int]:
    """The index in the plan of each reference."""
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


def _named(ids: Sequence[UUID], places: Mapping[str, int]) -> dict[str, UUID]:
    """The ids of a plan's rows, by reference and by id, which the client may have chosen."""
    return {str(id): id for id in ids} | {name: ids[place] for name, place in places.items()}


async def _existing(
    session: AsyncSession, model: type[Row], project_id: UUID | None, names: set[str]
) -> dict[str, UUID]:
    """The names that are ids of rows of the project, or without one, of shared rows."""
    ids = [UUID(name) for name in names if CANONICAL_UUID.fullmatch(name)]
    if not ids:
        return {}
    of_project = model.project_id == project_id  # type: ignore[attr-defined]
    found = await session.scalars(select(model.id).where(any_of(model.id, ids), of_project))
    return {str(id): id for id in found}


async def add_tasks(
    session: WriteSession,
    project: Project,
    planned: Sequence[PlannedTask],
    agents: Mapping[str, UUID] | None = None,
    at: Path = ("tasks",),
    found: Sequence[DomainError] = (),
) -> list[UUID]:
    """Add the tasks of a plan to a project, whose row the caller has locked; return their ids.

    Raises Rejected with all errors, including those that the caller has `found`, or CycleDetected.
    """
    faults: list[DomainError] = list(found)
    ids = [task.values.get("id") or new_id() for task in planned]
    places = _number([task.reference for task in planned], "task", at, faults)
    named = _named(ids, places)
    wanted = {name for task in planned for name, _ in task.depends_on}
    wanted |= {task.parent for task in planned if task.parent is not None}
    tasks = await _existing(session, Task, project.id, wanted - named.keys()) | named
    wanted = {task.agent for task in planned if task.agent is not None}
    assigned = await _existing(session, Agent, project.id, wanted - (agents or {}).keys())
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
        # With all server defaults filled in, one statement inserts all tasks.
        rows.append(
            {"available_at": now}
            | _creator(session)
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
    faults += await session.taken(
        Task, {(*at, place): task.values.get("id") for place, task in enumerate(planned)}
    )
    graph = _graph_of(rows, edges)
    faults += _cycle(planned, graph.parents, graph.dependencies, at)
    if faults:
        raise Rejected(faults)

    # The counts are inserted: an update afterwards would write each row, and its event, twice.
    for row, count in zip(rows, waits_for(graph.parents, graph.dependencies), strict=True):
        row["unmet_dependency_count"] = count
    await insert_many(session, Task, rows)
    await insert_many(
        session,
        TaskDependency,
        [
            {"dependent_id": dependent, "dependency_id": dependency, "on_failure": on_failure}
            for (dependent, dependency), on_failure in edges.items()
        ],
    )
    # Existing tasks can wait only for new subtasks, so these are part of any other cycle.
    if graph.below:
        await refuse_cycle(session, graph.below, at)
    await recount(session, {*graph.waiting, *graph.below})
    return ids


class _Graph(NamedTuple):
    """What the tasks of a plan wait for: those of the plan by their places in it."""

    parents: dict[int, int | None]
    dependencies: dict[int, list[int]]
    waiting: list[UUID]
    """The new tasks that wait for existing ones."""
    below: list[UUID]
    """The new tasks that are subtasks of existing ones."""


def _graph_of(rows: Sequence[Mapping[str, Any]], edges: Iterable[tuple[UUID, UUID]]) -> _Graph:
    """The graph of new rows, and of the edges from dependent tasks to their dependencies."""
    place_of = {row["id"]: place for place, row in enumerate(rows)}
    parents = {place: place_of.get(row["parent_task_id"]) for place, row in enumerate(rows)}
    existing = {row["parent_task_id"] for row in rows} - {None, *place_of}
    below = [row["id"] for row in rows if row["parent_task_id"] in existing]
    dependencies: dict[int, list[int]] = {}
    waiting: list[UUID] = []
    for dependent, dependency in edges:
        if dependency in place_of:
            dependencies.setdefault(place_of[dependent], []).append(place_of[dependency])
        else:
            waiting.append(dependent)
    return _Graph(parents, dependencies, waiting, below)


def _cycle(
    planned: Sequence[PlannedTask],
    parents: Mapping[int, int | None],
    dependencies: Mapping[int, Sequence[int]],
    at: Path,
) -> list[DomainError]:
    """The error for a cycle of a plan, by places; its tasks have no rows yet, so it names them."""
    cycle = find_cycle(parents, dependencies)
    if cycle is None or parents[cycle[0]] == cycle[0]:
        return []  # reported before
    tasks = [planned[place] for place in cycle]
    names = ", ".join(repr(task.reference or task.values["title"]) for task in tasks)
    fault = CycleDetected([], (*at, cycle[0]))
    wait = "These tasks would wait for each other in a cycle"
    fault.message = f"{wait if len(cycle) > 1 else 'This task would wait for itself'}: {names}."
    return [fault]


async def add_plan(
    session: WriteSession,
    project: Project,
    agents: Sequence[PlannedAgent],
    tools: Sequence[PlannedTool],
    tasks: Sequence[PlannedTask],
) -> tuple[list[UUID], list[UUID], list[UUID]]:
    """Add agents, tools and tasks to a project, and return the ids of each.

    Raises Rejected with all errors, or CycleDetected.
    """
    faults: list[DomainError] = []
    try:
        await session.refer_all(
            Agent, {("agents", place): agent.values for place, agent in enumerate(agents)}
        )
    except Rejected as rejected:
        faults += rejected.errors
    agent_ids, named_agents = await _planned(session, Agent, agents, _name, faults)
    tool_ids, named_tools = await _planned(session, Tool, tools, _name_and_version, faults)
    wanted = {name for agent in agents for name in agent.tools} - named_tools.keys()
    named_tools |= await _existing(session, Tool, None, wanted)
    edges: set[tuple[UUID, UUID]] = set()
    for place, agent in enumerate(agents):
        if len(set(agent.tools)) > MOST_TOOLS:
            faults.append(Invalid(TOO_MANY_TOOLS, ("agents", place, "tools")))
        for number, name in enumerate(agent.tools):
            if name in named_tools:
                edges.add((agent_ids[place], named_tools[name]))
                continue
            fault = f"{name!r} is neither a reference of this plan nor the id of a shared tool."
            faults.append(Invalid(fault, ("agents", place, "tools", number)))
    if not faults:
        belongs = {"project_id": project.id}
        await insert_many(
            session,
            Agent,
            [
                {**agent.values, **belongs, "id": id}
                for id, agent in zip(agent_ids, agents, strict=True)
            ],
        )
        await insert_many(
            session,
            Tool,
            [
                {**with_definition_hash(tool.values), **belongs, "id": id}
                for id, tool in zip(tool_ids, tools, strict=True)
            ],
        )
        rows_of_edges = [{"agent_id": agent, "tool_id": tool} for agent, tool in sorted(edges)]
        await insert_many(session, AgentTool, rows_of_edges)
    return (
        agent_ids,
        tool_ids,
        await add_tasks(session, project, tasks, named_agents, found=faults),
    )


def _name(planned: Planned) -> object:
    return planned.values["name"]


def _name_and_version(planned: Planned) -> object:
    return planned.values["name"], planned.values.get("tool_version", FIRST_VERSION)


async def _planned(
    session: WriteSession,
    model: type[CRUD],
    planned: Sequence[Planned],
    unique: Callable[[Planned], object],
    faults: list[DomainError],
) -> tuple[list[UUID], dict[str, UUID]]:
    """The ids of a plan's rows of a model, and the same ids by the names in the plan."""
    at, noun = model.__tablename__, model.__name__.lower()
    places = _number([one.reference for one in planned], noun, (at,), faults)
    taken: set[object] = set()
    for place, one in enumerate(planned):
        if unique(one) in taken:
            fault = f"An earlier {noun} is named {one.values['name']!r} already."
            faults.append(AlreadyExists(fault, (at, place, "name")))
        taken.add(unique(one))
    faults += await session.taken(
        model, {(at, place): one.values.get("id") for place, one in enumerate(planned)}
    )
    ids = [one.values.get("id") or new_id() for one in planned]
    return ids, _named(ids, places)


async def add_task(session: WriteSession, project_id: UUID, task: PlannedTask) -> UUID:
    """Add one task, which names others by their ids, to a project; return its id.

    An agent adds only subtasks of tasks that it is working on. Raises NotFound, Denied, Rejected
    with all errors, and CycleDetected.
    """
    if session.viewer.agent_id is not None:
        await _check_claimed(session, task.parent)
    if task.parent is None and not task.depends_on:
        # It waits for nothing and nothing waits for it, so the project needs no lock.
        values = task.values | {"project_id": project_id}
        if task.agent is not None:
            values |= {"agent_id": UUID(task.agent), "status": TaskStatus.ASSIGNED}
        return await session.insert(Task, values, known=_creator(session))
    project = await session.fetch(Project, project_id, at=("project_id",))
    keys = {"parent_task_id": task.parent, "agent_id": task.agent}
    others = [id for id, _ in task.depends_on]
    itself = str(task.values.get("id"))
    rows: dict[type[Base], dict[tuple[str | int, ...], Mapping[str, Any]]] = {
        Task: {(): {name: UUID(id) for name, id in keys.items() if id not in (None, itself)}},
        TaskDependency: {
            ("depends_on", number): {"dependency_id": UUID(id)}
            for number, id in enumerate(others)
            if id != itself
        },
    }
    faults: list[DomainError] = []
    for model, named in rows.items():
        try:
            await session.refer_all(model, named, project_id=project.id)
        except Rejected as rejected:
            faults += rejected.errors
    try:
        (id,) = await add_tasks(session, project, [task], at=(), found=faults)
    except Rejected as rejected:
        names = {"parent": "parent_task_id", "agent": "agent_id"}
        errors: dict[Path, DomainError] = {}
        for error in rejected.errors:  # the paths in the input of one task, not of a plan
            path = error.path[1:] if error.path[:1] == (0,) else error.path
            path = path[:-1] if path[-1:] in (("on",), ("dependency_id",)) else path
            error.path = tuple(names.get(str(part), part) for part in path)
            errors.setdefault(error.path, error)
        raise Rejected(list(errors.values())) from None
    return id


async def _check_claimed(session: WriteSession, parent: str | None) -> None:
    """Raise Denied unless an attempt of the agent that asks is running at the task.

    Its project and the task are locked, so that the attempt does not end meanwhile.
    """
    if parent is not None:
        await lock(session, UUID(parent))
        claimed = (
            select(Task.id)
            .join(TaskAttempt, Task.current_attempt_id == TaskAttempt.id)
            .where(Task.id == UUID(parent), TaskAttempt.status == AttemptStatus.RUNNING)
            .where(TaskAttempt.agent_id == session.viewer.agent_id)
            .with_for_update(key_share=True, of=Task)
        )
        if await session.scalar(claimed) is not None:
            return
    message = "An agent creates only subtasks of tasks that it is working on."
    raise Denied(message, ("parent_task_id",))


def _creator(session: WriteSession) -> dict[str, Any]:
    """Who creates a task."""
    viewer = session.viewer
    return {"created_by_user_id": viewer.user_id, "created_by_agent_id": viewer.agent_id}


async def _reserve(session: WriteSession, task: Task, keys: Iterable[str]) -> None:
    """Reserve more resources for a task in progress, as a claim does. Raises Invalid if it cannot.

    The locks are not waited for, so a claim that only looks at these resources can be in the way.
    """
    reserved = func.reserve_resources(
        task.project_id, literal(sorted(keys), Task.resource_keys.type)
    )
    if not await session.scalar(select(reserved)):
        raise Invalid(
            "An agent works on this task, and one of these resources is in use, or about to be.",
            ("resource_keys",),
        )


async def change_task(
    session: WriteSession, id: UUID, values: dict[str, Any], version: int | None = None
) -> UUID:
    """Change a task, and return its id.

    Raises NotFound, Denied, Conflict, Rejected with all errors, and CycleDetected.
    """
    if not values.keys() & {"agent_id", "parent_task_id", "resource_keys"}:
        return await session.change(Task, id, values, version=version)
    if "parent_task_id" in values:
        await lock(session, id)
    task = await session.fetch(Task, id, version=version)
    await session.refer(Task, values, project_id=task.project_id)
    if values.get("parent_task_id") == id:
        raise CycleDetected([id], ("parent_task_id",))
    if "agent_id" in values:
        task.assign(values["agent_id"])
    if "resource_keys" in values and task.status is TaskStatus.IN_PROGRESS:
        await _reserve(session, task, set(values["resource_keys"]) - set(task.resource_keys))
    before = task.parent_task_id
    await task.update(session, **{k: v for k, v in values.items() if k != "agent_id"})
    if task.parent_task_id != before:
        await refuse_cycle(session, [id], ("parent_task_id",))
        await recount(session, [each for each in (id, before) if each is not None])
    return id
