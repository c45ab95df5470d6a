"""The data of Troupe: models, their rules, and how they are reached. Knows nothing of GraphQL."""

from db.agents import Agent, AgentStatus
from db.ai_models import AIModel, AIModelStatus
from db.base import CRUD, Base, new_id
from db.conversations import Conversation, ConversationStatus, Message, MessageSender
from db.engine import Database, ReadSession, WriteSession
from db.projects import Project, ProjectStatus
from db.scopes import Right, Viewer, scope
from db.tasks import BlockedReason, OnFailure, Task, TaskDependency, TaskStatus
from db.users import AccessToken, User, UserRole

__all__ = [
    "CRUD",
    "AIModel",
    "AIModelStatus",
    "AccessToken",
    "Agent",
    "AgentStatus",
    "Base",
    "BlockedReason",
    "Conversation",
    "ConversationStatus",
    "Database",
    "Message",
    "MessageSender",
    "OnFailure",
    "Project",
    "ProjectStatus",
    "ReadSession",
    "Right",
    "Task",
    "TaskDependency",
    "TaskStatus",
    "User",
    "UserRole",
    "Viewer",
    "WriteSession",
    "new_id",
    "scope",
]
