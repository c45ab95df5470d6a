"""A cluster (PostgreSQL's word for a data folder), the processes over it and its socket."""

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from db.embedded.accounts import ENVIRONMENT, Account
from db.embedded.errors import EmbeddedError
from db.embedded.logs import Log

SOCKET_NAME = ".s.PGSQL.5432"
# The system's limit for a socket's path is 103 (macOS) or 107 (Linux) bytes.
SOCKET_PATH_LIMIT = 100
# Where a socket goes whose path would be too long; not TMPDIR, which can be long itself.
SHORT_DIR = Path("/tmp")
PROC = Path("/proc")
# How much PostgreSQL may need of the disk at once, in bytes: a segment of its write-ahead log.
SEGMENT = 16 * 1024 * 1024

# The builtin locale sorts alike on every system, and a plain index serves LIKE 'x%'; --locale is
# for what is left to libc, whatever LANG says.
LOCALE = (
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


@dataclass(frozen=True)
class Cluster:
    """A cluster, the account that it belongs to, and the programs and log that it uses."""

    folder: Path
    account: Account
    bin_dir: Path
    log: Log

    @property
    def name(self) -> str:
        """What PostgreSQL calls the cluster in the titles of its processes."""
        return f"troupe-{_digest(self.folder)}"

    def initialize(self, *, sync: bool) -> None:
        """Make the cluster with its role and database, unless it is there; it appears whole."""
        for left in self.folder.parent.glob(f".{self.folder.name}.*"):  # of a killed process
            _remove(left)
        if self.folder.exists():
            return
        unfinished = _private_folder(f".{self.folder.name}.", self.folder.parent, self.account)
        try:
            self._run(
                "initdb",
                f"--pgdata={unfinished}",
                "--username=troupe",
                # No password: the socket's folder is 0700, so that only the account itself (and
                # root) can connect, and there is no TCP at all.
                "--auth-local=trust",
                "--auth-host=reject",
                *LOCALE,
                "--no-instructions",
                *([] if sync else ["--no-sync"]),
            )
            # Without exit_on_error a statement that fails (on a full disk) counts as success.
            options = ["-c", "exit_on_error=on", "-c", f"fsync={'on' if sync else 'off'}"]
            self._run(
                *("postgres", "--single", "-D", str(unfinished), *options, "postgres"),
                text=b"CREATE DATABASE troupe\n",
            )
            unfinished.rename(self.folder)
        except BaseException:
            _remove(unfinished)
            raise
        if sync:
            _sync_folder(self.folder.parent)

    def command(self, socket_dir: Path, settings: Mapping[str, str]) -> Sequence[str]:
        """The command line of the server."""
        # This setting is a list, where a comma or a blank would part one name in two.
        quoted = str(socket_dir).replace('"', '""')
        options = {
            "listen_addresses": "",
            "port": "5432",
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
            "cluster_name": self.name,
            "password_encryption": "scram-sha-256",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_destination": "stderr",
            "logging_collector": "off",
            "max_connections": "100",
            "shared_buffers": "128MB",
            **settings,
        }
        given = [argument for item in options.items() for argument in ("-c", "=".join(item))]
        return [str(self.bin_dir / "postgres"), "-D", str(self.folder), *given]

    def processes(self) -> set[int]:
        """PostgreSQL's running processes over this cluster, with a postmaster or without one."""
        # By their titles, which everybody may read: their working folder would say it too, but
        # root in a container may not look at another account's.
        return {
            pid
            for pid, words in _commands()
            if words[0].startswith(f"postgres: {self.name}: ")
            or (
                words[0].endswith("/postgres")
                and " ".join(words[1:]).startswith(f"-D {self.folder} ")
            )
        }

    def end_leftovers(self) -> None:
        """End whatever still runs over this cluster, which nobody supervises any more."""
        running = self.processes()
        if postmaster := running & {postmaster_pid(self.folder)}:
            _signal(postmaster, signal.SIGINT)
            running = self._wait_for_end(10)
        # Backends whose postmaster was killed end by themselves only once they wait for something.
        for number in (signal.SIGQUIT, signal.SIGKILL):
            if running:
                _signal(running, number)
                running = self._wait_for_end(10)
        if running:
            raise EmbeddedError(
                f"The PostgreSQL processes {', '.join(map(str, sorted(running)))} over "
                f"{self.folder} do not end; end them, and start again"
            )

    def remove_stale_pid_file(self) -> None:
        """Remove a ``postmaster.pid`` that would stop PostgreSQL from starting."""
        # Nothing runs over the cluster when this is called. PostgreSQL itself sees that a pid is
        # dead, but not that another process has got it since then. Its second guard against two
        # servers, the shared memory, stays in place.
        # Nor does it start over a file that is empty, as a full disk leaves it, or garbled.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def has_room(self) -> bool:
        """Whether the disk has room for what PostgreSQL writes next, as far as can be seen."""
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return True
        return disk.f_bavail * disk.f_frsize >= SEGMENT

    def _run(self, program: str, *arguments: str, text: bytes = b"") -> None:
        offset = self.log.size()
        with subprocess.Popen(
            [self.bin_dir / program, *arguments],
            user=self.account.user,
            group=self.account.group,
            extra_groups=self.account.extra_groups,
            start_new_session=True,
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=self.log.fileno(),
            stderr=self.log.fileno(),
        ) as process:
            try:
                process.communicate(text)
            except BaseException:
                process.kill()
                process.wait()
                _wait_for_group(process.pid)
                raise
        if process.returncode != 0:
            raise self.log.failure("PostgreSQL could not make its database", offset)

    def _wait_for_end(self, patience: float) -> set[int]:
        deadline = time.monotonic() + patience
        while (running := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return running


@contextlib.contextmanager
def socket_folder(data_dir: Path, account: Account) -> Iterator[Path]:
    """The private folder of the socket, its path fit for one."""
    near = data_dir / "postgres-socket"
    name = os.fsencode(near / SOCKET_NAME)
    # In a host, drivers take a comma for the next one and a colon for a port, and it is UTF-8.
    if len(name) <= SOCKET_PATH_LIMIT and not set(name) & set(b",:") and _is_utf8(name):
        if not near.exists():
            near.mkdir(mode=0o700)
            account.give(near)
        if not _is_private(near, account):
            raise EmbeddedError(
                f"The folder {near} is not private to the account {account.name}, as that of a "
                f"socket must be; remove it, and start again"
            )
        _clear_socket(near)
        yield near
        return
    prefix = f"troupe-{_digest(data_dir)}-"
    # One that a killed process left, or else a new one, whose name nobody can know and take before.
    left = (found for found in SHORT_DIR.glob(f"{prefix}*") if _is_private(found, account))
    short = next(left, None) or _private_folder(prefix, SHORT_DIR, account)
    try:
        _clear_socket(short)
        yield short
    finally:
        _clear_socket(short)
        short.rmdir()


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def is_ready(folder: Path, socket_dir: Path) -> bool:
    """Whether the server over the cluster in this folder accepts connections."""
    # Somebody listens on the socket already while PostgreSQL recovers, and refuses; what it says
    # about itself in the eighth line of its file is exact, but stays there when it is killed.
    lines = _pid_file(folder)
    return len(lines) >= 8 and lines[7].strip() == "ready" and _is_listening(socket_dir)


def postmaster_pid(folder: Path) -> int | None:
    """The pid of the postmaster over the cluster in this folder, if that process exists."""
    lines = _pid_file(folder)
    first = lines[0].strip() if lines else ""
    pid = int(first) if re.fullmatch("[1-9][0-9]{0,9}", first) else None
    return pid if pid is not None and is_alive(pid) else None


def is_alive(pid: int) -> bool:
    """Whether a process has this pid."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _pid_file(folder: Path) -> list[str]:
    try:
        text = (folder / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it is not there, or not for us to read
        return []
    return text.splitlines()


def _is_listening(socket_dir: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(socket_dir / SOCKET_NAME))
        except OSError:
            return False
        return True


def _commands() -> Iterator[tuple[int, list[str]]]:
    """Every process with its title: the words of its command, or what it calls itself."""
    if (PROC / "self").exists():
        for process in PROC.iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):  # it ended meanwhile
                    words = (process / "cmdline").read_bytes().split(b"\0")
                    yield int(process.name), [os.fsdecode(word) for word in words]
        return
    command = ["ps", "-axww", "-o", "pid=,command="]
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    for line in os.fsdecode(listed).splitlines():
        pid, _, title = line.strip().partition(" ")
        title = title.strip()
        # Only what calls itself something has a colon there; words cannot be told apart otherwise.
        yield int(pid), [title] if title.startswith("postgres: ") else [*title.split(" "), ""]


def _remove(unfinished: Path) -> None:
    """Remove a cluster that was not finished."""
    # What initdb has started may still be at work: it would go on to make files, or leave shared
    # memory behind if it failed.
    deadline = time.monotonic() + 10
    while _is_named(unfinished) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(unfinished, ignore_errors=True)


def _wait_for_group(group: int) -> None:
    """Wait until no process of this group runs: what initdb has started goes on without it."""
    deadline = time.monotonic() + 10
    while _is_running(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_running(group: int) -> bool:
    for pid, words in _commands():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if words[0] and os.getpgid(pid) == group:  # a process that has ended has no words
                return True
    return False


def _is_named(folder: Path) -> bool:
    return any(str(folder) in " ".join(words) for _, words in _commands())


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _clear_socket(socket_dir: Path) -> None:
    # What a killed server left: its lock file holds a pid that may be another's by now.
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (socket_dir / name).unlink(missing_ok=True)


def _private_folder(prefix: str, parent: Path, account: Account) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    account.give(folder)
    return folder


def _is_private(folder: Path, account: Account) -> bool:
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == account.uid
        and stat.S_IMODE(found.st_mode) == 0o700
    )


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:12]


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
