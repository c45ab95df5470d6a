"""Log each update of a row once where one deletion updates it several times."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""CREATE OR REPLACE FUNCTION log_tasks() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Task',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN n.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN n.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN n.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN n.description IS NULL THEN 'description' END,
            CASE WHEN n.type IS NULL THEN 'type' END, CASE WHEN n.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN n.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN n.input IS NULL THEN 'input' END, CASE WHEN
            n.result IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE
            WHEN n.due_at IS NULL THEN 'due_at' END, CASE WHEN n.started_at IS NULL THEN
            'started_at' END, CASE WHEN n.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN n.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            n.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ]
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Task',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || o.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || o.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || o.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(o.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(o.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(o.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            o.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || o.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(o.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(o.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(o.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(o.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(o.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(o.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(o.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(o.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(o.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(o.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || o.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            o.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || o.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || o.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || o.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || o.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || o.task_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || n.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || n.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || n.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(n.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(n.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(n.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            n.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || n.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(n.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(n.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(n.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(n.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(n.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(n.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(n.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(n.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(n.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(n.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || n.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            n.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || n.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || n.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || n.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || n.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || n.task_metadata::text END
          ), 2) || '}')::jsonb END
        FROM (
          SELECT row_number() OVER () AS place, id, created_at, project_id, parent_task_id,
                 agent_id, created_by_user_id, created_by_agent_id, title, description, type,
                 status, blocked_reason, priority, acceptance_criteria, resource_keys, input,
                 result, error, available_at, due_at, started_at, completed_at,
                 estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
                 retry_backoff_seconds, current_attempt_id, cancel_requested, task_metadata
          FROM old_rows
        ) o
        FULL JOIN (
          SELECT row_number() OVER () AS place, id, created_at, project_id, parent_task_id,
                 agent_id, created_by_user_id, created_by_agent_id, title, description, type,
                 status, blocked_reason, priority, acceptance_criteria, resource_keys, input,
                 result, error, available_at, due_at, started_at, completed_at,
                 estimated_seconds, unmet_dependency_count, attempt_count, max_attempts,
                 retry_backoff_seconds, current_attempt_id, cancel_requested, task_metadata
          FROM new_rows
        ) n ON n.id = o.id AND n.place = o.place
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.parent_task_id, o.agent_id, o.created_by_user_id,
          o.created_by_agent_id, o.title, o.description, o.type, o.status, o.blocked_reason,
          o.priority, o.acceptance_criteria, o.resource_keys, o.input, o.result, o.error,
          o.available_at, o.due_at, o.started_at, o.completed_at, o.estimated_seconds,
          o.unmet_dependency_count, o.attempt_count, o.max_attempts, o.retry_backoff_seconds,
          o.current_attempt_id, o.cancel_requested, o.task_metadata),
          ROW(n.id, n.created_at, n.project_id, n.parent_task_id, n.agent_id, n.created_by_user_id,
          n.created_by_agent_id, n.title, n.description, n.type, n.status, n.blocked_reason,
          n.priority, n.acceptance_criteria, n.resource_keys, n.input, n.result, n.error,
          n.available_at, n.due_at, n.started_at, n.completed_at, n.estimated_seconds,
          n.unmet_dependency_count, n.attempt_count, n.max_attempts, n.retry_backoff_seconds,
          n.current_attempt_id, n.cancel_requested, n.task_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Task',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN o.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN o.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN o.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN o.description IS NULL THEN 'description' END,
            CASE WHEN o.type IS NULL THEN 'type' END, CASE WHEN o.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN o.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN o.input IS NULL THEN 'input' END, CASE WHEN
            o.result IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE
            WHEN o.due_at IS NULL THEN 'due_at' END, CASE WHEN o.started_at IS NULL THEN
            'started_at' END, CASE WHEN o.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN o.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            o.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_human_interactions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'HumanInteraction',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN n.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            n.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN n.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN n.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            n.responded_at IS NULL THEN 'responded_at' END, CASE WHEN n.approved IS NULL THEN
            'approved' END, CASE WHEN n.comment IS NULL THEN 'comment' END, CASE WHEN n.feedback
            IS NULL THEN 'feedback' END, CASE WHEN n.rating IS NULL THEN 'rating' END, CASE WHEN
            n.answer IS NULL THEN 'answer' END, CASE WHEN n.level IS NULL THEN 'level' END, CASE
            WHEN n.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ]
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'HumanInteraction',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || o.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            o.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(o.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(o.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || o.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || o.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            o.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || o.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            o.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || o.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            o.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || o.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            o.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(o.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            o.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(o.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(o.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(o.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(o.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || o.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(o.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || n.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            n.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(n.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(n.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || n.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || n.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            n.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || n.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            n.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || n.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            n.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || n.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            n.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(n.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            n.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(n.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(n.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(n.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(n.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || n.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(n.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END
        FROM (
          SELECT row_number() OVER () AS place, id, created_at, project_id, type, task_id,
                 agent_id, conversation_id, title, content, content_hash, asked_by_user_id,
                 asked_by_agent_id, blocks_task, on_expiry, required_approvals, approval_count,
                 status, priority, assignee_id, expires_at, responded_by_id, responded_at,
                 interaction_metadata, approved, comment, feedback, rating, answer, level,
                 requires_acknowledgement
          FROM old_rows
        ) o
        FULL JOIN (
          SELECT row_number() OVER () AS place, id, created_at, project_id, type, task_id,
                 agent_id, conversation_id, title, content, content_hash, asked_by_user_id,
                 asked_by_agent_id, blocks_task, on_expiry, required_approvals, approval_count,
                 status, priority, assignee_id, expires_at, responded_by_id, responded_at,
                 interaction_metadata, approved, comment, feedback, rating, answer, level,
                 requires_acknowledgement
          FROM new_rows
        ) n ON n.id = o.id AND n.place = o.place
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.type, o.task_id, o.agent_id, o.conversation_id,
          o.title, o.content, o.content_hash, o.asked_by_user_id, o.asked_by_agent_id,
          o.blocks_task, o.on_expiry, o.required_approvals, o.approval_count, o.status,
          o.priority, o.assignee_id, o.expires_at, o.responded_by_id, o.responded_at,
          o.interaction_metadata, o.approved, o.comment, o.feedback, o.rating, o.answer,
          o.level, o.requires_acknowledgement),
          ROW(n.id, n.created_at, n.project_id, n.type, n.task_id, n.agent_id, n.conversation_id,
          n.title, n.content, n.content_hash, n.asked_by_user_id, n.asked_by_agent_id,
          n.blocks_task, n.on_expiry, n.required_approvals, n.approval_count, n.status,
          n.priority, n.assignee_id, n.expires_at, n.responded_by_id, n.responded_at,
          n.interaction_metadata, n.approved, n.comment, n.feedback, n.rating, n.answer,
          n.level, n.requires_acknowledgement)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'HumanInteraction',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN o.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            o.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN o.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN o.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            o.responded_at IS NULL THEN 'responded_at' END, CASE WHEN o.approved IS NULL THEN
            'approved' END, CASE WHEN o.comment IS NULL THEN 'comment' END, CASE WHEN o.feedback
            IS NULL THEN 'feedback' END, CASE WHEN o.rating IS NULL THEN 'rating' END, CASE WHEN
            o.answer IS NULL THEN 'answer' END, CASE WHEN o.level IS NULL THEN 'level' END, CASE
            WHEN o.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_usage_records() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'UsageRecord',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN
            n.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN n.conversation_id IS NULL THEN
            'conversation_id' END, CASE WHEN n.message_id IS NULL THEN 'message_id' END, CASE
            WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.cost IS NULL THEN 'cost' END,
            CASE WHEN n.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN n.request_id IS NULL
            THEN 'request_id' END, CASE WHEN n.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
            n.span_id IS NULL THEN 'span_id' END
          ]
        FROM (
          SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
                 conversation_id, message_id, user_id, model_name, input_tokens,
                 cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
                 cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'UsageRecord',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
            THEN ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
            o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
            o.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
            o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || o.task_id
            || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
            ',"attempt_id":' || coalesce('"' || o.attempt_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
            DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || o.message_id ||
            '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
            || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
            FROM n.model_name THEN ',"model_name":' || to_json(o.model_name)::text END, CASE
            WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
            o.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
            n.cached_input_tokens THEN ',"cached_input_tokens":' || o.cached_input_tokens::text
            END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
            ',"cache_creation_tokens":' || o.cache_creation_tokens::text END, CASE WHEN
            o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
            o.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
            n.reasoning_tokens THEN ',"reasoning_tokens":' || o.reasoning_tokens::text END, CASE
            WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
            coalesce(to_json(o.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
            n.latency_ms THEN ',"latency_ms":' || coalesce(o.latency_ms::text, 'null') END, CASE
            WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || o.success::text END,
            CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
            coalesce(to_json(o.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
            FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(o.trace_id)::text, 'null')
            END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
            coalesce(to_json(o.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
            FROM n.occurred_at THEN ',"occurred_at":' || to_json(o.occurred_at)::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
            THEN ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
            o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
            n.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
            o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || n.task_id
            || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
            ',"attempt_id":' || coalesce('"' || n.attempt_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
            DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || n.message_id ||
            '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
            || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
            FROM n.model_name THEN ',"model_name":' || to_json(n.model_name)::text END, CASE
            WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
            n.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
            n.cached_input_tokens THEN ',"cached_input_tokens":' || n.cached_input_tokens::text
            END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
            ',"cache_creation_tokens":' || n.cache_creation_tokens::text END, CASE WHEN
            o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
            n.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
            n.reasoning_tokens THEN ',"reasoning_tokens":' || n.reasoning_tokens::text END, CASE
            WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
            coalesce(to_json(n.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
            n.latency_ms THEN ',"latency_ms":' || coalesce(n.latency_ms::text, 'null') END, CASE
            WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || n.success::text END,
            CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
            coalesce(to_json(n.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
            FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(n.trace_id)::text, 'null')
            END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
            coalesce(to_json(n.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
            FROM n.occurred_at THEN ',"occurred_at":' || to_json(n.occurred_at)::text END
          ), 2) || '}')::jsonb END
        FROM (
          SELECT row_number() OVER () AS place, id, created_at, model_id, project_id, agent_id,
                 task_id, attempt_id, conversation_id, message_id, user_id, model_name,
                 input_tokens, cached_input_tokens, cache_creation_tokens, output_tokens,
                 reasoning_tokens, cost, latency_ms, success, request_id, trace_id, span_id,
                 occurred_at
          FROM old_rows
        ) o
        FULL JOIN (
          SELECT row_number() OVER () AS place, id, created_at, model_id, project_id, agent_id,
                 task_id, attempt_id, conversation_id, message_id, user_id, model_name,
                 input_tokens, cached_input_tokens, cache_creation_tokens, output_tokens,
                 reasoning_tokens, cost, latency_ms, success, request_id, trace_id, span_id,
                 occurred_at
          FROM new_rows
        ) n ON n.id = o.id AND n.place = o.place
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.model_id, o.project_id, o.agent_id, o.task_id, o.attempt_id,
          o.conversation_id, o.message_id, o.user_id, o.model_name, o.input_tokens,
          o.cached_input_tokens, o.cache_creation_tokens, o.output_tokens, o.reasoning_tokens,
          o.cost, o.latency_ms, o.success, o.request_id, o.trace_id, o.span_id, o.occurred_at),
          ROW(n.id, n.created_at, n.model_id, n.project_id, n.agent_id, n.task_id, n.attempt_id,
          n.conversation_id, n.message_id, n.user_id, n.model_name, n.input_tokens,
          n.cached_input_tokens, n.cache_creation_tokens, n.output_tokens, n.reasoning_tokens,
          n.cost, n.latency_ms, n.success, n.request_id, n.trace_id, n.span_id, n.occurred_at)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'UsageRecord',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN
            o.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN o.conversation_id IS NULL THEN
            'conversation_id' END, CASE WHEN o.message_id IS NULL THEN 'message_id' END, CASE
            WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.cost IS NULL THEN 'cost' END,
            CASE WHEN o.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN o.request_id IS NULL
            THEN 'request_id' END, CASE WHEN o.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
            o.span_id IS NULL THEN 'span_id' END
          ],
          NULL
        FROM (
          SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
                 conversation_id, message_id, user_id, model_name, input_tokens,
                 cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
                 cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
          FROM old_rows
        ) o;
      END IF;
      RETURN NULL;
    END
    $$""")


def downgrade() -> None:
    op.execute("""CREATE OR REPLACE FUNCTION log_usage_records() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      n.project_id,
      NULL::uuid,
      'UsageRecord',
      n.id::text,
      'CREATED',
      NULL,
      to_jsonb(n) - ARRAY[
        CASE WHEN n.model_id IS NULL THEN 'model_id' END, CASE WHEN n.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN
        n.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN n.conversation_id IS NULL THEN
        'conversation_id' END, CASE WHEN n.message_id IS NULL THEN 'message_id' END, CASE
        WHEN n.user_id IS NULL THEN 'user_id' END, CASE WHEN n.cost IS NULL THEN 'cost' END,
        CASE WHEN n.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN n.request_id IS NULL
        THEN 'request_id' END, CASE WHEN n.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
        n.span_id IS NULL THEN 'span_id' END
      ]
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, model_name, input_tokens,
             cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
             cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
      FROM new_rows
    ) n;
      ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      coalesce(n.project_id, o.project_id),
      NULL::uuid,
      'UsageRecord',
      coalesce(n.id, o.id)::text,
      CASE
        WHEN o.id IS NULL THEN 'CREATED'
        WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
      END,
      CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(o.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || coalesce(to_json(o.model_id)::text, 'null') END, CASE WHEN
        o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
        o.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
        o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || o.task_id
        || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
        ',"attempt_id":' || coalesce('"' || o.attempt_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
        DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || o.message_id ||
        '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
        || coalesce('"' || o.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
        FROM n.model_name THEN ',"model_name":' || to_json(o.model_name)::text END, CASE
        WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
        o.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
        n.cached_input_tokens THEN ',"cached_input_tokens":' || o.cached_input_tokens::text
        END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
        ',"cache_creation_tokens":' || o.cache_creation_tokens::text END, CASE WHEN
        o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
        o.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
        n.reasoning_tokens THEN ',"reasoning_tokens":' || o.reasoning_tokens::text END, CASE
        WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
        coalesce(to_json(o.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
        n.latency_ms THEN ',"latency_ms":' || coalesce(o.latency_ms::text, 'null') END, CASE
        WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || o.success::text END,
        CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
        coalesce(to_json(o.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
        FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(o.trace_id)::text, 'null')
        END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
        coalesce(to_json(o.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
        FROM n.occurred_at THEN ',"occurred_at":' || to_json(o.occurred_at)::text END
      ), 2) || '}')::jsonb END,
      CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
        CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
        WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
        to_json(n.created_at)::text END, CASE WHEN o.model_id IS DISTINCT FROM n.model_id
        THEN ',"model_id":' || coalesce(to_json(n.model_id)::text, 'null') END, CASE WHEN
        o.project_id IS DISTINCT FROM n.project_id THEN ',"project_id":' || '"' ||
        n.project_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
        ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
        o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' || n.task_id
        || '"', 'null') END, CASE WHEN o.attempt_id IS DISTINCT FROM n.attempt_id THEN
        ',"attempt_id":' || coalesce('"' || n.attempt_id || '"', 'null') END, CASE WHEN
        o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
        coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.message_id IS
        DISTINCT FROM n.message_id THEN ',"message_id":' || coalesce('"' || n.message_id ||
        '"', 'null') END, CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN ',"user_id":'
        || coalesce('"' || n.user_id || '"', 'null') END, CASE WHEN o.model_name IS DISTINCT
        FROM n.model_name THEN ',"model_name":' || to_json(n.model_name)::text END, CASE
        WHEN o.input_tokens IS DISTINCT FROM n.input_tokens THEN ',"input_tokens":' ||
        n.input_tokens::text END, CASE WHEN o.cached_input_tokens IS DISTINCT FROM
        n.cached_input_tokens THEN ',"cached_input_tokens":' || n.cached_input_tokens::text
        END, CASE WHEN o.cache_creation_tokens IS DISTINCT FROM n.cache_creation_tokens THEN
        ',"cache_creation_tokens":' || n.cache_creation_tokens::text END, CASE WHEN
        o.output_tokens IS DISTINCT FROM n.output_tokens THEN ',"output_tokens":' ||
        n.output_tokens::text END, CASE WHEN o.reasoning_tokens IS DISTINCT FROM
        n.reasoning_tokens THEN ',"reasoning_tokens":' || n.reasoning_tokens::text END, CASE
        WHEN o.cost IS DISTINCT FROM n.cost THEN ',"cost":' ||
        coalesce(to_json(n.cost)::text, 'null') END, CASE WHEN o.latency_ms IS DISTINCT FROM
        n.latency_ms THEN ',"latency_ms":' || coalesce(n.latency_ms::text, 'null') END, CASE
        WHEN o.success IS DISTINCT FROM n.success THEN ',"success":' || n.success::text END,
        CASE WHEN o.request_id IS DISTINCT FROM n.request_id THEN ',"request_id":' ||
        coalesce(to_json(n.request_id)::text, 'null') END, CASE WHEN o.trace_id IS DISTINCT
        FROM n.trace_id THEN ',"trace_id":' || coalesce(to_json(n.trace_id)::text, 'null')
        END, CASE WHEN o.span_id IS DISTINCT FROM n.span_id THEN ',"span_id":' ||
        coalesce(to_json(n.span_id)::text, 'null') END, CASE WHEN o.occurred_at IS DISTINCT
        FROM n.occurred_at THEN ',"occurred_at":' || to_json(n.occurred_at)::text END
      ), 2) || '}')::jsonb END
    FROM old_rows o
    FULL JOIN new_rows n ON n.id = o.id
    WHERE record_image_ne(
      ROW(o.id, o.created_at, o.model_id, o.project_id, o.agent_id, o.task_id, o.attempt_id,
      o.conversation_id, o.message_id, o.user_id, o.model_name, o.input_tokens,
      o.cached_input_tokens, o.cache_creation_tokens, o.output_tokens, o.reasoning_tokens,
      o.cost, o.latency_ms, o.success, o.request_id, o.trace_id, o.span_id, o.occurred_at),
      ROW(n.id, n.created_at, n.model_id, n.project_id, n.agent_id, n.task_id, n.attempt_id,
      n.conversation_id, n.message_id, n.user_id, n.model_name, n.input_tokens,
      n.cached_input_tokens, n.cache_creation_tokens, n.output_tokens, n.reasoning_tokens,
      n.cost, n.latency_ms, n.success, n.request_id, n.trace_id, n.span_id, n.occurred_at)
    );
      ELSE
    INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
    SELECT
      o.project_id,
      NULL::uuid,
      'UsageRecord',
      o.id::text,
      'DELETED',
      to_jsonb(o) - ARRAY[
        CASE WHEN o.model_id IS NULL THEN 'model_id' END, CASE WHEN o.agent_id IS NULL THEN
        'agent_id' END, CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN
        o.attempt_id IS NULL THEN 'attempt_id' END, CASE WHEN o.conversation_id IS NULL THEN
        'conversation_id' END, CASE WHEN o.message_id IS NULL THEN 'message_id' END, CASE
        WHEN o.user_id IS NULL THEN 'user_id' END, CASE WHEN o.cost IS NULL THEN 'cost' END,
        CASE WHEN o.latency_ms IS NULL THEN 'latency_ms' END, CASE WHEN o.request_id IS NULL
        THEN 'request_id' END, CASE WHEN o.trace_id IS NULL THEN 'trace_id' END, CASE WHEN
        o.span_id IS NULL THEN 'span_id' END
      ],
      NULL
    FROM (
      SELECT id, created_at, model_id, project_id, agent_id, task_id, attempt_id,
             conversation_id, message_id, user_id, model_name, input_tokens,
             cached_input_tokens, cache_creation_tokens, output_tokens, reasoning_tokens,
             cost, latency_ms, success, request_id, trace_id, span_id, occurred_at
      FROM old_rows
    ) o;
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_human_interactions() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'HumanInteraction',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.task_id IS NULL THEN 'task_id' END, CASE WHEN n.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN n.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN n.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            n.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN n.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN n.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN n.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            n.responded_at IS NULL THEN 'responded_at' END, CASE WHEN n.approved IS NULL THEN
            'approved' END, CASE WHEN n.comment IS NULL THEN 'comment' END, CASE WHEN n.feedback
            IS NULL THEN 'feedback' END, CASE WHEN n.rating IS NULL THEN 'rating' END, CASE WHEN
            n.answer IS NULL THEN 'answer' END, CASE WHEN n.level IS NULL THEN 'level' END, CASE
            WHEN n.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ]
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'HumanInteraction',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || o.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            o.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || o.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(o.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            o.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(o.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || o.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || o.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            o.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || o.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            o.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || o.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || o.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            o.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || o.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(o.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            o.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(o.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            o.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(o.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(o.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(o.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(o.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(o.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || o.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(o.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.type IS DISTINCT FROM n.type THEN ',"type":' || '"' || n.type || '"' END, CASE
            WHEN o.task_id IS DISTINCT FROM n.task_id THEN ',"task_id":' || coalesce('"' ||
            n.task_id || '"', 'null') END, CASE WHEN o.agent_id IS DISTINCT FROM n.agent_id THEN
            ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END, CASE WHEN
            o.conversation_id IS DISTINCT FROM n.conversation_id THEN ',"conversation_id":' ||
            coalesce('"' || n.conversation_id || '"', 'null') END, CASE WHEN o.title IS DISTINCT
            FROM n.title THEN ',"title":' || to_json(n.title)::text END, CASE WHEN
            record_image_ne(ROW(o.content), ROW(n.content)) THEN ',"content":' ||
            n.content::text END, CASE WHEN o.content_hash IS DISTINCT FROM n.content_hash THEN
            ',"content_hash":' || to_json(n.content_hash)::text END, CASE WHEN
            o.asked_by_user_id IS DISTINCT FROM n.asked_by_user_id THEN ',"asked_by_user_id":'
            || coalesce('"' || n.asked_by_user_id || '"', 'null') END, CASE WHEN
            o.asked_by_agent_id IS DISTINCT FROM n.asked_by_agent_id THEN
            ',"asked_by_agent_id":' || coalesce('"' || n.asked_by_agent_id || '"', 'null') END,
            CASE WHEN o.blocks_task IS DISTINCT FROM n.blocks_task THEN ',"blocks_task":' ||
            n.blocks_task::text END, CASE WHEN o.on_expiry IS DISTINCT FROM n.on_expiry THEN
            ',"on_expiry":' || '"' || n.on_expiry || '"' END, CASE WHEN o.required_approvals IS
            DISTINCT FROM n.required_approvals THEN ',"required_approvals":' ||
            n.required_approvals::text END, CASE WHEN o.approval_count IS DISTINCT FROM
            n.approval_count THEN ',"approval_count":' || n.approval_count::text END, CASE WHEN
            o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' || n.status || '"' END,
            CASE WHEN o.priority IS DISTINCT FROM n.priority THEN ',"priority":' ||
            n.priority::text END, CASE WHEN o.assignee_id IS DISTINCT FROM n.assignee_id THEN
            ',"assignee_id":' || coalesce('"' || n.assignee_id || '"', 'null') END, CASE WHEN
            o.expires_at IS DISTINCT FROM n.expires_at THEN ',"expires_at":' ||
            coalesce(to_json(n.expires_at)::text, 'null') END, CASE WHEN o.responded_by_id IS
            DISTINCT FROM n.responded_by_id THEN ',"responded_by_id":' || coalesce('"' ||
            n.responded_by_id || '"', 'null') END, CASE WHEN o.responded_at IS DISTINCT FROM
            n.responded_at THEN ',"responded_at":' || coalesce(to_json(n.responded_at)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.interaction_metadata),
            ROW(n.interaction_metadata)) THEN ',"interaction_metadata":' ||
            n.interaction_metadata::text END, CASE WHEN o.approved IS DISTINCT FROM n.approved
            THEN ',"approved":' || coalesce(n.approved::text, 'null') END, CASE WHEN o.comment
            IS DISTINCT FROM n.comment THEN ',"comment":' || coalesce(to_json(n.comment)::text,
            'null') END, CASE WHEN record_image_ne(ROW(o.feedback), ROW(n.feedback)) THEN
            ',"feedback":' || coalesce(n.feedback::text, 'null') END, CASE WHEN o.rating IS
            DISTINCT FROM n.rating THEN ',"rating":' || coalesce(n.rating::text, 'null') END,
            CASE WHEN o.answer IS DISTINCT FROM n.answer THEN ',"answer":' ||
            coalesce(to_json(n.answer)::text, 'null') END, CASE WHEN o.level IS DISTINCT FROM
            n.level THEN ',"level":' || coalesce('"' || n.level || '"', 'null') END, CASE WHEN
            o.requires_acknowledgement IS DISTINCT FROM n.requires_acknowledgement THEN
            ',"requires_acknowledgement":' || coalesce(n.requires_acknowledgement::text, 'null')
            END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.type, o.task_id, o.agent_id, o.conversation_id,
          o.title, o.content, o.content_hash, o.asked_by_user_id, o.asked_by_agent_id,
          o.blocks_task, o.on_expiry, o.required_approvals, o.approval_count, o.status,
          o.priority, o.assignee_id, o.expires_at, o.responded_by_id, o.responded_at,
          o.interaction_metadata, o.approved, o.comment, o.feedback, o.rating, o.answer,
          o.level, o.requires_acknowledgement),
          ROW(n.id, n.created_at, n.project_id, n.type, n.task_id, n.agent_id, n.conversation_id,
          n.title, n.content, n.content_hash, n.asked_by_user_id, n.asked_by_agent_id,
          n.blocks_task, n.on_expiry, n.required_approvals, n.approval_count, n.status,
          n.priority, n.assignee_id, n.expires_at, n.responded_by_id, n.responded_at,
          n.interaction_metadata, n.approved, n.comment, n.feedback, n.rating, n.answer,
          n.level, n.requires_acknowledgement)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'HumanInteraction',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.task_id IS NULL THEN 'task_id' END, CASE WHEN o.agent_id IS NULL THEN
            'agent_id' END, CASE WHEN o.conversation_id IS NULL THEN 'conversation_id' END, CASE
            WHEN o.asked_by_user_id IS NULL THEN 'asked_by_user_id' END, CASE WHEN
            o.asked_by_agent_id IS NULL THEN 'asked_by_agent_id' END, CASE WHEN o.assignee_id IS
            NULL THEN 'assignee_id' END, CASE WHEN o.expires_at IS NULL THEN 'expires_at' END,
            CASE WHEN o.responded_by_id IS NULL THEN 'responded_by_id' END, CASE WHEN
            o.responded_at IS NULL THEN 'responded_at' END, CASE WHEN o.approved IS NULL THEN
            'approved' END, CASE WHEN o.comment IS NULL THEN 'comment' END, CASE WHEN o.feedback
            IS NULL THEN 'feedback' END, CASE WHEN o.rating IS NULL THEN 'rating' END, CASE WHEN
            o.answer IS NULL THEN 'answer' END, CASE WHEN o.level IS NULL THEN 'level' END, CASE
            WHEN o.requires_acknowledgement IS NULL THEN 'requires_acknowledgement' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, type, task_id, agent_id, conversation_id, title,
                 content, content_hash, asked_by_user_id, asked_by_agent_id, blocks_task,
                 on_expiry, required_approvals, approval_count, status, priority, assignee_id,
                 expires_at, responded_by_id, responded_at, interaction_metadata, approved,
                 comment, feedback, rating, answer, level, requires_acknowledgement
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
    op.execute("""CREATE OR REPLACE FUNCTION log_tasks() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          n.project_id,
          NULL::uuid,
          'Task',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN n.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN n.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN n.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN n.description IS NULL THEN 'description' END,
            CASE WHEN n.type IS NULL THEN 'type' END, CASE WHEN n.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN n.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN n.input IS NULL THEN 'input' END, CASE WHEN
            n.result IS NULL THEN 'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE
            WHEN n.due_at IS NULL THEN 'due_at' END, CASE WHEN n.started_at IS NULL THEN
            'started_at' END, CASE WHEN n.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN n.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            n.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ]
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM new_rows
        ) n;
      ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          coalesce(n.project_id, o.project_id),
          NULL::uuid,
          'Task',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || o.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || o.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || o.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || o.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(o.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(o.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(o.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || o.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            o.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || o.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(o.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(o.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(o.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(o.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(o.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(o.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(o.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(o.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(o.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(o.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || o.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            o.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || o.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || o.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || o.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || o.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || o.task_metadata::text END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.project_id IS DISTINCT FROM
            n.project_id THEN ',"project_id":' || '"' || n.project_id || '"' END, CASE WHEN
            o.parent_task_id IS DISTINCT FROM n.parent_task_id THEN ',"parent_task_id":' ||
            coalesce('"' || n.parent_task_id || '"', 'null') END, CASE WHEN o.agent_id IS
            DISTINCT FROM n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"',
            'null') END, CASE WHEN o.created_by_user_id IS DISTINCT FROM n.created_by_user_id
            THEN ',"created_by_user_id":' || coalesce('"' || n.created_by_user_id || '"',
            'null') END, CASE WHEN o.created_by_agent_id IS DISTINCT FROM n.created_by_agent_id
            THEN ',"created_by_agent_id":' || coalesce('"' || n.created_by_agent_id || '"',
            'null') END, CASE WHEN o.title IS DISTINCT FROM n.title THEN ',"title":' ||
            to_json(n.title)::text END, CASE WHEN o.description IS DISTINCT FROM n.description
            THEN ',"description":' || coalesce(to_json(n.description)::text, 'null') END, CASE
            WHEN o.type IS DISTINCT FROM n.type THEN ',"type":' ||
            coalesce(to_json(n.type)::text, 'null') END, CASE WHEN o.status IS DISTINCT FROM
            n.status THEN ',"status":' || '"' || n.status || '"' END, CASE WHEN o.blocked_reason
            IS DISTINCT FROM n.blocked_reason THEN ',"blocked_reason":' || coalesce('"' ||
            n.blocked_reason || '"', 'null') END, CASE WHEN o.priority IS DISTINCT FROM
            n.priority THEN ',"priority":' || n.priority::text END, CASE WHEN
            o.acceptance_criteria IS DISTINCT FROM n.acceptance_criteria THEN
            ',"acceptance_criteria":' || coalesce(to_json(n.acceptance_criteria)::text, 'null')
            END, CASE WHEN o.resource_keys IS DISTINCT FROM n.resource_keys THEN
            ',"resource_keys":' || to_json(n.resource_keys)::text END, CASE WHEN
            record_image_ne(ROW(o.input), ROW(n.input)) THEN ',"input":' ||
            coalesce(n.input::text, 'null') END, CASE WHEN record_image_ne(ROW(o.result),
            ROW(n.result)) THEN ',"result":' || coalesce(n.result::text, 'null') END, CASE WHEN
            record_image_ne(ROW(o.error), ROW(n.error)) THEN ',"error":' ||
            coalesce(n.error::text, 'null') END, CASE WHEN o.available_at IS DISTINCT FROM
            n.available_at THEN ',"available_at":' || to_json(n.available_at)::text END, CASE
            WHEN o.due_at IS DISTINCT FROM n.due_at THEN ',"due_at":' ||
            coalesce(to_json(n.due_at)::text, 'null') END, CASE WHEN o.started_at IS DISTINCT
            FROM n.started_at THEN ',"started_at":' || coalesce(to_json(n.started_at)::text,
            'null') END, CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN
            ',"completed_at":' || coalesce(to_json(n.completed_at)::text, 'null') END, CASE WHEN
            o.estimated_seconds IS DISTINCT FROM n.estimated_seconds THEN
            ',"estimated_seconds":' || coalesce(n.estimated_seconds::text, 'null') END, CASE
            WHEN o.unmet_dependency_count IS DISTINCT FROM n.unmet_dependency_count THEN
            ',"unmet_dependency_count":' || n.unmet_dependency_count::text END, CASE WHEN
            o.attempt_count IS DISTINCT FROM n.attempt_count THEN ',"attempt_count":' ||
            n.attempt_count::text END, CASE WHEN o.max_attempts IS DISTINCT FROM n.max_attempts
            THEN ',"max_attempts":' || n.max_attempts::text END, CASE WHEN
            o.retry_backoff_seconds IS DISTINCT FROM n.retry_backoff_seconds THEN
            ',"retry_backoff_seconds":' || n.retry_backoff_seconds::text END, CASE WHEN
            o.current_attempt_id IS DISTINCT FROM n.current_attempt_id THEN
            ',"current_attempt_id":' || coalesce('"' || n.current_attempt_id || '"', 'null')
            END, CASE WHEN o.cancel_requested IS DISTINCT FROM n.cancel_requested THEN
            ',"cancel_requested":' || n.cancel_requested::text END, CASE WHEN
            record_image_ne(ROW(o.task_metadata), ROW(n.task_metadata)) THEN ',"task_metadata":'
            || n.task_metadata::text END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.project_id, o.parent_task_id, o.agent_id, o.created_by_user_id,
          o.created_by_agent_id, o.title, o.description, o.type, o.status, o.blocked_reason,
          o.priority, o.acceptance_criteria, o.resource_keys, o.input, o.result, o.error,
          o.available_at, o.due_at, o.started_at, o.completed_at, o.estimated_seconds,
          o.unmet_dependency_count, o.attempt_count, o.max_attempts, o.retry_backoff_seconds,
          o.current_attempt_id, o.cancel_requested, o.task_metadata),
          ROW(n.id, n.created_at, n.project_id, n.parent_task_id, n.agent_id, n.created_by_user_id,
          n.created_by_agent_id, n.title, n.description, n.type, n.status, n.blocked_reason,
          n.priority, n.acceptance_criteria, n.resource_keys, n.input, n.result, n.error,
          n.available_at, n.due_at, n.started_at, n.completed_at, n.estimated_seconds,
          n.unmet_dependency_count, n.attempt_count, n.max_attempts, n.retry_backoff_seconds,
          n.current_attempt_id, n.cancel_requested, n.task_metadata)
        );
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          o.project_id,
          NULL::uuid,
          'Task',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.parent_task_id IS NULL THEN 'parent_task_id' END, CASE WHEN o.agent_id
            IS NULL THEN 'agent_id' END, CASE WHEN o.created_by_user_id IS NULL THEN
            'created_by_user_id' END, CASE WHEN o.created_by_agent_id IS NULL THEN
            'created_by_agent_id' END, CASE WHEN o.description IS NULL THEN 'description' END,
            CASE WHEN o.type IS NULL THEN 'type' END, CASE WHEN o.blocked_reason IS NULL THEN
            'blocked_reason' END, CASE WHEN o.acceptance_criteria IS NULL THEN
            'acceptance_criteria' END, CASE WHEN o.input IS NULL THEN 'input' END, CASE WHEN
            o.result IS NULL THEN 'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE
            WHEN o.due_at IS NULL THEN 'due_at' END, CASE WHEN o.started_at IS NULL THEN
            'started_at' END, CASE WHEN o.completed_at IS NULL THEN 'completed_at' END, CASE
            WHEN o.estimated_seconds IS NULL THEN 'estimated_seconds' END, CASE WHEN
            o.current_attempt_id IS NULL THEN 'current_attempt_id' END
          ],
          NULL
        FROM (
          SELECT id, created_at, project_id, parent_task_id, agent_id, created_by_user_id,
                 created_by_agent_id, title, description, type, status, blocked_reason,
                 priority, acceptance_criteria, resource_keys, input, result, error,
                 available_at, due_at, started_at, completed_at, estimated_seconds,
                 unmet_dependency_count, attempt_count, max_attempts, retry_backoff_seconds,
                 current_attempt_id, cancel_requested, task_metadata
          FROM old_rows
        ) o;
        UPDATE events e SET project_id = o.project_id, owner_id = NULL::uuid
        FROM old_rows o
        WHERE e.project_id = '00000000-0000-0000-0000-000000000000'::uuid AND e.owner_id = o.id
          AND e.created_at = now();
      END IF;
      RETURN NULL;
    END
    $$""")
