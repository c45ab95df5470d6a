"""Plans as other versions of beads, Backlog.md and GitHub's programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from db.imports import NotImportable, beads_issues, formats, github_issues
from db.imports.files import no_progress
from db.imports.plans import Plan
from db.imports.report import Report


def read(path: Path) -> tuple[Plan, Report]:
    """The plan of a file or folder whose format is recognised."""
    report = Report()
    format = formats.recognise(formats.located(path))
    assert not isinstance(format, str)
    with format.opened(formats.located(path), no_progress) as source:
        [plan] = format.read_plans(source, None, report)
    return plan, report


def written(folder: Path, *values: Any, name: str = "file.json") -> Path:
    """A file with values on lines of their own; texts are written as they are."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (value if isinstance(value, str) else json.dumps(value) for value in values)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def shape(plan: Plan) -> dict[str, list[str]]:
    """Each task with what it waits for, its parent first."""
    parents = [[] if place is None else [plan.references[place]] for place in plan.parents]
    return {
        reference: parents[number]
        + [plan.references[other] for task, other in plan.edges if task == number]
        for number, reference in enumerate(plan.references)
    }


def bead(id: Any, **more: Any) -> dict[str, Any]:
    """An issue of beads."""
    return {"id": id, "title": f"Issue {id}", "status": "open", "issue_type": "task"} | more


MEMORY = {"_type": "memory", "key": "context", "value": "It rains."}


@pytest.mark.parametrize("place", [0, 1])
def test_notes_between_the_issues_of_beads_are_left_out(tmp_path: Path, place: int) -> None:
    lines = [{"_type": "issue"} | bead("a"), {"_type": "issue"} | bead("b")]
    lines.insert(place, MEMORY)

    plan, report = read(written(tmp_path, *lines))

    assert plan.references == ["a", "b"]
    assert report.left_out == [f'issue {place + 1}: its type is "memory", so it was left out.']


@pytest.mark.parametrize(
    "relations",
    [
        [{"issue_id": "b", "depends_on_id": "a", "type": "blocks"}],
        [{"issue_id": "b", "depends_on_id": "a", "dep_type": "blocks"}],
        [{"id": "a", "title": "Issue a", "status": "open", "dependency_type": "blocks"}],
        [{"issue_id": "b", "depends_on_id": "a", "type": "waits-for"}],
        ["a"],
    ],
)
def test_relations_of_beads_are_read_in_each_form(tmp_path: Path, relations: Any) -> None:
    issues = [bead("a"), bead("b", dependencies=relations)]
    for file in (
        written(tmp_path, *issues, name="lines.jsonl"),
        written(tmp_path, issues, name="list.json"),
        written(tmp_path, {"issues": issues}, name="object.json"),
    ):
        plan, report = read(file)
        assert shape(plan) == {"a": [], "b": ["a"]}
        assert report.changed == report.left_out == []


def test_a_relation_that_does_not_block_is_reported(tmp_path: Path) -> None:
    relations = [{"depends_on_id": "a", "type": type} for type in ("conditional-blocks", "tracks")]

    plan, report = read(written(tmp_path, bead("a"), bead("b", dependencies=relations)))

    assert shape(plan) == {"a": [], "b": []}
    assert report.changed == [
        f'issue b: its relations of type "{type}" stand in the metadata alone.'
        for type in ("conditional-blocks", "tracks")
    ]


def test_values_of_beads_are_read_in_each_form(tmp_path: Path) -> None:
    issues = [
        {"id": "a", "title": "Few keys", "priority": 0},
        bead(7, priority="P1", status="In-Progress"),
        bead("c", priority="4", status=None),
    ]

    plan, report = read(written(tmp_path, *issues))

    assert plan.references == ["a", "7", "c"]
    assert [row["priority"] for row in plan.rows] == [5, 4, 1]
    assert {row["status"] for row in plan.rows} == {"PENDING"}
    assert report.changed == []


def test_beads_are_found_where_older_versions_have_them(tmp_path: Path) -> None:
    old = written(tmp_path, bead("a"), name="app/.beads/beads.jsonl")
    for folder in (tmp_path / "app", old.parent):
        assert formats.located(folder) == old
        assert read(folder)[0].project == "app"
    new = written(tmp_path, bead("a"), name="app/.beads/issues.jsonl")
    assert formats.located(tmp_path / "app") == new


def issue(number: int, **more: Any) -> dict[str, Any]:
    """An issue of GitHub."""
    url = f"https://github.com/ada/weather/issues/{number}"
    return {"number": number, "title": f"Issue {number}", "state": "open", "url": url} | more


NODES = [issue(1), issue(2, state="CLOSED", parent={"number": 1})]


@pytest.mark.parametrize(
    "answer",
    [
        {"data": {"repository": {"issues": {"nodes": NODES}}}},
        {"data": {"search": {"edges": [{"node": node} for node in NODES]}}},
        {"data": {"repository": {"issues": {"edges": [{"node": node} for node in NODES]}}}},
        {
            "data": {
                "organization": {
                    "repository": {"issues": {"edges": [{"node": node} for node in NODES]}}
                }
            }
        },
        {"nodes": NODES},
        [NODES[:1], NODES[1:]],
        [{key: node[key] for key in node if key != "number"} for node in NODES],
    ],
)
def test_answers_of_github_are_read_in_each_form(tmp_path: Path, answer: Any) -> None:
    path = written(tmp_path, answer)
    assert formats.recognise(path) is github_issues

    plan, _ = read(path)

    assert plan.project == "weather"
    assert plan.references == ["1", "2"]
    assert [row["status"] for row in plan.rows] == ["PENDING", "COMPLETED"]


def test_values_of_github_are_read_in_each_form(tmp_path: Path) -> None:
    parent = "https://api.github.com/repos/ada/weather/issues/1"
    issues = [
        issue(1, labels=["P0"], milestone={"title": "May", "due_on": "2026-05-01T00:00:00Z"}),
        issue(2, parent_issue_url=parent, milestone={"title": "None", "due_on": None}),
        issue(3, pull_request={"url": "…"}),
        issue(4, __typename="PullRequest"),
        issue(5, url="https://github.com/ada/weather/pull/5"),
        issue(6, milestone={"dueOn": "soon"}),
    ]

    plan, report = read(written(tmp_path, issues))

    assert shape(plan) == {"1": [], "2": ["1"], "6": []}
    assert plan.rows[0]["priority"] == 5
    assert [str(row["due_at"]) for row in plan.rows] == [
        "2026-05-01 00:00:00+00:00",
        "None",
        "None",
    ]
    assert report.left_out == [
        "issue #3; issue #4; issue #5: it was left out, because it is a pull request."
    ]
    assert report.changed == [
        "issue #6: the day that its milestone is due is not a point in time that can be read."
    ]


def test_an_issue_without_a_number_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = written(tmp_path, [issue(1), {"title": "b", "state": "OPEN"}])

    with pytest.raises(NotImportable) as refusal:
        read(path)

    assert str(refusal.value) == (
        "issue 2: its number is null, not a number; of `gh issue list`, --json must name number,"
        " title and state."
    )


def task(folder: Path, name: str, *lines: str, newline: str = "\n") -> None:
    """A task of Backlog.md."""
    path = folder / "backlog" / "tasks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(newline.join(["---", *lines, "---", ""]).encode("utf-8-sig"))


def test_what_a_task_of_backlog_lacks_is_taken_from_its_name(tmp_path: Path) -> None:
    task(tmp_path, "task-9 - Mast.md", "status: Done", newline="\r\n")
    task(tmp_path, "task-10 - Wind.md", "id: task-10", "dependencies: 9, TASK-10.1")
    task(tmp_path, "task-10.1 - Vane.md", "title: Vane", "dependencies: [BACK-9]", "type: bug")
    (tmp_path / "backlog/tasks/readme.md").write_text("# Tasks\n", encoding="utf-8")

    plan, report = read(tmp_path)

    assert shape(plan) == {
        "task-9": [],
        "task-10": ["task-9"],
        "task-10.1": ["task-10", "task-9"],
    }
    assert [row["title"] for row in plan.rows] == ["Mast", "Wind", "Vane"]
    assert [row["status"] for row in plan.rows] == ["COMPLETED", "PENDING", "PENDING"]
    assert [row["type"] for row in plan.rows] == [None, None, "bug"]
    assert report.left_out == [
        "readme.md: it does not begin with front matter between lines of ---, so it was left out.",
        "task-10 - Wind.md: the dependency on task-10.1 was left out, because task-10.1 waits for"
        " task-10 already, directly or by way of others.",
    ]
    assert report.changed == [
        "task-9 - Mast.md; task-10.1 - Vane.md: its front matter has no id, so that of its name is"
        " taken.",
        "task-9 - Mast.md; task-10 - Wind.md: its front matter has no title, so that of its name is"
        " taken.",
    ]


def test_values_of_backlog_need_no_quotation_marks(tmp_path: Path) -> None:
    task(tmp_path, "task-1 - A.md", "title: Fix: *all* of it", "assignee: @ada", "labels:\t[a, b]")
    task(tmp_path, "task-2 - B.md", "title: B", "status: ✔ Done")

    plan, report = read(tmp_path)

    assert [row["title"] for row in plan.rows] == ["Fix: *all* of it", "B"]
    about = plan.rows[0]["task_metadata"]["backlog"]
    assert about == {"assignee": "@ada", "labels": ["a", "b"]}
    assert plan.rows[1]["status"] == "COMPLETED"
    assert report.changed[0] == (
        "task-1 - A.md: its YAML is not correct; values on one line are taken as texts."
    )


def test_the_configuration_of_backlog_can_be_beside_its_folder(tmp_path: Path) -> None:
    task(tmp_path, "task-1 - A.md", "id: task-1", "title: A")
    (tmp_path / "backlog.config.yml").write_text("project_name: Weather\n", encoding="utf-8")

    assert read(tmp_path)[0].project == "Weather"


def test_chats_below_a_key_are_no_plan(tmp_path: Path) -> None:
    chats = {"conversations": [{"id": "a", "title": "A", "mapping": {}}]}

    with pytest.raises(NotImportable, match="has no known format"):
        formats.recognise(written(tmp_path, chats))


def test_a_task_with_a_title_and_an_id_alone_is_not_taken_for_beads(tmp_path: Path) -> None:
    with pytest.raises(NotImportable, match="has no known format"):
        formats.recognise(written(tmp_path, {"id": "a", "title": "A"}))
    assert formats.recognise(written(tmp_path, bead("a"))) is beads_issues
