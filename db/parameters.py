"""Values of a statement: known when it is built, or deferred until a request runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Select, bindparam
from sqlalchemy.types import TypeEngine

_request: ContextVar[Any] = ContextVar("request")


@contextmanager
def request_of_statements(request: Any) -> Iterator[None]:
    """Statements that a session runs in the block get their deferred values from this request."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


class Deferred:
    """A value that is known only when a statement runs.

    So one statement serves all requests that differ only in such values.
    """

    __slots__ = ("many", "resolve")

    def __init__(self, resolve: Callable[[Any], Any], *, many: bool = False) -> None:
        """`resolve` takes the value from a request; `many` in a list stands for several items."""
        self.resolve = resolve
        self.many = many

    def __call__(self) -> Any:
        """The value for the request whose statement a session runs."""
        return self.resolve(_request.get())


def apply(function: Callable[[Any], Any], value: Any) -> Any:
    """The function's result for a value. For a deferred value, the result is deferred too.

    An exception of the function is then raised when the result is resolved.
    """
    if isinstance(value, Deferred):
        return Deferred(lambda request: function(value.resolve(request)))
    if isinstance(value, list) and any(isinstance(item, Deferred) for item in value):
        return Deferred(lambda request: function(_resolve_items(value, request)))
    return function(value)


def resolve_once(value: Any) -> Any:
    """The same value; a deferred one is resolved once for each request, and then cached in it."""
    if not isinstance(value, Deferred):
        return value

    def resolve(request: Any) -> Any:
        if value not in request.resolved:
            request.resolved[value] = value.resolve(request)
        return request.resolved[value]

    return Deferred(resolve, many=value.many)


def _resolve_items(values: list[Any], request: Any) -> list[Any]:
    resolved: list[Any] = []
    for value in values:
        if not isinstance(value, Deferred):
            resolved.append(value)
        elif value.many:
            resolved += value.resolve(request)
        else:
            resolved.append(value.resolve(request))
    return resolved


class DeferredParameter(BindParameter[Any]):
    """A bind parameter with a deferred value.

    Its class is part of the keys of SQLAlchemy's cache, because a statement that was compiled with
    a value would not resolve it.
    """

    inherit_cache = True

    def _with_value(self, *values: Any, **options: Any) -> Any:
        """A copy with the same function. SQLAlchemy copies what it has cached for an execution."""
        copied: Any = super()._with_value(*values, **options)  # type: ignore[no-untyped-call]
        copied.callable = self.callable
        return copied


def bind(value: Any, kind: TypeEngine[Any] | type[TypeEngine[Any]]) -> ColumnElement[Any]:
    """A value as a bind parameter of this type; the text of a statement never holds a value.

    A column stays as it is: the statement finds the value in its own rows.
    """
    if isinstance(value, ColumnElement):
        return value
    if isinstance(value, Deferred):
        return DeferredParameter(None, type_=kind, unique=True, callable_=value)
    return bindparam(None, value, kind, unique=True)


def correlated(statement: Select[Any], key: Any) -> Select[Any]:
    """The statement, if a key that it compares with is a column of a row outside of it.

    Without this, it would read all rows of that table.
    """
    table = getattr(getattr(key, "expression", key), "table", None)
    return statement if table is None else statement.correlate(table)
