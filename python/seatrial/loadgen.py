"""The load engine, for Python: the only importer of `seatrial._core`.

`run_load` offers one load and gives back raw records, histograms and counters; `_core.pyi`
documents them with their units. Nothing is computed here: settings go in, the core's result comes
out, and the core's errors become ours.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Final

from seatrial import _core
from seatrial._core import (
    ArrivalProcess,
    BuildInfo,
    Counts,
    Histogram,
    Interval,
    LoadResult,
    Snapshot,
    TargetResult,
    Timestamps,
    build_info,
    hdr_log,
)
from seatrial.errors import (
    ConfigError,
    EnvironmentTrouble,
    SeatrialError,
    StoreError,
    TrialFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "ArrivalProcess",
    "BuildInfo",
    "Counts",
    "Histogram",
    "Interval",
    "LoadRequest",
    "LoadResult",
    "Snapshot",
    "TargetResult",
    "Timestamps",
    "arrival_pit",
    "arrival_process",
    "arrivals",
    "build_info",
    "hdr_log",
    "merge_histograms",
    "read_histogram",
    "run_load",
]

#: Bounds of a load that names none: some minutes at full speed, and a hundred MiB of records.
REQUESTS_MAX: Final = 50_000_000
RECORDS_MAX: Final = 1_000_000

#: What each code of the core means to us, and what to do about it.
_ERRORS: Final[dict[str, tuple[type[SeatrialError], str | None]]] = {
    "invalid-plan": (ConfigError, None),
    "invalid-value": (ConfigError, None),
    "invalid-option": (ConfigError, None),
    "start-missed": (
        TrialFailed,
        "agree on a later start: connections have to be made before it",
    ),
    "connect-failed": (
        TrialFailed,
        "check that the server is up and listens there, and that 'ulimit -n' is high enough",
    ),
    "preload-failed": (
        TrialFailed,
        "give the server room for all keys, or lower the options keys and value_bytes",
    ),
    "system-call-failed": (EnvironmentTrouble, "the engine needs Linux 5.11 and free descriptors"),
    "bad-histogram": (StoreError, "the file was cut, damaged, or written by another version"),
    "thread-panicked": (SeatrialError, "please report it with the experiment file"),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadRequest:
    """The settings of one load; `seatrial._core.LoadPlan` says what each one means and allows.

    The defaults ask for a closed loop of one connection that sends empty rpc requests. Where
    `wait` is not given, `default_wait` chooses it; the result says what it was.
    """

    targets: tuple[str, ...]
    measure_ns: int
    protocol: str = "rpc"
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    operation: str = "empty"
    payload_bytes: int = 0
    demand: str = "none"
    arrival: str = "closed"
    rate_rps: float | None = None
    pattern: str = "fixed"
    think: str = "none"
    agent: int = 0
    agents: int = 1
    start_at_ns: int | None = None
    connections: int = 1
    threads: int = 1
    depth: int = 1
    outstanding_max: int | None = None
    warm_up_ns: int = 0
    cool_down_ns: int = 0
    interval_ns: int = 100_000_000
    drain_ns: int = 1_000_000_000
    request_timeout_ns: int = 1_000_000_000
    requests_max: int = REQUESTS_MAX
    records_max: int = RECORDS_MAX
    seed: int = 0
    wait: str | None = None
    cpus: tuple[int, ...] = ()
    timestamps: str = "user"
    timestamps_every: int = 1

    def default_wait(self) -> str:
        """Returns how the threads wait if `wait` does not say it.

        `hybrid` for an open loop, where being late falsifies the result, as long as this process
        may use at least one CPU more than the engine has threads: a spinning thread would
        otherwise take the CPU that the server, or the rest of the host, needs. `block` for all
        others; a closed loop waits for replies, not for instants, and the modelled server has a
        clock of its own.
        """
        is_fake = any(target.startswith("fake:") for target in self.targets)
        is_open = self.arrival != "closed" and not is_fake
        has_spare_cpu = len(os.sched_getaffinity(0)) > self.threads
        return "hybrid" if is_open and has_spare_cpu else "block"

    def to_plan(self) -> _core.LoadPlan:
        """Returns the checked plan.

        Raises:
            ConfigError: a setting is out of its range or contradicts another one.
        """
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        settings["wait"] = self.wait or self.default_wait()
        try:
            return _core.LoadPlan(**settings)
        except _core.CoreError as error:
            raise _translated(error) from error


def run_load(request: LoadRequest, observe: Callable[[Snapshot], bool] | None = None) -> LoadResult:
    """Returns what became of the load; Ctrl-C ends it early and sets `was_interrupted`.

    `observe` is called with a snapshot about four times a second; when it returns true, nothing
    more is offered, replies are waited for as planned, and `was_finished_early` is set. What it
    raises ends the load and is raised from here.

    Raises:
        ConfigError: a setting is out of its range or contradicts another one.
        TrialFailed: the target turned connections away before the load began.
        EnvironmentTrouble: the kernel refused something that the engine needs.
    """
    plan = request.to_plan()
    try:
        return _core.run_load(plan, observe)
    except _core.CoreError as error:
        raise _translated(error) from error


def arrival_process(
    law: str, rate_rps: float | None = None, *, pattern: str = "fixed"
) -> ArrivalProcess:
    """Returns the process that `run_load` offers for these settings of an open loop.

    Raises:
        ConfigError: the law or the pattern is not known, or the rate does not fit them.
    """
    try:
        return _core.ArrivalProcess(law, rate_rps=rate_rps, pattern=pattern)
    except _core.CoreError as error:
        raise _translated(error) from error


def arrivals(
    law: str,
    rate_rps: float | None = None,
    *,
    seed: int,
    n: int,
    pattern: str = "fixed",
    agent: int = 0,
    agents: int = 1,
) -> list[int]:
    """Returns the first `n` arrivals that `run_load` would offer, in ns from the start.

    Of several agents, those of number `agent`: arrivals whose index is `agent` modulo `agents`.

    Raises:
        ConfigError: the law or the pattern is not known, or a number is out of its range.
    """
    process = arrival_process(law, rate_rps, pattern=pattern)
    try:
        return process.offsets_ns(seed=seed, n=n, agent=agent, agents=agents)
    except _core.CoreError as error:
        raise _translated(error) from error


def arrival_pit(
    law: str, rate_rps: float | None, offsets_ns: Sequence[int], *, pattern: str = "fixed"
) -> list[float]:
    """Returns the probability integral transform of observed arrivals; see `ArrivalProcess.places`.

    Even from 0 to 1 if the arrivals follow the process; for `fixed` deviations from the schedule.

    Raises:
        ConfigError: the law or the pattern is not known, or the offsets are not in order.
    """
    process = arrival_process(law, rate_rps, pattern=pattern)
    try:
        return process.places(offsets_ns)
    except _core.CoreError as error:
        raise _translated(error) from error


def merge_histograms(histograms: Sequence[Histogram]) -> Histogram:
    """Returns one histogram of everything that the given ones recorded; empty for none."""
    merged = Histogram()
    for histogram in histograms:
        merged = merged.merge(histogram)
    return merged


def read_histogram(data: bytes) -> Histogram:
    """Returns the histogram that `Histogram.to_bytes` wrote.

    Raises:
        StoreError: the bytes are cut, damaged or of another version.
    """
    try:
        return Histogram.from_bytes(data)
    except _core.CoreError as error:
        raise _translated(error) from error


def _translated(error: _core.CoreError) -> SeatrialError:
    kind, hint = _ERRORS.get(error.code, (SeatrialError, None))
    return kind(str(error), hint=hint, code=error.code)
