"""The formulas of METHODOLOGY 3 to 6, on tables small enough to do by hand."""

from __future__ import annotations

import polars as pl
import pytest

from seatrial.benches.base import Group, Samples
from seatrial.benches.density import derive_density, judge_density
from seatrial.benches.inside import derive_inside
from seatrial.benches.load import derive_load, judge_load
from seatrial.benches.start import derive_start, judge_start
from seatrial.model.plan import Point

START = Point(bench="start", values={"concurrency": 2})
DENSITY = Point(bench="density", values={"count": 4})
OPEN = Point(bench="load", values={"mode": "open", "connections": 1, "rate_rps": 100.0})
CLOSED = Point(bench="load", values={"mode": "closed", "connections": 1})
INSIDE = Point(bench="inside", values={})


def start_row(**changes: object) -> dict[str, object]:
    """Returns one successful start that took 100 ns to its first byte."""
    row: dict[str, object] = {
        "id": "a",
        "round": 0,
        "position": 0,
        "is_floor": False,
        "outcome": "ok",
        "error": None,
        "stderr_tail": "",
        "due_at_ns": 1_000,
        "invoked_at_ns": 1_010,
        "first_byte_at_ns": 1_100,
        "ready_at_ns": 1_120,
        "first_reply_at_ns": 1_150,
        "stop_requested_at_ns": 2_000,
        "stop_error": None,
        "exit_seen_at_ns": 2_030,
        "gone_at_ns": 2_070,
        "cgroup_cpu_ns": 55,
        "cgroup_user_ns": 30,
        "cgroup_system_ns": 25,
    }
    row.update(changes)
    return row


def batch_row(**changes: object) -> dict[str, object]:
    """Returns one batch of two starts, released at 1000."""
    row: dict[str, object] = {
        "round": 0,
        "is_floor": False,
        "starts_count": 2,
        "released_at_ns": 1_000,
        "launcher_user_ns": 6,
        "launcher_system_ns": 4,
    }
    row.update(changes)
    return row


def by_name(samples: tuple[Samples, ...], group: Group = Group.MEASURED) -> dict[str, list[float]]:
    """Returns the values of one group by metric."""
    return {s.metric: list(s.values) for s in samples if s.group is group}


def tables(**rows: list[dict[str, object]]) -> dict[str, pl.DataFrame]:
    """Returns frames of rows."""
    return {name: pl.DataFrame(taken, infer_schema_length=None) for name, taken in rows.items()}


def test_what_a_pods_client_saw_is_a_part_of_the_start() -> None:
    """Instants that were not reached, or that a runtime has not, give no value."""
    pod = start_row(pod_at_ns=1_040, container_created_at_ns=1_060, container_started_at_ns=1_110)
    cut = start_row(
        position=1, pod_at_ns=1_050, container_created_at_ns=None, container_started_at_ns=None
    )
    found = by_name(derive_start(tables(starts=[pod, cut], batches=[batch_row()]), START))
    assert found["start_pod_ns"] == [40, 50]
    assert found["start_container_created_ns"] == [60]
    assert found["start_container_started_ns"] == [110]


def test_every_start_metric_is_what_methodology_says() -> None:
    """Latencies count from due; makespan and skew are of the batch; books are of the cgroup."""
    late = start_row(position=1, invoked_at_ns=1_040, first_byte_at_ns=1_300)
    found = by_name(derive_start(tables(starts=[start_row(), late], batches=[batch_row()]), START))
    assert found == {
        "start_first_byte_ns": [100, 300],
        "start_ready_ns": [120, 120],
        "start_first_reply_ns": [150, 150],
        "start_launch_lag_ns": [10, 40],
        "start_makespan_ns": [300],
        "start_rps": [2 / 300e-9],
        "start_release_skew_ns": [30],
        "start_launcher_cpu_ns": [5],
        "start_cpu_ns": [55, 55],
        "start_cpu_user_ns": [30, 30],
        "start_cpu_system_ns": [25, 25],
        "stop_exit_ns": [30, 30],
        "teardown_ns": [70, 70],
        "teardown_makespan_ns": [70],
        "start_success_ratio": [1, 1],
    }


def test_a_failed_start_has_no_latency_but_lowers_the_success_ratio() -> None:
    """A censored start is neither dropped from the count nor given an invented latency."""
    failed = start_row(position=1, outcome="timed-out", first_byte_at_ns=None, error="deadline")
    frames = tables(starts=[start_row(), failed], batches=[batch_row()])
    found = by_name(derive_start(frames, START))
    assert found["start_first_byte_ns"] == [100]
    assert found["start_success_ratio"] == [1, 0]
    assert "start_makespan_ns" not in found
    assert "start_cpu_ns" not in found, "the others were charged while the deadline passed"
    (finding,) = judge_start(frames, START)
    assert finding.code == "start-failures"
    assert "1 of 2" in finding.message
    assert "deadline" in finding.message


def test_a_failed_start_is_told_in_the_runtimes_own_words() -> None:
    """How it ended is not why: that is in what the runtime wrote, if any of them wrote."""
    mute = start_row(outcome="exited-early", error="exited with status 1")
    wordy = start_row(**{**mute, "position": 1, "stderr_tail": "\nrunc:  no space left\n"})
    frames = tables(starts=[mute, wordy], batches=[batch_row()])
    (finding,) = judge_start(frames, START)
    assert finding.message.endswith(
        "first: 2 exited-early: exited with status 1: runc: no space left"
    )


def test_a_sandbox_that_had_to_be_killed_gives_no_teardown() -> None:
    """Five seconds of grace are no teardown time; the finding says what happened."""
    killed = start_row(stop_error="did not obey STOP in time and was killed")
    frames = tables(starts=[killed, start_row(position=1)], batches=[batch_row()])
    found = by_name(derive_start(frames, START))
    assert "teardown_makespan_ns" not in found
    assert found["stop_exit_ns"] == [30]
    assert found["teardown_ns"] == [70], "of the one that obeyed"
    (finding,) = judge_start(frames, START)
    assert finding.code == "stop-failures"
    assert "1 of 2" in finding.message


def test_floor_and_runtime_are_never_mixed() -> None:
    """Null starts give samples of their own group."""
    floor = start_row(is_floor=True, first_byte_at_ns=1_007)
    frames = tables(
        starts=[start_row(), floor], batches=[batch_row(), batch_row(is_floor=True, starts_count=1)]
    )
    samples = derive_start(frames, START)
    assert by_name(samples)["start_first_byte_ns"] == [100]
    assert by_name(samples, Group.FLOOR)["start_first_byte_ns"] == [7]


def test_density_divides_the_final_reading_by_the_count() -> None:
    """Only the settled, final reading counts; totals stand beside the shares."""
    reading = {
        "count": 4,
        "is_final": False,
        "is_settled": False,
        "dead_count": 0,
        "unreadable_count": 0,
        "since_last_start_ns": 250,
        "pss_bytes": 9_999,
        "uss_bytes": 9_999,
        "cgroup_bytes": 9_999,
        "mem_available_drop_bytes": 9_999,
    }
    final = {
        **reading,
        "is_final": True,
        "is_settled": True,
        "pss_bytes": 400,
        "uss_bytes": 200,
        "cgroup_bytes": 800,
        "mem_available_drop_bytes": -40,
    }
    idle = {"count": 4, "window_ns": 1_000, "cpu_ns": 40}
    found = by_name(derive_density(tables(memory=[reading, final], idle=[idle]), DENSITY))
    assert found == {
        "memory_pss_bytes": [100],
        "memory_uss_bytes": [50],
        "memory_cgroup_bytes": [200],
        "memory_available_drop_bytes": [-10],
        "memory_pss_total_bytes": [400],
        "memory_cgroup_total_bytes": [800],
        "settle_ns": [250],
        "idle_cpu_ratio": [0.01],
    }


def test_memory_that_never_settled_is_reported() -> None:
    """A reading on the move is kept, and said to be one."""
    final = {"is_final": True, "is_settled": False, "dead_count": 0, "unreadable_count": 0}
    (finding,) = judge_density(tables(memory=[final]), DENSITY)
    assert finding.code == "not-settled"


def test_memory_of_some_of_the_sandboxes_is_not_given_as_that_of_all() -> None:
    """One sandbox that died while memory settled would make the rest look cheap."""
    final = {
        "is_final": True,
        "is_settled": True,
        "dead_count": 1,
        "unreadable_count": 0,
        "pss_bytes": 300,
        "uss_bytes": 300,
        "cgroup_bytes": 800,
        "mem_available_drop_bytes": 0,
    }
    frames = tables(memory=[final])
    assert "memory_pss_bytes" not in by_name(derive_density(frames, DENSITY))
    (finding,) = judge_density(frames, DENSITY)
    assert finding.code == "incomplete-reading"


def request_row(**changes: object) -> dict[str, object]:
    """Returns a correct request of the measure phase, 5 ns late, 50 ns of service."""
    row: dict[str, object] = {
        "intended_at_ns": 1_000,
        "sent_at_ns": 1_005,
        "done_at_ns": 1_055,
        "outcome": 0,
        "phase": 1,
    }
    row.update(changes)
    return row


def load_row(**changes: object) -> dict[str, object]:
    """Returns a load whose measure phase is 1 us long."""
    row: dict[str, object] = {
        "measure_start_ns": 1_000,
        "measure_end_ns": 2_000,
        "ok_count": 2,
        "sandbox_cpu_ns": 20,
        "records_dropped_count": 0,
        "pacing_lag_ns_p50": 1.0,
        "pacing_lag_ns_p99": 1.0,
        "started_at_ns": 900,
        "ended_at_ns": 2_100,
        "threads_count": 1,
        "generator_user_ns": 100,
        "generator_system_ns": 100,
    }
    row.update(changes)
    return row


def test_open_loop_response_time_counts_from_the_intended_instant() -> None:
    """Warm-up is cut by intention; a failure has no latency but counts."""
    frames = tables(
        requests=[request_row(), request_row(phase=0), request_row(outcome=1, done_at_ns=1_900)],
        loads=[load_row()],
    )
    found = by_name(derive_load(frames, OPEN))
    assert found["response_time_ns"] == [55]
    assert found["service_time_ns"] == [50]
    assert found["send_lag_ns"] == [5, 5]
    assert found["failed_ratio"] == [0.5]
    assert found["achieved_rps"] == [2_000_000]
    assert found["request_cpu_ns"] == [10]
    codes = [finding.code for finding in judge_load(frames, OPEN)]
    assert codes == ["request-failures", "saturated"]


def test_load_above_capacity_is_told_from_a_slow_service() -> None:
    """A backlog that is large but steady is a slow service; one that grows is saturation."""
    slow = [
        request_row(intended_at_ns=at, sent_at_ns=at, done_at_ns=at + 400)
        for at in range(0, 2_000, 2)
    ]
    assert judge_load(tables(requests=slow, loads=[load_row()]), OPEN) == ()
    queue = [
        request_row(intended_at_ns=at, sent_at_ns=at, done_at_ns=2 * at + 10)
        for at in range(0, 2_000, 2)
    ]
    found = judge_load(tables(requests=queue, loads=[load_row()]), OPEN)
    assert [finding.code for finding in found] == ["saturated", "not-stationary", "not-independent"]


def test_an_engine_without_idle_time_is_found_out_in_a_closed_loop_too() -> None:
    """The peak of such a load may be the engine's own."""
    frames = tables(requests=[request_row()], loads=[load_row(generator_user_ns=1_150)])
    assert [f.code for f in judge_load(frames, CLOSED)] == ["generator-bound"]


def test_closed_loop_claims_no_response_time() -> None:
    """No request of a closed loop is ever due before its slot is free."""
    frames = tables(requests=[request_row()], loads=[load_row()])
    assert "response_time_ns" not in by_name(derive_load(frames, CLOSED))


def test_a_late_generator_is_found_out() -> None:
    """Pacing lag that is visible in the median response time is the engine's fault, and said."""
    slow = [request_row(intended_at_ns=1_000, sent_at_ns=501_000, done_at_ns=601_000)]
    frames = tables(
        requests=slow, loads=[load_row(measure_end_ns=1_000_000, pacing_lag_ns_p99=500_000.0)]
    )
    assert [f.code for f in judge_load(frames, OPEN)] == ["generator-bound"]


def test_a_late_trace_is_told_with_the_limit_of_a_schedule() -> None:
    """It is held against its own instants, so half a gap is told beside a fifth of one."""
    checked = {"arrival": "trace:/t", "arrival_gaps_count": 100, "arrivals_are_kept": False}
    found = {**checked, "arrival_statistic": 0.5, "arrival_distance": None, "pattern": "fixed"}
    frames = tables(requests=[request_row()], loads=[load_row(**found)])
    (finding,) = (one for one in judge_load(frames, OPEN) if one.code == "generator-bound")
    assert "as the trace:/t process has it" in finding.message
    assert "0.5 of 100 gaps (limit 0.2)" in finding.message


def test_dropped_records_are_an_error() -> None:
    """Quantiles of the first records only are not quantiles of the load."""
    frames = tables(requests=[request_row()], loads=[load_row(records_dropped_count=7)])
    (finding,) = judge_load(frames, CLOSED)
    assert finding.code == "records-dropped"
    assert finding.severity == "error"
    assert "achieved_rps" not in by_name(derive_load(frames, CLOSED))


def test_rates_of_sampled_records_come_from_the_counters() -> None:
    """One record in four gives the latencies; how many there were is counted of all."""
    load = load_row(
        records_stride=4,
        measured_intended_count=8,
        measured_ok_count=6,
        achieved_count=5,
        backlog_middle_count=0,
        backlog_end_count=900,
        offered_late_count=1_000,
    )
    frames = tables(requests=[request_row(), request_row()], loads=[load])
    found = by_name(derive_load(frames, OPEN))
    assert found["achieved_rps"] == [5_000_000]
    assert found["failed_ratio"] == [0.25]
    assert found["response_time_ns"] == [55, 55]
    codes = [finding.code for finding in judge_load(frames, OPEN)]
    assert codes == ["request-failures", "saturated"]


def test_inside_costs_are_a_share_of_the_batch() -> None:
    """Costs are per operation, file access is bytes a second."""
    rows = [
        {"probe": "syscall", "position": 0, "batch_ns": 500, "operations_count": 5}
        | {"batch_bytes": None},
        {"probe": "file-write", "position": 0, "batch_ns": 2_000, "operations_count": 1}
        | {"batch_bytes": 4_000},
    ]
    found = by_name(derive_inside(tables(probes=rows), INSIDE))
    assert found["syscall_ns"] == [100]
    assert found["file_write_bytes_per_s"] == pytest.approx([2e9])


@pytest.mark.parametrize("derive", [derive_start, derive_density, derive_load, derive_inside])
def test_an_empty_trial_gives_no_samples(derive: object) -> None:
    """A trial that failed in set-up has no tables, and no invented numbers."""
    assert callable(derive)
    assert derive({}, START) == ()
