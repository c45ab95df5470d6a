"""Rights: which viewers may have one, and which right each mutation requires.

A right on rows (VIEW to OWN) is checked for the project of the row, by `fetch` of the session. An
administrator has all rights.
"""

from __future__ import annotations

from strawberry import Schema
from strawberry.types import get_object_definition

from db import Right, TokenScope, Viewer

ANYBODY = None
"""The right of mutations that require no token."""

SCOPES = {
    Right.VIEW: set(TokenScope),
    Right.WORK: {TokenScope.WORK, TokenScope.WRITE},
    Right.ANSWER: {TokenScope.WRITE},
    Right.EDIT: {TokenScope.WRITE},
    Right.OWN: {TokenScope.WRITE},
    Right.USE: {TokenScope.WRITE},
    Right.ADMINISTER: {TokenScope.ADMINISTER},
}
"""The scopes of tokens for each right; a token needs one of them."""


def may(viewer: Viewer, right: Right | None) -> bool:
    """Whether a viewer may have a right on any row."""
    if viewer.scopes and right is not None and not SCOPES[right] & viewer.scopes:
        return False
    match right:
        case None:
            return True
        case Right.ADMINISTER:
            return viewer.is_administrator
        case Right.VIEW | Right.WORK:
            return viewer.user_id is not None or viewer.agent_id is not None
    # The other rights are for users, not for agents.
    return viewer.user_id is not None


def rights_of(schema: Schema) -> dict[str, Right | None]:
    """The right that each mutation of a schema requires, sorted by name."""
    if schema.mutation is None:
        return {}
    name = schema.config.name_converter.get_graphql_name
    fields = get_object_definition(schema.mutation, strict=True).fields
    return dict(sorted((name(field), field.metadata["mutation"].right) for field in fields))


def open_mutations(schema: Schema) -> frozenset[str]:
    """The mutations of a schema that require no token."""
    return frozenset(name for name, right in rights_of(schema).items() if right is ANYBODY)
