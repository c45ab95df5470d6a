"""Who asks: from a bearer token to a viewer."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from db import Database, Viewer, access
from graph.errors import Unauthenticated


def bearer_token(connection: HTTPConnection) -> str | None:
    """The token of the `Authorization` header (RFC 6750), none without one."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def identify(connection: HTTPConnection, database: Database) -> Viewer | None:
    """The viewer whom the request's token names, none without a token.

    Raises Unauthenticated for a token that is unknown, expired or revoked.
    """
    token = bearer_token(connection)
    if token is None:
        return None
    async with database.read() as session:
        viewer = await access.bearer(session, token)
    if viewer is None:
        raise Unauthenticated("This access token is unknown, has expired or was revoked.")
    return viewer
