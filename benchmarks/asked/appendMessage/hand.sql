SELECT c.id
FROM conversations c
WHERE c.id = :conversation
  AND c.status = 'ACTIVE'
  AND EXISTS (
    SELECT FROM project_members m
    WHERE m.project_id = c.project_id AND m.user_id = :viewer AND m.role IN ('OWNER', 'EDITOR')
  )
FOR NO KEY UPDATE;

WITH conversation AS (
  UPDATE conversations
  SET last_sequence = last_sequence + 1, last_message_at = now(), updated_at = now()
  WHERE id = :conversation
  RETURNING id, last_sequence
)
INSERT INTO messages (id, conversation_id, sequence, sender, content)
SELECT :new, id, last_sequence, 'ASSISTANT', :content FROM conversation;

SELECT '{"data":{"appendMessages":{"messages":[' || row_to_json(shown)::text || ']}}}'
FROM (
  SELECT
    encode(convert_to('Message:' || m.id::text, 'UTF8'), 'base64') AS id,
    m.sender,
    m.content,
    (
      SELECT row_to_json(shown)
      FROM (
        SELECT
          encode(convert_to('Conversation:' || c.id::text, 'UTF8'), 'base64') AS id, c.title
      ) shown
    ) AS conversation
  FROM messages m JOIN conversations c ON c.id = m.conversation_id
  WHERE m.id = :new
) shown
