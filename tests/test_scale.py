"""Several processes on one port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL

import db
from graph import app
from graph.server.sse import SEVERAL_PROCESSES
from graph.settings import Settings
from tests import processes
from tests.patience import until
from tests.processes import CREATE, Load, Serving, client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def children(server: Serving) -> list[int]:
    """The pids of the processes that serve."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == server.pid and b"spawn_main" in command:
            found.append(int(folder.name))
    return sorted(found)


def both(server: Serving) -> list[int]:
    """The pids of two processes that serve."""
    until(lambda: len(children(server)) == 2)
    return children(server)


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


@contextmanager
def serving_two(made: tuple[Path, str], **options: Any) -> Iterator[Serving]:
    """A server of two processes."""
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        (folder / "server").mkdir()
        options |= {"data_dir": data_dir, "processes": 2, "mode": "production"}
        with Serving(folder / "server", **options) as server:
            yield server.ready()


@pytest.fixture
def several(made: tuple[Path, str]) -> Iterator[Serving]:
    with serving_two(made) as server:
        yield server


def serving(server: Serving, token: str) -> set[str]:
    """Which processes answer: the first half of the ids that they give to requests."""
    found = set()
    for _ in range(40):
        with client(headers={"authorization": f"Bearer {token}"}) as http:
            response = http.get(f"{server.url}/livez")
            found.add(response.headers["x-request-id"][:12])
    return found


def test_all_serve_and_one_that_ends_is_started_again(
    several: Serving, made: tuple[Path, str]
) -> None:
    first = both(several)
    until(lambda: len(serving(several, made[1])) == 2)
    with Load(several, token=made[1], reads=True) as load:
        load.more()
        for number in (signal.SIGKILL, signal.SIGTERM):
            pid = children(several)[0]
            os.kill(pid, number)
            until(lambda pid=pid: pid not in children(several))  # type: ignore[misc]
            wanted = len(load.acknowledged) + 20
            until(lambda wanted=wanted: len(load.acknowledged) >= wanted)  # type: ignore[misc]
            until(lambda: len(children(several)) == 2)
    # Only what the processes were about to answer is lost.
    assert len(load.broken) <= 2 * load.clients
    assert load.refused == {}
    assert "ended by signal 9; starting another one" in several.err
    until(lambda: len(serving(several, made[1])) == 2)
    second = children(several)
    assert len(second) == 2
    assert second != first
    ended = several.stop()
    assert ended.status == 0
    assert "Traceback" not in ended.err + ended.out
    assert all(is_gone(pid) for pid in second)
    assert several.is_clean()


def test_none_is_left_when_the_first_process_is_killed(several: Serving) -> None:
    pids = both(several)
    several.kill()
    until(lambda: all(is_gone(pid) for pid in pids))


def test_ctrl_c_stops_all_after_running_requests(several: Serving, made: tuple[Path, str]) -> None:
    pids = both(several)
    until(lambda: len(serving(several, made[1])) == 2)
    with processes.locked(several.data_dir, "projects") as free:
        answers: list[Any] = []
        key = "019ad000-0000-7000-8000-000000000001"
        ask = threading.Thread(
            target=lambda: answers.append(several.ask(CREATE, made[1], id=key, name="Waits"))
        )
        ask.start()
        until(lambda: processes.waits(several.data_dir))
        several.send(signal.SIGINT)
        time.sleep(0.3)
        assert several.is_running
        free()
        ask.join()
    assert answers[0]["data"]["createProject"]["project"] == {"name": "Waits"}
    assert several.ended().status == 0
    assert all(is_gone(pid) for pid in pids)


def test_one_port_has_the_metrics_of_all(made: tuple[Path, str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving_two(made, metrics_port=port) as server:
        assert f"http://127.0.0.1:{port}/metrics" in server.out
        url = f"http://127.0.0.1:{port}/metrics"
        until(lambda: len(serving(server, made[1])) == 2)
        asked = 7
        for _ in range(asked):
            # A new connection, which may lead to the other process.
            with client(headers={"authorization": f"Bearer {made[1]}"}) as http:
                http.post(f"{server.url}/graphql", json={"query": "query Asked { me { id } }"})
        with client() as http:
            text = http.get(url).text
            assert http.get(f"http://127.0.0.1:{port}/graphql").status_code == 404
            opened = http.get(url, headers={"accept": "application/openmetrics-text"})
            assert opened.text.endswith("# EOF\n")
        samples = [
            sample
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "troupe_operations_total"
        ]
        assert sum(sample.value for sample in samples if sample.labels["name"] == "Asked") == asked
        assert {sample.labels["process"] for sample in samples} <= {"0", "1"}
        # One line of help for each metric, and one process each.
        assert text.count("# HELP process_resident_memory_bytes ") == 1
        lines = [line for line in text.splitlines() if line.startswith("process_resident_memory")]
        assert [line.partition(" ")[0] for line in lines] == [
            f'process_resident_memory_bytes{{process="{number}"}}' for number in (0, 1)
        ]
        # One that hangs is missing.
        pid = children(server)[0]
        os.kill(pid, signal.SIGSTOP)
        try:
            with client() as http:
                rest = http.get(url).text
        finally:
            os.kill(pid, signal.SIGCONT)
        assert rest.count("\nprocess_resident_memory_bytes{") == 1


def test_an_event_stream_cannot_be_reserved(several: Serving, made: tuple[Path, str]) -> None:
    headers = {"authorization": f"Bearer {made[1]}", "accept": "text/event-stream"}
    with client(headers=headers) as http:
        refused = http.put(f"{several.url}/graphql")
        assert refused.status_code == 400
        (error,) = refused.json()["errors"]
        assert error["message"] == SEVERAL_PROCESSES
        # A stream for each operation needs no reservation.
        answer = http.post(f"{several.url}/graphql", json={"query": "{ me { username } }"})
        assert answer.status_code == 200
        assert "event: complete" in answer.text


async def test_connections_that_listen_need_no_pooler(database_url: URL) -> None:
    database = db.Database("postgresql://ann@127.0.0.1:1/none", direct_url=database_url)
    connection = await database.open()
    assert await connection.fetchval("SELECT current_database()") == database_url.database
    await connection.close()
    await database.dispose()


async def test_background_work_that_misses_a_cancellation_does_not_keep_a_server(
    database_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CANCELLED_WITHIN", 0.05)
    missed = 0

    async def work(_: db.Database) -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if missed == 2:
                    raise
                missed += 1

    served = app.create_app(Settings(), database_url, background=[work])
    async with asyncio.timeout(10), served.router.lifespan_context(served):
        await asyncio.sleep(0.1)
    assert missed == 2
