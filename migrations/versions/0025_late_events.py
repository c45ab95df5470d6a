"""Events of long transactions are kept as long as others, and it is known what was dropped.

An event has the time when its transaction began, by which it is dropped. So an event of a very long
transaction, or one that was imported, could be dropped as soon as it had a position, and before
later positions were. One that is older than events are kept gets the time of its position.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

NUMBER = """
CREATE FUNCTION number_events(
  above bigint, most integer, {days}OUT numbered bigint, OUT newest bigint
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
    UPDATE events e SET position = start + place{late}
    FROM batch WHERE e.id = batch.id AND e.created_at = batch.created_at
    RETURNING e.id, e.position
  )
  SELECT count(*), max(id), max(position) INTO numbered, newest, reached FROM changed;
  UPDATE event_positions SET last_position = reached WHERE reached IS NOT NULL;
  IF reached IS NOT NULL THEN
    PERFORM pg_notify('events', reached::text);
  END IF;
END
$$
"""

# A server of the version before passes no number of days.
DAYS = "days integer DEFAULT NULL, "

# The day is the one of db/events/partitions.py.
LATE = """, created_at = CASE
      WHEN e.created_at < date_trunc('day', now(), 'UTC') - make_interval(days => days) THEN now()
      ELSE e.created_at
    END"""

DROP = """
CREATE OR REPLACE FUNCTION drop_events(kept timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '200ms'
AS $$
DECLARE
  name text;
  is_needed boolean;
  newest bigint;
  dropped bigint := 0;
BEGIN
  FOR name IN
    SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'events'::regclass AND relname <> 'events_default'
  LOOP
    IF to_timestamp(name, '"events_"YYYY_MM_DD') + interval '1 week' <= kept THEN
      EXECUTE format('LOCK TABLE %I', name);
      EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE position IS NULL)', name) INTO is_needed;
      IF NOT is_needed THEN
        EXECUTE format('SELECT max(position) FROM %I', name) INTO newest;
        dropped := greatest(dropped, newest);
        EXECUTE format('DROP TABLE %I', name);
      END IF;
    END IF;
  END LOOP;
  WITH gone AS (
    DELETE FROM events_default WHERE position IS NOT NULL AND created_at < kept RETURNING position
  )
  SELECT max(position) INTO newest FROM gone;
  dropped := greatest(dropped, newest);
  UPDATE event_positions SET dropped_position = dropped WHERE dropped > dropped_position;
END
$$
"""

DROP_BEFORE = """
CREATE OR REPLACE FUNCTION drop_events(kept timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '200ms'
AS $$
DECLARE
  name text;
  is_needed boolean;
BEGIN
  FOR name IN
    SELECT relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
    WHERE inhparent = 'events'::regclass AND relname <> 'events_default'
  LOOP
    IF to_timestamp(name, '"events_"YYYY_MM_DD') + interval '1 week' <= kept THEN
      EXECUTE format('LOCK TABLE %I', name);
      EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE position IS NULL)', name) INTO is_needed;
      IF NOT is_needed THEN
        EXECUTE format('DROP TABLE %I', name);
      END IF;
    END IF;
  END LOOP;
  DELETE FROM events_default WHERE position IS NOT NULL AND created_at < kept;
END
$$
"""

# What is missing at the beginning was dropped.
DROPPED = """
UPDATE event_positions SET dropped_position = coalesce(
  (SELECT min(position) - 1 FROM events WHERE position IS NOT NULL), last_position
)
"""


def upgrade() -> None:
    column = sa.Column(
        "dropped_position", sa.BigInteger, server_default=sa.text("0"), nullable=False
    )
    op.add_column("event_positions", column)
    op.execute("DROP FUNCTION number_events(bigint, integer)")
    for statement in (DROPPED, NUMBER.format(days=DAYS, late=LATE), DROP):
        op.execute(statement)


def downgrade() -> None:
    op.execute(DROP_BEFORE)
    op.execute("DROP FUNCTION number_events(bigint, integer, integer)")
    op.execute(NUMBER.format(days="", late=""))
    op.drop_column("event_positions", "dropped_position")
