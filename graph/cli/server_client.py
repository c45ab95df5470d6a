"""The API of a server that runs on this machine, over HTTP.

This is quicker than the API within this process, which first has to load the schema.
"""

from __future__ import annotations

from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import orjson

from graph.cli.errors import CommandError
from graph.cli.servers import RunningServer, note_database_of
from graph.clients import Client, exact_json

TIMEOUT = 60
"""How long a response may take, in seconds; longer than an operation may run."""


class Unusable(Exception):
    """The server does not answer, or not with this token. Nothing was done."""


class ServerClient(Client):
    """The API of a server, for the user of the token that it has created at its start."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._has_answered = False

    async def ask(
        self, document: str, operation: str | None = None, /, **variables: Any
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The data that an operation answers, and its errors. Raises Unusable."""
        request = {"query": document, "operationName": operation, "variables": variables}
        try:
            # Nothing else runs meanwhile.
            answer = self._post(orjson.dumps(request))
        except Unusable:
            if not self._has_answered:
                raise
            # A command that began with this server must not go on with another database.
            raise CommandError(
                f"The server ({self._server.description}) stopped meanwhile, or does not accept its"
                " token any more; repeat the command"
            ) from None
        if not self._has_answered:
            note_database_of(self._server)
            self._has_answered = True
        return answer.get("data") or {}, answer.get("errors") or []

    def _post(self, body: bytes) -> Any:
        address = urlsplit(self._server.address)
        connection = HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT)
        headers = {
            "Authorization": f"Bearer {self._server.token}",
            "Content-Type": "application/json",
            "Accept": "application/graphql-response+json",
        }
        try:
            connection.connect()
        except OSError as error:
            raise Unusable from error
        try:
            connection.request("POST", "/graphql", body, headers)
            response = connection.getresponse()
            if response.status == 401:  # the token has expired or was revoked
                raise Unusable
            return exact_json(response.read())
        except (HTTPException, OSError, ValueError) as error:
            raise CommandError(
                f"The server ({self._server.description}) did not answer: {error}. Check whether"
                " the command was carried out before you repeat it"
            ) from None
        finally:
            connection.close()
