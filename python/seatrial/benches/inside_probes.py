"""The guest's own small loops: system calls, page faults, files, processes, memory.

They need nothing but the guest, so they run in every sandbox, a virtual machine's initrd included.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

from seatrial.benches.base import Samples, TrialContext, TrialTables
from seatrial.benches.held import HeldSandbox
from seatrial.errors import TrialFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.guest.channel import GuestChannel
    from seatrial.model.experiment import InsideSettings
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

NS_PER_S: Final = 1_000_000_000
FILE_BYTES: Final = 4 * 1024 * 1024
BLOCK_BYTES: Final = 64 * 1024
COPY_BYTES: Final = 32 * 1024 * 1024
#: What a guest with memory of its own gets for such work at least, so that neither fio nor Python
#: nor a copy of 32 MiB is what ends in it; part of it is the guest's page cache.
WORK_MEMORY_BYTES: Final = 1 << 30
PROBE_TIMEOUT_NS: Final = 60 * NS_PER_S
#: gVisor calibrates its clock for about a second after boot; until then a reading costs a hundred
#: times as much as later. All drivers are warmed up alike.
WARM_UP_NS: Final = 1_200_000_000

#: What each probe asks of the guest; ``batches`` comes from the experiment, ``path`` of a file
#: probe and ``program`` of one that runs it from the sandbox.
REQUESTS: Final[Mapping[str, Mapping[str, object]]] = {
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
    "fork": {"probe": "fork", "iterations": 20},
    "fork-exec": {"probe": "fork-exec", "iterations": 10},
    "memory-copy": {"probe": "memory-copy", "bytes": COPY_BYTES},
}
COST: Final[Mapping[str, str]] = {
    "syscall": "syscall_ns",
    "page-fault": "page_fault_ns",
    "fork": "fork_ns",
    "fork-exec": "fork_exec_ns",
}
THROUGHPUT: Final[Mapping[str, str]] = {
    "file-write": "file_write_bytes_per_s",
    "file-read": "file_read_bytes_per_s",
    "memory-copy": "memory_copy_bytes_per_s",
}
METRIC_OF: Final[Mapping[str, str]] = {**COST, **THROUGHPUT}


def warm_clock(channel: GuestChannel) -> None:
    """Keeps the sandbox calling its clock until it is old enough to have calibrated it."""
    started_ns = time.monotonic_ns()
    while time.monotonic_ns() - started_ns < WARM_UP_NS:
        channel.run({**REQUESTS["syscall"], "batches": 1}, timeout_ns=PROBE_TIMEOUT_NS)


class ProbesTrial:
    """Runs the probes in one held sandbox, one after another."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("InsideSettings", context.experiment.inside)
        self._sandbox = HeldSandbox(
            context,
            role=("idle",),
            data_dir=context.scratch_dir,
            memory_wanted_bytes=WORK_MEMORY_BYTES,
        )
        self.tables = TrialTables()
        self.findings: list[Finding] = self._sandbox.findings

    def set_up(self) -> None:
        """Starts the sandbox."""
        self._sandbox.start()

    def warm_up(self) -> None:
        """Runs each probe until the sandbox is old enough; the first batch is first touch."""
        for probe in self._settings.probes:
            self._measure(probe, batches=1, is_first=True)
        started_ns = time.monotonic_ns()
        while time.monotonic_ns() - started_ns < WARM_UP_NS:
            for probe in self._settings.probes:
                self._run(probe, batches=1)

    def measure(self) -> None:
        """Runs the asked batches of each probe."""
        with self._context.window("inside"):
            for probe in self._settings.probes:
                self._measure(probe, batches=self._settings.batches, is_first=False)

    def drain(self) -> None:
        """Does nothing: a probe ends before it answers."""

    def tear_down(self) -> None:
        """Stops the sandbox."""
        self._sandbox.stop()

    def _measure(self, probe: str, *, batches: int, is_first: bool) -> None:
        result = self._run(probe, batches=batches)
        for position, batch_ns in enumerate(cast("list[int]", result["batch_ns"])):
            self.tables.add(
                "probes",
                {
                    "probe": probe,
                    "position": position,
                    "batch_ns": batch_ns,
                    "operations_count": result["operations_per_batch"],
                    "batch_bytes": result.get("bytes_per_batch"),
                    "is_first": is_first,
                },
            )

    def _run(self, probe: str, *, batches: int) -> Mapping[str, object]:
        request = REQUESTS.get(probe)
        if request is None:
            raise TrialFailed(
                f"inside: unknown probe {probe!r}", hint=f"known probes: {', '.join(REQUESTS)}"
            )
        words = {**request, "batches": batches}
        if "block_bytes" in request:
            words["path"] = self._sandbox.session.data_path(self._sandbox.plan_id)
        if probe == "fork-exec":
            words["program"] = self._sandbox.session.guest_path
        return self._sandbox.channel.run(words, timeout_ns=PROBE_TIMEOUT_NS)


def derive_inside(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns the samples of every probe that ran, first touches not among them."""
    del point  # one point holds every probe
    return tuple(
        Samples(metric=METRIC_OF[probe], values=values)
        for probe, values in probe_values(tables, is_first=False).items()
    )


def probe_values(tables: Mapping[str, pl.DataFrame], *, is_first: bool) -> dict[str, list[float]]:
    """Returns cost per operation, or throughput, of each batch by probe; pure."""
    probes = tables.get("probes")
    if probes is None:
        return {}
    if "is_first" in probes.columns:
        probes = probes.filter(probes["is_first"].fill_null(value=False) == is_first)
    elif is_first:
        return {}
    values: dict[str, list[float]] = {}
    for probe in REQUESTS:
        rows = probes.filter(probes["probe"] == probe)
        if rows.height == 0:
            continue
        if probe in COST:
            values[probe] = (rows["batch_ns"] / rows["operations_count"]).to_list()
        else:
            values[probe] = (rows["batch_bytes"] * NS_PER_S / rows["batch_ns"]).to_list()
    return values
