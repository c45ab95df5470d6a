"""The tables in docs/performance.md, each between two marks with its name."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.bulk import BULKS, Bulk
from benchmarks.compare import Pace, Result
from benchmarks.contenders import (
    COMPILED,
    CONTENDERS,
    PEER,
    POSTGRAPHILE,
    Missing,
    node,
    node_version,
)
from benchmarks.graphs import ADDED, GRAPH_EDGES, GRAPH_TASKS, in_graph, without_graph
from benchmarks.keys import with_key
from benchmarks.leases import EVERY, LEASES, Share
from benchmarks.listeners import FOLLOWERS, IDLE, LISTENERS, PER_SECOND, Heard, Listened
from benchmarks.plan import LARGE_PLAN, SMALL_PLAN, WORKERS
from benchmarks.queries import WRITES, Query
from benchmarks.scaling import ROWS, Scaling
from benchmarks.summaries import READ, RECORDS, SUMMARIES
from benchmarks.traces import Traced, Turn
from benchmarks.waiting import ALONE, HELD, out_of
from benchmarks.workers import (
    BATCH,
    FEW,
    HTTP,
    MANY,
    ONE,
    PROCRASTINATE,
    SQL,
    TITLES,
    TOGETHER,
    Work,
)
from tests.pages import ROOT, filled

PAGE = ROOT / "docs" / "performance.md"
NOT_MEASURED = "not measured"
PACKAGES = ("strawberry-graphql", "graphql-core", "SQLAlchemy", "asyncpg", "starlette", "uvicorn")


@dataclass(frozen=True)
class Claim:
    """A promise about speed, and the measured value."""

    text: str
    bound: float
    found: float | None
    """None if it was not measured this time."""
    at_most: bool = False
    floor: float | None = None
    """A lower bound, which a noisy machine may miss the other by; the table shows both."""

    @property
    def row(self) -> Sequence[str]:
        """The cells of its row in the table."""
        bound = f"{'at most' if self.at_most else 'at least'} {self.bound:g}"
        if self.floor is not None:
            bound += f", no less than {self.floor:g}"
        if self.found is None:
            return self.text, bound, NOT_MEASURED, ""
        holds = self.found <= self.bound if self.at_most else self.found >= self.bound
        nearly = self.floor is not None and self.found >= self.floor
        words = "yes" if holds else "nearly" if nearly else "**no**"
        return self.text, bound, f"{self.found:.2f}", words


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column is text, the others are numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows)) + "\n"


def claims(
    read: Result | None,
    written: Result | None,
    keyed: Scaling | None,
    copied: Scaling | None,
    scaled: Scaling | None,
    worked: Work | None,
    waited: Scaling | None,
    beats: Share | None,
    summed: Scaling | None,
    listened: Listened | None,
    traced: Traced | None,
) -> str:
    """The table of all promises with the measured values."""

    def ratio(ours: str, query: str, theirs: str) -> float | None:
        return None if read is None else read.ratio(ours, query, theirs)

    def written_ratio(query: str, theirs: str) -> float | None:
        return None if written is None else written.ratio("troupe", query, theirs)

    def longer(name: str, base: str, times: Scaling | None = scaled) -> float | None:
        if times is None or name not in times.took:
            return None
        return times.ratio(name, base)

    def tasks(name: str, base: str) -> float | None:
        return None if worked is None else worked.ratio(name, base)

    def heard(value: Callable[[Heard], float]) -> float | None:
        if listened is None or PEER.name not in listened.heard:
            return None
        return value(listened.heard[COMPILED.name]) / value(listened.heard[PEER.name])

    # PostGraphile answers *point* a third faster after a warm-up, in which V8 compiles it.
    asked = (("point", 1.1), ("mid", 1.5), ("list", 2.7))
    all_claims = [
        *(
            Claim(
                f"*{query}*: requests/s, of those by hand",
                0.8,
                ratio("troupe", query, "hand"),
                floor=0.7,
            )
            for query, _ in asked
        ),
        *(
            Claim(
                f"*{query}*: requests/s, times PostGraphile's",
                bound,
                ratio("troupe", query, "postgraphile"),
            )
            for query, bound in asked
        ),
        *(
            Claim(
                f"*{query}*, compiler off: requests/s, times plain Strawberry's",
                1,
                ratio("general", query, "strawberry"),
                floor=0.9,
            )
            for query in ("mid", "list")
        ),
        *(
            Claim(
                f"a page of 50 that 900,000 rows precede: its time, times the first's; {who}",
                1.2,
                longer(f"deep {name}", f"first {name}"),
                at_most=True,
            )
            for name, who in (("all", "sees all"), ("tenth", "sees a tenth"))
        ),
        Claim(
            "10,000 rows returned: time, times ten of that of 1,000",
            1.3,
            None if scaled is None else scaled.ratio("10000 rows", "1000 rows") / 10,
            at_most=True,
        ),
        *(
            Claim(
                f"*{query}* out of 1,000,000 tasks: its time, times that out of 50,000",
                1.3,
                longer(f"{query} of 1000000", f"{query} of 50000"),
                at_most=True,
            )
            for query, _ in asked
        ),
        *(
            Claim(
                f"*{query.name}*: requests/s, times PostGraphile's",
                1,
                written_ratio(query.name, "postgraphile"),
                floor=0.65,
            )
            for query in WRITES
        ),
        *(
            Claim(
                f"*{query.name}*: requests/s, of those by hand",
                0.5,
                written_ratio(query.name, "hand"),
            )
            for query in WRITES
        ),
        *(
            Claim(
                f"*{query.name}* with an idempotency key: its time, times that without",
                1.15,
                longer(with_key(query.name), query.name, keyed),
                at_most=True,
            )
            for query in WRITES
        ),
        *(
            Claim(
                f"*{one.name}*, {one.title}: time, times that of a COPY",
                3,
                longer(one.name, one.copy, copied),
                at_most=True,
            )
            for one in BULKS
        ),
        *(
            Claim(
                f"*{query.name}* with 1,000,000 tasks: its time, times that with 50,000",
                1.3,
                longer(f"{query.name} of 1000000", f"{query.name} of 50000"),
                at_most=True,
            )
            for query in WRITES
        ),
        *(
            Claim(
                f"*{query.name}* in a project with a graph of {GRAPH_TASKS:,} tasks:"
                " its time, times that without",
                1.3,
                longer(in_graph(query.name), without_graph(query.name)),
                at_most=True,
            )
            for query in ADDED
        ),
        Claim(
            f"a change to {LISTENERS:,} WebSockets: processor time of a message, of PostGraphile's",
            0.1,
            heard(lambda one: one.processor),
            at_most=True,
        ),
        Claim(
            f"a change to {LISTENERS:,} WebSockets: time of 99 % of messages, of PostGraphile's",
            1,
            heard(lambda one: one.p99),
            at_most=True,
        ),
        *(
            Claim(
                f"writes at full speed beside {LISTENERS:,} WebSockets, {number or 'none'} of which"
                " follow the task: their rate, of that without",
                0.9,
                None if listened is None else listened.writers[number],
            )
            for number in FOLLOWERS
        ),
        Claim(
            f"a task that changes {PER_SECOND} times a second beside {LISTENERS:,} WebSockets that"
            " follow it: the rate, of that without",
            0.9,
            None if listened is None else listened.paced[0].kept,
        ),
        Claim(
            f"{IDLE:,} idle WebSockets: processor time, as a share of one core",
            0.02,
            None if listened is None else listened.idle_processor,
            at_most=True,
        ),
        Claim(
            f"{WORKERS} workers claim and complete: tasks/s, of those by the same SQL",
            0.4,
            tasks(HTTP, SQL),
        ),
        Claim(
            f"{WORKERS} workers claim and complete: tasks/s, times procrastinate's",
            1,
            tasks(HTTP, PROCRASTINATE),
        ),
        Claim(
            f"*claim {FEW} + complete {FEW}* by HTTP: tasks/s, times procrastinate's jobs",
            1,
            tasks(TOGETHER, PROCRASTINATE),
        ),
        Claim(
            f"*{MANY}* of {BATCH}: tasks/s, times those that {WORKERS} workers claim and complete",
            10,
            tasks(MANY, HTTP),
        ),
        Claim(
            f"*{MANY}* of {BATCH}: tasks/s, times those of *{ONE}*",
            10,
            tasks(MANY, ONE),
        ),
        Claim(
            f"*{ONE}* out of {LARGE_PLAN.tasks:,} waiting tasks: its time, times that out of"
            f" {SMALL_PLAN.tasks:,}",
            1.3,
            longer(out_of(LARGE_PLAN), out_of(SMALL_PLAN), waited),
            at_most=True,
        ),
        Claim(
            f"*{ONE}* while an old transaction is open: its time, times that without",
            1.5,
            longer(HELD, ALONE, waited),
            at_most=True,
        ),
        Claim(
            f"heartbeats of {LEASES:,} leases, each every {EVERY} s: share of one core",
            0.1,
            None if beats is None else beats.both,
            at_most=True,
        ),
        *(
            Claim(
                f"*usageSummary* {one.name} of {RECORDS:,} records: its time, times that of SQL"
                " by hand",
                5,
                longer(one.name, one.by_hand, summed),
                at_most=True,
            )
            for one in SUMMARIES
        ),
        Claim(
            f"*usageSummary* {SUMMARIES[0].name}: rows read, of those of the records",
            0.1,
            None if summed is None else summed.typical(READ),
            at_most=True,
        ),
        *(
            Claim(
                f"*{query}* with traces: its time, times that without",
                1.05,
                None if traced is None else traced.typical(query, lambda turn: turn.p50)[-1],
                at_most=True,
            )
            for query, _ in asked
        ),
    ]
    head = ("what", "promised", "found", "holds")
    return table(head, (claim.row for claim in all_claims))


def contenders(result: Result) -> str:
    """A table for each query, and one for memory."""
    parts = []
    for name, shape in result.shapes.items():
        rows = []
        for one in result.contenders:
            typical = result.typical(one.name, name)
            work = result.typical_work(one.name, name)
            rows.append(
                (
                    one.title,
                    _number(typical.per_second),
                    _ms(typical.p50),
                    _ms(typical.p99),
                    f"{result.statements[one.name, name]:g}",
                    _work(work.server),
                    _work(work.database),
                    _times(result.ratio(one.name, name, "hand")),
                    _times(result.ratio(one.name, name, "postgraphile")),
                )
            )
        head = (
            "",
            "requests/s",
            "p50, ms",
            "p99, ms",
            "statements",
            "server, ms",
            "SQL, ms",
            "÷ by hand",
            "÷ PostGraphile",
        )
        title = f"*{name}*: {shape.values:,} values, {shape.bytes / 1000:.3g} kB"
        parts.append(f"{title}\n\n{table(head, rows)}")
    memory = [(one.title, _megabytes(result.memory[one.name])) for one in result.contenders]
    parts.append(f"Memory of the process afterwards\n\n{table(('', 'MB'), memory)}")
    for one in result.contenders:
        for query in result.shapes:
            typical = result.typical(one.name, query)
            if typical.refused:
                parts.append(
                    f"*{query}*, {one.title}: {typical.refused:,} of {typical.answered:,} requests"
                    " were refused, and are not counted.\n"
                )
    parts += [f"Not measured: {why}\n" for why in result.missing]
    return "\n".join(parts)


def keys(keyed: Scaling, writes: Sequence[Query]) -> str:
    """The table of writes with an idempotency key."""
    rows = [
        (
            f"*{query.name}*",
            _ms(keyed.typical(query.name)),
            _ms(keyed.typical(with_key(query.name))),
            _times(keyed.ratio(with_key(query.name), query.name)),
        )
        for query in writes
    ]
    return table(("a write, ms", "without a key", "with a new key", "÷ without"), rows)


def bulk(copied: Scaling, bulks: Sequence[Bulk]) -> str:
    """The table of writes of many rows."""
    rows = [
        (
            f"*{one.name}*: {one.title}",
            _ms(copied.typical(one.name)),
            _ms(copied.typical(one.copy)),
            _times(copied.ratio(one.name, one.copy)),
        )
        for one in bulks
    ]
    return table(("written at once, ms", "Troupe", "COPY", "÷ COPY"), rows)


def dependence(scaled: Scaling) -> str:
    """The tables of what time depends on."""
    pages = [
        (words, _ms(scaled.typical(f"first {who}")), _ms(scaled.typical(f"deep {who}")))
        for who, words in (("all", "who sees all"), ("tenth", "who sees a tenth"))
    ]
    returned = [
        (f"{rows:,}", _ms(took := scaled.typical(f"{rows} rows")), f"{took * 1e6 / rows:.1f}")
        for rows in ROWS
    ]
    stored = [
        (
            f"*{query}*",
            _ms(scaled.typical(f"{query} of 50000")),
            _ms(scaled.typical(f"{query} of 1000000")),
        )
        for query in ("point", "mid", "list", *(query.name for query in WRITES))
    ]
    graphs = [
        (
            f"*{query.name}*",
            _ms(scaled.typical(without_graph(query.name))),
            _ms(scaled.typical(in_graph(query.name))),
        )
        for query in ADDED
    ]
    large = f"{GRAPH_TASKS:,} more, {GRAPH_EDGES:,} dependencies"
    return "\n".join(
        (
            table(("a page of 50 of a million tasks, ms", "first", "900,000 rows in"), pages),
            table(("rows returned", "ms", "µs for a row"), returned),  # noqa: RUF001
            table(("tasks stored, ms", "50,000", "1,000,000"), stored),
            table(("tasks of the project, ms", "50", large), graphs),
        )
    )


def workers(worked: Work) -> str:
    """The table of workers that claim and complete tasks."""
    rows = []
    for name in worked.rounds:
        typical = worked.typical(name)
        work = typical.server, typical.database
        rows.append((TITLES[name], _number(typical.per_second), *map(_work, work)))
    head = (f"{WORKERS} workers", "tasks/s", "server, ms", "SQL, ms")
    missing = [f"Not measured: {why}\n" for why in worked.missing]
    return "\n".join((table(head, rows), *missing))


def waiting(waited: Scaling, seconds: float) -> str:
    """The tables of what the time of a claim depends on."""
    plans = [
        (f"{plan.tasks:,}, of which 80 % are blocked", _ms(waited.typical(out_of(plan))))
        for plan in (SMALL_PLAN, LARGE_PLAN)
    ]
    held = [
        ("no old transaction", _ms(waited.typical(ALONE))),
        (f"a transaction open for {seconds:g} s", _ms(waited.typical(HELD))),
    ]
    heads = ("tasks that wait", "a claim, ms"), ("meanwhile", "a claim, ms")
    return "\n".join(map(table, heads, (plans, held)))


def heartbeats(beats: Share) -> str:
    """The table of the processor time of heartbeats."""
    rows = [("server", f"{beats.server:.3f}"), ("PostgreSQL", f"{beats.database:.3f}")]
    return table((f"heartbeats of {LEASES:,} leases", "share of one core"), rows)


def listeners(listened: Listened) -> str:
    """The table of messages of subscriptions."""
    rows = [
        (
            CONTENDERS[name].title,
            _ms(one.p50),
            _ms(one.p99),
            f"{one.processor * 1e3:.4f}",
            f"{one.database * 1e3:.4f}",
            f"{one.memory / 1024:.0f}",
        )
        for name, one in listened.heard.items()
    ]
    head = ("", "p50, ms", "p99, ms", "server, ms", "SQL, ms", "memory of a socket, kB")
    idle = f"{IDLE:,} idle WebSockets take {listened.idle_memory / 1024:.0f} kB each."
    two = f"At two processes, the p50 is {_ms(listened.other_process)} ms."
    kept = ", ".join(
        f"{rate:.2f} if {number or 'none'} of them follow each task"
        for number, rate in listened.writers.items()
    )
    writers = f"Of their rate without WebSockets, writers beside {LISTENERS:,} keep {kept}."
    paces = [
        (
            one.pace,
            f"{one.alone.rate:,.0f}",
            f"{one.beside.rate:,.0f}",
            *map(_ms, (one.alone.p50, one.beside.p50, one.alone.p99, one.beside.p99)),
        )
        for one in listened.paced
    ]
    beside = f"beside {LISTENERS:,}"
    head_of_paces = ("changes", "per s", beside, "p50, ms", beside, "p99, ms", beside)
    paced = table(head_of_paces, paces)
    return f"{table(head, rows)}\n{two} {idle} {writers}\n\n{paced}"


def traces(traced: Traced) -> str:
    """The tables of what traces add."""
    parts = []
    values: dict[str, Callable[[Turn], float]] = {
        "p50, ms": lambda turn: turn.p50,
        "p99, ms": lambda turn: turn.p99,
        "mean, ms": lambda turn: turn.mean,
        "server and exporter, ms": lambda turn: turn.server,
        "thread that answers, ms": lambda turn: turn.serving,
    }
    for title, value in values.items():
        rows = []
        for query in traced.turns:
            without, with_traces, ratio = traced.typical(query, value)
            rows.append((query, _work(without), _work(with_traces), _times(ratio)))
        parts.append(table((title, "without traces", "with traces", "÷"), rows))
    return "\n".join((*parts, f"The collector received {traced.received / 1e6:.1f} MB.\n"))


def usage(summed: Scaling) -> str:
    """The table of summaries of usage."""
    rows = [
        (
            one.name,
            _ms(summed.typical(one.name)),
            _ms(summed.typical(one.by_hand)),
            _times(summed.ratio(one.name, one.by_hand)),
        )
        for one in SUMMARIES
    ]
    return table((f"{RECORDS:,} records, ms", "Troupe", "SQL by hand", "÷ by hand"), rows)


def circumstances(pace: Pace, postgres: str) -> str:
    """The date, the machine and the versions."""
    versions = [f"Python {platform.python_version()}", f"PostgreSQL {postgres}"]
    versions += [f"{name} {version(name)}" for name in PACKAGES]
    with suppress(Missing, FileNotFoundError):  # it was not compared
        installed = json.loads(
            (POSTGRAPHILE / "node_modules" / "postgraphile" / "package.json").read_text(
                encoding="utf-8"
            )
        )
        number = ".".join(map(str, node_version(node())))
        versions.append(f"PostGraphile {installed['version']} on Node.js {number}")
    return (
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, on {os.cpu_count()} cores"
        f" ({platform.system()}, {platform.machine()}): the medians of {pace.rounds} rounds of"
        f" {pace.seconds:g} s. {', '.join(versions)}.\n"
    )


def write(page: Path, parts: dict[str, str]) -> None:
    """Replace these parts of the page. A promise that was not measured keeps its row."""
    text = page.read_text(encoding="utf-8")
    rows = {line.split("|")[1]: line for line in text.splitlines() if line.startswith("| ")}
    for name, part in parts.items():
        lines = [
            rows.get(line.split("|")[1], line) if NOT_MEASURED in line else line
            for line in part.split("\n")
        ]
        text = filled(text, name, "\n".join(lines))
    page.write_text(text, encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}" if seconds < 0.1 else f"{seconds * 1000:,.0f}"


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"


def _megabytes(size: float) -> str:
    return "unknown" if math.isnan(size) else f"{size / 1e6:,.0f}"


def _work(seconds: float) -> str:
    return "unknown" if math.isnan(seconds) else f"{seconds * 1000:,.3g}"
