"""The server of the protocol, by the official SDK, which takes long to import.

The SDK has the messages of all versions of the protocol, and their checks. The endpoint has read
the request and identified the viewer before.
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import Any

import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    ListToolsResult,
    PaginatedRequestParams,
    ToolAnnotations,
)
from mcp_types import Tool as ListedTool
from sse_starlette.sse import AppStatus

from graph.execution.pipeline import Pipeline
from graph.mcp import tasks
from graph.mcp.calls import CallableTool, callable_tools
from graph.mcp.results import Context, caller_of, outcome_of, result_of
from graph.mcp.schemas import description, is_merged

# This package, which the SDK imports, replaces the method of all servers, for event streams that
# are not used here.
if AppStatus.original_handler is not None:
    uvicorn.Server.handle_exit = AppStatus.original_handler  # type: ignore[method-assign]

# The SDK logs each request at the level INFO; the log has them already.
logging.getLogger("mcp").setLevel(logging.WARNING)

# The tools are the same for everybody, until the server is updated.
LIST_HINT = CacheHint(ttl_ms=300_000, scope="public")

INSTRUCTIONS = (
    "Troupe hands out the tasks of a project to agents. Claim a task, work on it, call heartbeat"
    " while you do, and end it with complete, fail or release. Stop if a heartbeat says leaseLost,"
    " cancelRequested or pauseRequested. Ask people with ask_person, and agents with send; search"
    " finds ids. Repeat a call whose answer was lost with the same idempotencyKey."
)


class ToolServer:
    """The handlers of the methods that the server has."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.tools = callable_tools(pipeline.schema)
        self._listed = [_listed(pipeline, tool) for tool in self.tools.values()]
        server: Server[Any] = Server(
            "troupe",
            title="Troupe",
            version=metadata.version("troupe"),
            instructions=INSTRUCTIONS,
            cache_hints={"tools/list": LIST_HINT, "server/discover": LIST_HINT},
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )
        # Operations are traced by the pipeline.
        server.middleware.clear()
        self._waiting = tasks.Waiting(self.tools[tasks.TOOL])
        self._waiting.extend(server)
        self.manager = StreamableHTTPSessionManager(
            server,
            json_response=True,
            stateless=True,
            max_request_body_size=pipeline.limits.settings.max_body_bytes,
        )

    async def list_tools(
        self, context: Context, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        """All tools, whoever asks: what a viewer may not do is refused when they do it."""
        return ListToolsResult(tools=self._listed)

    async def call_tool(self, context: Context, params: CallToolRequestParams) -> Any:
        """Call a tool. Waiting for people may become a task of the protocol."""
        tool, caller = self.tools.get(params.name), caller_of(context)
        if tool is None:
            known = ", ".join(self.tools)
            raise MCPError(INVALID_PARAMS, f"There is no tool of this name. There are: {known}.")
        if params.name == tasks.TOOL and tasks.is_supported(context):
            return await self._waiting.begin(caller)
        return result_of(await outcome_of(tool, caller, caller.arguments))


def _listed(pipeline: Pipeline, callable_tool: CallableTool) -> ListedTool:
    """A tool in the list."""
    tool = callable_tool.tool
    first = next(iter(tool.operations.values()))
    # The descriptions of kinds are those of the argument. One of several root fields says little.
    has_one = not tool.kinds and is_merged(first)
    words = description(pipeline.schema, first) if has_one else ""
    reads = first.operation.value == "query"
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=f"{tool.when} {words}".strip(),
        input_schema=callable_tool.input_schema,
        output_schema=callable_tool.output_schema,
        annotations=ToolAnnotations(
            read_only_hint=reads,
            destructive_hint=False,
            idempotent_hint=reads or tool.repeats,
            open_world_hint=False,
        ),
    )
