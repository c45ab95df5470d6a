"""Authentication: access tokens, logins, and the first administrator."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    String,
    Uuid,
    delete,
    exists,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from db.agents import Agent, AgentStatus
from db.connections import DRIVER_ERRORS
from db.errors import Denied, Invalid
from db.rights import Right
from db.scopes import Viewer
from db.sessions import ReadSession, WriteSession
from db.statements import Statement, value
from db.users import AccessToken, TokenScope, User, UserRole

if TYPE_CHECKING:
    from db.engine import Database

ADMINISTRATOR = "admin"
DEVELOPMENT = "development"
LOGIN = "login"
SESSION = timedelta(days=30)
PREFIX_LENGTH = 12
"""How many characters of a token are stored in clear, so that people recognize it."""


def hash_token(token: str) -> str:
    """The hash under which a token is stored.

    A plain SHA-256 is enough, unlike for a password: a token has 256 random bits and cannot be
    guessed (OWASP, Cryptographic Storage Cheat Sheet).
    """
    return hashlib.sha256(token.encode()).hexdigest()


async def issue_token(
    session: AsyncSession,
    bearer: User | Agent,
    name: str,
    *,
    scopes: Sequence[TokenScope] = (),
    expires_at: datetime | ColumnElement[datetime] | None = None,
) -> tuple[AccessToken, str]:
    """Make a token for a user or an agent, valid until it expires or is revoked.

    Returns its row and the token itself, which is not stored.
    """
    token = f"troupe_{secrets.token_urlsafe(32)}"
    key = {"user_id" if isinstance(bearer, User) else "agent_id": bearer.id}
    row = await AccessToken.create(
        session,
        **key,
        name=name,
        prefix=token[:PREFIX_LENGTH],
        token_hash=hash_token(token),
        scopes=list(dict.fromkeys(scopes)),
        expires_at=expires_at,
    )
    return row, token


def _within(scopes: Collection[str]) -> set[str]:
    """These scopes and those they include: every token has READ, and WRITE includes WORK."""
    return {*scopes, TokenScope.READ} | ({TokenScope.WORK} if TokenScope.WRITE in scopes else set())


async def create_token(
    session: WriteSession,
    name: str,
    *,
    user_id: UUID | None = None,
    agent_id: UUID | None = None,
    scopes: Sequence[TokenScope] = (),
    expires_at: datetime | None = None,
) -> tuple[AccessToken, str]:
    """Make a token for an agent that the viewer may edit, for a user, or by default the viewer.

    Returns its row and the token itself, which is not stored. Raises Invalid, NotFound, and Denied
    if the viewer's own token has fewer scopes.
    """
    viewer = session.viewer
    if user_id is not None and agent_id is not None:
        raise Invalid("A token is a user's or an agent's, not both.", ("agent_id",))
    if viewer.scopes and not (scopes and set(scopes) <= _within(viewer.scopes)):
        raise Denied("Your own token is limited; it makes none that can do more.", ("scopes",))
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise Invalid("This is over already; the token would open nothing.", ("expires_at",))
    bearer: User | Agent
    if agent_id is not None:
        bearer = await session.fetch(
            Agent, agent_id, at=("agent_id",), lock=False, right=Right.EDIT
        )
    else:
        bearer = await session.fetch(User, user_id or viewer.user_id, at=("user_id",), lock=False)
    return await issue_token(session, bearer, name, scopes=scopes, expires_at=expires_at)


async def user_named(session: ReadSession, username: str) -> User | None:
    """The user with this name, without a scope; for logins."""
    found = await session.scalars(select(User).where(User.username == username))
    return found.one_or_none()


async def set_password(session: AsyncSession, user: User, hashed: str, keep: object = None) -> None:
    """Set the hash of a user's password, which takes too long to compute in a transaction.

    Revokes all tokens of the user's logins, except `keep`.
    """
    await user.update(session, password_hash=hashed)
    await log_out(session, user.id, keep)


async def log_in(session: AsyncSession, user: User) -> tuple[AccessToken, str] | None:
    """A token for a user whose password was correct: its row and the token itself.

    None if the password was changed or the user deactivated since it was checked: that revokes the
    user's tokens, so no other may be made. The lock makes such a change wait for this transaction.
    """
    same = (User.id == user.id, User.password_hash == user.password_hash, User.is_active)
    found = await session.scalar(select(User.id).where(*same).with_for_update(read=True))
    if found is None:
        return None
    return await issue_token(session, user, LOGIN, expires_at=func.now() + SESSION)


async def log_out(session: AsyncSession, user_id: UUID | None, keep: object = None) -> None:
    """Revoke all tokens of a user's logins, except `keep`."""
    got = (AccessToken.user_id == user_id, AccessToken.name == LOGIN)
    await _revoke(session, *got, AccessToken.id.is_distinct_from(keep))


async def revoke(session: AsyncSession, token_id: UUID | None) -> None:
    """Revoke a token."""
    await _revoke(session, AccessToken.id == token_id)


async def revoke_tokens(session: AsyncSession, tokens: Collection[str]) -> None:
    """Revoke those of these tokens that this database has."""
    if tokens:
        await _revoke(session, AccessToken.token_hash.in_(map(hash_token, tokens)))


async def _revoke(session: AsyncSession, *which: ColumnElement[bool]) -> None:
    revoked = update(AccessToken).where(*which, AccessToken.revoked_at.is_(None))
    await session.execute(
        revoked.values(revoked_at=func.now()), execution_options={"synchronize_session": False}
    )


@Statement
def _bearers(viewer: Viewer) -> Executable:
    """The tokens with these hashes that are neither expired nor revoked, and whose they are."""
    minute_ago = func.now() - timedelta(minutes=1)
    hashes = value("hashes", ARRAY(String))
    return (
        select(
            AccessToken.id.label("token_id"),
            AccessToken.token_hash,
            AccessToken.agent_id,
            AccessToken.scopes,
            func.coalesce(AccessToken.last_used_at < minute_ago, true()).label("is_stale"),
            User.id,
            User.role,
            User.is_active,
            Agent.status,
        )
        .join_from(AccessToken, User, AccessToken.user_id == User.id, isouter=True)
        .join(Agent, AccessToken.agent_id == Agent.id, isouter=True)
        .where(
            AccessToken.token_hash == func.any(hashes),
            AccessToken.revoked_at.is_(None),
            or_(AccessToken.expires_at.is_(None), AccessToken.expires_at > func.now()),
        )
    )


@Statement
def _used(viewer: Viewer) -> Executable:
    """Set the time of the last use of tokens, to the minute."""
    # Rows that another transaction has locked are skipped, so that no request waits.
    ids = value("token_ids", ARRAY(Uuid))
    free = select(AccessToken.id).where(AccessToken.id == func.any(ids))
    free = free.with_for_update(skip_locked=True)
    used = update(AccessToken).where(AccessToken.id.in_(free))
    return used.values(last_used_at=func.now(), updated_at=AccessToken.updated_at)


async def bearers(database: Database, hashes: Collection[str]) -> dict[str, Viewer]:
    """The viewers of tokens, by the hashes of the tokens.

    A token that is unknown, expired or revoked has none, nor has one of an inactive user or a
    terminated agent.
    """
    viewers, stale = {}, []
    for row in await database.rows(_bearers, hashes=list(hashes)):
        if row["agent_id"] is None:
            is_open = row["is_active"]
        else:
            is_open = row["status"] != AgentStatus.TERMINATED
        if not is_open:
            continue
        scopes = frozenset(row["scopes"])
        viewers[row["token_hash"]] = Viewer(
            row["id"],
            row["agent_id"],
            row["role"] == UserRole.ADMIN and (not scopes or TokenScope.ADMINISTER in scopes),
            row["token_id"],
            scopes,
        )
        if row["is_stale"]:
            stale.append(row["token_id"])
    if stale:
        # A request is accepted even if the database takes no writes.
        with suppress(*DRIVER_ERRORS):
            await database.rows(_used, token_ids=stale)
    return viewers


async def administrator(session: AsyncSession) -> User | None:
    """The first active administrator, or None.

    If there is no administrator at all, `admin` is made, without a password.
    """
    if await session.scalar(select(~exists().where(User.role == UserRole.ADMIN))):
        row = {"username": ADMINISTRATOR, "email": f"{ADMINISTRATOR}@localhost"}
        # Several processes may start at once: the first makes the row.
        first = insert(User).values(row | {"role": UserRole.ADMIN})
        await session.execute(first.on_conflict_do_nothing())
    active = select(User).where(User.role == UserRole.ADMIN, User.is_active)
    found = await session.scalars(active.order_by(User.created_at, User.id).limit(1))
    return found.one_or_none()


async def development_token(session: AsyncSession) -> tuple[User, str] | None:
    """An administrator, and a token of theirs for development, valid for twelve hours.

    Tokens of earlier starts stay valid until they expire or are revoked; expired ones are deleted.
    None if there is no active administrator.
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
    expires_at = func.now() + timedelta(hours=12)
    _, token = await issue_token(session, user, DEVELOPMENT, expires_at=expires_at)
    return user, token
