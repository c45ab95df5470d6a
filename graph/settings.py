"""The settings of a server, from environment variables `TROUPE_…`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from db.connections import shown
from db.result_limits import RESULT_BYTES
from db.settings import PREFIX, DatabaseSettings


def _between(least: int, most: int) -> BeforeValidator:
    """Accepts integers in this range, in decimal digits only."""

    def checked(value: object) -> object:
        number = re.fullmatch(r"[0-9]{1,10}", str(value))
        if number is None or not least <= int(number[0]) <= most:
            raise ValueError(f"write a whole number from {least} to {most}")
        return value

    return BeforeValidator(checked)


def _split(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Limit = Annotated[int, _between(1, 999_999_999)]
Seconds = Annotated[int, _between(0, 3600)]
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Mode(StrEnum):
    """The purpose of a server."""

    DEVELOPMENT = "development"
    """For one's own machine: loopback only, public introspection, a token is printed."""
    PRODUCTION = "production"
    """For other people."""


class Audience(StrEnum):
    """Who may use introspection."""

    EVERYBODY = "everybody"
    """Everybody, with or without a token."""
    VIEWERS = "viewers"
    """Everybody with a token."""
    NOBODY = "nobody"
    """Nobody; `schema.graphql` has the schema."""


class Settings(DatabaseSettings):
    """The settings of a server."""

    mode: Mode = Mode.DEVELOPMENT
    """`development` serves on loopback only, migrates the database, prints a token and allows
    introspection. `production` is for other people; only `troupe migrate` migrates."""
    database_direct_url: str | None = None
    """The same database without a pooler in between, for the connections that listen and hold
    locks; needed with PgBouncer in transaction mode ([Several servers](scale.md#pgbouncer)). Unset:
    `TROUPE_DATABASE_URL`."""
    database_replica_url: str | None = None
    """A streaming replica of the database, from which queries read what it shows already
    ([Several servers](scale.md#replicas)). Unset: none."""
    host: str = "127.0.0.1"
    """The address to listen on; `0.0.0.0` means all."""
    port: Annotated[int, _between(0, 65535)] = 8000
    """The port to listen on; 0 means any free port."""
    processes: Annotated[int, _between(1, 100)] = 1
    """How many processes serve on this port ([Several servers](scale.md#processes-on-one-port))."""
    metrics_port: Annotated[int, _between(0, 65535)] | None = None
    """The port of the metrics for Prometheus, at `/metrics`, which needs no token; 0 means any free
    port. With several processes, it has those of all. Unset: none."""
    metrics_host: str = "127.0.0.1"
    """The address to listen on with the metrics; `0.0.0.0` means all."""
    metrics_for_administrators: bool | None = None
    """Whether `/metrics` is also on the port of the API, for the tokens of administrators. Unset:
    in development only."""
    compiler: bool = True
    """Whether to compile each query into one SQL statement where possible."""
    console: bool = True
    """Whether browsers get the console. It shows nothing without a token."""
    graphiql: bool | None = None
    """Whether browsers get GraphiQL. Unset: in development only."""
    allowed_origins: CommaSeparated = ()
    """The origins whose pages may use the API (CORS), separated by commas, such as
    `https://app.example.org`, or `*` for all. Unset: only this server's own page, and in
    development all origins on loopback, such as `http://localhost:5173`."""
    trusted_proxies: CommaSeparated = ("127.0.0.1", "::1")
    """The proxies whose `X-Forwarded-For` is trusted: addresses, or networks such as
    `10.1.0.0/16`, separated by commas. Empty: none."""
    max_body_bytes: Annotated[int, _between(1000, 2**30)] = 2**20
    """Maximum size of a request body and of a WebSocket message, in bytes."""
    log_operations: bool = True
    """Whether to log a line for each operation: name, hash, viewer, status, duration, SQL
    statements and rows. `troupe demo` logs none unless this is set."""
    drain_seconds: Seconds = 0
    """How many seconds a server still accepts requests after the signal to stop, while `/readyz`
    answers 503, so that a load balancer notices."""
    grace_seconds: Seconds = 10
    """How many seconds running requests may then take to finish."""
    introspection: Audience | None = None
    """Who may use introspection and gets suggestions in errors (“Did you mean …”): `everybody`,
    `viewers` (everybody with a token) or `nobody`. Unset: `everybody` in development, `viewers` in
    production."""
    persisted_queries: bool = True
    """Whether to support automatic persisted queries."""
    event_days: Annotated[int, _between(1, 36500)] = 90
    """How many days events are kept. They are dropped by weeks, so some are kept up to a week
    longer."""
    max_document_length: Limit = 50_000
    """Maximum number of characters in a document. Pass long texts as variables."""
    max_tokens: Limit = 5_000
    """Maximum number of tokens in a document."""
    max_depth: Limit = 20
    """Maximum depth of nested fields."""
    max_fields: Limit = 2_000
    """Maximum number of selections (fields and fragments) in a document. A fragment counts at each
    spread, also for aliases, directives and root fields."""
    max_aliases: Limit = 100
    """Maximum number of aliases in a document."""
    max_directives: Limit = 50
    """Maximum number of directives in a document."""
    max_root_fields: Limit = 50
    """Maximum number of root fields of an operation."""
    max_values: Limit = 10_000
    """Maximum number of values in the variables. A scalar counts as one, also JSON."""
    max_conditions: Limit = 100
    """Maximum number of conditions in all filters of an operation. A condition on an id counts as
    five, and so does each related object."""
    max_cost: Limit = 20_000
    """Maximum cost of an operation: the rows that it could return or write."""
    max_answer_bytes: Limit = RESULT_BYTES
    """Maximum size of an operation's `data`, and of the result of one SQL statement, in bytes."""
    rate_per_second: Limit = 10_000
    """The cost that each viewer, or without a token each address, regains in a second."""
    rate_burst: Limit = Field(200_000, validate_default=True)
    """The cost that each viewer may use in a burst; at least `TROUPE_MAX_COST`."""
    login_failures_per_account: Limit = 10
    """Maximum number of failed logins for one username in 15 minutes, also for a username that no
    user has. Further logins are refused, also with the correct password."""
    login_failures_per_address: Limit = 100
    """Maximum number of failed logins from one address in 15 minutes."""
    max_running: Limit = 100
    """Maximum number of operations that run at once in a process."""
    max_running_per_viewer: Limit = 50
    """Maximum number of operations that run at once for one viewer."""
    max_waiting: Limit = 5_000
    """Maximum number of operations that wait at once for an answer (`awaitInteraction`) in a
    process."""
    max_waiting_per_viewer: Limit = 2_000
    """Maximum number of operations that wait at once for one viewer."""
    max_seconds: Limit = 20
    """Maximum duration of an operation, in seconds, without the time that it waits for answers."""
    lease_sweep_seconds: Annotated[int, _between(1, 3600)] = 5
    """How often leases, requests and messages that have run out are looked for, and sums of usage
    are merged, in seconds. Until then, the agent that lost its task can still go on."""
    idempotency_hours: Annotated[int, _between(1, 8760)] = 24
    """How long an idempotency key is kept, in hours."""
    webhook_http: bool | None = None
    """Whether the addresses of webhooks may begin with `http://`, so that others can read what is
    sent. Unset: in development only."""
    webhook_private_networks: CommaSeparated = ()
    """The private addresses that webhooks may lead to: addresses, or networks such as
    `10.1.0.0/16`, separated by commas. Unset: none, only public addresses."""
    max_subscriptions_per_connection: Limit = 50
    """Maximum number of operations that are open at once on one WebSocket, or on one event stream
    that was reserved."""
    max_sockets: Limit = 1_000
    """Maximum number of WebSockets that are open at once in a process."""
    max_sockets_per_viewer: Limit = 100
    """Maximum number of WebSockets that are open at once for one viewer; without a token, and
    before it is sent, for one address."""
    max_event_streams: Limit = 1_000
    """Maximum number of event streams (SSE) that are open or reserved at once in a process."""
    max_event_streams_per_viewer: Limit = 100
    """Maximum number of event streams (SSE) that are open or reserved at once for one viewer;
    without a token, for one address."""

    @property
    def migrates(self) -> bool:
        """Whether the database is migrated when the server starts."""
        return self.mode is not Mode.PRODUCTION

    @field_validator("trusted_proxies", "webhook_private_networks")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            for network in value:
                ip_network(network)
        except ValueError:
            raise ValueError("write addresses or networks, such as 10.0.0.5,10.1.0.0/16") from None
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(ip_network(proxy).prefixlen == 0 for proxy in value):
            raise ValueError("it would trust every client; write the addresses of the proxies")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            # As browsers send it: scheme, host and optional port, in lower case, without a path.
            if origin != "*" and not re.fullmatch(r"[a-z+.-]+://[a-z0-9.:\[\]-]+", origin):
                raise ValueError("write origins such as https://app.example.org, without a path")
        return value

    @field_validator("rate_burst")
    @classmethod
    def _at_least_max_cost(cls, value: int, info: ValidationInfo) -> int:
        max_cost = info.data.get("max_cost", 0)
        if value < max_cost:
            raise ValueError(
                f"it is less than {PREFIX}MAX_COST={max_cost}, so operations of that cost could"
                f" never run; write {max_cost} or more"
            )
        return value

    @field_validator("host")
    @classmethod
    def _development_on_loopback(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("mode") is Mode.DEVELOPMENT and not _is_loopback(value):
            raise ValueError(
                "a development server must be on a loopback address; write 127.0.0.1, or set"
                f" {PREFIX}MODE=production"
            )
        return value

    @property
    def mapped_proxies(self) -> list[str]:
        """The IPv4 proxies as IPv4-mapped IPv6 addresses, which a dual-stack socket reports."""
        networks = [ip_network(proxy) for proxy in self.trusted_proxies]
        return [
            f"::ffff:{network.network_address}/{96 + network.prefixlen}"
            for network in networks
            if isinstance(network, IPv4Network)
        ]

    @property
    def shows_graphiql(self) -> bool:
        """Whether browsers get GraphiQL."""
        return self.mode is Mode.DEVELOPMENT if self.graphiql is None else self.graphiql

    @property
    def shows_metrics(self) -> bool:
        """Whether administrators get metrics on the port of the API."""
        shows = self.metrics_for_administrators
        return self.mode is Mode.DEVELOPMENT if shows is None else shows

    @property
    def allows_http(self) -> bool:
        """Whether the addresses of webhooks may begin with `http://`."""
        return self.mode is Mode.DEVELOPMENT if self.webhook_http is None else self.webhook_http

    def shows_schema(self, *, anonymous: bool) -> bool:
        """Whether a viewer, or with `anonymous` a client without a token, may use introspection."""
        audience = self.introspection or (
            Audience.EVERYBODY if self.mode is Mode.DEVELOPMENT else Audience.VIEWERS
        )
        return audience is Audience.EVERYBODY or (audience is Audience.VIEWERS and not anonymous)


CLIENT_VARIABLES = {"TROUPE_URL", "TROUPE_TOKEN", "TROUPE_PROJECT"}
"""Variables of the examples' workers, which are clients; a server does not read them."""

_OF_KUBERNETES = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_[A-Z]+)?)"
)
"""What Kubernetes sets in each Pod for a Service whose name is or begins with `troupe`."""


def mistyped(environment: Iterable[str]) -> list[str]:
    """A message for each name of a variable that resembles a setting's, but is none's.

    Others are not reported, and neither are those of clients and of Kubernetes.
    """
    names = [f"{PREFIX}{name.upper()}" for name in Settings.model_fields]
    messages = []
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in names or name in CLIENT_VARIABLES:
            continue
        if _OF_KUBERNETES.fullmatch(name):
            continue
        similar = difflib.get_close_matches(
            name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in names], 1
        )
        if similar:
            messages.append(f"{variable} is not a setting; did you mean {PREFIX}{similar[0]}?")
    return messages


def present(settings: Settings) -> list[dict[str, Any]]:
    """All settings as JSON: name, value, source, default and meaning, without passwords."""
    values, defaults = (
        each.model_dump(mode="json") for each in (settings, Settings.model_construct())
    )
    for name, url in values.items():
        if name.endswith("_url") and url is not None:
            values[name] = shown(url)
    return [
        {
            "name": f"{PREFIX}{name.upper()}",
            "value": values[name],
            "source": "environment" if name in settings.model_fields_set else "default",
            "default": defaults[name],
            "meaning": (field.description or "").replace("\n", " "),
        }
        for name, field in Settings.model_fields.items()
    ]


def table() -> str:
    """All settings as a Markdown table: variable, default and meaning."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        meaning = (field.description or "").replace("\n", " ")
        lines.append(f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {meaning} |")
    return "\n".join([*lines, ""])


def _default(value: object) -> str:
    if value in (None, ()):
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
