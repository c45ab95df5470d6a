"""Traces: which spans there are, how they hang together, and that nobody pays if they are off."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

import db
from db import AgentStatus, ProjectStatus, leases, sweeper, telemetry
from db.settings import SettingsError
from db.statistics import MOST_COLLECTED, Call
from graph import tracing
from graph.core.scalars import parse_key
from graph.tracing import activation, attempts
from graph.tracing import process as exporter
from graph.tracing.process import ExporterProcess
from graph.tracing.records import LONGEST_STATEMENT, Record
from graph.tracing.spans import Spans
from graph.tracing.tracer import Tracer
from tests import factories, processes
from tests.conftest import People
from tests.patience import becomes, until
from tests.processes import Serving
from tests.sockets import Talk, listening
from tests.test_mcp import Agent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"


class Sent:
    """The spans that are sent."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._spans: list[ReadableSpan] = []
        self._made = Spans()

    def add(self, record: Record) -> None:
        """Send those of a record."""
        self._records.append(orjson.dumps(record))

    def all(self) -> list[ReadableSpan]:
        """The spans until now, in the order in which they ended."""
        while self._records:
            self._spans += self._made.of(orjson.loads(self._records.pop(0)))
        return list(self._spans)

    def clear(self) -> None:
        """Forget them."""
        self.all()
        self._spans.clear()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What is sent in the test, in which traces are on."""
    sent = Sent()
    monkeypatch.setattr(tracing, "active", Tracer(sent.add))
    return sent


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """The ids of the trace, of the span and of its parent."""
    context, parent = span.context, span.parent
    assert context is not None
    above = None if parent is None else f"{parent.span_id:016x}"
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", above


def trace_of(traceparent: str) -> str:
    """The id of the trace."""
    return traceparent.split("-")[1]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_an_operation_has_a_span_and_so_have_its_statements(
    database: db.Database, people: People, spans: Sent
) -> None:
    async with database.write(db.Viewer()) as session:
        await factories.make_plan(session, people.users["owner"], projects=3)
    query = 'query Found { projects(where: {name: {eq: "My secret"}}) { nodes { name } } }'

    response = await people.owner.send({"query": query}, traceparent=SAMPLED)

    assert response.json() == {"data": {"projects": {"nodes": []}}}
    token, read, operation = spans.all()
    trace, own, parent = ids(operation)
    assert (trace, parent) == (TRACE, SPAN)
    assert (operation.name, operation.kind) == ("query", SpanKind.SERVER)
    assert attributes(operation) == {
        "graphql.operation.name": "Found",
        "graphql.operation.type": "query",
        "troupe.transport": "http",
    }
    for statement in (token, read):
        assert ids(statement)[::2] == (TRACE, own)
        assert statement.kind is SpanKind.CLIENT
        known = attributes(statement)
        assert known["db.system.name"] == "postgresql"
        assert known["db.query.text"].split()[0] == known["db.operation.name"] == statement.name
        assert known["db.response.returned_rows"] == 1
        assert "My secret" not in known["db.query.text"]
        assert len(known["db.query.text"]) <= LONGEST_STATEMENT
        assert operation.start_time is not None
        assert statement.start_time is not None
        assert statement.end_time is not None
        assert operation.end_time is not None
        assert operation.start_time <= statement.start_time <= statement.end_time
        assert statement.end_time <= operation.end_time
    assert (token.end_time or 0) <= (read.start_time or 0)
    assert len({ids(span)[1] for span in (token, read, operation)}) == 3
    assert operation.resource.attributes["service.name"] == "troupe"


async def test_a_message_of_mcp_names_its_trace(
    database: db.Database, http: httpx.AsyncClient, people: People, spans: Sent
) -> None:
    agent, other = Agent(http, people.owner.token), f"00-{TRACE[::-1]}-{SPAN}-01"
    message = agent.message("tools/call", name="search", arguments={"query": "x"})
    for named, trace in ((None, TRACE), (SAMPLED, TRACE), (other, TRACE[::-1])):
        if named is not None:
            message["params"]["_meta"]["traceparent"] = named
        headers = agent.headers(message) | {"traceparent": SAMPLED}
        assert (await agent.raw(orjson.dumps(message), **headers)).status_code == 200
        (operation,) = (each for each in spans.all() if each.kind is SpanKind.SERVER)
        assert ids(operation)[::2] == (trace, SPAN)
        assert attributes(operation)["graphql.operation.name"] == "search"
        assert attributes(operation)["troupe.transport"] == "mcp"
        spans.clear()


async def test_an_operation_on_a_websocket_names_its_trace(
    database: db.Database, people: People, spans: Sent
) -> None:
    """The operation does, or else `connection_init`, or else the handshake."""
    first, second, third = (f"00-{TRACE[n:]}{TRACE[:n]}-{SPAN}-01" for n in (1, 2, 3))

    async def traces(talk: Talk, *extensions: Any) -> list[str | None]:
        for each in extensions:
            answer = await talk.ask("{ me { id } }", extensions=each)
            assert answer["data"]["me"], answer
        operations = [each for each in spans.all() if each.kind is SpanKind.SERVER]
        assert {attributes(each)["troupe.transport"] for each in operations} == {"websocket"}
        spans.clear()
        found = [ids(each) for each in operations]
        return [None if parent is None else trace for trace, _, parent in found]

    token = f"Bearer {people.owner.token}"
    async with listening(database) as server:
        named: list[Any] = [None, {"traceparent": third}, {"traceparent": 1}, {"traceparent": "x"}]
        async with server.talk(people.owner.token) as talk:
            assert await traces(talk, *named) == [None, trace_of(third), None, None]
        async with server.talk(
            people.owner.token, additional_headers={"traceparent": first}
        ) as talk:
            expected = [trace_of(first), trace_of(third), trace_of(first), None]
            assert await traces(talk, *named) == expected
        async with server.connect(additional_headers={"traceparent": first}) as connection:
            talk = Talk(connection)
            payload = {"Authorization": token, "traceparent": second}
            await talk.send("connection_init", payload=payload)
            await talk.heard()
            expected = [trace_of(second), trace_of(third), trace_of(second), None]
            assert await traces(talk, *named) == expected


async def test_a_subscription_is_part_of_the_trace_that_it_names(
    database: db.Database, people: People, spans: Sent
) -> None:
    async with listening(database) as server, server.talk(people.owner.token) as talk:
        query = "subscription Mine { inbox { cursor } }"
        await talk.subscribe(query, extensions={"traceparent": SAMPLED})
        assert (await talk.heard())["type"] == "next"
        await talk.send("complete", id="1")
        await becomes(lambda: any(each.name == "subscription" for each in spans.all()))
    operation = next(each for each in spans.all() if each.name == "subscription")
    assert ids(operation)[::2] == (TRACE, SPAN)
    assert attributes(operation)["graphql.operation.name"] == "Mine"


async def test_without_a_traceparent_or_with_a_wrong_one_a_trace_begins(
    people: People, spans: Sent
) -> None:
    for header in ({}, {"traceparent": "00-x-y-01"}, {"traceparent": f"ff-{TRACE}-{SPAN}-01"}):
        await people.owner.send({"query": "{ me { id } }"}, **header)
    operations = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    traces = {ids(span)[0] for span in operations}
    assert len(traces) == 3
    assert TRACE not in traces
    assert [ids(span)[2] for span in operations] == [None] * 3


async def test_what_is_refused_and_a_statement_that_fails_have_errors(
    database: db.Database, people: People, spans: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    await people.owner.send({"query": "{"})
    (operation,) = (span for span in spans.all() if span.kind is SpanKind.SERVER)
    assert operation.name == "GraphQL Operation"
    assert operation.status.status_code is StatusCode.ERROR
    assert attributes(operation)["error.type"] == "BAD_REQUEST"

    spans.clear()
    json = database.json

    async def failing(statement: str, *_: Any, **__: Any) -> bytes:
        return await json("SELECT 'x'::int", [])

    monkeypatch.setattr(database, "json", failing)
    await people.owner.send({"query": "{ me { id } }"})
    *_, failed, operation = spans.all()
    assert failed.status.status_code is StatusCode.ERROR
    assert attributes(failed)["error.type"] == "22P02"
    assert attributes(failed)["db.response.status_code"] == "22P02"
    assert attributes(operation)["error.type"] == "FAULT"


async def test_what_is_not_sampled_is_not_sent(people: People, spans: Sent) -> None:
    await people.owner.send({"query": "{ me { id } }"}, traceparent=NOT_SAMPLED)
    assert spans.all() == []


@pytest.fixture
async def agent(database: db.Database, people: People) -> db.Agent:
    """An agent that is ready, in a project with tasks."""
    async with database.write(db.Viewer()) as session:
        owner, status = people.users["owner"], ProjectStatus.IN_PROGRESS
        project = await factories.make_project(session, owner, status=status)
        for title in ("First", "Second"):
            await factories.make_task(session, project, title)
        return await factories.make_agent(
            session, project, status=AgentStatus.READY, max_concurrent_tasks=9
        )


CLAIM = """mutation($agent: ID!) { claimTask(input: {agentId: $agent}) {
  attempt { id traceparent task { id } } reason
} }"""


async def claimed(people: People, agent: db.Agent, traceparent: str | None = None) -> Any:
    """The attempt of a claim that is sent with this header."""
    body = {"query": CLAIM, "variables": {"agent": str(agent.id)}}
    headers = {} if traceparent is None else {"traceparent": traceparent}
    response = await people.owner.send(body, **headers)
    return response.json()["data"]["claimTask"]["attempt"]


@pytest.mark.parametrize("way", ["complete", "fail", "expire"])
async def test_an_attempt_has_a_span_from_its_claim_to_its_end(
    database: db.Database,
    people: People,
    agent: db.Agent,
    spans: Sent,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "PAUSE_SECONDS", 0.01)
    tracing_attempts = asyncio.create_task(attempts.trace_attempts(database))
    await asyncio.sleep(0)
    attempt = await claimed(people, agent, SAMPLED)
    id = UUID(str(parse_key(db.TaskAttempt, attempt["id"])))
    claim = next(span for span in spans.all() if span.kind is SpanKind.SERVER)
    assert attempt["traceparent"] == f"00-{TRACE}-{telemetry.span_id_of(id)}-01"
    spans.clear()

    if way == "complete":
        await people.owner.change("completeTask { attempt { id } }", attemptId=attempt["id"])
        # Once, though it is sent again.
        await people.owner.change("completeTask { attempt { id } }", attemptId=attempt["id"])
    elif way == "fail":
        await people.owner.change(
            "failTask { attempt { id } }", attemptId=attempt["id"], error="No", retryable=False
        )
    else:
        async with database.write(db.Viewer(is_administrator=True)) as session:
            await session.execute(
                leases.table.update().values(expires_at=datetime.now(UTC) - timedelta(hours=1))
            )
        assert await sweeper.sweep(database) == 1

    def found() -> list[ReadableSpan]:
        return [span for span in spans.all() if span.name == "attempt"]

    await becomes(lambda: bool(found()))
    await asyncio.sleep(0.1)
    (span,) = found()
    assert ids(span) == (TRACE, telemetry.span_id_of(id), ids(claim)[1])
    status = {"complete": "SUCCEEDED", "fail": "FAILED", "expire": "LEASE_LOST"}[way]
    known = attributes(span)
    assert known["troupe.attempt.id"] == str(id)
    assert known["troupe.attempt.status"] == status
    assert known["troupe.agent.id"] == str(agent.id)
    assert known["troupe.attempt.number"] == 1
    assert known.get("error.type") == (None if way == "complete" else status)
    async with database.read() as reading:
        ended_at = await reading.scalar(
            db.TaskAttempt.__table__.select().with_only_columns(db.TaskAttempt.ended_at)
        )
    assert ended_at is not None
    assert abs((span.end_time or 0) / 1e9 - ended_at.timestamp()) < 0.001
    tracing_attempts.cancel()
    await asyncio.gather(tracing_attempts, return_exceptions=True)
    assert telemetry.ended_attempts is None


async def test_an_attempt_that_is_not_sampled_says_so_to_its_worker(
    database: db.Database, people: People, agent: db.Agent, spans: Sent
) -> None:
    attempt = await claimed(people, agent, NOT_SAMPLED)
    id = UUID(str(parse_key(db.TaskAttempt, attempt["id"])))
    assert attempt["traceparent"] == f"00-{TRACE}-{telemetry.span_id_of(id)}-00"
    # The same by the resolvers, and as long as it exists.
    query = "query($id: ID!) { taskAttempt(id: $id) { traceparent } }"
    answer = await people.owner.ask(query, id=attempt["id"])
    assert answer.data["taskAttempt"]["traceparent"] == attempt["traceparent"]
    assert spans.all()
    assert TRACE not in {ids(span)[0] for span in spans.all()}


async def test_without_traces_attempts_have_none(people: People, agent: db.Agent) -> None:
    assert tracing.active is None
    assert (await claimed(people, agent, SAMPLED))["traceparent"] is None


def test_nothing_of_opentelemetry_is_imported_without_its_variables() -> None:
    code = (
        "import sys, graph.app, graph.serve; graph.serve.activation.start();"
        "print([name for name in sys.modules if name.startswith(('opentelemetry', 'prometheus'))])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER=zipkin cannot be used"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc cannot be used",
        ),
    ],
)
def test_what_is_not_supported_is_refused(
    variables: dict[str, str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=sentence):
        activation.start()


@pytest.mark.parametrize("name", ["graph.tracing.tracer", activation.EXPORTER])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=r"install `troupe\[otel\]`"):
        activation.start()
    assert tracing.active is None


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_decide(
    variables: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert activation.is_wanted() is wanted


@contextmanager
def collecting() -> Iterator[tuple[str, list[Any]]]:
    """A collector: its address, and the resources with their spans that it got."""
    got: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert (self.path, self.headers["content-type"]) == (
                "/v1/traces",
                "application/x-protobuf",
            )
            got.extend(ExportTraceServiceRequest.FromString(body).resource_spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_sends_them_to_a_collector_by_otlp(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with processes.place() as folder, collecting() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            headers = {"authorization": f"Bearer {server.token}", "traceparent": SAMPLED}
            server.ask_with(headers, "query Traced { me { id } }")
            assert server.stop().clean  # the last spans are sent before
        until(lambda: bool(got))
    (resource,) = got
    values = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert values["service.name"] == "troupe"
    assert values["deployment.environment.name"] == "test"
    found = spans_in(got)
    operation = next(span for span in found if span.name == "query")
    assert (operation.trace_id.hex(), operation.parent_span_id.hex()) == (TRACE, SPAN)
    below = [span for span in found if span.parent_span_id == operation.span_id]
    assert len(below) == len(found) - 1 >= 1


def record(**values: Any) -> Record:
    """A record of an operation without statements."""
    found: Record = {
        "name": "query",
        "kind": "SERVER",
        "traceparent": None,
        "parent": SAMPLED,
        "attributes": {},
        "error": None,
        "clock": 1_000_000_000,
        "began": 7.0,
        "ended": 7.5,
        "statements": (),
    }
    found.update(values)  # type: ignore[typeddict-item]
    return found


def test_the_times_of_statements_are_those_of_the_operation() -> None:
    statement = ("select 1", 3, 7.125, 0.25, None)

    first, operation = Spans().of(record(statements=[statement]))

    assert (first.name, attributes(first)["db.response.returned_rows"]) == ("SELECT", 3)
    assert (first.start_time, first.end_time) == (8_125_000_000, 8_375_000_000)
    assert (operation.start_time, operation.end_time) == (8_000_000_000, 8_500_000_000)


@pytest.mark.parametrize(
    ("sampler", "traceparent", "sampled"),
    [
        ("parentbased_always_on", None, True),
        ("parentbased_always_on", NOT_SAMPLED, False),
        ("parentbased_always_off", None, False),
        ("parentbased_always_off", SAMPLED, True),
        ("always_on", NOT_SAMPLED, True),
        ("always_off", SAMPLED, False),
    ],
)
def test_both_processes_decide_alike_what_is_sampled(
    sampler: str, traceparent: str | None, sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
    sent = Sent()
    tracer = Tracer(sent.add)
    for is_asked in (False, True):
        trace = tracer.begin(traceparent)
        named = trace.traceparent if is_asked else None
        tracer.end(trace, "query", {}, [Call("SELECT 1", 1, 0.0, 0.0)], 0.0)
        assert len(sent.all()) == (2 if sampled else 0)
        if named is not None:
            assert named.endswith(f"0{sampled:d}")
            assert not sampled or named == f"00-{'-'.join(ids(sent.all()[1])[:2])}-01"
        sent.clear()


def test_an_operation_has_spans_of_its_first_statements_only() -> None:
    sent = Sent()
    tracer = Tracer(sent.add)
    text = f"SELECT {'x' * LONGEST_STATEMENT}"
    calls = [Call(text, place, 0.0, 0.0) for place in range(MOST_COLLECTED + 50)]
    tracer.end(tracer.begin(None), "query", {}, calls, 0.0)
    *statements, _ = map(attributes, sent.all())
    assert {each["db.query.text"] for each in statements} == {text[:LONGEST_STATEMENT]}
    rows = [each["db.response.returned_rows"] for each in statements]
    assert rows == list(range(MOST_COLLECTED))


def spans_in(got: Sequence[Any]) -> list[Any]:
    """The spans that a collector got."""
    return [span for resource in got for scope in resource.scope_spans for span in scope.spans]


def test_the_process_that_sends_imports_nothing_that_takes_long() -> None:
    code = (
        "import sys, graph.tracing.exporter, graph.tracing.spans;"
        "print({name.split('.')[0] for name in sys.modules} & {'db', 'graphql', 'sqlalchemy'})"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert found.stdout == b"set()\n"


@pytest.fixture
def sending(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ExporterProcess, list[Any]]]:
    """A process that sends spans, and what a collector gets from it."""
    with collecting() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        process = ExporterProcess()
        yield process, got
        process.stop()


def names(got: Sequence[Any]) -> list[str]:
    """The names of the spans that a collector got."""
    return [span.name for span in spans_in(got)]


def test_many_spans_are_sent_in_several_messages(
    sending: tuple[ExporterProcess, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    """Of a burst, none are lost, though the SDK drops more than 2,048 that wait."""
    process, got = sending
    statements = [("SELECT 1", 1, 7.0, 0.0, None)] * 99
    for _ in range(100):
        process.add(record(statements=statements))
    process.stop()
    assert len(spans_in(got)) == 10_000
    assert max(len(spans_in([resource])) for resource in got) == 512
    assert caplog.messages == []


def test_a_process_that_has_ended_is_started_again(
    sending: tuple[ExporterProcess, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """That is noticed also if there is nothing to send."""
    monkeypatch.setattr(exporter, "RESTART_SECONDS", 0.05)
    process, got = sending
    process.add(record(name="first"))
    until(lambda: got)
    killed = process._process
    killed.kill()
    until(lambda: process._process is not killed)
    process.add(record(name="last"))
    until(lambda: names(got) == ["first", "last"])
    assert caplog.messages == ["The process that sends traces has ended: its status is -9"]
    first, last = (
        {each.key: each.value.string_value for each in resource.resource.attributes}
        for resource in got
    )
    assert first["service.instance.id"] == last["service.instance.id"] != ""


def test_records_that_could_not_be_written_are_counted(
    sending: tuple[ExporterProcess, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    process, got = sending
    process._process.kill()
    with process._lock:
        until(lambda: process._process.poll() is not None)
    process.add(record(name="lost"))
    process.stop()
    assert got == []
    assert caplog.messages == [
        "The process that sends traces has ended: its status is -9",
        "The last 1 traces are lost.",
    ]


def test_what_is_stopped_has_sent_the_last_spans(
    sending: tuple[ExporterProcess, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    process, got = sending
    process.add(record(name="first"))
    until(lambda: got)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process._process.send_signal(number)  # a service manager sends them to all
    for name in map(str, range(100)):
        process.add(record(name=name))

    process.stop()

    assert names(got) == ["first", *map(str, range(100))]
    assert process._process.returncode == 0
    assert caplog.messages == []


def test_a_record_that_is_wrong_is_lost_alone(
    sending: tuple[ExporterProcess, list[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    process, got = sending
    process.add(record(name="first"))
    process.add(record(name="\ud800"))  # it cannot be encoded
    process.add(record(name="blank", statements=[("", 1, 7.0, 0.0, None)]))
    process.add(record(name="last"))
    until(lambda: names(got) == ["first", "last"])
    assert "1 traces are lost." in caplog.messages
    until(lambda: len(caplog.messages) == 2)
    assert "traces: a trace is lost: IndexError: list index out of range" in caplog.messages


def test_a_process_that_reads_nothing_delays_nothing_and_takes_little_memory(
    sending: tuple[ExporterProcess, list[Any]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(exporter, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(exporter, "MOST_BYTES", 1_000_000)
    process, got = sending
    process._process.send_signal(signal.SIGSTOP)
    statements = [("SELECT " + "1" * 1_000, 1, 7.0, 0.0, None)] * 100
    for _ in range(5):
        process.add(record(statements=statements))
    until(lambda: process._size == 0)  # now they are being written
    for _ in range(50):
        process.add(record(statements=statements))
    assert 800_000 < process._size <= 1_000_000
    lost = process._dropped
    assert lost == 50 - len(process._lines) == 41

    process.stop()

    assert not process._thread.is_alive()
    assert process._process.returncode == -signal.SIGKILL
    assert got == []
    assert caplog.messages == [
        "The process that sends traces has ended: Broken pipe",
        "The last 55 traces are lost.",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_BSP_MAX_QUEUE_SIZE", "100"), ("OTEL_BSP_SCHEDULE_DELAY", "-1")],
)
def test_a_wrong_variable_is_refused_when_it_starts(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"Traces cannot be sent .* ValueError: .* must be"):
        activation.start()
    assert tracing.active is None


def test_it_is_the_same_program_wherever_the_server_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not one that lies in the current folder."""
    (tmp_path / "graph").mkdir()
    (tmp_path / "orjson.py").write_text("raise SystemExit(7)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    process = ExporterProcess()
    process.stop()
    assert process._process.returncode == 0


def test_a_process_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "START_SECONDS", 0.01)
    with pytest.raises(exporter.CannotStart, match=r"not ready in 0\.01 seconds"):
        ExporterProcess()


def test_headers_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=first, my secret key")
    process = ExporterProcess()
    process.stop()
    until(lambda: caplog.messages)
    assert "secret" not in caplog.text
    assert "Header format invalid" in caplog.text


@pytest.mark.parametrize(
    "traceparent",
    [
        "\ud800",
        f" {SAMPLED}",
        f"{SAMPLED}\n",
        f"{SAMPLED}-{'x' * 1_000}",
        SAMPLED.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
    ],
)
def test_a_traceparent_that_is_not_valid_counts_as_none(traceparent: str) -> None:
    sent = Sent()
    tracer = Tracer(sent.add)
    tracer.end(tracer.begin(traceparent), "query", {}, [], 0.0)
    (operation,) = sent.all()
    assert ids(operation)[2] is None
    assert ids(operation)[0] != TRACE


def test_of_a_later_version_the_known_parts_count() -> None:
    sent = Sent()
    tracer = Tracer(sent.add)
    trace = tracer.begin(f"01-{TRACE}-{SPAN}-01-{'x' * 1_000}")
    tracer.end(trace, "query", {}, [], 0.0)
    assert ids(sent.all()[0])[::2] == (TRACE, SPAN)


def sender_of(server: Serving) -> int | None:
    """The process that sends the spans of a server."""
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        for child in (thread / "children").read_text(encoding="utf-8").split():
            if b"graph.tracing.exporter" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def test_a_server_that_is_killed_leaves_no_process(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with processes.place() as folder, collecting() as (url, got):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            server.ask("query Traced { me { id } }")
            sender = until(lambda: sender_of(server))
            time.sleep(3 * exporter.PAUSE_SECONDS)
            server.kill()
            until(lambda: not Path(f"/proc/{sender}").exists())
        assert "query" in [span.name for span in spans_in(got)]


def test_a_collector_that_is_gone_delays_nothing(
    made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with processes.place() as folder:
        data_dir = processes.copied(made[0], folder / "data")
        with Serving(folder, data_dir=data_dir) as server:
            server.ready()
            assert server.ask("{ me { username } }") == {"data": {"me": {"username": "admin"}}}
            assert server.stop().status == 0
