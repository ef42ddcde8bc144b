"""RunD's four tables with pandas, a file at a time; prints one line of JSON: time and digest.

    dataframes_child DIR

Every file is a table of its own, rows of a round are those with the same number in their files,
and nothing is checked: what one writes who wants the numbers of a finished experiment once. Needs
pandas, which is no dependency of Seatrial.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

import pandas as pd

CLIENT = ["id", "begin", "end", "latency"]
CPU = ["busy", "total", "percent"]
#: Milliseconds in a tick.
TICK = 10


def makespan(cell: Path) -> float:
    """Returns the mean over rounds of the last end minus the first begin (ms)."""
    clients = [
        pd.read_csv(file, sep=" ", header=None, names=CLIENT) for file in cell.glob("client*.txt")
    ]
    begins = pd.concat([client["begin"] for client in clients], axis=1)
    ends = pd.concat([client["end"] for client in clients], axis=1)
    return float((ends.max(axis=1) - begins.min(axis=1)).mean())


def host_cpu(cell: Path, concurrency: int) -> float:
    """Returns the host's busy time for each sandbox (ms)."""
    ticks = pd.read_csv(cell / "cpu.txt", sep=" ", header=None, names=CPU)
    return float(ticks["busy"].mean() * TICK / concurrency)


def number(name: str) -> int:
    """Returns the number behind the last underscore, such as 10 of con_010."""
    return int(name.rpartition("_")[2])


def sweep(folder: Path) -> dict[int, Path]:
    """Returns the numbered directories in a directory, ascending."""
    cells = {number(cell.name): cell for cell in folder.iterdir() if cell.is_dir()}
    return {key: cells[key] for key in sorted(cells)}


def time_tables(root: Path) -> dict[str, pd.DataFrame]:
    """Returns makespan and CPU time by runtime and concurrency."""
    rows: dict[str, list[dict[str, object]]] = {"time.csv": [], "cpu.csv": []}
    for tree in sorted(root.glob("time_*")):
        cells = sweep(tree)
        runtime = tree.name.split("_")[1]
        times = {str(n): makespan(cell) for n, cell in cells.items()}
        spent = {str(n): host_cpu(cell, n) for n, cell in cells.items()}
        rows["time.csv"].append({"runtime": runtime, **times})
        rows["cpu.csv"].append({"runtime": runtime, **spent})
    return {name: pd.DataFrame(members) for name, members in rows.items()}


def density_tables(root: Path) -> dict[str, pd.DataFrame]:
    """Returns makespan by number of idle sandboxes and concurrency."""
    return {
        f"density_{tree.name.split('_')[1]}.csv": pd.DataFrame(
            [
                {"density": d, **{str(n): makespan(cell) for n, cell in sweep(crowd).items()}}
                for d, crowd in sweep(tree).items()
            ]
        )
        for tree in sorted(root.glob("density_*"))
    }


def memory_tables(root: Path) -> dict[str, pd.DataFrame]:
    """Returns PSS of a sandbox by the guest's memory and the number of sandboxes (KiB)."""
    found: dict[str, pd.DataFrame] = {}
    for tree in sorted(root.glob("mem_*")):
        values: dict[int, dict[str, float]] = {}
        for file in sorted(tree.glob("result_*.txt"), key=lambda file: number(file.stem)):
            memory = int(file.stem.split("_")[1].removesuffix("MB"))
            count = number(file.stem)
            held = pd.read_csv(file, sep=r"\s+")
            values.setdefault(memory, {})[str(count)] = float(held["PSS"].sum() / count)
        rows = [{"memory": memory, **values[memory]} for memory in sorted(values)]
        found[f"mem_{tree.name.split('_')[1]}.csv"] = pd.DataFrame(rows)
    return found


def main() -> None:
    """Times from the first file to the last table."""
    root = Path(sys.argv[1])
    began_ns = time.perf_counter_ns()
    frames = {**time_tables(root), **density_tables(root), **memory_tables(root)}
    found = {name: frame.to_csv(index=False) for name, frame in frames.items()}
    import_ns = time.perf_counter_ns() - began_ns
    text = "".join(f"{name}\n{found[name]}" for name in sorted(found))
    digest = hashlib.sha256(text.encode()).hexdigest()
    print(json.dumps({"import_ns": import_ns, "digest": digest}))


if __name__ == "__main__":
    main()
