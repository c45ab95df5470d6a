"""Statements that are built with SQLAlchemy and compiled once, and run with other values each time.

Building an expression takes longer than PostgreSQL takes to run it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, Executable
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.types import TypeEngine

from db.parameters import Deferred, bind
from db.scopes import Viewer
from db.text import to_json

# The most texts of one statement that are kept, each of some kilobytes. Clients choose the columns.
MOST_COMPILED = 100

# The most expressions of one statement that are kept, each of some hundred objects for Python's
# garbage collector.
MOST_BUILT = 8

_dialect: Any = asyncpg.dialect(json_serializer=to_json)  # type: ignore[no-untyped-call]


class DependsOnValues(Exception):
    """The text of a statement depends on its values."""


@dataclass(slots=True)
class Values:
    """The values that the deferred values of a statement are resolved from."""

    viewer: Viewer
    values: Mapping[str, Any]
    resolved: dict[Deferred, Any] = field(default_factory=dict, init=False)


def deferred(name: str) -> Deferred:
    """The value of this name, which a statement gets when it runs."""
    return Deferred(lambda request: request.values[name])


def value(name: str, kind: TypeEngine[Any] | type[TypeEngine[Any]]) -> ColumnElement[Any]:
    """A parameter of a statement that gets the value of this name."""
    return bind(deferred(name), kind)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The text of a statement, and where the values of its parameters come from."""

    sql: str
    parameters: tuple[tuple[Any, Callable[[Any], Any] | None], ...]
    """The value of each parameter, which may be deferred, and its bind processor."""

    def arguments(self, request: Any) -> list[Any]:
        """The values of the parameters for a request."""
        arguments = []
        for value, process in self.parameters:
            if isinstance(value, Deferred):
                value = value.resolve(request)
            arguments.append(value if process is None else process(value))
        return arguments


def compiled(statement: Executable) -> Compiled:
    """The text and the parameters of a statement. Raises DependsOnValues."""
    text: Any = statement.compile(dialect=_dialect)  # type: ignore[attr-defined]
    if text.post_compile_params:
        raise DependsOnValues("the text of the statement depends on its values")
    parameters = []
    for name in text.positiontup or ():
        bound = text.binds[name]
        parameters.append((bound.callable or bound.value, _processor(bound.type)))
    return Compiled(text.string, tuple(parameters))


def _processor(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What the driver gets in place of a value of a type; None if it gets the value itself."""
    found: TypeEngine[Any] = kind.dialect_impl(_dialect)
    if isinstance(found, ARRAY) and _processor(found.item_type) is None:
        return None  # SQLAlchemy would copy the list
    return found.bind_processor(_dialect)


@cache
def _viewer(is_administrator: bool, is_user: bool, is_agent: bool) -> Viewer:
    user: Any = Deferred(lambda request: request.viewer.user_id) if is_user else None
    agent: Any = Deferred(lambda request: request.viewer.agent_id) if is_agent else None
    token: Any = Deferred(lambda request: request.viewer.token_id)
    return Viewer(user, agent, is_administrator, token)


def deferred_viewer(viewer: Viewer) -> Viewer:
    """A viewer of the same kind with deferred ids."""
    return _viewer(*viewer.kind)


Extend = Callable[[Any], Compiled]
"""Compiles a statement with more that it does."""


class Statement:
    """A statement that is made once for each kind of viewer and each set of options."""

    def __init__(self, build: Callable[..., Executable], *, is_logged: bool = True) -> None:
        """`build` takes a viewer with deferred ids, and the options, which are hashable.

        One that writes nothing that the event log shows is not logged: no event waits for its
        position then.
        """
        self.build = build
        self.is_logged = is_logged
        self._built = lru_cache(MOST_BUILT)(build)
        self._compiled = lru_cache(MOST_COMPILED)(self._compile)

    def built(self, viewer: Viewer, *options: Hashable) -> Executable:
        """The statement for a viewer like this one, for a session.

        It is the same object each time, with which SQLAlchemy keeps the key of its own cache.
        """
        return self._built(deferred_viewer(viewer), *options)

    def compiled(
        self, viewer: Viewer, *options: Hashable, extended: Extend | None = None
    ) -> Compiled:
        """The statement for a viewer like this one, or what a function makes of it."""
        return self._compiled(extended, deferred_viewer(viewer), *options)

    def _compile(self, extended: Extend | None, *options: Any) -> Compiled:
        return (extended or compiled)(self.build(*options))
