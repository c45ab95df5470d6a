"""A cache with a limit on the number of its entries and on their size in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

# The bytes that an object counts which Python's garbage collector tracks. It takes about 100, but
# each full collection visits it, which takes 1 to 2 us on a busy machine and delays all requests.
# So 10 MB are at most 10,000 objects, which add up to 20 ms to a pause. Strings and bytes are not
# tracked, and count with their length.
TRACKED = 1_000


class Cache(Generic[Key, Value]):
    """A segmented LRU cache.

    A new entry is on probation; one that is used again becomes protected. Each segment has half of
    the room, so a client that sends new keys all the time cannot evict what others use.
    """

    def __init__(self, max_entries: int, max_size: int, size: Callable[[Value], int]) -> None:
        self._probation = _Segment[Key, Value](max_entries // 2, max_size // 2, size)
        self._protected = _Segment[Key, Value](max_entries // 2, max_size // 2, size)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._probation.values) + len(self._protected.values)

    def get(self, key: Key) -> Value | None:
        """The value of a key; None if there is no entry. It is counted whether there was one."""
        value = self.find(key)
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    def find(self, key: Key) -> Value | None:
        """The same, without counting."""
        value = self._protected.values.get(key)
        if value is not None:
            self._protected.values.move_to_end(key)
            return value
        value = self._probation.pop(key)
        if value is not None:
            # What this evicts from the protected segment goes on probation again.
            for evicted in self._protected.put(key, value):
                self._probation.put(*evicted)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Add an entry, on probation."""
        self._probation.put(key, value)


class _Segment(Generic[Key, Value]):
    """Entries up to a number and a size; the least recently used is evicted first."""

    def __init__(self, max_entries: int, max_size: int, size: Callable[[Value], int]) -> None:
        self.values: OrderedDict[Key, Value] = OrderedDict()
        self.max_entries = max_entries
        self.max_size = max_size
        self.size_of = size
        self.size = 0

    def pop(self, key: Key) -> Value | None:
        value = self.values.pop(key, None)
        if value is not None:
            self.size -= self.size_of(value)
        return value

    def put(self, key: Key, value: Value) -> list[tuple[Key, Value]]:
        """Add an entry, and return those that it evicts. A value above the limit is not added."""
        self.pop(key)
        if self.size_of(value) > self.max_size:
            return []
        self.values[key] = value
        self.size += self.size_of(value)
        evicted = []
        while len(self.values) > self.max_entries or self.size > self.max_size:
            oldest = self.values.popitem(last=False)
            self.size -= self.size_of(oldest[1])
            evicted.append(oldest)
        return evicted
