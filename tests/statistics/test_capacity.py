"""The highest load that keeps an objective is found, in a fraction of a sweep's time."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import optimize

from seatrial.stats.capacity import (
    TRIAL_CONFIDENCE,
    Capacity,
    CapacitySearch,
    CapacityVerdict,
    Judged,
    Side,
    TrialOutcome,
    TrialWish,
    crossing,
    isotonic,
    judge_trial,
)
from seatrial.stats.counts import Counts
from seatrial.stats.objective import ShareJudgement, judge_share, tail_effective
from seatrial.stats.target import Objective, parse_objectives
from tests.statistics.laws import at_least
from tests.statistics.queues import response_quantile, response_times

NS = 1_000_000_000
#: Requests a second that the simulated server can serve at most; one takes 100 us on average.
SERVED_RPS = 10_000
SERVICE_NS = 100_000.0


def _trial(
    rng: np.random.Generator, wish: TrialWish, objective: Objective, *, service: str
) -> TrialOutcome:
    """What a load on a simulated M/G/1 server gives."""
    load = wish.rate_rps / SERVED_RPS
    if load >= 1:
        return TrialOutcome(
            rate_rps=wish.rate_rps, shares={}, achieved_ratio=0.98 / load, is_saturated=True
        )
    count = int(wish.rate_rps * wish.length_ns / NS)
    values = response_times(rng, count, load=load, service=service) * SERVICE_NS
    effective = tail_effective(
        [Counts.of_values(values)],
        [0],
        q=0.99,
        limit=objective.limit,
        confidence=TRIAL_CONFIDENCE,
        series=values,
    )
    judged = judge_share(
        int((values >= objective.limit).sum()),
        count,
        allowed=objective.allowed_share,
        effective=effective,
        confidence=TRIAL_CONFIDENCE,
    )
    return TrialOutcome(
        rate_rps=wish.rate_rps,
        shares={str(objective): judged},
        points={"p99": float(np.quantile(values, 0.99))},
    )


def _search(
    rng: np.random.Generator, objectives: tuple[Objective, ...], *, service: str, trial_ns: int
) -> Capacity:
    search = CapacitySearch(
        objectives, start_rps=500, lowest_rps=100, highest_rps=20_000, trial_ns=trial_ns
    )
    while (wish := search.next_trial) is not None:
        search.take(_trial(rng, wish, objectives[0], service=service))
    return search.result()


def _sweep_ns(
    rng: np.random.Generator, objectives: tuple[Objective, ...], *, service: str, trial_ns: int
) -> int:
    """Time of a sweep in steps of 5 % whose undecided trials are repeated in the same way."""
    rate_rps, total_ns = 500.0, 0
    while rate_rps < SERVED_RPS:
        for length_ns in (trial_ns, 2 * trial_ns, 4 * trial_ns):
            wish = TrialWish(rate_rps=rate_rps, length_ns=length_ns, why="sweep")
            total_ns += length_ns
            side, excess, _ = judge_trial(
                objectives, _trial(rng, wish, objectives[0], service=service)
            )
            if side is not Side.UNDECIDED or (excess is not None and abs(excess) > math.log(2)):
                break
        rate_rps *= 1.05
    return total_ns


@pytest.mark.parametrize(
    ("service", "text", "trial_ns"), [("M", "p99<1500us", 5 * NS), ("H2", "p99<3ms", 20 * NS)]
)
def test_capacity_of_a_known_server(service: str, text: str, trial_ns: int) -> None:
    """T19: within 5 % of the truth, in at most a third of the time of a sweep as fine."""
    objectives = parse_objectives(text)
    limit = objectives[0].limit / SERVICE_NS
    truth = SERVED_RPS * optimize.brentq(
        lambda load: response_quantile(0.99, load=load, service=service) - limit, 0.01, 0.97
    )
    rng = np.random.default_rng(19)
    runs = 25
    hits = 0
    measured_ns = []
    for _ in range(runs):
        found = _search(rng, objectives, service=service, trial_ns=trial_ns)
        assert found.verdict is CapacityVerdict.FOUND, found.reason
        assert found.rate is not None
        assert found.rate.point == pytest.approx(truth, rel=0.05)
        hits += found.rate.low <= truth <= found.rate.high
        measured_ns.append(found.measured_ns)
        assert len(found.trials) <= 32
    assert at_least(hits, runs, 0.95)
    sweep_ns = _sweep_ns(rng, objectives, service=service, trial_ns=trial_ns)
    assert np.median(measured_ns) <= sweep_ns / 3


def _fixed(low: float, high: float, *, allowed: float = 0.01) -> ShareJudgement:
    """A share of one in between, whose interval is given; twice as many requests would decide."""
    return ShareJudgement(
        requests_count=1000,
        over_count=round(1000 * (low + high) / 2),
        effective=1000,
        low=low,
        high=high,
        allowed=allowed,
        needed_count=2500,
    )


KEPT, BROKEN, OPEN = _fixed(0, 0.004), _fixed(0.05, 0.3), _fixed(0.005, 0.02)


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
    assert found.verdict is CapacityVerdict.ABOVE_RANGE
    assert found.trials[0].why == (
        "p99<1.00 µs: 0.90 of the limit, 1.2% over it [0.5%, 2%], 1% allowed; "
        "2500 requests would decide"
    )
    hopeless = dataclasses.replace(OPEN, needed_count=10**9)
    search = _small_search(start_rps=1e4, highest_rps=1e4)
    assert [wish.length_ns for wish in _drive(search, hopeless, 900.0)] == [NS // 4, 4 * NS]


def test_trials_are_long_enough_to_decide() -> None:
    """At 100/s a p99 takes 528 requests at least: a probe is as long as a trial, a trial longer."""
    search = _small_search()
    first = search.next_trial
    assert first is not None
    assert first.length_ns == NS
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
    assert len(wishes) == 2
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.reason == (
        "100/s stays undecided: p99<1.00 µs: 100% over it [0%, 100%], 1% allowed; "
        "528 requests would decide; use longer trials"
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


def test_trials_are_bounded() -> None:
    """When they are used up the answer is the bracket as it is, and says so."""
    search = _small_search(trials_max=3)
    while (wish := search.next_trial) is not None:
        is_low = wish.rate_rps < 150
        search.take(_outcome(wish, KEPT if is_low else BROKEN, 10.0 if is_low else 5000.0))
    found = search.result()
    assert found.verdict is CapacityVerdict.TRIALS_USED
    assert found.rate is not None
    assert (found.rate.low, found.rate.high) == (pytest.approx(math.sqrt(20_000)), 200)
    assert found.measured_ns == NS + NS + 4 * NS


def test_failures_and_shortfall_break_an_objective() -> None:
    """A load that was not served breaks everything; a failed share counts like a percentile."""
    objectives = parse_objectives("p99<1us,failed<1%")
    good = {"p99<1.00 µs": KEPT}

    def trial(failed: tuple[float, float] | None, *, achieved: float = 1.0) -> TrialOutcome:
        shares = good if failed is None else {**good, "failed<1%": _fixed(*failed)}
        points = {"p99": 10.0}
        return TrialOutcome(rate_rps=1, shares=shares, points=points, achieved_ratio=achieved)

    side, _, why = judge_trial(objectives, trial((0.04, 0.06)))
    assert side is Side.BREAKS
    assert why == "failed<1%: 5.00 of the limit, 5% over it [4%, 6%], 1% allowed"
    assert judge_trial(objectives, trial((0, 0.001)))[0] is Side.KEEPS
    side, excess, why = judge_trial(objectives, trial((0, 0.001), achieved=0.77))
    assert (side, excess) == (Side.BREAKS, None)
    assert why == "beyond capacity: 77.0% of the offered requests ended"
    with pytest.raises(ValueError, match=r"says nothing about failed<1%"):
        judge_trial(objectives, trial(None))


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
