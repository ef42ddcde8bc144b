"""The doctor's measure of noise: who works beside us, what is stolen, and how jitter is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.doctor import noise
from seatrial.doctor.check import Level
from seatrial.doctor.tree import Tree

if TYPE_CHECKING:
    from pathlib import Path


def stat_text(busy: int, steal: int, switches: int) -> str:
    """/proc/stat of a machine with two processors, in ticks."""
    return (
        f"cpu {busy} 0 0 0 0 0 0 {steal} 0 0\ncpu0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\n"
        f"intr 5\nctxt {switches}\n"
    )


def process(root: Path, pid: int, *, ticks: int, command: str) -> None:
    """A process that used so many ticks."""
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True, exist_ok=True)
    fields = ["S", "1", *["0"] * 9, str(ticks), "0", *["0"] * 10]
    (folder / "stat").write_text(f"{pid} (a b) c) {' '.join(fields)}\n")
    (folder / "cmdline").write_bytes(command.encode() + b"\0")


def readings(root: Path, *, steal: int = 0) -> tuple[noise.Reading, noise.Reading]:
    """Two readings with 40 ticks of work by one process and 5 by another between them."""
    tree = Tree(root)
    (root / "proc").mkdir()
    (root / "proc/stat").write_text(stat_text(1000, 0, 100))
    process(root, 10, ticks=500, command="busy --much")
    process(root, 11, ticks=500, command="less")
    before = noise.take_reading(tree, tick_ns=10_000_000)
    (root / "proc/stat").write_text(stat_text(1050, steal, 1100))
    process(root, 10, ticks=540, command="busy --much")
    process(root, 11, ticks=505, command="less")
    after = noise.take_reading(tree, tick_ns=10_000_000)
    # As if a second had passed.
    start_ns = after.cpu.at_ns - 1_000_000_000
    cpu = before.cpu
    early = type(cpu)(
        at_ns=start_ns,
        busy_ns=cpu.busy_ns,
        user_ns=cpu.user_ns,
        system_ns=cpu.system_ns,
        steal_ns=cpu.steal_ns,
        processors_count=cpu.processors_count,
    )
    return noise.Reading(
        cpu=early, switches_count=before.switches_count, processes_ns=before.processes_ns
    ), after


def test_who_takes_the_processor_is_named_by_pid_and_share(tmp_path: Path) -> None:
    """The busiest first, ourselves left out."""
    before, after = readings(tmp_path)
    tree = Tree(tmp_path)
    found = noise.find_suspects(before, after, own=[], tree=tree)
    assert [(one.pid, round(one.ratio, 2), one.command) for one in found] == [
        (10, 0.4, "busy --much"),
        (11, 0.05, "less"),
    ]
    assert [one.pid for one in noise.find_suspects(before, after, own=[10], tree=tree)] == [11]
    check = noise.judge_foreign(before, after, own_ns=0, suspects=found)
    assert check.level is Level.WARN
    assert "10 busy --much (40% of one)" in check.evidence


def test_our_own_work_is_no_noise(tmp_path: Path) -> None:
    """500 ms of two seconds of capacity are a quarter; less our own 450 they are 2.5 per cent."""
    before, after = readings(tmp_path)
    check = noise.judge_foreign(before, after, own_ns=450_000_000, suspects=())
    assert check.level is Level.OK
    assert check.values["busy_ratio"] == pytest.approx(0.025)


@pytest.mark.parametrize(("ticks", "level"), [(0, Level.OK), (4, Level.OK), (10, Level.WARN)])
def test_steal_over_two_per_cent_is_a_warning(tmp_path: Path, ticks: int, level: Level) -> None:
    """Ten ticks of 200 are five per cent."""
    before, after = readings(tmp_path, steal=ticks)
    check = noise.judge_steal(before, after)
    assert check.level is level
    assert check.values["steal_ratio"] == pytest.approx(ticks / 200)
    assert noise.judge_switches(before, after).values["switches_rps"] == pytest.approx(1000)


def test_gaps_are_found_where_the_clock_jumps() -> None:
    """A clock that ticks in 100 ns, and once stands still for 5 ms."""
    times = iter([*range(0, 50_000, 100), *range(5_050_000, 5_200_000, 100)])
    gaps, span_ns = noise.spin_gaps(5_100_000, clock=lambda: next(times))
    assert gaps == [5_050_000 - 49_900]
    assert span_ns == 5_100_000
    check = noise.judge_gaps(gaps, span_ns)
    assert check.level is Level.WARN
    assert check.values["longest_ns"] == 5_000_100
    assert noise.judge_gaps([20_000], 600_000_000).level is Level.OK


def test_late_sleepers_are_a_warning_by_their_99th_percentile() -> None:
    """One late sleep of a hundred and one is not enough; two are."""
    fine = sorted([60_000] * 200 + [5_000_000])
    late = sorted([60_000] * 98 + [5_000_000] * 2)
    assert noise.judge_lateness(fine).level is Level.OK
    assert noise.judge_lateness(late).level is Level.WARN


def test_histograms_keep_every_value_in_its_bucket() -> None:
    """Lower edges belong to the bucket above."""
    buckets = noise.histogram([0, 9_999, 10_000, 29_999, 1_000_000, 10_000_000, 99_000_000])
    assert [(name, count) for name, count in buckets if count] == [
        ("under 10 µs", 2),
        ("10 µs to 30 µs", 2),
        ("1 ms to 3 ms", 1),
        ("10 ms and more", 2),
    ]
