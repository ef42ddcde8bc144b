"""Whether this machine has what a test needs; where it must have it, the test fails instead."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry

if TYPE_CHECKING:
    from seatrial.drivers.base import ProbeResult

#: Drivers that must work where this is set; a skip would hide that they do not.
REQUIRED = frozenset(filter(None, os.environ.get("SEATRIAL_REQUIRE_DRIVERS", "").split(",")))


#: For cases that differ from another one only by the runtime: each takes seconds.
only_thorough = pytest.mark.skipif(
    os.environ.get("SEATRIAL_FAULTS") != "all",
    reason="alike to a case that was tried; SEATRIAL_FAULTS=all tries it too ('make soak')",
)


@cache
def probe(name: str) -> ProbeResult:
    """Probes a driver once; a hanging one takes its full time-out."""
    return registry.get(name).probe()


def needs_driver(name: str) -> None:
    """Skips the test where a driver does not work, or fails it where it must."""
    result = probe(name)
    if result.status.is_usable:
        return
    reason = f"{name} is {result.status}: {result.detail}"
    if name in REQUIRED:
        pytest.fail(f"{reason} (required by SEATRIAL_REQUIRE_DRIVERS)", pytrace=False)
    pytest.skip(reason)


def needs_root(purpose: str) -> None:
    """Skips the test where mounts cannot be made."""
    if os.geteuid() != 0:
        pytest.skip(f"only root can {purpose}")
