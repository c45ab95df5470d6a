"""What browsers are shown, over HTTP, and that the API stays as it is for everybody else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import httpx
import pytest
from graphql import build_schema, parse, validate

import db
from graph.server import pages
from graph.settings import Mode, Settings
from tests.browsers import missing
from tests.conftest import People, serving
from tests.drift import ROOT

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
SOURCE, CONSOLE = pages.HERE / "graphiql", pages.HERE / "console"
EXAMPLES = sorted((SOURCE / "examples").glob("*.graphql"))


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page as the build leaves it."""
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>the full page", encoding="utf-8")
    (tmp_path / "assets" / "page-4FOM.js").write_text("'the full script'", encoding="utf-8")
    (tmp_path / "assets" / "page-4FOM.js.gz").write_bytes(gzip.compress(b"'the full script'"))
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    monkeypatch.setattr(pages, "BUILT", tmp_path)
    monkeypatch.setattr(pages, "CONSOLE", tmp_path / "none")


@pytest.fixture
def console(built: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A console as the build leaves it, beside the page."""
    folder = tmp_path / "console"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text(
        "<!doctype html><html data-graphiql>the console", encoding="utf-8"
    )
    (folder / "assets" / "console-4FOM.js").write_text("'its script'", encoding="utf-8")
    (folder / "assets" / "console-4FOM.js.gz").write_bytes(gzip.compress(b"'its script'"))
    monkeypatch.setattr(pages, "CONSOLE", folder)


@pytest.fixture
def unbuilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No page was built."""
    monkeypatch.setattr(pages, "BUILT", tmp_path)
    monkeypatch.setattr(pages, "CONSOLE", tmp_path)


full, plain = pytest.mark.usefixtures("built"), pytest.mark.usefixtures("unbuilt")


def is_strict(response: httpx.Response) -> bool:
    """Whether a browser is told to load nothing from elsewhere, and to run nothing else."""
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert "http" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    return True


@full
async def test_a_browser_is_given_the_page(http: httpx.AsyncClient) -> None:
    response = await http.get("/graphql", headers=BROWSER)
    assert response.status_code == 200
    assert response.text == "<!doctype html>the full page"
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["vary"] == "Accept, Origin"
    assert is_strict(response)
    again = {**BROWSER, "if-none-match": response.headers["etag"]}
    assert (await http.get("/graphql", headers=again)).status_code == 304
    head = await http.head("/graphql", headers=BROWSER)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]


@full
async def test_what_was_built_is_kept_for_ever(http: httpx.AsyncClient) -> None:
    response = await http.get("/graphiql/page-4FOM.js")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert is_strict(response)


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize(
    ("accepted", "is_compressed"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0.001, *;q=0", True),
        ("", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
    ],
)
async def test_what_the_build_compressed_is_sent_so_if_that_is_accepted(
    http: httpx.AsyncClient, accepted: str, is_compressed: bool
) -> None:
    for path, text in [
        ("/graphiql/page-4FOM.js", "'the full script'"),
        ("/console/console-4FOM.js", "'its script'"),
    ]:
        headers = {"accept-encoding": accepted}
        response = await http.get(path, headers=headers)
        assert (response.status_code, response.text) == (200, text)
        assert response.headers.get("content-encoding") == ("gzip" if is_compressed else None)
        sent = gzip.compress(text.encode()) if is_compressed else text.encode()
        assert response.headers["content-length"] == str(len(sent))
        assert response.headers["content-type"].startswith("text/javascript")
        assert "immutable" in response.headers["cache-control"]
        assert is_strict(response)
        other = await http.get(path, headers={"accept-encoding": "" if is_compressed else "gzip"})
        assert other.headers["etag"] != response.headers["etag"]
        again = await http.get(path, headers={**headers, "if-none-match": response.headers["etag"]})
        for each in (response, again):
            assert each.headers["vary"] == "Accept-Encoding, Origin"
        assert (again.status_code, again.content) == (304, b"")
        head = await http.head(path, headers=headers)
        for name in ("content-length", "content-encoding", "etag"):
            assert head.headers.get(name) == response.headers.get(name)
        assert (await http.get(f"{path}.gz", headers=headers)).status_code == 404


@pytest.mark.parametrize("folder", [pages.BUILT, pages.CONSOLE])
def test_the_build_compresses_what_gets_smaller(folder: Path) -> None:
    if not (folder / "index.html").is_file():
        missing("Build the pages (install Node.js 20 or later with npm, then `make test`).")
    scripts = list((folder / "assets").glob("*.js"))
    assert scripts
    for path in scripts:
        if path.stat().st_size > 1_000:
            compressed = path.with_name(f"{path.name}.gz").read_bytes()
            assert gzip.decompress(compressed) == path.read_bytes()


@plain
async def test_without_a_build_a_plain_page_says_how_to_get_the_full_one(
    http: httpx.AsyncClient,
) -> None:
    response = await http.get("/graphql", headers=BROWSER)
    assert response.status_code == 200
    assert "install Node.js" in response.text
    assert response.headers["cache-control"] == "no-cache"
    assert is_strict(response)
    for name, kind in [("page.js", "text/javascript"), ("page.css", "text/css")]:
        assert f"/graphiql/{name}" in response.text
        response_of_file = await http.get(f"/graphiql/{name}")
        assert response_of_file.status_code == 200
        assert response_of_file.headers["content-type"].startswith(kind)
        assert response_of_file.headers["cache-control"] == "no-cache"
        assert is_strict(response_of_file)


@pytest.mark.parametrize("folder", [pages.PLAIN, SOURCE, CONSOLE])
def test_no_page_has_anything_inline(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert "<style" not in html
    assert " style=" not in html
    assert html.count("<script") == html.count('<script type="module" src="')


@full
@pytest.mark.parametrize(
    "path",
    [
        "/graphiql",
        "/graphiql/",
        "/graphiql/none.js",
        "/graphiql/index.html",
        "/graphiql/../secret",
        "/graphiql/%2e%2e/secret",
        "/graphiql/..%2fsecret",
        "/graphiql/assets/../../secret",
        "/graphiql//etc/passwd",
        "/graphiql/%00",
    ],
)
async def test_nothing_else_is_given_away(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path, headers=BROWSER, follow_redirects=True)
    assert response.status_code == 404
    assert "secret" not in response.text
    assert "immutable" not in response.headers.get("cache-control", "")


@full
async def test_files_are_only_read(http: httpx.AsyncClient) -> None:
    assert (await http.post("/graphiql/page-4FOM.js")).status_code == 405


@pytest.mark.usefixtures("console")
async def test_the_console_is_at_the_root_with_a_policy_of_its_own(
    http: httpx.AsyncClient,
) -> None:
    for path, text, cache in [
        ("/", "<!doctype html><html data-graphiql>the console", "no-cache"),
        ("/console/console-4FOM.js", "'its script'", "public, max-age=31536000, immutable"),
    ]:
        response = await http.get(path, headers=BROWSER)
        assert (response.status_code, response.text) == (200, text)
        assert response.headers["cache-control"] == cache
        assert is_strict(response)
        policy = response.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert "data:" not in policy
        assert "require-trusted-types-for 'script'" in policy
    assert (await http.get("/graphql", headers=BROWSER)).text == "<!doctype html>the full page"
    for path in ("/console/", "/console/index.html", "/console/%2e%2e/index.html", "/inbox"):
        assert (await http.get(path, headers=BROWSER)).status_code == 404


@full
async def test_without_a_console_the_root_leads_to_the_page(http: httpx.AsyncClient) -> None:
    response = await http.get("/", headers=BROWSER)
    assert response.status_code == 307
    assert response.headers["location"] == "/graphql"


@full
@pytest.mark.parametrize(
    "accept",
    ["*/*", "application/json", "application/graphql-response+json", BROWSER["accept"]],
)
async def test_an_operation_is_answered_whatever_is_accepted(
    http: httpx.AsyncClient, accept: str
) -> None:
    headers = {"accept": accept}
    got = await http.get("/graphql", params={"query": "{ __typename }"}, headers=headers)
    sent = await http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
    for response in (got, sent):
        assert response.status_code == 200
        assert response.json() == {"data": {"__typename": "Query"}}


@full
async def test_clients_that_do_not_ask_for_a_page_get_none(http: httpx.AsyncClient) -> None:
    for accept in ("*/*", "application/json"):
        response = await http.get("/graphql", headers={"accept": accept})
        assert response.is_client_error
        assert "page" not in response.text


@full
async def test_in_production_there_is_no_page_unless_it_is_wanted(database: db.Database) -> None:
    async with serving(database, Settings(mode=Mode.PRODUCTION)) as http:
        for path in ("/", "/graphiql/page-4FOM.js"):
            assert (await http.get(path, headers=BROWSER)).status_code == 404
        assert "page" not in (await http.get("/graphql", headers=BROWSER)).text
    async with serving(database, Settings(mode=Mode.PRODUCTION, graphiql=True)) as http:
        assert "page" in (await http.get("/graphql", headers=BROWSER)).text


@pytest.mark.usefixtures("console")
async def test_in_production_the_console_is_served_unless_it_is_not_wanted(
    database: db.Database,
) -> None:
    production, page = Settings(mode=Mode.PRODUCTION), "<!doctype html><html{}>the console"
    for update, expected in (
        ({}, page.format("")),  # it does not lead to GraphiQL
        ({"graphiql": True}, page.format(" data-graphiql")),
        ({"console": False}, None),
    ):
        async with serving(database, production.model_copy(update=update)) as http:
            response = await http.get("/", headers=BROWSER)
            script = await http.get("/console/console-4FOM.js")
        found = response.text if response.status_code == 200 else None
        assert (found, script.status_code) == (expected, 200 if expected else 404)
    async with serving(database, Settings(console=False)) as http:
        assert (await http.get("/")).headers["location"] == "/graphql"


# The examples in GraphiQL's tabs


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """An operation, and the variables that it comes with."""
    path: Path = request.param
    variables = path.with_suffix(".variables.json")
    return path.read_text(encoding="utf-8"), json.loads(
        variables.read_text(encoding="utf-8")
    ) if variables.exists() else {}


def test_an_example_is_valid_and_says_what_it_is_for(
    example: tuple[str, dict[str, object]],
) -> None:
    assert example[0].startswith("# ")
    schema = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))
    assert validate(schema, parse(example[0])) == []


async def test_an_example_runs(example: tuple[str, dict[str, object]], people: People) -> None:
    operation, variables = example
    answer = await people.owner.ask(operation, **variables)
    assert all(field is None or not field.get("userErrors") for field in answer.data.values())


def test_every_example_is_in_a_tab() -> None:
    tabs = (SOURCE / "src" / "examples.ts").read_text(encoding="utf-8")
    for path in (SOURCE / "examples").iterdir():
        assert f'"../examples/{path.name}"' in tabs
    assert len(EXAMPLES) == tabs.count("{ query: ")
