"""The registry of metrics: no number leaves Seatrial without a unit, a direction and a meaning."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from seatrial.errors import ConfigError

# The units that a metric may have, each with what the metric's name carries for it.
UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ns": "ns",
        "bytes": "bytes",
        "ratio": "ratio",
        # A ratio that is read as a factor and not as a share: 7.6 times, not 760 %.
        "times": "ratio",
        "count": "count",
        "1/s": "rps",
        "bytes/s": "bytes_per_s",
        "ops/s": "ops_per_s",
    }
)


class Direction(StrEnum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What a number is: its name carries the unit, its meaning fits one line of a report.

    A name with a dot, such as ``rund.makespan_mean``, is of a number as another tool defines it;
    it has that tool's own word, and no unit in it.
    """

    name: str
    unit: str
    direction: Direction
    # One sentence: which instants or readings it is made of.
    meaning: str
    # Where METHODOLOGY says how it is made, or the formula itself.
    method: str

    @property
    def is_foreign(self) -> bool:
        """Whether another tool defines it."""
        return is_foreign_name(self.name)

    def __post_init__(self) -> None:
        """Refuse a unit nobody knows and a name that does not carry its unit."""
        if self.unit not in UNITS:
            message = f"metric {self.name}: unit {self.unit!r} is none of {', '.join(UNITS)}"
            raise ValueError(message)
        if self.is_foreign:
            return
        if f"_{UNITS[self.unit]}_" not in f"_{self.name}_":
            message = f"metric {self.name}: the name must carry its unit ({UNITS[self.unit]})"
            raise ValueError(message)


def is_foreign_name(name: str) -> bool:
    """Whether a metric of this name is another tool's: a dot stands behind the tool's name."""
    return "." in name


_METRICS: dict[str, Metric] = {}

# Every metric that a bench has declared; filled when the bench's module is imported.
METRICS: Final[Mapping[str, Metric]] = MappingProxyType(_METRICS)


def register(*metrics: Metric) -> None:
    """Declare metrics; declaring the same one twice is harmless.

    Raises:
        ValueError: the name is taken by a different metric.
    """
    for metric in metrics:
        if _METRICS.setdefault(metric.name, metric) != metric:
            message = f"metric {metric.name} is declared twice, with different definitions"
            raise ValueError(message)


def metric(name: str) -> Metric:
    """Give a declared metric.

    Raises:
        ConfigError: nothing declared that name.
    """
    found = _METRICS.get(name)
    if found is None:
        message = f"unknown metric {name!r}; known metrics: {', '.join(sorted(_METRICS)) or 'none'}"
        raise ConfigError(message, code="metric-unknown")
    return found
