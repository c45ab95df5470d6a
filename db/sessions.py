"""Sessions: one that only reads, and one that is a viewer's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from asyncpg import DataError, IntegrityConstraintViolationError, QueryCanceledError
from sqlalchemy import Connection, Result, ScalarResult, event, inspect, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from db.base import Base, any_of, with_defaults
from db.connections import OUTCOME_UNKNOWN, OutcomeUnknown, is_refusal
from db.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    DomainError,
    Invalid,
    NotFound,
    Path,
    Rejected,
    with_article,
)
from db.events.actors import SET_ACTOR
from db.idempotency import CONSTRAINT, ChangedKeys, Key, KeyTaken, stored
from db.idempotency import found as key_found
from db.returning import Returned, keyed
from db.rights import Right
from db.rules import denial
from db.scopes import Viewer, scope
from db.statements import Compiled, Extend, Statement, Values
from db.writes import inserted, project_id_of, references, updated

Model = TypeVar("Model", bound=Base)

# How long PostgreSQL may take to confirm a commit, in seconds.
COMMIT_SECONDS = 10


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


class Run(Protocol):
    """Runs a statement that is a transaction of its own, and returns its rows."""

    def __call__(
        self, statement: Compiled, values: Values, seconds: float | None = None, *, is_logged: bool
    ) -> Awaitable[Sequence[Any]]:
        """It is cancelled after so many seconds. Only if it is logged, there may be new events."""


class TimeLimit(Protocol):
    """Cancels a transaction when its time is over."""

    def left(self) -> float:
        """The seconds that are left. Raises if there are none."""

    def pause(self) -> None:
        """Let the transaction take any time, until `resume`."""

    def resume(self) -> None:
        """Cancel the transaction when its time is over. Raises if it is over now."""


class Transaction(Session):
    """The session of SQLAlchemy below a WriteSession."""


@event.listens_for(Transaction, "after_begin")
def _name_actor(session: Session, transaction: object, connection: Connection) -> None:
    """Name the actor of the transaction, which its events have."""
    actor = session.info["actor"]
    if actor is not None:
        connection.exec_driver_sql(SET_ACTOR, (actor,))


class WriteSession(AsyncSession):
    """A transaction of a viewer, who changes only rows on which they have the right.

    It begins with its first statement, except those of `alone`. The session of SQLAlchemy is made
    when it is used: a mutation that is one statement needs none.
    """

    viewer: Viewer
    right: Right
    """The right that this transaction needs."""
    run_alone: Run
    """Runs a statement as a transaction of its own."""
    key: Key | None = None
    """The idempotency key, until it is stored."""
    returned: Returned | None = None
    """What a statement that runs alone is to return of the rows that it writes."""
    time_limit: TimeLimit | None = None
    """Cancels the transaction when its time is over."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of AsyncSession."""
        self._options = options

    def __getattr__(self, name: str) -> Any:
        """An attribute that AsyncSession sets when it is made."""
        if self._is_made:
            raise AttributeError(name)
        super().__init__(**self._options)
        return getattr(self, name)

    @property
    def _is_made(self) -> bool:
        return "sync_session" in vars(self)

    @property
    def has_begun(self) -> bool:
        """Whether anything was done in this transaction."""
        return self._is_made and (self.in_transaction() or bool(self.new))

    def end_time_limit(self) -> None:
        """Let the rest of the transaction take any time."""
        if self.time_limit is not None:
            self.time_limit.pause()

    async def alone(
        self,
        statement: Statement,
        *options: Hashable,
        outcome: ChangedKeys,
        model: type[Base] | None = None,
        changed: Collection[Any] = (),
        **values: Any,
    ) -> Sequence[Any]:
        """The rows of a statement that is a transaction of its own, unless this one has begun.

        It saves the round trips of BEGIN and COMMIT, so it is for a mutation that is one statement.
        With `model`, it returns the ids of the rows of this model that it writes, and of others it
        sets only the columns `changed`. No rows mean that nothing was done; the caller then finds
        out why. `outcome` is stored with the idempotency key, if there is one. Raises KeyTaken.
        """
        if self.has_begun:
            return await self.run(statement, *options, **values)
        returned = self.returned
        if returned is not None and not returned.returning.fits(model, changed):
            returned = None
        if self.key is not None:
            values |= self.key.values(outcome)
        extended = _extension(returned, self.key is not None)
        found = statement.compiled(self.viewer, *options, extended=extended)
        request = Values(self.viewer, values)
        limit, seconds = self.time_limit, None
        if limit is not None:
            # It commits by itself, so PostgreSQL has to say whether it did before it was cancelled.
            seconds = limit.left()
            limit.pause()
        try:
            rows = await self.run_alone(found, request, seconds, is_logged=statement.is_logged)
        except QueryCanceledError:
            if limit is not None:
                limit.resume()
                await asyncio.sleep(1)  # until the time limit, which is over, ends it
            raise
        except (IntegrityConstraintViolationError, DataError) as error:
            if getattr(error, "constraint_name", None) == CONSTRAINT:
                raise KeyTaken from error
            rows = []
        if rows:
            self.key = None  # it is stored
            if returned is not None:
                returned.add(rows)
        if limit is not None and not rows:
            limit.resume()
        return rows

    async def run(self, statement: Statement, *options: Hashable, **values: Any) -> Sequence[Any]:
        """The rows of a statement of this transaction."""
        if self.new or self.dirty or self.deleted:
            await self.flush()
        found, request = statement.compiled(self.viewer, *options), Values(self.viewer, values)
        connection = await self.connection()
        result = await connection.exec_driver_sql(found.sql, tuple(found.arguments(request)))
        return result.all() if result.returns_rows else []

    async def store_key(self, outcome: ChangedKeys) -> None:
        """Store the idempotency key in this transaction. Raises KeyTaken."""
        assert self.key is not None
        await self.flush()
        try:
            await self.run(stored, **self.key.values(outcome))
        except IntegrityError as error:
            raise KeyTaken from error

    async def drop_key(self) -> None:
        """Leave the idempotency key to be used later, because there is nothing to do.

        Raises KeyTaken if something was done with it before.
        """
        if self.key is not None and await self.run(key_found, **self.key.values({})):
            raise KeyTaken
        self.key = None

    async def insert(
        self,
        model: type[Model],
        values: Mapping[str, Any],
        *,
        below: str = "project",
        known: Mapping[str, Any] = {},
    ) -> UUID:
        """Insert a row below the row of a relationship, on which the viewer needs the right.

        `values` are from the input, `known` need no check of what they refer to. Returns the id of
        the row. Raises NotFound, Denied, and Rejected with all errors.
        """
        row = with_defaults(model, {**values, **known})
        checked = tuple(
            name
            for name, relation in references(model).items()
            if relation.key != below and values.get(name) is not None
        )
        names = tuple(sorted(row))
        options = model, below, names, checked, self.right
        outcome = {model.__tablename__: [row["id"]]}
        found = await self.alone(inserted, *options, model=model, outcome=outcome, **row)
        if not found:
            await self.check_new(model, values, below)
            # A value that the database itself refuses, which is reported now; or a change of
            # another transaction since.
            found = await self.run(inserted, *options, **row)
            if not found:
                raise Invalid("What this refers to was changed meanwhile. Send it again.")
        return found[0][0]  # type: ignore[no-any-return]

    async def check_new(
        self, model: type[Base], values: Mapping[str, Any], below: str = "project"
    ) -> None:
        """Raise what is wrong with a new row: NotFound, Denied, or Rejected with all errors."""
        relation = inspect(model).relationships[below]
        ((local, _),) = relation.local_remote_pairs or ()
        above: Any = await self.fetch(
            relation.mapper.class_, values[local.name], at=(local.name,), lock=False
        )
        project_id = above.id if local.name == "project_id" else above.project_id
        errors = await self.taken(model, {(): values.get("id")})
        try:
            await self.refer(model, values, project_id=project_id)
        except Rejected as rejected:
            errors += rejected.errors
        if errors:
            raise Rejected(errors)

    async def change(
        self,
        model: type[Model],
        id: UUID,
        values: Mapping[str, Any],
        *,
        version: int | None = None,
    ) -> UUID:
        """Set these values of the row with this id, and return the id.

        Raises NotFound, Denied, Conflict, and Rejected with all errors.
        """
        names = tuple(sorted(values.keys() - {"id"}))
        if names:
            given = {**values, "id": id, "expected_version": version}
            options = model, names, self.right, version is not None
            outcome = {model.__tablename__: [id]}
            if await self.alone(updated, *options, model=model, outcome=outcome, **given):
                return id
        # Nothing was done: nothing changes, or something is wrong.
        row: Any = await self.fetch(model, id, version=version)
        await self.refer(model, values, project_id=getattr(row, "project_id", None))
        await row.update(self, **values)
        return id

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
        statement = select(model, scope(model, self.viewer, right or self.right, by_key=True))
        statement = statement.where(key == id, scope(model, self.viewer, by_key=True))
        if lock:
            statement = statement.with_for_update(key_share=True, of=model)
        found = await self.execute(statement.execution_options(populate_existing=True))
        pair = found.one_or_none()
        if pair is None:
            raise NotFound(model, id, at)
        row: Any = pair[0]
        if not pair[1]:
            raise Denied(denial(model, right or self.right), at)
        if version is not None and row.version != version:
            raise Conflict(row, version)
        return row  # type: ignore[no-any-return]

    def in_own_name(self, agent_id: UUID | None, at: Path = ("agent_id",)) -> UUID | None:
        """The agent that acts: the viewer, if that is an agent. Raises Denied for another one."""
        if agent_id is None:
            return self.viewer.agent_id
        if self.viewer.acts_for(agent_id):
            return agent_id
        raise Denied("An agent acts only in its own name.", at)

    def acting_agent(self, agent_id: UUID | None, at: Path = ("agent_id",)) -> UUID:
        """The same where there has to be an agent. Raises Invalid if none is named."""
        found = self.in_own_name(agent_id, at)
        if found is None:
            raise Invalid("You are not an agent: name one, or use an access token of it.", at)
        return found

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
        for name, relation in references(model).items():
            target: Any = relation.mapper.class_
            ((_, remote),) = relation.local_remote_pairs
            wanted = {row[name] for row in rows.values() if row.get(name) is not None}
            if not wanted:
                continue
            seen = select(remote, project_id_of(target)).where(
                any_of(remote, wanted), scope(target, self.viewer, by_key=True)
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
                errors.append(
                    AlreadyExists(
                        f"There is already {with_article(model.__name__)} with this id.",
                        (*at, "id"),
                    )
                )
            elif id is not None:
                taken.add(id)
        return errors


def _extension(returned: Returned | None, is_keyed: bool) -> Extend | None:
    """What a statement that runs alone does besides."""
    if returned is None:
        return keyed if is_keyed else None
    returning = returned.returning
    return returning.extended_and_keyed if is_keyed else returning.extended


async def commit(session: AsyncSession) -> None:
    """Commit. Raises OutcomeUnknown if PostgreSQL does not confirm it."""
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            await session.commit()
    except Exception as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated and is_refusal(error):
            raise  # PostgreSQL has refused the commit
        if isinstance(error, ConnectionReplaced):
            raise  # so it has here
        raise OutcomeUnknown(OUTCOME_UNKNOWN) from error
