SELECT p.id
FROM projects p
WHERE p.id = :project
  AND EXISTS (
    SELECT FROM project_members m
    WHERE m.project_id = p.id AND m.user_id = :viewer AND m.role IN ('OWNER', 'EDITOR')
  )
FOR NO KEY UPDATE;

INSERT INTO usage_records (id, project_id, model_id, model_name, input_tokens, output_tokens, cost)
SELECT
  :new,
  :project,
  id,
  id,
  :input::integer,
  :output::integer,
  (:input::integer * input_price + :output::integer * output_price) / 1000000
FROM ai_models
WHERE id = :model;

SELECT '{"data":{"recordUsage":{"usageRecords":[' || row_to_json(shown)::text || ']}}}'
FROM (
  SELECT
    encode(convert_to('UsageRecord:' || u.id::text, 'UTF8'), 'base64') AS id,
    u.input_tokens AS "inputTokens",
    u.output_tokens AS "outputTokens",
    (
      SELECT row_to_json(shown)
      FROM (
        SELECT encode(convert_to('Project:' || p.id::text, 'UTF8'), 'base64') AS id, p.name
      ) shown
    ) AS project
  FROM usage_records u JOIN projects p ON p.id = u.project_id
  WHERE u.id = :new
) shown
