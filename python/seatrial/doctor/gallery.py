"""One sandbox of each runtime, side by side: left alone, put to work on a disk, and removed.

They start when their runtimes have proved to work, beside other checks, and are left alone together
afterwards, which disturbs nobody, because a sandbox's processor time is booked to it alone. What
looks at a device or at a clock is done one by one, while nothing else of ours runs.
"""

from __future__ import annotations

import contextlib
import mmap
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from seatrial.benches.attempts import Attempt, Outcome, Place, Work, attempt
from seatrial.benches.inside_files import flush
from seatrial.benches.start_books import daemon_cpu_ns
from seatrial.benches.tool_output import parse_dd
from seatrial.doctor.check import About, Check, Group
from seatrial.doctor.leftovers import TEMPORARY_PREFIX
from seatrial.doctor.step import NS_PER_S, Step
from seatrial.doctor.traits import Traits, Transfer, judge_traits
from seatrial.drivers import registry
from seatrial.drivers.base import (
    DriverContext,
    DriverSession,
    SandboxSpec,
    new_run_id,
    tools_path,
)
from seatrial.drivers.local import describe_failure
from seatrial.errors import SeatrialError
from seatrial.guest.channel import GuestChannel
from seatrial.guest.toolbox import Toolbox, make_toolbox
from seatrial.launch.plan import Outcome as StartOutcome
from seatrial.probes.block_device import device_of
from seatrial.probes.residency import read_residency
from seatrial.probes.switches import read_switches, switches_between

if TYPE_CHECKING:
    from types import TracebackType

SAY: Final = About(Group.RUNTIMES)
#: Of the checks that are about all of this together.
NAME: Final = "sandboxes at work"
START_DEADLINE_NS: Final = 30 * NS_PER_S
START_MARGIN_NS: Final = 5 * NS_PER_S
#: What runtimes still do when their sandbox says that it is ready is no idling.
SETTLE_NS: Final = 500_000_000
IDLE_NS: Final = 1_500_000_000
STOP_GRACE_NS: Final = 3 * NS_PER_S
GONE_TIMEOUT_NS: Final = 5 * NS_PER_S
STEP_DEADLINE_NS: Final = 60 * NS_PER_S
TRANSFER_TIMEOUT_NS: Final = 5 * NS_PER_S
#: Enough that what others write meanwhile does not look like it.
BLOCK: Final = "1M"
BLOCKS_COUNT: Final = 8
FILE: Final = "direct"
DD: Final = "dd"
#: Drivers that start in another way what is the same sandbox once it runs.
SAME_AS: Final[Mapping[str, str]] = {
    "lean-prepared": "lean",
    "lean-pooled": "lean",
    "qemu-template": "qemu",
    "firecracker-snapshot": "firecracker",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The books of a sandbox at an instant; None: there are none."""

    at_ns: int
    cpu_ns: int | None
    daemon_ns: int | None
    switches: Mapping[int, int]


@dataclass(slots=True)
class Exhibit:
    """One runtime's sandbox, and what is known of it so far."""

    traits: Traits
    directory: Path
    """Where its files lie on the host."""
    session: DriverSession | None = None
    plan_id: str = ""
    has_tools: bool = False
    was_tried: bool = False
    """Its runtime has proved to work before."""

    @property
    def is_alive(self) -> bool:
        """Whether there is a sandbox to be looked at."""
        return self.session is not None and bool(self.plan_id) and self.traits.trouble is None

    def read(self) -> Reading:
        """Read its books."""
        assert self.session is not None, "only asked of sandboxes that live"
        cpu = self.session.cgroups(self.plan_id).read_cpu()
        return Reading(
            at_ns=time.monotonic_ns(),
            cpu_ns=None if cpu is None else cpu.total_ns,
            daemon_ns=daemon_cpu_ns(self.session),
            switches=read_switches(self.session.processes(self.plan_id)),
        )


@dataclass(slots=True)
class Gallery:
    """Sandboxes of some drivers; leaving it removes them and their files."""

    drivers: Sequence[str]
    place: Path
    """A directory on the disk that is asked about."""
    exhibits: dict[str, Exhibit] = field(default_factory=dict)
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _tools: Toolbox | None = None
    _run_id: str = field(default_factory=lambda: new_run_id("doctor-"))

    def __enter__(self) -> Self:
        """Make nothing yet: each step may fail for itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what there still is."""
        self._stack.close()

    @property
    def traits(self) -> tuple[Traits, ...]:
        """What was found out, in the order of the drivers."""
        return tuple(one.traits for one in self.exhibits.values() if one.was_tried)

    # --- steps ------------------------------------------------------------------------------------

    def prepare_step(self) -> Step:
        """Make directories, and the one program that is to run in the sandboxes."""
        return self._step("files for the sandboxes", self._prepare)

    def start_step(self, name: str, *, is_wanted: Callable[[], bool]) -> Step:
        """Start the sandbox of a driver, unless it is found by then that none can be started.

        These may run beside each other, and beside other checks.
        """

        def start() -> Sequence[Check]:
            return self.start(name) if is_wanted() else ()

        return self._step(f"{name}, to be looked at", start)

    def look_steps(self) -> list[Step]:
        """Leave them alone, have them write and read, remove them; one after another."""
        return [
            self._step("sandboxes that idle", self._idle),
            self._step("direct I/O in sandboxes", self._transfer),
            self._step("removal of sandboxes", self._remove),
        ]

    @staticmethod
    def _step(name: str, look: Callable[[], Sequence[Check]]) -> Step:
        return Step(group=Group.RUNTIMES, name=name, look=look, deadline_ns=STEP_DEADLINE_NS)

    # --- what they do -----------------------------------------------------------------------------

    def _prepare(self) -> Sequence[Check]:
        # Ours alone, since a sandbox may write as somebody else to the directories in it.
        try:
            temporary = tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=self.place)
        except OSError as error:
            reason = f"{self.place}: {error.strerror}"
            return (SAY.untried(NAME, reason, fix="choose a directory to write to with --out"),)
        root = Path(self._stack.enter_context(temporary))
        self._stack.enter_context(registry.keep_daemons(self._run_id))
        for name in self.drivers:
            directory = root / name.replace("/", "-")
            directory.mkdir()
            directory.chmod(0o777)
            self.exhibits[name] = Exhibit(traits=Traits(driver=name), directory=directory)
        self._tools = make_dd(root / "tools")
        return ()

    def start(self, name: str) -> Sequence[Check]:
        """Start the sandbox of a driver; trouble is a trait of it."""
        exhibit = self.exhibits.get(name)
        if exhibit is None:
            return ()
        exhibit.was_tried = True
        try:
            session = exhibit.session = registry.get(name).open(DriverContext.for_run(self._run_id))
            self._stack.callback(session.close)
            plan = session.plan(self._spec(exhibit), 0)
            batch = session.launcher.start(
                [plan],
                wait_for="ready",
                hold=True,
                timeout_ns=START_DEADLINE_NS + START_MARGIN_NS,
            )
            exhibit.plan_id = plan.id
            result = batch.results[0]
            trouble = None if result.outcome is StartOutcome.OK else describe_failure(result)
        except SeatrialError as error:
            trouble = error.message
        exhibit.traits = replace(exhibit.traits, trouble=trouble)
        return ()

    def _spec(self, exhibit: Exhibit) -> SandboxSpec:
        assert exhibit.session is not None, "it was opened just now"
        exhibit.has_tools = self._tools is not None and exhibit.session.capabilities.can_bind_tools
        return SandboxSpec(
            role=("idle",),
            data_dir=exhibit.directory,
            tools_dir=self._tools.directory if self._tools and exhibit.has_tools else None,
            deadline_ns=START_DEADLINE_NS,
        )

    def _alive(self) -> list[Exhibit]:
        return [exhibit for exhibit in self.exhibits.values() if exhibit.is_alive]

    def _idle(self) -> Sequence[Check]:
        alive = self._alive()
        if not alive:
            return ()
        time.sleep(SETTLE_NS / NS_PER_S)
        before = [(exhibit, exhibit.read()) for exhibit in alive]
        time.sleep(IDLE_NS / NS_PER_S)
        for exhibit, early in before:
            exhibit.traits = with_idling(exhibit.traits, early, exhibit.read())
        return ()

    def _transfer(self) -> Sequence[Check]:
        for exhibit in self._alive():
            if not exhibit.has_tools or self._tools is None:
                name = exhibit.traits.driver
                reason = f"no program can be bound into a sandbox of {name}"
                untried = Transfer(trouble=reason if self._tools else f"there is no {DD} here")
                exhibit.traits = replace(exhibit.traits, write=untried, read=untried)
                continue
            try:
                write, read = transfer(exhibit, self._tools)
            except (SeatrialError, OSError) as error:
                write = read = Transfer(trouble=str(error))
            exhibit.traits = replace(exhibit.traits, write=write, read=read)
        return ()

    def _remove(self) -> Sequence[Check]:
        for exhibit in self._alive():
            session = exhibit.session
            assert session is not None, "only sandboxes that live are listed"
            stopped = session.stop_watched(
                [exhibit.plan_id], grace_ns=STOP_GRACE_NS, gone_timeout_ns=GONE_TIMEOUT_NS
            )
            gone_at_ns = stopped.gone_at_ns[exhibit.plan_id]
            asked = [stop.stop_requested_at_ns for stop in stopped.stops]
            if gone_at_ns is not None and asked and asked[0] is not None:
                exhibit.traits = replace(exhibit.traits, teardown_ns=gone_at_ns - asked[0])
            session.release(exhibit.plan_id)
            exhibit.plan_id = ""
        return [check for traits in self.traits for check in judge_traits(traits)]


def worth_looking_at(drivers: Sequence[str]) -> tuple[str, ...]:
    """Leave out drivers whose sandbox is that of another one of them once it runs; pure."""
    return tuple(name for name in drivers if SAME_AS.get(name) not in drivers)


def with_idling(traits: Traits, before: Reading, after: Reading) -> Traits:
    """Add what a sandbox did between two readings; pure."""
    span_ns = max(after.at_ns - before.at_ns, 1)

    def share(late_ns: int | None, early_ns: int | None) -> float | None:
        return None if late_ns is None or early_ns is None else (late_ns - early_ns) / span_ns

    switches = switches_between(before.switches, after.switches)
    return replace(
        traits,
        window_ns=span_ns,
        idle_ratio=share(after.cpu_ns, before.cpu_ns),
        daemon_ratio=share(after.daemon_ns, before.daemon_ns),
        switches_rps=switches * NS_PER_S / span_ns if after.switches else None,
    )


def make_dd(root: Path) -> Toolbox | None:
    """Make a directory with dd alone; None: it cannot be had here."""
    found = shutil.which(DD)
    if found is None:
        return None
    try:
        return make_toolbox(root, programs={DD: Path(found).resolve()})
    except SeatrialError:
        return None


def transfer(exhibit: Exhibit, tools: Toolbox) -> tuple[Transfer, Transfer]:
    """Have dd write a file past the page cache, and read it past the page cache.

    Raises:
        SeatrialError: the guest is gone or does not answer.
        OSError: the directory is gone.
    """
    session = exhibit.session
    assert session is not None, "only asked of sandboxes that live"
    at = tools_path(session.capabilities, tools.directory)
    path = f"{session.data_path(exhibit.plan_id)}/{FILE}"
    size = (f"bs={BLOCK}", f"count={BLOCKS_COUNT}")
    words = {
        "write": ("if=/dev/zero", f"of={path}", *size, "oflag=direct"),
        "read": (f"if={path}", "of=/dev/null", *size, "iflag=direct"),
    }
    file = exhibit.directory / FILE
    found: dict[str, Transfer] = {}
    with GuestChannel(session.launcher.channel(exhibit.plan_id), name=exhibit.plan_id) as channel:
        place = Place(
            channel=channel,
            environment=tools.environment(at),
            read_cpu=session.cgroups(exhibit.plan_id).read_cpu,
            device=device_of(exhibit.directory),
        )
        for name, arguments in words.items():
            work = _work(name, tools.argv(DD, *arguments, at=at))
            done = attempt(work, place, position=0)
            found[name] = judge_attempt(done, cached_bytes=_cached_bytes(file))
            flush(file, drops=True)
    return found["write"], found["read"]


def _work(name: str, argv: Sequence[str]) -> Work:
    return Work(
        name=name,
        argv=argv,
        read=lambda said: parse_dd(
            said.stderr, kind=f"dd_{name}", is_write=name == "write", counts_operations=False
        ),
        timeout_ns=TRANSFER_TIMEOUT_NS,
        is_direct=True,
    )


def judge_attempt(done: Attempt, *, cached_bytes: int | None) -> Transfer:
    """Read what became of a transfer from a try of dd; pure."""
    if done.outcome is not Outcome.OK:
        is_refused = done.outcome is Outcome.UNSUPPORTED
        return Transfer(trouble=done.reason or done.outcome.value, is_refused=is_refused)
    if done.work == "write":
        moved, device = done.written_bytes, done.device_written_bytes
    else:
        moved, device = done.read_bytes, done.device_read_bytes
    return Transfer(moved_bytes=moved or 0, device_bytes=device, cached_bytes=cached_bytes)


def _cached_bytes(file: Path) -> int | None:
    """Give how much of a file is in the page cache; None: the host has no such file."""
    seen = read_residency([file])
    return seen.resident_count * mmap.PAGESIZE if seen.pages_count else None
