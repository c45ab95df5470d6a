"""What the tests of all entities take from the test file of each noun.

These names have a meaning in `tests/test_<noun>.py`; each is a dictionary:

- `SEEN`: for each model, a function that says whether a viewer sees a row (`tests.oracle.Sees`). It
  says in Python what the rule in `db/rules.py` says in SQL, and must not be made from the rule.
- `CASES`: for each mutation, how it is called, and how a stranger is refused (`tests.world.Case`).
- `BREAKING`: for each table, and each CHECK that does not follow from the type of a column, the
  assignments of an UPDATE that break it.
- `VALUES`: for a model, a function from the number of a row to the values that
  `tests.factories.make_row` cannot know, because a CHECK demands them.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import db
from graph.core.entities import entities
from graph.schema import SLICES


@cache
def said(name: str) -> dict[Any, Any]:
    """What the test files of all nouns say under this name.

    Nouns whose rows belong to others' come first, so that a case that deletes a row comes after all
    cases that need it.
    """
    modules = [slice for slice in SLICES if slice.count(".") == 1]
    found: dict[Any, Any] = {}
    for noun in sorted(modules, key=place_of):
        found |= getattr(importlib.import_module(noun.replace("graph.", "tests.test_")), name, {})
    return found


def place_of(noun: str) -> int:
    """Where a noun stands: first what has no rows of its own, then what belongs to most."""
    tables = db.Base.metadata.sorted_tables
    own = (
        entity.model.__table__
        for entity in entities()
        if entity.graphql_type.__module__ == noun and entity.model.__table__ in tables
    )
    return -max(map(tables.index, own), default=len(tables))
