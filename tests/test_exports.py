"""Exports: a project with all that belongs to it, in another database and with the same ids."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

import db
from db import usage_totals
from db.events.positions import number_all
from db.events.triggers import logged_tables
from db.exports import NotExportable, export_project, import_export
from db.exports.contents import LINKS, TABLES
from db.imports import NotImportable, formats
from tests.conftest import People, _on_server
from tests.factories import make_agent, make_project, make_task
from tests.test_budgets import budget, claim, record, tasks
from tests.world import World, gid, make_whole_world, make_world, snapshot, stored

EVENTS = """
    SELECT row_to_json(r)::text FROM (
        SELECT created_at, project_id, owner_id, entity_type, entity_id, action, actor_type,
               actor_id, token_id, before, after
        FROM events WHERE project_id = :project
          AND entity_type NOT IN ('AccessToken', 'Webhook', 'WebhookDelivery')
        ORDER BY position NULLS LAST, id
    ) r
"""
# What triggers and functions derive from the rows.
TOTALS = [*usage_totals.KEYS, "hour"]
SUMS = ", ".join(f"sum({column})" for column in (*usage_totals.COUNTS, "cost"))
DERIVED = {
    "costs": f"""
        SELECT {", ".join(f"{column}::text" for column in TOTALS)}, {SUMS} FROM usage_totals
        WHERE project_id = :project GROUP BY {", ".join(TOTALS)} ORDER BY 1, 2, 3, 4, 5, 6
    """,
    "budgets' state": """
        SELECT id, budget_spent(id), budget_reserved(id), budget_room(id) FROM budgets
        WHERE project_id = :project ORDER BY id
    """,
}


@pytest.fixture
async def elsewhere(server: URL, template: str) -> AsyncIterator[db.Database]:
    """Another database, at head and empty."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    await _on_server(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    database = db.Database(server.set(database=name))
    yield database
    await database.dispose()
    await _on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


async def rows(database: db.Database, project: uuid.UUID) -> dict[str, Any]:
    """All rows of a project, as text, and its events."""
    found: dict[str, Any] = {}
    for table, where in TABLES.items():
        if table not in ("events", "ai_models"):
            # The transaction that reserved is one of this database.
            value = "to_jsonb(t) - 'transaction'"
            query = f"SELECT ({value})::text FROM {table} t WHERE {where} ORDER BY 1"
            found[table] = await stored(database, query, project=project)
    found["events"] = await stored(database, EVENTS, project=project)
    for name, query in DERIVED.items():
        found[name] = await stored(database, query, project=project)
    return found


async def copy_users(database: db.Database, elsewhere: db.Database) -> None:
    """Make the same users in the other database."""
    users = await stored(database, "SELECT row_to_json(u)::text FROM users u")
    async with elsewhere.write(db.Viewer(is_administrator=True)) as session:
        for user in users:
            statement = "SELECT * FROM json_populate_record(NULL::users, CAST(:user AS json))"
            await session.execute(
                text(f"INSERT INTO users {statement} ON CONFLICT DO NOTHING"), {"user": user}
            )


async def test_a_project_is_the_same_elsewhere(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_whole_world(database, http, people)
    project = world.project.id
    path = tmp_path / "export.jsonl"
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(
            text("UPDATE events SET created_at = created_at - interval '10 days'")
        )
    before = await rows(database, project)
    empty = {table for table, found in before.items() if not found}
    assert empty == {"budget_increases", "budget_periods", "budget_reservations"}
    await copy_users(database, elsewhere)

    counts = await export_project(database, str(project), path)
    assert formats.recognise(path) == formats.EXPORT
    report = await import_export(elsewhere, path, owner=None)

    assert await rows(elsewhere, project) == before
    await number_all(elsewhere, 90)
    assert await rows(elsewhere, project) == before
    assert report.changed == []
    assert report.added["tasks"] == counts["tasks"] == len(before["tasks"])
    state = await snapshot(elsewhere)

    again = await import_export(elsewhere, path, owner=None)

    assert again.already_there == report.added
    assert again.lines()[0].startswith("Nothing was added: 1 project, ")
    assert await snapshot(elsewhere) == state


async def test_budgets_and_what_is_spent_are_the_same_elsewhere(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_world(database, http, people)
    project = world.project.id
    top, waiting = await tasks(world, 2)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        below = await make_task(session, world.project, "below", parent_task_id=top.id)
        agent = await make_agent(session, world.project, "Grace")
    of_tree = await budget(world, limitCost="10", taskId=gid(top), thresholds=[50, 80])
    of_all = await budget(world, limitTokens=1000, isHard=True, claimReserve="100")
    await record(world, {"cost": "8.5", "taskId": gid(below), "inputTokens": 250})
    # A limit that was raised after the alert was made.
    await raise_limit(world, of_tree)
    assert await claim(world, waiting, agent) is not None
    payload = await world.owner.change(
        "requestBudgetIncrease { userErrors { code } }", budgetId=of_all, limitTokens=2000
    )
    assert payload == {"userErrors": []}
    before = await rows(database, project)
    assert sorted(row[1:3] for row in before["budgets' state"]) == [
        (Decimal("8.5"), 0),
        (Decimal(250), 100),
    ]
    assert len(before["budget_alerts"]) == 2
    assert all(before[table] for table in ("budget_increases", "budget_reservations"))
    await copy_users(database, elsewhere)
    path = tmp_path / "export.jsonl"
    await export_project(database, str(project), path)

    told = await import_export(elsewhere, path, owner=None, preview=True)
    assert await stored(elsewhere, "SELECT id FROM projects") == []
    report = await import_export(elsewhere, path, owner=None)

    assert await rows(elsewhere, project) == before
    assert told.lines() == [
        "Would add 1 project, 6 tasks, 1 dependency, 1 conversation and 1 message."
    ]
    assert report.lines() == [
        "Added 1 project, 6 tasks, 1 dependency, 1 conversation and 1 message."
    ]


async def raise_limit(world: World, id: str) -> None:
    """Raise the limit of a budget, so that its thresholds are not reached any more."""
    payload = await world.owner.change(
        "updateBudget { userErrors { code } }", id=id, limitCost="100"
    )
    assert payload == {"userErrors": []}


async def test_a_project_that_was_changed_since_is_compared(
    database: db.Database, http: httpx.AsyncClient, people: People, tmp_path: Path
) -> None:
    world = await make_world(database, http, people)
    path = tmp_path / "export.jsonl"
    await export_project(database, world.project.name, path)
    await tasks(world, 2)
    state = await snapshot(database)

    report = await import_export(database, path, owner=None)

    assert await snapshot(database) == state
    assert report.lines() == [
        "Nothing was added: 1 project, 3 tasks, 1 dependency, 1 conversation and 1 message are"
        " already there.",
        "Kept:",
        f'  the project "{world.project.name}" was changed since, here or there, and stays as it is'
        " here. The file has 3 tasks (here 5), 9 events (here 11). Delete the project to import it"
        " again.",
    ]


async def test_a_history_that_is_not_in_the_file_is_not_made_up(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_world(database, http, people)
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text("DELETE FROM events"))
    path = tmp_path / "export.jsonl"
    await export_project(database, str(world.project.id), path)

    await import_export(elsewhere, path, owner=None)

    assert await stored(elsewhere, "SELECT id FROM projects") == [world.project.id]
    assert await stored(elsewhere, "SELECT project_id FROM events") == [None]


async def test_users_who_have_another_id_are_found_by_name(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_world(database, http, people)
    await world.owner.change(
        "createTask { userErrors { code } }", projectId=gid(world.project), title="t"
    )
    path = tmp_path / "export.jsonl"
    await export_project(database, str(world.project.id), path)
    [name] = await stored(
        database,
        "SELECT username FROM users u JOIN projects p ON p.owner_id = u.id WHERE p.id = :id",
        id=world.project.id,
    )
    async with elsewhere.write(db.Viewer(is_administrator=True)) as session:
        same = await db.User.create(session, username=name.upper(), email="a@example.org")

    await import_export(elsewhere, path, owner=None)

    assert await stored(elsewhere, "SELECT owner_id FROM projects") == [same.id]
    who = "SELECT DISTINCT actor_id FROM events WHERE actor_type = 'USER' AND entity_type = 'Task'"
    assert await stored(elsewhere, who) == [same.id]


async def test_users_who_are_not_there_become_nobody(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_whole_world(database, http, people)
    path = tmp_path / "export.jsonl"
    await export_project(database, world.project.name, path)
    async with elsewhere.write(db.Viewer(is_administrator=True)) as session:
        owner = await db.User.create(session, username="new", email="new@example.org")

    report = await import_export(elsewhere, path, owner=owner.id)

    assert report.changed_count > 0
    assert all("does not exist here" in line for line in report.changed)
    members = "SELECT user_id, role FROM project_members"
    assert await stored(elsewhere, members) == [(owner.id, "OWNER")]
    assert await stored(elsewhere, "SELECT owner_id FROM projects") == [owner.id]


async def test_a_file_that_is_cut_off_adds_nothing(
    database: db.Database,
    elsewhere: db.Database,
    http: httpx.AsyncClient,
    people: People,
    tmp_path: Path,
) -> None:
    world = await make_whole_world(database, http, people)
    path = tmp_path / "export.jsonl"
    await export_project(database, str(world.project.id), path)
    lines = path.read_bytes().splitlines(keepends=True)
    before = await snapshot(elsewhere)
    half = lines[-2][: len(lines[-2]) // 2]
    for content in (lines[:-1], [*lines[:-2], half], [*lines[:-2], lines[-1]]):
        path.write_bytes(b"".join(content))

        with pytest.raises(NotImportable, match=r"is cut off|is not complete"):
            await import_export(elsewhere, path, owner=None)

        assert await snapshot(elsewhere) == before


@pytest.mark.parametrize(
    ("first", "sentence"),
    [
        ({"format": "troupe", "version": 2}, "has the version 2, and this Troupe reads 1."),
        ({"format": "other"}, "is no export of Troupe."),
        ({"format": "troupe", "version": 1}, "names no project in its first line."),
    ],
)
async def test_an_export_of_another_version_is_refused(
    elsewhere: db.Database, tmp_path: Path, first: Any, sentence: str
) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text(json.dumps(first) + "\n", encoding="utf-8")

    with pytest.raises(NotImportable) as refusal:
        await import_export(elsewhere, path, owner=None)

    assert str(refusal.value) == f"{path} {sentence}"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"table":"tasks","rows":[{]}', ", line 2: it is no JSON; it was changed."),
        (b'{"table":"tasks","rows":["\xff"]}', ", line 2: it is no JSON; it was changed."),
        (b'{"table":"tasks","rows":[1]}', ", line 2: a row is no object; it was changed."),
        (b'{"table":"tasks","rows":[{"id":"a"}]}', ", line 2: it cannot be stored: invalid input"),
        (b'{"table":"users+","rows":[]}', "has the table users+"),
        (b'{"table":"tasks","rows":[{"more":1}]}', "has tasks.more, which this Troupe does not"),
        (b"[]", " is not complete: its numbers of rows differ."),
    ],
)
async def test_an_export_that_was_changed_is_refused(
    elsewhere: db.Database, tmp_path: Path, line: bytes, sentence: str
) -> None:
    path = tmp_path / "export.jsonl"
    first = {"format": "troupe", "version": 1, "project": str(uuid.uuid4())}
    path.write_bytes(json.dumps(first).encode() + b"\n" + line + b"\n" + b'{"end":{}}\n')
    before = await snapshot(elsewhere)

    with pytest.raises(NotImportable) as refusal:
        await import_export(elsewhere, path, owner=None)

    assert sentence in str(refusal.value)
    assert await snapshot(elsewhere) == before


async def test_a_project_that_is_not_there_is_not_exported(
    database: db.Database, tmp_path: Path
) -> None:
    with pytest.raises(NotExportable, match='There is no project "none"'):
        await export_project(database, "none", tmp_path / "export.jsonl")

    assert os.listdir(tmp_path) == []


async def test_only_a_regular_file_is_written(database: db.Database, tmp_path: Path) -> None:
    """A device, or a pipe, would be replaced by the file."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await make_project(session, None)
    pipe, link, target = tmp_path / "pipe", tmp_path / "link.json", tmp_path / "target.json"
    os.mkfifo(pipe)
    with pytest.raises(NotExportable, match=f"^{pipe} is no regular file\\.$"):
        await export_project(database, str(project.id), pipe)
    assert pipe.is_fifo()
    with pytest.raises(NotExportable, match=f"^{tmp_path} is a directory\\.$"):
        await export_project(database, str(project.id), tmp_path)
    target.write_text("Earlier", encoding="utf-8")
    link.symlink_to(target)

    await export_project(database, str(project.id), link)

    assert link.is_symlink()
    assert target.read_text(encoding="utf-8").startswith('{"format":"troupe",')
    assert sorted(os.listdir(tmp_path)) == ["link.json", "pipe", "target.json"]


async def test_a_file_that_cannot_be_written_is_named(
    database: db.Database, tmp_path: Path
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        project = await db.Project.create(session, name="p")
    path = tmp_path / "none" / "export.jsonl"

    with pytest.raises(NotExportable) as refusal:
        await export_project(database, str(project.id), path)

    assert str(refusal.value) == f"{path} cannot be written: No such file or directory."


def test_every_table_of_a_project_is_exported() -> None:
    left_out = {"users", "access_tokens", "webhooks", "webhook_deliveries"}
    assert {table.name for table in logged_tables()} - TABLES.keys() <= left_out
    assert LINKS.keys() <= TABLES.keys()
