"""The settings of a server: `TROUPE_…` variables of the environment."""

from __future__ import annotations

import re
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from db.engine import database_url

PREFIX = "TROUPE_"


class Mode(StrEnum):
    """What a server is for."""

    DEVELOPMENT = "development"
    """One's own machine: served on loopback only, introspection open, a token printed."""
    PRODUCTION = "production"
    """Other people."""


class SettingsError(Exception):
    """A setting cannot be used; the message says which, why, and what to write instead."""


class Settings(BaseSettings):
    """How this server runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

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
    database_url: str | None = Field(
        default=None,
        description="A PostgreSQL server, 15 or later: `postgresql://user:password@host:5432/database`."
        " Unset: the one that comes along.",
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
    max_body_bytes: int = Field(
        default=2**20, ge=1000, le=2**30, description="How large a request may be, in bytes."
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
    data_dir: Path | None = Field(
        default=None,
        description="Where the database that comes along keeps its data. Unset:"
        " `~/.local/share/troupe`, or `/var/lib/troupe` for root.",
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

    @field_validator("database_url")
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is None:
            return None
        hint = "write postgresql://user:password@host:5432/database"
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):  # whose own words may quote a password
            raise ValueError(hint) from None
        if url.port is not None and not 0 < url.port < 65536:
            raise ValueError(hint)
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise ValueError(f"{url.drivername} is not PostgreSQL; {hint}")
        database_url(url)
        return value

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

    @field_validator("data_dir", mode="before")
    @classmethod
    def _absolute(cls, value: object) -> object:
        hint = "write the path of a folder, such as /var/lib/troupe"
        if value == "":  # it would be the folder that somebody happens to be in
            raise ValueError(hint)
        try:
            return Path(value).expanduser().absolute() if isinstance(value, str) else value
        except RuntimeError:  # there is no such home
            raise ValueError(hint) from None

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
    def shows_page(self) -> bool:
        """Whether browsers are shown a page to try the API on."""
        return self.mode is Mode.DEVELOPMENT if self.graphiql is None else self.graphiql

    @classmethod
    def load(cls) -> Self:
        """The settings from the environment. Raises SettingsError."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(_sentence(fault) for fault in error.errors())) from None


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
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _sentence(fault: object) -> str:
    assert isinstance(fault, dict)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "bool_parsing":
        message = "write true or false"
    name = f"{PREFIX}{fault['loc'][0]}".upper()
    shown = "" if "url" in name.lower() else f"={fault['input']}"  # a URL may hold a password
    return f"{name}{shown} cannot be used: {message[:1].lower()}{message[1:]}."
