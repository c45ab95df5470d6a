"""Indexes by nullable foreign keys hold only the rows that have the key."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

COLUMNS = {
    "tasks": ("parent_task_id", "agent_id", "created_by_user_id", "created_by_agent_id"),
    "usage_records": (
        "model_id",
        "agent_id",
        "task_id",
        "attempt_id",
        "conversation_id",
        "message_id",
        "user_id",
    ),
}
TIMES = {"tasks": "created_at", "usage_records": "occurred_at"}


def made(condition: str | None) -> None:
    """Make the indexes anew, of the rows that meet this condition on the key."""
    for table, columns in COLUMNS.items():
        for column in columns:
            names = [column, TIMES[table], "id"]
            index = f"ix_{table}_{'_'.join(names)}"
            where = None if condition is None else sa.text(f"{column} {condition}")
            op.drop_index(index, table_name=table)
            op.create_index(index, table, names, postgresql_where=where)


def upgrade() -> None:
    made("IS NOT NULL")


def downgrade() -> None:
    made(None)
