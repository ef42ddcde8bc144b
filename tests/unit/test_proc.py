"""Child processes: bounded in time and output, and nothing of them left."""

from __future__ import annotations

import os
import select
import signal
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.errors import ExitCode, ProcessFailed

if TYPE_CHECKING:
    from pathlib import Path


def test_output_and_exit_code() -> None:
    """Both streams come back, standard error as its tail."""
    done = proc.run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (done.exit_code, done.text, done.stderr_tail) == (3, "out\n", "err\n")
    assert not done.is_truncated
    assert done.elapsed_ns > 0


def test_input_larger_than_a_pipe() -> None:
    """Reading and writing go on side by side, so that neither end waits for ever."""
    payload = bytes(range(256)) * 4096
    assert proc.run(["cat"], input=payload, output_bytes_max=1 << 21).stdout == payload


def test_input_that_nobody_reads() -> None:
    """A child that ends without reading its input is no error."""
    assert proc.run(["true"], input=b"x" * (1 << 20)).exit_code == 0


def test_output_is_bounded() -> None:
    """What is over the bound is thrown away, and said to be; the child is not blocked."""
    done = proc.run(["head", "-c", "3000000", "/dev/zero"], output_bytes_max=1000)
    assert len(done.stdout) == 1000
    assert done.is_truncated


def test_last_words_are_kept() -> None:
    """Of a flood of standard error, the last 4 KiB are kept."""
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done"
    tail = proc.run(["sh", "-c", script]).stderr_tail
    assert tail.endswith("line 1999\n")
    assert len(tail) <= proc.STDERR_TAIL_BYTES


def test_failure_says_what_and_why() -> None:
    """The error carries the command, its exit code and its last words."""
    with pytest.raises(ProcessFailed) as caught:
        proc.run(["sh", "-c", "echo no such thing >&2; exit 7"])
    error = caught.value
    assert error.code == "process"
    assert error.exit_code is ExitCode.ENVIRONMENT
    assert error.exit_code_of_child == 7
    assert error.argv[0] == "sh"
    assert "exit code 7: no such thing" in str(error)


def test_failure_by_signal_names_it() -> None:
    """A child that was killed is reported with the name of the signal."""
    with pytest.raises(ProcessFailed, match="killed by SIGKILL"):
        proc.run(["sh", "-c", "kill -9 $$"])


def test_missing_program() -> None:
    """A program that is not there is an error with a hint, not an OSError."""
    with pytest.raises(ProcessFailed, match="cannot start seatrial-no-such-thing") as caught:
        proc.run(["seatrial-no-such-thing"])
    assert caught.value.code == "process-missing"
    assert caught.value.hint is not None


def test_empty_command() -> None:
    """No words are no command."""
    with pytest.raises(ProcessFailed, match="at least the name"):
        proc.run([])


def test_time_out_kills_the_whole_group(tmp_path: Path) -> None:
    """After a time-out neither the child nor what it started is alive."""
    fifo = tmp_path / "held"
    os.mkfifo(fifo)
    read_end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    # The descendant holds the fifo open for as long as it lives.
    with pytest.raises(ProcessFailed, match=r"no end after 2 s") as caught:
        proc.run(["sh", "-c", f"(echo held; exec sleep 60) > {fifo} & wait"], timeout_s=2)
    assert caught.value.code == "process-timeout"
    assert os.read(read_end, 100) == b"held\n"
    watch = select.poll()
    watch.register(read_end, 0)
    assert watch.poll(10_000) == [(read_end, select.POLLHUP)]
    os.close(read_end)


def test_descendants_are_not_waited_for() -> None:
    """A child that leaves a descendant with its output open ends when it itself ends."""
    done = proc.run(["sh", "-c", "sleep 30 & echo $!"], timeout_s=20)
    descendant = int(done.text)
    os.kill(descendant, signal.SIGKILL)
    assert done.elapsed_ns < 20 * 10**9


def test_environment_and_directory(tmp_path: Path) -> None:
    """The environment is replaced as a whole, the directory is set."""
    done = proc.run(["/bin/sh", "-c", "pwd; echo $A$HOME"], env={"A": "b"}, cwd=tmp_path)
    assert done.text.splitlines() == [str(tmp_path), "b"]


def test_spawned_helper_gets_its_descriptor() -> None:
    """A helper inherits the descriptors it is given, under their numbers."""
    read_end, write_end = os.pipe()
    with proc.spawn(
        ["sh", "-c", f"echo hello > /proc/self/fd/{write_end}"], pass_fds=[write_end]
    ) as helper:
        os.close(write_end)
        assert os.read(read_end, 100) == b"hello\n"
        assert helper.wait(timeout_s=10) == 0
    os.close(read_end)


def test_spawned_helper_is_killed_with_its_group() -> None:
    """Leaving the block ends the helper and what it started."""
    with proc.spawn(["sh", "-c", "sleep 60 & echo $!; wait"], stdout="pipe") as helper:
        assert helper.stdout is not None
        descendant = int(helper.stdout.readline())
        assert helper.poll() is None
        pidfd = os.pidfd_open(descendant)
    assert helper.poll() == -signal.SIGKILL
    # Its death shows by its descriptor becoming readable: no race with pid reuse.
    readable, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    assert readable


def test_waiting_for_a_helper_is_bounded() -> None:
    """A helper that goes on is reported as None, and can be signalled."""
    with proc.spawn(["sleep", "60"]) as helper:
        assert helper.wait(timeout_s=0.01) is None
        helper.signal(signal.SIGTERM)
        assert helper.wait(timeout_s=10) == -signal.SIGTERM
        helper.kill()


def test_long_commands_are_cut() -> None:
    """A message stays readable whatever the command."""
    assert len(proc.describe(["x" * 1000])) == 200
