"""`troupe approve`, `answer` and `acknowledge`: the answers of people to requests."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graph.cli.database import with_api
from graph.cli.errors import CommandError
from graph.cli.inbox import KINDS, REQUEST, asker, command_for
from graph.cli.lists import AsJSON, OnBehalfOf
from graph.cli.output import bare_id, details_text, escaped, json_text, moment, print_json
from graph.cli.values import whole_number

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer()

ASKED = f"""query($id: ID!) {{
  humanInteraction(id: $id) {{
    {REQUEST} content answers {{ user {{ username }} outcome comment answeredAt }}
    ... on ApprovalRequest {{ requiredApprovals approvalCount }}
    ... on ClarificationRequest {{ answer }}
  }}
}}"""

RequestID = Annotated[
    str, typer.Argument(metavar="ID", help="The id of the request, as `troupe inbox` shows it.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@app.command()
def approve(
    request: RequestID,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it.")] = False,
    comment: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A comment, which the agent gets.")
    ] = None,
    yes: Yes = False,
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """Approve or reject a request, which is shown first."""
    _require_terminal_unless(yes)

    def given(_: Any) -> dict[str, Any]:
        _confirm("Reject it?" if reject else "Approve it?", yes)
        return {"approved": not reject, "comment": comment}

    _answer("approve", request, given, user, as_json)


@app.command()
def answer(
    request: RequestID,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The answer; without it, a terminal asks for it."),
    ] = None,
    rating: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(1, 5), metavar="N", help="The rating of feedback, from 1 to 5."
        ),
    ] = None,
    yes: Yes = False,
    user: OnBehalfOf = None,
    as_json: AsJSON = False,
) -> None:
    """Answer a question or give feedback. The request is shown first."""
    if text is None and not sys.stdin.isatty():
        raise typer.BadParameter("write the answer", param_hint="'TEXT'")
    _require_terminal_unless(yes)

    def given(asked: Any) -> dict[str, Any]:
        is_feedback = asked["type"] == "FEEDBACK"
        if rating is not None and not is_feedback:
            raise CommandError("This is a question; only feedback has a --rating")
        if text is not None:
            _confirm("Send this answer?", yes)
        written = typer.prompt("Answer", err=True) if text is None else text
        return (
            {"feedback": {"text": written}, "rating": rating}
            if is_feedback
            else {"answer": written}
        )

    _answer("answer", request, given, user, as_json)


@app.command()
def acknowledge(
    request: RequestID, yes: Yes = False, user: OnBehalfOf = None, as_json: AsJSON = False
) -> None:
    """Acknowledge a notification, which is shown first."""
    _require_terminal_unless(yes)

    def given(_: Any) -> dict[str, Any]:
        _confirm("Acknowledge it?", yes)
        return {}

    _answer("acknowledge", request, given, user, as_json)


def _require_terminal_unless(yes: bool) -> None:
    if not (yes or sys.stdin.isatty()):
        raise typer.BadParameter(
            "it is needed if no one can confirm in a terminal", param_hint="'--yes'"
        )


def _confirm(question: str, yes: bool) -> None:
    if not yes:
        typer.confirm(question, abort=True, err=True)


def _answer(
    command: str,
    id: str,
    given: Callable[[Any], dict[str, Any]],
    user: str | None,
    as_json: bool,
) -> None:
    """Show a request, answer it with the input that is `given` to it, and print its new status."""

    async def work(api: Client) -> Any:
        from graph.clients import Refused

        asked = await _read(api, id)
        kind = KINDS[asked["type"]]
        if kind.command != command:
            raise CommandError(f"This is a {asked['type']}; `{command_for(asked)}` answers it")
        print(_text(asked), file=sys.stderr)
        input = given(asked)
        shown = f"{kind.field} {{ id title status {kind.shown} contentHash }}"
        named = {"id": id, "contentHash": asked["contentHash"]}
        try:
            return (await api.change(kind.mutation, shown, **named, **input))[kind.field]
        except Refused:
            await _read(api, id)  # somebody else may have answered it meanwhile
            raise

    answered = with_api(work, user=user)
    if as_json:
        print_json(answered)
    elif answered["status"] == "PENDING":
        count, required = answered["approvalCount"], answered["requiredApprovals"]
        print(f"Approved; it has {count} of {required} approvals.")
    else:
        print(f"{answered['status'].capitalize()}.")


async def _read(api: Client, id: str) -> Any:
    """The request with this id. Raises CommandError if there is none that waits."""
    asked = (await api.read(ASKED, id=id))["humanInteraction"]
    if asked is None:
        raise CommandError(f"There is no request {id!r}; `troupe inbox` lists what waits")
    if asked["status"] != "PENDING":
        if asked["status"] in ("EXPIRED", "CANCELLED"):
            raise CommandError(f"This request is {asked['status']}: it cannot be answered any more")
        how = "; ".join(map(_given, asked["answers"]))
        if asked.get("answer") is not None:
            how += f": {escaped(asked['answer'])}"
        raise CommandError(f"This request was answered already: {how}")
    return asked


def _given(answer: Any) -> str:
    """An answer, in words: by whom, when, and with which comment."""
    user = "a user who is not there any more"
    if answer["user"] is not None:
        user = answer["user"]["username"]
    words = f"{answer['outcome']} by {user} at {moment(answer['answeredAt'])}"
    return words + (f": {escaped(answer['comment'])}" if answer["comment"] else "")


def _text(request: Any) -> str:
    lines = json_text(request["content"]).split("\n")
    shown = "\n".join(f"  {escaped(line)}" for line in lines)
    approvals = None
    if "requiredApprovals" in request:
        approvals = f"{request['approvalCount']} of {request['requiredApprovals']}"
    details = details_text(
        [
            ("Request", bare_id(request["id"])),
            ("Title", escaped(request["title"])),
            ("Status", request["status"]),
            ("From", escaped(asker(request) or "")),
            ("Project", escaped(request["project"]["name"])),
            ("Task", escaped((request["task"] or {}).get("title", ""))),
            ("Expires", moment(request["expiresAt"])),
            ("Approvals", approvals),
            ("Answers", [*map(_given, request["answers"])]),
            ("Hash", request["contentHash"]),
        ]
    )
    return f"{details}\nContent:\n{shown}"
