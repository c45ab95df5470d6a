"""The process that sends the spans of this one: it is started, given records, and stopped."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from graph.tracing.records import Record

log = logging.getLogger("troupe")

PROGRAM = Path(__file__).with_name("exporter.py")

# How many bytes of records wait at most for being written. More are dropped.
MOST_BYTES = 8_000_000

# How often they are written, in seconds.
PAUSE_SECONDS = 0.1

# How soon the process is started again if it has ended, in seconds.
RESTART_SECONDS = 5

# How long the process may take to end, in seconds: longer than it takes for the last spans.
STOP_SECONDS = 4


class ExporterProcess:
    """Passes records to a process that sends their spans."""

    def __init__(self) -> None:
        """It is started by a thread, which writes to it."""
        self._lock = threading.Lock()
        self._lines: list[bytes] = []
        self._size = self._dropped = 0
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Have the spans of a record sent.

        It is kept as a line, of which Python's garbage collector knows nothing.
        """
        line = encoded(record)
        with self._lock:
            if self._size + len(line) > MOST_BYTES:
                self._dropped += 1
            else:
                self._size += len(line)
                self._lines.append(line)

    def stop(self) -> None:
        """Have the last spans sent, and end the process."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() and self._process is not None:
            self._process.kill()

    def _work(self) -> None:
        while True:
            try:
                self._run()
            except OSError as error:
                log.warning("The process that sends traces is started again: %s", error.strerror)
                if not self._stopping.wait(RESTART_SECONDS):
                    continue
            return

    def _run(self) -> None:
        """Start the process, and write to it until this one stops. Raises OSError if it ends."""
        self._process = process = subprocess.Popen(
            # -P: the folder of the program is no place for imports.
            [sys.executable, "-P", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            # An interrupt from the keyboard is for the server, which then stops this one.
            start_new_session=True,
        )
        assert process.stdin is not None
        threading.Thread(target=_log, args=[process.stderr], daemon=True).start()
        try:
            with process.stdin as pipe:
                while not self._stopping.wait(PAUSE_SECONDS):
                    self._write(pipe)
                self._write(pipe)
        finally:
            process.wait()

    def _write(self, pipe: Any) -> None:
        with self._lock:
            lines, dropped = self._lines, self._dropped
            self._lines, self._size, self._dropped = [], 0, 0
        if dropped:
            log.warning("%d traces are lost: there are more than can be sent.", dropped)
        pipe.writelines(lines)
        pipe.flush()


def encoded(record: Record) -> bytes:
    """A record as a line. Its statements are tuples with names."""
    return orjson.dumps(record, default=tuple, option=orjson.OPT_APPEND_NEWLINE)


def _log(lines: Any) -> None:
    """Log what the process says: it has no log of its own."""
    with lines:
        for line in lines:
            log.warning("traces: %s", line.decode(errors="replace").strip())
