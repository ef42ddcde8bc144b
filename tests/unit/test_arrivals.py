"""The schedule of an open loop from Python: the one that loads offer, in whole and in parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from seatrial.errors import ConfigError
from seatrial.loadgen import LoadRequest, arrival_pit, arrival_process, arrivals, run_load
from tests.support.echo_server import EchoServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND_NS = 1_000_000_000
LAWS = (
    "fixed",
    "poisson",
    "uniform",
    "lognormal:cv=2",
    "gamma:shape=3",
    "weibull:shape=0.7",
    "pareto:shape=0.3",
    "gev:shape=0.1,scale=0.4",
    "bimodal:ratio=5,share=0.2",
    "mmpp:factor=5,burst=20,calm=80",
    "fb_ia",
)


def request(**settings: Any) -> LoadRequest:
    """Returns two seconds of load against the modelled server."""
    values: dict[str, Any] = {"targets": ("fake://",), "measure_ns": 2 * SECOND_NS}
    return LoadRequest(**(values | settings))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("pattern", ["fixed", "square:low=100,high=900,period=500ms"])
def test_a_load_offers_the_published_arrivals(law: str, pattern: str) -> None:
    """Law and pattern reach the engine: its intended instants are those that `arrivals` tells."""
    rate_rps = 500.0 if pattern == "fixed" else None
    result = run_load(request(arrival=law, pattern=pattern, rate_rps=rate_rps, seed=3))
    frame = pl.DataFrame(result).sort("request_id")
    offsets = (frame["intended_at_ns"] - result.started_at_ns).to_list()
    published = arrivals(law, rate_rps, seed=3, n=len(offsets) + 1, pattern=pattern)
    assert offsets == published[:-1]
    assert published[-1] >= 2 * SECOND_NS


@pytest.mark.parametrize("agents", [1, 2, 3, 7])
def test_agents_share_one_schedule(agents: int) -> None:
    """Dealt out in turn, the parts of all agents are the whole, nanosecond by nanosecond."""
    for law in LAWS:
        whole = arrivals(law, 1000.0, seed=2, n=210)
        parts = [
            arrivals(law, 1000.0, seed=2, n=210 // agents, agent=agent, agents=agents)
            for agent in range(agents)
        ]
        assert [part[turn] for turn in range(210 // agents) for part in parts] == whole


def test_a_load_of_one_agent_is_its_part_of_the_schedule() -> None:
    """The other agent's requests are not sent, and ids stay those of the whole schedule."""
    schedule: dict[str, Any] = {"arrival": "poisson", "rate_rps": 5000.0, "seed": 3}
    for agent, threads in ((0, 1), (1, 3)):
        with EchoServer() as server:
            one = LoadRequest(
                targets=(server.target,),
                protocol="echo",
                payload_bytes=64,
                connections=3,
                threads=threads,
                agent=agent,
                agents=2,
                requests_max=400,
                measure_ns=60 * SECOND_NS,
                request_timeout_ns=60 * SECOND_NS,
                **schedule,
            )
            result = run_load(one)
        frame = pl.DataFrame(result).sort("request_id")
        offsets = (frame["intended_at_ns"] - result.started_at_ns).to_list()
        assert offsets == arrivals("poisson", 5000.0, seed=3, n=200, agent=agent, agents=2)
        assert frame["request_id"].to_list() == list(range(agent, 400, 2))


def test_observed_arrivals_are_compared_with_the_configured_process() -> None:
    """Even values for the right law, uneven ones for another; deviations for fixed gaps."""
    observed = arrivals("weibull:shape=0.7", 2000.0, seed=8, n=5001)
    values = arrival_pit("weibull:shape=0.7", 2000.0, observed)
    assert len(values) == 5000
    assert stats.kstest(values, "uniform").pvalue > 0.001
    assert stats.kstest(arrival_pit("poisson", 2000.0, observed), "uniform").pvalue < 0.001
    late = arrivals("fixed", 1000.0, seed=0, n=4)
    late[2] += 250_000
    assert arrival_pit("fixed", 1000.0, late) == pytest.approx([0.0, 0.25, 0.0])


def test_exponential_gaps_agree_with_another_implementation() -> None:
    """The law of `poisson` is the one that scipy knows as exponential."""
    gaps = np.diff(arrivals("poisson", 1.0, seed=6, n=5001)) / SECOND_NS
    told = arrival_pit("poisson", 1.0, arrivals("poisson", 1.0, seed=6, n=5001))
    assert np.allclose(told, stats.expon.cdf(gaps), atol=1e-6)


@pytest.mark.parametrize(
    ("law", "same"),
    [
        ("lognormal:cv=2", lambda: stats.lognorm(np.log(5) ** 0.5, scale=5**-0.5)),
        ("gamma:cv=0.5", lambda: stats.gamma(4, scale=0.25)),
        ("weibull:shape=2", lambda: stats.weibull_min(2, scale=1 / 0.886226925452758)),
        ("pareto:shape=0.3", lambda: stats.genpareto(0.3, scale=0.7)),
        ("pareto:alpha=3", lambda: stats.pareto(3, scale=2 / 3)),
        ("pareto:shape=-0.5,location=0.2", lambda: stats.genpareto(-0.5, loc=0.2, scale=1.2)),
        ("uniform:low=0.4", lambda: stats.uniform(0.4, 1.2)),
    ],
)
def test_laws_agree_with_another_implementation(law: str, same: Callable[[], Any]) -> None:
    """Names and parameters mean what they mean elsewhere, scaled to the mean 1."""
    offsets = arrivals(law, 0.001, seed=6, n=2001)
    gaps = np.diff(offsets) / (1000 * SECOND_NS)
    assert np.allclose(arrival_pit(law, 0.001, offsets), same().cdf(gaps), atol=1e-6)


def test_gev_agrees_with_another_implementation_given_that_it_is_not_negative() -> None:
    """What is below 0 is left out of the law, and what is left is scaled to the mean 1."""
    law = stats.genextreme(-0.1, loc=1, scale=0.8)  # scipy's shape has the other sign
    below = law.cdf(0)
    assert below > 0.01
    mean = law.expect(lambda value: value, lb=0) / (1 - below)
    offsets = arrivals("gev:shape=0.1,scale=0.8", 0.001, seed=6, n=2001)
    gaps = np.diff(offsets) / (1000 * SECOND_NS)
    right = (law.cdf(gaps * mean) - below) / (1 - below)
    assert np.allclose(arrival_pit("gev:shape=0.1,scale=0.8", 0.001, offsets), right, atol=1e-6)


def test_rate_and_expected_count_are_told_at_any_instant() -> None:
    """The rate is the pattern's, the count its integral; a trace knows its exact count."""
    process = arrival_process("poisson", pattern="ramp:from=0,to=100,over=10s")
    at_ns = [0, 5 * SECOND_NS, 10 * SECOND_NS, 20 * SECOND_NS]
    assert process.rates_rps(at_ns) == pytest.approx([0, 50, 100, 100])
    assert process.expected_counts(at_ns) == pytest.approx([0, 125, 500, 1500])


def test_a_trace_is_replayed_and_ends_the_load(tmp_path: Path) -> None:
    """Without a rate it is sent as recorded; there is nothing after its last arrival."""
    file = tmp_path / "trace.csv"
    file.write_text("# of a server\nt_ns,user\n5000,a\n1000000,b\n1000000,c\n")
    law = f"trace:{file}"
    assert arrivals(law, seed=1, n=9) == [5000, 1_000_000, 1_000_000]
    assert run_load(request(arrival=law)).ok_count == 3
    assert arrival_process(law).expected_counts([4999, 5000, SECOND_NS]) == [0, 1, 3]
    assert arrivals(f"{law},loop=yes", seed=1, n=4)[3] == 1_497_500
    file.write_text("5\n4\n")
    with pytest.raises(ConfigError, match="earlier"):
        arrival_process(law)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"agent": 2, "agents": 2}, "agent is 2"),
        ({"agents": 0}, "agents is 0"),
        ({"agent": -1}, "agent is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"n": 10**8}, "n is 100000000"),
        ({"law": "pareto:shape=1"}, "infinite from 1 on"),
        ({"pattern": "wave"}, "square:low="),
        ({"pattern": "ramp:from=1,to=2,over=1s"}, "rates of its own"),
        ({"rate_rps": None}, "rate_rps is none"),
    ],
)
def test_bad_schedules_are_refused_by_name(settings: dict[str, Any], named: str) -> None:
    """What is wrong is named with its value and what was expected."""
    values: dict[str, Any] = {"law": "poisson", "rate_rps": 10.0, "seed": 1, "n": 1} | settings
    with pytest.raises(ConfigError, match=named):
        arrivals(values.pop("law"), values.pop("rate_rps"), **values)


def test_observations_out_of_order_are_refused() -> None:
    """Gaps between arrivals that go back in time, or lie before the start, mean nothing."""
    with pytest.raises(ConfigError, match="not in order"):
        arrival_pit("poisson", 10.0, [5, 4])
    with pytest.raises(ConfigError, match="offsets_ns is -1"):
        arrival_pit("poisson", 10.0, [-1])


def test_closed_loops_have_no_pattern_and_open_loops_do_not_think() -> None:
    """Settings that would have no effect are refused."""
    with pytest.raises(ConfigError, match="pattern"):
        request(pattern="ramp:from=1,to=2,over=1s").to_plan()
    with pytest.raises(ConfigError, match="think"):
        request(arrival="poisson", rate_rps=5.0, think="constant:1ms").to_plan()
