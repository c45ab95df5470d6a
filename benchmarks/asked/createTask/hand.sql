SELECT p.id
FROM projects p
WHERE p.id = :project
  AND EXISTS (
    SELECT FROM project_members m
    WHERE m.project_id = p.id AND m.user_id = :viewer AND m.role IN ('OWNER', 'EDITOR')
  )
FOR NO KEY UPDATE;

INSERT INTO tasks (id, project_id, created_by_user_id, title, description)
VALUES (:new, :project, :viewer, :title, :description);

SELECT '{"data":{"createTask":{"task":' || row_to_json(shown)::text || '}}}'
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
  WHERE t.id = :new
) shown
