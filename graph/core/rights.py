"""Rights: who may have one, and which one each mutation of a schema takes.

A right on rows (VIEW to OWN) is held against the project that a mutation names a row of; the
session of the mutation does so in `fetch`. An administrator has every right.
"""

from __future__ import annotations

from strawberry import Schema
from strawberry.types import get_object_definition

from db import Right, TokenScope, Viewer

ANYBODY = None
"""In the place of a right: who asks need not be known."""

SCOPES = {
    Right.VIEW: set(TokenScope),
    Right.WORK: {TokenScope.WORK, TokenScope.WRITE},
    Right.ANSWER: {TokenScope.WRITE},
    Right.EDIT: {TokenScope.WRITE},
    Right.OWN: {TokenScope.WRITE},
    Right.USE: {TokenScope.WRITE},
    Right.ADMINISTER: {TokenScope.ADMINISTER},
}
"""The scopes of a token of which it takes one to use a right."""


def may(viewer: Viewer, right: Right | None) -> bool:
    """Whether a viewer may have a right at all; on which rows is for their scopes to say."""
    if viewer.scopes and right is not None and not SCOPES[right] & viewer.scopes:
        return False
    match right:
        case None:
            return True
        case Right.ADMINISTER:
            return viewer.is_administrator
        case Right.VIEW | Right.WORK:
            return viewer.user_id is not None or viewer.agent_id is not None
    # What people do: no agent does it.
    return viewer.user_id is not None


def rights_of(schema: Schema) -> dict[str, Right | None]:
    """The right that each mutation of a schema takes, by its name, sorted."""
    if schema.mutation is None:
        return {}
    name = schema.config.name_converter.get_graphql_name
    fields = get_object_definition(schema.mutation, strict=True).fields
    return dict(sorted((name(field), field.metadata["right"]) for field in fields))


def open_mutations(schema: Schema) -> frozenset[str]:
    """The mutations of a schema that need no token."""
    return frozenset(name for name, right in rights_of(schema).items() if right is ANYBODY)
