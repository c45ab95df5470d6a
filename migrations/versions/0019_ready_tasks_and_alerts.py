"""Ready tasks are read from an index; a budget alerts when its limit or its thresholds change."""

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

# A limit that is lowered, or a threshold that is added, may be reached already; of a hard budget,
# no usage would follow. The lock is that of `open_budgets`: nothing is counted meanwhile.
ALERT = """
CREATE FUNCTION alert_budget() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('budgets'), hashtext(NEW.project_id::text));
  INSERT INTO budget_alerts (budget_id, period_starts_at, threshold, spent)
  SELECT NEW.id, p.starts_at, reached.threshold, p.spent
  FROM budget_periods p
  CROSS JOIN LATERAL (SELECT DISTINCT unnest(NEW.thresholds) AS threshold) reached
  WHERE p.budget_id = NEW.id
    AND p.starts_at = budget_period_start(NEW.period, statement_timestamp())
    AND p.spent * 100 >= coalesce(NEW.limit_cost, NEW.limit_tokens) * reached.threshold
  ON CONFLICT (budget_id, period_starts_at, threshold) DO NOTHING;
  RETURN NULL;
END
$$
"""

ALERTS = (
    ALERT,
    "CREATE TRIGGER alert_budget AFTER UPDATE OF limit_cost, limit_tokens, thresholds ON budgets"
    " FOR EACH ROW WHEN (OLD.thresholds <> NEW.thresholds"
    " OR coalesce(NEW.limit_cost, NEW.limit_tokens) < coalesce(OLD.limit_cost, OLD.limit_tokens))"
    " EXECUTE FUNCTION alert_budget()",
)

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
    for statement in ALERTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION alert_budget CASCADE")
    op.drop_index("ix_tasks_ready", table_name="tasks")
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["project_id", sa.literal_column("priority DESC"), "available_at", "id"],
        unique=False,
        postgresql_where=READY,
    )
    op.execute("DROP FUNCTION task_urgency")
