"""Full-text search: the words of every script, in whatever database the messages are."""

from __future__ import annotations

import unicodedata

import httpx
import pytest
from sqlalchemy import text

import db
from tests.conftest import People
from tests.test_conversations import SEARCH, start
from tests.world import World, make_world, stored


@pytest.fixture
async def world(database: db.Database, http: httpx.AsyncClient, people: People) -> World:
    return await make_world(database, http, people)


# Texts of all scripts, and for each the queries that find it, and those that do not.
SCRIPTS = (
    (
        # Whatever is neither letter nor digit parts words.
        "\u201cOtters\u201d \u2014 lynx\u2026heron\u00a0stork \u2013 \u00bfrobin? \u00a1wren!"
        " 50\u20ac",
        ["otters", "lynx", "heron", "stork", "robin", "wren", "50", "\u201cHeron stork\u201d"],
        ["\u201dstork heron\u201c", "lynxheron"],
    ),
    (
        "\U0001f98aDingo\u2764\ufe0f\u200dquoll\U0001f1e6\U0001f1fawombat\uff01numbat\u2122koala\u00b2"
        " 1\ufe0f\u20e3",
        ["dingo", "quoll", "wombat", "numbat", "koala", "1"],
        ["\U0001f98a", "dingoquoll"],
    ),
    (
        "see <b>marsh</b> List<Moor> in fen/bog.py, mail@mire.org 3.14 x_y -7",
        [
            "marsh",
            "moor",
            "bog",
            "bog.py",
            "fen/bog.py",
            "mire",
            "mail@mire.org",
            "3.14",
            "14",
            "7",
        ],
        ["py.bog", "4.13"],
    ),
    # Case, accents and joined letters, however they are typed.
    (
        "Éclair ΛΌΓΟΣ ЁЖ ǅUNGLA",
        ["éclair", "e\u0301CLAIR", "λόγος", "ёж", "ǆungla"],
        ["eclair"],
    ),
    (
        "de\u0301ja\u0300-vu l\u2019été",
        ["déjà", "DÉJÀ-VU", "vu", "l'été", "l\u2019été"],
        ["deja"],
    ),
    (
        "soft\u00adhyphen \ufb01sh \uff21\uff22\uff23\uff12\uff10",
        ["softhyphen", "fish", "abc20"],
        ["soft", "hyphen"],
    ),
    # Without spaces: whatever follows each other there, from one character on.
    (
        "我昨天在水族馆看见2024年的iPhone手机。",
        [
            *("水族馆", "水族", "水", "馆", "机", "手机", "2024", "看见2024年", "年的iPhone"),
            *("\u300c水族馆\u300d\uff1f", "我 手机"),
        ],
        ["族水", "水馆", "水天", "昨在", "iPhone水"],
    ),
    (
        "東京都のタワー、\uff8a\uff9f\uff9d\uff80\uff9e\u3000北海道",
        [
            *("東京", "京都", "都のタワー", "パンダ", "北海道", "東京\u3000-大阪"),
            *('"タワー、パンダ"', '"パンダ 北海道"', "\u201cパンダ\u3000北海道\u201d"),
        ],
        ["大阪", "東京\u3000-北海道", '"北海道 パンダ"'],
    ),
    ("서울에서 만나요", ["서울", "서울에서", "만나", "\u1109\u1165울"], ["에서울", "부산"]),
    ("ฉันชอบแมวมาก", ["แมว", "ชอบ"], ["แมวชอบ"]),
)


@pytest.mark.parametrize(("content", "finding", "others"), SCRIPTS, ids=range(len(SCRIPTS)))
async def test_words_of_all_scripts_are_found_beside_whatever_stands_there(
    world: World, resolvers: People, content: str, finding: list[str], others: list[str]
) -> None:
    await start(world, content)
    for query in finding + others:
        expected = [content] if query in finding else []
        for people in (world.people, resolvers):
            answer = await people.owner.ask(SEARCH, q=query)

            found = answer.data["searchMessages"]
            assert [node["content"] for node in found["nodes"]] == expected, query
            assert found["totalCount"] == len(expected)


async def test_every_character_parts_words_or_is_part_of_one(world: World) -> None:
    """As Unicode said in its version 3.2, which Python keeps beside the one that it is at."""
    words, letters = [], []
    for code in range(0x80, 0x30000):
        sign, kind = chr(code), unicodedata.ucd_3_2_0.category(chr(code))
        if kind[0] in "PSZ" and unicodedata.category(sign)[0] in "PSZ":
            words.append(f"a{sign}b")
        elif kind[0] == "L" and unicodedata.category(sign)[0] == "L":
            letters.append(f"a{sign}b")
    many = "SELECT array_agg(word) FROM unnest(cast(:words AS text[])) word WHERE "
    apart = "search_vector(word) @@ 'a' AND search_vector(word) @@ 'b'"

    (joined,) = await stored(world.database, f"{many} NOT ({apart})", words=words)
    (parted,) = await stored(
        world.database,
        f"{many} {apart} AND NOT search_vector(word) @@ search_query(word)",
        words=letters,
    )

    assert (len(words) > 2_000, len(letters) > 80_000) == (True, True)
    assert (joined, parted) == (None, None)


async def test_the_index_serves_a_search(world: World) -> None:
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        for generic in ("force_custom_plan", "force_generic_plan"):
            await session.execute(text(f"SET LOCAL plan_cache_mode = {generic}"))
            select = "SELECT count(*) FROM messages WHERE search @@ search_query(:query)"
            query = {"query": "昨日の “otter”"}
            plan = list(await session.scalars(text(f"EXPLAIN {select}"), query))

            assert any("Bitmap Index Scan on ix_messages_search" in line for line in plan), plan
