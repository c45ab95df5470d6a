"""Assignments, without GraphQL: whoever may not answer any more has nothing assigned."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import db
from db import MemberRole, UserRole, assignments, member_changes, user_changes
from db.errors import Invalid
from tests import factories
from tests.conftest import ADMIN
from tests.world import stored

ASSIGNED = (
    "SELECT p.name, i.type FROM human_interactions i JOIN projects p ON p.id = i.project_id"
    " WHERE i.assignee_id IS NOT NULL ORDER BY 1, 2"
)
ALL = [
    ("Base", "APPROVAL"),
    ("Base", "NOTIFICATION"),
    ("Other", "APPROVAL"),
    ("Other", "NOTIFICATION"),
]

Change = Callable[[db.WriteSession, db.Project, db.User], Awaitable[Any]]


def as_member(role: MemberRole) -> Change:
    """The user gets another role in a project."""
    return lambda session, project, user: member_changes.change_role(
        session, project, user.id, role
    )


def as_user(**values: Any) -> Change:
    """The user is changed."""
    return lambda session, _, user: user_changes.change_user(session, user, **values)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (as_member(MemberRole.EDITOR), ALL),
        (as_member(MemberRole.VIEWER), ALL[1:]),
        (
            lambda session, project, user: member_changes.remove_member(session, project, user.id),
            ALL[2:],
        ),
        (as_user(display_name="Ann"), ALL),
        (as_user(role=UserRole.ADMIN), ALL),
        (as_user(is_active=False), []),
        (lambda session, _, user: user_changes.delete_user(session, user.id), []),
    ],
    ids=["editor", "viewer", "removed", "named", "administrator", "inactive", "deleted"],
)
async def test_a_change_withdraws_what_a_user_may_not_answer_any_more(
    database: db.Database, change: Change, left: list[tuple[str, str]]
) -> None:
    async with database.write(ADMIN) as session:
        user = await db.User.create(session, username="ann", email="ann@localhost")
        projects = [await factories.make_project(session, None, name) for name in ("Base", "Other")]
        for project in projects:
            await factories.make_member(session, project, user, MemberRole.APPROVER)
            asked = {"project_id": project.id, "title": "?", "content": {}, "assignee_id": user.id}
            await db.ApprovalRequest.create(session, **asked)
            told = {"level": db.NotificationLevel.INFO, "requires_acknowledgement": False}
            await db.Notification.create(session, **asked, **told)

    async with database.write(ADMIN) as session:
        project = await session.get_one(db.Project, projects[0].id)
        await change(session, project, await session.get_one(db.User, user.id))

    assert await stored(database, ASSIGNED) == left


async def test_an_administrator_without_rights_has_only_what_members_answer(
    database: db.Database,
) -> None:
    async with database.write(ADMIN) as session:
        user = await db.User.create(
            session, username="ann", email="ann@localhost", role=UserRole.ADMIN
        )
        await db.User.create(session, username="eve", email="eve@localhost", role=UserRole.ADMIN)
        for name, role in (("Base", MemberRole.APPROVER), ("Other", MemberRole.VIEWER)):
            project = await factories.make_project(session, None, name)
            await factories.make_member(session, project, user, role)
            asked = {"project_id": project.id, "title": "?", "content": {}, "assignee_id": user.id}
            await db.ApprovalRequest.create(session, **asked)

    async with database.write(ADMIN) as session:
        user = await session.get_one(db.User, user.id)
        changed = await user_changes.change_user(session, user, role=UserRole.USER)
        assert (changed is user, changed.role) == (True, UserRole.USER)

    assert await stored(database, ASSIGNED) == ALL[:1]


async def test_a_user_who_is_assigned_and_deleted_at_once(database: db.Database) -> None:
    async with database.write(ADMIN) as session:
        project = await factories.make_project(session, None)
        user = await db.User.create(session, username="ann", email="ann@localhost")
        await factories.make_member(session, project, user, MemberRole.APPROVER)
    values = {"assignee_id": user.id, "project_id": project.id}

    async def assign() -> None:
        async with database.write(ADMIN) as session:
            await assignments.check(session, values)

    async with database.write(ADMIN) as session:
        found = await session.fetch(db.User, user.id)
        assigning = asyncio.create_task(assign())
        await asyncio.sleep(0.3)  # until it waits
        await user_changes.delete_user(session, found.id)
    # It waits for the deletion, and does not hold what the deletion waits for.
    with pytest.raises(Invalid, match="There is no such user"):
        await assigning
