"""Tools, task attempts, communications, human interactions, usage records."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tools",
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
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("tool_version", sa.String(length=255), server_default="1", nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("capability", sa.String(length=255), nullable=True),
        sa.Column(
            "source",
            sa.Enum(
                "BUILT_IN",
                "USER_DEFINED",
                "MCP",
                "EXTERNAL_API",
                "CUSTOM",
                name="tool_source",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="USER_DEFINED",
            nullable=False,
        ),
        sa.Column(
            "tool_schema", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("documentation_url", sa.Text(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "DISCOVERED",
                "EVALUATING",
                "APPROVED",
                "INTEGRATED",
                "DEPRECATED",
                "REJECTED",
                name="tool_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="DISCOVERED",
            nullable=False,
        ),
        sa.Column("definition_hash", sa.String(length=255), nullable=False),
        sa.Column(
            "tool_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_tools_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_tools_updated_at_finite")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_tools_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tools")),
        sa.UniqueConstraint(
            "project_id",
            "name",
            "tool_version",
            name=op.f("uq_tools_project_id_name_tool_version"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(op.f("ix_tools_capability"), "tools", ["capability"], unique=False)
    op.create_index(op.f("ix_tools_created_at_id"), "tools", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_tools_name_id"), "tools", ["name", "id"], unique=False)
    op.create_index(
        op.f("ix_tools_project_id_created_at_id"),
        "tools",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tools_project_id_name_id"), "tools", ["project_id", "name", "id"], unique=False
    )
    op.create_index(op.f("ix_tools_status"), "tools", ["status"], unique=False)
    op.create_table(
        "agent_tools",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("tool_id", sa.Uuid(), nullable=False),
        sa.Column(
            "configuration",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column(
            "added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.CheckConstraint("isfinite(added_at)", name=op.f("ck_agent_tools_added_at_finite")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_agent_tools_agent_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["tool_id"], ["tools.id"], name=op.f("fk_agent_tools_tool_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent_id", "tool_id", name=op.f("pk_agent_tools")),
    )
    op.create_index(op.f("ix_agent_tools_tool_id"), "agent_tools", ["tool_id"], unique=False)
    op.create_table(
        "communications",
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
        sa.Column("from_agent_id", sa.Uuid(), nullable=False),
        sa.Column("to_agent_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "SENT",
                "DELIVERED",
                "ACKNOWLEDGED",
                "EXPIRED",
                "FAILED",
                name="communication_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="SENT",
            nullable=False,
        ),
        sa.Column("correlation_id", sa.String(length=255), nullable=True),
        sa.Column("reply_to_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column(
            "sent_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("acknowledged_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "communication_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "isfinite(acknowledged_at)", name=op.f("ck_communications_acknowledged_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(created_at)", name=op.f("ck_communications_created_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(delivered_at)", name=op.f("ck_communications_delivered_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(expires_at)", name=op.f("ck_communications_expires_at_finite")
        ),
        sa.CheckConstraint("isfinite(sent_at)", name=op.f("ck_communications_sent_at_finite")),
        sa.CheckConstraint(
            "isfinite(updated_at)", name=op.f("ck_communications_updated_at_finite")
        ),
        sa.CheckConstraint(
            "priority BETWEEN 1 AND 5", name=op.f("ck_communications_priority_range")
        ),
        sa.ForeignKeyConstraint(
            ["from_agent_id"],
            ["agents.id"],
            name=op.f("fk_communications_from_agent_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_communications_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["reply_to_id"],
            ["communications.id"],
            name=op.f("fk_communications_reply_to_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_communications_task_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["to_agent_id"],
            ["agents.id"],
            name=op.f("fk_communications_to_agent_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_communications")),
    )
    op.create_index(
        op.f("ix_communications_correlation_id"), "communications", ["correlation_id"], unique=False
    )
    op.create_index(
        op.f("ix_communications_from_agent_id_sent_at_id"),
        "communications",
        ["from_agent_id", "sent_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_communications_priority_id"), "communications", ["priority", "id"], unique=False
    )
    op.create_index(
        op.f("ix_communications_project_id_priority_id"),
        "communications",
        ["project_id", "priority", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_communications_project_id_sent_at_id"),
        "communications",
        ["project_id", "sent_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_communications_reply_to_id_sent_at_id"),
        "communications",
        ["reply_to_id", "sent_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_communications_sent_at_id"), "communications", ["sent_at", "id"], unique=False
    )
    op.create_index(op.f("ix_communications_status"), "communications", ["status"], unique=False)
    op.create_index(
        op.f("ix_communications_task_id_sent_at_id"),
        "communications",
        ["task_id", "sent_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_communications_to_agent_id_sent_at_id"),
        "communications",
        ["to_agent_id", "sent_at", "id"],
        unique=False,
    )
    op.create_table(
        "human_interactions",
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
        sa.Column(
            "type",
            sa.Enum(
                "APPROVAL",
                "FEEDBACK",
                "CLARIFICATION",
                "NOTIFICATION",
                name="interaction_type",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("content", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("content_hash", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "APPROVED",
                "REJECTED",
                "ANSWERED",
                "ACKNOWLEDGED",
                "EXPIRED",
                "CANCELLED",
                name="interaction_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="PENDING",
            nullable=False,
        ),
        sa.Column("priority", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column("assignee_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("responded_by_id", sa.Uuid(), nullable=True),
        sa.Column("responded_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "interaction_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("approved", sa.Boolean(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column(
            "feedback", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("rating", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column(
            "level",
            sa.Enum(
                "INFO",
                "WARNING",
                "ERROR",
                "CRITICAL",
                name="notification_level",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("requires_acknowledgement", sa.Boolean(), nullable=True),
        sa.CheckConstraint(
            "(status IN ('PENDING', 'EXPIRED', 'CANCELLED')) = (responded_at IS NULL)",
            name=op.f("ck_human_interactions_responded_once"),
        ),
        sa.CheckConstraint(
            "num_nonnulls(level, requires_acknowledgement)"
            " = CASE type WHEN 'NOTIFICATION' THEN 2 ELSE 0 END",
            name=op.f("ck_human_interactions_notification_only"),
        ),
        sa.CheckConstraint(
            "type = 'APPROVAL' OR num_nonnulls(approved, comment) = 0",
            name=op.f("ck_human_interactions_approval_only"),
        ),
        sa.CheckConstraint(
            "type = 'CLARIFICATION' OR num_nonnulls(answer) = 0",
            name=op.f("ck_human_interactions_clarification_only"),
        ),
        sa.CheckConstraint(
            "type = 'FEEDBACK' OR num_nonnulls(feedback, rating) = 0",
            name=op.f("ck_human_interactions_feedback_only"),
        ),
        sa.CheckConstraint(
            "isfinite(created_at)", name=op.f("ck_human_interactions_created_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(expires_at)", name=op.f("ck_human_interactions_expires_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(responded_at)", name=op.f("ck_human_interactions_responded_at_finite")
        ),
        sa.CheckConstraint(
            "isfinite(updated_at)", name=op.f("ck_human_interactions_updated_at_finite")
        ),
        sa.CheckConstraint(
            "priority BETWEEN 1 AND 5", name=op.f("ck_human_interactions_priority_range")
        ),
        sa.CheckConstraint(
            "rating BETWEEN 1 AND 5", name=op.f("ck_human_interactions_rating_range")
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"],
            ["agents.id"],
            name=op.f("fk_human_interactions_agent_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["assignee_id"],
            ["users.id"],
            name=op.f("fk_human_interactions_assignee_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_human_interactions_conversation_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_human_interactions_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["responded_by_id"],
            ["users.id"],
            name=op.f("fk_human_interactions_responded_by_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["task_id"],
            ["tasks.id"],
            name=op.f("fk_human_interactions_task_id"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_human_interactions")),
    )
    op.create_index(
        op.f("ix_human_interactions_agent_id_created_at_id"),
        "human_interactions",
        ["agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_assignee_id_created_at_id"),
        "human_interactions",
        ["assignee_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_conversation_id_created_at_id"),
        "human_interactions",
        ["conversation_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_created_at_id"),
        "human_interactions",
        ["created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_priority_id"),
        "human_interactions",
        ["priority", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_project_id_created_at_id"),
        "human_interactions",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_project_id_priority_id"),
        "human_interactions",
        ["project_id", "priority", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_responded_by_id_created_at_id"),
        "human_interactions",
        ["responded_by_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_status"), "human_interactions", ["status"], unique=False
    )
    op.create_index(
        op.f("ix_human_interactions_task_id_created_at_id"),
        "human_interactions",
        ["task_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_human_interactions_type"), "human_interactions", ["type"], unique=False
    )
    op.create_table(
        "task_attempts",
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
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "RUNNING",
                "SUCCEEDED",
                "FAILED",
                "LEASE_LOST",
                "CANCELLED",
                "RELEASED",
                name="attempt_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="RUNNING",
            nullable=False,
        ),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("progress_percent", sa.Integer(), nullable=True),
        sa.Column("status_message", sa.Text(), nullable=True),
        sa.Column(
            "result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_task_attempts_created_at_finite")),
        sa.CheckConstraint("isfinite(ended_at)", name=op.f("ck_task_attempts_ended_at_finite")),
        sa.CheckConstraint(
            "isfinite(heartbeat_at)", name=op.f("ck_task_attempts_heartbeat_at_finite")
        ),
        sa.CheckConstraint("isfinite(started_at)", name=op.f("ck_task_attempts_started_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_task_attempts_updated_at_finite")),
        sa.CheckConstraint("number > 0", name=op.f("ck_task_attempts_number_positive")),
        sa.CheckConstraint(
            "progress_percent BETWEEN 0 AND 100",
            name=op.f("ck_task_attempts_progress_percent_range"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_task_attempts_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_task_attempts_task_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_attempts")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_task_attempts_task_id_number")),
    )
    op.create_index(
        op.f("ix_task_attempts_agent_id_started_at_id"),
        "task_attempts",
        ["agent_id", "started_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_task_attempts_started_at_id"), "task_attempts", ["started_at", "id"], unique=False
    )
    op.create_index(op.f("ix_task_attempts_status"), "task_attempts", ["status"], unique=False)
    op.create_table(
        "usage_records",
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
        sa.Column("model_id", sa.String(length=100), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("task_id", sa.Uuid(), nullable=True),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("conversation_id", sa.Uuid(), nullable=True),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("input_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cached_input_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("output_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("reasoning_tokens", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("cost", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("success", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("request_id", sa.String(length=255), nullable=True),
        sa.Column(
            "occurred_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint(
            "cached_input_tokens <= input_tokens",
            name=op.f("ck_usage_records_cached_tokens_are_input"),
        ),
        sa.CheckConstraint("cost >= 0", name=op.f("ck_usage_records_cost_not_negative")),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_usage_records_created_at_finite")),
        sa.CheckConstraint(
            "isfinite(occurred_at)", name=op.f("ck_usage_records_occurred_at_finite")
        ),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_usage_records_updated_at_finite")),
        sa.CheckConstraint(
            "latency_ms >= 0", name=op.f("ck_usage_records_latency_ms_not_negative")
        ),
        sa.CheckConstraint(
            "least(input_tokens, cached_input_tokens, output_tokens, reasoning_tokens) >= 0",
            name=op.f("ck_usage_records_tokens_not_negative"),
        ),
        sa.CheckConstraint(
            "reasoning_tokens <= output_tokens",
            name=op.f("ck_usage_records_reasoning_tokens_are_output"),
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_usage_records_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["task_attempts.id"],
            name=op.f("fk_usage_records_attempt_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_usage_records_conversation_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["messages.id"],
            name=op.f("fk_usage_records_message_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["ai_models.id"],
            name=op.f("fk_usage_records_model_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_usage_records_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_usage_records_task_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_usage_records_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage_records")),
        sa.UniqueConstraint(
            "project_id", "request_id", name=op.f("uq_usage_records_project_id_request_id")
        ),
    )
    op.create_index(
        op.f("ix_usage_records_agent_id_occurred_at_id"),
        "usage_records",
        ["agent_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_attempt_id_occurred_at_id"),
        "usage_records",
        ["attempt_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_conversation_id_occurred_at_id"),
        "usage_records",
        ["conversation_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_message_id_occurred_at_id"),
        "usage_records",
        ["message_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_model_id_occurred_at_id"),
        "usage_records",
        ["model_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_occurred_at_id"),
        "usage_records",
        ["occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_project_id_occurred_at_id"),
        "usage_records",
        ["project_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_task_id_occurred_at_id"),
        "usage_records",
        ["task_id", "occurred_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_usage_records_user_id_occurred_at_id"),
        "usage_records",
        ["user_id", "occurred_at", "id"],
        unique=False,
    )
    op.add_column("tasks", sa.Column("current_attempt_id", sa.Uuid(), nullable=True))
    op.create_unique_constraint(
        op.f("uq_tasks_current_attempt_id"), "tasks", ["current_attempt_id"]
    )
    op.create_foreign_key(
        op.f("fk_tasks_current_attempt_id"),
        "tasks",
        "task_attempts",
        ["current_attempt_id"],
        ["id"],
        ondelete="SET NULL",
        use_alter=True,
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_tasks_current_attempt_id"), "tasks", type_="foreignkey")
    op.drop_constraint(op.f("uq_tasks_current_attempt_id"), "tasks", type_="unique")
    op.drop_column("tasks", "current_attempt_id")
    op.drop_index(op.f("ix_usage_records_user_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_task_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_project_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_model_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_message_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(
        op.f("ix_usage_records_conversation_id_occurred_at_id"), table_name="usage_records"
    )
    op.drop_index(op.f("ix_usage_records_attempt_id_occurred_at_id"), table_name="usage_records")
    op.drop_index(op.f("ix_usage_records_agent_id_occurred_at_id"), table_name="usage_records")
    op.drop_table("usage_records")
    op.drop_index(op.f("ix_task_attempts_status"), table_name="task_attempts")
    op.drop_index(op.f("ix_task_attempts_started_at_id"), table_name="task_attempts")
    op.drop_index(op.f("ix_task_attempts_agent_id_started_at_id"), table_name="task_attempts")
    op.drop_table("task_attempts")
    op.drop_index(op.f("ix_human_interactions_type"), table_name="human_interactions")
    op.drop_index(
        op.f("ix_human_interactions_task_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_index(op.f("ix_human_interactions_status"), table_name="human_interactions")
    op.drop_index(
        op.f("ix_human_interactions_responded_by_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_index(
        op.f("ix_human_interactions_project_id_priority_id"), table_name="human_interactions"
    )
    op.drop_index(
        op.f("ix_human_interactions_project_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_index(op.f("ix_human_interactions_priority_id"), table_name="human_interactions")
    op.drop_index(op.f("ix_human_interactions_created_at_id"), table_name="human_interactions")
    op.drop_index(
        op.f("ix_human_interactions_conversation_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_index(
        op.f("ix_human_interactions_assignee_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_index(
        op.f("ix_human_interactions_agent_id_created_at_id"), table_name="human_interactions"
    )
    op.drop_table("human_interactions")
    op.drop_index(op.f("ix_communications_to_agent_id_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_task_id_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_status"), table_name="communications")
    op.drop_index(op.f("ix_communications_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_reply_to_id_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_project_id_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_project_id_priority_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_priority_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_from_agent_id_sent_at_id"), table_name="communications")
    op.drop_index(op.f("ix_communications_correlation_id"), table_name="communications")
    op.drop_table("communications")
    op.drop_index(op.f("ix_agent_tools_tool_id"), table_name="agent_tools")
    op.drop_table("agent_tools")
    op.drop_index(op.f("ix_tools_status"), table_name="tools")
    op.drop_index(op.f("ix_tools_project_id_name_id"), table_name="tools")
    op.drop_index(op.f("ix_tools_project_id_created_at_id"), table_name="tools")
    op.drop_index(op.f("ix_tools_name_id"), table_name="tools")
    op.drop_index(op.f("ix_tools_created_at_id"), table_name="tools")
    op.drop_index(op.f("ix_tools_capability"), table_name="tools")
    op.drop_table("tools")
