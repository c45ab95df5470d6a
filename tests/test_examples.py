"""The examples against a server: workers, an orchestrator, followers, a receiver of webhooks."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph.execution.tokens import INVALID
from tests import processes
from tests.patience import PATIENCE, until
from tests.processes import CODE, Serving, troupe_here
from tests.test_clients import TITLES, create, planned, positions, restartable

EXAMPLES = CODE / "examples"
CLIENTS = CODE / "tests" / "clients"
LEASE_SECONDS = 2
BUILT = CLIENTS / "examples" / "built"
WORKERS: dict[str, list[str | Path]] = {
    "python": [sys.executable, EXAMPLES / "worker.py"],
    "typescript": ["node", BUILT / "worker.js"],
}
SMALL: dict[str, list[str | Path]] = {
    "python": [sys.executable, EXAMPLES / "small_worker.py"],
    "typescript": ["node", BUILT / "small_worker.js"],
}

TROUBLE = """mutation($project: ID!) {
  bare: createTask(input: {projectId: $project, title: "Bare", priority: 5}) {
    userErrors { message }
  }
  trouble: createTask(
    input: {projectId: $project, title: "Trouble", priority: 5, maxAttempts: 1, input: {steps: []}}
  ) { userErrors { message } }
}"""
CANCEL = "mutation($id: ID!) { cancelTask(input: {id: $id}) { userErrors { message } } }"
TASKS = """{ tasks(orderBy: CREATED_AT_ASC) { nodes {
  id title status attempts { nodes { id status checkpoint result error agent { name } } }
} } }"""
LIMITED = """mutation($input: CreateAccessTokenInput!) {
  createAccessToken(input: $input) { token }
}"""
PENDING = """{ pendingInteractions { nodes {
  id title contentHash askedByAgent { name } ... on ApprovalRequest { task { title status } }
} } }"""
RESPOND = """mutation($input: RespondToApprovalInput!) {
  respondToApproval(input: $input) { userErrors { message } }
}"""

WEBHOOK = """mutation($project: ID!, $url: String!) {
  createWebhook(input: {projectId: $project, url: $url, entityTypes: ["Task"]}) {
    webhook { id } secret
  }
}"""
DELIVERED = """query($id: ID!) { webhook(id: $id) {
  deliveries(where: {status: {eq: SUCCEEDED}}) { nodes { id attempts { startedAt } } }
} }"""
REPLAY = "mutation($id: ID!) { replayWebhookDelivery(input: {id: $id}) { userErrors { message } } }"


class Program(subprocess.Popen[bytes]):
    """An example that runs, with the lines that it has printed."""

    def __init__(
        self, server: Serving, token: str, folder: Path, *words: str | Path, **more: str
    ) -> None:
        self._log = folder / f"log-{len(list(folder.glob('log-*')))}"
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONUTF8": "1",
            "GRAPHQL_URL": f"{server.url}/graphql",
            "TOKEN": token,
            "LEASE_SECONDS": str(LEASE_SECONDS),
            "SECONDS_PER_STEP": "0.3",
            # Node.js 20 has a WebSocket only if it is told to.
            "NODE_OPTIONS": "--experimental-websocket",
            **more,
        }
        with self._log.open("wb") as log:
            super().__init__(words, env=environment, stdout=log, stderr=log)

    def __exit__(self, *_: Any) -> None:
        self.kill()
        self.wait()

    @property
    def lines(self) -> list[str]:
        """What it has printed."""
        return self._log.read_text(encoding="utf-8").splitlines()

    def printed(self, pattern: str) -> list[str]:
        """The parts of its lines that match a pattern, once there is one."""
        return until(
            lambda: [found[1] for each in self.lines if (found := re.match(pattern, each))]
        )


class Stage:
    """A server with a plan of the orchestrator's, and the workers of its agents."""

    def __init__(self, server: Serving, folder: Path, stack: contextlib.ExitStack) -> None:
        self.server, self._folder, self._stack = server, folder, stack
        program = EXAMPLES / "orchestrator.py"
        self.orchestrator = self._run(server.token, sys.executable, program)
        self.tokens = until(self._tokens)

    def _tokens(self) -> dict[str, str]:
        found = (re.match(r"(.*): TOKEN=(\S+)$", each) for each in self.orchestrator.lines)
        tokens = {match[1]: match[2] for match in found if match}
        assert self.orchestrator.poll() is None, self.orchestrator.lines
        return tokens if len(tokens) == 2 else {}

    def _run(self, token: str, *words: str | Path) -> Program:
        return self._stack.enter_context(Program(self.server, token, self._folder, *words))

    def python(self, agent: str) -> Program:
        """A worker in Python."""
        return self._run(self.tokens[agent], *WORKERS["python"])

    def typescript(self, agent: str) -> Program:
        """A worker in TypeScript."""
        return self._run(self.tokens[agent], *WORKERS["typescript"])

    def small(self, language: str, agent: str) -> Program:
        """A small worker in one of the languages."""
        words = SMALL[language]
        return self._run(self.tokens[agent], *words)

    def tasks(self) -> dict[str, Any]:
        """The tasks by their titles."""
        nodes = self.server.ask(TASKS)["data"]["tasks"]["nodes"]
        return {task["title"]: task for task in nodes}

    def question(self) -> Any:
        """What waits for a person, once something does."""
        (asked,) = until(lambda: self.server.ask(PENDING)["data"]["pendingInteractions"]["nodes"])
        return asked

    def respond(self, asked: Any, approved: bool) -> None:
        """Answer it."""
        answer = {"id": asked["id"], "contentHash": asked["contentHash"], "approved": approved}
        payload = self.server.ask(RESPOND, input=answer | {"comment": "By the book."})
        assert payload == {"data": {"respondToApproval": {"userErrors": []}}}

    def end(self) -> int:
        """Wait for the end of the orchestrator, and return its status."""
        return self.orchestrator.wait(PATIENCE)


@pytest.fixture
def stage(made: tuple[Path, str], tmp_path: Path) -> Iterator[Stage]:
    """A plan whose workers are not started yet."""
    with processes.place() as folder, contextlib.ExitStack() as stack:
        data_dir = processes.copied(made[0], folder / "data")
        server = stack.enter_context(Serving(folder, data_dir=data_dir, lease_sweep_seconds=1))
        yield Stage(server.ready(), tmp_path, stack)


@pytest.fixture(scope="module")
def compiled() -> None:
    """The examples in TypeScript, compiled."""
    if not (CLIENTS / "node_modules" / ".installed").exists():
        missing = "The JavaScript clients are not installed: `make test` does that where npm is."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    command = ["node_modules/.bin/tsc", "--project", "examples"]
    done = subprocess.run(command, cwd=CLIENTS, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("killed", ["python", "typescript"])
def test_a_plan_is_worked_off_though_a_worker_is_killed(
    compiled: None, stage: Stage, killed: str
) -> None:
    first: Callable[[str], Program] = getattr(stage, killed)
    second = stage.typescript if killed == "python" else stage.python
    victim = first("Builder 1")
    victim.printed(r"Choose a site: (step 2) of 4")
    victim.kill()
    victim.wait()
    done_before = [line for line in victim.lines if line.startswith("Choose")]

    other = second("Builder 2")
    other.printed(r"Build a road: (step 4) of 4")
    other.printed(r"Choose a site: (step 4) of 4")
    again = first("Builder 1")
    asked = stage.question()

    assert (asked["title"], asked["task"]) == (
        "May we blast the rock?",
        {"title": "Build a dome", "status": "BLOCKED"},
    )
    until(lambda: stage.tasks()["Lay the cables"]["status"] == "COMPLETED")
    stage.respond(asked, approved=True)
    assert stage.end() == 0, stage.orchestrator.lines

    tasks = stage.tasks()
    assert {task["status"] for task in tasks.values()} == {"COMPLETED"}
    site = tasks["Choose a site"]["attempts"]["nodes"]
    assert [(each["status"], each["agent"]["name"]) for each in site] == [
        ("LEASE_LOST", "Builder 1"),
        ("SUCCEEDED", "Builder 2"),
    ]
    reached = site[0]["checkpoint"]["done"]
    steps = [line for line in other.lines if line.startswith("Choose")]
    assert steps == [f"Choose a site: step {step} of 4" for step in range(reached + 1, 5)]
    assert reached >= len(done_before) >= 2
    dome = tasks["Build a dome"]["attempts"]["nodes"]
    # The answer goes to the agent that asked.
    assert {each["agent"]["name"] for each in dome} == {asked["askedByAgent"]["name"]}
    assert [each["checkpoint"] for each in dome] == [{"done": 2}, {"done": 3}]
    assert dome[1]["status"] == "SUCCEEDED"
    assert stage.orchestrator.lines[-5:] == [
        "Choose a site: COMPLETED, attempts: 2",
        "Build a road: COMPLETED, attempts: 1",
        "Build a dome: COMPLETED, attempts: 2",
        "Lay the cables: COMPLETED, attempts: 1",
        "Open the base: COMPLETED, attempts: 1",
    ]
    assert again.poll() is None
    assert other.poll() is None


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_what_fails_and_what_is_rejected_ends_the_plan_too(
    compiled: None, stage: Stage, language: str
) -> None:
    projects = stage.server.ask("{ projects { nodes { id } } }")["data"]["projects"]["nodes"]
    # A task without an input has one step; the steps of the other cannot be counted.
    created = stage.server.ask(TROUBLE, project=projects[0]["id"])
    assert created == {"data": {"bare": {"userErrors": []}, "trouble": {"userErrors": []}}}
    start: Callable[[str], Program] = getattr(stage, language)
    worker = start("Builder 1")
    stage.respond(stage.question(), approved=False)

    assert stage.end() == 1
    assert worker.printed("(Bare: step 1 of 1)$") == ["Bare: step 1 of 1"]
    assert len(worker.printed("(Trouble: TypeError)")) == 1
    (rejection,) = worker.printed(r"(Build a dome: .*By the book\..*)$")
    dome = f"Build a dome: FAILED, attempts: 2, error: {rejection.removeprefix('Build a dome: ')}"
    assert dome in stage.orchestrator.lines

    tasks = stage.tasks()
    assert {title: task["status"] for title, task in tasks.items()} == {
        "Bare": "COMPLETED",
        "Trouble": "FAILED",
        "Choose a site": "COMPLETED",
        "Build a road": "COMPLETED",
        "Build a dome": "FAILED",
        "Lay the cables": "COMPLETED",
        "Open the base": "SKIPPED",
    }
    assert "TypeError" in tasks["Trouble"]["attempts"]["nodes"][0]["error"]
    # It has attempts left, but what a person has rejected is not tried again.
    parked, rejected = tasks["Build a dome"]["attempts"]["nodes"]
    assert (parked["error"], rejected["status"]) == (None, "FAILED")
    assert "By the book." in rejected["error"]


@pytest.mark.parametrize("language", SMALL)
def test_a_small_worker_does_all_that_it_gets(compiled: None, stage: Stage, language: str) -> None:
    worker = stage.small(language, "Builder 1")

    assert stage.end() == 0, worker.lines

    tasks = stage.tasks()
    assert {task["status"] for task in tasks.values()} == {"COMPLETED"}
    for title, task in tasks.items():
        (attempt,) = task["attempts"]["nodes"]
        assert (attempt["status"], attempt["result"]) == ("SUCCEEDED", {"title": title})
    worker.printed(r".*(No task is ready)")
    assert worker.poll() is None


@pytest.mark.parametrize("language", SMALL)
def test_the_readme_is_right_about_its_worker(
    compiled: None, made: tuple[Path, str], tmp_path: Path, language: str
) -> None:
    page = (CODE / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (mutation,) = (text for kind, text in blocks if kind == "graphql")
    (printed,) = (text for kind, text in blocks if not kind and "No task is ready" in text)
    (line,) = re.findall(r"^.venv/bin/troupe (tokens create .*)$", page, re.MULTILINE)
    command = shlex.split(line)
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            server.ready().ask(mutation)
            token = troupe_here(*command, data_dir=data_dir).printed.strip()
            with Program(server, token, tmp_path, *SMALL[language]) as worker:
                worker.printed(".*(No task is ready)")
                tasks = server.ask(TASKS)["data"]["tasks"]["nodes"]
                assert [task["status"] for task in tasks] == ["COMPLETED", "COMPLETED"]
                if language == "python":
                    shown = [re.sub("'id': '[^']+'", "'id': '…'", each) for each in worker.lines]
                    assert shown == printed.splitlines()


@pytest.mark.parametrize("language", SMALL)
def test_a_small_worker_says_why_it_cannot_work(
    compiled: None, stage: Stage, language: str, tmp_path: Path
) -> None:
    with Program(stage.server, "troupe_wrong", tmp_path, *SMALL[language]) as worker:
        assert worker.wait(PATIENCE) == 1
        assert worker.lines == [INVALID]


@pytest.mark.parametrize("language", SMALL)
def test_a_small_worker_shows_what_refuses_its_claims(
    compiled: None, stage: Stage, language: str, tmp_path: Path
) -> None:
    with Program(stage.server, stage.server.token, tmp_path, *SMALL[language]) as worker:
        worker.printed(".*(You are not an agent)")
        assert worker.poll() is None


@pytest.mark.parametrize("language", WORKERS)
@pytest.mark.parametrize("scope", [None, "READ"])
def test_a_worker_whose_token_does_not_do_says_so_and_stops(
    compiled: None, stage: Stage, language: str, scope: str | None, tmp_path: Path
) -> None:
    token, reason = "troupe_wrong", "This access token is unknown"
    if scope is not None:
        agent = stage.server.ask("{ agents(first: 1) { nodes { id } } }")["data"]["agents"]["nodes"]
        input = {"agentId": agent[0]["id"], "name": "limited", "scopes": [scope]}
        token = stage.server.ask(LIMITED, input=input)["data"]["createAccessToken"]["token"]
        reason = "You may not use claimTask"
    with Program(stage.server, token, tmp_path, *WORKERS[language]) as worker:
        assert worker.wait(PATIENCE) == 1
        assert reason in worker.lines[-1]


@pytest.mark.parametrize("language", WORKERS)
def test_a_worker_says_that_it_cannot_reach_the_server(
    compiled: None, stage: Stage, language: str, tmp_path: Path
) -> None:
    nowhere = {"GRAPHQL_URL": "http://127.0.0.1:1/graphql"}
    with Program(stage.server, "", tmp_path, *WORKERS[language], **nowhere) as worker:
        worker.printed(r"claimTask at \S+: .*; (again in 2 s)$")
        assert worker.poll() is None


def test_an_orchestrator_goes_on_with_a_plan_and_waits_for_the_server(
    stage: Stage, tmp_path: Path
) -> None:
    (again,) = stage.orchestrator.printed(r"Start a worker .* PROJECT=(\S+)$")
    stage.orchestrator.kill()
    command = sys.executable, EXAMPLES / "orchestrator.py"
    unknown = {"PROJECT": "01940000-0000-7000-8000-000000000000"}
    with Program(stage.server, stage.server.token, tmp_path, *command, **unknown) as other:
        assert other.wait(PATIENCE) == 1
        assert other.lines == [f"There is no project {unknown['PROJECT']}."]
    with Program(stage.server, stage.server.token, tmp_path, *command, PROJECT=again) as watching:
        watching.printed("(total 5, ready 2, waiting 3)$")
        found = stage.server.ask("{ projects { totalCount } }")
        assert found == {"data": {"projects": {"totalCount": 1}}}
        stage.server.stop()
        watching.printed(r"\S+ does not answer: .*; (again in 1 s)$")
        assert watching.poll() is None
    with Program(stage.server, stage.server.token, tmp_path, *command, TOKEN="") as missing:
        assert missing.wait(PATIENCE) == 1
        assert missing.lines == ["Set TOKEN to the access token of a user."]


@pytest.mark.parametrize("name", ["follower", "small_worker", "worker"])
def test_an_example_in_typescript_can_be_copied(name: str) -> None:
    # In a folder without a package.json, tsx and Node.js 20 take a file for CommonJS, in which
    # nothing is awaited at the top level.
    code = (EXAMPLES / f"{name}.ts").read_text(encoding="utf-8")
    assert not re.search(r"^(?! ).*\bawait\b", code, re.MULTILINE)
    assert not (EXAMPLES / "package.json").exists()


def test_a_worker_that_is_interrupted_gives_its_task_back(stage: Stage) -> None:
    worker = stage.python("Builder 1")
    worker.printed(r"Choose a site: (step 1) of 4")

    worker.send_signal(signal.SIGINT)

    worker.wait(PATIENCE)
    site = stage.tasks()["Choose a site"]
    assert site["status"] == "PENDING"
    (attempt,) = site["attempts"]["nodes"]
    assert attempt["status"] == "RELEASED"
    assert attempt["checkpoint"]["done"] >= 1


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_worker_stops_a_task_that_is_cancelled(
    compiled: None, stage: Stage, language: str
) -> None:
    start: Callable[[str], Program] = getattr(stage, language)
    worker = start("Builder 1")
    worker.printed(r"Choose a site: (step 1) of 4")

    answer = stage.server.ask(CANCEL, id=stage.tasks()["Choose a site"]["id"])

    assert answer == {"data": {"cancelTask": {"userErrors": []}}}
    until(lambda: stage.tasks()["Choose a site"]["status"] == "CANCELLED")
    worker.printed(r"Build a road: (step 1) of 4")
    (attempt,) = stage.tasks()["Choose a site"]["attempts"]["nodes"]
    assert attempt["status"] == "CANCELLED"


@pytest.mark.parametrize("language", ["python", "typescript"])
def test_a_worker_that_lost_its_lease_leaves_the_task_alone(
    compiled: None, stage: Stage, language: str
) -> None:
    start: Callable[[str], Program] = getattr(stage, language)
    worker = start("Builder 1")
    worker.printed(r"Choose a site: (step 1) of 4")
    worker.send_signal(signal.SIGSTOP)
    other = start("Builder 2")
    other.printed(r"Choose a site: (step 4) of 4")

    worker.send_signal(signal.SIGCONT)

    worker.printed(r"(This attempt is LEASE_LOST)")
    assert worker.poll() is None
    attempts = stage.tasks()["Choose a site"]["attempts"]["nodes"]
    assert [(each["status"], each["agent"]["name"]) for each in attempts] == [
        ("LEASE_LOST", "Builder 1"),
        ("SUCCEEDED", "Builder 2"),
    ]


def test_followers_get_each_event_once_through_restarts_of_the_server(
    compiled: None, made: tuple[Path, str], tmp_path: Path
) -> None:
    programs: dict[str, list[str | Path]] = {
        "python": [sys.executable, EXAMPLES / "follower.py"],
        "typescript": ["node", BUILT / "follower.js"],
    }
    with restartable(made) as (serving, token), contextlib.ExitStack() as stack:
        with serving() as server:
            project = planned(server.ready())
            more = {"PROJECT": project, "COUNT": "12"}
            followers = {
                name: stack.enter_context(Program(server, token, tmp_path, *words, **more))
                for name, words in programs.items()
            }
            for follower in followers.values():
                follower.printed("(Following)")
            for number in range(4):
                create(server, project, f"At first {number}")
            for follower in followers.values():
                until(partial(has_seen, follower, 4))
            assert server.stop().clean
        with serving() as server:
            server.ready()
            for number in range(4):
                create(server, project, f"After it was stopped {number}")
            server.kill()
        with serving() as server:
            server.ready()
            for number in range(4):
                create(server, project, f"After it was killed {number}")
            expected = positions(server, project, 2 + len(TITLES) + 12)[-12:]
            for name, follower in followers.items():
                assert follower.wait(PATIENCE) == 0, follower.lines
                assert follower.printed(r"(\d+): CREATED Task") == expected, name
                assert "Each of 12 events came once, in order." in follower.lines
            assert server.stop().clean


def has_seen(follower: Program, count: int) -> bool:
    """Whether a follower has printed so many events."""
    return len(follower.printed(r"(\d+): CREATED Task")) == count


def test_a_receiver_handles_each_message_of_a_webhook_once(
    made: tuple[Path, str], tmp_path: Path
) -> None:
    with (
        restartable(made, webhook_private_networks="127.0.0.0/8") as (serving, _),
        serving() as server,
    ):
        project = planned(server.ready())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        url = f"http://127.0.0.1:{port}/"
        webhook = server.ask(WEBHOOK, project=project, url=url)["data"]["createWebhook"]
        words = sys.executable, EXAMPLES / "webhook_receiver.py"
        more = {"SECRET": webhook["secret"], "PORT": port}
        with Program(server, "", tmp_path, *words, **more) as receiver:
            receiver.printed("(listening)")
            create(server, project, "Lay the cables")
            receiver.printed("(task.created) ")
            (delivery,) = until(partial(delivered, server, webhook["webhook"]["id"]))

            server.ask(REPLAY, id=delivery["id"])

            until(lambda: delivered(server, webhook["webhook"]["id"]) not in ([], [delivery]))
            assert len(receiver.printed("(task.created) ")) == 1
            forged = {"webhook-id": "x", "webhook-timestamp": "1", "webhook-signature": "v1,eA=="}
            assert httpx.post(url, content="{}", headers=forged).status_code == 401
            assert httpx.post(url, content="{}").status_code == 401
            assert len(receiver.printed("(task.created) ")) == 1


def delivered(server: Serving, webhook: str) -> Any:
    """What was sent to a webhook."""
    return server.ask(DELIVERED, id=webhook)["data"]["webhook"]["deliveries"]["nodes"]


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("worker.py", 120),
        ("worker.ts", 120),
        ("follower.py", 85),
        ("follower.ts", 85),
    ],
)
def test_an_example_is_short(name: str, most: int) -> None:
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= most


@pytest.mark.parametrize("name", ["small_worker.py", "small_worker.ts"])
def test_a_small_worker_has_twenty_lines(name: str) -> None:
    _, _, code = (EXAMPLES / name).read_text(encoding="utf-8").partition("\n\n")
    lines = [line for line in code.splitlines() if line]
    assert len(lines) <= 20
    assert all(len(line) <= 103 for line in lines)
