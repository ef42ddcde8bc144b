"""Fixtures of the conformance suite: one probe a driver, sessions, and a look at the machine after.

A driver that does not work here is skipped with its probe's own words; a name in
``SEATRIAL_REQUIRE_DRIVERS`` turns that skip into a failure.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry, state
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.launch import Outcome
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from seatrial.drivers.base import DriverSession
    from seatrial.model.scalar import Scalar

DEADLINE_NS = 60_000_000_000

#: Every driver that starts real sandboxes of which the guest stays until it is told to stop.
REAL = (
    "process",
    "lean",
    "lean-prepared",
    "lean-pooled",
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

#: Drivers that keep something of each sandbox for the next, so as much as ever was in use at once,
#: and the most that a test has at once.
KEEPING = ("lean-pooled",)
AT_ONCE_MAX = 8


@pytest.fixture(params=REAL, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    """The name of a driver that works here."""
    driver_name: str = request.param
    needs_driver(driver_name)
    return driver_name


class Shared:
    """A session that the tests of one driver share, and another one when a test has spoilt it."""

    def __init__(self, name: str, options: Mapping[str, Scalar] | None = None) -> None:
        self._name, self._options = name, options
        self._opened: DriverSession | None = None
        self.start_ns = 0
        """How long the first sandbox took to answer."""

    def open(self) -> DriverSession:
        """The session; a new one has had a sandbox, so that what stays with a session is there."""
        if self._opened is None:
            context = DriverContext.for_run(new_run_id(), options=self._options)
            opened = registry.get(self._name).open(context)
            self._opened = opened
            plan = opened.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
            batch = opened.launcher.start(
                [plan], wait_for="reply", hold=False, timeout_ns=DEADLINE_NS
            )
            result = batch.results[0]
            assert result.outcome is Outcome.OK, result
            self.start_ns = (result.first_reply_at_ns or 0) - (result.invoked_at_ns or 0)
            opened.release(plan.id)
            if self._name in KEEPING:
                spec = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)
                for each in [opened.plan(spec, number) for number in range(AT_ONCE_MAX)]:
                    opened.release(each.id)
        return self._opened

    def close(self) -> None:
        """End the session, if there is one."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


@pytest.fixture(scope="module")
def shared(name: str) -> Iterator[Shared]:
    """What keeps a driver's session for the tests that leave it as they found it."""
    with contextlib.closing(Shared(name)) as kept:
        kept.open()
        yield kept


@pytest.fixture
def session(shared: Shared, request: pytest.FixtureRequest) -> Iterator[DriverSession]:
    """An open session of that driver without any sandbox; daemons and templates come up once."""
    failed_count = request.session.testsfailed
    yield shared.open()
    if request.session.testsfailed > failed_count:
        # The next test shall not stumble over what this one left, nor be told that it opened more.
        shared.close()
        shared.open()


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
