"""Values: what comes out goes in again, and what cannot be used is told with its place."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from graphql import GraphQLError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

import db
from db.moments import read_moment
from db.text import parse_json, to_json
from graph.core import inputs
from graph.core.scalars import parse_decimal
from graph.core.validation_messages import MESSAGES_BY_TYPE, words
from tests import factories
from tests.client import Answer, Client
from tests.conftest import People

ID = "0193a000-0000-7000-8000-0000000000f1"
CREATE = """mutation($i: CreateProjectInput!) {
    createProject(input: $i) { project { id metadata } userErrors { message path } } }"""


@pytest.fixture
async def token(database: db.Database, people: People) -> str:
    async with database.write(db.Viewer()) as session:
        await factories.make_token(session, "token", people.users["owner"])
    return "token"


async def sent(http: httpx.AsyncClient, query: str, variables: str = "{}") -> str:
    """The text of an answer to variables that are text as well, so that no digit is lost here."""
    response = await http.post(
        "/graphql",
        content=f'{{"query": {json.dumps(query)}, "variables": {variables}}}',
        headers={"authorization": "Bearer token", "content-type": "application/json"},
    )
    return response.text


# JSON


NUMBERS = {
    "1e20": "100000000000000000000",
    "1E+20": "100000000000000000000",
    "1e-7": "0.0000001",
    "1.0E5": "100000",
    "-0": "0",
    "-0.0": "0.0",
    "2.50": "2.50",
    "0.1234567890123456789012345": "0.1234567890123456789012345",
    "9007199254740993": "9007199254740993",
    "18446744073709551616": "18446744073709551616",
    "-9223372036854775809": "-9223372036854775809",
    "9" * 100: "9" * 100,
    "123456789012345678901234567890.5": "123456789012345678901234567890.5",
    "5e-324": f"0.{'0' * 323}5",
}


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:20])
async def test_a_number_keeps_its_digits_whichever_way_it_is_sent(
    http: httpx.AsyncClient, token: str, number: str
) -> None:
    literal = CREATE.replace("($i: CreateProjectInput!)", "").replace(
        "input: $i", f'input: {{name: "a", metadata: {{v: {number}}}}}'
    )
    answers = [
        await sent(http, CREATE, f'{{"i": {{"name": "a", "metadata": {{"v": {number}}}}}}}'),
        await sent(http, literal),
    ]
    for answer in answers:
        assert f'"metadata":{{"v": {NUMBERS[number]}}}' in answer
    # What came out is found by what came out.
    out = NUMBERS[number]
    query = "query($v: JSON) { projects(where: {metadataContains: $v}) { totalCount } }"
    for variables in (f'{{"v": {{"v": {out}}}}}', f'{{"v": {{"v": {number}}}}}'):
        assert '"totalCount":2' in await sent(http, query, variables)
    by_get = await http.get(
        "/graphql",
        params={"query": query, "variables": f'{{"v": {{"v": {out}}}}}'},
        headers={"authorization": "Bearer token"},
    )
    assert '"totalCount":2' in by_get.text


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**300), max_value=10**300)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(value=JSON)
async def test_json_that_came_out_comes_out_the_same_again(
    http: httpx.AsyncClient, token: str, value: Any
) -> None:
    metadata, outs = json.dumps({"v": value}), []
    for _ in range(2):
        answer = await sent(http, CREATE, f'{{"i": {{"name": "a", "metadata": {metadata}}}}}')
        metadata = to_json(parse_json(answer)["data"]["createProject"]["project"]["metadata"])
        outs.append(answer.split('"metadata":', 1)[1])

    assert outs[0] == outs[1]


@given(value=JSON)
def test_what_is_read_is_written_with_the_same_digits(value: Any) -> None:
    text = json.dumps(value)

    exact = json.loads(text, parse_int=Decimal, parse_float=Decimal)
    assert json.loads(to_json(parse_json(text)), parse_int=Decimal, parse_float=Decimal) == exact


# Decimals

PRICES = {
    '"2.50"': "2.500000000",
    '"1E+3"': "1000.000000000",
    '"1e-7"': "0.000000100",
    "2.5": "2.500000000",
    "3": "3.000000000",
    "1.0E2": "100.000000000",
    "123456789.123456789": "123456789.123456789",
}
PRICE = """createAiModel(input: {id: "m", provider: "p", inputPrice: %s}) {
    aiModel { inputPrice } userErrors { message path } }
    deleteAiModel(input: {id: "m"}) { deletedId }"""


@pytest.mark.parametrize("price", PRICES)
async def test_a_decimal_is_read_as_a_text_or_a_number(
    http: httpx.AsyncClient, database: db.Database, people: People, price: str
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_token(session, "token", people.users["admin"])
    variable = f"mutation($p: Decimal) {{ {PRICE % '$p'} }}"
    for answer in (
        await sent(http, variable, f'{{"p": {price}}}'),
        await sent(http, f"mutation {{ {PRICE % price} }}"),
    ):
        made = json.loads(answer)["data"]["createAiModel"]
        assert made == {"aiModel": {"inputPrice": PRICES[price]}, "userErrors": []}


@pytest.mark.parametrize("price", ["1e18", "1e-19", "1e999", "+1", ".5", "1_0", "true", "NaN", ""])
def test_no_other_text_is_a_decimal(price: str) -> None:
    with pytest.raises(GraphQLError, match="Decimal cannot represent"):
        parse_decimal(price)


# Times


TIMES = {
    "0001-01-01T00:00:00.000001Z": "0001-01-01T00:00:00.000001+00:00",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00+00:00",
    "2026-11-22T01:06:34.1234567+00:00": "2026-11-22T01:06:34.123456+00:00",
    "2026-11-22T01:06:34.123457999Z": "2026-11-22T01:06:34.123457+00:00",
    "9999-12-31T23:59:59.999998Z": "9999-12-31T23:59:59.999998+00:00",
}
MAKE_PROJECT = (
    f'mutation {{ createProject(input: {{id: "{ID}", name: "a"}}) {{ project {{ id }} }} }}'
)


async def test_a_time_is_kept_to_the_microsecond(people: People) -> None:
    await people.owner.ask(MAKE_PROJECT)
    create = """mutation($due: DateTime!) { createTask(input: {projectId: "%s", title: "x",
        dueAt: $due}) { task { dueAt } userErrors { message path } } }"""
    for due, shown in TIMES.items():
        answer = await people.owner.ask(create % ID, due=due)
        assert answer.data["createTask"] == {"task": {"dueAt": shown}, "userErrors": []}


async def test_cursors_carry_every_time(
    database: db.Database, people: People, resolvers: People
) -> None:
    moments = [read_moment(time) for time in TIMES]
    async with database.write(db.Viewer()) as session:
        for moment in moments:
            await factories.make_project(session, people.users["owner"], created_at=moment)
    page = """query($after: String) { projects(first: 1, after: $after) {
        nodes { createdAt } pageInfo { endCursor } } }"""
    for client in (people.owner, resolvers.owner):
        seen, after = [], None
        for _ in moments:
            projects = (await client.ask(page, after=after)).data["projects"]
            seen += [project["createdAt"] for project in projects["nodes"]]
            after = projects["pageInfo"]["endCursor"]
        assert seen == list(TIMES.values())


NO_TIMES = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59.999999Z",
    "9999-12-31T23:59:59.9999999Z",
    "9999-12-31T23:59:59-01:00",
)


@pytest.mark.parametrize("time", NO_TIMES)
async def test_a_time_that_is_none_is_refused_with_its_place(people: People, time: str) -> None:
    await people.owner.ask(MAKE_PROJECT)
    create = """mutation { createTask(input: {projectId: "%s", title: "x", dueAt: "%s"}) {
        task { id } userErrors { message path } } }"""

    answer = await people.owner.ask(create % (ID, time))

    assert answer.data["createTask"]["task"] is None
    (error,) = answer.data["createTask"]["userErrors"]
    assert error["path"] == ["dueAt"]
    assert error["message"].startswith("A time lies between 0001-01-01T00:00:00Z and 9999-12-31")
    # To compare with, it is as good as any.
    kept = "gt" if time.startswith("0001") else "lt"
    found = await people.owner.ask(
        f'{{ projects(where: {{createdAt: {{{kept}: "{time}"}}}}) {{ totalCount }} }}'
    )
    assert found.data == {"projects": {"totalCount": 1}}


# Places

MESSAGES = """mutation($m: [MessageInput!]!) { appendMessages(input: {conversationId: "%s",
    messages: $m}) { messages { id } userErrors { message path } } }"""


async def test_each_text_that_cannot_be_stored_is_told_with_its_place(
    http: httpx.AsyncClient, token: str
) -> None:
    messages = (
        '[{"sender": "TOOL", "content": "ok"}, {"sender": "TOOL", "content": "a\\u0000b"},'
        ' {"sender": "TOOL", "content": "\\ud800", "metadata": {"a": ["\\u0000"]}},'
        ' {"sender": "TOOL", "content": "ok", "metadata": {"a": 1e400}}]'
    )

    answer = parse_json(await sent(http, MESSAGES % ID, f'{{"m": {messages}}}'))

    found = answer["data"]["appendMessages"]
    assert not found["messages"]
    assert [error["path"] for error in found["userErrors"]] == [
        ["messages", "1", "content"],
        ["messages", "2", "content"],
        ["messages", "2", "metadata"],
        ["messages", "3", "metadata"],
    ]
    nul, half, _, great = (error["message"] for error in found["userErrors"])
    assert nul == "A text contains a NUL character (\\u0000), which cannot be stored."
    assert half.startswith("A text contains half of a surrogate pair")
    assert great == "A number is too great to be stored: it is beyond 1.8e308."


async def test_a_literal_is_told_alike(people: People) -> None:
    answer = await people.owner.ask(
        'mutation { createProject(input: {name: "a\\u0000", metadata: {a: 1e400}}) {'
        " userErrors { path } } }"
    )

    paths = [error["path"] for error in answer.data["createProject"]["userErrors"]]
    assert paths == [["name"], ["metadata"]]


async def test_json_that_nests_too_deeply_is_told_with_its_place(people: People) -> None:
    value: Any = {}
    for _ in range(251):
        value = {"a": value}

    answer = await people.owner.ask(CREATE, i={"name": "a", "metadata": value})

    assert answer.data["createProject"]["userErrors"] == [
        {"message": "Lists and objects nest more than 250 levels deep.", "path": ["metadata"]}
    ]


async def test_one_malformed_id_takes_no_others_along(people: People, resolvers: People) -> None:
    await people.owner.ask(MAKE_PROJECT)
    for client in (people.owner, resolvers.owner):
        answer: Answer = await client.ask(
            "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Project { name } } }",
            ids=[ID, "nonsense", ID],
        )
        assert answer.body["data"] == {"nodes": [{"name": "a"}, None, {"name": "a"}]}
        (error,) = answer.errors
        assert error["path"] == ["nodes", 1]
        assert error["extensions"]["code"] == "BAD_USER_INPUT"
        assert error["message"] == (
            "'nonsense' is no id: use one that the API gave, or a bare UUID."
        )


async def test_a_bad_variable_is_bad_user_input(people: People, http: httpx.AsyncClient) -> None:
    client: Client = people.owner
    query = "query($n: Int) { projects(first: $n) { totalCount } }"
    assert (await client.ask(query, n="x")).code == "BAD_USER_INPUT"
    await client.ask(query, n=1)
    # By the way of documents that are known, too.
    assert (await client.ask(query, n="x")).code == "BAD_USER_INPUT"


# Words


def kinds(schema: Any) -> set[str]:
    """The constraints in a schema of Pydantic, as the types of the errors that they lead to."""
    found: set[str] = set()
    if isinstance(schema, dict):
        kind = schema.get("type")
        text = kind == "str"
        names = {
            "min_length": "string_too_short" if text else "too_short",
            "max_length": "string_too_long" if text else "too_long",
            "pattern": "string_pattern_mismatch",
            "ge": "greater_than_equal",
            "gt": "greater_than",
            "le": "less_than_equal",
            "lt": "less_than",
            "multiple_of": "multiple_of",
            "decimal_places": "decimal_max_places",
            "max_digits": "decimal_max_digits",
        }
        if kind in ("str", "list", "int", "float", "decimal"):
            found |= {names[name] for name in schema if name in names}
        for value in schema.values():
            found |= kinds(value)
    elif isinstance(schema, list | tuple):
        for value in schema:
            found |= kinds(value)
    return found


def test_every_constraint_of_an_input_has_words() -> None:
    found: set[str] = set()
    for model in inputs.MODELS:
        assert issubclass(model, BaseModel)
        found |= kinds(model.__pydantic_core_schema__)

    assert {"string_too_short", "too_long", "greater_than_equal", "decimal_max_places"} <= found
    assert found <= set(MESSAGES_BY_TYPE)


def test_words_are_plain() -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(BaseModel).validate_python(1)
    assert [words(error) for error in refused.value.errors()] == ["this is no such value"]
    assert words({"type": "string_too_short", "ctx": {"min_length": 8}}) == (
        "this needs 8 characters or more"
    )
    assert words({"type": "too_short", "ctx": {"min_length": 1}}) == "this must not be empty"
    assert words({"type": "greater_than", "ctx": {"gt": 0}}) == "this must be more than 0"


async def test_an_address_that_is_none_is_refused_in_words(people: People) -> None:
    answer = await people.admin.ask(
        'mutation { createUser(input: {username: "a b", email: "nowhere"}) {'
        " userErrors { message path } } }"
    )

    assert answer.data["createUser"]["userErrors"] == [
        {
            "message": "This must have 1 to 64 letters of A to Z, digits and . _ -, and begin with"
            " a letter or a digit.",
            "path": ["username"],
        },
        {
            "message": "This must be an e-mail address, such as ada@example.org.",
            "path": ["email"],
        },
    ]


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u00a0 \u2003"])
async def test_a_name_or_a_title_has_more_than_spaces(people: People, blank: str) -> None:
    titled = {"title": blank, "type": blank, "resourceKeys": ["a", blank], "projectId": ID}
    asked = {"title": blank, "content": {}, "projectId": ID}
    for change, input, paths in (
        ("createProject", {"name": blank}, [["name"]]),
        ("createTask", titled, [["title"], ["type"], ["resourceKeys", "1"]]),
        ("requestFeedback", asked, [["title"]]),
    ):
        shown = "{ userErrors { message path } }"
        payload = await people.owner.change(f"{change} {shown}", **input)
        empty = "This must not be empty."
        assert payload["userErrors"] == [{"message": empty, "path": path} for path in paths]
    answer = await people.admin.ask("{ projects { totalCount } }")
    assert answer.data == {"projects": {"totalCount": 0}}
