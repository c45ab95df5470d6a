"""Calls of tools: the arguments become variables, and the response becomes a result."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple

import orjson
from graphql import GraphQLSchema, NonNullTypeNode, OperationDefinitionNode, parse

import db
from db.errors import UserErrorCode
from db.text import decimal_json, parse_json
from graph.core.context import Context
from graph.core.errors import BadInput, Forbidden, Unauthenticated
from graph.core.rights import may
from graph.execution.logs import LogEntry, log_refusal
from graph.execution.pipeline import Pipeline
from graph.execution.run import GraphQLRequest
from graph.execution.tokens import Tokens
from graph.limits.cost import COST_OF_REQUEST
from graph.mcp.arguments import Path, argument_at, argument_of, operation_for, problem, problems
from graph.mcp.schemas import (
    USER_ERRORS,
    Schema,
    input_schema,
    is_merged,
    output_schema,
    places,
    pruned,
)
from graph.mcp.tools import AGENT, KIND, PROJECT, TOOLS, Tool, variables_of
from graph.server.disconnects import Disconnect

OWN_PROJECT = """query own_project($id: ID!) {
  agent(id: $id) { project { id } }
}"""
PROJECTS = """query projects {
  projects(first: 20, where: {status: {eq: IN_PROGRESS}}) { nodes { id name } }
}"""
TRANSPORT = "mcp"
"""The name of the transport in the log and the metrics."""

NOT_FOUND = "There is none with this id, or you may not see it."

# The key of the caller in the scope of a request (ASGI).
SCOPE_KEY = "troupe.mcp"


class Caller:
    """Who has sent a request, and what runs for it: operations, as on `/graphql`."""

    def __init__(
        self,
        pipeline: Pipeline,
        tokens: Tokens,
        token: str | None,
        address: str | None,
        arguments: dict[str, Any],
        traceparent: str | None,
        disconnect: Disconnect,
    ) -> None:
        self.pipeline = pipeline
        self.arguments = arguments
        """The arguments of the tool, with all digits of numbers."""
        self._traceparent = traceparent
        self._tokens = tokens
        self._token = token
        self._address = address
        self._disconnect = disconnect
        self._context: Context | None = None
        """The context of the next operation, if there is one already."""
        self.agent_id: str | None = None
        """The agent whose token it is."""
        self.is_charged = False
        """Whether the request counts towards the rate limit already."""
        self.has_run = False
        """Whether an operation has run, which is logged and counted by itself."""
        self.may_work = False
        """Whether the token is for more than reading."""

    async def authenticate(self, *, charges: bool) -> None:
        """Identify the viewer. `charges` is for requests without an operation.

        Raises Unauthenticated, RateLimited, and errors of the lookup.
        """
        context = self._context = await self._new_context()
        self._client = context.client
        is_refused = context.refusal is not None or context.is_anonymous
        if charges or is_refused:
            self.charge()
        if is_refused:
            raise context.refusal or Unauthenticated()
        self.may_work = may(context.viewer, db.Right.WORK)
        agent_id = context.viewer.agent_id
        self.agent_id = None if agent_id is None else str(agent_id)

    def charge(self) -> None:
        """Charge a request that no operation has charged. Raises RateLimited."""
        self.is_charged = True
        self.pipeline.limits.rates.charge(self._client, COST_OF_REQUEST)

    async def _new_context(self) -> Context:
        return await self.pipeline.context(self._tokens, self._token, self._address)

    async def run(self, text: str, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The response to an operation, which is logged."""
        with LogEntry(TRANSPORT, self._traceparent) as entry:
            context, self._context = self._context or await self._new_context(), None
            self.is_charged = self.has_run = True
            request = entry.request = GraphQLRequest(text, name, variables, None)
            run = self._disconnect.run = entry.run = self.pipeline.begin(request, context)
            response = await self.pipeline.answer(run)
            entry.answer(response)
        body: dict[str, Any] = parse_json(orjson.dumps(response.body, default=decimal_json))
        return body


class ToolOutcome(NamedTuple):
    """What a tool has done."""

    data: dict[str, Any] | None
    """The result in the form of its schema; None if there is none."""
    problems: list[str]
    """What went wrong, in sentences."""


class CallableTool:
    """A tool with its schemas."""

    def __init__(self, schema: GraphQLSchema, tool: Tool) -> None:
        self.tool = tool
        self._schema = schema

    @cached_property
    def input_schema(self) -> Schema:
        """The schema of its arguments."""
        return input_schema(self._schema, self.tool)

    @cached_property
    def output_schema(self) -> Schema:
        """The schema of its result."""
        return output_schema(self._schema, self.tool)

    @cached_property
    def _names(self) -> dict[Path, str]:
        """The names of the arguments, by their places in the input of a mutation."""
        found = places(self._schema, parse(self.tool.document))
        return {place.path: name for name, place in found.items()}

    async def call(self, caller: Caller, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Execute the operation for these arguments. One that is null counts as omitted."""
        variables = {name: value for name, value in arguments.items() if value is not None}
        try:
            name = operation_for(self.tool, variables)
            variables.pop(KIND, None)
            operation = self.tool.operations[name]
            known = self.input_schema["properties"]
            if wrong := problems(self._schema, operation, variables, known, self.tool.own):
                raise ValueError(*wrong)
            await self._add_own(caller, operation, variables)
        except ValueError as error:
            if not caller.has_run:
                log_refusal(TRANSPORT, 200, [BadInput.code])
            return ToolOutcome(None, list(error.args))
        body = await caller.run(self.tool.document, name, variables)
        outcome = self._outcome(caller, operation, variables, body)
        is_empty = outcome.data is not None and not outcome.data.get("nodes")
        # A page after another one is of a project that was seen.
        if is_empty and "after" not in variables:
            unseen = await self._unseen(caller, arguments)
            return ToolOutcome(None, unseen) if unseen else outcome
        return outcome

    async def _unseen(self, caller: Caller, arguments: Mapping[str, Any]) -> list[str]:
        """The problems of the ids for which a list is empty because the viewer sees nothing there.

        If that cannot be found out now, such as for a limit, there are none: the list is right.
        """
        found = []
        for name, query in self.tool.seen_by.items():
            if arguments.get(name) is None:
                continue
            try:
                seen = await _read(caller, query, "seen", {"id": arguments[name]})
            except ValueError:
                continue
            if seen["seen"] is None:
                found.append(problem(NOT_FOUND, name, code=UserErrorCode.NOT_FOUND))
        return found

    async def _add_own(
        self, caller: Caller, operation: OperationDefinitionNode, variables: dict[str, Any]
    ) -> None:
        """Add the arguments that are omitted for the agent itself and its project.

        Raises ValueError with the problems, each a sentence.
        """
        for definition in operation.variable_definitions or ():
            name = definition.variable.name.value
            own = self.tool.own.get(name)
            if own is None or name in variables:
                continue
            value = caller.agent_id
            if own == PROJECT and value is not None:
                value = await _own_project(caller, value)
            if value is not None:
                variables[name] = value
            elif isinstance(definition.type, NonNullTypeNode):
                raise ValueError(problem(await _advice(caller, own), name))

    def _outcome(
        self,
        caller: Caller,
        operation: OperationDefinitionNode,
        variables: Mapping[str, Any],
        body: dict[str, Any],
    ) -> ToolOutcome:
        found = [self._problem(caller, error, variables) for error in body.get("errors", ())]
        data = body.get("data") or {}
        roots = [each for each in data.values() if each is not None]
        if is_merged(operation):
            data = {}
            for payload in roots:
                errors = payload.get(USER_ERRORS) or ()
                found += [self._user_problem(error) for error in errors]
                data |= {} if errors else payload
        if not roots:
            return ToolOutcome(None, found or [_not_found(operation)])
        shown = pruned(self.output_schema, data)
        return ToolOutcome(shown if shown or not found else None, found)

    def _problem(
        self, caller: Caller, error: Mapping[str, Any], variables: Mapping[str, Any]
    ) -> str:
        """An error of the operation."""
        message, code = error["message"], error["extensions"]["code"]
        if code == Forbidden.code and not caller.may_work:
            message = f"{self.tool.name} needs a token with the scope WORK; yours is for reading."
        path = argument_of(self.tool, message, variables) if code == BadInput.code else ()
        return problem(message, *path, code=code)

    def _user_problem(self, error: Mapping[str, Any]) -> str:
        """An error in the input of a mutation."""
        path = argument_at(self._names, tuple(error["path"] or ()))
        return problem(error["message"], *path, code=error["code"])


def _not_found(operation: OperationDefinitionNode) -> str:
    """What is wrong if the operation finds nothing: the id, which is its first argument."""
    name, *_ = variables_of(operation)
    return problem(NOT_FOUND, name, code=UserErrorCode.NOT_FOUND)


async def _own_project(caller: Caller, agent_id: str) -> str:
    """The project of the agent whose token it is. Raises ValueError with the problems."""
    agent = (await _read(caller, OWN_PROJECT, "own_project", {"id": agent_id}))["agent"]
    if agent is None:
        raise ValueError(problem("Your agent was not found.", code=UserErrorCode.NOT_FOUND))
    return str(agent["project"]["id"])


async def _read(caller: Caller, text: str, name: str, variables: dict[str, Any]) -> dict[str, Any]:
    """The data of a query. Raises ValueError with the problems."""
    body = await caller.run(text, name, variables)
    if errors := body.get("errors"):
        raise ValueError(
            *(problem(each["message"], code=each["extensions"]["code"]) for each in errors)
        )
    data: dict[str, Any] = body["data"]
    return data


async def _advice(caller: Caller, own: str) -> str:
    """What to do without an argument that only an agent may omit."""
    if own == AGENT:
        return "Give this, because the token is not that of an agent."
    nodes = (await _read(caller, PROJECTS, "projects", {}))["projects"]["nodes"]
    found = "; ".join(f"{node['name']} ({node['id']})" for node in nodes)
    return (
        "Give this, because the token is not that of an agent. Projects in progress:"
        f" {found or 'none'}."
    )


def callable_tools(schema: GraphQLSchema) -> dict[str, CallableTool]:
    """All tools, by name."""
    return {tool.name: CallableTool(schema, tool) for tool in TOOLS}


def plain(value: Any) -> Any:
    """JSON with numbers of Python's own types: of many digits, only those that a float has."""
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value
