"""Writes the plans of a file as projects, and updates projects that were imported before.

A plan is identified by its owner, its format and the name of its project, which are stored in the
project's metadata, also if the project was renamed since. A hash of its content says whether it has
changed. Each project is written in a transaction of its own, so that an interrupted import is
completed by starting it again.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from db import dependencies
from db.base import new_id
from db.engine import Database
from db.imports import taskmaster
from db.imports.files import (
    NotImportable,
    Progress,
    as_json,
    no_progress,
    quoted,
    refuse_bad_name,
    storing,
)
from db.imports.merges import merge, written
from db.imports.plans import Plan, PlanFormat, on_failure
from db.imports.report import Report
from db.imports.transactions import writing
from db.projects import Project, ProjectStatus
from db.sessions import ReadSession, WriteSession
from db.tasks import Task, TaskDependency
from db.writes import insert_many

# Without statistics on the rows of this transaction, PostgreSQL's plan for `recount` takes a minute
# for 40,000 tasks; after ANALYZE it takes two seconds.
ANALYZE_FROM = 1_000

ORIGIN = Project.project_metadata["import"]


async def import_plan(
    database: Database,
    path: Path,
    *,
    owner: UUID | None,
    format: PlanFormat = taskmaster,
    project: str | None = None,
    preview: bool = False,
    progress: Progress = no_progress,
) -> Report:
    """Import the plans of a file or a folder; each becomes a project, or updates its project.

    `project` is the name, or the beginning of it, instead of that which the format finds. With
    `preview`, each transaction is rolled back, and the report says what would be done. `progress`
    is called with the work done and the total. Raises NotImportable before anything was added,
    unless the file or its projects change during the import.
    """
    report = Report(is_preview=preview)
    found: Counter[str] = Counter()
    missing = 0
    with format.opened(path, progress) as source:
        for plan in format.read_plans(source, project, report):
            refuse_bad_name(plan.project, "project")
            found.update(plan.counts())
            async with database.read() as session:
                missing += plan.hash != await _stored_hash(session, owner, plan)
        if not missing:
            report.already_there = found
        else:
            source.second_pass()
            for plan in format.read_plans(source, project, Report()):
                source.refuse_change()
                with storing(plan.place):
                    await _write(database, owner, plan, source.file, report)
        source.finish()
    return report


async def _stored_hash(
    session: ReadSession | WriteSession, owner: UUID | None, plan: Plan
) -> str | None:
    """The hash of the plan that its project was imported from; None if there is no such project.

    Raises NotImportable if another project has its name.
    """
    found = await session.execute(
        select(ORIGIN["hash"].astext)
        .where(*_is_of(owner, plan))
        .order_by((ORIGIN["hash"].astext == plan.hash).desc(), Project.id.desc())
        .limit(1)
    )
    hash = found.scalar()
    if hash is not None:
        return str(hash)
    named = select(Project.id).where(
        Project.name == plan.project, Project.owner_id.is_not_distinct_from(owner)
    )
    if (await session.execute(named.limit(1))).first() is not None:
        raise NotImportable(
            f"{plan.place}: there is a project {quoted(plan.project)} already, which was not"
            " imported from this plan. Import it under another name with --project, or rename the"
            " other project first."
        )
    return None


def _is_of(owner: UUID | None, plan: Plan) -> list[Any]:
    """The conditions that a project was imported from this plan, or from an earlier state of it."""
    return [
        Project.owner_id.is_not_distinct_from(owner),
        ORIGIN["source"].astext == plan.source,
        ORIGIN["name"].astext == plan.project,
    ]


async def _write(
    database: Database, owner: UUID | None, plan: Plan, file: str, report: Report
) -> None:
    """Add the project with its tasks, or update it, unless it is the same."""
    done = Report()
    async with writing(database, is_preview=report.is_preview) as session:
        # After five projects PostgreSQL would use a generic plan for `recount`, which scans the
        # tasks of all projects.
        await session.execute(text("SET LOCAL plan_cache_mode = force_custom_plan"))
        key = func.hashtextextended(f"import of a plan: {owner}: {plan.project}", 0)
        await session.execute(select(func.pg_advisory_xact_lock(key)))
        hash = await _stored_hash(session, owner, plan)
        if hash == plan.hash:
            done.already_there.update(plan.counts())
        elif hash is None:
            await _create(session, owner, plan, file)
            done.added.update(plan.counts())
            if report.is_preview:
                done.step("Created", f"project {quoted(plan.project)} with all its tasks.")
        else:
            await _update(session, owner, plan, file, hash, done)
    report.include(done)


def _origin(plan: Plan, file: str) -> dict[str, Any]:
    return {
        "source": plan.source,
        "file": file,
        **plan.origin,
        "name": plan.project,
        "hash": plan.hash,
    }


async def _create(session: WriteSession, owner: UUID | None, plan: Plan, file: str) -> None:
    project = await Project.create(
        session,
        name=plan.project,
        owner_id=owner,
        status=ProjectStatus.IN_PROGRESS,
        description=None if plan.description is None else {"text": plan.description},
        project_metadata=as_json({"import": _origin(plan, file), plan.source: plan.about}),
    )
    ids = [new_id() for _ in plan.rows]
    await insert_many(
        session,
        Task,
        [
            row
            | {
                "id": id,
                "project_id": project.id,
                "parent_task_id": None if parent is None else ids[parent],
                "task_metadata": as_json(row["task_metadata"] | {"import": origin}),
            }
            for row, id, parent, origin in zip(
                plan.rows, ids, plan.parents, written(plan), strict=True
            )
        ],
    )
    edges = [
        {
            "dependent_id": ids[dependent],
            "dependency_id": ids[dependency],
            "on_failure": on_failure(plan.rows[dependency]["status"]),
        }
        for dependent, dependency in plan.edges
    ]
    await insert_many(session, TaskDependency, edges)
    if len(ids) >= ANALYZE_FROM:
        await session.execute(text("ANALYZE tasks, task_dependencies"))
    await dependencies.recount(session, ids)


async def _update(
    session: WriteSession, owner: UUID | None, plan: Plan, file: str, hash: str, report: Report
) -> None:
    project = await session.scalar(
        select(Project)
        .where(*_is_of(owner, plan), ORIGIN["hash"].astext == hash)
        .order_by(Project.id.desc())
        .limit(1)
        .with_for_update(key_share=True)
    )
    if project is None:
        raise NotImportable(f"{plan.place}: its project was deleted meanwhile.")
    await merge(session, project.id, plan, report)
    metadata = project.project_metadata | {"import": _origin(plan, file), plan.source: plan.about}
    await project.update(session, project_metadata=metadata)
    report.updated["projects"] += 1
