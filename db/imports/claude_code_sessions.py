"""Sessions of Claude Code, `~/.claude/projects/<folder>/<session>.jsonl`.

Each line is a record with a `type`. Those of the types `user`, `assistant` and `system` are
messages, in the order of the file; `summary` and the like have the title of the session. Others,
such as snapshots of files, are left out. The messages of an agent that the session has started
(`isSidechain`) are a conversation of their own, whether they are in the same file or in another.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from db.imports.anthropic_chats import split_results
from db.imports.files import quoted, shown
from db.imports.report import Report
from db.imports.transcripts import Transcript

# At least one of these keys stands in each record beside its type.
KEYS = ("sessionId", "uuid", "leafUuid", "snapshot", "parentUuid")
OWN_TITLE = "custom-title"
TITLES = {"summary": "summary", "ai-title": "aiTitle", OWN_TITLE: "customTitle"}
# What a session has once, if all records have the same.
SHARED = ("sessionId", "cwd", "version", "gitBranch", "userType", "entrypoint", "agentId")

MAX_FIRST_LINE = 10_000_000


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


def find_files(folder: Path) -> list[Path]:
    """The sessions in a folder, with those of their agents, the oldest first."""
    files = [*folder.glob("*.jsonl"), *folder.glob("*/subagents/*.jsonl")]
    return sorted(filter(_is_session, files), key=lambda path: (path.stat().st_mtime, path))


def _is_session(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_record(orjson.loads(file.readline(MAX_FIRST_LINE)))
    except (OSError, ValueError):
        return False


@dataclass(slots=True)
class _Thread:
    """The messages of a session, or those of an agent in it."""

    session: str | None
    # The agent, or the first record of its messages; empty for the session itself.
    agent: str
    messages: list[Any] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    has_own_title: bool = False

    def transcript(self, is_only: bool) -> Transcript:
        """The conversation, which its messages identify if each of them has an id."""
        has_ids = self.session is not None and all(
            isinstance(message, dict) and isinstance(message.get("uuid"), str)
            for message in self.messages
        )
        label = f", session {shown(str(self.session))}" + f" agent {shown(self.agent)}" * (
            self.agent != ""
        )
        return Transcript(
            self.messages,
            self.about,
            "" if is_only else label,
            f"{self.session} {self.agent}".strip() if has_ids else None,
            "uuid",
        )


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversations of a session and of its agents, in the order of their first lines."""
    threads: dict[tuple[str | None, str], _Thread] = {}
    of_records: dict[str, _Thread] = {}
    copies: set[int] = set()
    session = next(filter(None, map(_session, item)), None)
    for number in range(1, len(item) + 1):
        # Each record is given up when it was read: a session can be large.
        record, item[number - 1] = item[number - 1], None
        # A record without the session, such as a summary, is of the one before it.
        session = _session(record) or session
        agent = _agent(record, of_records)
        thread = threads.setdefault((session, agent), _Thread(session, agent))
        if not isinstance(record, dict):
            thread.messages.append(record)
            continue
        if isinstance(uuid := record.get("uuid"), str):
            if (copy := hash(repr(record))) in copies:
                report.leave_out(
                    "a record was left out, because the same one is there before.",
                    f"{place}, line {number}",
                )
                continue
            copies.add(copy)
            of_records[uuid] = thread
        type = str(record.get("type"))
        if type in TITLES:
            title, is_own = record.get(TITLES[type]), type == OWN_TITLE
            # A title that a person gave stays, also if a model gives one later.
            if title and (is_own or not thread.has_own_title):
                thread.about["title"], thread.has_own_title = title, is_own
        elif isinstance(record.get("message"), dict):
            for key in SHARED:
                if record.get(key) is not None:
                    thread.about.setdefault(key, record[key])
            thread.messages += split_results(_message(record, record["message"], thread.about))
        elif type == "system" and isinstance(record.get("content"), str):
            thread.messages.append(_without(record | {"role": "system"}, thread.about))
        else:
            report.leave_out(
                f"a record of type {quoted(type)} was left out, because it is no message.",
                f"{place}, line {number}",
            )
    return _transcripts(threads.values())


def _transcripts(threads: Iterable[_Thread]) -> list[Transcript]:
    found = [thread for thread in threads if thread.messages] or list(threads)[:1]
    return [thread.transcript(len(found) == 1) for thread in found]


def _session(record: Any) -> str | None:
    session = record.get("sessionId") if isinstance(record, dict) else None
    return session if isinstance(session, str) and session else None


def _agent(record: Any, of_records: dict[str, _Thread]) -> str:
    """The agent whose message a record is: by its id, or by the first record of the agent."""
    if not isinstance(record, dict) or record.get("isSidechain") is not True:
        return ""
    if isinstance(id := record.get("agentId"), str):
        return id
    above = of_records.get(str(record.get("parentUuid")))
    return above.agent if above is not None and above.agent else str(record.get("uuid"))


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
