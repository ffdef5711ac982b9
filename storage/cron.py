"""Due times: a cron expression in a time zone, right over changes of the clocks.

Where an hour is skipped, what was due in it is due once, when the clocks have changed. Where an
hour comes twice, what is due at a fixed hour is due the first time only. Expressions whose minutes
or hours begin with `*` go by what has really passed: they are due in both hours, and in none that
was skipped. So does Debian's cron.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from storage.errors import InvalidSpec

_FIELDS = "minute, hour, day of month, month, day of week: '0 2 * * *' is two o'clock every night"
#: Seconds of the spans in which the last due time is looked for, one after another.
_SPANS = (3600, 86_400, 32 * 86_400)


@dataclass(frozen=True)
class Cron:
    """Due times, as seconds since the epoch. Raises InvalidSpec for what is no cron or no zone."""

    expression: str
    timezone: str

    def __post_init__(self) -> None:
        fields = len(self.expression.split())
        if fields != 5:
            raise InvalidSpec(f"cron: {self.expression!r} has {fields} fields, not 5: {_FIELDS}")
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):  # what it raises depends on how it is looked for
            close = get_close_matches(self.timezone, available_timezones(), 1)
            hint = f"; did you mean {close[0]}?" if close else ", such as Europe/Berlin"
            raise InvalidSpec(f"timezone: {self.timezone!r} is no time zone{hint}") from None
        try:
            CronSim(self.expression, self.local(0))
        except CronSimError as error:
            what = str(error).replace("Bad ", "its ", 1) + " is not allowed"
            raise InvalidSpec(f"cron: {self.expression!r}: {what}: {_FIELDS}") from None

    def local(self, seconds: float) -> datetime:
        """A point in time as the zone's clocks show it."""
        return datetime.fromtimestamp(seconds, ZoneInfo(self.timezone))

    def after(self, seconds: float) -> Iterator[float]:
        """The due times later than this, in order; none for what never comes, as 30 February."""
        latest = seconds
        for found in CronSim(self.expression, self.local(seconds)):
            # In the second of two equal hours, the reading goes back to the first.
            if (due := found.timestamp()) > latest:
                latest = due
                yield due

    def next(self, seconds: float) -> float | None:
        """The first due time later than this."""
        return next(self.after(seconds), None)

    def last(self, since: float, until: float) -> float | None:
        """The last due time of those from `since` to `until`, both included."""
        for span in (*_SPANS, until - since):
            begin = max(since, until - span)
            found = None
            for due in self.after(begin - 1):
                if due > until:
                    break
                found = due if due >= since else found
            if found is not None or begin == since:
                return found
        return None
