"""Fuzzing: operations that schemathesis makes up from the schema, sent to a server with examples.

`python -m tests.fuzz 600` sends them for ten minutes. Schemathesis loads this module, too: here
stand the values that it is to try, and what no answer may be.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphql
import schemathesis
from hypothesis import strategies as st
from schemathesis.graphql import nodes

from db import Database, embedded
from graph import demo
from tests import processes
from tests.processes import CODE, LIMITS, Serving

SCHEMA = graphql.build_schema((CODE / "schema.graphql").read_text(encoding="utf-8"))
KNOWN = "FUZZ_KNOWN"

# A server that limits nothing is asked for more, and comes further.
WITHOUT_LIMITS = dict.fromkeys(LIMITS, 999_999_999) | {"max_seconds": 20}

WRONG = {"FAULT", "TIMEOUT", "UNAVAILABLE", "OVERLOADED", "UNAUTHENTICATED"}
TELLING = ("asyncpg", "sqlalchemy", "traceback", "psycopg", str(CODE).lower())


@dataclass
class Fuzzed:
    """What came of it."""

    passed: bool
    report: str
    cases: int
    log: str


async def _fill(url: str) -> None:
    database = Database(url)
    await demo.fill(database)
    await database.dispose()


def fuzz(folder: Path, *options: str, **settings: object) -> Fuzzed:
    """Send to a server in this folder what schemathesis makes up, with options of its own."""
    data_dir = folder / "data"
    processes.prepare(data_dir)
    with embedded.running(data_dir) as server:
        asyncio.run(_fill(server.url))
    with Serving(folder, data_dir=data_dir, **settings) as serving:
        serving.ready()
        environment = os.environ | {
            "PYTHONPATH": str(CODE),
            "SCHEMATHESIS_HOOKS": "tests.fuzz",
            KNOWN: json.dumps(_known(serving)),
        }
        program = ["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
        # Whoever logs out is not known any more, and neither is who revokes their own token. Who
        # waits for an answer does nothing else.
        left_out = ["--exclude-name=Mutation.logout", "--exclude-name=Query.awaitInteraction"]
        asked = [
            f"{serving.url}/graphql",
            f"--header=Authorization: Bearer {serving.token}",
            "--checks=no_fault",
            "--warnings=off",
            "--continue-on-failure",
        ]
        done = subprocess.run(
            [sys.executable, *program, *asked, *left_out, *options],
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
        assert serving.ask("{ __typename }") == {"data": {"__typename": "Query"}}
        said = done.stdout + done.stderr
        cases = [int(line.split()[0]) for line in said.splitlines() if " generated, " in line]
        return Fuzzed(done.returncode == 0, said, sum(cases), serving.err)


def _known(serving: Serving) -> dict[str, list[str]]:
    """The ids and the cursors of what there is."""
    assert SCHEMA.query_type is not None
    ids, cursors = [], []
    for name, field in SCHEMA.query_type.fields.items():
        needs = any(map(graphql.is_required_argument, field.args.values()))
        if str(field.type).endswith("Connection!") and name != "accessTokens" and not needs:
            shown = "id: entityId" if name == "events" else "id"
            page = serving.ask(
                f"{{ {name}(first: 20) {{ edges {{ cursor node {{ {shown} }} }} }} }}"
            )
            for edge in page["data"][name]["edges"]:
                ids.append(edge["node"]["id"])
                cursors.append(edge["cursor"])
    bare = [base64.b64decode(id).decode().partition(":")[2] for id in ids]
    return {"ids": ids, "bare": bare, "cursors": cursors}


# What schemathesis is to try


def _object(items: Iterable[tuple[str, Any]]) -> Any:
    return nodes.Object(
        [
            graphql.ObjectFieldNode(name=graphql.NameNode(value=name), value=value)
            for name, value in items
        ]
    )


def _values(known: dict[str, list[str]]) -> dict[str, st.SearchStrategy[Any]]:
    """What each scalar is given: what there is, what is at the edge, and what is none."""
    characters = st.characters(codec="utf-8", exclude_categories=["Cs"])
    text = st.text(characters, max_size=20)
    words = ["", "admin", "%", "_", "\\", "\0", "x" * 255, "x" * 256, "https://a.example/x", "a@b"]
    moments = [
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00+23:59",
    ]
    numbers = ["999999999999999999.999999999999999999", "-0", "0", "1e3", "NaN"]
    decimals = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False)
    leaf = (
        text.map(nodes.String)
        | st.integers().map(nodes.Int)
        | st.booleans().map(nodes.Boolean)
        | st.floats(allow_nan=False, allow_infinity=False).map(nodes.Float)
        | st.just(nodes.Null)
    )
    key = st.from_regex("[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)

    def containers(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        objects = st.dictionaries(key, below, max_size=3).map(lambda given: _object(given.items()))
        return objects | st.lists(below, max_size=3).map(nodes.List)

    return {
        "ID": (st.sampled_from(known["ids"]) | st.sampled_from(known["bare"]) | text).map(
            nodes.String
        ),
        "Int": (st.integers(-2, 101) | st.integers(-(2**31), 2**31 - 1)).map(nodes.Int),
        "String": (text | st.sampled_from(words) | st.sampled_from(known["cursors"])).map(
            nodes.String
        ),
        "DateTime": (
            st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
            | st.sampled_from(moments)
            | text
        ).map(nodes.String),
        "Decimal": (
            decimals.map(lambda number: format(number, "f")) | st.sampled_from(numbers) | text
        ).map(nodes.String),
        "JSON": containers(st.recursive(leaf, containers, max_leaves=8)) | leaf,
    }


if KNOWN in os.environ:  # it is schemathesis that loads this
    for name, values in _values(json.loads(os.environ[KNOWN])).items():
        schemathesis.graphql.scalar(name, values)

    @schemathesis.check
    def no_fault(context: Any, response: Any, case: Any) -> None:
        """Whatever is sent, the answer is GraphQL's, no fault, and tells nothing of the server."""
        assert response.status_code < 500, response.text
        errors = response.json().get("errors", ())
        codes = {error["extensions"]["code"] for error in errors}
        assert not codes & WRONG, response.text
        assert not [word for word in TELLING if word in response.text.lower()], response.text


def main() -> None:
    """Fuzz for as many seconds as the first argument says."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "600"
    with processes.place() as folder:
        options = (f"--max-time={seconds}", "--max-examples=1000000", "--no-shrink")
        fuzzed = fuzz(folder, *options, **WITHOUT_LIMITS)
    print(fuzzed.report, fuzzed.log, sep="\n")
    sys.exit(not fuzzed.passed or "fault" in fuzzed.log)


if __name__ == "__main__":
    main()
