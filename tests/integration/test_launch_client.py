"""The launcher's client with the real launcher and the real guest."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers.cri.channel import TOKEN_VARIABLE
from seatrial.errors import DriverError, EnvironmentTrouble
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.launch import Isolation, Launcher, Outcome, StartPlan, client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Generous: nothing here takes this long unless it fails.
LONG_NS = 30_000_000_000
PING, PONG = 0x11, 0x03


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """A launcher that is closed when the test ends."""
    with Launcher() as one:
        yield one


def guest(name: str, role: str = "idle") -> StartPlan:
    """A plan for a plain process of the guest."""
    argv = (str(guest_binary()), role)
    return StartPlan(id=name, argv=argv, deadline_ns=LONG_NS, ready="ready", stdio="capture")


def shell(name: str, line: str) -> StartPlan:
    """A plan for a line of shell with a channel."""
    return dataclasses.replace(guest(name), argv=("/bin/sh", "-c", line))


@contextlib.contextmanager
def end_of(pid: int) -> Iterator[None]:
    """Fails unless the process, alive at the beginning, has ended soon after the end."""
    descriptor = os.pidfd_open(pid)
    try:
        yield
        assert select.select([descriptor], [], [], 20)[0], f"process {pid} is still there"
    finally:
        os.close(descriptor)


def caller(name: str, port: int, token: str) -> StartPlan:
    """A plan for a guest that calls a port of this host."""
    words = ("--channel-tcp", f"127.0.0.1:{port}", "idle")
    return dataclasses.replace(
        guest(name),
        argv=(str(guest_binary()), *words),
        env=(f"{TOKEN_VARIABLE}={token}",),
        channel_fd=None,
        channel_token=token,
    )


def test_guests_call_by_tcp(launcher: Launcher) -> None:
    """At one port for all; a channel is handed over like any other, and its guest is stopped."""
    port = launcher.listen("127.0.0.1")
    assert launcher.listen("127.0.0.1") == port
    plans = [caller(f"box-{number}", port, f"{number:064x}") for number in range(3)]
    # Its guest says a token that nobody expects.
    liar = dataclasses.replace(caller("liar", port, "e" * 64), channel_token="f" * 64)
    for _ in range(2):
        batch = launcher.start([*plans, liar], wait_for="reply", hold=True, timeout_ns=LONG_NS)
        outcomes = [result.outcome for result in batch.results]
        assert outcomes == [*[Outcome.OK] * 3, Outcome.EXITED_EARLY], batch
        with GuestChannel(launcher.channel("box-0"), name="box-0") as channel:
            channel.run({"probe": "syscall", "iterations": 10, "batches": 1}, timeout_ns=LONG_NS)
        assert [stop.exit_code for stop in launcher.stop()] == [0, 0, 0]


def test_where_nobody_can_listen(launcher: Launcher) -> None:
    """The address is in the error; the launcher goes on."""
    with pytest.raises(DriverError, match=r"255\.255\.255\.255") as caught:
        launcher.listen("255.255.255.255")
    assert caught.value.code == "launcher-listen"
    with pytest.raises(DriverError, match="not a request"):
        launcher.listen("here")
    with pytest.raises(DriverError, match="nobody listens for its guest"):
        launcher.start([caller("a", 1, "0" * 64)], wait_for="hello", hold=False, timeout_ns=LONG_NS)
    assert launcher.start([guest("b")], wait_for="ready", hold=False, timeout_ns=LONG_NS)


def test_a_batch_comes_back_in_order_with_one_clock(launcher: Launcher) -> None:
    """Instants are our own monotonic clock's, in causal order; results in the plans' order."""
    before_ns = time.monotonic_ns()
    plans = [guest(f"box-{number:02}") for number in range(8)]
    batch = launcher.start(plans, wait_for="reply", hold=False, timeout_ns=LONG_NS)
    after_ns = time.monotonic_ns()
    assert [result.id for result in batch.results] == [plan.id for plan in plans]
    assert batch.launcher_user_ns + batch.launcher_system_ns >= 0
    for result in batch.results:
        assert (result.outcome, result.exit_code) == (Outcome.OK, 0), result
        instants = [
            before_ns,
            batch.released_at_ns,
            result.due_at_ns,
            result.invoked_at_ns,
            result.first_byte_at_ns,
            result.ready_at_ns,
            result.ping_sent_at_ns,
            result.first_reply_at_ns,
            result.stop_requested_at_ns,
            result.exit_seen_at_ns,
            after_ns,
        ]
        assert None not in instants
        assert instants == sorted(instants, key=lambda instant: instant or 0)
        # A plain process shares our clock, so the guest's own instants fit in between.
        assert result.invoked_at_ns is not None
        assert result.guest_first_instruction_mono_ns is not None
        assert result.guest_hello_mono_ns is not None
        assert result.first_byte_at_ns is not None
        assert (
            result.invoked_at_ns
            < result.guest_first_instruction_mono_ns
            <= result.guest_hello_mono_ns
            < result.first_byte_at_ns
        )


def test_trouble_of_one_sandbox_is_in_its_result(launcher: Launcher) -> None:
    """Each kind of failure is an outcome of its own, and the good one stays good."""
    plans = [
        guest("good"),
        shell("early", "echo broken >&2; exit 5"),
        shell("garbage", "printf 'GET / HTTP/1.1\\r\\n\\r\\n' >&3; exec sleep 1000"),
        dataclasses.replace(shell("silent", "exec sleep 1000"), deadline_ns=200_000_000),
        dataclasses.replace(guest("missing"), argv=("/nonexistent",)),
    ]
    batch = launcher.start(plans, wait_for="ready", hold=True, timeout_ns=LONG_NS)
    outcomes = {result.id: result.outcome for result in batch.results}
    assert outcomes == {
        "good": Outcome.OK,
        "early": Outcome.EXITED_EARLY,
        "garbage": Outcome.PROTOCOL_ERROR,
        "silent": Outcome.TIMED_OUT,
        "missing": Outcome.SPAWN_FAILED,
    }
    by_id = {result.id: result for result in batch.results}
    assert (by_id["early"].exit_code, by_id["early"].stderr_tail) == (5, "broken\n")
    assert by_id["silent"].censored
    assert "No such file or directory (2)" in (by_id["missing"].error or "")
    assert [stop.id for stop in launcher.stop()] == ["good"]


def test_a_channel_is_ours_after_it_was_handed_over(launcher: Launcher) -> None:
    """A held guest answers on the channel, and can still be stopped by the launcher."""
    launcher.start([guest("a")], wait_for="ready", hold=True, timeout_ns=LONG_NS)
    with launcher.channel("a") as channel:
        channel.settimeout(20)
        channel.sendall(struct.pack("<IBB", 7, 2, PING) + b"hello")
        assert channel.recv(100) == struct.pack("<IBB", 7, 2, PONG) + b"hello"
    (stop,) = launcher.stop(["a"])
    assert (stop.id, stop.exit_code, stop.error) == ("a", 0, None)


def test_what_is_not_held_cannot_be_asked_for(launcher: Launcher) -> None:
    """An unknown id is an error that names it, and the launcher goes on."""
    with pytest.raises(DriverError, match="no held sandbox") as caught:
        launcher.channel("nobody")
    assert caught.value.code == "launcher-unknown-id"
    with pytest.raises(DriverError, match="nobody"):
        launcher.stop(["nobody"])
    assert launcher.stop() == ()


def test_an_interrupt_leaves_a_launcher_that_can_only_be_closed() -> None:
    """Ctrl-C during a batch comes through at once; closing kills what was started."""
    with Launcher() as launcher:
        batch = launcher.start([guest("a")], wait_for="hello", hold=True, timeout_ns=LONG_NS)
        pid = batch.results[0].pid
        assert pid is not None
        with end_of(pid), end_of(launcher.pid):
            timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                launcher.start(
                    [shell("b", "exec sleep 1000")],
                    wait_for="hello",
                    hold=True,
                    timeout_ns=LONG_NS,
                )
            timer.join()
            with pytest.raises(DriverError, match="interrupted"):
                launcher.stop()
            launcher.close()


def test_a_launcher_that_dies_is_reported() -> None:
    """A killed launcher is an error that says so, and takes its sandboxes along."""
    with Launcher() as launcher:
        batch = launcher.start([guest("a")], wait_for="hello", hold=True, timeout_ns=LONG_NS)
        pid = batch.results[0].pid
        assert pid is not None
        with end_of(pid):
            os.kill(launcher.pid, signal.SIGKILL)
            with pytest.raises(DriverError, match="ended with -9") as caught:
                launcher.stop()
            assert caught.value.code == "launcher-gone"
            with pytest.raises(DriverError, match="it has ended"):
                launcher.stop()


def test_a_launcher_that_does_not_answer_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher that hangs is an error after the request's own bounds, and is killed."""
    monkeypatch.setattr(client, "REPLY_MARGIN_NS", 0)
    monkeypatch.setattr(client, "CLOSE_TIMEOUT_S", 0.1)
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 1000\n")
    hanging.chmod(0o755)
    with Launcher(binary=hanging) as launcher, end_of(launcher.pid):
        with pytest.raises(DriverError, match="did not answer 'stop'") as caught:
            launcher.stop(grace_ns=50_000_000)
        assert caught.value.code == "launcher-silent"
        launcher.close()


def test_nothing_survives_a_killed_client() -> None:
    """A kill -9 of our own process takes the launcher and every sandbox along."""
    program = """
import sys, time
from seatrial.drivers.cri.channel import TOKEN_VARIABLE
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.launch import Launcher, StartPlan
launcher = Launcher()
argv = ("/bin/sh", "-c", f"setsid {guest_binary()} idle & exec sleep 1000")
plans = [StartPlan(id="a", argv=argv, deadline_ns=10**10)]
batch = launcher.start(plans, wait_for="hello", hold=True, timeout_ns=10**10)
print(launcher.pid, batch.results[0].pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        pids = [int(word) for word in child.stdout.readline().split()]
        with end_of(pids[0]), end_of(pids[1]):
            child.kill()


def test_the_launcher_outlives_the_thread_that_started_it() -> None:
    """The end of a thread of ours is not taken for our end."""
    launchers: list[Launcher] = []
    thread = threading.Thread(target=lambda: launchers.append(Launcher()))
    thread.start()
    thread.join()
    with launchers[0] as launcher:
        batch = launcher.start([guest("a")], wait_for="hello", hold=False, timeout_ns=LONG_NS)
        assert batch.results[0].outcome is Outcome.OK


def test_mounts_that_are_not_there_cannot_be_removed() -> None:
    """A context that cannot be made is the environment's trouble, and leaves nothing behind."""
    with pytest.raises(EnvironmentTrouble, match="launcher refused 'context'"):
        Launcher(unmount=["/nonexistent/mount"])


def test_a_missing_launcher_is_said_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the binary the error says how to get it."""
    monkeypatch.setenv("SEATRIAL_BIN_DIR", str(tmp_path))
    with pytest.raises(EnvironmentTrouble) as caught:
        Launcher()
    assert "make build" in (caught.value.hint or "")


def test_the_guest_is_enough_in_an_empty_root(tmp_path: Path, launcher: Launcher) -> None:
    """The recipe of the lean sandbox needs nothing but the guest itself in its root."""
    root = tmp_path / "root"
    for name in ("proc", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "guest").write_bytes(guest_binary().read_bytes())
    (root / "guest").chmod(0o755)
    is_root = os.geteuid() == 0
    isolation = Isolation(
        namespaces=("mount", "pid", "uts", "ipc", "net", *(() if is_root else ("user",))),
        root=str(root),
        proc=True,
        tmpfs=("/tmp",),
        hostname="hull",
        uid_map=None if is_root else f"0 {os.geteuid()} 1",
        gid_map=None if is_root else f"0 {os.getegid()} 1",
        read_only_root=True,
    )
    plan = dataclasses.replace(guest("a"), argv=("/guest", "idle"), isolation=isolation)
    batch = launcher.start([plan], wait_for="reply", hold=True, timeout_ns=LONG_NS)
    result = batch.results[0]
    if result.outcome is Outcome.SPAWN_FAILED and not is_root:
        pytest.skip(f"no user namespaces here: {result.error}")
    assert result.outcome is Outcome.OK, result
    status = f"/proc/{result.pid}/status"
    with open(status, encoding="utf-8") as file:  # noqa: PTH123 - a process, not a path of ours
        inner = next(line.split()[-1] for line in file if line.startswith("NSpid"))
    assert inner == "1"
    assert launcher.stop()[0].exit_code == 0
