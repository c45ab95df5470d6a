"""Budgets can refuse usage."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

# Whether what is spent of one of these budgets has reached its limit. Whoever records usage for one
# of them waits here until others have, in the same order everywhere; the second statement then sees
# what they have spent. The rows are not locked: whoever deletes what a budget is for locks it
# first, and so would wait for whoever records usage for it, which waits for the deletion.
USED_UP = """
CREATE FUNCTION any_used_up(given uuid[]) RETURNS boolean LANGUAGE plpgsql VOLATILE STRICT
SET search_path FROM CURRENT AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('usage of a budget'), key)
  FROM (SELECT DISTINCT hashtext(id::text) AS key FROM unnest(given) id ORDER BY 1) keys;
  RETURN EXISTS (
    SELECT FROM budgets b WHERE b.id = ANY(given)
    AND budget_spent(b.id) >= coalesce(b.limit_cost, b.limit_tokens)
  );
END
$$
"""

# What is made besides tables.
MADE = (USED_UP,)

CHECK = "ck_budgets_only_hard_refuses"


def upgrade() -> None:
    op.add_column(
        "budgets",
        sa.Column("refuses_usage", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.create_check_constraint(op.f(CHECK), "budgets", "is_hard OR NOT refuses_usage")
    op.create_index(
        "ix_budgets_refusing",
        "budgets",
        ["project_id"],
        unique=False,
        postgresql_where=sa.text("refuses_usage"),
    )
    op.execute("""CREATE OR REPLACE FUNCTION log_budgets() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
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
                 limit_tokens, claim_reserve, is_hard, refuses_usage, thresholds
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
            END, CASE WHEN o.refuses_usage IS DISTINCT FROM n.refuses_usage THEN
            ',"refuses_usage":' || o.refuses_usage::text END, CASE WHEN o.thresholds IS DISTINCT
            FROM n.thresholds THEN ',"thresholds":' || to_json(o.thresholds)::text END
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
            END, CASE WHEN o.refuses_usage IS DISTINCT FROM n.refuses_usage THEN
            ',"refuses_usage":' || n.refuses_usage::text END, CASE WHEN o.thresholds IS DISTINCT
            FROM n.thresholds THEN ',"thresholds":' || to_json(n.thresholds)::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.agent_id, o.task_id, o.model_name, o.period,
          o.limit_cost, o.limit_tokens, o.claim_reserve, o.is_hard, o.refuses_usage,
          o.thresholds),
          ROW(n.id, n.created_at, n.project_id, n.agent_id, n.task_id, n.model_name, n.period,
          n.limit_cost, n.limit_tokens, n.claim_reserve, n.is_hard, n.refuses_usage,
          n.thresholds)
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
                 limit_tokens, claim_reserve, is_hard, refuses_usage, thresholds
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
    for statement in MADE:
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP FUNCTION any_used_up")
    op.execute("""CREATE OR REPLACE FUNCTION log_budgets() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
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
    $$""")
    op.drop_index("ix_budgets_refusing", table_name="budgets")
    op.drop_constraint(op.f(CHECK), "budgets")
    op.drop_column("budgets", "refuses_usage")
