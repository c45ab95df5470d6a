"""The clients that people use, from their packages, against a server that runs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gql import Client, GraphQLRequest, gql
from gql.client import AsyncClientSession
from gql.dsl import DSLInlineFragment, DSLMutation, DSLQuery, DSLSchema, dsl_gql
from gql.transport.exceptions import TransportConnectionFailed, TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

from tests import processes
from tests.patience import PATIENCE, until
from tests.processes import CODE, Serving

CLIENTS = CODE / "tests" / "clients"
INSTALLED = CLIENTS / "node_modules" / ".installed"

PLAN = """
mutation Plan($tasks: [PlannedTaskInput!]!) {
  createProjectPlan(input: {name: "Moon base", tasks: $tasks}) {
    project { id }
    userErrors { message }
  }
}
"""
TITLES = [f"Task {number}" for number in range(1, 8)]
RENAMED = [*TITLES[:4], "Renamed", *TITLES[5:]]


@pytest.fixture(scope="module")
def server(made: tuple[Path, str]) -> Iterator[Serving]:
    """A server for all of them."""
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            yield server.ready()
            assert server.stop().clean


def planned(server: Serving) -> str:
    """The id of a new project with seven tasks."""
    answer = server.ask(PLAN, tasks=[{"title": title} for title in TITLES])
    return str(answer["data"]["createProjectPlan"]["project"]["id"])


@pytest.fixture
def project(server: Serving) -> str:
    """The id of a project with seven tasks."""
    return planned(server)


class Node:
    """Runs programs that are written in JavaScript, and tells them where the server is."""

    def __init__(self, server: Serving, project: str, token: str | None = None) -> None:
        self._environment = {
            "PATH": os.environ["PATH"],
            "TROUPE_URL": server.url,
            "TROUPE_TOKEN": token or server.token,
            "TROUPE_PROJECT": project,
        }

    @contextlib.contextmanager
    def running(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A script that the test talks with while it runs."""
        with self.started("node", *words, **environment) as process:
            yield process

    @contextlib.contextmanager
    def started(self, *words: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A program that the test talks with while it runs."""
        with subprocess.Popen(
            words,
            cwd=CLIENTS,
            env=self._environment | environment,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            late = threading.Timer(3 * PATIENCE, process.kill)
            late.start()
            try:
                yield process
            finally:
                late.cancel()
                process.kill()

    def run(self, *words: str | Path, **environment: str) -> str:
        """What a program prints that complains of nothing."""
        done = subprocess.run(
            words,
            cwd=CLIENTS,
            env=self._environment | environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def report(self, script: str, **environment: str) -> Any:
        """What a script found."""
        return json.loads(self.run("node", script, **environment))


@pytest.fixture
def installed() -> None:
    """Node.js, with the packages of the clients."""
    if not INSTALLED.exists():
        missing = "The JavaScript clients are not installed: `make test` does that where npm is."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture
def node(installed: None, server: Serving, project: str) -> Node:
    """Node.js, where the packages of the clients are installed."""
    return Node(server, project)


def relay_artifacts(node: Node, folder: Path) -> dict[str, str]:
    """What Relay's compiler makes of the operations, as a variable of the environment."""
    config = folder / "relay.config.json"
    artifacts = folder / "artifacts"
    artifacts.mkdir()
    settings = {
        "src": str(CLIENTS / "relay"),
        "schema": str(CODE / "schema.graphql"),
        "artifactDirectory": str(artifacts),
        "language": "javascript",
        # Modules of that kind would need a bundler to find each other.
        "eagerEsModules": False,
        "noSourceControl": True,
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    compiler = "node_modules/.bin/relay-compiler"
    node.run(compiler, "--noWatchman", "--output", "quiet-with-errors", config)
    return {"RELAY_ARTIFACTS": str(artifacts)}


def test_relay(node: Node, tmp_path: Path) -> None:
    found = node.report("relay/tasks.js", **relay_artifacts(node, tmp_path))

    assert found == {
        "first": {"name": "Moon base", "titles": TITLES[:3], "more": True},
        "second": TITLES[:6],
        "refetched": {"__typename": "Task", "id": True, "title": "Task 5", "status": "PENDING"},
        "renamed": {"errors": [], "titles": RENAMED[:6]},
        "created": [*RENAMED[:6], "New"],
        "deleted": [*TITLES[:4], "Task 6", "New"],
    }


def test_graphql_codegen_and_typescript(node: Node) -> None:
    node.run("node", "codegen/generate.js")
    node.run("node_modules/.bin/tsc", "--project", "codegen")

    found = node.report("codegen/generated/built/tasks.js")

    unused = ["ASSIGNED", "IN_PROGRESS", "BLOCKED", "COMPLETED", "FAILED", "CANCELLED", "SKIPPED"]
    assert found == {
        "titles": TITLES[::-1],
        "total": 7,
        "count": {"PENDING": 7, **dict.fromkeys(unused, 0)},
        "created": {
            "title": "New",
            "status": "PENDING",
            "dueAt": "2030-01-01T00:00:00+00:00",
            "agent": None,
        },
        "faults": ["NOT_FOUND"],
        "limits": ["9007199254740991", "0.250000000", "9007199254740993", "1000.000000000"],
    }


def test_apollo(node: Node) -> None:
    elsewhere = [*TITLES[:4], "Renamed elsewhere", *TITLES[5:]]

    assert node.report("apollo.js") == {
        "first": {"titles": TITLES[:3], "more": True},
        "second": {"titles": TITLES[:6], "more": True},
        "third": {"titles": TITLES, "more": False},
        "renamed": {"titles": RENAMED, "errors": []},
        "elsewhere": {"titles": RENAMED, "errors": []},
        "conflict": {
            "titles": elsewhere,
            "errors": [{"code": "CONFLICT", "path": ["expectedVersion"]}],
        },
        "unnamed": {"titles": elsewhere, "errors": [{"code": "INVALID", "path": ["title"]}]},
        "refusal": "UNAUTHENTICATED",
    }


def test_urql(node: Node) -> None:
    too_short = "This must not be empty."
    too_urgent = "This must be 5 or less."

    assert node.report("urql.js") == {
        "forward": [TITLES[:-4:-1], TITLES[:0:-1]],
        "backward": [TITLES[-2:], TITLES[-4:]],
        "updated": {"title": "Renamed", "shown": RENAMED[:0:-1]},
        "refused": {
            "task": None,
            "userErrors": [
                {"__typename": "InvalidInput", "message": too_short, "path": ["title"]},
                {"__typename": "InvalidInput", "message": too_urgent, "path": ["priority"]},
            ],
        },
        "error": ["BAD_USER_INPUT"],
    }


def test_every_audit_of_graphql_over_http_passes(node: Node) -> None:
    assert node.report("audits.js") == {"count": 61, "found": []}


@contextlib.contextmanager
def restartable(
    made: tuple[Path, str], **options: Any
) -> Iterator[tuple[Callable[[], Serving], str]]:
    """A function that makes servers at one address over one database, and a token."""
    with socket.socket() as free, processes.place() as folder:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", 0))
        port, data_dir = free.getsockname()[1], processes.copied(made[0], folder / "data")
        yield lambda: Serving(folder, data_dir=data_dir, port=port, **options), made[1]


def test_graphql_ws_through_a_restart_of_the_server(
    installed: None, made: tuple[Path, str]
) -> None:
    with restartable(made) as (serving, token), serving() as first:
        node = Node(first.ready(), planned(first), token)
        with node.running("graphql-ws.js") as script:
            assert script.stdout is not None
            assert script.stdout.readline() == "asked\n"
            assert first.stop().clean
            with serving() as second:
                second.ready()
                found = json.loads(script.communicate(timeout=PATIENCE)[0])
                assert second.stop().clean

    assert found == {
        "titles": TITLES[-2:],
        "updated": {"task": {"title": "Renamed"}, "userErrors": []},
        "unnamed": {"task": None, "userErrors": [{"code": "INVALID"}]},
        "partial": {
            "data": {"me": {"username": "admin"}, "project": None},
            "codes": ["BAD_USER_INPUT"],
        },
        "refused": ["BAD_REQUEST"],
        "many": ["Renamed", "Task 7"],
        "forbidden": [4403, OVER],
        "restarted": {"code": 1012, "again": {"__typename": "Query"}},
    }


OVER = "Forbidden: the access token is unknown, has expired or was revoked."


def test_subscriptions_of_gql_in_python(made: tuple[Path, str]) -> None:
    with restartable(made) as (serving, token):
        with serving() as server:
            project = planned(server.ready())
            following = Following(project, token)
            before = positions(server, project, 2 + len(TITLES))

            def restart() -> bool:
                if len(following.found) == 1:
                    create(server, project, "Before the restart")
                else:
                    assert server.stop().clean
                return True

            with pytest.raises(TransportConnectionFailed):
                asyncio.run(following.follow(server, restart))
        with serving() as server:
            server.ready()
            create(server, project, "After the restart")
            expected = ["state", *positions(server, project, len(before) + 2)[len(before) :]]
            asyncio.run(following.follow(server, lambda: False))
            assert server.stop().clean
    assert following.found == expected


class Following:
    """The events of a project, as somebody follows them with gql."""

    def __init__(self, project: str, token: str) -> None:
        self.found: list[str] = []
        self._variables = {"project": project, "after": None}
        self._init = {"Authorization": f"Bearer {token}"}

    async def follow(self, server: Serving, goes_on: Callable[[], bool]) -> None:
        """Go on after the last message, until a function returns False after one."""
        transport = WebsocketsTransport(
            f"{server.url.replace('http', 'ws')}/graphql",
            init_payload=self._init,
            subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
            connect_args={"proxy": None},
        )
        request = GraphQLRequest(FOLLOW, variable_values=self._variables)
        async with Client(transport=transport) as session:
            async for message in session.subscribe(request):
                event = message["events"]["event"]
                self.found.append(event["position"] if event else "state")
                self._variables["after"] = message["events"]["cursor"]
                if not await asyncio.to_thread(goes_on):
                    break


def create(server: Serving, project: str, title: str) -> None:
    """Create a task."""
    server.ask(CREATE, project=project, title=title)


FOLLOW = """subscription($project: ID!, $after: String) {
  events(projectId: $project, after: $after) { cursor event { position } }
}"""
SUBSCRIBERS = {
    "graphql-ws": ["subscriptions/graphql-ws.js"],
    "graphql-sse": ["subscriptions/graphql-sse.js"],
    "graphql-sse with a single connection": ["subscriptions/graphql-sse.js", "single"],
    "Apollo Client": ["subscriptions/apollo.js"],
    "urql": ["subscriptions/urql.js"],
    "urql over event streams": ["subscriptions/urql.js", "sse"],
    "Relay": ["relay/follow.js"],
}
CREATE = """mutation($project: ID!, $title: String!) {
  createTask(input: {projectId: $project, title: $title}) { userErrors { message } }
}"""
POSITIONS = """query($project: ID!) {
  events(where: {projectId: {eq: $project}}, last: 100) { nodes { position } }
}"""


def test_subscriptions_through_a_restart_of_the_server(
    installed: None, made: tuple[Path, str], tmp_path: Path
) -> None:
    with restartable(made) as (serving, token), contextlib.ExitStack() as stack:
        with serving() as server:
            project = planned(server.ready())
            before = positions(server, project, 2 + len(TITLES))
            node = Node(server, project, token)
            artifacts = relay_artifacts(node, tmp_path)
            running = {
                name: stack.enter_context(node.running(*words, **artifacts))
                for name, words in SUBSCRIBERS.items()
            }
            first = {name: heard(script, 1) for name, script in running.items()}
            create(server, project, "Before the restart")
            for name, script in running.items():
                first[name] += heard(script, 1)
            assert server.stop().clean
        with serving() as server:
            # Whether a client is back already makes no difference.
            server.ready()
            for number in range(3):
                create(server, project, f"After the restart {number}")
            expected = ["state", *positions(server, project, len(before) + 4)[len(before) :]]
            found = {name: first[name] + heard(script, 3) for name, script in running.items()}
            for script in running.values():
                script.kill()
            more = {name: heard_after(script) for name, script in running.items()}
            assert server.stop().clean
    assert found == dict.fromkeys(SUBSCRIBERS, expected)
    assert not any(more.values()), more


PAGE = (CODE / "docs" / "subscriptions.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(
    r"^```(js|python|sh)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
)
CREATED, _, UPDATED = re.findall(r"^```graphql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_clients_of_the_page(installed: None, made: tuple[Path, str]) -> None:
    with restartable(made) as (serving, token), serving() as server:
        assert "errors" not in server.ready().ask(CREATED)
        environment = {"TOKEN": token, "NODE_OPTIONS": "--experimental-websocket"}
        node = Node(server, "", token)
        address = server.url.removeprefix("http://")
        with contextlib.ExitStack() as stack:
            running = {}
            for language, block in BLOCKS:
                text = block.replace("127.0.0.1:8000", address).replace("troupe_…", token)
                command = {
                    "js": ["node", "--input-type=module", "--eval", text],
                    "python": [sys.executable, "-c", text],
                    "sh": ["sh", "-c", f"exec {text.strip()}"],
                }[language]
                running[block] = stack.enter_context(node.started(*command, **environment))
            titles = {"Choose a site", "Choose a crater"}
            for block, program in running.items():
                assert found_in(program, titles) == "Choose a site", block
            assert "errors" not in server.ask(UPDATED)
            for block, program in running.items():
                assert found_in(program, titles) == "Choose a crater", block
        assert server.stop().clean
    assert [language for language, _ in BLOCKS] == ["js", "js", "python", "sh"]


def found_in(program: subprocess.Popen[str], texts: set[str]) -> str:
    """The first of these texts that a program prints next."""
    assert program.stdout is not None
    for line in program.stdout:
        for text in texts:
            if text in line:
                return text
    raise AssertionError("it has ended")


def positions(server: Serving, project: str, count: int) -> list[str]:
    """The positions of a project's events, once there are so many."""

    def found() -> list[str]:
        nodes = server.ask(POSITIONS, project=project)["data"]["events"]["nodes"]
        return [node["position"] for node in nodes] if len(nodes) == count else []

    return until(found)


def heard(script: subprocess.Popen[str], count: int) -> list[Any]:
    """The next lines of a script, each of which is JSON."""
    assert script.stdout is not None
    return [json.loads(script.stdout.readline()) for _ in range(count)]


def heard_after(script: subprocess.Popen[str]) -> list[Any]:
    """What else a script has printed that has ended."""
    assert script.stdout is not None
    return [json.loads(line) for line in script.stdout]


async def test_gql_in_python(server: Serving, project: str) -> None:
    transport = HTTPXAsyncTransport(
        f"{server.url}/graphql",
        headers={"authorization": f"Bearer {server.token}"},
        trust_env=False,
        verify=False,
    )
    client = Client(transport=transport, fetch_schema_from_transport=True, parse_results=True)

    async with client as session:
        assert await titles(session, project) == TITLES
        assert client.schema is not None
        await changes(session, DSLSchema(client.schema), project)


async def titles(session: AsyncClientSession, project: str) -> list[str]:
    """The titles of a project's tasks, page by page, and how it says that a page is none."""
    query = gql("""
      query Tasks($project: ID!, $after: String, $where: TaskFilter = {status: {in: [PENDING]}}) {
        project(id: $project) {
          tasks(first: 3, after: $after, where: $where) {
            nodes { title }
            pageInfo { hasNextPage endCursor }
          }
        }
      }
    """)
    found: list[str] = []
    query.variable_values = {"project": project}
    while True:
        page = (await session.execute(query))["project"]["tasks"]
        found += [task["title"] for task in page["nodes"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        query.variable_values["after"] = page["pageInfo"]["endCursor"]

    query.variable_values["after"] = "nonsense"
    with pytest.raises(TransportQueryError) as caught:
        await session.execute(query)
    assert caught.value.errors is not None
    assert caught.value.errors[0]["extensions"]["code"] == "BAD_USER_INPUT"
    return found


async def changes(session: AsyncClientSession, api: DSLSchema, project: str) -> None:
    """A project is renamed and read again, in operations that are written in Python."""

    async def rename(name: str, version: int) -> Any:
        current = DSLInlineFragment().on(api.Project).select(api.Project.name)
        conflict = DSLInlineFragment().on(api.Conflict)
        conflict.select(api.Conflict.current.select(current))
        payload = api.UpdateProjectPayload
        change = {"id": project, "name": name, "expectedVersion": version}
        mutation = api.Mutation.updateProject(input=change).select(
            payload.project.select(api.Project.name, api.Project.version),
            payload.userErrors.select(api.UserError.code, conflict),
        )
        return (await session.execute(dsl_gql(DSLMutation(mutation))))["updateProject"]

    assert await rename("Mars base", 1) == {
        "project": {"name": "Mars base", "version": 2},
        "userErrors": [],
    }
    assert await rename("Venus base", 1) == {
        "project": None,
        "userErrors": [{"code": "CONFLICT", "current": {"name": "Mars base"}}],
    }
    read = api.Query.project(id=project).select(
        api.Project.name,
        api.Project.tasks(last=2, orderBy="PRIORITY_DESC").select(
            api.TaskConnection.totalCount, api.TaskConnection.nodes.select(api.Task.title)
        ),
    )
    assert await session.execute(dsl_gql(DSLQuery(read))) == {
        "project": {
            "name": "Mars base",
            "tasks": {"totalCount": 7, "nodes": [{"title": "Task 2"}, {"title": "Task 1"}]},
        }
    }
