"""Full-text search as a connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement

from db import Viewer
from db.parameters import apply
from db.search import matches, rank, words
from graph.core.connections import Window
from graph.core.errors import BadInput
from graph.core.fields import Collection, argument

# PostgreSQL fails on queries with too many words.
MAX_QUERY_LENGTH = 1000

WORDS = f"The words to look for, in at most {MAX_QUERY_LENGTH:,} characters."


def checked_query(query: Any) -> Any:
    """The query, which may be deferred. Raises BadInput if it is too long."""
    return apply(_checked, query)


def _checked(query: str) -> str:
    if len(query) > MAX_QUERY_LENGTH:
        raise BadInput(f"A query is of at most {MAX_QUERY_LENGTH:,} characters.")
    return query


class Search(Collection):
    """The objects of an entity that have some words, in orders of its own."""

    def __init__(self, vector: Any, orders: type[Enum], **options: Any) -> None:
        super().__init__(
            vector.class_,
            arguments=[argument("query", str, WORDS)],
            conditions=self._has_words,
            **options,
        )
        self.vector = vector
        self.own_orders = orders

    @property
    def orders(self) -> type[Enum] | None:
        return self.own_orders

    def _has_words(self, row: Any, viewer: Viewer, query: Any) -> list[ColumnElement[bool]]:
        return [matches(getattr(row, self.vector.key), checked_query(query))]

    def window(self, arguments: Mapping[str, Any]) -> Window:
        wanted = words(checked_query(arguments["query"]))

        def of_row(row: Any) -> ColumnElement[int]:
            return rank(getattr(row, self.vector.key), wanted)

        return replace(super().window(arguments), rank=of_row)


def search(vector: Any, orders: type[Enum], description: str) -> Any:
    """A full-text search for objects of an entity, as a connection.

    The vector is a column of the type `tsvector`. The first of the orders, which `search_ordering`
    makes, is the default.
    """
    return Search(vector, orders, description=description)
