"""How large answers may be, how many rows are read for them, and who else has a turn meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, select

import db
from db.result_limits import ResultTooLarge
from graph.core import response_limits
from graph.core.access import Deadline
from graph.limits.cost import cost_of
from tests import factories
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.factories import gid
from tests.operations import Pool, operations, read_operation
from tests.test_compiler import pool  # noqa: F401 - a fixture

MEGABYTE = 1_000_000


@asynccontextmanager
async def both(database: db.Database, people: People, most: int) -> AsyncIterator[list[People]]:
    """The viewers of two servers with this limit of bytes: one plans, and one resolves."""
    limited = db.Database(database.url, result_bytes=most)
    changes = {"max_answer_bytes": most}
    plain = WITHOUT_LIMITS.model_copy(update=changes)
    async with (
        serving(limited, plain) as planned,
        serving(limited, plain.model_copy(update={"compiler": False})) as resolved,
    ):
        yield [people.through(planned), people.through(resolved)]
    await limited.dispose()


def refused(answer: Any, most: int) -> bool:
    """Whether an answer is the one refusal for its size."""
    return bool(
        answer.body
        == {
            "errors": [
                {
                    "message": f"The answer would have more than {most} bytes"
                    " (TROUPE_MAX_ANSWER_BYTES). Ask for fewer rows, or for fewer fields of each.",
                    "extensions": {
                        "code": "LIMIT_EXCEEDED",
                        "limit": "max_answer_bytes",
                        "allowed": most,
                    },
                }
            ],
        }
    )


async def letters(database: db.Database, people: People, number: int, length: int) -> str:
    """The id of a conversation of the owner's with messages of so many characters."""
    async with database.write(db.Viewer()) as session:
        conversation = await factories.make_conversation(session, user_id=people.users["owner"].id)
        await factories.make_messages(session, conversation, ["x" * length] * number)
    return gid(conversation)


async def test_aliases_of_what_is_long_are_refused_before_they_are_sent(
    database: db.Database, people: People
) -> None:
    id = await letters(database, people, 20, MEGABYTE)
    names = " ".join(f"a{place}: content" for place in range(40))
    pages = " ".join(f"p{place}: messages {{ nodes {{ content }} }}" for place in range(40))
    queries = (
        f"conversation(id: $id) {{ messages {{ nodes {{ {names} }} }} }}",
        f"conversation(id: $id) {{ messages {{ edges {{ node {{ {names} }} }} }} }}",
        f"conversation(id: $id) {{ {pages} }}",
        f"nodes(ids: [{', '.join(['$id'] * 100)}])"
        " { ... on Conversation { messages { nodes { content } } } }",
        " ".join(f"c{place}: conversation(id: $id) {{ {pages} }}" for place in range(40)),
    )
    async with both(database, people, 10 * MEGABYTE) as servers:
        for query in queries:
            for server in servers:
                answer = await server.owner.ask(f"query($id: ID!) {{ {query} }}", id=id)

                assert refused(answer, 10 * MEGABYTE), query[:60]


async def test_an_answer_may_have_as_many_bytes_as_the_setting_says(
    database: db.Database, people: People
) -> None:
    id = await letters(database, people, 5, 1000)
    query = "query($id: ID!) { conversation(id: $id) { messages { nodes { content } } } }"
    data = (
        '{"conversation":{"messages":{"nodes":['
        + ",".join([f'{{"content":"{"x" * 1000}"}}'] * 5)
        + "]}}}"
    )

    for most, is_enough in ((len(data), True), (len(data) - 1, False)):
        async with both(database, people, most) as (planned, _):
            answer = await planned.owner.ask(query, id=id)
            assert refused(answer, most) != is_enough
            if is_enough:
                assert answer.text == f'{{"data":{data}}}'
    # The resolvers count the values, and not what stands around them.
    for most, is_enough in ((5_500, True), (4_999, False)):
        async with both(database, people, most) as (_, resolved):
            answer = await resolved.owner.ask(query, id=id)
            assert refused(answer, most) != is_enough


async def test_json_counts_as_text_does(database: db.Database, people: People) -> None:
    async with database.write(db.Viewer()) as session:
        owner = people.users["owner"]
        project = await factories.make_project(session, owner, project_metadata={"a": "x" * 9_000})
        agent = await factories.make_agent(session, project, "Ada")
        for place in range(3):
            tool = await factories.make_tool(session, project, f"Tool {place}")
            session.add(
                db.AgentTool(agent_id=agent.id, tool_id=tool.id, configuration={"a": "x" * 9_000})
            )
    names = " ".join(f"a{place}: metadata" for place in range(20))
    queries = (
        f"project(id: $id) {{ id }} projects {{ nodes {{ {names} }} }}",
        f"project(id: $id) {{ {names} }}",
        "project(id: $id) { id } agents { nodes { tools { configuration } } }",
        "project(id: $id) { agents { nodes { tools { configuration } } } }",
    )
    async with both(database, people, 20_000) as servers:
        for query in queries:
            for server in servers:
                answer = await server.owner.ask(f"query($id: ID!) {{ {query} }}", id=gid(project))

                assert refused(answer, 20_000), query[:60]


async def test_many_short_values_are_a_long_answer(database: db.Database, people: People) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=3, tasks=30)
    query = "{ projects { nodes { tasks { nodes { title project { name } } } } } }"

    async with both(database, people, 1_000) as servers:
        for server in servers:
            assert refused(await server.owner.ask(query), 1_000)


async def test_what_a_mutation_did_is_told_where_it_is_too_long_to_be_shown(
    database: db.Database, people: People
) -> None:
    id = await letters(database, people, 1, 10)
    change = (
        "mutation($id: ID!, $text: String!) { appendMessages(input: {conversationId: $id,"
        " messages: [{sender: USER, content: $text}]}) { messages { content } } }"
    )
    async with both(database, people, 1_000) as (planned, _):
        answer = await planned.owner.ask(change, id=id, text="y" * 2_000)

    (error,) = answer.errors
    assert answer.body["data"] == {"appendMessages": None}
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["outcome"] == "DONE"
    found = "query($id: ID!) { conversation(id: $id) { messages { totalCount } } }"
    assert (await people.owner.ask(found, id=id)).data["conversation"]["messages"] == {
        "totalCount": 2
    }


GROWN = """{ me { memberships { nodes { project { members { nodes { user {
    memberships { nodes { project { members { nodes { user {
      memberships { nodes { role } } } } } } } } } } } } } } }
  nodes(ids: []) { id } }"""


async def test_lists_of_lists_are_paid_for(limited: People) -> None:
    answer = await limited.owner.ask(GROWN)

    assert answer.code == "LIMIT_EXCEEDED"
    assert answer.errors[0]["extensions"]["limit"] == "max_cost"
    assert answer.statements == []


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_no_more_rows_are_read_than_were_paid_for(
    database: db.Database,
    people: People,
    resolvers: People,
    pool: Pool,  # noqa: F811
    data: st.DataObject,
) -> None:
    operation = data.draw(operations(pool))
    read: list[int] = []

    def note(connection: Any, cursor: Any, *_: Any) -> None:
        read.append(max(0, cursor.rowcount))

    event.listen(database.reader.sync_engine, "after_cursor_execute", note)
    try:
        answer = await resolvers.admin.ask(operation.query, **operation.variables)
    finally:
        event.remove(database.reader.sync_engine, "after_cursor_execute", note)

    if "errors" not in answer.body:
        shown = read_operation(operation.query, operation.variables)
        # One more of each page tells whether there are more, and `totalCount` is a row of its own.
        assert sum(read) <= 2 * cost_of(shown) + len(answer.statements)


PLAN = """{ projects { nodes { name agents { nodes { name tools { isActive } } }
  tasks { totalCount nodes { title agent { name }
    dependencies { nodes { dependency { title } } } } }
} } interactions: humanInteractions { nodes { title } } }"""


async def test_an_answer_that_others_have_turns_in_takes_no_more_statements(
    database: db.Database, people: People, resolvers: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=4, tasks=20)
    at_once = await resolvers.owner.ask(PLAN)

    monkeypatch.setattr(response_limits, "MAX_SLICE", -1)  # others have one at each object
    in_turns = await resolvers.owner.ask(PLAN)

    assert in_turns.text == at_once.text
    assert sorted(in_turns.statements) == sorted(at_once.statements)
    assert in_turns.data["projects"]["nodes"][3]["tasks"]["totalCount"] == 20


async def test_time_that_is_over_while_an_answer_is_made_ends_it(
    database: db.Database, people: People, resolvers: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=4, tasks=20)
    whole = await resolvers.owner.ask(PLAN)
    monkeypatch.setattr(response_limits, "MAX_SLICE", -1)
    left, outcomes = Deadline.left, set()

    # Wherever it is noticed, nothing but that is said.
    for looks in (*range(1, 20), *range(20, 400, 20), 10_000):
        looked = 0

        def short(deadline: Deadline, looks: int = looks) -> float:
            nonlocal looked
            looked += 1
            if looked > looks:
                raise deadline.over()
            return left(deadline)

        monkeypatch.setattr(Deadline, "left", short)
        answer = await resolvers.owner.ask(PLAN)
        if "errors" in answer.body:
            assert (answer.code, "data" in answer.body) == ("TIMEOUT", False)
            outcomes.add("TIMEOUT")
        else:
            assert answer.text == whole.text
            outcomes.add("whole")
    assert outcomes == {"TIMEOUT", "whole"}


@pytest.mark.parametrize("length", [100_000, MEGABYTE])
async def test_what_compresses_well_counts_as_it_is_sent(
    database: db.Database, people: People, length: int
) -> None:
    """PostgreSQL stores it compressed, and so it is in memory where it is not looked at."""
    await letters(database, people, 20 * MEGABYTE // length, length)
    limited = db.Database(database.url, result_bytes=MEGABYTE * 11)
    some = select(db.Message.id, db.Message.content).order_by(db.Message.sequence)
    page = some.limit(10 * MEGABYTE // length).subquery()
    try:
        statements: list[Any] = [some, some.limit(150), select(some.subquery())]
        for statement in statements:
            with pytest.raises(ResultTooLarge):
                await rows(limited, statement)
        assert len(await rows(limited, select(page))) == 10 * MEGABYTE // length
    finally:
        await limited.dispose()


async def rows(database: db.Database, statement: Any) -> Any:
    """The rows of a statement that reads."""
    async with database.read() as session:
        return (await session.execute(statement)).all()


async def test_bytes_are_counted_and_not_characters(database: db.Database, people: People) -> None:
    async with database.write(db.Viewer()) as session:
        conversation = await factories.make_conversation(session, user_id=people.users["owner"].id)
        await factories.make_messages(session, conversation, ["漢" * 900] * 10)
    query = "query($id: ID!) { conversation(id: $id) { messages { nodes { content } } } }"
    async with both(database, people, 15_000) as servers:
        for server in servers:
            assert refused(await server.owner.ask(query, id=gid(conversation)), 15_000)


async def test_the_names_in_an_answer_are_counted(database: db.Database, people: People) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=20)
    query = f"{{ projects {{ nodes {{ {'n' * 1_000}: id }} }} }}"
    async with both(database, people, 15_000) as servers:
        for server in servers:
            assert refused(await server.owner.ask(query), 15_000)
