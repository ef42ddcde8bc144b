"""About how long a driver's sandboxes take: for the ETA of a plan, and for no number of a run.

What the driver's probe has just seen counts; where nothing was probed, what is typical of a small
machine.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.units import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import ProbeResult

#: From asking for a sandbox to seeing it gone, alone.
TYPICAL_LIFE_NS: Final[Mapping[str, int]] = {
    "process": 10 * NS_PER_MS,
    "lean": 20 * NS_PER_MS,
    "lean-prepared": 20 * NS_PER_MS,
    "lean-pooled": 20 * NS_PER_MS,
    "bwrap": 20 * NS_PER_MS,
    "crun": 80 * NS_PER_MS,
    "runc": 120 * NS_PER_MS,
    "runsc": 500 * NS_PER_MS,
    "nspawn": 100 * NS_PER_MS,
    "qemu": 3_000 * NS_PER_MS,
    "qemu-template": 400 * NS_PER_MS,
    "firecracker": 300 * NS_PER_MS,
    "cri/runc": 400 * NS_PER_MS,
    "cri/runsc": 1_200 * NS_PER_MS,
    "podman": 500 * NS_PER_MS,
    "docker": 500 * NS_PER_MS,
    "nerdctl": 500 * NS_PER_MS,
}
TYPICAL_LIFE_NS_OF_OTHERS: Final = 100 * NS_PER_MS
#: How many times longer a call of the kernel takes in it than on the host, by order of magnitude.
SLOWDOWN_OF_GVISOR: Final = 8
SLOWDOWN_OF_EMULATION: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a bench needs to know of a driver to tell how long a trial takes."""

    driver: str
    life_ns: int
    """From asking for a sandbox to seeing it gone, alone."""
    slowdown: int = 1
    """How many times longer a call of the kernel takes in a sandbox than on the host, roughly."""

    def batch_ns(self, count: int, *, processors_count: int | None = None) -> int:
        """Give how long that many lives take that begin together: they share the processors."""
        shared_by = processors_count or len(os.sched_getaffinity(0))
        return self.life_ns * max(shared_by, count) // shared_by if count else 0


def cost_of(name: str, probed: ProbeResult | None = None) -> Cost:
    """Give the cost of a driver, from its probe if that has seen a sandbox come and go."""
    flavourless = name.partition("-")[0]
    typical_ns = TYPICAL_LIFE_NS.get(
        name, TYPICAL_LIFE_NS.get(flavourless, TYPICAL_LIFE_NS_OF_OTHERS)
    )
    slowdown = SLOWDOWN_OF_GVISOR if "runsc" in name else 1
    if probed is not None and probed.capabilities.is_emulated:
        slowdown = SLOWDOWN_OF_EMULATION
    life_ns = typical_ns if probed is None or not probed.life_ns else probed.life_ns
    return Cost(driver=name, life_ns=life_ns, slowdown=slowdown)
