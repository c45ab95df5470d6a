"""The demo: a database with example data, in which agents work."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any
from uuid import UUID

from db import Database, Viewer, access
from db.imports import import_chats, import_plan
from db.scopes import SYSTEM
from graph.api import API
from graph.clients import Refused

log = logging.getLogger("troupe")

EXAMPLES = Path(__file__).parent.parent / "examples"

# The agents in demo.graphql.
AGENTS = [UUID(f"01940000-0000-7000-8000-0000000000{number}") for number in (20, 21, 22)]
STEP_SECONDS = 5
"""How long a worker works until it reports, and how long one without a task waits."""

CLAIMED = """attempt {
  id number agent { model { id } }
  task {
    id estimatedSeconds input project { id }
    attempts(last: 5) { nodes { checkpoint } }
    approvals: interactions(last: 1, where: {status: {in: [APPROVED, REJECTED]}}) {
      nodes { ... on ApprovalRequest { approved comment } }
    }
  }
}"""

SIGNALS = "attempts { leaseLost cancelRequested pauseRequested }"


async def fill(database: Database) -> None:
    """Add the example data to a new database. Raises RuntimeError if some is rejected."""
    async with database.write(SYSTEM) as session:
        admin = await access.administrator(session)
        assert admin is not None
    await import_plan(database, EXAMPLES / "plan.json", owner=admin.id, project="Imported plan")
    await import_chats(database, EXAMPLES / "chats.json", owner=admin.id, project="Imported chats")
    document = (EXAMPLES / "demo.graphql").read_text(encoding="utf-8")
    asked_by = {
        "Demo": Viewer(admin.id, is_administrator=True),
        "Questions": Viewer(agent_id=AGENTS[0]),
    }
    for operation, viewer in asked_by.items():
        payloads, refused = await API(database, viewer).ask(document, operation)
        errors = [error["message"] for error in refused]
        errors += [
            f"{name}: {error['message']} ({'.'.join(error['path'])})"
            for name, payload in payloads.items()
            for error in (payload or {}).get("userErrors", ())
        ]
        if errors:
            raise RuntimeError(f"the example data does not fit this version: {'; '.join(errors)}")


async def work(database: Database, step_seconds: float = STEP_SECONDS) -> None:
    """Let each agent of the demo work, until it is cancelled."""
    workers = [Worker(API(database, Viewer(agent_id=id)), step_seconds) for id in AGENTS]
    await asyncio.gather(*(worker.run() for worker in workers))


class Worker:
    """One agent of the demo: it claims tasks and works on them, slowly.

    The input of a task says what happens: its first attempt `fails`, or it `asks` for an approval.
    """

    def __init__(self, api: API, step_seconds: float) -> None:
        self._api, self._step_seconds = api, step_seconds

    async def run(self) -> None:
        """Work on one task after another, whatever people do to the demo meanwhile."""
        while True:
            try:
                claimed = (await self._api.change("claimTask", CLAIMED))["attempt"]
                if claimed is not None:
                    await self._attempt(claimed)
                    continue
            except Refused:
                pass  # such as by a lease that was lost, or a budget that is used up
            except Exception:
                log.exception("a worker of the demo made a mistake")
            await asyncio.sleep(self._step_seconds)

    async def _attempt(self, claimed: Any) -> None:
        """Work on a task step by step, and end the attempt."""
        task, attempt = claimed["task"], {"attemptId": claimed["id"]}
        input = task["input"] or {}
        steps = max(2, (task["estimatedSeconds"] or 60) // STEP_SECONDS)
        checkpoints = [earlier["checkpoint"] for earlier in task["attempts"]["nodes"]]
        done = next((each["step"] for each in reversed(checkpoints) if each), 0)
        for step in range(done + 1, steps + 1):
            if step == steps // 2 + 1:
                if "fails" in input and claimed["number"] == 1:
                    await self._api.change("failTask", **attempt, error={"message": input["fails"]})
                    return
                if "asks" in input and not await self._is_approved(claimed):
                    return
            await asyncio.sleep(self._step_seconds)
            report = {
                **attempt,
                "progressPercent": 100 * step // steps,
                "statusMessage": f"Step {step} of {steps}",
                "checkpoint": {"step": step},
            }
            told = await self._api.change("heartbeat", SIGNALS, attempts=[report])
            if not told["attempts"] or any(told["attempts"][0].values()):
                await self._api.change("releaseTask", **attempt, handover=f"Step {step} is done.")
                return
            await self._api.change("recordUsage", **self._usage(claimed, step))
        await self._api.change("completeTask", **attempt, result={"steps": steps})

    async def _is_approved(self, claimed: Any) -> bool:
        """Whether a person has approved the task; if not, park it or let it fail."""
        attempt, task = {"attemptId": claimed["id"]}, claimed["task"]
        answer = next(iter(task["approvals"]["nodes"]), None)
        if answer is None:
            about = {"projectId": task["project"]["id"], "taskId": task["id"], **attempt}
            question = {**task["input"]["asks"], "priority": 5, "blockTask": True}
            await self._api.change("requestApproval", **about, **question)
        elif not answer["approved"]:
            error = {"message": "It was rejected.", "comment": answer["comment"]}
            await self._api.change("failTask", **attempt, error=error, retryable=False)
        return bool(answer and answer["approved"])

    def _usage(self, claimed: Any, step: int) -> dict[str, Any]:
        """The call of the agent's model in a step."""
        record = {
            "modelId": (claimed["agent"]["model"] or {}).get("id"),
            "taskId": claimed["task"]["id"],
            "attemptId": claimed["id"],
            "requestId": f"{claimed['id']}-{step}",
            "inputTokens": 500,
            "cachedInputTokens": 400,
            "outputTokens": 25,
            "latencyMs": 1000 + 50 * (step % 7),
        }
        return {"projectId": claimed["task"]["project"]["id"], "records": [record]}
