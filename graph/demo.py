"""The demo: a database with example data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from db import Database, Viewer, access
from db.imports import import_chats, import_plan
from graph.core.context import Context
from graph.execution.pipeline import Pipeline
from graph.execution.run import GraphQLRequest
from graph.limits.limits import Limits
from graph.schema import schema
from graph.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"


async def fill(database: Database) -> None:
    """Add the example data to a new database. Raises RuntimeError if some is rejected."""
    async with database.write(Viewer(is_administrator=True)) as session:
        admin = await access.administrator(session)
        assert admin is not None
    await import_plan(database, EXAMPLES / "plan.json", owner=admin.id, project="Imported plan")
    await import_chats(database, EXAMPLES / "chats.json", owner=admin.id, project="Imported chats")
    document = (EXAMPLES / "demo.graphql").read_text(encoding="utf-8")
    pipeline = Pipeline(schema, Limits(Settings()))
    context = Context(database, Viewer(admin.id, is_administrator=True))
    request = GraphQLRequest(document, None, None, None)
    response = await pipeline.answer(pipeline.begin(request, context))
    payloads: dict[str, Any] = response.body.get("data") or {}
    errors = [str(error) for error in response.errors]
    errors += [
        f"{name}: {error['message']} ({'.'.join(error['path'])})"
        for name, payload in payloads.items()
        for error in (payload or {}).get("userErrors", ())
    ]
    if errors:
        raise RuntimeError(f"the example data does not fit this version: {'; '.join(errors)}")
