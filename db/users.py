"""Users, and the access tokens of users and agents."""

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
    UNLOGGED,
    ShortText,
    UniqueName,
    all_of,
    check,
    children,
    choices,
    defaulted,
    to_many,
    to_one,
)
from db.errors import AlreadyExists, DomainError, Invalid, Rejected

if TYPE_CHECKING:
    from db.agents import Agent
    from db.conversations import Conversation, Message
    from db.interaction_answers import InteractionAnswer
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
    """Sees their projects, and does in each what their role as a member allows."""


class TokenScope(StrEnum):
    """What a token may be used for, within the rights of its user or agent."""

    READ = "READ"
    """Read. Every token can."""
    WORK = "WORK"
    """Do the work of an agent: report, ask, and send messages."""
    WRITE = "WRITE"
    """Do everything that its user or agent may do, except manage the server."""
    ADMINISTER = "ADMINISTER"
    """Manage the server, and see all rows."""


class User(CRUD):
    """A person, or a service that acts as one."""

    __tablename__ = "users"
    __table_args__ = (
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Index(None, "username", "id"),
    )

    username: Mapped[UniqueName] = mapped_column(
        doc="The name to log in with. It is unique, without regard to case."
    )
    email: Mapped[UniqueName] = mapped_column(
        doc="The email address. It is unique, without regard to case."
    )
    display_name: Mapped[ShortText | None] = mapped_column(doc="The name to display.")
    password_hash: Mapped[ShortText | None] = mapped_column(
        doc="The argon2 hash of the password; null until one is set."
    )
    role: Mapped[UserRole] = defaulted(
        UserRole.USER, doc="What the user may do on the whole server."
    )
    is_active: Mapped[bool] = defaulted(True, doc="Whether the user's tokens are accepted.")

    access_tokens: Mapped[list[AccessToken]] = children("user", "The tokens of the user.")
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
        "assignee",
        "The requests of agents that are assigned to the user.",
        foreign_keys="HumanInteraction.assignee_id",
    )
    answered_interactions: Mapped[list[HumanInteraction]] = to_many(
        "responded_by",
        "The requests of agents that the user answered.",
        foreign_keys="HumanInteraction.responded_by_id",
    )
    asked_interactions: Mapped[list[HumanInteraction]] = to_many(
        "asked_by_user",
        "The requests that were made with a token of the user.",
        foreign_keys="HumanInteraction.asked_by_user_id",
    )
    interaction_answers: Mapped[list[InteractionAnswer]] = to_many(
        "user", "The user's answers to requests."
    )
    usage_records: Mapped[list[UsageRecord]] = to_many(
        "user", "The calls of AI models on the user's behalf."
    )


Index("uq_users_username", func.folded(User.username), unique=True)
Index("uq_users_email", func.folded(User.email), unique=True)


class AccessToken(CRUD):
    """A token for the API. Only its hash is stored; the token itself is returned once."""

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

    name: Mapped[ShortText] = mapped_column(doc="A name for the token, such as its purpose.")
    prefix: Mapped[ShortText] = mapped_column(
        doc="The first characters of the token, to recognize it."
    )
    token_hash: Mapped[ShortText] = mapped_column(unique=True, doc="SHA-256 of the token, in hex.")
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    agent_id: Mapped[UUID | None] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    scopes: Mapped[list[TokenScope]] = mapped_column(
        choices(TokenScope),
        default=list,
        server_default=text("'{}'"),
        doc="What the token may be used for; an empty list is no limit.",
    )
    expires_at: Mapped[datetime | None] = mapped_column(doc="When the token stops working.")
    revoked_at: Mapped[datetime | None] = mapped_column(doc="When the token was revoked.")
    last_used_at: Mapped[datetime | None] = mapped_column(
        doc="When the token was last used.", info=UNLOGGED
    )

    user: Mapped[User | None] = to_one("access_tokens", "The user the token identifies.")
    agent: Mapped[Agent | None] = to_one("access_tokens", "The agent the token identifies.")


async def refuse_taken(
    session: AsyncSession, values: Mapping[str, Any], user: User | None = None
) -> None:
    """Check that no other user has the name or the email address in these values.

    Raises Rejected with an AlreadyExists for each that another user has. Of two transactions that
    use the same one at once, the database refuses the second.
    """
    taken: list[DomainError] = []
    for column in (User.username, User.email):
        other = select(User.id).where(column == values.get(column.key))
        if user is not None:
            other = other.where(User.id != user.id)
        if column.key in values and await session.scalar(other):
            message = f"There is already a User with this {column.key}."
            taken.append(AlreadyExists(message, (column.key,)))
    if taken:
        raise Rejected(taken)


async def change_user(session: AsyncSession, user: User, **values: Any) -> User:
    """Change a user. The caller has locked the row. Raises Rejected and Invalid."""
    await refuse_taken(session, values, user)
    if values.get("role", UserRole.ADMIN) is not UserRole.ADMIN:
        await _keep_an_administrator(session, user, "role")
    if not values.get("is_active", True):
        await _keep_an_administrator(session, user, "is_active")
    return await user.update(session, **values)


async def delete_user(session: AsyncSession, user: User) -> None:
    """Delete a user. The caller has locked the row. Raises Invalid."""
    await _keep_an_administrator(session, user, "id")
    await user.delete(session)


# The key of an advisory lock, which nothing else uses ("admins", as bytes).
ADMINISTRATORS = int.from_bytes(b"admins")


async def _keep_an_administrator(session: AsyncSession, user: User, at: str) -> None:
    """Raise Invalid if there is no other active administrator.

    The advisory lock, held until the transaction ends, keeps two transactions from removing the
    last two administrators at once.
    """
    if user.role is not UserRole.ADMIN or not user.is_active:
        return
    await session.execute(select(func.pg_advisory_xact_lock(ADMINISTRATORS)))
    others = exists().where(User.role == UserRole.ADMIN, User.is_active, User.id != user.id)
    if not await session.scalar(select(others)):
        raise Invalid("This is the only active administrator: make somebody else one first.", (at,))
