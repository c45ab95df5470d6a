"""The commands for people, over the example data: exactly what they print, and what they refuse."""

from __future__ import annotations

import asyncio
import io
import json
import re
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL, text

import db
from db import access
from graph import demo
from graph.api import API
from graph.cli import output, tokens, usage
from graph.cli.viewers import first_administrator
from graph.usage_summaries import UsageGroup
from tests.processes import Ended, troupe_here
from tests.world import snapshot

STATION = "01940000-0000-7000-8000-000000000010"
SCOUT, BUILDER, CHECKER = demo.AGENTS
HISTORY = "01940000-0000-7000-8000-000000000030"
NOBODY = "There is no user 'nobody'; `troupe users create` creates one."


class Commands:
    """The commands on the database of a test."""

    def __init__(self, database: db.Database, url: str) -> None:
        self.database, self._url = database, url

    async def run(self, *arguments: str) -> Ended:
        """Run a command to its end."""
        return await asyncio.to_thread(troupe_here, *arguments, database_url=self._url)

    async def rows(self, *arguments: str) -> list[list[str]]:
        """The cells of a printed table, the names of its columns first."""
        lines = (await self.run(*arguments)).printed.splitlines()
        return [re.split(r" {2,}", line.strip()) for line in lines]

    async def json(self, *arguments: str) -> Any:
        """The value that a command prints with --json."""
        return json.loads((await self.run(*arguments, "--json")).printed)

    async def refused(self, *arguments: str) -> str:
        """The sentence with which a command refuses; then nothing has changed."""
        before = await snapshot(self.database)
        said = (await self.run(*arguments)).refusal
        assert await snapshot(self.database) == before
        return said

    def api(self, **viewer: Any) -> API:
        """The API for a viewer."""
        return API(self.database, db.Viewer(**viewer))

    async def administrator(self) -> API:
        """The API for the administrator."""
        return API(self.database, await first_administrator(self.database))


@pytest.fixture
def commands(database: db.Database, database_url: URL) -> Commands:
    """The commands on a database with the example data."""
    url = database_url.set(drivername="postgresql").render_as_string(hide_password=False)
    return Commands(database, url)


def shape(value: Any) -> Any:
    """The names in a JSON value, without its values."""
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return ...


NAMED = {"id": ..., "name": ...}


async def test_users_are_listed(commands: Commands) -> None:
    assert (await commands.run("users", "list")).printed == (
        "USERNAME  NAME          EMAIL               ROLE   ACTIVE\n"
        "admin     -             admin@localhost     ADMIN  yes\n"
        "observer  The observer  observer@localhost  USER   yes\n"
        "reviewer  The reviewer  reviewer@localhost  USER   yes\n"
    )
    assert [each["username"] for each in await commands.json("users", "list")] == [
        "admin",
        "observer",
        "reviewer",
    ]
    (found,) = shape(await commands.json("users", "list"))
    assert list(found) == [
        *("id", "username", "displayName", "email", "role", "isActive", "createdAt")
    ]
    first = await commands.run("users", "list", "--first", "2")
    assert first.out.splitlines()[-1].startswith("observer ")
    assert first.err == "troupe: There are more; --first 4 shows more.\n"


async def test_projects_are_listed_as_a_user_sees_them(commands: Commands) -> None:
    header, *rows = await commands.rows("projects", "list")
    assert header == ["ID", "NAME", "STATUS", "AGENTS", "TASKS", "COST"]
    station = [STATION, "School weather station", "IN_PROGRESS", "3", "15", "1.2810"]
    assert [row[1:] for row in rows[:-1]] == [
        ["Imported plan/master", "IN_PROGRESS", "0", "14", "0.0000"],
        ["Imported plan/housing", "IN_PROGRESS", "0", "5", "0.0000"],
        ["Imported chats", "DRAFT", "1", "0", "0.0000"],
    ]
    assert rows[-1] == station
    assert await commands.rows("projects", "list", "--user", "Observer") == [header, station]

    (found,) = await commands.json("projects", "list", "--user", "observer")
    assert found["name"] == "School weather station"
    assert shape(found) == {
        **dict.fromkeys(("id", "name", "status", "cost", "createdAt"), ...),
        "owner": {"id": ..., "username": ...},
        "agents": {"totalCount": ...},
        "tasks": {"totalCount": ...},
    }
    assert await commands.refused("projects", "list", "--user", "nobody") == NOBODY


async def test_who_is_not_active_can_ask_nothing(commands: Commands) -> None:
    admin = commands.api(is_administrator=True)
    (observer,) = (
        user
        for user in (await admin.read("{ users { nodes { id username } } }"))["users"]["nodes"]
        if user["username"] == "observer"
    )
    await admin.of(await _administrator(commands)).change(
        "updateUser", id=observer["id"], isActive=False
    )
    said = await commands.refused("projects", "list", "--user", "observer")
    assert said == "The user 'observer' is not active."


async def test_the_first_administrator_is_made_without_one(commands: Commands) -> None:
    async with commands.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text("UPDATE users SET is_active = false WHERE role = 'ADMIN'"))
    await commands.run("users", "create", "boss", "--email", "b@example.org", "--administrator")
    assert (await _administrator(commands)).is_administrator


async def _administrator(commands: Commands) -> db.Viewer:
    async with commands.database.write(db.Viewer(is_administrator=True)) as session:
        admin = await access.administrator(session)
    assert admin is not None
    return db.Viewer(admin.id, is_administrator=True)


async def test_ready_tasks_are_listed_for_a_project_or_an_agent(commands: Commands) -> None:
    header, *rows = await commands.rows("tasks", "ready", "--agent", "Scout")
    assert header == ["ID", "PRIORITY", "TYPE", "AGENT", "TITLE"]
    assert [row[1:] for row in rows] == [
        ["5", "RESEARCHER", "-", "Choose the sensors"],
        ["4", "RESEARCHER", "-", "Find the weather of the last ten years"],
        ["2", "RESEARCHER", "-", "Compare housings"],
    ]
    assert rows[1][0] == HISTORY
    for project in (STATION, "School weather station"):
        found = await commands.json("tasks", "ready", "--project", project)
        assert len(found) == 7
        assert shape(found[0]) == {
            **dict.fromkeys(("id", "title", "type", "status", "priority"), ...),
            **dict.fromkeys(("availableAt", "dueAt", "agent"), ...),
        }
    # The observer sees one project; several need a name.
    assert len(await commands.json("tasks", "ready", "--user", "observer")) == 7
    several = (
        "3 projects are IN_PROGRESS; name one with --project: 'Imported plan/master',"
        " 'Imported plan/housing', 'School weather station'."
    )
    assert await commands.refused("tasks", "ready") == several
    none = await commands.refused("tasks", "ready", "--project", "None")
    assert none == "There is no project 'None'; `troupe projects list` shows them all."


async def test_a_task_is_claimed_once_for_an_agent(commands: Commands) -> None:
    details = (await commands.run("tasks", "claim", "--agent", "Scout")).printed
    id = "[0-9a-f-]{36}"
    assert re.fullmatch(
        rf"Attempt:     {id}\n"
        r"Number:      1\n"
        r"Agent:       Scout\n"
        r"Lease until: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\n"
        rf"Task:        {id}  Choose the sensors\n"
        r"Project:     School weather station\n",
        details,
    )
    full = "This agent works on as many tasks as it may at once: 1 of 1."
    assert (await commands.run("tasks", "claim", "--agent", "Scout")).printed == f"{full}\n"
    assert await commands.json("tasks", "claim", "--agent", str(SCOUT)) == {
        "reason": "AGENT_AT_CAPACITY",
        "message": full,
        "availableAt": None,
        "attempt": None,
    }
    claim = ("tasks", "claim", "--agent", "Builder", "--project", STATION)
    claimed = await commands.json(*claim, "--type", "DEVELOPER", "--lease", "900")
    assert shape(claimed["attempt"]) == {
        **dict.fromkeys(("id", "number", "leaseExpiresAt"), ...),
        "agent": NAMED,
        "task": {**dict.fromkeys(("id", "title", "type", "priority"), ...), "project": NAMED},
    }
    assert claimed["attempt"]["task"]["title"] == "Read the sensors every minute"
    (attempt,) = (
        await commands.api(is_administrator=True).read(
            "query($id: ID!) { node(id: $id) { ... on TaskAttempt { status agent { name } } } }",
            id=claimed["attempt"]["id"],
        )
    ).values()
    assert attempt == {"status": "RUNNING", "agent": {"name": "Builder"}}

    for options, says in {
        ("Ghost",): "There is no agent 'Ghost'; the console shows the agents of each project.",
        (
            "Scout",
            "--project",
            "None",
        ): "There is no project 'None'; `troupe projects list` shows them all.",
        ("Checker", "--lease", "99999999"): (
            "The lease seconds cannot be used: this must be 86,400 or less."
        ),
    }.items():
        assert await commands.refused("tasks", "claim", "--agent", *options) == says


async def test_a_terminated_agent_claims_nothing(commands: Commands) -> None:
    api = commands.api(is_administrator=True).of(await _administrator(commands))
    await api.change("transitionAgent", id=str(SCOUT), to="TERMINATED")
    said = await commands.refused("tasks", "claim", "--agent", "Scout")
    assert said == "The agent 'Scout' is terminated."


async def test_a_task_is_shown(commands: Commands) -> None:
    shown = (await commands.run("tasks", "show", HISTORY)).printed
    assert shown == (
        f"Task:        {HISTORY}\n"
        "Title:       Find the weather of the last ten years\n"
        "Project:     School weather station\n"
        "Status:      PENDING\n"
        "Type:        RESEARCHER\n"
        "Priority:    4\n"
        "Description: For the city of the school; it must be free to show.\n"
        "Attempts:    0 of 3\n"
        "Cost:        0.0000\n"
    )
    scout = commands.api(agent_id=SCOUT)
    attempt = (await scout.change("claimTask", "attempt { id task { id } }"))["attempt"]
    report = {"attemptId": attempt["id"], "progressPercent": 40, "statusMessage": "Two\nleft\x1b["}
    await scout.change("heartbeat", attempts=[report])
    shown = (await commands.run("tasks", "show", attempt["task"]["id"])).printed
    assert "\nStatus:      IN_PROGRESS\nNot ready:   " in shown
    assert re.search(
        r"^Last: +1\. RUNNING, by Scout, since \S+ \S+Z, 40 %, Two left \[$",
        shown,
        re.MULTILINE,
    )
    found = await commands.json("tasks", "show", attempt["task"]["id"])
    assert shape(found)["attempts"] == {
        "nodes": [
            {
                **dict.fromkeys(("id", "number", "status", "progressPercent"), ...),
                **dict.fromkeys(("statusMessage", "startedAt", "endedAt"), ...),
                "agent": NAMED,
            }
        ]
    }
    assert {"title", "whyNotReady", "dependencies", "result", "error", "cost"} <= found.keys()

    waiting = HISTORY.replace("30", "3f")
    admin = await commands.administrator()
    await admin.change("createTask", id=waiting, projectId=STATION, title="Draw the weather")
    await admin.change("addTaskDependency", dependentId=waiting, dependencyId=HISTORY)
    shown = (await commands.run("tasks", "show", waiting)).printed
    history = f"{HISTORY}  Find the weather of the last ten years"
    assert f"\nNot ready:  It waits for a task that is PENDING. {history}\n" in shown
    assert f"\nDepends on: {history} (PENDING)\n" in shown

    other = HISTORY.replace("30", "31")
    assert await commands.refused("tasks", "show", other) == f"There is no task '{other}'."
    said = "'nonsense' is not the id of a Task: use its `id` or its UUID."
    assert await commands.refused("tasks", "show", "nonsense") == said


async def asked(commands: Commands, **values: Any) -> str:
    """The id of an approval that Scout asks for."""
    content = {
        "price": Decimal("28.70"),
        "to": "\x1b[31m\u202e",
        "number": Decimal("12345678901234567890.123"),
    }
    values = {"title": "Order?", "content": content} | values
    payload = await commands.api(agent_id=SCOUT).change(
        "requestApproval", "approvalRequest { id }", projectId=STATION, **values
    )
    return str(payload["approvalRequest"]["id"])


async def test_the_inbox_shows_what_waits_for_a_user(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    title = "May we order all of this from the shop around the corner,\nfor 28.70 dollars?"
    await asked(commands, priority=5, title=title, expiresAt="2999-01-01T00:00:00Z")
    found = await commands.json("inbox")
    types = ["APPROVAL", "NOTIFICATION", "FEEDBACK", "CLARIFICATION"]
    assert [each["type"] for each in found] == types
    ids = [output.bare_id(each["id"]) for each in found]
    monkeypatch.setenv("COLUMNS", "80")
    station = "in School weather station"
    assert (await commands.run("inbox", "--user", "reviewer")).printed == (
        "May we order all of this from the shop around the corner, for 28.70 dollars?\n"
        f"  APPROVAL, priority 5, from agent Scout, {station}, expires\n"
        "  2999-01-01 00:00:00Z\n"
        f"  troupe approve {ids[0]}\n"
        "\n"
        "The free plan of the weather archive allows 1,000 requests a day\n"
        f"  NOTIFICATION, priority 3, from agent Scout, {station}\n"
        f"  troupe acknowledge {ids[1]}\n"
        "\n"
        "Is this the weather station that you had in mind?\n"
        f"  FEEDBACK, priority 3, from agent Scout, {station}\n"
        f"  troupe answer {ids[2]}\n"
        "\n"
        "Which city is the school in?\n"
        f"  CLARIFICATION, priority 3, from agent Scout, {station}\n"
        f"  troupe answer {ids[3]}\n"
    )
    assert shape(found[0]) == {
        **dict.fromkeys(("id", "type", "title", "status", "priority"), ...),
        **dict.fromkeys(("contentHash", "createdAt", "expiresAt", "blocksTask"), ...),
        **dict.fromkeys(("task", "askedByUser", "assignee"), ...),
        "project": NAMED,
        "askedByAgent": NAMED,
    }


async def test_what_is_approved_is_shown_first(commands: Commands) -> None:
    request = await asked(commands, requiredApprovals=2)
    first = await commands.run("approve", request, "--yes", "--comment", "Fine.")
    assert (first.status, first.out) == (0, "Approved; it has 1 of 2 approvals.\n")
    id = output.bare_id(request)
    assert re.sub("[0-9a-f]{64}", "<hash>", first.err) == (
        f"Request:   {id}\n"
        "Title:     Order?\n"
        "Status:    PENDING\n"
        "From:      agent Scout\n"
        "Project:   School weather station\n"
        "Approvals: 0 of 2\n"
        "Hash:      <hash>\n"
        "Content:\n"
        "  {\n"
        '    "to": "\\u001b[31m\\u202e",\n'
        '    "price": 28.70,\n'
        '    "number": 12345678901234567890.123\n'
        "  }\n"
    )
    second = await commands.run("approve", id, "--yes", "--user", "reviewer", "--json")
    assert second.status == 0
    answered = json.loads(second.out)
    assert list(answered) == [
        *("id", "title", "status", "approved", "comment"),
        *("requiredApprovals", "approvalCount", "contentHash"),
    ]
    assert (answered["status"], answered["approved"]) == ("APPROVED", True)

    rejected = await commands.run(
        "approve", await asked(commands), "--yes", "--reject", "--comment", "Too much."
    )
    assert (rejected.status, rejected.out) == (0, "Rejected.\n")

    # Titles that look alike are told apart.
    request = await asked(commands, title="Pay\u00a0Ann\u200b\u202e")
    done = await commands.run("approve", request, "--yes")
    assert "\nTitle:     Pay\\u00a0Ann\\u200b\\u202e\n" in done.err


class Typed(io.StringIO):
    """What somebody types in a terminal."""

    def isatty(self) -> bool:
        return True


async def test_an_answer_is_confirmed_in_a_terminal(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await asked(commands)
    monkeypatch.setattr("sys.stdin", Typed("n\n"))
    before = await snapshot(commands.database)
    left = await commands.run("approve", request)
    # The prompt is on standard error, except a blank, which lets a terminal edit the line.
    assert (left.status, left.out.strip()) == (1, "")
    assert "Title:     Order?" in left.err
    assert "Approve it? [y/N]:" in left.err
    assert await snapshot(commands.database) == before
    monkeypatch.setattr("sys.stdin", Typed("y\n"))
    done = await commands.run("approve", request, "--reject")
    assert (done.status, done.out.strip()) == (0, "Rejected.")
    assert "Reject it? [y/N]:" in done.err


async def test_what_may_not_be_approved_is_not(commands: Commands) -> None:
    request = await asked(commands)
    before = await snapshot(commands.database)
    for user, says in {
        "observer": (
            "troupe: You may see this HumanInteraction, but not do this to it: that needs the right"
            " ANSWER, which members of the project with the role OWNER, EDITOR or APPROVER have."
            " Owners of the project give roles by addProjectMember and updateProjectMember."
        ),
        "nobody": f"troupe: {NOBODY}",
    }.items():
        done = await commands.run("approve", request, "--yes", "--user", user)
        assert (done.status, done.out) == (1, "")
        assert done.err.splitlines()[-1] == says
    done = await commands.run("approve", request)
    assert (done.status, done.out) == (2, "")
    assert "'--yes': it is needed if no one can confirm" in done.err
    assert await snapshot(commands.database) == before
    for kind, id in (await waiting(commands)).items():
        own = {"APPROVAL": "approve", "NOTIFICATION": "acknowledge"}.get(kind, "answer")
        for command in {"approve", "answer", "acknowledge"} - {own}:
            text = ("Vienna",) if command == "answer" else ()
            said = await commands.refused(command, id, *text, "--yes")
            assert said == f"This is a {kind}; `troupe {own} {id}` answers it."
    assert await commands.refused("approve", HISTORY, "--yes") == (
        f"There is no request '{HISTORY}'; `troupe inbox` lists what waits."
    )


async def waiting(commands: Commands) -> dict[str, str]:
    """The ids of the requests that wait, by their types."""
    found = await commands.json("inbox")
    return {each["type"]: output.bare_id(each["id"]) for each in found}


async def test_who_comes_second_is_told_who_answered_and_how(commands: Commands) -> None:
    at = r"at \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"
    request = await asked(commands, requiredApprovals=2)
    for user in ("admin", "reviewer"):
        await commands.run("approve", request, "--yes", "--user", user, "--comment", "Fine.")
    assert re.fullmatch(
        "This request was answered already:"
        f" APPROVED by admin {at}: Fine.; APPROVED by reviewer {at}: Fine[.]",
        await commands.refused("approve", request, "--yes", "--reject"),
    )
    question = (await waiting(commands))["CLARIFICATION"]
    assert (await commands.run("answer", question, "Vienna", "--yes")).out == "Answered.\n"
    assert re.fullmatch(
        rf"This request was answered already: ANSWERED by admin {at}: Vienna[.]",
        await commands.refused("answer", question, "Graz", "--yes"),
    )
    request = await asked(commands)
    scout = commands.api(agent_id=SCOUT)
    await scout.change("cancelInteraction", id=request)
    said = await commands.refused("approve", request, "--yes")
    assert said == "This request is CANCELLED: it cannot be answered any more."


async def test_a_request_that_is_answered_while_one_reads_it_says_so(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await asked(commands)

    class Slow(io.StringIO):
        """Somebody who types yes after another person has answered."""

        def isatty(self) -> bool:
            return True

        def readline(self, *_: Any) -> str:  # type: ignore[override]
            answers = {"id": request, "approved": False, "contentHash": hashes[0]}
            done = asyncio.run_coroutine_threadsafe(
                admin.change("respondToApproval", **answers), loop
            )
            done.result()
            return "y\n"

    loop = asyncio.get_running_loop()
    admin = commands.api(is_administrator=True).of(await _administrator(commands))
    hashes = [each["contentHash"] for each in await commands.json("inbox") if each["id"] == request]
    monkeypatch.setattr("sys.stdin", Slow())
    done = await commands.run("approve", request)
    assert done.status == 1
    said = done.err.splitlines()[-1]
    assert "This request was answered already: REJECTED by admin at " in said


async def test_questions_feedback_and_notifications_are_answered(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = await waiting(commands)
    said = await commands.run("answer", waits["CLARIFICATION"], "x", "--rating", "3", "--yes")
    assert (said.status, said.out) == (1, "")
    assert said.err.endswith("\ntroupe: This is a question; only feedback has a --rating.\n")
    for yes in ((), ("--yes",)):  # nobody can write the answer
        said = await commands.run("answer", waits["FEEDBACK"], *yes)
        assert (said.status, said.out) == (2, "")
        assert "Invalid value for 'TEXT': write the answer" in said.err

    given = ("answer", waits["FEEDBACK"], "Quite.", "--rating", "4", "--yes", "--json")
    answered = json.loads((await commands.run(*given)).out)
    assert answered.pop("id")
    assert answered.pop("contentHash")
    assert answered == {
        "title": "Is this the weather station that you had in mind?",
        "status": "ANSWERED",
        "feedback": {"text": "Quite."},
        "rating": 4,
    }
    done = await commands.run("acknowledge", waits["NOTIFICATION"], "--yes")
    assert (done.status, done.out) == (0, "Acknowledged.\n")
    assert "Approvals:" not in done.err

    # In a terminal, the answer is asked for.
    monkeypatch.setattr("sys.stdin", Typed("Vienna\n"))
    done = await commands.run("answer", waits["CLARIFICATION"])
    assert (done.status, done.out.strip()) == (0, "Answered.")
    assert "Which one is it?" in done.err
    asked_for = """query($id: ID!) {
      humanInteraction(id: $id) { ... on ClarificationRequest { answer } }
    }"""
    api = commands.api(is_administrator=True)
    assert await api.read(asked_for, id=waits["CLARIFICATION"]) == {
        "humanInteraction": {"answer": "Vienna"}
    }
    assert (await commands.run("inbox")).printed == "Nothing waits for an answer.\n"


USAGE = ["CALLS", "FAILURES", "INPUT", "CACHED", "OUTPUT", "COST"]


async def test_usage_is_summed(commands: Commands) -> None:
    whole = ["7", "1", "484100", "1200", "7825", "1.2810"]
    assert await commands.rows("usage") == [["PROJECT", *USAGE], ["School weather station", *whole]]
    scout = ["6", "0", "483300", "1200", "7425", "1.2810"]
    checker = ["1", "1", "800", "0", "400", "0.0000"]
    for group, names in {"agent": ("Scout", "Checker"), "model": ("large", "small")}.items():
        header, *rows = await commands.rows("usage", "--by", group, "--project", STATION)
        assert header == [group.upper(), *USAGE]
        assert [row[0].removeprefix("example-") for row in rows] == list(names)
        assert [row[1:] for row in rows] == [scout, checker]
    header, *rows = await commands.rows("usage", "--by", "day", "--by", "agent", "--days", "2")
    assert header == ["DAY", "AGENT", *USAGE]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", rows[0][0])
    header, *rows = await commands.rows("usage", "--by", "hour", "--by", "day")
    assert header == ["HOUR", *USAGE]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:00Z", rows[0][0])
    for group in ("task", "user"):
        assert await commands.rows("usage", "--by", group) == [
            [group.upper(), *USAGE],
            ["-", *whole],
        ]
    assert shape(await commands.json("usage", "--by", "agent")) == [
        {
            "agent": NAMED,
            **dict.fromkeys(("calls", "failures", "inputTokens", "cachedInputTokens"), ...),
            **dict.fromkeys(("cacheCreationTokens", "outputTokens", "reasoningTokens"), ...),
            **dict.fromkeys(("cost", "unpricedCalls"), ...),
        }
    ]


async def test_usage_says_which_calls_have_no_price(commands: Commands) -> None:
    assert (await commands.run("usage")).err == ""
    admin = await commands.administrator()
    call = {"modelName": "unknown", "inputTokens": 1}
    for said in ("1 call has", "2 calls have"):
        await admin.change("recordUsage", projectId=STATION, records=[call])
        shown = await commands.run("usage", "--by", "model")
        assert shown.out.splitlines()[-1].split()[-1] == "0.0000"
        assert shown.err == (
            f"troupe: {said} no price yet and count as 0. `createAiModel` or `updateAiModel` of the"
            " API sets the prices of a model, and then `repriceUsage` the costs.\n"
        )
    assert (await commands.run("usage", "--json")).err == ""


async def test_tokens_are_listed_without_secrets_and_revoked(commands: Commands) -> None:
    work = ("tokens", "create", "worker", "--agent", "Scout", "--scope", "work")
    made = await commands.json(*work)
    assert list(made) == ["id", "name", "prefix", "scopes", "expiresAt", "token"]
    own = (await commands.run("tokens", "create", "laptop", "--user", "admin", "--days", "2")).out
    token, prefix = own.strip(), own[:12]
    header, *rows = await commands.rows("tokens", "list")
    assert header == ["TOKEN", "NAME", "OF", "SCOPES", "LAST USED", "EXPIRES"]
    assert rows[0][:-1] == [f"{prefix}…", "laptop", "user admin", "all", "-"]
    assert rows[1] == [f"{made['prefix']}…", "worker", "agent Scout", "work", "-", "-"]
    (found,) = await commands.json("tokens", "list", "--agent", "Scout")
    assert shape(found) == {
        **dict.fromkeys(("id", "name", "prefix", "createdAt", "expiresAt"), ...),
        **dict.fromkeys(("revokedAt", "lastUsedAt", "user"), ...),
        "scopes": [...],
        "agent": {**NAMED, "project": NAMED},
    }
    assert found["scopes"] == ["WORK"]
    (found,) = await commands.json("tokens", "list", "--user", "admin")
    assert found["scopes"] == ["READ", "WORK", "WRITE", "ADMINISTER"]  # it is not limited
    printed = (await commands.run("tokens", "list", "--all", "--json")).printed
    assert token not in printed
    assert made["token"] not in printed

    # By its first characters, by the whole token, by its id.
    assert (await commands.run("tokens", "revoke", f"{made['prefix']}…")).printed == (
        f"Revoked the token {made['prefix']}… (worker).\n"
    )
    assert (await commands.run("tokens", "revoke", token)).printed == (
        f"Revoked the token {prefix}… (laptop).\n"
    )
    hashed = access.hash_token(token)
    assert await access.bearers(commands.database, [hashed]) == {}
    assert await commands.rows("tokens", "list") == [header]
    assert [row[0] for row in await commands.rows("tokens", "list", "--all")] == [
        "TOKEN",
        f"{prefix}…",
        f"{made['prefix']}…",
    ]
    assert await commands.refused("tokens", "revoke", token) == (
        f"There is no token {prefix}…; `troupe tokens list` shows those that can be revoked."
    )
    for short in ("troupe_", f"{made['prefix'][:-1]}…"):
        assert await commands.refused("tokens", "revoke", short) == (
            f"{short.rstrip('…')} is too short: give the first 12 characters of the token, as"
            " `troupe tokens list` shows them."
        )
    assert (await commands.run("tokens", "revoke", made["id"])).status == 0
    assert await commands.refused("tokens", "list", "--user", "nobody") == NOBODY


def test_the_choices_are_those_of_the_api() -> None:
    assert [each.name for each in tokens.Scope] == [each.name for each in db.TokenScope]
    assert [each.name for each in usage.Group] == [each.name for each in UsageGroup]


def test_the_prefix_of_a_token_is_as_long_as_that_stored() -> None:
    assert tokens.PREFIX_LENGTH == access.PREFIX_LENGTH


# Tables


def test_a_table_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = [
        ["0123456789", "ein langer Titel über mehr", 12],
        ["9876543210", "漢字漢字漢字漢字漢字", 3],
    ]
    columns = ("ID", "TITLE", "NUMBER")

    def lines() -> list[str]:
        output.print_table(columns, rows, numbers=("NUMBER",))
        return capsys.readouterr().out.splitlines()

    assert lines()[1] == "0123456789  ein langer Titel über mehr      12"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert lines() == [
        "ID          TITLE                 NUMBER",
        "0123456789  ein langer Titel üb…      12",
        "9876543210  漢字漢字漢字漢字漢字       3",
    ]
    monkeypatch.setenv("COLUMNS", "10")  # narrower than it can be
    assert lines()[1] == "0123456789  ein lan…      12"


def test_text_cannot_control_the_terminal() -> None:
    assert output.printable("a\x1b[31m\nb\u202ec") == "a [31m b c"
    assert [output.printable(each) for each in (None, True, False, 3)] == ["-", "yes", "no", "3"]
