"""`troupe tokens`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from graph.cli.database import with_api
from graph.cli.errors import CommandError
from graph.cli.lists import AsJSON, First, nodes
from graph.cli.output import moment, print_json, print_table
from graph.cli.values import one_of, whole_number

if TYPE_CHECKING:
    from graph.clients import Client

app = typer.Typer(no_args_is_help=True, help="Manage access tokens.")

# As in `db.access`, whose import takes long.
PREFIX_LENGTH = 12


class Scope(StrEnum):
    """The scopes of `db.TokenScope`, whose import takes long."""

    READ = "read"
    WORK = "work"
    WRITE = "write"
    ADMINISTER = "administer"


TOKENS = """query($first: Int, $after: String, $where: AccessTokenFilter) {
  accessTokens(first: $first, after: $after, orderBy: CREATED_AT_DESC, where: $where) {
    nodes {
      id name prefix scopes createdAt expiresAt revokedAt lastUsedAt
      user { id username } agent { id name project { id name } }
    }
    pageInfo { endCursor hasNextPage }
  }
}"""

USER = typer.Option(None, metavar="USERNAME", help="The user of the token.")
AGENT = typer.Option(None, metavar="AGENT", help="The agent of the token: its id or its name.")
PROJECT = typer.Option(
    None, metavar="PROJECT", help="The project of the agent: its id or its name."
)


@app.command("create")
def create_token(
    name: str = typer.Argument(metavar="NAME", help="The name of the token."),
    user: str | None = USER,
    agent: str | None = AGENT,
    project: str | None = PROJECT,
    scope: list[Scope] | None = typer.Option(
        None,
        parser=one_of(Scope),
        autocompletion=lambda: [*Scope],
        metavar="SCOPE",
        help=f"A scope to limit the token to: {', '.join(Scope)}. Repeat it for several"
        " scopes. By default the token is not limited.",
    ),
    days: int | None = typer.Option(
        None,
        parser=whole_number(1, 36500),
        metavar="N",
        help="The days until it expires; by default never.",
    ),
    as_json: AsJSON = False,
) -> None:
    """Create an access token for a user or an agent, and print it. It is not shown again."""
    if (user is None) == (agent is None):
        raise typer.BadParameter("give one of them", param_hint="'--user' / '--agent'")
    _refuse_project_alone(agent, project)
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)

    async def work(api: Client) -> Any:
        bearer = await _bearer(api, user, agent, project)
        return await api.change(
            "createAccessToken",
            "token accessToken { id name prefix scopes expiresAt }",
            name=name,
            scopes=[each.name for each in scope or ()],
            expiresAt=expires_at and expires_at.isoformat(),
            **bearer,
        )

    payload = with_api(work)
    if as_json:
        print_json(_as_json(payload["accessToken"]) | {"token": payload["token"]})
    else:
        print(payload["token"])


@app.command("list")
def list_tokens(
    user: str | None = USER,
    agent: str | None = AGENT,
    project: str | None = PROJECT,
    show_all: bool = typer.Option(
        False, "--all", help="Also show tokens that have expired or were revoked."
    ),
    first: First = 50,
    as_json: AsJSON = False,
) -> None:
    """List access tokens, the newest first. The tokens themselves are not stored."""
    _refuse_project_alone(agent, project)

    async def work(api: Client) -> list[Any]:
        bearer = await _bearer(api, user, agent, project)
        where: dict[str, Any] = {key: {"eq": id} for key, id in bearer.items()}
        if not show_all:
            now = datetime.now(UTC).isoformat()
            where["revokedAt"] = {"isNull": True}
            where["or"] = [{"expiresAt": {"isNull": True}}, {"expiresAt": {"gt": now}}]
        return await nodes(api, TOKENS, first, where=where)

    found = with_api(work)
    if as_json:
        print_json([_as_json(each) for each in found])
        return
    columns = ("TOKEN", "NAME", "OF", "SCOPES", "LAST USED", "EXPIRES")
    print_table(
        [*columns, *(["REVOKED"] if show_all else [])], [_row(each, show_all) for each in found]
    )


def _as_json(token: dict[str, Any]) -> dict[str, Any]:
    """A token as JSON. The API has an empty list for one that is not limited: it has all scopes."""
    return token | {"scopes": token["scopes"] or [each.name for each in Scope]}


def _row(token: Any, show_all: bool) -> list[object]:
    agent, user = token["agent"], token["user"]
    bearer = f"agent {agent['name']}" if user is None else f"user {user['username']}"
    scopes = ", ".join(each.lower() for each in token["scopes"]) or "all"
    used, expires, revoked = (
        moment(token[key]) for key in ("lastUsedAt", "expiresAt", "revokedAt")
    )
    row = [f"{token['prefix']}…", token["name"], bearer, scopes, used, expires]
    return [*row, revoked] if show_all else row


@app.command("revoke")
def revoke_token(
    token: str = typer.Argument(
        metavar="TOKEN",
        help="The token: its id, or its first characters as `troupe tokens list` shows them.",
    ),
) -> None:
    """Revoke an access token. Within a second, no server accepts it any more."""

    async def work(api: Client) -> Any:
        from graph.cli.lookups import is_id

        id = token if is_id("AccessToken", token) else await _id_of(api, token.rstrip("…"))
        return await api.change("revokeAccessToken", "accessToken { prefix name }", id=id)

    revoked = with_api(work)["accessToken"]
    print(f"Revoked the token {revoked['prefix']}… ({revoked['name']}).")


async def _id_of(api: Client, prefix: str) -> str:
    if len(prefix) < PREFIX_LENGTH:
        raise CommandError(
            f"{prefix} is too short: give the first {PREFIX_LENGTH} characters of the token, as"
            " `troupe tokens list` shows them"
        )
    # A token itself can be given as well: it begins with its prefix.
    where = {"prefix": {"eq": prefix[:PREFIX_LENGTH]}, "revokedAt": {"isNull": True}}
    found = await nodes(api, TOKENS, 2, where=where)
    if len(found) != 1:
        shown = f"{prefix[:PREFIX_LENGTH]}…"
        if found:
            raise CommandError(
                f"There are several tokens {shown}; `troupe tokens list --json` has their ids"
            )
        raise CommandError(
            f"There is no token {shown}; `troupe tokens list` shows those that can be revoked"
        )
    return str(found[0]["id"])


async def _bearer(
    api: Client, user: str | None, agent: str | None, project: str | None
) -> dict[str, str]:
    """The id of the user or agent of a token, by the name of the field."""
    from graph.cli.lookups import find_agent, find_user

    bearer = {}
    if user is not None:
        bearer["userId"] = (await find_user(api, user))["id"]
    if agent is not None:
        bearer["agentId"] = (await find_agent(api, agent, project))["id"]
    return bearer


def _refuse_project_alone(agent: str | None, project: str | None) -> None:
    if project is not None and agent is None:
        raise typer.BadParameter("it can only be used with --agent", param_hint="'--project'")
