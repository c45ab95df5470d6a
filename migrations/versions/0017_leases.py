"""A claim adds up what budgets have reserved once, and each task in progress has a lease.

Before, a claim of many tasks added it up for each of them.
"""

import importlib

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

budgets = importlib.import_module("migrations.versions.0015_budgets")

# Locks all hard budgets of the agent's project, and deletes reservations of ended attempts. Returns
# for how many attempts each that concerns the agent has room, those included that this transaction
# has reserved already, and for how many all that are not of a task have room; null is no limit.
LOCK = """
CREATE FUNCTION lock_budgets(agent uuid) RETURNS jsonb LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  claim bigint := pg_current_xact_id()::text::bigint;
BEGIN
  PERFORM FROM budgets b
  WHERE b.is_hard AND b.project_id = (SELECT a.project_id FROM agents a WHERE a.id = agent)
  ORDER BY b.id FOR NO KEY UPDATE;
  -- Whoever deletes a task locks its reservations, and may wait for the budgets.
  WITH ended AS MATERIALIZED (
    SELECT r.budget_id, r.task_id FROM budget_reservations r
    WHERE r.transaction <> claim
      AND r.budget_id IN (
        SELECT b.id FROM agents a JOIN budgets b ON b.project_id = a.project_id
        WHERE a.id = agent AND b.is_hard
      )
      AND NOT EXISTS (
        SELECT FROM tasks t WHERE t.id = r.task_id AND t.current_attempt_id IS NOT NULL OFFSET 0
      )
    FOR UPDATE OF r SKIP LOCKED
  )
  DELETE FROM budget_reservations r USING ended e
  WHERE r.budget_id = e.budget_id AND r.task_id = e.task_id;
  RETURN (
    WITH concerned AS MATERIALIZED (
      SELECT b.id, b.task_id, budget_room(b.id) AS room, (
        SELECT count(*) FROM budget_reservations r
        WHERE r.budget_id = b.id AND r.transaction = claim
      ) AS reserved
      FROM agents a JOIN budgets b ON b.project_id = a.project_id
      WHERE a.id = agent AND b.is_hard
        AND (b.agent_id IS NULL OR b.agent_id = agent)
        AND (b.model_name IS NULL OR b.model_name = a.model_id)
    )
    SELECT jsonb_build_object(
      'left', min(room) FILTER (WHERE task_id IS NULL),
      'rooms', coalesce(jsonb_object_agg(id, room + reserved), '{}')
    )
    FROM concerned
  );
END
$$
"""

# `locked` is what `lock_budgets` returns. So claims that concern these budgets are made one after
# the other, and a claim of several tasks cannot deadlock with another.
RESERVE = """
CREATE FUNCTION reserve_budgets(task uuid, locked jsonb) RETURNS boolean LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  claim bigint := pg_current_xact_id()::text::bigint;
  b record;
BEGIN
  DELETE FROM budget_reservations r WHERE r.task_id = task;
  FOR b IN
    SELECT x.id, x.claim_reserve, room.value::integer AS room
    FROM jsonb_each_text(locked -> 'rooms') room
    JOIN budgets x ON x.id = room.key::uuid
    WHERE x.task_id IS NULL OR is_in_task_tree(task, x.task_id)
  LOOP
    IF b.room <= (
      SELECT count(*) FROM budget_reservations r
      WHERE r.budget_id = b.id AND r.transaction = claim
    ) THEN
      DELETE FROM budget_reservations r WHERE r.task_id = task;
      RETURN false;
    END IF;
    INSERT INTO budget_reservations (budget_id, task_id, amount, transaction)
    VALUES (b.id, task, b.claim_reserve, claim);
  END LOOP;
  RETURN true;
END
$$
"""

# Without OFFSET, PostgreSQL would add up what is reserved for each mention of the rest.
REST = "(SELECT most - budget_spent(b.id) - budget_reserved(b.id)"
ROOM = budgets.ROOM.replace("CREATE", "CREATE OR REPLACE").replace(REST, f"{REST} OFFSET 0")

# What is made besides tables, and what is not made any more.
MADE = (
    "DROP FUNCTION reserve_budgets(uuid, uuid)",
    "DROP FUNCTION budget_claims_left(uuid)",
    ROOM,
    LOCK,
    RESERVE,
)

INDEX = "ix_budget_reservations_budget_id_transaction"

# Of databases from before leases: tasks in progress whose attempt was missing or had ended, and
# attempts that were running without a task. Nothing could end them.
ENDED = """
UPDATE task_attempts a SET status = 'LEASE_LOST', ended_at = now(), updated_at = now()
WHERE a.status = 'RUNNING' AND NOT EXISTS (SELECT FROM task_leases l WHERE l.attempt_id = a.id)
"""

# Each of these tasks gets an attempt whose lease has run out. So it ends by the same rules as any
# other: the servers give the task back, fail it, or cancel it.
RESUMED = """
WITH lost AS (
  SELECT t.id, t.agent_id, gen_random_uuid() AS attempt_id, 1 + greatest(
    t.attempt_count, (SELECT max(a.number) FROM task_attempts a WHERE a.task_id = t.id)
  ) AS number
  FROM tasks t
  WHERE t.status = 'IN_PROGRESS' AND NOT EXISTS (SELECT FROM task_leases l WHERE l.task_id = t.id)
), begun AS (
  INSERT INTO task_attempts (id, task_id, agent_id, number, started_at)
  SELECT attempt_id, id, agent_id, number, now() FROM lost
), held AS (
  INSERT INTO task_leases (attempt_id, task_id, agent_id, expires_at, heartbeat_at)
  SELECT attempt_id, id, agent_id, now(), now() FROM lost
)
UPDATE tasks t SET current_attempt_id = lost.attempt_id, attempt_count = lost.number,
  version = t.version + 1, updated_at = now()
FROM lost WHERE t.id = lost.id
"""


def upgrade() -> None:
    for statement in MADE:
        op.get_bind().exec_driver_sql(statement)
    op.create_index(INDEX, "budget_reservations", ["budget_id", "transaction"])
    op.execute(ENDED)
    op.execute(RESUMED)


def downgrade() -> None:
    op.drop_index(INDEX, table_name="budget_reservations")
    op.execute("DROP FUNCTION reserve_budgets(uuid, jsonb)")
    op.execute("DROP FUNCTION lock_budgets(uuid)")
    former = budgets.ROOM.replace("CREATE", "CREATE OR REPLACE")
    for function in (former, budgets.CLAIMS_LEFT, budgets.RESERVE):
        op.get_bind().exec_driver_sql(function)
