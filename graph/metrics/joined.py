"""The metrics of several processes on one port, told apart by the label `process`."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.metrics.exposition import PATH, encoder

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

# How long a process may take to answer, in seconds. One that is being started does not.
ANSWER_SECONDS = 4.0

ACCEPT = "application/openmetrics-text; version=1.0.0"


def listen_on_loopback(count: int) -> list[socket.socket]:
    """A socket for the metrics of each process, which only the first process asks."""
    return [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]


class JoinedMetrics:
    """The metrics of all processes, which the first process serves."""

    def __init__(self, ports: Sequence[int]) -> None:
        """`ports` are those of the metrics of each process, on loopback."""
        self._ports = ports

    def app(self) -> Starlette:
        """The application, which needs no token."""
        app = Starlette(routes=[Route(PATH, self._respond)])
        app.router.redirect_slashes = False
        return app

    def _respond(self, request: Request) -> Response:
        with ThreadPoolExecutor(len(self._ports)) as threads:
            texts = list(threads.map(_text_of, self._ports))
        encode, content_type = encoder(request.headers.get("accept", ""))
        return Response(encode(joined(texts)), headers={"content-type": content_type})


def _text_of(port: int) -> str | None:
    """The metrics of a process; None if it does not answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", PATH, headers={"accept": ACCEPT})
        answer = connection.getresponse()
        return answer.read().decode() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class _Families:
    """What an encoder of `prometheus_client` takes for a registry."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        """All metrics."""
        return self._families


def joined(texts: Sequence[str | None]) -> Any:
    """The metrics of all texts; each value has the place of its text as the label `process`."""
    from prometheus_client.openmetrics import parser  # noqa: PLC0415

    parse: Callable[[str], Iterable[Family]] = parser.text_string_to_metric_families

    families: dict[str, Family] = {}
    for number, text in enumerate(texts):
        for family in parse(text) if text is not None else ():
            samples = [
                sample._replace(labels={**sample.labels, "process": str(number)})
                for sample in family.samples
            ]
            family.samples, first = [], families.setdefault(family.name, family)
            first.samples += samples
    return _Families(families.values())
