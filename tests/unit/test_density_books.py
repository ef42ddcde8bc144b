"""Density: the ledger of memory, the idle tax, limits from outside, and the largest count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.analysis.cells import build_cells
from seatrial.analysis.evidence import Series, SeriesKey
from seatrial.benches import registry
from seatrial.benches.density_derive import derive_density, final_reading, judge_density
from seatrial.model.estimate import Estimate
from seatrial.model.finding import Severity
from seatrial.model.plan import Point
from seatrial.model.summary import Statistic
from seatrial.probes.switches import count_switches, read_switches, switches_between
from seatrial.report.view import point_title
from tests.unit.test_benches_derive import by_name, tables

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.finding import Finding

MIB = 1 << 20
POINT = Point(bench="density", values={"count": 4, "memory_bytes": 128 * MIB})
FILL = Point(bench="density", values={"fill": "bound"})


def reading(**changes: object) -> dict[str, object]:
    """Returns a settled, final reading of four sandboxes."""
    row: dict[str, object] = {
        "count": 4,
        "is_settled": True,
        "is_final": True,
        "since_last_start_ns": 1,
        "processes_count": 8,
        "fewest_processes_count": 2,
        "most_processes_count": 2,
        "unreadable_count": 0,
        "dead_count": 0,
        "pss_bytes": 40 * MIB,
        "uss_bytes": 20 * MIB,
        "rss_bytes": 80 * MIB,
        "cgroup_bytes": 44 * MIB,
        "kernel_bytes": 4 * MIB,
        "kernel_growth_bytes": 8 * MIB,
        "mem_available_drop_bytes": 48 * MIB,
        "slab_growth_bytes": MIB,
        "daemon_pss_bytes": None,
    }
    row.update(changes)
    return row


def limits(**changes: object) -> dict[str, object]:
    """Returns limits that hold for all four."""
    row: dict[str, object] = {
        "count": 4,
        "asked_bytes": 128 * MIB,
        "lowest_bytes": 128 * MIB,
        "highest_bytes": 128 * MIB,
        "unlimited_count": 0,
        "guest_total_bytes": 16_000 * MIB,
        "guest_available_bytes": 12_000 * MIB,
        "host_pss_bytes": 10 * MIB,
    }
    row.update(changes)
    return row


def codes(found: tuple[Finding, ...]) -> list[str]:
    """Returns the codes of findings."""
    return [finding.code for finding in found]


def test_every_way_of_counting_stands_beside_the_others() -> None:
    """Shares are a sandbox's, the daemon's memory is in none of them."""
    idle = {
        "count": 4,
        "window_ns": 2_000_000_000,
        "cpu_ns": 80_000_000,
        "daemon_cpu_ns": None,
        "switches_count": 800,
        "pss_growth_bytes": -8,
    }
    found = by_name(
        derive_density(
            tables(memory=[reading(daemon_pss_bytes=30 * MIB)], idle=[idle], limits=[limits()]),
            POINT,
        )
    )
    assert found == {
        "memory_pss_bytes": [10 * MIB],
        "memory_uss_bytes": [5 * MIB],
        "memory_rss_bytes": [20 * MIB],
        "memory_cgroup_bytes": [11 * MIB],
        "memory_kernel_bytes": [1 * MIB],
        "memory_kernel_growth_bytes": [2 * MIB],
        "memory_available_drop_bytes": [12 * MIB],
        "memory_pss_total_bytes": [40 * MIB],
        "memory_cgroup_total_bytes": [44 * MIB],
        "memory_daemon_bytes": [30 * MIB],
        "memory_guest_total_bytes": [16_000 * MIB],
        "memory_guest_used_bytes": [4_000 * MIB],
        "idle_cpu_ratio": [0.01],
        "idle_switches_rps": [100],
        "idle_drift_bytes_per_s": [-1],
    }


def test_of_several_readings_the_median_counts() -> None:
    """It is one that was taken, with all its columns, and no mixture."""
    rows = [reading(pss_bytes=pss, uss_bytes=pss // 2) for pss in (48, 40, 44, 60)]
    chosen = final_reading(tables(memory=rows))
    assert chosen is not None
    assert (chosen["pss_bytes"], chosen["uss_bytes"]) == (44, 22)


def test_a_missed_process_is_told() -> None:
    """Equal sandboxes with unequal numbers of processes: one was overlooked."""
    (finding,) = judge_density(tables(memory=[reading(fewest_processes_count=1)]), POINT)
    assert finding.code == "incomplete-reading"
    assert "between 1 and 2 processes" in finding.message
    assert judge_density(tables(memory=[reading()]), POINT) == ()


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [
        ({}, True),
        ({"highest_bytes": 128 * MIB + 4096}, False),
        ({"unlimited_count": 1}, False),
        ({"lowest_bytes": None, "highest_bytes": None, "unlimited_count": 4}, False),
        # A virtual machine of that size: its memory is the limit.
        (
            {"highest_bytes": None, "unlimited_count": 4, "guest_total_bytes": 120 * MIB},
            True,
        ),
        ({"asked_bytes": None, "unlimited_count": 4}, True),
    ],
)
def test_limits_are_verified_from_outside(changes: dict[str, object], *, is_kept: bool) -> None:
    """A sandbox without the limit that was asked for is an error, not a faster sandbox."""
    found = judge_density(tables(memory=[reading()], limits=[limits(**changes)]), POINT)
    assert codes(found) == ([] if is_kept else ["limit-not-enforced"])
    assert all(finding.severity is Severity.ERROR for finding in found)


def fill(*steps: tuple[int, str | None]) -> list[dict[str, object]]:
    """Returns the rows of a fill."""
    return [
        {
            "count": count,
            "available_bytes": 512 * MIB,
            "slowest_ready_ns": None,
            "stopped_by": stopped_by,
        }
        for count, stopped_by in steps
    ]


@pytest.mark.parametrize(
    ("steps", "count", "severity"),
    [
        (((4, None), (8, None), (8, "memory"), (8, "alive")), 8, Severity.INFO),
        (((4, None), (4, "ready"), (4, "alive")), 4, Severity.INFO),
        (((4, None), (8, "count"), (7, "alive")), 7, Severity.INFO),
        (((4, None), (4, "failure: clone: EAGAIN"), (4, "alive")), 4, Severity.WARNING),
    ],
)
def test_the_largest_count_says_what_ended_it(
    steps: tuple[tuple[int, str | None], ...], count: int, severity: Severity
) -> None:
    """One that died again does not count; a failure is no bound that was asked for."""
    frames = tables(fill=fill(*steps))
    assert by_name(derive_density(frames, FILL)) == {"density_count": [count]}
    (finding,) = judge_density(frames, FILL)
    assert (finding.code, finding.severity) == ("density-bound", severity)
    ended = next(word for _, word in steps if word not in {None, "alive"})
    assert str(ended) in finding.message


def test_lines_over_counts_are_of_one_limit_each() -> None:
    """Totals with other limits are other lines."""
    registry.get("density")  # declares its metrics
    series: dict[SeriesKey, Series] = {}
    for memory_bytes, each in ((128 * MIB, 10.0), (256 * MIB, 20.0)):
        for count in (1, 10, 20):
            point = Point(bench="density", values={"count": count, "memory_bytes": memory_bytes})
            one = Series(
                bench="density",
                point=point,
                driver="qemu",
                metric="memory_pss_total_bytes",
                blocks={block: np.array([count * each + block]) for block in (0, 1)},
                is_one_a_trial=True,
            )
            key = SeriesKey(point_key=point.key, driver="qemu", metric=one.metric)
            series[key] = one
    cells = build_cells(series, baseline="process", confidence=0.95, seed=1)
    slopes = {
        cell.point.values["memory_bytes"]: cell.estimate
        for cell in cells
        if cell.statistic is Statistic.SLOPE
    }
    for memory_bytes, each in ((128 * MIB, 10.0), (256 * MIB, 20.0)):
        estimate = slopes[memory_bytes]
        assert isinstance(estimate, Estimate)
        assert estimate.point == pytest.approx(each, abs=0.5)


def test_points_have_titles_in_words() -> None:
    """Sizes carry their unit, and what is no axis is said in words."""
    assert point_title(POINT) == "count 4, memory 128 MiB"
    assert point_title(FILL) == "as many as fit"
    held = Point(bench="density", values={"memory_bytes": 128 * MIB})
    assert point_title(held) == "Line over all counts, memory 128 MiB"


STATUS = "Name:\tx\nThreads:\t1\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"


def test_switches_are_counted_by_thread(tmp_path: Path) -> None:
    """Both kinds; a thread that began meanwhile counts whole, one that ended not at all."""
    assert count_switches(STATUS) == 42
    (tmp_path / "7/task/7").mkdir(parents=True)
    (tmp_path / "7/task/7/status").write_text(STATUS)
    (tmp_path / "7/task/8").mkdir()
    assert read_switches([7, 9], proc=tmp_path) == {7: 42}
    assert switches_between({7: 40, 8: 100}, {7: 42, 9: 5}) == 7


def test_switches_of_this_very_process_are_there() -> None:
    """A live process has switched at least once."""
    import os

    assert sum(read_switches([os.getpid()]).values()) > 0
