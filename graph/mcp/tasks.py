"""The extension `io.modelcontextprotocol/tasks`: waiting for people as a task of the protocol.

https://modelcontextprotocol.github.io/ext-tasks/specification/2026-07-28/tasks.html

The id of such a task is that of the interaction, and its state is that of the interaction, so the
server keeps nothing. People are asked, not the client: there is nothing to update. Cancelling ends
only the waiting.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    HEADER_MISMATCH,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    RequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import Field

from db import InteractionStatus
from graph.mcp.calls import CallableTool, Caller, ToolOutcome
from graph.mcp.results import Context, caller_of, outcome_of, result_of

EXTENSION = "io.modelcontextprotocol/tasks"
TOOL = "wait_for_answer"
POLL_MILLISECONDS = 2000


class TaskParams(RequestParams):
    """The parameters of all methods of the extension."""

    task_id: str = Field(alias="taskId")


def is_supported(context: Context) -> bool:
    """Whether the client of a request has declared the extension."""
    meta = (context.params or {}).get("_meta")
    capabilities = meta.get(CLIENT_CAPABILITIES_META_KEY) if isinstance(meta, dict) else None
    extensions = capabilities.get("extensions") if isinstance(capabilities, dict) else None
    return isinstance(extensions, dict) and EXTENSION in extensions


class Waiting:
    """The methods of the extension, by the tool that waits."""

    def __init__(self, tool: CallableTool) -> None:
        self._tool = tool

    def extend(self, server: Server[Any]) -> None:
        """Add the extension to a server."""
        server.extensions[EXTENSION] = {}
        server.add_request_handler("tasks/get", TaskParams, self.get)
        server.add_request_handler("tasks/update", TaskParams, self.acknowledge)
        server.add_request_handler("tasks/cancel", TaskParams, self.acknowledge)

    async def begin(self, caller: Caller) -> Any:
        """The answer of people if they have answered, else the task of waiting for it."""
        outcome = await self._look(caller, caller.arguments)
        if outcome.problems or not _is_pending(outcome):
            return result_of(outcome)
        return {"resultType": "task", **_task(outcome)}

    async def get(self, context: Context, params: TaskParams) -> dict[str, Any]:
        """The state of a task, with the answer of people once there is one."""
        outcome = await self._find(context, params)
        task = _task(outcome)
        if task["status"] == "completed":
            task["result"] = result_of(outcome).model_dump(
                by_alias=True, mode="json", exclude_none=True
            )
        return task

    async def acknowledge(self, context: Context, params: TaskParams) -> dict[str, Any]:
        """The empty result for a task that exists; nothing changes."""
        await self._find(context, params)
        return {}

    async def _find(self, context: Context, params: TaskParams) -> ToolOutcome:
        """The interaction of a task. Raises MCPError."""
        if context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            raise MCPError(METHOD_NOT_FOUND, "Method not found")
        if not is_supported(context):
            required: Any = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise MCPError(
                MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", required
            )
        assert context.request is not None
        named = context.request.headers.get(MCP_NAME_HEADER)
        if named is not None and decode_header_value(named) != params.task_id:
            raise MCPError(HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} names another task.")
        outcome = await self._look(caller_of(context), {"id": params.task_id})
        if outcome.problems:
            # The argument of the tool has another name than the parameter.
            problems = (re.sub("^id: ", "taskId: ", each) for each in outcome.problems)
            raise MCPError(INVALID_PARAMS, " ".join(problems))
        return outcome

    async def _look(self, caller: Caller, arguments: dict[str, Any]) -> ToolOutcome:
        """The interaction as it is now."""
        return await outcome_of(self._tool, caller, {**arguments, "timeoutSeconds": 0})


def _is_pending(outcome: ToolOutcome) -> bool:
    return outcome.data is not None and outcome.data["status"] == InteractionStatus.PENDING


def _task(outcome: ToolOutcome) -> dict[str, Any]:
    """The task of an interaction."""
    assert outcome.data is not None
    found = outcome.data
    status = {InteractionStatus.PENDING: "working", InteractionStatus.CANCELLED: "cancelled"}
    created, expires = found["createdAt"], found.get("expiresAt")
    return {
        "taskId": found["id"],
        "status": status.get(found["status"], "completed"),
        "statusMessage": f"{found['title']}: {found['status']}",
        "createdAt": created,
        "lastUpdatedAt": found["updatedAt"],
        # The interaction stays after it has expired.
        "ttlMs": None if expires is None else _milliseconds(created, expires),
        "pollIntervalMs": POLL_MILLISECONDS,
    }


def _milliseconds(begin: str, end: str) -> int:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return int(1000 * seconds)
