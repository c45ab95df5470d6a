"""Automatic persisted queries, as Apollo's clients use them, and what is kept for them."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

import db
from graph.execution.documents import hash_of
from graph.settings import Settings
from tests.client import Answer, Client
from tests.conftest import People, serving

QUERY = "query Mine($n: Int = 1) { projects(first: $n) { totalCount } }"
HASH = sha256(QUERY.encode()).hexdigest()
DATA = {"projects": {"totalCount": 0}}


async def persisted(client: Client, hash: Any = HASH, *, version: Any = 1, **rest: Any) -> Answer:
    """Ask by a hash."""
    asked = {"version": version, "sha256Hash": hash}
    return await client.request(extensions={"persistedQuery": asked}, **rest)


async def test_a_document_is_sent_once(limited: People) -> None:
    first = await persisted(limited.owner)
    assert first.errors == [
        {"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}
    ]
    assert first.statements == []

    assert (await persisted(limited.owner, query=QUERY)).data == DATA

    assert (await persisted(limited.owner)).data == DATA
    assert (await persisted(limited.stranger, variables={"n": 2})).data == DATA
    assert (await persisted(limited.owner, HASH.upper(), operationName="Mine")).data == DATA
    wrong = await persisted(limited.owner, variables={"n": "two"})
    assert wrong.code == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    "extensions",
    [
        {"persistedQuery": {"version": 1, "sha256Hash": HASH}},
        {"persistedQuery": {"version": 1, "sha256Hash": HASH.upper()}, "more": [1]},
        {"clientLibrary": {"name": "somebody's", "version": "1"}},
    ],
)
async def test_a_known_document_is_found_whatever_the_extensions(
    limited: People, monkeypatch: pytest.MonkeyPatch, extensions: dict[str, Any]
) -> None:
    assert (await limited.owner.ask(QUERY)).data == DATA
    for step in ("parse_document", "validated", "execute_root_selection_set"):
        monkeypatch.setattr(f"graph.execution.pipeline.{step}", None)
    query = None if "persistedQuery" in extensions else QUERY

    answer = await limited.owner.request(query=query, variables={"n": 3}, extensions=extensions)

    assert answer.data == DATA


async def test_nobody_learns_what_others_ask(limited: People) -> None:
    await persisted(limited.owner, query=QUERY)

    for hash in (HASH, "0" * 64):
        assert (await persisted(limited.nobody, hash)).code == "PERSISTED_QUERY_NOT_FOUND"


async def test_one_may_log_in_by_a_persisted_query(limited: People) -> None:
    login = "mutation($i: LoginInput!) { login(input: $i) { userErrors { code } } }"
    hash = hash_of(login)
    variables = {"i": {"username": "nobody", "password": "wrong"}}
    first = await persisted(limited.nobody, hash, variables=variables)
    answer = await persisted(limited.nobody, hash, query=login, variables=variables)

    assert first.code == "PERSISTED_QUERY_NOT_FOUND"
    assert answer.data == {"login": {"userErrors": [{"code": "INVALID"}]}}


async def test_a_hash_must_fit_its_document(limited: People) -> None:
    answer = await persisted(limited.owner, "0" * 64, query=QUERY)

    assert answer.code == "BAD_REQUEST"
    assert answer.errors[0]["message"] == ("The document has another SHA-256 than sha256Hash says.")
    assert (await persisted(limited.owner, "0" * 64)).code == "PERSISTED_QUERY_NOT_FOUND"


@pytest.mark.parametrize("hash", [None, 1, [], {}])
async def test_a_hash_is_a_text(limited: People, hash: Any) -> None:
    assert (await persisted(limited.owner, hash)).code == "BAD_REQUEST"


@pytest.mark.parametrize("asked", [None, 1, "x", [1], True])
async def test_what_is_no_object_is_refused(limited: People, asked: Any) -> None:
    answer = await limited.owner.request(extensions={"persistedQuery": asked})

    assert answer.code == "BAD_REQUEST"


@pytest.mark.parametrize("version", [None, 2, "1"])
async def test_another_version_is_not_supported(limited: People, version: Any) -> None:
    for rest in ({}, {"query": QUERY}):
        answer = await persisted(limited.owner, version=version, **rest)

        assert answer.code == "PERSISTED_QUERY_NOT_SUPPORTED"
        assert answer.errors[0]["message"] == "PersistedQueryNotSupported"


async def test_they_can_be_switched_off(database: db.Database, people: People) -> None:
    async with serving(database, Settings(persisted_queries=False)) as http:
        owner = people.owner.through(http)

        assert (await persisted(owner)).code == "PERSISTED_QUERY_NOT_SUPPORTED"
        assert (await owner.ask(QUERY)).data == DATA


async def test_only_what_is_valid_is_kept(limited: People) -> None:
    for query in ("{ nothing }", "{ broken", "{" + " __typename" * 6000 + " }"):
        hash = hash_of(query)

        refused = await persisted(limited.owner, hash, query=query)

        assert refused.code in ("BAD_REQUEST", "LIMIT_EXCEEDED")
        assert (await persisted(limited.owner, hash)).code == "PERSISTED_QUERY_NOT_FOUND"


async def test_a_document_without_its_hash_is_found_by_it(limited: People) -> None:
    await limited.owner.ask(QUERY)

    assert (await persisted(limited.owner)).data == DATA
