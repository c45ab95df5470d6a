"""Statements that write, so that they also return values of the rows, and store a key.

A mutation that is one statement needs no second one for its payload then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    CTE,
    Column,
    ColumnClause,
    FromClause,
    Select,
    Table,
    literal_column,
    select,
)
from sqlalchemy.orm import aliased

from db.idempotency import storing
from db.parameters import Deferred
from db.scopes import Viewer
from db.statements import Compiled, compiled

WRITTEN = "written"
"""The name of the rows that a statement has written, in the statement."""

READING = "reading"
"""Stands for a part of a statement that is compiled already."""

WRITTEN_BY_TRIGGERS = {"events", "usage_totals", "budgets", "budget_periods", "budget_alerts"}
"""The tables that triggers write, after the statement that runs them."""

Values = Callable[[Any], Mapping[str, Select[Any]]]
"""Makes statements by name, each of which selects a value from a row, given as an alias."""


def keyed(statement: Any) -> Compiled:
    """A statement that also stores an idempotency key, if it returns rows."""
    written = statement.cte(WRITTEN)
    return compiled(select(written).add_cte(storing(written)))


def _parts(element: Any, written: FromClause) -> Iterator[Any]:
    """An expression and all its parts, without those of the rows that are written."""
    yield element
    for part in element.get_children():
        if part not in {written}:  # it may be an annotated copy, which is equal
            yield from _parts(part, written)


class Returning:
    """Values of each row that a statement writes, which the same statement returns.

    It consists of text, because many are cached, and an expression is hundreds of objects.
    """

    def __init__(self, model: Any, values: Values) -> None:
        """The values are returned with the id of the row; NULL if its statement selects nothing."""
        self.model = model
        # An alias, so that the columns of other tables are not taken for those of the same name.
        written = model.__table__.alias(WRITTEN)
        selects = values(aliased(model, written))
        parts = [part for each in selects.values() for part in _parts(each, written)]
        columns = [each for each in parts if isinstance(each, ColumnClause)]
        bases = {base for each in columns for base in each.base_columns}
        self._tables = {each.name for each in parts if isinstance(each, Table)}
        self._columns = {str(each) for each in bases if isinstance(each, Column)}
        self._written = sorted({each.name for each in columns if each.table in {written}})
        # Without OFFSET, PostgreSQL would make this the row itself, and conditions such as `IN`
        # would search all that they can find instead of looking up what is searched.
        found = select(*(written.c[name] for name in self._written or ["id"]))
        found = found.correlate(written).offset(literal_column("0"))
        row = aliased(model, found.subquery("row"))
        self.names = tuple(selects)
        results = [each.scalar_subquery() for each in values(row).values()]
        reading = compiled(select(written.c.id, *results))
        # What is written is no table, but a part of the statement that writes.
        sql = reading.sql.replace(f"FROM {model.__table__.name} AS {WRITTEN}", f"FROM {WRITTEN}")
        self.reading = Compiled(sql, reading.parameters)

    def fits(self, model: Any, changed: Collection[Any] = ()) -> bool:
        """Whether a statement can return it that writes a model, and changes columns of others.

        A statement reads all tables as they were before it. So the values must not depend on other
        rows of the model, on these columns, or on what triggers write.
        """
        if model is not self.model:
            return False
        written = {model.__table__.name, *WRITTEN_BY_TRIGGERS}
        return self._tables.isdisjoint(written) and self._columns.isdisjoint(map(str, changed))

    def depends_only_on(self, viewer: Viewer) -> bool:
        """Whether no value depends on anything of a request but its viewer."""
        allowed = (viewer.user_id, viewer.agent_id)
        deferred = (each for each, _ in self.reading.parameters if isinstance(each, Deferred))
        return all(each in allowed for each in deferred)

    def extended(self, statement: Any) -> Compiled:
        """A statement that returns the ids of the rows it writes, so that it returns this too."""
        return self._extended(self._cte(statement))

    def extended_and_keyed(self, statement: Any) -> Compiled:
        """The same, for a statement that also stores an idempotency key."""
        written = self._cte(statement)
        return self._extended(written, storing(written))

    def _cte(self, statement: Any) -> CTE:
        columns = self.model.__table__.c
        names = [name for name in self._written if name != "id"]
        add = statement.add_columns if isinstance(statement, Select) else statement.returning
        written: CTE = add(*(columns[name] for name in names)).cte(WRITTEN)
        return written

    def _extended(self, *ctes: CTE) -> Compiled:
        writing, reading = compiled(select(literal_column(READING)).add_cte(*ctes)), self.reading
        number = len(writing.parameters)
        text = re.sub(r"\$(\d+)", lambda found: f"${int(found[1]) + number}", reading.sql)
        sql = writing.sql.replace(f"SELECT {READING}", text)
        return Compiled(sql, (*writing.parameters, *reading.parameters))


class Returned:
    """What the statement of a mutation has returned besides the ids of the rows."""

    def __init__(self, returning: Returning) -> None:
        self.returning = returning
        self._values: dict[str, dict[Any, Any]] = {name: {} for name in returning.names}

    def add(self, rows: Sequence[Any]) -> None:
        """Add the rows that a statement has returned."""
        for id, *found in rows:
            for known, each in zip(self._values.values(), found, strict=True):
                known[id] = each

    def values(self, name: str, ids: Sequence[Any]) -> list[Any] | None:
        """The values of this name, of the rows with these ids; None if one is not there."""
        known = self._values.get(name, {})
        found = [known.get(id) for id in ids]
        return None if None in found else found
