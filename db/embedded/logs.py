"""The log of the embedded PostgreSQL, with a limit on its size."""

import contextlib
import os
import re
from pathlib import Path

from db.embedded.errors import EmbeddedError

IMPORTANT = re.compile(r"\b(?:ERROR|FATAL|PANIC|DETAIL|HINT|error):.*")
LIMIT = 10 * 1024 * 1024


class Log:
    """The open log file: PostgreSQL appends to it, and errors quote its last lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The file is opened once, without following a link: root may open it in the folder of
        # another account.
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        self.rotate()

    def fileno(self) -> int:
        """The descriptor, for the output of child processes."""
        return self._fd

    def size(self) -> int:
        """The size in bytes."""
        return os.fstat(self._fd).st_size

    def since(self, offset: int) -> str:
        """The text that was written after ``offset``."""
        return os.pread(self._fd, 1024 * 1024, offset).decode(errors="replace")

    def rotate(self) -> None:
        """If the log is larger than LIMIT, move its text to a second file, which is replaced."""
        size = self.size()
        if size <= LIMIT:
            return
        with contextlib.suppress(OSError):  # emptying the file is what a full disk needs most
            self._copy(size)
        # PostgreSQL has this file open for appending, so it continues at the new end.
        os.ftruncate(self._fd, 0)

    def failure(self, what: str, offset: int) -> EmbeddedError:
        """An error that quotes the last lines written after ``offset`` and names the file."""
        written = self.since(offset)
        # Not all last lines: those of initdb's cleanup, for example, follow the cause.
        lines = IMPORTANT.findall(written) or written.split("\n")
        quoted = " / ".join(line.strip() for line in lines[-4:] if line.strip())
        return EmbeddedError(
            f"{what}: {quoted or 'it logged nothing'} (the whole log is in {self.path})"
        )

    def close(self) -> None:
        """Close the descriptor; child processes keep their own."""
        os.close(self._fd)

    def _copy(self, size: int) -> None:
        before = self.path.with_name(f"{self.path.name}.1")
        before.unlink(missing_ok=True)
        copy = os.open(before, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            # The file may have grown far beyond the limit since the last check.
            for offset in range(max(0, size - LIMIT), size, 1024 * 1024):
                os.write(copy, os.pread(self._fd, min(1024 * 1024, size - offset), offset))
        finally:
            os.close(copy)
