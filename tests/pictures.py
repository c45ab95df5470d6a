"""Pictures of the console for the documentation: `make pictures`."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

import db
from db import access, migrate
from graph import demo
from tests import conftest, consoles
from tests.browsers import launched
from tests.drift import ROOT

FOLDER = ROOT / "docs" / "pictures"
PROJECT = "01940000-0000-7000-8000-000000000010"
# The pages and the keys to press there, by the names of the pictures.
PICTURES = {
    "projects": ("/", []),
    "project": (f"/projects/{PROJECT}", ["0"]),  # fits the graph into the page
    "inbox": ("/inbox", []),
}
LOOK: dict[str, Any] = {"viewport": {"width": 1400, "height": 780}, "device_scale_factor": 1.25}


@asynccontextmanager
async def working() -> AsyncIterator[consoles.Console]:
    """The console of a demo whose agents have worked for a while."""
    with conftest.cluster() as url:
        await migrate.upgrade(url)
        database = db.Database(url)
        async with database.write(db.Viewer(is_administrator=True)) as session:
            admin = await access.administrator(session)
            assert admin is not None
        await demo.fill(database)
        async with consoles.serving(database, admin) as console:
            work = asyncio.create_task(demo.work(database, step_seconds=0.5))
            await _until_asked(console)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            yield console
        await database.dispose()


async def _until_asked(console: consoles.Console) -> None:
    """Wait until an agent asks for an approval, and others have done something."""
    query = """query($project: ID!) {
      pendingInteractions(where: {type: {eq: APPROVAL}}) { totalCount }
      projectStats(projectId: $project) { completed }
    }"""
    while True:
        found = (await console.api.ask(query, project=PROJECT)).data
        is_asked = found["pendingInteractions"]["totalCount"] > 0
        if is_asked and found["projectStats"]["completed"] >= 5:
            return
        await asyncio.sleep(0.2)


async def take(page: Page, path: str, keys: list[str], file: Path) -> None:
    """Take the picture of a page."""
    await consoles.go(page, path)
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.get_by_text("Loading …")).to_have_count(0)
    for key in keys:
        await page.keyboard.press(key)
    await page.wait_for_timeout(1_000)  # what moves comes to rest
    await page.screenshot(path=file)


async def main() -> None:
    """Take all pictures."""
    program = shutil.which("chromium")
    if program is None:
        sys.exit("Install Chromium (Debian and Ubuntu: apt-get install chromium).")
    FOLDER.mkdir(exist_ok=True)
    async with (
        launched(program) as browser,
        working() as console,
        console.opened(browser, **LOOK) as page,
    ):
        for name, (path, keys) in PICTURES.items():
            await take(page, path, keys, FOLDER / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
