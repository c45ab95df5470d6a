"""The messages for errors of Pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

# By the type of the error, https://docs.pydantic.dev/latest/errors/validation_errors/
MESSAGES_BY_TYPE = {
    "string_too_short": "this needs {min_length:,} characters or more",
    "string_too_long": "this may have {max_length:,} characters at most",
    "string_unicode": "this has a character that there is not",
    "too_short": "this needs {min_length:,} items or more",
    "too_long": "this may have {max_length:,} items at most",
    "greater_than": "this must be more than {gt:,}",
    "greater_than_equal": "this must be {ge:,} or more",
    "less_than": "this must be less than {lt:,}",
    "less_than_equal": "this must be {le:,} or less",
    "decimal_max_places": "this may have {decimal_places} digits after the point at most",
    # Our own validators have their own messages.
    "value_error": "{error}",
}


def words(error: Mapping[str, Any] | ErrorDetails) -> str:
    """The message for an error of Pydantic, without a capital letter and a full stop."""
    context = error.get("ctx", {})
    if context.get("min_length") == 1:
        return "this must not be empty"
    return MESSAGES_BY_TYPE.get(error["type"], "this is no such value").format_map(context)


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
