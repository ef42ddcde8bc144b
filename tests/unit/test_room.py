"""Starts that will not fit are refused before they are tried, with the number that would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.analysis.evidence import TrialEvidence
from seatrial.analysis.judge import judge_run
from seatrial.benches.base import TrialTables
from seatrial.benches.room import Needs, Room, check_room, own_bytes, room_now, stop_grace_ns
from seatrial.errors import NoRoom
from seatrial.model.finding import Severity
from seatrial.model.plan import Point, TrialSpec
from seatrial.model.trial import TrialStatus
from seatrial.probes.cgroup_books import MemoryReading
from seatrial.run.trial import TrialPerformer

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
NEEDS = Needs(memory_bytes=8 * MIB, tasks_count=10, descriptors_count=4)
ROOM = Room(
    memory_bytes=2_000 * MIB,
    memory_reserve_bytes=1_000 * MIB,
    tasks_count=3_000,
    descriptors_count=1_000,
)
SPEC = TrialSpec(
    trial_id="t0001",
    index=0,
    block=0,
    driver="runc",
    point=Point(bench="start", values={"concurrency": 400}),
    seed=1,
)


def test_what_fits_is_not_refused() -> None:
    """A hundred times 8 MiB and a quarter more are exactly what may be used."""
    check_room(100, needs=NEEDS, room=ROOM, driver="runc")


@pytest.mark.parametrize(
    ("count", "needs", "expected", "hint"),
    [
        (101, NEEDS, "oom-guard: 101 sandboxes of runc would need about 1010 MiB", "at most 100"),
        (
            100,
            Needs(memory_bytes=1, tasks_count=31, descriptors_count=1),
            "would need 3100 process ids (31 each); 3000 are free",
            "at most 96",
        ),
        (
            100,
            Needs(memory_bytes=1, tasks_count=1, descriptors_count=11),
            "would need 1100 descriptors (11 each); 1000 are free",
            "at most 90",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_its_reason(
    count: int, needs: Needs, expected: str, hint: str
) -> None:
    """The message has the need, what is free, and how many would fit."""
    with pytest.raises(NoRoom) as caught:
        check_room(count, needs=needs, room=ROOM, driver="runc")
    assert expected in str(caught.value)
    assert hint in str(caught.value.hint)


def test_page_cache_is_not_needed_twice() -> None:
    """Files that the first sandbox brought into memory are there for the second."""
    charge = MemoryReading(
        usage_bytes=50 * MIB,
        anon_bytes=8 * MIB,
        file_bytes=41 * MIB,
        shmem_bytes=4 * MIB,
        kernel_bytes=MIB,
        peak_bytes=None,
    )
    assert own_bytes(charge) == 13 * MIB


def test_room_is_read_from_proc(tmp_path: Path) -> None:
    """Memory, the smaller of two limits on tasks, and what the launcher may still open."""
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "7/fd").mkdir(parents=True)
    for name in ("0", "1", "2"):
        (tmp_path / "7/fd" / name).touch()
    (tmp_path / "meminfo").write_text("MemTotal: 10485760 kB\nMemAvailable: 1048576 kB\n")
    (tmp_path / "loadavg").write_text("0.1 0.2 0.3 2/500 12345\n")
    (tmp_path / "sys/kernel/pid_max").write_text("32768\n")
    (tmp_path / "sys/kernel/threads-max").write_text("9000\n")
    (tmp_path / "7/limits").write_text(
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max processes             unlimited            unlimited            processes \n"
        "Max open files            1024                 20000                files     \n"
    )
    room = room_now(7, proc=tmp_path)
    assert room == Room(
        memory_bytes=1024 * MIB,
        memory_reserve_bytes=512 * MIB,
        tasks_count=9_000 - 500 - 1_000,
        descriptors_count=20_000 - 3 - 64,
    )


class Refused:
    """A trial that the host has no room for."""

    def __init__(self) -> None:
        self.tables = TrialTables()
        self.findings: list[object] = []
        self.torn_down = False

    def set_up(self) -> None:
        """Does nothing."""

    def warm_up(self) -> None:
        """Finds out that it does not fit."""
        check_room(101, needs=NEEDS, room=ROOM, driver="runc")

    def measure(self) -> None:
        """Must not be reached."""
        raise AssertionError("measured what does not fit")

    drain = measure

    def tear_down(self) -> None:
        """Is reached."""
        self.torn_down = True


def test_a_refused_trial_is_skipped_and_says_why() -> None:
    """The cell is neither failed nor empty: it has a status and a reason of its own."""
    trial = Refused()
    outcome = TrialPerformer(SPEC, trial, on_phase=lambda _phase: None).perform()
    assert outcome.status is TrialStatus.SKIPPED
    assert outcome.status.is_final
    assert "oom-guard" in str(outcome.reason)
    assert trial.torn_down
    found = judge_run(
        [
            TrialEvidence(
                spec=SPEC,
                status=outcome.status,
                reason=outcome.reason,
                findings=outcome.findings,
                samples={},
                sentinel_ns=(),
                foreign_cpu_ratios=(),
                steal_ratios=(),
            )
        ],
        [],
        headlines={},
        confidence=0.95,
    )
    codes = {finding.code: finding for finding in found}
    assert codes["no-room"].severity is Severity.INFO
    assert "oom-guard" in codes["no-room"].message


def test_hundreds_have_longer_to_stop_than_one() -> None:
    """A runtime's clean-up takes processor time, and one waits for the other."""
    assert stop_grace_ns(1) == pytest.approx(5_000_000_000, rel=0.05)
    assert stop_grace_ns(400) - stop_grace_ns(1) >= 30_000_000_000
