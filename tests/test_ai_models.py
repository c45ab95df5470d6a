"""AI models: the catalogue that administrators keep and everybody reads."""

from typing import Any

import httpx
import pytest

import db
from graph.core.scalars import global_id
from tests.conftest import People
from tests.oracle import by_everybody
from tests.world import FORBIDDEN, Case, Fault, World, gid, make_world, snapshot, stored

ERRORS = "userErrors { code path }"
WHOLE = (
    "{ aiModel { id name provider modelVersion capabilities contextWindow inputPrice"
    f" cachedInputPrice outputPrice isLocal status metadata }} {ERRORS} }}"
)
BREAKING = {
    "ai_models": {
        "context_window_positive": ["context_window = 0"],
        "prices_not_negative": [
            "input_price = -0.000000001",
            "input_price = 1, cached_input_price = -1",
            "output_price = -1",
        ],
    },
}
SEEN = {db.AIModel: by_everybody}
CASES = {
    "createAiModel": Case(lambda w: {"id": "new", "provider": "New"}, FORBIDDEN),
    "updateAiModel": Case(lambda w: {"id": "gpt-4o", "provider": "New"}, FORBIDDEN),
    "deleteAiModel": Case(lambda w: {"id": "spare"}, FORBIDDEN),
}


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


async def test_a_model_is_made_known_with_its_prices_to_the_last_digit(world: World) -> None:
    payload = await world.people.admin.change(
        f"createAiModel {WHOLE}",
        id="claude-3.5/haiku:latest",
        provider="Anthropic",
        modelVersion="20241022",
        capabilities={"tools": True},
        contextWindow=200_000,
        inputPrice="0.800000001",
        cachedInputPrice="0",
        outputPrice="999999999.999999999",
        isLocal=True,
        status="TESTING",
        metadata={"note": "new"},
    )

    assert payload == {
        "aiModel": {
            "id": global_id("AIModel", "claude-3.5/haiku:latest"),
            "name": "claude-3.5/haiku:latest",
            "provider": "Anthropic",
            "modelVersion": "20241022",
            "capabilities": {"tools": True},
            "contextWindow": 200_000,
            "inputPrice": "0.800000001",
            "cachedInputPrice": "0.000000000",
            "outputPrice": "999999999.999999999",
            "isLocal": True,
            "status": "TESTING",
            "metadata": {"note": "new"},
        },
        "userErrors": [],
    }
    query = "SELECT input_price::text, status, is_local FROM ai_models WHERE provider = 'Anthropic'"
    assert await stored(world.database, query) == [("0.800000001", "TESTING", True)]


async def test_a_model_needs_only_a_name_and_a_provider(world: World) -> None:
    payload = await world.people.admin.change(f"createAiModel {WHOLE}", id="local", provider="Me")

    model = payload["aiModel"]
    assert (model["name"], model["provider"], model["status"]) == ("local", "Me", "ACTIVE")
    assert (model["capabilities"], model["metadata"], model["isLocal"]) == ({}, {}, False)
    for unknown in ("modelVersion", "contextWindow", "inputPrice", "outputPrice"):
        assert model[unknown] is None


@pytest.mark.parametrize("form", ["global", "bare"])
async def test_what_an_update_leaves_out_stays_and_null_clears(world: World, form: str) -> None:
    admin, id = world.people.admin, gid(world.model) if form == "global" else "gpt-4o"
    changed = await admin.change(
        f"updateAiModel {WHOLE}", id=id, inputPrice="2.5", contextWindow=128_000, modelVersion="1"
    )

    cleared = await admin.change(
        f"updateAiModel {WHOLE}", id=id, inputPrice=None, modelVersion=None, status="DEPRECATED"
    )

    assert changed["aiModel"]["inputPrice"] == "2.500000000"
    assert cleared["aiModel"] == changed["aiModel"] | {
        "inputPrice": None,
        "modelVersion": None,
        "status": "DEPRECATED",
    }
    assert cleared["aiModel"]["contextWindow"] == 128_000


async def test_all_that_is_wrong_is_said_at_once(world: World) -> None:
    found = await world.refused(
        world.people.admin,
        "createAiModel",
        id="two words",
        provider="",
        modelVersion="x" * 256,
        capabilities=["tools"],
        contextWindow=0,
        inputPrice="-0.1",
        cachedInputPrice="1000000000",
        outputPrice="0.0000000001",
        metadata="none",
    )

    paths = (
        "id provider modelVersion capabilities contextWindow inputPrice cachedInputPrice"
        " outputPrice metadata"
    )
    assert found == [("INVALID", path) for path in paths.split()]


async def test_unusable_values_are_refused(world: World) -> None:
    new, old = {"provider": "Me"}, {"id": gid(world.model)}
    cases: list[tuple[str, dict[str, Any], list[Fault]]] = [
        ("createAiModel", new | {"id": "gpt-4o"}, [("ALREADY_EXISTS", "id")]),
        ("createAiModel", new | {"id": ""}, [("INVALID", "id")]),
        ("createAiModel", new | {"id": "x" * 101}, [("INVALID", "id")]),
        ("createAiModel", new | {"id": "new\n"}, [("INVALID", "id")]),
        ("createAiModel", new | {"id": "é"}, [("INVALID", "id")]),
        ("updateAiModel", {"id": "nobody", "provider": "Me"}, [("NOT_FOUND", "id")]),
        ("updateAiModel", {"id": gid(world.ada), "provider": "Me"}, [("INVALID", "id")]),
        ("updateAiModel", old | {"provider": None}, [("INVALID", "provider")]),
        ("updateAiModel", old | {"status": None}, [("INVALID", "status")]),
        ("updateAiModel", old | {"outputPrice": "-1"}, [("INVALID", "outputPrice")]),
        ("deleteAiModel", {"id": "nobody"}, [("NOT_FOUND", "id")]),
    ]
    for mutation, input, expected in cases:
        found = await world.refused(world.people.admin, mutation, **input)
        assert found == expected, (mutation, input)


async def test_what_is_no_value_of_the_type_is_bad_user_input(world: World) -> None:
    new = {"id": "new", "provider": "Me"}
    for bad in (
        {"inputPrice": True},
        {"inputPrice": "NaN"},
        {"inputPrice": "1e18"},
        {"inputPrice": "1" * 19},
        {"contextWindow": 2**31},
        {"status": "GONE"},
        {"isLocal": 1},
    ):
        code = await world.error(world.people.admin, "createAiModel", **new, **bad)
        assert code == "BAD_USER_INPUT", bad


async def test_a_model_is_forgotten_and_what_refers_to_it_stays(world: World) -> None:
    await world.owner.change(
        "appendMessages { userErrors { code } }",
        conversationId=gid(world.conversation),
        messages=[{"sender": "ASSISTANT", "content": "Hi", "modelId": "gpt-4o"}],
    )
    before = await snapshot(world.database)

    payload = await world.people.admin.change(
        f"deleteAiModel {{ deletedId {ERRORS} }}", id=gid(world.model)
    )

    assert payload == {"deletedId": gid(world.model), "userErrors": []}
    after = await snapshot(world.database)
    assert {table: len(rows) for table, rows in after.items()} == {
        table: len(rows) - (table == "ai_models") for table, rows in before.items()
    }
    assert await stored(world.database, "SELECT DISTINCT model_id FROM agents") == [None]
    assert await stored(world.database, "SELECT DISTINCT model_id FROM messages") == [None]


async def test_only_administrators_keep_the_catalogue(world: World) -> None:
    for client in (world.owner, world.agent):
        for mutation, input in {
            "createAiModel": {"id": "mine", "provider": "Me"},
            "updateAiModel": {"id": "gpt-4o", "inputPrice": "0"},
            "deleteAiModel": {"id": "gpt-4o"},
        }.items():
            assert await world.error(client, mutation, **input) == "FORBIDDEN"
