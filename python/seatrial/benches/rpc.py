"""How many calls a second does one server take from many clients, and is every reply right?

Clients are processes with some threads; each thread has one connection and calls again as soon as
it has its reply. In mode ``checksum`` the server makes a fresh payload for each reply and the
client verifies all of it. What clients count and what the server counts must agree. METHODOLOGY
5.9.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from seatrial.benches import offered
from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.load import METRICS as LOAD_METRICS
from seatrial.benches.servers import ServingSandboxes
from seatrial.errors import TrialFailed
from seatrial.loadgen import LoadRequest
from seatrial.model.experiment import RpcMode
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, Metric
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.agents.outcome import LoadOutcome
    from seatrial.agents.team import Team
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment, RpcSettings
    from seatrial.model.plan import Point

CLIENT = "client"
RECORDS_MAX = 100_000
NS_PER_S = 1_000_000_000
#: How the engine's words begin when a payload is not what it should be, in either direction.
CORRUPTION = ("the reply is corrupt", "did not arrive as sent")

METRICS = (
    Metric(
        name="rpc_rps",
        unit="1/s",
        direction=Direction.HIGHER,
        meaning="Correct replies a second, all clients together",
        method="sum over clients of correct replies in whole intervals of the measure phase / "
        "their length",
    ),
    Metric(
        name="client_rps",
        unit="1/s",
        direction=Direction.HIGHER,
        meaning="Correct replies a second that one client got",
        method="one value a client: correct replies in whole intervals of the measure phase / "
        "their length",
    ),
    *(
        metric
        for metric in LOAD_METRICS
        if metric.name in {"service_time_ns", "failed_ratio", "request_cpu_ns"}
    ),
    Metric(
        name="timeouts_count",
        unit="count",
        direction=Direction.LOWER,
        meaning="Calls without a whole reply in time, in a trial",
        method="requests that timed out in all phases, all clients",
    ),
    Metric(
        name="corrupt_count",
        unit="count",
        direction=Direction.LOWER,
        meaning="Replies whose payload or sum was not what it should be, in a trial",
        method="application errors of all phases, all clients; a trial with one has failed",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RpcBench:
    """Stress of one rpc server by many synchronous clients."""

    name: str = "rpc"
    question: str = "How many calls a second does one server take, and is every reply right?"
    headline: str = "rpc_rps"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns the clients' time, a start and stop, and the agents' start."""
        settings = cast("RpcSettings", experiment.rpc)
        agents_ns = 1_000_000_000 + int(point.values["clients"]) * 250_000_000
        return settings.warm_up_ns + settings.client_duration_ns + cost.life_ns + agents_ns

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return RpcTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples of the measure phase."""
        return derive_rpc(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns whether counts agree, and what failed."""
        return judge_rpc(tables, point)


class RpcTrial:
    """Starts the server and the clients, and lets them call for as long as they should."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("RpcSettings", context.experiment.rpc)
        self._clients = int(context.spec.point.values["clients"])
        self._servers = ServingSandboxes(
            context, sandboxes=1, servers=1, workers=self._settings.workers
        )
        self._team: Team | None = None
        self.tables = TrialTables()
        self.findings: list[Finding] = self._servers.findings

    def set_up(self) -> None:
        """Starts the clients, then the server, whose life begins with its readiness."""
        names = [f"{CLIENT}-{number}" for number in range(self._clients)]
        self._team = offered.start_team(names, self._context)
        self._servers.start()

    def warm_up(self) -> None:
        """Makes sure that the server answers; the clients have a warm-up of their own."""
        self._servers.call_each()

    def measure(self) -> None:
        """Lets all clients call from one instant on."""
        team = cast("Team", self._team)
        requests = self._requests()
        self._servers.mark()
        with self._context.window("rpc"):
            outcome = team.run(requests)
        for name in requests:
            offered.keep_agent(self.tables, name, outcome.by_agent[name], offered_rps=None)
        merged = outcome.merged()
        offered.keep_targets(self.tables, merged, self._servers.servers)
        offered.keep_requests(self.tables, merged)
        if outcome.was_interrupted:
            raise KeyboardInterrupt
        self._check_life(merged)

    def _requests(self) -> dict[str, LoadRequest]:
        settings, values = self._settings, self._context.spec.point.values
        is_checked = values["mode"] == RpcMode.CHECKSUM
        threads = int(values["threads"])
        return {
            f"{CLIENT}-{number}": LoadRequest(
                targets=self._servers.targets,
                operation=str(values["mode"]),
                options={"reply_bytes": str(settings.payload_bytes)} if is_checked else {},
                connections=threads,
                threads=threads,
                agent=number,
                agents=self._clients,
                warm_up_ns=settings.warm_up_ns,
                measure_ns=settings.client_duration_ns,
                drain_ns=settings.request_timeout_ns,
                request_timeout_ns=settings.request_timeout_ns,
                interval_ns=settings.interval_ns,
                records_max=max(threads, RECORDS_MAX // self._clients),
                seed=self._context.spec.seed,
            )
            for number in range(self._clients)
        }

    def _check_life(self, merged: LoadOutcome) -> None:
        """A server that ran longer than it was to run was not the one that was asked for."""
        used_ns = merged.ended_at_ns - self._servers.ready_at_ns
        if used_ns > self._settings.server_duration_ns:
            raise TrialFailed(
                f"the clients were done {format_duration(used_ns)} after the server was ready, "
                f"which was to serve for {format_duration(self._settings.server_duration_ns)} only",
                hint="raise rpc.server_duration",
            )

    def drain(self) -> None:
        """Asks the server what it has counted, and fails the trial if a reply was corrupt."""
        self._servers.count(self.tables)
        corrupt = corrupt_reply(self.tables.rows.get("failures", []))
        if corrupt is not None:
            self.findings.append(corrupt)
            raise TrialFailed(corrupt.message, code="corrupt-reply")

    def tear_down(self) -> None:
        """Ends the clients, then the server."""
        if self._team is not None:
            self._team.close()
            self._team = None
        self._servers.stop()


def corrupt_reply(failures: list[dict[str, object]]) -> Finding | None:
    """The finding about corrupt payloads, with the words of the first; None: there was none."""
    found = [
        row for row in failures if any(words in str(row["reason"]) for words in CORRUPTION)
    ]  # fmt: skip - one condition
    if not found:
        return None
    count = sum(int(str(row["requests_count"])) for row in found)
    return Finding(
        code="corrupt-reply",
        severity=Severity.ERROR,
        message=f"{count} payloads were corrupt; {found[0]['agent']}: {found[0]['reason']}",
        evidence={"corrupt_count": count, "reason": str(found[0]["reason"])},
    )


def derive_rpc(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns rates, service times, CPU and the two kinds of failures."""
    del point  # one formula for every mode
    loads, intervals = tables.get("loads"), offered.whole_intervals(tables)
    if loads is None:
        return ()
    values: dict[str, list[float]] = {
        "timeouts_count": [float(loads["timeout_count"].sum())],
        "corrupt_count": [float(loads["application_error_count"].sum())],
    }
    if intervals is not None:
        agents = sorted(intervals["agent"].unique().to_list())
        values["client_rps"] = [
            offered.rate_of(intervals.filter(intervals["agent"] == agent), "ok_count")
            for agent in agents
        ]
        values["rpc_rps"] = [sum(values["client_rps"])]
    measured = offered.measured_requests(tables)
    if measured is not None:
        correct = measured.filter(measured["outcome"] == offered.OUTCOME_OK)
        values["service_time_ns"] = offered.spans(correct, "done_at_ns", "sent_at_ns")
    for name, value in (
        ("request_cpu_ns", offered.request_cpu_ns(tables)),
        ("failed_ratio", offered.failed_ratio(tables)),
    ):
        values[name] = [] if value is None else [value]
    return tuple(Samples(metric=name, values=taken) for name, taken in values.items() if taken)


def judge_rpc(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns why the numbers may not be taken at face value."""
    del point  # one rule for every mode
    if "loads" not in tables:
        return ()
    return (
        *offered.judge_failures(tables),
        *offered.judge_counters(tables),
        *offered.judge_generator_cpu(tables),
    )
