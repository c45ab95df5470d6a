"""How fast a viewer may go: a bucket of cost that drains with use and fills with time."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from graph.errors import RateLimited

# A bucket that is dropped starts full again, so only who was quiet for longest is forgotten.
MOST_BUCKETS = 10_000


class Rates:
    """The buckets of the viewers of a process."""

    def __init__(
        self, per_second: int, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def left(self, viewer: Hashable) -> int:
        """How much a viewer may use now."""
        return int(self._level(viewer, self._clock()))

    def use(self, viewer: Hashable, cost: int) -> None:
        """Take cost from the viewer's bucket. Raises RateLimited, and takes nothing then."""
        now = self._clock()
        level = self._level(viewer, now)
        if level < cost:
            wait = math.ceil((cost - level) / self.per_second)
            raise RateLimited(
                f"This costs {cost}, and you have {int(level)} left of {self.burst}"
                f" (TROUPE_RATE_BURST), with {self.per_second} more each second"
                f" (TROUPE_RATE_PER_SECOND). Try again in {wait} s.",
                retry_after=wait,
                limit="rate_burst",
                allowed=self.burst,
            )
        self._buckets[viewer] = level - cost, now
        self._buckets.move_to_end(viewer)
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    def _level(self, viewer: Hashable, now: float) -> float:
        level, then = self._buckets.get(viewer, (self.burst, now))
        return min(self.burst, level + (now - then) * self.per_second)
