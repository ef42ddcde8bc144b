"""Finds the highest rate at which a service keeps its objectives, by trials against it.

Each trial is a load of its own, at a constant rate and with its own warm-up; the search itself is
`seatrial.stats.capacity`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import polars as pl

from seatrial.errors import ConfigError
from seatrial.loadtest.judge import LOST_OUTCOMES, evidence_of
from seatrial.loadtest.objectives import judge
from seatrial.loadtest.perform import offer
from seatrial.loadtest.redact import without_passwords, without_secrets
from seatrial.stats.capacity import Capacity, CapacitySearch
from seatrial.stats.capacity_trial import (
    STRETCHES_COUNT,
    TRIAL_CONFIDENCE,
    UNSERVED_SHARE_MAX,
    TrialOutcome,
    judge_backlog,
)
from seatrial.stats.objective import Side
from seatrial.stats.target import Objective, parse_objectives
from seatrial.stats.verdict import judge_load_run

if TYPE_CHECKING:
    from seatrial.agents.outcome import LoadOutcome
    from seatrial.loadtest.perform import Found
    from seatrial.loadtest.settings import LoadTestSettings
    from seatrial.stats.capacity import TrialWish
    from seatrial.stats.capacity_trial import Judged
    from seatrial.stats.counts import Floats

#: How far below and above the first rate the search goes.
RANGE_FACTOR: Final = 1_000.0
RATE_RPS_MAX: Final = 50_000_000.0
#: What makes a load one beyond capacity, whatever the objectives are.
UNSERVED: Final = Objective(name="failed", q=None, limit=UNSERVED_SHARE_MAX)


class SearchView(Protocol):
    """Something that shows a search while it runs."""

    def begin(self, wish: TrialWish) -> None:
        """Shows that a trial begins."""

    def end(self, judged: Judged) -> None:
        """Shows what a trial decided."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CapacityResult:
    """The answer of a search, and the judgements on its trials, by their numbers."""

    url: str
    protocol: str
    options: dict[str, str]
    """Settings of the protocol, as they were given."""
    objectives: tuple[str, ...]
    capacity: Capacity
    # {number of the trial, from 0: codes of what spoke against it}
    doubts: dict[str, tuple[str, ...]]


def find_capacity(settings: LoadTestSettings, *, view: SearchView | None = None) -> CapacityResult:
    """Searches; `settings.rate_rps` is where it begins, `settings.duration_ns` how long a trial is.

    Ctrl-C ends the search; the answer says so and has the trials that had ended.

    Raises:
        ConfigError: a setting cannot be meant, or there is no rate to begin with.
        TrialFailed: the service turned connections away before a load began.
    """
    settings.check()
    objectives = [one for text in settings.objectives for one in parse_objectives(text)]
    start_rps = settings.rate_rps
    if start_rps is None:
        raise ConfigError("a search for capacity needs a rate to begin with", hint="give --rate")
    search = CapacitySearch(
        objectives,
        start_rps=start_rps,
        lowest_rps=start_rps / RANGE_FACTOR,
        highest_rps=min(RATE_RPS_MAX, start_rps * RANGE_FACTOR),
        trial_ns=settings.duration_ns,
    )
    doubts: dict[str, tuple[str, ...]] = {}
    try:
        _search(search, settings, objectives, doubts, view)
    except KeyboardInterrupt:
        # The trial that was cut short decides nothing; those before it stand.
        capacity = search.interrupted()
    else:
        capacity = search.result()
    return CapacityResult(
        url=without_passwords(settings.target.text),
        protocol=settings.target.protocol,
        options=dict(without_secrets(settings.request()).options),
        objectives=tuple(str(one) for one in objectives),
        capacity=capacity,
        doubts=doubts,
    )


def _search(
    search: CapacitySearch,
    settings: LoadTestSettings,
    objectives: list[Objective],
    doubts: dict[str, tuple[str, ...]],
    view: SearchView | None,
) -> None:
    """Makes every trial that is asked for, and notes what spoke against it."""
    number = 0
    while (wish := search.next_trial) is not None:
        if view is not None:
            view.begin(wish)
        trial = dataclasses.replace(
            settings,
            rate_rps=wish.rate_rps,
            duration_ns=wish.length_ns,
            seed=settings.seed + number,
        )
        found = offer(trial, trial.request())
        if found.whole.was_interrupted:
            raise KeyboardInterrupt
        verdict = judge_load_run(evidence_of(found.loading, trial, None))
        if not verdict.is_ok:
            doubts[str(number)] = verdict.codes
        judged = search.take(_told(found, wish.rate_rps, objectives, verdict.codes))
        if view is not None:
            view.end(judged)
        number += 1


def _told(
    found: Found, rate_rps: float, objectives: list[Objective], codes: tuple[str, ...]
) -> TrialOutcome:
    loading, measuring = found.loading, found.measuring
    by_time = {one.name: one.q for one in objectives if one.q is not None}
    points = {name: _time_ns(measuring, share) for name, share in by_time.items()}
    return TrialOutcome(
        rate_rps=rate_rps,
        shares={str(one): judge(measuring, one, confidence=TRIAL_CONFIDENCE) for one in objectives},
        points={name: float(ns) for name, ns in points.items() if ns is not None},
        unserved=judge(loading, UNSERVED, confidence=TRIAL_CONFIDENCE),
        # The verdict's rule is for a warning: a busy moment at the end of a short trial is enough.
        backlog=judge_backlog(*_flows(loading)) if "saturated" in codes else Side.KEEPS,
    )


def _time_ns(outcome: LoadOutcome, share: float) -> int | None:
    """A percentile of all that were due, of which failed ones are slower than any.

    None: it is that of a failed one, so there is no time.
    """
    response, due_count = outcome.histograms["response"], outcome.measured.intended_count
    if share * due_count > response.count:
        return None
    return response.quantile(share * due_count / response.count) if response.count else None


def _flows(outcome: LoadOutcome) -> tuple[Floats, Floats]:
    """Requests that came due and that ended in stretches of the measure phase.

    Like the verdict on a load: a service that is gone refuses at once, which is no backlog.
    """
    is_lost = pl.col("outcome").is_in(LOST_OUTCOMES) & pl.col("done_at_ns").is_null()
    records = outcome.records.filter(~is_lost)
    edges = np.linspace(outcome.measure_start_ns, outcome.measure_end_ns, STRETCHES_COUNT + 1)
    flows = [
        np.histogram(records[name].drop_nulls().to_numpy(), bins=edges)[0].astype(np.float64)
        for name in ("intended_at_ns", "done_at_ns")
    ]
    return flows[0] * outcome.records_stride, flows[1] * outcome.records_stride
