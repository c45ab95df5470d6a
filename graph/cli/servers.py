"""The servers that run on this machine, so that a command uses the database of one of them.

`troupe serve` and `troupe demo` each write a file that says which database they use, and hold a
lock on it as long as they run.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from graph.cli.errors import CommandError
from graph.cli.output import print_note

if TYPE_CHECKING:
    from db.embedded.locks import FileLock
    from graph.settings import Settings

if sys.platform != "win32":
    import fcntl

STARTING_SECONDS = 60
"""A file that is not complete after this time is of a server that was killed."""


@dataclass(frozen=True)
class RunningServer:
    """A server that runs, and its database."""

    pid: int
    command: str
    """`serve` or `demo`."""
    address: str
    """Where it serves HTTP."""
    folder: str
    """The folder that it was started in."""
    data_dir: str | None
    """The folder of its embedded database."""
    database_url: str | None
    """The URL of its database if it is not embedded, without its password."""
    token: str | None = field(default=None, repr=False)
    """The token that it has printed, with which commands ask it: of an embedded database only,
    which every process of this account could read as well."""

    @property
    def setting(self) -> str:
        """The setting with which a command uses its database."""
        if self.data_dir is not None:
            return f"TROUPE_DATA_DIR={self.data_dir}"
        return f"TROUPE_DATABASE_URL={self.database_url}"

    @property
    def description(self) -> str:
        """Which server it is, in words."""
        return f"`troupe {self.command}`, process {self.pid}, {self.address}"


def registry() -> Path:
    """The folder of the files, which is the same for all sessions of an account."""
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not base.is_absolute():  # the specification says to ignore other values
        base = Path.home() / ".local" / "state"
    return base / "troupe" / "servers"


def current_folder() -> str:
    """The current folder; empty if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


@contextmanager
def registered(server: RunningServer) -> Iterator[None]:
    """Let commands find this process's server inside the block."""
    if sys.platform == "win32":
        yield
        return
    entry = _entry(server)
    try:
        yield
    finally:
        if entry is not None:
            lock, path = entry
            with suppress(OSError):
                path.unlink(missing_ok=True)
            lock.close()


def _entry(server: RunningServer) -> tuple[FileLock, Path] | None:
    """The file of a server, and the lock on it.

    None if it cannot be written, for example without a home folder: commands then need a setting.
    """
    from db.embedded.locks import FileLock

    folder = _folder(creates=True)
    if folder is None:
        return None
    # No other server has this name: in containers, all have the process id 1.
    new = folder / f"{server.pid}-{secrets.token_hex(8)}.new"
    with suppress(OSError):
        lock = FileLock(new)
        try:
            # Found only when it is locked and complete.
            if lock.try_exclusive():
                lock.write(json.dumps(asdict(server)))
                return lock, new.rename(new.with_suffix(".json"))
        except OSError:
            pass
        lock.close()
        new.unlink(missing_ok=True)
    return None


def _folder(*, creates: bool = False) -> Path | None:
    """The folder of the files; None if it is not there, or if another account can write in it."""
    try:
        folder = registry()
        if creates:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # there is no home folder, or nothing can be written there
        return None
    is_own = found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return folder if stat.S_ISDIR(found.st_mode) and is_own else None


def running_servers() -> list[RunningServer]:
    """The servers of this account that run now. Files of servers that were killed are removed."""
    found = []
    for path, runs, server in _files():
        if not runs:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        elif server is not None and path.suffix == ".json":
            found.append(server)
    return found


def tokens_of_killed_servers() -> list[str]:
    """The tokens in the files of servers that were killed; their databases may still accept them.

    The next command removes these files.
    """
    killed = (server for _, runs, server in _files() if not runs and server is not None)
    return [server.token for server in killed if server.token is not None]


def _files() -> Iterator[tuple[Path, bool, RunningServer | None]]:
    """Each file of a server, whether that server runs, and what the file says if it can be read.

    Files that are still being written are left out.
    """
    folder = None if sys.platform == "win32" else _folder()
    for path in [] if folder is None else sorted(folder.iterdir()):
        with suppress(OSError):  # it stopped meanwhile
            if path.suffix != ".json" and time.time() - path.stat().st_mtime < STARTING_SECONDS:
                continue
            server = None
            with path.open(encoding="utf-8") as file:
                runs = _is_locked(file)
                with suppress(TypeError, ValueError):  # of another version
                    server = RunningServer(**json.load(file))
            yield path, runs, server


def _is_locked(file: TextIO) -> bool:
    """Whether the server that wrote the file runs.

    `db.embedded.locks` does the same, but its import takes as long as the rest of a command.
    """
    try:
        # Shared, so that another command that looks at the same time is no server.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def note_database_of(server: RunningServer) -> None:
    """Say that the database of a running server is used."""
    print_note(f"Using the database of {server.description}")


def server_that_runs() -> RunningServer | None:
    """The server that commands use, if one runs: of several, that which was started in this folder.

    Raises CommandError if it is not clear which one.
    """
    databases = {server.setting: server for server in running_servers()}
    if len(databases) > 1:
        here = current_folder()
        local = {setting: one for setting, one in databases.items() if one.folder == here}
        databases = local if len(local) == 1 else databases
    if len(databases) > 1:
        choices = [f"  {setting}  ({one.description})" for setting, one in databases.items()]
        raise CommandError(
            "\n".join(["Several servers run; set one of these to use its database:", *choices])
        )
    return next(iter(databases.values()), None)


def server_with_token() -> RunningServer | None:
    """The server that commands ask over HTTP, unless the environment names a database."""
    named = {"TROUPE_DATABASE_URL", "TROUPE_DATA_DIR"}
    if any(name.upper() in named for name in os.environ):
        return None
    server = server_that_runs()
    return None if server is None or server.token is None else server


def with_database_of_running(settings: Settings) -> tuple[Settings, bool]:
    """The settings with the database of the server that runs, and whether it is one's.

    Settings that name a database stay as they are. Raises CommandError if it is not clear which
    server is meant.
    """
    if settings.database_url is not None or settings.data_dir is not None:
        return settings, False
    server = server_that_runs()
    if server is None:
        return settings, False
    if "***" in server.setting:
        raise CommandError(
            f"The server that runs ({server.description}) uses {server.database_url}; set"
            " TROUPE_DATABASE_URL, with the password, to use that database"
        )
    note_database_of(server)
    data_dir = None if server.data_dir is None else Path(server.data_dir)
    chosen = {"data_dir": data_dir, "database_url": server.database_url}
    return settings.model_copy(update=chosen), True
