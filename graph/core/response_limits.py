"""Limits of the response that resolvers build: its size, and how long it blocks the event loop.

A compiled statement has a limit of bytes of its own, and does not block the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any

from db.text import StoredJSON
from graph.core.access import Deadline
from graph.core.errors import AnswerTooLarge

# How long values are completed before other requests continue, in seconds.
MAX_SLICE = 0.01

# About the bytes of a number, a boolean or null, with its separators.
SHORT = 8

# What JSON has around each response name: quotes, a colon and a comma.
NAME_BYTES = 4


class ResponseLimits:
    """The approximate size of a response in bytes, and the current time slice of its execution."""

    def __init__(self, deadline: Deadline, max_bytes: int) -> None:
        self._deadline = deadline
        self._max_bytes = max_bytes
        self._size = 0
        self._since = time.monotonic()

    def add_object(self, names: Collection[str]) -> None:
        """Count the response names of an object. Raises what `check` raises."""
        self._size += sum(map(len, names)) + NAME_BYTES * len(names)
        self.check()

    def add_value(self, value: Any) -> None:
        """Count a value of a scalar or an enum. Raises AnswerTooLarge."""
        if type(value) is str:
            self.add_bytes(len(value) if value.isascii() else len(value.encode()))
        elif isinstance(value, StoredJSON):
            self.add_bytes(_bytes(value.text))
        else:
            self.add_bytes(SHORT)

    def add_bytes(self, size: int) -> None:
        """Count so many bytes. Raises AnswerTooLarge."""
        self._size += size
        if self._size > self._max_bytes:
            raise AnswerTooLarge(self._max_bytes)

    def check(self) -> None:
        """Raise AnswerTooLarge or DeadlineExceeded if a limit is exceeded."""
        self.add_bytes(0)
        self._deadline.left()

    def begin_slice(self) -> None:
        """Begin a new time slice, because the event loop has just run other tasks."""
        self._since = time.monotonic()

    @property
    def is_slice_over(self) -> bool:
        """Whether the event loop should run other tasks now."""
        return time.monotonic() - self._since > MAX_SLICE

    async def pause(self) -> None:
        """Let the event loop run other tasks if the slice is over. Raises what `check` raises."""
        while self.is_slice_over:
            self.check()
            since = self._since
            await asyncio.sleep(0)
            if self._since == since:  # the first task to continue begins the slice for all
                self.begin_slice()
                return


def _bytes(text: str | bytes) -> int:
    """The length of a text in UTF-8, without escapes of JSON."""
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
