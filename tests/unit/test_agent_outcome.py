"""What several agents found becomes one outcome, stretch by stretch."""

from __future__ import annotations

import dataclasses
import functools
import itertools

from seatrial.agents.outcome import IntervalOutcome, LoadOutcome
from seatrial.loadtest.perform import offer
from seatrial.loadtest.settings import LoadTestSettings
from seatrial.loadtest.target import parse_target

STRETCH_NS = 100_000_000


def outcome() -> LoadOutcome:
    """A load whose measure phase begins with its fourth stretch."""
    settings = LoadTestSettings(
        target=parse_target(["fake://?service=constant:1ms"]),
        rate_rps=500.0,
        warm_up_ns=3 * STRETCH_NS,
        duration_ns=8 * STRETCH_NS,
    )
    return offer(settings, settings.request()).whole


def in_pairs(fine: LoadOutcome) -> tuple[IntervalOutcome, ...]:
    """Its stretches twice as long, as an engine has them whose replies scatter widely."""

    def pair(one: IntervalOutcome) -> int:
        return (one.start_ns - fine.measure_start_ns) // (2 * STRETCH_NS)

    groups = itertools.groupby(fine.intervals, key=pair)
    return tuple(functools.reduce(IntervalOutcome.merged, group) for _, group in groups)


def test_stretches_of_different_lengths_are_put_together_by_time() -> None:
    """All agents count from the begin of the measure phase, so longer stretches hold whole ones."""
    fine = outcome()
    wide = in_pairs(fine)
    assert fine.measure_start_ns - fine.started_at_ns == 3 * STRETCH_NS
    assert len(fine.intervals) > len(wide) > 4
    merged = LoadOutcome.merged([fine, dataclasses.replace(fine, intervals=wide)]).intervals
    assert [(one.start_ns, one.end_ns) for one in merged] == [
        (one.start_ns, one.end_ns) for one in wide
    ]
    assert [one.ok_count for one in merged] == [2 * one.ok_count for one in wide]
