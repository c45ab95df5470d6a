"""The declaration of an entity: its model, its columns, and its descriptions."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Annotated, Any, TypeVar

import sqlalchemy
import strawberry
from sqlalchemy.orm import InstrumentedAttribute, QueryableAttribute

from db import Base
from graph.core import json_text
from graph.core.declarations import Declared, LoadSpec, StatementBuilder
from graph.core.json_text import Json, Piece, Uncompilable, or_null, piece, scalar, string
from graph.core.scalars import global_id
from graph.core.selections import Selected

Type = TypeVar("Type", bound=type)


@dataclass(frozen=True)
class Entity:
    """A model, and the GraphQL type that shows it."""

    model: Any
    graphql_type: type
    where: type | None
    order: type[Enum] | None

    @property
    def name(self) -> str:
        """The name of the type, which is the name of the model."""
        return self.graphql_type.__name__

    @property
    def mapper(self) -> Any:
        """The mapper of its model."""
        return sqlalchemy.inspect(self.model)

    @property
    def is_interface(self) -> bool:
        """Whether its model has subtypes in its table, each with a type of its own."""
        return not self.is_subtype and self.mapper.polymorphic_on is not None

    @property
    def is_subtype(self) -> bool:
        """Whether its model is a subtype in the table of another model."""
        return bool(self.mapper.inherits)

    @cached_property
    def kinds(self) -> list[Entity]:
        """The entities of its subtypes; without subtypes, itself."""
        if not self.is_interface:
            return [self]
        _, *subtypes = self.mapper.self_and_descendants
        return [entity_of(kind.class_) for kind in subtypes]

    def below(self, selected: Selected) -> Iterator[Selected]:
        """The fields that are selected of its rows, below a field that returns them."""
        for kind in self.kinds:
            yield from selected.children.get(kind.name, ())

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        """The JSON value of a row, given as an alias of the model, by its subtype."""
        if not self.is_interface:
            return builder.object(selected.children[self.name], row)
        subtype = getattr(row, self.mapper.polymorphic_on.key)
        every: list[Piece] = []
        cases = []
        for kind in self.kinds:
            json = kind.sql(builder, selected, getattr(row, kind.model.__name__))
            cases.append((subtype == kind.mapper.polymorphic_identity, builder.text(json)))
            every += json
        return (piece(sqlalchemy.case(*cases), of=tuple(every)),)

    @cached_property
    def keys(self) -> list[InstrumentedAttribute[Any]]:
        """The attributes of the primary key: one, or two of an association."""
        properties = map(self.mapper.get_property_by_column, self.mapper.primary_key)
        return [getattr(self.model, each.key) for each in properties]

    @property
    def key(self) -> InstrumentedAttribute[Any]:
        """The attribute that is the primary key; of an association, its first part."""
        return self.keys[0]


def lazy(model: type, suffix: str = "") -> Any:
    """The type of a model, or its filter, which is imported when it is needed.

    It is in the module of `graph` with the name of the model's module in `db`. So slices refer to
    each other without importing each other.
    """
    module = model.__module__.replace("db.", "graph.", 1)
    return Annotated[f"{model.__name__}{suffix}", strawberry.lazy(module)]


_entities: dict[type, Entity] = {}


def entity_of(model: type) -> Entity:
    """The entity of a model."""
    return _entities[model]


def entities() -> list[Entity]:
    """All entities, in the order of their declaration."""
    return list(_entities.values())


class Column(Declared):
    """A column, a column property or a hybrid property of the model."""

    def __init__(self, attribute: QueryableAttribute[Any], **options: Any) -> None:
        super().__init__(**options)
        self.attribute = attribute
        self.key = attribute.key

    @cached_property
    def mapped(self) -> Any:
        """The mapped column or column property; None for a hybrid property."""
        return sqlalchemy.inspect(self.attribute.class_).column_attrs.get(self.key)

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        if self.mapped is not None:
            spec.columns.add(self.key)
        else:  # a hybrid property may read any column
            spec.columns.update(sqlalchemy.inspect(self.attribute.class_).column_attrs.keys())

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return getattr(source, self.key)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        is_nullable = self.mapped is None or getattr(self.mapped.columns[0], "nullable", True)
        value = getattr(row, self.key)
        if not hasattr(value, "type"):  # a hybrid that is Python alone
            raise Uncompilable(self.key)
        return scalar(value, is_nullable=is_nullable)


class Id(Column):
    """The global id of an object."""

    type_name: str

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return global_id(self.type_name, getattr(source, self.key))

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        return string(json_text.global_id(self.type_name, getattr(row, self.key)))


class Key(Column):
    """The id of another object, of which the row has the key.

    The type of the object is given by its name, or by another column: then `types` has the names
    for those values of that column that are not the name itself.
    """

    def __init__(
        self,
        attribute: QueryableAttribute[Any],
        of: str | QueryableAttribute[Any],
        types: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(attribute)
        self.of = of
        self.types = types or {}

    @property
    def annotation(self) -> Any:
        return strawberry.ID | None if self.mapped.columns[0].nullable else strawberry.ID

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        super().add_loads(selected, spec)
        if not isinstance(self.of, str):
            spec.columns.add(self.of.key)

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        key = getattr(source, self.key)
        if key is None:
            return None
        name = self.of if isinstance(self.of, str) else getattr(source, self.of.key)
        return global_id(self.types.get(name, name), key)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        name: Any = self.of
        if not isinstance(name, str):
            value = sqlalchemy.type_coerce(getattr(row, name.key), sqlalchemy.Text)
            cases = [
                (value == json_text.constant(key), json_text.constant(named))
                for key, named in self.types.items()
            ]
            name = sqlalchemy.case(*cases, else_=value) if cases else value
        return or_null(string(json_text.global_id(name, getattr(row, self.key))))


def key(
    attribute: Any, of: str | QueryableAttribute[Any], types: Mapping[str, str] | None = None
) -> Any:
    """The id of another object, whose key is in a column that is no foreign key."""
    return Key(attribute, of, types)


def column(attribute: Any, description: str | None = None) -> Any:
    """A field of a column that has another name."""
    return Column(attribute, description=description)


THE_ID = "The id of the object, unique everywhere."


@strawberry.interface(description="An object that can be fetched again by its id.")
class Node:
    id: strawberry.ID = strawberry.field(description=THE_ID)


def entity(
    model: type, *, where: type | None = None, order: type[Enum] | None = None
) -> Callable[[Type], Type]:
    """Declare the type of a model.

    A bare annotation is the column of that name. `column`, `related`, `listed` and `connected`
    declare other fields; the type of a relation follows from its model. Any other field is an
    ordinary field of Strawberry. All connections of the entity have the filter `where` and the
    order `order`; without an order, they are sorted by the primary key. The type of a model with
    subtypes in its table is an interface, and the type of each subtype inherits it.
    """

    def declare(cls: Type) -> Type:
        declared = Entity(model, cls, where, order)
        _entities[model] = declared
        if issubclass(cls, Node) and not declared.is_subtype:
            cls.__annotations__ = {"id": strawberry.ID} | cls.__annotations__
            field = Id(declared.key, description=THE_ID)
            field.type_name = cls.__name__
            setattr(cls, "id", field)  # noqa: B010 - mypy sees the annotation's type
        for name in cls.__annotations__:
            if name not in vars(cls):
                setattr(cls, name, Column(getattr(model, name)))
        for name, field in vars(cls).items():
            if isinstance(field, Declared):
                doc = doc_of(getattr(field, "attribute", None))
                field.description = field.description or (doc and clean(doc))
                if name not in cls.__annotations__:
                    cls.__annotations__[name] = field.annotation
        if declared.is_interface:
            return strawberry.interface(cls, description=clean(model.__doc__ or ""))
        cls.is_type_of = lambda row, info: isinstance(row, model)  # type: ignore[attr-defined]
        return strawberry.type(cls, description=clean(model.__doc__ or ""))

    return declare


def doc_of(attribute: Any) -> str | None:
    """The documentation of a column or a relationship in the model.

    A foreign key without one gets it from its relationship.
    """
    prop: Any = getattr(attribute, "property", None)
    doc: str | None = getattr(prop, "doc", None)
    if prop is None and isinstance(attribute, QueryableAttribute):
        doc = attribute.__doc__  # of a hybrid property
    if doc is None and prop is not None:
        for relation in prop.parent.relationships:
            if prop.columns[0] in relation.local_columns and not relation.uselist:
                what = relation.doc.split(";")[0].rstrip(".")
                return f"The id of {what[0].lower()}{what[1:]}."
    return doc


def clean(doc: str) -> str:
    """A docstring with each paragraph on one line, as a description in the schema."""
    paragraphs = inspect.cleandoc(doc).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def describe_enum(enum: type[Enum]) -> None:
    """Add an enum to the schema, with its docstring and those under its members as descriptions.

    Python does not store the docstring of a member, so it is read from the source.
    """
    if hasattr(enum, "__strawberry_definition__"):
        return
    body = ast.parse(textwrap.dedent(inspect.getsource(enum))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.targets[0].id] = clean(str(following.value.value))
    strawberry.enum(enum, description=clean(enum.__doc__ or ""))
    for value in enum.__strawberry_definition__.values:  # type: ignore[attr-defined]
        value.description = docs.get(value.name)


for _mapper in Base.registry.mappers:
    for _column in _mapper.columns:
        # The enum of an array is the enum of its items.
        _type = getattr(_column.type, "item_type", _column.type)
        if isinstance(_type, sqlalchemy.Enum) and _type.enum_class is not None:
            describe_enum(_type.enum_class)
