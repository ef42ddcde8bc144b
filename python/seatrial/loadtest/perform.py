"""Performs a load test: one load, by this process or by agents, and its judged result."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from seatrial.agents.live import LoadSnapshot
from seatrial.agents.outcome import LoadOutcome
from seatrial.agents.team import Team
from seatrial.errors import ConfigError
from seatrial.loadgen import build_info, run_load
from seatrial.loadtest.examine import (
    achieved_rps,
    offered_rps,
    response_intervals,
    summarise_targets,
    summarise_times,
)
from seatrial.loadtest.judge import evidence_of
from seatrial.loadtest.objectives import judge_objective
from seatrial.loadtest.redact import without_passwords, without_secrets
from seatrial.loadtest.result import (
    Event,
    LoadTestResult,
    PartSummary,
    failure_counts,
    histogram_texts,
    series_of,
)
from seatrial.loadtest.watch import Watcher
from seatrial.model.finding import Finding, Severity
from seatrial.probes.fingerprint import read_fingerprint
from seatrial.stats.converge import Convergence, Snapshot
from seatrial.stats.target import parse_objectives, parse_width_targets
from seatrial.stats.verdict import judge_load_run
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from seatrial.loadgen import LoadRequest
    from seatrial.loadtest.settings import LoadTestSettings
    from seatrial.loadtest.watch import View
    from seatrial.stats.converge import Decision

NS_PER_S: Final = 1_000_000_000
#: How the names of agents begin that only measure.
LATENCY: Final = "latency-"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The outcome of everybody, of those who load by the schedule, and of those who measure.

    They are the same unless there are latency agents, whose own light load comes on top.
    """

    whole: LoadOutcome
    loading: LoadOutcome
    measuring: LoadOutcome


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Performed:
    """A result, and the raw outcomes that it was made of."""

    result: LoadTestResult
    found: Found
    # What to add to CLOCK_MONOTONIC for the time since 1970, when the load began.
    epoch_offset_ns: int


def perform(
    settings: LoadTestSettings,
    *,
    view: View | None = None,
    on_offered: Callable[[], None] | None = None,
) -> Performed:
    """Offers the load that the settings ask for, and judges what came of it.

    `on_offered` is called once the load is over and only the judging is left.

    Raises:
        ConfigError: a setting cannot be meant.
        TrialFailed: the service turned connections away before the load began, or an agent died.
        EnvironmentTrouble: the kernel refused something that the engine needs.
    """
    settings.check()
    objectives = [one for text in settings.objectives for one in parse_objectives(text)]
    convergence = _convergence(settings)
    request = _request(settings)
    request.to_plan()
    watcher = Watcher(warm_up_ns=settings.warm_up_ns, convergence=convergence, view=view)
    started = datetime.now(tz=UTC)
    epoch_offset_ns = time.time_ns() - time.monotonic_ns()
    found = offer(settings, request, watcher.see)
    if on_offered is not None:
        on_offered()
    decision = _final_decision(found.measuring, convergence)
    verdict = judge_load_run(evidence_of(found.loading, settings, decision))
    result = _result(settings, request, found, started=started)
    result = dataclasses.replace(
        result,
        verdicts=(*_remarks(request), *_failures(found.whole), *verdict.findings),
        objectives=tuple(judge_objective(found.measuring, one) for one in objectives),
        events=_events(convergence, decision),
    )
    return Performed(result=result, found=found, epoch_offset_ns=epoch_offset_ns)


def _remarks(request: LoadRequest) -> tuple[Finding, ...]:
    """What was asked for and has to be known to whoever reads the numbers."""
    if request.options.get("tls_insecure") != "true":
        return ()
    return (
        Finding(
            code="degraded",
            severity=Severity.WARNING,
            message="TLS certificates were not verified: it may have been another server",
        ),
    )


def _failures(outcome: LoadOutcome) -> tuple[Finding, ...]:
    """Says that requests failed: an error if all did or none was due: nothing was measured."""
    measured = outcome.measured
    if not measured.intended_count:
        message = "no request was due in the measured time; shorten the warm-up or offer more"
        return (Finding(code="nothing-measured", severity=Severity.ERROR, message=message),)
    if not measured.failed_count:
        return ()
    message = (
        f"{measured.failed_count} of {measured.intended_count} requests got no correct reply "
        f"({measured.failed_count / measured.intended_count:.2%})"
    )
    rest = "; response times are of the others only" if measured.ok_count else ""
    return (
        Finding(
            code="request-failures",
            severity=Severity.WARNING if measured.ok_count else Severity.ERROR,
            message=f"{message}{rest}",
            evidence={
                "failed_count": measured.failed_count,
                "requests_count": measured.intended_count,
            },
        ),
    )


def _convergence(settings: LoadTestSettings) -> Convergence | None:
    targets = [one for text in settings.precision for one in parse_width_targets(text)]
    if not targets:
        return None
    if settings.budget_ns < settings.duration_ns:
        raise ConfigError(
            f"--budget {format_duration(settings.budget_ns)} is shorter than --duration "
            f"{format_duration(settings.duration_ns)}",
            hint="--duration is when --ci looks for the first time, --budget when it gives up",
        )
    return Convergence(targets, first_look_ns=settings.duration_ns, budget_ns=settings.budget_ns)


def _request(settings: LoadTestSettings) -> LoadRequest:
    """The whole load; with --ci it lasts as long as the budget, unless it is ended before."""
    return settings.request(
        measure_ns=settings.budget_ns if settings.precision else settings.duration_ns
    )


def offer(
    settings: LoadTestSettings,
    request: LoadRequest,
    observe: Callable[[LoadSnapshot], bool] | None = None,
) -> Found:
    """Offers a load, by this process or by as many agents as the settings ask for.

    Raises:
        ConfigError: a setting cannot be meant.
        TrialFailed: the service turned connections away before the load began, or an agent died.
    """
    if settings.agents_count == 0:
        result = run_load(
            request,
            observe=None
            if observe is None
            else lambda snapshot: observe(LoadSnapshot.of(snapshot)),
        )
        outcome = LoadOutcome.of(
            result, name="load", threads=request.threads, connections=request.connections
        )
        return Found(outcome, outcome, outcome)
    requests = agent_requests(settings, request)
    with Team.local(tuple(requests)) as team:
        team_outcome = team.run(requests, observe=observe)
    latency = [name for name in requests if name.startswith(LATENCY)]
    whole = team_outcome.merged()
    if not latency:
        return Found(whole, whole, whole)
    loading = [name for name in requests if not name.startswith(LATENCY)]
    return Found(whole, team_outcome.merged(*loading), team_outcome.merged(*latency))


def agent_requests(settings: LoadTestSettings, request: LoadRequest) -> dict[str, LoadRequest]:
    """Returns what each agent is asked for, by its name.

    The load agents share connections and schedule; `requests_max` bounds the whole schedule, of
    which the engine offers an agent's part. Each latency agent offers a light load of its
    own, one request at once on each of its connections, under a seed of its own.
    """
    count = settings.agents_count
    if request.connections < count:
        raise ConfigError(
            f"{request.connections} connections for {count} agents",
            hint="give each agent at least one: --connections",
        )
    requests = {
        f"load-{number}": dataclasses.replace(
            request,
            agent=number,
            agents=count,
            connections=_share(request.connections, number, count),
            outstanding_max=(
                None
                if request.outstanding_max is None
                else _share(request.outstanding_max, number, count)
            ),
        )
        for number in range(count)
    }
    others = settings.latency_agents_count
    for number in range(others):
        requests[f"{LATENCY}{number}"] = dataclasses.replace(
            request,
            rate_rps=settings.latency_rate_rps / others,
            pattern="fixed",
            connections=max(1, len(request.targets)),
            depth=1,
            threads=1,
            seed=request.seed + 1 + number,
        )
    return requests


def _share(total: int, number: int, count: int) -> int:
    """The part of one of `count`, so that all parts together are the total."""
    return total // count + (number < total % count)


def _final_decision(outcome: LoadOutcome, convergence: Convergence | None) -> Decision | None:
    if convergence is None:
        return None
    return convergence.finish(
        Snapshot(
            elapsed_ns=outcome.measure_end_ns - outcome.measure_start_ns,
            intervals=response_intervals(outcome),
        )
    )


def _events(convergence: Convergence | None, decision: Decision | None) -> tuple[Event, ...]:
    """The extensions, and the verdict with the numbers on which it was given up."""
    if convergence is None:
        return ()
    extensions = [one for one in convergence.events if one.new_duration_ns != one.old_duration_ns]
    given_up = [one for one in convergence.events if one.new_duration_ns == one.old_duration_ns]
    events = [
        Event(
            at_ns=event.at_ns,
            kind=str(event.reason),
            reason=f"{event.target}: {format_duration(event.old_duration_ns)} -> "
            f"{format_duration(event.new_duration_ns)}",
            evidence=_plain(event),
        )
        for event in extensions
    ]
    if decision is not None and decision.verdict is not None:
        evidence = _plain(given_up[-1]) if given_up else {}
        kind, reason = str(decision.verdict), decision.reason
        events.append(Event(at_ns=decision.at_ns, kind=kind, reason=reason, evidence=evidence))
    return tuple(events)


def _plain(event: object) -> dict[str, float | int | str | None]:
    fields = dataclasses.asdict(event)  # type: ignore[call-overload]  # any of our dataclasses
    return {
        name: value if isinstance(value, float | int) or value is None else str(value)
        for name, value in fields.items()
    }


def _result(
    settings: LoadTestSettings, request: LoadRequest, found: Found, *, started: datetime
) -> LoadTestResult:
    outcome, measuring = found.whole, found.measuring
    length_ns = outcome.measure_end_ns - outcome.measure_start_ns
    return LoadTestResult(
        seatrial_version=build_info().version,
        url=without_passwords(settings.target.text),
        settings=without_secrets(request),
        started_at=started.isoformat(timespec="milliseconds"),
        fingerprint=read_fingerprint(),
        measure_start_ns=outcome.measure_start_ns,
        measure_length_ns=length_ns,
        offered_rps=offered_rps(outcome) if settings.is_open else None,
        achieved_rps=achieved_rps(outcome),
        sent_bytes_per_s=_per_s(outcome.sent_bytes, outcome),
        received_bytes_per_s=_per_s(outcome.received_bytes, outcome),
        counts=outcome.counts,
        measured=outcome.measured,
        failures=failure_counts(outcome),
        queued_count=outcome.queued_count,
        late_reply_count=outcome.late_reply_count,
        resent_count=outcome.resent_count,
        times=summarise_times(measuring, is_open=settings.is_open),
        targets=summarise_targets(outcome),
        verdicts=(),
        objectives=(),
        events=(),
        agents=outcome.agents,
        series=series_of(outcome),
        histograms=histogram_texts(measuring),
        was_interrupted=outcome.was_interrupted,
        parts=_parts(settings, found),
    )


def _parts(settings: LoadTestSettings, found: Found) -> tuple[PartSummary, ...]:
    """What the two kinds of agents offered; nothing where there is one kind."""
    if found.loading is found.measuring:
        return ()
    asked = (
        ("load", settings.rate_rps, found.loading),
        ("latency", settings.latency_rate_rps, found.measuring),
    )
    return tuple(
        PartSummary(
            role=role,
            agents_count=len(outcome.agents),
            asked_rps=asked_rps,
            offered_rps=offered_rps(outcome),
            achieved_rps=achieved_rps(outcome),
            sent_bytes_per_s=_per_s(outcome.sent_bytes, outcome),
            received_bytes_per_s=_per_s(outcome.received_bytes, outcome),
            measured=outcome.measured,
        )
        for role, asked_rps, outcome in asked
    )


def _per_s(count: int, outcome: LoadOutcome) -> float:
    """Over the whole run, since bytes are counted in all of it."""
    return count * NS_PER_S / max(1, outcome.ended_at_ns - outcome.started_at_ns)
