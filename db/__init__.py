"""The data of Troupe: models, their rules, and how they are reached. Knows nothing of GraphQL."""

from db.agent_subscriptions import AgentSubscription
from db.agents import Agent, AgentStatus
from db.ai_models import AIModel, AIModelStatus
from db.attempts import AttemptStatus, TaskAttempt
from db.base import CRUD, Base, new_id
from db.budgets import Budget, BudgetAlert, BudgetPeriod
from db.communications import Communication, CommunicationStatus
from db.connections import OutcomeUnknown
from db.conversations import Conversation, ConversationStatus, Message, MessageSender
from db.engine import Database
from db.events import ActorType, Event, EventAction
from db.interaction_answers import AnswerOutcome, InteractionAnswer
from db.interactions import (
    ApprovalRequest,
    ClarificationRequest,
    FeedbackRequest,
    HumanInteraction,
    InteractionStatus,
    InteractionType,
    Notification,
    NotificationLevel,
    OnExpiry,
)
from db.members import MemberRole, ProjectMember
from db.projects import Project, ProjectStatus
from db.rights import Right
from db.rules import AGENTS, ROLES
from db.scopes import Viewer, scope
from db.sessions import ConnectionReplaced, ReadSession, WriteSession
from db.tasks import BlockedReason, OnFailure, Task, TaskDependency, TaskStatus
from db.tools import AgentTool, Tool, ToolSource, ToolStatus
from db.usage import UsageRecord
from db.users import AccessToken, TokenScope, User, UserRole
from db.webhooks import DeliveryStatus, Webhook, WebhookDelivery, WebhookEnd
