"""Cursors: what they say, and what is none; and the other arguments that cannot be met."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import db
from graph.core import connections
from graph.core.connections import encode_cursor, window
from graph.core.entities import entity_of
from graph.core.errors import BadInput
from graph.core.ids import parse_global_id
from graph.core.scalars import global_id
from graph.projects import ProjectOrder
from tests.conftest import People


def forged(text: str) -> str:
    """What looks like a cursor."""
    return base64.b64encode(text.encode()).decode()


ID = "01a20195-6c86-73ef-9799-2c4d0c93a8b4"
NO_CURSORS = {
    "no base64": "nonsense!",
    "other letters": "Ünï",
    "empty": "",
    "no text": base64.b64encode(b"\xff\xfe").decode(),
    "one field": forged("PRIORITY_ASC"),
    "two fields": forged(f"PRIORITY_ASC\n{ID}"),
    "no id": forged("PRIORITY_ASC\n1\n1"),
    "an id in braces": forged(f"PRIORITY_ASC\n{{{ID}}}\n1"),
    "an id without dashes": forged(f"PRIORITY_ASC\n{ID.replace('-', '')}\n1"),
    "a number with spaces": forged(f"PRIORITY_ASC\n{ID}\n 1 "),
    "a number with an underscore": forged(f"PRIORITY_ASC\n{ID}\n1_0"),
    "a number in another script": forged(f"PRIORITY_ASC\n{ID}\n\u0661"),
    "a number with a sign": forged(f"PRIORITY_ASC\n{ID}\n+1"),
    "a fraction": forged(f"PRIORITY_ASC\n{ID}\n1.0"),
    "a number too great": forged(f"PRIORITY_ASC\n{ID}\n2147483648"),
    "a number far too great": forged(f"PRIORITY_ASC\n{ID}\n{'9' * 5000}"),
    "no number": forged(f"PRIORITY_ASC\n{ID}\n"),
    "a NUL": forged(f"PRIORITY_ASC\n{ID}\n\0"),
}


async def test_what_no_page_gave_is_no_cursor(people: People) -> None:
    query = "query($c: String) { tasks(orderBy: PRIORITY_ASC, after: $c) { totalCount } }"
    for kind, cursor in NO_CURSORS.items():
        answer = await people.owner.ask(query, c=cursor)

        assert answer.code == "BAD_USER_INPUT", kind
        sentence = f"after: {cursor!r} is no cursor; use one that a page gave."
        assert answer.errors[0]["message"] == sentence, kind


async def test_a_value_of_no_row_makes_no_cursor(people: People) -> None:
    cases = [
        ("2026-01-01T00:00:00", "CREATED_AT_ASC"),
        ("2026-13-01T00:00:00Z", "CREATED_AT_ASC"),
        ("\u0662\u0660\u0662\u0666-01-01T00:00:00Z", "CREATED_AT_ASC"),
        ("infinity", "CREATED_AT_ASC"),
        ("0000-01-01T00:00:00Z", "CREATED_AT_ASC"),
        ("a\0b", "NAME_ASC"),
    ]
    for value, order in cases:
        answer = await people.owner.ask(
            "query($cursor: String, $order: ProjectOrder!)"
            " { projects(orderBy: $order, before: $cursor) { nodes { id } } }",
            cursor=forged(f"{order}\n{ID}\n{value}"),
            order=order,
        )

        assert answer.code == "BAD_USER_INPUT", value
        assert "is no cursor; use one that a page gave." in answer.errors[0]["message"], value


OF_ANOTHER = forged(f"NAME_ASC\n{ID}\na")


async def test_arguments_that_cannot_be_met_are_refused_in_a_sentence(people: People) -> None:
    cases = [
        ("first: 1, last: 1", "Ask for `first` or for `last`, not for both."),
        ("first: 101", "first must be between 0 and 100, not 101."),
        ("first: -1", "first must be between 0 and 100, not -1."),
        ("last: 101", "last must be between 0 and 100, not 101."),
        ("last: -2147483648", "last must be between 0 and 100, not -2147483648."),
        (
            f'orderBy: NAME_DESC, after: "{OF_ANOTHER}"',
            "after: this cursor belongs to the order NAME_ASC, not to NAME_DESC;"
            " start from the first page when you change the order.",
        ),
        (
            f'before: "{OF_ANOTHER}"',
            "before: this cursor belongs to the order NAME_ASC, not to CREATED_AT_ASC;"
            " start from the first page when you change the order.",
        ),
    ]
    for arguments, sentence in cases:
        page = f"projects({arguments}) {{ totalCount }}"
        for query in (f"{{ {page} }}", f"{{ me {{ {page} }} }}"):
            answer = await people.owner.ask(query)

            assert answer.code == "BAD_USER_INPUT", query
            assert answer.errors[0]["message"] == sentence


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(text=TEXT, key=st.uuids(), order=st.sampled_from(["NAME_ASC", "NAME_DESC"]))
def test_a_cursor_says_where_it_points(text: str, key: Any, order: str) -> None:
    cursor = encode_cursor(ProjectOrder[order], key, text)

    view = window(entity_of(db.Project), after=cursor, order_by=ProjectOrder[order])

    assert view.after == (text, key)


@given(text=st.text() | st.binary().map(lambda raw: base64.b64encode(raw).decode()))
def test_any_text_is_a_cursor_or_refused(text: str) -> None:
    try:
        view = window(entity_of(db.Task), before=text)
    except BadInput:
        return

    assert view.before is not None


async def test_a_cursor_is_read_once(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "query($a: String) { projects(first: 1, after: $a) { pageInfo { hasNextPage } } }"
    read: list[str] = []

    def noted(entity: Any, order: Any, argument: str, cursor: str) -> Any:
        read.append(cursor)
        return decode(entity, order, argument, cursor)

    decode: Any = connections._decode_cursor
    monkeypatch.setattr("graph.core.connections._decode_cursor", noted)
    for number in range(3):
        cursor = encode_cursor(
            ProjectOrder.CREATED_AT_ASC, UUID(int=number), "2026-01-01T00:00:00Z"
        )
        read.clear()

        assert (await people.owner.ask(query, a=cursor)).data

        assert set(read) == {cursor}
        # The first time, the resolvers' tree has it read as well.
        assert len(read) == 1 or number == 0


async def test_ids_are_read_once(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    ids = [global_id("Project", UUID(int=number)) for number in range(5)]
    assert (await people.owner.ask(query, ids=ids)).data == {"nodes": [None] * 5}
    read: list[str] = []

    def noted(id: str) -> Any:
        read.append(id)
        return parse_global_id(id)

    monkeypatch.setattr("graph.core.nodes.parse_global_id", noted)

    assert (await people.owner.ask(query, ids=ids[:3])).data == {"nodes": [None] * 3}
    assert read == ids[:3]
