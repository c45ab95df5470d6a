"""The database that a command works on, and the API over it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from graph.cli.errors import CommandError
from graph.cli.output import print_note

if TYPE_CHECKING:
    from db import Database
    from db.embedded import Server
    from graph.clients import Client

Result = TypeVar("Result")


class RunningDatabase(NamedTuple):
    """The database of a command, which runs."""

    url: str
    server: Server | None
    """The server, if it is embedded."""
    upgrades: bool
    """Whether a command upgrades it to this version."""


@contextmanager
def running_database(*, creates: bool = False) -> Iterator[RunningDatabase]:
    """The database of the settings, or of the server that runs.

    Unless the command `creates` a database, there has to be one.
    """
    from db import embedded
    from graph.cli.servers import with_database_of_running
    from graph.settings import Settings

    settings, is_found = with_database_of_running(Settings.load())
    if not (creates or settings.database_url or embedded.has_database(settings.data_dir)):
        folder = settings.data_dir or embedded.default_data_dir()
        raise CommandError(
            f"There is no database in {folder} yet; `troupe serve` creates one, or set"
            " TROUPE_DATABASE_URL or TROUPE_DATA_DIR to use another"
        )
    with settings.database(on_wait=print_note) as (url, server):
        # A command may need a session of its own. The server that runs may be of another version.
        yield RunningDatabase(
            settings.database_direct_url or url, server, settings.migrates and not is_found
        )


@asynccontextmanager
async def prepared(
    url: str, *, upgrade: bool, direct_url: str | None = None
) -> AsyncIterator[Database]:
    """The database at the migration of this version.

    In production, only `troupe migrate` upgrades it, so that it can be backed up first. An upgrade
    holds a lock of its session, so it uses `direct_url` if there is a pooler in between.
    """
    from db import Database, migrate

    await migrate.refuse_unsuitable(url)
    if upgrade:
        await migrate.upgrade(direct_url or url)
    else:
        await migrate.refuse_unless_at_head(url)
    database = Database(url)
    try:
        yield database
    finally:
        await database.dispose()


def with_database(
    work: Callable[[Database], Awaitable[Result]],
    *,
    upgrade: bool = False,
    creates: bool = False,
) -> Result:
    """Run `work` on the database; `upgrade` brings it to this version in any case."""

    async def run(found: RunningDatabase) -> Result:
        async with prepared(found.url, upgrade=upgrade or found.upgrades) as database:
            return await work(database)

    with running_database(creates=creates) as found:
        return asyncio.run(run(found))


def with_api(
    work: Callable[[Client], Awaitable[Result]],
    *,
    user: str | None = None,
    agent: str | None = None,
    project: str | None = None,
    creates: bool = False,
) -> Result:
    """Run `work` with the API for a user or an agent, by default the first administrator.

    A server that runs is asked if its token is the administrator's; otherwise, and if it does not
    answer the first request, the API is within this process. Raises CommandError with what the API
    refused.
    """
    from graph.cli.lookups import refusal
    from graph.cli.server_client import ServerClient, Unusable
    from graph.cli.servers import server_with_token
    from graph.clients import Refused

    async def run(database: Database) -> Result:
        from graph.api import API
        from graph.cli.viewers import first_administrator, viewer_of_agent, viewer_of_user

        api = API(database, await first_administrator(database))
        if user is not None:
            api = api.of(await viewer_of_user(api, user))
        elif agent is not None:
            api = api.of(await viewer_of_agent(api, agent, project))
        return await work(api)

    async def ask(server: ServerClient) -> Result:
        return await work(server)

    try:
        server = server_with_token() if user is None and agent is None else None
        if server is not None:
            with suppress(Unusable):
                return asyncio.run(ask(ServerClient(server)))
        return with_database(run, creates=creates)
    except Refused as error:
        raise CommandError(refusal(error)) from None
