"""Quantities as people write them: the only place that scales a unit.

Inside the program time is integer nanoseconds, sizes are bytes, rates are per second, and shares
run from 0 to 1. This module reads ``"250ms"``, ``"64KiB"`` and ``"2k/s"`` into those, and shows
them with three significant digits and the unit that fits. A bare number is an error wherever a unit
is needed: ``5`` could be seconds or milliseconds, and only its writer knows.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from seatrial.errors import UnitError

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MIN: Final = 60 * NS_PER_S
NS_PER_H: Final = 60 * NS_PER_MIN

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

# What a column or a TOML value can hold: the largest signed 64-bit integer.
INT64_MAX: Final = (1 << 63) - 1

DURATION_UNITS: Final[Mapping[str, int]] = {
    "ns": 1,
    "us": NS_PER_US,
    "µs": NS_PER_US,
    "ms": NS_PER_MS,
    "s": NS_PER_S,
    "min": NS_PER_MIN,
    "h": NS_PER_H,
}
SIZE_UNITS: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 1_000,
    "MB": 1_000_000,
    "GB": 1_000_000_000,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
}
# A rate's unit is a multiple and a span of time: "/s", "k/s", "M/min".
RATE_MULTIPLES: Final[Mapping[str, int]] = {
    "": 1,
    "k": 1_000,
    "M": 1_000_000,
    "G": 1_000_000_000,
}
RATE_SPANS_S: Final[Mapping[str, int]] = {"/s": 1, "/min": 60}

DURATION_EXPECTED: Final = 'a duration with its unit, such as "250ms" (ns, us, ms, s, min or h)'
SIZE_EXPECTED: Final = 'a size with its unit, such as "64KiB" (B, KiB, MiB, GiB, kB, MB or GB)'
RATE_EXPECTED: Final = (
    'a rate with its unit, such as "200/s" or "2k/s" (/s or /min, with k, M or G)'
)

# Two digits of an exponent reach further than any quantity, and keep whole numbers small.
_QUANTITY: Final = re.compile(
    r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?(?:e[+-]?[0-9]{1,2})?)\s*(\S*)\s*\Z", re.ASCII
)

# Three digits are what a benchmark on a shared machine can support.
_DIGITS: Final = 3
SMALLEST_WITHOUT_EXPONENT: Final = 1e-4
_DURATION_SCALE: Final = (
    (NS_PER_H, "h"),
    (NS_PER_MIN, "min"),
    (NS_PER_S, "s"),
    (NS_PER_MS, "ms"),
    (NS_PER_US, "µs"),
    (1, "ns"),
)
_SIZE_SCALE: Final = ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "B"))
_DECIMAL_SCALE: Final = ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k"), (1, ""))


def parse_duration_ns(text: str) -> int:
    """Read ``"250ms"`` as 250000000 ns, exactly.

    Raises:
        UnitError: there is no unit, an unknown one, or a fraction of a nanosecond.
    """
    return _parse_whole(text, DURATION_UNITS, DURATION_EXPECTED, "nanosecond")


def parse_size_bytes(text: str) -> int:
    """Read ``"64KiB"`` as 65536 bytes, exactly.

    Raises:
        UnitError: there is no unit, an unknown one, or a fraction of a byte.
    """
    return _parse_whole(text, SIZE_UNITS, SIZE_EXPECTED, "byte")


def parse_rate_rps(text: str) -> float:
    """Read ``"2k/s"`` as 2000.0 per second.

    Raises:
        UnitError: there is no unit or an unknown one.
    """
    number, unit = _split(text, RATE_EXPECTED)
    prefix, slash, span = unit.partition("/")
    multiple, span_s = RATE_MULTIPLES.get(prefix), RATE_SPANS_S.get(slash + span)
    if multiple is None or span_s is None:
        raise UnitError(_unknown_unit(text, unit, RATE_EXPECTED), code="unit-unknown")
    rate_rps = float(number * multiple / span_s)
    if not math.isfinite(rate_rps):
        message = f'"{text}" is too large; expected {RATE_EXPECTED}'
        raise UnitError(message, code="unit-range")
    return rate_rps


def format_duration(duration_ns: float) -> str:
    """Show nanoseconds with three digits and the unit that fits: ``"12.4 ms"``."""
    return _scaled(duration_ns, _DURATION_SCALE, "ns")


def format_bytes(size_bytes: float) -> str:
    """Show bytes with three digits and the binary unit that fits: ``"1.50 MiB"``."""
    return _scaled(size_bytes, _SIZE_SCALE, "B")


def format_rate(rate_rps: float) -> str:
    """Show a rate with three digits: ``"12.4 k/s"``."""
    text = _scaled(rate_rps, _DECIMAL_SCALE, "")
    return f"{text}/s"


def format_count(count: float) -> str:
    """Show a count: whole below ten thousand, then with three digits: ``"12.4 k"``."""
    if math.isfinite(count) and count == int(count) and abs(count) < 10_000:  # noqa: PLR2004 - said above
        return str(int(count))
    return _scaled(count, _DECIMAL_SCALE, "").strip()


def format_ratio(ratio: float) -> str:
    """Show a share or a factor as a plain number with three digits."""
    return _digits(ratio)


def format_value(value: float, unit: str) -> str:
    """Show a value of one of the program's own units: ns, bytes, bytes/s, 1/s, count or ratio.

    Any other unit is printed as it is, after the number.
    """
    formats: dict[str, Callable[[float], str]] = {
        "ns": format_duration,
        "bytes": format_bytes,
        "bytes/s": lambda value: f"{format_bytes(value)}/s",
        "1/s": format_rate,
        "rps": format_rate,
        "ops/s": lambda value: f"{_scaled(value, _DECIMAL_SCALE, '')}ops/s",
        "count": format_count,
        "ratio": format_ratio,
    }
    show = formats.get(unit)
    return f"{_digits(value)} {unit}".strip() if show is None else show(value)


def write_duration(duration_ns: int) -> str:
    """Write nanoseconds so that ``parse_duration_ns`` reads the same number back: ``"250ms"``."""
    return _exact(duration_ns, DURATION_UNITS)


def write_size(size_bytes: int) -> str:
    """Write bytes so that ``parse_size_bytes`` reads the same number back: ``"64KiB"``."""
    return _exact(size_bytes, SIZE_UNITS)


def _parse_whole(text: str, units: Mapping[str, int], expected: str, smallest: str) -> int:
    number, unit = _split(text, expected)
    factor = units.get(unit)
    if factor is None:
        raise UnitError(_unknown_unit(text, unit, expected), code="unit-unknown")
    value = number * factor
    if value != int(value):
        message = f'"{text}" is not a whole number of {smallest}s; expected {expected}'
        raise UnitError(message, code="unit-fraction")
    if value > INT64_MAX:
        message = f'"{text}" is too large; the most is {INT64_MAX} {smallest}s'
        raise UnitError(message, code="unit-range")
    return int(value)


def _split(text: str, expected: str) -> tuple[Decimal, str]:
    match = _QUANTITY.match(text)
    if match is None:
        message = f'"{text}" is not a quantity; expected {expected}'
        raise UnitError(message, code="unit-syntax")
    number, unit = match.groups()
    if not unit:
        message = f'"{text}" has no unit; expected {expected}'
        raise UnitError(message, code="unit-missing")
    return Decimal(number.replace("_", "")), unit


def _unknown_unit(text: str, unit: str, expected: str) -> str:
    return f'"{text}" has the unknown unit "{unit}"; expected {expected}'


def _scaled(value: float, scale: Sequence[tuple[int, str]], smallest: str) -> str:
    if not math.isfinite(value):
        return f"{_digits(value)} {smallest}".strip()
    for index, (factor, unit) in enumerate(scale):
        is_last = index == len(scale) - 1
        # Rounding comes first, so that 999.6 µs becomes 1.00 ms and never "1000 µs".
        if is_last or abs(_rounded(value / factor)) >= 1:
            return f"{_digits(value / factor, is_whole=factor == 1 and value == int(value))} {unit}"
    message = "a scale has at least one unit"
    raise AssertionError(message)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _digits(value: float, *, is_whole: bool = False) -> str:
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "-∞"}.get(value, "n/a")
    rounded = _rounded(value)
    if rounded == 0 or is_whole:
        return f"{rounded:.0f}"
    if abs(rounded) < SMALLEST_WITHOUT_EXPONENT:
        return f"{rounded:.{_DIGITS - 1}e}"
    whole_digits = math.floor(math.log10(abs(rounded))) + 1
    return f"{rounded:.{max(0, _DIGITS - whole_digits)}f}"


def _exact(value: int, units: Mapping[str, int]) -> str:
    """Write a whole number with the largest unit that divides it, and that is easy to type."""
    if value == 0:
        return f"0{next(iter(units))}"
    unit = max(
        (unit for unit, factor in units.items() if value % factor == 0 and unit.isascii()),
        key=units.__getitem__,
    )
    return f"{value // units[unit]}{unit}"
