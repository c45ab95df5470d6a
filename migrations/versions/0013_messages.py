"""Messages that are received with a lease or published to topics, and copies of chat messages."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "agent_subscriptions",
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
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.String(length=255), nullable=False),
        sa.CheckConstraint(
            "isfinite(created_at)", name=op.f("ck_agent_subscriptions_created_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(updated_at)", name=op.f("ck_agent_subscriptions_updated_at_finite")
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"],
            ["agents.id"],
            name=op.f("fk_agent_subscriptions_agent_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agent_subscriptions")),
        sa.UniqueConstraint(
            "agent_id", "topic", name=op.f("uq_agent_subscriptions_agent_id_topic")
        ),
    )
    op.create_index(
        op.f("ix_agent_subscriptions_topic_id"),
        "agent_subscriptions",
        ["topic", "id"],
        unique=False,
    )
    op.add_column("communications", sa.Column("topic", sa.String(length=255), nullable=True))
    op.add_column(
        "communications", sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True)
    )
    op.create_index(
        "ix_communications_expiring",
        "communications",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status IN ('SENT', 'DELIVERED') AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_communications_unacknowledged",
        "communications",
        ["to_agent_id", sa.literal_column("priority DESC"), "sent_at", "id"],
        unique=False,
        postgresql_where=sa.text("status IN ('SENT', 'DELIVERED')"),
    )
    op.add_column("messages", sa.Column("parent_message_id", sa.Uuid(), nullable=True))
    op.create_index(
        op.f("ix_messages_parent_message_id_sequence_id"),
        "messages",
        ["parent_message_id", "sequence", "id"],
        unique=False,
    )
    op.create_foreign_key(
        op.f("fk_messages_parent_message_id"),
        "messages",
        "messages",
        ["parent_message_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_check_constraint(
        op.f("ck_communications_lease_expires_at_finite"),
        "communications",
        "isfinite(lease_expires_at)",
    )
    op.execute("""
CREATE OR REPLACE FUNCTION log_agent_subscriptions() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
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
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'AgentSubscription',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n)
        FROM (
          SELECT id, created_at, agent_id, topic
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
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'AgentSubscription',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id
            THEN ',"agent_id":' || '"' || o.agent_id || '"' END, CASE WHEN o.topic IS DISTINCT
            FROM n.topic THEN ',"topic":' || to_json(o.topic)::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id
            THEN ',"agent_id":' || '"' || n.agent_id || '"' END, CASE WHEN o.topic IS DISTINCT
            FROM n.topic THEN ',"topic":' || to_json(n.topic)::text END
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
          ROW(o.id, o.created_at, o.agent_id, o.topic),
          ROW(n.id, n.created_at, n.agent_id, n.topic)
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
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'AgentSubscription',
          o.id::text,
          'DELETED',
          to_jsonb(o),
          NULL
        FROM (
          SELECT id, created_at, agent_id, topic
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
    $$""")
    op.execute("""CREATE TRIGGER log_insert AFTER INSERT ON agent_subscriptions
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_agent_subscriptions()""")
    op.execute("""CREATE TRIGGER log_update AFTER UPDATE ON agent_subscriptions
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_agent_subscriptions()""")
    op.execute("""CREATE TRIGGER log_delete AFTER DELETE ON agent_subscriptions
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_agent_subscriptions()""")
    op.execute("""CREATE TRIGGER log_truncate BEFORE TRUNCATE ON agent_subscriptions
    FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()""")
    op.execute("""
CREATE OR REPLACE FUNCTION log_communications() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Communication',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.topic IS NULL THEN 'topic' END, CASE WHEN n.correlation_id IS NULL THEN
            'correlation_id' END, CASE WHEN n.reply_to_id IS NULL THEN 'reply_to_id' END, CASE
            WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.delivered_at IS NULL THEN
            'delivered_at' END, CASE WHEN n.lease_expires_at IS NULL THEN 'lease_expires_at'
            END, CASE WHEN n.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN
            n.expires_at IS NULL THEN 'expires_at' END
          ]
        FROM (
          SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
                 priority, status, topic, correlation_id, reply_to_id, task_id, sent_at,
                 delivered_at, lease_expires_at, acknowledged_at, expires_at,
                 communication_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Communication',
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
            o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
            o.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
            THEN ',"to_agent_id":' || '"' || o.to_agent_id || '"' END, CASE WHEN o.type IS
            DISTINCT FROM n.type THEN ',"type":' || to_json(o.type)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
            ',"priority":' || o.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
            THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.topic IS DISTINCT FROM
            n.topic THEN ',"topic":' || coalesce(to_json(o.topic)::text, 'null') END, CASE WHEN
            o.correlation_id IS DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
            coalesce(to_json(o.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
            DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || o.reply_to_id
            || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN o.sent_at
            IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(o.sent_at)::text END, CASE
            WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
            coalesce(to_json(o.delivered_at)::text, 'null') END, CASE WHEN o.lease_expires_at IS
            DISTINCT FROM n.lease_expires_at THEN ',"lease_expires_at":' ||
            coalesce(to_json(o.lease_expires_at)::text, 'null') END, CASE WHEN o.acknowledged_at
            IS DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
            coalesce(to_json(o.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
            ',"communication_metadata":' || o.communication_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
            n.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
            THEN ',"to_agent_id":' || '"' || n.to_agent_id || '"' END, CASE WHEN o.type IS
            DISTINCT FROM n.type THEN ',"type":' || to_json(n.type)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
            ',"priority":' || n.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
            THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.topic IS DISTINCT FROM
            n.topic THEN ',"topic":' || coalesce(to_json(n.topic)::text, 'null') END, CASE WHEN
            o.correlation_id IS DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
            coalesce(to_json(n.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
            DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || n.reply_to_id
            || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN o.sent_at
            IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(n.sent_at)::text END, CASE
            WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
            coalesce(to_json(n.delivered_at)::text, 'null') END, CASE WHEN o.lease_expires_at IS
            DISTINCT FROM n.lease_expires_at THEN ',"lease_expires_at":' ||
            coalesce(to_json(n.lease_expires_at)::text, 'null') END, CASE WHEN o.acknowledged_at
            IS DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
            coalesce(to_json(n.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
            ',"communication_metadata":' || n.communication_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.from_agent_id, o.to_agent_id, o.type, o.content,
          o.priority, o.status, o.topic, o.correlation_id, o.reply_to_id, o.task_id, o.sent_at,
          o.delivered_at, o.lease_expires_at, o.acknowledged_at, o.expires_at,
          o.communication_metadata),
          ROW(n.id, n.created_at, n.project_id, n.from_agent_id, n.to_agent_id, n.type, n.content,
          n.priority, n.status, n.topic, n.correlation_id, n.reply_to_id, n.task_id, n.sent_at,
          n.delivered_at, n.lease_expires_at, n.acknowledged_at, n.expires_at,
          n.communication_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Communication',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.topic IS NULL THEN 'topic' END, CASE WHEN o.correlation_id IS NULL THEN
            'correlation_id' END, CASE WHEN o.reply_to_id IS NULL THEN 'reply_to_id' END, CASE
            WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.delivered_at IS NULL THEN
            'delivered_at' END, CASE WHEN o.lease_expires_at IS NULL THEN 'lease_expires_at'
            END, CASE WHEN o.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN
            o.expires_at IS NULL THEN 'expires_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
                 priority, status, topic, correlation_id, reply_to_id, task_id, sent_at,
                 delivered_at, lease_expires_at, acknowledged_at, expires_at,
                 communication_metadata
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""
CREATE OR REPLACE FUNCTION log_messages() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
            THEN n.conversation_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.parent_message_id IS NULL THEN 'parent_message_id' END, CASE WHEN
            n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN 'agent_id'
            END, CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.parts IS NULL
            THEN 'parts' END, CASE WHEN n.edited_at IS NULL THEN 'edited_at' END
          ]
        FROM (
          SELECT id, created_at, conversation_id, parent_message_id, sequence, sender, user_id,
                 agent_id, model_id, content, parts, timestamp, edited_at, message_metadata
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = n.conversation_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = n.conversation_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
            THEN coalesce(n.conversation_id, o.conversation_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
            n.conversation_id THEN ',"conversation_id":' || '"' || o.conversation_id || '"' END,
            CASE WHEN o.parent_message_id IS DISTINCT FROM n.parent_message_id THEN
            ',"parent_message_id":' || coalesce('"' || o.parent_message_id || '"', 'null') END,
            CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
            o.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
            || '"' || o.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
            ',"user_id":' || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id
            IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id ||
            '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
            ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
            o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(o.content)::text
            END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
            coalesce(o.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
            n.timestamp THEN ',"timestamp":' || to_json(o.timestamp)::text END, CASE WHEN
            o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
            coalesce(to_json(o.edited_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
            ',"message_metadata":' || o.message_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
            n.conversation_id THEN ',"conversation_id":' || '"' || n.conversation_id || '"' END,
            CASE WHEN o.parent_message_id IS DISTINCT FROM n.parent_message_id THEN
            ',"parent_message_id":' || coalesce('"' || n.parent_message_id || '"', 'null') END,
            CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
            n.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
            || '"' || n.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
            ',"user_id":' || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id
            IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id ||
            '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
            ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
            o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(n.content)::text
            END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
            coalesce(n.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
            n.timestamp THEN ',"timestamp":' || to_json(n.timestamp)::text END, CASE WHEN
            o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
            coalesce(to_json(n.edited_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
            ',"message_metadata":' || n.message_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = coalesce(n.conversation_id, o.conversation_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = coalesce(n.conversation_id, o.conversation_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.conversation_id, o.parent_message_id, o.sequence, o.sender,
          o.user_id, o.agent_id, o.model_id, o.content, o.parts, o.timestamp, o.edited_at,
          o.message_metadata),
          ROW(n.id, n.created_at, n.conversation_id, n.parent_message_id, n.sequence, n.sender,
          n.user_id, n.agent_id, n.model_id, n.content, n.parts, n.timestamp, n.edited_at,
          n.message_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
            THEN o.conversation_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.parent_message_id IS NULL THEN 'parent_message_id' END, CASE WHEN
            o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN 'agent_id'
            END, CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.parts IS NULL
            THEN 'parts' END, CASE WHEN o.edited_at IS NULL THEN 'edited_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, conversation_id, parent_message_id, sequence, sender, user_id,
                 agent_id, model_id, content, parts, timestamp, edited_at, message_metadata
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = o.conversation_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = o.conversation_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")


def downgrade() -> None:
    op.execute("""
CREATE OR REPLACE FUNCTION log_messages() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
            THEN n.conversation_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.parts
            IS NULL THEN 'parts' END, CASE WHEN n.edited_at IS NULL THEN 'edited_at' END
          ]
        FROM (
          SELECT id, created_at, conversation_id, sequence, sender, user_id, agent_id, model_id,
                 content, parts, timestamp, edited_at, message_metadata
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = n.conversation_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = n.conversation_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
            THEN coalesce(n.conversation_id, o.conversation_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
            n.conversation_id THEN ',"conversation_id":' || '"' || o.conversation_id || '"' END,
            CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
            o.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
            || '"' || o.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
            ',"user_id":' || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id
            IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id ||
            '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
            ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
            o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(o.content)::text
            END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
            coalesce(o.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
            n.timestamp THEN ',"timestamp":' || to_json(o.timestamp)::text END, CASE WHEN
            o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
            coalesce(to_json(o.edited_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
            ',"message_metadata":' || o.message_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
            n.conversation_id THEN ',"conversation_id":' || '"' || n.conversation_id || '"' END,
            CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
            n.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
            || '"' || n.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
            ',"user_id":' || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id
            IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id ||
            '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
            ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
            o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(n.content)::text
            END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
            coalesce(n.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
            n.timestamp THEN ',"timestamp":' || to_json(n.timestamp)::text END, CASE WHEN
            o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
            coalesce(to_json(n.edited_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
            ',"message_metadata":' || n.message_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = coalesce(n.conversation_id, o.conversation_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = coalesce(n.conversation_id, o.conversation_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.conversation_id, o.sequence, o.sender, o.user_id, o.agent_id,
          o.model_id, o.content, o.parts, o.timestamp, o.edited_at, o.message_metadata),
          ROW(n.id, n.created_at, n.conversation_id, n.sequence, n.sender, n.user_id, n.agent_id,
          n.model_id, n.content, n.parts, n.timestamp, n.edited_at, n.message_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
            THEN o.conversation_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'Message',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.parts
            IS NULL THEN 'parts' END, CASE WHEN o.edited_at IS NULL THEN 'edited_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, conversation_id, sequence, sender, user_id, agent_id, model_id,
                 content, parts, timestamp, edited_at, message_metadata
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, p.user_id AS owner_id,
            true AS is_found
          FROM conversations p WHERE p.id = o.conversation_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Conversation'
            AND e.entity_id = o.conversation_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""
CREATE OR REPLACE FUNCTION log_communications() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Communication',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.correlation_id IS NULL THEN 'correlation_id' END, CASE WHEN
            n.reply_to_id IS NULL THEN 'reply_to_id' END, CASE WHEN n.task_id IS NULL THEN
            'task_id' END, CASE WHEN n.delivered_at IS NULL THEN 'delivered_at' END, CASE WHEN
            n.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN n.expires_at IS NULL
            THEN 'expires_at' END
          ]
        FROM (
          SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
                 priority, status, correlation_id, reply_to_id, task_id, sent_at, delivered_at,
                 acknowledged_at, expires_at, communication_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Communication',
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
            o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
            o.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
            THEN ',"to_agent_id":' || '"' || o.to_agent_id || '"' END, CASE WHEN o.type IS
            DISTINCT FROM n.type THEN ',"type":' || to_json(o.type)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
            ',"priority":' || o.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
            THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.correlation_id IS
            DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
            coalesce(to_json(o.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
            DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || o.reply_to_id
            || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN o.sent_at
            IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(o.sent_at)::text END, CASE
            WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
            coalesce(to_json(o.delivered_at)::text, 'null') END, CASE WHEN o.acknowledged_at IS
            DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
            coalesce(to_json(o.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
            ',"communication_metadata":' || o.communication_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
            n.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
            THEN ',"to_agent_id":' || '"' || n.to_agent_id || '"' END, CASE WHEN o.type IS
            DISTINCT FROM n.type THEN ',"type":' || to_json(n.type)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
            ',"priority":' || n.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
            THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.correlation_id IS
            DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
            coalesce(to_json(n.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
            DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || n.reply_to_id
            || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN o.sent_at
            IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(n.sent_at)::text END, CASE
            WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
            coalesce(to_json(n.delivered_at)::text, 'null') END, CASE WHEN o.acknowledged_at IS
            DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
            coalesce(to_json(n.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
            ',"communication_metadata":' || n.communication_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.from_agent_id, o.to_agent_id, o.type, o.content,
          o.priority, o.status, o.correlation_id, o.reply_to_id, o.task_id, o.sent_at,
          o.delivered_at, o.acknowledged_at, o.expires_at, o.communication_metadata),
          ROW(n.id, n.created_at, n.project_id, n.from_agent_id, n.to_agent_id, n.type, n.content,
          n.priority, n.status, n.correlation_id, n.reply_to_id, n.task_id, n.sent_at,
          n.delivered_at, n.acknowledged_at, n.expires_at, n.communication_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Communication',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.correlation_id IS NULL THEN 'correlation_id' END, CASE WHEN
            o.reply_to_id IS NULL THEN 'reply_to_id' END, CASE WHEN o.task_id IS NULL THEN
            'task_id' END, CASE WHEN o.delivered_at IS NULL THEN 'delivered_at' END, CASE WHEN
            o.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN o.expires_at IS NULL
            THEN 'expires_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
                 priority, status, correlation_id, reply_to_id, task_id, sent_at, delivered_at,
                 acknowledged_at, expires_at, communication_metadata
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""DROP TRIGGER log_truncate ON agent_subscriptions""")
    op.execute("""DROP FUNCTION log_agent_subscriptions() CASCADE""")
    op.drop_constraint(op.f("fk_messages_parent_message_id"), "messages", type_="foreignkey")
    op.drop_index(op.f("ix_messages_parent_message_id_sequence_id"), table_name="messages")
    op.drop_column("messages", "parent_message_id")
    op.drop_index(
        "ix_communications_unacknowledged",
        table_name="communications",
        postgresql_where=sa.text("status IN ('SENT', 'DELIVERED')"),
    )
    op.drop_index(
        "ix_communications_expiring",
        table_name="communications",
        postgresql_where=sa.text("status IN ('SENT', 'DELIVERED') AND expires_at IS NOT NULL"),
    )
    op.drop_column("communications", "lease_expires_at")
    op.drop_column("communications", "topic")
    op.drop_index(op.f("ix_agent_subscriptions_topic_id"), table_name="agent_subscriptions")
    op.drop_table("agent_subscriptions")
