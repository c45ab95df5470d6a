"""A changed plan that is imported again: what changed is changed, and what was done is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import text

import db
from db.imports import Report, import_plan
from tests.world import snapshot, stored


def task(id: Any, *dependencies: Any, **more: Any) -> dict[str, Any]:
    """A task of a plan."""
    return {"id": id, "title": f"Task {id}", "dependencies": list(dependencies)} | more


async def plan(
    database: db.Database, folder: Path, *tasks: Any, preview: bool = False, **more: Any
) -> Report:
    """Import a plan with these tasks."""
    path = folder / "tasks.json"
    path.write_text(json.dumps({"x": {"tasks": tasks} | more}), encoding="utf-8")
    return await import_plan(database, path, owner=None, project="p", preview=preview)


async def sql(database: db.Database, statement: str) -> None:
    """Change something as an agent or a person would have."""
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text(statement))


async def table(database: db.Database) -> dict[str, Any]:
    """The tasks by their reference: title, status, how many they wait for, what they wait for."""
    query = """
        SELECT task_metadata #>> '{import,reference}', title, tasks.status, unmet_dependency_count,
               array(SELECT other.task_metadata #>> '{import,reference}'
                     FROM task_dependencies JOIN tasks other ON other.id = dependency_id
                     WHERE dependent_id = tasks.id ORDER BY 1)
        FROM tasks ORDER BY 1
    """
    return {row[0]: row[1:] for row in await stored(database, query)}


async def test_what_changed_in_the_file_is_changed(database: db.Database, tmp_path: Path) -> None:
    await plan(database, tmp_path, task(1), task(2, 1), task(3, 2), task(4))
    ids = await stored(database, "SELECT id FROM tasks ORDER BY id")

    report = await plan(
        database,
        tmp_path,
        task(1, status="done"),
        task(2, 1, title="Two", subtasks=[task(1)]),
        task(3, 1),
        task(5, 3),
    )

    assert report.lines() == [
        "Added 2 tasks and 2 dependencies.",
        "Updated 1 project and 2 tasks.",
        "Removed 1 task and 1 dependency.",
        "Created:",
        '  tag "x", task 2.1 "Task 1"',
        '  tag "x", task 5 "Task 5"',
        '  tag "x", task 3 "Task 3": its dependency on 1.',
        '  tag "x", task 5 "Task 5": its dependency on 3.',
        "Updated:",
        '  tag "x", task 1 "Task 1": its status (COMPLETED).',
        '  tag "x", task 2 "Task 2": its title.',
        "Removed:",
        '  tag "x", task 3 "Task 3": its dependency on 2.',
        '  tag "x", task 4 "Task 4"',
    ]
    assert await table(database) == {
        "1": ("Task 1", "COMPLETED", 0, []),
        "2": ("Two", "PENDING", 1, ["1"]),
        "2.1": ("Task 1", "PENDING", 0, []),
        "3": ("Task 3", "PENDING", 0, ["1"]),
        "5": ("Task 5", "PENDING", 1, ["3"]),
    }
    assert (await stored(database, "SELECT id FROM tasks ORDER BY id"))[:3] == ids[:3]
    before = await snapshot(database)

    again = await plan(
        database,
        tmp_path,
        task(1, status="done"),
        task(2, 1, title="Two", subtasks=[task(1)]),
        task(3, 1),
        task(5, 3),
    )

    assert again.lines() == [
        "Nothing was added: 1 project, 5 tasks and 3 dependencies are already there."
    ]
    assert await snapshot(database) == before


async def test_a_dry_run_changes_nothing(database: db.Database, tmp_path: Path) -> None:
    new = await plan(database, tmp_path, task(1), task(2), preview=True)

    assert new.lines() == [
        "Would add 1 project, 2 tasks and 0 dependencies.",
        "Would be created:",
        '  project "p/x" with all its tasks.',
    ]
    assert await stored(database, "SELECT id FROM projects") == []
    await plan(database, tmp_path, task(1), task(2))
    before = await snapshot(database)

    changed = await plan(database, tmp_path, task(1, title="One"), task(3), preview=True)

    assert changed.lines() == [
        "Would add 1 task and 0 dependencies.",
        "Would update 1 project and 1 task.",
        "Would remove 1 task and 0 dependencies.",
        "Would be created:",
        '  tag "x", task 3 "Task 3"',
        "Would be updated:",
        '  tag "x", task 1 "Task 1": its title.',
        "Would be removed:",
        '  tag "x", task 2 "Task 2"',
    ]
    assert await snapshot(database) == before
    same = await plan(database, tmp_path, task(1), task(2), preview=True)
    assert same.lines() == [
        "Nothing would be added: 1 project, 2 tasks and 0 dependencies are already there."
    ]


async def test_what_was_done_is_kept(database: db.Database, tmp_path: Path) -> None:
    await plan(database, tmp_path, *(task(number) for number in range(1, 8)))
    for number, change in {
        1: "status = 'COMPLETED', completed_at = now()",
        2: "status = 'IN_PROGRESS', attempt_count = 1",
        3: "attempt_count = 1",
        4: "title = 'Renamed'",
        5: "status = 'FAILED', attempt_count = 3",
        6: "status = 'COMPLETED', attempt_count = 1",
        7: "description = 'By hand'",
    }.items():
        await sql(database, f"UPDATE tasks SET {change} WHERE title = 'Task {number}'")

    report = await plan(
        database,
        tmp_path,
        task(1, status="review"),
        task(2, status="done"),
        task(3, status="review"),
        task(4, title="Four"),
        task(5, status="cancelled"),
    )

    kept = "because something was done with it"
    assert report.steps("Kept") == [
        f'tag "x", task 1 "Task 1": its status stays COMPLETED, {kept}.',
        f'tag "x", task 2 "Task 2": its status stays IN_PROGRESS, {kept}.',
        f'tag "x", task 3 "Task 3": its status stays PENDING, {kept}.',
        'tag "x", task 4 "Renamed": its title was changed in Troupe too.',
        f'tag "x", task 5 "Task 5": its status stays FAILED, {kept}.',
        'tag "x", task 6 "Task 6": it is no longer in the file, but it was worked on.',
        'tag "x", task 7 "Task 7": it is no longer in the file, but it was changed in Troupe.',
    ]
    assert [(row[0], row[1]) for row in (await table(database)).values()] == [
        ("Task 1", "COMPLETED"),
        ("Task 2", "IN_PROGRESS"),
        ("Task 3", "PENDING"),
        ("Renamed", "PENDING"),
        ("Task 5", "FAILED"),
        ("Task 6", "COMPLETED"),
        ("Task 7", "PENDING"),
    ]


async def test_what_was_changed_in_troupe_alone_stays(
    database: db.Database, tmp_path: Path
) -> None:
    await plan(database, tmp_path, task(1), task(2, 1), task(3))
    await sql(database, "UPDATE tasks SET title = 'Mine', priority = 5 WHERE title = 'Task 1'")
    await sql(database, "DELETE FROM task_dependencies")
    add = "INSERT INTO task_dependencies (dependent_id, dependency_id) SELECT a.id, b.id"
    await sql(
        database, f"{add} FROM tasks a, tasks b WHERE a.title = 'Mine' AND b.title = 'Task 3'"
    )

    report = await plan(database, tmp_path, task(1), task(2, 1), task(3, 1, title="Three"))

    assert report.left_out == [
        'tag "x", task 3 "Three": the dependency on 1 was left out, because it closes a cycle with'
        " what was added in Troupe."
    ]
    assert await table(database) == {
        "1": ("Mine", "PENDING", 1, ["3"]),
        "2": ("Task 2", "PENDING", 0, []),
        "3": ("Three", "PENDING", 0, []),
    }


async def test_what_waits_for_a_cancelled_task_waits_on(
    database: db.Database, tmp_path: Path
) -> None:
    await plan(database, tmp_path, task(1), task(2, 1))

    await plan(database, tmp_path, task(1, status="cancelled"), task(2, 1))

    assert await table(database) == {
        "1": ("Task 1", "CANCELLED", 0, []),
        "2": ("Task 2", "PENDING", 1, ["1"]),
    }


async def test_a_task_moves_below_another(database: db.Database, tmp_path: Path) -> None:
    await plan(database, tmp_path, task(1), task(2, subtasks=[task("2.1", status="done")]))

    # Task Master renumbers what it moves, so it is another task there.
    await plan(database, tmp_path, task(1, subtasks=[task(1)]), task(2))

    assert await table(database) == {
        "1": ("Task 1", "PENDING", 1, []),
        "1.1": ("Task 1", "PENDING", 0, []),
        "2": ("Task 2", "PENDING", 0, []),
        "2.1": ("Task 2.1", "COMPLETED", 0, []),
    }


async def test_the_standard_path_names_the_repository(
    database: db.Database, tmp_path: Path
) -> None:
    folder = tmp_path / "station" / ".taskmaster" / "tasks"
    folder.mkdir(parents=True)
    (folder / "tasks.json").write_text(
        json.dumps({"master": {"tasks": [task(1)]}}), encoding="utf-8"
    )

    await import_plan(database, folder / "tasks.json", owner=None)

    assert await stored(database, "SELECT name FROM projects") == ["station/master"]
