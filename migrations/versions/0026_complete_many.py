"""Several tasks are completed and counted down by one statement."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

# The same as `complete_task` of the migration 0023, for several tasks. What waits for more than one
# of them is counted down by as many. One of them may wait for another, if it got a subtask while it
# was in progress.
COMPLETE = """
CREATE FUNCTION complete_tasks(given uuid[], outputs jsonb[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_mergejoin = off AS $$
BEGIN
  WITH RECURSIVE waiting (id, met) AS (
    SELECT dependent_id, dependency_id FROM task_dependencies WHERE dependency_id = ANY(given)
    UNION
    SELECT child.id, w.met FROM waiting w CROSS JOIN LATERAL (
      SELECT t.id FROM tasks t WHERE t.parent_task_id = w.id OFFSET 0
    ) child
  ), pairs (id, met) AS (
    SELECT id, met FROM waiting
    UNION
    SELECT row.parent_task_id, done.id FROM unnest(given) done (id) CROSS JOIN LATERAL (
      SELECT t.parent_task_id FROM tasks t WHERE t.id = done.id OFFSET 0
    ) row
    WHERE row.parent_task_id IS NOT NULL
  ), written AS (
    SELECT id, sum(met) AS met, bool_or(is_done) AS is_done, max(place) AS place FROM (
      SELECT id, 1 AS met, false AS is_done, NULL::bigint AS place FROM pairs
      UNION ALL
      SELECT id, 0, true, place FROM unnest(given) WITH ORDINALITY done (id, place)
    ) each
    GROUP BY id
  )
  UPDATE tasks t SET
    -- A count that was wrong before must not keep the task from being completed.
    unmet_dependency_count = greatest(t.unmet_dependency_count - w.met, 0),
    status = CASE WHEN w.is_done THEN 'COMPLETED' ELSE t.status END,
    blocked_reason = CASE WHEN w.is_done THEN NULL ELSE t.blocked_reason END,
    completed_at = CASE WHEN w.is_done THEN statement_timestamp() ELSE t.completed_at END,
    result = CASE WHEN w.is_done THEN outputs[w.place] ELSE t.result END,
    error = CASE WHEN w.is_done THEN NULL ELSE t.error END,
    current_attempt_id = CASE WHEN w.is_done THEN NULL ELSE t.current_attempt_id END,
    cancel_requested = NOT w.is_done AND t.cancel_requested,
    version = CASE WHEN w.is_done THEN t.version + 1 ELSE t.version END,
    updated_at = CASE WHEN w.is_done THEN now() ELSE t.updated_at END
  FROM written w
  WHERE t.id = ANY(array(SELECT id FROM written)) AND t.id = w.id;
END
$$
"""


MADE = (COMPLETE,)


def upgrade() -> None:
    for statement in MADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION complete_tasks")
