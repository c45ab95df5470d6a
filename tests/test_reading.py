"""Reading a graph: what comes back, and in how many statements."""

from __future__ import annotations

import re
from statistics import median
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    is_leaf_type,
    is_required_argument,
)
from sqlalchemy import URL, delete, select, text, update

import db
from db.events.positions import number_all
from db.statements import Statement
from graph.core import loaders
from graph.core.entities import entities
from graph.schema import graphql_schema
from tests import factories
from tests.client import Answer
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.factories import Plan, gid
from tests.operations import Shown, lookup_of

GRAPH = """{
  projects(first: 100) { nodes {
    name
    owner { username }
    agents { totalCount nodes { name model { provider } } }
    tasks { edges { node {
      title
      agent { name }
      parentTask { title }
      dependencies { nodes { onFailure dependency { title } } }
    } } }
  } }
}"""


async def make_plan(
    database: db.Database, people: People, projects: int, agents: int = 2, tasks: int = 3
) -> Plan:
    """Projects of the owner with their agents, which run on one model, and tasks."""
    async with database.write(db.Viewer()) as session:
        return await factories.make_plan(
            session,
            people.users["owner"],
            projects=projects,
            agents=agents,
            tasks=tasks,
            model=await factories.make_model(session),
        )


def columns(statement: str) -> set[str]:
    """The columns that a statement of the resolvers brings, each as table.column."""
    selected = statement.split("\nFROM")[0]
    return {f"{table}.{name}" for table, name in re.findall(r"(\w+?)(?:_\d+)?\.(\w+)", selected)}


@pytest.mark.parametrize("projects", [1, 20, 100])
async def test_a_graph_takes_as_many_statements_for_100_parents_as_for_1(
    database: db.Database, people: People, resolvers: People, projects: int
) -> None:
    await make_plan(database, people, projects)

    answer = await resolvers.owner.ask(GRAPH)

    found = answer.data["projects"]["nodes"]
    assert len(found) == projects
    assert found[-1]["name"] == f"Project {projects - 1}"
    assert found[-1]["owner"] == {"username": "owner"}
    assert found[-1]["agents"]["totalCount"] == 2
    assert found[-1]["agents"]["nodes"][1] == {"name": "Agent 1", "model": {"provider": "OpenAI"}}
    assert [edge["node"] for edge in found[-1]["tasks"]["edges"]][2] == {
        "title": "Task 2",
        "agent": {"name": "Agent 0"},
        "parentTask": {"title": "Task 0"},
        "dependencies": {"nodes": [{"onFailure": "SKIP", "dependency": {"title": "Task 1"}}]},
    }
    # Projects with their owners; agents with their models; how many; tasks with their agents and
    # parents; dependencies with what is waited for.
    assert len(answer.statements) == 5

    planned = await people.owner.ask(GRAPH)
    assert len(planned.statements) == 1
    assert planned.text == answer.text


async def test_a_list_takes_one_statement_for_700_parents(
    database: db.Database, people: People, resolvers: People
) -> None:
    await make_plan(database, people, projects=7, tasks=100)

    answer = await resolvers.owner.ask(
        "{ projects { nodes { tasks(first: 100) { nodes { title dependencies { nodes"
        " { dependency { title } } } } } } } }"
    )

    waits = [
        (task["title"], *(edge["dependency"]["title"] for edge in task["dependencies"]["nodes"]))
        for project in answer.data["projects"]["nodes"]
        for task in project["tasks"]["nodes"]
    ]
    first, *others = waits[600:]
    assert len(waits) == 700
    assert first == ("Task 0",)
    assert others == [(f"Task {place}", f"Task {place - 1}") for place in range(1, 100)]
    assert len(answer.statements) == 3


async def test_a_statement_that_is_made_again_reads_the_same(
    database: db.Database, people: People, resolvers: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = await make_plan(database, people, projects=1)
    async with database.write(db.Viewer()) as session:
        tool = await factories.make_tool(session, plan.project, name="saw")
        for agent in await session.scalars(select(db.Agent)):
            session.add(db.AgentTool(agent_id=agent.id, tool_id=tool.id))
    query = "{ agents { nodes { model { provider } tools { tool { name } } } } }"

    for _ in range(3):
        # The first one reads no agents, so that the statement for their tools is compiled later.
        for viewer, found in ((resolvers.stranger, 0), (resolvers.owner, 2)):
            # SQLAlchemy still has the one before compiled, with its loader options.
            monkeypatch.setattr(loaders, "_pages", Statement(loaders._pages.build))
            nodes = (await viewer.ask(query)).data["agents"]["nodes"]
            assert [node["tools"] for node in nodes] == [[{"tool": {"name": "saw"}}]] * found


async def test_a_relation_with_the_same_arguments_is_read_once_under_whatever_names(
    database: db.Database, people: People, resolvers: People
) -> None:
    await make_plan(database, people, projects=20)

    answer = await resolvers.owner.ask(
        """query($two: Int) { projects { nodes {
          a: tasks(first: 2) { nodes { title } }
          b: tasks(first: $two) { edges { node { priority } } pageInfo { hasNextPage } }
          ...More
          other: tasks(first: 3) { nodes { title } }
        } } }
        fragment More on Project { c: tasks(first: 2) { nodes { title status } } }""",
        two=2,
    )

    project = answer.data["projects"]["nodes"][19]
    assert project["a"] == {"nodes": [{"title": "Task 0"}, {"title": "Task 1"}]}
    assert project["b"]["edges"] == [{"node": {"priority": 3}}] * 2
    assert project["b"]["pageInfo"] == {"hasNextPage": True}
    assert project["c"]["nodes"][1] == {"title": "Task 1", "status": "PENDING"}
    assert len(project["other"]["nodes"]) == 3
    assert len(answer.statements) == 3


async def test_root_fields_with_the_same_arguments_share_a_statement(
    database: db.Database, people: People, resolvers: People
) -> None:
    plan = await make_plan(database, people, projects=3)

    answer = await resolvers.owner.ask(
        """query($one: ID!, $two: ID!) {
          a: projects { nodes { name } }
          b: projects { nodes { status } totalCount }
          c: projects(where: {name: {eq: "Project 1"}}) { totalCount }
          d: project(id: $one) { name }
          e: project(id: $two) { name status }
        }""",
        one=gid(plan.projects[0]),
        two=str(plan.projects[1].id),
    )

    assert answer.data["a"]["nodes"][2] == {"name": "Project 2"}
    assert answer.data["b"] == {"nodes": [{"status": "DRAFT"}] * 3, "totalCount": 3}
    assert answer.data["c"] == {"totalCount": 1}
    assert answer.data["d"] == {"name": "Project 0"}
    assert answer.data["e"] == {"name": "Project 1", "status": "DRAFT"}
    # The page of a and b, two counts, and both lookups at once.
    assert len(answer.statements) == 4


@pytest.mark.parametrize(
    ("one", "other"), [("{x: 1}", "{x: true}"), ("{x: {}}", "{x: []}"), ("{x: 0}", "{x: false}")]
)
async def test_arguments_that_python_holds_for_equal_are_told_apart(
    database: db.Database, resolvers: People, one: str, other: str
) -> None:
    async with database.write(db.Viewer()) as session:
        for name, value in (("1", 1), ("true", True), ("{}", {}), ("[]", []), ("0", 0)):
            await factories.make_project(
                session, resolvers.users["owner"], name, project_metadata={"x": value}
            )
        await factories.make_project(
            session, resolvers.users["owner"], "false", project_metadata={"x": False}
        )

    answer = await resolvers.owner.ask(
        f"{{ a: projects(where: {{metadataContains: {one}}}) {{ nodes {{ name }} }}"
        f" b: projects(where: {{metadataContains: {other}}}) {{ nodes {{ name }} }} }}"
    )

    named = [answer.data[alias]["nodes"][0]["name"] for alias in "ab"]
    assert [f"{{x: {name}}}" for name in named] == [one, other]


async def test_only_what_is_selected_is_read(
    database: db.Database, people: People, resolvers: People
) -> None:
    await make_plan(database, people, projects=2)

    async def asked(query: str) -> Answer:
        answer = await resolvers.owner.ask(query)
        assert answer.data
        return answer

    nothing = await asked("{ projects { __typename } }")
    assert nothing.statements == []

    (count,) = (await asked("{ projects { totalCount } }")).statements
    assert columns(count) == set()
    assert "count(*)" in count

    (page, count) = (await asked("{ projects { nodes { tasks { totalCount } } } }")).statements
    assert columns(page) == {"projects.id", "projects.created_at"}
    assert "count(*)" in count
    assert columns(count) == {"tasks.project_id"}

    (page,) = (await asked("{ projects(orderBy: NAME_ASC) { nodes { status } } }")).statements
    assert columns(page) == {"projects.id", "projects.name", "projects.status"}

    (page,) = (await asked("{ tasks { nodes { title agent { name } } } }")).statements
    assert columns(page) == {
        *("tasks.id", "tasks.title", "tasks.created_at", "tasks.agent_id"),
        *("agents.id", "agents.name"),
    }


async def test_an_object_asked_for_by_every_form_of_its_id_shows_all_that_is_selected(
    database: db.Database, people: People
) -> None:
    plan = await make_plan(database, people, projects=1)

    answer = await people.owner.ask(
        """query($global: ID!, $bare: ID!) {
          a: node(id: $global) { ... on Project { status } }
          b: node(id: $bare) { id ... on Project { name } }
          c: project(id: $bare) { version }
        }""",
        **{"global": gid(plan.project), "bare": str(plan.project.id)},
    )

    assert answer.data == {
        "a": {"status": "DRAFT"},
        "b": {"id": gid(plan.project), "name": "Project 0"},
        "c": {"version": 1},
    }


async def test_postgresql_itself_counts_as_many_statements(
    database: db.Database, database_url: URL, people: People
) -> None:
    await make_plan(database, people, projects=20)
    # Of one connection, which has said so, PostgreSQL's own figures are exact at any time.
    single = db.Database(database_url, pool_size=1)

    async def committed() -> int:
        """The transactions so far; each read is one, as reads are part of no other."""
        for value in ("pg_stat_force_next_flush()::text", "(SELECT count(*) FROM pg_database)"):
            for by_key in (False, True):
                await single.json(f"SELECT to_json({value})", [], by_key=by_key)
        async with single.read() as session:
            await session.execute(text("SELECT pg_stat_force_next_flush()"))
            await session.execute(text("SELECT 1"))
            so_far = "SELECT pg_stat_get_db_xact_commit(oid) FROM pg_database WHERE datname ="
            return int(await session.scalar(text(f"{so_far} current_database()")))

    counted: dict[bool, list[int]] = {True: [], False: []}
    for compiler, counts in counted.items():
        settings = WITHOUT_LIMITS.model_copy(update={"compiler": compiler})
        async with serving(single, settings) as http:
            for _ in range(5):
                nothing = await committed() - await committed()
                before = await committed()
                answer = await people.owner.through(http).ask(GRAPH)
                counts.append(await committed() - before + nothing)
                assert answer.data
    await single.dispose()

    # At first the driver asks for types, and now and then an autovacuum counts too, before or
    # after: so the median is the true figure. One of them is the look-up of the token.
    assert {compiler: median(counts) for compiler, counts in counted.items()} == {True: 2, False: 6}


async def test_a_long_way_through_one_relation_is_followed_to_its_end(
    database: db.Database, people: People, resolvers: People
) -> None:
    """What is loaded on the way for one task is no less than what another one needs."""
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, people.users["owner"])
        chain: list[db.Task] = []
        for place in range(12):
            parent = chain[-1].id if chain else None
            chain.append(
                await factories.make_task(session, project, str(place), parent_task_id=parent)
            )
        for later in range(1, 12):
            for earlier in range(later):
                await factories.make_dependency(session, chain[later], chain[earlier])
    up = "parentTask { " * 7 + "title" + " }" * 7
    back = "dependencies { nodes { dependency { " * 4 + "title" + " } } }" * 4

    for way in (up, back):
        query = f"{{ tasks(orderBy: CREATED_AT_ASC) {{ nodes {{ id {way} }} }} }}"
        planned, resolved = await people.owner.ask(query), await resolvers.owner.ask(query)

        assert planned.text == resolved.text
        assert len(planned.statements) == 1
        assert len(planned.data["tasks"]["nodes"]) == 12

    answer = await resolvers.owner.ask(
        f"{{ tasks(orderBy: CREATED_AT_ASC) {{ nodes {{ {up} }} }} }}"
    )
    for place, task in enumerate(answer.data["tasks"]["nodes"]):
        for _ in range(min(place, 7)):
            task = task["parentTask"]
        assert task == ({"title": str(place - 7)} if place >= 7 else {"parentTask": None})


def whole(kind: object, depth: int) -> str:
    """The selection of all fields of a type, down to this depth."""
    if not isinstance(kind, Shown):
        return ""
    # Only nodes count: a connection or a dependency is on the way to them.
    below = depth - 1 if kind.interfaces else depth
    fields = [
        f"{name}{required(field)} {whole(get_named_type(field.type), below)}"
        for name, field in kind.fields.items()
        if below > 0 or is_leaf_type(get_named_type(field.type))
    ]
    if isinstance(kind, GraphQLInterfaceType):
        # What its types share is selected once, and in each what it alone has.
        for of in graphql_schema.get_possible_types(kind):
            own = " ".join(name for name in of.fields if name not in kind.fields)
            fields.append(f"... on {of.name} {{ {own} }}")
    return f"{{ __typename {' '.join(fields)} }}"


def required(field: GraphQLField) -> str:
    """The arguments of a field that are required: words that are found."""
    names = [name for name, argument in field.args.items() if is_required_argument(argument)]
    assert names in ([], ["query"]), names
    return '(query: "plain")' if names else ""


def shown(value: Any, found: set[tuple[str, str]]) -> None:
    """Add the fields that have a value, each with its type, to what was found."""
    if isinstance(value, list):
        for item in value:
            shown(item, found)
    elif isinstance(value, dict) and "__typename" in value:
        for name, below in value.items():
            if below is not None and below != []:
                found.add((value["__typename"], name))
            shown(below, found)


async def make_few_events(database: db.Database, people: People) -> None:
    """A log of a few changes: by a user with a token, and by an agent."""
    async with database.write(db.Viewer()) as session:
        await session.execute(delete(db.Event))
        agent = await session.scalar(select(db.Agent.id).limit(1))
    users = db.Viewer(user_id=people.users["owner"].id, token_id=db.new_id())
    for viewer in (users, db.Viewer(agent_id=agent)):
        async with database.write(viewer) as session:
            await session.execute(update(db.Project).values(name="changed"))
            await session.execute(update(db.Project).values(name="again"))
    await number_all(database)


# What concerns one project or one viewer, which tests of their own read.
SOME = {"agentInbox", "pendingInteractions", "readyTasks"}


async def test_every_field_of_every_type_shows_what_there_is(
    database: db.Database, people: People, resolvers: People
) -> None:
    async def ask(query: str) -> Answer:
        """The answer, which the compiler and the resolvers have to agree on."""
        compiled, resolved = [await each.admin.ask(query) for each in (people, resolvers)]
        assert compiled.text == resolved.text, query
        return compiled

    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)
    await make_few_events(database, people)
    found: set[tuple[str, str]] = set()
    query = graphql_schema.query_type
    assert query is not None
    lookups = {"conversationByUrl": 'url: "url-0"'}

    for name, field in query.fields.items():
        if name == "usageSummary":  # a list of rows without ids
            every = "groupBy: [PROJECT, AGENT, MODEL, TASK, USER, HOUR]"
            answer = await ask(f"{{ {name}({every}) {whole(get_named_type(field.type), 1)} }}")
            shown(answer.data[name], found)
        elif name in SOME:
            pass
        elif "first" in field.args:
            words = '(query: "plain")' if "query" in field.args else ""
            answer = await ask(f"{{ {name}{words} {whole(get_named_type(field.type), 2)} }}")
            shown(answer.data[name], found)
            nodes = answer.data[name]["nodes"]
            assert len(nodes) == answer.data[name]["totalCount"] > (1 if words else 3), name
            assert [edge["node"] for edge in answer.data[name]["edges"]] == nodes
            found.add(("Query", name))
            if name == "events":
                continue  # which have no ids
            if not words:
                shows = get_named_type(field.type).name.removesuffix("Connection")
                lookups[lookup_of(shows)] = f'id: "{nodes[0]["id"]}"'
            lookups["node"] = f'id: "{nodes[0]["id"]}"'
            lookups["nodes"] = f'ids: ["{nodes[1]["id"]}", "{nodes[0]["id"]}"]'
        found.add(("Query", name))
    for name, argument in lookups.items():
        selection = "{ id }"
        kind = get_named_type(query.fields[name].type)
        if name not in ("node", "nodes"):
            selection = whole(kind, 1)
        answer = await ask(f"{{ {name}({argument}) {selection} }}")
        assert answer.data[name]
        found.add(("Query", name))
    answer = await ask(f"{{ me {whole(graphql_schema.get_type('User'), 1)} }}")
    assert answer.data["me"]["username"] == "admin"

    missing = {
        (kind.name, name)
        for kind in graphql_schema.type_map.values()
        if isinstance(kind, GraphQLObjectType)
        if kind.name in {kind for kind, _ in found}
        for name in kind.fields
    } - found
    assert missing == {
        # Only for tasks that wait for a time or for a person: tests/test_readiness.py has them.
        ("NotReady", "until"),
        ("NotReady", "interaction"),
        ("Idle", "until"),
        # Only if no agent does its work, or a budget is used up: tests/test_obstacles.py has them.
        ("Stuck", "agent"),
        ("Stuck", "budget"),
        ("Stuck", "until"),
        # Only of claims that are traced: tests/test_tracing.py has them.
        ("TaskAttempt", "traceparent"),
    }
    assert {kind for kind, _ in found} > {e.name for e in entities() if not e.is_interface}
