"""Exports of Claude, `conversations.json`.

A conversation has its messages as `chat_messages`, each with its `sender`, its `text` and, in newer
exports, blocks as `content`.
"""

from __future__ import annotations

from typing import Any

from db.imports.anthropic_chats import split_results
from db.imports.files import NotImportable, kind
from db.imports.report import Report
from db.imports.transcripts import Transcript

MESSAGES = "chat_messages"


def recognises(item: Any) -> bool:
    """Whether a conversation has this format."""
    return isinstance(item, dict) and isinstance(item.get(MESSAGES), list)


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation. Raises NotImportable."""
    messages: list[dict[str, Any]] = []
    for number, message in enumerate(item[MESSAGES], 1):
        if not isinstance(message, dict):
            raise NotImportable(f"{place}, message {number}: it is {kind(message)}, not an object.")
        messages += split_results(_message(message))
    about = {key: value for key, value in item.items() if key != MESSAGES}
    id = item.get("uuid")
    has_ids = isinstance(id, str) and all(
        isinstance(message.get("uuid"), str) for message in messages
    )
    return [Transcript(messages, about, id=id if has_ids else None, id_key="uuid")]


def _message(message: dict[str, Any]) -> dict[str, Any]:
    about = {key: value for key, value in message.items() if value not in (None, [], {})}
    sender, text = about.pop("sender", None), about.pop("text", None)
    role = "user" if sender == "human" else sender
    blocks = about.pop("content", None)
    # The text repeats the blocks, if there are any.
    return about | {"role": role, "content": blocks or text or ""}
