"""Child processes: the only code in the package that starts one.

``run`` is for a command that ends soon: bounded in time and in output, its whole process group
killed on time-out. ``spawn`` is for a helper that lives beside us, with inherited descriptors.
Neither is ever in a timed path: timed starts belong to the launcher.
"""

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Literal, Self, TypeAlias

from seatrial.errors import ProcessFailed

STDERR_TAIL_BYTES: Final = 4096
OUTPUT_BYTES_MAX: Final = 1 << 20
TIMEOUT_S: Final = 30.0
# How much is read from, or written to, a pipe at once: the default capacity of a Linux pipe.
CHUNK_BYTES: Final = 65536
# What an unprivileged pipe can hold at most (/proc/sys/fs/pipe-max-size).
PIPE_BYTES_MAX: Final = 1 << 20
# A killed process is gone at once unless it hangs in the kernel; then we give up on reaping it.
REAP_TIMEOUT_S: Final = 5.0

# A number is a descriptor of ours which the child gets.
Stream: TypeAlias = Literal["null", "pipe", "inherit"] | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """How a command ended, and what it said."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr_tail: str
    is_truncated: bool
    elapsed_ns: int

    @property
    def text(self) -> str:
        """Standard output as text; bytes that are not UTF-8 are replaced."""
        return self.stdout.decode("utf-8", errors="replace")


def describe(argv: Sequence[str]) -> str:
    """Give the command line as a person would type it, cut at 200 characters."""
    line = shlex.join(argv)
    return line if len(line) <= 200 else line[:197] + "..."  # noqa: PLR2004 - said above


def run(
    argv: Sequence[str],
    *,
    timeout_s: float = TIMEOUT_S,
    output_bytes_max: int = OUTPUT_BYTES_MAX,
    env: Mapping[str, str] | None = None,
    input: bytes | None = None,  # noqa: A002 - the name that subprocess.run has taught everybody
    cwd: Path | None = None,
    check: bool = True,
) -> Completed:
    """Run a command to its end, and give its exit code and bounded output.

    Output past ``output_bytes_max`` is read and thrown away (``is_truncated`` says so); of standard
    error the last 4 KiB are kept. Output that descendants write after the command has ended is not
    waited for. ``env`` replaces the whole environment.

    Raises:
        ProcessFailed: the command cannot be started (code ``process-missing``), took too long
            (``process-timeout``; its process group was killed), or ended with a non-zero code
            while ``check`` is set (``process``).
    """
    words = tuple(argv)
    started_ns = time.monotonic_ns()
    child = _start(words, env=env, cwd=cwd, streams=("null" if input is None else "pipe", "pipe"))
    collector = _Collector(child, input=input or b"", output_bytes_max=output_bytes_max)
    try:
        is_finished = collector.collect(deadline_s=time.monotonic() + timeout_s)
    except BaseException:
        _kill_group(child)
        raise
    finally:
        collector.close()
    if not is_finished:
        _kill_group(child)
        message = f"{describe(words)}: no end after {timeout_s:g} s; it was killed"
        raise ProcessFailed(
            message, argv=words, stderr_tail=collector.stderr_tail(), code="process-timeout"
        )
    completed = Completed(
        argv=words,
        exit_code=child.wait(timeout=REAP_TIMEOUT_S),
        stdout=bytes(collector.stdout),
        stderr_tail=collector.stderr_tail(),
        is_truncated=collector.is_truncated,
        elapsed_ns=time.monotonic_ns() - started_ns,
    )
    if check and completed.exit_code != 0:
        raise failure(completed)
    return completed


def failure(completed: Completed) -> ProcessFailed:
    """Make the error that says how a command failed, with its last words."""
    code = completed.exit_code
    how = f"exit code {code}" if code >= 0 else f"killed by {_signal_name(-code)}"
    message = f"{describe(completed.argv)}: {how}"
    if completed.stderr_tail.strip():
        message += f": {completed.stderr_tail.strip()}"
    return ProcessFailed(
        message,
        argv=completed.argv,
        exit_code_of_child=code,
        stderr_tail=completed.stderr_tail,
    )


class Spawned:
    """A helper process that lives until it is closed; leaving the ``with`` block kills it."""

    def __init__(self, argv: Sequence[str], child: "subprocess.Popen[bytes]") -> None:
        """Take over a started child; use ``spawn`` to make one."""
        self.argv = tuple(argv)
        self._child = child

    @property
    def pid(self) -> int:
        """The process id, which is also its process group's."""
        return self._child.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        """Its standard input, when it was asked for as a pipe."""
        return self._child.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        """Its standard output, when it was asked for as a pipe."""
        return self._child.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        """Its standard error, when it was asked for as a pipe."""
        return self._child.stderr

    def poll(self) -> int | None:
        """Give the exit code (negative: the signal), or None while it lives."""
        return self._child.poll()

    def wait(self, *, timeout_s: float) -> int | None:
        """Wait for its end and give the exit code, or None when it still lives afterwards."""
        try:
            return self._child.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send a signal to the helper alone; harmless when it is gone."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """Kill its whole process group and reap it; harmless when it is gone."""
        _kill_group(self._child)

    def close(self) -> None:
        """Kill it if it still lives, and close our ends of its pipes."""
        if self._child.poll() is None:
            self.kill()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                # Flushing what was buffered for a dead reader must fail, and does not matter.
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> Self:
        """Give the helper itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it whatever happened."""
        self.close()


def spawn(
    argv: Sequence[str],
    *,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: Stream = "null",
    stdout: Stream = "null",
    stderr: Stream = "inherit",
) -> Spawned:
    """Start a helper in a session of its own, so that a Ctrl-C at the terminal is ours to handle.

    ``pass_fds`` stay open in the child under their own numbers; everything else is closed.

    Raises:
        ProcessFailed: the program cannot be started.
    """
    words = tuple(argv)
    child = _start(words, env=env, cwd=cwd, streams=(stdin, stdout, stderr), pass_fds=pass_fds)
    return Spawned(words, child)


class _Collector:
    """Feeds a child and reads what it says, until it ends or a deadline passes."""

    def __init__(
        self,
        child: "subprocess.Popen[bytes]",
        *,
        input: bytes,  # noqa: A002 - as run()
        output_bytes_max: int,
    ) -> None:
        self.stdout = bytearray()
        self.is_truncated = False
        self._stderr = bytearray()
        self._output_bytes_max = output_bytes_max
        self._rest = memoryview(input)
        self._child = child
        self._selector = selectors.DefaultSelector()
        self._pidfd = os.pidfd_open(child.pid)
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            self._selector.register(child.stdin, selectors.EVENT_WRITE)

    def collect(self, *, deadline_s: float) -> bool:
        """Serve the pipes until the child is gone (True) or the deadline has passed (False)."""
        while True:
            events = self._selector.select(max(0.0, deadline_s - time.monotonic()))
            if not events:
                return False
            has_ended = any(key.fileobj == self._pidfd for key, _ in events)
            for key, _ in events:
                self._serve(key.fileobj)
            if has_ended:
                # What it had written before it ended is in the pipes by now.
                for stream in (self._child.stdout, self._child.stderr):
                    self._drain(stream)
                return True

    def stderr_tail(self) -> str:
        return bytes(self._stderr[-STDERR_TAIL_BYTES:]).decode("utf-8", errors="replace")

    def close(self) -> None:
        self._selector.close()
        os.close(self._pidfd)
        for stream in (self._child.stdin, self._child.stdout, self._child.stderr):
            if stream is not None:
                stream.close()

    def _serve(self, source: object) -> None:
        if source is self._child.stdin:
            self._write(self._child.stdin)
        elif source is self._child.stdout or source is self._child.stderr:
            self._read(self._child.stdout if source is self._child.stdout else self._child.stderr)

    def _write(self, stream: IO[bytes] | None) -> None:
        if stream is None:
            return
        try:
            written = os.write(stream.fileno(), self._rest[:CHUNK_BYTES]) if self._rest else 0
        except BlockingIOError:
            return
        except BrokenPipeError:
            # The child does not want the rest; its exit code tells whether that is an error.
            written = len(self._rest)
        self._rest = self._rest[written:]
        if not self._rest:
            self._selector.unregister(stream)
            stream.close()

    def _drain(self, stream: IO[bytes] | None) -> None:
        # Bounded, since a descendant of the child may go on writing for ever.
        for _ in range(PIPE_BYTES_MAX // CHUNK_BYTES + 1):
            if not self._read(stream):
                return

    def _read(self, stream: IO[bytes] | None) -> bool:
        """Read once; False when there is nothing (more) to read."""
        if stream is None:
            return False
        try:
            data = os.read(stream.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not data:
            with contextlib.suppress(KeyError):
                self._selector.unregister(stream)
            return False
        if stream is self._child.stdout:
            room = self._output_bytes_max - len(self.stdout)
            self.stdout += data[:room]
            self.is_truncated = self.is_truncated or len(data) > room
        else:
            self._stderr = self._stderr[-STDERR_TAIL_BYTES:] + data
        return True


def _start(
    argv: tuple[str, ...],
    *,
    env: Mapping[str, str] | None,
    cwd: Path | None,
    streams: tuple[Stream, ...],
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    if not argv:
        message = "a command needs at least the name of a program, and none was given"
        raise ProcessFailed(message, argv=argv, code="process-missing")
    stdin, stdout, stderr = (*streams, "pipe")[:3]
    try:
        return subprocess.Popen(  # noqa: S603 - running a program as a list of words is our purpose
            argv,
            stdin=_descriptor(stdin),
            stdout=_descriptor(stdout),
            stderr=_descriptor(stderr),
            env=env,
            cwd=cwd,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        message = f"cannot start {describe(argv)}: {error.strerror or error}"
        hint = f"install '{argv[0]}' or put it on PATH" if error.errno == 2 else None  # noqa: PLR2004 - ENOENT
        raise ProcessFailed(message, argv=argv, hint=hint, code="process-missing") from error


def _descriptor(stream: Stream) -> int | None:
    named = {"null": subprocess.DEVNULL, "pipe": subprocess.PIPE, "inherit": None}
    return stream if isinstance(stream, int) else named[stream]


def _kill_group(child: "subprocess.Popen[bytes]") -> None:
    """Kill the child's session, then reap the child."""
    # start_new_session made the child the leader of a group of its own number. While the child is
    # not reaped that number cannot be reused, so this never hits a stranger.
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=REAP_TIMEOUT_S)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
