"""What is killed while clients follow the event log: they see every event once, in order."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from graph.core.scalars import key_text
from graph.server.sockets import PROTOCOL
from tests import processes
from tests.following import EVENTS
from tests.patience import PATIENCE, until
from tests.test_kills import (
    Cluster,
    Writers,
    cluster,
    disconnect,
    kill_backend,
    kill_postmaster,
    kill_server,
    things,
)

__all__ = ["cluster"]

# Close codes after which the clients of graphql-ws do not connect again.
FATAL = {4400, 4401, 4403, 4406, 4409, 4429}


@dataclass
class Follower:
    """A client that follows the events of a project, and goes on after its last cursor."""

    writers: Writers
    project: str
    place: int
    pause: float = 0.0
    """How long it does not read now and then, in seconds."""
    positions: list[int] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._cursor: str | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for attempt in itertools.count(self.place):
            if self.stopping.is_set() or self.broken:
                return
            servers = self.writers.servers
            server = servers[attempt % len(servers)]
            url = server.url.replace("http", "ws", 1) + "/graphql"
            try:
                protocols = [Subprotocol(PROTOCOL)]
                with connect(url, subprotocols=protocols, proxy=None, max_queue=1) as connection:
                    self._follow(connection)
            except (WebSocketException, OSError) as error:
                code = getattr(getattr(error, "rcvd", None), "code", None)
                self.ends[f"{type(error).__name__} {code}"] += 1
                if code in FATAL:
                    self.broken.append(str(error))
            time.sleep(0.05)

    def _follow(self, connection: ClientConnection) -> None:
        payload = {"Authorization": f"Bearer {self.writers.token}"}
        connection.send(json.dumps({"type": "connection_init", "payload": payload}))
        connection.recv(timeout=PATIENCE)
        variables = {"projectId": self.project, "after": self._cursor}
        request = {"query": EVENTS, "variables": variables}
        connection.send(json.dumps({"type": "subscribe", "id": "1", "payload": request}))
        while not self.stopping.is_set():
            try:
                heard = json.loads(connection.recv(timeout=0.5))
            except TimeoutError:
                continue
            if heard["type"] != "next":
                self.broken.append(str(heard))
                return
            message = heard["payload"]["data"]["events"]
            if message["gap"] is not None:
                self.broken.append(str(message))
            if message["event"] is not None:
                self.positions.append(int(message["event"]["position"]))
            self._cursor = message["cursor"]
            if self.pause and len(self.positions) % 100 == 0:
                time.sleep(self.pause)


@contextmanager
def following(followers: list[Follower]) -> Iterator[None]:
    """The followers run until the end of the block; it begins when all have the state."""
    for follower in followers:
        follower.thread.start()
    try:
        until(lambda: all(follower._cursor for follower in followers))
        yield
    finally:
        for follower in followers:
            follower.stopping.set()
        for follower in followers:
            follower.thread.join()


def all_positions(
    cluster: Cluster, followers: list[Follower], begin: int, ids: dict[str, str]
) -> list[int]:
    """The positions of the events of the project after `begin`, when each follower has as many."""
    until(cluster.is_numbered)
    statement = (
        "SELECT string_agg(position::text, ' ' ORDER BY position) FROM events"
        f" WHERE position > {begin} AND project_id = '{project_key(ids)}'"
    )
    expected = [int(position) for position in cluster.sql(statement).split()]
    until(lambda: all(len(f.positions) >= len(expected) or f.broken for f in followers))
    return expected


def test_followers_see_every_event_once_in_order(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [cluster.serve(), cluster.serve()]
    ids = things(cluster, servers[0])
    until(cluster.is_numbered)
    begin = int(cluster.sql("SELECT last_position FROM event_positions"))
    writers = Writers(servers, cluster.token, ids)
    followers = [Follower(writers, ids["project"], place, place // 3 * 0.5) for place in range(4)]
    long: list[subprocess.Popen[bytes]] = []
    with following(followers):
        with writers:
            for number, kill in enumerate(random.Random(2).sample(KILLS, k=len(KILLS))):
                if number % 4 == 0:
                    change = (
                        f"UPDATE projects SET name = '{number}' WHERE id = '{project_key(ids)}'"
                    )
                    slow = f"BEGIN; {change}; SELECT pg_sleep(2); COMMIT"
                    command = processes.psql(cluster.data_dir, slow)
                    long.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
                writers.more()
                kill(cluster, writers)
            writers.more()
        for transaction in long:
            transaction.wait()
        expected = all_positions(cluster, followers, begin, ids)
    with capsys.disabled():
        print(f"\n{len(expected)} events; {[dict(f.ends) for f in followers]}")  # noqa: T201
    assert writers.broken == []
    for follower in followers:
        assert follower.broken == []
        assert follower.positions == expected
        assert follower.ends


def project_key(ids: dict[str, Any]) -> str:
    """The key of the project."""
    return key_text(ids["project"])


KILLS = [disconnect, kill_backend, kill_server] * 3 + [kill_postmaster]
