"""The messages for errors of Pydantic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

Message = Callable[[Mapping[str, Any]], str]


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _at_least(least: int, noun: str) -> str:
    return "this must not be empty" if least == 1 else f"this needs {_counted(least, noun)} or more"


def _at_most(most: int, noun: str) -> str:
    return f"this may have {_counted(most, noun)} at most"


# By the type of the error, https://docs.pydantic.dev/latest/errors/validation_errors/
MESSAGES_BY_TYPE: dict[str, Message] = {
    "string_too_short": lambda context: _at_least(context["min_length"], "character"),
    "string_too_long": lambda context: _at_most(context["max_length"], "character"),
    "string_unicode": lambda _: "this has a character that there is not",
    "too_short": lambda context: _at_least(context["min_length"], "item"),
    "too_long": lambda context: _at_most(context["max_length"], "item"),
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
