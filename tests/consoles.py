"""The console over the data of the demo, for the tests of its pages."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.async_api import Browser, Page, WebSocketRoute

import db
from db import access
from graph.app import create_app
from graph.serve import listen
from graph.server import pages
from graph.settings import Settings
from tests.browsers import missing, opened
from tests.client import Client
from tests.patience import PATIENCE

AXE = pages.HERE / "console" / "node_modules" / "axe-core" / "axe.min.js"

NARROW = {"width": 390, "height": 844}
WIDE = {"width": 1280, "height": 800}
LOOKS = [
    pytest.param({"viewport": size, "color_scheme": scheme}, id=f"{scheme} {size['width']}")
    for size in (WIDE, NARROW)
    for scheme in ("light", "dark")
]
"""How a page is looked at: options of a browser's context."""

# What axe says of the page, as one line for each element that has a serious fault.
FAULTS = """async () => {
  const { violations } = await axe.run(document);
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map(({ target }) => `${id}: ${target.join(" ")}`));
}"""

# A page reads without its subscription if that takes longer than this (PATIENCE in live.ts).
UNHURRIED = """((set) => {
  window.setTimeout = (run, after, ...rest) => set(run, after === 1500 ? %d : after, ...rest);
})(window.setTimeout)"""

FITS = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"


@dataclass(frozen=True)
class Console:
    """A server of the console, and its administrator."""

    url: str
    api: Client
    database: db.Database

    @asynccontextmanager
    async def opened(
        self, browser: Browser, path: str = "/", **options: Any
    ) -> AsyncIterator[Page]:
        """A page of the console, for its administrator."""
        async with opened(browser, f"{self.url}/#token={self.api.token}", **options) as page:
            await go(page, path)
            yield page


class Relay:
    """Stands between a page and its WebSocket, and holds back or refuses what it subscribes to."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """The names of the subscriptions that the page began."""
        self.held: set[str] = set()
        self.refused: set[str] = set()
        self.socket: WebSocketRoute | None = None
        self._waiting: list[Callable[[], None]] = []

    async def follow(self, page: Page) -> None:
        """Stand before a page that is not loaded yet."""
        await page.route_web_socket(re.compile("/graphql$"), self._connect)

    def release(self) -> None:
        """Let what is held back begin."""
        self.held.clear()
        for send in self._waiting:
            send()

    async def close(self, code: int) -> None:
        """Close the connection, as the server does."""
        assert self.socket is not None
        await self.socket.close(code=code)

    def _connect(self, socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        self.socket = socket

        def pass_on(message: str | bytes) -> None:
            sent = json.loads(message)
            found = re.match(r"subscription (\w+)", sent.get("payload", {}).get("query", ""))
            name = found[1] if found else ""
            if name:
                self.names.append(name)
            if name in self.refused:
                errors = [{"message": "Too many.", "extensions": {"code": "RATE_LIMITED"}}]
                socket.send(json.dumps({"id": sent["id"], "type": "error", "payload": errors}))
            elif name in self.held:
                self._waiting.append(lambda: server.send(message))
            else:
                server.send(message)

        socket.on_message(pass_on)


@pytest.fixture
async def console(database: db.Database, admin: db.User) -> AsyncIterator[Console]:
    """The console over the example data of `troupe demo`, in which no agent works."""
    async with serving(database, admin) as console:
        yield console


@asynccontextmanager
async def serving(
    database: db.Database, admin: db.User, settings: Settings | None = None
) -> AsyncIterator[Console]:
    """A server of the console, on a port of its own."""
    settings = settings or Settings()
    if not pages.serves_console(settings):
        missing("Build the console (install Node.js 20 or later with npm, then `make test`).")
    async with database.write(db.Viewer(is_administrator=True)) as session:
        _, token = await access.issue_token(session, admin, "test")
    server = uvicorn.Server(uvicorn.Config(create_app(settings, database.url), log_config=None))
    listening = listen(Settings(port=0))
    running = asyncio.create_task(server.serve([listening]))
    url = "http://{}:{}".format(*listening.getsockname())
    try:
        async with httpx.AsyncClient(base_url=url) as http:
            yield Console(url, Client(http, database, token), database)
    finally:
        server.should_exit = True
        await running


async def go(page: Page, path: str) -> None:
    """Go to another page of the console, as a link does."""
    await page.evaluate("path => { location.hash = path; }", path)


async def unhurried(page: Page) -> None:
    """Have a page that is not loaded yet wait for its subscriptions on a busy machine, too.

    Otherwise it reads twice: without its subscription, and when that begins.
    """
    await page.add_init_script(UNHURRIED % (1000 * PATIENCE))


async def faults(page: Page) -> list[str]:
    """What axe finds serious or critical, and whether the page is wider than the screen."""
    await page.evaluate(AXE.read_text(encoding="utf-8"))
    found = await page.evaluate(FAULTS)
    return [*found, *([] if await page.evaluate(FITS) else ["the page scrolls sideways"])]
