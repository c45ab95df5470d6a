"""Full-text search: the words of every script, in whatever database the messages are."""

from __future__ import annotations

import unicodedata
from typing import Any

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


async def test_each_search_is_planned_by_its_own_words(world: World) -> None:
    """A plan that is kept for any words would be bad for most, and split the words for each row."""
    select = "SELECT id FROM messages WHERE search @@ search_query($1) ORDER BY timestamp LIMIT 9"
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        await session.execute(text(f"PREPARE found (text) AS {select}"))
        for _ in range(10):
            await session.execute(text("EXECUTE found ('moon')"))
        plans = (
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE name = 'found'"
        )
        assert (await session.execute(text(plans))).one() == (0, 10)


RANKED = """query($q: String!, $first: Int, $after: String, $last: Int, $before: String) {
  searchMessages(query: $q, first: $first, after: $after, last: $last, before: $before) {
    totalCount
    edges { cursor node { content } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


async def alike(world: World, resolvers: People, query: str, **variables: Any) -> Any:
    """What the owner is answered, which has to be the same both ways, by one statement."""
    compiled = await world.owner.ask(query, **variables)
    resolved = await resolvers.owner.ask(query, **variables)
    assert compiled.text == resolved.text
    assert len(compiled.statements) == 1
    return compiled.data


async def test_the_best_matches_come_first(world: World, resolvers: People) -> None:
    once, twice = "moon and sun", "moon and moon"
    far, long = "moon a b c d e f g h sun", f"moon {'word ' * 500}"
    await start(world, long, far, once, twice, "sun", once)
    for query, expected in (
        ("moon", [twice, once, once, far, long]),
        ("moon sun", [once, once, far]),
        ("moon -sun", [twice, long]),
        ('"moon and"', [once, twice, once]),  # equal: the newest first
        ("-moon", ["sun", "Hello"]),
        ("nothing", []),
    ):
        data = await alike(world, resolvers, RANKED, q=query)
        edges = data["searchMessages"]["edges"]
        assert [edge["node"]["content"] for edge in edges] == expected, query


async def test_ranked_matches_are_paged_without_gaps(world: World, resolvers: People) -> None:
    # Three ranks, each of several messages.
    texts = [" ".join(["moon"] * (1 + n % 3) + ["x"] * (2 - n % 3) + [f"n{n}"]) for n in range(11)]
    await start(world, *texts)
    expected = [texts[n] for n in sorted(range(11), key=lambda n: (-(n % 3), -n))]
    for number, cursor, more, end in (
        ("first", "after", "hasNextPage", "endCursor"),
        ("last", "before", "hasPreviousPage", "startCursor"),
    ):
        seen: list[str] = []
        variables: dict[str, Any] = {number: 2}
        while True:
            page = (await alike(world, resolvers, RANKED, q="moon", **variables))["searchMessages"]
            contents = [edge["node"]["content"] for edge in page["edges"]]
            seen = seen + contents if number == "first" else contents + seen
            assert page["totalCount"] == 11
            if not page["pageInfo"][more]:
                break
            variables[cursor] = page["pageInfo"][end]
        assert seen == expected
    for people in (world.people, resolvers):
        answer = await people.owner.ask(
            'query($after: String) { searchMessages(query: "moon", orderBy: TIMESTAMP_DESC,'
            " after: $after) { nodes { id } } }",
            after=page["pageInfo"]["endCursor"],
        )
        assert answer.code == "BAD_USER_INPUT"
        assert "belongs to the order RANK" in answer.errors[0]["message"]


def marked(parts: list[Any]) -> str:
    """The parts of an excerpt as one text, with the matches in brackets."""
    return "".join(f"[{part['text']}]" if part["isMatch"] else part["text"] for part in parts)


HIGHLIGHTS = """query($id: ID!, $q: String!) {
  message(id: $id) { highlights(query: $q) { text isMatch } }
}"""


@pytest.mark.parametrize(
    ("content", "query", "expected"),
    [
        ("The rover, the CRATER. Ice!", "crater ice", "The rover, the [CRATER]. [Ice]!"),
        ("craters crater", "crater", "craters [crater]"),
        ("<b>moon</b> & <i>sun</i>", "moon b", "<[b]>[moon]</[b]> & <i>sun</i>"),
        ("moon sun moon", '"moon sun"', "[moon] [sun] [moon]"),
        ("moon sun", "sun -moon", "moon [sun]"),
        ("moon sun", "sun or -moon", "moon [sun]"),
        ("moon sun", '-"sun stars" moon', "[moon] sun"),
        ("moon sun", "-stars", "moon sun"),
        ("moon sun", "!?", "moon sun"),
        ("moon\n\n  sun\t", "sun", "moon\n\n  [sun]\t"),
        ("", "moon", ""),
        ("'moon' \\ :* | moon", "moon ' | \\", "'[moon]' \\ :* | [moon]"),
        ("Éclair e\u0301clair eclair", "ÉCLAIR", "[Éclair] [éclair] eclair"),
        ("größer GRÖSSER grosser", "größer", "[größer] [GRÖSSER] grosser"),
        ("soft\u00adhyphen \ufb01sh", "softhyphen fish", "[soft\u00adhyphen] [\ufb01sh]"),
        ("“昨日は水族館に行った。”", "水族館", "“昨日は[水族館]に行った。”"),
        ("東京都の京", "京", "東[京]都の[京]"),
        (
            "\uff8a\uff9f\uff9d\uff80\uff9e、東京",
            "パンダ",
            "[\uff8a\uff9f\uff9d\uff80\uff9e]、東京",
        ),
        ("2024年的iPhone", "年的iPhone", "2024[年的iPhone]"),
        ("서울에서 만나요", "서울", "[서울]에서 만나요"),
        ("ฉันชอบแมวมาก", "แมว", "ฉันชอบ[แมว]มาก"),
    ],
)
async def test_the_words_of_a_query_are_marked(
    world: World, resolvers: People, content: str, query: str, expected: str
) -> None:
    _, message = await start(world, content)
    data = await alike(world, resolvers, HIGHLIGHTS, id=message, q=query)
    assert marked(data["message"]["highlights"]) == expected


async def test_a_long_text_is_shown_in_part(world: World, resolvers: People) -> None:
    async def excerpt(content: str, query: str = "moon") -> list[Any]:
        _, message = await start(world, content)
        data = await alike(world, resolvers, HIGHLIGHTS, id=message, q=query)
        parts: list[Any] = data["message"]["highlights"]
        return parts

    word = "word "
    parts = await excerpt(word * 3000 + "moon " + word * 3000)
    before, match, after = (part["text"] for part in parts)
    assert match == "moon"
    assert before.startswith("…word word ")
    assert after.endswith(" word word…")
    assert (80 < len(before) < 250, 100 < len(after) < 350) == (True, True)
    # Too far behind, and no match: the beginning.
    for content in (word * 4001 + "moon", word * 100):
        assert marked(await excerpt(content)) == word * 79 + "word…"
    # Words of any length, and without a space to cut at.
    assert marked(await excerpt("x" * 1000 + " moon " + "y" * 1000)).count("[moon]") == 1
    assert marked(await excerpt("x" * 401)) == "x" * 400 + "…"
    unspaced = "月" * 300 + "水族館" + "月" * 300
    assert marked(await excerpt(unspaced, "水族館")).count("[水族館]") == 1
    many = await excerpt("moon sun " * 40)
    assert len(many) == 20
    assert [part["isMatch"] for part in many] == [True, False] * 10
    assert marked(many) == "[moon] sun " * 10 + "moon sun " * 30


async def test_each_match_is_shown_with_its_words(world: World, resolvers: People) -> None:
    await start(world, *(f"moon {n} sun" for n in range(5)))
    query = """query($q: String!) {
      searchMessages(query: $q) {
        nodes {
          highlights(query: $q) { isMatch text }
          sun: highlights(query: "sun", first: 1) { text }
        }
        edges { node { other: highlights(query: "4") { text } } }
      }
    }"""
    page = (await alike(world, resolvers, query, q="moon"))["searchMessages"]
    for n, node in zip((4, 3, 2, 1, 0), page["nodes"], strict=True):
        assert marked(node["highlights"]) == f"[moon] {n} sun"
        assert node["sun"] == [{"text": f"moon {n} "}]
    other = [part["text"] for part in page["edges"][0]["node"]["other"]]
    assert other == ["moon ", "4", " sun"]
    resolved = await resolvers.owner.ask(query, q="moon")
    assert len(resolved.statements) == 4  # the page, and a statement for all highlights of a query


async def test_only_what_is_shown_is_highlighted(world: World, resolvers: People) -> None:
    await start(world, *(f"moon {n}" for n in range(20)))
    async with world.database.write(db.Viewer(is_administrator=True)) as session:
        name = await session.scalar(text("SELECT current_database()"))
        await session.execute(text(f"ALTER DATABASE {name} SET track_functions = 'pl'"))
    functions = "pg_stat_user_functions WHERE funcname = 'highlights'"
    calls = f"SELECT coalesce(sum(calls), 0) FROM {functions}"
    page = 'searchMessages(query: "moon", first: 3)'
    await world.database.dispose()
    expected = 0
    for people in (world.people, resolvers):
        for shown, more in (
            ('nodes { highlights(query: "moon") { text } } pageInfo { endCursor }', 3),
            ("nodes { content } totalCount", 0),
        ):
            answer = await people.owner.ask(f"{{ {page} {{ {shown} }} }}")
            assert len(answer.data["searchMessages"]["nodes"]) == 3
            expected += more
            async with world.database.write(db.Viewer(is_administrator=True)) as session:
                await session.execute(text("SELECT pg_stat_force_next_flush()"))
            await world.database.dispose()
            assert await stored(world.database, calls) == [expected]


async def test_highlights_that_cannot_be_are_refused(world: World, resolvers: People) -> None:
    _, message = await start(world, "moon")
    for people in (world.people, resolvers):
        for query in ("x" * 1001, "nul\0", None, 1):
            answer = await people.owner.ask(HIGHLIGHTS, id=message, q=query)
            assert answer.code == "BAD_USER_INPUT", query
        hidden = await people.stranger.ask(HIGHLIGHTS, id=message, q="moon")
        assert hidden.data == {"message": None}
