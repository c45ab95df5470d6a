"""`make bench`: load the data, compare the servers, measure scaling, and write the page."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvloop

from benchmarks import report
from benchmarks.bulk import BULKS, bulk
from benchmarks.compare import Pace, compare
from benchmarks.contenders import COMPILED, CONTENDERS, PEER
from benchmarks.data import LARGE, SMALL, connected
from benchmarks.graphs import graphs
from benchmarks.keys import keys
from benchmarks.leases import heartbeats
from benchmarks.listeners import listeners
from benchmarks.place import Place, place
from benchmarks.progress import say
from benchmarks.queries import READS, WRITES
from benchmarks.scaling import scaling
from benchmarks.summaries import summaries
from benchmarks.traces import traces
from benchmarks.waiting import waiting
from benchmarks.workers import workers

# Many short turns: other load on the machine is short, and disturbs only some of them.
THOROUGH = Pace(rounds=15, seconds=2, warm_up=0.4)
QUICK = Pace(rounds=5, seconds=1, warm_up=0.2)

# How long a transaction is open while tasks are claimed, in seconds.
HELD, HELD_QUICK = 60, 20

WORK = ("workers", "waiting", "heartbeats", "usage", "listeners", "traces")
"""What is measured of the work of agents, of those who watch it, and of traces."""


async def run(options: argparse.Namespace, here: Place) -> None:
    """Measure what the options select, on this PostgreSQL."""
    pace: Pace = QUICK if options.quick else THOROUGH
    say("Loading 50,000 tasks …")
    small = await here.make("small", SMALL)
    reads = [query for query in READS if query.name in options.queries]
    writes = [query for query in WRITES if query.name in options.queries]
    parts = {"circumstances": report.circumstances(pace, await _version(here))}
    read = written = keyed = copied = scaled = None
    if reads and options.contenders:
        urls = dict.fromkeys(options.contenders, small)
        read = await compare(urls, SMALL, reads, pace, here.postmaster)
        parts["contenders"] = report.contenders(read)
    writers = [CONTENDERS[name] for name in options.contenders]
    writers = [one for one in writers if all(query.is_for(one.words) for query in writes)]
    if writes and writers:
        # Each writes to a copy of its own, so that the rows of one do not slow another.
        urls = {
            one.name: await here.copy("small", f"writes_{one.name}", has_triggers=one.is_troupe)
            for one in writers
        }
        written = await compare(urls, SMALL, writes, pace, here.postmaster)
        parts["writes"] = report.contenders(written)
    if writes and COMPILED in writers:
        troupe = await here.copy("small", "keys", has_triggers=True)
        keyed = await keys(troupe, SMALL, writes, pace)
        parts["keys"] = report.keys(keyed, writes)
    bulks = [one for one in BULKS if one.name in options.queries]
    if bulks:
        ours = await here.copy("small", "bulk", has_triggers=True)
        theirs = await here.copy("small", "copied", has_triggers=True)
        copied = await bulk(ours, theirs, bulks, pace)
        parts["bulk"] = report.bulk(copied, bulks)
    if options.scaling:
        say("Loading a million tasks and a million messages, which takes about a minute …")
        large = await here.make("large", LARGE)
        half = Pace(pace.rounds, pace.seconds / 2, pace.warm_up / 2)
        scaled = await scaling(small, large, half)
        scaled.took |= (await graphs(small, half)).took
        parts["dependence"] = report.dependence(scaled)
    worked = waited = beats = summed = listened = traced = None
    if "workers" in options.work:
        ours = await here.copy("small", "workers", has_triggers=True)
        worked = await workers(ours, await here.empty("jobs"), pace, here.postmaster)
        parts["workers"] = report.workers(worked)
    if "waiting" in options.work:
        ours = await here.copy("small", "waiting", has_triggers=True)
        held = HELD_QUICK if options.quick else HELD
        waited = await waiting(ours, pace, held)
        parts["waiting"] = report.waiting(waited, held)
    if "heartbeats" in options.work:
        ours = await here.copy("small", "heartbeats", has_triggers=True)
        beats = await heartbeats(ours, pace, here.postmaster)
        parts["heartbeats"] = report.heartbeats(beats)
    if "usage" in options.work:
        ours = await here.copy("small", "usage", has_triggers=True)
        summed = await summaries(ours, pace)
        parts["usage"] = report.usage(summed)
    if "listeners" in options.work:
        urls = {
            one.name: await here.copy("small", f"listeners_{one.name}", has_triggers=one.is_troupe)
            for one in (COMPILED, PEER)
        }
        listened = await listeners(urls, pace, here.postmaster)
        parts["listeners"] = report.listeners(listened)
    if "traces" in options.work:
        traced = await traces(small, SMALL, READS, pace)
        parts["traces"] = report.traces(traced)
    parts["claims"] = report.claims(
        read, written, keyed, copied, scaled, worked, waited, beats, summed, listened, traced
    )
    for part in parts.values():
        say(f"\n{part}")
    if options.page is not None:
        report.write(options.page, parts)
        say(f"Wrote the tables to {options.page}.")


async def _version(here: Place) -> str:
    async with connected(here.url) as connection:
        return str(await connection.fetchval("SHOW server_version"))


def parsed() -> argparse.Namespace:
    """The command-line options."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="shorter, with more noise")
    parser.add_argument(
        "--contenders", nargs="*", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME"
    )
    names = [one.name for one in (*READS, *WRITES, *BULKS)]
    parser.add_argument("--queries", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument(
        "--no-scaling", dest="scaling", action="store_false", help="do not measure scaling"
    )
    parser.add_argument("--work", nargs="*", choices=WORK, default=WORK, metavar="NAME")
    parser.add_argument("--page", type=Path, help="the page whose tables are replaced")
    return parser.parse_args()


if __name__ == "__main__":
    options = parsed()
    with place() as here:
        uvloop.run(run(options, here))
