"""The demo: a database with the examples in it."""

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


async def fill(url: str) -> None:
    """Put the examples into a new database. Raises RuntimeError if one of them is refused."""
    database = Database(url)
    try:
        async with database.write(Viewer(is_administrator=True)) as session:
            admin = await access.administrator(session)
            assert admin is not None
        await import_plan(database, EXAMPLES / "plan.json", owner=admin.id, project="Imported plan")
        await import_chats(
            database, EXAMPLES / "chats.json", owner=admin.id, project="Imported chats"
        )
        document = (EXAMPLES / "demo.graphql").read_text(encoding="utf-8")
        pipeline = Pipeline(schema, Limits(Settings()))
        context = Context(database, Viewer(admin.id, is_administrator=True))
        result = await pipeline.answer(
            pipeline.begin(GraphQLRequest(document, None, None, None), context)
        )
    finally:
        await database.dispose()
    payloads: dict[str, Any] = result.data or {}
    faults = [str(error) for error in result.errors or ()]
    faults += [
        f"{name}: {fault['message']} ({'.'.join(fault['path'])})"
        for name, payload in payloads.items()
        for fault in (payload or {}).get("userErrors", ())
    ]
    if faults:
        raise RuntimeError(f"the examples do not fit this version: {'; '.join(faults)}")
