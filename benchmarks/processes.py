"""Memory and processor time of processes on Linux; elsewhere not a number (NaN)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def memory(pid: int) -> float:
    """The memory of a process and its children in bytes: their proportional set size (PSS)."""
    try:
        return sum(_proportional(one) for one in _family(pid))
    except OSError:
        return math.nan


def processor(pid: int) -> float:
    """The processor time that a process and its children have used so far, in seconds."""
    try:
        return sum(_used(one) for one in _family(pid))
    except OSError:
        return math.nan


def first_thread(pid: int) -> float:
    """The processor time that the first thread of a process has used so far, in seconds."""
    try:
        used = (PROC / str(pid) / "task" / str(pid) / "schedstat").read_text(encoding="utf-8")
    except OSError:
        return math.nan
    return int(used.split()[0]) / 1e9


def _family(pid: int) -> Iterator[int]:
    yield pid
    for thread in (PROC / str(pid) / "task").iterdir():
        for child in (thread / "children").read_text(encoding="utf-8").split():
            yield from _family(int(child))


def _proportional(pid: int) -> int:
    for line in (PROC / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _used(pid: int) -> float:
    # The name, in parentheses, can have spaces.
    fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    # Its own time, and that of its children that have ended.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
