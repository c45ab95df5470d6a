"""What docs/production.md says, done: a database, a server, proxies with TLS, and a backup."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

import db
from db import migrate
from db.embedded import binaries
from graph.execution.responses import STATUSES
from graph.server.requests import HTTPError
from tests import processes, raw
from tests.browsers import missing
from tests.event_streams import Asking, Event, Events
from tests.following import numbering
from tests.patience import PATIENCE, becomes, until
from tests.processes import CODE, Elsewhere, Ended, Serving, code, troupe, troupe_here

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has many loopback addresses")

PAGE = (CODE / "docs" / "production.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PASSWORDS = {
    "troupe_owner": "the-password-of-the-owner",
    "troupe_server": "the-password-of-the-server",
}
LIMITS: dict[str, Any] = {"max_cost": 10, "rate_burst": 10, "rate_per_second": 1}
ME = "{ me { username } }"
ANN = {"data": {"me": {"username": "ann"}}}


def block(language: str, begins: str) -> str:
    """The one block of a language that begins like this."""
    (found,) = [text for name, text in BLOCKS if name == language and text.startswith(begins)]
    return found


def commands(begins: str) -> list[list[str]]:
    """The words after `troupe` of each such line in the shell block that begins like this."""
    lines = [shlex.split(line) for line in block("sh", begins).splitlines()]
    return [line[line.index("troupe") + 1 :] for line in lines if "troupe" in line]


def file_of(text: str) -> dict[str, str]:
    """The variables of a file of them, as a shell and systemd read it."""
    return dict(word.split("=", 1) for word in shlex.split(text))


@dataclass
class Place:
    """A PostgreSQL that is set up as the page says, and a certificate for everything."""

    folder: Path
    elsewhere: Elsewhere
    token: str = ""

    @property
    def address(self) -> str:
        """Where PostgreSQL listens."""
        return str(make_url(self.elsewhere.url()).host)

    @property
    def certificate(self) -> Path:
        """The certificate, which vouches for itself."""
        return self.folder / "certificate.pem"

    @contextlib.contextmanager
    def settings(self, role: str, **different: Any) -> Iterator[dict[str, Any]]:
        """Troupe's settings, from the page's file; the other variables are in the environment."""
        given = file_of(block("sh", "TROUPE_MODE"))
        assert given.pop("PGPASSWORD") == PASSWORDS["troupe_server"]
        assert given.pop("PGSSLROOTCERT").startswith("/etc/ssl/")
        assert given.pop("TROUPE_DRAIN_SECONDS") == "10"
        url = make_url(given["TROUPE_DATABASE_URL"])
        assert (url.username, url.database) == ("troupe_server", "troupe")
        # The PostgreSQL that comes along, and its programs, are built without TLS.
        plain = {"host": self.address, "query": {"sslmode": "disable"}}
        url = url.set(username=role, **plain | different)
        given["TROUPE_DATABASE_URL"] = url.render_as_string()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PGPASSWORD", PASSWORDS[role])
            patch.setenv("PGSSLROOTCERT", str(self.certificate))
            patch.setenv("PATH", f"{binaries.installed().bin_dir}{os.pathsep}{os.environ['PATH']}")
            yield {name.removeprefix("TROUPE_").lower(): value for name, value in given.items()}

    def owner(self, *words: str, **different: Any) -> str:
        """What a command of the owner's prints."""
        # What programs of PostgreSQL's print goes past this process's own output.
        start = troupe if words[0].startswith("pg_") else troupe_here
        with self.settings("troupe_owner", **different) as settings:
            return start(*words, **settings).printed

    @contextlib.contextmanager
    def serving(self, database: str = "troupe", **more: Any) -> Iterator[Serving]:
        """A server, in the role that may only change rows."""
        with (
            processes.place() as folder,
            self.settings("troupe_server", database=database) as settings,
            Serving(folder, console="false", **settings | more) as server,
        ):
            yield server.ready()
            assert server.stop().status == 0

    def psql(self, text: str) -> None:
        """Run a file by psql, as a superuser."""
        file = self.folder / "file.sql"
        file.write_text(text, encoding="utf-8")
        command = processes.psql(self.elsewhere.data_dir, "")[:-2]
        command += ["-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", str(file)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr

    def delete(self, project: str) -> None:
        """Delete a project with its history, as if it had never been there."""
        self.psql(
            "\\connect troupe\n"
            f"DELETE FROM projects WHERE name = '{project}';\n"
            "DELETE FROM events WHERE project_id::text = (SELECT entity_id FROM events"
            f" WHERE action = 'DELETED' AND before ->> 'name' = '{project}');\n"
        )

    def certify(self, name: str = "certificate") -> Path:
        """Make a certificate."""
        file = self.folder / f"{name}.pem"
        names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
        command = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-subj", "/CN=localhost"]
        command += ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", names]
        command += ["-keyout", str(file.with_suffix(".key")), "-out", str(file)]
        subprocess.run(command, check=True, capture_output=True)
        return file


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """The database of the page, with its tables and the first administrator."""
    with processes.place() as folder:
        place = Place(folder, Elsewhere(folder / "data"))
        with place.elsewhere.running():
            place.certify()
            # The cluster comes with a database of this name.
            place.psql("DROP DATABASE troupe;\n" + block("sql", "CREATE ROLE"))
            migrated, made, issued = (place.owner(*words) for words in commands("set -a"))
            assert migrated == f"The database is at the migration {migrate.head()}.\n"
            assert made.startswith("Created the user ann.")
            place.token = issued.strip()
            yield place


@pytest.fixture(scope="module")
def served(place: Place) -> Iterator[Serving]:
    """A server that leaves a viewer without a token some fifty requests, and few more."""
    with place.serving(**LIMITS | {"rate_burst": 2000}) as server:
        yield server


# The start


def test_a_server_of_the_page_answers_the_token_of_the_page(place: Place, served: Serving) -> None:
    assert served.ask(ME, place.token) == ANN
    assert "troupe_" not in served.out
    made = served.ask(CREATE, place.token, name="Kept")
    assert made["data"]["createProject"]["userErrors"] == []


CREATE = (
    "mutation($name: String!)"
    " { createProject(input: {name: $name}) { project { id name } userErrors { message } } }"
)


def test_the_servers_role_changes_no_table(place: Place) -> None:
    with place.settings("troupe_server") as settings:
        for statement in ("DROP TABLE users", "CREATE TABLE mine (id int)"):
            done = troupe("psql", "-c", statement, **settings)
            assert done.status == 1
            assert re.match("ERROR:  (must be owner of|permission denied for)", done.err)


def test_the_servers_role_imports_and_exports(place: Place, tmp_path: Path) -> None:
    def run(*words: str) -> str:
        with place.settings("troupe_server") as settings:
            return troupe_here(*words, **settings).printed

    plan, chats, file = CODE / "examples/plan.json", CODE / "examples/chats.json", tmp_path / "file"
    done = run("import", "taskmaster", str(plan), "--project", "Station", "--owner", "ann")
    assert done.startswith("Added 2 projects, 19 tasks and 17 dependencies.")
    assert run("import", str(chats), "--project", "Garden", "--owner", "ann").startswith("Added 4")
    done = run("export", "Garden", str(file))
    assert done.startswith("Exported 0 tasks, 4 conversations, 16 messages")
    words = ("import", str(file), "--owner", "ann")
    assert run(*words) == (
        "Nothing was added: 1 project, 0 tasks, 0 dependencies, 4 conversations and 16 messages are"
        " already there.\n"
    )
    place.delete("Garden")

    assert run(*words) == (
        "Added 1 project, 0 tasks, 0 dependencies, 4 conversations and 16 messages.\n"
    )

    assert run("export", "Garden", str(tmp_path / "again")) == done
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


async def test_with_tls_postgresql_has_to_be_the_one_in_the_url(place: Place) -> None:
    given = file_of(block("sh", "TROUPE_MODE"))
    mode = make_url(given["TROUPE_DATABASE_URL"]).query
    assert mode == {"sslmode": "verify-full"}

    async def migrated(host: str, **query: Any) -> Ended:
        with place.settings("troupe_owner", host=host, port=port, query=query) as settings:
            os.environ["PGSSLROOTCERT"] = str(known)
            return await asyncio.to_thread(troupe_here, "migrate", **settings)

    known = place.certificate
    async with encrypted(place) as port:
        assert (await migrated("127.0.0.1", **mode)).clean
        assert "not valid for '127.0.0.2'" in (await migrated("127.0.0.2", **mode)).refusal
        assert (await migrated("127.0.0.2", sslmode="require")).clean
        known = place.certify("another")
        assert "certificate verify failed" in (await migrated("127.0.0.1", **mode)).refusal


@contextlib.asynccontextmanager
async def encrypted(place: Place) -> AsyncIterator[int]:
    """A port where PostgreSQL is reached by TLS only, as with `hostssl` in its pg_hba.conf."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(place.certificate, place.certificate.with_suffix(".key"))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
        assert await reader.readexactly(8) == bytes.fromhex("0000000804d2162f")
        writer.write(b"S")
        with contextlib.suppress(OSError):  # as when the client does not like the certificate
            await writer.start_tls(context)
            there = await asyncio.open_connection(place.address, 5432)
            await asyncio.gather(carried(reader, there[1]), carried(there[0], writer))
        writer.close()

    async def carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(connected, "0.0.0.0", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "troupe.service"
    program = "/opt/troupe/.venv/bin/troupe"
    text = block("ini", "[Unit]")
    assert program in text
    unit.write_text(text.replace(program, shutil.which("true") or ""), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


# Limits


def test_the_limits_are_refused_as_the_page_says() -> None:
    rows = re.findall(r"^\| [^|]+ \| `([A-Z_]+)` \| ([\d, ]+) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    named = [name for _, _, names in rows for name in re.findall(r"TROUPE_(\w+)", names)]
    named += re.findall(r"TROUPE_(LOGIN_\w+|MAX_(?:SOCKETS|EVENT_STREAMS|SUBSCRIPTIONS)\w*)", PAGE)
    assert {name.lower() for name in named} == {*processes.LIMITS, "max_body_bytes"}
    for code_of, statuses, _ in rows:
        sizes = {status for status, name in HTTPError.CODES.items() if name == code_of}
        answered = {STATUSES[code_of]} if code_of in STATUSES else sizes or {400}
        assert {int(status) for status in statuses.split(", ")} == answered


async def test_a_process_has_as_many_connections_as_the_page_says(
    database: db.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Any] = [engine.pool for engine in (database.reader, database.writer)]
    assert [(pool.size(), pool._max_overflow) for pool in pools] == [(10, 0), (10, 0)]
    assert database._prepared.size == database._by_key.size == 10
    assert "up to 42 connections to PostgreSQL: 10 for queries that are one statement" in PAGE
    # Besides the pools, one numbers events, and one follows them.
    opened: list[Any] = []
    open_one = database._open

    async def open_another(**options: Any) -> Any:
        opened.append(await open_one(**options))
        return opened[-1]

    monkeypatch.setattr(database, "_open", open_another)
    async with numbering(database):
        await database.follower.started()
        await becomes(lambda: len(opened) == 42 - 40)
        assert not any(connection.is_closed() for connection in opened)


# Proxies


NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {page}
}}
"""
CADDY = """
{{
    admin off
    auto_https disable_redirects
    skip_install_trust
}}
{page}
"""


@contextlib.contextmanager
def nginx(place: Place, folder: Path, port: int, upstream: str) -> Iterator[None]:
    """The page's nginx, on another port and in front of another server."""
    page = replaced(
        block("nginx", "map"),
        {
            "127.0.0.1:8000": upstream,
            "listen 443": f"listen 127.0.0.1:{port}",
            "/etc/ssl/troupe/certificate.pem": str(place.certificate),
            "/etc/ssl/troupe/key.pem": str(place.certificate.with_suffix(".key")),
        },
    )
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, page=page), encoding="utf-8")
    with running(["nginx", "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"], port):
        yield


@contextlib.contextmanager
def caddy(place: Place, folder: Path, port: int, upstream: str) -> Iterator[None]:
    """The page's Caddy, with a certificate that is there already."""
    key = place.certificate.with_suffix(".key")
    page = replaced(
        block("caddy", "troupe"),
        {
            "127.0.0.1:8000": upstream,
            "troupe.example.org {": f"https://localhost:{port} {{\n\ttls {place.certificate} {key}",
        },
    )
    (folder / "Caddyfile").write_text(CADDY.format(page=page), encoding="utf-8")
    command: list[str | Path] = [
        "caddy",
        "run",
        "--adapter",
        "caddyfile",
        "--config",
        folder / "Caddyfile",
    ]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(folder))
        with running(command, port):
            yield


def replaced(text: str, words: dict[str, str]) -> str:
    """A text with other words in the place of some, each of which it has once."""
    for old, new in words.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def running(command: list[str | Path], port: int) -> Iterator[None]:
    """A proxy that takes connections."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            until(lambda: process.poll() is not None or takes_connections(port))
            assert process.poll() is None, process.stdout and process.stdout.read().decode()
            yield
        finally:
            process.terminate()


def takes_connections(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


Proxy = Any


@pytest.fixture(params=[nginx, caddy])
def proxy(request: pytest.FixtureRequest) -> Proxy:
    """Each proxy of the page."""
    name = request.param.__name__
    if shutil.which(name) is None:
        missing(f"Install {name} (Debian and Ubuntu: apt-get install {name}).")
    return request.param


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def test_behind_the_proxy_of_the_page(place: Place, served: Serving, proxy: Proxy) -> None:
    port = free_port()
    upstream = served.url.removeprefix("http://")
    with processes.place() as folder, proxy(place, folder, port, upstream):
        known = ssl.create_default_context(cafile=str(place.certificate))

        url = f"https://localhost:{port}"
        with client_of(url, "127.0.0.1", known) as http:
            # Caddy has to find the server healthy first.
            until(lambda: http.get("/readyz").status_code == 200)
            response = asked(http, ME, f"Bearer {place.token}")
            assert response.json() == ANN
            assert response.headers["strict-transport-security"] == "max-age=31536000"
            assert len(response.headers["x-request-id"]) >= 32
            line = f'"request":"{response.headers["x-request-id"]}"'
            until(lambda: line in served.out)
            # What is too large for the server reaches it, and is refused in JSON.
            large = asked(http, "x" * (2**20 + 1))
            assert (large.status_code, code(large.json())) == (413, "TOO_LARGE")
            assert asked(http, "x" * (2**21 + 1)).status_code == 413

        # Each address has its own rate, and none can claim to be another.
        with client_of(url, "127.0.1.1", known) as greedy:
            forged = {"x-forwarded-for": "198.51.100.7, 127.0.1.2"}
            forged["connection"] = "keep-alive, x-forwarded-for"
            until(lambda: said(greedy, **forged) == "RATE_LIMITED")
            assert said(greedy) == "RATE_LIMITED"
        for another in ("127.0.1.2", "127.0.1.3"):
            with client_of(url, another, known) as modest:
                assert said(modest) == "ok"


def client_of(url: str, address: str, known: ssl.SSLContext | bool = False) -> httpx.Client:
    """A client at an address."""
    transport = httpx.HTTPTransport(local_address=address, verify=known)
    return httpx.Client(base_url=url, transport=transport, trust_env=False, timeout=PATIENCE)


def asked(http: httpx.Client, query: str, authorization: str = "") -> httpx.Response:
    """What is answered to a query."""
    headers = {"authorization": authorization}
    return http.post("/graphql", json={"query": query}, headers=headers)


def said(http: httpx.Client, **headers: str) -> str:
    """The code of what is answered to somebody without a token."""
    answer = http.post("/graphql", json={"query": "{ __typename }"}, headers=headers).json()
    return code(answer) if "errors" in answer else "ok"


@contextlib.contextmanager
def behind(place: Place, proxy: Proxy, **settings: Any) -> Iterator[int]:
    """The port of a proxy in front of a server that refuses nobody for asking often."""
    port = free_port()
    with (
        place.serving(rate_per_second=10**6, rate_burst=10**6, **settings) as server,
        processes.place() as folder,
        proxy(place, folder, port, server.url.removeprefix("http://")),
    ):
        with client_of(f"https://localhost:{port}", "127.0.0.1") as http:
            until(lambda: http.get("/readyz").status_code == 200)
        yield port


def exchanged(port: int, *pieces: bytes) -> bytes:
    """What a proxy answers over one connection to pieces that are sent as they are."""
    context = ssl._create_unverified_context()
    received = b""
    with (
        contextlib.suppress(OSError),  # it may hang up before it has read all, or never
        socket.create_connection(("127.0.0.1", port), timeout=3) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        for piece in pieces:
            connection.sendall(piece)
        while data := connection.recv(65536):
            received += data
    return received


def test_behind_the_proxy_one_request_has_one_answer(place: Place, proxy: Proxy) -> None:
    wrong = {}
    with behind(place, proxy) as port, client_of(f"https://localhost:{port}", "127.0.0.1") as ann:
        for kind, (request, expected) in raw.REQUESTS.items():
            received = exchanged(port, request, raw.LAST)
            found = raw.statuses(received)
            # The proxy may refuse what the server takes, and put right what the server refuses;
            # but where both take it, it ends at the same place.
            is_refused = len(found) == 1 and found[0] in raw.REFUSALS
            ends = found[: len(expected)] == expected or is_refused
            is_right = expected == raw.CLOSED or (ends and b"inner" not in received)
            # What another user gets next is an answer to what they ask.
            if not is_right or asked(ann, ME, f"Bearer {place.token}").json() != ANN:
                wrong[kind] = found, received

    assert wrong == {}


def test_behind_the_proxy_nobody_chooses_what_anothers_token_asks(
    place: Place, proxy: Proxy
) -> None:
    # The beginning of a request, which would go on with what the next user sends.
    begun = b"GET /graphql?query={inner:me{username}} HTTP/1.1\r\nHost: a\r\nX-A: "
    wrong = []
    with behind(place, proxy) as port, client_of(f"https://localhost:{port}", "127.0.0.1") as ann:
        for offer in (b"h2c", b"TLS/1.2", b"x", b"websocket"):
            # What takes the server a moment, in which all of the body is sent.
            head = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\n"
            head += b"Upgrade: %s\r\n" % offer
            # What arrives together with a head may be treated in one way, and what arrives later in
            # another. Empty lines before a request are nothing.
            for lines in range(0, 60_000, 10_000):
                exchanged(port, raw.whole(head, b"\r\n" * lines + begun))
                answer = asked(ann, ME, f"Bearer {place.token}").json()
                if answer != ANN:
                    wrong.append((offer, lines, answer))

    assert wrong == []


async def test_the_proxy_of_the_page_passes_a_websocket_on(place: Place, proxy: Proxy) -> None:
    heads: list[bytes] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"get /readyz" in head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        else:
            heads.append(head)
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n"
                b"connection: upgrade\r\n\r\n"
            )
            writer.write((await reader.readexactly(4))[::-1])
        await writer.drain()
        writer.close()

    port = free_port()
    known = ssl.create_default_context(cafile=str(place.certificate))
    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        upstream = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(processes.place())
            await asyncio.to_thread(stack.enter_context, proxy(place, folder, port, upstream))
            reader, writer = await asyncio.open_connection("localhost", port, ssl=known)
            writer.write(
                b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 101 ")
            writer.write(b"ping")
            assert await reader.readexactly(4) == b"gnip"
            writer.close()
    (head,) = heads
    assert b"\r\nupgrade: websocket\r\n" in head
    assert b"\r\nconnection: upgrade\r\n" in head
    assert b"\r\nsec-websocket-protocol: graphql-transport-ws\r\n" in head


async def test_behind_the_proxy_events_arrive_at_once(place: Place, proxy: Proxy) -> None:
    follow = "subscription { events { event { action entityType } } }"
    changed = {"event": {"action": "CREATED", "entityType": "Project"}}

    async def created(ann: Asking, events: Events) -> Any:
        created, _ = await ann.ask(CREATE, variables={"name": "While somebody looks"})
        assert created.data["data"]["createProject"]["userErrors"] == []
        return (await events.next() or nothing).data

    nothing = Event("nothing")
    with contextlib.ExitStack() as stack:
        server = behind(place, proxy, max_event_streams_per_viewer=4)
        port = await asyncio.to_thread(stack.enter_context, server)
        for _ in range(4):  # the server learns of each client that has left
            async with Asking.of(f"https://localhost:{port}", place.token, verify=False) as ann:
                async with ann.stream(follow) as events:
                    first = (await events.next() or nothing).data
                    assert first == {"data": {"events": {"event": None}}}
                    assert await created(ann, events) == {"data": {"events": changed}}
                    headers = events.response.headers
                    assert headers["content-type"] == "text/event-stream; charset=utf-8"
                    assert "content-encoding" not in headers
                stream = await ann.reserve()
                assert (await ann.send(stream, "1", follow)).status_code == 202
                async with ann.stream(params={"token": stream}) as events:
                    assert (await events.next() or nothing).data["id"] == "1"
                    payload = {"data": {"events": changed}}
                    assert await created(ann, events) == {"id": "1", "payload": payload}
        await asyncio.to_thread(stack.close)


def test_only_a_trusted_proxy_says_for_whom_it_asks(place: Place) -> None:
    with place.serving(trusted_proxies="127.0.0.9", **LIMITS) as server:

        def codes(address: str, forwarded: str) -> set[str]:
            """What is answered to requests that are each said to be of somebody else."""
            with client_of(server.url, address) as http:
                return {
                    said(http, **{"x-forwarded-for": forwarded.format(number)})
                    for number in range(14)
                }

        assert codes("127.0.0.9", "198.51.100.{}") == {"ok"}
        assert codes("127.0.0.1", "198.51.100.{}") == {"ok", "RATE_LIMITED"}
        # A trusted proxy tells the truth only of who came to it.
        assert codes("127.0.0.9", "198.51.100.{}, 203.0.113.5") == {"ok", "RATE_LIMITED"}


# Backups


def test_a_backup_of_the_page_is_restored_by_the_page(place: Place) -> None:
    everything = (
        "{ me { username } users { nodes { id username } } projects { nodes { id name } } }"
    )
    (dump,) = commands("troupe pg_dump")
    (restore,) = commands("troupe pg_restore")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place.folder)
        with place.serving() as server:
            server.ask(CREATE, place.token, name="Before the backup")
            before = server.ask(everything, place.token)
            assert place.owner(*dump) == ""
            server.ask(CREATE, place.token, name="After the backup")
            assert server.ask(everything, place.token) != before
        _, _, made = block("sql", "CREATE ROLE").partition("CREATE DATABASE")
        words = {"DATABASE troupe ": "DATABASE restored ", "connect troupe": "connect restored"}
        text = f"CREATE DATABASE{made}"
        for old, new in words.items():
            text = text.replace(old, new)
        place.psql(text)
        assert place.owner(*restore, database="restored") == ""
    with place.serving("restored") as server:
        assert server.ask(everything, place.token) == before
        assert "errors" not in server.ask(CREATE, place.token, name="After the restoration")
    heads = "SELECT version_num FROM alembic_version"
    with place.settings("troupe_owner", database="restored") as settings:
        assert troupe("psql", "-Atc", heads, **settings).printed == f"{migrate.head()}\n"


def test_the_database_that_comes_along_is_backed_up_and_restored(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (dump,) = commands("troupe pg_dump")
    (restore,) = commands("TROUPE_DATA_DIR")
    monkeypatch.chdir(tmp_path)
    with processes.place() as folder:
        processes.copied(made[0], folder / "data")
        assert troupe(*dump, data_dir=folder / "data").clean
        assert troupe(*restore, data_dir=folder / "restored").clean
        tokens = "SELECT version_num, token_hash FROM access_tokens, alembic_version"
        kept, restored = (processes.stored(folder / name, tokens) for name in ("data", "restored"))
        assert kept.startswith(f"{migrate.head()}|")
        assert restored == kept


def test_a_server_says_when_its_database_is_at_another_migration(place: Place) -> None:
    with place.serving() as server:
        place.psql("\\connect troupe\nUPDATE alembic_version SET version_num = '9999'")
        response = server.get("/readyz")
        place.psql(f"\\connect troupe\nUPDATE alembic_version SET version_num = '{migrate.head()}'")
        assert response.status_code == 503
        assert response.json() == {"status": "unavailable", "reason": "migrations"}
