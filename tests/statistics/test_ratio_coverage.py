"""The ratio of medians: its interval covers, its verdict is seldom wrong and often decided."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.metric import Direction
from seatrial.model.summary import Verdict
from seatrial.stats.paired import paired_ratio_interval
from seatrial.stats.ratio import median_ratio_interval, verdict
from tests.statistics.laws import ar1_blocks, at_least, at_most

if TYPE_CHECKING:
    from tests.statistics.laws import Floats

REPETITIONS = 400
SHAPES = [(2, 10), (3, 1), (3, 20), (5, 1), (5, 20), (12, 10)]


def _draw(rng: np.random.Generator, law: str, shape: tuple[int, int]) -> Floats:
    if law == "lognormal":
        return rng.lognormal(0, 0.3, shape)
    if law == "bimodal":
        return rng.lognormal(0, 0.1, shape) + 0.7 * (rng.random(shape) < 0.35)
    return np.exp(0.25 * ar1_blocks(rng, blocks=shape[0], n=shape[1], memory=0.5))


def _pair(
    rng: np.random.Generator, law: str, shape: tuple[int, int], *, ratio: float
) -> tuple[Floats, Floats]:
    """Two drivers in the same blocks: the machine drifts for both, and a little for each."""
    hour = np.exp(rng.normal(0, 0.15, (shape[0], 1)))
    own = np.exp(rng.normal(0, 0.05, (2, shape[0], 1)))
    return (
        _draw(rng, law, shape) * hour * own[0] * ratio,
        _draw(rng, law, shape) * hour * own[1],
    )


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_paired_ratio_covers(count: int) -> None:
    """One value a block, blocks that differ much: the pairing takes their difference out."""
    rng = np.random.default_rng(count)
    hits = 0
    for _ in range(1000):
        minutes = np.exp(rng.normal(0, 0.5, count))
        ours = 1.3 * minutes * np.exp(rng.normal(0, 0.05, count))
        theirs = minutes * np.exp(rng.normal(0, 0.05, count))
        found = paired_ratio_interval(list(ours), list(theirs))
        assert isinstance(found, Estimate)
        assert found.low > 0
        hits += found.low <= 1.3 <= found.high
    assert at_least(hits, 1000, 0.95)


@pytest.mark.parametrize("law", ["lognormal", "bimodal", "ar1"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_interval_covers_and_verdict_seldom_errs(law: str, shape: tuple[int, int]) -> None:
    """Under no difference: coverage of at least 93 %, wrong verdicts in at most 7 %."""
    rng = np.random.default_rng(shape[0] * 100 + shape[1])
    hits = wrong = 0
    for _ in range(REPETITIONS):
        ours, theirs = _pair(rng, law, shape, ratio=1.0)
        found = median_ratio_interval(list(ours), list(theirs))
        assert isinstance(found, Estimate)
        hits += found.low <= 1 <= found.high
        judged = verdict(found, direction=Direction.LOWER)
        wrong += judged in {Verdict.FASTER, Verdict.SLOWER}
    assert at_least(hits, REPETITIONS, 0.93)
    assert at_most(wrong, REPETITIONS, 0.07)


@pytest.mark.parametrize("shape", [(5, 20), (12, 10)], ids=lambda s: f"{s[0]}x{s[1]}")
def test_a_known_shift_is_found(shape: tuple[int, int]) -> None:
    """Forty per cent slower is called slower in at least 80 % of the runs, and never faster."""
    rng = np.random.default_rng(7)
    verdicts = []
    for _ in range(REPETITIONS):
        ours, theirs = _pair(rng, "lognormal", shape, ratio=1.4)
        found = median_ratio_interval(list(ours), list(theirs))
        verdicts.append(verdict(found, direction=Direction.LOWER))
    assert at_least(verdicts.count(Verdict.SLOWER), REPETITIONS, 0.8)
    assert Verdict.FASTER not in verdicts


def test_interval_covers_a_true_ratio() -> None:
    """The interval is of the ratio itself, not only right about 1."""
    rng = np.random.default_rng(11)
    hits = 0
    for _ in range(REPETITIONS):
        ours, theirs = _pair(rng, "lognormal", (5, 20), ratio=3.0)
        found = median_ratio_interval(list(ours), list(theirs))
        assert isinstance(found, Estimate)
        hits += found.low <= 3 <= found.high
    assert at_least(hits, REPETITIONS, 0.93)


def test_percentile_interval_would_not_do() -> None:
    """The rejected alternative covers far too seldom with few blocks: why we use Student's t."""
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(REPETITIONS):
        ours, theirs = _pair(rng, "lognormal", (3, 20), ratio=1.0)
        picks = rng.integers(0, 3, (300, 3))
        tops = np.median(ours[picks].reshape(300, -1), axis=1)
        bottoms = np.median(theirs[picks].reshape(300, -1), axis=1)
        low, high = np.quantile(tops / bottoms, [0.025, 0.975])
        hits += bool(low <= 1 <= high)
    assert hits < 0.85 * REPETITIONS


def test_noise_floor_hides_certain_but_tiny_differences() -> None:
    """One per cent, however certain, is not called a difference; three per cent is."""
    blocks = [np.linspace(99, 101, 101) for _ in range(5)]
    for ratio, expected in ((1.01, Verdict.INDISTINGUISHABLE), (1.03, Verdict.SLOWER)):
        found = median_ratio_interval([block * ratio for block in blocks], blocks)
        assert verdict(found, direction=Direction.LOWER) is expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.67, 1.49, Verdict.INDISTINGUISHABLE),
        (0.66, 1.2, Verdict.UNRESOLVED),
        (0.9, 1.51, Verdict.UNRESOLVED),
        (0.5, 90.0, Verdict.UNRESOLVED),
        (1.1, 90.0, Verdict.SLOWER),
    ],
)
def test_what_is_not_certain_is_alike_only_if_its_interval_says_so(
    low: float, high: float, expected: Verdict
) -> None:
    """A wide interval is no sign of likeness, whichever way it reaches."""
    ratio = Estimate(
        point=math.sqrt(low * high),
        low=low,
        high=high,
        confidence=0.95,
        n=2,
        method="made up",
        unit="ratio",
    )
    assert verdict(ratio, direction=Direction.LOWER) is expected


@pytest.mark.parametrize(
    ("ratio", "direction", "expected"),
    [
        (2.0, Direction.LOWER, Verdict.SLOWER),
        (0.5, Direction.LOWER, Verdict.FASTER),
        (2.0, Direction.HIGHER, Verdict.FASTER),
        (0.5, Direction.HIGHER, Verdict.SLOWER),
        (2.0, Direction.NONE, Verdict.NOT_JUDGED),
    ],
)
def test_direction_decides_the_word(ratio: float, direction: Direction, expected: Verdict) -> None:
    """Faster means better: a higher rate is faster, a higher latency is slower."""
    blocks = [np.array([10.0, 11.0, 12.0]), np.array([10.5, 11.0, 11.5])]
    found = median_ratio_interval([block * ratio for block in blocks], blocks)
    assert verdict(found, direction=direction) is expected


def test_what_cannot_be_compared_says_why() -> None:
    """One block, a block without its partner, or a zero median give a reason, not a number."""
    one = median_ratio_interval([[1.0, 2.0]], [[1.0, 2.0]])
    assert one == NotAvailable(reason="n/a (need >= 2 blocks)", n=1, n_needed=2)
    unpaired = median_ratio_interval([[1.0], [2.0]], [[1.0], []])
    assert isinstance(unpaired, NotAvailable)
    zero = median_ratio_interval([[0.0], [0.0]], [[1.0], [1.0]])
    assert isinstance(zero, NotAvailable)
    assert verdict(zero, direction=Direction.LOWER) is Verdict.NOT_JUDGED
    with pytest.raises(ValueError, match="expected pairs"):
        median_ratio_interval([[1.0]], [])


def test_long_blocks_are_shortened_without_moving_the_answer() -> None:
    """Ten thousand values a block give the ratio of the exact medians."""
    rng = np.random.default_rng(1)
    ours, theirs = rng.lognormal(0, 1, (3, 10_000)) * 2, rng.lognormal(0, 1, (3, 10_000))
    found = median_ratio_interval(list(ours), list(theirs))
    assert isinstance(found, Estimate)
    assert found.point == pytest.approx(np.median(ours) / np.median(theirs))
    assert found.high / found.low < 1.3


def test_resampling_is_reproducible() -> None:
    """The same seed gives the same interval also where resamples are drawn."""
    rng = np.random.default_rng(2)
    ours, theirs = rng.lognormal(0, 0.3, (2, 9, 10))
    first = median_ratio_interval(list(ours), list(theirs), seed=4)
    assert first == median_ratio_interval(list(ours), list(theirs), seed=4)
