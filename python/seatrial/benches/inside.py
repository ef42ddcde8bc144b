"""What do system calls, page faults and file access cost inside a sandbox?

The guest runs small loops and times each batch by its own monotonic clock; the host divides by
the operations in a batch. No tool has to be installed in the sandbox. METHODOLOGY 6.
"""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.held import HeldSandbox
from seatrial.errors import TrialFailed
from seatrial.model.metric import Direction, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.model.experiment import Experiment, InsideSettings
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

NS_PER_S = 1_000_000_000
FILE_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
PROBE_TIMEOUT_NS = 60 * NS_PER_S
WARM_UP_NS = 1_200_000_000
"""gVisor calibrates its clock for about a second after boot; until then a reading costs a hundred
times as much as later. All drivers are warmed up alike."""

REQUESTS: Mapping[str, Mapping[str, object]] = {
    "syscall": {"probe": "syscall", "iterations": 5_000},
    "page-fault": {"probe": "page-fault", "pages": 512},
    "file-write": {
        "probe": "file-write",
        "bytes": FILE_BYTES,
        "block_bytes": BLOCK_BYTES,
        "sync": True,
    },
    "file-read": {
        "probe": "file-read",
        "bytes": FILE_BYTES,
        "block_bytes": BLOCK_BYTES,
        "sync": False,
    },
}
"""What each probe asks of the guest; ``batches`` comes from the experiment, ``path`` of a file
probe from the sandbox."""

_COST = {"syscall": "syscall_ns", "page-fault": "page_fault_ns"}
_THROUGHPUT = {
    "file-write": "file_write_bytes_per_s",
    "file-read": "file_read_bytes_per_s",
}

METRICS = (
    Metric(
        name="syscall_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="One getpid system call, made directly",
        method="batch time / 5000 calls, guest's monotonic clock",
    ),
    Metric(
        name="page_fault_ns",
        unit="ns",
        direction=Direction.LOWER,
        meaning="First touch of an anonymous page, its share of mmap and munmap included",
        method="batch time / 512 pages, guest's monotonic clock",
    ),
    Metric(
        name="file_write_bytes_per_s",
        unit="bytes/s",
        direction=Direction.HIGHER,
        meaning="Sequential 64 KiB writes of a 4 MiB file on the host's disk, fsync included",
        method="bytes / batch time, guest's monotonic clock",
    ),
    Metric(
        name="file_read_bytes_per_s",
        unit="bytes/s",
        direction=Direction.HIGHER,
        meaning="Sequential 64 KiB reads of a 4 MiB file that is in the page cache",
        method="bytes / batch time, guest's monotonic clock",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InsideBench:
    """Costs of basic operations inside one sandbox."""

    name: str = "inside"
    question: str = "What do system calls, memory and files cost inside it?"
    headline: str = "syscall_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, driver: str) -> int:
        """Returns a rough length; a sandbox that emulates the kernel is slower."""
        del point
        settings = cast("InsideSettings", experiment.inside)
        each_ns = 12_000_000 if driver.startswith("runsc") else 5_000_000
        return 250_000_000 + WARM_UP_NS + settings.batches * len(settings.probes) * each_ns

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return InsideTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns cost per operation, or throughput, of each batch."""
        return derive_inside(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns nothing: each batch is judged by its spread in the analysis."""
        del tables, point
        return ()


class InsideTrial:
    """Runs the probes in one held sandbox, one after another."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("InsideSettings", context.experiment.inside)
        self._sandbox = HeldSandbox(context, role=("idle",), data_dir=context.scratch_dir)
        self.tables = TrialTables()
        self.findings: list[Finding] = self._sandbox.findings

    def set_up(self) -> None:
        """Starts the sandbox."""
        self._sandbox.start()

    def warm_up(self) -> None:
        """Runs batches, thrown away, until each probe has run and the sandbox is old enough."""
        started_ns = time.monotonic_ns()
        while True:
            for probe in self._settings.probes:
                self._run(probe, batches=1)
            if time.monotonic_ns() - started_ns >= WARM_UP_NS:
                return

    def measure(self) -> None:
        """Runs the asked batches of each probe."""
        with self._context.window("inside"):
            for probe in self._settings.probes:
                result = self._run(probe, batches=self._settings.batches)
                for position, batch_ns in enumerate(cast("list[int]", result["batch_ns"])):
                    self.tables.add(
                        "probes",
                        {
                            "probe": probe,
                            "position": position,
                            "batch_ns": batch_ns,
                            "operations_count": result["operations_per_batch"],
                            "batch_bytes": result.get("bytes_per_batch"),
                        },
                    )

    def drain(self) -> None:
        """Does nothing: a probe ends before it answers."""

    def tear_down(self) -> None:
        """Stops the sandbox."""
        self._sandbox.stop()

    def _run(self, probe: str, *, batches: int) -> Mapping[str, object]:
        request = REQUESTS.get(probe)
        if request is None:
            raise TrialFailed(
                f"inside: unknown probe {probe!r}", hint=f"known probes: {', '.join(REQUESTS)}"
            )
        words = {**request, "batches": batches}
        if "block_bytes" in request:
            words["path"] = self._sandbox.session.data_path(self._sandbox.plan_id)
        return self._sandbox.channel.run(words, timeout_ns=PROBE_TIMEOUT_NS)


def derive_inside(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns the samples of every probe that ran."""
    del point  # one point holds every probe
    probes = tables.get("probes")
    if probes is None:
        return ()
    samples: list[Samples] = []
    for probe in REQUESTS:
        rows = probes.filter(probes["probe"] == probe)
        if rows.height == 0:
            continue
        if probe in _COST:
            values = (rows["batch_ns"] / rows["operations_count"]).to_list()
            samples.append(Samples(metric=_COST[probe], values=values))
        else:
            values = (rows["batch_bytes"] * NS_PER_S / rows["batch_ns"]).to_list()
            samples.append(Samples(metric=_THROUGHPUT[probe], values=values))
    return tuple(samples)
