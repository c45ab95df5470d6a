"""Users, access tokens, projects, agents, AI models, tasks, conversations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "ai_models",
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
        sa.Column("id", sa.String(length=100), nullable=False),
        sa.Column("provider", sa.String(length=255), nullable=False),
        sa.Column("model_version", sa.String(length=255), nullable=True),
        sa.Column(
            "capabilities",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("context_window", sa.Integer(), nullable=True),
        sa.Column("input_price", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("cached_input_price", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("output_price", sa.Numeric(precision=18, scale=9), nullable=True),
        sa.Column("is_local", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "ACTIVE",
                "TESTING",
                "INACTIVE",
                "DEPRECATED",
                name="ai_model_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="ACTIVE",
            nullable=False,
        ),
        sa.Column(
            "model_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.CheckConstraint("context_window > 0", name=op.f("ck_ai_models_context_window_positive")),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_ai_models_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_ai_models_updated_at_finite")),
        sa.CheckConstraint(
            "least(input_price, cached_input_price, output_price) >= 0",
            name=op.f("ck_ai_models_prices_not_negative"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ai_models")),
    )
    op.create_index(
        op.f("ix_ai_models_created_at_id"), "ai_models", ["created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_ai_models_provider_id"), "ai_models", ["provider", "id"], unique=False)
    op.create_index(op.f("ix_ai_models_status"), "ai_models", ["status"], unique=False)
    op.create_table(
        "users",
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
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("email", sa.String(length=255), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=True),
        sa.Column("password_hash", sa.String(length=255), nullable=True),
        sa.Column(
            "role",
            sa.Enum(
                "ADMIN",
                "USER",
                name="user_role",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="USER",
            nullable=False,
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_users_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_users_updated_at_finite")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.UniqueConstraint("username", name=op.f("uq_users_username")),
    )
    op.create_index(op.f("ix_users_created_at_id"), "users", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_users_username_id"), "users", ["username", "id"], unique=False)
    op.create_table(
        "projects",
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
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "description", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "status",
            sa.Enum(
                "DRAFT",
                "PLANNING",
                "IN_PROGRESS",
                "PAUSED",
                "COMPLETED",
                "CANCELLED",
                "ARCHIVED",
                name="project_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="DRAFT",
            nullable=False,
        ),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column(
            "project_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_projects_created_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_projects_updated_at_finite")),
        sa.ForeignKeyConstraint(
            ["owner_id"], ["users.id"], name=op.f("fk_projects_owner_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
    )
    op.create_index(
        op.f("ix_projects_created_at_id"), "projects", ["created_at", "id"], unique=False
    )
    op.create_index(op.f("ix_projects_name_id"), "projects", ["name", "id"], unique=False)
    op.create_index(
        op.f("ix_projects_owner_id_created_at_id"),
        "projects",
        ["owner_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_projects_status"), "projects", ["status"], unique=False)
    op.create_index(
        op.f("ix_projects_updated_at_id"), "projects", ["updated_at", "id"], unique=False
    )
    op.create_table(
        "agents",
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
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("type", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "CREATED",
                "INITIALIZING",
                "READY",
                "ACTIVE",
                "PAUSED",
                "ERROR",
                "TERMINATED",
                name="agent_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="CREATED",
            nullable=False,
        ),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        sa.Column("model_id", sa.String(length=100), nullable=True),
        sa.Column("prompt_template", sa.Text(), nullable=True),
        sa.Column(
            "configuration",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "max_concurrent_tasks", sa.Integer(), server_default=sa.text("1"), nullable=False
        ),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "agent_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_agents_created_at_finite")),
        sa.CheckConstraint("isfinite(last_seen_at)", name=op.f("ck_agents_last_seen_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_agents_updated_at_finite")),
        sa.CheckConstraint(
            "max_concurrent_tasks > 0", name=op.f("ck_agents_max_concurrent_tasks_positive")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["ai_models.id"], name=op.f("fk_agents_model_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_agents_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_agents_project_id_name")),
    )
    op.create_index(op.f("ix_agents_created_at_id"), "agents", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_agents_model_id_created_at_id"),
        "agents",
        ["model_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_agents_name_id"), "agents", ["name", "id"], unique=False)
    op.create_index(
        op.f("ix_agents_project_id_created_at_id"),
        "agents",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_agents_project_id_name_id"), "agents", ["project_id", "name", "id"], unique=False
    )
    op.create_index(op.f("ix_agents_status"), "agents", ["status"], unique=False)
    op.create_index(op.f("ix_agents_type"), "agents", ["type"], unique=False)
    op.create_table(
        "access_tokens",
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
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.Column("token_hash", sa.String(length=255), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column(
            "scopes",
            sa.ARRAY(sa.String(length=100)),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_access_tokens_created_at_finite")),
        sa.CheckConstraint("isfinite(expires_at)", name=op.f("ck_access_tokens_expires_at_finite")),
        sa.CheckConstraint(
            "isfinite(last_used_at)", name=op.f("ck_access_tokens_last_used_at_finite")
        ),
        sa.CheckConstraint("isfinite(revoked_at)", name=op.f("ck_access_tokens_revoked_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_access_tokens_updated_at_finite")),
        sa.CheckConstraint(
            "num_nonnulls(user_id, agent_id) = 1", name=op.f("ck_access_tokens_one_bearer")
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_access_tokens_agent_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_access_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_access_tokens_token_hash")),
    )
    op.create_index(
        op.f("ix_access_tokens_agent_id_created_at_id"),
        "access_tokens",
        ["agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_access_tokens_created_at_id"), "access_tokens", ["created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_access_tokens_user_id_created_at_id"),
        "access_tokens",
        ["user_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "conversations",
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
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(length=255), nullable=True),
        sa.Column("summary", sa.String(length=50), server_default="", nullable=False),
        sa.Column("conversation_url", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "ACTIVE",
                "ARCHIVED",
                name="conversation_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="ACTIVE",
            nullable=False,
        ),
        sa.Column("last_message_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_sequence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "conversation_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_conversations_created_at_finite")),
        sa.CheckConstraint(
            "isfinite(last_message_at)", name=op.f("ck_conversations_last_message_at_finite")
        ),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_conversations_updated_at_finite")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_conversations_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_conversations_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_conversations_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_conversations")),
        sa.UniqueConstraint("conversation_url", name=op.f("uq_conversations_conversation_url")),
    )
    op.create_index(
        op.f("ix_conversations_agent_id_created_at_id"),
        "conversations",
        ["agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_conversations_created_at_id"), "conversations", ["created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_conversations_project_id_created_at_id"),
        "conversations",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_conversations_project_id_updated_at_id"),
        "conversations",
        ["project_id", "updated_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_conversations_status"), "conversations", ["status"], unique=False)
    op.create_index(
        op.f("ix_conversations_updated_at_id"), "conversations", ["updated_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_conversations_user_id_created_at_id"),
        "conversations",
        ["user_id", "created_at", "id"],
        unique=False,
    )
    op.create_table(
        "tasks",
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
        sa.Column("parent_task_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("created_by_user_id", sa.Uuid(), nullable=True),
        sa.Column("created_by_agent_id", sa.Uuid(), nullable=True),
        sa.Column("title", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("type", sa.String(length=255), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "ASSIGNED",
                "IN_PROGRESS",
                "BLOCKED",
                "COMPLETED",
                "FAILED",
                "CANCELLED",
                "SKIPPED",
                name="task_status",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="PENDING",
            nullable=False,
        ),
        sa.Column(
            "blocked_reason",
            sa.Enum(
                "HUMAN_INPUT",
                "EXTERNAL",
                "MANUAL",
                name="blocked_reason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("priority", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column(
            "input", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "available_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("estimated_seconds", sa.Integer(), nullable=True),
        sa.Column(
            "unmet_dependency_count", sa.Integer(), server_default=sa.text("0"), nullable=False
        ),
        sa.Column("attempt_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default=sa.text("3"), nullable=False),
        sa.Column(
            "retry_backoff_seconds", sa.Integer(), server_default=sa.text("30"), nullable=False
        ),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column(
            "task_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column("version", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint(
            "(status = 'BLOCKED') = (blocked_reason IS NOT NULL)", name=op.f("ck_tasks_blocked_why")
        ),
        sa.CheckConstraint("attempt_count >= 0", name=op.f("ck_tasks_attempt_count_natural")),
        sa.CheckConstraint(
            "estimated_seconds >= 0", name=op.f("ck_tasks_estimated_seconds_natural")
        ),
        sa.CheckConstraint("isfinite(available_at)", name=op.f("ck_tasks_available_at_finite")),
        sa.CheckConstraint("isfinite(completed_at)", name=op.f("ck_tasks_completed_at_finite")),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_tasks_created_at_finite")),
        sa.CheckConstraint("isfinite(due_at)", name=op.f("ck_tasks_due_at_finite")),
        sa.CheckConstraint(
            "isfinite(lease_expires_at)", name=op.f("ck_tasks_lease_expires_at_finite")
        ),
        sa.CheckConstraint("isfinite(started_at)", name=op.f("ck_tasks_started_at_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_tasks_updated_at_finite")),
        sa.CheckConstraint("max_attempts > 0", name=op.f("ck_tasks_max_attempts_positive")),
        sa.CheckConstraint("parent_task_id <> id", name=op.f("ck_tasks_not_its_own_parent")),
        sa.CheckConstraint("priority BETWEEN 1 AND 5", name=op.f("ck_tasks_priority_1_to_5")),
        sa.CheckConstraint(
            "retry_backoff_seconds >= 0", name=op.f("ck_tasks_retry_backoff_seconds_natural")
        ),
        sa.CheckConstraint(
            "unmet_dependency_count >= 0", name=op.f("ck_tasks_unmet_dependency_count_natural")
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_tasks_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["created_by_agent_id"],
            ["agents.id"],
            name=op.f("fk_tasks_created_by_agent_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["created_by_user_id"],
            ["users.id"],
            name=op.f("fk_tasks_created_by_user_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["parent_task_id"],
            ["tasks.id"],
            name=op.f("fk_tasks_parent_task_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_tasks_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
    )
    op.create_index(
        op.f("ix_tasks_agent_id_created_at_id"),
        "tasks",
        ["agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_tasks_created_at_id"), "tasks", ["created_at", "id"], unique=False)
    op.create_index(
        op.f("ix_tasks_created_by_agent_id_created_at_id"),
        "tasks",
        ["created_by_agent_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tasks_created_by_user_id_created_at_id"),
        "tasks",
        ["created_by_user_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        "ix_tasks_lease_expires_at",
        "tasks",
        ["lease_expires_at"],
        unique=False,
        postgresql_where=sa.text("lease_expires_at IS NOT NULL"),
    )
    op.create_index(
        op.f("ix_tasks_parent_task_id_created_at_id"),
        "tasks",
        ["parent_task_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_tasks_priority_id"), "tasks", ["priority", "id"], unique=False)
    op.create_index(
        op.f("ix_tasks_project_id_created_at_id"),
        "tasks",
        ["project_id", "created_at", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_tasks_project_id_priority_id"),
        "tasks",
        ["project_id", "priority", "id"],
        unique=False,
    )
    op.create_index(
        "ix_tasks_ready",
        "tasks",
        ["project_id", sa.literal_column("priority DESC"), "available_at", "id"],
        unique=False,
        postgresql_where=sa.text(
            "status IN ('PENDING', 'ASSIGNED') AND unmet_dependency_count = 0"
        ),
    )
    op.create_index(op.f("ix_tasks_status"), "tasks", ["status"], unique=False)
    op.create_table(
        "messages",
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
        sa.Column("conversation_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column(
            "sender",
            sa.Enum(
                "USER",
                "ASSISTANT",
                "SYSTEM",
                "TOOL",
                name="message_sender",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("agent_id", sa.Uuid(), nullable=True),
        sa.Column("model_id", sa.String(length=100), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column(
            "parts", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column(
            "timestamp", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("edited_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "message_metadata",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'::jsonb"),
            nullable=False,
        ),
        sa.Column(
            "search",
            postgresql.TSVECTOR(),
            sa.Computed("to_tsvector('simple', left(content, 100000))", persisted=True),
            nullable=False,
        ),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_messages_created_at_finite")),
        sa.CheckConstraint("isfinite(edited_at)", name=op.f("ck_messages_edited_at_finite")),
        sa.CheckConstraint("isfinite(timestamp)", name=op.f("ck_messages_timestamp_finite")),
        sa.CheckConstraint("isfinite(updated_at)", name=op.f("ck_messages_updated_at_finite")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_messages_agent_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name=op.f("fk_messages_conversation_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["ai_models.id"], name=op.f("fk_messages_model_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_messages_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.UniqueConstraint(
            "conversation_id", "sequence", name=op.f("uq_messages_conversation_id_sequence")
        ),
    )
    op.create_index(
        op.f("ix_messages_agent_id_sequence_id"),
        "messages",
        ["agent_id", "sequence", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_messages_conversation_id_timestamp_id"),
        "messages",
        ["conversation_id", "timestamp", "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_messages_model_id_sequence_id"),
        "messages",
        ["model_id", "sequence", "id"],
        unique=False,
    )
    op.create_index(
        "ix_messages_search", "messages", ["search"], unique=False, postgresql_using="gin"
    )
    op.create_index(op.f("ix_messages_sequence_id"), "messages", ["sequence", "id"], unique=False)
    op.create_index(op.f("ix_messages_timestamp_id"), "messages", ["timestamp", "id"], unique=False)
    op.create_index(
        op.f("ix_messages_user_id_sequence_id"),
        "messages",
        ["user_id", "sequence", "id"],
        unique=False,
    )
    op.create_table(
        "task_dependencies",
        sa.Column("dependent_id", sa.Uuid(), nullable=False),
        sa.Column("dependency_id", sa.Uuid(), nullable=False),
        sa.Column(
            "on_failure",
            sa.Enum(
                "SKIP",
                "HOLD",
                "IGNORE",
                name="on_failure",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            server_default="SKIP",
            nullable=False,
        ),
        sa.CheckConstraint(
            "dependent_id <> dependency_id", name=op.f("ck_task_dependencies_two_tasks")
        ),
        sa.ForeignKeyConstraint(
            ["dependency_id"],
            ["tasks.id"],
            name=op.f("fk_task_dependencies_dependency_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["dependent_id"],
            ["tasks.id"],
            name=op.f("fk_task_dependencies_dependent_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("dependent_id", "dependency_id", name=op.f("pk_task_dependencies")),
    )
    op.create_index(
        op.f("ix_task_dependencies_dependency_id"),
        "task_dependencies",
        ["dependency_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_task_dependencies_dependency_id"), table_name="task_dependencies")
    op.drop_table("task_dependencies")
    op.drop_index(op.f("ix_messages_user_id_sequence_id"), table_name="messages")
    op.drop_index(op.f("ix_messages_timestamp_id"), table_name="messages")
    op.drop_index(op.f("ix_messages_sequence_id"), table_name="messages")
    op.drop_index("ix_messages_search", table_name="messages", postgresql_using="gin")
    op.drop_index(op.f("ix_messages_model_id_sequence_id"), table_name="messages")
    op.drop_index(op.f("ix_messages_conversation_id_timestamp_id"), table_name="messages")
    op.drop_index(op.f("ix_messages_agent_id_sequence_id"), table_name="messages")
    op.drop_table("messages")
    op.drop_index(op.f("ix_tasks_status"), table_name="tasks")
    op.drop_index(
        "ix_tasks_ready",
        table_name="tasks",
        postgresql_where=sa.text(
            "status IN ('PENDING', 'ASSIGNED') AND unmet_dependency_count = 0"
        ),
    )
    op.drop_index(op.f("ix_tasks_project_id_priority_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_project_id_created_at_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_priority_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_parent_task_id_created_at_id"), table_name="tasks")
    op.drop_index(
        "ix_tasks_lease_expires_at",
        table_name="tasks",
        postgresql_where=sa.text("lease_expires_at IS NOT NULL"),
    )
    op.drop_index(op.f("ix_tasks_created_by_user_id_created_at_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_created_by_agent_id_created_at_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_created_at_id"), table_name="tasks")
    op.drop_index(op.f("ix_tasks_agent_id_created_at_id"), table_name="tasks")
    op.drop_table("tasks")
    op.drop_index(op.f("ix_conversations_user_id_created_at_id"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_updated_at_id"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_status"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_project_id_updated_at_id"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_project_id_created_at_id"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_created_at_id"), table_name="conversations")
    op.drop_index(op.f("ix_conversations_agent_id_created_at_id"), table_name="conversations")
    op.drop_table("conversations")
    op.drop_index(op.f("ix_access_tokens_user_id_created_at_id"), table_name="access_tokens")
    op.drop_index(op.f("ix_access_tokens_created_at_id"), table_name="access_tokens")
    op.drop_index(op.f("ix_access_tokens_agent_id_created_at_id"), table_name="access_tokens")
    op.drop_table("access_tokens")
    op.drop_index(op.f("ix_agents_type"), table_name="agents")
    op.drop_index(op.f("ix_agents_status"), table_name="agents")
    op.drop_index(op.f("ix_agents_project_id_name_id"), table_name="agents")
    op.drop_index(op.f("ix_agents_project_id_created_at_id"), table_name="agents")
    op.drop_index(op.f("ix_agents_name_id"), table_name="agents")
    op.drop_index(op.f("ix_agents_model_id_created_at_id"), table_name="agents")
    op.drop_index(op.f("ix_agents_created_at_id"), table_name="agents")
    op.drop_table("agents")
    op.drop_index(op.f("ix_projects_updated_at_id"), table_name="projects")
    op.drop_index(op.f("ix_projects_status"), table_name="projects")
    op.drop_index(op.f("ix_projects_owner_id_created_at_id"), table_name="projects")
    op.drop_index(op.f("ix_projects_name_id"), table_name="projects")
    op.drop_index(op.f("ix_projects_created_at_id"), table_name="projects")
    op.drop_table("projects")
    op.drop_index(op.f("ix_users_username_id"), table_name="users")
    op.drop_index(op.f("ix_users_created_at_id"), table_name="users")
    op.drop_table("users")
    op.drop_index(op.f("ix_ai_models_status"), table_name="ai_models")
    op.drop_index(op.f("ix_ai_models_provider_id"), table_name="ai_models")
    op.drop_index(op.f("ix_ai_models_created_at_id"), table_name="ai_models")
    op.drop_table("ai_models")
