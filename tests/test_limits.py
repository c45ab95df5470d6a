"""What a document may hold: each limit at its edge, and bombs that must not go off."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLSyntaxError, get_introspection_query, parse, specified_rules, validate
from graphql.validation.rules import overlapping_fields_can_be_merged
from hypothesis import given
from hypothesis import strategies as st

import db
from graph.core.errors import BadRequest, RequestError
from graph.core.selections import InvalidOperation
from graph.execution import documents
from graph.execution.documents import MOST_ERRORS, parse_document
from graph.limits.cost import cost_of
from graph.limits.document_size import DocumentSize, document_size
from graph.schema import graphql_schema
from graph.settings import Settings
from tests.conftest import People, serving
from tests.operations import read_operation
from tests.test_docs import TEXTS, examples

ROOT = Path(__file__).parents[1]

# For each limit, a document that has just so many.
EXACTLY: dict[str, Callable[[int], str]] = {
    "max_document_length": lambda n: "{ __typename }".ljust(n),
    "max_tokens": lambda n: "{" + " __typename" * (n - 2) + " }",
    "max_depth": lambda n: "{ tasks { nodes " + "{ parentTask " * (n - 3) + "{ id" + " }" * n,
    "max_fields": lambda n: "{" + " __typename" * n + " }",
    "max_aliases": lambda n: "{" + " ".join(f"a{i}: __typename" for i in range(n)) + " }",
    "max_directives": lambda n: "{" + " __typename @include(if: true)" * n + " }",
    "max_root_fields": lambda n: "{" + " __typename" * n + " }",
    "max_conditions": lambda n: (
        "{ tasks(where: {or: [" + '{title: {eq: "x"}} ' * n + "]}) { totalCount } }"
    ),
    "max_cost": lambda n: f"{{ projects(first: {n}) {{ nodes {{ id }} }} }}",
}
WORDS = {
    "max_document_length": "characters",
    "max_tokens": "tokens",
    "max_depth": "levels of fields",
    "max_fields": "selections",
    "max_aliases": "aliases",
    "max_directives": "directives",
    "max_root_fields": "root fields",
    "max_conditions": "conditions",
    "max_cost": "rows",
}


@pytest.mark.parametrize("setting", EXACTLY)
async def test_a_limit_is_what_it_says(setting: str, database: db.Database, people: People) -> None:
    limit = 30
    async with serving(database, Settings().model_copy(update={setting: limit})) as http:
        client = people.owner.through(http)

        allowed = await client.ask(EXACTLY[setting](limit))
        refused = await client.ask(EXACTLY[setting](limit + 1))

    assert allowed.data
    assert refused.body.get("data") is None
    assert refused.code == "LIMIT_EXCEEDED"
    # How many tokens there are, only who reads them all knows.
    found = None if setting == "max_tokens" else limit + 1
    has = f" has {found}, and" if found else ""
    advice = ""
    if setting == "max_cost":
        advice = f" `projects` alone costs {limit + 1}: ask for fewer with `first`."
    assert refused.errors[0]["message"] == (
        f"Too many {WORDS[setting]}: this{has} may have {limit} (TROUPE_{setting.upper()}).{advice}"
    )
    assert refused.errors[0]["extensions"] == {
        "code": "LIMIT_EXCEEDED",
        "limit": setting,
        "found": found,
        "allowed": limit,
    }
    assert refused.statements == []


async def test_variables_hold_so_many_values(database: db.Database, people: People) -> None:
    query = "query($w: TaskFilter, $j: JSON) { a: tasks(where: $w) { totalCount }"
    query += " b: tasks(where: {metadataContains: $j}) { totalCount } }"
    # Both variables; or and metadataContains; title; in; and what is in the lists. JSON is one.
    titles = [f"{n}" for n in range(25)]
    where = {"or": [{"title": {"in": titles}}], "metadataContains": {"a": [1] * 100}}
    async with serving(database, Settings(max_values=32)) as http:
        client = people.owner.through(http)

        allowed = await client.ask(query, w=where, j=[1] * 100)
        titles.append("one more")
        refused = await client.ask(query, w=where, j=[1] * 100)

    assert "data" in allowed.body
    assert "LIMIT_EXCEEDED" not in allowed.text
    assert refused.errors == [
        {
            "message": "Too many values: this may have 32 (TROUPE_MAX_VALUES).",
            "extensions": {
                "code": "LIMIT_EXCEEDED",
                "limit": "max_values",
                "found": None,
                "allowed": 32,
            },
        }
    ]
    assert refused.statements == []


async def test_a_known_document_has_the_same_limits(database: db.Database, people: People) -> None:
    query = "query($w: TaskFilter) { tasks(where: $w) { totalCount } }"
    title = {"title": {"eq": "x"}}
    pages = "query($n: Int) { projects(first: $n) { nodes { id } } }"
    settings = Settings(max_conditions=3, max_values=20, max_cost=50)
    async with serving(database, settings) as http:
        client = people.owner.through(http)

        few = [await client.ask(pages, n=50) for _ in range(3)]
        many = [await client.ask(pages, n=51) for _ in range(3)]
        allowed = [await client.ask(query, w={"or": [title] * 3}) for _ in range(3)]
        conditions = [await client.ask(query, w={"or": [title] * 4}) for _ in range(3)]
        values = [await client.ask(query, w={"title": {"in": ["x"] * 20}}) for _ in range(3)]

    assert [answer.data for answer in allowed] == [{"tasks": {"totalCount": 0}}] * 3
    assert [answer.data for answer in few] == [{"projects": {"nodes": []}}] * 3
    found = ((conditions, "max_conditions"), (values, "max_values"), (many, "max_cost"))
    for answers, limit in found:
        assert [answer.errors[0]["extensions"]["limit"] for answer in answers] == [limit] * 3


async def test_comments_are_limited_as_tokens_are(database: db.Database, people: People) -> None:
    async with serving(database, Settings(max_tokens=30)) as http:
        client = people.owner.through(http)

        assert (await client.ask("#\n" * 30 + "{ __typename }")).data
        refused = await client.ask("#\n" * 31 + "{ __typename }")

    assert refused.errors[0]["message"] == (
        "Too many comments: this may have 30 (TROUPE_MAX_TOKENS)."
    )


def test_what_a_fragment_has_counts_wherever_it_is_spread() -> None:
    document = parse("""
        query A @a { x: p { ...F ...F } ...R }
        query B($v: Int @v) { q }
        fragment F on T @f { y: r @g { ...G } }
        fragment G on T { s { t } ... @h { u } }
        fragment R on Query { w: p q }
    """)

    size = document_size(document)

    # A: p ...F ...F ...R, twice r ...G and s t ... u, once p q; B: q.
    assert size.selections == 4 + 2 * (2 + 4) + 2 + 1
    assert size.aliases == 1 + 2 * 1 + 1
    assert size.directives == 1 + 2 * (1 + 1 + 1) + 1
    assert size.depth == 4  # p r s t
    assert size.roots == 3  # p, and p q of R
    assert size.root_names == {"p", "q"}


def test_what_is_spread_nowhere_counts_as_well() -> None:
    size = document_size(parse("{ a } fragment F on T { b: c { d @e } }"))

    assert (size.selections, size.aliases, size.directives, size.depth) == (3, 1, 1, 2)


@pytest.mark.parametrize(
    "cycle",
    ["fragment F on T { a ...F }", "fragment F on T { a { ...G } } fragment G on T { ...F }"],
)
def test_a_circle_of_fragments_is_refused(cycle: str) -> None:
    with pytest.raises(BadRequest, match="The fragment F spreads itself"):
        document_size(parse("{ ...F } " + cycle))


@st.composite
def fragments(draw: st.DrawFn) -> str:
    """A document of fragments, each of which spreads only those after it."""
    number = draw(st.integers(0, 5))

    def selections(place: int, deep: int) -> str:
        kinds = ["a", "x: a", "a @d"]
        kinds += [f"...F{n}" for n in range(place + 1, number)]
        chosen = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3))
        if deep < 2 and draw(st.booleans()):
            chosen.append(f"b {selections(place, deep + 1)}")
            chosen.append(f"... @d {selections(place, deep + 1)}")
        return "{ " + " ".join(chosen) + " }"

    definitions = [selections(-1, 0)]
    definitions += [f"fragment F{n} on T {selections(n, 0)}" for n in range(number)]
    return "\n".join(definitions)


def counted(node: Any, fragments: dict[str, Any], depth: int = 0) -> DocumentSize:
    """What `document_size` counts, by walking every way."""
    size = DocumentSize()
    for selection in node.selection_set.selections:
        size.selections += 1
        size.directives += len(selection.directives or ())
        below = selection
        deeper = depth
        if selection.kind == "field":
            size.aliases += selection.alias is not None
            deeper += 1
            size.depth = max(size.depth, deeper)
            size.roots += depth == 0
        elif selection.kind == "fragment_spread":
            below = fragments[selection.name.value]
        if below.selection_set is not None:
            inner = counted(below, fragments, deeper)
            size.selections += inner.selections
            size.aliases += inner.aliases
            size.directives += inner.directives
            size.depth = max(size.depth, inner.depth)
            size.roots += inner.roots
    return size


@given(fragments())
def test_counting_is_as_walking_every_way(text: str) -> None:
    document = parse(text)
    operation, *rest = document.definitions
    named = {fragment.name.value: fragment for fragment in rest}  # type: ignore[attr-defined]

    size, walked = document_size(document), counted(operation, named)

    # Fragments that are spread nowhere only add.
    assert size.roots == walked.roots
    for name in ("selections", "aliases", "directives", "depth"):
        assert getattr(size, name) >= getattr(walked, name)
    used = {f"F{n}" for n in range(5) if f"...F{n}" in text}
    if used >= set(named):
        reached = {name for name in named if _reaches(operation, named, name)}
        if reached == set(named):
            walked.root_names = size.root_names
            assert size == walked


def _reaches(node: Any, fragments: dict[str, Any], name: str) -> bool:
    for selection in node.selection_set.selections:
        below = selection
        if selection.kind == "fragment_spread":
            if selection.name.value == name:
                return True
            below = fragments[selection.name.value]
        if below.selection_set is not None and _reaches(below, fragments, name):
            return True
    return False


def chain(size: int) -> str:
    """Fragments that spread the next one twice."""
    number = size // 48
    return "{ tasks { nodes { ...F0 } } } " + " ".join(
        [f"fragment F{n} on Task {{ a: id ...F{n + 1} ...F{n + 1} }}" for n in range(number)]
        + [f"fragment F{number} on Task {{ id }}"]
    )


def circle(size: int) -> str:
    """Fragments that spread the next one, and the last the first."""
    number = max(1, size // 36)
    return "{ ...F0 } " + " ".join(
        f"fragment F{n} on Query {{ ...F{(n + 1) % number} }}" for n in range(number)
    )


def each_other(size: int) -> str:
    """Fragments that spread all that follow."""
    number = int((size / 3) ** 0.5)
    return "{ ...F0 } " + " ".join(
        f"fragment F{n} on Query {{ a " + " ".join(f"...F{m}" for m in range(n + 1, number)) + " }"
        for n in range(number)
    )


# Of about so many characters each.
BOMBS: dict[str, Callable[[int], str]] = {
    "fragments that double": chain,
    "a circle of fragments": circle,
    "fragments that spread each other": each_other,
    "deep fields": lambda n: "{ a " * (n // 6) + "}" * (n // 6),
    "deep inline fragments": lambda n: "{ ... " * (n // 7) + "{ a }" + "}" * (n // 7),
    "deep lists": lambda n: "{ a(b: " + "[" * (n // 2) + "]" * (n // 2) + ") }",
    "deep objects": lambda n: "{ a(b: " + "{a:" * (n // 4) + "1" + "}" * (n // 4) + ") }",
    "aliases": lambda n: "{" + " ".join(f"a{i}: __typename" for i in range(n // 18)) + "}",
    "one field": lambda n: "{" + "tasks{nodes{id}} " * (n // 17) + "}",
    "one leaf": lambda n: "{" + "__typename " * (n // 11) + "}",
    "unknown fields": lambda n: "{" + " ".join(f"a{i}" for i in range(n // 7)) + "}",
    "long names": lambda n: "{" + " ".join(f"{'x' * 800}{i}" for i in range(n // 804)) + "}",
    "one name": lambda n: "{" + "x" * n + "}",
    "directives": lambda n: "{ __typename" + " @include(if: true)" * (n // 19) + "}",
    "unknown directives": lambda n: "{ __typename" + " @x" * (n // 3) + "}",
    "a long list": lambda n: "{ nodes(ids: [" + '"x" ' * (n // 4) + "]) { id } }",
    "a long string": lambda n: '{ node(id: "' + "x" * n + '") { id } }',
    "escapes": lambda n: '{ node(id: "' + "\\u0041" * (n // 6) + '") { id } }',
    "a long block": lambda n: '{ node(id: """' + "x\n" * (n // 2) + '""") { id } }',
    "many arguments": lambda n: (
        "{ me(" + " ".join(f"a{i}: 1" for i in range(n // 9)) + ") { id } }"
    ),
    "variables": lambda n: (
        "query(" + " ".join(f"$a{i}: Int" for i in range(n // 12)) + ") { __typename }"
    ),
    "operations": lambda n: " ".join(f"query A{i} {{ __typename }}" for i in range(n // 26)),
    "operations that share fragments": lambda n: (
        " ".join(f"query A{i} {{ ...F0 }}" for i in range(n // 50))
        + " ".join(
            [f"fragment F{i} on Query {{ ...F{i + 1} }}" for i in range(n // 70)]
            + [f"fragment F{n // 70} on Query {{ __typename }}"]
        )
    ),
    "introspection": lambda n: (
        "{ __schema { types { fields { type { "
        + " ".join(f"a{i}: fields {{ name }}" for i in range(n // 22))
        + " } } } } }"
    ),
    "blanks": lambda n: " " * n + "{ __typename }",
    "lines": lambda n: "\n" * n + "{ __typename }",
    "commas": lambda n: "," * n + "{ __typename }",
    "comments": lambda n: "#\n" * (n // 2) + "{ __typename }",
    "one comment": lambda n: "#" * n + "\n{ __typename }",
    "no end": lambda n: "{ a " * (n // 4),
    "nothing that is GraphQL": lambda n: "☃" * n,
}


def took(text: str) -> float:
    """How long it takes to come to a verdict on a document, in seconds of this process."""
    best = 60.0
    for _ in range(3):
        started = time.process_time()
        with suppress(RequestError, GraphQLSyntaxError, InvalidOperation):
            documents.validated(parse_document(text, Settings()), graphql_schema, suggest=True)
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("kind", BOMBS)
def test_no_document_takes_long(kind: str) -> None:
    for size in (1_000, 10_000, 49_000, 1_000_000):
        # It is under 0.1 s on an idle machine; this one may have much to do.
        assert took(BOMBS[kind](size)) < 0.5, size


@pytest.mark.parametrize("kind", BOMBS)
def test_counting_is_linear_in_the_document(kind: str) -> None:
    """Also without any limit, as far as the parser goes."""

    def counting(size: int) -> float:
        try:
            document = parse(BOMBS[kind](size))
        except GraphQLSyntaxError:
            return 0
        best = 60.0
        gc.disable()  # what it collects is left from the parser, and not counting
        try:
            for _ in range(5):
                started = time.process_time()
                with suppress(BadRequest):
                    document_size(document)
                best = min(best, time.process_time() - started)
        finally:
            gc.enable()
        return best

    small, large = counting(20_000), counting(40_000)

    assert large < 3 * small + 0.005


@pytest.mark.parametrize("kind", BOMBS)
async def test_a_bomb_is_answered_like_anything_else(kind: str, limited: People) -> None:
    for size in (1_000, 49_000, 1_000_000):
        for client in (limited.owner, limited.nobody):
            answer = await client.ask(BOMBS[kind](size))

            # What is larger than a body may be is not even read.
            assert answer.status in ((200, 413) if size == 1_000_000 else (200,)), size
            assert {error["extensions"]["code"] for error in answer.body.get("errors", ())} <= {
                "TOO_LARGE",
                "BAD_REQUEST",
                "BAD_USER_INPUT",
                "LIMIT_EXCEEDED",
                "UNAUTHENTICATED",
            }
    assert (await limited.nobody.ask("{ __typename }")).data


async def test_huge_variables_are_only_looked_at(limited: People) -> None:
    query = "query($v: [ID!]!) { nodes(ids: $v) { id } }"

    answer = await limited.owner.ask(query, v=["x"] * 15_000)

    assert answer.code == "LIMIT_EXCEEDED"
    assert answer.errors[0]["extensions"]["limit"] == "max_values"


async def test_a_document_is_read_and_validated_once(
    limited: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("parse", "validate", "document_size"):
        original = getattr(documents, name)

        def noted(*args: Any, _name: str = name, _original: Any = original, **rest: Any) -> Any:
            calls.append(_name)
            return _original(*args, **rest)

        monkeypatch.setattr(documents, name, noted)
    query = "query($n: Int!) { projects(first: $n) { totalCount } }"

    for n in range(3):
        assert (await limited.owner.ask(query, n=n)).data
        assert (await limited.stranger.ask(query, n=n)).data

    assert calls == ["parse", "document_size", "validate"]
    # What was not valid is not kept, and neither is what anybody can send.
    for client, text in ((limited.owner, "{ nothing }"), (limited.nobody, "{ __typename }")):
        calls.clear()
        await client.ask(text)
        await client.ask(text)
        assert calls == ["parse", "document_size", "validate"] * 2


def known_documents() -> dict[str, str]:
    """What people are shown to try, and what tools ask by themselves."""
    folder = ROOT / "graph" / "graphiql" / "examples"
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.graphql")}
    for page, text in TEXTS.items():
        found |= {
            f"{page} {n}": example.query
            for n, example in enumerate(examples(text))
            if "LIMIT_EXCEEDED" not in (example.answer or "")
        }
    found["introspection"] = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
    )
    return found


@pytest.mark.parametrize("name", known_documents())
def test_what_people_are_shown_is_well_within_the_limits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, settings = known_documents()[name], Settings()
    document = parse_document(text, settings)
    size = document.size

    assert len(text) <= settings.max_document_length / 2
    assert document.tokens <= settings.max_tokens / 2
    assert size.selections <= settings.max_fields / 2
    assert size.aliases <= settings.max_aliases / 2
    assert size.directives <= settings.max_directives / 2
    assert size.roots <= settings.max_root_fields / 2
    assert size.depth <= settings.max_depth
    budget = overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET
    monkeypatch.setattr(overlapping_fields_can_be_merged, "MAX_COMPLEXITY_BUDGET", budget // 4)
    assert validate(graphql_schema, document.node, specified_rules, MOST_ERRORS) == []
    if "$" not in text:
        operation = read_operation(text)
        assert cost_of(operation) <= settings.max_cost / 2


def test_the_demo_fits_the_limits() -> None:
    document = parse_document(
        (ROOT / "examples" / "demo.graphql").read_text(encoding="utf-8"), Settings()
    )

    assert documents.validated(document, graphql_schema, suggest=False).is_valid
