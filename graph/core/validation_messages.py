"""What Pydantic finds wrong with a value, in words for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Words = Callable[[Mapping[str, Any]], str]


def _characters(number: int) -> str:
    return f"{number:,} character{'' if number == 1 else 's'}"


def _items(number: int) -> str:
    return f"{number:,} item{'' if number == 1 else 's'}"


def _too_short(told: Mapping[str, Any]) -> str:
    least = told["min_length"]
    return "this must not be empty" if least == 1 else f"this needs {_characters(least)} or more"


def _too_few(told: Mapping[str, Any]) -> str:
    least = told["min_length"]
    return "this must not be empty" if least == 1 else f"this needs {_items(least)} or more"


# By the type of the error, https://docs.pydantic.dev/latest/errors/validation_errors/
WORDS: dict[str, Words] = {
    "string_too_short": _too_short,
    "string_too_long": lambda told: f"this may have {_characters(told['max_length'])} at most",
    "string_unicode": lambda _: "this has a character that there is not",
    "too_short": _too_few,
    "too_long": lambda told: f"this may have {_items(told['max_length'])} at most",
    "greater_than": lambda told: f"this must be more than {told['gt']:,}",
    "greater_than_equal": lambda told: f"this must be {told['ge']:,} or more",
    "less_than": lambda told: f"this must be less than {told['lt']:,}",
    "less_than_equal": lambda told: f"this must be {told['le']:,} or less",
    "decimal_max_places": lambda told: (
        f"this may have {told['decimal_places']} digits after the point at most"
    ),
    # Of our own validators, which say it themselves.
    "value_error": lambda told: str(told["error"]),
}


def words(error: Mapping[str, Any] | ErrorDetails) -> str:
    """What is wrong, as the rest of a sentence, by an error as Pydantic lists them."""
    found = WORDS.get(error["type"])
    return "this is no such value" if found is None else found(error.get("ctx", {}))


def worded(error: ValidationError) -> ValidationError:
    """The same errors in the same places, in our words."""
    told = [
        InitErrorDetails(
            type=PydanticCustomError("invalid", "{words}", {"words": words(each)}),
            loc=each["loc"],
            input=None,
        )
        for each in error.errors(include_url=False, include_input=False)
    ]
    return ValidationError.from_exception_data(error.title, told)
