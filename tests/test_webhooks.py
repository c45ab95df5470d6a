"""Webhooks: each event is sent once, signed, in order, and again if it was not received."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import logging
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import URL
from standardwebhooks import WebhookVerificationError

import db
from db import webhook_queues, webhooks
from db.events.positions import Numbering, number_all
from db.webhooks import url_problem
from db.writes import insert_many
from graph.core.scalars import format_moment, key_text
from graph.delivery import sender, worker
from graph.delivery.addresses import MOST_LOOKUPS, PublicNetwork, Resolver
from graph.delivery.sender import Sender
from graph.delivery.worker import DELAYS, JITTER, Worker
from tests import factories
from tests.client import counted
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.oracle import Everything, Someone, seen_with
from tests.patience import becomes
from tests.processes import Serving
from tests.receivers import Received, Receiver, receiving, response
from tests.world import (
    Case,
    World,
    at,
    faults,
    gid,
    make_whole_world,
    make_world,
    stored,
)

LOOPBACK = ("127.0.0.0/8",)
DAY = 24 * 60 * 60


def by_owners(everything: Everything, viewer: Someone, row: Any) -> bool:
    """Whether a viewer sees a row of a project: as an owner of it."""
    is_user = isinstance(viewer, db.User)
    return is_user and everything.is_member(viewer, row.project_id, db.MemberRole.OWNER)


def a_webhook(place: int) -> dict[str, Any]:
    """The values of a webhook that its CHECKs demand."""
    is_active = place % 2 == 0
    return {
        "url": f"https://example.org/{place}",
        "is_active": is_active,
        "end_reason": None if is_active else list(db.WebhookEnd)[place // 2 % 2],
        "entity_types": ["Task", "Agent"][: place % 3],
        "entity_ids": [str(db.new_id()), str(db.new_id())][: place % 3],
        "actions": list(db.EventAction)[: place % 4],
        "actor_types": list(db.ActorType)[: place % 3],
        "actor_ids": [str(db.new_id()), str(db.new_id())][: place % 3],
    }


def a_delivery(place: int) -> dict[str, Any]:
    """The values of a delivery that its CHECKs demand."""
    status = list(db.DeliveryStatus)[place % 4]
    attempt = {"at": "2026-01-01T00:00:00.5+00:00", "milliseconds": place, "status": 200 + place}
    attempt |= {"body": factories.text(place), "error": None}
    failed = {**attempt, "status": None, "body": None, "error": factories.text(place + 1)}
    is_pending = status is db.DeliveryStatus.PENDING
    return {
        "status": status,
        "next_attempt_at": factories.moment(place) if is_pending else None,
        "attempts": [attempt, failed, attempt][: place % 4],
        "entity_type": ["Task", "ProjectMember"][place % 2],
        "entity_id": str(db.new_id()),
    }


SEEN = {db.Webhook: by_owners, db.WebhookDelivery: seen_with(db.Webhook, "webhook_id")}
VALUES = {db.Webhook: a_webhook, db.WebhookDelivery: a_delivery}
CASES = {
    "createWebhook": Case(
        lambda w: {"projectId": gid(w.project), "url": "https://example.org/"}, at("projectId")
    ),
    "updateWebhook": Case(lambda w: {"id": gid(w.others[db.Webhook][0]), "description": "New"}),
    "rotateWebhookSecret": Case(lambda w: {"id": gid(w.others[db.Webhook][0])}),
    "sendTestWebhook": Case(lambda w: {"id": gid(w.others[db.Webhook][0])}),
    "replayWebhookDelivery": Case(lambda w: {"id": gid(w.others[db.WebhookDelivery][0])}),
    "deleteWebhook": Case(lambda w: {"id": gid(w.others[db.Webhook][0])}),
}
BREAKING = {
    "webhooks": {
        "actions": ["actions = '{NOPE}'"],
        "actor_types": ["actor_types = '{NOPE}'"],
        "ended": ["is_active = true, end_reason = 'GONE'"],
    },
    "webhook_deliveries": {
        "pending": ["status = 'PENDING', next_attempt_at = NULL"],
        "attempts_list": ["attempts = '{}'"],
    },
}

DELIVERIES = """query($id: ID!, $where: WebhookDeliveryFilter) { webhook(id: $id) {
  isActive endReason failingSince
  deliveries(first: 100, where: $where) { nodes {
    id position entityType entityId action status attemptCount nextAttemptAt
    attempts { responseStatus responseBody error }
  } }
} }"""

NOTIFIED = """SELECT title, assignee_id, content->>'text', level, requires_acknowledgement
FROM human_interactions WHERE type = 'NOTIFICATION'"""


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def sending(database: db.Database) -> AsyncIterator[Worker]:
    """The worker of a process, which a test makes work by `settle`."""
    client = Sender(LOOPBACK, allows_http=True)
    yield Worker(database, client)
    await client.close()


async def settle(sending: Worker) -> None:
    """Have a worker do all that there is to do now."""
    await number_all(sending._database)
    sending.reset()
    await sending.step()
    while sending._turns:
        await asyncio.gather(*sending._turns)
        await sending.step()


async def later(database: db.Database, seconds: float) -> None:
    """Let all that webhooks wait for come so many seconds sooner."""
    columns = {
        "webhook_deliveries": ("next_attempt_at", "created_at"),
        "webhook_queues": ("lease_expires_at",),
        "webhooks": ("failing_since", "old_secret_until"),
    }
    for table, names in columns.items():
        sooner = ", ".join(f"{name} = {name} - interval '{seconds} seconds'" for name in names)
        await stored(database, f"UPDATE {table} SET {sooner} RETURNING 1")


async def webhook(world: World, url: str, **values: Any) -> tuple[str, str]:
    """A webhook of the owner's project; returns its id and its secret."""
    # What has no position yet would be sent as well.
    await number_all(world.database)
    given = {"projectId": gid(world.project), "url": url, "entityTypes": ["Task"]} | values
    payload = await world.owner.change(
        "createWebhook { webhook { id } secret userErrors { path message } }", **given
    )
    assert payload["userErrors"] == []
    return payload["webhook"]["id"], payload["secret"]


async def task(world: World, title: str = "New") -> str:
    """Create a task in the owner's project, and return its id."""
    payload = await world.owner.change(
        "createTask { task { id } userErrors { message } }",
        projectId=gid(world.project),
        title=title,
    )
    assert payload["userErrors"] == []
    return str(payload["task"]["id"])


async def show(world: World, id: str, **where: Any) -> Any:
    """What a webhook shows."""
    answer = await world.owner.ask(DELIVERIES, id=id, where=where or None)
    assert len(answer.statements) == 1
    return answer.data["webhook"]


async def deliveries(world: World, id: str) -> list[Any]:
    """The deliveries of a webhook."""
    return list((await show(world, id))["deliveries"]["nodes"])


async def test_an_event_is_sent_once_and_signed(
    world: World, receiver: Receiver, sending: Worker, resolvers: People
) -> None:
    await task(world, "Before")
    id, secret = await webhook(world, receiver.url)
    made = await task(world)
    await settle(sending)
    await settle(sending)

    (request,) = receiver.received
    ((position, moment),) = await stored(
        world.database,
        "SELECT position, created_at FROM events WHERE entity_id = :id",
        id=key_text(made),
    )
    assert request.line == "POST /hook?to=me HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.verified(secret) == {
        "type": "task.created",
        "timestamp": format_moment(moment),
        "data": {
            "id": request.id,
            "position": str(position),
            "entityType": "Task",
            "entityId": made,
            "action": "CREATED",
            "projectId": gid(world.project),
        },
    }
    assert await deliveries(world, id) == [
        {
            "id": request.id,
            "position": str(position),
            "entityType": "Task",
            "entityId": made,
            "action": "CREATED",
            "status": "SUCCEEDED",
            "attemptCount": 1,
            "nextAttemptAt": None,
            "attempts": [{"responseStatus": 200, "responseBody": "", "error": None}],
        }
    ]
    with pytest.raises(WebhookVerificationError):
        request.verified(webhooks.new_secret())
    by_resolvers = await resolvers.owner.ask(DELIVERIES, id=id)
    assert by_resolvers.text == (await world.owner.ask(DELIVERIES, id=id)).text


async def test_only_what_the_webhook_asks_for_is_sent(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    await webhook(world, receiver.url, actions=["UPDATED"], actorTypes=["USER"])
    made = await task(world)
    change = "updateTask { userErrors { message } }"
    await world.owner.change(change, id=made, title="Changed")
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        # By nobody; in another project.
        for row in (world.free, world.foreign):
            await (await session.get_one(db.Task, row.id)).update(session, title="Changed")
    await world.owner.change(
        "updateAgent { userErrors { message } }", id=gid(world.ada), name="Eve"
    )
    await settle(sending)

    assert [(each.data["entityId"], each.data["action"]) for each in receiver.received] == [
        (made, "UPDATED")
    ]


async def test_only_what_is_about_these_objects_and_by_these_actors_is_sent(
    world: World, receiver: Receiver, sending: Worker, resolvers: People
) -> None:
    """By global ids and bare ones; both are returned as bare ones."""
    owner = world.people.users["owner"]
    made, other = await task(world), await task(world)
    id, _ = await webhook(
        world, receiver.url, entityIds=[made, str(world.ada.id).upper()], actorIds=[gid(owner)]
    )
    change = "updateTask { userErrors { message } }"
    for each in (made, other):
        await world.owner.change(change, id=each, title="Changed")
    async with world.database.write(db.Viewer(is_administrator=True)) as session:  # by nobody
        await (await session.get_one(db.Task, UUID(key_text(made)))).update(session, title="New")
    await settle(sending)

    assert [each.data["entityId"] for each in receiver.received] == [made]
    query = "query($id: ID!) { webhook(id: $id) { entityIds actorIds } }"
    shown = await world.owner.ask(query, id=id)
    entity_ids = [key_text(made), str(world.ada.id)]
    assert shown.data["webhook"] == {"entityIds": entity_ids, "actorIds": [str(owner.id)]}
    assert (await resolvers.owner.ask(query, id=id)).text == shown.text
    # Those of others.
    update = "updateWebhook { userErrors { message } }"
    await world.owner.change(update, id=id, entityIds=[], actorIds=[gid(world.ada)])
    await world.owner.change(change, id=other, title="Again")
    await settle(sending)
    assert len(receiver.received) == 1
    wrong = {"id": id, "entityIds": [made, "Task"], "actorIds": ["Ada"]}
    refused = await world.refused(world.owner, "updateWebhook", **wrong)
    assert refused == [("INVALID", "entityIds.1"), ("INVALID", "actorIds.0")]


async def test_all_that_owners_see_is_sent_and_nothing_about_deliveries(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, _ = await webhook(world, receiver.url, entityTypes=[])
    await world.owner.change(
        "createAccessToken { userErrors { message } }", name="t", agentId=gid(world.ada)
    )
    for _ in range(3):
        await settle(sending)

    sent = [(each.data["entityType"], each.data["action"]) for each in receiver.received]
    assert sent == [("Webhook", "CREATED"), ("AccessToken", "CREATED")]
    # The first part of the key of an association is the id of an object.
    stranger = world.people.users["stranger"]
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await factories.make_member(session, world.project, stranger)
    await settle(sending)
    assert receiver.received[-1].data["entityType"] == "ProjectMember"
    assert receiver.received[-1].data["entityId"] == gid(world.project)
    shown = await deliveries(world, id)
    assert [each["entityId"] for each in shown] == [
        each.data["entityId"] for each in receiver.received
    ]


async def test_events_are_sent_in_the_order_of_their_positions(
    world: World, receiver: Receiver, sending: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_IN_A_TURN", 30)
    await webhook(world, receiver.url)
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        for number in range(120):
            await factories.make_task(session, world.project, str(number))
    await settle(sending)

    sent = [int(each.data["position"]) for each in receiver.received]
    assert len(sent) == 120
    assert sent == list(range(sent[0], sent[0] + 120))
    # Connections are kept open.
    assert receiver.connections == 1


async def test_a_slow_receiver_does_not_keep_others_waiting(
    world: World, receiver: Receiver, sending: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn ends after some time, and then it is the turn of those who wait."""
    monkeypatch.setattr(worker, "MOST_AT_ONCE", 1)
    monkeypatch.setattr(worker, "TURN_SECONDS", 0.2)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 600.0)
    order = []

    def slow(_: Received) -> bytes:
        time.sleep(0.2)
        order.append("slow")
        return response(200)

    def fast(_: Received) -> bytes:
        order.append("fast")
        return response(200)

    receiver.answer = slow
    async with receiving() as other:
        other.answer = fast
        await webhook(world, receiver.url)
        await webhook(world, other.url)
        async with world.database.write(db.Viewer(is_administrator=True)) as session:
            for number in range(9):
                await factories.make_task(session, world.project, str(number))
        # The slow one is first.
        await stored(
            world.database,
            "UPDATE webhook_queues SET lease_expires_at = now() WHERE webhook_id <>"
            " (SELECT id FROM webhooks WHERE url = :url) RETURNING 1",
            url=receiver.url,
        )
        await number_all(world.database)
        running = asyncio.create_task(sending.run())
        await becomes(lambda: len(order) == 18)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    turns = order[: 18 - order[::-1].index("fast")]
    assert turns[:2] == ["slow", "fast"]
    assert ("slow", "slow") not in itertools.pairwise(turns)


async def test_more_events_than_are_read_at_once_are_sent(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, _ = await webhook(world, receiver.url, entityTypes=["Agent"])
    count = webhook_queues.PAGE * 2 + 1
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await insert_many(
            session,
            db.Task,
            [{"project_id": world.project.id, "title": str(n)} for n in range(count)],
        )
        await factories.make_agent(session, world.project, "Last")
    await settle(sending)

    (request,) = receiver.received
    assert request.data["entityType"] == "Agent"
    assert len(await deliveries(world, id)) == 1


async def test_what_failed_is_sent_again_for_a_day(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    receiver.answer = lambda _: response(503, b"Come back later")
    id, secret = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)
    waited = 0.0
    for number, delay in enumerate(DELAYS, 1):
        assert len(receiver.received) == number
        (delivery,) = await deliveries(world, id)
        assert (delivery["status"], delivery["attemptCount"]) == ("PENDING", number)
        (left,) = await stored(
            world.database,
            "SELECT extract(epoch FROM next_attempt_at - updated_at)::float8"
            " FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL",
        )
        assert delay * (1 - JITTER) <= left <= delay * (1 + JITTER)
        # Not sooner.
        await later(world.database, left - 2)
        await settle(sending)
        assert len(receiver.received) == number
        # In the end, the day is over whatever was random.
        await later(world.database, 10 if number < len(DELAYS) else DAY)
        waited += delay
        await settle(sending)
    assert DAY <= waited <= DAY + 1000

    assert len(receiver.received) == len(DELAYS) + 1
    # Each is the same message with a signature of its own time.
    messages = [each.verified(secret) for each in receiver.received]
    assert all(each == messages[0] for each in messages)
    assert len({each.id for each in receiver.received}) == 1
    found = await show(world, id)
    (delivery,) = found["deliveries"]["nodes"]
    assert (delivery["status"], delivery["nextAttemptAt"]) == ("FAILED", None)
    failed = {"responseStatus": 503, "responseBody": "Come back later", "error": None}
    assert delivery["attempts"] == [failed] * (len(DELAYS) + 1)
    assert (found["isActive"], found["endReason"]) == (False, "FAILING")


async def test_a_webhook_that_fails_for_a_day_is_switched_off_and_the_owners_told(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    receiver.answer = lambda _: response(500)
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        other = await db.User.create(session, username="other", email="other@localhost")
        await factories.make_member(session, world.project, other, db.MemberRole.OWNER)
        former = await db.User.create(session, username="former", email="former@localhost")
        await factories.make_member(session, world.project, former, db.MemberRole.OWNER)
        former.is_active = False
        viewer = await db.User.create(session, username="viewer", email="viewer@localhost")
        await factories.make_member(session, world.project, viewer)
    id, _ = await webhook(world, receiver.url, description="To the moon")
    await task(world)
    await settle(sending)
    since = (await show(world, id))["failingSince"]
    assert since is not None
    await later(world.database, DAY - 100)
    await task(world)
    await settle(sending)
    assert (await show(world, id))["isActive"] is True
    assert (await stored(world.database, NOTIFIED)) == []
    await task(world)
    await later(world.database, 200)
    await settle(sending)

    found = await show(world, id)
    assert (found["isActive"], found["endReason"]) == (False, "FAILING")
    nodes = found["deliveries"]["nodes"]
    assert {each["status"] for each in nodes} == {"CANCELLED"}
    owners = {world.people.users["owner"].id, other.id}
    told = await stored(world.database, NOTIFIED)
    assert {assignee for _, assignee, *_ in told} == owners
    assert {(title, level, asked) for title, _, _, level, asked in told} == {
        ("A webhook was switched off", "ERROR", True)
    }
    assert all("To the moon" in text and receiver.url not in text for _, _, text, *_ in told)
    # Nothing more is sent, and it is told once.
    count = len(receiver.received)
    await task(world)
    await later(world.database, DAY)
    await settle(sending)
    assert len(receiver.received) == count
    assert await stored(world.database, NOTIFIED) == told


async def test_a_success_ends_a_failure(world: World, receiver: Receiver, sending: Worker) -> None:
    receiver.answer = lambda _: response(500)
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)
    await later(world.database, DAY + 10)
    receiver.answer = lambda _: response(204)
    await settle(sending)
    assert (await show(world, id))["failingSince"] is None
    receiver.answer = lambda _: response(500)
    await task(world)
    await settle(sending)

    found = await show(world, id)
    assert found["isActive"] is True
    assert found["failingSince"] is not None
    assert [each["status"] for each in found["deliveries"]["nodes"]] == ["SUCCEEDED", "PENDING"]


async def test_a_failure_lets_the_webhook_rest_and_others_go_on(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    broken = await task(world)
    id, _ = await webhook(world, receiver.url)
    receiver.answer = lambda request: response(500 if request.data["entityId"] == broken else 200)
    await world.owner.change("updateTask { userErrors { message } }", id=broken, title="Broken")
    made = [await task(world), await task(world)]
    await settle(sending)
    assert [each.data["entityId"] for each in receiver.received] == [broken]
    await later(world.database, worker.REST_SECONDS - 2)
    await settle(sending)
    assert len(receiver.received) == 1
    # Less than the delay of the first one.
    await stored(world.database, "UPDATE webhook_queues SET lease_expires_at = now() RETURNING 1")
    await settle(sending)
    await later(world.database, 10)
    await settle(sending)

    sent = [each.data["entityId"] for each in receiver.received]
    assert sent == [broken, *made, broken]
    states = [(each["status"], each["attemptCount"]) for each in await deliveries(world, id)]
    assert states == [("PENDING", 2), ("SUCCEEDED", 1), ("SUCCEEDED", 1)]


async def test_an_address_that_is_gone_is_sent_nothing_more(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    receiver.answer = lambda _: response(410)
    id, _ = await webhook(world, receiver.url)
    for _ in range(3):
        await task(world)
    await settle(sending)
    await later(world.database, DAY)
    await settle(sending)

    assert len(receiver.received) == 1
    found = await show(world, id)
    assert (found["isActive"], found["endReason"]) == (False, "GONE")
    states = [each["status"] for each in found["deliveries"]["nodes"]]
    assert states == ["FAILED", "CANCELLED", "CANCELLED"]
    assert len(await stored(world.database, NOTIFIED)) == 1
    log = await stored(
        world.database,
        "SELECT actor_type, after::text FROM events WHERE entity_type = 'Webhook' ORDER BY id",
    )
    assert log[-1][0] is None
    assert json.loads(log[-1][1]) == {"is_active": False, "end_reason": "GONE"}


UPDATE = "updateWebhook { webhook { isActive failingSince version } userErrors { code } }"


@pytest.mark.parametrize("status", [410, 500])
async def test_an_attempt_at_an_old_address_says_nothing_about_a_new_one(
    world: World,
    receiver: Receiver,
    sending: Worker,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    """The address is changed while the last attempt at the old one is under way."""
    receiver.answer = lambda _: response(status)
    async with receiving() as target:
        id, _ = await webhook(world, receiver.url)
        if status == 500:  # it has failed for a day
            monkeypatch.setattr(worker, "DELAYS", (5,))
            await task(world)
            await settle(sending)
            await later(world.database, DAY + 10)
        else:
            await task(world)
        attempt = sending._attempt

        async def moved(delivery: Any) -> Any:
            made = await attempt(delivery)
            await world.owner.change(UPDATE, id=id, url=target.url)
            return made

        with monkeypatch.context() as patched:
            patched.setattr(sending, "_attempt", moved)
            await settle(sending)
        found = await show(world, id)
        assert (found["isActive"], found["endReason"], found["failingSince"]) == (True, None, None)
        (delivery,) = found["deliveries"]["nodes"]
        assert delivery["status"] == "PENDING"
        assert delivery["attempts"][-1]["responseStatus"] == status
        assert await stored(world.database, NOTIFIED) == []
        await later(world.database, worker.REST_SECONDS + 1)
        await settle(sending)

        assert len(target.received) == 1
        assert [each["status"] for each in await deliveries(world, id)] == ["SUCCEEDED"]


async def test_a_new_address_has_not_failed(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    receiver.answer = lambda _: response(500)
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)
    payload = await world.owner.change(UPDATE, id=id, url=receiver.url)
    assert payload["webhook"]["failingSince"] is not None
    payload = await world.owner.change(UPDATE, id=id, url=f"{receiver.url}&new")
    assert payload["webhook"]["failingSince"] is None
    await later(world.database, DAY + 10)
    await settle(sending)

    found = await show(world, id)
    assert found["isActive"] is True
    assert found["failingSince"] is not None


async def test_a_webhook_that_is_switched_on_begins_at_that_moment(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, _ = await webhook(world, receiver.url)
    update = "updateWebhook { webhook { isActive endReason } userErrors { message } }"
    missed = await task(world)
    await number_all(world.database)
    await sending._collect()
    await world.owner.change(update, id=id, isActive=False)
    assert [each["status"] for each in await deliveries(world, id)] == ["CANCELLED"]
    await task(world)
    await settle(sending)
    assert receiver.received == []
    payload = await world.owner.change(update, id=id, isActive=True)
    assert payload["webhook"] == {"isActive": True, "endReason": None}
    made = await task(world)
    await settle(sending)

    assert [each.data["entityId"] for each in receiver.received] == [made]
    # What was cancelled can be sent by hand.
    (cancelled, _) = await deliveries(world, id)
    payload = await world.owner.change(
        "replayWebhookDelivery { webhookDelivery { status attemptCount } userErrors { code } }",
        id=cancelled["id"],
    )
    assert payload["webhookDelivery"] == {"status": "PENDING", "attemptCount": 0}
    await settle(sending)
    assert receiver.received[-1].data["entityId"] == missed
    assert receiver.received[-1].id == cancelled["id"]


async def test_a_delivery_is_replayed_with_the_same_id(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, secret = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)
    (delivery,) = await deliveries(world, id)
    replay = "replayWebhookDelivery { webhookDelivery { status } userErrors { code path } }"
    await world.owner.change(replay, id=delivery["id"])
    await settle(sending)

    first, second = receiver.received
    assert first.id == second.id
    assert first.verified(secret) == second.verified(secret)
    (again,) = await deliveries(world, id)
    assert (again["status"], len(again["attempts"])) == ("SUCCEEDED", 2)
    # However often it was sent, the last attempts are shown.
    for _ in range(webhook_queues.MOST_ATTEMPTS):
        await world.owner.change(replay, id=delivery["id"])
        receiver.answer = lambda _: response(201)
        await settle(sending)
    (many,) = await deliveries(world, id)
    statuses = [each["responseStatus"] for each in many["attempts"]]
    assert statuses == [201] * webhook_queues.MOST_ATTEMPTS
    await world.owner.change("updateWebhook { userErrors { code } }", id=id, isActive=False)
    payload = await world.owner.change(replay, id=delivery["id"])
    assert faults(payload) == [("INVALID", "")]


async def test_a_test_message_is_sent(world: World, receiver: Receiver, sending: Worker) -> None:
    id, secret = await webhook(world, receiver.url)
    send = "sendTestWebhook { webhookDelivery { id status } userErrors { code path } }"
    payload = await world.owner.change(send, id=id)
    assert payload["webhookDelivery"]["status"] == "PENDING"
    await settle(sending)

    (request,) = receiver.received
    message = request.verified(secret)
    assert message["type"] == "webhook.test"
    assert message["data"] == {
        "id": payload["webhookDelivery"]["id"],
        "position": None,
        "entityType": "Webhook",
        "entityId": id,
        "action": None,
        "projectId": gid(world.project),
    }
    await world.owner.change("updateWebhook { userErrors { code } }", id=id, isActive=False)
    assert faults(await world.owner.change(send, id=id)) == [("INVALID", "")]


async def test_a_test_message_does_not_wait_for_others(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, _ = await webhook(world, receiver.url)
    for _ in range(3):
        await task(world)
    await number_all(world.database)
    await sending._collect()
    await world.owner.change("sendTestWebhook { userErrors { code } }", id=id)
    await settle(sending)

    assert [each.data["entityType"] for each in receiver.received] == ["Webhook"] + ["Task"] * 3
    # The index has this order, so that nothing is sorted.
    definition = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_webhook_deliveries_pending'"
    (index,) = await stored(world.database, definition)
    assert '(webhook_id, "position" NULLS FIRST)' in index


async def test_two_secrets_are_valid_for_a_day_after_a_rotation(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    id, first = await webhook(world, receiver.url)
    rotate = "rotateWebhookSecret { webhook { id } secret userErrors { code } }"
    secrets = [first]
    for _ in range(2):
        secrets.append((await world.owner.change(rotate, id=id))["secret"])
    assert len(set(secrets)) == 3
    await task(world)
    await settle(sending)
    await later(world.database, DAY + 1)
    await task(world)
    await settle(sending)

    during, after = receiver.received
    for secret in secrets[1:]:
        during.verified(secret)
    assert len(during.headers["webhook-signature"].split()) == 2
    after.verified(secrets[2])
    assert len(after.headers["webhook-signature"].split()) == 1
    for request, secret in ((during, secrets[0]), (after, secrets[1])):
        with pytest.raises(WebhookVerificationError):
            request.verified(secret)


async def test_a_secret_is_shown_once(
    world: World, receiver: Receiver, sending: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    id, first = await webhook(world, receiver.url)
    rotated = await world.owner.change("rotateWebhookSecret { secret }", id=id)
    receiver.answer = lambda _: response(500)
    await task(world)
    await settle(sending)
    await world.owner.change("deleteWebhook { userErrors { code } }", id=id)

    log = await stored(world.database, "SELECT e::text FROM events e")
    assert any("Webhook" in each for each in log)
    for secret in (first, rotated["secret"]):
        assert secret.startswith("whsec_")
        assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
        raw = secret.removeprefix("whsec_")
        assert not any(raw in each for each in [*log, caplog.text])


async def test_what_was_claimed_by_a_process_that_ended_is_sent_by_another(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    await webhook(world, receiver.url)
    await task(world)
    await number_all(world.database)
    database = world.database
    await database.run(webhook_queues.collected)
    ((_, lease),) = await database.run(webhook_queues.claimed, most=1, seconds=60)
    await settle(sending)
    assert receiver.received == []
    await later(database, 61)
    await settle(sending)

    assert len(receiver.received) == 1
    # It cannot record anything any more.
    ((webhook_id, delivery),) = await stored(
        database, "SELECT webhook_id, id FROM webhook_deliveries"
    )
    recorded: dict[str, Any] = {
        "status": "FAILED",
        "delay": None,
        "attempt": {},
        "url": receiver.url,
        "succeeded": False,
    }
    ids = {"webhook": webhook_id, "lease": lease, "delivery": delivery}
    assert await database.run(webhook_queues.recorded, **recorded, **ids, seconds=60) == []
    ((status, failing),) = await stored(
        database,
        "SELECT d.status, failing_since FROM webhook_deliveries d JOIN webhooks w ON true",
    )
    assert (status, failing) == ("SUCCEEDED", None)


async def test_what_was_sent_but_not_recorded_is_sent_again_with_the_same_id(
    world: World, receiver: Receiver, sending: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    id, _ = await webhook(world, receiver.url)
    await task(world)

    async def crash(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(sending, "_record", crash)
        await settle(sending)
    assert len(receiver.received) == 1
    await later(world.database, 60)
    await settle(sending)

    first, second = receiver.received
    assert first.id == second.id
    (delivery,) = await deliveries(world, id)
    assert (delivery["status"], delivery["attemptCount"]) == ("SUCCEEDED", 1)


async def test_a_worker_that_stops_gives_its_leases_back(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    receiver.answer = lambda _: None
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await number_all(world.database)
    running = asyncio.create_task(sending.run())
    await becomes(lambda: receiver.received)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await stored(world.database, "SELECT lease_id FROM webhook_queues") == [None]
    receiver.answer = lambda _: response(200)
    await later(world.database, worker.REST_SECONDS + 1)
    await settle(sending)

    first, second = receiver.received
    assert first.id == second.id
    (delivery,) = await deliveries(world, id)
    assert (delivery["status"], delivery["attemptCount"]) == ("SUCCEEDED", 1)


async def test_processes_at_once_send_each_event_once(
    world: World, receiver: Receiver, database_url: URL
) -> None:
    """The workers run as in servers: woken by the follower, while events are written."""
    ids = [(await webhook(world, receiver.url))[0] for _ in range(3)]
    databases = [db.Database(database_url) for _ in range(3)]
    tasks = [asyncio.create_task(Numbering(databases[0], 90).run())]
    for database in databases:
        client = Sender(LOOPBACK, allows_http=True)
        tasks.append(asyncio.create_task(Worker(database, client).run()))

    async def write() -> None:
        for _ in range(40):
            await task(world)

    await asyncio.gather(*(write() for _ in range(4)))
    await becomes(lambda: len(receiver.received) >= 160 * 3)
    await asyncio.sleep(0.5)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for database in databases:
        await database.dispose()

    assert len(receiver.received) == 160 * 3
    assert len({each.id for each in receiver.received}) == 160 * 3
    by_webhook: dict[str, list[int]] = {}
    query = "SELECT id::text, webhook_id::text FROM webhook_deliveries"
    owners = dict(await stored(world.database, query))
    for request in receiver.received:
        of = owners[key_text(request.id)]
        by_webhook.setdefault(of, []).append(int(request.data["position"]))
    assert set(by_webhook) == {key_text(id) for id in ids}
    for positions in by_webhook.values():
        assert len(positions) == 160
        assert positions == sorted(positions)


CREATE_TASK = """mutation($project: ID!) {
  createTask(input: {projectId: $project, title: "New"}) { userErrors { message } }
}"""


async def test_a_server_that_is_killed_loses_nothing(
    world: World, receiver: Receiver, database_url: URL, tmp_path: Path
) -> None:
    ids = [(await webhook(world, receiver.url))[0] for _ in range(4)]
    url = database_url.render_as_string(hide_password=False)
    settings = {"database_url": url, "webhook_private_networks": "127.0.0.0/8"}
    variables = {"project": gid(world.project)}
    count = 60

    async def write(server: Serving) -> None:
        for _ in range(count // 2):
            await asyncio.to_thread(server.ask, CREATE_TASK, world.owner.token, **variables)

    def slow(request: Received) -> bytes:
        time.sleep(0.005)
        return response(200)

    receiver.answer = slow
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with Serving(folders[0], **settings) as first, Serving(folders[1], **settings) as second:
        for server in (first, second):
            await asyncio.to_thread(server.ready)
        await asyncio.gather(write(first), write(second))
        await becomes(lambda: len(receiver.received) > count)
        first.send(signal.SIGKILL)
        # The other one is done with all that the first had no lease for.
        before = -1
        while before != len(receiver.received):
            before = len(receiver.received)
            await asyncio.sleep(1)
        # The leases that are left run out.
        await stored(
            world.database,
            "UPDATE webhook_queues SET lease_expires_at = now() WHERE lease_id IS NOT NULL"
            " RETURNING 1",
        )
        await becomes(lambda: len({each.id for each in receiver.received}) == count * len(ids))
        await asyncio.sleep(1)

    # At most one of each webhook was under way.
    assert count * len(ids) <= len(receiver.received) <= (count + 1) * len(ids)
    states = await stored(
        world.database, "SELECT status, count(*) FROM webhook_deliveries GROUP BY status"
    )
    assert states == [("SUCCEEDED", count * len(ids))]


async def test_what_happens_is_sent_at_once(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower wakes the worker; nobody waits for the next look."""
    monkeypatch.setattr(worker, "LOOK_SECONDS", 600.0)
    await webhook(world, receiver.url)
    sent = Worker(world.database, Sender(LOOPBACK, allows_http=True))
    tasks = [asyncio.create_task(each.run()) for each in (sent, Numbering(world.database, 90))]
    await becomes(lambda: sent.is_listening and world.database.follower.place)
    await task(world)
    await becomes(lambda: receiver.received)
    await becomes(lambda: not sent._turns)
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert len(receiver.received) == 1


async def test_without_webhooks_nobody_follows_the_log(world: World, sending: Worker) -> None:
    with counted(world.database) as statements:
        await sending.step()

    assert world.database.follower.place is None
    assert sending.is_listening is False
    assert len(statements) == 2


PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.0.9",
    "192.0.0.192",
    "168.63.129.16",
    "::ffff:168.63.129.16",
    "2002:a83f:8110::",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "fe80::1",
    "fe80::1%1",
    "fc00::1",
    "fec0::1",
    "feff::1",
    "fd00:ec2::254",
    "ff02::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]
PUBLIC = [
    "8.8.8.8",
    "192.0.1.1",
    "168.63.129.17",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


def test_only_public_addresses_are_allowed() -> None:
    network = PublicNetwork()

    assert [each for each in PRIVATE if network.allows(ip_address(each))] == []
    assert [each for each in PUBLIC if not network.allows(ip_address(each))] == []


def test_a_setting_allows_networks() -> None:
    network = PublicNetwork(["10.1.0.0/16", "::1", "fd00::/8"])

    allowed = ["10.1.2.3", "::ffff:10.1.2.3", "::1", "fd12::1", "8.8.8.8"]
    assert [each for each in allowed if not network.allows(ip_address(each))] == []
    refused = ["10.2.0.1", "127.0.0.1", "fe80::1"]
    assert [each for each in refused if network.allows(ip_address(each))] == []


REFUSED = (
    "The host leads to no public address; an operator of the server can allow others by"
    " TROUPE_WEBHOOK_PRIVATE_NETWORKS."
)


SPELLINGS = (
    *("127.0.0.1", "localhost", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "[::1]"),
    *("[::ffff:127.0.0.1]", "[::]", "LOCALHOST", "10.0.0.1", "169.254.169.254"),
)


@pytest.mark.parametrize("host", SPELLINGS)
async def test_a_private_address_is_refused_however_it_is_written(
    receiver: Receiver, host: str
) -> None:
    client = Sender(allows_http=True)
    attempt = await client.post(f"http://{host}:{receiver.port}/", {}, b"")
    await client.close()

    assert attempt.status is None
    assert attempt.error == REFUSED
    assert receiver.connections == 0


@pytest.mark.parametrize("address", PRIVATE)
async def test_a_name_that_leads_to_a_private_address_is_refused(
    receiver: Receiver, address: str
) -> None:
    async def resolve(host: str) -> list[str]:
        assert host == "hooks.example"
        return [address]

    client = Sender(allows_http=True, resolve=resolve)
    attempt = await client.post(f"http://hooks.example:{receiver.port}/", {}, b"")
    await client.close()

    assert attempt.error == REFUSED
    assert receiver.connections == 0


async def test_the_address_that_was_checked_is_connected_to(receiver: Receiver) -> None:
    asked = []

    async def resolve(host: str) -> list[str]:
        asked.append(host)
        # Another one each time; and one that is not allowed, which is left out.
        return ["10.9.9.9", f"127.0.0.{len(asked)}"] if len(asked) == 1 else ["10.9.9.9"]

    client = Sender(LOOPBACK, allows_http=True, resolve=resolve)
    attempt = await client.post(f"http://Hooks.Example:{receiver.port}/x", {}, b"{}")
    assert (attempt.status, attempt.error) == (200, None)
    await client.close()
    (request,) = receiver.received
    assert request.headers["host"] == f"Hooks.Example:{receiver.port}"
    assert asked == ["hooks.example"]
    again = Sender(LOOPBACK, allows_http=True, resolve=resolve)
    attempt = await again.post(f"http://hooks.example:{receiver.port}/x", {}, b"{}")
    await again.close()
    assert attempt.error == REFUSED


async def test_lookups_of_names_use_threads_of_their_own_one_for_each_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    answer = threading.Event()

    def getaddrinfo(host: str, *_: Any, **options: Any) -> Any:
        asked.append(host)
        answer.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()
    try:
        # Who gives up leaves the lookup to the next one.
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await resolver("0.example")
        assert asked == ["0.example"]
        names = [f"{number}.example" for number in range(MOST_LOOKUPS * 2)]
        lookups = [asyncio.ensure_future(resolver(name)) for name in names]
        await becomes(lambda: len(asked) == MOST_LOOKUPS)
        # The threads that others use are free.
        async with asyncio.timeout(5):
            await asyncio.to_thread(int)
        assert len(asked) == MOST_LOOKUPS
    finally:
        answer.set()
    assert await asyncio.gather(*lookups) == [["127.0.0.1"]] * len(names)
    assert sorted(asked) == sorted(names)
    # What is known is asked again.
    assert await resolver("0.example") == ["127.0.0.1"]
    assert asked.count("0.example") == 2


async def test_the_name_of_the_certificate_is_that_of_the_url() -> None:
    hello = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.set_result(await reader.read(4000))
        writer.close()

    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Sender(LOOPBACK, allows_http=False, resolve=resolve)
    attempt = await client.post(f"https://hooks.example:{port}/", {}, b"{}")
    await client.close()
    server.close()

    assert attempt.status is None
    assert attempt.error is not None
    # The extension with the name of the server, in the first message of TLS.
    assert b"hooks.example" in await hello


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    name = "hooks.example"
    options = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-nodes"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(
        subprocess.run,
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", *options, *files],
        check=True,
        capture_output=True,
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def resolve(host: str) -> list[str]:
        return ["127.0.0.1"]

    async with receiving(tls=context) as receiver:
        client = Sender(LOOPBACK, allows_http=False, resolve=resolve)
        attempt = await client.post(f"https://{name}:{receiver.port}/", {}, b"{}")
        # The same, if it is trusted.
        client._pool._ssl_context.load_verify_locations(certificate)  # type: ignore[union-attr]
        trusted = await client.post(f"https://{name}:{receiver.port}/", {}, b"{}")
        await client.close()

    assert "CERTIFICATE_VERIFY_FAILED" in (attempt.error or "")
    assert (trusted.status, trusted.error) == (200, None)
    assert len(receiver.received) == 1


async def test_a_redirect_is_not_followed(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    async with receiving() as target:
        receiver.answer = lambda _: response(302, location=target.url)
        id, _ = await webhook(world, receiver.url)
        await task(world)
        await settle(sending)

        assert (len(receiver.received), target.connections) == (1, 0)
        (delivery,) = await deliveries(world, id)
        assert delivery["status"] == "PENDING"
        assert delivery["attempts"][0]["responseStatus"] == 302


@pytest.mark.parametrize("status", [200, 201, 299, 199 + 200, 400, 404, 429])
async def test_only_2xx_is_a_success(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda _: response(status)
    client = Sender(LOOPBACK, allows_http=True)
    attempt = await client.post(receiver.url, {}, b"")
    await client.close()

    assert (attempt.status, attempt.error) == (status, None)
    assert attempt.has_succeeded is (200 <= status < 300)


async def test_the_beginning_of_a_response_is_kept(
    world: World, receiver: Receiver, sending: Worker
) -> None:
    body = b"\xff\x00\x1b[31m \xe2\x80\xae\n" + b"a" * 5_000_000
    receiver.answer = lambda _: response(500, body)
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)

    (delivery,) = await deliveries(world, id)
    text = delivery["attempts"][0]["responseBody"]
    assert text.startswith("\ufffd\ufffd\ufffd[31m \ufffd\naaa")
    assert len(text) <= webhook_queues.MOST_CHARACTERS


async def test_an_attempt_ends_in_time(
    world: World, receiver: Receiver, sending: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "SECONDS", 0.3)
    receiver.answer = lambda _: None
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)

    (delivery,) = await deliveries(world, id)
    error = "There was no response within 0.3 seconds."
    assert delivery["attempts"] == [{"responseStatus": None, "responseBody": None, "error": error}]
    # A status counts, even if the rest does not come.
    receiver.answer = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"
    await later(world.database, 60)
    await settle(sending)
    (delivery,) = await deliveries(world, id)
    assert delivery["status"] == "SUCCEEDED"
    assert delivery["attempts"][1]["responseBody"] == "abc"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"nonsense\r\n\r\n", "The connection failed (RemoteProtocolError)"),
        (b"", "The connection failed"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000, "The connection failed"),
    ],
)
async def test_what_is_no_response_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, said: str
) -> None:
    monkeypatch.setattr(sender, "SECONDS", 3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Sender(LOOPBACK, allows_http=True)
    attempt = await client.post(f"http://127.0.0.1:{port}/", {}, b"")
    server.close()
    closed = await client.post(f"http://127.0.0.1:{port}/", {}, b"")
    unknown = await client.post("http://nowhere.invalid/", {}, b"")
    await client.close()

    assert attempt.status is None
    assert (attempt.error or "").startswith(said)
    assert (closed.error or "").startswith("No connection could be opened")
    # As of a name that leads to a private address.
    assert unknown.error == REFUSED


WRONG_URLS = {
    "": "This is no address",
    "example.org": "This is no address",
    "ftp://example.org/": "This is no address",
    "https://": "This is no address",
    "https:///path": "This is no address",
    "https://[::1/": "This is no address",
    "https://example.org:x/": "This is no address",
    "https://example.org:99999/": "This is no address",
    "http://example.org/": "must begin with https://",
    "https://me:secret@example.org/": "no user name",
    "https://@example.org/": "no user name",
    "https://example.org/#part": "no fragment",
    "https://example.org/ü": "ASCII",
    "https://example.org/a b": "ASCII",
    "https://example.org\\@evil.example/": "ASCII",
    "https://example.org/\r\nx: y": "ASCII",
    "https://example.org:22/": "port",
    "https://example.org:0/": "port",
    "https://example.org:1023/": "port",
}


def test_an_address_is_checked() -> None:
    for url, said in WRONG_URLS.items():
        assert said in (url_problem(url, allows_http=False) or ""), url
    for url in ("https://example.org", "https://example.org:443/?a=b", "https://[2606::1]:8443/"):
        assert url_problem(url, allows_http=False) is None
    assert url_problem("http://example.org:8080/", allows_http=True) is None


async def test_what_is_wrong_is_reported(world: World) -> None:
    given = {"projectId": gid(world.project), "url": "https://example.org:22/"}
    wrong = {**given, "entityTypes": ["Task", "Secret"]}
    refused = await world.refused(world.owner, "createWebhook", **wrong)
    assert refused == [("INVALID", "url"), ("INVALID", "entityTypes.1")]
    id, _ = await webhook(world, "https://example.org/")
    refused = await world.refused(world.owner, "updateWebhook", id=id, url="https://example.org/#")
    assert refused == [("INVALID", "url")]
    for _ in range(webhooks.MOST_WEBHOOKS - 1):
        await webhook(world, "https://example.org/")
    given["url"] = "https://example.org/"
    assert await world.refused(world.owner, "createWebhook", **given) == [("INVALID", "projectId")]


async def test_http_is_refused_unless_the_server_allows_it(world: World) -> None:
    strict = WITHOUT_LIMITS.model_copy(update={"webhook_http": False})
    given = {"projectId": gid(world.project), "url": "http://example.org/"}
    async with serving(world.database, strict) as http:
        owner = world.owner.through(http)
        assert await world.refused(owner, "createWebhook", **given) == [("INVALID", "url")]
    client = Sender(allows_http=False)
    attempt = await client.post("http://8.8.8.8/", {}, b"")
    assert "must begin with https://" in (attempt.error or "")
    await client.close()


async def test_old_deliveries_are_deleted(
    world: World, receiver: Receiver, sending: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "MOST_DELETED", 1)
    id, _ = await webhook(world, receiver.url)
    await task(world)
    await settle(sending)
    receiver.answer = lambda _: response(500)
    await task(world)
    await settle(sending)
    await later(world.database, webhook_queues.KEPT_DAYS * DAY - 60)
    sending._delete_at = 0.0
    await sending._delete_old()
    assert len(await deliveries(world, id)) == 2
    await later(world.database, 120)
    sending._delete_at = 0.0
    await sending._delete_old()

    # What is still to be sent stays.
    assert [each["status"] for each in await deliveries(world, id)] == ["PENDING"]


async def test_only_owners_see_webhooks_and_what_is_logged_of_them(
    database: db.Database, http: httpx.AsyncClient, people: People
) -> None:
    world = await make_whole_world(database, http, people)
    await number_all(database)
    query = """query($project: ID!) {
      project(id: $project) { webhooks { nodes { url deliveries { nodes { id } } } } }
      webhooks { nodes { url } }
      webhookDeliveries { nodes { id } }
      events(first: 100, where: {entityType: {eq: "Webhook"}}) { nodes { after } }
    }"""
    for role, client in world.members.items():
        found = (await client.ask(query, project=gid(world.project))).data
        assert found["project"] == {"webhooks": {"nodes": []}}, role
        assert found["webhooks"] == found["webhookDeliveries"] == found["events"] == {"nodes": []}
        new = CASES["createWebhook"].input(world)
        assert await world.error(client, "createWebhook", **new) == "FORBIDDEN"
    for client in (world.agent, people.stranger):
        found = (await client.ask("{ webhooks { nodes { url } } }")).data
        own = client is people.stranger
        assert len(found["webhooks"]["nodes"]) == (1 if own else 0)
    found = (await people.owner.ask(query, project=gid(world.project))).data
    assert len(found["project"]["webhooks"]["nodes"]) == len(found["events"]["nodes"]) == 1
