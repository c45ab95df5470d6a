"""The GraphQL schema, merged from all slices."""

from __future__ import annotations

from importlib import import_module

import graphql
import strawberry
from graphql import build_schema, lexicographic_sort_schema
from strawberry.printer import print_schema
from strawberry.schema.config import StrawberryConfig

from graph.core.declarations import Schema
from graph.core.entities import entities
from graph.core.scalars import scalars
from graph.core.user_errors import USER_ERRORS

SLICES = [
    "graph.accounts",
    "graph.agent_subscriptions",
    "graph.agents",
    "graph.ai_models",
    "graph.attempts",
    "graph.boards",
    "graph.budgets",
    "graph.claims",
    "graph.communications",
    "graph.conversations",
    "graph.core.nodes",
    "graph.events",
    "graph.interaction_answers",
    "graph.interactions",
    "graph.members",
    "graph.plans",
    "graph.projects",
    "graph.task_graphs",
    "graph.tasks",
    "graph.tools",
    "graph.usage",
    "graph.usage_summaries",
    "graph.users",
    "graph.webhooks",
]
"""The modules with a class `Query`, `Mutation` or `Subscription`, whose fields the schema has."""


def _merged(name: str, description: str) -> type:
    """The root type of this name, with the fields from all slices."""
    modules = map(import_module, SLICES)
    parts = tuple(getattr(module, name) for module in modules if hasattr(module, name))
    return strawberry.type(type(name, parts, {}), description=description)


Query = _merged("Query", "Queries. They return only objects that you may see.")
Mutation = _merged(
    "Mutation",
    "Mutations. Each takes an `input`, runs in one transaction, and returns the changed objects and"
    " `userErrors`. If there are `userErrors`, nothing was changed.",
)
Subscription = _merged(
    "Subscription",
    "Subscriptions. The first message has the state, and each later one an event. Send the `cursor`"
    " of the last one as `after` to go on after it.",
)


schema = Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[*USER_ERRORS, *(entity.graphql_type for entity in entities() if entity.is_subtype)],
    config=StrawberryConfig(scalar_map=scalars),
)

graphql_schema: graphql.GraphQLSchema = schema._schema
"""The schema as graphql-core has it."""


# Introspection prints defaults as literals, but cannot convert a default that is a JSON object.
for _type in graphql_schema.type_map.values():
    if isinstance(_type, graphql.GraphQLInputObjectType):
        for _field in _type.fields.values():
            if _field.default_value == {}:
                _field.default = graphql.GraphQLDefaultInput(
                    literal=graphql.parse_const_value("{}")
                )


def printed() -> str:
    """The schema in the schema definition language, sorted: the text of `schema.graphql`."""
    # StrawberryConfig(sort_schema=True) would sort the schema that is executed, and replace the
    # enum types of Strawberry, without which defaults cannot be printed.
    unsorted = build_schema(print_schema(schema))
    return graphql.print_schema(lexicographic_sort_schema(unsorted)) + "\n"
