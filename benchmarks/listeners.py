"""WebSockets that follow tasks: latency, processor time and memory; and what writers lose.

Writers are measured twice: at full speed, where they and the server compete for the processor, and
at a pace, as people and agents write.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from statistics import median, quantiles
from typing import Any
from uuid import UUID

from sqlalchemy import URL

from benchmarks.compare import Pace
from benchmarks.contenders import COMPILED, PEER, Contender, Missing, Running, running
from benchmarks.data import PROJECT, TASK, USER, connected, row_id
from benchmarks.processes import memory, processor
from benchmarks.progress import say
from db import access

LISTENERS = 1_000
IDLE = 10_000
"""How many sockets are open while nothing happens."""
PINGS = 20.0
"""How often the server sends a ping to each socket, in seconds: idle ones take nothing else."""
PER_SECOND = 50
"""How often the task changes."""
NUMBERS = (10, 20, 30, 40)
"""The projects whose tasks are followed."""
FOLLOWED = row_id(TASK, NUMBERS[0])
"""The task that all listeners follow."""
CROWDED = [[row_id(TASK, number)] for number in NUMBERS]
"""One task for each writer, so that a quarter of the listeners follows it."""
SPREAD = [[row_id(TASK, number + row * 1_000) for row in range(50)] for number in NUMBERS]
"""All tasks of these projects: each is followed by five listeners."""
OTHERS = [[row_id(TASK, 1 + number + row * 1_000) for row in range(50)] for number in NUMBERS]
"""Tasks that nobody follows."""
FOLLOWERS = {0: (OTHERS, SPREAD), 5: (SPREAD, SPREAD), LISTENERS // 4: (CROWDED, CROWDED)}
"""The tasks that writers change, and those that are followed, by how many follow each change."""
# Those who follow them: members of these projects, so that messages are read for ten viewers.
TOKENS = {row_id(USER, number): f"troupe_of-listener-{number}" for number in range(3, 13)}

# The title is the time of the change, in microseconds, so that a listener knows how old it is.
CHANGE = """
    UPDATE tasks SET title = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text
    WHERE id = $1
"""

# As users of PostGraphile write it: a notification for the channel of each task.
NOTIFY = """
    CREATE FUNCTION notify_task() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_notify('task:' || NEW.id, json_build_object('id', NEW.id)::text);
      RETURN NULL;
    END $$;
    CREATE TRIGGER notify AFTER UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION notify_task();
"""

IDS = {True: "ID", False: "UUID"}
QUERY = "subscription($id: %s!) { taskUpdated(id: $id) { task { id title status priority type } } }"
# The first bytes of frames.
TEXT, PING, PONG = 0x81, 0x89, 0x8A
TITLE = re.compile(rb'"title":"(\d{16})"')

LIMITS = {
    f"TROUPE_MAX_{name}": "100000"
    for name in ("SOCKETS", "SOCKETS_PER_VIEWER", "RUNNING", "RUNNING_PER_VIEWER")
}
TROUPE = replace(COMPILED, settings=COMPILED.settings | LIMITS)


class Latencies:
    """The times that messages or changes took, and their percentiles."""

    latencies: list[float]
    """In seconds."""

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return median(self.latencies)

    @property
    def p99(self) -> float:
        """What one in a hundred exceeds, in seconds."""
        return quantiles(self.latencies, n=100)[-1]


@dataclass(frozen=True)
class Heard(Latencies):
    """What the listeners of a server got in the measured time."""

    latencies: list[float]
    """The times from a change to its receipt, in seconds.

    If a listener did not get it by the end of the measurement, it is the time until then.
    """
    processor: float
    """The server's processor time, in seconds for each message."""
    database: float
    """PostgreSQL's processor time, in seconds for each message."""
    memory: float
    """The server's memory, in bytes for each socket."""


@dataclass
class Written(Latencies):
    """What writers did in the measured time."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    """How long each change took, in seconds; of writers with a pace, from when it was due."""

    def add(self, other: Written) -> None:
        """Add what was done in another time."""
        self.seconds += other.seconds
        self.latencies += other.latencies

    @property
    def rate(self) -> float:
        """Changes per second."""
        return len(self.latencies) / self.seconds


@dataclass(frozen=True)
class Paced:
    """Writers with a pace, without WebSockets and beside LISTENERS of them."""

    pace: str
    """How often they change what."""
    alone: Written
    beside: Written

    @property
    def kept(self) -> float:
        """Their rate beside LISTENERS, of that without."""
        return self.beside.rate / self.alone.rate


@dataclass(frozen=True)
class Listened:
    """All that was measured."""

    heard: dict[str, Heard]
    """What listeners got, by contender."""
    writers: dict[int, float]
    """The writers' throughput beside LISTENERS, of that without, by how many follow a change."""
    paced: list[Paced]
    """The same for writers with a pace."""
    other_process: float
    """The median time until listeners at two processes have a change, in seconds."""
    idle_memory: float
    """The server's memory for each idle socket, in bytes."""
    idle_processor: float
    """The server's processor time in a second with idle sockets, without that without any."""


class Listener(asyncio.Protocol):
    """A client of graphql-transport-ws, just enough of it to listen at little cost."""

    def __init__(self, sends: list[bytes], heard: list[float] | None, has_state: bool) -> None:
        """It sends these messages, and adds the ages of what it hears.

        With `has_state`, the server answers to a subscription at once.
        """
        self._sends, self._heard, self._has_state = sends, heard, has_state
        self._received = bytearray()
        self._is_upgraded = False
        self.count = 0
        self.is_open = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade, and send everything at once."""
        self._transport = transport
        key = b64encode(os.urandom(16))
        transport.write(
            b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
            + key
            + b"\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        """Take the frames that are complete."""
        self._received += data
        if not self._is_upgraded:
            _, blank, rest = self._received.partition(b"\r\n\r\n")
            if not blank:
                return
            self._received, self._is_upgraded = rest, True
            self._transport.write(_masked(self._sends[0]))
        now = time.time()
        while (frame := _frame(self._received)) is not None:
            first, start, end = frame
            self._take(first, bytes(self._received[start:end]), now)
            del self._received[:end]

    def _take(self, first: int, payload: bytes, now: float) -> None:
        """Send what comes next, or note how old a title is."""
        if first == PING:
            self._transport.write(_masked(payload, PONG))
        elif b"connection_ack" in payload:
            for text in self._sends[1:]:
                self._transport.write(_masked(text))
            if not self._has_state:
                self.is_open.set_result(None)
        elif b'"next"' in payload:
            if not self.is_open.done():
                self.is_open.set_result(None)
            if (title := TITLE.search(payload)) is not None:
                self.count += 1
                if self._heard is not None:
                    self._heard.append(now - int(title[1]) / 1e6)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


def _frame(data: bytearray) -> tuple[int, int, int] | None:
    """The first byte of a server's frame, and where its payload starts and ends, if complete."""
    if len(data) < 2:
        return None
    extra = {126: 2, 127: 8}.get(data[1], 0)
    start = 2 + extra
    if len(data) < start:
        return None
    end = start + (int.from_bytes(data[2:start]) if extra else data[1])
    return (data[0], start, end) if len(data) >= end else None


def _masked(payload: bytes, first: int = TEXT) -> bytes:
    """A frame of a client, with a mask of zeros."""
    length = len(payload)
    size = bytes((0x80 | length,)) if length < 126 else b"\xfe" + length.to_bytes(2)
    return bytes((first,)) + size + bytes(4) + payload


def _messages(contender: Contender, tasks: Sequence[UUID]) -> list[list[bytes]]:
    """What each listener sends, in turn: one for each viewer and task."""
    found = []
    for token in TOKENS.values():
        for task in tasks:
            payload = {"Authorization": f"Bearer {token}"} if contender.knows_who_asks else {}
            query = {"query": QUERY % IDS[contender.is_troupe], "variables": {"id": str(task)}}
            messages = (
                {"type": "connection_init", "payload": payload},
                {"id": "1", "type": "subscribe", "payload": query},
            )
            found.append([json.dumps(message).encode() for message in messages])
    return found


async def _add_viewers(url: URL) -> None:
    """Let those who have TOKENS see the tasks."""
    async with connected(url) as connection:
        for user, token in TOKENS.items():
            await connection.execute(
                "INSERT INTO access_tokens (name, prefix, token_hash, user_id)"
                " VALUES ('benchmark', left($1, 12), $2, $3)",
                token,
                access.hash_token(token),
                user,
            )
            for number in NUMBERS:
                await connection.execute(
                    "INSERT INTO project_members (project_id, user_id, role)"
                    " VALUES ($1, $2, 'VIEWER') ON CONFLICT DO NOTHING",
                    row_id(PROJECT, number),
                    user,
                )


@asynccontextmanager
async def listening(
    server: Running, sends: list[list[bytes]], number: int, heard: list[float] | None = None
) -> AsyncIterator[list[Listener]]:
    """So many listeners, all of which have subscribed, if they send that.

    Each of `sends` is what one of them sends, in turn.
    """
    loop, found = asyncio.get_running_loop(), list[Listener]()
    has_state = server.contender.is_troupe and len(sends[0]) > 1
    try:
        for place in range(number):
            own = sends[place % len(sends)]
            _, listener = await loop.create_connection(
                partial(Listener, own, heard, has_state), "127.0.0.1", server.port
            )
            found.append(listener)
            if len(found) % 100 == 0:  # as fast as the server accepts them
                await asyncio.wait_for(listener.is_open, 60)
        await asyncio.wait_for(asyncio.gather(*(one.is_open for one in found)), 60)
        if not has_state:
            await asyncio.sleep(2)
        yield found
    finally:
        for listener in found:
            listener.close()


async def listeners(urls: dict[str, URL], pace: Pace, postmaster: int) -> Listened:
    """Measure Troupe, and the peer where it is installed, with the databases of each."""
    heard = {}
    for url in urls.values():
        await _add_viewers(url)
    with _many_files():
        for contender in (TROUPE, PEER):
            if contender.name in urls:
                with _missing_is_left_out(contender):
                    url = urls[contender.name]
                    heard[contender.name] = await _heard(contender, url, pace, postmaster)
        ours = urls[TROUPE.name]
        writers = {
            number: await _writers(ours, tasks, followed, pace)
            for number, (tasks, followed) in FOLLOWERS.items()
        }
        paced = [
            await _paced("one task, followed by all", ours, [[FOLLOWED]], pace, PER_SECOND),
            await _paced("tasks followed by 5 each, at half speed", ours, SPREAD, pace),
        ]
        other = await _other_process(ours, pace)
        idle = await _idle(ours, pace)
    return Listened(heard, writers, paced, other, *idle)


@contextmanager
def _missing_is_left_out(contender: Contender) -> Iterator[None]:
    try:
        yield
    except Missing as missing:
        say(f"{contender.name} is left out: {missing}")


@contextmanager
def _many_files() -> Iterator[None]:
    """Let this process, and those it starts, open as many sockets as are measured."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(before[1], 3 * IDLE), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _heard(contender: Contender, url: URL, pace: Pace, postmaster: int) -> Heard:
    latencies: list[float] = []
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(connected(url))
        if not contender.is_troupe:
            await writer.execute(NOTIFY)
        server = stack.enter_context(running(contender, url))
        sends = _messages(contender, [FOLLOWED])
        async with listening(server, sends, 10):
            await _change(writer, 1)  # what is loaded and planned at the first use
        empty = memory(server.pid)
        found = await stack.enter_async_context(listening(server, sends, LISTENERS, latencies))
        taken = (memory(server.pid) - empty) / LISTENERS
        await _change(writer, 2)
        latencies.clear()
        before = processor(server.pid), processor(postmaster)
        counts = sum(one.count for one in found)
        made = await _change(writer, pace.rounds * pace.seconds)
        await asyncio.sleep(1)
        end = time.time()
        count = sum(one.count for one in found) - counts
        took = processor(server.pid) - before[0], processor(postmaster) - before[1]
    # Listeners get changes in order: those that they lack are the last ones.
    missing = max(0, len(made) * LISTENERS - count)
    each, rest = divmod(missing, LISTENERS)
    for place, moment in enumerate(reversed(made)):
        latencies += [end - moment] * (LISTENERS if place < each else rest if place == each else 0)
    say(f"{contender.name}: {count} messages to {LISTENERS} listeners")
    return Heard(latencies, took[0] / count, took[1] / count, taken)


async def _change(writer: Any, seconds: float) -> list[float]:
    """Change the task at its pace, and return when it was changed, in seconds since 1970."""
    began, made = time.perf_counter(), []
    for number in range(int(seconds * PER_SECOND)):
        await asyncio.sleep(max(0, began + number / PER_SECOND - time.perf_counter()))
        made.append(time.time())
        await writer.execute(CHANGE, FOLLOWED)
    return made


async def _writers(
    url: URL, tasks: list[list[UUID]], followed: list[list[UUID]], pace: Pace
) -> float:
    """The throughput of writers of tasks, with listeners to those followed, of that without.

    There is a writer for each list of tasks, and it changes them in turn.
    """
    ratios = []
    with running(TROUPE, url) as server:
        sends = _messages(TROUPE, [task for own in followed for task in own])
        for number in range(max(3, pace.rounds // 3)):
            alone = await _written_elsewhere(url, tasks, pace.seconds)
            async with listening(server, sends, LISTENERS) as found:
                written = await _written_elsewhere(url, tasks, pace.seconds)
                ratios.append(written.rate / alone.rate)
                count = sum(one.count for one in found)
            say(f"round {number + 1} of writers: {count} messages to {LISTENERS} listeners")
    return median(ratios)


async def _paced(
    name: str, url: URL, tasks: list[list[UUID]], pace: Pace, per_second: float | None = None
) -> Paced:
    """What writers with a pace do, without listeners and beside those of the same tasks.

    By default, the pace is half of the speed that they have without listeners.
    """
    alone, beside = Written(), Written()
    with running(TROUPE, url) as server:
        sends = _messages(TROUPE, [task for own in tasks for task in own])
        if per_second is None:
            per_second = (await _written_elsewhere(url, tasks, pace.seconds)).rate / 2
        for _ in range(max(2, pace.rounds // 3)):
            alone.add(await _written_elsewhere(url, tasks, pace.seconds, per_second))
            async with listening(server, sends, LISTENERS):
                beside.add(await _written_elsewhere(url, tasks, pace.seconds, per_second))
    found = Paced(f"{per_second:,.0f}/s: {name}", alone, beside)
    say(f"{per_second:.0f} changes/s of {name}: {found.kept:.2f} of them are made beside listeners")
    return found


async def _written_elsewhere(
    url: URL, tasks: list[list[UUID]], seconds: float, per_second: float | None = None
) -> Written:
    """What writers did in a process of their own, which does not listen."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        text = url.render_as_string(hide_password=False)
        write = partial(_write, text, tasks, seconds, per_second)
        return await asyncio.get_running_loop().run_in_executor(pool, write)


def _write(url: str, tasks: list[list[UUID]], seconds: float, per_second: float | None) -> Written:
    return asyncio.run(_written(url, tasks, seconds, per_second))


async def _written(
    url: str, tasks: list[list[UUID]], seconds: float, per_second: float | None
) -> Written:
    """What writers did in so many seconds: as much as possible, or so much in a second.

    With a pace, each change is due at its time, whether or not those before it are done.
    """
    found = Written(seconds)
    interval = 0.0 if per_second is None else len(tasks) / per_second

    async def write(own: list[UUID]) -> None:
        async with connected(url) as connection:
            count, began = 0, time.perf_counter()
            while (now := time.perf_counter()) < began + seconds:
                due = began + count * interval if interval else now
                if due > now:
                    await asyncio.sleep(due - now)
                await connection.execute(CHANGE, own[count % len(own)])
                found.latencies.append(time.perf_counter() - due)
                count += 1

    await asyncio.gather(*map(write, tasks))
    return found


async def _other_process(url: URL, pace: Pace) -> float:
    """The median latency of listeners at two processes, of which one numbers the events."""
    heard: list[float] = []
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(connected(url))
        for _ in range(2):
            server = stack.enter_context(running(TROUPE, url))
            sends = _messages(TROUPE, [FOLLOWED])
            await stack.enter_async_context(listening(server, sends, 10, heard))
        await _change(writer, 1)
        heard.clear()
        await _change(writer, pace.seconds)
        await asyncio.sleep(1)
    say(f"two processes: {len(heard)} messages to 20 listeners")
    return median(heard)


async def _idle(url: URL, pace: Pace) -> tuple[float, float]:
    """The memory of each idle socket, and the processor time in a second of all of them."""
    with running(TROUPE, url) as server:
        sends = _messages(TROUPE, [FOLLOWED])
        async with listening(server, sends, 10):
            pass
        await asyncio.sleep(1)
        empty, seconds = memory(server.pid), max(PINGS, pace.seconds)
        alone = await _used(server, seconds)
        async with listening(server, [own[:1] for own in sends], IDLE):
            await asyncio.sleep(2)
            taken = (memory(server.pid) - empty) / IDLE
            used = await _used(server, seconds)
    say(f"{IDLE} idle sockets: {taken / 1024:.1f} KB each")
    return taken, max(0.0, used - alone)


async def _used(server: Running, seconds: float) -> float:
    before = processor(server.pid)
    await asyncio.sleep(seconds)
    return (processor(server.pid) - before) / seconds
