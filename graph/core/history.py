"""The history of an object: its events in the event log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, cast

from db import Event, Viewer
from db.parameters import bind
from graph.core.connections import Connection
from graph.core.context import Context
from graph.core.declarations import LoadSpec
from graph.core.entities import entity_of, lazy
from graph.core.fields import Paged
from graph.core.selections import Selected


class History(Paged):
    """The events of an object, as a connection by position."""

    def __init__(self, model: type, **options: Any) -> None:
        super().__init__(Event, **options)
        self.of = model

    @property
    def annotation(self) -> Any:
        return Connection[lazy(Event)]  # type: ignore[misc]

    @property
    def key(self) -> str:
        """The name of the attribute that is the key of the object."""
        return str(entity_of(self.of).key.key)

    def add_loads(self, selected: Selected, spec: LoadSpec) -> None:
        spec.columns.add(self.key)

    def members(
        self, arguments: Mapping[str, Any], viewer: Viewer, row: Any
    ) -> list[ColumnElement[bool]]:
        own = row.entity_type == bind(self.of.__name__, Text)
        return [own, *super().members(arguments, viewer, row)]

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        return self.page(context, selected, Event.entity_id, str(getattr(source, self.key)))

    def of_parent(self, rows: Select[Any], row: Any, target: Any) -> Select[Any]:
        return rows.where(target.entity_id == cast(getattr(row, self.key), Text)).correlate(row)


def history(model: type) -> Any:
    """The events of an object of this model."""
    return History(model, description="Its changes, the oldest first.")
