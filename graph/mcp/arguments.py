"""Arguments of tools: what is wrong with them, and which one an error of the API is about."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLID,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
    type_from_ast,
)
from graphql.utilities import validate_input_value

from db.text import require_storable
from graph.core.errors import BadInput
from graph.mcp.schemas import Schema
from graph.mcp.tools import KIND, Tool, variables_of

Path = tuple[str, ...]

# What a value of a standard type is. Other types have sentences of their own.
STANDARD = {
    "Boolean": "true or false",
    "Float": "a number",
    "ID": "a string",
    "Int": "a whole number of at most 2,147,483,647",
    "String": "a string",
}

# How many problems of an argument, and arguments that there are not, are told; and the length of a
# sentence, in characters.
MOST_PROBLEMS, LONGEST = 5, 2_000


def problem(sentence: str, *path: str | int, code: str = BadInput.code) -> str:
    """A sentence with its place and its code, for a model and for programs."""
    place = ".".join(map(str, path))
    # A sentence may repeat a value.
    shown = sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]}…"
    return f"{place}: {shown} [{code}]".removeprefix(": ")


def operation_for(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The name of the operation of a tool that these arguments are for.

    Raises ValueError with the problems, each a sentence.
    """
    kind: Any = arguments.get(KIND)
    given = arguments.keys() - {KIND}
    if tool.kinds and kind not in tool.kinds:
        raise ValueError(problem(f"This must be one of: {', '.join(tool.kinds)}.", KIND))
    known = tool.arguments_of(kind) if tool.kinds else tool.arguments
    if unknown := sorted(arguments.keys() - known):
        where = f"{tool.name} of the kind {kind}" if tool.kinds else tool.name
        names = ", ".join(sorted(known))
        sentence = f"{where} has no such argument. It has: {names}."
        raise ValueError(*(problem(sentence, name) for name in unknown[:MOST_PROBLEMS]))
    return next(
        name
        for name, operation in tool.operations.items()
        if (not tool.kinds or tool.kind_of(name) == kind) and given <= set(variables_of(operation))
    )


def problems(
    schema: GraphQLSchema,
    operation: OperationDefinitionNode,
    arguments: Mapping[str, Any],
    known: Mapping[str, Schema],
    optional: Container[str],
) -> list[str]:
    """What is wrong with the arguments of an operation, as far as it is known before it runs.

    `known` has the schemas of all arguments, `optional` the names of those that may be missing.
    """
    found: list[str] = []
    for definition in operation.variable_definitions or ():
        name, kind = definition.variable.name.value, type_from_ast(schema, definition.type)
        if name in arguments:
            found += _problems(name, kind, arguments[name])
        elif is_non_null_type(kind) and name not in optional:
            found.append(problem(f"This is missing. {known[name]['description']}", name))
    return found


def _problems(name: str, kind: Any, value: Any) -> Iterator[str]:
    """What is wrong with the value of an argument."""
    wrong: list[tuple[GraphQLError, list[str | int]]] = []
    validate_input_value(value, kind, lambda error, path: wrong.append((error, path)))
    # GraphQL takes numbers for ids.
    if get_nullable_type(kind) is GraphQLID and not isinstance(value, str | list | dict):
        wrong = [(GraphQLError(""), [])]
    for error, path in wrong[:MOST_PROBLEMS]:
        yield problem(_sentence(kind, error, path), name, *path)
    if isinstance(value, str) and not wrong:
        try:
            require_storable(value)
        except ValueError as error:
            words = str(error)
            yield problem(f"{words[:1].upper()}{words[1:]}.", name)


def _sentence(kind: Any, error: GraphQLError, path: list[str | int]) -> str:
    """What is wrong with a value at a place of an argument of this type."""
    for _ in path:
        kind = get_nullable_type(kind)
        kind = kind.of_type if is_list_type(kind) else kind
    kind = get_nullable_type(kind)
    if isinstance(kind, GraphQLEnumType):
        return f"This must be one of: {', '.join(kind.values)}."
    if isinstance(kind, GraphQLScalarType) and kind.name in STANDARD:
        return f"This must be {STANDARD[kind.name]}."
    return error.message


def argument_at(places: Mapping[Path, str], path: Path) -> Path:
    """The place in the arguments of a tool, for one in the input of an operation."""
    for length in range(len(path), 0, -1):
        if name := places.get(path[:length]):
            return (name, *path[length:])
    return ()


def argument_of(tool: Tool, message: str, arguments: Mapping[str, Any]) -> Path:
    """The argument that an error of a query is about, which begins with the name or the value."""
    if len(tool.arguments) == 1:
        return tuple(tool.arguments)
    for name, value in arguments.items():
        starts = (f"{value} ", f"{value!r} ") if isinstance(value, str) else ()
        if message.startswith((f"{name} ", *starts)):
            return (name,)
    return ()
