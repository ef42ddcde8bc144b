"""Only processes that are found again, once held, are killed."""

from __future__ import annotations

from seatrial import proc
from seatrial.probes import leaks
from seatrial.probes.killing import kill_until_gone


def test_a_number_that_passed_on_is_not_killed() -> None:
    """Who no longer carries the label once it is held by descriptor is somebody else."""
    with proc.spawn(["sleep", "60"]) as stranger:
        looks = iter([{stranger.pid}])
        assert kill_until_gone(lambda: next(looks, set()), timeout_ns=10**9) == ()
        assert leaks.is_alive(stranger.pid)
        stranger.kill()


def test_labelled_processes_are_killed() -> None:
    """Every process that is found goes, and is waited for."""
    with proc.spawn(["sleep", "60"]) as ours:

        def find() -> set[int]:
            return {ours.pid} if leaks.is_alive(ours.pid) else set()

        assert kill_until_gone(find, timeout_ns=10 * 10**9) == ()
        assert not leaks.is_alive(ours.pid)


def test_numbers_without_a_process_are_no_targets() -> None:
    """Zero means a process of another pid namespace; to signal it would mean our own group."""
    with proc.spawn(["sleep", "60"]) as ended:
        ended.kill()
    assert kill_until_gone(lambda: {0, ended.pid}, timeout_ns=1) == (0, ended.pid)
