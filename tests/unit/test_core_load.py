"""The load engine from Python: against a real echo server, and exactly on the virtual clock."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from seatrial.errors import ConfigError, TrialFailed
from seatrial.loadgen import LoadRequest, arrivals, build_info, merge_histograms, run_load
from tests.support.echo_server import EchoServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.loadgen import LoadResult, Snapshot

SECOND_NS = 1_000_000_000
SCHEMA = {
    "intended_at_ns": pl.Int64,
    "sent_at_ns": pl.Int64,
    "first_byte_at_ns": pl.Int64,
    "done_at_ns": pl.Int64,
    "outcome": pl.UInt8,
    "connection": pl.UInt32,
    "request_id": pl.UInt64,
    "demand_ns": pl.Int64,
    "server_service_ns": pl.Int64,
    "kernel_sent_at_ns": pl.Int64,
    "kernel_received_at_ns": pl.Int64,
    "phase": pl.UInt8,
}


@pytest.fixture
def server() -> Iterator[EchoServer]:
    """A real echo server on loopback."""
    with EchoServer() as running:
        yield running


def echo_request(server: EchoServer, **settings: Any) -> LoadRequest:
    """Returns a closed loop of 300 echoes whose time limits are never reached."""
    values = {
        "targets": (server.target,),
        "protocol": "echo",
        "payload_bytes": 64,
        "measure_ns": 60 * SECOND_NS,
        "request_timeout_ns": 60 * SECOND_NS,
        "requests_max": 300,
    }
    return LoadRequest(**(values | settings))


def fake_request(**settings: Any) -> LoadRequest:
    """Returns one second of open loop against the modelled server."""
    values = {
        "targets": ("fake://",),
        "arrival": "fixed",
        "rate_rps": 100.0,
        "measure_ns": SECOND_NS,
        "demand": "constant:1ms",
    }
    return LoadRequest(**(values | settings))


def test_closed_loop_answers_every_request(server: EchoServer) -> None:
    """Every request has one record, with its instants in order, and histograms agree."""
    result = run_load(echo_request(server, connections=3, threads=2, depth=2))
    frame = pl.DataFrame(result)
    assert frame.height == len(result) == 300
    assert (frame["outcome"] == 0).all()
    for earlier, later in (
        ("intended_at_ns", "sent_at_ns"),
        ("sent_at_ns", "first_byte_at_ns"),
        ("first_byte_at_ns", "done_at_ns"),
    ):
        assert (frame[later] >= frame[earlier]).all()
    assert frame["request_id"].sort().to_list() == list(range(300))
    assert set(frame["connection"].unique()) == {0, 1, 2}
    assert result.ok_count == result.intended_count == result.sent_count == 300
    assert result.response_histogram.count == 300
    longest = (frame["done_at_ns"] - frame["intended_at_ns"]).max()
    assert result.response_histogram.max_ns == longest


def test_open_loop_sends_the_published_schedule(server: EchoServer) -> None:
    """The intended instants are those that `arrivals` tells for the same law, rate and seed."""
    request = echo_request(server, arrival="poisson", rate_rps=3000.0, connections=4, seed=7)
    result = run_load(request)
    frame = pl.DataFrame(result).sort("request_id")
    offsets = (frame["intended_at_ns"] - result.started_at_ns).to_list()
    assert offsets == arrivals("poisson", 3000.0, seed=7, n=300)


def test_columns_reach_polars_without_pyarrow() -> None:
    """The Arrow C stream has the documented columns; unknown values are null, not 0."""
    result = run_load(
        fake_request(targets=("fake://?stall_at=500ms&stall=60s",), drain_ns=SECOND_NS // 10)
    )
    frame = pl.DataFrame(result)
    assert "pyarrow" not in sys.modules
    assert dict(frame.schema) == SCHEMA
    assert pl.DataFrame(result).equals(frame), "a result can be read more than once"
    assert pl.Series(result).struct.unnest().equals(frame)
    unsent = frame.filter(frame["outcome"] == 6)
    assert unsent.height == result.unsent_count > 0
    assert unsent["sent_at_ns"].is_null().all()
    assert unsent["connection"].is_null().all()
    assert frame["intended_at_ns"].null_count() == 0


def test_columns_outlive_their_result() -> None:
    """The buffers belong to the frame, too: they stay when the result is gone."""
    frame = pl.DataFrame(run_load(fake_request()))
    assert frame["demand_ns"].sum() == 100 * 1_000_000


def test_ctrl_c_ends_the_load_and_keeps_what_was_measured(server: EchoServer) -> None:
    """SIGINT does not raise: the result says that it was interrupted and has the records."""

    def interrupt() -> None:
        server.was_reached.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = run_load(echo_request(server, requests_max=2**63, records_max=1000))
    thread.join()
    assert result.was_interrupted
    assert result.ok_count > 0
    assert result.measure_end_ns < result.measure_start_ns + 60 * SECOND_NS


def test_other_exceptions_of_a_signal_handler_are_raised(server: EchoServer) -> None:
    """A handler's own exception ends the load and comes through once all threads are joined."""

    class OwnError(Exception):
        """Not a KeyboardInterrupt."""

    def handler(_number: int, _frame: object) -> None:
        raise OwnError

    def interrupt() -> None:
        server.was_reached.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(OwnError):
            run_load(echo_request(server, requests_max=2**63, records_max=0))
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)


def test_other_python_threads_run_meanwhile(server: EchoServer) -> None:
    """The interpreter is free during the load: the echo server is Python in this very process."""
    assert run_load(echo_request(server)).ok_count == 300


def test_generator_reports_its_own_cost(server: EchoServer) -> None:
    """CPU time of the engine's threads is told apart from everything else."""
    result = run_load(echo_request(server))
    assert result.generator_user_ns + result.generator_system_ns > 0


def test_a_target_that_is_not_there_fails_the_trial(server: EchoServer) -> None:
    """A refused connection names the target and says what to check."""
    target = server.target
    with EchoServer() as gone:
        target = gone.target
    with pytest.raises(TrialFailed, match=r"refused") as caught:
        run_load(echo_request(server, targets=(target,)))
    assert caught.value.code == "connect-failed"
    assert target in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"connections": 0}, "connections"),
        ({"connections": -1}, "connections"),
        ({"threads": 2, "connections": 1}, "threads"),
        ({"depth": 5000}, "depth"),
        ({"payload_bytes": 2**21}, "payload_bytes"),
        ({"measure_ns": 0}, "measure_ns"),
        ({"rate_rps": 0.0}, "rate_rps"),
        ({"rate_rps": None}, "rate_rps"),
        ({"arrival": "closed"}, "rate_rps"),
        ({"arrival": "bursty"}, "arrival"),
        ({"operation": "dance"}, "operation"),
        ({"protocol": "gopher"}, "protocol"),
        ({"demand": "constant:5"}, "duration"),
        ({"targets": ("localhost:80",)}, "target"),
        ({"targets": ("tcp://127.0.0.1:1", "tls://127.0.0.1:1")}, "targets"),
        ({"targets": ()}, "targets"),
        ({"options": {"pace": "fast"}}, "pace"),
        ({"agent": 1}, "agent"),
        ({"wait": "doze"}, "wait"),
        ({"wait": "hybrid"}, "wait"),
        ({"wait": "spin"}, "wait"),
        ({"cpus": (10**6,)}, "cpus"),
        ({"cpus": (-1,)}, "cpus"),
        ({"outstanding_max": 0}, "outstanding_max"),
        ({"cool_down_ns": -1}, "cool_down_ns"),
        ({"start_at_ns": 1}, "start_at_ns"),
        ({"requests_max": 0}, "requests_max"),
        ({"seed": 2**64}, "seed"),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, object], names: str) -> None:
    """A setting out of range is a ConfigError which names it and what was expected."""
    with pytest.raises(ConfigError, match=names) as caught:
        run_load(fake_request(**settings))
    assert "expected" in str(caught.value)
    assert caught.value.code in {"invalid-plan", "invalid-value", "invalid-option"}


def test_waiting_is_sharp_only_where_it_matters_and_can_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An open loop spins before each instant if a CPU is left; a closed one waits for replies."""
    real = {"targets": ("tcp://127.0.0.1:1",), "demand": "none", "connections": 4}
    closed = {**real, "arrival": "closed", "rate_rps": None}
    for cpus_count, threads, wait in ((2, 1, "hybrid"), (2, 2, "block"), (1, 1, "block")):
        free = set(range(cpus_count))
        monkeypatch.setattr("os.sched_getaffinity", lambda _pid, free=free: free)
        open_loop = fake_request(**real, threads=threads)
        assert open_loop.to_plan().settings["wait"] == wait
        for other in (fake_request(**closed, threads=threads), fake_request()):
            assert other.to_plan().settings["wait"] == "block"


def test_plan_tells_what_it_was_made_of() -> None:
    """A plan echoes its settings."""
    settings = fake_request(seed=2**64 - 1).to_plan().settings
    told = {"targets": ("fake://",), "seed": 2**64 - 1, "rate_rps": 100.0, "arrival": "fixed"}
    assert told.items() <= settings.items()


def test_settings_are_named_and_complete() -> None:
    """The core's own constructor takes the documented names only, and all of them."""
    settings = dataclasses.asdict(fake_request(wait="block"))
    kind = type(fake_request().to_plan())
    assert kind(**settings).settings == settings
    with pytest.raises(TypeError, match="unexpected keyword argument 'speed'"):
        kind(**settings, speed=1)
    del settings["seed"]
    with pytest.raises(TypeError, match="missing required keyword argument 'seed'"):
        kind(**settings)
    with pytest.raises(TypeError):
        kind(**settings, seed="one")


def test_counters_are_of_all_phases_and_histograms_of_the_measure_phase() -> None:
    """Warm-up requests are recorded and counted, and are in no histogram."""
    result = run_load(fake_request(warm_up_ns=SECOND_NS // 2))
    frame = pl.DataFrame(result)
    assert frame["phase"].to_list() == [0] * 50 + [1] * 100
    assert result.intended_count == result.sent_count == result.ok_count == 150
    assert result.response_histogram.count == result.send_lag_histogram.count == 100
    assert result.measure_start_ns - result.started_at_ns == SECOND_NS // 2
    assert result.measure_end_ns - result.measure_start_ns == SECOND_NS


def test_a_start_that_is_over_is_refused_with_its_delay(server: EchoServer) -> None:
    """Agents that agreed on an instant must not begin at another one."""
    with pytest.raises(TrialFailed, match=r"start_at_ns was \d+ ns ago") as caught:
        run_load(echo_request(server, start_at_ns=1))
    assert caught.value.code == "start-missed"
    start_at_ns = time.monotonic_ns() + SECOND_NS // 5
    assert run_load(echo_request(server, start_at_ns=start_at_ns)).started_at_ns == start_at_ns


def test_the_result_tells_how_threads_waited_and_where(server: EchoServer) -> None:
    """Wait mode, guard and placement are part of the result, because they change the number."""
    cpu = max(os.sched_getaffinity(0))
    spun = run_load(echo_request(server, wait="spin", cpus=(cpu,)))
    assert (spun.wait, spun.guard_ns, spun.cpus_seen) == ("spin", None, [cpu])
    assert spun.ok_count == 300
    hybrid = run_load(echo_request(server, wait="hybrid", arrival="poisson", rate_rps=5000.0))
    assert hybrid.wait == "hybrid"
    assert hybrid.guard_ns is not None
    assert 40_000 <= hybrid.guard_ns <= 300_000
    blocked = run_load(echo_request(server, wait="block"))
    assert blocked.voluntary_switch_count > 0
    assert blocked.guard_ns is None
    assert set(blocked.cpus_seen) <= os.sched_getaffinity(0)
    assert blocked.connect_histogram.count == 1


def test_an_observer_sees_the_load_and_may_finish_it(server: EchoServer) -> None:
    """Snapshots grow, their intervals follow each other, and true ends the offer, not the load."""
    seen: list[Snapshot] = []

    def observe(snapshot: Snapshot) -> bool:
        seen.append(snapshot)
        return len(seen) == 4

    request = echo_request(server, arrival="fixed", rate_rps=1000.0, requests_max=2**40)
    result = run_load(request, observe)
    assert result.was_finished_early
    assert not result.was_interrupted
    assert len(seen) >= 4
    counts = [snapshot.measured.ok_count for snapshot in seen]
    assert counts == sorted(counts)
    assert counts[3] > 0
    last = seen[3]
    assert last.response_histogram.count == last.measured.ok_count
    assert last.elapsed_ns >= seen[0].elapsed_ns
    told = [interval for snapshot in seen for interval in snapshot.intervals]
    assert all(one.end_ns == two.start_ns for one, two in itertools.pairwise(told))
    assert sum(interval.ok_count for interval in told) <= result.ok_count
    assert result.intended_count == result.ok_count, "what was due was answered"
    assert result.measure_end_ns < result.measure_start_ns + request.measure_ns


def test_an_exception_of_the_observer_is_raised(server: EchoServer) -> None:
    """It ends the load, and comes through once all threads are joined."""

    def observe(_snapshot: object) -> bool:
        raise LookupError("enough")

    threads = threading.active_count()
    with pytest.raises(LookupError, match="enough"):
        run_load(echo_request(server, requests_max=2**40), observe)
    assert threading.active_count() <= threads + 1, "only the server's own are left"


def test_intervals_and_targets_add_up_to_the_whole(server: EchoServer) -> None:
    """Parts are of the same requests as the sums, and are merged and not averaged."""
    with EchoServer() as other:
        both = (server.target, other.target)
        request = echo_request(
            server,
            targets=both,
            connections=5,
            threads=2,
            arrival="poisson",
            rate_rps=1500.0,
            interval_ns=SECOND_NS // 100,
        )
        result = run_load(request)
    assert result.ok_count == 300
    intervals = result.intervals
    for name in ("intended_count", "sent_count", "ok_count"):
        assert sum(getattr(interval, name) for interval in intervals) == 300, name
    assert sum(interval.sent_bytes for interval in intervals) == result.sent_bytes == 300 * 64
    assert result.received_bytes == result.sent_bytes
    merged = merge_histograms([interval.response_histogram for interval in intervals])
    assert merged == result.response_histogram
    assert intervals[0].start_ns == result.measure_start_ns
    assert intervals[-1].end_ns == result.ended_at_ns
    targets = result.targets
    assert tuple(target.target for target in targets) == both
    assert sum(target.counts.ok_count for target in targets) == 300
    assert all(target.counts.ok_count > 0 for target in targets)
    merged = merge_histograms([target.response_histogram for target in targets])
    assert merged == result.response_histogram


def test_the_bound_on_requests_is_of_all_agents_together(server: EchoServer) -> None:
    """Each agent offers its part of the bounded schedule, so no remainder is lost."""
    requests = [echo_request(server, agent=agent, agents=3, requests_max=10) for agent in range(3)]
    assert [run_load(request).intended_count for request in requests] == [4, 3, 3]


def test_records_are_a_bounded_systematic_sample(server: EchoServer) -> None:
    """One of each stride requests of each thread is kept, and histograms are of all."""
    result = run_load(echo_request(server, records_max=50, threads=2, connections=2))
    frame = pl.DataFrame(result)
    assert result.records_stride == 8
    rows = sorted((request_id % 2, request_id // 16) for request_id in frame["request_id"])
    whole = [(thread, row) for thread in range(2) for row in range(300 // 16)]
    assert set(whole) <= set(rows)
    assert len(rows) == len(set(rows)) <= len(whole) + 2
    assert result.response_histogram.count == 300
    assert run_load(echo_request(server, records_max=0)).records_stride is None


def test_injected_service_time_is_recovered() -> None:
    """What the modelled server takes is what the records and histograms say."""
    result: LoadResult = run_load(fake_request(demand="constant:3ms"))
    frame = pl.DataFrame(result)
    assert set(frame["done_at_ns"] - frame["sent_at_ns"]) == {3_000_000}
    assert set(frame["server_service_ns"]) == {3_000_000}
    assert result.service_histogram.min_ns == result.service_histogram.max_ns == 3_000_000
    assert result.pacing_lag_histogram.max_ns == 0


def test_arrivals_are_refused_for_unknown_laws() -> None:
    """The law, the rate and the count are checked."""
    with pytest.raises(ConfigError, match="arrival law"):
        arrivals("bursty", 1.0, seed=1, n=1)
    with pytest.raises(ConfigError, match="rate_rps"):
        arrivals("fixed", 0.0, seed=1, n=1)
    with pytest.raises(ConfigError, match="10000000"):
        arrivals("fixed", 1.0, seed=1, n=10**8)


def test_build_is_known() -> None:
    """A debug build can be told from a release build."""
    info = build_info()
    assert info.profile in {"debug", "release"}
    assert info.version.count(".") == 2
