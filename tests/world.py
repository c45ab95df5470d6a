"""A world with rows in every table, and a picture of all rows to hold another one against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncSession

import db
from db.events.triggers import logged_tables
from tests import factories
from tests.client import Client
from tests.factories import gid as gid

if TYPE_CHECKING:
    from tests.conftest import People

READY = ("to be claimed", "to be claimed among others")
HELD = (
    "heartbeat",
    "completeTask",
    "completeTasks",
    "failTask",
    "releaseTask",
    "extendLease",
)
AGENT_TOKEN = "troupe_token_of_an_agent"
FORBIDDEN = "FORBIDDEN"
"""The code by which those are turned away who may not."""

Fault = tuple[str, str]
"""A user error: its code, and its path with points between the parts."""


async def snapshot(database: db.Database) -> dict[str, list[str]]:
    """Every row of every table, as text, except the event log."""
    tables = [table.name for table in logged_tables()]
    tables += ["task_leases", "webhook_deliveries"]
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


def at(*paths: str) -> list[Fault]:
    """Nothing is found at these places of the input."""
    return [("NOT_FOUND", path) for path in paths]


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


@dataclass
class WholeWorld(World):
    """The same with members in every role, and something of every noun in both projects."""

    members: dict[db.MemberRole, Client]
    """Ask as members of the project in each other role than the owner's."""
    viewer: db.User
    """Who may only look."""
    guest: db.User
    """Another one who may only look."""
    tool: db.Tool
    """A tool that Ada has."""
    attempt: db.TaskAttempt
    held: dict[str, db.TaskAttempt]
    """An attempt that Ada is making, for each mutation that ends it or keeps it."""
    communication: db.Communication
    approval: db.ApprovalRequest
    requests: dict[str, Any]
    """A pending interaction of each other kind, and one of Ada's that may be withdrawn."""
    others: dict[type, list[Any]]
    """A row in the owner's project, and one in the stranger's, of each model not named here."""
    foreign_rows: dict[str, Any]
    """Other rows of the stranger's project, by the inputs that could name them."""


@dataclass
class Case:
    """How a mutation is asked for a row of the owner's, and how others are turned away."""

    input: Callable[[WholeWorld], dict[str, Any]]
    stranger: str | list[Fault] = field(default_factory=lambda: at("id"))
    """How a stranger is turned away: the code of an error, or user errors."""


async def make_world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """Make the world, with the counters that its edges mean."""
    return World(**await _world(database, http, people))


async def make_whole_world(
    database: db.Database, http: httpx.AsyncClient, people: People
) -> WholeWorld:
    """Make the world, and the rest of it."""
    world = await _world(database, http, people)
    users = people.users
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_model(session, "spare")
        joined = {}
        for role in list(db.MemberRole)[1:]:
            name = role.lower()
            user = await db.User.create(session, username=name, email=f"{name}@localhost")
            await factories.make_member(session, world["project"], user, role)
            await factories.make_token(session, f"token of {name}", user)
            joined[role] = user
        zoe = await factories.make_agent(session, world["project"], "Zoe")
        session.add(db.AgentSubscription(agent_id=zoe.id, topic="news"))
        guest = await db.User.create(session, username="guest", email="guest@localhost")
        await factories.make_member(session, world["project"], guest, db.MemberRole.VIEWER)
        tool, attempt, communication, approval, requests, _ = await make_more(
            session,
            world["project"],
            world["ada"],
            world["free"],
            world["conversation"],
            world["message"],
            world["model"],
        )
        project = await session.get_one(db.Project, world["project"].id)
        project.status = db.ProjectStatus.IN_PROGRESS
        ada = await session.get_one(db.Agent, world["ada"].id)
        ada.status, ada.max_concurrent_tasks = db.AgentStatus.READY, 100
        for title in READY:
            await factories.make_task(session, project, title, priority=5)
        held = {name: await factories.make_claimed(session, world["ada"], name) for name in HELD}
        elsewhere, bob, foreign = world["elsewhere"], world["bob"], world["foreign"]
        talk = await factories.make_conversation(session, project_id=elsewhere.id)
        (said,) = await factories.make_messages(session, talk, ["Secret"])
        outside = await make_more(session, elsewhere, bob, foreign, talk, said, world["model"])
        others: dict[type, list[Any]] = {}
        known = await factories.rows_by_table(session)
        for project in (world["project"], elsewhere):
            near = {
                table: [
                    r
                    for r in rows
                    if getattr(r, "project_id", getattr(r, "id", None)) == project.id
                ]
                or rows
                for table, rows in known.items()
            }
            for kind, rows in (await factories.make_others(session, 1, near)).items():
                others.setdefault(kind, []).extend(rows)
    return WholeWorld(
        **world,
        members={role: Client(http, database, f"token of {role.lower()}") for role in joined},
        viewer=joined[db.MemberRole.VIEWER],
        guest=guest,
        tool=tool,
        attempt=attempt,
        held=held,
        communication=communication,
        approval=approval,
        requests=requests,
        others=others,
        foreign_rows={
            "toolId": outside[0],
            "attemptId": outside[1],
            "replyToId": outside[2],
            "agentId": bob,
            "toAgentId": bob,
            "taskId": foreign,
            "conversationId": talk,
            "messageId": said,
            "userId": users["stranger"],
            "assigneeId": users["stranger"],
        },
    )


async def _world(database: db.Database, http: httpx.AsyncClient, people: People) -> dict[str, Any]:
    agent = Client(http, database, AGENT_TOKEN)
    rows = people.world or await make_rows(database, people.users)
    return {"database": database, "people": people, "agent": agent} | rows


async def make_rows(database: db.Database, users: dict[str, db.User]) -> dict[str, Any]:
    """The rows of the world."""
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
    return {
        "project": project,
        "ada": ada,
        "model": model,
        "parent": parent,
        "subtask": subtask,
        "free": free,
        "conversation": conversation,
        "message": messages[0],
        "elsewhere": elsewhere,
        "bob": bob,
        "foreign": foreign,
    }


async def make_more(
    session: AsyncSession,
    project: db.Project,
    agent: db.Agent,
    task: db.Task,
    conversation: db.Conversation,
    message: db.Message,
    model: db.AIModel,
) -> tuple[
    db.Tool,
    db.TaskAttempt,
    db.Communication,
    db.ApprovalRequest,
    dict[str, Any],
    db.UsageRecord,
]:
    """What else there is in a project: something of each noun that concerns its agent and task."""
    tool = await factories.make_tool(session, project)
    session.add(db.AgentTool(agent_id=agent.id, tool_id=tool.id))
    attempt = await factories.make_attempt(session, task, agent_id=agent.id)
    counted = update(db.Task).where(db.Task.id == task.id).values(attempt_count=1)
    await session.execute(counted, execution_options={"synchronize_session": False})
    about = {"task_id": task.id}
    communication = await factories.make_communication(session, agent, agent, **about)
    about |= {"agent_id": agent.id, "conversation_id": conversation.id}
    asked = {"project_id": project.id, "title": "May I?", "content": {"what": "dig"}}
    approval = await db.ApprovalRequest.create(session, **asked, **about)
    level = {"level": db.NotificationLevel.INFO, "requires_acknowledgement": False}
    requests = {
        "feedback": await db.FeedbackRequest.create(session, **asked),
        "clarification": await db.ClarificationRequest.create(session, **asked),
        "notification": await db.Notification.create(session, **asked, **level),
        "withdrawn": await db.ApprovalRequest.create(session, **asked, agent_id=agent.id),
    }
    about |= {"attempt_id": attempt.id, "message_id": message.id}
    usage = await factories.make_usage(
        session, project, model, request_id="call", model_id=None, **about
    )
    return tool, attempt, communication, approval, requests, usage
