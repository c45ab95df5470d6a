"""GraphiQL and the plain page in a real browser."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Browser, Locator, Page, expect

import db
from db import access
from graph.app import create_app
from graph.serve import listen
from graph.server import pages
from graph.settings import Mode, Settings
from tests import browsers, processes
from tests.browsers import missing, opened
from tests.conftest import People
from tests.processes import Serving
from tests.sockets import listening

PLAN = """mutation {
  createProjectPlan(input: {name: "Moon base", tasks: [{title: "Choose a site"}]}) {
    project { id tasks { nodes { id } } }
  }
}"""
RENAME = """mutation {
  updateTask(input: {id: "%s", title: "%s"}) { userErrors { message } }
}"""
WATCH = """subscription Watch { taskUpdated(id: "%s") { cursor task { title } } }"""
# The EventSource of browsers sends no headers.
FOLLOW = """async ([token, query]) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const stream = await (await fetch("/graphql", { method: "PUT", headers })).text();
  window.source = new EventSource(`/graphql?token=${stream}`);
  const found = [];
  let wake = () => {};
  source.addEventListener("next", ({ data, lastEventId }) => {
    found.push({ ...JSON.parse(data), last: lastEventId });
    wake();
  });
  window.next = async () => {
    while (!found.length) await new Promise((resolve) => (wake = resolve));
    return found.shift();
  };
  const body = JSON.stringify({ query, extensions: { operationId: "1" } });
  headers["X-GraphQL-Event-Stream-Token"] = stream;
  await fetch("/graphql", { method: "POST", headers, body });
  return await next();
}"""
browser, chromium = browsers.browser, browsers.chromium
NAMED = """mutation($name: String!) {
  createProject(input: {name: $name}) { project { name } }
}"""


@pytest.fixture(scope="module")
def served(chromium: str, made: tuple[Path, str]) -> Iterator[Serving]:
    """A server of GraphiQL, with a project in it."""
    if not ((pages.BUILT / "index.html").exists() and pages.serves_console(Settings())):
        missing("Build the pages (install Node.js 20 or later with npm, then `make test`).")
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            assert "errors" not in server.ready().ask(PLAN)
            yield server
            assert server.stop().status == 0


@pytest.fixture
async def plain(database: db.Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Where a server answers that has no GraphiQL."""
    monkeypatch.setattr(pages, "BUILT", Path("/dev/null"))
    app = create_app(Settings(), database.url)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    listening = listen(Settings(port=0))
    serving = asyncio.create_task(server.serve([listening]))
    yield "http://{}:{}".format(*listening.getsockname())
    server.should_exit = True
    await serving


# GraphiQL


def editor(page: Page) -> Locator:
    """Where the operation is."""
    return page.locator(".graphiql-query-editor .view-lines")


def answer(page: Page) -> Locator:
    """Where the answer is."""
    return page.locator(".result-window .view-lines")


async def click(page: Page, button: str) -> None:
    """Click on a button."""
    await page.get_by_role("button", name=button).click()


async def test_two_clicks_open_graphiql_with_all_that_helps(
    served: Serving, browser: Browser
) -> None:
    (link,) = re.findall(r"^  (http://\S+#token=\S+)$", served.out, re.MULTILINE)
    async with opened(browser, link) as page:
        await page.get_by_role("link", name="GraphiQL", exact=True).first.click()
        await expect(editor(page)).to_contain_text("totalCount")
        assert page.url == f"{served.url}/graphql"
        assert served.token not in await page.evaluate("JSON.stringify(localStorage)")
        await click(page, "Execute")
        await expect(answer(page)).to_contain_text("Choose a site")

        for tab, found in [
            ("MakePlan", "Build a dome"),
            ("FindTasks", "endCursor"),
            ("OpenQuestions", "humanInteractions"),
            ("Conversations", "totalCount"),
            ("AnyObject", "null"),
        ]:
            await page.get_by_role("tab", name=tab).click()
            await click(page, "Prettify")
            # Which operation is meant, GraphiQL finds out some time after a tab was chosen.
            await page.wait_for_timeout(1_000)
            await click(page, "Execute")
            await expect(answer(page)).to_contain_text(found)
            await expect(page.locator(".squiggly-error")).to_have_count(0)

        await page.get_by_role("tab", name="Projects").click()
        plugin = page.locator(".graphiql-plugin")
        await click(page, "Show Documentation Explorer")
        await plugin.get_by_role("link", name="Query", exact=True).click()
        await expect(plugin).to_contain_text("They return only objects that you may see.")
        await plugin.get_by_role("link", name="Project", exact=True).first.click()
        await expect(plugin).to_contain_text("A goal that a team of agents works towards")

        await click(page, "Show GraphiQL Explorer")
        await plugin.get_by_text("updatedAt", exact=True).first.click()
        await expect(editor(page)).to_contain_text("updatedAt")
        await click(page, "Execute")
        await expect(answer(page)).to_contain_text("updatedAt")


async def test_a_token_is_asked_for_where_it_is_refused_or_none_is_known(
    served: Serving, browser: Browser
) -> None:
    async with opened(browser, f"{served.url}/graphql#token=troupe_unknown") as page:
        field = page.get_by_label("Access token")
        await expect(field).to_be_visible()
        await click(page, "Execute")
        await expect(answer(page)).to_contain_text("UNAUTHENTICATED")
        await field.fill(served.token)
        await click(page, "Use it")
        await expect(field).to_be_hidden()
        await click(page, "Execute")
        await expect(answer(page)).to_contain_text("Moon base")
        await click(page, "Show Documentation Explorer")
        await expect(page.locator(".graphiql-plugin")).to_contain_text("query: Query")

        await page.evaluate("sessionStorage.clear()")
        await page.reload()
        await expect(field).to_be_visible()


async def test_a_subscription_shows_each_message(served: Serving, browser: Browser) -> None:
    task = served.ask(PLAN)["data"]["createProjectPlan"]["project"]["tasks"]["nodes"][0]["id"]
    async with opened(browser, f"{served.url}/graphql#token={served.token}") as page:
        await expect(editor(page)).to_contain_text("totalCount")
        await editor(page).click()
        await page.keyboard.press("Control+A")
        await page.keyboard.insert_text(WATCH % task)
        await expect(page.get_by_role("tab", name="Watch")).to_be_visible()  # it was understood
        async with page.expect_websocket() as opening:
            await click(page, "Execute")
        socket = await opening.value
        assert socket.url == f"{served.url.replace('http', 'ws')}/graphql"
        await expect(answer(page)).to_contain_text("Choose a site")
        for title in ("Choose a crater", "Choose a valley"):
            changed = await asyncio.to_thread(served.ask, RENAME % (task, title))
            assert changed == {"data": {"updateTask": {"userErrors": []}}}
            await expect(answer(page)).to_contain_text(title)
        async with socket.expect_event("close"):
            await click(page, "Stop")


async def test_an_event_source_reads_a_stream(served: Serving, browser: Browser) -> None:
    task = served.ask(PLAN)["data"]["createProjectPlan"]["project"]["tasks"]["nodes"][0]["id"]
    async with opened(browser, f"{served.url}/graphql#token={served.token}") as page:
        first = await page.evaluate(FOLLOW, [served.token, WATCH % task])
        assert first["id"] == "1"
        message = first["payload"]["data"]["taskUpdated"]
        assert message == {"cursor": first["last"], "task": {"title": "Choose a site"}}
        await asyncio.to_thread(served.ask, RENAME % (task, "Choose a crater"))
        second = await page.evaluate("() => next()")
        assert second["payload"]["data"]["taskUpdated"]["task"] == {"title": "Choose a crater"}
        assert second["last"] != first["last"]
        await page.evaluate("() => source.close()")


# The plain page


async def test_the_plain_page_runs_operations(
    plain: str, database: db.Database, admin: db.User, browser: Browser
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        _, token = await access.issue_token(session, admin, "test")
    async with opened(browser, f"{plain}/graphql#token={token}") as page:
        assert page.url == f"{plain}/graphql"
        operation, output = page.get_by_label("Operation"), page.get_by_role("status")
        await click(page, "Run")
        await expect(output).to_contain_text('"totalCount": 0')
        await page.get_by_label("Variables").fill("{")
        await operation.press("Control+Enter")
        await expect(output).to_contain_text("The variables are not valid JSON")
        await page.get_by_label("Variables").fill('{"name": "Moon base"}')
        await operation.fill(NAMED)
        await operation.press("Control+Enter")
        await expect(output).to_contain_text('"name": "Moon base"')
        await page.get_by_label("Access token").fill("troupe_unknown")
        await click(page, "Run")
        await expect(output).to_contain_text("UNAUTHENTICATED")


# Pages of another origin

ASK_ELSEWHERE = """async ([url, token]) => {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ query: "{ me { username } }" });
  const asked = await fetch(url, { method: "POST", headers, body })
    .then((response) => response.json(), (error) => error.message);
  const socket = new WebSocket(url.replace("http", "ws"), "graphql-transport-ws");
  const connected = await new Promise((resolve) => {
    socket.onopen = () => resolve(true);
    socket.onerror = () => resolve(false);
  });
  socket.close();
  return { asked, connected };
}"""


@asynccontextmanager
async def frontend() -> AsyncIterator[str]:
    """A server of an empty page, as a frontend has one while it is written."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n"
        writer.write(head + b"Connection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_page_on_another_port_uses_the_api_in_development(
    browser: Browser, database: db.Database, people: People, mode: Mode
) -> None:
    async with listening(database, Settings(mode=mode)) as server, frontend() as link:
        page = await browser.new_page()
        await page.goto(link)
        url = f"http://127.0.0.1:{server.port}/graphql"
        found = await page.evaluate(ASK_ELSEWHERE, [url, people.owner.token])

    if mode is Mode.DEVELOPMENT:
        assert found == {"asked": {"data": {"me": {"username": "owner"}}}, "connected": True}
    else:
        assert found == {"asked": "Failed to fetch", "connected": False}
