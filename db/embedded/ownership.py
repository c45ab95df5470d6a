"""The process that owns the server of a data folder, and those that are attached to it."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from db.embedded.clusters import is_alive, is_ready
from db.embedded.errors import EmbeddedError
from db.embedded.locks import FileLock

# How long a command waits for another process's server, and `serve` for a command, in seconds.
MAX_WAIT = 60.0


@dataclass(frozen=True)
class Owner:
    """The process that starts and stops the server, as written into the lock file."""

    pid: int
    serving: bool
    # Set when the server accepts connections.
    socket_dir: str | None = None


class Ownership:
    """The locks of a data folder.

    The owner holds ``owner.lock`` exclusively, from before its server starts until after it has
    stopped. Attached processes share ``attached.lock``. An owner that is a short command takes that
    lock exclusively before it stops the server, and so waits for them.
    """

    def __init__(self, data_dir: Path, cluster: Path) -> None:
        self._data_dir = data_dir
        self._cluster = cluster
        self._owner = FileLock(data_dir / "owner.lock")
        self._attached = FileLock(data_dir / "attached.lock")

    def close(self) -> None:
        """Release the locks."""
        self._attached.close()
        self._owner.close()

    def acquire(self, *, serving: bool, on_wait: Callable[[str], None]) -> Path | None:
        """Become the owner (None), or attach to the owner's server (the folder of its socket)."""
        started = time.monotonic()
        notified = False
        while True:
            if self._owner.try_exclusive():
                self._owner.write(json.dumps(asdict(Owner(os.getpid(), serving))))
                return None
            owner = self._read_owner()
            if serving and owner is not None and owner.serving:
                raise EmbeddedError(
                    f"A troupe server (process {owner.pid}) already runs on {self._data_dir}; stop "
                    f"it first, or set TROUPE_DATA_DIR to another folder"
                )
            if not serving and (socket_dir := self._try_attach()) is not None:
                return socket_dir
            waited = time.monotonic() - started
            who = f"process {owner.pid}" if owner is not None else "another process"
            if waited > MAX_WAIT:
                raise EmbeddedError(
                    f"The database in {self._data_dir} is still in use by {who} after "
                    f"{MAX_WAIT:.0f} seconds; wait for that process to end, or end it"
                )
            if waited > 1 and not notified:
                notified = True
                on_wait(f"Waiting for {who}, which uses the database in {self._data_dir}")
            time.sleep(0.05)

    def announce(self, socket_dir: Path, *, serving: bool) -> None:
        """As the owner, write down where the server accepts connections."""
        self._owner.write(json.dumps(asdict(Owner(os.getpid(), serving, str(socket_dir)))))

    def wait_for_attached(self, on_wait: Callable[[str], None]) -> None:
        """As the owner, wait until no process is attached, and let none attach any more."""
        notified = False
        while not self._attached.try_exclusive():
            if not notified:
                notified = True
                on_wait("Waiting for the other commands that use this database")
            time.sleep(0.05)

    def _try_attach(self) -> Path | None:
        if not self._attached.try_shared():
            return None  # the owner is about to stop
        # Read after the lock is taken: from then on only a serving owner can stop.
        owner = self._read_owner()
        if owner is not None and owner.socket_dir is not None:
            socket_dir = Path(owner.socket_dir)
            if is_ready(self._cluster, socket_dir):
                return socket_dir
        self._attached.release()
        return None

    def _read_owner(self) -> Owner | None:
        try:
            owner = Owner(**json.loads(self._owner.read()))
        except (TypeError, ValueError):  # caught while it is being written
            return None
        # A new owner takes the lock before it writes its own pid.
        return owner if is_alive(owner.pid) else None
