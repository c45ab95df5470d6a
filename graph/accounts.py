"""Accounts: how people come in, and the tokens by which they and their agents do."""

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
from graph.core.inputs import input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed
from graph.core.rights import ANYBODY
from graph.core.scalars import ID, Line

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

    user_id: ID[db.User] = Field(description="Whose password it is.")
    new_password: Password = Field(
        description=f"The password to be, of at least {passwords.SHORTEST} characters."
    )


@input_of(db.AccessToken)
class CreateAccessTokenInput(BaseModel):
    """A token to be made, for you unless it names an agent or another user."""

    name: Line
    user_id: ID[db.User] | None = None
    agent_id: ID[db.Agent] | None = None
    scopes: list[TokenScope] = []
    expires_at: datetime | None = None


@input_of(db.AccessToken)
class RevokeAccessTokenInput(BaseModel):
    """A token that is to open nothing any more."""

    id: ID[db.AccessToken]


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


WRONG = "There is no active user with this name and password."


async def _verified_user(context: Context, input: LoginInput) -> db.User:
    """The user whose name and password these are. Raises Invalid."""
    right = context.guess(_plain(input.username))
    async with context.read() as session:
        user = await access.user_named(session, input.username)
    # Also for a user who is not there: it takes as long, and is answered alike.
    fits = await passwords.is_password(None if user is None else user.password_hash, input.password)
    if user is None or not fits or not user.is_active:
        # Not for whom: who is in a hurry writes a password there.
        log.warning("a login was refused", extra={"fields": {"address": context.address}})
        raise Invalid(WRONG, ("password",))
    right()
    return user


async def _hash_if_verified(context: Context, input: ChangePasswordInput) -> str:
    """The hash of the new password of a viewer who knows the current one. Raises Invalid."""
    viewer = context.viewer
    right = context.guess(viewer.user_id)
    async with context.read() as session:
        stored = select(db.User.password_hash).where(db.User.id == viewer.user_id)
        password_hash = await session.scalar(stored)
    if not await passwords.is_password(password_hash, input.current_password):
        raise Invalid("This is not your password.", ("current_password",))
    right()
    return await passwords.hash_password(input.new_password)


async def _hash(context: Context, input: SetPasswordInput) -> str:
    """The hash of the new password."""
    return await passwords.hash_password(input.new_password)


@strawberry.type
class Mutation:
    @mutation(ANYBODY, before=_verified_user)
    async def login(self, session: db.WriteSession, input: LoginInput, user: db.User) -> LoggedIn:
        """Get a token for a username and its password; it is good for 30 days, or until logout."""
        issued = await access.log_in(session, user)
        if issued is None:
            raise Invalid(WRONG, ("password",))
        row, token = issued
        # The rest of the operation is done by the user.
        session.viewer = db.Viewer(user.id, None, user.role is db.UserRole.ADMIN, row.id)
        return LoggedIn(user, token)

    @mutation(Right.USE)
    async def logout(self, session: db.WriteSession, input: LogoutInput) -> Changed[db.AccessToken]:
        """Revoke the token that you come with."""
        viewer = session.viewer
        if input.everywhere:
            await access.log_out(session, viewer.user_id)
        await access.revoke(session, viewer.token_id)
        return Changed(viewer.token_id)

    @mutation(Right.USE, before=_hash_if_verified)
    async def change_password(
        self, session: db.WriteSession, input: ChangePasswordInput, hashed: str
    ) -> db.User:
        """Change your password. All tokens that you got by logging in are revoked but this one."""
        user = await session.fetch(db.User, session.viewer.user_id, lock=False)
        await access.set_password(session, user, hashed, session.viewer.token_id)
        return user

    @mutation(Right.ADMINISTER, before=_hash)
    async def set_password(
        self, session: db.WriteSession, input: SetPasswordInput, hashed: str
    ) -> db.User:
        """Give a user a password. Only administrators can."""
        user = await session.fetch(db.User, input.user_id, at=("user_id",), lock=False)
        await access.set_password(session, user, hashed)
        return user

    @mutation(Right.USE)
    async def create_access_token(
        self, session: db.WriteSession, input: CreateAccessTokenInput
    ) -> Issued:
        """Make a token for yourself, or for an agent of a project that you edit.

        A token that is limited to scopes makes only such that are limited to some of them.
        """
        return Issued(*await access.create_token(session, **new_values(input)))

    @mutation(Right.USE)
    async def revoke_access_token(
        self, session: db.WriteSession, input: RevokeAccessTokenInput
    ) -> db.AccessToken:
        """Revoke a token: it opens nothing any more, anywhere, from the next second."""
        token = await session.fetch(db.AccessToken, input.id)
        await access.revoke(session, token.id)
        return token
