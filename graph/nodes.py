"""`node` and `nodes`: any object by its id."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

import strawberry
from sqlalchemy import Uuid, bindparam, literal, select, union_all

from graph.context import Info
from graph.entities import Entity, Node, entities
from graph.errors import BadInput
from graph.scalars import BARE_UUID, parse_global_id, parse_key

MOST_IDS = 100


def _shown() -> list[Entity]:
    return [entity for entity in entities() if issubclass(entity.shown_as, Node)]


async def _entity_of_uuid(info: Info, key: UUID) -> Entity | None:
    """Which entity has a row with this key: a bare UUID does not say."""
    found = [entity for entity in _shown() if entity.key.type.python_type is UUID]
    value = bindparam("key", key, Uuid)
    statement = union_all(
        *(
            select(literal(place).label("place")).where(entity.key == value)
            for place, entity in enumerate(found)
        )
    )
    async with info.context.read() as session:
        place = await session.scalar(statement)
    return None if place is None else found[place]


async def _fetch(info: Info, id: str) -> Any:
    parsed = parse_global_id(id)
    entity: Entity | None
    if parsed is not None:
        entity = next((entity for entity in _shown() if entity.name == parsed[0]), None)
    elif BARE_UUID.fullmatch(id):
        entity = await _entity_of_uuid(info, UUID(id))
        if entity is None:
            return None
    else:
        entity = None
    if entity is None:
        raise BadInput(f"{id!r} is no id: use one that the API gave, or a bare UUID.")
    try:
        key = parse_key(entity.model, id)
    except ValueError as error:
        raise BadInput(f"{error}.") from None
    selected = info.context.operation.selected(info._raw_info)
    children = selected.children.get(entity.name, ())
    return await info.context.loaders.shown(entity.model, key, children)


Id = Annotated[strawberry.ID, strawberry.argument(description="Its id, or a bare UUID.")]
Ids = Annotated[list[strawberry.ID], strawberry.argument(description="Their ids, or bare UUIDs.")]


async def _node(info: Info, id: Id) -> Any:
    return await _fetch(info, id)


async def _nodes(info: Info, ids: Ids) -> Any:
    if len(ids) > MOST_IDS:
        raise BadInput(f"ids: at most {MOST_IDS} at once, not {len(ids)}.")
    return await asyncio.gather(*(_fetch(info, id) for id in ids))


@strawberry.type
class Query:
    node: Node | None = strawberry.field(
        resolver=_node, description="Any object by its id; none if you may not see it."
    )
    nodes: list[Node | None] = strawberry.field(
        resolver=_nodes,
        description=f"Up to {MOST_IDS} objects by their ids, in the same order; none in the place"
        " of each that you may not see.",
    )
