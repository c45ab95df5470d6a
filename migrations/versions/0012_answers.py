"""Answers of people to requests: their table, what requests need for them, and who is told.

The hash of the content is computed by the database from now on; the values stay the same. This
rewrites the table of interactions.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


# It is immutable, because the encoding of a database never changes.
HASH = r"""
CREATE FUNCTION content_hash(title text, content jsonb) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN encode(sha256(convert_to(title || E'\n' || content::text, 'UTF8')), 'hex')
"""

# Who waits for an answer is told of the end of a request, whatever ends it.
NOTIFY = """
CREATE FUNCTION notify_interaction_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_notify('interactions', OLD.id::text);
  RETURN NULL;
END
$$
"""
TRIGGERS = (
    """
    CREATE TRIGGER notify_ended AFTER UPDATE OF status ON human_interactions
    FOR EACH ROW WHEN (OLD.status = 'PENDING' AND NEW.status <> 'PENDING')
    EXECUTE FUNCTION notify_interaction_ended()
    """,
    """
    CREATE TRIGGER notify_deleted AFTER DELETE ON human_interactions
    FOR EACH ROW WHEN (OLD.status = 'PENDING')
    EXECUTE FUNCTION notify_interaction_ended()
    """,
)


def upgrade() -> None:
    op.create_table(
        "interaction_answers",
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
        sa.Column("interaction_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column(
            "outcome",
            sa.Enum(
                "APPROVED",
                "REJECTED",
                "ANSWERED",
                "ACKNOWLEDGED",
                name="answer_outcome",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("content_hash", sa.String(length=255), nullable=False),
        sa.Column(
            "answered_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "isfinite(answered_at)", name=op.f("ck_interaction_answers_answered_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(created_at)", name=op.f("ck_interaction_answers_created_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(updated_at)", name=op.f("ck_interaction_answers_updated_at_finite")
        ),
        sa.ForeignKeyConstraint(
            ["interaction_id"],
            ["human_interactions.id"],
            name=op.f("fk_interaction_answers_interaction_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_interaction_answers_user_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_interaction_answers")),
        sa.UniqueConstraint(
            "interaction_id", "user_id", name=op.f("uq_interaction_answers_interaction_id_user_id")
        ),
    )
    op.create_index(
        op.f("ix_interaction_answers_answered_at_id"),
        "interaction_answers",
        ["answered_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_interaction_answers_user_id_answered_at_id"),
        "interaction_answers",
        ["user_id", "answered_at", "id"],
        unique=False,
    )
    op.add_column("human_interactions", sa.Column("asked_by_user_id", sa.Uuid(), nullable=True))
    op.add_column("human_interactions", sa.Column("asked_by_agent_id", sa.Uuid(), nullable=True))
    op.add_column(
        "human_interactions",
        sa.Column("blocks_task", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column(
        "human_interactions",
        sa.Column(
            "on_expiry",
            sa.Enum(
                "KEEP",
                "FAIL",
                "RELEASE",
                name="on_expiry",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="KEEP",
            nullable=False,
        ),
    )
    op.add_column(
        "human_interactions",
        sa.Column("required_approvals", sa.Integer(), server_default=sa.text("1"), nullable=False),
    )
    op.add_column(
        "human_interactions",
        sa.Column("approval_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.create_index(
        op.f("ix_human_interactions_asked_by_agent_id_created_at_id"),
        "human_interactions",
        ["asked_by_agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_asked_by_user_id_created_at_id"),
        "human_interactions",
        ["asked_by_user_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_human_interactions_expiring",
        "human_interactions",
        ["expires_at"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING' AND expires_at IS NOT NULL"),
    )
    op.create_index(
        "ix_human_interactions_pending",
        "human_interactions",
        ["project_id", "priority", "id"],
        unique=False,
        postgresql_where=sa.text("status = 'PENDING'"),
    )
    op.create_foreign_key(
        op.f("fk_human_interactions_asked_by_user_id"),
        "human_interactions",
        "users",
        ["asked_by_user_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_foreign_key(
        op.f("fk_human_interactions_asked_by_agent_id"),
        "human_interactions",
        "agents",
        ["asked_by_agent_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.execute(HASH)
    op.drop_column("human_interactions", "content_hash")
    op.add_column(
        "human_interactions",
        sa.Column(
            "content_hash",
            sa.String(length=255),
            sa.Computed(
                "content_hash(title, content)",
                persisted=True,
            ),
            nullable=False,
        ),
    )
    op.create_check_constraint(
        op.f("ck_human_interactions_required_approvals_range"),
        "human_interactions",
        "required_approvals BETWEEN 1 AND 20",
    )
    op.create_check_constraint(
        op.f("ck_human_interactions_approval_count_range"),
        "human_interactions",
        "approval_count BETWEEN 0 AND required_approvals",
    )
    op.create_check_constraint(
        op.f("ck_human_interactions_approvals_only"),
        "human_interactions",
        "type = 'APPROVAL' OR (required_approvals = 1 AND approval_count = 0)",
    )
    op.execute("""
CREATE OR REPLACE FUNCTION log_human_interactions() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'HumanInteraction',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN n.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            n.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN n.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN n.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            n.responded_at IS NULL THEN 'responded_at' END, CASE WHEN n.approved IS NULL THEN
            'approved' END, CASE WHEN n.comment IS NULL THEN 'comment' END, CASE WHEN n.feedback
            IS NULL THEN 'feedback' END, CASE WHEN n.rating IS NULL THEN 'rating' END, CASE WHEN
            n.answer IS NULL THEN 'answer' END, CASE WHEN n.level IS NULL THEN 'level' END, CASE
            WHEN n.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ]
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'HumanInteraction',
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
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || o.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            o.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(o.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(o.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || o.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || o.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            o.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || o.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            o.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || o.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            o.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || o.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            o.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(o.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            o.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(o.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(o.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(o.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(o.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || o.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(o.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || n.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            n.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(n.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(n.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || n.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || n.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            n.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || n.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            n.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || n.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            n.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || n.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            n.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(n.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            n.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(n.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(n.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(n.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(n.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || n.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(n.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.type, o.task_id, o.agent_id, o.conversation_id,
          o.title, o.content, o.content_hash, o.asked_by_user_id, o.asked_by_agent_id,
          o.blocks_task, o.on_expiry, o.required_approvals, o.approval_count, o.status,
          o.priority, o.assignee_id, o.expires_at, o.responded_by_id, o.responded_at,
          o.interaction_metadata, o.approved, o.comment, o.feedback, o.rating, o.answer,
          o.level, o.requires_acknowledgement),
          ROW(n.id, n.created_at, n.project_id, n.type, n.task_id, n.agent_id, n.conversation_id,
          n.title, n.content, n.content_hash, n.asked_by_user_id, n.asked_by_agent_id,
          n.blocks_task, n.on_expiry, n.required_approvals, n.approval_count, n.status,
          n.priority, n.assignee_id, n.expires_at, n.responded_by_id, n.responded_at,
          n.interaction_metadata, n.approved, n.comment, n.feedback, n.rating, n.answer,
          n.level, n.requires_acknowledgement)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'HumanInteraction',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN o.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            o.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN o.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN o.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            o.responded_at IS NULL THEN 'responded_at' END, CASE WHEN o.approved IS NULL THEN
            'approved' END, CASE WHEN o.comment IS NULL THEN 'comment' END, CASE WHEN o.feedback
            IS NULL THEN 'feedback' END, CASE WHEN o.rating IS NULL THEN 'rating' END, CASE WHEN
            o.answer IS NULL THEN 'answer' END, CASE WHEN o.level IS NULL THEN 'level' END, CASE
            WHEN o.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
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
    op.execute("""
CREATE OR REPLACE FUNCTION log_interaction_answers() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.interaction_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.interaction_id IS NOT NULL
            THEN n.interaction_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'InteractionAnswer',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.comment IS NULL THEN
            'comment' END
          ]
        FROM (
          SELECT id, created_at, interaction_id, user_id, outcome, comment, content_hash,
                 answered_at
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM human_interactions p WHERE p.id = n.interaction_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'HumanInteraction'
            AND e.entity_id = n.interaction_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.interaction_id, o.interaction_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.interaction_id, o.interaction_id) IS NOT NULL
            THEN coalesce(n.interaction_id, o.interaction_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'InteractionAnswer',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.interaction_id IS DISTINCT FROM
            n.interaction_id THEN ',"interaction_id":' || '"' || o.interaction_id || '"' END,
            CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' ||
            o.user_id || '"', 'null') END, CASE WHEN o.outcome IS DISTINCT FROM n.outcome THEN
            ',"outcome":' || '"' || o.outcome || '"' END, CASE WHEN o.comment IS DISTINCT FROM
            n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text, 'null') END, CASE
            WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN ',"content_hash":' ||
            to_json(o.content_hash)::text END, CASE WHEN o.answered_at IS DISTINCT FROM
            n.answered_at THEN ',"answered_at":' || to_json(o.answered_at)::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.interaction_id IS DISTINCT FROM
            n.interaction_id THEN ',"interaction_id":' || '"' || n.interaction_id || '"' END,
            CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' ||
            n.user_id || '"', 'null') END, CASE WHEN o.outcome IS DISTINCT FROM n.outcome THEN
            ',"outcome":' || '"' || n.outcome || '"' END, CASE WHEN o.comment IS DISTINCT FROM
            n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text, 'null') END, CASE
            WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN ',"content_hash":' ||
            to_json(n.content_hash)::text END, CASE WHEN o.answered_at IS DISTINCT FROM
            n.answered_at THEN ',"answered_at":' || to_json(n.answered_at)::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM human_interactions p WHERE p.id = coalesce(n.interaction_id, o.interaction_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'HumanInteraction'
            AND e.entity_id = coalesce(n.interaction_id, o.interaction_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.interaction_id, o.user_id, o.outcome, o.comment, o.content_hash,
          o.answered_at),
          ROW(n.id, n.created_at, n.interaction_id, n.user_id, n.outcome, n.comment, n.content_hash,
          n.answered_at)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.interaction_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.interaction_id IS NOT NULL
            THEN o.interaction_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'InteractionAnswer',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.comment IS NULL THEN
            'comment' END
          ],
          NULL
        FROM (
          SELECT id, created_at, interaction_id, user_id, outcome, comment, content_hash,
                 answered_at
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM human_interactions p WHERE p.id = o.interaction_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'HumanInteraction'
            AND e.entity_id = o.interaction_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE TRIGGER log_insert AFTER INSERT ON interaction_answers
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_interaction_answers()""")
    op.execute("""CREATE TRIGGER log_update AFTER UPDATE ON interaction_answers
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_interaction_answers()""")
    op.execute("""CREATE TRIGGER log_delete AFTER DELETE ON interaction_answers
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION log_interaction_answers()""")
    op.execute("""CREATE TRIGGER log_truncate BEFORE TRUNCATE ON interaction_answers
    FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()""")

    op.execute(NOTIFY)
    for trigger in TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    op.execute("DROP FUNCTION notify_interaction_ended() CASCADE")
    op.execute("""DROP TRIGGER log_truncate ON interaction_answers""")
    op.execute("""DROP FUNCTION log_interaction_answers() CASCADE""")
    op.execute("""
CREATE OR REPLACE FUNCTION log_human_interactions() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'HumanInteraction',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN n.assignee_id IS NULL THEN 'assignee_id' END, CASE WHEN n.expires_at IS NULL
            THEN 'expires_at' END, CASE WHEN n.responded_by_id IS NULL THEN 'responded_by_id'
            END, CASE WHEN n.responded_at IS NULL THEN 'responded_at' END, CASE WHEN n.approved
            IS NULL THEN 'approved' END, CASE WHEN n.comment IS NULL THEN 'comment' END, CASE
            WHEN n.feedback IS NULL THEN 'feedback' END, CASE WHEN n.rating IS NULL THEN
            'rating' END, CASE WHEN n.answer IS NULL THEN 'answer' END, CASE WHEN n.level IS
            NULL THEN 'level' END, CASE WHEN n.requires_acknowledgement IS NULL THEN
            'requires_acknowledgement' END
          ]
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, status, priority, assignee_id, expires_at,
                 responded_by_id, responded_at, interaction_metadata, approved, comment,
                 feedback, rating, answer, level, requires_acknowledgement
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'HumanInteraction',
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
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || o.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            o.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(o.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(o.content_hash)::text END, CASE WHEN o.status IS
            DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
            o.priority IS DISTINCT FROM n.priority THEN ',"priority":' || o.priority::text END,
            CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN ',"assignee_id":' ||
            coalesce('"' || o.assignee_id || '"', 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            o.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(o.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            o.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(o.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(o.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(o.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(o.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || o.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(o.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || n.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            n.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(n.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(n.content_hash)::text END, CASE WHEN o.status IS
            DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
            o.priority IS DISTINCT FROM n.priority THEN ',"priority":' || n.priority::text END,
            CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN ',"assignee_id":' ||
            coalesce('"' || n.assignee_id || '"', 'null') END, CASE WHEN o.expires_at IS
            DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            n.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(n.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            n.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(n.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(n.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(n.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(n.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || n.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(n.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.type, o.task_id, o.agent_id, o.conversation_id,
          o.title, o.content, o.content_hash, o.status, o.priority, o.assignee_id, o.expires_at,
          o.responded_by_id, o.responded_at, o.interaction_metadata, o.approved, o.comment,
          o.feedback, o.rating, o.answer, o.level, o.requires_acknowledgement),
          ROW(n.id, n.created_at, n.project_id, n.type, n.task_id, n.agent_id, n.conversation_id,
          n.title, n.content, n.content_hash, n.status, n.priority, n.assignee_id, n.expires_at,
          n.responded_by_id, n.responded_at, n.interaction_metadata, n.approved, n.comment,
          n.feedback, n.rating, n.answer, n.level, n.requires_acknowledgement)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'HumanInteraction',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN o.assignee_id IS NULL THEN 'assignee_id' END, CASE WHEN o.expires_at IS NULL
            THEN 'expires_at' END, CASE WHEN o.responded_by_id IS NULL THEN 'responded_by_id'
            END, CASE WHEN o.responded_at IS NULL THEN 'responded_at' END, CASE WHEN o.approved
            IS NULL THEN 'approved' END, CASE WHEN o.comment IS NULL THEN 'comment' END, CASE
            WHEN o.feedback IS NULL THEN 'feedback' END, CASE WHEN o.rating IS NULL THEN
            'rating' END, CASE WHEN o.answer IS NULL THEN 'answer' END, CASE WHEN o.level IS
            NULL THEN 'level' END, CASE WHEN o.requires_acknowledgement IS NULL THEN
            'requires_acknowledgement' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, status, priority, assignee_id, expires_at,
                 responded_by_id, responded_at, interaction_metadata, approved, comment,
                 feedback, rating, answer, level, requires_acknowledgement
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.drop_constraint(
        op.f("fk_human_interactions_asked_by_agent_id"), "human_interactions", type_="foreignkey"
    )
    op.drop_constraint(
        op.f("fk_human_interactions_asked_by_user_id"), "human_interactions", type_="foreignkey"
    )
    op.drop_index(
        "ix_human_interactions_pending",
        table_name="human_interactions",
        postgresql_where=sa.text("status = 'PENDING'"),
    )
    op.drop_index(
        "ix_human_interactions_expiring",
        table_name="human_interactions",
        postgresql_where=sa.text("status = 'PENDING' AND expires_at IS NOT NULL"),
    )
    op.drop_index(
        op.f("ix_human_interactions_asked_by_user_id_created_at_id"),
        table_name="human_interactions",
    )
    op.drop_index(
        op.f("ix_human_interactions_asked_by_agent_id_created_at_id"),
        table_name="human_interactions",
    )
    op.drop_column("human_interactions", "approval_count")
    op.drop_column("human_interactions", "required_approvals")
    op.drop_column("human_interactions", "on_expiry")
    op.drop_column("human_interactions", "blocks_task")
    op.drop_column("human_interactions", "asked_by_agent_id")
    op.drop_column("human_interactions", "asked_by_user_id")
    op.drop_index(
        op.f("ix_interaction_answers_user_id_answered_at_id"), table_name="interaction_answers"
    )
    op.drop_index(op.f("ix_interaction_answers_answered_at_id"), table_name="interaction_answers")
    op.drop_table("interaction_answers")
    op.execute("ALTER TABLE human_interactions ALTER content_hash DROP EXPRESSION")
    op.execute("DROP FUNCTION content_hash")
