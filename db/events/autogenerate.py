"""Finds tables whose triggers are missing or outdated, for the drafts of migrations.

Importing this module adds the comparison to Alembic's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import text

from db.events import triggers

FUNCTIONS = text(
    "SELECT proname, prosrc FROM pg_proc WHERE prorettype = 'trigger'::regtype"
    " AND pronamespace = current_schema()::regnamespace"
)


class LogChanges(MigrateOperation):
    """Make, replace or drop the triggers of a table, by these statements."""

    def __init__(self, table: str, statements: Sequence[str], reverse: Sequence[str]) -> None:
        self.table = table
        self.statements = statements
        self.reversed = reverse

    def reverse(self) -> LogChanges:
        """The operation that undoes this one."""
        return LogChanges(self.table, self.reversed, self.statements)

    def to_diff_tuple(self) -> tuple[str, str]:
        """What a comparison reports."""
        return ("event log", self.table)


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare(context: AutogenContext, operations: UpgradeOps, _: Any) -> PriorityDispatchResult:
    """Compare the functions of the database with those that the models need."""
    assert context.connection is not None
    found = {
        name.removeprefix(triggers.PREFIX): body
        for name, body in context.connection.execute(FUNCTIONS)
        if name.startswith(triggers.PREFIX) and name != "log_truncate"
    }
    wanted = {table.name: triggers.body(table) for table in triggers.logged_tables()}
    for table, new in wanted.items():
        old = found.pop(table, None)
        if old is None:
            making, dropping = [*triggers.creating(table, new)], [*triggers.dropping(table)]
            operations.ops.append(LogChanges(table, making, dropping))
        elif old.split() != new.split():  # drafts are indented
            replaced = [triggers.function(table, text) for text in (new, old)]
            operations.ops.append(LogChanges(table, replaced[:1], replaced[1:]))
    for table, old in found.items():
        making, dropping = [*triggers.creating(table, old)], [*triggers.dropping(table)]
        operations.ops.insert(0, LogChanges(table, dropping, making))  # before the table
    return PriorityDispatchResult.CONTINUE


@renderers.dispatch_for(LogChanges)
def render(_: AutogenContext, operation: LogChanges) -> list[str]:
    """The statements as the text of a migration."""
    return [f'op.execute("""{statement}""")' for statement in operation.statements]


def include_name(name: str | None, kind: str, _: Any) -> bool:
    """Whether Alembic compares an object of the database. Partitions come and go."""
    return not (kind == "table" and str(name).startswith("events_"))
