"""The base of all models: naming of constraints, column types, ids, the CRUD operations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Self
from uuid import UUID

import uuid_utils.compat
from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    ColumnElement,
    DateTime,
    Dialect,
    Enum,
    Index,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    collate,
    func,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column, relationship
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.sql import operators

from db.errors import NotFound
from db.parameters import Deferred, apply, bind
from db.text import canonical_json, composed

NAMING = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}


UNLOGGED = {"logged": False}
"""The `info` of a column, or of a table, whose changes are not part of the event log."""

LOGGED = {"logged": True}
"""The `info` of a column that is logged although its name is like that of a secret."""


class Timestamp(TypeDecorator[datetime]):
    """A TIMESTAMP WITH TIME ZONE that refuses a naive datetime."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Raise ValueError for a datetime without a time zone."""
        if value is not None and value.tzinfo is None:
            raise ValueError(
                f"{value.isoformat()} has no time zone; write 2026-11-22T01:06:34+00:00."
            )
        return value


def new_id() -> UUID:
    """A version 7 UUID (RFC 9562): later ids sort after earlier ones."""
    return uuid_utils.compat.uuid7()


def snake_case(name: str) -> str:
    """The name of a class in snake case: AIModel becomes ai_model."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


class Name(String):
    """A unique name, stored as written, and compared without regard to case and Unicode form."""

    cache_ok = True

    class comparator_factory(String.Comparator[str]):
        """Compares names by the database's function `folded`."""

        def operate(self, op: Any, *other: Any, **options: Any) -> ColumnElement[Any]:
            """Fold both sides of a comparison for equality."""
            if op in (operators.eq, operators.ne, operators.is_distinct_from):
                return op(func.folded(self.expr), func.folded(*other))  # type: ignore[no-any-return]
            return super().operate(op, *other, **options)


class Composed(TypeDecorator[str]):
    """A text in composed form (NFC), both when it is stored and when it is compared with."""

    impl = String
    cache_ok = True

    @property
    def python_type(self) -> type[str]:
        """The Python type of its values, which SQLAlchemy's TypeDecorator does not provide."""
        return str

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Compose the text; keyboards and file systems may produce decomposed ones."""
        return None if value is None else composed(value)


def choice(enum: type[StrEnum], *, has_check: bool = True, length: int = 32) -> Enum:
    """The column type of an enum: a VARCHAR of the members' values, with a named CHECK."""
    return Enum(
        enum,
        name=snake_case(enum.__name__),
        native_enum=False,
        create_constraint=has_check,
        length=length,
        values_callable=lambda members: [member.value for member in members],
    )


def constant(member: StrEnum) -> ColumnElement[Any]:
    """A member of an enum as a constant, not as a parameter: a partial index needs that."""
    return literal_column(f"'{member}'", choice(type(member)))


def defaulted(value: bool | int | StrEnum, **options: Any) -> MappedColumn[Any]:
    """A column with the same default in Python and in the database; `choice` of an enum."""
    if isinstance(value, StrEnum):
        return mapped_column(choice(type(value)), default=value, server_default=value, **options)
    return mapped_column(default=value, server_default=text(str(value).lower()), **options)


ShortText = Annotated[str, mapped_column(String(255))]
UniqueName = Annotated[str, mapped_column(Name(255))]
ComposedName = Annotated[str, mapped_column(Composed(255))]
LongText = Annotated[str, mapped_column(Text)]
Metadata = Annotated[
    dict[str, Any],
    mapped_column(
        JSONB,
        default=dict,
        server_default=text("'{}'::jsonb"),
        doc="Any other data that clients store with it.",
    ),
]
Priority = Annotated[
    int,
    defaulted(3, doc="From 1 to 5; 5 is the most urgent."),
]
Version = Annotated[
    int,
    mapped_column(
        server_default=text("1"),
        doc="Incremented by every change; send it as expectedVersion.",
    ),
]


def check(sql: str, name: str, words: str, *path: str) -> CheckConstraint:
    """A CHECK constraint, with the message for a violation and the path to the column."""
    return CheckConstraint(sql, name=name, info={"words": words, "path": path})


def choices(enum: type[StrEnum]) -> ARRAY[Any]:
    """The column type of a list of an enum's members; `all_of` makes its CHECK."""
    return ARRAY(choice(enum, has_check=False, length=100))


def all_of(column: str, enum: type[StrEnum]) -> CheckConstraint:
    """The CHECK that every item of a list is a member of an enum."""
    members = ", ".join(f"'{member.value}'" for member in enum)
    listed = ", ".join(member.value for member in enum)
    words = f"Each of the {column.replace('_', ' ')} is one of {listed}."
    return check(f"{column} <@ ARRAY[{members}]::varchar[]", column, words, column)


def where_set(column: str, *others: str) -> Index:
    """An index by a nullable foreign key, and then by others, of the rows that have the key.

    The rows without it are not written to it.
    """
    return Index(None, column, *others, postgresql_where=text(f"{column} IS NOT NULL"))


class Base(DeclarativeBase):
    """The base of association tables, and of all models through CRUD."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {datetime: Timestamp}

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "__tablename__" not in cls.__dict__:
            return
        # PostgreSQL's 'infinity' has no counterpart in Python or GraphQL.
        for column in cls.__table__.columns:
            if isinstance(column.type, Timestamp):
                finite = check(
                    f"isfinite({column.name})",
                    f"{column.name}_finite",
                    "A time lies between the years 1 and 9999; it cannot be infinite.",
                    column.name,
                )
                cls.__table__.append_constraint(finite)  # type: ignore[attr-defined]


def to_one(back: str, doc: str, **options: Any) -> Any:
    """A relationship to the row that a foreign key names; `back` is the one at its other end."""
    return relationship(back_populates=back, lazy="raise", doc=doc, **options)


def to_many(back: str, doc: str, **options: Any) -> Any:
    """A relationship to the rows that name this one, and outlive it."""
    return to_one(back, doc, passive_deletes=True, **options)


def children(back: str, doc: str, **options: Any) -> Any:
    """A relationship to the rows that name this one, and are deleted with it."""
    return to_many(back, doc, cascade="all, delete-orphan", **options)


class CRUD(Base):
    """The base of entities: an id, two timestamps, and the standard operations.

    Every operation takes the caller's session and flushes; only the caller commits.
    """

    __abstract__ = True

    id: Mapped[UUID] = mapped_column(
        primary_key=True,
        default=new_id,
        server_default=func.gen_random_uuid(),
        sort_order=-3,
        doc="The globally unique id.",
    )
    created_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), sort_order=-2, doc="When it was created."
    )
    updated_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), onupdate=func.now(), sort_order=-1, doc="When it last changed."
    )

    @classmethod
    async def create(cls, session: AsyncSession, **values: Any) -> Self:
        """Add a row with these values."""
        row = cls(**values)
        session.add(row)
        await session.flush()
        return row

    @classmethod
    async def get(cls, session: AsyncSession, id: UUID, *, for_update: bool = False) -> Self:
        """The row with this id, locked until the transaction ends if `for_update`.

        The lock (FOR NO KEY UPDATE) blocks writers of this row, but not inserts of rows that
        refer to it. Raises NotFound.
        """
        lock: Any = {"key_share": True} if for_update else None
        row = await session.get(cls, id, with_for_update=lock)
        if row is None:
            raise NotFound(cls, id)
        return row

    @classmethod
    async def list(
        cls, session: AsyncSession, *where: ColumnElement[bool], limit: int = 100
    ) -> Sequence[Self]:
        """The first `limit` rows that meet all conditions, in the order of their ids."""
        rows = await session.scalars(select(cls).where(*where).order_by(cls.id).limit(limit))
        return rows.all()

    async def update(self, session: AsyncSession, **values: Any) -> Self:
        """Set these values on the row."""
        self.change(**values)
        await session.flush()
        return self

    def change(self, **values: Any) -> None:
        """Set these values on the row; the next flush writes them."""
        columns = inspect(type(self)).columns
        for name, value in values.items():
            if name in columns and isinstance(columns[name].type, JSONB):
                # To Python, and so to the ORM, 1, 1.0 and True are equal.
                before = getattr(self, name)
                if before == value and canonical_json(before) != canonical_json(value):
                    flag_modified(self, name)
            setattr(self, name, value)

    async def delete(self, session: AsyncSession) -> None:
        """Delete the row; the database cascades to others."""
        await session.delete(self)
        await session.flush()


def any_of(column: Any, values: Iterable[Any] | Deferred) -> ColumnElement[bool]:
    """Whether a column has one of these values, which are sent as one array parameter.

    An IN list has a parameter for each value: slow to bind, and another statement for each length.
    """
    kind: Any = column.type
    listed: Callable[[Any], list[Any]] = list
    if isinstance(kind, Enum):
        # An array of VARCHAR: an array of Enum would send the members' names.
        kind, listed = String(), _values
    wanted: Any = bind(apply(listed, values), ARRAY(kind))
    if isinstance(kind, Name):
        folded = select(func.folded(func.unnest(wanted))).scalar_subquery()
        wanted = func.array(folded)
        return func.folded(column).op("=", is_comparison=True)(func.any(wanted))
    return column == func.any(wanted)  # type: ignore[no-any-return]


UNICODE = "unicode_case"
"""The collation, made by a migration, that maps the case of all letters in every locale."""


def uppercase(text: Any) -> ColumnElement[str]:
    """A text in upper case, to compare texts without regard to case.

    Not in lower case, where a Greek sigma at the end of a word has a form of its own.
    """
    return func.upper(collate(text, UNICODE))


def _values(members: Iterable[Any]) -> list[Any]:
    return [member.value for member in members]


def with_defaults(model: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a new row, and the Python defaults of the columns that have none."""
    constants, callables = _defaults(model.__table__)
    row = {**constants, **values}
    for name, default in callables.items():
        if name not in row:
            row[name] = default(None)
    return row


@cache
def _defaults(table: Table) -> tuple[dict[str, Any], dict[str, Callable[[Any], Any]]]:
    """The Python defaults of a table's columns: those that are constants, and the others."""
    found: dict[str, Any] = {column.name: column.default for column in table.columns}
    defaults = {name: each for name, each in found.items() if each is not None}
    constants = {name: each.arg for name, each in defaults.items() if each.is_scalar}
    return constants, {name: each.arg for name, each in defaults.items() if each.is_callable}


@cache
def nulls(model: Any) -> dict[str, None]:
    """NULL for each column of a model that is NULL unless it is set."""
    columns = model.__table__.columns
    return {
        column.name: None
        for column in columns
        if column.nullable
        and column.default is None
        and column.server_default is None
        and column.computed is None
    }
