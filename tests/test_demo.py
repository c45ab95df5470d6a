"""The demo: the examples, all of them, in a database of their own."""

from __future__ import annotations

import pytest

import db
from graph import demo
from tests.world import snapshot, stored

# The tables that the demo fills. Tokens are shown only once; attempts are made by workers.
SHOWN = {
    *("agent_tools", "agents", "ai_models", "communications", "conversations"),
    *("human_interactions", "messages", "project_members", "projects", "task_dependencies"),
    *("tasks", "tools", "usage_records", "users"),
}


async def test_the_examples_fill_the_tables(database: db.Database) -> None:
    await demo.fill(database)

    rows = await snapshot(database)
    assert {name for name, found in rows.items() if found} == SHOWN
    names = "SELECT name FROM projects ORDER BY name"
    assert await stored(database, names) == [
        "Imported chats",
        "Imported plan/housing",
        "Imported plan/master",
        "School weather station",
    ]


async def test_example_data_that_does_not_fit_is_an_error(database: db.Database) -> None:
    await demo.fill(database)

    with pytest.raises(RuntimeError, match="large: There is already one with this id") as refused:
        await demo.fill(database)

    assert str(refused.value).startswith("the example data does not fit this version: ")
