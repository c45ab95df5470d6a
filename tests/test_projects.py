"""Projects, and with them what every noun can: be read, paged, filtered and changed."""

from tests.conftest import People


async def test_a_project_is_made_and_read_again(people: People) -> None:
    payload = await people.owner.change(
        "createProject { project { id name status version owner { username } } userErrors { code } }",
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
