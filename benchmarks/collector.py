"""A receiver of OTLP over HTTP that only counts: `python -m benchmarks.collector`.

It prints its port. A GET returns the number of bytes that it has received.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class Handler(BaseHTTPRequestHandler):
    """Takes what is sent."""

    protocol_version = "HTTP/1.1"
    received = 0

    def do_POST(self) -> None:
        """Count the bytes of a batch."""
        Handler.received += len(self.rfile.read(int(self.headers["content-length"])))
        self._answer(b"")

    def do_GET(self) -> None:
        """Tell the number of bytes."""
        self._answer(b"%d" % Handler.received)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


def received(url: str) -> int:
    """The number of bytes that the collector at this address has received."""
    return int(httpx.get(url, trust_env=False).text)


@contextmanager
def collecting() -> Iterator[str]:
    """The address of a collector that runs inside the block, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.collector"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
