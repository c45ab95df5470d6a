"""A receiver of webhooks: it verifies each message, and handles it once."""
# It needs standardwebhooks, and in SECRET the secret of the webhook.

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

WEBHOOK = Webhook(os.environ["SECRET"])
ADDRESS = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "8001"))
LONGEST = 100_000  # of a message, in bytes

seen: set[str] = set()  # a real receiver stores it, in the transaction of its work


def handle(message: Any) -> None:
    """Put your own work here. It must not take long: the server waits for 10 seconds."""
    print(message["type"], json.dumps(message["data"]), flush=True)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to a message, the second time too, and 401 to what is not from the server."""

    def do_POST(self) -> None:
        """Receive a message."""
        length = int(self.headers.get("Content-Length", 0))
        if length > LONGEST:
            return self.answer(413)
        try:
            message = WEBHOOK.verify(self.rfile.read(length), dict(self.headers))
        except WebhookVerificationError:
            return self.answer(401)
        if (id := self.headers["webhook-id"]) not in seen:
            handle(message)
            seen.add(id)  # after the work: if that fails, the message comes again
        return self.answer(204)

    def answer(self, status: int) -> None:
        """Answer without a body."""
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


if __name__ == "__main__":
    print(f"listening on {ADDRESS[0]}:{ADDRESS[1]}", flush=True)
    ThreadingHTTPServer(ADDRESS, Receiver).serve_forever()
