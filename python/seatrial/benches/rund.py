"""RunD's three experiments, for results that were imported: their numbers as their scripts say.

``makespan`` and ``latency`` are two numbers under two names: RunD's tables hold the first, and
their text calls it by the second. The rounds of a cell take the place of blocks, since nothing was
interleaved. METHODOLOGY 11 has the formulas.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from seatrial.benches.base import Samples
from seatrial.errors import ConfigError
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, Metric
from seatrial.stats.rounds import (
    Rounds,
    first_round_ratio,
    is_first_round_outlier,
    round_trend,
    rounds_of,
)
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.benches.base import BenchTrial, TrialContext
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment
    from seatrial.model.plan import Point


def _span(name: str, meaning: str, method: str) -> Metric:
    return Metric(name=name, unit="ns", direction=Direction.LOWER, meaning=meaning, method=method)


STARTS = (
    _span(
        "rund.makespan_mean",
        "Mean over rounds of: first client began to last client saw its sandbox ready",
        "max(ready_at) - min(began_at), each whole round",
    ),
    _span(
        "rund.latency_mean",
        "Mean of what one client waited for its own sandbox, process starts and polling included",
        "mean of ready_at - began_at, each whole round; then over rounds",
    ),
    _span(
        "rund.latency",
        "What one client waited for its own sandbox, process starts and polling included",
        "ready_at - began_at, each start of a whole round; rounds stand for blocks",
    ),
    _span(
        "rund.p99_lower_mean",
        "Mean over rounds of the round's own 99th percentile, not interpolated",
        "rank floor(0.99 * (n - 1)) from 0 of ready_at - began_at, each whole round",
    ),
    _span(
        "rund.host_cpu_mean",
        "CPU time of the whole host during a round for each sandbox: the tool's own and that of "
        "sandboxes in the background included",
        "busy_ticks / user_hz / concurrency, each round",
    ),
    Metric(
        name="rund.amplification",
        unit="times",
        direction=Direction.LOWER,
        meaning="How many times as long a round takes beside so many idle sandboxes",
        method="rund.makespan_mean / rund.makespan_mean with the fewest idle ones",
    ),
)
MEMORY = (
    Metric(
        name="rund.memory_pss_mean",
        unit="bytes",
        direction=Direction.LOWER,
        meaning="PSS of one sandbox's processes, once; kernel memory and page cache left out",
        method="sum of PSS over the table / count",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RundBench:
    """One of the three experiments; it reads stored rows and can run nothing."""

    name: str
    question: str
    headline: str
    metrics: tuple[Metric, ...]

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns 0: nothing will run."""
        del experiment, point, cost
        return 0

    def open(self, context: TrialContext) -> BenchTrial:
        """Refuses.

        Raises:
            ConfigError: always; the run's numbers were made elsewhere.
        """
        raise ConfigError(
            f"{context.spec.trial_id}: {self.name} was imported and cannot be run",
            hint="import the logs again; to measure the same here, use the presets rund-time, "
            "rund-density and rund-mem",
            code="imported-only",
        )

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples; see STARTS and MEMORY for each formula."""
        processes = tables.get("rund_processes")
        if processes is not None:
            total_bytes = float(processes["pss_bytes"].sum())
            value = total_bytes / int(point.values["count"])
            return (Samples(metric="rund.memory_pss_mean", values=(value,)),)
        return derive_starts(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns whether the rounds are alike."""
        rounds = _rounds(tables, point)
        return () if rounds is None else judge_rounds(rounds)


def _rounds(tables: Mapping[str, pl.DataFrame], point: Point) -> Rounds | None:
    starts = tables.get("rund_starts")
    if starts is None or not starts.height:
        return None
    rounds = rounds_of(
        starts["round"].to_numpy(),
        starts["began_at_ns"].to_numpy(),
        starts["ready_at_ns"].to_numpy(),
        members=int(point.values["concurrency"]),
    )
    return rounds if rounds.numbers.size else None


def derive_starts(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns the samples of one cell of starts, each with the round that it is of."""
    found: list[Samples] = []
    rounds = _rounds(tables, point)
    if rounds is not None:
        starts = tables["rund_starts"]
        numbers = rounds.numbers.tolist()
        for name, values in (
            ("rund.makespan_mean", rounds.makespans_ns),
            ("rund.latency_mean", rounds.means_ns),
            ("rund.p99_lower_mean", rounds.lower_p99_ns),
        ):
            found.append(Samples(metric=name, values=values.tolist(), blocks=numbers))
        whole = starts.filter(starts["round"].is_in(numbers))
        found.append(
            Samples(
                metric="rund.latency",
                values=(whole["ready_at_ns"] - whole["began_at_ns"]).to_list(),
                blocks=whole["round"].to_list(),
            )
        )
    cpu = tables.get("rund_cpu")
    if cpu is not None and cpu.height:
        spent_ns = cpu["busy_ticks"] * NS_PER_S / cpu["user_hz"] / point.values["concurrency"]
        found.append(
            Samples(
                metric="rund.host_cpu_mean",
                values=spent_ns.to_list(),
                blocks=cpu["round"].to_list(),
            )
        )
    return tuple(found)


def judge_rounds(rounds: Rounds) -> tuple[Finding, ...]:
    """Returns a finding for makespans with a trend, and one for a first round unlike them."""
    found: list[Finding] = []
    trend = round_trend(rounds.makespans_ns)
    if trend is not None and trend.is_drifting:
        found.append(
            Finding(
                code="drifting",
                severity=Severity.WARNING,
                message=f"makespans change by {trend.change_ratio:+.1%} over "
                f"{rounds.numbers.size} rounds (t {trend.t:.1f}): their mean is of no steady state",
                evidence={
                    "change_ratio": trend.change_ratio,
                    "t": float(np.clip(trend.t, -1e9, 1e9)),
                    "kendall_z": trend.kendall_z,
                },
            )
        )
    ratio = first_round_ratio(rounds.makespans_ns)
    if ratio is not None and is_first_round_outlier(ratio):
        found.append(
            Finding(
                code="first-round-outlier",
                severity=Severity.WARNING,
                message=f"the first round took {ratio:.2f} of the median round",
                evidence={"first_round_ratio": ratio},
            )
        )
    return tuple(found)


RUND_BENCHES = (
    RundBench(
        name="rund-time",
        question="RunD's logs: how long do N sandboxes take that are started at once?",
        headline="rund.makespan_mean",
        metrics=STARTS,
    ),
    RundBench(
        name="rund-density",
        question="RunD's logs: how long do N more take beside D that idle?",
        headline="rund.makespan_mean",
        metrics=STARTS,
    ),
    RundBench(
        name="rund-mem",
        question="RunD's logs: what memory does one of N idle sandboxes hold?",
        headline="rund.memory_pss_mean",
        metrics=MEMORY,
    ),
)
