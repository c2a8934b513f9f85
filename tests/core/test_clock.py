from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from pgsession._core.clock import Clock, duration_micros, expiry_micros, to_datetime, to_micros


def test_a_real_clock_follows_real_time_and_starts_at_the_wall_clock() -> None:
    clock = Clock()
    before, wall = clock.now(), time.time() * 1e6
    assert abs(clock.database_now() - wall) < 5_000_000
    assert clock.now() >= before
    clock.offset += 1_000_000_000
    assert abs(clock.database_now() - wall - 1_000_000_000) < 5_000_000


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = Clock(manual=5)
    assert clock.manual and clock.now() == clock.database_now() == 5
    clock.advance(10)
    clock.offset = 100
    assert (clock.now(), clock.database_now()) == (15, 115)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
    with pytest.raises(TypeError, match="manual"):
        Clock().advance(1)


@pytest.mark.parametrize(
    "us", [0, -1, 1, 1_700_000_000_123_456, 253_402_300_799_999_999, -62_135_596_800_000_000]
)
def test_microseconds_and_datetimes_are_exact_both_ways(us: int) -> None:
    moment = to_datetime(us)
    assert moment.tzinfo is UTC
    assert to_micros(moment) == us
    if abs(us) < 2**52:
        assert to_micros(moment.astimezone(timezone(timedelta(hours=5)))) == us


@pytest.mark.parametrize("us", [253_402_300_800_000_000, 2**63 - 1])
def test_what_is_later_than_any_datetime_is_the_last(us: int) -> None:
    assert to_datetime(us) == datetime.max.replace(tzinfo=UTC)


def test_a_naive_datetime_is_refused_by_the_name_of_its_field() -> None:
    with pytest.raises(ValueError, match="until"):
        to_micros(datetime(2030, 1, 1), "until")
    with pytest.raises(TypeError, match="until"):
        to_micros("2030", "until")  # type: ignore[arg-type]


def test_an_expiry_is_a_moment_or_a_duration_and_never_both() -> None:
    clock = Clock(manual=1_000_000)
    assert expiry_micros(clock) is None
    assert expiry_micros(clock, to_datetime(77)) == 77
    assert expiry_micros(clock, None, timedelta(seconds=2)) == 3_000_000
    assert expiry_micros(clock, None, 0.5) == 1_500_000
    with pytest.raises(ValueError, match=r"^expires_at, expires_in: only one of them may be given$"):
        expiry_micros(clock, to_datetime(77), 1)
    for wrong in (0, -1, float("nan"), float("inf"), timedelta(0), 1e300):
        with pytest.raises(ValueError, match="expires_in"):
            expiry_micros(clock, None, wrong)
    for kind in ("1", True):
        with pytest.raises(TypeError, match="expires_in"):
            expiry_micros(clock, None, kind)


@pytest.mark.parametrize(
    "value",
    [
        timedelta(days=213_503_983),  # 2**64 microseconds and some: 64 bits would hold 16 hours
        timedelta(days=106_751_992),
        timedelta.max,
        timedelta.min,
        timedelta(days=36500, microseconds=1),
        36500 * 86400 + 1,
        10**400,
        10**5000,
        -(10**5000),
        1.7e308,
        -1e-9,
        timedelta(microseconds=-1),
        4e-7,
        0,
    ],
    ids=lambda value: type(value).__name__,  # Python does not print the largest
)
def test_no_duration_wraps_or_vanishes(value: timedelta | float) -> None:
    with pytest.raises(ValueError, match=r"^lease: must be from 1 microsecond to 36500 days, not "):
        duration_micros("lease", value)
    with pytest.raises(ValueError, match=r"^expires_in: must be from 1 microsecond"):
        expiry_micros(Clock(manual=0), None, value)


def test_the_ends_of_the_range_of_durations() -> None:
    century = 36500 * 86_400_000_000
    assert duration_micros("d", timedelta(days=36500)) == duration_micros("d", 36500 * 86400) == century
    assert duration_micros("d", timedelta(microseconds=1)) == duration_micros("d", 6e-7) == 1
    assert duration_micros("d", 0, 0) == duration_micros("d", -0.0, 0) == 0
    assert duration_micros("d", 1, 1_000_000) == 1_000_000
    with pytest.raises(ValueError, match=r"^d: must be from 1 s to"):
        duration_micros("d", 0.999, 1_000_000)
    with pytest.raises(ValueError, match=r"^d: must be 0 or from 1 microsecond to"):
        duration_micros("d", 4e-7, 0)  # it would become 0, which often means something of its own


@pytest.mark.parametrize(
    "value",
    [
        datetime(1970, 1, 1, tzinfo=UTC),  # 0 microseconds: it stood for "never"
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-5))),  # no datetime in UTC
        datetime.min.replace(tzinfo=timezone(timedelta(hours=5))),
    ],
)
def test_an_expiry_is_a_moment_that_can_be_told_again(value: datetime) -> None:
    with pytest.raises(ValueError, match=r"^expires_at: must be after 1970-01-01 and before the year 10000"):
        expiry_micros(Clock(manual=1), value)
    assert expiry_micros(Clock(manual=1), datetime.max.replace(tzinfo=UTC)) == 253_402_300_799_999_999


def test_what_a_hit_reads_is_never_further_behind_than_is_allowed_for_and_never_goes_back() -> None:
    clock = Clock()
    last = 0
    for _ in range(20_000):
        before = clock.now()
        recent = clock._recent()
        assert recent >= last
        assert before - clock._slack() <= recent <= clock.now()
        last = recent


def test_an_expiry_counts_by_the_databases_clock_and_not_beyond_its_end() -> None:
    latest = to_micros(datetime.max.replace(tzinfo=UTC))
    clock = Clock(manual=10)
    clock.offset = 1_000_000
    assert expiry_micros(clock, expires_in=1) == 2_000_010
    clock.offset = latest - 20
    assert expiry_micros(clock, expires_in=1) == latest
