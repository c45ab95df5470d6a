"""What waits for people: `troupe inbox` and `troupe approve`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from graph.cli.database import with_api
from graph.cli.errors import CommandError
from graph.cli.lists import AsJSON, First, OnBehalfOf, nodes
from graph.cli.output import (
    bare_id,
    details_text,
    escaped,
    json_text,
    moment,
    print_json,
    print_table,
)

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer()

ASKED = """id type title status priority contentHash createdAt expiresAt blocksTask
project { id name } task { id title } askedByUser { id username } askedByAgent { id name }"""
INBOX = f"""query($first: Int, $after: String) {{
  pendingInteractions(first: $first, after: $after) {{
    nodes {{ {ASKED} assignee {{ id username }} }}
    pageInfo {{ endCursor hasNextPage }}
  }}
}}"""
REQUEST = f"""query($id: ID!) {{
  humanInteraction(id: $id) {{
    {ASKED} content
    ... on ApprovalRequest {{ requiredApprovals approvalCount }}
  }}
}}"""
ANSWERED = """approvalRequest {
  id title status approved comment requiredApprovals approvalCount contentHash
}"""


@app.command()
def inbox(first: First = 50, user: OnBehalfOf = None, as_json: AsJSON = False) -> None:
    """List what waits for the answer of a person, the most urgent first."""
    found = with_api(partial(nodes, document=INBOX, first=first), user=user)
    if as_json:
        print_json(found)
        return
    columns = ("ID", "TYPE", "PRIORITY", "PROJECT", "FROM", "EXPIRES", "TITLE")
    rows = [
        [
            bare_id(each["id"]),
            each["type"],
            each["priority"],
            each["project"]["name"],
            _asker(each),
            moment(each["expiresAt"]),
            each["title"],
        ]
        for each in found
    ]
    print_table(columns, rows, numbers=("PRIORITY",))


def _asker(request: Any) -> str | None:
    user, agent = request["askedByUser"], request["askedByAgent"]
    if agent is not None:
        return f"agent {agent['name']}"
    return None if user is None else f"user {user['username']}"


@app.command()
def approve(
    request: str = typer.Argument(
        metavar="ID", help="The id of the request, as `troupe inbox` shows it."
    ),
    reject: bool = typer.Option(False, "--reject", help="Reject it."),
    comment: str | None = typer.Option(None, help="A comment, which the agent gets."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask for confirmation."),
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """Approve or reject a request, after showing what exactly is answered."""
    if not (yes or sys.stdin.isatty()):
        raise typer.BadParameter(
            "it is needed if no one can confirm in a terminal", param_hint="'--yes'"
        )

    async def work(api: Client) -> Any:
        asked = (await api.read(REQUEST, id=request))["humanInteraction"]
        if asked is None:
            raise CommandError(f"There is no request {request!r}")
        if asked["type"] != "APPROVAL":
            raise CommandError(f"This request is no APPROVAL, but a {asked['type']}")
        print(_text(asked), file=sys.stderr)
        if not yes:
            typer.confirm("Reject it?" if reject else "Approve it?", abort=True, err=True)
        answer = {"approved": not reject, "comment": comment, "contentHash": asked["contentHash"]}
        return await api.change("respondToApproval", ANSWERED, id=request, **answer)

    answered = with_api(work, user=user)["approvalRequest"]
    if as_json:
        print_json(answered)
    elif answered["status"] == "PENDING":
        count, required = answered["approvalCount"], answered["requiredApprovals"]
        print(f"Approved; it has {count} of {required} approvals.")
    else:
        print(f"{answered['status'].capitalize()}.")


def _text(request: Any) -> str:
    lines = json_text(request["content"]).split("\n")
    shown = "\n".join(f"  {escaped(line)}" for line in lines)
    details = details_text(
        [
            ("Request", bare_id(request["id"])),
            ("Title", escaped(request["title"])),
            ("Status", request["status"]),
            ("From", escaped(_asker(request) or "")),
            ("Project", escaped(request["project"]["name"])),
            ("Task", escaped((request["task"] or {}).get("title", ""))),
            ("Expires", moment(request["expiresAt"])),
            ("Approvals", f"{request['approvalCount']} of {request['requiredApprovals']}"),
            ("Hash", request["contentHash"]),
        ]
    )
    return f"{details}\nContent:\n{shown}"
