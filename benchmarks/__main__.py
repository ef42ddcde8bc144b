"""``python -m benchmarks``: runs the series, prints a table, writes ``benchmarks/RESULTS.md``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import echo, start
from seatrial.probes.fingerprint import read_fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.series import Row

RESULTS = Path(__file__).parent / "RESULTS.md"
FACTS = ("cpu_model", "processors_count", "kernel", "hypervisor", "cgroup_mode", "distribution")


def series(build: Path) -> dict[str, Callable[[], list[Row]]]:
    """Returns the series by name."""
    return {
        "start": lambda: start.against_c(build),
        "echo": lambda: echo.closed_loop(build),
        "throughput": echo.throughput,
        "send-lag": echo.send_lag,
    }


def markdown(rows: list[Row]) -> str:
    """Returns the results page: the machine, then the table."""
    facts = read_fingerprint().facts
    machine = ", ".join(f"{name} {facts[name]}" for name in FACTS if facts.get(name) is not None)
    lines = [
        "# Benchmark results",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {machine}.",
        "",
        "Made by `make bench`. Ratios are of medians over interleaved rounds, with a 95 %",
        "interval; the machine is shared, so single absolute values are worth little.",
        "",
        "| what | value | 95 % interval | target | verdict |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.name} | {row.value} | {row.interval} | {row.target} | {row.verdict} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the chosen series; returns 0, since speed is reported here and never asserted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="series to run (default: all)")
    parser.add_argument("--no-write", action="store_true", help="do not write RESULTS.md")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as directory:
        known = series(Path(directory))
        unknown = [name for name in args.names if name not in known]
        if unknown:
            parser.error(f"unknown series {unknown[0]!r}; expected some of: {', '.join(known)}")
        rows: list[Row] = []
        for name in args.names or known:
            sys.stderr.write(f"{name} ...\n")
            rows += known[name]()
    text = markdown(rows)
    sys.stdout.write(text)
    if not args.no_write and not args.names:
        RESULTS.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
