"""What the doctor says of a sandbox that runs: idling, removal, and writes past the page cache."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from seatrial.benches.attempts import Attempt, Outcome
from seatrial.cli.doctor_text import show
from seatrial.doctor import gallery, traits
from seatrial.doctor.check import Level
from seatrial.doctor.examine import Examination
from seatrial.doctor.gallery import Gallery, Reading, with_idling, worth_looking_at
from seatrial.doctor.step import Performer
from seatrial.doctor.traits import Honour, Traits, Transfer, judge_traits
from seatrial.drivers import registry
from seatrial.errors import DriverUnavailable

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
PAST = Transfer(moved_bytes=8 * MIB, device_bytes=8 * MIB, cached_bytes=0)
CACHED = Transfer(moved_bytes=8 * MIB, device_bytes=0, cached_bytes=8 * MIB)
GOOD = Traits(
    driver="runc",
    window_ns=1_500_000_000,
    idle_ratio=0.0001,
    switches_rps=2.0,
    teardown_ns=20_000_000,
    write=PAST,
    read=PAST,
)


def levels(found: Traits) -> dict[str, Level]:
    """The levels of the checks, by what they are about."""
    return {check.name.partition(": ")[2]: check.level for check in judge_traits(found)}


# --- O_DIRECT ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transfer", "honour"),
    [
        (PAST, Honour.HONOURED),
        (CACHED, Honour.IGNORED),
        # The pages are this file's own; what the device counted may be somebody else's.
        (replace(CACHED, device_bytes=9 * MIB), Honour.IGNORED),
        (replace(PAST, device_bytes=None), Honour.HONOURED),
        # A machine's file is none of the host's: only the device can tell.
        (replace(PAST, cached_bytes=None), Honour.HONOURED),
        (replace(CACHED, cached_bytes=None), Honour.IGNORED),
        (Transfer(moved_bytes=MIB), Honour.UNKNOWN),
        (Transfer(), Honour.UNKNOWN),
        (Transfer(trouble="dd is gone"), Honour.UNKNOWN),
        (Transfer(trouble="Invalid argument", is_refused=True), Honour.REFUSED),
    ],
)
def test_a_transfer_is_judged_by_its_own_pages_first(transfer: Transfer, honour: Honour) -> None:
    """Then by the device; by neither, nothing is claimed."""
    assert transfer.honour is honour


@pytest.mark.parametrize(
    ("write", "read", "honour", "level"),
    [
        (PAST, PAST, Honour.HONOURED, Level.OK),
        (PAST, CACHED, Honour.IGNORED, Level.WARN),
        (CACHED, Transfer(), Honour.IGNORED, Level.WARN),
        (Transfer(trouble="x", is_refused=True), PAST, Honour.REFUSED, Level.WARN),
        (Transfer(), PAST, Honour.UNKNOWN, Level.UNTRIED),
    ],
)
def test_the_worse_direction_counts(
    write: Transfer, read: Transfer, honour: Honour, level: Level
) -> None:
    """Who writes to memory and reads from the disk has no disk numbers."""
    found = replace(GOOD, write=write, read=read)
    assert found.honour is honour
    assert levels(found)["direct I/O"] is level


def test_an_ignored_flag_is_told_with_all_three_counts() -> None:
    """What the program says, what the device counted, what the page cache holds."""
    check = traits.judge_direct(replace(GOOD, write=CACHED))
    assert "write ignored: 8.00 MiB by its program, 0 B on the device" in check.evidence
    assert "8.00 MiB in the host's page cache" in check.evidence
    assert check.consequence
    assert check.fix


def attempted(work: str, outcome: Outcome = Outcome.OK, reason: str | None = None) -> Attempt:
    """A try of dd."""
    return Attempt(
        work=work,
        position=0,
        outcome=outcome,
        reason=reason,
        read_bytes=3,
        written_bytes=5,
        device_read_bytes=7,
        device_written_bytes=11,
    )


def test_a_try_of_dd_becomes_a_transfer() -> None:
    """Each direction has its own counters; what the kernel refuses is told from what failed."""
    write = gallery.judge_attempt(attempted("write"), cached_bytes=2)
    assert write == Transfer(moved_bytes=5, device_bytes=11, cached_bytes=2)
    read = gallery.judge_attempt(attempted("read"), cached_bytes=None)
    assert read == Transfer(moved_bytes=3, device_bytes=7)
    refused = gallery.judge_attempt(
        attempted("write", Outcome.UNSUPPORTED, "Invalid argument"), cached_bytes=0
    )
    assert (refused.honour, refused.trouble) == (Honour.REFUSED, "Invalid argument")
    late = gallery.judge_attempt(attempted("write", Outcome.TIMED_OUT), cached_bytes=0)
    assert (late.honour, late.trouble) == (Honour.UNKNOWN, "timed-out")


# --- idling and removal --------------------------------------------------------------------------


def test_idling_is_what_was_booked_between_two_readings() -> None:
    """Per second of the window and not per window; what is not booked stays unknown."""
    before = Reading(at_ns=0, cpu_ns=1_000, daemon_ns=None, switches={1: 5, 2: 9})
    after = Reading(at_ns=2_000_000_000, cpu_ns=32_001_000, daemon_ns=7, switches={1: 105, 2: 9})
    found = with_idling(Traits(driver="runsc"), before, after)
    assert found.idle_ratio == pytest.approx(0.016)
    assert found.switches_rps == pytest.approx(50.0)
    assert found.daemon_ratio is None
    bare = replace(after, cpu_ns=None, switches={})
    unknown = with_idling(Traits(driver="runsc"), before, bare)
    assert (unknown.idle_ratio, unknown.switches_rps) == (None, None)
    assert levels(unknown)["idle"] is Level.UNTRIED


def test_a_sandbox_that_is_busy_with_nothing_is_told_with_how_many_fill_a_processor() -> None:
    """The limit itself still passes."""
    assert levels(GOOD) == dict.fromkeys(("idle", "removal", "direct I/O"), Level.OK)
    at_limit = replace(GOOD, idle_ratio=traits.IDLE_RATIO_MAX)
    assert levels(at_limit)["idle"] is Level.OK
    busy = traits.judge_idle(replace(GOOD, idle_ratio=0.0163, switches_rps=3300.0))
    assert busy.level is Level.WARN
    assert "1.63% of one processor and 3300 context switches a second" in busy.evidence
    assert busy.consequence.startswith("61 idle ones")


def test_a_slow_removal_is_told_as_what_a_hundred_take() -> None:
    """One that was not gone in time is broken, and never zero."""
    slow = traits.judge_teardown(replace(GOOD, teardown_ns=2_000_000_000))
    assert (slow.level, "3.33 min" in slow.consequence) == (Level.WARN, True)
    assert levels(replace(GOOD, teardown_ns=None))["removal"] is Level.BROKEN


def test_a_sandbox_that_did_not_start_has_no_traits() -> None:
    """One check says so, in place of three guesses."""
    (check,) = judge_traits(Traits(driver="runsc", trouble="start timed-out"))
    assert (check.level, check.evidence) == (Level.BROKEN, "start timed-out")
    assert not traits.is_trait(check)


# --- the gallery ---------------------------------------------------------------------------------


def test_one_sandbox_of_a_kind_is_enough() -> None:
    """A template starts otherwise and is the same machine; alone it is looked at."""
    every = ("lean", "lean-prepared", "lean-pooled", "runc")
    assert worth_looking_at(every) == ("lean", "runc")
    assert worth_looking_at(("lean-prepared", "qemu-template")) == (
        "lean-prepared",
        "qemu-template",
    )


def test_what_cannot_be_started_any_more_is_told_and_nothing_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Drivers that did not prove to work before are not tried at all."""

    class Gone:
        def open(self, context: object) -> object:
            raise DriverUnavailable(f"went away ({type(context).__name__})")

    tried: list[str] = []

    def get(name: str) -> Gone:
        tried.append(name)
        return Gone()

    monkeypatch.setattr(registry, "get", get)
    with Gallery(("runc", "crun"), tmp_path) as shown:
        steps = [
            shown.prepare_step(),
            shown.start_step("runc", is_wanted=lambda: True),
            shown.start_step("crun", is_wanted=lambda: False),
            *shown.look_steps(),
        ]
        checks = Performer().perform(steps)
        assert list(tmp_path.iterdir())
    assert tried == ["runc"]
    assert [(one.name, one.level) for one in checks] == [("runc: at work", Level.BROKEN)]
    assert [one.driver for one in shown.traits] == ["runc"]
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_to_is_no_fault_of_a_runtime(tmp_path: Path) -> None:
    """Nothing is started then, and it is said what to do."""
    with Gallery(("runc",), tmp_path / "gone") as shown:
        steps = [shown.prepare_step(), shown.start_step("runc", is_wanted=lambda: True)]
        (check,) = Performer().perform([*steps, *shown.look_steps()])
    assert (check.level, check.name) == (Level.UNTRIED, "sandboxes at work")
    assert "No such file or directory" in check.evidence
    assert "--out" in check.fix
    assert shown.traits == ()


def test_a_person_reads_traits_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    """What is fine has no line of its own beside it; what is not is among the problems."""
    bad = replace(GOOD, driver="runsc", idle_ratio=0.0163, write=CACHED, daemon_ratio=0.0002)
    checks = tuple(check for one in (GOOD, bad) for check in judge_traits(one))
    made = Examination(checks=checks, abilities=(), elapsed_ns=1, traits=(GOOD, bad))
    show(made, only_problems=False)
    out = capsys.readouterr().out
    assert "One sandbox of each, once it runs" in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "0.01%" in rows["runc"]
    assert "honoured" in rows["runc"]
    assert all(word in rows["runsc"] for word in ("! 1.63%", "0.02%", "! ignored"))
    assert "runc: idle" not in out
    assert "runsc: idle" in out
