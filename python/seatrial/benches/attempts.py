"""Pieces of work in a sandbox, each tried several times: what came of every single try.

The first try is *first touch*: caches, files and lazily made mappings are cold. It is kept apart
and is never a sample. A try that gives no number leaves a row with the reason, so that a table can
tell *unsupported* from *failed*, and both from *not tried*.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, cast

from seatrial.benches.tool_output import Moved, ToolFailed, is_unsupported
from seatrial.errors import DriverError
from seatrial.guest.channel import GuestChannel
from seatrial.probes.block_device import BlockDevice
from seatrial.probes.cgroup_books import CpuReading
from seatrial.proc import describe

if TYPE_CHECKING:
    from seatrial.benches.base import TrialTables
    from seatrial.probes.block_device import DeviceBytes

ATTEMPTS: Final = "attempts"
READINGS: Final = "readings"
#: Position of the try that is first touch.
FIRST: Final = 0
#: How much longer than the guest the host waits for the end of a command.
CHANNEL_MARGIN_NS: Final = 15_000_000_000
REASON_CHARACTERS_MAX: Final = 400
#: The guest's code for a step that its kernel refused (seatrial-guest, error.rs).
PROBE_FAILED: Final = "guest-probe-failed"
#: Codes after which the guest goes on: that, and a probe that it does not have.
REFUSALS: Final = frozenset({PROBE_FAILED, "guest-bad-request"})


class Outcome(StrEnum):
    """How a try ended."""

    OK = "ok"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    UNSUPPORTED = "unsupported"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try; None: not known or not reached. The fields are the columns of ``attempts``."""

    work: str
    position: int
    outcome: Outcome
    reason: str | None = None
    command: str | None = None
    exit_code: int | None = None
    elapsed_ns: int | None = None
    host_elapsed_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    cgroup_cpu_ns: int | None = None
    cgroup_user_ns: int | None = None
    cgroup_system_ns: int | None = None
    is_direct: bool = False
    read_bytes: int | None = None
    written_bytes: int | None = None
    device_read_bytes: int | None = None
    device_written_bytes: int | None = None
    device: str | None = None
    filesystem: str | None = None
    route: str | None = None
    readings: Mapping[str, float] = field(default_factory=dict)

    def store(self, tables: TrialTables) -> None:
        """Add the try and its readings to the tables."""
        row = asdict(self)
        del row["readings"]
        tables.add(ATTEMPTS, {**row, "outcome": self.outcome.value})
        for metric, value in self.readings.items():
            reading = {"work": self.work, "position": self.position}
            tables.add(READINGS, {**reading, "metric": metric, "value": float(value)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command in a sandbox came to, by the guest's report."""

    exit_code: int | None
    signal: int | None
    timed_out: bool
    stdout: str
    stderr: str
    elapsed_ns: int
    user_ns: int
    system_ns: int

    @classmethod
    def of(cls, result: Mapping[str, object]) -> Said:
        """Read the guest's result of ``exec``."""
        return cls(
            exit_code=cast("int | None", result["exit_code"]),
            signal=cast("int | None", result["signal"]),
            timed_out=bool(result["timed_out"]),
            stdout=str(result["stdout"]),
            stderr=str(result["stderr"]),
            elapsed_ns=cast("list[int]", result["batch_ns"])[0],
            user_ns=cast("int", result["user_ns"]),
            system_ns=cast("int", result["system_ns"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A command, and how its output is read."""

    name: str
    argv: Sequence[str]
    read: Callable[[Said], Moved]
    timeout_ns: int
    is_direct: bool = False
    route: str | None = None
    directory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where commands run: a held sandbox with its books, and the device below its files."""

    channel: GuestChannel
    environment: Mapping[str, str]
    read_cpu: Callable[[], CpuReading | None]
    device: BlockDevice | None = None


def attempt(work: Work, place: Place, *, position: int) -> Attempt:
    """Run a command once and read what it says; trouble is a part of what is given.

    Raises:
        DriverError: the guest is gone or does not answer, so nothing more can be run in it.
        ProtocolMismatch: it does not speak the protocol.
    """
    request: dict[str, object] = {
        "probe": "exec",
        "argv": list(work.argv),
        "env": dict(place.environment),
        "timeout_ns": work.timeout_ns,
    }
    if work.directory is not None:
        request["cwd"] = work.directory
    cpu_before, device_before = place.read_cpu(), _device(place)
    started_ns = time.monotonic_ns()
    try:
        result = place.channel.run(request, timeout_ns=work.timeout_ns + CHANNEL_MARGIN_NS)
    except DriverError as error:
        if error.code not in REFUSALS:
            raise
        return _refused(work, position, error.message)
    host_elapsed_ns = time.monotonic_ns() - started_ns
    said = Said.of(result)
    cpu, device = place.read_cpu(), _device(place)
    outcome, reason, moved = _judge(work, said)
    return Attempt(
        work=work.name,
        position=position,
        outcome=outcome,
        reason=reason,
        command=describe(work.argv),
        exit_code=said.exit_code,
        elapsed_ns=said.elapsed_ns,
        host_elapsed_ns=host_elapsed_ns,
        user_ns=said.user_ns,
        system_ns=said.system_ns,
        cgroup_cpu_ns=_less(cpu, cpu_before, "total_ns"),
        cgroup_user_ns=_less(cpu, cpu_before, "user_ns"),
        cgroup_system_ns=_less(cpu, cpu_before, "system_ns"),
        is_direct=work.is_direct,
        read_bytes=None if moved is None else moved.read_bytes,
        written_bytes=None if moved is None else moved.written_bytes,
        device_read_bytes=_less(device, device_before, "read_bytes"),
        device_written_bytes=_less(device, device_before, "written_bytes"),
        device=None if place.device is None else place.device.name,
        filesystem=None if place.device is None else place.device.filesystem,
        route=work.route,
        readings={} if moved is None else moved.readings,
    )


def skipped(work: str, reason: str) -> Attempt:
    """Give the row of work that lacks what it needs."""
    return Attempt(work=work, position=FIRST, outcome=Outcome.SKIPPED, reason=reason)


def _judge(work: Work, said: Said) -> tuple[Outcome, str | None, Moved | None]:
    """Read a command's output; (outcome, why it gave no number, what it moved)."""
    if said.timed_out:
        limit_s = work.timeout_ns / 1e9
        return Outcome.TIMED_OUT, f"not done within {limit_s:g} s; it was killed", None
    if said.signal is not None:
        return Outcome.FAILED, f"ended by signal {said.signal}: {_tail(said.stderr)}", None
    try:
        moved = work.read(said)
    except ToolFailed as error:
        outcome = Outcome.UNSUPPORTED if error.is_unsupported else Outcome.FAILED
        return outcome, str(error), None
    if said.exit_code != 0:
        reason = f"exit code {said.exit_code}: {_tail(said.stderr)}"
        outcome = Outcome.UNSUPPORTED if is_unsupported(said.stderr) else Outcome.FAILED
        return outcome, reason, None
    return Outcome.OK, None, moved


def _refused(work: Work, position: int, message: str) -> Attempt:
    """Give the row of a command that the sandbox could not start: its kernel said why."""
    return Attempt(
        work=work.name,
        position=position,
        outcome=Outcome.UNSUPPORTED,
        reason=message[-REASON_CHARACTERS_MAX:],
        command=describe(work.argv),
        is_direct=work.is_direct,
        route=work.route,
    )


def _tail(text: str) -> str:
    return " ".join(text.split())[-REASON_CHARACTERS_MAX:]


def _device(place: Place) -> DeviceBytes | None:
    return None if place.device is None else place.device.read()


def _less(
    after: CpuReading | DeviceBytes | None, before: CpuReading | DeviceBytes | None, name: str
) -> int | None:
    """Give the growth of one number between two readings; None: one of them is not known."""
    late, early = getattr(after, name, None), getattr(before, name, None)
    return None if late is None or early is None else late - early
