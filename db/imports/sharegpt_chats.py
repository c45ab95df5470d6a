"""Chats in the format of ShareGPT, which files for the training of models have.

A conversation is an object with a list of messages as `conversations` or `items`. A message has its
sender as `from` and its text as `value`; some programs write `role` and `content`. A list as
`messages` is of this format only with `from` and `value`. The system's text and the tools may stand
beside them.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from db.imports.files import NotImportable, kind, quoted
from db.imports.report import Report
from db.imports.transcripts import Transcript

MESSAGES = ("conversations", "items", "conversation")
# The key that OpenAI's format has too, and what a message of its own then has.
OPENAI, OWN = "messages", {"from", "value"}
SENDERS = ("from", "role")
TEXTS = ("value", "content")
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "ai", "bot"), "assistant"),
    **dict.fromkeys(("claude", "gemini", "bing", "bard"), "assistant"),
    "system": "system",
    **dict.fromkeys(("observation", "tool", "tool_response", "function_response"), "tool"),
    **dict.fromkeys(("function", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
CALLS = ("function_call", "tool_call")


def recognises(item: Any) -> bool:
    """Whether a conversation has this format."""
    return _key(item) is not None


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation. Raises NotImportable."""
    key = _key(item)
    if key is None:
        raise NotImportable(f'{place}: it has no "conversations".')
    messages = [
        _message(message, f"{place}, message {number}")
        for number, message in enumerate(item[key], 1)
    ]
    about = {name: value for name, value in item.items() if name != key}
    if about.get("system"):
        messages.insert(0, {"role": "system", "content": about.pop("system")})
    return [Transcript(messages, about)]


def _key(item: Any) -> str | None:
    """The key of the messages."""
    if not isinstance(item, dict):
        return None
    for key in MESSAGES:
        value = item.get(key)
        if value == [] and key == MESSAGES[0]:
            return key
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and not first.keys().isdisjoint(SENDERS):
            return key
    messages = item.get(OPENAI)
    first = messages[0] if isinstance(messages, list) and messages else None
    return OPENAI if isinstance(first, dict) and first.keys() >= OWN else None


def _message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise NotImportable(f"{place}: it is {kind(message)}, not an object.")
    about = dict(message)
    sender = next((about.pop(key) for key in SENDERS if key in about), None)
    text = next((about.pop(key) for key in TEXTS if about.get(key) is not None), None)
    about = {key: value for key, value in about.items() if key not in TEXTS or value is not None}
    role = ROLES.get(sender.strip().lower()) if isinstance(sender, str) else None
    if role is None:
        named = quoted(sender) if isinstance(sender, str) else kind(sender)
        raise NotImportable(f"{place}: its sender is {named}, not one of {', '.join(ROLES)}.")
    if sender in CALLS and isinstance(text, str):
        calls = _calls(text)
        if calls is not None:
            return about | {"role": role, "content": None, "tool_calls": calls}
    return about | {"role": role, "content": text}


def _calls(text: str) -> list[Any] | None:
    """The calls of tools in a text, {"name": …, "arguments": …} or a list of such."""
    try:
        found = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    calls = found if isinstance(found, list) else [found]
    if not all(isinstance(call, dict) and "name" in call for call in calls):
        return None
    return [{"type": "function", "function": call} for call in calls]
