"""The tables that RunD's own scripts publish, from checked cells: the same cells, the same digits.

``time.csv`` and ``density_RUNTIME.csv`` hold the mean makespan in ms, ``cpu.csv`` the mean busy
time of the whole host divided by the concurrency in ms, ``mem_RUNTIME.csv`` the sum of PSS divided
by the count in KiB. Rows and columns are those found in the data, in ascending order; a cell that
is not there, or was refused, is blank. METHODOLOGY 11 has the formulas.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from seatrial.errors import StoreError
from seatrial.stats.rounds import Rounds, rounds_of
from seatrial.units import KIB, MIB, NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from seatrial.importers.rund.rows import MemoryCell, RundData, StartCell

Row = TypeVar("Row", str, int)

#: Milliseconds in a second, as their formula for CPU time counts.
MILLIS_PER_S = 1000
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFigures:
    """The numbers of one cell of starts: makespan and latency are never one name."""

    experiment: str
    runtime: str
    background: int | None
    concurrency: int
    rounds_count: int
    """Whole rounds: those of which every client has a line."""
    makespan_mean_ns: float | None
    latency_mean_ns: float | None
    latency_p50_ns: float | None
    latency_p90_ns: float | None
    latency_p95_ns: float | None
    latency_p99_ns: float | None
    latency_max_ns: float | None
    p99_lower_mean_ns: float | None
    """Mean over rounds of the round's own 99th percentile, not interpolated."""
    host_cpu_mean_ns: float | None
    """CPU time of the whole host in a round, divided by the concurrency."""
    amplification_ratio: float | None = None
    """Mean makespan over that with the fewest idle sandboxes, at the same concurrency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """The number of one table of smem."""

    runtime: str
    memory_bytes: int
    count: int
    pss_mean_bytes: float | None


def rounds_in(cell: StartCell) -> Rounds | None:
    """Returns the times of the whole rounds of a cell; None if it has none."""
    starts = cell.starts
    if starts is None:
        return None
    rounds = rounds_of(
        starts.rounds, starts.began_at_ns, starts.ready_at_ns, members=cell.concurrency
    )
    return rounds if rounds.numbers.size else None


def start_figures(data: RundData) -> tuple[StartFigures, ...]:
    """Returns the numbers of every cell of starts, in the order of the data."""
    found = [_start_figures(cell, user_hz=data.user_hz) for cell in data.starts]
    least: dict[tuple[str, int], StartFigures] = {}
    for one in found:
        if one.background is not None and one.makespan_mean_ns is not None:
            first = least.setdefault((one.runtime, one.concurrency), one)
            if (first.background or 0) > one.background:
                least[one.runtime, one.concurrency] = one
    return tuple(_amplified(one, least.get((one.runtime, one.concurrency))) for one in found)


def _amplified(one: StartFigures, least: StartFigures | None) -> StartFigures:
    if least is None or one.background is None:
        return one
    if one.makespan_mean_ns is None or not least.makespan_mean_ns:
        return one
    ratio = one.makespan_mean_ns / least.makespan_mean_ns
    return dataclasses.replace(one, amplification_ratio=ratio)


def _start_figures(cell: StartCell, *, user_hz: int) -> StartFigures:
    starts, rounds = cell.starts, rounds_in(cell)
    spans = None if starts is None else starts.ready_at_ns - starts.began_at_ns
    p50, p90, p95, p99 = (
        (None,) * len(PERCENTILES)
        if spans is None
        else (float(value) for value in np.percentile(spans, PERCENTILES))
    )
    cpu = host_cpu(cell, user_hz=user_hz)
    return StartFigures(
        experiment="time" if cell.background is None else "density",
        runtime=cell.runtime,
        background=cell.background,
        concurrency=cell.concurrency,
        rounds_count=0 if rounds is None else int(rounds.numbers.size),
        makespan_mean_ns=None if rounds is None else float(rounds.makespans_ns.mean()),
        latency_mean_ns=None if spans is None else float(spans.mean()),
        latency_p50_ns=p50,
        latency_p90_ns=p90,
        latency_p95_ns=p95,
        latency_p99_ns=p99,
        latency_max_ns=None if spans is None else float(spans.max()),
        p99_lower_mean_ns=None if rounds is None else float(rounds.lower_p99_ns.mean()),
        host_cpu_mean_ns=None if cpu is None else cpu * NS_PER_MS,
    )


def makespan(cell: StartCell) -> float | None:
    """Returns the mean makespan in ms, from whole milliseconds as their scripts have them."""
    rounds = rounds_in(cell)
    return None if rounds is None else float((rounds.makespans_ns // NS_PER_MS).mean())


def host_cpu(cell: StartCell, *, user_hz: int) -> float | None:
    """Returns CPU time in ms a sandbox, in the order of their operations, hence with their digits.

    They multiply ticks by 10, which is right at 100 ticks a second only.
    """
    if cell.cpu is None:
        return None
    return float(cell.cpu.busy_ticks.mean() * (MILLIS_PER_S / user_hz) / cell.concurrency)


def pss(cell: MemoryCell) -> float | None:
    """Returns the PSS of one sandbox in KiB."""
    if cell.processes is None:
        return None
    return float((cell.processes.pss_bytes // KIB).sum() / cell.count)


def memory_figures(data: RundData) -> tuple[MemoryFigures, ...]:
    """Returns the number of every table of smem, in the order of the data."""
    return tuple(
        MemoryFigures(
            runtime=cell.runtime,
            memory_bytes=cell.memory_bytes,
            count=cell.count,
            pss_mean_bytes=None if (kib := pss(cell)) is None else kib * KIB,
        )
        for cell in data.memory
    )


def tables(data: RundData) -> dict[str, str]:
    """Returns the text of each table by the name of its file."""
    times = [cell for cell in data.starts if cell.background is None]
    crowds = [cell for cell in data.starts if cell.background is not None]
    found: dict[str, str] = {}

    def cpu(cell: StartCell) -> float | None:
        return host_cpu(cell, user_hz=data.user_hz)

    for name, value in (("time", makespan), ("cpu", cpu)):
        cells = {(cell.runtime, cell.concurrency): value(cell) for cell in times}
        if any(one is not None for one in cells.values()):
            found[f"{name}.csv"] = _table("runtime", cells)
    for runtime in data.runtimes:
        rows = {
            (cell.background, cell.concurrency): makespan(cell)
            for cell in crowds
            if cell.runtime == runtime and cell.background is not None
        }
        sizes = {
            (cell.memory_bytes // MIB, cell.count): pss(cell)
            for cell in data.memory
            if cell.runtime == runtime
        }
        if rows:
            found[f"density_{runtime}.csv"] = _table("density", rows)
        if sizes:
            found[f"mem_{runtime}.csv"] = _table("memory", sizes)
    return found


def _table(corner: str, cells: Mapping[tuple[Row, int], float | None]) -> str:
    """Lays cells out; numbers as Python writes them: the shortest digits that are exact."""
    columns: list[int] = sorted({column for _, column in cells})
    lines = [",".join((corner, *map(str, columns)))]
    for row in dict.fromkeys(row for row, _ in cells):
        values: list[float | None] = [cells.get((row, column)) for column in columns]
        lines.append(",".join((str(row), *("" if v is None else repr(v) for v in values))))
    return "\n".join(lines) + "\n"


def write_tables(data: Sequence[RundData], directory: Path) -> tuple[Path, ...]:
    """Writes the tables, each data set's into a directory of its own if there are several.

    Nothing that is there is written over or added to.

    Raises:
        StoreError: one of the files exists, or cannot be written.
    """
    texts = {
        (directory / one.name if len(data) > 1 else directory) / name: text
        for one in data
        for name, text in tables(one).items()
    }
    _refuse_existing(texts)
    path = directory
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="") as file:
                file.write(text)
    except OSError as error:
        raise StoreError(
            f"cannot write {path}: {error.strerror}",
            hint="choose a place that you may write to",
        ) from error
    return tuple(texts)


def _refuse_existing(paths: Iterable[Path]) -> None:
    existing = [path for path in paths if path.exists()]
    if existing:
        raise StoreError(
            f"{existing[0]} exists; expected a place without tables of an earlier import",
            hint="choose another directory, or remove it",
            code="store-exists",
        )
