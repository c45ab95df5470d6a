"""Budgets: their tables, and the functions that count what is spent and reserved.

What is spent is counted from the rows that are added to `usage_totals`, so it includes whatever
writes, changes or deletes usage records. What a budget counts stays counted when a subtask that it
was spent for is deleted.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# The name of a period, and the function that truncates a time to it.
PERIOD_START = """
CREATE FUNCTION budget_period_start(period text, at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN period = 'EVER' THEN '1970-01-01 00:00:00+00'::timestamptz
    ELSE date_trunc(lower(period), at, 'UTC') END
$$
"""
PERIOD_END = """
CREATE FUNCTION budget_period_end(period text) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN period <> 'EVER'
    THEN (
      date_trunc(lower(period), statement_timestamp() AT TIME ZONE 'UTC')
      + ('1 ' || period)::interval
    ) AT TIME ZONE 'UTC' END
$$
"""

# The task that is looked for may be deleted; then it is in its own tree only.
IN_TREE = """
CREATE FUNCTION is_in_task_tree(task uuid, top uuid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
  WITH RECURSIVE above AS (
    SELECT task AS id
    UNION
    SELECT t.parent_task_id FROM above CROSS JOIN LATERAL (
      SELECT parent_task_id FROM tasks WHERE id = above.id OFFSET 0
    ) t
    WHERE t.parent_task_id IS NOT NULL AND above.id <> top
  )
  SELECT EXISTS (SELECT FROM above WHERE id = top)
$$
"""

SPENT = """
CREATE FUNCTION budget_spent(budget uuid) RETURNS numeric
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT coalesce(
    (
      SELECT p.spent FROM budgets b JOIN budget_periods p ON p.budget_id = b.id
      WHERE b.id = budget
        AND p.starts_at = budget_period_start(b.period, statement_timestamp())
    ), 0
  )::numeric(30, 9)
$$
"""

# A reservation holds as long as its task has a current attempt, and until the end of the claim that
# makes it, which has not begun the attempt yet.
RESERVED = """
CREATE FUNCTION budget_reserved(budget uuid) RETURNS numeric
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT coalesce(sum(r.amount), 0)::numeric(30, 9) FROM budget_reservations r
  CROSS JOIN LATERAL (SELECT current_attempt_id FROM tasks WHERE id = r.task_id OFFSET 0) t
  WHERE r.budget_id = budget AND (
    t.current_attempt_id IS NOT NULL
    OR r.transaction = pg_current_xact_id_if_assigned()::text::bigint
  )
$$
"""

# For how many more attempts a budget has room, of the present period; NULL without a limit.
ROOM = """
CREATE FUNCTION budget_room(budget uuid) RETURNS integer
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
  SELECT CASE
    WHEN rest <= 0 THEN 0
    WHEN b.claim_reserve > 0 THEN least(trunc(rest / b.claim_reserve), 1000000000)
  END::integer
  FROM budgets b, coalesce(b.limit_cost, b.limit_tokens) most,
    LATERAL (SELECT most - budget_spent(b.id) - budget_reserved(b.id)) x(rest)
  WHERE b.id = budget
$$
"""

# Locks all hard budgets of the project, as the next one. Deletes reservations of ended attempts.
CLAIMS_LEFT = """
CREATE FUNCTION budget_claims_left(agent uuid) RETURNS integer LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM FROM budgets b
  WHERE b.is_hard AND b.project_id = (SELECT a.project_id FROM agents a WHERE a.id = agent)
  ORDER BY b.id FOR NO KEY UPDATE;
  -- Whoever deletes a task locks its reservations, and may wait for the budgets.
  WITH ended AS MATERIALIZED (
    SELECT r.budget_id, r.task_id FROM budget_reservations r
    WHERE r.transaction <> pg_current_xact_id()::text::bigint
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
    SELECT min(budget_room(b.id)) FROM agents a JOIN budgets b ON b.project_id = a.project_id
    WHERE a.id = agent AND b.is_hard AND b.task_id IS NULL
      AND (b.agent_id IS NULL OR b.agent_id = agent)
      AND (b.model_name IS NULL OR b.model_name = a.model_id)
  );
END
$$
"""

# Locks all hard budgets of the project, in the same order everywhere. So claims that concern them
# are made one after the other, each in a snapshot that is newer than the locks, and a claim of
# several tasks cannot deadlock with another.
RESERVE = """
CREATE FUNCTION reserve_budgets(task uuid, agent uuid) RETURNS boolean LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  b budgets;
  claim bigint := pg_current_xact_id()::text::bigint;
BEGIN
  PERFORM FROM budgets x
  WHERE x.is_hard AND x.project_id = (SELECT t.project_id FROM tasks t WHERE t.id = task)
  ORDER BY x.id FOR NO KEY UPDATE;
  DELETE FROM budget_reservations r WHERE r.task_id = task;
  FOR b IN
    SELECT x.* FROM tasks t
    JOIN agents a ON a.id = agent
    JOIN budgets x ON x.project_id = t.project_id
    WHERE t.id = task AND x.is_hard
      AND (x.agent_id IS NULL OR x.agent_id = agent)
      AND (x.model_name IS NULL OR x.model_name = a.model_id)
      AND (x.task_id IS NULL OR is_in_task_tree(task, x.task_id))
  LOOP
    IF budget_room(b.id) = 0 THEN
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

# Adds to what is spent of budgets, and makes an alert for each threshold that is reached. The rows
# of the periods are locked in the same order everywhere.
COUNTING = """
    WITH spending AS (
      SELECT b.id, budget_period_start(b.period, t.hour) AS starts_at,
        sum(CASE WHEN b.limit_cost IS NULL THEN t.input_tokens + t.output_tokens ELSE t.cost END)
          AS amount
      FROM {totals} t JOIN budgets b ON b.project_id = t.project_id
      WHERE {condition}
        AND (b.agent_id IS NULL OR b.agent_id = t.agent_id)
        AND (b.model_name IS NULL OR b.model_name = t.model_name)
        AND (b.task_id IS NULL OR is_in_task_tree(t.task_id, b.task_id))
      GROUP BY b.id, 2
      ORDER BY b.id, 2
    ), spent AS (
      INSERT INTO budget_periods (budget_id, starts_at, spent)
      SELECT id, starts_at, amount FROM spending WHERE amount <> 0
      ON CONFLICT (budget_id, starts_at)
      DO UPDATE SET spent = budget_periods.spent + excluded.spent
      RETURNING *
    )
    INSERT INTO budget_alerts (budget_id, period_starts_at, threshold, spent)
    SELECT b.id, spent.starts_at, reached.threshold, spent.spent
    FROM spent
    JOIN spending ON (spending.id, spending.starts_at) = (spent.budget_id, spent.starts_at)
    JOIN budgets b ON b.id = spent.budget_id
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(b.thresholds) AS threshold) reached
    WHERE spending.amount > 0
      AND spent.spent * 100 >= coalesce(b.limit_cost, b.limit_tokens) * reached.threshold
    ON CONFLICT (budget_id, period_starts_at, threshold) DO NOTHING"""

COUNT = """
CREATE FUNCTION count_budgets() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('budgets'), hashtext(project_id::text))
  FROM (SELECT DISTINCT project_id FROM new_rows WHERE NOT is_merged ORDER BY 1) projects;
  IF EXISTS (
    SELECT FROM new_rows t WHERE NOT t.is_merged
    AND EXISTS (SELECT FROM budgets b WHERE b.project_id = t.project_id)
  ) THEN{counting};
  END IF;
  RETURN NULL;
END
$$
""".replace("{counting}", COUNTING.format(totals="new_rows", condition="NOT t.is_merged"))

# A new budget starts with what is used already. No usage of its project may be added meanwhile: it
# would be counted by neither, or by both. So who counts usage shares a lock, and this does not.
OPEN = """
CREATE FUNCTION open_budgets() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('budgets'), hashtext(project_id::text))
  FROM (SELECT DISTINCT project_id FROM new_rows ORDER BY 1) projects;{counting};
  RETURN NULL;
END
$$
""".replace(
    "{counting}",
    COUNTING.format(
        totals="usage_totals",
        condition="b.id IN (SELECT id FROM new_rows)\n        AND"
        " t.hour >= budget_period_start(b.period, statement_timestamp())",
    ),
)

RAISE = """
CREATE FUNCTION raise_budget() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  UPDATE budgets b SET
    -- An owner may have raised it more meanwhile, or changed its unit.
    limit_cost = CASE WHEN b.limit_cost IS NOT NULL THEN greatest(b.limit_cost, i.limit_cost) END,
    limit_tokens =
      CASE WHEN b.limit_tokens IS NOT NULL THEN greatest(b.limit_tokens, i.limit_tokens) END,
    version = b.version + 1,
    updated_at = now()
  FROM budget_increases i WHERE i.interaction_id = NEW.id AND b.id = i.budget_id;
  RETURN NULL;
END
$$
"""

# What is made besides tables.
MADE = (
    PERIOD_START,
    PERIOD_END,
    IN_TREE,
    SPENT,
    RESERVED,
    ROOM,
    CLAIMS_LEFT,
    RESERVE,
    COUNT,
    OPEN,
    RAISE,
    "CREATE TRIGGER count_budgets AFTER INSERT ON usage_totals REFERENCING NEW TABLE AS new_rows"
    " FOR EACH STATEMENT EXECUTE FUNCTION count_budgets()",
    "CREATE TRIGGER open_budgets AFTER INSERT ON budgets REFERENCING NEW TABLE AS new_rows"
    " FOR EACH STATEMENT EXECUTE FUNCTION open_budgets()",
    "CREATE TRIGGER raise_budget AFTER UPDATE OF status ON human_interactions FOR EACH ROW"
    " WHEN (NEW.type = 'APPROVAL' AND NEW.status = 'APPROVED' AND OLD.status <> 'APPROVED')"
    " EXECUTE FUNCTION raise_budget()",
)

TRIGGERS = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}

LOG = """
CREATE FUNCTION log_{}() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
AS $${}$$
"""


def upgrade() -> None:
    tables()
    for statement in MADE:
        op.get_bind().exec_driver_sql(statement)
    for table, body in LOGGED.items():
        op.get_bind().exec_driver_sql(LOG.format(table, body))
        for event, rows in TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER log_{event} AFTER {event} ON {table} {rows}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION log_{table}()"
            )
        op.execute(
            f"CREATE TRIGGER log_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()"
        )


def key(table: str, column: str, to: str) -> sa.ForeignKeyConstraint:
    """A foreign key whose rows are deleted with what they refer to."""
    return sa.ForeignKeyConstraint(
        [column], [f"{to}.id"], name=op.f(f"fk_{table}_{column}"), ondelete="CASCADE"
    )


def times() -> list[sa.Column[Any]]:
    """The columns of an entity with its id and its times."""
    now: dict[str, Any] = {"server_default": sa.text("now()"), "nullable": False}
    return [
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), **now),
        sa.Column("updated_at", sa.DateTime(timezone=True), **now),
    ]


def tables() -> None:
    """Make the tables."""
    op.create_table(
        "budgets",
        *times(),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("model_name", sa.String(255), nullable=True),
        sa.Column("period", sa.String(32), nullable=False),
        sa.Column("limit_cost", sa.Numeric(18, 9), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        sa.Column("claim_reserve", sa.Numeric(18, 9), server_default=sa.text("0"), nullable=False),
        sa.Column("is_hard", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "thresholds",
            postgresql.ARRAY(sa.Integer()),
            server_default=sa.text("'{80,100}'::integer[]"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint(
            "num_nonnulls(agent_id, task_id, model_name) <= 1", name=op.f("ck_budgets_one_scope")
        ),
        sa.CheckConstraint(
            "num_nonnulls(limit_cost, limit_tokens) = 1", name=op.f("ck_budgets_one_limit")
        ),
        sa.CheckConstraint(
            "least(limit_cost, limit_tokens) > 0", name=op.f("ck_budgets_limit_positive")
        ),
        sa.CheckConstraint("claim_reserve >= 0", name=op.f("ck_budgets_claim_reserve_natural")),
        sa.CheckConstraint(
            "0 < ALL (thresholds) AND 1000 >= ALL (thresholds)"
            " AND array_position(thresholds, NULL) IS NULL AND cardinality(thresholds) <= 10",
            name=op.f("ck_budgets_thresholds"),
        ),
        sa.CheckConstraint(
            "period IN ('HOUR', 'DAY', 'MONTH', 'EVER')", name=op.f("ck_budgets_budget_period")
        ),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_budgets_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_budgets_updated_at_finite")),
        key("budgets", "project_id", "projects"),
        key("budgets", "agent_id", "agents"),
        key("budgets", "task_id", "tasks"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budgets")),
    )
    op.create_table(
        "budget_alerts",
        *times(),
        sa.Column("budget_id", sa.Uuid(), nullable=False),
        sa.Column("period_starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("threshold", sa.Integer(), nullable=False),
        sa.Column("spent", sa.Numeric(30, 9), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_budget_alerts_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_budget_alerts_updated_at_finite")),
        sa.CheckConstraint(
            "isfinite(period_starts_at)", name=op.f("ck_budget_alerts_period_starts_at_finite")
        ),
        key("budget_alerts", "budget_id", "budgets"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_alerts")),
        sa.UniqueConstraint(
            "budget_id",
            "period_starts_at",
            "threshold",
            name=op.f("uq_budget_alerts_budget_id_period_starts_at_threshold"),
        ),
    )
    op.create_table(
        "budget_periods",
        sa.Column("budget_id", sa.Uuid(), nullable=False),
        sa.Column("starts_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("spent", sa.Numeric(30, 9), nullable=False),
        sa.CheckConstraint("isfinite(starts_at)", name=op.f("ck_budget_periods_starts_at_finite")),
        key("budget_periods", "budget_id", "budgets"),
        sa.PrimaryKeyConstraint("budget_id", "starts_at", name=op.f("pk_budget_periods")),
    )
    op.create_table(
        "budget_reservations",
        sa.Column("budget_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("amount", sa.Numeric(30, 9), nullable=False),
        sa.Column("transaction", sa.BigInteger(), nullable=False),
        key("budget_reservations", "budget_id", "budgets"),
        key("budget_reservations", "task_id", "tasks"),
        sa.PrimaryKeyConstraint("budget_id", "task_id", name=op.f("pk_budget_reservations")),
    )
    op.create_table(
        "budget_increases",
        sa.Column("interaction_id", sa.Uuid(), nullable=False),
        sa.Column("budget_id", sa.Uuid(), nullable=False),
        sa.Column("limit_cost", sa.Numeric(18, 9), nullable=True),
        sa.Column("limit_tokens", sa.BigInteger(), nullable=True),
        key("budget_increases", "interaction_id", "human_interactions"),
        key("budget_increases", "budget_id", "budgets"),
        sa.PrimaryKeyConstraint("interaction_id", name=op.f("pk_budget_increases")),
    )
    indexes = {
        "budgets": [
            ["created_at", "id"],
            ["updated_at", "id"],
            ["project_id", "created_at", "id"],
            ["agent_id", "created_at", "id"],
            ["task_id", "created_at", "id"],
            ["project_id", "updated_at", "id"],
        ],
        "budget_alerts": [
            ["created_at", "id"],
            ["updated_at", "id"],
            ["budget_id", "created_at", "id"],
        ],
        "budget_reservations": [["task_id"]],
        "budget_increases": [["budget_id"]],
    }
    for table, each in indexes.items():
        for columns in each:
            op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, columns)


def downgrade() -> None:
    op.execute("DROP TRIGGER raise_budget ON human_interactions")
    op.execute("DROP TRIGGER count_budgets ON usage_totals")
    tables = "increases", "reservations", "periods", "alerts"
    for table in (*(f"budget_{name}" for name in tables), "budgets"):
        op.drop_table(table)
    for function in (
        "raise_budget()",
        "open_budgets()",
        "count_budgets()",
        "reserve_budgets(uuid, uuid)",
        "budget_claims_left(uuid)",
        "budget_room(uuid)",
        "budget_reserved(uuid)",
        "budget_spent(uuid)",
        "is_in_task_tree(uuid, uuid)",
        "budget_period_end(text)",
        "budget_period_start(text, timestamptz)",
        *(f"log_{table}()" for table in LOGGED),
    ):
        op.execute(f"DROP FUNCTION {function}")


# The bodies of the functions that log the changes of each table.
LOGGED = {
    "budgets": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'Budget',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.task_id IS NULL THEN
        'task_id' END, CASE WHEN n.model_name IS NULL THEN 'model_name' END, CASE WHEN
        n.limit_cost IS NULL THEN 'limit_cost' END, CASE WHEN n.limit_tokens IS NULL THEN
        'limit_tokens' END
      ]
    FROM (
      SELECT id, created_at, project_id, agent_id, task_id, model_name, period, limit_cost,
             limit_tokens, claim_reserve, is_hard, thresholds
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'Budget',
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
        o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' ||
        o.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN
        o.model_name IS DISTINCT FROM n.model_name THEN ',"model_name":' ||
        coalesce(to_json(o.model_name)::text, 'null') END, CASE WHEN o.period IS DISTINCT
        FROM n.period THEN ',"period":' || '"' || o.period || '"' END, CASE WHEN
        o.limit_cost IS DISTINCT FROM n.limit_cost THEN ',"limit_cost":' ||
        coalesce(to_json(o.limit_cost)::text, 'null') END, CASE WHEN o.limit_tokens IS
        DISTINCT FROM n.limit_tokens THEN ',"limit_tokens":' ||
        coalesce(o.limit_tokens::text, 'null') END, CASE WHEN o.claim_reserve IS DISTINCT
        FROM n.claim_reserve THEN ',"claim_reserve":' || to_json(o.claim_reserve)::text END,
        CASE WHEN o.is_hard IS DISTINCT FROM n.is_hard THEN ',"is_hard":' || o.is_hard::text
        END, CASE WHEN o.thresholds IS DISTINCT FROM n.thresholds THEN ',"thresholds":' ||
        to_json(o.thresholds)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
        o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' ||
        n.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN
        o.model_name IS DISTINCT FROM n.model_name THEN ',"model_name":' ||
        coalesce(to_json(n.model_name)::text, 'null') END, CASE WHEN o.period IS DISTINCT
        FROM n.period THEN ',"period":' || '"' || n.period || '"' END, CASE WHEN
        o.limit_cost IS DISTINCT FROM n.limit_cost THEN ',"limit_cost":' ||
        coalesce(to_json(n.limit_cost)::text, 'null') END, CASE WHEN o.limit_tokens IS
        DISTINCT FROM n.limit_tokens THEN ',"limit_tokens":' ||
        coalesce(n.limit_tokens::text, 'null') END, CASE WHEN o.claim_reserve IS DISTINCT
        FROM n.claim_reserve THEN ',"claim_reserve":' || to_json(n.claim_reserve)::text END,
        CASE WHEN o.is_hard IS DISTINCT FROM n.is_hard THEN ',"is_hard":' || n.is_hard::text
        END, CASE WHEN o.thresholds IS DISTINCT FROM n.thresholds THEN ',"thresholds":' ||
        to_json(n.thresholds)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.agent_id, o.task_id, o.model_name, o.period,
      o.limit_cost, o.limit_tokens, o.claim_reserve, o.is_hard, o.thresholds),
      ROW(n.id, n.created_at, n.project_id, n.agent_id, n.task_id, n.model_name, n.period,
      n.limit_cost, n.limit_tokens, n.claim_reserve, n.is_hard, n.thresholds)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Budget',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.task_id IS NULL THEN
        'task_id' END, CASE WHEN o.model_name IS NULL THEN 'model_name' END, CASE WHEN
        o.limit_cost IS NULL THEN 'limit_cost' END, CASE WHEN o.limit_tokens IS NULL THEN
        'limit_tokens' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, agent_id, task_id, model_name, period, limit_cost,
             limit_tokens, claim_reserve, is_hard, thresholds
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
  END IF;
  RETURN NULL;
END
""",
    "budget_alerts": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.budget_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.budget_id IS NOT NULL
        THEN n.budget_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'BudgetAlert',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n)
    FROM (
      SELECT id, created_at, budget_id, period_starts_at, threshold, spent
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM budgets p WHERE p.id = n.budget_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Budget'
        AND e.entity_id = n.budget_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.budget_id, o.budget_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.budget_id, o.budget_id) IS NOT NULL
        THEN coalesce(n.budget_id, o.budget_id)
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'BudgetAlert',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.budget_id IS DISTINCT FROM n.budget_id
        THEN ',"budget_id":' || '"' || o.budget_id || '"' END, CASE WHEN o.period_starts_at
        IS DISTINCT FROM n.period_starts_at THEN ',"period_starts_at":' ||
        to_json(o.period_starts_at)::text END, CASE WHEN o.threshold IS DISTINCT FROM
        n.threshold THEN ',"threshold":' || o.threshold::text END, CASE WHEN o.spent IS
        DISTINCT FROM n.spent THEN ',"spent":' || to_json(o.spent)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.budget_id IS DISTINCT FROM n.budget_id
        THEN ',"budget_id":' || '"' || n.budget_id || '"' END, CASE WHEN o.period_starts_at
        IS DISTINCT FROM n.period_starts_at THEN ',"period_starts_at":' ||
        to_json(n.period_starts_at)::text END, CASE WHEN o.threshold IS DISTINCT FROM
        n.threshold THEN ',"threshold":' || n.threshold::text END, CASE WHEN o.spent IS
        DISTINCT FROM n.spent THEN ',"spent":' || to_json(n.spent)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM budgets p WHERE p.id = coalesce(n.budget_id, o.budget_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Budget'
        AND e.entity_id = coalesce(n.budget_id, o.budget_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.budget_id, o.period_starts_at, o.threshold, o.spent),
      ROW(n.id, n.created_at, n.budget_id, n.period_starts_at, n.threshold, n.spent)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.budget_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.budget_id IS NOT NULL
        THEN o.budget_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'BudgetAlert',
      o.id::text,
      'DELETED',
      to_jsonb(o),
      NULL
    FROM (
      SELECT id, created_at, budget_id, period_starts_at, threshold, spent
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM budgets p WHERE p.id = o.budget_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Budget'
        AND e.entity_id = o.budget_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
}
