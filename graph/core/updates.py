"""Subscriptions: what a client follows in the event log, and the messages that it gets.

The first message has the state, and each later one an event. A message is an object of a type that
is derived from `Update`; the row that its fields are read from is a `Message`. The compiler reads
the messages of many viewers with one statement, the resolvers each by itself.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

import strawberry
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    Uuid,
    case,
    column,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.orm import aliased
from strawberry.types.arguments import StrawberryArgument
from strawberry.utils.str_converters import to_camel_case

from db import Event, EventAction, Viewer, scope
from db.events.topics import Change, Place, Topic
from db.parameters import Deferred, bind
from graph.core.computed import Keyed, Value, annotated, computed_type, keyed, value
from graph.core.connections import Connection
from graph.core.context import Context
from graph.core.declarations import StatementBuilder
from graph.core.entities import entity_of, lazy
from graph.core.errors import BadInput
from graph.core.fields import Conditions, EntityField, Paged, argument
from graph.core.filters import condition, keys
from graph.core.json_text import Json, or_null, piece
from graph.core.selections import Selected

# The first lines of cursors: of messages, and of the connection `events`.
OWN, CONNECTION = "EVENT", "KEY"


@dataclass(frozen=True, slots=True)
class Message:
    """The row that the fields of a message are read from."""

    place: Place
    event_id: int | None = None
    """The position of the event; None in the message with the state."""
    subject_id: UUID | None = None
    """The object that is followed."""
    object_id: UUID | None = None
    """The object that the event is about, or the one that is followed."""
    after: str | None = None
    """The cursor that the client sent, if the log no longer continues there."""

    @property
    def cursor(self) -> str:
        """The cursor with which a client goes on after this message."""
        return encode_place(self.place)


COLUMNS: dict[str, Any] = {
    "cursor": Text,
    "event_id": BigInteger,
    "subject_id": Uuid,
    "object_id": Uuid,
    "after": Text,
}
"""The columns of messages in SQL."""


def encode_place(place: Place) -> str:
    """The cursor of a place in the event log."""
    return base64.b64encode(f"{OWN}\n{place.position}\n{place.moment}".encode()).decode()


def decode_place(cursor: str) -> Place:
    """The place of a cursor, of a message or of the connection `events`. Raises BadInput."""
    try:
        kind, *numbers = base64.b64decode(cursor, validate=True).decode("ascii").split("\n")
        if not all(number.isdecimal() and len(number) < 20 for number in numbers):
            raise ValueError
        place = Place(*map(int, numbers))
        if len(numbers) != {OWN: 2, CONNECTION: 1}.get(kind) or max(place) >= 2**63:
            raise ValueError
    except (binascii.Error, TypeError, ValueError):
        raise BadInput(
            f"after: {cursor!r} is no cursor; use one of a message, or of `events`."
        ) from None
    return place


# The types of messages


def changed(model: type, description: str) -> Any:
    """A field of a message: the object that its event is about."""
    return Keyed(model, description, "object_id")


class GapField(Value):
    """The gap before a message, if there is one."""

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return None if source.after is None else source

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        (children,) = selected.children.values()
        json = builder.object(children, row)
        return or_null(json, case((row.c.after.is_not(None), builder.text(json))))


def gap_field(description: str) -> Any:
    """A field with the gap before a message."""
    return GapField(description)


@strawberry.type(
    description="Events are missing: the log no longer reaches back to the cursor, or was restored."
)
class Gap:
    after: str = value("The cursor that the client sent.")


@strawberry.interface(description="A message of a subscription: the state first, then each change.")
@annotated
class Update:
    cursor: str = value(
        "With it as `after`, a subscription goes on after this message, on any server, without a"
        " gap."
    )
    gap: Gap | None = gap_field(
        "Set if events before this message are missing, in which case it has the state."
    )
    event = keyed(Event, "The event; none in a message with the state.")

    @classmethod
    def is_type_of(cls, value: object, _: object) -> bool:
        """Whether the resolvers read the fields of an object."""
        return isinstance(value, Message)


update_type = computed_type
"""Declare the type of messages, derived from `Update`; its docstring is the description."""


class AtStart(Paged):
    """A field of a message: what there is now, as a connection; null in messages with an event."""

    def __init__(
        self,
        model: type,
        of: Any = None,
        *,
        conditions: Conditions | None = None,
        order: str | None = None,
        description: str,
    ) -> None:
        """`of` is the column that names the object that is followed."""
        super().__init__(model, conditions=conditions, order=order, description=description)
        self.of = of

    @property
    def annotation(self) -> Any:
        return Connection[lazy(self.model)] | None  # type: ignore[misc]

    def load(self, context: Context, selected: Selected, source: Any) -> Any:
        if source.event_id is not None:
            return None
        if self.of is None:
            return self.page(context, selected)
        return self.page(context, selected, self.of, source.subject_id)

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        json = super().sql(builder, selected, row)
        text = case((row.c.event_id.is_(None), builder.text(json)))
        return or_null((piece(text, of=json),), text)

    def of_parent(self, rows: Select[Any], row: Any, target: Any) -> Select[Any]:
        if self.of is None or row is None:
            return rows
        return rows.where(getattr(target, self.of.key) == row.c.subject_id).correlate(row)


def at_start(model: type, of: Any = None, **options: Any) -> Any:
    """A field of a message: what there is now, as a connection; null in messages with an event."""
    return AtStart(model, of, **options)


# The fields of the root


AFTER = (
    "The cursor of the last message that you have, or of `events`: you get what happened after it,"
    " each event once. Without it, you get the state first, and then what happens."
)

Follow = Callable[[Any], Sequence[Topic]]
"""The topics that a subscription listens to, for the key of the object that is followed."""

EventConditions = Callable[[Any, Any, Viewer], list[ColumnElement[bool]]]
"""Conditions on a message, made of the event, the row of the message, and the viewer."""


class Followed(EntityField):
    """A subscription."""

    def __init__(
        self,
        kind: type,
        follow: Follow,
        *,
        model: type | None = None,
        subject: type | None = None,
        argument_name: str = "id",
        otherwise: str = "",
        default_key: Callable[[Viewer], UUID | None] | None = None,
        actions: Collection[EventAction] = tuple(EventAction),
        conditions: EventConditions | None = None,
        is_filtered: bool = False,
        description: str,
    ) -> None:
        """Messages are of this kind, and have objects of `model`.

        `subject` is the model of the object that is followed, whose id is an argument. If that may
        be missing, `otherwise` says what it is then, and `default_key` may have the key. An event
        about an object of another model than `model` counts for the subject, or for the object that
        it is part of. With `is_filtered`, there is an argument with conditions on the events.
        """
        super().__init__(model, description=description)
        self.kind, self.follow, self.subject = kind, follow, subject
        self.argument_name, self.otherwise, self.default_key = argument_name, otherwise, default_key
        self.actions = {action.value for action in actions}
        self.conditions, self.is_filtered = conditions, is_filtered

    @property
    def annotation(self) -> Any:
        return self.kind

    def default_arguments(self) -> list[StrawberryArgument]:
        found = [argument("after", str | None, AFTER)]
        if self.subject is not None:
            kind: Any = strawberry.ID | None if self.otherwise else strawberry.ID
            text = f"The id of the {self.subject.__name__}{self.otherwise}."
            found.append(argument(self.argument_name, kind, text))
        if self.is_filtered:
            where: Any = entity_of(Event).where
            found.append(argument("where", where | None, "Only events that meet these conditions."))
        return found

    def register(self, selected: Selected, look_ahead: Any) -> None:
        """It loads no entity itself."""

    def resolve(self, source: Any, info: Any, **arguments: Any) -> Any:
        return source

    def subject_of(self, viewer: Viewer, arguments: Mapping[str, Any]) -> UUID | None:
        """The key of the object that is followed. Raises BadInput."""
        if self.subject is None:
            return None
        id = arguments.get(self.argument_name)
        if id is None:
            return self._default(viewer)
        key: UUID = keys(self.subject, id)
        return key

    def _default(self, viewer: Viewer) -> UUID | None:
        if self.default_key is None:
            return None
        key = self.default_key(viewer)
        if key is None:
            assert self.subject is not None
            raise BadInput(
                f"{to_camel_case(self.argument_name)}: name the {self.subject.__name__}."
            )
        return key

    def state(self, place: Place, subject: UUID | None, after: str | None) -> Message:
        """The message with the state at a place; `after` is set if there is a gap before it."""
        is_object = self.subject is self.model
        return Message(place, None, subject, subject if is_object else None, after)

    def message(self, change: Change, subject: UUID | None) -> Message | None:
        """The message of a change; None if there is none."""
        if change.action not in self.actions:
            return None
        is_own = self.model is not None and change.entity_type == self.model.__name__
        object_id = UUID(change.entity_id) if is_own else subject or change.parent_id
        return Message(change.place, change.position, subject, object_id)

    def visible(
        self, row: Any, viewer: Viewer, arguments: Mapping[str, Any]
    ) -> ColumnElement[bool]:
        """Whether a viewer gets a message, given as its row."""
        event = aliased(Event)
        met = [event.position == row.c.event_id, scope(event, viewer)]
        if arguments.get("where") is not None:
            met.append(condition(arguments["where"], event, viewer))
        if self.conditions is not None:
            met += self.conditions(event, row, viewer)
        seen = select(event.position).where(*met).correlate(row)
        return or_(row.c.event_id.is_(None), exists(seen))

    def sql(self, builder: StatementBuilder, selected: Selected, row: Any) -> Json:
        (children,) = selected.children.values()
        return builder.object(children, row)


def messages_table() -> Any:
    """The messages of a request as a table, with their numbers from 1."""
    arrays = (bind(Deferred(partial(_column, name)), ARRAY(kind)) for name, kind in COLUMNS.items())
    columns = [column(name, kind) for name, kind in COLUMNS.items()]
    unnested = func.unnest(*arrays)
    return unnested.table_valued(*columns, with_ordinality="number").render_derived(name="updates")


def _column(name: str, request: Any) -> list[Any]:
    return [getattr(message, name) for message in request.messages]


def followed(kind: type, follow: Follow, **options: Any) -> Any:
    """A subscription whose messages are of this kind."""
    return Followed(kind, follow, **options)
