"""The standard operations that every entity has, without GraphQL."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

import db
from db.errors import NotFound
from db.writes import insert_many
from tests import factories
from tests.conftest import ADMIN


async def test_what_is_not_there_is_not_found(database: db.Database, admin: db.User) -> None:
    id = db.new_id()
    async with database.write(ADMIN) as session:
        project = await factories.make_project(session, admin)
        assert await db.Project.get(session, project.id) is project

        with pytest.raises(NotFound) as missing:
            await db.Project.get(session, id)
        with pytest.raises(NotFound):
            await db.Project.get(session, id, for_update=True)

    assert missing.value.message == f"There is no Project with the id {id}."


async def test_a_list_is_in_the_order_of_ids_and_has_an_end(
    database: db.Database, admin: db.User
) -> None:
    ids = sorted((db.new_id() for _ in range(6)), reverse=True)
    async with database.write(ADMIN) as session:
        for place, id in enumerate(ids):
            await factories.make_project(session, admin, f"{place}", id=id)
        first = await db.Project.list(session, limit=4)
        found = await db.Project.list(session, db.Project.name.in_(["1", "5"]))
        default = await db.Project.list(session)

    assert [project.id for project in first] == sorted(ids)[:4]
    assert [project.name for project in found] == ["5", "1"]
    assert len(default) == 6


async def test_a_list_has_a_hundred_rows_unless_told_otherwise(
    database: db.Database, admin: db.User
) -> None:
    async with database.write(ADMIN) as session:
        project = await factories.make_project(session, admin)
        rows = [{"project_id": project.id, "title": f"{place}"} for place in range(101)]
        rows = [row | {"available_at": factories.START} for row in rows]
        await insert_many(session, db.Task, rows)

        assert len(await db.Task.list(session)) == 100
        assert len(await db.Task.list(session, limit=200)) == 101


async def test_what_is_too_long_is_refused_in_an_insert_of_many_rows(
    database: db.Database, admin: db.User
) -> None:
    async with database.write(ADMIN) as session:
        project = await factories.make_project(session, admin)
    row = {"project_id": project.id, "available_at": factories.START}
    fits, too_long = row | {"title": "x" * 255}, row | {"title": "x" * 256}

    with pytest.raises(DBAPIError) as refused:
        async with database.write(ADMIN) as session:
            await insert_many(session, db.Task, [fits, too_long])
    async with database.write(ADMIN) as session:
        await insert_many(session, db.Task, [fits])

    assert getattr(refused.value.orig, "sqlstate", None) == "22001"
    async with database.read() as session:
        assert await session.scalar(select(func.length(db.Task.title))) == 255
