"""Changes, as those who follow the event log get them, and the topics that they listen to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple
from uuid import UUID

from db.base import Base

PARENTS = {
    "Communication": "to_agent_id",
    "InteractionAnswer": "interaction_id",
    "Message": "conversation_id",
    "TaskAttempt": "task_id",
}
"""The column of the object that the rows of a model are part of. It never changes."""


class Place(NamedTuple):
    """A place in the event log: after the event with this position."""

    position: int
    moment: int = 0
    """When that event happened, in microseconds since 1970; 0 if nobody knows.

    If a database is restored, or lost its last transactions, another event may get the same
    position: it has another moment.
    """


class Change(NamedTuple):
    """An event, without what was changed."""

    position: int
    moment: int
    project_id: UUID | None
    entity_type: str
    entity_id: str
    action: str
    parent_id: UUID | None
    """The object that it is part of, if its model has one in PARENTS and it still exists."""

    @property
    def place(self) -> Place:
        """The place after this event."""
        return Place(self.position, self.moment)

    def topics(self) -> Iterator[Topic]:
        """The topics that it belongs to."""
        name = self.entity_type
        yield Topic()
        yield Topic(name)
        yield Topic(name, entity_id=self.entity_id)
        if self.parent_id is not None:
            yield Topic(name, parent_id=self.parent_id)
        if self.project_id is not None:
            yield Topic(project_id=self.project_id)
            yield Topic(name, project_id=self.project_id)


class Topic(NamedTuple):
    """The events of this type, of this object, of the parts of an object, or of a project."""

    entity_type: str | None = None
    entity_id: str | None = None
    parent_id: UUID | None = None
    project_id: UUID | None = None

    @property
    def shape(self) -> Shape:
        """What its statement depends on: what it is of, and for parts their type."""
        names = tuple(name for name, value in zip(NAMES, self, strict=True) if value is not None)
        return names, None if self.parent_id is None else self.entity_type


NAMES = ("entity_type", "entity_id", "parent_id", "project_id")
"""What a topic may be of."""

Shape = tuple[tuple[str, ...], str | None]

COLUMNS = """
    e.position, (extract(epoch FROM e.created_at) * 1000000)::bigint AS moment, e.project_id,
    e.entity_type, e.entity_id, e.action
"""

# Of a row that is gone, the event has the key of its parent.
PARENT = """
    WHEN '{name}' THEN coalesce(
      (SELECT p.{column} FROM {table} p WHERE p.id = e.entity_id::uuid),
      (SELECT (coalesce(o.after, o.before) ->> '{column}')::uuid FROM events o
        WHERE o.position = e.position))
"""

PARTS = "e.entity_id = ANY(ARRAY(SELECT p.id::text FROM {table} p WHERE p.{column} = ${number}))"

# Parts that are gone: their rows cannot be looked up.
DELETED_PARTS = "e.action = 'DELETED' AND e.before ->> '{column}' = (${number}::uuid)::text"


def _table(name: str) -> str:
    """The table of a model."""
    tables = {mapper.class_.__name__: mapper.local_table for mapper in Base.registry.mappers}
    return str(tables[name])


def _changes(events: str) -> str:
    """The changes of events, a subquery with COLUMNS, in the order of their positions."""
    parents = "".join(
        PARENT.format(name=name, table=_table(name), column=column)
        for name, column in PARENTS.items()
    )
    return f"""
        SELECT e.*, CASE e.entity_type {parents} END
        FROM ({events}) e ORDER BY e.position LIMIT $2
    """


@cache
def all_changes() -> str:
    """The changes after the position `$1`, at most `$2`, as a statement."""
    return _changes(
        f"SELECT {COLUMNS} FROM events e WHERE e.position > $1 ORDER BY e.position LIMIT $2"
    )


@cache
def changes_of_topics(shapes: tuple[Shape, ...]) -> str:
    """The changes of topics after the position `$1`, at most `$2`, up to the position `$3`.

    The following parameters are the values of the topics. There is a subquery for each topic, and
    for deleted parts, so that an index finds their events.
    """
    number, branches = 4, []
    for names, parts in shapes:
        met, of_parts = ["e.position > $1", "e.position <= $3"], [""]
        for name in names:
            if name == "parent_id" and parts is not None:
                at = {"table": _table(parts), "column": PARENTS[parts], "number": number}
                of_parts = [f" AND {each.format(**at)}" for each in (PARTS, DELETED_PARTS)]
            else:
                met.append(f"e.{name} = ${number}")
            number += 1
        where = " AND ".join(met)
        branches += [
            f"(SELECT {COLUMNS} FROM events e WHERE {where}{own} ORDER BY 1 LIMIT $2)"
            for own in of_parts
        ]
    return _changes(" UNION ".join(branches))
