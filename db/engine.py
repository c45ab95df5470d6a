"""Engines: one for reading, one for writing, over the same database."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar
from uuid import UUID

import asyncpg
import orjson
from asyncpg import OutdatedSchemaCacheError
from sqlalchemy import (
    URL,
    ColumnElement,
    Executable,
    Result,
    ScalarResult,
    event,
    inspect,
    make_url,
    null,
    select,
    text,
)
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from db.base import Base, any_of
from db.connections import connect, is_outdated, is_read_only
from db.embedded import Server, Trouble
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
from db.prepared import Direct
from db.rights import Right
from db.scopes import Viewer, scope
from db.text import dumps
from db.text import loads as exact_loads

log = logging.getLogger("troupe")

Model = TypeVar("Model", bound=Base)

# How long a statement may take, in seconds.
STATEMENT_SECONDS = 30

# Set on every connection, so that no query, lock or forgotten transaction lasts for ever.
TIMEOUTS = {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s"}

# How many statements each engine keeps compiled (SQLAlchemy exceeds it by half), and each of its
# connections keeps prepared. A compiled one is some 800 objects for Python's garbage collector, a
# prepared one 60 for each connection; while it visits them, nobody is answered.
# Writes build the same statements for each request, and compiling one takes a millisecond.
COMPILED = 8
COMPILED_FOR_WRITING = 16
PREPARED = 10

# How long to wait for a free connection, in seconds, before the caller is told to come back.
POOL_TIMEOUT = 3

# How many bytes a statement may read, unless an operator says otherwise.
RESULT_BYTES = 10_000_000

LIMITED = (
    "SELECT (summed.found).* FROM (SELECT found, sum(octet_length(found::text)) OVER"
    " (ROWS UNBOUNDED PRECEDING) AS bytes FROM ({statement}) AS found) AS summed"
    " WHERE 1 / (summed.bytes <= {most})::int = 1"
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
DIVISION_BY_ZERO = "22012"

# How long PostgreSQL may take to say that it has committed, in seconds.
COMMIT_SECONDS = 10

# How often a database that takes no writes is tried with new connections, in seconds.
READ_ONLY_SECONDS = 1

# Why connections are replaced.
CHANGED = "tables were changed"
NO_WRITES = "they take no writes"


# PostgreSQL's code for a disk that is full.
NO_ROOM = "53100"

# More than it keeps in memory, and so in a file for as long as it takes. It needs no right.
LARGE = ("SET LOCAL work_mem = '64kB'", "SELECT count(*) FROM generate_series(1, 100000)")

SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def database_url(url: URL | str) -> URL:
    """The URL as the driver that Troupe uses wants it, whatever driver it names.

    `sslmode`, libpq's parameter, is `ssl` there. Raises ValueError for one it lacks.
    """
    url = make_url(url).set(drivername="postgresql+asyncpg")
    query = {"ssl" if name == "sslmode" else name: value for name, value in url.query.items()}
    if query.get("ssl", SSL_MODES[0]) not in SSL_MODES:
        raise ValueError(f"sslmode is one of {', '.join(SSL_MODES)}")
    unknown = query.keys() - {"host", "port", "ssl"}
    if unknown:
        raise ValueError(f"the parameter {min(unknown)} is not understood; leave it out")
    return url.set(query=query)


def reason(error: BaseException) -> str:
    """Why the database was not to be had, in one line for those who run the server."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0].rstrip(".") if lines else "it does not answer"


def has_no_room(error: BaseException) -> bool:
    """Whether the database could not do something because its disk is full."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == NO_ROOM


@dataclass(frozen=True, slots=True)
class StoredJSON:
    """PostgreSQL's own text of a JSON value, to be passed on untouched."""

    text: str | bytes

    @property
    def fragment(self) -> orjson.Fragment:
        """The text as a part of a larger JSON value."""
        return orjson.Fragment(self.text)


@dataclass(slots=True)
class Tally:
    """What the database has done for somebody."""

    statements: int = 0
    rows: int = 0
    seconds: float = 0.0
    """How long it took; at once, each statement counts. Waiting for a connection is apart, but not
    where the planner reads."""
    texts: list[str] | None = None
    """The statements themselves, where somebody wants to see them."""

    def add(self, statement: str, rows: int, seconds: float) -> None:
        """Count a statement."""
        self.statements += 1
        self.rows += max(rows, 0)
        self.seconds += seconds
        if self.texts is not None:
            self.texts.append(statement)


tally: ContextVar[Tally | None] = ContextVar("tally", default=None)
"""Where the statements of whoever sets it are counted."""


def _begin(connection: Any, cursor: Any, statement: str, *_: object) -> None:
    connection.info["began"] = statement, time.perf_counter()


def _end(connection: Any, cursor: Any, *_: object) -> None:
    counted = tally.get()
    if counted is not None:
        statement, began = connection.info["began"]
        counted.add(statement, cursor.rowcount, time.perf_counter() - began)


class OutcomeUnknown(RuntimeError):
    """PostgreSQL was told to commit, and did not say that it has: it may have, or not."""


class ResultTooLarge(RuntimeError):
    """A statement was to read more bytes than `most`, which an answer may have."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a statement reads more than {most} bytes")
        self.most = most


def _limited(statement: str, most: int) -> str:
    """A query that fails when what it reads has more bytes than `most`, before that is sent.

    The size of a row is that of its text: in memory it may be compressed. The sum of those read
    so far is checked at each row, so that the rest is not read. SQL has no error of one's own to
    raise: it is a division by zero, and nothing else divides.
    """
    return LIMITED.format(statement=statement, most=most)


class Replaced(RuntimeError):
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


async def _commit(session: AsyncSession) -> None:
    try:
        async with asyncio.timeout(COMMIT_SECONDS):
            await session.commit()
    except Exception as error:
        if isinstance(error, DBAPIError) and not error.connection_invalidated:
            raise  # PostgreSQL is there, and says that it has not
        if isinstance(error, Replaced):
            raise  # likewise
        raise OutcomeUnknown(
            "The database went away while it was to store this, so nobody knows whether it did."
            " Look before you try again."
        ) from error


class Database:
    """The connections of a process: `read()` for short reads, `write()` for a transaction."""

    def __init__(
        self,
        url: URL | str,
        *,
        pool_size: int = 10,
        statement_seconds: int = STATEMENT_SECONDS,
        result_bytes: int = RESULT_BYTES,
        server: Server | None = None,
    ) -> None:
        """A server of this process's own is asked why it cannot be reached."""
        self.url = database_url(url)
        self._result_bytes = result_bytes
        self._server = server
        self._is_full = False
        self._settings = TIMEOUTS | {"statement_timeout": f"{statement_seconds}s"}
        driver: dict[str, Any] = {
            "server_settings": {"application_name": "troupe"},
            "timeout": POOL_TIMEOUT,
        }
        options: dict[str, Any] = {
            "connect_args": driver
            | {"async_creator_fn": self._connect, "prepared_statement_cache_size": PREPARED},
            "json_serializer": dumps,
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": POOL_TIMEOUT,
            # An error is logged with its statement; the values may be somebody's secrets.
            "hide_parameters": True,
        }
        # Reads need no transaction: AUTOCOMMIT saves the two round trips of BEGIN and ROLLBACK.
        self.reader: AsyncEngine = create_async_engine(
            self.url,
            isolation_level="AUTOCOMMIT",
            json_deserializer=StoredJSON,
            query_cache_size=COMPILED,
            **options,
        )
        self.writer: AsyncEngine = create_async_engine(
            self.url,
            json_deserializer=exact_loads,
            query_cache_size=COMPILED_FOR_WRITING,
            **options,
        )
        for engine in (self.reader, self.writer):
            event.listen(engine.sync_engine, "before_cursor_execute", _begin)
            event.listen(engine.sync_engine, "after_cursor_execute", _end)
            event.listen(engine.sync_engine, "connect", self._note_opened)
            event.listen(engine.sync_engine, "checkout", self._refuse_unusable)
            event.listen(engine.sync_engine, "handle_error", self._note_error)
        event.listen(
            self.reader.sync_engine, "before_cursor_execute", self._limit_result, retval=True
        )
        event.listen(self.reader.sync_engine, "handle_error", self._name_error)
        event.listen(self.reader.sync_engine, "do_execute", self._read)
        event.listen(self.writer.sync_engine, "handle_error", self._replaced)
        self._generation = 0
        self._replaced_at = -math.inf
        # What SQLAlchemy's engines connect with, without what only they understand.
        _, connecting = self.reader.dialect.create_connect_args(self.url)
        self._direct = Direct(
            pool_size, POOL_TIMEOUT, partial(self._connect, **connecting, **driver)
        )
        self._reading = async_sessionmaker(self.reader, expire_on_commit=False, autoflush=False)
        self._writing = async_sessionmaker(self.writer, class_=WriteSession, expire_on_commit=False)

    def _note_opened(self, _: object, record: Any) -> None:
        record.info["generation"] = self._generation

    def _refuse_unusable(self, connection: Any, record: Any, _: object) -> None:
        # The driver sees when PostgreSQL ends a connection that nobody uses. The pool, told of it
        # as it hands one out, makes another. To ask PostgreSQL would be a round trip each time.
        if (
            connection.driver_connection.is_closed()
            or record.info["generation"] != self._generation
        ):
            raise DisconnectionError

    def _replace(self, generation: int, why: str, *, seconds: float = 0) -> bool:
        """Have all connections replaced that are as old as one that is no longer good.

        This happens when they are used the next time, and not again within so many seconds. Returns
        whether the next connection is newer than that one.
        """
        now = time.monotonic()
        if generation == self._generation and now - self._replaced_at >= seconds:
            self._generation += 1
            self._replaced_at = now
            self._direct.replace()
            log.warning("all connections to the database are replaced: %s", why)
        return generation != self._generation

    def _replaced(self, context: ExceptionContext) -> Replaced | None:
        """What to raise in place of the error of a transaction whose connection is replaced."""
        error = context.original_exception
        why, seconds = (CHANGED, 0) if is_outdated(error) else (NO_WRITES, READ_ONLY_SECONDS)
        if context.connection is None or not (is_outdated(error) or is_read_only(error)):
            return None
        is_replaced = self._replace(context.connection.info["generation"], why, seconds=seconds)
        return Replaced(Replaced.__doc__) if is_replaced else None

    def _read(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        """Run a statement of a session that reads, and if it is outdated, prepare it anew.

        There is no transaction, so what failed is this statement alone.
        """
        try:
            cursor.execute(statement, parameters)
        except Exception as error:
            if not is_outdated(error):
                raise
            self._replace(context.root_connection.info["generation"], CHANGED)
            # All that was prepared until now is forgotten, by SQLAlchemy and by the driver.
            context.dialect._invalidate_schema_cache()
            cursor._invalidate_schema_cache_asof = context.dialect._invalidate_schema_cache_asof
            cursor.execute(statement, parameters)
        return True

    async def state(self) -> tuple[str | None, bool]:
        """The revision that the tables are at, and whether the database takes writes."""
        asked = text(
            "SELECT (SELECT version_num FROM alembic_version),"
            " current_setting('transaction_read_only') = 'off'"
        )
        revision, writes, generation = await self._asked(asked)
        # The connection may be from before the database took writes again.
        if not writes and self._replace(generation, NO_WRITES, seconds=READ_ONLY_SECONDS):
            revision, writes, _ = await self._asked(asked)
        return revision, writes

    async def _asked(self, statement: Executable) -> tuple[str | None, bool, int]:
        async with self.reader.connect() as connection:
            revision, writes = (await connection.execute(statement)).one()
            assert connection.sync_connection is not None
            return revision, writes, connection.sync_connection.info["generation"]

    def _limit_result(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, _: bool
    ) -> tuple[str, Any]:
        if context.compiled is not None and context.compiled.statement.is_select:
            statement = _limited(statement, self._result_bytes)
        return statement, parameters

    def _name_error(self, context: ExceptionContext) -> None:
        self._refuse_too_large(context.original_exception)

    def _refuse_too_large(self, error: BaseException) -> None:
        """Raise ResultTooLarge if that is what an error of PostgreSQL means."""
        if getattr(error, "sqlstate", None) == DIVISION_BY_ZERO:
            raise ResultTooLarge(self._result_bytes) from error

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading. What it loads stays usable after its end."""
        async with self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self, viewer: Viewer, right: Right = Right.EDIT) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        Raises OutcomeUnknown if the connection is lost during the commit, and Replaced if nothing
        was done because the connection was no longer good.
        """
        async with self._writing() as session, session.begin():
            session.viewer, session.right = viewer, right
            yield session
            # What is refused is refused here, so that a commit only fails with its connection.
            await session.flush()
            await _commit(session)

    async def json(
        self, statement: str, arguments: Sequence[Any], seconds: float | None = None
    ) -> bytes:
        """The one JSON value that a statement gives, as PostgreSQL encodes it.

        The statement is the driver's, with `$1` in the place of the first argument. Raises
        TookTooLong if it takes more than so many seconds, and ResultTooLarge.
        """
        began = time.perf_counter()
        try:
            try:
                value: bytes = await self._direct.value(statement, arguments, seconds)
            except OutdatedSchemaCacheError:
                # The driver itself repeats what PostgreSQL refuses as outdated, but not this.
                value = await self._direct.value(statement, arguments, seconds)
        except asyncpg.PostgresError as error:
            self._refuse_too_large(error)
            raise
        counted = tally.get()
        if counted is not None:
            counted.add(statement, 1, time.perf_counter() - began)
        return value

    @property
    def trouble(self) -> Trouble | None:
        """Why the database is not to be had or takes nothing more, if this process knows."""
        if self._is_full:
            return Trouble.NO_ROOM
        return None if self._server is None else self._server.trouble

    async def need_room(self) -> None:
        """Where there was no room to write, see whether there is again. Raises if there is not."""
        if self._is_full:
            async with self.writer.connect() as connection:
                for statement in LARGE:
                    await connection.execute(text(statement))
            self._is_full = False

    def _note_error(self, context: ExceptionContext) -> None:
        if has_no_room(context.original_exception):
            self._is_full = True

    async def _connect(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await connect(self._settings, *arguments, **options)
        except OSError as error:
            if self._server is not None and self._server.trouble is Trouble.NO_ROOM:
                raise asyncpg.DiskFullError("the database has no room left") from error
            raise

    async def dispose(self) -> None:
        """Close all connections."""
        await self._direct.close()
        await self.reader.dispose()
        await self.writer.dispose()
