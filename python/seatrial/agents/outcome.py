"""What a load found out, of one process or merged from many: counts add up, histograms merge.

Nothing is averaged over agents. A percentile of the merged histogram is what one process would have
found that had offered the whole load.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import polars as pl

from seatrial.loadgen import Histogram, merge_histograms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from seatrial.loadgen import Counts, Interval, LoadResult

#: Histograms of a load, by what they are of; each is ``<name>_histogram`` of a `LoadResult`.
HISTOGRAMS: Final = (
    "response",
    "service",
    "send_lag",
    "pacing_lag",
    "queue",
    "connect",
    "wire",
    "wake",
)
#: What an interval has beside its histogram; all but the two instants add up.
PLAIN_OF_INTERVAL: Final = (
    "start_ns",
    "end_ns",
    "intended_count",
    "sent_count",
    "ok_count",
    "failed_count",
    "sent_bytes",
    "received_bytes",
)
#: What is kept of the time stamps that were used.
TIMESTAMP_FACTS: Final = (
    "requested",
    "used",
    "reason",
    "matched_count",
    "missing_count",
    "clock_uncertainty_ns",
)
#: Names of the outcomes of requests, by their number in the records.
OUTCOMES: Final = (
    "ok",
    "timeout",
    "refused",
    "reset",
    "protocol-error",
    "application-error",
    "unsent",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Requests by how they ended; `intended_count` is the sum of all outcomes."""

    intended_count: int = 0
    sent_count: int = 0
    ok_count: int = 0
    timeout_count: int = 0
    refused_count: int = 0
    reset_count: int = 0
    protocol_error_count: int = 0
    application_error_count: int = 0
    unsent_count: int = 0

    @classmethod
    def of(cls, counts: Counts) -> Tally:
        """Returns the core's counts."""
        return cls(**{field.name: getattr(counts, field.name) for field in dataclasses.fields(cls)})

    @property
    def failed_count(self) -> int:
        """All outcomes but ok."""
        return self.intended_count - self.ok_count

    def __add__(self, other: Tally) -> Tally:
        """Counts of both together."""
        names = [field.name for field in dataclasses.fields(self)]
        return Tally(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IntervalOutcome:
    """What happened in one stretch of time, by completion, whenever its requests were due."""

    start_ns: int
    end_ns: int
    intended_count: int
    sent_count: int
    ok_count: int
    failed_count: int
    sent_bytes: int
    received_bytes: int
    response: Histogram

    @classmethod
    def of(cls, interval: Interval) -> IntervalOutcome:
        """Returns the core's interval."""
        plain = {name: getattr(interval, name) for name in PLAIN_OF_INTERVAL}
        return cls(response=interval.response_histogram, **plain)

    def merged(self, other: IntervalOutcome) -> IntervalOutcome:
        """Returns what both found in the same stretch, or in two that are next to each other."""
        summed = PLAIN_OF_INTERVAL[2:]
        return IntervalOutcome(
            start_ns=min(self.start_ns, other.start_ns),
            end_ns=max(self.end_ns, other.end_ns),
            response=self.response.merge(other.response),
            **{name: getattr(self, name) + getattr(other, name) for name in summed},
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetOutcome:
    """What one of several servers answered in the measure phase."""

    target: str
    measured: Tally
    # Correct replies that came in the measure phase, whenever their request was due.
    achieved_count: int
    response: Histogram


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """How one process offered its part: what may have shaped its numbers."""

    name: str
    threads_count: int
    connections_count: int
    wait: str
    guard_ns: int | None
    cpus_seen: tuple[int, ...]
    user_ns: int
    system_ns: int
    voluntary_switch_count: int
    involuntary_switch_count: int
    started_at_ns: int
    ended_at_ns: int
    # Which clock stamped, why it is not the one that was asked for, and how many stamps failed.
    timestamps: Mapping[str, str | int | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadOutcome:
    """What a load found out. Instants in ns of CLOCK_MONOTONIC; histograms of the measure phase."""

    started_at_ns: int
    measure_start_ns: int
    measure_end_ns: int
    # Until when replies count as achieved: the end of the measure phase; where the requests ran
    # out before it, the last correct reply.
    counted_until_ns: int
    ended_at_ns: int
    # Of all phases, and of the measure phase alone.
    counts: Tally
    measured: Tally
    # (outcome, text, count), the most frequent first.
    failures: tuple[tuple[str, str, int], ...]
    histograms: Mapping[str, Histogram]
    intervals: tuple[IntervalOutcome, ...]
    targets: tuple[TargetOutcome, ...]
    # A systematic sample of the requests: every `records_stride`-th, with the agent's number;
    # empty if none were to be kept.
    records: pl.DataFrame
    records_stride: int
    sent_bytes: int
    received_bytes: int
    achieved_count: int
    queued_count: int
    late_reply_count: int
    resent_count: int
    agents: tuple[AgentFacts, ...]
    was_interrupted: bool
    was_finished_early: bool

    @classmethod
    def of(cls, result: LoadResult, *, name: str, threads: int, connections: int) -> LoadOutcome:
        """Returns what one process found."""
        facts = AgentFacts(
            name=name,
            threads_count=threads,
            connections_count=connections,
            wait=result.wait,
            guard_ns=result.guard_ns,
            cpus_seen=tuple(result.cpus_seen),
            user_ns=result.generator_user_ns,
            system_ns=result.generator_system_ns,
            voluntary_switch_count=result.voluntary_switch_count,
            involuntary_switch_count=result.involuntary_switch_count,
            started_at_ns=result.started_at_ns,
            ended_at_ns=result.ended_at_ns,
            timestamps={name: getattr(result.timestamps, name) for name in TIMESTAMP_FACTS},
        )
        return cls(
            started_at_ns=result.started_at_ns,
            measure_start_ns=result.measure_start_ns,
            measure_end_ns=result.measure_end_ns,
            counted_until_ns=result.counted_until_ns,
            ended_at_ns=result.ended_at_ns,
            counts=Tally.of(result.counts),
            measured=Tally.of(result.measured),
            failures=tuple((OUTCOMES[kind], text, n) for kind, text, n in result.failures),
            histograms={kind: getattr(result, f"{kind}_histogram") for kind in HISTOGRAMS},
            intervals=tuple(IntervalOutcome.of(interval) for interval in result.intervals),
            targets=tuple(
                TargetOutcome(
                    target=target.target,
                    measured=Tally.of(target.counts),
                    achieved_count=target.achieved_count,
                    response=target.response_histogram,
                )
                for target in result.targets
            ),
            records=pl.DataFrame(result).with_columns(agent=pl.lit(0, dtype=pl.UInt16)),
            records_stride=result.records_stride or 1,
            sent_bytes=result.sent_bytes,
            received_bytes=result.received_bytes,
            achieved_count=result.achieved_count,
            queued_count=result.queued_count,
            late_reply_count=result.late_reply_count,
            resent_count=result.resent_count,
            agents=(facts,),
            was_interrupted=result.was_interrupted,
            was_finished_early=result.was_finished_early,
        )

    @classmethod
    def merged(cls, outcomes: Sequence[LoadOutcome]) -> LoadOutcome:
        """Returns what one process would have found that had offered all of it.

        Raises:
            ValueError: there is none.
        """
        if not outcomes:
            message = "there is no outcome to merge"
            raise ValueError(message)
        stride = max(outcome.records_stride for outcome in outcomes)
        return cls(
            started_at_ns=min(outcome.started_at_ns for outcome in outcomes),
            measure_start_ns=min(outcome.measure_start_ns for outcome in outcomes),
            measure_end_ns=max(outcome.measure_end_ns for outcome in outcomes),
            counted_until_ns=max(outcome.counted_until_ns for outcome in outcomes),
            ended_at_ns=max(outcome.ended_at_ns for outcome in outcomes),
            counts=_summed(outcome.counts for outcome in outcomes),
            measured=_summed(outcome.measured for outcome in outcomes),
            failures=_merged_failures(outcomes),
            histograms={
                kind: merge_histograms([outcome.histograms[kind] for outcome in outcomes])
                for kind in HISTOGRAMS
            },
            intervals=_merged_intervals(outcomes),
            targets=_merged_targets(outcomes),
            records=_merged_records(outcomes, stride),
            records_stride=stride,
            sent_bytes=sum(outcome.sent_bytes for outcome in outcomes),
            received_bytes=sum(outcome.received_bytes for outcome in outcomes),
            achieved_count=sum(outcome.achieved_count for outcome in outcomes),
            queued_count=sum(outcome.queued_count for outcome in outcomes),
            late_reply_count=sum(outcome.late_reply_count for outcome in outcomes),
            resent_count=sum(outcome.resent_count for outcome in outcomes),
            agents=tuple(facts for outcome in outcomes for facts in outcome.agents),
            was_interrupted=any(outcome.was_interrupted for outcome in outcomes),
            was_finished_early=any(outcome.was_finished_early for outcome in outcomes),
        )


def _summed(tallies: Iterable[Tally]) -> Tally:
    return functools.reduce(Tally.__add__, tallies, Tally())


def _merged_failures(outcomes: Sequence[LoadOutcome]) -> tuple[tuple[str, str, int], ...]:
    counts: dict[tuple[str, str], int] = {}
    for outcome in outcomes:
        for kind, text, count in outcome.failures:
            counts[kind, text] = counts.get((kind, text), 0) + count
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return tuple((kind, text, count) for (kind, text), count in ordered)


def _merged_intervals(outcomes: Sequence[LoadOutcome]) -> tuple[IntervalOutcome, ...]:
    """Puts stretches of the same time together; the widest of all decides how wide they are.

    They count from the begin of the measure phase, as those of every engine do, which keeps pairs
    together that one of them has made.
    """
    origin_ns = min(outcome.measure_start_ns for outcome in outcomes)
    found = [interval for outcome in outcomes for interval in outcome.intervals]
    width_ns = max((interval.end_ns - interval.start_ns for interval in found), default=1)
    slots: dict[int, IntervalOutcome] = {}
    for interval in found:
        slot = (interval.start_ns - origin_ns) // width_ns
        known = slots.get(slot)
        slots[slot] = interval if known is None else known.merged(interval)
    return tuple(slots[slot] for slot in sorted(slots))


def _merged_targets(outcomes: Sequence[LoadOutcome]) -> tuple[TargetOutcome, ...]:
    targets: dict[str, TargetOutcome] = {}
    for target in (target for outcome in outcomes for target in outcome.targets):
        known = targets.get(target.target)
        targets[target.target] = (
            target
            if known is None
            else TargetOutcome(
                target=target.target,
                measured=known.measured + target.measured,
                achieved_count=known.achieved_count + target.achieved_count,
                response=known.response.merge(target.response),
            )
        )
    return tuple(targets.values())


def _merged_records(outcomes: Sequence[LoadOutcome], stride: int) -> pl.DataFrame:
    """Puts the samples together, thinned to the coarsest of them, in order of their due times."""
    threads = sum(facts.threads_count for outcome in outcomes for facts in outcome.agents)
    frames = []
    for number, outcome in enumerate(outcomes):
        frame = outcome.records.with_columns(agent=pl.lit(number, dtype=pl.UInt16))
        if outcome.records_stride < stride:
            frame = frame.filter((pl.col("request_id") // threads) % stride == 0)
        frames.append(frame)
    return pl.concat(frames).sort("intended_at_ns")
