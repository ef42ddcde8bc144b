"""How much the number of arrivals scatters, by the closed form of their law."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from seatrial.errors import UnitError
from seatrial.units import NS_PER_S, parse_duration_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MMPP: Final = "mmpp"
TRACE: Final = "trace"
#: Square of the coefficient of variation of `fb_ia`: generalised Pareto from 0, shape 0.154971.
FB_IA_DISPERSION: Final = 1 / (1 - 2 * 0.154971)
#: Over fewer bursts the number of arrivals is far from normal, and three standard errors of it are
#: exceeded by chance (by simulation).
BURSTS_MIN: Final = 100


def law_name(law: str) -> str:
    """Returns the name of a law that may have parameters."""
    return law.partition(":")[0]


def count_dispersion(law: str, *, rate_rps: float | None, expected_count: float) -> float | None:
    """Returns variance over mean of the number of arrivals while so many are expected.

    Of independent gaps it is, for many of them, the square of their coefficient of variation; of
    ``mmpp`` it is the index of dispersion (Fischer and Meier-Hellstern 1993). METHODOLOGY 7.8.

    Args:
        law: Of the gaps, in a form that `seatrial.loadgen.arrival_process` has accepted.
        rate_rps: Mean rate; only ``mmpp`` with lengths in time needs it.
        expected_count: Arrivals that are expected.

    Returns:
        None where the scatter is not known, is infinite, or says nothing (few bursts of ``mmpp``).
    """
    name, _, rest = law.partition(":")
    if name == TRACE:
        return 0.0
    fields = dict(pair.partition("=")[::2] for pair in rest.split(",") if pair)
    try:
        if name == MMPP:
            return _of_mmpp(fields, rate_rps, expected_count)
        dispersion = _DISPERSIONS[name](fields) if name in _DISPERSIONS else None
    except (ArithmeticError, KeyError, ValueError, UnitError):
        return None
    return dispersion if dispersion is not None and math.isfinite(dispersion) else None


def _of_uniform(fields: Mapping[str, str]) -> float:
    high = float(fields.get("high", "2"))
    return (1 - float(fields.get("low", 2 - high))) ** 2 / 3


def _of_gamma(fields: Mapping[str, str]) -> float:
    return float(fields["cv"]) ** 2 if "cv" in fields else 1 / float(fields["shape"])


def _of_weibull(fields: Mapping[str, str]) -> float:
    shape = float(fields["shape"])
    return math.gamma(1 + 2 / shape) / math.gamma(1 + 1 / shape) ** 2 - 1


def _of_pareto(fields: Mapping[str, str]) -> float | None:
    if "alpha" in fields:
        shape = 1 / float(fields["alpha"])
        location = 1 - shape
    else:
        shape, location = float(fields["shape"]), float(fields.get("location", "0"))
    # From 1/2 on the variance is infinite.
    return (1 - location) ** 2 / (1 - 2 * shape) if shape < 1 / 2 else None


def _of_bimodal(fields: Mapping[str, str]) -> float:
    ratio, share = float(fields["ratio"]), float(fields["share"])
    return share * (1 - share) * (ratio - 1) ** 2 / (1 - share + share * ratio) ** 2


_DISPERSIONS: Final[Mapping[str, Callable[[Mapping[str, str]], float | None]]] = {
    "fixed": lambda _: 0.0,
    "poisson": lambda _: 1.0,
    "exponential": lambda _: 1.0,
    "uniform": _of_uniform,
    "lognormal": lambda fields: float(fields["cv"]) ** 2,
    "gamma": _of_gamma,
    "weibull": _of_weibull,
    "pareto": _of_pareto,
    "bimodal": _of_bimodal,
    "fb_ia": lambda _: FB_IA_DISPERSION,
}


def _of_mmpp(
    fields: Mapping[str, str], rate_rps: float | None, expected_count: float
) -> float | None:
    """The asymptotic index of dispersion, in units in which the mean rate is 1."""
    factor = float(fields["factor"])
    burst, calm = (_in_gaps(fields[name], rate_rps) for name in ("burst", "calm"))
    if expected_count < BURSTS_MIN * (burst + calm):
        return None
    share = burst / (burst + calm)
    calm_rate = 1 / (1 - share + factor * share)
    difference = (factor - 1) * calm_rate
    return 1 + 2 * share * (1 - share) * difference**2 / (1 / burst + 1 / calm)


def _in_gaps(text: str, rate_rps: float | None) -> float:
    try:
        return float(text)
    except ValueError:
        return parse_duration_ns(text) * _known(rate_rps) / NS_PER_S


def _known(rate_rps: float | None) -> float:
    if rate_rps is None:
        raise ValueError("lengths in time need a rate")
    return rate_rps
