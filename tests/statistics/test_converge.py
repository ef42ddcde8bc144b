"""Runs end when their interval is narrow enough, cover then, and say why if they cannot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.model.estimate import Estimate
from seatrial.stats.converge import (
    Convergence,
    ConvergeVerdict,
    CorrectionReason,
    Decision,
    Snapshot,
)
from seatrial.stats.counts import Counts, Floats
from seatrial.stats.target import WidthTarget, parse_width_targets
from tests.statistics.queues import response_quantile, response_times

if TYPE_CHECKING:
    from collections.abc import Callable

MS = 1_000_000
INTERVAL_NS = 100 * MS
#: Values of one interval, at 1000 a second.
INTERVAL_COUNT = 100


def _intervals(values: Floats) -> list[Counts]:
    """Response times with a mean of 1 ms for a mean of 1, as histograms of intervals."""
    scaled = np.round(values * 1000) * 1000
    return [Counts.of_values(part) for part in np.split(scaled, values.size // INTERVAL_COUNT)]


def _run(controller: Convergence, intervals: list[Counts]) -> tuple[Decision, int]:
    """Feeds one snapshot an interval, as a load that goes on would; gives the number it took."""
    for count in range(1, len(intervals) + 1):
        elapsed_ns = count * INTERVAL_NS
        if elapsed_ns < controller.next_look_ns:
            continue
        decision = controller.look(Snapshot(elapsed_ns=elapsed_ns, intervals=intervals[:count]))
        if decision.is_done:
            return decision, count
    end = Snapshot(elapsed_ns=len(intervals) * INTERVAL_NS, intervals=intervals)
    return controller.finish(end), len(intervals)


@pytest.mark.parametrize(
    ("draw", "truth", "text", "runs"),
    [
        (lambda rng: rng.exponential(size=30_000), -math.log(0.01), "p99=10%", 200),
        (
            lambda rng: response_times(rng, 60_000, load=0.3, service="M"),
            response_quantile(0.99, load=0.3, service="M"),
            "p99=15%",
            300,
        ),
    ],
    ids=["independent", "M/M/1 0.3"],
)
def test_coverage_at_the_stop(
    draw: Callable[[np.random.Generator], Floats], truth: float, text: str, runs: int
) -> None:
    """R20: it converges on a known server, and the interval it stopped at covers in >= 93 %."""
    rng = np.random.default_rng(20)
    hits = 0
    for _ in range(runs):
        intervals = _intervals(draw(rng))
        controller = Convergence(
            parse_width_targets(text),
            first_look_ns=20 * INTERVAL_NS,
            budget_ns=len(intervals) * INTERVAL_NS,
        )
        decision, _ = _run(controller, intervals)
        assert decision.verdict is ConvergeVerdict.CONVERGED, decision.reason
        found = decision.estimates["p99"]
        assert isinstance(found, Estimate)
        assert found.high - found.low <= 0.15 * found.point
        hits += found.low <= truth * MS <= found.high
    assert hits >= 0.93 * runs


def test_corrections_are_events_with_their_numbers() -> None:
    """R21: each extension says why, from which length to which, with how many values."""
    intervals = _intervals(np.random.default_rng(21).exponential(size=40_000))
    controller = Convergence(
        parse_width_targets("p99=10%"), first_look_ns=3 * INTERVAL_NS, budget_ns=40_000 * MS
    )
    decision, _ = _run(controller, intervals)
    assert decision.verdict is ConvergeVerdict.CONVERGED
    assert "p99=10% reached after" in decision.reason
    events = controller.events
    assert events[0].reason is CorrectionReason.TOO_FEW
    assert (events[0].at_ns, events[0].samples_count, events[0].width_ns) == (300 * MS, 300, None)
    wide = events[-1]
    assert wide.reason is CorrectionReason.TOO_WIDE
    assert wide.target == "p99=10%"
    assert wide.width_ns is not None
    assert wide.allowed_ns is not None
    assert wide.width_ns > wide.allowed_ns
    assert wide.needed_ns == math.ceil(wide.at_ns * (wide.width_ns / wide.allowed_ns) ** 2)
    for event in events:
        growth = event.new_duration_ns / event.at_ns
        assert 1.25 <= growth <= 2.0
    assert len(events) <= math.log(400 / 3) / math.log(1.25)


def test_late_looks_have_their_own_instants() -> None:
    """Planned lengths follow each other; the instant of a decision is that of its look."""
    intervals = _intervals(np.random.default_rng(21).exponential(size=40_000))
    controller = Convergence(
        parse_width_targets("p99=10%"), first_look_ns=4 * INTERVAL_NS, budget_ns=40_000 * MS
    )
    late, planned_ns, looks = 2, controller.next_look_ns, []
    decision = None
    while decision is None or not decision.is_done:
        count = -(-controller.next_look_ns // INTERVAL_NS) + late
        looks.append(count * INTERVAL_NS)
        snapshot = Snapshot(elapsed_ns=looks[-1], intervals=intervals[:count])
        decision = controller.look(snapshot)
        assert decision.at_ns == looks[-1]
    assert [event.at_ns for event in controller.events] == looks[:-1]
    for event in controller.events:
        assert event.old_duration_ns == planned_ns <= event.at_ns < event.new_duration_ns
        planned_ns = event.new_duration_ns
    assert controller.finish(Snapshot(elapsed_ns=10**12, intervals=intervals)).at_ns == looks[-1]


def test_a_load_that_nobody_looked_at_says_so() -> None:
    """A modelled server may be through before the first look; that is an extension, too."""
    intervals = _intervals(np.random.default_rng(24).exponential(size=5000))
    controller = Convergence(
        parse_width_targets("p99=0.5%"), first_look_ns=20 * INTERVAL_NS, budget_ns=50 * INTERVAL_NS
    )
    decision = controller.finish(Snapshot(elapsed_ns=50 * INTERVAL_NS, intervals=intervals))
    assert (decision.verdict, decision.at_ns) == (ConvergeVerdict.BUDGET, 50 * INTERVAL_NS)
    told = [
        (str(event.reason), event.at_ns, event.old_duration_ns, event.new_duration_ns)
        for event in controller.events
    ]
    second = 10 * INTERVAL_NS
    assert told == [
        ("not-looked-at", 2 * second, 2 * second, 5 * second),
        ("interval-too-wide", 5 * second, 5 * second, 5 * second),
    ]
    assert controller.events[0].samples_count is None


def test_between_looks_nothing_is_looked_at() -> None:
    """However often it is asked: only the schedule decides when the interval is looked at."""
    controller = Convergence(
        parse_width_targets("p50=100%"), first_look_ns=10 * INTERVAL_NS, budget_ns=10**11
    )
    intervals = _intervals(np.random.default_rng(22).exponential(size=1000))
    early = controller.look(Snapshot(elapsed_ns=9 * INTERVAL_NS, intervals=intervals[:9]))
    assert (early.verdict, dict(early.estimates)) == (None, {})
    assert early.reason == "next look after 1.00 s"
    done = controller.look(Snapshot(elapsed_ns=10 * INTERVAL_NS, intervals=intervals))
    assert done.verdict is ConvergeVerdict.CONVERGED
    again = controller.look(Snapshot(elapsed_ns=11 * INTERVAL_NS, intervals=intervals))
    assert again is done
    assert controller.finish(Snapshot(elapsed_ns=12 * INTERVAL_NS, intervals=intervals)) is done


def test_out_of_reach_is_told_early_and_how_long_it_would_take() -> None:
    """0.5 % would take far more than twice the budget: IMPOSSIBLE, long before the budget ends."""
    intervals = _intervals(np.random.default_rng(23).exponential(size=40_000))
    controller = Convergence(
        parse_width_targets("p99=0.5%"), first_look_ns=20 * INTERVAL_NS, budget_ns=40_000 * MS
    )
    decision, count = _run(controller, intervals)
    assert decision.verdict is ConvergeVerdict.IMPOSSIBLE
    assert count <= 60
    assert "p99=0.5% would take about" in decision.reason
    assert "the budget is 40.0 s" in decision.reason
    event = controller.events[-1]
    assert event.reason is CorrectionReason.OUT_OF_REACH
    assert event.needed_ns is not None
    assert event.needed_ns > 2 * 40_000 * MS
    assert event.new_duration_ns == event.old_duration_ns


def test_budget() -> None:
    """Within twice the budget hope remains, and the end of the budget ends it."""
    intervals = _intervals(np.random.default_rng(24).exponential(size=4000))
    controller = Convergence(
        parse_width_targets("p99=10%,p50=100%"),
        first_look_ns=20 * INTERVAL_NS,
        budget_ns=40 * INTERVAL_NS,
    )
    decision, count = _run(controller, intervals)
    assert decision.verdict is ConvergeVerdict.BUDGET
    assert count == 40
    assert "the budget is 4.00 s" in decision.reason
    assert set(decision.estimates) == {"p99", "p50"}


def test_a_load_that_ends_early_gets_a_verdict() -> None:
    """Whatever ended it, what it gave is judged."""
    intervals = _intervals(np.random.default_rng(25).exponential(size=1000))
    controller = Convergence(
        parse_width_targets("p99.9=1us"), first_look_ns=10 * INTERVAL_NS, budget_ns=10**12
    )
    decision = controller.finish(Snapshot(elapsed_ns=5 * INTERVAL_NS, intervals=intervals[:5]))
    assert decision.verdict is ConvergeVerdict.BUDGET
    assert "n/a (need >= 4044) with 500 values" in decision.reason


def test_saturation_ends_it() -> None:
    """R20: on a saturated server no length helps, so it ends at once."""
    intervals = _intervals(np.linspace(1, 50, 3000))
    controller = Convergence(
        parse_width_targets("p99=2%"), first_look_ns=100 * INTERVAL_NS, budget_ns=10**12
    )
    snapshot = Snapshot(elapsed_ns=30 * INTERVAL_NS, intervals=intervals, is_saturated=True)
    decision = controller.look(snapshot)
    assert decision.verdict is ConvergeVerdict.IMPOSSIBLE
    assert "saturated" in decision.reason
    assert [event.reason for event in controller.events] == [CorrectionReason.SATURATED]
    assert controller.events[0].needed_ns is None


def test_finer_than_a_histogram_can_tell() -> None:
    """A width below 0.2 % of the value is the histogram's own, however long one measures."""
    intervals = _intervals(np.random.default_rng(26).exponential(size=5000))
    controller = Convergence(
        parse_width_targets("p50=1us"), first_look_ns=20 * INTERVAL_NS, budget_ns=10**12
    )
    decision, _ = _run(controller, intervals)
    assert decision.verdict is ConvergeVerdict.IMPOSSIBLE
    assert controller.events[-1].reason is CorrectionReason.RESOLUTION
    assert "0.2%" in decision.reason


def test_bad_settings_are_refused() -> None:
    """A controller without a target or with a look beyond its budget is a bug of the caller."""
    target = WidthTarget(name="p99", q=0.99, width_ratio=0.02)
    with pytest.raises(ValueError, match="no target"):
        Convergence([], first_look_ns=1, budget_ns=1)
    with pytest.raises(ValueError, match="within the second"):
        Convergence([target], first_look_ns=2, budget_ns=1)
