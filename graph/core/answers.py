"""The answer of one operation while resolvers make it: how large it is, and who else has to wait.

A statement of the planner has its own limit of bytes, and takes none of this process's time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from db.text import StoredJSON
from graph.core.access import Deadline
from graph.core.errors import AnswerTooLarge

# For how long values are completed before others have a turn, in seconds.
TURN = 0.01

# How long a number, a yes or no, or null is with what stands around it.
SHORT = 8


class Answer:
    """The size of an answer in bytes, about, and the time that is spent on it at once."""

    def __init__(self, deadline: Deadline, most: int) -> None:
        self._deadline = deadline
        self._most = most
        self._size = 0
        self._since = time.monotonic()

    def add(self, value: Any) -> None:
        """Count a value of a scalar or an enum. Raises AnswerTooLarge."""
        if type(value) is str:
            self.grow(_bytes(value))
        elif isinstance(value, StoredJSON):
            self.grow(_bytes(value.text))
        else:
            self.grow(SHORT)

    def grow(self, size: int) -> None:
        """Count so many bytes. Raises AnswerTooLarge."""
        self._size += size
        self._check_size()

    def check(self) -> None:
        """Raise AnswerTooLarge, or OutOfTime, if nothing more is to be done for the answer."""
        self._check_size()
        self._deadline.left()

    def _check_size(self) -> None:
        if self._size > self._most:
            raise AnswerTooLarge(self._most)

    async def rest(self) -> None:
        """Let others have a turn, if this has lasted for long. Raises what `check` does."""
        if time.monotonic() - self._since > TURN:
            self.check()
            await asyncio.sleep(0)
            self._since = time.monotonic()


def _bytes(text: str | bytes) -> int:
    """How many bytes a text takes in UTF-8; escapes of JSON are not counted."""
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
