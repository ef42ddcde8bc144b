"""The highest load that keeps an objective is found, in a fraction of a sweep's time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize

from seatrial.stats.capacity import (
    Capacity,
    CapacitySearch,
    CapacityVerdict,
    TrialWish,
)
from seatrial.stats.capacity_trial import (
    STRETCHES_COUNT,
    TRIAL_CONFIDENCE,
    TrialOutcome,
    judge_backlog,
    judge_trial,
)
from seatrial.stats.counts import Counts, Floats
from seatrial.stats.objective import Side, judge_share, tail_effective
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
