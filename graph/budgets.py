"""Budgets: limits to what is spent, and alerts when it nears them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import strawberry
from pydantic import Field
from strawberry import Maybe

import db
from db import BudgetPeriod, Right, budget_increases, budgets
from graph.core.connections import Connection
from graph.core.entities import Node, entity
from graph.core.fields import collection, connected, one, related
from graph.core.filters import (
    BooleanFilter,
    DateTimeFilter,
    EnumFilter,
    IDFilter,
    IntFilter,
    StringFilter,
    filters,
    ordering,
    through,
)
from graph.core.history import history
from graph.core.inputs import Repeatable, Versioned, changed_values, input_of, new_values
from graph.core.mutations import mutation
from graph.core.payloads import Changed, Deleted
from graph.core.scalars import ID, BigInt, Line, Price, Text

Cost = Annotated[Price, Field(gt=0)]
Tokens = Annotated[BigInt, Field(gt=0, lt=2**63)]
Thresholds = Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=10)]


@filters(db.Budget)
class BudgetFilter:
    id: IDFilter | None
    period: EnumFilter[BudgetPeriod] | None
    is_hard: BooleanFilter | None
    refuses_usage: BooleanFilter | None
    model_name: StringFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    project_id: IDFilter | None
    agent_id: IDFilter | None
    task_id: IDFilter | None
    project = through(db.Budget.project)
    agent = through(db.Budget.agent)
    task = through(db.Budget.task)


BudgetOrder = ordering(db.Budget, db.Budget.created_at, db.Budget.updated_at)


@entity(db.Budget, where=BudgetFilter, order=BudgetOrder)
class Budget(Node):
    model_name: str | None
    period: BudgetPeriod
    limit_cost: Decimal | None
    limit_tokens: BigInt | None
    claim_reserve: Decimal
    is_hard: bool
    refuses_usage: bool
    thresholds: list[int]
    spent: Decimal
    reserved: Decimal
    remaining: Decimal
    percent_used: int
    period_ends_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    project = related(db.Budget.project)
    agent = related(db.Budget.agent)
    task = related(db.Budget.task)
    alerts = connected(db.Budget.alerts)
    history = history(db.Budget)


@filters(db.BudgetAlert)
class BudgetAlertFilter:
    id: IDFilter | None
    threshold: IntFilter | None
    period_starts_at: DateTimeFilter | None
    created_at: DateTimeFilter | None
    updated_at: DateTimeFilter | None
    budget_id: IDFilter | None
    budget = through(db.BudgetAlert.budget)


BudgetAlertOrder = ordering(db.BudgetAlert, db.BudgetAlert.created_at, db.BudgetAlert.updated_at)


@entity(db.BudgetAlert, where=BudgetAlertFilter, order=BudgetAlertOrder)
class BudgetAlert(Node):
    period_starts_at: datetime
    threshold: int
    spent: Decimal
    created_at: datetime
    updated_at: datetime
    budget = related(db.BudgetAlert.budget)


@strawberry.type
class Query:
    budget: Budget | None = one(db.Budget)
    budgets: Connection[Budget] = collection(db.Budget)
    budget_alert: BudgetAlert | None = one(db.BudgetAlert)
    budget_alerts: Connection[BudgetAlert] = collection(db.BudgetAlert)


@input_of(db.Budget)
class CreateBudgetInput(Repeatable):
    """The budget to create: of an agent, a task or a model, or else of the whole project."""

    id: ID[db.Budget] | None = None
    project_id: ID[db.Project]
    agent_id: ID[db.Agent] | None = None
    task_id: ID[db.Task] | None = None
    model_name: Line | None = None
    period: BudgetPeriod
    limit_cost: Cost | None = None
    limit_tokens: Tokens | None = None
    claim_reserve: Price | None = None
    is_hard: bool = True
    refuses_usage: bool = False
    thresholds: Thresholds | None = None


@input_of(db.Budget)
class UpdateBudgetInput(Versioned):
    """The changes to a budget. An omitted field stays as it is."""

    id: ID[db.Budget]
    limit_cost: Maybe[Cost] = None
    limit_tokens: Maybe[Tokens] = None
    claim_reserve: Maybe[Price] = None
    is_hard: Maybe[bool] = None
    refuses_usage: Maybe[bool] = None
    thresholds: Maybe[Thresholds] = None


@input_of(db.Budget)
class DeleteBudgetInput(Versioned):
    """The budget to delete."""

    id: ID[db.Budget]


@input_of()
class RequestBudgetIncreaseInput(Repeatable):
    """The limit to ask for, in the unit that the budget has."""

    budget_id: ID[db.Budget] = Field(description="The budget.")
    limit_cost: Cost | None = Field(
        default=None, description="How much may be spent in a period, in US dollars."
    )
    limit_tokens: Tokens | None = Field(
        default=None, description="How many tokens may be used in a period."
    )
    reason: Text | None = Field(default=None, description="Why it is needed, for whoever approves.")
    agent_id: ID[db.Agent] | None = Field(default=None, description="The agent that asks.")
    expires_at: datetime | None = Field(
        default=None, description="When the request expires if it has not been answered."
    )


@strawberry.type
class Mutation:
    @mutation(Right.OWN)
    async def create_budget(
        self, session: db.WriteSession, input: CreateBudgetInput
    ) -> Changed[db.Budget]:
        """Create a budget. What was used in the present period counts."""
        return Changed(await budgets.create(session, new_values(input)))

    @mutation(Right.OWN)
    async def update_budget(
        self, session: db.WriteSession, input: UpdateBudgetInput
    ) -> Changed[db.Budget]:
        """Change a budget. It keeps its period, what it is for, and the unit of its limit."""
        values = changed_values(input)
        await budgets.change(session, input.id, values, version=input.expected_version)
        return Changed(input.id)

    @mutation(Right.OWN)
    async def delete_budget(
        self, session: db.WriteSession, input: DeleteBudgetInput
    ) -> Deleted[db.Budget]:
        """Delete a budget with its alerts."""
        await budgets.delete(session, input.id, version=input.expected_version)
        return Deleted(input.id)

    @mutation(Right.WORK)
    async def request_budget_increase(
        self, session: db.WriteSession, input: RequestBudgetIncreaseInput
    ) -> Changed[db.ApprovalRequest]:
        """Ask people to approve a higher limit. The budget has it as soon as they do."""
        budget = await session.fetch(
            db.Budget, input.budget_id, at=("budget_id",), lock=False, right=Right.VIEW
        )
        await session.fetch(
            db.Project, budget.project_id, at=("budget_id",), lock=False, right=Right.WORK
        )
        given = {"limit_cost": input.limit_cost, "limit_tokens": input.limit_tokens}
        values = {
            "agent_id": input.agent_id,
            "expires_at": input.expires_at,
            "reason": input.reason,
        }
        return Changed(await budget_increases.request(session, budget, given, values))
