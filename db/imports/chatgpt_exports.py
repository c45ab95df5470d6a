"""Exports of ChatGPT, `conversations.json`.

A conversation is a tree: `mapping` has its nodes by id, each with its parent, its children and
mostly a message. A node with several children is a message that was edited, or an answer that was
generated again. The path to `current_node` is the conversation; each path to another end is a
conversation that was forked from it, whose first messages are copies. A message is identified by
its node.
"""

from __future__ import annotations

from typing import Any

from db.imports.files import NotImportable, kind
from db.imports.report import Report
from db.imports.transcripts import Transcript

# Of all branches of a conversation together. Each branch repeats the messages before it.
MAX_MESSAGES = 100_000


def recognises(item: Any) -> bool:
    """Whether a conversation has this format."""
    return isinstance(item, dict) and isinstance(item.get("mapping", ""), dict | None)


def transcripts(item: Any, place: str, report: Report) -> list[Transcript]:
    """The conversation, and those that were forked from it. Raises NotImportable."""
    nodes: dict[str, Any] = item["mapping"] or {}
    for id, node in nodes.items():
        if not isinstance(node, dict):
            raise NotImportable(f"{place}, node {id}: it is {kind(node)}, not an object.")
    about = {key: value for key, value in item.items() if key != "mapping"}
    found: list[Transcript] = []
    read: dict[str, dict[str, Any] | None] = {}
    total = 0
    if (current := _named(item, "current_node")) and current not in nodes:
        report.change(
            "its current node is not in the file, so the last branch is the conversation.", place
        )
    for number, end in enumerate(_ends(item, nodes)):
        label = f", branch {number + 1}" if number else ""
        path = _path(end, nodes, f"{place}{label}")
        total += len(path)
        if found and total > MAX_MESSAGES:
            report.leave_out(
                f"its branches from {number + 1} on were left out, because they have more than"
                f" {MAX_MESSAGES:,} messages.",
                place,
            )
            break
        new = [id for id in path if id not in read]
        if path[0] in new and _named(nodes[path[0]], "parent"):
            report.change(
                f"node {path[0]} follows one that is not in the file, so a conversation begins"
                " with it.",
                place,
            )
        for id in new:
            read[id] = _message(id, nodes[id].get("message"), place, report)
        messages = [message for id in path if (message := read[id]) is not None]
        # A branch that ends in a node without a message has nothing of its own.
        if not found or any(read[id] is not None for id in new):
            kept = about if not found else about | {"branch": number + 1}
            found.append(Transcript(messages, kept, label, _id(item, nodes)))
    return found or [Transcript([], about)]


def _id(item: dict[str, Any], nodes: dict[str, Any]) -> str:
    """What identifies a conversation. Old exports have no id, but a time and ids of the nodes."""
    given = item.get("conversation_id") or item.get("id")
    return str(given or f"{item.get('create_time')} {next(iter(nodes), '')}")


def _ends(item: dict[str, Any], nodes: dict[str, Any]) -> list[str]:
    """The ids of the nodes where a branch ends: the current one, and then the others."""
    parents = {_named(node, "parent") for node in nodes.values()}
    ends = [id for id in nodes if id not in parents]
    current = _named(item, "current_node")
    if current is None or current not in nodes:
        return ends[::-1]
    return [current, *(id for id in ends if id != current)]


def _path(end: str, nodes: dict[str, Any], place: str) -> list[str]:
    """The ids of the nodes from the beginning to an end."""
    path: dict[str, None] = {}
    id: str | None = end
    while id is not None and id in nodes:
        if id in path:
            raise NotImportable(f"{place}: node {id} is its own ancestor.")
        path[id] = None
        id = _named(nodes[id], "parent")
    return list(path)[::-1]


def _named(value: dict[str, Any], key: str) -> str | None:
    """The id of a node under a key."""
    id = value.get(key)
    return id if isinstance(id, str) else None


def _message(id: str, message: Any, place: str, report: Report) -> dict[str, Any] | None:
    """A message with the keys of OpenAI's format; None for one without a content to show."""
    if message is None:
        return None
    if not isinstance(message, dict):
        raise NotImportable(f"{place}: a message is {kind(message)}, not an object.")
    about = {key: value for key, value in message.items() if value not in (None, {}, [])}
    author = about.pop("author", None)
    role = author.get("role") if isinstance(author, dict) else author
    if isinstance(author, dict) and (
        rest := {k: v for k, v in author.items() if v and k != "role"}
    ):
        about["author"] = rest
    content = _content(about.pop("content", None))
    if not content and role == "system":
        report.leave_out("an empty message of the system was left out.", place)
        return None
    return about | {"id": id, "role": role, "content": content}


def _content(content: Any) -> Any:
    """The text of a message, or its parts if they are not only texts."""
    if not isinstance(content, dict):
        return content
    parts = content.get("parts")
    if content.get("content_type") in (None, "text", "multimodal_text") and isinstance(parts, list):
        if all(isinstance(part, str) for part in parts):
            return "\n".join(parts)
        return parts
    return content
