"""Requests to raise the limits of budgets, which people approve."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import insert

from db.budgets import LIMITS, Budget, check_unit, increases
from db.errors import Invalid
from db.interactions import ApprovalRequest
from db.requests import add

if TYPE_CHECKING:
    from db.sessions import WriteSession


async def request(
    session: WriteSession,
    budget: Budget,
    limit: Mapping[str, Any],
    values: Mapping[str, Any],
) -> UUID:
    """Ask people to approve another limit of a budget, which it has once they do.

    `limit` is `limit_cost` or `limit_tokens`. Returns the id of the request. Raises Rejected.
    """
    (name,) = (name for name in LIMITS if getattr(budget, name) is not None)
    check_unit(budget, {each: given for each, given in limit.items() if given is not None})
    wanted, present = limit.get(name), getattr(budget, name)
    unit = "US dollars" if name == "limit_cost" else "tokens"
    if wanted is None or wanted <= present:
        raise Invalid(f"Give a limit of more than {Decimal(present):f} {unit}.", (name,))
    content = {
        "budgetId": str(budget.id),
        "presentLimit": f"{Decimal(present):f}",
        "requestedLimit": f"{Decimal(wanted):f}",
        "unit": unit,
        "reason": values.get("reason"),
    }
    asked = {name: item for name, item in values.items() if name != "reason"}
    asked |= {"project_id": budget.project_id, "task_id": budget.task_id, "content": content}
    asked.setdefault("title", "Raise a budget")
    id = await add(session, ApprovalRequest, asked)
    await session.execute(insert(increases).values(interaction_id=id, budget_id=budget.id, **limit))
    return id
