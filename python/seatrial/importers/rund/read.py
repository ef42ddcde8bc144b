"""From RunD's trees to checked cells: any sweep that is found, every oddity named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.errors import ConfigError
from seatrial.importers.rund.books import check_latency, read_cpu
from seatrial.importers.rund.clients import RoundsUnclear, read_clients
from seatrial.importers.rund.conditions import read_conditions
from seatrial.importers.rund.rows import MemoryCell, RundData, StartCell
from seatrial.importers.rund.smem import NoTable, check_processes, read_table
from seatrial.importers.rund.tree import read_data_sets
from seatrial.importers.source import Notice
from seatrial.units import MIB, NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from seatrial.importers.rund.rows import HostCpu, Starts
    from seatrial.importers.rund.tree import DataSet, Tree
    from seatrial.model.scalar import Scalar

#: USER_HZ of every Linux that people run on x86 and ARM.
USER_HZ: Final = 100
USER_HZ_MAX: Final = 10_000
#: All ticks of a round by its length are the processors; a cell this far below the others of its
#: tree has lost ticks.
TICKS_KEPT_RATIO: Final = 0.95

_TIME: Final = re.compile(r"con_(?P<concurrency>\d{1,6})/(?P<name>[^/]+)\Z")
_DENSITY: Final = re.compile(
    r"density_(?P<background>\d{1,6})/con_(?P<concurrency>\d{1,6})/(?P<name>[^/]+)\Z"
)
_MEMORY: Final = re.compile(r"result_(?P<memory>\d{1,9})MB_(?P<count>\d{1,6})\.txt\Z")


def read_rund(path: Path, *, user_hz: int = USER_HZ) -> tuple[RundData, ...]:
    """Reads every data set below a directory or in an archive.

    Args:
        path: The artifact's ``data``, one of its data sets, one tree, or a tar archive of those.
        user_hz: Ticks in a second of the kernel that ``cpu.txt`` was read from.

    Raises:
        ConfigError: nothing of the kind is there, it is too large, a cell is there twice, or
            ``user_hz`` is none.
    """
    if not 1 <= user_hz <= USER_HZ_MAX:
        raise ConfigError(
            f"--user-hz {user_hz}; expected 1 to {USER_HZ_MAX} ticks a second",
            hint="'getconf CLK_TCK' tells it on the machine that was measured",
        )
    return tuple(_data_set(one, user_hz) for one in read_data_sets(path))


def _data_set(source: DataSet, user_hz: int) -> RundData:
    starts: list[StartCell] = []
    memory: list[MemoryCell] = []
    conditions: dict[tuple[str, str], dict[str, Scalar]] = {}
    notices: list[Notice] = []
    for tree in source.trees:
        if tree.kind == "mem":
            found = _memory_cells(tree)
            memory += found
            notices += [notice for cell in found for notice in cell.notices]
        else:
            cells = _start_cells(tree)
            starts += cells
            notices += [notice for cell in cells for notice in cell.notices]
            notices += _lost_ticks(tree, cells, user_hz)
        key = (tree.kind, tree.runtime)
        now = read_conditions(tree)
        notices += _changed(tree, conditions.get(key, now), now)
        conditions[key] = {**conditions.get(key, {}), **now}
    places = [(_key(cell), cell.place) for cell in starts]
    places += [(_key(cell), cell.place) for cell in memory]
    _check_twice(source, places)
    notices += _foreign_ids(starts)
    return RundData(
        name=source.name,
        starts=tuple(sorted(starts, key=_key)),
        memory=tuple(sorted(memory, key=_key)),
        conditions=conditions,
        user_hz=user_hz,
        notices=tuple(notices),
    )


def _key(cell: StartCell | MemoryCell) -> tuple[str, str, int, int]:
    if isinstance(cell, MemoryCell):
        return ("mem", cell.runtime, cell.memory_bytes, cell.count)
    kind = "time" if cell.background is None else "density"
    return (kind, cell.runtime, cell.background or 0, cell.concurrency)


def _check_twice(source: DataSet, places: Iterable[tuple[tuple[str, str, int, int], str]]) -> None:
    """Two trees of one runtime are one sweep; if they share a cell, nobody knows which counts."""
    seen: dict[tuple[str, str, int, int], str] = {}
    for key, place in places:
        if key in seen:
            raise ConfigError(
                f"{source.name}: {seen[key]} and {place} are the same cell of {key[0]} on "
                f"{key[1]}; expected it once",
                hint="move one of the two trees away, or import the trees one by one",
                code="import-duplicate",
            )
        seen[key] = place


def _changed(tree: Tree, before: Mapping[str, Scalar], now: Mapping[str, Scalar]) -> list[Notice]:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    if not names:
        return []
    text = f"{tree.name}: {', '.join(names)} differ from another tree of the same sweep"
    return [Notice(code="mixed-conditions", message=text)]


def _foreign_ids(cells: Iterable[StartCell]) -> list[Notice]:
    """A sandbox belongs to one cell: the same id in two means that files were copied."""
    owner: dict[str, str] = {}
    notices: list[Notice] = []
    for cell in cells:
        ids = cell.starts.ids if cell.starts is not None else ()
        known = set(ids) & owner.keys()
        if known:
            other = owner[next(iter(known))]
            text = f"{cell.place}: {len(known)} sandboxes are in {other} as well"
            notices.append(Notice(code="copied-rows", message=text))
        owner |= dict.fromkeys(ids, cell.place)
    return notices


def _start_cells(tree: Tree) -> list[StartCell]:
    pattern = _TIME if tree.kind == "time" else _DENSITY
    groups: dict[str, tuple[re.Match[str], dict[str, bytes]]] = {}
    for path, data in sorted(tree.files.items()):
        match = pattern.match(path)
        if match is not None:
            folder = path.rpartition("/")[0]
            groups.setdefault(folder, (match, {}))[1][match["name"]] = data
    return [_start_cell(tree, folder, match, files) for folder, (match, files) in groups.items()]


def _start_cell(
    tree: Tree, folder: str, match: re.Match[str], files: Mapping[str, bytes]
) -> StartCell:
    place = tree.place(folder)
    concurrency = int(match["concurrency"])
    notices: list[Notice] = []
    starts: Starts | None = None
    trouble: str | None = None
    cpu: HostCpu | None = None
    try:
        starts, notices = read_clients(files, place=place, concurrency=concurrency)
        trouble = None if starts is not None else "no client has a row"
    except RoundsUnclear as error:
        trouble = str(error)
    if trouble is not None:
        notices = [*notices, Notice(code="cell-refused", message=f"{place}: {trouble}")]
    else:
        rounds_count = 0 if starts is None else int(starts.rounds[-1]) + 1
        cpu, said = read_cpu(files.get("cpu.txt"), place=place, rounds_count=rounds_count)
        notices = [*notices, *said]
        notices += check_latency(files.get("latency.txt"), place=place, mean=_mean(starts))
    return StartCell(
        runtime=tree.runtime,
        place=place,
        concurrency=concurrency,
        background=int(match["background"]) if "background" in match.groupdict() else None,
        starts=starts,
        cpu=cpu,
        trouble=trouble,
        notices=tuple(notices),
    )


def _mean(starts: Starts | None) -> float | None:
    """Returns the mean latency in ms, as it is printed in the logs."""
    if starts is None:
        return None
    return float(np.mean(starts.ready_at_ns - starts.began_at_ns)) / NS_PER_MS


def _lost_ticks(tree: Tree, cells: Iterable[StartCell], user_hz: int) -> list[Notice]:
    """Under overload the kernel's books lack ticks: then CPU time is told too small."""
    processors: dict[str, float] = {}
    for cell in cells:
        if cell.starts is not None and cell.cpu is not None:
            spans_ns = _round_spans_ns(cell.starts)
            ticks_ns = cell.cpu.total_ticks.sum() * (1_000_000_000 / user_hz)
            processors[cell.place] = float(ticks_ns / spans_ns)
    if not processors:
        return []
    usual = float(np.median(list(processors.values())))
    return [
        Notice(
            code="lost-ticks",
            message=f"{place}: the ticks of cpu.txt are those of {count:.1f} processors, in "
            f"{tree.name} of {usual:.1f} in the middle; CPU time is about "
            f"{1 - count / usual:.0%} short",
        )
        for place, count in processors.items()
        if count < TICKS_KEPT_RATIO * usual
    ]


def _round_spans_ns(starts: Starts) -> int:
    first = np.flatnonzero(np.diff(starts.rounds, prepend=-1))
    ends = np.maximum.reduceat(starts.ready_at_ns, first)
    begins = np.minimum.reduceat(starts.began_at_ns, first)
    return max(1, int(np.sum(ends - begins)))


def _memory_cells(tree: Tree) -> list[MemoryCell]:
    cells: list[MemoryCell] = []
    for path, data in sorted(tree.files.items()):
        match = _MEMORY.match(path)
        if match is None:
            continue
        place, count = tree.place(path), int(match["count"])
        try:
            processes, notices = read_table(data, place=place)
            check_processes(tree.runtime, processes.names, count=count)
            trouble = None
        except NoTable as error:
            processes, trouble = None, str(error)
            notices = [Notice(code="cell-refused", message=f"{place}: {trouble}")]
        cells.append(
            MemoryCell(
                runtime=tree.runtime,
                place=place,
                memory_bytes=int(match["memory"]) * MIB,
                count=count,
                processes=processes,
                trouble=trouble,
                notices=tuple(notices),
            )
        )
    return cells
