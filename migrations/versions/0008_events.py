"""The event log: its table, the functions and triggers that write it, and its positions.

Rows that exist already have no events. The triggers are generated from the models by
`db/events/triggers.py`; a later change of them is another migration.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The rows that TRUNCATE removes are deleted first, which is logged.
TRUNCATE = """
CREATE FUNCTION log_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DELETE FROM %s', TG_RELID::regclass);
  RETURN NULL;
END
$$
"""

# These two run as the owner of the tables. They do not wait long for a table in use, because
# statements that come later wait behind them. ATTACH, unlike CREATE TABLE … PARTITION OF, does not
# wait for transactions that write events.
CREATE_PARTITIONS = """
CREATE FUNCTION create_event_partitions(since timestamptz, weeks integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET timezone = 'UTC' SET lock_timeout = '200ms'
AS $$
DECLARE
  week timestamptz := date_trunc('week', since);
  until timestamptz;
  name text;
BEGIN
  FOR number IN 1..weeks LOOP
    until := week + interval '1 week';
    name := to_char(week, '"events_"YYYY_MM_DD');
    IF to_regclass(name) IS NULL THEN
      EXECUTE format(
        'CREATE TABLE %I (LIKE events INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name
      );
      -- No server may have run when the week began.
      EXECUTE format(
        'WITH moved AS (DELETE FROM events_default WHERE created_at >= $1 AND created_at < $2'
        ' RETURNING *) INSERT INTO %I SELECT * FROM moved',
        name
      ) USING week, until;
      EXECUTE format(
        'ALTER TABLE events ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, week, until
      );
    END IF;
    week := until;
  END LOOP;
END
$$
"""

DROP_EVENTS = """
CREATE FUNCTION drop_events(kept timestamptz) RETURNS void
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

# Only this function writes positions. It may run in several transactions at once: they wait for
# each other at the last position, and each statement sees what was committed before it began.
NUMBER = """
CREATE FUNCTION number_events(above bigint, most integer, OUT numbered bigint, OUT newest bigint)
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
END
$$
"""

TABLES = {
    "ai_models": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.model_version IS NULL THEN 'model_version' END, CASE WHEN
        n.context_window IS NULL THEN 'context_window' END, CASE WHEN n.input_price IS NULL
        THEN 'input_price' END, CASE WHEN n.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN n.output_price IS NULL THEN 'output_price' END
      ]
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, output_price, is_local, status, model_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(o.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(o.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(o.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        o.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(o.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(o.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(o.cached_input_price)::text, 'null')
        END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(o.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || o.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || o.model_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":'
        || to_json(n.id)::text END, CASE WHEN o.provider IS DISTINCT FROM n.provider THEN
        ',"provider":' || to_json(n.provider)::text END, CASE WHEN o.model_version IS
        DISTINCT FROM n.model_version THEN ',"model_version":' ||
        coalesce(to_json(n.model_version)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.capabilities), ROW(n.capabilities)) THEN ',"capabilities":' ||
        n.capabilities::text END, CASE WHEN o.context_window IS DISTINCT FROM
        n.context_window THEN ',"context_window":' || coalesce(n.context_window::text,
        'null') END, CASE WHEN o.input_price IS DISTINCT FROM n.input_price THEN
        ',"input_price":' || coalesce(to_json(n.input_price)::text, 'null') END, CASE WHEN
        o.cached_input_price IS DISTINCT FROM n.cached_input_price THEN
        ',"cached_input_price":' || coalesce(to_json(n.cached_input_price)::text, 'null')
        END, CASE WHEN o.output_price IS DISTINCT FROM n.output_price THEN
        ',"output_price":' || coalesce(to_json(n.output_price)::text, 'null') END, CASE WHEN
        o.is_local IS DISTINCT FROM n.is_local THEN ',"is_local":' || n.is_local::text END,
        CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status ||
        '"' END, CASE WHEN record_image_ne(ROW(o.model_metadata), ROW(n.model_metadata))
        THEN ',"model_metadata":' || n.model_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.created_at, o.id, o.provider, o.model_version, o.capabilities, o.context_window,
      o.input_price, o.cached_input_price, o.output_price, o.is_local, o.status,
      o.model_metadata),
      ROW(n.created_at, n.id, n.provider, n.model_version, n.capabilities, n.context_window,
      n.input_price, n.cached_input_price, n.output_price, n.is_local, n.status,
      n.model_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      NULL::uuid,
      'AIModel',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.model_version IS NULL THEN 'model_version' END, CASE WHEN
        o.context_window IS NULL THEN 'context_window' END, CASE WHEN o.input_price IS NULL
        THEN 'input_price' END, CASE WHEN o.cached_input_price IS NULL THEN
        'cached_input_price' END, CASE WHEN o.output_price IS NULL THEN 'output_price' END
      ],
      NULL
    FROM (
      SELECT created_at, id, provider, model_version, capabilities, context_window,
             input_price, cached_input_price, output_price, is_local, status, model_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "users": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      n.id,
      'User',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.display_name IS NULL THEN 'display_name' END
      ]
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      coalesce(n.id, o.id),
      'User',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(o.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(o.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(o.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || o.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || o.is_active::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.username IS DISTINCT FROM n.username
        THEN ',"username":' || to_json(n.username)::text END, CASE WHEN o.email IS DISTINCT
        FROM n.email THEN ',"email":' || to_json(n.email)::text END, CASE WHEN
        o.display_name IS DISTINCT FROM n.display_name THEN ',"display_name":' ||
        coalesce(to_json(n.display_name)::text, 'null') END, CASE WHEN o.role IS DISTINCT
        FROM n.role THEN ',"role":' || '"' || n.role || '"' END, CASE WHEN o.is_active IS
        DISTINCT FROM n.is_active THEN ',"is_active":' || n.is_active::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.username, o.email, o.display_name, o.role, o.is_active),
      ROW(n.id, n.created_at, n.username, n.email, n.display_name, n.role, n.is_active)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      NULL::uuid,
      o.id,
      'User',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.display_name IS NULL THEN 'display_name' END
      ],
      NULL
    FROM (
      SELECT id, created_at, username, email, display_name, role, is_active
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "projects": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.id,
      NULL::uuid,
      'Project',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.description IS NULL THEN 'description' END, CASE WHEN n.owner_id IS NULL
        THEN 'owner_id' END
      ]
    FROM (
      SELECT id, created_at, name, description, status, owner_id, project_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.id, o.id),
      NULL::uuid,
      'Project',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(o.name)::text END, CASE WHEN
        record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
        coalesce(o.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.owner_id IS
        DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || o.owner_id || '"',
        'null') END, CASE WHEN record_image_ne(ROW(o.project_metadata),
        ROW(n.project_metadata)) THEN ',"project_metadata":' || o.project_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(n.name)::text END, CASE WHEN
        record_image_ne(ROW(o.description), ROW(n.description)) THEN ',"description":' ||
        coalesce(n.description::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.owner_id IS
        DISTINCT FROM n.owner_id THEN ',"owner_id":' || coalesce('"' || n.owner_id || '"',
        'null') END, CASE WHEN record_image_ne(ROW(o.project_metadata),
        ROW(n.project_metadata)) THEN ',"project_metadata":' || n.project_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.name, o.description, o.status, o.owner_id, o.project_metadata),
      ROW(n.id, n.created_at, n.name, n.description, n.status, n.owner_id, n.project_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.id,
      NULL::uuid,
      'Project',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.owner_id IS NULL
        THEN 'owner_id' END
      ],
      NULL
    FROM (
      SELECT id, created_at, name, description, status, owner_id, project_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "agents": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'Agent',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.description IS NULL THEN 'description' END, CASE WHEN n.model_id IS NULL
        THEN 'model_id' END, CASE WHEN n.prompt_template IS NULL THEN 'prompt_template' END,
        CASE WHEN n.last_seen_at IS NULL THEN 'last_seen_at' END
      ]
    FROM (
      SELECT id, created_at, project_id, name, type, description, status, is_active,
             model_id, prompt_template, configuration, max_concurrent_tasks, last_seen_at,
             agent_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'Agent',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
        o.name IS DISTINCT FROM n.name THEN ',"name":' || to_json(o.name)::text END, CASE
        WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' || to_json(o.type)::text END,
        CASE WHEN o.description IS DISTINCT FROM n.description THEN ',"description":' ||
        coalesce(to_json(o.description)::text, 'null') END, CASE WHEN o.status IS DISTINCT
        FROM n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.is_active
        IS DISTINCT FROM n.is_active THEN ',"is_active":' || o.is_active::text END, CASE
        WHEN o.model_id IS DISTINCT FROM n.model_id THEN ',"model_id":' ||
        coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN o.prompt_template IS
        DISTINCT FROM n.prompt_template THEN ',"prompt_template":' ||
        coalesce(to_json(o.prompt_template)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.configuration), ROW(n.configuration)) THEN ',"configuration":'
        || o.configuration::text END, CASE WHEN o.max_concurrent_tasks IS DISTINCT FROM
        n.max_concurrent_tasks THEN ',"max_concurrent_tasks":' ||
        o.max_concurrent_tasks::text END, CASE WHEN o.last_seen_at IS DISTINCT FROM
        n.last_seen_at THEN ',"last_seen_at":' || coalesce(to_json(o.last_seen_at)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.agent_metadata), ROW(n.agent_metadata))
        THEN ',"agent_metadata":' || o.agent_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
        o.name IS DISTINCT FROM n.name THEN ',"name":' || to_json(n.name)::text END, CASE
        WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' || to_json(n.type)::text END,
        CASE WHEN o.description IS DISTINCT FROM n.description THEN ',"description":' ||
        coalesce(to_json(n.description)::text, 'null') END, CASE WHEN o.status IS DISTINCT
        FROM n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.is_active
        IS DISTINCT FROM n.is_active THEN ',"is_active":' || n.is_active::text END, CASE
        WHEN o.model_id IS DISTINCT FROM n.model_id THEN ',"model_id":' ||
        coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN o.prompt_template IS
        DISTINCT FROM n.prompt_template THEN ',"prompt_template":' ||
        coalesce(to_json(n.prompt_template)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.configuration), ROW(n.configuration)) THEN ',"configuration":'
        || n.configuration::text END, CASE WHEN o.max_concurrent_tasks IS DISTINCT FROM
        n.max_concurrent_tasks THEN ',"max_concurrent_tasks":' ||
        n.max_concurrent_tasks::text END, CASE WHEN o.last_seen_at IS DISTINCT FROM
        n.last_seen_at THEN ',"last_seen_at":' || coalesce(to_json(n.last_seen_at)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.agent_metadata), ROW(n.agent_metadata))
        THEN ',"agent_metadata":' || n.agent_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.name, o.type, o.description, o.status,
      o.is_active, o.model_id, o.prompt_template, o.configuration, o.max_concurrent_tasks,
      o.last_seen_at, o.agent_metadata),
      ROW(n.id, n.created_at, n.project_id, n.name, n.type, n.description, n.status,
      n.is_active, n.model_id, n.prompt_template, n.configuration, n.max_concurrent_tasks,
      n.last_seen_at, n.agent_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Agent',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.model_id IS NULL
        THEN 'model_id' END, CASE WHEN o.prompt_template IS NULL THEN 'prompt_template' END,
        CASE WHEN o.last_seen_at IS NULL THEN 'last_seen_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, name, type, description, status, is_active,
             model_id, prompt_template, configuration, max_concurrent_tasks, last_seen_at,
             agent_metadata
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
  END IF;
  RETURN NULL;
END
""",
    "project_members": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'ProjectMember',
      n.project_id::text,
      'CREATED',
      NULL,
      to_jsonb(n)
    FROM (
      SELECT project_id, user_id, role
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'ProjectMember',
      coalesce(n.project_id, o.project_id)::text,
      CASE
        WHEN o.project_id IS NULL THEN 'CREATED'
        WHEN n.project_id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.project_id IS NOT NULL THEN ('{' || substr(concat(
        ',"project_id":' || '"' || o.project_id || '"', ',"user_id":' || '"' || o.user_id ||
        '"', CASE WHEN o.role IS DISTINCT FROM n.role THEN ',"role":' || '"' || o.role ||
        '"' END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.project_id IS NOT NULL THEN ('{' || substr(concat(
        ',"project_id":' || '"' || n.project_id || '"', ',"user_id":' || '"' || n.user_id ||
        '"', CASE WHEN o.role IS DISTINCT FROM n.role THEN ',"role":' || '"' || n.role ||
        '"' END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.project_id = o.project_id AND n.user_id = o.user_id
    WHERE record_image_ne(
      ROW(o.project_id, o.user_id, o.role),
      ROW(n.project_id, n.user_id, n.role)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'ProjectMember',
      o.project_id::text,
      'DELETED',
      to_jsonb(o),
      NULL
    FROM (
      SELECT project_id, user_id, role
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "tools": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'Tool',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.project_id IS NULL THEN 'project_id' END, CASE WHEN n.description IS
        NULL THEN 'description' END, CASE WHEN n.capability IS NULL THEN 'capability' END,
        CASE WHEN n.tool_schema IS NULL THEN 'tool_schema' END, CASE WHEN
        n.documentation_url IS NULL THEN 'documentation_url' END
      ]
    FROM (
      SELECT id, created_at, project_id, name, tool_version, description, capability,
             source, tool_schema, documentation_url, status, definition_hash, tool_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'Tool',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || o.project_id || '"', 'null')
        END, CASE WHEN o.name IS DISTINCT FROM n.name THEN ',"name":' ||
        to_json(o.name)::text END, CASE WHEN o.tool_version IS DISTINCT FROM n.tool_version
        THEN ',"tool_version":' || to_json(o.tool_version)::text END, CASE WHEN
        o.description IS DISTINCT FROM n.description THEN ',"description":' ||
        coalesce(to_json(o.description)::text, 'null') END, CASE WHEN o.capability IS
        DISTINCT FROM n.capability THEN ',"capability":' ||
        coalesce(to_json(o.capability)::text, 'null') END, CASE WHEN o.source IS DISTINCT
        FROM n.source THEN ',"source":' || '"' || o.source || '"' END, CASE WHEN
        record_image_ne(ROW(o.tool_schema), ROW(n.tool_schema)) THEN ',"tool_schema":' ||
        coalesce(o.tool_schema::text, 'null') END, CASE WHEN o.documentation_url IS DISTINCT
        FROM n.documentation_url THEN ',"documentation_url":' ||
        coalesce(to_json(o.documentation_url)::text, 'null') END, CASE WHEN o.status IS
        DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
        o.definition_hash IS DISTINCT FROM n.definition_hash THEN ',"definition_hash":' ||
        to_json(o.definition_hash)::text END, CASE WHEN
        record_image_ne(ROW(o.tool_metadata), ROW(n.tool_metadata)) THEN ',"tool_metadata":'
        || o.tool_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || n.project_id || '"', 'null')
        END, CASE WHEN o.name IS DISTINCT FROM n.name THEN ',"name":' ||
        to_json(n.name)::text END, CASE WHEN o.tool_version IS DISTINCT FROM n.tool_version
        THEN ',"tool_version":' || to_json(n.tool_version)::text END, CASE WHEN
        o.description IS DISTINCT FROM n.description THEN ',"description":' ||
        coalesce(to_json(n.description)::text, 'null') END, CASE WHEN o.capability IS
        DISTINCT FROM n.capability THEN ',"capability":' ||
        coalesce(to_json(n.capability)::text, 'null') END, CASE WHEN o.source IS DISTINCT
        FROM n.source THEN ',"source":' || '"' || n.source || '"' END, CASE WHEN
        record_image_ne(ROW(o.tool_schema), ROW(n.tool_schema)) THEN ',"tool_schema":' ||
        coalesce(n.tool_schema::text, 'null') END, CASE WHEN o.documentation_url IS DISTINCT
        FROM n.documentation_url THEN ',"documentation_url":' ||
        coalesce(to_json(n.documentation_url)::text, 'null') END, CASE WHEN o.status IS
        DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
        o.definition_hash IS DISTINCT FROM n.definition_hash THEN ',"definition_hash":' ||
        to_json(n.definition_hash)::text END, CASE WHEN
        record_image_ne(ROW(o.tool_metadata), ROW(n.tool_metadata)) THEN ',"tool_metadata":'
        || n.tool_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.name, o.tool_version, o.description, o.capability,
      o.source, o.tool_schema, o.documentation_url, o.status, o.definition_hash,
      o.tool_metadata),
      ROW(n.id, n.created_at, n.project_id, n.name, n.tool_version, n.description, n.capability,
      n.source, n.tool_schema, n.documentation_url, n.status, n.definition_hash,
      n.tool_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Tool',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.project_id IS NULL THEN 'project_id' END, CASE WHEN o.description IS
        NULL THEN 'description' END, CASE WHEN o.capability IS NULL THEN 'capability' END,
        CASE WHEN o.tool_schema IS NULL THEN 'tool_schema' END, CASE WHEN
        o.documentation_url IS NULL THEN 'documentation_url' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, name, tool_version, description, capability,
             source, tool_schema, documentation_url, status, definition_hash, tool_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "access_tokens": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN n.agent_id
        ELSE coalesce(p.owner_id, n.user_id)
      END,
      'AccessToken',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        n.revoked_at IS NULL THEN 'revoked_at' END
      ]
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = n.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = n.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN coalesce(n.agent_id, o.agent_id)
        ELSE coalesce(p.owner_id, coalesce(n.user_id, o.user_id))
      END,
      'AccessToken',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(o.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(o.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || o.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(o.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(o.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.name IS DISTINCT FROM n.name THEN
        ',"name":' || to_json(n.name)::text END, CASE WHEN o.prefix IS DISTINCT FROM
        n.prefix THEN ',"prefix":' || to_json(n.prefix)::text END, CASE WHEN o.user_id IS
        DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || n.user_id || '"',
        'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' ||
        coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN o.scopes IS DISTINCT FROM
        n.scopes THEN ',"scopes":' || to_json(n.scopes)::text END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.revoked_at IS
        DISTINCT FROM n.revoked_at THEN ',"revoked_at":' ||
        coalesce(to_json(n.revoked_at)::text, 'null') END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = coalesce(n.agent_id, o.agent_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = coalesce(n.agent_id, o.agent_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.name, o.prefix, o.user_id, o.agent_id, o.scopes, o.expires_at,
      o.revoked_at),
      ROW(n.id, n.created_at, n.name, n.prefix, n.user_id, n.agent_id, n.scopes, n.expires_at,
      n.revoked_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN o.agent_id
        ELSE coalesce(p.owner_id, o.user_id)
      END,
      'AccessToken',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END, CASE WHEN
        o.revoked_at IS NULL THEN 'revoked_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, name, prefix, user_id, agent_id, scopes, expires_at, revoked_at
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = o.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = o.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    "agent_tools": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.agent_id IS NOT NULL
        THEN n.agent_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'AgentTool',
      n.agent_id::text,
      'CREATED',
      NULL,
      to_jsonb(n)
    FROM (
      SELECT agent_id, tool_id, configuration, is_active, added_at
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = n.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = n.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.agent_id, o.agent_id) IS NOT NULL
        THEN coalesce(n.agent_id, o.agent_id)
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'AgentTool',
      coalesce(n.agent_id, o.agent_id)::text,
      CASE
        WHEN o.agent_id IS NULL THEN 'CREATED'
        WHEN n.agent_id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.agent_id IS NOT NULL THEN ('{' || substr(concat(
        ',"agent_id":' || '"' || o.agent_id || '"', ',"tool_id":' || '"' || o.tool_id ||
        '"', CASE WHEN record_image_ne(ROW(o.configuration), ROW(n.configuration)) THEN
        ',"configuration":' || o.configuration::text END, CASE WHEN o.is_active IS DISTINCT
        FROM n.is_active THEN ',"is_active":' || o.is_active::text END, CASE WHEN o.added_at
        IS DISTINCT FROM n.added_at THEN ',"added_at":' || to_json(o.added_at)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.agent_id IS NOT NULL THEN ('{' || substr(concat(
        ',"agent_id":' || '"' || n.agent_id || '"', ',"tool_id":' || '"' || n.tool_id ||
        '"', CASE WHEN record_image_ne(ROW(o.configuration), ROW(n.configuration)) THEN
        ',"configuration":' || n.configuration::text END, CASE WHEN o.is_active IS DISTINCT
        FROM n.is_active THEN ',"is_active":' || n.is_active::text END, CASE WHEN o.added_at
        IS DISTINCT FROM n.added_at THEN ',"added_at":' || to_json(n.added_at)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.agent_id = o.agent_id AND n.tool_id = o.tool_id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = coalesce(n.agent_id, o.agent_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = coalesce(n.agent_id, o.agent_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.agent_id, o.tool_id, o.configuration, o.is_active, o.added_at),
      ROW(n.agent_id, n.tool_id, n.configuration, n.is_active, n.added_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.agent_id IS NOT NULL
        THEN o.agent_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'AgentTool',
      o.agent_id::text,
      'DELETED',
      to_jsonb(o),
      NULL
    FROM (
      SELECT agent_id, tool_id, configuration, is_active, added_at
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM agents p WHERE p.id = o.agent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Agent'
        AND e.entity_id = o.agent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    "conversations": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      n.user_id,
      'Conversation',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.project_id IS NULL THEN 'project_id' END, CASE WHEN n.user_id IS NULL
        THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        n.title IS NULL THEN 'title' END
      ]
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      coalesce(n.user_id, o.user_id),
      'Conversation',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || o.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(o.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(o.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(o.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || o.conversation_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || coalesce('"' || n.project_id || '"', 'null')
        END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' ||
        coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
        CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        coalesce(to_json(n.title)::text, 'null') END, CASE WHEN o.summary IS DISTINCT FROM
        n.summary THEN ',"summary":' || to_json(n.summary)::text END, CASE WHEN
        o.conversation_url IS DISTINCT FROM n.conversation_url THEN ',"conversation_url":'
        || to_json(n.conversation_url)::text END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
        record_image_ne(ROW(o.conversation_metadata), ROW(n.conversation_metadata)) THEN
        ',"conversation_metadata":' || n.conversation_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.user_id, o.agent_id, o.title, o.summary,
      o.conversation_url, o.status, o.conversation_metadata),
      ROW(n.id, n.created_at, n.project_id, n.user_id, n.agent_id, n.title, n.summary,
      n.conversation_url, n.status, n.conversation_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      o.user_id,
      'Conversation',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.project_id IS NULL THEN 'project_id' END, CASE WHEN o.user_id IS NULL
        THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN
        o.title IS NULL THEN 'title' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, user_id, agent_id, title, summary,
             conversation_url, status, conversation_metadata
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = o.user_id
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
  END IF;
  RETURN NULL;
END
""",
    "tasks": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'Task',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN n.agent_id
        IS NULL THEN 'agent_id' END, CASE WHEN n.created_by_user_id IS NULL THEN
        'created_by_user_id' END, CASE WHEN n.created_by_agent_id IS NULL THEN
        'created_by_agent_id' END, CASE WHEN n.description IS NULL THEN 'description' END,
        CASE WHEN n.type IS NULL THEN 'type' END, CASE WHEN n.blocked_reason IS NULL THEN
        'blocked_reason' END, CASE WHEN n.input IS NULL THEN 'input' END, CASE WHEN n.result
        IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE WHEN
        n.due_at IS NULL THEN 'due_at' END, CASE WHEN n.started_at IS NULL THEN 'started_at'
        END, CASE WHEN n.completed_at IS NULL THEN 'completed_at' END, CASE WHEN
        n.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
        n.current_attempt_id IS NULL THEN 'current_attempt_id' END, CASE WHEN
        n.lease_expires_at IS NULL THEN 'lease_expires_at' END
      ]
    FROM (
      SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
             created_by_agent_id, title, description, type, status, blocked_reason,
             priority, input, result, error, available_at, due_at, started_at, completed_at,
             estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
             retry_backoff_seconds, current_attempt_id, lease_expires_at, cancel_requested,
             task_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'Task',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
        o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
        coalesce('"' || o.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
        DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"',
        'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
        THEN ',"created_by_user_id":' || coalesce('"' || o.created_by_user_id || '"',
        'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
        THEN ',"created_by_agent_id":' || coalesce('"' || o.created_by_agent_id || '"',
        'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        to_json(o.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
        THEN ',"description":' || coalesce(to_json(o.description)::text, 'null') END, CASE
        WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
        coalesce(to_json(o.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.blocked_reason
        IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
        o.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
        n.priority THEN ',"priority":' || o.priority::text END, CASE WHEN
        record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
        coalesce(o.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
        ROW(n.result)) THEN ',"result":' || coalesce(o.result::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
        coalesce(o.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
        n.available_at THEN ',"available_at":' || to_json(o.available_at)::text END, CASE
        WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
        coalesce(to_json(o.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
        FROM n.started_at THEN ',"started_at":' || coalesce(to_json(o.started_at)::text,
        'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
        ',"completed_at":' || coalesce(to_json(o.completed_at)::text, 'null') END, CASE WHEN
        o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
        ',"estimated_seconds":' || coalesce(o.estimated_seconds::text, 'null') END, CASE
        WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
        ',"unmet_dependency_count":' || o.unmet_dependency_count::text END, CASE WHEN
        o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
        o.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
        THEN ',"max_attempts":' || o.max_attempts::text END, CASE WHEN
        o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
        ',"retry_backoff_seconds":' || o.retry_backoff_seconds::text END, CASE WHEN
        o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
        ',"current_attempt_id":' || coalesce('"' || o.current_attempt_id || '"', 'null')
        END, CASE WHEN o.lease_expires_at IS DISTINCT FROM n.lease_expires_at THEN
        ',"lease_expires_at":' || coalesce(to_json(o.lease_expires_at)::text, 'null') END,
        CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
        ',"cancel_requested":' || o.cancel_requested::text END, CASE WHEN
        record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
        || o.task_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
        o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
        coalesce('"' || n.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
        DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"',
        'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
        THEN ',"created_by_user_id":' || coalesce('"' || n.created_by_user_id || '"',
        'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
        THEN ',"created_by_agent_id":' || coalesce('"' || n.created_by_agent_id || '"',
        'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
        to_json(n.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
        THEN ',"description":' || coalesce(to_json(n.description)::text, 'null') END, CASE
        WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
        coalesce(to_json(n.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
        n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.blocked_reason
        IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
        n.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
        n.priority THEN ',"priority":' || n.priority::text END, CASE WHEN
        record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
        coalesce(n.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
        ROW(n.result)) THEN ',"result":' || coalesce(n.result::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
        coalesce(n.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
        n.available_at THEN ',"available_at":' || to_json(n.available_at)::text END, CASE
        WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
        coalesce(to_json(n.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
        FROM n.started_at THEN ',"started_at":' || coalesce(to_json(n.started_at)::text,
        'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
        ',"completed_at":' || coalesce(to_json(n.completed_at)::text, 'null') END, CASE WHEN
        o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
        ',"estimated_seconds":' || coalesce(n.estimated_seconds::text, 'null') END, CASE
        WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
        ',"unmet_dependency_count":' || n.unmet_dependency_count::text END, CASE WHEN
        o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
        n.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
        THEN ',"max_attempts":' || n.max_attempts::text END, CASE WHEN
        o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
        ',"retry_backoff_seconds":' || n.retry_backoff_seconds::text END, CASE WHEN
        o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
        ',"current_attempt_id":' || coalesce('"' || n.current_attempt_id || '"', 'null')
        END, CASE WHEN o.lease_expires_at IS DISTINCT FROM n.lease_expires_at THEN
        ',"lease_expires_at":' || coalesce(to_json(n.lease_expires_at)::text, 'null') END,
        CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
        ',"cancel_requested":' || n.cancel_requested::text END, CASE WHEN
        record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
        || n.task_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.parent_task_id, o.agent_id, o.created_by_user_id,
      o.created_by_agent_id, o.title, o.description, o.type, o.status, o.blocked_reason,
      o.priority, o.input, o.result, o.error, o.available_at, o.due_at, o.started_at,
      o.completed_at, o.estimated_seconds, o.unmet_dependency_count, o.attempt_count,
      o.max_attempts, o.retry_backoff_seconds, o.current_attempt_id, o.lease_expires_at,
      o.cancel_requested, o.task_metadata),
      ROW(n.id, n.created_at, n.project_id, n.parent_task_id, n.agent_id, n.created_by_user_id,
      n.created_by_agent_id, n.title, n.description, n.type, n.status, n.blocked_reason,
      n.priority, n.input, n.result, n.error, n.available_at, n.due_at, n.started_at,
      n.completed_at, n.estimated_seconds, n.unmet_dependency_count, n.attempt_count,
      n.max_attempts, n.retry_backoff_seconds, n.current_attempt_id, n.lease_expires_at,
      n.cancel_requested, n.task_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Task',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN o.agent_id
        IS NULL THEN 'agent_id' END, CASE WHEN o.created_by_user_id IS NULL THEN
        'created_by_user_id' END, CASE WHEN o.created_by_agent_id IS NULL THEN
        'created_by_agent_id' END, CASE WHEN o.description IS NULL THEN 'description' END,
        CASE WHEN o.type IS NULL THEN 'type' END, CASE WHEN o.blocked_reason IS NULL THEN
        'blocked_reason' END, CASE WHEN o.input IS NULL THEN 'input' END, CASE WHEN o.result
        IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE WHEN
        o.due_at IS NULL THEN 'due_at' END, CASE WHEN o.started_at IS NULL THEN 'started_at'
        END, CASE WHEN o.completed_at IS NULL THEN 'completed_at' END, CASE WHEN
        o.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
        o.current_attempt_id IS NULL THEN 'current_attempt_id' END, CASE WHEN
        o.lease_expires_at IS NULL THEN 'lease_expires_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
             created_by_agent_id, title, description, type, status, blocked_reason,
             priority, input, result, error, available_at, due_at, started_at, completed_at,
             estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
             retry_backoff_seconds, current_attempt_id, lease_expires_at, cancel_requested,
             task_metadata
      FROM old_rows
    ) o;
    UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
    FROM old_rows o
    WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
      AND e.created_at = now();
  END IF;
  RETURN NULL;
END
""",
    "communications": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'Communication',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.correlation_id IS NULL THEN 'correlation_id' END, CASE WHEN
        n.reply_to_id IS NULL THEN 'reply_to_id' END, CASE WHEN n.task_id IS NULL THEN
        'task_id' END, CASE WHEN n.delivered_at IS NULL THEN 'delivered_at' END, CASE WHEN
        n.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN n.expires_at IS NULL
        THEN 'expires_at' END
      ]
    FROM (
      SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
             priority, status, correlation_id, reply_to_id, task_id, sent_at, delivered_at,
             acknowledged_at, expires_at, communication_metadata
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'Communication',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
        o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
        o.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
        THEN ',"to_agent_id":' || '"' || o.to_agent_id || '"' END, CASE WHEN o.type IS
        DISTINCT FROM n.type THEN ',"type":' || to_json(o.type)::text END, CASE WHEN
        record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
        o.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
        ',"priority":' || o.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
        THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.correlation_id IS
        DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
        coalesce(to_json(o.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
        DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || o.reply_to_id
        || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN o.sent_at
        IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(o.sent_at)::text END, CASE
        WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
        coalesce(to_json(o.delivered_at)::text, 'null') END, CASE WHEN o.acknowledged_at IS
        DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
        coalesce(to_json(o.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
        ',"communication_metadata":' || o.communication_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
        o.from_agent_id IS DISTINCT FROM n.from_agent_id THEN ',"from_agent_id":' || '"' ||
        n.from_agent_id || '"' END, CASE WHEN o.to_agent_id IS DISTINCT FROM n.to_agent_id
        THEN ',"to_agent_id":' || '"' || n.to_agent_id || '"' END, CASE WHEN o.type IS
        DISTINCT FROM n.type THEN ',"type":' || to_json(n.type)::text END, CASE WHEN
        record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
        n.content::text END, CASE WHEN o.priority IS DISTINCT FROM n.priority THEN
        ',"priority":' || n.priority::text END, CASE WHEN o.status IS DISTINCT FROM n.status
        THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.correlation_id IS
        DISTINCT FROM n.correlation_id THEN ',"correlation_id":' ||
        coalesce(to_json(n.correlation_id)::text, 'null') END, CASE WHEN o.reply_to_id IS
        DISTINCT FROM n.reply_to_id THEN ',"reply_to_id":' || coalesce('"' || n.reply_to_id
        || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN o.sent_at
        IS DISTINCT FROM n.sent_at THEN ',"sent_at":' || to_json(n.sent_at)::text END, CASE
        WHEN o.delivered_at IS DISTINCT FROM n.delivered_at THEN ',"delivered_at":' ||
        coalesce(to_json(n.delivered_at)::text, 'null') END, CASE WHEN o.acknowledged_at IS
        DISTINCT FROM n.acknowledged_at THEN ',"acknowledged_at":' ||
        coalesce(to_json(n.acknowledged_at)::text, 'null') END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.communication_metadata), ROW(n.communication_metadata)) THEN
        ',"communication_metadata":' || n.communication_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.from_agent_id, o.to_agent_id, o.type, o.content,
      o.priority, o.status, o.correlation_id, o.reply_to_id, o.task_id, o.sent_at,
      o.delivered_at, o.acknowledged_at, o.expires_at, o.communication_metadata),
      ROW(n.id, n.created_at, n.project_id, n.from_agent_id, n.to_agent_id, n.type, n.content,
      n.priority, n.status, n.correlation_id, n.reply_to_id, n.task_id, n.sent_at,
      n.delivered_at, n.acknowledged_at, n.expires_at, n.communication_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Communication',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.correlation_id IS NULL THEN 'correlation_id' END, CASE WHEN
        o.reply_to_id IS NULL THEN 'reply_to_id' END, CASE WHEN o.task_id IS NULL THEN
        'task_id' END, CASE WHEN o.delivered_at IS NULL THEN 'delivered_at' END, CASE WHEN
        o.acknowledged_at IS NULL THEN 'acknowledged_at' END, CASE WHEN o.expires_at IS NULL
        THEN 'expires_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, from_agent_id, to_agent_id, type, content,
             priority, status, correlation_id, reply_to_id, task_id, sent_at, delivered_at,
             acknowledged_at, expires_at, communication_metadata
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "human_interactions": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'HumanInteraction',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.conversation_id IS NULL THEN 'conversation_id' END, CASE
        WHEN n.assignee_id IS NULL THEN 'assignee_id' END, CASE WHEN n.expires_at IS NULL
        THEN 'expires_at' END, CASE WHEN n.responded_by_id IS NULL THEN 'responded_by_id'
        END, CASE WHEN n.responded_at IS NULL THEN 'responded_at' END, CASE WHEN n.approved
        IS NULL THEN 'approved' END, CASE WHEN n.comment IS NULL THEN 'comment' END, CASE
        WHEN n.feedback IS NULL THEN 'feedback' END, CASE WHEN n.rating IS NULL THEN
        'rating' END, CASE WHEN n.answer IS NULL THEN 'answer' END, CASE WHEN n.level IS
        NULL THEN 'level' END, CASE WHEN n.requires_acknowledgement IS NULL THEN
        'requires_acknowledgement' END
      ]
    FROM (
      SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
             content, content_hash, status, priority, assignee_id, expires_at,
             responded_by_id, responded_at, interaction_metadata, approved, comment,
             feedback, rating, answer, level, requires_acknowledgement
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'HumanInteraction',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
        o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || o.type || '"' END, CASE
        WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
        o.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
        FROM n.title THEN ',"title":' || to_json(o.title)::text END, CASE WHEN
        record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
        o.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
        ',"content_hash":' || to_json(o.content_hash)::text END, CASE WHEN o.status IS
        DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN
        o.priority IS DISTINCT FROM n.priority THEN ',"priority":' || o.priority::text END,
        CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN ',"assignee_id":' ||
        coalesce('"' || o.assignee_id || '"', 'null') END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
        DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
        o.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
        n.responded_at THEN ',"responded_at":' || coalesce(to_json(o.responded_at)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
        ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
        o.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
        THEN ',"approved":' || coalesce(o.approved::text, 'null') END, CASE WHEN o.comment
        IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
        ',"feedback":' || coalesce(o.feedback::text, 'null') END, CASE WHEN o.rating IS
        DISTINCT FROM n.rating THEN ',"rating":' || coalesce(o.rating::text, 'null') END,
        CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
        coalesce(to_json(o.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
        n.level THEN ',"level":' || coalesce('"' || o.level || '"', 'null') END, CASE WHEN
        o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
        ',"requires_acknowledgement":' || coalesce(o.requires_acknowledgement::text, 'null')
        END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
        n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
        o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || n.type || '"' END, CASE
        WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
        n.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
        FROM n.title THEN ',"title":' || to_json(n.title)::text END, CASE WHEN
        record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
        n.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
        ',"content_hash":' || to_json(n.content_hash)::text END, CASE WHEN o.status IS
        DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN
        o.priority IS DISTINCT FROM n.priority THEN ',"priority":' || n.priority::text END,
        CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN ',"assignee_id":' ||
        coalesce('"' || n.assignee_id || '"', 'null') END, CASE WHEN o.expires_at IS
        DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
        coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
        DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
        n.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
        n.responded_at THEN ',"responded_at":' || coalesce(to_json(n.responded_at)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
        ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
        n.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
        THEN ',"approved":' || coalesce(n.approved::text, 'null') END, CASE WHEN o.comment
        IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text,
        'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
        ',"feedback":' || coalesce(n.feedback::text, 'null') END, CASE WHEN o.rating IS
        DISTINCT FROM n.rating THEN ',"rating":' || coalesce(n.rating::text, 'null') END,
        CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
        coalesce(to_json(n.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
        n.level THEN ',"level":' || coalesce('"' || n.level || '"', 'null') END, CASE WHEN
        o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
        ',"requires_acknowledgement":' || coalesce(n.requires_acknowledgement::text, 'null')
        END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.type, o.task_id, o.agent_id, o.conversation_id,
      o.title, o.content, o.content_hash, o.status, o.priority, o.assignee_id, o.expires_at,
      o.responded_by_id, o.responded_at, o.interaction_metadata, o.approved, o.comment,
      o.feedback, o.rating, o.answer, o.level, o.requires_acknowledgement),
      ROW(n.id, n.created_at, n.project_id, n.type, n.task_id, n.agent_id, n.conversation_id,
      n.title, n.content, n.content_hash, n.status, n.priority, n.assignee_id, n.expires_at,
      n.responded_by_id, n.responded_at, n.interaction_metadata, n.approved, n.comment,
      n.feedback, n.rating, n.answer, n.level, n.requires_acknowledgement)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'HumanInteraction',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.conversation_id IS NULL THEN 'conversation_id' END, CASE
        WHEN o.assignee_id IS NULL THEN 'assignee_id' END, CASE WHEN o.expires_at IS NULL
        THEN 'expires_at' END, CASE WHEN o.responded_by_id IS NULL THEN 'responded_by_id'
        END, CASE WHEN o.responded_at IS NULL THEN 'responded_at' END, CASE WHEN o.approved
        IS NULL THEN 'approved' END, CASE WHEN o.comment IS NULL THEN 'comment' END, CASE
        WHEN o.feedback IS NULL THEN 'feedback' END, CASE WHEN o.rating IS NULL THEN
        'rating' END, CASE WHEN o.answer IS NULL THEN 'answer' END, CASE WHEN o.level IS
        NULL THEN 'level' END, CASE WHEN o.requires_acknowledgement IS NULL THEN
        'requires_acknowledgement' END
      ],
      NULL
    FROM (
      SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
             content, content_hash, status, priority, assignee_id, expires_at,
             responded_by_id, responded_at, interaction_metadata, approved, comment,
             feedback, rating, answer, level, requires_acknowledgement
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
    "messages": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.conversation_id IS NOT NULL
        THEN n.conversation_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'Message',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.parts
        IS NULL THEN 'parts' END, CASE WHEN n.edited_at IS NULL THEN 'edited_at' END
      ]
    FROM (
      SELECT id, created_at, conversation_id, sequence, sender, user_id, agent_id, model_id,
             content, parts, timestamp, edited_at, message_metadata
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, p.user_id AS owner_id,
        true AS is_found
      FROM conversations p WHERE p.id = n.conversation_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Conversation'
        AND e.entity_id = n.conversation_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.conversation_id, o.conversation_id) IS NOT NULL
        THEN coalesce(n.conversation_id, o.conversation_id)
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'Message',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || '"' || o.conversation_id || '"' END,
        CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
        o.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
        || '"' || o.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
        ',"user_id":' || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.agent_id
        IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id ||
        '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
        ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
        o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(o.content)::text
        END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
        coalesce(o.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
        n.timestamp THEN ',"timestamp":' || to_json(o.timestamp)::text END, CASE WHEN
        o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
        coalesce(to_json(o.edited_at)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
        ',"message_metadata":' || o.message_metadata::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || '"' || n.conversation_id || '"' END,
        CASE WHEN o.sequence IS DISTINCT FROM n.sequence THEN ',"sequence":' ||
        n.sequence::text END, CASE WHEN o.sender IS DISTINCT FROM n.sender THEN ',"sender":'
        || '"' || n.sender || '"' END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN
        ',"user_id":' || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.agent_id
        IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id ||
        '"', 'null') END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id THEN
        ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
        o.content IS DISTINCT FROM n.content THEN ',"content":' || to_json(n.content)::text
        END, CASE WHEN record_image_ne(ROW(o.parts), ROW(n.parts)) THEN ',"parts":' ||
        coalesce(n.parts::text, 'null') END, CASE WHEN o.timestamp IS DISTINCT FROM
        n.timestamp THEN ',"timestamp":' || to_json(n.timestamp)::text END, CASE WHEN
        o.edited_at IS DISTINCT FROM n.edited_at THEN ',"edited_at":' ||
        coalesce(to_json(n.edited_at)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.message_metadata), ROW(n.message_metadata)) THEN
        ',"message_metadata":' || n.message_metadata::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, p.user_id AS owner_id,
        true AS is_found
      FROM conversations p WHERE p.id = coalesce(n.conversation_id, o.conversation_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Conversation'
        AND e.entity_id = coalesce(n.conversation_id, o.conversation_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.conversation_id, o.sequence, o.sender, o.user_id, o.agent_id,
      o.model_id, o.content, o.parts, o.timestamp, o.edited_at, o.message_metadata),
      ROW(n.id, n.created_at, n.conversation_id, n.sequence, n.sender, n.user_id, n.agent_id,
      n.model_id, n.content, n.parts, n.timestamp, n.edited_at, n.message_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.conversation_id IS NOT NULL
        THEN o.conversation_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'Message',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.parts
        IS NULL THEN 'parts' END, CASE WHEN o.edited_at IS NULL THEN 'edited_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, conversation_id, sequence, sender, user_id, agent_id, model_id,
             content, parts, timestamp, edited_at, message_metadata
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, p.user_id AS owner_id,
        true AS is_found
      FROM conversations p WHERE p.id = o.conversation_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Conversation'
        AND e.entity_id = o.conversation_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    "task_attempts": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
        THEN n.task_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskAttempt',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.heartbeat_at IS NULL
        THEN 'heartbeat_at' END, CASE WHEN n.progress_percent IS NULL THEN
        'progress_percent' END, CASE WHEN n.status_message IS NULL THEN 'status_message'
        END, CASE WHEN n.result IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN
        'error' END, CASE WHEN n.ended_at IS NULL THEN 'ended_at' END
      ]
    FROM (
      SELECT id, created_at, task_id, agent_id, number, status, heartbeat_at,
             progress_percent, status_message, result, error, started_at, ended_at
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = n.task_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = n.task_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
        THEN coalesce(n.task_id, o.task_id)
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskAttempt',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || '"' || o.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
        CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || o.number::text
        END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
        o.status || '"' END, CASE WHEN o.heartbeat_at IS DISTINCT FROM n.heartbeat_at THEN
        ',"heartbeat_at":' || coalesce(to_json(o.heartbeat_at)::text, 'null') END, CASE WHEN
        o.progress_percent IS DISTINCT FROM n.progress_percent THEN ',"progress_percent":'
        || coalesce(o.progress_percent::text, 'null') END, CASE WHEN o.status_message IS
        DISTINCT FROM n.status_message THEN ',"status_message":' ||
        coalesce(to_json(o.status_message)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
        coalesce(o.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
        ROW(n.error)) THEN ',"error":' || coalesce(o.error::text, 'null') END, CASE WHEN
        o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
        to_json(o.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
        THEN ',"ended_at":' || coalesce(to_json(o.ended_at)::text, 'null') END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
        ',"task_id":' || '"' || n.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
        n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
        CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || n.number::text
        END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
        n.status || '"' END, CASE WHEN o.heartbeat_at IS DISTINCT FROM n.heartbeat_at THEN
        ',"heartbeat_at":' || coalesce(to_json(n.heartbeat_at)::text, 'null') END, CASE WHEN
        o.progress_percent IS DISTINCT FROM n.progress_percent THEN ',"progress_percent":'
        || coalesce(n.progress_percent::text, 'null') END, CASE WHEN o.status_message IS
        DISTINCT FROM n.status_message THEN ',"status_message":' ||
        coalesce(to_json(n.status_message)::text, 'null') END, CASE WHEN
        record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
        coalesce(n.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
        ROW(n.error)) THEN ',"error":' || coalesce(n.error::text, 'null') END, CASE WHEN
        o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
        to_json(n.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
        THEN ',"ended_at":' || coalesce(to_json(n.ended_at)::text, 'null') END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = coalesce(n.task_id, o.task_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = coalesce(n.task_id, o.task_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.heartbeat_at,
      o.progress_percent, o.status_message, o.result, o.error, o.started_at, o.ended_at),
      ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.heartbeat_at,
      n.progress_percent, n.status_message, n.result, n.error, n.started_at, n.ended_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
        THEN o.task_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskAttempt',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.heartbeat_at IS NULL
        THEN 'heartbeat_at' END, CASE WHEN o.progress_percent IS NULL THEN
        'progress_percent' END, CASE WHEN o.status_message IS NULL THEN 'status_message'
        END, CASE WHEN o.result IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN
        'error' END, CASE WHEN o.ended_at IS NULL THEN 'ended_at' END
      ],
      NULL
    FROM (
      SELECT id, created_at, task_id, agent_id, number, status, heartbeat_at,
             progress_percent, status_message, result, error, started_at, ended_at
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = o.task_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = o.task_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    "task_dependencies": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND n.dependent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND n.dependent_id IS NOT NULL
        THEN n.dependent_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskDependency',
      n.dependent_id::text,
      'CREATED',
      NULL,
      to_jsonb(n)
    FROM (
      SELECT dependent_id, dependency_id, on_failure
      FROM new_rows
    ) n
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = n.dependent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = n.dependent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.dependent_id, o.dependent_id) IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND coalesce(n.dependent_id, o.dependent_id) IS NOT NULL
        THEN coalesce(n.dependent_id, o.dependent_id)
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskDependency',
      coalesce(n.dependent_id, o.dependent_id)::text,
      CASE
        WHEN o.dependent_id IS NULL THEN 'CREATED'
        WHEN n.dependent_id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.dependent_id IS NOT NULL THEN ('{' || substr(concat(
        ',"dependent_id":' || '"' || o.dependent_id || '"', ',"dependency_id":' || '"' ||
        o.dependency_id || '"', CASE WHEN o.on_failure IS DISTINCT FROM n.on_failure THEN
        ',"on_failure":' || '"' || o.on_failure || '"' END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.dependent_id IS NOT NULL THEN ('{' || substr(concat(
        ',"dependent_id":' || '"' || n.dependent_id || '"', ',"dependency_id":' || '"' ||
        n.dependency_id || '"', CASE WHEN o.on_failure IS DISTINCT FROM n.on_failure THEN
        ',"on_failure":' || '"' || n.on_failure || '"' END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.dependent_id = o.dependent_id AND n.dependency_id = o.dependency_id
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = coalesce(n.dependent_id, o.dependent_id)
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = coalesce(n.dependent_id, o.dependent_id)::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true
    WHERE record_image_ne(
      ROW(o.dependent_id, o.dependency_id, o.on_failure),
      ROW(n.dependent_id, n.dependency_id, n.on_failure)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      CASE
        WHEN p.is_found IS NULL AND o.dependent_id IS NOT NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
      END,
      CASE
        WHEN p.is_found IS NULL AND o.dependent_id IS NOT NULL
        THEN o.dependent_id
        ELSE coalesce(p.owner_id, NULL::uuid)
      END,
      'TaskDependency',
      o.dependent_id::text,
      'DELETED',
      to_jsonb(o),
      NULL
    FROM (
      SELECT dependent_id, dependency_id, on_failure
      FROM old_rows
    ) o
    LEFT JOIN LATERAL (
      SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
        true AS is_found
      FROM tasks p WHERE p.id = o.dependent_id
      UNION ALL
      SELECT e.project_id, e.owner_id, true FROM events e
      WHERE e.entity_type = 'Task'
        AND e.entity_id = o.dependent_id::text
        AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
      LIMIT 1
    ) p ON true;
  END IF;
  RETURN NULL;
END
""",
    "usage_records": """
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'UsageRecord',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.task_id IS NULL THEN
        'task_id' END, CASE WHEN n.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN
        n.conversation_id IS NULL THEN 'conversation_id' END, CASE WHEN n.message_id IS NULL
        THEN 'message_id' END, CASE WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN
        n.cost IS NULL THEN 'cost' END, CASE WHEN n.latency_ms IS NULL THEN 'latency_ms'
        END, CASE WHEN n.request_id IS NULL THEN 'request_id' END
      ]
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, input_tokens, cached_input_tokens,
             output_tokens, reasoning_tokens, cost, latency_ms, success, request_id,
             occurred_at
      FROM new_rows
    ) n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'UsageRecord',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || to_json(o.model_id)::text END, CASE WHEN o.project_id IS
        DISTINCT FROM n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END,
        CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"'
        || o.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id
        THEN ',"task_id":' || coalesce('"' || o.task_id || '"', 'null') END, CASE WHEN
        o.attempt_id IS DISTINCT FROM n.attempt_id THEN ',"attempt_id":' || coalesce('"' ||
        o.attempt_id || '"', 'null') END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || coalesce('"' || o.conversation_id ||
        '"', 'null') END, CASE WHEN o.message_id IS DISTINCT FROM n.message_id THEN
        ',"message_id":' || coalesce('"' || o.message_id || '"', 'null') END, CASE WHEN
        o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || o.user_id
        || '"', 'null') END, CASE WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN
        ',"input_tokens":' || o.input_tokens::text END, CASE WHEN o.cached_input_tokens IS
        DISTINCT FROM n.cached_input_tokens THEN ',"cached_input_tokens":' ||
        o.cached_input_tokens::text END, CASE WHEN o.output_tokens IS DISTINCT FROM
        n.output_tokens THEN ',"output_tokens":' || o.output_tokens::text END, CASE WHEN
        o.reasoning_tokens IS DISTINCT FROM n.reasoning_tokens THEN ',"reasoning_tokens":'
        || o.reasoning_tokens::text END, CASE WHEN o.cost IS DISTINCT FROM n.cost THEN
        ',"cost":' || coalesce(to_json(o.cost)::text, 'null') END, CASE WHEN o.latency_ms IS
        DISTINCT FROM n.latency_ms THEN ',"latency_ms":' || coalesce(o.latency_ms::text,
        'null') END, CASE WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' ||
        o.success::text END, CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN
        ',"request_id":' || coalesce(to_json(o.request_id)::text, 'null') END, CASE WHEN
        o.occurred_at IS DISTINCT FROM n.occurred_at THEN ',"occurred_at":' ||
        to_json(o.occurred_at)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || to_json(n.model_id)::text END, CASE WHEN o.project_id IS
        DISTINCT FROM n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END,
        CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"'
        || n.agent_id || '"', 'null') END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id
        THEN ',"task_id":' || coalesce('"' || n.task_id || '"', 'null') END, CASE WHEN
        o.attempt_id IS DISTINCT FROM n.attempt_id THEN ',"attempt_id":' || coalesce('"' ||
        n.attempt_id || '"', 'null') END, CASE WHEN o.conversation_id IS DISTINCT FROM
        n.conversation_id THEN ',"conversation_id":' || coalesce('"' || n.conversation_id ||
        '"', 'null') END, CASE WHEN o.message_id IS DISTINCT FROM n.message_id THEN
        ',"message_id":' || coalesce('"' || n.message_id || '"', 'null') END, CASE WHEN
        o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":' || coalesce('"' || n.user_id
        || '"', 'null') END, CASE WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN
        ',"input_tokens":' || n.input_tokens::text END, CASE WHEN o.cached_input_tokens IS
        DISTINCT FROM n.cached_input_tokens THEN ',"cached_input_tokens":' ||
        n.cached_input_tokens::text END, CASE WHEN o.output_tokens IS DISTINCT FROM
        n.output_tokens THEN ',"output_tokens":' || n.output_tokens::text END, CASE WHEN
        o.reasoning_tokens IS DISTINCT FROM n.reasoning_tokens THEN ',"reasoning_tokens":'
        || n.reasoning_tokens::text END, CASE WHEN o.cost IS DISTINCT FROM n.cost THEN
        ',"cost":' || coalesce(to_json(n.cost)::text, 'null') END, CASE WHEN o.latency_ms IS
        DISTINCT FROM n.latency_ms THEN ',"latency_ms":' || coalesce(n.latency_ms::text,
        'null') END, CASE WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' ||
        n.success::text END, CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN
        ',"request_id":' || coalesce(to_json(n.request_id)::text, 'null') END, CASE WHEN
        o.occurred_at IS DISTINCT FROM n.occurred_at THEN ',"occurred_at":' ||
        to_json(n.occurred_at)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.model_id, o.project_id, o.agent_id, o.task_id, o.attempt_id,
      o.conversation_id, o.message_id, o.user_id, o.input_tokens, o.cached_input_tokens,
      o.output_tokens, o.reasoning_tokens, o.cost, o.latency_ms, o.success, o.request_id,
      o.occurred_at),
      ROW(n.id, n.created_at, n.model_id, n.project_id, n.agent_id, n.task_id, n.attempt_id,
      n.conversation_id, n.message_id, n.user_id, n.input_tokens, n.cached_input_tokens,
      n.output_tokens, n.reasoning_tokens, n.cost, n.latency_ms, n.success, n.request_id,
      n.occurred_at)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'UsageRecord',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.task_id IS NULL THEN
        'task_id' END, CASE WHEN o.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN
        o.conversation_id IS NULL THEN 'conversation_id' END, CASE WHEN o.message_id IS NULL
        THEN 'message_id' END, CASE WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN
        o.cost IS NULL THEN 'cost' END, CASE WHEN o.latency_ms IS NULL THEN 'latency_ms'
        END, CASE WHEN o.request_id IS NULL THEN 'request_id' END
      ],
      NULL
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, input_tokens, cached_input_tokens,
             output_tokens, reasoning_tokens, cost, latency_ms, success, request_id,
             occurred_at
      FROM old_rows
    ) o;
  END IF;
  RETURN NULL;
END
""",
}

TRIGGERS = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}


def upgrade() -> None:
    tables()
    for function in (TRUNCATE, NUMBER, CREATE_PARTITIONS, DROP_EVENTS):
        op.get_bind().exec_driver_sql(function)
    op.execute("CREATE TABLE events_default PARTITION OF events DEFAULT")
    op.execute("SELECT create_event_partitions(now(), 5)")
    for table, body in TABLES.items():
        op.execute(
            f"CREATE FUNCTION log_{table}() RETURNS trigger LANGUAGE plpgsql"
            f" SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off"
            f" AS $${body}$$"
        )
        for event, rows in TRIGGERS.items():
            op.execute(
                f"CREATE TRIGGER log_{event} AFTER {event} ON {table} {rows}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION log_{table}()"
            )
        op.execute(
            f"CREATE TRIGGER log_truncate BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION log_truncate()"
        )


def tables() -> None:
    """Make the tables."""
    setting = "current_setting('troupe.actor'::text, true)"
    part = f"NULLIF(split_part({setting}, ':'::text, {{}}), ''::text)"
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("owner_id", sa.Uuid(), nullable=True),
        sa.Column("entity_type", sa.String(length=100), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column(
            "actor_type",
            sa.String(length=32),
            server_default=sa.text(f"upper({part.format(1)})"),
            nullable=True,
        ),
        sa.Column(
            "actor_id",
            sa.Uuid(),
            server_default=sa.text(f"({part.format(2)})::uuid"),
            nullable=True,
        ),
        sa.Column(
            "token_id",
            sa.Uuid(),
            server_default=sa.text(f"({part.format(3)})::uuid"),
            nullable=True,
        ),
        sa.Column("before", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.Column("after", postgresql.JSONB(none_as_null=True), nullable=True),
        sa.CheckConstraint(
            "action IN ('CREATED', 'UPDATED', 'DELETED')", name=op.f("ck_events_event_action")
        ),
        sa.CheckConstraint("actor_type IN ('USER', 'AGENT')", name=op.f("ck_events_actor_type")),
        sa.CheckConstraint("isfinite(created_at)", name=op.f("ck_events_created_at_finite")),
        sa.PrimaryKeyConstraint("id", "created_at", name=op.f("pk_events")),
        postgresql_partition_by="RANGE (created_at)",
    )
    is_numbered = sa.text("position IS NOT NULL")
    for columns in (["position"], ["project_id", "position"], ["entity_id", "position"]):
        name = "_".join(columns)
        op.create_index(f"ix_events_{name}", "events", columns, postgresql_where=is_numbered)
    op.create_index(
        "ix_events_unnumbered", "events", ["id"], postgresql_where=sa.text("position IS NULL")
    )
    op.create_index(
        "ix_events_orphans",
        "events",
        ["owner_id"],
        postgresql_where=sa.text("project_id = '00000000-0000-0000-0000-000000000000'::uuid"),
    )
    op.create_index(
        "ix_events_deleted",
        "events",
        ["entity_id"],
        postgresql_where=sa.text("position IS NULL AND action = 'DELETED'"),
    )
    op.create_table(
        "event_positions",
        sa.Column("id", sa.SmallInteger(), server_default=sa.text("1"), nullable=False),
        sa.Column("last_position", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_event_positions_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_positions")),
    )
    op.execute("INSERT INTO event_positions DEFAULT VALUES")


def downgrade() -> None:
    for table in reversed(TABLES):
        for event in ("truncate", *TRIGGERS):
            op.execute(f"DROP TRIGGER log_{event} ON {table}")
        op.execute(f"DROP FUNCTION log_{table}()")
    op.execute("DROP FUNCTION drop_events(timestamptz)")
    op.execute("DROP FUNCTION create_event_partitions(timestamptz, integer)")
    op.execute("DROP FUNCTION number_events(bigint, integer)")
    op.execute("DROP FUNCTION log_truncate()")
    op.drop_table("event_positions")
    op.drop_table("events")
