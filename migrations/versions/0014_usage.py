"""Usage in full: names of models, cache creation, traces; and its sums by the hour.

A call names its model, which need not be registered. `count_usage` keeps the sums in `usage_totals`
in the transaction of the records; see `db/usage_totals.py`. All records are updated and summed up
here, which takes about ten seconds for a million of them, and are locked meanwhile.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

SUMS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_creation_tokens",
    "output_tokens",
    "reasoning_tokens",
    "calls",
    "failures",
    "unpriced_calls",
)
NAMES = ", ".join((*SUMS[:3], f"\n      {SUMS[3]}", *SUMS[4:], "cost"))

# Adds sums of records to the totals, each record times its sign.
ADD = """
    INSERT INTO usage_totals (
      hour, project_id, agent_id, model_name, task_id, user_id, {names}
    )
    SELECT
      date_trunc('hour', occurred_at, 'UTC'), project_id, agent_id, model_name, task_id, user_id,
      sum(sign * input_tokens), sum(sign * cached_input_tokens), sum(sign * cache_creation_tokens),
      sum(sign * output_tokens), sum(sign * reasoning_tokens), sum(sign),
      sum(sign * (NOT success)::integer), sum(sign * (cost IS NULL)::integer),
      sum(sign * coalesce(cost, 0))
    FROM ({rows}) changed
    GROUP BY 1, 2, 3, 4, 5, 6"""
ADDED = "SELECT 1::bigint AS sign, * FROM {}"
REMOVED = "SELECT -1::bigint AS sign, * FROM {}"
CHANGED = f"{ADDED.format('new_rows')} UNION ALL {REMOVED.format('old_rows')}"

COUNT = f"""
CREATE FUNCTION count_usage() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN{ADD.format(names=NAMES, rows=ADDED.format("new_rows"))};
  ELSIF TG_OP = 'DELETE' THEN{ADD.format(names=NAMES, rows=REMOVED.format("old_rows"))};
  ELSE{ADD.format(names=NAMES, rows=CHANGED)};
  END IF;
  RETURN NULL;
END
$$
"""

# Waits for another process that merges: both would update the same rows. Rows of which nothing is
# left are deleted.
MERGE = """
CREATE FUNCTION merge_usage_totals(most integer) RETURNS bigint LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  merged bigint;
  empty bigint[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('merge_usage_totals'));
  WITH taken AS (
    DELETE FROM usage_totals WHERE id IN (
      SELECT id FROM usage_totals WHERE NOT is_merged ORDER BY id LIMIT most
    )
    RETURNING *
  ), summed AS (
    INSERT INTO usage_totals (
      project_id, hour, agent_id, model_name, task_id, user_id, {names}, is_merged
    )
    SELECT project_id, hour, agent_id, model_name, task_id, user_id,
      {sums}, true
    FROM taken GROUP BY project_id, hour, agent_id, model_name, task_id, user_id
    ON CONFLICT (project_id, hour, agent_id, model_name, task_id, user_id) WHERE is_merged
    DO UPDATE SET
      {added}
    RETURNING id, calls, cost
  )
  SELECT (SELECT count(*) FROM taken), array(SELECT id FROM summed WHERE calls = 0 AND cost = 0)
  INTO merged, empty;
  DELETE FROM usage_totals WHERE id = ANY(empty);
  RETURN merged;
END
$$
""".replace("{names}", NAMES)
MERGE = MERGE.replace("{sums}", ", ".join(f"sum({name})" for name in (*SUMS, "cost")))
MERGE = MERGE.replace(
    "{added}",
    ",\n      ".join(f"{name} = usage_totals.{name} + excluded.{name}" for name in (*SUMS, "cost")),
)

# Steps down the tree, and sums of tasks, are lookups by an index, whatever the statistics say.
TREE_COST = """
CREATE FUNCTION task_tree_cost(task uuid) RETURNS numeric LANGUAGE sql STABLE PARALLEL SAFE
SET search_path FROM CURRENT AS $$
  WITH RECURSIVE tree AS (
    SELECT task AS id
    UNION ALL
    SELECT below.id FROM tree CROSS JOIN LATERAL (
      SELECT id FROM tasks WHERE parent_task_id = tree.id OFFSET 0
    ) below
  )
  SELECT coalesce(sum(own.cost), 0)::numeric(30, 9)
  FROM tree CROSS JOIN LATERAL (
    SELECT sum(cost) AS cost FROM usage_totals WHERE task_id = tree.id OFFSET 0
  ) own
$$
"""

TRIGGERS = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}

# What is made besides tables.
MADE = (
    COUNT,
    MERGE,
    TREE_COST,
    *(
        f"CREATE TRIGGER count_usage_{event} AFTER {event} ON usage_records {rows}"
        " FOR EACH STATEMENT EXECUTE FUNCTION count_usage()"
        for event, rows in TRIGGERS.items()
    ),
)

LOG = """
CREATE OR REPLACE FUNCTION log_{}() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
AS $${}$$
"""


def upgrade() -> None:
    op.add_column("ai_models", sa.Column("cache_creation_price", sa.Numeric(18, 9)))
    op.drop_constraint(op.f("ck_ai_models_prices_not_negative"), "ai_models")
    op.create_check_constraint(
        op.f("ck_ai_models_prices_not_negative"),
        "ai_models",
        "least(input_price, cached_input_price, cache_creation_price, output_price) >= 0",
    )
    op.add_column("usage_records", sa.Column("model_name", sa.String(255)))
    op.add_column(
        "usage_records",
        sa.Column(
            "cache_creation_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False
        ),
    )
    op.add_column("usage_records", sa.Column("trace_id", sa.String(32)))
    op.add_column("usage_records", sa.Column("span_id", sa.String(16)))
    # The names follow from what is there, and are not events.
    op.execute("ALTER TABLE usage_records DISABLE TRIGGER USER")
    op.execute("UPDATE usage_records SET model_name = model_id")
    op.execute("ALTER TABLE usage_records ENABLE TRIGGER USER")
    op.alter_column("usage_records", "model_name", nullable=False)
    op.alter_column("usage_records", "model_id", nullable=True)
    op.drop_constraint(op.f("ck_usage_records_tokens_not_negative"), "usage_records")
    op.drop_constraint(op.f("ck_usage_records_cached_tokens_are_input"), "usage_records")
    for name, condition in {
        "tokens_not_negative": "least(input_tokens, cached_input_tokens, cache_creation_tokens,"
        " output_tokens, reasoning_tokens) >= 0",
        "cached_tokens_are_input": "cached_input_tokens::bigint + cache_creation_tokens"
        " <= input_tokens",
        "trace_id_form": "trace_id ~ '^[0-9a-f]{32}$'",
        "span_id_form": "span_id ~ '^[0-9a-f]{16}$'",
    }.items():
        op.create_check_constraint(op.f(f"ck_usage_records_{name}"), "usage_records", condition)
    op.create_index(
        op.f("ix_usage_records_trace_id"),
        "usage_records",
        ["trace_id"],
        postgresql_where=sa.text("trace_id IS NOT NULL"),
    )
    op.create_index(
        "ix_usage_records_unpriced",
        "usage_records",
        ["project_id", "occurred_at", "id"],
        postgresql_where=sa.text("cost IS NULL OR model_id IS NULL"),
    )
    totals()
    op.execute(ADD.format(names=NAMES, rows=ADDED.format("usage_records")))
    for statement in MADE:
        op.get_bind().exec_driver_sql(statement)
    for table, (_, body) in LOGGED.items():
        op.get_bind().exec_driver_sql(LOG.format(table, body))


def totals() -> None:
    """Make the table of the sums."""
    op.create_table(
        "usage_totals",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("model_name", sa.String(255), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.Column("cost", sa.Numeric(30, 9), nullable=False),
        sa.Column("is_merged", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.CheckConstraint("isfinite(hour)", name=op.f("ck_usage_totals_hour_finite")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_totals")),
    )
    op.create_index(
        "uq_usage_totals_merged",
        "usage_totals",
        ["project_id", "hour", "agent_id", "model_name", "task_id", "user_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("is_merged"),
    )
    op.create_index(
        "ix_usage_totals_new",
        "usage_totals",
        ["id"],
        postgresql_where=sa.text("NOT is_merged"),
    )
    op.create_index(op.f("ix_usage_totals_project_id_hour"), "usage_totals", ["project_id", "hour"])
    for column in ("agent_id", "task_id"):
        op.create_index(
            op.f(f"ix_usage_totals_{column}"),
            "usage_totals",
            [column],
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def downgrade() -> None:
    # A call of a model that is not registered cannot be kept without its name.
    op.execute("DELETE FROM usage_records WHERE model_id IS NULL")
    for event in TRIGGERS:
        op.execute(f"DROP TRIGGER count_usage_{event} ON usage_records")
    op.execute("DROP FUNCTION task_tree_cost(uuid)")
    op.execute("DROP FUNCTION merge_usage_totals(integer)")
    op.execute("DROP FUNCTION count_usage()")
    op.drop_table("usage_totals")
    op.drop_index("ix_usage_records_unpriced", table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_trace_id"), table_name="usage_records")
    for name in (
        "span_id_form",
        "trace_id_form",
        "cached_tokens_are_input",
        "tokens_not_negative",
    ):
        op.drop_constraint(op.f(f"ck_usage_records_{name}"), "usage_records")
    op.alter_column("usage_records", "model_id", nullable=False)
    for column in ("span_id", "trace_id", "cache_creation_tokens", "model_name"):
        op.drop_column("usage_records", column)
    op.create_check_constraint(
        op.f("ck_usage_records_cached_tokens_are_input"),
        "usage_records",
        "cached_input_tokens <= input_tokens",
    )
    op.create_check_constraint(
        op.f("ck_usage_records_tokens_not_negative"),
        "usage_records",
        "least(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) >= 0",
    )
    op.drop_constraint(op.f("ck_ai_models_prices_not_negative"), "ai_models")
    op.drop_column("ai_models", "cache_creation_price")
    op.create_check_constraint(
        op.f("ck_ai_models_prices_not_negative"),
        "ai_models",
        "least(input_price, cached_input_price, output_price) >= 0",
    )
    for table, (body, _) in LOGGED.items():
        op.get_bind().exec_driver_sql(LOG.format(table, body))


# The bodies of the functions that log the changes of each table: before, and from now on.
LOGGED = {
    "ai_models": (
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.model_version IS NULL THEN 'model_version' END, CASE WHEN
        n.context_window IS NULL THEN 'context_window' END, CASE WHEN n.input_price IS NULL
        THEN 'input_price' END, CASE WHEN n.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN n.output_price IS NULL THEN 'output_price' END
      ]
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, output_price, is_local, status, model_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(o.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(o.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(o.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        o.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(o.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(o.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(o.cached_input_price)::text, 'null')
        END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(o.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || o.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || o.model_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(n.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(n.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(n.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        n.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(n.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(n.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(n.cached_input_price)::text, 'null')
        END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(n.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || n.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || n.model_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.created_at, o.id, o.provider, o.model_version, o.capabilities, o.context_window,
      o.input_price, o.cached_input_price, o.output_price, o.is_local, o.status,
      o.model_metadata),
      ROW(n.created_at, n.id, n.provider, n.model_version, n.capabilities, n.context_window,
      n.input_price, n.cached_input_price, n.output_price, n.is_local, n.status,
      n.model_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.model_version IS NULL THEN 'model_version' END, CASE WHEN
        o.context_window IS NULL THEN 'context_window' END, CASE WHEN o.input_price IS NULL
        THEN 'input_price' END, CASE WHEN o.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN o.output_price IS NULL THEN 'output_price' END
      ],
      NULL
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, output_price, is_local, status, model_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.model_version IS NULL THEN 'model_version' END, CASE WHEN
        n.context_window IS NULL THEN 'context_window' END, CASE WHEN n.input_price IS NULL
        THEN 'input_price' END, CASE WHEN n.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN n.cache_creation_price IS NULL THEN
        'cache_creation_price' END, CASE WHEN n.output_price IS NULL THEN 'output_price' END
      ]
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, cache_creation_price, output_price, is_local,
             status, model_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(o.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(o.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(o.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        o.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(o.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(o.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(o.cached_input_price)::text, 'null')
        END, CASE WHEN o.cache_creation_price IS DISTINCT FROM n.cache_creation_price THEN
        ',"cache_creation_price":' || coalesce(to_json(o.cache_creation_price)::text,
        'null') END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(o.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || o.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || o.model_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(n.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(n.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(n.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        n.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(n.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(n.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(n.cached_input_price)::text, 'null')
        END, CASE WHEN o.cache_creation_price IS DISTINCT FROM n.cache_creation_price THEN
        ',"cache_creation_price":' || coalesce(to_json(n.cache_creation_price)::text,
        'null') END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(n.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || n.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || n.model_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.created_at, o.id, o.provider, o.model_version, o.capabilities, o.context_window,
      o.input_price, o.cached_input_price, o.cache_creation_price, o.output_price,
      o.is_local, o.status, o.model_metadata),
      ROW(n.created_at, n.id, n.provider, n.model_version, n.capabilities, n.context_window,
      n.input_price, n.cached_input_price, n.cache_creation_price, n.output_price,
      n.is_local, n.status, n.model_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.model_version IS NULL THEN 'model_version' END, CASE WHEN
        o.context_window IS NULL THEN 'context_window' END, CASE WHEN o.input_price IS NULL
        THEN 'input_price' END, CASE WHEN o.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN o.cache_creation_price IS NULL THEN
        'cache_creation_price' END, CASE WHEN o.output_price IS NULL THEN 'output_price' END
      ],
      NULL
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, cache_creation_price, output_price, is_local,
             status, model_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    ),
    "usage_records": (
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'UsageRecord',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.task_id IS NULL THEN
        'task_id' END, CASE WHEN n.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN
        n.conversation_id IS NULL THEN 'conversation_id' END, CASE WHEN n.message_id IS NULL
        THEN 'message_id' END, CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN
        n.cost IS NULL THEN 'cost' END, CASE WHEN n.latency_ms IS NULL THEN 'latency_ms'
        END, CASE WHEN n.request_id IS NULL THEN 'request_id' END
      ]
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, input_tokens, cached_input_tokens,
             output_tokens, reasoning_tokens, cost, latency_ms, success, request_id,
             occurred_at
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'UsageRecord',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || to_json(o.model_id)::text END, CASE WHEN o.project_id IS
        DISTINCT FROM n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END,
        CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"'
        || o.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id
        THEN ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN
        o.attempt_id IS DISTINCT FROM n.attempt_id THEN ',"attempt_id":' || coalesce('"' ||
        o.attempt_id || '"', 'null') END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || coalesce('"' || o.conversation_id ||
        '"', 'null') END, CASE WHEN o.message_id IS DISTINCT FROM n.message_id THEN
        ',"message_id":' || coalesce('"' || o.message_id || '"', 'null') END, CASE WHEN
        o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || o.user_id
        || '"', 'null') END, CASE WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN
        ',"input_tokens":' || o.input_tokens::text END, CASE WHEN o.cached_input_tokens IS
        DISTINCT FROM n.cached_input_tokens THEN ',"cached_input_tokens":' ||
        o.cached_input_tokens::text END, CASE WHEN o.output_tokens IS DISTINCT FROM
        n.output_tokens THEN ',"output_tokens":' || o.output_tokens::text END, CASE WHEN
        o.reasoning_tokens IS DISTINCT FROM n.reasoning_tokens THEN ',"reasoning_tokens":'
        || o.reasoning_tokens::text END, CASE WHEN o.cost IS DISTINCT FROM n.cost THEN
        ',"cost":' || coalesce(to_json(o.cost)::text, 'null') END, CASE WHEN o.latency_ms IS
        DISTINCT FROM n.latency_ms THEN ',"latency_ms":' || coalesce(o.latency_ms::text,
        'null') END, CASE WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' ||
        o.success::text END, CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN
        ',"request_id":' || coalesce(to_json(o.request_id)::text, 'null') END, CASE WHEN
        o.occurred_at IS DISTINCT FROM n.occurred_at THEN ',"occurred_at":' ||
        to_json(o.occurred_at)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || to_json(n.model_id)::text END, CASE WHEN o.project_id IS
        DISTINCT FROM n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END,
        CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"'
        || n.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id
        THEN ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN
        o.attempt_id IS DISTINCT FROM n.attempt_id THEN ',"attempt_id":' || coalesce('"' ||
        n.attempt_id || '"', 'null') END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || coalesce('"' || n.conversation_id ||
        '"', 'null') END, CASE WHEN o.message_id IS DISTINCT FROM n.message_id THEN
        ',"message_id":' || coalesce('"' || n.message_id || '"', 'null') END, CASE WHEN
        o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || n.user_id
        || '"', 'null') END, CASE WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN
        ',"input_tokens":' || n.input_tokens::text END, CASE WHEN o.cached_input_tokens IS
        DISTINCT FROM n.cached_input_tokens THEN ',"cached_input_tokens":' ||
        n.cached_input_tokens::text END, CASE WHEN o.output_tokens IS DISTINCT FROM
        n.output_tokens THEN ',"output_tokens":' || n.output_tokens::text END, CASE WHEN
        o.reasoning_tokens IS DISTINCT FROM n.reasoning_tokens THEN ',"reasoning_tokens":'
        || n.reasoning_tokens::text END, CASE WHEN o.cost IS DISTINCT FROM n.cost THEN
        ',"cost":' || coalesce(to_json(n.cost)::text, 'null') END, CASE WHEN o.latency_ms IS
        DISTINCT FROM n.latency_ms THEN ',"latency_ms":' || coalesce(n.latency_ms::text,
        'null') END, CASE WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' ||
        n.success::text END, CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN
        ',"request_id":' || coalesce(to_json(n.request_id)::text, 'null') END, CASE WHEN
        o.occurred_at IS DISTINCT FROM n.occurred_at THEN ',"occurred_at":' ||
        to_json(n.occurred_at)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.model_id, o.project_id, o.agent_id, o.task_id, o.attempt_id,
      o.conversation_id, o.message_id, o.user_id, o.input_tokens, o.cached_input_tokens,
      o.output_tokens, o.reasoning_tokens, o.cost, o.latency_ms, o.success, o.request_id,
      o.occurred_at),
      ROW(n.id, n.created_at, n.model_id, n.project_id, n.agent_id, n.task_id, n.attempt_id,
      n.conversation_id, n.message_id, n.user_id, n.input_tokens, n.cached_input_tokens,
      n.output_tokens, n.reasoning_tokens, n.cost, n.latency_ms, n.success, n.request_id,
      n.occurred_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'UsageRecord',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.task_id IS NULL THEN
        'task_id' END, CASE WHEN o.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN
        o.conversation_id IS NULL THEN 'conversation_id' END, CASE WHEN o.message_id IS NULL
        THEN 'message_id' END, CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN
        o.cost IS NULL THEN 'cost' END, CASE WHEN o.latency_ms IS NULL THEN 'latency_ms'
        END, CASE WHEN o.request_id IS NULL THEN 'request_id' END
      ],
      NULL
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, input_tokens, cached_input_tokens,
             output_tokens, reasoning_tokens, cost, latency_ms, success, request_id,
             occurred_at
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'UsageRecord',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN
        n.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN n.conversation_id IS NULL THEN
        'conversation_id' END, CASE WHEN n.message_id IS NULL THEN 'message_id' END, CASE
        WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.cost IS NULL THEN 'cost' END,
        CASE WHEN n.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN n.request_id IS NULL
        THEN 'request_id' END, CASE WHEN n.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
        n.span_id IS NULL THEN 'span_id' END
      ]
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, model_name, input_tokens,
             cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
             cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'UsageRecord',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
        o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
        o.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
        o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || o.task_id
        || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
        ',"attempt_id":' || coalesce('"' || o.attempt_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
        DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || o.message_id ||
        '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
        || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
        FROM n.model_name THEN ',"model_name":' || to_json(o.model_name)::text END, CASE
        WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
        o.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
        n.cached_input_tokens THEN ',"cached_input_tokens":' || o.cached_input_tokens::text
        END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
        ',"cache_creation_tokens":' || o.cache_creation_tokens::text END, CASE WHEN
        o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
        o.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
        n.reasoning_tokens THEN ',"reasoning_tokens":' || o.reasoning_tokens::text END, CASE
        WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
        coalesce(to_json(o.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
        n.latency_ms THEN ',"latency_ms":' || coalesce(o.latency_ms::text, 'null') END, CASE
        WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || o.success::text END,
        CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
        coalesce(to_json(o.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
        FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(o.trace_id)::text, 'null')
        END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
        coalesce(to_json(o.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
        FROM n.occurred_at THEN ',"occurred_at":' || to_json(o.occurred_at)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
        o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
        n.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
        o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || n.task_id
        || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
        ',"attempt_id":' || coalesce('"' || n.attempt_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
        DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || n.message_id ||
        '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
        || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
        FROM n.model_name THEN ',"model_name":' || to_json(n.model_name)::text END, CASE
        WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
        n.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
        n.cached_input_tokens THEN ',"cached_input_tokens":' || n.cached_input_tokens::text
        END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
        ',"cache_creation_tokens":' || n.cache_creation_tokens::text END, CASE WHEN
        o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
        n.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
        n.reasoning_tokens THEN ',"reasoning_tokens":' || n.reasoning_tokens::text END, CASE
        WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
        coalesce(to_json(n.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
        n.latency_ms THEN ',"latency_ms":' || coalesce(n.latency_ms::text, 'null') END, CASE
        WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || n.success::text END,
        CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
        coalesce(to_json(n.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
        FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(n.trace_id)::text, 'null')
        END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
        coalesce(to_json(n.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
        FROM n.occurred_at THEN ',"occurred_at":' || to_json(n.occurred_at)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.model_id, o.project_id, o.agent_id, o.task_id, o.attempt_id,
      o.conversation_id, o.message_id, o.user_id, o.model_name, o.input_tokens,
      o.cached_input_tokens, o.cache_creation_tokens, o.output_tokens, o.reasoning_tokens,
      o.cost, o.latency_ms, o.success, o.request_id, o.trace_id, o.span_id, o.occurred_at),
      ROW(n.id, n.created_at, n.model_id, n.project_id, n.agent_id, n.task_id, n.attempt_id,
      n.conversation_id, n.message_id, n.user_id, n.model_name, n.input_tokens,
      n.cached_input_tokens, n.cache_creation_tokens, n.output_tokens, n.reasoning_tokens,
      n.cost, n.latency_ms, n.success, n.request_id, n.trace_id, n.span_id, n.occurred_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'UsageRecord',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN
        o.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN o.conversation_id IS NULL THEN
        'conversation_id' END, CASE WHEN o.message_id IS NULL THEN 'message_id' END, CASE
        WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.cost IS NULL THEN 'cost' END,
        CASE WHEN o.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN o.request_id IS NULL
        THEN 'request_id' END, CASE WHEN o.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
        o.span_id IS NULL THEN 'span_id' END
      ],
      NULL
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, model_name, input_tokens,
             cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
             cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    ),
}
