"""Claims: leases in a table of their own, what workers hand over, and limits of projects.

An attempt that is running gets a lease. Its end is that of the column before, which nothing has
prolonged: the servers end it, and the task is handed out again.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# What a claim must know as it is under a lock that its statement has waited for. A statement of a
# VOLATILE function sees what was committed before it, not before the statement that calls it.
RUNNING_TASKS = """
CREATE FUNCTION running_tasks(agent uuid) RETURNS integer LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT AS $$
BEGIN
  RETURN (SELECT count(*) FROM task_leases l WHERE l.agent_id = agent);
END
$$
"""

# How many more tasks of each type that has a limit may be in progress in a project.
LEFT_BY_TYPE = """
CREATE FUNCTION left_by_type(project uuid) RETURNS jsonb LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT AS $$
BEGIN
  RETURN (
    SELECT jsonb_object_agg(most.key, most.value::numeric::integer - (
      SELECT count(*) FROM agents a
      JOIN task_leases l ON l.agent_id = a.id
      JOIN tasks t ON t.id = l.task_id
      WHERE a.project_id = project AND t.type = most.key
    ))
    FROM projects p, jsonb_each_text(p.max_tasks_by_type) most
    WHERE p.id = project
  );
END
$$
"""

RESOURCES_IN_USE = """
CREATE FUNCTION resources_in_use(project uuid, keys varchar[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
  RETURN EXISTS (
    SELECT FROM tasks t
    WHERE t.project_id = project AND t.resource_keys && keys
      AND t.status = 'IN_PROGRESS' AND t.resource_keys <> '{}'
  );
END
$$
"""

# The locks last until the end of the transaction. Without one of them, another claim is about to
# use the resource; to wait for it could be a deadlock.
RESERVE_RESOURCES = """
CREATE FUNCTION reserve_resources(project uuid, keys varchar[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT AS $$
BEGIN
  RETURN coalesce(
    (
      SELECT bool_and(pg_try_advisory_xact_lock(hashtextextended(project::text || key, 0)))
      FROM unnest(keys) key
    ),
    true
  ) AND NOT resources_in_use(project, keys);
END
$$
"""

# Subtracts, of each task that waits for some tasks, for how many of them it waits: of dependents,
# with their descendants, and of parents. It reads no more than the rows that it writes, each by an
# index, whatever the statistics say.
COUNT_DOWN = """
CREATE FUNCTION count_down(completed uuid[]) RETURNS void LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  WITH RECURSIVE waiting (id, met) AS (
    SELECT dependent_id, dependency_id FROM task_dependencies WHERE dependency_id = ANY(completed)
    UNION
    SELECT child.id, w.met FROM waiting w CROSS JOIN LATERAL (
      SELECT t.id FROM tasks t WHERE t.parent_task_id = w.id OFFSET 0
    ) child
  ), pairs (id, met) AS (
    SELECT id, met FROM waiting
    UNION
    SELECT row.parent_task_id, given.id FROM unnest(completed) given (id) CROSS JOIN LATERAL (
      SELECT t.parent_task_id FROM tasks t WHERE t.id = given.id OFFSET 0
    ) row
    WHERE row.parent_task_id IS NOT NULL
  ), counts AS (
    SELECT id, count(*) AS number FROM pairs GROUP BY id
  )
  UPDATE tasks t
  -- A count that was wrong before must not keep a task from being completed.
  SET unmet_dependency_count = greatest(t.unmet_dependency_count - c.number, 0)
  FROM counts c
  WHERE t.id = ANY(array(SELECT id FROM counts)) AND t.id = c.id;
END
$$
"""

FUNCTIONS = (RUNNING_TASKS, LEFT_BY_TYPE, RESOURCES_IN_USE, RESERVE_RESOURCES, COUNT_DOWN)

# A page keeps room for the next version of its rows, and is cleaned when it is read or written
# again. Vacuum comes before the table has grown to many times its rows.
STORAGE = """
ALTER TABLE task_leases SET (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500,
  autovacuum_vacuum_cost_delay = 0
)
"""

LEASES = """
INSERT INTO task_leases (attempt_id, task_id, agent_id, expires_at, heartbeat_at)
SELECT a.id, t.id, a.agent_id, coalesce(t.lease_expires_at, now()), coalesce(a.heartbeat_at, now())
FROM tasks t JOIN task_attempts a ON a.id = t.current_attempt_id AND a.task_id = t.id
WHERE t.status = 'IN_PROGRESS' AND a.status = 'RUNNING'
"""

CHECKS = {
    "projects": {
        "max_tasks_per_agent_positive": "max_tasks_per_agent > 0",
        "max_tasks_in_review_positive": "max_tasks_in_review > 0",
        "max_tasks_by_type_numbers": (
            "jsonb_typeof(max_tasks_by_type) = 'object'"
            " AND NOT jsonb_path_exists(max_tasks_by_type, '$.* ?"
            ' (@.type() != "number" || @ < 0 || @ > 1000000000 || @ != @.floor())\')'
        ),
    },
    "tasks": {
        "resource_keys_few": (
            "cardinality(resource_keys) <= 20 AND array_position(resource_keys, NULL) IS NULL"
        ),
    },
}


def upgrade() -> None:
    op.create_table(
        "task_leases",
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("isfinite(expires_at)", name=op.f("ck_task_leases_expires_at_finite")),
        sa.CheckConstraint(
            "isfinite(heartbeat_at)", name=op.f("ck_task_leases_heartbeat_at_finite")
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_task_leases_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["task_attempts.id"],
            name=op.f("fk_task_leases_attempt_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_task_leases_task_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", name=op.f("pk_task_leases")),
        sa.UniqueConstraint("task_id", name=op.f("uq_task_leases_task_id")),
    )
    op.create_index(op.f("ix_task_leases_agent_id"), "task_leases", ["agent_id"], unique=False)
    op.execute(STORAGE)
    op.execute(LEASES)
    op.add_column("projects", sa.Column("max_tasks_per_agent", sa.Integer(), nullable=True))
    op.add_column("projects", sa.Column("max_tasks_in_review", sa.Integer(), nullable=True))
    op.add_column(
        "projects",
        sa.Column(
            "max_tasks_by_type",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
    )
    op.add_column(
        "task_attempts",
        sa.Column(
            "checkpoint", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
    )
    op.add_column("task_attempts", sa.Column("handover", sa.Text(), nullable=True))
    op.drop_column("task_attempts", "heartbeat_at")
    op.add_column("tasks", sa.Column("acceptance_criteria", sa.Text(), nullable=True))
    op.add_column(
        "tasks",
        sa.Column(
            "resource_keys",
            sa.ARRAY(sa.String(length=255)),
            server_default=sa.text("'{}'::varchar[]"),
            nullable=False,
        ),
    )
    op.drop_index(
        op.f("ix_tasks_lease_expires_at"),
        table_name="tasks",
        postgresql_where="(lease_expires_at IS NOT NULL)",
    )
    op.create_index(
        "ix_tasks_assigned",
        "tasks",
        ["agent_id", "priority", "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'ASSIGNED' AND unmet_dependency_count = 0"),
    )
    op.create_index(
        "ix_tasks_claimable",
        "tasks",
        ["project_id", sa.literal_column("coalesce(type, '')"), "priority", "available_at", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING' AND unmet_dependency_count = 0"),
    )
    op.create_index(
        "ix_tasks_in_review",
        "tasks",
        ["project_id"],
        unique=False,
        postgresql_where=sa.text("blocked_reason = 'HUMAN_INPUT'"),
    )
    op.create_index(
        "ix_tasks_using_resources",
        "tasks",
        ["project_id"],
        unique=False,
        postgresql_where=sa.text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
    )
    op.create_index(
        "ix_tasks_resource_keys",
        "tasks",
        ["resource_keys"],
        unique=False,
        postgresql_using="gin",
        postgresql_where=sa.text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
    )
    op.drop_column("tasks", "lease_expires_at")
    for table, checks in CHECKS.items():
        for name, sql in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, sql)
    for function in FUNCTIONS:
        op.execute(function)
    op.execute("""CREATE OR REPLACE FUNCTION log_projects() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.id,
          NULL::uuid,
          'Project',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.description IS NULL THEN 'description' END, CASE WHEN n.owner_id IS NULL
            THEN 'owner_id' END, CASE WHEN n.max_tasks_per_agent IS NULL THEN
            'max_tasks_per_agent' END, CASE WHEN n.max_tasks_in_review IS NULL THEN
            'max_tasks_in_review' END
          ]
        FROM (
          SELECT id, created_at, name, description, status, owner_id, max_tasks_per_agent,
                 max_tasks_in_review, max_tasks_by_type, project_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.id, o.id),
          NULL::uuid,
          'Project',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
            ',"name":' || to_json(o.name)::text END, CASE WHEN
            record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
            coalesce(o.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.owner_id IS
            DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || o.owner_id || '"',
            'null') END, CASE WHEN o.max_tasks_per_agent IS DISTINCT FROM n.max_tasks_per_agent
            THEN ',"max_tasks_per_agent":' || coalesce(o.max_tasks_per_agent::text, 'null') END,
            CASE WHEN o.max_tasks_in_review IS DISTINCT FROM n.max_tasks_in_review THEN
            ',"max_tasks_in_review":' || coalesce(o.max_tasks_in_review::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.max_tasks_by_type), ROW(n.max_tasks_by_type)) THEN
            ',"max_tasks_by_type":' || o.max_tasks_by_type::text END, CASE WHEN
            record_image_ne(ROW(o.project_metadata), ROW(n.project_metadata)) THEN
            ',"project_metadata":' || o.project_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
            ',"name":' || to_json(n.name)::text END, CASE WHEN
            record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
            coalesce(n.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.owner_id IS
            DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || n.owner_id || '"',
            'null') END, CASE WHEN o.max_tasks_per_agent IS DISTINCT FROM n.max_tasks_per_agent
            THEN ',"max_tasks_per_agent":' || coalesce(n.max_tasks_per_agent::text, 'null') END,
            CASE WHEN o.max_tasks_in_review IS DISTINCT FROM n.max_tasks_in_review THEN
            ',"max_tasks_in_review":' || coalesce(n.max_tasks_in_review::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.max_tasks_by_type), ROW(n.max_tasks_by_type)) THEN
            ',"max_tasks_by_type":' || n.max_tasks_by_type::text END, CASE WHEN
            record_image_ne(ROW(o.project_metadata), ROW(n.project_metadata)) THEN
            ',"project_metadata":' || n.project_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.name, o.description, o.status, o.owner_id,
          o.max_tasks_per_agent, o.max_tasks_in_review, o.max_tasks_by_type, o.project_metadata),
          ROW(n.id, n.created_at, n.name, n.description, n.status, n.owner_id,
          n.max_tasks_per_agent, n.max_tasks_in_review, n.max_tasks_by_type, n.project_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.id,
          NULL::uuid,
          'Project',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.owner_id IS NULL
            THEN 'owner_id' END, CASE WHEN o.max_tasks_per_agent IS NULL THEN
            'max_tasks_per_agent' END, CASE WHEN o.max_tasks_in_review IS NULL THEN
            'max_tasks_in_review' END
          ],
          NULL
        FROM (
          SELECT id, created_at, name, description, status, owner_id, max_tasks_per_agent,
                 max_tasks_in_review, max_tasks_by_type, project_metadata
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_tasks() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Task',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN n.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN n.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN n.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN n.description IS NULL THEN 'description' END,
            CASE WHEN n.type IS NULL THEN 'type' END, CASE WHEN n.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN n.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN n.input IS NULL THEN 'input' END, CASE WHEN
            n.result IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE
            WHEN n.due_at IS NULL THEN 'due_at' END, CASE WHEN n.started_at IS NULL THEN
            'started_at' END, CASE WHEN n.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN n.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            n.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ]
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Task',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || o.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || o.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || o.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(o.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(o.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(o.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            o.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || o.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(o.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(o.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(o.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(o.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(o.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(o.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(o.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(o.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(o.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(o.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || o.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            o.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || o.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || o.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || o.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || o.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || o.task_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || n.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || n.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || n.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(n.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(n.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(n.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            n.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || n.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(n.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(n.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(n.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(n.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(n.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(n.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(n.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(n.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(n.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(n.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || n.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            n.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || n.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || n.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || n.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || n.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || n.task_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.parent_task_id, o.agent_id, o.created_by_user_id,
          o.created_by_agent_id, o.title, o.description, o.type, o.status, o.blocked_reason,
          o.priority, o.acceptance_criteria, o.resource_keys, o.input, o.result, o.error,
          o.available_at, o.due_at, o.started_at, o.completed_at, o.estimated_seconds,
          o.unmet_dependency_count, o.attempt_count, o.max_attempts, o.retry_backoff_seconds,
          o.current_attempt_id, o.cancel_requested, o.task_metadata),
          ROW(n.id, n.created_at, n.project_id, n.parent_task_id, n.agent_id, n.created_by_user_id,
          n.created_by_agent_id, n.title, n.description, n.type, n.status, n.blocked_reason,
          n.priority, n.acceptance_criteria, n.resource_keys, n.input, n.result, n.error,
          n.available_at, n.due_at, n.started_at, n.completed_at, n.estimated_seconds,
          n.unmet_dependency_count, n.attempt_count, n.max_attempts, n.retry_backoff_seconds,
          n.current_attempt_id, n.cancel_requested, n.task_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Task',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN o.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN o.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN o.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN o.description IS NULL THEN 'description' END,
            CASE WHEN o.type IS NULL THEN 'type' END, CASE WHEN o.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN o.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN o.input IS NULL THEN 'input' END, CASE WHEN
            o.result IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE
            WHEN o.due_at IS NULL THEN 'due_at' END, CASE WHEN o.started_at IS NULL THEN
            'started_at' END, CASE WHEN o.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN o.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            o.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_task_attempts() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN n.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.progress_percent IS
            NULL THEN 'progress_percent' END, CASE WHEN n.status_message IS NULL THEN
            'status_message' END, CASE WHEN n.checkpoint IS NULL THEN 'checkpoint' END, CASE
            WHEN n.handover IS NULL THEN 'handover' END, CASE WHEN n.result IS NULL THEN
            'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE WHEN n.ended_at IS
            NULL THEN 'ended_at' END
          ]
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                 status_message, checkpoint, handover, result, error, started_at, ended_at
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = n.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = n.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN coalesce(n.task_id, o.task_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || o.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || o.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            o.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
            n.progress_percent THEN ',"progress_percent":' || coalesce(o.progress_percent::text,
            'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
            ',"status_message":' || coalesce(to_json(o.status_message)::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
            coalesce(o.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
            n.handover THEN ',"handover":' || coalesce(to_json(o.handover)::text, 'null') END,
            CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(o.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(o.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(o.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(o.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || n.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || n.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            n.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
            n.progress_percent THEN ',"progress_percent":' || coalesce(n.progress_percent::text,
            'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
            ',"status_message":' || coalesce(to_json(n.status_message)::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
            coalesce(n.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
            n.handover THEN ',"handover":' || coalesce(to_json(n.handover)::text, 'null') END,
            CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(n.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(n.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(n.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(n.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = coalesce(n.task_id, o.task_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = coalesce(n.task_id, o.task_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.progress_percent,
          o.status_message, o.checkpoint, o.handover, o.result, o.error, o.started_at,
          o.ended_at),
          ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.progress_percent,
          n.status_message, n.checkpoint, n.handover, n.result, n.error, n.started_at,
          n.ended_at)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN o.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.progress_percent IS
            NULL THEN 'progress_percent' END, CASE WHEN o.status_message IS NULL THEN
            'status_message' END, CASE WHEN o.checkpoint IS NULL THEN 'checkpoint' END, CASE
            WHEN o.handover IS NULL THEN 'handover' END, CASE WHEN o.result IS NULL THEN
            'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE WHEN o.ended_at IS
            NULL THEN 'ended_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                 status_message, checkpoint, handover, result, error, started_at, ended_at
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = o.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = o.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")


def downgrade() -> None:
    for function in (
        "count_down",
        "reserve_resources",
        "resources_in_use",
        "left_by_type",
        "running_tasks",
    ):
        op.execute(f"DROP FUNCTION {function}")
    for table, checks in CHECKS.items():
        for name in checks:
            op.drop_constraint(op.f(f"ck_{table}_{name}"), table)
    op.execute("""CREATE OR REPLACE FUNCTION log_task_attempts() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN n.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.heartbeat_at IS NULL
            THEN 'heartbeat_at' END, CASE WHEN n.progress_percent IS NULL THEN
            'progress_percent' END, CASE WHEN n.status_message IS NULL THEN 'status_message'
            END, CASE WHEN n.result IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN
            'error' END, CASE WHEN n.ended_at IS NULL THEN 'ended_at' END
          ]
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, heartbeat_at,
                 progress_percent, status_message, result, error, started_at, ended_at
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = n.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = n.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN coalesce(n.task_id, o.task_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || o.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || o.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            o.status || '"' END, CASE WHEN o.heartbeat_at IS DISTINCT FROM n.heartbeat_at THEN
            ',"heartbeat_at":' || coalesce(to_json(o.heartbeat_at)::text, 'null') END, CASE WHEN
            o.progress_percent IS DISTINCT FROM n.progress_percent THEN ',"progress_percent":'
            || coalesce(o.progress_percent::text, 'null') END, CASE WHEN o.status_message IS
            DISTINCT FROM n.status_message THEN ',"status_message":' ||
            coalesce(to_json(o.status_message)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(o.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(o.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(o.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(o.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || n.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || n.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            n.status || '"' END, CASE WHEN o.heartbeat_at IS DISTINCT FROM n.heartbeat_at THEN
            ',"heartbeat_at":' || coalesce(to_json(n.heartbeat_at)::text, 'null') END, CASE WHEN
            o.progress_percent IS DISTINCT FROM n.progress_percent THEN ',"progress_percent":'
            || coalesce(n.progress_percent::text, 'null') END, CASE WHEN o.status_message IS
            DISTINCT FROM n.status_message THEN ',"status_message":' ||
            coalesce(to_json(n.status_message)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(n.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(n.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(n.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(n.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = coalesce(n.task_id, o.task_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = coalesce(n.task_id, o.task_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.heartbeat_at,
          o.progress_percent, o.status_message, o.result, o.error, o.started_at, o.ended_at),
          ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.heartbeat_at,
          n.progress_percent, n.status_message, n.result, n.error, n.started_at, n.ended_at)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN o.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.heartbeat_at IS NULL
            THEN 'heartbeat_at' END, CASE WHEN o.progress_percent IS NULL THEN
            'progress_percent' END, CASE WHEN o.status_message IS NULL THEN 'status_message'
            END, CASE WHEN o.result IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN
            'error' END, CASE WHEN o.ended_at IS NULL THEN 'ended_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, heartbeat_at,
                 progress_percent, status_message, result, error, started_at, ended_at
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = o.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = o.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_tasks() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Task',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN n.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN n.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN n.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN n.description IS NULL THEN 'description' END,
            CASE WHEN n.type IS NULL THEN 'type' END, CASE WHEN n.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN n.input IS NULL THEN 'input' END, CASE WHEN n.result
            IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE WHEN
            n.due_at IS NULL THEN 'due_at' END, CASE WHEN n.started_at IS NULL THEN 'started_at'
            END, CASE WHEN n.completed_at IS NULL THEN 'completed_at' END, CASE WHEN
            n.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            n.current_attempt_id IS NULL THEN 'current_attempt_id' END, CASE WHEN
            n.lease_expires_at IS NULL THEN 'lease_expires_at' END
          ]
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, input, result, error, available_at, due_at, started_at, completed_at,
                 estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
                 retry_backoff_seconds, current_attempt_id, lease_expires_at, cancel_requested,
                 task_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Task',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || o.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || o.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || o.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(o.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(o.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(o.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            o.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || o.priority::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(o.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(o.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(o.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(o.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(o.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(o.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(o.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(o.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || o.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            o.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || o.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || o.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || o.current_attempt_id || '"', 'null')
            END, CASE WHEN o.lease_expires_at IS DISTINCT FROM n.lease_expires_at THEN
            ',"lease_expires_at":' || coalesce(to_json(o.lease_expires_at)::text, 'null') END,
            CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || o.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || o.task_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || n.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || n.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || n.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(n.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(n.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(n.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            n.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || n.priority::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(n.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(n.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(n.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(n.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(n.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(n.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(n.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(n.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || n.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            n.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || n.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || n.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || n.current_attempt_id || '"', 'null')
            END, CASE WHEN o.lease_expires_at IS DISTINCT FROM n.lease_expires_at THEN
            ',"lease_expires_at":' || coalesce(to_json(n.lease_expires_at)::text, 'null') END,
            CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || n.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || n.task_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.parent_task_id, o.agent_id, o.created_by_user_id,
          o.created_by_agent_id, o.title, o.description, o.type, o.status, o.blocked_reason,
          o.priority, o.input, o.result, o.error, o.available_at, o.due_at, o.started_at,
          o.completed_at, o.estimated_seconds, o.unmet_dependency_count, o.attempt_count,
          o.max_attempts, o.retry_backoff_seconds, o.current_attempt_id, o.lease_expires_at,
          o.cancel_requested, o.task_metadata),
          ROW(n.id, n.created_at, n.project_id, n.parent_task_id, n.agent_id, n.created_by_user_id,
          n.created_by_agent_id, n.title, n.description, n.type, n.status, n.blocked_reason,
          n.priority, n.input, n.result, n.error, n.available_at, n.due_at, n.started_at,
          n.completed_at, n.estimated_seconds, n.unmet_dependency_count, n.attempt_count,
          n.max_attempts, n.retry_backoff_seconds, n.current_attempt_id, n.lease_expires_at,
          n.cancel_requested, n.task_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Task',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN o.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN o.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN o.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN o.description IS NULL THEN 'description' END,
            CASE WHEN o.type IS NULL THEN 'type' END, CASE WHEN o.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN o.input IS NULL THEN 'input' END, CASE WHEN o.result
            IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE WHEN
            o.due_at IS NULL THEN 'due_at' END, CASE WHEN o.started_at IS NULL THEN 'started_at'
            END, CASE WHEN o.completed_at IS NULL THEN 'completed_at' END, CASE WHEN
            o.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            o.current_attempt_id IS NULL THEN 'current_attempt_id' END, CASE WHEN
            o.lease_expires_at IS NULL THEN 'lease_expires_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, input, result, error, available_at, due_at, started_at, completed_at,
                 estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
                 retry_backoff_seconds, current_attempt_id, lease_expires_at, cancel_requested,
                 task_metadata
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_projects() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.id,
          NULL::uuid,
          'Project',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.description IS NULL THEN 'description' END, CASE WHEN n.owner_id IS NULL
            THEN 'owner_id' END
          ]
        FROM (
          SELECT id, created_at, name, description, status, owner_id, project_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.id, o.id),
          NULL::uuid,
          'Project',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
            ',"name":' || to_json(o.name)::text END, CASE WHEN
            record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
            coalesce(o.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.owner_id IS
            DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || o.owner_id || '"',
            'null') END, CASE WHEN record_image_ne(ROW(o.project_metadata),
            ROW(n.project_metadata)) THEN ',"project_metadata":' || o.project_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
            ',"name":' || to_json(n.name)::text END, CASE WHEN
            record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
            coalesce(n.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.owner_id IS
            DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || n.owner_id || '"',
            'null') END, CASE WHEN record_image_ne(ROW(o.project_metadata),
            ROW(n.project_metadata)) THEN ',"project_metadata":' || n.project_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.name, o.description, o.status, o.owner_id, o.project_metadata),
          ROW(n.id, n.created_at, n.name, n.description, n.status, n.owner_id, n.project_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.id,
          NULL::uuid,
          'Project',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.owner_id IS NULL
            THEN 'owner_id' END
          ],
          NULL
        FROM (
          SELECT id, created_at, name, description, status, owner_id, project_metadata
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.add_column(
        "tasks",
        sa.Column(
            "lease_expires_at",
            postgresql.TIMESTAMP(timezone=True),
            autoincrement=False,
            nullable=True,
        ),
    )
    op.create_check_constraint(
        op.f("ck_tasks_lease_expires_at_finite"), "tasks", "isfinite(lease_expires_at)"
    )
    op.drop_index(
        "ix_tasks_using_resources",
        table_name="tasks",
        postgresql_where=sa.text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
    )
    op.drop_index(
        "ix_tasks_resource_keys",
        table_name="tasks",
        postgresql_using="gin",
        postgresql_where=sa.text("status = 'IN_PROGRESS' AND resource_keys <> '{}'"),
    )
    op.drop_index(
        "ix_tasks_in_review",
        table_name="tasks",
        postgresql_where=sa.text("blocked_reason = 'HUMAN_INPUT'"),
    )
    op.drop_index(
        "ix_tasks_claimable",
        table_name="tasks",
        postgresql_where=sa.text("status = 'PENDING' AND unmet_dependency_count = 0"),
    )
    op.drop_index(
        "ix_tasks_assigned",
        table_name="tasks",
        postgresql_where=sa.text("status = 'ASSIGNED' AND unmet_dependency_count = 0"),
    )
    op.create_index(
        op.f("ix_tasks_lease_expires_at"),
        "tasks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where="(lease_expires_at IS NOT NULL)",
    )
    op.drop_column("tasks", "resource_keys")
    op.drop_column("tasks", "acceptance_criteria")
    op.add_column(
        "task_attempts",
        sa.Column(
            "heartbeat_at", postgresql.TIMESTAMP(timezone=True), autoincrement=False, nullable=True
        ),
    )
    op.create_check_constraint(
        op.f("ck_task_attempts_heartbeat_at_finite"), "task_attempts", "isfinite(heartbeat_at)"
    )
    op.execute(
        "UPDATE tasks t SET lease_expires_at = l.expires_at"
        " FROM task_leases l WHERE l.task_id = t.id"
    )
    op.drop_column("task_attempts", "handover")
    op.drop_column("task_attempts", "checkpoint")
    # Of attempts that have ended, the time is gone with the column that `upgrade` drops.
    op.execute(
        "UPDATE task_attempts a SET heartbeat_at = l.heartbeat_at"
        " FROM task_leases l WHERE l.attempt_id = a.id"
    )
    op.drop_column("projects", "max_tasks_by_type")
    op.drop_column("projects", "max_tasks_in_review")
    op.drop_column("projects", "max_tasks_per_agent")
    op.drop_index(op.f("ix_task_leases_agent_id"), table_name="task_leases")
    op.drop_table("task_leases")
