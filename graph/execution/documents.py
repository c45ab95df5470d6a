"""Documents: parsing, validation, and the cache of valid documents by their hashes.

The cache also serves automatic persisted queries: a client sends the hash of a document, and the
document itself only once. The protocol is Apollo's:
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
from weakref import WeakValueDictionary

from graphql import (
    DocumentNode,
    GraphQLSchema,
    GraphQLSyntaxError,
    Location,
    Node,
    OperationDefinitionNode,
    OperationType,
    ValuesOfCorrectTypeRule,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.core.cache import TRACKED, Cache
from graph.core.errors import BadRequest, LimitExceeded, RequestError
from graph.core.selections import Head, InvalidOperation, choose, operations_of
from graph.core.value_errors import ValuesRule
from graph.limits.document_size import DocumentSize, check_document_size, document_size
from graph.settings import Settings

# The limits of the cache. A document of 1,000 characters counts about 20,000 bytes. As a tree, it
# would be 800 objects for the garbage collector, and take 100,000 bytes.
MOST_DOCUMENTS = 1_000
MOST_BYTES = 16_000_000

# The number of objects of a document with its size and operations, and of the head of an operation.
OBJECTS_OF_DOCUMENT = 8
OBJECTS_OF_OPERATION = 13

RULES = (
    *(ValuesRule if rule is ValuesOfCorrectTypeRule else rule for rule in specified_rules),
    MaybeNullValidationRule,
    OneOfInputValidationRule,
)

# Validation stops after this number of errors, because each takes time. One more error says so.
MOST_ERRORS = 8

# The maximum number of comparisons of the validation rule that compares fields of the same name.
# graphql-core's default takes seconds. Large documents written by people take a few hundred.
MOST_COMPARISONS = overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 20_000
TOO_MANY_COMPARISONS = (
    "Too many fields of the same name: whether they fit together takes more than"
    f" {MOST_COMPARISONS} comparisons, the limit of this server. Select each of them once."
)

_PARSING_ABORTED = re.compile(r"more than \d+ (tokens|comments)\. Parsing aborted\.$")


# The unpickled trees that operations use now, by the hashes of their documents.
_trees: WeakValueDictionary[str, DocumentNode] = WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Document:
    """A document with its properties."""

    text: str
    hash: str
    """The SHA-256 of the text, in hexadecimal digits."""
    size: DocumentSize
    tokens: int
    """The number of its tokens, comments included."""
    tree: DocumentNode | bytes
    """The parsed document; pickled in the cache."""
    operations: tuple[tuple[str | None, OperationType], ...]
    """The names and kinds of its operations."""
    is_valid: bool = False
    objects: int = 0
    """The maximum number of objects in the cache for it, strings and bytes excluded."""
    heads: dict[str | None, Head] = field(default_factory=dict)
    """The heads of its operations that were requested, by the operation names of the requests."""

    @property
    def node(self) -> DocumentNode:
        """The parsed document. That of a document from the cache is unpickled when it is needed."""
        if not isinstance(self.tree, bytes):
            return self.tree
        tree = _trees.get(self.hash)
        if tree is None:
            tree = _trees[self.hash] = pickle.loads(self.tree)
        return tree

    def kind_of(self, name: str | None) -> OperationType:
        """The kind of the operation that is executed for this name. Raises BadRequest."""
        return choose(self.operations, name)

    def pickled(self) -> Document:
        """The document with a pickled tree, whose nodes the garbage collector does not visit.

        Unpickling takes half as long as parsing. Raises RecursionError for a tree that is too deep.
        """
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = copyreg.dispatch_table | {Location: _reduce_location}
        pickler.dump(self.tree)
        return replace(self, tree=buffer.getvalue())

    @property
    def bytes(self) -> int:
        """Its size in the cache, with a pickled tree."""
        tree = len(self.tree) if isinstance(self.tree, bytes) else 0
        return len(self.text) + tree + TRACKED * self.objects


def hash_of(text: str) -> str:
    """The SHA-256 of a text, in hexadecimal digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def parse_document(text: str, settings: Settings) -> Document:
    """Parse a document and check its size. Raises LimitExceeded, BadRequest or GraphQLSyntaxError.

    The parser stops at the limit of tokens and comments.
    """
    most = settings.max_document_length
    if len(text) > most:
        raise LimitExceeded("characters", "max_document_length", len(text), most)
    most = settings.max_tokens
    try:
        node = parse(text, max_lexical_tokens=most, max_comments=most)
    except GraphQLSyntaxError as error:
        if (aborted := _PARSING_ABORTED.search(error.message)) is None:
            raise
        raise LimitExceeded(aborted[1], "max_tokens", None, most) from None
    size = document_size(node)
    check_document_size(size, settings)
    operations = tuple((name, operation.operation) for name, operation in operations_of(node))
    tokens = node.token_count or 0
    objects = _count_objects(node)
    return Document(text, hash_of(text), size, tokens, node, operations, objects=objects)


def _count_objects(tree: DocumentNode) -> int:
    """The number of objects in the cache for a document: itself, and the heads of its operations.

    The head of an operation has the nodes of its variable definitions.
    """
    found = OBJECTS_OF_DOCUMENT
    pending: list[Any] = []
    for node in tree.definitions:
        if isinstance(node, OperationDefinitionNode):
            found += OBJECTS_OF_OPERATION + 6 * len(node.variable_definitions or ())
            pending += node.variable_definitions or ()
    while pending:
        node = pending.pop()
        if isinstance(node, Node):
            found += 1
            pending += [getattr(node, key) for key in node.keys if key != "loc"]
        elif isinstance(node, list | tuple):
            pending += node
    return found


def _reduce_location(location: Location) -> tuple[Any, ...]:
    """Pickle the location of a node without its tokens."""
    state = {"start": location.start, "end": location.end, "source": location.source}
    return copyreg.__newobj__, (Location,), (None, state)  # type: ignore[attr-defined]


def validated(document: Document, schema: GraphQLSchema, *, suggest: bool) -> Document:
    """The document, marked as valid. Raises InvalidOperation with its errors.

    `suggest` adds similar names of the schema to the errors.
    """
    errors = validate(schema, document.node, RULES, MOST_ERRORS, hide_suggestions=not suggest)
    if errors:
        aborted, too_many = "Validation aborted.", BadRequest(TOO_MANY_COMPARISONS)
        raise InvalidOperation([too_many if each.message == aborted else each for each in errors])
    return replace(document, is_valid=True)


def document_cache() -> Cache[str, Document]:
    """A cache of documents by their hashes."""
    return Cache(MOST_DOCUMENTS, MOST_BYTES, lambda document: document.bytes)


# Persisted queries

VERSION = 1


class PersistedQueryNotFound(RequestError):
    """The cache has no document with this hash; the client then sends the document and its hash."""

    code = "PERSISTED_QUERY_NOT_FOUND"


class PersistedQueryNotSupported(RequestError):
    """Persisted queries are off, or of another version; the client then sends documents."""

    code = "PERSISTED_QUERY_NOT_SUPPORTED"


def persisted_hash(persisted: object, settings: Settings) -> str:
    """The hash in `extensions.persistedQuery`. Raises BadRequest or PersistedQueryNotSupported."""
    if not isinstance(persisted, Mapping):
        raise BadRequest("extensions.persistedQuery must be an object.")
    if not settings.persisted_queries or persisted.get("version") != VERSION:
        raise PersistedQueryNotSupported("PersistedQueryNotSupported")
    hash = persisted.get("sha256Hash")
    if not isinstance(hash, str):
        raise BadRequest("extensions.persistedQuery.sha256Hash must be a string.")
    return hash.lower()
