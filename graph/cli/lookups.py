"""Finding what the arguments of a command name: users, agents, projects and tokens."""

from __future__ import annotations

from typing import Any

from graph.cli.errors import CommandError
from graph.clients import Client, Refused
from graph.core.ids import BARE_UUID, parse_global_id

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


def is_id(type_name: str, text: str) -> bool:
    """Whether a text is an id of this type, global or bare."""
    parsed = parse_global_id(text)
    if parsed is not None and parsed[0] == type_name:
        text = parsed[1]
    return BARE_UUID.fullmatch(text) is not None


async def find_user(api: Client, username: str, shown: str = "id") -> Any:
    """The user with this name."""
    users = (await api.read(USERS % shown, name=username))["users"]["nodes"]
    if not users:
        raise CommandError(f"There is no user {username!r}; `troupe users create` creates one")
    return users[0]


async def find_project(api: Client, project: str) -> str:
    """The id of a project, by its id or its name."""
    if is_id("Project", project):
        return project
    found = (await api.read(PROJECTS % FOUND, name=project))["projects"]
    if found["totalCount"] != 1:
        number = f"are {found['totalCount']} projects" if found["totalCount"] else "is no project"
        advice = "use the id: " if found["totalCount"] else ""
        raise CommandError(
            f"There {number} {project!r}; {advice}`troupe projects list` shows them all"
        )
    return str(found["nodes"][0]["id"])


async def find_agent(api: Client, agent: str, project: str | None) -> Any:
    """An agent, by its id or its name, in a project with this id or name if one is given."""
    key = "id" if is_id("Agent", agent) else "name"
    where: dict[str, Any] = {key: {"eq": agent}}
    if project is not None:
        where["projectId"] = {"eq": await find_project(api, project)}
    found = (await api.read(AGENTS, where=where))["agents"]
    place = "" if project is None else f" in the project {project!r}"
    if found["totalCount"] == 0:
        raise CommandError(
            f"There is no agent {agent!r}{place}; the console shows the agents of each project"
        )
    if found["totalCount"] > 1:
        raise CommandError(
            f"There are {found['totalCount']} agents {agent!r}{place}; add --project, or use the id"
        )
    return found["nodes"][0]
