"""Filters: each operator on each type, and any filter at all against the same one in Python."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

import db
from db.writes import insert_many
from graph.core.scalars import format_moment
from graph.schema import graphql_schema
from tests import factories
from tests.conftest import People
from tests.factories import gid, minutes
from tests.operations import Pool, collections
from tests.oracle import Everything, Filters

EXAMPLES = int(os.environ.get("TROUPE_EXAMPLES", "25"))


@pytest.fixture(params=["compiler", "resolvers"])
async def viewers(request: pytest.FixtureRequest, people: People, resolvers: People) -> People:
    """The viewers, once answered by the compiler, once by the resolvers."""
    return people if request.param == "compiler" else resolvers


@pytest.fixture
async def plan(database: db.Database, people: People) -> dict[str, Any]:
    """A few tasks that differ in whatever can be filtered, and what they belong to."""
    async with database.write(db.Viewer()) as session:
        owner = people.users["owner"]
        project = await factories.make_project(session, owner)
        ada = await factories.make_agent(session, project, "Ada", model_id=None)
        bob = await factories.make_agent(session, project, "Bob")

        async def task(title: str, **values: Any) -> db.Task:
            return await factories.make_task(session, project, title, **values)

        dig = await task("dig", priority=1, due_at=minutes(1), agent_id=ada.id, type="a_b")
        await task("Dig", priority=2, due_at=minutes(2), agent_id=bob.id, type="axb")
        await task(
            "lay 100%", priority=3, status=db.TaskStatus.SKIPPED, cancel_requested=True, type="a%b"
        )
        await task(
            "pour",
            priority=4,
            parent_task_id=dig.id,
            status=db.TaskStatus.BLOCKED,
            blocked_reason=db.BlockedReason.MANUAL,
            task_metadata={"a": {"b": [1, 2]}, "c": None},
            type="a\\b",
        )
        await task("zip", priority=5, task_metadata={"a": {"b": [2]}, "d": True}, type="")
        return {"project": project, "ada": ada, "bob": bob, "dig": dig, "owner": owner}


ALL = ["dig", "Dig", "lay 100%", "pour", "zip"]
FILTERS: list[tuple[str, list[str]]] = [
    ("{}", ALL),
    # Texts: case counts, code points order, wildcards stand for themselves.
    ('{title: {eq: "dig"}}', ["dig"]),
    ('{title: {in: ["dig", "zip", "x"]}}', ["dig", "zip"]),
    ("{title: {in: []}}", []),
    ('{title: {not: "dig"}}', ["Dig", "lay 100%", "pour", "zip"]),
    ('{title: {gt: "dig"}}', ["lay 100%", "pour", "zip"]),
    ('{title: {gte: "dig", lt: "pour"}}', ["dig", "lay 100%"]),
    ('{title: {lte: "Dig"}}', ["Dig"]),
    ('{title: {contains: "i"}}', ["dig", "Dig", "zip"]),
    ('{title: {contains: "%"}}', ["lay 100%"]),
    ('{title: {contains: ""}}', ALL),
    ('{title: {containsInsensitive: "DI"}}', ["dig", "Dig"]),
    ('{title: {containsInsensitive: "%"}}', ["lay 100%"]),
    ('{title: {containsInsensitive: ""}}', ALL),
    ('{title: {containsInsensitive: "IG", contains: "d"}}', ["dig"]),
    ('{title: {startsWith: "d"}}', ["dig"]),
    ('{title: {startsWith: "%"}}', []),
    ('{type: {contains: "_"}}', ["dig"]),
    ('{type: {containsInsensitive: "A_"}}', ["dig"]),
    ('{type: {containsInsensitive: "A\\\\"}}', ["pour"]),
    ('{type: {containsInsensitive: "/"}}', []),
    ('{type: {startsWith: "a_"}}', ["dig"]),
    ('{type: {startsWith: "a%"}}', ["lay 100%"]),
    ('{type: {contains: "\\\\"}}', ["pour"]),
    ('{type: {startsWith: "a\\\\"}}', ["pour"]),
    ('{type: {contains: "/"}}', []),
    ("{description: {isNull: true}}", ALL),
    ('{description: {not: "x"}}', ALL),
    ('{description: {contains: ""}}', []),
    # Numbers.
    ("{priority: {eq: 3}}", ["lay 100%"]),
    ("{priority: {in: [1, 5]}}", ["dig", "zip"]),
    ("{priority: {not: 3}}", ["dig", "Dig", "pour", "zip"]),
    ("{priority: {gt: 3}}", ["pour", "zip"]),
    ("{priority: {gte: 3, lte: 4}}", ["lay 100%", "pour"]),
    ("{priority: {lt: 2}}", ["dig"]),
    ("{priority: {gt: -2147483648, lt: 2147483647, isNull: false}}", ALL),
    # Moments, in whatever time zone.
    ('{dueAt: {eq: "2026-01-01T02:01:00+02:00"}}', ["dig"]),
    ('{dueAt: {in: ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]}}', ["dig", "Dig"]),
    ('{dueAt: {not: "2026-01-01T00:01:00Z"}}', ["Dig", "lay 100%", "pour", "zip"]),
    ('{dueAt: {gt: "2026-01-01T00:01:00Z"}}', ["Dig"]),
    ('{dueAt: {gte: "2026-01-01T00:01:00Z", lte: "2026-01-01T00:02:00Z"}}', ["dig", "Dig"]),
    ('{dueAt: {lt: "2026-01-01T00:01:00.000001Z"}}', ["dig"]),
    ('{dueAt: {lt: "9998-12-31T23:59:59.999999Z"}}', ["dig", "Dig"]),
    ("{dueAt: {isNull: true}}", ["lay 100%", "pour", "zip"]),
    ("{dueAt: {isNull: false}}", ["dig", "Dig"]),
    # Choices, and yes or no.
    ("{status: {eq: SKIPPED}}", ["lay 100%"]),
    ("{status: {in: [SKIPPED, BLOCKED]}}", ["lay 100%", "pour"]),
    ("{status: {in: []}}", []),
    ("{status: {not: PENDING}}", ["lay 100%", "pour"]),
    ("{blockedReason: {not: EXTERNAL}}", ALL),
    ("{blockedReason: {isNull: false}}", ["pour"]),
    ("{cancelRequested: {eq: true}}", ["lay 100%"]),
    ("{cancelRequested: {not: true}}", ["dig", "Dig", "pour", "zip"]),
    # Ids, in both forms.
    ("{id: {eq: $dig}}", ["dig"]),
    ("{id: {not: $dig}}", ["Dig", "lay 100%", "pour", "zip"]),
    ("{agentId: {eq: $ada}}", ["dig"]),
    ("{agentId: {in: [$ada, $bob]}}", ["dig", "Dig"]),
    ("{agentId: {in: []}}", []),
    ("{agentId: {not: $ada}}", ["Dig", "lay 100%", "pour", "zip"]),
    ("{agentId: {isNull: true}}", ["lay 100%", "pour", "zip"]),
    ("{projectId: {eq: $project}}", ALL),
    # Related objects.
    ('{agent: {name: {eq: "Ada"}}}', ["dig"]),
    ("{agent: {}}", ["dig", "Dig"]),
    ('{agent: {project: {owner: {username: {eq: "owner"}}}}}', ["dig", "Dig"]),
    ("{agent: {model: {}}}", []),
    ("{parentTask: {id: {eq: $dig}}}", ["pour"]),
    ('{parentTask: {agent: {name: {startsWith: "A"}}}}', ["pour"]),
    # JSON.
    ("{metadataContains: {}}", ALL),
    ("{metadataContains: {a: {}}}", ["pour", "zip"]),
    ("{metadataContains: {a: {b: [2]}}}", ["pour", "zip"]),
    ("{metadataContains: {a: {b: [2, 1]}}}", ["pour"]),
    ("{metadataContains: {c: null}}", ["pour"]),
    ("{metadataContains: {d: true}}", ["zip"]),
    ("{metadataContains: {d: 1}}", []),
    ('{metadataContains: "text"}', []),
    # Together.
    ("{and: []}", ALL),
    ("{or: []}", []),
    ("{not: {}}", []),
    ("{not: {or: []}}", ALL),
    ("{and: [{priority: {gt: 1}}, {priority: {lt: 3}}]}", ["Dig"]),
    ("{or: [{priority: {eq: 1}}, {priority: {eq: 5}}]}", ["dig", "zip"]),
    ("{or: [{}]}", ALL),
    ("{or: [{priority: {lt: 3}}], not: {priority: {eq: 1}}}", ["Dig"]),
    # What is unknown does not hold; so what is not so may be unknown.
    ('{not: {dueAt: {eq: "2026-01-01T00:01:00Z"}}}', ["Dig", "lay 100%", "pour", "zip"]),
    ('{not: {not: {dueAt: {eq: "2026-01-01T00:01:00Z"}}}}', ["dig"]),
    ('{not: {agent: {name: {eq: "Ada"}}}}', ["Dig", "lay 100%", "pour", "zip"]),
    ('{agent: {not: {name: {eq: "Ada"}}}}', ["Dig"]),
    ("{not: {or: [{agentId: {eq: $ada}}, {priority: {eq: 5}}]}}", ["Dig", "lay 100%", "pour"]),
    ('{or: [{type: {eq: ""}}, {not: {and: [{priority: {gte: 2}}]}}]}', ["dig", "zip"]),
]


async def test_each_operator_finds_what_it_says(viewers: People, plan: dict[str, Any]) -> None:
    ids = {"project": gid(plan["project"]), "dig": str(plan["dig"].id)}
    ids |= {"ada": gid(plan["ada"]), "bob": str(plan["bob"].id).upper()}
    for start in range(0, len(FILTERS), 15):
        some = FILTERS[start : start + 15]
        fields = [
            f"f{place}: tasks(where: {where}, orderBy: PRIORITY_ASC)"
            " { totalCount nodes { title } }"
            for place, (where, _) in enumerate(some)
        ]
        used = {name: id for name, id in ids.items() if f"${name}" in str(fields)}
        definitions = [f"${name}: ID!" for name in used]
        header = f"query({', '.join(definitions)})" if used else "query"

        answer = await viewers.owner.ask(f"{header} {{ {' '.join(fields)} }}", **used)

        for place, (where, expected) in enumerate(some):
            page = answer.data[f"f{place}"]
            assert [task["title"] for task in page["nodes"]] == expected, where
            assert page["totalCount"] == len(expected), where


LETTERS = [
    ("Ünïcode ÉCLAIR", ["ünÏ", "éclair", "ÜNÏCODE ÉCLAIR"]),
    ("Straße", ["STRAß", "straße"]),
    ("ΟΔΟΣ", ["οδος", "οδοσ", "δΟ"]),
    ("οδος", ["ΟΔΟΣ", "οδοσ"]),
    ("Ёлка и ёж", ["ёлКА", "И Ё"]),
    ("Ŋwɛ Ɖeka", ["ŋWƐ", "ɖEKA"]),
    ("名前 Żółć", ["名前", "żÓŁĆ"]),
]


async def test_the_case_of_letters_does_not_matter_whatever_the_locale(
    database: db.Database, viewers: People
) -> None:
    # In the locale of the test cluster, PostgreSQL by itself knows the case of a to z only.
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, viewers.users["owner"])
        for title, _ in LETTERS:
            await factories.make_task(session, project, title)

    for title, found_by in LETTERS:
        for text in found_by:
            answer = await viewers.owner.ask(
                "query($text: String!) {"
                " tasks(where: {title: {containsInsensitive: $text}}) { nodes { title } } }",
                text=text,
            )
            assert {"title": title} in answer.data["tasks"]["nodes"], text
    for text in ("É", "d0", "%"):
        where = {"title": {"containsInsensitive": text}}
        query = "query($where: TaskFilter) { tasks(where: $where) { nodes { title } } }"
        answer = await viewers.owner.ask(query, where=where)
        expected = [title for title, _ in LETTERS if text.lower() in title.lower()]
        assert [task["title"] for task in answer.data["tasks"]["nodes"]] == expected, text


async def test_a_name_is_found_in_whatever_form_of_unicode_it_is_asked_for(
    database: db.Database, viewers: People
) -> None:
    typed = "Cafe\u0301 Mo\u0308n"
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, viewers.users["owner"])
        await project.update(session, name=typed)
        other = await factories.make_project(session, viewers.users["owner"])
        await other.update(session, name="Cafe")
        agent = {"project_id": project.id, "name": typed, "type": "WORKER"}
        await insert_many(session, db.Agent, [agent])
        await factories.make_agent(session, project, "Ada")

    async def found(noun: str, operator: str, operand: Any) -> list[str]:
        kind = f"{noun[:-1].title()}Filter"
        query = f"query($where: {kind}) {{ {noun}(where: $where) {{ nodes {{ name }} }} }}"
        variable = await viewers.owner.ask(query, where={"name": {operator: operand}})
        literal = f"{{ {noun}(where: {{name: {{{operator}: {json.dumps(operand)}}}}})"
        written = await viewers.owner.ask(f"{literal} {{ nodes {{ name }} }} }}")
        assert written.data == variable.data
        return [node["name"] for node in variable.data[noun]["nodes"]]

    name = "Caf\u00e9 M\u00f6n"
    for noun, rest in (("projects", "Cafe"), ("agents", "Ada")):
        for form in (typed, name):
            for operator, operand in (
                ("eq", form),
                ("in", [form, "x"]),
                ("contains", form[2:]),
                ("containsInsensitive", form[2:].upper()),
                ("startsWith", form[:-1]),
            ):
                assert await found(noun, operator, operand) == [name], (operator, operand)
            assert await found(noun, "not", form) == [rest]
            assert await found(noun, "gte", form) == [name]
            assert await found(noun, "gt", form) == []
            assert await found(noun, "lt", form) == [rest]


async def test_whatever_was_changed_last_comes_first(
    database: db.Database, viewers: People
) -> None:
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, viewers.users["owner"])
        for place, title in enumerate("abcd"):
            await factories.make_task(session, project, title, updated_at=minutes(place))

    answer = await viewers.owner.ask(
        "query($id: ID!) { tasks(first: 3, orderBy: UPDATED_AT_DESC) { nodes { title } }"
        " project(id: $id) { tasks(orderBy: UPDATED_AT_ASC,"
        ' where: {updatedAt: {gt: "2026-01-01T00:01:00Z"}}) { nodes { title } } } }',
        id=gid(project),
    )

    assert [task["title"] for task in answer.data["tasks"]["nodes"]] == ["d", "c", "b"]
    below = answer.data["project"]["tasks"]["nodes"]
    assert [task["title"] for task in below] == ["c", "d"]


async def test_an_order_that_is_null_is_the_default(database: db.Database, viewers: People) -> None:
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, viewers.users["owner"])
        for place, title in enumerate("cab"):
            await factories.make_task(session, project, title, created_at=minutes(place))
        talk = await factories.make_conversation(session, project_id=project.id)
        await factories.make_messages(session, talk, ["word 1", "word 2", "word 3"])
    query = """query($task: TaskOrder, $message: MessageSearchOrder = null, $id: ID!) {
      variable: tasks(orderBy: $task) { nodes { title } edges { cursor } }
      literal: tasks(orderBy: null) { nodes { title } edges { cursor } }
      without: tasks { nodes { title } edges { cursor } }
      found: searchMessages(query: "word", orderBy: $message) { nodes { content } }
      foundWithout: searchMessages(query: "word") { nodes { content } }
      project(id: $id) { tasks(orderBy: $task, last: 2) { nodes { title } } }
    }"""

    for orders in ({"task": None}, {"task": None, "message": None}, {}):
        data = (await viewers.owner.ask(query, id=gid(project), **orders)).data
        assert [task["title"] for task in data["without"]["nodes"]] == ["c", "a", "b"]
        assert data["variable"] == data["literal"] == data["without"]
        assert [task["title"] for task in data["project"]["tasks"]["nodes"]] == ["a", "b"]
        assert data["found"] == data["foundWithout"]
        assert len(data["found"]["nodes"]) == 3


REFUSED: list[tuple[str, str]] = [
    ("{title: {eq: null}}", "eq: null compares with nothing. Use isNull."),
    ("{title: {in: null}}", "in: null compares with nothing. Use isNull."),
    (
        "{title: {containsInsensitive: null}}",
        "containsInsensitive: null compares with nothing. Use isNull.",
    ),
    ("{priority: {not: null}}", "not: null compares with nothing. Use isNull."),
    ("{dueAt: {isNull: null}}", "isNull: null compares with nothing. Use isNull."),
    ("{title: null}", "title: null is no filter. Leave it out."),
    ("{agent: null}", "agent: null is no filter. Leave it out."),
    ("{metadataContains: null}", "metadataContains: null is no filter. Leave it out."),
    ("{and: null}", "and: null is no filter. Leave it out."),
    ("{or: null}", "or: null is no filter. Leave it out."),
    ("{or: [{not: null}]}", "not: null is no filter. Leave it out."),
    (
        '{id: {eq: "x"}}',
        "'x' is not the id of a Task: use its `id` or its UUID.",
    ),
    (
        '{agentId: {in: ["x"]}}',
        "'x' is not the id of an Agent: use its `id` or its UUID.",
    ),
    (
        '{projectId: {not: "VGFzazp4"}}',
        "VGFzazp4 is the id of a Task, where one of a Project is needed.",
    ),
]


async def test_a_filter_that_means_nothing_is_refused(people: People) -> None:
    for where, sentence in REFUSED:
        answer = await people.owner.ask(f"{{ tasks(where: {where}) {{ totalCount }} }}")

        assert answer.code == "BAD_USER_INPUT", where
        assert answer.errors[0]["message"] == sentence


async def test_a_model_is_found_by_its_name_and_by_its_global_id(
    database: db.Database, viewers: People
) -> None:
    async with database.write(db.Viewer()) as session:
        models = [await factories.make_model(session, id) for id in ("gpt-4o", "o3", "a:b")]

    answer = await viewers.owner.ask(
        "query($ids: [ID!]) { aiModels(where: {id: {in: $ids}}) { nodes { name } } }",
        ids=[gid(models[0]), "a:b", "unknown"],
    )

    assert answer.data["aiModels"]["nodes"] == [{"name": "a:b"}, {"name": "gpt-4o"}]


@pytest.fixture
async def everything(database: db.Database, people: People) -> Everything:
    """All that there is, much of it awkward."""
    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)
    return await Everything.read(database)


@st.composite
def filters_of(draw: DrawFn, pool: Pool, kind: Any) -> dict[str, Any]:
    """Any filter of this type, as JSON has it."""
    where: dict[str, Any] = pool.value(draw, kind, "where", depth=3)
    return where


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
async def test_any_filter_finds_what_python_finds(
    people: People, everything: Everything, data: st.DataObject
) -> None:
    pool = Pool(
        ids={
            model.__name__: [str(row.id) for row in everything.of(model)[:3]]
            for model in (collection.model for _, collection in collections())
            if model is not db.AIModel
        },
        cursors={},
        texts=[*factories.TEXTS, "a", "%", "_", "\\", "model:1", "url-3", "owner"],
        moments=[format_moment(moment) for moment in factories.MOMENTS],
    )
    viewer = data.draw(st.sampled_from(["admin", "owner", "stranger"]))
    roots = dict(collections())
    fields, definitions, variables, expected = [], [], {}, {}
    for place in range(3):
        name = data.draw(st.sampled_from(sorted(roots)))
        collection = roots[name]
        kind = graphql_schema.type_map[f"{collection.target.name}Filter"]
        where = data.draw(filters_of(pool, kind))
        fields.append(f"f{place}: {name}(where: $f{place}) {{ totalCount nodes {{ id }} }}")
        definitions.append(f"$f{place}: {kind.name}")
        variables[f"f{place}"] = where
        filters = Filters(everything, people.users[viewer])
        rows = [
            row for row in everything.of(collection.model) if everything.sees(filters.viewer, row)
        ]
        expected[f"f{place}"] = {gid(row) for row in rows if filters.met(row, where)}

    answer = await getattr(people, viewer).ask(
        f"query({', '.join(definitions)}) {{ {' '.join(fields)} }}", **variables
    )

    for name, ids in expected.items():
        assert {node["id"] for node in answer.data[name]["nodes"]} == ids, variables[name]
        assert answer.data[name]["totalCount"] == len(ids)
