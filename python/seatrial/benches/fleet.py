"""What latency do many servers give under one load: one in each of N sandboxes, or N in one?

Load agents offer a Poisson load to all servers alike; latency agents, processes of their own with
a light rate of their own, take the response times, so that the numbers are not those of the busy
engine. Per server it is kept how many requests it got and how fast it was. METHODOLOGY 5.8.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from seatrial.benches import offered
from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.load import METRICS as LOAD_METRICS
from seatrial.benches.servers import ServingSandboxes
from seatrial.loadgen import LoadRequest
from seatrial.model.experiment import Layout
from seatrial.model.metric import Direction, Metric
from seatrial.stats.validity import check_answered

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.agents.team import Team
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment, FleetSettings
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

LOAD, LATENCY = "load", "latency"
ARRIVAL = "poisson"
#: Of a load agent, whose histograms and counters say what is needed; of a latency agent.
LOAD_RECORDS_MAX = 1
LATENCY_RECORDS_MAX = 1_000_000
SEED_BOUND = 1 << 63
NS_PER_S = 1_000_000_000
#: Starting the agents of a load, their common start, and what they report.
AGENTS_NS = 1_500_000_000

_SHARED = ("response_time_ns", "service_time_ns", "send_lag_ns", "failed_ratio", "request_cpu_ns")
METRICS = (
    *(metric for metric in LOAD_METRICS if metric.name in _SHARED),
    Metric(
        name="response_mean_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="Mean response time of a trial",
        method="mean of response_time_ns over the requests of one trial",
    ),
    Metric(
        name="fleet_offered_rps",
        unit="1/s",
        direction=Direction.NONE,
        meaning="Requests a second that were due, of load and latency agents together",
        method="requests due in whole intervals of the measure phase / their length, all agents",
    ),
    Metric(
        name="fleet_achieved_rps",
        unit="1/s",
        direction=Direction.HIGHER,
        meaning="Correct replies a second from all servers together",
        method="correct replies that came in whole intervals of the measure phase / their length",
    ),
    Metric(
        name="answered_ratio",
        unit="ratio",
        direction=Direction.HIGHER,
        meaning="Correct replies by requests that were due meanwhile; below 99 % the load is over "
        "capacity",
        method="fleet_achieved_rps / fleet_offered_rps",
    ),
    Metric(
        name="replies_count",
        unit="count",
        direction=Direction.NONE,
        meaning="Correct replies of a trial's measure phase",
        method="correct replies that came in whole intervals of the measure phase, all agents",
    ),
    Metric(
        name="received_bytes_per_s",
        unit="bytes/s",
        direction=Direction.NONE,
        meaning="Bytes of replies a second, protocol headers included",
        method="bytes read in whole intervals of the measure phase / their length, all agents",
    ),
    Metric(
        name="sent_bytes_per_s",
        unit="bytes/s",
        direction=Direction.NONE,
        meaning="Bytes of requests a second, protocol headers included",
        method="bytes written in whole intervals of the measure phase / their length, all agents",
    ),
    Metric(
        name="best_target_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="Median response time of the fastest server",
        method="smallest of the servers' medians, all agents, measure phase",
    ),
    Metric(
        name="worst_target_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="Median response time of the slowest server",
        method="largest of the servers' medians, all agents, measure phase",
    ),
    Metric(
        name="target_spread_ratio",
        unit="ratio",
        direction=Direction.LOWER,
        meaning="How much slower the slowest server is than the fastest; 0 is alike",
        method="worst_target_ns / best_target_ns - 1",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FleetBench:
    """Load on many servers at once, with the response times of every one of them."""

    name: str = "fleet"
    question: str = "What latency do N servers give under one load, in N sandboxes or in one?"
    headline: str = "response_time_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns the load's own length, starts and stops, and the agents' start."""
        settings = cast("FleetSettings", experiment.fleet)
        is_spread = point.values["layout"] == Layout.SANDBOXES
        servers_ns = cost.batch_ns(int(point.values["count"]) if is_spread else 1)
        return settings.warm_up_ns + settings.duration_ns + servers_ns + AGENTS_NS

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return FleetTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples of the measure phase."""
        return derive_fleet(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns the verdict on the load: saturated, generator-bound, failed, miscounted."""
        return judge_fleet(tables, point)


class FleetTrial:
    """Starts the servers and the agents, and lets the agents offer one load together."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("FleetSettings", context.experiment.fleet)
        values = context.spec.point.values
        count, is_spread = int(values["count"]), values["layout"] == Layout.SANDBOXES
        self._servers = ServingSandboxes(
            context,
            sandboxes=count if is_spread else 1,
            servers=1 if is_spread else count,
            workers=1 if is_spread else count,
        )
        self._team: Team | None = None
        self.tables = TrialTables()
        self.findings: list[Finding] = self._servers.findings

    def set_up(self) -> None:
        """Starts the servers, then the agents."""
        self._servers.start()
        settings = self._settings
        names = [f"{LOAD}-{number}" for number in range(settings.load_agents)]
        names += [f"{LATENCY}-{number}" for number in range(settings.latency_agents)]
        self._team = offered.start_team(names, self._context)

    def warm_up(self) -> None:
        """Makes sure that every server answers; the load has a warm-up phase of its own."""
        self._servers.call_each()

    def measure(self) -> None:
        """Lets all agents offer their load from one instant on."""
        team = cast("Team", self._team)
        requests = self._requests()
        self._servers.mark()
        with self._context.window("fleet"):
            outcome = team.run(requests)
        for name, request in requests.items():
            share_rps = (request.rate_rps or 0.0) / request.agents
            offered.keep_agent(self.tables, name, outcome.by_agent[name], offered_rps=share_rps)
        offered.keep_targets(self.tables, outcome.merged(), self._servers.servers)
        latency = [name for name in requests if name.startswith(LATENCY)]
        offered.keep_requests(self.tables, outcome.merged(*latency))
        if outcome.was_interrupted:
            raise KeyboardInterrupt

    def _requests(self) -> dict[str, LoadRequest]:
        settings, values = self._settings, self._context.spec.point.values
        common = LoadRequest(
            targets=self._servers.targets,
            operation=settings.operation,
            payload_bytes=settings.payload_bytes,
            demand=str(values["demand"]),
            arrival=ARRIVAL,
            warm_up_ns=settings.warm_up_ns,
            measure_ns=settings.duration_ns,
            drain_ns=settings.drain_ns,
            request_timeout_ns=settings.request_timeout_ns,
        )
        shares = dealt(settings.connections, settings.load_agents)
        load = {
            f"{LOAD}-{number}": dataclasses.replace(
                common,
                rate_rps=float(values["rate_rps"]),
                agent=number,
                agents=settings.load_agents,
                connections=connections,
                threads=settings.threads,
                records_max=LOAD_RECORDS_MAX,
                seed=self._context.spec.seed,
            )
            for number, connections in enumerate(shares)
        }
        latency = {
            f"{LATENCY}-{number}": dataclasses.replace(
                common,
                rate_rps=settings.latency_rate_rps,
                agent=number,
                agents=settings.latency_agents,
                connections=len(self._servers.targets),
                records_max=LATENCY_RECORDS_MAX,
                # Arrivals of its own: else it would send whenever the load agents do.
                seed=(self._context.spec.seed + 1) % SEED_BOUND,
            )
            for number in range(settings.latency_agents)
        }
        return {**load, **latency}

    def drain(self) -> None:
        """Asks the servers what they have counted."""
        self._servers.count(self.tables)

    def tear_down(self) -> None:
        """Ends the agents and removes the sandboxes that this trial made."""
        if self._team is not None:
            self._team.close()
            self._team = None
        self._servers.stop()


def dealt(count: int, hands: int) -> list[int]:
    """Deals a number out as evenly as it goes, without a remainder: 10 to 3 gives 4, 3, 3."""
    return [count // hands + (hand < count % hands) for hand in range(hands)]


def derive_fleet(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns response times of the latency agents, rates of all, and the spread over servers."""
    del point  # one formula for every layout and rate
    values = {**_of_requests(tables), **_of_intervals(tables), **_of_targets(tables)}
    for name, value in (
        ("request_cpu_ns", offered.request_cpu_ns(tables)),
        ("failed_ratio", offered.failed_ratio(tables)),
    ):
        values[name] = [] if value is None else [value]
    return tuple(Samples(metric=name, values=taken) for name, taken in values.items() if taken)


def _of_requests(tables: Mapping[str, pl.DataFrame]) -> dict[str, list[float]]:
    measured = offered.measured_requests(tables)
    if measured is None:
        return {}
    correct = measured.filter(measured["outcome"] == offered.OUTCOME_OK)
    response = offered.spans(correct, "done_at_ns", "intended_at_ns")
    return {
        "response_time_ns": response,
        "service_time_ns": offered.spans(correct, "done_at_ns", "sent_at_ns"),
        "send_lag_ns": offered.spans(measured, "sent_at_ns", "intended_at_ns"),
        "response_mean_ns": [sum(response) / len(response)] if response else [],
    }


def _of_intervals(tables: Mapping[str, pl.DataFrame]) -> dict[str, list[float]]:
    intervals = offered.whole_intervals(tables)
    if intervals is None:
        return {}
    due, answered = (offered.rate_of(intervals, f"{name}_count") for name in ("intended", "ok"))
    return {
        "fleet_offered_rps": [due],
        "fleet_achieved_rps": [answered],
        "answered_ratio": [answered / due] if due else [],
        "replies_count": [float(intervals["ok_count"].sum())],
        "received_bytes_per_s": [offered.rate_of(intervals, "received_bytes")],
        "sent_bytes_per_s": [offered.rate_of(intervals, "sent_bytes")],
    }


def _of_targets(tables: Mapping[str, pl.DataFrame]) -> dict[str, list[float]]:
    targets = tables.get("targets")
    if targets is None:
        return {}
    medians = [float(value) for value in targets["response_ns_p50"].drop_nulls().to_list()]
    if len(medians) < targets.height:
        # A server without any reply has no median, so no spread is that of all servers.
        return {}
    best, worst = min(medians), max(medians)
    return {
        "best_target_ns": [best],
        "worst_target_ns": [worst],
        "target_spread_ratio": [worst / best - 1] if best > 0 else [],
    }


def _slowest(tables: Mapping[str, pl.DataFrame]) -> pl.Series:
    """The response times that the load agents' lateness is held against: the servers' p99."""
    return tables["targets"]["response_ns_p99"].drop_nulls()


def judge_fleet(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns why the load's numbers may not be taken at face value."""
    del point  # one rule for every layout and rate
    if "loads" not in tables:
        return ()
    findings = offered.judge_failures(tables) + offered.judge_counters(tables)
    intervals = offered.whole_intervals(tables)
    saturated = (
        None
        if intervals is None
        else check_answered(
            due_count=int(intervals["intended_count"].sum()),
            answered_count=int(intervals["ok_count"].sum()),
        )
    )
    findings += [] if saturated is None else [saturated]
    findings += offered.judge_generator_cpu(tables)
    if saturated is None:
        # Behind a saturated service connections fill up: what could not leave is its doing.
        findings += offered.judge_rate(tables, (LOAD, LATENCY), law=ARRIVAL)
    measured = offered.measured_requests(tables)
    if measured is not None:
        correct = measured.filter(measured["outcome"] == offered.OUTCOME_OK)
        response_ns = correct["done_at_ns"] - correct["intended_at_ns"]
        findings += offered.judge_pacing(tables, {LATENCY: response_ns, LOAD: _slowest(tables)})
    return tuple(findings)
