"""`make bench`: make the data, compare, see what time depends on, and write the page."""

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

# Many short turns: what else the machine does comes and goes, and spoils but some of them.
THOROUGH = Pace(rounds=15, seconds=2, warm_up=0.4)
QUICK = Pace(rounds=5, seconds=1, warm_up=0.2)


async def run(options: argparse.Namespace, here: Place) -> None:
    """Do what the options say, over this PostgreSQL."""
    pace: Pace = QUICK if options.quick else THOROUGH
    say("Making 50,000 tasks …")
    small = await here.make("small", SMALL)
    queries = [query for query in QUERIES if query.name in options.queries]
    parts = {"circumstances": report.circumstances(pace, await _version(here))}
    result = scaled = None
    if options.contenders:
        result = await compare(small, SMALL, options.contenders, queries, pace, here.postmaster)
        parts["contenders"] = report.contenders(result)
    if options.scaling:
        say("Making a million tasks and a million messages; it takes about a minute …")
        large = await here.make("large", LARGE)
        half = Pace(pace.rounds, pace.seconds / 2, pace.warm_up / 2)
        scaled = await scaling(small, large, half)
        parts["dependence"] = report.dependence(scaled)
    parts["claims"] = report.claims(result, scaled)
    for part in parts.values():
        say(f"\n{part}")
    if options.page is not None:
        report.write(options.page, parts)
        say(f"Written into {options.page}.")


async def _version(here: Place) -> str:
    connection = await asyncpg.connect(dsn(here.url))
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def parsed() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less time, more noise")
    parser.add_argument(
        "--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    names = [query.name for query in QUERIES]
    parser.add_argument("--queries", nargs="+", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--no-scaling", dest="scaling", action="store_false", help="leave out the large data"
    )
    parser.add_argument("--page", type=Path, help="the page to write the tables into")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    with place() as here:
        uvloop.run(run(options, here))
