"""One run of an operation: the request, what the pipeline has found so far, and its cost."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

from graphql import DocumentNode, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.values import VariableValues

from graph.compiler.compiled import CompiledOperation
from graph.core.context import Context
from graph.core.errors import BadRequest
from graph.core.selections import Operation, find
from graph.execution.documents import Document

WRITTEN = "written"
"""The name of the token of the last write, in the `extensions` of requests and responses."""


class GraphQLRequest(NamedTuple):
    """A request for one operation, over any transport."""

    query: str | None
    """The text of the document; None if `extensions` names a persisted document."""
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


class Run:
    """One run of an operation. Each step of the pipeline adds its results."""

    document: Document
    variables: VariableValues
    error: Exception | None = None
    """The error of `Pipeline.begin`."""
    kind: OperationType | None = None
    """Query, mutation or subscription; None if `Pipeline.begin` ended in an error."""
    node: OperationDefinitionNode | None = None
    """The operation without its fields, once the document is valid."""
    compiled: CompiledOperation | None = None
    """The compiled operation, once it is known."""
    is_prepared = False
    """Whether the steps before the execution are done."""
    is_compiled = False
    """Whether one compiled statement has answered the operation."""
    cost = 0
    """The cost of the operation, once it is computed."""
    validation_cost = 0
    """The cost of the document's validation."""
    extensions: dict[str, Any] | None = None
    """The `extensions` of the response."""
    parse_seconds = 0.0
    """The duration of finding, parsing and validating the document."""
    compile_seconds = 0.0
    """The duration of coercing the variables, computing the cost and compiling."""

    def __init__(self, schema: GraphQLSchema, request: GraphQLRequest, context: Context) -> None:
        self.schema = schema
        self.request = request
        self.context = context

    @property
    def is_mutation(self) -> bool:
        """Whether it is a mutation of a valid document, which may have changed something."""
        return self.node is not None and self.kind is OperationType.MUTATION

    @property
    def is_subscription(self) -> bool:
        """Whether it is a subscription, even one that is refused, if its document is known."""
        document: Document | None = getattr(self, "document", None)
        if document is not None:
            with suppress(BadRequest):
                return document.kind_of(self.request.operation_name) is OperationType.SUBSCRIPTION
        return False

    @cached_property
    def tree(self) -> DocumentNode:
        """The parsed document."""
        return self.document.node

    @cached_property
    def operation(self) -> Operation:
        """The operation with its selection. A known compiled operation does not need it."""
        node = find(self.tree, self.request.operation_name)
        return Operation(self.schema, self.tree, node, self.variables)
