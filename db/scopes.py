"""Who may see and edit which rows: one rule for each model, and nothing without a rule.

A rule is a condition on a model (or an alias of it), so that it holds in every statement that
reaches the rows: lookups, connections, joins, filters, counts and compiled statements. The rules
themselves are in `db/rules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, false, inspect, true

from db.rights import Right


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who asks: a user, or an agent of a project."""

    user_id: UUID | None = None
    agent_id: UUID | None = None
    is_administrator: bool = False
    token_id: UUID | None = None
    """The token that says so."""
    scopes: frozenset[str] = frozenset()
    """What the token is limited to; nothing sets no limit."""
    name: str | None = field(init=False, compare=False)
    """What to call them in the log, and where something is counted; nobody has none."""

    def __post_init__(self) -> None:
        name = None if self.user_id is None else f"user:{self.user_id}"
        name = name if self.agent_id is None else f"agent:{self.agent_id}"
        object.__setattr__(self, "name", name)


Rule = Callable[[Any, Viewer, Right], ColumnElement[bool]]
AnyRule = TypeVar("AnyRule", bound=Rule)

rules: dict[type, Rule] = {}
visible_to: dict[type, str] = {}
"""Who sees the rows of each model besides administrators, in words."""
always_visible: set[Any] = set()
"""The relations whose other end is seen, by the rules alone, by whoever sees the row."""

MEMBERS = "members and agents of its project"


def rule(
    model: type, who: str = MEMBERS, shows: Sequence[Any] = ()
) -> Callable[[AnyRule], AnyRule]:
    """Declare the rule of a model, and in words who sees its rows.

    The rule gets the model or an alias of it, the viewer, and the right. `shows` are the relations
    that it shows with the row: its condition implies that of the rule at their other end, whatever
    the rows hold.
    """

    def declare(function: AnyRule) -> AnyRule:
        rules[model] = function
        visible_to[model] = who
        always_visible.update(shows)
        return function

    return declare


def is_always_visible(relation: Any) -> bool:
    """Whether a to-one relation of a row that is seen leads to a row that is seen, and never to
    none.
    """
    return relation.property.class_attribute in always_visible and not any(
        column.nullable for column in relation.property.local_columns
    )


def scope(entity: Any, viewer: Viewer, right: Right = Right.VIEW) -> ColumnElement[bool]:
    """The condition under which the viewer has this right on a row of the model or alias.

    A model without a rule shows nothing, to administrators neither.
    """
    # A subtype in the table of its base is seen by whoever sees the base.
    declared = rules.get(inspect(entity).mapper.base_mapper.class_)
    if declared is None:
        return false()
    if viewer.is_administrator:
        return true()
    return declared(entity, viewer, right)
