-- A plan: a project with agents, and tasks of which 80 % are blocked, each by two others.
-- The settings benchmark.project, .agents and .tasks have its number and how many there are.
-- The tasks are in five layers; those of the first are ready.

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

CREATE TEMP TABLE plan AS
SELECT
  pg_temp.id(2, pg_temp.number_of('project')) AS id,
  -- The numbers of its agents and tasks come after this one.
  pg_temp.number_of('project') * 1000000 AS first,
  pg_temp.number_of('agents') AS agents,
  pg_temp.number_of('tasks') AS tasks,
  pg_temp.number_of('tasks') / 5 AS layer;

INSERT INTO projects (id, created_at, name, status, owner_id)
SELECT id, pg_temp.moment(0), 'A plan of ' || tasks || ' tasks', 'IN_PROGRESS', pg_temp.id(1, 1)
FROM plan;

INSERT INTO project_members (project_id, user_id, role)
SELECT id, pg_temp.id(1, 1), 'OWNER' FROM plan;

INSERT INTO agents (id, created_at, project_id, name, type, status, max_concurrent_tasks)
SELECT
  pg_temp.id(3, first + n), pg_temp.moment(n), id, 'Worker ' || n, 'DEVELOPER', 'ACTIVE', 1000000
FROM plan, generate_series(1, agents) n;

INSERT INTO tasks
  (id, created_at, available_at, project_id, title, description, type, priority, input,
   unmet_dependency_count)
SELECT
  pg_temp.id(4, first + n), pg_temp.moment(n), pg_temp.moment(n), id, 'Task ' || n,
  'What is to be done for task ' || n || ', in full. ' || repeat('It has several steps. ', 3),
  'DEVELOPER', 1 + n % 5, jsonb_build_object('number', n), CASE WHEN n > layer THEN 2 ELSE 0 END
FROM plan, generate_series(1, tasks) n;

INSERT INTO task_dependencies (dependent_id, dependency_id)
SELECT pg_temp.id(4, first + n), pg_temp.id(4, first + below)
FROM plan, generate_series(layer + 1, tasks) n, LATERAL (
  VALUES (n - layer), ((n - 1) / layer * layer - layer + n % layer + 1)
) other (below);

RESET session_replication_role;
