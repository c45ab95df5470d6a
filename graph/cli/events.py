"""`troupe events`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from graph.cli.database import with_database
from graph.cli.output import escaped
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from db import Database
    from db.events import Event
    from graph.clients import Client

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
        api = API(database, await first_administrator(database))
        if project is not None:
            project_id = parse_key(Project, await find_project(api, project))
        async with database.read() as session:
            position = await last_position(session) if after is None else after
        # If no server runs, this process gives the positions.
        numbering = asyncio.create_task(Numbering(database, Settings.load().event_days).run())
        try:
            while True:
                async with database.read() as session:
                    found = await events_after(session, position, project_id)
                lines = map(_as_json, found) if as_json else await _as_texts(api, found)
                for event, line in zip(found, lines, strict=True):
                    print(line, flush=True)
                    position = event.position or position
                if not found:
                    await asyncio.sleep(TAIL_SECONDS)
        finally:
            numbering.cancel()
            await asyncio.wait([numbering])

    with_database(work)


# How often `troupe events tail` looks for new events, in seconds.
TAIL_SECONDS = 0.25


NAMES = """query($ids: [ID!]!) {
  nodes(ids: $ids) {
    id
    ... on Project { name } ... on Agent { name } ... on Tool { name }
    ... on Task { title } ... on HumanInteraction { title }
    ... on User { username } ... on Conversation { summary }
  }
}"""
MOST_NODES = 100
"""The most ids that `nodes` takes at once."""
LONGEST = 60
"""Values are cut to so many characters."""


def _fields(event: Event) -> dict[str, Any]:
    """The fields of an event that are no other objects, as the API has them."""
    from strawberry.types import get_object_definition

    from graph.core.entities import Column, entity_of

    declared = get_object_definition(entity_of(type(event)).graphql_type, strict=True).fields
    columns = (field for field in declared if isinstance(field, Column))
    return {field.python_name: field.resolve(event, None) for field in columns}


def _as_json(event: Event) -> str:
    """An event as one line of JSON, in the formats of the API."""
    import orjson
    from strawberry.utils.str_converters import to_camel_case

    from graph.core.scalars import format_moment

    values = {to_camel_case(name): value for name, value in _fields(event).items()}
    values |= {"position": str(event.position), "createdAt": format_moment(event.created_at)}
    values |= {side: values[side] and values[side].fragment for side in ("before", "after")}
    return orjson.dumps(values).decode()


async def _as_texts(api: Client, events: Sequence[Event]) -> list[str]:
    """Events as lines for people, with the names of their objects and actors."""
    fields = [_fields(event) for event in events]
    ids = list(dict.fromkeys(each[name] for each in fields for name in ("entity_id", "actor_id")))
    named = await _names(api, [id for id in ids if id is not None])
    return [_as_text(event, named, of) for event, of in zip(events, fields, strict=True)]


async def _names(api: Client, ids: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for start in range(0, len(ids), MOST_NODES):
        found = (await api.read(NAMES, ids=ids[start : start + MOST_NODES]))["nodes"]
        names |= {each.pop("id"): next(iter(each.values()), "") for each in found if each}
    return names


def _as_text(event: Event, names: dict[str, str], fields: dict[str, Any]) -> str:
    import orjson

    before, after = (
        orjson.loads(side.text) if side else {} for side in (event.before, event.after)
    )
    values = before | after
    # What was deleted has its name in its values only.
    name = names.get(fields["entity_id"]) or values.get("name") or values.get("title")
    if event.before is not None and event.after is not None:
        changes = [
            f"{column} {_value(before.get(column))} → {_value(after.get(column))}"
            for column in sorted(values)
        ]
    else:
        changes = (
            [] if name else [f"{column} {_value(values[column])}" for column in sorted(values)]
        )
    actor = "the server"
    if event.actor_type is not None:
        shown = names.get(fields["actor_id"]) or event.actor_id
        actor = f"{event.actor_type.lower()} {shown}"
    what = f"{event.action} {event.entity_type} {event.entity_id}" + (
        f" {_value(name)}" if name else ""
    )
    line = f"{event.position} {event.created_at:%Y-%m-%dT%H:%M:%SZ} {what} by {actor}"
    return escaped(f"{line}: {', '.join(changes)}" if changes else line)


def _value(value: object) -> str:
    """A value as JSON, cut."""
    import orjson

    text = orjson.dumps(value).decode()
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


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
