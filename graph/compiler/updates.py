"""The statement of a subscription: its messages for many viewers of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Uuid, column, func, literal_column, select

from db import Viewer
from db.parameters import Deferred, bind
from db.result_limits import within
from graph.compiler.compiled import CompiledStatement, compile_statement
from graph.compiler.variables import Request
from graph.core.declarations import StatementBuilder
from graph.core.json_text import Uncompilable, encoded
from graph.core.selections import Operation
from graph.core.updates import Followed, Message, messages_table


@dataclass(slots=True)
class MessagesRequest(Request):
    """What the deferred values of the statement of a subscription are resolved from."""

    messages: Sequence[Message] = ()
    viewers: Sequence[Viewer] = ()
    """Who reads a message: one for each message that somebody reads."""
    numbers: Sequence[int] = ()
    """The number of the message that each of them reads, from 1."""


# Subqueries at any depth find the ids of the viewer in the outermost rows, without naming a table.
USER, AGENT = (literal_column(f"viewers.{name}", Uuid) for name in ("user_id", "agent_id"))


def compile_messages(operation: Operation, viewer: Viewer, max_bytes: int) -> CompiledStatement:
    """The statement, whose rows have the number of a viewer, and the message as JSON.

    It fails if all of them together have more bytes than the limit. Raises Uncompilable.
    """
    user: Any = None if viewer.user_id is None else USER
    agent: Any = None if viewer.agent_id is None else AGENT
    each = Viewer(user, agent, viewer.is_administrator)
    builder = StatementBuilder(operation, each, max_bytes)
    messages = messages_table()
    (root,) = operation.roots
    followed = root.declaration
    if not isinstance(followed, Followed):
        raise Uncompilable(root.name)
    seen = followed.visible(messages, builder.viewer, operation.converted(root))
    json = encoded(builder.object(operation.roots, messages), max_bytes)
    viewers = _viewers()
    found = (
        select(
            viewers.c.number.label("viewer"), messages.c.number.label("message"), json.label("json")
        )
        .select_from(viewers.join(messages, messages.c.number == viewers.c.message))
        .where(seen)
        .offset(literal_column("0"))  # so that PostgreSQL makes each JSON once
        .subquery("found")
    )
    size = func.sum(func.octet_length(found.c.json)).over(rows=(None, 0))
    summed = select(*found.c, size.label("size")).subquery("summed")
    statement = (
        select(summed.c.viewer, summed.c.json)
        .where(within(summed.c.size, max_bytes))
        .order_by(summed.c.message, summed.c.viewer)
    )
    return compile_statement(builder, statement)


def _viewers() -> Any:
    values = [
        bind(Deferred(lambda request: [each.user_id for each in request.viewers]), ARRAY(Uuid)),
        bind(Deferred(lambda request: [each.agent_id for each in request.viewers]), ARRAY(Uuid)),
        bind(Deferred(lambda request: request.numbers), ARRAY(BigInteger)),
    ]
    columns = [column("user_id", Uuid), column("agent_id", Uuid), column("message", BigInteger)]
    unnested = func.unnest(*values)
    return unnested.table_valued(*columns, with_ordinality="number").render_derived(name="viewers")
