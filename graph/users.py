"""Users and their access tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import StringConstraints
from strawberry import Maybe

import db
from db import Right, UserRole, user_changes
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, connected, one, related, viewers
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    StringFilter,
    filters,
    ordering,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Deleted
from graph.core.scalars import ID, Line, matching

Username = Annotated[
    str,
    matching(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "this must have 1 to 64 letters of A to Z, digits and . _ -, and begin with a letter or"
        " a digit",
    ),
]
Email = Annotated[
    str,
    StringConstraints(max_length=255),
    matching(r"[^@\s]+@[^@\s]+", "this must be an e-mail address, such as ada@example.org"),
]


@filters(db.User)
class UserFilter:
    id: IDFilter | None
    username: StringFilter | None
    email: StringFilter | None
    role: EnumFilter[UserRole] | None
    is_active: BooleanFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None


UserOrder = ordering(db.User, db.User.created_at, db.User.updated_at, db.User.username)


@entity(db.User, where=UserFilter, order=UserOrder)
class User(Node):
    username: str
    email: str
    display_name: str | None
    role: UserRole
    is_active: bool
    created_at: datetime
    updated_at: datetime
    projects = connected(db.User.projects)
    created_tasks = connected(db.User.created_tasks)
    conversations = connected(db.User.conversations)
    messages = connected(db.User.messages)
    access_tokens = connected(db.User.access_tokens)
    memberships = connected(db.User.memberships)
    assigned_interactions = connected(db.User.assigned_interactions)
    answered_interactions = connected(db.User.answered_interactions)
    asked_interactions = connected(db.User.asked_interactions)
    interaction_answers = connected(db.User.interaction_answers)
    usage_records = connected(db.User.usage_records)
    history = history(db.User)


@filters(db.AccessToken)
class AccessTokenFilter:
    id: IDFilter | None
    name: StringFilter | None
    prefix: StringFilter | None
    user_id: IDFilter | None
    agent_id: IDFilter | None
    created_at: DateTimeFilter | None
    expires_at: DateTimeFilter | None
    revoked_at: DateTimeFilter | None
    user = through(db.AccessToken.user)
    agent = through(db.AccessToken.agent)


AccessTokenOrder = ordering(db.AccessToken, db.AccessToken.created_at)


@entity(db.AccessToken, where=AccessTokenFilter, order=AccessTokenOrder)
class AccessToken(Node):
    name: str
    prefix: str
    scopes: list[db.TokenScope]
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    user = related(db.AccessToken.user)
    agent = related(db.AccessToken.agent)


@strawberry.type
class Query:
    me: User | None = viewers(
        db.User,
        lambda viewer: viewer.user_id,
        "The user of your access token; null if it is the token of an agent.",
    )
    user: User | None = one(db.User)
    users: Connection[User] = collection(db.User)
    access_token: AccessToken | None = one(db.AccessToken)
    access_tokens: Connection[AccessToken] = collection(db.AccessToken)


@input_of(db.User)
class CreateUserInput(Repeatable):
    """The user to create."""

    id: ID[db.User] | None = None
    username: Username
    email: Email
    display_name: Line | None = None
    role: UserRole = UserRole.USER


@input_of(db.User)
class UpdateUserInput(Repeatable):
    """The changes to a user. An omitted field stays as it is; null clears it."""

    id: ID[db.User]
    username: Maybe[Username] = None
    email: Maybe[Email] = None
    display_name: Maybe[Line | None] = None
    role: Maybe[UserRole] = None
    is_active: Maybe[bool] = None


@input_of(db.User)
class DeleteUserInput(Repeatable):
    """The user to delete."""

    id: ID[db.User]


@strawberry.type
class Mutation:
    @mutation(Right.ADMINISTER)
    async def create_user(self, session: db.WriteSession, input: CreateUserInput) -> db.User:
        """Create a user. Only for administrators."""
        return await user_changes.create_user(session, **new_values(input))

    @mutation(Right.USE)
    async def update_user(self, session: db.WriteSession, input: UpdateUserInput) -> db.User:
        """Change a user. Only administrators can change more than their own display name.

        At least one administrator must stay active.
        """
        user = await session.fetch(db.User, input.id)
        return await user_changes.change_user(session, user, **changed_values(input))

    @mutation(Right.ADMINISTER)
    async def delete_user(
        self, session: db.WriteSession, input: DeleteUserInput
    ) -> Deleted[db.User]:
        """Delete a user and their tokens; objects they created stay. Only for administrators.

        A project without another owner can then be changed only by administrators. At least one
        administrator must stay active.
        """
        await user_changes.delete_user(session, input.id)
        return Deleted(input.id)
