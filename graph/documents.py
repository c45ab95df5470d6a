"""Documents that were read and found valid, kept under their hashes so as not to read them again.

It is the cache of the parser and of validation, and what automatic persisted queries refer to.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    parse,
    specified_rules,
    validate,
)
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.errors import BadRequest, LimitExceeded
from graph.kept import Kept
from graph.limits import Size, check, measure
from graph.selections import Written
from graph.settings import Settings

# A token, with the nodes that are made of it, takes about 400 bytes: 40 MB at most.
MOST_DOCUMENTS = 1_000
MOST_TOKENS = 100_000

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
    node: DocumentNode
    size: Size
    is_valid: bool = False
    written: dict[str | None, Written] = field(default_factory=dict)
    """Its operations by the names they were asked for by, as far as they were."""

    @property
    def tokens(self) -> int:
        """How many tokens it has, comments included: by them the memory is counted."""
        return self.node.token_count or 0


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
    return Document(text, hash_of(text), node, size)


def validated(
    document: Document, schema: GraphQLSchema, *, suggest: bool
) -> tuple[Document | None, list[GraphQLError]]:
    """The document as one that was found valid, or its errors.

    Only those who are shown the schema get to read in them what else they may have meant.
    """
    errors = [
        BadRequest(TOO_MUCH_ALIKE) if error.message == "Validation aborted." else error
        for error in validate(
            schema, document.node, RULES, MOST_ERRORS, hide_suggestions=not suggest
        )
    ]
    return (None, errors) if errors else (replace(document, is_valid=True), [])


def documents() -> Kept[str, Document]:
    """The documents that a process keeps, under their hashes."""
    return Kept(MOST_DOCUMENTS, MOST_TOKENS, lambda document: document.tokens)
