"""What ``drivers = "available"`` means on this machine: found out by starting a sandbox each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.drivers.base import ProbeResult
from seatrial.errors import DriverUnavailable
from seatrial.model.experiment import AVAILABLE

if TYPE_CHECKING:
    from seatrial.drivers.cost import Cost
    from seatrial.model.experiment import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """The drivers to run on, why others are left out, and what was found out about each."""

    drivers: tuple[str, ...]
    skipped: Mapping[str, str]
    probes: Mapping[str, ProbeResult]

    def cost(self, driver: str) -> Cost:
        """Give about how long the sandboxes of a driver take."""
        from seatrial.drivers.cost import cost_of

        return cost_of(driver, self.probes.get(driver))


def parse_drivers(text: str | None) -> tuple[str, ...] | None:
    """Read the value of ``--drivers``: names with commas between them, ``available`` among them.

    Raises:
        ConfigError: a name is unknown.
    """
    if text is None:
        return None
    wanted = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in wanted:
        if name != AVAILABLE:
            check_driver("--drivers", name)
    return wanted


def check_driver(option: str, name: str) -> None:
    """Check the name of a driver that an option of the command line gives.

    Raises:
        ConfigError: it is unknown.
    """
    from seatrial.config.problems import unknown
    from seatrial.drivers import registry
    from seatrial.errors import ConfigError

    known = registry.names()
    if name not in known:
        raise ConfigError(f"{option}: {unknown('driver', name, known)}", code="driver-unknown")


def resolve(experiment: Experiment, wanted: tuple[str, ...] | None = None) -> Available:
    """Give the drivers of an experiment, or those ``wanted`` instead, each probed once.

    Of a runtime with several flavours (``runsc``, ``runsc-ptrace``) the first that works is taken
    for ``available``, and a driver whose guests are emulated here only where it is named.

    Raises:
        DriverUnavailable: the baseline does not work here.
    """
    from seatrial.drivers import registry

    asked = experiment.drivers if wanted is None else wanted
    named = {name: registry.get(name).probe() for name in asked if name != AVAILABLE}
    if AVAILABLE not in asked:
        return Available(drivers=asked, skipped={}, probes=named)
    search = _Search(probes=dict(named), drivers=list(named))
    # The baseline first: without it there is no need to try the others.
    others = [name for name in registry.names() if name not in registry.AUXILIARY]
    for name in sorted(others, key=lambda name: name != experiment.baseline):
        if name not in named:
            search.try_one(name)
        if experiment.baseline not in search.drivers:
            break
    if experiment.baseline not in search.drivers:
        why = search.skipped.get(experiment.baseline, "it is no driver that is probed")
        raise DriverUnavailable(
            f'the baseline "{experiment.baseline}" does not work here: {why}',
            hint="run 'seatrial doctor'",
        )
    chosen = tuple(name for name in registry.names() if name in search.drivers)
    chosen += tuple(name for name in named if name not in chosen)
    return Available(drivers=chosen, skipped=search.skipped, probes=search.probes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What has been found out so far."""

    probes: dict[str, ProbeResult]
    drivers: list[str]
    skipped: dict[str, str] = field(default_factory=dict)
    emulated: dict[str, str] = field(default_factory=dict)

    def try_one(self, name: str) -> None:
        """Take a driver that works, or keep the reason why it is left out."""
        from seatrial.drivers import registry

        family = name.partition("-")[0]
        if any(driver.partition("-")[0] == family for driver in self.drivers):
            self.skipped[name] = f"another flavour of {family} is used"
            return
        if family in self.emulated:
            self.skipped[name] = f"emulated here, like {self.emulated[family]}"
            return
        result = self.probes[name] = registry.get(name).probe()
        if not result.status.is_usable:
            self.skipped[name] = f"{result.status}: {result.detail}"
        elif result.capabilities.is_emulated:
            self.emulated[family] = name
            self.skipped[name] = (
                f"emulated here, so slow; to include it: --drivers {AVAILABLE},{name}"
            )
        else:
            self.drivers.append(name)
