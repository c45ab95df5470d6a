"""Finding what the arguments of a command name: users, agents, projects and tokens."""

from __future__ import annotations

from typing import Any

from db import Agent, AgentStatus, Database, Project, User, UserRole, Viewer, access
from graph.api import API, Refused
from graph.cli.errors import CommandError
from graph.core.scalars import parse_key

USERS = "query($name: String) { users(where: {username: {eq: $name}}) { nodes {%s} } }"
PROJECTS = "query($name: String) { projects(first: 2, where: {name: {eq: $name}}) {%s} }"
AGENTS = """query($where: AgentFilter) {
  agents(first: 2, where: $where) { totalCount nodes { id status project { id } } }
}"""
FOUND = "totalCount nodes { id }"


def refusal(error: Refused) -> str:
    """What the API refused, in sentences."""
    return " ".join(map(_sentence, error.errors))


def _sentence(error: dict[str, Any]) -> str:
    message, path = str(error["message"]), error.get("path") or ()
    if path and message.startswith("This "):  # the value of the input
        name = "".join(f" {each.lower()}" if each.isupper() else each for each in str(path[-1]))
        return f"The {name} cannot be used: t{message[1:]}"
    return message


def is_id(model: type, text: str) -> bool:
    """Whether a text is an id of this model, global or bare."""
    try:
        parse_key(model, text)
    except ValueError:
        return False
    return True


async def viewer_of(
    database: Database,
    api: API | None = None,
    user: str | None = None,
    agent: str | None = None,
    project: str | None = None,
) -> Viewer:
    """The viewer of a user or an agent, by default of the first active administrator."""
    if api is not None and user is not None:
        found = await find_user(api, user, "id role isActive")
        if not found["isActive"]:
            raise CommandError(f"The user {user!r} is not active")
        id = parse_key(User, found["id"])
        return Viewer(id, is_administrator=found["role"] == UserRole.ADMIN)
    if api is not None and agent is not None:
        found = await find_agent(api, agent, project)
        if found["status"] == AgentStatus.TERMINATED:
            raise CommandError(f"The agent {agent!r} is terminated")
        return Viewer(agent_id=parse_key(Agent, found["id"]))
    async with database.write(Viewer(is_administrator=True)) as session:
        administrator = await access.administrator(session)
    # Without an active one, the API still creates another.
    return Viewer(None if administrator is None else administrator.id, is_administrator=True)


async def find_user(api: API, username: str, shown: str = "id") -> Any:
    """The user with this name."""
    users = (await api.read(USERS % shown, name=username))["users"]["nodes"]
    if not users:
        raise CommandError(f"There is no user {username!r}; `troupe users create` creates one")
    return users[0]


async def find_project(api: API, project: str) -> str:
    """The id of a project, by its id or its name."""
    if is_id(Project, project):
        return project
    found = (await api.read(PROJECTS % FOUND, name=project))["projects"]
    if found["totalCount"] != 1:
        number = f"are {found['totalCount']} projects" if found["totalCount"] else "is no project"
        advice = "; use the id" if found["totalCount"] else ""
        raise CommandError(f"There {number} {project!r}{advice}")
    return str(found["nodes"][0]["id"])


async def find_agent(api: API, agent: str, project: str | None) -> Any:
    """An agent, by its id or its name, in a project with this id or name if one is given."""
    key = "id" if is_id(Agent, agent) else "name"
    where: dict[str, Any] = {key: {"eq": agent}}
    if project is not None:
        where["projectId"] = {"eq": await find_project(api, project)}
    found = (await api.read(AGENTS, where=where))["agents"]
    place = "" if project is None else f" in the project {project!r}"
    if found["totalCount"] == 0:
        raise CommandError(f"There is no agent {agent!r}{place}")
    if found["totalCount"] > 1:
        raise CommandError(
            f"There are {found['totalCount']} agents {agent!r}{place}; add --project, or use the id"
        )
    return found["nodes"][0]
