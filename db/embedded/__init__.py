"""The embedded PostgreSQL, which is used if no other server is configured.

The first process that needs it owns it: it starts PostgreSQL as its child, restarts it if it ends,
and stops it in the end. Other processes attach to the running server. If any of these processes is
killed, no committed row is lost and no process is left running.
"""

import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

from db.embedded.errors import EmbeddedError, Outage

if sys.platform != "win32":  # which lacks these file locks, accounts and sockets
    from db.embedded import accounts, binaries, clusters
    from db.embedded.logs import Log
    from db.embedded.ownership import Ownership
    from db.embedded.supervisor import Supervisor

__all__ = ["EmbeddedError", "Outage", "Server", "default_data_dir", "has_database", "running"]

logger = logging.getLogger("troupe.postgres")


@dataclass(frozen=True)
class Server:
    """A running embedded PostgreSQL, and how to connect to it."""

    data_dir: Path
    """The folder of the data, logs and locks."""
    socket_dir: Path
    """The folder of its Unix socket, PostgreSQL's ``host``; it has no TCP port."""
    bin_dir: Path
    """The folder of PostgreSQL's programs, such as ``psql``."""
    owned: bool
    """Whether this process started it and will stop it."""
    _pid: Callable[[], int | None] = field(repr=False)
    _outage: Callable[[], Outage | None] = field(repr=False, default=lambda: None)

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database ``troupe``, as the role of that name."""
        # The port is part of the socket's name; without it here, PGPORT would apply.
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql+asyncpg://troupe@/troupe?host={host}&port=5432"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or None while it is not running."""
        return self._pid()

    @property
    def outage(self) -> Outage | None:
        """Why it is not running, if this process started it."""
        return self._outage()


def default_data_dir() -> Path:
    """The default data folder: ``/var/lib/troupe`` for root, otherwise in the home folder."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return binaries.SYSTEM_DIR
    base = Path(os.environ.get("XDG_DATA_HOME", ""))
    if base.is_absolute():  # the specification says to ignore other values
        return base / "troupe"
    try:
        return Path.home() / ".local" / "share" / "troupe"
    except RuntimeError as error:
        raise EmbeddedError(
            "There is no home folder to keep the database in; set TROUPE_DATA_DIR"
        ) from error


def has_database(data_dir: Path | None = None) -> bool:
    """Whether a data folder, by default the default one, has a database."""
    if sys.platform == "win32":
        return False
    folder = f"postgres-{binaries.installed().major}"
    return os.path.isdir((data_dir or default_data_dir()).expanduser().resolve() / folder)


@contextmanager
def running(
    data_dir: Path | None = None,
    *,
    serving: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
    on_wait: Callable[[str], None] = logger.warning,
) -> Iterator[Server]:
    """Run PostgreSQL inside the block, or attach to the one that another process runs.

    A ``serving`` process is always the owner and stops PostgreSQL when it ends; a command that is
    the owner first waits for the attached processes. ``settings`` are PostgreSQL's; only the
    owner's are used. ``on_wait`` is called with a message when the process has to wait. Raises
    EmbeddedError with a message for the user.
    """
    if sys.platform == "win32":
        raise EmbeddedError(
            "There is no embedded PostgreSQL on Windows; set TROUPE_DATABASE_URL to use a "
            "PostgreSQL of your own"
        )
    with ExitStack() as stack:
        try:
            server = _enter(stack, data_dir or default_data_dir(), serving, settings, on_wait)
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise EmbeddedError(
                f"The embedded PostgreSQL cannot be used: {error.strerror or error}{where};"
                " TROUPE_DATA_DIR can name another folder for its data"
            ) from error
        yield server


def _enter(
    stack: ExitStack,
    data_dir: Path,
    serving: bool,
    settings: Mapping[str, str],
    on_wait: Callable[[str], None],
) -> Server:
    installation = binaries.installed()
    data_dir = data_dir.expanduser().resolve()
    folder = data_dir / f"postgres-{installation.major}"
    if not os.path.exists(data_dir / "owner.lock"):
        _make_data_dir(data_dir, accounts.postgres_account(folder))
    ownership = Ownership(data_dir, folder)
    stack.callback(ownership.close)
    socket_dir = ownership.acquire(serving=serving, on_wait=on_wait)
    if socket_dir is not None:
        return Server(
            data_dir,
            socket_dir,
            installation.bin_dir,
            owned=False,
            _pid=lambda: clusters.postmaster_pid(folder),
        )

    account = accounts.postgres_account(folder)
    _refuse_unreachable(data_dir, data_dir, account)
    log = Log(data_dir / "postgres.log")
    stack.callback(log.close)
    cluster = clusters.Cluster(
        folder, account, binaries.reachable(installation, account).bin_dir, log
    )
    cluster.initialize(sync=settings.get("fsync") != "off")
    socket_dir = stack.enter_context(clusters.socket_folder(data_dir, account))
    supervisor = Supervisor(cluster, cluster.command(socket_dir, settings), socket_dir)
    stack.callback(supervisor.stop)
    supervisor.start()
    supervisor.wait_until_ready(on_wait)
    ownership.announce(socket_dir, serving=serving)
    if not serving:
        stack.callback(ownership.wait_for_attached, on_wait)
    # This process runs the programs of the wheel, which it trusts like its own code, and not the
    # copy that was made for another account.
    return Server(
        data_dir,
        socket_dir,
        installation.bin_dir,
        owned=True,
        _pid=lambda: supervisor.pid,
        _outage=lambda: supervisor.outage,
    )


def _make_data_dir(data_dir: Path, account: "accounts.Account") -> None:
    existing = next(path for path in (data_dir, *data_dir.parents) if os.path.isdir(path))
    _refuse_unreachable(data_dir, existing, account)
    # For root the folder belongs to root, so that PostgreSQL's account cannot replace the locks,
    # the log or the programs in it. Mode 711 lets that account reach its cluster, but not list it.
    accounts.make_folders(data_dir, 0o700 if account.user is None else 0o711)


def _refuse_unreachable(data_dir: Path, existing: Path, account: "accounts.Account") -> None:
    blocked = account.blocked_at(existing)
    if blocked is not None:
        raise EmbeddedError(
            f"The database cannot be kept in {data_dir}: the account {account.name}, which "
            f"PostgreSQL runs as, cannot enter {blocked}; set TROUPE_DATA_DIR to a folder that it "
            f"can reach, such as {default_data_dir()}"
        )
