"""Whole runs beside whose sandboxes something else gives way: a daemon, a monitor, a runtime.

The starts that it hits fail by their kind, every other trial is as if nothing had been, and in the
end neither a process nor a socket is left.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers.fake import FakeSession
from seatrial.errors import DriverError
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store.run_store import RunStore
from tests.support.fake_run import run_text
from tests.support.needs import needs_driver, only_thorough
from tests.support.remains import processes_of
from tests.support.trouble import endings_in, outcomes_of, run_into

if TYPE_CHECKING:
    from tests.support.command import Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.driver, pytest.mark.timeout(300)]

STORM = """
name = "storm"
seed = 5
blocks = {blocks}
baseline = "lean"
drivers = ["lean", "{driver}"]

[start]
concurrency = [{concurrency}]
rounds = {rounds}
deadline = "{deadline}"
control_window = "0s"
"""
FINDING = 1
FAILED_STARTS = {"exited-early", "timed-out", "spawn-failed", "protocol-error"}
SHIM_SOCKETS = Path("/run/containerd/s")
LOOKS_COUNT, LOOK_PAUSE_S = 20, 0.5


def storm(seatrial: Seatrial, driver: str, **settings: object) -> Path:
    """Writes an experiment with two drivers."""
    usual = {"blocks": 2, "concurrency": 3, "rounds": 1, "deadline": "20s"}
    return seatrial.experiment(STORM.format(driver=driver, **{**usual, **settings}))


def check_unharmed(seatrial: Seatrial, outcomes: list[TrialOutcome]) -> None:
    """All of these trials and all of their starts went well, and so did the other driver's."""
    for one in (*outcomes, *outcomes_of(seatrial, "lean")):
        assert one.status is TrialStatus.OK, one.reason
        assert set(endings_in(one)) == {"ok"}


def sockets() -> set[str]:
    """Sockets of containerd's shims that nobody serves; others may have some that live."""
    served = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()}
    return {path.name for path in SHIM_SOCKETS.glob("*") if str(path) not in served}


def lasting_sockets(before: set[str]) -> set[str]:
    """Those of them that are new and stay: a neighbour's shim has a dead one for a moment."""
    left = sockets() - before
    for _ in range(LOOKS_COUNT):
        if not left:
            break
        time.sleep(LOOK_PAUSE_S)
        left &= sockets()
    return left


@pytest.mark.parametrize("point", ["within", pytest.param("held", marks=only_thorough)])
def test_containerd_killed_in_a_storm(seatrial: Seatrial, point: str) -> None:
    """With pods under way, or up: they are removed all the same, and the next trial has another."""
    needs_driver("cri/runc")
    before = sockets()
    done = run_into(seatrial, "kill:containerd", point, "cri/runc:1", storm(seatrial, "cri/runc"))
    assert done.code == FINDING, done.shown
    hit, *others = outcomes_of(seatrial, "cri/runc")
    if point == "within":
        assert set(endings_in(hit)) <= FAILED_STARTS, done.shown
    else:
        assert set(endings_in(hit)) == {"ok"}, done.shown
        assert any(one.code == "leftovers" for one in hit.findings), done.shown
    check_unharmed(seatrial, others)
    (run_dir,) = seatrial.runs()
    assert processes_of(run_dir.name) == {}
    assert not lasting_sockets(before)


@only_thorough
def test_containerd_killed_beside_its_company(seatrial: Seatrial) -> None:
    """Idle pods outlive their daemon, and are not kept for the next trial when a start failed."""
    needs_driver("cri/runc")
    file = storm(seatrial, "cri/runc", blocks=3)
    file.write_text(file.read_text() + 'background_count = [2]\nbackground = "cri/runc"\n')
    before = sockets()
    done = run_into(seatrial, "kill:containerd", "held", "lean:1", file)
    assert done.code == FINDING, done.shown
    statuses = [one.status for name in ("lean", "cri/runc") for one in outcomes_of(seatrial, name)]
    assert len(statuses) == 6
    assert TrialStatus.OK in statuses
    assert endings_in(outcomes_of(seatrial, "cri/runc")[-1]) == ["ok"] * 3
    (run_dir,) = seatrial.runs()
    assert processes_of(run_dir.name) == {}
    assert not lasting_sockets(before)


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("podman", "within"),
        pytest.param("conmon", "within", marks=only_thorough),
        pytest.param("conmon", "held", marks=only_thorough),
    ],
)
def test_podman_killed_in_a_storm(seatrial: Seatrial, name: str, point: str) -> None:
    """Its command, or the monitor of each container: nothing stays, not even in its store."""
    needs_driver("podman")
    done = run_into(seatrial, f"kill:{name}", point, "podman:1", storm(seatrial, "podman"))
    assert done.code in {0, FINDING}, done.shown
    hit, *others = outcomes_of(seatrial, "podman")
    assert set(endings_in(hit)) <= {"ok", *FAILED_STARTS}, done.shown
    if name == "podman":
        # Those whose guest had answered by then were started well.
        assert FAILED_STARTS & set(endings_in(hit)), done.shown
    check_unharmed(seatrial, others)
    (run_dir,) = seatrial.runs()
    assert processes_of(run_dir.name) == {}


# --- runtimes behind a daemon or an engine, that misbehave ---------------------------------------

#: Stands before the real program: good at first, then bad at every third call of one kind.
SHIM = """#!/bin/sh
case " $* " in *" {call} "*) ;; *) exec {real} "$@" ;; esac
exec 9>{count}/lock
flock 9
n=$(cat {count}/n 2>/dev/null || echo 0)
echo $((n + 1)) > {count}/n
exec 9>&-
real={real}
if [ "$n" -ge {good} ] && [ $((n % 3)) -eq 0 ]; then
{trouble}
fi
exec {real} "$@"
"""
HANGS, EXITS = "exec sleep 1000", "echo 'no such luck' >&2; exit 1"
BABBLES = "head -c 4096 /dev/urandom; exit 0"
#: What it began lives on, and nobody is told of it.
STALLS = '"$real" "$@" > /dev/null; exec sleep 1000'
#: Driver, its program, the call that fails, how many good ones come first (probe, flags, warm-up).
BEHIND = {
    "runc-behind-cri": ("cri/runc", "runc", "create", 6),
    "shim": ("cri/runc", "containerd-shim-runc-v2", "start", 3),
    "engine": ("podman", "podman", "run", 3),
}


#: Trouble, deadline of a start, and what may become of one.
TROUBLES = {
    "hangs": (HANGS, "6s", {"timed-out"}),
    "stalls": (STALLS, "6s", {"timed-out"}),
    "exits": (EXITS, "20s", {"exited-early"}),
    # What is said instead of an address or a state may also be waited for.
    "babbles": (BABBLES, "20s", {"exited-early", "timed-out"}),
}
#: What is always tried: each place once.
ALWAYS = {
    ("runc-behind-cri", "hangs"),
    ("shim", "babbles"),
    ("engine", "exits"),
}


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        pytest.param(place, kind, marks=() if (place, kind) in ALWAYS else only_thorough)
        for place in BEHIND
        for kind in TROUBLES
        # What has begun and is not told of stands there as an engine's command does.
        if (place, kind) != ("engine", "stalls")
    ],
)
def test_what_stands_behind_misbehaves(
    seatrial: Seatrial, tmp_path: Path, place: str, kind: str
) -> None:
    """Some starts fail by their kind, the others are well, and so is the run."""
    driver, program, call, good_count = BEHIND[place]
    trouble, deadline, outcomes = TROUBLES[kind]
    needs_driver(driver)
    folder = tmp_path / "bin"
    folder.mkdir()
    real = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    text = SHIM.format(real=real, call=call, count=folder, good=good_count, trouble=trouble)
    (folder / program).write_text(text)
    (folder / program).chmod(0o755)
    file = storm(seatrial, driver, blocks=1, rounds=2, concurrency=3, deadline=deadline)
    path = f"{folder}:{os.environ['PATH']}"
    before = sockets()
    done = seatrial.call("run", "--no-html", file, environment={"PATH": path})
    assert done.code == FINDING, done.shown
    assert "Traceback" not in done.out + done.err, done.shown
    (trial,) = outcomes_of(seatrial, driver)
    found = endings_in(trial)
    assert len(found) == 6
    assert "ok" in found, done.shown
    assert set(found) - {"ok"}, done.shown
    assert set(found) - {"ok"} <= outcomes, done.shown
    (run_dir,) = seatrial.runs()
    assert processes_of(run_dir.name) == {}
    assert not lasting_sockets(before)


# --- sessions that do not end -------------------------------------------------------------------

CLOSING = """
name = "close"
seed = 1
blocks = 2
baseline = "fake"
drivers = ["fake"]

[start]
concurrency = [2]
rounds = 1
deadline = "2s"
control_window = "0s"
"""


@pytest.mark.parametrize(
    "error", [DriverError("no reply within 10s"), OSError(28, "No space left on device")]
)
def test_a_session_that_cannot_be_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What its trial measured is kept, the trouble is a finding, and the next trial is run."""
    close = FakeSession.close

    def fail(self: FakeSession) -> None:
        close(self)
        raise error

    monkeypatch.setattr(FakeSession, "close", fail)
    monkeypatch.setattr(FakeSession, "__exit__", lambda self, *_: close(self))
    _, run_dir = run_text(CLOSING, tmp_path)
    outcomes = RunStore.open(run_dir).outcomes().values()
    assert [one.status for one in outcomes] == [TrialStatus.OK] * 2
    for one in outcomes:
        assert "starts" in one.tables
        (finding,) = [found for found in one.findings if found.code == "leftovers"]
        assert str(error) in finding.message
