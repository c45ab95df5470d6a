"""Indexes for orders by `updated_at`, the collation `unicode_case`, a CHECK on scopes."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

from db.migrate import NO_COLLATION, NotMigratable

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = (
    "agents",
    "ai_models",
    "communications",
    "human_interactions",
    "tasks",
    "tools",
    "users",
)

# The first PostgreSQL with a builtin collation for all letters.
BUILTIN = (17,)

# The SQLSTATE for a locale that the operating system does not have.
UNKNOWN_LOCALE = "22023"


def upgrade() -> None:
    for table in TABLES:
        op.create_index(f"ix_{table}_updated_at_id", table, ["updated_at", "id"])
    op.create_index(
        "ix_tasks_project_id_updated_at_id", "tasks", ["project_id", "updated_at", "id"]
    )
    collation()
    op.create_check_constraint(
        op.f("ck_access_tokens_scopes"),
        "access_tokens",
        "scopes <@ ARRAY['READ', 'WORK', 'WRITE', 'ADMINISTER']::varchar[]",
    )


def collation() -> None:
    """Make the collation, which maps the case of all letters."""
    try:
        op.execute(f"CREATE COLLATION unicode_case ({provider()})")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == UNKNOWN_LOCALE:
            raise NotMigratable(NO_COLLATION) from error
        raise


def provider() -> str:
    """The provider of the collation: PostgreSQL itself, or ICU, or the operating system."""
    connection = op.get_bind()
    if (connection.dialect.server_version_info or ()) >= BUILTIN:
        return "provider = builtin, locale = 'C.UTF-8'"
    has_icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu')"
    if connection.scalar(sa.text(has_icu)):
        return "provider = icu, locale = 'und'"
    return "provider = libc, locale = 'C.UTF-8'"


def downgrade() -> None:
    op.drop_constraint(op.f("ck_access_tokens_scopes"), "access_tokens", type_="check")
    op.execute("DROP COLLATION unicode_case")
    op.drop_index("ix_tasks_project_id_updated_at_id", table_name="tasks")
    for table in reversed(TABLES):
        op.drop_index(f"ix_{table}_updated_at_id", table_name=table)
