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
    """PostgreSQL did not confirm a commit: the transaction may be committed or not."""


class ConnectionReplaced(RuntimeError):
    """The connection of a transaction had to be replaced.

    Nothing was committed, so the work can be repeated in a new transaction. The cause says why.
    """


class ReadSession(Protocol):
    """A session that only reads: a write through it fails the type check."""

    @property
    def execute(self) -> Callable[..., Awaitable[Result[*tuple[Any, ...]]]]: ...

    @property
    def scalars(self) -> Callable[..., Awaitable[ScalarResult[Any]]]: ...

    @property
    def scalar(self) -> Callable[..., Awaitable[Any]]: ...


class WriteSession(AsyncSession):
    """A transaction of a viewer, who changes only rows on which they have the right."""

    viewer: Viewer
    right: Right
    """The right that this transaction needs."""

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
        """The row with this id, to be changed, locked until the transaction ends.

        The lock (FOR NO KEY UPDATE) blocks writers of this row, but not inserts of rows that refer
        to it. `at` is the path of the id in the input. `right` is that of the transaction unless
        given. Raises NotFound if the viewer may not see the row, Denied if they may see it but lack
        the right, and Conflict if the row is not at the expected version.
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
        """The agent that acts: the viewer, if that is an agent. Raises Denied for another one."""
        own = self.viewer.agent_id
        if own is None or agent_id in (None, own):
            return agent_id or own
        raise Denied("An agent acts only in its own name.", at)

    async def refer(
        self,
        model: type[Base],
        row: Mapping[str, Any],
        at: Path = (),
        *,
        project_id: UUID | None = None,
    ) -> None:
        """Check that the viewer may see the rows that a new row refers to.

        With `project_id`, a row that belongs to a project, itself or as a part of another row, must
        belong to this one. `at` is the path of the new row in the input. Raises Rejected, with a
        NotFound or Invalid for each wrong foreign key.
        """
        await self.refer_all(model, {tuple(at): row}, project_id=project_id)

    async def refer_all(
        self,
        model: type[Base],
        rows: Mapping[tuple[str | int, ...], Mapping[str, Any]],
        *,
        project_id: UUID | None = None,
    ) -> None:
        """The same for many rows, by their paths; one statement for each foreign key."""
        errors: list[DomainError] = []
        for relation in inspect(model).relationships:
            if relation.uselist:
                continue
            target: Any = relation.mapper.class_
            ((local, remote),) = relation.local_remote_pairs or ()
            name = str(local.key)
            wanted = {row[name] for row in rows.values() if row.get(name) is not None}
            if not wanted:
                continue
            seen = select(remote, _project_id(target)).where(
                any_of(remote, wanted), scope(target, self.viewer)
            )
            projects: dict[Any, UUID | None] = dict(iter(await self.execute(seen)))
            for at, row in rows.items():
                key = row.get(name)
                if key is None:
                    continue
                if key not in projects:
                    errors.append(NotFound(target, key, (*at, name)))
                elif project_id is not None and projects[key] not in (None, project_id):
                    message = f"This {target.__name__} belongs to another project."
                    errors.append(Invalid(message, (*at, name)))
        if errors:
            raise Rejected(errors)

    async def taken(
        self, model: type[Base], ids: Mapping[tuple[str | int, ...], UUID | None]
    ) -> list[DomainError]:
        """An error for each id, by its path, that is given twice or that another row has."""
        key: Any = getattr(model, "id")  # noqa: B009 - not every model has one
        given = {id for id in ids.values() if id is not None}
        if not given:
            return []
        taken = set(await self.scalars(select(key).where(any_of(key, given))))
        errors: list[DomainError] = []
        for at, id in ids.items():
            if id in taken:
                errors.append(AlreadyExists("There is already one with this id.", (*at, "id")))
            elif id is not None:
                taken.add(id)
        return errors


def _project_id(model: Any) -> ColumnElement[Any]:
    """The id of the project that a row belongs to, itself or as a part of another row."""
    if hasattr(model, "project_id"):
        return model.project_id  # type: ignore[no-any-return]
    for relation in inspect(model).relationships:
        parent = relation.mapper.class_
        ((local, remote),) = relation.local_remote_pairs or [(None, None)]
        if not relation.uselist and not local.nullable and hasattr(parent, "project_id"):
            return select(parent.project_id).where(remote == local).scalar_subquery()
    return null()


async def commit(session: AsyncSession) -> None:
    """Commit. Raises OutcomeUnknown if PostgreSQL does not confirm it."""
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            await session.commit()
    except Exception as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            raise  # PostgreSQL has refused the commit
        if isinstance(error, ConnectionReplaced):
            raise  # so it has here
        raise OutcomeUnknown(
            "The connection to the database was lost during the commit, so it is not known whether"
            " the change was stored. Check before you try again."
        ) from error
