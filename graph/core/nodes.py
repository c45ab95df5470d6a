"""`node` and `nodes`: any object by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Annotated, Any
from uuid import UUID

import strawberry
from sqlalchemy import (
    ColumnElement,
    Integer,
    Text,
    Uuid,
    column,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import scope
from db.base import any_of
from db.parameters import apply, bind, resolve_once
from graph.core.context import Info
from graph.core.declarations import Declared, StatementBuilder
from graph.core.entities import Entity, Node, entities
from graph.core.errors import BadInput
from graph.core.json_text import Json, Piece, or_null
from graph.core.scalars import BARE_UUID, parse_global_id, parse_key
from graph.core.selections import Selected

MAX_IDS = 100


@cache
def _node_entities() -> dict[str, Entity]:
    """What has an id, by its name."""
    return {
        entity.name: entity
        for entity in entities()
        if issubclass(entity.graphql_type, Node) and not entity.is_subtype
    }


async def _resolve_ids(
    info: Info, ids: Sequence[str]
) -> list[tuple[Entity, Any] | BadInput | None]:
    """Which entity and key each id names; none for what the viewer may not see, or what is wrong.

    A bare UUID does not say of what: one statement looks for all of them everywhere.
    """
    uuids = {UUID(id) for id in ids if BARE_UUID.fullmatch(id)}
    found: dict[UUID, Entity] = {}
    if uuids:
        shown = [
            entity for entity in _node_entities().values() if entity.key.type.python_type is UUID
        ]
        places = union_all(
            *(
                select(literal(place), entity.key).where(
                    any_of(entity.key, uuids), scope(entity.model, info.context.viewer)
                )
                for place, entity in enumerate(shown)
            )
        )
        async with info.context.read() as session:
            # Nouns are free to have the same id; it is then the first one's, for the compiler too.
            named = sorted(await session.execute(places), reverse=True)
            found = {key: shown[place] for place, key in named}
    return [_name_or_fault(id, found) for id in ids]


def _name_or_fault(id: str, found: Mapping[UUID, Entity]) -> tuple[Entity, Any] | BadInput | None:
    try:
        return _name(id, found)
    except BadInput as fault:
        return fault


def _name(id: str, found: Mapping[UUID, Entity]) -> tuple[Entity, Any] | None:
    if BARE_UUID.fullmatch(id):
        entity = found.get(UUID(id))
        return None if entity is None else (entity, UUID(id))
    parsed = parse_global_id(id)
    entity = _node_entities().get(parsed[0]) if parsed else None
    if entity is None:
        raise BadInput(f"{id!r} is no id: use one that the API gave, or a bare UUID.")
    try:
        return entity, parse_key(entity.model, id)
    except ValueError as error:
        raise BadInput(f"{error}.") from None


async def _fetch(info: Info, ids: Sequence[str]) -> list[Any]:
    """The objects with these ids, with one statement for each entity among them.

    A fault in the place of an object becomes an error there, and takes none of the others along.
    """
    selected = info.context.operation.selected(info._raw_info)
    loaders = info.context.loaders

    async def fetch(named: tuple[Entity, Any] | BadInput | None) -> Any:
        if named is None or isinstance(named, BadInput):
            return named
        entity, key = named
        return await loaders.by_key(entity.model, key, entity.below(selected))

    return await asyncio.gather(*map(fetch, await _resolve_ids(info, ids)))


Id = Annotated[strawberry.ID, strawberry.argument(description="Its id, or a bare UUID.")]
Ids = Annotated[list[strawberry.ID], strawberry.argument(description="Their ids, or bare UUIDs.")]


async def _node(info: Info, id: Id) -> Any:
    return (await _fetch(info, [id]))[0]


async def _nodes(info: Info, ids: Ids) -> Any:
    return await _fetch(info, _check_number(ids))


def _check_number(ids: Sequence[str]) -> Sequence[str]:
    if len(ids) > MAX_IDS:
        raise BadInput(f"ids: at most {MAX_IDS} at once, not {len(ids)}.")
    return ids


@dataclass(slots=True)
class NodeKeys:
    """What ids name: for each the place of its entity, and its key as what keys can be."""

    places: list[int | None] = field(default_factory=list)
    """None where a bare UUID does not say of what it is."""
    uuids: list[UUID | None] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)


# What an id names: the attributes of NodeKeys, with their types.
KEY_COLUMNS = (("places", Integer), ("uuids", Uuid), ("texts", Text))

# The name of the column with the place of an id among the others.
NUMBER = "number"


class NodeField(Declared):
    """A field that leads to objects of any type, by their ids."""

    @property
    def entities(self) -> list[Entity]:
        """What it can lead to."""
        return list(_node_entities().values())

    @property
    def is_list(self) -> bool:
        """Whether it takes several ids."""
        return self.python_name == "nodes"

    def named(self, ids: list[str]) -> NodeKeys:
        """What ids name. Raises BadInput, of which the resolvers tell in its place."""
        named, places = NodeKeys(), list(_node_entities())
        for id in _check_number(ids):
            found = None if BARE_UUID.fullmatch(id) else _name(id, {})
            key = UUID(id) if found is None else found[1]
            named.places.append(None if found is None else places.index(found[0].name))
            named.uuids.append(key if isinstance(key, UUID) else None)
            named.texts.append(key if isinstance(key, str) else None)
        return named

    def max_rows(self, selected: Selected) -> int:
        return len(selected.arguments["ids"]) if self.is_list else 1

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        arguments = builder.operation.converted(selected)
        if not self.is_list:
            named = resolve_once(apply(self.named, [arguments["id"]]))
            values = [bind(apply(_first(part), named), kind) for part, kind in KEY_COLUMNS]
            json, found = self.found(builder, selected, values)
            return or_null(json, *found)
        ids = arguments["ids"]
        builder.sizes.append(apply(len, ids))
        named = resolve_once(apply(self.named, ids))
        arrays = (bind(apply(attrgetter(part), named), ARRAY(kind)) for part, kind in KEY_COLUMNS)
        columns = [column(part, kind) for part, kind in KEY_COLUMNS]
        each = func.unnest(*arrays).table_valued(*columns, with_ordinality=NUMBER).render_derived()
        json, found = self.found(builder, selected, [each.c[part] for part, _ in KEY_COLUMNS], each)
        return builder.array(
            or_null(json, *found), select().select_from(each).order_by(each.c[NUMBER])
        )

    def found(
        self, builder: StatementBuilder, selected: Selected, values: Sequence[Any], *sources: Any
    ) -> tuple[Json, list[ColumnElement[str]]]:
        """What is shown of the row with this key, of each entity that it may be of.

        The values name other sources as well.
        """
        place, uuid, text = values
        shown: list[Piece] = []
        found: list[ColumnElement[str]] = []
        for number, entity in enumerate(self.entities):
            row = aliased(entity.model)
            key = getattr(row, entity.key.key)
            is_uuid = isinstance(key.type, Uuid)
            is_here = place == literal_column(str(number))
            if is_uuid:
                is_here = or_(place.is_(None), is_here)
            met = [is_here, key == (uuid if is_uuid else text), scope(row, builder.viewer)]
            json = entity.sql(builder, selected, row)
            rows = select().select_from(row).where(*met).correlate(*sources)
            found.append(builder.printed(json, rows).scalar_subquery())
            shown += json
        return tuple(shown), found


def _first(part: str) -> Callable[[Any], Any]:
    """What reads the first of the values that an attribute has."""
    return lambda named: getattr(named, part)[0]


def _node_field(resolver: Callable[..., Any], description: str) -> Any:
    return NodeField(python_name=None, graphql_name=None, description=description)(resolver)


@strawberry.type
class Query:
    node: Node | None = _node_field(_node, "Any object by its id; none if you may not see it.")
    nodes: list[Node | None] = _node_field(
        _nodes,
        f"Up to {MAX_IDS} objects by their ids, in the same order; none in the place of each that"
        " you may not see.",
    )
