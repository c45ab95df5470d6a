"""The schema: the one place that knows every slice."""

from __future__ import annotations

from importlib import import_module

import graphql
import strawberry
from graphql import build_schema, lexicographic_sort_schema
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig

from graph.core.entities import entities
from graph.core.scalars import scalars
from graph.core.user_errors import USER_ERRORS

SLICES = [
    "graph.accounts",
    "graph.agents",
    "graph.ai_models",
    "graph.attempts",
    "graph.communications",
    "graph.conversations",
    "graph.core.nodes",
    "graph.interactions",
    "graph.members",
    "graph.plans",
    "graph.projects",
    "graph.tasks",
    "graph.tools",
    "graph.usage",
    "graph.users",
]
"""The modules that add to the schema, each by a class `Query`, a class `Mutation`, or both."""


def _merged(name: str, description: str) -> type:
    """The root type that has the fields of all slices' types of this name."""
    modules = map(import_module, SLICES)
    parts = tuple(getattr(module, name) for module in modules if hasattr(module, name))
    return strawberry.type(type(name, parts, {}), description=description)


Query = _merged("Query", "What can be asked. Everything shows only what you may see.")
Mutation = _merged(
    "Mutation",
    "What can be changed. Each takes an `input`, is one transaction, and answers with what it"
    " changed and `userErrors`; if there are any of these, nothing was changed.",
)


schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    types=[*USER_ERRORS, *(entity.shown_as for entity in entities() if entity.is_subtype)],
    config=StrawberryConfig(scalar_map=scalars),
)


# Introspection writes defaults as literals, and by itself knows none for an object of JSON.
for _type in schema._schema.type_map.values():
    if isinstance(_type, graphql.GraphQLInputObjectType):
        for _field in _type.fields.values():
            if _field.default_value == {}:
                _field.default = graphql.GraphQLDefaultInput(
                    literal=graphql.parse_const_value("{}")
                )


def printed() -> str:
    """The schema in the schema definition language, sorted, as `schema.graphql` keeps it."""
    # Sorted from its text: StrawberryConfig(sort_schema=True) would sort the schema that executes,
    # and put plain enum types in the place of Strawberry's, which cannot print a Python default.
    unsorted = build_schema(print_schema(schema))
    return graphql.print_schema(lexicographic_sort_schema(unsorted)) + "\n"
