"""Plans: many tasks, with agents and edges between them, made by reference, all or none."""

from typing import Any

import httpx
import pytest

import db
from graph.core.scalars import global_id
from tests.conftest import People
from tests.world import Case, World, at, faults, gid, make_world, snapshot, stored

TASKS = (
    "{ tasks { title status priority unmetDependencyCount version parentTask { title }"
    " agent { name } createdByUser { username } dependencies { nodes { onFailure"
    " dependency { title } } } }"
    " userErrors { code path message } }"
)
CASES = {
    "createProjectPlan": Case(
        lambda w: {"name": "New", "agents": [{"name": "New", "type": "TESTER"}]}
    ),
    "createTasks": Case(
        lambda w: {"projectId": gid(w.project), "tasks": [{"title": "New"}]}, at("projectId")
    ),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


def task(title: str, **values: Any) -> dict[str, Any]:
    """A task of a plan whose reference is its title."""
    return {"title": title, "reference": title} | values


def on(*names: str) -> list[dict[str, str]]:
    """Edges to what has these references or ids."""
    return [{"on": name} for name in names]


def invalid(*paths: str) -> list[tuple[str, str]]:
    """An error for each of these paths."""
    return [("INVALID", path) for path in paths]


async def test_tasks_refer_to_each_other_and_to_what_exists(world: World) -> None:
    payload = await world.owner.change(
        f"createTasks {TASKS}",
        projectId=gid(world.project),
        tasks=[
            # What comes later can be referred to, too.
            task("roof", dependsOn=[{"on": "walls", "onFailure": "HOLD"}], parent="house"),
            task("walls", agent=gid(world.ada), parent="house", priority=5),
            {"title": "house", "reference": "house", "parent": gid(world.parent)},
            task("party", dependsOn=on("house", str(world.free.id), gid(world.subtask))),
        ],
    )

    owner = {"createdByUser": {"username": "owner"}, "version": 1}
    assert payload == {
        "tasks": [
            owner
            | {
                "title": "roof",
                "status": "PENDING",
                "priority": 3,
                "unmetDependencyCount": 1,
                "parentTask": {"title": "house"},
                "agent": None,
                "dependencies": {
                    "nodes": [{"onFailure": "HOLD", "dependency": {"title": "walls"}}]
                },
            },
            owner
            | {
                "title": "walls",
                "status": "ASSIGNED",
                "priority": 5,
                "unmetDependencyCount": 0,
                "parentTask": {"title": "house"},
                "agent": {"name": "Ada"},
                "dependencies": {"nodes": []},
            },
            owner
            | {
                "title": "house",
                "status": "PENDING",
                "priority": 3,
                "unmetDependencyCount": 2,
                "parentTask": {"title": "Parent"},
                "agent": None,
                "dependencies": {"nodes": []},
            },
            owner
            | {
                "title": "party",
                "status": "PENDING",
                "priority": 3,
                "unmetDependencyCount": 3,
                "parentTask": None,
                "agent": None,
                "dependencies": payload["tasks"][3]["dependencies"],
            },
        ],
        "userErrors": [],
    }
    waits = [edge["dependency"]["title"] for edge in payload["tasks"][3]["dependencies"]["nodes"]]
    assert sorted(waits) == ["Free", "Subtask", "house"]
    query = "SELECT unmet_dependency_count FROM tasks WHERE title = 'Parent'"
    assert await stored(world.database, query) == [2]


async def test_tasks_wait_for_existing_tasks_through_new_ones_above_them(world: World) -> None:
    payload = await world.owner.change(
        "createTasks { tasks { title unmetDependencyCount } userErrors { message } }",
        projectId=gid(world.project),
        tasks=[
            task("room", parent="floor"),
            task("floor", parent="house", dependsOn=on("stairs")),
            task("house", dependsOn=on(gid(world.free))),
            task("stairs"),
        ],
    )

    counts = {"room": 2, "floor": 3, "house": 2, "stairs": 0}
    assert payload == {
        "tasks": [{"title": k, "unmetDependencyCount": n} for k, n in counts.items()],
        "userErrors": [],
    }
    query = "SELECT count(*) FROM events WHERE entity_type = 'Task' AND action = 'UPDATED'"
    assert await stored(world.database, query) == [3]


async def test_a_reference_goes_before_an_id(world: World) -> None:
    payload = await world.owner.change(
        f"createTasks {TASKS}",
        projectId=gid(world.project),
        tasks=[
            {"title": "new", "reference": str(world.free.id)},
            task("other", dependsOn=on(str(world.free.id))),
        ],
    )

    assert payload["tasks"][1]["dependencies"]["nodes"] == [
        {"onFailure": "SKIP", "dependency": {"title": "new"}}
    ]


async def test_a_thousand_tasks_cost_as_many_statements_as_one(world: World) -> None:
    document = (
        "mutation($input: CreateTasksInput!) { createTasks(input: $input)"
        " { tasks { title dependencies { nodes { dependency { title } } } } userErrors {"
        " code path } } }"
    )

    async def create(many: int) -> tuple[list[str], Any]:
        tasks = [
            task(f"{many}/{n}", dependsOn=on(f"{many}/{n - 1}") if n else on(gid(world.free)))
            | ({"availableAt": "2026-01-01T00:00:00Z"} if n % 2 else {})
            for n in range(many)
        ]
        input = {"projectId": gid(world.project), "tasks": tasks}
        answer = await world.owner.ask(document, input=input)
        return answer.statements, answer.data["createTasks"]

    few, _ = await create(2)
    many, payload = await create(1000)

    assert len(few) == len(many) <= 7
    inserts = [statement.split("(")[0].strip() for statement in many if "INSERT" in statement]
    # With and without a time of their own: the database gives the default.
    assert inserts == ["INSERT INTO tasks", "INSERT INTO task_dependencies"]
    assert payload["userErrors"] == []
    assert [made["title"] for made in payload["tasks"]] == [f"1000/{n}" for n in range(1000)]
    assert payload["tasks"][999]["dependencies"]["nodes"] == [{"dependency": {"title": "1000/998"}}]
    query = "SELECT count(*), sum(unmet_dependency_count) FROM tasks WHERE title LIKE '1000/%'"
    assert await stored(world.database, query) == [(1000, 1000)]


async def test_there_are_not_none_and_not_too_many(world: World) -> None:
    project = gid(world.project)
    agents = [{"name": f"{n}", "type": "TESTER"} for n in range(101)]

    for tasks in ([], [{"title": "x"}] * 1001):
        found = await world.refused(world.owner, "createTasks", projectId=project, tasks=tasks)
        assert found == invalid("tasks")
    found = await world.refused(
        world.owner, "createProjectPlan", name="x", agents=agents, tasks=[{"title": "x"}] * 1001
    )

    assert found == invalid("agents", "tasks")


async def test_all_values_that_are_wrong_are_said_at_once(world: World) -> None:
    found = await world.refused(
        world.owner,
        "createTasks",
        projectId=gid(world.ada),
        tasks=[
            {"title": "", "priority": 9, "reference": ""},
            {"title": "fine"},
            {"title": "x" * 256, "id": "x", "metadata": [], "maxAttempts": 0},
        ],
    )

    first, last = ("title", "priority", "reference"), ("id", "title", "maxAttempts", "metadata")
    assert sorted(found) == sorted(
        invalid(
            "projectId",
            *(f"tasks.0.{name}" for name in first),
            *(f"tasks.2.{name}" for name in last),
        )
    )


async def test_all_references_that_are_wrong_are_said_at_once(world: World) -> None:
    found = await world.refused(
        world.owner,
        "createTasks",
        projectId=gid(world.project),
        tasks=[
            task("a", parent="nothing", agent="nobody", dependsOn=on("b", "c", gid(world.foreign))),
            task("b", parent=gid(world.ada), agent=gid(world.bob), dependsOn=on("b")),
            task("a", parent="a", agent="a"),
            task("self", parent="self"),
            task("last", agent=str(world.free.id), dependsOn=on("last", str(db.new_id()))),
        ],
    )

    assert sorted(found) == sorted(
        [
            *invalid("tasks.0.agent", "tasks.0.parent"),
            *invalid("tasks.0.dependsOn.1.on", "tasks.0.dependsOn.2.on"),
            *invalid("tasks.1.agent", "tasks.1.parent"),
            ("CYCLE_DETECTED", "tasks.1.dependsOn.0.on"),
            *invalid("tasks.2.agent", "tasks.2.reference"),
            ("CYCLE_DETECTED", "tasks.3.parent"),
            *invalid("tasks.4.agent", "tasks.4.dependsOn.1.on"),
            ("CYCLE_DETECTED", "tasks.4.dependsOn.0.on"),
        ]
    )


async def test_a_plan_in_which_tasks_wait_in_a_circle_is_refused(world: World) -> None:
    existing = gid(world.parent)
    for tasks, place, shown in (
        # Tasks of the plan are named in the message, because what was not made cannot be shown.
        ([task("a", dependsOn=on("b")), task("b", dependsOn=on("a"))], "tasks.0", set()),
        ([task("a", parent="b"), task("b", parent="a"), task("c", parent="a")], "tasks.0", set()),
        ([task("a", parent="b", dependsOn=on("b")), task("b")], "tasks.0", set()),
        ([task("a", parent=existing, dependsOn=on(existing))], "tasks", {"Parent"}),
        (
            [task("a", parent=gid(world.free), dependsOn=on(gid(world.subtask)))],
            "tasks",
            {"Subtask", "Free"},
        ),
    ):
        before = await snapshot(world.database)

        payload = await world.owner.change(
            "createTasks { tasks { id } userErrors { code path ... on CycleDetected {"
            " cycle { title } } } }",
            projectId=gid(world.project),
            tasks=tasks,
        )

        assert faults(payload) == [("CYCLE_DETECTED", place)], tasks
        assert {made["title"] for made in payload["userErrors"][0]["cycle"]} == shown
        assert await snapshot(world.database) == before


async def test_the_tasks_of_a_circle_within_a_plan_are_named(world: World) -> None:
    payload = await world.owner.change(
        "createTasks { userErrors { message path } }",
        projectId=gid(world.project),
        tasks=[task("free"), task("a", dependsOn=on("b")), task("b", parent="a")],
    )

    # What the whole waits for the part waits for too: here, itself.
    message = "This task would wait for itself: 'b'."
    assert payload == {"userErrors": [{"message": message, "path": ["tasks", "2"]}]}


async def test_a_whole_project_is_made_at_once(world: World) -> None:
    id = db.new_id()

    payload = await world.owner.change(
        "createProjectPlan { project { id name status description metadata version"
        " owner { username } } agents { name type status model { name } configuration"
        " maxConcurrentTasks version } tasks { title status unmetDependencyCount agent { name }"
        " project { name } createdByUser { username } } userErrors { code path } }",
        id=str(id),
        name="House",
        description=["A house."],
        metadata={"k": 1},
        agents=[
            {"reference": "m", "name": "Max", "type": "MASON", "modelId": gid(world.model)},
            {"name": "Eve", "type": "ROOFER", "maxConcurrentTasks": 2, "configuration": {"a": 1}},
        ],
        tasks=[
            task("roof", dependsOn=on("walls")),
            task("walls", agent="m"),
        ],
    )

    agent = {"status": "CREATED", "version": 1}
    made = {"project": {"name": "House"}, "createdByUser": {"username": "owner"}}
    assert payload == {
        "project": {
            "id": global_id("Project", id),
            "name": "House",
            "status": "PLANNING",
            "description": ["A house."],
            "metadata": {"k": 1},
            "version": 1,
            "owner": {"username": "owner"},
        },
        "agents": [
            agent
            | {"name": "Max", "type": "MASON", "model": {"name": "gpt-4o"}}
            | {"configuration": {}, "maxConcurrentTasks": 1},
            agent
            | {"name": "Eve", "type": "ROOFER", "model": None}
            | {"configuration": {"a": 1}, "maxConcurrentTasks": 2},
        ],
        "tasks": [
            made | {"title": "roof", "status": "PENDING", "unmetDependencyCount": 1, "agent": None},
            made
            | {"title": "walls", "status": "ASSIGNED", "unmetDependencyCount": 0}
            | {"agent": {"name": "Max"}},
        ],
        "userErrors": [],
    }


async def test_a_plan_may_be_empty(world: World) -> None:
    payload = await world.owner.change(
        "createProjectPlan { project { status } agents { id } tasks { id } }", name="Empty"
    )

    assert payload == {"project": {"status": "PLANNING"}, "agents": [], "tasks": []}


async def test_agents_that_are_wrong_are_said_at_once(world: World) -> None:
    agents = [
        {"reference": "a", "name": "Max", "type": "MASON"},
        {"reference": "b", "name": "Max", "type": "MASON"},
        {"reference": "a", "name": "Eve", "type": "MASON"},
    ]

    found = await world.refused(world.owner, "createProjectPlan", name="x", agents=agents)
    unknown = await world.refused(
        world.owner,
        "createProjectPlan",
        name="x",
        agents=[{"name": f"{n}", "type": "T", "modelId": f"{n}"} for n in range(2)],
    )
    elsewhere = await world.refused(
        world.owner,
        "createProjectPlan",
        name="x",
        tasks=[task("a", agent=gid(world.ada), parent=gid(world.free))],
    )

    assert sorted(found) == [("ALREADY_EXISTS", "agents.1.name"), *invalid("agents.2.reference")]
    assert unknown == [("NOT_FOUND", f"agents.{n}.modelId") for n in range(2)]
    assert sorted(elsewhere) == invalid("tasks.0.agent", "tasks.0.parent")


async def test_the_only_agent_of_a_plan_has_a_place_too(world: World) -> None:
    found = await world.refused(
        world.owner,
        "createProjectPlan",
        name="x",
        agents=[{"name": "Max", "type": "MASON", "modelId": "nobody"}],
    )

    assert found == [("NOT_FOUND", "agents.0.modelId")]


async def test_what_is_wrong_with_agents_and_with_tasks_is_said_at_once(world: World) -> None:
    found = await world.refused(
        world.owner,
        "createProjectPlan",
        name="x",
        agents=[
            {"name": "Max", "type": "MASON", "modelId": "nobody"},
            {"name": "Max", "type": "MASON"},
        ],
        tasks=[task("a", parent="nothing"), task("a")],
    )

    assert sorted(found) == [
        ("ALREADY_EXISTS", "agents.1.name"),
        *invalid("tasks.0.parent", "tasks.1.reference"),
        ("NOT_FOUND", "agents.0.modelId"),
    ]


async def test_ids_that_are_taken_are_refused(world: World) -> None:
    taken, mine = gid(world.foreign), str(db.new_id())
    for tasks in (
        [{"title": "a"}, {"title": "b", "id": taken}],
        [{"title": "a", "id": mine}, {"title": "b", "id": mine}],
    ):
        found = await world.refused(
            world.owner, "createTasks", projectId=gid(world.project), tasks=tasks
        )
        assert [code for code, _ in found] == ["ALREADY_EXISTS"]
    project = {"name": "x", "id": gid(world.elsewhere)}
    assert await world.refused(world.owner, "createProjectPlan", **project) == [
        ("ALREADY_EXISTS", "id")
    ]


async def test_the_place_of_an_id_that_is_taken_is_named(world: World) -> None:
    taken, mine = gid(world.foreign), str(db.new_id())
    for tasks in (
        [{"title": "a"}, {"title": "b", "id": taken}],
        [{"title": "a", "id": mine}, {"title": "b", "id": mine}],
    ):
        found = await world.refused(
            world.owner, "createTasks", projectId=gid(world.project), tasks=tasks
        )
        assert found == [("ALREADY_EXISTS", "tasks.1.id")]
    agents = [{"name": "a", "type": "T"}, {"name": "b", "type": "T", "id": gid(world.bob)}]
    found = await world.refused(world.owner, "createProjectPlan", name="x", agents=agents)
    assert found == [("ALREADY_EXISTS", "agents.1.id")]


# The tools of a plan, and those that all projects share.

TOOLED = (
    "{ project { tools { totalCount } } tools { id name toolVersion status source definitionHash"
    " metadata version project { name } } agents { name tools { configuration isActive"
    " tool { name toolVersion project { name } } } }"
    " userErrors { code path message } }"
)


async def make_tool(world: World, project: db.Project | None, name: str) -> db.Tool:
    """A tool of a project, or one that all share."""
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        return await db.Tool.create(session, project_id=project and project.id, name=name)


async def test_a_plan_makes_tools_and_gives_them_to_its_agents(world: World) -> None:
    shared, second = [await make_tool(world, None, name) for name in ("crane", "lift")]
    id = db.new_id()

    payload = await world.owner.change(
        f"createProjectPlan {TOOLED}",
        name="House",
        tools=[
            {
                "reference": "h",
                "id": str(id),
                "name": "hammer",
                "toolVersion": "2",
                "source": "MCP",
                "description": "Hits.",
                "toolSchema": {"b": 1, "a": 2},
                "metadata": {"k": 1},
            },
            # Another version of it, which nobody has.
            {"name": "hammer"},
            {"reference": "s", "name": "saw"},
        ],
        agents=[
            {"name": "Max", "type": "MASON", "tools": ["h", gid(shared), "s"]},
            # By its own id, and one twice: in both forms of an id, and by both of its names.
            {"name": "Eve", "type": "ROOFER", "tools": [str(second.id), gid(second)]},
            {"name": "Zoe", "type": "PLUMBER", "tools": [str(id), "h"]},
            {"name": "Joe", "type": "CLERK"},
        ],
    )

    house = {"project": {"name": "House"}}
    new = {"status": "DISCOVERED", "version": 1} | house
    assert payload["userErrors"] == []
    assert payload["project"] == {"tools": {"totalCount": 3}}
    hashes = [made.pop("definitionHash") for made in payload["tools"]]
    hash = db.tools.with_definition_hash({"description": "Hits.", "tool_schema": {"a": 2, "b": 1}})
    assert hashes[0] == hash["definition_hash"]
    assert hashes[1] == hashes[2] == db.tools.with_definition_hash({})["definition_hash"]
    ids = [made.pop("id") for made in payload["tools"]]
    assert ids[0] == global_id("Tool", id)
    assert payload["tools"] == [
        new | {"name": "hammer", "toolVersion": "2", "source": "MCP", "metadata": {"k": 1}},
        new | {"name": "hammer", "toolVersion": "1", "source": "USER_DEFINED", "metadata": {}},
        new | {"name": "saw", "toolVersion": "1", "source": "USER_DEFINED", "metadata": {}},
    ]
    edge = {"configuration": {}, "isActive": True}
    hammer = edge | {"tool": {"name": "hammer", "toolVersion": "2"} | house}
    crane = edge | {"tool": {"name": "crane", "toolVersion": "1", "project": None}}
    lift = edge | {"tool": {"name": "lift", "toolVersion": "1", "project": None}}
    saw = edge | {"tool": {"name": "saw", "toolVersion": "1"} | house}
    # The tools of an agent come by their ids: in the order in which they were made.
    expected = {"Max": [crane, hammer, saw], "Eve": [lift], "Zoe": [hammer], "Joe": []}
    assert {agent["name"]: agent["tools"] for agent in payload["agents"]} == expected


async def test_a_reference_goes_before_the_id_of_a_shared_tool(world: World) -> None:
    shared = await make_tool(world, None, "crane")

    for reference in (str(shared.id), gid(shared)):
        payload = await world.owner.change(
            f"createProjectPlan {TOOLED}",
            name="House",
            tools=[{"reference": reference, "name": "hammer"}],
            agents=[{"name": "Max", "type": "MASON", "tools": [reference]}],
        )

        (edge,) = payload["agents"][0]["tools"]
        assert edge["tool"]["name"] == "hammer"


async def test_what_an_agent_of_a_plan_cannot_have_is_named_at_its_place(world: World) -> None:
    mine, theirs = [
        await make_tool(world, project, "hammer") for project in (world.project, world.elsewhere)
    ]
    shared = await make_tool(world, None, "crane")

    payload = await world.owner.change(
        "createProjectPlan { project { id } tools { id } agents { id }"
        " userErrors { code path message } }",
        name="House",
        tools=[{"reference": "h", "name": "hammer"}],
        agents=[
            {"name": "Max", "type": "MASON", "tools": ["h", "nothing", gid(shared), ""]},
            {"name": "Eve", "type": "ROOFER", "tools": [gid(mine), str(theirs.id)]},
            {"name": "Zoe", "type": "PLUMBER", "tools": [gid(world.ada), str(db.new_id()), "Eve"]},
        ],
    )

    # A tool of another project is none of this one's, whether one may see it or not.
    places = ["0.tools.1", "0.tools.3", *(f"1.tools.{n}" for n in range(2))]
    places += [f"2.tools.{n}" for n in range(3)]
    assert sorted(faults(payload)) == invalid(*(f"agents.{place}" for place in places))
    assert (payload["project"], payload["tools"], payload["agents"]) == (None, [], [])
    message = "'nothing' is neither a reference of this plan nor the id of a shared tool."
    assert message in [error["message"] for error in payload["userErrors"]]
    assert await stored(world.database, "SELECT count(*) FROM projects") == [2]


async def test_tools_that_are_wrong_are_said_at_once(world: World) -> None:
    taken, mine = await make_tool(world, world.elsewhere, "hammer"), str(db.new_id())
    values = await world.refused(
        world.owner,
        "createProjectPlan",
        name="",
        tools=[
            {"name": "", "toolVersion": "", "documentationUrl": "x", "metadata": [], "id": "x"},
            {"name": "saw", "reference": "", "capability": "x" * 256},
        ],
        agents=[{"name": "Max", "type": "MASON", "tools": ["x"] * 101}],
    )
    rules = await world.refused(
        world.owner,
        "createProjectPlan",
        name="House",
        tools=[
            {"reference": "h", "name": "hammer", "id": gid(taken)},
            {"reference": "s", "name": "saw", "id": mine},
            {"reference": "h", "name": "hammer", "toolVersion": "2"},
            {"name": "hammer", "toolVersion": "1"},
            {"name": "drill", "id": mine},
        ],
        agents=[{"name": "Max", "type": "MASON", "tools": ["x"]}],
        tasks=[task("a", agent="nobody")],
    )
    many = await world.refused(
        world.owner, "createProjectPlan", name="x", tools=[{"name": f"{n}"} for n in range(101)]
    )

    first = ("name", "toolVersion", "documentationUrl", "metadata", "id")
    assert sorted(values) == sorted(
        invalid(
            "name",
            *(f"tools.0.{name}" for name in first),
            "tools.1.reference",
            "tools.1.capability",
            "agents.0.tools",
        )
    )
    assert sorted(rules) == [
        ("ALREADY_EXISTS", "tools.0.id"),
        ("ALREADY_EXISTS", "tools.3.name"),
        ("ALREADY_EXISTS", "tools.4.id"),
        *invalid("agents.0.tools.0", "tasks.0.agent", "tools.2.reference"),
    ]
    assert many == invalid("tools")


async def test_a_hundred_tools_cost_as_many_statements_as_one(world: World) -> None:
    shared = gid(await make_tool(world, None, "crane"))
    document = (
        "mutation($input: CreateProjectPlanInput!) { createProjectPlan(input: $input)"
        " { userErrors { code path } } }"
    )

    async def plan(many: int) -> list[str]:
        input = {
            "name": f"{many}",
            "tools": [{"reference": f"t{n}", "name": f"{n}"} for n in range(many)],
            "agents": [
                {"name": f"{n}", "type": "T", "tools": [f"t{n}", shared]} for n in range(many)
            ],
            "tasks": [task(f"{n}") for n in range(many)],
        }
        answer = await world.owner.ask(document, input=input)
        assert answer.data == {"createProjectPlan": {"userErrors": []}}
        return answer.statements

    few, many = await plan(1), await plan(100)

    assert len(few) == len(many) <= 12
    inserts = [statement.split("(")[0].strip() for statement in many if "INSERT" in statement]
    made = ("projects", "project_members", "agents", "tools", "agent_tools", "tasks")
    assert inserts == [f"INSERT INTO {table}" for table in made]
    assert await stored(world.database, "SELECT count(*) FROM agent_tools") == [2 + 200]


async def test_an_id_of_ones_own_can_be_referred_to_in_its_plan(world: World) -> None:
    one, two, agent = (str(db.new_id()) for _ in range(3))
    payload = await world.owner.change(
        "createProjectPlan { tasks { title agent { name } parentTask { title } dependencies"
        " { nodes { dependency { title } } } } userErrors { path message } }",
        name="Plan",
        agents=[{"id": agent, "name": "Eve", "type": "TESTER"}],
        tasks=[
            {"title": "roof", "agent": agent, "dependsOn": on(one), "parent": two},
            {"title": "walls", "id": one, "agent": global_id("Agent", agent)},
            {"title": "house", "id": global_id("Task", two), "reference": "house"},
        ],
    )

    assert payload["userErrors"] == []
    eve = {"name": "Eve"}
    assert payload["tasks"] == [
        {
            "title": "roof",
            "agent": eve,
            "parentTask": {"title": "house"},
            "dependencies": {"nodes": [{"dependency": {"title": "walls"}}]},
        },
        {"title": "walls", "agent": eve, "parentTask": None, "dependencies": {"nodes": []}},
        {"title": "house", "agent": None, "parentTask": None, "dependencies": {"nodes": []}},
    ]


async def test_a_reference_may_look_like_an_id(world: World) -> None:
    name = str(db.new_id()).upper()
    payload = await world.owner.change(
        f"createTasks {TASKS}",
        projectId=gid(world.project),
        tasks=[task("roof", dependsOn=on(name)), {"title": "walls", "reference": name}],
    )

    assert payload["userErrors"] == []
    assert payload["tasks"][0]["dependencies"]["nodes"][0]["dependency"] == {"title": "walls"}


async def test_an_id_is_written_in_one_way(world: World) -> None:
    """In others, what is an id to one part of the code would be none to the next."""
    id = world.free.id
    for odd in (id.hex, f"{{{id}}}", id.urn, f" {id}", f"{id}\n", str(id).replace("-", "", 1)):
        new = {"projectId": gid(world.project)}
        planned = await world.refused(
            world.owner, "createTasks", **new, tasks=[task("roof", dependsOn=on(odd), parent=odd)]
        )
        single = await world.refused(
            world.owner, "createTask", **new, title="roof", parentTaskId=odd, dependsOn=[odd]
        )
        asked = await world.owner.ask("query($id: ID!) { task(id: $id) { id } }", id=odd)
        node = await world.owner.ask("query($id: ID!) { node(id: $id) { id } }", id=odd)

        assert sorted(planned) == invalid("tasks.0.dependsOn.0.on", "tasks.0.parent"), odd
        assert sorted(single) == invalid("dependsOn.0", "parentTaskId"), odd
        assert (asked.code, node.code) == ("BAD_USER_INPUT", "BAD_USER_INPUT"), odd


async def test_all_mistakes_of_a_plan_are_reported_together(world: World) -> None:
    def task(reference: str, on: str | None = None, **values: Any) -> dict[str, Any]:
        edges = [] if on is None else [{"on": on}]
        return {"title": reference, "reference": reference, "dependsOn": edges} | values

    tasks = [
        task("a", "nothing", title="", maxAttempts=0),
        task("b"),
        task("b"),
        task("c", "d"),
        task("d", "c"),
        task("e", "a", agent="nobody"),
    ]
    expected = [
        ("INVALID", "tasks.0.title"),
        ("INVALID", "tasks.0.maxAttempts"),
        ("INVALID", "tasks.2.reference"),
        ("INVALID", "tasks.0.dependsOn.0.on"),
        ("INVALID", "tasks.5.agent"),
        ("CYCLE_DETECTED", "tasks.3"),
    ]
    before = await snapshot(world.database)

    agents = [{"name": "x", "type": "", "tools": ["nothing"]}]
    whole = await world.refused(
        world.owner, "createProjectPlan", name="", agents=agents, tasks=tasks
    )
    assert sorted(whole) == sorted(
        [*invalid("name", "agents.0.type", "agents.0.tools.0"), *expected]
    )
    project = gid(world.project)
    some = await world.refused(world.owner, "createTasks", projectId=project, tasks=tasks)
    assert sorted(some) == sorted(expected)
    # Nothing else is wrong, or the project is not there either.
    for id, more in ((project, []), (gid(world.elsewhere), [("NOT_FOUND", "projectId")])):
        found = await world.refused(
            world.owner, "createTasks", projectId=id, tasks=[task("x"), task("y", title="")]
        )
        assert found == [("INVALID", "tasks.1.title"), *more]
    # Without its list, nothing can be tried.
    none = await world.refused(world.owner, "createTasks", projectId=project, tasks=[])
    assert none == [("INVALID", "tasks")]
    assert await snapshot(world.database) == before
