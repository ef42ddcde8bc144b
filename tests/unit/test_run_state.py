"""Who owns a run, and what a sweep may touch; nothing here needs rights."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.drivers import state
from seatrial.drivers.base import DriverContext, new_run_id, state_root
from seatrial.errors import DriverError, EnvironmentTrouble
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's control groups are nothing to these tests."""
    monkeypatch.setattr(state.CgroupHost, "detect", lambda: CgroupHost(()))


def dead_owner(run_id: str) -> state.Owner:
    """An owner whose process has ended."""
    with proc.spawn(["sleep", "60"]) as child:
        ticks = leaks.start_ticks(child.pid)
        child.kill()
        return dataclasses.replace(
            state.Owner.current(run_id), pid=child.pid, start_ticks=ticks or 0
        )


def make_run(root: Path, owner: state.Owner) -> Path:
    """A run directory with a file of a runtime in it."""
    directory = root / owner.run_id
    (directory / "001-runc").mkdir(parents=True)
    owner.write(directory)
    return directory


def test_an_owner_is_this_very_process() -> None:
    """A process that later got the same number is another one."""
    owner = state.Owner.current("run-1")
    assert owner.is_alive
    assert not dataclasses.replace(owner, start_ticks=owner.start_ticks + 1).is_alive
    assert not dataclasses.replace(owner, boot_id="before").is_alive


def test_owners_are_read_as_written(tmp_path: Path) -> None:
    """What cannot be read is no owner."""
    owner = state.Owner.current("run-1")
    owner.write(tmp_path)
    assert state.Owner.read(tmp_path) == owner
    (tmp_path / state.OWNER_FILE).write_text("{")
    assert state.Owner.read(tmp_path) is None
    assert state.Owner.read(tmp_path / "none") is None


def test_sweep_removes_dead_runs_only(tmp_path: Path) -> None:
    """A live run, a directory without an owner, and one that lies about its run stay."""
    dead = make_run(tmp_path, dead_owner("run-dead-aaaa"))
    alive = make_run(tmp_path, state.Owner.current("run-live-bbbb"))
    (tmp_path / "stranger").mkdir()
    (tmp_path / "liar").mkdir()
    dead_owner("run-other").write(tmp_path / "liar")
    assert state.sweep(tmp_path) == [f"state {dead}"]
    assert not dead.exists()
    assert alive.is_dir()
    assert (tmp_path / "stranger").is_dir()
    assert (tmp_path / "liar").is_dir()
    assert state.sweep(tmp_path) == []


def test_sweep_without_a_state_directory(tmp_path: Path) -> None:
    """Nothing was ever run: nothing to remove."""
    assert state.sweep(tmp_path / "none") == []


def test_sessions_share_a_run_and_the_last_removes_it(tmp_path: Path) -> None:
    """Numbers are unique in the run; the directory lives as long as a session."""
    directory = tmp_path / "run-1"
    first = state.RunState.acquire("run-1", directory)
    second = state.RunState.acquire("run-1", directory)
    assert first is second
    assert [first.next_session(), second.next_session()] == ["001", "002"]
    first.release()
    assert directory.is_dir()
    second.release()
    assert not directory.exists()


def test_numbers_of_closed_sessions_are_used_again(tmp_path: Path) -> None:
    """A run may open any number of sessions, one after another; a live one keeps its number."""
    run = state.RunState.acquire("run-1", tmp_path / "run-1")
    assert [run.next_session() for _ in range(3)] == ["001", "002", "003"]
    run.end_session("002")
    assert [run.next_session(), run.next_session()] == ["002", "004"]
    for _ in range(state.SESSIONS_MAX + 1):
        run.end_session("003")
        assert run.next_session() == "003"
    run.release()


def test_so_many_sessions_at_once_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number has three digits."""
    monkeypatch.setattr(state, "SESSIONS_MAX", 2)
    run = state.RunState.acquire("run-1", tmp_path / "run-1")
    assert [run.next_session(), run.next_session()] == ["001", "002"]
    with pytest.raises(DriverError, match="2 sessions"):
        run.next_session()
    run.end_session("001")
    assert run.next_session() == "001"
    run.release()


def test_a_run_of_a_live_process_is_not_taken(tmp_path: Path) -> None:
    """The message names the process."""
    directory = tmp_path / "run-1"
    directory.mkdir()
    parent = os.getppid()
    ticks = leaks.start_ticks(parent)
    owner = state.Owner.current("run-1")
    dataclasses.replace(owner, pid=parent, start_ticks=ticks or 0).write(directory)
    with pytest.raises(DriverError, match=str(parent)):
        state.RunState.acquire("run-1", directory)


def test_a_run_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    """What it left is removed first."""
    directory = make_run(tmp_path, dead_owner("run-1"))
    taken = state.RunState.acquire("run-1", directory)
    assert not (directory / "001-runc").exists()
    taken.release()


@pytest.mark.parametrize("run_id", ["", "..", "a/b", "-x", "a" * 80, "x y"])
def test_unsafe_ids_are_refused(tmp_path: Path, run_id: str) -> None:
    """An id becomes a path and a name in the kernel."""
    with pytest.raises(DriverError, match="no safe name"):
        state.RunState.acquire(run_id, tmp_path / "x")


def test_an_unwritable_place_says_what_to_do(tmp_path: Path) -> None:
    """A file stands where the directory should be."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentTrouble, match="state directory") as caught:
        state.RunState.acquire("run-1", tmp_path / "file/run-1")
    assert caught.value.hint is not None


def test_names_fit_the_kernel() -> None:
    """An interface name has at most 15 bytes, whatever the run's id."""
    run_id = new_run_id("probe-")
    token = "0" * 8
    assert len(state.interface_prefix(run_id) + token) == 15
    assert state.sandbox_prefix(run_id) == f"st-{run_id[-4:]}-"


def test_the_state_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own runtime directory, or the system's for root."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert str(state_root()) == "/run/user/7/seatrial"
    assert str(DriverContext.for_run("r-1").state_dir) == "/run/user/7/seatrial/r-1"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(state_root()) == "/run/seatrial"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert str(state_root()) == "/tmp/seatrial-1000"
