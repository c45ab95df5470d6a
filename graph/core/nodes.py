"""`node` and `nodes`: any object by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Annotated, Any, NamedTuple
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
from graph.core.filters import keys
from graph.core.ids import BARE_UUID, parse_global_id
from graph.core.json_text import Json, Piece, or_null
from graph.core.selections import Selected

MAX_IDS = 100


@cache
def _node_entities() -> list[Entity]:
    """The entities whose objects have an id."""
    return [
        entity
        for entity in entities()
        if issubclass(entity.graphql_type, Node) and not entity.is_subtype
    ]


async def _find_uuids(info: Info, ids: Sequence[str]) -> dict[UUID, Entity]:
    """The entity of each bare UUID among the ids that the viewer may see, by one statement."""
    uuids = {UUID(id) for id in ids if BARE_UUID.fullmatch(id)}
    if not uuids:
        return {}
    searched = [entity for entity in _node_entities() if isinstance(entity.key.type, Uuid)]
    statement = union_all(
        *(
            select(literal(place), entity.key).where(
                any_of(entity.key, uuids), scope(entity.model, info.context.viewer, by_key=True)
            )
            for place, entity in enumerate(searched)
        )
    )
    async with info.context.read() as session:
        # If two entities have the same UUID, the first one counts, as it does for the compiler.
        found = sorted(await session.execute(statement), reverse=True)
    return {key: searched[place] for place, key in found}


def _parse(id: str) -> tuple[Entity, Any]:
    """The entity and the key of a global id. Raises BadInput."""
    parsed = parse_global_id(id)
    for entity in _node_entities():
        if parsed and entity.name == parsed[0]:
            return entity, keys(entity.model, id)
    raise BadInput(f"{id!r} is no id: use one that the API gave, or a bare UUID.")


async def _fetch(info: Info, ids: Sequence[str]) -> list[Any]:
    """The objects with these ids, or None, by one statement for each entity among them.

    An id that is invalid has an error in its place, and the other objects are still fetched.
    """
    selected = info.context.operation.selected(info._raw_info)
    found = await _find_uuids(info, ids)

    async def fetch(id: str) -> Any:
        try:
            entity, key = (found.get(UUID(id)), id) if BARE_UUID.fullmatch(id) else _parse(id)
        except BadInput as error:
            return error
        if entity is None:
            return None
        key = keys(entity.model, key)
        return await info.context.loaders.by_key(entity.model, key, entity.below(selected))

    return await asyncio.gather(*map(fetch, ids))


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


class NodeKey(NamedTuple):
    """The key that an id names."""

    entity: int | None
    """The position of its entity; None for a bare UUID, which can be a key of any entity."""
    uuid: UUID | None
    text: str | None


KEY_TYPES: dict[str, Any] = {"entity": Integer, "uuid": Uuid, "text": Text}

# The name of the column with the position of an id among the others.
NUMBER = "number"


class NodeField(Declared):
    """A field that returns objects of any entity, by their ids."""

    @property
    def is_list(self) -> bool:
        """Whether it takes several ids."""
        return self.python_name == "nodes"

    def keys(self, ids: list[str]) -> list[NodeKey]:
        """The keys that ids name. Raises BadInput, which the resolvers report at the id."""
        found = []
        for id in _check_number(ids):
            if BARE_UUID.fullmatch(id):
                found.append(NodeKey(None, UUID(id), None))
            else:
                entity, key = _parse(id)
                uuid, text = (key, None) if isinstance(key, UUID) else (None, key)
                found.append(NodeKey(_node_entities().index(entity), uuid, text))
        return found

    def max_rows(self, selected: Selected) -> int:
        return len(selected.arguments["ids"]) if self.is_list else 1

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        arguments = builder.operation.converted(selected)
        ids = arguments["ids"] if self.is_list else [arguments["id"]]
        keys = resolve_once(apply(self.keys, ids))
        parts = {name: apply(_column(name), keys) for name in KEY_TYPES}
        if not self.is_list:
            firsts = (bind(apply(itemgetter(0), parts[name]), KEY_TYPES[name]) for name in parts)
            json, found = self.found(builder, selected, firsts)
            return or_null(json, *found)
        builder.sizes.append(apply(len, ids))
        arrays = (bind(parts[name], ARRAY(KEY_TYPES[name])) for name in parts)
        columns = [column(name, kind) for name, kind in KEY_TYPES.items()]
        each = func.unnest(*arrays).table_valued(*columns, with_ordinality=NUMBER).render_derived()
        json, found = self.found(builder, selected, [each.c[name] for name in parts], each)
        return builder.array(
            or_null(json, *found), select().select_from(each).order_by(each.c[NUMBER])
        )

    def found(
        self, builder: StatementBuilder, selected: Selected, key_parts: Iterable[Any], *sources: Any
    ) -> tuple[Json, list[ColumnElement[str]]]:
        """The pieces of the JSON of all entities, and a subquery for the row of each entity.

        The parts of the key may be columns of other sources.
        """
        place, uuid, text = key_parts
        pieces: list[Piece] = []
        found: list[ColumnElement[str]] = []
        for number, entity in enumerate(_node_entities()):
            row = aliased(entity.model)
            key = getattr(row, entity.key.key)
            is_uuid = isinstance(key.type, Uuid)
            is_here = place == literal_column(str(number))
            if is_uuid:
                is_here = or_(place.is_(None), is_here)
            json = entity.sql(builder, selected, row)
            rows = builder.rows(row, is_here, key == (uuid if is_uuid else text))
            rows = rows.correlate(*sources)
            found.append(builder.printed(json, rows).scalar_subquery())
            pieces += json
        return tuple(pieces), found


def _column(name: str) -> Callable[[list[NodeKey]], list[Any]]:
    return lambda keys: [getattr(key, name) for key in keys]


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
