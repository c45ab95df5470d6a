"""An orchestrator: it makes a plan and its agents, and watches the plan to the end.

It needs gql[httpx], and in TOKEN the token of a user. It prints a token for each agent; start a
worker with each. It leaves the questions of the agents to people. With the id of a project in
PROJECT, it watches that one. Its exit code is 0 if all tasks were completed, and otherwise 1.
"""

import os
import sys
import time
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXTransport

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql")
SECONDS = float(os.environ.get("SECONDS_PER_STEP", "5"))
AGENTS = ["Builder 1", "Builder 2"]
TASKS: list[dict[str, Any]] = [
    {"reference": "site", "title": "Choose a site", "input": {"steps": 4}, "priority": 5},
    {"reference": "road", "title": "Build a road", "input": {"steps": 4}, "priority": 4},
    {
        "reference": "dome",
        "title": "Build a dome",
        "input": {"steps": 3, "question": "May we blast the rock?"},
        "dependsOn": [{"on": "site"}],
    },
    {
        "reference": "cable",
        "title": "Lay the cables",
        "input": {"steps": 2},
        "dependsOn": [{"on": "site"}, {"on": "road"}],
    },
    {
        "title": "Open the base",
        "input": {"steps": 1},
        "dependsOn": [{"on": "dome"}, {"on": "cable"}],
    },
]

PLAN = """mutation($input: CreateProjectPlanInput!) {
  createProjectPlan(input: $input) {
    project { id }
    agents { id name }
    userErrors { message path }
  }
}"""
TOKEN = """mutation($input: CreateAccessTokenInput!) {
  createAccessToken(input: $input) { token userErrors { message path } }
}"""
MOVE_AGENT = """mutation($input: TransitionAgentInput!) {
  transitionAgent(input: $input) { userErrors { message path } }
}"""
MOVE_PROJECT = """mutation($input: TransitionProjectInput!) {
  transitionProject(input: $input) { userErrors { message path } }
}"""
STATUS = "query($project: ID!) { project(id: $project) { status } }"
STATS = """query($project: ID!) {
  projectStats(projectId: $project) {
    total completed inProgress ready waiting blockedOnPeople failed cancelled skipped
  }
}"""
OUTCOME = """query($project: ID!) {
  taskGraph(projectId: $project) { nodes { task { title status attemptCount error } } }
}"""


class Troupe:
    """Asks the server."""

    def __init__(self, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._client = Client(transport=HTTPXTransport(URL, headers=headers))

    def ask(self, query: str, **variables: Any) -> Any:
        """The only field of an operation's answer."""
        (answer,) = self._client.execute(GraphQLRequest(query, variable_values=variables)).values()
        if isinstance(answer, dict) and answer.get("userErrors"):
            sys.exit(f"The server refuses: {answer['userErrors']}")
        return answer

    def change(self, mutation: str, /, **input: Any) -> Any:
        """The payload of a mutation."""
        return self.ask(mutation, input=input)


def plan(troupe: Troupe) -> str:
    """Make the project with its tasks and agents, and return its id."""
    tasks = [task | {"input": task["input"] | {"secondsPerStep": SECONDS}} for task in TASKS]
    agents = [{"name": name, "type": "BUILDER"} for name in AGENTS]
    made = troupe.change(PLAN, name="Mars station", tasks=tasks, agents=agents)
    for agent in made["agents"]:
        troupe.change(MOVE_AGENT, id=agent["id"], to="READY")
        work = {"agentId": agent["id"], "name": "worker", "scopes": ["WORK"]}
        print(f"{agent['name']}: TOKEN={troupe.change(TOKEN, **work)['token']}", flush=True)
    return str(made["project"]["id"])


def start(troupe: Troupe, project: str) -> None:
    """Start the project, if it has not been started."""
    found = troupe.ask(STATUS, project=project)
    if found is None:
        sys.exit(f"There is no project {project}.")
    if found["status"] in ("DRAFT", "PLANNING"):
        troupe.change(MOVE_PROJECT, id=project, to="IN_PROGRESS")
    print(f"Start a worker with each TOKEN. To watch again: PROJECT={project}", flush=True)


def watch(troupe: Troupe, project: str) -> bool:
    """Print how the project goes on until nothing is left to do; whether all was completed."""
    shown = ""
    while True:
        time.sleep(1)
        try:
            stats = troupe.ask(STATS, project=project)
        except TransportError as error:
            codes = {each["extensions"]["code"] for each in getattr(error, "errors", None) or ()}
            if codes & {"BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED"}:
                sys.exit(f"{URL} cannot be used: {error}")
            print(f"{URL} does not answer: {error}; again in 1 s", flush=True)
            continue
        line = ", ".join(f"{name} {count}" for name, count in stats.items() if count)
        if line != shown:
            print(line, flush=True)
        shown = line
        ended = sum(stats[name] for name in ("completed", "failed", "cancelled", "skipped"))
        if ended == stats["total"]:
            return bool(stats["completed"] == stats["total"])


def main() -> None:
    """Make the plan, watch it, and print what became of each task."""
    if not os.environ.get("TOKEN"):
        sys.exit("Set TOKEN to the access token of a user.")
    troupe = Troupe(os.environ["TOKEN"])
    project = os.environ.get("PROJECT") or plan(troupe)
    start(troupe, project)
    is_completed = watch(troupe, project)
    for node in troupe.ask(OUTCOME, project=project)["nodes"]:
        task = node["task"]
        error = "" if task["error"] is None else f", error: {task['error']}"
        line = f"{task['title']}: {task['status']}, attempts: {task['attemptCount']}{error}"
        print(line, flush=True)
    if is_completed and troupe.ask(STATUS, project=project)["status"] == "IN_PROGRESS":
        troupe.change(MOVE_PROJECT, id=project, to="COMPLETED")
    sys.exit(not is_completed)


if __name__ == "__main__":
    main()
