"""The arithmetic of a report: medians over rounds, spread, ratios. Pure."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """One figure over all rounds."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance between the extremes, as a part of the median."""
        return (self.high - self.low) / 2 / self.median if self.median and math.isfinite(self.high) else 0.0


def summarise(values: Sequence[float]) -> Summary:
    """Return median and extremes of at least one value."""
    return Summary(statistics.median(values), min(values), max(values))


def ratio(value: float, reference: float | None) -> float | None:
    """Return how many times *reference* the *value* is; None without a reference above zero."""
    return value / reference if reference else None


def microseconds_per_request(cpu_seconds: float, requests: int) -> float:
    """Return processor time per request in µs.

    Raises:
        ValueError: there was no request.
    """
    if requests <= 0:
        raise ValueError("no request was completed")
    return cpu_seconds * 1e6 / requests
