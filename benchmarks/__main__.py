"""`make bench`: load the data, compare the servers, measure scaling, and write the page."""

from __future__ import annotations

import argparse
from pathlib import Path

import asyncpg
import uvloop

from benchmarks import report
from benchmarks.compare import Pace, compare
from benchmarks.contenders import CONTENDERS
from benchmarks.data import LARGE, SMALL, dsn
from benchmarks.place import Place, place
from benchmarks.progress import say
from benchmarks.queries import QUERIES
from benchmarks.scaling import scaling

# Many short turns: other load on the machine is short, and disturbs only some of them.
THOROUGH = Pace(rounds=15, seconds=2, warm_up=0.4)
QUICK = Pace(rounds=5, seconds=1, warm_up=0.2)


async def run(options: argparse.Namespace, here: Place) -> None:
    """Measure what the options select, on this PostgreSQL."""
    pace: Pace = QUICK if options.quick else THOROUGH
    say("Loading 50,000 tasks …")
    small = await here.make("small", SMALL)
    queries = [query for query in QUERIES if query.name in options.queries]
    parts = {"circumstances": report.circumstances(pace, await _version(here))}
    result = scaled = None
    if options.contenders:
        result = await compare(small, SMALL, options.contenders, queries, pace, here.postmaster)
        parts["contenders"] = report.contenders(result)
    if options.scaling:
        say("Loading a million tasks and a million messages, which takes about a minute …")
        large = await here.make("large", LARGE)
        half = Pace(pace.rounds, pace.seconds / 2, pace.warm_up / 2)
        scaled = await scaling(small, large, half)
        parts["dependence"] = report.dependence(scaled)
    parts["claims"] = report.claims(result, scaled)
    for part in parts.values():
        say(f"\n{part}")
    if options.page is not None:
        report.write(options.page, parts)
        say(f"Wrote the tables to {options.page}.")


async def _version(here: Place) -> str:
    connection = await asyncpg.connect(dsn(here.url))
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def parsed() -> argparse.Namespace:
    """The command-line options."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, with more noise")
    parser.add_argument(
        "--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    names = [query.name for query in QUERIES]
    parser.add_argument("--queries", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--no-scaling", dest="scaling", action="store_false", help="do not measure scaling"
    )
    parser.add_argument("--page", type=Path, help="the page whose tables are replaced")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    with place() as here:
        uvloop.run(run(options, here))
