"""Sends a message to the address of a webhook, and keeps what it answers."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpcore

from db.webhook_queues import MOST_CHARACTERS
from db.webhooks import url_problem
from graph.delivery.addresses import PublicNetwork, Resolve, Unreachable

# How long an attempt may take, in seconds, from resolving the name to the end of the response.
SECONDS = 10

USER_AGENT = "Troupe-Webhooks"


@dataclass
class Attempt:
    """What became of an attempt to send a message."""

    started_at: datetime
    milliseconds: int = 0
    status: int | None = None
    body: str | None = None
    error: str | None = None

    @property
    def has_succeeded(self) -> bool:
        """Whether the receiver has accepted the message."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver wants no further messages."""
        return self.status == 410

    def as_json(self) -> dict[str, Any]:
        """The attempt as it is stored."""
        return {
            "at": self.started_at.isoformat(),
            "milliseconds": self.milliseconds,
            "status": self.status,
            "body": self.body,
            "error": self.error,
        }


class Sender:
    """An HTTP client, which keeps connections open. It follows no redirects."""

    def __init__(
        self, networks: Iterable[str] = (), *, allows_http: bool, resolve: Resolve | None = None
    ) -> None:
        """It connects to public addresses, and to those of these networks."""
        self._network = PublicNetwork(networks, resolve)
        self._allows_http = allows_http

    @cached_property
    def _pool(self) -> httpcore.AsyncConnectionPool:
        # Made when it is used: reading the certificates takes some time.
        context = ssl.create_default_context()
        context.load_verify_locations(certifi.where())
        return httpcore.AsyncConnectionPool(
            ssl_context=context,
            max_connections=100,
            keepalive_expiry=30,
            network_backend=self._network,
        )

    async def close(self) -> None:
        """Close all connections."""
        if "_pool" in vars(self):
            await self._pool.aclose()

    async def post(self, url: str, headers: Mapping[str, str], content: bytes) -> Attempt:
        """Post a message, and say what became of it."""
        attempt, began = Attempt(datetime.now(UTC)), time.monotonic()
        try:
            # The settings may be stricter than they were when the address was stored.
            problem = url_problem(url, allows_http=self._allows_http)
            if problem is not None:
                raise Unreachable(problem)
            async with asyncio.timeout(SECONDS):
                await self._post(attempt, url, headers, content)
        except Exception as error:
            if attempt.status is None:  # what comes after it does not matter
                attempt.error = _sentence(error)
        attempt.milliseconds = round((time.monotonic() - began) * 1000)
        return attempt

    async def _post(
        self, attempt: Attempt, url: str, headers: Mapping[str, str], content: bytes
    ) -> None:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = httpcore.URL(
            scheme=parts.scheme.encode(),
            host=(parts.hostname or "").encode(),
            port=parts.port,
            target=target.encode(),
        )
        all_headers = {
            "host": parts.netloc,
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": USER_AGENT,
            **headers,
        }
        limits = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)}
        async with self._pool.stream(
            "POST", sent, headers=list(all_headers.items()), content=content, extensions=limits
        ) as response:
            attempt.status, attempt.body = response.status, ""
            found = b""
            async for part in response.aiter_stream():
                found = (found + part)[:MOST_CHARACTERS]
                attempt.body = _readable(found)
                if len(found) == MOST_CHARACTERS:
                    break


def _readable(text: bytes) -> str:
    """A text without characters that cannot be stored, or that could change how it is shown."""
    letters = text.decode(errors="replace")
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in letters)


def _sentence(error: Exception) -> str:
    """Why there was no response."""
    if isinstance(error, Unreachable):
        return str(error)
    if isinstance(error, TimeoutError | httpcore.TimeoutException):
        return f"There was no response within {SECONDS} seconds."
    if isinstance(error, httpcore.ConnectError):
        return f"No connection could be opened: {_readable(str(error).encode())[:200]}."
    kind = type(error).__name__
    return f"The connection failed ({kind}): {_readable(str(error).encode())[:200]}."
