"""What a run tells while it goes on."""

import sys


def say(text: str) -> None:
    """Tell a line."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
