"""`troupe events`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from graph.cli.database import with_database
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from db import Database
    from db.events import Event

app = typer.Typer(no_args_is_help=True, help="Follow the event log, or drop old events.")


@app.command("tail")
def tail_events(
    project: str | None = typer.Option(
        None, metavar="PROJECT", help="Only events of this project: its id or its name."
    ),
    after: int | None = typer.Option(
        None,
        parser=whole_number(0),
        metavar="POSITION",
        help="Begin after this position; by default with new events.",
    ),
    as_json: bool = typer.Option(
        False, "--json", help="Print each event as JSON, with its values."
    ),
) -> None:
    """Print events as they happen, until Ctrl-C. They are in the order of their positions."""
    from db import Project
    from db.events.positions import Numbering
    from db.events.reading import events_after, last_position
    from graph.api import API
    from graph.cli.lookups import find_project
    from graph.cli.viewers import first_administrator
    from graph.core.scalars import parse_key
    from graph.settings import Settings

    async def work(database: Database) -> None:
        project_id = None
        if project is not None:
            api = API(database, await first_administrator(database))
            project_id = parse_key(Project, await find_project(api, project))
        async with database.read() as session:
            position = await last_position(session) if after is None else after
        # If no server runs, this process gives the positions.
        numbering = asyncio.create_task(Numbering(database, Settings.load().event_days).run())
        try:
            while True:
                async with database.read() as session:
                    found = await events_after(session, position, project_id)
                for event in found:
                    print(_event_as_json(event) if as_json else _event_as_text(event), flush=True)
                    position = event.position or position
                if not found:
                    await asyncio.sleep(TAIL_SECONDS)
        finally:
            numbering.cancel()
            await asyncio.wait([numbering])

    with_database(work)


# How often `troupe events tail` looks for new events, in seconds.
TAIL_SECONDS = 0.25


def _event_as_json(event: Event) -> str:
    import orjson

    from db.events import Event

    columns = (column.key for column in Event.__table__.columns)
    values = {name: getattr(event, name) for name in columns if name not in ("id", "owner_id")}
    values |= {side: values[side] and values[side].fragment for side in ("before", "after")}
    return orjson.dumps(values, default=str).decode()


def _event_as_text(event: Event) -> str:
    import orjson

    actor = "-" if event.actor_type is None else f"{event.actor_type.lower()}:{event.actor_id}"
    sides = (side for side in (event.before, event.after) if side is not None)
    columns = {column for side in sides for column in orjson.loads(side.text)}
    what = f"{event.action} {event.entity_type} {event.entity_id}"
    moment = f"{event.created_at:%Y-%m-%dT%H:%M:%SZ}"
    return f"{event.position} {moment} {what} by {actor}: {' '.join(sorted(columns))}"


@app.command("prune")
def prune_events(
    days: int | None = typer.Option(
        None,
        parser=whole_number(1, 36500),
        metavar="N",
        help="How many days to keep; by default TROUPE_EVENT_DAYS.",
    ),
) -> None:
    """Drop old events, by weeks. A server does so by itself every hour."""
    from db.events import partitions
    from db.events.positions import number_all
    from graph.settings import Settings

    async def work(database: Database) -> str:
        kept_days = Settings.load().event_days
        await number_all(database, kept_days)
        connection = await database.open()
        try:
            kept = await partitions.drop(connection, days or kept_days)
        finally:
            await connection.close()
        return f"Events since {kept:%Y-%m-%d} are kept, and those of the same week."

    print(with_database(work))
