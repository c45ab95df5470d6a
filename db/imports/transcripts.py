"""The form that every format of chats is read into: messages as in OpenAI's message format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Transcript:
    """A conversation: its messages, what else is known about it, and what identifies it."""

    messages: list[Any]
    about: dict[str, Any]
    # Follows the place of the conversation in messages to the user.
    label: str = ""
    # What the program identifies it by, also when it has grown; branches of a conversation have the
    # same. None if the format has no such thing.
    id: str | None = None
    # The key of the messages that identifies each of them, if there is an id.
    id_key: str = "id"
