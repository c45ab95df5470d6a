"""The messages for errors of Pydantic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Message = Callable[[Mapping[str, Any]], str]


def _characters(number: int) -> str:
    return f"{number:,} character{'' if number == 1 else 's'}"


def _items(number: int) -> str:
    return f"{number:,} item{'' if number == 1 else 's'}"


def _too_short(context: Mapping[str, Any]) -> str:
    least = context["min_length"]
    return "this must not be empty" if least == 1 else f"this needs {_characters(least)} or more"


def _too_few(context: Mapping[str, Any]) -> str:
    least = context["min_length"]
    return "this must not be empty" if least == 1 else f"this needs {_items(least)} or more"


# By the type of the error, https://docs.pydantic.dev/latest/errors/validation_errors/
MESSAGES_BY_TYPE: dict[str, Message] = {
    "string_too_short": _too_short,
    "string_too_long": lambda context: (
        f"this may have {_characters(context['max_length'])} at most"
    ),
    "string_unicode": lambda _: "this has a character that there is not",
    "too_short": _too_few,
    "too_long": lambda context: f"this may have {_items(context['max_length'])} at most",
    "greater_than": lambda context: f"this must be more than {context['gt']:,}",
    "greater_than_equal": lambda context: f"this must be {context['ge']:,} or more",
    "less_than": lambda context: f"this must be less than {context['lt']:,}",
    "less_than_equal": lambda context: f"this must be {context['le']:,} or less",
    "decimal_max_places": lambda context: (
        f"this may have {context['decimal_places']} digits after the point at most"
    ),
    # Our own validators have their own messages.
    "value_error": lambda context: str(context["error"]),
}


def words(error: Mapping[str, Any] | ErrorDetails) -> str:
    """The message for an error of Pydantic, without a capital letter and a full stop."""
    found = MESSAGES_BY_TYPE.get(error["type"])
    return "this is no such value" if found is None else found(error.get("ctx", {}))


def worded(error: ValidationError) -> ValidationError:
    """The same errors with our messages."""
    context = [
        InitErrorDetails(
            type=PydanticCustomError("invalid", "{words}", {"words": words(each)}),
            loc=each["loc"],
            input=None,
        )
        for each in error.errors(include_url=False, include_input=False)
    ]
    return ValidationError.from_exception_data(error.title, context)
