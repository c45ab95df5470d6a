"""A plain Strawberry server, as its documentation teaches: resolvers, DataLoaders, ORM rows.

Of Troupe, only the models are used; there is no authentication. The advice of the documentation on
speed is followed: parsed and validated documents are cached. A loader of the first rows of each
parent reads only these rows, which is better than the documentation's examples.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import strawberry
import uvicorn
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import aliased
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader
from strawberry.extensions import ParserCache, ValidationCache

import db
from db.connections import database_url

Sessions = Callable[[], AsyncSession]
Some = tuple[UUID, int]
"""The id of a project, and the number of its first rows."""


class Loaders:
    """The loaders of one request."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.models = DataLoader(self._models)
        self.agents: DataLoader[Some, list[Agent]] = DataLoader(self._agents)
        self.tasks: DataLoader[Some, list[Task]] = DataLoader(self._tasks)

    async def _models(self, ids: list[str]) -> list[AIModel | None]:
        async with self.sessions() as session:
            rows = await session.scalars(select(db.AIModel).where(db.AIModel.id.in_(ids)))
            found = {row.id: row for row in rows}
        return [
            AIModel(id=strawberry.ID(id), provider=found[id].provider) if id in found else None
            for id in ids
        ]

    async def _agents(self, keys: list[Some]) -> list[list[Agent]]:
        return await self._first(db.Agent, keys, _agent)

    async def _tasks(self, keys: list[Some]) -> list[list[Task]]:
        return await self._first(db.Task, keys, _task)

    async def _first(self, model: Any, keys: Sequence[Some], shown: Any) -> list[list[Any]]:
        """The first rows of each project, in the order of creation."""
        order = (model.created_at, model.id)
        place = func.row_number().over(partition_by=model.project_id, order_by=order)
        numbered = (
            select(model, place.label("place"))
            .where(model.project_id.in_({project for project, _ in keys}))
            .subquery()
        )
        row = aliased(model, numbered)
        wanted = select(row).where(numbered.c.place <= max(first for _, first in keys))
        by_project = defaultdict(list)
        async with self.sessions() as session:
            for found in await session.scalars(wanted.order_by(numbered.c.place)):
                by_project[found.project_id].append(shown(found))
        return [by_project[project][:first] for project, first in keys]


Info = strawberry.Info[Loaders, None]


@strawberry.type
class AIModel:
    """An AI model."""

    id: strawberry.ID
    provider: str


@strawberry.type
class Agent:
    """An agent."""

    id: strawberry.ID
    name: str
    status: str
    model_id: strawberry.Private[str | None]

    @strawberry.field
    async def model(self, info: Info) -> AIModel | None:
        """The AI model that it uses."""
        if self.model_id is None:
            return None
        return await info.context.models.load(self.model_id)


@strawberry.type
class Task:
    """A task."""

    id: strawberry.ID
    title: str
    status: str


@strawberry.type
class Project:
    """A project."""

    id: strawberry.ID
    name: str
    status: str
    row_id: strawberry.Private[UUID]

    @strawberry.field
    async def agents(self, info: Info, first: int) -> list[Agent]:
        """The first agents of the project."""
        return await info.context.agents.load((self.row_id, first))

    @strawberry.field
    async def tasks(self, info: Info, first: int) -> list[Task]:
        """The first tasks of the project."""
        return await info.context.tasks.load((self.row_id, first))


def _project(row: db.Project) -> Project:
    id = strawberry.ID(str(row.id))
    return Project(id=id, name=row.name, status=row.status.value, row_id=row.id)


def _agent(row: db.Agent) -> Agent:
    id = strawberry.ID(str(row.id))
    return Agent(id=id, name=row.name, status=row.status.value, model_id=row.model_id)


def _task(row: db.Task) -> Task:
    return Task(id=strawberry.ID(str(row.id)), title=row.title, status=row.status.value)


@strawberry.type
class Query:
    """The root fields."""

    @strawberry.field
    async def project(self, info: Info, id: strawberry.ID) -> Project | None:
        """A project by its id."""
        async with info.context.sessions() as session:
            row = await session.get(db.Project, UUID(id))
        return None if row is None else _project(row)

    @strawberry.field
    async def projects(self, info: Info, owner: strawberry.ID, first: int) -> list[Project]:
        """The first projects of an owner."""
        owned = select(db.Project).where(db.Project.owner_id == UUID(owner))
        owned = owned.order_by(db.Project.created_at, db.Project.id).limit(first)
        async with info.context.sessions() as session:
            return [_project(row) for row in await session.scalars(owned)]


schema = strawberry.Schema(query=Query, extensions=[ParserCache, ValidationCache])


class Endpoint(GraphQL[Loaders, None]):
    """`/graphql`, with new loaders for each request."""

    def __init__(self, sessions: Sessions) -> None:
        super().__init__(schema, graphql_ide=None)
        self._sessions = sessions

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Loaders:
        """The context of the resolvers."""
        return Loaders(self._sessions)


def create_app(url: str) -> Starlette:
    """The application on a database."""
    engine = create_async_engine(database_url(url), pool_size=10, max_overflow=0)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    return Starlette(routes=[Route("/graphql", Endpoint(sessions))], lifespan=lifespan)


if __name__ == "__main__":
    url, port = sys.argv[1:]
    uvicorn.run(create_app(url), port=int(port), log_level="warning", access_log=False)
