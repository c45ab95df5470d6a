"""Which text PostgreSQL can store: the one place that refuses what it cannot."""

from __future__ import annotations

import unicodedata
from decimal import Decimal
from math import isfinite
from typing import Any, TypeVar

import orjson

Value = TypeVar("Value")


def storable(value: Value) -> Value:
    """The value itself, if every string in it can be stored; JSON is searched to its depth.

    Raises ValueError for a NUL character or a lone surrogate, which are legal in a Python string
    and in JSON, but not in a PostgreSQL `text` or `jsonb`; and for a number that is infinite, as
    Python reads 1e400, which would become null.
    """
    pending: list[object] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise ValueError(
                    "a text contains a NUL character (\\u0000), which cannot be stored"
                )
            if not item.isascii():
                try:
                    item.encode()
                except UnicodeEncodeError:
                    raise ValueError(
                        "a text contains half of a surrogate pair (\\ud800 to \\udfff),"
                        " which is no character and cannot be stored"
                    ) from None
        elif isinstance(item, float) and not isfinite(item):
            raise ValueError("a number is too great to be stored")
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return value


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), where an accent is part of its letter."""
    return unicodedata.normalize("NFC", text)


def dumps(value: Any) -> str:
    """JSON for PostgreSQL. Raises ValueError for text in it that cannot be stored."""
    return orjson.dumps(storable(value)).decode()


def canonical(value: Any) -> bytes:
    """JSON that is the same for the same value, in whatever order its keys are."""
    return orjson.dumps(value, default=exact, option=orjson.OPT_SORT_KEYS)


def exact(number: Decimal) -> orjson.Fragment:
    """A number as JSON, digit by digit."""
    return orjson.Fragment(str(number))
