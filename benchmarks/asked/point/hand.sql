-- $1 is the viewer, $2 the project.
SELECT '{"data":{"project":' || coalesce((
  SELECT row_to_json(shown)::text
  FROM (
    SELECT
      encode(convert_to('Project:' || p.id::text, 'UTF8'), 'base64') AS id, p.name, p.status
    FROM projects p
    WHERE p.id = $2
      AND EXISTS (
        SELECT FROM project_members m WHERE m.project_id = p.id AND m.user_id = $1
      )
  ) shown
), 'null') || '}}'
