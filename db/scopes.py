"""Who may see and edit which rows: one rule for each model, and nothing without a rule.

A rule is a condition on a model (or an alias of it), so that it holds in every statement that
reaches the rows: lookups, connections, joins, filters, counts and the planner's one statement.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Uuid,
    and_,
    bindparam,
    false,
    inspect,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased

from db.agents import Agent
from db.ai_models import AIModel
from db.conversations import Conversation, Message
from db.projects import Project
from db.tasks import Task, TaskDependency
from db.users import AccessToken, User


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a user, or an agent of a project."""

    user_id: UUID | None = None
    agent_id: UUID | None = None
    is_administrator: bool = False


class Right(Enum):
    """What a viewer wants to do with a row."""

    VIEW = "VIEW"
    EDIT = "EDIT"


Rule = Callable[[Any, Viewer, Right], ColumnElement[bool]]
AnyRule = TypeVar("AnyRule", bound=Rule)

rules: dict[type, Rule] = {}


def rule(model: type) -> Callable[[AnyRule], AnyRule]:
    """Declare the rule of a model. It gets the model or an alias of it, the viewer, the right."""

    def declare(function: AnyRule) -> AnyRule:
        rules[model] = function
        return function

    return declare


def scope(entity: Any, viewer: Viewer, right: Right = Right.VIEW) -> ColumnElement[bool]:
    """The condition under which the viewer has this right on a row of the model or alias.

    A model without a rule shows nothing, to administrators neither.
    """
    declared = rules.get(inspect(entity).mapper.class_)
    if declared is None:
        return false()
    if viewer.is_administrator:
        return true()
    return declared(entity, viewer, right)


def _is(viewer_id: UUID | None) -> Any:
    """The viewer's id as a parameter; none equals nothing in SQL."""
    return bindparam(None, viewer_id, Uuid, unique=True)


def _projects(viewer: Viewer, right: Right) -> Select[Any]:
    """The ids of the projects on which the viewer has the right: the wall between tenants."""
    # Rules that look into another table do so through an alias of their own: SQLAlchemy renames
    # the tables of a rule when it joins, and must find only the rule's own table to rename.
    project = aliased(Project)
    return select(project.id).where(_project(project, viewer, right))


@rule(Project)
def _project(project: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    if viewer.agent_id is None:
        return project.owner_id == _is(viewer.user_id)  # type: ignore[no-any-return]
    if right is Right.EDIT:
        return false()
    agent = aliased(Agent)
    mine = select(agent.project_id).where(agent.id == _is(viewer.agent_id))
    return project.id.in_(mine)  # type: ignore[no-any-return]


@rule(Agent)
@rule(Task)
def _of_a_project(row: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return row.project_id.in_(_projects(viewer, right))  # type: ignore[no-any-return]


@rule(TaskDependency)
def _dependency(edge: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    task = aliased(Task)
    tasks = select(task.id).where(_of_a_project(task, viewer, right))
    return edge.dependent_id.in_(tasks)  # type: ignore[no-any-return]


@rule(Conversation)
def _conversation(conversation: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return or_(
        conversation.project_id.in_(_projects(viewer, right)),
        and_(conversation.project_id.is_(None), conversation.user_id == _is(viewer.user_id)),
    )


@rule(Message)
def _message(message: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    conversation = aliased(Conversation)
    conversations = select(conversation.id).where(_conversation(conversation, viewer, right))
    return message.conversation_id.in_(conversations)  # type: ignore[no-any-return]


@rule(AIModel)
def _model(model: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    # The catalogue is for everybody; its prices are the administrator's business.
    return true() if right is Right.VIEW else false()


@rule(User)
def _user(user: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return user.id == _is(viewer.user_id)  # type: ignore[no-any-return]


@rule(AccessToken)
def _token(token: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    agent = aliased(Agent)
    agents = select(agent.id).where(_of_a_project(agent, viewer, Right.EDIT))
    return or_(token.user_id == _is(viewer.user_id), token.agent_id.in_(agents))
