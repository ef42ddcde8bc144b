"""Quantities: what is read, what is refused, what is shown."""

from __future__ import annotations

import math

import pytest

from seatrial import units
from seatrial.errors import ConfigError, UnitError


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0ns", 0),
        ("250ms", 250_000_000),
        ("1.5 s", 1_500_000_000),
        ("30us", 30_000),
        ("30µs", 30_000),
        ("2min", 120_000_000_000),
        ("1h", 3_600_000_000_000),
        ("1_000ns", 1_000),
        ("0.000001s", 1_000),
        ("1e3s", 1_000_000_000_000),
        ("2.5e-3s", 2_500_000),
    ],
)
def test_durations_are_read_exactly(text: str, expected_ns: int) -> None:
    """A duration becomes whole nanoseconds, without a detour through floats."""
    assert units.parse_duration_ns(text) == expected_ns


@pytest.mark.parametrize(
    ("text", "expected_bytes"),
    [("64KiB", 65536), ("1.5MiB", 1_572_864), ("3GiB", 3 << 30), ("2kB", 2000), ("5MB", 5_000_000)],
)
def test_sizes_are_read_exactly(text: str, expected_bytes: int) -> None:
    """Binary and decimal units differ."""
    assert units.parse_size_bytes(text) == expected_bytes


@pytest.mark.parametrize(
    ("text", "expected_rps"),
    [
        ("200/s", 200.0),
        ("2k/s", 2000.0),
        ("1.5M/s", 1.5e6),
        ("1G/s", 1e9),
        ("1e9/s", 1e9),
        ("30/min", 0.5),
        ("6k/min", 100.0),
    ],
)
def test_rates_are_per_second(text: str, expected_rps: float) -> None:
    """Any span of time is brought to a second."""
    assert units.parse_rate_rps(text) == expected_rps


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("5", "unit-missing", '"5" has no unit; expected a duration'),
        ("", "unit-syntax", "is not a quantity"),
        ("-3s", "unit-syntax", "is not a quantity"),
        ("3 parsec", "unit-unknown", 'unknown unit "parsec"'),
        ("3 MS", "unit-unknown", 'unknown unit "MS"'),
        ("1.5ns", "unit-fraction", "not a whole number of nanoseconds"),
        ("9999999999h", "unit-range", "is too large"),
        ("1e3", "unit-missing", "has no unit"),
        ("1e999s", "unit-unknown", 'unknown unit "9s"'),
        ("1e-10s", "unit-fraction", "not a whole number of nanoseconds"),
        ("٣s", "unit-syntax", "is not a quantity"),
    ],
)
def test_what_is_no_duration_is_refused(text: str, code: str, part: str) -> None:
    """The message holds the text, the reason and what would have been right."""
    with pytest.raises(UnitError, match=r"expected|too large") as caught:
        units.parse_duration_ns(text)
    assert caught.value.code == code
    assert part in str(caught.value)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize("rate_rps", [1e-7, 0.5, 200.0, 12_300.0, 1.5e6, 1e9, 1e20])
def test_a_rate_that_is_shown_can_be_typed(rate_rps: float) -> None:
    """Whoever copies a number from the output gets that number."""
    assert units.parse_rate_rps(units.format_rate(rate_rps)) == pytest.approx(rate_rps, rel=1e-12)


def test_a_rate_beyond_all_numbers_is_refused() -> None:
    """It would be shown as infinite, which nobody typed."""
    with pytest.raises(UnitError, match="too large") as caught:
        units.parse_rate_rps(f"{'9' * 400}/s")
    assert caught.value.code == "unit-range"


def test_a_rate_needs_its_span() -> None:
    """A bare number, or one with only a multiple, is no rate."""
    for text in ("200", "2k", "2/h"):
        with pytest.raises(UnitError):
            units.parse_rate_rps(text)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "ns", "0 ns"),
        (999, "ns", "999 ns"),
        (0.4, "ns", "0.400 ns"),
        (999.6, "ns", "1.00 µs"),
        (999_600, "ns", "1.00 ms"),
        (12_345_678, "ns", "12.3 ms"),
        (59_990_000_000, "ns", "1.00 min"),
        (-1_500_000, "ns", "-1.50 ms"),
        (512, "bytes", "512 B"),
        (1536, "bytes", "1.50 KiB"),
        (5 << 40, "bytes", "5.00 TiB"),
        (1 << 20, "bytes/s", "1.00 MiB/s"),
        (12_345, "1/s", "12.3 k/s"),
        (200, "rps", "200 /s"),
        (9_999, "count", "9999"),
        (12_345, "count", "12.3 k"),
        (1.0312, "ratio", "1.03"),
        (0.00123, "ratio", "0.00123"),
        (1.234e-9, "ratio", "1.23e-09"),
        (12.34, "widgets", "12.3 widgets"),
        (math.inf, "ratio", "∞"),
        (math.nan, "ns", "n/a ns"),
    ],
)
def test_values_are_shown_with_three_digits(value: float, unit: str, expected: str) -> None:
    """The unit fits the value, and rounding never gives a thousand of a unit."""
    assert units.format_value(value, unit) == expected
