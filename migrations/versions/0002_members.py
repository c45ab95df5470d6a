"""Members of projects. The owner of each project becomes its first member."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "role",
            sa.Enum(
                "OWNER",
                "EDITOR",
                "APPROVER",
                "VIEWER",
                name="member_role",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_project_members_project_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_project_members_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "user_id", name=op.f("pk_project_members")),
    )
    op.create_index(
        op.f("ix_project_members_user_id"), "project_members", ["user_id"], unique=False
    )
    # Owners keep their rights as members.
    projects = sa.table("projects", sa.column("id", sa.Uuid), sa.column("owner_id", sa.Uuid))
    table = sa.table("project_members", *map(sa.column, ("project_id", "user_id", "role")))
    owners = sa.select(projects.c.id, projects.c.owner_id, sa.bindparam("role", "OWNER", sa.String))
    op.execute(
        sa.insert(table).from_select(
            ["project_id", "user_id", "role"], owners.where(projects.c.owner_id.is_not(None))
        )
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_project_members_user_id"), table_name="project_members")
    op.drop_table("project_members")
