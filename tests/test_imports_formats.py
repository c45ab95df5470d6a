"""Plans of beads, Backlog.md and GitHub, and how the format of a file is recognised."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import db
from db.imports import (
    NotImportable,
    Report,
    backlog_tasks,
    beads_issues,
    formats,
    github_issues,
    import_plan,
    taskmaster,
)
from tests.world import stored

TABLE = """
    SELECT t.task_metadata #>> '{import,reference}', t.title, t.status, t.priority, t.type,
           p.task_metadata #>> '{import,reference}',
           array(SELECT other.task_metadata #>> '{import,reference}'
                 FROM task_dependencies JOIN tasks other ON other.id = dependency_id
                 WHERE dependent_id = t.id ORDER BY 1)
    FROM tasks t LEFT JOIN tasks p ON p.id = t.parent_task_id ORDER BY t.id
"""


def file(folder: Path, content: Any, name: str = "file.json") -> Path:
    """A file with a JSON value, with a list of them on lines of their own, or with a text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".jsonl"):
        content = "\n".join(map(json.dumps, content)) + "\n"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


async def recognised(database: db.Database, path: Path, **options: Any) -> Report:
    """Import a plan whose format is recognised."""
    path = formats.located(path)
    format = formats.recognise(path)
    assert not isinstance(format, str)
    return await import_plan(database, path, owner=None, format=format, **options)


def bead(id: str, *dependencies: tuple[str, str], **more: Any) -> dict[str, Any]:
    """An issue of beads."""
    issue = {
        "id": id,
        "title": f"Issue {id}",
        "status": "open",
        "priority": 2,
        "issue_type": "task",
        "created_at": "2026-02-04T16:37:39.524657-08:00",
    }
    relations = [
        {"issue_id": id, "depends_on_id": other, "type": type} for other, type in dependencies
    ]
    return issue | ({"dependencies": relations} if relations else {}) | more


BEADS = [
    bead("st-gld", issue_type="epic", priority=0, design="Three steps", description="Reset"),
    bead(
        "st-gld.1",
        ("st-gld", "parent-child"),
        status="closed",
        closed_at="2026-02-04T17:22:17.42454-08:00",
        acceptance_criteria="It runs",
        estimated_minutes=480,
    ),
    bead("st-gld.2", ("st-gld", "parent-child"), ("st-gld.1", "blocks"), status="in_progress"),
    bead("st-x", ("st-gld.2", "blocks"), ("st-gld", "related"), status="deferred", priority=4),
    bead("st-old", status="tombstone"),
    bead("st-y", ("st-none", "blocks"), status="hovering", priority=9),
]


async def test_issues_of_beads_are_tasks(database: db.Database, tmp_path: Path) -> None:
    file(tmp_path, BEADS, "station/.beads/issues.jsonl")

    report = await recognised(database, tmp_path / "station")

    assert report.added == {"projects": 1, "tasks": 5, "dependencies": 2}
    assert report.left_out == [
        "issue st-old: it was left out, because it was deleted (tombstone).",
        "issue st-y: the dependency on st-none was left out, because there is no such task.",
    ]
    assert report.changed == [
        'issue st-x: its relations of type "related" stand in the metadata alone.',
        'issue st-y: the status "hovering" is unknown, so it is held (BLOCKED).',
        'issue st-y: the priority "9" is unknown, so it is 3 (medium).',
    ]
    assert await stored(database, TABLE) == [
        ("st-gld", "Issue st-gld", "PENDING", 5, "epic", None, []),
        ("st-gld.1", "Issue st-gld.1", "COMPLETED", 3, "task", "st-gld", []),
        ("st-gld.2", "Issue st-gld.2", "PENDING", 3, "task", "st-gld", ["st-gld.1"]),
        ("st-x", "Issue st-x", "BLOCKED", 1, "task", None, ["st-gld.2"]),
        ("st-y", "Issue st-y", "BLOCKED", 3, "task", None, []),
    ]
    columns = "SELECT description, acceptance_criteria, estimated_seconds, completed_at::text"
    assert await stored(database, f"{columns} FROM tasks ORDER BY id LIMIT 2") == [
        ("Reset\n\nDesign:\nThree steps", None, None, None),
        (None, "It runs", 28800, "2026-02-05 01:22:17.42454+00"),
    ]
    assert await stored(database, "SELECT name FROM projects") == ["station"]


async def test_changed_issues_update_their_tasks(database: db.Database, tmp_path: Path) -> None:
    path = file(tmp_path, BEADS, "issues.jsonl")
    await recognised(database, path)
    again = await recognised(database, path)
    assert again.already_there == {"projects": 1, "tasks": 5, "dependencies": 2}
    file(tmp_path, [*BEADS[:2], BEADS[2] | {"status": "closed"}, *BEADS[3:]], "issues.jsonl")

    report = await recognised(database, path)

    assert report.steps("Updated") == [
        'issues.jsonl, task st-gld.2 "Issue st-gld.2": its status (COMPLETED).'
    ]


BACKLOG = {
    "backlog/config.yml": 'project_name: "Weather"\nstatuses: ["To Do", "Doing", "Shipped"]\n',
    "backlog/tasks/back-1 - Sensors.md": """---
id: BACK-1
title: 'Sensors: all of them'
status: Shipped
assignee: ['@ada']
created_date: '2025-08-23 19:13'
updated_date: '2026-05-11 14:01'
labels:
  - hardware
dependencies: []
priority: high
ordinal: 1000
---

## Description

<!-- SECTION:DESCRIPTION:BEGIN -->
Choose them.

```sh
## not a heading
```
<!-- SECTION:DESCRIPTION:END -->

## Acceptance Criteria
<!-- AC:BEGIN -->
- [x] #1 Below 5 mA
<!-- AC:END -->

## Implementation Notes

None.
""",
    "backlog/tasks/back-1.01 - Wind.md": (
        "---\nid: BACK-1.01\ntitle: Wind\nstatus: To Do\nparent_task_id: BACK-1\n"
        "dependencies:\n  - back-3\n---\n"
    ),
    "backlog/tasks/back-2 - Rain.md": (
        "---\nid: BACK-2\ntitle: Rain\nstatus: Waiting\ndependencies: ['1', 'BACK-9']\n"
        "priority: low\n---\n\n## Description\n\nA tipping bucket.\n"
    ),
    "backlog/completed/back-3 - Mast.md": "---\nid: BACK-3\ntitle: Mast\nstatus: To Do\n---\n",
    "backlog/drafts/draft-1 - Snow.md": "---\nid: DRAFT-1\ntitle: Snow\n---\n",
}


async def test_a_folder_of_backlog_is_a_project(database: db.Database, tmp_path: Path) -> None:
    for name, content in BACKLOG.items():
        file(tmp_path, content, name)

    report = await recognised(database, tmp_path)

    assert report.added == {"projects": 1, "tasks": 4, "dependencies": 2}
    assert report.left_out == [
        "1 file was left out, in drafts.",
        "back-2 - Rain.md: the dependency on back-9 was left out, because there is no such task.",
    ]
    assert report.changed == [
        "back-1 - Sensors.md: its updated_date names no time zone and was taken as UTC.",
        'back-2 - Rain.md: the status "Waiting" is unknown, so it is held (BLOCKED).',
    ]
    assert await stored(database, TABLE) == [
        ("back-1", "Sensors: all of them", "COMPLETED", 5, None, None, []),
        ("back-1.01", "Wind", "PENDING", 3, None, "back-1", ["back-3"]),
        ("back-2", "Rain", "BLOCKED", 1, None, None, ["back-1"]),
        ("back-3", "Mast", "COMPLETED", 3, None, None, []),
    ]
    texts = "SELECT description, acceptance_criteria FROM tasks ORDER BY id LIMIT 1"
    assert await stored(database, texts) == [
        (
            "Choose them.\n\n```sh\n## not a heading\n```\n\nImplementation Notes:\nNone.",
            "- [x] #1 Below 5 mA",
        )
    ]
    assert await stored(database, "SELECT name FROM projects") == ["Weather"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no front matter", "b-1.md: it does not begin with front matter between lines of ---."),
        ("---\nid: b-1\n---\n", "b-1.md: its front matter has no title."),
        ("---\nid: [\n---\n", "b-1.md: its YAML is not correct: "),
        ("---\nid: &a x\ntitle: [*a]\n---\n", "b-1.md: its YAML is not correct: it has an alias."),
        ("---\n- id\n---\n", "b-1.md: its YAML is not an object."),
    ],
)
async def test_a_task_of_backlog_that_is_none_is_refused(
    database: db.Database, tmp_path: Path, content: str, sentence: str
) -> None:
    file(tmp_path, content, "backlog/tasks/b-1.md")

    with pytest.raises(NotImportable) as refusal:
        await recognised(database, tmp_path)

    assert str(refusal.value).startswith(sentence)
    assert await stored(database, "SELECT id FROM projects") == []


def issue(number: int, **more: Any) -> dict[str, Any]:
    """An issue of GitHub's API."""
    return {
        "number": number,
        "title": f"Issue {number}",
        "state": "open",
        "state_reason": None,
        "labels": [],
        "html_url": f"https://github.com/ada/station/issues/{number}",
        "body": None,
    } | more


async def test_issues_of_the_api_are_tasks(database: db.Database, tmp_path: Path) -> None:
    pages = [
        [
            issue(1, labels=[{"name": "P1"}, {"name": "bug"}], body="It is cold."),
            issue(2, state="closed", state_reason="completed", closed_at="2026-01-02T03:04:05Z"),
            issue(3, state="closed", state_reason="not_planned", type={"name": "Bug"}),
        ],
        [issue(4, pull_request={"url": "x"})],
    ]

    report = await recognised(database, file(tmp_path, pages))

    assert report.left_out == ["issue #4: it was left out, because it is a pull request."]
    assert await stored(database, TABLE) == [
        ("1", "Issue 1", "PENDING", 4, None, None, []),
        ("2", "Issue 2", "COMPLETED", 3, None, None, []),
        ("3", "Issue 3", "CANCELLED", 3, "Bug", None, []),
    ]
    assert await stored(database, "SELECT name FROM projects") == ["station"]
    texts = "SELECT description, completed_at::text FROM tasks ORDER BY id LIMIT 2"
    assert await stored(database, texts) == [
        ("It is cold.", None),
        (None, "2026-01-02 03:04:05+00"),
    ]


async def test_issues_of_gh_are_tasks(database: db.Database, tmp_path: Path) -> None:
    url = "https://github.com/ada/station/issues"
    issues = [
        {
            "number": 7,
            "title": "Frost",
            "state": "OPEN",
            "url": f"{url}/7",
            "labels": [{"id": "x", "name": "priority: high"}],
            "subIssues": {"nodes": [{"number": 8, "title": "Ice", "url": f"{url}/8"}]},
            "blockedBy": {"nodes": [{"number": 9, "url": f"{url}/9"}]},
        },
        {"number": 8, "title": "Ice", "state": "CLOSED", "stateReason": "NOT_PLANNED"},
        {"number": 9, "title": "Snow", "state": "CLOSED", "stateReason": "COMPLETED"},
    ]

    await recognised(database, file(tmp_path, issues))

    assert await stored(database, TABLE) == [
        ("7", "Frost", "PENDING", 5, None, None, ["9"]),
        ("8", "Ice", "CANCELLED", 3, None, "7", []),
        ("9", "Snow", "COMPLETED", 3, None, None, []),
    ]


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.json", {"master": {"tasks": [{"id": 1, "title": "A"}]}}, taskmaster),
        ("a.json", {"tasks": [{"id": 1, "title": "A", "status": "done"}]}, taskmaster),
        ("a.json", {"meta": {}, "master": [{"id": 1, "title": "A"}]}, taskmaster),
        ("a.jsonl", [bead("a")], beads_issues),
        ("a.json", [issue(1)], github_issues),
        ("a.jsonl", [issue(1)], github_issues),
        ("a.json", [[issue(1)]], github_issues),
        ("a.json", {"total_count": 1, "items": [issue(1)]}, github_issues),
        ("a.json", [{"role": "user", "content": "A"}], formats.CHATS),
        ("a.json", [[{"role": "user", "content": "A"}]], formats.CHATS),
        ("a.jsonl", [{"role": "user", "content": "A"}], formats.CHATS),
        ("a.json", {"messages": []}, formats.CHATS),
        ("a.json", [{"task_id": 1, "traj": []}], formats.CHATS),
        ("a.json", [{"title": "A", "mapping": {}, "current_node": "x"}], formats.CHATS),
        ("a.jsonl", [{"type": "summary", "summary": "A", "leafUuid": "x"}], formats.CHATS),
        ("a.json", [{"conversations": [{"from": "human", "value": "A"}]}], formats.CHATS),
        ("a.json", {"items": [{"from": "human", "value": "A"}]}, formats.CHATS),
        ("a.json", {"messages": [{"from": "human", "value": "A"}]}, formats.CHATS),
    ],
)
def test_the_format_is_recognised(tmp_path: Path, name: str, content: Any, format: Any) -> None:
    assert formats.recognise(file(tmp_path, content, name)) is format


def test_a_folder_of_backlog_is_recognised(tmp_path: Path) -> None:
    for name, content in BACKLOG.items():
        file(tmp_path, content, name)

    for path in (tmp_path, tmp_path / "backlog"):
        assert formats.located(path) == tmp_path / "backlog"
        assert formats.recognise(formats.located(path)) is backlog_tasks


COMMANDS = "whose tasks are commands to run, not work to be done."
CODE = {"version": "2.0.0", "tasks": [{"label": "build", "type": "shell", "command": "make"}]}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (".vscode/tasks.json", "// JSON with comments", f"is a tasks.json of VS Code, {COMMANDS}"),
        ("tasks.json", CODE, f"is a tasks.json of VS Code, {COMMANDS}"),
        (".zed/tasks.json", "[]", f"is a tasks.json of Zed, {COMMANDS}"),
        ("tasks.json", [{"label": "a", "command": "b"}], f"is a tasks.json of Zed, {COMMANDS}"),
        (
            "Tasks.json",
            {"kind": "tasks#taskLists", "items": []},
            "is an export of Google Tasks, which is not known here.",
        ),
        (
            "a.json",
            {"name": "x", "size": 1},
            'has no known format: it has an object with "name", "size".'
            f" Known are {formats.NAMED}.",
        ),
        ("a.json", "3", f"has no known format: it has a number. Known are {formats.NAMED}."),
        (
            "a.json",
            "[" * 100_000 + "]" * 100_000,
            f"has no known format: it has a list. Known are {formats.NAMED}.",
        ),
        ("a.json", "[]", f"has no known format: it is empty. Known are {formats.NAMED}."),
        ("a.json", "", "is empty."),
        (
            "a.md",
            "# Plan",
            "is not JSON: invalid char in json text, at line 1, column 1."
            f" Known are {formats.NAMED}.",
        ),
        (
            "a.json",
            "[1,]",
            "is not JSON: unallowed token at this point in JSON text, at line 1, column 4.",
        ),
    ],
)
def test_what_is_not_known_is_refused(
    tmp_path: Path, name: str, content: Any, sentence: str
) -> None:
    path = file(tmp_path, content, name)

    with pytest.raises(NotImportable) as refusal:
        formats.recognise(path)

    assert str(refusal.value) == f"{path} {sentence}"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has a file whose reading fails")
def test_a_file_whose_reading_fails_is_refused() -> None:
    with pytest.raises(NotImportable, match=r"^/proc/self/mem cannot be read: Input/output error"):
        formats.recognise(Path("/proc/self/mem"))


def test_a_folder_without_a_plan_and_one_with_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotImportable, match="has no plan in it that is known here"):
        formats.located(tmp_path)
    plan = file(tmp_path, {"tasks": []}, ".taskmaster/tasks/tasks.json")
    issues = file(tmp_path, [bead("a")], ".beads/issues.jsonl")

    with pytest.raises(NotImportable) as refusal:
        formats.located(tmp_path)

    named = f"{plan} and {issues}"
    assert str(refusal.value) == f"{tmp_path} has several plans in it; name one of them: {named}."
