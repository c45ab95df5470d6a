"""The settings of the database, which every command and migration reads from `TROUPE_…`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pydantic import ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from db import embedded
from db.connections import database_url

PREFIX = "TROUPE_"

# How many connections the embedded PostgreSQL has for each process that serves: up to 42, and
# those of commands.
CONNECTIONS = 50

logger = logging.getLogger("troupe.postgres")


class SettingsError(Exception):
    """A setting is wrong; the message says which, why, and what to write instead."""


class DatabaseSettings(BaseSettings):
    """The database to use: a PostgreSQL server, or the embedded one."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    database_url: str | None = None
    """A PostgreSQL server, 15 or later: `postgresql://user:password@host:5432/database`. Unset:
    the one that comes along."""
    data_dir: Path | None = None
    """Where the database that comes along keeps its data. Unset: `~/.local/share/troupe`, or
    `/var/lib/troupe` for root."""

    @field_validator(
        "database_url", "database_replica_url", "database_direct_url", check_fields=False
    )
    @classmethod
    def _postgresql(cls, value: str | None) -> str | None:
        if value is None:
            return None
        hint = "write postgresql://user:password@host:5432/database"
        try:
            url = make_url(value)
        except (ArgumentError, ValueError):  # whose messages may contain a password
            raise ValueError(hint) from None
        if url.port is not None and not 0 < url.port < 65536:
            raise ValueError(hint)
        if url.get_backend_name() not in ("postgresql", "postgres"):
            raise ValueError(f"{url.drivername} is not PostgreSQL; {hint}")
        database_url(url)
        return value

    @field_validator("data_dir", mode="before")
    @classmethod
    def _absolute(cls, value: object) -> object:
        hint = "write the path of a folder, such as /var/lib/troupe"
        if value == "":  # it would be the current folder
            raise ValueError(hint)
        try:
            return Path(value).expanduser().absolute() if isinstance(value, str) else value
        except RuntimeError:  # there is no home folder
            raise ValueError(hint) from None

    @classmethod
    def load(cls) -> Self:
        """The settings from the environment. Raises SettingsError."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(_sentence(fault) for fault in error.errors())) from None

    @contextmanager
    def database(
        self,
        *,
        serving: bool = False,
        processes: int = 1,
        on_wait: Callable[[str], None] = logger.warning,
    ) -> Iterator[tuple[str, embedded.Server | None]]:
        """The URL of the database, which runs inside the block; and the server, if it is embedded.

        Raises EmbeddedError; `serving` and `on_wait` are those of `embedded.running`. The embedded
        server has connections for so many processes.
        """
        if self.database_url is not None:
            yield self.database_url, None
            return
        connections = {"max_connections": str(CONNECTIONS * max(2, processes))}
        with embedded.running(
            self.data_dir, serving=serving, settings=connections, on_wait=on_wait
        ) as server:
            yield server.url, server


def _sentence(fault: object) -> str:
    assert isinstance(fault, dict)
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "bool_parsing":
        message = "write true or false"
    elif fault["type"] == "enum":
        message = f"write {fault['ctx']['expected'].replace(chr(39), '')}"
    name = f"{PREFIX}{fault['loc'][0]}".upper()
    shown = "" if "url" in name.lower() else f"={fault['input']}"  # a URL may hold a password
    return f"{name}{shown} cannot be used: {message[:1].lower()}{message[1:]}."
