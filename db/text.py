"""JSON and text: parsing, writing, and the check that PostgreSQL can store them.

Numbers keep every digit: one that neither a float nor a 64-bit integer holds is a Decimal.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, NoReturn, TypeVar

import orjson

Value = TypeVar("Value")

# PostgreSQL writes numbers without an exponent: 1e100000 would take a hundred kilobytes.
MAX_DIGITS = 1_000
# The limit of orjson.
MAX_DEPTH = 250
# The types of which every value can be stored.
PLAIN = frozenset((bool, int, type(None)))

# Numbers that orjson would change: many digits, a fraction that ends in zeros, an exponent. A match
# inside a string only costs time.
_UNUSUAL = re.compile(rb"[\s:,\[]-?\d(?:[\d.]{15}|\d*\.\d+0[\s,\]}]|[\d.]*[eE])")


@dataclass(frozen=True, slots=True)
class StoredJSON:
    """A JSON value as PostgreSQL's own text, which is passed on unchanged."""

    text: str | bytes

    @property
    def fragment(self) -> orjson.Fragment:
        """The text as a part of a larger JSON value."""
        return orjson.Fragment(self.text)


def require_storable(value: Value, check: Callable[[Any], object] | None = None) -> Value:
    """The value itself, if PostgreSQL can store it and everything in it.

    Raises ValueError for a NUL character or a lone surrogate, which are legal in a Python string
    and in JSON, but not in a PostgreSQL `text` or `jsonb`; for a number with too many digits or an
    infinite one, as Python parses 1e400; and for lists and objects that nest too deeply. `check` is
    called with all values that are neither null, text, numbers, lists nor objects.
    """
    level: list[Any] = [value]
    depth = 0
    while level:
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind in PLAIN:
                continue
            if kind is str or isinstance(item, str):
                if not item.isascii() or "\0" in item:
                    _check_text(item)
            elif isinstance(item, dict | list):
                if depth == MAX_DEPTH:
                    raise ValueError(f"lists and objects nest more than {MAX_DEPTH} levels deep")
                below += item
                if isinstance(item, dict):
                    below += item.values()
            elif isinstance(item, float | Decimal):
                _check_number(item)
            elif check is not None:
                check(item)
        level = below
        depth += 1
    return value


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError("a text contains a NUL character (\\u0000), which cannot be stored")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "a text contains half of a surrogate pair (\\ud800 to \\udfff),"
            " which is no character and cannot be stored"
        ) from None


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), where an accent is part of its letter."""
    return unicodedata.normalize("NFC", text)


def _check_number(number: float | Decimal) -> None:
    if not isfinite(float(number)):
        # PostgreSQL can store many of these, but most JSON parsers cannot read them.
        raise ValueError("a number is too great to be stored: it is beyond 1.8e308")
    if isinstance(number, Decimal) and has_too_many_digits(number):
        raise ValueError(f"a number has more than {MAX_DIGITS:,} digits")


def has_too_many_digits(number: Decimal) -> bool:
    """Whether more than MAX_DIGITS digits are needed to write it out."""
    return abs(number.adjusted()) >= MAX_DIGITS or len(number.as_tuple().digits) > MAX_DIGITS


def parse_json(text: str | bytes) -> Any:
    """Parse JSON with exact numbers. Raises ValueError, with the position of a syntax error.

    A lone surrogate is accepted here; `require_storable` refuses it.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        value = orjson.loads(data)
    except ValueError:
        # decode() raises if it is not UTF-8. orjson accepts neither a lone surrogate nor 1e400.
        if "\\ud" not in data.decode().lower() and not _has_unusual(data):
            raise
    else:
        # It makes a float of every number that it changes.
        if not (_has_float(value) and _has_unusual(data)):
            return value
    try:
        return json.loads(
            data.decode(), parse_int=number, parse_float=number, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("lists and objects nest too deeply") from None


def _has_float(value: Any) -> bool:
    pending = [value]
    for item in pending:  # which grows
        kind = type(item)
        if kind is float:
            return True
        if kind is dict:
            pending += item.values()
        elif kind is list:
            pending += item
    return False


def _has_unusual(data: bytes) -> bool:
    # The pattern begins with a character, not with an anchor, because that is searched faster.
    return _UNUSUAL.search(b" " + data) is not None


def number(text: str) -> int | float | Decimal:
    """Parse a number of JSON or GraphQL with every digit.

    The result is a Decimal unless it is a 64-bit integer, or a float that is written the same way.
    """
    if len(text) < 20 and text.lstrip("-").isdecimal():
        return int(text)
    if repr(float(text)) == text:
        return float(text)
    try:
        exact = Decimal(text)
    except ArithmeticError:
        # Decimal cannot hold the exponent. `require_storable` refuses a number that is too great.
        if isfinite(float(text)):
            raise ValueError("a number is too close to zero to be stored") from None
        return float(text)
    # An integer with an exponent, as Java writes 100000.0, is accepted for an Int.
    is_small = exact.adjusted() < 18 and "e" in text.lower()
    return int(exact) if is_small and exact == exact.to_integral_value() else exact


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def to_json(value: Any) -> str:
    """Write JSON for PostgreSQL. Raises ValueError if PostgreSQL cannot store the value."""
    return orjson.dumps(require_storable(value), default=decimal_json).decode()


def canonical_json(value: Any) -> bytes:
    """Write JSON with sorted keys, so that equal values have equal texts."""
    return orjson.dumps(value, default=decimal_json, option=orjson.OPT_SORT_KEYS)


def decimal_json(number: Decimal) -> orjson.Fragment:
    """A Decimal as JSON, with every digit."""
    return orjson.Fragment(str(number))
