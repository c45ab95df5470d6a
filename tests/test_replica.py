"""Queries on a streaming replica: they show what was written before them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from db.replicas import place_of, token_of
from graph import doctor
from graph.doctor import Finding, Status, examine_database
from graph.settings import Settings
from tests import processes
from tests.patience import until
from tests.processes import CREATE, READ, RESOLVE, Elsewhere, Serving, sql
from tests.standbys import let_replicate, standby_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")


class Pair:
    """A primary and its replica, with a server that uses both."""

    def __init__(self, primary: Elsewhere, standby: Elsewhere, server: Serving, token: str) -> None:
        self.primary, self.standby = primary, standby
        self.server, self.token = server, token

    def ask(self, query: str, written: str | None = None, /, **variables: Any) -> Any:
        """The answer to an operation with a token of the last write."""
        headers = {"authorization": f"Bearer {self.token}"}
        if written is not None:
            headers["Troupe-Written"] = written
        return self.server.ask_with(headers, query, **variables)

    def ask_by_extension(self, written: str, query: str, **variables: Any) -> Any:
        """The same with the token in the request's `extensions`."""
        body = {"query": query, "variables": variables, "extensions": {"written": written}}
        headers = {"authorization": f"Bearer {self.token}"}
        with processes.client(headers=headers) as http:
            return http.post(f"{self.server.url}/graphql", json=body).json()

    def created(self, name: str) -> tuple[str, str]:
        """The id of a new project, and the token of the write."""
        query = (
            CREATE.replace("{ name }", "{ id }").replace("$id: ID!, ", "").replace("id: $id,", "")
        )
        answer = self.ask(query, name=name)
        return answer["data"]["createProject"]["project"]["id"], answer["extensions"]["written"]

    def names(self, written: str | None, name: str) -> list[str]:
        """The projects of a name that a query finds."""
        answer = self.ask(READ, written, name=name)
        return [node["name"] for node in answer["data"]["projects"]["nodes"]]

    def pause(self) -> None:
        """Have the replica replay nothing more."""
        sql(self.standby.data_dir, "SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state()"
        until(lambda: sql(self.standby.data_dir, state) == "paused")

    def resume(self) -> None:
        """Have the replica go on."""
        sql(self.standby.data_dir, "SELECT pg_wal_replay_resume()")


@pytest.fixture
def pair(made: tuple[Path, str]) -> Iterator[Pair]:
    with processes.place() as folder, ExitStack() as stack:
        data_dir = processes.copied(made[0], folder / "data")
        primary = Elsewhere(data_dir, database="troupe")
        let_replicate(primary)
        stack.enter_context(primary.running())
        sql(data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        sql(data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
        standby = standby_of(primary, folder / "standby")
        stack.enter_context(standby.running())
        (folder / "server").mkdir()
        urls = {"database_url": primary.url(), "database_replica_url": standby.url()}
        server = Serving(folder / "server", mode="production", **urls)
        server = stack.enter_context(server).ready()
        yield Pair(primary, standby, server, made[1])


def test_queries_read_what_was_written_from_the_replica(pair: Pair) -> None:
    pair.created("First")
    for number in range(20):
        name = f"Project {number}"
        id, token = pair.created(name)
        assert pair.names(token, name) == [name]
        # Without a token, a query shows all that was written before.
        assert pair.names(None, name) == [name]
        found = pair.ask(RESOLVE, token, id=id)["data"]["node"]
        assert found == {"name": name, "tasks": {"totalCount": 0}}


def test_one_that_lags_is_not_read(pair: Pair) -> None:
    _, old = pair.created("Old")
    assert pair.names(old, "Old") == ["Old"]
    pair.pause()
    id, token = pair.created("New")
    # A client that has written nothing since gets what the replica shows.
    assert pair.names(old, "New") == []
    assert pair.ask(RESOLVE, old, id=id) == {"data": {"node": None}}
    assert pair.ask_by_extension(old, RESOLVE, id=id) == {"data": {"node": None}}
    whole = {"data": {"node": {"name": "New", "tasks": {"totalCount": 0}}}}
    assert pair.ask(RESOLVE, token, id=id) == whole
    assert pair.ask_by_extension(token, RESOLVE, id=id) == whole
    assert pair.names(token, "New") == ["New"]
    assert pair.names(None, "New") == ["New"]
    # Places that the primary has not reached, and what is no place, count as no token.
    for strange in ("FFFFFFFF/FFFFFFFF", "?", "1/2/3"):
        assert pair.names(strange, "New") == ["New"]
    pair.resume()
    until(lambda: pair.names(old, "New") == ["New"])


def test_one_that_is_down_or_hangs_is_not_missed(pair: Pair) -> None:
    _, token = pair.created("First")
    assert pair.names(token, "First") == ["First"]
    pids = processes.postgres_of(pair.standby.data_dir)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(5):
            _, token = pair.created(f"Hangs {number}")
            assert pair.names(token, f"Hangs {number}") == [f"Hangs {number}"]
            assert pair.names("0/0", "First") == ["First"]
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    os.kill(processes.postmaster_of(pair.standby.data_dir), signal.SIGKILL)
    for number in range(20):
        _, token = pair.created(f"Down {number}")
        assert pair.names(token, f"Down {number}") == [f"Down {number}"]
        assert pair.names("0/0", "First") == ["First"]


def test_a_mutation_has_a_token_even_if_it_was_done_before(pair: Pair) -> None:
    query = CREATE.replace("name: $name", 'name: $name, idempotencyKey: "1"')
    key = "019ad000-0000-7000-8000-000000000001"
    headers = {"authorization": f"Bearer {pair.token}"}
    pair.pause()
    places = []
    with processes.client(headers=headers) as http:
        for _ in range(2):
            body = {"query": query, "variables": {"id": key, "name": "Once"}}
            response = http.post(f"{pair.server.url}/graphql", json=body)
            assert response.json()["data"]["createProject"]["userErrors"] == []
            token = response.headers["troupe-written"]
            assert response.json()["extensions"] == {"written": token}
            places.append(place_of(token) or 0)
            assert pair.names(token, "Once") == ["Once"]
        query = CREATE.replace("userErrors { code }", "nothing: userErrors { code }")
        body = {"query": query, "variables": {"id": key, "name": "Taken"}}
        response = http.post(f"{pair.server.url}/graphql", json=body)
        assert response.json()["data"]["createProject"]["nothing"] == [{"code": "ALREADY_EXISTS"}]
        places.append(place_of(response.headers["troupe-written"]) or 0)
        body = {"query": READ, "variables": {"name": "Once"}}
        assert "troupe-written" not in http.post(f"{pair.server.url}/graphql", json=body).headers
    assert places[0] > 0
    assert places == sorted(places)


def examined(pair: Pair, replica: str) -> Finding:
    """What `troupe doctor` finds about a replica."""

    async def run() -> Finding:
        settings = Settings(database_replica_url=replica)
        found = examine_database(pair.primary.url(), None, settings)
        return {finding.check: finding async for finding in found}["replica"]

    return asyncio.run(run())


def test_the_doctor_examines_it(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LAG_SECONDS", 0.5)
    found = examined(pair, pair.standby.url())
    assert (found.status, found.advice) == (Status.OK, "")
    pair.pause()
    assert "pg_wal_replay_resume" in examined(pair, pair.standby.url()).advice
    pair.resume()
    for url, status, message in (
        (pair.primary.url(), Status.WARNING, "It takes writes itself, so it is no replica."),
        (pair.standby.url(database="postgres"), Status.FAILED, "It is a replica of another"),
        (pair.standby.url(port=1), Status.WARNING, "The replica cannot be reached at"),
    ):
        found = examined(pair, url)
        assert (found.status, found.message.startswith(message)) == (status, True)
        assert Elsewhere.PASSWORD not in found.message
    # It is behind, and receives nothing, without its primary's address.
    sql(pair.standby.data_dir, "ALTER SYSTEM SET primary_conninfo = ''")
    sql(pair.standby.data_dir, "SELECT pg_reload_conf()")
    until(lambda: sql(pair.standby.data_dir, "SELECT count(*) FROM pg_stat_wal_receiver") == "0")
    pair.created("Later")
    found = examined(pair, pair.standby.url())
    assert (found.status, found.message.startswith("It receives nothing")) == (Status.WARNING, True)


def test_the_doctor_names_the_url_that_leads_to_a_standby(pair: Pair) -> None:
    """As after a failover, when a pooler or a setting still leads to what was the primary."""
    primary, standby = pair.primary.url(), pair.standby.url()

    async def failed(url: str, direct: str) -> dict[str, str]:
        settings = Settings(database_direct_url=direct)
        found = [finding async for finding in examine_database(url, None, settings)]
        return {
            each.check: f"{each.message} {each.advice}"
            for each in found
            if each.status is Status.FAILED
        }

    assert asyncio.run(failed(primary, primary)) == {}
    assert asyncio.run(failed(standby, primary)) == {
        "pooler": "TROUPE_DATABASE_URL leads to a standby, which takes no writes."
        " Let the pooler lead to the primary."
    }
    found = asyncio.run(failed(primary, standby))
    advice = "Name the primary in TROUPE_DATABASE_DIRECT_URL, or end its read-only mode."
    assert found["database"].endswith(f"takes no writes. {advice}")


def test_a_token_is_a_place_in_the_log() -> None:
    for token in ("0/0", "0/3000060", "A/FF", "FFFFFFFF/FFFFFFFF"):
        place = place_of(token)
        assert place is not None
        assert token_of(place) == token
    for wrong in (None, 5, "", "0", "0/", "G/0", "0/123456789", " 0/0"):
        assert place_of(wrong) is None
