"""Start and stop again and again: nothing grows, nothing stays.

``SEATRIAL_CYCLES=1000`` (``make soak``) is what a release is held to; a few show that the test
itself works.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from seatrial.benches.room import descriptor_count, task_count
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.state import sandbox_prefix
from seatrial.launch import Outcome
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverSession

#: How many when nobody says, and for drivers whose sandboxes are machines or pods, which are slow.
DEFAULT_COUNT, SLOW_COUNT = 6, 3
SLOW = ("qemu", "cri/", "podman")
CYCLES_COUNT = int(os.environ.get("SEATRIAL_CYCLES", DEFAULT_COUNT))
NS_PER_S = 1_000_000_000
DEADLINE_NS = 60 * NS_PER_S
GRACE_NS = 20 * NS_PER_S
#: Starts at once: two, so that neighbours are there when one goes.
AT_ONCE = 2
POLL_S = 0.1

pytestmark = [pytest.mark.driver, pytest.mark.timeout(120 + 10 * CYCLES_COUNT)]


def cycle(session: DriverSession, number: int) -> None:
    """Starts two sandboxes, has an answer from each, stops them and sees them gone."""
    spec = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)
    plans = [session.plan(spec, AT_ONCE * number + index) for index in range(AT_ONCE)]
    batch = session.launcher.start(plans, wait_for="reply", hold=True, timeout_ns=2 * DEADLINE_NS)
    assert [result.outcome for result in batch.results] == [Outcome.OK] * AT_ONCE, batch
    ids = [plan.id for plan in plans]
    stopped = session.stop_watched(ids, grace_ns=GRACE_NS, gone_timeout_ns=GRACE_NS)
    assert None not in stopped.gone_at_ns.values(), (number, stopped)
    assert [stop.error for stop in stopped.stops] == [None] * AT_ONCE, stopped
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


def test_nothing_grows(name: str) -> None:
    """The first cycle may bring up what stays (threads, a lock); later ones add nothing."""
    is_short = "SEATRIAL_CYCLES" not in os.environ and name.startswith(SLOW)
    context = DriverContext.for_run(new_run_id())
    with registry.get(name).open(context) as session:
        cycle(session, 0)
        before = held_by(session, context)
        for number in range(1, SLOW_COUNT if is_short else CYCLES_COUNT):
            cycle(session, number)
        assert not (grown := lasting_growth(session, context, before)), grown
        assert session.audit() == ()
