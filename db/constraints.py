"""From the name of a database constraint that was broken to an error for the reader of the API.

Rules are checked in code first, where the place in the input is known; this is for what only the
database can know, such as two writers who take the same name at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Enum,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError

from db.base import Base
from db.errors import AlreadyExists, DomainError, Invalid


def rules_of(table: Table) -> list[Any]:
    """What a row of a table can break: the constraints, and the indexes that see to uniqueness."""
    return [*table.constraints, *(index for index in table.indexes if index.unique)]


def _sentence(constraint: object, columns: list[str], is_deletion: bool) -> DomainError | None:
    names = " and ".join(column.replace("_", " ") for column in columns)
    match constraint:
        case PrimaryKeyConstraint() | UniqueConstraint() | Index():
            return AlreadyExists(f"There is already one with this {names}.", columns[-1:])
        case ForeignKeyConstraint() if is_deletion:
            users = constraint.table.name.replace("_", " ")
            return Invalid(f"There are {users} of this; it cannot be deleted.", ("id",))
        case ForeignKeyConstraint():
            return Invalid(f"There is nothing with this {names}.", columns[:1])
        case CheckConstraint():
            told = constraint.info or _of_a_choice(constraint)
            return Invalid(told["words"], told["path"])
    return None


def _of_a_choice(constraint: CheckConstraint) -> dict[str, Any]:
    """The words for a rule that SQLAlchemy makes of an enum."""
    for column in constraint.table.columns:
        kind = column.type
        name = f"ck_{constraint.table.name}_{getattr(kind, 'name', None)}"
        if isinstance(kind, Enum) and constraint.name == name:
            return {
                "words": f"This must be one of {', '.join(kind.enums)}.",
                "path": (column.name,),
            }
    raise LookupError(f"{constraint.name} has no words; make it by db.base.check.")


def broken(error: IntegrityError) -> DomainError | None:
    """What the violation means to a client, none if no constraint of ours is named."""
    cause = getattr(error.orig, "__cause__", None)
    name = getattr(cause, "constraint_name", None)
    for table in Base.metadata.tables.values():
        for constraint in rules_of(table):
            if constraint.name == name:
                columns = [column.name for column in getattr(constraint, "columns", ())]
                # Only a key that restricts deletions is broken by one.
                is_deletion = str(error.statement).startswith("DELETE")
                return _sentence(constraint, columns, is_deletion)
    return None


@contextmanager
def reported() -> Iterator[None]:
    """Raise what a violated constraint means in place of the database's own error."""
    try:
        yield
    except IntegrityError as error:
        raise broken(error) or error from error
    except StaleDataError as error:
        raise Invalid("What this changes has been deleted meanwhile.") from error
