"""What the test file of each noun says for the tests of all nouns, which ask it here.

These names have a meaning in `tests/test_<noun>.py`, each for a dictionary:

- `SEEN`: for each model of the noun, whether a viewer sees a row of it (`tests.oracle.Sees`). It
  says in Python what the rule in `db` says in SQL, and must not be made from it.
- `CASES`: for each mutation, how it is asked for, and how strangers are turned away
  (`tests.world.Case`).
- `BREAKING`: for each table, and each CHECK of it that does not follow from the type of a column,
  assignments in an UPDATE that break it.
- `VALUES`: for a model, what `tests.factories.make_row` cannot know of the values that its rows
  take, by the number of the row.
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
    """All that the test files of nouns say under this name, what others belong to at the end.

    So what a case deletes is not missed by one that comes after it.
    """
    modules = [slice for slice in SLICES if slice.count(".") == 1]
    found: dict[Any, Any] = {}
    for noun in sorted(modules, key=place_of):
        found |= getattr(importlib.import_module(noun.replace("graph.", "tests.test_")), name, {})
    return found


def place_of(noun: str) -> int:
    """Where a noun stands: first what has no rows of its own, then what belongs to most."""
    tables = db.Base.metadata.sorted_tables
    own = (entity.model for entity in entities() if entity.shown_as.__module__ == noun)
    return -max((tables.index(model.__table__) for model in own), default=len(tables))
