"""Fields that a slice may declare: computed values, and connections with arguments of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import strawberry
from sqlalchemy import Float, Integer, String, Uuid, cast, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship
from strawberry.schema.config import StrawberryConfig

import db
from db import scopes
from db.parameters import apply, bind
from graph.core import entities
from graph.core.connections import Connection
from graph.core.declarations import Schema
from graph.core.entities import column, entity
from graph.core.fields import argument, collection, connected, listed
from graph.core.filters import StringFilter, condition, filters, keys
from graph.core.scalars import scalars
from graph.settings import Settings
from tests import factories
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.factories import gid


class Base(DeclarativeBase):
    """Models of this test alone, over tables of others."""


class Models:
    """The models; the types that show them have their names."""

    class Work(Base):
        """A task, with values that are computed of it."""

        __tablename__ = "tasks"

        id = mapped_column(Uuid, primary_key=True)
        project_id = mapped_column(Uuid)
        title: Mapped[str] = mapped_column(String)
        priority: Mapped[int] = mapped_column(Integer)
        blocked_reason: Mapped[str | None] = mapped_column(String)
        size = column_property(func.length(title, type_=Integer), doc="How long the title is.")

        @hybrid_property
        def loud(self) -> str:
            """The title with a sign."""
            return self.title + "!"

        @hybrid_property
        def reason(self) -> str | None:
            """Why it is blocked."""
            return self.blocked_reason

        @hybrid_property
        def is_urgent(self) -> bool:
            """Whether it is of a high priority."""
            return self.priority > 3

        @hybrid_property
        def is_titled(self) -> bool:
            """Whether it has a title, which only Python can tell."""
            return self.title is not None

        @hybrid_property
        def initial(self) -> str:
            """How its title begins, in a way that only Python knows."""
            return f"{self.title}"[:1]

        @hybrid_property
        def weight(self) -> float:
            """Half of its priority."""
            return self.priority / 2

        @weight.inplace.expression
        @classmethod
        def _weight(cls) -> Any:
            return cast(cls.priority, Float) / 2

        @hybrid_property
        def is_extreme(self) -> bool:
            """Whether its priority is the highest or the lowest."""
            return self.priority in (1, 5)

        @is_extreme.inplace.expression
        @classmethod
        def _is_extreme(cls) -> Any:
            return cls.priority.in_([1, 5])

    class Place(Base):
        """A project, as a place of work."""

        __tablename__ = "projects"

        id = mapped_column(Uuid, primary_key=True)
        name: Mapped[str] = mapped_column(String)


PLACE: Any = Models.Place
PLACE.works = relationship(
    Models.Work,
    primaryjoin=Models.Place.id == Models.Work.project_id,
    foreign_keys=[Models.Work.project_id],
    order_by=Models.Work.id,
    lazy="raise",
    doc="The work in it.",
)


@filters(Models.Work)
class WorkFilter:
    title: StringFilter | None


@filters(Models.Place)
class PlaceFilter:
    name: StringFilter | None


def _least(row: Any, viewer: db.Viewer, least: Any) -> list[Any]:
    return [row.priority >= bind(apply(int, least), Integer)]


def _in_project(row: Any, viewer: db.Viewer, project_id: Any, begins: Any) -> list[Any]:
    wanted = bind(apply(lambda id: keys(db.Project, id), project_id), Uuid)
    met = [row.project_id == wanted]
    return met if begins is None else [*met, row.title.startswith(bind(begins, String))]


def _fitting(row: Any, viewer: db.Viewer, fit: Any) -> list[Any]:
    return [condition(fit, row, viewer)]


LEAST = [argument("least", int, "The lowest priority.")]
OF_PROJECT = [
    argument("project_id", strawberry.ID, "Of which project."),
    argument("begins", str | None, "How the title begins."),
]


@entity(Models.Work, where=WorkFilter)
class Work:
    title: str
    size: int
    loud: str
    reason: str | None
    is_urgent: bool
    is_titled: bool
    initial: str
    heft: float = column(Models.Work.weight)
    is_extreme: bool


@entity(Models.Place, where=PlaceFilter)
class Place:
    name: str
    works = connected(PLACE.works)
    some = listed(PLACE.works, most=2)
    from_least = connected(PLACE.works, arguments=LEAST, conditions=_least)


@strawberry.type
class Query:
    works: Connection[Work] = collection(Models.Work)
    places: Connection[Place] = collection(Models.Place)
    from_least: Connection[Work] = collection(Models.Work, arguments=LEAST, conditions=_least)
    fitting: Connection[Work] = collection(
        Models.Work,
        arguments=[argument("fit", WorkFilter, "What fits.")],
        conditions=_fitting,
    )
    in_project: Connection[Work] = collection(
        Models.Work, arguments=OF_PROJECT, conditions=_in_project
    )


# Nothing of this is an entity for other tests.
DECLARED = {model: entities._entities.pop(model) for model in (Models.Work, Models.Place)}


@pytest.fixture
async def plan(database: db.Database, people: People) -> factories.Plan:
    """Tasks of several priorities, in two projects."""
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"], projects=2, tasks=5)
        for place, task in enumerate(plan.tasks):
            task.priority = place % 5 + 1
    return plan


def _all(row: Any, viewer: db.Viewer, right: db.Right) -> Any:
    """The rule by which everybody sees all rows."""
    return row.id == row.id


@pytest.fixture
async def both(
    database: db.Database, people: People, plan: factories.Plan, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Any]]:
    """The administrator's clients of this schema, with the compiler and without it."""
    for model, declared in DECLARED.items():
        monkeypatch.setitem(entities._entities, model, declared)
        monkeypatch.setitem(scopes.rules, model.__name__, _all)
    schema = Schema(query=Query, config=StrawberryConfig(scalar_map=scalars))
    monkeypatch.setattr("graph.app.schema", schema)
    without = WITHOUT_LIMITS.model_copy(update={"compiler": False})
    async with serving(database, WITHOUT_LIMITS) as one, serving(database, without) as other:
        yield [people.admin.through(one), people.admin.through(other)]


async def ask(both: list[Any], query: str, statements: int, **variables: Any) -> Any:
    """What both ways answer alike, the first in one statement, or in as many as the other."""
    compiled, resolved = [await client.ask(query, **variables) for client in both]
    assert compiled.text == resolved.text
    assert len(compiled.statements) == statements
    return compiled.data


async def test_computed_values_compile(both: list[Any]) -> None:
    fields = "title size loud reason isUrgent"
    data = await ask(both, f"{{ works {{ nodes {{ {fields} }} edges {{ node {{ loud }} }} }} }}", 1)

    (first, *_) = data["works"]["nodes"]
    assert first["loud"] == f"{first['title']}!"
    assert first["size"] == len(first["title"])
    assert first["reason"] is None
    assert {node["isUrgent"] for node in data["works"]["nodes"]} == {True, False}


async def test_a_computed_value_loads_what_it_reads(both: list[Any]) -> None:
    for field in ("loud", "size", "isUrgent", "reason"):
        await ask(both, f"{{ works {{ nodes {{ {field} }} }} places {{ nodes {{ name }} }} }}", 1)
        await ask(
            both,
            f"{{ places {{ nodes {{ some {{ {field} }} works {{ nodes {{ {field} }} }} }} }} }}",
            1,
        )


@pytest.mark.parametrize("field", ["heft", "isExtreme", "isTitled", "initial"])
async def test_what_sql_cannot_print_in_the_same_way_goes_to_the_resolvers(
    both: list[Any], field: str
) -> None:
    """A number with a fraction, SQL whose text depends on its values, and Python without SQL."""
    data = await ask(both, f"{{ works(first: 2) {{ nodes {{ {field} }} }} }}", 1)

    assert len(data["works"]["nodes"]) == 2


async def test_a_root_field_that_does_not_compile_takes_no_other_along(both: list[Any]) -> None:
    query = """{ a: works(first: 1) { nodes { heft } } b: places { nodes { name works { nodes {
        title } } } } __typename c: works { totalCount } }"""
    compiled, resolved = [await client.ask(query) for client in both]

    assert compiled.text == resolved.text
    assert len(compiled.statements) == 3 < len(resolved.statements)
    encoded = [sql.startswith("SELECT convert_to(") for sql in compiled.statements]
    assert sorted(encoded) == [False, True, True]


async def test_a_connection_takes_arguments_of_its_own(
    both: list[Any], plan: factories.Plan
) -> None:
    query = """query($least: Int!, $id: ID!, $begins: String) {
        fromLeast(least: $least, first: 3) { totalCount nodes { title } pageInfo { hasNextPage } }
        all: works { totalCount }
        inProject(projectId: $id, begins: $begins, where: {title: {contains: "1"}}) {
            nodes { title } }
        places { nodes { fromLeast(least: $least) { totalCount nodes { title } }
            works { totalCount } } }
    }"""
    id = gid(plan.projects[0])
    for least in (4, 5, 1):  # by a statement that is compiled, and by one that is known
        data = await ask(both, query, 1, least=least, id=id, begins="Task")
        expected = 2 * (6 - least)
        assert data["fromLeast"]["totalCount"] == expected
        assert data["all"]["totalCount"] == 10
        counts = [node["fromLeast"]["totalCount"] for node in data["places"]["nodes"]]
        assert sum(counts) == expected
        assert len(data["inProject"]["nodes"]) == 1
    assert (await ask(both, query, 1, least=1, id=id, begins="x"))["inProject"]["nodes"] == []
    assert len((await ask(both, query, 1, least=1, id=id))["inProject"]["nodes"]) == 1


async def test_what_is_wrong_with_an_argument_of_its_own_is_reported(both: list[Any]) -> None:
    query = "query($id: ID!) { inProject(projectId: $id) { nodes { title } } }"
    for _ in range(2):
        answers = [await client.ask(query, id="nonsense") for client in both]
        assert answers[0].text == answers[1].text
        assert answers[0].code == "BAD_USER_INPUT"


async def test_a_filter_counts_by_its_type_whatever_its_argument_is_called(
    database: db.Database, people: People, both: list[Any]
) -> None:
    query = "query($fit: WorkFilter!) { fitting(fit: $fit) { totalCount } }"
    one, two = {"title": {"contains": "1"}}, {"title": {"contains": "1", "not": "x"}}
    assert (await ask(both, query, 1, fit=two))["fitting"]["totalCount"] > 0

    for compiler in (True, False):
        async with serving(database, Settings(max_conditions=1, compiler=compiler)) as http:
            admin = people.admin.through(http)
            assert (await admin.ask(query, fit=one)).data["fitting"]["totalCount"] > 0
            (error,) = (await admin.ask(query, fit=two)).errors
            assert error["extensions"]["limit"] == "max_conditions"
            assert error["extensions"]["found"] == 2
