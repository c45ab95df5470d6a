"""Points in time in the notations that other programs use."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# The driver sends these as `-infinity` and `infinity`. Go and .NET write the first for a missing
# time.
FIRST = datetime.min.replace(tzinfo=UTC)
LAST = datetime.max.replace(tzinfo=UTC)

MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?"
    r"(?:([Zz])|([+-]\d\d)(?::?([0-5]\d))?)",
    re.ASCII,
)


class NoMoment(ValueError):
    """A text has the form of a point in time, but there is no such date or time."""


def read_moment(text: str) -> datetime | None:
    """A point in time of RFC 3339 or ISO 8601, in UTC; None for a text of another form.

    Digits after the microsecond are cut off. A leap second (second 60) is the first second of the
    next minute, as in PostgreSQL. A time that is outside the years 1 to 9999 in UTC becomes FIRST
    or LAST. Raises NoMoment for a date or time that does not exist.
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
