"""The thread that starts PostgreSQL, restarts it when it ends, and stops it."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from db.embedded import clusters
from db.embedded.accounts import ENVIRONMENT
from db.embedded.clusters import Cluster
from db.embedded.errors import Outage

logger = logging.getLogger("troupe.postgres")

# The pause before a restart, in seconds. It doubles each time that PostgreSQL ends soon after its
# start, up to LONGEST_PAUSE. There is none after it has run for LONG_ENOUGH.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0
LONG_ENOUGH = 60.0
RECOVERY_TIMEOUT = 600.0  # seconds; a recovery that is interrupted starts from the beginning
STOP_TIMEOUT = 30.0  # seconds
LEFTOVERS_TIMEOUT = 20.0  # seconds

PR_SET_PDEATHSIG = 1
# Linux sends a child this signal when its parent dies. SIGQUIT ends PostgreSQL at once; the next
# start recovers every committed row.
PARENT_DEATH_SIGNAL = sys.platform == "linux"
# Elsewhere a shell starts a watcher and then becomes PostgreSQL, with the same pid ($$). The
# watcher reads from a pipe that only this process holds open: a line ends the watcher, and the end
# of the file means that this process has ended.
WATCH = """
exec 3<&0
(read -r line <&3 || kill -QUIT $$) >/dev/null 2>&1 &
exec "$@" 3<&- </dev/null
"""


class Supervisor(threading.Thread):
    """Keeps one PostgreSQL server running until `stop` is called."""

    # One thread forks all children and lives as long as they do: the death signal is sent when the
    # *thread* that forked a child ends.

    def __init__(self, cluster: Cluster, command: Sequence[str], socket_dir: Path) -> None:
        super().__init__(name="troupe-postgres", daemon=True)
        self._cluster = cluster
        self._command = command
        self._socket_dir = socket_dir
        self._child: _Child | None = None
        self._first_start: Future[None] = Future()
        self._outage: Outage | None = None
        # Held while forking, so that stop() finds either no child or a started one.
        self._forking = threading.Lock()
        self._stopping = threading.Event()
        self._ended = threading.Event()

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, if one is running."""
        child = self._child
        return child.process.pid if child is not None and child.process.poll() is None else None

    @property
    def outage(self) -> Outage | None:
        """Why it is not running, or None."""
        return self._outage

    def wait_until_ready(self, on_wait: Callable[[str], None]) -> None:
        """Return when it accepts connections. Raises EmbeddedError if it does not start."""
        try:
            self._first_start.result(timeout=5)
        except TimeoutError:
            if self._first_start.done():
                raise
            on_wait(f"Waiting for PostgreSQL; its log is {self._cluster.log.path}")
            self._first_start.result()

    def stop(self) -> None:
        """Stop the server and the thread. Stronger signals follow if the server does not end."""
        self._stopping.set()
        with self._forking:
            child = self._child
        if child is not None:
            child.end(signal.SIGINT)
        self._ended.set()
        if self.ident is not None:
            self.join()
        self._cluster.end_leftovers()

    def run(self) -> None:
        """Start the server and supervise it, as the thread."""
        try:
            self._start_server()
        except BaseException as error:
            self._first_start.set_exception(error)
            return
        self._first_start.set_result(None)
        pause = 0.0
        started = time.monotonic()
        while not self._stopping.is_set():
            ended = self._wait_for_end()
            if self._stopping.is_set():
                return
            if time.monotonic() - started > LONG_ENOUGH:
                pause = 0.0
            self._log_end(ended, pause)
            pause = self._start_again(pause)
            started = time.monotonic()

    def _start_again(self, pause: float) -> float:
        """Start it after a pause, with longer ones until it starts. Returns the next pause."""
        while not self._stopping.wait(pause):
            pause = min(max(FIRST_PAUSE, 2 * pause), LONGEST_PAUSE)
            try:
                self._start_server()
            except Exception as error:  # whatever it is, the next start may succeed
                self._log_end(str(error), pause)
            else:
                self._outage = None
                break
        return pause

    def _log_end(self, what: str, pause: float) -> None:
        self._outage = Outage.RESTARTING if self._cluster.has_room() else Outage.DISK_FULL
        why = "; the disk is full" if self._outage is Outage.DISK_FULL else ""
        when = f" in {pause:g} seconds" if pause else ""
        logger.error("%s%s; starting it again%s", what, why, when)

    def _wait_for_end(self) -> str:
        """Wait until the server ends; return how it ended."""
        child = self._child
        assert child is not None
        while child.process.poll() is None:
            self._cluster.log.rotate()
            self._ended.wait(0.1)
        child.dismiss_watcher()
        code = child.process.returncode
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return f"PostgreSQL (pid {child.process.pid}) ended {how}"

    def _start_server(self) -> None:
        deadline = time.monotonic() + LEFTOVERS_TIMEOUT
        while True:
            self._cluster.end_leftovers()
            self._cluster.remove_stale_pid_file()
            offset = self._cluster.log.size()
            with self._forking:
                if self._stopping.is_set():
                    return
                child = self._child = _Child(self._cluster, self._command)
            if self._becomes_ready(child) or self._stopping.is_set():
                return
            child.dismiss_watcher()
            logged = self._cluster.log.since(offset)
            # The kernel may need a moment to free the shared memory of a killed server.
            if "is still in use" not in logged or time.monotonic() > deadline:
                raise self._cluster.log.failure("PostgreSQL did not start", offset)
            time.sleep(0.1)

    def _becomes_ready(self, child: "_Child") -> bool:
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while child.process.poll() is None:
            pid = clusters.postmaster_pid(self._cluster.folder)
            if pid == child.process.pid and clusters.is_ready(
                self._cluster.folder, self._socket_dir
            ):
                return True
            if time.monotonic() > deadline:
                child.end(signal.SIGQUIT)
            time.sleep(0.005)
        return False


class _Child:
    """A postmaster that ends when this process ends."""

    def __init__(self, cluster: Cluster, command: Sequence[str]) -> None:
        self._pipe: int | None = None
        if PARENT_DEATH_SIGNAL:
            self.process = self._spawn(cluster, command, subprocess.DEVNULL, _die_with_parent())
            return
        watched, self._pipe = os.pipe()
        try:
            command = ["/bin/sh", "-c", WATCH, "sh", *command]
            self.process = self._spawn(cluster, command, watched, None)
        finally:
            os.close(watched)

    def end(self, first: signal.Signals) -> None:
        """End the server with this signal, or with stronger ones if it does not end."""
        stronger = (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)
        for number in stronger[stronger.index(first) :]:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_TIMEOUT if number is signal.SIGINT else 10)
            except subprocess.TimeoutExpired:
                logger.warning("PostgreSQL does not end on %s", number.name)
            else:
                break

    def dismiss_watcher(self) -> None:
        """End the watcher, because the server has ended."""
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            try:
                os.write(pipe, b"\n")
            except BrokenPipeError:
                pass
            finally:
                os.close(pipe)

    @staticmethod
    def _spawn(
        cluster: Cluster,
        command: Sequence[str],
        stdin: int,
        preexec_fn: Callable[[], None] | None,
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            user=cluster.account.user,
            group=cluster.account.group,
            extra_groups=cluster.account.extra_groups,
            # Ctrl-C in a terminal is sent to the process group; only this process handles it.
            start_new_session=True,
            # Runs after the change of the account, which clears the death signal.
            preexec_fn=preexec_fn,
            cwd="/",
            env=ENVIRONMENT,
            stdin=stdin,
            stdout=cluster.log.fileno(),
            stderr=cluster.log.fileno(),
        )


def _die_with_parent() -> Callable[[], None]:
    # Prepared before the fork, because another thread may hold a lock that the child never gets.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()
    number = int(signal.SIGQUIT)

    def set_death_signal() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before the signal was set
            os._exit(1)

    return set_death_signal
