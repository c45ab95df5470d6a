"""One run of an operation: what was asked, what was found of it so far, and what it costs."""

from __future__ import annotations

import time
from functools import cached_property
from typing import Any, NamedTuple

from graphql import DocumentNode, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.values import VariableValues

from graph.compiler import CompiledOperation, CompiledStatement, Request
from graph.core.context import Context
from graph.core.selections import Operation, find
from graph.execution.documents import Document


class GraphQLRequest(NamedTuple):
    """A request for one operation, whichever way it came."""

    query: str | None
    """The text; None where `extensions` names a document that was sent before."""
    operation_name: str | None
    variables: dict[str, Any] | None
    extensions: dict[str, Any] | None


class Run:
    """One run of an operation. The steps of the pipeline add what they find."""

    document: Document
    variables: VariableValues
    error: Exception | None = None
    """Why the operation was refused at its beginning."""
    kind: OperationType | None = None
    """Whether it is a query, a mutation or a subscription; None if it was refused before."""
    node: OperationDefinitionNode | None = None
    """The head of the operation, once its document is valid."""
    compiled: CompiledOperation | None = None
    """What it compiles to, once that is known."""
    is_planned = False
    """Whether one compiled statement has answered it."""
    cost = 0
    """How many rows it could return, once that was counted."""
    validation_cost = 0
    """What it has cost to validate its document."""
    extensions: dict[str, Any] | None = None
    """What the result carries in its `extensions`."""

    def __init__(self, schema: GraphQLSchema, request: GraphQLRequest, context: Context) -> None:
        self.schema = schema
        self.request = request
        self.context = context
        self.times: dict[str, float] = {}
        """How long its steps have taken, in seconds."""

    @property
    def is_mutation(self) -> bool:
        """Whether it may change something; before its document is valid, it does not."""
        return self.node is not None and self.kind is OperationType.MUTATION

    @cached_property
    def tree(self) -> DocumentNode:
        """The parsed document."""
        return self.document.node

    @cached_property
    def operation(self) -> Operation:
        """The operation with its selection. Only what is not known already needs it."""
        node = find(self.tree, self.request.operation_name)
        operation = Operation(self.schema, self.tree, node, self.variables)
        self.context.operation = operation
        return operation

    @property
    def whole(self) -> CompiledStatement | None:
        """The one statement that answers all of it."""
        return None if self.compiled is None else self.compiled.whole

    @cached_property
    def values(self) -> Request:
        """The values that are put into its statement."""
        return Request(self.variables.coerced, self.context.viewer)


class Timed:
    """Adds the time that a block takes to the one that is noted under a name, in seconds."""

    __slots__ = ("_began", "_name", "_times")

    def __init__(self, times: dict[str, float], name: str) -> None:
        self._times = times
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        took = time.perf_counter() - self._began
        self._times[self._name] = self._times.get(self._name, 0.0) + took
