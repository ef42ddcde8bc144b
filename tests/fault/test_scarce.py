"""Storms in which something lacks: memory in a sandbox, its image, its root."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.engine import EngineSession
from seatrial.launch import Outcome
from seatrial.model.trial import TrialStatus
from tests.support.needs import needs_driver, only_thorough
from tests.support.trouble import outcomes_of

if TYPE_CHECKING:
    from seatrial.drivers.base import DriverSession
    from tests.support.command import Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.driver, pytest.mark.timeout(300)]

FINDING = 1
DEADLINE_NS = 30_000_000_000
#: Not even the pages of a process that becomes a guest.
TOO_LITTLE_BYTES = 1 << 16
STORM_COUNT = 4

DENSITY = """
name = "scarce"
seed = 2
blocks = 1
baseline = "runsc"
drivers = ["runsc"]

[density]
count = [4]
memory = ["4MiB", "64MiB"]
settle_timeout = "1s"
idle_window = "50ms"
"""


@pytest.mark.parametrize(
    "driver", ["lean", "runc", "cri/runc", pytest.param("podman", marks=only_thorough)]
)
def test_out_of_memory_in_a_storm(driver: str) -> None:
    """Those with too little memory fail, each as a start; those between them come up and stay."""
    needs_driver(driver)
    with registry.get(driver).open(DriverContext.for_run(new_run_id())) as session:
        limits = [None, TOO_LITTLE_BYTES] * STORM_COUNT
        specs = [
            SandboxSpec(role=("idle",), memory_limit_bytes=limit, deadline_ns=DEADLINE_NS)
            for limit in limits
        ]
        plans = [session.plan(spec, number) for number, spec in enumerate(specs)]
        batch = session.launcher.start(
            plans, wait_for="reply", hold=True, timeout_ns=2 * DEADLINE_NS
        )
        outcomes = [result.outcome for result in batch.results]
        assert outcomes[::2] == [Outcome.OK] * STORM_COUNT, batch
        assert outcomes[1::2] == [Outcome.EXITED_EARLY] * STORM_COUNT, batch
        for plan in plans[1::2]:
            session.release(plan.id)
        assert all(session.processes(plan.id) for plan in plans[::2])
        assert session.audit() == ()
        for plan in plans[::2]:
            session.release(plan.id)
        assert session.audit() == ()


def test_a_limit_too_low_for_any_sandbox(seatrial: Seatrial) -> None:
    """The trial with that limit fails and says how many came up; the other one is measured."""
    needs_driver("runsc")
    done = seatrial.call("run", "--no-html", seatrial.experiment(DENSITY))
    assert done.code == FINDING, done.shown
    assert "Traceback" not in done.out + done.err, done.shown
    outcomes = outcomes_of(seatrial, "runsc")
    assert sorted(one.status for one in outcomes) == [TrialStatus.FAILED, TrialStatus.OK]
    (failed,) = [one for one in outcomes if one.status is TrialStatus.FAILED]
    assert "only 0 sandboxes came up" in str(failed.reason)
    assert "exited-early" in str(failed.reason)


def start_one(session: DriverSession) -> tuple[Outcome, str]:
    """Starts one sandbox and releases it; gives what became of it, and its last words."""
    plan = session.plan(SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS), 0)
    batch = session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    session.release(plan.id)
    assert session.audit() == ()
    return batch.results[0].outcome, batch.results[0].stderr_tail


def test_an_image_that_podman_does_not_have() -> None:
    """The engine says so and fetches nothing."""
    needs_driver("podman")
    with registry.get("podman").open(DriverContext.for_run(new_run_id())) as session:
        assert isinstance(session, EngineSession)
        session._image = "seatrial.invalid/none:1"
        outcome, words = start_one(session)
    assert outcome is Outcome.EXITED_EARLY
    assert "seatrial.invalid/none" in words


@pytest.mark.parametrize(
    "driver",
    [
        "runc",
        *(pytest.param(name, marks=only_thorough) for name in ("crun", "runsc", "bwrap", "lean")),
    ],
)
def test_a_root_that_is_gone(driver: str) -> None:
    """What all sandboxes share is removed under their runtime: each start says what is missing."""
    needs_driver(driver)
    context = DriverContext.for_run(new_run_id())
    with registry.get(driver).open(context) as session:
        assert start_one(session) == (Outcome.OK, "")
        for root in context.state_dir.glob("*/rootfs"):
            shutil.rmtree(root)
        outcome, words = start_one(session)
    assert outcome in {Outcome.EXITED_EARLY, Outcome.SPAWN_FAILED}
    assert words or outcome is Outcome.SPAWN_FAILED
