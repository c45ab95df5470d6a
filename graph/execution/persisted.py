"""Automatic persisted queries: a client sends a document's hash, and the document once.

The protocol is Apollo's: https://www.apollographql.com/docs/apollo-server/performance/apq
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from strawberry.extensions import SchemaExtension

from graph.core.context import Context
from graph.core.errors import BadRequest, RequestError
from graph.execution.documents import hash_of
from graph.limits.guard import guard_of
from graph.settings import Settings

VERSION = 1


class PersistedQueryNotFound(RequestError):
    """No document with this hash is kept; the client sends it along, and all is well."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class PersistedQueryNotSupported(RequestError):
    """The server takes no hashes, or not of this version; the client sends documents then."""

    code = "PERSISTED_QUERY_NOT_SUPPORTED"


def named(asked: object, settings: Settings) -> str:
    """The hash that `extensions.persistedQuery` names. Raises what is wrong with it."""
    if not isinstance(asked, Mapping):
        raise BadRequest("extensions.persistedQuery must be an object.")
    if not settings.persisted_queries or asked.get("version") != VERSION:
        raise PersistedQueryNotSupported("PersistedQueryNotSupported")
    wanted = asked.get("sha256Hash")
    if not isinstance(wanted, str):
        raise BadRequest("extensions.persistedQuery.sha256Hash must be a string.")
    return wanted.lower()


class Persisted(SchemaExtension):
    """Finds the document of a request that has only its hash."""

    def on_operation(self) -> Iterator[None]:
        execution = self.execution_context
        asked = (execution.operation_extensions or {}).get("persistedQuery")
        if asked is not None:
            execution.query = self._document(execution.context, asked)
        yield

    def _document(self, context: Context, asked: object) -> str:
        guard = guard_of(context)
        wanted = named(asked, guard.settings)
        sent = self.execution_context.query
        if sent:
            # An over-long document is refused for its length, and must not be hashed first.
            if len(sent) <= guard.settings.max_document_length and hash_of(sent) != wanted:
                raise BadRequest("The document has another SHA-256 than sha256Hash says.")
            return sent
        if context.refusal is not None:
            raise context.refusal
        # Nobody finds out by guessing what others ask.
        found = None if context.is_anonymous else guard.documents.get(wanted)
        if found is None:
            raise PersistedQueryNotFound("PersistedQueryNotFound")
        return found.text
