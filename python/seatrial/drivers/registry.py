"""Drivers by name: the built-in ones, and what other packages register.

Another package adds a driver by an entry point of the group ``seatrial.drivers`` whose value is a
function without arguments that gives a ``Driver``. A driver's module is imported on first use.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, cast

from seatrial.drivers.state import sweep
from seatrial.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seatrial.drivers.base import Driver

__all__ = ["get", "names", "sweep"]

GROUP: Final = "seatrial.drivers"

#: In the order in which tables list them: the baseline, then more and more isolation.
BUILT_IN: Final[Mapping[str, str]] = {
    "process": "seatrial.drivers.process:ProcessDriver",
    "lean": "seatrial.drivers.lean:LeanDriver",
    "bwrap": "seatrial.drivers.bwrap:BwrapDriver",
    "crun": "seatrial.drivers.oci:crun",
    "runc": "seatrial.drivers.oci:runc",
    "runsc": "seatrial.drivers.oci:runsc",
    "runsc-ptrace": "seatrial.drivers.oci:runsc_ptrace",
    "runsc-kvm": "seatrial.drivers.oci:runsc_kvm",
    "qemu": "seatrial.drivers.qemu:qemu",
    "qemu-template": "seatrial.drivers.qemu:qemu_template",
    "null": "seatrial.drivers.process:NullDriver",
    "fake": "seatrial.drivers.fake:FakeDriver",
}

#: Members of the family that measure nothing by themselves: a floor, and a scripted model.
AUXILIARY: Final = frozenset({"null", "fake"})


def names() -> tuple[str, ...]:
    """Give the names of all drivers, built-in ones first."""
    others = sorted({point.name for point in entry_points(group=GROUP)} - set(BUILT_IN))
    return (*BUILT_IN, *others)


def get(name: str) -> Driver:
    """Give the driver of a name.

    Raises:
        ConfigError: there is none; says which there are.
    """
    if name in BUILT_IN:
        module, _, factory = BUILT_IN[name].partition(":")
        make = cast("Callable[[], Driver]", getattr(importlib.import_module(module), factory))
        return make()
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("Callable[[], Driver]", point.load())()
    message = f"unknown driver {name!r}; known drivers: {', '.join(names())}"
    raise ConfigError(message, hint="'seatrial doctor' says which of them work here")
