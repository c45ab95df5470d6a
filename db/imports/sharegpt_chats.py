"""Chats in the format of ShareGPT, which files for the training of models have.

A conversation is an object with a list of messages as `conversations` or `items`. A message has its
sender as `from` and its text as `value`. The system's text and the tools may stand beside them.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from db.imports.files import NotImportable, kind, quoted
from db.imports.report import Report
from db.imports.transcripts import Transcript

MESSAGES = ("conversations", "items", "conversation")
ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "assistant", "model", "bing", "bard"), "assistant"),
    "system": "system",
    **dict.fromkeys(("observation", "tool", "tool_response", "function_response"), "tool"),
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
        if isinstance(value, list) and value and isinstance(value[0], dict) and "from" in value[0]:
            return key
    return None


def _message(message: Any, place: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise NotImportable(f"{place}: it is {kind(message)}, not an object.")
    about = dict(message)
    sender, text = about.pop("from", None), about.pop("value", None)
    role = ROLES.get(sender.strip().lower()) if isinstance(sender, str) else None
    if role is None:
        named = quoted(sender) if isinstance(sender, str) else kind(sender)
        raise NotImportable(f'{place}: "from" is {named}, not one of {", ".join(ROLES)}.')
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
