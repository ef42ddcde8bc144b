"""What the files of RunD's trees say, as typed rows, and what was odd about them.

A *cell* is one point of a sweep on one runtime. Times are kept in nanoseconds and memory in bytes,
exactly: the logs have whole milliseconds and KiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from seatrial.importers.source import Notice
from seatrial.model.scalar import Scalar

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Every start of one cell, ordered by round and then by client."""

    ids: tuple[str, ...]
    clients: Integers
    """Number of the client, from 1, as in the name of its file."""
    rounds: Integers
    """Number of the round, from 0, found from the times."""
    began_at_ns: Integers
    """Wall clock, since 1970, in whole milliseconds."""
    ready_at_ns: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCpu:
    """CPU time of the whole host during each round, in ticks of the kernel."""

    busy_ticks: Integers
    total_ticks: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCell:
    """One cell of the experiments ``time`` and ``density``."""

    runtime: str
    place: str
    """Tree and directory, such as ``time_rund_05091621/con_010``."""
    concurrency: int
    background: int | None
    """Sandboxes that idled meanwhile; None in the experiment ``time``."""
    starts: Starts | None
    """None when the rows cannot be told apart by round, or there are none."""
    cpu: HostCpu | None
    trouble: str | None = None
    """Why ``starts`` is None."""
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """One table of smem: what each process held."""

    names: tuple[str, ...]
    uss_bytes: Integers
    pss_bytes: Integers
    rss_bytes: Integers
    vss_bytes: Integers


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCell:
    """One cell of the experiment ``mem``."""

    runtime: str
    place: str
    memory_bytes: int
    """Nominal memory of the guest; what it was configured with is more."""
    count: int
    """Sandboxes alive."""
    processes: Processes | None
    """None when the table does not hold the processes of ``count`` sandboxes."""
    trouble: str | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RundData:
    """One data set, read and checked."""

    name: str
    starts: tuple[StartCell, ...]
    memory: tuple[MemoryCell, ...]
    conditions: Mapping[tuple[str, str], Mapping[str, Scalar]]
    """What each experiment on each runtime was run under, by (kind, runtime)."""
    user_hz: int
    """Ticks of the kernel in a second."""
    notices: tuple[Notice, ...] = field(default=())
    """Everything odd, those of the cells included."""

    @property
    def cells(self) -> tuple[StartCell | MemoryCell, ...]:
        """Every cell, those of starts first."""
        return (*self.starts, *self.memory)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes, sorted by name."""
        return tuple(sorted({cell.runtime for cell in self.cells}))
