"""Which conversations of a file were imported before, and which of their messages are new.

A conversation has a unique address (`conversation_url`) that is made from its project, its hash and
its number among those with the same hash, so that it is found without a search, also after it was
moved to another project. If the file has an id for it, the hash is that of the id, and the metadata
have the id of the message that was imported last: what follows it in the file is new. Branches of a
conversation have the same hash; each continues the one whose last message it contains.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any
from uuid import UUID

from sqlalchemy import select

from db.base import any_of
from db.conversations import Conversation, Message
from db.imports.chats import Chat, numbered
from db.sessions import WriteSession

# The fewest numbers without a conversation after which no others are looked for.
SPARE = 8


@dataclass(slots=True)
class Known:
    """A conversation that was imported before."""

    id: UUID
    # What its metadata say of the import.
    origin: dict[str, Any]
    # Its messages by their ids in the file; only read if there are new ones.
    messages: dict[str, UUID] = field(default_factory=dict)

    @property
    def last(self) -> str:
        """The id of the message that was imported last."""
        return str(self.origin.get("last"))


@dataclass(slots=True)
class Match:
    """A conversation of the file, and the one that it continues, if there is one."""

    chat: Chat
    number: int
    known: Known | None
    # The positions of its new messages.
    new: Sequence[int]
    # The messages by their ids that a fork has copies of.
    originals: dict[str, UUID] = field(default_factory=dict)


def url(project_id: UUID, chat: Chat, number: int) -> str:
    """The address of a conversation: the same at every import, and hard to guess."""
    identity = f"{project_id} {chat.hash} {number}"
    return base64.urlsafe_b64encode(hashlib.sha256(identity.encode()).digest()[:18]).decode()


async def find_known(
    session: WriteSession, project_id: UUID, groups: Sequence[Sequence[Chat]]
) -> list[Match]:
    """The conversations of a file, each with what is known of it."""
    known: list[dict[int, Known]] = [{} for _ in groups]
    ends = [0 if group[0].ids else group[0].number - 1 for group in groups]
    while True:
        places = {}
        for place, group in enumerate(groups):
            first, ends[place] = ends[place] + 1, _end(group, known[place])
            for number in range(first, ends[place] + 1):
                places[url(project_id, group[0], number)] = place, number
        if not places:
            break
        rows = await session.execute(
            select(
                Conversation.conversation_url,
                Conversation.id,
                Conversation.conversation_metadata["import"],
            ).where(any_of(Conversation.conversation_url, list(places)))
        )
        for address, id, origin in rows:
            place, number = places[address]
            known[place][number] = Known(id, origin if isinstance(origin, dict) else {})
    found: list[Match] = []
    for group, before in zip(groups, known, strict=True):
        found += await _matches(session, group, before)
    return found


def _end(group: Sequence[Chat], known: Mapping[int, Known]) -> int:
    """The number up to which conversations are looked for, given those that were found.

    More may have been imported before than are in the file, and some deleted since. So many numbers
    without a conversation at the end are enough for all of the file.
    """
    if not group[0].ids:
        return group[0].number
    return max([len(group), *known]) + max(len(group), SPARE)


async def _matches(
    session: WriteSession, group: Sequence[Chat], known: dict[int, Known]
) -> list[Match]:
    """Each branch of a conversation with the one that it continues."""
    if not group[0].ids:
        [chat] = group
        before = known.get(chat.number)
        return [Match(chat, chat.number, before, () if before else range(len(chat.messages)))]
    pairs = list(_pairs(group, known))
    if all(before is not None and before.last == c.ids[-1] for c, _, before in pairs):
        return [Match(chat, number, before, ()) for chat, number, before in pairs]
    for before in known.values():
        before.messages = await _messages(session, before.id, group[0].id_key)
    originals: dict[str, UUID] = {}
    for _, before in sorted(known.items(), reverse=True):
        originals |= before.messages
    matches = []
    for chat, number, before in pairs:
        # What has no new messages is the beginning of one, such as in an older file.
        same = before or next((k for k in known.values() if k.messages.keys() >= {*chat.ids}), None)
        matches.append(Match(chat, number, same, _new(chat, same), originals))
    return matches


def _pairs(
    group: Sequence[Chat], known: dict[int, Known]
) -> Iterator[tuple[Chat, int, Known | None]]:
    positions = [{id: place for place, id in enumerate(chat.ids)} for chat in group]
    left = dict(enumerate(group))

    def depth(number: int) -> int:
        """The position of the last message, whose branch is found first if it is far on."""
        return max(found.get(known[number].last, -1) for found in positions)

    for number in sorted(known, key=depth, reverse=True):
        last = known[number].last
        # The current branch is the first one.
        place = next((place for place in left if last in positions[place]), None)
        if place is None and len(group) == len(known) == 1:
            # The file is another part of it, such as what came before.
            place = 0
        if place is not None:
            yield left.pop(place), number, known[number]
    free = (number for number in count(1) if number not in known)
    for chat in left.values():
        yield chat, next(free), None


def _new(chat: Chat, known: Known | None) -> Sequence[int]:
    if known is None:
        return range(len(chat.ids))
    last = known.last
    # What was deleted here before the last message stays deleted.
    first = chat.ids.index(last) + 1 if last in chat.ids else 0
    return [place for place in range(first, len(chat.ids)) if chat.ids[place] not in known.messages]


async def _messages(session: WriteSession, conversation: UUID, id_key: str) -> dict[str, UUID]:
    """The messages that a conversation was imported with, by their ids in the file."""
    id = Message.message_metadata[id_key].astext
    rows = (
        await session.execute(
            select(id, Message.id)
            .where(any_of(Message.conversation_id, [conversation]), id.is_not(None))
            .order_by(Message.sequence)
        )
    ).all()
    return dict(zip(numbered(id for id, _ in rows), (row for _, row in rows), strict=True))
