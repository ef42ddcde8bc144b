"""What does work inside of a sandbox cost, and is it really done?

One point each: the guest's own probes, a sandbox that only says hello, its memory, and tools of the
host that run in it: dd, fio in three variants, iperf3, wget, curl, and a function natively and in
Python. METHODOLOGY 6.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final, cast

from seatrial.benches.attempts import ATTEMPTS, FIRST, READINGS, Outcome
from seatrial.benches.base import BenchTrial, Samples, TrialContext
from seatrial.benches.inside_files import DdTrial, FioTrial
from seatrial.benches.inside_fresh import FreshTrial
from seatrial.benches.inside_functions import FunctionsTrial
from seatrial.benches.inside_metrics import METRICS, VARIANT, inside_test, works_of
from seatrial.benches.inside_network import NetworkTrial
from seatrial.benches.inside_probes import WARM_UP_NS, ProbesTrial
from seatrial.benches.inside_probes import derive_inside as derive_probes
from seatrial.model.experiment import FioVariant, InsideTest
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Metric
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import polars as pl

    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment, InsideSettings
    from seatrial.model.plan import Point

TOOLS_TRIALS: Final[Mapping[InsideTest, Callable[[TrialContext], BenchTrial]]] = {
    InsideTest.DD: DdTrial,
    InsideTest.FIO: FioTrial,
    InsideTest.NETWORK: NetworkTrial,
    InsideTest.FUNCTIONS: FunctionsTrial,
}
#: Clocks of guest and host may differ by this much about the length of a command.
CLOCK_RATIO_MAX: Final = 0.1
#: Of shorter commands what starting and reporting takes is too large a share.
CLOCK_ELAPSED_NS_MIN: Final = 500_000_000
#: Rough lengths for the ETA.
#: A block of dd on the host, and how fast a disk is that nobody has measured yet.
DD_BLOCK_NS: Final = 1_000
DISK_BYTES_PER_S: Final = 300_000_000
OTHER_WORK_NS: Final = 500_000_000
FRESH_NS: Final = 200_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InsideBench:
    """Work inside of sandboxes."""

    name: str = "inside"
    question: str = "What do system calls, memory, files, network and functions cost inside it?"
    headline: str = "syscall_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns a rough length; a sandbox that emulates the kernel is slower."""
        settings = cast("InsideSettings", experiment.inside)
        is_slow = cost.slowdown > 1
        test = inside_test(point)
        if test is InsideTest.PROBES:
            each_ns = 30_000_000 if is_slow else 5_000_000
            return 250_000_000 + WARM_UP_NS + settings.batches * len(settings.probes) * each_ns
        tries = (settings.repeats + 1) * len(works_of(point, settings))
        if test in {InsideTest.HELLO, InsideTest.MEMORY}:
            return tries * (FRESH_NS + cost.life_ns)
        each_ns = _work_ns(point, settings, cost)
        return WARM_UP_NS + FRESH_NS + cost.life_ns + tries * (each_ns + OTHER_WORK_NS // 5)

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial of a point."""
        test = inside_test(context.spec.point)
        if test in {InsideTest.HELLO, InsideTest.MEMORY}:
            return FreshTrial(context, test)
        if test is InsideTest.PROBES:
            return ProbesTrial(context)
        return TOOLS_TRIALS[test](context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples of a point."""
        return derive_inside(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns what the rows of a trial say about its clocks."""
        return judge_inside(tables, point)


def _work_ns(point: Point, settings: InsideSettings, cost: Cost) -> int:
    """About how long a piece of a test's work takes, on average over its pieces."""
    works = works_of(point, settings)
    test = inside_test(point)
    if test is InsideTest.DD:  # two of its pieces are made of small blocks
        return 2 * settings.dd_count * DD_BLOCK_NS * cost.slowdown // len(works)
    if test is InsideTest.FIO and point.values.get(VARIANT) == FioVariant.SEED:  # it may end before
        total_bytes = settings.fio_size_bytes * settings.fio_threads
        by_size_ns = total_bytes * NS_PER_S // DISK_BYTES_PER_S
        return min(settings.fio_duration_ns, by_size_ns)
    if test is InsideTest.FIO:
        return settings.fio_duration_ns
    if test is InsideTest.NETWORK:  # the others transfer a file
        timed_count = sum(one.startswith("iperf3") for one in works)
        others_ns = (len(works) - timed_count) * OTHER_WORK_NS
        return (timed_count * settings.network_duration_ns + others_ns) // len(works)
    return OTHER_WORK_NS


def derive_inside(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns all readings but those of first touch."""
    if inside_test(point) is InsideTest.PROBES:
        return derive_probes(tables, point)
    readings = tables.get(READINGS)
    if readings is None:
        return ()
    steady = readings.filter(readings["position"] != FIRST)
    values: dict[str, list[float]] = {}
    for row in steady.iter_rows(named=True):
        values.setdefault(row["metric"], []).append(row["value"])
    return tuple(Samples(metric=name, values=taken) for name, taken in values.items())


def judge_inside(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns whether the guest's clock tells other lengths than the host's."""
    del point  # the trial's point is named by whoever prints the finding
    attempts = tables.get(ATTEMPTS)
    if attempts is None:
        return ()
    ratios = [
        row["elapsed_ns"] / row["host_elapsed_ns"]
        for row in attempts.iter_rows(named=True)
        if row["outcome"] == Outcome.OK
        and row["elapsed_ns"] is not None
        and (row["host_elapsed_ns"] or 0) >= CLOCK_ELAPSED_NS_MIN
    ]
    wrong = [ratio for ratio in ratios if abs(ratio - 1) > CLOCK_RATIO_MAX]
    if not wrong:
        return ()
    worst = max(wrong, key=lambda ratio: abs(ratio - 1))
    return (
        Finding(
            code="clock-disagrees",
            severity=Severity.WARNING,
            message=f"of {len(ratios)} commands {len(wrong)} took another time by the sandbox's "
            f"clock than by the host's, at worst {worst:.2f} of it; rates that tools inside "
            "worked out are wrong by as much",
            evidence={"worst_ratio": worst, "commands_count": len(ratios)},
        ),
    )
