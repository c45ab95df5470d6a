"""From what is selected to one statement: each field brings its own SQL.

Scopes, filters, orders and cursors are those of the resolvers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from db import Viewer
from graph.core.declarations import Build
from graph.core.json_text import encoded
from graph.core.selections import Operation


@dataclass(eq=False)
class Statement:
    """A statement whose result is one JSON value, and what else is to be known about it."""

    select: Select[Any]
    sizes: list[Any]
    """How many rows its pages and lists of ids have, which is what it costs."""
    positions: list[Any]
    """The values of its cursors, which are checked whether the statement uses them or not."""


def statement(operation: Operation, viewer: Viewer, most_bytes: int) -> Statement:
    """The statement for a whole query, which fails if its answer has more bytes than this.

    Raises Uncompilable, or what is wrong with its arguments.
    """
    build = Build(operation, viewer, most_bytes)
    data = build.object(operation.roots, None)
    return Statement(select(encoded(data, most_bytes)), build.sizes, build.positions)
