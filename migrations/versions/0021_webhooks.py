"""Webhooks, their queues, and what they are sent. No event is about a delivery."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("description", sa.String(length=255), nullable=True),
        sa.Column(
            "entity_types",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'::text[]"),
            nullable=False,
        ),
        sa.Column(
            "entity_ids",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'::text[]"),
            nullable=False,
        ),
        sa.Column(
            "actions",
            sa.ARRAY(
                sa.Enum(
                    "CREATED",
                    "UPDATED",
                    "DELETED",
                    name="event_action",
                    native_enum=False,
                    length=100,
                )
            ),
            server_default=sa.text("'{}'::character varying[]"),
            nullable=False,
        ),
        sa.Column(
            "actor_types",
            sa.ARRAY(sa.Enum("USER", "AGENT", name="actor_type", native_enum=False, length=100)),
            server_default=sa.text("'{}'::character varying[]"),
            nullable=False,
        ),
        sa.Column(
            "actor_ids",
            sa.ARRAY(sa.Text()),
            server_default=sa.text("'{}'::text[]"),
            nullable=False,
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "end_reason",
            sa.Enum(
                "GONE",
                "FAILING",
                name="webhook_end",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("secret", sa.String(length=255), nullable=False),
        sa.Column("old_secret", sa.String(length=255), nullable=True),
        sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "actions <@ ARRAY['CREATED', 'UPDATED', 'DELETED']::varchar[]",
            name=op.f("ck_webhooks_actions"),
        ),
        sa.CheckConstraint(
            "actor_types <@ ARRAY['USER', 'AGENT']::varchar[]", name=op.f("ck_webhooks_actor_types")
        ),
        sa.CheckConstraint(
            "NOT (is_active AND end_reason IS NOT NULL)", name=op.f("ck_webhooks_ended")
        ),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_webhooks_created_at_finite")),
        sa.CheckConstraint(
            "isfinite(failing_since)", name=op.f("ck_webhooks_failing_since_finite")
        ),
        sa.CheckConstraint(
            "isfinite(old_secret_until)", name=op.f("ck_webhooks_old_secret_until_finite")
        ),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_webhooks_updated_at_finite")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_webhooks_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )
    op.create_index(
        op.f("ix_webhooks_created_at_id"), "webhooks", ["created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_webhooks_project_id_created_at_id"),
        "webhooks",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_webhooks_updated_at_id"), "webhooks", ["updated_at", "id"], unique=False
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "updated_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("entity_type", sa.String(length=255), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column(
            "action",
            sa.Enum(
                "CREATED",
                "UPDATED",
                "DELETED",
                name="event_action",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column(
            "occurred_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "SUCCEEDED",
                "FAILED",
                "CANCELLED",
                name="delivery_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="PENDING",
            nullable=False,
        ),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "attempts",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'::jsonb"),
            nullable=False,
        ),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(status = 'PENDING') = (next_attempt_at IS NOT NULL)",
            name=op.f("ck_webhook_deliveries_pending"),
        ),
        sa.CheckConstraint(
            "jsonb_typeof(attempts) = 'array'", name=op.f("ck_webhook_deliveries_attempts_list")
        ),
        sa.CheckConstraint(
            "isfinite(created_at)", name=op.f("ck_webhook_deliveries_created_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(next_attempt_at)", name=op.f("ck_webhook_deliveries_next_attempt_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(occurred_at)", name=op.f("ck_webhook_deliveries_occurred_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(updated_at)", name=op.f("ck_webhook_deliveries_updated_at_finite")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_deliveries_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "webhook_id", "position", name=op.f("uq_webhook_deliveries_webhook_id_position")
        ),
        info={"logged": False},
    )
    op.create_index(
        op.f("ix_webhook_deliveries_created_at_id"),
        "webhook_deliveries",
        ["created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_webhook_deliveries_due",
        "webhook_deliveries",
        ["webhook_id", "next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["webhook_id", sa.literal_column("position NULLS FIRST")],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_webhook_deliveries_updated_at_id"),
        "webhook_deliveries",
        ["updated_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_webhook_deliveries_webhook_id_created_at_id"),
        "webhook_deliveries",
        ["webhook_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "webhook_queues",
        sa.Column("webhook_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.Uuid(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "isfinite(lease_expires_at)", name=op.f("ck_webhook_queues_lease_expires_at_finite")
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name=op.f("fk_webhook_queues_webhook_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("webhook_id", name=op.f("pk_webhook_queues")),
        info={"logged": False},
    )
    op.execute("""CREATE OR REPLACE FUNCTION log_webhooks() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Webhook',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.description IS NULL THEN 'description' END, CASE WHEN n.end_reason IS
            NULL THEN 'end_reason' END
          ]
        FROM (
          SELECT id, created_at, project_id, url, description, entity_types, entity_ids,
                 actions, actor_types, actor_ids, is_active, end_reason
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        IF EXISTS (SELECT FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.url, o.description, o.entity_types, o.entity_ids,
          o.actions, o.actor_types, o.actor_ids, o.is_active, o.end_reason),
          ROW(n.id, n.created_at, n.project_id, n.url, n.description, n.entity_types, n.entity_ids,
          n.actions, n.actor_types, n.actor_ids, n.is_active, n.end_reason)
        )) THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Webhook',
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
            o.url IS DISTINCT FROM n.url THEN ',"url":' || to_json(o.url)::text END, CASE WHEN
            o.description IS DISTINCT FROM n.description THEN ',"description":' ||
            coalesce(to_json(o.description)::text, 'null') END, CASE WHEN o.entity_types IS
            DISTINCT FROM n.entity_types THEN ',"entity_types":' ||
            to_json(o.entity_types)::text END, CASE WHEN o.entity_ids IS DISTINCT FROM
            n.entity_ids THEN ',"entity_ids":' || to_json(o.entity_ids)::text END, CASE WHEN
            o.actions IS DISTINCT FROM n.actions THEN ',"actions":' || to_json(o.actions)::text
            END, CASE WHEN o.actor_types IS DISTINCT FROM n.actor_types THEN ',"actor_types":'
            || to_json(o.actor_types)::text END, CASE WHEN o.actor_ids IS DISTINCT FROM
            n.actor_ids THEN ',"actor_ids":' || to_json(o.actor_ids)::text END, CASE WHEN
            o.is_active IS DISTINCT FROM n.is_active THEN ',"is_active":' || o.is_active::text
            END, CASE WHEN o.end_reason IS DISTINCT FROM n.end_reason THEN ',"end_reason":' ||
            coalesce('"' || o.end_reason || '"', 'null') END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.url IS DISTINCT FROM n.url THEN ',"url":' || to_json(n.url)::text END, CASE WHEN
            o.description IS DISTINCT FROM n.description THEN ',"description":' ||
            coalesce(to_json(n.description)::text, 'null') END, CASE WHEN o.entity_types IS
            DISTINCT FROM n.entity_types THEN ',"entity_types":' ||
            to_json(n.entity_types)::text END, CASE WHEN o.entity_ids IS DISTINCT FROM
            n.entity_ids THEN ',"entity_ids":' || to_json(n.entity_ids)::text END, CASE WHEN
            o.actions IS DISTINCT FROM n.actions THEN ',"actions":' || to_json(n.actions)::text
            END, CASE WHEN o.actor_types IS DISTINCT FROM n.actor_types THEN ',"actor_types":'
            || to_json(n.actor_types)::text END, CASE WHEN o.actor_ids IS DISTINCT FROM
            n.actor_ids THEN ',"actor_ids":' || to_json(n.actor_ids)::text END, CASE WHEN
            o.is_active IS DISTINCT FROM n.is_active THEN ',"is_active":' || n.is_active::text
            END, CASE WHEN o.end_reason IS DISTINCT FROM n.end_reason THEN ',"end_reason":' ||
            coalesce('"' || n.end_reason || '"', 'null') END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.url, o.description, o.entity_types, o.entity_ids,
          o.actions, o.actor_types, o.actor_ids, o.is_active, o.end_reason),
          ROW(n.id, n.created_at, n.project_id, n.url, n.description, n.entity_types, n.entity_ids,
          n.actions, n.actor_types, n.actor_ids, n.is_active, n.end_reason)
        );
        END IF;
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Webhook',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.end_reason IS
            NULL THEN 'end_reason' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, url, description, entity_types, entity_ids,
                 actions, actor_types, actor_ids, is_active, end_reason
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE TRIGGER log_insert AFTER INSERT ON webhooks
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_webhooks()""")
    op.execute("""CREATE TRIGGER log_update AFTER UPDATE ON webhooks
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_webhooks()""")
    op.execute("""CREATE TRIGGER log_delete AFTER DELETE ON webhooks
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_webhooks()""")
    op.execute("""CREATE TRIGGER log_truncate BEFORE TRUNCATE ON webhooks
    FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()""")


def downgrade() -> None:
    op.execute("""DROP TRIGGER log_truncate ON webhooks""")
    op.execute("""DROP FUNCTION log_webhooks() CASCADE""")
    op.drop_table("webhook_queues")
    op.drop_index(
        op.f("ix_webhook_deliveries_webhook_id_created_at_id"), table_name="webhook_deliveries"
    )
    op.drop_index(op.f("ix_webhook_deliveries_updated_at_id"), table_name="webhook_deliveries")
    op.drop_index(
        "ix_webhook_deliveries_pending",
        table_name="webhook_deliveries",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.drop_index(
        "ix_webhook_deliveries_due",
        table_name="webhook_deliveries",
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.drop_index(op.f("ix_webhook_deliveries_created_at_id"), table_name="webhook_deliveries")
    op.drop_table("webhook_deliveries")
    op.drop_index(op.f("ix_webhooks_updated_at_id"), table_name="webhooks")
    op.drop_index(op.f("ix_webhooks_project_id_created_at_id"), table_name="webhooks")
    op.drop_index(op.f("ix_webhooks_created_at_id"), table_name="webhooks")
    op.drop_table("webhooks")
