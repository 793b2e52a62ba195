"""IMF-fixdate, the form of dates in fields (RFC 9110 section 5.6.7)."""

from __future__ import annotations

from time import gmtime

__all__ = ["http_date"]

_DAYS = (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")
_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")


def http_date(seconds: float) -> bytes:
    """Return an IMF-fixdate (RFC 9110 section 5.6.7), such as ``Sun, 06 Nov 1994 08:49:37 GMT``.

    Args:
        seconds: Seconds since the epoch.
    """
    # Not strftime: it takes the names of days and months from the locale.
    year, month, day, hour, minute, second, weekday, _, _ = gmtime(seconds)
    return b"%s, %02d %s %d %02d:%02d:%02d GMT" % (_DAYS[weekday], day, _MONTHS[month - 1], year, hour, minute, second)
