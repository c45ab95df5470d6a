"""Who asks: from a bearer token to a viewer."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from db import Database, Viewer, access
from graph.core.errors import Unauthenticated

# For how many seconds a token is believed after it was looked up. Within one second a revoked
# token has to open nothing any more, and what it has just been let in for takes some time as well.
FRESH = 0.5

# More bearers than that do not come within that time.
MOST_TOKENS = 10_000


@dataclass(slots=True)
class _Look:
    """A token that is being looked up, and how many wait for it."""

    task: asyncio.Task[dict[str, Viewer]]
    began: float
    waiting: int = 0


class Tokens:
    """The tokens that were looked up a moment ago, under their hashes, and whom they name."""

    def __init__(self, database: Database, fresh: float = FRESH) -> None:
        self.database = database
        self.fresh = fresh
        self._known: OrderedDict[str, tuple[float, Viewer]] = OrderedDict()
        self._looks: dict[str, _Look] = {}

    def known(self, token: str) -> Viewer | None:
        """The viewer whom a token named when it was looked up a moment ago, if it was."""
        then, viewer = self._known.get(access.hash_token(token), (0.0, None))
        return viewer if then + self.fresh > time.monotonic() else None

    async def viewer(self, token: str) -> Viewer:
        """The viewer whom a token names. Raises Unauthenticated if it opens nothing (any more)."""
        viewer = self.known(token) or await self._looked_up(access.hash_token(token))
        if viewer is None:
            raise Unauthenticated("This access token is unknown, has expired or was revoked.")
        return viewer

    async def _looked_up(self, hashed: str) -> Viewer | None:
        """Look up a token once for all who ask at the same time, until the last of them leaves."""
        look, now = self._looks.get(hashed), time.monotonic()
        # What one that takes long will say may be over before somebody asks who comes later.
        if look is None or look.began + FRESH <= now:
            look = self._looks[hashed] = _Look(asyncio.create_task(self.look_up([hashed])), now)
        look.waiting += 1
        try:
            return (await asyncio.shield(look.task)).get(hashed)
        finally:
            look.waiting -= 1
            if not look.waiting:
                look.task.cancel()
                if self._looks.get(hashed) is look:
                    del self._looks[hashed]

    async def look_up(self, hashes: Collection[str]) -> dict[str, Viewer]:
        """Look up tokens by their hashes, with one statement: those that open something."""
        # From before the statement was sent: what it finds may be over when its answer arrives.
        now = time.monotonic()
        async with self.database.read() as session:
            found = await access.bearers(session, hashes)
        for hashed in hashes:
            self._known.pop(hashed, None)
        self._known.update((hashed, (now, viewer)) for hashed, viewer in found.items())
        while len(self._known) > MOST_TOKENS:
            self._known.popitem(last=False)
        return found


def bearer_token(authorization: str | None) -> str | None:
    """The token of an `Authorization` header (RFC 6750), none without one."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None
