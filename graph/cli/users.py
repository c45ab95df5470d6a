"""`troupe users`."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

import typer

from graph.cli.database import with_api
from graph.cli.lists import AsJSON, First, OnBehalfOf, nodes
from graph.cli.output import print_json, print_table

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer(no_args_is_help=True, help="Manage users.")

USERS = """query($first: Int, $after: String) {
  users(first: $first, after: $after, orderBy: USERNAME_ASC) {
    nodes { id username displayName email role isActive createdAt }
    pageInfo { endCursor hasNextPage }
  }
}"""


@app.command("list")
def list_users(first: First = 50, user: OnBehalfOf = None, as_json: AsJSON = False) -> None:
    """List users."""
    found = with_api(partial(nodes, document=USERS, first=first), user=user)
    if as_json:
        print_json(found)
        return
    columns = ("USERNAME", "NAME", "EMAIL", "ROLE", "ACTIVE")
    keys = ("username", "displayName", "email", "role", "isActive")
    print_table(columns, [[each[key] for key in keys] for each in found])


@app.command("create")
def create_user(
    username: str = typer.Argument(metavar="USERNAME", help="The name to log in with."),
    email: str = typer.Option(metavar="ADDRESS", help="The email address."),
    name: str | None = typer.Option(None, metavar="NAME", help="The display name."),
    administrator: bool = typer.Option(
        False, "--administrator", help="Make the user an administrator."
    ),
) -> None:
    """Create a user."""
    role = "ADMIN" if administrator else "USER"

    async def work(api: Client) -> None:
        values = {"username": username, "email": email, "displayName": name, "role": role}
        await api.change("createUser", **values)

    with_api(work, creates=True)
    print(
        f"Created the user {username}."
        f" `troupe tokens create NAME --user {username}` creates an access token."
    )


@app.command("password")
def set_password(
    username: str = typer.Argument(metavar="USERNAME", help="The name of the user."),
) -> None:
    """Set the password of a user. A hidden prompt asks for it, or it is on the standard input."""

    async def work(api: Client) -> None:
        from graph.cli.lookups import find_user

        user = await find_user(api, username)
        if sys.stdin.isatty():
            password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
        else:
            password = sys.stdin.readline().rstrip("\n")
        await api.change("setPassword", userId=user["id"], newPassword=password)

    with_api(work)
    print(f"{username} can log in with the new password.")
