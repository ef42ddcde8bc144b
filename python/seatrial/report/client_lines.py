"""The bench `rpc` as MITOSIS' stress test logs it: a line a client and interval.

One file a trial, since the clients of different trials have the same names; what is no such line
begins with ``#``, so that `seatrial import mitosis` reads a file back to the same totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from seatrial.errors import StoreError
from seatrial.model.trial import TrialStatus
from seatrial.report.view import point_title

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import polars as pl

    from seatrial.model.plan import TrialSpec
    from seatrial.store.run_store import RunStore

BENCH: Final = "rpc"
DIRECTORY: Final = "lines"
NS_PER_US: Final = 1_000
NS_PER_S: Final = 1_000_000_000
Interval = Mapping[str, int | str]


def write_client_lines(store: RunStore) -> tuple[Path, ...]:
    """Writes the lines of every finished trial of the bench; returns the files.

    Raises:
        StoreError: a file cannot be written, or a table cannot be read.
    """
    specs = {spec.trial_id: spec for spec in store.manifest.plan.trials}
    written: list[Path] = []
    for trial_id, outcome in store.outcomes().items():
        spec = specs[trial_id]
        if spec.point.bench != BENCH or outcome.status is not TrialStatus.OK:
            continue
        names = store.table_names(trial_id)
        if "intervals" not in names:
            continue
        intervals, loads = (store.read_table(trial_id, name) for name in ("intervals", "loads"))
        path = store.path / DIRECTORY / f"{trial_id}.log"
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_text(client_lines(spec, intervals, loads), "utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error.strerror}",
                hint="make room there, or pass --no-html",
            ) from error
        written.append(path)
    return tuple(written)


def client_lines(spec: TrialSpec, intervals: pl.DataFrame, loads: pl.DataFrame) -> str:
    """The lines of one trial, interval by interval, and what they add up to."""
    ends = {row["agent"]: row["measure_end_ns"] for row in loads.iter_rows(named=True)}
    whole = [
        row
        for row in intervals.sort("position", "agent").iter_rows(named=True)
        if row["position"] >= 0 and row["ended_at_ns"] <= ends[row["agent"]]
    ]
    lines = [f"# {spec.trial_id}: {spec.driver}, block {spec.block}, {point_title(spec.point)}"]
    for position in dict.fromkeys(row["position"] for row in whole):
        together = [row for row in whole if row["position"] == position]
        lines += [_line(row) for row in together]
        rate = sum(_rate(row) for row in together)
        told = f"{len(together)} of {len(ends)} clients, {_plain(rate)} requests/s"
        lines.append(f"# interval {position}: {told}")
    lines.append(f"# total of {len(ends)} clients: {_plain(_total(whole))} requests/s")
    return "\n".join([*lines, ""])


def _line(row: Interval) -> str:
    length_ns = int(row["ended_at_ns"]) - int(row["started_at_ns"])
    passed = f"passed: {length_ns // NS_PER_US}us"
    return f"@{row['agent']}     {passed}, thpt: {_plain(_rate(row))} requests/s"


def _rate(row: Interval) -> float:
    length_ns = int(row["ended_at_ns"]) - int(row["started_at_ns"])
    return int(row["ok_count"]) * NS_PER_S / length_ns


def _total(rows: Iterable[Interval]) -> float:
    """The sum over clients of each one's replies by its time."""
    by_client: dict[str, tuple[int, int]] = {}
    for row in rows:
        count, length_ns = by_client.get(str(row["agent"]), (0, 0))
        length_ns += int(row["ended_at_ns"]) - int(row["started_at_ns"])
        by_client[str(row["agent"])] = count + int(row["ok_count"]), length_ns
    return sum(count * NS_PER_S / length_ns for count, length_ns in by_client.values())


def _plain(rate: float) -> str:
    """A whole number, as the original has it, unless that would lose something."""
    return f"{rate:.0f}" if rate == round(rate) else f"{rate:.3f}"
