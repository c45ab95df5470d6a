"""Let claims and completions not wait for transactions that refer to their tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_constraint(op.f("uq_tasks_current_attempt_id"), "tasks", type_="unique")
    op.create_index(
        "uq_tasks_current_attempt_id",
        "tasks",
        ["current_attempt_id"],
        unique=True,
        postgresql_where=sa.text("current_attempt_id IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index(
        "uq_tasks_current_attempt_id",
        table_name="tasks",
        postgresql_where=sa.text("current_attempt_id IS NOT NULL"),
    )
    op.create_unique_constraint(
        op.f("uq_tasks_current_attempt_id"),
        "tasks",
        ["current_attempt_id"],
    )
