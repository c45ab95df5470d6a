"""Who may see and edit which rows: one rule for each model, and nothing without a rule.

A rule is a condition on a model (or an alias of it), so that it holds in every statement that
reaches the rows: lookups, connections, joins, filters, counts and the planner's one statement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    and_,
    false,
    inspect,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased

from db.agents import Agent
from db.ai_models import AIModel
from db.attempts import TaskAttempt
from db.base import any_of
from db.communications import Communication
from db.conversations import Conversation, Message
from db.interactions import HumanInteraction
from db.members import ProjectMember
from db.parameters import parameter
from db.projects import Project
from db.rights import AGENTS, ROLES, Right
from db.tasks import Task, TaskDependency
from db.tools import AgentTool, Tool
from db.usage import UsageRecord
from db.users import AccessToken, User


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a user, or an agent of a project."""

    user_id: UUID | None = None
    agent_id: UUID | None = None
    is_administrator: bool = False
    token_id: UUID | None = None
    """The token that says so."""
    scopes: frozenset[str] = frozenset()
    """What the token is limited to; nothing sets no limit."""
    name: str | None = field(init=False, compare=False)
    """What to call them in the log, and where something is counted; nobody has none."""

    def __post_init__(self) -> None:
        name = None if self.user_id is None else f"user:{self.user_id}"
        name = name if self.agent_id is None else f"agent:{self.agent_id}"
        object.__setattr__(self, "name", name)


Rule = Callable[[Any, Viewer, Right], ColumnElement[bool]]
AnyRule = TypeVar("AnyRule", bound=Rule)

rules: dict[type, Rule] = {}
seen_by: dict[type, str] = {}
"""Who sees the rows of each model besides administrators, in words."""
seen_along: set[Any] = set()
"""The relations whose other end is seen, by the rules alone, by whoever sees the row."""

MEMBERS = "members and agents of its project"


def rule(
    model: type, who: str = MEMBERS, along: Sequence[Any] = ()
) -> Callable[[AnyRule], AnyRule]:
    """Declare the rule of a model, and in words who sees its rows.

    The rule gets the model or an alias of it, the viewer, and the right. `along` are the relations
    that it shows with the row: its condition implies that of the rule at their other end, whatever
    the rows hold.
    """

    def declare(function: AnyRule) -> AnyRule:
        rules[model] = function
        seen_by[model] = who
        seen_along.update(along)
        return function

    return declare


def is_always_seen(relation: Any) -> bool:
    """Whether a to-one relation of a row that is seen leads to a row that is seen, and never to
    none.
    """
    return relation.property.class_attribute in seen_along and not any(
        column.nullable for column in relation.property.local_columns
    )


def scope(entity: Any, viewer: Viewer, right: Right = Right.VIEW) -> ColumnElement[bool]:
    """The condition under which the viewer has this right on a row of the model or alias.

    A model without a rule shows nothing, to administrators neither.
    """
    # A subtype in the table of its base is seen by whoever sees the base.
    declared = rules.get(inspect(entity).mapper.base_mapper.class_)
    if declared is None:
        return false()
    if viewer.is_administrator:
        return true()
    return declared(entity, viewer, right)


def _is(viewer_id: UUID | None) -> Any:
    """The viewer's id as a parameter; none equals nothing in SQL."""
    return parameter(viewer_id, Uuid)


@cache
def alias_in_rules(model: Any) -> Any:
    """The alias of a model that rules look through; each new one makes all its columns anew."""
    return aliased(model)


def _projects(viewer: Viewer, right: Right) -> Select[Any]:
    """The ids of the projects on which the viewer has the right: the wall between tenants."""
    # Rules that look into another table do so through an alias of their own: SQLAlchemy renames
    # the tables of a rule when it joins, and must find only the rule's own table to rename.
    if viewer.agent_id is not None:
        agent = alias_in_rules(Agent)
        may = true() if right in AGENTS else false()
        return select(agent.project_id).where(agent.id == _is(viewer.agent_id), may)
    member = alias_in_rules(ProjectMember)
    mine = select(member.project_id).where(member.user_id == _is(viewer.user_id))
    roles = [role for role, rights in ROLES.items() if right in rights]
    return mine if len(roles) == len(ROLES) else mine.where(any_of(member.role, roles))


@rule(Project, "its members and agents")
def _project(project: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return project.id.in_(_projects(viewer, right))  # type: ignore[no-any-return]


@rule(Agent, along=[Agent.project])
@rule(Communication, along=[Communication.project])
@rule(HumanInteraction, along=[HumanInteraction.project])
@rule(Task, along=[Task.project])
@rule(UsageRecord, along=[UsageRecord.project, UsageRecord.model])
def _of_a_project(row: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return row.project_id.in_(_projects(viewer, right))  # type: ignore[no-any-return]


@rule(ProjectMember, along=[ProjectMember.project, ProjectMember.user])
def _member(member: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    right = Right.OWN if right is Right.EDIT else right
    return member.project_id.in_(_projects(viewer, right))  # type: ignore[no-any-return]


@rule(Tool, "members and agents of its project; everybody, if it has none")
def _tool(tool: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    its_own = tool.project_id.in_(_projects(viewer, right))
    # Those that all projects share are everybody's to see, and the administrator's to edit.
    return or_(its_own, tool.project_id.is_(None)) if right is Right.VIEW else its_own


@rule(AgentTool, "members and agents of its agent's project", along=[AgentTool.agent])
def _agent_tool(edge: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    agent = aliased(Agent)
    agents = select(agent.id).where(_of_a_project(agent, viewer, right))
    return edge.agent_id.in_(agents)  # type: ignore[no-any-return]


@rule(TaskAttempt, "members and agents of its task's project", along=[TaskAttempt.task])
def _attempt(attempt: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    task = aliased(Task)
    tasks = select(task.id).where(_of_a_project(task, viewer, right))
    return attempt.task_id.in_(tasks)  # type: ignore[no-any-return]


@rule(TaskDependency, "members and agents of its tasks' project", along=[TaskDependency.dependent])
def _dependency(edge: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    task = aliased(Task)
    tasks = select(task.id).where(_of_a_project(task, viewer, right))
    return edge.dependent_id.in_(tasks)  # type: ignore[no-any-return]


@rule(Conversation, "members and agents of its project; its user, if it has none")
def _conversation(conversation: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return or_(
        conversation.project_id.in_(_projects(viewer, right)),
        and_(conversation.project_id.is_(None), conversation.user_id == _is(viewer.user_id)),
    )


@rule(Message, "whoever sees its conversation", along=[Message.conversation])
def _message(message: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    conversation = aliased(Conversation)
    conversations = select(conversation.id).where(_conversation(conversation, viewer, right))
    return message.conversation_id.in_(conversations)  # type: ignore[no-any-return]


@rule(AIModel, "everybody")
def _model(model: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    # The catalogue is for everybody; its prices are the administrator's business.
    return true() if right is Right.VIEW else false()


@rule(User, "themselves, and members and agents of the projects they are members of")
def _user(user: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    myself: ColumnElement[bool] = user.id == _is(viewer.user_id)
    if right is not Right.VIEW:
        return myself
    member = aliased(ProjectMember)
    together = select(member.user_id).where(member.project_id.in_(_projects(viewer, right)))
    return or_(myself, user.id.in_(together))


@rule(AccessToken, "the user it is for; of an agent, those who edit the agent")
def _token(token: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    agent = aliased(Agent)
    agents = select(agent.id).where(_of_a_project(agent, viewer, Right.EDIT))
    return or_(token.user_id == _is(viewer.user_id), token.agent_id.in_(agents))
