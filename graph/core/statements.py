"""Statements of the loaders, built once for all requests that differ by nothing but values.

To build a statement takes several times as long as to run it. What changes its text, its shape, is
part of the key that it is kept under; everything else goes in as a parameter when it runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Select
from sqlalchemy.exc import StatementError
from strawberry import UNSET

from db import Viewer
from db.engine import COMPILED
from db.parameters import Later, given
from db.scopes import rules
from graph.core.cache import Kept
from graph.core.connections import Window
from graph.core.errors import BadInput

# A statement is some 2,000 objects for the garbage collector, with what SQLAlchemy keeps of it
# compiled, which are visited in 2 ms or more while nobody is answered. So only those are kept that
# are asked for again and again.
MOST_STATEMENTS = COMPILED

# What is larger, in characters of its key, has a filter of a hundred conditions; hardly anybody
# asks that twice, and a few hundred of them would fill the memory.
LARGEST_KEY = 5_000

Read = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Given:
    """What the values of a statement are read from."""

    viewer: Viewer
    keys: list[Any]
    """What the rows are looked up by."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the field that asks."""
    window: Window | None = None
    known: dict[Later, Any] = field(default_factory=dict, init=False)
    """What was read already."""


KEYS = Later(lambda request: request.keys)
"""The keys of a request, as the value of a parameter."""

_statements: Kept[Hashable, Select[Any]] = Kept(MOST_STATEMENTS, MOST_STATEMENTS, lambda _: 1)


Run = Callable[[Select[Any]], Awaitable[Sequence[Any]]]
"""What runs a statement."""


async def rows_of(
    run: Run,
    key: Hashable,
    build: Callable[[Viewer], Select[Any]],
    request: Given,
) -> Sequence[Any]:
    """The rows of the statement under a key, which is built if there is none yet.

    Raises BadInput for what is wrong with the values.
    """
    viewer = request.viewer
    # With the rules: a statement has those in it that there were when it was built.
    kept = (kind_of(viewer), key, *rules.values())
    statement = _statements.get(kept)
    if statement is None:
        statement = build(opened_viewer(viewer))
        if len(repr(key)) <= LARGEST_KEY:
            _statements.put(kept, statement)
    with given(request):
        try:
            return await run(statement)
        except StatementError as error:
            if isinstance(error.orig, BadInput):
                raise error.orig from None
            raise


def kind_of(viewer: Viewer) -> Hashable:
    """What two viewers must have in common to share a statement."""
    return viewer.is_administrator, viewer.user_id is None, viewer.agent_id is None


def opened_viewer(viewer: Viewer) -> Viewer:
    """A viewer of this kind, who is known later."""
    user: Any = viewer.user_id and Later(lambda request: request.viewer.user_id)
    agent: Any = viewer.agent_id and Later(lambda request: request.viewer.agent_id)
    return Viewer(user, agent, viewer.is_administrator)


def opened_window(window: Window) -> tuple[Hashable, Window]:
    """The shape of a window, and one of this shape whose values come later."""
    limit: Any = Later(lambda request: request.window.limit)
    after = window.after and tuple(_bound("after", place) for place in range(len(window.after)))
    before = window.before and tuple(_bound("before", place) for place in range(len(window.before)))
    shape = window.order, window.backward, after is None, before is None
    return shape, replace(window, limit=limit, after=after, before=before)


def _bound(end: str, place: int) -> Later:
    return Later(lambda request: getattr(request.window, end)[place])


def opened_arguments(arguments: Mapping[str, Any]) -> tuple[Hashable, dict[str, Any]]:
    """The shape of the arguments that choose rows, and such of this shape that come later."""
    shapes, opened = [], {}
    for name in ("where", "query"):
        if arguments.get(name) is not None:
            shape, opened[name] = _opened(arguments[name], _argument(name))
            shapes.append((name, shape))
    return tuple(shapes), opened


def _argument(name: str) -> Read:
    return lambda request: request.arguments[name]


def _opened(value: Any, read: Read) -> tuple[Hashable, Any]:
    """The shape of an argument, and one of this shape that comes later."""
    fields = getattr(getattr(value, "__strawberry_definition__", None), "fields", None)
    if fields is None:  # neither a filter nor what it says of a column
        # Yes and no, and null, which is an error, change a condition; other values do not.
        return (value, value) if value is None or isinstance(value, bool) else ("any", Later(read))
    shapes, opened = [], {}
    for name in (each.python_name for each in fields):
        inner = getattr(value, name)
        if inner is UNSET:
            continue
        if name in ("and_", "or_") and inner is not None:
            parts = [_opened(part, _item(read, name, place)) for place, part in enumerate(inner)]
            shape: Hashable = tuple(shape for shape, _ in parts)
            opened[name] = [part for _, part in parts]
        else:
            shape, opened[name] = _opened(inner, _attribute(read, name))
        shapes.append((name, shape))
    return tuple(shapes), type(value)(**opened)


def _attribute(read: Read, name: str) -> Read:
    return lambda request: getattr(read(request), name)


def _item(read: Read, name: str, place: int) -> Read:
    return lambda request: getattr(read(request), name)[place]
