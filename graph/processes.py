"""Several processes that serve on one port, and the first process, which supervises them.

They accept connections from the same socket, so no connection is lost while one of them is started
again. The first process has the embedded database, and serves nothing itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess

log = logging.getLogger("troupe")

# The pause before a process is started again, in seconds. It doubles each time that it ends soon
# after its start, up to LONGEST_PAUSE. There is none after it has run for LONG_ENOUGH.
FIRST_PAUSE, LONGEST_PAUSE, LONG_ENOUGH = 0.5, 30.0, 10.0

# A new interpreter, because the first process has threads.
_context = multiprocessing.get_context("spawn")

Serve = Callable[[socket.socket, int], None]
"""Serves on a socket until a signal to stop. It gets the number of the process, from 0."""


@dataclass
class _Child:
    """One of the processes."""

    number: int
    process: SpawnProcess
    started: float
    pause: float = 0.0
    """The pause before it is started the next time; after that, the last one."""
    again_at: float | None = None
    """When it is started again; None while it runs."""


class Processes:
    """The processes of a server."""

    def __init__(self, count: int, serve: Serve, listening: socket.socket) -> None:
        """`serve` is picklable."""
        self._serve = serve
        self._listening = listening
        self._children = [self._start(number) for number in range(count)]

    def run(self) -> None:
        """Start again what ends, until a signal to stop; then stop all. A second one hurries."""
        try:
            self._supervise()
        except KeyboardInterrupt:
            self._send(signal.SIGTERM)
        while any(child.process.is_alive() for child in self._children):
            try:
                for child in self._children:
                    child.process.join()
            except KeyboardInterrupt:
                self._send(signal.SIGINT)

    def _supervise(self) -> None:
        while True:
            times = [child.again_at for child in self._children if child.again_at is not None]
            longest = max(0.0, min(times) - time.monotonic()) if times else None
            running = [child for child in self._children if child.again_at is None]
            ended = wait([child.process.sentinel for child in running], longest)
            for child in running:
                if child.process.sentinel in ended:
                    self._plan(child)
            for place, child in enumerate(self._children):
                if child.again_at is not None and child.again_at <= time.monotonic():
                    self._children[place] = self._start(child.number, child.pause)

    def _plan(self, child: _Child) -> None:
        """Decide when a process that has ended is started again."""
        child.process.join()
        code = child.process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        now = time.monotonic()
        is_long = now - child.started > LONG_ENOUGH
        child.pause = 0.0 if is_long else min(max(FIRST_PAUSE, 2 * child.pause), LONGEST_PAUSE)
        child.again_at = now + child.pause
        when = f" in {child.pause:g} seconds" if child.pause else ""
        pid = child.process.pid
        log.error("process %s ended %s; starting another one%s", pid, how, when)

    def _start(self, number: int, pause: float = 0.0) -> _Child:
        arguments = self._serve, self._listening, number
        # As a daemon, it is stopped in any case when the first process ends.
        name = f"troupe-{number}"
        process = _context.Process(target=_run, args=arguments, name=name, daemon=True)
        process.start()
        return _Child(number, process, time.monotonic(), pause)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.process.pid is not None and child.process.is_alive():
                with suppress(ProcessLookupError):
                    os.kill(child.process.pid, number)


def _run(serve: Serve, listening: socket.socket, number: int) -> None:
    """Serve as one of the processes."""
    # Ctrl-C is for the first process, which then stops all others.
    os.setpgid(0, 0)
    with suppress(KeyboardInterrupt):
        stop_at_signals()
        threading.Thread(target=_stop_with_parent, daemon=True).start()
        serve(listening, number)


def _stop_with_parent() -> None:
    """Stop when the first process is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def stop_at_signals() -> None:
    """Make signals also stop this process cleanly before and after uvicorn handles them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup
            # The same as Ctrl-C, which asyncio and uvicorn handle. An exception raised here could
            # occur in a destructor, where Python ignores it.
            signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
