"""The program that makes spans and sends them, in a process of its own: it delays no operation.

Its standard input has a Record in each line. It writes a line when it is ready; what it has to say
to the log is on the standard error.
"""

from __future__ import annotations

import logging
import os
import signal
import sys

# How much this process yields to those that serve (`nice`).
NICENESS = 10

# They may contain secrets.
HEADERS = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")


class OneLine(logging.Formatter):
    """A line for each record of the log, which the serving process logs."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without a traceback, and without secrets."""
        message = record.getMessage()
        for name in HEADERS:
            for header in filter(None, os.environ.get(name, "").split(",")):
                message = message.replace(header.strip(), "…")
        return " ".join(message.split())


def main() -> None:
    """Send the spans of what the standard input has. It ends with the process that writes it."""
    # First, before what takes long. A service manager sends signals to all processes.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.platform != "win32":
        os.nice(NICENESS)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        from graph.tracing.spans import Sender  # noqa: PLC0415

        sender = Sender()
    except Exception as error:
        logging.getLogger("troupe").error("%s: %s", type(error).__name__, error)
        sys.exit(1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sender.send(sys.stdin.buffer)


if __name__ == "__main__":
    main()
