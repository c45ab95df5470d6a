"""The rules: which rows of each model a viewer may see and edit, and who has which right."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Uuid,
    and_,
    exists,
    false,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.orm import aliased

from db.agents import Agent
from db.base import any_of
from db.members import MemberRole, ProjectMember
from db.parameters import bind
from db.rights import Right
from db.scopes import Viewer, rule, scope, visible_with

ROLES = {
    MemberRole.OWNER: {Right.VIEW, Right.WORK, Right.ANSWER, Right.EDIT, Right.OWN},
    MemberRole.EDITOR: {Right.VIEW, Right.WORK, Right.ANSWER, Right.EDIT},
    MemberRole.APPROVER: {Right.VIEW, Right.ANSWER},
    MemberRole.VIEWER: {Right.VIEW},
}
"""The rights of a member on all that belongs to the project."""

AGENTS = {Right.VIEW, Right.WORK}
"""The rights of an agent in its own project."""

OTHERS = {
    "AIModel": "administrators",
    "User": "the user and administrators",
}
"""Who has more rights than VIEW on the rows of models that belong to no project, in words."""


def denial(model: type, right: Right) -> str:
    """The message for a viewer who may see a row, but lacks a right on it."""
    noun = model.__name__
    roles = [role for role, rights in ROLES.items() if right in rights]
    give = ""
    if noun in OTHERS:
        who = OTHERS[noun]
    elif not roles:
        who = "administrators"
    else:
        first = ", ".join(roles[:-1])
        names = f"{first} or {roles[-1]}" if first else roles[-1]
        who = f"members of the project with the role {names}"
        who += " (of a shared tool, administrators)" if noun == "Tool" else ""
        who += ", and agents for their own work," if right in AGENTS else ""
        give = " Owners of the project give roles by addProjectMember and updateProjectMember."
    return (
        f"You may see this {noun}, but not do this to it: that needs the right {right.value}, which"
        f" {who} have.{give}"
    )


def _id(viewer_id: UUID | None) -> Any:
    """The viewer's id as a parameter; NULL equals no id."""
    return bind(viewer_id, Uuid)


@cache
def _alias(model: Any) -> Any:
    """The alias of a model in `_projects`, and nowhere else; a new one makes all columns anew."""
    return aliased(model)


def _projects(viewer: Viewer, right: Right) -> Select[Any]:
    """The ids of the projects on which the viewer has the right; this separates tenants."""
    # Rules read other tables through aliases: when SQLAlchemy joins, it renames the table of the
    # model in the rule, and must not find it elsewhere.
    if viewer.agent_id is not None:
        agent = _alias(Agent)
        may = true() if right in AGENTS else false()
        return select(agent.project_id).where(agent.id == _id(viewer.agent_id), may)
    member = _alias(ProjectMember)
    own = select(member.project_id).where(member.user_id == _id(viewer.user_id))
    roles = [role for role, rights in ROLES.items() if right in rights]
    return own if len(roles) == len(ROLES) else own.where(any_of(member.role, roles))


def _is_in(project_id: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    """Whether a row is of a project on which the viewer has the right.

    An agent has one project. PostgreSQL looks that up first, and then reads its rows by an index;
    for IN, it may read all rows in the order that is asked for, to find those of the project.
    """
    projects = _projects(viewer, right)
    if viewer.agent_id is None:
        return project_id.in_(projects)  # type: ignore[no-any-return]
    return project_id == projects.scalar_subquery()  # type: ignore[no-any-return]


def _has_right_on(project_id: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    """Whether the viewer has the right on a project, for a condition with OR.

    There, PostgreSQL would read all projects of the viewer for IN, and reads one of them for EXISTS
    if there are few rows.
    """
    projects = _projects(viewer, right)
    return exists(projects.where(projects.selected_columns.project_id == project_id))


def _ids(model: Any, viewer: Viewer, right: Right) -> Select[Any]:
    """The ids of the rows of a model on which the viewer has the right."""
    row = aliased(model)
    return select(row.id).where(scope(row, viewer, right))


visible_with("AgentSubscription", "agent", "members and agents of its agent's project")
visible_with("AgentTool", "agent", "members and agents of its agent's project")
visible_with("BudgetAlert", "budget", "members and agents of its budget's project")
visible_with("InteractionAnswer", "interaction", "whoever sees its interaction")
visible_with("Message", "conversation", "whoever sees its conversation")
visible_with("TaskAttempt", "task", "members and agents of its task's project")
visible_with("TaskDependency", "dependent", "members and agents of its tasks' project")
visible_with("WebhookDelivery", "webhook", "owners of its webhook's project")


@rule("Project", "its members and agents")
def _project(project: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return _is_in(project.id, viewer, right)


@rule("Agent", shows=["project"])
@rule("Communication", shows=["project"])
@rule("HumanInteraction", shows=["project"])
@rule("Task", shows=["project"])
@rule("UsageRecord", shows=["project", "model"])
def _of_a_project(row: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return _is_in(row.project_id, viewer, right)


@rule("Budget", shows=["project"])
@rule("ProjectMember", shows=["project", "user"])
def _of_owners(row: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    right = Right.OWN if right is Right.EDIT else right
    return _is_in(row.project_id, viewer, right)


@rule("Webhook", "owners of its project", shows=["project"])
def _of_owners_only(row: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return _is_in(row.project_id, viewer, Right.OWN)


@rule("Tool", "members and agents of its project; everybody, if it has none")
def _tool(tool: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    of_project = _has_right_on(tool.project_id, viewer, right)
    # Everybody sees shared tools; only administrators edit them.
    return or_(of_project, tool.project_id.is_(None)) if right is Right.VIEW else of_project


@rule("Conversation", "members and agents of its project; its user, if it has none")
def _conversation(conversation: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    return or_(
        _has_right_on(conversation.project_id, viewer, right),
        and_(conversation.project_id.is_(None), conversation.user_id == _id(viewer.user_id)),
    )


@rule(
    "Event",
    "members and agents of its project, for tokens those who edit it, for webhooks its owners;"
    " without a project, its user",
    exists=lambda event: event.position.is_not(None),
)
def _event(event: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    if right is not Right.VIEW:
        return false()
    seen = _has_right_on(event.project_id, viewer, right)
    edited = _has_right_on(event.project_id, viewer, Right.EDIT)
    owned = _has_right_on(event.project_id, viewer, Right.OWN)
    is_token = event.entity_type == bind("AccessToken", String)
    is_webhook = event.entity_type == bind("Webhook", String)
    return or_(
        and_(seen, or_(not_(is_token), edited), or_(not_(is_webhook), owned)),
        and_(event.project_id.is_(None), event.owner_id == _id(viewer.user_id)),
    )


@rule("AIModel", "everybody")
def _model(model: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    # Everybody sees the models; only administrators edit them.
    return true() if right is Right.VIEW else false()


@rule("User", "themselves, and members and agents of the projects they are members of")
def _user(user: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    own: ColumnElement[bool] = user.id == _id(viewer.user_id)
    if right is not Right.VIEW:
        return own
    member = aliased(ProjectMember)
    shared = select(member.user_id).where(_is_in(member.project_id, viewer, right))
    return or_(own, user.id.in_(shared))


@rule("AccessToken", "the user or the agent it is for; of an agent, those who edit the agent")
def _token(token: Any, viewer: Viewer, right: Right) -> ColumnElement[bool]:
    edited = token.agent_id.in_(_ids(Agent, viewer, Right.EDIT))
    if right is Right.VIEW:
        edited = or_(edited, token.agent_id == _id(viewer.agent_id))
    return or_(token.user_id == _id(viewer.user_id), edited)
