"""What is kept so as not to be made again, and what makes room for it."""

from __future__ import annotations

from graph.core.cache import Cache


def cache(max_entries: int, max_size: int) -> Cache[int, str]:
    """A store of so many texts, in so many characters."""
    return Cache(max_entries, max_size, len)


def test_so_many_are_kept_and_no_more() -> None:
    store = cache(8, 1000)

    for n in range(100):
        store.put(n, "text")

    assert len(store) == 4
    assert store.get(99) == "text"
    assert store.get(0) is None


def test_so_much_is_kept_and_no_more() -> None:
    store = cache(100, 200)

    for n in range(100):
        store.put(n, "x" * 30)
    store.put(100, "x" * 101)

    assert len(store) == 3
    assert store.get(100) is None
    assert store.get(99) == "x" * 30


def test_what_is_used_again_outlives_whatever_is_sent_once() -> None:
    store = cache(8, 1000)
    for n in range(4):
        store.put(n, "proven")
        assert store.get(n) == "proven"

    for n in range(4, 1000):
        store.put(n, "fresh")

    assert [store.get(n) for n in range(4)] == ["proven"] * 4
    # What is used again later takes the place of the one that was not used for longest.
    store.put(1000, "newcomer")
    store.get(1000)
    for n in range(1001, 2000):
        store.put(n, "fresh")
    assert [store.get(n) is not None for n in (0, 1, 2, 3, 1000)] == [False, *[True] * 4]
