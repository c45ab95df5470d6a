"""The settings of a server: `TROUPE_…` variables of the environment."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from db.result_limits import RESULT_BYTES
from db.settings import PREFIX, DatabaseSettings


def _between(least: int, most: int) -> BeforeValidator:
    """Takes whole numbers in this range; no others, and none in another notation."""

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
List = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


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
    port: Annotated[int, _between(0, 65535)] = Field(
        default=8000, description="The port to serve on; 0 takes any."
    )
    planner: bool = Field(
        default=True, description="Answer queries with one SQL statement each, where that can be."
    )
    graphiql: bool | None = Field(
        default=None,
        description="Show browsers a page to try the API on. Unset: in development only.",
    )
    allowed_origins: List = Field(
        default=(),
        description="The sites whose pages may use the API, with a token of theirs:"
        " `https://app.example.org`, several with commas between them, or `*` for all. Unset: none"
        " but the page that this server shows.",
    )
    trusted_proxies: List = Field(
        default=("127.0.0.1", "::1"),
        description="The proxies that are believed for whom they ask, by `X-Forwarded-For`:"
        " addresses, or networks such as `10.1.0.0/16`, with commas between them. Empty: none.",
    )
    max_body_bytes: Annotated[int, _between(1000, 2**30)] = Field(
        default=2**20,
        description="How large a request may be, and a message over WebSocket, in bytes.",
    )
    log_operations: bool = Field(
        default=True,
        description="Write a line for each operation: its name, hash, viewer, status, duration, SQL"
        " statements and rows.",
    )
    drain_seconds: Seconds = Field(
        default=0,
        description="How long a server that is asked to stop goes on taking requests, while"
        " `/readyz` says that it is draining: as long as a load balancer takes to notice.",
    )
    grace_seconds: Seconds = Field(
        default=10,
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
    max_document_length: Limit = Field(
        default=50_000,
        description="The most characters of a document. Long texts belong in variables.",
    )
    max_tokens: Limit = Field(default=5_000, description="The most tokens of a document.")
    max_depth: Limit = Field(default=20, description="How deep fields may nest.")
    max_fields: Limit = Field(
        default=2_000,
        description="The most selections (fields and fragments) of a document. A fragment counts"
        " wherever it is spread; so it does for aliases, directives and root fields.",
    )
    max_aliases: Limit = Field(default=100, description="The most aliases of a document.")
    max_directives: Limit = Field(default=50, description="The most directives of a document.")
    max_root_fields: Limit = Field(
        default=50, description="The most fields at the root of an operation."
    )
    max_values: Limit = Field(
        default=10_000,
        description="The most values in an operation's variables. A scalar is one, also JSON.",
    )
    max_conditions: Limit = Field(
        default=100,
        description="The most conditions in all filters of an operation. One on an id counts as"
        " five, and so does each step to a related object.",
    )
    max_cost: Limit = Field(
        default=20_000,
        description="The most rows that an operation could return or write, counted beforehand.",
    )
    max_answer_bytes: Limit = Field(
        default=RESULT_BYTES,
        description="The most bytes of an operation's `data`, and of what one SQL statement reads.",
    )
    rate_per_second: Limit = Field(
        default=10_000,
        description="How much cost each viewer regains in a second; without a token, each address.",
    )
    rate_burst: Limit = Field(
        default=200_000,
        validate_default=True,
        description="How much cost each viewer may use at once; at least `TROUPE_MAX_COST`.",
    )
    login_failures_per_account: Limit = Field(
        default=10,
        description="How many wrong passwords may be given for one username in 15 minutes, whether"
        " there is such a user or not. After that, the right one is not taken either.",
    )
    login_failures_per_address: Limit = Field(
        default=100, description="How many may be given from one address in 15 minutes."
    )
    max_running: Limit = Field(
        default=100, description="The most operations that a process runs at once."
    )
    max_running_per_viewer: Limit = Field(
        default=50, description="The most operations that it runs at once for one viewer."
    )
    max_seconds: Limit = Field(default=20, description="How long an operation may take.")
    max_subscriptions_per_connection: Limit = Field(
        default=50,
        description="The most operations that may be open at once on one WebSocket.",
    )
    max_sockets: Limit = Field(
        default=1_000, description="The most WebSockets that a process has open at once."
    )
    max_sockets_per_viewer: Limit = Field(
        default=100,
        description="The most that it has open for one viewer; without a token, and before one is"
        " sent, for one address.",
    )

    @property
    def migrates(self) -> bool:
        """Whether a start brings the database to the schema of the code."""
        return self.mode is not Mode.PRODUCTION

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                network = ip_network(proxy)
            except ValueError:
                raise ValueError(
                    "write addresses or networks, such as 10.0.0.5,10.1.0.0/16"
                ) from None
            if network.prefixlen == 0:
                raise ValueError("it would let everybody claim any address; name the proxies")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            # What browsers send: a host and perhaps a port, in lower case, and no path.
            if origin != "*" and not re.fullmatch(r"[a-z+.-]+://[a-z0-9.:\[\]-]+", origin):
                raise ValueError("write origins such as https://app.example.org, without a path")
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
        if info.data.get("mode") is Mode.DEVELOPMENT and not _is_loopback(value):
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


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
