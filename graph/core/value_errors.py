"""Errors of values in documents and variables that do not fit their types."""

from __future__ import annotations

from typing import Any

from graphql import (
    ArgumentNode,
    GraphQLEnumType,
    GraphQLError,
    ListValueNode,
    Node,
    ObjectValueNode,
    ValueNode,
    ValuesOfCorrectTypeRule,
    VisitorAction,
    validate_input_literal,
)
from graphql.language import SKIP
from graphql.type import definition

from graph.core.errors import BadInput


def _values_of(enum_type: GraphQLEnumType, unknown_value_str: str) -> str:
    """The values of an enum, which an error about another value ends with."""
    return f" Its values are {', '.join(enum_type.values)}."


# graphql-core suggests only values with similar names. It suggests nothing to those who may not
# read the schema.
definition.did_you_mean_enum_value = _values_of


class ValuesRule(ValuesOfCorrectTypeRule):
    """Requires the values in a document to fit their types, as variables have to.

    graphql-core gives the error of a scalar no location, and names no argument in any error.
    """

    _argument: str | None = None

    def enter_argument(self, node: ArgumentNode, *_: Any) -> None:
        """Remember the name of the argument whose value is visited next."""
        self._argument = node.name.value

    def leave_argument(self, *_: Any) -> None:
        """Forget the name: the default of a variable is the value of no argument."""
        self._argument = None

    def is_valid_value_node(self, node: ValueNode, input_type: Any) -> VisitorAction:
        """Report each error in a value with its place in the argument and in the document."""

        def report(error: GraphQLError, path: list[str | int]) -> None:
            message = error.message
            if self._argument is not None:
                place = ".".join(map(str, (self._argument, *path)))
                message = f"Argument '{place}' has invalid value: {message}"
            self.report_error(
                GraphQLError(
                    message,
                    error.nodes if error.locations else _node_at(node, path),
                    original_error=error.original_error,
                    extensions={"code": BadInput.code},
                )
            )

        if input_type is not None:
            hides = self.context.hide_suggestions
            validate_input_literal(node, input_type, report, hide_suggestions=hides)
        return SKIP


def _node_at(node: ValueNode, path: list[str | int]) -> Node:
    """The node of a value that is in another at this path."""
    found = node
    for part in path:
        if isinstance(found, ListValueNode) and isinstance(part, int):
            found = found.values[part]
        elif isinstance(found, ObjectValueNode):
            found = next(field.value for field in found.fields if field.name.value == part)
    return found
