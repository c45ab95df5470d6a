"""A task is completed and counted down by one statement, which writes one batch of events."""

import importlib

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

claims = importlib.import_module("migrations.versions.0010_claims")

# Counts down, by one each, what waits for the task: dependents, with their descendants, and its
# parent. That is not an edit of them: neither their version nor the time of their last change
# changes. It reads no more than the rows that it writes, each by an index, whatever the statistics
# say. A count that was wrong before must not keep the task from being completed.
COMPLETE = """
CREATE FUNCTION complete_task(task uuid, output jsonb) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  WITH RECURSIVE waiting (id) AS (
    SELECT dependent_id FROM task_dependencies WHERE dependency_id = task
    UNION
    SELECT child.id FROM waiting w CROSS JOIN LATERAL (
      SELECT t.id FROM tasks t WHERE t.parent_task_id = w.id OFFSET 0
    ) child
  )
  UPDATE tasks t SET
    unmet_dependency_count = CASE t.id
      WHEN task THEN t.unmet_dependency_count ELSE greatest(t.unmet_dependency_count - 1, 0)
    END,
    status = CASE t.id WHEN task THEN 'COMPLETED' ELSE t.status END,
    blocked_reason = CASE t.id WHEN task THEN NULL ELSE t.blocked_reason END,
    completed_at = CASE t.id WHEN task THEN statement_timestamp() ELSE t.completed_at END,
    result = CASE t.id WHEN task THEN output ELSE t.result END,
    error = CASE t.id WHEN task THEN NULL ELSE t.error END,
    current_attempt_id = CASE t.id WHEN task THEN NULL ELSE t.current_attempt_id END,
    cancel_requested = t.id <> task AND t.cancel_requested,
    version = CASE t.id WHEN task THEN t.version + 1 ELSE t.version END,
    updated_at = CASE t.id WHEN task THEN now() ELSE t.updated_at END
  WHERE t.id = ANY(
    array(SELECT id FROM waiting)
    || (SELECT array[task, p.parent_task_id] FROM tasks p WHERE p.id = task)
  );
END
$$
"""


MADE = (COMPLETE, "DROP FUNCTION count_down")


def upgrade() -> None:
    for statement in MADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute(claims.COUNT_DOWN)
    op.execute("DROP FUNCTION complete_task")
