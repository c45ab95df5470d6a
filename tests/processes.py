"""Troupe's own processes for the tests: commands, and servers that are asked and killed."""

from __future__ import annotations

import asyncio
import contextlib
import io
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self, get_type_hints
from unittest import mock

import httpx
from sqlalchemy import URL

import db
from db import access, embedded, migrate
from db.embedded import binaries, clusters
from graph import cli
from graph.settings import Limit, Settings
from tests.patience import PATIENCE, until

CODE = Path(__file__).parents[1]
# As root PostgreSQL runs as another account, which must be able to reach its folder.
SHARED = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path("/tmp")
CLUSTER = f"postgres-{binaries.installed().major}"

# The settings that are limits: each takes any whole number from 1.
SETTINGS = get_type_hints(Settings, include_extras=True)
LIMITS = [name for name, kind in SETTINGS.items() if kind == Limit]

# What the environment may say of the locale. Python takes C and POSIX to mean UTF-8, unless it is
# told not to.
LOCALES: list[dict[str, str]] = [
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
]


@contextlib.contextmanager
def place() -> Iterator[Path]:
    """A folder that every account can enter, and that nobody uses any more at the end."""
    folder = Path(tempfile.mkdtemp(prefix="troupe-test-", dir=SHARED))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        try:
            until(lambda: processes_of(folder) == [], 10)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that name a folder: PostgreSQL's, above all."""
    return [" ".join(words) for _, words in clusters._commands() if str(folder) in " ".join(words)]


def postgres_of(data_dir: Path) -> list[int]:
    """PostgreSQL's processes over a data folder, the postmaster first."""
    cluster = f"postgres: troupe-{clusters._digest(data_dir / CLUSTER)}: "
    titles = ((pid, words[0]) for pid, words in clusters._commands())
    return [postmaster_of(data_dir), *(pid for pid, title in titles if title.startswith(cluster))]


def postmaster_of(data_dir: Path) -> int:
    """The pid of PostgreSQL's first process over a data folder."""
    found = until(lambda: clusters.postmaster_pid(data_dir / CLUSTER))
    assert found is not None
    return found


def copied(made: Path, target: Path) -> Path:
    """A copy of a data folder, with the accounts that its files belong to."""
    subprocess.run(["cp", "-a", made, target], check=True)
    return target


def sql(data_dir: Path, statement: str) -> str:
    """What PostgreSQL answers on the socket of a data folder, past all of troupe's code."""
    done = subprocess.run(
        psql(data_dir, statement), capture_output=True, encoding="utf-8", timeout=20
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def psql(data_dir: Path, statement: str) -> list[str]:
    """The command that has PostgreSQL's own client run a statement."""
    program = str(binaries.installed().bin_dir / "psql")
    socket_dir = str(data_dir / "postgres-socket")
    return [program, "-XAtqh", socket_dir, "-p", "5432", "-U", "troupe", "-c", statement]


def stored(data_dir: Path, statement: str) -> str:
    """What a statement finds in a data folder over which no process runs."""
    with embedded.running(data_dir):
        return sql(data_dir, statement)


def prepare(data_dir: Path) -> str:
    """Make the database of a data folder as the first start would, and a token that is kept."""

    async def run(url: str) -> str:
        await migrate.upgrade(url)
        database = db.Database(url)
        async with database.write(db.Viewer(is_administrator=True)) as session:
            admin = await access.administrator(session)
            assert admin is not None
            _, token = await access.issue_token(session, admin, "test")
        await database.dispose()
        return token

    with embedded.running(data_dir) as server:
        return asyncio.run(run(server.url))


@contextlib.contextmanager
def locked(data_dir: Path, table: str) -> Iterator[Callable[[], None]]:
    """Have somebody hold a table: whoever wants it waits for the function that this gives."""
    command = psql(data_dir, "")[:-2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, encoding="utf-8") as holder:
        assert holder.stdin is not None
        holder.stdin.write(f"BEGIN; LOCK TABLE {table};\n")
        holder.stdin.flush()
        held = f"SELECT 1 FROM pg_locks WHERE relation = '{table}'::regclass AND granted"
        until(lambda: sql(data_dir, held) == "1")
        try:
            yield holder.stdin.close
        finally:
            holder.kill()


def waits(data_dir: Path) -> bool:
    """Whether somebody waits for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    return sql(data_dir, query) != "0"


class Elsewhere:
    """A PostgreSQL as others run theirs, with an address and a password."""

    PASSWORD = "s3cret"

    def __init__(self, data_dir: Path, user: str = "ann", database: str = "ann") -> None:
        self.data_dir = data_dir
        self.user = user
        # Linux has all of 127.0.0.0/8 on loopback, so the usual port is free somewhere.
        address = ".".join(["127", *(str(random.randint(1, 254)) for _ in range(3))])
        self._url = URL.create("postgresql", user, self.PASSWORD, address, 5432, database)
        hba = data_dir.with_name("hba.conf")
        hba.write_text(
            "local all all trust\nhost all all 127.0.0.0/8 scram-sha-256\n", encoding="utf-8"
        )
        hba.chmod(0o644)
        self._settings = {"listen_addresses": address, "hba_file": str(hba)}

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have it running inside the block."""
        with embedded.running(self.data_dir, settings=self._settings):
            yield

    def listen_at(self, address: str) -> None:
        """Have this address from the next start on."""
        self._settings["listen_addresses"] = address
        self._url = self._url.set(host=address)

    @property
    def host(self) -> str:
        """Its address."""
        return str(self._url.host)

    def make_database(self) -> None:
        """Make the role and its empty database."""
        user, database = self._url.username, self._url.database
        sql(self.data_dir, f"CREATE ROLE {user} LOGIN PASSWORD '{self.PASSWORD}'")
        sql(self.data_dir, f"CREATE DATABASE {database} OWNER {user}")

    def url(self, **different: Any) -> str:
        """Its URL, password included, with parts that are different."""
        return self._url.set(**different).render_as_string(hide_password=False)


# Commands


@dataclass
class Ended:
    """A command that ran to its end."""

    status: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one sentence of a command that refused, without its "troupe: "."""
        assert self.status == 1, self
        assert self.out == "", self
        assert self.err.startswith("troupe: "), self
        assert self.err.endswith(".\n"), self
        assert self.err.count("\n") == 1, self
        assert "Unexpected error" not in self.err, self
        return self.err.removeprefix("troupe: ").rstrip("\n")

    @property
    def clean(self) -> bool:
        """Whether it ended well and complained of nothing."""
        return (self.status, self.err) == (0, "")

    @property
    def printed(self) -> str:
        """What a command that did its work printed."""
        assert self.clean, self
        return self.out


def environment(state: object = "/dev/null/none", **settings: object) -> dict[str, str]:
    """This process's environment with these settings of troupe's, and no others.

    `state` is the folder in which servers say where they run. Without a folder for the data (""),
    a command uses the database of a server that runs.
    """
    settings = {name: value for name, value in settings.items() if value is not None}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TROUPE_")}
    given = {f"TROUPE_{name.upper()}": str(value) for name, value in settings.items()}
    # Nothing may touch the database of whoever runs the tests, by neglect.
    fixed = {"TROUPE_DATA_DIR": "/dev/null/none", "TROUPE_PORT": "0", "XDG_STATE_HOME": str(state)}
    found = {**kept, **fixed, **given}
    if not found["TROUPE_DATA_DIR"]:
        del found["TROUPE_DATA_DIR"]
    return found


def troupe(*arguments: str | Path, **options: Any) -> Ended:
    """Run a command as a process of its own."""
    with (
        tempfile.TemporaryDirectory(dir=SHARED) as folder,
        Process(Path(folder), *arguments, **options) as process,
    ):
        return process.ended()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def troupe_here(*arguments: str | Path, terminal: bool = False, **settings: object) -> Ended:
    """Run a command in this process, which is as good where only the answer matters, and faster."""
    out, err = io.StringIO(), _Terminal() if terminal else io.StringIO()
    status: Any = 0
    with (
        mock.patch.dict(os.environ, environment(**settings), clear=True),
        mock.patch.object(sys, "argv", ["troupe", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as error:
            status = error.code or 0
    return Ended(status, out.getvalue(), err.getvalue())


class Process:
    """A process that runs a command of troupe's, killed at the end of the block if it still runs.

    It is forked off from one that has loaded the code, unless told otherwise: loading takes most of
    a second, and there are many of these processes. With `installed`, it is the `troupe` of another
    environment, in an empty folder.
    """

    def __init__(
        self,
        folder: Path,
        *arguments: str | Path,
        fork: bool = True,
        nohup: bool = False,
        installed: Path | None = None,
        **settings: object,
    ) -> None:
        self._out, self._err = folder / "out", folder / "err"
        self._out.write_text("", encoding="utf-8")
        self._err.write_text("", encoding="utf-8")
        self.began = time.monotonic()
        start = _Forked if fork and installed is None else partial(_Spawned, installed)
        words = [str(argument) for argument in arguments]
        self._process = start(words, environment(**settings), (self._out, self._err), nohup)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert "Traceback" not in self.err, self.err

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    @property
    def out(self) -> str:
        """What it printed so far."""
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        """What it complained about so far."""
        return self._err.read_text(encoding="utf-8")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self) -> Ended:
        """Wait for its end."""
        status = self._process.wait(PATIENCE)
        return Ended(status, self.out, self.err)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Ask it to stop, and wait for its end."""
        self.send(number)
        return self.ended()

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait(PATIENCE)


class _Spawned(subprocess.Popen[bytes]):
    def __init__(
        self,
        installed: Path | None,
        words: list[str],
        environment: dict[str, str],
        files: tuple[Path, Path],
        nohup: bool,
    ) -> None:
        program, place = [sys.executable, "-m", "graph"], CODE
        if installed is not None:
            program, place = [str(installed)], files[0].parent / "empty"
            place.mkdir()
        with (
            files[0].open("w", encoding="utf-8") as out,
            files[1].open("w", encoding="utf-8") as err,
        ):
            super().__init__(
                [*(["nohup"] if nohup else []), *program, *words],
                cwd=place,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )


_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.processes", "graph.serve", "db.imports", "pytest"])


class _Forked:
    def __init__(
        self, words: list[str], environment: dict[str, str], files: tuple[Path, Path], nohup: bool
    ) -> None:
        self._process = _context.Process(target=_run, args=(words, environment, files, nohup))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()


def _run(
    words: list[str], environment: dict[str, str], files: tuple[Path, Path], nohup: bool
) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(files, start=1):
        with path.open("w", encoding="utf-8") as file:
            os.dup2(file.fileno(), number)
    # Whoever runs the tests under nohup has it ignored.
    signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    sys.argv = ["troupe", *words]
    cli.main()


# Servers


def client(**options: Any) -> httpx.Client:
    """A client of a server's."""
    # Neither proxies nor certificates concern it, and loading those takes its time.
    return httpx.Client(timeout=PATIENCE, trust_env=False, verify=False, **options)


class Serving(Process):
    """A process of `troupe serve`."""

    command = "serve"

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(folder, self.command, **options)
        self.data_dir = Path(options.get("data_dir", "/dev/null/none"))
        self._http = client()

    def __exit__(self, *_: object) -> None:
        self._http.close()
        super().__exit__()

    def ready(self) -> Self:
        """Wait until it serves."""

        def is_ready() -> bool:
            assert self.is_running, self.err
            return "Ctrl-C stops it." in self.out

        until(is_ready)
        assert self.get("/readyz").status_code == 200
        return self

    def refusal(self) -> str:
        """The sentence with which it refuses to start."""
        with self:
            return self.ended().refusal

    @property
    def url(self) -> str:
        """Where it says that it serves."""
        found = re.search(r"serves (http://\S+)/graphql", self.out)
        assert found is not None, self.out
        return found[1]

    @property
    def token(self) -> str:
        """The token that it printed."""
        (found,) = re.findall(r"^  (troupe_\S+)$", self.out, re.MULTILINE)
        return str(found)

    @property
    def postmaster(self) -> int:
        """The pid of its PostgreSQL."""
        return postmaster_of(self.data_dir)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        """What a path answers, to whom the token names."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return self._http.get(self.url + path, headers=headers)

    def ask(self, query: str, token: str | None = None, /, **variables: Any) -> Any:
        """The answer to an operation, of whoever the token names, or of whom the server's does."""
        authorization = f"Bearer {token or self.token}"
        return self.ask_with({"authorization": authorization}, query, **variables)

    def ask_with(self, headers: dict[str, str], query: str, /, **variables: Any) -> Any:
        """The answer to an operation that is sent with these headers."""
        body = {"query": query, "variables": variables}
        response = self._http.post(f"{self.url}/graphql", json=body, headers=headers)
        assert response.status_code == 200, response.text
        return response.json()

    def send_raw(self, query: str) -> httpx.Response:
        """What is answered over HTTP to an operation of the server's token."""
        headers = {"authorization": f"Bearer {self.token}"}
        return self._http.post(f"{self.url}/graphql", json={"query": query}, headers=headers)

    def is_clean(self) -> bool:
        """Whether nothing is left of its PostgreSQL: no process, no socket."""
        left = [
            *self.data_dir.glob(f"{CLUSTER}/postmaster.pid"),
            *self.data_dir.glob("postgres-socket/.s*"),
        ]
        return not left and not processes_of(self.data_dir)


class Demo(Serving):
    """A process of `troupe demo`."""

    command = "demo"


def code(answer: Any) -> str:
    """The code of the only error in an answer."""
    (error,) = answer["errors"]
    return str(error["extensions"]["code"])


CREATE = """mutation($id: ID!, $name: String!) {
  createProject(input: {id: $id, name: $name}) { project { name } userErrors { code } }
}"""
# One statement answers the first; nobody plans the second, so that it goes through resolvers.
READ = "query($name: String!) { projects(where: {name: {eq: $name}}) { nodes { name } } }"
RESOLVE = "query($id: ID!) { node(id: $id) { ... on Project { name tasks { totalCount } } } }"


@dataclass(frozen=True)
class Answered:
    """What a client of a load was answered, and when."""

    write: str | None
    """The name of the project that was to be made; none for a query."""
    came: float
    took: float
    status: int
    retry_after: str | None
    error: dict[str, Any] | None
    """The only error, if there is one."""
    is_right: bool
    """Whether it is the whole answer to what was asked, and exactly that."""

    @property
    def code(self) -> str | None:
        """The code of the error, if there is one."""
        return None if self.error is None else str(self.error["extensions"]["code"])


class Clients:
    """Clients of a server, each in a thread of its own until the block ends."""

    def work(self) -> list[Callable[[], None]]:
        """What each client does, until it finds `is_stopping`."""
        raise NotImplementedError

    @property
    def is_stopping(self) -> bool:
        """Whether the block has ended."""
        return self._stopping.is_set()

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=run) for run in self.work()]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


@dataclass
class Load(Clients):
    """Clients that make projects, one after the other, and note what they are answered.

    Those that read look each project up that they have made, in two ways.
    """

    server: Serving
    clients: int = 3
    token: str | None = None
    reads: bool = False
    answers: list[Answered] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """What else came back; only a server that ends may leave a request like that."""
    unanswered: set[str] = field(default_factory=set)
    """The names of the projects whose making was not answered at all."""

    def work(self) -> list[Callable[[], None]]:
        return [self._run] * self.clients

    @property
    def acknowledged(self) -> set[str]:
        """The names of the projects whose making was acknowledged."""
        return {one.write for one in list(self.answers) if one.write and one.is_right}

    @property
    def refused(self) -> Counter[str]:
        """The codes of the errors that were answered."""
        return Counter(one.code for one in list(self.answers) if one.code is not None)

    @property
    def slowest(self) -> float:
        """How long the slowest answer took, in seconds."""
        return max(one.took for one in list(self.answers))

    def right_after(self, moment: float) -> float:
        """Wait for a right answer after a moment, and say how long after it that came."""

        def came() -> list[float]:
            answers = list(self.answers)
            return [one.came - moment for one in answers if one.is_right and one.came > moment]

        return min(until(came))

    def more(self, count: int = 5) -> None:
        """Wait until so many more projects were made."""
        wanted = len(self.acknowledged) + count
        until(lambda: len(self.acknowledged) >= wanted or self.broken)
        assert self.broken == []

    def _run(self) -> None:
        headers = {
            "authorization": f"Bearer {self.token or self.server.token}",
            "accept": "application/graphql-response+json",
        }
        with client(headers=headers) as http:
            while not self.is_stopping:
                name = str(uuid.uuid4())
                made = {"project": {"name": name}, "userErrors": []}
                self._ask(http, CREATE, {"createProject": made}, name, id=name, name=name)
                # Whatever was answered: what is there later, if anything, is the project.
                if self.reads and name in self.acknowledged:
                    self._ask(http, READ, {"projects": {"nodes": [{"name": name}]}}, name=name)
                    whole = {"name": name, "tasks": {"totalCount": 0}}
                    self._ask(http, RESOLVE, {"node": whole}, id=name)

    def _ask(
        self, http: httpx.Client, query: str, right: Any, write: str | None = None, **variables: str
    ) -> None:
        began = time.monotonic()
        body = {"query": query, "variables": variables}
        try:
            response = http.post(f"{self.server.url}/graphql", json=body)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as failure:
            self.broken.append(repr(failure))
            if write is not None:
                self.unanswered.add(write)
            time.sleep(0.02)
            return
        came = time.monotonic()
        (error,) = answer.get("errors", [None])
        is_right = answer == {"data": right}
        if error is None and not is_right:
            self.broken.append(response.text)
        retry_after = response.headers.get("retry-after")
        self.answers.append(
            Answered(write, came, came - began, response.status_code, retry_after, error, is_right)
        )
        if error is not None:
            time.sleep(0.02)
