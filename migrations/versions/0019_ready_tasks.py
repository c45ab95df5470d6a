"""Ready tasks: an index in the order in which they are claimed, from which pages are read."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

# By priority, and then by available_at. EXTRACT of a time is not IMMUTABLE, that of a duration is.
# It has no search_path, so that PostgreSQL writes its expression into the queries that call it.
URGENCY = """
CREATE FUNCTION task_urgency(priority integer, available_at timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (5 - priority) * 1000000000000000000
    + (extract(epoch FROM available_at - timestamptz '1970-01-01T00:00:00Z') * 1000000)::bigint
$$
"""

READY = sa.text("status IN ('PENDING', 'ASSIGNED') AND unmet_dependency_count = 0")


def upgrade() -> None:
    op.execute(URGENCY)
    op.drop_index("ix_tasks_ready", table_name="tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["project_id", sa.literal_column("task_urgency(priority, available_at)"), "id"],
        unique=False,
        postgresql_where=READY,
    )


def downgrade() -> None:
    op.drop_index("ix_tasks_ready", table_name="tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["project_id", sa.literal_column("priority DESC"), "available_at", "id"],
        unique=False,
        postgresql_where=READY,
    )
    op.execute("DROP FUNCTION task_urgency")
