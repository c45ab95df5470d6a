"""Usernames and addresses are the same whatever their case and their form of Unicode.

Where two users differ in nothing else, nothing is changed, and the error names them.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import aggregate_order_by

from db.migrate import NotMigratable

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COLUMNS = ("username", "email")


def upgrade() -> None:
    if alike := [pair for column in COLUMNS for pair in _alike(column)]:
        raise NotMigratable(
            "Usernames and e-mail addresses are now the same whatever their case, and these are not"
            f" unique then: {'; '.join(alike)}. Nothing was changed. Rename one of each, by"
            " updateUser on the version that you had or by an UPDATE in `troupe psql`, and migrate"
            " again"
        )
    for column in COLUMNS:
        op.drop_constraint(op.f(f"uq_users_{column}"), "users", type_="unique")
        op.create_index(
            op.f(f"uq_users_{column}"), "users", [sa.text(f"folded({column})")], unique=True
        )


def downgrade() -> None:
    for column in COLUMNS:
        op.drop_index(op.f(f"uq_users_{column}"), table_name="users")
        op.create_unique_constraint(op.f(f"uq_users_{column}"), "users", [column])


def _alike(column: str) -> list[str]:
    """The spellings that one username or address has, for each that has several."""
    name = sa.column(column, sa.String)
    spellings = sa.func.array_agg(aggregate_order_by(name, name))
    alike = sa.select(spellings).select_from(sa.table("users")).group_by(sa.func.folded(name))
    found = op.get_bind().scalars(alike.having(sa.func.count() > 1).order_by(spellings))
    return [f"the {column} {' and '.join(map(repr, each))}" for each in found]
