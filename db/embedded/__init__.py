"""The embedded database: a PostgreSQL of our own, for where none is configured.

One process owns it: the first one that needs it. The owner starts PostgreSQL as its child, starts
it again should it die, and stops it when it ends; other processes attach to what is running.
Killing any of them loses no committed row and leaves nothing running.
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

if sys.platform != "win32":  # there are no file locks, accounts and sockets of this kind
    from db.embedded import accounts, binaries, clusters
    from db.embedded.logs import Log
    from db.embedded.ownership import Ownership
    from db.embedded.supervisor import Supervisor

__all__ = ["EmbeddedError", "Outage", "Server", "default_data_dir", "running"]

logger = logging.getLogger("troupe.postgres")


@dataclass(frozen=True)
class Server:
    """A running PostgreSQL, and how to reach it."""

    data_dir: Path
    """The folder of everything that is kept."""
    socket_dir: Path
    """The folder of its socket, PostgreSQL's ``host``; it does not listen to the network."""
    bin_dir: Path
    """The folder of PostgreSQL's programs, such as ``psql``."""
    owned: bool
    """Whether this process started it and will stop it."""
    _pid: Callable[[], int | None] = field(repr=False)
    _outage: Callable[[], Outage | None] = field(repr=False, default=lambda: None)

    @property
    def url(self) -> str:
        """SQLAlchemy's URL of the database ``troupe``, as the role of that name."""
        # The port only names the socket's file; it is given so that PGPORT does not matter.
        host = quote(str(self.socket_dir), safe="")
        return f"postgresql+asyncpg://troupe@/troupe?host={host}&port=5432"

    @property
    def pid(self) -> int | None:
        """The postmaster's pid, or None while it is not running."""
        return self._pid()

    @property
    def outage(self) -> Outage | None:
        """Why it does not run, if this process started it and it ended."""
        return self._outage()


def default_data_dir() -> Path:
    """Where the data lies unless told otherwise: ``/var/lib/troupe`` for root, or in the home."""
    if sys.platform != "win32" and os.geteuid() == 0:
        return binaries.SYSTEM_DIR
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    if given.is_absolute():  # the specification has other values ignored
        return given / "troupe"
    try:
        return Path.home() / ".local" / "share" / "troupe"
    except RuntimeError as error:
        raise EmbeddedError(
            "There is no home folder to keep the database in; set TROUPE_DATA_DIR"
        ) from error


@contextmanager
def running(
    data_dir: Path | None = None,
    *,
    serving: bool = False,
    settings: Mapping[str, str] = MappingProxyType({}),
    on_wait: Callable[[str], None] = logger.warning,
) -> Iterator[Server]:
    """Have PostgreSQL running inside the block: ours, or the one of the process that has it.

    A process that is ``serving`` is always the owner and stops PostgreSQL at once when it ends; a
    command that is the owner waits for those who attached. ``settings`` are PostgreSQL's, and only
    have an effect for the owner. ``on_wait`` gets one sentence when there is something to wait for.
    EmbeddedError says what went wrong, for the user to read.
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
                f"The embedded PostgreSQL cannot be used: {error.strerror or error}{where}"
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
    # The programs that we run ourselves are the wheel's, whose folder is as trusted as our own
    # code, never a copy that was made for another account.
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
    # As root the folder stays root's, so that PostgreSQL's account cannot exchange the locks, the
    # log or the programs in it; others may pass through, as that account must, but see nothing.
    accounts.make_folders(data_dir, 0o700 if account.user is None else 0o711)


def _refuse_unreachable(data_dir: Path, existing: Path, account: "accounts.Account") -> None:
    blocked = account.blocked_at(existing)
    if blocked is not None:
        raise EmbeddedError(
            f"The database cannot be kept in {data_dir}: the account {account.name}, which "
            f"PostgreSQL runs as, cannot enter {blocked}; set TROUPE_DATA_DIR to a folder that it "
            f"can reach, such as {default_data_dir()}"
        )
