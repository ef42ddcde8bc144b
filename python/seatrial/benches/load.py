"""What latency does a service in the sandbox give at a given load, and what is its peak?

One sandbox runs the guest's server behind a veth pair (the plain ``process`` too, so that the
price of the veth is in every number alike). A *closed* point keeps ``connections`` connections
busy and tells capacity; an *open* point sends arrivals by a law and a rate, whatever the replies
do, and tells the response time a user would feel. METHODOLOGY 5.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.held import HeldSandbox
from seatrial.benches.load_books import interval_rows, load_row
from seatrial.benches.load_judge import derive_load, judge_load
from seatrial.benches.load_request import request_of
from seatrial.loadgen import run_load
from seatrial.model.experiment import NetworkMode
from seatrial.model.metric import Direction, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment, LoadSettings
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

__all__ = ["METRICS", "LoadBench", "LoadTrial", "derive_load", "judge_load"]

SERVICE_PORT = 7000
#: Preparing a sandbox that is held, and the records of a load.
HELD_NS = 200_000_000

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
        name="wire_time_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="From the request leaving the host's kernel to the reply reaching it",
        method="kernel_received_at - kernel_sent_at of correct replies intended in the measure "
        "phase, where both were stamped",
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

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns the load's own length and a start and stop."""
        del point
        settings = cast("LoadSettings", experiment.load)
        load_ns = settings.warm_up_ns + settings.duration_ns + settings.cool_down_ns
        return load_ns + HELD_NS + cost.life_ns

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
                self._settings.protocol,
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
        request = request_of(
            self._settings,
            self._context.spec.point,
            target=self._target,
            seed=self._context.spec.seed,
        )
        cgroups = self._sandbox.session.cgroups(self._sandbox.plan_id)
        with self._context.window("load"):
            before = cgroups.read_cpu()
            result = run_load(request)
            after = cgroups.read_cpu()
        cpu_ns = None if before is None or after is None else after.total_ns - before.total_ns
        self.tables.put("requests", result)
        self.tables.add("loads", {**load_row(request, result), "sandbox_cpu_ns": cpu_ns})
        for row in interval_rows(result):
            self.tables.add("intervals", row)
        if result.was_interrupted:
            raise KeyboardInterrupt

    def drain(self) -> None:
        """Does nothing: the engine drained before it returned."""

    def tear_down(self) -> None:
        """Stops the server."""
        self._sandbox.stop()
