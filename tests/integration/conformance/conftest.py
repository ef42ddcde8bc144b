"""Fixtures of the conformance suite: one probe a driver, sessions, and a look at the machine after.

A driver that does not work here is skipped with its probe's own words; a name in
``SEATRIAL_REQUIRE_DRIVERS`` turns that skip into a failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry, state
from seatrial.drivers.base import DriverContext, new_run_id
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.drivers.base import DriverSession

#: Every driver that starts real sandboxes of which the guest stays until it is told to stop.
REAL = (
    "process",
    "lean",
    "bwrap",
    "crun",
    "runc",
    "runsc",
    "runsc-ptrace",
    "runsc-kvm",
    "nspawn",
    "qemu",
    "qemu-template",
    "cri/runc",
    "cri/runsc",
    "podman",
)


@pytest.fixture(params=REAL)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a driver that works here."""
    driver_name: str = request.param
    needs_driver(driver_name)
    return driver_name


@pytest.fixture
def session(name: str) -> Iterator[DriverSession]:
    """An open session of that driver, for a run of its own."""
    with registry.get(name).open(DriverContext.for_run(new_run_id())) as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def _clean_machine() -> Iterator[None]:
    """Fails when anything that this suite made is still on the machine after it."""
    runs: dict[str, Path] = {}
    acquire = state.RunState.acquire

    def recording(run_id: str, directory: Path) -> state.RunState:
        taken = acquire(run_id, directory)
        runs[run_id] = directory
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state.RunState, "acquire", recording)
        yield
    left = [line for run_id, directory in runs.items() for line in left_of(run_id, directory)]
    assert not left, left


def left_of(run_id: str, directory: Path) -> list[str]:
    """One line for each thing on this machine that carries a run's label."""
    marks = leaks.processes_with(state.RUN_VARIABLE)
    group = CgroupHost.detect().group(run_id)
    found = (
        *leaks.process_leaks(pid for pid, value in marks.items() if value == run_id),
        *leaks.process_leaks(group.members()),
        *leaks.group_leaks(group.directories()),
        *leaks.namespace_leaks(state.sandbox_prefix(run_id)),
        *leaks.interface_leaks(state.interface_prefix(run_id)),
        *leaks.mount_leaks(directory, mountinfo=state.MOUNTINFO.read_text()),
        *leaks.file_leaks([directory]),
    )
    return [str(leak) for leak in found]
