"""What a process keeps so as not to make it again, up to a number and a size in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# What an object counts that Python's garbage collector tracks, in bytes. It takes about 100, but
# each full collection visits it, for 1 to 2 us on a busy machine, and nobody is answered meanwhile.
# So 10 MB are 10,000 of them at most, which add up to 20 ms to a pause. Texts and bytes are not
# tracked, and count as they are.
TRACKED = 1_000


class Kept(Generic[Key, Value]):
    """Values under their keys; those that are of no use make room for others.

    One that is used again is proven, and stays before all that were put in only once, however many
    come of these: half the room is only for the proven. So nobody who sends ever new things can
    displace what others use.
    """

    def __init__(self, most: int, most_size: int, size: Callable[[Value], int]) -> None:
        self._fresh = _Shelf[Key, Value](most // 2, most_size // 2, size)
        self._proven = _Shelf[Key, Value](most // 2, most_size // 2, size)

    def __len__(self) -> int:
        return len(self._fresh.values) + len(self._proven.values)

    def get(self, key: Key) -> Value | None:
        """The value under a key, if it is kept."""
        found = self._proven.values.get(key)
        if found is not None:
            self._proven.values.move_to_end(key)
            return found
        found = self._fresh.take(key)
        if found is not None:
            # Those that have no place among the proven any more get another chance.
            for displaced in self._proven.put(key, found):
                self._fresh.put(*displaced)
        return found

    def put(self, key: Key, value: Value) -> None:
        """Keep a value; it is fresh."""
        self._fresh.put(key, value)


class _Shelf(Generic[Key, Value]):
    """Values up to a number and a size; those that were put or used first are displaced first."""

    def __init__(self, most: int, most_size: int, size: Callable[[Value], int]) -> None:
        self.values: OrderedDict[Key, Value] = OrderedDict()
        self.most = most
        self.most_size = most_size
        self.size_of = size
        self.size = 0

    def take(self, key: Key) -> Value | None:
        found = self.values.pop(key, None)
        if found is not None:
            self.size -= self.size_of(found)
        return found

    def put(self, key: Key, value: Value) -> list[tuple[Key, Value]]:
        """Put a value in; those that it displaces. One that fills the shelf is left out."""
        self.take(key)
        if self.size_of(value) > self.most_size:
            return []
        self.values[key] = value
        self.size += self.size_of(value)
        displaced = []
        while len(self.values) > self.most or self.size > self.most_size:
            oldest = self.values.popitem(last=False)
            self.size -= self.size_of(oldest[1])
            displaced.append(oldest)
        return displaced
