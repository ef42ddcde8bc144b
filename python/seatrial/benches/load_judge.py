"""The samples of a load, and the verdict on it, from its stored tables alone."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import polars as pl

from seatrial.benches.base import Samples
from seatrial.benches.sends import Planned
from seatrial.model.finding import Finding, Severity
from seatrial.stats.arrivals import STATISTIC_MAX, TOLERANCE_RATIO, ArrivalCheck, check_rate
from seatrial.stats.independence import check_independence
from seatrial.stats.scatter import MMPP, TRACE, count_dispersion, law_name
from seatrial.stats.stationarity import check_stationarity
from seatrial.stats.validity import check_generator_cpu
from seatrial.stats.verdict import LoadEvidence, judge_load_run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.model.plan import Point
    from seatrial.stats.arrivals import RateCheck

NS_PER_S: Final = 1_000_000_000
OPEN: Final = "open"
PHASE_MEASURE: Final = 1
OUTCOME_OK: Final = 0
OUTCOME_TIMEOUT: Final = 1
OUTCOME_UNSENT: Final = 6
#: As many requests are looked at for memory and change, taken evenly from all of them.
SERIES_MAX: Final = 200_000

#: One row of the table `loads`.
Load: TypeAlias = dict[str, Any]


def _measured(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame | None:
    """Returns the requests of the measure phase as they were due, which is the order of time."""
    requests = tables.get("requests")
    if requests is None:
        return None
    return requests.filter(requests["phase"] == PHASE_MEASURE).sort("intended_at_ns")


def _span(frame: pl.DataFrame, end: str, start: str) -> list[float]:
    values = (frame[end] - frame[start]).drop_nulls().to_list()
    return [float(value) for value in values]


def derive_load(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns latencies of correct replies, rates and CPU."""
    measured, loads = _measured(tables), tables.get("loads")
    if measured is None or loads is None or measured.height == 0:
        return ()
    load = loads.row(0, named=True)
    correct = measured.filter(measured["outcome"] == OUTCOME_OK)
    counted = _counted(tables["requests"], measured, load)
    counted_until_ns = load.get("counted_until_ns") or load["measure_end_ns"]
    length_ns = max(1, counted_until_ns - load["measure_start_ns"])
    values: dict[str, list[float]] = {
        "service_time_ns": _span(correct, "done_at_ns", "sent_at_ns"),
    }
    if "kernel_sent_at_ns" in correct.columns:
        values["wire_time_ns"] = _span(correct, "kernel_received_at_ns", "kernel_sent_at_ns")
    if counted is not None:
        values["achieved_rps"] = [counted.achieved * NS_PER_S / length_ns]
        values["failed_ratio"] = [1 - counted.ok / counted.intended]
    if point.values["mode"] == OPEN:
        values["response_time_ns"] = _span(correct, "done_at_ns", "intended_at_ns")
        values["send_lag_ns"] = _span(measured, "sent_at_ns", "intended_at_ns")
    if load["sandbox_cpu_ns"] is not None and load["ok_count"] > 0:
        values["request_cpu_ns"] = [load["sandbox_cpu_ns"] / load["ok_count"]]
    return tuple(Samples(metric=name, values=taken) for name, taken in values.items() if taken)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Counted:
    """Requests of the measure phase, all of them, whatever the sample of records is."""

    intended: int
    ok: int
    achieved: int


def _counted(requests: pl.DataFrame, measured: pl.DataFrame, load: Load) -> _Counted | None:
    """Returns the engine's counters; of a run before it had them, what complete records say."""
    intended, ok = load.get("measured_intended_count"), load.get("measured_ok_count")
    achieved = load.get("achieved_count")
    if intended is not None and ok is not None and achieved is not None:
        return _Counted(intended=intended, ok=ok, achieved=achieved)
    if load["records_dropped_count"]:
        return None  # kept rows are not all rows; a rate of the kept ones would be a wrong rate
    correct = requests.filter(requests["outcome"] == OUTCOME_OK)
    inside = correct.filter(
        (correct["done_at_ns"] >= load["measure_start_ns"])
        & (correct["done_at_ns"] < load["measure_end_ns"])
    )
    ok = measured.filter(measured["outcome"] == OUTCOME_OK).height
    return _Counted(intended=measured.height, ok=ok, achieved=inside.height)


def judge_load(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns why the load's numbers may not be taken at face value."""
    measured, loads = _measured(tables), tables.get("loads")
    if measured is None or loads is None:
        return ()
    load = loads.row(0, named=True)
    findings: list[Finding] = []
    if load["records_dropped_count"] > 0:
        findings.append(_dropped(load))
    if measured.height == 0:
        return tuple(findings)
    correct = measured.filter(measured["outcome"] == OUTCOME_OK)
    counted = _counted(tables["requests"], measured, load)
    if counted is None:
        counted = _Counted(intended=measured.height, ok=correct.height, achieved=0)
    if counted.ok < counted.intended:
        findings.append(_failed(counted))
    busy = check_generator_cpu(
        generator_cpu_ns=load["generator_user_ns"] + load["generator_system_ns"],
        length_ns=load["ended_at_ns"] - load["started_at_ns"],
        threads_count=load["threads_count"],
    )
    findings += [] if busy is None else [busy]
    is_open = point.values["mode"] == OPEN
    evidence = _evidence(tables["requests"], measured, load, is_open=is_open)
    return (*findings, *judge_load_run(evidence).findings)


def _evidence(
    requests: pl.DataFrame, measured: pl.DataFrame, load: Load, *, is_open: bool
) -> LoadEvidence:
    """Gathers what is known for and against the load's numbers.

    A closed loop plans no instants: nothing can be late, pile up or bend there. What it has is the
    course and the memory of its service times.
    """
    correct = measured.filter(measured["outcome"] == OUTCOME_OK)
    series = _series(correct, "intended_at_ns" if is_open else "sent_at_ns")
    pattern = load.get("pattern") or "fixed"
    fates = _Fates.of(measured, load)
    evidence = LoadEvidence(
        planned_count=fates.intended,
        sent_count=fates.sent,
        # A time-out is no answer, and neither is a place that never came free. Requests that are
        # under way when the phase ends are no sign of anything, unless they become more: backlogs.
        answered_count=fates.sent - fates.timeout - fates.unsent,
        blocked_count=fates.unsent,
        independence=check_independence(series.to_numpy()),
        # Under a rate that changes by plan response times change by plan.
        stationarity=check_stationarity(series.to_numpy()) if pattern == "fixed" else None,
    )
    if not is_open:
        return evidence
    backlog = _backlog(requests, load)
    length_ns = load["measure_end_ns"] - load["measure_start_ns"]
    return dataclasses.replace(
        evidence,
        backlog_before_count=backlog[0],
        backlog_after_count=backlog[1],
        offered_between_count=backlog[2],
        mean_gap_ns=length_ns / fates.intended if fates.intended and length_ns > 0 else None,
        pacing_lag_ns=_by_name(load[f"pacing_lag_ns_{name}"] for name in ("p50", "p99")),
        response_time_ns=_by_name(series.quantile(q) for q in (0.5, 0.99)),
        arrivals=_arrivals(load),
        rate=_rate(load, fates),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Fates:
    """How the requests of the measure phase ended."""

    intended: int
    sent: int
    timeout: int
    unsent: int

    @classmethod
    def of(cls, measured: pl.DataFrame, load: Load) -> _Fates:
        """Returns the engine's counters; of a run before it had them, those of the records."""
        names = ("intended", "sent", "timeout", "unsent")
        counts = [load.get(f"measured_{name}_count") for name in names]
        if any(count is None for count in counts):
            outcome = measured["outcome"]
            counts = [
                measured.height,
                measured["sent_at_ns"].count(),
                (outcome == OUTCOME_TIMEOUT).sum(),
                (outcome == OUTCOME_UNSENT).sum(),
            ]
        return cls(**dict(zip(names, (int(count or 0) for count in counts), strict=True)))


def _series(correct: pl.DataFrame, start: str) -> pl.Series:
    """Returns times in the order in which requests were due; of many, every so-maniest."""
    stride = -(-correct.height // SERIES_MAX) or 1
    return (correct["done_at_ns"] - correct[start]).gather_every(stride).cast(pl.Float64)


def _by_name(values: Iterable[object]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in zip(("p50", "p99"), values, strict=True)
        if isinstance(value, int | float)
    }


def _arrivals(load: Load) -> ArrivalCheck | None:
    """Returns the check that was made beside the load, where the engine could be asked."""
    count, is_kept, law = (
        load.get(name) for name in ("arrival_gaps_count", "arrivals_are_kept", "arrival")
    )
    # Runs of earlier versions have a check of mmpp, which its dependent gaps cannot pass.
    if count is None or is_kept is None or law_name(str(law)) == MMPP:
        return None
    distance = load["arrival_distance"]
    return ArrivalCheck(
        law=str(law),
        n=int(count),
        is_kept=bool(is_kept),
        statistic=load["arrival_statistic"],
        # Only gaps of a random law have a distance; instants known beforehand have lateness.
        critical=TOLERANCE_RATIO if distance is None else STATISTIC_MAX,
        p_value=None,
        distance=distance,
        distance_p_value=None,
    )


def _rate(load: Load, fates: _Fates) -> RateCheck | None:
    """Compares the rate with the planned one, where there is one and its scatter is known."""
    length_ns = load["measure_end_ns"] - load["measure_start_ns"]
    planned = _planned(load, length_ns)
    if planned is None or length_ns <= 0:
        return None
    return check_rate(
        planned_rps=planned.count * NS_PER_S / length_ns,
        sent_count=fates.sent + fates.unsent,
        duration_ns=length_ns,
        dispersion=planned.dispersion,
    )


def _planned(load: Load, length_ns: int) -> Planned | None:
    """Returns what was computed beside the load; of earlier runs, what a constant rate has due."""
    count, dispersion = load.get("planned_count"), load.get("planned_dispersion")
    if count is not None and dispersion is not None:
        return Planned(count=count, dispersion=dispersion)
    law, rate_rps = str(load.get("arrival")), load.get("offered_rps")
    # A trace may end, and has a file that is not kept with its run.
    if rate_rps is None or load.get("pattern") != "fixed" or law_name(law) == TRACE:
        return None
    count = rate_rps * length_ns / NS_PER_S
    dispersion = count_dispersion(law, rate_rps=rate_rps, expected_count=count)
    return None if dispersion is None else Planned(count=count, dispersion=dispersion)


def _dropped(load: Load) -> Finding:
    return Finding(
        code="records-dropped",
        severity=Severity.ERROR,
        message=f"{load['records_dropped_count']} request records did not fit: quantiles are of "
        "the first ones only, and no rate is given",
        evidence={"records_dropped_count": load["records_dropped_count"]},
    )


def _failed(counted: _Counted) -> Finding:
    failed_count = counted.intended - counted.ok
    return Finding(
        code="request-failures",
        severity=Severity.ERROR,
        message=f"{failed_count} of {counted.intended} requests got no correct reply; latencies "
        "are of the others only",
        evidence={"failed_count": failed_count, "requests_count": counted.intended},
    )


def _backlog(requests: pl.DataFrame, load: Load) -> tuple[int, int, int]:
    """Returns what was due and had not ended in the middle and at the end, and due in between."""
    offered, before = load.get("offered_late_count"), load.get("backlog_middle_count")
    after = load.get("backlog_end_count")
    if offered is not None and before is not None and after is not None:
        return before, after, offered
    end_ns = load["measure_end_ns"]
    middle_ns = (load["measure_start_ns"] + end_ns) / 2
    due = [requests.filter(requests["intended_at_ns"] < at).height for at in (middle_ns, end_ns)]
    done = [requests.filter(requests["done_at_ns"] < at).height for at in (middle_ns, end_ns)]
    return due[0] - done[0], due[1] - done[1], due[1] - due[0]
