"""The console in a real browser, over the data of the demo: what all pages share, and the inbox."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.async_api import Browser, Page, Request, Route, WebSocketRoute, expect
from sqlalchemy import select, text

import db
from db import access
from graph import demo
from graph.api import API
from graph.server import pages
from tests import browsers, console_code, consoles
from tests.consoles import LOOKS, NARROW, WIDE, Console, Relay, faults, go, unhurried
from tests.patience import becomes

browser, chromium, console = browsers.browser, browsers.chromium, consoles.console

PROJECT = "01940000-0000-7000-8000-000000000010"
TASK = "01940000-0000-7000-8000-000000000030"
SCOUT = demo.AGENTS[0]
PAGES = {
    "/": "Projects",
    "/inbox": "Inbox (3)",
    "/nowhere": "Not found",
}

PAUSE = f"""mutation {{
  transitionProject(input: {{id: "{PROJECT}", to: PAUSED}}) {{ userErrors {{ message }} }}
}}"""
CANCEL = """mutation($id: ID!) {
  cancelInteraction(input: {id: $id}) { userErrors { message } }
}"""
ORDER = {
    "projectId": PROJECT,
    "title": "May we order the sensors?",
    "content": {"wind": "11.90", "rain": "9.50"},
    "priority": 5,
}


async def asked(database: db.Database, **different: Any) -> dict[str, str]:
    """What Scout asks: the id and the hash of an approval."""
    scout = API(database, db.Viewer(agent_id=SCOUT))
    shown = "approvalRequest { id contentHash }"
    payload = await scout.change("requestApproval", shown, **{**ORDER, **different})
    return dict(payload["approvalRequest"])


async def answered(database: db.Database, request: dict[str, str], *, approved: bool) -> None:
    """Have the reviewer of the demo answer an approval."""
    async with database.read() as session:
        reviewer = await session.scalar(select(db.User.id).where(db.User.username == "reviewer"))
    api = API(database, db.Viewer(reviewer))
    await api.change("respondToApproval", **request, approved=approved)


async def status_of(console: Console, request: dict[str, str]) -> tuple[str, str | None]:
    """What became of an approval, and the comment."""
    query = """query($id: ID!) {
      humanInteraction(id: $id) { status ... on ApprovalRequest { comment } }
    }"""
    found = (await console.api.ask(query, id=request["id"])).data["humanInteraction"]
    return found["status"], found["comment"]


class Sent:
    """The names of the operations that a page sends by POST."""

    def __init__(self) -> None:
        self.names: list[str] = []

    async def follow(self, page: Page) -> None:
        """Follow a page that is not loaded yet."""
        await unhurried(page)
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if request.method == "POST":
            self.names.append(str((request.post_data_json or {})["operationName"]))


# All pages


def test_no_page_asks_for_what_it_does_not_show() -> None:
    assert console_code.unused_fields(pages.HERE / "console" / "src") == {}


@pytest.mark.parametrize("look", LOOKS)
async def test_each_page_opens_and_is_accessible(
    console: Console, browser: Browser, look: dict[str, Any]
) -> None:
    async with console.opened(browser, **look) as page:
        for path, title in PAGES.items():
            await go(page, path)
            await expect(page.get_by_role("heading", level=1)).to_have_text(title)
            await expect(page.get_by_text("Loading …")).to_have_count(0)
            assert {path: await faults(page)} == {path: []}
            assert await page.title() == f"{title} · Troupe"


async def test_its_files_are_compressed_for_those_who_accept_it(console: Console) -> None:
    async with httpx.AsyncClient(base_url=console.url) as http:
        page = (await http.get("/")).text
        script = re.search(r'src="(/console/console-\w+\.js)"', page)
        assert script is not None
        for accepted, encoding in {"gzip": "gzip", "identity": None}.items():
            answer = await http.get(script[1], headers={"Accept-Encoding": accepted})
            assert answer.headers.get("Content-Encoding") == encoding
            assert "Accept-Encoding" in answer.headers["Vary"]
            assert "immutable" in answer.headers["Cache-Control"]
            assert len(answer.text) > 100_000


async def test_the_projects_are_read_once_and_again_when_they_change(
    console: Console, browser: Browser
) -> None:
    sent = Sent()
    async with console.opened(browser, before=sent.follow) as page:
        row = page.get_by_role("row", name="School weather station")
        await expect(row).to_contain_text("In progress")
        await expect(row).to_contain_text("0/15")
        await expect(row).to_contain_text(
            "Is this the weather station that you had in mind?and 1 more"
        )
        assert page.url == f"{console.url}/#/"
        assert sorted(sent.names) == ["Projects", "Shell"]
        await console.api.ask(PAUSE)
        await expect(row).to_contain_text("Paused")
        assert sorted(sent.names) == ["Projects", "Projects", "Shell"]


async def test_a_page_goes_on_after_its_last_message_when_it_is_connected_again(
    console: Console, browser: Browser
) -> None:
    sockets: list[tuple[WebSocketRoute, list[dict[str, Any]]]] = []

    def relay(socket: WebSocketRoute) -> None:
        server, subscriptions = socket.connect_to_server(), list[dict[str, Any]]()

        def note(message: str | bytes) -> None:
            sent = json.loads(message)
            if sent["type"] == "subscribe":
                subscriptions.append(sent["payload"]["variables"])
            server.send(message)

        socket.on_message(note)
        sockets.append((socket, subscriptions))

    async def intercept(page: Page) -> None:
        await page.route_web_socket(re.compile("/graphql$"), relay)

    async with console.opened(browser, before=intercept) as page:
        row = page.get_by_role("row", name="School weather station")
        await expect(row).to_contain_text("In progress")
        ((socket, first),) = sockets
        assert ["after" in variables for variables in first] == [False, False]
        await socket.close(code=1012)
        await expect(page.get_by_text("Reconnecting …")).to_be_visible()
        await console.api.ask(PAUSE)
        await expect(row).to_contain_text("Paused")
        await expect(page.get_by_text("Reconnecting …")).to_have_count(0)
        ((_, second),) = sockets[1:]
        assert [bool(variables["after"]) for variables in second] == [True, True]


async def test_a_page_waits_for_its_subscription_but_not_for_ever(
    console: Console, browser: Browser
) -> None:
    relay = Relay()
    relay.held = {"AllChanges"}
    async with console.opened(browser, before=relay.follow) as page:
        row = page.get_by_role("row", name="School weather station")
        await expect(row).to_contain_text("In progress")
        await console.api.ask(PAUSE)
        relay.release()
        await expect(row).to_contain_text("Paused")


async def test_a_subscription_that_is_refused_or_given_up_begins_again(
    console: Console, browser: Browser
) -> None:
    relay = Relay()
    relay.refused = {"AllChanges"}
    async with console.opened(browser, before=relay.follow) as page:
        row, state = page.get_by_role("row", name="School weather station"), page.locator(".lost")
        await expect(row).to_contain_text("In progress")
        await expect(state).to_have_text("Not live")
        relay.refused.clear()
        await expect(state).to_have_count(0)
        await console.api.ask(PAUSE)
        await expect(row).to_contain_text("Paused")
        # After this code, graphql-ws does not connect again.
        await relay.close(4429)
        await expect(state).to_have_text("Reconnecting …")
        await console.api.ask(PAUSE.replace("PAUSED", "IN_PROGRESS"))
        await expect(row).to_contain_text("In progress")
        await expect(state).to_have_count(0)


async def test_a_slow_read_is_not_begun_anew_by_each_change(
    console: Console, browser: Browser
) -> None:
    held: list[Route] = []

    async def hold(route: Route) -> None:
        request = route.request
        if request.method == "POST" and "query Projects" in (request.post_data or ""):
            held.append(route)
        else:
            await route.fallback()

    async with console.opened(browser) as page:
        row = page.get_by_role("row", name="School weather station")
        await expect(row).to_contain_text("In progress")
        await page.route("**/graphql", hold)
        await console.api.ask(PAUSE)
        await becomes(lambda: len(held) == 1)
        await console.api.ask(PAUSE.replace("PAUSED", "IN_PROGRESS"))
        await page.wait_for_timeout(3_000)  # longer than the page lets changes wait
        assert len(held) == 1
        await held[0].continue_()
        # What has changed meanwhile is read once more.
        await becomes(lambda: len(held) == 2)
        await held[1].continue_()
        await expect(row).to_contain_text("In progress")


async def test_the_inbox_is_followed_once(console: Console, browser: Browser) -> None:
    relay = Relay()
    async with console.opened(browser, before=relay.follow) as page:
        await expect(page.get_by_role("row", name="School weather station")).to_be_visible()
        await go(page, "/inbox")
        title = page.get_by_role("heading", level=1)
        await expect(title).to_have_text("Inbox (3)")
        await asked(console.database)
        await expect(title).to_have_text("Inbox (4)")
        await expect(page.get_by_role("link", name="Inbox")).to_contain_text("4 waiting")
        assert relay.names == ["AllChanges", "InboxChanges"]


async def test_without_projects_the_first_step_is_named(
    database: db.Database, admin: db.User, browser: Browser
) -> None:
    async with consoles.serving(database, admin) as console, console.opened(browser) as page:
        await expect(page.get_by_text("There is no project yet")).to_be_visible()
        await expect(page.get_by_text("createProjectPlan")).to_be_visible()
        assert await faults(page) == []
        await go(page, "/inbox")
        await expect(page.get_by_text("Nothing waits for you")).to_be_visible()
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox")
        assert await faults(page) == []


async def test_colours_are_those_of_the_system_until_others_are_chosen(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, color_scheme="dark") as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await page.evaluate(ground) == "rgb(15, 18, 22)"
        await page.get_by_role("button", name="Light colours").click()
        assert await page.evaluate(ground) == "rgb(246, 247, 249)"
        await page.reload()
        assert await page.evaluate(ground) == "rgb(246, 247, 249)"
        await page.get_by_role("button", name="Dark colours").click()
        assert await page.evaluate("localStorage.length") == 0


async def test_the_keyboard_skips_the_navigation_and_escape_closes_the_menu(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, viewport=NARROW) as page:
        row = page.get_by_role("row", name="School weather station")
        await expect(row).to_be_visible()
        skip, menu = page.get_by_text("Skip to the page"), page.get_by_role("button", name="Menu")
        await expect(skip).not_to_be_in_viewport()
        await skip.focus()
        await expect(skip).to_be_in_viewport(ratio=1)
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        await expect(menu).to_be_focused()
        await page.keyboard.press("Enter")
        inbox = page.get_by_role("navigation", name="Pages").get_by_role("link", name="Inbox")
        await inbox.focus()
        await page.keyboard.press("Escape")
        await expect(inbox).to_be_hidden()
        await expect(menu).to_be_focused()
        await skip.focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
        assert page.url == f"{console.url}/#/"


# Sign in


async def use_token(page: Page, token: str) -> None:
    """Sign in with an access token."""
    await page.get_by_role("button", name="Use an access token").click()
    await page.get_by_label("Access token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


PASSWORD = "correct horse battery staple"


async def set_password(console: Console) -> None:
    """Set the password of the reviewer of the demo."""
    reviewer = await console.api.ask(
        '{ users(where: {username: {eq: "reviewer"}}) { nodes { id } } }'
    )
    mutation = """mutation($user: ID!, $password: String!) {
      setPassword(input: {userId: $user, newPassword: $password}) { userErrors { message } }
    }"""
    user = reviewer.data["users"]["nodes"][0]["id"]
    await console.api.ask(mutation, user=user, password=PASSWORD)


async def use_password(page: Page) -> None:
    """Sign in as the reviewer."""
    await page.get_by_label("Username").fill("reviewer")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")


async def test_what_stands_in_a_list_is_aligned(console: Console, browser: Browser) -> None:
    async with console.opened(browser, "/inbox", viewport=WIDE) as page:
        await expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        starts = await page.locator(".sections footer > *").evaluate_all(
            """found => found.map((each) => {
              const { paddingLeft, borderLeftWidth } = getComputedStyle(each);
              const inside = parseFloat(paddingLeft) + parseFloat(borderLeftWidth);
              return each.getBoundingClientRect().left + inside;
            })"""
        )
        assert len(starts) >= 3
        assert len(set(starts)) == 1
        await page.get_by_role("button", name="Shortcuts").click()
        keys = await page.locator(".shortcuts kbd").evaluate_all(
            """found => found.map((each) => [
              each.getBoundingClientRect().height,
              each.getBoundingClientRect().right,
              each.closest("div").querySelector("dd").getBoundingClientRect().left,
            ])"""
        )
        # Each is in one line, and apart from what it does.
        assert len({height for height, _, _ in keys}) == 1
        assert all(end + 8 <= start for _, end, start in keys)


async def test_one_signs_in_with_a_password_and_out(console: Console, browser: Browser) -> None:
    await set_password(console)
    async with browsers.opened(browser, f"{console.url}/#/inbox") as page:
        await expect(page.get_by_label("Username")).to_be_focused()
        await expect(page.get_by_text("troupe users password")).to_be_visible()
        assert await faults(page) == []
        await page.keyboard.type("reviewer")
        await page.get_by_label("Password").fill("wrong horse battery")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text(re.compile("password"))
        await page.get_by_role("button", name="Use an access token").click()
        await expect(page.get_by_role("alert")).to_have_count(0)
        await page.get_by_role("button", name="Use a username").click()
        await use_password(page)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox (3)")
        await expect(page.get_by_text("The reviewer")).to_be_visible()
        # It does not outlive the tab, but another tab has it too.
        stored = await page.evaluate("sessionStorage.getItem('troupe:token')")
        assert stored not in await page.evaluate("JSON.stringify(localStorage)")
        other = await page.context.new_page()
        await other.goto(f"{console.url}/#/inbox")
        await expect(other.get_by_role("heading", level=1)).to_have_text("Inbox (3)")

        await other.get_by_role("button", name="Sign out").click()
        for each in (page, other):
            await expect(each.get_by_label("Username")).to_be_visible()
            assert await each.evaluate("sessionStorage.getItem('troupe:token')") == ""
    tokens = await console.api.ask("{ accessTokens { nodes { name revokedAt } } }")
    assert [each["revokedAt"] is None for each in tokens.data["accessTokens"]["nodes"]] == [
        True,
        False,
    ]


async def test_signing_out_revokes_no_token_that_was_made_elsewhere(
    console: Console, browser: Browser
) -> None:
    sent, title = Sent(), "School weather station"
    async with console.opened(browser, before=sent.follow) as page:
        other = await page.context.new_page()
        await other.goto(console.url)
        for each in (page, other):
            await expect(each.get_by_role("row", name=title)).to_be_visible()
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_text("The access token is still valid.")).to_be_visible()
        assert await faults(page) == []
        for each in (page, other):
            await expect(each.get_by_label("Username")).to_be_focused()
            assert await each.evaluate("sessionStorage.getItem('troupe:token')") == ""
        assert "Logout" not in sent.names
        # The link that `troupe serve` prints leads here again.
        await page.goto(f"{console.url}/#token={console.api.token}")
        await expect(page.get_by_role("row", name=title)).to_be_visible()


async def test_one_signs_in_with_a_token_that_graphiql_then_has(
    console: Console, browser: Browser
) -> None:
    assert console.api.token is not None
    async with browsers.opened(browser, console.url) as page:
        await use_token(page, "troupe_unknown")
        await expect(page.get_by_text("This token is not valid")).to_be_visible()
        await use_token(page, console.api.token)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
        link = page.get_by_role("link", name="GraphiQL")
        assert await link.get_attribute("href") == "/graphql"
        await page.goto(f"{console.url}/graphql")
        assert await page.evaluate("sessionStorage.getItem('troupe:token')") == console.api.token


async def revoke_own(console: Console) -> None:
    """Revoke the token of the administrator, and wait until the server does not take it."""
    token = await console.api.ask("{ viewer { accessToken { id } } }")
    revoke = "mutation($id: ID!) { revokeAccessToken(input: {id: $id}) { userErrors { message } } }"
    await console.api.ask(revoke, id=token.data["viewer"]["accessToken"]["id"])
    headers = {"Authorization": f"Bearer {console.api.token}"}
    async with httpx.AsyncClient(base_url=console.url, headers=headers) as http:

        async def is_refused() -> bool:
            answer = await http.post("/graphql", json={"query": "{ viewer { rights } }"})
            return "errors" in answer.json()

        await becomes(is_refused)


async def test_a_token_that_is_revoked_ends_the_session(console: Console, browser: Browser) -> None:
    async with console.opened(browser) as page:
        await expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
        await revoke_own(console)
        await expect(page.get_by_text("Your session has ended. Sign in again.")).to_be_visible()


async def test_an_answer_to_an_earlier_token_ends_no_other_session(
    console: Console, admin: db.User, browser: Browser
) -> None:
    async with console.database.write(db.Viewer(is_administrator=True)) as session:
        _, another = await access.issue_token(session, admin, "another")
    is_released = asyncio.Event()

    async def delay(route: Route) -> None:
        if "RespondToApproval" in (route.request.post_data or ""):
            await is_released.wait()
        await route.continue_()

    async def intercept(page: Page) -> None:
        await page.route("**/graphql", delay)

    await asked(console.database)
    async with console.opened(browser, "/inbox", before=intercept) as page:
        await page.get_by_role("button", name="Approve").click()
        await page.get_by_role("button", name="Sign out").click()
        await revoke_own(console)
        await use_token(page, another)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox (4)")
        async with page.expect_response(lambda response: response.status == 401):
            is_released.set()
        await go(page, "/")
        await expect(page.get_by_role("row", name="School weather station")).to_be_visible()
        assert await page.evaluate("sessionStorage.getItem('troupe:token')") == another


async def test_a_token_is_given_only_to_the_new_tab_that_asks(
    console: Console, browser: Browser
) -> None:
    async with browsers.opened(browser, console.url) as signed_out:
        await expect(signed_out.get_by_label("Username")).to_be_visible()
        signed_in, new = [await signed_out.context.new_page() for _ in range(2)]
        await signed_in.goto(f"{console.url}/#token={console.api.token}")
        await expect(signed_in.get_by_role("heading", level=1)).to_have_text("Projects")
        await new.goto(console.url)
        await expect(new.get_by_role("heading", level=1)).to_have_text("Projects")
        await expect(signed_out.get_by_label("Username")).to_be_visible()
        assert await signed_out.evaluate("sessionStorage.getItem('troupe:token')") is None


async def test_a_link_replaces_another_token_only_if_the_person_wants_it(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser) as page:
        title = page.get_by_role("heading", level=1)
        for wants in (False, True):
            await expect(title).to_have_text("Projects")
            async with page.expect_event("dialog") as asked:
                await page.evaluate("location.hash = 'token=troupe_unknown'")
            dialog = await asked.value
            assert dialog.message == "You are signed in. Use the access token of this link instead?"
            await (dialog.accept() if wants else dialog.dismiss())
        await expect(page.get_by_text("This token is not valid. Sign in again.")).to_be_visible()
        assert "troupe_unknown" not in page.url


async def test_a_token_that_was_not_revoked_is_forgotten_only_if_the_person_wants_it(
    console: Console, browser: Browser
) -> None:
    async def refuse(route: Route) -> None:
        if "Logout" in (route.request.post_data or ""):
            await route.fulfill(json={"errors": [{"message": "The database is restarting."}]})
        else:
            await route.continue_()

    async def intercept(page: Page) -> None:
        await page.route("**/graphql", refuse)

    await set_password(console)
    async with browsers.opened(browser, console.url, before=intercept) as page:
        await use_password(page)
        dialog = page.get_by_role("dialog", name="Your token may still be valid")
        await page.get_by_role("button", name="Sign out").click()
        await expect(dialog).to_contain_text("The database is restarting.")
        assert await faults(page) == []
        await page.keyboard.press("Escape")
        await expect(dialog).to_have_count(0)
        await page.get_by_role("button", name="Sign out").click()
        await dialog.get_by_role("button", name="Forget it here anyway").click()
        await expect(page.get_by_label("Username")).to_be_visible()
        assert await page.evaluate("sessionStorage.getItem('troupe:token')") == ""


# The inbox


async def test_the_keyboard_alone_answers_requests(console: Console, browser: Browser) -> None:
    first, second = [await asked(console.database, title=f"Order {n}?") for n in (1, 2)]
    async with console.opened(browser) as page:
        press = page.keyboard.press
        await expect(page.get_by_role("heading", level=1)).to_have_text("Projects")
        await press("Tab")
        await press("Tab")
        while await page.evaluate("document.activeElement.textContent") != "Inbox5 waiting":
            await press("Tab")
        await press("Enter")
        request = page.get_by_role("article")
        await expect(request).to_have_accessible_name("Order 2?")
        await press("?")
        await expect(page.get_by_role("dialog")).to_contain_text("Next request")
        await expect(page.get_by_role("dialog")).to_contain_text("Ctrl-Enter")
        await press("j")  # not behind the dialog
        assert await faults(page) == []
        await press("Escape")
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await press("j")
        await expect(request).to_have_accessible_name("Order 1?")
        await press("k")
        await expect(request).to_have_accessible_name("Order 2?")

        await press("a")
        await expect(page.get_by_role("button", name="Approve")).to_be_focused()
        assert await status_of(console, second) == ("PENDING", None)
        await press("Enter")
        await expect(page.get_by_role("status").first).to_have_text("“Order 2?” was approved.")
        assert await status_of(console, second) == ("APPROVED", None)
        await expect(request).to_have_accessible_name("Order 1?")
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox (4)")

        await press("r")
        await press("Shift+Tab")
        await press("Shift+Tab")
        await page.keyboard.type("ajk?")  # in a field these are letters
        await press("r")
        await page.get_by_label("Comment").press("Tab")
        await press("Tab")
        await press("Enter")
        await expect(page.get_by_role("status").first).to_have_text("“Order 1?” was rejected.")
        assert await status_of(console, first) == ("REJECTED", "ajk?r")

        for title, keys in {
            "The free plan": ["a", "Enter"],
            "Is this the weather station": ["a", *"Yes", "Tab", "Space", "Control+Enter"],
            "Which city": ["Enter", *"Bern", "Control+Enter"],
        }.items():
            await expect(request).to_have_accessible_name(re.compile(title))
            for key in keys:
                await press(key)
        await expect(page.get_by_text("Nothing waits for you")).to_be_visible()
        await expect(page.get_by_role("heading", level=1)).to_be_focused()
        query = """{ humanInteractions(where: {type: {not: APPROVAL}}) { nodes {
          status
          ... on FeedbackRequest { feedback rating }
          ... on ClarificationRequest { answer }
        } } }"""
        found = (await console.api.ask(query)).data["humanInteractions"]["nodes"]
        assert found == [
            {"status": "ANSWERED", "answer": "Bern"},
            {"status": "ANSWERED", "feedback": {"text": "Yes"}, "rating": 1},
            {"status": "ACKNOWLEDGED"},
        ]


async def test_a_key_that_is_held_down_answers_nothing_unread(
    console: Console, browser: Browser
) -> None:
    first, second = [await asked(console.database, title=f"Order {n}?") for n in (1, 2)]
    async with console.opened(browser, "/inbox") as page:
        request = page.get_by_role("article")
        await expect(request).to_have_accessible_name("Order 2?")
        await page.keyboard.press("a")
        for _ in range(2):  # a key that is down already is pressed with `repeat`
            await page.keyboard.down("Enter")
        await expect(request).to_have_accessible_name("Order 1?")
        link = page.get_by_role("list", name="Requests").get_by_role("link", name="Order 1?")
        await expect(link).to_be_focused()
        for _ in range(3):
            await page.keyboard.down("Enter")
        await expect(link).to_be_focused()
        await page.get_by_role("button", name="Approve").focus()
        await page.keyboard.down("Enter")
        await page.keyboard.up("Enter")
        await page.keyboard.press("j")
        await expect(request).to_have_accessible_name(re.compile("The free plan"))
        assert await status_of(console, second) == ("APPROVED", None)
        assert await status_of(console, first) == ("PENDING", None)


async def test_what_is_approved_is_shown_as_it_is_and_a_change_of_it_too(
    console: Console, browser: Browser
) -> None:
    content = {"amount": 1, "to": "troupe\u202egro.elpmaxe", "note": "\ue0001"}
    request = await asked(console.database, content=content)
    async with console.opened(browser, "/inbox") as page:
        shown = page.get_by_role("article")
        await expect(shown).to_contain_text("troupe\\u{202e}gro.elpmaxe")
        await shown.get_by_text("The whole request, as it was sent").click()
        await expect(shown).to_contain_text(request["contentHash"])
        await expect(shown.locator("pre")).to_contain_text('"note": "\\u{e000}1"')
        comment = shown.get_by_label("Comment")
        await comment.fill("One is fine")

        # A number that neither JavaScript nor Python keeps.
        amount = f"""UPDATE human_interactions
            SET content = jsonb_set(content, '{{amount}}', '12345678901234567.10')
            WHERE content_hash = '{request["contentHash"]}'"""
        async with console.database.write(db.Viewer(is_administrator=True)) as session:
            await session.execute(text(amount))
        await expect(shown).to_contain_text("12345678901234567.10")
        await expect(comment).to_have_value("")
        await shown.get_by_text("The whole request, as it was sent").click()
        await expect(shown.locator("pre")).to_contain_text('"amount": 12345678901234567.10')
        await expect(shown).not_to_contain_text(request["contentHash"])
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("status").first).to_contain_text("was approved")
        assert await status_of(console, request) == ("APPROVED", None)


async def test_a_request_that_another_answers_stays_and_says_so(
    console: Console, browser: Browser
) -> None:
    request = await asked(console.database)
    async with console.opened(browser, "/inbox") as page:
        shown = page.get_by_role("article")
        await expect(shown).to_have_accessible_name("May we order the sensors?")
        await shown.get_by_label("Comment").fill("Only the")
        await answered(console.database, request, approved=False)
        await expect(shown).to_contain_text("This request was rejected by The reviewer")
        await expect(shown).to_have_accessible_name("May we order the sensors?")
        await expect(shown.get_by_role("button")).to_have_count(0)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox (3)")
        await expect(page.get_by_role("navigation", name="Pages")).to_contain_text("3 waiting")
        another = await asked(console.database, title="And a battery?")
        await expect(page.get_by_role("list", name="Requests")).to_contain_text("And a battery?")
        await expect(shown).to_have_accessible_name("May we order the sensors?")
        await page.keyboard.press("Escape")
        await page.get_by_text("And a battery?").click()
        await expect(shown).to_have_accessible_name("And a battery?")
        await page.get_by_role("button", name="Approve").click()
        await expect(page.get_by_role("status").first).to_contain_text("was approved")
        assert await status_of(console, another) == ("APPROVED", None)


async def test_an_answer_that_comes_too_late_says_what_happened(
    console: Console, browser: Browser
) -> None:
    request = await asked(console.database)

    async def disconnect(page: Page) -> None:
        # Without subscriptions the page learns of it only from the refusal.
        await page.route_web_socket(re.compile(""), lambda _: None)

    async with console.opened(browser, "/inbox", before=disconnect) as page:
        shown = page.get_by_role("article")
        await expect(shown).to_have_accessible_name("May we order the sensors?")
        await answered(console.database, request, approved=False)
        await page.get_by_role("button", name="Approve").click()
        late = "Your answer came too late. This request was rejected by The reviewer"
        await expect(shown).to_contain_text(late)
        assert await status_of(console, request) == ("REJECTED", None)


async def test_who_has_moved_on_stays_there_when_an_answer_was_taken(
    console: Console, browser: Browser
) -> None:
    first, _, third = [await asked(console.database, title=f"Order {n}?") for n in (1, 2, 3)]
    is_released = asyncio.Event()

    async def delay(route: Route) -> None:
        if "RespondToApproval" in (route.request.post_data or ""):
            await is_released.wait()
        await route.continue_()

    async def intercept(page: Page) -> None:
        await page.route("**/graphql", delay)

    async with console.opened(browser, "/inbox", before=intercept) as page:
        request, said = page.get_by_role("article"), page.get_by_role("status").first
        await expect(request).to_have_accessible_name("Order 3?")
        await page.get_by_role("button", name="Approve").click()
        for title in ("Order 2?", "Order 1?"):
            await page.keyboard.press("j")
            await expect(request).to_have_accessible_name(title)
        await request.get_by_label("Comment").fill("Only the")
        is_released.set()
        await expect(said).to_have_text("“Order 3?” was approved.")
        assert await status_of(console, third) == ("APPROVED", None)
        await expect(page.get_by_role("heading", level=1)).to_have_text("Inbox (5)")
        await expect(request).to_have_accessible_name("Order 1?")
        await expect(request.get_by_label("Comment")).to_have_value("Only the")

        # The same for an answer that is refused.
        is_released.clear()
        await page.get_by_role("button", name="Approve").click()
        await page.keyboard.press("j")
        await expect(request).to_have_accessible_name(re.compile("The free plan"))
        await answered(console.database, first, approved=False)
        is_released.set()
        await expect(said).to_have_text("Your answer to “Order 1?” was not taken.")
        await expect(request).to_have_accessible_name(re.compile("The free plan"))


async def test_a_link_leads_to_a_request_that_is_not_in_the_inbox(
    console: Console, browser: Browser
) -> None:
    request = await asked(console.database)
    await answered(console.database, request, approved=True)
    async with console.opened(browser, f"/inbox?of={quote(request['id'])}") as page:
        shown = page.get_by_role("article")
        await expect(shown).to_contain_text("This request was approved by The reviewer")
        await page.keyboard.press("j")
        await expect(shown).to_have_accessible_name(re.compile("The free plan"))


async def test_a_link_to_no_request_says_so_and_shows_the_inbox(
    console: Console, browser: Browser
) -> None:
    for of in ("zzz", TASK, quote("VGFzazox")):
        async with console.opened(browser, f"/inbox?of={of}") as page:
            said = page.get_by_text("The request of this address does not exist")
            await expect(said).to_be_visible()
            shown = page.get_by_role("article")
            await expect(shown).to_have_accessible_name(re.compile("The free plan"))
            await expect(page.get_by_role("alert")).to_have_count(0)
            assert await faults(page) == []


async def test_a_request_that_ended_stands_beside_no_empty_list(
    console: Console, browser: Browser
) -> None:
    request = await asked(console.database)
    await answered(console.database, request, approved=True)
    pending = await console.api.ask("{ pendingInteractions { nodes { id } } }")
    for each in pending.data["pendingInteractions"]["nodes"]:
        await console.api.ask(CANCEL, **each)
    async with console.opened(browser, f"/inbox?of={quote(request['id'])}") as page:
        await expect(page.get_by_role("article")).to_contain_text("This request was approved")
        await expect(page.get_by_text("Nothing else waits for you.")).to_be_visible()
        await expect(page.get_by_role("list", name="Requests")).to_have_count(0)
