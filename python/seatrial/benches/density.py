"""What memory does an idle sandbox cost, and what CPU, when ``count`` of them live at once?

The trial starts ``count`` idle sandboxes, waits until their memory has settled, and reads it by
several methods side by side, because none is right alone: PSS misses kernel memory, the cgroup
charge misses shims outside it, and the drop of MemAvailable moves with every neighbour.
METHODOLOGY 4 says what each can tell.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.drivers.base import SandboxSpec
from seatrial.errors import TrialFailed
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, Metric
from seatrial.probes.memory import read_host_memory, read_processes_memory
from seatrial.stats.validity import check_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.drivers.base import DriverSession
    from seatrial.model.experiment import DensitySettings, Experiment
    from seatrial.model.plan import Point

STARTS_AT_ONCE = 4
START_DEADLINE_NS = 60_000_000_000
STOP_GRACE_NS = 5_000_000_000
GONE_TIMEOUT_NS = 10_000_000_000
SETTLE_INTERVAL_NS = 250_000_000
SETTLED_CHANGE_RATIO = 0.01
IDLE_WINDOW_NS = 500_000_000
NS_PER_S = 1_000_000_000


def _memory(name: str, meaning: str, method: str) -> Metric:
    return Metric(
        name=name, unit="bytes", direction=Direction.LOWER, meaning=meaning, method=method
    )


METRICS = (
    _memory(
        "memory_pss_bytes",
        "Proportional set size of one sandbox's processes, runtime included",
        "sum of PSS over the process trees of all sandboxes / count, once settled",
    ),
    _memory(
        "memory_uss_bytes",
        "Memory that only this sandbox's processes map",
        "sum of private pages over the process trees / count, once settled",
    ),
    _memory(
        "memory_cgroup_bytes",
        "What the kernel charges to one sandbox's cgroup, kernel memory and page cache included",
        "sum of the outer cgroups' charge / count, once settled",
    ),
    _memory(
        "memory_available_drop_bytes",
        "Drop of the host's MemAvailable for one sandbox; neighbours move it",
        "(MemAvailable before the first start - once settled) / count",
    ),
    _memory(
        "memory_pss_total_bytes",
        "PSS of all sandboxes together; its slope over count is the cost of one more",
        "sum of PSS over the process trees of all sandboxes, once settled",
    ),
    _memory(
        "memory_cgroup_total_bytes",
        "Cgroup charge of all sandboxes together",
        "sum of the outer cgroups' charge, once settled",
    ),
    Metric(
        name="idle_cpu_ratio",
        unit="ratio",
        direction=Direction.LOWER,
        meaning="CPU that one idle sandbox uses, as a share of one processor",
        method="cgroup CPU time of all sandboxes over a 0.5 s window / count / window length",
    ),
    Metric(
        name="settle_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="How long memory took to settle after the last start",
        method="until two PSS readings 250 ms apart differ by less than 1 %",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DensityBench:
    """Memory and idle CPU at one count of live sandboxes."""

    name: str = "density"
    question: str = "What memory does an idle sandbox cost, and how does it grow with their count?"
    headline: str = "memory_pss_bytes"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, driver: str) -> int:
        """Returns starting, settling, the idle window and stopping."""
        del experiment
        each_ns = 180_000_000 if driver.startswith("runsc") else 20_000_000
        return int(point.values["count"]) * each_ns + IDLE_WINDOW_NS + 400_000_000

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return DensityTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples from the last, settled reading."""
        return derive_density(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns whether memory was still moving when it was read."""
        return judge_density(tables, point)


class DensityTrial:
    """Starts ``count`` idle sandboxes and reads what they hold."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("DensitySettings", context.experiment.density)
        self._count = int(context.spec.point.values["count"])
        self._ids: list[str] = []
        self._session: DriverSession | None = None
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    def set_up(self) -> None:
        """Reads the host's memory, then starts the sandboxes, four at a time."""
        session = self._session = self._context.open_session(self._context.spec.driver)
        self._before = read_host_memory()
        spec = SandboxSpec(
            role=("idle",),
            network=self._context.experiment.network,
            ready="ready",
            deadline_ns=START_DEADLINE_NS,
        )
        for first in range(0, self._count, STARTS_AT_ONCE):
            indices = range(first, min(first + STARTS_AT_ONCE, self._count))
            plans = [session.plan(spec, index) for index in indices]
            self._ids += [plan.id for plan in plans]
            batch = session.launcher.start(
                plans, wait_for="ready", hold=True, timeout_ns=2 * START_DEADLINE_NS
            )
            failed = [result for result in batch.results if result.outcome != "ok"]
            if failed:
                raise TrialFailed(
                    f"{self._context.spec.driver}: only {first} of {self._count} sandboxes came "
                    f"up; {failed[0].id}: {failed[0].outcome}: {failed[0].error}: "
                    f"{failed[0].stderr_tail[-400:]}",
                    hint="lower [density] count, or see 'seatrial doctor'",
                )

    def warm_up(self) -> None:
        """Reads memory until two readings agree, at most the settle time-out."""
        started_ns = time.monotonic_ns()
        previous_bytes = self._read(started_ns, is_settled=False)
        while True:
            time.sleep(SETTLE_INTERVAL_NS / NS_PER_S)
            now_bytes = self._read(started_ns, is_settled=False)
            if abs(now_bytes - previous_bytes) <= SETTLED_CHANGE_RATIO * max(previous_bytes, 1):
                self._has_settled = True
                return
            if time.monotonic_ns() - started_ns >= self._settings.settle_timeout_ns:
                self._has_settled = False
                return
            previous_bytes = now_bytes

    def measure(self) -> None:
        """Takes the reading that counts, then the CPU that idling costs."""
        self._settled_at_ns = time.monotonic_ns()
        with self._context.window("idle"):
            before_ns, opened_ns = self._cpu_ns(), time.monotonic_ns()
            time.sleep(IDLE_WINDOW_NS / NS_PER_S)
            after_ns, closed_ns = self._cpu_ns(), time.monotonic_ns()
        self.tables.add(
            "idle",
            {
                "count": self._count,
                "window_ns": closed_ns - opened_ns,
                "cpu_ns": None if None in (before_ns, after_ns) else after_ns - before_ns,  # type: ignore[operator]  # both are checked in the condition
            },
        )
        self._read(self._settled_at_ns, is_settled=self._has_settled, is_final=True)

    def drain(self) -> None:
        """Does nothing: idle sandboxes have no work under way."""

    def tear_down(self) -> None:
        """Stops all sandboxes, waits until they are gone and releases them."""
        session = self._session
        if session is None:
            return
        session.launcher.stop(how="request", grace_ns=STOP_GRACE_NS)
        gone = session.wait_all_gone(self._ids, time.monotonic_ns() + GONE_TIMEOUT_NS)
        stayed = [plan_id for plan_id in self._ids if gone[plan_id] is None]
        finding = check_leftovers(leftovers=[f"sandbox {plan_id}" for plan_id in stayed])
        if finding is not None:
            self.findings.append(finding)
        for plan_id in self._ids:
            session.release(plan_id)

    def _live(self) -> DriverSession:
        if self._session is None:
            raise TrialFailed("density: a phase ran before set-up")
        return self._session

    def _cpu_ns(self) -> int | None:
        books = [self._live().cgroups(plan_id).read_cpu() for plan_id in self._ids]
        known = [book.total_ns for book in books if book is not None]
        return sum(known) if len(known) == len(books) else None

    def _read(self, started_ns: int, *, is_settled: bool, is_final: bool = False) -> int:
        """Reads memory once by every method; returns the PSS of all sandboxes (bytes)."""
        session = self._live()
        found = [list(session.processes(plan_id)) for plan_id in self._ids]
        pids = [pid for members in found for pid in members]
        processes = read_processes_memory(pids)
        charges = [session.cgroups(plan_id).read_memory() for plan_id in self._ids]
        known = [charge for charge in charges if charge is not None]
        host = read_host_memory()
        is_readable = processes.process_count > 0
        self.tables.add(
            "memory",
            {
                "count": self._count,
                "is_settled": is_settled,
                "is_final": is_final,
                "since_last_start_ns": time.monotonic_ns() - started_ns,
                "processes_count": processes.process_count,
                "unreadable_count": processes.unreadable_count,
                "dead_count": sum(not members for members in found),
                "pss_bytes": processes.pss_bytes if is_readable else None,
                "uss_bytes": processes.uss_bytes if is_readable else None,
                "rss_bytes": processes.rss_bytes if is_readable else None,
                "cgroup_bytes": sum(c.usage_bytes for c in known)
                if len(known) == len(charges)
                else None,
                "mem_available_drop_bytes": self._before.available_bytes - host.available_bytes,
                "slab_growth_bytes": host.slab_bytes - self._before.slab_bytes,
            },
        )
        return processes.pss_bytes


def derive_density(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns one sample of each metric from the final reading."""
    memory, idle = tables.get("memory"), tables.get("idle")
    if memory is None:
        return ()
    final = memory.filter(memory["is_final"])
    if final.height == 0:
        return ()
    row = final.row(0, named=True)
    count = int(point.values["count"])
    if row["dead_count"] or row["unreadable_count"]:
        # A sum over some of the sandboxes is not the sum: judge_density says so.
        row = {**row, "pss_bytes": None, "uss_bytes": None}
    values: dict[str, float | None] = {
        "memory_pss_bytes": _share(row["pss_bytes"], count),
        "memory_uss_bytes": _share(row["uss_bytes"], count),
        "memory_available_drop_bytes": _share(row["mem_available_drop_bytes"], count),
        "memory_pss_total_bytes": row["pss_bytes"],
        "memory_cgroup_total_bytes": row["cgroup_bytes"],
        "memory_cgroup_bytes": _share(row["cgroup_bytes"], count),
    }
    settling = memory.filter(~memory["is_final"])
    if settling.height > 0 and row["is_settled"]:
        values["settle_ns"] = float(settling["since_last_start_ns"].to_list()[-1])
    if idle is not None and idle.height > 0:
        book = idle.row(0, named=True)
        if book["cpu_ns"] is not None:
            values["idle_cpu_ratio"] = book["cpu_ns"] / count / book["window_ns"]
    return tuple(
        Samples(metric=name, values=(float(value),))
        for name, value in values.items()
        if value is not None
    )


def _share(total: int | None, count: int) -> float | None:
    return None if total is None else total / count


def judge_density(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns what was wrong with the final reading: moving memory, or missing processes."""
    memory = tables.get("memory")
    if memory is None:
        return ()
    final = memory.filter(memory["is_final"])
    if final.height == 0:
        return ()
    row = final.row(0, named=True)
    findings: list[Finding] = []
    if not row["is_settled"]:
        findings.append(
            Finding(
                code="not-settled",
                severity=Severity.WARNING,
                message=f"memory of {point.values['count']} sandboxes was still moving when it "
                "was read",
                evidence={"readings_count": memory.height},
            )
        )
    if row["dead_count"] or row["unreadable_count"]:
        findings.append(
            Finding(
                code="incomplete-reading",
                severity=Severity.WARNING,
                message=f"of {point.values['count']} sandboxes {row['dead_count']} had no process "
                f"and {row['unreadable_count']} processes could not be read: PSS and USS are not "
                "given",
                evidence={
                    "dead_count": row["dead_count"],
                    "unreadable_count": row["unreadable_count"],
                },
            )
        )
    return tuple(findings)
