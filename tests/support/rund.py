"""Trees in the form of RunD's raw data, made for tests or taken from its artifact."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: A few cells of the artifact, and the published tables cut to them.
FIXTURE = Path(__file__).parent.parent / "data" / "imports" / "rund"
#: Where the whole archive is, if somebody has it.
ARCHIVE = "SEATRIAL_RUND_ARCHIVE"
BEGIN = 1_652_084_496_000


def copied(folder: Path) -> Path:
    """Returns a copy of the fixture's data set, to be spoilt."""
    return Path(shutil.copytree(FIXTURE / "ae_data", folder / "ae_data"))


def archive() -> Path:
    """Returns the whole archive, or skips the test."""
    path = os.environ.get(ARCHIVE)
    if not path:
        pytest.skip(f"{ARCHIVE} names no archive of RunD's data")
    return Path(path)


def time_tree(
    folder: Path,
    cells: Mapping[int, Sequence[Sequence[int]]],
    *,
    runtime: str = "rund",
    busy: int = 100,
    stamp: str = "01010000",
    gap: int = 5_000,
) -> Path:
    """Writes a tree ``time_*``: by concurrency, the latencies of every client in each round (ms).

    Clients of a round begin 1 ms after each other; the next round begins ``gap`` ms after all
    are ready. The host's ticks are those of 104 processors.
    """
    tree = folder / f"time_{runtime}_{stamp}"
    for concurrency, rounds in cells.items():
        cell = tree / f"con_{concurrency:03d}"
        cell.mkdir(parents=True)
        lines: dict[int, list[str]] = {client: [] for client in range(1, concurrency + 1)}
        begin, cpu = BEGIN + concurrency * 10_000_000, []
        for number, latencies in enumerate(rounds):
            ends = []
            for client, latency in enumerate(latencies, 1):
                identity = f"{abs(hash((runtime, stamp, concurrency, number, client))):064x}"
                start = begin + client - 1
                ends.append(start + latency)
                lines[client].append(f"{identity} {start} {ends[-1]} {latency}\n")
            ticks = (max(ends) - begin) * 104 // 10
            cpu.append(f"{busy} {ticks} {busy / ticks * 100:.6g}\n")
            begin = max(ends) + gap
        for client, own in lines.items():
            (cell / f"client{client:03d}.txt").write_text("".join(own))
        (cell / "cpu.txt").write_text("".join(cpu))
        mean = [latency for latencies in rounds for latency in latencies]
        (cell / "latency.txt").write_text(f"{sum(mean) / len(mean):.6g}\n")
    return tree


def smem_table(names: Sequence[str], *, pss: int = 100) -> str:
    """Returns a table of smem in which every process has the same memory (KiB)."""
    head = f"{'Name':<24}{'USS':>9}{'PSS':>9}{'RSS':>9}{'VSS':>9} \n"
    rows = [f"{name:<24}{pss - 10:>9}{pss:>9}{pss + 50:>9}{9999:>9} \n" for name in names]
    return head + "".join(rows)
