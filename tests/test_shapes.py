"""The shape of arguments: it has no operands, and its deferred values become those of a request."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    coerce_input_value,
    type_from_ast,
)
from graphql.language import parse_type
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import db
from graph.compiler.variables import Request, filling
from graph.core.shapes import ANY, LIST, MANY, deferred_value, shape_of
from graph.schema import graphql_schema
from tests.operations import Pool

POOL = Pool(
    ids={"Project": ["00000000-0000-7000-8000-000000000000"]},
    cursors={},
    texts=["", "a"],
    moments=["2026-05-01T00:00:00+00:00"],
)
FILTERS = [
    kind
    for name, kind in graphql_schema.type_map.items()
    if isinstance(kind, GraphQLInputObjectType) and name.endswith("Filter")
]


def coerced(written: str, value: Any) -> tuple[GraphQLInputType, Any]:
    """A type as it is written, and a value of it as graphql-core has it."""
    kind: Any = type_from_ast(graphql_schema, parse_type(written))
    return kind, coerce_input_value(value, kind)


@pytest.mark.parametrize(
    ("kind", "value", "shape"),
    [
        ("String", "a", ANY),
        ("String", None, None),
        ("Boolean", True, True),
        ("TaskStatus", "PENDING", ANY),
        ("[Int!]", [1, 2, 3], MANY),
        ("[Boolean!]", [True, False], (LIST, True, False)),
        ("[[Int!]]", [[1, 2], None], (LIST, MANY, None)),
        ("TaskFilter", {}, ()),
        ("TaskFilter", {"title": {"eq": "a"}}, (("title", (("eq", ANY),)),)),
        ("TaskFilter", {"title": {"isNull": False}}, (("title", (("isNull", False),)),)),
        ("TaskFilter", {"not": None}, (("not", None),)),
        ("TaskFilter", {"or": []}, (("or", (LIST,)),)),
        (
            "TaskFilter",
            {"or": [{"priority": {"in": [1, 2]}}, {"metadataContains": {"a": [1]}}]},
            (("or", (LIST, (("priority", (("in", MANY),)),), (("metadataContains", ANY),))),),
        ),
    ],
)
def test_a_shape_has_the_operators_but_not_their_operands(
    kind: str, value: Any, shape: Any
) -> None:
    assert shape_of(*coerced(kind, value)) == shape


def test_an_order_is_part_of_the_shape() -> None:
    ascending, descending = (
        shape_of(*coerced("TaskOrder", f"PRIORITY_{direction}")) for direction in ("ASC", "DESC")
    )
    assert ascending not in (ANY, descending)


@st.composite
def filters(draw: DrawFn) -> tuple[GraphQLInputType, Any]:
    """A filter or a list of them, with its type."""
    kind: GraphQLInputType = draw(st.sampled_from(FILTERS))
    if draw(st.booleans()):
        kind = GraphQLList(kind)
    return kind, coerce_input_value(POOL.value(draw, kind, ""), kind)


@given(filters())
def test_deferred_values_of_a_shape_become_the_values_of_a_request(
    drawn: tuple[GraphQLInputType, Any],
) -> None:
    kind, value = drawn

    deferred = deferred_value(shape_of(kind, value), lambda request: request.variables["value"])

    assert filling(deferred)(Request({"value": value}, db.Viewer())) == value
