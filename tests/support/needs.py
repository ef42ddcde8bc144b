"""Whether this machine has what a test needs; where it must have it, the test fails instead."""

from __future__ import annotations

import os
from functools import cache

import pytest

from seatrial.drivers import registry


@cache
def _why_not(name: str) -> str | None:
    """Why a driver cannot run here; None when it can."""
    found = registry.get(name).probe()
    return None if found.status.is_usable else f"{name} is {found.status.value}: {found.detail}"


def needs_driver(name: str) -> None:
    """Skips the test where the driver cannot run, unless SEATRIAL_REQUIRE_DRIVERS names it."""
    reason = _why_not(name)
    if reason is None:
        return
    if name in os.environ.get("SEATRIAL_REQUIRE_DRIVERS", "").split(","):
        pytest.fail(f"SEATRIAL_REQUIRE_DRIVERS names {name}, but {reason}")
    pytest.skip(reason)


def needs_root(purpose: str) -> None:
    """Skips the test where mounts cannot be made."""
    if os.geteuid() != 0:
        pytest.skip(f"only root can {purpose}")
