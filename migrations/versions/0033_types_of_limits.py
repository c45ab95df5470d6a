"""Refuse a limit of the tasks without a type: claims keep it, and nothing can say why."""

from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None

NAME = "ck_projects_max_tasks_by_type_numbers"
NUMBERS = (
    "jsonb_typeof(max_tasks_by_type) = 'object'"
    " AND NOT jsonb_path_exists(max_tasks_by_type, '$.* ?"
    ' (@.type() != "number" || @ < 0 || @ > 1000000000 || @ != @.floor())\')'
)


def upgrade() -> None:
    op.execute(
        "UPDATE projects SET max_tasks_by_type = max_tasks_by_type - ''"
        " WHERE jsonb_exists(max_tasks_by_type, '')"
    )
    op.drop_constraint(op.f(NAME), "projects", type_="check")
    op.create_check_constraint(
        op.f(NAME), "projects", f"{NUMBERS} AND NOT jsonb_exists(max_tasks_by_type, '')"
    )


def downgrade() -> None:
    op.drop_constraint(op.f(NAME), "projects", type_="check")
    op.create_check_constraint(op.f(NAME), "projects", NUMBERS)
