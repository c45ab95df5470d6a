SELECT t.id
FROM tasks t
WHERE t.id = :task
  AND EXISTS (
    SELECT FROM project_members m
    WHERE m.project_id = t.project_id AND m.user_id = :viewer AND m.role IN ('OWNER', 'EDITOR')
  )
FOR NO KEY UPDATE;

UPDATE tasks SET title = :title, updated_at = now(), version = version + 1 WHERE id = :task;

SELECT '{"data":{"updateTask":{"task":' || row_to_json(shown)::text || '}}}'
FROM (
  SELECT
    encode(convert_to('Task:' || t.id::text, 'UTF8'), 'base64') AS id,
    t.title,
    t.status,
    (
      SELECT row_to_json(shown)
      FROM (
        SELECT encode(convert_to('Project:' || p.id::text, 'UTF8'), 'base64') AS id, p.name
      ) shown
    ) AS project
  FROM tasks t JOIN projects p ON p.id = t.project_id
  WHERE t.id = :task
) shown
