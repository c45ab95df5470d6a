"""Passwords, hashed by argon2id, so that they cannot be read from a stolen database."""

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

# A hash takes 64 MiB and a whole processor. Logins wait for each other, so that many at once do not
# use all memory and slow down all other requests.
_slots = threading.BoundedSemaphore(min(4, max(1, (os.cpu_count() or 1) // 2)))


# The hash of an unknown random text. Without a user, the password is compared with it, so that the
# answer takes as long as with one.
DECOY = (
    "$argon2id$v=19$m=65536,t=3,p=4$vsfEPreJIaW7GCIpAf306g$Z9mqWJ"
    "5DQJF+cPsCBZYDrPPAem3qgXFL1oDVMGNUmWQ"
)


def normalized(password: str) -> str:
    """The password in the form that is hashed (RFC 8265, OpaqueString)."""
    return composed("".join(" " if category(sign) == "Zs" else sign for sign in password))


def _hash(password: str) -> str:
    with _slots:
        return _hasher.hash(normalized(password))


def _verify(stored: str | None, password: str) -> bool:
    # Older hashes are of the password as typed, and a hash does not show its age. So a password
    # that normalization changes is tried in both forms. The extra time depends on the password,
    # which the client knows, and not on whether the user exists.
    spellings = dict.fromkeys((normalized(password), password))
    with _slots:
        fits = any(_fits(stored or DECOY, spelling) for spelling in spellings)
    return stored is not None and fits


def _fits(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


async def hash_password(password: str) -> str:
    """The hash of a password, computed in a thread; takes some 50 ms."""
    return await asyncio.to_thread(_hash, password)


async def is_password(stored: str | None, password: str) -> bool:
    """Whether the password has this hash; without a hash it is false and takes as long."""
    return await asyncio.to_thread(_verify, stored, password)
