"""Tools: made known, moved on their way into use, and given to agents."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import httpx
import orjson
import pytest

import db
from db import Right, ToolStatus, tools
from db.errors import Denied, NotFound
from db.tools import MOST_TOOLS
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import ADMIN, People
from tests.oracle import Everything, Someone, seen_with
from tests.test_races import waiting
from tests.world import Case, Fault, World, at, faults, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ tool { id name toolVersion description capability source toolSchema documentationUrl status"
    f" definitionHash metadata version project {{ id }} agents {{ nodes {{ isActive }} }}"
    f" }} {ERRORS} }}"
)
ATTACHED = (
    f"{{ agent {{ name version tools {{ configuration isActive tool {{ name }} }} }} {ERRORS} }}"
)


def sees_tool(everything: Everything, viewer: Someone, tool: db.Tool) -> bool:
    """Whether a viewer sees a tool: of their project, or one that all projects share."""
    return tool.project_id is None or everything.is_member(viewer, tool.project_id)


SEEN = {
    db.Tool: sees_tool,
    db.AgentTool: seen_with(db.Agent, "agent_id"),
}
CASES = {
    "createTool": Case(lambda w: {"projectId": gid(w.project), "name": "dig"}, at("projectId")),
    "updateTool": Case(lambda w: {"id": gid(w.tool), "name": "find"}),
    "transitionTool": Case(lambda w: {"id": gid(w.tool), "to": "EVALUATING"}),
    "attachTool": Case(
        lambda w: {"agentId": gid(w.ada), "toolId": gid(w.tool), "isActive": False}, at("agentId")
    ),
    "detachTool": Case(lambda w: {"agentId": gid(w.ada), "toolId": gid(w.tool)}, at("agentId")),
    "deleteTool": Case(lambda w: {"id": gid(w.tool)}),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def make_tool(
    world: World, project: db.Project | None, name: str = "hammer", **values: Any
) -> db.Tool:
    """A tool of a project, or one that all share."""
    async with world.database.write(ADMIN) as session:
        project_id = project and project.id
        return await db.Tool.create(session, project_id=project_id, name=name, **values)


def definition(description: Any, schema: Any) -> str:
    """The hash of a tool's definition."""
    text = orjson.dumps([description, schema], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


def edge(tool: db.Tool, agent: db.Agent, **values: Any) -> dict[str, Any]:
    """Input that names a tool and an agent."""
    return {"agentId": gid(agent), "toolId": gid(tool)} | values


async def test_a_tool_is_made_with_what_is_given(world: World) -> None:
    id = db.new_id()
    schema = {"type": "object", "properties": {"q": {"type": "string"}}}

    payload = await world.owner.change(
        f"createTool {WHOLE}",
        id=str(id),
        projectId=gid(world.project),
        name="search",
        toolVersion="2026-01",
        description="Searches.",
        capability="search",
        source="MCP",
        toolSchema=schema,
        documentationUrl="https://example.org/search?q=1#top",
        metadata={"team": "red"},
    )

    assert payload == {
        "tool": {
            "id": global_id("Tool", id),
            "name": "search",
            "toolVersion": "2026-01",
            "description": "Searches.",
            "capability": "search",
            "source": "MCP",
            "toolSchema": schema,
            "documentationUrl": "https://example.org/search?q=1#top",
            "status": "DISCOVERED",
            "definitionHash": definition("Searches.", schema),
            "metadata": {"team": "red"},
            "version": 1,
            "project": {"id": gid(world.project)},
            "agents": {"nodes": []},
        },
        "userErrors": [],
    }
    columns = "project_id, name, tool_version, source, status, tool_schema->>'type'"
    assert await stored(world.database, f"SELECT {columns} FROM tools WHERE id = :id", id=id) == [
        (world.project.id, "search", "2026-01", "MCP", "DISCOVERED", "object")
    ]


async def test_a_tool_needs_only_a_name_and_costs_three_statements(world: World) -> None:
    answer = await world.owner.ask(
        f"mutation($input: CreateToolInput!) {{ createTool(input: $input) {WHOLE} }}",
        input={"projectId": gid(world.project), "name": "hammer"},
    )

    tool = answer.data["createTool"]["tool"]
    assert tool == {
        "id": tool["id"],
        "name": "hammer",
        "toolVersion": "1",
        "description": None,
        "capability": None,
        "source": "USER_DEFINED",
        "toolSchema": None,
        "documentationUrl": None,
        "status": "DISCOVERED",
        "definitionHash": definition(None, None),
        "metadata": {},
        "version": 1,
        "project": {"id": gid(world.project)},
        "agents": {"nodes": []},
    }
    # The project, the row, and the tool with its agents as it is now.
    assert len(answer.statements) == 3


async def test_a_name_and_version_are_unique_in_their_project(world: World) -> None:
    await make_tool(world, world.elsewhere)
    shared = await make_tool(world, None)
    mine = {"projectId": gid(world.project), "name": "hammer"}
    made = await world.owner.change(f"createTool {WHOLE}", **mine)
    newer = await world.owner.change(f"createTool {WHOLE}", **mine, toolVersion="2")

    again = await world.refused(world.owner, "createTool", **mine)
    renamed = await world.refused(
        world.owner, "updateTool", id=newer["tool"]["id"], toolVersion="1"
    )
    everywhere = await world.refused(world.people.admin, "createTool", name="hammer")

    assert made["userErrors"] == newer["userErrors"] == []
    assert again == renamed == everywhere == [("ALREADY_EXISTS", "toolVersion")]
    for taken in (shared, world.ada):
        id = str(taken.id) if taken is shared else gid(taken)
        found = await world.refused(world.owner, "createTool", **mine | {"name": "saw"}, id=id)
        assert found == [("ALREADY_EXISTS" if taken is shared else "INVALID", "id")]


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    ada = gid(world.ada)
    wrong = {"name": "", "toolVersion": "x" * 256, "capability": "", "metadata": []}
    wrong |= {"description": "x" * 1_000_001, "documentationUrl": "javascript:alert(1)"}

    made = await world.refused(world.owner, "createTool", id=ada, projectId=ada, **wrong)
    changed = await world.refused(world.owner, "updateTool", id=ada, **wrong)
    attached = await world.refused(
        world.owner, "attachTool", agentId=gid(world.free), toolId=ada, configuration=[]
    )
    detached = await world.refused(world.owner, "detachTool", agentId="x", toolId="x")

    assert sorted(made) == sorted(("INVALID", name) for name in ["id", "projectId", *wrong])
    assert sorted(changed) == sorted(("INVALID", name) for name in ["id", *wrong])
    assert attached == [("INVALID", name) for name in ("agentId", "toolId", "configuration")]
    assert detached == [("INVALID", name) for name in ("agentId", "toolId")]


async def test_unusable_values_are_refused(world: World) -> None:
    mine = await make_tool(world, world.project)
    foreign = await make_tool(world, world.elsewhere)
    project, url = {"projectId": gid(world.project), "name": "saw"}, "documentationUrl"
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("createTool", {"projectId": gid(world.elsewhere)}, [("NOT_FOUND", "projectId")]),
        *(
            ("createTool", project | {url: value}, [("INVALID", url)])
            for value in ("", "ftp://x", "http://", "https://a b", "https://a\n", "//x")
        ),
        ("updateTool", {"id": gid(foreign)}, [("NOT_FOUND", "id")]),
        ("updateTool", {"id": gid(mine), "name": None}, [("INVALID", "name")]),
        ("updateTool", {"id": gid(mine), "metadata": None}, [("INVALID", "metadata")]),
        ("deleteTool", {"id": gid(foreign)}, [("NOT_FOUND", "id")]),
        *(
            (f"{verb}Tool", {"id": gid(mine), "expectedVersion": 2} | more, [conflict])
            for conflict in [("CONFLICT", "expectedVersion")]
            for verb, more in (("update", {}), ("delete", {}), ("transition", {"to": "REJECTED"}))
        ),
        ("attachTool", edge(foreign, world.ada), [("NOT_FOUND", "toolId")]),
        ("attachTool", edge(mine, world.bob), [("NOT_FOUND", "agentId")]),
        ("detachTool", edge(mine, world.ada), [("INVALID", "toolId")]),
        ("detachTool", edge(foreign, world.ada), [("INVALID", "toolId")]),
        ("detachTool", edge(mine, world.bob), [("NOT_FOUND", "agentId")]),
    ]
    for mutation, input, expected in cases:
        input = {"name": "saw"} | input if mutation == "createTool" else input
        assert await world.refused(world.owner, mutation, **input) == expected, (mutation, input)


async def test_what_an_update_leaves_out_stays_and_null_clears(world: World) -> None:
    tool = await make_tool(world, world.project, description="Hits.", tool_schema={"a": 1})
    given = {"source": "CUSTOM", "capability": "build", "documentationUrl": "http://x"}

    changed = await world.owner.change(
        f"updateTool {WHOLE}", id=gid(tool), **given, metadata={"k": 1}, expectedVersion=1
    )
    cleared = await world.owner.change(
        f"updateTool {WHOLE}",
        id=gid(tool),
        **dict.fromkeys(("description", "capability", "toolSchema", "documentationUrl")),
    )

    shown = changed["tool"]
    assert {name: shown[name] for name in given} == given
    assert (shown["name"], shown["description"], shown["toolSchema"]) == (
        "hammer",
        "Hits.",
        {"a": 1},
    )
    assert (shown["metadata"], shown["version"], shown["status"]) == ({"k": 1}, 2, "DISCOVERED")
    nothing = dict.fromkeys(("description", "capability", "toolSchema", "documentationUrl"))
    anew = {"definitionHash": definition(None, None), "version": 3}
    assert cleared["tool"] == shown | nothing | anew


# The hash of what a tool is.


async def test_the_hash_tells_definitions_apart_and_the_order_of_keys_is_no_matter(
    world: World,
) -> None:
    project = {"projectId": gid(world.project)}
    hashes: dict[str, set[str]] = {}
    for place, (what, description, schema) in enumerate(
        (
            ("one", "Hits.", {"b": {"d": 1, "c": [1, 2]}, "a": 2}),
            ("one", "Hits.", {"a": 2, "b": {"c": [1, 2], "d": 1}}),
            ("order of a list", "Hits.", {"a": 2, "b": {"c": [2, 1], "d": 1}}),
            ("value", "Hits.", {"a": 3, "b": {"c": [1, 2], "d": 1}}),
            ("words", "Hits!", {"a": 2, "b": {"c": [1, 2], "d": 1}}),
            ("no words", None, {"a": 2, "b": {"c": [1, 2], "d": 1}}),
            ("empty words", "", {"a": 2, "b": {"c": [1, 2], "d": 1}}),
            ("nothing", None, None),
            ("empty", None, {}),
        )
    ):
        made = await world.owner.change(
            f"createTool {WHOLE}",
            **project,
            name=f"{place}",
            description=description,
            toolSchema=schema,
        )
        hashes.setdefault(what, set()).add(made["tool"]["definitionHash"])

    assert {len(found) for found in hashes.values()} == {1}
    assert len(set.union(*hashes.values())) == len(hashes)


async def test_only_a_new_definition_changes_the_hash(world: World) -> None:
    # PostgreSQL writes this number out, and Python would read it as another kind of number.
    tool = await make_tool(world, world.project, description="Hits.", tool_schema={"max": 1e16})
    hash = tool.definition_hash

    async def change(**values: Any) -> str:
        payload = await world.owner.change(f"updateTool {WHOLE}", id=gid(tool), **values)
        return str(payload["tool"]["definitionHash"])

    assert await change(name="mallet", metadata={"k": 1}, toolVersion="2") == hash
    assert await change(description="Hits.", toolSchema={"max": 1e16}) == hash
    assert await change(description="Hits softly.") not in ("", hash)
    assert await change(toolSchema={"max": 2}) == definition("Hits softly.", {"max": 2})


# The way into use.


async def test_a_tool_goes_every_legal_way_and_no_other(world: World) -> None:
    discovered, evaluating, approved, integrated, deprecated, rejected = ToolStatus
    legal = {
        discovered: [evaluating, rejected],
        evaluating: [approved, rejected],
        approved: [integrated, rejected],
        integrated: [deprecated],
        deprecated: [],
        rejected: [],
    }
    for start in ToolStatus:
        for to in ToolStatus:
            tool = await make_tool(world, world.project, f"{start} {to}", status=start)
            payload = await world.owner.change(
                "transitionTool { tool { status version } userErrors { code path"
                " ... on IllegalTransition { current allowed } } }",
                id=gid(tool),
                to=to,
            )

            if to in legal[start]:
                moved = {"status": to, "version": 2}
                assert payload == {"tool": moved, "userErrors": []}
            else:
                error = {"code": "ILLEGAL_TRANSITION", "path": ["to"], "current": start}
                error["allowed"] = [*map(str, legal[start])]
                assert payload == {"tool": None, "userErrors": [error]}
    (unmoved,) = await stored(world.database, "SELECT count(*) FROM tools WHERE version = 1")
    assert unmoved == 36 - 7


async def test_a_move_that_is_not_legal_names_those_that_are(world: World) -> None:
    tool = await make_tool(world, world.project)

    payload = await world.owner.change(
        "transitionTool { userErrors { message } }", id=gid(tool), to="INTEGRATED"
    )

    message = "This tool is DISCOVERED and can go only to EVALUATING, REJECTED, not to INTEGRATED."
    assert payload == {"userErrors": [{"message": message}]}


# Tools that all projects share.


async def test_only_administrators_make_and_change_what_all_share(world: World) -> None:
    made = await world.people.admin.change(f"createTool {WHOLE}", name="hammer")

    id = made["tool"]["id"]
    assert made["tool"]["project"] is None
    for client in (world.owner, world.people.stranger, world.agent):
        for mutation, input in (
            ("createTool", {"name": "saw"}),
            ("updateTool", {"id": id, "name": "saw"}),
            ("transitionTool", {"id": id, "to": "REJECTED"}),
            ("deleteTool", {"id": id}),
        ):
            assert await world.error(client, mutation, **input) == "FORBIDDEN", mutation
    changed = await world.people.admin.change(f"updateTool {WHOLE}", id=id, name="saw")
    gone = await world.people.admin.change(f"deleteTool {{ deletedId {ERRORS} }}", id=id)
    assert changed["tool"]["name"] == "saw"
    assert gone == {"deletedId": id, "userErrors": []}


async def test_the_rules_of_new_tools_hold_without_the_api(world: World) -> None:
    before = await snapshot(world.database)
    owner = db.Viewer(user_id=world.people.users["owner"].id)
    hidden = db.Viewer(user_id=world.people.users["stranger"].id)
    named = {"name": "saw", "project_id": world.project.id}
    for viewer, values, error in (
        (owner, {"name": "saw"}, Denied),
        (hidden, named, NotFound),
        (hidden, {"name": "saw"}, Denied),
    ):
        with pytest.raises(error):
            async with world.database.write(viewer, Right.EDIT) as session:
                await tools.create(session, values)
    assert await snapshot(world.database) == before
    for viewer, values in ((owner, named), (ADMIN, {"name": "saw"})):
        async with world.database.write(viewer, Right.EDIT) as session:
            made = await tools.create(session, values)
        assert (made.name, made.project_id) == ("saw", values.get("project_id"))


async def test_everybody_sees_what_all_share_and_only_members_the_rest(
    world: World, resolvers: People
) -> None:
    shared = await make_tool(world, None, "shared")
    await make_tool(world, world.project, "mine")
    foreign = await make_tool(world, world.elsewhere, "theirs")
    async with world.database.write(ADMIN) as session:
        for agent in (world.ada, world.bob):
            session.add(db.AgentTool(agent_id=agent.id, tool_id=shared.id))
    query = (
        "query($id: ID!) { tools(orderBy: NAME_ASC) { nodes { name project { name }"
        " agents { nodes { agent { name } } } } } tool(id: $id) { name } projects { nodes { tools {"
        " nodes { name } } } } }"
    )

    for people in (world.people, resolvers):
        mine = await people.owner.ask(query, id=gid(foreign))
        theirs = await people.stranger.ask(query, id=gid(foreign))

        assert mine.data == {
            "tools": {
                "nodes": [
                    {"name": "mine", "project": {"name": "Moon base"}, "agents": {"nodes": []}},
                    {
                        "name": "shared",
                        "project": None,
                        "agents": {"nodes": [{"agent": {"name": "Ada"}}]},
                    },
                ]
            },
            "tool": None,
            "projects": {"nodes": [{"tools": {"nodes": [{"name": "mine"}]}}]},
        }
        names = [tool["name"] for tool in theirs.data["tools"]["nodes"]]
        assert names == ["shared", "theirs"]
        assert theirs.data["tools"]["nodes"][0]["agents"]["nodes"] == [{"agent": {"name": "Bob"}}]
        assert theirs.data["tool"] == {"name": "theirs"}
    nobody = await world.people.nobody.ask("{ tools { nodes { name } } }")
    assert nobody.code == "UNAUTHENTICATED"


async def test_tools_are_found_by_what_they_are(world: World) -> None:
    await make_tool(world, None, "shared", capability="search")
    await make_tool(world, world.project, "mine", source=db.ToolSource.MCP)
    new = await make_tool(world, world.project, "new", status=ToolStatus.EVALUATING)
    query = "query($where: ToolFilter) { tools(where: $where, orderBy: NAME_ASC) {"
    query += " totalCount nodes { name } } }"

    for where, names in (
        ({"capability": {"eq": "search"}}, ["shared"]),
        ({"source": {"in": ["MCP", "CUSTOM"]}}, ["mine"]),
        ({"status": {"not": "DISCOVERED"}}, ["new"]),
        ({"definitionHash": {"eq": new.definition_hash}}, ["mine", "new", "shared"]),
        ({"projectId": {"isNull": True}}, ["shared"]),
        ({"project": {"name": {"eq": "Moon base"}}}, ["mine", "new"]),
    ):
        answer = await world.owner.ask(query, where=where)

        found = [tool["name"] for tool in answer.data["tools"]["nodes"]]
        assert (found, answer.data["tools"]["totalCount"]) == (names, len(names)), where
        assert len(answer.statements) == 1


# Which agent has which.


async def test_a_tool_is_given_to_an_agent_with_its_configuration_on_the_edge(
    world: World,
) -> None:
    mine = await make_tool(world, world.project, "mine")
    shared = await make_tool(world, None, "shared")

    await world.owner.change(f"attachTool {ATTACHED}", **edge(mine, world.ada))
    payload = await world.owner.change(
        f"attachTool {ATTACHED}",
        **edge(shared, world.ada, configuration={"key": "k", "n": 1.50}, isActive=False),
    )

    assert payload == {
        "agent": {
            "name": "Ada",
            "version": 1,
            "tools": [
                {"configuration": {}, "isActive": True, "tool": {"name": "mine"}},
                {
                    "configuration": {"key": "k", "n": 1.5},
                    "isActive": False,
                    "tool": {"name": "shared"},
                },
            ],
        },
        "userErrors": [],
    }


async def test_a_tool_that_an_agent_has_is_set_up_anew(world: World) -> None:
    tool = await make_tool(world, world.project)
    added = "SELECT added_at FROM agent_tools"
    await world.owner.change(
        f"attachTool {ATTACHED}",
        **edge(tool, world.ada, configuration={"key": "k"}, isActive=False),
    )
    before = await stored(world.database, added)

    payload = await world.owner.change(f"attachTool {ATTACHED}", **edge(tool, world.ada))

    anew = {"configuration": {}, "isActive": True, "tool": {"name": "hammer"}}
    assert payload["agent"]["tools"] == [anew]
    assert await stored(world.database, added) == before


async def test_a_tool_is_taken_from_an_agent_and_stays(world: World) -> None:
    tool = await make_tool(world, world.project)
    await world.owner.change(f"attachTool {ATTACHED}", **edge(tool, world.ada))

    payload = await world.owner.change(f"detachTool {ATTACHED}", **edge(tool, world.ada))
    again = await world.owner.change(f"detachTool {ATTACHED}", **edge(tool, world.ada))

    assert payload == {"agent": {"name": "Ada", "version": 1, "tools": []}, "userErrors": []}
    message = "The agent does not have this tool."
    assert again["userErrors"] == [{"code": "INVALID", "path": ["toolId"], "message": message}]
    assert await stored(world.database, "SELECT name FROM tools") == ["hammer"]


@pytest.mark.parametrize("mutation", ["attachTool", "detachTool"])
async def test_a_tool_that_is_deleted_meanwhile_is_neither_given_nor_taken(
    world: World, mutation: str
) -> None:
    tool = await make_tool(world, world.project)
    await world.owner.change(f"attachTool {ATTACHED}", **edge(tool, world.ada))
    async with world.database.write(ADMIN) as session:
        await (await session.fetch(db.Tool, tool.id)).delete(session)
        detaching = asyncio.create_task(
            world.owner.change(f"{mutation} {ATTACHED}", **edge(tool, world.ada))
        )
        await waiting(world)

    assert faults(await detaching) == [("INVALID", "toolId")]


async def test_a_tool_of_another_project_is_refused_to_whoever_sees_both(world: World) -> None:
    foreign = await make_tool(world, world.elsewhere)
    input = edge(foreign, world.ada)

    found = await world.refused(world.people.admin, "attachTool", **input)
    payload = await world.people.admin.change("attachTool { userErrors { message } }", **input)

    assert found == [("INVALID", "toolId")]
    assert payload == {"userErrors": [{"message": "This Tool belongs to another project."}]}


async def test_what_goes_takes_only_its_edges_along(world: World) -> None:
    tool, other = await make_tool(world, world.project), await make_tool(world, None, "other")
    for one in (tool, other):
        await world.owner.change(f"attachTool {ATTACHED}", **edge(one, world.ada))
    before = await snapshot(world.database)

    await world.owner.change("deleteTool { deletedId }", id=gid(tool), expectedVersion=1)

    after = await snapshot(world.database)
    assert await stored(world.database, "SELECT tool_id FROM agent_tools") == [other.id]
    rest = before.keys() - {"tools", "agent_tools"}
    assert {table: after[table] for table in rest} == {table: before[table] for table in rest}
    await world.owner.change("deleteAgent { deletedId }", id=gid(world.ada))
    assert await stored(world.database, "SELECT count(*) FROM agent_tools") == [0]
    assert await stored(world.database, "SELECT name FROM tools") == ["other"]


async def test_the_tools_of_many_agents_cost_as_many_statements_as_those_of_one(
    world: World, resolvers: People
) -> None:
    tools = [await make_tool(world, world.project, f"{n}") for n in range(2)]
    query = "{ agents(orderBy: NAME_ASC) { nodes { name tools { isActive tool { name } } } } }"

    async def ask() -> list[int]:
        planned, resolved = await world.owner.ask(query), await resolvers.owner.ask(query)
        assert planned.text == resolved.text
        agents = planned.data["agents"]["nodes"]
        names = {tuple(one["tool"]["name"] for one in agent["tools"]) for agent in agents}
        assert names == {("0", "1")}
        return [len(agents), len(planned.statements), len(resolved.statements)]

    async def equip(*agents: db.Agent) -> None:
        async with world.database.write(ADMIN) as session:
            session.add_all(
                db.AgentTool(agent_id=agent.id, tool_id=tool.id)
                for agent in agents
                for tool in tools
            )

    await equip(world.ada)
    few = await ask()
    async with world.database.write(ADMIN) as session:
        more = [await factories.make_agent(session, world.project, f"{n}") for n in range(19)]
    await equip(*more)
    many = await ask()

    assert (few, many) == ([1, 1, 2], [20, 1, 2])


async def test_a_tool_attached_twice_at_once_is_attached_once(world: World) -> None:
    for place in range(10):
        tool = await make_tool(world, world.project, f"{place}")

        payloads = await asyncio.gather(
            *(
                world.owner.change(
                    f"attachTool {{ {ERRORS} }}", **edge(tool, world.ada, configuration={"n": n})
                )
                for n in range(3)
            )
        )

        assert [faults(payload) for payload in payloads] == [[], [], []]
        query = "SELECT (configuration->>'n')::int FROM agent_tools WHERE tool_id = :id"
        (kept,) = await stored(world.database, query, id=tool.id)
        assert kept in range(3)


async def test_an_agent_has_at_most_so_many_tools_whoever_attaches_them_at_once(
    world: World,
) -> None:
    tools = [await make_tool(world, world.project, f"{place}") for place in range(MOST_TOOLS + 2)]
    async with world.database.write(ADMIN) as session:
        session.add_all(db.AgentTool(agent_id=world.ada.id, tool_id=tool.id) for tool in tools[:-3])

    payloads = await asyncio.gather(
        *(
            world.owner.change(f"attachTool {{ {ERRORS} }}", **edge(tool, world.ada))
            for tool in tools[-3:]
        )
    )

    assert sorted(faults(payload) for payload in payloads) == [
        [],
        [("INVALID", "toolId")],
        [("INVALID", "toolId")],
    ]
    (number,) = await stored(
        world.database, "SELECT count(*) FROM agent_tools WHERE agent_id = :id", id=world.ada.id
    )
    assert number == MOST_TOOLS
    # One that it has already is set up anew.
    again = edge(tools[0], world.ada, configuration={"n": 1})
    assert faults(await world.owner.change(f"attachTool {{ {ERRORS} }}", **again)) == []


async def test_a_plan_gives_an_agent_no_more_tools_than_it_may_have(world: World) -> None:
    names = [f"tool {place}" for place in range(MOST_TOOLS + 1)]
    too_many = [("INVALID", "agents.0.tools"), ("INVALID", "tools")]
    for number, expected in ((MOST_TOOLS, []), (MOST_TOOLS + 1, too_many)):
        payload = await world.owner.change(
            f"createProjectPlan {{ agents {{ tools {{ tool {{ name }} }} }} {ERRORS} }}",
            name=f"{number}",
            tools=[{"reference": name, "name": name} for name in names[:number]],
            agents=[{"name": "Ada", "type": "DEVELOPER", "tools": names[:number]}],
        )

        assert faults(payload) == expected
        assert [len(agent["tools"]) for agent in payload["agents"]] == [number] * (not expected)


async def test_tools_that_were_attached_past_the_rule_are_not_shown(
    world: World, resolvers: People
) -> None:
    """By psql, say; what they cost counts as many as an agent may have."""
    tools = [await make_tool(world, world.project, f"{place}") for place in range(MOST_TOOLS + 2)]
    async with world.database.write(ADMIN) as session:
        session.add_all(db.AgentTool(agent_id=world.ada.id, tool_id=tool.id) for tool in tools)
    query = "query($id: ID!) { agent(id: $id) { tools { tool { name } } } }"

    shown = [
        await people.owner.ask(query, id=gid(world.ada)) for people in (world.people, resolvers)
    ]

    assert len(shown[0].data["agent"]["tools"]) == MOST_TOOLS
    assert shown[0].text == shown[1].text
    again = edge(tools[-1], world.ada, configuration={"n": 1})
    assert faults(await world.owner.change(f"attachTool {{ {ERRORS} }}", **again)) == []
