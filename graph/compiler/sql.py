"""The SQL for what is selected of an entity whose rows are read by their keys."""

from __future__ import annotations

from operator import itemgetter

from graphql import get_nullable_type, is_list_type
from sqlalchemy import column, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import aliased

from db import scope
from db.parameters import Deferred, apply, bind
from graph.core.declarations import StatementBuilder
from graph.core.entities import Entity
from graph.core.json_text import Json
from graph.core.selections import Selected


def json_by_keys(
    builder: StatementBuilder, entity: Entity, selected: Selected, keys: Deferred
) -> Json:
    """The JSON value of a field of a payload, for the rows with these keys.

    A list has the rows that the viewer may see, in the order of the keys. Another field has the
    row with the first key, or null.
    """
    row = aliased(entity.model)
    key = getattr(row, entity.key.key)
    json = entity.sql(builder, selected, row)
    if is_list_type(get_nullable_type(selected.type)):
        unnested = func.unnest(bind(keys, ARRAY(key.type)))
        each = unnested.table_valued(column("key", key.type), with_ordinality="number")
        each = each.render_derived()
        rows = select().select_from(each).join(row, key == each.c.key)
        rows = rows.where(scope(row, builder.viewer)).order_by(each.c.number)
        return builder.array(json, rows)
    first = bind(apply(itemgetter(0), keys), key.type)
    rows = select().select_from(row).where(key == first, scope(row, builder.viewer))
    return builder.one(json, rows)
