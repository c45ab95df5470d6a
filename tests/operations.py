"""Operations made at random from the schema: any selection of what is declared, in any form."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_non_null_type,
    parse,
)
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from graph.core.declarations import Declared
from graph.core.fields import Awaited, Collection, Paged
from graph.core.selections import BACKREF, Operation, coerce_variables, find
from graph.schema import graphql_schema

LONG_NAME = "long_" * 13

Shown = GraphQLObjectType | GraphQLInterfaceType
"""A type of which fields are selected."""

AGES = {"oldestReadySeconds"}
"""Fields whose values change from one second to the next."""


def read_operation(text: str, variables: dict[str, Any] | None = None) -> Operation:
    """The only operation of a document, with these variables."""
    document = parse(text)
    node = find(document, None)
    values = coerce_variables(graphql_schema, node, variables, suggest=True)
    return Operation(graphql_schema, document, node, values)


def declared(type_name: str, kind: type) -> list[tuple[str, Any]]:
    """The fields of a type that are declared as of this kind, by their names."""
    shown = graphql_schema.type_map[type_name]
    assert isinstance(shown, Shown)
    found = [(name, field.extensions[BACKREF]) for name, field in shown.fields.items()]
    return [(name, declaration) for name, declaration in found if isinstance(declaration, kind)]


def collections() -> list[tuple[str, Any]]:
    """The connections of the root that show all objects of an entity, by their names.

    Events are no objects with an id; `tests/test_events.py` has their tests.
    """
    return [
        (name, field)
        for name, field in declared("Query", Collection)
        if field.conditions is None and field.target.order is not None
    ]


def lookup_of(type_name: str) -> str:
    """The field of the root that shows an object of a type by its id."""
    query = graphql_schema.query_type
    assert query is not None
    (name,) = (
        str(name)
        for name, field in query.fields.items()
        if "id" in field.args
        and get_named_type(field.type).name == type_name
        and not isinstance(field.extensions[BACKREF], Awaited)
    )
    return name


@dataclass
class Generated:
    """An operation with the variables that it is sent with."""

    query: str
    variables: dict[str, Any]
    again: dict[str, Any]
    """Other variables to send it with."""


# What is no page's size, nobody's id, and more words than are searched for.
WRONG_AT_TIMES = {"Int": 1000, "ID": "garbage", "String": "long " * 201}


@dataclass
class Pool:
    """What arguments are drawn from, so that they often meet something."""

    ids: dict[str, list[str]]
    """The ids of each type, in their two forms."""
    cursors: dict[str, list[str]]
    """Cursors of each order, by the name of its type and its own.

    Without an order, by the name of the entity: then the key is the order.
    """
    texts: list[str]
    moments: list[str]
    numbers: list[int] = field(default_factory=lambda: [1, 2, 3, 5, 0, 100])
    wrong: dict[str, Any] = field(default_factory=dict)
    """By the names of types, what is drawn at times though it is refused."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        # What Hypothesis reports of a failure. It warns of a long text, and the error that this
        # is here would be reported instead of the failure.
        printer.text("<Pool>")

    def bare(self) -> list[str]:
        """The ids of all types, in the form that is accepted for each."""
        return [id for ids in self.ids.values() for id in ids if "-" in id]

    def value(self, draw: DrawFn, kind: GraphQLInputType, name: str, depth: int = 2) -> Any:
        """A value for an argument or an input field, as JSON has it."""
        bare = get_nullable_type(kind)
        match bare:
            case GraphQLList():
                count = draw(st.integers(0, 3))
                return [self.value(draw, bare.of_type, name, depth - 1) for _ in range(count)]
            case GraphQLInputObjectType():
                # `and`, `or`, `not` and relations lead to filters again; operators are the end.
                names = [
                    name
                    for name, part in bare.fields.items()
                    if depth > 0 or "and" not in getattr(get_named_type(part.type), "fields", ())
                ]
                chosen = draw(st.lists(st.sampled_from(names), max_size=2, unique=True))
                return {
                    name: self.value(draw, bare.fields[name].type, name, depth - 1)
                    for name in chosen
                }
            case GraphQLEnumType():
                return draw(st.sampled_from(list(bare.values)))
        if name == "url":
            return f"url-{draw(st.integers(0, 10))}"
        choices: dict[str, list[Any]] = {
            "ID": self.bare(),
            "Int": self.numbers,
            "DateTime": self.moments,
            "Boolean": [True, False],
            "JSON": [{}, {"a": 1}, {"b": [True]}, {"z": 0}, {"text": 'ü🚀 "\\/\b\x01'}, [1], ""],
        }
        kind_name = get_named_type(kind).name
        if kind_name in self.wrong and draw(st.integers(0, 60)) == 60:
            return self.wrong[kind_name]
        return draw(st.sampled_from(choices.get(kind_name, self.texts)))


def _order(field: GraphQLField) -> str:
    """The order of a connection, if clients cannot choose it."""
    declaration = field.extensions[BACKREF]
    own = declaration.sorted_by if isinstance(declaration, Paged) else None
    return "" if own is None else str(own)


def literal(value: Any, kind: Any) -> str:
    """A value of this type as it is written into a document."""
    bare = get_nullable_type(kind)
    if isinstance(value, list):
        of = bare.of_type if isinstance(bare, GraphQLList) else bare
        return f"[{', '.join(literal(item, of) for item in value)}]"
    if isinstance(value, dict):
        parts = {
            name: bare.fields[name].type if isinstance(bare, GraphQLInputObjectType) else bare
            for name in value
        }
        written = (f"{name}: {literal(item, parts[name])}" for name, item in value.items())
        return f"{{{', '.join(written)}}}"
    return str(value) if isinstance(bare, GraphQLEnumType) else json.dumps(value)


class Writer:
    """Writes one operation, drawing what to select."""

    def __init__(self, draw: DrawFn, pool: Pool) -> None:
        self.draw = draw
        self.pool = pool
        self.definitions: list[str] = []
        self.variables: dict[str, Any] = {}
        self.fragments: list[tuple[str, str, str]] = []
        self.names = 0
        self.redraws: dict[str, Callable[[], Any]] = {}

    def operation(self, beside: str = "") -> Generated:
        """A whole query, in which something else may stand beside what is drawn."""
        query = graphql_schema.query_type
        assert query is not None
        selection = self.selection(query, 4, self.draw(st.integers(1, 3)))
        return self.generated("query", f"{{ {beside}{selection.removeprefix('{')}")

    def generated(self, kind: str, selection: str, *definitions: str) -> Generated:
        """An operation with this selection, and with what was defined for it."""
        every = ", ".join([*self.definitions, *definitions])
        variables = f"({every})" if every else ""
        fragments = [f"fragment {name} on {kind} {below}" for name, kind, below in self.fragments]
        document = "\n".join([f"{kind}{variables} {selection}", *fragments])
        again = {name: self.redraws[name]() for name in self.variables}
        return Generated(document, self.variables, again)

    def name(self) -> str:
        """A name that no other has."""
        self.names += 1
        return f"n{self.names}"

    def variable(self, kind: str, redraw: Callable[[], Any], value: Any, default: str = "") -> str:
        """A variable with this value; without a value if there is a default."""
        name = self.name()
        self.redraws[name] = redraw
        self.definitions.append(f"${name}: {kind}" + (f" = {default}" if default else ""))
        if not default:
            self.variables[name] = value
        return f"${name}"

    def selection(self, kind: Shown, depth: int, most: int = 4, folds: int = 2) -> str:
        """A selection set of a type, with fragments in fragments as often as `folds` says."""
        parts = [self.part(kind, depth, folds) for _ in range(self.draw(st.integers(1, most)))]
        # Of each type of an interface mostly something, and sometimes of one type alone.
        if isinstance(kind, GraphQLInterfaceType) and self.draw(st.integers(0, 5)) < 5:
            parts.append("id")
        return f"{{ {' '.join(parts)} }}"

    def part(self, kind: Shown, depth: int, folds: int) -> str:
        """A field, or a fragment with some."""
        form = self.draw(st.integers(0, 11)) if folds else 0
        if isinstance(kind, GraphQLInterfaceType) and folds and form % 3 == 1:
            # What only one of its types has.
            one = self.draw(st.sampled_from(graphql_schema.get_possible_types(kind)))
            below = self.selection(one, depth, folds=folds - 1)
            return f"... on {one.name} {self.directive()}{below}"
        if form == 10:
            condition = self.draw(st.sampled_from(["", f"on {kind.name} ", "on Node ", "upward"]))
            if condition == "on Node ":
                return "... on Node { id }" if kind.interfaces else "__typename"
            wider = [above for above in kind.interfaces if above.name != "Node"]
            if condition == "upward":
                kind = wider[0] if wider else kind
                condition = f"on {kind.name} "
            below = self.selection(kind, depth, folds=folds - 1)
            return f"... {condition}{self.directive()}{below}"
        if form == 11 and depth > 1:
            known = [name for name, of, _ in self.fragments if of == kind.name]
            name = self.draw(st.sampled_from([*known, ""]))
            if not name:
                name = f"F{self.name()}"
                below = self.selection(kind, min(depth, 2), folds=folds - 1)
                self.fragments.append((name, kind.name, below))
            return f"...{name} {self.directive()}"
        return self.field(kind, depth)

    def field(self, kind: Shown, depth: int) -> str:
        """A field of a type."""
        leaves, ways = ["__typename"] if depth < 4 else [], []
        for name, of in kind.fields.items():
            if name in AGES:
                continue
            if isinstance(of.extensions.get(BACKREF), Awaited):
                continue  # it takes its time, and more statements: tests/test_waiters.py
            if is_leaf_type(get_named_type(of.type)):
                leaves.append(name)
            elif depth > 0 and isinstance(of.extensions.get(BACKREF), Declared):
                ways.append(name)
        further = bool(ways) and (not leaves or self.draw(st.booleans()))
        chosen: str = self.draw(st.sampled_from(ways if further else leaves))
        if chosen == "__typename":
            return chosen
        field = kind.fields[chosen]
        named = get_named_type(field.type)
        arguments = self.arguments(field)
        alias = ""
        if arguments or self.draw(st.integers(0, 3)) == 3:
            long = LONG_NAME if self.draw(st.integers(0, 200)) == 200 else ""
            alias = f"{long}{self.name()}: "
        below = ""
        if isinstance(named, Shown):
            wrapping = named.name.endswith(("Connection", "Edge", "PageInfo"))
            below = self.selection(named, depth if wrapping else depth - 1)
        return f"{alias}{chosen}{arguments} {self.directive()}{below}"

    def directive(self) -> str:
        """Sometimes @include or @skip, of a constant or of a variable."""
        form = self.draw(st.integers(0, 9))
        if form < 8:
            return ""
        value = self.draw(st.integers(0, 4)) > 0
        condition = str(value).lower()
        either = partial(self.draw, st.booleans())
        match self.draw(st.integers(0, 2)):
            case 1:
                condition = self.variable("Boolean!", either, value)
            case 2:
                condition = self.variable("Boolean!", either, value, condition)
        return f"@include(if: {condition}) " if form == 9 else f"@skip(if: {condition}) "

    def arguments(self, field: GraphQLField) -> str:
        """Some of a field's arguments, the required ones in any case."""
        written = []
        forward = self.draw(st.integers(0, 2)) < 2
        order = _order(field)
        # The order comes before the cursors, which go with it.
        for name, argument in sorted(field.args.items(), reverse=True):
            required = is_non_null_type(argument.type) and argument.default is None
            one_in = 4 if name in ("after", "before") else 2
            if name in ("first", "last") and forward == (name == "last"):
                continue
            kind = get_named_type(argument.type)
            if name == "orderBy" and isinstance(kind, GraphQLEnumType):
                order = str(argument.default_value)
            if required or self.draw(st.integers(0, one_in)) == one_in:
                redraw = partial(self.value, name, argument, field, order)
                value = redraw()
                if name == "orderBy":
                    order = f"{kind.name}.{value}"
                    redraw = partial(str, value)  # the cursors go with it
                written.append(f"{name}: {self.argument(argument, value, redraw)}")
        return f"({', '.join(written)})" if written else ""

    def value(self, name: str, argument: GraphQLArgument, field: GraphQLField, order: str) -> Any:
        """A value for an argument of this name, mostly one that meets something."""
        kind = get_named_type(argument.type)
        if self.draw(st.integers(0, 30)) == 30 and kind.name in ("ID", "String"):
            return ["nonsense"] if name == "ids" else "nonsense"
        if name in ("id", "ids"):
            every = [id for ids in self.pool.ids.values() for id in ids]
            ids = st.sampled_from(self.pool.ids.get(get_named_type(field.type).name, every))
            return self.draw(st.lists(ids, max_size=4) if name == "ids" else ids)
        if name in ("after", "before"):
            order = order or get_named_type(field.type).name.removesuffix("Connection")
            return self.draw(st.sampled_from(self.pool.cursors[order]))
        return self.pool.value(self.draw, argument.type, name)

    def argument(self, argument: GraphQLArgument, value: Any, redraw: Callable[[], Any]) -> str:
        """A value of an argument: a constant, or a variable with or without a value."""
        written = literal(value, argument.type)
        kind = str(argument.type)
        match self.draw(st.integers(0, 4)):
            case 2:
                return self.variable(kind, redraw, value)
            case 3:
                return self.variable(kind, redraw, value, written)
            case 4 if not isinstance(argument.type, GraphQLNonNull):
                return "null" if self.draw(st.booleans()) else self.variable(kind, redraw, None)
        return written


@st.composite
def operations(draw: DrawFn, pool: Pool, beside: str = "") -> Generated:
    """Queries over all that the compiler can answer, and with arguments that are wrong at times."""
    return Writer(draw, pool).operation(beside)


@dataclass(frozen=True)
class Payload:
    """A mutation that shows rows, and whose rows they are."""

    mutation: str
    field: str
    type_name: str
    input: str
    """What is written into its input, with `$id` in it."""
    names: str
    """The type of what the id names."""


def two(item: str) -> str:
    """A list of two items, each with another letter in the place of the %."""
    return f"[{item.replace('%', 'x')}, {item.replace('%', 'y')}]"


PAYLOADS = [
    Payload("updateProject", "project", "Project", 'id: $id, name: "?"', "Project"),
    Payload("updateTask", "task", "Task", 'id: $id, title: "?"', "Task"),
    Payload("updateAgent", "agent", "Agent", 'id: $id, description: "?"', "Agent"),
    Payload(
        "updateConversation", "conversation", "Conversation", 'id: $id, title: "?"', "Conversation"
    ),
    Payload(
        "createTasks",
        "tasks",
        "Task",
        "projectId: $id, tasks: " + two('{title: "%"}'),
        "Project",
    ),
    Payload(
        "appendMessages",
        "messages",
        "Message",
        "conversationId: $id, messages: " + two('{sender: USER, content: "%"}'),
        "Conversation",
    ),
]


@st.composite
def payloads(draw: DrawFn, pool: Pool) -> tuple[Payload, str, Generated, Generated]:
    """A mutation with an id for it, its document, and a query for the same selection by `$ids`."""
    payload = draw(st.sampled_from(PAYLOADS))
    writer = Writer(draw, pool)
    kind = graphql_schema.type_map[payload.type_name]
    assert isinstance(kind, Shown)
    selection = writer.selection(kind, 3)
    fields = f"shown: {payload.field} {selection} keys: {payload.field} {{ id }}"
    # Now and then the same letter, which changes nothing.
    input = payload.input.replace("?", draw(st.sampled_from("abc")))
    change = f"{{ {payload.mutation}(input: {{{input}}}) {{ {fields} }} }}"
    query = f"{{ nodes(ids: $ids) {{ ... on {payload.type_name} {selection} }} }}"
    return (
        payload,
        draw(st.sampled_from(pool.ids[payload.names])),
        writer.generated("mutation", change, "$id: ID!"),
        writer.generated("query", query, "$ids: [ID!]!"),
    )
