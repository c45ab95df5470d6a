"""Projects, and with them what every noun can: be made, changed, moved through life and deleted."""

from typing import Any

import httpx
import pytest

import db
from db import ProjectStatus
from graph.core.scalars import global_id
from tests import factories
from tests.conftest import People
from tests.oracle import Everything, Someone
from tests.world import Case, World, faults, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path message }"
WHOLE = (
    "{ project { id name description status metadata version owner { username } createdAt"
    f" updatedAt }} {ERRORS} }}"
)


def sees_project(everything: Everything, viewer: Someone, project: db.Project) -> bool:
    """Whether a viewer sees a project: as a member, or as one of its agents."""
    return everything.is_member(viewer, project.id)


SEEN = {db.Project: sees_project}
BREAKING = {
    "projects": {
        "max_tasks_per_agent_positive": ["max_tasks_per_agent = 0"],
        "max_tasks_in_review_positive": ["max_tasks_in_review = 0"],
        "max_tasks_by_type_numbers": [
            f"max_tasks_by_type = '{value}'"
            for value in ("[]", "1", '{"a": "1"}', '{"a": -1}', '{"a": 0.5}', '{"a": 1e10}')
        ],
    },
}
CASES = {
    "createProject": Case(lambda w: {"name": "New"}),
    "updateProject": Case(lambda w: {"id": gid(w.project), "name": "New"}),
    "transitionProject": Case(lambda w: {"id": gid(w.project), "to": "PAUSED"}),
    "deleteProject": Case(lambda w: {"id": gid(w.project)}),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_a_project_is_made_and_read_again(people: People) -> None:
    payload = await people.owner.change(
        "createProject { project { id name status version owner { username } }"
        " userErrors { code } }",
        name="Moon base",
        metadata={"b": 1.10, "a": [1, {"z": None}]},
    )

    project = payload["project"]
    assert payload["userErrors"] == []
    assert (project["name"], project["status"], project["version"]) == ("Moon base", "DRAFT", 1)
    assert project["owner"] == {"username": "owner"}

    answer = await people.owner.ask(
        "query($id: ID!) { project(id: $id) { name metadata owner { username } } }",
        id=project["id"],
    )
    assert answer.data["project"]["metadata"] == {"b": 1.10, "a": [1, {"z": None}]}
    assert len(answer.statements) == 1


async def test_a_new_project_is_stored_as_it_was_given(
    database: db.Database, people: People
) -> None:
    payload = await people.owner.change(
        f"createProject {WHOLE}", name="Moon", description=["text", {"deep": None}]
    )

    project = payload["project"]
    assert project.pop("createdAt") == project.pop("updatedAt")
    assert project == {
        "id": project["id"],
        "name": "Moon",
        "description": ["text", {"deep": None}],
        "status": "DRAFT",
        "metadata": {},
        "version": 1,
        "owner": {"username": "owner"},
    }
    assert await stored(
        database,
        "SELECT name, description::text, status, owner_id, project_metadata::text, version"
        " FROM projects",
    ) == [
        ("Moon", '["text", {"deep": null}]', "DRAFT", people.users["owner"].id, "{}", 1),
    ]


@pytest.mark.parametrize("form", ["global", "bare", "upper case"])
async def test_a_client_may_choose_the_id(world: World, form: str) -> None:
    id = db.new_id()
    given = {"global": global_id("Project", id), "bare": str(id), "upper case": str(id).upper()}

    payload = await world.owner.change(
        "createProject { project { id } userErrors { code } }", name="Mine", id=given[form]
    )

    assert payload == {"project": {"id": global_id("Project", id)}, "userErrors": []}
    assert await stored(world.database, "SELECT id FROM projects WHERE name = 'Mine'") == [id]


async def test_null_means_the_default_in_what_is_made(world: World) -> None:
    made = await world.owner.change(f"createProject {WHOLE}", name="Mine", metadata=None)

    assert (made["project"]["metadata"], made["project"]["version"]) == ({}, 1)


async def test_an_id_that_is_taken_is_refused_whoever_has_it(world: World) -> None:
    for taken in (gid(world.project), gid(world.elsewhere), str(world.elsewhere.id)):
        found = await world.refused(world.owner, "createProject", name="Mine", id=taken)

        assert found == [("ALREADY_EXISTS", "id")]


async def test_what_an_update_leaves_out_stays_and_null_clears(world: World) -> None:
    id = gid(world.project)
    await world.owner.change(
        f"updateProject {WHOLE}", id=id, description={"a": 1}, metadata={"m": 1}
    )

    renamed = await world.owner.change(f"updateProject {WHOLE}", id=id, name="Mars")
    cleared = await world.owner.change(f"updateProject {WHOLE}", id=id, description=None)

    project = renamed["project"]
    assert (project["name"], project["description"]) == ("Mars", {"a": 1})
    assert (project["metadata"], project["version"]) == ({"m": 1}, 3)
    assert cleared["project"] == project | {
        "description": None,
        "version": 4,
        "updatedAt": cleared["project"]["updatedAt"],
    }
    assert cleared["project"]["updatedAt"] > project["updatedAt"] > project["createdAt"]
    assert await stored(
        world.database, "SELECT description IS NULL FROM projects WHERE name = 'Mars'"
    ) == [True]


async def test_an_update_that_changes_nothing_is_no_new_version(world: World) -> None:
    before = await snapshot(world.database)

    nothing = await world.owner.change(f"updateProject {WHOLE}", id=gid(world.project))
    same = await world.owner.change(
        f"updateProject {WHOLE}", id=gid(world.project), name="Moon base", expectedVersion=1
    )

    assert nothing["project"]["version"] == same["project"]["version"] == 1
    assert await snapshot(world.database) == before


async def test_json_that_python_takes_for_the_same_is_another_value(world: World) -> None:
    values: list[Any] = [{"a": 1}, {"a": True}, {"a": 1.0}, {"a": [0]}, {"a": [False]}]
    for version, metadata in enumerate(values, 2):
        payload = await world.owner.change(
            f"updateProject {WHOLE}", id=gid(world.project), metadata=metadata
        )

        assert str(payload["project"]["metadata"]) == str(metadata)
        assert payload["project"]["version"] == version


@pytest.mark.parametrize(
    ("mutation", "input"),
    [
        ("updateProject", {"name": "Mine"}),
        ("deleteProject", {}),
        ("transitionProject", {"to": "PLANNING"}),
    ],
)
async def test_what_somebody_else_changed_is_not_changed_unseen(
    world: World, mutation: str, input: dict[str, Any]
) -> None:
    await world.owner.change(f"updateProject {WHOLE}", id=gid(world.project), name="Theirs")
    before = await snapshot(world.database)

    payload = await world.owner.change(
        f"{mutation} {{ userErrors {{ code path message ... on Conflict {{"
        " current { __typename id ... on Project { name version } } } } }",
        id=gid(world.project),
        expectedVersion=1,
        **input,
    )

    assert payload["userErrors"] == [
        {
            "code": "CONFLICT",
            "path": ["expectedVersion"],
            "message": "This Project is at version 2, not 1: somebody else changed it. Read it"
            " again and decide anew.",
            "current": {
                "__typename": "Project",
                "id": gid(world.project),
                "name": "Theirs",
                "version": 2,
            },
        }
    ]
    assert await snapshot(world.database) == before


async def test_whoever_expects_the_right_version_may_change_it(world: World) -> None:
    payload = await world.owner.change(
        f"updateProject {WHOLE}", id=gid(world.project), name="Mine", expectedVersion=1
    )

    assert (payload["project"]["name"], payload["project"]["version"]) == ("Mine", 2)


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    found = await world.refused(
        world.owner, "createProject", id="no id", name="", metadata=["no object"]
    )

    assert found == [("INVALID", "id"), ("INVALID", "name"), ("INVALID", "metadata")]


async def test_unusable_values_are_refused(world: World) -> None:
    somebody, unknown = global_id("Agent", db.new_id()), str(db.new_id())
    cases: list[tuple[str, dict[str, Any], list[tuple[str, str]]]] = [
        ("createProject", {"name": "x" * 256}, [("INVALID", "name")]),
        ("createProject", {"name": "x", "metadata": "text"}, [("INVALID", "metadata")]),
        ("createProject", {"name": "x", "metadata": 7}, [("INVALID", "metadata")]),
        ("createProject", {"name": "x", "id": somebody}, [("INVALID", "id")]),
        ("createProject", {"name": "x", "id": ""}, [("INVALID", "id")]),
        ("updateProject", {"id": "x", "name": ""}, [("INVALID", "id"), ("INVALID", "name")]),
        ("updateProject", {"id": unknown, "name": "x"}, [("NOT_FOUND", "id")]),
        ("updateProject", {"id": unknown, "name": None}, [("INVALID", "name")]),
        ("updateProject", {"id": unknown, "metadata": None}, [("INVALID", "metadata")]),
        ("updateProject", {"id": unknown, "ownerId": "x"}, [("INVALID", "ownerId")]),
        ("deleteProject", {"id": unknown}, [("NOT_FOUND", "id")]),
        ("transitionProject", {"id": unknown, "to": "DRAFT"}, [("NOT_FOUND", "id")]),
    ]
    for mutation, input, expected in cases:
        assert await world.refused(world.owner, mutation, **input) == expected, (mutation, input)


async def test_what_is_no_value_of_the_type_is_refused(world: World) -> None:
    bad: list[dict[str, Any]] = [
        {},
        {"name": None},
        {"name": 3},
        {"name": ["x"]},
        {"name": "x", "unknown": 1},
        {"name": "x", "id": {"a": 1}},
    ]
    for input in bad:
        assert await world.error(world.owner, "createProject", **input) == "BAD_USER_INPUT", input
    for version in (2**31, "1", 1.5):
        code = await world.error(
            world.owner, "deleteProject", id=gid(world.project), expectedVersion=version
        )
        assert code == "BAD_USER_INPUT", version


async def test_text_that_cannot_be_stored_is_refused(world: World) -> None:
    document = 'mutation { createProject(input: {name: "%s"}) { userErrors { code } } }'
    before = await snapshot(world.database)

    for input, place in (
        ({"name": "a\0b"}, "name"),
        ({"name": "x", "metadata": {"deep": [{"a\0": 1}]}}, "metadata"),
    ):
        found = await world.refused(world.owner, "createProject", **input)
        assert found == [("INVALID", place)]
    answer = await world.owner.ask(document % r"a\u0000b")
    assert answer.data == {"createProject": {"userErrors": [{"code": "INVALID"}]}}
    assert (await world.owner.ask(document % r"\uD83C")).code == "BAD_REQUEST"
    assert await snapshot(world.database) == before


async def test_the_longest_name_and_every_character_can_be_stored(world: World) -> None:
    name = "🌙é'\"\\;--\n\t" + "x" * 245

    payload = await world.owner.change(f"createProject {WHOLE}", name=name)

    assert payload["project"]["name"] == name


# Written down a second time, by hand: a test that read the code's own table would find it right.
MOVES = {
    "DRAFT": ["PLANNING", "CANCELLED"],
    "PLANNING": ["DRAFT", "IN_PROGRESS", "CANCELLED"],
    "IN_PROGRESS": ["PAUSED", "COMPLETED", "CANCELLED"],
    "PAUSED": ["IN_PROGRESS", "CANCELLED"],
    "COMPLETED": ["ARCHIVED"],
    "CANCELLED": ["ARCHIVED"],
    "ARCHIVED": [],
}


@pytest.mark.parametrize("current", ProjectStatus)
async def test_a_project_moves_only_as_its_state_machine_allows(
    database: db.Database, people: People, current: ProjectStatus
) -> None:
    selection = (
        "{ project { status version } userErrors { code path ... on IllegalTransition {"
        " current allowed } } }"
    )
    allowed = [ProjectStatus(to) for to in MOVES[current]]
    for to in ProjectStatus:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            project = await factories.make_project(session, people.users["owner"], status=current)

        payload = await people.owner.change(
            f"transitionProject {selection}", id=gid(project), to=to.value
        )

        if to in allowed:
            assert payload == {"project": {"status": to.value, "version": 2}, "userErrors": []}
        else:
            (error,) = payload["userErrors"]
            assert error == {
                "code": "ILLEGAL_TRANSITION",
                "path": ["to"],
                "current": current.value,
                "allowed": [state.value for state in allowed],
            }
        assert await stored(
            database, "SELECT status, version FROM projects WHERE id = :id", id=project.id
        ) == [(to, 2) if to in allowed else (current, 1)]


def test_every_state_of_a_project_can_be_reached_and_left() -> None:
    table = db.Project.transitions.table
    reached = {ProjectStatus.DRAFT}.union(*table.values())

    assert set(table) == reached == set(ProjectStatus)
    assert [state for state in ProjectStatus if not table[state]] == [ProjectStatus.ARCHIVED]


async def test_a_project_goes_with_all_that_belongs_to_it_and_nothing_else(world: World) -> None:
    before = await snapshot(world.database)

    payload = await world.owner.change(
        f"deleteProject {{ deletedId {ERRORS} }}", id=gid(world.project)
    )

    assert payload == {"deletedId": gid(world.project), "userErrors": []}
    left = await snapshot(world.database)
    inside = (world.project, world.ada, world.parent, world.subtask, world.free, world.conversation)
    for table, rows in before.items():
        rest = [row for row in rows if not any(str(of.id) in row for of in inside)]
        assert left[table] == rest, table
        assert (rest == rows) == (not rows or table in ("users", "ai_models")), table


async def test_a_project_is_deleted_once(world: World) -> None:
    await world.owner.change("deleteProject { deletedId }", id=gid(world.project))

    again = await world.refused(world.owner, "deleteProject", id=gid(world.project))

    assert again == [("NOT_FOUND", "id")]


async def test_nobody_gives_a_project_to_a_user_they_do_not_see(world: World) -> None:
    stranger = gid(world.people.users["stranger"])

    by_owner = await world.refused(
        world.owner, "updateProject", id=gid(world.project), ownerId=stranger
    )
    by_admin = await world.people.admin.change(
        f"updateProject {WHOLE}", id=gid(world.project), ownerId=stranger
    )

    assert by_owner == [("NOT_FOUND", "ownerId")]
    assert by_admin["project"]["owner"] == {"username": "stranger"}
    # Both are owners among its members now, and whoever gave it away can leave or be removed.
    members = "SELECT u.username, m.role FROM project_members m JOIN users u ON u.id = m.user_id"
    owners = f"{members} WHERE m.project_id = :id AND m.role = 'OWNER' ORDER BY 1"
    assert await stored(world.database, owners, id=world.project.id) == [
        ("owner", "OWNER"),
        ("stranger", "OWNER"),
    ]
    removed = await world.people.stranger.change(
        f"removeProjectMember {{ {ERRORS} }}",
        projectId=gid(world.project),
        userId=gid(world.people.users["owner"]),
    )
    assert removed == {"userErrors": []}
    assert await world.refused(world.owner, "updateProject", id=gid(world.project)) == [
        ("NOT_FOUND", "id")
    ]


async def test_each_mutation_of_a_request_is_a_transaction_of_its_own(world: World) -> None:
    before = await stored(world.database, "SELECT count(*) FROM projects")

    answer = await world.owner.ask(
        'mutation { a: createProject(input: {name: "A"}) { userErrors { code path } }'
        ' b: createProject(input: {name: ""}) { userErrors { code path } }'
        ' c: createProject(input: {name: "C"}) { userErrors { code path } } }'
    )

    assert [faults(answer.data[name]) for name in "abc"] == [[], [("INVALID", "name")], []]
    assert await stored(world.database, "SELECT count(*) FROM projects") == [before[0] + 2]


async def test_whoever_gives_up_a_project_stays_a_member(world: World) -> None:
    payload = await world.owner.change(
        f"updateProject {{ project {{ owner {{ id }} members {{ nodes {{ role user {{"
        f" username }} }} }} }}"
        f" {ERRORS} }}",
        id=gid(world.project),
        ownerId=None,
    )

    assert payload["userErrors"] == []
    assert payload["project"]["owner"] is None
    roles = {
        edge["user"]["username"]: edge["role"] for edge in payload["project"]["members"]["nodes"]
    }
    assert roles["owner"] == "OWNER"
    again = await world.owner.change(
        f"updateProject {{ {ERRORS} }}", id=gid(world.project), name="Still"
    )
    assert again == {"userErrors": []}
