"""The metrics of a process in the formats of Prometheus and OpenMetrics.

Each metric is declared once, in METRICS, which the documentation prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING, Any, NamedTuple

from db import Database
from db.statistics import BOUNDS, Durations, totals
from graph.core.threads import in_thread
from graph.metrics.database import MOST_COUNTED, DatabaseMetrics
from graph.metrics.operations import operations

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family

    from graph.core.cache import Cache

PATH = "/metrics"

Labels = tuple[str, ...]


class Metric(NamedTuple):
    """A metric: its kind, what it means, and its labels."""

    kind: str
    meaning: str
    labels: Labels = ()


AT_MOST = f"At most {MOST_COUNTED:,} are counted"

METRICS: dict[str, Metric] = {
    "troupe_build": Metric("info", "The version of Troupe.", ("version",)),
    "troupe_operations": Metric(
        "counter",
        "Operations that have ended, by the kind, the name and the outcome: `ok`, the code of the"
        " first error, or `CLIENT_DISCONNECTED`.",
        ("kind", "name", "outcome"),
    ),
    "troupe_operation_duration_seconds": Metric(
        "histogram",
        "How long queries and mutations took, by the kind and the name.",
        ("kind", "name"),
    ),
    "troupe_operations_running": Metric("gauge", "Queries and mutations that run now."),
    "troupe_operations_waiting": Metric("gauge", "Operations that wait for a person's answer now."),
    "troupe_limits_refused": Metric(
        "counter", "Operations and requests that a limit has refused, by its setting.", ("limit",)
    ),
    "troupe_requests_refused": Metric(
        "counter",
        "Requests that were refused before there was an operation, by the transport and the code.",
        ("transport", "code"),
    ),
    "troupe_sql_duration_seconds": Metric(
        "histogram", "How long SQL statements took that had no error."
    ),
    "troupe_sql_rows": Metric("counter", "Rows that SQL statements have returned or written."),
    "troupe_sql_failures": Metric(
        "counter", "SQL statements with an error, by its SQLSTATE.", ("sqlstate",)
    ),
    "troupe_pool_size": Metric("gauge", "How many connections a pool may have.", ("pool",)),
    "troupe_pool_in_use": Metric("gauge", "Connections of a pool that are in use.", ("pool",)),
    "troupe_pool_waiting": Metric(
        "gauge", "Statements that wait for a connection of a pool.", ("pool",)
    ),
    "troupe_cache_hits": Metric(
        "counter",
        "What was found in a cache: `documents` are parsed and valid, `statements` compiled.",
        ("cache",),
    ),
    "troupe_cache_misses": Metric("counter", "What was not found in a cache.", ("cache",)),
    "troupe_cache_entries": Metric("gauge", "The entries of a cache.", ("cache",)),
    "troupe_sockets": Metric("gauge", "WebSockets that are open."),
    "troupe_event_streams": Metric("gauge", "Event streams (SSE) that are open or reserved."),
    "troupe_subscriptions": Metric("gauge", "Subscriptions that are open."),
    "troupe_leases_lost": Metric(
        "counter", "Attempts that this process has ended because their leases had run out."
    ),
    "troupe_webhook_deliveries": Metric(
        "counter", "Messages that this process has sent to webhooks, by the outcome.", ("outcome",)
    ),
    "troupe_database_up": Metric(
        "gauge", "Whether the database could be read: 1, or 0 if the following metrics are missing."
    ),
    "troupe_tasks": Metric(
        "gauge",
        "Tasks, by their state: `ready` to be claimed; `running`; `stuck`, whose lease has run out"
        f" without anybody ending the attempt; `in_review` by a person. {AT_MOST} of each.",
        ("state",),
    ),
    "troupe_tasks_ready_oldest_seconds": Metric(
        "gauge", "For how long the oldest task has been ready, of those counted; 0 if none is."
    ),
    "troupe_events_position": Metric("gauge", "The last position of the event log."),
    "troupe_events_unnumbered_oldest_seconds": Metric(
        "gauge", "The age of the oldest event without a position; 0 if there is none."
    ),
    "troupe_follower_lag_positions": Metric(
        "gauge",
        "How many events this process has not read yet; 0 while nobody subscribes.",
    ),
    "troupe_follower_lag_seconds": Metric("gauge", "The age of the first of them."),
    "troupe_webhook_deliveries_due": Metric(
        "gauge", f"Messages to webhooks that are to be sent now. {AT_MOST}."
    ),
    "troupe_webhook_deliveries_due_oldest_seconds": Metric(
        "gauge", "For how long the first of them has been due."
    ),
    "troupe_webhooks_failing": Metric(
        "gauge", "Active webhooks whose last message could not be delivered."
    ),
    "troupe_usage_hour_cost_dollars": Metric(
        "gauge",
        "The cost of the calls of AI models in this hour (UTC), in US dollars, for the 50 models"
        f" with the highest costs, in the {MOST_COUNTED:,} newest projects.",
        ("model",),
    ),
    "troupe_usage_hour_calls": Metric(
        "gauge", "The calls of these models in this hour, by the outcome.", ("model", "outcome")
    ),
    "troupe_usage_hour_tokens": Metric(
        "gauge", "The tokens of these models in this hour.", ("model", "direction")
    ),
}
"""Every metric by its name. In the text, the name of a counter ends in `_total`."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What a process has beside its counters."""

    running: Sized
    waiting: Sized
    caches: Mapping[str, Cache[Any, Any]]
    sockets: Sized
    streams: Sized
    subscriptions: Sized


class Exposition:
    """The metrics of an application."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._database = DatabaseMetrics()

    async def text(self, database: Database, accept: str) -> tuple[str, bytes]:
        """The content type and the text that an `Accept` header asks for."""
        # It takes a while to import, and is needed only here.
        from prometheus_client import (  # noqa: PLC0415
            CollectorRegistry,
            GCCollector,
            PlatformCollector,
            ProcessCollector,
        )

        state = await self._database.state(database)
        usage = None if state is None else await self._database.usage(database)
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        registry.register(_Collector(self._values(database, state, usage)))
        encode, content_type = encoder(accept)
        # In a thread, because there may be thousands of values.
        return content_type, await in_thread(partial(encode, registry))

    def _values(self, database: Database, state: Any, usage: Any) -> Values:
        values: Values = {name: {} for name in METRICS}
        self._add_process(values, database)
        values["troupe_database_up"][()] = 0 if state is None else 1
        if state is not None:
            _add_state(values, database, state)
        for model, cost, calls, failures, read, written in usage or ():
            values["troupe_usage_hour_cost_dollars"][model,] = float(cost)
            values["troupe_usage_hour_calls"][model, "failed"] = failures
            values["troupe_usage_hour_calls"][model, "succeeded"] = calls - failures
            values["troupe_usage_hour_tokens"][model, "input"] = read
            values["troupe_usage_hour_tokens"][model, "output"] = written
        return values

    def _add_process(self, values: Values, database: Database) -> None:
        sources = self._sources
        values["troupe_build"][metadata.version("troupe"),] = 1
        values["troupe_operations"].update(operations.ended)
        values["troupe_operation_duration_seconds"].update(operations.durations)
        values["troupe_limits_refused"].update(
            {(name,): n for name, n in operations.limits.items()}
        )
        values["troupe_requests_refused"].update(operations.refused)
        values["troupe_sql_duration_seconds"][()] = totals.durations
        values["troupe_sql_rows"][()] = totals.rows
        values["troupe_sql_failures"].update({(code,): n for code, n in totals.failures.items()})
        values["troupe_leases_lost"][()] = totals.leases_lost
        for outcome in ("failed", "succeeded"):
            values["troupe_webhook_deliveries"][outcome,] = totals.deliveries[outcome]
        for name, source in (
            ("operations_running", sources.running),
            ("operations_waiting", sources.waiting),
            ("sockets", sources.sockets),
            ("event_streams", sources.streams),
            ("subscriptions", sources.subscriptions),
        ):
            values[f"troupe_{name}"][()] = len(source)
        for name, use in database.pools().items():
            values["troupe_pool_size"][name,] = use.size
            values["troupe_pool_in_use"][name,] = use.in_use
            values["troupe_pool_waiting"][name,] = use.waiting
        for name, cache in sources.caches.items():
            values["troupe_cache_hits"][name,] = cache.hits
            values["troupe_cache_misses"][name,] = cache.misses
            values["troupe_cache_entries"][name,] = len(cache)


Values = dict[str, dict[Labels, Any]]
"""The values of each metric, by its labels."""


def _add_state(values: Values, database: Database, state: Any) -> None:
    for name in ("ready", "running", "stuck", "in_review"):
        values["troupe_tasks"][name,] = state[name]
    place = database.follower.place
    lag = 0 if place is None else max(0, state["position"] - place.position)
    for name, value in (
        ("tasks_ready_oldest_seconds", state["oldest"]),
        ("events_position", state["position"]),
        ("events_unnumbered_oldest_seconds", state["unnumbered"]),
        ("follower_lag_positions", lag),
        ("follower_lag_seconds", state["unread"] if lag else 0),
        ("webhook_deliveries_due", state["due"]),
        ("webhook_deliveries_due_oldest_seconds", state["oldest_due"]),
        ("webhooks_failing", state["failing"]),
    ):
        values[f"troupe_{name}"][()] = value or 0


class _Collector:
    """What a registry of `prometheus_client` reads the values from."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def collect(self) -> Iterator[Family]:
        """The metrics with their values."""
        from prometheus_client import metrics_core as core  # noqa: PLC0415

        kinds = {
            "counter": core.CounterMetricFamily,
            "gauge": core.GaugeMetricFamily,
            "histogram": core.HistogramMetricFamily,
            "info": core.InfoMetricFamily,
        }
        for name, metric in METRICS.items():
            meaning = metric.meaning.replace("`", "'")
            if metric.kind == "info":
                info = core.InfoMetricFamily(name, meaning)
                for labels in self._values[name]:
                    info.add_metric((), dict(zip(metric.labels, labels, strict=True)))
                yield info
                continue
            family: Any = kinds[metric.kind](name, meaning, labels=metric.labels)
            for labels, value in self._values[name].items():
                if isinstance(value, Durations):
                    family.add_metric(labels, _buckets(value), value.sum)
                else:
                    family.add_metric(labels, value)
            yield family


def encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """What encodes a registry as an `Accept` header asks for, and the content type of that."""
    from prometheus_client.exposition import choose_encoder  # noqa: PLC0415

    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a version that is no number
        return choose_encoder("")


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    """The number of durations up to each bound."""
    found, buckets = 0, []
    for bound, count in zip((*map(str, map(float, BOUNDS)), "+Inf"), durations.counts, strict=True):
        found += count
        buckets.append((bound, float(found)))
    return buckets


def table() -> str:
    """All metrics as a Markdown table: name, kind, labels and meaning."""
    lines = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for name, metric in METRICS.items():
        shown = {"counter": f"{name}_total", "info": f"{name}_info"}.get(metric.kind, name)
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{shown}` | {metric.kind} | {labels} | {metric.meaning} |")
    return "\n".join([*lines, ""])
