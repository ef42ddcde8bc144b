"""The course of a search for capacity: which trial comes next, and what the answer is called."""

from __future__ import annotations

import dataclasses
import math
import re
import statistics

import numpy as np
import pytest

from seatrial.stats.capacity import (
    Capacity,
    CapacitySearch,
    CapacityVerdict,
    TrialWish,
    crossing,
    isotonic,
)
from seatrial.stats.capacity_trial import TRIAL_CONFIDENCE, Judged, TrialOutcome
from seatrial.stats.objective import ShareJudgement, Side, judge_share
from seatrial.stats.target import parse_objectives
from seatrial.units import parse_duration_ns
from tests.statistics.capacity_shares import BROKEN, KEPT, OPEN

NS = 1_000_000_000


def _outcome(wish: TrialWish, share: ShareJudgement, point: float | None) -> TrialOutcome:
    points = {} if point is None else {"p99": point}
    return TrialOutcome(rate_rps=wish.rate_rps, shares={"p99<1.00 µs": share}, points=points)


def _small_search(**settings: float) -> CapacitySearch:
    return CapacitySearch(
        parse_objectives("p99<1us"),
        **{  # type: ignore[arg-type]  # a test's shorthand for four numbers
            "start_rps": 100,
            "lowest_rps": 50,
            "highest_rps": 400,
            "trial_ns": NS,
        }
        | settings,
    )


def _drive(search: CapacitySearch, share: ShareJudgement, point: float | None) -> list[TrialWish]:
    wishes = []
    while (wish := search.next_trial) is not None:
        wishes.append(wish)
        search.take(_outcome(wish, share, point))
    return wishes


def test_out_of_range_is_a_verdict() -> None:
    """Doubling ends at the highest rate, halving at the lowest; neither invents a capacity."""
    search = _small_search()
    assert [wish.rate_rps for wish in _drive(search, KEPT, 10.0)] == [100, 200, 400]
    assert search.result().verdict is CapacityVerdict.ABOVE_RANGE
    assert search.result().rate is None
    search = _small_search(lowest_rps=30)
    assert [wish.rate_rps for wish in _drive(search, BROKEN, 5000.0)] == [100, 50, 30]
    found = search.result()
    assert found.verdict is CapacityVerdict.BELOW_RANGE
    assert found.reason.startswith("30/s, the lowest rate, already fails: p99<1.00 µs: 5.00 of")


def test_undecided_trials_are_repeated_longer() -> None:
    """As long as would decide, at least twice as long, at most four times what was asked for."""
    search = _small_search(start_rps=1e4, highest_rps=1e4)
    wishes = _drive(search, OPEN, 900.0)
    assert [wish.length_ns for wish in wishes] == [NS // 4, NS, 2.75 * NS]
    assert wishes[1].why == "undecided before"
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.trials[0].why == (
        "p99<1.00 µs: 0.90 of the limit, 1.2% over it [0.5%, 2%], 1% allowed; "
        "2500 requests would decide"
    )
    hopeless = dataclasses.replace(OPEN, needed_count=10**9)
    search = _small_search(start_rps=1e4, highest_rps=1e4)
    assert [wish.length_ns for wish in _drive(search, hopeless, 900.0)] == [NS // 4, 4 * NS]


def test_trials_are_long_enough_to_decide() -> None:
    """At 100/s a p99 takes 528 requests at least: all are as long as the bound allows."""
    search = _small_search()
    first = search.next_trial
    assert first is not None
    assert first.length_ns == 4 * NS
    search.take(_outcome(first, KEPT, 10.0))
    second = search.next_trial
    assert second is not None
    search.take(_outcome(second, BROKEN, 5000.0))
    third = search.next_trial
    assert third is not None
    assert third.length_ns == 4 * NS


def test_no_number_at_all_ends_the_search() -> None:
    """A rate at which even the longest trial gives nothing is named."""
    search = _small_search()
    nothing = judge_share(0, 0, allowed=0.01, effective=0, confidence=TRIAL_CONFIDENCE)
    wishes = _drive(search, nothing, None)
    assert [wish.length_ns for wish in wishes] == [4 * NS]
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.reason == (
        "no trial decided; 100/s stays undecided: no request was due; 528 requests would decide; "
        "1 rate stays undecided, longer trials decide more: --duration 2.00s"
    )


def test_rates_that_nothing_decided_are_not_kept() -> None:
    """Three requests each tell nothing, not even at the highest rate: no "still kept"."""
    search = _small_search(start_rps=1e4, lowest_rps=1e3, highest_rps=4e4)
    few = judge_share(0, 3, allowed=0.01, effective=3, confidence=TRIAL_CONFIDENCE)
    wishes = _drive(search, few, 10.0)
    assert [wish.rate_rps for wish in wishes] == [1e4, 2e4, 4e4]
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.rate is None
    assert found.reason == (
        "no trial decided; 40000/s stays undecided: p99<1.00 µs: 0.01 of the limit, 0% over it "
        "[0%, 82.9%], 1% allowed; 528 requests would decide; 3 rates stay undecided, longer trials "
        "decide more: --duration 12.1s"
    )


@pytest.mark.parametrize(
    ("below", "above", "end"),
    [
        (KEPT, OPEN, "at least 10000/s, which keeps the objectives; no rate certainly breaks one"),
        (OPEN, BROKEN, "less than 20000/s, which breaks one; no rate certainly keeps the objec"),
    ],
)
def test_an_end_that_no_trial_decided_is_open(
    below: ShareJudgement, above: ShareJudgement, end: str
) -> None:
    """Neither the lowest nor the highest rate of the range stands in for it: it was not tried."""
    search = _small_search(start_rps=1e4, lowest_rps=1e3, highest_rps=4e7)
    while (wish := search.next_trial) is not None:
        is_below = wish.rate_rps < 1.4e4
        point = 100.0 if is_below else 9000.0
        search.take(_outcome(wish, below if is_below else above, point))
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.rate is not None
    assert found.rate.point == pytest.approx(1.4e4, rel=0.05)
    tried = {one.rate_rps for one in found.trials}
    if below is KEPT:
        assert found.rate.high is None
        assert found.rate.low in tried
        assert found.rate.low == pytest.approx(1.4e4, rel=0.05)
    else:
        assert found.rate.low is None
        assert found.rate.high in tried
    ends = re.sub(r"[\d.]+/s", "N/s", found.reason)
    assert ends.startswith(re.sub(r"[\d.]+/s", "N/s", end))
    assert "longer trials decide more: --duration " in found.reason


def test_lowest_rate_without_a_request_is_no_break() -> None:
    """So few are due that some trials have none: they are as long as allowed, and say nothing."""
    search = _small_search(start_rps=10, lowest_rps=0.01, highest_rps=10)
    nothing = judge_share(0, 0, allowed=0.01, effective=0, confidence=TRIAL_CONFIDENCE)
    while (wish := search.next_trial) is not None:
        if wish.rate_rps > 1:
            search.take(_outcome(wish, BROKEN, 5000.0))
        else:
            assert wish.length_ns == 4 * NS
            search.take(_outcome(wish, nothing, None))
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.rate is not None
    assert (found.rate.point, found.rate.low, found.rate.high) == (None, None, 1.25)
    assert found.trials[-1].why == "no request was due; 528 requests would decide"
    # A service that is too slow for the objective without any load is not helped by longer trials.
    assert found.reason.endswith(
        "; no rate came near: does a single request keep them (-c 1, without --rate)?"
    )


def test_a_wide_answer_says_what_would_narrow_it() -> None:
    """Rates between the ends that stayed undecided, and how long trials would decide them."""
    search = _small_search(start_rps=1e4, lowest_rps=1e3, highest_rps=4e4)
    while (wish := search.next_trial) is not None:
        if wish.rate_rps <= 1e4:
            search.take(_outcome(wish, KEPT, 500.0))
        elif wish.rate_rps >= 2e4:
            search.take(_outcome(wish, BROKEN, 2000.0))
        else:
            search.take(_outcome(wish, OPEN, 1000.0 * wish.rate_rps / 1.4e4))
    found = search.result()
    assert found.rate is not None
    assert (found.rate.low, found.rate.high) == (1e4, 2e4)
    assert "rates between stay undecided, longer trials decide more: --duration" in found.reason


def test_the_advice_is_as_short_as_decides() -> None:
    """A search at the length that was advised decides what stayed open, and so narrows the answer.

    Here a rate is decided by so many requests as its distance from the limit takes.
    """

    def searched(trial_ns: int) -> Capacity:
        search = _small_search(start_rps=500, lowest_rps=50, highest_rps=1e5, trial_ns=trial_ns)
        while (wish := search.next_trial) is not None:
            distance = math.log(wish.rate_rps / 1.4e3)
            needed = math.ceil(500 / distance**2)
            decided = BROKEN if distance > 0 else KEPT
            is_enough = wish.rate_rps * wish.length_ns / NS >= needed
            few = round(wish.rate_rps * wish.length_ns / NS)
            left = dataclasses.replace(OPEN, needed_count=needed, requests_count=few)
            share = decided if is_enough else left
            search.take(_outcome(wish, share, 1000.0 * math.exp(distance)))
        return search.result()

    first = searched(NS)
    assert first.rate is not None
    assert first.rate.low is not None
    assert first.rate.high is not None
    advised = re.search(r"--duration (\S+)$", first.reason)
    assert advised, first.reason
    advised_ns = parse_duration_ns(advised[1])
    needs_ns = [one.needed_ns for one in first.trials if one.side is Side.UNDECIDED]
    typical_ns = statistics.median(one for one in needs_ns if one is not None)
    assert 2 * NS <= advised_ns <= typical_ns
    second = searched(advised_ns)
    assert second.rate is not None
    assert second.rate.low is not None
    assert second.rate.high is not None
    assert second.rate.high / second.rate.low < first.rate.high / first.rate.low


@pytest.mark.parametrize("confirmed", [True, False])
def test_an_end_kept_by_few_requests_is_looked_at_again(confirmed: bool) -> None:  # noqa: FBT001 - a case of the test
    """The longest trial at that rate is what counts, whatever the short one said."""
    search = _small_search(start_rps=1e4, lowest_rps=1e3, highest_rps=4e4, resolution_ratio=0.5)
    few = dataclasses.replace(KEPT, effective=4 * 528 - 1)
    again = []
    while (wish := search.next_trial) is not None:
        is_again = wish.why == "kept by few requests"
        again += [wish] if is_again else []
        # The first such trial breaks what the short one kept; those further down keep.
        is_low = wish.rate_rps < 1.5e4 and (confirmed or not is_again or len(again) > 1)
        search.take(_outcome(wish, few if is_low else BROKEN, 10.0 if is_low else 5000.0))
    assert again[0].length_ns == 4 * NS
    found = search.result()
    assert found.rate is not None
    assert found.verdict is CapacityVerdict.FOUND
    assert found.rate.low == again[-1].rate_rps
    assert (found.rate.high == again[0].rate_rps) is not confirmed
    assert len({wish.rate_rps for wish in again}) == len(again) == (1 if confirmed else 2)


def test_trials_are_bounded() -> None:
    """When they are used up the answer is the bracket as it is, and says so."""
    search = _small_search(trials_max=3)
    while (wish := search.next_trial) is not None:
        is_low = wish.rate_rps < 150
        search.take(_outcome(wish, KEPT if is_low else BROKEN, 10.0 if is_low else 5000.0))
    found = search.result()
    assert found.verdict is CapacityVerdict.TRIALS_USED
    assert found.rate is not None
    assert found.rate.low == pytest.approx(math.sqrt(20_000))
    assert found.rate.high == 200
    # 1.5 times the fewest that could decide, 528 for a p99, take 3.96 s at 200/s.
    assert found.measured_ns == 4 * NS + 3.96 * NS + 4 * NS


def test_misuse_is_refused() -> None:
    """Trials come in the order in which they were asked for, and the answer comes last."""
    search = _small_search()
    with pytest.raises(ValueError, match="the search goes on: first probe"):
        search.result()
    with pytest.raises(ValueError, match="a trial at 7/s where 100/s was asked"):
        search.take(TrialOutcome(rate_rps=7, shares={}))
    _drive(search, KEPT, 10.0)
    with pytest.raises(ValueError, match="the search is over"):
        search.take(TrialOutcome(rate_rps=400, shares={}))
    with pytest.raises(ValueError, match="lowest <= start"):
        _small_search(start_rps=10)
    with pytest.raises(ValueError, match="share between 0 and 1"):
        _small_search(resolution_ratio=2)
    with pytest.raises(ValueError, match="no objective"):
        CapacitySearch([], start_rps=1, lowest_rps=1, highest_rps=1, trial_ns=1)


def test_isotonic_fit_and_crossing() -> None:
    """Violators are pooled by weight; the limit is crossed on a straight line between points."""
    fitted = isotonic(np.array([0.0, 3.0, 1.0, 4.0]), np.array([1.0, 1.0, 3.0, 1.0]))
    assert fitted.tolist() == [0.0, 1.5, 1.5, 4.0]

    def judged(rate_rps: float, excess: float | None) -> Judged:
        return Judged(rate_rps=rate_rps, length_ns=1, side=Side.KEEPS, excess=excess, why="")

    line = [judged(100, -1.0), judged(400, 1.0)]
    assert crossing(line, keeps=100, breaks=400) == pytest.approx(200)
    cliff = [judged(100, -1.0), judged(400, None)]
    assert crossing(cliff, keeps=100, breaks=400) == pytest.approx(200)
