"""What load agents found out, as rows, and what such rows say: shared by `fleet` and `rpc`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl

from seatrial.model.columns import REQUESTS
from seatrial.model.finding import Finding, Severity
from seatrial.stats.arrivals import check_rate
from seatrial.stats.scatter import count_dispersion
from seatrial.stats.validity import (
    check_generator,
    check_generator_cpu,
    check_server_counters,
)
from seatrial.stats.verdict import off_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.agents.outcome import LoadOutcome
    from seatrial.agents.team import Team
    from seatrial.benches.base import Row, TrialContext, TrialTables
    from seatrial.benches.servers import Server
    from seatrial.stats.arrivals import RateCheck

NS_PER_S = 1_000_000_000
PHASE_MEASURE = 1
OUTCOME_OK = 0


def start_team(names: Sequence[str], context: TrialContext) -> Team:
    """Starts an agent process for each name, whose CPU time counts as the run's own.

    Raises:
        EnvironmentTrouble: a process cannot be started.
        TrialFailed: a process does not become an agent.
    """
    # Imported here: who only reads what was measured needs no agents.
    from seatrial.agents.team import Team

    team = Team.local(names)
    for name in names:
        context.count_process(team.pid_of(name))
    return team


def keep_agent(
    tables: TrialTables, name: str, outcome: LoadOutcome, *, offered_rps: float | None
) -> None:
    """Keeps the counters, the intervals and the failures of one agent."""
    (facts,) = outcome.agents
    counts, lag = outcome.counts, outcome.histograms["pacing_lag"]
    tables.add(
        "loads",
        {
            "agent": name,
            "started_at_ns": outcome.started_at_ns,
            "ended_at_ns": outcome.ended_at_ns,
            "threads_count": facts.threads_count,
            "measure_start_ns": outcome.measure_start_ns,
            "measure_end_ns": outcome.measure_end_ns,
            "intended_count": counts.intended_count,
            "sent_count": counts.sent_count,
            "ok_count": counts.ok_count,
            "timeout_count": counts.timeout_count,
            "error_count": counts.failed_count - counts.timeout_count,
            "records_dropped_count": 0,
            "records_stride": outcome.records_stride,
            "wait": facts.wait,
            "guard_ns": facts.guard_ns,
            "cpus_seen": " ".join(map(str, facts.cpus_seen)),
            "generator_user_ns": facts.user_ns,
            "generator_system_ns": facts.system_ns,
            "sandbox_cpu_ns": None,
            "offered_rps": offered_rps,
            "pacing_lag_ns_p50": lag.quantile(0.5),
            "pacing_lag_ns_p99": lag.quantile(0.99),
            "measured_intended_count": outcome.measured.intended_count,
            "measured_ok_count": outcome.measured.ok_count,
            "measured_sent_count": outcome.measured.sent_count,
            "measured_timeout_count": outcome.measured.timeout_count,
            "measured_unsent_count": outcome.measured.unsent_count,
            "late_reply_count": outcome.late_reply_count,
            "application_error_count": counts.application_error_count,
        },
    )
    for row in _interval_rows(name, outcome):
        tables.add("intervals", row)
    for kind, reason, count in outcome.failures:
        row = {"agent": name, "outcome": kind, "reason": reason, "requests_count": count}
        tables.add("failures", row)


def _interval_rows(name: str, outcome: LoadOutcome) -> list[Row]:
    """Intervals are counted from the begin of the measure phase, which begins one of them."""
    before = sum(one.start_ns < outcome.measure_start_ns for one in outcome.intervals)
    return [
        {
            "agent": name,
            "position": number - before,
            "started_at_ns": one.start_ns,
            "ended_at_ns": one.end_ns,
            "intended_count": one.intended_count,
            "sent_count": one.sent_count,
            "ok_count": one.ok_count,
            "failed_count": one.failed_count,
            "sent_bytes": one.sent_bytes,
            "received_bytes": one.received_bytes,
        }
        for number, one in enumerate(outcome.intervals)
    ]


def keep_targets(tables: TrialTables, outcome: LoadOutcome, servers: Sequence[Server]) -> None:
    """Keeps what all agents got from each server."""
    sandboxes = {server.target: server.sandbox for server in servers}
    found = [(one.target, one.measured, one.response) for one in outcome.targets]
    if not found:
        # The engine tells servers apart only where there are several.
        found = [(servers[0].target, outcome.measured, outcome.histograms["response"])]
    for position, (target, measured, response) in enumerate(found):
        tables.add(
            "targets",
            {
                "position": position,
                "target": target,
                "sandbox": sandboxes[target],
                "intended_count": measured.intended_count,
                "sent_count": measured.sent_count,
                "ok_count": measured.ok_count,
                "timeout_count": measured.timeout_count,
                "failed_count": measured.failed_count,
                "response_ns_p50": response.quantile(0.5),
                "response_ns_p95": response.quantile(0.95),
                "response_ns_p99": response.quantile(0.99),
            },
        )


def keep_requests(tables: TrialTables, outcome: LoadOutcome) -> None:
    """Keeps the sampled requests."""
    names = [name for name in REQUESTS.names if name in outcome.records.columns]
    tables.put("requests", outcome.records.select(names))


def measured_requests(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame | None:
    """The requests that were intended in the measure phase; None when there are none."""
    requests = tables.get("requests")
    if requests is None:
        return None
    measured = requests.filter(requests["phase"] == PHASE_MEASURE)
    return measured if measured.height > 0 else None


def spans(frame: pl.DataFrame, end: str, start: str) -> list[float]:
    """How long something took, of the rows that have both instants."""
    return [float(value) for value in (frame[end] - frame[start]).drop_nulls().to_list()]


def whole_intervals(tables: Mapping[str, pl.DataFrame]) -> pl.DataFrame | None:
    """The intervals that lie in the measure phase as a whole; None when there are none."""
    intervals, loads = tables.get("intervals"), tables.get("loads")
    if intervals is None or loads is None:
        return None
    window = loads.select("agent", "measure_start_ns", "measure_end_ns")
    inside = intervals.join(window, on="agent").filter(
        (pl.col("started_at_ns") >= pl.col("measure_start_ns"))
        & (pl.col("ended_at_ns") <= pl.col("measure_end_ns"))
    )
    return inside if inside.height > 0 else None


def rate_of(intervals: pl.DataFrame, column: str) -> float:
    """The sum over agents of each one's rate: what they did, by the time that it took."""
    by_agent = intervals.group_by("agent").agg(
        pl.col(column).sum(),
        length_ns=(pl.col("ended_at_ns") - pl.col("started_at_ns")).sum(),
    )
    return float((by_agent[column] * NS_PER_S / by_agent["length_ns"]).sum())


def request_cpu_ns(tables: Mapping[str, pl.DataFrame]) -> float | None:
    """CPU time of all sandboxes by correct reply; None when the books are not complete."""
    servers, loads = tables.get("servers"), tables.get("loads")
    if servers is None or loads is None or servers["cpu_ns"].null_count() > 0:
        return None
    replies_count = int(loads["ok_count"].sum())
    return float(servers["cpu_ns"].sum()) / replies_count if replies_count else None


def failed_ratio(tables: Mapping[str, pl.DataFrame]) -> float | None:
    """Share of the requests of the measure phase without a correct reply, unsent ones included."""
    loads = tables.get("loads")
    due_count = 0 if loads is None else int(loads["measured_intended_count"].sum())
    if loads is None or due_count == 0:
        return None
    return 1 - int(loads["measured_ok_count"].sum()) / due_count


def judge_counters(tables: Mapping[str, pl.DataFrame]) -> list[Finding]:
    """Whether servers and clients agree on how many requests there were."""
    servers, loads = tables.get("servers"), tables.get("loads")
    if servers is None or loads is None:
        return []
    answered = loads["ok_count"] + loads["application_error_count"]
    found = check_server_counters(
        server_count=int(servers["requests_count"].sum()),
        sent_count=int(loads["sent_count"].sum()),
        answered_count=int(answered.sum()),
    )
    return [] if found is None else [found]


def judge_failures(tables: Mapping[str, pl.DataFrame]) -> list[Finding]:
    """How many requests got no correct reply, and the most frequent reason."""
    loads = tables["loads"]
    requests_count = int(loads["intended_count"].sum())
    timeouts_count = int(loads["timeout_count"].sum())
    failed_count = requests_count - int(loads["ok_count"].sum())
    if failed_count == 0:
        return []
    failures = tables.get("failures")
    reason = ""
    if failures is not None and failures.height > 0:
        first = failures.sort("requests_count", descending=True).row(0, named=True)
        reason = f"; most often {first['outcome']}: {first['reason']}"
    return [
        Finding(
            code="request-failures",
            severity=Severity.ERROR,
            message=f"{failed_count} of {requests_count} requests got no correct reply, "
            f"{timeouts_count} of them no reply in time; latencies are of the others only{reason}",
            evidence={
                "failed_count": failed_count,
                "timeouts_count": timeouts_count,
                "requests_count": requests_count,
            },
        )
    ]


def judge_generator_cpu(tables: Mapping[str, pl.DataFrame]) -> list[Finding]:
    """Whether an agent had no processor time left; the busiest one speaks for all."""
    found: list[Finding] = []
    for load in tables["loads"].iter_rows(named=True):
        busy = check_generator_cpu(
            generator_cpu_ns=load["generator_user_ns"] + load["generator_system_ns"],
            length_ns=load["ended_at_ns"] - load["started_at_ns"],
            threads_count=load["threads_count"],
        )
        found += [] if busy is None else [busy]
    return sorted(found, key=_busyness)[-1:]


def _busyness(finding: Finding) -> float:
    evidence = finding.evidence
    return float(evidence["generator_cpu_ns"]) / (
        float(evidence["length_ns"]) * float(evidence["threads_count"])
    )


def judge_pacing(
    tables: Mapping[str, pl.DataFrame], response_ns: Mapping[str, pl.Series]
) -> list[Finding]:
    """Whether the lateness of agents is a visible part of the response times.

    Each kind of agents, by the begin of its names, is held against the times that are about it.
    """
    for kind, times in response_ns.items():
        own = tables["loads"].filter(tables["loads"]["agent"].str.starts_with(kind))
        for quantile, name in ((0.5, "p50"), (0.99, "p99")):
            lag_ns = own[f"pacing_lag_ns_{name}"].max()
            time_ns = times.quantile(quantile)
            if not isinstance(lag_ns, int | float) or time_ns is None:
                continue
            late = check_generator(quantile=name, pacing_lag_ns=lag_ns, response_time_ns=time_ns)
            if late is not None:
                message = f"{kind} agents: {late.message}"
                return [dataclasses.replace(late, message=message)]
    return []


def judge_rate(
    tables: Mapping[str, pl.DataFrame], kinds: Sequence[str], *, law: str
) -> list[Finding]:
    """Whether all agents of a kind together sent as many requests as their one schedule has.

    Runs of earlier versions did not keep how many were sent.
    """
    found: list[Finding] = []
    for kind in kinds:
        own = tables["loads"].filter(tables["loads"]["agent"].str.starts_with(kind))
        rate = _rate_of(own, law)
        if rate is not None and not rate.is_kept:
            late = off_rate(rate)
            found.append(dataclasses.replace(late, message=f"{kind} agents: {late.message}"))
    return found


def _rate_of(loads: pl.DataFrame, law: str) -> RateCheck | None:
    names = ("offered_rps", "measured_sent_count", "measured_unsent_count")
    if not loads.height or any(
        name not in loads.columns or loads[name].null_count() for name in names
    ):
        return None
    # They all begin and end at the same instants.
    first = loads.row(0, named=True)
    length_ns = first["measure_end_ns"] - first["measure_start_ns"]
    planned_rps, sent_count, unsent_count = (float(loads[name].sum()) for name in names)
    planned_count = planned_rps * length_ns / NS_PER_S
    dispersion = count_dispersion(law, rate_rps=planned_rps, expected_count=planned_count)
    if length_ns <= 0 or planned_rps <= 0 or dispersion is None:
        return None
    return check_rate(
        planned_rps=planned_rps,
        sent_count=int(sent_count + unsent_count),
        duration_ns=length_ns,
        dispersion=dispersion,
    )
