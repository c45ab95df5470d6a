"""The private interfaces that the code uses, each with a check of what it needs of them."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Any

import graphql
import pydantic
import pytest
import strawberry
from graphql import GraphQLSyntaxError, parse
from strawberry.types import get_object_definition

from tests.private import ROWS, has, private, takes

STRAWBERRY = "strawberry-graphql"
GRAPHQL = "graphql-core"


class _Input(pydantic.BaseModel):
    count: int


@strawberry.type(name="Query")
class _Query:
    name: str = "x"

    @strawberry.field
    def parent(self, info: strawberry.Info) -> str:
        return info._raw_info.parent_type.name


# Strawberry


@private(
    STRAWBERRY,
    "`Info._raw_info`",
    "_raw_info",
    why="`Info` does not have the nodes of the field and its parent type, by which what is selected"
    " below it is found",
)
def raw_info() -> None:
    result = strawberry.Schema(_Query).execute_sync("{ parent }")
    assert result.data == {"parent": "Query"}, result.errors


@private(
    STRAWBERRY,
    "`Schema._schema`",
    "_schema",
    why="graphql-core validates, coerces and reads selections by its own schema, which Strawberry"
    " hands out in no other way",
)
def core_schema() -> None:
    assert isinstance(strawberry.Schema(_Query)._schema, graphql.GraphQLSchema)


@private(
    STRAWBERRY,
    "`__strawberry_definition__` of enums",
    "__strawberry_definition__",
    why="the values of enums get their descriptions from the docstrings of their members",
)
def definition() -> None:
    class Colour(Enum):
        RED = 1

    strawberry.enum(Colour)
    (value,) = Colour.__strawberry_definition__.values  # type: ignore[attr-defined]
    value.description = "A colour."
    assert value.name == "RED"


@private(
    STRAWBERRY,
    "`from_input` of the definition of an input, which calls `model_validate`, and `InputContext`",
    "from_input",
    "model_validate",
    "strawberry.types.arguments.InputContext",
    why="all that Pydantic finds wrong with an input becomes user errors of the mutation, in the"
    " words of the API",
)
def from_input() -> None:
    called = []

    def model_validate(cls: Any, /, data: Any, **options: Any) -> Any:
        called.append(data)
        return pydantic.BaseModel.model_validate.__func__(cls, data, **options)  # type: ignore[attr-defined]

    _Input.model_validate = classmethod(model_validate)  # type: ignore[method-assign,assignment]
    strawberry.pydantic.input(_Input, name="Input")
    definition: Any = get_object_definition(_Input, strict=True)
    build = definition.from_input
    takes(build, "model", "value", "context")
    definition.from_input = lambda *arguments: build(*arguments).count

    @strawberry.type
    class Query:
        @strawberry.field
        def echo(self, input: _Input) -> int:
            return input  # type: ignore[return-value]

    result = strawberry.Schema(Query).execute_sync("{ echo(input: {count: 3}) }")
    assert (result.data, called) == ({"echo": 3}, [{"count": 3}])


@private(
    STRAWBERRY,
    "`StrawberryGraphQLCoreExecutionContext`",
    "strawberry.schema.schema.StrawberryGraphQLCoreExecutionContext",
    why="the executor of the schema is derived from it",
)
def execution_context() -> None:
    from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

    assert issubclass(StrawberryGraphQLCoreExecutionContext, graphql.Executor)
    takes(strawberry.Schema, "query", "mutation", "subscription")
    assert "execution_context_class" in strawberry.Schema.__init__.__annotations__


@private(
    STRAWBERRY,
    "`GraphQLCoreConverter.DEFINITION_BACKREF`",
    "strawberry.schema.schema_converter.GraphQLCoreConverter",
    why="from a field of graphql-core's schema to its declaration",
)
def definition_backref() -> None:
    from strawberry.schema.schema_converter import GraphQLCoreConverter

    schema = strawberry.Schema(_Query)._schema
    backref = GraphQLCoreConverter.DEFINITION_BACKREF
    assert schema.query_type is not None
    assert schema.query_type.fields["parent"].extensions[backref].python_name == "parent"
    has(schema.extensions[backref].schema_converter, "scalar_registry", "config")


@private(
    STRAWBERRY,
    "`convert_arguments`, `StrawberryArgument` and `StrawberryAnnotation`",
    "strawberry.types.arguments.convert_arguments",
    "strawberry.types.arguments.StrawberryArgument",
    "strawberry.annotation.StrawberryAnnotation",
    why="the core makes the arguments of its fields, and converts them once for all of a selection",
)
def arguments() -> None:
    from strawberry.annotation import StrawberryAnnotation
    from strawberry.schema.config import StrawberryConfig
    from strawberry.schema.types.scalar import DEFAULT_SCALAR_REGISTRY
    from strawberry.types.arguments import StrawberryArgument, convert_arguments

    argument = StrawberryArgument(
        python_name="first_name",
        graphql_name="firstName",
        type_annotation=StrawberryAnnotation(str),
        description="A name.",
        default=strawberry.UNSET,
    )
    converted = convert_arguments(
        {"firstName": "x"},
        [argument],
        scalar_registry=DEFAULT_SCALAR_REGISTRY,
        config=StrawberryConfig(),
    )
    assert converted == {"first_name": "x"}


@private(
    STRAWBERRY,
    "`StrawberryField.arguments` and `.base_resolver`",
    "StrawberryField.arguments",
    "base_resolver",
    why="a field of the core is a field of Strawberry's with arguments of its own; graphql-core"
    " calls it, unless it has a resolver",
)
def field() -> None:
    from strawberry.types.field import StrawberryField

    has(StrawberryField(), "_arguments", "arguments")
    assert StrawberryField().base_resolver is None


@private(
    STRAWBERRY,
    "`DEFAULT_SCALAR_REGISTRY`",
    "strawberry.schema.types.scalar.DEFAULT_SCALAR_REGISTRY",
    why="the scalar `ID` for UUIDs",
)
def scalars() -> None:
    from strawberry.schema.types.scalar import DEFAULT_SCALAR_REGISTRY

    assert DEFAULT_SCALAR_REGISTRY[strawberry.ID].name == "ID"


@private(
    STRAWBERRY,
    "`MaybeNullValidationRule` and `OneOfInputValidationRule`",
    "strawberry.schema.validation_rules.maybe_null.MaybeNullValidationRule",
    "strawberry.schema.validation_rules.one_of.OneOfInputValidationRule",
    why="documents are validated with a limit of errors, by the rules that Strawberry has them"
    " validated by",
)
def validation_rules() -> None:
    from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
    from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

    for rule in (MaybeNullValidationRule, OneOfInputValidationRule):
        assert issubclass(rule, graphql.ValidationRule)


@private(
    STRAWBERRY,
    "`DataLoader.load`, `.loop`, `.batch`, and `Batch._dispatch_task`",
    "DataLoader.load",
    "_dispatch_task",
    why="a batch waits until all are asked that run now, and is cancelled when nobody waits for it",
)
def dispatch_task() -> None:
    from strawberry.dataloader import Batch, DataLoader, dispatch_batch

    async def cancelled() -> bool:
        async def fetch(keys: list[int]) -> list[int]:
            await asyncio.sleep(3600)
            return keys

        loader = DataLoader(fetch)
        has(loader, "loop", "batch", "cache_map")
        batch: Batch[int, int] = Batch()
        future = loader.loop.create_future()
        batch.add_task(1, future)
        assert not batch.dispatched
        task = batch._dispatch_task = asyncio.create_task(dispatch_batch(loader, batch))
        await asyncio.sleep(0)
        future.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())


@private(
    STRAWBERRY,
    "`await_maybe`, `optimized_is_awaitable` and `to_camel_case`",
    "strawberry.utils.await_maybe.await_maybe",
    "strawberry.execution.optimized_is_awaitable",
    "strawberry.utils.str_converters.to_camel_case",
    why="operations are executed, and names made, as Strawberry does it",
)
def utilities() -> None:
    from strawberry.execution import optimized_is_awaitable
    from strawberry.utils.await_maybe import await_maybe
    from strawberry.utils.str_converters import to_camel_case

    assert asyncio.run(await_maybe(1)) == 1
    assert optimized_is_awaitable(1) is False
    assert to_camel_case("due_at") == "dueAt"


# graphql-core


@private(
    GRAPHQL,
    "`get_variable_signature` and `VariableValueSource`",
    "graphql.execution.get_variable_signature.get_variable_signature",
    "graphql.execution.values.VariableValueSource",
    why="the types of an operation's variables are looked up once, not for each request",
)
def variable_values() -> None:
    from graphql.execution import VariableValues
    from graphql.execution.get_variable_signature import get_variable_signature
    from graphql.execution.values import VariableValueSource

    schema = graphql.build_schema("type Query { twice(number: Int): Int }")
    node: Any = parse("query($n: Int) { twice(number: $n) }").definitions[0]
    signature: Any = get_variable_signature(schema, node.variable_definitions[0])
    assert (signature.name, signature.type) == ("n", graphql.GraphQLInt)
    found = VariableValues({"n": VariableValueSource(signature, 1)}, {"n": 1})
    known = graphql.execution.get_variable_values(schema, node.variable_definitions, {"n": 1})
    assert found == known


@private(
    GRAPHQL,
    "`Executor`: what is overridden and called of it",
    "Executor.complete_abstract_value",
    "Executor.complete_iterable_value",
    "Executor.complete_leaf_value",
    "Executor.complete_list_value",
    "Executor.complete_object_value",
    "Executor.execute_fields",
    "graphql.pyutils.Path",
    "settle_in_background",
    why="bytes are counted, long lists have pauses, and JSON passes through",
)
def executor() -> None:
    executor = graphql.Executor
    takes(executor.execute_fields, "parent_type", "source_value", "path", "grouped_field_set")
    takes(
        executor.complete_iterable_value, "item_type", "field_details_list", "info", "path", "items"
    )
    takes(executor.complete_leaf_value, "return_type", "result")
    completed = ("return_type", "field_details_list", "info", "path", "result", "position_context")
    takes(executor.complete_object_value, *completed)
    takes(executor.complete_abstract_value, *completed)
    takes(executor.complete_list_value, *completed)
    takes(executor.complete_list_item_value, "item", "complete_results", "item_type")
    takes(executor.execute_field, "parent_type", "source", "field_details_list", "path")
    takes(executor.handle_field_error, "raw_error", "return_type", "field_details_list", "path")
    takes(executor.settle_in_background, "awaitables")
    has(executor, "is_awaitable", "context_value", "schema")


@private(
    GRAPHQL,
    "`collect_fields`, `collect_subfields`, `FieldDetails` and `FragmentDetails`",
    "graphql.execution.collect_fields.FieldDetails",
    "graphql.execution.collect_fields.FragmentDetails",
    "graphql.execution.collect_fields.collect_fields",
    "graphql.execution.collect_fields.collect_subfields",
    why="what is selected is read as graphql-core executes it, with fragments, `@skip` and"
    " `@include`",
)
def collect_fields() -> None:
    from graphql.execution import collect_fields as module

    takes(module.collect_fields, "schema", "fragments", "variable_values", "runtime_type")
    takes(module.collect_subfields, "schema", "fragments", "variable_values", "operation")
    assert module.FieldDetails._fields[0] == "node"
    assert module.FragmentDetails._fields[0] == "definition"


@private(
    GRAPHQL,
    "`gather_with_cancel`",
    "graphql.pyutils.gather_with_cancel",
    why="when a part of an answer fails, the others are cancelled as graphql-core does it",
)
def gather_with_cancel() -> None:
    from graphql.pyutils import gather_with_cancel

    async def one() -> int:
        return 1

    async def both() -> list[int]:
        return list(await gather_with_cancel(one(), one()))

    assert asyncio.run(both()) == [1, 1]


@private(
    GRAPHQL,
    "`overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET`, and its error",
    "graphql.validation.rules.overlapping_fields_can_be_merged",
    repr("Validation aborted."),
    why="the one rule that is quadratic has a limit, which is a variable of its module; who reaches"
    " it is told in other words",
)
def complexity_budget() -> None:
    from graphql.validation.rules import overlapping_fields_can_be_merged as rule

    schema = graphql.build_schema("type Query { name: String }")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule, "MAX_COMPLEXITY_BUDGET", 10)
        (error,) = graphql.validate(schema, parse("{ name name name name name name name name }"))
    assert error.message == "Validation aborted."


@private(
    GRAPHQL,
    "`ValuesOfCorrectTypeRule.is_valid_value_node`",
    "ValuesOfCorrectTypeRule.is_valid_value_node",
    why="the error of a value in a document has its location, the name of its argument and the code"
    " of invalid input",
)
def is_valid_value_node() -> None:
    found = []

    class Rule(graphql.ValuesOfCorrectTypeRule):
        def is_valid_value_node(self, node: Any, input_type: Any) -> Any:
            found.append((graphql.print_ast(node), str(input_type)))
            return super().is_valid_value_node(node, input_type)

    schema = graphql.build_schema("type Query { names(like: [String!], first: Int): String }")
    (error,) = graphql.validate(schema, parse('{ names(like: ["a"], first: "b") }'), [Rule])
    assert found == [('["a"]', "[String!]"), ('"b"', "Int")]
    assert error.message == 'Int cannot represent non-integer value: "b"'


@private(
    GRAPHQL,
    "`graphql.type.definition.did_you_mean_enum_value`",
    "graphql.type.definition",
    why="an error about a value that an enum does not have lists its values; graphql-core names"
    " only similar ones",
)
def did_you_mean_enum_value() -> None:
    kind = graphql.GraphQLEnumType("Colour", {"RED": 1, "BLUE": 2})
    for hides, end in ((False, " Its values are RED, BLUE."), (True, "")):
        with pytest.raises(graphql.GraphQLError) as caught:
            kind.coerce_input_value("GREEN", hides)
        assert caught.value.message == f"Value 'GREEN' does not exist in 'Colour' enum.{end}"


@private(
    GRAPHQL,
    "the message of the parser at a limit of tokens",
    repr(r"more than \d+ (tokens|comments)\. Parsing aborted\.$"),
    why="its error is one of syntax; only the message tells it from others",
)
def parsing_aborted() -> None:
    with pytest.raises(GraphQLSyntaxError, match=r"more than 2 tokens\. Parsing aborted\.\n"):
        parse("{ a b c }", max_lexical_tokens=2)
    with pytest.raises(GraphQLSyntaxError, match=r"more than 1 comments\. Parsing aborted\.\n"):
        parse("# a\n# b\n{ a }", max_comments=1)


# SQLAlchemy and asyncpg


@private(
    "SQLAlchemy",
    "`_invalidate_schema_cache` and `_invalidate_schema_cache_asof` of the dialect for asyncpg",
    "_invalidate_schema_cache",
    "_invalidate_schema_cache_asof",
    why="a statement that was prepared for tables as they were before is prepared anew",
)
def invalidate_schema_cache() -> None:
    from sqlalchemy.dialects.postgresql import asyncpg

    dialect: Any = asyncpg.dialect()  # type: ignore[no-untyped-call]
    dialect._invalidate_schema_cache()
    assert dialect._invalidate_schema_cache_asof > 0
    has(asyncpg.AsyncAdapt_asyncpg_cursor, "_invalidate_schema_cache_asof")


@private(
    "asyncpg",
    "`Connection._execute` and `._get_statement`, which its methods that run statements call",
    "Connection.execute",
    "Connection._execute",
    "Connection._get_statement",
    why="through a pooler, a statement runs in a transaction with its settings, and is prepared"
    " without a name",
)
def statements_of_the_driver() -> None:
    import asyncpg

    connection: Any = asyncpg.Connection
    takes(connection.execute, "query", "args", "timeout")
    takes(connection._execute, "query", "args", "limit", "timeout")
    takes(connection._get_statement, "query", "timeout", "named", "use_cache")


@private(
    "asyncpg",
    "`Connection._introspect_types`, which returns rows of the catalog and the statement that reads"
    " them",
    "Connection._introspect_types",
    why="a process asks once for the types that each database has, not on each connection",
)
def types_of_the_driver() -> None:
    import asyncpg

    connection: Any = asyncpg.Connection
    takes(connection._introspect_types, "typeoids", "timeout")


@private(
    "SQLAlchemy",
    "`_prepared_statement_cache` of a connection of asyncpg",
    "_prepared_statement_cache",
    why="through a pooler, statements have no names, so none is kept prepared",
)
def prepared_statement_cache() -> None:
    from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

    has(AsyncAdapt_asyncpg_connection, "_prepared_statement_cache")


@private(
    "SQLAlchemy",
    "`Row._mapping`",
    "_mapping",
    why="the names of the columns that a statement computes, such as `count`, are methods of a row",
)
def row_mapping() -> None:
    from sqlalchemy import Row

    has(Row, "_mapping")


@private(
    "SQLAlchemy",
    "`visitors.iterate` and `ClauseElement.get_children`",
    "sqlalchemy.sql.visitors.iterate",
    "get_children",
    why="which tables and columns a rule or a payload depends on is read from its expression",
)
def iterate() -> None:
    from sqlalchemy import Column, Integer, MetaData, Table, select
    from sqlalchemy.sql.visitors import iterate

    rows = Table("rows", MetaData(), Column("number", Integer))
    alias = rows.alias()
    found = list(iterate(select(alias.c.number).exists()))
    assert any(each is rows for each in found)
    columns = [base for each in found for base in getattr(each, "base_columns", ())]
    assert any(base is rows.c.number for base in columns)
    assert any(each is rows for each in alias.get_children())
    assert alias._annotate({"noted": True}) in {alias}


@private(
    "SQLAlchemy",
    "`BindParameter.inherit_cache` and `._with_value`",
    "BindParameter.inherit_cache",
    "BindParameter._with_value",
    why="a parameter with a deferred value is another one for the cache of statements, and keeps"
    " its value when the cache copies it into a loader option",
)
def bind_parameter() -> None:
    from sqlalchemy import BindParameter

    assert BindParameter.inherit_cache
    takes(BindParameter._with_value, "value")


@private(
    "SQLAlchemy",
    "`Pool.connect`",
    "Pool.connect",
    why="a pool counts who waits for a connection; it is called for each of them",
)
def pool_connect() -> None:
    from sqlalchemy import AsyncAdaptedQueuePool

    takes(AsyncAdaptedQueuePool.connect)


# uvicorn and starlette


@private(
    "uvicorn",
    "`HttpToolsProtocol`, `STATUS_LINE`, and what an answer that is under way has",
    "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
    "uvicorn.protocols.http.httptools_impl.STATUS_LINE",
    "HttpToolsProtocol._should_upgrade",
    "HttpToolsProtocol._start_asgi_task",
    "HttpToolsProtocol.connection_lost",
    "HttpToolsProtocol.connection_made",
    "HttpToolsProtocol.data_received",
    "HttpToolsProtocol.eof_received",
    "HttpToolsProtocol.handle_websocket_upgrade",
    "HttpToolsProtocol.on_body",
    "HttpToolsProtocol.on_header",
    "HttpToolsProtocol.on_headers_complete",
    "HttpToolsProtocol.on_message_complete",
    "_unset_keepalive_if_required",
    "expect_100_continue",
    "waiting_for_100_continue",
    why="a head is limited in size and time, and refused where it could be read in two ways;"
    " uvicorn has no settings for that",
)
def http_protocol() -> None:
    from uvicorn.protocols.http.httptools_impl import (
        STATUS_LINE,
        HttpToolsProtocol,
        RequestResponseCycle,
    )

    assert STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
    names = ("parser", "headers", "scope", "url", "cycle", "pipeline", "flow", "transport", "loop")
    has(HttpToolsProtocol, *names, "expect_100_continue", "_unset_keepalive_if_required")
    takes(HttpToolsProtocol._start_asgi_task, "cycle", "app")
    takes(HttpToolsProtocol._should_upgrade)
    for method in ("on_header", "on_headers_complete", "on_body", "on_message_complete"):
        has(HttpToolsProtocol, method)
    has(RequestResponseCycle, "disconnected", "message_event", "waiting_for_100_continue")
    has(RequestResponseCycle, "more_body", "body", "keep_alive")
    has(RequestResponseCycle, "response_started", "response_complete")


@private(
    "uvicorn",
    "`WebSocketsSansIOProtocol`",
    "uvicorn.protocols.websockets.websockets_sansio_impl.WebSocketsSansIOProtocol",
    "WebSocketsSansIOProtocol.data_received",
    "WebSocketsSansIOProtocol.keepalive_timeout",
    "WebSocketsSansIOProtocol.pause_writing",
    "WebSocketsSansIOProtocol.receive",
    "WebSocketsSansIOProtocol.resume_writing",
    "WebSocketsSansIOProtocol.run_asgi",
    "WebSocketsSansIOProtocol.send",
    "WebSocketsSansIOProtocol.send_keepalive_ping",
    why="a client that does not read is not listened to, and one that answers no ping is cut off;"
    " messages of subscriptions are written at once",
)
def websocket_protocol() -> None:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    names = ("handshake_initiated", "handshake_complete", "conn", "read_paused", "writable")
    has(WebSocketsSansIOProtocol, *names, "transport", "keepalive_timeout", "pause_writing")
    has(WebSocketsSansIOProtocol, "scope", "queue", "close_sent", "pong_timer", "ping_timeout")
    takes(WebSocketsSansIOProtocol.run_asgi)
    takes(WebSocketsSansIOProtocol.send_keepalive_ping)
    takes(WebSocketsSansIOProtocol.send, "message")
    takes(WebSocketsSansIOProtocol.receive)


@private(
    "uvicorn",
    "`Server.main_loop`, `.shutdown`, `.handle_exit` and `.capture_signals`",
    "Server.main_loop",
    "Server.shutdown",
    "Server.handle_exit",
    "Server.capture_signals",
    why="a server drains before it stops, and its sockets finish before they are closed; it gets"
    " the signals for that of the metrics too",
)
def server() -> None:
    import uvicorn

    takes(uvicorn.Server.main_loop)
    takes(uvicorn.Server.shutdown, "sockets")
    takes(uvicorn.Server.handle_exit, "sig", "frame")
    takes(uvicorn.Server.capture_signals)
    has(uvicorn.Server, "force_exit", "config")
    has(uvicorn.Config(app=""), "timeout_graceful_shutdown")


@private(
    "starlette",
    "`Starlette.build_middleware_stack` and `.middleware_stack`",
    "build_middleware_stack",
    "middleware_stack",
    "redirect_slashes",
    why="the outermost layer, which would answer a fault with a page of its own, is taken off",
)
def middleware_stack() -> None:
    from starlette.applications import Starlette
    from starlette.middleware.errors import ServerErrorMiddleware

    stack = Starlette().build_middleware_stack()
    assert isinstance(stack, ServerErrorMiddleware)
    has(stack, "app")
    has(Starlette(), "middleware_stack")
    has(Starlette().router, "redirect_slashes")


@private(
    "starlette",
    "`CORSMiddleware.is_allowed_origin`",
    "CORSMiddleware.is_allowed_origin",
    why="the origins that are allowed are decided in one place, for WebSockets as well, which also"
    " writes the log",
)
def allowed_origin() -> None:
    from starlette.middleware.cors import CORSMiddleware

    takes(CORSMiddleware.is_allowed_origin, "origin")


@private(
    "typer",
    "`TyperGroup.parse_args`",
    "TyperGroup.parse_args",
    "Command.parse_args",
    "typer.core.TyperGroup",
    why="`troupe import FILE` has a file in the place of a command, and Typer knows no default one",
)
def typer_group() -> None:
    from typer.core import TyperGroup

    takes(TyperGroup.parse_args, "ctx", "args")


@private(
    "alembic",
    "`MigrateOperation.reverse` and `.to_diff_tuple`",
    "MigrateOperation.reverse",
    "MigrateOperation.to_diff_tuple",
    why="a draft of a migration makes triggers anew, and its downgrade makes the old ones",
)
def migrate_operation() -> None:
    from alembic.operations.ops import MigrateOperation

    takes(MigrateOperation.reverse)
    takes(MigrateOperation.to_diff_tuple)


def table() -> str:
    """The table of the private interfaces, in Markdown."""
    lines = ["| package | interface | where | why | check |", "| --- | --- | --- | --- | --- |"]
    for row in sorted(ROWS, key=lambda row: row.package):
        where = ", ".join(f"`{file}`" for file in row.used_in)
        lines.append(f"| {row.package} | {row.interface} | {where} | {row.why} | `{row.name}` |")
    return "\n".join(lines) + "\n"
