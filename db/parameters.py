"""Values in statements: given now, or later by each request that the same statement answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sqlalchemy import BindParameter, bindparam
from sqlalchemy.types import TypeEngine

_request: ContextVar[Any] = ContextVar("request", default=None)


@contextmanager
def given(request: Any) -> Iterator[None]:
    """Inside the block, statements that SQLAlchemy runs take their later values from a request."""
    before = _request.set(request)
    try:
        yield
    finally:
        _request.reset(before)


class Later:
    """A value that is known only when a statement runs.

    So a statement can be built once for all requests that differ by nothing but such values.
    """

    __slots__ = ("many", "read")

    def __init__(self, read: Callable[[Any], Any], *, many: bool = False) -> None:
        """With what reads the value from a request; `many` in a list stands for several items."""
        self.read = read
        self.many = many


class _Open(BindParameter[Any]):
    """A parameter whose value comes later: it has another whenever SQLAlchemy looks at it.

    SQLAlchemy's own for this, a callable, gets lost in the criteria of its loader options.
    """

    inherit_cache = True

    @property
    def value(self) -> Any:
        """The value for the request that is given; before there is one, what will read it."""
        request = _request.get()
        if request is None or not isinstance(self._value, Later):
            return self._value
        return self._value.read(request)

    @value.setter
    def value(self, value: Any) -> None:
        self._value = value


def then(convert: Callable[[Any], Any], value: Any) -> Any:
    """What a conversion makes of a value: at once, or later if the value comes later.

    What the conversion raises, it raises at that time.
    """
    if isinstance(value, Later):
        return Later(lambda request: convert(value.read(request)))
    if isinstance(value, list) and any(isinstance(item, Later) for item in value):
        return Later(lambda request: convert(_read(value, request)))
    return convert(value)


def once(value: Any) -> Any:
    """A value that, if it comes later, is read once for a request, however often it is used.

    What was read is in `known` of the request.
    """
    if not isinstance(value, Later):
        return value

    def read(request: Any) -> Any:
        if value not in request.known:
            request.known[value] = value.read(request)
        return request.known[value]

    return Later(read, many=value.many)


def _read(values: list[Any], request: Any) -> list[Any]:
    read: list[Any] = []
    for value in values:
        if not isinstance(value, Later):
            read.append(value)
        elif value.many:
            read += value.read(request)
        else:
            read.append(value.read(request))
    return read


def parameter(value: Any, kind: TypeEngine[Any] | type[TypeEngine[Any]]) -> BindParameter[Any]:
    """A value as a parameter of a statement, of a column's type; its text never holds values."""
    made = _Open if isinstance(value, Later) else bindparam
    return made(None, value, kind, unique=True)
