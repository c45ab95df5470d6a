"""On whose behalf a command uses the database."""

from __future__ import annotations

from db import Agent, AgentStatus, Database, User, UserRole, Viewer, access
from db.scopes import SYSTEM
from graph.cli.errors import CommandError
from graph.cli.lookups import find_agent, find_user
from graph.clients import Client
from graph.core.scalars import parse_key


async def first_administrator(database: Database) -> Viewer:
    """The first active administrator; without one, the API still creates another."""
    async with database.write(SYSTEM) as session:
        administrator = await access.administrator(session)
    return Viewer(None if administrator is None else administrator.id, is_administrator=True)


async def viewer_of_user(api: Client, username: str) -> Viewer:
    """The user with this name, who has to be active."""
    found = await find_user(api, username, "id role isActive")
    if not found["isActive"]:
        raise CommandError(f"The user {username!r} is not active")
    is_administrator = found["role"] == UserRole.ADMIN
    return Viewer(parse_key(User, found["id"]), is_administrator=is_administrator)


async def viewer_of_agent(api: Client, agent: str, project: str | None) -> Viewer:
    """The agent with this id or name, which may not be terminated."""
    found = await find_agent(api, agent, project)
    if found["status"] == AgentStatus.TERMINATED:
        raise CommandError(f"The agent {agent!r} is terminated")
    return Viewer(agent_id=parse_key(Agent, found["id"]))
