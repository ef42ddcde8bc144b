"""How long a plan says it takes: from what a probe has seen, and else from what is typical."""

from __future__ import annotations

import dataclasses

import pytest

from seatrial.cli.request import TRIAL_OVERHEAD_NS, estimate_of
from seatrial.config.expand import expand
from seatrial.drivers.base import Capabilities, ProbeResult, ProbeStatus
from seatrial.drivers.cost import TYPICAL_LIFE_NS, TYPICAL_LIFE_NS_OF_OTHERS, Cost, cost_of
from seatrial.model.plan import Point
from seatrial.units import NS_PER_MS
from tests.support.requests import FULL

SECOND_NS = 1_000 * NS_PER_MS
PROBED = ProbeResult(
    name="qemu",
    status=ProbeStatus.DEGRADED,
    version="7.2 (tcg)",
    detail="",
    life_ns=4 * SECOND_NS,
    capabilities=Capabilities(is_emulated=True),
)


def test_what_a_probe_saw_counts() -> None:
    """A probe that saw no sandbox go tells nothing of how long one lives."""
    assert cost_of("qemu", PROBED) == Cost(driver="qemu", life_ns=4 * SECOND_NS, slowdown=10)
    unseen = dataclasses.replace(PROBED, life_ns=0, capabilities=Capabilities())
    assert cost_of("qemu", unseen) == cost_of("qemu")


@pytest.mark.parametrize(
    ("name", "life_ns", "slowdown"),
    [
        ("process", TYPICAL_LIFE_NS["process"], 1),
        ("cri/runsc", TYPICAL_LIFE_NS["cri/runsc"], 8),
        ("runsc-ptrace", TYPICAL_LIFE_NS["runsc"], 8),
        ("qemu-template", TYPICAL_LIFE_NS["qemu-template"], 1),
        ("firecracker-snapshot", TYPICAL_LIFE_NS["firecracker"], 1),
        ("cri/kata", TYPICAL_LIFE_NS_OF_OTHERS, 1),
    ],
)
def test_what_is_typical(name: str, life_ns: int, slowdown: int) -> None:
    """A flavour lives as long as its family, unless it is known to differ."""
    assert cost_of(name) == Cost(driver=name, life_ns=life_ns, slowdown=slowdown)


@pytest.mark.parametrize(("count", "lives"), [(0, 0), (1, 1), (2, 1), (3, 1.5), (8, 4)])
def test_lives_that_begin_together_share_the_processors(count: int, lives: float) -> None:
    """As many as there are processors take no longer than one."""
    assert Cost(driver="x", life_ns=100).batch_ns(count, processors_count=2) == 100 * lives


def test_a_slow_driver_makes_every_bench_longer() -> None:
    """By at least what its sandboxes live longer; a start at concurrency 1 by a life a round."""

    def estimate(life_ns: int, point: Point) -> int:
        return estimate_of(FULL, lambda name: Cost(driver=name, life_ns=life_ns))(point, "x")

    for point in expand(FULL).points:
        longer_ns = estimate(4 * SECOND_NS, point) - estimate(SECOND_NS, point)
        at_least = 3 * SECOND_NS if point.bench != "inside" or "test" in point.values else 0
        assert longer_ns >= at_least, point
        assert estimate(0, point) > TRIAL_OVERHEAD_NS, point
    assert FULL.start is not None
    alone = Point(bench="start", values={"concurrency": 1})
    assert estimate(SECOND_NS, alone) - estimate(0, alone) == FULL.start.rounds * SECOND_NS
