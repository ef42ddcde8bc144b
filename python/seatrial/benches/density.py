"""What memory does an idle sandbox cost, and what CPU, when ``count`` of them live at once?

The trial starts ``count`` idle sandboxes, waits until their memory has settled, and reads it by
several methods side by side, because none is right alone: PSS misses kernel memory, the cgroup
charge misses shims outside it, and the drop of MemAvailable moves with every neighbour. Limits are
verified from outside, and what a guest believes to have stands beside what the host pays. At the
point ``fill`` it starts as many as fit under the bounds that were asked for. METHODOLOGY 4 says
what each number can tell.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.density_books import DensityBooks
from seatrial.benches.density_derive import derive_density, judge_density
from seatrial.benches.density_metrics import METRICS
from seatrial.benches.room import (
    MARGIN_RATIO,
    Needs,
    check_room,
    descriptor_count,
    needs_of,
    room_now,
    stop_grace_ns,
)
from seatrial.benches.settling import SETTLE_INTERVAL_NS, read_until_settled
from seatrial.drivers.base import SandboxSpec
from seatrial.errors import NoRoom, TrialFailed
from seatrial.model.metric import Metric
from seatrial.probes.memory import read_host_memory
from seatrial.stats.validity import check_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.drivers.base import DriverSession
    from seatrial.drivers.cost import Cost
    from seatrial.launch.plan import StartResult
    from seatrial.model.experiment import DensityBound, DensitySettings, Experiment
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

STARTS_AT_ONCE = 4
START_DEADLINE_NS = 60_000_000_000
GONE_TIMEOUT_NS = 10_000_000_000
NS_PER_S = 1_000_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DensityBench:
    """Memory and idle CPU at one count of live sandboxes."""

    name: str = "density"
    question: str = "What memory does an idle sandbox cost, and how does it grow with their count?"
    headline: str = "memory_pss_bytes"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns starting, settling, the idle window and stopping."""
        settings = cast("DensitySettings", experiment.density)
        if "fill" in point.values and settings.bound is not None:
            return cost.batch_ns(settings.bound.count)
        brought_up_ns = cost.batch_ns(int(point.values["count"]))
        return brought_up_ns + settings.idle_window_ns + NS_PER_S

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return DensityTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples from the settled readings."""
        return derive_density(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns what was wrong with readings and limits, and what ended a fill."""
        return judge_density(tables, point)


class DensityTrial:
    """Starts ``count`` idle sandboxes, or as many as fit, and reads what they hold."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("DensitySettings", context.experiment.density)
        values = context.spec.point.values
        self._bound = self._settings.bound if "fill" in values else None
        self._count = int(values["count"]) if self._bound is None else 0
        self._limit_bytes = cast("int | None", values.get("memory_bytes"))
        self._ids: list[str] = []
        self._next_index = 0
        self._session: DriverSession | None = None
        self._has_settled = False
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    def set_up(self) -> None:
        """Reads the host's memory, then starts the sandboxes, four at a time.

        Raises:
            NoRoom: the host cannot take so many.
            TrialFailed: some did not come up.
        """
        session = self._session = self._context.open_session(self._context.spec.driver)
        self._books = DensityBooks(session, self._ids, before=read_host_memory())
        descriptors_before = descriptor_count(session.launcher.pid)
        self._start(1)
        # The first one alone tells what each of the others will take.
        needs = needs_of(session, self._ids[0], descriptors_before_count=descriptors_before)
        if self._bound is not None:
            self._fill(self._bound, needs)
            return
        room = room_now(session.launcher.pid)
        check_room(self._count - 1, needs=needs, room=room, driver=session.name)
        while len(self._ids) < self._count:
            self._start(min(STARTS_AT_ONCE, self._count - len(self._ids)))

    def _start(self, count: int) -> tuple[StartResult, ...]:
        """Starts some more.

        Raises:
            TrialFailed: one did not come up; says how many did.
        """
        session = self._live()
        spec = SandboxSpec(
            role=("idle",),
            network=self._context.experiment.network,
            memory_limit_bytes=self._limit_bytes,
            ready="ready",
            deadline_ns=START_DEADLINE_NS,
        )
        before = len(self._ids)
        first, self._next_index = self._next_index, self._next_index + count
        plans = [session.plan(spec, first + number) for number in range(count)]
        self._ids += [plan.id for plan in plans]
        batch = session.launcher.start(
            plans, wait_for="ready", hold=True, timeout_ns=2 * START_DEADLINE_NS
        )
        failed = [result for result in batch.results if result.outcome != "ok"]
        if failed:
            raise TrialFailed(
                f"{self._context.spec.driver}: only {before} sandboxes came up; {failed[0].id}: "
                f"{failed[0].outcome}: {failed[0].error}: {failed[0].stderr_tail[-400:]}",
                hint="lower [density] count, or see 'seatrial doctor'",
            )
        return batch.results

    def _fill(self, bound: DensityBound, needs: Needs) -> None:
        """Starts more until a bound is reached; keeps a row for each step."""
        session = self._live()
        stopped_by: str | None = None
        while stopped_by is None:
            available_bytes = read_host_memory().available_bytes
            step = min(STARTS_AT_ONCE, bound.count - len(self._ids))
            next_bytes = round(step * needs.memory_bytes * MARGIN_RATIO)
            slowest_ns: int | None = None
            count = len(self._ids)
            if step <= 0:
                stopped_by = "count"
            elif available_bytes - next_bytes < bound.memory_reserve_bytes:
                stopped_by = "memory"
            else:
                try:
                    room = room_now(session.launcher.pid)
                    check_room(step, needs=needs, room=room, driver=session.name)
                    results = self._start(step)
                except NoRoom as error:
                    stopped_by = f"no room: {error}"
                except TrialFailed as error:
                    stopped_by = f"failure: {error}"
                else:
                    slowest_ns = max(
                        result.ready_at_ns - result.due_at_ns
                        for result in results
                        if result.ready_at_ns is not None
                    )
                    stopped_by = "ready" if slowest_ns > bound.ready_ns else None
                    count = count if stopped_by else len(self._ids)
            self.tables.add(
                "fill",
                {
                    "count": count,
                    "available_bytes": available_bytes,
                    "slowest_ready_ns": slowest_ns,
                    "stopped_by": stopped_by,
                },
            )

    def warm_up(self) -> None:
        """Reads memory until three readings in a row agree, at most for the settle time-out."""
        if self._bound is not None:
            return
        started_ns = time.monotonic_ns()
        self._has_settled = read_until_settled(
            lambda: self._read(started_ns), timeout_ns=self._settings.settle_timeout_ns
        )

    def measure(self) -> None:
        """Leaves the sandboxes alone for a while, then takes the readings that count."""
        if self._bound is not None:
            self.tables.add("fill", self._books.alive_row())
            return
        settled_at_ns = time.monotonic_ns()
        with self._context.window("idle"):
            idle = self._books.begin_idle()
            time.sleep(self._settings.idle_window_ns / NS_PER_S)
            row = self._books.end_idle(idle)
        self.tables.add("idle", row)
        for number in range(self._settings.readings):
            if number:
                time.sleep(SETTLE_INTERVAL_NS / NS_PER_S)
            self._read(settled_at_ns, is_final=True)
        for row in self._books.role_rows():
            self.tables.add("roles", row)
        # Last, since the channel is out of the launcher's hands afterwards.
        self.tables.add("limits", self._books.limits_row(self._limit_bytes))

    def drain(self) -> None:
        """Does nothing: idle sandboxes have no work under way."""

    def tear_down(self) -> None:
        """Stops all sandboxes, sees them go and releases them."""
        session = self._session
        if session is None:
            return
        grace_ns = stop_grace_ns(len(self._ids))
        stopped = session.stop_watched(
            self._ids, grace_ns=grace_ns, gone_timeout_ns=GONE_TIMEOUT_NS
        )
        stayed = [plan_id for plan_id, gone_at_ns in stopped.gone_at_ns.items() if not gone_at_ns]
        finding = check_leftovers(leftovers=[f"sandbox {plan_id}" for plan_id in stayed])
        if finding is not None:
            self.findings.append(finding)
        for plan_id in self._ids:
            session.release(plan_id)

    def _live(self) -> DriverSession:
        if self._session is None:
            raise TrialFailed("density: a phase ran before set-up")
        return self._session

    def _read(self, since_ns: int, *, is_final: bool = False) -> int:
        """Reads memory once by every method; returns the PSS of all sandboxes (bytes)."""
        row = self._books.memory_row()
        row.update(
            is_settled=self._has_settled,
            is_final=is_final,
            since_last_start_ns=time.monotonic_ns() - since_ns,
        )
        self.tables.add("memory", row)
        return cast("int", row["pss_bytes"] or 0)
