"""The pages of the console that show what happened: conversations, agents, usage and events."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pytest
from playwright.async_api import Browser, Locator, Page, expect

import db
from db import access
from db.events.triggers import logged_tables
from graph import demo
from graph.api import API
from graph.core.scalars import global_id
from graph.settings import Settings
from tests import browsers, consoles
from tests.consoles import LOOKS, Console, Relay, faults, go, unhurried

browser, chromium, console = browsers.browser, browsers.chromium, consoles.console

PROJECT = "01940000-0000-7000-8000-000000000010"
TASK = "01940000-0000-7000-8000-000000000030"
TALK = "01940000-0000-7000-8000-000000000050"
SCOUT, BUILDER, _ = demo.AGENTS
PAGES = {
    "/conversations": "Conversations",
    "/conversations?q=sensor": "Conversations",
    f"/conversations/{TALK}": "Which rain sensor?",
    "/agents": "Agents",
    "/usage": "Usage",
    "/usage?measure=tokens&period=day": "Usage",
    "/events": "Events",
}


def title(page: Page) -> Locator:
    """The heading of a page."""
    return page.get_by_role("heading", level=1)


def operations(page: Page) -> list[str]:
    """The names of the operations that a page sends from now on, except those of the shell."""
    names: list[str] = []

    def note(request: Any) -> None:
        if request.method == "POST" and request.url.endswith("/graphql"):
            name = str((request.post_data_json or {})["operationName"])
            if name != "Shell":
                names.append(name)

    page.on("request", note)
    return names


def is_of(response: Any, operation: str) -> bool:
    """Whether a response is to an operation of this name."""
    return f"query {operation}" in (response.request.post_data or "")


async def cells(row: Locator) -> list[str]:
    """The texts in a row of a table."""
    return [text.strip() for text in await row.locator("th, td").all_inner_texts()]


async def change(console: Console, name: str, /, **input: Any) -> None:
    """Do something as the administrator."""
    kind = f"{name[0].upper()}{name[1:]}Input!"
    selection = "{ userErrors { message } }"
    document = f"mutation($input: {kind}) {{ {name}(input: $input) {selection} }}"
    payload = (await console.api.ask(document, input=input)).data[name]
    assert payload == {"userErrors": []}


async def append(console: Console, *texts: str) -> None:
    """Add messages of the person to the conversation."""
    messages = [{"sender": "USER", "content": text} for text in texts]
    await change(console, "appendMessages", conversationId=TALK, messages=messages)


@pytest.mark.parametrize("look", LOOKS)
async def test_each_page_opens_and_is_accessible(
    console: Console, browser: Browser, look: dict[str, Any]
) -> None:
    async with console.opened(browser, **look) as page:
        for path, heading in PAGES.items():
            await go(page, path)
            await expect(title(page)).to_have_text(heading)
            await expect(page.get_by_text("Loading …")).to_have_count(0)
            await expect(page.locator("main > *")).not_to_have_count(1)
            assert {path: await faults(page)} == {path: []}


async def test_empty_pages_name_the_api_where_graphiql_is_not_served(
    database: db.Database, admin: db.User, browser: Browser
) -> None:
    without = Settings(graphiql=False)
    async with (
        consoles.serving(database, admin, without) as console,
        console.opened(browser) as page,
    ):
        for path in ("/", "/agents"):
            await go(page, path)
            await expect(page.locator(".empty")).to_contain_text(f"{console.url}/graphql")
            await expect(page.get_by_text("GraphiQL")).to_have_count(0)
            await expect(page.get_by_text("MakePlan")).to_have_count(0)


async def test_empty_pages_name_the_first_step(
    database: db.Database, admin: db.User, browser: Browser
) -> None:
    async with consoles.serving(database, admin) as console, console.opened(browser) as page:
        for path, steps in {
            "/conversations": ["startConversation"],
            "/conversations?q=none": ["Whole words"],
            "/agents": ["createAgent"],
            "/usage": ["recordUsage", "createBudget"],
            "/events?type=Task": ["Show all events"],
        }.items():
            await go(page, path)
            for step in steps:
                await expect(page.locator(".empty", has_text=step)).to_be_visible()
            assert {path: await faults(page)} == {path: []}
        await go(page, f"/conversations/{TALK}")
        await expect(title(page)).to_have_text("Not found")


# Conversations


async def test_a_conversation_is_read_with_calls_folded(console: Console, browser: Browser) -> None:
    async with console.opened(browser, f"/conversations/{TALK}") as page:
        messages = page.get_by_role("log").get_by_role("listitem")
        await expect(messages).to_have_count(5)
        call, result = messages.nth(1), messages.nth(2)
        await expect(call).to_contain_text("Scout")
        await expect(call).to_contain_text("example-large")
        arguments = call.get_by_text('"query": "heated rain gauge"')
        await expect(arguments).to_be_hidden()
        await call.get_by_text("Calls web-search").focus()
        await page.keyboard.press("Enter")
        await expect(arguments).to_be_visible()
        await expect(result.locator("p")).to_be_hidden()
        await expect(result.locator("summary")).to_contain_text("Three heated gauges")
        await expect(messages.nth(4).get_by_text("Good. Put it on the list.")).to_be_visible()


async def test_a_conversation_grows_at_both_ends(console: Console, browser: Browser) -> None:
    await append(console, *(f"Line {number}" for number in range(6, 71)))
    async with console.opened(browser, before=unhurried) as page:
        await expect(title(page)).to_have_text("Projects")
        sent = operations(page)
        await go(page, f"/conversations/{TALK}")
        messages = page.get_by_role("log").get_by_role("listitem")
        await expect(messages).to_have_count(30)
        await expect(messages.first).to_contain_text("Line 41")
        await expect(messages.last).to_be_in_viewport()

        older = page.get_by_role("button", name="Show older messages")
        await older.click()
        await expect(messages).to_have_count(60)
        await expect(page.get_by_text("Line 41", exact=True)).to_be_in_viewport()
        await append(console, "Line 71")
        await expect(messages).to_have_count(61)
        await expect(page.get_by_text("Line 41", exact=True)).to_be_in_viewport()
        await older.click()
        await expect(messages).to_have_count(71)
        await expect(older).to_have_count(0)
        assert await messages.locator("> p").all_inner_texts() == [
            "Which rain sensor survives a winter outdoors?",
            "Take the optical gauge: it has no moving parts that could freeze,"
            " and at rest it needs 2 mA.",
            "Good. Put it on the list.",
            *(f"Line {number}" for number in range(6, 72)),
        ]

        # Nothing of it was read twice.
        assert sent == ["Conversation", "MoreMessages", "MoreMessages"]


async def test_no_message_is_missing_if_the_subscription_begins_late(
    console: Console, browser: Browser
) -> None:
    relay = Relay()
    relay.held = {"MessageAdded"}
    path = f"/conversations/{TALK}"
    async with console.opened(browser, path, before=relay.follow) as page:
        messages = page.get_by_role("log").get_by_role("listitem")
        await expect(messages).to_have_count(5)
        await append(console, "Line 6")
        relay.release()
        await expect(messages.last).to_contain_text("Line 6")
        await append(console, "Line 7")
        await expect(messages).to_have_count(7)


async def test_a_new_message_shows_numbers_as_they_were_written(
    console: Console, browser: Browser
) -> None:
    message = {"sender": "USER", "content": "", "parts": [{"amount": 12345678901234567890}]}
    async with console.opened(browser, f"/conversations/{TALK}") as page:
        messages = page.get_by_role("log").get_by_role("listitem")
        await expect(messages).to_have_count(5)
        await change(console, "appendMessages", conversationId=TALK, messages=[message])
        await expect(messages).to_have_count(6)
        await expect(messages.last.locator("pre")).to_contain_text('"amount": 12345678901234567890')


async def test_a_search_leads_into_the_middle_of_a_conversation(
    console: Console, browser: Browser
) -> None:
    lines = [f"Line {number}" for number in range(6, 101)]
    lines[34] = "The <b>heater</b> of the gauge"
    await append(console, *lines)
    async with console.opened(browser, "/conversations") as page:
        await page.get_by_role("searchbox").fill("gauge heater")
        await page.keyboard.press("Enter")
        hits = page.locator(".hits > li")
        await expect(hits).to_have_count(1)
        await expect(hits).to_contain_text("The <b>heater</b> of the gauge")
        assert await hits.locator("mark").all_inner_texts() == ["heater", "gauge"]
        await hits.get_by_role("link").click()

        messages = page.get_by_role("log").get_by_role("listitem")
        await expect(messages).to_have_count(30)
        await expect(page.locator(".found")).to_have_text(re.compile("The <b>heater</b>"))
        await expect(page.locator(".found")).to_be_in_viewport()
        await expect(messages.first).to_contain_text("Line 21")
        # What is new is not shown before what stands between.
        await append(console, "Line 101")
        newer = page.get_by_role("button", name="Show newer messages")
        await newer.click()
        await expect(messages).to_have_count(60)
        await expect(messages.last).to_contain_text("Line 80")
        await newer.click()
        await expect(messages).to_have_count(81)
        await expect(newer).to_have_count(0)
        await append(console, "Line 102")
        await expect(messages.last).to_contain_text("Line 102")
        await expect(messages).to_have_count(82)
        await page.get_by_role("link", name="Conversations", exact=True).last.click()
        await expect(page.get_by_role("row", name="Which rain sensor?")).to_contain_text("102")


async def test_the_conversations_of_a_project_stay_as_they_are_now(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, "/conversations") as page:
        rows = page.get_by_role("row")
        await expect(rows).to_have_count(6)
        await page.get_by_role("combobox", name="Project").select_option("School weather station")
        await expect(rows).to_have_count(2)
        message = {"sender": "USER", "content": "And the wind?"}
        await change(console, "startConversation", projectId=PROJECT, message=message)
        await expect(rows).to_have_count(3)
        await expect(rows.nth(1)).to_contain_text("And the wind?")
        long = {
            "sender": "USER",
            "content": "How strong is the wind on the roof of the school in May",
        }
        await change(console, "startConversation", projectId=PROJECT, message=long)
        link = rows.nth(1).get_by_role("link").first
        await expect(link).to_have_text("How strong is the wind on the roof of the school i…")
        await page.get_by_role("searchbox").fill("Hello")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("No message has these words")).to_be_visible()
        await page.get_by_role("combobox", name="Project").select_option("All projects")
        await expect(page.locator(".hits > li")).not_to_have_count(0)


async def test_the_conversation_that_changed_last_is_the_first(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, "/conversations") as page:
        rows = page.get_by_role("row")
        await expect(rows).to_have_count(6)
        old = {"sender": "USER", "content": "From last year", "timestamp": "2025-01-01T00:00:00Z"}
        for id, title in reversed([await conversation_in(row) for row in (await rows.all())[1:]]):
            await change(console, "appendMessages", conversationId=id, messages=[old])
            await expect(rows.nth(1)).to_contain_text(title)
            await expect(rows.nth(1).get_by_role("time")).to_have_text("now")


async def conversation_in(row: Locator) -> tuple[str, str]:
    """The id and the title of the conversation in a row."""
    link = row.get_by_role("link").first
    url = str(await link.get_attribute("href"))
    return unquote(url.removeprefix("#/conversations/")), await link.inner_text()


# Agents


async def test_agents_show_what_they_do_or_why_they_do_nothing(
    console: Console, browser: Browser
) -> None:
    scout = API(console.database, db.Viewer(agent_id=SCOUT))
    async with console.opened(browser, "/agents") as page:
        row = page.get_by_role("row", name="Scout")
        await expect(row).to_contain_text("0/1")
        await expect(row).to_contain_text("A task is ready for it")
        await expect(row).to_contain_text("Never seen")
        claimed = (await scout.change("claimTask", "attempt { id }"))["attempt"]
        await expect(row).to_contain_text("1/1")
        await expect(row).to_contain_text("Choose the sensors")
        await expect(row).not_to_contain_text("A task is ready for it")
        await expect(row).to_contain_text("now")
        report = {"attemptId": claimed["id"], "progressPercent": 40, "statusMessage": "Comparing"}
        await scout.change("heartbeat", attempts=[report])
        await expect(row).to_contain_text("40 %, Comparing")

        await change(console, "transitionProject", id=PROJECT, to="PAUSED")
        builder = page.get_by_role("row", name="Builder")
        await expect(builder).to_contain_text("Its project is not in progress.")
        await expect(builder).not_to_contain_text("A task is ready for it")
        await page.get_by_label("State").select_option("Created")
        await expect(page.get_by_role("row")).to_have_count(2)
        await expect(page.get_by_role("row").nth(1)).to_contain_text("assistant")
        # In words, and not by what the API calls it.
        why = "Agents get tasks while they are ready or active; this one is created."
        await expect(page.get_by_role("row").nth(1)).to_contain_text(why)
        of_project = page.get_by_role("combobox", name="Project")
        await of_project.select_option("School weather station")
        await expect(page.get_by_text("No agent is like this")).to_be_visible()
        await page.get_by_label("State").select_option("Any state")
        await of_project.select_option("Imported plan/master")
        await expect(page.get_by_text("This project has no agent yet")).to_be_visible()
        await expect(page.get_by_role("link", name="Show all agents")).to_be_visible()


async def test_agents_are_started_switched_off_and_terminated(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, "/agents?status=CREATED") as page:
        await page.get_by_role("button", name="Start assistant").click()
        await expect(page.get_by_text("No agent is like this")).to_be_visible()
        await go(page, "/agents")
        row, dialog = page.get_by_role("row", name="assistant"), page.get_by_role("dialog")
        buttons = row.get_by_role("button")
        await expect(row.locator(".badge")).to_have_text("Ready")
        await expect(buttons).to_have_text(["Terminate …", "Switch off"])
        await buttons.nth(1).click()
        await expect(row).to_contain_text("Switched off by people")
        await buttons.nth(1).click()
        await expect(row).not_to_contain_text("Switched off by people")
        await buttons.first.click()
        await expect(dialog).to_have_accessible_name("Terminate assistant?")
        assert await faults(page) == []
        await dialog.get_by_role("button", name="Leave it").click()
        await expect(row.locator(".badge")).to_have_text("Ready")
        await buttons.first.click()
        await dialog.get_by_role("button", name="Terminate").click()
        await expect(row.locator(".badge")).to_have_text("Terminated")
        await expect(buttons).to_have_count(0)


async def test_a_change_of_an_agent_that_is_refused_says_why(
    console: Console, browser: Browser
) -> None:
    relay = Relay()
    relay.held = {"AllChanges"}
    async with console.opened(browser, "/agents", before=relay.follow) as page:
        row = page.get_by_role("row", name="assistant")
        start = row.get_by_role("button", name="Start")
        await expect(start).to_be_visible()
        await change(console, "transitionAgent", id=await agent_named(console), to="ERROR")
        await start.click()
        await expect(row.get_by_role("alert")).to_be_visible()
        # It is shown as it is now.
        await expect(row.locator(".badge")).to_have_text("Error")
        # What is done then says nothing of what was refused before.
        await row.get_by_role("button", name="Switch off").click()
        await expect(row).to_contain_text("Switched off by people")
        await expect(row.get_by_role("alert")).to_have_count(0)
        agent = await agent_named(console)
        await change(console, "updateAgent", id=agent, isActive=True)
        await row.get_by_role("button", name="Switch on").click()
        await expect(row.get_by_role("alert")).to_be_visible()
        await expect(row.get_by_role("button", name="Switch off")).to_be_visible()  # as it is now
        await row.get_by_role("button", name="Start again").click()
        await expect(row.locator(".badge")).to_have_text("Ready")
        await expect(row.get_by_role("alert")).to_have_count(0)


async def test_only_those_who_may_edit_a_project_get_its_buttons(
    console: Console, browser: Browser
) -> None:
    query = "query($id: ID!) { agent(id: $id) { project { id } } }"
    assistant = await agent_named(console)
    other = (await console.api.ask(query, id=assistant)).data["agent"]["project"]["id"]
    async with console.database.write(db.Viewer(is_administrator=True)) as session:
        user = await db.User.create(session, username="guest", email="guest@localhost")
        _, token = await access.issue_token(session, user, "test")
        user_id = global_id("User", user.id)
    for project, role in ((PROJECT, "VIEWER"), (other, "EDITOR")):
        member = {"projectId": project, "email": "guest@localhost", "role": role}
        await change(console, "addProjectMember", **member)
    async with browsers.opened(browser, f"{console.url}/#token={token}") as page:
        await go(page, "/agents")
        rows = {name: page.get_by_role("row", name=name) for name in ("assistant", "Builder")}
        await expect(rows["assistant"].get_by_role("button", name="Start")).to_be_visible()
        await expect(rows["Builder"]).to_be_visible()
        await expect(rows["Builder"].get_by_role("button")).to_have_count(0)
        assert await faults(page) == []
        actions = page.locator(".frame .actions").get_by_role("button")
        await go(page, f"/projects/{quote(other)}")
        await expect(actions).not_to_have_count(0)
        moves = page.get_by_role("group", name="Actions").get_by_role("button")
        for path in (f"/projects/{PROJECT}", f"/tasks/{TASK}"):
            async with page.expect_response(lambda it: is_of(it, "EditableProjects")):
                await go(page, path)
            await expect(page.locator(".badge").first).to_be_visible()
            await page.wait_for_timeout(300)  # until buttons would be there
            assert (await actions.count(), await moves.count()) == (0, 0)
        await change(
            console, "updateProjectMember", projectId=PROJECT, userId=user_id, role="EDITOR"
        )
        await go(page, f"/projects/{PROJECT}")
        await expect(actions).not_to_have_count(0)
        await go(page, f"/tasks/{TASK}")
        await expect(moves).not_to_have_count(0)


async def agent_named(console: Console, name: str = "assistant") -> str:
    """The id of an agent of the demo."""
    query = "query($name: String!) { agents(where: {name: {eq: $name}}) { nodes { id } } }"
    return str((await console.api.ask(query, name=name)).data["agents"]["nodes"][0]["id"])


# Usage


async def record(console: Console, agent: Any, **record: Any) -> None:
    """Record a call of the large model."""
    call = {"modelId": "example-large", "agentId": str(agent), **record}
    await change(console, "recordUsage", projectId=PROJECT, records=[call])


async def test_usage_is_shown_in_charts_and_exactly_in_tables(
    console: Console, browser: Browser
) -> None:
    before = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    await record(console, BUILDER, inputTokens=40000, outputTokens=1000, occurredAt=before)
    async with console.opened(browser) as page:
        await expect(title(page)).to_have_text("Projects")
        sent = operations(page)
        await go(page, "/usage")
        totals = page.locator(".totals > div")
        await expect(totals.first).to_contain_text("1.39")
        assert [text.split("\n")[1] for text in await totals.all_inner_texts()] == [
            *("$1.39", "524,100", "1,200", "8,825", "8", "1")
        ]
        assert sorted(sent) == ["ProjectChoices", "Usage"]

        chart = page.get_by_role("img")
        await expect(chart).to_have_accessible_name(re.compile("^Cost by day in the last 30 days"))
        bars = chart.locator("g:has(> .target)")
        await expect(bars).to_have_count(30)
        heights = [
            float(str(await bars.nth(at).locator("rect[fill]").get_attribute("height")))
            for at in (25, 26, 27, 28, 29)
        ]
        assert [height > 0 for height in heights] == [False, True, False, False, True]
        assert heights[4] / heights[1] == pytest.approx(1.28 / 0.11, rel=0.05)
        await page.get_by_text("As a table").click()
        table = page.get_by_role("region", name="Cost by day")
        assert await table.get_by_role("row").nth(1).get_by_role("cell").all_inner_texts() == [
            *("$0.11", "40,000", "0", "1,000", "1")
        ]
        agents = page.get_by_role("region", name="Cost by agent")
        assert [await cells(row) for row in await agents.get_by_role("row").all()] == [
            ["Agent", "Cost", "Input", "Output", "Calls"],
            ["Scout", "$1.28", "483.3K", "7.4K", "6"],
            ["Builder", "$0.11", "40K", "1K", "1"],
            ["Checker", "$0.00", "800", "400", "1"],
        ]

        await page.get_by_label("Show").select_option("Tokens")
        await expect(chart).to_have_accessible_name(re.compile("^Tokens by day"))
        await expect(page.get_by_text("Input from a cache").last).to_be_visible()
        await page.get_by_label("Period").select_option("24 hours")
        await expect(bars).to_have_count(24)
        await expect(totals.first).to_contain_text("1.28")
        await page.get_by_role("combobox", name="Project").select_option("Imported chats")
        await expect(page.get_by_text("No call of a model was recorded")).to_be_visible()
        await expect(page.get_by_text("There is no budget")).to_be_visible()


async def test_budgets_show_how_much_is_used_as_it_is_used(
    console: Console, browser: Browser
) -> None:
    async with console.opened(browser, f"/usage?project={PROJECT}") as page:
        row = page.get_by_role("region", name="Budgets").get_by_role("row").nth(1)
        await expect(row).to_contain_text("School weather station")
        await expect(row).to_contain_text("80 %")
        await expect(row).to_contain_text("$1.60")
        await expect(row.locator(".badge.tone-waiting")).to_contain_text("80 %")
        await record(console, SCOUT, inputTokens=160000)
        await expect(row.locator(".badge.tone-bad")).to_contain_text("105 %")
        await expect(row.locator(".alert")).to_have_count(3)
        await expect(row.locator(".alert").last).to_contain_text("100 %")
        await expect(page.locator(".totals > div").first).to_contain_text("1.68")


async def test_the_most_expensive_are_named_and_the_others_summed(
    console: Console, browser: Browser
) -> None:
    for number in range(12):
        await record(
            console, SCOUT, modelId=None, modelName=f"model-{number}", cost=f"{number + 2}"
        )
    async with console.opened(browser, "/usage") as page:
        models = page.get_by_role("region", name="Cost by model").get_by_role("row")
        await expect(models).to_have_count(12)
        assert (await cells(models.nth(1)))[:2] == ["model-11", "$13.00"]
        assert (await cells(models.nth(11)))[:2] == ["All others", "$6.28"]


# Events


async def test_the_log_is_read_newest_first_and_page_by_page(
    console: Console, browser: Browser
) -> None:
    for number in range(60):
        await change(console, "createTask", projectId=PROJECT, title=f"Task {number}")
    async with console.opened(browser) as page:
        await expect(title(page)).to_have_text("Projects")
        sent = operations(page)
        await go(page, f"/events?project={PROJECT}&type=Task")
        entries = page.locator(".timeline > li")
        await expect(entries).to_have_count(50)
        await expect(entries.first).to_contain_text("admin created task Task 59")
        await expect(entries.first).to_contain_text("in School weather station")
        await page.get_by_role("link", name="Older").click()
        await expect(entries.first).to_contain_text("Task 9")
        await expect(entries).to_have_count(25)
        await page.get_by_role("link", name="Newer").click()
        await expect(entries.first).to_contain_text("Task 59")
        await page.get_by_role("link", name="Newest").click()
        await expect(page.get_by_role("link", name="Newest")).to_have_count(0)
        # The values of what was created have its name: only what that refers to is read, once.
        assert sent.count("EventNames") == 1


async def test_the_log_is_live_until_one_stops_it(console: Console, browser: Browser) -> None:
    async with console.opened(browser, f"/events?project={PROJECT}") as page:
        first = page.locator(".timeline > li").first
        await expect(first).to_contain_text("The free plan")
        await change(console, "transitionProject", id=PROJECT, to="PAUSED")
        await expect(first).to_contain_text("admin changed project School weather station")
        await expect(first).to_contain_text("Status: in progress → paused")
        await page.get_by_label("Live").uncheck()
        await expect(page).to_have_url(re.compile("live=off"))
        sent = operations(page)
        await change(console, "transitionProject", id=PROJECT, to="IN_PROGRESS")
        await page.wait_for_timeout(2_500)
        await expect(first).to_contain_text("Status: in progress → paused")
        assert sent == []
        await page.get_by_label("Live").check()
        await expect(first).to_contain_text("Status: paused → in progress")


async def test_a_filter_reads_once(console: Console, browser: Browser) -> None:
    async with console.opened(browser, "/events") as page:
        await expect(page.get_by_text("Loading …")).to_have_count(0)
        sent = operations(page)
        await go(page, "/events?type=Project")
        await page.wait_for_timeout(3_000)  # longer than the page lets changes wait
        assert sent.count("Events") == 1


async def test_the_log_is_filtered_by_what_who_and_when(console: Console, browser: Browser) -> None:
    async with console.opened(browser, "/events") as page:
        entries = page.locator(".timeline > li")
        await page.get_by_role("combobox", name="By").select_option("Agents")
        await expect(entries).to_have_count(3)
        await expect(entries.first).to_contain_text("Scout created request The free plan")
        await page.get_by_role("combobox", name="Of").select_option("Task")
        await expect(
            page.get_by_text("Nothing that you may see happened like this")
        ).to_be_visible()
        await page.get_by_role("link", name="Show all events").click()
        await expect(entries).to_have_count(50)
        await page.get_by_label("What").select_option("Changed")
        await page.get_by_role("combobox", name="Of").select_option(label="Agent")
        await expect(entries).to_have_count(6)
        await entries.first.get_by_role("link", name="History").click()
        await expect(entries).to_have_count(2)
        await expect(page.get_by_role("link", name=re.compile("^Of Checker"))).to_be_visible()
        await page.get_by_label("What").select_option("All changes")
        await page.get_by_role("combobox", name="Of").select_option("Everything")
        await expect(entries).to_have_count(4)  # with the tool that it has
        await expect(entries.last).to_contain_text("admin created agent Checker")
        values = entries.last.get_by_text('"type": "TESTER"')
        await expect(values).to_be_hidden()
        await entries.last.get_by_text("Values").click()
        await expect(values).to_be_visible()
        await page.get_by_role("link", name=re.compile("^Of Checker")).click()
        await expect(entries).to_have_count(50)

        await page.get_by_role("textbox", name="From").fill("2026-01-01T00:00")
        await expect(entries).to_have_count(50)
        await page.get_by_role("textbox", name="To").fill("2026-01-02T00:00")
        await expect(
            page.get_by_text("Nothing that you may see happened like this")
        ).to_be_visible()


async def test_what_is_most_of_the_log_is_left_out_until_one_wants_it(
    console: Console, browser: Browser
) -> None:
    scout = API(console.database, db.Viewer(agent_id=SCOUT))
    await record(console, SCOUT, inputTokens=1)
    claimed = (await scout.change("claimTask", "attempt { id task { title } }"))["attempt"]
    async with console.opened(browser, f"/events?project={PROJECT}") as page:
        first = page.locator(".timeline > li").first
        group = page.get_by_role("group", name="Types that are left out")
        await expect(first).to_contain_text(f"Scout changed task {claimed['task']['title']}")
        await expect(first).to_contain_text("Status: pending → in progress")
        await expect(group.get_by_role("link")).to_have_text(
            [re.compile("^Attempt"), re.compile("^Usage record")]
        )
        assert await faults(page) == []
        await group.get_by_role("link", name="Attempt").click()
        await expect(page).to_have_url(re.compile("without=UsageRecord"))
        attempts = page.locator(".timeline > li", has_text="attempt 1 at")
        await expect(attempts).to_have_count(1)
        await expect(attempts.get_by_role("link", name=re.compile("^1 at"))).to_be_visible()
        await group.get_by_role("link", name="Usage record").click()
        await expect(group).to_contain_text("Nothing is left out.")
        await expect(page.locator(".timeline > li", has_text="usage record")).not_to_have_count(0)
        await group.get_by_role("combobox").select_option("Task")
        await expect(page).to_have_url(re.compile("without=Task$"))
        await expect(attempts).to_have_count(1)
        await expect(page.locator(".timeline > li", has_text="changed task")).to_have_count(0)
        # Who asks for a type gets it.
        await go(page, "/events?type=UsageRecord")
        await expect(first).to_contain_text("usage record")
        await expect(group).to_have_count(0)


async def test_the_log_names_what_it_is_about_with_links(
    console: Console, browser: Browser
) -> None:
    create = """mutation($project: ID!, $agent: ID!) {
      createTask(input: {projectId: $project, title: "Paint it", agentId: $agent}) {
        task { id } userErrors { message }
      }
    }"""
    values = {"project": PROJECT, "agent": str(BUILDER)}
    made = (await console.api.ask(create, **values)).data["createTask"]["task"]["id"]
    await change(console, "updateTask", id=made, agentId=str(SCOUT))
    await change(
        console, "addTaskDependency", dependentId=made, dependencyId=await first_task(console)
    )
    async with console.opened(browser, f"/events?project={PROJECT}") as page:
        entries = page.locator(".timeline > li")
        await expect(entries.first).to_contain_text("Paint it")
        changed = entries.filter(has_text="changed task Paint it")
        await expect(changed.first).to_be_visible()
        await expect(entries.filter(has_text="Agent: Builder → Scout")).to_have_count(1)
        await expect(entries.filter(has_text="Dependent: Paint it")).to_have_count(1)
        shown = await page.locator(".timeline .changes").all_inner_texts()
        assert [text for text in shown if re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text)] == []
        places = {
            "Builder": "Agents",
            "Paint it": "Paint it",
            "School weather station": "School weather station",
        }
        for name, heading in places.items():
            entry = entries.filter(has_text="Agent: Builder → Scout")
            await entry.get_by_role("link", name=name, exact=True).click()
            await expect(title(page)).to_have_text(heading)
            if name == "Builder":
                await expect(page.get_by_role("row")).to_have_count(2)
                await expect(page.get_by_role("row", name="Builder")).to_be_visible()
            await page.go_back()


async def first_task(console: Console) -> str:
    """The id of a task that waits for nothing."""
    query = """query($project: ID!) { tasks(
      first: 1, where: {projectId: {eq: $project}, unmetDependencyCount: {eq: 0}}
    ) { nodes { id } } }"""
    return str((await console.api.ask(query, project=PROJECT)).data["tasks"]["nodes"][0]["id"])


@pytest.mark.parametrize(
    "path",
    [
        "/agents?project=zzz",
        "/agents?agent=zzz",
        "/agents?after=zzz",
        "/conversations?project=zzz",
        "/conversations?q=word&project=zzz",
        "/events?project=zzz",
        "/events?actor=zzz",
        "/inbox?after=zzz",
        "/usage?project=zzz",
        "/?before=zzz",
    ],
)
async def test_an_address_that_is_not_valid_says_so_and_leads_on(
    console: Console, browser: Browser, path: str
) -> None:
    async with console.opened(browser, path) as page:
        bad = page.get_by_text("The address of this page is not valid")
        await expect(bad).to_be_visible()
        assert await faults(page) == []
        await page.get_by_role("link", name="Show the page without").click()
        await expect(bad).to_have_count(0)
        await expect(page.get_by_text("Loading …")).to_have_count(0)
        await expect(page.get_by_role("alert")).to_have_count(0)
        await expect(page.locator("main :is(table, .timeline, .inbox):visible")).not_to_have_count(
            0
        )


async def test_an_address_with_unknown_values_shows_the_page(
    console: Console, browser: Browser
) -> None:
    shown = {
        "/projects/zzz": "Not found",
        "/tasks/zzz": "Not found",
        "/conversations/zzz": "Not found",
        f"/conversations/{TALK}?message=zzz": "Which rain sensor?",
        f"/conversations/{TALK}?message=99999999999": "Which rain sensor?",
        "/agents?status=zzz": "Agents",
        "/events?object=zzz&action=zzz&actors=zzz": "Events",
        f"/projects/{PROJECT}?view=board&show=zzz": "School weather station",
        "/usage?period=constructor&measure=toString": "Usage",
        "/events?type=zzz": "Events",
        "/events?from=zzz&to=2026&without=zzz": "Events",
    }
    async with console.opened(browser) as page:
        for path, heading in shown.items():
            await go(page, path)
            await expect(title(page)).to_have_text(heading)
            await expect(page.get_by_text("Loading …")).to_have_count(0)
            await expect(page.get_by_role("alert")).to_have_count(0)
            assert {path: await faults(page)} == {path: []}


async def test_the_types_are_those_of_the_log(console: Console, browser: Browser) -> None:
    async with console.opened(browser, "/events") as page:
        options = page.get_by_role("combobox", name="Of").locator("option")
        await expect(options).not_to_have_count(0)
        found = await options.evaluate_all("options => options.map(({ value }) => value)")
        assert sorted(found) == sorted(["", *logged_tables().values()])


async def test_a_request_in_the_log_leads_to_the_inbox(console: Console, browser: Browser) -> None:
    async with console.opened(browser, "/events?type=HumanInteraction") as page:
        await page.get_by_role("link", name="Which city is the school in?", exact=True).click()
        await expect(page.get_by_role("article")).to_have_accessible_name(
            "Which city is the school in?"
        )
