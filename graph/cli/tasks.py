"""`troupe tasks`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import typer

from graph.cli.database import with_api
from graph.cli.errors import CommandError
from graph.cli.lists import AsJSON, First, OfProject, OnBehalfOf, nodes
from graph.cli.output import bare_id, moment, money, print_details, print_json, print_table
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer(no_args_is_help=True, help="Show tasks, and claim them for an agent.")

READY = """query($first: Int, $after: String, $projectId: ID!, $agentId: ID) {
  readyTasks(first: $first, after: $after, projectId: $projectId, agentId: $agentId) {
    nodes { id title type status priority availableAt dueAt agent { id name } }
    pageInfo { endCursor hasNextPage }
  }
}"""
ACTIVE = """{
  projects(first: 5, where: {status: {eq: IN_PROGRESS}}) { totalCount nodes { id name } }
}"""
TASK = """query($id: ID!) {
  task(id: $id) {
    id title description type status blockedReason priority cost attemptCount maxAttempts
    availableAt dueAt startedAt completedAt leaseExpiresAt result error
    project { id name } agent { id name } parentTask { id title }
    whyNotReady { code message task { id title } }
    dependencies(first: 20) { nodes { dependency { id title status } } }
    attempts(last: 5) {
      nodes { id number status progressPercent statusMessage startedAt endedAt agent { id name } }
    }
  }
}"""
CLAIMED = """reason message availableAt
attempt {
  id number leaseExpiresAt agent { id name } task { id title type priority project { id name } }
}"""


@app.command("ready")
def list_ready(
    project: OfProject = None,
    agent: str | None = typer.Option(
        None, metavar="AGENT", help="Only what this agent could claim: its id or its name."
    ),
    first: First = 50,
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """List the tasks that could be claimed now, the most urgent first.

    The project may be omitted with --agent, and if only one is IN_PROGRESS.
    """

    async def work(api: Client) -> list[Any]:
        from graph.cli.lookups import find_agent, find_project

        agent_id = project_id = None
        if agent is not None:
            found = await find_agent(api, agent, project)
            agent_id, project_id = found["id"], found["project"]["id"]
        elif project is not None:
            project_id = await find_project(api, project)
        else:
            project_id = await _only_active_project(api)
        return await nodes(api, READY, first, projectId=project_id, agentId=agent_id)

    found = with_api(work, user=user)
    if as_json:
        print_json(found)
        return
    columns = ("ID", "PRIORITY", "TYPE", "AGENT", "TITLE")
    rows = [
        [
            bare_id(each["id"]),
            each["priority"],
            each["type"],
            (each["agent"] or {}).get("name"),
            each["title"],
        ]
        for each in found
    ]
    print_table(columns, rows, numbers=("PRIORITY",))


async def _only_active_project(api: Client) -> str:
    found = (await api.read(ACTIVE))["projects"]
    if found["totalCount"] != 1:
        if found["totalCount"] == 0:
            raise CommandError("No project is IN_PROGRESS; name one with --project")
        names = ", ".join(shlex.quote(each["name"]) for each in found["nodes"])
        more = ", …" if found["totalCount"] > len(found["nodes"]) else ""
        number = found["totalCount"]
        raise CommandError(
            f"{number} projects are IN_PROGRESS; name one with --project: {names}{more}"
        )
    return str(found["nodes"][0]["id"])


@app.command("claim")
def claim_task(
    agent: str = typer.Option(metavar="AGENT", help="The agent that claims: its id or its name."),
    project: OfProject = None,
    types: list[str] | None = typer.Option(
        None, "--type", metavar="TYPE", help="Only a task of this type. Repeat it for several."
    ),
    lease: int = typer.Option(
        60,
        parser=whole_number(1),
        metavar="SECONDS",
        help="How long the lease is, in seconds; a heartbeat renews it.",
    ),
    as_json: AsJSON = False,
) -> None:
    """Claim the most urgent task for an agent, and print the attempt.

    If no task is ready, the reason is printed, which is no error.
    """

    async def work(api: Client) -> Any:
        return await api.change("claimTask", CLAIMED, leaseSeconds=lease, types=types or None)

    payload = with_api(work, agent=agent, project=project)
    attempt = payload["attempt"]
    if as_json:
        del payload["userErrors"]
        print_json(payload)
    elif attempt is None:
        available = moment(payload["availableAt"])
        print(
            payload["message"]
            + (f" The next one is available at {available}." if available else "")
        )
    else:
        task = attempt["task"]
        print_details(
            [
                ("Attempt", bare_id(attempt["id"])),
                ("Number", attempt["number"]),
                ("Agent", attempt["agent"]["name"]),
                ("Lease until", moment(attempt["leaseExpiresAt"])),
                ("Task", f"{bare_id(task['id'])}  {task['title']}"),
                ("Project", task["project"]["name"]),
            ]
        )


@app.command("show")
def show_task(
    task: str = typer.Argument(metavar="ID", help="The id of the task."),
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """Show a task, why it cannot be claimed, and its last attempts."""

    async def work(api: Client) -> Any:
        return (await api.read(TASK, id=task))["task"]

    found = with_api(work, user=user)
    if found is None:
        raise CommandError(f"There is no task {task!r}")
    if as_json:
        print_json(found)
    else:
        print_details(_details(found))


def _details(task: Any) -> list[tuple[str, object]]:
    status = task["status"]
    if task["blockedReason"] is not None:
        status += f" ({task['blockedReason']})"
    dependencies = (each["dependency"] for each in task["dependencies"]["nodes"])
    return [
        ("Task", bare_id(task["id"])),
        ("Title", task["title"]),
        ("Project", task["project"]["name"]),
        ("Part of", (task["parentTask"] or {}).get("title")),
        ("Status", status),
        ("Not ready", [_reason(each) for each in task["whyNotReady"]]),
        ("Agent", (task["agent"] or {}).get("name")),
        ("Type", task["type"]),
        ("Priority", task["priority"]),
        ("Description", (task["description"] or "").splitlines()),
        ("Depends on", [f"{_named(each)} ({each['status']})" for each in dependencies if each]),
        ("Due", moment(task["dueAt"])),
        ("Started", moment(task["startedAt"])),
        ("Completed", moment(task["completedAt"])),
        ("Attempts", f"{task['attemptCount']} of {task['maxAttempts']}"),
        ("Last", [_attempt(each) for each in task["attempts"]["nodes"]]),
        ("Cost", money(task["cost"])),
    ]


def _reason(reason: Any) -> str:
    task = reason["task"]
    return str(reason["message"]) if task is None else f"{reason['message']} {_named(task)}"


def _named(task: Any) -> str:
    return f"{bare_id(task['id'])}  {task['title']}"


def _attempt(attempt: Any) -> str:
    parts = [
        f"{attempt['number']}. {attempt['status']}",
        None if attempt["agent"] is None else f"by {attempt['agent']['name']}",
        f"since {moment(attempt['startedAt'])}",
        None if attempt["progressPercent"] is None else f"{attempt['progressPercent']} %",
        attempt["statusMessage"],
    ]
    return ", ".join(part for part in parts if part)
