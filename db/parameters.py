"""Values in statements: given now, or later by each request that the same statement answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BindParameter, bindparam
from sqlalchemy.types import TypeEngine


class Later:
    """A value that is known only when a statement runs.

    So a statement can be built once for all requests that differ by nothing but such values.
    """

    __slots__ = ("many", "read")

    def __init__(self, read: Callable[[Any], Any], *, many: bool = False) -> None:
        """With what reads the value from a request; `many` in a list stands for several items."""
        self.read = read
        self.many = many


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
    return bindparam(None, value, kind, unique=True)
