"""The private interfaces of other packages: that all are known, and as the code needs them."""

from __future__ import annotations

from importlib import metadata

import pytest

from tests import private_interfaces  # noqa: F401 - declares the rows
from tests.private import ROWS, Private, found, found_in, used


def test_every_private_interface_is_declared() -> None:
    declared = {name for row in ROWS for name in row.found_by}
    unknown = {name: sorted(used()[name]) for name in found() - declared}
    assert not unknown, (
        "private interfaces without a declaration in tests/private_interfaces.py; use a public one"
        f" or declare it, and run `make docs`: {unknown}"
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("connection._protocol.state", {"_protocol"}),
        ("self._protocol", {"_protocol"}),
        ("getattr(connection, '_protocol', None)", {"_protocol"}),
        ("model.__pydantic_validator__", {"__pydantic_validator__"}),
        ("from sqlalchemy import _typing", {"sqlalchemy._typing"}),
        ("from sqlalchemy.util import langhelpers", {"sqlalchemy.util.langhelpers"}),
        ("import uvicorn.protocols.utils", {"uvicorn.protocols.utils"}),
        ("from graphql.execution.values import get_argument_values", set()),
        ("from sqlalchemy import select\nimport orjson, asyncpg", set()),
        ("class A:\n    def __init__(self): self._mine = 1\n    def of(self, a): a._mine", set()),
    ],
)
def test_a_private_interface_is_found(text: str, names: set[str]) -> None:
    assert found_in(text) == names


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_declared_interface_is_used(row: Private) -> None:
    unused = [name for name in row.found_by if name not in used()]
    assert not unused, (
        f"no code uses {unused} of {row.package} any more; take it out of"
        " tests/private_interfaces.py, and run `make docs`"
    )


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_interface_is_as_the_code_needs_it(row: Private) -> None:
    try:
        row.check()
    except Exception as error:
        pytest.fail(
            f"{row.package} {metadata.version(row.package)} has changed {row.interface}, which"
            f" {', '.join(row.used_in)} uses ({row.why}): {type(error).__name__}: {error}"
        )
