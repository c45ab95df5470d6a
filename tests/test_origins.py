"""Pages of other origins: which of them may use the API, and what the log says about it."""

from __future__ import annotations

import logging

import httpx
import pytest
from websockets.exceptions import InvalidStatus

import db
from graph.server.origins import MOST_LOGGED, Origins
from graph.settings import Mode, Settings
from tests.conftest import serving
from tests.processes import CODE
from tests.sockets import Talk, listening

FRONTEND = "http://localhost:5173"
SITE = ("https://app.example.org",)
# The allowed origins in production, the origin, the host, and whether a handshake is accepted.
ORIGINS: list[tuple[tuple[str, ...], str | None, str, bool]] = [
    ((), None, "127.0.0.1:8000", True),
    ((), "http://127.0.0.1:8000", "127.0.0.1:8000", True),
    ((), "https://127.0.0.1:8000", "127.0.0.1:8000", True),
    ((), "http://127.0.0.1", "127.0.0.1:8000", False),
    ((), "http://127.0.0.1:8001", "127.0.0.1:8000", False),
    ((), "http://example.org", "127.0.0.1:8000", False),
    ((), "http://127.0.0.1:8000.example.org", "127.0.0.1:8000", False),
    ((), "null", "127.0.0.1:8000", False),
    ((), "null", "", False),
    ((), "", "", False),
    # A port that goes without saying need not be said.
    ((), "https://api.example.org", "api.example.org", True),
    ((), "https://api.example.org", "API.example.org:443", True),
    ((), "https://api.example.org", "api.example.org:80", False),
    ((), "http://[::1]:8000", "[::1]:8000", True),
    (SITE, SITE[0], "api.example.org", True),
    (SITE, None, "api.example.org", True),
    (SITE, "https://api.example.org", "api.example.org", True),
    (SITE, "https://app.example.org:8443", "api.example.org", False),
    (SITE, "http://app.example.org", "api.example.org", False),
    (SITE, "https://example.org", "api.example.org", False),
    (("*",), "http://example.org", "api.example.org", True),
    (("*",), "null", "api.example.org", True),
]


def test_a_page_is_of_this_server_or_of_an_allowed_site() -> None:
    for allowed, origin, host, expected in ORIGINS:
        origins = Origins(Settings(mode=Mode.PRODUCTION, allowed_origins=allowed))
        assert origins.allows_handshake(origin, host) is expected, (allowed, origin, host)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://localhost:5173", True),
        ("https://localhost:5173", True),
        ("http://localhost", True),
        ("http://127.0.0.1:3000", True),
        ("http://[::1]:3000", True),
        ("http://localhost.example.org", False),
        ("http://localhost:5173.example.org", False),
        ("http://evil-localhost:5173", False),
        ("http://localhost@example.org", False),
        ("http://127.0.0.10:3000", False),
        ("http://192.168.0.1:3000", False),
        ("ftp://localhost", False),
        ("http://localhost:5173/", False),
        ("localhost:5173", False),
        ("null", False),
        ("", False),
    ],
)
def test_in_development_pages_on_loopback_are_allowed(origin: str, expected: bool) -> None:
    assert Origins(Settings()).allows(origin) is expected
    assert not Origins(Settings(mode=Mode.PRODUCTION)).allows(origin)
    # Whoever sets the origins has said which.
    assert not Origins(Settings(allowed_origins=SITE)).allows(origin)


async def preflight(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    """What a browser asks before it sends an operation of a page."""
    headers = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return await http.options("/graphql", headers=headers)


async def answer(http: httpx.AsyncClient, origin: str) -> httpx.Response:
    """The answer to an operation of a page."""
    return await http.post("/graphql", json={"query": "{ __typename }"}, headers={"origin": origin})


async def test_a_frontend_on_another_port_can_be_developed(database: db.Database) -> None:
    async with serving(database, Settings()) as http:
        responses = [await preflight(http, FRONTEND), await answer(http, FRONTEND)]
        others = [await ask(http, SITE[0]) for ask in (preflight, answer)]

    for response in responses:
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == FRONTEND
        assert "access-control-allow-credentials" not in response.headers
    assert others[0].status_code == 400
    for response in others:
        assert "access-control-allow-origin" not in response.headers


async def test_in_production_no_origin_is_allowed_that_is_not_named(database: db.Database) -> None:
    for allowed, status in (((), 405), (SITE, 400)):
        settings = Settings(mode=Mode.PRODUCTION, allowed_origins=allowed)
        async with serving(database, settings) as http:
            refused, unreadable = await preflight(http, FRONTEND), await answer(http, FRONTEND)
        assert refused.status_code == status
        assert refused.headers.get("access-control-allow-origin") is None
        assert unreadable.headers.get("access-control-allow-origin") is None


async def test_a_frontend_on_another_port_opens_a_socket(database: db.Database) -> None:
    async with listening(database) as server, server.connect(origin=FRONTEND) as connection:
        await Talk(connection).begin()
    async with listening(database, Settings(mode=Mode.PRODUCTION)) as server:
        with pytest.raises(InvalidStatus) as caught:
            await server.connect(origin=FRONTEND)
        assert caught.value.response.status_code == 403


async def test_the_log_says_once_for_each_origin_what_production_needs(
    database: db.Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "troupe")
    async with serving(database, Settings()) as http:
        for origin in (FRONTEND, FRONTEND, "http://127.0.0.1:3000", SITE[0]):
            await preflight(http, origin)
            await answer(http, origin)

    assert [each for each in caplog.messages if "pages" in each] == [
        f"pages of {origin} may use the API, because this is a development server; in production,"
        " set TROUPE_ALLOWED_ORIGINS to the origin of your frontend"
        for origin in (FRONTEND, "http://127.0.0.1:3000")
    ]
    assert caplog.messages[0] in (CODE / "docs" / "clients.md").read_text(encoding="utf-8")


async def test_a_page_of_this_server_is_not_one_of_another_origin(
    database: db.Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "troupe")
    async with serving(database, Settings()) as http:
        own = await http.post(
            "/graphql",
            json={"query": "{ __typename }"},
            headers={"origin": "http://127.0.0.1:8000", "host": "127.0.0.1:8000"},
        )
    async with (
        listening(database) as server,
        server.connect(origin=f"http://127.0.0.1:{server.port}") as connection,
    ):
        await Talk(connection).begin()

    assert own.json() == {"data": {"__typename": "Query"}}
    assert "access-control-allow-origin" not in own.headers
    assert [each for each in caplog.messages if "pages" in each] == []


def test_the_log_does_not_grow_with_the_origins_that_a_program_makes_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "troupe")
    origins = Origins(Settings())
    for port in range(MOST_LOGGED + 10):
        assert origins.allows(f"http://localhost:{port}")
    assert len(caplog.messages) == MOST_LOGGED
