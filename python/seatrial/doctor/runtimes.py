"""Runtimes: each by starting a sandbox, and what stands around them by looking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group, Level
from seatrial.drivers import registry
from seatrial.drivers.base import ProbeStatus
from seatrial.model.experiment import NetworkMode
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import ProbeResult

SAY: Final = About(Group.RUNTIMES)
LEVELS: Final[Mapping[ProbeStatus, Level]] = {
    ProbeStatus.WORKS: Level.OK,
    ProbeStatus.DEGRADED: Level.WARN,
    ProbeStatus.MISSING: Level.MISSING,
    ProbeStatus.BROKEN: Level.BROKEN,
}
CONSEQUENCES: Final[Mapping[ProbeStatus, str]] = {
    ProbeStatus.WORKS: "",
    ProbeStatus.DEGRADED: "trials run on it, with less than everything measured",
    ProbeStatus.MISSING: "it is left out where an experiment takes what works here",
    ProbeStatus.BROKEN: "trials cannot run on it",
}
#: Where the driver itself has no advice.
FIX: Final = "mend what the evidence names; the groups kvm, cgroups and network say how"
YES, PARTLY, NO = "yes", "partly", "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """Which benches can run on a runtime: yes, partly or no."""

    driver: str
    start: str
    density: str
    inside: str
    load: str
    """The benches load, fleet and rpc."""


def check_runtime(name: str, *, is_needed: bool) -> tuple[Check, Ability]:
    """Start a sandbox of a driver and remove it."""
    result = registry.get(name).probe()
    return judge_runtime(result, is_needed=is_needed), ability(result)


def judge_runtime(result: ProbeResult, *, is_needed: bool) -> Check:
    """Turn what a probe gave into a check; pure."""
    took = format_duration(result.elapsed_ns)
    version = f"{result.version}; " if result.version else ""
    return Check(
        group=Group.RUNTIMES,
        name=result.name,
        level=LEVELS[result.status],
        evidence=f"{version}{result.detail} ({took} with making and removing)",
        consequence=CONSEQUENCES[result.status],
        fix="" if result.status is ProbeStatus.WORKS else result.hint or FIX,
        is_needed=is_needed,
        values={
            "version": result.version,
            "elapsed_ns": result.elapsed_ns,
            "capabilities": result.capabilities,
        },
    )


def ability(result: ProbeResult) -> Ability:
    """Say which benches can run on it; pure."""
    can = result.capabilities
    works = result.status.is_usable

    def grade(*, is_possible: bool = True, is_whole: bool = True) -> str:
        if not works or not is_possible:
            return NO
        return YES if is_whole else PARTLY

    return Ability(
        driver=result.name,
        start=grade(is_whole=can.has_own_cgroup),
        density=grade(is_whole=can.has_own_cgroup),
        inside=grade(is_whole=can.can_bind_tools),
        load=grade(is_possible=NetworkMode.VETH in can.network_modes),
    )
