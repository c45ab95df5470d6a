-- The rows that the benchmarks read. They are the same each time: ids and times are made from numbers.
-- The settings benchmark.projects, .agents, .tasks and .messages have the numbers of rows.

-- The foreign keys are correct; checking them takes longer than inserting the rows.
SET session_replication_role = replica;
SET maintenance_work_mem = '256MB';

CREATE FUNCTION pg_temp.id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE
RETURN (
  lpad(to_hex(1767225600000 + n), 12, '0') || '7' || lpad(to_hex(kind), 3, '0')
  || '8' || lpad(to_hex(n), 15, '0')
)::uuid;

CREATE FUNCTION pg_temp.moment(n bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE
RETURN timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second';

CREATE FUNCTION pg_temp.number_of(name text) RETURNS bigint LANGUAGE sql STABLE
RETURN current_setting('benchmark.' || name)::bigint;

-- Indexes that are created after the rows take a fraction of the time.
CREATE TEMP TABLE later AS
SELECT i.indexrelid::regclass AS name, pg_get_indexdef(i.indexrelid) AS definition
FROM pg_index i
WHERE i.indrelid IN ('tasks'::regclass, 'messages'::regclass) AND NOT i.indisunique;
DO $$
DECLARE row record;
BEGIN
  FOR row IN SELECT name FROM later LOOP EXECUTE format('DROP INDEX %s', row.name); END LOOP;
END $$;

-- User 1 is a member of every tenth project, and its owner; user 2 is a member of all of them.
INSERT INTO users (id, created_at, username, email)
SELECT pg_temp.id(1, n), pg_temp.moment(n), 'user-' || n, 'user-' || n || '@example.org'
FROM generate_series(1, 102) n;

INSERT INTO projects (id, created_at, name, status, owner_id, description)
SELECT
  pg_temp.id(2, n), pg_temp.moment(n), 'Project ' || n,
  (ARRAY['DRAFT', 'PLANNING', 'IN_PROGRESS', 'COMPLETED'])[1 + n / 10 % 4],
  pg_temp.id(1, CASE WHEN n % 10 = 0 THEN 1 ELSE 3 + n % 100 END),
  jsonb_build_object('goal', 'What project ' || n || ' is there for, in a sentence.')
FROM generate_series(1, pg_temp.number_of('projects')) n;

INSERT INTO project_members (project_id, user_id, role)
SELECT id, owner_id, 'OWNER' FROM projects
UNION ALL
SELECT id, pg_temp.id(1, 2), 'VIEWER' FROM projects;
INSERT INTO project_members (project_id, user_id, role)
SELECT pg_temp.id(2, n), pg_temp.id(1, 3 + (7 * n + 13 * k) % 100), 'EDITOR'
FROM generate_series(1, pg_temp.number_of('projects')) n, generate_series(1, 3) k
ON CONFLICT DO NOTHING;

INSERT INTO ai_models (id, created_at, provider, context_window)
SELECT 'model-' || n, pg_temp.moment(n), 'provider-' || n % 4, 100000
FROM generate_series(1, 20) n;

INSERT INTO agents (id, created_at, project_id, name, type, status, model_id, prompt_template)
SELECT
  pg_temp.id(3, n), pg_temp.moment(n), pg_temp.id(2, project), 'Agent ' || n,
  (ARRAY['DEVELOPER', 'RESEARCHER', 'WRITER'])[1 + (project + place) % 3],
  (ARRAY['CREATED', 'READY', 'ACTIVE', 'PAUSED'])[1 + (project + place) % 4],
  'model-' || 1 + (project + 7 * place) % 20,
  'You are agent ' || n || '. ' || repeat('Be thorough, and say what you are not sure of. ', 5)
FROM
  pg_temp.number_of('projects') projects,
  generate_series(1, pg_temp.number_of('agents')) n,
  LATERAL (SELECT 1 + (n - 1) % projects AS project, (n - 1) / projects AS place) here;

INSERT INTO tasks
  (id, created_at, project_id, agent_id, created_by_user_id, title, description, status, priority)
SELECT
  pg_temp.id(4, n), pg_temp.moment(n), pg_temp.id(2, project),
  pg_temp.id(3, project + projects * (place % 10)), pg_temp.id(1, 3 + n % 100),
  'Task ' || n,
  'What is to be done for task ' || n || ', in full. ' || repeat('It has several steps. ', 3),
  (ARRAY['PENDING', 'ASSIGNED', 'IN_PROGRESS', 'COMPLETED', 'FAILED'])[1 + (project + place) % 5],
  1 + (project + 2 * place) % 5
FROM
  pg_temp.number_of('projects') projects,
  generate_series(1, pg_temp.number_of('tasks')) n,
  LATERAL (SELECT 1 + (n - 1) % projects AS project, (n - 1) / projects AS place) here;

INSERT INTO conversations
  (id, created_at, project_id, title, conversation_url, last_message_at, last_sequence)
SELECT
  pg_temp.id(5, n), pg_temp.moment(n),
  pg_temp.id(2, 1 + (n - 1) % pg_temp.number_of('projects')), 'Conversation ' || n,
  'conversation-' || n, pg_temp.moment(pg_temp.number_of('messages')),
  pg_temp.number_of('messages') / (10 * pg_temp.number_of('projects')) + 1
FROM generate_series(1, 10 * pg_temp.number_of('projects')) n;

INSERT INTO messages (id, created_at, conversation_id, sequence, sender, content, timestamp)
SELECT
  pg_temp.id(6, n), pg_temp.moment(n), pg_temp.id(5, 1 + (n - 1) % conversations),
  1 + (n - 1) / conversations, (ARRAY['USER', 'ASSISTANT'])[1 + n / conversations % 2],
  format(
    'word%s and word%s go with word%s, and word%s with word%s',
    n * 7919 % 5000, n * 104729 % 5000, n * 1299709 % 5000, n % 500, n % 50
  ),
  pg_temp.moment(n)
FROM
  (SELECT 10 * pg_temp.number_of('projects') AS conversations) total,
  generate_series(1, pg_temp.number_of('messages')) n;

DO $$
DECLARE row record;
BEGIN
  FOR row IN SELECT definition FROM later LOOP EXECUTE row.definition; END LOOP;
END $$;
