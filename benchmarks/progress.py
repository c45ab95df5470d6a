"""Progress messages of a run."""

import sys


def say(text: str) -> None:
    """Print a line."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
