"""What the check of the schema's promise finds, on small schemas in a repository of their own."""

from __future__ import annotations

import re
import subprocess
import tomllib
from datetime import date
from pathlib import Path

import pytest
from packaging.version import Version

from tests.promise import ROOT, announced, broken, is_named, main

OLD = """
directive @note(text: String) repeatable on FIELD | QUERY
scalar Moment
interface Named { name: String }
interface Node { id: ID! }
type Cat implements Named & Node { id: ID!, name: String }
type Dog implements Named { name: String }
union Pet = Cat | Dog
enum Mood { HAPPY SAD }
input Search { text: String }
type Query { pets(first: Int, mood: Mood): [Pet!]! search(by: Search): Pet at: Moment }
"""


@pytest.mark.parametrize(
    ("before", "after", "coordinates"),
    [
        ("at: Moment", "", ["Query.at"]),
        ("at: Moment", "at: Moment!", []),
        ("[Pet!]!", "[Pet!]", ["Query.pets"]),
        ("first: Int, ", "", ["Query.pets(first:)"]),
        ("first: Int", "first: Int!", ["Query.pets(first:)"]),
        ("first: Int", "first: Int, last: Int", []),
        ("first: Int", "first: Int, last: Int!", ["Query.pets(last:)"]),
        ("text: String }", "text: ID }", ["Search.text"]),
        ("text: String }", "text: String, whole: Boolean! }", ["Search.whole"]),
        ("HAPPY SAD", "HAPPY", ["Mood.SAD"]),
        ("HAPPY SAD", "HAPPY SAD CALM", []),
        ("Cat | Dog", "Cat", ["Pet"]),
        ("Named & Node", "Named", ["Cat"]),
        ("scalar Moment", "enum Moment { NOW }", ["Moment"]),
        ("interface Node { id: ID! }", "", ["Cat", "Node"]),
        ("text: String) ", ") ", ["@note(text:)"]),
        ("text: String)", "text: String!)", ["@note(text:)"]),
        (" repeatable", "", ["@note"]),
        (" | QUERY", "", ["@note"]),
    ],
)
def test_each_breaking_change_has_its_coordinate(
    before: str, after: str, coordinates: list[str]
) -> None:
    new = OLD.replace(before, after).replace("@note()", "@note")
    assert new != OLD
    if not after and "Node" in before:
        new = new.replace(" & Node", "")
    assert sorted(broken(OLD, new)) == coordinates


def test_only_the_coordinate_itself_counts() -> None:
    for text in ("`Task.title` is gone.", "- Task.title: renamed", "Task.title."):
        assert is_named("Task.title", text)
    for text in ("", "`Task.titles`", "`SubTask.title`", "Query.Task.title", "Task.title(in:)"):
        assert not is_named("Task.title", text)
    assert is_named("Query.tasks(first:)", "`Query.tasks(first:)`")
    assert not is_named("Task", "`Task.title`")
    assert not is_named("note", "@note")


def test_what_is_announced_stands_above_the_last_release() -> None:
    changelog = """# Changes
## Unreleased
- Task.other
### Breaking
- Task.new
### Fixed
- Task.fixed
## 0.2.0
### Breaking
- Task.newer
## 0.1.0
### Breaking
- Task.old
"""
    assert announced(changelog, "v0.1.0").split() == ["-", "Task.new", "-", "Task.newer"]
    assert announced(changelog, "0.2.0").split() == ["-", "Task.new"]


def test_the_changelog_has_the_version_and_the_names_that_go_with_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles[0] == "Unreleased"
    releases = [
        re.fullmatch(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)", title) for title in titles[1:]
    ]
    versions = [(Version(found[1]), date.fromisoformat(found[2])) for found in releases if found]
    assert len(versions) == len(titles) - 1
    assert versions == sorted(versions, reverse=True)

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    assert str(versions[0][0]) == version
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = re.findall(r"troupe[-:](\d+\.\d+\.\d+)", page.read_text(encoding="utf-8"))
        assert set(named) <= {version}, page


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A repository with a release."""
    (tmp_path / "schema.graphql").write_text("type Query { a: Int b: Int }", encoding="utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 0.1.0\n", encoding="utf-8")
    named = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "tag.gpgSign=false"]
    for command in (
        ["init", "-q"],
        ["add", "."],
        [*named, "-c", "commit.gpgSign=false", "commit", "-qm", "a"],
        [*named, "tag", "v0.1.0"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def test_a_breaking_change_fails_until_it_is_announced(
    released: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(released) == 0
    (released / "schema.graphql").write_text("type Query { a: Int c: Int }", encoding="utf-8")
    assert main(released) == 1
    said = capsys.readouterr().out
    assert "break what v0.1.0 promised:\n  Query.b: Field Query.b was removed.\n" in said

    changelog = "# Changes\n\n## Unreleased\n\n### Breaking\n\n- `Query.b` is gone.\n\n## 0.1.0\n"
    (released / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    assert main(released) == 0
    assert capsys.readouterr().out == ""


def test_without_a_release_nothing_is_promised(
    released: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "tag", "-d", "v0.1.0"], cwd=released, check=True, capture_output=True)
    for folder in (released, tmp_path_factory.mktemp("no-repository")):
        assert main(folder) == 0
        assert "no release yet" in capsys.readouterr().out
