"""What processes use of the machine, as Linux tells it; elsewhere it is not a number."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")


def memory(pid: int) -> float:
    """The bytes of a process and those it started: what they share counts by its part."""
    try:
        return sum(_proportional(one) for one in _family(pid))
    except OSError:
        return math.nan


def processor(pid: int) -> float:
    """The seconds of processor time that a process and those it started have used so far."""
    try:
        return sum(_used(one) for one in _family(pid))
    except OSError:
        return math.nan


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
    # The name, which stands between parentheses, may have spaces.
    fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    # Its own, and that of those it started which have ended.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
