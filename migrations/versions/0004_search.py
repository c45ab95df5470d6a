"""Full-text search for all scripts, independent of the database's locale.

PostgreSQL's parser asks the locale which characters are letters. In the locale C, every character
beyond ASCII is one, such as quotation marks, dashes and no-break spaces. So the parser gets only
letters and digits, in one case and one form of Unicode, separated by spaces.

This rewrites the table of messages and locks it meanwhile: docs/production.md says for how long.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from db.migrate import NO_COLLATION, NotMigratable

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# The code points beyond ASCII that are not part of words: all that are neither letter nor mark nor
# digit in Unicode 14, except spaces, which are replaced by ASCII spaces.
SEPARATORS = """
    0080-009f 00a1-00a9 00ab-00b4 00b6-00b9 00bb-00bf 00d7 00f7 02c2-02c5 02d2-02df
    02e5-02eb 02ed 02ef-02ff 0375 037e 0384-0385 0387 03f6 0482 0488-0489 055a-055f
    0589-058f 05be 05c0 05c3 05c6 05f3-060f 061b-061f 066a-066d 06d4 06dd-06de 06e9
    06fd-06fe 0700-070f 07f6-07f9 07fe-07ff 0830-083e 085e 0888 0890-0891 08e2 0964-0965
    0970 09f2-09fb 09fd 0a76 0af0-0af1 0b70 0b72-0b77 0bf0-0bfa 0c77-0c7f 0c84 0d4f
    0d58-0d5e 0d70-0d79 0df4 0e3f 0e4f 0e5a-0e5b 0f01-0f17 0f1a-0f1f 0f2a-0f34 0f36 0f38
    0f3a-0f3d 0f85 0fbe-0fc5 0fc7-0fda 104a-104f 109e-109f 10fb 1360-137c 1390-1399 1400
    166d-166e 1680 169b-169c 16eb-16ed 1735-1736 17d4-17d6 17d8-17db 17f0-180a 1940-1945
    19da-19ff 1a1e-1a1f 1aa0-1aa6 1aa8-1aad 1abe 1b5a-1b6a 1b74-1b7e 1bfc-1bff 1c3b-1c3f
    1c7e-1c7f 1cc0-1cc7 1cd3 1fbd 1fbf-1fc1 1fcd-1fcf 1fdd-1fdf 1fed-1fef 1ffd-1ffe
    200b-2029 2030-205e 2070 2074-207e 2080-208e 20a0-20c0 20dd-20e0 20e2-20e4 2100-2101
    2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b 2140-2144
    214a-214d 214f-215f 2189-2bff 2ce5-2cea 2cf9-2cff 2d70 2e00-2e2e 2e30-2e5d 2ff0-2ffb
    3001-3004 3008-3020 3030 3036-3037 303d-303f 309b-309c 30a0 30fb 3190-319f 31c0-31e3
    3200-33ff 4dc0-4dff a490-a4c6 a4fe-a4ff a60d-a60f a670-a673 a67e a6f2-a716 a720-a721
    a789-a78a a828-a82b a830-a839 a874-a877 a8ce-a8cf a8f8-a8fa a8fc a92e-a92f a95f
    a9c1-a9cd a9de-a9df aa5c-aa5f aa77-aa79 aade-aadf aaf0-aaf1 ab5b ab6a-ab6b abeb
    e000-f8ff fb29 fbb2-fbc2 fd3e-fd4f fdcf fdfc-fe19 fe30-fe6b ff01-ff0f ff1a-ff20
    ff3b-ff40 ff5b-ff65 ffe0-fffd 10100-1013f 10175-101fc 102e1-102fb 10320-10323 1039f
    103d0 1056f 10857-1085f 10877-1087f 108a7-108af 108fb-108ff 10916-1091f 1093f
    109bc-109bd 109c0-109ff 10a40-10a58 10a7d-10a7f 10a9d-10a9f 10ac8 10aeb-10af6
    10b39-10b3f 10b58-10b5f 10b78-10b7f 10b99-10baf 10cfa-10cff 10e60-10e7e 10ead
    10f1d-10f26 10f51-10f59 10f86-10f89 10fc5-10fcb 11047-11065 110bb-110c1 110cd
    11140-11143 11174-11175 111c5-111c8 111cd 111db 111dd-111f4 11238-1123d 112a9
    1144b-1144f 1145a-1145d 114c6 115c1-115d7 11641-11643 11660-1166c 116b9 1173a-1173f
    1183b 118ea-118f2 11944-11946 119e2 11a3f-11a46 11a9a-11a9c 11a9e-11aa2 11c41-11c45
    11c5a-11c71 11ef7-11ef8 11fc0-11fff 12470-12474 12ff1-12ff2 13430-13438 16a6e-16a6f
    16af5 16b37-16b3f 16b44-16b45 16b5b-16b61 16e80-16e9a 16fe2 1bc9c 1bc9f-1bca3
    1cf50-1d164 1d16a-1d16c 1d173-1d17a 1d183-1d184 1d18c-1d1a9 1d1ae-1d241 1d245-1d378
    1d6c1 1d6db 1d6fb 1d715 1d735 1d74f 1d76f 1d789 1d7a9 1d7c3 1d800-1d9ff 1da37-1da3a
    1da6d-1da74 1da76-1da83 1da85-1da8b 1e14f 1e2ff 1e8c7-1e8cf 1e95e-1ed3d 1eef0-1fbca
    f0000-10fffd
"""
# Invisible characters that do not separate words: soft hyphens, joiners, directions, variation
# selectors.
INVISIBLE = """
    00ad 034f 061c 180b-180f 200c-200f 202a-202e 2060-206f fe00-fe0f feff fff9-fffb e0000-e0fff
"""
# Scripts that are written without spaces between words, and Korean, where endings follow words:
# Thai, Lao, Burmese, Hangul, Khmer, Han, Kana, Bopomofo.
UNSPACED = """
    0e00-0eff 1000-11ff 1780-17ff 2e80-2fdf 3005-318f 31a0-31ff 3400-9fff a960-a97f a9e0-a9ff
    aa60-aa7f ac00-d7ff f900-faff 1b000-1b16f 20000-3ffff
"""
QUOTES = "“”„‟\uff02«»"


def _characters(ranges: str) -> str:
    """These ranges as a character class of a regular expression, without its brackets."""
    return "".join(
        "-".join(f"\\U{int(end, 16):08x}" for end in each.split("-")) for each in ranges.split()
    )


WORD = r"0-9A-Za-z\u0080-\U0010ffff"  # once the separators are gone
SEPARATOR = _characters(SEPARATORS)
HIDDEN = _characters(INVISIBLE)
UNPARTED = _characters(UNSPACED)


def functions(connection: sa.Connection) -> None:
    """Make the functions that prepare texts and queries."""
    # Case folding must not depend on the database's locale. PostgreSQL 17 and later have the first
    # of these collations, builds with ICU the second, and some operating systems the last two.
    known = "SELECT collname FROM pg_collation WHERE collnamespace = 'pg_catalog'::regnamespace"
    collations = set(connection.exec_driver_sql(known).scalars())

    def knows(collation: str) -> bool:
        """Whether it maps the case of letters beyond ASCII."""
        small = f"SELECT lower('É' COLLATE pg_catalog.\"{collation}\") = 'é'"
        return bool(connection.exec_driver_sql(small).scalar())

    wanted = ("pg_c_utf8", "und-x-icu", "default", "C.utf8", "C.UTF-8")
    collation = next((name for name in wanted if name in collations and knows(name)), None)
    if collation is None:
        raise NotMigratable(NO_COLLATION)
    # First to upper case, which several lower-case letters can share, as both forms of the Greek
    # sigma do. Only some collations make SS of ß there.
    connection.exec_driver_sql(
        f"""
        CREATE FUNCTION folded(value text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN replace(
          lower(upper(normalize(value, NFC) COLLATE pg_catalog."{collation}")), 'ß', 'ss'
        )
        """
    )
    # In scripts without spaces, every two neighbours are a word, and so are the first and the last
    # character: "abc" gives "a", "ab", "bc", "c". A tsvector holds 1 MB, which is enough for the
    # words of 200,000 characters.
    connection.exec_driver_sql(
        rf"""
        CREATE FUNCTION search_vector(value text) RETURNS tsvector
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN to_tsvector('simple', left(
          regexp_replace(
            regexp_replace(
              folded(normalize(
                regexp_replace(
                  regexp_replace(left(value, 100000), '[{HIDDEN}]', '', 'g'),
                  '[!-/:-@\[-`{{-~{SEPARATOR}]', ' ', 'g'
                ),
                NFKC
              )),
              '[{UNPARTED}]+', ' \& ', 'g'
            ),
            '[{UNPARTED}]', '\& \&', 'g'
          ),
          200000
        ))
        """
    )
    # Only quotation marks, and a hyphen before a word, have a meaning in a query. Words that are
    # separated by a comma must follow each other, as words in quotation marks must. Text without
    # spaces is split as above, except for its first and last character, because in the text that is
    # found others may be beside them. A single character finds all words that begin with it.
    connection.exec_driver_sql(
        rf"""
        CREATE FUNCTION search_query(value text) RETURNS tsquery
        LANGUAGE sql IMMUTABLE PARALLEL SAFE
        RETURN regexp_replace(
          websearch_to_tsquery('simple',
            regexp_replace(
              regexp_replace(
                regexp_replace(
                  regexp_replace(
                    regexp_replace(
                      folded(normalize(
                        regexp_replace(
                          regexp_replace(
                            regexp_replace(value, '[{HIDDEN}]', '', 'g'),
                            '[{QUOTES}]', '"', 'g'
                          ),
                          '[!#-,./:-@\[-`{{-~{SEPARATOR}]', ',', 'g'
                        ),
                        NFKC
                      )),
                      '(?<=[{WORD}])-|-(?![{WORD}"])', ',', 'g'
                    ),
                    '\s(?=[^"]*"(?:[^"]*"[^"]*")*[^"]*$)', ',', 'g'
                  ),
                  '[{UNPARTED}](?=,*[{WORD}])', '\&,\&', 'g'
                ),
                '((?:^|[\s"])[-,]*[{UNPARTED}]),[{UNPARTED}]', '\1', 'g'
              ),
              '(?<=[{UNPARTED}])(?=[{WORD}])(?![{UNPARTED}])'
              '|(?<=[{WORD}])(?<![{UNPARTED}])(?=[{UNPARTED}])', ',', 'g'
            )
          )::text,
          '''([{UNPARTED}])''', '''\1'':*', 'g'
        )::tsquery
        """
    )


def upgrade() -> None:
    connection = op.get_bind()
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise NotMigratable(
            f"The database is in the encoding {encoding}, and Troupe needs UTF8. Dump it, and"
            " restore it into one made by CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8'."
        )
    functions(connection)
    _replace("search_vector(content)")


def downgrade() -> None:
    _replace("to_tsvector('simple', left(content, 100000))")
    op.execute("DROP FUNCTION search_query(text)")
    op.execute("DROP FUNCTION search_vector(text)")
    op.execute("DROP FUNCTION folded(text)")


def _replace(expression: str) -> None:
    """Replace the expression of the column `search`, and its index."""
    op.drop_index("ix_messages_search", table_name="messages", postgresql_using="gin")
    op.drop_column("messages", "search")
    computed = sa.Computed(expression, persisted=True)
    op.add_column("messages", sa.Column("search", postgresql.TSVECTOR(), computed, nullable=False))
    op.create_index(
        "ix_messages_search", "messages", ["search"], unique=False, postgresql_using="gin"
    )
