"""Who may see and edit which rows: one rule for each model, and nothing without a rule.

A rule is a condition on a model (or an alias of it), so that it holds in every statement that
reaches the rows: lookups, connections, joins, filters, counts and compiled statements. The rules
themselves are in `db/rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, and_, false, inspect, true

from db.rights import Right


class ViewerKind(NamedTuple):
    """What the text of a statement depends on: not who the viewer is."""

    is_administrator: bool
    is_user: bool
    is_agent: bool


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who sends a request: a user, or an agent of a project."""

    user_id: UUID | None = None
    agent_id: UUID | None = None
    is_administrator: bool = False
    token_id: UUID | None = None
    """The access token of the request."""
    scopes: frozenset[str] = frozenset()
    """The scopes of the token; an empty set is no limit."""
    name: str | None = field(init=False, compare=False)
    """The name in logs and counters; None for an anonymous viewer."""
    kind: ViewerKind = field(init=False, compare=False, repr=False)
    """Viewers share a statement if it is equal."""

    def __post_init__(self) -> None:
        name = None if self.user_id is None else f"user:{self.user_id}"
        name = name if self.agent_id is None else f"agent:{self.agent_id}"
        is_user, is_agent = self.user_id is not None, self.agent_id is not None
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "kind", ViewerKind(self.is_administrator, is_user, is_agent))


Rule = Callable[[Any, Viewer, Right], ColumnElement[bool]]
AnyRule = TypeVar("AnyRule", bound=Rule)

rules: dict[str, Rule] = {}
"""The rule of each model, by the name of the model."""
visible_to: dict[str, str] = {}
"""Who sees the rows of each model besides administrators, in words for the documentation."""
existing: dict[str, Callable[[Any], ColumnElement[bool]]] = {}
"""The condition under which a row of a model exists for anybody, administrators included."""
always_visible: set[tuple[str, str]] = set()
"""The relationships, by model and name, whose target is visible to everybody who sees the row."""

MEMBERS = "members and agents of its project"


def rule(
    model: str,
    who: str = MEMBERS,
    shows: Sequence[str] = (),
    exists: Callable[[Any], ColumnElement[bool]] | None = None,
) -> Callable[[AnyRule], AnyRule]:
    """Declare the rule of a model, and in words who sees its rows.

    Model and relationships are given by name. The rule is called with the model or an alias of it,
    the viewer, and the right. `shows` are the relationships whose target is visible whenever the
    row is: the condition of this rule implies that of the target's rule. A row for which the
    condition `exists` does not hold is seen by nobody.
    """

    def declare(function: AnyRule) -> AnyRule:
        rules[model] = function
        visible_to[model] = who
        if exists is not None:
            existing[model] = exists
        always_visible.update((model, relation) for relation in shows)
        return function

    return declare


def is_always_visible(relation: Any) -> bool:
    """Whether the target of a to-one relationship exists and is visible if the row is visible."""
    prop = relation.property
    is_shown = (prop.parent.class_.__name__, prop.key) in always_visible
    return is_shown and not any(column.nullable for column in prop.local_columns)


def scope(entity: Any, viewer: Viewer, right: Right = Right.VIEW) -> ColumnElement[bool]:
    """The condition under which the viewer has this right on a row of the model or alias.

    Nobody sees the rows of a model without a rule, administrators included.
    """
    # Models that share a table with their base have the rule of the base.
    name = inspect(entity).mapper.base_mapper.class_.__name__
    declared = rules.get(name)
    if declared is None:
        return false()
    met = true() if viewer.is_administrator else declared(entity, viewer, right)
    return and_(existing[name](entity), met) if name in existing else met
