-- Whoever sees a project sees everything in it.
SELECT '{"data":' || row_to_json(data)::text || '}'
FROM (
  SELECT (
    SELECT row_to_json(page)
    FROM (
      SELECT array_to_json(array(
        SELECT row_to_json(shown)
        FROM (
          SELECT
            encode(convert_to('Project:' || p.id::text, 'UTF8'), 'base64') AS id,
            p.name,
            (
              SELECT row_to_json(page)
              FROM (
                SELECT array_to_json(array(
                  SELECT row_to_json(shown)
                  FROM (
                    SELECT
                      encode(convert_to('Agent:' || a.id::text, 'UTF8'), 'base64') AS id,
                      a.name,
                      a.status
                    FROM agents a
                    WHERE a.project_id = p.id
                    ORDER BY a.created_at, a.id
                    LIMIT 5
                  ) shown
                )) AS nodes
              ) page
            ) AS agents
          FROM projects p
          WHERE EXISTS (
            SELECT FROM project_members m WHERE m.project_id = p.id AND m.user_id = :viewer
          )
          ORDER BY p.created_at, p.id
          LIMIT 10
        ) shown
      )) AS nodes
    ) page
  ) AS projects
) data
