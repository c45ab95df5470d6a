"""The settings of a server: `TROUPE_…` variables of the environment."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from db.result_limits import RESULT_BYTES
from db.settings import PREFIX, DatabaseSettings

COUNTS = (
    "max_document_length",
    "max_tokens",
    "max_depth",
    "max_fields",
    "max_aliases",
    "max_directives",
    "max_root_fields",
    "max_values",
    "max_conditions",
    "max_cost",
    "max_answer_bytes",
    "rate_per_second",
    "rate_burst",
    "login_failures_per_account",
    "login_failures_per_address",
    "max_running",
    "max_running_per_viewer",
    "max_seconds",
    "max_subscriptions_per_connection",
    "max_sockets",
    "max_sockets_per_viewer",
)


class Mode(StrEnum):
    """What a server is for."""

    DEVELOPMENT = "development"
    """One's own machine: served on loopback only, introspection open, a token printed."""
    PRODUCTION = "production"
    """Other people."""


class Audience(StrEnum):
    """Who is shown the schema."""

    EVERYBODY = "everybody"
    """Also those who send no token."""
    VIEWERS = "viewers"
    """Who has a token."""
    NOBODY = "nobody"
    """Who needs it has `schema.graphql`."""


class Settings(DatabaseSettings):
    """How this server runs."""

    mode: Mode = Field(
        default=Mode.DEVELOPMENT,
        description="`development` serves on loopback only, prints a token, and shows the schema to"
        " everybody. `production` is for other people: it changes no table unless asked to.",
    )
    host: str = Field(
        default="127.0.0.1", description="The address to serve on; `0.0.0.0` is all of them."
    )
    port: int = Field(
        default=8000, ge=0, le=65535, description="The port to serve on; 0 takes any."
    )
    planner: bool = Field(
        default=True, description="Answer queries with one SQL statement each, where that can be."
    )
    graphiql: bool | None = Field(
        default=None,
        description="Show browsers a page to try the API on. Unset: in development only.",
    )
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="The sites whose pages may use the API, with a token of theirs:"
        " `https://app.example.org`, several with commas between them, or `*` for all. Unset: none"
        " but the page that this server shows.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1", "::1"),
        description="The proxies that are believed for whom they ask, by `X-Forwarded-For`:"
        " addresses, or networks such as `10.1.0.0/16`, with commas between them. Empty: none.",
    )
    max_body_bytes: int = Field(
        default=2**20,
        ge=1000,
        le=2**30,
        description="How large a request may be, and a message over WebSocket, in bytes.",
    )
    log_operations: bool = Field(
        default=True,
        description="Write a line for each operation: its name, hash, viewer, status, duration, SQL"
        " statements and rows.",
    )
    drain_seconds: int = Field(
        default=0,
        ge=0,
        le=3600,
        description="How long a server that is asked to stop goes on taking requests, while"
        " `/readyz` says that it is draining: as long as a load balancer takes to notice.",
    )
    grace_seconds: int = Field(
        default=10,
        ge=0,
        le=3600,
        description="How long after that the requests that are under way may take to finish.",
    )
    introspection: Audience | None = Field(
        default=None,
        description="Who is shown the schema, by introspection and by suggestions in errors (“Did"
        " you mean …”): `everybody`, `viewers` (who have a token) or `nobody`. Unset: everybody in"
        " development, viewers in production.",
    )
    persisted_queries: bool = Field(
        default=True,
        description="Take automatic persisted queries: the hash of a document in its place.",
    )
    max_document_length: int = Field(
        default=50_000,
        description="The most characters of a document. Long texts belong in variables.",
    )
    max_tokens: int = Field(default=5_000, description="The most tokens of a document.")
    max_depth: int = Field(default=20, description="How deep fields may nest.")
    max_fields: int = Field(
        default=2_000,
        description="The most selections (fields and fragments) of a document. A fragment counts"
        " wherever it is spread; so it does for aliases, directives and root fields.",
    )
    max_aliases: int = Field(default=100, description="The most aliases of a document.")
    max_directives: int = Field(default=50, description="The most directives of a document.")
    max_root_fields: int = Field(
        default=50, description="The most fields at the root of an operation."
    )
    max_values: int = Field(
        default=10_000,
        description="The most values in an operation's variables. A scalar is one, also JSON.",
    )
    max_conditions: int = Field(
        default=100,
        description="The most conditions in all filters of an operation. One on an id counts as"
        " five, and so does each step to a related object.",
    )
    max_cost: int = Field(
        default=20_000,
        description="The most rows that an operation could return or write, counted beforehand.",
    )
    max_answer_bytes: int = Field(
        default=RESULT_BYTES,
        description="The most bytes of an operation's `data`, and of what one SQL statement reads.",
    )
    rate_per_second: int = Field(
        default=10_000,
        description="How much cost each viewer regains in a second; without a token, each address.",
    )
    rate_burst: int = Field(
        default=200_000,
        validate_default=True,
        description="How much cost each viewer may use at once; at least `TROUPE_MAX_COST`.",
    )
    login_failures_per_account: int = Field(
        default=10,
        description="How many wrong passwords may be given for one username in 15 minutes, whether"
        " there is such a user or not. After that, the right one is not taken either.",
    )
    login_failures_per_address: int = Field(
        default=100, description="How many may be given from one address in 15 minutes."
    )
    max_running: int = Field(
        default=100, description="The most operations that a process runs at once."
    )
    max_running_per_viewer: int = Field(
        default=50, description="The most operations that it runs at once for one viewer."
    )
    max_seconds: int = Field(default=20, description="How long an operation may take.")
    max_subscriptions_per_connection: int = Field(
        default=50,
        description="The most operations that may be open at once on one WebSocket.",
    )
    max_sockets: int = Field(
        default=1_000, description="The most WebSockets that a process has open at once."
    )
    max_sockets_per_viewer: int = Field(
        default=100,
        description="The most that it has open for one viewer; without a token, and before one is"
        " sent, for one address.",
    )

    @property
    def migrates(self) -> bool:
        """Whether a start brings the database to the schema of the code."""
        return self.mode is not Mode.PRODUCTION

    @field_validator("mode", mode="before")
    @classmethod
    def _known_mode(cls, value: object) -> object:
        if isinstance(value, str) and value not in list(Mode):
            raise ValueError("write development or production")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _a_port(cls, value: object) -> object:
        if isinstance(value, str):
            digits = value.isascii() and value.isdecimal()
            if not digits or int(value[:6]) > 65535:
                raise ValueError("write a number from 0 to 65535, such as 8000")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _proxies(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        proxies = tuple(part.strip() for part in value.split(",") if part.strip())
        for proxy in proxies:
            try:
                network = ip_network(proxy)
            except ValueError:
                raise ValueError(
                    "write addresses or networks, such as 10.0.0.5,10.1.0.0/16"
                ) from None
            if network.prefixlen == 0:
                raise ValueError("it would let everybody claim any address; name the proxies")
        return proxies

    @field_validator("max_body_bytes", "drain_seconds", "grace_seconds", mode="before")
    @classmethod
    def _whole(cls, value: object, info: ValidationInfo) -> object:
        digits = isinstance(value, str) and value.isascii() and value.isdecimal()
        if isinstance(value, str) and (not digits or len(value) > 10):
            example = cls.model_fields[info.field_name or ""].default
            raise ValueError(f"write a whole number, such as {example}")
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        origins = tuple(part.strip() for part in value.split(",") if part.strip())
        for origin in origins:
            # What browsers send: a host and perhaps a port, in lower case, and no path.
            if origin != "*" and not re.fullmatch(r"[a-z+.-]+://[a-z0-9.:\[\]-]+", origin):
                raise ValueError("write origins such as https://app.example.org, without a path")
        return origins

    @field_validator("introspection", mode="before")
    @classmethod
    def _known_audience(cls, value: object) -> object:
        if isinstance(value, str) and value not in list(Audience):
            raise ValueError("write everybody, viewers or nobody")
        return value

    @field_validator(*COUNTS, mode="before")
    @classmethod
    def _a_count(cls, value: object) -> object:
        if isinstance(value, str):
            digits = value.isascii() and value.isdecimal() and len(value) <= 9
            if not digits or int(value) == 0:
                raise ValueError("write a whole number from 1 to 999999999")
        return value

    @field_validator("rate_burst")
    @classmethod
    def _enough_for_one(cls, value: int, info: ValidationInfo) -> int:
        most = info.data.get("max_cost", 0)
        if value < most:
            raise ValueError(
                f"it is less than {PREFIX}MAX_COST={most}, and what costs so much could never run;"
                f" write {most} or more"
            )
        return value

    @field_validator("host")
    @classmethod
    def _development_is_private(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("mode") is Mode.DEVELOPMENT and not is_loopback(value):
            raise ValueError(
                "it would show a development server to others; write 127.0.0.1, or"
                f" {PREFIX}MODE=production"
            )
        return value

    @property
    def mapped_proxies(self) -> list[str]:
        """The trusted proxies of IPv4 as they appear where `::` takes connections of both kinds."""
        networks = [ip_network(proxy) for proxy in self.trusted_proxies]
        return [
            f"::ffff:{network.network_address}/{96 + network.prefixlen}"
            for network in networks
            if isinstance(network, IPv4Network)
        ]

    @property
    def shows_page(self) -> bool:
        """Whether browsers are shown a page to try the API on."""
        return self.mode is Mode.DEVELOPMENT if self.graphiql is None else self.graphiql

    def shows_schema(self, *, anonymous: bool) -> bool:
        """Whether somebody is shown the schema, who may be unknown."""
        audience = self.introspection or (
            Audience.EVERYBODY if self.mode is Mode.DEVELOPMENT else Audience.VIEWERS
        )
        return audience is Audience.EVERYBODY or (audience is Audience.VIEWERS and not anonymous)


def table() -> str:
    """Every setting as a table in Markdown: its variable, its default, what it means."""
    rows = [
        (f"`{PREFIX}{name.upper()}`", _default(field.default), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    lines = [("variable", "default", "meaning"), ("---", "---", "---"), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _default(value: object) -> str:
    if value in (None, ()):
        return "unset"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
