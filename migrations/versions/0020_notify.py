"""Numbering events notifies those who follow the event log of the last position.

Who waits for an answer follows the log too, and needs no notification of its own.
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

NUMBER = """
CREATE OR REPLACE FUNCTION number_events(
  above bigint, most integer, OUT numbered bigint, OUT newest bigint
)
LANGUAGE plpgsql
SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $$
DECLARE
  start bigint;
  reached bigint;
BEGIN
  numbered := 0;
  IF NOT EXISTS (SELECT FROM events WHERE position IS NULL AND id > above) THEN
    RETURN;
  END IF;
  SELECT last_position INTO STRICT start FROM event_positions FOR UPDATE;
  WITH batch AS (
    SELECT id, created_at, row_number() OVER (ORDER BY id) AS place
    FROM (
      SELECT id, created_at FROM events WHERE position IS NULL AND id > above ORDER BY id LIMIT most
    ) unnumbered
  ), changed AS (
    UPDATE events e SET position = start + place
    FROM batch WHERE e.id = batch.id AND e.created_at = batch.created_at
    RETURNING e.id, e.position
  )
  SELECT count(*), max(id), max(position) INTO numbered, newest, reached FROM changed;
  UPDATE event_positions SET last_position = reached WHERE reached IS NOT NULL;
{notify}END
$$
"""

NOTIFY = """\
  IF reached IS NOT NULL THEN
    PERFORM pg_notify('events', reached::text);
  END IF;
"""

ENDED = """
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
    op.execute(NUMBER.format(notify=NOTIFY))
    op.execute("DROP FUNCTION notify_interaction_ended() CASCADE")


def downgrade() -> None:
    for statement in (ENDED, *TRIGGERS, NUMBER.format(notify="")):
        op.execute(statement)
