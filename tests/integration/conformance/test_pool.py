"""Lean sandboxes whose empty networks are used again: only after their end, and only as new."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from pyroute2 import IPRoute  # type: ignore[import-untyped]  # pyroute2 ships no types

from seatrial import netns
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.launch import Outcome
from seatrial.model.experiment import NetworkMode
from tests.support.needs import needs_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from seatrial.drivers.lean import PooledLeanSession

pytestmark = pytest.mark.driver

DEADLINE_NS = 30_000_000_000


@pytest.fixture
def session() -> Iterator[PooledLeanSession]:
    """An open session."""
    needs_driver("lean-pooled")
    with registry.get("lean-pooled").open(DriverContext.for_run(new_run_id())) as opened:
        yield cast("PooledLeanSession", opened)
        assert opened.audit() == ()


def started(session: PooledLeanSession, count: int) -> dict[str, Path]:
    """The files of the network namespaces of new sandboxes that stay, by their ids."""
    spec = SandboxSpec(role=("idle",), network=NetworkMode.NONE, deadline_ns=DEADLINE_NS)
    plans = [session.plan(spec, number) for number in range(count)]
    done = session.launcher.start(plans, wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    assert [result.outcome for result in done.results] == [Outcome.OK] * count, done
    return {result.id: Path(f"/proc/{result.pid}/ns/net") for result in done.results}


def end(session: PooledLeanSession, sandboxes: dict[str, Path]) -> None:
    """Stops sandboxes, sees them gone and gives back what was made for them."""
    session.launcher.stop(list(sandboxes), how="request", grace_ns=DEADLINE_NS)
    gone = session.wait_all_gone(list(sandboxes), time.monotonic_ns() + DEADLINE_NS)
    assert None not in gone.values()
    for plan_id in sandboxes:
        session.release(plan_id)


def names(sandboxes: dict[str, Path]) -> set[str]:
    """What tells the namespaces from others."""
    return {str(path.readlink()) for path in sandboxes.values()}


def test_the_next_has_the_network_of_one_that_is_gone(session: PooledLeanSession) -> None:
    """It is nobody else's, and not the host's."""
    first = started(session, 1)
    seen = names(first)
    assert seen.isdisjoint({str(Path("/proc/self/ns/net").readlink())})
    end(session, first)
    second = started(session, 1)
    assert names(second) == seen
    assert session.networks.made_count == 1


def test_two_that_live_never_share_one(session: PooledLeanSession) -> None:
    """Those that were given back are all used before another is made."""
    stay, go = started(session, 2), started(session, 2)
    free = names(go)
    end(session, go)
    more = started(session, 3)
    assert len(names(stay) | names(more)) == 5
    assert free < names(more)
    assert session.networks.made_count == 5
    end(session, stay)
    end(session, more)
    started(session, 5)
    assert session.networks.made_count == 5, "never more than live at once"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda ip: ip.link("set", index=1, state="up"), id="loopback-up"),
        pytest.param(lambda ip: ip.link("set", index=1, mtu=1500), id="mtu"),
        pytest.param(
            lambda ip: ip.link("add", ifname="a", kind="veth", peer={"ifname": "b"}),
            id="interface",
        ),
        pytest.param(
            lambda ip: ip.addr("add", index=1, address="10.9.8.7", prefixlen=32), id="address"
        ),
        pytest.param(lambda ip: ip.route("add", dst="10.0.0.0/8", type="blackhole"), id="route"),
        pytest.param(lambda ip: ip.rule("add", table=10, priority=1000), id="rule"),
    ],
)
def test_one_that_somebody_has_changed_is_not_used_again(
    session: PooledLeanSession, change: Callable[[IPRoute], object]
) -> None:
    """Whatever it is that was put into it; the one made in its place is used again."""

    def put() -> None:
        with IPRoute() as ip:
            change(ip)

    first = started(session, 1)
    (path,) = first.values()
    spoilt = names(first)
    netns.inside(path, put)
    end(session, first)
    second = started(session, 1)
    fresh = names(second)
    assert fresh.isdisjoint(spoilt)
    assert (session.networks.made_count, session.networks.thrown_away_count) == (2, 1)
    end(session, second)
    assert names(started(session, 1)) == fresh


def test_one_in_which_a_process_stays_is_not_used_again(session: PooledLeanSession) -> None:
    """Somebody from outside of the sandbox, whom its groups do not show."""
    first = started(session, 1)
    (path,) = first.values()
    seen = names(first)
    words = ["/bin/sleep", "60"]
    visitor = netns.inside(path, lambda: subprocess.Popen(words))
    try:
        end(session, first)
        assert names(started(session, 1)).isdisjoint(seen)
        assert session.networks.thrown_away_count == 1
    finally:
        visitor.kill()
        visitor.wait()


def test_one_whose_sandbox_is_not_gone_is_not_used_again(
    session: PooledLeanSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that could not remove a sandbox leaves it the network that it had."""
    first = started(session, 1)
    (plan_id,) = first
    seen = names(first)
    group = session.cgroups(plan_id)
    with monkeypatch.context() as broken:
        broken.setattr(session, "_kill", lambda _: None)
        broken.setattr(session, "_remove_groups", lambda _: None)
        session.release(plan_id)
    assert names(first) == seen, "it lives"
    assert names(started(session, 1)).isdisjoint(seen)
    session.launcher.stop([plan_id], how="kill", grace_ns=0)
    group.remove()  # type: ignore[attr-defined]  # a real group, as the drivers of this machine have
