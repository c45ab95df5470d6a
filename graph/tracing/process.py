"""The process that sends the spans of this one: it is started, given records, and stopped."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from graph.tracing.records import Record

log = logging.getLogger("troupe")

# How many bytes of records wait at most for being written. More are dropped.
MOST_BYTES = 8_000_000

# How often they are written, in seconds.
PAUSE_SECONDS = 0.1

# How soon the process is started again if it has ended, in seconds.
RESTART_SECONDS = 5

# How long the process may take until it is ready, in seconds.
START_SECONDS = 20

# How long the process may take to end, in seconds: longer than it takes for the last spans.
STOP_SECONDS = 4

ATTRIBUTES = "OTEL_RESOURCE_ATTRIBUTES"


class CannotStart(Exception):
    """The process has ended before it was ready; the message is the last that it said."""


class ExporterProcess:
    """Passes records to a process that sends their spans."""

    def __init__(self) -> None:
        """Raises CannotStart."""
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = self._dropped = 0
        self._stopping = threading.Event()
        # It stays the same if the process is started again. What the user has set comes later, and
        # so counts.
        given = (f"service.instance.id={uuid.uuid4()}", os.environ.get(ATTRIBUTES))
        code = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
        self._environment = os.environ | {
            ATTRIBUTES: ",".join(filter(None, given)),
            # The same program as this one, also if another version is installed.
            "PYTHONPATH": os.pathsep.join(filter(None, code)),
        }
        self._start()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Have the spans of a record sent. It never raises."""
        try:
            # Bytes, because the garbage collector does not have to look into them.
            line = orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
        except TypeError:
            line = None
        with self._lock:
            if line is None or self._size + len(line) > MOST_BYTES:
                self._dropped += 1
            else:
                self._size += len(line)
                self._lines.append(line)

    def stop(self) -> None:
        """Have the last spans sent, and end the process."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join(1)

    def _start(self) -> None:
        """Start the process, and wait until it is ready. Raises CannotStart."""
        self._process = process = subprocess.Popen(
            # -P: the current folder is no place for imports.
            [sys.executable, "-P", "-m", "graph.tracing.exporter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            # An interrupt from the keyboard is for the server, which then stops this one.
            process_group=0,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        limit = threading.Timer(START_SECONDS, process.kill)
        limit.start()
        with process.stdout as output:
            is_ready = bool(output.readline())
        limit.cancel()
        if is_ready:
            threading.Thread(target=_log, args=[process.stderr], daemon=True).start()
            return
        with process.stderr as errors:
            said = errors.read().decode(errors="replace").strip()
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        raise CannotStart(
            said.rpartition("\n")[2] or f"it was not ready in {START_SECONDS} seconds"
        )

    def _work(self) -> None:
        """Write until this process stops, and start the other one again if it ends."""
        while not self._stopping.is_set():
            try:
                self._write_until_stopped()
            except Exception as error:
                log.warning("The process that sends traces has ended: %s", _reason(error))
            while not self._stopping.wait(RESTART_SECONDS):
                try:
                    self._start()
                    break
                except Exception as error:
                    log.warning("The process that sends traces cannot start: %s", _reason(error))
        with self._lock:
            lost = len(self._lines) + self._dropped
        if lost:
            log.warning("The last %d traces are lost.", lost)

    def _write_until_stopped(self) -> None:
        """Raises an exception if the process has ended, or if it ends."""
        process = self._process
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                while not self._stopping.wait(PAUSE_SECONDS):
                    self._write(pipe)
                self._write(pipe)
        finally:
            process.wait()

    def _write(self, pipe: IO[bytes]) -> None:
        if self._process.poll() is not None:
            raise BrokenPipeError(f"its status is {self._process.returncode}")
        with self._lock:
            lines, dropped = self._lines, self._dropped
            self._lines, self._size, self._dropped = [], 0, 0
        if dropped:
            log.warning("%d traces are lost.", dropped)
        try:
            pipe.writelines(lines)
            pipe.flush()
        except OSError:
            with self._lock:
                self._dropped += len(lines)
            raise


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _log(lines: IO[bytes]) -> None:
    """Log what the process says: it has no log of its own."""
    with lines:
        for line in lines:
            log.warning("traces: %s", line.decode(errors="replace").strip())
