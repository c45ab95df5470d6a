"""The containers, without Docker: the files are held against what they name, the commands run."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from db.embedded.clusters import LOCALE
from db.migrate import head
from tests import processes
from tests.patience import PATIENCE, until
from tests.processes import CODE, Elsewhere

COMPOSE = (CODE / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = YAML(typ="safe").load(COMPOSE)["services"]
VARIABLE = re.compile(r"\$\{(\w+)(?P<needed>:\?)?(?::-(?P<default>\w*))?[^}]*\}")


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: a word each, and what follows it."""
    text = re.sub(
        r"^\s*(#.*)?\n", "", (CODE / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    lines = text.replace("\\\n", "").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


DOCKERFILE = instructions()


def only(word: str) -> str:
    """What follows a word that the Dockerfile has once."""
    (found,) = [rest for name, rest in DOCKERFILE if name == word]
    return found


def sources() -> list[str]:
    """What the Dockerfile copies from this tree."""
    copies = [rest.split() for word, rest in DOCKERFILE if word == "COPY"]
    return [path for words in copies if "--from=" not in words[0] for path in words[:-1]]


def test_the_compose_file_is_one() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    file = str(CODE / "docker-compose.yml")
    done = subprocess.run([*command, file], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout


def test_the_database_is_as_the_one_that_comes_along() -> None:
    environment = SERVICES["postgres"]["environment"]
    assert environment["POSTGRES_INITDB_ARGS"].split() == list(LOCALE)
    assert (environment["POSTGRES_USER"], environment["POSTGRES_DB"]) == ("sa", "mas_framework")


def test_what_has_to_be_set_stands_in_the_example() -> None:
    example = (CODE / ".env.example").read_text(encoding="utf-8")
    needed = set(re.findall(r"^(\w+)=$", example, re.MULTILINE))
    optional = set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
    found = {name: (bool(needed), default) for name, needed, default in VARIABLE.findall(COMPOSE)}
    assert {name for name, (is_needed, _) in found.items() if is_needed} == needed
    assert {name for name, (is_needed, _) in found.items() if not is_needed} == optional
    assert all(default for is_needed, default in found.values() if not is_needed)
    assert "/.env" in (CODE / ".gitignore").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("source", sources())
def test_what_the_image_copies_is_there_and_reaches_the_builder(source: str) -> None:
    if source.startswith(("graph/graphiql/", "graph/plain/")) and not (CODE / source).exists():
        pytest.skip("GraphiQL is not there yet")
    assert (CODE / source).exists()
    lines = (CODE / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[1] == "*"
    assert f"!{source.split('/')[0]}" in lines


def test_the_image_installs_what_make_installs() -> None:
    installs = [rest for word, rest in DOCKERFILE if word == "RUN" and " install " in rest]
    makefile = (CODE / "Makefile").read_text(encoding="utf-8")
    assert len(installs) == 2
    for command in installs:
        _, _, arguments = command.partition(" install ")
        assert arguments.replace("--no-cache-dir ", "") in makefile


def test_nobody_in_the_image_is_root() -> None:
    user, _, group = only("USER").partition(":")
    assert int(user) > 0
    assert int(group) > 0


class Container:
    """Runs commands as the service `troupe` would, beside a PostgreSQL as the other one is."""

    def __init__(self, elsewhere: Elsewhere) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        image = dict(re.findall(r"(\w+)=(\S+)", only("ENV")))
        given = SERVICES["troupe"]["environment"]
        secrets = {"POSTGRES_PASSWORD": elsewhere.PASSWORD}
        environment = {
            name: VARIABLE.sub(lambda found: secrets.get(found[1], found[3]), value)
            for name, value in {**image, **given}.items()
        }
        # What differs: where programs and code lie, the address of `postgres`, and the port.
        # The packages may be installed for another tree than this one.
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment["PYTHONPATH"] = str(CODE)
        assert "@postgres:5432/" in environment["TROUPE_DATABASE_URL"]
        environment["TROUPE_DATABASE_URL"] = elsewhere.url(password=None)
        assert environment["TROUPE_PORT"] == "8000"
        environment["TROUPE_PORT"] = self._port
        self._environment = environment
        self._entrypoint: list[str] = json.loads(only("ENTRYPOINT"))

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a command as the image's user."""
        user, _, group = only("USER").partition(":")
        as_user = [] if os.geteuid() else ["setpriv", f"--reuid={user}", f"--regid={group}"]
        if as_user:
            # In the image everybody may read the code and Python; here it may be root's alone.
            read = "+dac_read_search"
            as_user += ["--clear-groups", f"--inh-caps={read}", f"--ambient-caps={read}"]
        return subprocess.Popen(
            [*as_user, *command],
            cwd=CODE,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def troupe(self, *arguments: str) -> tuple[int, str]:
        """What `docker compose run --rm troupe …` does: its status, and what it says."""
        with self.start([*self._entrypoint, *arguments]) as process:
            out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out + err

    def serve(self) -> subprocess.Popen[str]:
        """Start what the image starts unless told otherwise."""
        return self.start([*self._entrypoint, *json.loads(only("CMD"))])

    def is_healthy(self) -> bool:
        """What the image's own check says."""
        _, _, command = only("HEALTHCHECK").partition(" CMD ")
        assert "8000" in command
        with self.start(json.loads(command.replace("8000", self._port))) as process:
            process.communicate(timeout=PATIENCE)
        return process.returncode == 0


@pytest.fixture
def container() -> Iterator[Container]:
    """Commands in the container, over an empty database."""
    with processes.place() as folder:
        elsewhere = Elsewhere(folder / "data", "sa", "mas_framework")
        with elsewhere.running():
            elsewhere.make_database()
            yield Container(elsewhere)


@pytest.mark.skipif(sys.platform != "linux", reason="containers are Linux")
def test_the_image_serves_once_the_database_is_migrated(container: Container) -> None:
    status, said = container.troupe("serve")
    assert status == 1
    assert "back it up, then run `troupe migrate`" in said
    assert not container.is_healthy()

    assert container.troupe("migrate") == (0, f"The database is at the migration {head()}.\n")
    with container.serve() as process:
        try:
            until(lambda: container.is_healthy() or process.poll() is not None)
            assert process.poll() is None
            created, _ = container.troupe("users", "create", "ann", "--email", "ann@example.org")
            assert created == 0
            status, token = container.troupe("tokens", "create", "laptop", "--user", "ann")
            assert (status, token[:7]) == (0, "troupe_")
            if not os.geteuid():
                owner = Path(f"/proc/{process.pid}").stat().st_uid
                assert str(owner) == only("USER").partition(":")[0]
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
