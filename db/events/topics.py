"""Changes, as those who follow the event log get them, and the topics that they listen to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
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

    def condition(self, number: int) -> tuple[str, list[Any]]:
        """The condition on an event in SQL, and the values of its parameters from this number."""
        met, values = ["true"], list[Any]()
        for name, value in self._asdict().items():
            if value is None:
                continue
            parameter = f"${number + len(values)}"
            values.append(value)
            if name == "parent_id":
                table, column = _parent(self.entity_type)
                parts = f"SELECT id::text FROM {table} WHERE {column} = {parameter}"
                met.append(f"e.entity_id IN ({parts})")
            else:
                met.append(f"e.{name} = {parameter}")
        return " AND ".join(met), values


def _parent(name: str | None) -> tuple[str, str]:
    """The table of a model, and its column in PARENTS."""
    assert name is not None
    tables = {mapper.class_.__name__: mapper.local_table for mapper in Base.registry.mappers}
    return str(tables[name]), PARENTS[name]


def changes_sql(condition: str) -> str:
    """The changes with a condition after the position `$1`, at most `$2`, as a statement."""
    parents = " ".join(
        f"WHEN '{name}' THEN (SELECT p.{column} FROM {table} p WHERE p.id = e.entity_id::uuid)"
        for name in PARENTS
        for table, column in [_parent(name)]
    )
    return f"""
        SELECT e.position, (extract(epoch FROM e.created_at) * 1000000)::bigint, e.project_id,
          e.entity_type, e.entity_id, e.action, CASE e.entity_type {parents} END
        FROM events e
        WHERE e.position > $1 AND ({condition}) ORDER BY e.position LIMIT $2
    """


def any_topic(topics: Sequence[Topic], number: int) -> tuple[str, list[Any]]:
    """The condition that an event belongs to a topic, and its values from this parameter on."""
    conditions, values = [], list[Any]()
    for topic in topics:
        condition, own = topic.condition(number + len(values))
        conditions.append(f"({condition})")
        values += own
    return " OR ".join(conditions), values
