"""Authentication: the viewer of a bearer token."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from db import Database, Viewer, access
from graph.core.errors import HOW_TO_GET_TOKENS, Unauthenticated

# How long the viewer of a token is cached, in seconds. A revoked token must be refused within one
# second, which includes the time to answer the request.
CACHE_SECONDS = 0.5

MOST_TOKENS = 10_000

INVALID = f"This access token is unknown, has expired or was revoked. {HOW_TO_GET_TOKENS}"

# The interval at which the tokens of all open connections are looked up, in seconds. A connection
# must be closed within one second after its token is revoked.
CHECK_SECONDS = 0.5

# How long this may take, in seconds.
CHECK_TIMEOUT = 5


@dataclass(slots=True)
class _Lookup:
    """The lookup of one token, and the number of requests that wait for it."""

    task: asyncio.Task[dict[str, Viewer]]
    began: float
    waiting: int = 0


class Watch:
    """A token that is looked up at intervals, for a connection and its subscriptions."""

    def __init__(self, tokens: Tokens, token: str | None) -> None:
        self.tokens = tokens
        self.hashed = None if token is None else access.hash_token(token)
        self._told: dict[object, Callable[[Viewer | None], None]] = {}

    @contextmanager
    def telling(self, become: Callable[[Viewer | None], None]) -> Iterator[None]:
        """Pass each viewer that is found to a function in the block; None if it is invalid."""
        key = object()
        self._told[key] = become
        try:
            yield
        finally:
            del self._told[key]

    def tell(self, viewer: Viewer | None) -> None:
        """Pass a viewer that was found."""
        for become in list(self._told.values()):
            become(viewer)


class Tokens:
    """The viewers of tokens, cached for a short time by the hashes of the tokens."""

    def __init__(self, database: Database, cache_seconds: float = CACHE_SECONDS) -> None:
        self.database = database
        self.cache_seconds = cache_seconds
        self._cache: OrderedDict[str, tuple[float, Viewer]] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._watched: set[Watch] = set()
        self._checking: asyncio.Task[None] | None = None
        self.checked = 0.0
        """When all tokens that are watched were last looked up."""

    def cached(self, token: str) -> Viewer | None:
        """The viewer of a token, if it is in the cache."""
        then, viewer = self._cache.get(access.hash_token(token), (0.0, None))
        return viewer if then + self.cache_seconds > time.monotonic() else None

    async def viewer(self, token: str) -> Viewer:
        """The viewer of a token. Raises Unauthenticated if the token is not valid."""
        viewer = self.cached(token) or await self._share_lookup(access.hash_token(token))
        if viewer is None:
            raise Unauthenticated(INVALID)
        return viewer

    async def _share_lookup(self, hashed: str) -> Viewer | None:
        """Look up a token once for all requests that wait; cancel it after the last one left."""
        lookup, now = self._lookups.get(hashed), time.monotonic()
        # A slow lookup may return a viewer whose token was revoked before a later request came.
        if lookup is None or lookup.began + CACHE_SECONDS <= now:
            task = asyncio.create_task(self.look_up([hashed]))
            lookup = self._lookups[hashed] = _Lookup(task, now)
        lookup.waiting += 1
        try:
            return (await asyncio.shield(lookup.task)).get(hashed)
        finally:
            lookup.waiting -= 1
            if not lookup.waiting:
                lookup.task.cancel()
                if self._lookups.get(hashed) is lookup:
                    del self._lookups[hashed]

    async def look_up(self, hashes: Collection[str]) -> dict[str, Viewer]:
        """Look up tokens by their hashes with one statement; the viewers of the valid ones."""
        # The time before the statement: a token may be revoked while its result is on the way.
        now = time.monotonic()
        found = await access.bearers(self.database, hashes)
        for hashed in hashes:
            self._cache.pop(hashed, None)
        self._cache.update((hashed, (now, viewer)) for hashed, viewer in found.items())
        while len(self._cache) > MOST_TOKENS:
            self._cache.popitem(last=False)
        return found

    @contextmanager
    def watched(self, token: str | None) -> Iterator[Watch]:
        """Look a token up at intervals in the block, if there is one.

        All tokens are looked up by one statement.
        """
        watch = Watch(self, token)
        if watch.hashed is None:
            yield watch
            return
        if not self._watched:
            self.checked = time.monotonic()
        self._watched.add(watch)
        if self._checking is None:
            # In an empty context, because the task outlives this request.
            self._checking = asyncio.create_task(self._check(), context=contextvars.Context())
        try:
            yield watch
        finally:
            self._watched.discard(watch)

    async def check(self) -> None:
        """Look up all tokens that are watched."""
        watched, now = [(watch, watch.hashed) for watch in self._watched], time.monotonic()
        viewers = await self.look_up({hashed for _, hashed in watched if hashed is not None})
        self.checked = max(self.checked, now)
        for watch, hashed in watched:
            watch.tell(viewers.get(hashed or ""))

    async def _check(self) -> None:
        try:
            while self._watched:
                await asyncio.sleep(CHECK_SECONDS)
                # If the lookup fails, each operation looks its token up again, and no messages are
                # shared.
                with suppress(Exception):
                    async with asyncio.timeout(CHECK_TIMEOUT):
                        await self.check()
        finally:
            self._checking = None


def bearer_token(authorization: str | None) -> str | None:
    """The token in an `Authorization` header (RFC 6750); None if there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
