"""JSON Schemas of the tools: of their arguments, and of their results.

Types and descriptions are those of the places where an operation uses its variables; limits are
those of the Pydantic models of inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    ObjectFieldNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    TypeInfo,
    TypeInfoVisitor,
    ValueNode,
    VariableNode,
    Visitor,
    get_nullable_type,
    is_composite_type,
    parse,
    type_from_ast,
    visit,
)
from graphql.pyutils import Undefined
from strawberry.utils.str_converters import to_camel_case

from graph.core.inputs import MODELS
from graph.mcp.tools import AGENT, KIND, PROJECT, SOURCES, Tool

Schema = dict[str, Any]

# Other scalars are texts.
SCALARS: Mapping[str, Schema] = {
    "Boolean": {"type": "boolean"},
    "DateTime": {"type": "string", "format": "date-time"},
    "Float": {"type": "number"},
    "Int": {"type": "integer"},
    "JSON": {},
}
LIMITS = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "array": ("minItems", "maxItems"),
}
BY_DEFAULT = {
    PROJECT: "By default, the project of your agent.",
    AGENT: "By default, your agent.",
}
USER_ERRORS = "userErrors"


@dataclass(frozen=True)
class Place:
    """Where an operation uses a variable: an argument, or a field of an input."""

    type: Any
    description: str
    default: Any
    limits: Schema
    path: tuple[str, ...]
    """The place in the input of a mutation."""


class _Places(Visitor):
    """Finds the places of the variables of a document."""

    def __init__(self, types: TypeInfo) -> None:
        super().__init__()
        self.types = types
        self.found: dict[str, Place] = {}

    def enter_variable(
        self, node: VariableNode, key: Any, parent: Any, path: Any, ancestors: Any
    ) -> None:
        """Note the place of a variable that is used, not declared."""
        if self.types.get_input_type() is None or not isinstance(key, str) or key != "value":
            return
        if isinstance(parent, ObjectFieldNode):
            input: Any = get_nullable_type(self.types.get_parent_input_type())
            declared = input.fields[parent.name.value]
            limits = _limits(input).get(parent.name.value, {})
        else:
            declared, limits = self.types.get_argument(), {}
        self.found.setdefault(
            node.name.value,
            Place(
                declared.type,
                declared.description or "",
                declared.default_value,
                limits,
                _path(path, ancestors),
            ),
        )


def _path(keys: Sequence[Any], ancestors: Sequence[Any]) -> tuple[str, ...]:
    """The names of fields and the places in lists that lead to a value of an input."""
    children = (
        (key, node[key])
        for key, node in zip(keys, ancestors, strict=False)
        if isinstance(node, tuple)
    )
    return tuple(
        child.name.value if isinstance(child, ObjectFieldNode) else str(key)
        for key, child in children
        if isinstance(child, ObjectFieldNode | ValueNode)
    )


@cache
def _limits(input: GraphQLInputObjectType) -> dict[str, Schema]:
    """The JSON Schema, by Pydantic, of each field of an input."""
    for model in MODELS:
        if model.__name__ == input.name:
            properties = model.model_json_schema(by_alias=False)["properties"]
            return {to_camel_case(name): schema for name, schema in properties.items()}
    return {}


def places(schema: GraphQLSchema, document: DocumentNode) -> dict[str, Place]:
    """The places of the variables of a document, by the names of the variables."""
    types = TypeInfo(schema)
    found = _Places(types)
    visit(document, TypeInfoVisitor(types, found))
    return found.found


def input_schema(schema: GraphQLSchema, tool: Tool) -> Schema:
    """The schema of the arguments of a tool."""
    found = places(schema, parse(tool.document))
    properties: Schema = {}
    if tool.kinds:
        kinds = [(tool.kind_of(name), node) for name, node in tool.operations.items()]
        words = [f"{kind}: {description(schema, node)}" for kind, node in kinds]
        properties[KIND] = {"type": "string", "enum": tool.kinds, "description": " ".join(words)}
    required = {KIND} if tool.kinds else set()
    for number, operation in enumerate(tool.operations.values()):
        needed = set()
        for definition in operation.variable_definitions or ():
            name = definition.variable.name.value
            kind: Any = type_from_ast(schema, definition.type)
            properties.setdefault(name, _argument(tool, name, kind, found[name]))
            if isinstance(kind, GraphQLNonNull) and name not in tool.own:
                needed.add(name)
        required = required | needed if number == 0 else required & (needed | {KIND})
    ordered = [name for name in properties if name in required]
    return {
        "type": "object",
        "properties": properties,
        "required": ordered,
        "additionalProperties": False,
    }


def _argument(tool: Tool, name: str, kind: Any, place: Place) -> Schema:
    """The schema of one argument of a tool."""
    found = _typed(kind)
    for schema in (place.limits, *place.limits.get("anyOf", ())):
        for limit in LIMITS.get(found.get("type", ""), ()):
            if limit in schema:
                found[limit] = schema[limit]
    words = [place.description, BY_DEFAULT.get(tool.own.get(name, ""), ""), SOURCES.get(name, "")]
    if words := [word for word in words if word]:
        found["description"] = " ".join(words)
    if place.default not in (Undefined, None):
        found["default"] = place.default
    return found


def _typed(kind: Any) -> Schema:
    """The schema of the values of a type; whether they may be null is left out."""
    if isinstance(kind, GraphQLNonNull):
        return _typed(kind.of_type)
    if isinstance(kind, GraphQLList):
        return {"type": "array", "items": _typed(kind.of_type)}
    if isinstance(kind, GraphQLEnumType):
        return {"type": "string", "enum": list(kind.values)}
    return dict(SCALARS.get(kind.name, {"type": "string"}))


def output_schema(schema: GraphQLSchema, tool: Tool) -> Schema:
    """The schema of the result of a tool, which is that of all its operations.

    A field that may be null is absent then.
    """
    first = next(iter(tool.operations.values()))
    return _result(schema, parse(tool.document), first)


def _result(
    schema: GraphQLSchema, document: DocumentNode, operation: OperationDefinitionNode
) -> Schema:
    fragments = {
        each.name.value: each
        for each in document.definitions
        if isinstance(each, FragmentDefinitionNode)
    }
    root = schema.get_root_type(operation.operation)
    data = _selected(schema, fragments, root, operation.selection_set)
    if not is_merged(operation):
        return data
    merged: Schema = {"type": "object", "properties": {}, "required": []}
    for each in data["properties"].values():
        merged["properties"] |= each["properties"]
        merged["required"] += each["required"]
    return merged


def is_merged(operation: OperationDefinitionNode) -> bool:
    """Whether the result has the fields of the root fields, and not the root fields themselves."""
    is_mutation = operation.operation is OperationType.MUTATION
    return is_mutation or len(operation.selection_set.selections) == 1


def _selected(
    schema: GraphQLSchema,
    fragments: Mapping[str, FragmentDefinitionNode],
    parent: Any,
    selection: SelectionSetNode,
) -> Schema:
    """The schema of an object with these fields; of a connection of nodes alone, that of a list."""
    properties: Schema = {}
    required: list[str] = []
    for node, owner, is_certain in _fields(schema, fragments, parent, selection):
        name = (node.alias or node.name).value
        if name == USER_ERRORS:
            continue
        kind = owner.fields[node.name.value].type
        properties[name] = _value(schema, fragments, kind, node)
        if is_certain and isinstance(kind, GraphQLNonNull):
            required.append(name)
    if list(properties) == ["nodes"]:
        nodes: Schema = properties["nodes"]
        return nodes
    return {"type": "object", "properties": properties, "required": required}


def _fields(
    schema: GraphQLSchema,
    fragments: Mapping[str, FragmentDefinitionNode],
    parent: Any,
    selection: SelectionSetNode,
    is_certain: bool = True,
) -> Iterator[tuple[FieldNode, Any, bool]]:
    """The fields of a selection, with the type they belong to, and whether all objects have it."""
    for node in selection.selections:
        if isinstance(node, FieldNode):
            yield node, parent, is_certain
            continue
        fragment: Any = node
        if isinstance(node, FragmentSpreadNode):
            fragment = fragments[node.name.value]
        condition = fragment.type_condition
        kind: Any = parent if condition is None else type_from_ast(schema, condition)
        certain = is_certain and kind is parent
        yield from _fields(schema, fragments, kind, fragment.selection_set, certain)


def _value(
    schema: GraphQLSchema,
    fragments: Mapping[str, FragmentDefinitionNode],
    kind: Any,
    node: FieldNode,
) -> Schema:
    if isinstance(kind, GraphQLNonNull):
        return _value(schema, fragments, kind.of_type, node)
    if isinstance(kind, GraphQLList):
        return {"type": "array", "items": _value(schema, fragments, kind.of_type, node)}
    if is_composite_type(kind):
        assert node.selection_set is not None
        return _selected(schema, fragments, kind, node.selection_set)
    return _typed(kind)


def description(schema: GraphQLSchema, operation: OperationDefinitionNode) -> str:
    """The description of what an operation does: that of its last root field."""
    node = operation.selection_set.selections[-1]
    root = schema.get_root_type(operation.operation)
    assert isinstance(node, FieldNode)
    assert root is not None
    return root.fields[node.name.value].description or ""


def pruned(schema: Schema, value: Any) -> Any:
    """A result in the form of its schema: without nulls, and connections of nodes as lists.

    JSON that users have stored has no properties in the schema, and stays as it is.
    """
    if "items" in schema:
        nodes = value["nodes"] if isinstance(value, dict) else value
        return [pruned(schema["items"], each) for each in nodes]
    properties = schema.get("properties")
    if properties is None:
        return value
    return {
        name: pruned(properties[name], each)
        for name, each in value.items()
        if each is not None and name in properties
    }
