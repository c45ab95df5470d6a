"""A world with rows in every table, and a picture of all rows to hold another one against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from sqlalchemy import text

import db
from graph.scalars import global_id
from tests import factories
from tests.client import Client
from tests.conftest import People

AGENT_TOKEN = "troupe_token_of_an_agent"

Fault = tuple[str, str]
"""A user error: its code, and its path with points between the parts."""


def gid(row: Any) -> str:
    """The global id of a row."""
    return global_id(type(row).__name__, row.id)


async def snapshot(database: db.Database) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    tables = [table.name for table in db.Base.metadata.sorted_tables]
    each = (f"SELECT '{name}', row_to_json(r)::text FROM \"{name}\" r" for name in tables)
    async with database.read() as session:
        found = await session.execute(text(f"{' UNION ALL '.join(each)} ORDER BY 1, 2"))
    rows: dict[str, list[str]] = {name: [] for name in tables}
    for name, row in found:
        rows[name].append(row)
    return rows


async def stored(database: db.Database, statement: str, /, **values: Any) -> list[Any]:
    """What a statement finds in the database: a value for each row, or a tuple of several."""
    async with database.read() as session:
        found = (await session.execute(text(statement), values)).all()
    return [row[0] if len(row) == 1 else tuple(row) for row in found]


def faults(payload: Any) -> list[Fault]:
    """The user errors of a payload."""
    return [(error["code"], ".".join(error["path"])) for error in payload["userErrors"]]


@dataclass
class World:
    """An owner's project with all that can be in it, and another project, of a stranger."""

    database: db.Database
    people: People
    agent: Client
    """Asks as the agent Ada."""
    project: db.Project
    ada: db.Agent
    model: db.AIModel
    parent: db.Task
    subtask: db.Task
    free: db.Task
    """A task that waits for nothing; the subtask waits for it."""
    conversation: db.Conversation
    message: db.Message
    elsewhere: db.Project
    bob: db.Agent
    """An agent of the stranger's project."""
    foreign: db.Task
    """A task of the stranger's project."""

    @property
    def owner(self) -> Client:
        """Asks as the owner of the project."""
        return self.people.owner

    async def refused(self, client: Client, mutation: str, /, **input: Any) -> list[Fault]:
        """What is wrong with the input of a mutation, which must leave every row as it is."""
        before = await snapshot(self.database)
        payload = await client.change(f"{mutation} {{ userErrors {{ code path }} }}", **input)
        assert await snapshot(self.database) == before
        return faults(payload)

    async def error(self, client: Client, mutation: str, /, **input: Any) -> str:
        """The code of the error by which a mutation is turned away, every row left as it is."""
        before = await snapshot(self.database)
        kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
        document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ __typename }} }}"
        answer = await client.ask(document, input=input)
        assert answer.body.get("data") in (None, {mutation: None})
        assert await snapshot(self.database) == before
        return answer.code


async def make_world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """Make the world, with the counters that its edges mean."""
    users = people.users
    async with database.write(db.Viewer(is_administrator=True)) as session:
        model = await factories.make_model(session)
        project = await factories.make_project(session, users["owner"])
        ada = await factories.make_agent(session, project, "Ada", model_id=model.id)
        await factories.make_token(session, AGENT_TOKEN, ada)
        parent = await factories.make_task(session, project, "Parent", unmet_dependency_count=1)
        free = await factories.make_task(session, project, "Free")
        subtask = await factories.make_task(
            session, project, "Subtask", parent_task_id=parent.id, unmet_dependency_count=1
        )
        await factories.make_dependency(session, subtask, free)
        conversation = await factories.make_conversation(
            session, project_id=project.id, user_id=users["owner"].id, agent_id=ada.id
        )
        messages = await factories.make_messages(session, conversation, ["Hello"])
        elsewhere = await factories.make_project(session, users["stranger"], "Elsewhere")
        bob = await factories.make_agent(session, elsewhere, "Bob")
        foreign = await factories.make_task(session, elsewhere, "Foreign")
    return World(
        database,
        people,
        Client(http, database, AGENT_TOKEN),
        project,
        ada,
        model,
        parent,
        subtask,
        free,
        conversation,
        messages[0],
        elsewhere,
        bob,
        foreign,
    )
