"""The highest load that keeps an objective is found, in a fraction of a sweep's time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from seatrial.model.estimate import Estimate, NotAvailable
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
from seatrial.stats.dependent import series_quantile_interval
from seatrial.stats.target import Objective, parse_objectives
from tests.statistics.laws import at_least
from tests.statistics.queues import response_quantile, response_times

NS = 1_000_000_000
#: Requests a second that the simulated server can serve at most; one takes 100 us on average.
SERVED_RPS = 10_000
SERVICE_NS = 100_000.0


def _trial(rng: np.random.Generator, wish: TrialWish, *, service: str) -> TrialOutcome:
    """What a load on a simulated M/G/1 server gives."""
    load = wish.rate_rps / SERVED_RPS
    if load >= 1:
        return TrialOutcome(
            rate_rps=wish.rate_rps, estimates={}, achieved_ratio=0.98 / load, is_saturated=True
        )
    count = int(wish.rate_rps * wish.length_ns / NS)
    values = response_times(rng, count, load=load, service=service) * SERVICE_NS
    pooled = Counts.of_values(values)
    found = series_quantile_interval(
        values, 0.99, confidence=TRIAL_CONFIDENCE, unit="ns", pooled=pooled
    )
    return TrialOutcome(
        rate_rps=wish.rate_rps, estimates={"p99": found}, points={"p99": pooled.quantile(0.99)}
    )


def _search(
    rng: np.random.Generator, objectives: tuple[Objective, ...], *, service: str, trial_ns: int
) -> Capacity:
    search = CapacitySearch(
        objectives, start_rps=500, lowest_rps=100, highest_rps=20_000, trial_ns=trial_ns
    )
    while (wish := search.next_trial) is not None:
        search.take(_trial(rng, wish, service=service))
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
            side, excess, _ = judge_trial(objectives, _trial(rng, wish, service=service))
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


def _fixed(point: float, *, spread: float = 0.0) -> Estimate:
    return Estimate(
        point=point,
        low=point * (1 - spread),
        high=point * (1 + spread),
        confidence=0.99,
        n=1000,
        method="given",
        unit="ns",
    )


def _outcome(wish: TrialWish, estimate: Estimate | NotAvailable) -> TrialOutcome:
    return TrialOutcome(rate_rps=wish.rate_rps, estimates={"p99": estimate})


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


def _drive(search: CapacitySearch, estimate: Estimate | NotAvailable) -> list[TrialWish]:
    wishes = []
    while (wish := search.next_trial) is not None:
        wishes.append(wish)
        search.take(_outcome(wish, estimate))
    return wishes


def test_out_of_range_is_a_verdict() -> None:
    """Doubling ends at the highest rate, halving at the lowest; neither invents a capacity."""
    search = _small_search()
    assert [wish.rate_rps for wish in _drive(search, _fixed(10))] == [100, 200, 400]
    assert search.result().verdict is CapacityVerdict.ABOVE_RANGE
    assert search.result().rate is None
    search = _small_search(lowest_rps=30)
    assert [wish.rate_rps for wish in _drive(search, _fixed(5000))] == [100, 50, 30]
    found = search.result()
    assert found.verdict is CapacityVerdict.BELOW_RANGE
    assert found.reason.startswith("30/s, the lowest rate, already fails: p99<1.00 µs: 5.00 of")


def test_undecided_trials_are_repeated_longer() -> None:
    """An interval on both sides of the limit is measured again, twice as long, a bounded time."""
    search = _small_search(highest_rps=100)
    wishes = _drive(search, _fixed(900, spread=0.5))
    assert [wish.length_ns for wish in wishes] == [NS // 4, NS, 2 * NS]
    assert wishes[1].why == "undecided: p99<1.00 µs: 0.90 of the limit, its interval on both sides"
    assert search.result().verdict is CapacityVerdict.ABOVE_RANGE


def test_no_number_at_all_ends_the_search() -> None:
    """A rate at which even the longest trial gives nothing is named."""
    search = _small_search()
    wishes = _drive(search, NotAvailable(reason="n/a (need >= 528)", n=3, n_needed=528))
    assert len(wishes) == 3
    found = search.result()
    assert found.verdict is CapacityVerdict.UNDECIDED
    assert found.reason == (
        "100/s stays undecided: p99<1.00 µs: n/a (need >= 528); use longer trials"
    )


def test_trials_are_bounded() -> None:
    """When they are used up the answer is the bracket as it is, and says so."""
    search = _small_search(trials_max=3)
    while (wish := search.next_trial) is not None:
        search.take(_outcome(wish, _fixed(10.0 if wish.rate_rps < 150 else 5000.0)))
    found = search.result()
    assert found.verdict is CapacityVerdict.TRIALS_USED
    assert found.rate is not None
    assert (found.rate.low, found.rate.high) == (pytest.approx(math.sqrt(20_000)), 200)
    assert found.measured_ns == NS // 4 + NS // 4 + NS


def test_failures_and_shortfall_break_an_objective() -> None:
    """A load that was not served breaks everything; a failed share counts like a percentile."""
    objectives = parse_objectives("p99<1us,failed<1%")
    good = {"p99": _fixed(10)}
    failing = TrialOutcome(rate_rps=1, estimates=good, failed=_fixed(0.05, spread=0.1))
    side, _, why = judge_trial(objectives, failing)
    assert (side, why) == (Side.BREAKS, "failed<1%: 5.00 of the limit")
    clean = TrialOutcome(rate_rps=1, estimates=good, failed=_fixed(0.0))
    assert judge_trial(objectives, clean)[0] is Side.KEEPS
    short = TrialOutcome(rate_rps=1, estimates=good, failed=_fixed(0.0), achieved_ratio=0.77)
    side, excess, why = judge_trial(objectives, short)
    assert (side, excess) == (Side.BREAKS, None)
    assert why == "beyond capacity: 77.0% of the offered requests ended"
    with pytest.raises(ValueError, match=r"gave no estimate for failed<1%"):
        judge_trial(objectives, TrialOutcome(rate_rps=1, estimates=good))


def test_misuse_is_refused() -> None:
    """Trials come in the order in which they were asked for, and the answer comes last."""
    search = _small_search()
    with pytest.raises(ValueError, match="the search goes on: first probe"):
        search.result()
    with pytest.raises(ValueError, match="a trial at 7/s where 100/s was asked"):
        search.take(TrialOutcome(rate_rps=7, estimates={}))
    _drive(search, _fixed(10))
    with pytest.raises(ValueError, match="the search is over"):
        search.take(TrialOutcome(rate_rps=400, estimates={}))
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
