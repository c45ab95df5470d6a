"""Metrics: what is counted, what it costs nobody to ask for, and who gets it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from websockets.exceptions import InvalidStatus

import db
from db import sweeper
from db.events import follower
from db.events.positions import number_all
from db.statistics import BOUNDS, Durations
from graph.core.cache import Cache
from graph.metrics import database as readings
from graph.metrics.exposition import METRICS, table
from graph.metrics.operations import MOST_NAMES, OTHER, Operations
from graph.settings import Settings
from tests import factories, processes
from tests.conftest import WITHOUT_LIMITS, People, serving
from tests.patience import becomes, until
from tests.processes import Serving
from tests.sockets import listening
from tests.test_logs import Lines, lines  # noqa: F401 - a fixture
from tests.world import World, make_world

ROOT = Path(__file__).parents[1]
DASHBOARD = ROOT / "examples/grafana/troupe.json"

Key = tuple[str, tuple[tuple[str, str], ...]]


def values_of(body: str) -> dict[Key, float]:
    """Each value by the name of its series and by its labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def key(name: str, /, **labels: str) -> Key:
    return f"troupe_{name}", tuple(sorted(labels.items()))


async def metrics(people: People, http: httpx.AsyncClient) -> dict[Key, float]:
    """What an administrator gets."""
    response = await http.get("/metrics", headers={"authorization": f"Bearer {people.admin.token}"})
    assert response.status_code == 200, response.text
    return values_of(response.text)


@pytest.fixture
async def world(
    database: db.Database, http: httpx.AsyncClient, people: People, monkeypatch: pytest.MonkeyPatch
) -> World:
    # Each time anew, because the tests change what is read.
    monkeypatch.setattr(readings, "KEPT_SECONDS", 0.0)
    monkeypatch.setattr(readings, "KEPT_USAGE_SECONDS", 0.0)
    return await make_world(database, http, people)


@pytest.fixture
async def scraped(database: db.Database, world: World) -> Any:
    """A client of an application whose metrics are read anew each time."""
    async with serving(database, WITHOUT_LIMITS) as client:
        yield client


async def test_operations_are_counted_by_kind_name_and_outcome(
    people: People, scraped: httpx.AsyncClient
) -> None:
    owner, nobody = people.owner.through(scraped), people.nobody.through(scraped)
    before = await metrics(people, scraped)

    for _ in range(3):
        await owner.ask("query CountedHere { me { id } }")
    await owner.ask("query CountedHere { nothing }")
    await owner.ask("{ me { id } }")
    await nobody.ask("query NameOfNobody { __typename }")

    after = await metrics(people, scraped)

    def added(name: str, /, **labels: str) -> float:
        return after.get(key(name, **labels), 0) - before.get(key(name, **labels), 0)

    named = {"kind": "query", "name": "CountedHere"}
    assert added("operations_total", **named, outcome="ok") == 3
    assert added("operation_duration_seconds_count", **named) == 3
    assert added("operation_duration_seconds_bucket", **named, le="+Inf") == 3
    assert added("operation_duration_seconds_sum", **named) > 0
    # What is not valid has no name.
    assert added("operations_total", kind="unknown", name="", outcome="BAD_REQUEST") == 1
    assert added("operations_total", kind="query", name="", outcome="ok") == 1
    assert added("operations_total", kind="query", name=OTHER, outcome="ok") == 1
    # Of each token its row, and of each operation its answer; what failed has none.
    assert added("sql_duration_seconds_count") >= 9
    assert added("cache_hits_total", cache="documents") == 2
    assert added("cache_hits_total", cache="statements") == 2
    assert not any("NameOfNobody" in str(labels) for _, labels in after)


def test_names_are_limited() -> None:
    counted = Operations()
    for number in range(MOST_NAMES + 50):
        counted.add("query", f"Q{number}", "ok", 0.1, is_known=True)
    counted.add("query", "Q7", "ok", 0.1, is_known=False)
    counted.add("query", "New", "ok", 0.1, is_known=False)

    assert len(counted.ended) == MOST_NAMES + 1
    assert counted.ended["query", OTHER, "ok"] == 51
    assert counted.ended["query", "Q7", "ok"] == 2
    assert sum(counted.durations["query", OTHER].counts) == 51


def test_a_subscription_has_no_duration() -> None:
    counted = Operations()
    counted.add("subscription", "S", "CLIENT_DISCONNECTED", 900, is_known=True)
    assert counted.ended == {("subscription", "S", "CLIENT_DISCONNECTED"): 1}
    assert not counted.durations


def test_durations_are_counted_up_to_each_bound() -> None:
    durations = Durations()
    for seconds in (0.0001, 0.0005, 0.00051, 20, 21):
        durations.add(seconds)
    assert durations.counts == [2, 1, *[0] * (len(BOUNDS) - 3), 1, 1]
    assert durations.sum == pytest.approx(41.00111)


def test_a_cache_counts_what_it_finds() -> None:
    cache: Cache[str, str] = Cache(10, 100, len)
    assert cache.get("a") is None
    cache.put("a", "x")
    assert (cache.get("a"), cache.find("a"), cache.find("b")) == ("x", "x", None)
    assert (cache.hits, cache.misses) == (1, 1)


async def test_a_limit_that_refuses_is_counted_by_its_setting(
    database: db.Database, people: People
) -> None:
    settings = Settings().model_copy(update={"max_aliases": 1, "max_body_bytes": 1000})
    async with serving(database, settings) as http:
        owner = people.owner.through(http)
        before = await metrics(people, http)
        await owner.ask("{ a: me { id } b: me { id } }")
        await owner.send(b" " * 1001)
        after = await metrics(people, http)

    for limit in ("max_aliases", "max_body_bytes"):
        name = key("limits_refused_total", limit=limit)
        assert after[name] - before.get(name, 0) == 1, limit


async def test_requests_that_are_refused_early_are_counted_and_logged(
    database: db.Database,
    people: People,
    lines: Lines,  # noqa: F811
) -> None:
    settings = Settings().model_copy(update={"max_sockets": 1})
    async with listening(database, settings) as server, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{server.port}"
        headers = {"authorization": f"Bearer {people.admin.token}"}
        before = values_of((await client.get(f"{url}/metrics", headers=headers)).text)
        assert (await client.delete(f"{url}/graphql")).status_code == 404
        async with server.talk(people.owner.token) as talk:
            with pytest.raises(InvalidStatus):
                async with server.connect():
                    pass
            await talk.send("subscribe", id="1", payload={"query": ""})
            assert (await talk.closed())[0] == 4400
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        after = values_of((await client.get(f"{url}/metrics", headers=headers)).text)

    refused = [("sse", 404, "NOT_FOUND"), ("websocket", 503, "UNAVAILABLE")]
    refused += [("websocket", 4400, "BAD_REQUEST"), ("http", 400, "BAD_REQUEST")]
    written = [line for line in lines.objects if line["message"] == "refused"]
    found = [(line["transport"], line["status"], *line["codes"]) for line in written]
    assert found == refused
    for transport, _, code in refused:
        name = key("requests_refused_total", transport=transport, code=code)
        assert after[name] - before.get(name, 0) == 1, transport
    name = key("limits_refused_total", limit="max_sockets")
    assert after[name] - before.get(name, 0) == 1


async def test_tasks_events_and_usage_are_read_from_the_database(
    database: db.Database, people: People, world: World, scraped: httpx.AsyncClient
) -> None:
    before = await metrics(people, scraped)
    assert before[key("database_up")] == 1
    assert before[key("tasks", state="ready")] == 0  # the project is not in progress
    async with database.write(db.Viewer()) as session:
        project = await factories.make_project(session, None, status=db.ProjectStatus.IN_PROGRESS)
        agent = await factories.make_agent(session, project)
        since = datetime.now(UTC) - timedelta(seconds=90)
        await factories.make_task(session, project, "Old", available_at=since)
        await factories.make_task(session, project, "New")
        await factories.make_task(
            session, project, "Later", available_at=since + timedelta(hours=1)
        )
        await factories.make_task(
            session,
            project,
            "Asked",
            status=db.TaskStatus.BLOCKED,
            blocked_reason=db.BlockedReason.HUMAN_INPUT,
        )
        await factories.make_claimed(session, agent, "Running")
        await factories.make_claimed(session, agent, "Lost", expires_at=since)
        model = await factories.make_model(session, "a-model")
        await session.flush()
        for success in (True, True, False):
            await factories.make_usage(
                session, project, model, cost=Decimal("0.5"), input_tokens=7, success=success
            )

    found = await metrics(people, scraped)
    states = {"ready": 2, "running": 1, "stuck": 1, "in_review": 1}
    assert {each: found[key("tasks", state=each)] for each in states} == states
    assert 90 <= found[key("tasks_ready_oldest_seconds")] < 180
    assert found[key("events_unnumbered_oldest_seconds")] > 0
    assert found[key("usage_hour_cost_dollars", model="a-model")] == 1.5
    assert found[key("usage_hour_calls", model="a-model", outcome="failed")] == 1
    assert found[key("usage_hour_calls", model="a-model", outcome="succeeded")] == 2
    assert found[key("usage_hour_tokens", model="a-model", direction="input")] == 21

    lost = found[key("leases_lost_total")]
    assert await sweeper.sweep(database) == 1
    await number_all(database)
    found = await metrics(people, scraped)
    assert found[key("leases_lost_total")] == lost + 1
    assert found[key("tasks", state="stuck")] == 0
    assert found[key("events_unnumbered_oldest_seconds")] == 0
    assert found[key("events_position")] > before[key("events_position")]


async def test_nothing_is_late_when_nobody_listens_any_more(
    people: People, database: db.Database, scraped: httpx.AsyncClient, monkeypatch: Any
) -> None:
    monkeypatch.setattr(follower, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.1)
    reader = database.follower
    await reader.started()
    await becomes(lambda: reader._task is not None and reader._task.done())

    async with database.write(db.Viewer()) as session:
        await factories.make_project(session, None)
    await number_all(database)

    found = await metrics(people, scraped)
    assert found[key("follower_lag_positions")] == 0
    assert found[key("follower_lag_seconds")] == 0


async def test_the_database_is_read_once_in_some_seconds_and_never_fails_a_scrape(
    database: db.Database, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    fetch = database.fetch

    async def counting(statement: str, *arguments: Any, **options: Any) -> Any:
        reads.append(statement)
        return await fetch(statement, *arguments, **options)

    monkeypatch.setattr(database, "fetch", counting)
    async with serving(database, WITHOUT_LIMITS) as http:
        await asyncio.gather(*(metrics(people, http) for _ in range(5)))
    assert sorted(reads) == sorted([readings.STATE, readings.USAGE])

    async def failing(*_: Any, **__: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(database, "fetch", failing)
    async with serving(database, WITHOUT_LIMITS) as http:
        found = await metrics(people, http)
    assert found[key("database_up")] == 0
    assert key("tasks", state="ready") not in found
    assert found[key("pool_size", pool="compiled")] == 10


async def test_pools_say_who_uses_and_who_waits(database: db.Database) -> None:
    assert {use[1:] for use in database.pools().values()} == {(0, 0)}

    async def sleep() -> None:
        await database.fetch("SELECT pg_sleep(0.5)", [])

    sleeping = [asyncio.create_task(sleep()) for _ in range(13)]
    async with database.reader.connect():
        await asyncio.sleep(0.2)
        uses = database.pools()
        assert uses["compiled"] == (10, 10, 3)
        assert uses["resolvers"] == (10, 1, 0)
    await asyncio.gather(*sleeping)
    assert {use[1:] for use in database.pools().values()} == {(0, 0)}


async def test_a_statement_with_an_error_is_counted_by_its_code(
    database: db.Database, people: People, scraped: httpx.AsyncClient
) -> None:
    name = key("sql_failures_total", sqlstate="22P02")
    before = (await metrics(people, scraped)).get(name, 0)
    with pytest.raises(Exception, match="invalid input syntax"):
        await database.fetch("SELECT 'x'::int", [])
    async with database.reader.connect() as connection:
        with pytest.raises(Exception, match="invalid input syntax"):
            await connection.execute(text("SELECT 'x'::int"))
    assert (await metrics(people, scraped))[name] == before + 2


async def test_only_administrators_get_them_on_the_port_of_the_api(
    database: db.Database, people: People
) -> None:
    production = Settings().model_copy(update={"mode": "production"})
    shown = production.model_copy(update={"metrics_for_administrators": True})
    for settings, statuses in (
        (Settings(), (200, 403, 401, 401)),
        (shown, (200, 403, 401, 401)),
        (production, (404,) * 4),
    ):
        async with serving(database, settings) as http:
            found = []
            for token in (people.admin.token, people.owner.token, "troupe_" + "x" * 43, None):
                headers = {"authorization": f"Bearer {token}"} if token else {}
                response = await http.get("/metrics", headers=headers)
                found.append(response.status_code)
                assert ("troupe_operations" in response.text) == (response.status_code == 200)
        assert tuple(found) == statuses


async def test_who_asks_for_them_in_vain_is_charged_counted_and_logged(
    database: db.Database,
    people: People,
    lines: Lines,  # noqa: F811
) -> None:
    few = Settings().model_copy(update={"rate_burst": 3, "rate_per_second": 0.001})
    async with serving(database, few) as http:
        waits = []
        for status in (401, 401, 401, 429):
            wrong = {"authorization": "Bearer troupe_" + "x" * 43}
            response = await http.get("/metrics", headers=wrong)
            assert response.status_code == status
            waits.append(response.headers.get("retry-after"))
        assert waits[:3] == [None] * 3
        assert int(waits[3] or 0) > 0
        found = await metrics(people, http)
    written = [(line["message"], line["status"], *line["codes"]) for line in lines.objects]
    unknown, limited = ("refused", 401, "UNAUTHENTICATED"), ("refused", 429, "RATE_LIMITED")
    assert written == [unknown, unknown, unknown, limited]
    assert found[key("requests_refused_total", transport="http", code="RATE_LIMITED")] >= 1


async def test_a_request_that_is_no_operation_is_not_counted_as_one(
    database: db.Database, people: People, scraped: httpx.AsyncClient
) -> None:
    before = await metrics(people, scraped)
    assert (await people.owner.through(scraped).send(b"{")).status_code == 400
    after = await metrics(people, scraped)

    def added(name: str, /, **labels: str) -> float:
        return after.get(key(name, **labels), 0) - before.get(key(name, **labels), 0)

    assert added("requests_refused_total", transport="http", code="BAD_REQUEST") == 1
    assert added("operations_total", kind="unknown", name="", outcome="BAD_REQUEST") == 0


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
        ("application/openmetrics-text; version=x", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_format_is_negotiated(
    people: People, scraped: httpx.AsyncClient, accept: str, kind: str
) -> None:
    headers = {"authorization": f"Bearer {people.admin.token}", "accept": accept}
    response = await scraped.get("/metrics", headers=headers)
    assert response.headers["content-type"].startswith(kind)
    assert response.text.endswith("# EOF\n") == ("openmetrics" in kind)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def test_in_production_they_have_a_port_of_their_own(made: tuple[Path, str]) -> None:
    port = free_port()
    with processes.place() as folder:
        data_dir, token = processes.copied(made[0], folder / "data"), made[1]
        settings: dict[str, Any] = {"data_dir": data_dir, "mode": "production"}
        with Serving(folder, **settings, metrics_port=port) as server:
            server.ready()
            assert f"http://127.0.0.1:{port}/metrics" in server.out
            assert server.get("/metrics").status_code == 404
            assert server.ask("query Asked { me { id } }", token)["data"]
            url = f"http://127.0.0.1:{port}"
            response = httpx.get(f"{url}/metrics")
            found = values_of(response.text)
            name = key("operations_total", kind="query", name="Asked", outcome="ok")
            assert found[name] == 1
            assert httpx.get(f"{url}/graphql").status_code == 404
            # Of the port that is in use, the next server says so.
            other = folder / "other"
            other.mkdir()
            with Serving(other, data_dir=other / "data", metrics_port=port) as second:
                second.ended()
                assert f"set TROUPE_METRICS_PORT to another port, such as {port + 1}" in second.err
            assert not (other / "data").exists()  # before anything is started
            assert server.stop().clean
            if shutil.which("promtool"):
                command = ["promtool", "check", "metrics"]
                checked = subprocess.run(command, input=response.content, capture_output=True)
                assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr
            until(lambda: '"stopped"' in server.out)


# The first fault of an operation begins a series, in which nothing has increased.
FIRST_FAULT = """rule_files: [{rules}]
tests:
  - interval: 1m
    input_series:
      - series: 'troupe_operations_total{{kind="query", name="A", outcome="FAULT"}}'
        values: '_x9 1x20'
      - series: 'troupe_operations_total{{kind="query", name="B", outcome="FAULT"}}'
        values: '3x16 4x14'
    alert_rule_test:
      - {{eval_time: 8m, alertname: faults}}
      - eval_time: 12m
        alertname: faults
        exp_alerts: [{{exp_labels: {{kind: query, name: A, outcome: FAULT}}}}]
      - eval_time: 19m
        alertname: faults
        exp_alerts: [{{exp_labels: {{kind: query, name: B, outcome: FAULT}}}}]
      - {{eval_time: 25m, alertname: faults}}
"""


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_reads_the_queries_of_the_dashboard_and_the_alerts(tmp_path: Path) -> None:
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    rows = page.partition("| alert |")[2].partition("\n\n")[0].splitlines()[2:]
    names, expressions = zip(*(row.split("|", 2)[1:] for row in rows), strict=True)
    alerts = dict(zip((name.strip().partition(",")[0] for name in names), expressions, strict=True))
    assert len(alerts) > 5
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    rules: list[dict[str, str]] = [
        {"alert": name, "expr": expression.split("`")[1]} for name, expression in alerts.items()
    ]
    for number, query in enumerate(queries):
        shown = query.replace("$__rate_interval", "1m")
        rules.append({"record": f"panel:{number}", "expr": shown})
    path = tmp_path / "rules.json"  # which is YAML too
    path.write_text(json.dumps({"groups": [{"name": "troupe", "rules": rules}]}), encoding="utf-8")
    tested = tmp_path / "faults.yaml"
    tested.write_text(FIRST_FAULT.format(rules=path), encoding="utf-8")
    for words in (("check", "rules", path), ("test", "rules", tested)):
        done = subprocess.run(["promtool", *words], capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_of_the_dashboard_exists_and_all_are_documented() -> None:
    shown = {f"{name}_total" if each.kind == "counter" else name for name, each in METRICS.items()}
    histograms = [name for name, each in METRICS.items() if each.kind == "histogram"]
    shown |= {f"{name}_{part}" for name in histograms for part in ("bucket", "count", "sum")}
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {word for query in queries for word in _names(query)}
    assert named
    assert named <= shown
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    # Each is somewhere on it, but the version and the number of entries.
    missing = {name for name in METRICS if not any(word.startswith(name) for word in named)}
    assert missing == {"troupe_build", "troupe_cache_entries"}
    page = (ROOT / "docs/observability.md").read_text(encoding="utf-8")
    assert table() in page


def _names(query: str) -> list[str]:
    words = "".join(letter if letter.isalnum() or letter == "_" else " " for letter in query)
    return [word for word in words.split() if word.startswith("troupe_")]
