"""From what is selected to one statement: each field brings its own SQL.

Scopes, filters, orders and cursors are those of the resolvers.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from graphql import get_nullable_type, is_list_type
from sqlalchemy import Select, column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import Viewer, scope
from db.parameters import Deferred, apply, bind
from graph.core.declarations import StatementBuilder
from graph.core.entities import Entity
from graph.core.json_text import Json, encoded
from graph.core.selections import Operation, Selected


@dataclass(eq=False)
class Statement:
    """A statement whose result is one JSON value, and what else is to be known about it."""

    select: Select[Any]
    sizes: list[Any]
    """How many rows its pages and lists of ids have, which is what it costs."""
    positions: list[Any]
    """The values of its cursors, which are checked whether the statement uses them or not."""


def statement(operation: Operation, viewer: Viewer, max_bytes: int) -> Statement:
    """The statement for a whole query, which fails if its answer has more bytes than this.

    Raises Uncompilable, or what is wrong with its arguments.
    """
    builder = StatementBuilder(operation, viewer, max_bytes)
    return _encoded(builder, builder.object(operation.roots, None))


def root_statement(
    operation: Operation, viewer: Viewer, max_bytes: int, root: Selected
) -> Statement:
    """The statement for one root field of a query, in the same way."""
    builder = StatementBuilder(operation, viewer, max_bytes)
    return _encoded(builder, builder.field(root, None))


def statement_by_key(
    operation: Operation,
    viewer: Viewer,
    max_bytes: int,
    entity: Entity,
    selected: Selected,
    keys: Deferred,
) -> Statement:
    """The statement for what is selected below an entity, of the rows with these keys.

    A field that is a list shows those that the viewer may see, in the order of the keys; another
    shows the one with the first key, or null.
    """
    builder = StatementBuilder(operation, viewer, max_bytes)
    row = aliased(entity.model)
    key = getattr(row, entity.key.key)
    json = entity.sql(builder, selected, row)
    if is_list_type(get_nullable_type(selected.type)):
        unnested = func.unnest(bind(keys, ARRAY(key.type)))
        each = unnested.table_valued(column("key", key.type), with_ordinality="number")
        each = each.render_derived()
        rows = select().select_from(each).join(row, key == each.c.key)
        rows = rows.where(scope(row, viewer)).order_by(each.c.number)
        return _encoded(builder, builder.array(json, rows))
    first = bind(apply(itemgetter(0), keys), key.type)
    rows = select().select_from(row).where(key == first, scope(row, viewer))
    return _encoded(builder, builder.one(json, rows))


def _encoded(builder: StatementBuilder, json: Json) -> Statement:
    return Statement(select(encoded(json, builder.max_bytes)), builder.sizes, builder.positions)
