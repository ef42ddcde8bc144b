"""The highest load that keeps an objective is found, in a fraction of a sweep's time."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import optimize

from seatrial.stats.capacity import (
    Capacity,
    CapacitySearch,
    CapacityVerdict,
    TrialWish,
    crossing,
    isotonic,
)
from seatrial.stats.capacity_trial import (
    STRETCHES_COUNT,
    TRIAL_CONFIDENCE,
    UNSERVED_SHARE_MAX,
    Judged,
    TrialOutcome,
    judge_backlog,
    judge_trial,
)
from seatrial.stats.counts import Counts, Floats
from seatrial.stats.objective import ShareJudgement, Side, judge_share, tail_effective
from seatrial.stats.target import Objective, parse_objectives
from seatrial.stats.validity import check_saturation
from tests.statistics.laws import at_least
from tests.statistics.queues import begun_queue, response_quantile

NS = 1_000_000_000
#: Requests a second that the simulated server can serve at most; one takes 100 us on average.
SERVED_RPS = 10_000
SERVICE_NS = 100_000.0


def _trial(
    rng: np.random.Generator,
    wish: TrialWish,
    objective: Objective,
    *,
    service: str,
    warm_up_s: float = 1,
) -> TrialOutcome:
    """What a load on a simulated M/G/1 server gives."""
    second = SERVED_RPS * wish.length_ns / NS
    due, done = begun_queue(
        rng,
        wish.rate_rps / SERVED_RPS,
        warm_up=SERVED_RPS * warm_up_s,
        length=second,
        service=service,
    )
    values = (done - due)[due >= 0] * SERVICE_NS
    if not values.size:
        nothing = judge_share(0, 0, allowed=0.01, effective=0, confidence=TRIAL_CONFIDENCE)
        return TrialOutcome(rate_rps=wish.rate_rps, shares={str(objective): nothing})
    effective = tail_effective(
        [Counts.of_values(values)],
        [0],
        q=objective.q or 0,
        limit=objective.limit,
        confidence=TRIAL_CONFIDENCE,
        series=values,
    )
    judged = judge_share(
        int((values >= objective.limit).sum()),
        values.size,
        allowed=objective.allowed_share,
        effective=effective,
        confidence=TRIAL_CONFIDENCE,
    )
    return TrialOutcome(
        rate_rps=wish.rate_rps,
        shares={str(objective): judged},
        points={objective.name: float(np.quantile(values, objective.q or 0))},
        backlog=_backlog(due, done, second),
    )


def _backlog(due: Floats, done: Floats, length: float) -> Side:
    """As a search has it: the rule of the verdict on a load, then whether that is certain."""
    before, after = (int((due < at).sum() - (done < at).sum()) for at in (length / 2, length))
    suspect = check_saturation(
        offered_count=int((due >= length / 2).sum()),
        backlog_before_count=before,
        backlog_after_count=after,
    )
    if suspect is None:
        return Side.KEEPS
    edges = np.linspace(0, length, STRETCHES_COUNT + 1)
    flows = [np.histogram(times, bins=edges)[0].astype(np.float64) for times in (due, done)]
    return judge_backlog(*flows)


def _holds(found: Capacity, truth: float) -> bool:
    """Whether the truth lies inside; an open end is beyond everything."""
    low, high = (None, None) if found.rate is None else (found.rate.low, found.rate.high)
    return (0 if low is None else low) <= truth <= (math.inf if high is None else high)


def _search(
    rng: np.random.Generator,
    objectives: tuple[Objective, ...],
    *,
    service: str,
    trial_ns: int,
    warm_up_s: float = 1,
) -> Capacity:
    search = CapacitySearch(
        objectives, start_rps=500, lowest_rps=100, highest_rps=20_000, trial_ns=trial_ns
    )
    while (wish := search.next_trial) is not None:
        search.take(_trial(rng, wish, objectives[0], service=service, warm_up_s=warm_up_s))
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
        hits += _holds(found, truth)
        measured_ns.append(found.measured_ns)
        assert len(found.trials) <= 32
    assert at_least(hits, runs, 0.95)
    sweep_ns = _sweep_ns(rng, objectives, service=service, trial_ns=trial_ns)
    assert np.median(measured_ns) <= sweep_ns / 3


def test_short_trials_do_not_miss_the_truth() -> None:
    """At 300 to 800 requests a trial ends in a busy moment often: that decides nothing."""
    objectives = parse_objectives("p90<1ms")
    truth = SERVED_RPS - math.log(10) / 0.001
    rng = np.random.default_rng(4)
    for trial_ns in (30_000_000, 100_000_000):
        runs = 100
        found = [
            _search(rng, objectives, service="M", trial_ns=trial_ns, warm_up_s=0.1)
            for _ in range(runs)
        ]
        assert at_least(sum(_holds(one, truth) for one in found), runs, 0.95)
        ended = [one for one in found if one.verdict is CapacityVerdict.FOUND]
        assert at_least(sum(_holds(one, truth) for one in ended), len(ended), 0.95)
        for one in found:
            tried = {trial.rate_rps for trial in one.trials}
            ends = () if one.rate is None else (one.rate.low, one.rate.high)
            assert tried.issuperset(end for end in ends if end is not None)
            is_open = one.rate is None or None in ends
            assert not (is_open and one.verdict is CapacityVerdict.FOUND)


def _fixed(low: float, high: float, *, allowed: float = 0.01) -> ShareJudgement:
    """A share of one in between, whose interval is given; twice as many requests would decide."""
    return ShareJudgement(
        requests_count=1000,
        over_count=round(1000 * (low + high) / 2),
        effective=1e6,
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
        "1 rate stays undecided, longer trials decide more: --duration 5.28s"
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
        "decide more: --duration 44.0s"
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


def test_failures_and_shortfall_break_an_objective() -> None:
    """A load that was not served breaks everything; a failed share counts like a percentile."""
    objectives = parse_objectives("p99<1us,failed<1%")
    good = {"p99<1.00 µs": KEPT}

    def trial(
        failed: tuple[float, float] | None, *, unserved: tuple[float, float] = (0, 0)
    ) -> TrialOutcome:
        shares = good if failed is None else {**good, "failed<1%": _fixed(*failed)}
        points = {"p99": 10.0}
        lost = _fixed(*unserved, allowed=UNSERVED_SHARE_MAX)
        return TrialOutcome(rate_rps=1, shares=shares, points=points, unserved=lost)

    side, _, why = judge_trial(objectives, trial((0.04, 0.06)))
    assert side is Side.BREAKS
    assert why == "failed<1%: 5.00 of the limit, 5% over it [4%, 6%], 1% allowed"
    assert judge_trial(objectives, trial((0, 0.001)))[0] is Side.KEEPS
    side, excess, why = judge_trial(objectives, trial((0, 0.001), unserved=(0.2, 0.26)))
    assert (side, excess) == (Side.BREAKS, None)
    assert why == "beyond capacity: 77.0% of the requests got a correct reply"
    side, _, why = judge_trial(objectives, trial((0, 0.001), unserved=(0.001, 0.04)))
    assert side is Side.UNDECIDED
    assert why.endswith("1% allowed; but 2.0% of the requests got no correct reply")
    with pytest.raises(ValueError, match=r"says nothing about failed<1%"):
        judge_trial(objectives, trial(None))


def test_a_backlog_breaks_only_for_certain() -> None:
    """One busy moment at the end of a trial is not the same as a queue that grows throughout."""
    steady = np.full(STRETCHES_COUNT, 10.0)
    busy = steady - np.array([0, 0, 0, 0, 0, 0, 0, 0, 9, 9])
    doubt = judge_backlog(steady, busy)
    assert doubt is Side.UNDECIDED
    assert judge_backlog(steady, steady + 0.1) is Side.KEEPS
    assert judge_backlog(steady, steady / 2) is Side.BREAKS
    # Three requests more, however evenly they came, may be chance.
    assert judge_backlog(steady, steady - 0.3) is Side.UNDECIDED
    objectives = parse_objectives("p99<1us")

    def judged(backlog: Side, share: ShareJudgement) -> tuple[Side, float | None, str]:
        shares = {"p99<1.00 µs": share}
        outcome = TrialOutcome(rate_rps=1, shares=shares, points={"p99": 10.0}, backlog=backlog)
        return judge_trial(objectives, outcome)

    side, excess, why = judged(Side.UNDECIDED, KEPT)
    assert side is Side.UNDECIDED
    assert excess == pytest.approx(math.log(0.01))
    assert why.endswith("; but the number of unanswered requests may have grown")
    assert judged(Side.UNDECIDED, BROKEN)[0] is Side.BREAKS
    assert judged(Side.BREAKS, KEPT) == (
        Side.BREAKS,
        None,
        "beyond capacity: the number of unanswered requests grew",
    )


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
