"""What a bench is: phases that drive a sandbox, and pure functions that turn raw rows into samples.

A bench never reads a clock for a number and never computes a statistic. While a trial runs it
keeps raw instants in tables; afterwards ``derive`` turns those tables into samples, so every
number in a report can be made again from the run directory alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from seatrial.benches.background import Background
from seatrial.drivers.base import DriverSession
from seatrial.model.experiment import Experiment
from seatrial.model.plan import TrialSpec
from seatrial.model.trial import ArrowStream
from seatrial.probes.noise import Window

if TYPE_CHECKING:
    import polars as pl

    from seatrial.drivers.cost import Cost
    from seatrial.model.finding import Finding
    from seatrial.model.metric import Metric
    from seatrial.model.plan import Point

Row = dict[str, object]


def _nobody(pid: int) -> None:
    """Books nothing: there is no noise monitor."""
    del pid


def _alone() -> None:
    """Gives no company."""


class Group(StrEnum):
    """What a sample was taken from."""

    MEASURED = "measured"
    FLOOR = "floor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Values of one metric in one trial, in the metric's unit and in the order of measuring."""

    metric: str
    values: Sequence[float]
    group: Group = Group.MEASURED
    blocks: Sequence[int] | None = None
    """The block of each value, where one trial holds several; None: all are of the trial's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """Everything a bench may use during one trial; owned by the runner."""

    run_id: str
    spec: TrialSpec
    experiment: Experiment
    open_session: Callable[[str], DriverSession]
    """Opens a session of a named driver; the runner closes it when the trial ends."""
    window: Callable[[str], Window]
    """Context manager around a timed stretch: quiet gate first, then foreign CPU and steal."""
    scratch_dir: Path
    """A directory on a real disk, bound into sandboxes at ``/data``; removed after the trial."""
    background: Callable[[], Background | None] = _alone
    """Brings up the sandboxes that the trial wants beside it; None: it wants none."""
    count_process: Callable[[int], None] = _nobody
    """Books the CPU time of a helper process as the run's own, so that it is not foreign."""


@dataclass(slots=True, kw_only=True)
class TrialTables:
    """Rows gathered so far, by table; what is here is stored even when the trial fails."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    columns: dict[str, ArrowStream] = field(default_factory=dict)
    """Tables that arrive as a whole (anything with ``__arrow_c_stream__``)."""

    def add(self, table: str, row: Row) -> None:
        """Appends one row."""
        self.rows.setdefault(table, []).append(row)

    def put(self, table: str, columns: ArrowStream) -> None:
        """Keeps a whole table as it came from the core, uncopied."""
        self.columns[table] = columns


class BenchTrial(Protocol):
    """One trial of a bench; the runner calls each phase at most once, in order."""

    @property
    def tables(self) -> TrialTables:
        """Rows gathered so far."""
        ...

    @property
    def findings(self) -> list[Finding]:
        """Judgements made while it ran."""
        ...

    def set_up(self) -> None:
        """Makes sessions and, where the bench measures live sandboxes, the sandboxes."""

    def warm_up(self) -> None:
        """Brings caches and the runtime to a steady state; nothing from here is a sample."""

    def measure(self) -> None:
        """Takes the samples."""

    def drain(self) -> None:
        """Waits for what is still under way."""

    def tear_down(self) -> None:
        """Stops and releases everything; must work after a failure in any phase."""


class Bench(Protocol):
    """A question, the numbers that answer it, and how to take them."""

    @property
    def name(self) -> str:
        """One word, as in an experiment file."""
        ...

    @property
    def question(self) -> str:
        """What a reader wants to know."""
        ...

    @property
    def headline(self) -> str:
        """The metric that answers it first."""
        ...

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every number it can give."""
        ...

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns about how long one trial takes, for the ETA only."""

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial, nothing started yet."""

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples in the stored tables; pure."""

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns what the tables say about the trial's validity; pure."""
