"""A standby takes over while clients follow the event log."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import processes
from tests.patience import until
from tests.processes import Elsewhere, sql
from tests.standbys import let_replicate, replayed, standby_of
from tests.test_follower_kills import Follower, all_positions, following
from tests.test_kills import Cluster, Writers, things

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")


class Failover:
    """A primary and its standby, which takes over its address."""

    def __init__(self, made: tuple[Path, str], folder: Path, stack: ExitStack) -> None:
        data_dir = processes.copied(made[0], folder / "data")
        primary = self._primary = Elsewhere(data_dir, database="troupe")
        let_replicate(primary)
        self._running = stack.enter_context(ExitStack())
        self._running.enter_context(primary.running())
        sql(data_dir, f"CREATE ROLE ann LOGIN PASSWORD '{Elsewhere.PASSWORD}'")
        sql(data_dir, "GRANT ALL ON ALL TABLES IN SCHEMA public TO ann")
        self._standby = standby_of(primary, folder / "standby")
        self._following = stack.enter_context(ExitStack())
        self._following.enter_context(self._standby.running())
        self.cluster = Cluster(folder, primary, made[1], stack)
        self._stack = stack

    def wait_for_standby(self) -> None:
        """Let nobody see what the standby does not have."""
        for statement in (
            "ALTER SYSTEM SET synchronous_standby_names = '*'",
            "SELECT pg_reload_conf()",
        ):
            sql(self._primary.data_dir, statement)
        synchronous = "SELECT sync_state FROM pg_stat_replication"
        until(lambda: sql(self._primary.data_dir, synchronous) == "sync")

    def lose_standby(self) -> None:
        """Stop the standby, once it has everything until now."""
        end = sql(self._primary.data_dir, "SELECT pg_current_wal_lsn()")
        has_all = f"SELECT '{{}}'::pg_lsn >= '{end}'"
        until(lambda: sql(self._primary.data_dir, has_all.format(replayed(self._standby))) == "t")
        self._following.close()

    def take_over(self) -> None:
        """Stop the primary, and have the standby be the primary, at its address."""
        self._running.close()
        self._following.close()
        self._standby.listen_at(self._primary.host)
        self._stack.enter_context(self._standby.running())
        assert sql(self._standby.data_dir, "SELECT pg_promote()") == "t"
        self.cluster.data_dir = self._standby.data_dir


@pytest.fixture
def failover(made: tuple[Path, str]) -> Iterator[Failover]:
    with processes.place() as folder, ExitStack() as stack:
        yield Failover(made, folder, stack)


def test_followers_miss_nothing_when_a_standby_takes_over(failover: Failover) -> None:
    cluster = failover.cluster
    servers = [cluster.serve(), cluster.serve()]
    ids = things(cluster, servers[0])
    failover.wait_for_standby()
    until(cluster.is_numbered)
    begin = int(cluster.sql("SELECT last_position FROM event_positions"))
    writers = Writers(servers, cluster.token, ids)
    followers = [Follower(writers, ids["project"], place) for place in range(4)]
    with following(followers):
        with writers:
            writers.more()
            failover.take_over()
            for _ in range(3):
                writers.more()
        expected = all_positions(cluster, followers, begin, ids)
    assert writers.broken == []
    for follower in followers:
        assert follower.broken == []
        assert follower.positions == expected


def test_followers_learn_of_events_that_a_standby_never_got(failover: Failover) -> None:
    cluster = failover.cluster
    servers = [cluster.serve(), cluster.serve()]
    ids = things(cluster, servers[0])
    until(cluster.is_numbered)
    writers = Writers(servers, cluster.token, ids)
    followers = [Follower(writers, ids["project"], place) for place in range(4)]
    with following(followers):
        failover.lose_standby()
        with writers:
            writers.more()
        until(cluster.is_numbered)
        last = int(cluster.sql("SELECT max(position) FROM events"))
        until(lambda: all(last in follower.positions for follower in followers))
        cursors = {follower._cursor for follower in followers}
        (cursor,) = cursors
        failover.take_over()
        # Other events get the same positions.
        change = "UPDATE projects SET name = md5(random()::text)"
        while int(cluster.sql("SELECT last_position FROM event_positions")) <= last:
            cluster.sql(change)
        until(lambda: all(follower.broken for follower in followers))
    for follower in followers:
        (gap,) = follower.broken
        assert f"'gap': {{'after': '{cursor}'}}" in gap
        assert "'event': None" in gap
