"""The importers: real files to the last number, untidy ones told what became of them, broken ones
refused whole, and all that can happen in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, text
from sqlalchemy.exc import DBAPIError

import db
from db.dependencies import find_cycle
from db.imports import NotImportable, Report, files, import_chats, import_plan
from db.imports.cycles import cycle_closing_edges
from db.tasks import OnFailure, TaskStatus
from tests.conftest import _on_server
from tests.world import snapshot, stored

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
REAL = ROOT.parent / "shared" / "data"
REAL_PLAN = REAL / "taskmaster-plan.json"
REAL_CHATS = REAL / "tau-bench-airline-gpt-4o.json"

real = pytest.mark.skipif(not REAL.is_dir(), reason="the real files are not here")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file: bytes and text as they are, anything else as JSON."""

    def write(content: Any, name: str = "file.json") -> Path:
        path = tmp_path / name
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    return write


@pytest.fixture(scope="module")
def empty_url(server: URL, template: str) -> Iterator[URL]:
    """A database at head for all tests that must not change anything in it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    asyncio.run(
        _on_server(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    )
    yield server.set(database=name)
    asyncio.run(_on_server(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def empty(empty_url: URL) -> AsyncIterator[db.Database]:
    """The engines of a server on that database."""
    database = db.Database(empty_url)
    yield database
    assert not any((await snapshot(database)).values())
    await database.dispose()


@asynccontextmanager
async def refused(database: db.Database, sentence: str) -> AsyncIterator[None]:
    """What happens inside is refused with exactly this sentence and changes nothing."""
    before = await snapshot(database)
    with pytest.raises(NotImportable) as refusal:
        yield
    assert await snapshot(database) == before
    assert str(refusal.value) == sentence


def tag(*tasks: Any, **more: Any) -> dict[str, Any]:
    """A tag of a plan with these tasks."""
    return {"tasks": list(tasks)} | more


def task(id: Any, *dependencies: Any, **more: Any) -> dict[str, Any]:
    """A task of a plan."""
    return {"id": id, "title": f"Task {id}", "dependencies": list(dependencies)} | more


def said(*contents: str) -> list[dict[str, str]]:
    """A conversation in which a user says this."""
    return [{"role": "user", "content": content} for content in contents]


async def table(database: db.Database, project: str) -> dict[str, Any]:
    """The tasks of a project by their reference: title, status, priority, what they wait for."""
    query = """
        SELECT task_metadata #>> '{import,reference}', title, tasks.status, priority,
               unmet_dependency_count,
               array(SELECT other.task_metadata #>> '{import,reference}'
                     FROM task_dependencies JOIN tasks other ON other.id = dependency_id
                     WHERE dependent_id = tasks.id ORDER BY other.id)
        FROM tasks JOIN projects ON projects.id = project_id
        WHERE name = :project ORDER BY tasks.id
    """
    return {row[0]: row[1:] for row in await stored(database, query, project=project)}


# Plans


@real
async def test_a_real_plan_is_there_to_the_last_edge(database: db.Database, admin: db.User) -> None:
    report = await import_plan(database, REAL_PLAN, owner=admin.id)

    assert report.added == {"projects": 9, "tasks": 1096, "dependencies": 972}
    assert report.left_out == [
        'tag "master", task 12.4: the dependency on 1 was left out, because 12.1 waits for 12.4'
        " already, directly or by way of others.",
        'tag "test-tag", task 1: the dependency on 16 was left out, because there is no such task.',
    ]
    assert await stored(database, "SELECT name, status, owner_id FROM projects ORDER BY id") == [
        (f"data/{name}", "IN_PROGRESS", admin.id)
        for name in (
            "master",
            "test-tag",
            "cc-kiro-hooks",
            "tm-core-phase-1",
            "tm-start",
            "autonomous-tdd-git-workflow",
            "tdd-workflow-phase-0",
            "tdd-phase-1-core-rails",
            "loop",
        )
    ]
    counted = "SELECT count(*) FILTER (WHERE parent_task_id IS NULL), count(*) FROM tasks"
    assert await stored(database, counted) == [(182, 1096)]
    assert await stored(database, "SELECT count(*) FROM task_dependencies") == [972]
    statuses = "SELECT status, blocked_reason, count(*) FROM tasks GROUP BY 1, 2 ORDER BY 1"
    assert await stored(database, statuses) == [
        ("BLOCKED", "MANUAL", 7),
        ("CANCELLED", None, 3),
        ("COMPLETED", None, 578),
        ("PENDING", None, 508),
    ]
    await assert_counts(database)


@real
async def test_the_same_plan_again_adds_nothing(database: db.Database, admin: db.User) -> None:
    await import_plan(database, REAL_PLAN, owner=admin.id)
    before = await snapshot(database)

    report = await import_plan(database, REAL_PLAN, owner=admin.id)

    assert report.lines() == [
        "Nothing was added: 9 projects, 1,096 tasks and 972 dependencies are already there."
    ]
    assert await snapshot(database) == before


async def test_an_untidy_plan_is_taken_in_and_told_about(
    database: db.Database, admin: db.User
) -> None:
    report = await import_plan(database, EXAMPLES / "plan.json", owner=admin.id)

    assert report.lines() == [
        "Added 2 projects, 19 tasks and 17 dependencies.",
        "Left out:",
        '  tag "master", task 3.4: the dependency on 3.3 was left out, because 3.3 waits for 3.4'
        " already, directly or by way of others.",
        '  tag "master", task 4: the dependency on 3 was left out, because it is named twice.',
        '  tag "master", task 4: the dependency on 17 was left out, because there is no such task.',
        '  tag "master", task 4: the dependency on 4 was left out, because a task cannot wait for'
        " itself.",
        '  tag "master", task 6: the dependency on null was left out, because it names nothing.',
        '  "version" at the top of the file was left out, because it is not a tag.',
        "Changed:",
        '  tag "master", task 6: it has no title; its description begins like this one.',
        '  tag "master", task 6: the status "waiting for the forecast" is unknown, so it is held'
        " (BLOCKED).",
        '  tag "master", task 6: the priority "whenever" is unknown, so it is 3 (medium).',
        '  tag "master", task 6: it waits for 5, which was cancelled, until somebody removes the'
        " dependency (HOLD).",
        '  tag "housing", task 2.2: its id 7 is that of another before it, so it goes by its'
        " place.",
        '  tag "housing", task 1: its updatedAt is not a point in time that can be read, so it is'
        " not known when it was completed.",
    ]
    assert await table(database, "examples/master") == {
        "1": ("Choose the sensors", "COMPLETED", 5, 0, []),
        "2": ("Read the sensors", "PENDING", 5, 3, ["1"]),
        "2.1": ("Temperature and humidity", "COMPLETED", 5, 0, []),
        "2.2": ("Wind", "PENDING", 5, 0, ["2.1"]),
        "2.3": ("Leave out readings that cannot be", "PENDING", 5, 1, ["2.1", "2.2"]),
        "2.4": ("Write down how to add a sensor", "PENDING", 5, 0, []),
        "3": ("Store the readings", "PENDING", 3, 4, ["2"]),
        "3.1": ("Choose a format", "COMPLETED", 3, 1, []),
        "3.2": ("Write it", "BLOCKED", 3, 1, ["2.1", "3.1"]),
        "3.3": ("Thin out what is older than a year", "BLOCKED", 3, 3, ["3.2", "3.4"]),
        "3.4": ("Check that nothing is lost on a power cut", "PENDING", 3, 2, ["3.2"]),
        "4": ("Show the weather on a page", "PENDING", 1, 1, ["3"]),
        "5": ("Send the readings by post once a month", "CANCELLED", 1, 1, ["3"]),
        "6": ("Warn of frost", "BLOCKED", 3, 2, ["2.2", "5"]),
    }
    assert await table(database, "examples/housing") == {
        "1": ("Draw the housing", "COMPLETED", 3, 0, []),
        "2": ("Print it", "PENDING", 5, 2, ["1"]),
        "2.7": ("Buy filament that stands the sun", "PENDING", 5, 0, []),
        "2.2": ("Print the shield", "PENDING", 5, 1, ["2.7"]),
        "3": ("Mount it two metres above the grass", "PENDING", 3, 1, ["2"]),
    }


async def test_what_has_no_column_stays_in_the_description_or_the_metadata(
    database: db.Database, admin: db.User
) -> None:
    await import_plan(database, EXAMPLES / "plan.json", owner=admin.id)

    query = """
        SELECT description, completed_at::text, task_metadata ->> 'taskmaster' FROM tasks
        WHERE title = :title
    """
    assert await stored(database, query, title="Choose the sensors") == [
        (
            "Compare temperature, humidity and wind sensors by price, accuracy and power.\n\n"
            "Details:\nThe station runs on a battery: anything over 5 mA at rest is out.",
            "2025-03-04 16:20:00+00",
            '{"id": 1, "status": "done", "priority": "high", "updatedAt":'
            ' "2025-03-04T16:20:00.000Z", "complexity": 2}',
        )
    ]
    assert await stored(database, query, title="Read the sensors") == [
        (
            "A driver for each sensor, behind one interface.\n\n"
            "Test strategy:\nReplay a day of recorded readings.",
            None,
            '{"id": "2", "status": "in-progress", "priority": "high"}',
        )
    ]
    # What is no point in time is no reason to guess one.
    assert await stored(database, query, title="Draw the housing") == [
        (None, None, '{"id": 1, "status": "done", "priority": "medium", "updatedAt": "in March"}')
    ]
    # Digits are kept as they were written.
    assert await stored(database, query, title="Store the readings") == [
        (
            "Ten years of readings, one a minute, on a small disk.",
            None,
            '{"id": 3, "status": "pending", "estimate": 13.50, "priority": "medium"}',
        )
    ]
    about = """
        SELECT description::text, (project_metadata - 'import')::text FROM projects
        WHERE name = :name
    """
    assert await stored(database, about, name="examples/master") == [
        (
            '{"text": "A weather station for the school garden"}',
            '{"taskmaster": {"metadata": {"created": "2025-03-01T09:00:00.000Z", "updated":'
            ' "2025-03-09T18:30:00.000Z", "description": "A weather station for the school'
            ' garden"}}}',
        )
    ]


async def test_what_does_not_fit_is_kept_elsewhere(database: db.Database, write: Write) -> None:
    odd = task(404, title="x" * 300, description={"a": 1}, priority=2, details=["a", "b"])
    numbers = task("n", title=7, description=1, status="In_Progress", testStrategy="c")

    report = await import_plan(database, write({"x": tag(odd, numbers)}), owner=None)

    assert report.changed == [
        'tag "x", task 404: its title has 300 characters and was cut after 254; the description'
        " begins with all of it.",
        'tag "x", task 404: its description is an object, so it stands in the metadata.',
        'tag "x", task 404: the priority "2" is unknown, so it is 3 (medium).',
    ]
    query = """
        SELECT title, description, status, priority, task_metadata ->> 'taskmaster' FROM tasks
        ORDER BY id
    """
    assert await stored(database, query) == [
        (
            f"{'x' * 254}…",
            f"{'x' * 300}\n\nDetails:\na\nb",
            "PENDING",
            3,
            '{"id": 404, "priority": 2, "description": {"a": 1}}',
        ),
        ("7", "1\n\nTest strategy:\nc", "PENDING", 3, '{"id": "n", "status": "In_Progress"}'),
    ]


async def test_a_dependency_on_what_was_cancelled_holds(
    database: db.Database, admin: db.User, write: Write
) -> None:
    plan = {"x": tag(task(1, status="cancelled"), task(2, 1), task(3, 2))}

    await import_plan(database, write(plan), owner=admin.id)

    edges = """
        SELECT title, on_failure FROM task_dependencies JOIN tasks ON id = dependent_id ORDER BY id
    """
    assert await stored(database, edges) == [
        ("Task 2", OnFailure.HOLD),
        ("Task 3", OnFailure.SKIP),
    ]


async def test_the_older_form_is_the_tag_master(
    database: db.Database, admin: db.User, write: Write
) -> None:
    plan = {"project": "Garden", "tasks": [task(1)], "metadata": {"description": "Old"}}

    report = await import_plan(database, write(plan), owner=admin.id, project="Garden")

    assert report.lines() == ["Added 1 project, 1 task and 0 dependencies."]
    query = "SELECT name, description ->> 'text', project_metadata -> 'taskmaster' ->> 'project'"
    assert await stored(database, f"{query} FROM projects") == [("Garden/master", "Old", "Garden")]


async def test_names_lead_to_the_nearest_task(
    database: db.Database, admin: db.User, write: Write
) -> None:
    plan = {
        "x": tag(
            {"title": "by its place, like the next by its id", "subtasks": [task("1.1")]},
            task(1),
            task(3, dependencies="1.1,4 , 4.1"),
            task(
                2,
                subtasks=[
                    task(1, subtasks=[task(1), task("two", 1)]),
                    task("2", 1, 3, "2.1.two"),
                    task("2.5"),
                    task(6, "2.5", 5, "6"),
                ],
            ),
            task(4, subtasks=[task("", "4.2"), task(None)]),
        )
    }

    report = await import_plan(database, write(plan), owner=admin.id, project="p")

    assert [row[-1] for row in (await table(database, "p/x")).values()] == [
        [],  # 1, the first
        [],  # 1.1
        ["1.1", "4", "4.1"],
        [],
        [],
        [],
        ["2.1.1"],
        ["3", "2.1", "2.1.two"],
        [],
        ["2.5"],
        [],
        ["4.2"],
        [],
    ]
    assert report.left_out == [
        'tag "x", task 2.6: the dependency on 5 was left out, because it is named twice.',
        'tag "x", task 2.6: the dependency on 6 was left out, because a task cannot wait for'
        " itself.",
    ]


async def test_an_id_that_is_given_comes_before_one_that_is_a_place(
    database: db.Database, write: Write
) -> None:
    subtasks = [task(2, title="given"), {"title": "second"}, task(1, 2)]
    plan = tag(task(3, subtasks=subtasks), task(4, "3.2"))

    await import_plan(database, write({"x": plan}), owner=None)

    edges = """
        SELECT dependent.title, dependency.title FROM task_dependencies
        JOIN tasks dependent ON dependent.id = dependent_id
        JOIN tasks dependency ON dependency.id = dependency_id ORDER BY dependent.id
    """
    assert await stored(database, edges) == [("Task 1", "given"), ("Task 4", "given")]


async def test_a_project_that_was_not_imported_is_not_changed(
    database: db.Database, admin: db.User, write: Write
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        await db.Project.create(session, name="p/x", owner_id=admin.id)
    path = write({"new": tag(task(1)), "x": tag(task(1), task(2))})

    async with refused(
        database,
        'tag "x": there is a project "p/x" already, which was not imported from this plan. Import'
        " it under another name with --project, or rename the other project first.",
    ):
        await import_plan(database, path, owner=admin.id, project="p")
    report = await import_plan(database, path, owner=admin.id, project="q")

    assert report.added == {"projects": 2, "tasks": 3, "dependencies": 0}


async def test_a_plan_is_known_by_its_content_not_by_its_writing(
    database: db.Database, admin: db.User, write: Write
) -> None:
    await import_plan(
        database, write('{"x":{"tasks":[{"id":1,"title":"A"}]}}'), owner=admin.id, project="p"
    )
    async with database.write(db.Viewer(is_administrator=True)) as session:
        [project] = await db.Project.list(session)
        await project.update(session, name="Renamed since")

    spaced = write('\ufeff{ "x" : {"tasks": [ {"title": "\\u0041", "id": 1} ] } }\n')
    report = await import_plan(database, spaced, owner=admin.id, project="p")

    assert report.already_there == {"projects": 1, "tasks": 1, "dependencies": 0}
    assert report.changed == [f"{spaced} begins with a byte order mark, which was skipped."]


async def test_a_name_is_the_same_however_its_accents_are_typed(
    database: db.Database, admin: db.User, write: Write
) -> None:
    plan = write({"e\u0301": tag(task(1))})
    chats = write([{"role": "user", "content": "x"}], "chats.json")
    for project, agent in (("Mo\u0308n", "Re\u0301"), ("M\u00f6n", "R\u00e9")):
        planned = await import_plan(database, plan, owner=admin.id, project=project)
        await import_chats(database, chats, owner=admin.id, project=project, agent=agent)

    assert planned.already_there["projects"] == 1
    names = "SELECT name FROM agents UNION ALL SELECT name FROM projects ORDER BY 1"
    assert await stored(database, names) == ["M\u00f6n", "M\u00f6n/\u00e9", "R\u00e9"]


async def test_a_project_of_somebody_else_is_not_in_the_way(
    database: db.Database, admin: db.User, write: Write
) -> None:
    path = write({"x": tag(task(1))})
    await import_plan(database, path, owner=None, project="p")

    report = await import_plan(database, path, owner=admin.id, project="p")

    assert report.added["projects"] == 1


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"x": {"tasks": {}}}, 'tag "x": "tasks" is an object, not a list.'),
        ({"x": tag(1)}, 'tag "x": number 1 of its tasks is a number, not an object.'),
        ({"x": tag({"id": 1})}, 'tag "x", task 1: it has neither a title nor a description.'),
        ({"x": tag(task(1, title={}))}, 'tag "x", task 1: the title is an object, not a text.'),
        (
            {"x": tag(task([1]))},
            'tag "x", number 1 of its tasks: the id is a list, not a number or a text.',
        ),
        ({"x": tag(task(1, status=3))}, 'tag "x", task 1: the status is a number, not a text.'),
        (
            {"x": tag(task(1, priority=["high"]))},
            'tag "x", task 1: the priority is a list, not a text.',
        ),
        (
            {"x": tag(task(1), task(2, 1, {"id": 1}))},
            'tag "x", task 2, number 2 of its dependencies: the id is an object, not a number or a'
            " text.",
        ),
        (
            {"x": tag(task(1, dependencies={"on": 2}))},
            'tag "x", task 1: "dependencies" is an object, not a list of ids.',
        ),
        (
            {"x": tag(task(3, subtasks=[task(2, subtasks=True)]))},
            'tag "x", task 3.2: "subtasks" is a truth value, not a list.',
        ),
        (
            {"x": tag(task(3, subtasks=[task(2, details="a\0b")]))},
            'tag "x", task 3.2, at details: a text contains a NUL character (\\u0000), which cannot'
            " be stored.",
        ),
        (
            {"x": tag(task(3, subtasks=[task(2, details="a\ud83d")]))},
            'tag "x", task 3.2, at details: a text contains half of a surrogate pair (\\ud800 to'
            " \\udfff),"
            " which is no character and cannot be stored.",
        ),
        (
            {"x": tag(task(1), metadata={"\udc00": 1})},
            'tag "x", at metadata.\ufffd: a text contains half of a surrogate pair (\\ud800 to'
            " \\udfff),"
            " which is no character and cannot be stored.",
        ),
        (
            '{"x": {"tasks": [{"id": 1, "title": "A", "estimate": {"days": 1e1000}}]}}',
            'tag "x": it has a number with more than 1,000 digits at tasks[0].estimate.days.',
        ),
        (
            '{"x": {"tasks": [{"id": 1, "title": "A", "estimate": {"days": -1e309}}]}}',
            'tag "x": it has a number beyond 1.8e308 at tasks[0].estimate.days.',
        ),
        (
            '{"x": {"tasks": [{"id": 1, "title": "A", "a": ' + "[" * 100 + "]" * 100 + "}]}}",
            'tag "x": it is nested more than 100 levels deep, at'
            " tasks[0].a[0][0][0][0][0][0][0][0][0].",
        ),
        (
            {"x": {"tasks": [0] * 500_000}},
            'tag "x": it has more than 500,000 values; split it.',
        ),
        (
            {"\x1b[31m": tag(1)},
            'tag "\\x1b[31m": number 1 of its tasks is a number, not an object.',
        ),
        (
            {"x" * 255: tag(task(1))},
            f'The name of the project has 257 characters, and 255 are the most: "p/{"x" * 58}…".',
        ),
    ],
)
async def test_a_plan_without_an_obvious_meaning_is_refused_with_its_place(
    empty: db.Database, write: Write, plan: Any, sentence: str
) -> None:
    if isinstance(plan, dict):
        plan = {"fine": tag(task(1))} | plan
    path = write(plan)

    async with refused(empty, sentence):
        await import_plan(empty, path, owner=None, project="p")


async def test_an_import_of_a_plan_that_was_killed_is_completed_by_the_next(
    database: db.Database, admin: db.User, write: Write
) -> None:
    tags = {f"t{n}": tag(task(1, details="x" * 20_000), task(2, 1)) for n in range(30)}
    path = write(tags, "plan.json")
    await killed_in_the_middle("import_plan", database, path)
    [done] = await stored(database, "SELECT count(*) FROM projects")
    assert 0 < done < 30
    assert await stored(database, "SELECT count(*) FROM tasks") == [2 * done]

    report = await import_plan(database, path, owner=None, project="p")

    assert report.already_there["projects"] == done
    assert report.added["projects"] == 30 - done
    assert await stored(database, "SELECT count(*) FROM task_dependencies") == [30]


async def test_two_imports_of_a_plan_at_once_add_it_once(
    database: db.Database, write: Write
) -> None:
    path = write({f"t{number}": tag(task(1), task(2, 1)) for number in range(20)})

    reports = await asyncio.gather(
        *(import_plan(database, path, owner=None, project="p") for _ in range(3))
    )

    assert sum(report.added["projects"] for report in reports) == 20
    assert sum(report.already_there["projects"] for report in reports) == 40
    assert await stored(database, "SELECT count(*), count(DISTINCT name) FROM projects") == [
        (20, 20)
    ]


async def test_a_subtask_without_a_status_has_that_of_its_task(
    database: db.Database, write: Write
) -> None:
    def part(status: str | None) -> dict[str, Any]:
        deeper = [{"title": "deeper", "status": None}, task("own", status="pending")]
        return task(status, status=status, subtasks=[{"title": "part", "subtasks": deeper}])

    parts = [part(status) for status in ("done", "cancelled", "review", "in-progress", None)]
    report = await import_plan(database, write({"x": tag(*parts)}), owner=None, project="p")

    assert {place: row[1] for place, row in (await table(database, "p/x")).items()} == {
        "done": "COMPLETED",
        "done.1": "COMPLETED",
        "done.1.1": "COMPLETED",
        "cancelled": "CANCELLED",
        "cancelled.1": "CANCELLED",
        "cancelled.1.1": "CANCELLED",
        "review": "BLOCKED",
        "review.1": "BLOCKED",
        "review.1.1": "BLOCKED",
        "in-progress": "PENDING",
        "in-progress.1": "PENDING",
        "in-progress.1.1": "PENDING",
        "5": "PENDING",
        "5.1": "PENDING",
        "5.1.1": "PENDING",
        **{f"{above}.1.own": "PENDING" for above in ("done", "cancelled", "review")},
        **{f"{above}.1.own": "PENDING" for above in ("in-progress", "5")},
    }
    assert report.changed == [
        f'tag "x", task {id}.1; tag "x", task {id}.1.1: it has no status of its own, so it is'
        f" {status}, as what it is a part of."
        for id, status in (("done", "COMPLETED"), ("cancelled", "CANCELLED"), ("review", "BLOCKED"))
    ]
    blocked = "SELECT blocked_reason FROM tasks WHERE status = 'BLOCKED'"
    assert set(await stored(database, blocked)) == {"MANUAL"}
    await assert_counts(database)


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        (
            [{"id": "t1", "name": "A", "description": "B", "status": "todo"}],
            '"name" and no "title"',
        ),
        ([{"label": "build", "type": "shell", "command": "make"}], '"label" and no "title"'),
        ([{"taskName": "build", "isBuildCommand": True}], '"taskName" and no "title"'),
        ([{"id": 1, "content": "A", "title": " ", "status": "done"}], '"content" and no "title"'),
        ([{"id": 1, "title": "A", "completed": False}], '"completed" and no "status"'),
        ([{"id": 1, "title": "A", "isDone": "yes", "status": None}], '"isDone" and no "status"'),
        ([{"id": 1, "title": "A", "state": "done"}], '"state" and no "status"'),
        ([{"id": 1, "title": "A", "is_done": True}], '"is_done" and no "status"'),
        ([{"id": 1, "title": "A", "Status": "done"}], '"Status" and no "status"'),
        ([{"id": 1, "task_name": "A", "status": "done"}], '"task_name" and no "title"'),
    ],
)
async def test_what_another_program_calls_tasks_is_not_taken(
    empty: db.Database, write: Write, tasks: list[Any], found: str
) -> None:
    sentence = (
        f'tag "master", number 2 of its tasks: it has {found}, so this is no Task Master plan,'
        " whose tasks have an id, a title and a status."
    )
    for plan in ({"version": "2.0.0", "tasks": [task(1), *tasks]}, {"master": [task(1), *tasks]}):
        async with refused(empty, sentence):
            await import_plan(empty, write(plan), owner=None)


async def test_a_state_under_another_key_is_named(database: db.Database, write: Write) -> None:
    plan = tag(
        task(1, status="pending", checked=True),
        task(2, status="pending", checked=True, isSubtask=True, previousStatus="done"),
        task(3, status="done", column="In_Progress", colour="green", points=3),
        task(4, is_archived=False, subtasks=[task(1, state="finished"), task(2, done=1)]),
        task(5, status="", phase=" Done ", note=None, done=None),
    )

    report = await import_plan(database, write({"x": plan}), owner=None, project="p")

    assert {key: row[1] for key, row in (await table(database, "p/x")).items()} == {
        "1": "PENDING",
        "2": "PENDING",
        "3": "COMPLETED",
        "4": "PENDING",
        "4.1": "PENDING",
        "4.2": "PENDING",
        "5": "PENDING",
    }
    assert report.left_out == []
    assert report.changed == [
        'tag "x", task 1; tag "x", task 2: it has "checked": true, which is not read; the task is'
        " PENDING.",
        'tag "x", task 3: it has "column": "In_Progress", which is not read; the task is'
        " COMPLETED.",
        'tag "x", task 4: it has "is_archived": false, which is not read; the task is PENDING.',
        'tag "x", task 4.1: it has "state": "finished", which is not read; the task is PENDING.',
        'tag "x", task 4.2: it has "done": 1, which is not read; the task is PENDING.',
        'tag "x", task 5: it has "phase": " Done ", which is not read; the task is PENDING.',
    ]
    metadata = """
        SELECT task_metadata ->> 'taskmaster' FROM tasks
        WHERE task_metadata #>> '{import,reference}' = '3'
    """
    assert await stored(database, metadata) == [
        '{"id": 3, "colour": "green", "column": "In_Progress", "points": 3, "status": "done"}'
    ]


@pytest.mark.parametrize(
    ("tasks", "found"),
    [
        (["A", "B"], "its tasks are texts"),
        ([{"id": 1, "description": "A", "status": "todo"}], "its tasks have descriptions and no"),
    ],
)
async def test_tasks_that_all_lack_a_title_are_not_taken(
    empty: db.Database, write: Write, tasks: list[Any], found: str
) -> None:
    found = found if found.endswith("texts") else f"{found} titles"
    async with refused(
        empty,
        f'tag "master": {found}, so this is no Task Master plan, whose tasks have an id, a title'
        " and a status.",
    ):
        await import_plan(empty, write({"tasks": tasks}), owner=None)


async def test_a_tag_may_be_the_list_of_its_tasks(database: db.Database, write: Write) -> None:
    lists = write({"master": ["A", task(1)], "more": [task(1)], "notes": [{"title": "B"}]})
    objects = write({"master": tag("A", task(1)), "more": tag(task(1))}, "objects.json")

    report = await import_plan(database, lists, owner=None, project="p")
    again = await import_plan(database, objects, owner=None, project="p")

    assert report.lines() == [
        "Added 2 projects, 3 tasks and 0 dependencies.",
        "Left out:",
        '  "notes" at the top of the file was left out, because it is not a tag.',
    ]
    assert again.lines() == [
        "Nothing was added: 2 projects, 3 tasks and 0 dependencies are already there."
    ]
    # In the older form there are no tags, so a list is whatever it is.
    older = write({"more": [task(1)], "tasks": [task(2)]})
    report = await import_plan(database, older, owner=None, project="q")
    assert report.added["projects"] == 1
    kept = "SELECT project_metadata #>> '{taskmaster,more,0,title}' FROM projects WHERE name = :n"
    assert await stored(database, kept, n="q/master") == ["Task 1"]


async def test_a_list_is_not_taken_for_a_second_tag_of_its_name(
    empty: db.Database, write: Write
) -> None:
    path = write('{"x": [{"id": 1, "title": "A"}], "x": {"tasks": [{"id": 1, "title": "B"}]}}')
    async with refused(empty, f'{path} has the tag "x" twice.'):
        await import_plan(empty, path, owner=None)
    path = write('{"v": 1, "v": 2, "x": {"tasks": [{"id": 1, "title": "B"}]}}')
    async with refused(empty, f'{path} has "v" twice.'):
        await import_plan(empty, path, owner=None)


async def test_a_tag_without_tasks_makes_no_project(database: db.Database, write: Write) -> None:
    empty: list[dict[str, Any]] = [
        {"tasks": []},
        {"master": []},
        {"a": tag(metadata={}), "b": tag()},
    ]
    for plan in empty:
        path = write(plan)
        async with refused(database, f"{path} has no task in it."):
            await import_plan(database, path, owner=None)

    report = await import_plan(database, write({"a": tag(), "b": tag(task(1))}), owner=None)

    assert report.left_out == ['tag "a" was left out, because it has no tasks.']
    assert report.added == {"projects": 1, "tasks": 1, "dependencies": 0}


async def test_a_time_that_is_none_is_no_time_of_completion(
    database: db.Database, write: Write
) -> None:
    times = ("0001-01-01T00:00:00Z", "2025-03-04 16:20:00.1234567", "9999-12-31T23:59:59Z")
    tasks = [task(n, status="done", updatedAt=time) for n, time in enumerate(times, 1)]

    report = await import_plan(database, write({"x": tag(*tasks)}), owner=None)

    assert report.changed == [
        'tag "x", task 1: its updatedAt is 0001-01-01T00:00:00Z, which stands for no time, so it is'
        " not known when it was completed.",
        'tag "x", task 2: its updatedAt names no time zone and was taken as UTC and has more than'
        " six digits of a second, of which six were kept.",
    ]
    completed = "SELECT completed_at::text FROM tasks ORDER BY id"
    assert await stored(database, completed) == [
        None,
        "2025-03-04 16:20:00.123456+00",
        "9999-12-31 23:59:59+00",
    ]


# The graph


def in_file_order(closings: list[int]) -> list[int | None]:
    """The parents of tasks; each number says how many open tasks to close before the next."""
    parents: list[int | None] = []
    path: list[int] = []
    for number, closing in enumerate(closings):
        del path[len(path) - min(closing, len(path)) :]
        parents.append(path[-1] if path else None)
        path.append(number)
    return parents


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int | None], list[tuple[int, int]]]:
    """Tasks by their parents, and dependencies between any of them, in any order."""
    parents = in_file_order(draw(st.lists(st.integers(0, 3), min_size=1, max_size=9)))
    tasks = st.integers(0, len(parents) - 1)
    return parents, draw(st.lists(st.tuples(tasks, tasks), unique=True, max_size=16))


@given(graphs())
@settings(max_examples=200, deadline=None)
def test_the_edges_left_out_are_those_that_close_a_circle(
    graph: tuple[list[int | None], list[tuple[int, int]]],
) -> None:
    parents, edges = graph
    kept: dict[int, list[int]] = {}
    closing = []
    for place, (dependent, dependency) in enumerate(edges):
        kept.setdefault(dependent, []).append(dependency)
        if find_cycle(dict(enumerate(parents)), kept):
            kept[dependent].pop()
            closing.append(place)

    assert cycle_closing_edges(parents, edges) == closing


def test_a_large_plan_with_circles_is_not_looked_through_again_for_each_edge() -> None:
    size = 10_000
    ring = [(task, task - 1) for task in range(1, size)] + [(0, size - 1)]
    pairs = [(task, other) for task in range(size) for other in (task + 1, task - 1)]
    pairs = [(task, other) for task, other in pairs if 0 <= other < size]

    assert cycle_closing_edges([None] * size, ring) == [size - 1]
    assert [pairs[place] for place in cycle_closing_edges([None] * size, pairs)] == ring[:-1]


async def assert_counts(database: db.Database) -> None:
    """Every task's count of what it waits for is the one that the rules give, told plainly."""
    tasks = {
        id: (parent, status, count)
        for id, parent, status, count in await stored(
            database, "SELECT id, parent_task_id, status, unmet_dependency_count FROM tasks"
        )
    }
    edges = await stored(database, "SELECT dependent_id, dependency_id FROM task_dependencies")
    awaited: dict[Any, set[Any]] = {id: set() for id in tasks}
    for dependent, dependency in edges:
        awaited[dependent].add(dependency)
    over = (TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.SKIPPED)
    for id, (_, _, count) in tasks.items():
        waits = {other for other, row in tasks.items() if row[0] == id and row[1] not in over}
        above = id
        while above is not None:
            waits |= {o for o in awaited[above] if tasks[o][1] != TaskStatus.COMPLETED}
            above = tasks[above][0]
        assert count == len(waits), tasks[id]
    assert find_cycle({id: row[0] for id, row in tasks.items()}, awaited) is None


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    graph=graphs(),
    statuses=st.lists(
        st.sampled_from(["pending", "done", "cancelled", "review", "in-progress"]),
        min_size=9,
        max_size=9,
    ),
)
async def test_whatever_the_plan_its_counts_are_right_and_nothing_waits_for_itself(
    database: db.Database,
    tmp_path: Path,
    graph: tuple[list[int | None], list[tuple[int, int]]],
    statuses: list[str],
) -> None:
    parents, edges = graph
    items: list[dict[str, Any]] = []
    tops: list[dict[str, Any]] = []
    references: list[str] = []
    for number, parent in enumerate(parents):
        item = task(number, status=statuses[number], subtasks=[])
        items.append(item)
        (tops if parent is None else items[parent]["subtasks"]).append(item)
        references.append(str(number) if parent is None else f"{references[parent]}.{number}")
    for dependent, dependency in edges:
        items[dependent]["dependencies"].append(references[dependency])
    async with database.write(db.Viewer(is_administrator=True)) as session:
        for project in await db.Project.list(session):
            await project.delete(session)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"x": tag(*tops)}), encoding="utf-8")

    report = await import_plan(database, path, owner=None)

    in_order = sorted(edges, key=lambda edge: edge[0])
    left_out = cycle_closing_edges(parents, in_order)
    assert report.added["dependencies"] == len(edges) - len(left_out)
    assert report.left_out_count == len(left_out)
    await assert_counts(database)


# Chats


@real
async def test_real_chats_are_there_to_the_last_message(
    database: db.Database, admin: db.User
) -> None:
    report = await import_chats(database, REAL_CHATS, owner=admin.id, model="gpt-4o")

    assert report.lines() == ["Added 200 conversations and 5,308 messages."]
    project = "SELECT name, owner_id FROM projects"
    assert await stored(database, project) == [("tau-bench-airline-gpt-4o", admin.id)]
    agent = "SELECT name, type, model_id FROM agents"
    assert await stored(database, agent) == [("assistant", "ASSISTANT", "gpt-4o")]
    senders = """
        SELECT sender, count(*), count(parts), count(agent_id), count(model_id) FROM messages
        GROUP BY 1 ORDER BY 1
    """
    assert await stored(database, senders) == [
        ("ASSISTANT", 2454, 1164, 2454, 2454),
        ("SYSTEM", 200, 0, 0, 0),
        ("TOOL", 1164, 0, 0, 0),
        ("USER", 1490, 0, 0, 0),
    ]
    whole = """
        SELECT count(*) FROM (
            SELECT conversation_id FROM messages JOIN conversations c ON c.id = conversation_id
            GROUP BY conversation_id
            HAVING array_agg(sequence ORDER BY messages.id) = array_agg(sequence ORDER BY sequence)
               AND min(sequence) = 1 AND max(sequence) = count(*)
               AND max(timestamp) = min(last_message_at)
               AND min(summary) = min(left(content, 50)) FILTER (WHERE sequence = 1)
        ) whole
    """
    assert await stored(database, whole) == [200]
    about = "SELECT (conversation_metadata - 'import')::text FROM conversations ORDER BY id"
    kept = [json.loads(run, parse_float=Decimal) for run in await stored(database, about)]
    runs = json.loads(REAL_CHATS.read_text(encoding="utf-8"), parse_float=Decimal)
    assert kept == [{key: run[key] for key in run if key != "traj"} for run in runs]
    before = await snapshot(database)

    report = await import_chats(database, REAL_CHATS, owner=admin.id)

    assert report.lines() == [
        "Nothing was added: 200 conversations and 5,308 messages are already there."
    ]
    assert await snapshot(database) == before


async def test_every_form_of_a_chat_is_read(database: db.Database, admin: db.User) -> None:
    report = await import_chats(database, EXAMPLES / "chats.json", owner=admin.id, agent="gardener")

    assert report.lines() == [
        "Added 4 conversations and 16 messages.",
        "Left out:",
        "  conversation 4 was left out, because it has no messages.",
        "Changed:",
        '  conversation 2, message 2: its part of type "image_url" has no text known here, so it'
        " stands in the parts alone.",
    ]
    query = """
        SELECT title, summary, last_message_at::text LIKE '2025-03-02 %',
               (conversation_metadata - 'import')::text
        FROM conversations ORDER BY id
    """
    hello = ("Hello?", "Hello?", False, "{}")
    assert await stored(database, query) == [
        (
            "Task 7, trial 0",
            "You answer questions about the school garden's wea",
            False,
            '{"info": {"task": {"instruction": "You want to know whether it will freeze tonight.'
            ' You say nothing that is not asked."}, "user_cost": 0.00041250}, "trial": 0,'
            ' "reward": 1.0, "task_id": 7}',
        ),
        (
            "Which sensor to buy",
            "Answer in one sentence.",
            True,
            '{"title": "Which sensor to buy", "created_at": "2025-03-02T10:00:00Z"}',
        ),
        hello,
        hello,
    ]
    messages = """
        SELECT sender, content, parts::text, message_metadata::text, a.name
        FROM messages m JOIN conversations c ON c.id = m.conversation_id
        LEFT JOIN agents a ON a.id = m.agent_id
        ORDER BY c.id, sequence LIMIT 12
    """
    assert await stored(database, messages) == [
        (
            "SYSTEM",
            "You answer questions about the school garden's weather station. Use the tools; do not"
            " guess.",
            None,
            "{}",
            None,
        ),
        ("USER", "Will it freeze tonight?", None, "{}", None),
        (
            "ASSISTANT",
            "",
            '[{"id": "call_1", "type": "function", "function": {"name": "latest_reading",'
            ' "arguments": "{\\"sensor\\": \\"temperature\\"}"}}]',
            "{}",
            "gardener",
        ),
        (
            "TOOL",
            '{"celsius": 3.2, "at": "18:40"}',
            None,
            '{"name": "latest_reading", "tool_call_id": "call_1"}',
            None,
        ),
        (
            "ASSISTANT",
            "It is 3.2 °C now and the sky is clear, so yes: cover the beds. 🥶",
            None,
            "{}",
            "gardener",
        ),
        ("SYSTEM", "Answer in one sentence.", None, '{"role": "developer"}', None),
        (
            "USER",
            "Is this the right sensor?\nIt was cheap.",
            '[{"text": "Is this the right sensor?", "type": "text"}, {"type": "image_url",'
            ' "image_url": {"url": "https://example.org/sensor.jpg"}}, {"text": "It was cheap.",'
            ' "type": "text"}]',
            "{}",
            None,
        ),
        (
            "ASSISTANT",
            "It measures humidity only to 5 %, which is too coarse for a station.",
            None,
            "{}",
            "gardener",
        ),
        ("USER", "Hello?", None, "{}", None),
        (
            "ASSISTANT",
            "",
            '[{"type": "function_call", "function_call": {"name": "station_status", "arguments":'
            ' "{}"}}]',
            "{}",
            "gardener",
        ),
        ("TOOL", "ok", None, '{"name": "station_status", "role": "function"}', None),
        ("ASSISTANT", "The station is up.", None, "{}", "gardener"),
    ]


async def test_a_time_is_the_messages_own_or_its_conversations_or_the_imports(
    database: db.Database, write: Write
) -> None:
    report = await import_chats(database, EXAMPLES / "chats.jsonl", owner=None)
    await import_chats(
        database,
        write(
            {
                "timestamp": 1740909660123,
                "messages": [
                    {"role": "user", "content": "a", "timestamp": "2025-03-01 10:00"},
                    {"role": "user", "content": "b"},
                    {"role": "user", "content": "c", "created_at": 1740909661.5},
                ],
            }
        ),
        owner=None,
        project="chats",
    )

    assert report.added == {"conversations": 3, "messages": 7}
    assert report.changed == [
        "conversation 3, message 2: its timestamp is not a point in time that can be read, so it"
        " stays in the metadata and the time of the import stands in its place."
    ]
    times = """
        SELECT content, CASE WHEN timestamp < now() - interval '1 minute' THEN timestamp::text END,
               message_metadata::text
        FROM messages JOIN conversations c ON c.id = conversation_id ORDER BY c.id, sequence
    """
    assert (await stored(database, times))[2:] == [
        (
            "Because air moves from where there is much of it to where there is less.",
            None,
            '{"weight": 1}',
        ),
        ("Can it be too cold to snow?", None, "{}"),
        ("Almost: very cold air holds hardly any water to make snow from.", None, "{}"),
        ("What is fog?", "2025-03-03 06:15:00+00", "{}"),
        ("A cloud that lies on the ground.", None, '{"timestamp": "just after"}'),
        ("a", "2025-03-01 10:00:00+00", "{}"),
        ("b", "2025-03-02 10:01:00.123+00", "{}"),
        ("c", "2025-03-02 10:01:01.5+00", "{}"),
    ]
    newest = "SELECT last_message_at::text FROM conversations ORDER BY id DESC LIMIT 1"
    assert await stored(database, newest) == ["2025-03-02 10:01:01.5+00"]


@pytest.mark.parametrize(
    ("message", "time", "said"),
    [
        ({"timestamp": "2025-03-01T10:00:00.123456789Z"}, "2025-03-01 10:00:00.123456+00", "six"),
        ({"timestamp": "2025-03-01T10:00:00.1234560+00:00"}, "2025-03-01 10:00:00.123456+00", ""),
        ({"timestamp": 1740909661.1234567}, "2025-03-02 10:01:01.123456+00", "six"),
        ({"timestamp": "1412010112345"}, "2014-09-29 17:01:52.345+00", ""),
        ({"timestamp": "2025-03-01"}, "2025-03-01 00:00:00+00", "zone"),
        ({"timestamp": "9999-12-31T23:59:59.999Z"}, "9999-12-31 23:59:59.999+00", ""),
        ({"timestamp": "9999-12-31T23:59:59.9999999Z"}, None, "none"),
        ({"timestamp": "0001-01-01T00:00:00Z"}, None, "none"),
        ({"timestamp": "0001-01-01T00:00:00+08:05"}, None, "none"),
        ({"timestamp": "0001-01-01T00:00:00"}, None, "none"),
        ({"timestamp": -62135596800}, None, "none"),
        ({"timestamp": "soon"}, None, "unreadable"),
        ({"timestamp": 1e30}, None, "unreadable"),
        ({"timestamp": True}, None, "unreadable"),
        ({"timestamp": "soon", "created_at": 1740909660}, "2025-03-02 10:01:00+00", "instead"),
        ({"timestamp": None, "created_at": 1740909660}, "2025-03-02 10:01:00+00", ""),
        ({"createdAt": "2025-03-02T10:01:00Z"}, "2025-03-02 10:01:00+00", ""),
        ({"create_time": 1740909660.25}, "2025-03-02 10:01:00.25+00", ""),
        ({"created": 1740909660}, "2025-03-02 10:01:00+00", ""),
        ({"time": 1740909660123}, "2025-03-02 10:01:00.123+00", ""),
        ({"date": "2025-03-02T12:01:00+02:00"}, "2025-03-02 10:01:00+00", ""),
        ({"ts": "1740909660.125"}, "2025-03-02 10:01:00.125+00", ""),
        ({"ts": 1740909660, "created": 1740909661}, "2025-03-02 10:01:01+00", ""),
        ({"timestamp": 3.25}, None, "unreadable"),
        ({"timestamp": 20250302}, None, "unreadable"),
        ({}, None, ""),
    ],
)
@pytest.mark.parametrize("own", [None, "2024-02-29T12:00:00Z", "0001-01-01T00:00:00Z"])
async def test_the_report_says_which_time_stands_in_the_place_of_which(
    database: db.Database, write: Write, message: Any, time: str | None, said: str, own: str | None
) -> None:
    first = {"role": "user", "content": "a"} | message
    chat = {"created_at": own, "messages": [first]}

    report = await import_chats(database, write(chat), owner=None)

    has_own = own is not None and own.startswith("2024")
    if time is None and has_own:
        time = "2024-02-29 12:00:00+00"
    found = """
        SELECT timestamp::text, timestamp > now() - interval '1 minute' AND timestamp <= now()
        FROM messages
    """
    [(kept, is_now)] = await stored(database, found)
    assert is_now if time is None else kept == time
    other = "the time of the conversation" if has_own else "the time of the import"
    rest = f", so it stays in the metadata and {other} stands in its place."
    sentence = {
        "": None,
        "six": "its timestamp has more than six digits of a second, of which six were kept.",
        "zone": "its timestamp names no time zone and was taken as UTC.",
        "none": f"its timestamp is {message.get('timestamp')}, which stands for no time{rest}",
        "unreadable": f"its timestamp is not a point in time that can be read{rest}",
        "instead": "its timestamp is not a point in time that can be read, so it stays in the"
        " metadata and its created_at stands in its place.",
    }[said]
    expected = [] if sentence is None else [f"conversation 1, message 1: {sentence}"]
    if time is None and own is not None:
        expected.append(
            "conversation 1: its created_at is 0001-01-01T00:00:00Z, which stands for no time, so"
            " it stays in the metadata and the time of the import stands in its place."
        )
    assert report.changed == expected


async def test_a_time_under_any_name_that_cannot_be_read_is_named(
    database: db.Database, write: Write
) -> None:
    keys = ["createdAt", "create_time", "created", "time", "date", "ts"]
    chat = [{"role": "user", "content": key, key: "10:00"} for key in keys]
    chat.append({"role": "user", "content": "a", "time": "10:00", "date": "2025-03-02T00:00:00Z"})

    report = await import_chats(database, write(chat), owner=None)

    unread = "is not a point in time that can be read, so it stays in the metadata and"
    assert report.changed == [
        *(
            f"conversation 1, message {number}: its {key} {unread} the time of the import stands in"
            " its place."
            for number, key in enumerate(keys, 1)
        ),
        f"conversation 1, message 7: its time {unread} its date stands in its place.",
    ]
    kept = "SELECT message_metadata::text FROM messages ORDER BY sequence"
    assert await stored(database, kept) == [
        *(f'{{"{key}": "10:00"}}' for key in keys),
        '{"time": "10:00"}',
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "text", "value": "a"}], "a"),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], "a\nb"),
        ([{"type": "text", "text": {"value": "a", "annotations": []}}], "a"),
        ([{"type": "text", "text": None, "value": "a"}], "a"),
        ([{"text": "", "content": "a"}], "a"),
        (["a", "b"], "a\nb"),
        ({"type": "text", "text": "a"}, "a"),
        ({"text": "a"}, "a"),
        ({"content_type": "text", "parts": ["a", "b"]}, "a\nb"),
        ([{"type": "refusal", "refusal": "a"}], "a"),
        ([{"type": "tool-result", "output": {"type": "text", "value": "a"}}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "tool_use", "id": "t", "input": {}}], "a"),
        ([{"type": "tool_use", "id": "t", "name": "n", "input": {}}], ""),
        ([{"type": "text", "text": ""}], ""),
        ("", ""),
    ],
)
async def test_a_text_is_found_where_it_is_plain(
    database: db.Database, write: Write, content: Any, said: str
) -> None:
    chat = [{"role": "user", "content": content}]

    report = await import_chats(database, write(chat), owner=None)

    assert report.lines() == ["Added 1 conversation and 1 message."]
    found = "SELECT content, parts::text, title FROM messages, conversations"
    [(kept, parts, title)] = await stored(database, found)
    assert kept == said
    assert title == (said.partition("\n")[0] or None)
    if isinstance(content, str):
        assert parts is None
    else:
        assert json.loads(parts) == (content if isinstance(content, list) else [content])


@pytest.mark.parametrize(
    ("message", "said", "parts", "sentences"),
    [
        (
            {"content": [{"type": "image", "value": "aGk="}, {"type": "image", "value": "aG8="}]},
            "",
            [{"type": "image", "value": "aGk="}, {"type": "image", "value": "aG8="}],
            ['its part of type "image" has no text known here, so it stands in the parts alone.'],
        ),
        (
            {"content": ["a", {"words": "b"}, 7, None]},
            "a",
            ["a", {"words": "b"}, 7, None],
            [
                f"its part{what} has no text known here, so it stands in the parts alone."
                for what in (" without a type", ", a number,", ", null,")
            ],
        ),
        ({"content": None}, "", None, ["it has no content, so its text is empty."]),
        ({"content": []}, "", None, ["it has no content, so its text is empty."]),
        ({}, "", None, ["it has no content, so its text is empty."]),
        ({"content": None, "tool_calls": [{"id": "t"}]}, "", [{"id": "t"}], []),
        ({"text": "a"}, "a", None, ['it has no content, so its "text" is taken for it.']),
        (
            {"content": "", "parts": [{"type": "text", "text": "a"}]},
            "a",
            [{"type": "text", "text": "a"}],
            ['it has no content, so its "parts" is taken for it.'],
        ),
        (
            {"content": None, "refusal": "a"},
            "a",
            [{"type": "refusal", "refusal": "a"}],
            ['it has no content, so its "refusal" is taken for it.'],
        ),
    ],
)
async def test_a_message_without_a_plain_text_is_named(
    database: db.Database,
    write: Write,
    message: dict[str, Any],
    said: str,
    parts: Any,
    sentences: list[str],
) -> None:
    report = await import_chats(database, write([{"role": "user"} | message]), owner=None)

    [(content, kept, about)] = await stored(
        database, "SELECT content, parts::text, message_metadata::text FROM messages"
    )
    assert (content, json.loads(kept or "null"), about) == (said, parts, "{}")
    assert report.changed == [f"conversation 1, message 1: {sentence}" for sentence in sentences]


async def test_what_stands_beside_the_messages_is_named(
    database: db.Database, write: Write
) -> None:
    answer = [{"role": "assistant", "content": "b"}]
    preference = {"messages": said("a"), "chosen": answer, "rejected": "c", "tools": [{}]}
    other = {"messages": said("a"), "chosen": None, "drafts": answer, "import": 1}
    runs = {"messages": [], "traj": said("d")}
    both = {"messages": said("e"), "traj": said("f")}

    report = await import_chats(
        database, write([preference, *[other] * 30, runs, both]), owner=None
    )

    many = "; ".join(f"conversation {number}" for number in range(2, 22))
    assert report.lines() == [
        "Added 33 conversations and 33 messages.",
        "Changed:",
        '  conversation 1: "chosen", "rejected" beside the messages stand in the metadata alone.',
        f'  {many} and 10 more: "drafts" beside the messages stands in the metadata alone.',
        f'  {many} and 10 more: "import" stands in the metadata as import.import.',
        '  conversation 33: "traj" beside the messages stands in the metadata alone.',
    ]
    assert report.changed_count == 62
    kept = "SELECT (conversation_metadata - 'import')::text FROM conversations ORDER BY id LIMIT 1"
    assert await stored(database, kept) == [
        '{"tools": [{}], "chosen": [{"role": "assistant", "content": "b"}], "rejected": "c"}'
    ]


async def test_a_title_and_a_summary_that_do_not_fit_are_named(
    database: db.Database, write: Write
) -> None:
    chat = {"title": "t" * 300, "summary": "s" * 51, "messages": said("a")}

    report = await import_chats(database, write(chat), owner=None)

    assert await stored(database, "SELECT title, summary FROM conversations") == [
        (f"{'t' * 254}…", "a")
    ]
    assert report.changed == [
        "conversation 1: its title has 300 characters and was cut after 254; the metadata has all"
        " of it.",
        "conversation 1: its summary is not a text of at most 50 characters, so it stays in the"
        " metadata and the beginning of the first message stands in its place.",
    ]


@pytest.mark.parametrize(
    ("content", "conversations"),
    [
        (said("a", "b"), [["a", "b"]]),
        ([said("a", "b"), said("c")], [["a", "b"], ["c"]]),
        ({"messages": said("a")}, [["a"]]),
        ({"traj": said("a")}, [["a"]]),
        ([{"messages": said("a")}, said("b"), {"traj": said("c")}], [["a"], ["b"], ["c"]]),
        ('{"role": "user", "content": "a"}\n{"role": "user", "content": "b"}\n', [["a", "b"]]),
        (
            '{"messages": [{"role": "user", "content": "a"}]}\r\n\r\n'
            '[{"role": "user", "content": "b"}]\n[]\n{"messages": null}',
            [["a"], ["b"]],
        ),
    ],
)
async def test_conversations_are_found_in_any_shape(
    database: db.Database, write: Write, content: Any, conversations: list[list[str]]
) -> None:
    await import_chats(database, write(content), owner=None)

    query = """
        SELECT array_agg(content ORDER BY sequence) FROM messages
        GROUP BY conversation_id ORDER BY conversation_id
    """
    assert await stored(database, query) == conversations


async def test_conversations_that_are_the_same_are_counted(
    database: db.Database, write: Write
) -> None:
    await import_chats(database, write([said("a"), said("b"), said("a")]), owner=None)

    more = write([said("a"), {"messages": said("a")}, said("c"), said("a")])
    report = await import_chats(database, more, owner=None, model="m", agent="other")

    assert report.lines() == [
        "Added 2 conversations and 2 messages.",
        "Already there: 2 conversations and 2 messages.",
    ]
    said_what = "SELECT content FROM messages ORDER BY conversation_id"
    assert await stored(database, said_what) == ["a", "b", "a", "c", "a"]


async def test_what_there_is_already_is_used(
    database: db.Database, admin: db.User, write: Write
) -> None:
    async with database.write(db.Viewer(is_administrator=True)) as session:
        theirs = await db.Project.create(session, name="p")
        ours = await db.Project.create(session, name="p", owner_id=admin.id)
        agent = await db.Agent.create(session, project_id=ours.id, name="ada", type="DEVELOPER")
        await db.AIModel.create(session, id="m", provider="ours")
    chats = [{"role": "assistant", "content": "a"}]

    await import_chats(database, write(chats), owner=admin.id, project="p", agent="ada", model="m")

    assert await stored(database, "SELECT project_id, agent_id FROM conversations") == [
        (ours.id, agent.id)
    ]
    assert await stored(database, "SELECT agent_id, model_id FROM messages") == [(agent.id, "m")]
    assert await stored(database, "SELECT provider FROM ai_models") == ["ours"]
    assert await stored(database, "SELECT id FROM projects ORDER BY id") == [theirs.id, ours.id]


@pytest.mark.parametrize(
    ("chats", "sentence"),
    [
        (
            [said("a"), {"prompt": "a"}],
            'conversation 2: it has neither "messages" nor "traj", and no "role" to be a message'
            " itself.",
        ),
        ([said("a"), 7], "conversation 2: it is a number, not a list of messages or an object."),
        (
            [said("a"), {"role": "user"}],
            "conversation 2: it is a single message, not a list of messages.",
        ),
        ([*said("a"), [1]], "conversation 1, message 2: it is a list, not an object."),
        ([{"messages": "a"}], 'conversation 1: "messages" is a text, not a list.'),
        (
            [said("a"), [{"role": "user"}, {"role": "robot"}]],
            'conversation 2, message 2: the role "robot" is unknown; a role is one of system,'
            " developer, user, assistant, tool, function.",
        ),
        (
            [said("a"), [{"content": "a"}]],
            "conversation 2, message 1: it has no role; a role is one of system, developer, user,"
            " assistant, tool, function.",
        ),
        (
            [[{"role": "user", "content": 7}]],
            "conversation 1, message 1: the content is a number, not a text or a list of parts.",
        ),
        (
            [[{"role": "user", "tool_calls": {}}]],
            'conversation 1, message 1: "tool_calls" is an object, not a list.',
        ),
        (
            [said("a"), said("a", "b\0")],
            "conversation 2, message 2, at content: a text contains a NUL character (\\u0000),"
            " which cannot be stored.",
        ),
        (
            {"messages": said("a"), "info": ["\ud83d\ud83d\ude00"]},
            "conversation 1, at info[0]: a text contains half of a surrogate pair (\\ud800 to"
            " \\udfff), which is no character and cannot be stored.",
        ),
        (
            '{"messages": [{"role": "user"}], "cost": -' + "1" * 1_001 + "}",
            "conversation 1: it has a number with more than 1,000 digits at cost.",
        ),
        (
            '[{"role": "user"},\n{"role": "user", "n": ' + "[" * 101 + "]" * 101 + "}]",
            "conversation 1, message 2: it is nested more than 100 levels deep, at"
            " n[0][0][0][0][0][0][0][0][0][0][0].",
        ),
        ([[], {"messages": []}], "{path} has no conversation in it."),
    ],
)
async def test_chats_without_an_obvious_meaning_are_refused_with_their_place(
    empty: db.Database, write: Write, chats: Any, sentence: str
) -> None:
    path = write(chats)

    async with refused(empty, sentence.replace("{path}", str(path))):
        await import_chats(empty, path, owner=None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"project": " "}, "The project needs a name."),
        ({"agent": ""}, "The agent needs a name."),
        (
            {"model": "m" * 101},
            f'The name of the model has 101 characters, and 100 are the most: "{"m" * 60}…".',
        ),
        (
            {"project": "a\udcff"},
            "The name of the project: a text contains half of a surrogate pair (\\ud800 to"
            " \\udfff), which is no character and cannot be stored.",
        ),
    ],
)
async def test_a_bad_name_is_refused(
    empty: db.Database, write: Write, options: dict[str, str], sentence: str
) -> None:
    path = write(said("a"))

    async with refused(empty, sentence):
        await import_chats(empty, path, owner=None, **options)  # type: ignore[arg-type]


async def test_an_import_of_chats_that_was_killed_is_completed_by_the_next(
    database: db.Database, write: Write
) -> None:
    path = write([said(f"{number} {'x' * 200}") for number in range(2_000)], "chats.json")
    await killed_in_the_middle("import_chats", database, path)
    [done] = await stored(database, "SELECT count(*) FROM conversations")
    assert 0 < done < 2_000
    assert await stored(database, "SELECT count(*) FROM messages") == [done]

    report = await import_chats(database, path, owner=None, project="p")

    assert report.already_there["conversations"] == done
    assert report.added["messages"] == 2_000 - done
    assert await stored(database, "SELECT count(DISTINCT content) FROM messages") == [2_000]
    assert await stored(database, "SELECT count(*) FROM projects") == [1]


async def killed_in_the_middle(function: str, database: db.Database, path: Path) -> None:
    """Run an import in a process that is killed when about half is written."""
    code = f"""
import asyncio, os, signal, sys
from pathlib import Path
import db
from db.imports import {function}

def progress(done, total):
    if done > 0.75 * total:
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    database = db.Database(sys.argv[1])
    await {function}(database, Path(sys.argv[2]), owner=None, project="p", progress=progress)

asyncio.run(main())
"""
    url = database.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, url, str(path), cwd=ROOT
    )
    assert await process.wait() == -signal.SIGKILL


async def test_two_imports_of_chats_at_once_add_them_once(
    database: db.Database, write: Write
) -> None:
    path = write([said(str(number)) for number in range(1_000)])

    reports = await asyncio.gather(
        *(import_chats(database, path, owner=None, model="m") for _ in range(3))
    )

    assert sum(report.added["messages"] for report in reports) == 1_000
    assert sum(report.already_there["messages"] for report in reports) == 2_000
    distinct = "SELECT count(*), count(DISTINCT content) FROM messages"
    assert await stored(database, distinct) == [(1_000, 1_000)]


# Files


importers = pytest.mark.parametrize("importer", [import_plan, import_chats])

GOOD = '{"x": {"tasks": [{"id": 1, "title": "A"}]}}'
HALF = GOOD[:-20]


@importers
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "{path} is empty."),
        (" \n\t", "{path} is empty."),
        ("\ufeff", "{path} is empty."),
        (HALF, "{path} is cut off: it ends in the middle, at line 1, column 23."),
        ("tru", "{path} is cut off: it ends in the middle, at line 1, column 3."),
        (
            '{"x":\n  {"tasks": [],}}',
            "{path} is not JSON: invalid object key (must be a string), at line 2, column 16.",
        ),
        ("<html>", "{path} is not JSON: invalid char in json text, at line 1, column 1."),
        ('{"é": NaN}', "{path} is not JSON: invalid char in json text, at line 1, column 7."),
        (
            '{"a": "\n"}',
            "{path} is not JSON: invalid character inside string, at line 2, column 1.",
        ),
        (b'{"a":\n"\xe9"}', "{path} is not UTF-8: line 2 has the byte 0xe9; save it as UTF-8."),
        (b"\x1f\x8b\x08", "{path} is compressed; unpack it first."),
        (b"PK\x03\x04\x14", "{path} is compressed; unpack it first."),
        (b'{"a": "\xc3', "{path} is cut off: it ends in the middle of a character."),
        (GOOD.encode("utf-16"), "{path} is UTF-16; save it as UTF-8."),
        (
            '{"a":\n' + "1" * 5_000 + "}",
            "{path} has a number with more than 1,000 digits at line 2, column 5,001.",
        ),
        (
            '{"a": 1e99999999999999999999}',
            "{path} has a number with more than 1,000 digits at line 1, column 29.",
        ),
    ],
)
async def test_what_is_not_json_is_refused(
    empty: db.Database,
    write: Write,
    importer: Callable[..., Any],
    content: str | bytes,
    sentence: str,
) -> None:
    path = write(content)

    async with refused(empty, sentence.replace("{path}", str(path))):
        await importer(empty, path, owner=None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "[1]",
            "{path} is not a plan: it holds a list, and a Task Master plan is an object with its"
            ' tags, {"master": {"tasks": […]}}.',
        ),
        (
            "7",
            "{path} is not a plan: it holds a single value, and a Task Master plan is an object"
            ' with its tags, {"master": {"tasks": […]}}.',
        ),
        (
            '{"messages": []}',
            "{path} is not a plan: it has no tag with tasks, and a Task Master plan is an object"
            ' with its tags, {"master": {"tasks": […]}}.',
        ),
        (f"{GOOD} {GOOD}", "{path} is not a plan: more follows after the end of it."),
        ('{"x": {"tasks": []}, "x": {"tasks": []}}', '{path} has the tag "x" twice.'),
        ('{"tasks": [], "master": {"tasks": []}}', '{path} has the tag "master" twice.'),
        ('{" ": {"tasks": []}}', "{path} has a tag without a name."),
    ],
)
async def test_what_is_no_plan_is_refused(
    empty: db.Database, write: Write, content: str, sentence: str
) -> None:
    path = write(content)

    async with refused(empty, sentence.replace("{path}", str(path))):
        await import_plan(empty, path, owner=None)


@importers
async def test_what_is_no_file_is_refused(
    empty: db.Database, tmp_path: Path, importer: Callable[..., Any], monkeypatch: Any
) -> None:
    missing, pipe, large = tmp_path / "missing\udcff", tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as handle:
        handle.truncate(200_000_000)

    async with refused(empty, f"There is no file {tmp_path}/missing\\xff."):
        await importer(empty, missing, owner=None, project="p")
    folder = "is a directory, not a file"
    if importer is import_chats:
        folder = "has no session of Claude Code with messages in it"
    async with refused(empty, f"{tmp_path} {folder}."):
        await importer(empty, tmp_path, owner=None)
    async with refused(empty, f"{pipe} is not a regular file."):
        await importer(empty, pipe, owner=None)
    async with refused(
        empty,
        f"{large} has 200.0 MB, and 100 MB are the most that is imported at once. Split it into"
        " smaller files and import them one by one.",
    ):
        await importer(empty, large, owner=None)
    secret = tmp_path / "secret"
    secret.touch()

    def denied(*arguments: Any) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, from whom nothing is kept.
    monkeypatch.setattr(Path, "open", denied)
    async with refused(empty, f"{secret} may not be read: permission denied."):
        await importer(empty, secret, owner=None)


async def test_a_file_that_breaks_at_its_end_leaves_nothing(
    empty: db.Database, write: Write
) -> None:
    tags = {f"t{n}": tag(task(1, details="x" * 1_000)) for n in range(150)}
    plan = write(json.dumps(tags)[:-1] + "]", "plan.json")
    chats = write("".join(f"{json.dumps(said(str(n)))}\n" for n in range(5_000)) + "[{", "c.jsonl")

    column = plan.stat().st_size
    async with refused(
        empty,
        f"{plan} is not JSON: after key and value, inside map, I expect ',' or '}}', at line 1,"
        f" column {column:,}.",
    ):
        await import_plan(empty, plan, owner=None)
    async with refused(
        empty, f"{chats} is cut off: it ends in the middle, at line 5,001, column 2."
    ):
        await import_chats(empty, chats, owner=None)


async def test_a_file_that_changes_during_the_import_is_not_gone_on_with(
    empty: db.Database, write: Write
) -> None:
    path = write([said(f"{number} {'x' * 500}") for number in range(1_000)])

    def progress(done: int, total: int) -> None:
        if done > total / 2:
            os.utime(path, (0, 0))

    async with refused(empty, f"{path} was changed while it was being imported."):
        await import_chats(empty, path, owner=None, progress=progress)


@given(
    texts=st.lists(st.text(st.sampled_from('\\"\nu0dé😀\ud83d\ude00'), max_size=12), max_size=6),
    chunk=st.integers(1, 20),
    escaped=st.booleans(),
)
@example(texts=["😀"], chunk=8, escaped=True)
@example(texts=["\\ud83d"], chunk=3, escaped=True)
@settings(max_examples=400, deadline=None)
def test_text_comes_through_wherever_a_chunk_of_the_file_ends(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], chunk: int, escaped: bool
) -> None:
    # Two halves next to each other are one character in JSON.
    whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    halves = any("\ufffd" in text for text in whole)
    path = tmp_path_factory.getbasetemp() / "texts.json"
    path.write_text(
        json.dumps(texts if halves else whole, ensure_ascii=escaped or halves), encoding="utf-8"
    )

    with mock.patch.object(files, "CHUNK", chunk), files.opened(path) as source:
        events = source.events()
        value = files.read_value(events, next(events), "here", Report())

    if halves:
        with pytest.raises(NotImportable, match="half of a surrogate pair"):
            files.refuse_unstorable(value, "here")
    else:
        assert value == whole


async def test_numbers_keep_every_digit(database: db.Database, write: Write) -> None:
    numbers = "[1.50, 0.1000, -0.00, 12345678901234567890123, 1e300, 9007199254740993, 1E-5]"
    path = write('{"messages": [{"role": "user", "content": "a", "n": ' + numbers + "}]}")

    report = await import_chats(database, path, owner=None)

    assert report.changed == [
        "conversation 1: the number -0.00 at messages[0].n[2] is stored without its sign."
    ]
    [kept] = await stored(database, "SELECT message_metadata ->> 'n' FROM messages")
    assert kept == (
        f"[1.50, 0.1000, 0.00, 12345678901234567890123, 1{'0' * 300}, 9007199254740993, 0.00001]"
    )


async def test_a_key_that_stands_twice_is_named(database: db.Database, write: Write) -> None:
    message = '{"role": "user", "content": "a", "content": "b", "n": [{"k": 1, "k": 2}]}'
    chats = f"{json.dumps(said('a')[0])}\n{message}\n{message}"

    report = await import_chats(database, write(chats), owner=None)

    assert report.left_out == [
        f'conversation 1, message 2; conversation 1, message 3: "{key}" stands there twice{at},'
        " and only the last was taken."
        for key, at in (("content", ""), ("k", " at n[0]"))
    ]
    last = "SELECT content, message_metadata::text FROM messages WHERE sequence > 1"
    assert await stored(database, last) == [("b", '{"n": [{"k": 2}]}')] * 2


MODEL = "INSERT INTO ai_models (id, provider) VALUES ('m', 'p')"


async def test_what_breaks_a_constraint_is_said_in_words(database: db.Database) -> None:
    async def twice() -> None:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            for _ in range(2):
                await session.execute(
                    text("INSERT INTO ai_models (id, provider) VALUES ('m', 'p')")
                )

    with pytest.raises(NotImportable) as refusal, files.storing("tag 7"):
        await twice()

    assert str(refusal.value) == (
        "tag 7: it cannot be stored: There is already an AIModel with this id."
    )


async def test_what_only_postgresql_finds_is_said_in_words(database: db.Database) -> None:
    with pytest.raises(NotImportable) as refusal, files.storing("tag 7"):
        async with database.read() as session:
            await session.execute(text("SELECT ('1' || repeat('0', 200000))::jsonb"))

    assert str(refusal.value) == "tag 7: it cannot be stored: value overflows numeric format."
    with pytest.raises(DBAPIError), files.storing("tag 7"):
        async with database.read() as session:
            await session.execute(text("SELECT nothing"))


@importers
async def test_progress_goes_forward_to_the_end(
    database: db.Database, write: Write, importer: Callable[..., Any]
) -> None:
    plan = importer is import_plan
    content = [said(f"{number} {'x' * 250}") for number in range(1_000)]
    path = write(
        {f"t{n}": tag(task(1, details="x" * 50_000)) for n in range(9)} if plan else content
    )
    steps: list[tuple[int, int]] = []

    await importer(database, path, owner=None, progress=lambda *step: steps.append(step))

    assert {total for _, total in steps} == {2 * path.stat().st_size}
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1][0] == steps[-1][1]
    assert len(steps) > 6


def test_a_long_report_is_cut() -> None:
    report = Report()
    report.added["projects"] = 1
    for number in range(1_234):
        report.leave_out(f"{number}.")

    assert report.lines()[:3] == ["Added 1 project.", "Left out:", "  0."]
    assert report.lines()[-2:] == ["  999.", "  … and 234 more."]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own peak")
@importers
async def test_memory_does_not_grow_with_the_file(
    database: db.Database, write: Write, importer: Callable[..., Any]
) -> None:
    # 60 MB in 60 pieces
    log = "all work and no play makes a dull log " * 26_000
    if importer is import_plan:
        pieces = (f'"{n}": {json.dumps(tag(task(1), log=log))}' for n in range(60))
        path = write("{" + ",\n".join(pieces) + "}", "plan.json")
    else:
        piece = json.dumps({"messages": said("a"), "log": log})
        path = write(f"{piece}\n" * 60, "chats.jsonl")
    assert path.stat().st_size > 58e6
    small = {"small": tag(task(1))} if importer is import_plan else {"messages": said("b")}
    first = write(small, f"small{path.suffix}")
    code = f"""
import asyncio, sys
from pathlib import Path
import db
from db.imports import {importer.__name__} as importer

def peak():
    # getrusage would tell of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0])

async def main():
    database = db.Database(sys.argv[1])
    async with database.read() as session:
        await session.scalar(db.base.text("SELECT 1"))
    # What any import needs, were its file ever so small, does not count.
    await importer(database, Path(sys.argv[3]), owner=None)
    before = peak()
    report = await importer(database, Path(sys.argv[2]), owner=None)
    print(peak() - before, report.added.total())

asyncio.run(main())
"""
    url = database.url.render_as_string(hide_password=False)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        url,
        str(path),
        str(first),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()

    kilobytes, added = map(int, output.split())
    assert added == 120
    assert kilobytes < 40_000
