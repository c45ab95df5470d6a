"""Results of tools, and the requests they are for, in the types of the SDK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult, TextContent

from db.text import decimal_json
from graph.execution.masking import masked
from graph.mcp.calls import SCOPE_KEY, CallableTool, Caller, ToolOutcome, plain

Context = ServerRequestContext[Any, Any]


def caller_of(context: Context) -> Caller:
    """Who has sent a request."""
    assert context.request is not None
    caller: Caller = context.request.scope[SCOPE_KEY]
    return caller


async def outcome_of(
    tool: CallableTool, caller: Caller, arguments: Mapping[str, Any]
) -> ToolOutcome:
    """What a tool does for these arguments. Raises MCPError for a fault."""
    try:
        return await tool.call(caller, arguments)
    except Exception as error:
        raise MCPError(INTERNAL_ERROR, masked(error).message) from None


def result_of(outcome: ToolOutcome) -> CallToolResult:
    """The result of a tool: as text and as JSON, or sentences if something went wrong."""
    texts = list(outcome.problems)
    if outcome.data is not None:
        # The text has all digits of numbers.
        texts.append(orjson.dumps(outcome.data, default=decimal_json).decode())
    content: list[Any] = [TextContent(type="text", text=text) for text in texts]
    if outcome.problems:
        return CallToolResult(content=content, is_error=True)
    return CallToolResult(content=content, structured_content=plain(outcome.data))
