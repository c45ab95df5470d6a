"""The event log: its table, the functions and triggers that write it, and its positions.

Rows that exist already have no events. The triggers are generated from the models by
`db/events/triggers.py`; a later change of them is another migration.
"""

from datetime import UTC, datetime, time, timedelta

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# The weeks that have partitions from the start; the server makes later ones.
WEEKS = 5

SHARED = {
    "event_value(name text, value anyelement)": """text LANGUAGE sql STABLE AS $$
  SELECT ',"' || name || '":' || to_json(value)::text
$$""",
    "event_change(name text, value anyelement, other anyelement)": """text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN value IS DISTINCT FROM other
    THEN ',"' || name || '":' || coalesce(to_json(value)::text, 'null') END
$$""",
    "event_change(name text, value jsonb, other jsonb)": """text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN record_image_ne(ROW(value), ROW(other))
    THEN ',"' || name || '":' || coalesce(value::text, 'null') END
$$""",
    "log_truncate()": """trigger LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format('DELETE FROM %s', TG_RELID::regclass);
  RETURN NULL;
END
$$""",
}

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
      ('{' || substr(concat(
        event_value('created_at', n.created_at), event_value('id', n.id),
        event_value('provider', n.provider), event_value('model_version', n.model_version),
        event_value('capabilities', n.capabilities), event_value('context_window',
        n.context_window), event_value('input_price', n.input_price),
        event_value('cached_input_price', n.cached_input_price), event_value('output_price',
        n.output_price), event_value('is_local', n.is_local), event_value('status', n.status),
        event_value('model_metadata', n.model_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('created_at', o.created_at, n.created_at), event_change('id', o.id, n.id),
        event_change('provider', o.provider, n.provider), event_change('model_version',
        o.model_version, n.model_version), event_change('capabilities', o.capabilities,
        n.capabilities), event_change('context_window', o.context_window, n.context_window),
        event_change('input_price', o.input_price, n.input_price),
        event_change('cached_input_price', o.cached_input_price, n.cached_input_price),
        event_change('output_price', o.output_price, n.output_price), event_change('is_local',
        o.is_local, n.is_local), event_change('status', o.status, n.status),
        event_change('model_metadata', o.model_metadata, n.model_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('created_at', n.created_at, o.created_at), event_change('id', n.id, o.id),
        event_change('provider', n.provider, o.provider), event_change('model_version',
        n.model_version, o.model_version), event_change('capabilities', n.capabilities,
        o.capabilities), event_change('context_window', n.context_window, o.context_window),
        event_change('input_price', n.input_price, o.input_price),
        event_change('cached_input_price', n.cached_input_price, o.cached_input_price),
        event_change('output_price', n.output_price, o.output_price), event_change('is_local',
        n.is_local, o.is_local), event_change('status', n.status, o.status),
        event_change('model_metadata', n.model_metadata, o.model_metadata)
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
      ('{' || substr(concat(
        event_value('created_at', o.created_at), event_value('id', o.id),
        event_value('provider', o.provider), event_value('model_version', o.model_version),
        event_value('capabilities', o.capabilities), event_value('context_window',
        o.context_window), event_value('input_price', o.input_price),
        event_value('cached_input_price', o.cached_input_price), event_value('output_price',
        o.output_price), event_value('is_local', o.is_local), event_value('status', o.status),
        event_value('model_metadata', o.model_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('username', n.username), event_value('email', n.email),
        event_value('display_name', n.display_name), event_value('role', n.role),
        event_value('is_active', n.is_active)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('username', o.username, n.username), event_change('email', o.email,
        n.email), event_change('display_name', o.display_name, n.display_name),
        event_change('role', o.role, n.role), event_change('is_active', o.is_active,
        n.is_active)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('username', n.username, o.username), event_change('email', n.email,
        o.email), event_change('display_name', n.display_name, o.display_name),
        event_change('role', n.role, o.role), event_change('is_active', n.is_active,
        o.is_active)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('username', o.username), event_value('email', o.email),
        event_value('display_name', o.display_name), event_value('role', o.role),
        event_value('is_active', o.is_active)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at), event_value('name',
        n.name), event_value('description', n.description), event_value('status', n.status),
        event_value('owner_id', n.owner_id), event_value('project_metadata', n.project_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('name', o.name, n.name), event_change('description', o.description,
        n.description), event_change('status', o.status, n.status), event_change('owner_id',
        o.owner_id, n.owner_id), event_change('project_metadata', o.project_metadata,
        n.project_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('name', n.name, o.name), event_change('description', n.description,
        o.description), event_change('status', n.status, o.status), event_change('owner_id',
        n.owner_id, o.owner_id), event_change('project_metadata', n.project_metadata,
        o.project_metadata)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at), event_value('name',
        o.name), event_value('description', o.description), event_value('status', o.status),
        event_value('owner_id', o.owner_id), event_value('project_metadata', o.project_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('name', n.name),
        event_value('type', n.type), event_value('description', n.description),
        event_value('status', n.status), event_value('is_active', n.is_active),
        event_value('model_id', n.model_id), event_value('prompt_template', n.prompt_template),
        event_value('configuration', n.configuration), event_value('max_concurrent_tasks',
        n.max_concurrent_tasks), event_value('last_seen_at', n.last_seen_at),
        event_value('agent_metadata', n.agent_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('name', o.name,
        n.name), event_change('type', o.type, n.type), event_change('description',
        o.description, n.description), event_change('status', o.status, n.status),
        event_change('is_active', o.is_active, n.is_active), event_change('model_id',
        o.model_id, n.model_id), event_change('prompt_template', o.prompt_template,
        n.prompt_template), event_change('configuration', o.configuration, n.configuration),
        event_change('max_concurrent_tasks', o.max_concurrent_tasks, n.max_concurrent_tasks),
        event_change('last_seen_at', o.last_seen_at, n.last_seen_at),
        event_change('agent_metadata', o.agent_metadata, n.agent_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('name', n.name,
        o.name), event_change('type', n.type, o.type), event_change('description',
        n.description, o.description), event_change('status', n.status, o.status),
        event_change('is_active', n.is_active, o.is_active), event_change('model_id',
        n.model_id, o.model_id), event_change('prompt_template', n.prompt_template,
        o.prompt_template), event_change('configuration', n.configuration, o.configuration),
        event_change('max_concurrent_tasks', n.max_concurrent_tasks, o.max_concurrent_tasks),
        event_change('last_seen_at', n.last_seen_at, o.last_seen_at),
        event_change('agent_metadata', n.agent_metadata, o.agent_metadata)
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.name, o.type, o.description, o.status, o.is_active,
      o.model_id, o.prompt_template, o.configuration, o.max_concurrent_tasks, o.last_seen_at,
      o.agent_metadata),
      ROW(n.id, n.created_at, n.project_id, n.name, n.type, n.description, n.status, n.is_active,
      n.model_id, n.prompt_template, n.configuration, n.max_concurrent_tasks, n.last_seen_at,
      n.agent_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Agent',
      o.id::text,
      'DELETED',
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('name', o.name),
        event_value('type', o.type), event_value('description', o.description),
        event_value('status', o.status), event_value('is_active', o.is_active),
        event_value('model_id', o.model_id), event_value('prompt_template', o.prompt_template),
        event_value('configuration', o.configuration), event_value('max_concurrent_tasks',
        o.max_concurrent_tasks), event_value('last_seen_at', o.last_seen_at),
        event_value('agent_metadata', o.agent_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('project_id', n.project_id), event_value('user_id', n.user_id),
        event_value('role', n.role)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_value('project_id', o.project_id), event_value('user_id', o.user_id),
        event_change('role', o.role, n.role)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.project_id IS NOT NULL THEN ('{' || substr(concat(
        event_value('project_id', n.project_id), event_value('user_id', n.user_id),
        event_change('role', n.role, o.role)
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
      ('{' || substr(concat(
        event_value('project_id', o.project_id), event_value('user_id', o.user_id),
        event_value('role', o.role)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('name', n.name),
        event_value('tool_version', n.tool_version), event_value('description', n.description),
        event_value('capability', n.capability), event_value('source', n.source),
        event_value('tool_schema', n.tool_schema), event_value('documentation_url',
        n.documentation_url), event_value('status', n.status), event_value('definition_hash',
        n.definition_hash), event_value('tool_metadata', n.tool_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('name', o.name,
        n.name), event_change('tool_version', o.tool_version, n.tool_version),
        event_change('description', o.description, n.description), event_change('capability',
        o.capability, n.capability), event_change('source', o.source, n.source),
        event_change('tool_schema', o.tool_schema, n.tool_schema),
        event_change('documentation_url', o.documentation_url, n.documentation_url),
        event_change('status', o.status, n.status), event_change('definition_hash',
        o.definition_hash, n.definition_hash), event_change('tool_metadata', o.tool_metadata,
        n.tool_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('name', n.name,
        o.name), event_change('tool_version', n.tool_version, o.tool_version),
        event_change('description', n.description, o.description), event_change('capability',
        n.capability, o.capability), event_change('source', n.source, o.source),
        event_change('tool_schema', n.tool_schema, o.tool_schema),
        event_change('documentation_url', n.documentation_url, o.documentation_url),
        event_change('status', n.status, o.status), event_change('definition_hash',
        n.definition_hash, o.definition_hash), event_change('tool_metadata', n.tool_metadata,
        o.tool_metadata)
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.project_id, o.name, o.tool_version, o.description, o.capability,
      o.source, o.tool_schema, o.documentation_url, o.status, o.definition_hash, o.tool_metadata),
      ROW(n.id, n.created_at, n.project_id, n.name, n.tool_version, n.description, n.capability,
      n.source, n.tool_schema, n.documentation_url, n.status, n.definition_hash, n.tool_metadata)
    );
  ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'Tool',
      o.id::text,
      'DELETED',
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('name', o.name),
        event_value('tool_version', o.tool_version), event_value('description', o.description),
        event_value('capability', o.capability), event_value('source', o.source),
        event_value('tool_schema', o.tool_schema), event_value('documentation_url',
        o.documentation_url), event_value('status', o.status), event_value('definition_hash',
        o.definition_hash), event_value('tool_metadata', o.tool_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at), event_value('name',
        n.name), event_value('prefix', n.prefix), event_value('user_id', n.user_id),
        event_value('agent_id', n.agent_id), event_value('scopes', n.scopes),
        event_value('expires_at', n.expires_at), event_value('revoked_at', n.revoked_at)
      ), 2) || '}')::jsonb
    FROM new_rows n
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('name', o.name, n.name), event_change('prefix', o.prefix, n.prefix),
        event_change('user_id', o.user_id, n.user_id), event_change('agent_id', o.agent_id,
        n.agent_id), event_change('scopes', o.scopes, n.scopes), event_change('expires_at',
        o.expires_at, n.expires_at), event_change('revoked_at', o.revoked_at, n.revoked_at)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('name', n.name, o.name), event_change('prefix', n.prefix, o.prefix),
        event_change('user_id', n.user_id, o.user_id), event_change('agent_id', n.agent_id,
        o.agent_id), event_change('scopes', n.scopes, o.scopes), event_change('expires_at',
        n.expires_at, o.expires_at), event_change('revoked_at', n.revoked_at, o.revoked_at)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at), event_value('name',
        o.name), event_value('prefix', o.prefix), event_value('user_id', o.user_id),
        event_value('agent_id', o.agent_id), event_value('scopes', o.scopes),
        event_value('expires_at', o.expires_at), event_value('revoked_at', o.revoked_at)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o
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
      ('{' || substr(concat(
        event_value('agent_id', n.agent_id), event_value('tool_id', n.tool_id),
        event_value('configuration', n.configuration), event_value('is_active', n.is_active),
        event_value('added_at', n.added_at)
      ), 2) || '}')::jsonb
    FROM new_rows n
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
        event_value('agent_id', o.agent_id), event_value('tool_id', o.tool_id),
        event_change('configuration', o.configuration, n.configuration),
        event_change('is_active', o.is_active, n.is_active), event_change('added_at',
        o.added_at, n.added_at)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.agent_id IS NOT NULL THEN ('{' || substr(concat(
        event_value('agent_id', n.agent_id), event_value('tool_id', n.tool_id),
        event_change('configuration', n.configuration, o.configuration),
        event_change('is_active', n.is_active, o.is_active), event_change('added_at',
        n.added_at, o.added_at)
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
      ('{' || substr(concat(
        event_value('agent_id', o.agent_id), event_value('tool_id', o.tool_id),
        event_value('configuration', o.configuration), event_value('is_active', o.is_active),
        event_value('added_at', o.added_at)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('user_id', n.user_id),
        event_value('agent_id', n.agent_id), event_value('title', n.title),
        event_value('summary', n.summary), event_value('conversation_url', n.conversation_url),
        event_value('status', n.status), event_value('conversation_metadata',
        n.conversation_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('user_id',
        o.user_id, n.user_id), event_change('agent_id', o.agent_id, n.agent_id),
        event_change('title', o.title, n.title), event_change('summary', o.summary, n.summary),
        event_change('conversation_url', o.conversation_url, n.conversation_url),
        event_change('status', o.status, n.status), event_change('conversation_metadata',
        o.conversation_metadata, n.conversation_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('user_id',
        n.user_id, o.user_id), event_change('agent_id', n.agent_id, o.agent_id),
        event_change('title', n.title, o.title), event_change('summary', n.summary, o.summary),
        event_change('conversation_url', n.conversation_url, o.conversation_url),
        event_change('status', n.status, o.status), event_change('conversation_metadata',
        n.conversation_metadata, o.conversation_metadata)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('user_id', o.user_id),
        event_value('agent_id', o.agent_id), event_value('title', o.title),
        event_value('summary', o.summary), event_value('conversation_url', o.conversation_url),
        event_value('status', o.status), event_value('conversation_metadata',
        o.conversation_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('parent_task_id',
        n.parent_task_id), event_value('agent_id', n.agent_id),
        event_value('created_by_user_id', n.created_by_user_id),
        event_value('created_by_agent_id', n.created_by_agent_id), event_value('title',
        n.title), event_value('description', n.description), event_value('type', n.type),
        event_value('status', n.status), event_value('blocked_reason', n.blocked_reason),
        event_value('priority', n.priority), event_value('input', n.input),
        event_value('result', n.result), event_value('error', n.error),
        event_value('available_at', n.available_at), event_value('due_at', n.due_at),
        event_value('started_at', n.started_at), event_value('completed_at', n.completed_at),
        event_value('estimated_seconds', n.estimated_seconds),
        event_value('unmet_dependency_count', n.unmet_dependency_count),
        event_value('attempt_count', n.attempt_count), event_value('max_attempts',
        n.max_attempts), event_value('retry_backoff_seconds', n.retry_backoff_seconds),
        event_value('current_attempt_id', n.current_attempt_id), event_value('lease_expires_at',
        n.lease_expires_at), event_value('cancel_requested', n.cancel_requested),
        event_value('task_metadata', n.task_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('parent_task_id',
        o.parent_task_id, n.parent_task_id), event_change('agent_id', o.agent_id, n.agent_id),
        event_change('created_by_user_id', o.created_by_user_id, n.created_by_user_id),
        event_change('created_by_agent_id', o.created_by_agent_id, n.created_by_agent_id),
        event_change('title', o.title, n.title), event_change('description', o.description,
        n.description), event_change('type', o.type, n.type), event_change('status', o.status,
        n.status), event_change('blocked_reason', o.blocked_reason, n.blocked_reason),
        event_change('priority', o.priority, n.priority), event_change('input', o.input,
        n.input), event_change('result', o.result, n.result), event_change('error', o.error,
        n.error), event_change('available_at', o.available_at, n.available_at),
        event_change('due_at', o.due_at, n.due_at), event_change('started_at', o.started_at,
        n.started_at), event_change('completed_at', o.completed_at, n.completed_at),
        event_change('estimated_seconds', o.estimated_seconds, n.estimated_seconds),
        event_change('unmet_dependency_count', o.unmet_dependency_count,
        n.unmet_dependency_count), event_change('attempt_count', o.attempt_count,
        n.attempt_count), event_change('max_attempts', o.max_attempts, n.max_attempts),
        event_change('retry_backoff_seconds', o.retry_backoff_seconds, n.retry_backoff_seconds),
        event_change('current_attempt_id', o.current_attempt_id, n.current_attempt_id),
        event_change('lease_expires_at', o.lease_expires_at, n.lease_expires_at),
        event_change('cancel_requested', o.cancel_requested, n.cancel_requested),
        event_change('task_metadata', o.task_metadata, n.task_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('parent_task_id',
        n.parent_task_id, o.parent_task_id), event_change('agent_id', n.agent_id, o.agent_id),
        event_change('created_by_user_id', n.created_by_user_id, o.created_by_user_id),
        event_change('created_by_agent_id', n.created_by_agent_id, o.created_by_agent_id),
        event_change('title', n.title, o.title), event_change('description', n.description,
        o.description), event_change('type', n.type, o.type), event_change('status', n.status,
        o.status), event_change('blocked_reason', n.blocked_reason, o.blocked_reason),
        event_change('priority', n.priority, o.priority), event_change('input', n.input,
        o.input), event_change('result', n.result, o.result), event_change('error', n.error,
        o.error), event_change('available_at', n.available_at, o.available_at),
        event_change('due_at', n.due_at, o.due_at), event_change('started_at', n.started_at,
        o.started_at), event_change('completed_at', n.completed_at, o.completed_at),
        event_change('estimated_seconds', n.estimated_seconds, o.estimated_seconds),
        event_change('unmet_dependency_count', n.unmet_dependency_count,
        o.unmet_dependency_count), event_change('attempt_count', n.attempt_count,
        o.attempt_count), event_change('max_attempts', n.max_attempts, o.max_attempts),
        event_change('retry_backoff_seconds', n.retry_backoff_seconds, o.retry_backoff_seconds),
        event_change('current_attempt_id', n.current_attempt_id, o.current_attempt_id),
        event_change('lease_expires_at', n.lease_expires_at, o.lease_expires_at),
        event_change('cancel_requested', n.cancel_requested, o.cancel_requested),
        event_change('task_metadata', n.task_metadata, o.task_metadata)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('parent_task_id',
        o.parent_task_id), event_value('agent_id', o.agent_id),
        event_value('created_by_user_id', o.created_by_user_id),
        event_value('created_by_agent_id', o.created_by_agent_id), event_value('title',
        o.title), event_value('description', o.description), event_value('type', o.type),
        event_value('status', o.status), event_value('blocked_reason', o.blocked_reason),
        event_value('priority', o.priority), event_value('input', o.input),
        event_value('result', o.result), event_value('error', o.error),
        event_value('available_at', o.available_at), event_value('due_at', o.due_at),
        event_value('started_at', o.started_at), event_value('completed_at', o.completed_at),
        event_value('estimated_seconds', o.estimated_seconds),
        event_value('unmet_dependency_count', o.unmet_dependency_count),
        event_value('attempt_count', o.attempt_count), event_value('max_attempts',
        o.max_attempts), event_value('retry_backoff_seconds', o.retry_backoff_seconds),
        event_value('current_attempt_id', o.current_attempt_id), event_value('lease_expires_at',
        o.lease_expires_at), event_value('cancel_requested', o.cancel_requested),
        event_value('task_metadata', o.task_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('from_agent_id', n.from_agent_id),
        event_value('to_agent_id', n.to_agent_id), event_value('type', n.type),
        event_value('content', n.content), event_value('priority', n.priority),
        event_value('status', n.status), event_value('correlation_id', n.correlation_id),
        event_value('reply_to_id', n.reply_to_id), event_value('task_id', n.task_id),
        event_value('sent_at', n.sent_at), event_value('delivered_at', n.delivered_at),
        event_value('acknowledged_at', n.acknowledged_at), event_value('expires_at',
        n.expires_at), event_value('communication_metadata', n.communication_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('from_agent_id',
        o.from_agent_id, n.from_agent_id), event_change('to_agent_id', o.to_agent_id,
        n.to_agent_id), event_change('type', o.type, n.type), event_change('content', o.content,
        n.content), event_change('priority', o.priority, n.priority), event_change('status',
        o.status, n.status), event_change('correlation_id', o.correlation_id, n.correlation_id),
        event_change('reply_to_id', o.reply_to_id, n.reply_to_id), event_change('task_id',
        o.task_id, n.task_id), event_change('sent_at', o.sent_at, n.sent_at),
        event_change('delivered_at', o.delivered_at, n.delivered_at),
        event_change('acknowledged_at', o.acknowledged_at, n.acknowledged_at),
        event_change('expires_at', o.expires_at, n.expires_at),
        event_change('communication_metadata', o.communication_metadata,
        n.communication_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('from_agent_id',
        n.from_agent_id, o.from_agent_id), event_change('to_agent_id', n.to_agent_id,
        o.to_agent_id), event_change('type', n.type, o.type), event_change('content', n.content,
        o.content), event_change('priority', n.priority, o.priority), event_change('status',
        n.status, o.status), event_change('correlation_id', n.correlation_id, o.correlation_id),
        event_change('reply_to_id', n.reply_to_id, o.reply_to_id), event_change('task_id',
        n.task_id, o.task_id), event_change('sent_at', n.sent_at, o.sent_at),
        event_change('delivered_at', n.delivered_at, o.delivered_at),
        event_change('acknowledged_at', n.acknowledged_at, o.acknowledged_at),
        event_change('expires_at', n.expires_at, o.expires_at),
        event_change('communication_metadata', n.communication_metadata,
        o.communication_metadata)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('from_agent_id', o.from_agent_id),
        event_value('to_agent_id', o.to_agent_id), event_value('type', o.type),
        event_value('content', o.content), event_value('priority', o.priority),
        event_value('status', o.status), event_value('correlation_id', o.correlation_id),
        event_value('reply_to_id', o.reply_to_id), event_value('task_id', o.task_id),
        event_value('sent_at', o.sent_at), event_value('delivered_at', o.delivered_at),
        event_value('acknowledged_at', o.acknowledged_at), event_value('expires_at',
        o.expires_at), event_value('communication_metadata', o.communication_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('project_id', n.project_id), event_value('type', n.type),
        event_value('task_id', n.task_id), event_value('agent_id', n.agent_id),
        event_value('conversation_id', n.conversation_id), event_value('title', n.title),
        event_value('content', n.content), event_value('content_hash', n.content_hash),
        event_value('status', n.status), event_value('priority', n.priority),
        event_value('assignee_id', n.assignee_id), event_value('expires_at', n.expires_at),
        event_value('responded_by_id', n.responded_by_id), event_value('responded_at',
        n.responded_at), event_value('interaction_metadata', n.interaction_metadata),
        event_value('approved', n.approved), event_value('comment', n.comment),
        event_value('feedback', n.feedback), event_value('rating', n.rating),
        event_value('answer', n.answer), event_value('level', n.level),
        event_value('requires_acknowledgement', n.requires_acknowledgement)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('project_id', o.project_id, n.project_id), event_change('type', o.type,
        n.type), event_change('task_id', o.task_id, n.task_id), event_change('agent_id',
        o.agent_id, n.agent_id), event_change('conversation_id', o.conversation_id,
        n.conversation_id), event_change('title', o.title, n.title), event_change('content',
        o.content, n.content), event_change('content_hash', o.content_hash, n.content_hash),
        event_change('status', o.status, n.status), event_change('priority', o.priority,
        n.priority), event_change('assignee_id', o.assignee_id, n.assignee_id),
        event_change('expires_at', o.expires_at, n.expires_at), event_change('responded_by_id',
        o.responded_by_id, n.responded_by_id), event_change('responded_at', o.responded_at,
        n.responded_at), event_change('interaction_metadata', o.interaction_metadata,
        n.interaction_metadata), event_change('approved', o.approved, n.approved),
        event_change('comment', o.comment, n.comment), event_change('feedback', o.feedback,
        n.feedback), event_change('rating', o.rating, n.rating), event_change('answer',
        o.answer, n.answer), event_change('level', o.level, n.level),
        event_change('requires_acknowledgement', o.requires_acknowledgement,
        n.requires_acknowledgement)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('project_id', n.project_id, o.project_id), event_change('type', n.type,
        o.type), event_change('task_id', n.task_id, o.task_id), event_change('agent_id',
        n.agent_id, o.agent_id), event_change('conversation_id', n.conversation_id,
        o.conversation_id), event_change('title', n.title, o.title), event_change('content',
        n.content, o.content), event_change('content_hash', n.content_hash, o.content_hash),
        event_change('status', n.status, o.status), event_change('priority', n.priority,
        o.priority), event_change('assignee_id', n.assignee_id, o.assignee_id),
        event_change('expires_at', n.expires_at, o.expires_at), event_change('responded_by_id',
        n.responded_by_id, o.responded_by_id), event_change('responded_at', n.responded_at,
        o.responded_at), event_change('interaction_metadata', n.interaction_metadata,
        o.interaction_metadata), event_change('approved', n.approved, o.approved),
        event_change('comment', n.comment, o.comment), event_change('feedback', n.feedback,
        o.feedback), event_change('rating', n.rating, o.rating), event_change('answer',
        n.answer, o.answer), event_change('level', n.level, o.level),
        event_change('requires_acknowledgement', n.requires_acknowledgement,
        o.requires_acknowledgement)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('project_id', o.project_id), event_value('type', o.type),
        event_value('task_id', o.task_id), event_value('agent_id', o.agent_id),
        event_value('conversation_id', o.conversation_id), event_value('title', o.title),
        event_value('content', o.content), event_value('content_hash', o.content_hash),
        event_value('status', o.status), event_value('priority', o.priority),
        event_value('assignee_id', o.assignee_id), event_value('expires_at', o.expires_at),
        event_value('responded_by_id', o.responded_by_id), event_value('responded_at',
        o.responded_at), event_value('interaction_metadata', o.interaction_metadata),
        event_value('approved', o.approved), event_value('comment', o.comment),
        event_value('feedback', o.feedback), event_value('rating', o.rating),
        event_value('answer', o.answer), event_value('level', o.level),
        event_value('requires_acknowledgement', o.requires_acknowledgement)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('conversation_id', n.conversation_id), event_value('sequence', n.sequence),
        event_value('sender', n.sender), event_value('user_id', n.user_id),
        event_value('agent_id', n.agent_id), event_value('model_id', n.model_id),
        event_value('content', n.content), event_value('parts', n.parts),
        event_value('timestamp', n.timestamp), event_value('edited_at', n.edited_at),
        event_value('message_metadata', n.message_metadata)
      ), 2) || '}')::jsonb
    FROM new_rows n
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('conversation_id', o.conversation_id, n.conversation_id),
        event_change('sequence', o.sequence, n.sequence), event_change('sender', o.sender,
        n.sender), event_change('user_id', o.user_id, n.user_id), event_change('agent_id',
        o.agent_id, n.agent_id), event_change('model_id', o.model_id, n.model_id),
        event_change('content', o.content, n.content), event_change('parts', o.parts, n.parts),
        event_change('timestamp', o.timestamp, n.timestamp), event_change('edited_at',
        o.edited_at, n.edited_at), event_change('message_metadata', o.message_metadata,
        n.message_metadata)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('conversation_id', n.conversation_id, o.conversation_id),
        event_change('sequence', n.sequence, o.sequence), event_change('sender', n.sender,
        o.sender), event_change('user_id', n.user_id, o.user_id), event_change('agent_id',
        n.agent_id, o.agent_id), event_change('model_id', n.model_id, o.model_id),
        event_change('content', n.content, o.content), event_change('parts', n.parts, o.parts),
        event_change('timestamp', n.timestamp, o.timestamp), event_change('edited_at',
        n.edited_at, o.edited_at), event_change('message_metadata', n.message_metadata,
        o.message_metadata)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('conversation_id', o.conversation_id), event_value('sequence', o.sequence),
        event_value('sender', o.sender), event_value('user_id', o.user_id),
        event_value('agent_id', o.agent_id), event_value('model_id', o.model_id),
        event_value('content', o.content), event_value('parts', o.parts),
        event_value('timestamp', o.timestamp), event_value('edited_at', o.edited_at),
        event_value('message_metadata', o.message_metadata)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at), event_value('task_id',
        n.task_id), event_value('agent_id', n.agent_id), event_value('number', n.number),
        event_value('status', n.status), event_value('heartbeat_at', n.heartbeat_at),
        event_value('progress_percent', n.progress_percent), event_value('status_message',
        n.status_message), event_value('result', n.result), event_value('error', n.error),
        event_value('started_at', n.started_at), event_value('ended_at', n.ended_at)
      ), 2) || '}')::jsonb
    FROM new_rows n
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('task_id', o.task_id, n.task_id), event_change('agent_id', o.agent_id,
        n.agent_id), event_change('number', o.number, n.number), event_change('status',
        o.status, n.status), event_change('heartbeat_at', o.heartbeat_at, n.heartbeat_at),
        event_change('progress_percent', o.progress_percent, n.progress_percent),
        event_change('status_message', o.status_message, n.status_message),
        event_change('result', o.result, n.result), event_change('error', o.error, n.error),
        event_change('started_at', o.started_at, n.started_at), event_change('ended_at',
        o.ended_at, n.ended_at)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('task_id', n.task_id, o.task_id), event_change('agent_id', n.agent_id,
        o.agent_id), event_change('number', n.number, o.number), event_change('status',
        n.status, o.status), event_change('heartbeat_at', n.heartbeat_at, o.heartbeat_at),
        event_change('progress_percent', n.progress_percent, o.progress_percent),
        event_change('status_message', n.status_message, o.status_message),
        event_change('result', n.result, o.result), event_change('error', n.error, o.error),
        event_change('started_at', n.started_at, o.started_at), event_change('ended_at',
        n.ended_at, o.ended_at)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at), event_value('task_id',
        o.task_id), event_value('agent_id', o.agent_id), event_value('number', o.number),
        event_value('status', o.status), event_value('heartbeat_at', o.heartbeat_at),
        event_value('progress_percent', o.progress_percent), event_value('status_message',
        o.status_message), event_value('result', o.result), event_value('error', o.error),
        event_value('started_at', o.started_at), event_value('ended_at', o.ended_at)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o
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
      ('{' || substr(concat(
        event_value('dependent_id', n.dependent_id), event_value('dependency_id',
        n.dependency_id), event_value('on_failure', n.on_failure)
      ), 2) || '}')::jsonb
    FROM new_rows n
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
        event_value('dependent_id', o.dependent_id), event_value('dependency_id',
        o.dependency_id), event_change('on_failure', o.on_failure, n.on_failure)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.dependent_id IS NOT NULL THEN ('{' || substr(concat(
        event_value('dependent_id', n.dependent_id), event_value('dependency_id',
        n.dependency_id), event_change('on_failure', n.on_failure, o.on_failure)
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
      ('{' || substr(concat(
        event_value('dependent_id', o.dependent_id), event_value('dependency_id',
        o.dependency_id), event_value('on_failure', o.on_failure)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o
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
      ('{' || substr(concat(
        event_value('id', n.id), event_value('created_at', n.created_at),
        event_value('model_id', n.model_id), event_value('project_id', n.project_id),
        event_value('agent_id', n.agent_id), event_value('task_id', n.task_id),
        event_value('attempt_id', n.attempt_id), event_value('conversation_id',
        n.conversation_id), event_value('message_id', n.message_id), event_value('user_id',
        n.user_id), event_value('input_tokens', n.input_tokens),
        event_value('cached_input_tokens', n.cached_input_tokens), event_value('output_tokens',
        n.output_tokens), event_value('reasoning_tokens', n.reasoning_tokens),
        event_value('cost', n.cost), event_value('latency_ms', n.latency_ms),
        event_value('success', n.success), event_value('request_id', n.request_id),
        event_value('occurred_at', n.occurred_at)
      ), 2) || '}')::jsonb
    FROM new_rows n;
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
        event_change('id', o.id, n.id), event_change('created_at', o.created_at, n.created_at),
        event_change('model_id', o.model_id, n.model_id), event_change('project_id',
        o.project_id, n.project_id), event_change('agent_id', o.agent_id, n.agent_id),
        event_change('task_id', o.task_id, n.task_id), event_change('attempt_id', o.attempt_id,
        n.attempt_id), event_change('conversation_id', o.conversation_id, n.conversation_id),
        event_change('message_id', o.message_id, n.message_id), event_change('user_id',
        o.user_id, n.user_id), event_change('input_tokens', o.input_tokens, n.input_tokens),
        event_change('cached_input_tokens', o.cached_input_tokens, n.cached_input_tokens),
        event_change('output_tokens', o.output_tokens, n.output_tokens),
        event_change('reasoning_tokens', o.reasoning_tokens, n.reasoning_tokens),
        event_change('cost', o.cost, n.cost), event_change('latency_ms', o.latency_ms,
        n.latency_ms), event_change('success', o.success, n.success), event_change('request_id',
        o.request_id, n.request_id), event_change('occurred_at', o.occurred_at, n.occurred_at)
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        event_change('id', n.id, o.id), event_change('created_at', n.created_at, o.created_at),
        event_change('model_id', n.model_id, o.model_id), event_change('project_id',
        n.project_id, o.project_id), event_change('agent_id', n.agent_id, o.agent_id),
        event_change('task_id', n.task_id, o.task_id), event_change('attempt_id', n.attempt_id,
        o.attempt_id), event_change('conversation_id', n.conversation_id, o.conversation_id),
        event_change('message_id', n.message_id, o.message_id), event_change('user_id',
        n.user_id, o.user_id), event_change('input_tokens', n.input_tokens, o.input_tokens),
        event_change('cached_input_tokens', n.cached_input_tokens, o.cached_input_tokens),
        event_change('output_tokens', n.output_tokens, o.output_tokens),
        event_change('reasoning_tokens', n.reasoning_tokens, o.reasoning_tokens),
        event_change('cost', n.cost, o.cost), event_change('latency_ms', n.latency_ms,
        o.latency_ms), event_change('success', n.success, o.success), event_change('request_id',
        n.request_id, o.request_id), event_change('occurred_at', n.occurred_at, o.occurred_at)
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
      ('{' || substr(concat(
        event_value('id', o.id), event_value('created_at', o.created_at),
        event_value('model_id', o.model_id), event_value('project_id', o.project_id),
        event_value('agent_id', o.agent_id), event_value('task_id', o.task_id),
        event_value('attempt_id', o.attempt_id), event_value('conversation_id',
        o.conversation_id), event_value('message_id', o.message_id), event_value('user_id',
        o.user_id), event_value('input_tokens', o.input_tokens),
        event_value('cached_input_tokens', o.cached_input_tokens), event_value('output_tokens',
        o.output_tokens), event_value('reasoning_tokens', o.reasoning_tokens),
        event_value('cost', o.cost), event_value('latency_ms', o.latency_ms),
        event_value('success', o.success), event_value('request_id', o.request_id),
        event_value('occurred_at', o.occurred_at)
      ), 2) || '}')::jsonb,
      NULL
    FROM old_rows o;
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
    partitions()
    functions()
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


def partitions() -> None:
    """Make the first partitions: one for each week, and one for all other events."""
    op.execute("CREATE TABLE events_default PARTITION OF events DEFAULT")
    today = datetime.now(UTC).date()
    start = datetime.combine(today - timedelta(days=today.weekday()), time(), UTC)
    for _ in range(WEEKS):
        end = start + timedelta(weeks=1)
        op.execute(
            f"CREATE TABLE events_{start:%Y_%m_%d} PARTITION OF events"
            f" FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}')"
        )
        start = end


def functions() -> None:
    """Make the functions that those of the tables use, and the one that numbers events."""
    for signature, definition in SHARED.items():
        op.execute(f"CREATE FUNCTION {signature} RETURNS {definition}")
    op.execute(NUMBER)


def downgrade() -> None:
    for table in reversed(TABLES):
        for event in ("truncate", *TRIGGERS):
            op.execute(f"DROP TRIGGER log_{event} ON {table}")
        op.execute(f"DROP FUNCTION log_{table}()")
    op.execute("DROP FUNCTION number_events(bigint, integer)")
    for signature in reversed(SHARED):
        op.execute(f"DROP FUNCTION {signature}")
    op.drop_table("event_positions")
    op.drop_table("events")
