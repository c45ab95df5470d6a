"""The database's own rules hold whatever the code does, and a broken one is told in words."""

from __future__ import annotations

import re
from typing import Any

import asyncpg
import httpx
import pytest
from sqlalchemy import CheckConstraint, Enum, Index, UniqueConstraint, text
from sqlalchemy.exc import IntegrityError

import db
from db import constraints, webhook_queues
from db.base import Timestamp
from db.constraints import rules_of
from db.errors import AlreadyExists, DomainError, Invalid
from db.usage_totals import merge_totals
from tests import factories
from tests.conftest import People
from tests.nouns import said
from tests.world import WholeWorld, make_whole_world, snapshot

TABLES = db.Base.metadata.sorted_tables
ALL: dict[str, Any] = {
    str(constraint.name): constraint for table in TABLES for constraint in rules_of(table)
}

# How each rule is broken: assignments of which no row of its table may have any.
BREAKING: dict[str, dict[str, list[str]]] = {
    table: dict(rules) for table, rules in said("BREAKING").items()
}
ALSO_BROKEN = {
    *("blocked_reason", "task_status"),
    *("interaction_type", "interaction_status", "notification_level"),
    *("webhook_end", "delivery_status"),
}
# Those that follow from the types of columns.
for table in TABLES:
    for column in table.columns:
        breaking = BREAKING.setdefault(table.name, {})
        if isinstance(column.type, Timestamp):
            breaking[f"{column.name}_finite"] = [f"\"{column.name}\" = 'infinity'"]
        elif isinstance(column.type, Enum):
            breaking[str(column.type.name)] = [f"{column.name} = 'NOPE'"]


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> WholeWorld:
    key = {"name": "Mars base", "idempotencyKey": "k"}
    await people.owner.change("createProject { project { id } }", **key)
    return await make_whole_world(database, http, people)


def violation(name: str | None) -> IntegrityError:
    """What SQLAlchemy raises when a constraint of this name is broken."""
    cause: Any = asyncpg.IntegrityConstraintViolationError()
    cause.constraint_name = name
    error = IntegrityError("", {}, Exception())
    error.__cause__ = cause
    return error


async def broken_by(database: db.Database, statement: str) -> IntegrityError:
    """The violation that a statement is refused with."""
    with pytest.raises(IntegrityError) as refused:
        async with database.write(db.Viewer()) as session:
            await session.execute(text(statement))
    return refused.value


def constraint_of(error: IntegrityError) -> str | None:
    """The name of the constraint that was broken."""
    name: str | None = getattr(getattr(error.orig, "__cause__", None), "constraint_name", None)
    return name


def test_every_check_is_broken_here() -> None:
    checks = {name for name, rule in ALL.items() if isinstance(rule, CheckConstraint)}

    assert checks == {f"ck_{table}_{rule}" for table, rules in BREAKING.items() for rule in rules}


async def make_rest(world: WholeWorld) -> None:
    """Make rows of what has no model: what is summed of usage, and the queues of webhooks."""
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        period = {"period": db.BudgetPeriod.DAY, "limit_cost": 1}
        await db.Budget.create(session, project_id=world.project.id, **period)
        for user in (world.viewer, world.guest):
            usage = {"user_id": user.id, "cost": 1}
            await factories.make_usage(session, world.project, world.model, **usage)
        webhook = await factories.make_webhook(session, world.project)
        await session.run(webhook_queues.begun, webhook=webhook.id)
        await session.flush()
        await merge_totals(session)


async def test_a_check_refuses_what_breaks_it(world: WholeWorld) -> None:
    await make_rest(world)
    before = await snapshot(world.database)
    for table, rules in BREAKING.items():
        for rule, assignment in ((name, each) for name in rules for each in rules[name]):
            if rule in ALSO_BROKEN:
                continue  # a NOPE breaks another rule as well, and either may be named
            error = await broken_by(world.database, f"UPDATE {table} SET {assignment}")

            assert constraint_of(error) == f"ck_{table}_{rule}", assignment
            told = constraints.violation(error)
            assert isinstance(told, Invalid)
            assert told.message == ALL[f"ck_{table}_{rule}"].info.get("words", told.message)
    assert await snapshot(world.database) == before


async def test_what_must_be_unique_is(world: WholeWorld) -> None:
    await make_rest(world)
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_agent(session, world.project, "Eve")
        other = await factories.make_conversation(session, project_id=world.project.id)
        await factories.make_messages(session, other, ["Other"])
        again = await factories.make_attempt(session, world.free, 2)
        await factories.make_tool(session, world.project, tool_version="2")
        await factories.make_tool(session, None, "shared")
        await factories.make_tool(session, None, "shared", tool_version="2")
        await factories.make_usage(session, world.project, world.model, request_id="again")
        for topic in ("news", "weather"):
            await db.AgentSubscription.create(session, agent_id=world.ada.id, topic=topic)
        for user in (world.viewer, world.guest):
            answer = {"outcome": db.AnswerOutcome.APPROVED, "content_hash": "x"}
            await db.InteractionAnswer.create(
                session, interaction_id=world.approval.id, user_id=user.id, **answer
            )
    breaking = {
        "uq_task_attempts_task_id_number": (
            f"UPDATE task_attempts SET number = 1 WHERE id = '{again.id}'",
            "number",
        ),
        "uq_task_leases_task_id": (
            "UPDATE task_leases SET task_id = (SELECT task_id FROM task_leases LIMIT 1)",
            "task_id",
        ),
        "uq_tasks_current_attempt_id": (
            f"UPDATE tasks SET current_attempt_id = '{again.id}'",
            "current_attempt_id",
        ),
        "uq_tools_project_id_name_tool_version": (
            "UPDATE tools SET tool_version = '1' WHERE project_id IS NULL",
            "tool_version",
        ),
        "uq_usage_records_project_id_request_id": (
            "UPDATE usage_records SET request_id = 'call'",
            "request_id",
        ),
        "uq_users_username": ("UPDATE users SET username = 'OWNER'", "username"),
        "uq_users_email": ("UPDATE users SET email = 'Owner@LocalHost'", "email"),
        "uq_access_tokens_token_hash": ("UPDATE access_tokens SET token_hash = 'x'", "token_hash"),
        "uq_agents_project_id_name": ("UPDATE agents SET name = 'Ada'", "name"),
        "uq_conversations_conversation_url": (
            "UPDATE conversations SET conversation_url = 'x'",
            "conversation_url",
        ),
        "uq_messages_conversation_id_sequence": (
            f"UPDATE messages SET conversation_id = '{other.id}'",
            "sequence",
        ),
    }

    kinds = (UniqueConstraint, Index)
    unique: dict[str, Any] = {name: rule for name, rule in ALL.items() if isinstance(rule, kinds)}
    assert set(breaking) <= set(unique)
    for name in unique.keys() - set(breaking):
        # Where nothing else stands in the way, one row takes the values of another.
        table, columns = unique[name].table.name, list(unique[name].columns.keys())
        listed = ", ".join(columns)
        one = f"(SELECT {{}} FROM {table} WHERE {columns[-1]} IS NOT NULL ORDER BY id {{}} LIMIT 1)"
        taken = one.format(listed, "")
        statement = f"UPDATE {table} SET ({listed}) = {taken} WHERE id = {one.format('id', 'DESC')}"
        breaking[name] = (statement, columns[-1])
    for name, (statement, path) in breaking.items():
        error = await broken_by(world.database, statement)

        assert constraint_of(error) == name
        told = constraints.violation(error)
        assert isinstance(told, AlreadyExists)
        assert told.path == (path,)


def test_every_constraint_has_words() -> None:
    for name, constraint in ALL.items():
        told = constraints.violation(violation(name))

        assert isinstance(told, DomainError), name
        assert told.message.endswith("."), name
        # Nothing of how the database calls it; the values of an enum are the reader's as well.
        assert name not in told.message
        assert not re.search("[a-z]_[a-z]", told.message), name
        assert set(told.path) <= set(constraint.table.columns.keys()), name


async def test_what_is_no_rule_of_ours_stays_a_fault(world: WholeWorld) -> None:
    error = await broken_by(world.database, "UPDATE projects SET name = NULL")

    assert constraints.violation(error) is None
    assert constraints.violation(violation("somebody_elses")) is None
    assert constraints.violation(violation(None)) is None
    assert constraints.violation(IntegrityError("", {}, Exception())) is None


async def test_a_moment_without_a_time_zone_is_not_stored(world: WholeWorld) -> None:
    naive = factories.START.replace(tzinfo=None)

    with pytest.raises(Exception, match="has no time zone"):
        async with world.database.write(db.Viewer()) as session:
            await factories.make_task(session, world.project, due_at=naive)
