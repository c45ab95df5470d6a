"""Passwords: hashed by argon2id, so that a stolen database does not give them away."""

from __future__ import annotations

import asyncio
import os
import threading
from unicodedata import category

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from db.text import composed

SHORTEST = 10
LONGEST = 1024

# The second recommendation of RFC 9106: 64 MiB, three passes.
_hasher = PasswordHasher()

# Each takes 64 MiB and all of a processor: many logins at once wait rather than take all memory, or
# the time in which everybody else is answered.
_turns = threading.BoundedSemaphore(min(4, max(1, (os.cpu_count() or 1) // 2)))


# The hash of a random text that nobody kept: a password is compared with it where there is no user,
# which takes as long, from the first time on.
DECOY = (
    "$argon2id$v=19$m=65536,t=3,p=4$vsfEPreJIaW7GCIpAf306g$Z9mqWJ"
    "5DQJF+cPsCBZYDrPPAem3qgXFL1oDVMGNUmWQ"
)


def prepared(password: str) -> str:
    """The password as it is hashed (RFC 8265, OpaqueString): however a keyboard spells it."""
    return composed("".join(" " if category(sign) == "Zs" else sign for sign in password))


def _hash(password: str) -> str:
    with _turns:
        return _hasher.hash(prepared(password))


def _verify(stored: str | None, password: str) -> bool:
    # Older hashes are of the password as it was typed, and nothing in a hash tells its age. So a
    # password that preparing changes is tried twice at most. What takes longer depends on what the
    # client typed, which it knows, and not on whether there is a user.
    spellings = dict.fromkeys((prepared(password), password))
    with _turns:
        fits = any(_fits(stored or DECOY, spelling) for spelling in spellings)
    return stored is not None and fits


def _fits(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


async def hash_password(password: str) -> str:
    """The hash under which a password is stored; takes some 50 ms, in a thread of its own."""
    return await asyncio.to_thread(_hash, password)


async def is_password(stored: str | None, password: str) -> bool:
    """Whether this is the password with that hash; takes as long if there is none."""
    return await asyncio.to_thread(_verify, stored, password)
