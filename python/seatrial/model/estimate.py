"""A number with its interval, or the reason why there is none."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A point with an interval around it at a stated confidence, from ``n`` samples."""

    point: float
    low: float
    high: float
    confidence: float
    n: int
    # How the interval was made, such as "order-statistic" or "block-bootstrap".
    method: str
    unit: str

    def __post_init__(self) -> None:
        """Refuse an interval that does not hold its point: that is a bug in its maker."""
        if not self.low <= self.point <= self.high:
            message = f"interval [{self.low}, {self.high}] does not hold its point {self.point}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class NotAvailable:
    """No number, and why: never a zero in its place."""

    reason: str
    n: int
    # How many samples it would take; None when more samples would not help.
    n_needed: int | None = None
    # A single reading that can have no interval, where there is one and it cannot be repeated.
    point: float | None = None
