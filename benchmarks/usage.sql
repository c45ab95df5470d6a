-- Usage records, whose number is the setting benchmark.records: of a month, 200 for a task.
-- The totals are made from them as the trigger makes them, but in one statement.

SET session_replication_role = replica;

CREATE TEMP TABLE numbered AS
SELECT
  row_number() OVER (ORDER BY t.id) AS number, t.id AS task_id, t.project_id, t.agent_id
FROM tasks t JOIN projects p ON p.id = t.project_id
WHERE p.owner_id = $member$
ORDER BY t.id
LIMIT current_setting('benchmark.records')::bigint / 200;

INSERT INTO usage_records
  (id, created_at, project_id, agent_id, task_id, model_id, model_name, input_tokens,
   output_tokens, cost, success, occurred_at)
SELECT
  gen_random_uuid(), at, project_id, agent_id, task_id, model, model, 1200 + k, 300 + k,
  0.0012, k % 50 <> 0, at
FROM numbered, generate_series(1, 200) k, LATERAL (
  SELECT
    'model-' || 1 + number % 20 AS model,
    timestamptz '2026-01-01 00:00:00+00' + (
      number * interval '30 days' / (SELECT count(*) FROM numbered) + k * interval '30 seconds'
    ) AS at
) made;

INSERT INTO usage_totals
  (hour, project_id, agent_id, model_name, task_id, user_id, input_tokens, cached_input_tokens,
   cache_creation_tokens, output_tokens, reasoning_tokens, calls, failures, unpriced_calls, cost,
   is_merged)
SELECT
  date_trunc('hour', occurred_at, 'UTC'), project_id, agent_id, model_name, task_id, user_id,
  sum(input_tokens), sum(cached_input_tokens), sum(cache_creation_tokens), sum(output_tokens),
  sum(reasoning_tokens), count(*), count(*) FILTER (WHERE NOT success),
  count(*) FILTER (WHERE cost IS NULL), coalesce(sum(cost), 0), true
FROM usage_records
GROUP BY 1, 2, 3, 4, 5, 6;

RESET session_replication_role;
