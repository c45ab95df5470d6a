"""Chats in the format of Anthropic's Messages API.

As in OpenAI's format, a conversation is a list of messages or an object with `messages`. The
content of a message is a text or a list of blocks. Results of tools are blocks of the user's
messages, and the system's text stands beside the messages as `system`.
"""

from __future__ import annotations

from typing import Any

from db.imports import openai_chats
from db.imports.report import Report
from db.imports.transcripts import Transcript

# The types of blocks that only this format has.
BLOCKS = ("tool_use", "tool_result", "server_tool_use", "thinking", "redacted_thinking")
RESULT = "tool_result"


def recognises(item: Any) -> bool:
    """Whether a conversation has blocks of this format, or names a model of Anthropic."""
    messages = item
    if isinstance(item, dict):
        messages = item.get("messages")
        model = item.get("model")
        if isinstance(messages, list) and isinstance(model, str) and model.startswith("claude"):
            return True
    return isinstance(messages, list) and any(
        block.get("type") in BLOCKS
        for message in messages
        if isinstance(message, dict)
        for block in _blocks(message.get("content"))
    )


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation. Raises NotImportable."""
    [found] = openai_chats.transcripts(item, place, report)
    messages = [part for message in found.messages for part in split_results(message)]
    about = dict(found.about)
    if about.get("system"):
        messages.insert(0, {"role": "system", "content": about.pop("system")})
    return [Transcript(messages, about)]


def split_results(message: Any) -> list[Any]:
    """A user's message as one of the tools with their results, and one with the rest, if any."""
    if not isinstance(message, dict) or message.get("role") != "user":
        return [message]
    content = message.get("content")
    results = [block for block in _blocks(content) if block.get("type") == RESULT]
    if not results or not isinstance(content, list):
        return [message]
    others = [block for block in content if block not in results]
    tools = message | {"role": "tool", "content": results}
    return [tools, message | {"content": others}] if others else [tools]


def _blocks(content: Any) -> list[dict[str, Any]]:
    if not isinstance(content, list):
        return []
    return [block for block in content if isinstance(block, dict)]
