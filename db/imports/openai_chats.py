"""Chats in OpenAI's message format.

A conversation is a list of messages, or an object with such a list as `messages` (fine-tuning
files) or `traj` (the runs of tau-bench). A message is an object with a `role`.
"""

from __future__ import annotations

from typing import Any

from db.imports.files import NotImportable, kind
from db.imports.report import Report
from db.imports.transcripts import Transcript

# The keys of a conversation's messages.
MESSAGES = ("messages", "traj")


def is_message(value: Any) -> bool:
    """Whether a value is a single message."""
    return isinstance(value, dict) and "role" in value and not value.keys() & MESSAGES


def recognises(item: Any) -> bool:
    """Whether a conversation has this format: it is the one of files that are not recognised."""
    return True


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation. Raises NotImportable."""
    if isinstance(item, list):
        return [Transcript(item, {})]
    if not isinstance(item, dict):
        raise NotImportable(f"{place}: it is {kind(item)}, not a list of messages or an object.")
    keys = [key for key in MESSAGES if key in item]
    if keys:
        key = next((key for key in keys if item[key]), keys[0])
        messages = item[key]
        if messages is not None and not isinstance(messages, list):
            raise NotImportable(f'{place}: "{key}" is {kind(messages)}, not a list.')
        about = {name: item[name] for name in item if name != key}
        return [Transcript(messages or [], about)]
    if is_message(item):
        raise NotImportable(f"{place}: it is a single message, not a list of messages.")
    raise NotImportable(
        f'{place}: it has neither "messages" nor "traj", and no "role" to be a message itself.'
    )
