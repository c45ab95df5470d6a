"""Chats: the conversations of a file, as JSON or JSONL, in one of the formats in FORMATS.

A file contains one conversation, a list of them, or one on each line. Messages on lines of their
own are together one conversation. A format turns each conversation into messages with the keys of
OpenAI's format (`Transcript`), and these become rows here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from db.conversations import SUMMARY_LENGTH, MessageSender, summarize
from db.imports import (
    anthropic_chats,
    chatgpt_exports,
    claude_code_sessions,
    claude_exports,
    openai_chats,
    sharegpt_chats,
)
from db.imports.files import (
    CutOff,
    Empty,
    NotImportable,
    Source,
    as_json,
    kind,
    moment,
    quoted,
    read_value,
    refuse_unstorable,
)
from db.imports.openai_chats import is_message
from db.imports.report import Report
from db.imports.transcripts import Transcript
from db.text import canonical_json

# The formats, each a module with `recognises` and `transcripts`. The last one takes everything.
FORMATS = (
    *(chatgpt_exports, claude_exports, claude_code_sessions),
    *(sharegpt_chats, anthropic_chats, openai_chats),
)

SENDERS = {
    "system": MessageSender.SYSTEM,
    "developer": MessageSender.SYSTEM,
    "user": MessageSender.USER,
    "assistant": MessageSender.ASSISTANT,
    "tool": MessageSender.TOOL,
    "function": MessageSender.TOOL,
}

TITLE_LENGTH = 255

# The keys of a message's time.
TIMES = (
    *("timestamp", "created_at", "createdAt", "create_time", "created"),
    *("time", "date", "ts"),
)

# Keys of texts beside the messages, which are stored only in the metadata.
BESIDE = ("chosen", "rejected", "prompt", "completion", "response", "system")

# The keys of the text of a part, if it has no type or one of these; otherwise only `text`.
TEXTS = ("text", "value", "content", "parts", "output", "refusal", "result")
TEXT_TYPES = (
    *(None, "text", "input_text", "output_text", "refusal"),
    *("tool_result", "tool-result", "function_call_output"),
    *("reasoning_recap", "tether_browsing_display"),
)
# The types of calls of tools, which have no text.
CALL_TYPES = ("tool_use", "server_tool_use", "tool_call", "tool-call", "function_call")

# Keys that some programs use instead of `content`.
INSTEAD_OF_CONTENT = ("parts", "text", "value", "refusal")
# The length of a title that is made from a message.
EXCERPT_LENGTH = 80

MAX_MESSAGES = 100_000


@dataclass(slots=True)
class Chat:
    """A conversation that was read from a file."""

    place: str
    # Of its id in the file if it has one, otherwise of its content; with the number among those
    # with the same hash, it identifies the conversation in its project.
    hash: str
    number: int
    size: int
    title: str | None
    summary: str
    time: datetime | None
    about: dict[str, Any]
    messages: list[dict[str, Any]]
    # What identifies each message in the conversation; empty if the conversation has no id.
    ids: list[str]
    # The key of the metadata of messages that the ids are from.
    id_key: str

    def counts(self) -> dict[str, int]:
        """Its counts for the report."""
        return {"conversations": 1, "messages": len(self.messages)}


def numbered(ids: Iterable[str]) -> list[str]:
    """Ids of messages, with a number from the second message with the same id on."""
    times: Counter[str] = Counter()
    found = []
    for id in ids:
        times[id] += 1
        found.append(id if times[id] == 1 else f"{id}#{times[id]}")
    return found


class _Conversations:
    """The conversations of a file, one by one and unchanged."""

    def __init__(self, source: Source, report: Report, before: str) -> None:
        self._before = before
        self._events = source.events()
        self._report = report
        self._number = 0

    def read(self, end: str | None = None) -> Iterator[Any]:
        """Those up to the end of a list or the file; single messages together are one."""
        messages: list[Any] | None = None
        for number, event in enumerate(self._events):
            if event[0] == end:
                # An empty list is an empty conversation.
                if number == 0:
                    messages = []
                break
            if event[0] == "start_array" and end is None and messages is None:
                yield from self.read("end_array")
                continue
            place = f"{self._before}conversation {self._number + 1}"
            if messages is not None:
                place = f"{place}, message {len(messages) + 1}"
            try:
                value = read_value(self._events, event, place, self._report)
            except CutOff:
                if not (messages and claude_code_sessions.is_record(messages[0])):
                    raise
                # The program is still writing it, or was killed.
                self._report.leave_out("it is cut off, so it was left out.", place)
                break
            if number == 0 and (is_message(value) or claude_code_sessions.is_record(value)):
                messages = []
            if messages is None:
                self._number += 1
                yield value
            elif len(messages) < MAX_MESSAGES:
                messages.append(value)
            else:
                raise NotImportable(f"{place}: {MAX_MESSAGES:,} are the most in a conversation.")
        if messages is not None:
            self._number += 1
            yield messages


def read_chats(source: Source, report: Report, before: str = "") -> Iterator[list[Chat]]:
    """The conversations of a file, each with its branches. Raises NotImportable.

    `before` begins the places in the report.
    """
    occurrences: Counter[bytes] = Counter()
    is_empty = True
    for number, item in enumerate(_Conversations(source, report, before).read(), 1):
        place = f"{before}conversation {number}"
        format = next(format for format in FORMATS if format.recognises(item))
        groups: dict[str, list[Chat]] = {}
        seen: set[str] = set()
        for found in format.transcripts(item, place, report):
            chat = _chat(found, f"{place}{found.label}", seen, report)
            if chat is not None:
                groups.setdefault(chat.hash, []).append(chat)
        # A long session is several times as large in memory as in the file.
        if isinstance(item, list):
            item.clear()
        for hash, chats in groups.items():
            if not chats[0].ids:
                occurrences[bytes.fromhex(hash)[:16]] += 1
                chats[0].number = occurrences[bytes.fromhex(hash)[:16]]
            yield chats
            is_empty = False
    if is_empty:
        raise Empty(f"{source.name} has no conversation in it.")
    if source.has_mark:
        report.change(f"{source.name} begins with a byte order mark, which was skipped.")


def _chat(found: Transcript, place: str, seen: set[str], report: Report) -> Chat | None:
    """A conversation with its rows; None if it is empty.

    `seen` are the ids of messages of earlier branches, to which those of this one are added.
    """
    messages, about = found.messages, found.about
    if not messages:
        report.leave_out(f"{place} was left out, because it has no messages.")
        return None
    refuse_unstorable(about, place)
    time = _Time.of(about)
    otherwise = "the time of the import" if time.key is None else "the time of the conversation"
    ids = [] if found.id is None else numbered(message[found.id_key] for message in messages)
    # Of a copy, only the original is reported.
    reports = [Report() if id in seen else report for id in ids] or [report] * len(messages)
    seen.update(ids)
    rows = [
        _message(message, f"{place}, message {count}", otherwise, noted)
        for count, (message, noted) in enumerate(zip(messages, reports, strict=True), 1)
    ]
    if any(row["timestamp"] is None for row in rows):
        time.report_notes(place, "the time of the import", report)
    _report_metadata(about, place, report)
    if found.id is None:
        identity = canonical_json([messages, about])
        size = len(identity)
    else:
        identity = canonical_json([found.id_key, found.id])
        size = sum(len(row["content"]) for row in rows)
    messages.clear()
    return Chat(
        place=place,
        hash=hashlib.sha256(identity).hexdigest(),
        number=1,
        size=size,
        title=_title(about, rows, place, report),
        summary=_summary(about, rows, place, report),
        time=time.value,
        about=about,
        messages=rows,
        ids=ids,
        id_key=found.id_key,
    )


def _report_metadata(about: dict[str, Any], place: str, report: Report) -> None:
    """Report texts beside the messages, which are stored only in the metadata."""
    beside = [
        key for key, value in about.items() if value and (key in BESIDE or _holds_messages(value))
    ]
    if beside:
        named = ", ".join(map(quoted, beside))
        stand = "stands" if len(beside) == 1 else "stand"
        report.change(f"{named} beside the messages {stand} in the metadata alone.", place)
    if "import" in about:
        report.change('"import" stands in the metadata as import.import.', place)


def _holds_messages(value: Any) -> bool:
    return any(map(is_message, value)) if isinstance(value, list) else is_message(value)


def _message(item: Any, place: str, otherwise: str, report: Report) -> dict[str, Any]:
    """A message as a row; keys without a column are stored in its metadata."""
    if not isinstance(item, dict):
        raise NotImportable(f"{place}: it is {kind(item)}, not an object.")
    refuse_unstorable(item, place)
    about = dict(item)
    role = about.get("role")
    sender = SENDERS.get(role.strip().lower()) if isinstance(role, str) else None
    if sender is None:
        named = "it has no role" if role is None else f"the role {quoted(str(role))} is unknown"
        raise NotImportable(f"{place}: {named}; a role is one of {', '.join(SENDERS)}.")
    if role == sender.lower():
        del about["role"]

    content, parts = _content(about, place, report)
    calls = about.pop("tool_calls", None)
    if calls is not None and not isinstance(calls, list):
        raise NotImportable(f'{place}: "tool_calls" is {kind(calls)}, not a list.')
    parts += calls or []
    # The older form, with a single call.
    if (call := about.pop("function_call", None)) is not None:
        parts.append({"type": "function_call", "function_call": call})
    if content is None and not parts:
        report.change("it has no content, so its text is empty.", place)
    time = _Time.of(about)
    time.report_notes(place, otherwise, report)
    if time.key is not None:
        del about[time.key]
    return {
        "sender": sender,
        "content": content or "",
        "parts": as_json(parts) if parts else None,
        "timestamp": time.value,
        "message_metadata": as_json(about),
    }


def _content(about: dict[str, Any], place: str, report: Report) -> tuple[str | None, list[Any]]:
    """Remove the content from the keys of a message; return its text and its parts."""
    content = about.pop("content", None)
    if content in (None, "", [], {}):
        key = next((key for key in INSTEAD_OF_CONTENT if _text(about.get(key))), None)
        if key is not None:
            report.change(f"it has no content, so its {quoted(key)} is taken for it.", place)
            content = about.pop(key)
            if key == "refusal":
                content = [{"type": key, key: content}]
    if content is None:
        return None, []
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list | dict):
        raise NotImportable(
            f"{place}: the content is {kind(content)}, not a text or a list of parts."
        )
    parts = content if isinstance(content, list) else [content]
    texts = [_text(part) for part in parts]
    for what in dict.fromkeys(
        _part(part)
        for part, said in zip(parts, texts, strict=True)
        if said is None and _type(part) not in CALL_TYPES
    ):
        report.change(f"{what} has no text known here, so it stands in the parts alone.", place)
    return "\n".join(text for text in texts if text is not None) or None, list(parts)


def _text(value: Any) -> str | None:
    """The text of a part, nested texts included; None if it has no plain text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        texts = [text for item in value if (text := _text(item)) is not None]
        return "\n".join(texts) if texts else None
    if isinstance(value, dict):
        keys = TEXTS if _type(value) in TEXT_TYPES else TEXTS[:1]
        found = [text for key in keys if (text := _text(value.get(key))) is not None]
        return next(filter(None, found), "") if found else None
    return None


def _type(part: Any) -> Any:
    return part.get("type", part.get("content_type")) if isinstance(part, dict) else None


def _part(part: Any) -> str:
    type = _type(part)
    if isinstance(type, str):
        return f"its part of type {quoted(type)}"
    return "its part without a type" if isinstance(part, dict) else f"its part, {kind(part)},"


@dataclass(slots=True)
class _Time:
    """The time of a message or conversation, its key, and notes for the report by key."""

    key: str | None
    value: datetime | None
    notes: dict[str, str]

    @classmethod
    def of(cls, about: dict[str, Any]) -> _Time:
        """The first of the times that can be parsed."""
        notes: dict[str, str] = {}
        for key in TIMES:
            if about.get(key) is None:
                continue
            time, note = moment(about[key])
            if note:
                notes[key] = note
            if time is not None:
                return cls(key, time, notes)
        return cls(None, None, notes)

    def report_notes(self, place: str, otherwise: str, report: Report) -> None:
        """Report the notes, and what is used instead of times that cannot be parsed."""
        instead = otherwise if self.key is None else f"its {self.key}"
        for key, note in self.notes.items():
            rest = (
                ""
                if key == self.key
                else (f", so it stays in the metadata and {instead} stands in its place")
            )
            report.change(f"its {key} {note}{rest}.", place)


def _title(
    about: dict[str, Any], rows: list[dict[str, Any]], place: str, report: Report
) -> str | None:
    for key in ("title", "name"):
        title = about.get(key)
        if isinstance(title, str) and title.strip():
            title = title.strip()
            if len(title) > TITLE_LENGTH:
                report.change(
                    f"its {key} has {len(title):,} characters and was cut after"
                    f" {TITLE_LENGTH - 1}; the metadata has all of it.",
                    place,
                )
            return _cut(title, TITLE_LENGTH)
    task, trial = about.get("task_id"), about.get("trial")
    if isinstance(task, int | str):
        title = f"Task {task}" if trial is None else f"Task {task}, trial {trial}"
        return _cut(title, TITLE_LENGTH)
    for row in rows:
        if row["sender"] is MessageSender.USER and row["content"].strip():
            return _cut(row["content"].strip().splitlines()[0], EXCERPT_LENGTH)
    return None


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _summary(about: dict[str, Any], rows: list[dict[str, Any]], place: str, report: Report) -> str:
    summary = about.get("summary")
    if isinstance(summary, str) and 0 < len(summary) <= SUMMARY_LENGTH:
        return summary
    if summary:
        report.change(
            f"its summary is not a text of at most {SUMMARY_LENGTH} characters, so it stays in the"
            " metadata and the beginning of the first message stands in its place.",
            place,
        )
    return summarize(rows[0]["content"])
