"""Locks on files. The system releases them when a process ends, so that none is stale."""

import fcntl
import os
from pathlib import Path


class FileLock:
    """A lock on a file, held by one process exclusively or shared by several."""

    def __init__(self, path: Path) -> None:
        # O_NOFOLLOW, because root may open this file in the folder of another account, which could
        # contain a link. Python opens with O_CLOEXEC, so that no child process keeps the lock.
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)

    def try_exclusive(self) -> bool:
        """Take the lock exclusively, unless another process holds it."""
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Share the lock with others, unless another process holds it exclusively."""
        return self._try(fcntl.LOCK_SH)

    def release(self) -> None:
        """Release the lock, if it is held."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self) -> str:
        """The text that the last exclusive holder wrote into the file."""
        return os.pread(self._fd, 4096, 0).decode(errors="replace")

    def write(self, text: str) -> None:
        """Replace the text in the file."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def close(self) -> None:
        """Close the file, which also releases the lock."""
        os.close(self._fd)

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._fd, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
