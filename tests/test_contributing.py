"""CONTRIBUTING.md's recipe for a new entity, followed to the letter in a copy of the tree."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests import processes
from tests.conftest import _on_server

ROOT = Path(__file__).parents[1]
# What is installed or made here, and belongs to no copy.
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv", "node_modules", "dist", "__pycache__", ".hypothesis", ".pytest_cache")
)
# What `make` would install is there already, and the recipe is none of JavaScript's business.
MAKE = "make --silent NPM= -o .venv/installed -o .venv/installed-dev "
# Of all tests, the entity's own, and some of those that look at every entity.
FILES = ("milestones", "conventions", "migrations", "rights", "scopes")
TESTS = " ".join(f"tests/test_{name}.py" for name in FILES)
TESTS += " -k 'milestones or conventions or down_and_up or EDITOR or always'"


def steps() -> list[tuple[str, str, str]]:
    """Of each block of the recipe: the words of its step, its language, and its text."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.split("## Add an entity\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^(\d\. .*?)^ +```(\w+)\n(.*?)^ +```$", section, re.MULTILINE | re.DOTALL)
    return [(step, language, textwrap.dedent(text)) for step, language, text in blocks]


def test_the_table_has_every_package() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = page.split("| path | contents |")[1].split("\n\n")[0]
    listed = set(re.findall(r"`(graph/\w+/)`", table))
    modules = [path.parent for path in (ROOT / "graph").glob("*/*.*")]
    assert listed == {f"graph/{folder.name}/" for folder in modules if folder.name[0] != "_"}
    for name in re.findall(r"`(\w+\.py)`", table):
        assert list(ROOT.glob(f"*/{name}")) or list(ROOT.glob(f"graph/*/{name}")), name


def failed(step: str, why: str) -> None:
    """Say which step of the recipe does not work."""
    title = re.split(r"[.:] ", step.replace("\n", " "), maxsplit=2)[:2]
    pytest.fail(f"CONTRIBUTING.md, step {'. '.join(title)}: {why}", pytrace=False)


def insert(tree: Path, step: str, diff: str) -> None:
    """Add the lines of a diff where its other lines are."""
    for change in diff.split("--- ")[1:]:
        path, *lines = change.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
        after = "".join(f"{line[1:]}\n" for line in lines)
        text = (tree / path).read_text(encoding="utf-8")
        if text.count(f"\n{before}") != 1:
            failed(step, f"{path} does not have these lines once:\n{before}")
        new = text.replace(f"\n{before}", f"\n{after}")
        (tree / path).write_text(new, encoding="utf-8")


@pytest.fixture
def tree() -> Iterator[Path]:
    """A copy of the tree, in which the same packages are installed."""
    with processes.place() as folder:
        shutil.copytree(ROOT, folder / "tree", ignore=NOT_COPIED)
        (folder / "tree/.venv").symlink_to(sys.prefix)
        yield folder / "tree"


def run(tree: Path, server: URL, step: str, command: str) -> None:
    """Run a command in the tree, on an empty database of its own; it must succeed."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = server.set(database=name).render_as_string(hide_password=False)
    asyncio.run(_on_server(server, f"CREATE DATABASE {name}"))
    outer = ("MAKE", "PYTEST")  # what the run of this test says to its own processes
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outer)}
    told = {
        "PYTHONPATH": str(tree),
        "PYTEST_ADDOPTS": TESTS,
        "TEST_PROCESSES": "0",
        "TROUPE_DATABASE_URL": url,
        "TROUPE_TEST_SERVER": url,
    }
    done = subprocess.run(
        shlex.split(command.replace("make ", MAKE, 1)),
        cwd=tree,
        env=kept | told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    asyncio.run(_on_server(server, f"DROP DATABASE {name} WITH (FORCE)"))
    if done.returncode:
        failed(step, f"`{command}` fails:\n{done.stdout[-10_000:]}")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_recipe_for_a_new_entity_works(tree: Path, server: URL) -> None:
    for step, language, text in steps():
        if language == "python":
            path = re.findall(r"`((?:db|graph|tests)/\w+\.py)`", step)[0]
            (tree / path).write_text(text, encoding="utf-8")
        elif language == "diff":
            insert(tree, step, text)
        for command in text.splitlines() if language == "sh" else ():
            run(tree, server, step, command)
