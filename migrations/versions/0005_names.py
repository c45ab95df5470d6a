"""Unique names ignore the form of Unicode, and those of users their case.

If names of existing rows are equal by these rules, nothing is changed, and the error names them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import aggregate_order_by

from db.migrate import NotMigratable

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

USERS = ("username", "email")
# The tables, columns and expressions that must be unique.
NAMES = [("users", name, f"folded({name})") for name in USERS] + [
    ("agents", "name", "project_id, normalize(name, NFC)"),
    ("tools", "name", "project_id, normalize(name, NFC), normalize(tool_version, NFC)"),
]
COMPOSED = [("agents", "name"), ("projects", "name"), ("tools", "name"), ("tools", "tool_version")]


def upgrade() -> None:
    if alike := [each for name in NAMES for each in _alike(*name)]:
        raise NotMigratable(
            "Names are now the same whatever their form of Unicode, and those of users whatever"
            f" their case. These are not unique then: {'; '.join(alike)}. Nothing was changed."
            " Rename one of each, by the API of the version that you had or by an UPDATE in"
            " `troupe psql`, and migrate again"
        )
    for column in USERS:
        op.drop_constraint(op.f(f"uq_users_{column}"), "users", type_="unique")
        folded = [sa.text(f"folded({column})")]
        op.create_index(op.f(f"uq_users_{column}"), "users", folded, unique=True)
    for table, column in COMPOSED:
        name = sa.column(column, sa.String)
        composed = sa.func.normalize(name, sa.text("NFC"))
        op.execute(
            sa.update(sa.table(table, name)).values({column: composed}).where(name != composed)
        )


def downgrade() -> None:
    for column in USERS:
        op.drop_index(op.f(f"uq_users_{column}"), table_name="users")
        op.create_unique_constraint(op.f(f"uq_users_{column}"), "users", [column])


def _alike(table: str, column: str, same: str) -> list[str]:
    """For each name with several spellings in a table, these spellings."""
    name = sa.column(column, sa.String)
    spellings = sa.func.array_agg(aggregate_order_by(name, name))
    alike = sa.select(spellings).select_from(sa.table(table)).group_by(sa.text(same))
    found = op.get_bind().scalars(alike.having(sa.func.count() > 1).order_by(spellings))
    return [f"in {table}, the {column} {' and '.join(map(ascii, each))}" for each in found]
