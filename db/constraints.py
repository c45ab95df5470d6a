"""Violated constraints of the database as errors for the client.

Code checks the rules first, because it knows the path in the input. This is for what only the
database can check, such as two transactions that use the same unique name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asyncpg import IntegrityConstraintViolationError
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
from db.connections import driver_error
from db.errors import AlreadyExists, DomainError, Invalid, with_article


def rules_of(table: Table) -> list[Any]:
    """The constraints and unique indexes of a table."""
    return [*table.constraints, *(index for index in table.indexes if index.unique)]


def _error(constraint: object, columns: list[str], is_deletion: bool) -> DomainError | None:
    names = " and ".join(column.replace("_", " ") for column in columns)
    match constraint:
        case PrimaryKeyConstraint() | UniqueConstraint() | Index():
            return AlreadyExists(
                f"There is already {_noun(constraint.table)} with this {names}.", columns[-1:]
            )
        case ForeignKeyConstraint() if is_deletion:
            users = constraint.table.name.replace("_", " ")
            return Invalid(f"There are {users} of this; it cannot be deleted.", ("id",))
        case ForeignKeyConstraint():
            return Invalid(f"There is nothing with this {names}.", columns[:1])
        case CheckConstraint():
            info = constraint.info or _enum_info(constraint)
            return Invalid(info["words"], info["path"])
    return None


def _noun(table: Table | None) -> str:
    """The name of the model of a table, with its article; "a row" if it has none."""
    for mapper in Base.registry.mappers:
        if mapper.local_table is table:
            return with_article(mapper.base_mapper.class_.__name__)
    return "a row"


def _enum_info(constraint: CheckConstraint) -> dict[str, Any]:
    """The message for the CHECK that SQLAlchemy makes for an enum."""
    for column in constraint.table.columns:
        kind = column.type
        name = f"ck_{constraint.table.name}_{getattr(kind, 'name', None)}"
        if isinstance(kind, Enum) and constraint.name == name:
            return {
                "words": f"This must be one of {', '.join(kind.enums)}.",
                "path": (column.name,),
            }
    raise LookupError(f"{constraint.name} has no message; make it with db.base.check.")


def violation(error: IntegrityError | IntegrityConstraintViolationError) -> DomainError | None:
    """The violation as an error for the client; None if the constraint is not one of the models."""
    name = getattr(driver_error(error), "constraint_name", None)
    for table in Base.metadata.tables.values():
        for constraint in rules_of(table):
            if constraint.name == name:
                columns = [column.name for column in getattr(constraint, "columns", ())]
                # A DELETE violates only foreign keys with ON DELETE RESTRICT.
                is_deletion = str(getattr(error, "statement", "")).startswith("DELETE")
                return _error(constraint, columns, is_deletion)
    return None


@contextmanager
def reported() -> Iterator[None]:
    """Raise a violated constraint as an error for the client."""
    try:
        yield
    except (IntegrityError, IntegrityConstraintViolationError) as error:
        raise violation(error) or error from error
    except StaleDataError as error:
        raise Invalid("What this changes has been deleted meanwhile.") from error
