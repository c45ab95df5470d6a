"""Excerpts of messages with the words that a search has found; no column for when agents were seen.

PostgreSQL's own `ts_headline` splits texts by its parser, which knows neither the scripts without
spaces nor the spellings that the search treats alike (0004), so that it would mark too little.

When an agent was last seen follows from its tokens, attempts and leases.
"""

import importlib

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

search = importlib.import_module("migrations.versions.0004_search")

# How many characters of a text are looked through, and how many an excerpt shows.
LOOKED_THROUGH, SHOWN = 20_000, 400
# A text is looked through in pieces, which overlap, so that each word is whole in one of them and
# has some text before it.
PIECE, STEP = 300, 200
# At most so many parts, of which the last is not marked.
PARTS = 20

OTHERS = (
    r"\s\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000!-/:-@\[-`{-~" + search.SEPARATOR
)


# The words of the query without those that are excluded. A character of a script without spaces is
# marked alone, or with its neighbour if the query has both.
HIGHLIGHTS = rf"""
CREATE FUNCTION highlights(content text, query text)
RETURNS TABLE (number integer, text text, is_match boolean)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT AS $$
DECLARE
  excerpt text := left(content, {LOOKED_THROUGH});
  words text[];
  beginnings text[];
  wanted tsquery;
  start integer;
BEGIN
  SELECT array_agg(lexeme[1]), array_agg(lexeme[1]) FILTER (WHERE lexeme[2] IS NOT NULL),
    string_agg('''' || lexeme[1] || '''' || coalesce(lexeme[2], ''), '|')::tsquery
  INTO words, beginnings, wanted
  FROM regexp_matches(
    regexp_replace(search_query(query)::text, '!(''[^'']+''|\( [^)]* \))', '', 'g'),
    '''([^'']+)''(:\*)?', 'g'
  ) lexeme;
  SELECT place INTO start
  FROM generate_series(1, length(excerpt), {STEP}) place
  WHERE search_vector(substr(excerpt, place, {PIECE})) @@ wanted LIMIT 1;
  start := coalesce(start, 1);
  excerpt := substr(content, start, {SHOWN});
  IF length(content) >= start + {SHOWN} THEN
    excerpt := regexp_replace(excerpt, '\s+\S{{0,40}}$', '') || '…';
  END IF;
  IF start > 1 THEN
    excerpt := '…' || regexp_replace(excerpt, '^\S{{0,40}}\s+', '');
  END IF;
  RETURN QUERY
  WITH token AS (
    SELECT place, matched[1] AS token, matched[1] ~ '^[{search.UNPARTED}]' AS is_unspaced
    FROM regexp_matches(
      normalize(excerpt, NFC),
      '[{search.UNPARTED}]|(?:[{search.HIDDEN}]|[^{OTHERS}{search.UNPARTED}])+|.', 'g'
    ) WITH ORDINALITY AS found (matched, place)
  ), pair AS (
    SELECT *, CASE WHEN is_unspaced AND lead(is_unspaced) OVER following
      THEN folded(normalize(token.token || lead(token.token) OVER following, NFKC))
        = ANY (words)
      END AS is_first
    FROM token WINDOW following AS (ORDER BY place)
  ), marked AS (
    SELECT place, token, coalesce(
      CASE
        WHEN is_unspaced THEN is_first OR lag(is_first) OVER (ORDER BY place)
          OR folded(normalize(token, NFKC)) = ANY (beginnings)
        WHEN token ~ '^[0-9A-Za-z]+$' THEN lower(token) = ANY (words)
        WHEN token ~ '^[^{OTHERS}]' OR length(token) > 1
        THEN tsvector_to_array(search_vector(token)) && words
      END, false
    ) AS is_marked
    FROM pair
  ), run AS (
    SELECT *, place - row_number() OVER (PARTITION BY is_marked ORDER BY place) AS run
    FROM marked
  ), part AS (
    SELECT row_number() OVER (ORDER BY min(place))::integer AS part,
      string_agg(token, '' ORDER BY place) AS part_text, is_marked
    FROM run GROUP BY is_marked, run
  )
  SELECT least(part, {PARTS}), string_agg(part_text, '' ORDER BY part), bool_and(is_marked)
  FROM part GROUP BY 1 ORDER BY 1;
END
$$
"""  # noqa: S608

# PostgreSQL can only estimate how many messages a search finds if it plans it by its words, and a
# plan for any words would split them again for each message. It keeps no such plan if the function
# costs much.
MADE = (
    "ALTER FUNCTION search_query(text) RENAME TO parsed_query",
    """
CREATE FUNCTION search_query(value text) RETURNS tsquery
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000000 SET search_path FROM CURRENT
AS $$ BEGIN RETURN parsed_query(value); END $$
""",
    HIGHLIGHTS,
)


def upgrade() -> None:
    for statement in MADE:
        op.get_bind().exec_driver_sql(statement)
    op.drop_column("agents", "last_seen_at")
    op.execute("""CREATE OR REPLACE FUNCTION log_agents() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
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
            THEN 'model_id' END, CASE WHEN n.prompt_template IS NULL THEN 'prompt_template' END
          ]
        FROM (
          SELECT id, created_at, project_id, name, type, description, status, is_active,
                 model_id, prompt_template, configuration, max_concurrent_tasks, agent_metadata
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
            o.max_concurrent_tasks::text END, CASE WHEN record_image_ne(ROW(o.agent_metadata),
            ROW(n.agent_metadata)) THEN ',"agent_metadata":' || o.agent_metadata::text END
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
            n.max_concurrent_tasks::text END, CASE WHEN record_image_ne(ROW(o.agent_metadata),
            ROW(n.agent_metadata)) THEN ',"agent_metadata":' || n.agent_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.name, o.type, o.description, o.status,
          o.is_active, o.model_id, o.prompt_template, o.configuration, o.max_concurrent_tasks,
          o.agent_metadata),
          ROW(n.id, n.created_at, n.project_id, n.name, n.type, n.description, n.status,
          n.is_active, n.model_id, n.prompt_template, n.configuration, n.max_concurrent_tasks,
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
          to_jsonb(o) - ARRAY[
            CASE WHEN o.description IS NULL THEN 'description' END, CASE WHEN o.model_id IS NULL
            THEN 'model_id' END, CASE WHEN o.prompt_template IS NULL THEN 'prompt_template' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, name, type, description, status, is_active,
                 model_id, prompt_template, configuration, max_concurrent_tasks, agent_metadata
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")


def downgrade() -> None:
    op.execute("DROP FUNCTION highlights(text, text)")
    op.execute("DROP FUNCTION search_query(text)")
    op.execute("ALTER FUNCTION parsed_query(text) RENAME TO search_query")
    op.execute("""CREATE OR REPLACE FUNCTION log_agents() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
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
    $$""")
    op.add_column(
        "agents",
        sa.Column(
            "last_seen_at", postgresql.TIMESTAMP(timezone=True), autoincrement=False, nullable=True
        ),
    )
    op.create_check_constraint(
        op.f("ck_agents_last_seen_at_finite"), "agents", "isfinite(last_seen_at)"
    )
