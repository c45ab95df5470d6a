"""The schema: the one place that knows every slice."""

from __future__ import annotations

import graphql
import strawberry
from graphql import build_schema, lexicographic_sort_schema
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig

from graph import (
    accounts,
    agents,
    ai_models,
    attempts,
    communications,
    conversations,
    interactions,
    members,
    plans,
    projects,
    tasks,
    tools,
    usage,
    users,
)
from graph.core import nodes
from graph.core.entities import entities
from graph.core.scalars import scalars
from graph.core.user_errors import USER_ERRORS


@strawberry.type(description="What can be asked. Everything shows only what you may see.")
class Query(
    agents.Query,
    ai_models.Query,
    attempts.Query,
    communications.Query,
    conversations.Query,
    interactions.Query,
    nodes.Query,
    projects.Query,
    tasks.Query,
    tools.Query,
    usage.Query,
    users.Query,
):
    pass


@strawberry.type(
    description="What can be changed. Each takes an `input`, is one transaction, and answers with"
    " what it changed and `userErrors`; if there are any of these, nothing was changed."
)
class Mutation(
    accounts.Mutation,
    agents.Mutation,
    ai_models.Mutation,
    communications.Mutation,
    conversations.Mutation,
    interactions.Mutation,
    members.Mutation,
    plans.Mutation,
    projects.Mutation,
    tasks.Mutation,
    tools.Mutation,
    usage.Mutation,
    users.Mutation,
):
    pass


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
