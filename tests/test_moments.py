"""Moments in time as other programs write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.moments import FIRST, LAST, NoMoment, read_moment

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)

WRITTEN = {
    "2026-11-22T12:00:00Z": NOON,
    "2026-11-22t12:00:00z": NOON,
    "2026-11-22 12:00Z": NOON,
    "2026-11-22T13:00:00+01": NOON,
    "2026-11-22T13:00:00+0100": NOON,
    "2026-11-22T06:30:00-05:30": NOON,
    "2026-11-22T12:00:00-00:00": NOON,
    # Go, .NET, Java; a comma as in Python's log.
    "2026-11-22T12:00:00.123456789Z": NOON.replace(microsecond=123456),
    "2026-11-22T12:00:00.1234569+00:00": NOON.replace(microsecond=123456),
    "2026-11-22T12:00:00.5Z": NOON.replace(microsecond=500000),
    "2026-11-22T12:00:00,25Z": NOON.replace(microsecond=250000),
    # Leap seconds.
    "2016-12-31T23:59:60Z": datetime(2017, 1, 1, tzinfo=UTC),
    "2017-01-01T00:59:60.5+01:00": datetime(2017, 1, 1, 0, 0, 0, 500000, tzinfo=UTC),
    # The ends of what there is.
    "0001-01-01T00:00:00Z": FIRST,
    "0001-01-01T00:00:00+01:00": FIRST,
    "0001-01-01T00:00:00.000001Z": FIRST + timedelta(microseconds=1),
    "9999-12-31T23:59:59.9999999Z": LAST,
    "9999-12-31T23:59:60Z": LAST,
    "9999-12-31T23:59:59-01:00": LAST,
    "9999-12-31T23:59:59+01:00": datetime(9999, 12, 31, 22, 59, 59, tzinfo=UTC),
}


@pytest.mark.parametrize("text", WRITTEN)
def test_a_moment_is_read_in_every_usual_form(text: str) -> None:
    moment = read_moment(text)

    assert moment == WRITTEN[text]
    assert moment is not None
    assert moment.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T12:00:00",
        "20261122T120000Z",
        "2026-W47-7T12:00Z",
        "2026-11-22T12:00:00.Z",
        "2026-11-22T12:00:00Z ",
        "12026-11-22T12:00:00Z",
        "-0001-01-01T00:00:00Z",
        "2026-11-22T12:00:00 UTC",
        "٢٠٢٦-11-22T12:00:00Z",
        "2026-11-22T12:00:00+00:60",
        "infinity",
        "now",
    ],
)
def test_what_is_written_otherwise_is_none(text: str) -> None:
    assert read_moment(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "0000-01-01T00:00:00Z",
        "2026-01-01T00:00:00+24:00",
    ],
)
def test_what_is_in_no_calendar_is_refused(text: str) -> None:
    with pytest.raises(NoMoment):
        read_moment(text)


OFFSETS = st.timedeltas(
    min_value=timedelta(hours=-23, minutes=-59), max_value=timedelta(hours=23, minutes=59)
).map(lambda offset: timezone(timedelta(minutes=offset // timedelta(minutes=1))))


@given(st.datetimes(timezones=OFFSETS))
def test_what_python_writes_is_read(moment: datetime) -> None:
    read = read_moment(moment.isoformat())

    assert read in (moment, FIRST, LAST)
