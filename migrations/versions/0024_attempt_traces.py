"""Attempts keep the trace of the operation that has claimed their task."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_attempts", sa.Column("claim_traceparent", sa.String(55)))


def downgrade() -> None:
    op.drop_column("task_attempts", "claim_traceparent")
