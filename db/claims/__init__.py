"""Claims: agents take tasks, keep them by heartbeats, and end their attempts.

An attempt holds its task as long as it has a lease, and the attempt's id proves that. Whatever ends
an attempt deletes the lease in the same transaction, and finds nothing if it is gone: so a worker
that has lost its task changes nothing.

Transactions lock in this order, so that there are no deadlocks: the project (of a claim only if it
limits types), the agent, hard budgets, tasks, attempts, leases.
"""

from db.claims.claiming import MOST_CLAIMED, MOST_TYPES, Claimed, claim
from db.claims.completions import complete_all
from db.claims.endings import EXPIRED, LOST, complete, expire, fail, park, release, wake
from db.claims.heartbeats import Heartbeat, extend, heartbeat, own_attempt
from db.claims.idle import Idle, IdleReason

__all__ = [
    "EXPIRED",
    "LOST",
    "MOST_CLAIMED",
    "MOST_TYPES",
    "Claimed",
    "Heartbeat",
    "Idle",
    "IdleReason",
    "claim",
    "complete",
    "complete_all",
    "expire",
    "extend",
    "fail",
    "heartbeat",
    "own_attempt",
    "park",
    "release",
    "wake",
]
