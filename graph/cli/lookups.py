"""Finding what the arguments of a command name, and validating them as the API does."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import or_, select

from db import Agent, Project, User, WriteSession
from db.text import require_storable
from graph.cli.errors import CommandError


def valid(kind: Any, value: Any, name: str = "value") -> Any:
    """The validated value. Raises CommandError if the API would reject it."""
    from graph.core.validation_messages import words

    try:
        return TypeAdapter(kind).validate_python(require_storable(value))
    except ValidationError as error:
        problems = [(str((*each["loc"], name)[0]), words(each)) for each in error.errors()]
        messages = [f"The {at.replace('_', ' ')} cannot be used: {what}" for at, what in problems]
        raise CommandError("; ".join(messages)) from None
    except ValueError as error:
        raise CommandError(f"The {name} cannot be used: {error}") from None


async def find_user(session: WriteSession, username: str) -> User:
    """The user with this name."""
    username = valid(str, username, "username")
    user = await session.scalar(select(User).where(User.username == username))
    if user is None:
        raise CommandError(f"There is no user {username!r}; `troupe users create` creates one")
    return user


async def find_agent_id(session: WriteSession, agent: str, project: str | None) -> UUID:
    """The id of an agent, by its id, or by its id or name in a project with this id or name."""
    agent = valid(str, agent, "agent")
    id = _id(Agent, agent)
    if project is None:
        if id is not None:
            return id
        raise CommandError(f"{agent!r} is not the id of an agent; to use its name, add --project")
    project = valid(str, project, "project")
    projects = or_(Project.id == _id(Project, project), Project.name == project)
    project_ids = set(await session.scalars(select(Project.id).where(projects)))
    if not project_ids:
        raise CommandError(f"There is no project {project!r}")
    agents = or_(Agent.id == id, Agent.name == agent), Agent.project_id.in_(project_ids)
    ids = list(await session.scalars(select(Agent.id).where(*agents)))
    if not ids:
        raise CommandError(f"There is no agent {agent!r} in the project {project!r}")
    if len(ids) > 1:
        raise CommandError(
            f"There are {len(ids)} agents {agent!r} in projects {project!r}; use the agent's id"
        )
    return ids[0]


def _id(model: type, text: str) -> UUID | None:
    """The UUID in an id of this model, global or bare; None if it is no such id."""
    from graph.core.scalars import parse_key

    try:
        return UUID(str(parse_key(model, text)))
    except ValueError:
        return None


async def find_project_id(session: WriteSession, project: str) -> UUID:
    """The id of a project, by its id or its name. A deleted project still has its id."""
    project = valid(str, project, "project")
    id = _id(Project, project)
    if id is not None:
        return id
    ids = list(await session.scalars(select(Project.id).where(Project.name == project)))
    if len(ids) != 1:
        number = "no project" if not ids else f"{len(ids)} projects"
        raise CommandError(f"There is {number} {project!r}; use the id")
    return ids[0]
