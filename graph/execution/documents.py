"""Documents: how they are read and validated, and how valid ones are kept under their hashes.

The cache saves parsing and validation, and serves automatic persisted queries: a client sends a
document's hash, and the document once. The protocol is Apollo's:
https://www.apollographql.com/docs/apollo-server/performance/apq
"""

from __future__ import annotations

import copyreg
import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLSchema,
    GraphQLSyntaxError,
    Location,
    Node,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.core.cache import TRACKED, Cache
from graph.core.errors import BadRequest, LimitExceeded, RequestError
from graph.core.selections import InvalidOperation
from graph.limits.document_size import Size, check, measure
from graph.settings import Settings

# A document of 1,000 characters takes some 20,000 bytes by this count. As a tree it would be 800
# objects for the garbage collector, and take 100,000.
MOST_DOCUMENTS = 1_000
MOST_BYTES = 16_000_000

# The document, its size, its operations by name; and each operation with what is kept of its head.
OBJECTS_OF_DOCUMENT = 8
OBJECTS_OF_OPERATION = 11

RULES = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)

# Each error is made with its place in the text, and nobody mends more at once. One more says so.
MOST_ERRORS = 8

# What the one rule that compares fields with each other may spend on a document, in comparisons.
# graphql-core's own default takes seconds; it lets this be set, and a large document that people
# write spends a few hundred.
MOST_COMPARISONS = overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 20_000
TOO_MUCH_ALIKE = (
    "Too many fields of the same name: whether they fit together takes more than"
    f" {MOST_COMPARISONS} comparisons, the limit of this server. Select each of them once."
)

_TOO_MANY = re.compile(r"more than \d+ (tokens|comments)\. Parsing aborted\.$")


@dataclass(frozen=True, eq=False)
class Document:
    """A document as it was sent, and what is known about it."""

    text: str
    hash: str
    """Its SHA-256, in hexadecimal digits."""
    size: Size
    tokens: int
    """How many tokens it has, comments included."""
    tree: DocumentNode | bytes
    """What was parsed; as bytes where it is kept."""
    operations: tuple[tuple[str | None, OperationType], ...]
    """The names and kinds of its operations."""
    is_valid: bool = False
    objects: int = 0
    """How many objects are kept of it beside its texts, at most."""
    heads: dict[str | None, OperationDefinitionNode] = field(default_factory=dict)
    """Its operations by the names they were asked for by, as far as they were."""

    @property
    def node(self) -> DocumentNode:
        """What was parsed; of a document that is kept another tree each time."""
        tree = self.tree
        return pickle.loads(tree) if isinstance(tree, bytes) else tree

    def kind_of(self, name: str | None) -> OperationType:
        """The kind of the operation of this name, or of the first one. Raises BadRequest."""
        for known, kind in self.operations:
            if name is None or name == known:
                return kind
        raise BadRequest("The document has no operation of that name.")

    def packed(self) -> Document:
        """The same with its tree as bytes, which the garbage collector does not look through.

        To read them takes half of the time that parsing does. Raises RecursionError for a
        tree that is too deep.
        """
        written = io.BytesIO()
        pickler = pickle.Pickler(written, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = copyreg.dispatch_table | {Location: _place}
        pickler.dump(self.tree)
        return replace(self, tree=written.getvalue())

    @property
    def bytes(self) -> int:
        """How much it counts where it is kept: with its tree as bytes."""
        tree = len(self.tree) if isinstance(self.tree, bytes) else 0
        return len(self.text) + tree + TRACKED * self.objects


def hash_of(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def read(text: str, settings: Settings) -> Document:
    """Read a document that is within the limits. Raises LimitExceeded, BadRequest, a syntax error.

    What the parser would have to read to its end to count it, it stops to read at the limit.
    """
    if len(text) > settings.max_document_length:
        raise LimitExceeded(
            "characters", "max_document_length", len(text), settings.max_document_length
        )
    most = settings.max_tokens
    try:
        node = parse(text, max_lexical_tokens=most, max_comments=most)
    except GraphQLSyntaxError as error:
        if (many := _TOO_MANY.search(error.message)) is None:
            raise
        raise LimitExceeded(many[1], "max_tokens", None, most) from None
    size = measure(node)
    check(size, settings)
    operations = tuple(
        (definition.name.value if definition.name else None, definition.operation)
        for definition in node.definitions
        if isinstance(definition, OperationDefinitionNode)
    )
    tokens = node.token_count or 0
    return Document(text, hash_of(text), size, tokens, node, operations, objects=_objects(node))


def _objects(tree: DocumentNode) -> int:
    """How many objects are kept of a document: itself with its size, and its variables as written.

    Each variable has a signature, too.
    """
    found = 0
    pending: list[Any] = []
    for node in tree.definitions:
        if isinstance(node, OperationDefinitionNode):
            found += OBJECTS_OF_OPERATION
            pending += node.variable_definitions or ()
            found += 4 * len(node.variable_definitions or ())
    while pending:
        node = pending.pop()
        if isinstance(node, Node):
            found += 1
            pending += [getattr(node, key) for key in node.keys if key != "loc"]
        elif isinstance(node, list | tuple):
            pending += node
    return OBJECTS_OF_DOCUMENT + found


def _place(location: Location) -> tuple[Any, ...]:
    """What pickle makes a node's place of: where it is in the text, and not its tokens."""
    place = {"start": location.start, "end": location.end, "source": location.source}
    return copyreg.__newobj__, (Location,), (None, place)  # type: ignore[attr-defined]


def validated(document: Document, schema: GraphQLSchema, *, suggest: bool) -> Document:
    """The document, marked as valid. Raises InvalidOperation with its errors.

    Only those who are shown the schema get to read in them what else they may have meant.
    """
    errors = validate(schema, document.node, RULES, MOST_ERRORS, hide_suggestions=not suggest)
    if errors:
        aborted = "Validation aborted."
        raise InvalidOperation(
            [BadRequest(TOO_MUCH_ALIKE) if error.message == aborted else error for error in errors]
        )
    return replace(document, is_valid=True)


def documents() -> Cache[str, Document]:
    """The documents that a process keeps, under their hashes."""
    return Cache(MOST_DOCUMENTS, MOST_BYTES, lambda document: document.bytes)


# Persisted queries

VERSION = 1


class PersistedQueryNotFound(RequestError):
    """No document with this hash is kept; the client then sends the document with its hash."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class PersistedQueryNotSupported(RequestError):
    """The server takes no hashes, or not of this version; the client then sends documents."""

    code = "PERSISTED_QUERY_NOT_SUPPORTED"


def persisted_hash(persisted: object, settings: Settings) -> str:
    """The hash that `extensions.persistedQuery` names. Raises what is wrong with it."""
    if not isinstance(persisted, Mapping):
        raise BadRequest("extensions.persistedQuery must be an object.")
    if not settings.persisted_queries or persisted.get("version") != VERSION:
        raise PersistedQueryNotSupported("PersistedQueryNotSupported")
    hash = persisted.get("sha256Hash")
    if not isinstance(hash, str):
        raise BadRequest("extensions.persistedQuery.sha256Hash must be a string.")
    return hash.lower()
