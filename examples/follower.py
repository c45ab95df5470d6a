"""A follower: it gets each event of a project once, though the server restarts meanwhile."""
# It needs gql[websockets], in TOKEN an access token, and in PROJECT the id of a project.

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

URL = os.environ.get("GRAPHQL_URL", "http://127.0.0.1:8000/graphql").replace("http", "ws", 1)
PROJECT = os.environ["PROJECT"]
COUNT = int(os.environ.get("COUNT", "0"))  # of events, after which it ends; 0 means never

FOLLOW = """subscription($project: ID, $after: String) {
  events(projectId: $project, after: $after) {
    cursor gap { after } event { position action entityType entityId } } }"""
LOG = """query($project: ID, $after: String, $first: Int, $last: Int) {
  events(where: {projectId: {eq: $project}}, after: $after, first: $first, last: $last) {
    nodes { position } pageInfo { endCursor } } }"""


def connected() -> Client:
    """A client, which connects at the beginning of its block."""
    token = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    protocols = [WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL]
    return Client(transport=WebsocketsTransport(URL, init_payload=token, subprotocols=protocols))


def request(document: str, **variables: Any) -> GraphQLRequest:
    """An operation on the project."""
    return GraphQLRequest(document, variable_values={"project": PROJECT, **variables})


async def messages(cursor: str) -> AsyncIterator[Any]:
    """What happens after a cursor. When the connection is lost, it goes on with the last one."""
    while True:
        try:
            async with connected() as session:
                async for message in session.subscribe(request(FOLLOW, after=cursor)):
                    yield message["events"]
                    cursor = message["events"]["cursor"]
        except TransportQueryError:  # the server refuses the subscription
            raise
        except (TransportError, OSError) as error:
            print(f"Connecting again: {error}", flush=True)
        await asyncio.sleep(1)


async def page(**arguments: Any) -> tuple[list[str], str]:
    """The positions of a page of the log, and the cursor of its last event."""
    async with connected() as session:
        found = (await session.execute(request(LOG, **arguments)))["events"]
    return [event["position"] for event in found["nodes"]], found["pageInfo"]["endCursor"]


async def main() -> None:
    """Print each event, and then compare them with the log."""
    _, start = await page(last=1)
    print("Following", flush=True)
    seen: list[str] = []
    async for message in messages(start):
        if message["gap"]:
            sys.exit("Events are missing: read again what you need.")
        event = message["event"]
        seen.append(event["position"])
        print("{position}: {action} {entityType} {entityId}".format(**event), flush=True)
        if len(seen) == COUNT:
            break
    logged, cursor = await page(after=start, first=100)
    while len(logged) < COUNT:
        more, cursor = await page(after=cursor, first=100)
        logged += more
    if seen != logged[:COUNT]:
        sys.exit(f"The log has {logged[:COUNT]}")
    print(f"Each of {COUNT} events came once, in order.")


if __name__ == "__main__":
    asyncio.run(main())
