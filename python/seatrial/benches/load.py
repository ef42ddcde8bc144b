"""What latency does a service in the sandbox give at a given load, and what is its peak?

One sandbox runs the guest's rpc server behind a veth pair (the plain ``process`` too, so that the
price of the veth is in every number alike). A *closed* point keeps ``connections`` connections
busy and tells capacity; an *open* point sends Poisson arrivals at a rate, whatever the replies
do, and tells the response time a user would feel. METHODOLOGY 5.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.held import HeldSandbox
from seatrial.loadgen import LoadRequest, run_load
from seatrial.model.experiment import NetworkMode
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, Metric
from seatrial.stats.validity import check_generator, check_generator_cpu, check_saturation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.loadgen import LoadResult
    from seatrial.model.experiment import Experiment, LoadSettings
    from seatrial.model.plan import Point

SERVICE_PORT = 7000
NS_PER_S = 1_000_000_000
RECORDS_MAX = 1_000_000
CLOSED = "closed"
OPEN = "open"
PHASE_MEASURE = 1
OUTCOME_OK = 0

METRICS = (
    Metric(
        name="response_time_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="From the instant a request was due to its last byte: what a user would feel",
        method="done_at - intended_at of correct replies intended in the measure phase",
    ),
    Metric(
        name="service_time_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="From sending a request to its last byte",
        method="done_at - sent_at of correct replies intended in the measure phase",
    ),
    Metric(
        name="send_lag_ns",
        unit="ns",
        direction=Direction.NONE,
        meaning="How late a request was sent; in an open loop the queue for a free slot included",
        method="sent_at - intended_at of requests intended in the measure phase",
    ),
    Metric(
        name="achieved_rps",
        unit="1/s",
        direction=Direction.HIGHER,
        meaning="Correct replies a second",
        method="correct replies that ended in the measure phase / its length",
    ),
    Metric(
        name="failed_ratio",
        unit="ratio",
        direction=Direction.LOWER,
        meaning="Share of requests without a correct reply",
        method="requests intended in the measure phase with another outcome than ok / all of them",
    ),
    Metric(
        name="request_cpu_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="CPU time the sandbox, its runtime included, used for one correct reply",
        method="CPU of the outer cgroup over the load / correct replies of all phases",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadBench:
    """Closed- and open-loop load on a service in one sandbox."""

    name: str = "load"
    question: str = "What latency does a service in it give at a given load, and what is its peak?"
    headline: str = "response_time_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, driver: str) -> int:
        """Returns the load's own length and a start and stop."""
        del point
        settings = cast("LoadSettings", experiment.load)
        start_ns = 400_000_000 if driver.startswith("runsc") else 200_000_000
        return settings.warm_up_ns + settings.duration_ns + start_ns

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return LoadTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples of the measure phase."""
        return derive_load(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns the verdict on the load: generator-bound, saturated, failed requests."""
        return judge_load(tables, point)


class LoadTrial:
    """Starts a server in a sandbox and offers load to it."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("LoadSettings", context.experiment.load)
        self._sandbox = HeldSandbox(
            context,
            role=(
                "serve",
                "--protocol",
                "rpc",
                "--listen",
                f"tcp:0.0.0.0:{SERVICE_PORT}",
                "--workers",
                str(self._settings.workers),
            ),
            network=NetworkMode.VETH,
        )
        self.tables = TrialTables()
        self.findings: list[Finding] = self._sandbox.findings

    def set_up(self) -> None:
        """Starts the server."""
        self._sandbox.start()
        self._target = self._sandbox.session.endpoint(self._sandbox.plan_id, SERVICE_PORT)

    def warm_up(self) -> None:
        """Does nothing: the engine's own warm-up phase runs inside the one load."""

    def measure(self) -> None:
        """Runs the load once, warm-up and drain phases of the engine included."""
        values = self._context.spec.point.values
        settings = self._settings
        is_open = values["mode"] == OPEN
        request = LoadRequest(
            targets=(self._target,),
            protocol="rpc",
            operation=settings.operation,
            payload_bytes=settings.payload_bytes,
            demand=settings.demand,
            arrival="poisson" if is_open else "closed",
            rate_rps=float(values["rate_rps"]) if is_open else None,
            connections=int(values["connections"]),
            threads=settings.threads,
            depth=settings.depth,
            warm_up_ns=settings.warm_up_ns,
            measure_ns=settings.duration_ns,
            drain_ns=settings.drain_ns,
            request_timeout_ns=settings.request_timeout_ns,
            records_max=RECORDS_MAX,
            seed=self._context.spec.seed,
        )
        cgroups = self._sandbox.session.cgroups(self._sandbox.plan_id)
        with self._context.window("load"):
            before = cgroups.read_cpu()
            result = run_load(request)
            after = cgroups.read_cpu()
        cpu_ns = None if before is None or after is None else after.total_ns - before.total_ns
        self.tables.put("requests", result)
        self.tables.add(
            "loads",
            {
                "started_at_ns": result.started_at_ns,
                "ended_at_ns": result.ended_at_ns,
                "threads_count": request.threads,
                "measure_start_ns": result.measure_start_ns,
                "measure_end_ns": result.measure_end_ns,
                "intended_count": result.intended_count,
                "sent_count": result.sent_count,
                "ok_count": result.ok_count,
                "timeout_count": result.timeout_count,
                "error_count": result.error_count,
                "records_dropped_count": 0,
                "records_stride": result.records_stride,
                "measured_intended_count": result.measured.intended_count,
                "measured_ok_count": result.measured.ok_count,
                "achieved_count": result.achieved_count,
                **backlogs(result),
                "wait": result.wait,
                "guard_ns": result.guard_ns,
                "cpus_seen": " ".join(str(cpu) for cpu in result.cpus_seen),
                "generator_user_ns": result.generator_user_ns,
                "generator_system_ns": result.generator_system_ns,
                "sandbox_cpu_ns": cpu_ns,
                "offered_rps": request.rate_rps,
                "pacing_lag_ns_p50": _quantile(result, 0.5),
                "pacing_lag_ns_p99": _quantile(result, 0.99),
            },
        )
        if result.was_interrupted:
            raise KeyboardInterrupt

    def drain(self) -> None:
        """Does nothing: the engine drained before it returned."""

    def tear_down(self) -> None:
        """Stops the server."""
        self._sandbox.stop()


def _quantile(result: LoadResult, q: float) -> float | None:
    value_ns = result.pacing_lag_histogram.quantile(q)
    return None if value_ns is None else float(value_ns)


def backlogs(result: LoadResult) -> dict[str, int | None]:
    """Returns how many requests were due and had not ended, in the middle and at the end.

    They are counted at the ends of the intervals nearest to the middle and to the end of the
    measure phase; None for a load without two such instants.
    """
    middle_ns = (result.measure_start_ns + result.measure_end_ns) / 2
    due_count = ended_count = 0
    rows = []
    for interval in result.intervals:
        due_count += interval.intended_count
        ended_count += interval.ok_count + interval.failed_count
        rows.append((interval.end_ns, due_count, due_count - ended_count))
    middle = min(rows, key=lambda row: abs(row[0] - middle_ns), default=None)
    end = min(rows, key=lambda row: abs(row[0] - result.measure_end_ns), default=None)
    is_told = middle is not None and end is not None and middle[0] < end[0]
    return {
        "backlog_middle_count": middle[2] if is_told and middle else None,
        "backlog_end_count": end[2] if is_told and end else None,
        "offered_late_count": end[1] - middle[1] if is_told and middle and end else None,
    }


def _measured(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame | None:
    requests = tables.get("requests")
    if requests is None:
        return None
    return requests.filter(requests["phase"] == PHASE_MEASURE)


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
    length_ns = load["measure_end_ns"] - load["measure_start_ns"]
    values: dict[str, list[float]] = {
        "service_time_ns": _span(correct, "done_at_ns", "sent_at_ns"),
    }
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


def _counted(
    requests: pl.DataFrame, measured: pl.DataFrame, load: Mapping[str, int | None]
) -> _Counted | None:
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
    if point.values["mode"] == OPEN and correct.height > 0:
        findings += _open_loop_verdict(tables["requests"], correct, load)
    return tuple(findings)


def _dropped(load: Mapping[str, int]) -> Finding:
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


def _open_loop_verdict(
    requests: pl.DataFrame, correct: pl.DataFrame, load: Mapping[str, float | None]
) -> list[Finding]:
    """Judges generator and service of an open loop apart.

    Requests that wait for a free slot are late by the service's doing; only what the engine adds
    once a slot is free (the pacing lag) counts against the engine.
    """
    saturated = _saturation(requests, load)
    findings = [] if saturated is None else [saturated]
    response_ns = correct["done_at_ns"] - correct["intended_at_ns"]
    for quantile, name in ((0.5, "p50"), (0.99, "p99")):
        lag_ns, time_ns = load[f"pacing_lag_ns_{name}"], response_ns.quantile(quantile)
        if lag_ns is None or time_ns is None:
            continue
        late = check_generator(quantile=name, pacing_lag_ns=lag_ns, response_time_ns=time_ns)
        if late is not None:
            return [*findings, late]
    return findings


def _saturation(requests: pl.DataFrame, load: Mapping[str, float | None]) -> Finding | None:
    """Compares what was unanswered in the middle and at the end of the measure phase."""
    offered, before = load.get("offered_late_count"), load.get("backlog_middle_count")
    after = load.get("backlog_end_count")
    if offered is not None and before is not None and after is not None:
        return check_saturation(
            offered_count=int(offered),
            backlog_before_count=int(before),
            backlog_after_count=int(after),
        )
    start_ns, end_ns = load["measure_start_ns"], load["measure_end_ns"]
    if start_ns is None or end_ns is None:
        return None
    middle_ns = (start_ns + end_ns) / 2
    due_before = requests.filter(requests["intended_at_ns"] < middle_ns).height
    due_after = requests.filter(requests["intended_at_ns"] < end_ns).height
    done_before = requests.filter(requests["done_at_ns"] < middle_ns).height
    done_after = requests.filter(requests["done_at_ns"] < end_ns).height
    return check_saturation(
        offered_count=due_after - due_before,
        backlog_before_count=due_before - done_before,
        backlog_after_count=due_after - done_after,
    )
