"""Terminations: what becomes of the tasks of an agent that ends, and of the messages to it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import case, literal, update

from db import communications, conversations, dependencies
from db.agents import Agent, AgentStatus
from db.base import any_of
from db.conversations import Conversation
from db.sessions import WriteSession
from db.tasks import Task, TaskStatus


async def transition_agent(
    session: WriteSession, id: UUID, to: AgentStatus, *, version: int | None = None
) -> Agent:
    """Change the status of an agent.

    What is assigned to one that is TERMINATED is PENDING then, and messages that it has not
    acknowledged are FAILED. An agent changes only its own status. Raises NotFound, Denied, Conflict
    and IllegalTransition.
    """
    session.in_own_name(id, ("id",))
    is_ending = to is AgentStatus.TERMINATED
    if is_ending:
        # As by all who end tasks.
        await dependencies.lock(session, id, Agent)
    agent = await session.fetch(Agent, id, version=version)
    if is_ending:
        await _unassign(session, agent)
        await communications.fail(session, agent.id)
    agent.transition(to)
    return agent


async def delete_agent(session: WriteSession, id: UUID, *, version: int | None = None) -> None:
    """Delete an agent, with the messages to and from it. What is assigned to it is PENDING then.

    Raises NotFound, Denied and Conflict.
    """
    await dependencies.lock(session, id, Agent)
    await session.fetch(Agent, id, lock=False)
    await conversations.lock_all(session, Conversation.agent_id == id)
    agent = await session.fetch(Agent, id, version=version)
    await _unassign(session, agent)
    await agent.delete(session)


async def _unassign(session: WriteSession, agent: Agent) -> None:
    """Take the tasks that no attempt is running on from an agent."""
    # FOR UPDATE, unlike the lock of `fetch`, also blocks transactions that assign a task to it, or
    # send it a message.
    await session.refresh(agent, with_for_update=True)
    await session.execute(
        update(Task)
        .where(
            Task.agent_id == agent.id,
            any_of(Task.status, {TaskStatus.ASSIGNED, TaskStatus.BLOCKED}),
        )
        .values(
            status=case(
                (Task.status == TaskStatus.BLOCKED, Task.status), else_=literal(TaskStatus.PENDING)
            ),
            agent_id=None,
            version=Task.version + 1,
        )
        .execution_options(synchronize_session=False)
    )
