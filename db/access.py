"""How a viewer proves who they are: access tokens, and the administrator of the first start."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from sqlalchemy import delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.agents import Agent, AgentStatus
from db.engine import ReadSession
from db.scopes import Viewer
from db.users import AccessToken, User, UserRole

ADMINISTRATOR = "admin"
DEVELOPMENT = "development"


def hash_token(token: str) -> str:
    """The hash under which a token is stored.

    A plain SHA-256 is enough, unlike for a password: a token has 256 random bits, so there is
    nothing to guess (OWASP, Cryptographic Storage Cheat Sheet).
    """
    return hashlib.sha256(token.encode()).hexdigest()


async def issue_token(
    session: AsyncSession, user: User, name: str, *, lifetime: timedelta | None = None
) -> str:
    """Make a token for the user, good for `lifetime` or until revoked, and return it.

    This is the only time that the token can be seen.
    """
    token = f"troupe_{secrets.token_urlsafe(32)}"
    await AccessToken.create(
        session,
        name=name,
        prefix=token[:12],
        token_hash=hash_token(token),
        user_id=user.id,
        expires_at=None if lifetime is None else func.now() + lifetime,
    )
    return token


async def bearer(session: ReadSession, token: str) -> Viewer | None:
    """The viewer whom a token identifies, none if it is unknown, expired, revoked or orphaned."""
    found = await session.execute(
        select(AccessToken.agent_id, User.id, User.role, User.is_active, Agent.status)
        .join_from(AccessToken, User, AccessToken.user_id == User.id, isouter=True)
        .join(Agent, AccessToken.agent_id == Agent.id, isouter=True)
        .where(
            AccessToken.token_hash == hash_token(token),
            AccessToken.revoked_at.is_(None),
            # A token that is limited to scopes opens nothing as long as scopes are not enforced.
            func.cardinality(AccessToken.scopes) == 0,
            or_(AccessToken.expires_at.is_(None), AccessToken.expires_at > func.now()),
        )
    )
    row = found.one_or_none()
    if row is None:
        return None
    if not row.is_active if row.agent_id is None else row.status is AgentStatus.TERMINATED:
        return None
    return Viewer(row.id, row.agent_id, row.role is UserRole.ADMIN)


async def administrator(session: AsyncSession) -> User | None:
    """The first of the administrators who are active, if there is one.

    On the first start it is made: `admin`, without a password until one is set.
    """
    if await session.scalar(select(~exists().where(User.role == UserRole.ADMIN))):
        row = {"username": ADMINISTRATOR, "email": f"{ADMINISTRATOR}@localhost"}
        # Of several processes that start at once, the others find what the first has made.
        first = insert(User).values(row | {"role": UserRole.ADMIN})
        await session.execute(first.on_conflict_do_nothing())
    active = select(User).where(User.role == UserRole.ADMIN, User.is_active)
    found = await session.scalars(active.order_by(User.created_at, User.id).limit(1))
    return found.one_or_none()


async def development_token(session: AsyncSession) -> tuple[User, str] | None:
    """An administrator, and a token of theirs for development, good for twelve hours.

    Those of earlier starts go on working until they expire, and are cleared away then. None if no
    administrator is active.
    """
    user = await administrator(session)
    if user is None:
        return None
    await session.execute(
        delete(AccessToken).where(
            AccessToken.user_id == user.id,
            AccessToken.name == DEVELOPMENT,
            AccessToken.expires_at < func.now(),
        )
    )
    return user, await issue_token(session, user, DEVELOPMENT, lifetime=timedelta(hours=12))
