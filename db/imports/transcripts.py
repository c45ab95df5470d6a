"""The form that every format of chats is read into: messages as in OpenAI's message format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Transcript:
    """A conversation: its messages, what else is known about it, and what it was copied from."""

    messages: list[Any]
    about: dict[str, Any]
    # Follows the place of the conversation in messages to the user.
    label: str = ""
    # For messages that an earlier transcript of the same item has: its number, and the position of
    # the message in it, both from 0.
    copied: dict[int, tuple[int, int]] = field(default_factory=dict)
