"""What every driver of real sandboxes on this machine shares: finding the runtime, and the probe.

The probe starts a real sandbox, waits for the guest to be ready, stops it, waits until it is gone
and audits what stayed. That a program or a device exists proves nothing: a KVM device that hangs
every guest looks exactly like one that works.
"""

from __future__ import annotations

import os
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from seatrial import network, proc
from seatrial.drivers.base import (
    Capabilities,
    DriverContext,
    ProbeResult,
    ProbeStatus,
    SandboxSpec,
    new_run_id,
    state_root,
)
from seatrial.drivers.session import LocalSession
from seatrial.errors import DriverUnavailable, SeatrialError
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.launch import StartResult

PROBE_DEADLINE_NS: Final = 10_000_000_000
PROBE_MARGIN_NS: Final = 15_000_000_000
GONE_TIMEOUT_NS: Final = 5_000_000_000
VERSION_TIMEOUT_S: Final = 10.0
EVIDENCE_CHARACTERS_MAX: Final = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A runtime that is installed: which, what it should be able to do, and what it lacks."""

    binary: Path | None
    version: str
    capabilities: Capabilities
    gaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OneStart:
    """How a single sandbox fared, from its start to its end."""

    trouble: str | None
    relics: tuple[str, ...]
    """What was left behind."""
    life_ns: int = 0
    """From asking for it to seeing it gone; 0: it did not come that far."""


class LocalDriver(ABC):
    """One kind of runtime on this machine."""

    name: str
    #: The guest role that the probe starts, and what it waits for.
    probe_role: ClassVar[tuple[str, ...]] = ("idle",)
    probe_goal: ClassVar[Literal["hello", "ready"]] = "ready"
    #: How long the probe's sandbox may take.
    probe_deadline_ns: ClassVar[int] = PROBE_DEADLINE_NS
    #: What to do when the runtime does not come up although it is installed.
    broken_hint: str = "run 'seatrial doctor --json' for the runtime's own words"

    @abstractmethod
    def find(self) -> Found:
        """Find the runtime without starting it.

        Raises:
            DriverUnavailable: it is not installed.
        """

    @abstractmethod
    def open(self, context: DriverContext) -> LocalSession:
        """Prepare once for a run."""

    def make_session(
        self, kind: type[LocalSession], context: DriverContext, *, flags: Mapping[str, str]
    ) -> LocalSession:
        """Give a session of a kind that needs to be told no more than any does."""
        found = self.find()
        return kind(
            context,
            name=self.name,
            version=found.version,
            capabilities=found.capabilities,
            flags=flags,
        )

    def probe(self) -> ProbeResult:
        """Start a real sandbox and remove it."""
        started_ns = time.monotonic_ns()
        result = self._probe()
        return replace(result, elapsed_ns=time.monotonic_ns() - started_ns)

    def _probe(self) -> ProbeResult:
        try:
            found = self.find()
        except SeatrialError as error:
            return self._result(ProbeStatus.MISSING, None, error.message, hint=error.hint)
        run_id = new_run_id("probe-")
        context = DriverContext(run_id=run_id, state_dir=state_root() / run_id)
        try:
            with self.open(context) as session:
                seen = self.start_one(session)
        except SeatrialError as error:
            hint = error.hint or self.broken_hint
            return self._result(ProbeStatus.BROKEN, found, error.message, hint=hint)
        if seen.trouble is not None:
            return self._result(ProbeStatus.BROKEN, found, seen.trouble, hint=self.broken_hint)
        return replace(self._judge(found, seen.relics), life_ns=seen.life_ns)

    def start_one(self, session: LocalSession, *, deadline_ns: int | None = None) -> OneStart:
        """Start one sandbox, see it gone and look what it left behind."""
        deadline_ns = self.probe_deadline_ns if deadline_ns is None else deadline_ns
        spec = SandboxSpec(role=self.probe_role, ready=self.probe_goal, deadline_ns=deadline_ns)
        plan = session.plan(spec, 0)
        batch = session.launcher.start(
            [plan],
            wait_for=self.probe_goal,
            hold=False,
            timeout_ns=deadline_ns + PROBE_MARGIN_NS,
        )
        result = batch.results[0]
        gone_at_ns = session.wait_gone(plan.id, time.monotonic_ns() + GONE_TIMEOUT_NS)
        session.release(plan.id)
        relics = tuple(str(leak) for leak in session.audit())
        if result.outcome is not Outcome.OK:
            return OneStart(trouble=describe_failure(result), relics=relics)
        if gone_at_ns is None:
            trouble = f"the sandbox was not gone {GONE_TIMEOUT_NS // 10**9} s after its end"
            return OneStart(trouble=trouble, relics=relics)
        life_ns = gone_at_ns - (result.invoked_at_ns or gone_at_ns)
        return OneStart(trouble=None, relics=relics, life_ns=life_ns)

    def _judge(self, found: Found, relics: Sequence[str]) -> ProbeResult:
        gaps = [*found.gaps, *(f"left behind: {relic}" for relic in relics)]
        capabilities = found.capabilities
        if NetworkMode.VETH in capabilities.network_modes:
            problem = network.problem()
            if problem is not None:
                gaps.append(problem)
                modes = tuple(m for m in capabilities.network_modes if m is not NetworkMode.VETH)
                capabilities = replace(capabilities, network_modes=modes)
        found = replace(found, capabilities=capabilities)
        if not gaps:
            return self._result(ProbeStatus.WORKS, found, "a sandbox started, got ready and went")
        detail = "a sandbox started, but: " + "; ".join(gaps)
        hint = "run as root" if os.geteuid() != 0 else None
        return self._result(ProbeStatus.DEGRADED, found, detail, hint=hint)

    def _result(
        self, status: ProbeStatus, found: Found | None, detail: str, *, hint: str | None = None
    ) -> ProbeResult:
        return ProbeResult(
            name=self.name,
            status=status,
            version=None if found is None else found.version,
            detail=detail,
            hint=hint,
            capabilities=Capabilities() if found is None else found.capabilities,
        )


def describe_failure(result: StartResult) -> str:
    """Say in one sentence how a start failed, with the runtime's last words."""
    text = f"start {result.outcome}"
    if result.exit_code is not None:
        text += f" (exit code {result.exit_code})"
    for part in (result.error, result.stderr_tail):
        if part and part.strip():
            text += f": {' '.join(part.split())[-EVIDENCE_CHARACTERS_MAX:]}"
    return text


def find_program(name: str, *, package: str, candidates: Sequence[Path] = ()) -> Path:
    """Find a program among the candidates, then on PATH.

    Raises:
        DriverUnavailable: it is nowhere; says which package brings it.
    """
    for candidate in candidates:
        if os.access(candidate, os.X_OK) and candidate.is_file():
            return candidate
    # Debian puts runc into /usr/sbin, which an ordinary user's PATH lacks.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        places = ", ".join([*map(str, candidates), "PATH"])
        message = f"{name} is not installed (looked at {places})"
        raise DriverUnavailable(message, hint=package)
    return Path(found).absolute()


def trouble_with(driver: object, session: object) -> str | None:
    """Start one sandbox in an open session, and say what went wrong; a scripted driver has none."""
    if not isinstance(driver, LocalDriver) or not isinstance(session, LocalSession):
        return None
    return driver.start_one(session).trouble


def program_version(binary: Path, *, marker: str) -> str:
    """Ask a program for its version: the word after ``marker`` in what ``--version`` prints.

    Raises:
        DriverUnavailable: it does not run.
    """
    try:
        said = proc.run([str(binary), "--version"], timeout_s=VERSION_TIMEOUT_S)
    except SeatrialError as error:
        message = f"{binary} does not run: {error.message}"
        raise DriverUnavailable(message, hint="reinstall it") from error
    return parse_version(said.text, marker=marker) or "unknown"


def parse_version(text: str, *, marker: str) -> str | None:
    """Give the word after ``marker`` ("runc version "), or None when it is not there."""
    _, separator, rest = text.partition(marker)
    words = rest.split()
    return words[0] if separator and words else None


def host_capabilities(*, has_own_root: bool, shares_host_clock: bool) -> Capabilities:
    """Give what this machine lets any driver do, with what the driver itself brings."""
    is_root = os.geteuid() == 0
    host = CgroupHost.detect()
    modes = (NetworkMode.NONE, NetworkMode.HOST, *((NetworkMode.VETH,) if is_root else ()))
    return Capabilities(
        network_modes=modes,
        has_own_cgroup=host.is_writable,
        can_limit=host.is_writable and not host.problems(),
        has_own_root=has_own_root,
        can_bind_tools=True,
        shares_host_clock=shares_host_clock,
        is_rootless=not is_root,
    )


def found_here(binary: Path | None, version: str) -> Found:
    """Give a runtime whose sandboxes have a root of their own and the host's kernel and clock."""
    return Found(
        binary=binary,
        version=version,
        capabilities=host_capabilities(has_own_root=True, shares_host_clock=True),
        gaps=host_gaps(),
    )


def host_gaps() -> tuple[str, ...]:
    """Say what this machine keeps from every driver."""
    gaps = list(CgroupHost.detect().problems())
    if os.geteuid() != 0:
        gaps.append("no veth networks without root")
    return tuple(gaps)
