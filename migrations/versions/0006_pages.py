"""Indexes for connections that were lists: they serve the ordered pages of one parent."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index(op.f("ix_agent_tools_tool_id"), table_name="agent_tools")
    op.create_index(
        op.f("ix_agent_tools_tool_id_agent_id"),
        "agent_tools",
        ["tool_id", "agent_id"],
        unique=False,
    )
    op.drop_index(op.f("ix_project_members_user_id"), table_name="project_members")
    op.create_index(
        op.f("ix_project_members_user_id_project_id"),
        "project_members",
        ["user_id", "project_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_task_attempts_task_id_started_at_id"),
        "task_attempts",
        ["task_id", "started_at", "id"],
        unique=False,
    )
    op.drop_index(op.f("ix_task_dependencies_dependency_id"), table_name="task_dependencies")
    op.create_index(
        op.f("ix_task_dependencies_dependency_id_dependent_id"),
        "task_dependencies",
        ["dependency_id", "dependent_id"],
        unique=False,
    )


def downgrade() -> None:
    op.drop_index(
        op.f("ix_task_dependencies_dependency_id_dependent_id"), table_name="task_dependencies"
    )
    op.create_index(
        op.f("ix_task_dependencies_dependency_id"),
        "task_dependencies",
        ["dependency_id"],
        unique=False,
    )
    op.drop_index(op.f("ix_task_attempts_task_id_started_at_id"), table_name="task_attempts")
    op.drop_index(op.f("ix_project_members_user_id_project_id"), table_name="project_members")
    op.create_index(
        op.f("ix_project_members_user_id"), "project_members", ["user_id"], unique=False
    )
    op.drop_index(op.f("ix_agent_tools_tool_id_agent_id"), table_name="agent_tools")
    op.create_index(op.f("ix_agent_tools_tool_id"), "agent_tools", ["tool_id"], unique=False)
