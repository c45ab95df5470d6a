"""A real browser for the tests, in which every other address is blocked."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Route,
    WebSocket,
    async_playwright,
    expect,
)

from tests.patience import PATIENCE

expect.set_options(timeout=1000 * PATIENCE)


def missing(sentence: str) -> NoReturn:
    """Leave a test out, except where a run decides whether a change may land."""
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="module")
def chromium() -> str:
    """Where Chromium is."""
    found = shutil.which("chromium")
    return found or missing("Install Chromium (Debian and Ubuntu: apt-get install chromium).")


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    """A browser of the test's own."""
    async with launched(chromium) as browser:
        yield browser


@asynccontextmanager
async def launched(chromium: str) -> AsyncIterator[Browser]:
    """Headless Chromium, which finds no address but this machine's."""
    arguments = [
        "--no-sandbox",  # as root it refuses to run with one
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=arguments) as browser,
    ):
        yield browser


@asynccontextmanager
async def opened(
    browser: Browser,
    link: str,
    before: Callable[[Page], Awaitable[None]] | None = None,
    **options: Any,
) -> AsyncIterator[Page]:
    """A page that asks nobody but its own server, and has nothing else to complain about.

    `before` is called with the page before it is loaded.
    """
    origin = re.sub(r"^(http://[^/]+/).*", r"\1", link)
    elsewhere: list[str] = []
    complaints: list[str] = []

    async def only_own(route: Route) -> None:
        if route.request.url.startswith(origin):
            await route.continue_()
        else:
            elsewhere.append(route.request.url)
            await route.abort()

    # Not `route_web_socket`: it replaces the sockets of the page by ones that stay OPEN while the
    # server closes them, so that what the page then sends is an error in the console.
    def connected(socket: WebSocket) -> None:
        if not socket.url.startswith(origin.replace("http", "ws")):
            elsewhere.append(socket.url)

    def hear(message: ConsoleMessage) -> None:
        # Chromium itself remarks on an answer of 401, which is what a wrong token is answered.
        refusal = "the server responded with a status of 401" in message.text
        if message.type in ("error", "warning") and not refusal:
            complaints.append(message.text)

    options = {"viewport": {"width": 1440, "height": 900}, **options}
    async with await browser.new_context(**options) as context:
        context.set_default_timeout(1000 * PATIENCE)
        await context.route(re.compile(r"^(?!data:|blob:)"), only_own)
        context.on("page", lambda page: page.on("websocket", connected))
        page = await context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        if before:
            await before(page)
        await page.goto(link)
        yield page
    assert elsewhere == []
    assert complaints == [], complaints
