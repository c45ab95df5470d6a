"""Sessions of Claude Code, `~/.claude/projects/<folder>/<session>.jsonl`.

Each line is a record with a `type`. Those of the types `user`, `assistant` and `system` are
messages, in the order of the file; `summary` and the like have the title of the session. Others,
such as snapshots of files, are left out.
"""

from __future__ import annotations

from typing import Any

from db.imports.anthropic_chats import split_results
from db.imports.files import quoted
from db.imports.report import Report
from db.imports.transcripts import Transcript

# At least one of these keys stands in each record beside its type.
KEYS = ("sessionId", "uuid", "leafUuid", "snapshot", "parentUuid")
TITLES = {"summary": "summary", "ai-title": "aiTitle", "custom-title": "customTitle"}
# What the session has once, if all records have the same.
SHARED = ("sessionId", "cwd", "version", "gitBranch", "userType", "entrypoint")


def is_record(value: Any) -> bool:
    """Whether a value is a line of a session."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("type"), str)
        and any(key in value for key in KEYS)
    )


def recognises(item: Any) -> bool:
    """Whether a list of lines is a session."""
    return isinstance(item, list) and any(map(is_record, item[:20]))


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation of a session."""
    messages: list[Any] = []
    about: dict[str, Any] = {}
    for number, record in enumerate(item, 1):
        if not isinstance(record, dict):
            messages.append(record)
            continue
        type = record.get("type")
        if type in TITLES:
            if title := record.get(TITLES[type]):
                about["title"] = title
        elif isinstance(record.get("message"), dict):
            for key in SHARED:
                if record.get(key) is not None:
                    about.setdefault(key, record[key])
            messages += split_results(_message(record, record["message"], about))
        elif type == "system" and isinstance(record.get("content"), str):
            messages.append(_without(record | {"role": "system"}, about))
        else:
            report.leave_out(
                f"a record of type {quoted(str(type))} was left out, because it is no message.",
                f"{place}, line {number}",
            )
    return [Transcript(messages, about)]


def _message(
    record: dict[str, Any], message: dict[str, Any], about: dict[str, Any]
) -> dict[str, Any]:
    """A record as a message; what the API's message has besides stands under `message`."""
    rest = {key: value for key, value in message.items() if key not in ("role", "content")}
    found = _without(record, about) | {
        "role": message.get("role", record.get("type")),
        "content": message.get("content"),
    }
    del found["message"]
    return found | ({"message": rest} if rest else {})


def _without(record: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in record.items() if key not in SHARED or value != about.get(key)
    }
