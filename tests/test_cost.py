"""What operations cost, exactly; that it is shown on request; and that fragments cost in full."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import get_introspection_query

import db
from db.tools import MOST_TOOLS
from graph import compiler
from graph.core.filters import SCOPED_WEIGHT, conditions_of
from graph.core.user_errors import MAX_CYCLE_TASKS
from graph.limits.cost import cost_of
from graph.settings import Settings
from tests.conftest import People, serving
from tests.operations import read_operation


def cost(text: str, **variables: Any) -> int:
    """The cost of a document's only operation."""
    return cost_of(read_operation(text, variables))


COSTS = {
    "{ __typename }": 1,
    "{ me { id } }": 1,
    "{ a: me { id } b: me { id } }": 2,
    '{ task(id: "x") { title } }': 1,
    '{ task(id: "x") { title agent { name } } }': 2,
    '{ task(id: "x") { agent { model { id } } parentTask { agent { id } } } }': 5,
    "{ projects { totalCount } }": 1,
    "{ projects(first: 0) { nodes { id } } }": 1,
    "{ projects(first: 0) { totalCount nodes { id } } }": 1,
    "{ projects { nodes { id } } }": 50,
    "{ projects { pageInfo { endCursor } } }": 50,
    "{ projects(first: 7) { nodes { id } } }": 7,
    "{ projects(last: 7) { nodes { id } } }": 7,
    # What is out of range is refused when it is read, and says there what is in range.
    "{ projects(first: 1000) { nodes { id } } }": 100,
    "{ projects(first: -1) { nodes { id } } }": 1,
    "{ projects(first: 7) { totalCount nodes { id } } }": 8,
    "{ projects(first: 7) { nodes { id } edges { node { name } } pageInfo { endCursor } } }": 7,
    "{ projects(first: 7) { nodes { owner { id } } edges { node { owner { id } } } } }": 21,
    "{ projects(first: 7) { nodes { tasks(first: 3) { nodes { id } } } } }": 7 + 7 * 3,
    "{ projects(first: 7) { nodes { tasks(first: 3) { totalCount nodes { agent { id } } } } } }": (
        7 + 7 * (3 * 2 + 1)
    ),
    '{ task(id: "x") { dependencies { nodes { onFailure dependency { id } } } } }': 1 + 50 * 2,
    '{ agent(id: "x") { tools { isActive tool { id } } } }': 1 + MOST_TOOLS * 2,
    '{ node(id: "x") { id } }': 1,
    '{ nodes(ids: ["x", "y", "z"]) { id } }': 3,
    # A row is of one type: of the one that costs most.
    '{ node(id: "x") { ... on Task { agent { id } } ... on Project { tasks(first: 9) { nodes { id }'
    " } } } }": 1 + 9,
    'mutation { createProject(input: {name: "x"}) { userErrors { code } } }': 1,
    'mutation { createProject(input: {name: "x"}) { project { id owner { id } } } }': 3,
    'mutation { createTasks(input: {projectId: "x", tasks: [{title: "a"}, {title: "b"}]})'
    " { tasks { id agent { id } } userErrors { code } } }": 1 + 2 + 2 * 2,
    'mutation { createTasks(input: {projectId: "x", tasks: [{title: "a", metadata: {a: [1, 2, 3]},'
    ' dependsOn: [{on: "y"}]}]}) { userErrors { code ... on CycleDetected { cycle { id } } } } }': (
        1 + 2 + MAX_CYCLE_TASKS
    ),
    # What they write is not listed in their input.
    "mutation { claimTask(input: {}) { attempt { task { id } } } }": 1 + 2,
    "mutation { claimTasks(input: {limit: 7}) { reason } }": 1 + 7,
    "mutation { claimTasks(input: {limit: 7}) { attempts { task { id } } } }": 1 + 7 + 7 * 2,
    'mutation { claimTasks(input: {limit: 7, types: ["a", "b"]}) { attempts { id } } }': 1 + 9 + 9,
    "mutation { claimTasks(input: {limit: -1}) { attempts { id } } }": 1 + 1 + 1,
    "mutation { claimTasks(input: {limit: 2147483647}) { attempts { id } } }": 1 + 100 + 100,
    "mutation { receiveCommunications(input: {}) { communications { task { id } } } }": (
        1 + 10 + 10 * 2
    ),
    "mutation { receiveCommunications(input: {limit: 1}) { userErrors { code } } }": 1 + 1,
    'mutation { broadcast(input: {fromAgentId: "x", type: "x", content: 1}) { communications'
    " { toAgent { id } } } }": 1 + 1_000 + 1_000 * 2,
    'mutation { publish(input: {fromAgentId: "x", type: "x", content: 1, topic: "x"})'
    " { userErrors { code } } }": 1 + 1_000,
    'mutation { repriceUsage(input: {projectId: "x"}) { usageRecords { id } } }': (
        1 + 1_000 + 1_000
    ),
}


@pytest.mark.parametrize("text", COSTS)
def test_what_is_known_costs_what_is_known(text: str) -> None:
    assert cost(text) == COSTS[text]


CONDITIONS = {
    "{ tasks { totalCount } }": 0,
    "{ tasks(where: {}) { totalCount } }": 1,
    '{ tasks(where: {title: {eq: "x"}}) { totalCount } }': 1,
    '{ tasks(where: {title: {eq: "x", not: "y"}, priority: {in: [1, 2, 3]}}) { totalCount } }': 3,
    "{ tasks(where: {metadataContains: {a: [1, 2, 3]}}) { totalCount } }": 1,
    '{ tasks(where: {or: [{title: {eq: "x"}}, {}], not: {}}) { totalCount } }': 3,
    '{ tasks(where: {projectId: {eq: "x"}}) { totalCount } }': SCOPED_WEIGHT,
    '{ tasks(where: {project: {name: {eq: "x"}}}) { totalCount } }': SCOPED_WEIGHT + 1,
    '{ tasks(where: {project: {owner: {id: {eq: "x"}}}}) { totalCount } }': 3 * SCOPED_WEIGHT,
    '{ a: tasks(where: {title: {eq: "x"}}) { totalCount } projects { nodes {'
    ' tasks(where: {title: {eq: "x"}}) { totalCount } } } }': 2,
    "{ a: projects { ...P } b: projects { ...P } } fragment P on ProjectConnection { nodes {"
    ' tasks(where: {title: {eq: "x"}}) { totalCount } } }': 2,
}


@pytest.mark.parametrize("text", CONDITIONS)
def test_conditions_are_counted_wherever_they_stand(text: str) -> None:
    assert conditions_of(read_operation(text)) == CONDITIONS[text]


def test_page_sizes_are_read_wherever_they_stand() -> None:
    text = "query($n: Int = 7) { projects(first: $n) { nodes { id } } }"

    assert cost(text) == 7
    assert cost(text, n=3) == 3
    assert cost(text, n=None) == 50
    assert cost("query($n: Int) { projects(last: $n) { nodes { id } } }", n=4) == 4
    skipped = "query($no: Boolean!) { me { id } projects @skip(if: $no) { nodes { id } } }"
    assert (cost(skipped, no=True), cost(skipped, no=False)) == (1, 51)


def test_a_fragment_costs_wherever_it_is_spread() -> None:
    fragments = " ".join(
        f"fragment F{n} on Task {{ a: parentTask {{ ...F{n + 1} }}"
        f" b: parentTask {{ ...F{n + 1} }} }}"
        for n in range(15)
    )
    text = f'{{ task(id: "x") {{ ...F0 }} }} {fragments} fragment F15 on Task {{ id }}'

    assert cost(text) == 2**16 - 1


def test_the_whole_schema_costs_about_as_much_however_large_it_is() -> None:
    assert 2_500 < cost(get_introspection_query()) < 7_500
    assert cost('{ __type(name: "Task") { name fields { name } } }') < 10


async def test_it_is_shown_on_request(limited: People) -> None:
    query = "{ projects(first: 7) { totalCount nodes { id } } }"

    answer = await limited.owner.request(query=query, extensions={"cost": True})
    silent = await limited.owner.request(query=query, extensions={"cost": False})

    shown = answer.body["extensions"]["cost"]
    assert shown.pop("left") > 150_000
    assert shown == {"cost": 8, "limit": 20_000, "perSecond": 10_000}
    assert answer.body["data"] == silent.body["data"]
    assert not silent.body.get("extensions")


async def test_it_is_shown_of_what_costs_too_much_as_well(limited: People) -> None:
    tasks = "tasks(first: 100) { nodes { attempts { nodes { id } } } }"
    query = f"{{ projects(first: 100) {{ nodes {{ {tasks} }} }} }}"

    answer = await limited.owner.request(query=query, extensions={"cost": True})

    expected = 100 + 100 * 100 * (1 + 50)
    assert answer.code == "LIMIT_EXCEEDED"
    assert answer.errors[0]["message"] == (
        f"Too many rows: this has {expected}, and may have 20000 (TROUPE_MAX_COST)."
        f" `projects.nodes.tasks.nodes.attempts` alone costs {100 * 100 * 50:,}:"
        " ask for fewer with `first`."
    )
    assert answer.body["extensions"]["cost"]["cost"] == expected
    assert answer.statements == []


async def test_no_plan_is_made_of_what_costs_too_much(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    monkeypatch.setattr(compiler, "compile_json", made.append)
    query = "{ projects(first: 100) { nodes { tasks(first: 100) { nodes { id } } } } }"

    async with serving(database, Settings(max_cost=100)) as http:
        for _ in range(3):
            assert (await people.owner.through(http).ask(query)).code == "LIMIT_EXCEEDED"

    assert made == []
