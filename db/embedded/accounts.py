"""The operating system's account that PostgreSQL runs as, and the folders it can reach."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from db.embedded.errors import EmbeddedError

# PostgreSQL refuses to run as root. An account of our name is preferred, because `nobody` may be
# shared with other services; none is ever created.
UNPRIVILEGED = ("troupe", "nobody")

# Nothing of our own environment reaches PostgreSQL: PGPORT, PGDATA and PGOPTIONS would change what
# it does, LANG the language of the messages we look for, TZ what initdb writes down.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """Who PostgreSQL runs as; ``user`` and ``group`` are set where that is not ourselves."""

    name: str
    uid: int
    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> Sequence[int] | None:
        """No further groups for another account, and for ourselves those we have."""
        return None if self.user is None else ()

    def run(self, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        """Run a short program as this account and keep what it prints."""
        try:
            return subprocess.run(
                arguments,
                user=self.user,
                group=self.group,
                extra_groups=self.extra_groups,
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
            )
        except OSError as error:
            # 126 is what a shell answers for a program that is there and cannot be run. It is
            # also the answer where the system does not let us become that account.
            return subprocess.CompletedProcess(arguments, 126, b"", str(error).encode())

    def blocked_at(self, folder: Path) -> Path | None:
        """The first folder on the way to ``folder`` that the account cannot enter, if any."""
        way = [*reversed(folder.parents), folder]
        if self.user is None:
            return next((step for step in way if not os.access(step, os.X_OK)), None)
        # Tried as that account, because mode bits are not the whole truth (ACLs, mounts, root's
        # own capabilities).
        enter = 'for step; do cd "$step" 2>/dev/null || { printf %s "$step"; exit 1; }; done'
        tried = self.run(["/bin/sh", "-c", enter, "sh", *way])
        if tried.returncode == 126:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and no program can be started as the account "
                f"{self.name} ({tried.stderr.decode(errors='replace')}); set TROUPE_DATABASE_URL "
                f"to use a PostgreSQL of your own"
            )
        return Path(os.fsdecode(tried.stdout)) if tried.returncode else None

    def give(self, folder: Path) -> None:
        """Make a folder that we just made this account's own."""
        if self.user is not None and self.group is not None:
            os.chown(folder, self.user, self.group, follow_symlinks=False)


def postgres_account(cluster: Path) -> Account:
    """The account for the cluster: as root an unprivileged one, otherwise our own."""
    owner = cluster.stat().st_uid if os.path.exists(cluster) else None
    candidates = _unprivileged() if os.geteuid() == 0 else [_ourselves()]
    if not candidates:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no account {' or '.join(UNPRIVILEGED)} "
            f"for it; run troupe as an ordinary user, or set TROUPE_DATABASE_URL"
        )
    for account in candidates:
        if owner in (None, account.uid):
            return account
    raise EmbeddedError(
        f"The database in {cluster} belongs to the account {_name(owner)}, but would run as "
        f"{candidates[0].name}; run troupe as {_name(owner)}, or set TROUPE_DATA_DIR to another "
        f"folder"
    )


def make_folders(folder: Path, mode: int) -> None:
    """Make a folder and the missing ones above it; those that exist are left as they are."""
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # whatever the umask took away


def _ourselves() -> Account:
    return Account(name=_name(os.geteuid()), uid=os.geteuid())


def _unprivileged() -> list[Account]:
    found = []
    for name in UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        found.append(Account(name, entry.pw_uid, entry.pw_uid, entry.pw_gid))
    return found


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid if uid is not None else -1).pw_name
    except KeyError:
        return f"with the number {uid}"
