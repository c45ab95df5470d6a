"""A cluster (PostgreSQL's term for a data folder), its processes and its socket."""

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
# The folder for sockets whose path would be too long; not TMPDIR, which can be long itself.
SHORT_DIR = Path("/tmp")
PROC = Path("/proc")
# The most disk space that PostgreSQL needs at once, in bytes: a segment of its write-ahead log.
SEGMENT = 16 * 1024 * 1024

# The builtin locale sorts in the same way on every system, and allows a plain index for LIKE 'x%'.
# --locale is for what libc still does, and overrides LANG.
LOCALE = (
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
)


@dataclass(frozen=True)
class Cluster:
    """A cluster, its account, the programs and the log."""

    folder: Path
    account: Account
    bin_dir: Path
    log: Log

    @property
    def name(self) -> str:
        """The cluster's name in the titles of PostgreSQL's processes."""
        return f"troupe-{_digest(self.folder)}"

    def initialize(self, *, sync: bool) -> None:
        """Make the cluster with its role and database, unless it exists.

        The folder appears only when it is complete.
        """
        for left in self.folder.parent.glob(f".{self.folder.name}.*"):  # by a killed process
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
            # Without exit_on_error, a statement that fails (on a full disk) gives exit code 0.
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
        # This setting is a list: without quotes, a comma or a blank would separate two names.
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
        arguments = [argument for item in options.items() for argument in ("-c", "=".join(item))]
        return [str(self.bin_dir / "postgres"), "-D", str(self.folder), *arguments]

    def processes(self) -> set[int]:
        """The running PostgreSQL processes of this cluster, even without a postmaster."""
        # By their titles, which everybody may read. Root in a container may not read the working
        # folder of another account's process.
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
        """End processes of this cluster that were left by a supervisor that is gone."""
        running = self.processes()
        if postmaster := running & {postmaster_pid(self.folder)}:
            _signal(postmaster, signal.SIGINT)
            running = self._wait_for_end(10)
        # Backends whose postmaster was killed only end when they wait for something.
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
        # No process of the cluster runs when this is called. PostgreSQL does not start if another
        # process has the pid by now, or if the file is empty or damaged, as after a full disk.
        # Its other protection against two servers, the shared memory, stays in place.
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def has_room(self) -> bool:
        """Whether the disk has free space for the next write; True if that is not known."""
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
    """The private folder of the socket, with a path that is valid for one."""
    near = data_dir / "postgres-socket"
    name = os.fsencode(near / SOCKET_NAME)
    # In `host`, a comma separates hosts and a colon is followed by a port; it has to be UTF-8.
    if len(name) <= SOCKET_PATH_LIMIT and not set(name) & set(b",:") and _is_utf8(name):
        if not near.exists():
            near.mkdir(mode=0o700)
            account.take_ownership(near)
        if not _is_private(near, account):
            raise EmbeddedError(
                f"The folder {near} is not private to the account {account.name}, as that of a "
                f"socket must be; remove it, and start again"
            )
        _clear_socket(near)
        yield near
        return
    prefix = f"troupe-{_digest(data_dir)}-"
    # One that a killed process left, or a new one with a random name, which nobody can make before.
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
    # During recovery PostgreSQL listens on the socket already, but refuses connections. The eighth
    # line of its pid file is exact, but remains when it is killed.
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
    except OSError:  # it does not exist, or may not be read
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
    """Every process with its command line, or the title that it has set."""
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
        # A title that PostgreSQL has set begins like this; otherwise it is a command line.
        yield int(pid), [title] if title.startswith("postgres: ") else [*title.split(" "), ""]


def _remove(unfinished: Path) -> None:
    """Remove a cluster that was not finished."""
    # Processes that initdb has started may still run: they would make more files, or leave shared
    # memory behind.
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
    # Left by a killed server; another process may have the pid in the lock file by now.
    for name in (SOCKET_NAME, f"{SOCKET_NAME}.lock"):
        (socket_dir / name).unlink(missing_ok=True)


def _private_folder(prefix: str, parent: Path, account: Account) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    account.take_ownership(folder)
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
