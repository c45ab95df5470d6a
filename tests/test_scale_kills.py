"""Two processes, a replica and PgBouncer in transaction mode, each of which is killed.

Clients that send the token of their last write find it, followers see every event once, and what is
sent again until it is acknowledged is stored once.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
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

from graph.core.scalars import key_text
from tests import poolers, processes
from tests.patience import PATIENCE, until
from tests.poolers import Bouncer, options_of_the_page
from tests.processes import Clients, Elsewhere, Serving, client
from tests.standbys import let_replicate, standby_of
from tests.test_follower_kills import Follower, all_positions, following
from tests.test_kills import (
    TRY_AGAIN,
    Cluster,
    Writers,
    check_positions,
    check_rows,
    check_writes,
    disconnect,
    events_of,
    kill_backend,
    kill_postmaster,
    things,
)
from tests.test_scale import children

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses"),
    pytest.mark.usefixtures("pgbouncer"),
]

pgbouncer = poolers.pgbouncer

TITLE = "query($id: ID!) { node(id: $id) { ... on Task { title } } }"
RESOLVED = "query($id: ID!) { node(id: $id) { ... on Task { title project { name } } } }"
RENAME = (
    "mutation($id: ID!, $title: String!) { updateTask(input: {id: $id, title: $title})"
    " { userErrors { code } } }"
)


@dataclass
class Readers(Clients):
    """Clients that change a task of their own, and look it up with the token of the write."""

    server: Serving
    token: str
    tasks: list[str]
    found: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def work(self) -> list[Callable[[], None]]:
        return [partial(self._run, place, task) for place, task in enumerate(self.tasks)]

    def _run(self, place: int, task: str) -> None:
        for number in itertools.count():
            # A new connection, which may lead to the other process.
            with client(headers={"authorization": f"Bearer {self.token}"}) as http:
                if self.is_stopping or self.broken:
                    return
                title = f"{place}.{number}"
                written = self._until_answered(http, RENAME, {}, id=task, title=title)
                token = written["extensions"]["written"]
            # Some clients know nothing of tokens.
            headers = {} if place % 3 == 0 else {"Troupe-Written": token}
            with client(headers={"authorization": f"Bearer {self.token}"}) as http:
                query = TITLE if number % 2 else RESOLVED
                answer = self._until_answered(http, query, headers, id=task)
                seen = answer["data"]["node"]["title"]
                if seen != title:
                    self.broken.append(f"{seen} instead of {title}, {headers}")
                self.found += 1

    def _until_answered(
        self, http: httpx.Client, query: str, headers: dict[str, str], **variables: Any
    ) -> Any:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            body = {"query": query, "variables": variables}
            try:
                answer = http.post(f"{self.server.url}/graphql", json=body, headers=headers).json()
            except httpx.TransportError as failure:
                self.failures[type(failure).__name__] += 1
            else:
                codes = {error["extensions"]["code"] for error in answer.get("errors", [])}
                if not codes:
                    return answer
                if codes - TRY_AGAIN:
                    self.broken.append(str(answer))
                self.failures.update(codes)
            time.sleep(0.05)
        raise AssertionError("it was never answered")


class Everything:
    """The programs of the test."""

    def __init__(self, made: tuple[Path, str], folder: Path, stack: ExitStack) -> None:
        data_dir = processes.copied(made[0], folder / "data")
        primary = Elsewhere(data_dir, database="troupe")
        let_replicate(primary)
        stack.enter_context(primary.running())
        processes.sql(data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        processes.sql(data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
        self.standby = standby_of(primary, folder / "standby")
        stack.enter_context(self.standby.running())
        options = options_of_the_page()
        self.bouncer = Bouncer(folder, primary.host, "ann", Elsewhere.PASSWORD, options)
        stack.callback(lambda: self.bouncer.kill())
        self.cluster = Cluster(folder, primary, made[1], stack)
        self.server = self.cluster.serve(
            database_url=primary.url(host="127.0.0.1", port=self.bouncer.port),
            database_direct_url=primary.url(),
            database_replica_url=self.standby.url(),
            processes=2,
        )

    def has_read_replica(self) -> bool:
        """Whether tasks were read from the replica since its last start."""
        query = "SELECT idx_scan > 0 FROM pg_stat_user_tables WHERE relname = 'tasks'"
        with contextlib.suppress(AssertionError):  # it may be starting
            return processes.sql(self.standby.data_dir, query) == "t"
        return False

    def kill_process(self, cluster: Cluster, writers: Writers) -> None:
        """Kill one of the processes that serve."""
        os.kill(random.choice(children(self.server)), signal.SIGKILL)
        until(lambda: len(children(self.server)) == 2)

    def kill_bouncer(self, cluster: Cluster, writers: Writers) -> None:
        """Kill PgBouncer, and start it again."""
        self.bouncer.kill()
        self.bouncer.start()

    def kill_standby(self, cluster: Cluster, writers: Writers) -> None:
        """Kill the first process of the replica, which is started again at once."""
        os.kill(processes.postmaster_of(self.standby.data_dir), signal.SIGKILL)

    def pause_standby(self, cluster: Cluster, writers: Writers) -> None:
        """Have the replica lag for a while."""
        for what in ("pause", "resume"):
            with contextlib.suppress(AssertionError):  # it may be starting
                processes.sql(self.standby.data_dir, f"SELECT pg_wal_replay_{what}()")
            writers.more()


@pytest.fixture
def everything(made: tuple[Path, str]) -> Iterator[Everything]:
    with processes.place() as folder, ExitStack() as stack:
        yield Everything(made, folder, stack)


def test_own_writes_are_read_and_events_seen_once(
    everything: Everything, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster, server = everything.cluster, everything.server
    ids = things(cluster, server)
    own = [
        cluster.change(
            server, "createTask", "task { id }", {"projectId": ids["project"], "title": "r"}
        )
        for _ in range(4)
    ]
    until(cluster.is_numbered)
    begin = int(cluster.sql("SELECT last_position FROM event_positions"))
    writers = Writers([server], cluster.token, ids)
    followers = [Follower(writers, ids["project"], place) for place in range(3)]
    kills: list[Callable[[Cluster, Writers], None]] = [
        everything.kill_process,
        everything.kill_bouncer,
        everything.kill_standby,
        everything.pause_standby,
        disconnect,
    ]
    tasks = [payload["task"]["id"] for payload in own]
    with following(followers):
        with writers, Readers(server, cluster.token, tasks) as readers:
            for kill in random.Random(3).sample([*kills * 2, kill_backend, kill_postmaster], k=12):
                writers.more()
                kill(cluster, writers)
            writers.more()
            # While there are readers: its statistics begin anew at each of its starts.
            until(everything.has_read_replica)
        expected = all_positions(cluster, followers, begin, ids)
    with capsys.disabled():
        print(f"\n{len(expected)} events, {readers.found} own writes read; {readers.failures}")  # noqa: T201
    assert readers.broken == []
    assert writers.broken == []
    for follower in followers:
        assert follower.broken == []
        assert follower.positions == expected
    assert readers.found > 50
    events = events_of(cluster)
    check_positions(cluster, events)
    check_rows(cluster, events)
    renamed = {key_text(task) for task in tasks}
    check_writes([event for event in events if event["entity_id"] not in renamed], writers)
