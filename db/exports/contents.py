"""What an export contains: the tables, in the order in which their rows are imported.

An export is a file of lines. The first line names the format, its version and the columns of each
table. Each further line has some rows of a table, as PostgreSQL writes them. The last line has the
numbers of rows, so that a file that was cut off is recognised.

Users, AI models and shared tools belong to no project. Of users, an export has only the names, by
which they are found again. Access tokens, webhooks and their secrets are not exported.
"""

from __future__ import annotations

import db  # noqa: F401, as all tables must be known
from db.base import Base

FORMAT = "troupe"
VERSION = 1

_PROJECT = "t.project_id = :project"
_OF_AGENT = "t.agent_id IN (SELECT id FROM agents WHERE project_id = :project)"
_OF_TASK = "IN (SELECT id FROM tasks WHERE project_id = :project)"

_OF_BUDGET = "t.budget_id IN (SELECT id FROM budgets WHERE project_id = :project)"

# The condition of the rows of each table.
TABLES = {
    "ai_models": """t.id IN (
        SELECT model_id FROM agents WHERE project_id = :project
        UNION SELECT model_id FROM usage_records WHERE project_id = :project
        UNION SELECT m.model_id FROM messages m JOIN conversations c ON c.id = m.conversation_id
        WHERE c.project_id = :project
    )""",
    "projects": "t.id = :project",
    "agents": _PROJECT,
    "project_members": _PROJECT,
    "tools": _PROJECT,
    "agent_subscriptions": _OF_AGENT,
    "agent_tools": f"""{_OF_AGENT}
        AND t.tool_id IN (SELECT id FROM tools WHERE project_id = :project)""",
    "conversations": _PROJECT,
    "tasks": _PROJECT,
    "communications": _PROJECT,
    "human_interactions": _PROJECT,
    "messages": "t.conversation_id IN (SELECT id FROM conversations WHERE project_id = :project)",
    "task_attempts": f"t.task_id {_OF_TASK}",
    "task_dependencies": f"t.dependent_id {_OF_TASK}",
    "interaction_answers": """t.interaction_id IN (
        SELECT id FROM human_interactions WHERE project_id = :project
    )""",
    "task_leases": f"t.task_id {_OF_TASK}",
    "usage_records": _PROJECT,
    "budgets": _PROJECT,
    "budget_periods": _OF_BUDGET,
    "budget_reservations": _OF_BUDGET,
    "budget_alerts": _OF_BUDGET,
    "budget_increases": _OF_BUDGET,
    # The history. It is imported last, in place of the events of the import itself.
    "events": """t.project_id = :project
        AND t.entity_type NOT IN ('AccessToken', 'Webhook', 'WebhookDelivery')""",
}

# Columns that refer to rows that follow, or to rows of the same table: they are set at the end, by
# lines with the name of the table and LATER.
LINKS = {
    "tasks": {"parent_task_id": "tasks", "current_attempt_id": "task_attempts"},
    "communications": {"reply_to_id": "communications"},
    "messages": {"parent_message_id": "messages"},
}
LATER = "+"

# What triggers make when rows of a table are inserted, and what the file has instead.
MADE = {"budgets": ("budget_periods", "budget_alerts")}

# Has a meaning only in the database that it is from: the order of insertion of an event and the
# position that follows from it.
_NOT_EXPORTED = {"events": {"id", "position"}}


def columns(table: str) -> list[str]:
    """The columns of a table that are exported."""
    left_out = _NOT_EXPORTED.get(table, set()) | LINKS.get(table, {}).keys()
    return [
        column.name
        for column in Base.metadata.tables[table].columns
        if column.computed is None and column.name not in left_out
    ]


def users(table: str) -> list[str]:
    """The columns of a table that refer to users."""
    return [
        column.name
        for column in Base.metadata.tables[table].columns
        if any(key.target_fullname == "users.id" for key in column.foreign_keys)
    ]
