"""What holds for every model, every table and everything in the schema, those to come included."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import graphql
import grimp
import pytest
import sqlalchemy
from sqlalchemy import (
    JSON,
    Boolean,
    DateTime,
    Enum,
    Float,
    ForeignKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.orm import Mapper, RelationshipProperty

import db
import graph
from db import errors, scopes
from db.base import Timestamp
from graph.core.computed import Computed
from graph.core.entities import Column, Entity, Node, entities, lazy
from graph.core.fields import Connected, EntityField, Listed, Referred, Related
from graph.core.inputs import MODELS as INPUTS
from graph.core.rights import rights_of
from graph.core.selections import BACKREF
from graph.core.user_errors import USER_ERRORS
from graph.schema import SLICES, graphql_schema, schema
from tests.world import stored

MODELS: list[Mapper[Any]] = sorted(db.Base.registry.mappers, key=lambda mapper: str(mapper))
TABLES: list[Table] = [
    table
    for table in db.Base.metadata.sorted_tables
    if any(mapper.local_table is table for mapper in db.Base.registry.mappers)
]
RELATIONS = [relation for mapper in MODELS for relation in mapper.relationships]
# The tables of the event log, whose rows are numbered, and are no entities.
LOG = {"events", "event_positions"}
COLUMNS: list[Any] = [column for table in TABLES for column in table.columns]
SCHEMA = graphql_schema
# Hashes of what everybody who sees the row may read: they prove, and open nothing.
PROOFS = {"definitionHash", "contentHash"}
# What makes a secret returns it once; nothing else does.
MAKING_SECRETS = {"createWebhook", "rotateWebhookSecret"}
# What graphql-core itself brings along is not ours to describe.
TYPES = [
    kind
    for name, kind in SCHEMA.type_map.items()
    if not name.startswith("__") and kind not in graphql.specified_scalar_types.values()
]


def is_association(mapper: Mapper[Any]) -> bool:
    """Whether the key of a model consists of foreign keys: it ties entities, and is none."""
    return all(column.foreign_keys for column in mapper.primary_key)


def key_of(relation: RelationshipProperty[Any]) -> ForeignKeyConstraint:
    """The foreign key that a relationship follows, from either end."""
    ((local, remote),) = relation.local_remote_pairs or ()
    column = remote if relation.uselist else local
    (key,) = column.foreign_keys
    assert key.constraint is not None
    return key.constraint


def fields_of(entity: Entity) -> list[Any]:
    """The fields of the type that shows an entity."""
    definition = entity.graphql_type.__strawberry_definition__  # type: ignore[attr-defined]
    return list(definition.fields)


def indexes(table: Table, *where: str) -> Iterator[list[str]]:
    """The columns of each index of a table with all rows, or those with one of the conditions.

    A search for a value finds only rows that have one, so an index of these rows serves it.
    """
    for index in table.indexes:
        condition = index.dialect_kwargs.get("postgresql_where")
        if condition is None or str(condition) in where:
            yield [
                p.name if isinstance(p, sqlalchemy.Column) else str(p) for p in index.expressions
            ]
    yield [column.name for column in table.primary_key]
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield [column.name for column in constraint.columns]


@pytest.mark.parametrize("relation", RELATIONS, ids=str)
def test_a_relationship_is_never_loaded_by_itself_and_known_at_both_ends(
    relation: RelationshipProperty[Any],
) -> None:
    assert relation.lazy == "raise"
    assert relation.back_populates is not None
    back = relation.mapper.relationships[relation.back_populates]
    assert (back.back_populates, back.mapper) == (relation.key, relation.parent)
    assert relation.doc


@pytest.mark.parametrize("relation", [r for r in RELATIONS if r.uselist], ids=str)
def test_the_orm_deletes_what_the_database_deletes(relation: RelationshipProperty[Any]) -> None:
    assert relation.passive_deletes
    if key_of(relation).ondelete == "CASCADE":
        assert {"delete", "delete-orphan"} <= set(relation.cascade)
    else:
        assert set(relation.cascade) == {"save-update", "merge"}


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_a_foreign_key_says_what_a_deletion_does_and_is_indexed(table: Table) -> None:
    for key in table.foreign_key_constraints:
        ((column, _),) = ((element.parent, element.column) for element in key.elements)
        assert key.ondelete in ("CASCADE", "SET NULL", "RESTRICT"), key.name
        assert column.nullable or key.ondelete != "SET NULL", key.name
        found = indexes(table, f"{column.name} IS NOT NULL")
        assert any(names[0] == column.name for names in found), key.name


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_the_name_of_a_table_is_written_out_and_plural(table: Table) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*(s|ies)", table.name)
    named: Any
    for named in (*table.constraints, *table.indexes):
        assert re.fullmatch(rf"(pk|fk|uq|ck|ix)_{table.name}\w*", str(named.name))
        assert len(str(named.name)) <= 63, named.name


@pytest.mark.parametrize("table", TABLES, ids=str)
def test_every_column_has_a_type_of_the_conventions(table: Table) -> None:
    for column in table.columns:
        check_type(column)


def is_of_a_subtype(column: Any) -> bool:
    """Whether only the rows of a subtype have a column, of all that share its table."""
    if not isinstance(column, sqlalchemy.Column):
        return False
    return column.table.name not in LOG and not any(
        column in mapper.columns.values()
        for mapper in MODELS
        if mapper.local_table is column.table and mapper.inherits is None
    )


def check_type(column: Any) -> None:
    """Hold a column against the conventions."""
    kind = column.type
    assert not isinstance(kind, Float)
    if isinstance(kind, DateTime):
        raise AssertionError("a moment is a Timestamp, which refuses one without a time zone")
    # A subtype's own columns are empty in the rows of others, and so is their default.
    if isinstance(kind, Boolean) and not is_of_a_subtype(column):
        assert not column.nullable
        assert column.default is not None
        assert column.server_default is not None
    if isinstance(kind, Enum):
        assert (kind.native_enum, kind.create_constraint) == (False, True)
        assert kind.enums == [member.value for member in kind.enum_class or ()]
    elif isinstance(kind, String) and type(kind) is String:
        assert kind.length is not None
    # What a row is there to say has no default.
    if isinstance(kind, JSON) and not column.nullable and column.name != "content":
        assert column.server_default is not None
    if is_of_a_subtype(column):
        assert column.nullable
        assert column.default is column.server_default is None
    if column.table.name not in LOG and (column.primary_key or column.foreign_keys):
        keys = {str(column), *(str(key.column) for key in column.foreign_keys)}
        assert isinstance(kind, Uuid) != ("ai_models.id" in keys)


def test_every_boolean_has_both_defaults_but_for_those_of_a_subtype() -> None:
    without = {
        str(column)
        for column in COLUMNS
        if isinstance(column.type, Boolean) and None in (column.default, column.server_default)
    }

    # In the rows of other subtypes a default would stand where a CHECK wants nothing.
    of_subtypes = {str(column) for column in COLUMNS if is_of_a_subtype(column)}
    assert without >= {"human_interactions.approved"}
    assert without <= of_subtypes


@pytest.mark.parametrize("mapper", MODELS, ids=str)
def test_an_entity_has_an_id_and_two_times_and_a_version_that_counts(mapper: Mapper[Any]) -> None:
    columns = mapper.local_table.columns
    if is_association(mapper) or mapper.class_ is db.Event:
        assert not issubclass(mapper.class_, db.CRUD)
        return
    assert issubclass(mapper.class_, db.CRUD)
    assert [column.name for column in mapper.primary_key] == ["id"]
    for name in ("created_at", "updated_at"):
        assert isinstance(columns[name].type, Timestamp)
        assert not columns[name].nullable
        assert columns[name].server_default is not None
    assert columns["updated_at"].onupdate is not None
    assert columns.get("version") is mapper.version_id_col


@pytest.mark.parametrize("mapper", MODELS, ids=str)
def test_a_model_is_described_handed_on_and_ruled(mapper: Mapper[Any]) -> None:
    model = mapper.class_
    assert (model.__doc__ or "").rstrip().endswith(".")
    assert getattr(db, model.__name__) is model
    # A subtype is seen by whoever sees its base, and has no rule of its own to forget.
    ruled = scopes.rules.keys() | scopes.parents
    assert mapper.base_mapper.class_.__name__ in ruled
    assert mapper.inherits is None or model.__name__ not in ruled
    assert mapper.class_ in {entity.model for entity in entities()}


async def test_an_enum_equals_its_check_in_the_database(database: db.Database) -> None:
    query = (
        "SELECT conrelid::regclass::text || '.' || conname, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE contype = 'c'"
    )
    checks = dict(await stored(database, query))
    enums = [column for column in COLUMNS if isinstance(column.type, Enum)]

    assert len(enums) >= 9
    for column in enums:
        check = checks[f"{column.table.name}.ck_{column.table.name}_{column.type.name}"]
        assert re.findall(r"'(\w+)'", check) == column.type.enums
        assert f"({column.name})" in check


async def test_a_list_of_choices_has_its_check_in_the_database(database: db.Database) -> None:
    query = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = :name"
    lists = [column for column in COLUMNS if isinstance(getattr(column.type, "item_type", 0), Enum)]

    assert "access_tokens.scopes" in map(str, lists)
    for column in lists:
        (check,) = await stored(database, query, name=f"ck_{column.table.name}_{column.name}")
        assert re.findall(r"'(\w+)'", check) == column.type.item_type.enums
        assert f"({column.name}" in check


async def test_every_moment_in_the_database_is_finite(database: db.Database) -> None:
    query = (
        "SELECT table_name, column_name, pg_get_constraintdef(c.oid)"
        " FROM information_schema.columns"
        " LEFT JOIN pg_constraint c ON conrelid = table_name::regclass"
        " AND conname = format('ck_%s_%s_finite', table_name, column_name)"
        " WHERE table_schema = 'public' AND data_type LIKE 'timestamp%'"
        " AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = table_name::regclass)"
    )
    found = await stored(database, query)

    assert len(found) >= 20
    for table, column, check in found:
        assert (check or "").replace('"', "") == f"CHECK (isfinite({column}))", table


def test_everything_in_the_schema_is_described() -> None:
    def parts(kind: Any) -> Iterator[tuple[str, Any]]:
        yield kind.name, kind
        fields = getattr(kind, "fields", None) or {}
        for name, field in fields.items():
            yield f"{kind.name}.{name}", field
            for argument, value in getattr(field, "args", {}).items():
                yield f"{kind.name}.{name}({argument}:)", value
        for name, value in getattr(kind, "values", {}).items():
            yield f"{kind.name}.{name}", value

    described = {name: part.description for kind in TYPES for name, part in parts(kind)}

    assert len(described) > 500
    assert [name for name, words in described.items() if not (words or "").strip()] == []
    assert [name for name, words in described.items() if words[-1] not in ".;:`…)"] == []


def test_no_secret_and_no_inexact_number_is_in_the_schema() -> None:
    shown = [
        (kind.name, name)
        for kind in TYPES
        if isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType)
        for name in kind.fields
    ]

    once = {(f"{name[0].upper()}{name[1:]}Payload", "secret") for name in MAKING_SECRETS}
    assert once <= set(shown)
    secret = {name for _, name in set(shown) - once if re.search("(?i)password|hash|secret", name)}
    assert secret == PROOFS | {"changePassword", "setPassword", "rotateWebhookSecret"}
    assert "Float" not in SCHEMA.type_map


def test_no_default_is_an_object_of_a_scalar() -> None:
    # The JavaScript reference implementation cannot print one: a client that takes the schema
    # from introspection, and prints it or shows it, fails on that.
    defaults = {
        f"{kind.name}.{name}": value.default_value
        for kind in TYPES
        if isinstance(kind, graphql.GraphQLInputObjectType)
        for name, value in kind.fields.items()
        if isinstance(graphql.get_named_type(value.type), graphql.GraphQLScalarType)
    }

    assert len(defaults) > 50
    assert [name for name, value in defaults.items() if isinstance(value, dict)] == []


def test_an_argument_that_can_be_left_out_can_be_null() -> None:
    # GraphiQL's explorer, and people, take what cannot be null for what must be given.
    arguments = {
        f"{kind.name}.{name}({key}:)": argument
        for kind in TYPES
        if isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType)
        for name, field in kind.fields.items()
        for key, argument in field.args.items()
    }

    assert len(arguments) > 200
    for name, argument in arguments.items():
        if graphql.is_non_null_type(argument.type):
            assert graphql.is_required_argument(argument), name
        is_given = argument.default_value is graphql.Undefined
        assert is_given is not name.endswith("(orderBy:)"), name


@pytest.mark.parametrize("entity", entities(), ids=lambda entity: entity.name)
def test_a_field_can_be_null_where_there_may_be_nothing(entity: Entity) -> None:
    shown: Any = SCHEMA.type_map[entity.name]
    columns = sqlalchemy.inspect(entity.model).columns
    for field in fields_of(entity):
        name = schema.config.name_converter.get_graphql_name(field)
        is_certain = graphql.is_non_null_type(shown.fields[name].type)
        if isinstance(field, Column):
            column = columns.get(field.key)
            if not isinstance(column, sqlalchemy.Column):
                continue  # an expression decides itself whether it can be null
            # In the table, the rows of other subtypes have none; the model says what its own have.
            declared = str(entity.model.__annotations__.get(field.key))
            # What is computed can be null, except a condition.
            can_be = getattr(column, "nullable", not isinstance(column.type, Boolean))
            nullable = "None" in declared if is_of_a_subtype(column) else can_be
            # An event without a position is seen by nobody.
            nullable = nullable and column is not db.Event.__table__.c.position
            assert is_certain is not nullable, name
        elif isinstance(field, Related) and not isinstance(field, Listed):
            assert is_certain is scopes.is_always_visible(field.attribute), name
        elif isinstance(field, EntityField):
            assert is_certain is not isinstance(field, Referred), name


@pytest.mark.parametrize("entity", [e for e in entities() if e.order], ids=lambda e: e.name)
def test_what_shows_its_times_is_found_by_them(entity: Entity) -> None:
    where: Any = entity.where
    shown = {field.python_name for field in fields_of(entity)}
    conditions = {field.python_name for field in where.__strawberry_definition__.fields}
    orders = {order.attribute for order in entity.order or ()}  # type: ignore[attr-defined]

    assert shown & {"created_at", "updated_at"} <= conditions
    assert shown & {"updated_at"} <= orders


@pytest.mark.parametrize(
    ("kind", "model"),
    [pytest.param(kind, model, id=kind.__name__) for kind, model in INPUTS.items() if model],
)
def test_a_value_has_the_same_type_in_an_input_as_in_an_answer(kind: type, model: Any) -> None:
    given: Any = SCHEMA.type_map[kind.__name__]
    shown: Any = SCHEMA.type_map[model.__name__]
    for name in given.fields.keys() & shown.fields.keys() - {"id"}:
        inside = graphql.get_named_type(given.fields[name].type)
        outside = graphql.get_named_type(shown.fields[name].type)
        if graphql.is_leaf_type(outside):
            assert inside is outside, name


def test_a_mutation_takes_an_input_answers_a_payload_and_says_who_may() -> None:
    mutations = SCHEMA.mutation_type

    assert mutations is not None
    assert rights_of(schema).keys() == mutations.fields.keys()
    for name, mutation in mutations.fields.items():
        upper = f"{name[0].upper()}{name[1:]}"
        kinds = {key: str(argument.type) for key, argument in mutation.args.items()}
        assert kinds == {"input": f"{upper}Input!"}, name
        # Nullable: a sibling that is turned away must not hide what was done before it.
        assert str(mutation.type) == f"{upper}Payload"
        payload = graphql.get_named_type(mutation.type)
        assert isinstance(payload, graphql.GraphQLObjectType)
        assert str(payload.fields["userErrors"].type) == "[UserError!]!"
        for key, shown in payload.fields.items():
            is_many = isinstance(graphql.get_nullable_type(shown.type), graphql.GraphQLList)
            assert is_many == graphql.is_non_null_type(shown.type), f"{name}.{key}"


def test_every_error_of_the_domain_has_a_type() -> None:
    raised = {error.__name__ for error in errors.DomainError.__subclasses__()} - {"Denied"}
    codes = [error.code for error in errors.DomainError.__subclasses__()]

    assert {kind.__name__ for kind in USER_ERRORS} == (raised - {"Invalid"}) | {"InvalidInput"}
    assert len(set(codes)) == len(codes)
    assert set(codes) == {*errors.UserErrorCode, errors.Denied.code}
    for kind in USER_ERRORS:
        shown = SCHEMA.type_map[kind.__name__]
        assert isinstance(shown, graphql.GraphQLObjectType)
        assert [interface.name for interface in shown.interfaces] == ["UserError"]


@pytest.mark.parametrize("entity", entities(), ids=lambda entity: entity.name)
def test_an_entity_is_named_like_its_model_and_stands_in_the_module_of_its_name(
    entity: Entity,
) -> None:
    model = entity.model
    assert model.__module__.removeprefix("db.") == entity.graphql_type.__module__.removeprefix(
        "graph."
    )
    assert entity.name == model.__name__ in SCHEMA.type_map
    (reference,) = lazy(model).__metadata__
    assert getattr(importlib.import_module(reference.module), entity.name) is entity.graphql_type
    if not issubclass(entity.graphql_type, Node):
        return
    if entity.is_subtype:
        base = lazy(sqlalchemy.inspect(model).base_mapper.class_).__metadata__[0]
        assert reference.module == base.module
        assert entity.where is entity.order is None
        return
    assert entity.where is not None
    assert entity.order is not None
    assert (entity.where.__name__, entity.order.__name__) == (
        f"{entity.name}Filter",
        f"{entity.name}Order",
    )
    for name in (f"{entity.name}Connection", f"{entity.name}Edge"):
        assert name in SCHEMA.type_map


@pytest.mark.parametrize("entity", [e for e in entities() if e.order], ids=lambda e: e.name)
def test_an_order_is_served_by_an_index(entity: Entity) -> None:
    table = entity.model.__table__
    assert entity.order is not None
    for order in entity.order:
        column = table.columns[order.attribute]  # type: ignore[attr-defined]
        is_partial = order.is_partial  # type: ignore[attr-defined]
        assert column.nullable == is_partial
        where = [f"{column.name} IS NOT NULL"] if is_partial else []
        assert _served(table, [column.name, "id"], *where), order


CONNECTIONS = [
    pytest.param(entity, field, id=f"{entity.name}.{field.python_name}")
    for entity in entities()
    for field in fields_of(entity)
    if isinstance(field, Connected)
]


@pytest.mark.parametrize(("entity", "field"), CONNECTIONS)
def test_a_connection_is_served_by_an_index(entity: Entity, field: Connected) -> None:
    """In its default order; what a project or a conversation holds, in every order.

    It holds what goes when it goes. By its last change, which every change moves in an index, only
    that of which there is much, and of which people look at what is new.
    """
    target = field.target
    relation: Any = field.attribute.property
    holds = key_of(relation).ondelete == "CASCADE"
    every = entity.name in ("Project", "Conversation") and holds
    orders: list[Any] = [None] if target.order is None else list(target.order)
    for order in orders[: None if every else 1]:
        sorted_by = [] if order is None else [order.attribute]
        if "updated_at" in sorted_by and target.model not in (db.Task, db.Conversation):
            continue
        wanted = [field.keys[1].key, *sorted_by, *(key.key for key in target.keys)]
        where = [f"{field.keys[1].key} IS NOT NULL"]
        where += [f"{order.attribute} IS NOT NULL"] if order and order.is_partial else []
        assert _served(target.model.__table__, list(dict.fromkeys(wanted)), *where), order


def _served(table: Table, wanted: list[str], *where: str) -> bool:
    """Whether rows come sorted from an index: on the columns, or on some that are unique.

    A partial index serves the rows that meet its condition.
    """
    unique = [
        [column.name for column in constraint.columns]
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    return any(
        names[: len(wanted)] == wanted or (names == wanted[:-1] and names in unique)
        for names in indexes(table, *where)
    )


@pytest.mark.parametrize("mapper", MODELS, ids=str)
def test_every_relationship_can_be_read(mapper: Mapper[Any]) -> None:
    (entity,) = (entity for entity in entities() if entity.model is mapper.class_)
    fields = {field.python_name: field for field in fields_of(entity)}
    for relation in mapper.relationships:
        kinds = (Connected, Listed) if relation.uselist else (Related,)
        assert isinstance(fields[relation.key], kinds)


def test_the_schema_forgets_no_slice() -> None:
    declared = {
        module.name
        for module in pkgutil.walk_packages(graph.__path__, "graph.")
        if module.name not in ("graph.__main__", "graph.schema")
        for name in ("Query", "Mutation")
        if hasattr(importlib.import_module(module.name), name)
    }

    assert sorted(declared) == SLICES


def test_an_index_is_not_made_twice() -> None:
    for table in TABLES:
        made = [tuple(names) for names in indexes(table)]
        assert len(set(made)) == len(made), table.name


def test_every_list_of_objects_has_an_end_that_its_cost_knows() -> None:
    for kind in SCHEMA.type_map.values():
        if not isinstance(kind, graphql.GraphQLObjectType | graphql.GraphQLInterfaceType):
            continue
        # A page has as many as are asked for, and a payload as many as the input.
        if kind.name.startswith("__") or kind.name.endswith(("Connection", "Payload")):
            continue
        for name, field in kind.fields.items():
            is_list = graphql.is_list_type(graphql.get_nullable_type(field.type))
            if not is_list or graphql.is_leaf_type(graphql.get_named_type(field.type)):
                continue
            declared = field.extensions[BACKREF]
            has_end = isinstance(declared, Listed | Computed) or "most" in declared.metadata
            assert has_end or "ids" in field.args, f"{kind.name}.{name}"


def test_a_rule_names_a_model_and_relations_that_there_are() -> None:
    models = {mapper.class_.__name__: mapper for mapper in MODELS if mapper.inherits is None}

    assert scopes.rules.keys() | scopes.parents == set(models)
    assert not scopes.rules.keys() & scopes.parents
    for model, relation in scopes.always_visible:
        assert relation in models[model].relationships


def test_slices_stand_on_the_core_and_nothing_below_imports_them() -> None:
    imports = grimp.build_graph("graph")
    slices = {name for name in SLICES if not name.startswith("graph.core.")}
    for name in slices - {"graph.plans"}:  # which makes several nouns at once
        below = imports.find_modules_directly_imported_by(name)
        assert all(module.startswith("graph.core.") for module in below), (name, below)
        above = imports.find_modules_that_directly_import(name)
        above = {module for module in above if not module.startswith("graph.cli.")}
        assert above <= {"graph.plans"}, (name, above)
