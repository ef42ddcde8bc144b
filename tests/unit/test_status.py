"""Statuses, marks and orders of repeats: exact answers to fixtures of the written rules."""

from __future__ import annotations

import math

import pytest

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.metric import Direction
from seatrial.model.summary import Relation, Status
from seatrial.stats.status import (
    count_deviants,
    exceeds_host,
    is_cached,
    relation,
    status_of,
    variation_ratio,
)

NONE = NotAvailable(reason="n/a", n=0)


def spread(ratio: float, count: int = 5) -> list[float]:
    """Values around 100 with this coefficient of variation."""
    raw = [float(number) for number in range(count)]
    mean = sum(raw) / count
    deviation = math.sqrt(sum((value - mean) ** 2 for value in raw) / (count - 1))
    return [100 + 100 * ratio * (value - mean) / deviation for value in raw]


def estimate(point: float, low: float, high: float) -> Estimate:
    """A number with its interval."""
    return Estimate(point=point, low=low, high=high, confidence=0.95, n=9, method="m", unit="")


@pytest.mark.parametrize(
    ("ratio", "count", "status"),
    [
        (0.04, 5, Status.STABLE),
        (0.0499, 5, Status.STABLE),
        (0.0501, 5, Status.UNSURE),
        (0.08, 5, Status.UNSURE),
        (0.1499, 5, Status.UNSURE),
        (0.1501, 5, Status.UNSTABLE),
        (0.30, 5, Status.UNSTABLE),
        (0.0, 3, Status.STABLE),
        (0.0, 2, Status.UNSURE),
    ],
)
def test_agreement(ratio: float, count: int, status: Status) -> None:
    """At most 5 % is stable, at most 15 % perhaps, and two repeats never are (G1)."""
    values = spread(ratio, count)
    assert variation_ratio(values) == pytest.approx(ratio)
    assert status_of(values) is status


def test_a_single_repeat_is_never_stable() -> None:
    """One run without a repetition is what the seed had (G1)."""
    assert variation_ratio([5.0]) is None
    assert status_of([5.0]) is Status.UNSURE


@pytest.mark.parametrize(
    ("values", "failed", "unsupported", "skipped", "status"),
    [
        ([], 0, 5, 0, Status.UNSUPPORTED),
        ([], 5, 0, 0, Status.FAILED),
        ([], 1, 4, 0, Status.FAILED),
        ([], 0, 0, 1, Status.SKIPPED),
        ([], 0, 0, 0, Status.NOT_RUN),
        ([1.0, 1.0, 1.0], 1, 0, 0, Status.UNSTABLE),
        ([1.0, 1.0, 1.0], 0, 1, 0, Status.UNSTABLE),
        ([1.0, 1.0, 1.0], 0, 0, 1, Status.STABLE),
    ],
)
def test_numbers_that_are_missing(
    values: list[float], failed: int, unsupported: int, skipped: int, status: Status
) -> None:
    """Blank, unsupported, failed and skipped are four things, not one empty row (G8)."""
    found = status_of(
        values, failed_count=failed, unsupported_count=unsupported, skipped_count=skipped
    )
    assert found is status


def test_values_around_zero_have_a_variation() -> None:
    """All zero is agreement; else a mean of zero is no scale at all."""
    assert variation_ratio([0.0, 0.0, 0.0]) == 0
    assert variation_ratio([-1.0, 1.0]) == math.inf
    assert status_of([-1.0, 0.0, 1.0]) is Status.UNSTABLE


@pytest.mark.parametrize(
    ("device", "direct", "expected"),
    [
        (0.49, False, True),
        (0.51, False, False),
        (0.89, True, True),
        (0.91, True, False),
        (0.0, True, True),
        (1.3, True, False),
        (None, True, False),
    ],
)
def test_bytes_that_missed_the_device(
    device: float | None, *, direct: bool, expected: bool
) -> None:
    """18.8 GB written directly with 0 bytes on the device are marked, not praised (G5)."""
    assert is_cached(device_ratio=device, is_direct=direct) is expected


def test_a_rate_beyond_the_device() -> None:
    """Twice what the host gets from its device is no device, whatever was counted (G5)."""
    assert is_cached(device_ratio=1.0, is_direct=True, value=908.2, ceiling=44.1)
    assert not is_cached(device_ratio=1.0, is_direct=True, value=88.0, ceiling=44.1)
    assert not is_cached(device_ratio=None, is_direct=True, value=908.2, ceiling=None)


@pytest.mark.parametrize(
    ("measured", "host", "direction", "expected"),
    [
        (estimate(112.7, 110, 115), estimate(44.1, 43, 45), Direction.HIGHER, True),
        (estimate(50, 49, 51), estimate(44.1, 43, 45), Direction.HIGHER, False),
        (estimate(112.7, 40, 190), estimate(44.1, 43, 45), Direction.HIGHER, False),
        (estimate(44.1, 43, 45), estimate(112.7, 110, 115), Direction.HIGHER, False),
        (estimate(44.1, 43, 45), estimate(112.7, 110, 115), Direction.LOWER, True),
        (estimate(100, 99, 101), estimate(112.7, 110, 115), Direction.LOWER, False),
        (estimate(1, 1, 1), estimate(2, 2, 2), Direction.NONE, False),
        (NONE, estimate(44.1, 43, 45), Direction.HIGHER, False),
        (estimate(112.7, 110, 115), NONE, Direction.HIGHER, False),
    ],
)
def test_better_than_the_host(
    measured: Estimate | NotAvailable,
    host: Estimate | NotAvailable,
    direction: Direction,
    *,
    expected: bool,
) -> None:
    """By a quarter, with intervals that do not meet, in the metric's own direction."""
    assert exceeds_host(measured, host, direction=direction) is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([10, 10.1, 9.9, 10, 30], 1),
        ([10, 10, 10, 10, 10.5], 0),
        ([10, 10, 10, 10, 11.5], 1),
        ([10, 10, 30], 0),
        ([1, 2, 3, 4, 5, 6], 0),
        ([], 0),
    ],
)
def test_repeats_that_stand_apart(values: list[float], expected: int) -> None:
    """By the median absolute deviation, but never within a tenth, and never of fewer than five."""
    assert count_deviants(values) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (estimate(2.06, 1.9, 2.2), Relation.MORE),
        (estimate(1.10, 1.05, 1.2), Relation.MORE),
        (estimate(1.04, 1.01, 1.07), Relation.BARELY_MORE),
        (estimate(1.04, 0.99, 1.09), Relation.UNRESOLVED),
        (estimate(1.5, 0.9, 2.5), Relation.UNRESOLVED),
        (estimate(0.96, 0.93, 0.99), Relation.BARELY_LESS),
        (estimate(0.5, 0.4, 0.6), Relation.LESS),
        (NONE, Relation.UNRESOLVED),
    ],
)
def test_relations(ratio: Estimate | NotAvailable, expected: Relation) -> None:
    """A sign stands for an interval and an effect, not for an impression (G8)."""
    assert relation(ratio) is expected
