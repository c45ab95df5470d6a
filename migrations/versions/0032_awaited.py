"""Find which tasks that have ended without success others wait for, by any number of parents."""

from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None

# The tasks of a project with a status, such as CANCELLED, that others still wait for. A task waits
# for what it and its ancestors depend on, and these may have ended too.
#
# It first looks from each task at `few` of its dependents, and at the descendants of these. Where
# none of these waits and there may be more, it looks the other way: from the newest tasks that
# wait, and their ancestors, to what they depend on. Each way ends after `most` tasks, the second
# one also after ten times as many dependencies.
AWAITED = """
CREATE FUNCTION awaited(project uuid, ended varchar, few integer, most integer) RETURNS SETOF uuid
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
  known uuid[];
  undecided uuid[];
BEGIN
  WITH RECURSIVE causes AS (
    SELECT t.id FROM tasks t WHERE t.project_id = project AND t.status = ended
      AND t.status IN ('BLOCKED', 'FAILED', 'CANCELLED', 'SKIPPED')
    ORDER BY t.id LIMIT most
  ), below(cause, id, status) AS (
    SELECT c.id, t.id, t.status
    FROM causes c, LATERAL (
      SELECT d.dependent_id FROM task_dependencies d
      WHERE d.dependency_id = c.id AND d.on_failure <> 'IGNORE' LIMIT few
    ) d, LATERAL (SELECT * FROM tasks t WHERE t.id = d.dependent_id OFFSET 0) t
    UNION ALL
    SELECT b.cause, t.id, t.status
    FROM below b, LATERAL (SELECT * FROM tasks t WHERE t.parent_task_id = b.id LIMIT few) t
    WHERE b.status NOT IN ('PENDING', 'ASSIGNED', 'BLOCKED')
  ), counted AS (
    SELECT cause, bool_or(status IN ('PENDING', 'ASSIGNED', 'BLOCKED')) is_awaited, count(*) read
    FROM (SELECT * FROM below LIMIT most) read GROUP BY cause
  ), found AS (
    SELECT c.id, coalesce(n.is_awaited, false) is_awaited,
      n.read >= few OR (SELECT sum(read) FROM counted) >= most is_partial
    FROM causes c LEFT JOIN counted n ON n.cause = c.id
  )
  SELECT array_agg(id) FILTER (WHERE is_awaited),
    array_agg(id) FILTER (WHERE is_partial AND NOT is_awaited)
  INTO known, undecided FROM found;
  RETURN QUERY SELECT unnest(known);
  IF undecided IS NOT NULL THEN
    RETURN QUERY
    WITH RECURSIVE above(id, parent) AS (
      SELECT t.id, t.parent_task_id
      FROM (
        SELECT * FROM tasks t WHERE t.project_id = project
        ORDER BY t.created_at DESC, t.id DESC LIMIT most
      ) t
      WHERE t.status IN ('PENDING', 'ASSIGNED', 'BLOCKED') AND t.unmet_dependency_count > 0
      UNION
      SELECT t.id, t.parent_task_id
      FROM above a, LATERAL (SELECT * FROM tasks t WHERE t.id = a.parent OFFSET 0) t
    )
    SELECT DISTINCT read.dependency_id FROM (
      SELECT d.dependency_id FROM (SELECT id FROM above LIMIT most) a, LATERAL (
        SELECT d.dependency_id FROM task_dependencies d
        WHERE d.dependent_id = a.id AND d.on_failure <> 'IGNORE' OFFSET 0
      ) d
      LIMIT 10 * most
    ) read JOIN unnest(undecided) u(id) ON u.id = read.dependency_id;
  END IF;
END
$$
"""

# What is made besides tables.
MADE = (AWAITED,)


def upgrade() -> None:
    for statement in MADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION awaited")
