"""What is written by ``units`` is read back as the same number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seatrial import units

AMOUNTS = st.integers(min_value=0, max_value=units.INT64_MAX)


@given(AMOUNTS)
def test_durations(duration_ns: int) -> None:
    """Any whole number of nanoseconds survives."""
    assert units.parse_duration_ns(units.write_duration(duration_ns)) == duration_ns


@given(AMOUNTS)
def test_sizes(size_bytes: int) -> None:
    """Any whole number of bytes survives."""
    assert units.parse_size_bytes(units.write_size(size_bytes)) == size_bytes


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["ns", "bytes", "1/s"]))
def test_anything_can_be_shown(value: float, unit: str) -> None:
    """Display never fails, and stays short."""
    shown = units.format_value(value, unit)
    assert shown
    if abs(value) < 1e15:
        assert len(shown) <= 16
