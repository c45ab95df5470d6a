"""Tasks of Backlog.md: a folder with a Markdown file for each task.

The format is https://github.com/MrLesk/Backlog.md. A file begins with front matter in YAML, between
lines of `---`; the rest has sections. `backlog/tasks` has the tasks, `backlog/completed` those that
were done before; what is in other folders, such as drafts and archived tasks, is left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from db.imports.files import (
    MAX_BYTES,
    NotImportable,
    Progress,
    moment,
    no_progress,
    quoted,
    refuse_bad_name,
)
from db.imports.plans import Issue, Plan, plan_of_issues
from db.imports.report import Report
from db.tasks import TaskStatus
from db.text import composed

SOURCE = "backlog"
CONFIGURATION = ("config.yml", "backlog.config.yml")
TASKS = "tasks"
COMPLETED = "completed"
LEFT_OUT = ("drafts", "archive/tasks", "archive/drafts")

DONE = ("done", "complete", "completed", "closed")
TO_DO = ("to do", "todo", "open", "backlog", "in progress", "doing", "ready")
PRIORITIES = {"critical": 5, "high": 5, "medium": 3, "low": 1}
MEDIUM = 3

# The beginning of a file's name, such as `task-12.1 - Title.md`.
NAME = re.compile(r"([A-Za-z]+-\d[\d.]*)(?: - (.*))?", re.DOTALL)
# A value on one line that is not quoted, such as `title: Fix: it` or `assignee: @ann`.
PLAIN_VALUE = re.compile(r"^([A-Za-z_]+):[ \t]+(?![\[{\"'|>])(\S.*?)[ \t]*$", re.MULTILINE)
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*$\n?", re.DOTALL | re.MULTILINE)
# Marks of the program itself.
MARK = re.compile(r"^<!-- (?:AC|DOD|SECTION)[:A-Z_ ]*(?:BEGIN|END) -->\n?", re.MULTILINE)
NULLS = ("", "~", "null")
CRITERIA = "Acceptance Criteria"
DESCRIPTION = "Description"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads YAML with all scalars as texts, and without aliases, which could repeat a lot."""

    yaml_implicit_resolvers: dict[str, Any] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node. Raises ComposerError for an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "it has an alias", event.start_mark)
        return super().compose_node(parent, index)


def find_folder(path: Path) -> Path | None:
    """The folder of Backlog.md at this path, or in it; None if there is none."""
    for folder in (path, path / "backlog", path / ".backlog"):
        is_one = any((folder / name).is_file() for name in CONFIGURATION)
        if (folder / TASKS).is_dir() and (is_one or any((folder / TASKS).glob("*.md"))):
            return folder
    return None


def _in_order(path: Path) -> list[tuple[int, str]]:
    """The parts of a name, with numbers by their size: `task-9` is before `task-10`."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


class Folder:
    """An opened folder of Backlog.md."""

    def __init__(self, path: Path, progress: Progress) -> None:
        found = find_folder(path)
        if found is None:
            raise NotImportable(f"{path} is no folder of Backlog.md: it has no tasks/*.md.")
        self.folder = found
        self.name = str(path)
        self.file = found.name
        self._progress = progress
        self._done = 0
        self._files = self._list()
        self._size = sum(size for _, size, _ in self._files)
        if self._size > MAX_BYTES:
            raise NotImportable(
                f"{path} has {self._size / 1e6:,.1f} MB, and {MAX_BYTES / 1e6:.0f} MB are the most"
                " that is imported at once."
            )

    def _list(self) -> list[tuple[Path, int, int]]:
        """The files, each with its size and the time of its last change."""
        found = []
        for name in (TASKS, COMPLETED):
            for path in sorted((self.folder / name).glob("*.md"), key=_in_order):
                status = path.stat()
                found.append((path, status.st_size, status.st_mtime_ns))
        return found

    def texts(self) -> Iterator[tuple[Path, str]]:
        """The files with their texts. Raises NotImportable for one that is not UTF-8."""
        for path, size, _ in self._files:
            try:
                text = path.read_bytes().decode("utf-8-sig")
            except UnicodeDecodeError:
                raise NotImportable(f"{path.name} is not UTF-8.") from None
            except OSError as error:
                raise NotImportable(f"{path.name} cannot be read: {error.strerror}.") from None
            self._done += size
            self._progress(min(self._done, 2 * self._size), 2 * self._size)
            yield path, text.replace("\r\n", "\n")

    def configuration(self) -> dict[str, Any]:
        """The configuration; empty if there is none."""
        inside = [self.folder / name for name in CONFIGURATION]
        for path in (*inside, self.folder.parent / CONFIGURATION[1]):
            if path.is_file():
                return _yaml(path.read_text(encoding="utf-8-sig", errors="replace"), path.name)
        return {}

    def second_pass(self) -> None:
        """Start the second half of the progress."""
        self._done = self._size

    def refuse_change(self) -> None:
        """Raise NotImportable if a file was changed since the folder was opened."""
        if self._list() != self._files:
            raise NotImportable(f"{self.name} was changed while it was being imported.")

    def finish(self) -> None:
        """Report that the import is complete."""
        self._progress(2 * self._size, 2 * self._size)


@contextmanager
def opened(path: Path, progress: Progress = no_progress) -> Iterator[Folder]:
    """Open a folder. Raises NotImportable if it is none of Backlog.md."""
    yield Folder(path, progress)


def read_plans(source: Folder, project: str | None, report: Report) -> Iterator[Plan]:
    """The tasks of a folder as one plan, with the name in its configuration."""
    settings = source.configuration()
    name = project or settings.get("project_name") or _folder_name(source.folder)
    name = composed(str(name))
    refuse_bad_name(name, "project")
    statuses = settings.get("statuses")
    last = statuses[-1] if isinstance(statuses, list) and statuses else "Done"
    issues = [
        issue
        for path, text in source.texts()
        if (issue := _issue(path, text, str(last), report)) is not None
    ]
    for folder in LEFT_OUT:
        count = len(list((source.folder / folder).glob("*.md")))
        if count:
            files = "1 file was" if count == 1 else f"{count:,} files were"
            report.leave_out(f"{files} left out, in {folder}.")
    if not issues:
        raise NotImportable(f"{source.name} has no task in it.")
    full = {issue.id.rpartition("-")[2]: issue.id for issue in issues}
    ids = {issue.id for issue in issues}

    def found(name: str) -> str:
        """The id for a name, which can be without the prefix or have an earlier one."""
        return name if name in ids else full.get(name.rpartition("-")[2], name)

    for issue in issues:
        issue.dependencies = [found(other) for other in issue.dependencies]
        if issue.parent:
            issue.parent = found(issue.parent)
        elif (above := issue.id.rpartition(".")[0]) in ids:
            issue.parent = above
    yield plan_of_issues(SOURCE, name, source.file, issues, report)


def _folder_name(folder: Path) -> str:
    absolute = Path(os.path.abspath(folder))
    is_inner = absolute.name in ("backlog", ".backlog")
    return (absolute.parent if is_inner else absolute).name or "backlog"


def _yaml(text: str, place: str) -> dict[str, Any]:
    try:
        found = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise NotImportable(f"{place}: its YAML is not correct: {problem}.") from None
    if found in (None, ""):
        return {}
    if not isinstance(found, dict):
        raise NotImportable(f"{place}: its YAML is not an object.")
    return {str(key): None if value in NULLS else value for key, value in found.items()}


def _front_matter(text: str, place: str, report: Report) -> dict[str, Any]:
    """The values of the front matter. Raises NotImportable."""
    try:
        return _yaml(text, place)
    except NotImportable:
        # People and agents write such values too.
        quotes = PLAIN_VALUE.sub(lambda found: f"{found[1]}: {json.dumps(found[2])}", text)
        quotes = quotes.replace("\t", " ")
        try:
            about = _yaml(quotes, place)
        except NotImportable:
            about = {}
        if not about:
            raise
        report.change("its YAML is not correct; values on one line are taken as texts.", place)
        return about


def _issue(path: Path, text: str, last: str, report: Report) -> Issue | None:
    place = path.name
    name = NAME.fullmatch(path.stem)
    matter = FRONT_MATTER.match(text)
    if matter is None:
        problem = "it does not begin with front matter between lines of ---"
        if name is not None:
            raise NotImportable(f"{place}: {problem}.")
        report.leave_out(f"{problem}, so it was left out.", place)
        return None
    about = _front_matter(matter[1], place, report)
    given = {"id": name[1], "title": name[2]} if name is not None else {}
    texts = {}
    for key in ("id", "title"):
        texts[key] = value.strip() if isinstance(value := about.get(key), str) else ""
        if not texts[key]:
            texts[key] = (given.get(key) or "").strip()
            if not texts[key]:
                raise NotImportable(f"{place}: its front matter has no {key}.")
            report.change(f"its front matter has no {key}, so that of its name is taken.", place)
    id, title = texts["id"].lower(), texts["title"]
    about.pop("title", None)
    status = _status(path, str(about.get("status") or ""), last, place, report)
    priority = str(about.get("priority") or "medium").strip().lower()
    if priority not in PRIORITIES:
        report.change(f"the priority {quoted(priority)} is unknown, so it is 3 (medium).", place)
    time, note = None, ""
    if status is TaskStatus.COMPLETED and about.get("updated_date"):
        time, note = moment(about["updated_date"])
        if note:
            report.change(f"its updated_date {note}.", place)
    sections = _sections(text[matter.end() :])
    criteria = sections.pop(CRITERIA, "").strip()
    return Issue(
        id=id,
        place=place,
        title=title,
        texts=[
            text if heading in ("", DESCRIPTION) else f"{heading}:\n{text}"
            for heading, text in sections.items()
            if text
        ],
        status=status,
        priority=PRIORITIES.get(priority, MEDIUM),
        about=about,
        completed_at=time,
        type=value if isinstance(value := about.get("type"), str) else None,
        acceptance_criteria=criteria or None,
        parent=(str(about.get("parent_task_id") or about.get("parent") or "").strip().lower())
        or None,
        dependencies=[name.lower() for name in _names(about.get("dependencies"))],
    )


def _status(path: Path, status: str, last: str, place: str, report: Report) -> TaskStatus:
    # Some programs begin it with a symbol.
    plain = " ".join(re.sub(r"[\W_]+", " ", status.lower()).split())
    if path.parent.name == COMPLETED or plain in DONE or status == last:
        return TaskStatus.COMPLETED
    if plain in TO_DO or not plain:
        return TaskStatus.PENDING
    if plain != "blocked":
        report.change(f"the status {quoted(status)} is unknown, so it is held (BLOCKED).", place)
    return TaskStatus.BLOCKED


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        value = value.split(",")
    return [str(name).strip() for name in value or [] if str(name).strip()]


def _sections(text: str) -> dict[str, str]:
    """The sections below headings of the second level, by their headings; "" before the first."""
    sections: dict[str, list[str]] = {"": []}
    heading, fence = "", ""
    for line in MARK.sub("", text).split("\n"):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~") and fence in ("", mark):
            fence = "" if fence else mark
        if line.startswith("## ") and not fence:
            heading = line[3:].strip()
            sections.setdefault(heading, [])
        else:
            sections[heading].append(line)
    return {heading: "\n".join(lines).strip() for heading, lines in sections.items()}
