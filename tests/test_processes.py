"""The first process, which supervises those that serve."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from graph import processes
from graph.processes import Processes, stop_at_signals
from tests.patience import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it has no such signals")

# A process that has run for so long is started again at once; here another one waits much longer.
LONG_ENOUGH, PAUSE = 3.0, 600.0


def note(folder: Path, _: socket.socket, number: int) -> None:
    """Note the start of a process; the first one then fails, and the other one waits."""
    with (folder / str(number)).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")
    if number == 0:
        os._exit(3)
    while True:
        time.sleep(60)


def supervise(folder: Path) -> None:
    """Be the first process."""
    processes.FIRST_PAUSE = processes.LONGEST_PAUSE = PAUSE
    processes.LONG_ENOUGH = LONG_ENOUGH
    stop_at_signals()
    with socket.socket() as listening:
        Processes(2, partial(note, folder), listening).run()


def starts(folder: Path, number: int) -> list[int]:
    """The pids of all starts of a process so far."""
    path = folder / str(number)
    return [int(line) for line in path.read_text("utf-8").split()] if path.exists() else []


@pytest.fixture
def first(tmp_path: Path) -> Iterator[BaseProcess]:
    process = get_context("spawn").Process(target=supervise, args=(tmp_path,))
    process.start()
    yield process
    if process.is_alive():
        process.kill()
    process.join()


def test_one_that_waits_to_be_started_again_delays_no_other(
    first: BaseProcess, tmp_path: Path
) -> None:
    until(lambda: starts(tmp_path, 0) and starts(tmp_path, 1))
    time.sleep(LONG_ENOUGH)
    failed = len(starts(tmp_path, 0))
    for count in (1, 2):
        pids = starts(tmp_path, 1)
        assert len(pids) == count
        os.kill(pids[-1], signal.SIGKILL)
        until(lambda count=count: len(starts(tmp_path, 1)) > count)  # type: ignore[misc]
        time.sleep(LONG_ENOUGH)
    # The one that fails at once still waits, and ends with the others.
    assert len(starts(tmp_path, 0)) == failed
    assert first.pid is not None
    os.kill(first.pid, signal.SIGTERM)
    first.join(10)
    assert first.exitcode == 0
