"""Break single lines, one at a time, and see which of them no test notices: `make mutants`."""

from __future__ import annotations

import ast
import asyncio
import difflib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import cluster

ROOT = Path(__file__).parent.parent

ALSO_TESTED = {
    "db/access.py": "accounts members rights",
    "db/base.py": "conventions sessions users",
    "db/claims/idle.py": "claims readiness",
    "db/conversations.py": "forks",
    "db/dependencies.py": "plans races tasks",
    "db/interaction_answers.py": "blocking",
    "db/member_changes.py": "accounts assignments members projects rights",
    "db/rules.py": "scopes rights viewers",
    "db/scopes.py": "rights viewers",
    "db/tasks.py": "attempts dependencies plans races",
    "db/user_changes.py": "accounts assignments members races users",
    "graph/core/connections.py": "cursors edges compiler",
    "graph/limits/cost.py": "hostile limits",
    "graph/core/filters.py": "compiler scopes",
    "graph/limits/document_size.py": "hostile limits settings",
    "graph/limits/rates.py": "accounts",
    "graph/core/fields.py": "connections compiler reading",
}
"""What is broken unless a file is named, and who tests it besides the file of the same name."""

SECONDS = 180
"""How long the tests of one broken line may take: a loop that does not end is noticed, too."""

OPPOSITE: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A module of which one line is broken."""

    line: int
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every way to break one line in the functions of a module."""
    seen = {source}
    starts = [0]
    for row in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(row))
    for node in _code(ast.parse(source), inside=False):
        for place, put in _changes(node, source):
            start = starts[place.lineno - 1] + place.col_offset
            end = starts[(place.end_lineno or 0) - 1] + (place.end_col_offset or 0)
            whole = source.encode()
            broken = (whole[:start] + put.encode() + whole[end:]).decode()
            if broken not in seen:
                seen.add(broken)
                yield Mutant(place.lineno, broken)


def _code(node: ast.AST, inside: bool) -> Iterator[ast.AST]:
    """What runs in functions: no annotations, and nothing in the braces of a text."""
    inside = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if inside:
        yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr):
                    yield from _code(child, inside)


def _changes(node: ast.AST, source: str) -> Iterator[tuple[ast.stmt | ast.expr, str]]:
    """What of a node can be replaced, and by what."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield node, "pass"
        case ast.If(test=test) | ast.IfExp(test=test) | ast.comprehension(ifs=[test]):
            yield test, f"(not ({ast.get_source_segment(source, test)}))"
        case ast.Compare(left=left, ops=[op], comparators=right) if type(op) in OPPOSITE:
            changed: ast.expr = ast.Compare(left, [OPPOSITE[type(op)]()], right)  # type: ignore[list-item]
            yield node, f"({ast.unparse(changed)})"
        case ast.BoolOp(op=op, values=values):
            changed = ast.BoolOp(OPPOSITE[type(op)](), values)  # type: ignore[arg-type]
            yield node, f"({ast.unparse(changed)})"
        case ast.BinOp(left=left, op=op, right=value) if type(op) in OPPOSITE:
            changed = ast.BinOp(left, OPPOSITE[type(op)](), value)  # type: ignore[arg-type]
            yield node, f"({ast.unparse(changed)})"
        case ast.UnaryOp(op=ast.Not() | ast.Invert(), operand=operand):
            yield node, f"({ast.unparse(operand)})"
        case ast.Constant(value=bool() as value):
            yield node, str(not value)
        case ast.Constant(value=int() as value):
            yield node, str(value + 1)
        case ast.Call(func=ast.Attribute(value=before) as step, args=args):
            # A statement without one of its steps or conditions: its order, its limit, its lock.
            if isinstance(before, ast.Call):
                yield node, f"({ast.unparse(before)})"
            for left_out in args if step.attr == "where" and len(args) > 1 else ():
                rest = [each for each in args if each is not left_out]
                yield node, ast.unparse(ast.Call(step, rest, node.keywords))


def concerned(path: str) -> list[str]:
    """The files of tests that see to a module."""
    names = [Path(path).stem, *ALSO_TESTED.get(path, "").split()]
    files = [f"tests/test_{name}.py" for name in names]
    return [file for file in files if (ROOT / file).exists()]


def passes(folder: Path, tests: list[str], server: str = "", *, shown: bool = False) -> bool:
    """Whether tests pass in a folder, in time."""
    command = [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-n", "0", *tests]
    variables = {**os.environ, "PYTHONPATH": str(folder), "CI": "1", "TROUPE_TEST_SERVER": server}
    run = subprocess.Popen(
        ["nice", *command, "-p", "no:cacheprovider"], cwd=folder, env=variables,
        stdout=None if shown else subprocess.DEVNULL, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        return run.wait(SECONDS) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def survives(folder: Path, path: str, mutant: Mutant, tests: list[str], server: str = "") -> bool:
    """Whether the tests pass with the broken module, which is mended afterwards."""
    whole = (folder / path).read_text("utf-8")
    (folder / path).write_text(mutant.source, "utf-8")
    try:
        return passes(folder, tests, server)
    finally:
        (folder / path).write_text(whole, "utf-8")


async def _sweep(server: URL) -> None:
    """Drop the databases that the runs left behind."""
    engine = create_async_engine(server, poolclass=pool.NullPool, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        made = text("SELECT datname FROM pg_database WHERE datname ~ '^(test|template)_'")
        for name in (await connection.scalars(made)).all():
            await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    await engine.dispose()


def main(minutes: float, seed: int, only: list[str]) -> None:
    """Break lines, drawn at random, until the time is over, and say which were not noticed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    resource.setrlimit(resource.RLIMIT_DATA, (4 << 30, 4 << 30))  # for loops that do not end
    paths = only or list(ALSO_TESTED)
    drawn = [(path, m) for path in paths for m in mutants((ROOT / path).read_text("utf-8"))]
    random.Random(seed).shuffle(drawn)
    tried = survived = 0
    with tempfile.TemporaryDirectory() as name, cluster() as url:
        server = url.render_as_string(hide_password=False)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for file in subprocess.check_output(listing, cwd=ROOT, text=True).split("\0"):
            if (ROOT / file).is_file():
                (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, Path(name) / file)
        sound: dict[str, bool] = {}
        print(f"{len(drawn)} ways to break a line; SEED={seed}.", flush=True)
        end = time.monotonic() + minutes * 60
        try:
            while drawn and time.monotonic() < end:
                path, mutant = drawn.pop()
                for test in concerned(path):
                    if test not in sound:
                        sound[test] = passes(Path(name), [test], server, shown=True)
                        if not sound[test]:
                            print(f"{test} fails before anything is broken: it is left out.")
                tests = [test for test in concerned(path) if sound[test]]
                lives = survives(Path(name), path, mutant, tests, server)
                asyncio.run(_sweep(url))
                tried, survived = tried + 1, survived + lives
                print(f"{path}:{mutant.line} {'SURVIVED' if lives else 'killed'}", flush=True)
                if lives:
                    before = (ROOT / path).read_text("utf-8").splitlines()
                    after = mutant.source.splitlines()
                    changes = difflib.unified_diff(before, after, n=0, lineterm="")
                    print(*list(changes)[2:], sep="\n", flush=True)
        finally:
            share = f" ({survived / tried:.0%})" if tried else ""
            print(f"{tried} tried, {survived} survived{share}; SEED={seed}.")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2] or random.randrange(10_000)), sys.argv[3:])
