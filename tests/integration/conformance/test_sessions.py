"""What sessions of one run do not take over from each other, and what they wait for."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

import pytest

from seatrial import proc
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.drivers.session import LocalSession

pytestmark = pytest.mark.driver

IDLE = SandboxSpec(role=("idle",), deadline_ns=60_000_000_000)


def opened(context: DriverContext) -> LocalSession:
    """A session of the plainest driver."""
    return cast("LocalSession", registry.get("process").open(context))


@pytest.fixture
def context() -> Iterator[DriverContext]:
    """A run that stays while its sessions come and go."""
    context = DriverContext.for_run(new_run_id())
    with opened(context):
        yield context


def test_a_closed_session_gives_its_number_back(context: DriverContext) -> None:
    """Any number of sessions may follow each other; one that lives shares its number with none."""
    with opened(context) as first, opened(context) as second:
        assert (first.number, second.number) == ("002", "003")
        first.close()
        with opened(context) as third:
            assert third.number == "002"
            assert third.plan(IDLE, 0).id != second.plan(IDLE, 0).id


def test_a_session_that_left_something_keeps_its_number(
    context: DriverContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later session must not be charged with what an earlier one left."""
    with opened(context) as first:
        group = first.directory.parent / "stays"
        group.mkdir()
        monkeypatch.setattr(first, "runtime_entries", lambda: (group,))
    with opened(context) as second:
        assert second.number == "003"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_mount_that_is_left_is_waited_for(context: DriverContext) -> None:
    """A sandbox is gone when its mounts are; the release detaches one that stays."""
    with opened(context) as session:
        plan = session.plan(IDLE, 0)
        (place,) = (entry for entry in session.directory.iterdir() if entry.name in plan.id)
        assert session.wait_gone(plan.id, time.monotonic_ns()) is not None
        proc.run(["mount", "-t", "tmpfs", "none", str(place)])
        assert place.is_mount()
        assert session.wait_gone(plan.id, time.monotonic_ns()) is None
        session.release(plan.id)
        assert not place.exists()
        assert session.litter["mount"] == 1
        assert session.audit() == ()


def test_a_held_server_tells_what_it_counted(context: DriverContext) -> None:
    """Over a lent channel, as often as one likes, and the sandbox goes on."""
    role = ("serve", "--protocol", "rpc", "--listen", "tcp:127.0.0.1:0")
    spec = SandboxSpec(role=role, deadline_ns=60_000_000_000, network=NetworkMode.HOST)
    with opened(context) as session:
        plan = session.plan(spec, 0)
        batch = session.launcher.start(
            [plan], wait_for="ready", hold=True, timeout_ns=60_000_000_000
        )
        assert batch.results[0].outcome == "ok", batch.results[0]
        for _ in range(2):
            stats = session.server_stats(plan.id)
            assert (stats.protocol, stats.requests, stats.open_connections) == ("rpc", 0, 0)
        (stopped,) = session.launcher.stop([plan.id])
        assert stopped.exit_code == 0
        session.release(plan.id)
