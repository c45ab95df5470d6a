"""Values of arguments that PostgreSQL or a column cannot store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from graphql import GraphQLInputObjectType, get_nullable_type, is_list_type

from db.moments import FIRST, LAST
from db.text import require_storable
from graph.core.errors import BadInput
from graph.core.selections import Operation, input_values

Path = tuple[str | int, ...]
Check = Callable[[Any], object]


def check_arguments(operation: Operation) -> None:
    """Raise BadInput for a value in the arguments of a field that PostgreSQL cannot take.

    Invalid values of the input of a mutation are reported as user errors.
    """
    mutation = operation.schema.mutation_type
    for selected in operation.fields():
        if selected.parent is mutation or is_storable(selected.arguments):
            continue
        for path, problem in invalid_values(
            selected.definition.args, selected.arguments, require_storable
        ):
            place = ".".join(map(str, path))
            raise BadInput(f"`{place}` of `{selected.key}` cannot be used: {problem}.")


def check_column_value(value: Any) -> None:
    """Raise ValueError for a value, or one in it, that no column can have."""
    require_storable(value, _check_moment)


def _check_moment(value: Any) -> None:
    if isinstance(value, datetime) and value in (FIRST, LAST):
        raise ValueError(
            "a time lies between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z; where there"
            " is none, leave this out or send null"
        )


def invalid_values(
    kinds: Mapping[str, Any], values: Any, check: Check
) -> Iterator[tuple[Path, str]]:
    """The paths of the values that do not pass a check, and the problems."""
    pending: list[tuple[Path, Any, Any]] = list(_parts((), kinds, values))
    while pending:
        path, kind, value = pending.pop()
        kind = get_nullable_type(kind)
        if is_list_type(kind) and isinstance(value, list):
            below = [((*path, place), kind.of_type, item) for place, item in enumerate(value)]
            pending += reversed(below)
        elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
            pending += _parts(path, kind.fields, value)
        else:
            try:
                check(value)
            except ValueError as error:
                yield path, str(error)


def _parts(path: Path, kinds: Mapping[str, Any], values: Any) -> Iterator[tuple[Path, Any, Any]]:
    for name, kind, value in reversed(input_values(kinds, values)):
        yield (*path, name), kind.type, value


def is_storable(value: Any) -> bool:
    """Whether PostgreSQL can store a value, and all values in it."""
    try:
        require_storable(value)
    except ValueError:
        return False
    return True
