"""Users and the access tokens by which users and agents identify themselves."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from db.base import (
    CRUD,
    ShortText,
    UniqueName,
    all_of,
    check,
    children,
    choice,
    choices,
    to_many,
    to_one,
)
from db.errors import AlreadyExists, DomainError, Invalid, Rejected

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation, Message
    from db.interactions import HumanInteraction
    from db.members import ProjectMember
    from db.projects import Project
    from db.tasks import Task
    from db.usage import UsageRecord


class UserRole(StrEnum):
    """What a user may do on the whole server."""

    ADMIN = "ADMIN"
    """Sees and edits everything."""
    USER = "USER"
    """Sees the projects they are a member of, and does there what their role allows."""


class TokenScope(StrEnum):
    """What a token is limited to. It never opens more than its bearer's rights."""

    READ = "READ"
    """To look, and nothing more. Every token can."""
    WORK = "WORK"
    """To do what workers do: say what they did, ask, and talk."""
    WRITE = "WRITE"
    """To do whatever its bearer can, short of managing the server."""
    ADMINISTER = "ADMINISTER"
    """To manage the server, and see all that is on it."""


class User(CRUD):
    """A person, or a service that acts as one."""

    __tablename__ = "users"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "username", "id"),
    )

    username: Mapped[UniqueName] = mapped_column(
        doc="The name to log in with, unique whatever its case."
    )
    email: Mapped[UniqueName] = mapped_column(
        doc="The address to write to, unique whatever its case."
    )
    display_name: Mapped[ShortText | None] = mapped_column(doc="The name to show to people.")
    password_hash: Mapped[ShortText | None] = mapped_column(
        doc="The argon2 hash of the password; none until one is set."
    )
    role: Mapped[UserRole] = mapped_column(
        choice(UserRole),
        default=UserRole.USER,
        server_default=UserRole.USER,
        doc="What the user may do on the whole server.",
    )
    is_active: Mapped[bool] = mapped_column(
        default=True,
        server_default=text("true"),
        doc="An inactive user's tokens open nothing.",
    )

    access_tokens: Mapped[list[AccessToken]] = children(
        "user", "The tokens that open the API as this user."
    )
    projects: Mapped[list[Project]] = to_many("owner", "The projects the user owns.")
    created_tasks: Mapped[list[Task]] = to_many("created_by_user", "The tasks the user created.")
    conversations: Mapped[list[Conversation]] = to_many(
        "user", "The conversations the user takes part in."
    )
    messages: Mapped[list[Message]] = to_many("user", "The messages the user wrote.")
    memberships: Mapped[list[ProjectMember]] = children(
        "user", "The projects the user is a member of."
    )
    assigned_interactions: Mapped[list[HumanInteraction]] = to_many(
        "assignee", "What agents ask of this user.", foreign_keys="HumanInteraction.assignee_id"
    )
    answered_interactions: Mapped[list[HumanInteraction]] = to_many(
        "responded_by", "What the user answered.", foreign_keys="HumanInteraction.responded_by_id"
    )
    usage_records: Mapped[list[UsageRecord]] = to_many(
        "user", "The calls of AI models on the user's behalf."
    )


Index("uq_users_username", func.folded(User.username), unique=True)
Index("uq_users_email", func.folded(User.email), unique=True)


class AccessToken(CRUD):
    """A key to the API. Only a hash of it is stored; the token itself was shown once."""

    __tablename__ = "access_tokens"
    __table_args__ = (
        all_of("scopes", TokenScope),
        check(
            "num_nonnulls(user_id, agent_id) = 1",
            "one_bearer",
            "An access token is of one user or of one agent.",
        ),
        Index(None, "created_at", "id"),
        Index(None, "user_id", "created_at", "id"),
        Index(None, "agent_id", "created_at", "id"),
    )

    name: Mapped[ShortText] = mapped_column(doc="What the token is for, as its owner put it.")
    prefix: Mapped[ShortText] = mapped_column(
        doc="The first characters of the token, to tell it from others."
    )
    token_hash: Mapped[ShortText] = mapped_column(unique=True, doc="SHA-256 of the token, in hex.")
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    scopes: Mapped[list[TokenScope]] = mapped_column(
        choices(TokenScope),
        default=list,
        server_default=text("'{}'"),
        doc="What the token is limited to; an empty list sets no limit beyond its bearer's rights.",
    )
    expires_at: Mapped[datetime | None] = mapped_column(doc="When the token stops working.")
    revoked_at: Mapped[datetime | None] = mapped_column(doc="When the token was revoked.")
    last_used_at: Mapped[datetime | None] = mapped_column(doc="When the token was last used.")

    user: Mapped[User | None] = to_one("access_tokens", "The user the token identifies.")
    agent: Mapped[Agent | None] = to_one("access_tokens", "The agent the token identifies.")


async def refuse_taken(
    session: AsyncSession, values: Mapping[str, Any], user: User | None = None
) -> None:
    """See that no other user has the name or the address in these values; they are unique.

    Raises Rejected with an AlreadyExists for each that is taken. Of two who take the same at once,
    the database refuses the second.
    """
    taken: list[DomainError] = []
    for column in (User.username, User.email):
        other = select(User.id).where(column == values.get(column.key))
        if user is not None:
            other = other.where(User.id != user.id)
        if column.key in values and await session.scalar(other):
            message = f"There is already one with this {column.key}."
            taken.append(AlreadyExists(message, (column.key,)))
    if taken:
        raise Rejected(taken)


async def change_user(session: AsyncSession, user: User, **values: Any) -> User:
    """Change a user, whom the caller has locked. Raises Rejected and Invalid."""
    await refuse_taken(session, values, user)
    if values.get("role", UserRole.ADMIN) is not UserRole.ADMIN:
        await _keep_an_administrator(session, user, "role")
    if not values.get("is_active", True):
        await _keep_an_administrator(session, user, "is_active")
    return await user.update(session, **values)


async def delete_user(session: AsyncSession, user: User) -> None:
    """Delete a user, whom the caller has locked. Raises Invalid."""
    await _keep_an_administrator(session, user, "id")
    await user.delete(session)


# Any number that nothing else locks ("admins", as bytes).
ADMINISTRATORS = int.from_bytes(b"admins")


async def _keep_an_administrator(session: AsyncSession, user: User, at: str) -> None:
    """Raise Invalid if nobody else is an administrator who is active.

    Whoever takes an administrator away is alone with it until the transaction ends: two who take
    each other away would not see that none is left.
    """
    if user.role is not UserRole.ADMIN or not user.is_active:
        return
    await session.execute(select(func.pg_advisory_xact_lock(ADMINISTRATORS)))
    others = exists().where(User.role == UserRole.ADMIN, User.is_active, User.id != user.id)
    if not await session.scalar(select(others)):
        raise Invalid("This is the only active administrator: make somebody else one first.", (at,))
