"""Engines: one for reading, one for writing, over the same database."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import URL, AsyncAdaptedQueuePool, Executable, PoolProxiedConnection, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from db import statistics
from db.connections import (
    Generations,
    connect,
    connect_alone,
    database_url,
    is_disk_full,
    is_outdated,
    is_read_only,
)
from db.embedded import Outage, Server
from db.errors import KeyReused
from db.events.actors import actor_of
from db.events.follower import Follower
from db.idempotency import (
    MOST_DELETED,
    ChangedKeys,
    Key,
    delete_expired,
    delete_key_if_expired,
    found,
)
from db.prepared import PreparedPool, counted
from db.replicas import REPLICA_SECONDS, Replica, ReplicaConnection
from db.result_limits import RESULT_BYTES, ResultLimit
from db.rights import Right
from db.scopes import Viewer
from db.sessions import ConnectionReplaced, ReadSession, Transaction, WriteSession, commit
from db.statements import Compiled, Statement, Values
from db.text import StoredJSON, parse_json, to_json
from db.waiters import Answers

# How long a statement may take, in seconds.
STATEMENT_SECONDS = 30

# How long an idempotency key is kept, in seconds.
KEY_SECONDS = 24 * 60 * 60

# Set on every connection, so that no query, lock or idle transaction lasts without a limit.
TIMEOUTS = {"lock_timeout": "10s", "idle_in_transaction_session_timeout": "60s"}

# For statements that have the same plan for all values. PostgreSQL would plan many of them again
# for each value, because it expects more rows in an array of unknown length. A plan made while a
# table is small has to serve when it is large.
BY_KEY = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}

# How many statements each engine keeps compiled (SQLAlchemy exceeds it by half), and each of its
# connections keeps prepared. A compiled one is some 800 objects for Python's garbage collector, a
# prepared one 60 for each connection, and a collection stops the process.
# Writes build the same statements for each request, and compiling one takes a millisecond.
COMPILED = 8
COMPILED_FOR_WRITING = 16
PREPARED = 10

# How long to wait for a free connection, in seconds, before the request is refused.
POOL_TIMEOUT = 3

# How often new connections are tried while the database takes no writes, in seconds.
READ_ONLY_SECONDS = 1

# How many times expired idempotency keys are deleted in one call, MOST_DELETED each time.
MOST_DELETIONS = 20

# Why connections are replaced.
CHANGED = "tables were changed"
NO_WRITES = "they take no writes"

# More data than fits into work_mem, so that PostgreSQL has to write a file. It needs no privilege.
LARGE = ("SET LOCAL work_mem = '64kB'", "SELECT count(*) FROM generate_series(1, 100000)")


# The loggers of SQLAlchemy's own pools have this level.
logging.getLogger(f"{__name__}.CountingPool").setLevel(logging.WARNING)


class CountingPool(AsyncAdaptedQueuePool):
    """A pool of SQLAlchemy that counts who waits for a connection."""

    waiting = 0

    def connect(self) -> PoolProxiedConnection:
        """A connection, once there is one."""
        self.waiting += 1
        try:
            return super().connect()
        finally:
            self.waiting -= 1


class PoolUse(NamedTuple):
    """The connections of a pool."""

    size: int
    """How many there may be."""
    in_use: int
    """How many are used."""
    waiting: int
    """How many statements wait for one."""


class Database:
    """The connections of a process: `read()` for short reads, `write()` for a transaction."""

    def __init__(
        self,
        url: URL | str,
        *,
        pool_size: int = 10,
        statement_seconds: int = STATEMENT_SECONDS,
        result_bytes: int = RESULT_BYTES,
        key_seconds: int = KEY_SECONDS,
        server: Server | None = None,
        replica_url: URL | str | None = None,
        direct_url: URL | str | None = None,
    ) -> None:
        """`server` is the embedded PostgreSQL at this URL, if this process started it.

        `replica_url` leads to a streaming replica of this database, from which queries may read,
        `direct_url` to this database without a pooler in between.
        Idempotency keys are kept for `key_seconds`.
        """
        self.key_seconds = key_seconds
        self.url = database_url(url)
        self._result_limit = ResultLimit(result_bytes)
        self._server = server
        self._is_full = False
        self._statement_seconds = statement_seconds
        self._settings = TIMEOUTS | {"statement_timeout": f"{statement_seconds}s"}
        driver: dict[str, Any] = {
            "server_settings": {"application_name": "troupe"},
            "timeout": POOL_TIMEOUT,
        }
        options: dict[str, Any] = {
            "connect_args": driver
            | {
                "async_creator_fn": partial(self._connect, {}),
                "prepared_statement_cache_size": PREPARED,
            },
            "json_serializer": to_json,
            "poolclass": CountingPool,
            "pool_size": pool_size,
            "max_overflow": 0,
            "pool_timeout": POOL_TIMEOUT,
            # An error is logged with its statement; the values may be somebody's secrets.
            "hide_parameters": True,
        }
        self.reader: AsyncEngine = create_async_engine(
            self.url,
            json_deserializer=StoredJSON,
            query_cache_size=COMPILED,
            **options,
        )
        self.writer: AsyncEngine = create_async_engine(
            self.url,
            json_deserializer=parse_json,
            query_cache_size=COMPILED_FOR_WRITING,
            **options,
        )
        self._listen()
        self._generations = Generations()
        # What SQLAlchemy's engines connect with, without the options of their own.
        _, connecting = self.reader.dialect.create_connect_args(self.url)
        self._prepared, self._by_key = (
            PreparedPool(
                pool_size,
                POOL_TIMEOUT,
                partial(self._connect, settings, **connecting, **driver),
                self._generations,
            )
            for settings in ({}, BY_KEY)
        )
        if direct_url is not None:
            _, connecting = self.reader.dialect.create_connect_args(database_url(direct_url))
        self._open = partial(self._connect, {}, connect_alone, **connecting, **driver)
        self.replica: Replica | None = None
        """The replica, if there is one."""
        if replica_url is not None:
            self.replica = self._replica(database_url(replica_url), pool_size, driver, options)
        self.committed = asyncio.Event()
        """Set by each commit of this process."""
        self.follower = Follower(self.open)
        """Reads the event log for who follows it in this process."""
        self.answers = Answers(self.follower, self.fetch)
        """Waits for the answers of people."""
        self._reading = async_sessionmaker(self.reader, expire_on_commit=False, autoflush=False)
        self._writing = async_sessionmaker(
            self.writer,
            class_=WriteSession,
            sync_session_class=Transaction,
            expire_on_commit=False,
        )

    def _listen(self) -> None:
        """Set up the connections of the engines, and watch what they do."""
        for engine in (self.reader.sync_engine, self.writer.sync_engine):
            statistics.observe(engine)
            # First, because SQLAlchemy asks for its version when it has connected.
            event.listen(engine, "connect", self._on_connect, insert=True)
            event.listen(engine, "checkout", self._on_checkout)
            event.listen(engine, "handle_error", self._on_error)
        event.listen(self.reader.sync_engine, "connect", _read_alone, insert=True)
        self._result_limit.listen(self.reader.sync_engine)
        event.listen(self.reader.sync_engine, "do_execute", self._on_read)
        event.listen(self.writer.sync_engine, "handle_error", self._on_write_error)

    async def _connect(
        self, settings: dict[str, str], how: Callable[..., Awaitable[Any]] = connect, **options: Any
    ) -> Any:
        try:
            return await how(self._settings | settings, **options)
        except OSError as error:
            if self._server is not None and self._server.outage is Outage.DISK_FULL:
                raise asyncpg.DiskFullError("the database has no room left") from error
            raise

    def _replica(
        self, url: URL, pool_size: int, driver: dict[str, Any], options: dict[str, Any]
    ) -> Replica:
        """The replica at a URL, with connections as the primary has them."""
        driver = driver | {"connection_class": ReplicaConnection, "timeout": REPLICA_SECONDS}
        engine = create_async_engine(
            url,
            json_deserializer=StoredJSON,
            query_cache_size=COMPILED,
            **options
            | {
                "connect_args": driver
                | {
                    "async_creator_fn": partial(connect_alone, self._settings),
                    "prepared_statement_cache_size": PREPARED,
                },
                "pool_timeout": REPLICA_SECONDS,
            },
        )
        statistics.observe(engine.sync_engine)
        event.listen(engine.sync_engine, "connect", self._on_connect, insert=True)
        event.listen(engine.sync_engine, "connect", _read_alone, insert=True)
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        self._result_limit.listen(engine.sync_engine)
        _, connecting = engine.dialect.create_connect_args(url)
        prepared, by_key = (
            PreparedPool(
                pool_size,
                REPLICA_SECONDS,
                partial(connect_alone, self._settings | settings, **connecting, **driver),
                self._generations,
            )
            for settings in ({}, BY_KEY)
        )
        return Replica(engine, (prepared, by_key), self.fetch, self._limited)

    def _on_connect(self, connection: Any, record: Any) -> None:
        record.info["generation"] = self._generations.current
        if connection.driver_connection.is_pooled:
            # Statements have no names, so they are prepared again each time.
            connection._prepared_statement_cache = None

    def _on_checkout(self, connection: Any, record: Any, _: object) -> None:
        """Have the pool open another connection in place of one that is closed or outdated.

        The driver notices when PostgreSQL ends a connection that nobody uses, which saves the round
        trip of a ping.
        """
        is_old = record.info["generation"] != self._generations.current
        if is_old or connection.driver_connection.is_closed():
            raise DisconnectionError

    def _on_error(self, context: ExceptionContext) -> None:
        if is_disk_full(context.original_exception):
            self._is_full = True

    def _on_write_error(self, context: ExceptionContext) -> ConnectionReplaced | None:
        """The error to raise instead, if the transaction can be repeated on a new connection."""
        error = context.original_exception
        why, seconds = (CHANGED, 0) if is_outdated(error) else (NO_WRITES, READ_ONLY_SECONDS)
        if context.connection is None or not (is_outdated(error) or is_read_only(error)):
            return None
        generation = context.connection.info["generation"]
        is_replaced = self._generations.replace(generation, why, seconds=seconds)
        return ConnectionReplaced(ConnectionReplaced.__doc__) if is_replaced else None

    def _on_read(self, cursor: Any, statement: str, parameters: Any, context: Any) -> bool:
        """Run a statement of a read session; if it is outdated, prepare and run it again.

        There is no transaction, so nothing but this statement has failed.
        """
        try:
            cursor.execute(statement, parameters)
        except Exception as error:
            if not is_outdated(error):
                raise
            self._generations.replace(context.root_connection.info["generation"], CHANGED)
            # SQLAlchemy and the driver forget all statements that were prepared before.
            context.dialect._invalidate_schema_cache()
            cursor._invalidate_schema_cache_asof = context.dialect._invalidate_schema_cache_asof
            cursor.execute(statement, parameters)
        return True

    async def readiness(self) -> tuple[str | None, bool]:
        """The migration that the database is at, and whether it takes writes."""
        asked = text(
            "SELECT (SELECT version_num FROM alembic_version),"
            " current_setting('transaction_read_only') = 'off'"
        )
        revision, writes, generation = await self._readiness(asked)
        # The connection may be from before the database took writes again.
        if not writes and self._generations.replace(
            generation, NO_WRITES, seconds=READ_ONLY_SECONDS
        ):
            revision, writes, _ = await self._readiness(asked)
        return revision, writes

    async def _readiness(self, statement: Executable) -> tuple[str | None, bool, int]:
        async with self.reader.connect() as connection:
            revision, writes = (await connection.execute(statement)).one()
            assert connection.sync_connection is not None
            return revision, writes, connection.sync_connection.info["generation"]

    async def open(self, **options: Any) -> Any:
        """A connection of the driver, which belongs to no pool. The caller closes it.

        It may stay open, listen and hold locks. Raises SharedSession if a pooler prevents that.
        """
        return await self._open(**options)

    def pools(self) -> dict[str, PoolUse]:
        """The use of each pool at this moment."""
        uses = {
            name: PoolUse(pool.size, pool.in_use, pool.waiting)
            for name, pool in (("compiled", self._prepared), ("by_key", self._by_key))
        }
        engines = [("resolvers", self.reader), ("transactions", self.writer)]
        if self.replica is not None:
            for name, prepared in zip(("compiled", "by_key"), self.replica.pools, strict=True):
                use = PoolUse(prepared.size, prepared.in_use, prepared.waiting)
                uses[f"replica_{name}"] = use
            engines.append(("replica_resolvers", self.replica.engine))
        for name, engine in engines:
            pool = engine.pool
            assert isinstance(pool, CountingPool)
            uses[name] = PoolUse(pool.size(), pool.checkedout(), pool.waiting)
        return uses

    @property
    def outage(self) -> Outage | None:
        """Why the database is down or takes no writes, if this process knows."""
        if self._is_full:
            return Outage.DISK_FULL
        return None if self._server is None else self._server.outage

    async def check_disk_space(self) -> None:
        """If the disk was full, try whether PostgreSQL can write again; raise its error if not."""
        if self._is_full:
            async with self.writer.connect() as connection:
                for statement in LARGE:
                    await connection.execute(text(statement))
            self._is_full = False

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """A short session for reading. What it loads can be used after its end."""
        async with self._reading() as session:
            yield session

    @asynccontextmanager
    async def write(self, viewer: Viewer, right: Right = Right.EDIT) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        Raises OutcomeUnknown if the connection is lost during the commit, and ConnectionReplaced if
        nothing was done because the connection had to be replaced.
        """
        session = self._writing(info={"actor": actor_of(viewer)})
        session.viewer, session.right, session.run_alone = viewer, right, self._run_alone
        try:
            yield session
            if session.has_begun:
                # Rows that PostgreSQL refuses fail here, so that COMMIT fails only with its
                # connection.
                await session.flush()
                # A commit has no deadline: the response must report whether it succeeded.
                session.end_time_limit()
                await commit(session)
                self.committed.set()
        except BaseException:
            session.end_time_limit()
            # One that has committed, or done nothing, has no connection to give back.
            if session.has_begun:
                await asyncio.shield(asyncio.create_task(session.close()))
            raise

    async def _run_alone(
        self, statement: Compiled, values: Values, seconds: float | None = None, *, is_logged: bool
    ) -> Sequence[Any]:
        """The rows of a statement that is a transaction of its own, cancelled after `seconds`."""
        began, arguments = time.perf_counter(), statement.arguments(values)
        generation = self._generations.current
        try:
            seconds = self._statement_seconds if seconds is None else seconds
            rows = await self._by_key.write(statement.sql, arguments, seconds)
        except Exception as error:
            statistics.add_failure(statement.sql, began, error)
            if is_disk_full(error):
                self._is_full = True
            if is_read_only(error) and self._generations.replace(
                generation, NO_WRITES, seconds=READ_ONLY_SECONDS
            ):
                raise ConnectionReplaced(ConnectionReplaced.__doc__) from error
            raise
        statistics.add(statement.sql, len(rows), began)
        if is_logged:
            self.committed.set()
        return rows

    async def run(self, statement: Statement, **values: Any) -> Sequence[Any]:
        """The rows of a statement that is a transaction of its own, of nobody."""
        found, request = statement.compiled(Viewer()), Values(Viewer(), values)
        return await self._run_alone(found, request, is_logged=statement.is_logged)

    async def outcome(self, key: Key) -> ChangedKeys | None:
        """What was done with an idempotency key; None if nothing was, or if it has expired.

        Raises KeyReused if it was used with another input.
        """
        row = next(iter(await self.rows(found, **key.values({}))), None)
        if row is None:
            return None
        if row["request_hash"] != key.request_hash:
            raise KeyReused
        outcome: ChangedKeys = parse_json(row["outcome"])
        return outcome

    async def delete_if_expired(self, key: Key) -> None:
        """Delete an idempotency key that has expired, so that it can be used again."""
        await self.run(delete_key_if_expired, **key.values({}))

    async def delete_expired_keys(self) -> bool:
        """Delete idempotency keys that have expired. Returns False if there are more of them."""
        for _ in range(MOST_DELETIONS):
            if len(await self.run(delete_expired)) < MOST_DELETED:
                return True
        return False

    async def json(
        self, statement: str, arguments: Sequence[Any], *, by_key: bool = False
    ) -> bytes:
        """The one JSON value that a statement returns, as PostgreSQL encodes it.

        The statement has the driver's parameters, `$1` and so on. One that reads rows `by_key` has
        the same plan for all values. Raises ResultTooLarge.
        """
        pool = self._by_key if by_key else self._prepared
        value: bytes = await self._limited(counted(pool.value, statement, arguments))
        return value

    async def fetch(
        self, statement: str, arguments: Sequence[Any], *, by_key: bool = False
    ) -> Sequence[Any]:
        """The rows that a statement returns, as the driver returns them. As `json` otherwise."""
        pool = self._by_key if by_key else self._prepared
        rows: Sequence[Any] = await self._limited(counted(pool.rows, statement, arguments))
        return rows

    async def _limited(self, reading: Awaitable[Any]) -> Any:
        """What is read. Raises ResultTooLarge."""
        try:
            return await reading
        except asyncpg.PostgresError as error:
            self._result_limit.check(error)
            raise

    async def rows(self, statement: Statement, **values: Any) -> Sequence[Any]:
        """The rows of a statement of no viewer, as the driver returns them.

        It finds rows by their keys, and is a transaction of its own.
        """
        found = statement.compiled(Viewer())
        arguments = found.arguments(Values(Viewer(), values))
        rows: Sequence[Any] = await counted(self._by_key.rows, found.sql, arguments)
        return rows

    async def dispose(self) -> None:
        """Close all connections."""
        await self.follower.close()
        self.answers.waiters.close()
        await self._prepared.close()
        await self._by_key.close()
        if self.replica is not None:
            await self.replica.close()
        await self.reader.dispose()
        await self.writer.dispose()


def _read_alone(connection: Any, _: object) -> None:
    """Read without transactions, which saves the two round trips of BEGIN and ROLLBACK.

    A pooler needs transactions.
    """
    if not connection.driver_connection.is_pooled:
        connection.set_isolation_level("autocommit")
