"""Accounts: how people come in, and the tokens by which they and their agents do."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import strawberry
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select

import db
from db import TokenScope, access, passwords
from db.errors import Invalid
from graph.core.context import Context, Info
from graph.core.mutations import given, input_of, mutation
from graph.core.scalars import AccessTokenID, AgentID, Line, UserID
from graph.limits.guard import guard_of, network

log = logging.getLogger("troupe")

Password = Annotated[
    str, StringConstraints(min_length=passwords.SHORTEST, max_length=passwords.LONGEST)
]
Secret = Annotated[str, "The token itself. It is shown this once; only a hash of it is kept."]


@input_of()
class LoginInput(BaseModel):
    """Who you are."""

    username: Annotated[str, StringConstraints(max_length=255)] = Field(
        description="Your username."
    )
    password: Annotated[str, StringConstraints(max_length=passwords.LONGEST)] = Field(
        description="Your password."
    )


@input_of()
class LogoutInput(BaseModel):
    """Nothing has to be said."""

    everywhere: bool = Field(
        default=False, description="Revoke all tokens that you got by logging in."
    )


@input_of()
class ChangePasswordInput(BaseModel):
    """Another password for you."""

    current_password: Annotated[str, StringConstraints(max_length=passwords.LONGEST)] = Field(
        description="The password as it is."
    )
    new_password: Password = Field(
        description=f"The password to be, of at least {passwords.SHORTEST} characters."
    )


@input_of()
class SetPasswordInput(BaseModel):
    """A password for a user."""

    user_id: UserID = Field(description="Whose password it is.")
    new_password: Password = Field(
        description=f"The password to be, of at least {passwords.SHORTEST} characters."
    )


@input_of(db.AccessToken)
class CreateAccessTokenInput(BaseModel):
    """A token to be made, for you unless it names an agent or another user."""

    name: Line
    user_id: UserID | None = None
    agent_id: AgentID | None = None
    scopes: list[TokenScope] = []
    expires_at: datetime | None = None


@input_of(db.AccessToken)
class RevokeAccessTokenInput(BaseModel):
    """A token that is to open nothing any more."""

    id: AccessTokenID


@dataclass
class LoggedIn:
    """Who came in, and by what."""

    user: db.User
    token: Secret


@dataclass
class Issued:
    """A token that was made."""

    access_token: db.AccessToken
    token: Secret


def _plain(username: str) -> str:
    """A username without case and accents: no spelling of it has guesses of its own."""
    letters = unicodedata.normalize("NFKD", username).upper().casefold()
    return "".join(sign for sign in letters if not unicodedata.combining(sign))


def _guess(context: Context, account: Hashable) -> Callable[[], None]:
    """Count a password that is given; what is returned says that it was right."""
    return guard_of(context).guesses.guess(account, network(context.address))


@strawberry.type
class Mutation:
    @mutation
    async def login(self, info: Info, input: LoginInput) -> LoggedIn:
        """Get a token for a username and its password; it is good for 30 days, or until logout."""
        context = info.context
        right = _guess(context, _plain(input.username))
        async with context.read() as session:
            user = await access.user_named(session, input.username)
        # Also for a user who is not there: it takes as long, and is answered alike.
        fits = await passwords.is_password(
            None if user is None else user.password_hash, input.password
        )
        wrong = Invalid("There is no active user with this name and password.", ("password",))
        if user is None or not fits or not user.is_active:
            # Not for whom: who is in a hurry writes a password there.
            fields = {"address": context.address}
            log.warning("a login was refused", extra={"fields": fields})
            raise wrong
        right()
        async with context.write() as session:
            issued = await access.log_in(session, user)
        if issued is None:
            raise wrong
        row, token = issued
        is_administrator = user.role is db.UserRole.ADMIN
        context.become(db.Viewer(user.id, None, is_administrator, row.id))
        return LoggedIn(user, token)

    @mutation
    async def logout(self, info: Info, input: LogoutInput) -> db.AccessToken:
        """Revoke the token that you come with."""
        viewer = info.context.viewer
        async with info.context.write() as session:
            if input.everywhere:
                await access.log_out(session, viewer.user_id)
            await access.revoke(session, viewer.token_id)
        return db.AccessToken(id=viewer.token_id)

    @mutation
    async def change_password(self, info: Info, input: ChangePasswordInput) -> db.User:
        """Change your password. All tokens that you got by logging in are revoked but this one."""
        context, viewer = info.context, info.context.viewer
        right = _guess(context, viewer.user_id)
        async with context.read() as session:
            stored = select(db.User.password_hash).where(db.User.id == viewer.user_id)
            password_hash = await session.scalar(stored)
        if not await passwords.is_password(password_hash, input.current_password):
            raise Invalid("This is not your password.", ("current_password",))
        right()
        hashed = await passwords.hash_password(input.new_password)
        async with context.write() as session:
            user = await session.fetch(db.User, viewer.user_id, lock=False)
            await access.set_password(session, user, hashed, viewer.token_id)
        return user

    @mutation
    async def set_password(self, info: Info, input: SetPasswordInput) -> db.User:
        """Give a user a password. Only administrators can."""
        hashed = await passwords.hash_password(input.new_password)
        async with info.context.write() as session:
            user = await session.fetch(db.User, input.user_id, at=("user_id",), lock=False)
            await access.set_password(session, user, hashed)
        return user

    @mutation
    async def create_access_token(self, info: Info, input: CreateAccessTokenInput) -> Issued:
        """Make a token for yourself, or for an agent of a project that you edit.

        A token that is limited to scopes makes only such that are limited to some of them.
        """
        async with info.context.write() as session:
            row, token = await access.create_token(session, **given(input))
        return Issued(row, token)

    @mutation
    async def revoke_access_token(
        self, info: Info, input: RevokeAccessTokenInput
    ) -> db.AccessToken:
        """Revoke a token: it opens nothing any more, anywhere, from the next second."""
        async with info.context.write() as session:
            token = await session.fetch(db.AccessToken, input.id)
            await access.revoke(session, token.id)
        return token
