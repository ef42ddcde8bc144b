"""Histograms of the core, as Python sees them."""

from __future__ import annotations

import pytest

from seatrial.errors import StoreError
from seatrial.loadgen import (
    Histogram,
    LoadRequest,
    merge_histograms,
    read_histogram,
    run_load,
)

SECOND_NS = 1_000_000_000


def response_histogram(*, service: str, seed: int = 0) -> Histogram:
    """Returns response times of a modelled server."""
    request = LoadRequest(
        targets=(f"fake://?service={service}",),
        arrival="poisson",
        rate_rps=100.0,
        measure_ns=10 * SECOND_NS,
        connections=64,
        seed=seed,
    )
    return run_load(request).response_histogram


def test_merging_adds_up() -> None:
    """A merged histogram counts both, keeps the extremes, and leaves its parts alone."""
    fast = response_histogram(service="constant:1ns")
    slow = response_histogram(service="exponential:2ms", seed=3)
    count = fast.count
    merged = fast.merge(slow)
    assert merged == slow.merge(fast) == merge_histograms([fast, slow])
    assert merged.count == count + slow.count
    assert fast.count == count
    assert (merged.min_ns, merged.max_ns) == (fast.min_ns, slow.max_ns)
    assert merge_histograms([]) == Histogram()


def test_bytes_round_trip() -> None:
    """What was stored is read back equal."""
    histogram = response_histogram(service="exponential:1ms")
    assert read_histogram(histogram.to_bytes()) == histogram


@pytest.mark.parametrize("damage", [b"", b"seahist9" + bytes(48), b"\0" * 400])
def test_damaged_bytes_are_a_store_error(damage: bytes) -> None:
    """Bytes of another kind or version are refused with a hint."""
    with pytest.raises(StoreError) as caught:
        read_histogram(damage)
    assert caught.value.code == "bad-histogram"
    assert caught.value.hint


def test_quantiles_are_ordered_and_within_the_extremes() -> None:
    """0 is the exact minimum, 1 the exact maximum; outside there is no value."""
    histogram = response_histogram(service="exponential:1ms")
    values = [histogram.quantile(q / 10) for q in range(11)]
    assert values == sorted(value for value in values if value is not None)
    assert values[0] == histogram.min_ns
    assert values[-1] == histogram.max_ns
    assert histogram.quantile(-0.1) is None
    assert histogram.quantile(1.1) is None


def test_an_empty_histogram_has_no_values() -> None:
    """Unknown is None, never 0."""
    empty = Histogram()
    assert (empty.count, empty.min_ns, empty.max_ns, empty.mean_ns) == (0, None, None, None)
    assert empty.quantile(0.5) is None
