"""What is killed while it writes: connections, PostgreSQL, and servers.

Whatever is killed, a write that is sent again with its idempotency key until it is acknowledged is
stored once, with its events, and each event gets its position.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.events import triggers
from db.events.positions import LOCK
from graph.core.scalars import key_text
from tests import processes
from tests.patience import PATIENCE, until
from tests.processes import Clients, Elsewhere, Serving, client, sql

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")

CLIENTS = 6
UNLIMITED = dict.fromkeys(("rate_per_second", "rate_burst"), 999_999_999)
TRY_AGAIN = {"OVERLOADED", "TIMEOUT", "UNAVAILABLE"}


class Cluster:
    """A PostgreSQL of its own, with servers on one database."""

    def __init__(self, folder: Path, elsewhere: Elsewhere, token: str, stack: ExitStack) -> None:
        self.data_dir = elsewhere.data_dir
        self.token = token
        self._folder = folder
        self._elsewhere = elsewhere
        self._stack = stack
        self._started = itertools.count()

    def serve(self, **settings: object) -> Serving:
        """Start another server."""
        folder = self._folder / f"server-{next(self._started)}"
        folder.mkdir()
        settings = {"database_url": self.url, "mode": "production", **UNLIMITED, **settings}
        server = Serving(folder, **settings)
        return self._stack.enter_context(server).ready()

    @property
    def url(self) -> str:
        """The URL of the database, password included."""
        return self._elsewhere.url()

    def sql(self, statement: str) -> str:
        """What PostgreSQL answers to a statement."""
        return sql(self.data_dir, statement)

    def until_it_answers(self) -> None:
        """Wait until PostgreSQL answers again."""
        command = processes.psql(self.data_dir, "SELECT 1")
        until(lambda: subprocess.run(command, capture_output=True).returncode == 0)

    def change(self, server: Serving, name: str, selection: str, input: Any) -> Any:
        """The payload of a mutation that must succeed."""
        answer = server.ask(document(name, selection), self.token, input=input)
        payload = answer["data"][name]
        assert payload["userErrors"] == []
        return payload

    def is_numbered(self) -> bool:
        """Whether each event has a position."""
        return self.sql("SELECT 1 FROM events WHERE position IS NULL LIMIT 1") == ""


def document(name: str, selection: str) -> str:
    """An operation with one mutation."""
    kind = f"{name[0].upper()}{name[1:]}Input!"
    return (
        f"mutation($input: {kind}) {{ {name}(input: $input)"
        f" {{ {selection} userErrors {{ code message }} }} }}"
    )


@pytest.fixture
def cluster(made: tuple[Path, str]) -> Iterator[Cluster]:
    with processes.place() as folder, ExitStack() as stack:
        data_dir = processes.copied(made[0], folder / "data")
        elsewhere = Elsewhere(data_dir, database="troupe")
        stack.enter_context(elsewhere.running())
        sql(data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        sql(data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
        yield Cluster(folder, elsewhere, made[1], stack)


# Clients that write


@dataclass(frozen=True)
class Kind:
    """A mutation that clients send, and what it stores."""

    name: str
    selection: str
    input: Callable[[Any, int], dict[str, Any]]
    """Its input, from the ids of what there is, with a number that is written into each row."""
    events: dict[tuple[str, str], int]
    """How many events it makes that have the number."""


KINDS = [
    Kind(
        "createTask",
        "task { id }",
        lambda ids, number: {"projectId": ids["project"], "title": f"{number}"},
        {("Task", "CREATED"): 1},
    ),
    Kind(
        "createTasks",
        "tasks { id }",
        lambda ids, number: {
            "projectId": ids["project"],
            "tasks": [
                {"title": f"{number}", "reference": "first"},
                {"title": f"{number}", "dependsOn": [{"on": "first"}]},
            ],
        },
        {("Task", "CREATED"): 2},
    ),
    Kind(
        "updateTask",
        "task { id }",
        lambda ids, number: {"id": random.choice(ids["tasks"]), "title": f"{number}"},
        {("Task", "UPDATED"): 1},
    ),
    Kind(
        "appendMessages",
        "messages { id }",
        lambda ids, number: {
            "conversationId": ids["conversation"],
            "messages": [{"sender": "USER", "content": f"{number}"}] * 2,
        },
        {("Message", "CREATED"): 2},
    ),
    Kind(
        "recordUsage",
        "usageRecords { id }",
        lambda ids, number: {
            "projectId": ids["project"],
            "records": [{"modelId": ids["model"], "inputTokens": number}],
        },
        {("UsageRecord", "CREATED"): 1},
    ),
]


@dataclass
class Writers(Clients):
    """Clients that write, each one write after the other, under an idempotency key of its own.

    They send a write again until it is acknowledged, to whichever server is there, except some that
    they give up.
    """

    servers: list[Serving]
    token: str
    ids: dict[str, Any]
    acknowledged: dict[int, tuple[Kind, Any]] = field(default_factory=dict)
    """The payloads, by the number of the write."""
    given_up: dict[int, Kind] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    """How many were acknowledged after they had failed."""
    broken: list[str] = field(default_factory=list)
    """Answers that nobody should get."""

    def work(self) -> list[Callable[[], None]]:
        self._numbers = itertools.count(1)
        return [partial(self._run, place) for place in range(CLIENTS)]

    def more(self) -> None:
        """Wait until some more writes were acknowledged."""
        wanted = len(self.acknowledged) + 2 * CLIENTS
        until(lambda: len(self.acknowledged) >= wanted or self.broken)
        assert self.broken == []

    def _run(self, place: int) -> None:
        with client(headers={"authorization": f"Bearer {self.token}"}) as http:
            while not self.is_stopping and not self.broken:
                number = next(self._numbers)
                self._write(http, place, KINDS[number % len(KINDS)], number)

    def _write(self, http: httpx.Client, place: int, kind: Kind, number: int) -> None:
        input = kind.input(self.ids, number) | {"idempotencyKey": f"{number}"}
        body = {"query": document(kind.name, kind.selection), "variables": {"input": input}}
        deadline = time.monotonic() + PATIENCE
        for attempt in itertools.count():
            servers = self.servers
            server = servers[(place + attempt) % len(servers)]
            try:
                response = http.post(f"{server.url}/graphql", json=body)
                answer = response.json()
            except httpx.TransportError as failure:
                self.failures[type(failure).__name__] += 1
            else:
                errors = answer.get("errors", [])
                if not errors and answer["data"][kind.name]["userErrors"] == []:
                    self.repeated += attempt > 0
                    self.acknowledged[number] = kind, answer["data"][kind.name]
                    return
                codes = {error["extensions"]["code"] for error in errors}
                if not codes or codes - TRY_AGAIN:
                    self.broken.append(f"{kind.name} {number}: {response.text}")
                    return
                self.failures.update(codes)
            if number % 7 == 0:
                self.given_up[number] = kind
                return
            if time.monotonic() > deadline:
                self.broken.append(f"{kind.name} {number} was never acknowledged")
                return
            time.sleep(0.05)


# What is killed


def disconnect(cluster: Cluster, writers: Writers) -> None:
    """End all connections of the servers."""
    cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ann'")


def kill_backend(cluster: Cluster, writers: Writers) -> None:
    """Kill a process of PostgreSQL that executes statements, whereupon it ends all and recovers."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE usename = 'ann'"
        " ORDER BY state = 'active' DESC, random() LIMIT 1"
    )
    pid = int(until(lambda: cluster.sql(query)))
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())  # then PostgreSQL has noticed
    cluster.until_it_answers()


def kill_postmaster(cluster: Cluster, writers: Writers) -> None:
    """Kill the first process of PostgreSQL, which is started again at once."""
    old = processes.postmaster_of(cluster.data_dir)
    os.kill(old, signal.SIGKILL)
    until(lambda: processes.postmaster_of(cluster.data_dir) != old)
    cluster.until_it_answers()


def kill_server(cluster: Cluster, writers: Writers) -> None:
    """Kill the older of the servers, and start another one."""
    killed, *others = writers.servers
    killed.kill()
    writers.servers = others
    writers.servers = [*others, cluster.serve()]


# How often each is done, in 20 rounds. Each time, PostgreSQL is started again after a longer pause.
KILLS = {disconnect: 6, kill_backend: 6, kill_server: 5, kill_postmaster: 3}


def test_what_is_sent_again_until_it_is_acknowledged_is_done_once(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [cluster.serve(), cluster.serve()]
    with Writers(servers, cluster.token, things(cluster, servers[0])) as writers:
        for kill in random.Random(1).sample([*KILLS], k=20, counts=[*KILLS.values()]):
            writers.more()
            kill(cluster, writers)
        writers.more()
    assert writers.broken == []
    until(cluster.is_numbered)
    with capsys.disabled():
        print(f"\n{len(writers.acknowledged)} acknowledged, {writers.repeated} after a failure")  # noqa: T201
        print(f"  {dict(writers.failures)}, {len(writers.given_up)} given up")  # noqa: T201
    assert writers.repeated > 0

    events = events_of(cluster)
    check_positions(cluster, events)
    check_rows(cluster, events)
    done = check_writes(events, writers)
    keys = cluster.sql("SELECT key FROM idempotency_keys").split()
    assert sorted(map(int, keys)) == sorted(done)
    for server in writers.servers:
        assert server.stop().status == 0
        assert "fault" not in server.err


def things(cluster: Cluster, server: Serving) -> dict[str, Any]:
    """The ids of what is written to."""

    def create(mutation: str, thing: str, **input: Any) -> str:
        return str(cluster.change(server, mutation, f"{thing} {{ id }}", input)[thing]["id"])

    project = create("createProject", "project", name="Moon base")
    return {
        "project": project,
        "model": create("createAiModel", "aiModel", id="model", provider="A"),
        "conversation": create("startConversation", "conversation", projectId=project),
        "tasks": [
            create("createTask", "task", projectId=project, title="0") for _ in range(CLIENTS // 2)
        ],
    }


Row = dict[str, Any]


def events_of(cluster: Cluster) -> list[Row]:
    """All events in the order of their positions."""
    query = "SELECT coalesce(json_agg(e ORDER BY position), '[]') FROM events e"
    found: list[Row] = json.loads(cluster.sql(query))
    return found


def check_positions(cluster: Cluster, events: list[Row]) -> None:
    """Positions begin at 1 and have no gaps."""
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert cluster.sql("SELECT last_position FROM event_positions") == f"{len(events)}"


def check_rows(cluster: Cluster, events: list[Row]) -> None:
    """The events, one after the other, make exactly the rows that there are."""
    keys = {name: [*table.primary_key.columns.keys()] for table, name in LOGGED}
    rows: dict[Any, Row] = {}
    for event in events:
        before, after = event["before"], event["after"]
        kind = event["entity_type"]
        named = [event["entity_id"]]
        if len(keys[kind]) > 1:
            named = [(after or before)[key] for key in keys[kind]]
        name = kind, *named
        row = rows.pop(name, None)
        if event["action"] == "CREATED":
            assert row is None, event
            rows[name] = after
        elif event["action"] == "UPDATED":
            assert row is not None, event
            assert before == {key: row.get(key) for key in before}, event
            rows[name] = row | after
        else:
            assert row == before, event
    stored: dict[Any, Row] = {}
    for table, kind in LOGGED:
        query = f"SELECT coalesce(json_agg(t), '[]') FROM {table.name} t"
        shown = {column.name for column in table.columns if triggers.is_logged(column)}
        for row in json.loads(cluster.sql(f"SET timezone = 'UTC'; {query}")):
            name = kind, *(str(row[key]) for key in keys[kind])
            stored[name] = {key: row[key] for key in shown if row[key] is not None}
    assert {name: without_nulls(row) for name, row in rows.items()} == stored


LOGGED = [*triggers.logged_tables().items()]
# Where rows have the number of the write.
NUMBERED = {"Task": "title", "Message": "content", "UsageRecord": "input_tokens"}


def without_nulls(row: Row) -> Row:
    """The columns that are set."""
    return {key: value for key, value in row.items() if value is not None}


def check_writes(events: list[Row], writers: Writers) -> set[int]:
    """Each write has its events once, and shows its rows. Returns the numbers of those done."""
    found: dict[int, list[Row]] = {}
    for event in events:
        after = event["after"] or {}
        number = int(after.get(NUMBERED.get(event["entity_type"])) or 0)
        if number:
            assert event["actor_type"] == "USER"
            found.setdefault(number, []).append(event)
    done = set()
    for number, (kind, payload) in writers.acknowledged.items():
        own = found.pop(number, [])
        assert Counter((e["entity_type"], e["action"]) for e in own) == kind.events, number
        shown = payload[kind.selection.split()[0]]
        ids = [key_text(row["id"]) for row in (shown if isinstance(shown, list) else [shown])]
        assert sorted(ids) == sorted(event["entity_id"] for event in own), number
        done.add(number)
    for number, kind in writers.given_up.items():
        own = found.pop(number, [])
        if own:
            assert Counter((e["entity_type"], e["action"]) for e in own) == kind.events, number
            done.add(number)
    assert found == {}
    edges = sum(1 for event in events if event["entity_type"] == "TaskDependency")
    kinds = [kind for kind, _ in writers.acknowledged.values()]
    kinds += [kind for number, kind in writers.given_up.items() if number in done]
    assert edges == sum(kind.name == "createTasks" for kind in kinds)
    return done


def test_another_server_numbers_events_when_the_one_that_does_is_killed(cluster: Cluster) -> None:
    numbers = (
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        f" AND (classid::bigint << 32) + objid::bigint = {LOCK}"
    )
    server = cluster.serve()
    until(lambda: cluster.sql(numbers) == "1")
    for name in ("Moon base", "Mars base", "Orbit"):
        # The new one tries to get the lock, which the older one has.
        other = cluster.serve()
        server.kill()
        cluster.change(other, "createProject", "project { id }", {"name": name})
        until(cluster.is_numbered)
        assert cluster.sql(numbers) == "1"
        server = other
    check_positions(cluster, events_of(cluster))
