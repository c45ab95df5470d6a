"""Clients that stop reading while 50,000 events happen: they miss none, and slow nobody.

Clients are stopped as processes, so that all buffers between them and the server are
full. `TROUPE_STOPPED_SECONDS=60 pytest tests/test_stopped_clients.py` stops them for a minute.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.following import EVENTS
from tests.patience import until
from tests.processes import Serving
from tests.sockets import handshake, text_frame
from tests.test_clients import SUBSCRIBERS, Node, installed
from tests.test_follower_kills import Follower, all_positions, following, project_key
from tests.test_kills import Cluster, Writers, cluster, things

__all__ = ["cluster", "installed"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the memory of others")

COUNT = 50_000
SILENT = 10
"""How many more clients never read again."""
STOPPED = ["graphql-ws", "graphql-sse", "graphql-sse with a single connection"]
SECONDS = float(os.environ.get("TROUPE_STOPPED_SECONDS", "0"))
"""For how long they are stopped at least. It is longer if the server has not closed them yet."""
MOST_MEMORY = 100 * 2**20
"""How much more memory the server may use meanwhile. Each client's messages are 60 MB."""

INSERT = f"""
    INSERT INTO tasks (id, project_id, title, description, type, status)
    SELECT gen_random_uuid(), '{{project}}', 'Task ' || number, repeat('x', 500), 'OTHER', 'PENDING'
    FROM generate_series(1, {COUNT}) number
"""


class Script:
    """A client in JavaScript, which prints a line for each message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[Any] = []
        self._process = process
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(json.loads(line))

    def stop(self) -> None:
        """Stop the process, which reads nothing from now on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let the process run again."""
        self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._reading.join()


@contextmanager
def silent(server: Serving, token: str, project: str) -> Iterator[None]:
    """A client that subscribes on a WebSocket, and reads nothing of its messages."""
    host, port = server.url.removeprefix("http://").split(":")
    query = EVENTS.replace("action", "action after")
    payload = {"query": query, "variables": {"projectId": project}}
    init = {"Authorization": f"Bearer {token}"}
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**15)
        connection.connect((host, int(port)))
        connection.sendall(handshake())
        connection.sendall(text_frame(type="connection_init", payload=init))
        received = b""
        while b"connection_ack" not in received:
            received += connection.recv(2**12)
        connection.sendall(text_frame(type="subscribe", id="1", payload=payload))
        yield


def subscriptions(server: Serving, token: str) -> int:
    """How many subscriptions are open."""
    text = server.get("/metrics", token).text
    (found,) = re.findall(r"^troupe_subscriptions (\d+)", text, re.MULTILINE)
    return int(found)


def memory(pid: int) -> int:
    """The memory that a process uses, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    (found,) = re.findall(r"^VmRSS:\s*(\d+) kB$", status, re.MULTILINE)
    return int(found) * 1024


def test_clients_that_stop_reading_miss_nothing_and_slow_nobody(
    installed: None, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    server = cluster.serve(mode="development", max_sockets_per_viewer=100)
    ids = things(cluster, server)
    until(cluster.is_numbered)
    begin = int(cluster.sql("SELECT last_position FROM event_positions"))
    quick = Follower(Writers([server], cluster.token, ids), ids["project"], 0)
    node = Node(server, ids["project"], cluster.token)
    with ExitStack() as stack:
        stack.enter_context(following([quick]))
        scripts = []
        for name in STOPPED:
            script = Script(stack.enter_context(node.running(*SUBSCRIBERS[name])))
            stack.callback(script.end)
            stack.callback(script.go_on)
            scripts.append(script)
        for _ in range(SILENT):
            stack.enter_context(silent(server, cluster.token, ids["project"]))
        # They have the state, so that all see the same.
        until(lambda: all(script.lines for script in scripts))
        until(lambda: subscriptions(server, cluster.token) == 1 + len(STOPPED) + SILENT)
        for script in scripts:
            script.stop()
        before, began = memory(server.pid), time.monotonic()
        cluster.sql(INSERT.format(project=project_key(ids)))
        most, seen = before, [len(script.lines) for script in scripts]

        def has_seen_all() -> bool:
            nonlocal most
            most = max(most, memory(server.pid))
            return len(quick.positions) >= COUNT

        # The other one gets everything while they are stopped.
        until(has_seen_all, 120)
        took = time.monotonic() - began
        # None of them is kept.
        until(lambda: subscriptions(server, cluster.token) == 1)
        closed = time.monotonic() - began
        time.sleep(max(0, SECONDS - closed))
        assert [len(script.lines) for script in scripts] == seen
        resumed = time.monotonic()
        for script in scripts:
            script.go_on()
        until(lambda: all(len(script.lines) > COUNT for script in scripts), 240)
        resumed = time.monotonic() - resumed
        expected = all_positions(cluster, [quick], begin, ids)
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{took:.1f} s until the other one had {COUNT} events, {closed:.1f} s until the"
            f" stopped ones were closed, {resumed:.1f} s until they had everything,"
            f" {(most - before) / 2**20:.0f} MB more at most"
        )
    assert len(expected) == COUNT
    assert quick.broken == []
    assert quick.positions == expected
    assert quick.ends == {}
    for script in scripts:
        assert script.lines == ["state", *map(str, expected)]
    assert most - before < MOST_MEMORY
    assert server.stop().status == 0
    assert "fault" not in server.err
