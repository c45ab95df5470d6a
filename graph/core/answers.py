"""The answer of one operation while resolvers make it: how large it is, and who else has to wait.

A statement of the compiler has its own limit of bytes, and takes none of this process's time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from db.text import StoredJSON
from graph.core.access import Deadline
from graph.core.errors import AnswerTooLarge

# For how long values are completed before others have a turn, in seconds.
TURN = 0.01

# How long a number, a yes or no, or null is with what stands around it.
SHORT = 8


@dataclass(frozen=True, slots=True)
class Encoded:
    """A value that is JSON already, for each response name that shows it."""

    texts: Mapping[str, bytes]


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

    def begin_turn(self) -> None:
        """Count the time from now, because others have just had a turn."""
        self._since = time.monotonic()

    @property
    def is_turn_over(self) -> bool:
        """Whether others are to have a turn before more is done."""
        return time.monotonic() - self._since > TURN

    async def rest(self) -> None:
        """Let others have a turn, if this has lasted for long. Raises what `check` does."""
        while self.is_turn_over:
            self.check()
            since = self._since
            await asyncio.sleep(0)
            if self._since == since:  # the first to come back begins the next turn for all
                self.begin_turn()
                return


def _bytes(text: str | bytes) -> int:
    """How many bytes a text takes in UTF-8; escapes of JSON are not counted."""
    return len(text) if isinstance(text, bytes) or text.isascii() else len(text.encode())
