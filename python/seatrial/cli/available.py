"""What ``drivers = "available"`` means on this machine: found out by starting a sandbox each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.errors import DriverUnavailable

if TYPE_CHECKING:
    from seatrial.model.experiment import Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """The drivers to run on, and why others are left out."""

    drivers: tuple[str, ...]
    skipped: Mapping[str, str]


def parse_drivers(text: str | None) -> tuple[str, ...] | None:
    """Read the value of ``--drivers``: names with commas between them.

    Raises:
        ConfigError: a name is unknown.
    """
    if text is None:
        return None
    from seatrial.config.problems import unknown
    from seatrial.drivers import registry
    from seatrial.errors import ConfigError

    wanted = tuple(name.strip() for name in text.split(",") if name.strip())
    known = registry.names()
    for name in wanted:
        if name not in known:
            raise ConfigError(f"--drivers: {unknown('driver', name, known)}", code="driver-unknown")
    return wanted


def resolve(experiment: Experiment, wanted: tuple[str, ...] | None = None) -> Available:
    """Give the drivers of an experiment, probing the machine when it asks for what works here.

    Of a runtime with several flavours (``runsc``, ``runsc-ptrace``) the first that works is taken.

    Raises:
        DriverUnavailable: the baseline does not work here.
    """
    if wanted is not None:
        return Available(drivers=wanted, skipped={})
    if not experiment.wants_available_drivers:
        return Available(drivers=experiment.drivers, skipped={})
    from seatrial.drivers import registry

    drivers: list[str] = []
    skipped: dict[str, str] = {}
    for name in registry.names():
        if name in registry.AUXILIARY:
            continue
        family = name.partition("-")[0]
        if any(driver.partition("-")[0] == family for driver in drivers):
            skipped[name] = f"another flavour of {family} is used"
            continue
        result = registry.get(name).probe()
        if result.status.is_usable:
            drivers.append(name)
        else:
            skipped[name] = f"{result.status}: {result.detail}"
    if experiment.baseline not in drivers:
        why = skipped.get(experiment.baseline, "it is no driver that is probed")
        raise DriverUnavailable(
            f'the baseline "{experiment.baseline}" does not work here: {why}',
            hint="run 'seatrial doctor'",
        )
    return Available(drivers=tuple(drivers), skipped=skipped)
