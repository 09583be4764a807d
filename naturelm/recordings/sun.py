"""When the sun is up, in the recorder's own clock."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SunTimes:
    """Sun-up and sun-down on a local date.

    Attributes
    ----------
    up_h, down_h : float or None
        Hour of the day, 0 to 24; None where the sun does not cross the horizon on that date.
    """

    up_h: float | None
    down_h: float | None


def sun_times(latitude: float, longitude: float, date: dt.date, utc_offset_minutes: int) -> SunTimes:
    """Sun-up and sun-down where a recorder stands.

    Parameters
    ----------
    latitude, longitude : float
        Degrees; north and east are positive.
    date : datetime.date
        A date of the recorder's clock.
    utc_offset_minutes : int
        How far the recorder's clock is ahead of UTC.

    Returns
    -------
    SunTimes
        Good to a few minutes (a flat horizon, the upper limb, standard refraction; `astral`).
    """
    from astral import Observer
    from astral.sun import sunrise, sunset

    observer = Observer(latitude, longitude)
    clock = dt.timezone(dt.timedelta(minutes=utc_offset_minutes))

    def hour(event: Callable[..., dt.datetime]) -> float | None:
        try:
            time = event(observer, date=date, tzinfo=clock)
        except ValueError:  # polar day or polar night
            return None
        return time.hour + time.minute / 60 + time.second / 3600

    return SunTimes(hour(sunrise), hour(sunset))
