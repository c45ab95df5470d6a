"""Rate limits, by token buckets: use drains a bucket, and time fills it."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

from graph.core.errors import RateLimited

# Beyond this number, the bucket that was used least recently is removed; a new one starts full.
MOST_BUCKETS = 10_000

# The time after which the bucket of an account is full again, in seconds.
REFILL_SECONDS = 15 * 60


class Buckets:
    """A token bucket for each key."""

    def __init__(
        self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.per_second = per_second
        self.burst = burst
        self._clock = clock
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def left(self, key: Hashable) -> int:
        """The level of a bucket."""
        return int(self._level(key, self._clock()))

    def wait(self, key: Hashable, amount: int) -> int:
        """The time in seconds until a bucket has this amount; 0 if it has."""
        missing = amount - self._level(key, self._clock())
        return max(0, math.ceil(missing / self.per_second))

    def take(self, key: Hashable, amount: int) -> None:
        """Take an amount from a bucket, or return it with a negative amount.

        The level can fall below zero, because the work is already done.
        """
        now = self._clock()
        self._put(key, self._level(key, now) - amount, now)

    def _put(self, key: Hashable, level: float, now: float) -> None:
        self._buckets[key] = level, now
        self._buckets.move_to_end(key)
        while len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)

    def _level(self, key: Hashable, now: float) -> float:
        level, then = self._buckets.get(key, (self.burst, now))
        return min(self.burst, level + (now - then) * self.per_second)


class Rates(Buckets):
    """The cost that each client may still use."""

    def charge(self, client: Hashable, cost: int) -> None:
        """Take a cost from the bucket of a client. Raises RateLimited if it has less."""
        self._take_above(client, cost, cost)

    def overdraw(self, client: Hashable, cost: int, *, overdrawn: int = 0) -> None:
        """Take a cost even if the bucket has less: the client waits before its next operation.

        Raises RateLimited if the bucket was below zero before this operation, which may itself have
        `overdrawn` it.
        """
        self._take_above(client, cost, -overdrawn)

    def _take_above(self, client: Hashable, cost: int, least: int) -> None:
        """Take a cost from a bucket whose level is at least `least`. Raises RateLimited."""
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


class PasswordAttempts:
    """The limits of password attempts for an account and from an address.

    Unknown accounts have buckets too, so that the limit does not reveal which accounts exist.
    """

    def __init__(
        self, per_account: int, per_address: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._buckets = {
            setting: Buckets(burst / REFILL_SECONDS, burst, clock)
            for setting, burst in (
                ("login_failures_per_account", per_account),
                ("login_failures_per_address", per_address),
            )
        }

    def count(self, account: Hashable, address: Hashable) -> Callable[[], None]:
        """Count an attempt before the password is checked. Raises RateLimited.

        The caller calls the returned function after a correct password, which does not count.
        """
        keys = dict(zip(self._buckets, (account, address), strict=True))
        for setting, buckets in self._buckets.items():
            if wait := buckets.wait(keys[setting], 1):
                kind = setting.rpartition("_")[2]
                raise RateLimited(
                    f"Too many wrong passwords for this {kind}: {buckets.burst} may be given at"
                    f" once (TROUPE_{setting.upper()}), and as many more in"
                    f" {REFILL_SECONDS // 60} minutes. Try again in {wait} s.",
                    retry_after=wait,
                    limit=setting,
                    allowed=buckets.burst,
                )
        for setting, buckets in self._buckets.items():
            buckets.take(keys[setting], 1)

        def undo() -> None:
            for setting, buckets in self._buckets.items():
                buckets.take(keys[setting], -1)

        return undo
