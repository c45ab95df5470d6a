"""Reading with traces and without: what they add to the latency and to the processor time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from sqlalchemy import URL

from benchmarks.collector import collecting, received
from benchmarks.compare import Pace, warm_up
from benchmarks.contenders import COMPILED, Running, running
from benchmarks.data import Size
from benchmarks.load import BadAnswer, load
from benchmarks.processes import first_thread, processor
from benchmarks.progress import say
from benchmarks.queries import Query
from benchmarks.scaling import Question, made


@dataclass(frozen=True)
class Turn:
    """The seconds of a request, in one turn of a server."""

    p50: float
    p99: float
    mean: float
    server: float
    """The processor time of the server, and of the process that makes and sends its spans."""
    serving: float
    """That of the thread that answers."""


@dataclass
class Traced:
    """The measurements, by query: of each round, a turn without traces and one with them."""

    turns: dict[str, list[tuple[Turn, Turn]]]
    received: int = 0
    """The bytes that the collector has received."""

    def typical(self, query: str, value: Callable[[Turn], float]) -> tuple[float, float, float]:
        """The medians of the rounds without traces and with them, and of the rounds' ratios."""
        pairs = [(value(without), value(traced)) for without, traced in self.turns[query]]
        ratio = median(traced / without for without, traced in pairs)
        return median(one for one, _ in pairs), median(one for _, one in pairs), ratio


async def traces(url: URL, size: Size, queries: Sequence[Query], pace: Pace) -> Traced:
    """Measure the queries in rounds, at a server without traces and at one that sends all.

    Each round starts both anew: two processes of the same program differ by a few per cent.
    """
    result = Traced({query.name: [] for query in queries})
    with collecting() as collector:
        settings = COMPILED.settings | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector}
        traced = replace(COMPILED, settings=settings)
        for number in range(pace.rounds):
            with running(COMPILED, url) as plain, running(traced, url) as tracing:
                servers = (plain, tracing) if number % 2 else (tracing, plain)
                for query in queries:
                    bodies = COMPILED.bodies(query, size.projects)
                    asked = {server: made(server, query.name, bodies) for server in servers}
                    for question in asked.values():
                        await warm_up(question.address, question.requests)
                    turns = {server: await _turn(server, asked[server], pace) for server in servers}
                    result.turns[query.name].append((turns[plain], turns[tracing]))
            say(f"round {number + 1} of {pace.rounds} of traces")
        result.received = received(collector)
    return result


async def _turn(server: Running, question: Question, pace: Pace) -> Turn:
    began = processor(server.pid), first_thread(server.pid)
    measured = await load(
        question.address,
        question.requests,
        seconds=pace.seconds,
        warm_up=pace.warm_up,
        # Each request after the answer to the one before, so that none waits for another one.
        connections=1,
    )
    used = processor(server.pid) - began[0], first_thread(server.pid) - began[1]
    if measured.refused:
        raise BadAnswer(f"{measured.refused} answers to {question.name} were not correct.")
    times = (each / max(1, measured.answered) for each in used)
    return Turn(measured.p50, measured.p99, 1 / measured.per_second, *times)
