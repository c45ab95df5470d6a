"""Find why tasks of a project do not go on."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None

# The types of the tasks of a project that are ready; '' is no type. It goes from one to the next by
# the index, and does not read the tasks between them.
READY_KINDS = """
CREATE FUNCTION ready_kinds(project uuid) RETURNS SETOF varchar LANGUAGE sql STABLE
SET search_path FROM CURRENT AS $$
  WITH RECURSIVE kinds(kind) AS (
    (
      SELECT coalesce(t.type, '') FROM tasks t
      WHERE t.project_id = project AND t.status = 'PENDING' AND t.unmet_dependency_count = 0
      ORDER BY t.project_id, coalesce(t.type, '') LIMIT 1
    )
    UNION ALL
    SELECT next.kind FROM kinds k, LATERAL (
      SELECT coalesce(t.type, '') AS kind FROM tasks t
      WHERE t.project_id = project AND t.status = 'PENDING' AND t.unmet_dependency_count = 0
        AND coalesce(t.type, '') > k.kind
      ORDER BY t.project_id, coalesce(t.type, '') LIMIT 1
    ) next
  )
  SELECT kind FROM kinds LIMIT 1000
$$
"""

# How many tasks do not go on because some of them (seeds) do not: these, if they have not ended,
# and all that wait for them, directly or not. What a task leads to are its parent, and the tasks
# that depend on it, with their gates. The gate of a task leads to its subtasks and their gates, as
# these wait for what their parent waits for. NULL without seeds. It stops at `most`, or when it has
# read ten times as many.
COUNT_STUCK = """
CREATE FUNCTION count_stuck(seeds uuid[], most integer) RETURNS integer LANGUAGE sql STABLE STRICT
SET search_path FROM CURRENT AS $$
  WITH RECURSIVE reached(id, is_gate, status, parent) AS (
    SELECT t.id, false, t.status, t.parent_task_id FROM tasks t WHERE t.id = ANY(seeds)
    UNION
    SELECT step.* FROM reached r, LATERAL (
      SELECT t.id, gate, t.status, t.parent_task_id
      FROM task_dependencies d, LATERAL (
        SELECT * FROM tasks t WHERE t.id = d.dependent_id OFFSET 0
      ) t, (VALUES (false), (true)) both_ways(gate)
      WHERE NOT r.is_gate AND d.dependency_id = r.id AND r.status <> 'COMPLETED'
        AND NOT (d.on_failure = 'IGNORE' AND r.status IN ('FAILED', 'CANCELLED', 'SKIPPED'))
        AND (gate OR t.status IN ('PENDING', 'ASSIGNED', 'BLOCKED'))
      UNION ALL
      SELECT t.id, gate, t.status, t.parent_task_id
      FROM tasks t, (VALUES (false), (true)) both_ways(gate)
      WHERE r.is_gate AND t.parent_task_id = r.id
        AND (gate OR t.status IN ('PENDING', 'ASSIGNED', 'BLOCKED'))
      UNION ALL
      SELECT t.id, false, t.status, t.parent_task_id FROM tasks t
      WHERE NOT r.is_gate AND r.status NOT IN ('COMPLETED', 'CANCELLED', 'SKIPPED')
        AND t.id = r.parent AND t.status IN ('PENDING', 'ASSIGNED', 'BLOCKED')
    ) step
  )
  SELECT count(*)::integer FROM (
    SELECT FROM (SELECT is_gate, status FROM reached LIMIT 10 * most) few
    WHERE NOT is_gate AND status IN ('PENDING', 'ASSIGNED', 'BLOCKED') LIMIT most
  ) found
$$
"""

# What is made besides tables.
MADE = (READY_KINDS, COUNT_STUCK)


def upgrade() -> None:
    op.create_index(
        "ix_tasks_halted",
        "tasks",
        ["project_id", "status", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('BLOCKED', 'FAILED', 'CANCELLED', 'SKIPPED')"),
    )
    for statement in MADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION count_stuck")
    op.execute("DROP FUNCTION ready_kinds")
    op.drop_index("ix_tasks_halted", table_name="tasks")
