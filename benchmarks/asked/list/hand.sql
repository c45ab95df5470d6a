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
                      (
                        SELECT row_to_json(shown)
                        FROM (
                          SELECT
                            -- encode(…, 'base64') breaks long texts into lines.
                            translate(
                              encode(convert_to('AIModel:' || m.id, 'UTF8'), 'base64'), E'\n', ''
                            ) AS id,
                            m.provider
                          FROM ai_models m
                          WHERE m.id = a.model_id
                        ) shown
                      ) AS model
                    FROM agents a
                    WHERE a.project_id = p.id
                    ORDER BY a.created_at, a.id
                    LIMIT 10
                  ) shown
                )) AS nodes
              ) page
            ) AS agents,
            (
              SELECT row_to_json(page)
              FROM (
                SELECT array_to_json(array(
                  SELECT row_to_json(shown)
                  FROM (
                    SELECT
                      encode(convert_to('Task:' || t.id::text, 'UTF8'), 'base64') AS id,
                      t.title,
                      t.status
                    FROM tasks t
                    WHERE t.project_id = p.id
                    ORDER BY t.created_at, t.id
                    LIMIT 20
                  ) shown
                )) AS nodes
              ) page
            ) AS tasks
          FROM projects p
          WHERE EXISTS (
            SELECT FROM project_members m WHERE m.project_id = p.id AND m.user_id = :viewer
          )
          ORDER BY p.created_at, p.id
          LIMIT 50
        ) shown
      )) AS nodes
    ) page
  ) AS projects
) data
