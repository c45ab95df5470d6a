"""Rights: which viewers may have one, and which right each mutation requires.

A right on rows (VIEW to OWN) is checked for the project of the row, by `fetch` of the session. An
administrator has all rights.
"""

from __future__ import annotations

from collections.abc import Collection

from strawberry import Schema
from strawberry.types import get_object_definition

from db import Right, TokenScope, Viewer
from db.rules import AGENTS

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
    return missing(viewer, right) is None


def missing(viewer: Viewer, right: Right | None) -> str | None:
    """What a viewer needs to have a right on any row, in words; None if nothing is missing."""
    if right is None:
        return None
    if right is Right.ADMINISTER:
        # Also if it is nobody: a command of the server's own machine, where there is none yet.
        if not viewer.is_administrator:
            return (
                "It needs the token of an administrator, not limited or with the scope ADMINISTER."
            )
    elif viewer.user_id is None and (viewer.agent_id is None or right not in AGENTS):
        return "It needs the token of a user."
    if viewer.scopes and not SCOPES[right] & viewer.scopes:
        needed, own = (_in_order(scopes) for scopes in (SCOPES[right], viewer.scopes))
        return (
            f"It needs a token that is not limited or has the scope {' or '.join(needed)}; yours"
            f" has {', '.join(own)}."
        )
    return None


def _in_order(scopes: Collection[str]) -> list[str]:
    return [scope for scope in TokenScope if scope in scopes]


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
