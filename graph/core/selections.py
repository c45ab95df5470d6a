"""The selection of an operation, as a tree of fields with their arguments.

graphql-core collects the fields (merging, fragments, @include and @skip), once for each operation.
The look-ahead, the compiler and the cost read the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLSchema,
    NameNode,
    OperationDefinitionNode,
    SelectionSetNode,
    Undefined,
    coerce_input_value,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_leaf_type,
    parse,
    print_ast,
)
from graphql.execution import get_variable_values
from graphql.execution.collect_fields import (
    FieldDetails,
    FragmentDetails,
    collect_fields,
    collect_subfields,
)
from graphql.execution.get_variable_signature import get_variable_signature
from graphql.execution.values import VariableValues, VariableValueSource, get_argument_values
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from graph.core.errors import BadRequest
from graph.core.shapes import Shape, deferred_values, shapes_of

# The maximum that graphql-core's executor reports.
MAX_ERRORS = 50

Result = TypeVar("Result")

BACKREF = GraphQLCoreConverter.DEFINITION_BACKREF

NO_FIELDS = SelectionSetNode(selections=(FieldNode(name=NameNode(value="__typename")),))


class InvalidOperation(Exception):
    """The operation cannot be executed.

    `errors` has what is wrong with its variables. If it is empty, the executor reports the error.
    """

    def __init__(self, errors: Sequence[GraphQLError] = ()) -> None:
        super().__init__()
        self.errors = list(errors)


@dataclass(eq=False, slots=True)
class Selected:
    """A selected field under one response name, with the fields that are selected below it."""

    key: str
    name: str
    parent: GraphQLObjectType
    definition: GraphQLField
    arguments: dict[str, Any]
    has_valid_arguments: bool
    children: dict[str, list[Selected]] = field(default_factory=dict)
    converted: dict[str, Any] | None = None
    """The arguments as its resolver gets them, after the first use."""
    page_source: Any = None
    """The source of its page, after the first use."""

    @property
    def declaration(self) -> StrawberryField | None:
        """The declaration of the field in its slice; None for `__typename` and introspection."""
        return self.definition.extensions.get(BACKREF)

    @property
    def type(self) -> GraphQLOutputType:
        """The type of the field's value."""
        return self.definition.type

    def fields(self) -> list[Selected]:
        """The fields that are selected below it, of any type."""
        return [child for children in self.children.values() for child in children]

    def under(self, *names: str) -> list[Selected]:
        """The fields at the end of this path of field names, of any type."""
        found = [self]
        for name in names:
            found = [child for each in found for child in each.fields() if child.name == name]
        return found


class Operation:
    """An operation of a document, with its fields collected and its arguments coerced.

    Raises InvalidOperation.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        node: OperationDefinitionNode,
        variables: VariableValues,
    ) -> None:
        self.schema = schema
        self.document = document
        self.node = node
        self.fragments = {
            node.name.value: FragmentDetails(node)
            for node in document.definitions
            if isinstance(node, FragmentDefinitionNode)
        }
        self.variables = variables
        root = schema.get_root_type(self.node.operation)
        if root is None:
            raise InvalidOperation
        self._by_nodes: dict[tuple[str, tuple[int, ...]], Selected] = {}
        collected = collect_fields(schema, self.fragments, variables, root, self.node)
        self.roots = list(self._select(root, collected.grouped_field_set))

    def with_variables(self, variables: VariableValues) -> Operation:
        """The same operation with other variables. Raises InvalidOperation."""
        return Operation(self.schema, self.document, self.node, variables)

    def _select(
        self, parent: GraphQLObjectType, groups: dict[str, list[FieldDetails]]
    ) -> Iterator[Selected]:
        for key, details in groups.items():
            node = details[0].node
            identity = parent.name, tuple(id(detail.node) for detail in details)
            if identity in self._by_nodes:
                # The same nodes under the same type have the same selection. So a fragment is
                # collected once, however often it is spread.
                yield self._by_nodes[identity]
                continue
            definition = self.schema.get_field(parent, node.name.value)
            if definition is None:
                raise InvalidOperation
            try:
                arguments = self._arguments(definition, node) if definition.args else {}
                is_valid = True
            except GraphQLError:
                # The executor reports this error, and does not resolve the field.
                arguments, is_valid = {}, False
            selected = Selected(key, node.name.value, parent, definition, arguments, is_valid)
            self._by_nodes[identity] = selected
            if is_valid and node.selection_set is not None:
                named: Any = get_named_type(definition.type)
                types = (
                    self.schema.get_possible_types(named) if is_abstract_type(named) else [named]
                )
                for kind in types:
                    below = collect_subfields(
                        self.schema, self.fragments, self.variables, self.node, kind, details
                    )
                    selected.children[kind.name] = [*self._select(kind, below.grouped_field_set)]
            yield selected

    def _arguments(self, definition: GraphQLField, node: FieldNode) -> dict[str, Any]:
        """The values of a field's arguments. Null becomes the default value, if there is one."""
        values = get_argument_values(definition, node, self.variables)
        for name, argument in definition.args.items():
            key, default = argument.out_name or name, argument.default_value
            if values.get(key, default) is None and default is not Undefined:
                values[key] = default
        return values

    def size(self) -> tuple[int, int]:
        """The number of fields of the response's shape, and their depth."""

        def combine(_: Selected, below: list[tuple[int, int]]) -> tuple[int, int]:
            return 1 + sum(n for n, _ in below), 1 + max((depth for _, depth in below), default=0)

        sizes = fold(self.roots, combine)
        return sum(n for n, _ in sizes), max((depth for _, depth in sizes), default=0)

    def fields(self) -> Iterable[Selected]:
        """The distinct selected fields, at any depth."""
        return self._by_nodes.values()

    def selected(self, info: GraphQLResolveInfo[Any]) -> Selected:
        """The field that is being resolved."""
        return self._by_nodes[info.parent_type.name, tuple(map(id, info.field_nodes))]

    def converted(self, selected: Selected) -> dict[str, Any]:
        """The arguments of a field as its resolver gets them."""
        if selected.converted is None:
            assert selected.declaration is not None
            selected.converted = _converted(self.schema, selected.declaration, selected.arguments)
        return selected.converted

    def shape(self, selected: Selected) -> ArgumentsShape:
        """The shape of the arguments of a field."""
        assert selected.declaration is not None
        values = shapes_of(selected.definition.args, selected.arguments)
        return ArgumentsShape(self.schema, selected.declaration, values)


class ArgumentsShape(NamedTuple):
    """The shape of the arguments of a field, which determines the statement of its resolver."""

    schema: GraphQLSchema
    declaration: StrawberryField
    values: Shape

    def deferred(self, read: Callable[[Any], Any]) -> dict[str, Any]:
        """The deferred arguments as the resolver gets them.

        A function reads the coerced arguments from a request.
        """
        return _converted(self.schema, self.declaration, deferred_values(self.values, read))


def _converted(
    schema: GraphQLSchema, declaration: StrawberryField, arguments: dict[str, Any]
) -> dict[str, Any]:
    converter = schema.extensions[BACKREF].schema_converter
    return convert_arguments(
        arguments,
        declaration.arguments,
        scalar_registry=converter.scalar_registry,
        config=converter.config,
    )


def fold(
    fields: Iterable[Selected], combine: Callable[[Selected, list[Result]], Result]
) -> list[Result]:
    """The results of fields, each combined from a field and the results of its children.

    Fragments can select a field any number of times. Its result is computed once.
    """
    results: dict[int, Result] = {}

    def result_of(selected: Selected) -> Result:
        if id(selected) not in results:
            below = [result_of(child) for child in selected.fields()]
            results[id(selected)] = combine(selected, below)
        return results[id(selected)]

    return [result_of(each) for each in fields]


def input_values(
    fields: Mapping[str, Any], values: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """The names, definitions and coerced values of the arguments or input fields that are given."""
    return [
        (name, field, values[key])
        for name, field in fields.items()
        if (key := field.out_name or name) in values
    ]


@lru_cache(maxsize=1_000)
def nested_fields(kind: GraphQLInputObjectType) -> dict[str, GraphQLInputField]:
    """The fields of an input whose values are inputs or lists. Most fields have plain values."""
    return {
        name: field
        for name, field in kind.fields.items()
        if not is_leaf_type(get_nullable_type(field.type))
    }


def coerce_variables(
    schema: GraphQLSchema,
    node: OperationDefinitionNode,
    variables: dict[str, Any] | None,
    *,
    suggest: bool,
) -> VariableValues:
    """The coerced variables of an operation. Raises InvalidOperation with their errors.

    With `suggest`, the errors suggest similar names.
    """
    values = get_variable_values(
        schema,
        node.variable_definitions or (),
        variables or {},
        MAX_ERRORS,
        hide_suggestions=not suggest,
    )
    if not isinstance(values, VariableValues):
        raise InvalidOperation(values)
    return values


@dataclass(frozen=True, slots=True)
class Head:
    """What precedes the fields of an operation: its name and its variables."""

    node: OperationDefinitionNode
    """The operation without its fields and without locations, which is small."""
    signatures: tuple[Any, ...]
    """The names and types of its variables, as graphql-core has them."""

    def coerced(self, values: Mapping[str, Any]) -> VariableValues | None:
        """The coerced variables, if each is given and has a valid value that is no object or list.

        `coerce_variables` does it for all others, which takes three times as long.
        """
        sources, coerced = {}, {}
        for signature in self.signatures:
            name, value = signature.name, values.get(signature.name, Undefined)
            if value is Undefined or isinstance(value, dict | list):
                return None
            coerced[name] = coerce_input_value(value, signature.type)
            if coerced[name] is Undefined:
                return None
            sources[name] = VariableValueSource(signature, value)
        return VariableValues(sources, coerced)


def head_of(schema: GraphQLSchema, document: DocumentNode, name: str | None) -> Head:
    """The head of the operation of this name in a valid document."""
    node = find(document, name)
    head = OperationDefinitionNode(
        operation=node.operation,
        name=node.name,
        variable_definitions=node.variable_definitions,
        selection_set=NO_FIELDS,
    )
    node = find(parse(print_ast(head), no_location=True), name)
    signatures = (get_variable_signature(schema, each) for each in node.variable_definitions or ())
    # In a valid document, each variable has an input type.
    return Head(node, tuple(each for each in signatures if not isinstance(each, GraphQLError)))


def operations_of(document: DocumentNode) -> list[tuple[str | None, OperationDefinitionNode]]:
    """The operations of a document with their names."""
    return [
        (node.name.value if node.name else None, node)
        for node in document.definitions
        if isinstance(node, OperationDefinitionNode)
    ]


def choose(operations: Sequence[tuple[str | None, Result]], name: str | None) -> Result:
    """The operation of this name, or the only one without a name. Raises BadRequest."""
    if name is None and len(operations) > 1:
        raise BadRequest("The document has several operations; say which by operationName.")
    for known, operation in operations:
        if name in (None, known):
            return operation
    raise BadRequest("The document has no operation of that name.")


def find(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """The operation of a document that is executed for this name. Raises BadRequest."""
    return choose(operations_of(document), name)
