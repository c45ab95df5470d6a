"""JSON and text that PostgreSQL can store: the one place that reads it and refuses what it cannot.

Numbers keep every digit: what neither a float nor 64 bits hold as it is written is a Decimal.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any, NoReturn, TypeVar

import orjson

Value = TypeVar("Value")

# PostgreSQL writes every digit of a number out: 1e100000 would take a hundred kilobytes.
MAX_DIGITS = 1_000
# orjson writes no deeper.
MAX_DEPTH = 250

# What orjson would read as another number: many digits, a fraction that ends in zeros, an exponent.
# It may be in a string as well; that costs time only.
_UNUSUAL = re.compile(rb"(?:^|[\s:,\[])-?(?:[\d.]{16}|\d+\.\d+0[\s,\]}]|[\d.]+[eE])")


@dataclass(frozen=True, slots=True)
class StoredJSON:
    """A JSON value as PostgreSQL's own text, which is passed on unchanged."""

    text: str | bytes

    @property
    def fragment(self) -> orjson.Fragment:
        """The text as a part of a larger JSON value."""
        return orjson.Fragment(self.text)


def require_storable(value: Value) -> Value:
    """The value itself, if every string in it can be stored; JSON is searched to its depth.

    Raises ValueError for a NUL character or a lone surrogate, which are legal in a Python string
    and in JSON, but not in a PostgreSQL `text` or `jsonb`; for a number that has too many digits or
    is infinite, as Python reads 1e400; and for lists and objects that nest too deeply.
    """
    pending: list[tuple[object, int]] = [(value, 0)]
    while pending:
        item, depth = pending.pop()
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
        elif isinstance(item, float | Decimal):
            _check_number(item)
        elif isinstance(item, dict | list):
            if depth == MAX_DEPTH:
                raise ValueError(f"lists and objects nest more than {MAX_DEPTH} levels deep")
            pending += [(each, depth + 1) for each in item]
            if isinstance(item, dict):
                pending += [(each, depth + 1) for each in item.values()]
    return value


def composed(text: str) -> str:
    """The text in Unicode's composed form (NFC), where an accent is part of its letter."""
    return unicodedata.normalize("NFC", text)


def _check_number(number: float | Decimal) -> None:
    if not isfinite(float(number)):
        # PostgreSQL would keep many of these, but hardly anybody who reads JSON could take them in.
        raise ValueError("a number is too great to be stored: it is beyond 1.8e308")
    if isinstance(number, Decimal) and has_too_many_digits(number):
        raise ValueError(f"a number has more than {MAX_DIGITS:,} digits")


def has_too_many_digits(number: Decimal) -> bool:
    """Whether more than MAX_DIGITS digits are needed to write it out."""
    return abs(number.adjusted()) >= MAX_DIGITS or len(number.as_tuple().digits) > MAX_DIGITS


def parse_json(text: str | bytes) -> Any:
    """JSON, its numbers exact. Raises ValueError, with the place if it is one in the JSON.

    A lone surrogate is let through, so that it can be refused where it stands.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        value = orjson.loads(data)
    except ValueError:
        # To decode it tells whether it is UTF-8. Neither half a pair nor 1e400 is read by orjson.
        if "\\ud" not in data.decode().lower() and _UNUSUAL.search(data) is None:
            raise
    else:
        if _UNUSUAL.search(data) is None:
            return value
    try:
        return json.loads(
            data.decode(), parse_int=number, parse_float=number, parse_constant=_no_constant
        )
    except RecursionError:
        raise ValueError("lists and objects nest too deeply") from None


def number(text: str) -> int | float | Decimal:
    """A number as JSON and GraphQL write it, with every digit.

    It is a Decimal where it is neither an integer of 64 bits nor a float that is written alike.
    """
    if len(text) < 20 and text.lstrip("-").isdecimal():
        return int(text)
    if repr(float(text)) == text:
        return float(text)
    try:
        exact = Decimal(text)
    except ArithmeticError:
        # Its exponent is beyond all bounds. What is too great is refused later, at its place.
        if isfinite(float(text)):
            raise ValueError("a number is too close to zero to be stored") from None
        return float(text)
    # An integer with an exponent, as Java writes 100000.0, is good for an Int.
    is_small = exact.adjusted() < 18 and "e" in text.lower()
    return int(exact) if is_small and exact == exact.to_integral_value() else exact


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def to_json(value: Any) -> str:
    """JSON for PostgreSQL. Raises ValueError for text in it that cannot be stored."""
    return orjson.dumps(require_storable(value), default=decimal_json).decode()


def canonical_json(value: Any) -> bytes:
    """JSON that is the same for the same value, in whatever order its keys are."""
    return orjson.dumps(value, default=decimal_json, option=orjson.OPT_SORT_KEYS)


def decimal_json(number: Decimal) -> orjson.Fragment:
    """A number as JSON, digit by digit."""
    return orjson.Fragment(str(number))
