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

from sqlalchemy import (
    ColumnClause,
    ColumnElement,
    Uuid,
    and_,
    exists,
    false,
    inspect,
    literal_column,
    select,
    true,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.visitors import iterate

from db.parameters import bind
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

    def acts_for(self, agent_id: UUID | None) -> bool:
        """Whether the viewer acts for this agent: an agent only for itself, a user for all."""
        return self.agent_id in (None, agent_id)


SYSTEM = Viewer(is_administrator=True)
"""The viewer of what Troupe does by itself. It may change everything; the events have no actor."""

Rule = Callable[[Any, Viewer, Right], ColumnElement[bool]]
AnyRule = TypeVar("AnyRule", bound=Rule)

rules: dict[str, Rule] = {}
"""The rule of each model that has one of its own, by the name of the model."""
parents: dict[str, str] = {}
"""The relationship to the row with which the rows of a model are visible, by the model's name."""
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


def visible_with(model: str, parent: str, who: str) -> None:
    """Declare that the rows of a model are visible with the row of a to-one relationship.

    The viewer has the same rights on both. Model and relationship are given by name.
    """
    parents[model] = parent
    visible_to[model] = who
    always_visible.add((model, parent))


def is_always_visible(relation: Any) -> bool:
    """Whether the target of a to-one relationship exists and is visible if the row is visible."""
    prop = relation.property
    is_shown = (prop.parent.class_.__name__, prop.key) in always_visible
    return is_shown and not any(column.nullable for column in prop.local_columns)


def scope(
    entity: Any, viewer: Viewer, right: Right = Right.VIEW, *, by_key: bool = False
) -> ColumnElement[bool]:
    """The condition under which the viewer has this right on a row of the model or alias.

    Nobody sees the rows of a model without a rule, administrators included. `by_key` is for
    statements that find few rows by their keys, and then look at each of them.
    """
    # Models that share a table with their base have the rule of the base.
    name = inspect(entity).mapper.base_mapper.class_.__name__
    declared, parent = rules.get(name), parents.get(name)
    if declared is None and parent is None:
        return false()
    if viewer.is_administrator:
        met: ColumnElement[bool] = true()
    elif declared is not None:
        met = declared(entity, viewer, right)
    else:
        met = _with_parent(entity, parent, viewer, right, by_key)
    return and_(existing[name](entity), met) if name in existing else met


def acts_for(viewer: Viewer, agent_id: Any) -> ColumnElement[bool]:
    """The condition under which the viewer acts for the agent in a column."""
    if viewer.agent_id is None:
        return true()
    return agent_id == bind(viewer.agent_id, Uuid)  # type: ignore[no-any-return]


def _with_parent(
    entity: Any, parent: Any, viewer: Viewer, right: Right, by_key: bool
) -> ColumnElement[bool]:
    relation: Any = inspect(entity).mapper.relationships[parent]
    ((local, remote),) = relation.local_remote_pairs
    model, key = relation.mapper.class_, getattr(entity, local.key)
    if not by_key:
        row = aliased(model)
        ids = select(getattr(row, remote.key)).where(scope(row, viewer, right))
        return key.in_(ids)  # type: ignore[no-any-return]
    # OFFSET 0 keeps this a lookup by the key. Else PostgreSQL may read all rows of the viewer's
    # projects, of which it knows only how many there are on average.
    every, table = aliased(model), aliased(model.__table__)
    read = iterate(scope(every, viewer, right))
    own = inspect(every).selectable
    names = {part.key for part in read if isinstance(part, ColumnClause) and part.table is own}
    found = select(*(table.c[name] for name in sorted(names)))
    found = found.where(table.c[remote.key] == key).offset(literal_column("0"))
    row = aliased(model, found.correlate_except(table).subquery())
    return exists(select(literal_column("1")).select_from(row).where(scope(row, viewer, right)))
