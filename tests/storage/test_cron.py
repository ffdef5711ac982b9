"""Due times, above all where the clocks change."""

from datetime import UTC, datetime
from itertools import islice, pairwise, takewhile

import pytest

from storage.cron import Cron
from storage.errors import InvalidSpec

# In 2026: Berlin skips 02:00-03:00 on 29 March and has 02:00-03:00 twice on 25 October;
# New York skips 02:00-03:00 on 8 March and has 01:00-02:00 twice on 1 November.


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def due(expression: str, zone: str, after: str, count: int) -> list[str]:
    """The next due times in UTC, found one by one as a schedule does."""
    cron, moment, found = Cron(expression, zone), utc(after), []
    for _ in range(count):
        following = cron.next(moment)
        assert following is not None
        assert following > moment
        moment = following
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%m-%d %H:%M"))
    return found


def test_two_at_night_is_two_on_the_zones_own_clocks() -> None:
    assert due("0 2 * * *", "Europe/Berlin", "2026-01-10T12:00", 2) == [
        "01-11 01:00",
        "01-12 01:00",
    ]
    assert due("0 2 * * *", "Europe/Berlin", "2026-07-10T12:00", 1) == ["07-11 00:00"]
    assert due("0 2 * * *", "America/New_York", "2026-07-10T12:00", 1) == ["07-11 06:00"]


@pytest.mark.parametrize(
    ("zone", "after", "found"),
    [
        ("Europe/Berlin", "2026-03-27T12:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
        ("America/New_York", "2026-03-06T12:00", ["03-07 07:30", "03-08 07:00", "03-09 06:30"]),
    ],
)
def test_what_falls_into_the_skipped_hour_is_due_once_when_it_is_over(
    zone: str, after: str, found: list[str]
) -> None:
    assert due("30 2 * * *", zone, after, 3) == found


@pytest.mark.parametrize(
    ("expression", "zone", "after", "found"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00", ["11-01 05:30", "11-02 06:30"]),
    ],
)
def test_what_falls_into_the_repeated_hour_is_due_the_first_time_only(
    expression: str, zone: str, after: str, found: list[str]
) -> None:
    assert due(expression, zone, after, 2) == found


@pytest.mark.parametrize(
    ("zone", "repeated", "expressions"),
    [
        ("Europe/Berlin", "2026-10-25T01:10", ["0 2 * * *", "5,30 2 * * *"]),
        ("America/New_York", "2026-11-01T06:10", ["0 1 * * *", "5,30 1 * * *"]),
    ],
)
def test_from_within_the_repeated_hour_the_next_one_is_tomorrows(
    zone: str, repeated: str, expressions: list[str]
) -> None:
    for expression in expressions:
        following = Cron(expression, zone).next(utc(repeated))
        assert following is not None
        assert following > utc(repeated) + 10 * 3600


@pytest.mark.parametrize(
    ("zone", "after"),
    [
        ("Europe/Berlin", "2026-03-28T23:40"),
        ("Europe/Berlin", "2026-10-24T23:40"),
        ("America/New_York", "2026-03-08T05:40"),
        ("America/New_York", "2026-11-01T04:40"),
    ],
)
def test_every_half_hour_is_every_half_hour_whatever_the_clocks_do(zone: str, after: str) -> None:
    times = list(islice(Cron("*/30 * * * *", zone).after(utc(after)), 10))
    assert {later - sooner for sooner, later in pairwise(times)} == {1800.0}


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    "expression", ["30 2 * * *", "15 1,2,3 * * *", "*/20 * * * *", "0 3 1 * *"]
)
def test_the_last_one_is_the_last_of_all_that_come_one_by_one(zone: str, expression: str) -> None:
    cron = Cron(expression, zone)
    for since in (utc("2026-03-07T13:07"), utc("2026-03-28T13:07"), utc("2026-10-24T13:07")):
        first = cron.next(since)
        assert first is not None
        for hours in (0.5, 11.9, 12, 12.5, 13, 36, 24 * 40):
            until = since + hours * 3600
            all_of_them = list(takewhile(lambda due, until=until: due <= until, cron.after(since)))
            assert cron.last(first, until) == (all_of_them[-1] if all_of_them else None)


def test_the_last_one_after_years_of_silence_is_found_at_once() -> None:
    cron = Cron("* * * * *", "Europe/Berlin")
    assert cron.last(utc("2016-01-01T00:00"), utc("2026-03-29T00:59")) == utc("2026-03-29T00:59")


def test_the_thirtieth_of_february_never_comes() -> None:
    with pytest.raises(InvalidSpec, match="day-of-month is not allowed"):
        Cron("0 0 30 2 *", "UTC")
    assert Cron("0 0 30 2 MON", "UTC").next(utc("2026-01-01T00:00")) is not None  # or a Monday


@pytest.mark.parametrize(
    ("expression", "zone", "sentence"),
    [
        ("0 2 * *", "UTC", r"cron: '0 2 \* \*' has 4 fields, not 5: minute, hour"),
        ("0 0 2 * * *", "UTC", "has 6 fields, not 5"),
        ("61 2 * * *", "UTC", "cron: '61 2 .*its minute is not allowed"),
        ("0 2 * * FUNDAY", "UTC", "its day-of-week is not allowed"),
        ("0 2 * * *", "Europe/Berlin ", "timezone: 'Europe/Berlin ' is no time zone; did you mean"),
        ("0 2 * * *", "Mars", "timezone: 'Mars' is no time zone"),
        ("0 2 * * *", "../etc/passwd", "is no time zone"),
        ("0 2 * * *", "", "is no time zone, such as Europe/Berlin"),
    ],
)
def test_what_is_not_allowed_is_said(expression: str, zone: str, sentence: str) -> None:
    with pytest.raises(InvalidSpec, match=sentence):
        Cron(expression, zone)
