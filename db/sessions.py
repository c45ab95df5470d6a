"""Sessions: one that only reads, and one that is a viewer's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Result, ScalarResult, inspect, null, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.base import Base, any_of
from db.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    DomainError,
    Invalid,
    NotFound,
    Path,
    Rejected,
)
from db.rights import Right
from db.scopes import Viewer, scope

Model = TypeVar("Model", bound=Base)

# How long PostgreSQL may take to confirm a commit, in seconds.
COMMIT_SECONDS = 10


class OutcomeUnknown(RuntimeError):
    """PostgreSQL was told to commit, and did not say that it has: it may have, or not."""


class ConnectionReplaced(RuntimeError):
    """The connection of a transaction was no longer good; the next transaction gets another.

    Nothing was done, so the same may be done again in a new transaction. The cause says why.
    """


class ReadSession(Protocol):
    """What may be done in a session that only reads; a write through it fails the type check."""

    @property
    def execute(self) -> Callable[..., Awaitable[Result[*tuple[Any, ...]]]]: ...

    @property
    def scalars(self) -> Callable[..., Awaitable[ScalarResult[Any]]]: ...

    @property
    def scalar(self) -> Callable[..., Awaitable[Any]]: ...


class WriteSession(AsyncSession):
    """A transaction of a viewer, who changes only rows on which they have the right to."""

    viewer: Viewer
    right: Right
    """What it takes to do what is done in this transaction."""

    async def fetch(
        self,
        model: type[Model],
        id: object,
        *,
        at: Path = ("id",),
        version: int | None = None,
        lock: bool = True,
        right: Right | None = None,
    ) -> Model:
        """The row with this id, for its viewer to change, locked until the transaction ends.

        The lock (FOR NO KEY UPDATE) keeps writers of this row out, but not those who only add rows
        that point at it. `at` says where in the caller's input the id stands. Raises NotFound if
        the viewer may not see the row, Denied if they may see it but lack the right (the
        transaction's, unless another is named), and Conflict if it is not at the version that the
        caller expects.
        """
        key = inspect(model).primary_key[0]
        statement = select(model, scope(model, self.viewer, right or self.right))
        statement = statement.where(key == id, scope(model, self.viewer))
        if lock:
            statement = statement.with_for_update(key_share=True, of=model)
        found = await self.execute(statement.execution_options(populate_existing=True))
        pair = found.one_or_none()
        if pair is None:
            raise NotFound(model, id, at)
        row: Any = pair[0]
        if not pair[1]:
            message = f"You may see this {model.__name__}, but lack the right to do this to it."
            raise Denied(message, at)
        if version is not None and row.version != version:
            raise Conflict(row, version)
        return row  # type: ignore[no-any-return]

    def in_own_name(self, agent_id: UUID | None, at: Path = ("agent_id",)) -> UUID | None:
        """The agent in whose name something is done; an agent acts in its own. Raises Denied."""
        mine = self.viewer.agent_id
        if mine is None or agent_id in (None, mine):
            return agent_id or mine
        raise Denied("An agent acts only in its own name.", at)

    async def refer(
        self,
        model: type[Base],
        row: Mapping[str, Any],
        at: Path = (),
        *,
        project_id: UUID | None = None,
    ) -> None:
        """See that the foreign keys of a row to be lead to rows that the viewer may see.

        With a project, what belongs to a project must belong to this one, and so must what is part
        of something that does. `at` says where in the caller's input the row stands. Raises
        Rejected with a NotFound or Invalid for each key that does not.
        """
        await self.refer_all(model, {tuple(at): row}, project_id=project_id)

    async def refer_all(
        self,
        model: type[Base],
        rows: Mapping[tuple[str | int, ...], Mapping[str, Any]],
        *,
        project_id: UUID | None = None,
    ) -> None:
        """The same for many rows, each under its place; one statement for each kind of key."""
        faults: list[DomainError] = []
        for relation in inspect(model).relationships:
            if relation.uselist:
                continue
            target: Any = relation.mapper.class_
            ((local, remote),) = relation.local_remote_pairs or ()
            name = str(local.key)
            wanted = {row[name] for row in rows.values() if row.get(name) is not None}
            if not wanted:
                continue
            seen = select(remote, _home(target)).where(
                any_of(remote, wanted), scope(target, self.viewer)
            )
            homes: dict[Any, UUID | None] = dict(iter(await self.execute(seen)))
            for at, row in rows.items():
                key = row.get(name)
                if key is None:
                    continue
                if key not in homes:
                    faults.append(NotFound(target, key, (*at, name)))
                elif project_id is not None and homes[key] not in (None, project_id):
                    sentence = f"This {target.__name__} belongs to another project."
                    faults.append(Invalid(sentence, (*at, name)))
        if faults:
            raise Rejected(faults)

    async def taken(
        self, model: type[Base], ids: Mapping[tuple[str | int, ...], UUID | None]
    ) -> list[DomainError]:
        """The faults of ids, each under its place, that are given twice or that another row has."""
        key: Any = getattr(model, "id")  # noqa: B009 - not every model has one
        given = {id for id in ids.values() if id is not None}
        if not given:
            return []
        taken = set(await self.scalars(select(key).where(any_of(key, given))))
        faults: list[DomainError] = []
        for at, id in ids.items():
            if id in taken:
                faults.append(AlreadyExists("There is already one with this id.", (*at, "id")))
            elif id is not None:
                taken.add(id)
        return faults


def _home(model: Any) -> ColumnElement[Any]:
    """The project that a row of a model belongs to, by itself or as a part of another row."""
    if hasattr(model, "project_id"):
        return model.project_id  # type: ignore[no-any-return]
    for relation in inspect(model).relationships:
        whole = relation.mapper.class_
        ((local, remote),) = relation.local_remote_pairs or [(None, None)]
        if not relation.uselist and not local.nullable and hasattr(whole, "project_id"):
            return select(whole.project_id).where(remote == local).scalar_subquery()
    return null()


async def commit(session: AsyncSession) -> None:
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            await session.commit()
    except Exception as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            raise  # PostgreSQL is there, and says that it has not
        if isinstance(error, ConnectionReplaced):
            raise  # likewise
        raise OutcomeUnknown(
            "The database went away while it was to store this, so nobody knows whether it did."
            " Look before you try again."
        ) from error
