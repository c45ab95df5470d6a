"""Drafts a migration from what the models say: `python -m tests.draft NAME`.

`make migration NAME=…` calls it. It migrates an empty database to the head, and lets Alembic write
down what is missing there.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from db import migrate
from tests.conftest import cluster
from tests.processes import CODE


def draft(name: str) -> Path:
    """Write the next migration, and return where."""

    def write(connection: Connection) -> Path:
        config = Config(CODE / "alembic.ini", attributes={"connection": connection})
        script = command.revision(config, message=name, autogenerate=True)
        return Path(script.path)  # type: ignore[union-attr]

    async def run(url: str) -> Path:
        await migrate.upgrade(url)
        drafted: Path = await migrate.locked(url, write)
        return drafted

    with cluster() as url:
        path = asyncio.run(run(str(url)))
    text = re.sub(r"\n *# ###.*", "", path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    for way in (["check", "--quiet", "--fix-only"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *way, str(path)], check=True)
    return path


if __name__ == "__main__":
    if len(sys.argv) != 2 or not re.fullmatch(r"[a-z][a-z0-9_ ]*", sys.argv[1]):
        sys.exit("Name the migration, as in: make migration NAME=milestones")
    sys.stdout.write(f"Drafted {draft(sys.argv[1])}. Review it: see CONTRIBUTING.md.\n")
