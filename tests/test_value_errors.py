"""Values in documents and variables that do not fit their types: where they are, and what would."""

from __future__ import annotations

import pytest

import db
from graph.settings import Audience, Settings
from tests.conftest import People, serving

MOMENT = (
    "DateTime cannot represent {!r}: write a date and a time with its time zone, such as"
    " 2026-11-22T01:06:34+00:00."
)
DECIMAL = 'Decimal cannot represent {!r}: write digits in a string, such as "2.50".'
STATUSES = " Its values are DRAFT, PLANNING, IN_PROGRESS, PAUSED, COMPLETED, CANCELLED, ARCHIVED."
NO_STATUS = "Value 'DONE' does not exist in 'ProjectStatus' enum."

# A document, the value in it that does not fit, its place in the argument, and the message.
LITERALS = [
    (
        'mutation { createTask(input: {projectId: "x", title: "x", dueAt: "tomorrow"})'
        " { task { id } } }",
        '"tomorrow"',
        "input.dueAt",
        MOMENT.format("tomorrow"),
    ),
    (
        '{ usageSummary(groupBy: MODEL, from: "2026-11-30") { __typename } }',
        '"2026-11-30"',
        "from",
        MOMENT.format("2026-11-30"),
    ),
    (
        'mutation { createAiModel(input: {id: "x", provider: "x", inputPrice: "cheap"})'
        " { userErrors { code } } }",
        '"cheap"',
        "input.inputPrice",
        DECIMAL.format("cheap"),
    ),
    (
        '{ tasks(where: {not: {or: [{}, {dueAt: {lt: "noon"}}]}}) { totalCount } }',
        '"noon"',
        "where.not.or.1.dueAt.lt",
        MOMENT.format("noon"),
    ),
    (
        "{ node(id: {a: 1}) { id } }",
        "{a: 1}",
        "id",
        "ID cannot represent a non-string and non-integer value: { a: 1 }",
    ),
    (
        "{ projects(where: {status: {in: [DRAFT, DONE]}}) { totalCount } }",
        "DONE",
        "where.status.in.1",
        NO_STATUS + STATUSES,
    ),
    (
        '{ projects(where: {status: {eq: "DRAFT"}}) { totalCount } }',
        '"DRAFT"',
        "where.status.eq",
        "Enum 'ProjectStatus' cannot represent non-enum value: \"DRAFT\"." + STATUSES,
    ),
    (
        '{ projects(first: "all") { totalCount } }',
        '"all"',
        "first",
        'Int cannot represent non-integer value: "all"',
    ),
]


@pytest.mark.parametrize(("document", "value", "place", "message"), LITERALS)
async def test_an_error_says_where_a_literal_is(
    people: People, document: str, value: str, place: str, message: str
) -> None:
    answer = await people.admin.ask(document)

    assert answer.body == {
        "errors": [
            {
                "message": f"Argument '{place}' has invalid value: {message}",
                "locations": [{"line": 1, "column": document.index(value) + 1}],
                "extensions": {"code": "BAD_USER_INPUT"},
            }
        ]
    }


async def test_the_default_of_a_variable_is_the_value_of_no_argument(people: People) -> None:
    query = """query($a: DateTime = "noon") {
        projects(first: 1, where: {createdAt: {gt: $a}}) { totalCount }
    }"""
    (error,) = (await people.admin.ask(query)).errors

    assert error == {
        "message": MOMENT.format("noon"),
        "locations": [{"line": 1, "column": 22}],
        "extensions": {"code": "BAD_USER_INPUT"},
    }


async def test_an_error_about_a_variable_lists_the_values_of_an_enum(people: People) -> None:
    query = "query($a: ProjectStatus) { projects(where: {status: {eq: $a}}) { totalCount } }"
    (error,) = (await people.admin.ask(query, a="DONE")).errors

    assert error["message"] == f"Variable '$a' has invalid value: {NO_STATUS}{STATUSES}"


async def test_who_may_not_read_the_schema_learns_no_values(
    database: db.Database, people: People
) -> None:
    query = "query($a: ProjectStatus) { projects(where: {status: {eq: $a}}) { totalCount } }"
    literal = "{ projects(where: {status: {eq: DONE}}) { totalCount } }"
    async with serving(database, Settings(introspection=Audience.NOBODY)) as http:
        owner = people.owner.through(http)
        answers = [await owner.ask(query, a="DONE"), await owner.ask(literal)]

    assert [each["message"] for answer in answers for each in answer.errors] == [
        f"Variable '$a' has invalid value: {NO_STATUS}",
        f"Argument 'where.status.eq' has invalid value: {NO_STATUS}",
    ]
