"""Diagrams of the models and of the state machines, in Mermaid's notation."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product

from sqlalchemy import Column, ForeignKeyConstraint, Index, Table, UniqueConstraint

from db.base import Base, snake_case
from db.constraints import rules_of
from db.transitions import State, Transitions

# Where a state machine begins and ends.
OUTSIDE = "[*]"


def diagram() -> str:
    """The entities with their keys, and a line for each foreign key.

    A foreign key is listed in its entity only if it is part of a primary or unique key. A line has
    a label only if its name differs from that of the entity it leads to.
    """
    # Of classes that share a table, the base is the entity.
    classes = [mapper.class_ for mapper in Base.registry.mappers if mapper.inherits is None]
    names = {model.__table__: model.__name__ for model in classes}
    lines = ["erDiagram"]
    for table, name in sorted(names.items(), key=lambda item: item[1]):
        lines += [f"    {name} {{", *(f"        {key}" for key in _keys(table)), "    }"]
        for foreign in sorted(table.foreign_key_constraints, key=_name):
            to = names[foreign.referred_table]
            label = "" if _name(foreign) == snake_case(to) else _name(foreign).replace("_", " ")
            lines.append(f'    {to} {_line(foreign)} {name} : "{label}"')
    return "\n".join(lines) + "\n"


def _keys(table: Table) -> Iterable[str]:
    """The columns of the primary key, and those that are unique by themselves."""
    for column in table.columns:
        marks = {
            "PK": column.primary_key,
            "FK": bool(column.foreign_keys),
            "UK": any(columns == {column} for columns in _unique(table)),
        }
        if marks["PK"] or marks["UK"]:
            kind = column.type.python_type.__name__.lower()
            yield f"{kind} {column.name} {', '.join(mark for mark, has in marks.items() if has)}"


def _line(foreign: ForeignKeyConstraint) -> str:
    """The cardinalities; dashed where rows remain when the row they refer to is deleted."""
    one = "|o" if any(column.nullable for column in foreign.columns) else "||"
    kept = "--" if foreign.ondelete == "CASCADE" else ".."
    alone = [set(foreign.table.primary_key.columns), *_unique(foreign.table)]
    many = "o|" if any(columns <= set(foreign.columns) for columns in alone) else "o{"
    return f"{one}{kept}{many}"


def _unique(table: Table) -> list[set[Column[object]]]:
    kinds = (UniqueConstraint, Index)
    return [set(rule.columns) for rule in rules_of(table) if isinstance(rule, kinds)]


def _name(foreign: ForeignKeyConstraint) -> str:
    return foreign.column_keys[-1].removesuffix("_id")


def states(transitions: Transitions[State], **groups: Collection[State]) -> str:
    """The states, with an arrow for each transition.

    A group is drawn as a frame around its states. Arrows that all its states have alike are drawn
    once, from or to the frame.
    """
    kind = type(next(iter(transitions.table)))
    frames = {name: [str(state) for state in kind if state in groups[name]] for name in groups}
    arrows = list(_arrows(transitions, kind))
    between = []
    places = frames | {place: [place] for place in (OUTSIDE, *map(str, kind))}
    for source, target in product(places, repeat=2):
        alike = list(product(places[source], places[target]))
        is_of_frame = source != target and not frames.keys().isdisjoint({source, target})
        if is_of_frame and all(arrow in arrows for arrow in alike):
            arrows = [arrow for arrow in arrows if arrow not in alike]
            between.append((source, target))
    lines = ["stateDiagram-v2"]
    for name, inside in frames.items():
        within = [arrow for arrow in arrows if set(arrow) <= set(inside)]
        arrows = [arrow for arrow in arrows if arrow not in within]
        lines.append(f'    state "{name.replace("_", " ")}" as {name} {{')
        lines += [f"        {state}" for state in inside]
        lines += [f"        {source} --> {target}" for source, target in within]
        lines.append("    }")
    lines += [f"    {source} --> {target}" for source, target in (*arrows, *between)]
    return "\n".join(lines) + "\n"


def _arrows(transitions: Transitions[State], kind: type[State]) -> Iterable[tuple[str, str]]:
    """The transitions, with those into the first state and out of the final ones."""
    yield OUTSIDE, next(iter(kind))
    for state in kind:
        allowed = transitions.allowed(state)
        yield from ((state, after) for after in allowed)
        if not allowed:
            yield state, OUTSIDE
