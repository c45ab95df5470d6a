"""Faults under load: a database that dies, is away, full or stuck, and a server that is stopped.

Whatever happens, every answer is right or says what keeps it from being so, nobody waits for longer
than they have to, and what was said to be done is there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import URL, text

import db
from db import sessions
from graph.cli.errors import error_message
from graph.core.access import Deadline, DeadlineExceeded, EnforcedDeadline
from graph.core.timers import SharedTimer
from graph.settings import Settings
from tests import factories, processes
from tests.client import Answer
from tests.conftest import People, serving
from tests.patience import PATIENCE, becomes, until
from tests.processes import Answered, Elsewhere, Load, Serving, sql
from tests.test_sessions import locked

# More than the server has connections for reading.
CLIENTS = 12
MAX_SECONDS = 2

AGAIN = "Try again in a moment."
BUSY = f"All connections to the database are busy. {AGAIN}"
GONE = f"The database cannot be reached. {AGAIN}"
LATE = (
    f"The operation took longer than {MAX_SECONDS} s, which is as long as one may take"
    " (TROUPE_MAX_SECONDS). Ask for less at once."
)
UNKNOWN = (
    "The connection to the database was lost during the commit, so it is not known whether the"
    " change was stored. Check before you try again."
)
SENTENCES = {"OVERLOADED": {BUSY}, "UNAVAILABLE": {GONE, UNKNOWN}, "TIMEOUT": {LATE}}
STATUSES = {"OVERLOADED": 503, "UNAVAILABLE": 503, "TIMEOUT": 504}
PARTIAL_SUCCESS = 294
UNLIMITED = dict.fromkeys(("rate_per_second", "rate_burst"), 999_999_999)

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")


# A database of one's own, under load


class Outage:
    """A PostgreSQL that something happens to, and a server that is asked meanwhile."""

    def __init__(self, elsewhere: Elsewhere, server: Serving, token: str, stack: ExitStack) -> None:
        self.elsewhere = elsewhere
        self.data_dir = elsewhere.data_dir
        self.server = server
        self.token = token
        self._stack = stack

    def kill(self) -> None:
        """Kill its first process; whoever supervises it starts it again at once."""
        old = processes.postmaster_of(self.data_dir)
        os.kill(old, signal.SIGKILL)
        until(lambda: processes.postmaster_of(self.data_dir) != old)

    def restart(self) -> None:
        """Stop it, and start it again a while later."""
        self._stack.close()
        time.sleep(0.5)
        assert self.server.get("/readyz").status_code == 503
        self._stack.enter_context(self.elsewhere.running())

    def disconnect(self) -> None:
        """End all connections of the server."""
        ours = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '{}'"
        sql(self.data_dir, ours.format(self.elsewhere.user))

    def run_out(self) -> None:
        """Have no connections left for a while, and few before that."""
        for few in (5, 0):
            sql(self.data_dir, f"ALTER ROLE {self.elsewhere.user} CONNECTION LIMIT {few}")
            self.disconnect()
            time.sleep(0.5)
        sql(self.data_dir, f"ALTER ROLE {self.elsewhere.user} CONNECTION LIMIT -1")

    def hang(self) -> None:
        """Have it stand still for longer than operations may take."""
        found = processes.postgres_of(self.data_dir)
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(MAX_SECONDS + 0.5)
        for pid in found:
            os.kill(pid, signal.SIGCONT)

    def lock(self) -> None:
        """Have somebody hold a table for longer than operations may take."""
        with processes.locked(self.data_dir, "projects"):
            time.sleep(MAX_SECONDS + 0.5)

    async def _answers(self) -> float:
        while True:
            try:
                connection = await asyncpg.connect(self.elsewhere.url(), timeout=1)
                await connection.execute("SELECT count(*) FROM projects")
            except (asyncpg.PostgresError, OSError):
                await asyncio.sleep(0.01)
            else:
                moment = time.monotonic()
                await connection.close()
                return moment

    def answers(self) -> float:
        """The moment in which it answers again, to somebody who asks it directly."""
        return asyncio.run(asyncio.wait_for(self._answers(), PATIENCE))


@pytest.fixture(scope="module")
def outage(made: tuple[Path, str]) -> Iterator[Outage]:
    """A server for the tests, on a PostgreSQL that they do to what they like."""
    with processes.place() as folder, ExitStack() as stack:
        data_dir = folder / "data"
        processes.copied(made[0], data_dir)
        elsewhere = Elsewhere(data_dir, database="troupe")
        stack.enter_context(elsewhere.running())
        sql(data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        sql(data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
        limits = UNLIMITED | {"max_seconds": MAX_SECONDS}
        with Serving(folder, database_url=elsewhere.url(), mode="production", **limits) as server:
            yield Outage(elsewhere, server.ready(), made[1], stack)
            assert server.stop().status == 0
            assert "fault" not in server.err
            for secret in (Elsewhere.PASSWORD, made[1]):
                assert secret not in server.out + server.err


FAULTS: dict[str, Callable[[Outage], None]] = {
    "killed": Outage.kill,
    "restarted": Outage.restart,
    "disconnected": Outage.disconnect,
    "out of connections": Outage.run_out,
    "standing still": Outage.hang,
    "locked": Outage.lock,
}


@linux
@pytest.mark.parametrize("fault", FAULTS)
def test_service_is_back_soon_and_what_was_acknowledged_is_there(
    outage: Outage, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    with Load(outage.server, CLIENTS, outage.token, reads=True) as load:
        load.more(4)
        FAULTS[fault](outage)
        back = outage.answers()
        took = load.right_after(back)
        load.more(8)
        assert outage.server.get("/readyz").status_code == 200
    assert load.broken == []
    with capsys.disabled():
        print(f"\n{fault}: right again after {took:.2f} s, slowest {load.slowest:.2f} s")  # noqa: T201
        print(f"  {len(load.acknowledged)} acknowledged, {dict(load.refused)}")  # noqa: T201
    for one in load.answers:
        if one.error is not None:
            check(one, one.error)
    stored = set(sql(outage.data_dir, "SELECT name FROM projects").split())
    check_outcomes(load, stored)


def check(one: Answered, error: dict[str, Any]) -> None:
    """An answer that is none says so in the form, and nothing of the server besides."""
    told = error["extensions"]
    sentence = error["message"].removeprefix("This was done, but cannot be shown. ")
    sentences = SENTENCES[told["code"]]
    if sentence == error["message"]:
        assert sentence in sentences, one
    else:
        assert sentence in {each.removesuffix(f" {AGAIN}") for each in sentences - {UNKNOWN}}, one
        assert told["outcome"] == "DONE", one
    assert (told.get("outcome") == "UNKNOWN") == (sentence == UNKNOWN), one
    assert error.keys() <= {"message", "locations", "path", "extensions"}, one
    assert told.keys() <= {"code", "retryAfter", "outcome"}, one
    # A mutation that has begun is told of in its place; whatever else is refused as a whole.
    is_whole = "path" not in error
    assert one.status == (STATUSES[told["code"]] if is_whole else PARTIAL_SUCCESS), one
    assert is_whole or one.write, one
    wait = None if told["code"] == "TIMEOUT" or "outcome" in told else 1
    assert (told.get("retryAfter"), one.retry_after) == (wait, wait and str(wait)), one


def check_outcomes(load: Load, stored: set[str]) -> None:
    """What was said to be done is there, and what was refused is not."""
    assert load.acknowledged <= stored
    outcomes = Counter[str]()
    for one in load.answers:
        if one.write is not None and one.error is not None:
            outcome = one.error["extensions"].get("outcome")
            outcomes[outcome] += 1
            assert outcome == "UNKNOWN" or (one.write in stored) == (outcome == "DONE"), one


# A server that is stopped, under load


def test_a_server_that_is_stopped_answers_what_it_has_taken(
    made: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    drain, grace = 1, 5
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        times = {"drain_seconds": drain, "grace_seconds": grace}
        with Serving(folder, data_dir=data_dir, **times, **UNLIMITED) as server:
            server.ready()
            with Load(server, CLIENTS, made[1], reads=True) as load:
                load.more(CLIENTS)
                began = time.monotonic()
                server.send(signal.SIGTERM)
                until(lambda: server.get("/readyz").status_code == 503)
                answered = len(load.answers)
                assert server.ended().clean
                took = time.monotonic() - began
            assert server.is_clean()
        stored = set(processes.stored(data_dir, "SELECT name FROM projects").split())
    unanswered = Counter(one.partition("(")[0] for one in load.broken)
    with capsys.disabled():
        print(f"\nstopped after {took:.2f} s: {len(load.answers) - answered} answers until then")  # noqa: T201
        print(f"  then {dict(unanswered)}")  # noqa: T201
    assert took > drain
    # Nobody is refused anything before the end, and then by there being nobody.
    assert load.refused == {}
    assert len(load.answers) > answered
    assert unanswered.keys() <= {"ConnectError", "ReadError", "RemoteProtocolError"}
    assert unanswered["ConnectError"] > 0
    # What is not answered is not done.
    assert stored == load.acknowledged
    assert not load.unanswered & stored


# What became of a change


PAUSE = """
    CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'
"""
# What is deferred happens in the commit.
PAUSE_AT_COMMIT = """
    CREATE CONSTRAINT TRIGGER pause AFTER INSERT ON projects
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pause()
"""
MAKE = """mutation {
  createProject(input: {name: "Kept?"}) { project { name } userErrors { code } }
}"""


async def execute(database: db.Database, *statements: str) -> list[Any]:
    """Run statements past all of the API, and see what the last one finds."""
    async with database.writer.begin() as connection:
        *before, last = map(text, statements)
        for statement in before:
            await connection.execute(statement)
        found = await connection.execute(last)
        return list(found.scalars()) if found.returns_rows else []


async def slow_commits(database: db.Database, seconds: float) -> None:
    """Have each commit that makes a project take so long."""
    await execute(database, PAUSE.format(seconds=seconds), PAUSE_AT_COMMIT)


async def committing(database: db.Database) -> int:
    """The process of PostgreSQL that is in such a commit, as soon as there is one."""
    query = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    found = await becomes(lambda: execute(database, query))
    return int(found[0])


def refusal(answer: Answer) -> tuple[str, dict[str, Any]]:
    """The only error of an answer: its message, and what programs are told."""
    (error,) = answer.errors
    return error["message"], error["extensions"]


async def test_of_a_commit_that_was_interrupted_nobody_says_that_it_was_not(
    database: db.Database, people: People
) -> None:
    await slow_commits(database, 30)
    asked = asyncio.create_task(people.owner.ask(MAKE))
    await execute(database, f"SELECT pg_terminate_backend({await committing(database)})")

    answer = await asked

    told = {"code": "UNAVAILABLE", "outcome": "UNKNOWN"}
    assert refusal(answer) == (UNKNOWN, told)
    assert answer.body["data"] == {"createProject": None}


async def test_a_commit_does_not_take_for_ever(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "COMMIT_SECONDS", 0.2)
    await slow_commits(database, 30)

    async with asyncio.timeout(PATIENCE / 2):  # the commit takes 30 s
        answer = await people.owner.ask(MAKE)

    assert refusal(answer)[1]["outcome"] == "UNKNOWN"
    # The connection is in order again.
    assert (await people.owner.ask("{ projects { totalCount } }")).data["projects"]


async def test_what_was_done_and_cannot_be_shown_is_said_to_be_done(
    database: db.Database, people: People
) -> None:
    await slow_commits(database, 1.2)
    async with serving(database, Settings(max_seconds=1)) as http:
        answer = await people.owner.through(http).ask(MAKE)

    message, told = refusal(answer)
    assert message.startswith("This was done, but cannot be shown. The operation took longer than")
    assert told == {"code": "TIMEOUT", "outcome": "DONE"}
    assert await execute(database, "SELECT name FROM projects") == ["Kept?"]


async def test_what_is_refused_below_a_change_says_that_it_is_done(people: People) -> None:
    answer = await people.owner.ask(
        'mutation { createProject(input: {name: "Kept"}) {'
        " project { name tasks(first: 1000) { totalCount } } } }"
    )

    assert refusal(answer)[1] == {"code": "BAD_USER_INPUT", "outcome": "DONE"}
    assert (await people.owner.ask("{ projects { totalCount } }")).data == {
        "projects": {"totalCount": 1}
    }


async def test_a_command_says_so_too(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "COMMIT_SECONDS", 0.2)
    await slow_commits(database, 30)
    with pytest.raises(db.OutcomeUnknown) as unknown:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            await factories.make_project(session, None)

    assert error_message(unknown.value) == UNKNOWN


# Connections


def test_a_database_that_does_not_answer_has_a_reason() -> None:
    sentence = error_message(TimeoutError())  # as the driver raises it, without a word

    assert sentence == (
        "The database cannot be used (it does not answer)."
        " Check TROUPE_DATABASE_URL and that the server is running."
    )


async def test_who_leaves_when_it_is_their_turn_leaves(database: db.Database) -> None:
    prepared = database._prepared
    for _ in range(prepared.size):
        await prepared._wait_until_free()
    waiting = asyncio.create_task(prepared.value("SELECT '1'::json", []))
    await asyncio.sleep(0.01)

    prepared._free.release()
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not prepared._free.locked()


async def test_who_waits_for_a_connection_waits_no_longer_than_they_may(
    database: db.Database,
) -> None:
    prepared = database._prepared
    for _ in range(prepared.size):
        await prepared._wait_until_free()

    async with asyncio.timeout(PATIENCE):  # nobody gives one back
        with pytest.raises(DeadlineExceeded), EnforcedDeadline(Deadline(1, SharedTimer())):
            await prepared.value("SELECT '1'::json", [])

    prepared._free.release()
    assert await prepared.value("SELECT '1'::json", []) == "1"


async def test_to_look_up_who_asks_takes_no_longer_than_an_operation_may(
    database: db.Database, database_url: URL, people: People
) -> None:
    settings = Settings(max_seconds=1)
    async with serving(database, settings) as http, locked(database_url, "access_tokens"):
        async with asyncio.timeout(PATIENCE):  # the table stays locked
            answer = await people.owner.through(http).ask("{ me { id } }")
    assert answer.code == "TIMEOUT"
    assert "data" not in answer.body


@pytest.mark.parametrize("query", ["{ projects { totalCount } }", MAKE])
async def test_a_connection_that_was_closed_meanwhile_is_not_handed_out(
    database: db.Database, database_url: URL, people: People, query: str
) -> None:
    assert (await people.owner.ask(query)).data
    other = db.Database(database_url, pool_size=1)
    ours = "datname = current_database() AND pid <> pg_backend_pid()"
    end = "SELECT pg_terminate_backend(pid, 10000)"
    await execute(other, f"{end} FROM pg_stat_activity WHERE {ours}")
    await other.dispose()

    for _ in range(3):
        assert (await people.owner.ask(query)).data
