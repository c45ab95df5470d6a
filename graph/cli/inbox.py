"""`troupe inbox`: what waits for people."""

from __future__ import annotations

import shutil
import textwrap
from functools import partial
from typing import Any, NamedTuple

import typer

from graph.cli.database import with_api
from graph.cli.lists import AsJSON, First, OnBehalfOf, nodes
from graph.cli.output import bare_id, moment, print_json, printable

app = typer.Typer()

REQUEST = """id type title status priority contentHash createdAt expiresAt blocksTask
project { id name } task { id title } askedByUser { id username } askedByAgent { id name }"""
INBOX = f"""query($first: Int, $after: String) {{
  pendingInteractions(first: $first, after: $after) {{
    nodes {{ {REQUEST} assignee {{ id username }} }}
    pageInfo {{ endCursor hasNextPage }}
  }}
}}"""


class Kind(NamedTuple):
    """How the requests of a type are answered."""

    command: str
    mutation: str
    field: str
    """The field of the payload that has the request."""
    shown: str
    """What is selected of the answered request, beside what all have."""


KINDS = {
    "APPROVAL": Kind(
        "approve",
        "respondToApproval",
        "approvalRequest",
        "approved comment requiredApprovals approvalCount",
    ),
    "CLARIFICATION": Kind("answer", "answerClarification", "clarificationRequest", "answer"),
    "FEEDBACK": Kind("answer", "submitFeedback", "feedbackRequest", "feedback rating"),
    "NOTIFICATION": Kind("acknowledge", "acknowledgeNotification", "notification", ""),
}


@app.command()
def inbox(first: First = 50, user: OnBehalfOf = None, as_json: AsJSON = False) -> None:
    """List what waits for people, and how to answer it. The most urgent is first."""
    found = with_api(partial(nodes, document=INBOX, first=first), user=user)
    if as_json:
        print_json(found)
    elif found:
        print("\n\n".join(map(_entry, found)))
    else:
        print("Nothing waits for an answer.")


def _entry(request: Any) -> str:
    """A request, in lines that fit the terminal."""
    facts = [
        request["type"],
        f"priority {request['priority']}",
        f"from {asker(request)}" if asker(request) else None,
        f"in {request['project']['name']}",
        f"expires {moment(request['expiresAt'])}" if request["expiresAt"] else None,
    ]
    width = max(40, shutil.get_terminal_size().columns)
    lines = [
        textwrap.fill(printable(text), width, initial_indent=indent, subsequent_indent="  ")
        for text, indent in ((request["title"], ""), (", ".join(filter(None, facts)), "  "))
    ]
    return "\n".join([*lines, f"  {command_for(request)}"])


def command_for(request: Any) -> str:
    """The command that answers a request."""
    return f"troupe {KINDS[request['type']].command} {bare_id(request['id'])}"


def asker(request: Any) -> str | None:
    """Who has made a request, in words; None if they are not there any more."""
    user, agent = request["askedByUser"], request["askedByAgent"]
    if agent is not None:
        return f"agent {agent['name']}"
    return None if user is None else f"user {user['username']}"
