"""The log that the embedded PostgreSQL writes, kept from growing without end."""

import contextlib
import os
import re
from pathlib import Path

from db.embedded.errors import EmbeddedError

TELLING = re.compile(r"\b(?:ERROR|FATAL|PANIC|DETAIL|HINT|error):.*")
LIMIT = 10 * 1024 * 1024


class Log:
    """The open log file: PostgreSQL appends to it, and errors quote its last lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # All work is done on this one descriptor, opened without following a link: root may do
        # it in a folder of somebody else's.
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self.bound()

    def fileno(self) -> int:
        """The descriptor, for a child's output."""
        return self._fd

    def size(self) -> int:
        """How many bytes there are."""
        return os.fstat(self._fd).st_size

    def since(self, offset: int) -> str:
        """What was written after ``offset``."""
        return os.pread(self._fd, 1024 * 1024, offset).decode(errors="replace")

    def bound(self) -> None:
        """Once the log is large, move its text to a second file, in place of what is there."""
        size = self.size()
        if size <= LIMIT:
            return
        with contextlib.suppress(OSError):  # a full disk above all needs the file to be emptied
            self._keep(size)
        # PostgreSQL has this file open and appends, so it goes on at the new end.
        os.ftruncate(self._fd, 0)

    def failure(self, what: str, offset: int) -> EmbeddedError:
        """An error that quotes the last lines written after ``offset`` and names the file."""
        written = self.since(offset)
        # Not simply the last lines: initdb's clean-up, for one, would push the cause out of sight.
        lines = TELLING.findall(written) or written.split("\n")
        said = " / ".join(line.strip() for line in lines[-4:] if line.strip())
        return EmbeddedError(
            f"{what}: {said or 'it said nothing'} (the whole log is in {self.path})"
        )

    def close(self) -> None:
        """Close our descriptor; a child keeps its own."""
        os.close(self._fd)

    def _keep(self, size: int) -> None:
        before = self.path.with_name(f"{self.path.name}.1")
        before.unlink(missing_ok=True)
        copy = os.open(before, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            # The file may have grown far past the limit while nobody looked.
            for offset in range(max(0, size - LIMIT), size, 1024 * 1024):
                os.write(copy, os.pread(self._fd, min(1024 * 1024, size - offset), offset))
        finally:
            os.close(copy)
