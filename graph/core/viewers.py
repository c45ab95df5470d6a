"""An object whose fields depend on the viewer alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

import orjson
from sqlalchemy import Text

from db import Viewer
from db.parameters import Deferred, bind
from graph.core.computed import computed_type
from graph.core.declarations import Declared, StatementBuilder
from graph.core.json_text import Json
from graph.core.selections import Selected


class ViewerObject(Declared):
    """The object of the root; its fields are lookups by the viewer, and `Choices`."""

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return SimpleNamespace()

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        (children,) = selected.children.values()
        return builder.object(children, None)


class Choices(Declared):
    """A list of members of an enum that a function finds for the viewer."""

    def __init__(self, find: Callable[[Viewer], Sequence[Enum]], description: str) -> None:
        super().__init__(description=description)
        self._find = find

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return self._find(info.context.viewer)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        def encoded(request: Any) -> str:
            return orjson.dumps([each.name for each in self._find(request.viewer)]).decode()

        return (bind(Deferred(encoded), Text),)


viewer_type = computed_type
"""Declare the type of the object; its docstring is the description."""


def viewer_object(description: str) -> Any:
    """Declare a root field for the object."""
    return ViewerObject(description=description)


def choices(find: Callable[[Viewer], Sequence[Enum]], description: str) -> Any:
    """Declare a list of members of an enum."""
    return Choices(find, description)
