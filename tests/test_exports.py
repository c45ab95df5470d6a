"""Exports: a project with all that belongs to it, in another database and with the same ids."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, text

import db
from db.events.triggers import logged_tables
from db.exports import NotExportable, export_project, import_export
from db.exports.contents import LINKS, TABLES
from db.imports import NotImportable, formats
from tests.conftest import People, _on_server
from tests.world import make_whole_world, snapshot, stored

EVENTS = """
    SELECT row_to_json(r)::text FROM (
        SELECT created_at, project_id, owner_id, entity_type, entity_id, action, actor_type,
               actor_id, token_id, before, after
        FROM events WHERE project_id = :project
          AND entity_type NOT IN ('AccessToken', 'Webhook', 'WebhookDelivery')
        ORDER BY position NULLS LAST, id
    ) r
"""


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
            query = f"SELECT row_to_json(t)::text FROM {table} t WHERE {where} ORDER BY 1"
            found[table] = await stored(database, query, project=project)
    found["events"] = await stored(database, EVENTS, project=project)
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
    before = await rows(database, project)
    empty = {table for table, found in before.items() if not found}
    assert empty == {"budget_increases"}
    await copy_users(database, elsewhere)

    counts = await export_project(database, str(project), path)
    assert formats.recognise(path) == formats.EXPORT
    report = await import_export(elsewhere, path, owner=None)

    assert await rows(elsewhere, project) == before
    assert report.changed == []
    assert report.added["tasks"] == counts["tasks"] == len(before["tasks"])
    costs = "SELECT sum(cost), sum(calls) FROM usage_totals WHERE project_id = :project"
    assert await stored(elsewhere, costs, project=project) == await stored(
        database, costs, project=project
    )
    state = await snapshot(elsewhere)

    again = await import_export(elsewhere, path, owner=None)

    assert again.already_there == report.added
    assert again.lines()[0].startswith("Nothing was added: 1 project, ")
    assert await snapshot(elsewhere) == state


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


async def test_a_project_that_is_not_there_is_not_exported(
    database: db.Database, tmp_path: Path
) -> None:
    with pytest.raises(NotExportable, match='There is no project "none"'):
        await export_project(database, "none", tmp_path / "export.jsonl")

    assert os.listdir(tmp_path) == []


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
