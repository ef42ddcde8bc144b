"""Start and stop again and again: nothing grows, nothing stays.

``SEATRIAL_CYCLES=1000`` (``make soak``) is what a release is held to: so many sandboxes of every
driver are started and stopped, with a line on the terminal every half a minute. A few show that the
test itself works.
"""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.benches.room import descriptor_count, task_count
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.state import interface_prefix, sandbox_prefix
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode
from seatrial.probes import leaks
from seatrial.probes.cgroup import CgroupHost
from seatrial.units import NS_PER_S, format_duration
from tests.integration.conformance.conftest import REAL
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverSession

#: How many sandboxes when nobody says, and of drivers whose sandboxes are machines or pods.
DEFAULT_COUNT, SLOW_COUNT = 12, 6
SLOW = ("qemu", "cri/", "podman", "docker", "nerdctl", "firecracker")
VARIABLE = "SEATRIAL_CYCLES"
CYCLES_COUNT = int(os.environ.get(VARIABLE, DEFAULT_COUNT))
DEADLINE_NS = 60 * NS_PER_S
GRACE_NS = 20 * NS_PER_S
#: Starts at once: neighbours are there when one goes. Four fill the waiting of a longer run, but
#: not of emulated machines, which have two processors busy as it is.
AT_ONCE, AT_ONCE_LONG = 2, 4
POLL_S = 0.1
PROGRESS_NS = 30 * NS_PER_S
#: Also what the other tests of this suite leave out, because most machines lack it.
DRIVERS = tuple(
    dict.fromkeys(
        (*REAL, "cri/crun", *(one for one in registry.names() if one not in registry.AUXILIARY))
    )
)

#: A machine of an emulator takes up to 5 s; what hangs is ended by its own deadline long before.
pytestmark = [pytest.mark.driver, pytest.mark.timeout(120 + 8 * CYCLES_COUNT)]


@pytest.fixture(params=DRIVERS)
def name(request: pytest.FixtureRequest) -> str:
    """The name of a driver that works here, whether the other tests know it or not."""
    driver_name: str = request.param
    needs_driver(driver_name)
    return driver_name


def cycle(session: DriverSession, first: int, network: NetworkMode, *, count: int) -> None:
    """Starts sandboxes at once, has an answer from each, stops them and sees them gone."""
    spec = SandboxSpec(role=("idle",), network=network, deadline_ns=DEADLINE_NS)
    plans = [session.plan(spec, first + index) for index in range(count)]
    batch = session.launcher.start(plans, wait_for="reply", hold=True, timeout_ns=2 * DEADLINE_NS)
    assert [result.outcome for result in batch.results] == [Outcome.OK] * count, (first, batch)
    ids = [plan.id for plan in plans]
    stopped = session.stop_watched(ids, grace_ns=GRACE_NS, gone_timeout_ns=GRACE_NS)
    assert None not in stopped.gone_at_ns.values(), (first, stopped)
    assert [stop.error for stop in stopped.stops] == [None] * count, (first, stopped)
    for plan_id in ids:
        session.release(plan_id)


def held_by(session: DriverSession, context: DriverContext) -> dict[str, int]:
    """What could grow: descriptors and threads of both sides, files of the run."""
    launcher = session.launcher.pid
    folder, label = context.state_dir, sandbox_prefix(context.run_id)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "our descriptors": descriptor_count(os.getpid()),
        "our threads": task_count(os.getpid()),
        "descriptors of the launcher": descriptor_count(launcher),
        "threads of the launcher": task_count(launcher),
        "files of the run": sum(len(files) + len(below) for _, below, files in os.walk(folder)),
        "mounts of the run": sum(str(folder) in line for line in mounts),
        "network namespaces": sum(1 for _ in Path("/run/netns").glob(f"{label}*")),
        "interfaces": len(leaks.interface_leaks(interface_prefix(context.run_id))),
        "groups": len(CgroupHost.detect().group(context.run_id).directories()),
    }


def lasting_growth(
    session: DriverSession, context: DriverContext, before: dict[str, int]
) -> dict[str, tuple[int, int]]:
    """What has grown and stays so; a daemon clears away what it no longer needs in its own time."""
    deadline_ns = time.monotonic_ns() + GRACE_NS
    while True:
        after = held_by(session, context)
        grown = {one: (before[one], count) for one, count in after.items() if count > before[one]}
        if not grown or time.monotonic_ns() >= deadline_ns:
            return grown
        time.sleep(POLL_S)


class Ticker:
    """Says now and then how far a long run has come; pytest keeps its terminal to itself."""

    def __init__(self, name: str, count: int, request: pytest.FixtureRequest) -> None:
        self._name = name
        self._count = count
        self._terminal = request.config.pluginmanager.get_plugin("terminalreporter")
        self._began_ns = self._told_ns = time.monotonic_ns()

    def tell(self, done: int) -> None:
        """Write a line when the last one is old, and at the end of a run that had some."""
        now_ns = time.monotonic_ns()
        is_end = done >= self._count and self._told_ns > self._began_ns
        if self._terminal is None or (now_ns - self._told_ns < PROGRESS_NS and not is_end):
            return
        self._told_ns = now_ns
        elapsed_ns = now_ns - self._began_ns
        left_ns = elapsed_ns * (self._count - done) // done
        self._terminal.write_line(
            f"{self._name}: {done} of {self._count} sandboxes started and stopped in "
            f"{format_duration(elapsed_ns)}; about {format_duration(left_ns)} left"
        )


def test_nothing_grows(name: str, request: pytest.FixtureRequest) -> None:
    """The first of each network may bring up what stays (threads, a lock); later ones add nothing.

    Every second batch has a network of its own where the driver can give one, so that pairs of
    interfaces and namespaces come and go, too.
    """
    is_long = VARIABLE in os.environ
    count = SLOW_COUNT if name.startswith(SLOW) and not is_long else CYCLES_COUNT
    at_once = AT_ONCE_LONG if is_long and not name.startswith("qemu") else AT_ONCE
    context = DriverContext.for_run(new_run_id())
    with registry.get(name).open(context) as session:
        offered = session.capabilities.network_modes
        modes = [mode for mode in (NetworkMode.NONE, NetworkMode.VETH) if mode in offered]
        assert modes, offered
        for number, mode in enumerate(modes):
            cycle(session, at_once * number, mode, count=at_once)
        before = held_by(session, context)
        ticker = Ticker(name, count, request)
        done = at_once * len(modes)
        for mode in itertools.cycle(modes):
            cycle(session, done, mode, count=at_once)
            done += at_once
            ticker.tell(done)
            if done >= count:
                break
        assert not (grown := lasting_growth(session, context, before)), grown
        assert session.audit() == ()
