"""Moments in time as other programs write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# What PostgreSQL's driver sends as `-infinity` and `infinity`. Go and .NET write the first where
# they mean no time.
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)

MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?"
    r"(?:([Zz])|([+-]\d\d)(?::?([0-5]\d))?)",
    re.ASCII,
)


class NoMoment(ValueError):
    """There is no such moment."""


def read_moment(text: str) -> datetime | None:
    """The moment that a text names by RFC 3339 or ISO 8601, in UTC; none if it is not written so.

    Digits after the microsecond are cut off. The second 60, which leap seconds are, is the next
    minute's first, as PostgreSQL has it. What lies beyond the years 1 to 9999 once it is in UTC is
    FIRST or LAST. Raises NoMoment for what is in no calendar.
    """
    found = MOMENT.fullmatch(text)
    if found is None:
        return None
    day, minute, second, fraction, zulu, hours, minutes = found.groups()
    leap = second == "60"
    offset = "+00:00" if zulu else f"{hours}:{minutes or '00'}"
    micros = (fraction or "")[:6].ljust(6, "0")
    try:
        local = datetime.fromisoformat(
            f"{day}T{minute}:{'59' if leap else second or '00'}.{micros}{offset}"
        )
    except ValueError:
        raise NoMoment(text) from None
    try:
        return local.astimezone(UTC) + timedelta(seconds=leap)
    except OverflowError:
        return FIRST if local.year == 1 else LAST
