"""Tests by tools of the host, run in one held sandbox: what dd, fio, Python and others do there.

A subclass names the pieces of work of a try and prepares files. What a sandbox lacks (tools cannot
be bound into it, one is not installed, no network) makes rows with the reason, not an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Final, cast

from seatrial.benches.attempts import Place, attempt, skipped
from seatrial.benches.base import TrialContext, TrialTables
from seatrial.benches.held import HeldSandbox
from seatrial.benches.inside_metrics import works_of
from seatrial.benches.inside_probes import WORK_MEMORY_BYTES, warm_clock
from seatrial.drivers.base import tools_path
from seatrial.errors import EnvironmentTrouble
from seatrial.guest.toolbox import make_toolbox
from seatrial.model.finding import Finding, Severity
from seatrial.probes.block_device import device_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.benches.attempts import Attempt, Work
    from seatrial.drivers.base import DriverSession
    from seatrial.guest.toolbox import Toolbox
    from seatrial.model.experiment import InsideSettings, NetworkMode
    from seatrial.probes.block_device import BlockDevice

FILE: Final = "swapfile"


class ToolsTrial(ABC):
    """Tries the work of one point, first touch first, in one sandbox."""

    #: Pieces of work and the tool that each needs; what the guest does itself is not listed.
    tool_of: ClassVar[Mapping[str, str]] = {}
    #: Whether bytes are held against the device's own count.
    has_files: ClassVar[bool] = False

    def __init__(self, context: TrialContext) -> None:
        self.context = context
        self.settings = cast("InsideSettings", context.experiment.inside)
        self._skips: dict[str, str] = {}
        self._box: Toolbox | None = None
        self._sandbox: HeldSandbox | None = None
        self._place: Place | None = None
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    # --- what a test says -------------------------------------------------------------------------

    @abstractmethod
    def tries(self, works: Iterable[str], position: int) -> Iterable[Attempt]:
        """Do each of these pieces of work once, in an order that fits."""

    def prepare(self) -> None:  # noqa: B027 - a hook: most tests need no files
        """Make files that the work needs, before the sandbox starts; untimed."""

    def network(self, session: DriverSession) -> NetworkMode | None:
        """Choose the network of the sandbox; None: it lacks one that the test needs."""
        del session
        return self.context.experiment.network

    # --- the phases -------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Makes the tools and files and starts the sandbox, or finds out why that cannot be."""
        session = self.context.open_session(self.context.spec.driver)
        self._skips = self._find_skips(session)
        if len(self._skips) == len(self._works()):
            return
        self.prepare()
        sandbox = self._sandbox = HeldSandbox(
            self.context,
            role=("idle",),
            data_dir=self.context.scratch_dir,
            tools_dir=self.box.directory if self._uses_tools() else None,
            network=self.network(session),
            memory_wanted_bytes=WORK_MEMORY_BYTES,
        )
        self.findings = sandbox.findings
        sandbox.start(session)
        self._place = Place(
            channel=sandbox.channel,
            environment=self.box.environment(self.tools_at) if self._uses_tools() else {},
            read_cpu=session.cgroups(sandbox.plan_id).read_cpu,
            device=self._device() if self.has_files else None,
        )

    def warm_up(self) -> None:
        """Lets the sandbox find its clock; the work itself is not warmed up."""
        if self._place is not None:
            warm_clock(self._place.channel)

    def measure(self) -> None:
        """Tries everything once for first touch, then as often as asked."""
        for work, reason in self._skips.items():
            skipped(work, reason).store(self.tables)
        if self._place is None:
            return
        works = [work for work in self._works() if work not in self._skips]
        with self.context.window("inside"):
            for position in range(self.settings.repeats + 1):
                for one in self.tries(works, position):
                    one.store(self.tables)

    def drain(self) -> None:  # noqa: B027 - a phase in which there is nothing to do
        """Does nothing: a command has ended before its row is made."""

    def tear_down(self) -> None:
        """Stops the sandbox; the runner removes the files."""
        if self._sandbox is not None:
            self._sandbox.stop()

    # --- for tests --------------------------------------------------------------------------------

    @property
    def is_at_work(self) -> bool:
        """Whether there is a sandbox: not everything had to be skipped."""
        return self._place is not None

    @property
    def box(self) -> Toolbox:
        """The tools, made when first asked for."""
        if self._box is None:
            self._box = make_toolbox()
        return self._box

    @property
    def sandbox(self) -> HeldSandbox:
        """The sandbox at work."""
        assert self._sandbox is not None, "the sandbox was used before it was started"
        return self._sandbox

    @property
    def tools_at(self) -> str:
        """The path of the tools in the sandbox."""
        return tools_path(self.sandbox.session.capabilities, self.box.directory)

    @property
    def data_at(self) -> str:
        """The path of the data directory in the sandbox."""
        return self.sandbox.session.data_path(self.sandbox.plan_id)

    def tool(self, name: str, *arguments: str) -> tuple[str, ...]:
        """Give the command line of a tool in the sandbox."""
        return self.box.argv(name, *arguments, at=self.tools_at)

    def skip(self, work: str, reason: str) -> None:
        """Leave a piece of work out, for a reason."""
        self._skips.setdefault(work, reason)

    def run(self, work: Work, position: int) -> Attempt:
        """Try a command once."""
        assert self._place is not None, "work was tried before the sandbox was started"
        return attempt(work, self._place, position=position)

    # --- helpers ----------------------------------------------------------------------------------

    def _works(self) -> tuple[str, ...]:
        return works_of(self.context.spec.point, self.settings)

    def _uses_tools(self) -> bool:
        return any(work in self.tool_of and work not in self._skips for work in self._works())

    def _find_skips(self, session: DriverSession) -> dict[str, str]:
        """Find what cannot be tried here, and why."""
        works = self._works()
        if self.network(session) is None:
            modes = ", ".join(session.capabilities.network_modes)
            reason = f"{session.name} has no network that reaches the host here (only: {modes})"
            return dict.fromkeys(works, reason)
        needy = [work for work in works if work in self.tool_of]
        if not session.capabilities.can_bind_tools:
            reason = f"programs of the host cannot be bound into a sandbox of {session.name}"
            return dict.fromkeys(needy, reason)
        if not needy:
            return {}
        try:
            missing = self.box.missing
        except EnvironmentTrouble as error:
            return dict.fromkeys(needy, error.message)
        return {
            work: missing[self.tool_of[work]] for work in needy if self.tool_of[work] in missing
        }

    def _device(self) -> BlockDevice:
        device = device_of(self.context.scratch_dir)
        if device.stat is None:
            self.findings.append(
                Finding(
                    code="degraded",
                    severity=Severity.WARNING,
                    message=f"the files of this test lie on {device.filesystem}, which is on no "
                    "device whose bytes can be counted; choose a directory on a disk with --out",
                    evidence={"filesystem": device.filesystem},
                )
            )
        return device
