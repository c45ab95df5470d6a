"""What tasks wait for: their lineage as a function. Indexes for orders by `due_at`."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_tasks_due_at_id": ["due_at", "id"],
    "ix_tasks_project_id_due_at_id": ["project_id", "due_at", "id"],
}

# A subquery that runs for each row can call a function, but contain no recursive query that refers
# to the row.
LINEAGE = """
CREATE FUNCTION task_lineage(task uuid) RETURNS TABLE (id uuid)
LANGUAGE sql STABLE PARALLEL SAFE ROWS 3
BEGIN ATOMIC
  WITH RECURSIVE lineage AS (
    SELECT tasks.id, tasks.parent_task_id FROM tasks WHERE tasks.id = task
    UNION
    SELECT parent.id, parent.parent_task_id
    FROM lineage JOIN tasks AS parent ON parent.id = lineage.parent_task_id
  )
  SELECT lineage.id FROM lineage;
END
"""


def upgrade() -> None:
    op.execute(LINEAGE)
    for name, columns in INDEXES.items():
        op.create_index(name, "tasks", columns, postgresql_where=sa.text("due_at IS NOT NULL"))


def downgrade() -> None:
    for name in reversed(INDEXES):
        op.drop_index(name, table_name="tasks")
    op.execute("DROP FUNCTION task_lineage")
