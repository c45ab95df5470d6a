"""Connections through a pooler, such as PgBouncer in transaction mode.

Such a pooler may run each transaction of a connection in another session of PostgreSQL. What
belongs to a session is then lost, or meant for others: settings, prepared statements, notifications
and locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import asyncpg

# Settings that do not make sense in a transaction: its level is named when it begins, and sessions
# are the pooler's.
OF_SESSIONS = {"default_transaction_isolation", "idle_session_timeout"}

# How often two connections are compared: a pooler may have given them other sessions by chance.
COMPARISONS = 5

OWN_PID = "SELECT pg_backend_pid()"

# Types with lower ids come with PostgreSQL, and are the same in each database of a major version.
FIRST_OTHER_TYPE = 12_000


class SharedSession(ConnectionError):
    """A connection that has to keep its session leads through a pooler that shares sessions."""

    def __init__(self) -> None:
        super().__init__(
            "The connection leads through a pooler that shares sessions between clients, such as"
            " PgBouncer in transaction mode, and has to lead to PostgreSQL itself: name that in"
            " TROUPE_DATABASE_DIRECT_URL, or TROUPE_DATABASE_REPLICA_URL for a replica"
        )


class Connection(asyncpg.Connection):
    """A connection that works the same through a pooler.

    Each statement then runs in a transaction, which begins with the settings, and is prepared
    without a name, so that nothing is left in a session. This takes three more round trips.
    """

    __slots__ = ("_seconds", "_settings", "is_pooled")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.is_pooled = False
        """Whether there is a pooler in between, which may share sessions."""
        self._settings: Mapping[str, str] = {}
        self._seconds: float | None = None

    async def pin(self, settings: Mapping[str, str]) -> None:
        """Have all statements run with these settings.

        The process that a pooler names at the start is not the one that runs the statements.
        """
        values = ", ".join(f"('{name}', '{value}')" for name, value in settings.items())
        found = await self.execute(
            "SELECT set_config(name, value, false)"  # noqa: S608 - they are constants
            f" FROM (VALUES {values}) AS settings(name, value)"
            f" WHERE pg_backend_pid() = {self.get_server_pid()}"
        )
        self._settings = settings
        self.is_pooled = found == "SELECT 0"

    def limit_next(self, seconds: float) -> None:
        """Have PostgreSQL cancel the statements of the next transaction after so many seconds."""
        self._seconds = seconds

    async def keep_session(self, another: Connection) -> None:
        """Use the session of this connection for what belongs to a session.

        `another` connection is compared with it. Raises SharedSession if a pooler shares sessions.
        """
        for _ in range(COMPARISONS):
            pid = await self.fetchval(OWN_PID)
            async with another.transaction():
                if await another.fetchval(OWN_PID) == pid or await self.fetchval(OWN_PID) != pid:
                    raise SharedSession
        await self.execute("; ".join(_set("SET", self._settings)))
        self.is_pooled = False

    async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
        """Run statements; the one that begins a transaction also sets its settings."""
        if self.is_pooled and query.startswith("BEGIN"):
            if query == "BEGIN;":
                query = "BEGIN ISOLATION LEVEL READ COMMITTED;"
            local = {name: self._settings[name] for name in self._settings.keys() - OF_SESSIONS}
            if self._seconds is not None:
                local["statement_timeout"] = f"{max(1, round(1000 * self._seconds))}ms"
                self._seconds = None
            query += "; ".join(_set("SET LOCAL", local))
        return str(await super().execute(query, *arguments, **options))

    async def _execute(
        self, query: str, arguments: Any, limit: int, longest: float | None, **options: Any
    ) -> Any:
        """What `fetch`, `fetchval` and the like do."""
        if not self.is_pooled or self.is_in_transaction():
            return await super()._execute(  # type: ignore[misc]
                query, arguments, limit, longest, **options
            )
        async with asyncio.timeout(longest):
            transaction = self.transaction()
            await transaction.start()
            try:
                result = await super()._execute(  # type: ignore[misc]
                    query, arguments, limit, None, **options
                )
            except asyncpg.PostgresError:
                await transaction.rollback()
                raise
            await transaction.commit()
        return result

    async def _get_statement(self, *arguments: Any, **options: Any) -> Any:
        if self.is_pooled:
            options |= {"named": "", "use_cache": False}
        return await super()._get_statement(*arguments, **options)  # type: ignore[misc]

    async def _introspect_types(self, ids: Collection[int], longest: float | None) -> Any:
        """What PostgreSQL has in its catalog about types that the driver does not know, as arrays.

        The driver asks for it on each connection, and that takes longer than most statements.
        """
        wanted = self.get_server_version().major, frozenset(ids)
        if wanted in _types:
            return _types[wanted], _Asked
        found = await super()._introspect_types(ids, longest)  # type: ignore[misc]
        if max(ids) < FIRST_OTHER_TYPE:
            _types[wanted], _ = found
        return found


_types: dict[tuple[int, frozenset[int]], Any] = {}


class _Asked:
    """In place of the statement that asks: it was not sent, so the last one is still prepared."""

    name = "asked"


def _set(command: str, settings: Mapping[str, str]) -> Iterator[str]:
    return (f"{command} {name} = '{value}'" for name, value in settings.items())
