"""The demo: the examples, all of them, in a database of their own."""

from __future__ import annotations

import pytest
from sqlalchemy import URL

import db
from graph import demo
from tests.world import snapshot, stored

# What the demo is there to show. Tokens are shown once, to people; attempts are made by workers.
SHOWN = {
    *("agent_tools", "agents", "ai_models", "communications", "conversations"),
    *("human_interactions", "messages", "project_members", "projects", "task_dependencies"),
    *("tasks", "tools", "usage_records", "users"),
}


async def test_the_examples_fill_the_tables(database: db.Database, database_url: URL) -> None:
    await demo.fill(str(database_url.render_as_string(hide_password=False)))

    rows = await snapshot(database)
    assert {name for name, found in rows.items() if found} == SHOWN
    names = "SELECT name FROM projects ORDER BY name"
    assert await stored(database, names) == [
        "Imported chats",
        "Imported plan/housing",
        "Imported plan/master",
        "School weather station",
    ]


async def test_an_example_that_does_not_fit_is_told(
    database: db.Database, database_url: URL
) -> None:
    url = str(database_url.render_as_string(hide_password=False))
    await demo.fill(url)

    with pytest.raises(RuntimeError, match="large: There is already one with this id") as refused:
        await demo.fill(url)

    assert str(refused.value).startswith("the examples do not fit this version: ")
