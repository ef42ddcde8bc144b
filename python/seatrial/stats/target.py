"""What a user asks of a load: how sure a percentile must be, and what a service must keep.

``p99=2%`` and ``p99=10us`` ask for an interval no wider than that, from its low to its high end, as
a share of the percentile or in time. ``p99<5ms`` and ``failed<0.1%`` are objectives. Several are
separated by commas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NoReturn

from seatrial.errors import ConfigError, UnitError
from seatrial.units import format_duration, parse_duration_ns

#: Histograms keep values to 0.1 %; both ends of an interval have that error.
WIDTH_RATIO_MIN: Final = 0.002
#: Percentiles that may be asked for: beyond them no run is long enough.
PERCENTILE_MIN: Final = 1.0
PERCENTILE_MAX: Final = 99.999
CI_EXPECTED: Final = "targets such as p99=2% or p99=10us, separated by commas"
SLO_EXPECTED: Final = "objectives such as p99<5ms or failed<0.1%, separated by commas"
_PERCENTILE: Final = re.compile(r"p(\d{1,2}(?:\.\d{1,4})?)\Z", re.ASCII)
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%\Z", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthTarget:
    """An interval that must be no wider than a duration, or than a share of its point."""

    name: str
    q: float
    width_ns: int | None = None
    width_ratio: float | None = None

    def allowed_ns(self, point_ns: float) -> float:
        """Width that is allowed around a point."""
        if self.width_ns is not None:
            return float(self.width_ns)
        if self.width_ratio is None:
            raise AssertionError(f"target {self.name} has no width")
        return self.width_ratio * point_ns

    def __str__(self) -> str:
        """As it is written, in readable units."""
        if self.width_ns is not None:
            return f"{self.name}={format_duration(self.width_ns)}"
        return f"{self.name}={(self.width_ratio or 0) * 100:g}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A percentile of the response time, or the share of failed requests, that must stay below."""

    name: str
    q: float | None
    """Which quantile; None: the share of failed requests."""
    limit: float
    """In ns for a percentile, 0 to 1 for the share."""

    @property
    def allowed_share(self) -> float:
        """Share of the requests that may be over the limit, or may fail."""
        return self.limit if self.q is None else 1 - self.q

    def __str__(self) -> str:
        """As it is written, in readable units."""
        if self.q is None:
            return f"{self.name}<{self.limit * 100:g}%"
        return f"{self.name}<{format_duration(self.limit)}"


def parse_width_targets(text: str) -> tuple[WidthTarget, ...]:
    """Reads ``"p99=2%,p99.9=10us"``.

    Raises:
        ConfigError: Something else is written, or an interval that no histogram can give.
    """
    targets = tuple(_parse_target(part, whole=text) for part in _parts(text, "bad-ci"))
    _refuse_twice([one.name for one in targets], text, "bad-ci")
    return targets


def parse_objectives(text: str) -> tuple[Objective, ...]:
    """Reads ``"p99<5ms,failed<0.1%"``.

    Raises:
        ConfigError: Something else is written.
    """
    objectives = tuple(_parse_objective(part, whole=text) for part in _parts(text, "bad-slo"))
    _refuse_twice([one.name for one in objectives], text, "bad-slo")
    return objectives


def _parts(text: str, code: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        _refuse(text, "there is nothing between two commas, or nothing at all", code)
    return parts


def _parse_target(part: str, *, whole: str) -> WidthTarget:
    name, equals, width = (piece.strip() for piece in part.partition("="))
    if not equals:
        _refuse(whole, f'"{part}" has no "="', "bad-ci")
    q = _quantile(name, whole, "bad-ci")
    if (share := _SHARE.match(width)) is not None:
        ratio = float(share[1]) / 100
        if not WIDTH_RATIO_MIN <= ratio <= 1:
            _refuse(
                whole,
                f"a width of {width} is out of range, {WIDTH_RATIO_MIN:.1%} (what histograms can "
                "tell) to 100%",
                "bad-ci",
            )
        return WidthTarget(name=name, q=q, width_ratio=ratio)
    return WidthTarget(name=name, q=q, width_ns=_duration_ns(width, whole, "bad-ci"))


def _parse_objective(part: str, *, whole: str) -> Objective:
    name, below, limit = (piece.strip() for piece in part.partition("<"))
    if not below:
        _refuse(whole, f'"{part}" has no "<"', "bad-slo")
    if name != "failed":
        q = _quantile(name, whole, "bad-slo")
        return Objective(name=name, q=q, limit=float(_duration_ns(limit, whole, "bad-slo")))
    share = _SHARE.match(limit)
    if share is None or not 0 < float(share[1]) <= 100:  # noqa: PLR2004 - all of them
        _refuse(whole, f'"{limit}" is no share above 0% and up to 100%', "bad-slo")
    return Objective(name=name, q=None, limit=float(share[1]) / 100)


def _quantile(name: str, whole: str, code: str) -> float:
    found = _PERCENTILE.match(name)
    if found is None or not PERCENTILE_MIN <= float(found[1]) <= PERCENTILE_MAX:
        known = "a percentile from p1 to p99.999"
        _refuse(whole, f'"{name}" is not {known}{" or failed" * (code == "bad-slo")}', code)
    # Decimal digits stay what they are: 99.9 is 0.999, not 0.9990000000000001.
    return float(Decimal(found[1]) / 100)


def _duration_ns(text: str, whole: str, code: str) -> int:
    try:
        duration_ns = parse_duration_ns(text)
    except UnitError as error:
        _refuse(whole, str(error), code)
    if duration_ns == 0:
        _refuse(whole, "0 is no limit that anything could keep", code)
    return duration_ns


def _refuse_twice(names: list[str], text: str, code: str) -> None:
    for name in names:
        if names.count(name) > 1:
            _refuse(text, f"{name} is there twice", code)


def _refuse(text: str, problem: str, code: str) -> NoReturn:
    flag, expected = {"bad-ci": ("--ci", CI_EXPECTED), "bad-slo": ("--slo", SLO_EXPECTED)}[code]
    raise ConfigError(f'{flag} "{text}": {problem}', hint=f"write {expected}", code=code)
