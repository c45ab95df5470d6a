"""The schema is a promise: `python -m tests.promise`, part of `make check`.

What worked against `schema.graphql` of the last release, a git tag, must go on working. Where that
cannot be, CHANGELOG.md says so: under a heading `### Breaking` above that release, each change is
named by its coordinate, such as `Task.title` or `Query.tasks(first:)`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from graphql import build_schema, specified_scalar_types
from graphql.utilities import BreakingChangeType, find_breaking_changes

ROOT = Path(__file__).parents[1]


def git(folder: Path, *arguments: str) -> str | None:
    """What git answers, none if it cannot."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8"
        )
    except FileNotFoundError:
        return None
    return done.stdout if done.returncode == 0 else None


def broken(old: str, new: str) -> dict[str, list[str]]:
    """What no longer works in a schema, in sentences by coordinate."""
    found: dict[str, list[str]] = {}
    for change in find_breaking_changes(build_schema(old), build_schema(new)):
        at = coordinate(change.type, change.description)
        # One of GraphQL's own scalars is only gone with the last field that used it.
        if at not in specified_scalar_types:
            found.setdefault(at, []).append(change.description)
    return found


def coordinate(kind: BreakingChangeType, sentence: str) -> str:
    """Where a change is, as the specification writes it; graphql-core has it in its sentence."""
    if kind is BreakingChangeType.TYPE_REMOVED_FROM_UNION:
        return sentence.rstrip(".").split()[-1]
    sentence = sentence.removeprefix("Standard scalar ")
    found = re.search(r"(@\w+|\w+\.\w+)(\(\w+:\))?", sentence) or re.match(r"\w+", sentence)
    assert found is not None, sentence
    return found[0]


def announced(changelog: str, release: str) -> str:
    """What CHANGELOG.md says to be broken since a release."""
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    text = ""
    for section in sections:
        title = section.split(maxsplit=1)[0].strip("[]")
        if title.removeprefix("v") == release.removeprefix("v"):
            break
        found = re.search(r"^### Breaking$(.*?)(?=^### |\Z)", section, re.MULTILINE | re.DOTALL)
        text += found[1] if found is not None else ""
    return text


def is_named(coordinate: str, text: str) -> bool:
    """Whether a text names a coordinate itself, not only one that begins or ends like it."""
    return re.search(rf"(?<![\w.@]){re.escape(coordinate)}(?![\w(]|\.\w)", text) is not None


def unannounced(folder: Path, release: str, kept: str) -> list[str]:
    """What is broken since a release, whose schema was `kept`, without a word in CHANGELOG.md."""
    text = announced((folder / "CHANGELOG.md").read_text(encoding="utf-8"), release)
    new = (folder / "schema.graphql").read_text(encoding="utf-8")
    return [
        f"{at}: {sentence}"
        for at, sentences in broken(kept, new).items()
        if not is_named(at, text)
        for sentence in sentences
    ]


def main(folder: Path = ROOT) -> int:
    """Report every broken promise that is not announced, and what to do about it."""
    release = (git(folder, "describe", "--tags", "--abbrev=0") or "").strip()
    kept = git(folder, "show", f"{release}:schema.graphql") if release else None
    if kept is None:
        print("There is no release yet (no git tag), so schema.graphql promises nothing.")
        return 0
    found = unannounced(folder, release, kept)
    if found:
        print(f"These changes of schema.graphql break what {release} promised:")
        print("\n".join(f"  {sentence}" for sentence in found))
        print("Take them back, or name each under `### Breaking` in CHANGELOG.md.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
