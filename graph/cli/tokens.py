"""`troupe tokens`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import typer

from db import TokenScope, WriteSession, access
from graph.cli.database import in_transaction
from graph.cli.lookups import find_agent_id, find_user, valid

app = typer.Typer(no_args_is_help=True, help="Manage access tokens.")


@app.command("create")
def create_token(
    name: str = typer.Argument(help="The name of the token."),
    user: str | None = typer.Option(None, metavar="USERNAME", help="The user of the token."),
    agent: str | None = typer.Option(
        None, metavar="AGENT", help="The agent of the token: its id, or with --project its name."
    ),
    project: str | None = typer.Option(None, help="The project of the agent: its id or its name."),
    scope: list[TokenScope] | None = typer.Option(
        None,
        case_sensitive=False,
        metavar="SCOPE",
        help=f"A scope to limit the token to: {', '.join(TokenScope)}. Repeat it for several"
        " scopes. By default the token is not limited.",
    ),
    days: int | None = typer.Option(
        None, min=1, max=36500, help="The days until it expires; by default never."
    ),
) -> None:
    """Create an access token for a user or an agent, and print it. It is not shown again."""
    from graph.core.scalars import Line

    if (user is None) == (agent is None):
        raise typer.BadParameter("give exactly one of them", param_hint="'--user' / '--agent'")
    if project is not None and agent is None:
        raise typer.BadParameter("it can only be used with --agent", param_hint="'--project'")
    valid(Line, name, "name")
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def work(session: WriteSession) -> str:
        _, token = await access.create_token(
            session,
            name,
            user_id=None if user is None else (await find_user(session, user)).id,
            agent_id=None if agent is None else await find_agent_id(session, agent, project),
            scopes=scope or (),
            expires_at=expires_at,
        )
        return token

    print(in_transaction(work))
