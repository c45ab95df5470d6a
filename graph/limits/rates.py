"""How fast a client may go: a bucket that drains with use and fills with time."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from graph.core.errors import RateLimited

# A bucket that is dropped starts full again, so only who was quiet for longest is forgotten.
MOST_BUCKETS = 10_000

# After how many seconds all wrong passwords are forgotten.
FORGOTTEN = 15 * 60


class Buckets:
    """A bucket for each client (token buckets)."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def left(self, whose: Hashable) -> int:
        """How much is in a bucket now."""
        return int(self._level(whose, self._clock()))

    def wait(self, whose: Hashable, amount: int) -> int:
        """After how many seconds so much can be taken; none if it can be now."""
        missing = amount - self._level(whose, self._clock())
        return max(0, math.ceil(missing / self.per_second))

    def take(self, whose: Hashable, amount: int) -> None:
        """Take so much out of a bucket, or put it back by a negative amount.

        Work that was done already may cost more than there is: the level is below zero then.
        """
        now = self._clock()
        self._put(whose, self._level(whose, now) - amount, now)

    def _put(self, whose: Hashable, level: float, now: float) -> None:
        self._buckets[whose] = level, now
        self._buckets.move_to_end(whose)
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    def _level(self, whose: Hashable, now: float) -> float:
        level, then = self._buckets.get(whose, (self.burst, now))
        return min(self.burst, level + (now - then) * self.per_second)


class Rates(Buckets):
    """The cost that each client of a process may still use."""

    def charge(self, client: Hashable, cost: int) -> None:
        """Take a cost out of a client's bucket. Raises RateLimited, and takes nothing then."""
        self._take_above(client, cost, cost)

    def overdraw(self, client: Hashable, cost: int, *, overdrawn: int = 0) -> None:
        """Take a cost even if the bucket has less: the client waits before its next operation.

        Raises RateLimited if the bucket was below zero already, apart from what this operation
        has `overdrawn`, and takes nothing then.
        """
        self._take_above(client, cost, -overdrawn)

    def _take_above(self, client: Hashable, cost: int, least: int) -> None:
        """Take a cost out of a bucket that has at least so much. Raises RateLimited."""
        now = self._clock()
        level = self._level(client, now)
        if level < least:
            wait = self.wait(client, least)
            raise RateLimited(
                f"This costs {cost}, and you have {int(level)} left of {self.burst}"
                f" (TROUPE_RATE_BURST), with {self.per_second} more each second"
                f" (TROUPE_RATE_PER_SECOND). Try again in {wait} s.",
                retry_after=wait,
                limit="rate_burst",
                allowed=self.burst,
            )
        self._put(client, level - cost, now)


class Guesses:
    """How often a password may be guessed: for an account, and from an address.

    An account without a user has its bucket too, so that nobody learns from it who there is.
    """

    def __init__(
        self, per_account: int, per_address: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = {
            setting: Buckets(burst / FORGOTTEN, burst, clock)
            for setting, burst in (
                ("login_failures_per_account", per_account),
                ("login_failures_per_address", per_address),
            )
        }

    def guess(self, account: Hashable, address: Hashable) -> Callable[[], None]:
        """Count a guess, before it is looked at; what is returned takes that back: it was right.

        Raises RateLimited, and counts nothing then.
        """
        whose = dict(zip(self._buckets, (account, address), strict=True))
        for setting, buckets in self._buckets.items():
            if wait := buckets.wait(whose[setting], 1):
                of = setting.rpartition("_")[2]
                raise RateLimited(
                    f"Too many wrong passwords for this {of}: {buckets.burst} may be given at once"
                    f" (TROUPE_{setting.upper()}), and as many more in {FORGOTTEN // 60} minutes."
                    f" Try again in {wait} s.",
                    retry_after=wait,
                    limit=setting,
                    allowed=buckets.burst,
                )
        for setting, buckets in self._buckets.items():
            buckets.take(whose[setting], 1)

        def take_back() -> None:
            for setting, buckets in self._buckets.items():
                buckets.take(whose[setting], -1)

        return take_back
