"""Rows for the tests, made directly, past the rules: what a test needs and nothing more.

Each function adds what it says in the caller's session. They keep no books: a task's
`unmet_dependency_count`, a conversation's `last_message_at` stay what the test gives.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    Enum,
    Integer,
    Numeric,
    Text,
    Uuid,
    cast,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

import db
from db import access, leases
from db.base import Timestamp
from graph.core.scalars import global_id
from tests.nouns import said

START = datetime(2026, 1, 1, tzinfo=UTC)


def minutes(count: float) -> datetime:
    """So many minutes after the start of everything."""
    return START + timedelta(minutes=count)


async def make_model(session: AsyncSession, id: str = "gpt-4o", **values: Any) -> db.AIModel:
    """An AI model."""
    return await db.AIModel.create(session, id=id, **{"provider": "OpenAI"} | values)


async def make_project(
    session: AsyncSession, owner: db.User | None, name: str = "Moon base", **values: Any
) -> db.Project:
    """A project of this owner."""
    owner_id = owner and owner.id
    return await db.Project.create(session, name=name, owner_id=owner_id, **values)


async def make_agent(
    session: AsyncSession, project: db.Project, name: str = "Ada", **values: Any
) -> db.Agent:
    """An agent of a project."""
    values = {"type": "DEVELOPER"} | values
    return await db.Agent.create(session, project_id=project.id, name=name, **values)


async def make_task(
    session: AsyncSession, project: db.Project, title: str = "Dig", **values: Any
) -> db.Task:
    """A task of a project."""
    return await db.Task.create(session, project_id=project.id, title=title, **values)


async def make_dependency(
    session: AsyncSession, dependent: db.Task, dependency: db.Task, **values: Any
) -> db.TaskDependency:
    """One task waits for another."""
    edge = db.TaskDependency(dependent_id=dependent.id, dependency_id=dependency.id, **values)
    session.add(edge)
    await session.flush()
    return edge


async def make_conversation(session: AsyncSession, **values: Any) -> db.Conversation:
    """A conversation, of a project, of a user, or of nobody."""
    return await db.Conversation.create(session, **values)


async def make_messages(
    session: AsyncSession, conversation: db.Conversation, contents: Sequence[str], **values: Any
) -> list[db.Message]:
    """Messages at the end of a conversation with these texts."""
    values = {"sender": db.MessageSender.USER} | values
    messages = [
        db.Message(conversation_id=conversation.id, sequence=place, content=content, **values)
        for place, content in enumerate(contents, conversation.last_sequence + 1)
    ]
    session.add_all(messages)
    await session.flush()
    # Past the ORM, as appending does: talking is no new version.
    place = conversation.last_sequence + len(messages)
    conversations = update(db.Conversation).where(db.Conversation.id == conversation.id)
    await session.execute(conversations.values(last_sequence=place))
    await session.refresh(conversation)
    return messages


async def make_member(
    session: AsyncSession,
    project: db.Project,
    user: db.User,
    role: db.MemberRole = db.MemberRole.VIEWER,
) -> db.ProjectMember:
    """A member of a project."""
    member = db.ProjectMember(project_id=project.id, user_id=user.id, role=role)
    session.add(member)
    await session.flush()
    return member


async def make_tool(
    session: AsyncSession, project: db.Project | None, name: str = "search", **values: Any
) -> db.Tool:
    """A tool of a project, or one that all share."""
    return await db.Tool.create(session, project_id=project and project.id, name=name, **values)


async def make_attempt(
    session: AsyncSession, task: db.Task, number: int = 1, **values: Any
) -> db.TaskAttempt:
    """An attempt at a task."""
    return await db.TaskAttempt.create(session, task_id=task.id, number=number, **values)


async def make_lease(session: AsyncSession, attempt: db.TaskAttempt, **values: Any) -> None:
    """The lease of an attempt, for an hour unless said otherwise."""
    now = datetime.now(UTC)
    values = {"expires_at": now + timedelta(hours=1), "heartbeat_at": now} | values
    keys = {"attempt_id": attempt.id, "task_id": attempt.task_id, "agent_id": attempt.agent_id}
    await session.execute(insert(leases.table).values(keys | values))


async def make_claimed(
    session: AsyncSession, agent: db.Agent, title: str = "Claimed", **values: Any
) -> db.TaskAttempt:
    """An attempt that an agent is making at a task of its own."""
    task = await db.Task.create(
        session,
        project_id=agent.project_id,
        agent_id=agent.id,
        title=title,
        status=db.TaskStatus.IN_PROGRESS,
        attempt_count=1,
    )
    attempt = await make_attempt(session, task, agent_id=agent.id)
    task.current_attempt_id = attempt.id
    await session.flush()
    await make_lease(session, attempt, **values)
    return attempt


async def make_communication(
    session: AsyncSession, sender: db.Agent, receiver: db.Agent, **values: Any
) -> db.Communication:
    """A message from agent to agent."""
    ends = {"from_agent_id": sender.id, "to_agent_id": receiver.id}
    values = {"type": "REQUEST", "content": {"text": "Hello"}} | ends | values
    return await db.Communication.create(session, project_id=sender.project_id, **values)


async def make_usage(
    session: AsyncSession, project: db.Project, model: db.AIModel, **values: Any
) -> db.UsageRecord:
    """A call of an AI model."""
    values = {"model_id": model.id, "model_name": model.id} | values
    return await db.UsageRecord.create(session, project_id=project.id, **values)


async def make_webhook(session: AsyncSession, project: db.Project, **values: Any) -> db.Webhook:
    """A webhook of a project, without a queue: nothing is sent to it."""
    values = {"url": "https://example.org/", "secret": "whsec_c2VjcmV0"} | values
    return await db.Webhook.create(session, project_id=project.id, **values)


async def make_token(
    session: AsyncSession, token: str, bearer: db.User | db.Agent, **values: Any
) -> db.AccessToken:
    """A token that opens the API as a user or as an agent; any text will do as one."""
    key = {"user_id" if isinstance(bearer, db.User) else "agent_id": bearer.id}
    hashed = access.hash_token(token)
    # As one that was used a moment ago: it is not noted again while the test runs.
    values = {"last_used_at": datetime.now(UTC)} | key | values
    values = {"name": token, "prefix": token[:12], "token_hash": hashed} | values
    return await db.AccessToken.create(session, **values)


@dataclass(frozen=True)
class Plan:
    """Projects with their agents and tasks, each list in the order in which they were made."""

    projects: list[db.Project]
    agents: list[db.Agent]
    tasks: list[db.Task]

    @property
    def project(self) -> db.Project:
        """The first project."""
        return self.projects[0]


async def make_plan(
    session: AsyncSession,
    owner: db.User | None,
    *,
    projects: int = 1,
    agents: int = 2,
    tasks: int = 3,
    model: db.AIModel | None = None,
) -> Plan:
    """Projects that have each so many agents and tasks, made a minute after each other.

    The tasks go round among the agents; of each project, every task waits for the one before it,
    and the first is the parent of the others.
    """
    plan = Plan([], [], [])
    for place in range(projects):
        project = await make_project(
            session, owner, f"Project {place}", created_at=minutes(len(plan.projects))
        )
        plan.projects.append(project)
        team = [
            db.Agent(
                project_id=project.id,
                name=f"Agent {number}",
                type="DEVELOPER",
                model_id=model and model.id,
                created_at=minutes(len(plan.agents) + number),
            )
            for number in range(agents)
        ]
        session.add_all(team)
        await session.flush()
        work = [
            db.Task(
                id=db.new_id(),
                project_id=project.id,
                title=f"Task {number}",
                agent_id=team[number % len(team)].id if team else None,
                created_at=minutes(len(plan.tasks) + number),
            )
            for number in range(tasks)
        ]
        for before, task in pairwise(work):
            task.parent_task = work[0]
            task.dependencies = [db.TaskDependency(dependency_id=before.id)]
        session.add_all(work)
        await session.flush()
        plan.agents.extend(team)
        plan.tasks.extend(work)
    return plan


def gid(row: Any) -> str:
    """The id of a row as the API shows it."""
    return global_id(inspect(type(row)).base_mapper.class_.__name__, row.id)


# Values that are easily written in two ways, lost, or taken for something else on the way.
TEXTS = [
    "plain",
    "",
    'it\'s "quoted", \\ and / and \x7f',
    "a\ttab, a\nnew line, \r\b\f\x01\x1f",
    "Ünï 日本 👩‍🚀 \u2028\u2029\ufeff",
    "100% _of_ \\this",
    "<b>&amp;</b>",
    "null",
]
MOMENTS = [
    minutes(0),
    minutes(0) + timedelta(microseconds=1),
    minutes(0) + timedelta(milliseconds=10),
    minutes(0) + timedelta(milliseconds=100),
    datetime(9998, 12, 31, 23, 59, 59, 999999, UTC),
    datetime(2, 1, 1, tzinfo=UTC),
    minutes(7),
]
JSONS = [
    '{"a": 1, "b": [true, {"c": null}]}',
    "{}",
    '{"number": 1.10, "long": 123456789012345678901234567890}',
    '{"text": "\\u00fc\\ud83d\\ude80 \\"\\\\\\/\\b\\u0001", "": " "}',
    '{"z": 0, "a": {"deep": [[[]]]}, "float": 1.0, "zero": -0.0}',
    "null",
    '[1, 1.0, "1", true]',
    '"text"',
]
BEYOND_FLOAT = '{"great": 1e400, "small": -1e-400}'
PRICES = [None, "0", "0.000000001", "2.5", "999999999.999999999"]


def json(place: int) -> Any:
    """One of the awkward JSON values, as it stands in the text."""
    return cast(literal(JSONS[place % len(JSONS)], Text), JSONB)


def text(place: int) -> str:
    """One of the awkward texts."""
    return TEXTS[place % len(TEXTS)]


def moment(place: int) -> datetime:
    """One of the awkward moments."""
    return MOMENTS[place % len(MOMENTS)]


def tied(place: int) -> datetime:
    """A moment that goes neither with nor against the order of ids, and often is another's too."""
    return MOMENTS[place * 5 % 7 % 4]


# Which of the rows a key names: some often, some seldom, and no pair of keys comes twice.
WHICH = (0, 0, 1, 0, 2, 0, 3, 3)


def a_value(column: Any, place: int) -> Any:
    """A value that a column can have: awkward, and mostly another in each place."""
    kind = column.type
    if isinstance(kind, Enum):
        members = list(kind.enum_class or ())
        return members[place % len(members)]
    match kind:
        case Uuid():
            return db.new_id()
        case Boolean():
            return place % 2 == 0
        case Timestamp():
            return tied(place) if place % 2 else moment(place)
        case Integer():
            return place + 1
        case Numeric():
            return place + Decimal("0.5")
        case JSONB():
            return json(place)
        case ARRAY():
            return []
    length = getattr(kind, "length", None) or getattr(getattr(kind, "impl", None), "length", None)
    return f"{text(place)} {place}"[-(length or 1000) :]


async def make_row(
    session: AsyncSession, model: Any, place: int, others: Mapping[Any, Sequence[Any]]
) -> Any:
    """A row of any model; `others` are the rows that there are of each table to point at.

    What it cannot know of the values, the test file of the noun says in `VALUES`.
    """
    mapper = inspect(model)
    managed = (mapper.version_id_col, mapper.polymorphic_on)
    values: dict[str, Any] = {}
    keys = itertools.count(place)
    for attribute in mapper.column_attrs:
        column: Any = attribute.columns[0]
        if not isinstance(column, Column):
            continue  # a column property
        if column.foreign_keys:
            (foreign,) = column.foreign_keys
            there = others.get(foreign.column.table, ())
            if there and not (column.nullable and place % 3 == 2):
                row = there[WHICH[next(keys) % len(WHICH)] % len(there)]
                values[attribute.key] = getattr(row, foreign.column.key)
        elif column.computed is None and not any(column is of_orm for of_orm in managed):
            is_empty = column.nullable and place % 3 == 2
            values[attribute.key] = None if is_empty else a_value(column, place)
    special: Callable[[int], dict[str, Any]] = said("VALUES").get(model, lambda place: {})
    row = model(**values | special(place))
    session.add(row)
    await session.flush()
    return row


async def rows_by_table(session: AsyncSession) -> dict[Any, Sequence[Any]]:
    """All rows of the tables that have any, in the order of their keys."""
    found: dict[Any, Sequence[Any]] = {}
    for mapper in db.Base.registry.mappers:
        if mapper.inherits is None:
            rows = await session.scalars(select(mapper.class_).order_by(*mapper.primary_key))
            # An event without a position has no key.
            found[mapper.local_table] = [row for row in rows if row is not None]
    return {table: rows for table, rows in found.items() if rows}


async def make_others(
    session: AsyncSession, count: int, others: Mapping[Any, Sequence[Any]]
) -> dict[type, list[Any]]:
    """So many rows of each model that has none here yet, which point at these and each other."""
    known = {table: list(rows) for table, rows in others.items()}
    made: dict[type, list[Any]] = {}
    for table in db.Base.metadata.sorted_tables:
        if table in known or table.name in ("events", "event_positions"):
            continue
        mappers = [m for m in db.Base.registry.mappers if m.local_table is table]
        models = [m.class_ for m in mappers if len(mappers) == 1 or m.inherits]
        for place in range(count):
            for model in models:
                row = await make_row(session, model, place, known)
                known.setdefault(table, []).append(row)
                made.setdefault(model, []).append(row)
    return made


async def make_world(session: AsyncSession, users: dict[str, db.User]) -> None:
    """A small world: several rows of every noun, every relation in use, all of it awkward.

    Most belongs to the owner, some to the stranger, some to nobody; and rows of one point at rows
    of the other, which the rules would never allow. The owner is a member in every role, of some
    projects that are others' too; one of theirs they are no member of.
    """
    owner, stranger = users["owner"], users["stranger"]
    more = [
        db.User(
            username=f"user {text(place)}{place}",
            email=f"{place}@localhost",
            display_name=text(place),
            is_active=place % 2 == 0,
            created_at=tied(place),
            updated_at=tied(place + 1),
        )
        for place in range(4)
    ]
    models = [
        db.AIModel(
            id=f"model:{place}",
            provider=text(place % 3),
            model_version=text(place),
            capabilities=json(place),
            context_window=place or None,
            input_price=PRICES[place % 5],
            cached_input_price=PRICES[(place + 1) % 5],
            cache_creation_price=PRICES[(place + 3) % 5],
            output_price=PRICES[(place + 2) % 5],
            is_local=place % 2 == 0,
            status=list(db.AIModelStatus)[place % 4],
            model_metadata=json(place + 3),
            created_at=tied(place),
            updated_at=tied(place + 1),
        )
        for place in range(7)
    ]
    projects = [
        db.Project(
            id=db.new_id(),
            name=text(place * 3 % 5),
            description=json(place) if place % 3 else None,
            status=list(db.ProjectStatus)[place % 7],
            owner_id=[owner.id, owner.id, owner.id, stranger.id, None][place % 5],
            max_tasks_per_agent=place if place % 3 else None,
            max_tasks_in_review=place + 1 if place % 2 else None,
            max_tasks_by_type={text(place) or "deploy": place},
            project_metadata=json(place + 1),
            version=place + 1,
            created_at=tied(place),
            updated_at=moment(place),
        )
        for place in range(8)
    ]
    mine, theirs = projects[0], projects[3]
    session.add_all([*more, *models, *projects])
    await session.flush()
    shared, lost = projects[6], projects[5]
    members = [
        {owner: "OWNER", more[0]: "VIEWER", more[1]: "EDITOR"},
        {owner: "EDITOR", more[1]: "OWNER"},
        {owner: "APPROVER"},
        {stranger: "OWNER", more[2]: "APPROVER"},
        {owner: "VIEWER", more[0]: "OWNER"},
        {more[3]: "OWNER"},
        {owner: "VIEWER", more[2]: "EDITOR"},
        {stranger: "VIEWER", more[1]: "APPROVER"},
    ]
    session.add_all(
        db.ProjectMember(project_id=project.id, user_id=user.id, role=db.MemberRole(role))
        for project, roles in zip(projects, members, strict=True)
        for user, role in roles.items()
    )
    agents = [
        db.Agent(
            id=db.new_id(),
            project_id={6: theirs, 7: shared, 8: lost}.get(place, mine).id,
            name=text(place) + str(place // 2),
            type=text(place % 2),
            description=text(place + 1) if place % 3 else None,
            status=list(db.AgentStatus)[place % 7],
            is_active=place % 2 == 0,
            model_id=models[place % 2].id if place != 1 else None,
            prompt_template=text(place + 2),
            configuration=json(place),
            agent_metadata=json(place + 2),
            created_at=tied(place),
            updated_at=tied(place + 1),
        )
        for place in range(9)
    ]
    session.add_all(agents)
    await session.flush()
    tasks = [
        db.Task(
            id=db.new_id(),
            project_id={4: theirs, 9: theirs, 10: shared, 11: lost}.get(place, mine).id,
            title=text(place),
            description=text(place + 1) if place % 2 else None,
            type=text(place + 2) if place % 3 else None,
            status=list(db.TaskStatus)[place % 8],
            blocked_reason=db.BlockedReason.MANUAL if place % 8 == 3 else None,
            priority=place % 3 + 1,
            acceptance_criteria=text(place + 3) if place % 3 else None,
            resource_keys=[text(each) for each in range(place % 4)],
            input=json(place) if place % 2 else None,
            result=json(place + 1) if place % 3 else None,
            error=json(place + 2) if place % 4 else None,
            available_at=moment(place),
            due_at=moment(place + 1) if place % 2 else None,
            started_at=moment(place + 2),
            completed_at=moment(place + 3) if place % 3 else None,
            estimated_seconds=place if place % 2 else None,
            unmet_dependency_count=place % 4,
            cancel_requested=place % 4 == 0,
            task_metadata=json(place),
            agent_id=[agents[0].id, agents[6].id, None][place % 5 % 3],
            created_by_user_id=[owner.id, stranger.id, None][place % 4 % 3],
            created_by_agent_id=[None, agents[0].id, agents[6].id][place % 4 % 3],
            created_at=tied(place),
            updated_at=tied(place + 1),
        )
        for place in range(12)
    ]
    for place, task in enumerate(tasks):
        task.parent_task = [None, tasks[0], tasks[0], tasks[4]][place % 4]
    session.add_all(tasks)
    await session.flush()
    session.add_all(
        db.TaskDependency(
            dependent_id=tasks[later].id,
            dependency_id=tasks[earlier].id,
            on_failure=list(db.OnFailure)[later % 3],
        )
        for later in range(len(tasks))
        for earlier in range(later)
        if (later + earlier) % 3 == 0
    )
    conversations = [
        db.Conversation(
            id=db.new_id(),
            project_id=[mine.id, mine.id, None, theirs.id][place % 4],
            user_id=[owner.id, stranger.id, stranger.id, owner.id, None, owner.id][place % 7 % 6],
            agent_id=[agents[0].id, agents[6].id, None][place % 3],
            title=text(place) if place % 2 else None,
            summary=text(place)[:50],
            conversation_url=f"url-{place}",
            status=list(db.ConversationStatus)[place % 2],
            last_message_at=moment(place) if place % 3 else None,
            conversation_metadata=json(place),
            created_at=tied(place),
            updated_at=moment(place),
        )
        for place in range(11)
    ]
    session.add_all(conversations)
    await session.flush()
    session.add_all(
        db.Message(
            conversation_id=conversations[[0, 1, 2, 0, 3, 1, 6, 0, 2, 0][place]].id,
            sequence=place // 2 + 1 + place % 2 * 100,
            sender=list(db.MessageSender)[place % 4],
            content=text(place),
            parts=json(place) if place % 2 else None,
            timestamp=tied(place),
            edited_at=moment(place) if place % 2 else None,
            message_metadata=json(place + 1),
            user_id=[owner.id, stranger.id, None][place % 5 % 3],
            agent_id=[agents[0].id, agents[6].id, None][place % 5 % 3],
            model_id=[models[0].id, None][place % 3 % 2],
            created_at=moment(place),
        )
        for place in range(10)
    )
    await session.flush()
    first, *rest = await session.scalars(select(db.Message).order_by(db.Message.id))
    for message in rest[-4:]:
        message.parent_message_id = first.id
    tools = [
        db.Tool(
            id=db.new_id(),
            project_id=[mine.id, None, theirs.id, shared.id][place % 4],
            name=text(place // 2),
            tool_version=f"{place}{text(place)}",
            description=text(place + 1) if place % 3 else None,
            capability=text(place + 2) if place % 2 else None,
            source=list(db.ToolSource)[place % 5],
            tool_schema=json(place) if place % 3 else None,
            documentation_url=text(place + 3) if place % 2 else None,
            status=list(db.ToolStatus)[place % 6],
            definition_hash=text(place),
            tool_metadata=json(place + 1),
            version=place + 1,
            created_at=tied(place),
            updated_at=moment(place),
        )
        for place in range(12)
    ]
    session.add_all(tools)
    await session.flush()
    session.add_all(
        db.AgentTool(
            agent_id=agents[place].id,
            tool_id=tools[of].id,
            configuration=json(place + of),
            is_active=(place + of) % 2 == 0,
            added_at=moment(place),
        )
        for place in range(len(agents))
        for of in range(len(tools))
        if (place + of) % 3 == 0
    )
    attempts = [
        db.TaskAttempt(
            id=db.new_id(),
            task_id=tasks[[0, 4, 1, 0, 10, 11, 2, 0][place]].id,
            agent_id=[agents[0].id, agents[6].id, None][place % 3],
            number=place + 1,
            status=list(db.AttemptStatus)[place % 6],
            progress_percent=place * 14 if place % 3 else None,
            status_message=text(place) if place % 4 else None,
            checkpoint=json(place + 2) if place % 4 else None,
            handover=text(place + 1) if place % 3 else None,
            result=json(place) if place % 2 else None,
            error=json(place + 1) if place % 3 else None,
            started_at=tied(place),
            ended_at=moment(place + 2) if place % 2 else None,
            created_at=moment(place),
        )
        for place in range(8)
    ]
    session.add_all(attempts)
    await session.flush()
    # One that is its own, one of a task that others have, and one that others have of ours.
    for here, there in ((0, 0), (3, 1), (4, 2), (10, 4)):
        tasks[here].current_attempt_id = attempts[there].id
        if there != 2:
            await make_lease(
                session, attempts[there], expires_at=moment(there), heartbeat_at=moment(there + 1)
            )
    communications: list[db.Communication] = []
    for place in range(10):
        ends = [agents[0], agents[6], agents[1], agents[7]]
        communications.append(
            db.Communication(
                id=db.new_id(),
                project_id=[mine.id, mine.id, theirs.id, mine.id, shared.id][place % 5],
                from_agent_id=ends[place % 3].id,
                to_agent_id=ends[(place + 1) % 4].id,
                type=text(place % 3),
                content=json(place),
                priority=place % 3 + 1,
                status=list(db.CommunicationStatus)[place % 5],
                correlation_id=text(place) if place % 2 else None,
                reply_to_id=communications[place // 3].id if place % 5 else None,
                task_id=[tasks[0].id, tasks[4].id, None][place % 3],
                sent_at=tied(place),
                delivered_at=moment(place) if place % 2 else None,
                acknowledged_at=moment(place + 1) if place % 3 else None,
                expires_at=moment(place + 2) if place % 4 else None,
                topic=text(place) if place % 3 else None,
                lease_expires_at=moment(place + 3) if place % 5 == 1 else None,
                communication_metadata=json(place + 2),
                created_at=moment(place),
                updated_at=moment(place + 1),
            )
        )
    session.add_all(communications)
    await session.flush()
    said = list(await session.scalars(select(db.Message.id).order_by(db.Message.id)))
    kinds: list[tuple[Any, dict[str, Any]]] = [
        (db.ApprovalRequest, {"approved": True, "comment": text(2)}),
        (db.FeedbackRequest, {"feedback": json(3), "rating": 4}),
        (db.ClarificationRequest, {"answer": text(3)}),
        (db.Notification, {"level": db.NotificationLevel.ERROR, "requires_acknowledgement": True}),
        (db.ApprovalRequest, {}),
        (db.FeedbackRequest, {}),
        (db.ClarificationRequest, {}),
        (db.Notification, {"level": db.NotificationLevel.INFO, "requires_acknowledgement": False}),
    ]
    waiting = {db.InteractionStatus.PENDING, db.InteractionStatus.EXPIRED}
    waiting.add(db.InteractionStatus.CANCELLED)
    for place in range(14):
        kind, answer = kinds[place % 8]
        status = list(db.InteractionStatus)[place % 7]
        session.add(
            kind(
                id=db.new_id(),
                project_id=[mine.id, shared.id, mine.id, theirs.id, mine.id][place % 5],
                task_id=[tasks[0].id, tasks[4].id, None][place % 3],
                agent_id=[None, agents[0].id, agents[6].id][place % 3],
                conversation_id=[conversations[0].id, None, conversations[7].id][place % 3],
                title=text(place),
                content=json(place),
                asked_by_user_id=[owner.id, None, stranger.id][place % 3],
                asked_by_agent_id=[None, agents[0].id, agents[6].id][place % 3],
                blocks_task=place % 2 == 0,
                on_expiry=list(db.OnExpiry)[place % 3],
                status=status,
                priority=place % 3 + 1,
                assignee_id=[owner.id, stranger.id, more[0].id, None][place % 7 % 4],
                expires_at=moment(place) if place % 3 else None,
                responded_by_id=[stranger.id, None, owner.id][place % 3],
                responded_at=None if status in waiting else moment(place),
                interaction_metadata=json(place + 1),
                created_at=tied(place),
                updated_at=moment(place + 1),
                **answer,
            )
        )
    session.add_all(
        db.UsageRecord(
            id=db.new_id(),
            model_id=models[place % 2].id if place % 5 else None,
            model_name=f"{text(place)} {place % 2}" if place % 4 else models[0].id,
            project_id=[mine.id, theirs.id, mine.id, shared.id][place % 4],
            agent_id=[agents[0].id, agents[6].id, None][place % 3],
            task_id=[None, tasks[0].id, tasks[4].id][place % 3],
            attempt_id=[attempts[0].id, None, attempts[1].id][place % 3],
            conversation_id=[conversations[0].id, conversations[7].id, None][place % 3],
            message_id=[said[0], None, said[4]][place % 3],
            user_id=[owner.id, stranger.id, more[0].id, None][place // 2 % 4],
            input_tokens=[0, 1, 2, 2_000_000_000][place % 4],
            cached_input_tokens=place % 2,
            cache_creation_tokens=[0, 0, 1, 5][place % 4],
            output_tokens=[3, 100, 1][place % 3],
            reasoning_tokens=place % 2,
            cost=PRICES[place % 5],
            latency_ms=place if place % 3 else None,
            success=place % 2 == 0,
            request_id=f"{text(place)}{place}" if place % 3 else None,
            trace_id=f"{place:032x}" if place % 3 else None,
            span_id=f"{place:016x}" if place % 3 else None,
            occurred_at=tied(place),
            created_at=moment(place),
        )
        for place in range(10)
    )
    await session.flush()
    for place in range(8):
        bearer: db.User | db.Agent = (owner, agents[0], agents[0], stranger, agents[6])[place % 5]
        await make_token(
            session,
            f"token {place}",
            bearer,
            name=text(place),
            scopes=list(db.TokenScope)[: place % 3],
            expires_at=moment(place) if place % 2 else None,
            revoked_at=moment(place + 1) if place % 3 else None,
            last_used_at=moment(place + 2),
            created_at=tied(place),
        )
    await make_others(session, 8, await rows_by_table(session))
    scopes: list[dict[str, Any]] = [{"agent_id": agents[0].id}, {"task_id": tasks[0].id}]
    for place in range(3):
        limit = {"period": db.BudgetPeriod.DAY, "limit_cost": place + 1, "thresholds": [80]}
        for scope in scopes:
            created = {"id": db.new_id(), "created_at": tied(place)}
            session.add(db.Budget(project_id=mine.id, **created, **scope, **limit))
    asked = await session.scalars(select(db.HumanInteraction).order_by(db.HumanInteraction.id))
    for interaction in asked.all()[-3:]:
        answer = {"user_id": more[-1].id, "outcome": db.AnswerOutcome.ANSWERED}
        answer |= {"interaction_id": interaction.id, "content_hash": interaction.content_hash}
        session.add(db.InteractionAnswer(**answer))
    await session.flush()
    # Behind the back of the ORM, which reads what it writes, and could not read this.
    for column in (
        db.Project.project_metadata,
        db.Task.task_metadata,
        db.AIModel.model_metadata,
        db.Communication.communication_metadata,
        db.HumanInteraction.interaction_metadata,
    ):
        more_so = column.op("||")(cast(literal(BEYOND_FLOAT, Text), JSONB))
        numbers = update(column.class_).where(column.op("?")("number"))
        await session.execute(
            numbers.values({column: more_so}), execution_options={"synchronize_session": False}
        )
