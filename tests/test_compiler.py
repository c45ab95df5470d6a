"""The compiler: one statement, and to the byte what the resolvers answer."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import tracemalloc
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLError, GraphQLInterfaceType, GraphQLObjectType, get_named_type
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Text, literal_column, select
from sqlalchemy.orm import undefer

import db
from db.events.positions import number_all
from db.result_limits import RESULT_BYTES
from graph import compiler
from graph.compiler import compiled
from graph.compiler.compiled import CompiledStatement
from graph.conversations import MessageSearchOrder
from graph.core.connections import encode_cursor
from graph.core.declarations import Declared, StatementBuilder
from graph.core.entities import entities
from graph.core.fields import Collection
from graph.core.filters import RANK, Order, conditions_of
from graph.core.scalars import format_moment
from graph.core.selections import BACKREF
from graph.schema import graphql_schema
from graph.settings import Settings
from tests import factories
from tests.conftest import People, serving
from tests.operations import (
    WRONG_AT_TIMES,
    Generated,
    Pool,
    declared,
    operations,
    payloads,
    read_operation,
)

EXAMPLES = int(os.environ.get("TROUPE_EXAMPLES", "60"))


@pytest.fixture
async def pool(database: db.Database, people: People) -> Pool:
    """Values of the rows there are, and some that are not."""
    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)
    await number_all(database)
    pool = Pool(
        ids={},
        cursors={},
        texts=[*factories.TEXTS, "%", "_", "a", "\\"],
        moments=[format_moment(moment) for moment in factories.MOMENTS],
        wrong=WRONG_AT_TIMES,
    )
    roots = [field for _, field in declared("Query", Collection)]
    async with database.read() as session:
        for entity in entities():
            if entity.where is None:
                continue
            rows = (
                await session.scalars(
                    select(entity.model).options(undefer("*")).order_by(entity.key)
                )
            ).all()
            if entity.order is None:
                keys = [[getattr(row, key.key) for key in entity.keys] for row in rows[:4]]
                pool.cursors[entity.name] = [encode_cursor(None, *key) for key in keys]
                continue
            ids = [(factories.gid(row), str(row.id)) for row in rows[:4]]
            pool.ids[entity.name] = [id for forms in ids for id in forms]
            own = [field.sorted_by for field in roots if field.target is entity]
            for order in (*entity.order, *filter(None, own)):
                assert isinstance(order, Order)
                pool.cursors[str(order)] = [
                    encode_cursor(order, row.id, format_moment(value) if is_moment else value)
                    for row in rows[:4]
                    for value in [getattr(row, order.attribute)]
                    if value is not None
                    for is_moment in [isinstance(value, datetime)]
                ]
    for order in MessageSearchOrder:
        pool.cursors[f"MessageSearchOrder.{order.name}"] = (
            [encode_cursor(order, id, rank) for id in pool.bare()[:2] for rank in (0, 90909, -1)]
            if order.attribute == RANK
            else pool.cursors[f"MessageOrder.{order.name}"]
        )
    return pool


def test_a_failure_with_generated_operations_is_reported() -> None:
    pool = Pool(ids={"Task": ["a" * 100] * 1000}, cursors={}, texts=[], moments=[])

    @settings(max_examples=1, phases=[Phase.generate], database=None)
    @given(data=st.data())
    def fails(pool: Pool, data: st.DataObject) -> None:
        data.draw(st.sampled_from(pool.ids["Task"]))
        pytest.fail("found")

    with pytest.raises(pytest.fail.Exception, match="found"):
        fails(pool)


# Those of `make alike` are new each time.
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="TROUPE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
async def test_generated_queries_are_answered_alike(
    people: People, resolvers: People, pool: Pool, data: st.DataObject
) -> None:
    viewers = st.sampled_from(["admin", "owner", "stranger"])
    operation, *pair = data.draw(st.tuples(operations(pool), viewers, viewers))
    # The second time it finds a plan, which was made for other values and perhaps another viewer.
    for variables, viewer in zip((operation.variables, operation.again), pair, strict=True):
        await are_answered_alike(operation, variables, people, resolvers, viewer)


async def are_answered_alike(
    operation: Generated, variables: dict[str, Any], people: People, resolvers: People, viewer: str
) -> None:
    """See that an operation is answered as the resolvers do, to the byte, and planned if it can."""
    planned = await getattr(people, viewer).ask(operation.query, **variables)
    resolved = await getattr(resolvers, viewer).ask(operation.query, **variables)

    assert planned.body["data"] == resolved.body["data"]
    assert "FAULT" not in planned.text
    assert "BAD_REQUEST" not in planned.text
    if "errors" in planned.body:
        # Of several errors, it is up to chance which are met first: the same one may be that of
        # another item of a list.
        errors = [without_places(answer.errors) for answer in (planned, resolved)]
        assert errors[0] == errors[1] or len(planned.errors + resolved.errors) > 2
        return
    assert planned.text == resolved.text
    one = any(statement.startswith("SELECT convert_to(") for statement in planned.statements)
    assert one or is_for_resolvers(operation.query, variables)


def without_places(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same errors, without the places of items in their paths."""
    return [
        error | {"path": [part for part in error.get("path", ()) if isinstance(part, str)]}
        for error in errors
    ]


def is_for_resolvers(query: str, variables: dict[str, Any]) -> bool:
    """Whether there is a reason for which the compiler leaves a query to the resolvers."""
    operation = read_operation(query, variables)
    number, depth = operation.size()
    if number > compiler.MAX_FIELDS or depth > compiler.MAX_DEPTH:
        return True
    if conditions_of(operation) > compiler.MAX_CONDITIONS:
        return True
    if all(root.name == "__typename" for root in operation.roots):
        return True
    try:
        builder = StatementBuilder(operation, db.Viewer(is_administrator=True), RESULT_BYTES)
        builder.object([root for root in operation.roots if not root.name.startswith("__")], None)
    except (GraphQLError, ValueError):
        return True  # an argument is wrong, where the resolvers never come to it
    return False


MORE = settings(
    max_examples=EXAMPLES // 2,
    deadline=None,
    derandomize="TROUPE_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)


@MORE
@given(data=st.data())
async def test_generated_queries_beside_a_resolver_are_answered_alike(
    people: People, resolvers: People, pool: Pool, data: st.DataObject
) -> None:
    operation = data.draw(operations(pool, beside='kind: __type(name: "Task") { kind } '))
    viewer = data.draw(st.sampled_from(["admin", "owner", "stranger"]))
    for variables in (operation.variables, operation.again):
        compiled = await getattr(people, viewer).ask(operation.query, **variables)
        resolved = await getattr(resolvers, viewer).ask(operation.query, **variables)

        assert compiled.body["data"] == resolved.body["data"]
        assert "FAULT" not in compiled.text
        if "errors" not in compiled.body:
            assert compiled.text == resolved.text
            encoded = [sql.startswith("SELECT convert_to(") for sql in compiled.statements]
            assert all(encoded) or is_for_resolvers(operation.query, variables)
        else:
            assert compiled.text == resolved.text or len(compiled.errors + resolved.errors) > 2


@MORE
@given(data=st.data())
async def test_generated_payloads_show_what_resolvers_show(
    people: People, resolvers: People, pool: Pool, data: st.DataObject
) -> None:
    payload, id, change, query = data.draw(payloads(pool))
    changed = await people.admin.ask(change.query, id=id, **change.variables)

    assert "FAULT" not in changed.text
    if "errors" in changed.body:
        assert changed.code == "BAD_USER_INPUT"
        return
    found = changed.data[payload.mutation]["keys"]
    if not found:  # there is a rule against it
        return
    ids = [each["id"] for each in (found if isinstance(found, list) else [found])]
    # Each of the two fields has a statement, or is returned by the one that writes.
    encoded = [s.startswith(("SELECT convert_to(", "WITH ")) for s in changed.statements[-2:]]
    assert all(encoded) or is_for_resolvers(query.query, {"ids": ids, **query.variables})
    read = await resolvers.admin.ask(query.query, ids=ids, **query.variables)
    start = f'{{"data":{{"{payload.mutation}":{{"shown":'
    text = changed.text.removeprefix(start).partition(',"keys":')[0]
    items = text if isinstance(found, list) else f"[{text}]"
    assert read.text == f'{{"data":{{"nodes":{items}}}}}'


QUERIES = {
    "names that PostgreSQL would cut": f"""{{
        {"a" * 64}: me {{ {"b" * 64}: username }}
        projects {{ {"c" * 64}: nodes {{ name }} {"c" * 63}d: nodes {{ id }} }}
    }}""",
    "nothing but names of types": """{
        projects(first: 2) { __typename pageInfo { __typename } nodes { __typename }
            edges { __typename node { __typename project: __typename } } }
        a: agents { pageInfo { __typename } } b: agents { pageInfo { hasNextPage } }
        humanInteractions { nodes { __typename } }
    }""",
    "columns of all types": """{ tasks(first: 100) { nodes {
        id title description type status blockedReason priority input result error availableAt
        dueAt startedAt completedAt estimatedSeconds unmetDependencyCount attemptCount maxAttempts
        retryBackoffSeconds leaseExpiresAt cancelRequested metadata version createdAt updatedAt
    } } }""",
    "prices, names and lists of texts": """{
        aiModels { nodes { id name inputPrice cachedInputPrice outputPrice isLocal metadata } }
        accessTokens { nodes { scopes name prefix expiresAt } }
    }""",
    "a lookup by a bare UUID and by a global id": """query($bare: ID!, $global: ID!) {
        bare: project(id: $bare) { id name } global: project(id: $global) { id name }
        none: task(id: $bare) { id }
    }""",
    "a lookup by another attribute, and of the viewer": """{
        conversationByUrl(url: "url-2") { title summary conversationUrl messages { totalCount } }
        nowhere: conversationByUrl(url: "nowhere") { title }
        me { username email displayName role isActive projects { nodes { name } } }
    }""",
    "relations to one, of which some are hidden": """{ tasks { nodes {
        project { name owner { username } } parentTask { title parentTask { title } }
        agent { name model { provider } } createdByUser { username } createdByAgent { name }
    } } messages { nodes { conversation { title user { username } } user { id } model { name } } } }
    """,
    "lists": """{ tasks(orderBy: PRIORITY_DESC) { nodes {
        dependencies { nodes { onFailure dependency { title
            dependents { nodes { dependent { title } } } } } }
        dependents { nodes { __typename dependent { title } } }
    } } }""",
    "a connection in a connection in a connection": """{ projects(first: 3) { nodes { name
        agents(first: 2, orderBy: NAME_DESC) { totalCount edges { cursor node { name
            tasks(last: 2) { totalCount nodes { title priority }
                pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    } } } } } } }""",
    "pages from the end, of nothing, and with nothing but a count": """{
        last: tasks(last: 3, orderBy: PRIORITY_ASC) { edges { cursor } pageInfo { hasNextPage
            hasPreviousPage startCursor endCursor } }
        none: tasks(first: 0) { edges { cursor } nodes { id } pageInfo { hasNextPage endCursor } }
        count: tasks(where: {priority: {gt: 1}}) { totalCount __typename }
        empty: tasks(where: {or: []}) { nodes { id } pageInfo { hasNextPage startCursor } }
    }""",
    "cursors": """query($after: String, $before: String) {
        after: tasks(after: $after, orderBy: PRIORITY_ASC) { nodes { title } pageInfo {
            hasNextPage hasPreviousPage } }
        both: tasks(after: $after, before: $before, last: 2, orderBy: PRIORITY_ASC) {
            nodes { title } pageInfo { hasNextPage hasPreviousPage } }
    }""",
    "filters of every kind": """query($where: TaskFilter, $moment: DateTime) {
        tasks(where: $where) { totalCount nodes { title } }
        conversations(where: {project: {owner: {username: {eq: "owner"}}},
            not: {user: {username: {startsWith: "str"}}}}) { totalCount nodes { title } }
        agents(where: {or: [{createdAt: {gte: $moment}}, {status: {in: [READY, ACTIVE]}}]}) {
            nodes { name } }
        projects(where: {metadataContains: {number: 1.10}}) { nodes { metadata description } }
    }""",
    "types that share an interface": """{ humanInteractions(first: 100) { nodes { __typename id
        title status content contentHash assignee { username } respondedBy { username }
        ... on ApprovalRequest { approved comment task { title } }
        ... on FeedbackRequest { feedback rating agent { name } }
        ... on ClarificationRequest { answer ... on HumanInteraction { expiresAt } }
        ... on Notification { level requiresAcknowledgement ... on Node { id } }
    } } projects { nodes { interactions(orderBy: PRIORITY_DESC) { totalCount edges { cursor node {
        priority ...Kind } } } } } }
    fragment Kind on HumanInteraction { type metadata ... on Notification { project { name } } }
    """,
    "highlights": """query($q: String = "plain or quoted") {
        searchMessages(query: $q, first: 2) {
          nodes { highlights(query: $q) { text isMatch } some: highlights(query: "x", first: 1) {
          isMatch } } edges { cursor node { highlights(query: $q) { text } } }
        } messages { nodes { highlights(query: "the") { __typename text } } } }""",
    "words": """{ searchMessages(query: "plain or quoted -null", first: 2) { totalCount nodes {
        content timestamp conversation { title } usageRecords { nodes { cost model { name } } }
    } pageInfo { hasNextPage endCursor } } none: searchMessages(query: "") { totalCount } }""",
    "objects by their ids": """query($bare: ID!, $global: ID!) {
        a: node(id: $bare) { __typename id ... on Project { name tasks { nodes { title } } } }
        b: node(id: $global) { ... on Project { name owner { username } } ... on Agent { name } }
        nodes(ids: [$global, "00000000-0000-7000-8000-000000000000", $bare, $global]) {
            id ... on HumanInteraction { title } }
        none: nodes(ids: []) { id }
    }""",
    "objects of which nothing is left": """{ me { id @skip(if: true) }
        projects { nodes { name @skip(if: true) } edges { node { id @skip(if: true) } } }
        tasks { edges { cursor @skip(if: true) } pageInfo { hasNextPage @skip(if: true) } }
        nodes(ids: ["00000000-0000-7000-8000-000000000000"]) { ... on Project { name } }
    }""",
    "associations, and a relation to one from its other end": """{
        tools { nodes { name toolSchema agents { nodes { configuration isActive addedAt agent { name
            tools { tool { name } } } } } } }
        taskAttempts { nodes { number task { title currentAttempt { number } } currentTask {
            title } } }
        me { memberships { nodes { role project { name
            members { nodes { role user { username } } } } } } }
    }""",
    "the event log": """query($bare: ID!, $global: ID!) {
        events(last: 100) { totalCount edges { cursor node { position action entityType entityId
            projectId project { name } actorType actorId user { username } agent { name } tokenId
            before after createdAt } } pageInfo { hasNextPage endCursor } }
        some: events(where: {projectId: {in: [$bare]}, entityType: {startsWith: "P"},
            entityId: {not: $global}, actorId: {isNull: true}, actorType: {isNull: true}}) {
            nodes { entityType entityId after } }
        tasks(first: 3) { nodes { title history(first: 2) { totalCount nodes { action after } } } }
        aiModels { nodes { id history { nodes { entityId after } } } }
        humanInteractions { nodes { history { nodes { entityId after } }
            ... on Notification { h: history(where: {action: {eq: UPDATED}}) { totalCount } } } }
    }""",
    "names, fragments and conditions": """query($yes: Boolean!, $no: Boolean = false) {
        ...Roots @include(if: $yes)
        gone: projects @skip(if: $yes) { nodes { name } }
        __typename
    }
    fragment Roots on Query { some: projects(first: 2) { ...Some
        nodes { b: status ... on Project @skip(if: $no) { a: version } ... { __typename } } } }
    fragment Some on ProjectConnection { nodes { ... on Node { id } name @include(if: $no) } }
    """,
}


async def test_every_kind_of_field_is_answered_alike_in_one_statement(
    people: People, resolvers: People, pool: Pool
) -> None:
    possible = {
        "bare": pool.ids["Project"][1],
        "global": pool.ids["Project"][2],
        "after": pool.cursors["TaskOrder.PRIORITY_ASC"][0],
        "before": pool.cursors["TaskOrder.PRIORITY_ASC"][2],
        "moment": format_moment(factories.MOMENTS[1]),
        "where": {
            "title": {"contains": "%"},
            "or": [{"priority": {"in": [1, 2]}}, {"dueAt": {"isNull": True}}],
            "agent": {"name": {"not": ""}},
        },
        "yes": True,
    }
    for kind, query in QUERIES.items():
        variables = {name: value for name, value in possible.items() if f"${name}:" in query}
        for viewer in ("admin", "owner", "stranger"):
            planned = await getattr(people, viewer).ask(query, **variables)
            resolved = await getattr(resolvers, viewer).ask(query, **variables)

            assert planned.data, kind
            assert planned.text == resolved.text, kind
            assert len(planned.statements) == 1, kind
            assert resolved.statements[0] != planned.statements[0], kind


async def test_values_of_a_query_never_become_part_of_the_statement(
    people: People, pool: Pool
) -> None:
    answer = await people.owner.ask(
        """query(
          $text: String!, $json: JSON, $moment: DateTime!, $id: ID!, $number: Int!, $after: String
        ) {
          conversationByUrl(url: $text) { id }
          project(id: $id) { id }
          tasks(
            first: 97
            after: $after
            where: {
              title: {eq: $text, in: [$text], contains: $text, startsWith: $text, gt: $text}
              metadataContains: $json
              dueAt: {gt: $moment, in: [$moment]}
              priority: {lt: $number, in: [$number, 4711]}
              agent: {id: {in: [$id]}, type: {eq: "a literal'"}}
              status: {in: [SKIPPED], not: CANCELLED}
            }
          ) { totalCount nodes { tasks: subtasks(first: 43) { totalCount } } }
        }""",
        after=pool.cursors["TaskOrder.CREATED_AT_ASC"][0],
        text="it's $1 \\ {} :name %s",
        json={"it's": [":name %s"]},
        moment="2031-03-03T03:03:03Z",
        id="3de01f6c-4c11-4d5a-9d5e-0c4f6a7f3a11",
        number=90210,
    )

    assert answer.data["tasks"]["totalCount"] == 0
    (statement,) = answer.statements
    texts = ("it's", ":name", "%s", "2031", "2026", "3de01f6c", "SKIPPED", "CANCELLED", "literal")
    assert [value for value in texts if value in statement] == []
    assert str(people.users["owner"].id)[:8] not in statement
    numbers = set(re.findall(r"(?<![$\w])\d+", statement))
    assert numbers & {"97", "43", "4711", "90210"} == set()


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had, where the system tells."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("only Linux tells how much memory a process has used")
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"), re.MULTILINE)
    return int(peak) * 1024


async def test_what_may_be_long_is_not_copied_for_each_field_beside_it(
    database: db.Database, people: People
) -> None:
    aliases = " ".join(f"a{number}: title" for number in range(80))
    async with database.write(db.Viewer()) as session:
        owner = people.users["owner"]
        conversation = await db.Conversation.create(session, title="long", user_id=owner.id)
        for number in range(10, 60):
            message = db.Message(sequence=number, sender="USER", content=str(number) * 50_000)
            message.conversation_id = conversation.id
            session.add(message)
    query = f"""query($id: ID!) {{
        conversation(id: $id) {{ messages {{ nodes {{ content }} }} {aliases} }} }}"""

    answer = await people.owner.ask(query, id=str(conversation.id))

    assert len(answer.text) > 4_000_000
    ((connection, _),) = database._prepared._idle
    assert peak_memory(connection.get_server_pid()) < 200_000_000


UNPLANNED = {
    "introspection": '{ __type(name: "Project") { name fields { name } } }',
    "nothing at all": "{ me @skip(if: true) { id } }",
    "a variable inside a literal of JSON": """query($id: ID!) {
        projects(where: {metadataContains: {a: [$id]}}) { nodes { id } } }""",
}


async def test_what_cannot_be_planned_goes_to_the_resolvers(
    people: People, resolvers: People, pool: Pool
) -> None:
    for kind, query in UNPLANNED.items():
        variables = {"id": pool.ids["Project"][0]} if "$id" in query else {}

        planned = await people.admin.ask(query, **variables)
        resolved = await resolvers.admin.ask(query, **variables)

        assert planned.data is not None, kind
        assert planned.text == resolved.text, kind
        assert planned.statements == resolved.statements, kind


# What the compiler has no rule for, and why.
RESOLVED = {
    "Query.criticalPath": "it takes an algorithm",
    "Query.taskGraph": "it takes an algorithm",
}


def test_the_compiler_has_a_rule_for_every_field() -> None:
    query = graphql_schema.query_type
    assert query is not None
    pending: list[Any] = [query]
    unknown, seen = set(), set()
    while pending:
        kind = pending.pop()
        if kind.name in seen:
            continue
        seen.add(kind.name)
        for name, field in kind.fields.items():
            declaration = field.extensions[BACKREF]
            named = get_named_type(field.type)
            if not isinstance(declaration, Declared):
                unknown.add(f"{kind.name}.{name}")
                continue  # what is below goes with it
            if isinstance(named, GraphQLInterfaceType):
                pending += graphql_schema.get_possible_types(named)
            if isinstance(named, GraphQLObjectType):
                pending.append(named)

    assert unknown == RESOLVED.keys()
    assert len(seen) > 40


WRONG = {
    "an id that is none": '{ project(id: "nonsense") { id } }',
    "an id of something else": '{ project(id: "QWdlbnQ6eA==") { id } }',
    "a cursor that is none": '{ me { id } projects(after: "nonsense") { nodes { id } } }',
    "a cursor below": '{ projects { nodes { tasks(before: "") { totalCount } } } }',
    "a page too large": "{ projects { nodes { tasks(first: 101) { totalCount } } } }",
    "a null where a condition is needed": "{ projects(where: {name: {eq: null}}) { totalCount } }",
    "a moment without a time zone": '{ projects(where: {createdAt: {gt: "2026-01-01T00:00"}}) '
    "{ totalCount } }",
    "a field that there is not": "{ projects { nodes { title } } }",
    "a value of another type": "{ projects(first: 1.5) { totalCount } }",
    "a variable that is missing": "query($id: ID!) { project(id: $id) { id } }",
    "no GraphQL": "{ projects { nodes",
}


# What is wrong with a value is told also where nothing depends on it.
WRONG_VALUES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "$n: Int": (
        {"n": 1000},
        [
            "tasks(first: $n) { totalCount }",
            "tasks(last: $n) { __typename }",
            "tasks(first: $n) { pageInfo { hasPreviousPage } }",
            "tasks(first: $n) { totalCount nodes @skip(if: true) { id } }",
            "projects { nodes { tasks(first: $n) { totalCount } } }",
            "me { projects(last: $n) { totalCount } }",
        ],
    ),
    "$id: ID!": (
        {"id": "garbage"},
        [
            "tasks(where: {id: {eq: $id}}) { pageInfo { hasPreviousPage } }",
            "tasks(where: {agentId: {in: [$id]}}, last: 1) { pageInfo { hasNextPage } }",
            "tasks(where: {id: {eq: $id}}) { pageInfo { endCursor @skip(if: true) } }",
            "projects { nodes { tasks(where: {id: {eq: $id}}) { pageInfo { __typename } } } }",
        ],
    ),
    "$words: String!": (
        {"words": "x" * 1001},
        ["searchMessages(query: $words) { pageInfo { hasPreviousPage } }"],
    ),
}


@pytest.mark.parametrize("variable", WRONG_VALUES)
async def test_a_wrong_value_is_told_whether_it_matters_or_not(
    people: People, resolvers: People, pool: Pool, variable: str
) -> None:
    values, selections = WRONG_VALUES[variable]
    for selection in selections:
        query = f"query({variable}) {{ {selection} }}"
        resolved = await resolvers.admin.ask(query, **values)
        assert resolved.code == "BAD_USER_INPUT", selection
        for _ in range(2):  # by a plan that is made, and by one that is known
            planned = await people.admin.ask(query, **values)
            assert planned.text == resolved.text, selection


async def test_errors_are_worded_alike(people: People, resolvers: People, pool: Pool) -> None:
    for kind, query in WRONG.items():
        planned = await people.admin.ask(query)
        resolved = await resolvers.admin.ask(query)

        assert planned.text == resolved.text, kind
        assert planned.code in ("BAD_USER_INPUT", "BAD_REQUEST"), kind


async def test_an_error_of_the_statement_is_worded_and_betrays_nothing(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(builder: StatementBuilder, _: object) -> CompiledStatement:
        secret = literal_column("'secret'::integer::text", Text)
        return compiled.compile_json(builder, (secret,))

    monkeypatch.setattr("graph.compiler.compile_json", broken)

    answer = await people.owner.ask("{ me { id } }")

    assert answer.code == "FAULT"
    assert "secret" not in answer.text
    assert "division" not in answer.text


async def test_nothing_large_is_kept_of_what_is_asked(limited: People) -> None:
    query = "query($where: TaskFilter) { tasks(where: $where) { totalCount } }"
    for number in (1, 2):
        known = await limited.owner.ask(query, where={"title": {"eq": str(number)}})
        assert known.data == {"tasks": {"totalCount": 0}}
    tracemalloc.start()
    for number in range(3000, 3010):
        refused = await limited.owner.ask(query, where={"or": [{"title": {"eq": "x"}}] * number})
        assert refused.code == "LIMIT_EXCEEDED"
    del refused
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert kept < 1_000_000


async def test_who_asks_whether_the_server_answers_asks_no_database(people: People) -> None:
    answer = await people.nobody.ask("{ __typename a: __typename }")

    assert answer.data == {"__typename": "Query", "a": "Query"}
    assert answer.statements == []


MIXED = {
    "introspection": (
        '{ __type(name: "Task") { name } me { username } projects { totalCount } }',
        2,
    ),
    "the type of the root": ("{ __typename me { username } }", 1),
    "an argument that is wrong": ('{ me { username } node(id: "x") { id } }', 1),
}


@pytest.mark.parametrize("kind", MIXED)
async def test_each_root_field_that_compiles_has_a_statement_of_its_own(
    people: People, resolvers: People, pool: Pool, kind: str
) -> None:
    query, statements = MIXED[kind]
    for _ in range(2):
        compiled = await people.owner.ask(query)
        resolved = await resolvers.owner.ask(query)

        assert compiled.text == resolved.text
        assert len(compiled.statements) == statements
        assert all(sql.startswith("SELECT convert_to(") for sql in compiled.statements)


async def test_values_of_an_input_make_no_other_statement(people: People, made: list[Any]) -> None:
    query = """mutation($input: CreateProjectInput!, $first: Int) { createProject(input: $input) {
        project { name members(first: $first) { nodes { user { username } } } } } }"""
    inputs: list[dict[str, Any]] = [
        {"name": "a"},
        {"name": "b", "metadata": {"c": [True]}},
        {"name": "d"},
    ]

    for input in inputs:
        answer = await people.owner.ask(query, input=input, first=1)
        assert answer.data["createProject"]["project"] == {
            "name": input["name"],
            "members": {"nodes": [{"user": {"username": "owner"}}]},
        }
    assert len(made) == 1
    await people.owner.ask(query, input={"name": "e"}, first=None)
    assert len(made) == 2


async def test_what_compiling_a_mutation_costs_is_asked_before_it_runs(
    database: db.Database, people: People
) -> None:
    settings = Settings(max_cost=100, rate_burst=1_000, rate_per_second=1)
    codes = []
    async with serving(database, settings) as http:
        owner = people.owner.through(http)
        for place in range(6):
            query = f"""mutation($input: CreateProjectInput!) {{ createProject(input: $input) {{
                p{place}: project {{ id name status version }} }} }}"""
            answer = await owner.ask(query, input={"name": f"{place}"})
            codes.append("errors" in answer.body)
    assert codes[0] is False
    assert codes[-1] is True
    made = await people.owner.ask("{ projects { totalCount } }")
    assert made.data["projects"]["totalCount"] == codes.count(False)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The statements of which plans are made."""
    found: list[Any] = []

    def noted(builder: StatementBuilder, json: Any) -> Any:
        found.append(json)
        return compile_json(builder, json)

    compile_json = compiled.compile_json
    monkeypatch.setattr(compiler, "compile_json", noted)
    return found


async def test_a_plan_is_made_once_for_all_who_ask_meanwhile_and_paid_once(
    database: db.Database, people: People, made: list[Any]
) -> None:
    query = "{ projects { nodes { name } } agents { nodes { name } } tasks { nodes { title } } }"
    async with serving(database, Settings()) as http:
        owner = people.owner.through(http)
        before = await owner.request(query="{ __typename }", extensions={"cost": True})

        answers = await asyncio.gather(*(owner.ask(query) for _ in range(30)))

        after = await owner.request(query="{ __typename }", extensions={"cost": True})
    assert {answer.text for answer in answers} == {answers[0].text}
    assert answers[0].data["projects"] == {"nodes": []}
    assert len(made) == 1
    spent = [told.body["extensions"]["cost"]["left"] for told in (before, after)]
    # Each is paid as often as it is asked, its document and its plan once.
    assert spent[0] - spent[1] < 30 * 151 + 1_500


async def test_who_owes_something_has_no_plan_made(
    database: db.Database, people: People, made: list[Any]
) -> None:
    settings = Settings(max_cost=100, rate_burst=1_000, rate_per_second=1)
    queries = [f"{{ n{place}: projects(first: 1) {{ nodes {{ name }} }} }}" for place in range(12)]
    async with serving(database, settings) as http:
        owner = people.owner.through(http)

        answers = await asyncio.gather(*(owner.ask(query) for query in queries))

    refused = [answer for answer in answers if "errors" in answer.body]
    assert {answer.code for answer in refused} == {"RATE_LIMITED"}
    # 75 for each of three fields, and 10 for each token: some are paid, and the next is owed.
    assert 1 <= len(made) <= 4
    assert len(made) + len(refused) == 12
