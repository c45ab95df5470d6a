SELECT '{"data":{"project":' || coalesce((
  SELECT row_to_json(shown)::text
  FROM (
    SELECT
      encode(convert_to('Project:' || p.id::text, 'UTF8'), 'base64') AS id, p.name, p.status
    FROM projects p
    WHERE p.id = :id
      AND EXISTS (
        SELECT FROM project_members m WHERE m.project_id = p.id AND m.user_id = :viewer
      )
  ) shown
), 'null') || '}}'
