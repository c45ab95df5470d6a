"""A worker: it claims tasks, works on them and asks people, and can be killed at any time."""
# It needs gql[httpx], and in TOKEN the token of an agent that is READY.

import asyncio
import os
from functools import partial
from typing import Any
from uuid import uuid4

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError
from gql.transport.httpx import HTTPXAsyncTransport

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql")
LEASE = int(os.environ.get("LEASE_SECONDS", "60"))
CLAIMED = """attempt { id task { title input checkpoint
  approvals: interactions(last: 1, where: {status: {in: [APPROVED, REJECTED]}}) {
    nodes { ... on ApprovalRequest { approved comment } } } } }"""
SIGNALS = "attempts { leaseLost cancelRequested pauseRequested }"


class Refused(Exception):
    """The server did not do it, or wants the work to stop."""


class ApprovalNeeded(Exception):
    """The work cannot go on until a person has approved something."""


async def send(session: Any, name: str, shown: str = "", /, **input: Any) -> Any:
    """Send a mutation, and again for a minute if the server cannot answer now."""
    document = f"""mutation($input: {name[0].upper()}{name[1:]}Input!) {{
      {name}(input: $input) {{ {shown} userErrors {{ message }} }} }}"""
    request = GraphQLRequest(document, variable_values={"input": input})
    for seconds in (1, 2, 4, 8, 16, 32, None):
        try:
            payload = (await session.execute(request))[name]
            break
        except TransportError as error:
            codes = {each["extensions"]["code"] for each in getattr(error, "errors", None) or ()}
            if seconds is None or codes & {"BAD_USER_INPUT", "FORBIDDEN", "UNAUTHENTICATED"}:
                raise
            print(f"{name} at {URL}: {error}; again in {seconds} s", flush=True)
            await asyncio.sleep(seconds)
    if payload["userErrors"]:
        raise Refused(payload["userErrors"][0]["message"])
    return payload


class Attempt:
    """An attempt at a task, with what earlier attempts and people have left for it."""

    def __init__(self, session: Any, id: str, task: Any) -> None:
        self.session, self.id, self.task = session, id, task
        self.end = partial(send, session, attemptId=id)
        self.checkpoint = task["checkpoint"] or {"done": 0}
        self.approval = next(iter(task["approvals"]["nodes"]), None)

    async def beat(self) -> None:
        """Keep the task, and store how far the work is."""
        beat = {"attemptId": self.id, "checkpoint": self.checkpoint}
        told = await send(self.session, "heartbeat", SIGNALS, attempts=[beat], leaseSeconds=LEASE)
        if any(told["attempts"][0].values()):
            raise Refused(f"{self.task['title']}: stopped")

    async def run(self) -> None:
        """Work on the task, and end the attempt as the work ends."""
        working = asyncio.create_task(work(self))
        try:
            while not (await asyncio.wait([working], timeout=LEASE / 3))[0]:
                await self.beat()
            await self.end("completeTask", result=await working)
        except ApprovalNeeded as need:  # parks the task; this worker is free for others
            asked = {"content": self.checkpoint, "checkpoint": self.checkpoint, "blockTask": True}
            await self.end("requestApproval", title=str(need), idempotencyKey=uuid4().hex, **asked)
        except (Refused, asyncio.CancelledError):
            await self.end("releaseTask", checkpoint=self.checkpoint)
            raise
        except Exception as error:
            print(f"{self.task['title']}: {error!r}", flush=True)
            ended = {"error": repr(error), "retryable": not isinstance(error, PermissionError)}
            await self.end("failTask", checkpoint=self.checkpoint, **ended)
        finally:
            working.cancel()


async def work(attempt: Attempt) -> Any:
    """Put your own work here. This sample does steps, and asks a person before the last one."""
    input = {"steps": 1, "secondsPerStep": 1} | (attempt.task["input"] or {})
    for step in range(attempt.checkpoint["done"] + 1, input["steps"] + 1):
        if step == input["steps"] and "question" in input:
            if attempt.approval is None:
                raise ApprovalNeeded(input["question"])
            if not attempt.approval["approved"]:
                raise PermissionError(attempt.approval["comment"])
        await asyncio.sleep(input["secondsPerStep"])
        attempt.checkpoint = {"done": step}
        await attempt.beat()
        print(f"{attempt.task['title']}: step {step} of {input['steps']}", flush=True)
    return attempt.checkpoint


async def main() -> None:
    """Claim tasks and work on them, one after another."""
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    async with Client(transport=HTTPXAsyncTransport(URL, headers=headers)) as session:
        print(f"Waiting for tasks of {URL}", flush=True)
        while True:
            claim = {"leaseSeconds": LEASE, "idempotencyKey": uuid4().hex}
            try:
                found = (await send(session, "claimTask", CLAIMED, **claim))["attempt"]
                await (Attempt(session, **found).run() if found else asyncio.sleep(1))
            except Refused as refusal:
                print(refusal, flush=True)
                await asyncio.sleep(1)
            except TransportError as error:
                raise SystemExit(f"{URL} cannot be used: {error}") from error


asyncio.run(main())
