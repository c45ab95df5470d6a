"""The format of a file or a folder, recognised by its path and its first value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from db.imports import (
    backlog_tasks,
    beads_issues,
    chatgpt_exports,
    claude_code_sessions,
    claude_exports,
    github_issues,
    openai_chats,
    sharegpt_chats,
    taskmaster,
)
from db.imports.files import Event, NotImportable, kind, opened
from db.imports.plans import PlanFormat

CHATS = "chats"
EXPORT = "export"

NAMED = (
    "plans of Task Master (tasks.json), beads (issues.jsonl), Backlog.md (a folder) and GitHub"
    " (issues as JSON), chats of OpenAI's and Anthropic's APIs, ChatGPT and Claude"
    " (conversations.json), Claude Code (sessions as JSONL) and ShareGPT, and exports of"
    " `troupe export`"
)

EXPORT_BEGINS = b'{"format":"troupe",'

# Chats that are recognised by the keys of a conversation.
EXPORTS = (chatgpt_exports, claude_exports, sharegpt_chats)

# Files at these places in a folder are imported if the folder is given.
STANDARD = (taskmaster.STANDARD, beads_issues.STANDARD)
# Where older versions of these programs have them.
OLD_STANDARD = (beads_issues.OLD_STANDARD,)

# The folders in which other programs have a `tasks.json` of their own.
EDITORS = {".vscode": "VS Code", ".zed": "Zed"}
NOT_WORK = "whose tasks are commands to run, not work to be done"

# How much of a file is read to recognise it.
MAX_KEYS = 200
MAX_SHAPE = 8


def located(path: Path) -> Path:
    """The file or folder to import for a path: of a folder, the plan at its standard place.

    A folder can also have sessions of Claude Code. Raises NotImportable for one that has nothing
    known here, or several plans.
    """
    if not path.is_dir():
        return path
    found = _standard(path, STANDARD) or _standard(path, OLD_STANDARD)
    if (folder := backlog_tasks.find_folder(path)) is not None:
        found.append(folder)
    if not found and claude_code_sessions.find_files(path):
        return path
    if not found:
        raise NotImportable(f"{path} has no plan in it that is known here. Known are {NAMED}.")
    if len(found) > 1:
        named = " and ".join(map(str, found))
        raise NotImportable(f"{path} has several plans in it; name one of them: {named}.")
    return found[0]


def _standard(folder: Path, places: Sequence[tuple[str, ...]]) -> list[Path]:
    """The files at these places in a folder, which can also be the first part of the place."""
    found = []
    for parts in places:
        inner = parts[1:] if folder.absolute().name == parts[0] else parts
        if folder.joinpath(*inner).is_file():
            found.append(folder.joinpath(*inner))
    return found


def recognise(path: Path) -> PlanFormat | str:
    """The format of a plan, CHATS or EXPORT. Raises NotImportable if it is none of them."""
    if path.is_dir():
        return CHATS if backlog_tasks.find_folder(path) is None else backlog_tasks
    editor = EDITORS.get(path.absolute().parent.name)
    if editor is not None and path.name == "tasks.json" and path.is_file():
        raise NotImportable(f"{path} is a tasks.json of {editor}, {NOT_WORK}.")
    if _is_export(path):
        # Larger than files of other programs may be.
        return EXPORT
    with opened(path) as source:
        events = source.events()
        try:
            first = next(events, ("nothing", None))
        except NotImportable as error:
            if source.begins() in (b"", b"[", b"{"):
                raise
            raise NotImportable(f"{error} Known are {NAMED}.") from None
        value = _shape(events, first)
        is_list = isinstance(value, list)
        item = value[0] if is_list and value and isinstance(value[0], dict | list) else value
        _refuse_other_programs(source.name, value, item)
        if any(format.recognises(item) for format in EXPORTS):
            return CHATS
        if beads_issues.recognises(item):
            return beads_issues
        if github_issues.recognises(value):
            return github_issues
        if _is_chat(item):
            return CHATS
        if isinstance(value, dict) and _is_plan(value):
            return taskmaster
        what = "it is empty" if first[0] == "nothing" or value == [] else f"it has {kind(value)}"
        if isinstance(item, dict) and item:
            named = ", ".join(f'"{key}"' for key in list(item)[:6])
            what = f"it has {'objects' if is_list else 'an object'} with {named}"
        raise NotImportable(f"{source.name} has no known format: {what}. Known are {NAMED}.")


def _is_export(path: Path) -> bool:
    if not path.is_file():
        return False
    # Why a file cannot be read is said when it is opened to be imported.
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(EXPORT_BEGINS)) == EXPORT_BEGINS
    return False


def _is_chat(item: Any) -> bool:
    if isinstance(item, list):
        return bool(item) and _is_chat(item[0])
    return (
        openai_chats.is_message(item)
        or claude_code_sessions.is_record(item)
        or (isinstance(item, dict) and any(key in item for key in openai_chats.MESSAGES))
    )


def _is_plan(value: dict[str, Any]) -> bool:
    """Whether an object has tags with tasks, or tasks."""
    return "tasks" in value or any(
        (isinstance(tag, dict) and "tasks" in tag)
        or (isinstance(tag, list) and tag and isinstance(tag[0], dict) and "title" in tag[0])
        for tag in value.values()
        if not (isinstance(tag, list) and tag and chatgpt_exports.recognises(tag[0]))
    )


def _refuse_other_programs(name: str, value: Any, item: Any) -> None:
    """Raise NotImportable for the tasks.json of other programs."""
    tasks = value.get("tasks") if isinstance(value, dict) else value
    first = tasks[0] if isinstance(tasks, list) and tasks else None
    keys = first.keys() if isinstance(first, dict) else set()
    if isinstance(value, dict) and "version" in value and keys & {"label", "taskName", "command"}:
        raise NotImportable(f"{name} is a tasks.json of VS Code, {NOT_WORK}.")
    if isinstance(value, list) and {"label", "command"} <= keys:
        raise NotImportable(f"{name} is a tasks.json of Zed, {NOT_WORK}.")
    if isinstance(value, dict) and str(value.get("kind", "")).startswith("tasks#"):
        raise NotImportable(f"{name} is an export of Google Tasks, which is not known here.")


def _shape(events: Iterator[Event], first: Event, depth: int = 0) -> Any:
    """A value without what is deep in it, with only the first item of each list.

    Of the file, no more than the first value is read, and of that no more than its first keys.
    """
    event, value = first
    if depth > MAX_SHAPE + 1 and event.startswith("start_"):
        _skip(events)
        return None
    if event == "start_array":
        items: list[Any] = []
        for inner in events:
            if inner[0] == "end_array":
                break
            item = _shape(events, inner, depth + 1)
            if not items:
                items.append(item)
                if depth == 0:
                    break
        return items
    if event == "start_map":
        found: dict[str, Any] = {}
        for key_event, key in events:
            if key_event == "end_map" or (depth == 0 and len(found) == MAX_KEYS):
                break
            item = _shape(events, next(events), depth + 1)
            if depth < MAX_SHAPE:
                found[key] = item
        return found
    return value


def _skip(events: Iterator[Event]) -> None:
    """Read to the end of the list or object that has begun, however deep it nests."""
    depth = 1
    for event, _ in events:
        depth += event.startswith("start_") - event.startswith("end_")
        if depth == 0:
            break
