"""`troupe users`."""

from __future__ import annotations

import asyncio
import sys

import typer

from db import User, UserRole, WriteSession, access, passwords
from db.users import refuse_taken
from graph.cli.database import in_transaction
from graph.cli.lookups import find_user, valid

app = typer.Typer(no_args_is_help=True, help="Manage users.")


@app.command("create")
def create_user(
    username: str = typer.Argument(help="The name to log in with."),
    email: str = typer.Option(help="The email address."),
    name: str | None = typer.Option(None, help="The display name."),
    administrator: bool = typer.Option(
        False, "--administrator", help="Make the user an administrator."
    ),
) -> None:
    """Create a user."""
    from graph.users import CreateUserInput

    row = {
        "username": username,
        "email": email,
        "display_name": name,
        "role": UserRole.ADMIN if administrator else UserRole.USER,
    }
    valid(CreateUserInput, row, "user")

    async def work(session: WriteSession) -> None:
        await refuse_taken(session, row)
        await User.create(session, **row)

    in_transaction(work)
    print(
        f"Created the user {username}."
        f" `troupe tokens create NAME --user {username}` creates an access token."
    )


@app.command("password")
def set_password(username: str = typer.Argument(help="The name of the user.")) -> None:
    """Set the password of a user, from a hidden prompt or from standard input."""
    from graph.accounts import Password

    if sys.stdin.isatty():
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    valid(Password, password, "password")
    hashed = asyncio.run(passwords.hash_password(password))

    async def work(session: WriteSession) -> None:
        await access.set_password(session, await find_user(session, username), hashed)

    in_transaction(work)
    print(f"{username} can log in with the new password.")
