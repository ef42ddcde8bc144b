"""The whole chain, from experiment file to interval, on systems whose true numbers are known."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import pytest

from seatrial.model.estimate import Estimate
from seatrial.probes.noise import NoiseMonitor
from tests.support.fake_run import run_text

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.summary import Cell, RunSummary

MS = 1_000_000
LAG_NS = 20_000
FAKE_START = """
name = "truth"
seed = 11
blocks = 6
baseline = "fake"
drivers = ["fake"]
[start]
concurrency = [12]
rounds = 6
[density]
count = [1, 3]
idle_window = "20ms"
[driver.fake]
processors = 0
start = "lognormal:5ms:0.4"
early_exit_ratio = 0.1
"""
FAKE_QUEUE = """
name = "queue"
seed = 5
blocks = 6
baseline = "fake"
drivers = ["fake"]
[load]
connections = [4]
rates = ["500/s"]
depth = 64
duration = "10s"
warm_up = "1s"
[driver.fake]
server = "fake://?workers=1&service=exponential:1ms"
"""
REAL_SERVER = """
name = "sleeper"
seed = 7
blocks = 3
baseline = "process"
drivers = ["process"]
[load]
connections = [1]
operation = "sleep"
demand = "exponential:4ms"
duration = "2s"
warm_up = "200ms"
"""
# What a sleeping server and a loopback round trip add at most at the median: timer slack, two
# wake-ups and the scheduler of a busy machine.
OVERHEAD_NS_MAX = 2 * MS


def run(text: str, tmp_path: Path) -> RunSummary:
    """Runs an experiment to its end and returns what it says."""
    summary, _ = run_text(text, tmp_path)
    assert summary.trials_finished == summary.trials_planned
    return summary


def cell(summary: RunSummary, metric: str, statistic: str, **axes: object) -> Cell:
    """Returns the one number asked for."""
    (found,) = [
        one
        for one in summary.cells
        if (one.metric, one.statistic) == (metric, statistic)
        and one.driver != "floor"
        and all(one.point.values.get(name) == value for name, value in axes.items())
    ]
    return found


def interval(summary: RunSummary, metric: str, statistic: str, **axes: object) -> Estimate:
    """Returns the number's interval; fails when there is none."""
    estimate = cell(summary, metric, statistic, **axes).estimate
    assert isinstance(estimate, Estimate), estimate
    return estimate


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth."""
    return estimate.low <= truth <= estimate.high


def lognormal_ns(median_ns: float, sigma: float, q: float) -> float:
    """Returns the exact quantile of a lognormal law."""
    return median_ns * math.exp(sigma * NormalDist().inv_cdf(q))


@pytest.fixture
def never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a script plays is the same on a busy machine, so no window waits for a quiet one."""
    monkeypatch.setattr(NoiseMonitor, "wait_until_quiet", lambda _self: (0, True))


@pytest.mark.driver
@pytest.mark.usefixtures("never_waits")
def test_a_scripted_runtime_is_recovered_within_the_intervals(tmp_path: Path) -> None:
    """Start latency, its tail, the failure rate, CPU, teardown and memory are what was scripted."""
    summary = run(FAKE_START, tmp_path)
    for statistic, q in (("p50", 0.5), ("p90", 0.9)):
        truth = lognormal_ns(5 * MS, 0.4, q) + LAG_NS
        assert holds(interval(summary, "start_first_byte_ns", statistic), truth), statistic
    assert holds(interval(summary, "start_success_ratio", "proportion"), 0.9)
    assert interval(summary, "start_cpu_ns", "p50").point == 3 * MS
    assert interval(summary, "teardown_makespan_ns", "p50").point == 3 * MS
    assert interval(summary, "memory_cgroup_total_bytes", "slope").point == 4 << 20
    assert "start-failures" in {finding.code for finding in summary.findings}


@pytest.mark.driver
@pytest.mark.usefixtures("never_waits")
def test_a_queue_with_known_theory_is_recovered_within_the_intervals(tmp_path: Path) -> None:
    """M/M/1 at half load: response times are exponential with mean 1/(mu - lambda) = 2 ms.

    The samples of one trial depend on each other, so this holds only if the intervals allow for it.
    """
    summary = run(FAKE_QUEUE, tmp_path)
    for statistic, q in (("p50", 0.5), ("p90", 0.9)):
        truth = -2 * MS * math.log1p(-q)
        assert holds(interval(summary, "response_time_ns", statistic, mode="open"), truth)
    assert holds(interval(summary, "achieved_rps", "mean", mode="open"), 500)


@pytest.mark.driver
def test_a_real_server_with_injected_service_time_is_recovered(tmp_path: Path) -> None:
    """The guest sleeps as long as the client asks; the interval holds that, plus the way there."""
    summary = run(REAL_SERVER, tmp_path)
    truth = 4 * MS * math.log(2)
    estimate = interval(summary, "service_time_ns", "p50", mode="closed")
    assert estimate.high >= truth
    assert estimate.low <= truth + OVERHEAD_NS_MAX
