"""The fast way to read: a query becomes one SQL statement, whose JSON goes out as it is.

Whatever the planner does not know, and whatever would end in an error, it hands to the resolvers,
whole: `planned` then gives None.
"""

from __future__ import annotations

from typing import Any

from graphql import GraphQLError, OperationType
from sqlalchemy import Select

from db import Viewer
from graph.planner.statement import Unplannable, statement
from graph.selections import Operation

# A statement is built and compiled field by field, so it must stay of a size that is worth it.
MOST_FIELDS = 500
DEEPEST = 20


def planned(operation: Operation, viewer: Viewer) -> Select[Any] | None:
    """The statement that answers the operation with one text of JSON, if it can be planned."""
    if operation.node.operation is not OperationType.QUERY:
        return None
    if all(root.name == "__typename" for root in operation.roots):
        return None  # which needs no database, and is asked to see whether the server answers
    number, depth = operation.size()
    if number > MOST_FIELDS or depth > DEEPEST:
        return None
    try:
        return statement(operation, viewer)
    except (Unplannable, GraphQLError, RecursionError):
        return None


__all__ = ["planned"]
