"""A limit on the bytes that a statement reads. PostgreSQL checks it and sends no more."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Engine, Integer, cast, event, literal_column
from sqlalchemy.engine import ExceptionContext

# How many bytes a statement may read unless a setting says otherwise.
RESULT_BYTES = 10_000_000

# https://www.postgresql.org/docs/current/errcodes-appendix.html
DIVISION_BY_ZERO = "22012"

# The size of a row is that of its text: in memory it may be compressed. The running sum is checked
# at each row, so that PostgreSQL stops at the first row beyond the limit.
LIMITED = (
    "SELECT (summed.found).* FROM (SELECT found, sum(octet_length(found::text)) OVER"
    " (ROWS UNBOUNDED PRECEDING) AS bytes FROM ({statement}) AS found) AS summed"
    " WHERE {condition}"
)


class ResultTooLarge(RuntimeError):
    """A statement would have read more than `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(f"a statement reads more than {most} bytes")
        self.most = most


def within(size: ColumnElement[int], most: int) -> ColumnElement[bool]:
    """True; where the size in bytes is more than `most`, the statement fails.

    SQL cannot raise an error of its own, so this divides by zero. No other statement of Troupe
    divides, which is how `ResultLimit.check` recognizes it.
    """
    one = literal_column("1", Integer)
    return one.op("/")(cast(size <= literal_column(str(most)), Integer)) == one


class ResultLimit:
    """The most bytes that a statement may read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._condition = str(within(literal_column("summed.bytes", Integer), most))

    def listen(self, engine: Engine) -> None:
        """Apply the limit to every SELECT of an engine."""
        event.listen(engine, "before_cursor_execute", self._apply, retval=True)
        event.listen(engine, "handle_error", self._handle)

    def _apply(
        self, connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, _: bool
    ) -> tuple[str, Any]:
        if context.compiled is not None and context.compiled.statement.is_select:
            statement = LIMITED.format(statement=statement, condition=self._condition)
        return statement, parameters

    def _handle(self, context: ExceptionContext) -> None:
        self.check(context.original_exception)

    def check(self, error: BaseException) -> None:
        """Raise ResultTooLarge if this error of PostgreSQL says that the limit was exceeded."""
        if getattr(error, "sqlstate", None) == DIVISION_BY_ZERO:
            raise ResultTooLarge(self._most) from error
