"""Workers of a server, over HTTP: they work off a plan, and one of them is killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import processes
from tests.patience import until
from tests.processes import Serving

WORKERS = 4
PROJECT = "0193a000-0000-7000-8000-000000000001"


@pytest.fixture
def server(made: tuple[Path, str], tmp_path: Path) -> Iterator[Serving]:
    """A server that looks for lost leases every second."""
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir, lease_sweep_seconds=1) as server:
            yield server.ready()


class Desk:
    """Asks a server as its administrator."""

    def __init__(self, server: Serving) -> None:
        self.server = server

    def change(self, mutation: str, /, **input: Any) -> Any:
        """The payload of a mutation, written as `name { selection }`."""
        name, _, selection = mutation.partition(" ")
        kind = f"{name[0].upper()}{name[1:]}Input!"
        query = f"mutation($input: {kind}) {{ {name}(input: $input) {selection} }}"
        answer = self.server.ask(query, input=input)
        assert "errors" not in answer, answer
        return answer["data"][name]

    def make(self, name: str, selection: str, /, **input: Any) -> Any:
        """The payload of a mutation that must succeed."""
        payload = self.change(f"{name} {{ {selection} userErrors {{ code message }} }}", **input)
        assert payload["userErrors"] == []
        return payload

    def open_project(self) -> list[str]:
        """A project in progress, and the ids of its agents, who are ready."""
        self.make("createProject", "project { id }", id=PROJECT, name="Moon base")
        for to in ("PLANNING", "IN_PROGRESS"):
            self.make("transitionProject", "project { id }", id=PROJECT, to=to)
        agents = []
        for number in range(WORKERS):
            agent = {"projectId": PROJECT, "name": f"Agent {number}", "type": "DEVELOPER"}
            id = self.make("createAgent", "agent { id }", **agent)["agent"]["id"]
            self.make("transitionAgent", "agent { id }", id=id, to="READY")
            agents.append(id)
        return agents

    def claim(self, agent: str, **input: Any) -> Any:
        """The attempt that an agent begins; none if there is no task."""
        shown = "attempt { id number task { title attempts { nodes { checkpoint } } } }"
        return self.make("claimTask", shown, agentId=agent, **input)["attempt"]

    def statuses(self) -> Counter[str]:
        """How many tasks have which status."""
        query = "{ tasks(first: 100) { nodes { status } } }"
        found = self.server.ask(query)["data"]["tasks"]["nodes"]
        return Counter(task["status"] for task in found)


def test_workers_work_off_a_plan_each_task_once(server: Serving) -> None:
    desk = Desk(server)
    agents = desk.open_project()
    # Each task waits for two before it.
    tasks = [
        {
            "reference": f"{n}",
            "title": f"{n}",
            "dependsOn": [{"on": f"{before}"} for before in (n - 1, n - 7) if before >= 0],
        }
        for n in range(40)
    ] + [{"title": f"free {n}"} for n in range(20)]
    desk.make("createTasks", "tasks { id }", projectId=PROJECT, tasks=tasks)
    claimed: list[str] = []

    def work(agent: str) -> None:
        while desk.statuses()["COMPLETED"] < len(tasks):
            attempt = desk.claim(agent)
            if attempt is not None:
                # Before it is completed: what waits for it can be claimed only after that.
                claimed.append(attempt["task"]["title"])
                desk.make("completeTask", "attempt { id }", attemptId=attempt["id"])

    threads = [threading.Thread(target=work, args=(agent,)) for agent in agents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(claimed) == sorted(str(task["title"]) for task in tasks)
    chain = [int(title) for title in claimed if title.isdecimal()]
    assert chain == sorted(chain)


def test_the_task_of_a_worker_that_is_killed_goes_on_with_another(server: Serving) -> None:
    desk = Desk(server)
    killed, other, *_ = desk.open_project()
    desk.make("createTask", "task { id }", projectId=PROJECT, title="Dig")
    lost = desk.claim(killed, leaseSeconds=1)
    beat = {"attempts": [{"attemptId": lost["id"], "checkpoint": {"depth": 1}}], "leaseSeconds": 1}
    desk.make("heartbeat", "attempts { id }", **beat)

    held = until(lambda: desk.claim(other))

    assert held["number"] == 2
    nodes = held["task"]["attempts"]["nodes"]
    assert [each["checkpoint"] for each in nodes] == [{"depth": 1}, None]
    late = desk.change("completeTask { userErrors { code } }", attemptId=lost["id"], result="late")
    assert late == {"userErrors": [{"code": "LEASE_LOST"}]}
    desk.make("completeTask", "attempt { id }", attemptId=held["id"], result="right")
    assert server.ask("{ tasks { nodes { result status attemptCount } } }")["data"] == {
        "tasks": {"nodes": [{"result": "right", "status": "COMPLETED", "attemptCount": 2}]}
    }
