"""Writes take less time: functions that PostgreSQL runs for each of them are made anew.

`count_usage` counts for the totals and for budgets: in a project without budgets, the latter is one
lookup. Before, each change of the totals ran a second trigger. New totals are found by the primary
key, which takes the place of an index of their own.

`search_vector` is compiled once for each connection. As an SQL function, it was part of the
statement, so that each insert of messages parsed its long expressions.

The event log first looks whether any logged column was changed, for tables with columns that are
not logged.
"""

import importlib

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

search = importlib.import_module("migrations.versions.0004_search")
usage = importlib.import_module("migrations.versions.0014_usage")
budgets = importlib.import_module("migrations.versions.0015_budgets")

# The totals of one record.
ALONE = """
      SELECT date_trunc('hour', occurred_at, 'UTC'), project_id, agent_id, model_name, task_id,
        user_id, input_tokens, cached_input_tokens, cache_creation_tokens, output_tokens,
        reasoning_tokens, 1, (NOT success)::integer, (cost IS NULL)::integer, coalesce(cost, 0)
      FROM new_rows"""

# The sums of records by hour and keys, of each record times its sign.
SUMMED = """
      SELECT date_trunc('hour', occurred_at, 'UTC') AS hour, project_id, agent_id, model_name,
        task_id, user_id, {tokens},
        sum(sign) AS calls, sum(sign * (NOT success)::integer) AS failures,
        sum(sign * (cost IS NULL)::integer) AS unpriced_calls,
        sum(sign * coalesce(cost, 0)) AS cost
      FROM ({rows}) changed
      GROUP BY 1, 2, 3, 4, 5, 6"""
TOKENS = ", ".join(f"sum(sign * {name}) AS {name}" for name in usage.SUMS[:5])
ADDED = "SELECT 1 AS sign, * FROM new_rows"
REMOVED = "SELECT -1 AS sign, * FROM old_rows"

INSERT = """
    INSERT INTO usage_totals (
      hour, project_id, agent_id, model_name, task_id, user_id, {names}
    ){rows};"""

# Who makes a budget keeps others from counting usage of its project (`open_budgets`). Whether there
# is a budget is looked up by a statement of its own after the lock, so that it sees what was
# committed before.
COUNTED = """
    PERFORM pg_advisory_xact_lock_shared(hashtext('budgets'), hashtext(project_id::text))
    FROM (SELECT project_id FROM ({rows}) changed ORDER BY 1) projects;{added}
    IF EXISTS (
      SELECT FROM budgets WHERE project_id IN (SELECT project_id FROM ({rows}) changed)
    ) THEN{counting};
    END IF;"""

# Sums take longer to prepare than one row to insert.
ONE_OR_MORE = """
    GET DIAGNOSTICS locked = ROW_COUNT;
    IF locked = 1 THEN{one}
    ELSE{more}
    END IF;"""


def counted(rows: str) -> str:
    """The statements that count these records."""
    summed = SUMMED.format(rows=rows, tokens=TOKENS)
    added = INSERT.format(names=usage.NAMES, rows=summed)
    if rows == ADDED:
        one = INSERT.format(names=usage.NAMES, rows=ALONE)
        added = ONE_OR_MORE.format(one=one, more=added)
    counting = budgets.COUNTING.format(totals=f"({summed}\n      )", condition="true")
    return COUNTED.format(rows=rows, added=added, counting=counting)


COUNT = f"""
CREATE OR REPLACE FUNCTION count_usage() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET enable_seqscan = off AS $$
DECLARE
  locked bigint;
BEGIN
  IF TG_OP = 'INSERT' THEN{counted(ADDED)}
  ELSIF TG_OP = 'DELETE' THEN{counted(REMOVED)}
  ELSE{counted(f"{ADDED} UNION ALL {REMOVED}")}
  END IF;
  RETURN NULL;
END
$$
"""

# Does nothing while another process merges, as both would update the same rows. Rows of which
# nothing is left are deleted.
MERGE = """
CREATE OR REPLACE FUNCTION merge_usage_totals(most integer) RETURNS bigint LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  merged bigint;
  empty bigint[];
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtext('merge_usage_totals')) THEN
    RETURN 0;
  END IF;
  WITH taken AS (
    DELETE FROM usage_totals WHERE NOT is_merged AND id IN (
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
  DELETE FROM usage_totals WHERE is_merged AND id = ANY(empty);
  RETURN merged;
END
$$
"""
MERGE = MERGE.replace("{names}", usage.NAMES)
MERGE = MERGE.replace("{sums}", ", ".join(f"sum({name})" for name in (*usage.SUMS, "cost")))
MERGE = MERGE.replace(
    "{added}",
    ",\n      ".join(
        f"{name} = usage_totals.{name} + excluded.{name}" for name in (*usage.SUMS, "cost")
    ),
)

SEARCH = rf"""to_tsvector('simple', left(
  regexp_replace(
    regexp_replace(
      folded(normalize(
        regexp_replace(
          regexp_replace(left(value, 100000), '[{search.HIDDEN}]', '', 'g'),
          '[!-/:-@\[-`{{-~{search.SEPARATOR}]', ' ', 'g'
        ),
        NFKC
      )),
      '[{search.UNPARTED}]+', ' \& ', 'g'
    ),
    '[{search.UNPARTED}]', '\& \&', 'g'
  ),
  200000
))"""
SEARCH_VECTOR = f"""
CREATE OR REPLACE FUNCTION search_vector(value text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
BEGIN
  RETURN {SEARCH};
END
$$
"""

# What is made besides tables, after what earlier migrations have made.
MADE = (
    "DROP TRIGGER count_budgets ON usage_totals",
    "DROP FUNCTION count_budgets()",
    COUNT,
    MERGE,
    SEARCH_VECTOR,
)

LOG = """
CREATE OR REPLACE FUNCTION log_{}() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
AS $${}$$
"""


def upgrade() -> None:
    run(*MADE, *(LOG.format(table, body) for table, (_, body) in LOGGED.items()))
    op.drop_index("ix_usage_totals_new", table_name="usage_totals")
    primary_key("is_merged", "id")


def run(*statements: str) -> None:
    """Run statements as they are: a colon or a percent sign in them has no meaning."""
    for statement in statements:
        op.get_bind().exec_driver_sql(statement)


def primary_key(*columns: str) -> None:
    """Make the primary key of the totals anew."""
    op.drop_constraint(op.f("pk_usage_totals"), "usage_totals")
    op.create_primary_key(op.f("pk_usage_totals"), "usage_totals", list(columns))


def downgrade() -> None:
    primary_key("id")
    op.create_index(
        "ix_usage_totals_new",
        "usage_totals",
        ["id"],
        postgresql_where=sa.text("NOT is_merged"),
    )
    run(*(LOG.format(table, body) for table, (body, _) in LOGGED.items()))
    run(
        "CREATE OR REPLACE FUNCTION search_vector(value text) RETURNS tsvector"
        f" LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN {SEARCH}",
        *(each.replace("CREATE", "CREATE OR REPLACE", 1) for each in (usage.COUNT, usage.MERGE)),
        budgets.COUNT,
        "CREATE TRIGGER count_budgets AFTER INSERT ON usage_totals"
        " REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION count_budgets()",
    )


# The bodies of the functions that log the changes of each table: before, and from now on.
LOGGED = {
    "users": (
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      n.id,
      'User',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.display_name IS NULL THEN 'display_name' END
      ]
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      coalesce(n.id, o.id),
      'User',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(o.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(o.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(o.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || o.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || o.is_active::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(n.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(n.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(n.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || n.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || n.is_active::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.username, o.email, o.display_name, o.role, o.is_active),
      ROW(n.id, n.created_at, n.username, n.email, n.display_name, n.role, n.is_active)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      o.id,
      'User',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.display_name IS NULL THEN 'display_name' END
      ],
      NULL
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
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
      n.id,
      'User',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.display_name IS NULL THEN 'display_name' END
      ]
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    IF EXISTS (SELECT FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.username, o.email, o.display_name, o.role, o.is_active),
      ROW(n.id, n.created_at, n.username, n.email, n.display_name, n.role, n.is_active)
    )) THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      coalesce(n.id, o.id),
      'User',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(o.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(o.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(o.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || o.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || o.is_active::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(n.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(n.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(n.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || n.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || n.is_active::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.username, o.email, o.display_name, o.role, o.is_active),
      ROW(n.id, n.created_at, n.username, n.email, n.display_name, n.role, n.is_active)
    );
    END IF;
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      o.id,
      'User',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.display_name IS NULL THEN 'display_name' END
      ],
      NULL
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    ),
    "access_tokens": (
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN n.agent_id
        ELSE coalesce(p.owner_id, n.user_id)
      END,
      'AccessToken',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        n.revoked_at IS NULL THEN 'revoked_at' END
      ]
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = n.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = n.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN coalesce(n.agent_id, o.agent_id)
        ELSE coalesce(p.owner_id, coalesce(n.user_id, o.user_id))
      END,
      'AccessToken',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(o.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(o.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || o.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(o.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(o.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(n.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(n.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || n.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(n.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(n.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = coalesce(n.agent_id, o.agent_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = coalesce(n.agent_id, o.agent_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.name, o.prefix, o.user_id, o.agent_id, o.scopes, o.expires_at,
      o.revoked_at),
      ROW(n.id, n.created_at, n.name, n.prefix, n.user_id, n.agent_id, n.scopes, n.expires_at,
      n.revoked_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN o.agent_id
        ELSE coalesce(p.owner_id, o.user_id)
      END,
      'AccessToken',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        o.revoked_at IS NULL THEN 'revoked_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = o.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = o.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN n.agent_id
        ELSE coalesce(p.owner_id, n.user_id)
      END,
      'AccessToken',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        n.revoked_at IS NULL THEN 'revoked_at' END
      ]
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = n.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = n.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    IF EXISTS (SELECT FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.name, o.prefix, o.user_id, o.agent_id, o.scopes, o.expires_at,
      o.revoked_at),
      ROW(n.id, n.created_at, n.name, n.prefix, n.user_id, n.agent_id, n.scopes, n.expires_at,
      n.revoked_at)
    )) THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN coalesce(n.agent_id, o.agent_id)
        ELSE coalesce(p.owner_id, coalesce(n.user_id, o.user_id))
      END,
      'AccessToken',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(o.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(o.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || o.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(o.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(o.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(n.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(n.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || n.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(n.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(n.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = coalesce(n.agent_id, o.agent_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = coalesce(n.agent_id, o.agent_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.name, o.prefix, o.user_id, o.agent_id, o.scopes, o.expires_at,
      o.revoked_at),
      ROW(n.id, n.created_at, n.name, n.prefix, n.user_id, n.agent_id, n.scopes, n.expires_at,
      n.revoked_at)
    );
    END IF;
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN o.agent_id
        ELSE coalesce(p.owner_id, o.user_id)
      END,
      'AccessToken',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        o.revoked_at IS NULL THEN 'revoked_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = o.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = o.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    ),
    "conversations": (
        """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      n.user_id,
      'Conversation',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.project_id IS NULL THEN 'project_id' END, CASE WHEN n.user_id IS NULL
        THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        n.title IS NULL THEN 'title' END
      ]
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      coalesce(n.user_id, o.user_id),
      'Conversation',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || o.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(o.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(o.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(o.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || o.conversation_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || n.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(n.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(n.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(n.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || n.conversation_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.user_id, o.agent_id, o.title, o.summary,
      o.conversation_url, o.status, o.conversation_metadata),
      ROW(n.id, n.created_at, n.project_id, n.user_id, n.agent_id, n.title, n.summary,
      n.conversation_url, n.status, n.conversation_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      o.user_id,
      'Conversation',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.project_id IS NULL THEN 'project_id' END, CASE WHEN o.user_id IS NULL
        THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        o.title IS NULL THEN 'title' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = o.user_id
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
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
      n.user_id,
      'Conversation',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.project_id IS NULL THEN 'project_id' END, CASE WHEN n.user_id IS NULL
        THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        n.title IS NULL THEN 'title' END
      ]
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    IF EXISTS (SELECT FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.user_id, o.agent_id, o.title, o.summary,
      o.conversation_url, o.status, o.conversation_metadata),
      ROW(n.id, n.created_at, n.project_id, n.user_id, n.agent_id, n.title, n.summary,
      n.conversation_url, n.status, n.conversation_metadata)
    )) THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      coalesce(n.user_id, o.user_id),
      'Conversation',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || o.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(o.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(o.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(o.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || o.conversation_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || n.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(n.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(n.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(n.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || n.conversation_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.user_id, o.agent_id, o.title, o.summary,
      o.conversation_url, o.status, o.conversation_metadata),
      ROW(n.id, n.created_at, n.project_id, n.user_id, n.agent_id, n.title, n.summary,
      n.conversation_url, n.status, n.conversation_metadata)
    );
    END IF;
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      o.user_id,
      'Conversation',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.project_id IS NULL THEN 'project_id' END, CASE WHEN o.user_id IS NULL
        THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        o.title IS NULL THEN 'title' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = o.user_id
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
  END IF;
  RETURN NULL;
END
""",
    ),
}
