"""The settings: valid and invalid values of each `TROUPE_…` variable, and the error messages."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from db.settings import SettingsError
from graph.serve import listen
from graph.settings import Audience, Mode, Settings
from tests.processes import LIMITS

OUT = "leave it out"
HINT = "write postgresql://user:password@host:5432/database"
LOOPBACK = (
    "a development server must be on a loopback address; write 127.0.0.1, or set"
    " TROUPE_MODE=production"
)
A_MODE = "write development or production"
A_PORT = "write a whole number from 0 to 65535"
AN_ORIGIN = "write origins such as https://app.example.org, without a path"
PROXIES = "write addresses or networks, such as 10.0.0.5,10.1.0.0/16"
EVERYBODY = "it would trust every client; write the addresses of the proxies"
A_FOLDER = "write the path of a folder, such as /var/lib/troupe"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without settings."""
    for name in [name for name in os.environ if name.startswith("TROUPE_")]:
        monkeypatch.delenv(name)


def refusal(monkeypatch: pytest.MonkeyPatch, **values: str) -> str:
    """The error message for these values."""
    for name, value in values.items():
        monkeypatch.setenv(f"TROUPE_{name.upper()}", value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    return str(caught.value)


def test_by_default_a_server_is_for_development_on_loopback() -> None:
    settings = Settings.load()
    assert settings.model_dump() == {
        "mode": Mode.DEVELOPMENT,
        "host": "127.0.0.1",
        "port": 8000,
        "event_days": 90,
        "database_url": None,
        "database_direct_url": None,
        "database_replica_url": None,
        "processes": 1,
        "metrics_port": None,
        "metrics_host": "127.0.0.1",
        "metrics_for_administrators": None,
        "compiler": True,
        "console": True,
        "graphiql": None,
        "allowed_origins": (),
        "trusted_proxies": ("127.0.0.1", "::1"),
        "max_body_bytes": 1048576,
        "log_operations": True,
        "drain_seconds": 0,
        "grace_seconds": 10,
        "data_dir": None,
        "introspection": None,
        "persisted_queries": True,
        "max_document_length": 50_000,
        "max_tokens": 5_000,
        "max_depth": 20,
        "max_fields": 2_000,
        "max_aliases": 100,
        "max_directives": 50,
        "max_root_fields": 50,
        "max_values": 10_000,
        "max_conditions": 100,
        "max_cost": 20_000,
        "max_answer_bytes": 10_000_000,
        "rate_per_second": 10_000,
        "rate_burst": 200_000,
        "login_failures_per_account": 10,
        "login_failures_per_address": 100,
        "max_running": 100,
        "max_running_per_viewer": 50,
        "max_waiting": 5_000,
        "max_waiting_per_viewer": 2_000,
        "max_seconds": 20,
        "idempotency_hours": 24,
        "lease_sweep_seconds": 5,
        "max_subscriptions_per_connection": 50,
        "max_sockets": 1_000,
        "max_sockets_per_viewer": 100,
        "max_event_streams": 1_000,
        "max_event_streams_per_viewer": 100,
        "webhook_http": None,
        "webhook_private_networks": (),
    }


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("MODE", "development", Mode.DEVELOPMENT),
        ("MODE", "production", Mode.PRODUCTION),
        ("HOST", "127.0.0.1", "127.0.0.1"),
        ("HOST", "127.1.2.3", "127.1.2.3"),
        ("HOST", "::1", "::1"),
        ("HOST", "localhost", "localhost"),
        ("PORT", "0", 0),
        ("PORT", "65535", 65535),
        ("METRICS_PORT", "0", 0),
        ("METRICS_PORT", "9400", 9400),
        ("METRICS_FOR_ADMINISTRATORS", "true", True),
        ("DATABASE_URL", "postgresql://u:p@h:5433/d", "postgresql://u:p@h:5433/d"),
        ("DATABASE_URL", "postgres://u:p@h/d", "postgres://u:p@h/d"),
        (
            "DATABASE_URL",
            "postgresql+asyncpg://u@/d?host=/run",
            "postgresql+asyncpg://u@/d?host=/run",
        ),
        ("DATABASE_URL", "postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require"),
        ("COMPILER", "true", True),
        ("COMPILER", "false", False),
        ("GRAPHIQL", "true", True),
        ("GRAPHIQL", "false", False),
        ("ALLOWED_ORIGINS", "https://a.example", ("https://a.example",)),
        (
            "ALLOWED_ORIGINS",
            "https://a.example, http://localhost:3000,http://[::1]:80",
            ("https://a.example", "http://localhost:3000", "http://[::1]:80"),
        ),
        ("ALLOWED_ORIGINS", "*", ("*",)),
        ("ALLOWED_ORIGINS", "", ()),
        ("TRUSTED_PROXIES", "10.0.0.5, 10.1.0.0/16,::1", ("10.0.0.5", "10.1.0.0/16", "::1")),
        ("TRUSTED_PROXIES", "", ()),
        ("MAX_BODY_BYTES", "1000", 1000),
        ("LOG_OPERATIONS", "false", False),
        ("DRAIN_SECONDS", "0", 0),
        ("GRACE_SECONDS", "3600", 3600),
        ("INTROSPECTION", "nobody", Audience.NOBODY),
        ("PERSISTED_QUERIES", "false", False),
        ("MAX_DEPTH", "1", 1),
        ("MAX_SECONDS", "999999999", 999_999_999),
        ("RATE_BURST", "20000", 20_000),
        ("DATA_DIR", "/srv/troupe", Path("/srv/troupe")),
        ("DATA_DIR", "here", Path.cwd() / "here"),
        ("DATA_DIR", "~/troupe", Path.home() / "troupe"),
    ],
)
def test_a_valid_value_is_accepted(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    monkeypatch.setenv(f"TROUPE_{name}", value)
    assert getattr(Settings.load(), name.lower()) == read


def test_a_trusted_proxy_of_ipv4_also_has_its_ipv4_mapped_address() -> None:
    assert Settings(trusted_proxies=("10.0.0.5", "10.1.0.0/16", "::1")).mapped_proxies == [
        "::ffff:10.0.0.5/128",
        "::ffff:10.1.0.0/112",
    ]


@pytest.mark.parametrize("mode", Mode)
def test_browsers_get_the_page_by_default_in_development_only(mode: Mode) -> None:
    assert Settings(mode=mode).shows_graphiql is (mode is Mode.DEVELOPMENT)
    for graphiql in (True, False):
        assert Settings(mode=mode, graphiql=graphiql).shows_graphiql is graphiql
        shown = Settings(mode=mode, metrics_for_administrators=graphiql)
        assert shown.shows_metrics is graphiql


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MODE", "prod", A_MODE),
        ("MODE", "Production", A_MODE),
        ("MODE", "", A_MODE),
        ("PORT", "http", A_PORT),
        ("PORT", "-1", A_PORT),
        ("PORT", "65536", A_PORT),
        ("PORT", "9" * 5000, A_PORT),
        ("PORT", "80.0", A_PORT),
        ("PORT", "٣", A_PORT),
        ("PORT", "", A_PORT),
        ("COMPILER", "maybe", "write true or false"),
        ("COMPILER", "", "write true or false"),
        ("GRAPHIQL", "often", "write true or false"),
        ("ALLOWED_ORIGINS", "a.example", AN_ORIGIN),
        ("ALLOWED_ORIGINS", "https://a.example/", AN_ORIGIN),
        ("ALLOWED_ORIGINS", "https://A.example", AN_ORIGIN),
        ("ALLOWED_ORIGINS", "https://a.example https://b.example", AN_ORIGIN),
        ("ALLOWED_ORIGINS", "null", AN_ORIGIN),
        ("TRUSTED_PROXIES", "proxy.example.org", PROXIES),
        ("TRUSTED_PROXIES", "*", PROXIES),
        ("TRUSTED_PROXIES", "10.1.0.5/16", PROXIES),
        ("TRUSTED_PROXIES", "10.0.0.5;10.0.0.6", PROXIES),
        ("TRUSTED_PROXIES", "0.0.0.0/0", EVERYBODY),
        ("TRUSTED_PROXIES", "10.0.0.5,::/0", EVERYBODY),
        ("MAX_BODY_BYTES", "1 MiB", "write a whole number from 1000 to 1073741824"),
        ("MAX_BODY_BYTES", "9" * 5000, "write a whole number from 1000 to 1073741824"),
        ("MAX_BODY_BYTES", "999", "write a whole number from 1000 to 1073741824"),
        ("DRAIN_SECONDS", "-1", "write a whole number from 0 to 3600"),
        ("GRACE_SECONDS", "1.5", "write a whole number from 0 to 3600"),
        ("LOG_OPERATIONS", "some", "write true or false"),
        ("DATA_DIR", "", A_FOLDER),
        ("DATA_DIR", "~nobody-of-this-name/x", A_FOLDER),
    ],
)
def test_an_invalid_value_is_refused_with_what_to_write(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    said = refusal(monkeypatch, **{name: value})
    assert said == f"TROUPE_{name}={value} cannot be used: {says}."


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", HINT),
        ("s3cret", HINT),
        ("mysql://u:s3cret@h/d", f"mysql is not PostgreSQL; {HINT}"),
        ("http://u:s3cret@h/d", f"http is not PostgreSQL; {HINT}"),
        ("sqlite:///s3cret", f"sqlite is not PostgreSQL; {HINT}"),
        ("postgresql://u:p@h:s3cret/d", HINT),
        ("postgresql://u:s3cret/d", HINT),  # its host forgotten, the password is where a port is
        ("postgresql://u:998877/d", HINT),
        ("postgresql://h:0/d", HINT),
        (
            "postgresql://u:s3cret@h/d?options=s3cret",
            f"the parameter options is not understood; {OUT}",
        ),
        # So none of them is in a URL that is printed.
        *(
            (f"postgresql://u@h/d?{name}=s3cret", f"the parameter {name} is not understood; {OUT}")
            for name in ("password", "sslpassword", "passfile")
        ),
        (
            "postgresql://u:s3cret@h/d?sslmode=bogus",
            "sslmode is one of disable, allow, prefer, require, verify-ca, verify-full",
        ),
    ],
)
def test_the_url_of_a_database_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, value: str, says: str
) -> None:
    said = refusal(monkeypatch, database_url=value)
    assert said == f"TROUPE_DATABASE_URL cannot be used: {says}."
    assert "s3cret" not in said
    assert "998877" not in said


OUTSIDE = [
    "0.0.0.0",
    "::",
    "192.168.1.5",
    "8.8.8.8",
    "2001:db8::1",
    "troupe.example",
    "127.0.0.1.",
    "",
]


@pytest.mark.parametrize("host", OUTSIDE)
def test_a_development_server_must_be_on_a_loopback_address(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    assert refusal(monkeypatch, host=host) == f"TROUPE_HOST={host} cannot be used: {LOOPBACK}."
    monkeypatch.setenv("TROUPE_MODE", "production")
    assert Settings.load().host == host


def test_all_invalid_settings_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refusal(
        monkeypatch,
        host="0.0.0.0",
        port="x",
        compiler="perhaps",
        data_dir="",
        database_url="mysql://u:s3cret@h/d",
    )
    assert sorted(said.splitlines()) == [
        "TROUPE_COMPILER=perhaps cannot be used: write true or false.",
        f"TROUPE_DATABASE_URL cannot be used: mysql is not PostgreSQL; {HINT}.",
        f"TROUPE_DATA_DIR= cannot be used: {A_FOLDER}.",
        f"TROUPE_HOST=0.0.0.0 cannot be used: {LOOPBACK}.",
        f"TROUPE_PORT=x cannot be used: {A_PORT}.",
    ]
    # The check of the host depends on the mode, so it is skipped if the mode is invalid.
    assert "TROUPE_MODE=x cannot be used: " in refusal(monkeypatch, mode="x")


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")),
    ],
)
def test_it_listens_on_a_free_port_of_a_loopback_address(host: str) -> None:
    with listen(Settings(host=host, port=0)) as listening:
        address, port = listening.getsockname()[:2]
        assert address in ("127.0.0.1", "::1")
        assert port > 0
        with socket.create_connection((address, port), timeout=5):
            pass


def test_an_address_of_another_machine_is_refused() -> None:
    for host in ("no host", "203.0.113.1"):
        said = f"TROUPE_HOST={host} is not an address of this machine; write 127.0.0.1."
        with pytest.raises(SettingsError, match=f"^{re.escape(said)}$"):
            listen(Settings(mode=Mode.PRODUCTION, host=host))


@pytest.mark.parametrize("port", [0, 65535])
def test_a_port_in_use_is_refused_with_another_one_to_try(port: int) -> None:
    try:
        taken = socket.create_server(("127.0.0.1", port))
    except OSError:
        pytest.skip("another process uses it")
    with taken:
        port = taken.getsockname()[1]
        said = rf"^Cannot listen on 127\.0\.0\.1:{port} \(.*\); set TROUPE_PORT to another port"
        with pytest.raises(SettingsError, match=said) as caught:
            listen(Settings(port=port))
    another = int(str(caught.value).rstrip(".").rpartition(" ")[2])
    assert 1024 <= another < 65536
    assert another != port


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "", "٣", "1000000000"])
def test_a_limit_is_a_whole_number(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert f"TROUPE_{name.upper()}={value} cannot be used: write a whole number from 1 to" in (
        refusal(monkeypatch, **{name: value})
    )


def test_the_burst_covers_the_maximum_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, max_cost="300000") == (
        "TROUPE_RATE_BURST=200000 cannot be used: it is less than TROUPE_MAX_COST=300000, so"
        " operations of that cost could never run; write 300000 or more."
    )


def test_an_unknown_audience_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refusal(monkeypatch, introspection="some") == (
        "TROUPE_INTROSPECTION=some cannot be used: write everybody, viewers or nobody."
    )
