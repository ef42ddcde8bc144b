"""The books of a window, from the text of /proc/stat to the shares that findings use."""

from __future__ import annotations

import pytest

from seatrial.probes.noise import Gate, HostCpu, NoiseMonitor, WindowRecord, parse_host_cpu

STAT = """cpu  100 20 30 4000 50 5 6 7 8 9
cpu0 50 10 15 2000 25 2 3 3 4 4
cpu1 50 10 15 2000 25 3 3 4 4 5
intr 1 2 3
"""


def record(**changes: int) -> WindowRecord:
    """Returns a window of 1 s on two processors with 0.6 s busy, 0.5 s of it our own."""
    values = {
        "started_at_ns": 0,
        "ended_at_ns": 1_000_000_000,
        "own_cpu_ns": 500_000_000,
        "host_busy_ns": 600_000_000,
        "steal_ns": 40_000_000,
        "processors_count": 2,
        "gate_wait_ns": 0,
    }
    values.update(changes)
    return WindowRecord(name="w", was_quiet=True, **values)


def test_busy_is_what_runs_and_guest_time_is_not_counted_twice() -> None:
    """User + nice + system + irq + softirq; idle, iowait, steal and guest are not busy."""
    cpu = parse_host_cpu(STAT, at_ns=7, tick_ns=10)
    assert cpu == HostCpu(
        at_ns=7,
        busy_ns=(100 + 20 + 30 + 5 + 6) * 10,
        user_ns=(100 + 20) * 10,
        system_ns=(30 + 5 + 6) * 10,
        steal_ns=70,
        processors_count=2,
    )


def test_shares_are_of_all_processors() -> None:
    """0.1 s foreign of 2 s capacity is 5 %, 40 ms stolen is 2 %."""
    window = record()
    assert window.foreign_cpu_ratio == 0.05
    assert window.steal_ratio == 0.02
    assert window.row()["own_cpu_ns"] == 500_000_000


def test_ticks_that_lag_behind_our_own_books_do_not_make_foreign_negative() -> None:
    """Tick sampling may see less than we know we used; foreign is then 0."""
    assert record(host_busy_ns=300_000_000).foreign_cpu_ratio == 0.0


def test_a_window_is_kept_even_when_its_body_fails() -> None:
    """An exception inside must not lose the evidence of what the host was doing."""
    monitor = NoiseMonitor(own_cpu_ns=lambda: 0, gate=Gate(busy_ratio_max=1.0))
    with pytest.raises(ZeroDivisionError), monitor.window("w"):
        _ = 1 // len(monitor.records)
    (kept,) = monitor.records
    assert kept.name == "w"
    assert kept.was_quiet
    assert kept.ended_at_ns >= kept.started_at_ns


def test_the_gate_gives_up_at_its_bound_and_says_so() -> None:
    """A host that never gets quiet does not stop the run; the window says it was not quiet."""
    books = iter(range(0, -(10**15), -(10**12)))
    monitor = NoiseMonitor(own_cpu_ns=lambda: next(books), gate=Gate(wait_ns_max=0))
    _, was_quiet = monitor.wait_until_quiet()
    assert not was_quiet
