"""The Model Context Protocol: what agents do by its tools, and who is turned away."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from sqlalchemy import URL, update
from starlette.routing import Route

import db
from db import AgentStatus, ProjectStatus, TokenScope
from graph.execution.logs import operations
from graph.mcp.tools import TOOLS
from graph.settings import Settings
from tests import factories
from tests.client import counted
from tests.conftest import ADMIN, People, application, serving
from tests.following import numbering
from tests.processes import CODE
from tests.test_disconnects import Leaving, none_waits
from tests.test_sessions import locked, waiting
from tests.world import AGENT_TOKEN, World, gid, make_world, snapshot, stored

VERSION = "2026-07-28"
TASKS = "io.modelcontextprotocol/tasks"
META = "io.modelcontextprotocol/"
MEDIA = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
NAMES = [
    "find_ready_work",
    "claim",
    "heartbeat",
    "ask_person",
    "wait_for_answer",
    "complete",
    "fail",
    "release",
    "send",
    "receive",
    "record_usage",
    "search",
]


@dataclass(frozen=True)
class Agent:
    """Sends requests of the protocol as whoever a token names."""

    http: httpx.AsyncClient
    token: str | None = AGENT_TOKEN
    extensions: tuple[str, ...] = ()

    def message(self, method: str, **params: Any) -> dict[str, Any]:
        """A request of the stateless version."""
        meta = {
            f"{META}protocolVersion": VERSION,
            f"{META}clientCapabilities": {"extensions": {key: {} for key in self.extensions}},
        }
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}

    def headers(self, message: dict[str, Any]) -> dict[str, str]:
        """The headers that belong to a request."""
        params = message["params"]
        named = {"mcp-name": params["name"]} if "name" in params else {}
        named |= {"mcp-name": params["taskId"]} if "taskId" in params else {}
        token = {"authorization": f"Bearer {self.token}"} if self.token else {}
        version = {"mcp-protocol-version": VERSION, "mcp-method": message["method"]}
        return MEDIA | version | named | token

    def of_version(self, version: str, method: str, **params: Any) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of a request of a version."""
        message = self.message(method, **params)
        headers = self.headers(message) | {"mcp-protocol-version": version}
        if version != VERSION:
            del message["params"]["_meta"]
        return orjson.dumps(message), headers

    async def post(self, method: str, **params: Any) -> httpx.Response:
        """The response over HTTP."""
        message = self.message(method, **params)
        return await self.raw(orjson.dumps(message), **self.headers(message))

    async def raw(self, body: bytes, **headers: str) -> httpx.Response:
        """The response to a body."""
        return await self.http.post("/mcp", content=body, headers=headers)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of a request."""
        response = await self.post(method, **params)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()["result"]
        return result

    async def error(self, method: str, **params: Any) -> tuple[int, int, str]:
        """The status, the code and the message of the error of a request."""
        response = await self.post(method, **params)
        error = response.json()["error"]
        return response.status_code, error["code"], error["message"]

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call of a tool."""
        return await self.ask("tools/call", name=name, arguments=arguments)

    async def use(self, name: str, **arguments: Any) -> Any:
        """What a tool finds or does; it is in the form of its schema, and as text the same."""
        result = await self.call(name, **arguments)
        assert not result["isError"], result
        (content,) = result["content"]
        assert json.loads(content["text"]) == result["structuredContent"]
        listed = (await self.ask("tools/list"))["tools"]
        (schema,) = (each["outputSchema"] for each in listed if each["name"] == name)
        Draft202012Validator(schema).validate(result["structuredContent"])
        return result["structuredContent"]

    async def refused(self, name: str, **arguments: Any) -> str:
        """Why a tool has not done it."""
        result = await self.call(name, **arguments)
        assert result["isError"], result
        assert "structuredContent" not in result
        (content,) = result["content"]
        return str(content["text"])


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    """The project is in progress, and Ada, a DEVELOPER, is ready. One task is free."""
    world = await make_world(database, http, people)
    await change(world, world.project, status=ProjectStatus.IN_PROGRESS)
    await change(world, world.ada, status=AgentStatus.READY)
    return world


async def change(world: World, row: Any, **values: Any) -> None:
    """Set values of a row, past the rules."""
    async with world.database.write(ADMIN) as session:
        await session.execute(update(type(row)).where(type(row).id == row.id).values(**values))


@pytest.fixture
def ada(world: World, http: httpx.AsyncClient) -> Agent:
    """Ada."""
    return Agent(http)


@pytest.fixture
def owner(world: World, http: httpx.AsyncClient) -> Agent:
    """The owner of the project, who is no agent."""
    return Agent(http, world.owner.token)


@pytest.fixture
def stranger(world: World, http: httpx.AsyncClient) -> Agent:
    """A user who sees nothing of the project."""
    return Agent(http, world.people.stranger.token)


async def with_settings(database: db.Database, **values: Any) -> AsyncIterator[Agent]:
    """Ada, at a server with other settings."""
    async with serving(database, Settings().model_copy(update=values)) as http:
        yield Agent(http)


# What there is


async def test_there_are_twelve_tools_made_of_the_schema(ada: Agent) -> None:
    tools = (await ada.ask("tools/list"))["tools"]
    assert [tool["name"] for tool in tools] == NAMES == [tool.name for tool in TOOLS]
    for tool in tools:
        Draft202012Validator.check_schema(tool["inputSchema"])
        Draft202012Validator.check_schema(tool["outputSchema"])
        assert tool["outputSchema"]["type"] == tool["inputSchema"]["type"] == "object"
        assert tool["inputSchema"]["additionalProperties"] is False
        assert tool["annotations"]["destructiveHint"] is False
        # Some clients take no longer descriptions.
        assert len(tool["description"]) < 1024
    by_name = {tool["name"]: tool for tool in tools}
    heartbeat = by_name["heartbeat"]["inputSchema"]
    assert heartbeat["required"] == ["attemptId"]
    assert heartbeat["properties"]["progressPercent"] == {
        "type": "integer",
        "minimum": 0,
        "maximum": 100,
        "description": "The progress in percent, from 0 to 100.",
    }
    assert by_name["claim"]["description"].endswith(
        "Take the most urgent task that is ready, and begin an attempt at it.\n\nIf there is none,"
        " `reason` says why, and there is no error."
    )
    attempt = by_name["claim"]["outputSchema"]["properties"]["attempt"]
    assert "traceparent" in attempt["properties"]
    assert by_name["ask_person"]["inputSchema"]["required"] == ["kind", "title", "content"]
    assert by_name["receive"]["inputSchema"]["required"] == []
    assert by_name["find_ready_work"]["annotations"]["readOnlyHint"] is True
    assert by_name["claim"]["annotations"]["readOnlyHint"] is False


async def test_the_server_says_what_it_is(ada: Agent) -> None:
    found = await ada.ask("server/discover")
    assert found["supportedVersions"] == [VERSION]
    assert found["capabilities"] == {"tools": {"listChanged": False}, "extensions": {TASKS: {}}}
    assert "Claim a task" in found["instructions"]


def test_the_sdk_is_not_imported_before_the_first_request() -> None:
    code = "import graph.app, sys; print([n for n in sys.modules if n.split('.')[0] == 'mcp'])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CODE, capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


# Work


async def test_an_agent_with_nothing_but_the_address_works_on_a_task(
    world: World, ada: Agent
) -> None:
    await change(world, world.free, input={"depth": 2}, acceptance_criteria="It is deep.")
    found = await ada.use("find_ready_work")
    assert found == {
        "nodes": [{"id": gid(world.free), "title": "Free", "priority": 3}],
        "pageInfo": {"hasNextPage": False, "endCursor": found["pageInfo"]["endCursor"]},
    }
    claimed = (await ada.use("claim", leaseSeconds=100))["attempt"]
    lease = datetime.fromisoformat(claimed["leaseExpiresAt"]) - datetime.now(UTC)
    assert 60 < lease.total_seconds() <= 100
    assert claimed["task"] == {
        "id": gid(world.free),
        "title": "Free",
        "priority": 3,
        "input": {"depth": 2},
        "acceptanceCriteria": "It is deep.",
        "resourceKeys": [],
        "maxAttempts": 3,
        "project": {"id": gid(world.project), "name": "Moon base"},
        "attempts": [{"number": 1, "status": "RUNNING"}],
        "interactions": [],
    }
    (beat,) = (
        await ada.use(
            "heartbeat",
            attemptId=claimed["id"],
            progressPercent=50,
            statusMessage="Half",
            checkpoint={"dug": 1},
        )
    )["attempts"]
    assert beat["status"] == "RUNNING"
    assert (beat["leaseLost"], beat["cancelRequested"], beat["pauseRequested"]) == (False,) * 3
    row = "SELECT progress_percent, status_message, checkpoint::text FROM task_attempts"
    assert await stored(world.database, row) == [(50, "Half", '{"dug": 1}')]
    ended = await ada.use("complete", attemptId=claimed["id"], result={"depth": 2})
    assert ended["attempt"]["status"] == "SUCCEEDED"
    assert ended["attempt"]["task"]["status"] == "COMPLETED"
    # Its dependent is ready now.
    assert (await ada.use("claim"))["attempt"]["task"]["title"] == "Subtask"


async def test_no_task_is_a_reason_and_no_error(world: World, ada: Agent) -> None:
    await change(world, world.project, status=ProjectStatus.PAUSED)
    found = await ada.use("claim")
    assert found.keys() == {"reason", "message"}
    assert found["reason"] == "PROJECT_NOT_IN_PROGRESS"


async def test_a_handover_and_a_failure_reach_the_next_attempt(world: World, ada: Agent) -> None:
    first = (await ada.use("claim"))["attempt"]
    released = await ada.use(
        "release", attemptId=first["id"], handover="Dig on.", checkpoint={"dug": 1}
    )
    assert released["attempt"]["status"] == "RELEASED"
    second = (await ada.use("claim"))["attempt"]
    assert second["task"]["checkpoint"] == {"dug": 1}
    assert second["task"]["attempts"] == [
        {"number": 1, "status": "RELEASED", "handover": "Dig on."},
        {"number": 2, "status": "RUNNING"},
    ]
    failed = await ada.use("fail", attemptId=second["id"], error="Rock.", retryable=False)
    assert failed["attempt"]["task"]["status"] == "FAILED"
    assert await stored(
        world.database, "SELECT error::text FROM task_attempts WHERE number = 2"
    ) == ['"Rock."']


async def test_a_call_costs_as_many_statements_as_the_operation(world: World, ada: Agent) -> None:
    (claim,) = (tool for tool in TOOLS if tool.name == "claim")
    await ada.call("claim")  # which compiles it
    with counted(world.database) as statements:
        await ada.call("claim")
    answer = await world.agent.ask(claim.document)
    assert answer.data["claimTask"]["reason"] == "AGENT_AT_CAPACITY"
    assert statements[1:] == answer.statements  # the first is the look-up of the token


async def test_a_repeated_claim_is_the_first_one(world: World, ada: Agent) -> None:
    first = await ada.use("claim", idempotencyKey="one")
    assert await ada.use("claim", idempotencyKey="one") == first
    before = await snapshot(world.database)
    conflict = await ada.refused("claim", idempotencyKey="one", leaseSeconds=7)
    assert conflict.endswith("[CONFLICT]")
    assert await snapshot(world.database) == before


async def test_claims_at_once_get_different_tasks(world: World, ada: Agent) -> None:
    await change(world, world.ada, max_concurrent_tasks=5)
    async with world.database.write(ADMIN) as session:
        for number in range(10):
            await factories.make_task(session, world.project, f"Task {number}", priority=4)
    found = await asyncio.gather(*(ada.use("claim") for _ in range(10)))
    titles = [each["attempt"]["task"]["title"] for each in found if "attempt" in each]
    assert len(titles) == len(set(titles)) == 5
    assert {each["reason"] for each in found if "attempt" not in each} == {"AGENT_AT_CAPACITY"}


async def test_numbers_keep_all_digits(world: World, ada: Agent) -> None:
    attempt = (await ada.use("claim"))["attempt"]["id"]
    exact = b'{"price":1.10,"atoms":123456789012345678901234567890}'
    message = ada.message("tools/call", name="heartbeat", arguments={"attemptId": attempt})
    body = orjson.dumps(message).replace(b'"arguments":{', b'"arguments":{"checkpoint":%b,' % exact)
    response = await ada.raw(body, **ada.headers(message))
    assert response.status_code == 200
    await ada.use("release", attemptId=attempt)
    result = await ada.call("claim")
    text = result["content"][0]["text"]
    assert '"price":1.10' in text
    assert '"atoms":123456789012345678901234567890' in text
    checkpoint = result["structuredContent"]["attempt"]["task"]["checkpoint"]
    assert checkpoint == {"price": 1.1, "atoms": 123456789012345678901234567890}


# People


ANSWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "APPROVAL": (
        "respondToApproval",
        {"approved": False, "comment": "No."},
        {
            "status": "REJECTED",
            "approved": False,
            "comment": "No.",
            "approvalCount": 0,
            "requiredApprovals": 2,
        },
    ),
    "CLARIFICATION": (
        "answerClarification",
        {"answer": "There."},
        {"status": "ANSWERED", "answer": "There."},
    ),
    "FEEDBACK": (
        "submitFeedback",
        {"feedback": {"good": None}, "rating": 4},
        {"status": "ANSWERED", "feedback": {"good": None}, "rating": 4},
    ),
}


async def ask_person(ada: Agent, kind: str = "CLARIFICATION", **more: Any) -> str:
    """The id of a question that Ada has asked."""
    more |= {"requiredApprovals": 2} if kind == "APPROVAL" else {}
    asked = await ada.use("ask_person", kind=kind, title="Where?", content={"what": 1}, **more)
    assert asked["interaction"]["status"] == "PENDING"
    return str(asked["interaction"]["id"])


async def answer(world: World, id: str, kind: str = "CLARIFICATION") -> None:
    """Answer as the owner."""
    asked = await world.owner.ask(f'{{ humanInteraction(id: "{id}") {{ contentHash }} }}')
    hashed = asked.data["humanInteraction"]["contentHash"]
    name, values, _ = ANSWERS[kind]
    shown = f"{name} {{ userErrors {{ message }} }}"
    payload = await world.owner.change(shown, id=id, contentHash=hashed, **values)
    assert payload == {"userErrors": []}


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_agent_waits_for_the_answer_of_a_person(
    world: World, ada: Agent, kind: str
) -> None:
    id = await ask_person(ada, kind)
    first = await ada.use("wait_for_answer", id=id, timeoutSeconds=0)
    assert first["status"] == "PENDING"
    async with numbering(world.database):  # whoever waits follows the event log
        waiting = asyncio.create_task(ada.use("wait_for_answer", id=id))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await answer(world, id, kind)
        async with asyncio.timeout(10):
            found = await waiting
    times = {name: found[name] for name in ("createdAt", "updatedAt")}
    assert found == {"id": id, "type": kind, "title": "Where?"} | times | ANSWERS[kind][2]


async def test_a_question_can_block_the_task(world: World, ada: Agent) -> None:
    attempt = (await ada.use("claim"))["attempt"]["id"]
    id = await ask_person(ada, attemptId=attempt, blockTask=True, checkpoint={"dug": 1})
    found = "SELECT status, blocked_reason FROM tasks WHERE title = 'Free'"
    assert await stored(world.database, found) == [("BLOCKED", "HUMAN_INPUT")]
    await answer(world, id)
    task = (await ada.use("claim"))["attempt"]["task"]
    assert task["checkpoint"] == {"dug": 1}
    assert task["interactions"] == [
        {"id": id, "title": "Where?", "status": "ANSWERED", "answer": "There."}
    ]


async def test_waiting_can_be_a_task_of_the_protocol(world: World, ada: Agent) -> None:
    client = replace(ada, extensions=(TASKS,))
    id = await ask_person(ada)
    begun = await client.call("wait_for_answer", id=id)
    task = {
        "taskId": id,
        "status": "working",
        "statusMessage": "Where?: PENDING",
        "createdAt": begun["createdAt"],
        "lastUpdatedAt": begun["lastUpdatedAt"],
        "ttlMs": None,
        "pollIntervalMs": 2000,
    }
    del begun["_meta"]
    assert begun == {"resultType": "task"} | task
    for method in ("tasks/update", "tasks/cancel"):
        done = await client.ask(method, taskId=id, inputResponses={})
        assert done.keys() == {"resultType", "_meta"}
    working = await client.ask("tasks/get", taskId=id)
    del working["_meta"]
    assert working == {"resultType": "complete"} | task
    await answer(world, id)
    found = await client.ask("tasks/get", taskId=id)
    assert found["status"] == "completed"
    assert found["result"]["structuredContent"]["answer"] == "There."
    assert found["result"]["isError"] is False
    # What is answered needs no task.
    assert (await client.use("wait_for_answer", id=id))["answer"] == "There."


async def test_a_task_ends_with_its_request(world: World, ada: Agent) -> None:
    client = replace(ada, extensions=(TASKS,))
    id = await ask_person(ada, expiresAt="2999-01-01T00:00:00Z")
    task = await client.call("wait_for_answer", id=id)
    assert task["ttlMs"] > 9e11
    shown = "cancelInteraction { userErrors { message } }"
    assert await world.agent.change(shown, id=id) == {"userErrors": []}
    assert (await client.ask("tasks/get", taskId=id))["status"] == "cancelled"


async def test_tasks_are_for_those_who_may_see_them_and_know_them(
    world: World, ada: Agent, stranger: Agent
) -> None:
    id = await ask_person(ada)
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        status, code, _ = await ada.error(method, taskId=id)
        assert (status, code) == (400, -32021), method
        other = replace(stranger, extensions=(TASKS,))
        assert (await other.error(method, taskId=id))[:2] == (400, -32602), method
        client = replace(ada, extensions=(TASKS,))
        assert (await client.error(method, taskId=gid(world.free)))[:2] == (400, -32602), method
        assert (await client.error(method, taskId="x")) == (
            400,
            -32602,
            "taskId: 'x' is not the id of a HumanInteraction: use its `id` or its UUID."
            " [BAD_USER_INPUT]",
        )
        message = client.message(method, taskId=id)
        headers = client.headers(message) | {"mcp-name": "another"}
        response = await client.raw(orjson.dumps(message), **headers)
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020), method


# Messages, usage, search


async def test_agents_send_each_other_messages(world: World, ada: Agent) -> None:
    async with world.database.write(ADMIN) as session:
        zoe = await factories.make_agent(session, world.project, "Zoe", status=AgentStatus.READY)
        await factories.make_token(session, "troupe_token_of_zoe_an_agent", zoe)
    other = replace(ada, token="troupe_token_of_zoe_an_agent")
    (found,) = (await ada.use("search", query="zoe"))["agents"]
    assert (found["name"], found["id"]) == ("Zoe", gid(zoe))
    sent = await ada.use("send", toAgentId=gid(zoe), type="REQUEST", content={"dig": True})
    assert sent["communication"]["status"] == "SENT"
    (received,) = (await other.use("receive"))["communications"]
    assert received["content"] == {"dig": True}
    assert received["fromAgent"] == {"id": gid(world.ada), "name": "Ada"}
    assert received["id"] == sent["communication"]["id"]
    found = await other.use("receive", acknowledgeIds=[received["id"]])
    assert found == {"communications": []}
    assert await stored(world.database, "SELECT status FROM communications") == ["ACKNOWLEDGED"]
    # What is received is shown even if something else is wrong.
    await ada.use("send", toAgentId=gid(zoe), type="REQUEST", content=2)
    result = await other.call("receive", acknowledgeIds=[gid(world.free)])
    assert result["isError"] is True
    wrong, shown = (content["text"] for content in result["content"])
    assert wrong.startswith("acknowledgeIds.0: ")
    assert json.loads(shown)["communications"][0]["content"] == 2


async def test_usage_is_recorded_once(world: World, ada: Agent) -> None:
    for _ in range(2):
        found = await ada.use(
            "record_usage", modelName="gpt-x", inputTokens=3, cost="0.10", requestId="r"
        )
        assert found["usageRecords"][0]["cost"] == "0.100000000"
    rows = "SELECT model_name, input_tokens, agent_id FROM usage_records"
    assert await stored(world.database, rows) == [("gpt-x", 3, world.ada.id)]


async def test_usage_that_a_budget_refuses_is_not_recorded(world: World, ada: Agent) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        limit = {"limit_cost": 1, "period": db.BudgetPeriod.EVER, "refuses_usage": True}
        await db.Budget.create(session, project_id=world.project.id, **limit)
    await ada.use("record_usage", modelName="gpt-x", cost="1")
    before = await snapshot(world.database)
    result = await ada.call("record_usage", modelName="gpt-x", cost="1")
    assert await snapshot(world.database) == before
    assert result["isError"] is True
    (content,) = result["content"]
    assert "The budget of the project has no room: of 1 US dollars, 1 is spent" in content["text"]


async def test_search_finds_only_what_may_be_seen(ada: Agent, stranger: Agent) -> None:
    found = await ada.use("search", query="hello")
    (message,) = found.pop("messages")
    assert [part["text"] for part in message["highlights"]] == ["Hello"]
    assert found == {"projects": [], "agents": [], "tasks": []}
    (task,) = (await ada.use("search", query="FREE"))["tasks"]
    assert task["title"] == "Free"
    assert not any((await stranger.use("search", query="Free")).values())
    newest = await ada.use("search", query="")
    assert newest["messages"] == []
    assert [each["name"] for each in newest["projects"]] == ["Moon base"]
    assert [each["name"] for each in newest["agents"]] == ["Ada"]
    assert [each["title"] for each in newest["tasks"]] == ["Subtask", "Free", "Parent"]


# Clients that leave


class Left(Leaving):
    """A client that leaves while it waits for the result of a tool."""

    def __init__(self, agent: Agent, version: str, name: str, **arguments: Any) -> None:
        body, headers = agent.of_version(version, "tools/call", name=name, arguments=arguments)
        self._ask(agent.http, "/mcp", headers, body)


@pytest.mark.parametrize("version", [VERSION, "2025-11-25"])
async def test_what_only_reads_stops_when_its_client_has_left(
    world: World, ada: Agent, database_url: URL, version: str
) -> None:
    await ada.call("search", query="x")
    async with locked(database_url, "tasks"):
        client = Left(ada, version, "search", query="Free")
        await waiting(world.database, 1)
        assert await client.leave().ended() == []
        await none_waits(world.database)


@pytest.mark.parametrize("version", [VERSION, "2025-11-25"])
async def test_a_claim_is_made_though_its_client_has_left(
    world: World, ada: Agent, database_url: URL, version: str
) -> None:
    await ada.call("search", query="x")
    async with locked(database_url, "tasks"):
        client = Left(ada, version, "claim")
        await waiting(world.database, 1)
        client.leave()
        await asyncio.sleep(0.3)
        assert not client.is_answered
    begin, _ = await client.ended()
    assert begin["status"] == 200
    assert await stored(world.database, "SELECT status FROM task_attempts") == ["RUNNING"]


# Refused


MISSING = "This is missing."
ATTEMPT = f"attemptId: {MISSING} The attempt. `claim` returns it as attempt.id. [BAD_USER_INPUT]"
NO_STRING, NO_BOOLEAN = "This must be a string.", "This must be true or false."
NO_INT = "This must be a whole number of at most 2,147,483,647."
TIME = (
    "DateTime cannot represent {!r}: write a date and a time with its time zone, such as"
    " 2026-11-22T01:06:34+00:00."
)
NO_ID = "{!r} is not the id of {}: use its `id` or its UUID."
NO_MONEY = 'Decimal cannot represent {!r}: write digits in a string, such as "2.50".'
NUL = "A text contains a NUL character (\\u0000), which cannot be stored."
KINDS = "kind: This must be one of: APPROVAL, CLARIFICATION, FEEDBACK. [BAD_USER_INPUT]"
ASKED = {"kind": "APPROVAL", "title": "Dig?", "content": 1}
SENT = {"toAgentId": "0193a000-0000-7000-8000-000000000001", "type": "REQUEST", "content": 1}
USED = {"modelName": "gpt-x"}
UNKNOWN = "0193a000-0000-7000-8000-000000000002"


def refusals() -> list[tuple[str, dict[str, Any], list[str]]]:
    """Tools with arguments, and what is wrong with them, without the code of the error."""
    return [
        ("find_ready_work", {"projectId": "x"}, ["projectId: " + NO_ID.format("x", "a Project")]),
        ("find_ready_work", {"agentId": "3"}, ["agentId: " + NO_ID.format("3", "an Agent")]),
        (
            "find_ready_work",
            {"projectId": UNKNOWN},
            ["projectId: There is none with this id, or you may not see it."],
        ),
        (
            "find_ready_work",
            {"agentId": UNKNOWN},
            ["agentId: There is none with this id, or you may not see it."],
        ),
        ("find_ready_work", {"after": 3}, [f"after: {NO_STRING}"]),
        ("find_ready_work", {"after": "x"}, ["after: 'x' is no cursor; use one that a page gave."]),
        ("find_ready_work", {"projectId": "a\0"}, [f"projectId: {NUL}"]),
        (
            "claim",
            {"lease": 3},
            [
                "lease: claim has no such argument. It has: agentId, idempotencyKey, leaseSeconds,"
                " types."
            ],
        ),
        (
            "complete",
            {"attempt": "x", "output": 3},
            [
                f"{name}: complete has no such argument. It has: attemptId, idempotencyKey, result."
                for name in ("attempt", "output")
            ],
        ),
        (
            "claim",
            {"leaseSeconds": "long", "agentId": []},
            [f"agentId: {NO_STRING}", f"leaseSeconds: {NO_INT}"],
        ),
        ("claim", {"leaseSeconds": 10**12}, [f"leaseSeconds: {NO_INT}"]),
        ("claim", {"leaseSeconds": 0}, ["leaseSeconds: This must be 1 or more."]),
        ("claim", {"types": ["a", None, 3]}, [f"types.1: {NO_STRING}", f"types.2: {NO_STRING}"]),
        ("claim", {"types": [1] * 99}, [f"types.{number}: {NO_STRING}" for number in range(5)]),
        ("claim", {"types": ["\0"]}, [f"types.0: {NUL}"]),
        ("claim", {"types": ["x"] * 21}, ["types: This may have 20 items at most."]),
        ("heartbeat", {"attemptId": "x"}, ["attemptId: " + NO_ID.format("x", "a TaskAttempt")]),
        (
            "heartbeat",
            {"attemptId": UNKNOWN, "progressPercent": 101, "leaseSeconds": 0},
            [
                "progressPercent: This must be 100 or less.",
                "leaseSeconds: This must be 1 or more.",
            ],
        ),
        ("heartbeat", {"attemptId": UNKNOWN, "statusMessage": {}}, [f"statusMessage: {NO_STRING}"]),
        (
            "ask_person",
            ASKED | {"requiredApprovals": 0, "priority": 6},
            ["priority: This must be 5 or less.", "requiredApprovals: This must be 1 or more."],
        ),
        ("ask_person", ASKED | {"expiresAt": "soon"}, ["expiresAt: " + TIME.format("soon")]),
        (
            "ask_person",
            ASKED | {"onExpiry": "DROP", "blockTask": 1},
            [f"blockTask: {NO_BOOLEAN}", "onExpiry: This must be one of: KEEP, FAIL, RELEASE."],
        ),
        (
            "ask_person",
            ASKED | {"kind": "FEEDBACK", "requiredApprovals": 1},
            [
                "requiredApprovals: ask_person of the kind FEEDBACK has no such argument. It has:"
                " assigneeId, attemptId, blockTask, checkpoint, content, expiresAt, idempotencyKey,"
                " kind, onExpiry, priority, projectId, title."
            ],
        ),
        ("wait_for_answer", {"id": "3"}, ["id: " + NO_ID.format("3", "a HumanInteraction")]),
        ("wait_for_answer", {"id": 3}, [f"id: {NO_STRING}"]),
        ("wait_for_answer", {"id": "3" * 99_999}, [f"id: '{'3' * 1_999}…"]),
        (
            "wait_for_answer",
            {"id": UNKNOWN},
            ["id: There is none with this id, or you may not see it."],
        ),
        (
            "wait_for_answer",
            {"id": UNKNOWN, "timeoutSeconds": 56},
            ["timeoutSeconds: timeoutSeconds must be between 0 and 55, not 56."],
        ),
        (
            "complete",
            {"attemptId": UNKNOWN},
            [f"attemptId: There is no TaskAttempt with the id {UNKNOWN}."],
        ),
        (
            "fail",
            {"attemptId": UNKNOWN, "error": 1, "retryable": "no"},
            [f"retryable: {NO_BOOLEAN}"],
        ),
        ("release", {"attemptId": UNKNOWN, "handover": 3}, [f"handover: {NO_STRING}"]),
        ("send", SENT | {"toAgentId": "x"}, ["toAgentId: " + NO_ID.format("x", "an Agent")]),
        ("send", SENT | {"taskId": "x"}, ["taskId: " + NO_ID.format("x", "a Task")]),
        (
            "receive",
            {"acknowledgeIds": ["x"], "limit": 0},
            [
                "acknowledgeIds.0: " + NO_ID.format("x", "a Communication"),
                "limit: This must be 1 or more.",
            ],
        ),
        ("record_usage", USED | {"cost": "much"}, ["cost: " + NO_MONEY.format("much")]),
        (
            "record_usage",
            USED | {"inputTokens": 1, "cachedInputTokens": 2},
            ["cachedInputTokens: These are part of the input tokens, and cannot be more."],
        ),
        (
            "record_usage",
            {"modelName": "", "attemptId": "x"},
            [
                "modelName: This must not be empty.",
                "attemptId: " + NO_ID.format("x", "a TaskAttempt"),
            ],
        ),
        ("search", {"query": "x" * 1001}, ["query: A query is of at most 1,000 characters."]),
    ]


async def test_a_refusal_names_arguments_of_the_tool(world: World, ada: Agent) -> None:
    before = await snapshot(world.database)
    cases = refusals()
    assert {name for name, _, _ in cases} == set(NAMES)
    for name, arguments, expected in cases:
        result = await ada.call(name, **arguments)
        found = [content["text"].rpartition(" [")[0] for content in result["content"]]
        assert (result["isError"], found) == (True, expected), name
    assert await snapshot(world.database) == before


# Values of which each type of argument takes few.
STRANGE: list[Any] = ["\0", "é" * 300, -1, 1e308, True, [None], {"a": [{"b": "\0"}]}]
NEEDED: dict[str, dict[str, Any]] = {
    "ask_person": ASKED,
    "complete": {"attemptId": UNKNOWN},
    "fail": {"attemptId": UNKNOWN, "error": 1},
    "heartbeat": {"attemptId": UNKNOWN},
    "record_usage": USED,
    "release": {"attemptId": UNKNOWN},
    "send": SENT,
    "wait_for_answer": {"id": UNKNOWN, "timeoutSeconds": 0},
}


async def test_strange_arguments_are_done_or_refused_by_their_names(
    world: World, ada: Agent
) -> None:
    """What is refused is told in the words of the tool, without those of the operation."""
    for tool in (await ada.ask("tools/list"))["tools"]:
        name, known = tool["name"], tool["inputSchema"]["properties"]
        for argument, value in itertools.product(known, STRANGE):
            result = await ada.call(name, **NEEDED.get(name, {}) | {argument: value})
            for problem in [each["text"] for each in result["content"] if result["isError"]]:
                if problem.startswith("{"):
                    continue  # what is received is shown nevertheless
                place = re.match(r"(\w+)[.: ]", problem)
                assert place, problem
                assert place[1] in known, (name, argument, value, problem)
                assert not re.search(r"\$|Variable|\[FAULT\]", problem), problem


async def test_what_is_missing_is_said_with_its_source(world: World, ada: Agent) -> None:
    for tool in (await ada.ask("tools/list"))["tools"]:
        schema = tool["inputSchema"]
        result = await ada.call(
            tool["name"], **({"kind": "APPROVAL"} if "kind" in schema["properties"] else {})
        )
        found = [content["text"] for content in result["content"]] if result["isError"] else []
        assert found == [
            f"{name}: {MISSING} {schema['properties'][name]['description']} [BAD_USER_INPUT]"
            for name in schema["required"]
            if name != "kind"
        ]
    assert await ada.refused("heartbeat") == ATTEMPT
    for kind in ({}, {"kind": "NO"}, {"kind": ["FEEDBACK"]}):
        assert await ada.refused("ask_person", title="a", content=1, **kind) == KINDS


async def test_who_is_no_agent_is_told_what_to_give(world: World, owner: Agent) -> None:
    before = await snapshot(world.database)
    moon = f"Moon base ({gid(world.project)})"
    told = "Give this, because the token is not that of an agent."
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "find_ready_work": ({}, f"projectId: {told} Projects in progress: {moon}."),
        "record_usage": (USED, f"projectId: {told} Projects in progress: {moon}."),
        "send": (SENT, f"fromAgentId: {told}"),
        "claim": ({}, "agentId: You are not an agent: name one, or use an access token of it."),
        "receive": ({}, "agentId: You are not an agent: name one, or use an access token of it."),
        "ask_person": (ASKED, "projectId: Name the project, or your attempt at a task of it."),
    }
    for name, (arguments, words) in cases.items():
        assert (await owner.refused(name, **arguments)).startswith(words), name
    assert await snapshot(world.database) == before


async def test_what_is_null_is_omitted(ada: Agent) -> None:
    found = await ada.use("claim", leaseSeconds=None, types=None, idempotencyKey=None)
    assert found["attempt"]["task"]["title"] == "Free"


async def test_a_person_names_the_project_and_the_agent(world: World, owner: Agent) -> None:
    found = await owner.use("find_ready_work", projectId=gid(world.project))
    assert [each["title"] for each in found["nodes"]] == ["Free"]
    claimed = await owner.use("claim", agentId=gid(world.ada))
    assert claimed["attempt"]["task"]["title"] == "Free"


async def test_malformed_requests_are_errors_of_the_protocol(ada: Agent) -> None:
    assert await ada.error("tools/call", name="dig", arguments={}) == (
        400,
        -32602,
        f"There is no tool of this name. There are: {', '.join(NAMES)}.",
    )
    for method in ("resources/list", "subscriptions/listen"):
        assert (await ada.error(method, notifications={}))[:2] == (404, -32601)
    assert (await ada.error("tools/call", name="claim", arguments=[]))[:2] == (400, -32602)
    message = ada.message("tools/call", name="claim", arguments={})
    headers = ada.headers(message)
    cases: list[tuple[bytes, dict[str, str], int, int]] = [
        (b"", {}, 400, -32700),
        (b"{", {}, 400, -32700),
        (b"[]", {}, 400, -32600),
        (b'"\xff"', {}, 400, -32700),
        (b"null", {}, 400, -32600),
        (b"[" * 100_000, {}, 413, -32600),
        (b"{}", {}, 400, -32600),
        (orjson.dumps(message), {"mcp-name": "complete"}, 400, -32020),
        (orjson.dumps(message), {"mcp-method": "tools/list"}, 400, -32020),
        (orjson.dumps(message), {"mcp-protocol-version": "2099-01-01"}, 400, -32020),
        # The versions before have no headers that could be checked.
        (orjson.dumps(message), {"mcp-protocol-version": "2025-11-25"}, 400, -32020),
        (orjson.dumps(message), {"accept": "text/event-stream"}, 406, -32600),
        (orjson.dumps(message), {"content-type": "text/plain"}, 415, -32600),
        (orjson.dumps(message), {"content-encoding": "gzip"}, 415, -32600),
        (orjson.dumps(message | {"x": [0] * 20_001}), {}, 413, -32600),
        (orjson.dumps(message | {"x": "x" * 2**20}), {}, 413, -32600),
    ]
    for body, more, status, code in cases:
        response = await ada.raw(body, **headers | more)
        found = response.status_code, response.json()["error"]["code"]
        assert found == (status, code), (body[:40], more, response.text)
    without = {name: value for name, value in headers.items() if name != "mcp-protocol-version"}
    response = await ada.raw(orjson.dumps(message), **without)
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
    for method in ("GET", "DELETE", "PUT"):
        response = await ada.http.request(method, "/mcp", headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
    # Some configurations end the address with a slash.
    response = await ada.http.post("/mcp/", content=orjson.dumps(message), headers=headers)
    assert response.status_code == 200
    response = await ada.raw(b'{"jsonrpc":"2.0","method":"notifications/x"}', **headers)
    assert (response.status_code, response.content) == (202, b"")


async def test_without_a_valid_token_nothing_is_answered(world: World, ada: Agent) -> None:
    before = await snapshot(world.database)
    for token in (None, "troupe_unknown_unknown_unknown"):
        for method in ("server/discover", "tools/list", "tools/call", "initialize"):
            response = await replace(ada, token=token).post(method, name="claim")
            assert response.status_code == 401
            assert response.headers["www-authenticate"] == "Bearer"
            assert response.json()["error"]["data"]["code"] == "UNAUTHENTICATED"
    assert await snapshot(world.database) == before


async def test_a_revoked_token_is_refused(world: World, ada: Agent) -> None:
    await ada.use("find_ready_work")
    async with world.database.write(ADMIN) as session:
        await session.execute(
            update(db.AccessToken)
            .where(db.AccessToken.name == AGENT_TOKEN)
            .values(revoked_at=datetime.now(UTC))
        )
    assert (await ada.post("tools/call", name="claim", arguments={})).status_code == 401


async def test_a_token_may_be_for_reading_only(world: World, ada: Agent) -> None:
    async with world.database.write(ADMIN) as session:
        await factories.make_token(
            session, "troupe_token_for_reading_only", world.ada, scopes=[TokenScope.READ]
        )
    reader = replace(ada, token="troupe_token_for_reading_only")
    before = await snapshot(world.database)
    assert (await reader.use("find_ready_work"))["nodes"]
    assert await reader.refused("claim") == (
        "claim needs a token with the scope WORK; yours is for reading. [FORBIDDEN]"
    )
    assert await snapshot(world.database) == before


async def test_an_agent_that_acts_for_another_is_told_so(world: World, ada: Agent) -> None:
    """Its token is not for reading only, and no other token would help."""
    attempt = (await ada.use("claim"))["attempt"]["id"]
    async with world.database.write(ADMIN) as session:
        other = await factories.make_agent(session, world.project, name="Grace")
        await factories.make_token(session, "troupe_token_of_grace_xxxxxxxx", other)
    grace = replace(ada, token="troupe_token_of_grace_xxxxxxxx")
    before = await snapshot(world.database)
    own_name = "An agent acts only in its own name. [FORBIDDEN]"
    assert await ada.refused("claim", agentId=gid(other)) == own_name
    assert await ada.refused("receive", agentId=gid(other)) == own_name
    sent = {"toAgentId": gid(other), "type": "REQUEST", "content": 1}
    assert await ada.refused("send", fromAgentId=gid(other), **sent) == own_name
    not_yours = "This is the attempt of another agent. [FORBIDDEN]"
    for tool in ("heartbeat", "complete", "release"):
        assert await grace.refused(tool, attemptId=attempt) == not_yours
    assert await snapshot(world.database) == before


async def test_what_others_have_is_not_found(world: World, ada: Agent, stranger: Agent) -> None:
    id = await ask_person(ada)
    before = await snapshot(world.database)
    assert "NOT_FOUND" in await stranger.refused("claim", agentId=gid(world.ada))
    unseen = "There is none with this id, or you may not see it. [NOT_FOUND]"
    found = await stranger.refused("find_ready_work", projectId=gid(world.project))
    assert found == f"projectId: {unseen}"
    assert (await stranger.refused("wait_for_answer", id=id)).startswith("id: There is none with")
    assert await snapshot(world.database) == before


async def test_pages_of_other_sites_are_refused(ada: Agent, database: db.Database) -> None:
    message = ada.message("tools/list")
    body, headers = orjson.dumps(message), ada.headers(message)
    allowed = {"http://localhost:6274": 200, "http://127.0.0.1:1": 200, "http://[::1]:1": 200}
    refused = ("https://evil.example", "http://test", "null", "http://localhost.evil.example")
    for origin, status in (allowed | dict.fromkeys(refused, 403)).items():
        assert (await ada.raw(body, **headers, origin=origin)).status_code == status, origin
    async for agent in with_settings(database, allowed_origins=("https://app.example",)):
        for origin, status in (("https://app.example", 200), ("https://evil.example", 403)):
            response = await agent.raw(body, **headers, origin=origin)
            assert response.status_code == status, origin
        asked = {"access-control-request-method": "POST", "origin": "https://app.example"}
        asked["access-control-request-headers"] = "authorization, mcp-method, mcp-protocol-version"
        assert (await agent.http.options("/mcp", headers=asked)).status_code == 200


async def test_the_rate_is_that_of_operations(world: World) -> None:
    few = {"rate_burst": 300, "rate_per_second": 1, "max_cost": 100}
    async for agent in with_settings(world.database, **few):
        # A document that is new is charged for its validation.
        assert "RATE_LIMITED" not in await agent.refused("complete", attemptId=gid(world.free))
        refused = await agent.refused("complete", attemptId=gid(world.free))
        assert refused.endswith("[RATE_LIMITED]")
        # Each of these takes no operation.
        for method, params in NO_OPERATIONS:
            response = await agent.post(method, **params)
            assert response.status_code == 429, (method, params)
            assert int(response.headers["retry-after"]) > 0
            assert response.json()["error"]["data"]["code"] == "RATE_LIMITED"


NO_OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("tools/list", {}),
    ("tools/call", {"name": "claim", "arguments": {"x": 1}}),
    ("tools/call", {"name": "x", "arguments": {}}),
    ("tools/call", {"name": "claim", "arguments": []}),
    ("tools/call/x", {}),
    ("tasks/list", {}),
    ("tasks/get", {"taskId": "x"}),
]


async def test_a_message_without_an_operation_is_charged_once(world: World) -> None:
    few = {"rate_burst": 2, "rate_per_second": 0.001}
    for method, params in NO_OPERATIONS:
        async for agent in with_settings(world.database, **few):
            found = [(await agent.post(method, **params)).status_code for _ in range(3)]
            assert 429 not in found[:2], (method, params)
            assert found[2] == 429, (method, params)


async def test_what_keeps_the_project_from_being_found_is_told(world: World) -> None:
    async for agent in with_settings(world.database, rate_burst=1, rate_per_second=0.001):
        found = await agent.refused("find_ready_work")
        assert found.endswith("[RATE_LIMITED]")


async def test_a_server_of_the_sdk_that_has_ended_is_started_again(world: World) -> None:
    app = application(world.database, Settings())
    routes = [route for route in app.routes if isinstance(route, Route)]
    endpoint: Any = next(route.endpoint for route in routes if route.path == "/mcp")
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as http:
        agent = Agent(http)
        await agent.ask("tools/list")
        endpoint._running.cancel()
        await asyncio.wait([endpoint._running])
        await agent.ask("tools/list")


async def test_answers_have_a_maximum_size(world: World, ada: Agent) -> None:
    await change(world, world.free, description="x" * 200_000)
    async for agent in with_settings(world.database, max_answer_bytes=100_000):
        assert "TROUPE_MAX_ANSWER_BYTES" in await agent.refused("find_ready_work")


async def test_each_call_is_logged_without_secrets(
    world: World, ada: Agent, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "propagate", True)
    with caplog.at_level(logging.INFO, logger=operations.name):
        await ada.call("claim", idempotencyKey="secret")
        await ada.call("search", query="secret", x=1)
        await replace(ada, token=None).post("tools/list")
        await ada.post("tools/list")
        await ada.post("resources/list")
        await ada.call("find_ready_work")
    lines = [record.fields for record in caplog.records]  # type: ignore[attr-defined]
    assert {line["transport"] for line in lines} == {"mcp"}
    assert [(line.get("operation"), line["status"], *line["codes"]) for line in lines] == [
        ("claim", 200),
        (None, 200, "BAD_USER_INPUT"),
        (None, 401, "UNAUTHENTICATED"),
        (None, 404, "BAD_REQUEST"),
        ("own_project", 200),
        ("find_ready_work", 200),
    ]
    messages = [record.message for record in caplog.records]
    assert messages == ["operation", *["refused"] * 3, *["operation"] * 2]
    assert lines[0]["viewer"] == f"agent:{world.ada.id}"
    assert lines[0]["kind"] == "mutation"
    assert lines[0]["statements"] > 0
    assert "secret" not in str(lines)


# Earlier versions


async def old(agent: Agent, method: str, version: str | None, **params: Any) -> httpx.Response:
    """The response to a request of a version with a handshake."""
    headers = MEDIA | {"authorization": f"Bearer {agent.token}"}
    headers |= {"mcp-protocol-version": version} if version else {}
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await agent.raw(orjson.dumps(message), **headers)


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
async def test_clients_of_earlier_versions_are_served(ada: Agent, version: str) -> None:
    info = {"name": "old", "version": "1"}
    hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": info}
    begun = (await old(ada, "initialize", None, **hello)).json()["result"]
    assert begun["protocolVersion"] == version
    assert begun["serverInfo"]["name"] == "troupe"
    listed = (await old(ada, "tools/list", version)).json()["result"]["tools"]
    assert [tool["name"] for tool in listed] == NAMES
    called = await old(ada, "tools/call", version, name="claim", arguments={})
    result = called.json()["result"]
    assert json.loads(result["content"][0]["text"])["attempt"]["task"]["title"] == "Free"
    task = await old(ada, "tasks/get", version, taskId="x")
    assert "error" in task.json()
