"""The official SDKs of the Model Context Protocol, against a server that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import httpx2
import pytest
from mcp.client import Client
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import Field

from graph.mcp.server import INSTRUCTIONS
from tests import processes
from tests.patience import until
from tests.processes import Serving
from tests.test_clients import Node, installed  # noqa: F401
from tests.test_mcp import NAMES, TASKS, VERSION, Agent

PREPARE = """
mutation Prepare($project: ID!, $agent: ID!, $tasks: [PlannedTaskInput!]!) {
  createProject(input: {id: $project, name: "Moon base"}) { userErrors { message } }
  planning: transitionProject(input: {id: $project, to: PLANNING}) { userErrors { message } }
  begin: transitionProject(input: {id: $project, to: IN_PROGRESS}) { userErrors { message } }
  createAgent(input: {id: $agent, projectId: $project, name: "Ada", type: "DEVELOPER"}) {
    userErrors { message }
  }
  transitionAgent(input: {id: $agent, to: READY}) { userErrors { message } }
  zoe: createAgent(input: {projectId: $project, name: "Zoe", type: "DEVELOPER"}) {
    userErrors { message }
  }
  createTasks(input: {projectId: $project, tasks: $tasks}) { userErrors { message } }
  createAccessToken(input: {agentId: $agent, name: "worker", scopes: [WORK]}) {
    token
    userErrors { message }
  }
}
"""
ANSWER = """
mutation Answer($id: ID!, $hash: String!) {
  answerClarification(input: {id: $id, contentHash: $hash, answer: "There."}) {
    userErrors { message }
  }
}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    """A server for all of them."""
    with processes.place() as folder, Serving(folder, data_dir=folder / "data") as server:
        yield server.ready()
        assert server.stop().clean


@pytest.fixture(scope="module")
def token(server: Serving) -> str:
    """The token of an agent whose project has tasks."""
    return prepared(server)


def prepared(server: Serving) -> str:
    """The token of a new agent whose project has tasks and another agent."""
    project, agent = (f"0193a000-0000-7000-8000-00000000000{number}" for number in (1, 2))
    tasks = [{"title": "Dig"}] * 20
    answer = server.ask(PREPARE, project=project, agent=agent, tasks=tasks)
    assert all(payload["userErrors"] == [] for payload in answer["data"].values()), answer
    return str(answer["data"]["createAccessToken"]["token"])


@asynccontextmanager
async def connected(server: Serving, token: str, **options: Any) -> AsyncIterator[Client]:
    """A client of the SDK."""
    headers = {"authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{server.url}/mcp", http_client=http)
        async with Client(transport, **options) as client:
            yield client


class Task(Result):
    """A task of the protocol, as the extension begins it."""

    result_type: Literal["task"] = Field(default="task", alias="resultType")
    task_id: str = Field(alias="taskId")


class Named(RequestParams):
    """The parameters of a request about a task."""

    task_id: str = Field(alias="taskId")


class Found(Result):
    """The state of a task."""

    status: str
    result: CallToolResult | None = None


class Waiting(ClientExtension):
    """Waits for tasks as a client of the extension does."""

    identifier = TASKS

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.begun = asyncio.Event()

    def claims(self) -> list[ResultClaim[Any]]:
        """It resolves tasks."""
        return [ResultClaim(result_type="task", model=Task, resolve=self.resolve)]

    async def resolve(self, task: Task, context: ClaimContext) -> CallToolResult:
        """Poll until it is completed."""
        while True:
            request: Request[Named, str] = Request(
                method="tasks/get", params=Named(task_id=task.task_id)
            )
            found = await context.session.send_request(request, Found)
            self.seen.append(found.status)
            self.begun.set()
            if found.result is not None:
                return found.result
            await asyncio.sleep(0.05)


async def answer_when_asked(server: Serving, id: str, waiting: Waiting) -> None:
    """Answer a question once the client has seen that it waits."""
    await waiting.begun.wait()
    query = "query Asked($id: ID!) { humanInteraction(id: $id) { contentHash } }"
    asked = await asyncio.to_thread(server.ask, query, id=id)
    hashed = asked["data"]["humanInteraction"]["contentHash"]
    done = await asyncio.to_thread(server.ask, ANSWER, id=id, hash=hashed)
    assert done["data"]["answerClarification"] == {"userErrors": []}


@pytest.mark.parametrize("mode", ["auto", "legacy", VERSION])
async def test_the_python_sdk_works_on_a_task(server: Serving, token: str, mode: str) -> None:
    async with connected(server, token, mode=mode) as client:
        assert (client.protocol_version == VERSION) is (mode != "legacy")
        assert client.instructions == (None if mode == VERSION else INSTRUCTIONS)
        assert [tool.name for tool in (await client.list_tools()).tools] == NAMES
        # It checks results by their schemas.
        claimed = await client.call_tool("claim", {"leaseSeconds": 60})
        assert claimed.structured_content is not None
        attempt = claimed.structured_content["attempt"]
        assert attempt["task"]["title"] == "Dig"
        beat = await client.call_tool("heartbeat", {"attemptId": attempt["id"]})
        assert not beat.is_error
        done = await client.call_tool("complete", {"attemptId": attempt["id"]})
        assert done.structured_content is not None
        assert done.structured_content["attempt"]["status"] == "SUCCEEDED"
        refused = await client.call_tool("complete", {"attemptId": "x"})
        assert refused.is_error


async def test_the_python_sdk_waits_for_people_by_a_task(server: Serving, token: str) -> None:
    waiting = Waiting()
    async with connected(server, token, extensions=[waiting]) as client:
        asked = await client.call_tool(
            "ask_person", {"kind": "CLARIFICATION", "title": "Where?", "content": "Where?"}
        )
        assert asked.structured_content is not None
        id = asked.structured_content["interaction"]["id"]
        answering = asyncio.create_task(answer_when_asked(server, id, waiting))
        found = await client.call_tool("wait_for_answer", {"id": id})
        await answering
        assert found.structured_content is not None
        assert found.structured_content["answer"] == "There."
        assert waiting.seen[0] == "working"
        assert waiting.seen[-1] == "completed"


async def test_clients_of_the_python_sdk_claim_at_once(server: Serving, token: str) -> None:
    async with connected(server, token) as client:
        found = await asyncio.gather(*(client.call_tool("claim") for _ in range(8)))
    contents = [each.structured_content or {} for each in found]
    (attempt,) = [each["attempt"]["id"] for each in contents if "attempt" in each]
    assert {each["reason"] for each in contents if "reason" in each} == {"AGENT_AT_CAPACITY"}
    async with connected(server, token) as client:
        assert not (await client.call_tool("release", {"attemptId": attempt})).is_error


async def test_a_client_without_a_valid_token_does_not_connect(server: Serving) -> None:
    with pytest.raises(ExceptionGroup):
        async with connected(server, "troupe_wrong", mode=VERSION) as client:
            await client.list_tools()


def test_the_typescript_sdk_works_through_the_day_of_an_agent(
    installed: None,  # noqa: F811
    server: Serving,
    token: str,
) -> None:
    node = Node(server, "", token)
    *found, waited, failed = node.report("mcp.js", TROUPE_PERSON=server.token)
    for each, version in zip(found, (VERSION, "2025-11-25"), strict=True):
        (is_refused, problems), (is_missing, missing) = each.pop("refused")
        assert is_refused
        assert is_missing
        assert [problem.partition(": ")[0] for problem in problems] == [
            "attemptId",
            "progressPercent",
        ]
        assert [problem.partition(": ")[0] for problem in missing] == ["attemptId"]
        assert each == {
            "version": version,
            "tools": NAMES,
            "isReady": True,
            "title": "Dig",
            "beat": ["RUNNING", False],
            "message": ["Done", "Zoe", True],
            "rest": [],
            "answer": ["ANSWERED", "There."],
            "usage": ["0.100000000", True],
            "completed": "COMPLETED",
            "handover": "Dig on.",
            "checkpoint": {"dug": 1},
            "failed": "FAILED",
        }
    *looked, ended = waited["events"]
    assert (waited["answer"], set(looked), ended) == ("Now.", {"task"}, "outcome")
    assert failed == "SdkHttpError"


@pytest.mark.parametrize("version", [VERSION, "2025-11-25"])
async def test_a_wait_ends_when_its_client_leaves(
    server: Serving, token: str, version: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=1) as http:
        agent = Agent(http, token)
        kind = {"kind": "CLARIFICATION", "title": version, "content": 1}
        id = (await agent.use("ask_person", **kind))["interaction"]["id"]
        call = {"name": "wait_for_answer", "arguments": {"id": id}}
        body, headers = agent.of_version(version, "tools/call", **call)
        before = server.out.count("status=499")
        with pytest.raises(httpx.ReadTimeout):
            await agent.raw(body, **headers)
        await asyncio.to_thread(until, lambda: server.out.count("status=499") > before)
        line = next(line for line in server.out.splitlines() if "status=499" in line)
        assert "operation=wait_for_answer" in line


@pytest.mark.parametrize("version", [VERSION, "2025-11-25"])
async def test_a_wait_ends_when_the_server_stops(version: str) -> None:
    with (
        processes.place() as folder,
        Serving(folder, data_dir=folder / "data", grace_seconds=1) as server,
    ):
        server.ready()
        agent_token = prepared(server)
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
            agent = Agent(http, agent_token)
            kind = {"kind": "CLARIFICATION", "title": version, "content": 1}
            id = (await agent.use("ask_person", **kind))["interaction"]["id"]
            call = {"name": "wait_for_answer", "arguments": {"id": id}}
            body, headers = agent.of_version(version, "tools/call", **call)
            waiting = asyncio.create_task(agent.raw(body, **headers))
            await asyncio.sleep(1)
            assert not waiting.done()
            assert (await asyncio.to_thread(server.stop)).clean
            response = await waiting
            found = response.json()["result"]
            assert found["structuredContent"]["status"] == "PENDING"
