"""A streaming replica of a test's PostgreSQL, on the same machine."""

from __future__ import annotations

from pathlib import Path

from db.embedded import accounts, binaries
from tests import processes
from tests.processes import CLUSTER, Elsewhere


def let_replicate(primary: Elsewhere) -> None:
    """Let standbys follow a primary. This is done before it is started."""
    hba = primary.data_dir.with_name("hba.conf")
    hba.write_text(f"local replication all trust\n{hba.read_text('utf-8')}", encoding="utf-8")


def standby_of(primary: Elsewhere, folder: Path) -> Elsewhere:
    """A standby in a new folder, as a copy of a primary that runs."""
    folder.mkdir()
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o711)
    account = accounts.postgres_account(primary.data_dir / CLUSTER)
    account.take_ownership(data_dir)
    program = binaries.installed().bin_dir / "pg_basebackup"
    at = ["--host", str(primary.data_dir / "postgres-socket"), "--port=5432", "--username=troupe"]
    to = ["--pgdata", str(data_dir / CLUSTER), "--write-recovery-conf", "--checkpoint=fast"]
    done = account.run([program, *at, *to, "--wal-method=stream"])
    assert done.returncode == 0, done.stderr
    return Elsewhere(data_dir, primary.user, "troupe")


def replayed(standby: Elsewhere) -> str:
    """Up to where a standby has replayed the log."""
    return processes.sql(standby.data_dir, "SELECT pg_last_wal_replay_lsn()")
