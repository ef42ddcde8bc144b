"""What holds for every set of repeats, whatever the numbers are."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from seatrial.model.estimate import Estimate
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

POSITIVE = st.floats(min_value=1e-3, max_value=1e12)
VALUES = st.lists(POSITIVE, max_size=30)
COUNTS = st.integers(min_value=0, max_value=5)
RANK = {Status.STABLE: 0, Status.UNSURE: 1, Status.UNSTABLE: 2}
MIRRORED = {
    Relation.MORE: {Relation.LESS, Relation.BARELY_LESS},
    Relation.BARELY_MORE: {Relation.LESS, Relation.BARELY_LESS},
    Relation.UNRESOLVED: {Relation.UNRESOLVED},
    Relation.BARELY_LESS: {Relation.MORE, Relation.BARELY_MORE},
    Relation.LESS: {Relation.MORE, Relation.BARELY_MORE},
}


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    """A positive number within an interval."""
    low, point, high = sorted(draw(st.tuples(POSITIVE, POSITIVE, POSITIVE)))
    return Estimate(point=point, low=low, high=high, confidence=0.95, n=3, method="m", unit="")


def inverse(one: Estimate) -> Estimate:
    """The ratio the other way round."""
    return Estimate(
        point=1 / one.point,
        low=1 / one.high,
        high=1 / one.low,
        confidence=one.confidence,
        n=one.n,
        method=one.method,
        unit=one.unit,
    )


@given(VALUES, COUNTS, COUNTS, COUNTS)
def test_a_number_has_a_status_of_numbers(
    values: list[float], failed: int, unsupported: int, skipped: int
) -> None:
    """Repeats with a number are more or less stable; those without one say why there is none."""
    status = status_of(
        values, failed_count=failed, unsupported_count=unsupported, skipped_count=skipped
    )
    assert (status in RANK) == bool(values)


@given(VALUES.filter(bool), COUNTS)
def test_failures_never_make_it_better(values: list[float], failed: int) -> None:
    """And a single one among successes makes it unstable."""
    with_failures = status_of(values, failed_count=failed)
    assert RANK[with_failures] >= RANK[status_of(values)]
    if failed:
        assert with_failures is Status.UNSTABLE


@given(VALUES.filter(bool), st.floats(min_value=1e-3, max_value=1e3))
def test_the_unit_does_not_matter(values: list[float], factor: float) -> None:
    """Variation and outliers are relative."""
    scaled = [value * factor for value in values]
    before, after = variation_ratio(values), variation_ratio(scaled)
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-9)


@given(VALUES, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(values: list[float], random: object) -> None:
    """Repeats are a set."""
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' own generator
    assert count_deviants(shuffled) == count_deviants(values)
    assert status_of(shuffled) is status_of(values)


@given(st.lists(POSITIVE, min_size=5, max_size=30))
def test_fewer_than_half_can_stand_apart(values: list[float]) -> None:
    """The median's own half never does."""
    assert count_deviants(values) <= len(values) / 2


@given(st.floats(min_value=0, max_value=2), st.floats(min_value=0, max_value=2))
def test_more_bytes_on_the_device_are_never_more_cached(one: float, other: float) -> None:
    """And direct I/O is judged at least as strictly as buffered."""
    low, high = sorted((one, other))
    for is_direct in (False, True):
        if is_cached(device_ratio=high, is_direct=is_direct):
            assert is_cached(device_ratio=low, is_direct=is_direct)
    if is_cached(device_ratio=low, is_direct=False):
        assert is_cached(device_ratio=low, is_direct=True)


@given(estimates(), estimates())
def test_only_one_of_two_can_exceed_the_other(one: Estimate, other: Estimate) -> None:
    """In either direction."""
    for direction in Direction:
        both = exceeds_host(one, other, direction=direction) and exceeds_host(
            other, one, direction=direction
        )
        assert not both


@given(estimates())
def test_a_relation_read_backwards_is_its_mirror(ratio: Estimate) -> None:
    """Who is more than another is not also less than it."""
    assert relation(inverse(ratio)) in MIRRORED[relation(ratio)]
