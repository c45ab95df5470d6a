"""Scopes: who asks sees their own rows and no others, by whatever way a row could be reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_named_type, is_leaf_type
from sqlalchemy import event, exists, func, select, text
from sqlalchemy.orm import aliased
from sqlalchemy.util import await_only
from strawberry.utils.str_converters import to_camel_case

import db
from db import scopes
from db.statements import Statement
from graph.core import loaders
from graph.core.connections import encode_cursor
from graph.core.entities import Node, entities, entity_of
from graph.core.fields import Connected, Listed, Related, Relation
from graph.core.nodes import MAX_IDS
from graph.core.scalars import format_moment
from graph.schema import graphql_schema
from tests import factories
from tests.client import Client
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.factories import gid
from tests.operations import Shown, collections, declared, lookup_of
from tests.oracle import Everything, Someone
from tests.world import make_more

NODES = [
    entity.model
    for entity in entities()
    if issubclass(entity.graphql_type, Node) and not entity.is_subtype
]

TO_ONE = [
    relation.class_attribute
    for mapper in db.Base.registry.mappers
    if mapper.inherits is None
    for relation in mapper.relationships
    if not relation.uselist and not any(column.nullable for column in relation.local_columns)
]


@pytest.fixture
async def bearers(database: db.Database, people: People) -> dict[str, Someone]:
    """Each kind of viewer, over rows of several owners that point at each other in ways that the
    rules do not allow. Each has a token that is like their name.
    """
    bearers: dict[str, Someone] = {**people.users}
    async with database.write(db.Viewer()) as session:
        await factories.make_world(session, people.users)
    everything = await Everything.read(database)
    agents = everything.of(db.Agent)
    bearers["an agent of the owner"] = next(
        agent for agent in agents if everything.sees(people.users["owner"], agent)
    )
    async with database.write(db.Viewer()) as session:
        for name, bearer in bearers.items():
            await factories.make_token(session, name, bearer)
    return bearers


@dataclass
class Asking:
    """A viewer who asks, by one of the two ways."""

    client: Client
    bearer: Someone
    everything: Everything
    compiler: bool

    def sees(self, row: Any) -> bool:
        """Whether the viewer may see a row."""
        return self.everything.sees(self.bearer, row)

    def seen(self, model: type) -> list[Any]:
        """The rows of a model that the viewer may see."""
        return [row for row in self.everything.of(model) if self.sees(row)]

    def hidden(self, model: type) -> list[Any]:
        """The rows of a model that the viewer may not see."""
        return [row for row in self.everything.of(model) if not self.sees(row)]


@pytest.fixture(params=[True, False], ids=["compiler", "resolvers"])
async def viewers(
    request: pytest.FixtureRequest, database: db.Database, bearers: dict[str, Someone]
) -> AsyncIterator[dict[str, Asking]]:
    """The viewers by their names, once answered by the compiler, once by the resolvers."""
    everything = await Everything.read(database)
    settings = WITHOUT_LIMITS.model_copy(update={"compiler": request.param})
    async with serving(database, settings) as http:
        yield {
            name: Asking(Client(http, database, name), bearer, everything, request.param)
            for name, bearer in bearers.items()
        }


def ways(model: type) -> str:
    """A selection of an object and of all that it leads to."""
    parts = ["id"]
    for name, relation in declared(model.__name__, Relation):
        target = relation.target.model
        ends = (f"{end} {{ id }}" for end, _ in declared(target.__name__, Related))
        shown = "id" if target in NODES else " ".join(ends)
        if isinstance(relation, Connected):
            parts.append(f"{name}(first: 100) {{ totalCount nodes {{ {shown} }} }}")
        else:
            parts.append(f"{name} {{ {shown} }}")
    return " ".join(parts)


def beyond(asking: Asking, row: Any, relation: Any) -> Any:
    """What a relation of a row has to show, but for the order."""

    def shown(related: Any) -> Any:
        if not asking.sees(related):
            return None
        if isinstance(related, db.CRUD):
            return {"id": gid(related)}
        return {
            name: shown(asking.everything.related(related, end.attribute))
            for name, end in declared(type(related).__name__, Related)
        }

    if isinstance(relation, Related) and not isinstance(relation, Listed):
        return shown(asking.everything.related(row, relation.attribute))
    here, there = relation.keys
    key = getattr(row, here.key)
    rows = [row for row in asking.seen(relation.target.model) if getattr(row, there.key) == key]
    nodes = sorted((shown(row) for row in rows), key=str)
    return nodes if isinstance(relation, Listed) else {"totalCount": len(nodes), "nodes": nodes}


async def test_each_viewer_finds_all_of_theirs_and_nothing_else(
    viewers: dict[str, Asking],
) -> None:
    for name, asking in viewers.items():
        if asking.compiler and name in ("admin", "stranger"):
            continue  # To save time: what the compiler shows them, it shows in the other tests.
        for field, collection in collections():
            model = collection.model
            answer = await asking.client.ask(
                f"{{ {field}(first: 100) {{ totalCount nodes {{ {ways(model)} }} }} }}"
            )

            page = answer.data[field]
            seen = {gid(row): row for row in asking.seen(model)}
            assert {node["id"] for node in page["nodes"]} == set(seen), (name, field)
            assert page["totalCount"] == len(page["nodes"]) == len(seen)
            for node in page["nodes"]:
                for relation_name, relation in declared(model.__name__, Relation):
                    found = node[relation_name]
                    if isinstance(relation, Listed):
                        found = sorted(found, key=str)
                    elif isinstance(relation, Connected):
                        found["nodes"] = sorted(found["nodes"], key=str)
                    where = (name, model.__name__, relation_name)
                    assert found == beyond(asking, seen[node["id"]], relation), where


async def test_what_is_always_visible_is_so_in_any_world(
    database: db.Database, viewers: dict[str, Asking]
) -> None:
    """By the rules alone: the rows of this world point wherever they like."""
    hideable = set()
    for relation in TO_ONE:
        model, target = relation.class_, relation.property.mapper.class_
        ((here, there),) = relation.property.local_remote_pairs
        for asking in viewers.values():
            bearer = asking.bearer
            viewer = (
                db.Viewer(None, bearer.id)
                if isinstance(bearer, db.Agent)
                else db.Viewer(bearer.id, None, bearer.role is db.UserRole.ADMIN)
            )
            row, end = aliased(model), aliased(target)
            column = getattr(end, relation.property.mapper.get_property_by_column(there).key)
            value = getattr(row, relation.property.parent.get_property_by_column(here).key)
            shown = exists().where(column == value, db.scope(end, viewer))
            counted = select(func.count()).select_from(row).where(db.scope(row, viewer))
            async with database.read() as session:
                missing = await session.scalar(counted.where(~shown))
                assert await session.scalar(counted) == len(asking.seen(model))
            if missing:
                hideable.add(relation)
                assert not scopes.is_always_visible(relation), (relation, viewer)

    # Those that are nullable have to be, as far as this world goes.
    assert {str(relation) for relation in set(TO_ONE) - hideable} == {
        str(relation) for relation in TO_ONE if scopes.is_always_visible(relation)
    }


# Six relations are followed by one statement, and the seventh by another.
DEEP = "parentTask { " * 6 + "project { name }" + " }" * 6
LEFT = {
    "deep": f'{{ tasks(where: {{title: {{eq: "8"}}}}) {{ nodes {{ {DEEP} }} }} }}',
    "both": "{ tasks { nodes { title parentTask { project { name } parentTask { title"
    " project { name } } } } } }",
    "rows": "{ tasks { nodes { attempts { nodes { number task { project { name } } } } } } }",
    "further": "{ projects(first: 5) { nodes { tasks(first: 9) { nodes { attempts(first: 3) {"
    " nodes { task { dependencies(first: 3) { nodes { dependent { project { members(first: 3) {"
    " nodes { user { username } } } } } } } } } } } } } } }",
    "edges": "{ tasks { nodes { project { name } dependencies { nodes { dependent { title"
    " project { name members { nodes { role user { username } project { name } } } } } } } } } }",
    "talk": "{ conversations { nodes { title messages { nodes { content conversation { title"
    " messages { nodes { content conversation { title } } } } } } } } }",
    "agents": "{ agents { nodes { name tools { agent { name project { name } } }"
    " usageRecords { nodes { model { name } project { name } } } } } }",
    "members": "{ me { memberships { nodes { role user { username } project { name members { nodes"
    " { user { username memberships { nodes { role user { username } project { name } } } }"
    " } } } } } } }",
}


LOSSES = {
    "deleted": ("DELETE FROM projects", "SELECT 1"),
    "hidden": (
        "UPDATE project_members SET user_id = (SELECT id FROM users WHERE username = 'stranger')",
        "UPDATE project_members SET user_id = (SELECT id FROM users WHERE username = 'owner')",
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_is_lost_between_two_statements_is_gone_and_no_error(
    database: db.Database, people: People, resolvers: People, loss: str
) -> None:
    """Whatever the resolvers have read by then: nothing is without what it cannot be without."""
    lose, restore = LOSSES[loss]
    sent, after = 0, 0

    async def run(statement: str) -> None:
        async with database.writer.begin() as connection:
            await connection.execute(text(statement))

    def before(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal sent
        if "token_hash" not in statement:
            sent += 1
            if sent == after + 1:
                await_only(run(lose))

    engine = database.reader.sync_engine
    event.listen(engine, "before_cursor_execute", before)
    most = 0
    try:
        await _long_way(database, people.users["owner"])
        for name, query in LEFT.items():
            for after in range(1, 6):
                sent = 0
                answer = await resolvers.owner.ask(query)
                assert answer.data is not None, (name, after)
                most = max(most, sent)
                if sent <= after:
                    break
                await run(restore)
                if loss == "deleted":
                    await _long_way(database, people.users["owner"])
    finally:
        event.remove(engine, "before_cursor_execute", before)
    assert most > 3


async def _long_way(database: db.Database, owner: db.User) -> None:
    """A project of the owner with a chain of tasks, and something of each noun."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await factories.make_project(session, owner)
        chain: list[db.Task] = []
        for place in range(9):
            parent = chain[-1].id if chain else None
            title = str(place)
            chain.append(await factories.make_task(session, project, title, parent_task_id=parent))
        model = await session.get(db.AIModel, "gpt-4o")
        model = model or await factories.make_model(session, "gpt-4o")
        ada = await factories.make_agent(session, project, "Ada", model_id=model.id)
        talk = await factories.make_conversation(session, project_id=project.id)
        (said,) = await factories.make_messages(session, talk, ["Hello"])
        await make_more(session, project, ada, chain[0], talk, said, model)
        await factories.make_dependency(session, chain[8], chain[7])


async def test_the_viewers_differ_in_what_they_see(viewers: dict[str, Asking]) -> None:
    models = [db.Project, db.Task, db.Conversation, db.User, db.ProjectMember, db.Tool]
    models += [db.AgentTool, db.TaskAttempt, db.Communication, db.HumanInteraction, db.UsageRecord]
    counts = {
        name: [len(asking.seen(model)) for model in models] for name, asking in viewers.items()
    }

    assert counts == {
        "admin": [8, 12, 11, 7, 15, 12, 36, 8, 10, 14, 10],
        "owner": [5, 9, 8, 4, 10, 9, 28, 6, 8, 11, 7],
        "stranger": [2, 2, 3, 3, 4, 6, 4, 1, 2, 3, 3],
        "an agent of the owner": [1, 8, 6, 3, 3, 6, 24, 5, 6, 8, 5],
    }


async def test_an_id_of_a_hidden_row_opens_nothing(viewers: dict[str, Asking]) -> None:
    lookups = {model: lookup_of(model.__name__) for model in NODES}
    for name, asking in viewers.items():
        fields, ids, shown = [], [], []
        for model in NODES:
            for row in asking.seen(model)[:1] + asking.hidden(model)[-2:]:
                for id in (gid(row), str(row.id)):
                    fields.append(f'{lookups[model]}(id: "{id}") {{ id }}')
                    shown.append({"id": gid(row)} if asking.sees(row) else None)
                    if model is not db.AIModel or id == gid(row):
                        fields.append(f'node(id: "{id}") {{ id }}')
                        shown.append(shown[-1])
                        ids.append(id)
        aliased = (f"f{place}: {field}" for place, field in enumerate(fields))

        answer = await asking.client.ask(f"{{ {' '.join(aliased)} }}")
        at_once = []
        for start in range(0, len(ids), MAX_IDS):
            page = await asking.client.ask(
                "query($ids: [ID!]!) { nodes(ids: $ids) { id } }", ids=ids[start:][:MAX_IDS]
            )
            at_once += page.data["nodes"]

        assert list(answer.data.values()) == shown, name
        of_nodes = [
            what for what, field in zip(shown, fields, strict=True) if field.startswith("node(")
        ]
        assert at_once == of_nodes
        assert (None in shown) is (name != "admin")


async def test_an_address_of_a_hidden_conversation_opens_nothing(
    viewers: dict[str, Asking],
) -> None:
    for asking in viewers.values():
        rows = asking.everything.of(db.Conversation)
        fields = [
            f'c{place}: conversationByUrl(url: "{row.conversation_url}") {{ id }}'
            for place, row in enumerate(rows)
        ]

        answer = await asking.client.ask(f"{{ {' '.join(fields)} }}")

        shown = [{"id": gid(row)} if asking.sees(row) else None for row in rows]
        assert list(answer.data.values()) == shown


async def test_a_filter_betrays_no_hidden_row(viewers: dict[str, Asking]) -> None:
    asking = viewers["owner"]
    hidden_agent = asking.hidden(db.Agent)[0]
    hidden_ids = [gid(row) for row in asking.hidden(db.Task)]
    tasks = asking.seen(db.Task)
    assert any(task.agent_id == hidden_agent.id for task in tasks)
    answer = await asking.client.ask(
        """query($ids: [ID!]!, $agent: ID!) {
          stranger: conversations(where: {user: {username: {eq: "stranger"}}}) { totalCount }
          anybody: conversations(where: {user: {}}) { totalCount }
          other: conversations(where: {user: {username: {not: "owner"}}}) { totalCount }
          owner: projects(where: {owner: {username: {startsWith: "s"}}}) { totalCount }
          agent: tasks(where: {agent: {id: {eq: $agent}}}) { totalCount nodes { id } }
          deep: tasks(where: {agent: {project: {owner: {role: {in: [USER, ADMIN]}}}}}) {
            nodes { agent { id } } }
          byId: tasks(where: {id: {in: $ids}}) { totalCount nodes { id } }
          notMine: tasks(where: {not: {project: {owner: {username: {eq: "owner"}}}}}) {
            totalCount }
          parent: tasks(where: {parentTask: {id: {in: $ids}}}) { totalCount }
          either: tasks(where: {or: [{id: {in: $ids}}, {agent: {id: {eq: $agent}}}]}) {
            totalCount }
        }""",
        ids=hidden_ids,
        agent=str(hidden_agent.id),
    )

    data = answer.data
    mine = [row for row in asking.seen(db.Conversation) if row.user_id == asking.bearer.id]
    assert data["anybody"] == {"totalCount": len(mine)}
    assert all(task["agent"] is not None for task in data["deep"]["nodes"])
    assert len(data["deep"]["nodes"]) == sum(
        asking.sees(asking.everything.related(task, db.Task.agent)) for task in tasks
    )
    for name in ("stranger", "other", "owner", "agent", "byId", "notMine", "parent", "either"):
        assert data[name]["totalCount"] == 0, name


async def test_a_filter_by_the_id_of_a_hidden_row_is_one_by_an_id_that_there_is_not(
    viewers: dict[str, Asking],
) -> None:
    """Whether a row that one sees points at a row that one does not see is not to be guessed."""
    asking = viewers["owner"]
    everything = asking.everything
    fields: list[str] = []
    expected: dict[str, int] = {}
    met = set()
    for name, collection in collections():
        seen = asking.seen(collection.model)
        for field in collection.target.where.__strawberry_definition__.fields:
            attribute = field.metadata.get("attribute")
            columns = getattr(getattr(attribute, "property", None), "columns", None)
            if columns is None or not columns[0].foreign_keys:
                continue
            ends = {row: everything.pointed_at(row, attribute) for row in seen}
            hidden = [end for end in ends.values() if end is not None and not asking.sees(end)]
            if not hidden:
                continue
            met.add((collection.model.__name__, field.python_name))
            id, shown = hidden[0].id, [row for row in seen if asking.sees(ends[row])]
            visible = next((ends[row].id for row in shown), None)
            graphql_name = to_camel_case(field.python_name)
            counts = {
                f'{{eq: "{id}"}}': 0,
                f'{{in: ["{id}"]}}': 0,
                f'{{in: ["{id}", "{db.new_id()}"]}}': 0,
                f'{{not: "{id}"}}': len(seen),
                f'{{eq: "{id}", isNull: true}}': 0,
                f'{{not: "{id}", isNull: false}}': len(shown),
                "{isNull: true}": len(seen) - len(shown),
                "{isNull: false}": len(shown),
            }
            if visible is not None:
                here = [row for row in shown if ends[row].id == visible]
                counts[f'{{in: ["{id}", "{visible}"]}}'] = len(here)
                counts[f'{{not: "{visible}"}}'] = len(seen) - len(here)
            for where, count in counts.items():
                alias = f"f{len(fields)}"
                fields.append(
                    f"{alias}: {name}(where: {{{graphql_name}: {where}}}) {{ totalCount }}"
                )
                expected[alias] = count

    for start in range(0, len(fields), 60):
        answer = await asking.client.ask(f"{{ {' '.join(fields[start : start + 60])} }}")
        for place, (alias, page) in enumerate(answer.data.items(), start):
            assert page["totalCount"] == expected[alias], fields[place]
    assert {
        ("HumanInteraction", "responded_by_id"),
        ("Message", "user_id"),
        ("UsageRecord", "user_id"),
        ("UsageRecord", "message_id"),
        ("Communication", "reply_to_id"),
        ("Task", "agent_id"),
    } <= met


async def test_words_find_no_hidden_message(viewers: dict[str, Asking]) -> None:
    counts, words = [], ("plain", "quoted", "Ünï", "null")
    for name, asking in viewers.items():
        found = await asking.client.ask(
            """query($words: String!) {
              all: searchMessages(query: $words) { totalCount nodes { id } }
              some: searchMessages(query: $words, where: {sender: {eq: USER}}) { nodes { id } }
            }""",
            words=" or ".join(words),
        )

        rows = [
            row for row in asking.seen(db.Message) if any(word in row.content for word in words)
        ]
        assert {node["id"] for node in found.data["all"]["nodes"]} == set(map(gid, rows)), name
        assert found.data["all"]["totalCount"] == len(rows)
        said = {gid(row) for row in rows if row.sender is db.MessageSender.USER}
        assert {node["id"] for node in found.data["some"]["nodes"]} == said
        counts.append(len(rows))
    assert len(set(counts)) > 1


async def test_a_cursor_of_somebody_else_shows_only_ones_own(viewers: dict[str, Asking]) -> None:
    asking = viewers["owner"]
    fields, expected = [], {}
    for field, collection in collections():
        for order in collection.target.order:
            # A partial order has only rows with a value.
            hidden = [r for r in asking.hidden(collection.model) if getattr(r, order.attribute)]
            for row in hidden[:1]:
                attributes = order.attribute, collection.target.key.key
                place = [getattr(row, name) for name in attributes]
                rows = {
                    gid(mine): [getattr(mine, name) for name in attributes]
                    for mine in asking.seen(collection.model)
                    if getattr(mine, order.attribute) is not None
                }
                value = format_moment(place[0]) if isinstance(place[0], datetime) else place[0]
                cursor = encode_cursor(order, row.id, value)
                for argument, greater in (("after", True), ("before", False)):
                    alias = f"{argument}_{field}_{order.name}"
                    fields.append(
                        f'{alias}: {field}(orderBy: {order.name}, {argument}: "{cursor}")'
                        " { nodes { id } }"
                    )
                    expected[alias] = {
                        id
                        for id, mine in rows.items()
                        if (mine > place) != (greater == order.descending)
                    }

    answer = await asking.client.ask(f"{{ {' '.join(fields)} }}")

    found = {alias: {node["id"] for node in page["nodes"]} for alias, page in answer.data.items()}
    assert found == expected
    # Each order of each noun of which something is hidden, either way.
    hidden = [c.target.order for _, c in collections() if asking.hidden(c.model)]
    assert len(found) == sum(2 * len(order) for order in hidden if order is not None) > 50


async def test_what_one_viewer_asked_never_answers_another(viewers: dict[str, Asking]) -> None:
    documents = [
        f"{{ projects {{ nodes {{ {ways(db.Project)} }} totalCount }} me {{ username }} }}",
        f"{{ tasks(first: 3) {{ nodes {{ {ways(db.Task)} }} pageInfo {{ endCursor }} }} }}",
        "{ conversations(where: {user: {}}) { nodes { user { username } messages"
        " { totalCount nodes { content agent { name } } } } totalCount } }",
    ]
    alone = {
        (name, document): (await viewers[name].client.ask(document)).text
        for name in ("owner", "stranger", "an agent of the owner")
        for document in documents
    }
    assert len(set(alone.values())) == len(alone)

    async def again(name: str, document: str) -> None:
        assert (await viewers[name].client.ask(document)).text == alone[name, document]

    for name, document in alone:
        await again(name, document)
    some = asyncio.Semaphore(5)

    async def at_once(name: str, document: str) -> None:
        async with some:
            await again(name, document)

    async with asyncio.TaskGroup() as group:
        for name, document in [*alone] * 2:
            group.create_task(at_once(name, document))


@pytest.mark.parametrize("compiler", [True, False])
async def test_a_model_without_a_rule_shows_nothing_to_anybody(
    database: db.Database,
    people: People,
    resolvers: People,
    monkeypatch: pytest.MonkeyPatch,
    compiler: bool,
) -> None:
    admin = (people if compiler else resolvers).admin
    async with database.write(db.Viewer()) as session:
        plan = await factories.make_plan(session, people.users["owner"])
    query = """query($project: ID!, $task: ID!) {
      agents { totalCount nodes { id } }
      project(id: $project) { agents { totalCount nodes { id } } }
      task(id: $task) { title agent { name } }
      tasks(where: {agent: {}}) { totalCount }
    }"""
    ids = {"project": gid(plan.project), "task": gid(plan.tasks[0])}
    node = f'{{ node(id: "{gid(plan.agents[0])}") {{ id }} }}'
    before = (await admin.ask(query, **ids)).data
    assert (before["agents"]["totalCount"], before["tasks"]["totalCount"]) == (2, 3)
    assert (await admin.ask(node)).data["node"]

    monkeypatch.delitem(scopes.rules, "Agent")
    # Loaders make their statements once, as the compiler does for each document.
    for name in ("_rows", "_pages", "_counts"):
        monkeypatch.setattr(loaders, name, Statement(getattr(loaders, name).build))

    answer = await admin.ask(f"{query} # {compiler}", **ids)
    assert answer.data == {
        "agents": {"totalCount": 0, "nodes": []},
        "project": {"agents": {"totalCount": 0, "nodes": []}},
        "task": {"title": "Task 0", "agent": None},
        "tasks": {"totalCount": 0},
    }
    assert (await admin.ask(f"{node} # again")).data == {"node": None}


def test_every_entity_can_be_reached_from_the_root() -> None:
    query = graphql_schema.query_type
    assert query is not None
    reached = {get_named_type(field.type).name for field in query.fields.values()}

    for entity in entities():
        assert entity_of(entity.model) is entity
        shown = graphql_schema.type_map[entity.name]
        assert isinstance(shown, Shown)
        assert any(is_leaf_type(get_named_type(field.type)) for field in shown.fields.values())
        if entity.is_subtype:
            assert isinstance(shown, GraphQLObjectType)
            assert {interface.name for interface in shown.interfaces} & reached
        elif entity.model in NODES:
            assert {entity.name, f"{entity.name}Connection"} <= reached
