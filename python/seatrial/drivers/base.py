"""What a driver is: a description of starts as data, and books, processes and leftovers of them.

A driver never times itself and never runs in the timed path: ``DriverSession.plan`` prepares one
sandbox and gives a ``StartPlan``, which the session's launcher executes. What a driver makes
carries a label with the run's id and can be removed by a fresh process (``sweep``).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self

from seatrial.guest.channel import GuestChannel
from seatrial.launch.plan import StopResult
from seatrial.model.experiment import NetworkMode
from seatrial.model.scalar import Scalar

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from types import TracebackType

    from seatrial.guest.stats import ServerStats
    from seatrial.launch.plan import StartBatch, StartPlan, StopHow, WaitFor
    from seatrial.probes.cgroup_books import CpuReading, MemoryReading
    from seatrial.probes.leaks import Leak

#: The descriptor number on which a guest finds its control channel.
CHANNEL_FD: Final = 3
START_DEADLINE_NS: Final = 60_000_000_000
#: Where a sandbox with a root of its own sees the data directory.
DATA_PATH: Final = "/data"
#: ... and the directory of tools.
TOOLS_PATH: Final = "/tools"


class ProbeStatus(StrEnum):
    """What came of really starting a sandbox."""

    WORKS = "works"
    DEGRADED = "degraded"
    MISSING = "missing"
    BROKEN = "broken"

    @property
    def is_usable(self) -> bool:
        """Whether trials can run, perhaps with less than everything booked."""
        return self in {ProbeStatus.WORKS, ProbeStatus.DEGRADED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a driver can do on this machine; what it cannot is reported as unsupported."""

    network_modes: tuple[NetworkMode, ...] = ()
    has_own_cgroup: bool = False
    """CPU (and, with the controller, memory) of each sandbox is booked in a group of its own."""
    can_limit: bool = False
    """Memory and CPU limits can be set."""
    limit_overhead_bytes: int = 0
    """What the kernel's memory limit allows beyond the one asked for: a virtual machine's guest
    gets what was asked for, and its monitor needs memory of its own."""
    has_own_root: bool = False
    """The sandbox sees its own file system, with the data directory at ``/data``."""
    can_bind_tools: bool = False
    """A directory of programs can be bound at ``/tools``, read-only (or is seen in place)."""
    shares_host_clock: bool = False
    """The guest's monotonic clock is the host's, so its instants may be compared with ours."""
    is_rootless: bool = False
    is_emulated: bool = False
    """Guests run on a processor made of software (TCG), many times slower than on the host's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What was found out about a driver here, and what to do about it."""

    name: str
    status: ProbeStatus
    version: str | None
    detail: str
    hint: str | None = None
    capabilities: Capabilities = Capabilities()
    elapsed_ns: int = 0
    life_ns: int = 0
    """From asking for the probe's one sandbox to seeing it gone; 0: none came that far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a sandbox is to be; ``role`` is the guest's command line after its own options."""

    role: tuple[str, ...]
    memory_limit_bytes: int | None = None
    memory_wanted_bytes: int = 0
    """What its work takes at least: a guest with memory of its own gets so much, limits aside."""
    cpu_limit: float | None = None
    network: NetworkMode = NetworkMode.NONE
    data_dir: Path | None = None
    """Bound at ``/data``, writable; a driver without a root of its own uses it in place."""
    tools_dir: Path | None = None
    """Bound at ``/tools``, read-only; a driver without a root of its own uses it in place."""
    ready: Literal["hello", "ready"] = "ready"
    deadline_ns: int = START_DEADLINE_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverContext:
    """For whom and where a session works. ``network`` is the mode most sandboxes will ask for."""

    run_id: str
    state_dir: Path
    network: NetworkMode = NetworkMode.NONE
    guest_binary: Path | None = None
    """None: the one that ``seatrial.guest.binary`` finds."""
    options: Mapping[str, Scalar] = field(default_factory=dict)
    """What the experiment's ``[driver.NAME]`` says; a driver refuses what it does not know."""
    seed: int = 0
    """Of the trial; a driver that draws at random draws differently in each."""

    @classmethod
    def for_run(
        cls,
        run_id: str,
        *,
        network: NetworkMode = NetworkMode.NONE,
        options: Mapping[str, Scalar] | None = None,
        seed: int = 0,
    ) -> Self:
        """Give the context of a run, with its state where ``sweep`` looks for it."""
        return cls(
            run_id=run_id,
            state_dir=state_root() / run_id,
            network=network,
            options=dict(options or {}),
            seed=seed,
        )


def state_root() -> Path:
    """Give the directory that holds one directory a run: ``$XDG_RUNTIME_DIR/seatrial``, or /run."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "seatrial"
    if os.geteuid() == 0:
        return Path("/run/seatrial")
    return Path(f"/tmp/seatrial-{os.geteuid()}")  # noqa: S108 - made with mode 0700, and only without XDG_RUNTIME_DIR


def new_run_id(prefix: str = "") -> str:
    """Give an id for a run: a UTC stamp and four random hex digits."""
    return f"{prefix}{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


class LauncherLike(Protocol):
    """What executes start plans: ``seatrial.launch.Launcher``, or the fake driver's own."""

    @property
    def pid(self) -> int:
        """The launcher's process."""
        ...

    def start(
        self,
        plans: Sequence[StartPlan],
        *,
        wait_for: WaitFor,
        hold: bool,
        timeout_ns: int,
    ) -> StartBatch:
        """Start a batch released by one barrier, and wait for each to reach the goal."""
        ...

    def channel(self, sandbox_id: str, /) -> socket.socket:
        """Give the control channel of a held sandbox."""
        ...

    def stop(
        self,
        ids: Sequence[str] | None = None,
        *,
        how: StopHow = "request",
        grace_ns: int = ...,
    ) -> tuple[StopResult, ...]:
        """Stop held sandboxes (None: all) and wait for their ends."""
        ...

    def close(self) -> None:
        """Kill what lives and end."""
        ...


def read_server_stats(launcher: LauncherLike, plan_id: str) -> ServerStats:
    """Ask over a lent channel; the launcher keeps its own end, so the guest goes on."""
    with GuestChannel(launcher.channel(plan_id), name=plan_id) as channel:
        return channel.stats()


def tools_path(capabilities: Capabilities, directory: Path) -> str:
    """Give the path at which a sandbox sees the directory of tools it was given."""
    return TOOLS_PATH if capabilities.has_own_root else str(directory)


class SandboxCgroups(Protocol):
    """The books of one sandbox: everything that was started on its behalf; None: not known."""

    def read_cpu(self) -> CpuReading | None:
        """Read the CPU time used so far, by what has ended too."""
        ...

    def read_memory(self) -> MemoryReading | None:
        """Read the memory charged now."""
        ...

    def memory_limit_bytes(self) -> int | None:
        """Read the limit that the kernel enforces; None: there is none."""
        ...


class NoCgroups:
    """The books of a sandbox on a machine that keeps none."""

    def read_cpu(self) -> None:
        """Say that it is not known."""

    def read_memory(self) -> None:
        """Say that it is not known."""

    def memory_limit_bytes(self) -> None:
        """Say that there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """How sandboxes that were stopped together ended, and when nothing of each was left."""

    stops: tuple[StopResult, ...]
    gone_at_ns: Mapping[str, int | None]
    """None: something still was at the deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What serves all sandboxes of a session together, such as a container daemon.

    Its CPU time and its memory are no single sandbox's, so they are shown apart.
    """

    processes: Mapping[int, str]
    """Live processes and their names."""
    cgroups: SandboxCgroups
    """Books of the group that holds them and nothing else; ``NoCgroups``: they have none."""


class DriverSession(Protocol):
    """One driver at work for one run; closing it removes everything it made."""

    name: str
    version: str
    capabilities: Capabilities
    flags: Mapping[str, str]
    """What is inside the clock: options that make numbers incomparable when they differ."""

    @property
    def launcher(self) -> LauncherLike:
        """What executes this session's plans."""
        ...

    @property
    def guest_path(self) -> str:
        """The guest binary as a sandbox sees it."""
        ...

    @property
    def litter(self) -> Mapping[str, int]:
        """How much the runtime left that we had to remove, by kind; evidence, not a leak."""
        ...

    def plan(self, spec: SandboxSpec, index: int) -> StartPlan:
        """Make what one sandbox needs (untimed) and describe its start.

        Raises:
            DriverError: something could not be made, or the driver cannot do what is asked.
        """
        ...

    def cgroups(self, plan_id: str) -> SandboxCgroups:
        """Give the books of a sandbox, readable until it is released."""
        ...

    def endpoint(self, plan_id: str, port: int) -> str:
        """Give the URL at which the host reaches what a sandbox serves on a port."""
        ...

    def milestones(self, plan_id: str) -> Mapping[str, int]:
        """Give instants that only the runtime's own client saw, by their column in ``starts``.

        They may be asked for until the sandbox is released, and are whole once it has ended; what
        was not reached is not there.
        """
        ...

    def server_stats(self, plan_id: str) -> ServerStats:
        """Ask the server in a held sandbox what it has counted since its start.

        Raises:
            DriverError: no such sandbox is held, or it serves nothing (``guest-no-server``).
        """
        ...

    def data_path(self, plan_id: str) -> str:
        """Give the path at which a sandbox sees its data directory."""
        ...

    def processes(self, plan_id: str) -> Mapping[int, str]:
        """Map the live host processes of a sandbox to their roles."""
        ...

    def shared(self) -> Shared | None:
        """Give what serves all sandboxes together; None: nothing does."""
        ...

    def image_files(self) -> Sequence[Path]:
        """Give the files that a start reads: programs of the runtime, the guest, its root."""
        ...

    def wait_gone(self, plan_id: str, deadline_ns: int) -> int | None:
        """Wait until nothing of a sandbox is left; None: something still was at the deadline."""
        ...

    def wait_all_gone(self, plan_ids: Sequence[str], deadline_ns: int) -> Mapping[str, int | None]:
        """Do as ``wait_gone`` for many at once, so that the last is not charged for the first."""
        ...

    def stop_watched(
        self, plan_ids: Sequence[str], *, grace_ns: int, gone_timeout_ns: int
    ) -> Stopped:
        """Ask all that are held to stop at once, and see meanwhile each of ``plan_ids`` go."""
        ...

    def release(self, plan_id: str) -> None:
        """Remove what ``plan`` made, and the sandbox itself if it still runs; idempotent."""
        ...

    def audit(self) -> tuple[Leak, ...]:
        """Find what this session left behind, its unreleased sandboxes not counted."""
        ...

    def close(self) -> None:
        """Release everything and end the launcher; idempotent."""
        ...

    def __enter__(self) -> Self:
        """Give the session."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        ...


class Driver(Protocol):
    """One kind of runtime."""

    name: str

    def probe(self) -> ProbeResult:
        """Start a real sandbox and remove it; never raises for what is missing or broken."""
        ...

    def open(self, context: DriverContext) -> DriverSession:
        """Prepare once for a run.

        Raises:
            DriverUnavailable: the runtime is missing.
        """
        ...
