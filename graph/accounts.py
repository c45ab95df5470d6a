"""Accounts: logins, passwords and access tokens, and who a token stands for."""

from __future__ import annotations

import logging
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

import db
from db import Right, TokenScope, access, passwords
from db.errors import Invalid
from graph.core.context import Context
from graph.core.entities import describe_enum
from graph.core.fields import viewers
from graph.core.inputs import Repeatable, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.rights import ANYBODY, may
from graph.core.scalars import ID, Line
from graph.core.viewers import choices, viewer_object, viewer_type

log = logging.getLogger("troupe")

Password = Annotated[
    str, StringConstraints(min_length=passwords.SHORTEST, max_length=passwords.LONGEST)
]
Secret = Annotated[str, "The token. It is returned only once; the server stores only its hash."]


describe_enum(Right)


def _rights(viewer: db.Viewer) -> list[Right]:
    return [right for right in Right if may(viewer, right)]


@viewer_type
class Viewer:
    """Who an access token stands for: a user, or an agent."""

    user = viewers(
        db.User, lambda viewer: viewer.user_id, "The user; null if it is the token of an agent."
    )
    agent = viewers(
        db.Agent, lambda viewer: viewer.agent_id, "The agent; null if it is the token of a user."
    )
    access_token = viewers(
        db.AccessToken, lambda viewer: viewer.token_id, "The token, with its scopes and its end."
    )
    rights: list[Right] = choices(
        _rights,
        "The rights that the token allows. On a project, a user has those of their role in it.",
    )


@strawberry.type
class Query:
    viewer: Viewer = viewer_object("Who your access token stands for, and what it allows.")


@input_of()
class LoginInput(BaseModel):
    """The username and password to log in with."""

    username: Annotated[str, StringConstraints(max_length=255)] = Field(
        description="Your username."
    )
    password: Annotated[str, StringConstraints(max_length=passwords.LONGEST)] = Field(
        description="Your password."
    )


@input_of()
class LogoutInput(BaseModel):
    """Which tokens to revoke; by default, only the token of this request."""

    everywhere: bool = Field(
        default=False, description="Whether to revoke all tokens from your logins."
    )


@input_of()
class ChangePasswordInput(BaseModel):
    """Your current password and the new one."""

    current_password: Annotated[str, StringConstraints(max_length=passwords.LONGEST)] = Field(
        description="Your current password."
    )
    new_password: Password = Field(
        description=f"The new password, of at least {passwords.SHORTEST} characters."
    )


@input_of()
class SetPasswordInput(BaseModel):
    """The new password of a user."""

    user_id: ID[db.User] = Field(description="The user whose password to set.")
    new_password: Password = Field(
        description=f"The new password, of at least {passwords.SHORTEST} characters."
    )


@input_of(db.AccessToken)
class CreateAccessTokenInput(BaseModel):
    """The token to create: for an agent, for a user, or by default for yourself."""

    name: Line
    user_id: ID[db.User] | None = None
    agent_id: ID[db.Agent] | None = None
    scopes: list[TokenScope] = []
    expires_at: datetime | None = None


@input_of(db.AccessToken)
class RevokeAccessTokenInput(Repeatable):
    """The token to revoke."""

    id: ID[db.AccessToken]


@dataclass
class LoggedIn:
    """The user who logged in, and the new token."""

    user: db.User
    token: Secret


@dataclass
class Issued:
    """The new token: its row and the token itself."""

    access_token: db.AccessToken
    token: Secret


def _normalized(username: str) -> str:
    """The username without case and accents, so that all its spellings share one rate limit."""
    letters = unicodedata.normalize("NFKD", username).upper().casefold()
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


WRONG_LOGIN = "There is no active user with this name and password."


async def _verified_user(context: Context, input: LoginInput) -> db.User:
    """The user with this username and password. Raises Invalid."""
    correct = context.guess(_normalized(input.username))
    async with context.read() as session:
        user = await access.user_named(session, input.username)
    # Also checked if there is no such user, so that the response and its time do not show it.
    is_correct = await passwords.is_password(
        None if user is None else user.password_hash, input.password
    )
    if user is None or not is_correct or not user.is_active:
        # Without the username: some users type their password there.
        log.warning("a login was refused", extra={"fields": {"address": context.address}})
        raise Invalid(WRONG_LOGIN, ("password",))
    correct()
    return user


async def _hash_if_verified(context: Context, input: ChangePasswordInput) -> str:
    """The hash of the new password, if the current one is correct. Raises Invalid."""
    viewer = context.viewer
    correct = context.guess(viewer.user_id)
    async with context.read() as session:
        stored = select(db.User.password_hash).where(db.User.id == viewer.user_id)
        password_hash = await session.scalar(stored)
    if not await passwords.is_password(password_hash, input.current_password):
        raise Invalid("This is not your current password.", ("current_password",))
    correct()
    return await passwords.hash_password(input.new_password)


async def _hash(context: Context, input: SetPasswordInput) -> str:
    """The hash of the new password."""
    return await passwords.hash_password(input.new_password)


@strawberry.type
class Mutation:
    @mutation(ANYBODY, before=_verified_user)
    async def login(self, session: db.WriteSession, input: LoginInput, user: db.User) -> LoggedIn:
        """Create a token for a user by their password. It is valid for 30 days or until logout."""
        issued = await access.log_in(session, user)
        if issued is None:
            raise Invalid(WRONG_LOGIN, ("password",))
        row, token = issued
        # This user is the viewer of the rest of the operation.
        session.viewer = db.Viewer(user.id, None, user.role is db.UserRole.ADMIN, row.id)
        return LoggedIn(user, token)

    @mutation(Right.USE)
    async def logout(self, session: db.WriteSession, input: LogoutInput) -> Changed[db.AccessToken]:
        """Revoke the token of this request."""
        viewer = session.viewer
        if input.everywhere:
            await access.log_out(session, viewer.user_id)
        await access.revoke(session, viewer.token_id)
        return Changed(viewer.token_id)

    @mutation(Right.USE, before=_hash_if_verified)
    async def change_password(
        self, session: db.WriteSession, input: ChangePasswordInput, hashed: str
    ) -> db.User:
        """Change your password, and revoke all tokens from your logins except this one."""
        user = await session.fetch(db.User, session.viewer.user_id, lock=False)
        await access.set_password(session, user, hashed, session.viewer.token_id)
        return user

    @mutation(Right.ADMINISTER, before=_hash)
    async def set_password(
        self, session: db.WriteSession, input: SetPasswordInput, hashed: str
    ) -> db.User:
        """Set the password of a user. Only for administrators."""
        user = await session.fetch(db.User, input.user_id, at=("user_id",), lock=False)
        await access.set_password(session, user, hashed)
        return user

    @mutation(Right.USE)
    async def create_access_token(
        self, session: db.WriteSession, input: CreateAccessTokenInput
    ) -> Issued:
        """Create a token for yourself, or for an agent of a project that you may edit.

        A token that is limited to scopes can create only tokens with the same or fewer scopes.
        """
        return Issued(*await access.create_token(session, **new_values(input)))

    @mutation(Right.USE)
    async def revoke_access_token(
        self, session: db.WriteSession, input: RevokeAccessTokenInput
    ) -> db.AccessToken:
        """Revoke a token. Within a second, no server accepts it any more."""
        token = await session.fetch(db.AccessToken, input.id)
        await access.revoke(session, token.id)
        return token
