"""Messages to an agent that is TERMINATED have failed."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

# Whoever terminates the agent locks it FOR UPDATE: a message that is sent meanwhile waits here, and
# sees the new status. The project is locked before, as by whoever deletes it.
FAIL = """
CREATE FUNCTION fail_communication() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
DECLARE
  receiver text;
BEGIN
  PERFORM FROM projects p WHERE p.id = NEW.project_id FOR KEY SHARE;
  SELECT a.status INTO receiver FROM agents a WHERE a.id = NEW.to_agent_id FOR KEY SHARE;
  IF receiver = 'TERMINATED' AND NEW.status IN ('SENT', 'DELIVERED') THEN
    NEW.status := 'FAILED';
  END IF;
  RETURN NEW;
END
$$
"""

# What is made besides tables.
MADE = (
    FAIL,
    "CREATE TRIGGER fail_communication BEFORE INSERT ON communications"
    " FOR EACH ROW EXECUTE FUNCTION fail_communication()",
)


def upgrade() -> None:
    for statement in MADE:
        op.execute(statement)
    op.execute(
        "UPDATE communications c SET status = 'FAILED', lease_expires_at = NULL, updated_at = now()"
        " FROM agents a WHERE a.id = c.to_agent_id AND a.status = 'TERMINATED'"
        " AND c.status IN ('SENT', 'DELIVERED')"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION fail_communication CASCADE")
