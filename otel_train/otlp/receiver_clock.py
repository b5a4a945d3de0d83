"""Compare this machine's wall clock with a receiver's, by the date that its answers have."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from otel_train.host_clock import ClockOffset

DATE = "date"
"""Name of the header, and of gRPC's metadata: web servers and proxies send it, and so does our bridge."""


class ReceiverClock:
    """The newest comparison.

    Examples:
        >>> from otel_train.otlp.receiver_clock import ReceiverClock
        >>> clock = ReceiverClock()
        >>> clock.note("Thu, 01 Jan 1970 00:01:00 GMT", 159.8, 160.0)
        >>> clock.offset
        ClockOffset(seconds=99.4, uncertainty=0.6)
    """

    def __init__(self) -> None:
        self.offset: ClockOffset | None = None
        """Offset of this machine's clock; None before the first date."""

    def note(self, date: str, before: float, after: float) -> None:
        """Note an answer's date; what is none is left out.

        Args:
            date: It, in whole seconds that are over: RFC 9110, 5.6.7.
            before: This machine's time before the request was sent, in seconds since the epoch.
            after: Its time after the answer had come.
        """
        try:
            second = parsedate_to_datetime(date).timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        low, high = before - second - 1.0, after - second
        if low <= high:  # else the clock was set meanwhile
            self.offset = ClockOffset(round((low + high) / 2, 3), round((high - low) / 2, 3))
