"""The operations of a process, counted.

They are counted in dictionaries, which takes a tenth of the time that the metrics of
`prometheus_client` take. `graph.metrics.exposition` makes metrics of them when they are asked for.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from db.statistics import Durations

OTHER = "other"
"""The name under which operations are counted that are not counted under their own."""

# How many operations are counted under their own names: each is some 20 time series.
MOST_NAMES = 100


class Operations:
    """The operations that have ended, and the requests that were refused."""

    def __init__(self) -> None:
        self.ended: Counter[tuple[str, ...]] = Counter()
        """By kind, name and outcome."""
        self.durations: defaultdict[tuple[str, ...], Durations] = defaultdict(Durations)
        """By kind and name, without subscriptions, which last as long as a client wants."""
        self.limits: Counter[str] = Counter()
        """The operations and requests that a limit has refused, by its setting."""
        self.refused: Counter[tuple[str, ...]] = Counter()
        """The requests that were refused before there was an operation, by transport and code."""
        self._names = {"", OTHER}

    def add(
        self,
        kind: str,
        name: str,
        outcome: str,
        seconds: float,
        limits: Iterable[str] = (),
        *,
        is_known: bool,
    ) -> None:
        """Count an operation. `is_known` is whether a viewer has sent a valid document."""
        if name not in self._names:
            if is_known and len(self._names) < MOST_NAMES + 2:
                self._names.add(name)
            else:
                name = OTHER
        self.ended[kind, name, outcome] += 1
        if kind != "subscription":
            self.durations[kind, name].add(seconds)
        for limit in limits:
            self.limits[limit] += 1

    def refuse(self, transport: str, code: str, limits: Iterable[str] = ()) -> None:
        """Count a request that is refused before there is an operation."""
        self.refused[transport, code] += 1
        for limit in limits:
            self.limits[limit] += 1


operations = Operations()
"""Those of this process."""
