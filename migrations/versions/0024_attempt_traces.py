"""Attempts keep the trace of the operation that has claimed their task."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task_attempts", sa.Column("claim_traceparent", sa.String(55)))
    op.execute("""CREATE OR REPLACE FUNCTION log_task_attempts() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
    BEGIN
      IF TG_OP = 'INSERT' THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
            THEN n.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          n.id::text,
          'CREATED',
          NULL,
          to_jsonb(n) - ARRAY[
            CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.progress_percent IS
            NULL THEN 'progress_percent' END, CASE WHEN n.status_message IS NULL THEN
            'status_message' END, CASE WHEN n.checkpoint IS NULL THEN 'checkpoint' END, CASE
            WHEN n.handover IS NULL THEN 'handover' END, CASE WHEN n.result IS NULL THEN
            'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE WHEN n.ended_at IS
            NULL THEN 'ended_at' END
          ]
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                 status_message, checkpoint, handover, result, error, started_at, ended_at
          FROM new_rows
        ) n
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = n.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = n.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      ELSIF TG_OP = 'UPDATE' THEN
        IF EXISTS (SELECT FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.progress_percent,
          o.status_message, o.checkpoint, o.handover, o.result, o.error, o.started_at,
          o.ended_at),
          ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.progress_percent,
          n.status_message, n.checkpoint, n.handover, n.result, n.error, n.started_at,
          n.ended_at)
        )) THEN
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
            THEN coalesce(n.task_id, o.task_id)
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          coalesce(n.id, o.id)::text,
          CASE
            WHEN o.id IS NULL THEN 'CREATED'
            WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
          END,
          CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(o.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || o.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || o.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            o.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
            n.progress_percent THEN ',"progress_percent":' || coalesce(o.progress_percent::text,
            'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
            ',"status_message":' || coalesce(to_json(o.status_message)::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
            coalesce(o.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
            n.handover THEN ',"handover":' || coalesce(to_json(o.handover)::text, 'null') END,
            CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(o.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(o.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(o.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(o.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END,
          CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
            CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
            WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
            to_json(n.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
            ',"task_id":' || '"' || n.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
            n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
            CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || n.number::text
            END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
            n.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
            n.progress_percent THEN ',"progress_percent":' || coalesce(n.progress_percent::text,
            'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
            ',"status_message":' || coalesce(to_json(n.status_message)::text, 'null') END, CASE
            WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
            coalesce(n.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
            n.handover THEN ',"handover":' || coalesce(to_json(n.handover)::text, 'null') END,
            CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
            coalesce(n.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
            ROW(n.error)) THEN ',"error":' || coalesce(n.error::text, 'null') END, CASE WHEN
            o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
            to_json(n.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
            THEN ',"ended_at":' || coalesce(to_json(n.ended_at)::text, 'null') END
          ), 2) || '}')::jsonb END
        FROM old_rows o
        FULL JOIN new_rows n ON n.id = o.id
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = coalesce(n.task_id, o.task_id)
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = coalesce(n.task_id, o.task_id)::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true
        WHERE record_image_ne(
          ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.progress_percent,
          o.status_message, o.checkpoint, o.handover, o.result, o.error, o.started_at,
          o.ended_at),
          ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.progress_percent,
          n.status_message, n.checkpoint, n.handover, n.result, n.error, n.started_at,
          n.ended_at)
        );
        END IF;
      ELSE
        INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
        SELECT
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
          END,
          CASE
            WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
            THEN o.task_id
            ELSE coalesce(p.owner_id, NULL::uuid)
          END,
          'TaskAttempt',
          o.id::text,
          'DELETED',
          to_jsonb(o) - ARRAY[
            CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.progress_percent IS
            NULL THEN 'progress_percent' END, CASE WHEN o.status_message IS NULL THEN
            'status_message' END, CASE WHEN o.checkpoint IS NULL THEN 'checkpoint' END, CASE
            WHEN o.handover IS NULL THEN 'handover' END, CASE WHEN o.result IS NULL THEN
            'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE WHEN o.ended_at IS
            NULL THEN 'ended_at' END
          ],
          NULL
        FROM (
          SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                 status_message, checkpoint, handover, result, error, started_at, ended_at
          FROM old_rows
        ) o
        LEFT JOIN LATERAL (
          SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
            true AS is_found
          FROM tasks p WHERE p.id = o.task_id
          UNION ALL
          SELECT e.project_id, e.owner_id, true FROM events e
          WHERE e.entity_type = 'Task'
            AND e.entity_id = o.task_id::text
            AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
          LIMIT 1
        ) p ON true;
      END IF;
      RETURN NULL;
    END
    $$""")


def downgrade() -> None:
    op.execute("""CREATE OR REPLACE FUNCTION log_task_attempts() RETURNS trigger LANGUAGE plpgsql
    SET search_path FROM CURRENT SET timezone = 'UTC' SET enable_seqscan = off
    AS $$
        BEGIN
          IF TG_OP = 'INSERT' THEN
            INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
            SELECT
              CASE
                WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
                THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
              END,
              CASE
                WHEN p.is_found IS NULL AND n.task_id IS NOT NULL
                THEN n.task_id
                ELSE coalesce(p.owner_id, NULL::uuid)
              END,
              'TaskAttempt',
              n.id::text,
              'CREATED',
              NULL,
              to_jsonb(n) - ARRAY[
                CASE WHEN n.agent_id IS NULL THEN 'agent_id' END, CASE WHEN n.progress_percent IS
                NULL THEN 'progress_percent' END, CASE WHEN n.status_message IS NULL THEN
                'status_message' END, CASE WHEN n.checkpoint IS NULL THEN 'checkpoint' END, CASE
                WHEN n.handover IS NULL THEN 'handover' END, CASE WHEN n.result IS NULL THEN
                'result' END, CASE WHEN n.error IS NULL THEN 'error' END, CASE WHEN n.ended_at IS
                NULL THEN 'ended_at' END
              ]
            FROM (
              SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                     status_message, checkpoint, handover, result, error, started_at, ended_at
              FROM new_rows
            ) n
            LEFT JOIN LATERAL (
              SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
                true AS is_found
              FROM tasks p WHERE p.id = n.task_id
              UNION ALL
              SELECT e.project_id, e.owner_id, true FROM events e
              WHERE e.entity_type = 'Task'
                AND e.entity_id = n.task_id::text
                AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
              LIMIT 1
            ) p ON true;
          ELSIF TG_OP = 'UPDATE' THEN
            INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
            SELECT
              CASE
                WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
                THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
              END,
              CASE
                WHEN p.is_found IS NULL AND coalesce(n.task_id, o.task_id) IS NOT NULL
                THEN coalesce(n.task_id, o.task_id)
                ELSE coalesce(p.owner_id, NULL::uuid)
              END,
              'TaskAttempt',
              coalesce(n.id, o.id)::text,
              CASE
                WHEN o.id IS NULL THEN 'CREATED'
                WHEN n.id IS NULL THEN 'DELETED' ELSE 'UPDATED'
              END,
              CASE WHEN o.id IS NOT NULL THEN ('{' || substr(concat(
                CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || o.id || '"' END, CASE
                WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
                to_json(o.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
                ',"task_id":' || '"' || o.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
                n.agent_id THEN ',"agent_id":' || coalesce('"' || o.agent_id || '"', 'null') END,
                CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || o.number::text
                END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
                o.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
                n.progress_percent THEN ',"progress_percent":' || coalesce(o.progress_percent::text,
                'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
                ',"status_message":' || coalesce(to_json(o.status_message)::text, 'null') END, CASE
                WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
                coalesce(o.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
                n.handover THEN ',"handover":' || coalesce(to_json(o.handover)::text, 'null') END,
                CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
                coalesce(o.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
                ROW(n.error)) THEN ',"error":' || coalesce(o.error::text, 'null') END, CASE WHEN
                o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
                to_json(o.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
                THEN ',"ended_at":' || coalesce(to_json(o.ended_at)::text, 'null') END
              ), 2) || '}')::jsonb END,
              CASE WHEN n.id IS NOT NULL THEN ('{' || substr(concat(
                CASE WHEN o.id IS DISTINCT FROM n.id THEN ',"id":' || '"' || n.id || '"' END, CASE
                WHEN o.created_at IS DISTINCT FROM n.created_at THEN ',"created_at":' ||
                to_json(n.created_at)::text END, CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN
                ',"task_id":' || '"' || n.task_id || '"' END, CASE WHEN o.agent_id IS DISTINCT FROM
                n.agent_id THEN ',"agent_id":' || coalesce('"' || n.agent_id || '"', 'null') END,
                CASE WHEN o.number IS DISTINCT FROM n.number THEN ',"number":' || n.number::text
                END, CASE WHEN o.status IS DISTINCT FROM n.status THEN ',"status":' || '"' ||
                n.status || '"' END, CASE WHEN o.progress_percent IS DISTINCT FROM
                n.progress_percent THEN ',"progress_percent":' || coalesce(n.progress_percent::text,
                'null') END, CASE WHEN o.status_message IS DISTINCT FROM n.status_message THEN
                ',"status_message":' || coalesce(to_json(n.status_message)::text, 'null') END, CASE
                WHEN record_image_ne(ROW(o.checkpoint), ROW(n.checkpoint)) THEN ',"checkpoint":' ||
                coalesce(n.checkpoint::text, 'null') END, CASE WHEN o.handover IS DISTINCT FROM
                n.handover THEN ',"handover":' || coalesce(to_json(n.handover)::text, 'null') END,
                CASE WHEN record_image_ne(ROW(o.result), ROW(n.result)) THEN ',"result":' ||
                coalesce(n.result::text, 'null') END, CASE WHEN record_image_ne(ROW(o.error),
                ROW(n.error)) THEN ',"error":' || coalesce(n.error::text, 'null') END, CASE WHEN
                o.started_at IS DISTINCT FROM n.started_at THEN ',"started_at":' ||
                to_json(n.started_at)::text END, CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at
                THEN ',"ended_at":' || coalesce(to_json(n.ended_at)::text, 'null') END
              ), 2) || '}')::jsonb END
            FROM old_rows o
            FULL JOIN new_rows n ON n.id = o.id
            LEFT JOIN LATERAL (
              SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
                true AS is_found
              FROM tasks p WHERE p.id = coalesce(n.task_id, o.task_id)
              UNION ALL
              SELECT e.project_id, e.owner_id, true FROM events e
              WHERE e.entity_type = 'Task'
                AND e.entity_id = coalesce(n.task_id, o.task_id)::text
                AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
              LIMIT 1
            ) p ON true
            WHERE record_image_ne(
              ROW(o.id, o.created_at, o.task_id, o.agent_id, o.number, o.status, o.progress_percent,
              o.status_message, o.checkpoint, o.handover, o.result, o.error, o.started_at,
              o.ended_at),
              ROW(n.id, n.created_at, n.task_id, n.agent_id, n.number, n.status, n.progress_percent,
              n.status_message, n.checkpoint, n.handover, n.result, n.error, n.started_at,
              n.ended_at)
            );
          ELSE
            INSERT INTO events (project_id, owner_id, entity_type, entity_id, action, before, after)
            SELECT
              CASE
                WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
                THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE p.project_id
              END,
              CASE
                WHEN p.is_found IS NULL AND o.task_id IS NOT NULL
                THEN o.task_id
                ELSE coalesce(p.owner_id, NULL::uuid)
              END,
              'TaskAttempt',
              o.id::text,
              'DELETED',
              to_jsonb(o) - ARRAY[
                CASE WHEN o.agent_id IS NULL THEN 'agent_id' END, CASE WHEN o.progress_percent IS
                NULL THEN 'progress_percent' END, CASE WHEN o.status_message IS NULL THEN
                'status_message' END, CASE WHEN o.checkpoint IS NULL THEN 'checkpoint' END, CASE
                WHEN o.handover IS NULL THEN 'handover' END, CASE WHEN o.result IS NULL THEN
                'result' END, CASE WHEN o.error IS NULL THEN 'error' END, CASE WHEN o.ended_at IS
                NULL THEN 'ended_at' END
              ],
              NULL
            FROM (
              SELECT id, created_at, task_id, agent_id, number, status, progress_percent,
                     status_message, checkpoint, handover, result, error, started_at, ended_at
              FROM old_rows
            ) o
            LEFT JOIN LATERAL (
              SELECT p.project_id AS project_id, NULL::uuid AS owner_id,
                true AS is_found
              FROM tasks p WHERE p.id = o.task_id
              UNION ALL
              SELECT e.project_id, e.owner_id, true FROM events e
              WHERE e.entity_type = 'Task'
                AND e.entity_id = o.task_id::text
                AND e.action = 'DELETED' AND e.position IS NULL AND e.created_at = now()
              LIMIT 1
            ) p ON true;
          END IF;
          RETURN NULL;
        END
        $$""")
    op.drop_column("task_attempts", "claim_traceparent")
