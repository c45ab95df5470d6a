"""The account of the operating system that PostgreSQL runs as, and the folders it can reach."""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from db.embedded.errors import EmbeddedError

# PostgreSQL refuses to run as root. `troupe` is preferred, because other services may use `nobody`
# too. No account is ever created.
UNPRIVILEGED = ("troupe", "nobody")

# PostgreSQL does not inherit the environment: PGPORT, PGDATA and PGOPTIONS would change what it
# does, LANG the language of its messages, TZ the configuration that initdb writes.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """An account to run PostgreSQL as; ``user`` and ``group`` are set if it is another one."""

    name: str
    uid: int
    user: int | None = None
    group: int | None = None

    @property
    def extra_groups(self) -> Sequence[int] | None:
        """No supplementary groups for another account, and the current ones for our own."""
        return None if self.user is None else ()

    def run(self, arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        """Run a short program as this account and capture its output."""
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
            # 126 is a shell's exit code for a program that cannot be run. Here it also means that
            # the system does not allow a change to that account.
            return subprocess.CompletedProcess(arguments, 126, b"", str(error).encode())

    def blocked_at(self, folder: Path) -> Path | None:
        """The first folder on the way to ``folder`` that the account cannot enter, if any."""
        way = [*reversed(folder.parents), folder]
        if self.user is None:
            return next((step for step in way if not os.access(step, os.X_OK)), None)
        # Tested as that account, because mode bits are not all that counts (ACLs, mounts, the
        # capabilities of root).
        enter = 'for step; do cd "$step" 2>/dev/null || { printf %s "$step"; exit 1; }; done'
        tried = self.run(["/bin/sh", "-c", enter, "sh", *way])
        if tried.returncode == 126:
            raise EmbeddedError(
                f"PostgreSQL does not run as root, and no program can be started as the account "
                f"{self.name} ({tried.stderr.decode(errors='replace')}); set TROUPE_DATABASE_URL "
                f"to use a PostgreSQL of your own"
            )
        return Path(os.fsdecode(tried.stdout)) if tried.returncode else None

    def take_ownership(self, folder: Path) -> None:
        """Make this account the owner of a new folder."""
        if self.user is not None and self.group is not None:
            os.chown(folder, self.user, self.group, follow_symlinks=False)


def postgres_account(cluster: Path) -> Account:
    """The account for the cluster: for root an unprivileged one, otherwise the current one."""
    owner = cluster.stat().st_uid if os.path.exists(cluster) else None
    candidates = _unprivileged() if os.geteuid() == 0 else [_current()]
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
    """Make a folder and its missing parents; existing ones are not changed."""
    if folder.is_dir():
        return
    make_folders(folder.parent, mode)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=mode)
        folder.chmod(mode)  # regardless of the umask


def _current() -> Account:
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
