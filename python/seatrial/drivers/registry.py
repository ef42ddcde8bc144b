"""Drivers by name: the built-in ones, and what other packages register.

Another package adds a driver by an entry point of the group ``seatrial.drivers`` whose value is a
function without arguments that gives a ``Driver``. A driver's module is imported on first use.
"""

from __future__ import annotations

import importlib
import re
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, Protocol, cast, runtime_checkable

from seatrial.drivers.options import OptionError
from seatrial.drivers.shared import keep as keep_daemons
from seatrial.drivers.stale import would_remove
from seatrial.drivers.state import sweep
from seatrial.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from seatrial.drivers.base import Driver
    from seatrial.model.scalar import Scalar

__all__ = ["get", "keep_daemons", "names", "option_problems", "sweep", "would_remove"]

GROUP: Final = "seatrial.drivers"

#: Any runtime handler of CRI is a driver; a handler is a label of Kubernetes (RFC 1123).
HANDLER_PATTERN: Final = re.compile(r"cri/[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")

CRI: Final = "seatrial.drivers.cri.driver:CriDriver"

#: In the order in which tables list them: the baseline, then more and more isolation.
BUILT_IN: Final[Mapping[str, str]] = {
    "process": "seatrial.drivers.process:ProcessDriver",
    "lean": "seatrial.drivers.lean:lean",
    "lean-prepared": "seatrial.drivers.lean:lean_prepared",
    "lean-pooled": "seatrial.drivers.lean:lean_pooled",
    "bwrap": "seatrial.drivers.bwrap:BwrapDriver",
    "crun": "seatrial.drivers.oci:crun",
    "runc": "seatrial.drivers.oci:runc",
    "runsc": "seatrial.drivers.oci:runsc",
    "runsc-ptrace": "seatrial.drivers.oci:runsc_ptrace",
    "runsc-kvm": "seatrial.drivers.oci:runsc_kvm",
    "nspawn": "seatrial.drivers.nspawn:NspawnDriver",
    "qemu": "seatrial.drivers.qemu:qemu",
    "qemu-template": "seatrial.drivers.qemu:qemu_template",
    "firecracker": "seatrial.drivers.firecracker:firecracker",
    "firecracker-snapshot": "seatrial.drivers.firecracker:firecracker_snapshot",
    "cri/runc": CRI,
    "cri/runsc": CRI,
    "podman": "seatrial.drivers.engine:podman",
    "docker": "seatrial.drivers.engine:docker",
    "nerdctl": "seatrial.drivers.engine:nerdctl",
    "null": "seatrial.drivers.process:NullDriver",
    "fake": "seatrial.drivers.fake:FakeDriver",
}

#: Members of the family that measure nothing by themselves: a floor, and a scripted model.
AUXILIARY: Final = frozenset({"null", "fake"})


class Names(tuple[str, ...]):
    """The names that are listed; names of the form ``cri/HANDLER`` belong to them all the same."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        """Tell whether a driver has that name."""
        is_handler = isinstance(name, str) and HANDLER_PATTERN.fullmatch(name) is not None
        return is_handler or super().__contains__(name)


@runtime_checkable
class ChecksOptions(Protocol):
    """A driver that can judge its options before it is probed or opened; not all can."""

    def check_options(self, options: Mapping[str, Scalar]) -> None:
        """Raise a ConfigError that names what is wrong, what was expected, and does no more."""
        ...


def option_problems(name: str, options: Mapping[str, Scalar]) -> list[tuple[str, str]]:
    """Let a driver judge what an experiment's ``[driver.NAME]`` says, if it can.

    Gives key and text of all that is wrong: a driver tells its first objection, so it is asked
    again without the option that it objected to.
    """
    driver, rest = get(name), dict(options)
    table = f"driver.{name}"
    problems: list[tuple[str, str]] = []
    while rest and isinstance(driver, ChecksOptions):
        try:
            driver.check_options(rest)
        except OptionError as error:
            if not error.needs & (options.keys() - rest.keys()):
                hint = "" if error.hint is None else f"; {error.hint}"
                problems.append((error.key, error.expected + hint))
            option = error.key.removeprefix(f"{table}.")
            if option not in rest:
                break
            del rest[option]
        except ConfigError as error:
            problems.append((table, error.message))
            break
        else:
            break
    return problems


def names() -> Names:
    """Give the names of all drivers, built-in ones first."""
    others = sorted({point.name for point in entry_points(group=GROUP)} - set(BUILT_IN))
    return Names((*BUILT_IN, *others))


def get(name: str) -> Driver:
    """Give the driver of a name.

    Raises:
        ConfigError: there is none; says which there are.
    """
    if HANDLER_PATTERN.fullmatch(name):
        make_for = cast("Callable[[str], Driver]", _load(CRI))
        return make_for(name.removeprefix("cri/"))
    if name in BUILT_IN:
        make = cast("Callable[[], Driver]", _load(BUILT_IN[name]))
        return make()
    for point in entry_points(group=GROUP):
        if point.name == name:
            return cast("Callable[[], Driver]", point.load())()
    message = f"unknown driver {name!r}; known drivers: {', '.join(names())}"
    raise ConfigError(message, hint="'seatrial doctor' says which of them work here")


def _load(place: str) -> object:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
