"""Full-text search: which rows have the words of a query, how well they match, and where."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Select,
    Text,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy import literal_column as constant
from sqlalchemy.orm import aliased

from db.conversations import Message
from db.parameters import bind
from db.scopes import Viewer, scope

MOST_PARTS = 20
"""The largest number of parts that an excerpt is split into."""


def matches(vector: Any, query: Any) -> ColumnElement[bool]:
    """The condition that a row, given by its search vector, has the words of a query.

    PostgreSQL calls the function when it plans: how frequent the words are determines the plan.
    """
    wanted = func.search_query(bind(query, Text))
    return vector.op("@@", is_comparison=True)(wanted)  # type: ignore[no-any-return]


def words(query: Any) -> ColumnElement[Any]:
    """The words of a query, for `rank`: as a subquery, which runs once, and not for each row."""
    return select(func.search_query(bind(query, Text))).scalar_subquery()


def rank(vector: Any, wanted: Any) -> ColumnElement[int]:
    """How well a row matches: how often it has the words, and how near to each other.

    Long texts count for less. It is a whole number up to a million, which a cursor can hold.
    """
    # 1: divided by the logarithm of the length; 32: scaled to less than 1.
    share = func.ts_rank_cd(vector, wanted, constant("33"))
    return cast(share * constant("1000000"), Integer)


def highlights(viewer: Viewer, message_id: Any, query: Any) -> Select[Any]:
    """The parts of an excerpt of a message, which has the first words of a query if there are any.

    The function of the database is made by the migration 0018.
    """
    row = aliased(Message)
    part = (
        func.highlights(row.content, bind(query, Text))
        .table_valued(column("number", Integer), column("text", Text), column("is_match", Boolean))
        .render_derived("part")
        .lateral()
    )
    found = select(*part.c).select_from(row).join(part, true())
    return found.where(row.id == message_id, scope(row, viewer, by_key=True))
