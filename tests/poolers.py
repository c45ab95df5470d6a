"""A PgBouncer for the tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.browsers import missing
from tests.patience import PATIENCE, until

PGBOUNCER = shutil.which("pgbouncer")

CODE = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def pgbouncer() -> str:
    """Where PgBouncer is."""
    return PGBOUNCER or missing("Install PgBouncer (Debian and Ubuntu: apt-get install pgbouncer).")


def options_of_the_page() -> str:
    """What docs/scale.md writes into pgbouncer.ini."""
    page = (CODE / "docs" / "scale.md").read_text(encoding="utf-8")
    (found,) = [
        block.partition("```")[0]
        for block in page.split("```ini\n")[1:]
        if block.startswith("pool_mode = transaction")
    ]
    return found


class Bouncer:
    """A PgBouncer in front of a PostgreSQL, which is started again when it was killed."""

    def __init__(
        self, folder: Path, host: str, user: str, password: str, options: str, port: int = 5432
    ) -> None:
        """`host` and `port` are PostgreSQL's, the options are those of the section `pgbouncer`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "users").write_text(f'"{user}" "{password}"', encoding="utf-8")
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_file = {folder}/users\n"
            f"{options}\n",
            encoding="utf-8",
        )
        nobody = [] if os.geteuid() else ["setpriv", "--reuid=65534", "--regid=65534"]
        groups = ["--clear-groups"] if nobody else []
        self._command = [*nobody, *groups, str(PGBOUNCER), str(folder / "pgbouncer.ini")]
        self.start()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(self._command, stderr=subprocess.DEVNULL)
        until(self._listens)

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.wait(PATIENCE)
